//! What callers may say in SQL: one `SELECT`, possibly with `WITH`. DuckDB itself refuses files, extensions, settings
//! and changes on these connections; this refuses what would get around a single statement, and what would show the
//! node's paths.

use super::super::error::{EngineError, SyntaxStage};
use super::super::ladybug::position;
use super::super::names::{BUILDING, TableName};

/// Functions that look at files or at the node rather than at staging tables.
const FORBIDDEN_FUNCTIONS: &[&str] = &[
    "read_parquet",
    "parquet_scan",
    "parquet_metadata",
    "parquet_schema",
    "parquet_file_metadata",
    "parquet_kv_metadata",
    "parquet_bloom_probe",
    "read_csv",
    "read_csv_auto",
    "sniff_csv",
    "read_json",
    "read_json_auto",
    "read_json_objects",
    "read_json_objects_auto",
    "read_ndjson",
    "read_ndjson_auto",
    "read_ndjson_objects",
    "read_text",
    "read_blob",
    "read_duckdb",
    "glob",
    "getenv",
    "current_setting",
    "query",
    "query_table",
    "checkpoint",
    "force_checkpoint",
    "write_log",
    "which_secret",
    "json_execute_serialized_sql",
    "enable_logging",
    "disable_logging",
    "enable_profiling",
    "disable_profiling",
];
/// Functions that go down into nested JSON without a limit: some ten thousand brackets end the process.
const BOTTOMLESS_FUNCTIONS: &[&str] = &[
    "json_structure",
    "json_group_structure",
    "json_merge_patch",
    "json_transform",
    "json_transform_strict",
    "from_json",
    "from_json_strict",
    "json_contains",
];
/// A type whose making does the same.
const BOTTOMLESS_TYPE: &str = "VARIANT";
/// Types that have members with types.
const TYPES_OF_TYPES: [&str; 4] = ["STRUCT", "ROW", "MAP", "UNION"];
/// Functions and views of the engine have these beginnings; some of them show the files and settings of the node.
const INTERNAL: [&str; 3] = ["duckdb_", "pragma_", "pg_settings"];
/// Those that show tables and what can be done with them.
const CATALOG: &[&str] = &[
    "duckdb_tables",
    "duckdb_columns",
    "duckdb_types",
    "duckdb_functions",
    "duckdb_constraints",
    "duckdb_views",
    "duckdb_schemas",
    "duckdb_keywords",
    "pragma_table_info",
    "pragma_version",
];
const CHANGES: &[&str] = &["INSERT", "UPDATE", "DELETE", "MERGE"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Word,
    Quoted,
    Other,
    Symbol(u8),
}

#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
    start: usize,
}

impl Token<'_> {
    fn is_word(&self, keyword: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(keyword)
    }
}

/// Checks a statement of a caller.
///
/// # Errors
/// [`EngineError::Forbidden`] with the word and its place; [`EngineError::Syntax`] if it is not a statement.
pub(crate) fn check(sql: &str) -> Result<(), EngineError> {
    let tokens = tokenize(sql)?;
    let (tokens, first) = alone(sql, &tokens)?;
    let with = first.is_word("WITH");
    if !with && !first.is_word("SELECT") {
        return Err(forbidden(
            sql,
            first,
            "SQL here is one SELECT (or WITH … SELECT) over the staging tables",
        ));
    }
    for pair in tokens.windows(2) {
        let [before, token] = pair else { continue };
        if with && before.kind == Kind::Symbol(b')') && CHANGES.iter().any(|word| token.is_word(word)) {
            return Err(forbidden(
                sql,
                token,
                "SQL here only reads; staging tables are changed through their own paths",
            ));
        }
    }
    scan(sql, tokens)
}

