//! The caches of the API and what they are indexed by.

use super::Cache;
use crate::auth::{self, API_KEY_PURPOSE};
use crate::graphs::effective_id;
use crate::metrics::Metrics;
use crate::nodes;
use crate::settings::Settings;
use graphplane_core::names::is_fleet_object;
use graphplane_crds::{Backup, Graph, GraphNode, Replica, Subgraph, Tier, annotations};
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher::Config;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// One cache per kind that requests are answered from.
pub(crate) struct Caches {
    /// By graph id.
    pub(crate) graphs: Cache<Graph>,
    /// By [`subgraph_word`].
    pub(crate) subgraphs: Cache<Subgraph>,
    /// By [`fleet_word`].
    pub(crate) replicas: Cache<Replica>,
    pub(crate) nodes: Cache<GraphNode>,
    pub(crate) tiers: Cache<Tier>,
    pub(crate) backups: Cache<Backup>,
    /// API keys, by the first bytes of their hash, and secrets of nodes and fleets.
    pub(crate) secrets: Cache<Secret>,
}

/// Word under which a subgraph is found: its graph and its name, in its namespace.
pub(crate) fn subgraph_word(namespace: &str, graph: &str, name: &str) -> String {
    format!("{namespace}/{graph}/{name}")
}

/// Word under which the read fleets of a graph are found.
pub(crate) fn fleet_word(namespace: &str, graph: &str) -> String {
    format!("{namespace}/{graph}")
}

fn all<K>(_: &mut K) -> bool {
    true
}

/// Schemas are by far the largest part of graphs, and they are read from the API server where they are shown.
fn graph(graph: &mut Graph) -> bool {
    graph.spec.schema.ddl = None;
    true
}

fn subgraph(subgraph: &mut Subgraph) -> bool {
    subgraph.spec.ddl = None;
    true
}

fn no_words<K>(_: &K) -> Vec<String> {
    Vec::new()
}

fn secret(secret: &mut Secret) -> bool {
    nodes::secret::node_of(secret).is_some() || is_fleet_object(&secret.name_any()) || is_api_key(secret)
}

fn is_api_key(secret: &Secret) -> bool {
    secret
        .labels()
        .get(annotations::SECRET_PURPOSE_LABEL)
        .is_some_and(|purpose| purpose == API_KEY_PURPOSE)
}

impl Caches {
    /// Starts following every kind until `stop`.
    pub(crate) fn start(
        client: &Client,
        settings: &Settings,
        metrics: &Arc<Metrics>,
        stop: &CancellationToken,
    ) -> Self {
        let caches = Self {
            graphs: Cache::new(graph, |graph: &Graph| {
                effective_id(graph).into_iter().map(String::from).collect()
            }),
            subgraphs: Cache::new(subgraph, |subgraph: &Subgraph| {
                let namespace = subgraph.namespace().unwrap_or_default();
                vec![subgraph_word(
                    &namespace,
                    &subgraph.spec.graph,
                    subgraph.spec.name.as_str(),
                )]
            }),
            replicas: Cache::new(all, |replica: &Replica| {
                vec![fleet_word(
                    &replica.namespace().unwrap_or_default(),
                    &replica.spec.graph,
                )]
            }),
            nodes: Cache::new(all, no_words),
            tiers: Cache::new(all, no_words),
            backups: Cache::new(all, no_words),
            secrets: Cache::new(secret, |secret: &Secret| {
                if is_api_key(secret) {
                    auth::index_words(secret)
                } else {
                    Vec::new()
                }
            }),
        };
        follow(&caches.graphs, Api::all(client.clone()), metrics, stop);
        follow(&caches.subgraphs, Api::all(client.clone()), metrics, stop);
        follow(&caches.replicas, Api::all(client.clone()), metrics, stop);
        follow(&caches.nodes, Api::all(client.clone()), metrics, stop);
        follow(&caches.tiers, Api::all(client.clone()), metrics, stop);
        follow(&caches.backups, Api::all(client.clone()), metrics, stop);
        follow(
            &caches.secrets,
            Api::namespaced(client.clone(), &settings.system_namespace),
            metrics,
            stop,
        );
        caches
    }

    /// Waits until every first list is complete.
    pub(crate) async fn ready(&self) {
        tokio::join!(
            self.graphs.wait_until(Cache::is_ready),
            self.subgraphs.wait_until(Cache::is_ready),
            self.replicas.wait_until(Cache::is_ready),
            self.nodes.wait_until(Cache::is_ready),
            self.tiers.wait_until(Cache::is_ready),
            self.backups.wait_until(Cache::is_ready),
            self.secrets.wait_until(Cache::is_ready),
        );
    }

    /// The kinds whose first list is not complete, separated by commas; empty when all are.
    pub(crate) fn missing(&self) -> String {
        let kinds = [
            ("Graph", self.graphs.is_ready()),
            ("Subgraph", self.subgraphs.is_ready()),
            ("Replica", self.replicas.is_ready()),
            ("GraphNode", self.nodes.is_ready()),
            ("Tier", self.tiers.is_ready()),
            ("Backup", self.backups.is_ready()),
            ("Secret", self.secrets.is_ready()),
        ];
        kinds
            .iter()
            .filter(|(_, ready)| !ready)
            .map(|(kind, _)| *kind)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

fn follow<K>(cache: &Cache<K>, api: Api<K>, metrics: &Arc<Metrics>, stop: &CancellationToken)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let counted = cache.clone();
    metrics.observe_cache(K::kind(&()).into_owned(), Box::new(move || counted.len()));
    tokio::spawn(cache.clone().follow(api, Config::default(), stop.clone()));
}
