//! The nodes of a read fleet, and which of them take up a new seed.

use super::Observed;
use super::publication::{Seed, SeedVersion};
use crate::names;
use graphplane_crds::replica::{IntOrShare, Replica};
use std::collections::BTreeSet;

/// One node of the fleet: a GraphNode, or a machine of a group that the provider keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name of the GraphNode; of a machine of a group, its identity at the provider.
    pub name: String,
    /// Whether it is on its way out.
    pub deleting: bool,
    /// What its agent says; `None` while it cannot be called.
    pub agent: Option<AgentSeen>,
}

/// What the agent of a replica says of its seed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentSeen {
    /// What it serves.
    pub serves: Option<SeedVersion>,
    /// The newest that it knows of.
    pub latest: Option<SeedVersion>,
    /// Whether one is on its way.
    pub fetching: bool,
    /// Why it does not serve the newest that it knows of.
    pub error: Option<String>,
}

impl Node {
    /// What it serves.
    pub fn serves(&self) -> Option<SeedVersion> {
        self.agent.as_ref().and_then(|agent| agent.serves)
    }

    /// Whether it has what is published.
    pub fn is_current(&self, seed: &Seed) -> bool {
        self.serves().is_some_and(|at| at >= seed.at)
    }

    /// Why it will not serve what is published before somebody publishes anew.
    pub fn refuses(&self, seed: &Seed) -> Option<&str> {
        let agent = self.agent.as_ref().filter(|_| !self.is_current(seed))?;
        agent.error.as_deref().filter(|_| agent.latest >= Some(seed.at))
    }

    /// Whether it is taking up a seed, or cannot. A node that cannot be called is busy with nothing.
    fn is_busy(&self, seed: &Seed) -> bool {
        let at_work = self.agent.as_ref().is_some_and(|a| a.fetching || a.serves.is_none());
        !self.is_current(seed) && (at_work || self.refuses(seed).is_some())
    }
}

/// Names of the nodes that should exist.
pub(super) fn wanted(replica: &Replica) -> BTreeSet<String> {
    let name = replica.metadata.name.as_deref().unwrap_or_default();
    let uid = replica.metadata.uid.as_deref().unwrap_or_default();
    (0..replica.spec.replicas)
        .map(|n| names::replica_node(name, uid, n))
        .collect()
}

/// The wanted nodes that exist, by name. Which machines a group has is the provider's business.
pub(super) fn fleet<'a>(replica: &Replica, seen: &'a Observed) -> Vec<&'a Node> {
    let wanted = seen.fleet.is_none().then(|| wanted(replica));
    let is_wanted = |n: &&Node| wanted.as_ref().is_none_or(|wanted| wanted.contains(&n.name));
    let mut fleet: Vec<&Node> = seen.nodes.iter().filter(|n| !n.deleting).filter(is_wanted).collect();
    fleet.sort_by(|a, b| a.name.cmp(&b.name));
    fleet
}

/// How many nodes have to serve for the fleet to be ready: no more than there are when autoscaling has removed some, and no
/// more than were asked for while it starts some.
pub(super) fn total(replica: &Replica, seen: &Observed) -> usize {
    let desired = seen.fleet.as_ref().and_then(|fleet| fleet.desired());
    desired.map_or(replica.spec.replicas, |desired| desired.min(replica.spec.replicas)) as usize
}

/// How many nodes may be busy with a new seed at once.
pub(super) fn budget(replica: &Replica, seen: &Observed) -> usize {
    let desired = seen.fleet.as_ref().and_then(|fleet| fleet.desired());
    budget_of(replica, desired.unwrap_or(replica.spec.replicas))
}

/// How many of so many nodes may be busy at once: at least one, or nothing would ever change.
pub(crate) fn budget_of(replica: &Replica, total: u32) -> usize {
    let most = match replica.spec.refresh.max_unavailable {
        IntOrShare::Int(n) => n,
        IntOrShare::Share(share) => share.of(total),
    };
    most.max(1) as usize
}

/// The nodes that are asked to take up what is published: as many as the budget has left, always the first by name, so that
/// asking again later asks the same ones.
pub(super) fn to_refresh(replica: &Replica, seen: &Observed, seed: &Seed) -> Vec<String> {
    let behind: Vec<&Node> = fleet(replica, seen)
        .into_iter()
        .filter(|n| n.agent.is_some() && !n.is_current(seed))
        .collect();
    let busy = |n: &Node| n.is_busy(seed) || seen.asked.contains(&n.name);
    let left = budget(replica, seen).saturating_sub(behind.iter().filter(|n| busy(n)).count());
    let idle = behind.iter().filter(|n| !busy(n)).take(left);
    // One that serves nothing does not wait for the others: nobody can be refused because of it.
    let empty = behind.iter().filter(|n| {
        let waits = n.agent.as_ref().is_some_and(|a| a.serves.is_none() && !a.fetching);
        waits && n.refuses(seed).is_none() && !seen.asked.contains(&n.name)
    });
    idle.chain(empty).map(|n| n.name.clone()).collect()
}
