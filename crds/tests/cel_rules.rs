//! Every CEL rule of every kind, with an object that it accepts and one that it refuses.
//!
//! Rules vanish from generated schemas without a sound when a derive changes; so their number is written here, and a
//! rule without a case fails the test.
#![allow(clippy::unwrap_used)]

use graphplane_crds::all_crds;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_cel::Validator;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A rule, an update or creation that it accepts, and one that it refuses. `old` is null for a creation.
struct Case {
    message: &'static str,
    accepted: (Value, Value),
    refused: (Value, Value),
    /// Other rules that cannot help refusing the same object.
    also: &'static [&'static str],
}

fn case(message: &'static str, accepted: (Value, Value), refused: (Value, Value)) -> Case {
    Case {
        message,
        accepted,
        refused,
        also: &[],
    }
}

fn crd(kind: &str) -> CustomResourceDefinition {
    all_crds().into_iter().find(|crd| crd.spec.names.kind == kind).unwrap()
}

fn schema(kind: &str) -> Value {
    let version = &crd(kind).spec.versions[0];
    serde_json::to_value(version.schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap()).unwrap()
}

/// An object of a kind with a name and these fields of the spec, over the least that the kind needs.
fn object(kind: &str, name: &str, spec: Value) -> Value {
    let mut full = match kind {
        "Tier" => json!({"memory": {"nodeMiB": 1024, "perDatabaseMiB": 512}, "databasesPerNode": 1}),
        "GraphVolume" => json!({"tier": "t", "zone": "local", "sizeGiB": 10}),
        "GraphNode" => json!({"tier": "t", "zone": "local", "volume": "v"}),
        "Graph" => json!({"tier": "t"}),
        "Subgraph" => json!({"graph": "g", "name": "dev"}),
        "Replica" => json!({"graph": "g", "replicas": 1}),
        "Backup" => json!({"graph": "g"}),
        "BackupSchedule" => json!({"graph": "g", "schedule": "0 3 * * *"}),
        _ => panic!("no example of {kind}"),
    };
    for (field, value) in spec.as_object().unwrap() {
        match value {
            Value::Null => full.as_object_mut().unwrap().remove(field),
            _ => full.as_object_mut().unwrap().insert(field.clone(), value.clone()),
        };
    }
    json!({"apiVersion": "graphplane.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": full})
}

/// The messages of the rules that refuse an object.
fn refusals(schema: &Value, new: &Value, old: &Value) -> Vec<String> {
    let old = (!old.is_null()).then_some(old);
    match Validator::new().validate(schema, new, old) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_vec().into_iter().map(|error| error.message).collect(),
    }
}

fn collect_messages(schema: &Value, messages: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), value.as_array()) {
                    ("x-kubernetes-validations", Some(rules)) => {
                        messages.extend(
                            rules
                                .iter()
                                .map(|rule| rule["message"].as_str().unwrap_or_default().to_owned()),
                        );
                    }
                    _ => collect_messages(value, messages),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_messages(item, messages)),
        _ => {}
    }
}

/// Runs the cases of a kind, whose schema must hold exactly `count` rules, all of them named by a case.
fn check(kind: &str, count: usize, cases: Vec<Case>) {
    let schema = schema(kind);
    let mut messages = Vec::new();
    collect_messages(&schema, &mut messages);
    assert_eq!(messages.len(), count, "number of CEL rules of {kind}: {messages:#?}");
    let in_schema: BTreeSet<&str> = messages.iter().map(String::as_str).collect();
    assert_eq!(in_schema.len(), count, "two rules of {kind} have the same message");
    let in_cases: BTreeSet<&str> = cases.iter().map(|case| case.message).collect();
    assert_eq!(
        in_cases, in_schema,
        "each rule of {kind} has a case and each case a rule"
    );
    for Case {
        message,
        accepted: (new, old),
        refused: (bad, bad_old),
        also,
    } in cases
    {
        assert_eq!(
            refusals(&schema, &new, &old),
            Vec::<String>::new(),
            "{kind}, {message}: {new} after {old}"
        );
        let refused: BTreeSet<String> = refusals(&schema, &bad, &bad_old).into_iter().collect();
        let expected: BTreeSet<String> = also
            .iter()
            .chain([&message])
            .map(|message| (*message).to_owned())
            .collect();
        assert_eq!(refused, expected, "{kind}: {bad} after {bad_old}");
    }
}

/// A creation.
fn new(kind: &str, spec: Value) -> (Value, Value) {
    (object(kind, "x1", spec), Value::Null)
}

/// An update from one spec to another.
fn update(kind: &str, from: Value, to: Value) -> (Value, Value) {
    (object(kind, "x1", to), object(kind, "x1", from))
}

