//! Who answers reads of a graph beside its writer.

use super::effective_id;
use crate::cache::{Caches, fleet_word};
use graphplane_crds::Graph;
use kube::ResourceExt;

/// URLs that serve seeds of a graph: a fleet's own where it has one, else those of its nodes that have a seed.
pub(super) fn of(caches: &Caches, graph: &Graph) -> Vec<String> {
    let namespace = graph.namespace().unwrap_or_default();
    let id = effective_id(graph);
    let mut urls = Vec::new();
    for fleet in caches.replicas.find(&fleet_word(&namespace, &graph.name_any())) {
        let Some(status) = fleet
            .status
            .as_ref()
            .filter(|_| fleet.metadata.deletion_timestamp.is_none())
        else {
            continue;
        };
        if let Some(endpoint) = status.endpoint.as_ref().filter(|_| status.ready_replicas > 0) {
            urls.push(endpoint.clone());
            continue;
        }
        for serving in status.nodes.iter().filter(|node| node.seed_version.is_some()) {
            // A node of that name that was made since may serve another graph.
            let node = caches.nodes.get("", &serving.name);
            let node = node.filter(|node| node.spec.replica.as_ref().map(|of| &of.graph_id) == id.as_ref());
            let status = node.and_then(|node| node.status.clone());
            urls.extend(status.and_then(|status| status.registration).map(|agent| agent.address));
        }
    }
    urls.sort();
    urls
}
