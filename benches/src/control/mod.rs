//! What peace costs: calls to AWS per graph and hour when nothing happens.
//!
//! The operator runs in this process with its provider for AWS against moto, and makes everything itself: 1,000 graphs on
//! 100 machines. Agents are played, since AWS sees nothing of them. Then another operator takes over, and its calls are
//! counted. An hour of that would be an hour of waiting, so the two periods that recur within an hour, of listings and of
//! looking at every object again, are [`FASTER`]; what happens once an hour or once a day is counted by itself.

mod account;
mod agents;

use crate::Result;
use account::{Account, Calls};
use futures::{StreamExt, TryStreamExt, stream};
use graphplane_crds::{Graph, Tier, all_crds, conditions};
use graphplane_embedded::{EmbeddedServer, ServerConfig};
use graphplane_operator::{Metrics, ProviderChoice, Settings, provider::Provider};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::{runtime::Handle, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

const GRAPHS: usize = 1000;
const PER_NODE: usize = 10;
/// By how much the periods are shorter than in life.
const FASTER: u32 = 20;
const HOUR: Duration = Duration::from_secs(3600);
/// Moto makes a hundred machines one by one.
const PATIENCE: Duration = Duration::from_secs(3600);

/// An operator that runs.
struct Operator {
    task: JoinHandle<std::result::Result<(), graphplane_operator::Error>>,
    stop: CancellationToken,
    metrics: Metrics,
    /// How long its listings last.
    listing: Duration,
}

impl Operator {
    async fn start(server: &EmbeddedServer, account: &Account, faster: u32) -> Result<Self> {
        let cluster = server.cluster_id();
        let (provider, registries) = account.provider(cluster, faster).await?;
        let listing = provider.listing_lasts();
        let usual = Settings::with_provider(ProviderChoice::Custom(Arc::new(provider)));
        let settings = Settings {
            cluster_id: Some(cluster.to_owned()),
            resync: usual.resync / faster,
            registries: Some(registries),
            ..usual
        };
        let (metrics, stop) = (settings.metrics.clone(), CancellationToken::new());
        let run = graphplane_operator::run(server.client("default"), settings, stop.clone());
        Ok(Self {
            task: tokio::spawn(run),
            stop,
            metrics,
            listing,
        })
    }

    async fn stop(self) -> Result<()> {
        self.stop.cancel();
        Ok(self.task.await??)
    }

    /// How many listings it has made.
    fn listings(&self) -> usize {
        let text = self.metrics.encode();
        let of_listings =
            |line: &&str| line.starts_with("graphplane_operator_calls_total{") && line.contains("call=\"describe\"");
        let counts = text.lines().filter(of_listings);
        counts
            .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
            .sum()
    }
}

/// Prints the calls per graph and hour, and what they are.
pub(crate) async fn run() -> Result<()> {
    let runtime = Handle::current();
    let account = tokio::task::spawn_blocking(move || Account::open(&runtime)).await?;
    let folder = tempfile::tempdir()?;
    let config = ServerConfig::new(folder.path()).with_crds(all_crds());
    let server = EmbeddedServer::open(config).await?;
    let client = server.client("default");
    let mut agents = tokio::spawn(agents::run(client.clone()));
    let first = Operator::start(&server, &account, 1).await?;
    tokio::select! {
        made = make(&client) => made?,
        ended = &mut agents => return Err(format!("the agents ended: {ended:?}").into()),
    }
    first.stop().await?;

    // At its start an operator looks for orphans and reads the registries, beside the first listing.
    let began = account.now();
    let operator = Operator::start(&server, &account, FASTER).await?;
    tokio::time::sleep(2 * operator.listing).await;
    let registries: Calls = account.calls(began).into_iter().filter(is_daily).collect();

    let (began, before) = (account.now(), operator.listings());
    tokio::time::sleep(HOUR / FASTER).await;
    let (calls, listings) = (account.calls(began), operator.listings() - before);
    // Moto takes seconds for a listing, which is much of a period that is so much shorter.
    let usual = HOUR.as_secs_f64() / (operator.listing * FASTER).as_secs_f64();
    let stretch = (usual / listings.max(1) as f64).max(1.0);
    operator.stop().await?;

    let began = account.now();
    let (provider, _) = account.provider(server.cluster_id(), FASTER).await?;
    let inventory = provider.inventory().ok_or("AWS has an inventory")?;
    inventory.things().await?;
    let orphans = account.calls(began);
    if agents.is_finished() {
        return Err("the agents ended: it was no peace".into());
    }
    agents.abort();
    server.shutdown().await;

    let rows = [
        (
            format!(
                "listings and passes, {usual:.0} listings an hour, {listings} counted with periods {FASTER} times shorter"
            ),
            total(&calls) * stretch,
            calls,
        ),
        ("a look for orphans, once an hour".to_owned(), total(&orphans), orphans),
        (
            "the registries read, once a day".to_owned(),
            total(&registries) / 24.0,
            registries,
        ),
    ];
    let hour: f64 = rows.iter().map(|(_, calls, _)| calls).sum();
    println!(
        "| calls to AWS per graph and hour in peace, {GRAPHS} graphs on {} machines | {:.4} |",
        GRAPHS / PER_NODE,
        hour / GRAPHS as f64
    );
    for (what, hourly, calls) in rows {
        let calls: Vec<String> = calls.iter().map(|(name, count)| format!("{name} {count}")).collect();
        println!("| calls an hour: {what} ({}) | {hourly:.1} |", calls.join(", "));
    }
    Ok(())
}

fn is_daily((name, _): &(String, usize)) -> bool {
    name.starts_with("dynamodb.")
}

fn total(calls: &Calls) -> f64 {
    calls.values().sum::<usize>() as f64
}

/// Makes the graphs and waits until all are ready.
async fn make(client: &Client) -> Result<()> {
    let tier: Tier = serde_json::from_value(json!({
        "apiVersion": "graphplane.dev/v1alpha1", "kind": "Tier", "metadata": {"name": "dense"},
        "spec": {
            "instance": {"types": ["m7g.large"], "architecture": "arm64"},
            "memory": {"nodeMiB": 5120, "perDatabaseMiB": 256}, "databasesPerNode": PER_NODE,
            "storage": {"sizeGiB": 100}, "scaling": {"minNodes": 0, "maxNodes": GRAPHS / PER_NODE},
        },
    }))?;
    let tiers: Api<Tier> = Api::all(client.clone());
    tiers.create(&PostParams::default(), &tier).await?;
    let graphs: Api<Graph> = Api::namespaced(client.clone(), "default");
    let made = (0..GRAPHS).map(|n| {
        let graphs = graphs.clone();
        async move {
            let graph: Graph = serde_json::from_value(json!({
                "apiVersion": "graphplane.dev/v1alpha1", "kind": "Graph", "metadata": {"name": format!("g{n}")},
                "spec": {
                    "tier": "dense", "storage": {"sizeGiB": 5},
                    "schema": {"type": "custom", "ddl": "CREATE NODE TABLE N(id INT64 PRIMARY KEY);"},
                },
            }))?;
            graphs.create(&PostParams::default(), &graph).await?;
            Result::Ok(())
        }
    });
    stream::iter(made).buffer_unordered(64).try_collect::<Vec<()>>().await?;
    let began = Instant::now();
    loop {
        let is_ready = |graph: &&Graph| {
            let status = graph.status.as_ref();
            status.is_some_and(|status| conditions::is_true(&status.conditions, conditions::READY))
        };
        let ready = graphs
            .list(&ListParams::default())
            .await?
            .iter()
            .filter(is_ready)
            .count();
        eprintln!(
            "{ready} of {GRAPHS} graphs are ready after {} s",
            began.elapsed().as_secs()
        );
        if ready == GRAPHS {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            return Err("the graphs do not get ready".into());
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
}
