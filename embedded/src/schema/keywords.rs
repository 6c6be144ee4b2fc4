//! The JSON type of every keyword, so that the code behind may take them as given.

use serde_json::{Map, Value};

use super::path::Path;
use crate::status::Cause;

/// What a keyword's value has to be.
#[derive(Clone, Copy)]
enum Shape {
    Text,
    Flag,
    /// A non-negative integer.
    Count,
    Number,
    Texts,
    List,
    Schema,
    Schemas,
    SchemaMap,
    SchemaOrFlag,
    Any,
}

const KEYWORDS: [(&str, Shape); 43] = [
    ("$schema", Shape::Text),
    ("additionalProperties", Shape::SchemaOrFlag),
    ("allOf", Shape::Schemas),
    ("anyOf", Shape::Schemas),
    ("default", Shape::Any),
    ("description", Shape::Text),
    ("enum", Shape::List),
    ("example", Shape::Any),
    ("exclusiveMaximum", Shape::Flag),
    ("exclusiveMinimum", Shape::Flag),
    ("externalDocs", Shape::Any),
    ("format", Shape::Text),
    ("items", Shape::Schema),
    ("maxItems", Shape::Count),
    ("maxLength", Shape::Count),
    ("maxProperties", Shape::Count),
    ("maximum", Shape::Number),
    ("minItems", Shape::Count),
    ("minLength", Shape::Count),
    ("minProperties", Shape::Count),
    ("minimum", Shape::Number),
    ("multipleOf", Shape::Number),
    ("not", Shape::Schema),
    ("nullable", Shape::Flag),
    ("oneOf", Shape::Schemas),
    ("pattern", Shape::Text),
    ("properties", Shape::SchemaMap),
    ("required", Shape::Texts),
    ("title", Shape::Text),
    ("type", Shape::Text),
    ("uniqueItems", Shape::Flag),
    ("x-kubernetes-embedded-resource", Shape::Flag),
    ("x-kubernetes-int-or-string", Shape::Flag),
    ("x-kubernetes-list-map-keys", Shape::Texts),
    ("x-kubernetes-list-type", Shape::Text),
    ("x-kubernetes-map-type", Shape::Text),
    ("x-kubernetes-preserve-unknown-fields", Shape::Flag),
    ("x-kubernetes-validations", Shape::List),
    // Known and refused elsewhere with a better message.
    ("$ref", Shape::Any),
    ("additionalItems", Shape::Any),
    ("definitions", Shape::Any),
    ("dependencies", Shape::Any),
    ("patternProperties", Shape::Any),
];

/// Checks the keywords of one schema, not of those below it. `None` when there is nothing to go on with; what is wrong is
/// then in `causes`. Unknown keywords are ignored, as kube-apiserver ignores them.
pub(super) fn check<'v>(schema: &'v Value, path: &Path<'_>, causes: &mut Vec<Cause>) -> Option<&'v Map<String, Value>> {
    let Value::Object(map) = schema else {
        causes.push(Cause::type_invalid(path, schema, "must be a schema object"));
        return None;
    };
    let before = causes.len();
    for (keyword, value) in map {
        let Some((_, shape)) = KEYWORDS.iter().find(|(name, _)| name == keyword) else {
            continue;
        };
        if let Some(wanted) = mismatch(*shape, value) {
            let detail = format!("must be {wanted}");
            causes.push(Cause::type_invalid(&path.field(keyword), value, &detail));
        }
    }
    (causes.len() == before).then_some(map)
}

/// What the value should have been, if it is not.
fn mismatch(shape: Shape, value: &Value) -> Option<&'static str> {
    let all = |value: &Value, test: fn(&Value) -> bool| value.as_array().is_some_and(|list| list.iter().all(test));
    let (fits, wanted) = match shape {
        Shape::Any => (true, ""),
        Shape::Text => (value.is_string(), "a string"),
        Shape::Flag => (value.is_boolean(), "a boolean"),
        Shape::Count => (value.is_u64(), "a non-negative integer"),
        Shape::Number => (value.is_number(), "a number"),
        Shape::Texts => (all(value, Value::is_string), "a list of strings"),
        Shape::List => (value.is_array(), "a list"),
        Shape::Schema => (value.is_object(), "a schema object"),
        Shape::Schemas => (all(value, Value::is_object), "a list of schema objects"),
        Shape::SchemaMap => (
            value.as_object().is_some_and(|map| map.values().all(Value::is_object)),
            "an object whose values are schema objects",
        ),
        Shape::SchemaOrFlag => (value.is_object() || value.is_boolean(), "a schema object or a boolean"),
    };
    (!fits).then_some(wanted)
}
