//! Schema text as statements: splitting, what is left to apply, and what a statement creates.
//!
//! Splitting follows the lexical rules of LadybugDB's Cypher: strings in single or double quotes with `\` escapes, names
//! in backticks, `//` comments to the end of the line, and block comments in which a `*` that is not followed by `/`
//! takes the next character with it.

use graphplane_crds::graph::AppliedSchema;
use sha2::{Digest, Sha256};

/// A schema of which the applied part is not the beginning of the wanted one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaConflict {
    /// Statements that were applied are no longer there.
    #[error("ddl has {wanted} statements, but {applied} were applied already; put the removed statements back")]
    Shorter {
        /// Statements in the spec.
        wanted: usize,
        /// Statements that were applied.
        applied: usize,
    },
    /// A statement that was applied has another text now.
    #[error(
        "the first {applied} statements of ddl are not those that were applied; put the former text back and append \
         new statements after it (end the last one with `;` first)"
    )]
    Changed {
        /// Statements that were applied.
        applied: usize,
    },
}

/// Splits a schema text at `;`, outside strings, names and comments. Parts without a word are dropped; what is kept
/// is trimmed, comments included.
pub fn split(ddl: &str) -> Vec<&str> {
    let bytes = ddl.as_bytes();
    let (mut parts, mut start, mut at, mut has_words) = (Vec::new(), 0, 0, false);
    while at < bytes.len() {
        match bytes[at] {
            b';' => {
                if has_words {
                    parts.push(ddl[start..at].trim());
                }
                (start, has_words) = (at + 1, false);
                at += 1;
            }
            quote @ (b'\'' | b'"') => {
                has_words = true;
                at = after_string(bytes, at, quote);
            }
            b'`' => {
                has_words = true;
                at = bytes[at + 1..]
                    .iter()
                    .position(|b| *b == b'`')
                    .map_or(bytes.len(), |n| at + n + 2);
            }
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                at = bytes[at..]
                    .iter()
                    .position(|b| *b == b'\n')
                    .map_or(bytes.len(), |n| at + n + 1);
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => at = after_comment(bytes, at),
            byte => {
                has_words |= !byte.is_ascii_whitespace();
                at += 1;
            }
        }
    }
    if has_words {
        parts.push(ddl[start..].trim());
    }
    parts
}

