//! Read fleets.

use crate::world::{World, graph_object, replica_object};
use graphplane_crds::replica::ReplicaStatus;
use graphplane_crds::{Graph, GraphNode, GraphVolume, Replica};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

const SEEDS: &str = "seeds/kg0123456789abcdef/readers";

/// A graph that is ready, and a fleet of it.
async fn world(extra: Value) -> World {
    let world = World::with_tier(json!({})).await;
    world
        .create::<Graph>(graph_object("karate", json!({"graphId": "kg0123456789abcdef"})))
        .await;
    world.create::<Replica>(replica_object("readers", extra)).await;
    world
}

/// Waits until so many nodes serve this seed, and no other ones exist.
async fn until_serving(world: &World, nodes: u32, seed: &str) -> ReplicaStatus {
    let what = format!("{nodes} nodes with seed {seed}");
    let replica = world.until::<Replica>("readers", &what, |r| {
        let status = r.status.clone().unwrap_or_default();
        let serving = |s: &ReplicaStatus| s.nodes.iter().all(|n| n.seed_version.as_deref() == Some(seed));
        status.seed_version.as_deref() == Some(seed)
            && (status.replicas, status.ready_replicas) == (nodes, nodes)
            && serving(&status)
    });
    replica.await.status.unwrap()
}

/// The writer's graph is changed.
fn change(world: &World) {
    world.machines.disk("std-0").lock().revision += 1;
}

