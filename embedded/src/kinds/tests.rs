#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "graphs.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "graphs", "singular": "graph", "kind": "Graph", "listKind": "GraphList", "shortNames": ["gr"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"tier": {"type": "string"}, "size": {"type": "number"}}},
                }}},
            }],
        },
    })
}

/// The definition with one change.
fn changed(pointer: &str, value: Value) -> Value {
    let mut definition = definition();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = definition.pointer_mut(parent).unwrap();
    match parent {
        Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
        other => other[key] = value,
    }
    definition
}

fn problems(definition: &Value) -> Vec<String> {
    match Registry::builtin().with_crd(definition) {
        Ok(_) => Vec::new(),
        Err(causes) => causes.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn every_built_in_kind_is_there_with_a_structural_schema() {
    let registry = Registry::builtin();
    let mut names: Vec<String> = registry
        .resources()
        .map(|resource| format!("{} {}", resource.api_version(), resource.kind))
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "apiextensions.k8s.io/v1 CustomResourceDefinition",
            "coordination.k8s.io/v1 Lease",
            "events.k8s.io/v1 Event",
            "v1 ConfigMap",
            "v1 Event",
            "v1 Namespace",
            "v1 Secret",
            "v1 ServiceAccount",
        ]
    );
    for resource in registry.resources() {
        assert!(resource.builtin);
        assert!(resource.schema["properties"].is_object(), "{}", resource.kind);
        assert!(schema::Structural::new(&resource.schema).is_ok(), "{}", resource.kind);
    }
    let service_account = registry.lookup("", "v1", "serviceaccounts").unwrap();
    assert_eq!(
        service_account.schema["properties"]["secrets"]["x-kubernetes-list-map-keys"],
        json!(["name"]),
        "the changes to generated schemas reach their places"
    );
    let crd = registry
        .lookup("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        .unwrap();
    let pointer = "/properties/spec/properties/versions/items/properties/schema/properties/openAPIV3Schema";
    assert_eq!(
        crd.schema.pointer(pointer).unwrap()["x-kubernetes-preserve-unknown-fields"],
        true
    );
    assert_eq!(
        crd.schema["properties"]["status"]["properties"]["conditions"]["x-kubernetes-list-type"],
        "map"
    );
}

#[test]
fn names_of_resources() {
    let registry = Registry::builtin().with_crd(&definition()).unwrap();
    let graph = registry.lookup("example.com", "v1", "graphs").unwrap();
    assert_eq!(graph.api_version(), "example.com/v1");
    assert_eq!(graph.group_resource(), "graphs.example.com");
    assert_eq!(graph.base_path(), "/apis/example.com/v1/graphs");
    assert_eq!(graph.gvk(), GroupVersionKind::gvk("example.com", "v1", "Graph"));
    let secret = registry.lookup_kind("", "v1", "Secret").unwrap();
    assert_eq!(secret.api_version(), "v1");
    assert_eq!(secret.group_resource(), "secrets");
    assert_eq!(secret.base_path(), "/api/v1/secrets");
    assert!(registry.lookup("example.com", "v2", "graphs").is_none());
    assert!(registry.lookup("", "v1", "graphs").is_none());
    assert!(registry.lookup_kind("example.com", "v1", "Node").is_none());
}

#[test]
fn definitions_come_and_go_without_touching_other_snapshots() {
    let before = Registry::builtin();
    let with = before.with_crd(&definition()).unwrap();
    assert!(before.lookup("example.com", "v1", "graphs").is_none());
    let changed = changed("/spec/names/shortNames", json!(["g"]));
    let updated = with.with_crd(&changed).unwrap();
    assert_eq!(
        updated.lookup("example.com", "v1", "graphs").unwrap().short_names,
        ["g"]
    );
    assert_eq!(with.lookup("example.com", "v1", "graphs").unwrap().short_names, ["gr"]);
    let without = updated.without("example.com", "graphs");
    assert!(without.lookup("example.com", "v1", "graphs").is_none());
    assert!(
        without.without("", "secrets").lookup("", "v1", "secrets").is_some(),
        "built-in kinds stay"
    );
}

#[test]
fn versions_share_names_and_prefer_the_stable_one() {
    let version = definition()["spec"]["versions"][0].clone();
    let mut alpha = version.clone();
    alpha["name"] = json!("v1alpha1");
    alpha["storage"] = json!(false);
    alpha["deprecated"] = json!(true);
    let mut hidden = alpha.clone();
    hidden["name"] = json!("v0");
    hidden["served"] = json!(false);
    let definition = changed("/spec/versions", json!([alpha, hidden, version]));
    let registry = Registry::builtin().with_crd(&definition).unwrap();
    assert_eq!(registry.groups()["example.com"], ["v1", "v1alpha1"]);
    assert!(registry.lookup("example.com", "v0", "graphs").is_none());
    let alpha = registry.lookup("example.com", "v1alpha1", "graphs").unwrap();
    assert_eq!(alpha.storage_version, "v1");
    assert_eq!(
        alpha.deprecation.as_deref(),
        Some("example.com/v1alpha1 Graph is deprecated")
    );
    assert_eq!(
        registry.lookup("example.com", "v1", "graphs").unwrap().deprecation,
        None
    );
}

#[test]
fn defaults_of_names_are_filled_in() {
    let definition = changed("/spec/names", json!({"plural": "graphs", "kind": "Graph"}));
    let registry = Registry::builtin().with_crd(&definition).unwrap();
    let graph = registry.lookup("example.com", "v1", "graphs").unwrap();
    assert_eq!(
        (graph.singular.as_str(), graph.list_kind.as_str()),
        ("graph", "GraphList")
    );
}

#[test]
fn wrong_definitions_are_refused_with_the_path_of_the_fault() {
    let columns = "/spec/versions/0/additionalPrinterColumns";
    let version = "/spec/versions/0";
    let cases = [
        (changed("/spec/group", json!("")), "spec.group: Required value"),
        (
            changed("/spec/group", json!("example")),
            "spec.group: Invalid value: \"example\": should be a domain with at least one dot",
        ),
        (
            changed("/spec/group", json!("Example.com")),
            "spec.group: Invalid value: \"Example.com\": a lowercase RFC 1123",
        ),
        (changed("/spec/scope", json!("")), "spec.scope: Required value"),
        (
            changed("/spec/scope", json!("World")),
            "spec.scope: Unsupported value: \"World\": supported values: \"Cluster\", \"Namespaced\"",
        ),
        (
            changed("/metadata/name", json!("graph.example.com")),
            "metadata.name: Invalid value: \"graph.example.com\": must be spec.names.plural+\".\"+spec.group",
        ),
        (
            changed("/spec/names/plural", json!("")),
            "spec.names.plural: Required value",
        ),
        (
            changed("/spec/names/kind", json!("")),
            "spec.names.kind: Required value",
        ),
        (
            changed("/spec/names/kind", json!("My_Graph")),
            "spec.names.kind: Invalid value: \"My_Graph\": may have mixed case, but should otherwise match: a DNS-1035",
        ),
        (
            changed("/spec/names/listKind", json!("Graph")),
            "spec.names.listKind: Invalid value: \"Graph\": kind and listKind may not be the same",
        ),
        (
            changed("/spec/names/shortNames", json!(["Gr"])),
            "spec.names.shortNames[0]: Invalid value: \"Gr\": a DNS-1035",
        ),
        (
            changed("/spec/versions", json!([])),
            "spec.versions: Invalid value: []: must have exactly one version marked as storage version",
        ),
        (
            changed("/spec/versions/0/storage", json!(false)),
            "spec.versions: Invalid value: [\"v1\"]: must have exactly one version marked as storage version",
        ),
        (
            changed("/spec/versions/0/name", json!("1")),
            "spec.versions[0].name: Invalid value: \"1\": a DNS-1035",
        ),
        (
            changed("/spec/versions/0/schema", json!({})),
            "spec.versions[0].schema.openAPIV3Schema: Required value",
        ),
        (
            changed(
                "/spec/versions/0/schema/openAPIV3Schema/properties/spec/type",
                json!("thing"),
            ),
            "spec.versions[0].schema.openAPIV3Schema.properties[spec].type: Unsupported value: \"thing\"",
        ),
        (
            changed(
                "/spec/versions/0/schema/openAPIV3Schema/oneOf",
                json!([{"required": ["spec"]}]),
            ),
            "spec.versions[0].schema.openAPIV3Schema.oneOf: Forbidden: not allowed at the root",
        ),
        (
            changed(version, {
                let mut v = definition()["spec"]["versions"][0].clone();
                v["deprecationWarning"] = json!("x");
                v
            }),
            "spec.versions[0].deprecationWarning: Invalid value: \"x\": can only be set for deprecated versions",
        ),
        (
            changed(columns, json!([{"name": "", "type": "string", "jsonPath": ".a"}])),
            "spec.versions[0].additionalPrinterColumns[0].name: Required value",
        ),
        (
            changed(columns, json!([{"name": "A", "type": "text", "jsonPath": ".a"}])),
            "spec.versions[0].additionalPrinterColumns[0].type: Invalid value: \"text\": must be one of boolean,date,integer,number,string",
        ),
        (
            changed(columns, json!([{"name": "A", "type": "string", "jsonPath": "a"}])),
            "spec.versions[0].additionalPrinterColumns[0].JSONPath: Invalid value: \"a\": must be a simple json path starting with .",
        ),
        (
            changed(
                columns,
                json!([{"name": "A", "type": "string", "jsonPath": ".a[?(@.b"}]),
            ),
            "spec.versions[0].additionalPrinterColumns[0].JSONPath: Invalid value: \".a[?(@.b\": expected ) but the path ends",
        ),
        (
            changed(
                columns,
                json!([{"name": "A", "type": "string", "format": "x", "jsonPath": ".a"}]),
            ),
            "spec.versions[0].additionalPrinterColumns[0].format: Invalid value: \"x\": must be one of byte",
        ),
        (
            changed(
                "/spec/versions/0/subresources/scale",
                json!({"specReplicasPath": ".status.n", "statusReplicasPath": ""}),
            ),
            "spec.versions[0].subresources.scale.specReplicasPath: Invalid value: \".status.n\": should be a json path under .spec",
        ),
        (
            changed("/spec/versions/0/selectableFields", json!([{"jsonPath": ".spec.size"}])),
            "spec.versions[0].selectableFields[0].jsonPath: Invalid value: \".spec.size\": must point to a field of type string",
        ),
        (
            changed("/spec/versions/0/selectableFields", json!([{"jsonPath": ".spec.none"}])),
            "spec.versions[0].selectableFields[0].jsonPath: Invalid value: \".spec.none\": is an invalid path",
        ),
        (
            changed(
                "/spec/versions/0/selectableFields",
                json!([{"jsonPath": ".spec.tier"}, {"jsonPath": ".spec.tier"}]),
            ),
            "spec.versions[0].selectableFields[1].jsonPath: Duplicate value: \".spec.tier\"",
        ),
        (
            changed(
                "/spec/versions/0/selectableFields",
                json!([{"jsonPath": ".metadata.name"}]),
            ),
            "spec.versions[0].selectableFields[0].jsonPath: Invalid value: \".metadata.name\": must not point to fields in metadata",
        ),
        (
            changed("/spec/conversion", json!({"strategy": "Webhook"})),
            "spec.conversion.strategy: Invalid value: \"Webhook\": conversion webhooks are not supported by this server",
        ),
        (
            changed("/spec/preserveUnknownFields", json!(true)),
            "spec.preserveUnknownFields: Invalid value: true: must be false",
        ),
        (json!({}), "spec.group: Required value"),
        (
            json!({"spec": {"versions": [3]}}),
            "spec.versions[0].name: Invalid value",
        ),
    ];
    assert_eq!(problems(&definition()), [] as [String; 0]);
    for (definition, expected) in cases {
        let found = problems(&definition);
        assert!(
            found.iter().any(|problem| problem.starts_with(expected)),
            "{expected}\nfound {found:#?}"
        );
    }
}

#[test]
fn names_that_are_taken_are_refused() {
    let registry = Registry::builtin().with_crd(&definition()).unwrap();
    let mut other = definition();
    other["metadata"]["name"] = json!("charts.example.com");
    other["spec"]["names"]["plural"] = json!("charts");
    let found: Vec<String> = registry
        .with_crd(&other)
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect();
    for expected in [
        "spec.names.kind: Invalid value: \"Graph\": is already in use by graphs.example.com",
        "spec.names.listKind: Invalid value: \"GraphList\": is already in use by graphs.example.com",
        "spec.names.singular: Invalid value: \"graph\": is already in use by graphs.example.com",
        "spec.names.shortNames[0]: Invalid value: \"gr\": is already in use by graphs.example.com",
    ] {
        assert!(
            found.iter().any(|problem| problem == expected),
            "{expected}\nfound {found:#?}"
        );
    }
    let mut builtin = definition();
    builtin["metadata"]["name"] = json!("leases.coordination.k8s.io");
    builtin["spec"]["group"] = json!("coordination.k8s.io");
    builtin["spec"]["names"] = json!({"plural": "leases", "kind": "Lease"});
    let found: Vec<String> = registry
        .with_crd(&builtin)
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        found,
        ["spec.names.plural: Forbidden: this kind is built in and cannot be defined"]
    );
    assert!(
        registry.with_crd(&definition()).is_ok(),
        "a definition may be applied again"
    );
}

