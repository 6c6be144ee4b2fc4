//! What a database consists of: its tables, how many rows they have, and changes to them.

use std::sync::Arc;
use std::time::Duration;

use lbug::Value;

use super::super::error::EngineError;
use super::super::names::cypher_identifier;
use super::control::JobControl;
use super::database::Database;
use super::guard::schema_script;
use super::session::Session;

const CATALOG_TIMEOUT: Duration = Duration::from_secs(30);

/// What a table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TableKind {
    /// Nodes.
    Node,
    /// Relationships.
    Relationship,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PropertyInfo {
    /// Its name.
    pub name: String,
    /// Its type, as the engine writes it (`INT64`, `STRING[]`, `DECIMAL(10, 2)`).
    pub type_name: String,
    /// True for the primary key of a node table.
    pub primary_key: bool,
    /// The expression for rows that do not say a value, if there is one.
    pub default: Option<String>,
}

/// A table of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableInfo {
    /// The engine's number for it.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Nodes or relationships.
    pub kind: TableKind,
    /// Its comment; empty if it has none.
    pub comment: String,
    /// Its columns, in order.
    pub properties: Vec<PropertyInfo>,
    /// For relationships: the node tables that they connect, from and to.
    pub connections: Vec<(String, String)>,
}

impl TableInfo {
    /// The primary key of a node table.
    #[must_use]
    pub fn primary_key(&self) -> Option<&PropertyInfo> {
        self.properties.iter().find(|property| property.primary_key)
    }
}

/// How many rows a database has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GraphCounts {
    /// Nodes of all tables.
    pub nodes: u64,
    /// Relationships of all tables.
    pub relationships: u64,
    /// Rows per table.
    pub tables: Vec<(String, u64)>,
}

/// What a schema script did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DdlOutcome {
    /// Statements that ran.
    pub statements: usize,
    /// Tables that they define.
    pub tables: Vec<String>,
}

/// Why a schema script did nothing: it runs as a whole or not at all.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}{error}", statement.map_or_else(String::new, |number| format!("statement {number}: ")))]
pub struct DdlFailure {
    /// Which statement failed, from 1; `None` if the script as a whole could not run.
    pub statement: Option<usize>,
    /// Why.
    pub error: EngineError,
}

impl From<EngineError> for DdlFailure {
    fn from(error: EngineError) -> Self {
        Self { statement: None, error }
    }
}

impl Database {
    /// Runs a schema script in one transaction: every statement or none.
    ///
    /// # Errors
    /// The statement that is not allowed or that failed.
    pub async fn apply_ddl(&self, ddl: &str, timeout: Duration) -> Result<DdlOutcome, DdlFailure> {
        let statements = schema_script(ddl).map_err(|(statement, error)| DdlFailure {
            statement: Some(statement),
            error,
        })?;
        let tables = statements
            .iter()
            .filter_map(|statement| statement.creates.clone())
            .collect();
        let texts: Vec<String> = statements.iter().map(|statement| statement.text.to_owned()).collect();
        let count = texts.len();
        let outcome = self
            .on_writer(timeout, move |session, job| {
                session.shared.may_change()?;
                let _changing = session.shared.options.revision.changing();
                Ok(run_script(session, job, &texts))
            })
            .await?;
        outcome.map(|()| DdlOutcome {
            statements: count,
            tables,
        })
    }

    /// All tables with their columns.
    ///
    /// # Errors
    /// The engine cannot list them.
    pub async fn schema(&self) -> Result<Vec<TableInfo>, EngineError> {
        self.on_reader(CATALOG_TIMEOUT, tables).await
    }

    /// The rows of every table. Reads only statistics of the tables, not their columns.
    ///
    /// # Errors
    /// The engine cannot count them in time.
    pub async fn counts(&self) -> Result<GraphCounts, EngineError> {
        self.on_reader(CATALOG_TIMEOUT * 4, counts).await
    }
}

pub(crate) fn run_script(
    session: &mut Session<'_, '_>,
    job: &Arc<JobControl>,
    texts: &[String],
) -> Result<(), DdlFailure> {
    session.run_once(job, "BEGIN TRANSACTION")?;
    for (index, text) in texts.iter().enumerate() {
        if let Err(error) = session.run_once(job, text) {
            // A failing statement ends its transaction; this is for failures that left it open.
            let _ = session.run_once(job, "ROLLBACK");
            return Err(DdlFailure {
                statement: Some(index + 1),
                error,
            });
        }
    }
    let committed = session.commit();
    session.shared.schema_changed();
    if let Err(error) = committed {
        let _ = session.run_once(job, "ROLLBACK");
        return Err(error.into());
    }
    Ok(())
}

