//! What a materialise run will do, decided before anything is touched: which staged column fills which column of the
//! graph, how each is cast, and the statements that follow from it.

use std::ops::Range;

use super::super::duckdb::{StagingColumn, StagingTable};
use super::super::error::EngineError;
use super::super::ladybug::schema::cypher_string;
use super::super::ladybug::{PropertyInfo, TableInfo, TableKind};
use super::super::names::{cypher_identifier, sql_identifier};
use super::super::type_names::parse;
use super::types::{column_type, same, transport};

/// One column on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    /// What DuckDB selects, cast to the type of transport.
    pub(super) sql: String,
    /// The same, with NULL for a value that does not fit.
    lenient: String,
    /// The staged column, quoted, if there is one.
    source: Option<String>,
    /// The type of the graph's column, if LadybugDB has to cast to it.
    pub(super) cast: Option<String>,
    /// The graph's column.
    pub(super) target: PropertyInfo,
}

impl Column {
    /// What arrives as column `index` of an Arrow table `s`, as the type of the graph's column.
    fn arrived(&self, index: usize) -> String {
        match &self.cast {
            Some(target) => format!("CAST(s.c{index} AS {target})"),
            None => format!("s.c{index}"),
        }
    }
}

/// A run into one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) table: String,
    pub(super) kind: TableKind,
    /// The columns that must not be NULL: the primary key, or both ends of a relationship. They come first in Arrow.
    pub(super) keys: Vec<Column>,
    /// All columns in the order in which COPY wants them: an index below `keys.len()` is a key, above it a value.
    pub(super) order: Vec<usize>,
    pub(super) values: Vec<Column>,
    /// For relationships: the node tables and their primary keys, from and to.
    pub(super) ends: Option<[End; 2]>,
    /// COPY needs to be told which pair of tables is meant.
    pub(super) name_ends: bool,
    pub(super) filled_with_null: Vec<String>,
    pub(super) ignored_columns: Vec<String>,
}

/// One end of a relationship.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) table: String,
    pub(super) key: String,
}

impl Plan {
    /// Plans a run into a node table.
    pub(super) fn nodes(target: &TableInfo, staged: &StagingTable) -> Result<Self, EngineError> {
        let key = target
            .primary_key()
            .ok_or_else(|| EngineError::internal(format!("{} has no key", target.name)))?;
        let mut plan = Self::empty(target);
        let mut used = Vec::new();
        for property in &target.properties {
            let source = find(staged, &property.name);
            if property.type_name == "SERIAL" {
                match source {
                    None => continue,
                    Some(source) => return Err(numbered(property, source)),
                }
            }
            if property.name == key.name {
                let source = source.ok_or_else(|| missing(staged, &key.name, &target.name))?;
                plan.keys.push(column(property, Some(source))?);
                plan.order.push(0);
            } else {
                plan.add_value(property, source)?;
            }
            used.extend(source.map(|source| source.name.clone()));
        }
        plan.finish(staged, &used)
    }

    /// Plans a run into a relationship table between two node tables.
    pub(super) fn relationships(
        target: &TableInfo,
        from: &TableInfo,
        to: &TableInfo,
        staged: &StagingTable,
    ) -> Result<Self, EngineError> {
        if let Some(property) = target.properties.iter().find(|property| is_end(&property.name)) {
            return Err(called_like_an_end(target, property));
        }
        let mut plan = Self::empty(target);
        let mut used = Vec::new();
        let mut ends = Vec::new();
        for (names, table) in [(["src", "from"], from), (["dst", "to"], to)] {
            let key = table
                .primary_key()
                .ok_or_else(|| EngineError::internal(format!("{} has no key", table.name)))?;
            let source = names
                .iter()
                .find_map(|name| find(staged, name))
                .ok_or_else(|| missing(staged, names[1], &target.name))?;
            plan.order.push(plan.keys.len());
            plan.keys.push(column(key, Some(source))?);
            used.push(source.name.clone());
            ends.push(End {
                table: table.name.clone(),
                key: key.name.clone(),
            });
        }
        for property in &target.properties {
            let source = find(staged, &property.name).filter(|source| !used.contains(&source.name));
            plan.add_value(property, source)?;
            used.extend(source.map(|source| source.name.clone()));
        }
        plan.ends = ends.try_into().ok();
        plan.name_ends = target.connections.len() > 1;
        plan.finish(staged, &used)
    }

