//! What callers may say. The engine is no sandbox: any Cypher text can read and write files of the node, attach other
//! databases, load code and change settings, and its own "read only" flag is true for most of that. So a statement
//! must begin with a word from a list, be alone, and contain none of the words that reach outside.
//!
//! A forbidden word is only a name after `.`, `:` or `$`, before `:`, and in backticks; everywhere else it is refused,
//! even where it happens to be used as a variable.

mod decimals;
mod faults;
mod gathered;
mod size;

pub(super) use decimals::NO_COLLECTED_DECIMALS;
use faults::Conditions;
pub(crate) use faults::is_safe_pattern;
pub(crate) use gathered::Decimals;

use std::borrow::Cow;

use super::super::error::{EngineError, SyntaxStage};
use super::super::names::is_transient;
use super::tokens::{Token, TokenKind, position, tokenize};

/// What a statement does, which decides where it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatementKind {
    /// Only reads.
    Read,
    /// Changes rows.
    Write,
    /// Changes tables.
    Ddl,
    /// `CHECKPOINT`.
    Checkpoint,
}

/// A statement that may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Admitted<'a> {
    pub(crate) kind: StatementKind,
    /// What to run: the statement, with ranges that are safe; or the list of tables, in place of the Neo4j catalog
    /// procedures that clients probe for.
    pub(crate) text: Cow<'a, str>,
    /// What has to hold for its parameters.
    pub(crate) conditions: Conditions,
}

/// Statements that begin with one of these reach outside the database or change the session.
const FORBIDDEN_START: &[(&str, &str)] = &[
    ("LOAD", READS_FILES),
    ("COPY", "stage the data and materialise the table instead"),
    ("EXPORT", WRITES_FILES),
    ("IMPORT", READS_FILES),
    ("ATTACH", OTHER_DATABASES),
    ("DETACH", OTHER_DATABASES),
    ("USE", OTHER_DATABASES),
    ("INSTALL", EXTENSIONS),
    ("UNINSTALL", EXTENSIONS),
    ("FORCE", EXTENSIONS),
    ("UPDATE", EXTENSIONS),
    ("BEGIN", TRANSACTIONS),
    ("COMMIT", TRANSACTIONS),
    ("COMMIT_SKIP_CHECKPOINT", TRANSACTIONS),
    ("ROLLBACK", TRANSACTIONS),
    ("ROLLBACK_SKIP_CHECKPOINT", TRANSACTIONS),
    ("ANALYZE", "statistics are kept by the node"),
    ("GRANT", ACCESS),
    ("REVOKE", ACCESS),
    ("DENY", ACCESS),
];
/// What CREATE, DROP and ALTER may not be about.
const FORBIDDEN_OBJECTS: &[(&str, &str)] = &[
    ("GRAPH", "a database holds one graph"),
    ("DATABASE", "databases are made and removed through the control plane"),
    ("USER", ACCESS),
    ("ROLE", ACCESS),
];
/// Of the form `<graph>.<table>_p0.lbug`.
const PARTITIONS: &str =
    "the engine keeps partitions in files of their own, which backups, forks and replicas would not have";
const ACCESS: &str = "access is managed by API keys";
const READS_FILES: &str = "it reads files of the node; stage the data and materialise the table instead";
const WRITES_FILES: &str = "it writes files of the node; use a backup instead";
const OTHER_DATABASES: &str = "a query sees one database only; send it to the other database's path";
const EXTENSIONS: &str = "extensions cannot be installed or loaded";
const TRANSACTIONS: &str =
    "every statement is a transaction of its own; send schema changes together to the schema path";

/// Refused anywhere in a statement, since they begin a clause or a data source.
const FORBIDDEN_ANYWHERE: &[(&str, &str)] = &[
    ("LOAD", READS_FILES),
    ("COPY", "stage the data and materialise the table instead"),
    ("EXPORT", WRITES_FILES),
    ("IMPORT", READS_FILES),
    ("ATTACH", OTHER_DATABASES),
    ("INSTALL", EXTENSIONS),
    ("UNINSTALL", EXTENSIONS),
];

/// Table functions that only look at the catalog and at statistics.
const CALLABLE: &[&str] = &[
    "SHOW_TABLES",
    "TABLE_INFO",
    "SHOW_CONNECTION",
    "SHOW_FUNCTIONS",
    "SHOW_INDEXES",
    "SHOW_MACROS",
    "SHOW_SEQUENCES",
    "DB_VERSION",
    "STORAGE_VERSION",
    "CATALOG_VERSION",
    "STATS_INFO",
    "STORAGE_INFO",
];
const LIST_OF_TABLES: &str = "CALL SHOW_TABLES() RETURN *";
const NEO4J_CATALOG: &[&str] = &[
    "schema",
    "labels",
    "relationships",
    "relationshipTypes",
    "propertyKeys",
    "indexes",
    "constraints",
];

