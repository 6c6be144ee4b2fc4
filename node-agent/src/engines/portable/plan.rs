//! One file: its columns, and the statements that write and read it.

use std::path::Path;

use lbug::Value;
use tokio_util::sync::CancellationToken;

use super::super::error::EngineError;
use super::super::ladybug::schema::cypher_string;
use super::super::ladybug::{Database, TableInfo, TableKind};
use super::super::materialize::{ends_option, is_end};
use super::super::names::cypher_identifier;
use super::carrier::Carrier;
use super::{STATEMENT_TIMEOUT, run};

/// How the rows of a node table, or of a relationship table between two node tables, are written and read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) table: String,
    /// Of relationships: from which table to which.
    pub(super) ends: Option<[String; 2]>,
    /// COPY needs to be told which pair of tables is meant.
    name_ends: bool,
    /// Ends first.
    columns: Vec<Column>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Column {
    /// In the file.
    name: String,
    /// In the pattern that finds the rows.
    value: String,
    type_name: String,
    carrier: Carrier,
    /// The property; an end has none.
    property: Option<String>,
}

/// The plans of all tables, nodes first.
pub(super) fn plans(tables: &[TableInfo]) -> Result<Vec<Plan>, EngineError> {
    let find = |name: &str| {
        let nodes = tables
            .iter()
            .find(|table| table.kind == TableKind::Node && table.name == name);
        nodes.ok_or_else(|| {
            EngineError::internal(format!("a relationship table connects {name}, which is no node table"))
        })
    };
    let mut plans = Vec::new();
    for table in super::super::rebuild::nodes_first(tables) {
        match table.kind {
            TableKind::Node => plans.push(Plan::nodes(table)?),
            TableKind::Relationship => {
                for (from, to) in &table.connections {
                    plans.push(Plan::relationships(table, find(from)?, find(to)?)?);
                }
            }
        }
    }
    Ok(plans)
}

impl Plan {
    fn nodes(table: &TableInfo) -> Result<Self, EngineError> {
        let columns = table.properties.iter().map(|property| {
            column(table, "n", &property.name, &property.type_name).map(|column| Column {
                property: Some(property.name.clone()),
                ..column
            })
        });
        Ok(Self {
            table: table.name.clone(),
            ends: None,
            name_ends: false,
            columns: columns.collect::<Result<_, _>>()?,
        })
    }

    fn relationships(table: &TableInfo, from: &TableInfo, to: &TableInfo) -> Result<Self, EngineError> {
        let mut columns = Vec::new();
        for (variable, name, end) in [("a", "from", from), ("b", "to", to)] {
            let key = end
                .primary_key()
                .ok_or_else(|| EngineError::internal(format!("{} has no key", end.name)))?;
            columns.push(Column {
                name: free_name(table, name),
                ..column(end, variable, &key.name, &key.type_name)?
            });
        }
        for property in &table.properties {
            columns.push(Column {
                property: Some(property.name.clone()),
                ..column(table, "r", &property.name, &property.type_name)?
            });
        }
        Ok(Self {
            table: table.name.clone(),
            ends: Some([from.name.clone(), to.name.clone()]),
            name_ends: table.connections.len() > 1,
            columns,
        })
    }

    fn pattern(&self) -> String {
        let table = cypher_identifier(&self.table);
        match &self.ends {
            None => format!("MATCH (n:{table})"),
            Some([from, to]) => {
                let (from, to) = (cypher_identifier(from), cypher_identifier(to));
                format!("MATCH (a:{from})-[r:{table}]->(b:{to})")
            }
        }
    }

    fn write_statement(&self, file: &Path) -> String {
        let columns = self.columns.iter().map(|column| {
            let name = cypher_identifier(&column.name);
            format!("{} AS {name}", column.carrier.pack(&column.value))
        });
        format!(
            "COPY ({} RETURN {}) TO {} (compression='zstd')",
            self.pattern(),
            columns.collect::<Vec<_>>().join(", "),
            path(file)
        )
    }

