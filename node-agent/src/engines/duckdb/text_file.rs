//! What is known about a text file before DuckDB reads it: its bytes, unpacked, and the names in the header of a CSV file.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::super::error::EngineError;
use super::control::SqlControl;
use super::incoming::{Limits, check_columns};

/// Longest header of a CSV file.
const MAX_HEADER: u64 = 256 << 10;
/// Deepest nesting of JSON.
const MAX_DEPTH: usize = 100;
/// Memory for what a Zstandard file may refer back to, as a power of two.
const MAX_WINDOW: u32 = 25;

fn bad(message: impl Into<String>) -> EngineError {
    EngineError::invalid("files", message)
}

/// Unpacks `source` to `target` if it is packed, as its first bytes say; within the limits. False if it is not.
///
/// # Errors
/// `Invalid` if it cannot be unpacked, and what the limits and `control` say.
pub(super) fn unpack(
    source: &Path,
    target: &Path,
    limits: &Limits<'_>,
    control: &SqlControl,
) -> Result<bool, EngineError> {
    let read = |error: std::io::Error| EngineError::io("read", source, error);
    let mut packed = BufReader::with_capacity(1 << 20, File::open(source).map_err(read)?);
    let beginning = packed.fill_buf().map_err(read)?;
    let mut unpacked: Box<dyn Read> = if beginning.starts_with(&[0x1f, 0x8b]) {
        Box::new(MultiGzDecoder::new(packed))
    } else if beginning.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let mut decoder = zstd::Decoder::with_buffer(packed).map_err(read)?;
        decoder.window_log_max(MAX_WINDOW).map_err(read)?;
        Box::new(decoder)
    } else {
        return Ok(false);
    };
    let write = |error: std::io::Error| EngineError::io("write", target, error);
    let mut file = File::create(target).map_err(write)?;
    let (mut portion, mut size) = (vec![0; 1 << 20], 0u64);
    loop {
        control.check()?;
        let count = unpacked
            .read(&mut portion)
            .map_err(|error| bad(format!("it cannot be unpacked: {error}")))?;
        if count == 0 {
            return Ok(true);
        }
        size += count as u64;
        limits.check(target, size)?;
        file.write_all(&portion[..count]).map_err(write)?;
    }
}

/// Refuses JSON whose values are nested too deeply: DuckDB overflows its stack over a few thousand levels, which ends the
/// process. Brackets in texts do not count. A text ends with its line at the latest, so that one that is not closed hides
/// nothing.
///
/// # Errors
/// `Invalid` for such a file, and what `control` says.
pub(super) fn check_depth(source: &Path, control: &SqlControl) -> Result<(), EngineError> {
    let read = |error: std::io::Error| EngineError::io("read", source, error);
    let mut file = File::open(source).map_err(read)?;
    let mut portion = vec![0; 1 << 20];
    let mut depth = Depth::default();
    loop {
        control.check()?;
        let count = file.read(&mut portion).map_err(read)?;
        if count == 0 {
            return Ok(());
        }
        if !depth.holds(&portion[..count]) {
            return Err(bad(format!("it has values that are nested more than {MAX_DEPTH} deep")));
        }
    }
}

/// How deep a JSON text is nested where it has been read to.
#[derive(Default)]
struct Depth {
    open: usize,
    in_text: bool,
    escaped: bool,
}

impl Depth {
    /// Reads on; false if it is too deep.
    fn holds(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            let escaped = std::mem::take(&mut self.escaped);
            match byte {
                b'\n' => self.in_text = false,
                b'\\' if self.in_text => self.escaped = !escaped,
                b'"' if !escaped => self.in_text = !self.in_text,
                b'[' | b'{' if !self.in_text => self.open += 1,
                b']' | b'}' if !self.in_text => self.open = self.open.saturating_sub(1),
                _ => {}
            }
            if self.open > MAX_DEPTH {
                return false;
            }
        }
        true
    }
}

