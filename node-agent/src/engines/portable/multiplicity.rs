//! How many relationships a node may have (`ONE_MANY` and its like), and whether a table is partitioned.
//!
//! No function of the engine (lbug 0.22.1) tells. Its export of the schema does, though not for a table between several pairs
//! of node tables. So all pairs but one are dropped, the schema is exported, and that is rolled back; until every pair was the
//! one that stayed.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::super::error::EngineError;
use super::super::ladybug::schema::cypher_string;
use super::super::ladybug::session::Session;
use super::super::ladybug::{Database, JobControl, TableInfo};
use super::super::names::cypher_identifier;
use super::STATEMENT_TIMEOUT;

const WORDS: [&str; 4] = ["MANY_MANY", "MANY_ONE", "ONE_MANY", "ONE_ONE"];

/// What a relationship table says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Multiplicity {
    /// Of the table.
    pub(super) table: &'static str,
    /// Of each pair of node tables that has its own.
    pub(super) pairs: Vec<Option<&'static str>>,
}

/// The multiplicities of relationship tables, in their order. The database is a copy that nobody else uses.
///
/// # Errors
/// `Invalid` if there is a partitioned table.
pub(super) async fn multiplicities(
    database: &Database,
    tables: &[TableInfo],
    directory: &Path,
    cancel: &CancellationToken,
) -> Result<Vec<Multiplicity>, EngineError> {
    let passes = tables.iter().map(|table| table.connections.len()).max().unwrap_or(1);
    let mut found = vec![None::<Multiplicity>; tables.len()];
    for pass in 0..passes {
        let target = directory.join(format!("schema-{pass}"));
        let (all, exported) = (tables.to_vec(), target.clone());
        let exporting = database.on_writer_until(STATEMENT_TIMEOUT, cancel, move |session, job| {
            session.run_once(job, "BEGIN TRANSACTION")?;
            let outcome = export(session, job, &all, pass, &exported);
            // Fails only if a statement that failed has ended the transaction already.
            let _ = session.rollback();
            outcome
        });
        exporting.await?;
        let file = target.join("schema.cypher");
        let schema = fs::read_to_string(&file).map_err(|error| EngineError::io("read", &file, error))?;
        if schema.contains(")) PARTITION BY ") {
            let message = "the graph has a partitioned table, which cannot be made again: drop it first";
            return Err(EngineError::invalid("graph", message));
        }
        for (table, found) in tables.iter().zip(&mut found) {
            let stays = stays(table, pass);
            let (of_table, of_pair) = read(&schema, table, stays).ok_or_else(|| {
                EngineError::internal(format!(
                    "the engine's export of the schema does not tell what {} is like",
                    table.name
                ))
            })?;
            let found = found.get_or_insert_with(|| Multiplicity {
                table: of_table,
                pairs: vec![None; table.connections.len()],
            });
            found.pairs[stays] = of_pair;
        }
    }
    Ok(found.into_iter().flatten().collect())
}

/// Which pair stays in a pass.
fn stays(table: &TableInfo, pass: usize) -> usize {
    pass.min(table.connections.len().saturating_sub(1))
}

fn export(
    session: &mut Session<'_, '_>,
    job: &Arc<JobControl>,
    tables: &[TableInfo],
    pass: usize,
    target: &Path,
) -> Result<(), EngineError> {
    for table in tables {
        for (index, (from, to)) in table.connections.iter().enumerate() {
            if index != stays(table, pass) {
                let [name, from, to] = [&table.name, from, to].map(|name| cypher_identifier(name));
                session.run_once(job, &format!("ALTER TABLE {name} DROP FROM {from} TO {to}"))?;
            }
        }
    }
    let target = cypher_string(&target.display().to_string());
    session
        .run_once(job, &format!("EXPORT DATABASE {target} (schema_only=true)"))
        .map(drop)
}

/// Reads the multiplicity of a table, and of the pair that stayed if that has its own.
fn read(schema: &str, table: &TableInfo, stays: usize) -> Option<(&'static str, Option<&'static str>)> {
    let (from, to) = table.connections.get(stays)?;
    let [name, from, to] = [&table.name, from, to].map(|name| cypher_identifier(name));
    let (_, rest) = schema.split_once(&format!("CREATE REL TABLE {name} (FROM {from} TO {to}"))?;
    let (definition, _) = rest.split_once(") WITH (storage = ")?;
    let word = |text: &str| WORDS.into_iter().find(|word| text.trim() == *word);
    let (before, last) = definition.rsplit_once(',')?;
    let of_pair = before.split(',').next().and_then(word);
    Some((word(last)?, of_pair))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::TableKind;

    #[test]
    fn the_engines_own_words_are_read() {
        let schema = "CREATE NODE TABLE `A` (`id` INT64, PRIMARY KEY(`id`)) WITH (storage = 'exp', format = 'icebug-disk');\n\
            CREATE REL TABLE `R` (FROM `A` TO `B` ONE_MANY, `w` DOUBLE DEFAULT 1.5,MANY_ONE) WITH (storage = 'exp', format = 'x');\n\
            CREATE REL TABLE `S``s` (FROM `A` TO `B`, MANY_MANY) WITH (storage = 'exp', format = 'icebug-disk');\n";
        let table = |name: &str| TableInfo {
            id: 0,
            name: name.into(),
            kind: TableKind::Relationship,
            comment: String::new(),
            properties: Vec::new(),
            connections: vec![("B".into(), "B".into()), ("A".into(), "B".into())],
        };
        assert_eq!(read(schema, &table("R"), 1), Some(("MANY_ONE", Some("ONE_MANY"))));
        assert_eq!(read(schema, &table("S`s"), 1), Some(("MANY_MANY", None)));
        assert_eq!(read(schema, &table("R"), 0), None);
        assert_eq!(read(schema, &table("T"), 1), None);
    }
}
