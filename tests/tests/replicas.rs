//! A read fleet from its manifest to its end, with real agents.
#![allow(missing_docs, clippy::unwrap_used)]

use graphplane_tests::{Plane, repository};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const GRAPH: &str = "
apiVersion: graphplane.dev/v1alpha1
kind: Tier
metadata: {name: small}
spec:
  memory: {nodeMiB: 512, perDatabaseMiB: 128}
  databasesPerNode: 2
  storage: {sizeGiB: 10}
  scaling: {minNodes: 0, maxNodes: 2, consolidateAfterSeconds: 1}
---
apiVersion: graphplane.dev/v1alpha1
kind: Graph
metadata: {name: g1, namespace: default}
spec:
  tier: small
  schema: {type: custom, ddl: 'CREATE NODE TABLE N(id INT64 PRIMARY KEY);'}
  deletionPolicy: Delete
";

const REPLICA: &str = "
apiVersion: graphplane.dev/v1alpha1
kind: Replica
metadata: {name: readers, namespace: default}
spec: {graph: g1, replicas: 2, publish: {onChange: true, minIntervalSeconds: 1}}
";

fn write(plane: &Plane, first: i64, last: i64) -> bool {
    let body = json!({"cypher": format!("UNWIND range({first}, {last}) AS id CREATE (:N {{id: id}})")});
    plane.rest("POST", "/v1/graphs/g1/query", Some(&body)).status == 200
}

/// How many nodes the graph has, and which machine says so.
fn count(plane: &Plane, headers: &[&str]) -> Option<(i64, String)> {
    let body = json!({"cypher": "MATCH (n:N) RETURN count(*) AS n"});
    let answer = plane.rest_with("POST", "/v1/graphs/g1/query", headers, Some(&body));
    let node = answer.header("x-graphplane-node").to_owned();
    (answer.status == 200).then(|| (answer.json()["data"][0]["n"].as_i64().unwrap(), node))
}

/// Whether a replica says that the graph has so many nodes.
fn replica_has(plane: &Plane, n: i64) -> bool {
    count(plane, &[]).is_some_and(|(found, node)| found == n && node.starts_with("readers-"))
}

fn status(plane: &Plane) -> Value {
    let object = plane.kubectl(&["get", "replica", "readers", "-o", "json"]).ok();
    serde_json::from_str::<Value>(&object).unwrap()["status"].clone()
}

fn until_ready(plane: &Plane, nodes: u64) {
    plane.until(&format!("{nodes} nodes serve the newest seed"), || {
        let status = status(plane);
        (&status["replicas"], &status["readyReplicas"]) == (&json!(nodes), &json!(nodes))
    });
}

/// Processes that serve seeds.
fn replicas(plane: &Plane) -> Vec<u32> {
    let serves = |(pid, line): (u32, String)| line.contains("--role replica").then_some(pid);
    plane.agents().into_iter().filter_map(serves).collect()
}

#[test]
fn a_fleet_serves_reads_follows_its_graph_and_heals() {
    let mut plane = Plane::start();
    plane.apply_until_ready(GRAPH, "g1");
    assert!(write(&plane, 0, 19));
    plane.kubectl_with(&["apply", "-f", "-"], Some(REPLICA)).ok();
    plane
        .kubectl(&["wait", "--for=condition=Ready", "replica/readers", "--timeout=240s"])
        .ok();
    until_ready(&plane, 2);
    assert_eq!(replicas(&plane).len(), 2);
    let columns = plane.kubectl(&["get", "replicas"]).ok();
    assert!(columns.lines().nth(1).unwrap().contains("True"), "{columns}");

    // Both answer, in turn; who wants what was just acknowledged asks the writer.
    plane.until("both replicas have answered", || {
        let answers: BTreeSet<(i64, String)> = (0..4).map(|_| count(&plane, &[]).unwrap()).collect();
        let nodes: BTreeSet<&String> = answers.iter().map(|(_, node)| node).collect();
        assert!(answers.iter().all(|(n, _)| *n == 20), "{answers:?}");
        nodes.len() == 2 && nodes.iter().all(|node| node.starts_with("readers-"))
    });
    let of_writer = |n| Some((n, "small-0".to_owned()));
    assert_eq!(count(&plane, &["X-Graphplane-Read: writer"]), of_writer(20));

    let scaled = plane.kubectl(&["scale", "replica/readers", "--replicas=1"]).ok();
    assert!(scaled.contains("scaled"), "{scaled}");
    until_ready(&plane, 1);
    plane.until("one process is left", || replicas(&plane).len() == 1);

    // A change is published and taken up by the process that serves already.
    let serving = replicas(&plane);
    assert!(write(&plane, 20, 29));
    assert_eq!(count(&plane, &["X-Graphplane-Read: writer"]), of_writer(30));
    plane.until("the replica has the change", || replica_has(&plane, 30));
    assert_eq!(replicas(&plane), serving);

    // A process that dies is started again and serves what it has; meanwhile the writer answers.
    kill_process(Pid::from_raw(serving[0] as i32).unwrap(), Signal::KILL).unwrap();
    assert_eq!(count(&plane, &[]).unwrap().0, 30);
    plane.until("another process serves", || {
        replicas(&plane) != serving && replica_has(&plane, 30)
    });
    until_ready(&plane, 1);

    // The control plane may go and come back.
    let before = plane.agents();
    plane.kill();
    plane.start_again();
    plane.until("it takes writes", || write(&plane, 30, 30));
    plane.until("the fleet follows again", || replica_has(&plane, 31));
    assert_eq!(plane.agents(), before, "what runs is adopted");

    plane.kubectl(&["delete", "replica", "readers", "--timeout=240s"]).ok();
    assert!(replicas(&plane).is_empty());
    assert!(plane.paths_with("objects/seeds").iter().all(|path| path.is_dir()));
    assert_eq!(count(&plane, &[]), of_writer(31));
}

#[test]
fn the_example_of_a_fleet_is_taken_as_it_is() {
    let plane = Plane::start();
    let file = |name: &str| repository().join("examples/airports").join(name).display().to_string();
    plane.kubectl(&["apply", "-f", &file("graph.yaml")]).ok();
    plane.kubectl(&["apply", "-f", &file("replica.yaml")]).ok();
    plane.until_ready("airports");
    plane
        .kubectl(&[
            "wait",
            "--for=condition=Ready",
            "replica/airports-readers",
            "--timeout=240s",
        ])
        .ok();
    plane.kubectl(&["delete", "graph", "airports", "--timeout=240s"]).ok();
    plane.until("the fleet went with its graph", || {
        plane.kubectl(&["get", "graphnodes", "-o", "name"]).ok().is_empty() && plane.agents().is_empty()
    });
}
