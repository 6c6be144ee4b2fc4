#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::kinds::Registry;

fn now() -> Timestamp {
    "2026-07-24T10:00:00Z".parse().unwrap()
}

fn table(resource: &Resource, object: &Value) -> Value {
    table_at(
        resource,
        &[object],
        &json!({"resourceVersion": "7", "name": "x"}),
        IncludeObject::None,
        now(),
    )
}

fn headings(table: &Value, priority: i64) -> Vec<&str> {
    table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|column| column["priority"] == priority)
        .map(|column| column["name"].as_str().unwrap())
        .collect()
}

fn resource(columns: Value) -> Arc<Resource> {
    let definition = json!({
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
                "additionalPrinterColumns": columns,
            }],
        },
    });
    Registry::builtin()
        .with_crd(&definition)
        .unwrap()
        .lookup("example.com", "v1", "things")
        .unwrap()
}

#[test]
fn custom_columns_follow_the_name() {
    let resource = resource(json!([
        {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
        {"name": "Nodes", "type": "integer", "jsonPath": ".spec.nodes", "description": "How many", "format": "int32"},
        {"name": "Price", "type": "number", "jsonPath": ".spec.price"},
        {"name": "On", "type": "boolean", "jsonPath": ".spec.on"},
        {"name": "Zones", "type": "string", "jsonPath": ".spec.zones", "priority": 1},
        {"name": "Renewed", "type": "date", "jsonPath": ".status.renewed"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]));
    let object = json!({
        "metadata": {"name": "a", "creationTimestamp": "2026-07-22T09:00:00Z"},
        "spec": {"nodes": 3, "price": 0.5, "on": true, "zones": ["a", "b"]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "renewed": "2026-07-24T09:54:30Z"},
    });
    let full = table(&resource, &object);
    assert_eq!(full["kind"], "Table");
    assert_eq!(full["apiVersion"], "meta.k8s.io/v1");
    assert_eq!(full["metadata"], json!({"resourceVersion": "7"}));
    assert_eq!(
        headings(&full, 0),
        ["Name", "Ready", "Nodes", "Price", "On", "Renewed", "Age"]
    );
    assert_eq!(headings(&full, 1), ["Zones"]);
    assert_eq!(full["columnDefinitions"][2]["description"], "How many");
    assert_eq!(full["columnDefinitions"][2]["format"], "int32");
    assert_eq!(
        full["rows"],
        json!([{"cells": ["a", "True", 3, 0.5, true, "[\"a\",\"b\"]", "5m30s", "2d1h"]}])
    );

    let odd = json!({"metadata": {"name": "b"}, "spec": {"nodes": 2.9, "price": "x", "on": 1, "zones": null}, "status": {"renewed": 3}});
    assert_eq!(
        table(&resource, &odd)["rows"][0]["cells"],
        json!(["b", null, 2, null, null, null, "<invalid>", null])
    );
}

#[test]
fn without_columns_there_are_name_and_age() {
    let resource = resource(json!([]));
    let object = json!({"metadata": {"name": "a", "creationTimestamp": "2026-07-24T09:59:57Z"}});
    let table = table(&resource, &object);
    assert_eq!(headings(&table, 0), ["Name", "Age"]);
    assert_eq!(table["rows"], json!([{"cells": ["a", "3s"]}]));
}

#[test]
fn rows_carry_as_much_of_the_object_as_asked_for() {
    let resource = resource(json!([]));
    let object = Arc::new(json!({"kind": "Thing", "metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {"n": 1}}));
    let row = |include| table_at(&resource, &[Arc::clone(&object)], &json!({}), include, now())["rows"][0].clone();
    assert_eq!(row(IncludeObject::None).get("object"), None);
    assert_eq!(
        row(IncludeObject::Metadata)["object"],
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
    );
    assert_eq!(row(IncludeObject::Object)["object"], *object);
    assert_eq!(IncludeObject::parse("Object"), Some(IncludeObject::Object));
    assert_eq!(IncludeObject::parse(""), Some(IncludeObject::Metadata));
    assert_eq!(IncludeObject::parse("object"), None);
}

#[test]
fn built_in_kinds_show_what_kubectl_users_expect() {
    let registry = Registry::builtin();
    let created = "2026-07-24T09:00:00Z";
    let cases = [
        (
            ("", "namespaces"),
            json!({"metadata": {"name": "n", "creationTimestamp": created}, "status": {"phase": "Active"}}),
            vec!["Name", "Status", "Age"],
            json!(["n", "Active", "60m"]),
        ),
        (
            ("", "secrets"),
            json!({"metadata": {"name": "s", "creationTimestamp": created}, "type": "Opaque", "data": {"a": "", "b": ""}}),
            vec!["Name", "Type", "Data", "Age"],
            json!(["s", "Opaque", 2, "60m"]),
        ),
        (
            ("", "configmaps"),
            json!({"metadata": {"name": "c", "creationTimestamp": created}, "data": {"a": ""}, "binaryData": {"b": ""}}),
            vec!["Name", "Data", "Age"],
            json!(["c", 2, "60m"]),
        ),
        (
            ("coordination.k8s.io", "leases"),
            json!({"metadata": {"name": "l", "creationTimestamp": created}, "spec": {"holderIdentity": "me"}}),
            vec!["Name", "Holder", "Age"],
            json!(["l", "me", "60m"]),
        ),
        (
            ("apiextensions.k8s.io", "customresourcedefinitions"),
            json!({"metadata": {"name": "d", "creationTimestamp": created}}),
            vec!["Name", "Created At"],
            json!(["d", created]),
        ),
        (
            ("", "serviceaccounts"),
            json!({"metadata": {"name": "default", "creationTimestamp": created}}),
            vec!["Name", "Age"],
            json!(["default", "60m"]),
        ),
    ];
    for ((group, plural), object, columns, cells) in cases {
        let resource = registry.lookup(group, "v1", plural).unwrap();
        let table = table(&resource, &object);
        assert_eq!(headings(&table, 0), columns, "{plural}");
        assert_eq!(table["rows"][0]["cells"], cells, "{plural}");
    }
}

#[test]
fn both_versions_of_event_show_the_same() {
    let registry = Registry::builtin();
    let old = json!({
        "metadata": {"name": "e"}, "type": "Normal", "reason": "Placed", "message": "on node a", "count": 4,
        "involvedObject": {"kind": "Graph", "name": "g", "fieldPath": "spec"},
        "source": {"component": "operator", "host": "h"},
        "firstTimestamp": "2026-07-24T08:00:00Z", "lastTimestamp": "2026-07-24T09:59:00Z",
    });
    let new = json!({
        "metadata": {"name": "e"}, "type": "Normal", "reason": "Placed", "note": "on node a",
        "regarding": {"kind": "Graph", "name": "g", "fieldPath": "spec"},
        "reportingController": "operator", "reportingInstance": "h", "eventTime": "2026-07-24T08:00:00.000000Z",
        "series": {"count": 4, "lastObservedTime": "2026-07-24T09:59:00.000000Z"},
    });
    for (group, event) in [("", old), ("events.k8s.io", new)] {
        let table = table(&registry.lookup(group, "v1", "events").unwrap(), &event);
        assert_eq!(
            headings(&table, 0),
            ["Last Seen", "Type", "Reason", "Object", "Message"]
        );
        assert_eq!(
            headings(&table, 1),
            ["Subobject", "Source", "First Seen", "Count", "Name"]
        );
        assert_eq!(
            table["rows"][0]["cells"],
            json!([
                "60s",
                "Normal",
                "Placed",
                "graph/g",
                "spec",
                "operator, h",
                "on node a",
                "120m",
                4,
                "e"
            ])
        );
    }
    let bare = table(
        &registry.lookup("", "v1", "events").unwrap(),
        &json!({"metadata": {"name": "e"}}),
    );
    assert_eq!(
        bare["rows"][0]["cells"],
        json!(["<unknown>", null, null, "", null, "", null, "<unknown>", 1, "e"])
    );
}
