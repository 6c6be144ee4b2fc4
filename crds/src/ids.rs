//! Identifiers as types: a value that exists is valid.
//!
//! | type | form | example |
//! |---|---|---|
//! | [`GraphId`] | `kg` + 16 or more hex digits, or the name of a shared repository | `kg0f3a…`, `sec` |
//! | [`SubgraphName`] | 1-20 ASCII letters and digits | `dev` |
//! | [`DatabaseId`] | a graph id, or `<graphId>_<subgraph>` | `kg0f3a…_dev` |
//! | [`TableName`] | a letter or `_`, then letters, digits, `_`; at most 64 | `Airport` |

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt, str::FromStr};

/// A name that does not have the form of its type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{value}` is not valid: {expected}")]
pub struct InvalidName {
    /// What the value was meant to be, e.g. `graph id`.
    pub what: &'static str,
    /// The refused value, cut to 80 characters.
    pub value: String,
    /// The rule in words.
    pub expected: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $pattern:literal, $max:literal, $expected:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The form as a regular expression, as it stands in the schemas.
            pub const PATTERN: &'static str = $pattern;

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(value: &str) -> Result<Self, InvalidName> {
                let check: fn(&str) -> bool = $check;
                if value.len() <= $max && check(value) {
                    Ok(Self(value.to_owned()))
                } else {
                    Err(InvalidName { what: $what, value: value.chars().take(80).collect(), expected: $expected })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(value: String) -> Result<Self, InvalidName> {
                value.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "maxLength": $max })
            }
        }
    };
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_generated_id(id: &str) -> bool {
    id.strip_prefix("kg").is_some_and(|hex| hex.len() >= 16 && is_hex(hex))
}

// A repository's name never begins with `kg`, so that the two forms of a graph id cannot be taken for each other.
fn is_repository(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && (2..=32).contains(&name.len())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && !name.starts_with("kg")
}

fn is_graph_id(id: &str) -> bool {
    is_generated_id(id) || is_repository(id)
}

fn is_subgraph_name(name: &str) -> bool {
    (1..=20).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric())
}

fn is_table_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

name! {
    /// Identity of a graph for its whole life: generated (`kg` + hex), or the name of a shared repository (`sec`).
    GraphId, "graph id", "^(kg[a-f0-9]{16,}|[a-jl-z][a-z0-9]{1,31}|k[a-fh-z0-9][a-z0-9]{0,30})$", 43,
    "expected `kg` and 16 or more hex digits, or the name of a shared repository (2-32 lower-case letters and digits, not beginning with `kg`)",
    is_graph_id
}
name! {
    /// Name of a subgraph below its parent.
    SubgraphName, "subgraph name", "^[a-zA-Z0-9]{1,20}$", 20, "expected 1-20 ASCII letters and digits", is_subgraph_name
}
name! {
    /// Name of one database on a node: a graph, or a subgraph as `<graphId>_<name>`. It is also its file's name.
    DatabaseId, "database id", "^(kg[a-f0-9]{16,}|[a-z][a-z0-9]{1,31})(_[a-zA-Z0-9]{1,20})?$", 64,
    "expected a graph id, or `<graph id>_<subgraph name>`",
    |id| match id.split_once('_') {
        Some((graph, subgraph)) => is_graph_id(graph) && is_subgraph_name(subgraph),
        None => is_graph_id(id),
    }
}
name! {
    /// Name of a staging table, node table or relationship table.
    TableName, "table name", "^[A-Za-z_][A-Za-z0-9_]{0,63}$", 64,
    "expected a letter or `_`, then letters, digits or `_`, at most 64", is_table_name
}

impl GraphId {
    /// The id of a graph that was made through the Kubernetes API: derived from the object's UID, so that a repeated
    /// reconcile always derives the same one.
    ///
    /// Takes the hex digits of the UID; a UID without 16 of them (no API server makes one) is padded with zeroes.
    ///
    /// ```
    /// # use graphplane_crds::ids::GraphId;
    /// let id = GraphId::from_uid("3f2a9c1e-0b5d-4c6f-8a7e-112233445566");
    /// assert_eq!(id.as_str(), "kg3f2a9c1e0b5d4c6f8a7e112233445566");
    /// ```
    pub fn from_uid(uid: &str) -> Self {
        let hex: String = uid
            .chars()
            .filter(char::is_ascii_hexdigit)
            .map(|c| c.to_ascii_lowercase())
            .take(32)
            .collect();
        Self(format!("kg{hex:0<16}"))
    }

