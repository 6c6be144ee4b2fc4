//! One step of a path into an object, and how `fieldsV1` and error messages write it.

use super::{go_text, json_order};
use serde_json::{Map, Value};
use std::{cmp::Ordering, fmt};

/// A scalar that identifies an item of a list, with the order and the equality of Kubernetes.
#[derive(Debug, Clone)]
pub(crate) struct KeyValue(Value);

impl KeyValue {
    /// Takes a value as a key; whole floats become integers so that equal keys are written equally.
    pub(crate) fn new(value: &Value) -> Self {
        Self(json_order::canonical(value))
    }
}

impl PartialEq for KeyValue {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for KeyValue {}

impl PartialOrd for KeyValue {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for KeyValue {
    fn cmp(&self, other: &Self) -> Ordering {
        json_order::compare(&self.0, &other.0)
    }
}

/// One step of a path. The order of the variants is the order in which `fieldsV1` is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PathElement {
    /// A field of a map, `f:name`.
    Field(String),
    /// An item of a keyed list, `k:{"type":"Ready"}`; the keys are sorted by name.
    Key(Vec<(String, KeyValue)>),
    /// A member of a set, `v:"x"`.
    Value(KeyValue),
    /// An item of a list by position, `i:0`. Never made here; kept when a client sends it.
    Index(i64),
}

impl PathElement {
    /// The step to a field of a map.
    pub(crate) fn field(name: &str) -> Self {
        Self::Field(name.to_owned())
    }

    /// The step to an item of a keyed list, from the item's keys in any order.
    pub(crate) fn key(mut keys: Vec<(String, KeyValue)>) -> Self {
        keys.sort_by(|(left, _), (right, _)| left.cmp(right));
        Self::Key(keys)
    }

    /// The key of this step in `fieldsV1`.
    pub(crate) fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(keys) => {
                let map: Map<String, Value> = keys
                    .iter()
                    .map(|(name, value)| (name.clone(), value.0.clone()))
                    .collect();
                format!("k:{}", go_text::json(&Value::Object(map)))
            }
            Self::Value(value) => format!("v:{}", go_text::json(&value.0)),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    /// Reads a key of `fieldsV1`. `Ok(None)` is a kind of step that this server does not know: a later version of
    /// Kubernetes may have written it, so it is dropped and not refused.
    ///
    /// # Errors
    /// A message that names the key, when it has no known form at all.
    pub(crate) fn decode(text: &str) -> Result<Option<Self>, String> {
        let Some((kind, rest)) = text.split_at_checked(2).filter(|(kind, _)| kind.ends_with(':')) else {
            return Err(format!("missing colon: {text}"));
        };
        match kind {
            "f:" => Ok(Some(Self::field(rest))),
            "v:" => {
                let value: Value = serde_json::from_str(rest).map_err(|error| format!("{text}: {error}"))?;
                Ok(Some(Self::Value(KeyValue::new(&value))))
            }
            "k:" => {
                let keys: Map<String, Value> =
                    serde_json::from_str(rest).map_err(|error| format!("{text}: {error}"))?;
                Ok(Some(Self::key(
                    keys.iter()
                        .map(|(name, value)| (name.clone(), KeyValue::new(value)))
                        .collect(),
                )))
            }
            "i:" => rest
                .parse()
                .map(|index| Some(Self::Index(index)))
                .map_err(|error| format!("{text}: {error}")),
            _ => Ok(None),
        }
    }
}

impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(keys) => {
                let keys: Vec<_> = keys
                    .iter()
                    .map(|(name, value)| format!("{name}={}", go_text::in_path(&value.0)))
                    .collect();
                write!(f, "[{}]", keys.join(","))
            }
            Self::Value(value) => write!(f, "[={}]", go_text::in_path(&value.0)),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn key(pairs: &[(&str, Value)]) -> PathElement {
        PathElement::key(
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), KeyValue::new(value)))
                .collect(),
        )
    }

    #[test]
    fn every_kind_of_step_is_written_as_kubernetes_writes_it() {
        let cases = [
            (PathElement::field("spec"), "f:spec", ".spec"),
            (PathElement::field("a.b/c:d"), "f:a.b/c:d", ".a.b/c:d"),
            (
                key(&[("type", json!("Ready"))]),
                r#"k:{"type":"Ready"}"#,
                r#"[type="Ready"]"#,
            ),
            (
                key(&[("protocol", json!("TCP")), ("port", json!(80))]),
                r#"k:{"port":80,"protocol":"TCP"}"#,
                r#"[port=80,protocol="TCP"]"#,
            ),
            (
                PathElement::Value(KeyValue::new(&json!("a<b"))),
                r#"v:"a\u003cb""#,
                r#"[="a<b"]"#,
            ),
            (PathElement::Value(KeyValue::new(&json!(true))), "v:true", "[=true]"),
            (PathElement::Index(3), "i:3", "[3]"),
        ];
        for (element, encoded, printed) in cases {
            assert_eq!(element.encode(), encoded);
            assert_eq!(element.to_string(), printed);
            assert_eq!(PathElement::decode(encoded).unwrap(), Some(element));
        }
    }

    #[test]
    fn whole_floats_are_the_same_key_as_integers() {
        assert_eq!(key(&[("port", json!(80.0))]), key(&[("port", json!(80))]));
        assert_eq!(key(&[("port", json!(80.0))]).encode(), r#"k:{"port":80}"#);
    }

    #[test]
    fn unknown_kinds_are_skipped_and_broken_ones_refused() {
        assert_eq!(PathElement::decode("x:y").unwrap(), None);
        for broken in ["", "f", "spec", "v:", "v:{", "k:[]", "k:\"a\"", "i:one", "ü:a"] {
            assert!(PathElement::decode(broken).is_err(), "{broken:?} was accepted");
        }
    }

    #[test]
    fn fields_sort_before_keys_before_values() {
        let value = PathElement::Value(KeyValue::new(&json!("a")));
        let mut elements = [
            PathElement::Index(0),
            value,
            key(&[("a", json!(1))]),
            PathElement::field("z"),
        ];
        elements.sort();
        assert!(matches!(elements[0], PathElement::Field(_)));
        assert!(matches!(elements[1], PathElement::Key(_)));
        assert!(matches!(elements[2], PathElement::Value(_)));
    }
}