/// The names in the first line of a CSV file. They have to be names: what looks like a line of values is refused, since
/// the first row of a file without a header would be lost.
///
/// # Errors
/// `Invalid` if there are none, or if two are the same.
pub(super) fn header(source: &Path) -> Result<Vec<String>, EngineError> {
    let read = |error: std::io::Error| EngineError::io("read", source, error);
    let mut bytes = Vec::new();
    let file = File::open(source).map_err(read)?;
    file.take(MAX_HEADER).read_to_end(&mut bytes).map_err(read)?;
    let names = fields(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes))?;
    check_columns(names.len())?;
    for (index, name) in names.iter().enumerate() {
        let place = index + 1;
        if name.trim().is_empty() {
            return Err(bad(format!("the header has no name for column {place}")));
        }
        if name.trim().parse::<f64>().is_ok() {
            return Err(bad(format!(
                "the header calls column {place} {name:?}; the first line has to name the columns"
            )));
        }
        // As SQL compares names.
        if names[..index].iter().any(|before| before.eq_ignore_ascii_case(name)) {
            return Err(bad(format!("the header has {name:?} twice")));
        }
    }
    Ok(names)
}

/// The fields of the first record of a CSV text.
fn fields(text: &[u8]) -> Result<Vec<String>, EngineError> {
    let mut fields: Vec<Vec<u8>> = vec![Vec::new()];
    let (mut quoted, mut ended) = (false, false);
    let mut rest = text.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        let Some(field) = fields.last_mut() else { break };
        match byte {
            b'"' if quoted && rest.peek() == Some(&b'"') => {
                field.push(b'"');
                rest.next();
            }
            b'"' if quoted || field.is_empty() => quoted = !quoted,
            b',' if !quoted => fields.push(Vec::new()),
            b'\n' | b'\r' if !quoted => {
                ended = true;
                break;
            }
            0 => return Err(bad("the header has a NUL character; CSV files are UTF-8")),
            other => field.push(other),
        }
    }
    if quoted || (!ended && text.len() as u64 >= MAX_HEADER) {
        return Err(bad(format!("the header does not end within {MAX_HEADER} bytes")));
    }
    fields
        .into_iter()
        .map(|field| String::from_utf8(field).map_err(|_| bad("the header is not UTF-8")))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn header_of(text: &[u8]) -> Result<Vec<String>, EngineError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        header(file.path())
    }

    #[test]
    fn nesting_counts_outside_of_texts() {
        let deep = |text: &str| !Depth::default().holds(text.as_bytes());
        let brackets = "[".repeat(MAX_DEPTH);
        assert!(!deep(&brackets) && deep(&format!("[{brackets}")));
        assert!(!deep(&format!("{{\"a\\\"{brackets}[[\": 1}}")));
        assert!(deep(&format!("{{\"a\\\\\": {brackets}")));
        assert!(deep(&format!("\"not closed\n[{brackets}")));
        assert!(deep(&format!("]]]][{brackets}")));
        assert!(!deep(&"{\"a\": [1]}\n".repeat(1000)));
    }

    #[test]
    fn a_header_has_a_name_for_every_column() {
        for (text, names) in [
            (&b"a,b\n1,2\n"[..], &["a", "b"][..]),
            (&b"\xef\xbb\xbfa,\"b, \"\"c\"\"\nd\"\r\n"[..], &["a", "b, \"c\"\nd"][..]),
            (&b"a;b"[..], &["a;b"][..]),
        ] {
            assert_eq!(header_of(text).unwrap(), names);
        }
        for text in [
            &b""[..],
            b"a,,b\n",
            b"a,A\n",
            b"1,x\n2,y\n",
            b"a,\"b\n",
            b"a,\xff\n",
            b"\xff\xfea\0,\0b\0\n\0",
        ] {
            header_of(text).unwrap_err();
        }
        header_of(&vec![b'x'; 1 << 20]).unwrap_err();
    }
}
