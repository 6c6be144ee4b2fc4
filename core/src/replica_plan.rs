//! The life of a read fleet: publish the graph, keep as many nodes as are wanted, have them take up what is published.
//!
//! ```text
//!  first, or the graph changed ──▶ Publish (the writer's task) ──▶ the pointer in the object store names the seed
//!                                                                         │
//!  wanted nodes ──▶ EnsureNodes, RemoveNodes ──▶ agents serve ──▶ RefreshNodes, within the budget
//! ```
//!
//! What is published is read from the object store each time, and what a node serves from its agent, so nothing is
//! forgotten by a crash. A node serves the old seed while it takes up the new one; the budget says how many may be busy
//! with that at once. One that refuses a seed stays busy, so a bad seed goes no further than the budget.

mod nodes;
mod publication;

pub use nodes::{AgentSeen, Node};
pub use publication::{GraphSeen, Seed, SeedVersion, published_mark};

use crate::backup_plan::Task;
use crate::ending::until;
use crate::graph_plan::{annotation_is_true, paused_by};
use crate::plan::{self, Plan, Verdict, sooner};
use graphplane_crds::annotations::DELETION_PROTECTION;
use graphplane_crds::conditions::{self, Says, reasons};
use graphplane_crds::replica::Replica;
use jiff::Timestamp;
use nodes::{fleet, to_refresh, wanted};
use publication::Publication;
use std::collections::BTreeSet;
use std::time::Duration;

/// What the plan looks at beside the Replica itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// Whether an object store is configured.
    pub object_store: bool,
    /// Its graph; `None` when there is none, or it is being deleted.
    pub graph: Option<GraphSeen>,
    /// The newest published seed.
    pub seed: Option<Seed>,
    /// The task of the publication that the status names.
    pub task: Task,
    /// Whether the writer was asked to stop that task, in this pass.
    pub cancelled: bool,
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// Nodes that were asked to look for the newest seed, in this pass.
    pub asked: BTreeSet<String>,
}

/// What can be done for a read fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Have the writer publish the graph.
    Publish,
    /// Have the writer stop publishing.
    CancelPublish,
    /// Make these nodes.
    EnsureNodes(Vec<String>),
    /// Have these nodes look for the newest seed.
    RefreshNodes(Vec<String>),
    /// Remove these nodes.
    RemoveNodes(Vec<String>),
    /// Remove everything that was published.
    DeleteSeeds,
    /// Let the object go.
    RemoveFinalizer,
}

/// How often something that is under way is looked at.
const POLL: Duration = Duration::from_millis(500);
/// How often the wait for something that has no watch is ended.
const RETRY: Duration = Duration::from_secs(5);

/// Plans the next steps for `replica`.
pub fn plan(replica: &Replica, seen: &Observed, now: Timestamp) -> Plan<Action> {
    let paused = paused_by(&replica.metadata, false);
    if replica.metadata.deletion_timestamp.is_some() {
        return ending(replica, seen, paused);
    }
    if let Some(by) = paused {
        return Plan {
            actions: vec![],
            says: vec![plan::paused(Some(by))],
            phase: (),
            requeue: None,
        };
    }
    let mut plan = living(replica, seen, now);
    plan.says.extend([plan::paused(None), plan::not_deleting()]);
    plan
}

