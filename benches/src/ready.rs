//! apply -> Ready of a new graph: on a node that runs, and with a node that must be started.

use crate::{Result, plane::Plane, samples::Samples};
use futures::StreamExt;
use graphplane_crds::{Graph, Tier, conditions};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams, WatchParams},
};
use serde_json::json;
use std::{path::Path, time::Instant};

fn graph(name: &str, tier: &str) -> Result<Graph> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "graphplane.dev/v1alpha1", "kind": "Graph", "metadata": {"name": name},
        "spec": {
            "tier": tier, "deletionPolicy": "Delete",
            "schema": {"type": "custom", "ddl": "CREATE NODE TABLE N(id INT64 PRIMARY KEY, name STRING);"},
        },
    }))?)
}

async fn until_ready(graphs: &Api<Graph>, graph: &Graph) -> Result<std::time::Duration> {
    let started = Instant::now();
    let created = graphs.create(&PostParams::default(), graph).await?;
    let version = created.resource_version().ok_or("a created object has a version")?;
    let only = WatchParams::default().fields(&format!("metadata.name={}", created.name_any()));
    let mut events = graphs.watch(&only, &version).await?.boxed();
    while let Some(event) = events.next().await {
        if let kube::api::WatchEvent::Modified(graph) = event?
            && conditions::is_true(
                &graph.status.map(|s| s.conditions).unwrap_or_default(),
                conditions::READY,
            )
        {
            return Ok(started.elapsed());
        }
    }
    Err("the watch ended before the graph was ready".into())
}

/// Prints the medians.
pub(crate) async fn run(bin: &Path) -> Result<()> {
    let plane = Plane::start(bin).await?;
    let client = plane.client().await?;
    let tiers: Api<Tier> = Api::all(client.clone());
    for (name, databases) in [("dense", 100), ("single", 1)] {
        let tier = json!({
            "apiVersion": "graphplane.dev/v1alpha1", "kind": "Tier", "metadata": {"name": name},
            "spec": {
                "memory": {"nodeMiB": 12800, "perDatabaseMiB": 128}, "databasesPerNode": databases,
                "storage": {"sizeGiB": 500}, "scaling": {"minNodes": 0, "maxNodes": 50},
            },
        });
        tiers
            .patch(name, &PatchParams::apply("bench"), &Patch::Apply(&tier))
            .await?;
    }
    let graphs: Api<Graph> = Api::namespaced(client, "default");
    until_ready(&graphs, &graph("warm-up", "dense")?).await?;
    let mut running = Samples::default();
    for n in 0..30 {
        running.push(until_ready(&graphs, &graph(&format!("dense-{n}"), "dense")?).await?);
    }
    println!(
        "| apply -> Ready on a running node, {} graphs one after the other | {} |",
        running.len(),
        running.summary()
    );
    let mut fresh = Samples::default();
    for n in 0..10 {
        fresh.push(until_ready(&graphs, &graph(&format!("single-{n}"), "single")?).await?);
    }
    println!(
        "| apply -> Ready with a new local node process, {} graphs | {} |",
        fresh.len(),
        fresh.summary()
    );
    Ok(())
}
