//! What a graph has of decimals, which LadybugDB 0.22.1 cannot be trusted with in lists and maps: statements are held to it
//! before they are prepared.

use std::sync::Arc;

use lbug::Value;

use super::super::error::EngineError;
use super::super::type_names::parse;
use super::control::JobControl;
use super::guard::{Decimals, check_decimals};
use super::schema::tables;
use super::session::Session;

impl Decimals {
    /// Looks for them in the catalog.
    pub(super) fn find(session: &mut Session<'_, '_>, job: &Arc<JobControl>) -> Result<Self, EngineError> {
        let mut found = Self::default();
        for table in tables(session, job)? {
            for property in table.properties {
                let name = property.name.replace('`', "``");
                match Kind::of(&property.type_name) {
                    Kind::None => {}
                    Kind::Plain => found.columns.push(name),
                    Kind::Gathered => found.unsafe_columns.push(name),
                }
            }
        }
        for row in session.rows(job, "CALL show_macros() RETURN name")? {
            if let [Value::String(name)] = row.as_slice() {
                found.macros.push(name.replace('`', "``"));
            }
        }
        if !found.unsafe_columns.is_empty() {
            tracing::warn!(database = %session.shared.options.id, columns = ?found.unsafe_columns,
                "lists or maps of DECIMAL can end the engine; statements that name these columns are refused");
        }
        Ok(found)
    }

    /// Refuses a statement that could bring the engine down with what the graph has.
    ///
    /// # Errors
    /// `Forbidden` with the word.
    pub(super) fn check(&self, text: &str) -> Result<(), EngineError> {
        if *self == Self::default() {
            // What needs nothing of the graph was seen when the statement came.
            return Ok(());
        }
        check_decimals(text, self)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    None,
    Plain,
    Gathered,
}

impl Kind {
    /// A type as the engine writes it.
    fn of(type_name: &str) -> Self {
        match parse(type_name) {
            Some(ty) if ty.collects_decimals() => Self::Gathered,
            Some(ty) if ty.has_decimals() => Self::Plain,
            Some(_) => Self::None,
            // A type that has no place in the tree, such as a UNION.
            None if !type_name.contains("DECIMAL") => Self::None,
            None if type_name.contains('[') || type_name.contains("MAP") => Self::Gathered,
            None => Self::Plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_found_in_the_engines_spelling() {
        for name in [
            "DECIMAL(6, 2)[]",
            "DECIMAL(6, 2)[3]",
            "MAP(STRING, DECIMAL(6, 2))",
            "STRUCT(a DECIMAL(6, 2)[], b INT64)",
            "UNION(a DECIMAL(6, 2)[], b INT64)",
        ] {
            assert_eq!(Kind::of(name), Kind::Gathered, "{name}");
        }
        for name in [
            "DECIMAL(6, 2)",
            "STRUCT(a DECIMAL(6, 2))",
            "UNION(a DECIMAL(6, 2), b INT64)",
        ] {
            assert_eq!(Kind::of(name), Kind::Plain, "{name}");
        }
        for name in ["INT64[]", "STRING", "MAP(STRING, INT64)", "UNION(a INT64, b STRING[])"] {
            assert_eq!(Kind::of(name), Kind::None, "{name}");
        }
    }
}
