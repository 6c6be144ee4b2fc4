//! What a Replica's status says beside its conditions.

use crate::views::whole;
use graphplane_core::backup_plan::Task;
use graphplane_core::fleet_plan;
use graphplane_core::replica_plan::{Node, Observed, published_mark};
use graphplane_crds::annotations::REPLICA_LABEL;
use graphplane_crds::replica::{Replica, ReplicaFleet, ReplicaNode, ReplicaStatus};
use kube::ResourceExt;

pub(super) fn status(replica: &Replica, seen: &Observed) -> ReplicaStatus {
    let before = replica.status.clone().unwrap_or_default();
    let nodes: Vec<&Node> = seen.nodes.iter().filter(|n| !n.deleting).collect();
    let current = |n: &&&Node| seen.seed.is_some_and(|seed| n.is_current(&seed));
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    // A publication is over when the store shows what it made.
    let over = seen.task == Task::Completed && seen.seed.is_some();
    let group = before.fleet.clone().zip(seen.fleet.as_ref());
    let group = group.map(|(noted, fleet)| ReplicaFleet {
        size: fleet_plan::size_set(replica, fleet),
        ..noted
    });
    ReplicaStatus {
        endpoint: seen.fleet.as_ref().and_then(|fleet| fleet.endpoint().cloned()),
        fleet: group,
        seed_version: seen.seed.map(|seed| seed.at.to_string()),
        seed_time: seen.seed.map(|seed| whole(seed.begun)),
        replicas: count(nodes.len()),
        ready_replicas: count(nodes.iter().filter(current).count()),
        selector: replica.uid().map(|uid| format!("{REPLICA_LABEL}={uid}")),
        nodes: nodes.iter().map(|n| node(n, seen)).collect(),
        published_mark: published_mark(&before, &seen.task).map(str::to_owned),
        publishing: before.publishing.clone().filter(|_| !over),
        ..before
    }
}

fn node(node: &Node, seen: &Observed) -> ReplicaNode {
    let refused = seen.seed.and_then(|seed| node.refuses(&seed).map(str::to_owned));
    ReplicaNode {
        name: node.name.clone(),
        seed_version: node.serves().map(|at| at.to_string()),
        message: refused,
    }
}