fn living(replica: &Replica, seen: &Observed, now: Timestamp) -> Plan<Action> {
    if !seen.object_store {
        let message = "no object store is configured, where seeds could be published: start the operator with one";
        return Plan {
            actions: vec![],
            says: Verdict::Stalled(reasons::NOT_SUPPORTED, message.to_owned()).says(),
            phase: (),
            requeue: None,
        };
    }
    let Some(graph) = &seen.graph else {
        return without_graph(replica, seen);
    };
    if !graph.owns_seeds(replica) {
        let message = "the seeds and nodes of the graph that had this name before are removed".to_owned();
        return taken_down(replica, seen, reasons::PUBLISHING, message);
    }
    let publication = Publication::of(replica, seen, graph, now);
    let wanted = wanted(replica);
    let mut actions = Vec::new();
    let surplus: Vec<String> = alive(seen).filter(|name| !wanted.contains(name)).collect();
    if !surplus.is_empty() {
        actions.push(Action::RemoveNodes(surplus));
    }
    if matches!(publication, Publication::Due) {
        actions.push(Action::Publish);
    }
    let mut requeue = match &publication {
        Publication::Running => Some(POLL),
        Publication::At(at) | Publication::Failed(_, at) => Some(until(*at, now)),
        Publication::Waits(..) => Some(RETRY),
        Publication::Current | Publication::Due => None,
    };
    if let Some(seed) = &seen.seed {
        let exists = |name: &&String| seen.nodes.iter().any(|n| n.name == **name);
        let missing: Vec<String> = wanted.iter().filter(|name| !exists(name)).cloned().collect();
        if !missing.is_empty() {
            actions.push(Action::EnsureNodes(missing));
        }
        let behind = to_refresh(replica, seen, seed);
        if !behind.is_empty() {
            actions.push(Action::RefreshNodes(behind));
        }
        // Agents tell nobody what they have taken up.
        let mut late = fleet(replica, seen);
        late.retain(|n| n.agent.is_some() && !n.is_current(seed));
        let moves = |n: &&Node| n.agent.as_ref().is_some_and(|a| a.fetching) || seen.asked.contains(&n.name);
        if !late.is_empty() {
            let soon = late.iter().any(moves);
            requeue = sooner(requeue, Some(if soon { POLL } else { RETRY }));
        }
    }
    Plan {
        actions,
        says: says(replica, seen, &publication),
        phase: (),
        requeue,
    }
}

fn alive(seen: &Observed) -> impl Iterator<Item = String> {
    seen.nodes.iter().filter(|n| !n.deleting).map(|n| n.name.clone())
}

/// What the conditions say of a fleet whose graph exists.
fn says(replica: &Replica, seen: &Observed, publication: &Publication) -> Vec<Says> {
    let trouble = match publication {
        Publication::Failed(why, _) => Some((reasons::PUBLISH_FAILED, why.clone())),
        Publication::Waits(reason, message) => Some((*reason, message.clone())),
        _ => None,
    };
    let Some(seed) = &seen.seed else {
        let first = || (reasons::PUBLISHING, "the first seed is being published".to_owned());
        let (reason, message) = trouble.unwrap_or_else(first);
        return without_seed(Verdict::Progressing(reason, message.clone()), reason, &message);
    };
    let fleet = fleet(replica, seen);
    let total = replica.spec.replicas as usize;
    let serving = fleet.iter().filter(|n| n.serves().is_some()).count();
    let current = fleet.iter().filter(|n| n.is_current(seed)).count();
    let refused = fleet.iter().find_map(|n| {
        let why = n.refuses(seed)?;
        Some(format!("node {} does not serve seed {}: {why}", n.name, seed.at))
    });
    let progress = format!("{current} of {total} nodes serve seed {}", seed.at);
    let (up_to_date, late) = match refused {
        _ if current == total => (true, (reasons::RECONCILED, String::new())),
        Some(message) => (false, (reasons::SEED_NOT_SERVED, message)),
        None => (false, (reasons::REFRESHING, progress)),
    };
    let verdict = if serving < total && late.0 == reasons::SEED_NOT_SERVED {
        Verdict::Progressing(late.0, late.1.clone())
    } else if serving < total {
        Verdict::Progressing(reasons::NODE_STARTING, format!("{serving} of {total} nodes serve"))
    } else if !up_to_date {
        Verdict::ReadyAndProgressing(late.0, late.1.clone())
    } else if let Some((reason, message)) = trouble {
        Verdict::ReadyAndProgressing(reason, message)
    } else if matches!(publication, Publication::Running | Publication::Due) {
        Verdict::ReadyAndProgressing(reasons::PUBLISHING, "a newer seed is being published".to_owned())
    } else {
        Verdict::Ready(unsupported(replica))
    };
    let mut says = verdict.says();
    says.push(Says::yes(
        conditions::SEED_READY,
        reasons::PUBLISHED,
        format!("seed {}", seed.at),
    ));
    says.push(Says {
        type_: conditions::UP_TO_DATE,
        status: Some(up_to_date),
        reason: late.0,
        message: late.1,
    });
    says
}