/// Checks a statement that changes staging tables or views: which one it changes is the first thing that it says.
///
/// # Errors
/// As [`check`].
pub(crate) fn check_change(sql: &str) -> Result<(), EngineError> {
    const ONLY: &str = "a change of staging tables is one CREATE TABLE or VIEW … AS SELECT, INSERT INTO … SELECT, UPDATE, \
                        DELETE FROM, ALTER TABLE, DROP TABLE or DROP VIEW";
    let tokens = tokenize(sql)?;
    let (tokens, first) = alone(sql, &tokens)?;
    let refuse = |rest: &[Token<'_>]| forbidden(sql, rest.first().unwrap_or(first), ONLY);
    let table_or_view = |rest| after(rest, &["TABLE"]).or_else(|| after(rest, &["VIEW"]));
    let if_exists = |rest| after(rest, &["IF", "EXISTS"]).unwrap_or(rest);
    if let Some(rest) = after(tokens, &["CREATE"]) {
        let rest = after(rest, &["OR", "REPLACE"]).unwrap_or(rest);
        let rest = table_or_view(rest).ok_or_else(|| refuse(rest))?;
        let rest = named(sql, after(rest, &["IF", "NOT", "EXISTS"]).unwrap_or(rest), first)?;
        let query = after(rest, &["AS"]).ok_or_else(|| refuse(rest))?;
        begins_with(query, &["SELECT", "WITH"]).ok_or_else(|| refuse(query))?;
    } else if let Some(rest) = after(tokens, &["INSERT", "INTO"]) {
        let rest = named(sql, rest, first)?;
        let rest = after(rest, &["BY", "NAME"]).unwrap_or(rest);
        let rest = after_parentheses(rest);
        begins_with(rest, &["SELECT", "WITH", "VALUES"]).ok_or_else(|| refuse(rest))?;
    } else if let Some(rest) = after(tokens, &["DELETE", "FROM"]) {
        named(sql, rest, first)?;
    } else if let Some(rest) = after(tokens, &["UPDATE"]) {
        let rest = named(sql, rest, first)?;
        begins_with(rest, &["SET"]).ok_or_else(|| refuse(rest))?;
    } else if let Some(rest) = after(tokens, &["DROP"]) {
        let rest = table_or_view(rest).ok_or_else(|| refuse(rest))?;
        let rest = named(sql, if_exists(rest), first)?;
        if !rest.is_empty() {
            return Err(refuse(rest));
        }
    } else if let Some(rest) = after(tokens, &["ALTER", "TABLE"]) {
        let rest = named(sql, if_exists(rest), first)?;
        if let Some(name) = after(rest, &["RENAME", "TO"]) {
            named(sql, name, first)?;
        }
        begins_with(rest, &["ADD", "DROP", "RENAME", "ALTER"]).ok_or_else(|| refuse(rest))?;
    } else {
        return Err(refuse(tokens));
    }
    scan(sql, tokens)
}

/// The tokens without semicolons at the end, and the first of them.
fn alone<'t, 'a>(sql: &str, tokens: &'t [Token<'a>]) -> Result<(&'t [Token<'a>], &'t Token<'a>), EngineError> {
    let semicolon = |token: &Token<'_>| token.kind == Kind::Symbol(b';');
    let end = tokens
        .iter()
        .rposition(|token| !semicolon(token))
        .map_or(0, |last| last + 1);
    let tokens = &tokens[..end];
    let Some(first) = tokens.first() else {
        return Err(syntax(sql, sql.len(), "the statement is empty"));
    };
    match tokens.iter().find(|token| semicolon(token)) {
        Some(second) => Err(forbidden(sql, second, "a request is one statement")),
        None => Ok((tokens, first)),
    }
}

/// What follows these words.
fn after<'t, 'a>(tokens: &'t [Token<'a>], words: &[&str]) -> Option<&'t [Token<'a>]> {
    let (start, rest) = tokens.split_at_checked(words.len())?;
    let same = start.iter().zip(words).all(|(token, word)| token.is_word(word));
    same.then_some(rest)
}

