//! A tokenizer for Cypher that agrees with the engine's lexer wherever a disagreement could hide a word from the guard:
//! what ends a comment, what a string may contain, where a number stops and a word begins.
//!
//! Where the engine would fall back to an "unknown" token (a string that is never closed, an escape that does not
//! exist, a comment that is never closed) this tokenizer refuses the text, because what follows such a place means
//! different things to different readers.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A bare word: a keyword or an identifier.
    Word,
    /// An identifier in backticks; never a keyword.
    Quoted,
    /// Digits, with an exponent if there is one.
    Number,
    /// A string in single or double quotes.
    Text,
    /// Any other character.
    Symbol(char),
}

/// One token and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) kind: TokenKind,
    /// As written, with quotes.
    pub(crate) text: &'a str,
    /// Byte offset of its first character.
    pub(crate) start: usize,
}

impl Token<'_> {
    /// True if this is the bare word `keyword` in any case.
    pub(crate) fn is_word(&self, keyword: &str) -> bool {
        self.kind == TokenKind::Word && self.text.eq_ignore_ascii_case(keyword)
    }

    pub(crate) fn is_symbol(&self, symbol: char) -> bool {
        self.kind == TokenKind::Symbol(symbol)
    }

    /// The identifier a bare or quoted word stands for.
    pub(crate) fn identifier(&self) -> Option<String> {
        match self.kind {
            TokenKind::Word => Some(self.text.to_owned()),
            TokenKind::Quoted => Some(self.text.trim_matches('`').to_owned()),
            _ => None,
        }
    }
}

/// Why a text has no tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenError {
    pub(crate) message: &'static str,
    pub(crate) start: usize,
}

/// Splits `text` into tokens. Linear in its length.
pub(crate) fn tokenize(text: &str) -> Result<Vec<Token<'_>>, TokenError> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::with_capacity(text.len() / 4 + 4);
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let kind = match bytes[at] {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | 0x1c..=0x1f => {
                at += 1;
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                at = block_comment(bytes, at)?;
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                at = line_comment(bytes, at)?;
                continue;
            }
            b'\'' | b'"' => {
                at = string(bytes, at)?;
                TokenKind::Text
            }
            b'`' => {
                at = match bytes[at + 1..].iter().position(|b| *b == b'`') {
                    Some(length) => at + length + 2,
                    None => {
                        return Err(TokenError {
                            message: "a name in backticks is not closed",
                            start,
                        });
                    }
                };
                TokenKind::Quoted
            }
            b'0'..=b'9' => {
                at = number(bytes, at);
                TokenKind::Number
            }
            b'A'..=b'Z' | b'a'..=b'z' | b'_' => {
                at = word(text, at);
                TokenKind::Word
            }
            byte if byte.is_ascii() => {
                at += 1;
                TokenKind::Symbol(char::from(byte))
            }
            _ => {
                let c = text[at..].chars().next().unwrap_or(char::REPLACEMENT_CHARACTER);
                if c.is_whitespace() || c == '\u{180e}' {
                    at += c.len_utf8();
                    continue;
                }
                if c.is_alphabetic() {
                    at = word(text, at);
                    TokenKind::Word
                } else {
                    at += c.len_utf8();
                    TokenKind::Symbol(c)
                }
            }
        };
        tokens.push(Token {
            kind,
            text: &text[start..at],
            start,
        });
    }
    Ok(tokens)
}

/// The engine reads a comment as pairs: a `*` that is not followed by `/` takes the next character with it. So
/// `/* **/` is still open, and what seems to follow it is comment.
fn block_comment(bytes: &[u8], start: usize) -> Result<usize, TokenError> {
    let mut at = start + 2;
    while at < bytes.len() {
        if bytes[at] != b'*' {
            at += 1;
        } else if bytes.get(at + 1) == Some(&b'/') {
            return Ok(at + 2);
        } else {
            at += 2;
        }
    }
    Err(TokenError {
        message: "a comment is not closed (write it as /* … */ with a single * before the /)",
        start,
    })
}

/// A line comment ends with a line feed or with the text; a carriage return is only allowed right before either.
fn line_comment(bytes: &[u8], start: usize) -> Result<usize, TokenError> {
    let mut at = start + 2;
    while at < bytes.len() {
        match bytes[at] {
            b'\n' => return Ok(at + 1),
            b'\r' => match bytes.get(at + 1) {
                None => return Ok(at + 1),
                Some(b'\n') => return Ok(at + 2),
                Some(_) => {
                    return Err(TokenError {
                        message: "a carriage return without a line feed in a comment",
                        start: at,
                    });
                }
            },
            _ => at += 1,
        }
    }
    Ok(at)
}