fn after_string(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn after_comment(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 2;
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'*', Some(b'/')) => return at + 2,
            (b'*', _) => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// What is written down after the first `count` statements were applied.
pub fn applied(statements: &[&str], count: usize) -> AppliedSchema {
    let count = count.min(statements.len());
    let mut hash = Sha256::new();
    for statement in &statements[..count] {
        hash.update((statement.len() as u64).to_be_bytes());
        hash.update(statement.as_bytes());
    }
    AppliedSchema {
        statements: u32::try_from(count).unwrap_or(u32::MAX),
        hash: hex::encode(hash.finalize()),
    }
}

/// How many of `statements` were applied already.
///
/// # Errors
/// When what was applied is not the beginning of `statements`.
pub fn done(statements: &[&str], before: Option<&AppliedSchema>) -> Result<usize, SchemaConflict> {
    let Some(before) = before else { return Ok(0) };
    let count = before.statements as usize;
    if count > statements.len() {
        return Err(SchemaConflict::Shorter {
            wanted: statements.len(),
            applied: count,
        });
    }
    if applied(statements, count) != *before {
        return Err(SchemaConflict::Changed { applied: count });
    }
    Ok(count)
}

/// The table that a statement creates, if it creates one: `CREATE NODE TABLE` or `CREATE REL TABLE`, with or without
/// `IF NOT EXISTS`.
///
/// Used to tell, after a crash between the engine's answer and our note of it, which statements took effect.
pub fn created_table(statement: &str) -> Option<String> {
    let mut words = words(statement);
    let mut next = || words.next();
    let is = |word: &Option<String>, text: &str| word.as_deref().is_some_and(|w| w.eq_ignore_ascii_case(text));
    if !is(&next(), "CREATE") {
        return None;
    }
    let kind = next();
    if !(is(&kind, "NODE") || is(&kind, "REL")) || !is(&next(), "TABLE") {
        return None;
    }
    let mut name = next();
    // `CREATE REL TABLE GROUP x` is the older form.
    if is(&name, "GROUP") && is(&kind, "REL") {
        name = next();
    }
    if is(&name, "IF") {
        if !(is(&next(), "NOT") && is(&next(), "EXISTS")) {
            return None;
        }
        name = next();
    }
    name.filter(|n| n.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_'))
}

/// Words of a statement: identifiers, with backticks removed; comments and white space are skipped, any other character
/// is a word of its own.
fn words(statement: &str) -> impl Iterator<Item = String> + '_ {
    let bytes = statement.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            match *bytes.get(at)? {
                b'/' if bytes.get(at + 1) == Some(&b'/') => {
                    at = bytes[at..]
                        .iter()
                        .position(|b| *b == b'\n')
                        .map_or(bytes.len(), |n| at + n + 1);
                }
                b'/' if bytes.get(at + 1) == Some(&b'*') => at = after_comment(bytes, at),
                byte if byte.is_ascii_whitespace() => at += 1,
                b'`' => {
                    let end = bytes[at + 1..]
                        .iter()
                        .position(|b| *b == b'`')
                        .map_or(bytes.len(), |n| at + 1 + n);
                    let word = String::from_utf8_lossy(&bytes[(at + 1).min(end)..end]).into_owned();
                    at = end + 1;
                    return Some(word);
                }
                _ => {
                    let rest = String::from_utf8_lossy(&bytes[at..]);
                    let word: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                    let word = if word.is_empty() {
                        rest.chars().take(1).collect()
                    } else {
                        word
                    };
                    at += word.len().max(1);
                    return Some(word);
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn semicolons_in_strings_names_and_comments_do_not_split() {
        let ddl = "CREATE NODE TABLE A(x STRING DEFAULT 'a;\\'b', PRIMARY KEY(x)); // one; two\n\
                   /* three; **/ still; */ CREATE REL TABLE `R;S`(FROM A TO A);\n;  ; // nothing\n";
        let parts = split(ddl);
        assert_eq!(parts.len(), 2, "{parts:?}");
        assert!(parts[0].ends_with("PRIMARY KEY(x))"));
        assert!(parts[1].ends_with("(FROM A TO A)"));
        assert_eq!(split("  \n ; /* only */ "), Vec::<&str>::new());
        assert_eq!(split("a 'never closed ; b"), ["a 'never closed ; b"]);
        assert_eq!(split("ü; é"), ["ü", "é"]);
    }

    #[test]
    fn a_schema_may_only_grow() {
        let first = split("CREATE NODE TABLE A(x INT64 PRIMARY KEY);");
        let noted = applied(&first, 1);
        let grown = split("CREATE NODE TABLE A(x INT64 PRIMARY KEY);\n CREATE REL TABLE R(FROM A TO A)");
        assert_eq!(done(&grown, Some(&noted)), Ok(1));
        assert_eq!(done(&grown, None), Ok(0));
        assert_eq!(
            done(&[], Some(&noted)),
            Err(SchemaConflict::Shorter { wanted: 0, applied: 1 })
        );
        let glued = split("CREATE NODE TABLE A(x INT64 PRIMARY KEY) more");
        assert_eq!(done(&glued, Some(&noted)), Err(SchemaConflict::Changed { applied: 1 }));
        assert_eq!(done(&first, Some(&applied(&first, 0))), Ok(0));
    }

    #[test]
    fn the_created_table_is_found() {
        for (statement, table) in [
            ("CREATE NODE TABLE Airport(iata STRING PRIMARY KEY)", Some("Airport")),
            (
                "create  node table if not exists `My Table` (x INT64 PRIMARY KEY)",
                Some("My Table"),
            ),
            (
                "// note\nCREATE /* x */ REL TABLE Route(FROM Airport TO Airport)",
                Some("Route"),
            ),
            ("CREATE REL TABLE GROUP Knows(FROM A TO B)", Some("Knows")),
            ("CREATE INDEX i ON Airport", None),
            ("COMMENT ON TABLE Airport IS 'CREATE NODE TABLE x'", None),
            ("CREATE NODE TABLE", None),
            ("CREATE NODE TABLE (x INT64)", None),
            ("", None),
        ] {
            assert_eq!(created_table(statement).as_deref(), table, "{statement}");
        }
    }

    proptest! {
        #[test]
        fn splitting_never_panics_and_loses_no_word(ddl in "[a-z;'\"`/* \\\\\nü]{0,60}") {
            let parts = split(&ddl);
            for part in &parts {
                prop_assert!(ddl.contains(part) && !part.is_empty());
                created_table(part);
            }
            // Without quotes and comments it is plain splitting.
            if !ddl.contains(['\'', '"', '`', '/']) {
                let plain: Vec<&str> = ddl.split(';').map(str::trim).filter(|p| !p.is_empty()).collect();
                prop_assert_eq!(parts, plain);
            }
        }

        #[test]
        fn appending_a_statement_keeps_what_was_applied(first in "[a-z ]{1,10}(;[a-z ]{1,10}){0,4};", more in "[a-z ]{1,10}") {
            let before = split(&first);
            let noted = applied(&before, before.len());
            let grown = format!("{first}{more}");
            prop_assert_eq!(done(&split(&grown), Some(&noted)), Ok(before.len()));
        }

        #[test]
        fn different_statements_have_different_hashes(a in "[ab;]{0,6}", b in "[ab;]{0,6}") {
            let (a, b) = (split(&a), split(&b));
            prop_assert_eq!(applied(&a, 9) == applied(&b, 9), a == b);
        }
    }
}
