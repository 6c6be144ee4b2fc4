//! The grammar of the addresses.

/// What an address means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `/apis/{group}`.
    Group(String),
    /// `/api/v1` (empty group) or `/apis/{group}/{version}`.
    GroupVersion(String, String),
    /// Objects.
    Resource(ResourcePath),
    Unknown,
}

/// `/apis/{group}/{version}[/namespaces/{namespace}]/{plural}[/{name}[/{subresource}]]`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ResourcePath {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) namespace: Option<String>,
    pub(super) plural: String,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
}

/// Reads the path of a URL.
pub(super) fn parse(path: &str) -> Route {
    let Some(segments) = path
        .trim_matches('/')
        .split('/')
        .map(decode)
        .collect::<Option<Vec<String>>>()
    else {
        return Route::Unknown;
    };
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    if segments.iter().any(|s| s.is_empty()) {
        return Route::Unknown;
    }
    match segments.as_slice() {
        ["api", version] => Route::GroupVersion(String::new(), (*version).to_owned()),
        ["api", version, rest @ ..] => resource("", version, rest),
        ["apis", group] => Route::Group((*group).to_owned()),
        ["apis", group, version] => Route::GroupVersion((*group).to_owned(), (*version).to_owned()),
        ["apis", group, version, rest @ ..] => resource(group, version, rest),
        _ => Route::Unknown,
    }
}

fn resource(group: &str, version: &str, rest: &[&str]) -> Route {
    let of = |namespace: Option<&str>, plural: &str, rest: &[&str]| {
        let (name, subresource) = match rest {
            [] => (None, None),
            [name] => (Some(*name), None),
            [name, subresource] => (Some(*name), Some(*subresource)),
            _ => return Route::Unknown,
        };
        Route::Resource(ResourcePath {
            group: group.to_owned(),
            version: version.to_owned(),
            namespace: namespace.map(str::to_owned),
            plural: plural.to_owned(),
            name: name.map(str::to_owned),
            subresource: subresource.map(str::to_owned),
        })
    };
    match rest {
        // Namespaces are objects themselves: what follows a namespace is one of its subresources or a resource in it.
        ["namespaces", _, "status" | "finalize"] if group.is_empty() => of(None, "namespaces", &rest[1..]),
        ["namespaces", namespace, plural, rest @ ..] => of(Some(namespace), plural, rest),
        [plural, rest @ ..] => of(None, plural, rest),
        [] => Route::Unknown,
    }
}

/// Undoes percent-encoding; nothing for what is no valid encoding of text.
fn decode(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |b: Option<u8>| char::from(b?).to_digit(16).and_then(|d| u8::try_from(d).ok());
            bytes.push(digit(rest.next())? << 4 | digit(rest.next())?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn found(path: &str) -> (String, Option<String>, String, Option<String>, Option<String>) {
        match parse(path) {
            Route::Resource(r) => (
                format!("{}/{}", r.group, r.version),
                r.namespace,
                r.plural,
                r.name,
                r.subresource,
            ),
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn addresses() {
        let s = |text: &str| Some(text.to_owned());
        assert_eq!(
            found("/api/v1/namespaces"),
            ("/v1".into(), None, "namespaces".into(), None, None)
        );
        assert_eq!(
            found("/api/v1/namespaces/a"),
            ("/v1".into(), None, "namespaces".into(), s("a"), None)
        );
        assert_eq!(
            found("/api/v1/namespaces/a/status"),
            ("/v1".into(), None, "namespaces".into(), s("a"), s("status"))
        );
        assert_eq!(
            found("/api/v1/namespaces/a/secrets"),
            ("/v1".into(), s("a"), "secrets".into(), None, None)
        );
        assert_eq!(
            found("/apis/g/v1/namespaces/a/graphs/x/scale"),
            ("g/v1".into(), s("a"), "graphs".into(), s("x"), s("scale"))
        );
        assert_eq!(
            found("/apis/g/v1/tiers/x%3Ay"),
            ("g/v1".into(), None, "tiers".into(), s("x:y"), None)
        );
        assert_eq!(parse("/apis/g"), Route::Group("g".into()));
        assert_eq!(parse("/apis/g/v1/"), Route::GroupVersion("g".into(), "v1".into()));
        for bad in [
            "/",
            "/foo",
            "/api/v1/a/b/c/d",
            "/apis/g/v1/a//b",
            "/api/v1/a%zz",
            "/api/v1/a%ff",
        ] {
            assert_eq!(parse(bad), Route::Unknown, "{bad}");
        }
    }
}
