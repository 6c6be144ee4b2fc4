//! What makes a schema structural, checked on the JSON of the schema before it is compiled.
//!
//! The rules are those by which kube-apiserver accepts a CustomResourceDefinition: every field has exactly one type
//! outside of `allOf`, `anyOf`, `oneOf` and `not`, so that pruning and defaulting are unambiguous.

mod lists;

use serde_json::{Map, Value};

use super::{keywords, node::Type, path::Path};
use crate::status::Cause;

/// Schemas nested deeper than this are refused; walks recurse, and no sensible object is this deep.
const MAX_DEPTH: usize = 64;

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

impl Level {
    fn type_missing(self) -> &'static str {
        match self {
            Self::Root => "must not be empty at the root",
            Self::Item => "must not be empty for specified array items",
            Self::Field => "must not be empty for specified object fields",
        }
    }
}

/// Everything that keeps the schema from being structural, sorted by path.
pub(super) fn check(schema: &Value, path: &Path<'_>) -> Vec<Cause> {
    let mut causes = Vec::new();
    structural(schema, Level::Root, 0, path, &mut causes);
    causes.sort_by(|a, b| (&a.field, &a.message).cmp(&(&b.field, &b.message)));
    causes
}

fn flag(map: &Map<String, Value>, key: &str) -> bool {
    map.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn text<'v>(map: &'v Map<String, Value>, key: &str) -> &'v str {
    map.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn object<'v>(map: &'v Map<String, Value>, key: &str) -> Option<&'v Map<String, Value>> {
    map.get(key).and_then(Value::as_object)
}

fn structural(schema: &Value, level: Level, depth: usize, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let Some(map) = keywords::check(schema, path, causes) else {
        return;
    };
    if depth > MAX_DEPTH {
        causes.push(Cause::forbidden(path, "schemas may not be nested this deeply"));
        return;
    }
    forbidden_keywords(map, path, causes);
    own_type(map, level, path, causes);
    metadata_rules(map, level, path, causes);
    extensions(map, path, causes);
    lists::check(map, path, causes);
    children(map, level, depth, path, causes);

    let int_or_string = flag(map, "x-kubernetes-int-or-string");
    let skip_any_of = int_or_string && is_int_or_string_pattern(map.get("anyOf"));
    let skip_first_all_of = int_or_string
        && !skip_any_of
        && map
            .get("allOf")
            .and_then(|all| all.get(0))
            .is_some_and(|first| is_int_or_string_pattern(first.get("anyOf")));
    for junctor in ["anyOf", "oneOf", "allOf"] {
        let Some(parts) = map.get(junctor).and_then(Value::as_array) else {
            continue;
        };
        if junctor == "anyOf" && skip_any_of {
            continue;
        }
        let list = path.field(junctor);
        for (index, part) in parts.iter().enumerate() {
            let here = list.index(index);
            let skip = junctor == "allOf" && index == 0 && skip_first_all_of;
            nested(part, skip, depth + 1, &here, causes);
            complete(part, schema, &here, path, causes);
        }
    }
    if let Some(not) = map.get("not") {
        let here = path.field("not");
        nested(not, false, depth + 1, &here, causes);
        complete(not, schema, &here, path, causes);
    }
}

/// `anyOf: [{type: integer}, {type: string}]`, the one place where alternatives may have types.
fn is_int_or_string_pattern(any_of: Option<&Value>) -> bool {
    any_of == Some(&serde_json::json!([{"type": "integer"}, {"type": "string"}]))
}

fn forbidden_keywords(map: &Map<String, Value>, path: &Path<'_>, causes: &mut Vec<Cause>) {
    for keyword in [
        "id",
        "additionalItems",
        "patternProperties",
        "definitions",
        "dependencies",
        "$ref",
    ] {
        if map.contains_key(keyword) {
            causes.push(Cause::forbidden(
                &path.field(keyword),
                &format!("{keyword} is not supported"),
            ));
        }
    }
    if flag(map, "uniqueItems") {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        causes.push(Cause::forbidden(&path.field("uniqueItems"), detail));
    }
}