/// A case of a field that never changes once the object exists.
fn immutable(kind: &'static str, message: &'static str, field: &str, one: Value, other: Value) -> Case {
    let with = |value: &Value| json!({ field: value });
    case(
        message,
        update(kind, with(&one), with(&one)),
        update(kind, with(&one), with(&other)),
    )
}

#[test]
fn tier() {
    const K: &str = "Tier";
    let budget = |budget: Value| json!({"rollout": {"budgets": [budget]}});
    check(
        K,
        5,
        vec![
            case(
                "a tier's name has at most 40 characters, since names of nodes and volumes are made from it",
                (object(K, &"t".repeat(40), json!({})), Value::Null),
                (object(K, &"t".repeat(41), json!({})), Value::Null),
            ),
            case(
                "memory.perDatabaseMiB must not exceed memory.nodeMiB",
                new(K, json!({"memory": {"nodeMiB": 512, "perDatabaseMiB": 512}})),
                new(K, json!({"memory": {"nodeMiB": 512, "perDatabaseMiB": 513}})),
            ),
            case(
                "scaling.minNodes must not exceed scaling.maxNodes",
                new(K, json!({"scaling": {"minNodes": 2, "maxNodes": 2}})),
                new(K, json!({"scaling": {"minNodes": 3, "maxNodes": 2}})),
            ),
            case(
                "storage.autogrow.maxGiB must be at least storage.sizeGiB",
                new(
                    K,
                    json!({"storage": {"sizeGiB": 50, "autogrow": {"atPercent": 80, "maxGiB": 50}}}),
                ),
                new(
                    K,
                    json!({"storage": {"sizeGiB": 50, "autogrow": {"atPercent": 80, "maxGiB": 49}}}),
                ),
            ),
            case(
                "schedule and duration go together",
                new(
                    K,
                    budget(json!({"nodes": "10%", "schedule": "0 2 * * *", "duration": "4h"})),
                ),
                new(K, budget(json!({"nodes": "10%", "schedule": "0 2 * * *"}))),
            ),
        ],
    );
}

#[test]
fn graph_volume() {
    const K: &str = "GraphVolume";
    let grown = json!({"sizeGiB": 11});
    check(
        K,
        3,
        vec![
            case(
                "sizeGiB may only grow",
                update(K, json!({}), grown.clone()),
                update(K, grown, json!({})),
            ),
            immutable(K, "zone is immutable", "zone", json!("a"), json!("b")),
            case(
                "autogrow.maxGiB must be at least sizeGiB",
                new(K, json!({"autogrow": {"atPercent": 80, "maxGiB": 10}})),
                new(K, json!({"autogrow": {"atPercent": 80, "maxGiB": 9}})),
            ),
        ],
    );
}

#[test]
fn graph_node() {
    const K: &str = "GraphNode";
    check(
        K,
        5,
        vec![
            immutable(K, "tier is immutable", "tier", json!("a"), json!("b")),
            immutable(K, "role is immutable", "role", json!("writer"), json!("shared")),
            immutable(K, "zone is immutable", "zone", json!("a"), json!("b")),
            case(
                "volume is immutable",
                update(
                    K,
                    json!({"role": "replica", "volume": null}),
                    json!({"role": "replica", "volume": "v"}),
                ),
                update(K, json!({"volume": "v"}), json!({"volume": "w"})),
            ),
            case(
                "a writer needs a volume",
                new(K, json!({"role": "replica", "volume": null})),
                new(K, json!({"role": "shared", "volume": null})),
            ),
        ],
    );
}

