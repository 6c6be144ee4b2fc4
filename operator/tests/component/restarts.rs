//! Machines that die, agents that fall silent, operators that come back.

use crate::world::{Known, World, graph_object};
use graphplane_crds::graph::GraphPhase;
use graphplane_crds::node::NodePhase;
use graphplane_crds::{Graph, GraphNode, GraphVolume};
use serde_json::json;
use std::sync::atomic::Ordering;

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_died_comes_back_under_the_next_epoch_with_its_graphs() {
    let world = World::with_tier(json!({})).await;
    let operator = world.operator();
    world.create::<Graph>(graph_object("karate", json!({}))).await;
    let before = world.until_ready::<Graph>("karate").await.status.unwrap();
    world.machines.behaviour.never_register.store(true, Ordering::SeqCst);
    world.machines.kill("std-0");
    let lost = world.until_says::<Graph>("karate", "Ready", "False", "").await;
    assert_eq!(lost.status.unwrap().phase, Some(GraphPhase::Unavailable));
    world.machines.behaviour.never_register.store(false, Ordering::SeqCst);
    let after = world.until_ready::<Graph>("karate").await.status.unwrap();
    assert_eq!((before.epoch.unwrap().0, after.epoch.unwrap().0), (1, 2));
    assert_ne!(before.endpoint, after.endpoint);
    assert_eq!(before.node, after.node);
    assert_eq!(
        world.get::<GraphVolume>("std-0").await.status.unwrap().epoch.unwrap().0,
        2
    );
    assert_eq!(world.machines.launches(), 2);
    assert!(world.machines.made().values().all(|n| *n == 1));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_comes_back_takes_over_what_runs() {
    let world = World::with_tier(json!({})).await;
    let operator = world.operator();
    world.create::<Graph>(graph_object("karate", json!({}))).await;
    world.until_ready::<Graph>("karate").await;
    operator.kill().await;
    let operator = world.operator();
    world.create::<Graph>(graph_object("second", json!({}))).await;
    world.until_ready::<Graph>("second").await;
    assert_eq!((world.machines.launches(), world.machines.disks_made()), (1, 1));
    // What died while nobody looked is found dead.
    operator.stop().await;
    world.machines.kill("std-0");
    let operator = world.operator();
    world
        .until::<Graph>("karate", "back", |g| {
            g.status.as_ref().and_then(|s| s.epoch).is_some_and(|e| e.0 == 2)
        })
        .await;
    world.until_ready::<Graph>("karate").await;
    world.until_ready::<Graph>("second").await;
    assert_eq!(world.machines.launches(), 2);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_falls_silent_loses_its_lease() {
    let world = World::with_tier(json!({})).await;
    world.machines.behaviour.short_leases.store(true, Ordering::SeqCst);
    let operator = world.operator();
    world.create::<Graph>(graph_object("karate", json!({}))).await;
    world.until_ready::<Graph>("karate").await;
    world.machines.behaviour.never_renew.store(true, Ordering::SeqCst);
    let node = world
        .until_says::<GraphNode>("std-0", "LeaseHeld", "False", "LeaseExpired")
        .await;
    assert_eq!(node.status.unwrap().phase, Some(NodePhase::Lost));
    world.until_says::<Graph>("karate", "Ready", "False", "NodeLost").await;
    assert_eq!(world.machines.launches(), 1, "it is given the time to come back");
    // Meanwhile nothing new lands on it, and no second node is started for what it may take itself.
    world.create::<Graph>(graph_object("second", json!({}))).await;
    world
        .until_says::<Graph>("second", "Ready", "False", "LeaseExpired")
        .await;
    world.machines.behaviour.never_renew.store(false, Ordering::SeqCst);
    world.until_ready::<Graph>("karate").await;
    world.until_ready::<Graph>("second").await;
    assert_eq!(world.machines.launches(), 1);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_keeps_dying_is_started_ever_more_slowly() {
    let world = World::with_tier(json!({})).await;
    world.machines.behaviour.never_register.store(true, Ordering::SeqCst);
    let operator = world.operator();
    world.create::<Graph>(graph_object("karate", json!({}))).await;
    for n in 1..=3 {
        world
            .eventually("it is started", async || {
                world.machines.launches() >= n && !world.machines.alive().is_empty()
            })
            .await;
        world.machines.kill("std-0");
    }
    // A wait that is over before it was seen is followed by a longer one.
    let held = world
        .until::<GraphNode>("std-0", "held back", |node| {
            if !world.machines.alive().is_empty() {
                world.machines.kill("std-0");
            }
            node.condition("Ready")
                .is_some_and(|c| c.status == "False" && c.reason == "Restarting" && c.message.contains("in a while"))
        })
        .await;
    let message = held.condition("Ready").unwrap().message;
    assert!(message.contains("log"), "{message}");
    world.machines.behaviour.never_register.store(false, Ordering::SeqCst);
    world.until_ready::<Graph>("karate").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_vanished_is_never_replaced_by_an_empty_one() {
    let world = World::with_tier(json!({})).await;
    let operator = world.operator();
    world.create::<Graph>(graph_object("karate", json!({}))).await;
    world.until_ready::<Graph>("karate").await;
    operator.stop().await;
    world.machines.kill("std-0");
    world.machines.lose_disk("std-0");
    let operator = world.operator();
    world
        .until_says::<GraphVolume>("std-0", "Stalled", "True", "VolumeLost")
        .await;
    world.until_says::<Graph>("karate", "Ready", "False", "").await;
    assert_eq!((world.machines.launches(), world.machines.disks_made()), (1, 1));
    operator.stop().await;
}
