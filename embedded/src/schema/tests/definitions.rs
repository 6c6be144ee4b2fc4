//! Which schemas are structural, and what is said about those that are not.

use serde_json::{Value, json};

use super::with_x;
use crate::schema::Structural;

fn problems(schema: &Value) -> Vec<String> {
    match Structural::new(schema) {
        Ok(_) => Vec::new(),
        Err(causes) => causes.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn structural_schemas_are_accepted() {
    let x = [
        json!({"type": "string", "description": "d", "title": "t", "example": 1, "externalDocs": {"url": "u"}}),
        json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
        json!({"x-kubernetes-int-or-string": true, "allOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}]}, {"pattern": "x"}]}),
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
        json!({"x-kubernetes-preserve-unknown-fields": true}),
        json!({"type": "object", "additionalProperties": true}),
        json!({"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": {"type": "string"}}}),
        json!({"type": "object", "properties": {"a": {"type": "string"}}, "oneOf": [{"required": ["a"]}, {"properties": {"a": {"enum": [""]}}}]}),
        json!({"type": "array", "items": {"type": "object", "x-kubernetes-map-type": "atomic"}, "x-kubernetes-list-type": "set"}),
        json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
        json!({"type": "integer", "default": 3, "x-unknown-extension": {"a": 1}}),
    ];
    for x in x {
        assert_eq!(problems(&with_x(x.clone())), [] as [String; 0], "{x}");
    }
}

#[test]
fn other_schemas_are_refused_with_the_path_of_the_fault() {
    let x = "properties[spec].properties[x]";
    let cases = [
        (
            json!({}),
            ".type: Required value: must not be empty for specified object fields",
        ),
        (json!({"type": "array"}), ".items: Required value: must be specified"),
        (
            json!({"type": "array", "items": {}}),
            ".items.type: Required value: must not be empty for specified array items",
        ),
        (
            json!({"type": "null"}),
            ".type: Forbidden: type cannot be set to null, use nullable as an alternative",
        ),
        (
            json!({"type": "text"}),
            ".type: Unsupported value: \"text\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
        ),
        (
            json!({"type": ["string", "null"]}),
            ".type: Invalid value: [\"string\",\"null\"]: must be a string",
        ),
        (
            json!({"type": "string", "$ref": "#/x"}),
            ".$ref: Forbidden: $ref is not supported",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true}),
            ".uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
            ".additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        (
            json!({"type": "string", "minLength": -1}),
            ".minLength: Invalid value: -1: must be a non-negative integer",
        ),
        (
            json!({"type": "integer", "minimum": 0, "exclusiveMinimum": 0}),
            ".exclusiveMinimum: Invalid value: 0: must be a boolean",
        ),
        (
            json!({"type": "string", "pattern": "("}),
            ".pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: ",
        ),
        (
            json!({"type": "string", "anyOf": [{"type": "string"}]}),
            ".anyOf[0].type: Forbidden: must be empty to be structural",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "allOf": [{"properties": {"a": {"default": "x"}}}]}),
            ".allOf[0].properties[a].default: Forbidden: must be undefined to be structural",
        ),
        (
            json!({"type": "object", "not": {"properties": {"b": {"enum": [1]}}}}),
            ".properties[b]: Required value: because it is defined in properties[spec].properties[x].not.properties[b]",
        ),
        (
            json!({"type": "string", "x-kubernetes-preserve-unknown-fields": false}),
            ".x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined",
        ),
        (
            json!({"type": "string", "x-kubernetes-list-type": "set"}),
            ".type: Invalid value: \"string\": must be array if x-kubernetes-list-type is specified",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "bag"}),
            ".x-kubernetes-list-type: Unsupported value: \"bag\": supported values: \"atomic\", \"set\", \"map\"",
        ),
        (
            json!({"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}, "x-kubernetes-list-type": "set"}),
            ".items.x-kubernetes-map-type: Invalid value: null: must be atomic as item of a list with x-kubernetes-list-type=set",
        ),
        (
            json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map"}),
            ".x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
        ),
        (
            json!({"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}}}, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}),
            ".items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
        ),
        (
            json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}),
            ".x-kubernetes-list-map-keys: Invalid value: [\"k\"]: entries must all be names of item properties",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-map-keys": ["k"]}),
            ".x-kubernetes-list-type: Required value: must be map if x-kubernetes-list-map-keys is non-empty",
        ),
        (
            json!({"type": "string", "x-kubernetes-map-type": "granular"}),
            ".type: Invalid value: \"string\": must be object if x-kubernetes-map-type is specified",
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true}),
            ".properties: Required value: must not be empty if x-kubernetes-embedded-resource is true",
        ),
        (
            json!({"type": "integer", "default": "x"}),
            ".default: Invalid value: \"string\": ",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "default": {"b": 1}}),
            ".default: Invalid value: {\"b\":1}: must not have unknown fields",
        ),
    ];
    for (schema, expected) in cases {
        let found = problems(&with_x(schema.clone()));
        let expected = format!("{x}{expected}");
        assert!(
            found.iter().any(|problem| problem.starts_with(&expected)),
            "{schema}\nexpected {expected}\nfound {found:#?}"
        );
    }
}

#[test]
fn the_root_has_rules_of_its_own() {
    let cases = [
        (json!({}), "type: Required value: must not be empty at the root"),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            "type: Invalid value: \"array\": must be object at the root",
        ),
        (
            json!({"type": "object", "nullable": true}),
            "nullable: Forbidden: nullable cannot be true at the root",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            "additionalProperties: Forbidden: must not be used at the root",
        ),
        (
            json!({"type": "object", "properties": {"kind": {"type": "integer"}}}),
            "properties[kind].type: Invalid value: \"integer\": must be string",
        ),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
            "properties[metadata]: Forbidden: must not specify anything other than name and generateName",
        ),
        (
            json!({"type": "object", "properties": {"kind": {"type": "string", "default": "K"}}}),
            "properties[kind].default: Forbidden: must not be set in top-level",
        ),
        (json!("x"), "<nil>: Invalid value: \"x\": must be a schema object"),
        (
            json!({"type": "object", "properties": {"a": 3}}),
            "properties: Invalid value: {\"a\":3}: must be an object whose values are schema objects",
        ),
    ];
    for (schema, expected) in cases {
        let found = problems(&schema);
        assert!(
            found.iter().any(|problem| problem.starts_with(expected)),
            "{schema}\nexpected {expected}\nfound {found:#?}"
        );
    }
    let named = json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 3}}}}});
    assert_eq!(problems(&named), [] as [String; 0]);
    let structural = Structural::new(&named).unwrap();
    assert_eq!(
        structural.validate(&json!({"metadata": {"name": "long"}}), None).len(),
        1
    );
}

#[test]
fn bottomless_schemas_are_refused() {
    let mut schema = json!({"type": "string"});
    for _ in 0..80 {
        schema = json!({"type": "object", "properties": {"c": schema}});
    }
    let found = problems(&schema);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].ends_with("Forbidden: schemas may not be nested this deeply"));
}