fn begins_with(tokens: &[Token<'_>], words: &[&str]) -> Option<()> {
    let first = tokens.first()?;
    words.iter().any(|word| first.is_word(word)).then_some(())
}

/// What follows the name of a staging table: one word, without a schema or database.
fn named<'t, 'a>(sql: &str, tokens: &'t [Token<'a>], at: &Token<'_>) -> Result<&'t [Token<'a>], EngineError> {
    const PLAIN: &str = "a staging table or view is named by letters, digits, _ and -, without schema or database";
    let Some((name, rest)) = tokens.split_first() else {
        return Err(forbidden(sql, at, PLAIN));
    };
    let is_plain = matches!(name.kind, Kind::Word | Kind::Quoted)
        && TableName::parse(name.text.trim_matches('"')).is_ok()
        && !name.text.trim_matches('"').starts_with(BUILDING)
        && rest.first().is_none_or(|next| next.kind != Kind::Symbol(b'.'));
    if is_plain {
        Ok(rest)
    } else {
        Err(forbidden(sql, name, PLAIN))
    }
}

/// What follows a list in parentheses, if one begins here.
fn after_parentheses<'t, 'a>(tokens: &'t [Token<'a>]) -> &'t [Token<'a>] {
    let is = |token: &Token<'_>, symbol| token.kind == Kind::Symbol(symbol);
    match tokens.iter().position(|token| is(token, b')')) {
        Some(end) if is(&tokens[0], b'(') => &tokens[end + 1..],
        _ => tokens,
    }
}

