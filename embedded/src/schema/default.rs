//! Filling in defaults.

use serde_json::Value;

use super::node::{Additional, Node};

/// Applies the defaults of the schema to an object.
pub(super) fn apply(root: &Node, object: &mut Value) {
    drop_nulls(object, Some(root));
    fill(object, root);
}

/// Removes a `null` that is neither allowed nor replaced by a default; as in kube-apiserver it means "not given".
fn drop_nulls(value: &mut Value, node: Option<&Node>) {
    match value {
        Value::Object(map) => map.retain(|key, child| {
            let schema = node.and_then(|node| node.child(key));
            if child.is_null() && schema.is_some_and(|schema| schema.refuses_null() && schema.default.is_none()) {
                return false;
            }
            drop_nulls(child, schema);
            true
        }),
        Value::Array(items) => {
            let schema = node.and_then(|node| node.items.as_deref());
            for item in items {
                drop_nulls(item, schema);
            }
        }
        _ => {}
    }
}

/// Fills in what is missing below this node.
pub(super) fn fill(value: &mut Value, node: &Node) {
    match value {
        Value::Object(map) => {
            for (name, property) in &node.properties {
                let Some(default) = &property.default else { continue };
                let missing = map
                    .get(name)
                    .is_none_or(|child| child.is_null() && property.refuses_null());
                if missing {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, child) in map.iter_mut() {
                if let Some(property) = node.properties.get(name) {
                    fill(child, property);
                } else if let Additional::Schema(values) = &node.additional {
                    replace_null(child, values);
                    fill(child, values);
                }
            }
        }
        Value::Array(items) => {
            let Some(schema) = &node.items else { return };
            for item in items {
                replace_null(item, schema);
                fill(item, schema);
            }
        }
        _ => {}
    }
}

fn replace_null(value: &mut Value, node: &Node) {
    if value.is_null()
        && node.refuses_null()
        && let Some(default) = &node.default
    {
        *value = default.clone();
    }
}
