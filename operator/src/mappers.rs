//! Which objects have to be looked at when another one changed.
//!
//! Each function answers from the caches, so it is cheap enough to be asked for every event.

use crate::kinds::Hubs;
use crate::views::usage_of;
use graphplane_core::graph_plan::graph_id;
use graphplane_core::names;
use graphplane_crds::annotations::SCHEDULE_LABEL;
use graphplane_crds::backup::BackupPhase;
use graphplane_crds::graph::{SchemaType, Sizes};
use graphplane_crds::{Backup, BackupSchedule, Graph, GraphNode, GraphVolume, Replica, Subgraph, Tier};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use std::sync::Arc;

fn refs<K>(objects: impl IntoIterator<Item = Arc<K>>) -> Vec<ObjectRef<K>>
where
    K: kube::Resource<DynamicType = ()>,
{
    objects.into_iter().map(|o| ObjectRef::from_obj(&*o)).collect()
}

fn graphs(hubs: &Hubs, which: impl Fn(&Graph) -> bool) -> Vec<ObjectRef<Graph>> {
    refs(hubs.graphs.cache().list().into_iter().filter(|g| which(g)))
}

fn node_of(graph: &Graph) -> Option<&str> {
    graph.status.as_ref().and_then(|s| s.node.as_deref())
}

/// Graphs on a node, and those of its tier that wait for a place.
pub(crate) fn node_to_graphs(hubs: &Hubs, node: &GraphNode) -> Vec<ObjectRef<Graph>> {
    let name = node.name_any();
    graphs(hubs, |g| match node_of(g) {
        Some(on) => on == name,
        None => g.spec.tier == node.spec.tier,
    })
}

/// Graphs of a tier.
pub(crate) fn tier_to_graphs(hubs: &Hubs, tier: &Tier) -> Vec<ObjectRef<Graph>> {
    let name = tier.name_any();
    graphs(hubs, |g| g.spec.tier == name)
}

/// Graphs on a volume that lack a node, and those of its tier that wait for a place.
pub(crate) fn volume_to_graphs(hubs: &Hubs, volume: &GraphVolume) -> Vec<ObjectRef<Graph>> {
    let name = volume.name_any();
    graphs(hubs, |g| match node_of(g) {
        Some(node) => {
            g.status.as_ref().is_some_and(|s| s.volume.as_deref() == Some(&name))
                && hubs.nodes.cache().get("", node).is_none()
        }
        None => g.spec.tier == volume.spec.tier,
    })
}

/// The graph of a backup.
pub(crate) fn backup_to_graph(backup: &Backup) -> Vec<ObjectRef<Graph>> {
    vec![ObjectRef::new(&backup.spec.graph).within(&backup.namespace().unwrap_or_default())]
}

/// The graph of a subgraph.
pub(crate) fn subgraph_to_graph(subgraph: &Subgraph) -> Vec<ObjectRef<Graph>> {
    vec![ObjectRef::new(&subgraph.spec.graph).within(&subgraph.namespace().unwrap_or_default())]
}

/// Graphs that wait because another one has their id, when one goes.
pub(crate) fn graph_to_graphs(hubs: &Hubs, graph: &Graph) -> Vec<ObjectRef<Graph>> {
    // Ids that are made of UIDs are never shared.
    let named = graph.spec.graph_id.is_some() || graph.spec.schema.type_ == SchemaType::Shared;
    let Some(id) = graph_id(graph).ok().filter(|_| named) else {
        return vec![];
    };
    graphs(hubs, |g| {
        g.uid() != graph.uid() && node_of(g).is_none() && graph_id(g).as_ref() == Ok(&id)
    })
}

/// Graphs and subgraphs whose sizes a renewal changed, or which it misses. A renewal comes every few seconds and mostly
/// says nothing new, so it must not touch anything else.
pub(crate) fn lease_to_graphs(hubs: &Hubs, lease: &Lease) -> Vec<ObjectRef<Graph>> {
    let Some((node, reported)) = reported(hubs, lease) else {
        return vec![];
    };
    graphs(hubs, |g| {
        let Some(status) = g.status.as_ref().filter(|s| s.node.as_deref() == Some(&node)) else {
            return false;
        };
        let id = status.graph_id.as_ref().filter(|_| status.applied_schema.is_some());
        id.is_some_and(|id| reported(id.as_str()) != status.sizes)
    })
}

