//! What a Replica's plan looks at.

use super::writer::Writer;
use super::{Memory, fleet};
use crate::agent::Agent;
use crate::context::Context;
use crate::error::Error;
use graphplane_core::backup_plan::Task;
use graphplane_core::fleet::Serving;
use graphplane_core::replica_plan::{AgentSeen, GraphSeen, Node, Observed};
use graphplane_crds::GraphNode;
use graphplane_crds::replica::Replica;
use kube::ResourceExt;
use std::sync::Arc;
use std::time::Duration;

/// How long an agent may take to say what it serves; one that takes longer counts as one that cannot be called.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) async fn observe(replica: &Arc<Replica>, ctx: &Context, memory: &Memory) -> Result<Observed, Error> {
    let seeds = replica.status.as_ref().and_then(|s| s.seeds.as_deref());
    let writer = Writer::of(replica, ctx);
    let graph = writer.as_ref().and_then(|writer| writer.seen(ctx));
    let task = task(ctx, replica, writer.as_ref(), graph.as_ref()).await?;
    let seed = match (&ctx.store, seeds) {
        (Some(store), Some(key)) => store.seed(key).await?,
        _ => None,
    };
    let group = fleet::observe(replica, ctx, memory).await?;
    let nodes = match &group {
        Some(group) => fleet::nodes(replica, ctx, group, seeds).await,
        None => nodes(ctx, replica, seeds).await,
    };
    Ok(Observed {
        object_store: ctx.store.is_some(),
        graph,
        seed,
        task,
        cancelled: memory.cancelled,
        nodes,
        fleet: group,
        asked: memory.asked.clone(),
    })
}

/// The publication that the status names; before everything is taken down also one that it does not name.
async fn task(
    ctx: &Context,
    replica: &Replica,
    writer: Option<&Writer>,
    graph: Option<&GraphSeen>,
) -> Result<Task, Error> {
    let (Some(writer), Some(status)) = (writer, &replica.status) else {
        return Ok(Task::None);
    };
    let ends = replica.metadata.deletion_timestamp.is_some() || graph.is_none();
    match (&status.publishing, &status.seeds) {
        (Some(publishing), _) => writer.task(ctx, &publishing.task).await,
        (None, Some(seeds)) if ends => match writer.publishing(ctx, seeds).await? {
            Some(_) => Ok(Task::Running),
            None => Ok(Task::None),
        },
        _ => Ok(Task::None),
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
    told(&view.name, &ctx.agent(&view).ok()?, seeds).await
}

/// What an agent says of its seed, if it does in time.
pub(super) async fn told(node: &str, agent: &Agent, seeds: &str) -> Option<AgentSeen> {
    match tokio::time::timeout(PATIENCE, agent.seed(seeds)).await {
        Ok(Ok(seen)) => seen,
        Ok(Err(error)) => {
            tracing::debug!(node, %error, "a replica does not say what it serves");
            None
        }
        Err(_) => {
            tracing::debug!(node, patience = ?PATIENCE, "a replica does not say in time what it serves");
            None
        }
    }
}
