#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

fn registry() -> Registry {
    let definition = json!({
        "metadata": {"name": "graphs.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "graphs", "kind": "Graph"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                "selectableFields": [{"jsonPath": ".spec.tier"}],
                "schema": {"openAPIV3Schema": {
                    "description": "A graph.", "type": "object", "required": ["spec"],
                    "properties": {"spec": {"type": "object", "properties": {
                        "tier": {"type": "string", "description": "Its tier."},
                        "replicas": {"type": "integer", "nullable": true},
                        "size": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
                    }}},
                }},
            }],
        },
    });
    Registry::builtin().with_crd(&definition).unwrap()
}

fn document(path: &str) -> Value {
    let document = Documents::new(&registry()).v3(path).unwrap();
    serde_json::from_slice(&document.body).unwrap()
}

/// Every `$ref` in a document.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get("$ref") {
                found.push(target.clone());
            }
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn the_index_addresses_documents_by_hash() {
    let documents = Documents::new(&registry());
    let index = documents.index();
    let paths = index["paths"].as_object().unwrap();
    assert!(
        paths.contains_key("api/v1") && paths.contains_key("apis/example.com/v1"),
        "{paths:?}"
    );
    for (path, entry) in paths {
        let document = documents.v3(path).unwrap();
        assert_eq!(document.hash.len(), 128);
        let expected = format!("/openapi/v3/{path}?hash={}", document.hash);
        assert_eq!(entry["serverRelativeURL"], expected);
    }
    assert!(documents.v3("apis/none.example.com/v1").is_none());
    let again = Documents::new(&registry());
    assert_eq!(again.index(), index, "the same kinds give the same hashes");
    assert_ne!(
        Documents::new(&Registry::builtin()).v2().hash,
        documents.v2().hash,
        "other kinds give others"
    );
}

#[test]
fn every_reference_leads_somewhere() {
    let documents = Documents::new(&registry());
    for path in documents.index()["paths"].as_object().unwrap().keys() {
        let body: Value = serde_json::from_slice(&documents.v3(path).unwrap().body).unwrap();
        let mut found = Vec::new();
        references(&body, &mut found);
        assert!(!found.is_empty());
        for target in found {
            let pointer = target.strip_prefix('#').unwrap();
            assert!(body.pointer(pointer).is_some(), "{path}: {target}");
        }
    }
    let v2: Value = serde_json::from_slice(&documents.v2().body).unwrap();
    let mut found = Vec::new();
    references(&v2, &mut found);
    for target in found {
        assert!(v2.pointer(target.strip_prefix('#').unwrap()).is_some(), "v2: {target}");
    }
    assert!(!v2.to_string().contains("\"nullable\":true"));
}

#[test]
fn kubectl_explain_finds_kind_and_fields() {
    let document = document("apis/example.com/v1");
    let listing = &document["paths"]["/apis/example.com/v1/namespaces/{namespace}/graphs"]["get"];
    let kind = json!({"group": "example.com", "version": "v1", "kind": "Graph"});
    assert_eq!(listing["x-kubernetes-group-version-kind"], kind);
    let schema = &document["components"]["schemas"]["com.example.v1.Graph"];
    assert_eq!(schema["x-kubernetes-group-version-kind"], json!([kind]));
    assert_eq!(schema["description"], "A graph.");
    assert_eq!(
        schema["properties"]["spec"]["properties"]["tier"]["description"],
        "Its tier."
    );
    assert_eq!(
        schema["properties"]["metadata"]["allOf"],
        json!([{"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}])
    );
    assert_eq!(
        schema["x-kubernetes-selectable-fields"],
        json!([{"fieldPath": "spec.tier"}])
    );
    let list = &document["components"]["schemas"]["com.example.v1.GraphList"];
    assert_eq!(list["x-kubernetes-group-version-kind"][0]["kind"], "GraphList");
}

#[test]
fn patch_operations_tell_kubectl_what_it_may_send() {
    let custom = document("apis/example.com/v1");
    let builtin = document("api/v1");
    let events = document("apis/events.k8s.io/v1");
    let cases = [
        (
            &custom,
            "/apis/example.com/v1/namespaces/{namespace}/graphs/{name}",
            false,
        ),
        (
            &custom,
            "/apis/example.com/v1/namespaces/{namespace}/graphs/{name}/status",
            false,
        ),
        (
            &custom,
            "/apis/example.com/v1/namespaces/{namespace}/graphs/{name}/scale",
            false,
        ),
        (&builtin, "/api/v1/namespaces/{namespace}/secrets/{name}", true),
        (&builtin, "/api/v1/namespaces/{name}", true),
        (
            &events,
            "/apis/events.k8s.io/v1/namespaces/{namespace}/events/{name}",
            true,
        ),
    ];
    for (document, path, strategic) in cases {
        let patch = &document["paths"][path]["patch"];
        let parameters: Vec<&str> = patch["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["name"].as_str().unwrap())
            .collect();
        for needed in ["fieldValidation", "fieldManager", "dryRun", "force"] {
            assert!(parameters.contains(&needed), "{path}: {needed}");
        }
        let types = patch["requestBody"]["content"].as_object().unwrap();
        assert!(types.contains_key("application/apply-patch+yaml"), "{path}");
        assert_eq!(
            types.contains_key("application/strategic-merge-patch+json"),
            strategic,
            "{path}"
        );
    }
}

#[test]
fn operation_ids_are_unique() {
    let documents = Documents::new(&registry());
    for path in documents.index()["paths"].as_object().unwrap().keys() {
        let body: Value = serde_json::from_slice(&documents.v3(path).unwrap().body).unwrap();
        let mut ids: Vec<String> = body["paths"]
            .as_object()
            .unwrap()
            .values()
            .flat_map(|item| item.as_object().unwrap().values())
            .filter_map(|operation| operation.get("operationId")?.as_str().map(str::to_owned))
            .collect();
        let all = ids.len();
        assert!(all > 0);
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), all, "{path}");
    }
}