fn own_type(map: &Map<String, Value>, level: Level, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let here = path.field("type");
    let kind = text(map, "type");
    let embedded = flag(map, "x-kubernetes-embedded-resource");
    let typeless = flag(map, "x-kubernetes-int-or-string") || flag(map, "x-kubernetes-preserve-unknown-fields");
    if kind == "null" {
        let detail = "type cannot be set to null, use nullable as an alternative";
        causes.push(Cause::forbidden(&here, detail));
    } else if !kind.is_empty() && Type::parse(kind).is_none() {
        let supported = ["array", "boolean", "integer", "number", "object", "string"];
        causes.push(Cause::not_supported(&here, &Value::from(kind), &supported));
    }
    if embedded && kind != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        causes.push(required_or_invalid(&here, kind, detail));
    } else if kind.is_empty() && !typeless {
        causes.push(Cause::required(&here, level.type_missing()));
    }
    if level == Level::Root {
        if !kind.is_empty() && kind != "object" {
            causes.push(Cause::invalid(&here, &Value::from(kind), "must be object at the root"));
        }
        if flag(map, "nullable") {
            causes.push(Cause::forbidden(
                &path.field("nullable"),
                "nullable cannot be true at the root",
            ));
        }
    }
    if kind == "array" && !map.contains_key("items") {
        causes.push(Cause::required(&path.field("items"), "must be specified"));
    }
}

fn required_or_invalid(path: &Path<'_>, kind: &str, detail: &str) -> Cause {
    if kind.is_empty() {
        Cause::required(path, detail)
    } else {
        Cause::invalid(path, &Value::from(kind), detail)
    }
}

/// Schemas may not say more about `apiVersion`, `kind` and `metadata` than the API does already.
fn metadata_rules(map: &Map<String, Value>, level: Level, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let embedded = flag(map, "x-kubernetes-embedded-resource");
    let Some(properties) = object(map, "properties") else {
        if embedded && !flag(map, "x-kubernetes-preserve-unknown-fields") {
            let detail = "must not be empty if x-kubernetes-embedded-resource is true without \
                          x-kubernetes-preserve-unknown-fields";
            causes.push(Cause::required(&path.field("properties"), detail));
        }
        return;
    };
    if level != Level::Root && !embedded {
        return;
    }
    let list = path.field("properties");
    for (name, wanted) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
        let Some(found) = properties.get(name) else { continue };
        let kind = found.get("type").and_then(Value::as_str).unwrap_or_default();
        if kind != wanted {
            let here = list.key(name);
            let detail = format!("must be {wanted}");
            causes.push(Cause::invalid(&here.field("type"), &Value::from(kind), &detail));
        }
    }
    if level == Level::Root
        && let Some(metadata) = properties.get("metadata").and_then(Value::as_object)
    {
        let only_names = metadata.iter().all(|(key, value)| match key.as_str() {
            "type" | "description" => true,
            "properties" => value
                .as_object()
                .is_some_and(|fields| fields.keys().all(|name| name == "name" || name == "generateName")),
            _ => false,
        });
        if !only_names {
            let detail =
                "must not specify anything other than name and generateName, but metadata is implicitly specified";
            causes.push(Cause::forbidden(&list.key("metadata"), detail));
        }
    }
}

fn extensions(map: &Map<String, Value>, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if let Some(Value::Bool(preserve)) = map.get("x-kubernetes-preserve-unknown-fields") {
        let here = path.field("x-kubernetes-preserve-unknown-fields");
        if !preserve {
            causes.push(Cause::invalid(&here, &Value::from(false), "must be true or undefined"));
        } else if flag(map, "x-kubernetes-int-or-string") {
            let detail = "must be false if x-kubernetes-int-or-string is true";
            causes.push(Cause::invalid(&here, &Value::from(true), detail));
        }
    }
    if flag(map, "x-kubernetes-int-or-string") && flag(map, "x-kubernetes-embedded-resource") {
        let here = path.field("x-kubernetes-embedded-resource");
        let detail = "must be false if x-kubernetes-int-or-string is true";
        causes.push(Cause::invalid(&here, &Value::from(true), detail));
    }
    let kind = text(map, "type");
    if let Some(map_type) = map.get("x-kubernetes-map-type") {
        if kind != "object" {
            let detail = "must be object if x-kubernetes-map-type is specified";
            causes.push(required_or_invalid(&path.field("type"), kind, detail));
        }
        if !matches!(map_type.as_str(), Some("atomic" | "granular")) {
            let here = path.field("x-kubernetes-map-type");
            causes.push(Cause::not_supported(&here, map_type, &["atomic", "granular"]));
        }
    }
}

