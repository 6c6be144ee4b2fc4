//! Tables: the answer to `Accept: application/json;as=Table;v=v1;g=meta.k8s.io`, which `kubectl get` prints.

mod age;
mod builtin;
mod jsonpath;

use std::borrow::Borrow;

use jiff::Timestamp;
use serde_json::{Value, json};

pub use builtin::EventCell;
pub(crate) use builtin::columns as builtin_columns;
pub use jsonpath::JsonPath;

use crate::kinds::Resource;

/// One column of a kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Heading.
    pub name: String,
    /// `integer`, `number`, `string`, `boolean` or `date` (shown as age).
    pub kind: String,
    /// OpenAPI format, may be empty.
    pub format: String,
    /// What the column says.
    pub description: String,
    /// Zero is always shown, more only with `-o wide`.
    pub priority: i32,
    /// Where the value comes from.
    pub source: Source,
}

/// Where the value of a column comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A JSON path of the object.
    Path(JsonPath),
    /// The object's name. A kind with such a column gets no name column in front.
    Name,
    /// The time since the first of these paths that is set.
    Age(Vec<JsonPath>),
    /// The number of entries of these maps together.
    Entries(Vec<JsonPath>),
    /// A figure of an Event that several fields make up.
    Event(EventCell),
}

/// How much of each object a row carries, as the query parameter `includeObject` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing but the cells.
    None,
    /// `PartialObjectMetadata`.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

impl IncludeObject {
    /// Parses the query parameter; `None` for an unknown word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "None" => Some(Self::None),
            "" | "Metadata" => Some(Self::Metadata),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

impl Column {
    /// A column that is always shown and takes its text from a path.
    pub(crate) fn new(name: &str, kind: &str, source: Source) -> Self {
        Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            format: String::new(),
            description: String::new(),
            priority: 0,
            source,
        }
    }

    fn name_column() -> Self {
        Self {
            format: "name".to_owned(),
            description: "Name must be unique within a namespace.".to_owned(),
            ..Self::new("Name", "string", Source::Name)
        }
    }

    fn age_column() -> Self {
        Self {
            description: "Time since the object was created.".to_owned(),
            ..Self::new(
                "Age",
                "date",
                Source::Age(vec![JsonPath::fields(&["metadata", "creationTimestamp"])]),
            )
        }
    }

    fn definition(&self) -> Value {
        json!({
            "name": self.name,
            // The cell holds finished text, which clients print as it is.
            "type": self.kind,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        })
    }

    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        match &self.source {
            Source::Name => object["metadata"]["name"].clone(),
            Source::Path(path) => match path.first(object) {
                Some(value) if !value.is_null() => self.convert(value, now),
                _ => Value::Null,
            },
            Source::Age(paths) => {
                let text = paths
                    .iter()
                    .filter_map(|path| path.first(object)?.as_str())
                    .find(|text| !text.is_empty());
                Value::from(text.map_or_else(|| "<unknown>".to_owned(), |text| age::since(text, now)))
            }
            Source::Entries(paths) => {
                let count = |path: &JsonPath| {
                    path.first(object)
                        .and_then(Value::as_object)
                        .map_or(0, serde_json::Map::len)
                };
                Value::from(paths.iter().map(count).sum::<usize>())
            }
            Source::Event(cell) => cell.of(object),
        }
    }

    /// Fits a value into the column's type; what does not fit is shown as kubectl's `<invalid>` or left out.
    fn convert(&self, value: &Value, now: Timestamp) -> Value {
        match (self.kind.as_str(), value) {
            ("integer", Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
                (Some(integer), _) => Value::from(integer),
                // A fraction is cut off, as Go's conversion does.
                (None, Some(double)) => Value::from(double.trunc() as i64),
                (None, None) => Value::Null,
            },
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
            ("string", Value::String(_)) => value.clone(),
            ("string", other) => Value::from(other.to_string()),
            ("date", Value::String(text)) => Value::from(age::since(text, now)),
            ("date", _) => Value::from("<invalid>"),
            _ => Value::Null,
        }
    }
}

/// Renders objects as `meta.k8s.io/v1 Table`. `list_meta` is the `metadata` of the list (`resourceVersion`, `continue`,
/// `remainingItemCount`), or of the single object.
#[must_use]
pub fn to_table<T: Borrow<Value>>(
    resource: &Resource,
    items: &[T],
    list_meta: &Value,
    include_object: IncludeObject,
) -> Value {
    table_at(resource, items, list_meta, include_object, Timestamp::now())
}

fn table_at<T: Borrow<Value>>(
    resource: &Resource,
    items: &[T],
    list_meta: &Value,
    include_object: IncludeObject,
    now: Timestamp,
) -> Value {
    let columns = all_columns(&resource.columns);
    let rows: Vec<Value> = items
        .iter()
        .map(|item| {
            let object: &Value = item.borrow();
            let cells: Vec<Value> = columns.iter().map(|column| column.cell(object, now)).collect();
            let mut row = json!({ "cells": cells });
            match include_object {
                IncludeObject::None => {}
                IncludeObject::Metadata => {
                    row["object"] = json!({
                        "kind": "PartialObjectMetadata",
                        "apiVersion": "meta.k8s.io/v1",
                        "metadata": object["metadata"],
                    });
                }
                IncludeObject::Object => row["object"] = object.clone(),
            }
            row
        })
        .collect();
    // Of an object's own metadata only the version belongs into that of a table.
    let mut metadata = serde_json::Map::new();
    for key in ["resourceVersion", "continue", "remainingItemCount"] {
        if let Some(value) = list_meta.get(key) {
            metadata.insert(key.to_owned(), value.clone());
        }
    }
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": columns.iter().map(Column::definition).collect::<Vec<_>>(),
        "rows": rows,
    })
}

fn all_columns(declared: &[Column]) -> Vec<Column> {
    if declared.is_empty() {
        return vec![Column::name_column(), Column::age_column()];
    }
    let own_name = declared.iter().any(|column| column.source == Source::Name);
    let front = (!own_name).then(Column::name_column);
    front.into_iter().chain(declared.iter().cloned()).collect()
}

#[cfg(test)]
mod tests;
