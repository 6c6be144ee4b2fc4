//! What the schema engine accepts, refuses and changes, keyword by keyword.

#![allow(clippy::unwrap_used)]

mod cel;
mod definitions;
mod keywords;
mod properties;
mod shaping;

use serde_json::{Value, json};

use super::Structural;

/// A schema whose `spec.x` has this schema.
fn with_x(x: Value) -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"x": x}}}})
}

fn compiled(schema: &Value) -> Structural {
    Structural::new(schema).unwrap_or_else(|causes| panic!("{schema}: {causes:#?}"))
}

/// The complaints about `spec.x` having this value.
fn about_x(schema: &Structural, x: &Value) -> Vec<String> {
    let object = json!({"spec": {"x": x}});
    schema.validate(&object, None).iter().map(ToString::to_string).collect()
}
