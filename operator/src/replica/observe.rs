//! What a Replica's plan looks at.

use super::Memory;
use crate::agent::TaskState;
use crate::cache::key;
use crate::context::Context;
use crate::error::Error;
use crate::views::usage_of;
use graphplane_core::backup_plan::Task;
use graphplane_core::ending::NodeSeen;
use graphplane_core::fleet::Serving;
use graphplane_core::replica_plan::{AgentSeen, GraphSeen, Node, Observed};
use graphplane_crds::replica::{Replica, ReplicaStatus};
use graphplane_crds::{Graph, GraphNode};
use kube::ResourceExt;
use std::sync::Arc;
use std::time::Duration;

/// How long an agent may take to say what it serves; one that takes longer counts as one that cannot be called.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) async fn observe(replica: &Arc<Replica>, ctx: &Context, memory: &Memory) -> Result<Observed, Error> {
    let (namespace, _) = key(&**replica);
    let status = replica.status.clone().unwrap_or_default();
    let object: Option<Arc<Graph>> = ctx.hubs.graphs.cache().get(&namespace, &replica.spec.graph);
    let writer = object.as_ref().map_or(NodeSeen::NotPlaced, |graph| {
        let status = graph.status.as_ref();
        let (node, volume) = (
            status.and_then(|s| s.node.as_deref()),
            status.and_then(|s| s.volume.as_deref()),
        );
        ctx.node_seen(node, volume)
    });
    let task = task(ctx, &status, &writer).await?;
    let seed = match (&ctx.store, &status.seeds) {
        (Some(store), Some(key)) => store.seed(key).await?,
        _ => None,
    };
    let alive = object.filter(|graph| graph.metadata.deletion_timestamp.is_none());
    Ok(Observed {
        object_store: ctx.store.is_some(),
        graph: alive.map(|graph| graph_seen(ctx, &graph, writer)),
        seed,
        task,
        cancelled: memory.cancelled,
        nodes: nodes(ctx, replica, status.seeds.as_deref()).await,
        asked: memory.asked.clone(),
    })
}

fn graph_seen(ctx: &Context, graph: &Graph, node: NodeSeen) -> GraphSeen {
    let status = graph.status.clone().unwrap_or_default();
    let id = status.graph_id.filter(|_| status.applied_schema.is_some());
    let usage = status.node.as_deref().and_then(|name| usage_of(&ctx.hubs, name));
    let mark = id
        .as_ref()
        .zip(usage)
        .and_then(|(id, (_, _, usage))| usage.mark(id.as_str()));
    GraphSeen { id, node, mark }
}

/// The publication that the status names.
async fn task(ctx: &Context, status: &ReplicaStatus, writer: &NodeSeen) -> Result<Task, Error> {
    let Some(publishing) = &status.publishing else {
        return Ok(Task::None);
    };
    match (writer.serving(), writer) {
        (Some(node), _) => Ok(TaskState::seen(ctx.agent(node)?.task(&publishing.task).await?)),
        (None, NodeSeen::Present(_)) => Ok(Task::Unknown),
        // Nobody is left who could be publishing.
        (None, _) => Ok(Task::None),
    }
}

async fn nodes(ctx: &Context, replica: &Replica, seeds: Option<&str>) -> Vec<Node> {
    let uid = replica.uid();
    let mut nodes = ctx.hubs.nodes.cache().list();
    nodes.retain(|n| n.spec.replica.as_ref().is_some_and(|of| Some(&of.uid) == uid.as_ref()));
    nodes.sort_by_key(|n| n.name_any());
    let seen = nodes.iter().map(|node| async move {
        Node {
            name: node.name_any(),
            deleting: node.metadata.deletion_timestamp.is_some(),
            agent: match seeds {
                Some(seeds) => agent(ctx, node, seeds).await,
                None => None,
            },
        }
    });
    futures::future::join_all(seen).await
}

/// What the agent of a node says; one that does not answer is its own reconciler's business.
async fn agent(ctx: &Context, node: &GraphNode, seeds: &str) -> Option<AgentSeen> {
    let view = ctx.view(node);
    if view.serving != Serving::Yes || node.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let agent = ctx.agent(&view).ok()?;
    match tokio::time::timeout(PATIENCE, agent.seed(seeds)).await {
        Ok(Ok(seen)) => seen,
        Ok(Err(error)) => {
            tracing::debug!(node = view.name, %error, "a replica does not say what it serves");
            None
        }
        Err(_) => {
            tracing::debug!(node = view.name, patience = ?PATIENCE, "a replica does not say in time what it serves");
            None
        }
    }
}
