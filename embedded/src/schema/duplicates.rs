//! Lists that are sets or maps must not hold the same item twice.

use serde_json::Value;

use super::{
    node::{Additional, ListType, Node},
    path::Path,
};
use crate::status::Cause;

/// Duplicates in sets and map lists, below this node.
pub(super) fn find(node: &Node, value: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if !node.keyed_lists_within {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, child) in map {
                if let Some(property) = node.properties.get(name) {
                    find(property, child, &path.field(name), causes);
                } else if let Additional::Schema(values) = &node.additional {
                    find(values, child, &path.key(name), causes);
                }
            }
        }
        Value::Array(items) => {
            match &node.list_type {
                ListType::Atomic => {}
                ListType::Set => repeated(items, path, causes),
                ListType::Map(keys) => match keys_of(items, keys, path) {
                    Ok(found) => repeated(&found, path, causes),
                    Err(cause) => causes.push(cause),
                },
            }
            if let Some(schema) = &node.items {
                for (index, item) in items.iter().enumerate() {
                    find(schema, item, &path.index(index), causes);
                }
            }
        }
        _ => {}
    }
}

/// The identity of each item of a map list, as an object of its key fields.
fn keys_of(items: &[Value], keys: &[String], path: &Path<'_>) -> Result<Vec<Value>, Cause> {
    let identity = |(index, item): (usize, &Value)| match item {
        Value::Null => Ok(Value::Object(serde_json::Map::new())),
        Value::Object(map) => Ok(keys
            .iter()
            .filter_map(|key| map.get(key).map(|value| (key.clone(), value.clone())))
            .collect::<serde_json::Map<_, _>>()
            .into()),
        other => Err(Cause::invalid(
            &path.index(index),
            other,
            "must be an object for an array of list-type map",
        )),
    };
    items.iter().enumerate().map(identity).collect()
}

/// Reports the second appearance of each value; further ones say nothing new.
fn repeated(values: &[Value], path: &Path<'_>, causes: &mut Vec<Cause>) {
    let mut seen = std::collections::HashMap::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        // The text is canonical: the keys of objects are sorted.
        let times = seen.entry(value.to_string()).or_insert(0_u32);
        *times += 1;
        if *times == 2 {
            causes.push(Cause::duplicate(&path.index(index), value));
        }
    }
}
