//! From an object to the set of its fields.

use super::schema::{Form, ListType, MapType, Type};
use crate::apply::{
    field_set::{FieldSet, Node},
    path::PathElement,
};
use serde_json::{Map, Value};

/// Every field that an object mentions: leaves, list items, and the keys of dictionaries. The containers that a schema
/// declares by name are not listed; whoever owns something in them keeps them alive.
pub(crate) fn field_set(ty: Type<'_>, object: &Value) -> FieldSet {
    node(ty, object).children
}

fn node(ty: Type<'_>, value: &Value) -> Node {
    match ty.form(value) {
        Form::Scalar(_) => Node::leaf(),
        Form::List(list) if list.is_atomic() => Node::leaf(),
        Form::Map(map) if map.atomic => Node::leaf(),
        Form::List(list) => value
            .as_array()
            .map_or_else(Node::default, |items| list_node(list, items)),
        Form::Map(map) => value
            .as_object()
            .map_or_else(Node::default, |fields| map_node(map, fields)),
    }
}

fn map_node(ty: MapType<'_>, fields: &Map<String, Value>) -> Node {
    let mut out = Node::default();
    for (name, value) in fields {
        let mut child = node(ty.field_or_deduced(name), value);
        let is_empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
        child.member |= is_empty || ty.declared(name).is_none();
        out.children.graft(PathElement::field(name), child);
    }
    out
}

fn list_node(ty: ListType<'_>, items: &[Value]) -> Node {
    let Some(groups) = ty.grouped(items) else {
        return Node::leaf();
    };
    let mut out = Node::default();
    for (element, items) in groups {
        let child = match items.as_slice() {
            [only] => Node {
                member: true,
                ..node(ty.items(), only)
            },
            // Items that share an identity are owned together.
            _ => Node::leaf(),
        };
        out.children.graft(element, child);
    }
    out
}

/// The set with every declared container added that something in the set lies in. Removing fields needs this: a
/// container goes when nobody owns anything in it.
pub(crate) fn with_named_fields(ty: Type<'_>, set: &FieldSet) -> FieldSet {
    let forms = ty.forms();
    let mut out = FieldSet::default();
    for (element, node) in set.nodes() {
        let mut member = node.member;
        let below = match element {
            PathElement::Field(name) => forms.map().and_then(|map| {
                member |= !node.children.is_empty() && map.declared(name).is_some();
                map.field(name)
            }),
            PathElement::Key(_) => forms.list().map(ListType::items),
            PathElement::Value(_) | PathElement::Index(_) => None,
        };
        let children = match below {
            Some(ty) => with_named_fields(ty, &node.children),
            None => node.children.clone(),
        };
        out.graft(element.clone(), Node { member, children });
    }
    out
}
