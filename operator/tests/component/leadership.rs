//! Of two operators, one acts.

use crate::gate::Gate;
use crate::world::{World, graph_object};
use graphplane_crds::Graph;
use graphplane_operator::{LeaderElection, Settings};
use serde_json::json;
use std::time::Duration;

fn candidate(world: &World, name: &str) -> Settings {
    let election = LeaderElection {
        // Long enough that no busy machine keeps the first from renewing, and short enough to wait for its end.
        duration: Duration::from_secs(15),
        ..LeaderElection::new(name)
    };
    Settings {
        leader_election: Some(election),
        ..world.settings()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_takes_over_when_the_first_ends() {
    let world = World::with_tier(json!({})).await;
    let first = world.operator_with(Gate::default(), candidate(&world, "a"));
    world.create::<Graph>(graph_object("one", json!({}))).await;
    world.until_ready::<Graph>("one").await;
    let second = world.operator_with(Gate::default(), candidate(&world, "b"));
    world.create::<Graph>(graph_object("two", json!({}))).await;
    world.until_ready::<Graph>("two").await;
    let writes = |deeds: Vec<String>| deeds.into_iter().filter(|d| d.contains("graphplane.dev")).count();
    assert_eq!(writes(second.gate.deeds()), 0, "it waits");
    assert!(second.metrics.encode().contains("graphplane_operator_leader 0"));
    first.stop().await;
    world.create::<Graph>(graph_object("three", json!({}))).await;
    world.until_ready::<Graph>("three").await;
    assert!(second.metrics.encode().contains("graphplane_operator_leader 1"));
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_takes_over_when_the_first_is_killed() {
    let world = World::with_tier(json!({})).await;
    let first = world.operator_with(Gate::default(), candidate(&world, "a"));
    world.create::<Graph>(graph_object("one", json!({}))).await;
    world.until_ready::<Graph>("one").await;
    first.kill().await;
    let second = world.operator_with(Gate::default(), candidate(&world, "b"));
    world.create::<Graph>(graph_object("two", json!({}))).await;
    world.until_ready::<Graph>("two").await;
    assert_eq!(world.machines.launches(), 1);
    second.stop().await;
}
