//! The types of what every object has, whatever its schema says.

use serde_json::{Value, json};
use std::sync::LazyLock;

/// The type of `apiVersion` and `kind`.
pub(super) static STRING: LazyLock<Value> = LazyLock::new(|| json!({"type": "string"}));

/// How Kubernetes merges `metadata`. A CRD cannot change it, and its schema does not contain it.
pub(super) static OBJECT_META: LazyLock<Value> = LazyLock::new(|| {
    let text = json!({"type": "string"});
    let number = json!({"type": "integer"});
    let dictionary = json!({"type": "object", "additionalProperties": text});
    json!({"type": "object", "properties": {
        "annotations": dictionary,
        "creationTimestamp": text,
        "deletionGracePeriodSeconds": number,
        "deletionTimestamp": text,
        "finalizers": {"type": "array", "items": text, "x-kubernetes-list-type": "set"},
        "generateName": text,
        "generation": number,
        "labels": dictionary,
        "managedFields": {"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "atomic"},
        "name": text,
        "namespace": text,
        "ownerReferences": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["uid"],
            "items": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {
                "apiVersion": text,
                "blockOwnerDeletion": {"type": "boolean"},
                "controller": {"type": "boolean"},
                "kind": text,
                "name": text,
                "uid": text,
            }},
        },
        "resourceVersion": text,
        "selfLink": text,
        "uid": text,
    }})
});
