//! Whether a statement only reads, judged from its words.
//!
//! The node agent decides with the engine's own parser; this is the first of two lines, for keys of role viewer, and the
//! condition for repeating a call. It errs on one side only: a statement that changes something never counts as reading,
//! while a reading one with an odd name may be refused (quoting the name helps).

/// Language of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    /// Cypher, for the graph.
    Cypher,
    /// SQL, for staging tables.
    Sql,
}

/// Words that begin or join a clause that changes something, in the graph engine.
const CYPHER_WRITES: [&str; 27] = [
    "ALTER",
    "ATTACH",
    "BEGIN",
    "CHECKPOINT",
    "COMMENT",
    "COMMIT",
    "COPY",
    "CREATE",
    "DELETE",
    "DETACH",
    "DROP",
    "EXPORT",
    "FORCE",
    "GRANT",
    "IMPORT",
    "INSERT",
    "INSTALL",
    "LOAD",
    "MACRO",
    "MERGE",
    "REMOVE",
    "REVOKE",
    "ROLLBACK",
    "SET",
    "UNINSTALL",
    "UPDATE",
    "USE",
];

/// Functions that `CALL` may run: they look and change nothing.
const CYPHER_CALLS: [&str; 16] = [
    "CURRENT_SETTING",
    "DB_VERSION",
    "QUERY_FTS_INDEX",
    "QUERY_VECTOR_INDEX",
    "SHOW_ATTACHED_DATABASES",
    "SHOW_CONNECTION",
    "SHOW_FUNCTIONS",
    "SHOW_INDEXES",
    "SHOW_LOADED_EXTENSIONS",
    "SHOW_MACROS",
    "SHOW_OFFICIAL_EXTENSIONS",
    "SHOW_PROJECTED_GRAPHS",
    "SHOW_SEQUENCES",
    "SHOW_TABLES",
    "STATS_INFO",
    "TABLE_INFO",
];

const SQL_FIRST: [&str; 7] = ["DESCRIBE", "FROM", "SELECT", "SHOW", "SUMMARIZE", "VALUES", "WITH"];

const SQL_WRITES: [&str; 13] = [
    "ALTER", "ATTACH", "COPY", "CREATE", "DELETE", "DROP", "EXPORT", "IMPORT", "INSERT", "INTO", "MERGE", "TRUNCATE",
    "UPDATE",
];

/// Whether a statement only reads.
pub(crate) fn only_reads(language: Language, text: &str) -> bool {
    // Where languages differ in how text is quoted, a word could hide behind a quote that only we see. Then quotes do not
    // count at all.
    let ambiguous = text.contains('\\') || text.contains("$$") || (language == Language::Sql && has_dollar_quote(text));
    let quoted = match tokens(language, text, !ambiguous) {
        Some(tokens) => reads(language, &tokens),
        None => false,
    };
    quoted && (!ambiguous || tokens(language, text, false).is_some_and(|tokens| reads(language, &tokens)))
}

fn has_dollar_quote(text: &str) -> bool {
    text.matches('$').count() >= 2
}

#[derive(Debug, PartialEq)]
enum Token<'a> {
    Word(&'a str),
    Quoted,
    Mark(char),
}