    fn load_statement(&self, file: &Path) -> String {
        let values = self.columns.iter().enumerate().map(|(index, column)| {
            let written = cypher_identifier(&column.name);
            format!("{} AS c{index}", column.carrier.unpack(&written, &column.type_name))
        });
        let properties: Vec<_> = self
            .columns
            .iter()
            .filter_map(|column| column.property.as_deref().map(cypher_identifier))
            .collect();
        // A SERIAL would number its rows anew if it were not named.
        let named = match self.ends {
            None => format!("({})", properties.join(", ")),
            Some(_) => String::new(),
        };
        let options = match self.ends.as_ref().filter(|_| self.name_ends) {
            Some([from, to]) => ends_option(from, to),
            None => String::new(),
        };
        format!(
            "COPY {}{named} FROM (LOAD FROM {} RETURN {}){options}",
            cypher_identifier(&self.table),
            path(file),
            values.collect::<Vec<_>>().join(", ")
        )
    }

    /// Properties that need another name while they are loaded.
    fn renamed(&self) -> Vec<(&str, String)> {
        let properties = || self.columns.iter().filter_map(|column| column.property.as_deref());
        let ends = properties().filter(|name| self.ends.is_some() && is_end(name));
        let free = |name: &str| {
            let mut other = format!("{name}_");
            while properties().any(|taken| taken.eq_ignore_ascii_case(&other)) {
                other.push('_');
            }
            other
        };
        ends.map(|name| (name, free(name))).collect()
    }

