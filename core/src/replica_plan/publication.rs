//! When a graph is published anew.

use super::Observed;
use crate::backup_plan::Task;
use crate::ending::{NodeSeen, after};
use crate::fleet::Serving;
use crate::names;
use graphplane_crds::conditions::reasons;
use graphplane_crds::ids::GraphId;
use graphplane_crds::replica::{Replica, ReplicaStatus};
use jiff::Timestamp;
use std::fmt;
use std::time::Duration;

/// The order of the seeds of a graph: by the epoch of the writer that made them, then by their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeedVersion {
    /// Epoch of the writer.
    pub epoch: u64,
    /// Number within the epoch.
    pub version: u64,
}

impl fmt::Display for SeedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.version)
    }
}

/// A published seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    /// Which.
    pub at: SeedVersion,
    /// When its copy was begun.
    pub begun: Timestamp,
}

/// The graph that is published.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphSeen {
    /// UID of its object.
    pub uid: Option<String>,
    /// Its id, once its database was made.
    pub id: Option<GraphId>,
    /// The node of its writer.
    pub node: NodeSeen,
    /// Its state, if the writer tells; see [`Usage::mark`](crate::usage::Usage::mark).
    pub mark: Option<String>,
}

impl GraphSeen {
    /// Whether the seeds that a Replica has published are those of this graph, as far as it has any.
    pub(super) fn owns_seeds(&self, replica: &Replica) -> bool {
        let Some((status, seeds)) = replica.status.as_ref().and_then(|s| Some((s, s.seeds.as_ref()?))) else {
            return true;
        };
        let name = replica.metadata.name.as_deref().unwrap_or_default();
        let other = status.graph_uid.is_some() && self.uid.is_some() && status.graph_uid != self.uid;
        !other && self.id.as_ref().is_none_or(|id| *seeds == names::seeds_key(id, name))
    }
}

/// A publication that failed is repeated after this time.
const REPUBLISH: Duration = Duration::from_secs(60);
/// One that was cut off is repeated after this time.
const RESUME: Duration = Duration::from_secs(5);
/// Shortest time between two seeds where the spec names none.
const INTERVAL: u32 = 60;

/// State of the graph that the newest seed has at least, when a publication that has just ended is counted.
pub fn published_mark<'a>(status: &'a ReplicaStatus, task: &Task) -> Option<&'a str> {
    match (&status.publishing, task) {
        (Some(publishing), Task::Completed) => publishing.mark.as_deref(),
        _ => status.published_mark.as_deref(),
    }
}

/// Whether a seed is to be published.
pub(super) enum Publication {
    /// There is nothing to publish.
    Current,
    /// The writer is at work.
    Running,
    /// Now.
    Due,
    /// Not before this moment.
    At(Timestamp),
    /// It failed, and is repeated at this moment.
    Failed(String, Timestamp),
    /// Something else has to happen first: reason and message.
    Waits(&'static str, String),
}

impl Publication {
    pub(super) fn of(replica: &Replica, seen: &Observed, graph: &GraphSeen, now: Timestamp) -> Self {
        let status = replica.status.clone().unwrap_or_default();
        let begun = status.publishing.as_ref().map(|p| p.begun.0);
        match (&seen.task, begun) {
            (Task::Running, _) => return Self::Running,
            (Task::Unknown, Some(_)) => {
                let message = "waits for the writer, which may still be publishing".to_owned();
                return Self::Waits(reasons::NODE_LOST, message);
            }
            (Task::Failed(why), Some(begun)) if now < after(begun, REPUBLISH) => {
                return Self::Failed(why.clone(), after(begun, REPUBLISH));
            }
            (Task::Completed, Some(begun)) if seen.seed.is_none() && now < after(begun, REPUBLISH) => {
                let why = "the agent says that it is published, but the object store has no seed".to_owned();
                return Self::Failed(why, after(begun, REPUBLISH));
            }
            (Task::Interrupted | Task::None, Some(begun)) if now < after(begun, RESUME) => {
                return Self::At(after(begun, RESUME));
            }
            _ => {}
        }
        let due = due(replica, &status, seen, graph, now);
        if !matches!(due, Self::Due) {
            return due;
        }
        match &graph.node {
            _ if graph.id.is_none() => {
                let message = "waits for the graph's database to be made".to_owned();
                Self::Waits(reasons::GRAPH_NOT_READY, message)
            }
            // Without it, what is published now would look changed a moment later.
            NodeSeen::Present(node) if replica.spec.publish.on_change && graph.mark.is_none() => {
                let message = format!("waits for node {} to report the graph", node.name);
                Self::Waits(reasons::GRAPH_NOT_READY, message)
            }
            NodeSeen::Present(node) if node.serving == Serving::Yes => due,
            NodeSeen::Present(node) => {
                let message = format!("waits for node {}, which does not answer now", node.name);
                Self::Waits(reasons::NODE_LOST, message)
            }
            NodeSeen::NotPlaced | NodeSeen::Gone { .. } => {
                Self::Waits(reasons::GRAPH_NOT_READY, "the graph has no node now".to_owned())
            }
        }
    }
}

fn due(replica: &Replica, status: &ReplicaStatus, seen: &Observed, graph: &GraphSeen, now: Timestamp) -> Publication {
    let Some(seed) = &seen.seed else {
        return Publication::Due;
    };
    // What was begun and has not ended well is still owed.
    if status.publishing.is_some() && seen.task != Task::Completed {
        return Publication::Due;
    }
    let publish = &replica.spec.publish;
    // Nobody would read it while the fleet has no node.
    let follows = publish.on_change && replica.spec.replicas > 0;
    let changed = graph.mark.is_some() && graph.mark.as_deref() != published_mark(status, &seen.task);
    let interval = Duration::from_secs(publish.min_interval_seconds.unwrap_or(INTERVAL).into());
    match after(seed.begun, interval) {
        _ if !(follows && changed) => Publication::Current,
        at if now < at => Publication::At(at),
        _ => Publication::Due,
    }
}
