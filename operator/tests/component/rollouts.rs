//! Machines that are out of date are replaced, one after the other, with what is on their volumes.

use crate::world::{Known, World, graph_object, tier_object};
use graphplane_crds::{Graph, GraphNode, Tier};
use kube::ResourceExt;
use serde_json::json;

const REPLACE: &str = "graphplane.dev/replace";

fn is_current(tier: &Tier, nodes: u32) -> bool {
    let counts = tier.status.as_ref().map(|s| s.nodes.clone()).unwrap_or_default();
    counts.up_to_date == nodes && counts.ready == nodes && counts.replacing == 0
}

/// Changes what machines are started from, and has the tier looked at.
async fn change(world: &World, template: &str) {
    world.machines.set_template(template);
    world
        .patch::<Tier>("std", json!({"spec": {"description": template}}))
        .await;
}

async fn three_nodes(template: &str) -> World {
    let world = World::new().await;
    world.machines.set_template(template);
    let tier = json!({"scaling": {"minNodes": 3, "maxNodes": 3}});
    world.create::<Tier>(tier_object("std", tier)).await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_are_replaced_one_at_a_time_and_their_graphs_come_back() {
    let world = three_nodes("1:a").await;
    let operator = world.operator();
    world.create::<Graph>(graph_object("karate", json!({}))).await;
    world.until_ready::<Graph>("karate").await;
    world.until::<Tier>("std", "started", |t| is_current(t, 3)).await;
    change(&world, "1:b").await;
    world
        .until::<Tier>("std", "replaced", |t| {
            is_current(t, 3) && world.machines.launches() == 6
        })
        .await;
    world.until_says::<Tier>("std", "UpToDate", "True", "Reconciled").await;
    assert_eq!(world.machines.fewest(), 2, "one at a time");
    for node in world.list::<GraphNode>().await {
        let status = node.status.clone().unwrap();
        assert_eq!((status.template.as_deref(), status.epoch.unwrap().0), (Some("1:b"), 2));
        assert!(!node.annotations().contains_key(REPLACE));
    }
    world.until_ready::<Graph>("karate").await;
    assert_eq!(world.machines.databases().len(), 1);
    assert_eq!(
        world.machines.made().values().sum::<usize>(),
        1,
        "nothing was made anew"
    );
    // Another way to compute what machines are started from replaces nothing.
    change(&world, "2:b").await;
    world
        .until::<Tier>("std", "looked at", |t| {
            let status = t.status.clone().unwrap_or_default();
            status.observed_generation == t.metadata.generation && status.nodes.up_to_date == 0
        })
        .await;
    assert_eq!(world.machines.launches(), 6);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_ends_in_the_middle_is_followed_by_one_that_goes_on() {
    let world = three_nodes("1:a").await;
    let operator = world.operator();
    world.until::<Tier>("std", "started", |t| is_current(t, 3)).await;
    change(&world, "1:b").await;
    world
        .eventually("a machine is replaced", async || world.machines.launches() > 3)
        .await;
    operator.kill().await;
    let operator = world.operator();
    world
        .until::<Tier>("std", "replaced", |t| {
            is_current(t, 3) && world.machines.launches() >= 6
        })
        .await;
    assert_eq!((world.machines.launches(), world.machines.fewest()), (6, 2));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_somebody_keeps_is_replaced_when_they_let_it_go() {
    let world = three_nodes("1:a").await;
    let operator = world.operator();
    world.until::<Tier>("std", "started", |t| is_current(t, 3)).await;
    let keep = |value: Option<&str>| json!({"metadata": {"annotations": {"graphplane.dev/do-not-disrupt": value}}});
    world.patch::<GraphNode>("std-1", keep(Some("true"))).await;
    change(&world, "1:b").await;
    world
        .until::<Tier>("std", "waiting for the last one", |t| {
            let waits = t.condition("UpToDate").is_some_and(|c| c.reason == "RolloutWaits");
            waits && t.status.as_ref().is_some_and(|s| s.nodes.up_to_date == 2)
        })
        .await;
    assert_eq!(world.machines.launches(), 5);
    let said = world.get::<GraphNode>("std-1").await.status.unwrap();
    assert_eq!(said.template.as_deref(), Some("1:a"));
    world.patch::<GraphNode>("std-1", keep(None)).await;
    world.until::<Tier>("std", "replaced", |t| is_current(t, 3)).await;
    assert_eq!(world.machines.launches(), 6);
    operator.stop().await;
}
