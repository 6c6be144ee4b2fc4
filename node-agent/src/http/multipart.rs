//! The texts of a `multipart/form-data` body (RFC 7578). The body is short and read already; what comes of it is never
//! longer than it.

/// The boundary among the parameters of a content type.
pub(crate) fn boundary(parameters: &str) -> Option<&str> {
    let (_, value) = parameters
        .split(';')
        .filter_map(|parameter| parameter.trim().split_once('='))
        .find(|(name, _)| name.eq_ignore_ascii_case("boundary"))?;
    let boundary = value.trim_matches('"');
    (1..=70).contains(&boundary.len()).then_some(boundary)
}

/// Names and values, in their order; at most `most` of them.
///
/// # Errors
/// Why it cannot be read.
pub(crate) fn texts(body: &[u8], boundary: &str, most: usize) -> Result<Vec<(String, String)>, &'static str> {
    let delimiter = format!("\r\n--{boundary}");
    // The first delimiter has no line before it; with one, all are alike.
    let body = [b"\r\n", body].concat();
    let mut rest = after(&body, delimiter.as_bytes()).ok_or("its boundary is not in it")?;
    let mut texts = Vec::new();
    loop {
        if rest.starts_with(b"--") {
            return Ok(texts);
        }
        let end = find(rest, delimiter.as_bytes()).ok_or("it ends in the middle of a part")?;
        let part = rest[..end]
            .strip_prefix(b"\r\n")
            .ok_or("a part does not begin on a line of its own")?;
        if texts.len() == most {
            return Err("it has too many fields");
        }
        texts.push(text(part)?);
        rest = &rest[end + delimiter.len()..];
    }
}

fn text(part: &[u8]) -> Result<(String, String), &'static str> {
    let blank = find(part, b"\r\n\r\n").ok_or("a part has no end of its headers")?;
    let headers = std::str::from_utf8(&part[..blank]).map_err(|_| "a header is not text")?;
    let (_, disposition) = headers
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-disposition"))
        .ok_or("a part has no name")?;
    let parameter = |wanted: &str| {
        disposition
            .split(';')
            .filter_map(|parameter| parameter.trim().split_once('='))
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.trim_matches('"').to_owned())
    };
    let name = parameter("name").ok_or("a part has no name")?;
    if parameter("filename").is_some() || parameter("filename*").is_some() {
        return Err("files are not taken here; name a backup in the object store");
    }
    let text = std::str::from_utf8(&part[blank + 4..]).map_err(|_| "a field is not text")?;
    Ok((name, text.to_owned()))
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

fn after<'t>(text: &'t [u8], what: &[u8]) -> Option<&'t [u8]> {
    find(text, what).map(|at| &text[at + what.len()..])
}