pub(crate) fn tables(session: &mut Session<'_, '_>, job: &Arc<JobControl>) -> Result<Vec<TableInfo>, EngineError> {
    let mut found = Vec::new();
    for row in session.rows(job, "CALL show_tables() RETURN id, name, type, comment")? {
        let [id, name, kind, comment] = columns(row)?;
        let kind = match text(kind)?.as_str() {
            "NODE" => TableKind::Node,
            "REL" => TableKind::Relationship,
            _ => continue,
        };
        let id = match id {
            Value::UInt64(id) => id,
            other => return Err(unexpected(&other)),
        };
        found.push(TableInfo {
            id,
            name: text(name)?,
            kind,
            comment: text(comment)?,
            properties: Vec::new(),
            connections: Vec::new(),
        });
    }
    found.sort_by_key(|table| table.id);
    for table in &mut found {
        describe(session, job, table)?;
    }
    Ok(found)
}

/// One table by its name in any case (the engine compares names without case), or `None`.
pub(crate) fn table(
    session: &mut Session<'_, '_>,
    job: &Arc<JobControl>,
    name: &str,
) -> Result<Option<TableInfo>, EngineError> {
    let all = tables(session, job)?;
    let exact = all.iter().position(|table| table.name == name);
    let index = exact.or_else(|| all.iter().position(|table| table.name.eq_ignore_ascii_case(name)));
    Ok(index.and_then(|index| all.into_iter().nth(index)))
}

fn describe(session: &mut Session<'_, '_>, job: &Arc<JobControl>, table: &mut TableInfo) -> Result<(), EngineError> {
    let literal = cypher_string(&table.name);
    let key = match table.kind {
        TableKind::Node => "`primary key`",
        TableKind::Relationship => "false",
    };
    for row in session.rows(
        job,
        &format!("CALL table_info({literal}) RETURN name, type, {key}, `default expression`"),
    )? {
        let [name, type_name, key, default] = columns(row)?;
        table.properties.push(PropertyInfo {
            name: text(name)?,
            type_name: text(type_name)?,
            primary_key: key == Value::Bool(true),
            default: Some(text(default)?).filter(|default| !default.is_empty() && default != "NULL"),
        });
    }
    if table.kind == TableKind::Relationship {
        let statement = format!("CALL show_connection({literal}) RETURN `source table name`, `destination table name`");
        for row in session.rows(job, &statement)? {
            let [from, to] = columns(row)?;
            table.connections.push((text(from)?, text(to)?));
        }
    }
    Ok(())
}

pub(crate) fn counts(session: &mut Session<'_, '_>, job: &Arc<JobControl>) -> Result<GraphCounts, EngineError> {
    let mut result = GraphCounts::default();
    for table in tables(session, job)? {
        let rows = count(session, job, &table.name, table.kind)?;
        match table.kind {
            TableKind::Node => result.nodes += rows,
            TableKind::Relationship => result.relationships += rows,
        }
        result.tables.push((table.name, rows));
    }
    Ok(result)
}

pub(crate) fn count(
    session: &mut Session<'_, '_>,
    job: &Arc<JobControl>,
    name: &str,
    kind: TableKind,
) -> Result<u64, EngineError> {
    let name = cypher_identifier(name);
    let statement = match kind {
        TableKind::Node => format!("MATCH (n:{name}) RETURN count(*)"),
        TableKind::Relationship => format!("MATCH ()-[r:{name}]->() RETURN count(*)"),
    };
    match session.rows(job, &statement)?.pop().and_then(|mut row| row.pop()) {
        Some(Value::Int64(rows)) => Ok(u64::try_from(rows).unwrap_or_default()),
        other => Err(EngineError::internal(format!("a count answered {other:?}"))),
    }
}

pub(crate) fn cypher_string(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

pub(crate) fn columns<const N: usize>(row: Vec<Value>) -> Result<[Value; N], EngineError> {
    row.try_into()
        .map_err(|row: Vec<Value>| EngineError::internal(format!("{} columns instead of {N}", row.len())))
}

pub(crate) fn text(value: Value) -> Result<String, EngineError> {
    match value {
        Value::String(text) => Ok(text),
        Value::Null(_) => Ok(String::new()),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(value: &Value) -> EngineError {
    EngineError::internal(format!("the catalog answered {value:?}"))
}