fn string(bytes: &[u8], start: usize) -> Result<usize, TokenError> {
    let quote = bytes[start];
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            byte if byte == quote => return Ok(at + 1),
            b'\\' => {
                let hex = |count: usize| {
                    bytes
                        .get(at + 2..at + 2 + count)
                        .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
                };
                at += match bytes.get(at + 1) {
                    Some(
                        b'\\' | b'\'' | b'"' | b'b' | b'B' | b'f' | b'F' | b'n' | b'N' | b'r' | b'R' | b't' | b'T',
                    ) => 2,
                    Some(b'x' | b'X') if hex(2) => 4,
                    // Half of a character (D800 to DFFF) would make text that is not UTF-8.
                    Some(b'u' | b'U') if hex(4) && !is_surrogate(&bytes[at + 2..at + 4]) => 6,
                    _ => {
                        return Err(TokenError {
                            message: "a string has an unknown escape (known are \\\\ \\' \\\" \\b \\f \\n \\r \\t \\xHH \\uHHHH)",
                            start: at,
                        });
                    }
                };
            }
            _ => at += 1,
        }
    }
    Err(TokenError {
        message: "a string is not closed",
        start,
    })
}

/// The first two digits of `\u` are those of half a character.
fn is_surrogate(digits: &[u8]) -> bool {
    matches!(digits, [b'd' | b'D', second] if !matches!(second, b'0'..=b'7'))
}

/// Digits, then an exponent only if it has digits: `1LOAD` is the number 1 and the word LOAD.
fn number(bytes: &[u8], start: usize) -> usize {
    let digits = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    };
    let at = digits(start);
    if !matches!(bytes.get(at), Some(b'e' | b'E')) {
        return at;
    }
    let first = if bytes.get(at + 1) == Some(&b'-') {
        at + 2
    } else {
        at + 1
    };
    let end = digits(first);
    if end > first { end } else { at }
}

fn word(text: &str, start: usize) -> usize {
    let rest = &text[start..];
    rest.char_indices()
        .find(|(_, c)| !(c.is_alphanumeric() || *c == '_'))
        .map_or(text.len(), |(length, _)| start + length)
}

/// Line and column (both from 1, in characters) of a byte offset.
pub(crate) fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str) -> Vec<&str> {
        tokenize(text)
            .unwrap()
            .iter()
            .filter(|t| t.kind == TokenKind::Word)
            .map(|t| t.text)
            .collect()
    }

    #[test]
    fn numbers_end_where_the_engine_ends_them() {
        assert_eq!(words("SKIP 1LOAD"), ["SKIP", "LOAD"]);
        assert_eq!(words("SKIP 1e5LOAD"), ["SKIP", "LOAD"]);
        assert_eq!(words("SKIP 1e-5LOAD"), ["SKIP", "LOAD"]);
        assert_eq!(words("SKIP 1eLOAD"), ["SKIP", "eLOAD"]);
        assert_eq!(words("1.5e3LOAD"), ["LOAD"]);
    }

    #[test]
    fn comments_end_where_the_engine_ends_them() {
        assert_eq!(words("/* a */ b"), ["b"]);
        assert_eq!(words("/***/ a */ b"), ["b"]);
        assert_eq!(words("/* **/ ' */ LOAD //'"), ["LOAD"]);
        assert_eq!(words("// a\nb // c\r\nd // e\r"), ["b", "d"]);
        assert!(tokenize("/* **/ b").is_err());
        assert!(tokenize("// a\rLOAD").is_err());
    }

    #[test]
    fn strings_with_escapes_stay_one_token() {
        let tokens = tokenize(r#"'it\'s \\' "a \" LOAD" '\u0041\x4a'"#).unwrap();
        assert!(tokens.iter().all(|t| t.kind == TokenKind::Text));
        assert_eq!(tokens.len(), 3);
        assert!(tokenize(r"'\q'").is_err());
        assert!(tokenize(r"'\u00g1'").is_err());
        assert!(tokenize(r"'\ud7ff\uE000'").is_ok());
        assert!(tokenize(r"'\uD83D\uDE00'").is_err() && tokenize(r"'\udFFF'").is_err());
        assert!(tokenize("'open").is_err());
        assert!(tokenize("`open").is_err());
    }

    #[test]
    fn positions_count_lines_and_characters() {
        assert_eq!(position("é\nab", 4), (2, 2));
        assert_eq!(position("", 0), (1, 1));
    }

    proptest! {
        #[test]
        fn any_text_is_covered_in_order(text in "\\PC{0,200}") {
            if let Ok(tokens) = tokenize(&text) {
                let mut end = 0;
                for token in tokens {
                    prop_assert!(token.start >= end && !token.text.is_empty());
                    end = token.start + token.text.len();
                    prop_assert!(text.is_char_boundary(end));
                }
            }
        }

        #[test]
        fn a_quoted_text_is_one_token(text in "[^'\\\\]{0,80}") {
            let quoted = format!("'{text}'");
            prop_assert_eq!(tokenize(&quoted).unwrap().len(), 1);
        }
    }
}