    fn empty(target: &TableInfo) -> Self {
        Self {
            table: target.name.clone(),
            kind: target.kind,
            keys: Vec::new(),
            order: Vec::new(),
            values: Vec::new(),
            ends: None,
            name_ends: false,
            filled_with_null: Vec::new(),
            ignored_columns: Vec::new(),
        }
    }

    fn add_value(&mut self, property: &PropertyInfo, source: Option<&StagingColumn>) -> Result<(), EngineError> {
        if source.is_none() {
            self.filled_with_null.push(property.name.clone());
        }
        // The number of keys is known only at the end, so values are counted from this mark on.
        self.order.push(VALUE + self.values.len());
        self.values.push(column(property, source)?);
        Ok(())
    }

    fn finish(mut self, staged: &StagingTable, used: &[String]) -> Result<Self, EngineError> {
        let keys = self.keys.len();
        for index in &mut self.order {
            if *index >= VALUE {
                *index = *index - VALUE + keys;
            }
        }
        self.ignored_columns = staged
            .columns
            .iter()
            .map(|column| column.name.clone())
            .filter(|name| !used.contains(name))
            .collect();
        Ok(self)
    }

    /// Arrow columns, keys first.
    fn columns(&self) -> impl Iterator<Item = &Column> {
        self.keys.iter().chain(&self.values)
    }

    /// The same plan with NULL for every value that does not fit.
    pub(super) fn lenient(&self) -> Self {
        let mut plan = self.clone();
        for column in plan.keys.iter_mut().chain(&mut plan.values) {
            column.sql = column.lenient.clone();
        }
        plan
    }

    /// Columns into which a staged value may not fit: the graph's column, the staged one, and the condition that it does
    /// not.
    pub(super) fn doubtful(&self) -> Vec<(&PropertyInfo, &str, String)> {
        self.columns()
            .filter_map(|column| {
                let source = column.source.as_deref().filter(|_| column.lenient != column.sql)?;
                let unfit = format!("({source} IS NOT NULL AND {} IS NULL)", column.lenient);
                Some((&column.target, source, unfit))
            })
            .collect()
    }

    /// How many columns travel.
    pub(super) fn width(&self) -> usize {
        self.columns().count()
    }

    /// What DuckDB selects, without names.
    pub(super) fn columns_sql(&self) -> Vec<&str> {
        self.columns().map(|column| column.sql.as_str()).collect()
    }

    /// What DuckDB selects: `c0`, `c1`, ….
    pub(super) fn select(&self) -> String {
        let list: Vec<String> = self
            .columns()
            .enumerate()
            .map(|(index, column)| format!("{} AS c{index}", column.sql))
            .collect();
        list.join(", ")
    }

    /// The condition that all keys are there.
    pub(super) fn keys_present(&self) -> String {
        let parts: Vec<String> = self.keys.iter().map(|key| format!("{} IS NOT NULL", key.sql)).collect();
        if parts.is_empty() {
            "true".into()
        } else {
            parts.join(" AND ")
        }
    }

    /// The staged keys as one text; the number of the row if it has none.
    pub(super) fn key_text(&self) -> String {
        let parts: Vec<String> = self
            .keys
            .iter()
            .filter_map(|key| key.source.as_ref().map(|source| format!("CAST({source} AS VARCHAR)")))
            .collect();
        if parts.is_empty() {
            "rowid".into()
        } else {
            parts.join(" || ")
        }
    }