#[test]
fn graph() {
    const K: &str = "Graph";
    let shared = |name: &str| (object(K, name, json!({"schema": {"type": "shared"}})), Value::Null);
    let bootstrap = |from: Value| json!({"bootstrap": from});
    check(
        K,
        8,
        vec![
            case(
                "a graph with schema.type `shared` keeps its name as its id: 2-32 lower-case letters and digits, not beginning with `kg`",
                shared("sec"),
                shared("kgsec"),
            ),
            case(
                "a graph's name has at most 50 characters, since names of its backups are made from it",
                (object(K, &"g".repeat(50), json!({})), Value::Null),
                (object(K, &"g".repeat(51), json!({})), Value::Null),
            ),
            case(
                "graphId is immutable",
                update(K, json!({}), json!({"graphId": "kg0123456789abcdef"})),
                update(
                    K,
                    json!({"graphId": "kg0123456789abcdef"}),
                    json!({"graphId": "kg0123456789abcdee"}),
                ),
            ),
            case(
                "bootstrap is immutable: it says how the graph was first filled",
                update(K, bootstrap(json!({"backup": "b"})), bootstrap(json!({"backup": "b"}))),
                update(K, json!({}), bootstrap(json!({"backup": "b"}))),
            ),
            case(
                "bootstrap needs exactly one of backup, snapshot and graph",
                new(K, bootstrap(json!({"snapshot": "snap-1"}))),
                new(K, bootstrap(json!({"snapshot": "snap-1", "graph": "g"}))),
            ),
            case(
                "ddl is required when type is `custom`",
                new(
                    K,
                    json!({"schema": {"type": "custom", "ddl": "CREATE NODE TABLE A(a INT64 PRIMARY KEY);"}}),
                ),
                new(K, json!({"schema": {"type": "custom"}})),
            ),
            case(
                "schema.type is immutable",
                // Written out or left to its default, the type is the same.
                update(K, json!({}), json!({"schema": {"type": "entity"}})),
                update(K, json!({}), json!({"schema": {"type": "custom", "ddl": "x"}})),
            ),
            case(
                "storage.sizeGiB may only grow",
                update(
                    K,
                    json!({"storage": {"sizeGiB": 10}}),
                    json!({"storage": {"sizeGiB": 11}}),
                ),
                update(
                    K,
                    json!({"storage": {"sizeGiB": 10}}),
                    json!({"storage": {"sizeGiB": 9}}),
                ),
            ),
        ],
    );
}

#[test]
fn a_repository_of_any_wrong_name_is_refused() {
    let schema = schema("Graph");
    for (name, fits) in [
        ("sec", true),
        ("k9", true),
        ("s", false),
        ("sec-x", false),
        ("9a", false),
        ("kg1", false),
    ] {
        let graph = object("Graph", name, json!({"schema": {"type": "shared"}}));
        assert_eq!(refusals(&schema, &graph, &Value::Null).is_empty(), fits, "{name}");
    }
}

#[test]
fn an_empty_bootstrap_is_refused() {
    let graph = object("Graph", "g", json!({"bootstrap": {}}));
    assert_eq!(refusals(&schema("Graph"), &graph, &Value::Null).len(), 1);
}

#[test]
fn subgraph() {
    const K: &str = "Subgraph";
    let fork = json!({"forkParent": true});
    check(
        K,
        5,
        vec![
            immutable(K, "graph is immutable", "graph", json!("a"), json!("b")),
            immutable(K, "name is immutable", "name", json!("a"), json!("b")),
            immutable(K, "type is immutable", "type", json!("memory"), json!("empty")),
            case(
                "forkParent is immutable: it says how the subgraph was first filled",
                update(K, json!({}), json!({"forkParent": false})),
                update(K, json!({}), fork.clone()),
            ),
            case(
                "only a subgraph of type `static` can fork its parent",
                new(K, fork),
                new(K, json!({"forkParent": true, "type": "empty"})),
            ),
        ],
    );
}

#[test]
fn replica() {
    const K: &str = "Replica";
    let sizes =
        |min: u32, replicas: u32, max: u32| json!({"minReplicas": min, "replicas": replicas, "maxReplicas": max});
    check(
        K,
        3,
        vec![
            immutable(K, "graph is immutable", "graph", json!("a"), json!("b")),
            case(
                "replicas must lie between minReplicas and maxReplicas",
                new(K, sizes(1, 1, 2)),
                new(K, sizes(1, 3, 2)),
            ),
            Case {
                also: &["replicas must lie between minReplicas and maxReplicas"],
                ..case(
                    "minReplicas must not exceed maxReplicas",
                    new(K, sizes(2, 2, 2)),
                    new(K, sizes(3, 2, 2)),
                )
            },
        ],
    );
}

#[test]
fn backup() {
    const K: &str = "Backup";
    check(
        K,
        3,
        vec![
            immutable(K, "graph is immutable", "graph", json!("a"), json!("b")),
            immutable(
                K,
                "method is immutable",
                "method",
                json!("Object"),
                json!("VolumeSnapshot"),
            ),
            case(
                "subgraph is immutable",
                update(K, json!({"subgraph": "dev"}), json!({"subgraph": "dev"})),
                update(K, json!({}), json!({"subgraph": "dev"})),
            ),
        ],
    );
}

#[test]
fn backup_schedule() {
    const K: &str = "BackupSchedule";
    check(
        K,
        1,
        vec![immutable(K, "graph is immutable", "graph", json!("a"), json!("b"))],
    );
}

#[test]
fn no_kind_is_left_out() {
    let kinds: Vec<String> = all_crds().into_iter().map(|crd| crd.spec.names.kind).collect();
    let expected = [
        "Tier",
        "GraphVolume",
        "GraphNode",
        "Graph",
        "Subgraph",
        "Replica",
        "Backup",
        "BackupSchedule",
    ];
    assert_eq!(kinds, expected);
}
