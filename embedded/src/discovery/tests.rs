#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

fn registry() -> Registry {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
    }});
    let version = |name: &str, storage: bool, scale: bool| {
        let mut subresources = json!({"status": {}});
        if scale {
            subresources["scale"] =
                json!({"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"});
        }
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema}, "subresources": subresources})
    };
    let graphs = json!({
        "metadata": {"name": "graphs.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "graphs", "kind": "Graph", "shortNames": ["gr"], "categories": ["all"]},
            "versions": [version("v1beta1", false, false), version("v1", true, true)],
        },
    });
    let tiers = json!({
        "metadata": {"name": "tiers.example.com"},
        "spec": {
            "group": "example.com", "scope": "Cluster", "names": {"plural": "tiers", "kind": "Tier"},
            "versions": [version("v1", true, false)],
        },
    });
    Registry::builtin().with_crd(&graphs).unwrap().with_crd(&tiers).unwrap()
}

fn named<'v>(list: &'v Value, key: &str, name: &str) -> &'v Value {
    list.as_array()
        .unwrap()
        .iter()
        .find(|entry| entry[key] == name)
        .unwrap_or_else(|| panic!("{name} is missing"))
}

#[test]
fn classic_discovery_lists_groups_and_resources() {
    let registry = registry();
    assert_eq!(core_versions("127.0.0.1:6443")["versions"], json!(["v1"]));
    let groups = group_list(&registry);
    let names: Vec<&str> = groups["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|g| g["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "apiextensions.k8s.io",
            "authentication.k8s.io",
            "authorization.k8s.io",
            "coordination.k8s.io",
            "events.k8s.io",
            "example.com"
        ]
    );
    let own = group(&registry, "example.com").unwrap();
    assert_eq!(own["kind"], "APIGroup");
    assert_eq!(
        own["preferredVersion"],
        json!({"groupVersion": "example.com/v1", "version": "v1"})
    );
    assert_eq!(own["versions"][1]["version"], "v1beta1");
    assert_eq!(group(&registry, "none.example.com"), None);
    assert_eq!(group(&registry, ""), None);

    let list = resource_list(&registry, "example.com", "v1").unwrap();
    assert_eq!(list["groupVersion"], "example.com/v1");
    let graphs = named(&list["resources"], "name", "graphs");
    assert_eq!(graphs["shortNames"], json!(["gr"]));
    assert_eq!(graphs["categories"], json!(["all"]));
    assert_eq!(graphs["namespaced"], true);
    assert_eq!(graphs["singularName"], "graph");
    assert!(graphs["verbs"].as_array().unwrap().contains(&json!("watch")));
    assert_eq!(graphs["storageVersionHash"].as_str().unwrap().len(), 12);
    let status = named(&list["resources"], "name", "graphs/status");
    assert_eq!((&status["kind"], status.get("group")), (&json!("Graph"), None));
    let scale = named(&list["resources"], "name", "graphs/scale");
    assert_eq!(
        (&scale["group"], &scale["version"], &scale["kind"]),
        (&json!("autoscaling"), &json!("v1"), &json!("Scale"))
    );
    assert_eq!(named(&list["resources"], "name", "tiers")["namespaced"], false);

    let old = resource_list(&registry, "example.com", "v1beta1").unwrap();
    assert_eq!(
        old["resources"].as_array().unwrap().len(),
        2,
        "graphs and graphs/status"
    );
    assert_eq!(resource_list(&registry, "example.com", "v2"), None);
    let core = resource_list(&registry, "", "v1").unwrap();
    assert_eq!(core["groupVersion"], "v1");
    assert_eq!(
        named(&core["resources"], "name", "namespaces/finalize")["verbs"],
        json!(["update"])
    );
}

#[test]
fn aggregated_discovery_says_the_same() {
    let registry = registry();
    let core = aggregated_core(&registry);
    assert_eq!(core["apiVersion"], "apidiscovery.k8s.io/v2");
    assert_eq!(core["items"].as_array().unwrap().len(), 1);
    assert_eq!(core["items"][0]["metadata"], json!({}));
    let groups = aggregated_groups(&registry);
    let example = groups["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|group| group["metadata"]["name"] == "example.com")
        .unwrap();
    assert_eq!(example["versions"][0]["version"], "v1");
    assert_eq!(example["versions"][0]["freshness"], "Current");
    let graphs = named(&example["versions"][0]["resources"], "resource", "graphs");
    assert_eq!(graphs["scope"], "Namespaced");
    assert_eq!(
        graphs["responseKind"],
        json!({"group": "example.com", "version": "v1", "kind": "Graph"})
    );
    let scale = named(&graphs["subresources"], "subresource", "scale");
    assert_eq!(
        scale["responseKind"],
        json!({"group": "autoscaling", "version": "v1", "kind": "Scale"})
    );
    // Every classic entry has its aggregated one.
    for item in groups["items"].as_array().unwrap() {
        let group = item["metadata"]["name"].as_str().unwrap();
        for version in item["versions"].as_array().unwrap() {
            let name = version["version"].as_str().unwrap();
            let classic = resource_list(&registry, group, name).unwrap();
            let classic = classic["resources"].as_array().unwrap().len();
            let aggregated: usize = version["resources"]
                .as_array()
                .unwrap()
                .iter()
                .map(|resource| 1 + resource["subresources"].as_array().map_or(0, Vec::len))
                .sum();
            assert_eq!(aggregated, classic, "{group}/{name}");
        }
    }
}

#[test]
fn discovered_reviews_are_answered() {
    for (group, version, name, kind) in REVIEWS {
        assert_eq!(crate::auth::review_kind(group, version, name), Some(kind));
    }
}

#[test]
fn storage_hashes_differ_by_kind() {
    let registry = registry();
    let mut hashes: Vec<String> = registry
        .resources()
        .map(|resource| storage_version_hash(resource))
        .collect();
    let all = hashes.len();
    hashes.sort();
    hashes.dedup();
    // Two versions of graphs share one stored form.
    assert_eq!(hashes.len(), all - 1);
}
