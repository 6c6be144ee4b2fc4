//! What makes the tables of a graph again: statements and sequences.

use std::path::Path;
use std::sync::Arc;

use lbug::Value;
use tokio_util::sync::CancellationToken;

use super::super::error::EngineError;
use super::super::ladybug::schema::{columns, cypher_string, tables, text};
use super::super::ladybug::session::Session;
use super::super::ladybug::{Database, JobControl, TableInfo, TableKind, schema_script};
use super::super::materialize::{column_definition, create_table};
use super::super::names::cypher_identifier;
use super::super::rebuild::nodes_first;
use super::multiplicity::{Multiplicity, multiplicities};
use super::plan::{Plan, plans};
use super::{Portable, PortableTable, STATEMENT_TIMEOUT, Sequence};

/// What makes the tables of a graph again, without their rows.
#[derive(Clone, Debug)]
pub(crate) struct Definitions {
    /// Statements, each ended by a semicolon.
    pub(super) ddl: String,
    pub(super) sequences: Vec<Sequence>,
    /// What the statements make.
    pub(crate) tables: Vec<TableInfo>,
}

/// Looks at a database that nobody else uses: what it consists of, and how each of its files is written.
pub(super) async fn of(
    database: &Database,
    directory: &Path,
    cancel: &CancellationToken,
) -> Result<(Portable, Vec<Plan>), EngineError> {
    let definitions = definitions(database, directory, cancel).await?;
    let plans = plans(&definitions.tables)?;
    let mut files = Vec::new();
    for plan in &plans {
        files.push(PortableTable {
            table: plan.table.clone(),
            ends: plan.ends.clone(),
            rows: plan.count(database, cancel).await?,
        });
    }
    let portable = Portable {
        ddl: definitions.ddl,
        sequences: definitions.sequences,
        tables: files,
    };
    Ok((portable, plans))
}

/// How the tables of a database that nobody else uses can be made again. Writes into the directory.
///
/// # Errors
/// `Invalid` if something would be lost.
pub(super) async fn definitions(
    database: &Database,
    directory: &Path,
    cancel: &CancellationToken,
) -> Result<Definitions, EngineError> {
    let looking = database.on_writer_until(STATEMENT_TIMEOUT, cancel, |session, job| {
        check(session, job)?;
        let tables = tables(session, job)?;
        let sequences = sequences(session, job, &tables)?;
        Ok((tables, sequences))
    });
    let (tables, sequences) = looking.await?;
    let relationships: Vec<TableInfo> = tables
        .iter()
        .filter(|table| table.kind == TableKind::Relationship)
        .cloned()
        .collect();
    let multiplicities = multiplicities(database, &relationships, directory, cancel).await?;
    let ddl = ddl(&tables, &multiplicities);
    check_ddl(&ddl)?;
    Ok(Definitions { ddl, sequences, tables })
}

/// Whoever imports it lets nothing else pass.
fn check_ddl(ddl: &str) -> Result<(), EngineError> {
    if ddl.is_empty() {
        return Ok(());
    }
    schema_script(ddl).map(drop).map_err(|(statement, error)| {
        EngineError::invalid(
            "schema",
            format!("statement {statement} of what makes it again could not be run: {error}"),
        )
    })
}

/// Refuses what would be lost because neither statements nor rows say it.
fn check(session: &mut Session<'_, '_>, job: &Arc<JobControl>) -> Result<(), EngineError> {
    let refuse = |what: String| {
        Err(EngineError::invalid(
            "graph",
            format!("{what}, which cannot be made again: drop it first"),
        ))
    };
    if let Some(row) = session.rows(job, "CALL show_macros() RETURN name")?.pop() {
        let [name] = columns(row)?;
        return refuse(format!("the graph has the macro {}", text(name)?));
    }
    for row in session.rows(job, "CALL show_indexes() RETURN table_name, index_name")? {
        let [table, index] = columns(row)?;
        // That of a primary key comes with the table.
        let (table, index) = (text(table)?, text(index)?);
        if index != "_PK" {
            return refuse(format!("{table} has the index {index}"));
        }
    }
    Ok(())
}

