//! What a Graph's plan looks at.

use super::Memory;
use crate::cache::key;
use crate::context::Context;
use crate::error::Error;
use crate::views::ready_since;
use graphplane_core::ending::{Database, NodeSeen};
use graphplane_core::graph_plan::{DataSeen, Dependent, Observed, graph_id};
use graphplane_core::names;
use graphplane_crds::graph::Graph;
use graphplane_crds::ids::GraphId;
use kube::ResourceExt;
use std::sync::Arc;

pub(super) async fn observe(graph: &Arc<Graph>, ctx: &Context, memory: &Memory) -> Result<Observed, Error> {
    let (namespace, name) = key(&**graph);
    let status = graph.status.clone().unwrap_or_default();
    let tier = ctx.hubs.tiers.cache().get("", &graph.spec.tier);
    let node = ctx.node_seen(status.node.as_deref(), status.volume.as_deref());
    let id = graph_id(graph).ok();
    let needs_place = !matches!(node, NodeSeen::Present(_));
    let fleet = tier.as_ref().filter(|_| needs_place).map(|tier| ctx.fleet(tier));
    let deleting = graph.metadata.deletion_timestamp.is_some();
    let database = match (memory.database, node.serving(), &id) {
        (Some(database), _, _) => database,
        // Whether there is anything to keep or to destroy is asked only when it is not known.
        (None, Some(serving), Some(id)) if deleting && status.applied_schema.is_none() => {
            match ctx.agent(serving)?.exists(id.as_str()).await? {
                true => Database::Present,
                false => Database::Absent,
            }
        }
        _ => Database::Unknown,
    };
    let missing = match (node.serving(), &id) {
        (Some(node), Some(id)) => ctx.is_missing(node, id.as_str(), ready_since(&status.conditions)),
        _ => false,
    };
    let dependent = |s: Arc<graphplane_crds::Subgraph>| Dependent {
        name: s.name_any(),
        deleting: s.metadata.deletion_timestamp.is_some(),
    };
    let backup = names::final_backup(&name, &graph.uid().unwrap_or_default());
    Ok(Observed {
        tier,
        data: match &id {
            Some(id) if matches!(node, NodeSeen::NotPlaced) => data_of(ctx, &namespace, id),
            _ => DataSeen::Nowhere,
        },
        id_taken_by: id.as_ref().and_then(|id| taken_by(ctx, graph, id)),
        kept: memory.kept || is_kept(ctx, graph, id.as_ref()),
        node,
        fleet,
        database,
        missing,
        refused: memory.refused.clone(),
        subgraphs: ctx.subgraphs_of(&namespace, &name).into_iter().map(dependent).collect(),
        final_backup: ctx.final_backup(&namespace, &backup),
    })
}

/// Where a database of this id lies, before the graph has a place: kept for this namespace, or somebody else's.
fn data_of(ctx: &Context, namespace: &str, id: &GraphId) -> DataSeen {
    let volumes = ctx.hubs.volumes.cache().list();
    let holds = |v: &&Arc<graphplane_crds::GraphVolume>| {
        v.status
            .as_ref()
            .is_some_and(|s| s.databases.iter().any(|d| d == id.as_str()))
    };
    let Some(volume) = volumes.iter().filter(holds).min_by_key(|v| v.name_any()) else {
        return DataSeen::Nowhere;
    };
    let owner = names::retained_annotation(id.as_str()).and_then(|key| volume.annotations().get(&key).cloned());
    let ours = owner
        .as_deref()
        .and_then(|o| o.split_once('/'))
        .is_some_and(|(owner, _)| owner == namespace);
    let volume = volume.name_any();
    if ours {
        DataSeen::Kept { volume }
    } else {
        DataSeen::Foreign { volume }
    }
}

/// Another graph with the same id that has it by right: it wrote it into its status first, or it is older.
fn taken_by(ctx: &Context, graph: &Graph, id: &GraphId) -> Option<String> {
    let claimed = |g: &Graph| g.status.as_ref().is_some_and(|s| s.graph_id.is_some());
    let age = |g: &Graph| {
        (
            !claimed(g),
            g.metadata.creation_timestamp.as_ref().map(|t| t.0),
            g.uid(),
        )
    };
    let graphs = ctx.hubs.graphs.cache().list();
    let mut others: Vec<&Arc<Graph>> = graphs
        .iter()
        .filter(|g| g.uid() != graph.uid() && graph_id(g).as_ref() == Ok(id) && age(g) < age(graph))
        .collect();
    others.sort_by_key(|g| age(g));
    others
        .first()
        .map(|g| format!("{}/{}", g.namespace().unwrap_or_default(), g.name_any()))
}

/// Whether it is written down on the volume whose database this is. One whose id does not fit into an annotation counts as
/// written down, since nothing more can be done.
fn is_kept(ctx: &Context, graph: &Graph, id: Option<&GraphId>) -> bool {
    let Some(key) = id.and_then(|id| names::retained_annotation(id.as_str())) else {
        return true;
    };
    let volume = graph.status.as_ref().and_then(|s| s.volume.as_deref());
    let volume = volume.and_then(|v| ctx.hubs.volumes.cache().get("", v));
    let (namespace, name) = crate::cache::key(graph);
    volume.is_none_or(|v| {
        v.annotations()
            .get(&key)
            .is_some_and(|o| *o == format!("{namespace}/{name}"))
    })
}
