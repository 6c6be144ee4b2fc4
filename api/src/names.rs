//! Names in URLs: checked before they become part of a request to the Kubernetes API.

/// Whether `name` can be the name of an object at all (a DNS subdomain).
pub(crate) fn is_object_name(name: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    bytes.len() <= 253
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
}

/// Whether `name` can be the name of a namespace (a DNS label).
pub(crate) fn is_namespace(name: &str) -> bool {
    name.len() <= 63 && !name.contains('.') && is_object_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_cannot_leave_their_place_pass() {
        for good in ["a", "karate", "kg0123456789abcdef", "a-b.c", "9"] {
            assert!(is_object_name(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "../x",
            "A",
            "-a",
            "a-",
            "a_b",
            "a?b",
            "a%2fb",
            "ü",
            &"a".repeat(254),
        ] {
            assert!(!is_object_name(bad), "{bad}");
        }
        assert!(is_namespace("team-a") && !is_namespace("team.a") && !is_namespace(&"a".repeat(64)));
    }
}
