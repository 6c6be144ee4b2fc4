//! The operator is cut off before and after everything that it does for a read fleet: nothing is made twice, nothing is left.

use crate::crashes::{AT_ONCE, cuts, with_cut};
use crate::gate::Cut;
use crate::world::{World, graph_object, replica_object};
use futures::StreamExt;
use graphplane_crds::{Graph, GraphNode, GraphVolume, Replica};
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;
use std::path::Path;

/// A world with a graph that is ready.
async fn world() -> World {
    let world = World::with_tier(json!({})).await;
    let operator = world.operator();
    world
        .create::<Graph>(graph_object("karate", json!({"graphId": "kg0123456789abcdef"})))
        .await;
    world.until_ready::<Graph>("karate").await;
    world.until_ready::<GraphNode>("std-0").await;
    world.until_ready::<GraphVolume>("std-0").await;
    operator.stop().await;
    world
}

/// A fleet of two comes, and goes.
async fn story(world: &World) {
    world
        .create::<Replica>(replica_object("readers", json!({"publish": {}})))
        .await;
    world
        .until::<Replica>("readers", "served by two", |r| {
            r.status.as_ref().is_some_and(|s| s.ready_replicas == 2)
        })
        .await;
    assert_eq!(world.machines.alive().len(), 3);
    world.delete::<Replica>("readers").await;
    world.until_gone::<Replica>("readers").await;
    world
        .eventually("the writer is alone", async || {
            world.names::<GraphNode>().await == ["std-0"] && world.names::<Secret>().await.len() == 1
        })
        .await;
}

fn files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path());
    let below = |path: std::path::PathBuf| match path.is_dir() {
        true => files(&path),
        false => vec![path.display().to_string()],
    };
    entries.flat_map(below).collect()
}

async fn told(cut: Option<Cut>) -> (usize, bool) {
    let world = world().await;
    let ((), operator, reached) = with_cut(&world, cut, story(&world)).await;
    let deeds = operator.gate.deeds().len();
    operator.kill().await;
    let at = format!("after a cut at {cut:?}");
    assert_eq!(world.machines.alive(), ["std-0"], "{at}");
    assert_eq!(world.machines.launches(), 3, "a machine was started twice {at}");
    assert!(world.machines.scratch().is_empty(), "a disk is left {at}");
    assert_eq!(files(&world.objects()), Vec::<String>::new(), "a seed is left {at}");
    let disk = world.machines.disk("std-0");
    let publishes = disk.lock().tasks.values().any(|task| task["status"] == "running");
    assert!(!publishes, "the writer still publishes {at}");
    world.server.shutdown().await;
    (deeds, reached)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_anywhere_makes_nothing_twice_and_leaves_nothing() {
    let (deeds, _) = told(None).await;
    assert!(deeds > 20, "{deeds}");
    let runs = futures::stream::iter(cuts(deeds)).map(|cut| told(Some(cut)));
    let reached: Vec<(usize, bool)> = runs.buffer_unordered(AT_ONCE).collect().await;
    let reached = reached.into_iter().filter(|(_, reached)| *reached).count();
    assert!(reached >= deeds, "only {reached} of {deeds} deeds were cut");
}
