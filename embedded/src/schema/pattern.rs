//! Regular expressions of schemas: RE2 as Go speaks it, translated to the dialect of the `regex` crate.
//!
//! The two agree on nearly everything. They differ in `\d`, `\w`, `\s` and `\b`, which are ASCII-only in Go and Unicode
//! here, and in characters that are literal inside a Go class but operators inside a class of the `regex` crate.

use regex::Regex;

/// Compiles a `pattern`.
///
/// # Errors
/// The message of the regular expression compiler.
pub(super) fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    Regex::new(&translate(pattern))
}

fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut chars = pattern.chars().peekable();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped) => push_escape(&mut out, escaped, in_class),
                // A lone backslash at the end is an error in both dialects; keep it so that the compiler says so.
                None => out.push('\\'),
            },
            '[' if !in_class => {
                in_class = true;
                out.push('[');
                if chars.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                // The first `]` of a class is a literal in both dialects; escaping it makes that independent of what follows.
                if chars.next_if_eq(&']').is_some() {
                    out.push_str("\\]");
                }
            }
            '[' => {
                // `[:alpha:]` is the same in both; any other bracket inside a class is a literal in Go.
                if chars.peek() == Some(&':') {
                    out.push('[');
                    for inner in chars.by_ref() {
                        out.push(inner);
                        if inner == ']' {
                            break;
                        }
                    }
                } else {
                    out.push_str("\\[");
                }
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    out
}

fn push_escape(out: &mut String, escaped: char, in_class: bool) {
    let ascii = match escaped {
        'd' => Some("[0-9]"),
        'D' => Some("[^0-9]"),
        'w' => Some("[0-9A-Za-z_]"),
        'W' => Some("[^0-9A-Za-z_]"),
        's' => Some("[\\t\\n\\x0C\\r ]"),
        'S' => Some("[^\\t\\n\\x0C\\r ]"),
        'b' if !in_class => Some("(?-u:\\b)"),
        'B' if !in_class => Some("(?-u:\\B)"),
        _ => None,
    };
    match ascii {
        // Nested classes are a union here, so the same text serves inside and outside a class.
        Some(text) => out.push_str(text),
        None => {
            out.push('\\');
            out.push(escaped);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::compile;

    #[test]
    fn matches_as_go_does() {
        let cases = [
            (r"^\d+$", "123", true),
            (r"^\d+$", "١٢٣", false),
            (r"^\w+$", "a_9", true),
            (r"^\w+$", "é", false),
            (r"^[\w.-]+$", "a-b.c", true),
            (r"^[\w.-]+$", "é", false),
            (r"^[^\d]+$", "abc", true),
            (r"^[^\d]+$", "a1", false),
            (r"^\S+$", "a b", false),
            (r"^[a-z&&b]+$", "&", true),
            (r"^[[a]+$", "[a", true),
            (r"^[]a]+$", "]a", true),
            (r"^[[:alpha:]]+$", "abc", true),
            (r"^[[:alpha:]]+$", "ab1", false),
            (r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "kg-1", true),
            (r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "-kg", false),
            (r"\bfoo\b", "a foo b", true),
            (r"^a\.b$", "axb", false),
            (r"^(\d+h)?(\d+m)?$", "4h", true),
            (r"", "anything", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(
                compile(pattern).unwrap().is_match(text),
                expected,
                "{pattern} on {text}"
            );
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        for pattern in ["(", "[a", "a{2,1}", r"\", "(?<=a)b"] {
            assert!(compile(pattern).is_err(), "{pattern}");
        }
    }
}