fn sequences(
    session: &mut Session<'_, '_>,
    job: &Arc<JobControl>,
    tables: &[TableInfo],
) -> Result<Vec<Sequence>, EngineError> {
    let serials = serials(tables);
    let statement = "CALL show_sequences() RETURN name, `start value`, increment, `min value`, `max value`, cycle";
    let mut found = Vec::new();
    for row in session.rows(job, statement)? {
        let [name, start, increment, min, max, cycle] = columns(row)?;
        let name = text(name)?;
        found.push(Sequence {
            start: number(&start)?,
            increment: number(&increment)?,
            min: number(&min)?,
            max: number(&max)?,
            cycle: cycle == Value::Bool(true),
            current: current(session, job, &name)?,
            serial: serials.iter().any(|(_, sequence)| *sequence == name),
            name,
        });
    }
    check_serials(&serials, &found)?;
    Ok(found)
}

/// SERIAL columns, each with the name of the sequence that the engine makes for it.
fn serials(tables: &[TableInfo]) -> Vec<(String, String)> {
    let properties = tables.iter().flat_map(|table| {
        let serials = table
            .properties
            .iter()
            .filter(|property| property.type_name == "SERIAL");
        serials.map(move |property| (&table.name, &property.name))
    });
    properties
        .map(|(table, property)| (format!("{table}.{property}"), format!("{table}_{property}_serial")))
        .collect()
}

/// A column that was renamed, or whose table was, keeps its sequence with the old name, and nothing tells that it is this
/// one. Made again, it would begin with numbers that are taken.
fn check_serials(serials: &[(String, String)], sequences: &[Sequence]) -> Result<(), EngineError> {
    let lost = serials
        .iter()
        .find(|(_, name)| !sequences.iter().any(|sequence| sequence.name == *name));
    match lost {
        None => Ok(()),
        Some((column, sequence)) => Err(EngineError::invalid(
            column,
            format!(
                "takes its numbers from a sequence of another name than {sequence}, as after a rename, and cannot be made again: \
                 give table and column their old names, or drop the column"
            ),
        )),
    }
}

/// The number that a sequence gave last. One that gave none has no such number, and says so with an error.
fn current(session: &mut Session<'_, '_>, job: &Arc<JobControl>, name: &str) -> Result<Option<i64>, EngineError> {
    match session.rows(job, &format!("RETURN currval({})", cypher_string(name))) {
        Ok(mut rows) => match rows.pop().and_then(|mut row| row.pop()) {
            Some(value) => number(&value).map(Some),
            None => Err(EngineError::internal(format!("sequence {name} has no answer"))),
        },
        Err(error) if error.to_string().contains("not yet defined") => Ok(None),
        Err(error) => Err(error),
    }
}

fn number(value: &Value) -> Result<i64, EngineError> {
    match value {
        Value::Int64(number) => Ok(*number),
        other => Err(EngineError::internal(format!("the catalog answered {other:?}"))),
    }
}

/// The statements that make the tables. `multiplicities` are those of the relationship tables, in their order.
fn ddl(tables: &[TableInfo], multiplicities: &[Multiplicity]) -> String {
    let mut multiplicities = multiplicities.iter();
    let mut statements: Vec<String> = nodes_first(tables)
        .map(|table| match table.kind {
            TableKind::Node => create_table(table),
            TableKind::Relationship => match multiplicities.next() {
                Some(multiplicity) => create_relationships(table, multiplicity),
                None => create_table(table),
            },
        })
        .collect();
    statements.extend(tables.iter().filter(|table| !table.comment.is_empty()).map(|table| {
        let (name, comment) = (cypher_identifier(&table.name), cypher_string(&table.comment));
        format!("COMMENT ON TABLE {name} IS {comment}")
    }));
    statements.iter().map(|statement| format!("{statement};\n")).collect()
}

