//! What the API says at one moment, as far as the tree needs it.

use crate::client::Client;
use crate::failure::{Exit, Failure};
use futures::{StreamExt, TryStreamExt, stream};
use graphplane_crds::graph::{GraphPhase, Sizes};
use graphplane_crds::node::{GraphNodeSpec, GraphNodeStatus};
use graphplane_crds::tier::{TierSpec, TierStatus};
use graphplane_crds::volume::{GraphVolumeSpec, GraphVolumeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Requests for subgraphs at once.
const AT_ONCE: usize = 8;

/// Everything that the tree shows.
#[derive(Serialize, Clone, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) tiers: Vec<TierView>,
    /// Empty for keys that are not an admin's.
    pub(super) nodes: Vec<NodeView>,
    /// Empty for keys that are not an admin's.
    pub(super) volumes: Vec<VolumeView>,
    pub(super) graphs: Vec<GraphView>,
}

#[derive(Serialize, Deserialize, Clone, Debug)]
pub(super) struct TierView {
    pub(super) name: String,
    pub(super) spec: TierSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<TierStatus>,
}

#[derive(Serialize, Deserialize, Clone, Debug)]
pub(super) struct NodeView {
    pub(super) name: String,
    #[serde(default)]
    pub(super) draining: bool,
    pub(super) spec: GraphNodeSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<GraphNodeStatus>,
}

#[derive(Serialize, Deserialize, Clone, Debug)]
pub(super) struct VolumeView {
    pub(super) name: String,
    pub(super) spec: GraphVolumeSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<GraphVolumeStatus>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct GraphView {
    pub(super) id: Option<String>,
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) tier: String,
    pub(super) phase: Option<GraphPhase>,
    pub(super) node: Option<String>,
    pub(super) sizes: Option<Sizes>,
    /// How many there are; their views are in `workspaces`.
    pub(super) subgraphs: Option<u32>,
    pub(super) conditions: Vec<Condition>,
    #[serde(skip_deserializing, skip_serializing_if = "Vec::is_empty")]
    pub(super) workspaces: Vec<SubgraphView>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SubgraphView {
    pub(super) id: Option<String>,
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) type_: String,
    pub(super) sizes: Option<Sizes>,
    pub(super) conditions: Vec<Condition>,
}

/// One page of a list.
#[derive(Deserialize)]
struct Page<T> {
    items: Vec<T>,
    #[serde(default, rename = "continue")]
    continue_: Option<String>,
}

impl Snapshot {
    /// Asks the API for everything, or for one graph and what it stands on.
    pub(super) async fn take(client: &Client, graph: Option<&str>) -> Result<Self, Failure> {
        let (graphs, tiers, nodes, volumes) = tokio::try_join!(
            graphs(client, graph),
            all::<TierView>(client, &["v1", "tiers"]),
            of_admins::<NodeView>(client, &["v1", "nodes"]),
            of_admins::<VolumeView>(client, &["v1", "volumes"]),
        )?;
        let mut snapshot = Self {
            tiers,
            nodes,
            volumes,
            graphs,
        };
        if graph.is_some() {
            snapshot.keep_what_graphs_stand_on();
        }
        Ok(snapshot)
    }

    fn keep_what_graphs_stand_on(&mut self) {
        let graphs = &self.graphs;
        self.tiers
            .retain(|tier| graphs.iter().any(|graph| graph.tier == tier.name));
        self.nodes
            .retain(|node| graphs.iter().any(|graph| graph.node.as_ref() == Some(&node.name)));
        let nodes = &self.nodes;
        self.volumes
            .retain(|volume| nodes.iter().any(|node| node.spec.volume.as_ref() == Some(&volume.name)));
    }
}

async fn graphs(client: &Client, one: Option<&str>) -> Result<Vec<GraphView>, Failure> {
    let graphs = match one {
        Some(name) => vec![client.get::<GraphView>(&["v1", "graphs", name]).await?],
        None => all(client, &["v1", "graphs"]).await?,
    };
    // In order, so that two calls print the same.
    stream::iter(graphs)
        .map(|mut graph| async move {
            if graph.subgraphs.unwrap_or(0) > 0 {
                graph.workspaces = all(client, &["v1", "graphs", &graph.name, "subgraphs"]).await?;
            }
            Ok(graph)
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

/// A list that only admins may see; for others it is empty.
async fn of_admins<T: DeserializeOwned>(client: &Client, path: &[&str]) -> Result<Vec<T>, Failure> {
    match all(client, path).await {
        Err(failure) if failure.exit == Exit::Denied => Ok(Vec::new()),
        listed => listed,
    }
}

/// All pages of a list.
async fn all<T: DeserializeOwned>(client: &Client, path: &[&str]) -> Result<Vec<T>, Failure> {
    let mut items = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let mut request = client.request(Method::GET, path).query(&[("limit", "500")]);
        if let Some(token) = &token {
            request = request.query(&[("continue", token)]);
        }
        let page: Page<T> = client.json(request).await?;
        items.extend(page.items);
        match page.continue_.filter(|token| !token.is_empty()) {
            Some(next) => token = Some(next),
            None => return Ok(items),
        }
    }
}