    /// Whether this is the name of a shared repository rather than a generated id.
    pub fn is_repository(&self) -> bool {
        !is_generated_id(&self.0)
    }

    /// The database id of the graph itself.
    pub fn database(&self) -> DatabaseId {
        DatabaseId(self.0.clone())
    }

    /// The database id of one of its subgraphs.
    pub fn subgraph(&self, name: &SubgraphName) -> DatabaseId {
        DatabaseId(format!("{}_{name}", self.0))
    }

    /// The database that the object with this UID restores a backup of the graph into for a while: named like a subgraph,
    /// so that it takes no place of a graph on its node.
    ///
    /// ```
    /// use graphplane_crds::ids::GraphId;
    /// let graph: GraphId = "sec".parse()?;
    /// let id = graph.scratch("3f2a9c1e-0b5d-4c6f-8a7e-112233445566");
    /// assert_eq!(id.as_str(), "sec_drill3f2a9c1e0b5d4c6");
    /// # Ok::<(), graphplane_crds::ids::InvalidName>(())
    /// ```
    pub fn scratch(&self, uid: &str) -> DatabaseId {
        let hex = uid.chars().filter(char::is_ascii_hexdigit);
        let hex: String = hex.map(|c| c.to_ascii_lowercase()).take(15).collect();
        DatabaseId(format!("{}_drill{hex:0<15}", self.0))
    }
}

impl DatabaseId {
    /// The graph that the database belongs to: itself, or the parent of a subgraph.
    pub fn graph(&self) -> GraphId {
        GraphId(self.0.split('_').next().unwrap_or_default().to_owned())
    }

    /// The subgraph's name, if it is one.
    pub fn subgraph_name(&self) -> Option<&str> {
        self.0.split_once('_').map(|(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn graph_ids_are_generated_or_repositories() {
        for good in ["kg0123456789abcdef", "kg0123456789abcdef01", "sec", "economic", "k9"] {
            assert!(good.parse::<GraphId>().is_ok(), "{good}");
        }
        for bad in [
            "kg0123",
            "kg0123456789ABCDEF",
            "kgsec",
            "",
            "s",
            "../etc",
            "sec_x",
            "a b",
            "9a",
            "sec\n",
        ] {
            assert!(bad.parse::<GraphId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_database_knows_its_graph() {
        let parent: GraphId = "kg0123456789abcdef".parse().unwrap();
        let sub = parent.subgraph(&"Dev1".parse().unwrap());
        assert_eq!(sub.as_str(), "kg0123456789abcdef_Dev1");
        assert_eq!((sub.graph(), sub.subgraph_name()), (parent.clone(), Some("Dev1")));
        assert_eq!(
            (parent.database().graph(), parent.database().subgraph_name()),
            (parent, None)
        );
        for bad in [
            "kg0123456789abcdef_",
            "_dev",
            "kg0123456789abcdef_a_b",
            "kg0123456789abcdef_über",
            "sec/../x",
        ] {
            assert!(bad.parse::<DatabaseId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_error_names_what_was_refused_and_the_rule() {
        let error = "a-b".parse::<SubgraphName>().unwrap_err().to_string();
        assert_eq!(
            error,
            "subgraph name `a-b` is not valid: expected 1-20 ASCII letters and digits"
        );
    }

    fn pattern_agrees<T: FromStr>(pattern: &str, text: &str) -> bool {
        // The schema's pattern must accept exactly what the type accepts; kube-cel's regex is the API server's dialect.
        let pattern = regex::Regex::new(pattern).unwrap();
        pattern.is_match(text) == text.parse::<T>().is_ok()
    }

    proptest! {
        #[test]
        fn the_schema_and_the_type_agree(text in "(kg|k|sec|[a-z])?[a-f0-9]{0,20}[a-zA-Z_0-9-]{0,6}") {
            prop_assert!(pattern_agrees::<GraphId>(GraphId::PATTERN, &text));
            prop_assert!(pattern_agrees::<SubgraphName>(SubgraphName::PATTERN, &text));
            prop_assert!(pattern_agrees::<TableName>(TableName::PATTERN, &text));
        }

        #[test]
        fn every_uid_gives_a_valid_id(uid in "\\PC{0,60}") {
            prop_assert!(GraphId::from_uid(&uid).as_str().parse::<GraphId>().is_ok());
        }
    }
}
