//! Bringing a recorded set of fields up to date with the schema.

use super::schema::{Form, ListType, Type};
use crate::apply::{
    field_set::{FieldSet, Node},
    path::PathElement,
};

/// The set as it would have been recorded under today's schema. Where a list or map has become one value since, whoever
/// owned something in it owns the whole; the other direction needs nothing, since an owner of the whole stays one.
pub(crate) fn reconcile(ty: Type<'_>, set: &FieldSet) -> FieldSet {
    reconcile_children(set, |element| below(ty.forms().first(), element))
}

fn reconcile_children<'a>(set: &FieldSet, type_below: impl Fn(&PathElement) -> Option<Type<'a>>) -> FieldSet {
    let mut out = FieldSet::default();
    for (element, node) in set.nodes() {
        let node = match type_below(element) {
            Some(ty) => reconcile_node(ty, node),
            None => node.clone(),
        };
        out.graft(element.clone(), node);
    }
    out
}

fn reconcile_node(ty: Type<'_>, node: &Node) -> Node {
    if node.children.is_empty() {
        return node.clone();
    }
    let form = ty.forms().first();
    match form {
        Form::Map(map) if map.is_undeclared() => node.clone(),
        Form::Map(map) if map.atomic => Node::leaf(),
        Form::List(list) if list.is_atomic() => Node::leaf(),
        Form::Scalar(_) => node.clone(),
        form => Node {
            member: node.member,
            children: reconcile_children(&node.children, |element| below(form, element)),
        },
    }
}

fn below<'a>(form: Form<'a>, element: &PathElement) -> Option<Type<'a>> {
    match (form, element) {
        (Form::Map(map), PathElement::Field(name)) => map.field(name),
        (Form::List(list), _) => Some(ListType::items(list)),
        _ => None,
    }
}
