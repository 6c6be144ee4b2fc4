//! The ids that callers name: checked before they go into a URL or a key.

use crate::Error;
use std::fmt;

/// The id of a database: a graph's, or `<graph id>_<name>` of a subgraph.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DatabaseId(String);

impl DatabaseId {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let good = text.len() <= 64
            && match text.split_once('_') {
                Some((graph, name)) => is_graph_id(graph) && is_subgraph_name(name),
                None => is_graph_id(text),
            };
        match good {
            true => Ok(Self(text.to_owned())),
            false => Err(Error::InvalidId(text.chars().take(80).collect())),
        }
    }

    /// The graph: itself, or the parent of a subgraph, which is where the subgraph is served.
    pub(crate) fn graph(&self) -> &str {
        self.0.split('_').next().unwrap_or_default()
    }
}

impl fmt::Display for DatabaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// `kg` and hex digits, or the name of a shared repository, which never begins with `kg`.
fn is_graph_id(id: &str) -> bool {
    match id.strip_prefix("kg") {
        Some(hex) => {
            (16..=41).contains(&hex.len()) && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        }
        None => {
            (2..=32).contains(&id.len())
                && id.starts_with(|c: char| c.is_ascii_lowercase())
                && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        }
    }
}

fn is_subgraph_name(name: &str) -> bool {
    (1..=20).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_subgraph_is_served_where_its_parent_is() {
        let id = DatabaseId::parse("kg0123456789abcdef_Dev1").unwrap();
        assert_eq!(
            (id.graph(), id.to_string().as_str()),
            ("kg0123456789abcdef", "kg0123456789abcdef_Dev1")
        );
        assert_eq!(DatabaseId::parse("sec_hist").unwrap().graph(), "sec");
    }

    #[test]
    fn what_is_no_id_goes_nowhere() {
        for bad in [
            "",
            "kg",
            "kg0123",
            "../sec",
            "sec/..",
            "sec_",
            "_dev",
            "sec_a_b",
            "Sec",
            "sec?x",
            "s",
            "kg0123456789ABCDEF",
            "sec\n",
        ] {
            assert!(matches!(DatabaseId::parse(bad), Err(Error::InvalidId(_))), "{bad}");
        }
        assert!(DatabaseId::parse(&format!("kg{}", "a".repeat(100))).is_err());
    }
}
