//! The tables of one database as statements that make them in another: what a `static` subgraph begins with.

use serde::{Deserialize, Serialize};

/// One table, as a node agent describes it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Whether it holds nodes or relationships.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Its columns.
    #[serde(default)]
    pub properties: Vec<Property>,
    /// What a relationship table connects.
    #[serde(default)]
    pub connections: Vec<Connection>,
}

/// What a table holds.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum Kind {
    /// Nodes.
    Node,
    /// Relationships.
    Rel,
}

/// One column.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// Its name.
    pub name: String,
    /// Its type, in the engine's words.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Whether it is the primary key.
    #[serde(default)]
    pub primary_key: bool,
}

/// One pair of node tables that a relationship table connects.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Where relationships begin.
    pub from: String,
    /// Where they end.
    pub to: String,
}

/// A table that cannot be written as a statement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// A name that cannot be quoted.
    #[error("the name {0:?} contains a backtick and cannot be written as a statement; rename it in the parent graph")]
    Name(String),
    /// A node table without a key, or a relationship table that connects nothing.
    #[error("table {0:?} has no primary key or connects nothing, so it cannot be made anew")]
    Incomplete(String),
}

fn quoted(name: &str) -> Result<String, CopyError> {
    if name.contains('`') {
        Err(CopyError::Name(name.to_owned()))
    } else {
        Ok(format!("`{name}`"))
    }
}

/// Statements that make `tables` in an empty database: node tables first, since relationship tables name them.
///
/// # Errors
/// When a table cannot be written as a statement.
pub fn ddl(tables: &[Table]) -> Result<String, CopyError> {
    let of = |kind| tables.iter().filter(move |t| t.kind == kind);
    let statements: Result<Vec<String>, CopyError> = of(Kind::Node)
        .map(node_table)
        .chain(of(Kind::Rel).map(rel_table))
        .collect();
    Ok(statements?.concat())
}

fn columns(table: &Table) -> Result<Vec<String>, CopyError> {
    table
        .properties
        .iter()
        .map(|p| Ok(format!("{} {}", quoted(&p.name)?, p.type_name)))
        .collect()
}

fn node_table(table: &Table) -> Result<String, CopyError> {
    let key = table.properties.iter().find(|p| p.primary_key);
    let key = key.ok_or_else(|| CopyError::Incomplete(table.name.clone()))?;
    let mut parts = columns(table)?;
    parts.push(format!("PRIMARY KEY({})", quoted(&key.name)?));
    Ok(format!(
        "CREATE NODE TABLE {}({});\n",
        quoted(&table.name)?,
        parts.join(", ")
    ))
}

fn rel_table(table: &Table) -> Result<String, CopyError> {
    if table.connections.is_empty() {
        return Err(CopyError::Incomplete(table.name.clone()));
    }
    let ends = table
        .connections
        .iter()
        .map(|c| Ok(format!("FROM {} TO {}", quoted(&c.from)?, quoted(&c.to)?)));
    let mut parts: Vec<String> = ends.collect::<Result<_, _>>()?;
    parts.extend(columns(table)?);
    Ok(format!(
        "CREATE REL TABLE {}({});\n",
        quoted(&table.name)?,
        parts.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::statements::{created_table, split};

    fn tables() -> Vec<Table> {
        let text = r#"[
            {"id":1,"name":"Route","type":"REL","comment":"","properties":[{"name":"flights","type":"INT64","primary_key":false}],
             "connections":[{"from":"Airport","to":"Airport"}]},
            {"id":0,"name":"Airport","type":"NODE","comment":"","properties":[
                {"name":"iata","type":"STRING","primary_key":true},{"name":"at","type":"STRUCT(x DOUBLE, y DOUBLE)","primary_key":false}],
             "connections":[]}]"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn nodes_come_before_what_connects_them() {
        let ddl = ddl(&tables()).unwrap();
        let statements = split(&ddl);
        let made: Vec<String> = statements.iter().filter_map(|s| created_table(s)).collect();
        assert_eq!(made, ["Airport", "Route"]);
        assert_eq!(
            statements[0],
            "CREATE NODE TABLE `Airport`(`iata` STRING, `at` STRUCT(x DOUBLE, y DOUBLE), PRIMARY KEY(`iata`))"
        );
        assert_eq!(
            statements[1],
            "CREATE REL TABLE `Route`(FROM `Airport` TO `Airport`, `flights` INT64)"
        );
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let mut broken = tables();
        broken[1].properties[0].primary_key = false;
        assert_eq!(ddl(&broken), Err(CopyError::Incomplete("Airport".into())));
        let mut quoted = tables();
        quoted[0].name = "a`b; DROP TABLE x".into();
        assert!(matches!(ddl(&quoted), Err(CopyError::Name(_))));
        assert_eq!(ddl(&[]), Ok(String::new()));
    }
}