async fn scale(world: &World, replicas: u32) {
    let api: Api<Replica> = Api::namespaced(world.client.clone(), "default");
    let patch = json!({"spec": {"replicas": replicas}});
    api.patch_scale("readers", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
}

fn replicas_alive(world: &World) -> Vec<String> {
    let mut alive = world.machines.alive();
    alive.retain(|node| node.starts_with("readers-"));
    alive
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_serves_what_was_published_and_follows_its_scale() {
    let world = world(json!({})).await;
    let operator = world.operator();
    let status = until_serving(&world, 2, "1/1").await;
    world.until_ready::<Replica>("readers").await;
    assert_eq!(replicas_alive(&world).len(), 2);
    assert_eq!(status.seeds.as_deref(), Some(SEEDS));
    let uid = world.get::<Replica>("readers").await.uid().unwrap();
    assert_eq!(status.selector, Some(format!("graphplane.dev/replica={uid}")));
    let nodes = world.list::<GraphNode>().await;
    let of_fleet: Vec<&GraphNode> = nodes.iter().filter(|n| n.spec.replica.is_some()).collect();
    assert!(
        of_fleet
            .iter()
            .all(|n| n.labels()["graphplane.dev/replica"] == uid && n.spec.volume.is_none())
    );
    assert_eq!(world.names::<GraphVolume>().await, ["std-0"], "a replica has no volume");

    scale(&world, 1).await;
    until_serving(&world, 1, "1/1").await;
    world
        .eventually("one machine is left", async || replicas_alive(&world).len() == 1)
        .await;
    scale(&world, 3).await;
    until_serving(&world, 3, "1/1").await;
    assert_eq!(
        replicas_alive(&world).len(),
        3,
        "the tier, which removes its empty nodes, leaves them alone"
    );
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_published_and_taken_up_one_by_one() {
    let world = world(json!({"replicas": 3})).await;
    let operator = world.operator();
    until_serving(&world, 3, "1/1").await;
    world.machines.behaviour.hold_seeds.store(true, Ordering::SeqCst);
    change(&world);
    let refreshing = world
        .until_says::<Replica>("readers", "UpToDate", "False", "Refreshing")
        .await;
    let ready = refreshing.status.unwrap();
    assert_eq!((ready.replicas, ready.ready_replicas), (3, 0));
    assert!(
        ready.nodes.iter().all(|n| n.seed_version.as_deref() == Some("1/1")),
        "{ready:?}"
    );
    world.until_ready::<Replica>("readers").await;
    world.machines.behaviour.hold_seeds.store(false, Ordering::SeqCst);
    until_serving(&world, 3, "1/2").await;
    world.until_says::<Replica>("readers", "UpToDate", "True", "").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_that_is_refused_stops_at_the_budget_and_the_next_one_heals() {
    let world = world(json!({})).await;
    let operator = world.operator();
    until_serving(&world, 2, "1/1").await;
    *world.machines.behaviour.refuse_seeds.lock() = Some("the hash differs".into());
    change(&world);
    let late = world
        .until_says::<Replica>("readers", "UpToDate", "False", "SeedNotServed")
        .await;
    let status = late.status.unwrap();
    let refusing = status.nodes.iter().filter(|n| n.message.is_some()).count();
    assert_eq!(refusing, 1, "the other one was not asked: {status:?}");
    assert!(status.nodes.iter().all(|n| n.seed_version.as_deref() == Some("1/1")));
    *world.machines.behaviour.refuse_seeds.lock() = None;
    change(&world);
    until_serving(&world, 2, "1/3").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_is_started_again_and_one_that_is_removed_is_made_again() {
    let world = world(json!({})).await;
    let operator = world.operator();
    let status = until_serving(&world, 2, "1/1").await;
    let first = status.nodes[0].name.clone();
    world.machines.kill(&first);
    world
        .until::<GraphNode>(&first, "started again", |n| {
            n.status.as_ref().and_then(|s| s.epoch).is_some_and(|e| e.0 == 2)
        })
        .await;
    until_serving(&world, 2, "1/1").await;
    let uid = world.get::<GraphNode>(&first).await.uid();
    world.delete::<GraphNode>(&first).await;
    world
        .until::<GraphNode>(&first, "made again", |n| {
            n.uid() != uid && n.metadata.deletion_timestamp.is_none()
        })
        .await;
    until_serving(&world, 2, "1/1").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_comes_back_makes_nothing_twice() {
    let world = world(json!({})).await;
    let operator = world.operator();
    until_serving(&world, 2, "1/1").await;
    operator.kill().await;
    let launches = world.machines.launches();
    let operator = world.operator();
    change(&world);
    until_serving(&world, 2, "1/2").await;
    assert_eq!(world.machines.launches(), launches);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_is_deleted_leaves_nothing_and_its_graph_serves_on() {
    let world = world(json!({})).await;
    let operator = world.operator();
    until_serving(&world, 2, "1/1").await;
    assert!(world.objects().join(SEEDS).join("latest.json").exists());
    world.delete::<Replica>("readers").await;
    world.until_gone::<Replica>("readers").await;
    assert_eq!(world.names::<GraphNode>().await, ["std-0"]);
    assert!(replicas_alive(&world).is_empty() && world.machines.scratch().is_empty());
    assert!(!world.objects().join(SEEDS).join("latest.json").exists());
    world.until_ready::<Graph>("karate").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_is_deleted_while_it_publishes_stops_that_first() {
    let world = world(json!({})).await;
    world.machines.behaviour.hold_backups.store(true, Ordering::SeqCst);
    let operator = world.operator();
    world
        .until::<Replica>("readers", "publishing", |r| {
            r.status.as_ref().is_some_and(|s| s.publishing.is_some())
        })
        .await;
    world.delete::<Replica>("readers").await;
    world.until_gone::<Replica>("readers").await;
    let disk = world.machines.disk("std-0");
    assert!(disk.lock().tasks.values().all(|task| task["status"] == "cancelled"));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_goes_with_its_graph() {
    let world = world(json!({})).await;
    let operator = world.operator();
    until_serving(&world, 2, "1/1").await;
    world
        .patch::<Graph>("karate", json!({"spec": {"deletionPolicy": "Delete"}}))
        .await;
    world.delete::<Graph>("karate").await;
    world.until_gone::<Graph>("karate").await;
    world
        .until_says::<Replica>("readers", "Ready", "False", "GraphNotFound")
        .await;
    world
        .eventually("no machine serves what is gone", async || {
            replicas_alive(&world).is_empty() && !world.objects().join(SEEDS).join("latest.json").exists()
        })
        .await;
    operator.stop().await;
}