fn without_seed(verdict: Verdict, reason: &'static str, message: &str) -> Vec<Says> {
    let mut says = verdict.says();
    says.push(Says::no(conditions::SEED_READY, reason, message));
    says.push(Says::no(conditions::UP_TO_DATE, reason, message));
    says
}

/// What the spec asks for and this version does not do.
fn unsupported(replica: &Replica) -> String {
    let fields = [
        ("spec.publish.schedule", replica.spec.publish.schedule.is_some()),
        ("spec.targetCpuPercent", replica.spec.target_cpu_percent.is_some()),
    ];
    let named: Vec<&str> = fields.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
    match named.is_empty() {
        true => String::new(),
        false => format!("this version does not act on {}", named.join(" and ")),
    }
}

/// What has to go before nothing of a fleet is left.
struct Left {
    reason: &'static str,
    message: String,
    actions: Vec<Action>,
    requeue: Option<Duration>,
}

fn left(replica: &Replica, seen: &Observed) -> Option<Left> {
    let status = replica.status.clone().unwrap_or_default();
    let nodes: Vec<String> = alive(seen).collect();
    let left = |reason, message: &str, actions, requeue| {
        Some(Left {
            reason,
            message: message.to_owned(),
            actions,
            requeue,
        })
    };
    if !nodes.is_empty() {
        let actions = vec![Action::RemoveNodes(nodes)];
        return left(reasons::DELETING, "its nodes are removed", actions, None);
    }
    if !seen.nodes.is_empty() {
        return left(reasons::DELETING, "its nodes are stopping", vec![], None);
    }
    // What the writer stores after the seeds were removed would stay for ever.
    if seen.task == Task::Running {
        let actions = match seen.cancelled {
            true => vec![],
            false => vec![Action::CancelPublish],
        };
        let message = "waits for the writer to stop publishing";
        return left(reasons::PUBLISHING, message, actions, Some(POLL));
    }
    if status.publishing.is_some() && seen.task == Task::Unknown {
        let message = "waits for the writer, which may still be publishing";
        return left(reasons::NODE_LOST, message, vec![], Some(RETRY));
    }
    if status.seeds.is_some() && seen.object_store {
        return left(
            reasons::DELETING,
            "its seeds are removed",
            vec![Action::DeleteSeeds],
            None,
        );
    }
    None
}

/// Copies of a graph that is gone are of no use, and its owner may have wanted them destroyed.
fn without_graph(replica: &Replica, seen: &Observed) -> Plan<Action> {
    let message = format!(
        "Graph {} does not exist in this namespace, or is being deleted",
        replica.spec.graph
    );
    taken_down(replica, seen, reasons::GRAPH_NOT_FOUND, message)
}

/// Nothing of the fleet is left in the end, but the Replica stays.
fn taken_down(replica: &Replica, seen: &Observed, reason: &'static str, message: String) -> Plan<Action> {
    let left = left(replica, seen);
    Plan {
        requeue: left.as_ref().and_then(|left| left.requeue),
        actions: left.map(|left| left.actions).unwrap_or_default(),
        says: without_seed(Verdict::Progressing(reason, message.clone()), reason, &message),
        phase: (),
    }
}

fn ending(replica: &Replica, seen: &Observed, paused: Option<&'static str>) -> Plan<Action> {
    let kept = if annotation_is_true(&replica.metadata, DELETION_PROTECTION) {
        let message = format!("annotation {DELETION_PROTECTION} is set: remove it to delete");
        Some((reasons::DELETION_PROTECTED, message))
    } else {
        paused.map(|by| (reasons::PAUSED, format!("{by} is set")))
    };
    if let Some((reason, message)) = kept {
        return Plan {
            actions: vec![],
            says: vec![plan::deleting(reason, message), plan::paused(paused)],
            phase: (),
            requeue: None,
        };
    }
    let left = left(replica, seen).unwrap_or(Left {
        reason: reasons::DELETING,
        message: String::new(),
        actions: vec![Action::RemoveFinalizer],
        requeue: None,
    });
    let mut says = Verdict::Off(reasons::DELETING, left.message.clone()).says();
    says.extend([plan::deleting(left.reason, left.message), plan::paused(None)]);
    Plan {
        actions: left.actions,
        says,
        phase: (),
        requeue: left.requeue,
    }
}

#[cfg(test)]
#[path = "replica_plan_tests.rs"]
mod tests;
