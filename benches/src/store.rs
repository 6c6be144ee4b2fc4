//! The embedded server: durable writes in group commit, and how soon watchers hear of a write.

use crate::{Result, samples::Samples};
use futures::StreamExt;
use graphplane_embedded::{EmbeddedServer, ServerConfig};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::json;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

const WRITERS: usize = 64;
const WRITES: usize = 200;
const WATCHERS: usize = 100;

fn config_map(name: &str) -> Result<ConfigMap> {
    Ok(serde_json::from_value(
        json!({"metadata": {"name": name}, "data": {"key": "value"}}),
    )?)
}

async fn writes(client: &Client) -> Result<()> {
    let started = Instant::now();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let api: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
            tokio::spawn(async move {
                for n in 0..WRITES {
                    api.create(&PostParams::default(), &config_map(&format!("w{writer}-{n}"))?)
                        .await?;
                }
                Result::Ok(())
            })
        })
        .collect();
    for writer in writers {
        writer.await??;
    }
    let rate = (WRITERS * WRITES) as f64 / started.elapsed().as_secs_f64();
    println!("| embedded server, durable creates in process, {WRITERS} writers | {rate:.0}/s |");
    Ok(())
}

async fn watch_latency(client: &Client) -> Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let version = api
        .list(&ListParams::default().limit(1))
        .await?
        .metadata
        .resource_version
        .unwrap_or_default();
    let sent: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
    let watchers: Vec<_> = (0..WATCHERS)
        .map(|_| {
            let (api, version, sent) = (api.clone(), version.clone(), sent.clone());
            tokio::spawn(async move {
                let mut samples = Samples::default();
                let mut events = api.watch(&WatchParams::default(), &version).await?.boxed();
                while let Some(event) = events.next().await {
                    let WatchEvent::Added(object) = event? else { continue };
                    let name = object.name_any();
                    let started = sent.lock().map_err(|_| "a writer panicked")?.get(&name).copied();
                    if let Some(started) = started {
                        samples.push(started.elapsed());
                    }
                    if name == "last" {
                        break;
                    }
                }
                Result::Ok(samples)
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    for n in 0..200 {
        let name = if n == 199 {
            "last".to_owned()
        } else {
            format!("watched-{n}")
        };
        let object = config_map(&name)?;
        sent.lock()
            .map_err(|_| "a watcher panicked")?
            .insert(name, Instant::now());
        api.create(&PostParams::default(), &object).await?;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut samples = Samples::default();
    for watcher in watchers {
        samples.extend(watcher.await??);
    }
    println!(
        "| embedded server, from request to event at {WATCHERS} watchers | {} |",
        samples.summary()
    );
    Ok(())
}

/// Prints the rates.
pub(crate) async fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = ServerConfig::new(folder.path()).with_crds(graphplane_crds::all_crds());
    let server = EmbeddedServer::open(config).await?;
    let client = server.client("default");
    writes(&client).await?;
    watch_latency(&client).await
}
