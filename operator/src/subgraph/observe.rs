//! What a Subgraph's plan looks at.

use super::{Memory, database_id, fork_key};
use crate::agent::{ForkTask, TaskState};
use crate::cache::key;
use crate::context::Context;
use crate::error::Error;
use crate::views::ready_since;
use graphplane_core::ending::Database;
use graphplane_core::graph_plan::graph_id;
use graphplane_core::names;
use graphplane_core::subgraph_plan::{Fork, Observed, Parent};
use graphplane_crds::Graph;
use graphplane_crds::ids::GraphId;
use graphplane_crds::subgraph::Subgraph;
use kube::ResourceExt;
use std::sync::Arc;

/// The Graph of a subgraph.
pub(super) fn parent(subgraph: &Subgraph, ctx: &Context) -> Option<Arc<Graph>> {
    ctx.hubs
        .graphs
        .cache()
        .get(&subgraph.namespace().unwrap_or_default(), &subgraph.spec.graph)
}

/// Its identity, once it is written down.
pub(super) fn parent_id(subgraph: &Subgraph, ctx: &Context) -> Option<GraphId> {
    parent(subgraph, ctx)?.status.as_ref()?.graph_id.clone()
}

pub(super) async fn observe(subgraph: &Arc<Subgraph>, ctx: &Context, memory: &Memory) -> Result<Observed, Error> {
    let (namespace, name) = key(&**subgraph);
    let status = subgraph.status.clone().unwrap_or_default();
    let graph = parent(subgraph, ctx);
    let of_parent = graph.as_ref().and_then(|g| g.status.as_ref());
    let (parent_node, volume) = (
        of_parent.and_then(|s| s.node.clone()),
        of_parent.and_then(|s| s.volume.clone()),
    );
    let node = ctx.node_seen(parent_node.or(status.node).as_deref(), volume.as_deref());
    let id = database_id(subgraph);
    let deleting = subgraph.metadata.deletion_timestamp.is_some();
    let database = match (memory.database, node.serving(), &id) {
        (Some(database), _, _) => database,
        (None, Some(serving), Some(id)) if deleting && status.applied_schema.is_none() => {
            match ctx.agent(serving)?.exists(id.as_str()).await? {
                true => Database::Present,
                false => Database::Absent,
            }
        }
        // Nothing was written down, so nothing was made.
        (None, _, None) => Database::Absent,
        _ => Database::Unknown,
    };
    let fork = match (node.serving(), &id) {
        (Some(serving), Some(id)) if subgraph.spec.fork_parent && status.applied_schema.is_none() => {
            let task = ctx.agent(serving)?.fork(id.as_str(), &fork_key(subgraph)).await?;
            fork(task, memory, ctx)
        }
        // Nothing was written down, so nothing was started.
        (Some(_), None) if subgraph.spec.fork_parent => Fork::NotStarted,
        _ => Fork::Unknown,
    };
    let missing = match (node.serving(), &id) {
        (Some(node), Some(id)) => ctx.is_missing(node, id.as_str(), ready_since(&status.conditions)),
        _ => false,
    };
    let siblings = ctx.subgraphs_of(&namespace, &subgraph.spec.graph);
    let before = |s: &&Arc<Subgraph>| s.uid() != subgraph.uid() && age(s) < age(subgraph);
    let earlier: Vec<&Arc<Subgraph>> = siblings.iter().filter(before).collect();
    let same_name = earlier.iter().find(|s| s.spec.name == subgraph.spec.name);
    let tier = graph
        .as_ref()
        .and_then(|g| ctx.hubs.tiers.cache().get("", &g.spec.tier));
    let backup = names::final_backup(&name, &subgraph.uid().unwrap_or_default());
    Ok(Observed {
        parent: graph.as_ref().map(|g| Parent {
            graph_id: g
                .status
                .as_ref()
                .and_then(|s| s.graph_id.clone())
                .or_else(|| graph_id(g).ok()),
            made: g.status.as_ref().is_some_and(|s| s.applied_schema.is_some()),
            deleting: g.metadata.deletion_timestamp.is_some(),
        }),
        rank: u32::try_from(earlier.len()).unwrap_or(u32::MAX),
        limit: tier.and_then(|t| t.spec.max_subgraphs),
        name_taken_by: same_name.map(|s| s.name_any()),
        database: if deleting || database != Database::Absent {
            database
        } else {
            Database::Unknown
        },
        missing,
        refused: memory.refused.clone(),
        fork,
        final_backup: ctx.final_backup(&namespace, &backup),
        kept: memory.kept || is_kept(ctx, subgraph, volume.as_deref(), id.as_ref().map(|i| i.as_str())),
        node,
    })
}

fn fork(task: Option<ForkTask>, memory: &Memory, ctx: &Context) -> Fork {
    let Some(task) = task else {
        return if memory.occupied {
            Fork::Occupied
        } else {
            Fork::NotStarted
        };
    };
    match task.state {
        TaskState::Running if memory.fork_cancelled => Fork::Stopping,
        TaskState::Running => Fork::Running,
        TaskState::Completed => Fork::Done,
        // The database of a copy that was cut off between its last step and its record.
        TaskState::Interrupted if memory.occupied => Fork::Done,
        TaskState::Interrupted => Fork::Interrupted,
        TaskState::Failed(_) if memory.occupied => Fork::Occupied,
        TaskState::Failed(why) => Fork::Failed {
            at: task.ended.unwrap_or_else(|| ctx.now()),
            why,
        },
    }
}

/// The order in which subgraphs of a graph have a right to their places: those that have a database, then by age.
fn age(subgraph: &Subgraph) -> impl Ord + use<> {
    let made = subgraph.status.as_ref().is_some_and(|s| s.applied_schema.is_some());
    (
        !made,
        subgraph.metadata.creation_timestamp.as_ref().map(|t| t.0),
        subgraph.name_any(),
    )
}

fn is_kept(ctx: &Context, subgraph: &Subgraph, volume: Option<&str>, id: Option<&str>) -> bool {
    let Some(annotation) = id.and_then(names::retained_annotation) else {
        return true;
    };
    let volume = volume.and_then(|v| ctx.hubs.volumes.cache().get("", v));
    let (namespace, name) = key(subgraph);
    volume.is_none_or(|v| {
        v.annotations()
            .get(&annotation)
            .is_some_and(|o| *o == format!("{namespace}/{name}"))
    })
}
