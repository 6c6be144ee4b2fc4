//! Graphs of an earlier run: `up` is ready when they are served again.
//!
//! Their objects still say `Ready` for the moment until the operator has looked at them, so that their agents are tried
//! as well. A graph that does not come back delays the start by a bounded time and no more: the rest is usable, and its
//! conditions say what is wrong.

use crate::failure::Failure;
use graphplane_crds::conditions::{self, READY};
use graphplane_crds::graph::GraphPhase;
use graphplane_crds::{Graph, GraphNode};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;
use url::Url;

/// Longest wait; a machine that takes longer to start its agents is slow, not broken.
const LIMIT: Duration = Duration::from_secs(15);
/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// An agent of this machine accepts a connection at once, or it is not there.
const CONNECT: Duration = Duration::from_millis(500);

/// Waits until the graphs of an earlier run are served again, at most [`LIMIT`]. Gives the names of those that are not.
///
/// # Errors
/// The API cannot be asked.
pub(super) async fn wait(client: Client) -> Result<Vec<String>, Failure> {
    let until = Instant::now() + LIMIT;
    let mut told = false;
    loop {
        let missing = missing(&client).await?;
        if missing.is_empty() || Instant::now() >= until {
            return Ok(missing);
        }
        if !told {
            tracing::info!(graphs = missing.len(), "waiting for the graphs of the last run");
            told = true;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn missing(client: &Client) -> Result<Vec<String>, Failure> {
    let fail = |error| Failure::plain(format!("listing the graphs: {error}"));
    let graphs = Api::<Graph>::all(client.clone())
        .list(&ListParams::default())
        .await
        .map_err(fail)?
        .items;
    let expected: Vec<Graph> = graphs.into_iter().filter(comes_back).collect();
    if expected.is_empty() {
        return Ok(Vec::new());
    }
    let nodes = Api::<GraphNode>::all(client.clone())
        .list(&ListParams::default())
        .await
        .map_err(fail)?
        .items;
    let mut reached: BTreeMap<String, bool> = BTreeMap::new();
    for node in &nodes {
        reached.insert(node.name_any(), is_reached(node).await);
    }
    let served = |graph: &Graph| {
        let node = graph.status.as_ref().and_then(|status| status.node.as_ref());
        is_ready(graph) && node.is_some_and(|node| reached.get(node) == Some(&true))
    };
    let name = |graph: &Graph| format!("{}/{}", graph.namespace().unwrap_or_default(), graph.name_any());
    Ok(expected.iter().filter(|graph| !served(graph)).map(name).collect())
}

/// Whether a graph was served before and should be again.
fn comes_back(graph: &Graph) -> bool {
    let Some(status) = &graph.status else { return false };
    graph.metadata.deletion_timestamp.is_none()
        && !graph.spec.suspended
        && status.node.is_some()
        && matches!(status.phase, Some(GraphPhase::Ready | GraphPhase::Unavailable))
}

fn is_ready(graph: &Graph) -> bool {
    graph
        .status
        .as_ref()
        .is_some_and(|status| conditions::is_true(&status.conditions, READY))
}

async fn is_reached(node: &GraphNode) -> bool {
    let registration = node.status.as_ref().and_then(|status| status.registration.as_ref());
    let Some(address) = registration.and_then(|registration| socket(&registration.address)) else {
        return false;
    };
    matches!(
        tokio::time::timeout(CONNECT, TcpStream::connect(address)).await,
        Ok(Ok(_))
    )
}

/// Host and port of a URL.
fn socket(address: &str) -> Option<(String, u16)> {
    let url = Url::parse(address).ok()?;
    let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']').to_owned();
    Some((host, url.port_or_known_default()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn graph(status: serde_json::Value) -> Graph {
        serde_json::from_value(json!({
            "apiVersion": "graphplane.dev/v1alpha1", "kind": "Graph", "metadata": {"name": "g"},
            "spec": {"tier": "t"}, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn only_graphs_that_were_served_are_waited_for() {
        assert!(comes_back(&graph(json!({"node": "n", "phase": "Ready"}))));
        assert!(comes_back(&graph(json!({"node": "n", "phase": "Unavailable"}))));
        for other in [
            json!({}),
            json!({"phase": "Ready"}),
            json!({"node": "n", "phase": "Failed"}),
            json!({"node": "n"}),
        ] {
            assert!(!comes_back(&graph(other.clone())), "{other}");
        }
        let mut suspended = graph(json!({"node": "n", "phase": "Ready"}));
        suspended.spec.suspended = true;
        assert!(!comes_back(&suspended));
    }

    #[tokio::test]
    async fn an_agent_is_reached_where_it_listens() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        // Nobody listens on this port, and nobody else gets it.
        let silent = tokio::net::TcpSocket::new_v4().unwrap();
        silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let at = |address: String| -> GraphNode {
            serde_json::from_value(json!({
                "apiVersion": "graphplane.dev/v1alpha1", "kind": "GraphNode", "metadata": {"name": "n"},
                "spec": {"tier": "t", "zone": "local", "volume": "v"},
                "status": {"registration": {"address": address, "instanceId": "i", "agentVersion": "0", "time": "2026-01-01T00:00:00Z"}},
            }))
            .unwrap()
        };
        let address = format!("http://{}", listener.local_addr().unwrap());
        assert!(is_reached(&at(address.clone())).await);
        let address = format!("http://{}", silent.local_addr().unwrap());
        assert!(!is_reached(&at(address)).await);
        assert!(!is_reached(&at("not a url".into())).await);
        assert_eq!(socket("http://[::1]:80/x"), Some(("::1".into(), 80)));
    }
}
