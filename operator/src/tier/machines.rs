//! The machines of a Tier's nodes, as its rollout looks at them.

use crate::context::Context;
use graphplane_core::fleet::{Accepts, Serving};
use graphplane_core::graph_plan::{annotation_is_true, paused_by};
use graphplane_core::node_plan;
use graphplane_core::rollout::Machine;
use graphplane_crds::annotations::{DO_NOT_DISRUPT, DRAIN};
use graphplane_crds::backup::BackupPhase;
use graphplane_crds::conditions::{self, reasons};
use graphplane_crds::node::NodePhase;
use graphplane_crds::{Graph, GraphNode};
use kube::ResourceExt;
use std::collections::BTreeMap;

/// What on a tier's nodes is not to be disturbed, by node.
#[derive(Default)]
pub(super) struct Guarded {
    /// As long as somebody wants it.
    kept: BTreeMap<String, String>,
    /// Until it is done.
    busy: BTreeMap<String, String>,
}

/// Looks at everything that is placed on a node.
pub(super) fn guarded(ctx: &Context) -> Guarded {
    let mut guarded = Guarded::default();
    for graph in ctx.hubs.graphs.cache().list() {
        if let Some(node) = node_of(&graph).filter(|_| annotation_is_true(&graph.metadata, DO_NOT_DISRUPT)) {
            let why = format!("has Graph {} with annotation {DO_NOT_DISRUPT}", graph.name_any());
            guarded.kept.insert(node, why);
        }
    }
    let mut works = |namespace: Option<String>, graph: &str, what: String| {
        let graph = ctx.hubs.graphs.cache().get(&namespace.unwrap_or_default(), graph);
        guarded
            .busy
            .extend(graph.and_then(|g| node_of(&g)).map(|node| (node, what)));
    };
    for backup in ctx.hubs.backups.cache().list() {
        if backup.status.as_ref().and_then(|s| s.phase) == Some(BackupPhase::Running) {
            let what = format!("is making Backup {}", backup.name_any());
            works(backup.namespace(), &backup.spec.graph, what);
        }
    }
    for replica in ctx.hubs.replicas.cache().list() {
        let said = replica
            .status
            .as_ref()
            .map(|s| s.conditions.as_slice())
            .unwrap_or_default();
        let progress = conditions::get(said, conditions::PROGRESSING);
        if progress.is_some_and(|c| c.status == "True" && c.reason == reasons::PUBLISHING) {
            let what = format!("is publishing a seed of Replica {}", replica.name_any());
            works(replica.namespace(), &replica.spec.graph, what);
        }
    }
    guarded
}

fn node_of(graph: &Graph) -> Option<String> {
    graph.status.as_ref()?.node.clone()
}

/// The machine of a node.
pub(super) fn machine(node: &GraphNode, guarded: &Guarded, ctx: &Context) -> Machine {
    let (name, view) = (node.name_any(), ctx.view(node));
    let status = node.status.clone().unwrap_or_default();
    let drained = annotation_is_true(&node.metadata, DRAIN);
    // A machine that its provider announced the end of drains, too, without anybody having asked for it.
    let leaves = status.phase == Some(NodePhase::Draining) && !drained;
    let ready = conditions::get(&status.conditions, conditions::READY);
    let down_since = ready.filter(|c| c.status == "False").map(|c| c.last_transition_time.0);
    let kept = match paused_by(&node.metadata, false) {
        Some(by) => Some(format!("has {by}")),
        None if annotation_is_true(&node.metadata, DO_NOT_DISRUPT) => Some(format!("has annotation {DO_NOT_DISRUPT}")),
        None => guarded.kept.get(&name).cloned(),
    };
    let steady = drained || view.accepts == Accepts::Now;
    let late = (!steady).then(|| "is behind on its lease".to_owned());
    Machine {
        epoch: status.epoch,
        template: status.template,
        type_: node.spec.instance_type.clone(),
        serves: view.serving == Serving::Yes && !leaves,
        down_since,
        marked: node_plan::marked(node),
        kept,
        busy: guarded.busy.get(&name).cloned().or(late),
    }
}
