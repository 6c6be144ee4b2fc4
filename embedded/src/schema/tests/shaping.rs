//! Pruning and defaulting.

use serde_json::{Value, json};

use super::compiled;

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "spec": {"type": "object", "properties": {
                "name": {"type": "string"},
                "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "string"}}}},
                "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
                    "closed": {"type": "object", "properties": {"a": {"type": "string"}}},
                }},
                "any": {"type": "object", "additionalProperties": true},
                "ios": {"x-kubernetes-int-or-string": true},
                "template": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {
                    "spec": {"type": "object", "properties": {"a": {"type": "string"}}},
                }},
            }},
        },
    })
}

#[test]
fn unknown_fields_go_and_are_named() {
    let structural = compiled(&schema());
    let cases = [
        (
            json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "x", "odd": 1}, "spec": {"name": "a"}, "other": 1}),
            json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "x", "odd": 1}, "spec": {"name": "a"}}),
            vec!["other"],
        ),
        (
            json!({"spec": {"foo": 1, "list": [{"a": "", "b": 1}, {"c": {"d": 1}}]}}),
            json!({"spec": {"list": [{"a": ""}, {}]}}),
            vec!["spec.foo", "spec.list[0].b", "spec.list[1].c"],
        ),
        (
            json!({"spec": {"map": {"k": {"a": "", "b": 1}}, "metadata": {}}}),
            json!({"spec": {"map": {"k": {"a": ""}}}}),
            vec!["spec.map.k.b", "spec.metadata"],
        ),
        (
            json!({"spec": {"open": {"x": {"y": 1}, "closed": {"a": "", "b": 1}}, "any": {"x": {"y": [1]}}}}),
            json!({"spec": {"open": {"x": {"y": 1}, "closed": {"a": ""}}, "any": {"x": {"y": [1]}}}}),
            vec!["spec.open.closed.b"],
        ),
        (
            json!({"spec": {"template": {"apiVersion": "v1", "kind": "K", "metadata": {"labels": {}}, "spec": {"b": 1}, "x": 1}}}),
            json!({"spec": {"template": {"apiVersion": "v1", "kind": "K", "metadata": {"labels": {}}, "spec": {}}}}),
            vec!["spec.template.spec.b", "spec.template.x"],
        ),
        (
            json!({"spec": {"ios": {"a": 1}, "name": {"a": 1}}}),
            json!({"spec": {"ios": {}, "name": {}}}),
            vec!["spec.ios.a", "spec.name.a"],
        ),
        (json!("scalar"), json!("scalar"), vec![]),
    ];
    for (mut object, expected, paths) in cases {
        assert_eq!(structural.prune(&mut object), paths);
        assert_eq!(object, expected);
    }
}

#[test]
fn a_schema_that_preserves_everything_prunes_nothing() {
    let structural = compiled(&json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
    let mut object = json!({"a": {"b": [{"c": 1}]}});
    assert_eq!(structural.prune(&mut object), [] as [String; 0]);
    assert_eq!(object, json!({"a": {"b": [{"c": 1}]}}));
}

#[test]
fn defaults_fill_what_is_missing() {
    let structural = compiled(&json!({
        "type": "object",
        "properties": {
            "spec": {"type": "object", "default": {}, "properties": {
                "policy": {"type": "string", "default": "Snapshot"},
                "size": {"type": "integer"},
                "nullable": {"type": "string", "nullable": true, "default": "d"},
                "nested": {"type": "object", "properties": {"on": {"type": "boolean", "default": true}}},
                "list": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer", "default": 1}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"n": {"type": "integer", "default": 1}}}},
                "words": {"type": "array", "items": {"type": "string", "default": "w"}},
                "made": {"type": "object", "default": {"a": 1}, "properties": {"a": {"type": "integer"}, "b": {"type": "integer", "default": 2}}},
            }},
        },
    }));
    let made = json!({"a": 1, "b": 2});
    let cases = [
        (
            json!({}),
            json!({"spec": {"policy": "Snapshot", "nullable": "d", "made": made}}),
        ),
        (
            json!({"spec": {"policy": "Delete", "nullable": null, "made": {}, "nested": {}}}),
            json!({"spec": {"policy": "Delete", "nullable": null, "made": {"b": 2}, "nested": {"on": true}}}),
        ),
        (
            json!({"spec": {"policy": null, "size": null, "nested": null, "made": null}}),
            json!({"spec": {"policy": "Snapshot", "nullable": "d", "made": made}}),
        ),
        (
            json!({"spec": {"list": [{}, {"n": 5}], "map": {"k": {}}, "words": [null, "x"]}}),
            json!({"spec": {
                "policy": "Snapshot", "nullable": "d", "made": made,
                "list": [{"n": 1}, {"n": 5}], "map": {"k": {"n": 1}}, "words": ["w", "x"],
            }}),
        ),
        (json!([1]), json!([1])),
    ];
    for (mut object, expected) in cases {
        structural.default(&mut object);
        assert_eq!(object, expected);
    }
}
