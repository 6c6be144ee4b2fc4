//! Names that reach a file path or a statement. They can only be made by a check, so code that takes one of these
//! types never has to ask again whether it is safe to use.

use std::fmt;
use std::sync::Arc;

use super::error::EngineError;

/// Tables whose name starts with this belong to a materialise run and are removed when a database is opened.
pub(crate) const TRANSIENT_TABLE_PREFIX: &str = "stg__gp_";

/// File ids that start with this are [passing](FileId::passing). As long as DuckDB's statistics of a text column are exact,
/// so that looking for such rows where there are none reads none.
pub(crate) const PASSING: &str = "gp:load:";

const MAX_DATABASE_ID: usize = 64;
const MAX_TABLE_NAME: usize = 128;
const MAX_FILE_ID: usize = 256;

/// The id of a database on this node: 1 to 64 of `A-Z a-z 0-9 _ -`. It contains no dot and no slash, so `<id>.` is the
/// prefix of exactly the files that belong to it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DatabaseId(Arc<str>);

impl DatabaseId {
    /// Checks `text`.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] on field `graph_id` if it is empty, too long or has another character.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        check("graph_id", text, MAX_DATABASE_ID, |c| {
            c.is_ascii_alphanumeric() || c == '_' || c == '-'
        })?;
        Ok(Self(Arc::from(text)))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a table, in a graph or in staging: 1 to 128 of `A-Z a-z 0-9 _ -`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName(Arc<str>);

impl TableName {
    /// Checks `text`.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] on field `table_name` if it is empty, too long, has another character, or starts
    /// with the prefix that this agent keeps for itself.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        check("table_name", text, MAX_TABLE_NAME, |c| {
            c.is_ascii_alphanumeric() || c == '_' || c == '-'
        })?;
        if is_transient(text) {
            return Err(EngineError::invalid(
                "table_name",
                format!("{text:?} starts with {TRANSIENT_TABLE_PREFIX:?}, which is reserved; choose another name"),
            ));
        }
        Ok(Self(Arc::from(text)))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as a quoted SQL identifier.
    pub(crate) fn sql(&self) -> String {
        sql_identifier(&self.0)
    }
}

/// The id under which the rows of one file are staged: 1 to 256 printable characters. It is only ever bound as a
/// parameter.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(Arc<str>);

impl FileId {
    /// Checks `text`.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] on field `file_id` if it is empty, too long or has a control character.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        check("file_id", text, MAX_FILE_ID, |c| !c.is_control())?;
        if text.starts_with(PASSING) {
            return Err(EngineError::invalid(
                "file_id",
                format!("{text:?} starts with {PASSING:?}, which is reserved; choose another id"),
            ));
        }
        Ok(Self(Arc::from(text)))
    }

    /// A new id for a file whose rows are in staging only on their way into the graph. Rows of such files are removed when
    /// the staging tables are opened: whoever brought them is gone then.
    #[must_use]
    pub fn passing() -> Self {
        Self(Arc::from(format!("{PASSING}{}", uuid::Uuid::new_v4().simple())))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! show_as_text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
        impl std::str::FromStr for $name {
            type Err = EngineError;
            fn from_str(text: &str) -> Result<Self, EngineError> {
                Self::parse(text)
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    )*};
}
show_as_text!(DatabaseId, TableName, FileId);

pub(crate) fn is_transient(name: &str) -> bool {
    name.get(..TRANSIENT_TABLE_PREFIX.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(TRANSIENT_TABLE_PREFIX))
}

/// Quotes any text as a SQL identifier.
pub(crate) fn sql_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes any text as a SQL string.
pub(crate) fn sql_string(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Quotes a name as a Cypher identifier.
pub(crate) fn cypher_identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn check(field: &str, text: &str, max: usize, allowed: impl Fn(char) -> bool) -> Result<(), EngineError> {
    if text.is_empty() {
        return Err(EngineError::invalid(field, "is empty"));
    }
    if text.len() > max {
        return Err(EngineError::invalid(
            field,
            format!("has {} characters; at most {max} are allowed", text.len()),
        ));
    }
    match text.chars().find(|c| !allowed(*c)) {
        None => Ok(()),
        Some(c) => Err(EngineError::invalid(
            field,
            format!("{text:?} contains {c:?}, which is not allowed in it"),
        )),
    }
}
