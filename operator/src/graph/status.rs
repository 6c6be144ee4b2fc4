//! What a Graph's status says beside its conditions.

use crate::context::Context;
use graphplane_core::ending::NodeSeen;
use graphplane_core::graph_plan::Observed;
use graphplane_crds::graph::{Graph, GraphPhase, GraphStatus};

pub(super) fn status(graph: &Graph, seen: &Observed, phase: GraphPhase, ctx: &Context) -> GraphStatus {
    let before = graph.status.clone().unwrap_or_default();
    // The id is claimed together with the place: what waits, or is refused, must not keep it from somebody else.
    let mut status = GraphStatus {
        phase: Some(phase),
        ..before
    };
    if let NodeSeen::Present(node) = &seen.node {
        // The last address stays while the node is away: who asks it is told so by the node's successor or by nobody.
        if node.endpoint.is_some() {
            status.endpoint.clone_from(&node.endpoint);
            status.epoch = Some(node.epoch);
        }
        if let Some(id) = status.graph_id.as_ref().filter(|_| status.applied_schema.is_some()) {
            // An agent that has just started has not reported yet; what was known stays.
            status.sizes = ctx.sizes(&node.name, id.as_str()).or(status.sizes);
        }
    }
    let subgraphs = seen.subgraphs.iter().filter(|s| !s.deleting).count();
    status.subgraphs = Some(u32::try_from(subgraphs).unwrap_or(u32::MAX));
    status.last_backup = ctx.last_backup(graph);
    status.monthly_cost_usd = ctx.cost_of_graph(graph);
    status
}
