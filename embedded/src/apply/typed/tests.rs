#![allow(clippy::unwrap_used)]
use super::*;
use crate::apply::field_set::FieldSet;
use serde_json::{Value, json};

fn schema() -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "name": {"type": "string"},
            "any": {"x-kubernetes-int-or-string": true},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "old": {
                "type": "array",
                "x-kubernetes-patch-strategy": "merge",
                "x-kubernetes-patch-merge-key": "key",
                "items": {"type": "object", "properties": {"key": {"type": "string"}, "value": {"type": "string"}}},
            },
            "embedded": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
            "half": {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"sub": {"type": "object", "properties": {"known": {"type": "string"}}}},
            },
            "reference": {"$ref": "#/components/schemas/io.k8s.api.core.v1.Elsewhere"},
        }},
    }})
}

fn object(spec: Value) -> Value {
    json!({"spec": spec})
}

fn fields(spec: Value) -> Value {
    let schema = schema();
    field_set(Type::resource(&schema), &object(spec)).encode()["f:spec"].clone()
}

#[test]
fn fields_follow_the_schema() {
    assert_eq!(
        fields(json!({"name": "a", "any": 1})),
        json!({"f:any": {}, "f:name": {}})
    );
    assert_eq!(fields(json!({"set": ["a"]})), json!({"f:set": {"v:\"a\"": {}}}));
    assert_eq!(
        fields(json!({"old": [{"key": "k", "value": "v"}]})),
        json!({"f:old": {"k:{\"key\":\"k\"}": {".": {}, "f:key": {}, "f:value": {}}}})
    );
    assert_eq!(
        fields(json!({"half": {"sub": {"known": "a", "more": 1}}})),
        json!({"f:half": {"f:sub": {"f:known": {}, "f:more": {}}}})
    );
    assert_eq!(
        fields(json!({"reference": {"a": [1]}})),
        json!({"f:reference": {"f:a": {}}})
    );
    assert_eq!(
        fields(json!({"embedded": {"apiVersion": "v1", "metadata": {"labels": {"a": "b"}, "finalizers": ["f"]}}})),
        json!({"f:embedded": {"f:apiVersion": {}, "f:metadata": {"f:finalizers": {"v:\"f\"": {}}, "f:labels": {"f:a": {}}}}})
    );
}

#[test]
fn duplicates_in_a_set_are_owned_as_one() {
    assert_eq!(
        fields(json!({"set": ["a", "b", "a"]})),
        json!({"f:set": {"v:\"a\"": {}, "v:\"b\"": {}}})
    );
}

#[test]
fn a_list_whose_items_have_no_identity_is_one_value() {
    assert_eq!(fields(json!({"old": [{"value": "v"}]})), json!({"f:old": {}}));
    let schema = schema();
    let ty = Type::resource(&schema);
    let (old, new) = (
        object(json!({"old": [{"value": "v"}]})),
        object(json!({"old": [{"key": "k"}]})),
    );
    assert_eq!(
        compare(ty, &old, &new).modified.encode(),
        json!({"f:spec": {"f:old": {}}})
    );
    assert_eq!(merge(ty, &old, &new), new);
}

fn compared(old: Value, new: Value) -> (Value, Value, Value) {
    let schema = schema();
    let comparison = compare(Type::resource(&schema), &object(old), &object(new));
    let below_spec = |set: &FieldSet| set.encode().get("f:spec").cloned().unwrap_or_default();
    (
        below_spec(&comparison.added),
        below_spec(&comparison.modified),
        below_spec(&comparison.removed),
    )
}

#[test]
fn comparing_tells_added_modified_and_removed_apart() {
    assert_eq!(
        compared(
            json!({"name": "a", "set": ["x", "y"]}),
            json!({"name": "b", "set": ["y", "z"], "half": {"p": 1}})
        ),
        (
            json!({"f:half": {".": {}, "f:p": {}}, "f:set": {"v:\"z\"": {}}}),
            json!({"f:name": {}}),
            json!({"f:set": {"v:\"x\"": {}}})
        )
    );
    let nothing = (Value::Null, Value::Null, Value::Null);
    assert_eq!(
        compared(
            json!({"any": 1, "set": ["x", "y"]}),
            json!({"any": 1.0, "set": ["y", "x"]})
        ),
        nothing
    );
}

#[test]
fn a_value_of_another_form_is_modified() {
    let (added, modified, removed) = compared(json!({"half": {"p": {"q": 1}}}), json!({"half": {"p": "text"}}));
    assert_eq!(added, Value::Null);
    assert_eq!(modified, json!({"f:half": {"f:p": {}}}));
    assert_eq!(removed, json!({"f:half": {"f:p": {"f:q": {}}}}));
}

#[test]
fn duplicates_come_and_go_as_one_value() {
    let (added, modified, removed) = compared(json!({"set": ["a"]}), json!({"set": ["a", "a"]}));
    assert_eq!((added, modified), (json!({"f:set": {"v:\"a\"": {}}}), Value::Null));
    assert_eq!(removed, json!({"f:set": {"v:\"a\"": {}}}));
    let nothing = (Value::Null, Value::Null, Value::Null);
    assert_eq!(
        compared(json!({"set": ["a", "a"]}), json!({"set": ["a", "a"]})),
        nothing
    );
    let (_, modified, _) = compared(json!({"set": ["a", "a"]}), json!({"set": ["a", "a", "a"]}));
    assert_eq!(modified, json!({"f:set": {"v:\"a\"": {}}}));
}

#[test]
fn removing_takes_fields_and_items() {
    let schema = schema();
    let ty = Type::resource(&schema);
    let value = object(json!({"name": "a", "set": ["x", "y"], "old": [{"key": "k", "value": "v"}, {"key": "l"}]}));
    let gone = FieldSet::decode(&json!({"f:spec": {
        "f:name": {}, "f:set": {"v:\"x\"": {}}, "f:old": {"k:{\"key\":\"k\"}": {"f:value": {}}, "k:{\"key\":\"l\"}": {}},
    }}))
    .unwrap();
    assert_eq!(
        remove(ty, &value, &gone),
        object(json!({"set": ["y"], "old": [{"key": "k"}]}))
    );
    assert_eq!(remove(ty, &value, &FieldSet::default()), value);
}

#[test]
fn declared_containers_join_the_set_of_what_is_in_them() {
    let schema = schema();
    let ty = Type::resource(&schema);
    let set =
        FieldSet::decode(&json!({"f:spec": {"f:half": {"f:free": {"f:deep": {}}, "f:sub": {"f:known": {}}}}})).unwrap();
    assert_eq!(
        with_named_fields(ty, &set).encode(),
        json!({"f:spec": {".": {}, "f:half": {".": {}, "f:free": {"f:deep": {}}, "f:sub": {".": {}, "f:known": {}}}}})
    );
}
