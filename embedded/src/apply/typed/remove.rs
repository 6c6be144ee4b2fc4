//! Taking fields out of an object.

use super::schema::{Form, Type};
use crate::apply::{field_set::FieldSet, path::PathElement};
use serde_json::{Map, Value};

/// The object without the given fields and items. A container of which nothing is left becomes null, so that its owner
/// can tell it from one that was never there.
pub(crate) fn remove(ty: Type<'_>, value: &Value, fields: &FieldSet) -> Value {
    match (ty.form(value), value) {
        (Form::Scalar(_), scalar) => scalar.clone(),
        (Form::Map(map), Value::Object(content)) if !map.atomic => {
            let mut out = Map::new();
            for (name, value) in content {
                let element = PathElement::field(name);
                if fields.has(&element) {
                    continue;
                }
                let kept = match fields.below(&element) {
                    Some(below) => remove(map.field_or_deduced(name), value, below),
                    None => value.clone(),
                };
                out.insert(name.clone(), kept);
            }
            if out.is_empty() {
                Value::Null
            } else {
                Value::Object(out)
            }
        }
        (Form::List(list), Value::Array(items)) if !list.is_atomic() => {
            let mut out = Vec::new();
            for item in items {
                // An item without identity cannot be named by any field, so it stays.
                let element = list.element(item).ok();
                if element.as_ref().is_some_and(|element| fields.has(element)) {
                    continue;
                }
                out.push(match element.as_ref().and_then(|element| fields.below(element)) {
                    Some(below) => remove(list.items(), item, below),
                    None => item.clone(),
                });
            }
            if out.is_empty() { Value::Null } else { Value::Array(out) }
        }
        // One value, and something in it is to go: all of it goes.
        _ => Value::Null,
    }
}