/// The same for subgraphs.
pub(crate) fn lease_to_subgraphs(hubs: &Hubs, lease: &Lease) -> Vec<ObjectRef<Subgraph>> {
    let Some((node, reported)) = reported(hubs, lease) else {
        return vec![];
    };
    let differs = |s: &Subgraph| {
        let Some(status) = s.status.as_ref().filter(|s| s.node.as_deref() == Some(&node)) else {
            return false;
        };
        let id = status.database_id.as_ref().filter(|_| status.applied_schema.is_some());
        id.is_some_and(|id| reported(id.as_str()) != status.sizes)
    };
    refs(hubs.subgraphs.cache().list().into_iter().filter(|s| differs(s)))
}

fn reported(hubs: &Hubs, lease: &Lease) -> Option<(String, impl Fn(&str) -> Option<Sizes> + use<>)> {
    let node = names::node_of_object(&lease.name_any())?.to_owned();
    let (_, _, usage) = usage_of(hubs, &node)?;
    Some((node, move |id: &str| usage.sizes(id)))
}

/// Subgraphs of a graph.
pub(crate) fn graph_to_subgraphs(hubs: &Hubs, graph: &Graph) -> Vec<ObjectRef<Subgraph>> {
    let (namespace, name) = (graph.namespace(), graph.name_any());
    let of_graph = |s: &Subgraph| s.spec.graph == name && s.namespace() == namespace;
    refs(hubs.subgraphs.cache().list().into_iter().filter(|s| of_graph(s)))
}

/// Subgraphs of the same graph: a place that one leaves is another's.
pub(crate) fn subgraph_to_subgraphs(hubs: &Hubs, subgraph: &Subgraph) -> Vec<ObjectRef<Subgraph>> {
    let waits = |s: &Subgraph| {
        s.uid() != subgraph.uid()
            && s.spec.graph == subgraph.spec.graph
            && s.namespace() == subgraph.namespace()
            && s.status.as_ref().is_none_or(|s| s.applied_schema.is_none())
    };
    refs(hubs.subgraphs.cache().list().into_iter().filter(|s| waits(s)))
}

/// Subgraphs of graphs on a node.
pub(crate) fn node_to_subgraphs(hubs: &Hubs, node: &GraphNode) -> Vec<ObjectRef<Subgraph>> {
    let name = node.name_any();
    let on_node = |s: &Subgraph| {
        let graph = hubs
            .graphs
            .cache()
            .get(&s.namespace().unwrap_or_default(), &s.spec.graph);
        graph.is_some_and(|g| node_of(&g) == Some(&name))
            || s.status.as_ref().is_some_and(|s| s.node.as_deref() == Some(&name))
    };
    refs(hubs.subgraphs.cache().list().into_iter().filter(|s| on_node(s)))
}

/// The subgraph that a backup is of.
pub(crate) fn backup_to_subgraph(backup: &Backup) -> Vec<ObjectRef<Subgraph>> {
    let namespace = backup.namespace().unwrap_or_default();
    backup
        .spec
        .subgraph
        .iter()
        .map(|name| ObjectRef::new(name).within(&namespace))
        .collect()
}

/// The read fleets of a graph.
pub(crate) fn graph_to_replicas(hubs: &Hubs, graph: &Graph) -> Vec<ObjectRef<Replica>> {
    let (namespace, name) = (graph.namespace(), graph.name_any());
    replicas(hubs, |r| r.spec.graph == name && r.namespace() == namespace)
}

/// The read fleet that a node is part of, and those whose graph it writes.
pub(crate) fn node_to_replicas(hubs: &Hubs, node: &GraphNode) -> Vec<ObjectRef<Replica>> {
    if let Some(of) = &node.spec.replica {
        return vec![ObjectRef::new(&of.name).within(&of.namespace)];
    }
    let name = node.name_any();
    replicas(hubs, |r| writer(hubs, r).is_some_and(|g| node_of(&g) == Some(&name)))
}

