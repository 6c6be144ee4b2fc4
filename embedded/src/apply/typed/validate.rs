//! Whether an applied configuration can be merged at all.

use super::schema::{Form, ListType, MapType, Scalar, Type};
use crate::apply::{go_text, path::PathElement};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// What in an object does not fit its schema as far as merging is concerned: fields that are not declared, values of
/// the wrong form, list items without identity and identities that occur twice. The messages name the field.
pub(crate) fn validate(ty: Type<'_>, object: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    Validation {
        path: String::new(),
        errors: &mut errors,
    }
    .value(ty, object);
    errors
}

/// Several messages as one text.
pub(crate) fn joined(errors: &[String]) -> String {
    match errors {
        [only] => only.clone(),
        several => format!("errors:\n  {}", several.join("\n  ")),
    }
}

struct Validation<'e> {
    path: String,
    errors: &'e mut Vec<String>,
}

impl Validation<'_> {
    fn error(&mut self, message: &str) {
        let separator = if self.path.is_empty() { "" } else { ": " };
        self.errors.push(format!("{}{separator}{message}", self.path));
    }

    fn below(&mut self, element: &PathElement, visit: impl FnOnce(&mut Validation<'_>)) {
        let path = format!("{}{element}", self.path);
        visit(&mut Validation {
            path,
            errors: self.errors,
        });
    }

    fn value(&mut self, ty: Type<'_>, value: &Value) {
        match (ty.form(value), value) {
            (_, Value::Null) => {}
            (Form::Scalar(scalar), value) => self.scalar(scalar, value),
            (Form::Map(map), Value::Object(fields)) => self.map(map, fields),
            (Form::List(list), Value::Array(items)) => self.list(list, items),
            (Form::Map(_), value) => self.error(&format!("expected map, got &{{{}}}", go_text::plain(value))),
            (Form::List(_), value) => self.error(&format!("expected list, got &{{{}}}", go_text::plain(value))),
        }
    }

    fn scalar(&mut self, expected: Scalar, value: &Value) {
        match (expected, value) {
            (Scalar::Numeric, Value::Number(_))
            | (Scalar::String, Value::String(_))
            | (Scalar::Boolean, Value::Bool(_))
            | (Scalar::Any, Value::Number(_) | Value::String(_) | Value::Bool(_)) => {}
            (Scalar::Numeric, value) => {
                self.error(&format!(
                    "expected numeric (int or float), got {}",
                    go_text::type_name(value)
                ));
            }
            (Scalar::String, value) => {
                self.error(&format!(
                    "expected string, got &value.valueUnstructured{{Value:{}}}",
                    go_text::syntax(value)
                ));
            }
            (Scalar::Boolean, value) => self.error(&format!("expected boolean, got &{{{}}}", go_text::plain(value))),
            (Scalar::Any, value) => self.error(&format!("expected any scalar, got &{{{}}}", go_text::plain(value))),
        }
    }

    fn map(&mut self, ty: MapType<'_>, fields: &Map<String, Value>) {
        for (name, value) in fields {
            self.below(&PathElement::field(name), |below| match ty.field(name) {
                Some(ty) => below.value(ty, value),
                None => below.error("field not declared in schema"),
            });
        }
    }

    fn list(&mut self, ty: ListType<'_>, items: &[Value]) {
        let mut seen = BTreeSet::new();
        for (position, item) in items.iter().enumerate() {
            let element = if ty.is_atomic() {
                PathElement::Index(i64::try_from(position).unwrap_or(i64::MAX))
            } else {
                match ty.element(item) {
                    Ok(element) => element,
                    Err(reason) => return self.error(&format!("element {position}: {reason}")),
                }
            };
            if !seen.insert(element.clone()) {
                self.error(&format!("duplicate entries for key {element}"));
            }
            self.below(&element, |below| below.value(ty.items(), item));
        }
    }
}