#[test]
fn string_data_moves_into_data() {
    let cases = [
        (
            json!({"stringData": {"a": "x"}, "data": {"a": "b2xk", "b": "Yg=="}}),
            json!({"data": {"a": "eA==", "b": "Yg=="}}),
        ),
        (json!({"stringData": {"a": "x"}}), json!({"data": {"a": "eA=="}})),
        (
            json!({"stringData": {"a": "x"}, "data": null}),
            json!({"data": {"a": "eA=="}}),
        ),
        (json!({"stringData": {}}), json!({})),
        (json!({"data": {"b": "Yg=="}}), json!({"data": {"b": "Yg=="}})),
        (
            json!({"stringData": {"a": "x", "n": 3}}),
            json!({"stringData": {"n": 3}, "data": {"a": "eA=="}}),
        ),
        (json!("text"), json!("text")),
    ];
    for (mut secret, expected) in cases {
        merge_secret_string_data(&mut secret);
        assert_eq!(secret, expected);
    }
}

fn builtin_problems(group: &str, plural: &str, new: &Value, old: Option<&Value>) -> Vec<String> {
    let resource = Registry::builtin().lookup(group, "v1", plural).unwrap();
    let mut new = new.clone();
    resource.structural.default(&mut new);
    let mut causes = resource.structural.validate(&new, old);
    causes.extend(validate_builtin(&resource, &new, old));
    causes.iter().map(ToString::to_string).collect()
}