fn children(map: &Map<String, Value>, level: Level, depth: usize, path: &Path<'_>, causes: &mut Vec<Cause>) {
    if let Some(items) = map.get("items") {
        structural(items, Level::Item, depth + 1, &path.field("items"), causes);
    }
    if let Some(properties) = object(map, "properties") {
        let list = path.field("properties");
        for (name, property) in properties {
            structural(property, Level::Field, depth + 1, &list.key(name), causes);
        }
    }
    let Some(additional) = map.get("additionalProperties") else {
        return;
    };
    let here = path.field("additionalProperties");
    if level == Level::Root {
        causes.push(Cause::forbidden(&here, "must not be used at the root"));
    }
    if flag(map, "x-kubernetes-embedded-resource") {
        let detail = "must not be used if x-kubernetes-embedded-resource is set";
        causes.push(Cause::forbidden(&here, detail));
    }
    let has_fields = object(map, "properties").is_some_and(|all| !all.is_empty());
    if has_fields && *additional != Value::Bool(true) {
        let detail = "additionalProperties and properties are mutual exclusive";
        causes.push(Cause::forbidden(&here, detail));
    }
    if additional.is_object() {
        structural(additional, Level::Field, depth + 1, &here, causes);
    }
}

/// Inside `allOf` and the like only value checks may stand, nothing that shapes the object.
fn nested(schema: &Value, skip_any_of: bool, depth: usize, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let Some(map) = keywords::check(schema, path, causes) else {
        return;
    };
    if depth > MAX_DEPTH {
        causes.push(Cause::forbidden(path, "schemas may not be nested this deeply"));
        return;
    }
    forbidden_keywords(map, path, causes);
    for (keyword, detail) in [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
        ("x-kubernetes-validations", "must be empty to be structural"),
    ] {
        let present = match map.get(keyword) {
            None | Some(Value::Bool(false) | Value::Null) => false,
            Some(Value::String(text)) => !text.is_empty(),
            Some(_) => true,
        };
        if present {
            causes.push(Cause::forbidden(&path.field(keyword), detail));
        }
    }
    if let Some(items) = map.get("items") {
        nested(items, false, depth + 1, &path.field("items"), causes);
    }
    if let Some(properties) = object(map, "properties") {
        let list = path.field("properties");
        for (name, property) in properties {
            let here = list.key(name);
            if name == "metadata" {
                causes.push(Cause::forbidden(&here, "must not be specified in a nested context"));
            }
            nested(property, false, depth + 1, &here, causes);
        }
    }
    for junctor in ["anyOf", "oneOf", "allOf"] {
        if junctor == "anyOf" && skip_any_of {
            continue;
        }
        let list = path.field(junctor);
        for (index, part) in map
            .get(junctor)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .enumerate()
        {
            nested(part, false, depth + 1, &list.index(index), causes);
        }
    }
    if let Some(not) = map.get("not") {
        nested(not, false, depth + 1, &path.field("not"), causes);
    }
}

/// Every field that a nested schema speaks of must exist in the structure around it.
fn complete(part: &Value, outer: &Value, part_path: &Path<'_>, outer_path: &Path<'_>, causes: &mut Vec<Cause>) {
    let because = |path: &Path<'_>| format!("because it is defined in {path}");
    if let Some(properties) = part.get("properties").and_then(Value::as_object) {
        let (parts, outers) = (part_path.field("properties"), outer_path.field("properties"));
        for (name, property) in properties {
            let (here, there) = (parts.key(name), outers.key(name));
            match outer.get("properties").and_then(|all| all.get(name)) {
                Some(known) => complete(property, known, &here, &there, causes),
                None => causes.push(Cause::required(&there, &because(&here))),
            }
        }
    }
    if let Some(items) = part.get("items") {
        let (here, there) = (part_path.field("items"), outer_path.field("items"));
        match outer.get("items") {
            Some(known) => complete(items, known, &here, &there, causes),
            None => causes.push(Cause::required(&there, &because(&here))),
        }
    }
    for junctor in ["anyOf", "oneOf", "allOf"] {
        let list = part_path.field(junctor);
        for (index, inner) in part
            .get(junctor)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .enumerate()
        {
            complete(inner, outer, &list.index(index), outer_path, causes);
        }
    }
    if let Some(not) = part.get("not") {
        complete(not, outer, &part_path.field("not"), outer_path, causes);
    }
}
