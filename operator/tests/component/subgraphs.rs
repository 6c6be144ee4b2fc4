//! Workspaces beside a graph.

use crate::world::{World, graph_object, subgraph_object};
use graphplane_crds::{Backup, Graph, GraphNode, Subgraph};
use kube::ResourceExt;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

const PARENT: &str = "kg0123456789abcdef";

async fn world() -> World {
    let world = World::with_tier(json!({"maxSubgraphs": 3})).await;
    world
        .create::<Graph>(graph_object("karate", json!({"graphId": PARENT})))
        .await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn each_type_begins_with_its_tables() {
    let world = world().await;
    let operator = world.operator();
    for (name, type_) in [("static", "static"), ("memory", "memory"), ("empty", "empty")] {
        let spec = json!({"name": name, "type": type_, "ddl": "CREATE NODE TABLE Own(x INT64 PRIMARY KEY);"});
        world.create::<Subgraph>(subgraph_object(name, "karate", spec)).await;
    }
    for name in ["static", "memory", "empty"] {
        let status = world.until_ready::<Subgraph>(name).await.status.unwrap();
        assert_eq!(status.database_id.unwrap().as_str(), format!("{PARENT}_{name}"));
        assert_eq!(
            (status.node.as_deref(), status.applied_schema.unwrap().statements),
            (Some("std-0"), 1)
        );
    }
    let databases = world.machines.databases();
    let tables = |name: &str| databases[&format!("{PARENT}_{name}")].len();
    assert_eq!(
        (tables("static"), tables("memory"), tables("empty")),
        (3, 8, 1),
        "{databases:?}"
    );
    assert!(
        databases[&format!("{PARENT}_static")][0].contains("`A`"),
        "{databases:?}"
    );
    let parent = world.until::<Graph>("karate", "counted", |g| {
        g.status.as_ref().and_then(|s| s.subgraphs) == Some(3)
    });
    parent.await;
    let node = world.until::<GraphNode>("std-0", "allocated", |n| {
        n.status
            .as_ref()
            .and_then(|s| s.allocated)
            .is_some_and(|a| (a.databases, a.subgraphs) == (1, 3))
    });
    node.await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subgraph_waits_for_its_parent() {
    let world = World::with_tier(json!({})).await;
    let operator = world.operator();
    world
        .create::<Subgraph>(subgraph_object("dev", "karate", json!({})))
        .await;
    world
        .until_says::<Subgraph>("dev", "Stalled", "True", "GraphNotFound")
        .await;
    world.create::<Graph>(graph_object("karate", json!({}))).await;
    world.until_ready::<Subgraph>("dev").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_and_the_name_are_kept() {
    let world = world().await;
    let operator = world.operator();
    for n in 0..3 {
        world
            .create::<Subgraph>(subgraph_object(
                &format!("s{n}"),
                "karate",
                json!({"name": format!("s{n}")}),
            ))
            .await;
        world.until_ready::<Subgraph>(&format!("s{n}")).await;
    }
    world
        .create::<Subgraph>(subgraph_object("s3", "karate", json!({"name": "s3"})))
        .await;
    let over = world
        .until_says::<Subgraph>("s3", "Stalled", "True", "SubgraphLimitReached")
        .await;
    assert!(
        over.status
            .unwrap()
            .conditions
            .iter()
            .any(|c| c.message.contains("3 subgraphs"))
    );
    world
        .create::<Subgraph>(subgraph_object("twin", "karate", json!({"name": "s0"})))
        .await;
    world
        .until_says::<Subgraph>("twin", "Stalled", "True", "NameTaken")
        .await;
    // Deleting the twin must not touch the database of the one that came first.
    world.delete::<Subgraph>("twin").await;
    world.until_gone::<Subgraph>("twin").await;
    assert!(world.machines.databases().contains_key(&format!("{PARENT}_s0")));
    assert!(world.list::<Backup>().await.is_empty());
    // A place that is left is taken by who waits.
    world
        .patch::<Subgraph>("s1", json!({"spec": {"deletionPolicy": "Delete"}}))
        .await;
    world.delete::<Subgraph>("s1").await;
    world.until_ready::<Subgraph>("s3").await;
    operator.stop().await;
}

fn fork_object(name: &str, extra: Value) -> Value {
    let mut spec = json!({"name": name, "type": "static", "forkParent": true});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    subgraph_object(name, "karate", spec)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_begins_as_a_copy_of_its_parent() {
    let world = world().await;
    let operator = world.operator();
    world.until_ready::<Graph>("karate").await;
    world.machines.behaviour.hold_forks.store(true, Ordering::SeqCst);
    let ddl = "CREATE NODE TABLE Own(x INT64 PRIMARY KEY);";
    world.create::<Subgraph>(fork_object("copy", json!({"ddl": ddl}))).await;
    let forking = world
        .until_says::<Subgraph>("copy", "Progressing", "True", "Forking")
        .await;
    let status = forking.status.unwrap();
    assert_eq!(status.database_id.unwrap().as_str(), format!("{PARENT}_copy"));
    assert!(status.applied_schema.is_none() && !world.machines.databases().contains_key(&format!("{PARENT}_copy")));
    world.machines.behaviour.hold_forks.store(false, Ordering::SeqCst);
    let status = world.until_ready::<Subgraph>("copy").await.status.unwrap();
    assert_eq!(status.applied_schema.unwrap().statements, 1);
    let databases = world.machines.databases();
    let (copy, parent) = (&databases[&format!("{PARENT}_copy")], &databases[PARENT]);
    assert!(copy.starts_with(parent), "{databases:?}");
    assert_eq!(copy.len(), parent.len() + 1, "with the statement of its own");
    assert_eq!(world.machines.made()[&format!("{PARENT}_copy")], 1);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_that_fails_is_made_again_and_nothing_is_taken_for_one() {
    let world = world().await;
    let operator = world.operator();
    world.until_ready::<Graph>("karate").await;
    *world.machines.behaviour.fail_fork.lock() = Some("No space left on device".into());
    world.create::<Subgraph>(fork_object("copy", json!({}))).await;
    let failed = world
        .until_says::<Subgraph>("copy", "Ready", "False", "ForkFailed")
        .await;
    let says = |s: &Subgraph, text: &str| {
        s.status
            .iter()
            .flat_map(|s| &s.conditions)
            .any(|c| c.message.contains(text))
    };
    assert!(says(&failed, "No space left"));
    // A database that somebody kept is not what was asked for.
    world
        .create::<Subgraph>(subgraph_object(
            "kept",
            "karate",
            json!({"name": "kept", "deletionPolicy": "Retain"}),
        ))
        .await;
    world.until_ready::<Subgraph>("kept").await;
    world.delete::<Subgraph>("kept").await;
    world.until_gone::<Subgraph>("kept").await;
    world.create::<Subgraph>(fork_object("kept", json!({}))).await;
    let stalled = world
        .until_says::<Subgraph>("kept", "Stalled", "True", "NameTaken")
        .await;
    assert!(says(&stalled, "spec.forkParent"));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_is_stopped_when_its_subgraph_is_deleted() {
    let world = world().await;
    let operator = world.operator();
    world.until_ready::<Graph>("karate").await;
    world.machines.behaviour.hold_forks.store(true, Ordering::SeqCst);
    world.create::<Subgraph>(fork_object("copy", json!({}))).await;
    world
        .until_says::<Subgraph>("copy", "Progressing", "True", "Forking")
        .await;
    world.delete::<Subgraph>("copy").await;
    world.until_gone::<Subgraph>("copy").await;
    world.machines.behaviour.hold_forks.store(false, Ordering::SeqCst);
    // Its name is free, and nothing of it comes back.
    world.create::<Subgraph>(fork_object("copy", json!({}))).await;
    world.until_ready::<Subgraph>("copy").await;
    assert_eq!(world.machines.made()[&format!("{PARENT}_copy")], 1);
    assert!(world.list::<Backup>().await.is_empty());
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graph_takes_its_subgraphs_with_it_each_with_its_backup() {
    let world = world().await;
    let operator = world.operator();
    world
        .create::<Subgraph>(subgraph_object("keep", "karate", json!({"name": "keep"})))
        .await;
    world
        .create::<Subgraph>(subgraph_object(
            "drop",
            "karate",
            json!({"name": "drop", "deletionPolicy": "Delete"}),
        ))
        .await;
    world.until_ready::<Subgraph>("keep").await;
    world.until_ready::<Subgraph>("drop").await;
    world.delete::<Graph>("karate").await;
    world.until_gone::<Graph>("karate").await;
    assert!(world.list::<Subgraph>().await.is_empty() && world.machines.databases().is_empty());
    let backups = world.list::<Backup>().await;
    let of: Vec<_> = backups
        .iter()
        .map(|b| b.status.clone().unwrap().database_id.unwrap().to_string())
        .collect();
    assert_eq!(
        of,
        [PARENT.to_owned(), format!("{PARENT}_keep")],
        "{:?}",
        backups.iter().map(|b| b.name_any()).collect::<Vec<_>>()
    );
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subgraph_comes_back_with_its_node() {
    let world = world().await;
    let operator = world.operator();
    world
        .create::<Subgraph>(subgraph_object("dev", "karate", json!({})))
        .await;
    world.until_ready::<Subgraph>("dev").await;
    world.machines.kill("std-0");
    world
        .until::<Graph>("karate", "back", |g| {
            g.status.as_ref().and_then(|s| s.epoch).is_some_and(|e| e.0 == 2)
        })
        .await;
    world.until_ready::<Subgraph>("dev").await;
    assert!(world.machines.made().values().all(|n| *n == 1));
    operator.stop().await;
}