#[test]
fn secrets_and_config_maps_are_checked() {
    let good = json!({"type": "Opaque", "data": {"a.b_C-1": "eA=="}});
    assert_eq!(builtin_problems("", "secrets", &good, Some(&good)), [] as [String; 0]);
    let frozen = json!({"type": "Opaque", "immutable": true, "data": {"a": "eA=="}});
    let big = "A".repeat(1_398_108);
    let cases = [
        (
            json!({"data": {"a": "%"}}),
            None,
            "data.a: Invalid value: \"%\": data.a in body must be of type byte: \"%\"",
        ),
        (
            json!({"data": {"a": 1}}),
            None,
            "data.a: Invalid value: \"int64\": data.a in body must be of type byte: \"int64\"",
        ),
        (
            json!({"data": {"a b": ""}}),
            None,
            "data[a b]: Invalid value: \"a b\": a valid config key must consist of",
        ),
        (
            json!({"data": {"..": ""}}),
            None,
            "data[..]: Invalid value: \"..\": must not be '..'",
        ),
        (
            json!({"data": {"..a": ""}}),
            None,
            "data[..a]: Invalid value: \"..a\": must not start with '..'",
        ),
        (
            json!({"data": {"a": big}}),
            None,
            "data: Too long: may not be more than 1048576 bytes",
        ),
        (
            json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}),
            None,
            "data[tls.key]: Required value",
        ),
        (
            json!({"type": "x"}),
            Some(&good),
            "type: Invalid value: \"x\": field is immutable",
        ),
        (
            json!({"immutable": true, "data": {"a": ""}}),
            Some(&frozen),
            "data: Forbidden: field is immutable when `immutable` is set",
        ),
        (
            json!({"data": {"a": "eA=="}}),
            Some(&frozen),
            "immutable: Forbidden: field is immutable when `immutable` is set",
        ),
    ];
    for (secret, old, expected) in cases {
        let found = builtin_problems("", "secrets", &secret, old);
        assert!(
            found.iter().any(|problem| problem.starts_with(expected)),
            "{expected}\nfound {found:#?}"
        );
    }
    let cases = [
        (
            json!({"data": {"a": "x"}, "binaryData": {"a": "eA=="}}),
            None,
            "data[a]: Invalid value: \"a\": duplicate of key present in binaryData",
        ),
        (
            json!({"data": {"a": "x".repeat(1 << 20), "b": "x"}}),
            None,
            "<nil>: Too long: may not be more than 1048576 bytes",
        ),
        (
            json!({"immutable": true, "binaryData": {"a": "eA=="}}),
            Some(json!({"immutable": true, "binaryData": {"a": ""}})),
            "binaryData: Forbidden: field is immutable when `immutable` is set",
        ),
    ];
    for (map, old, expected) in cases {
        let found = builtin_problems("", "configmaps", &map, old.as_ref());
        assert!(
            found.iter().any(|problem| problem == expected),
            "{expected}\nfound {found:#?}"
        );
    }
}