    /// Checks that everything that is written can be read as it was.
    pub(super) async fn check(&self, database: &Database, cancel: &CancellationToken) -> Result<(), EngineError> {
        for column in &self.columns {
            let Some(lost) = column.carrier.loses(&column.value, &column.type_name) else {
                continue;
            };
            let statement = format!("{} WHERE {lost} RETURN count(*)", self.pattern());
            let refused = |what: String| {
                let name = column.property.as_deref().unwrap_or(&column.name);
                EngineError::invalid(format!("{}.{name}", self.table), what)
            };
            match number(database, statement, cancel).await {
                Ok(0) => {}
                Ok(rows) => {
                    return Err(refused(format!(
                        "{rows} rows have values of type {} that cannot be exported without a loss, like times of less than \
                         a microsecond; change or drop the column first",
                        column.type_name
                    )));
                }
                Err(EngineError::Runtime { message }) => {
                    return Err(refused(format!(
                        "has values of type {} that cannot be exported ({message}); change or drop the column first",
                        column.type_name
                    )));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes the rows to a file.
    pub(super) async fn write(
        &self,
        database: &Database,
        file: &Path,
        cancel: &CancellationToken,
    ) -> Result<(), EngineError> {
        run(database, vec![self.write_statement(file)], cancel).await
    }

    /// Reads the rows from a file into the table, which has none.
    pub(super) async fn load(
        &self,
        database: &Database,
        file: &Path,
        cancel: &CancellationToken,
    ) -> Result<(), EngineError> {
        let table = cypher_identifier(&self.table);
        let rename = |from: &str, to: &str| {
            format!(
                "ALTER TABLE {table} RENAME {} TO {}",
                cypher_identifier(from),
                cypher_identifier(to)
            )
        };
        let renamed = self.renamed();
        let away = renamed.iter().map(|(name, other)| rename(name, other));
        let back = renamed.iter().map(|(name, other)| rename(other, name));
        let statements = away.chain([self.load_statement(file)]).chain(back);
        run(database, statements.collect(), cancel).await
    }

    /// How many rows there are.
    pub(super) async fn count(&self, database: &Database, cancel: &CancellationToken) -> Result<u64, EngineError> {
        number(database, format!("{} RETURN count(*)", self.pattern()), cancel).await
    }
}

fn column(table: &TableInfo, variable: &str, property: &str, type_name: &str) -> Result<Column, EngineError> {
    let carrier = Carrier::of(type_name).ok_or_else(|| {
        let message = format!("has type {type_name}, which cannot be exported; drop the column first");
        EngineError::invalid(format!("{}.{property}", table.name), message)
    })?;
    Ok(Column {
        name: property.to_owned(),
        value: format!("{variable}.{}", cypher_identifier(property)),
        type_name: type_name.to_owned(),
        carrier,
        property: None,
    })
}

/// A name for an end that no property has.
fn free_name(table: &TableInfo, name: &str) -> String {
    let mut name = name.to_owned();
    while table
        .properties
        .iter()
        .any(|property| property.name.eq_ignore_ascii_case(&name))
    {
        name.push('_');
    }
    name
}

fn path(file: &Path) -> String {
    cypher_string(&file.display().to_string())
}

async fn number(database: &Database, statement: String, cancel: &CancellationToken) -> Result<u64, EngineError> {
    let work = database.on_writer_until(STATEMENT_TIMEOUT, cancel, move |session, job| {
        match session.rows(job, &statement)?.pop().and_then(|mut row| row.pop()) {
            Some(Value::Int64(rows)) => Ok(u64::try_from(rows).unwrap_or_default()),
            other => Err(EngineError::internal(format!("a count answered {other:?}"))),
        }
    });
    work.await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engines::PropertyInfo;

    fn table(name: &str, kind: TableKind, properties: &[(&str, &str)], connections: &[(&str, &str)]) -> TableInfo {
        let property = |(index, (name, ty)): (usize, &(&str, &str))| PropertyInfo {
            name: (*name).to_owned(),
            type_name: (*ty).to_owned(),
            primary_key: kind == TableKind::Node && index == 0,
            default: None,
        };
        TableInfo {
            id: 0,
            name: name.into(),
            kind,
            comment: String::new(),
            properties: properties.iter().enumerate().map(property).collect(),
            connections: connections.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect(),
        }
    }

    #[test]
    fn statements_name_what_they_move() {
        let tables = [
            table(
                "R",
                TableKind::Relationship,
                &[("from", "STRING"), ("w", "DECIMAL(5, 2)")],
                &[("A", "B"), ("A", "A")],
            ),
            table("A", TableKind::Node, &[("id", "SERIAL"), ("s`t", "STRING")], &[]),
            table("B", TableKind::Node, &[("k", "INT128")], &[]),
        ];
        let plans = plans(&tables).unwrap();
        assert_eq!(plans.len(), 4);
        let file = Path::new("/v/it's/t.parquet");
        assert_eq!(
            plans[0].write_statement(file),
            "COPY (MATCH (n:`A`) RETURN CAST(n.`id` AS INT64) AS `id`, n.`s``t` AS `s``t`) TO '/v/it\\'s/t.parquet' \
             (compression='zstd')"
        );
        assert_eq!(
            plans[0].load_statement(file),
            "COPY `A`(`id`, `s``t`) FROM (LOAD FROM '/v/it\\'s/t.parquet' RETURN `id` AS c0, `s``t` AS c1)"
        );
        assert_eq!(
            plans[2].write_statement(file),
            "COPY (MATCH (a:`A`)-[r:`R`]->(b:`B`) RETURN CAST(a.`id` AS INT64) AS `from_`, CAST(b.`k` AS STRING) AS `to`, \
             r.`from` AS `from`, CAST(r.`w` AS STRING) AS `w`) TO '/v/it\\'s/t.parquet' (compression='zstd')"
        );
        assert_eq!(
            plans[2].load_statement(file),
            "COPY `R` FROM (LOAD FROM '/v/it\\'s/t.parquet' RETURN `from_` AS c0, CAST(`to` AS INT128) AS c1, `from` AS c2, \
             CAST(`w` AS DECIMAL(5, 2)) AS c3) (FROM='A', TO='B')"
        );
        assert_eq!(plans[2].renamed(), [("from", "from_".to_owned())]);
        assert!(plans[0].renamed().is_empty());
    }

    #[test]
    fn a_type_without_a_way_is_refused_by_name() {
        let tables = [table("T", TableKind::Node, &[("id", "INT64"), ("j", "JSON")], &[])];
        let error = plans(&tables).unwrap_err().to_string();
        assert!(error.contains("T.j") && error.contains("JSON"), "{error}");
    }
}