    /// The numbers (the column after all others) of those rows of the Arrow table `transient`, quoted already, that are in
    /// the graph as relationships from `nodes`; once for each of them.
    pub(super) fn present(&self, transient: &str, nodes: &Range<u64>) -> String {
        let Some([from, to]) = &self.ends else {
            return String::new();
        };
        let keys = self.keys.len();
        let mut conditions = vec![
            format!("a.{} = {}", cypher_identifier(&from.key), self.keys[0].arrived(0)),
            format!("b.{} = {}", cypher_identifier(&to.key), self.keys[1].arrived(1)),
            format!("offset(id(a)) >= {}", nodes.start),
            format!("offset(id(a)) < {}", nodes.end),
        ];
        conditions.extend(self.values.iter().enumerate().map(|(index, value)| {
            let (there, here) = (
                format!("r.{}", cypher_identifier(&value.target.name)),
                value.arrived(keys + index),
            );
            let not_a_number = match value.target.type_name.as_str() {
                "FLOAT" | "DOUBLE" => format!(" OR ({there} <> {there} AND {here} <> {here})"),
                _ => String::new(),
            };
            format!("({there} = {here} OR ({there} IS NULL AND {here} IS NULL){not_a_number})")
        }));
        format!(
            "MATCH (s:{transient}), (a:{})-[r:{}]->(b:{}) WHERE {} RETURN s.c{}",
            cypher_identifier(&from.table),
            cypher_identifier(&self.table),
            cypher_identifier(&to.table),
            conditions.join(" AND "),
            self.width()
        )
    }

    /// The numbers (`c2`) of those rows of the Arrow table `transient`, quoted already, whose both ends are in the graph.
    pub(super) fn linked(&self, transient: &str) -> String {
        let Some([from, to]) = &self.ends else {
            return String::new();
        };
        format!(
            "MATCH (s:{transient}), (a:{}), (b:{}) WHERE a.{} = {} AND b.{} = {} RETURN s.c2",
            cypher_identifier(&from.table),
            cypher_identifier(&to.table),
            cypher_identifier(&from.key),
            self.keys[0].arrived(0),
            cypher_identifier(&to.key),
            self.keys[1].arrived(1),
        )
    }

    /// COPY from the Arrow table `transient`. With `checked`, only rows whose both ends exist are taken.
    pub(super) fn copy(&self, transient: &str, checked: bool) -> String {
        let columns: Vec<&Column> = self.columns().collect();
        let list: Vec<String> = self.order.iter().map(|index| columns[*index].arrived(*index)).collect();
        let transient = cypher_identifier(transient);
        let (mut pattern, mut options) = (format!("(s:{transient})"), String::new());
        if let Some([from, to]) = &self.ends {
            if checked {
                pattern = format!(
                    "{pattern}, (a:{}), (b:{}) WHERE a.{} = {} AND b.{} = {}",
                    cypher_identifier(&from.table),
                    cypher_identifier(&to.table),
                    cypher_identifier(&from.key),
                    list[0],
                    cypher_identifier(&to.key),
                    list[1],
                );
            }
            if self.name_ends {
                options = ends_option(&from.table, &to.table);
            }
        }
        format!(
            "COPY {} FROM (MATCH {pattern} RETURN {}){options}",
            cypher_identifier(&self.table),
            list.join(", ")
        )
    }
}

/// Larger than any number of columns.
const VALUE: usize = 1 << 32;

/// A table for staged columns: a node table, or a relationship table between `ends`.
pub(super) fn new_table(
    name: &str,
    staged: &StagingTable,
    ends: Option<(&str, &str)>,
) -> Result<TableInfo, EngineError> {
    let mut properties = Vec::new();
    for column in &staged.columns {
        if ends.is_some()
            && ["src", "dst", "from", "to"]
                .iter()
                .any(|end| column.name.eq_ignore_ascii_case(end))
        {
            continue;
        }
        let target = column_type(&column.type_name).ok_or_else(|| {
            EngineError::invalid(
                format!("columns.{}", column.name),
                format!(
                    "has type {}, for which a graph has no type; cast it in the file",
                    column.type_name
                ),
            )
        })?;
        properties.push(PropertyInfo {
            name: column.name.clone(),
            type_name: target,
            primary_key: false,
            default: None,
        });
    }
    if ends.is_none() {
        let named = |property: &PropertyInfo| property.name.eq_ignore_ascii_case("identifier");
        let key = properties.iter().position(named).unwrap_or(0);
        let key = properties
            .get_mut(key)
            .ok_or_else(|| EngineError::invalid("columns", "the staging table has none"))?;
        key.primary_key = true;
    }
    Ok(TableInfo {
        id: 0,
        name: name.to_owned(),
        kind: match ends {
            Some(_) => TableKind::Relationship,
            None => TableKind::Node,
        },
        comment: String::new(),
        properties,
        connections: ends
            .map(|(from, to)| (from.to_owned(), to.to_owned()))
            .into_iter()
            .collect(),
    })
}