/// Read fleets whose graph was changed since it was published, as a renewal of its writer tells.
pub(crate) fn lease_to_replicas(hubs: &Hubs, lease: &Lease) -> Vec<ObjectRef<Replica>> {
    let name = lease.name_any();
    let Some((node, (_, _, usage))) = names::node_of_object(&name).and_then(|n| Some((n, usage_of(hubs, n)?))) else {
        return vec![];
    };
    replicas(hubs, |r| {
        let graph = writer(hubs, r).filter(|g| r.spec.publish.on_change && node_of(g) == Some(node));
        let id = graph.and_then(|g| g.status.as_ref()?.graph_id.clone());
        let mark = id.and_then(|id| usage.mark(id.as_str()));
        let published = r.status.as_ref().and_then(|s| s.published_mark.clone());
        mark.is_some() && mark != published
    })
}

fn replicas(hubs: &Hubs, which: impl Fn(&Replica) -> bool) -> Vec<ObjectRef<Replica>> {
    refs(hubs.replicas.cache().list().into_iter().filter(|r| which(r)))
}

fn writer(hubs: &Hubs, replica: &Replica) -> Option<Arc<Graph>> {
    let namespace = replica.namespace().unwrap_or_default();
    hubs.graphs.cache().get(&namespace, &replica.spec.graph)
}

/// The node that a graph is on.
pub(crate) fn graph_to_node(graph: &Graph) -> Vec<ObjectRef<GraphNode>> {
    node_of(graph).map(ObjectRef::new).into_iter().collect()
}

/// The node that a subgraph is on.
pub(crate) fn subgraph_to_node(subgraph: &Subgraph) -> Vec<ObjectRef<GraphNode>> {
    subgraph
        .status
        .as_ref()
        .and_then(|s| s.node.as_deref())
        .map(ObjectRef::new)
        .into_iter()
        .collect()
}

/// Nodes that mount a volume.
pub(crate) fn volume_to_nodes(hubs: &Hubs, volume: &GraphVolume) -> Vec<ObjectRef<GraphNode>> {
    let name = volume.name_any();
    refs(
        hubs.nodes
            .cache()
            .list()
            .into_iter()
            .filter(|n| n.spec.volume.as_deref() == Some(&name)),
    )
}

/// Nodes of a tier.
pub(crate) fn tier_to_nodes(hubs: &Hubs, tier: &Tier) -> Vec<ObjectRef<GraphNode>> {
    let name = tier.name_any();
    refs(hubs.nodes.cache().list().into_iter().filter(|n| n.spec.tier == name))
}

/// The node of a Lease.
pub(crate) fn lease_to_node(lease: &Lease) -> Vec<ObjectRef<GraphNode>> {
    names::node_of_object(&lease.name_any())
        .map(ObjectRef::new)
        .into_iter()
        .collect()
}

/// The node of a Secret.
pub(crate) fn secret_to_node(secret: &Secret) -> Vec<ObjectRef<GraphNode>> {
    names::node_of_object(&secret.name_any())
        .map(ObjectRef::new)
        .into_iter()
        .collect()
}

/// The volume of a node.
pub(crate) fn node_to_volume(node: &GraphNode) -> Vec<ObjectRef<GraphVolume>> {
    node.spec.volume.as_deref().map(ObjectRef::new).into_iter().collect()
}

/// The volume that a graph is on.
pub(crate) fn graph_to_volume(graph: &Graph) -> Vec<ObjectRef<GraphVolume>> {
    graph
        .status
        .as_ref()
        .and_then(|s| s.volume.as_deref())
        .map(ObjectRef::new)
        .into_iter()
        .collect()
}

/// The volume that a subgraph is on.
pub(crate) fn subgraph_to_volume(hubs: &Hubs, subgraph: &Subgraph) -> Vec<ObjectRef<GraphVolume>> {
    let graph = hubs
        .graphs
        .cache()
        .get(&subgraph.namespace().unwrap_or_default(), &subgraph.spec.graph);
    graph.map(|g| graph_to_volume(&g)).unwrap_or_default()
}