fn reads(language: Language, tokens: &[Token<'_>]) -> bool {
    // One statement only; a `;` at the end is none.
    let end = tokens
        .iter()
        .rposition(|token| *token != Token::Mark(';'))
        .map_or(0, |last| last + 1);
    let tokens = &tokens[..end];
    if tokens.contains(&Token::Mark(';')) {
        return false;
    }
    match language {
        Language::Cypher => cypher_reads(tokens),
        Language::Sql => sql_reads(tokens),
    }
}

fn is_one_of(word: &str, words: &[&str]) -> bool {
    words.iter().any(|known| known.eq_ignore_ascii_case(word))
}

fn cypher_reads(tokens: &[Token<'_>]) -> bool {
    for (at, token) in tokens.iter().enumerate() {
        let Token::Word(word) = token else { continue };
        let before = |back: usize| at.checked_sub(back).and_then(|at| tokens.get(at));
        if word.eq_ignore_ascii_case("CALL") {
            // `CALL f(…)` of a known function; `CALL x = 1` changes a setting, `CALL {…}` holds any clause.
            let known = matches!(tokens.get(at + 1), Some(Token::Word(name)) if is_one_of(name, &CYPHER_CALLS));
            if !known || tokens.get(at + 2) != Some(&Token::Mark('(')) {
                return false;
            }
            continue;
        }
        if !is_one_of(word, &CYPHER_WRITES) {
            continue;
        }
        // A name where only a name can stand: a property of something, a label, type or parameter, the key
        // of a map.
        let owner = match before(2) {
            // `1. CREATE`: the point belongs to a number.
            Some(Token::Word(word)) => !word.starts_with(|c: char| c.is_ascii_digit()),
            Some(Token::Quoted | Token::Mark(')' | ']')) => true,
            _ => false,
        };
        let property = before(1) == Some(&Token::Mark('.')) && owner;
        let label = matches!(before(1), Some(Token::Mark(':' | '$')));
        let key = tokens.get(at + 1) == Some(&Token::Mark(':'));
        if !(property || label || key) {
            return false;
        }
    }
    true
}

fn sql_reads(tokens: &[Token<'_>]) -> bool {
    let first = tokens.iter().find(|token| **token != Token::Mark('('));
    let begins = matches!(first, Some(Token::Word(word)) if is_one_of(word, &SQL_FIRST));
    begins
        && !tokens
            .iter()
            .any(|token| matches!(token, Token::Word(word) if is_one_of(word, &SQL_WRITES)))
}

/// Words and marks of a text. With `quotes`, quoted text is one token and comments are none; without, their words count.
/// `None` if a quote or comment does not end.
fn tokens(language: Language, text: &str, quotes: bool) -> Option<Vec<Token<'_>>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if first.is_whitespace() {
            first.len_utf8()
        } else if quotes && is_line_comment(language, rest) {
            rest.find(['\n', '\r']).unwrap_or(rest.len())
        } else if quotes && rest.starts_with("/*") {
            rest[2..].find("*/")? + 4
        } else if first == '`' || (quotes && matches!(first, '\'' | '"')) {
            let length = quoted_length(rest, first)?;
            found.push(Token::Quoted);
            if quotes { length } else { 1 }
        } else if is_word(first) {
            let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            found.push(Token::Word(&rest[..length]));
            length
        } else {
            found.push(Token::Mark(first));
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    Some(found)
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn is_line_comment(language: Language, rest: &str) -> bool {
    match language {
        Language::Cypher => rest.starts_with("//"),
        Language::Sql => rest.starts_with("--"),
    }
}

/// Length of a quoted text, with its quotes; a doubled quote inside stands for one.
fn quoted_length(text: &str, quote: char) -> Option<usize> {
    let mut at = 1;
    loop {
        at += text[at..].find(quote)? + 1;
        if !text[at..].starts_with(quote) {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cypher(text: &str) -> bool {
        only_reads(Language::Cypher, text)
    }

    fn sql(text: &str) -> bool {
        only_reads(Language::Sql, text)
    }

    #[test]
    fn reading_statements_read() {
        for text in [
            "MATCH (n) RETURN n",
            "MATCH (a)-[r:Route]->(b) WHERE a.iata = 'Create' RETURN r.flights ORDER BY r.flights DESC LIMIT 5;",
            "MATCH (n:Set) WHERE n.delete = 1 RETURN {create: n.set, x: (n).merge}",
            "MATCH (n:`CREATE TABLE`) RETURN n // CREATE\n",
            "/* DROP */ RETURN \"it''s SET\"",
            "CALL show_tables() RETURN *",
            "MATCH (n)--(m) RETURN count(*)",
            "UNWIND [1,2] AS x RETURN x;",
            "RETURN $set",
            "",
        ] {
            assert!(cypher(text), "{text}");
        }
        for text in [
            "SELECT * FROM Airport WHERE name = 'DELETE FROM x'",
            "WITH a AS (SELECT 1) SELECT * FROM a -- drop it\n;",
            "(SELECT 1) UNION (SELECT 2)",
            "FROM Airport SELECT count(*)",
            "SELECT a // b FROM t",
        ] {
            assert!(sql(text), "{text}");
        }
    }

    #[test]
    fn changing_statements_do_not() {
        for text in [
            "CREATE (:A {id: 1})",
            "MATCH (n) SET n.x = 1",
            "match (n) detach delete n",
            "MATCH (n) WITH 1. CREATE (m)",
            "RETURN 1; CREATE (:A)",
            "COPY A FROM 'x.parquet'",
            "LOAD FROM '/etc/passwd' RETURN *",
            "CALL threads = 4",
            "CALL create_vector_index('A', 'i', 'v')",
            "CALL { CREATE (:A) } RETURN 1",
            "MATCH (n) RETURN n /* unfinished",
            "RETURN 'unfinished",
            "RETURN 'a\\' SET n.x = 1 RETURN '",
            "INSTALL httpfs",
            "EXPORT DATABASE 'x'",
            "RETURN '\\'; CREATE (:A) //'",
            "RETURN '\\' /* ', n SET n.x = 1 //*/",
        ] {
            assert!(!cypher(text), "{text}");
        }
        for text in [
            "INSERT INTO t VALUES (1)",
            "WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a",
            "SELECT 1; DROP TABLE t",
            "COPY t TO '/tmp/x'",
            "PRAGMA database_list",
            "SET threads = 4",
            "SELECT $$ ' $$; DROP TABLE t; SELECT $$ ' $$",
            "SELECT E'\\'; DROP TABLE t; --'",
            "",
        ] {
            assert!(!sql(text), "{text}");
        }
    }

    proptest! {
        /// A writing clause on its own is seen, whatever stands before and after it.
        #[test]
        fn a_bare_writing_clause_is_always_seen(
            before in "[a-zA-Z0-9 ()=<>,\\[\\]-]{0,20}", word in prop::sample::select(CYPHER_WRITES.to_vec()), after in "[a-zA-Z0-9 ()=<>,-]{0,20}",
        ) {
            let text = format!("{before} {word} ({after}");
            prop_assert!(!cypher(&text), "{}", text);
        }

        #[test]
        fn any_text_is_judged(text in "\\PC{0,80}") {
            let _ = (cypher(&text), sql(&text));
        }
    }
}
