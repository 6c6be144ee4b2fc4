//! Removing what the schema does not know.

use serde_json::Value;

use super::{
    node::{Additional, Node},
    path::Path,
};

/// The fields that every object has, whatever its schema says.
pub(super) const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Prunes an object and returns the sorted paths of what went.
pub(super) fn prune(root: &Node, object: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    walk(object, root, true, &Path::ROOT, &mut unknown);
    unknown.sort();
    unknown
}

/// Prunes a value that is not a whole object, such as a default.
pub(super) fn prune_value(node: &Node, value: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    walk(value, node, false, &Path::ROOT, &mut unknown);
    unknown
}

fn walk(value: &mut Value, node: &Node, is_resource: bool, path: &Path<'_>, unknown: &mut Vec<String>) {
    let keeps_meta = is_resource || node.embedded_resource;
    match value {
        Value::Object(map) => map.retain(|key, child| {
            if keeps_meta && META.contains(&key.as_str()) {
                return true;
            }
            let here = path.field(key);
            if let Some(property) = node.properties.get(key) {
                walk(child, property, false, &here, unknown);
                return true;
            }
            match &node.additional {
                Additional::Schema(values) => walk(child, values, false, &here, unknown),
                Additional::Any => {}
                Additional::Unspecified | Additional::None if node.preserve_unknown => {}
                Additional::Unspecified | Additional::None => {
                    unknown.push(String::from(&here));
                    return false;
                }
            }
            true
        }),
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                let here = path.index(index);
                match &node.items {
                    Some(schema) => walk(item, schema, false, &here, unknown),
                    None if node.preserve_unknown => {}
                    None => strip(item, &here, unknown),
                }
            }
        }
        _ => {}
    }
}

/// Prunes a value for which there is no schema at all: scalars stay, fields go.
fn strip(value: &mut Value, path: &Path<'_>, unknown: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            unknown.extend(map.keys().map(|key| String::from(&path.field(key))));
            map.clear();
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                strip(item, &path.index(index), unknown);
            }
        }
        _ => {}
    }
}
