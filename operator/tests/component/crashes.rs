//! The operator is cut off before and after everything that it does to the world outside of it, one run for each, and
//! started again. In the end the world is the same as if nothing had happened: nothing is made twice, nothing is left.

use crate::gate::{Cut, Gate, When};
use crate::world::{DDL, Operator, World, graph_object, subgraph_object};
use futures::StreamExt;
use graphplane_crds::backup::BackupPhase;
use graphplane_crds::{Backup, Graph, GraphNode, GraphVolume, Subgraph};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use serde_json::{Value, json};
use std::future::Future;

const ID: &str = "kg0123456789abcdef";

/// What somebody sees who looks at the world: names, places, schemas, phases; without times, UIDs and addresses.
async fn picture(world: &World) -> Value {
    let graphs = world.list::<Graph>().await;
    let graphs: Vec<Value> = graphs
        .iter()
        .map(|g| {
            let s = g.status.clone().unwrap_or_default();
            json!({"name": g.name_any(), "phase": s.phase, "id": s.graph_id, "node": s.node, "volume": s.volume,
                "schema": s.applied_schema})
        })
        .collect();
    let subgraphs = world.list::<Subgraph>().await;
    let subgraphs: Vec<Value> = subgraphs
        .iter()
        .map(|g| {
            let s = g.status.clone().unwrap_or_default();
            json!({"name": g.name_any(), "database": s.database_id, "node": s.node, "schema": s.applied_schema})
        })
        .collect();
    let nodes = world.list::<GraphNode>().await;
    let nodes: Vec<Value> = nodes
        .iter()
        .map(|n| {
            let s = n.status.clone().unwrap_or_default();
            json!({"name": n.name_any(), "phase": s.phase, "epoch": s.epoch, "provider": s.provider_id})
        })
        .collect();
    let volumes = world.list::<GraphVolume>().await;
    let volumes: Vec<Value> = volumes
        .iter()
        .map(|v| {
            let s = v.status.clone().unwrap_or_default();
            json!({"name": v.name_any(), "state": s.state, "attached": s.attached_to, "epoch": s.epoch})
        })
        .collect();
    let backups = world.list::<Backup>().await;
    let mut backups: Vec<Value> = backups
        .iter()
        .map(|b| {
            let s = b.status.clone().unwrap_or_default();
            json!({"database": s.database_id, "phase": s.phase, "counts": [s.node_count, s.relationship_count]})
        })
        .collect();
    backups.sort_by_key(Value::to_string);
    json!({
        "graphs": graphs, "subgraphs": subgraphs, "nodes": nodes, "volumes": volumes, "backups": backups,
        "secrets": world.names::<Secret>().await, "leases": world.names::<Lease>().await,
        "machines": world.machines.alive(), "disks": world.machines.disks(), "databases": world.machines.databases(),
        // How often things were made, in the life of this world.
        "launches": world.machines.launches(), "disksMade": world.machines.disks_made(), "made": world.machines.made(),
    })
}

/// Runs `story` while an operator runs that is cut off once; a new one takes its place. Whether the cut was reached.
pub(crate) async fn with_cut<T>(
    world: &World,
    cut: Option<Cut>,
    story: impl Future<Output = T>,
) -> (T, Operator, bool) {
    let gate = cut.map_or_else(Gate::default, Gate::cut_at);
    let mut operator = Some(world.operator_with(gate.clone(), world.settings()));
    let mut story = std::pin::pin!(story);
    tokio::select! {
        told = &mut story => (told, operator.take().unwrap(), false),
        () = gate.reached() => {
            operator.take().unwrap().kill().await;
            let next = world.operator();
            (story.await, next, true)
        }
    }
}