/// Refuses functions that look elsewhere or never come back, wherever they are.
fn scan(sql: &str, tokens: &[Token<'_>]) -> Result<(), EngineError> {
    refuse_type(sql, tokens)?;
    for (index, token) in tokens.iter().enumerate() {
        let next_is = |symbol| {
            tokens
                .get(index + 1)
                .is_some_and(|token| token.kind == Kind::Symbol(symbol))
        };
        if matches!(token.kind, Kind::Word | Kind::Quoted) {
            let name = token.text.trim_matches('"');
            let listed = |names: &[&str]| names.iter().any(|known| name.eq_ignore_ascii_case(known));
            let begins = |start: &str| {
                let beginning = name.get(..start.len());
                beginning.is_some_and(|beginning| beginning.eq_ignore_ascii_case(start))
            };
            let internal = INTERNAL.iter().any(|start| begins(start));
            let of_variants = begins(BOTTOMLESS_TYPE) && name.as_bytes().get(BOTTOMLESS_TYPE.len()) == Some(&b'_');
            if next_is(b'(') && (listed(BOTTOMLESS_FUNCTIONS) || of_variants) {
                return Err(forbidden(
                    sql,
                    token,
                    "nested JSON of any depth would end the node; take values out of it with -> and ->>",
                ));
            }
            if next_is(b'(') && listed(FORBIDDEN_FUNCTIONS) || internal && !listed(CATALOG) {
                return Err(forbidden(
                    sql,
                    token,
                    "it looks at the node rather than at staging tables",
                ));
            }
        }
    }
    Ok(())
}

/// Refuses [`BOTTOMLESS_TYPE`] where it is a type; a column may be called so.
fn refuse_type(sql: &str, tokens: &[Token<'_>]) -> Result<(), EngineError> {
    let alters = begins_with(tokens, &["ALTER"]).is_some();
    // Of each parenthesis that is open, whether it has the members of a type.
    let mut members = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        // The schema of a type is a part of its name.
        let mut start = index;
        while start >= 2 && tokens[start - 1].kind == Kind::Symbol(b'.') {
            start -= 2;
        }
        let before = start.checked_sub(1).map(|before| tokens[before]);
        let next = tokens.get(index + 1).map(|token| token.kind);
        match token.kind {
            Kind::Symbol(b'(') => {
                let of_type = before.is_some_and(|word| is_one_of(&word, &TYPES_OF_TYPES));
                let query = tokens
                    .get(index + 1)
                    .is_some_and(|word| is_one_of(word, &["SELECT", "WITH", "VALUES"]));
                members.push(of_type && !query);
            }
            Kind::Symbol(b')') => drop(members.pop()),
            Kind::Word | Kind::Quoted if is_one_of(token, &[BOTTOMLESS_TYPE]) => {
                let ends = matches!(next, Some(Kind::Symbol(b')' | b'[')));
                let is_type = alters
                    || members.last() == Some(&true)
                    || before.is_some_and(|before| before.kind == Kind::Symbol(b':'))
                    || before.is_some_and(|before| before.is_word("AS")) && ends;
                if is_type {
                    return Err(forbidden(
                        sql,
                        token,
                        "as this type, JSON that is nested deeply would end the node; the type JSON will do",
                    ));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a token is one of these names, quoted or not.
fn is_one_of(token: &Token<'_>, names: &[&str]) -> bool {
    matches!(token.kind, Kind::Word | Kind::Quoted)
        && names
            .iter()
            .any(|name| token.text.trim_matches('"').eq_ignore_ascii_case(name))
}

fn tokenize(sql: &str) -> Result<Vec<Token<'_>>, EngineError> {
    let bytes = sql.as_bytes();
    let mut tokens = Vec::with_capacity(sql.len() / 4 + 4);
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let kind = match bytes[at] {
            0 => return Err(syntax(sql, start, "the text contains a NUL character")),
            byte if byte.is_ascii_whitespace() || byte == 0x0b => {
                at += 1;
                continue;
            }
            b'-' if bytes.get(at + 1) == Some(&b'-') => {
                while at < bytes.len() && bytes[at] != b'\n' && bytes[at] != b'\r' {
                    at += 1;
                }
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                at = comment(sql, at)?;
                continue;
            }
            b'\'' => {
                at = quoted(sql, at, b'\'')?;
                Kind::Other
            }
            b'"' => {
                at = quoted(sql, at, b'"')?;
                Kind::Quoted
            }
            b'$' => {
                at += 1;
                if !bytes.get(at).is_some_and(u8::is_ascii_digit) {
                    return Err(syntax(
                        sql,
                        start,
                        "$ is for numbered parameters ($1); quote text with '…'",
                    ));
                }
                while bytes.get(at).is_some_and(u8::is_ascii_digit) {
                    at += 1;
                }
                Kind::Other
            }
            b'0'..=b'9' => {
                while bytes.get(at).is_some_and(|b| b.is_ascii_digit() || *b == b'.') {
                    at += 1;
                }
                Kind::Other
            }
            byte if byte.is_ascii_alphabetic() || byte == b'_' || !byte.is_ascii() => {
                let rest = &sql[at..];
                let c = rest.chars().next().unwrap_or_default();
                if c.is_whitespace() || c == '\u{200b}' || c == '\u{feff}' {
                    at += c.len_utf8();
                    continue;
                }
                let length = rest
                    .char_indices()
                    .find(|(_, c)| {
                        !(c.is_ascii_alphanumeric()
                            || *c == '_'
                            || *c == '$'
                            || (!c.is_ascii() && !c.is_whitespace() && *c != '\u{200b}' && *c != '\u{feff}'))
                    })
                    .map_or(rest.len(), |(length, _)| length);
                at += length;
                let word = &sql[start..at];
                if bytes.get(at) == Some(&b'\'') && word.eq_ignore_ascii_case("e") {
                    return Err(syntax(
                        sql,
                        start,
                        "write text as '…' without E; use chr(n) for special characters",
                    ));
                }
                Kind::Word
            }
            byte => {
                at += 1;
                Kind::Symbol(byte)
            }
        };
        tokens.push(Token {
            kind,
            text: &sql[start..at],
            start,
        });
    }
    Ok(tokens)
}

/// Comments nest, as in PostgreSQL.
fn comment(sql: &str, start: usize) -> Result<usize, EngineError> {
    let bytes = sql.as_bytes();
    let (mut at, mut depth) = (start + 2, 1);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => {
                depth += 1;
                at += 2;
            }
            b"*/" => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return Ok(at);
                }
            }
            _ => at += 1,
        }
    }
    Err(syntax(sql, start, "a comment is not closed"))
}

