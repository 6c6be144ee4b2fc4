//! From the JSON of a structural schema to its tree of nodes.

use serde_json::{Map, Value};

use super::{
    cel::Rule,
    default,
    format::Format,
    node::{Additional, Bound, ListType, Node, Type},
    path::Path,
    pattern, prune, validate,
};
use crate::status::Cause;

/// What the position of a schema means for the rules in it.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// The schema is that of the whole object, which has `metadata`.
    root: bool,
    /// The innermost enclosing list, if any, whose items cannot be followed from one state of the object to the next.
    uncorrelated: Option<&'a Path<'a>>,
    /// Why a default may not stand here.
    no_default: Option<&'static str>,
}

/// Compiles a schema that [`super::invariants`] found to be structural; problems with regular expressions, CEL rules and
/// defaults go into `causes`.
pub(super) fn compile(schema: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) -> Node {
    let place = Place {
        root: true,
        uncorrelated: None,
        no_default: None,
    };
    build(schema, place, path, causes)
}

fn build(schema: &Value, place: Place<'_>, path: &Path<'_>, causes: &mut Vec<Cause>) -> Node {
    let empty = Map::new();
    let map = schema.as_object().unwrap_or(&empty);
    let flag = |key: &str| map.get(key).and_then(Value::as_bool).unwrap_or(false);
    let count = |key: &str| map.get(key).and_then(Value::as_u64);
    let text = |key: &str| map.get(key).and_then(Value::as_str);

    let mut node = Node {
        kind: text("type").and_then(Type::parse),
        int_or_string: flag("x-kubernetes-int-or-string"),
        nullable: flag("nullable"),
        preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
        embedded_resource: flag("x-kubernetes-embedded-resource"),
        enumeration: map.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
        minimum: bound(map, "minimum", flag("exclusiveMinimum")),
        maximum: bound(map, "maximum", flag("exclusiveMaximum")),
        multiple_of: map.get("multipleOf").and_then(Value::as_number).cloned(),
        min_length: count("minLength"),
        max_length: count("maxLength"),
        min_items: count("minItems"),
        max_items: count("maxItems"),
        unique_items: flag("uniqueItems"),
        min_properties: count("minProperties"),
        max_properties: count("maxProperties"),
        required: texts(map, "required"),
        list_type: list_type(map),
        ..Node::default()
    };
    set_format(&mut node, text("format"));
    if let Some(source) = text("pattern").filter(|source| !source.is_empty()) {
        match pattern::compile(source) {
            Ok(regex) => node.pattern = Some((source.to_owned(), regex)),
            Err(error) => {
                let detail = format!("must be a valid regular expression, but isn't: {error}");
                causes.push(Cause::invalid(&path.field("pattern"), &Value::from(source), &detail));
            }
        }
    }
    add_children(&mut node, map, place, path, causes);
    let (keyed, ruled) = summary(&node);
    node.keyed_lists_within = keyed || node.list_type != ListType::Atomic;
    node.rules_within = ruled;
    if let Some(rules) = map.get("x-kubernetes-validations").and_then(Value::as_array) {
        let list = path.field("x-kubernetes-validations");
        let within = place.uncorrelated.map(ToString::to_string);
        node.rules = rules
            .iter()
            .enumerate()
            .filter_map(|(index, rule)| {
                Rule::compile(rule, &node, place.root, within.as_deref(), &list.index(index), causes)
            })
            .collect();
        node.rules_within |= !node.rules.is_empty();
    }
    if let Some(value) = map.get("default").filter(|value| !value.is_null()) {
        let here = path.field("default");
        match place.no_default {
            Some(reason) => causes.push(Cause::forbidden(&here, &format!("must not be set {reason}"))),
            None => check_default(value, &node, &here, causes),
        }
        node.default = Some(value.clone());
    }
    node
}

/// Whether there are keyed lists, and rules, anywhere below this node.
fn summary(node: &Node) -> (bool, bool) {
    let values = match &node.additional {
        Additional::Schema(values) => Some(values.as_ref()),
        _ => None,
    };
    node.properties
        .values()
        .chain(values)
        .chain(node.items.as_deref())
        .fold((false, false), |(keyed, ruled), child| {
            (keyed || child.keyed_lists_within, ruled || child.rules_within)
        })
}

fn add_children(node: &mut Node, map: &Map<String, Value>, place: Place<'_>, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let inner = Place { root: false, ..place };
    if let Some(properties) = map.get("properties").and_then(Value::as_object) {
        let list = path.field("properties");
        for (name, schema) in properties {
            let is_meta = place.root && prune::META.contains(&name.as_str());
            let inner = Place {
                no_default: inner
                    .no_default
                    .or(is_meta.then_some("in top-level apiVersion, kind and metadata")),
                ..inner
            };
            let child = build(schema, inner, &list.key(name), causes);
            node.properties.insert(name.clone(), child);
        }
    }
    node.additional = match map.get("additionalProperties") {
        None => Additional::Unspecified,
        Some(Value::Bool(false)) => Additional::None,
        Some(schema @ Value::Object(_)) => Additional::Schema(Box::new(build(
            schema,
            inner,
            &path.field("additionalProperties"),
            causes,
        ))),
        Some(_) => Additional::Any,
    };
    if let Some(items) = map.get("items") {
        let mut place = inner;
        if !matches!(node.list_type, ListType::Map(_)) && place.uncorrelated.is_none() {
            place.uncorrelated = Some(path);
        }
        node.items = Some(Box::new(build(items, place, &path.field("items"), causes)));
    }
    let mut junctor = |keyword: &str| {
        let list = path.field(keyword);
        map.get(keyword)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .enumerate()
            .map(|(index, schema)| build(schema, inner, &list.index(index), causes))
            .collect::<Vec<_>>()
    };
    node.all_of = junctor("allOf");
    node.any_of = junctor("anyOf");
    node.one_of = junctor("oneOf");
    node.not = map
        .get("not")
        .map(|schema| Box::new(build(schema, inner, &path.field("not"), causes)));
}

fn set_format(node: &mut Node, name: Option<&str>) {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return;
    };
    // A format that does not belong to the type is documentation.
    let applies = match node.kind {
        None | Some(Type::String) => Format::parse(name).is_some() || name == "password",
        Some(Type::Integer) => matches!(name, "int32" | "int64"),
        Some(Type::Number) => matches!(name, "float" | "double"),
        Some(_) => false,
    };
    if applies && !node.int_or_string {
        node.format = match node.kind {
            None | Some(Type::String) => Format::parse(name),
            _ => None,
        };
        node.format_name = Some(name.to_owned());
    }
}

fn bound(map: &Map<String, Value>, key: &str, exclusive: bool) -> Option<Bound> {
    let limit = map.get(key)?.as_number()?.clone();
    Some(Bound { limit, exclusive })
}

fn texts(map: &Map<String, Value>, key: &str) -> Vec<String> {
    map.get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|text| text.as_str().map(str::to_owned))
        .collect()
}

fn list_type(map: &Map<String, Value>) -> ListType {
    match map.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => ListType::Set,
        Some("map") => ListType::Map(texts(map, "x-kubernetes-list-map-keys")),
        _ => ListType::Atomic,
    }
}

/// A default must be what the schema itself would accept, otherwise every object that relies on it is refused.
fn check_default(value: &Value, node: &Node, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let mut pruned = value.clone();
    if !prune::prune_value(node, &mut pruned).is_empty() {
        causes.push(Cause::invalid(path, value, "must not have unknown fields"));
        return;
    }
    let mut filled = value.clone();
    default::fill(&mut filled, node);
    causes.extend(validate::validate_at(node, &filled, path));
}