async fn build(world: &World) -> Value {
    let ddl = format!("{DDL} CREATE NODE TABLE B(x INT64 PRIMARY KEY);");
    world
        .create::<Graph>(graph_object(
            "karate",
            json!({"graphId": ID, "schema": {"type": "custom", "ddl": ddl}}),
        ))
        .await;
    let spec = json!({"name": "dev", "ddl": "CREATE NODE TABLE Own(x INT64 PRIMARY KEY);"});
    world.create::<Subgraph>(subgraph_object("dev", "karate", spec)).await;
    let spec = json!({"name": "copy", "type": "static", "forkParent": true});
    world.create::<Subgraph>(subgraph_object("copy", "karate", spec)).await;
    world.until_ready::<Graph>("karate").await;
    world.until_ready::<Subgraph>("dev").await;
    world.until_ready::<Subgraph>("copy").await;
    world.until_ready::<GraphNode>("std-0").await;
    world.until_ready::<GraphVolume>("std-0").await;
    // The lease is the agent's doing, a moment later.
    world
        .eventually("the lease is there", async || world.list::<Lease>().await.len() == 1)
        .await;
    world
        .until::<GraphVolume>("std-0", "in use", |v| {
            v.status
                .as_ref()
                .is_some_and(|s| s.databases.len() == 3 && format!("{:?}", s.state).contains("InUse"))
        })
        .await;
    world
        .until::<GraphNode>("std-0", "noted", |n| {
            n.status.as_ref().is_some_and(|s| s.provider_id.is_some())
        })
        .await;
    picture(world).await
}

async fn tear_down(world: &World) -> Value {
    world.delete::<Graph>("karate").await;
    world.until_none::<Graph>().await;
    world.until_none::<Subgraph>().await;
    world.until_none::<GraphNode>().await;
    world.until_none::<GraphVolume>().await;
    world.until_none::<Secret>().await;
    world.until_none::<Lease>().await;
    picture(world).await
}

/// The reference: the same stories without a cut, and how many deeds each took.
async fn reference() -> (Value, usize, Value, usize) {
    let world = World::with_tier(json!({})).await;
    let (built, operator, _) = with_cut(&world, None, build(&world)).await;
    let build_deeds = operator.gate.deeds().len();
    operator.stop().await;
    let (torn, operator, _) = with_cut(&world, None, tear_down(&world)).await;
    let tear_deeds = operator.gate.deeds().len();
    operator.stop().await;
    (built, build_deeds, torn, tear_deeds)
}

fn check(wanted: &Value, found: &Value, cut: Cut, story: &str) {
    for (key, value) in wanted.as_object().unwrap() {
        assert_eq!(
            value, &found[key],
            "{key} differs after a cut {:?} deed {} of {story}:\n{found:#}",
            cut.1, cut.0
        );
    }
}

/// Cuts at every deed and a few beyond, since a run after a cut may take more of them.
pub(crate) fn cuts(deeds: usize) -> Vec<Cut> {
    (1..=deeds + 2)
        .flat_map(|n| [(n, When::Before), (n, When::After)])
        .collect()
}

pub(crate) const AT_ONCE: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_anywhere_in_building_up_changes_nothing() {
    let (wanted, deeds, ..) = reference().await;
    assert!(deeds > 15, "{deeds}");
    let runs = futures::stream::iter(cuts(deeds)).map(|cut| {
        let wanted = wanted.clone();
        async move {
            let world = World::with_tier(json!({})).await;
            let (found, operator, reached) = with_cut(&world, Some(cut), build(&world)).await;
            check(&wanted, &found, cut, "building up");
            operator.kill().await;
            world.server.shutdown().await;
            reached
        }
    });
    let reached: Vec<bool> = runs.buffer_unordered(AT_ONCE).collect().await;
    let reached = reached.into_iter().filter(|r| *r).count();
    assert!(reached >= deeds, "only {reached} of {deeds} deeds were cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_anywhere_in_tearing_down_loses_and_leaves_nothing() {
    let (built, _, wanted, deeds) = reference().await;
    assert!(deeds > 20, "{deeds}");
    let runs = futures::stream::iter(cuts(deeds)).map(|cut| {
        let (built, wanted) = (built.clone(), wanted.clone());
        async move {
            let world = World::with_tier(json!({})).await;
            let (found, operator, _) = with_cut(&world, None, build(&world)).await;
            check(&built, &found, (0, When::Before), "building up");
            operator.stop().await;
            let (found, operator, reached) = with_cut(&world, Some(cut), tear_down(&world)).await;
            check(&wanted, &found, cut, "tearing down");
            for backup in world.list::<Backup>().await {
                let status = backup.status.unwrap();
                assert_eq!(status.phase, Some(BackupPhase::Completed));
                assert!(world.objects().join(status.key.unwrap()).join("manifest.json").exists());
            }
            operator.kill().await;
            world.server.shutdown().await;
            reached
        }
    });
    let reached: Vec<bool> = runs.buffer_unordered(AT_ONCE).collect().await;
    let reached = reached.into_iter().filter(|r| *r).count();
    assert!(reached >= deeds, "only {reached} of {deeds} deeds were cut");
}