fn create_relationships(table: &TableInfo, multiplicity: &Multiplicity) -> String {
    let ends = table
        .connections
        .iter()
        .zip(&multiplicity.pairs)
        .map(|((from, to), own)| {
            let ends = format!("FROM {} TO {}", cypher_identifier(from), cypher_identifier(to));
            own.map_or(ends.clone(), |own| format!("{ends} {own}"))
        });
    let columns = table.properties.iter().map(column_definition);
    let parts: Vec<String> = ends.chain(columns).chain([multiplicity.table.to_owned()]).collect();
    format!(
        "CREATE REL TABLE {}({})",
        cypher_identifier(&table.name),
        parts.join(", ")
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engines::PropertyInfo;

    #[test]
    fn a_numbered_column_without_its_sequence_is_refused() {
        let sequence = |name: &str| Sequence {
            name: name.into(),
            start: 0,
            increment: 1,
            min: 0,
            max: 9,
            cycle: false,
            current: None,
            serial: true,
        };
        let tables = [TableInfo {
            id: 0,
            name: "T".into(),
            kind: TableKind::Node,
            comment: String::new(),
            properties: vec![PropertyInfo {
                name: "id".into(),
                type_name: "SERIAL".into(),
                primary_key: true,
                default: None,
            }],
            connections: Vec::new(),
        }];
        let serials = serials(&tables);
        check_serials(&serials, &[sequence("other"), sequence("T_id_serial")]).unwrap();
        let error = check_serials(&serials, &[sequence("Old_id_serial")]).unwrap_err();
        assert!(error.to_string().contains("T.id"), "{error}");
    }

    #[test]
    fn the_statements_of_a_graph_pass_the_guard() {
        let property = |name: &str, ty: &str, key: bool, default: Option<&str>| PropertyInfo {
            name: name.into(),
            type_name: ty.into(),
            primary_key: key,
            default: default.map(str::to_owned),
        };
        let table = |name: &str, kind| TableInfo {
            id: 0,
            name: name.into(),
            kind,
            comment: String::new(),
            properties: vec![property("w", "DECIMAL(5, 2)", false, Some("1.5"))],
            connections: vec![("A b".into(), "A b".into()), ("A b".into(), "C".into())],
        };
        let tables = [
            table("R", TableKind::Relationship),
            TableInfo {
                comment: "it's; a \\ comment".into(),
                properties: vec![
                    property("id", "SERIAL", true, Some("nextval('A b_id_serial')")),
                    property("n", "INT64", false, Some("nextval('numbers')")),
                    property("t", "TIMESTAMP", false, Some("current_timestamp()")),
                    property("u", "UNION(a INT64, b STRING)", false, None),
                ],
                connections: Vec::new(),
                ..table("A b", TableKind::Node)
            },
            TableInfo {
                properties: vec![property("k", "STRING", true, None)],
                connections: Vec::new(),
                ..table("C", TableKind::Node)
            },
        ];
        let multiplicity = Multiplicity {
            table: "MANY_ONE",
            pairs: vec![Some("ONE_ONE"), None],
        };
        let ddl = ddl(&tables, &[multiplicity]);
        check_ddl(&ddl).unwrap();
        assert_eq!(schema_script(&ddl).unwrap().len(), 4);
        assert!(
            ddl.contains("CREATE REL TABLE `R`(FROM `A b` TO `A b` ONE_ONE, FROM `A b` TO `C`, `w` DECIMAL(5, 2) DEFAULT 1.5, MANY_ONE);"),
            "{ddl}"
        );
        check_ddl("").unwrap();
        check_ddl("CREATE NODE TABLE A(id INT64 PRIMARY KEY); INSTALL httpfs").unwrap_err();
    }
}