#[test]
fn secrets_are_opaque_by_default() {
    let resource = Registry::builtin().lookup("", "v1", "secrets").unwrap();
    let mut secret = json!({"data": {}});
    resource.structural.default(&mut secret);
    assert_eq!(secret["type"], "Opaque");
}

#[test]
fn leases_and_events_are_checked() {
    let cases = [
        (
            "coordination.k8s.io",
            "leases",
            json!({"spec": {"leaseDurationSeconds": 0}}),
            vec!["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
        ),
        (
            "coordination.k8s.io",
            "leases",
            json!({"spec": {"leaseDurationSeconds": 15, "renewTime": "2026-07-24T10:11:12.123456Z", "leaseTransitions": 0}}),
            vec![],
        ),
        (
            "coordination.k8s.io",
            "leases",
            json!({"spec": {"renewTime": "now"}}),
            vec!["spec.renewTime: Invalid value: \"now\": spec.renewTime in body must be of type date-time: \"now\""],
        ),
        (
            "",
            "events",
            json!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": "b"}}),
            vec!["involvedObject.namespace: Invalid value: \"b\": does not match event.namespace"],
        ),
        (
            "",
            "events",
            json!({"metadata": {"namespace": "default"}, "involvedObject": {"kind": "Tier"}, "eventTime": null, "firstTimestamp": null}),
            vec![],
        ),
        (
            "events.k8s.io",
            "events",
            json!({
                "metadata": {"namespace": "a"}, "regarding": {"namespace": "a"}, "eventTime": "2026-07-24T10:11:12.123456Z",
                "reportingController": "c", "reportingInstance": "i", "action": "a", "reason": "r", "type": "Normal",
            }),
            vec![],
        ),
        (
            "events.k8s.io",
            "events",
            json!({"metadata": {"namespace": "a"}, "regarding": {"namespace": "a"}, "eventTime": "2026-07-24T10:11:12Z", "type": "Odd"}),
            vec![
                "reportingController: Required value",
                "reportingInstance: Required value",
                "action: Required value",
                "reason: Required value",
                "type: Invalid value: \"\": has invalid value: Odd",
            ],
        ),
    ];
    for (group, plural, object, expected) in cases {
        assert_eq!(
            builtin_problems(group, plural, &object, None),
            expected,
            "{group}/{plural} {object}"
        );
    }
}

#[test]
fn the_definitions_of_graphplane_are_accepted() {
    let mut registry = Registry::builtin();
    for definition in graphplane_crds::all_crds() {
        let definition = serde_json::to_value(definition).unwrap();
        registry = match registry.with_crd(&definition) {
            Ok(registry) => registry,
            Err(causes) => panic!("{}: {causes:#?}", definition["metadata"]["name"]),
        };
    }
    let graph = registry.lookup("graphplane.dev", "v1alpha1", "graphs").unwrap();
    assert!(graph.status_subresource && !graph.columns.is_empty());
}