/// The volume of a node whose agent reports other databases than are known.
pub(crate) fn lease_to_volume(hubs: &Hubs, lease: &Lease) -> Vec<ObjectRef<GraphVolume>> {
    let found = || {
        let name = lease.name_any();
        let node = names::node_of_object(&name)?;
        let (_, _, usage) = usage_of(hubs, node)?;
        let volume = hubs.nodes.cache().get("", node)?.spec.volume.clone()?;
        let volume = hubs.volumes.cache().get("", &volume)?;
        let status = volume.status.clone().unwrap_or_default();
        let ids = usage.databases.iter().map(|d| names::lasting_database(&d.id));
        let mut reported: Vec<&str> = ids.collect();
        reported.sort_unstable();
        reported.dedup();
        let used = u32::try_from(usage.disk_used_mib.div_ceil(64) * 64).ok();
        let same = reported == status.databases && status.used_mib.map(|m| m.0) == used;
        (!same).then(|| ObjectRef::from_obj(&*volume))
    };
    found().into_iter().collect()
}

/// The tier of a node.
pub(crate) fn node_to_tier(node: &GraphNode) -> Vec<ObjectRef<Tier>> {
    vec![ObjectRef::new(&node.spec.tier)]
}

/// The tier of a volume.
pub(crate) fn volume_to_tier(volume: &GraphVolume) -> Vec<ObjectRef<Tier>> {
    vec![ObjectRef::new(&volume.spec.tier)]
}

/// The tier that a graph names.
pub(crate) fn graph_to_tier(graph: &Graph) -> Vec<ObjectRef<Tier>> {
    vec![ObjectRef::new(&graph.spec.tier)]
}

/// Backups of a graph that are not done.
pub(crate) fn graph_to_backups(hubs: &Hubs, graph: &Graph) -> Vec<ObjectRef<Backup>> {
    let (namespace, name) = (graph.namespace(), graph.name_any());
    refs(
        hubs.backups
            .cache()
            .list()
            .into_iter()
            .filter(|b| b.spec.graph == name && b.namespace() == namespace && is_open(b)),
    )
}

/// Backups on a node that are not done.
pub(crate) fn node_to_backups(hubs: &Hubs, node: &GraphNode) -> Vec<ObjectRef<Backup>> {
    let name = node.name_any();
    let on_node = |b: &Backup| {
        let graph = hubs
            .graphs
            .cache()
            .get(&b.namespace().unwrap_or_default(), &b.spec.graph);
        graph.is_some_and(|g| node_of(&g) == Some(&name))
    };
    refs(
        hubs.backups
            .cache()
            .list()
            .into_iter()
            .filter(|b| is_open(b) && on_node(b)),
    )
}

fn is_open(backup: &Backup) -> bool {
    let phase = backup.status.as_ref().and_then(|s| s.phase).unwrap_or_default();
    matches!(phase, BackupPhase::Pending | BackupPhase::Running) || backup.metadata.deletion_timestamp.is_some()
}

/// The schedule that made a backup.
pub(crate) fn backup_to_schedules(hubs: &Hubs, backup: &Backup) -> Vec<ObjectRef<BackupSchedule>> {
    let Some(label) = backup.labels().get(SCHEDULE_LABEL) else {
        return vec![];
    };
    let namespace = backup.namespace();
    schedules(hubs, |s| {
        s.namespace() == namespace && names::schedule_label(&s.name_any()) == *label
    })
}

/// The schedules of a graph.
pub(crate) fn graph_to_schedules(hubs: &Hubs, graph: &Graph) -> Vec<ObjectRef<BackupSchedule>> {
    let (namespace, name) = (graph.namespace(), graph.name_any());
    schedules(hubs, |s| s.spec.graph == name && s.namespace() == namespace)
}

fn schedules(hubs: &Hubs, which: impl Fn(&BackupSchedule) -> bool) -> Vec<ObjectRef<BackupSchedule>> {
    refs(hubs.schedules.cache().list().into_iter().filter(|s| which(s)))
}
