#![allow(clippy::unwrap_used)]
use super::*;
use serde_json::json;

fn node(status: Value) -> GraphNode {
    serde_json::from_value(json!({
        "apiVersion": "graphplane.dev/v1alpha1", "kind": "GraphNode",
        "metadata": {"name": "std-0", "uid": "u-node", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"tier": "std", "zone": "eu-central-1a", "volume": "std-0", "instanceType": "m7g.large"},
        "status": status,
    }))
    .unwrap()
}

fn registered(epoch: u64, of: u64) -> GraphNode {
    node(json!({
        "phase": "Ready", "providerID": "aws:///eu-central-1a/i-0abc", "epoch": epoch,
        "allocated": {"databases": 3},
        "registration": {"address": "http://10.0.0.7:8001", "instanceId": "i-0abc", "agentVersion": "0", "epoch": of,
            "capacity": {"databases": 10}, "time": "2026-01-01T00:00:00Z"},
    }))
}

fn graph(extra: Value) -> Graph {
    let mut graph = json!({
        "apiVersion": "graphplane.dev/v1alpha1", "kind": "Graph",
        "metadata": {"name": "karate", "namespace": "acme", "uid": "u-graph"},
        "spec": {"tier": "std"},
        "status": {"phase": "Ready", "graphId": "kg0123456789abcdef", "node": "std-0",
            "sizes": {"databaseBytes": 3 * 1024 * 1024 + 1}},
    });
    for (key, value) in extra.as_object().unwrap() {
        for (field, value) in value.as_object().unwrap() {
            graph[key][field] = value.clone();
        }
    }
    serde_json::from_value(graph).unwrap()
}

fn graph_row(row: Option<Row>) -> GraphRow {
    match row {
        Some(Row::Graph(row)) => row,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_machine_has_a_row_as_soon_as_it_exists() {
    assert_eq!(of_node("c1", &node(json!({"phase": "Pending"})), None), None);
    let started = node(json!({"phase": "Starting", "providerID": "aws:///eu-central-1a/i-0abc", "epoch": 2}));
    let Some(Row::Instance(row)) = of_node("c1", &started, None) else {
        panic!()
    };
    assert_eq!(
        (row.instance_id.as_str(), row.status.as_str()),
        ("i-0abc", "initializing")
    );
    assert_eq!((row.endpoint_url, row.epoch), (None, 2));
    let Some(Row::Instance(row)) = of_node("c1", &registered(2, 2), None) else {
        panic!()
    };
    assert_eq!(
        (row.status.as_str(), row.private_ip.as_deref()),
        ("healthy", Some("10.0.0.7"))
    );
    assert_eq!(
        (row.database_count, row.max_databases, row.available_capacity_pct),
        (3, 10, 70)
    );
}

#[test]
fn a_graph_is_where_its_node_serves_under_its_present_epoch() {
    let row = graph_row(of_graph("c1", &graph(json!({})), Some(&registered(2, 2)), vec![]));
    assert_eq!(row.endpoint_url.as_deref(), Some("http://10.0.0.7:8001"));
    assert_eq!((row.epoch, row.instance_id.as_str()), (Some(2), "i-0abc"));
    assert_eq!(
        (row.status.as_str(), row.entity_id.as_str(), row.database_size_mb),
        ("active", "acme", 3)
    );
    let replaced = graph_row(of_graph("c1", &graph(json!({})), Some(&registered(3, 2)), vec![]));
    assert_eq!(
        (replaced.endpoint_url, replaced.epoch),
        (None, None),
        "the former agent is fenced"
    );
    let lost = graph_row(of_graph("c1", &graph(json!({})), None, vec![]));
    assert_eq!((lost.instance_id.as_str(), lost.endpoint_url), (UNATTACHED, None));
    let placed = graph(json!({"status": {"graphId": null}}));
    assert_eq!(of_graph("c1", &placed, None, vec![]), None, "it waits for a place");
}

#[test]
fn a_deleted_graph_says_so_until_it_is_gone() {
    let deleting = graph(json!({"metadata": {"deletionTimestamp": "2026-01-02T00:00:00Z"}}));
    assert_eq!(
        graph_row(of_graph("c1", &deleting, None, vec![])).status,
        "pending_deletion"
    );
}

#[test]
fn readers_are_in_one_order_and_once() {
    let readers = ["http://b", "http://a", "http://b"].map(str::to_owned).to_vec();
    let row = graph_row(of_graph("c1", &graph(json!({})), None, readers));
    assert_eq!(row.read_endpoints, ["http://a", "http://b"]);
}

#[test]
fn a_disk_names_its_machine_and_its_only_database() {
    let volume = |status: Value| -> GraphVolume {
        serde_json::from_value(json!({
            "apiVersion": "graphplane.dev/v1alpha1", "kind": "GraphVolume", "metadata": {"name": "std-0", "uid": "u-v"},
            "spec": {"tier": "std", "zone": "a", "sizeGiB": 50}, "status": status,
        }))
        .unwrap()
    };
    assert_eq!(of_volume("c1", &volume(json!({"state": "Creating"})), None), None);
    let attached = volume(json!({"volumeId": "vol-1", "state": "InUse", "attachedTo": "std-0", "databases": ["sec"]}));
    let Some(Row::Volume(row)) = of_volume("c1", &attached, Some(&registered(1, 1))) else {
        panic!()
    };
    assert_eq!(
        (row.instance_id.as_str(), row.status.as_str(), row.size_gb),
        ("i-0abc", "attached", 50)
    );
    assert_eq!(row.database_id.as_deref(), Some("sec"));
    let free = volume(json!({"volumeId": "vol-1", "state": "Available", "databases": ["a1", "b1"]}));
    let Some(Row::Volume(row)) = of_volume("c1", &free, None) else {
        panic!()
    };
    assert_eq!((row.instance_id.as_str(), row.database_id), (UNATTACHED, None));
}

#[test]
fn rows_are_read_as_they_were_written() {
    let rows = [
        of_node("c1", &registered(2, 2), None),
        of_graph(
            "c1",
            &graph(json!({})),
            Some(&registered(2, 2)),
            vec!["http://r".into()],
        ),
    ];
    for row in rows.into_iter().flatten() {
        let mut attributes = row.attributes().unwrap();
        attributes["added_by_a_later_version"] = json!(true);
        let (table, key) = row.key();
        assert_eq!(attributes[table.key()], json!(key));
        assert_eq!(Row::read(table, attributes).unwrap(), row);
    }
}

#[test]
fn hosts_are_cut_out_of_urls() {
    for (url, expected) in [
        ("http://10.0.0.7:8001", Some("10.0.0.7")),
        ("https://node.internal/x?y", Some("node.internal")),
        ("http://[fd00::1]:8001/", Some("fd00::1")),
        ("http://u:p@h:1", Some("h")),
        ("http://", None),
        ("10.0.0.7", None),
    ] {
        assert_eq!(host(url).as_deref(), expected, "{url}");
    }
}
