//! List types: which items can be told apart, and by what.

use serde_json::{Map, Value};

use super::{flag, object, required_or_invalid, text};
use crate::{schema::path::Path, status::Cause};

/// Lists that merge need items that can be told apart.
pub(super) fn check(map: &Map<String, Value>, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let list_type = map.get("x-kubernetes-list-type").and_then(Value::as_str);
    let keys: Vec<&str> = map
        .get("x-kubernetes-list-map-keys")
        .and_then(Value::as_array)
        .map(|keys| keys.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let type_path = path.field("x-kubernetes-list-type");
    let keys_path = path.field("x-kubernetes-list-map-keys");
    if !keys.is_empty() && list_type != Some("map") {
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        causes.push(required_or_invalid(&type_path, list_type.unwrap_or_default(), detail));
    }
    let Some(list_type) = list_type else { return };
    let kind = text(map, "type");
    if kind != "array" {
        let detail = "must be array if x-kubernetes-list-type is specified";
        causes.push(required_or_invalid(&path.field("type"), kind, detail));
    }
    let items_path = path.field("items");
    let items = object(map, "items");
    if matches!(list_type, "set" | "map") && items.is_some_and(|items| flag(items, "nullable")) {
        let detail = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        causes.push(Cause::forbidden(&items_path.field("nullable"), &detail));
    }
    match list_type {
        "atomic" => {}
        "set" => {
            let Some(items) = items else { return };
            let (keyword, loose) = match text(items, "type") {
                "array" => (
                    "x-kubernetes-list-type",
                    matches!(text(items, "x-kubernetes-list-type"), "set" | "map"),
                ),
                "object" => (
                    "x-kubernetes-map-type",
                    text(items, "x-kubernetes-map-type") != "atomic",
                ),
                _ => return,
            };
            if loose {
                let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
                let found = items.get(keyword).cloned().unwrap_or(Value::Null);
                causes.push(Cause::invalid(&items_path.field(keyword), &found, detail));
            }
        }
        "map" => map_list(items, &keys, &items_path, &keys_path, causes),
        other => causes.push(Cause::not_supported(
            &type_path,
            &Value::from(other),
            &["atomic", "set", "map"],
        )),
    }
}

fn map_list(
    items: Option<&Map<String, Value>>,
    keys: &[&str],
    items_path: &Path<'_>,
    keys_path: &Path<'_>,
    causes: &mut Vec<Cause>,
) {
    if keys.is_empty() {
        let detail = "must not be empty if x-kubernetes-list-type is map";
        causes.push(Cause::required(keys_path, detail));
    }
    let Some(items) = items else { return };
    if text(items, "type") != "object" {
        let found = Value::from(text(items, "type"));
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        causes.push(Cause::invalid(&items_path.field("type"), &found, detail));
        return;
    }
    let required: Vec<&str> = items
        .get("required")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let fields = items_path.field("properties");
    for (index, key) in keys.iter().enumerate() {
        let shown = Value::from(keys.to_vec());
        if keys[..index].contains(key) {
            causes.push(Cause::invalid(keys_path, &shown, "must not contain duplicate entries"));
        }
        let here = fields.key(key);
        let Some(property) = object(items, "properties")
            .and_then(|all| all.get(*key))
            .and_then(Value::as_object)
        else {
            causes.push(Cause::invalid(
                keys_path,
                &shown,
                "entries must all be names of item properties",
            ));
            continue;
        };
        if matches!(text(property, "type"), "array" | "object") {
            let found = Value::from(text(property, "type"));
            let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            causes.push(Cause::invalid(&here.field("type"), &found, detail));
        }
        if !required.contains(key) && !property.contains_key("default") {
            let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required \
                          property";
            causes.push(Cause::required(&here.field("default"), detail));
        }
        if flag(property, "nullable") {
            let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            causes.push(Cause::forbidden(&here.field("nullable"), detail));
        }
    }
}