/// The statement that makes such a table.
pub(crate) fn create_table(table: &TableInfo) -> String {
    let name = cypher_identifier(&table.name);
    let columns = table.properties.iter().map(column_definition);
    let ends = table
        .connections
        .iter()
        .map(|(from, to)| format!("FROM {} TO {}", cypher_identifier(from), cypher_identifier(to)));
    let key = table
        .primary_key()
        .map(|key| format!("PRIMARY KEY({})", cypher_identifier(&key.name)));
    let kind = match table.kind {
        TableKind::Node => "NODE",
        TableKind::Relationship => "REL",
    };
    let parts: Vec<String> = ends.chain(columns).chain(key).collect();
    format!("CREATE {kind} TABLE {name}({})", parts.join(", "))
}

/// A column as CREATE TABLE wants it.
pub(crate) fn column_definition(property: &PropertyInfo) -> String {
    let column = format!("{} {}", cypher_identifier(&property.name), property.type_name);
    match &property.default {
        // A SERIAL is its own default.
        Some(default) if property.type_name != "SERIAL" => format!("{column} DEFAULT {default}"),
        _ => column,
    }
}

fn find<'a>(staged: &'a StagingTable, name: &str) -> Option<&'a StagingColumn> {
    let columns = &staged.columns;
    columns
        .iter()
        .find(|column| column.name == name)
        .or_else(|| columns.iter().find(|column| column.name.eq_ignore_ascii_case(name)))
}

fn column(target: &PropertyInfo, source: Option<&StagingColumn>) -> Result<Column, EngineError> {
    if parse(&target.type_name).is_some_and(|ty| ty.collects_decimals()) {
        return Err(EngineError::invalid(
            format!("columns.{}", target.name),
            format!(
                "has type {}, with which the engine cannot be trusted; drop the column",
                target.type_name
            ),
        ));
    }
    let transport = transport(&target.type_name).ok_or_else(|| {
        EngineError::invalid(
            format!("columns.{}", target.name),
            format!(
                "has type {}, which cannot be filled from staging tables",
                target.type_name
            ),
        )
    })?;
    let name = source.map(|source| sql_identifier(&source.name));
    let both = |write: &dyn Fn(&str) -> String| (write("CAST"), write("TRY_CAST"));
    let (sql, lenient) = match (source, name.as_deref()) {
        // Whole numbers of any spelling (Parquet has no 128-bit integers, so they come as decimals, doubles or text).
        (Some(_), Some(name)) if target.type_name == "INT128" => {
            both(&|cast| format!("CAST({cast}({name} AS HUGEINT) AS VARCHAR)"))
        }
        (Some(source), Some(name)) if same(&source.type_name, &transport.sql_type) => match target.type_name.as_str() {
            // It travels as text.
            "UUID" => (
                name.to_owned(),
                format!("CASE WHEN TRY_CAST({name} AS UUID) IS NOT NULL THEN {name} END"),
            ),
            _ => (name.to_owned(), name.to_owned()),
        },
        (Some(_), Some(name)) => both(&|cast| format!("{cast}({name} AS {})", transport.sql_type)),
        _ => {
            let null = format!("CAST(NULL AS {})", transport.sql_type);
            (null.clone(), null)
        }
    };
    Ok(Column {
        sql,
        lenient,
        source: name,
        cast: transport.cast.then(|| target.type_name.clone()),
        target: target.clone(),
    })
}

/// What tells COPY which pair of node tables is meant.
pub(crate) fn ends_option(from: &str, to: &str) -> String {
    format!(" (FROM={}, TO={})", cypher_string(from), cypher_string(to))
}

/// Whether COPY would fill a property with the key of an end, whatever the query gives: it looks for what fills a property
/// by name, and calls the first two columns so itself (lbug 0.22.1, `matchColumnExpression`).
pub(crate) fn is_end(property: &str) -> bool {
    matches!(property, "from" | "to")
}

fn called_like_an_end(table: &TableInfo, property: &PropertyInfo) -> EngineError {
    let (name, table) = (&property.name, &table.name);
    EngineError::invalid(
        format!("{table}.{name}"),
        format!(
            "would get the key of a node: the engine takes a property of this name for that end of the relationship; rename \
             it (ALTER TABLE {} RENAME {} TO …)",
            cypher_identifier(table),
            cypher_identifier(name)
        ),
    )
}

