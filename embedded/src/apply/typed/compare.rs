//! What differs between two objects, as sets of fields.

use super::schema::{Form, ListType, MapType, Type};
use crate::apply::{
    field_set::{FieldSet, Node},
    json_order,
    path::PathElement,
};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The fields by which a new object differs from an old one. No field is in two of the sets.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    /// Only in the new object.
    pub(crate) added: FieldSet,
    /// In both, with different values.
    pub(crate) modified: FieldSet,
    /// Only in the old object.
    pub(crate) removed: FieldSet,
}

impl Comparison {
    /// Forgets everything in and below the given fields.
    pub(crate) fn without(self, ignored: &FieldSet) -> Self {
        Self {
            added: self.added.recursive_difference(ignored),
            modified: self.modified.recursive_difference(ignored),
            removed: self.removed.recursive_difference(ignored),
        }
    }

    /// Fields that the new object sets, to a new value or for the first time.
    pub(crate) fn changed(&self) -> FieldSet {
        self.modified.union(&self.added)
    }
}

/// Compares two objects of one type.
pub(crate) fn compare(ty: Type<'_>, old: &Value, new: &Value) -> Comparison {
    let delta = places(ty, Some(old), Some(new));
    Comparison {
        added: delta.added.children,
        modified: delta.modified.children,
        removed: delta.removed.children,
    }
}

/// The differences at one place and below it.
#[derive(Default)]
struct Delta {
    added: Node,
    modified: Node,
    removed: Node,
}

impl Delta {
    fn graft(&mut self, element: PathElement, child: Delta) {
        self.added.children.graft(element.clone(), child.added);
        self.modified.children.graft(element.clone(), child.modified);
        self.removed.children.graft(element, child.removed);
    }

    fn join(&mut self, other: Delta) {
        for (mine, theirs) in [
            (&mut self.added, other.added),
            (&mut self.modified, other.modified),
            (&mut self.removed, other.removed),
        ] {
            mine.member |= theirs.member;
            mine.children = mine.children.union(&theirs.children);
        }
    }

    fn leaf(old: Option<&Value>, new: Option<&Value>) -> Self {
        let mut delta = Self::default();
        match (old, new) {
            (None, _) => delta.added.member = true,
            (_, None) => delta.removed.member = true,
            (Some(old), Some(new)) => delta.modified.member = !json_order::equal(old, new),
        }
        delta
    }
}

/// Compares what is at one place; at least one of the values is there.
fn places(ty: Type<'_>, old: Option<&Value>, new: Option<&Value>) -> Delta {
    let (other_form, form) = ty.forms_of_pair(old, new);
    let mut delta = in_form(form, old, new);
    if let Some(other_form) = other_form {
        delta.join(in_form(other_form, old, new));
    }
    // A container that came or went is a difference itself, beside what is in it.
    delta.added.member |= old.is_none();
    delta.removed.member |= new.is_none();
    delta
}

fn in_form(form: Form<'_>, old: Option<&Value>, new: Option<&Value>) -> Delta {
    match form {
        Form::Scalar(_) => Delta::leaf(old, new),
        Form::Map(map) => {
            let (old_fields, new_fields) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
            if map.atomic || [old_fields, new_fields].into_iter().flatten().all(Map::is_empty) {
                return Delta::leaf(old, new);
            }
            maps(map, old_fields, new_fields)
        }
        Form::List(list) => {
            let (old_items, new_items) = (items_of(old), items_of(new));
            if list.is_atomic() || (old_items.is_empty() && new_items.is_empty()) {
                return Delta::leaf(old, new);
            }
            match (list.grouped(old_items), list.grouped(new_items)) {
                (Some(old_groups), Some(new_groups)) => lists(list, &old_groups, &new_groups),
                _ => Delta::leaf(old, new),
            }
        }
    }
}

/// The items of a list, none where there is no list.
pub(super) fn items_of(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn maps(ty: MapType<'_>, old: Option<&Map<String, Value>>, new: Option<&Map<String, Value>>) -> Delta {
    let names: BTreeSet<&String> = [old, new].into_iter().flatten().flat_map(Map::keys).collect();
    let mut delta = Delta::default();
    for name in names {
        let (old, new) = (
            old.and_then(|fields| fields.get(name)),
            new.and_then(|fields| fields.get(name)),
        );
        delta.graft(PathElement::field(name), places(ty.field_or_deduced(name), old, new));
    }
    delta
}

type Groups<'v> = BTreeMap<PathElement, Vec<&'v Value>>;

fn lists(ty: ListType<'_>, old: &Groups<'_>, new: &Groups<'_>) -> Delta {
    let mut delta = Delta::default();
    let elements: BTreeSet<&PathElement> = old.keys().chain(new.keys()).collect();
    for element in elements {
        let old = old.get(element).map_or(&[][..], Vec::as_slice);
        let new = new.get(element).map_or(&[][..], Vec::as_slice);
        delta.graft(element.clone(), items(ty.items(), old, new));
    }
    delta
}

/// Compares the items that have one identity in the two lists: mostly one each.
fn items(ty: Type<'_>, old: &[&Value], new: &[&Value]) -> Delta {
    // Items that share an identity are one value together, which comes and goes as a whole.
    let mut delta = match (old, new) {
        ([] | [_], [] | [_]) => return places(ty, old.first().copied(), new.first().copied()),
        ([only], _) => places(ty, Some(only), None),
        (_, [only]) => places(ty, None, Some(only)),
        _ => Delta::default(),
    };
    match (old.len() > 1, new.len() > 1) {
        (true, true) => {
            let same = old.len() == new.len() && old.iter().zip(new).all(|(old, new)| json_order::equal(old, new));
            delta.modified.member = !same;
        }
        (true, false) => delta.removed.member = true,
        _ => delta.added.member = true,
    }
    delta
}
