//! Of two operators, one acts.

use crate::gate::Gate;
use crate::world::{World, graph_object};
use graphplane_crds::{Graph, SYSTEM_NAMESPACE};
use graphplane_operator::{Error, LeaderElection, Settings};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams};
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

fn leases(world: &World) -> (Api<Lease>, String) {
    let name = LeaderElection::new("anybody").lease;
    (Api::namespaced(world.client.clone(), SYSTEM_NAMESPACE), name)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_leads_until_it_has_finished() {
    let world = World::with_tier(json!({})).await;
    let gate = Gate::default();
    gate.hold("start ");
    let first = world.operator_with(gate.clone(), candidate(&world, "a"));
    world.create::<Graph>(graph_object("one", json!({}))).await;
    gate.reached().await;
    let second = world.operator_with(Gate::default(), candidate(&world, "b"));
    let asked = Timestamp::now();
    let ending = tokio::spawn(first.stop());
    let (leases, name) = leases(&world);
    world
        .eventually("the lease is renewed while a call is under way", async || {
            let spec = leases.get(&name).await.unwrap().spec.unwrap();
            assert_eq!(spec.holder_identity.as_deref(), Some("a"), "it has not finished");
            spec.renew_time.is_some_and(|renewed| renewed.0 > asked)
        })
        .await;
    gate.release();
    ending.await.unwrap();
    world.until_ready::<Graph>("one").await;
    assert_eq!(world.machines.launches(), 1);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leads_no_more_drops_what_it_does() {
    let world = World::with_tier(json!({})).await;
    let gate = Gate::default();
    gate.hold("start ");
    let first = world.operator_with(gate.clone(), candidate(&world, "a"));
    world.create::<Graph>(graph_object("one", json!({}))).await;
    gate.reached().await;
    let (leases, name) = leases(&world);
    let taken = json!({"spec": {"holderIdentity": "b", "leaseDurationSeconds": 600}});
    leases
        .patch(&name, &PatchParams::default(), &Patch::Merge(&taken))
        .await
        .unwrap();
    assert!(matches!(first.end().await, Err(Error::LostLeadership)));
    assert_eq!(world.machines.launches(), 0, "its call went no further");
}
