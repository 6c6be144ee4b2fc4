//! A YAML document as a tree that knows where each value stands.

use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_saphyr::{Location, Spanned};
use std::fmt;

/// A value and where it stands.
#[derive(Debug, PartialEq)]
pub(super) struct Node {
    pub(super) at: Place,
    pub(super) data: Data,
}

/// Line and column, from 1; 0 where they are not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
}

/// A value.
#[derive(Debug, PartialEq)]
pub(super) enum Data {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file.
    Map(Vec<(Key, Node)>),
}

/// A key of a map and where it stands.
#[derive(Debug, PartialEq)]
pub(super) struct Key {
    pub(super) at: Place,
    pub(super) name: String,
}

impl Node {
    /// The value as JSON, without the places.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.data {
            Data::Null => serde_json::Value::Null,
            Data::Bool(value) => (*value).into(),
            Data::Int(value) => (*value).into(),
            Data::Float(value) => (*value).into(),
            Data::Text(value) => value.as_str().into(),
            Data::List(items) => items.iter().map(Node::to_json).collect(),
            Data::Map(entries) => entries
                .iter()
                .map(|(key, value)| (key.name.clone(), value.to_json()))
                .collect(),
        }
    }

    /// The value in a few words, for an error.
    pub(super) fn in_words(&self) -> String {
        match &self.data {
            Data::Null => "empty".to_owned(),
            Data::Map(_) => "a map".to_owned(),
            Data::List(items) => format!("a list of {}", items.len()),
            _ => {
                let text = self.to_json().to_string();
                match text.char_indices().nth(60) {
                    Some((end, _)) => format!("{}…", &text[..end]),
                    None => text,
                }
            }
        }
    }

    /// The place of the value at a path, or of the nearest thing above it that exists.
    pub(super) fn place_of(&self, path: &str) -> Place {
        let mut node = self;
        let mut place = self.at;
        for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
            let next = match (&node.data, step.strip_suffix(']')) {
                (Data::List(items), Some(index)) => index
                    .parse::<usize>()
                    .ok()
                    .and_then(|index| items.get(index))
                    .map(|item| (item.at, item)),
                (Data::Map(entries), None) => entries
                    .iter()
                    .find(|(key, _)| key.name == step)
                    .map(|(_, value)| (value.at, value)),
                _ => None,
            };
            match next {
                Some((at, below)) => (place, node) = (at, below),
                None => break,
            }
        }
        place
    }
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        Self {
            line: location.line(),
            column: location.column(),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<Data>::deserialize(deserializer)?;
        Ok(Self {
            at: referenced.into(),
            data: value,
        })
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DataVisitor)
    }
}

struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Data, E> {
        Ok(Data::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Data, E> {
        Ok(Data::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Data, D::Error> {
        Data::deserialize(deserializer)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Data, E> {
        Ok(Data::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Data, E> {
        Ok(Data::Int(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Data, E> {
        // Every figure of the configuration is far below; one that is not is refused by its range.
        Ok(i64::try_from(value).map_or(Data::Float(value as f64), Data::Int))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Data, E> {
        Ok(Data::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Data, E> {
        Ok(Data::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Data, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Data::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Data, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key::<Spanned<String>>()? {
            let value = access.next_value()?;
            entries.push((
                Key {
                    at: key.defined.into(),
                    name: key.value,
                },
                value,
            ));
        }
        Ok(Data::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TEXT: &str = "a:\n  - b: 1\n    c: yes please\n  - {d: 1.5, e: -2, f: [true, ~]}\n";

    #[test]
    fn values_keep_their_type_and_place() {
        let tree: Node = serde_saphyr::from_str(TEXT).unwrap();
        let expected = serde_json::json!({"a": [{"b": 1, "c": "yes please"}, {"d": 1.5, "e": -2, "f": [true, null]}]});
        assert_eq!(tree.to_json(), expected);
        assert_eq!(tree.place_of("a[0].c"), Place { line: 3, column: 8 });
        assert_eq!(tree.place_of("a[1].e"), Place { line: 4, column: 17 });
        let Data::Map(entries) = &tree.data else {
            panic!("not a map")
        };
        assert_eq!(entries[0].0.at, Place { line: 1, column: 1 });
    }

    #[test]
    fn the_place_of_what_is_missing_is_that_of_what_is_above() {
        let tree: Node = serde_saphyr::from_str(TEXT).unwrap();
        assert_eq!(tree.place_of("a[1].absent.deeper"), tree.place_of("a[1]"));
        assert_eq!(tree.place_of("a[7]"), tree.place_of("a"));
    }

    #[test]
    fn long_values_are_cut_in_errors() {
        let tree: Node = serde_saphyr::from_str(&format!("\"{}\"", "ü".repeat(100))).unwrap();
        assert_eq!(tree.in_words().chars().count(), 61);
    }
}