/// Table functions that read files by name.
const FILE_FUNCTIONS: &[&str] = &[
    "READ_PARQUET",
    "READ_CSV_SERIAL",
    "READ_CSV_PARALLEL",
    "READ_CSV",
    "READ_NPY",
    "READ_FTABLE",
    "READ_JSON",
    "GLOB",
];

/// Checks one statement and says what kind it is.
///
/// # Errors
/// [`EngineError::Forbidden`] with the word and its place, [`EngineError::Syntax`] if it is not a statement.
pub fn classify(text: &str) -> Result<StatementKind, EngineError> {
    admit(text).map(|admitted| admitted.kind)
}

pub(crate) fn admit(text: &str) -> Result<Admitted<'_>, EngineError> {
    let tokens = tokenize(text).map_err(|error| syntax(text, error.start, error.message))?;
    let tokens = alone(text, &tokens)?;
    if is_neo4j_catalog(tokens) {
        return Ok(Admitted {
            kind: StatementKind::Read,
            text: LIST_OF_TABLES.into(),
            conditions: Conditions::default(),
        });
    }
    let body = after_explain(tokens);
    let Some(first) = body.first() else {
        return Err(syntax(text, text.len(), "the statement is empty"));
    };
    let kind = kind_of(text, body, first)?;
    let mut conditions = Conditions::default();
    let writes = scan(text, body, &mut conditions)?;
    let kind = if kind == StatementKind::Read && writes {
        StatementKind::Write
    } else {
        kind
    };
    Ok(Admitted {
        kind,
        text: faults::with_safe_ranges(text, tokens),
        conditions,
    })
}

/// Refuses a statement that could end the process with what the graph has of decimals, unless it drops something.
///
/// # Errors
/// [`EngineError::Forbidden`] with the word.
pub(crate) fn check_decimals(text: &str, known: &Decimals) -> Result<(), EngineError> {
    const DROP_IT: &str = "columns with lists or maps of DECIMAL can end the engine, and this one is older than that is known: \
                           read it with its node or relationship, and drop it (ALTER TABLE … DROP …)";
    let tokens = tokenize(text).map_err(|error| syntax(text, error.start, error.message))?;
    let begins_with = |word: &str| tokens.first().is_some_and(|token| token.is_word(word));
    let drops = tokens.iter().any(|token| token.is_word("DROP"));
    if begins_with("DROP") || (begins_with("ALTER") && drops) {
        return Ok(());
    }
    let named = tokens.iter().find(|token| {
        let name = token.identifier();
        let columns = &known.unsafe_columns;
        name.is_some_and(|name| columns.iter().any(|column| column.eq_ignore_ascii_case(&name)))
    });
    if let Some(token) = named {
        return Err(forbidden(text, token, DROP_IT));
    }
    match gathered::gathered(&tokens, known) {
        Some(token) => Err(forbidden(text, token, gathered::CAST_FIRST)),
        None => Ok(()),
    }
}

/// One statement of a schema script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SchemaStatement<'a> {
    pub(crate) text: &'a str,
    /// The table it makes; `None` for comments and indexes.
    pub(crate) creates: Option<String>,
}

/// Splits a schema script and checks that every statement only defines: `CREATE NODE TABLE`, `CREATE REL TABLE
/// [GROUP]`, `CREATE INDEX`, `COMMENT ON TABLE`. The number in an error is the statement's, from 1.
pub(crate) fn schema_script(text: &str) -> Result<Vec<SchemaStatement<'_>>, (usize, EngineError)> {
    let tokens = tokenize(text).map_err(|error| (1, syntax(text, error.start, error.message)))?;
    let mut statements = Vec::new();
    for part in tokens.split(|token| token.is_symbol(';')) {
        let (Some(first), Some(last)) = (part.first(), part.last()) else {
            continue;
        };
        let number = statements.len() + 1;
        let creates = schema_statement(text, part, first).map_err(|error| (number, error))?;
        statements.push(SchemaStatement {
            text: &text[first.start..last.start + last.text.len()],
            creates,
        });
    }
    if statements.is_empty() {
        return Err((1, EngineError::invalid("ddl", "contains no statement")));
    }
    Ok(statements)
}