/// Numbers of the caller's own would change what relationships refer to if they were left out, and the engine's counter
/// does not know of them if they are taken.
fn numbered(target: &PropertyInfo, source: &StagingColumn) -> EngineError {
    EngineError::invalid(
        format!("columns.{}", source.name),
        format!(
            "cannot fill {}, whose numbers the graph gives (SERIAL): leave the column out, or make the graph's one INT64",
            target.name
        ),
    )
}

fn missing(staged: &StagingTable, column: &str, table: &str) -> EngineError {
    let have: Vec<&str> = staged.columns.iter().map(|column| column.name.as_str()).collect();
    EngineError::invalid(
        format!("columns.{column}"),
        format!(
            "is needed by {table} and is not among the staged columns ({})",
            have.join(", ")
        ),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::super::duckdb::StagingKind;
    use super::*;

    fn table(name: &str, properties: &[(&str, &str, bool)], connections: &[(&str, &str)]) -> TableInfo {
        TableInfo {
            id: 0,
            name: name.into(),
            kind: if connections.is_empty() {
                TableKind::Node
            } else {
                TableKind::Relationship
            },
            comment: String::new(),
            properties: properties
                .iter()
                .map(|(name, ty, key)| PropertyInfo {
                    name: (*name).into(),
                    type_name: (*ty).into(),
                    primary_key: *key,
                    default: None,
                })
                .collect(),
            connections: connections.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect(),
        }
    }

    fn staged(columns: &[(&str, &str)]) -> StagingTable {
        let columns: Vec<_> = columns
            .iter()
            .map(|(name, ty)| StagingColumn {
                name: (*name).into(),
                type_name: (*ty).into(),
            })
            .collect();
        StagingTable {
            name: "s".into(),
            rows: 0,
            kind: StagingKind::of(&columns),
            columns,
            files: vec![],
        }
    }

    #[test]
    fn node_columns_are_matched_by_name_and_cast() {
        let target = table(
            "P",
            &[
                ("name", "STRING", false),
                ("id", "INT64", true),
                ("gone", "DOUBLE", false),
                ("u", "UUID", false),
            ],
            &[],
        );
        let plan = Plan::nodes(
            &target,
            &staged(&[
                ("u", "VARCHAR"),
                ("ID", "INTEGER"),
                ("extra", "BLOB"),
                ("name", "VARCHAR"),
            ]),
        )
        .unwrap();
        assert_eq!(
            plan.select(),
            "CAST(\"ID\" AS BIGINT) AS c0, \"name\" AS c1, CAST(NULL AS DOUBLE) AS c2, \"u\" AS c3"
        );
        assert_eq!(
            plan.copy("stg", false),
            "COPY `P` FROM (MATCH (s:`stg`) RETURN s.c1, s.c0, s.c2, CAST(s.c3 AS UUID))"
        );
        assert_eq!(plan.keys_present(), "CAST(\"ID\" AS BIGINT) IS NOT NULL");
        assert_eq!(plan.filled_with_null, ["gone"]);
        assert_eq!(plan.ignored_columns, ["extra"]);
        let error = Plan::nodes(&target, &staged(&[("name", "VARCHAR")])).unwrap_err();
        assert!(error.to_string().contains("columns.id"), "{error}");
    }

    #[test]
    fn a_generated_key_needs_no_column() {
        let target = table("P", &[("id", "SERIAL", true), ("name", "STRING", false)], &[]);
        let plan = Plan::nodes(&target, &staged(&[("name", "VARCHAR")])).unwrap();
        assert!(plan.keys.is_empty());
        assert_eq!(plan.keys_present(), "true");
        assert_eq!(plan.copy("stg", false), "COPY `P` FROM (MATCH (s:`stg`) RETURN s.c0)");
    }

    #[test]
    fn numbers_of_the_graphs_own_are_not_taken_from_a_file() {
        for key in [true, false] {
            let target = table("P", &[("id", "SERIAL", key), ("name", "STRING", !key)], &[]);
            let error = Plan::nodes(&target, &staged(&[("ID", "BIGINT"), ("name", "VARCHAR")])).unwrap_err();
            assert!(error.to_string().contains("columns.ID"), "{error}");
        }
    }

    #[test]
    fn a_property_that_copy_takes_for_an_end_is_refused() {
        let node = table("A", &[("id", "INT64", true)], &[]);
        let plan = |property: &str, columns: &[(&str, &str)]| {
            let target = table("R", &[(property, "INT64", false)], &[("A", "A")]);
            Plan::relationships(&target, &node, &node, &staged(columns))
        };
        let ends = [("src", "BIGINT"), ("dst", "BIGINT")];
        for property in ["from", "to"] {
            // Also if it would be NULL.
            for columns in [&ends[..], &[ends[0], ends[1], (property, "BIGINT")]] {
                let error = plan(property, columns).unwrap_err().to_string();
                assert!(
                    error.contains(&format!("R.{property}")) && error.contains("RENAME"),
                    "{error}"
                );
            }
        }
        // The engine compares these with case.
        plan("From", &ends).unwrap();
        plan("src", &ends).unwrap();
    }

    #[test]
    fn relationships_take_the_key_types_of_their_ends() {
        let (from, to) = (
            table("A", &[("id", "INT64", true)], &[]),
            table("B", &[("code", "STRING", true)], &[]),
        );
        let target = table("R", &[("w", "DOUBLE", false)], &[("A", "B")]);
        let plan = Plan::relationships(
            &target,
            &from,
            &to,
            &staged(&[("src", "INTEGER"), ("dst", "VARCHAR"), ("w", "DOUBLE")]),
        )
        .unwrap();
        assert_eq!(
            plan.select(),
            "CAST(\"src\" AS BIGINT) AS c0, \"dst\" AS c1, \"w\" AS c2"
        );
        assert_eq!(
            plan.copy("stg", false),
            "COPY `R` FROM (MATCH (s:`stg`) RETURN s.c0, s.c1, s.c2)"
        );
        assert_eq!(
            plan.copy("stg", true),
            "COPY `R` FROM (MATCH (s:`stg`), (a:`A`), (b:`B`) WHERE a.`id` = s.c0 AND b.`code` = s.c1 RETURN s.c0, s.c1, s.c2)"
        );
        assert_eq!(
            plan.present("`stg`", &(0..9)),
            "MATCH (s:`stg`), (a:`A`)-[r:`R`]->(b:`B`) WHERE a.`id` = s.c0 AND b.`code` = s.c1 AND offset(id(a)) >= 0 \
             AND offset(id(a)) < 9 AND (r.`w` = s.c2 OR (r.`w` IS NULL AND s.c2 IS NULL) OR (r.`w` <> r.`w` AND s.c2 <> s.c2)) \
             RETURN s.c3"
        );
        let several = table("R", &[], &[("A", "B"), ("A", "A")]);
        let plan =
            Plan::relationships(&several, &from, &to, &staged(&[("from", "BIGINT"), ("to", "VARCHAR")])).unwrap();
        assert!(plan.copy("stg", false).ends_with(" (FROM='A', TO='B')"));
        assert!(Plan::relationships(&target, &from, &to, &staged(&[("src", "BIGINT")])).is_err());
    }

    fn statement(name: &str, staged: &StagingTable, ends: Option<(&str, &str)>) -> Result<String, EngineError> {
        new_table(name, staged, ends).map(|table| create_table(&table))
    }

    #[test]
    fn tables_are_made_from_staged_columns() {
        let columns = staged(&[("name", "VARCHAR"), ("identifier", "VARCHAR"), ("tags", "VARCHAR[]")]);
        assert_eq!(
            statement("P", &columns, None).unwrap(),
            "CREATE NODE TABLE `P`(`name` STRING, `identifier` STRING, `tags` STRING[], PRIMARY KEY(`identifier`))"
        );
        let columns = staged(&[("code", "VARCHAR"), ("n", "INTEGER")]);
        assert!(
            statement("P", &columns, None)
                .unwrap()
                .ends_with("PRIMARY KEY(`code`))")
        );
        let columns = staged(&[("src", "BIGINT"), ("dst", "BIGINT")]);
        assert_eq!(
            statement("R", &columns, Some(("A", "B"))).unwrap(),
            "CREATE REL TABLE `R`(FROM `A` TO `B`)"
        );
        assert!(statement("P", &staged(&[("x", "GEOMETRY")]), None).is_err());
    }
}
