//! Values of a result as texts.

use serde_json::Value;
use std::fmt::Write;

/// A value as it stands in a table: texts without quotes, nested values as JSON, nothing for null.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => printable(text),
        other => printable(&other.to_string()),
    }
}

/// The text with control characters shown as escapes: data must not be able to drive the terminal.
pub fn printable(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => shown.push_str("\\n"),
            '\t' => shown.push_str("\\t"),
            '\r' => shown.push_str("\\r"),
            c if c.is_control() => {
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
            }
            c => shown.push(c),
        }
    }
    shown
}

/// A value as a field of CSV (RFC 4180): quoted where it must be, and an empty text quoted so that it differs from null.
pub(super) fn csv(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => csv_text(text),
        other => csv_text(&other.to_string()),
    }
}

/// A text as a field of CSV.
pub(super) fn csv_text(text: &str) -> String {
    if text.is_empty() || text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn csv_quotes_what_must_be_quoted_and_nothing_else() {
        for (value, expected) in [
            (json!("plain"), "plain"),
            (json!("a,b"), "\"a,b\""),
            (json!("say \"hi\""), "\"say \"\"hi\"\"\""),
            (json!("two\nlines"), "\"two\nlines\""),
            (json!("a\r"), "\"a\r\""),
            (json!(" spaced "), " spaced "),
            (json!(""), "\"\""),
            (json!(null), ""),
            (json!(1.5), "1.5"),
            (json!(-7), "-7"),
            (json!(true), "true"),
            (json!([1, "x"]), "\"[1,\"\"x\"\"]\""),
        ] {
            assert_eq!(csv(&value), expected, "{value}");
        }
    }

    #[test]
    fn data_cannot_drive_the_terminal() {
        assert_eq!(printable("\u{1b}[31mred\u{7}"), "\\u{1b}[31mred\\u{7}");
        assert_eq!(text(&json!("a\nb\tc")), "a\\nb\\tc");
        assert_eq!(printable("naïve 東京"), "naïve 東京");
        // C1 controls are a terminal's too: U+009B is a one-character `ESC [`.
        assert_eq!(printable("\u{9b}31m"), "\\u{9b}31m");
    }
}