fn schema_statement(text: &str, tokens: &[Token<'_>], first: &Token<'_>) -> Result<Option<String>, EngineError> {
    const ONLY: &str = "a schema consists of CREATE NODE TABLE, CREATE REL TABLE, CREATE INDEX and COMMENT ON TABLE";
    let mut conditions = Conditions::default();
    scan(text, tokens, &mut conditions)?;
    if faults::has_unsafe_range(text, tokens) || !conditions.patterns.is_empty() {
        return Err(forbidden(
            text,
            first,
            "a schema computes nothing; write values as they are",
        ));
    }
    if first.is_word("COMMENT") {
        return Ok(None);
    }
    if !first.is_word("CREATE") {
        return Err(forbidden(text, first, ONLY));
    }
    let word = |index: usize, keyword: &str| tokens.get(index).is_some_and(|token| token.is_word(keyword));
    let mut at = if word(1, "NODE") && word(2, "TABLE") {
        3
    } else if word(1, "REL") && word(2, "TABLE") {
        3 + usize::from(word(3, "GROUP"))
    } else if word(1, "INDEX") || word(2, "INDEX") {
        return Ok(None);
    } else {
        return Err(forbidden(text, tokens.get(1).unwrap_or(first), ONLY));
    };
    if word(at, "IF") && word(at + 1, "NOT") && word(at + 2, "EXISTS") {
        at += 3;
    }
    let Some(name) = tokens.get(at).and_then(Token::identifier) else {
        return Err(syntax(text, first.start, "the name of the table is missing"));
    };
    if !tokens.get(at + 1).is_some_and(|token| token.is_symbol('(')) {
        return Err(syntax(
            text,
            tokens[at].start,
            "a table is defined by its columns in parentheses after its name",
        ));
    }
    Ok(Some(name))
}

fn alone<'t, 'a>(text: &str, tokens: &'t [Token<'a>]) -> Result<&'t [Token<'a>], EngineError> {
    let end = tokens
        .iter()
        .rposition(|token| !token.is_symbol(';'))
        .map_or(0, |last| last + 1);
    let tokens = &tokens[..end];
    match tokens.iter().position(|token| token.is_symbol(';')) {
        None => Ok(tokens),
        Some(separator) => Err(forbidden(
            text,
            &tokens[separator],
            "a request is one statement; send the others in requests of their own",
        )),
    }
}

fn after_explain<'t, 'a>(tokens: &'t [Token<'a>]) -> &'t [Token<'a>] {
    match tokens {
        [first, second, rest @ ..] if first.is_word("EXPLAIN") && second.is_word("LOGICAL") => rest,
        [first, rest @ ..] if first.is_word("EXPLAIN") || first.is_word("PROFILE") => rest,
        _ => tokens,
    }
}

