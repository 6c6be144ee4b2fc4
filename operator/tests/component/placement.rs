//! Which graphs share a node, and when nodes come and go.

use crate::world::{World, graph_object, tier_object};
use graphplane_crds::graph::GraphPhase;
use graphplane_crds::node::NodePhase;
use graphplane_crds::{Graph, GraphNode, GraphVolume, Tier};
use kube::ResourceExt;
use serde_json::json;
use std::collections::BTreeMap;

async fn by_node(world: &World) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for graph in world.list::<Graph>().await {
        if let Some(node) = graph.status.and_then(|s| s.node) {
            *counts.entry(node).or_default() += 1;
        }
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn graphs_that_come_together_fill_nodes_and_never_overfill_them() {
    let world = World::with_tier(json!({"databasesPerNode": 4})).await;
    let operator = world.operator();
    for n in 0..10 {
        world.create::<Graph>(graph_object(&format!("g{n}"), json!({}))).await;
    }
    for n in 0..10 {
        world.until_ready::<Graph>(&format!("g{n}")).await;
    }
    assert_eq!(
        by_node(&world).await,
        BTreeMap::from([("std-0".into(), 4), ("std-1".into(), 4), ("std-2".into(), 2)])
    );
    assert_eq!((world.machines.launches(), world.machines.disks_made()), (3, 3));
    assert!(world.machines.made().values().all(|n| *n == 1));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_a_graph_waits_and_says_why_until_there_is_room() {
    let world = World::with_tier(json!({"databasesPerNode": 1, "scaling": {"maxNodes": 1}})).await;
    let operator = world.operator();
    world
        .create::<Graph>(graph_object("first", json!({"deletionPolicy": "Delete"})))
        .await;
    world.until_ready::<Graph>("first").await;
    world.create::<Graph>(graph_object("second", json!({}))).await;
    let waits = world
        .until_says::<Graph>("second", "Ready", "False", "NoCapacity")
        .await;
    let status = waits.status.unwrap();
    assert_eq!(status.phase, Some(GraphPhase::Pending));
    let ready = status.conditions.iter().find(|c| c.type_ == "Ready").unwrap();
    assert!(ready.message.contains("scaling.maxNodes"), "{}", ready.message);
    world.delete::<Graph>("first").await;
    let second = world.until_ready::<Graph>("second").await;
    assert_eq!(
        second.status.unwrap().node.as_deref(),
        Some("std-0"),
        "the node was used again"
    );
    // More nodes help, too.
    world.create::<Graph>(graph_object("third", json!({}))).await;
    world.until_says::<Graph>("third", "Ready", "False", "NoCapacity").await;
    world
        .patch::<Tier>("std", json!({"spec": {"scaling": {"maxNodes": 2}}}))
        .await;
    assert_eq!(
        world
            .until_ready::<Graph>("third")
            .await
            .status
            .unwrap()
            .node
            .as_deref(),
        Some("std-1")
    );
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_fit_is_said_at_once() {
    let world = World::with_tier(json!({})).await;
    let operator = world.operator();
    world
        .create::<Graph>(graph_object("huge", json!({"storage": {"sizeGiB": 51}})))
        .await;
    let stalled = world.until_says::<Graph>("huge", "Stalled", "True", "DoesNotFit").await;
    assert!(
        stalled
            .status
            .unwrap()
            .conditions
            .iter()
            .any(|c| c.message.contains("storage.sizeGiB is 51"))
    );
    world
        .create::<Graph>(graph_object("lost", json!({"tier": "nowhere"})))
        .await;
    world
        .until_says::<Graph>("lost", "Stalled", "True", "TierNotFound")
        .await;
    assert!(world.list::<GraphNode>().await.is_empty());
    world.create::<Tier>(tier_object("nowhere", json!({}))).await;
    assert_eq!(
        world.until_ready::<Graph>("lost").await.status.unwrap().node.as_deref(),
        Some("nowhere-0")
    );
    // Neither was ever made, so neither keeps anybody waiting.
    world.delete::<Graph>("huge").await;
    world.until_gone::<Graph>("huge").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tier_keeps_its_minimum_and_no_more() {
    let world = World::with_tier(
        json!({"databasesPerNode": 1, "scaling": {"minNodes": 1, "maxNodes": 3, "consolidateAfterSeconds": 0}}),
    )
    .await;
    let operator = world.operator();
    world.until_ready::<GraphNode>("std-0").await;
    for n in 0..3 {
        world
            .create::<Graph>(graph_object(&format!("g{n}"), json!({"deletionPolicy": "Delete"})))
            .await;
    }
    for n in 0..3 {
        world.until_ready::<Graph>(&format!("g{n}")).await;
    }
    assert_eq!(world.names::<GraphNode>().await, ["std-0", "std-1", "std-2"]);
    for n in 0..3 {
        world.delete::<Graph>(&format!("g{n}")).await;
    }
    world.until_none::<Graph>().await;
    world
        .eventually("one node is left", async || world.list::<GraphNode>().await.len() == 1)
        .await;
    world
        .eventually("one volume is left", async || {
            world.list::<GraphVolume>().await.len() == 1
        })
        .await;
    world.until_ready::<Tier>("std").await;
    assert_eq!(world.machines.alive().len(), 1);
    // Deleted, it takes the last one with it.
    world.delete::<Tier>("std").await;
    world.until_gone::<Tier>("std").await;
    assert!(world.machines.alive().is_empty() && world.machines.disks().is_empty());
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tier_in_use_is_kept() {
    let world = World::with_tier(json!({})).await;
    let operator = world.operator();
    world
        .create::<Graph>(graph_object("karate", json!({"deletionPolicy": "Delete"})))
        .await;
    world.until_ready::<Graph>("karate").await;
    world.delete::<Tier>("std").await;
    world
        .until_says::<Tier>("std", "Deleting", "True", "WaitingForDependents")
        .await;
    world.until_ready::<Graph>("karate").await;
    world.delete::<Graph>("karate").await;
    world.until_gone::<Tier>("std").await;
    assert!(world.list::<GraphNode>().await.is_empty());
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_new_lands_on_a_draining_node() {
    let world = World::with_tier(json!({})).await;
    let operator = world.operator();
    world.create::<Graph>(graph_object("first", json!({}))).await;
    world.until_ready::<Graph>("first").await;
    world
        .patch::<GraphNode>(
            "std-0",
            json!({"metadata": {"annotations": {"graphplane.dev/drain": "true"}}}),
        )
        .await;
    // Graphs and nodes are watched apart: the operator may hear of a graph first.
    world
        .until::<GraphNode>("std-0", "draining", |n| {
            n.status.as_ref().is_some_and(|s| s.phase == Some(NodePhase::Draining))
        })
        .await;
    world.create::<Graph>(graph_object("second", json!({}))).await;
    assert_eq!(
        world
            .until_ready::<Graph>("second")
            .await
            .status
            .unwrap()
            .node
            .as_deref(),
        Some("std-1")
    );
    world.until_ready::<Graph>("first").await;
    // A node with graphs on it is not taken away from under them.
    world.delete::<GraphNode>("std-0").await;
    world
        .until_says::<GraphNode>("std-0", "Deleting", "True", "WaitingForDependents")
        .await;
    world
        .patch::<Graph>("first", json!({"spec": {"deletionPolicy": "Delete"}}))
        .await;
    world.delete::<Graph>("first").await;
    world.until_gone::<GraphNode>("std-0").await;
    assert_eq!(world.machines.alive(), ["std-1"]);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graph_id_belongs_to_one_graph() {
    let world = World::with_tier(json!({})).await;
    let operator = world.operator();
    let spec = json!({"graphId": "kg0123456789abcdef", "deletionPolicy": "Delete"});
    world.create::<Graph>(graph_object("first", spec.clone())).await;
    world.until_ready::<Graph>("first").await;
    world.create::<Graph>(graph_object("second", spec)).await;
    let second = world
        .until_says::<Graph>("second", "Stalled", "True", "NameTaken")
        .await;
    assert!(second.status.as_ref().unwrap().graph_id.is_none(), "it claims nothing");
    assert!(
        second
            .status
            .unwrap()
            .conditions
            .iter()
            .any(|c| c.message.contains("default/first"))
    );
    // Deleting the one that never was must not touch the one that is.
    world.delete::<Graph>("second").await;
    world.until_gone::<Graph>("second").await;
    assert!(world.machines.databases().contains_key("kg0123456789abcdef"));
    let first = world.get::<Graph>("first").await;
    assert_eq!(first.name_any(), "first");
    operator.stop().await;
}