fn quoted(sql: &str, start: usize, quote: u8) -> Result<usize, EngineError> {
    let bytes = sql.as_bytes();
    let mut at = start + 1;
    while at < bytes.len() {
        if bytes[at] != quote {
            at += 1;
        } else if bytes.get(at + 1) == Some(&quote) {
            at += 2;
        } else {
            return Ok(at + 1);
        }
    }
    Err(syntax(sql, start, "a quote is not closed"))
}

fn forbidden(sql: &str, token: &Token<'_>, reason: &str) -> EngineError {
    let (line, column) = position(sql, token.start);
    EngineError::Forbidden {
        token: token.text.to_owned(),
        line,
        column,
        reason: reason.to_owned(),
    }
}

fn syntax(sql: &str, start: usize, message: &str) -> EngineError {
    let (line, column) = position(sql, start);
    EngineError::Syntax {
        stage: SyntaxStage::Parser,
        message: format!("Parser Error: {message} (line {line}, column {column})"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::super::error::ErrorClass;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reading_statements_pass() {
        for sql in [
            "SELECT * FROM t",
            "  select count(*), 'a;b' as \"x;y\" from t where a = $1 and b = ? -- ;\n;",
            "WITH a AS (SELECT 1) SELECT * FROM a",
            "SELECT delete, update FROM t /* ; /* nested */ ; */",
            "SELECT it.query, \"read\" FROM t it",
            "SELECT table_name, estimated_size FROM duckdb_tables() UNION ALL SELECT name, 0 FROM pragma_table_info('t')",
            "SELECT 'it''s'; ;",
            "SELECT variant, t.variant AS v, count(variant) AS variant FROM t UNION (SELECT variant, 1, 2 FROM t)",
            "SELECT j -> '$.a', j::JSON, CAST(j AS STRUCT(a INTEGER)) FROM t",
        ] {
            check(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for sql in [
            "INSERT INTO t VALUES (1)",
            "WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a",
            "WITH a AS (SELECT 1)DELETE FROM t",
            "SELECT 1; DROP TABLE t",
            "SELECT /* /* */ 1 */ 1; COMMIT; DROP TABLE t",
            "COPY t TO '/tmp/x'",
            "ATTACH '/tmp/x' AS o",
            "PRAGMA database_list",
            "SET threads = 1",
            "CALL pragma_version()",
            "EXPLAIN ANALYZE DELETE FROM t",
            "FROM t",
            "SELECT * FROM read_text('/etc/passwd')",
            "SELECT * FROM \"read_text\" ('/etc/passwd')",
            "SELECT * FROM Read_CSV_auto('/etc/passwd')",
            "SELECT * FROM glob('/*')",
            "SELECT current_setting('temp_directory')",
            "SELECT * FROM query('SELECT 1')",
            "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
            "SELECT path FROM duckdb_databases",
            "SELECT * FROM system.main.\"DuckDB_Settings\"",
            "SELECT * FROM duckdb_secrets()",
            "SELECT * FROM pragma_database_list",
            "SELECT * FROM pg_catalog.pg_settings",
            "SELECT * FROM enable_logging()",
            "SELECT json_structure(repeat('[', 100000))",
            "SELECT \"JSON_transform\" ('[1]', repeat('[', 100000))",
            "SELECT variant_bytes_to_variant('x'::BLOB)",
            "SELECT j::JSON::variant FROM t",
            "SELECT j :: \"Variant\" [] FROM t",
            "SELECT CAST(j AS VARIANT) FROM t",
            "SELECT TRY_CAST([j] AS main.VARIANT[]) FROM t",
            "SELECT {'a': j, 'b': 1}::STRUCT(b DECIMAL(3, 2), a VARIANT) FROM t",
            "SELECT MAP {'a': j}::MAP(VARCHAR, system.main.variant) FROM t",
        ] {
            assert_eq!(check(sql).expect_err(sql).class(), ErrorClass::Forbidden, "{sql}");
        }
        for sql in [
            "",
            ";",
            "SELECT 'open",
            "SELECT \"open",
            "SELECT /* /* */",
            "SELECT $$a$$",
            "SELECT $x$;$x$",
            "SELECT E'\\''",
            "SELECT 1\0; DROP",
        ] {
            assert_eq!(check(sql).expect_err(sql).class(), ErrorClass::Syntax, "{sql}");
        }
    }

    #[test]
    fn changes_of_staging_tables_pass() {
        for sql in [
            "CREATE TABLE t AS SELECT 1 AS identifier",
            "create or replace table \"a-b\" as with x as (select 1) select * from x;",
            "CREATE TABLE IF NOT EXISTS t AS SELECT * FROM u",
            "CREATE OR REPLACE VIEW v AS SELECT * FROM t",
            "INSERT INTO t SELECT * FROM u WHERE NOT EXISTS (SELECT 1 FROM t WHERE t.a = u.a)",
            "INSERT INTO t BY NAME SELECT * FROM u",
            "INSERT INTO t (a, b) VALUES ($1, ?)",
            "DELETE FROM t WHERE a IN (SELECT a FROM u)",
            "UPDATE t SET a = b + 1 WHERE c = 'x; DROP TABLE t'",
            "DROP TABLE IF EXISTS t",
            "DROP VIEW v",
            "ALTER TABLE t ADD COLUMN c INTEGER",
            "ALTER TABLE t RENAME TO u",
            "ALTER TABLE t ALTER a TYPE DOUBLE",
        ] {
            check_change(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
    }

    #[test]
    fn other_changes_are_refused() {
        for sql in [
            "SELECT 1",
            "CREATE TABLE t(a INTEGER)",
            "CREATE TEMP TABLE t AS SELECT 1",
            "CREATE TABLE main.t AS SELECT 1",
            "CREATE TABLE other.main.t AS SELECT 1",
            "CREATE TABLE gp__building_x AS SELECT 1",
            "CREATE TABLE \"a b\" AS SELECT 1",
            "CREATE TABLE t AS FROM 'x.parquet'",
            "CREATE TABLE t AS SELECT * FROM read_parquet('/etc/x')",
            "CREATE MACRO m(a) AS a",
            "CREATE SCHEMA s",
            "CREATE SECRET s (TYPE s3)",
            "CREATE FUNCTION f(a) AS a",
            "CREATE INDEX i ON t(a)",
            "INSERT INTO t FROM 'x.csv'",
            "INSERT INTO t SELECT getenv('HOME')",
            "INSERT INTO t SELECT * FROM u; DROP TABLE u",
            "DELETE FROM information_schema.tables",
            "TRUNCATE t",
            "UPDATE t",
            "DROP SCHEMA main CASCADE",
            "DROP TABLE t CASCADE",
            "DROP DATABASE x",
            "ALTER TABLE t SET SCHEMA s",
            "ALTER TABLE t ALTER a TYPE VARIANT",
            "ALTER TABLE t ADD COLUMN a VARIANT",
            "ALTER TABLE t RENAME TO s.u",
            "ALTER DATABASE x SET ALIAS TO y",
            "COPY t TO '/tmp/x'",
            "ATTACH '/tmp/x' AS o",
            "SET threads = 1",
            "PRAGMA memory_limit='1GB'",
            "INSTALL httpfs",
            "LOAD httpfs",
            "EXPORT DATABASE '/tmp/x'",
            "CALL checkpoint()",
            "CHECKPOINT",
            "VACUUM",
            "MERGE INTO t USING u ON true",
        ] {
            assert_eq!(
                check_change(sql).expect_err(sql).class(),
                ErrorClass::Forbidden,
                "{sql}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_guard_panic(sql in "\\PC{0,200}") {
            let _ = check(&sql);
            let _ = check_change(&sql);
        }

        #[test]
        fn a_second_statement_is_seen_outside_quotes(prefix in "[a-z ,*()]{0,20}", middle in "[a-z ]{0,10}") {
            let sql = format!("SELECT {prefix}; {middle}x");
            prop_assert!(check(&sql).is_err());
            let sql = format!("SELECT '{prefix};{middle}' AS c");
            prop_assert!(check(&sql).is_ok());
        }
    }
}