fn kind_of(text: &str, tokens: &[Token<'_>], first: &Token<'_>) -> Result<StatementKind, EngineError> {
    let second = tokens.get(1);
    let second_is = |keyword: &str| second.is_some_and(|token| token.is_word(keyword));
    if let Some((_, reason)) = FORBIDDEN_START.iter().find(|(word, _)| first.is_word(word)) {
        return Err(forbidden(text, first, reason));
    }
    if ["MATCH", "OPTIONAL", "UNWIND", "WITH", "RETURN", "CALL"]
        .iter()
        .any(|word| first.is_word(word))
    {
        return Ok(StatementKind::Read);
    }
    if ["MERGE", "SET", "DELETE"].iter().any(|word| first.is_word(word)) {
        return Ok(StatementKind::Write);
    }
    if first.is_word("CHECKPOINT") && tokens.len() == 1 {
        return Ok(StatementKind::Checkpoint);
    }
    let defines = ["CREATE", "DROP", "ALTER"].iter().any(|word| first.is_word(word));
    if let Some(object) = second.filter(|_| defines)
        && let Some((_, reason)) = FORBIDDEN_OBJECTS.iter().find(|(word, _)| object.is_word(word))
    {
        return Err(forbidden(text, object, reason));
    }
    if first.is_word("CREATE") {
        let about = ["NODE", "REL", "SEQUENCE", "TYPE", "MACRO", "INDEX"]
            .into_iter()
            .any(second_is)
            || tokens.get(2).is_some_and(|token| token.is_word("INDEX"));
        return Ok(if about {
            StatementKind::Ddl
        } else {
            StatementKind::Write
        });
    }
    if ["DROP", "ALTER", "COMMENT"].iter().any(|word| first.is_word(word)) {
        return Ok(StatementKind::Ddl);
    }
    Err(syntax(
        text,
        first.start,
        &format!(
            "{:?} does not begin a statement; expected MATCH, OPTIONAL MATCH, UNWIND, WITH, RETURN, CALL, CREATE, MERGE, ALTER, DROP, COMMENT, EXPLAIN or PROFILE",
            first.text
        ),
    ))
}

/// Refuses what is too large, what ends the process, and words that reach outside, wherever they are; true if the
/// statement changes something.
fn scan(text: &str, tokens: &[Token<'_>], conditions: &mut Conditions) -> Result<bool, EngineError> {
    if let Some((token, why)) = size::too_much(tokens) {
        return Err(forbidden(text, token, &why));
    }
    if let Some((token, why)) = faults::found(tokens, conditions) {
        return Err(forbidden(text, token, why));
    }
    if let Some(token) = decimals::collected(tokens) {
        return Err(forbidden(text, token, NO_COLLECTED_DECIMALS));
    }
    if let Some(token) = gathered::gathered(tokens, &Decimals::default()) {
        return Err(forbidden(text, token, gathered::CAST_FIRST));
    }
    let mut writes = false;
    let defines_table = tokens.first().is_some_and(|token| token.is_word("CREATE"))
        && tokens
            .get(1)
            .is_some_and(|token| token.is_word("NODE") || token.is_word("REL"));
    let partition = tokens.windows(2).find(|pair| match pair {
        [first, second] => first.is_word("PARTITION") && second.is_word("BY"),
        _ => false,
    });
    if let Some([first, ..]) = partition.filter(|_| defines_table) {
        return Err(forbidden(text, first, PARTITIONS));
    }
    for (index, token) in tokens.iter().enumerate() {
        let next = tokens.get(index + 1);
        let before_parenthesis = next.is_some_and(|token| token.is_symbol('('));
        if token.kind == TokenKind::Quoted || token.kind == TokenKind::Word {
            if before_parenthesis && is_file_function(token) {
                return Err(forbidden(text, token, READS_FILES));
            }
            let name = token.text.trim_start_matches('`');
            if is_transient(name) {
                return Err(forbidden(
                    text,
                    token,
                    "names with this beginning are reserved for the node's own tables",
                ));
            }
        }
        if token.kind != TokenKind::Word || is_name(tokens, index) {
            continue;
        }
        // Most words of a query are names: look at the length before comparing with every keyword.
        if !(3..=9).contains(&token.text.len()) {
            continue;
        }
        if let Some((_, reason)) = FORBIDDEN_ANYWHERE.iter().find(|(word, _)| token.is_word(word)) {
            return Err(forbidden(text, token, reason));
        }
        if token.is_word("DETACH") && !next.is_some_and(|token| token.is_word("DELETE")) {
            return Err(forbidden(text, token, OTHER_DATABASES));
        }
        if token.is_word("CALL") {
            callable(text, token, next, tokens.get(index + 2))?;
        }
        if defines_table && token.is_word("WITH") && before_parenthesis {
            return Err(forbidden(
                text,
                token,
                "storage options of tables are chosen by the node",
            ));
        }
        writes |= ["CREATE", "MERGE", "SET", "DELETE"]
            .iter()
            .any(|word| token.is_word(word));
    }
    Ok(writes)
}

fn callable(
    text: &str,
    call: &Token<'_>,
    function: Option<&Token<'_>>,
    after: Option<&Token<'_>>,
) -> Result<(), EngineError> {
    let Some(function) = function else { return Ok(()) };
    if after.is_some_and(|token| token.is_symbol('=')) {
        return Err(forbidden(text, function, "settings of the engine are the node's"));
    }
    let name = function.identifier().unwrap_or_default();
    if CALLABLE.iter().any(|allowed| name.eq_ignore_ascii_case(allowed)) {
        return Ok(());
    }
    let at = if name.is_empty() { call } else { function };
    Err(forbidden(
        text,
        at,
        "only functions that describe the database can be called (SHOW_TABLES, TABLE_INFO, SHOW_CONNECTION, …)",
    ))
}

/// A bare word is a name rather than a keyword after `.`, `:` and `$`, and before `:` (the key of a map, or a variable
/// with its label).
fn is_name(tokens: &[Token<'_>], index: usize) -> bool {
    let before = index.checked_sub(1).and_then(|before| tokens.get(before));
    before.is_some_and(|token| matches!(token.kind, TokenKind::Symbol('.' | ':' | '$')))
        || tokens.get(index + 1).is_some_and(|token| token.is_symbol(':'))
}

fn is_file_function(token: &Token<'_>) -> bool {
    let name = token.text.trim_matches('`');
    FILE_FUNCTIONS
        .iter()
        .any(|function| name.eq_ignore_ascii_case(function))
}

fn is_neo4j_catalog(tokens: &[Token<'_>]) -> bool {
    matches!(tokens, [call, db, dot, name, open, close]
        if call.is_word("CALL") && db.is_word("db") && dot.is_symbol('.') && open.is_symbol('(') && close.is_symbol(')')
            && NEO4J_CATALOG.iter().any(|known| name.is_word(known)))
}

fn forbidden(text: &str, token: &Token<'_>, reason: &str) -> EngineError {
    let (line, column) = position(text, token.start);
    EngineError::Forbidden {
        token: token.text.to_owned(),
        line,
        column,
        reason: reason.to_owned(),
    }
}

fn syntax(text: &str, start: usize, message: &str) -> EngineError {
    let (line, column) = position(text, start);
    EngineError::Syntax {
        stage: SyntaxStage::Parser,
        message: format!("Parser exception: {message} (line: {line}, column: {column})"),
    }
}

#[cfg(test)]
mod tests;
