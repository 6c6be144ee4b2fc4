//! Restore drills: the newest complete backup is restored to a scratch database on the graph's node, what is in it is
//! counted, and the scratch database goes.
//!
//! The drill stands in the status from before the restore until its database is gone. So whatever is cut off, the next
//! pass knows which database to look for, and removes no other.

use super::{Action, GraphSeen, Made, Observed, since};
use crate::backup_plan::Task;
use crate::cron::Schedule;
use crate::ending::{Database, NodeSeen, after, until};
use crate::fleet::Serving;
use graphplane_crds::backup::{BackupPhase, BackupSchedule, Drill};
use graphplane_crds::conditions::{self, Says, reasons};
use graphplane_crds::ids::DatabaseId;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;

/// How often a restore is looked at.
const POLL: Duration = Duration::from_secs(1);
/// How often the wait for something that has no watch is ended.
const RETRY: Duration = Duration::from_secs(30);
/// A drill that takes longer is given up: a scratch database must not stay on the tenant's disk.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// A drill that was cut off so often is given up until its next time.
const MOST_REPEATED: u32 = 3;

/// What there is of a drill.
#[derive(Clone, Debug, PartialEq)]
pub struct DrillSeen {
    /// The GraphVolume that the graph is on.
    pub volume: Option<String>,
    /// The scratch database that this schedule would use for the graph.
    pub database: Option<DatabaseId>,
    /// The node that has the volume of the drill; without a drill, of the graph.
    pub node: NodeSeen,
    /// Whether a Subgraph has the scratch database's id: then it is not ours.
    pub taken: bool,
    /// The agent's task that restores.
    pub task: Task,
    /// What came of asking for the restore, in this pass, if it was not begun.
    pub start: Option<Start>,
    /// Whether the agent was asked to stop its task, in this pass.
    pub cancelled: bool,
    /// The scratch database.
    pub scratch: Database,
    /// What was counted in it, in this pass.
    pub counts: Option<Counts>,
}

/// Nodes and relationships.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Nodes.
    pub nodes: i64,
    /// Relationships.
    pub relationships: i64,
}

/// Why a restore was not begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// The scratch database is there already, from before an interruption.
    Leftover,
    /// The agent refuses the backup: why.
    Refused(String),
    /// The node has no room: why.
    NoRoom(String),
}

/// How a drill ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The database holds what the manifest says.
    Passed(String),
    /// It cannot be restored, or holds something else: why.
    Failed(String),
    /// Nothing is known of the backup: why.
    NotHeld(String),
    /// It was cut off, and is begun anew.
    Again,
    /// Nobody wants it any more.
    Dropped,
    /// There is no scratch database of ours, and none is removed.
    Forgotten,
}

impl Ended {
    /// The `DrillPassed` condition, where the drill has something to say.
    pub fn says(&self) -> Option<Says> {
        let type_ = conditions::DRILL_PASSED;
        match self {
            Self::Passed(message) => Some(Says::yes(type_, reasons::DRILL_PASSED, message)),
            Self::Failed(message) => Some(Says::no(type_, reasons::DRILL_FAILED, message)),
            Self::NotHeld(message) => Some(Says::unknown(type_, reasons::DRILL_NOT_HELD, message)),
            Self::Again | Self::Dropped | Self::Forgotten => None,
        }
    }

    /// Whether the scratch database is removed.
    pub fn removes(&self) -> bool {
        *self != Self::Forgotten
    }
}

#[derive(Default)]
pub(super) struct Step {
    pub(super) actions: Vec<Action>,
    pub(super) requeue: Option<Duration>,
    pub(super) says: Option<Says>,
    /// What the drill that is under way does or waits for.
    pub(super) under_way: Option<String>,
}

impl Step {
    fn wait(message: String, requeue: Duration) -> Self {
        Self {
            requeue: Some(requeue),
            under_way: Some(message),
            ..Self::default()
        }
    }

    fn act(message: String, actions: Vec<Action>) -> Self {
        Self {
            actions,
            under_way: Some(message),
            ..Self::default()
        }
    }
}

/// The next step of the drill that is under way, or of the one that is due by `wanted`.
pub(super) fn step(schedule: &BackupSchedule, seen: &Observed, now: Timestamp, wanted: Option<&Schedule>) -> Step {
    match schedule.status.as_ref().and_then(|s| s.drill.as_ref()) {
        Some(drill) => under_way(drill, given_up(schedule, drill, seen, now), seen),
        None => wanted.map(|cron| begin(schedule, seen, now, cron)).unwrap_or_default(),
    }
}

fn newest(backups: &[Made]) -> Option<&Made> {
    let complete = backups
        .iter()
        .filter(|b| b.phase == BackupPhase::Completed && b.counts.is_some() && !b.deleting);
    complete.max_by(|a, b| (a.completed, &a.name).cmp(&(b.completed, &b.name)))
}

fn begin(schedule: &BackupSchedule, seen: &Observed, now: Timestamp, cron: &Schedule) -> Step {
    let last = schedule.status.as_ref().and_then(|s| s.last_drill_time.clone());
    let after = last.map_or_else(|| since(schedule, now), |t| t.0);
    if cron.last(now).is_none_or(|time| time <= after) {
        return Step {
            requeue: cron.next(now).map(|next| until(next, now)),
            ..Step::default()
        };
    }
    let unknown = |reason, message: &str| Step {
        says: Some(Says::unknown(conditions::DRILL_PASSED, reason, message)),
        requeue: Some(RETRY),
        ..Step::default()
    };
    let Some(backup) = newest(&seen.backups) else {
        return unknown(
            reasons::NO_BACKUP,
            "waits for the first complete backup of the schedule",
        );
    };
    if seen.drill.taken {
        return unknown(reasons::NAME_TAKEN, "a Subgraph has the id of the scratch database");
    }
    match (&seen.drill.volume, &seen.drill.database, seen.drill.node.serving()) {
        (Some(volume), Some(database), Some(_)) => {
            let drill = Drill {
                backup: backup.name.clone(),
                database: database.clone(),
                volume: volume.clone(),
                task_id: None,
                repeated: 0,
                // Whole seconds, as the API keeps them.
                started_at: Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
            };
            Step::act(format!("restores {}", backup.name), vec![Action::BeginDrill(drill)])
        }
        // What the last drill found stays true.
        _ => Step {
            requeue: Some(RETRY),
            ..Step::default()
        },
    }
}

/// Why a drill is not gone on with.
fn given_up(schedule: &BackupSchedule, drill: &Drill, seen: &Observed, now: Timestamp) -> Option<Ended> {
    let unwanted = matches!(seen.graph, GraphSeen::Missing | GraphSeen::Deleting);
    let moved = seen.drill.volume.as_ref().is_some_and(|volume| *volume != drill.volume);
    if unwanted || moved || schedule.metadata.deletion_timestamp.is_some() {
        return Some(Ended::Dropped);
    }
    if !seen.backups.iter().any(|b| b.name == drill.backup && !b.deleting) {
        return Some(Ended::NotHeld(format!("{} was deleted during its drill", drill.backup)));
    }
    if after(drill.started_at.0, LONGEST) <= now {
        return Some(Ended::NotHeld(format!(
            "the drill of {} took more than a day",
            drill.backup
        )));
    }
    let repeated = drill.repeated >= MOST_REPEATED;
    repeated.then(|| Ended::NotHeld(format!("the drill of {} was cut off again and again", drill.backup)))
}

fn under_way(drill: &Drill, given_up: Option<Ended>, seen: &Observed) -> Step {
    let backup = &drill.backup;
    let end = |ended| Step::act(format!("ends the drill of {backup}"), vec![Action::EndDrill(ended)]);
    let at = &seen.drill;
    match &at.node {
        NodeSeen::Present(node) if node.serving == Serving::Yes => {}
        NodeSeen::Present(node) => {
            let message = format!(
                "the drill of {backup} waits for node {}, which does not answer now",
                node.name
            );
            return Step::wait(message, RETRY);
        }
        NodeSeen::Gone { volume: true } => {
            let message = format!(
                "the drill of {backup} waits for a node that mounts volume {}",
                drill.volume
            );
            return Step::wait(message, RETRY);
        }
        // The scratch database went with its volume.
        NodeSeen::Gone { volume: false } | NodeSeen::NotPlaced => return end(Ended::Forgotten),
    }
    if at.taken {
        return end(Ended::Forgotten);
    }
    let restores = || format!("restores {backup} to {}", drill.database);
    if let Some(ended) = given_up {
        return match at.task {
            // What it restores would stay for ever.
            Task::Running if at.cancelled => Step::wait(format!("the drill of {backup} is being stopped"), POLL),
            Task::Running => Step::act(format!("stops the drill of {backup}"), vec![Action::Cancel]),
            Task::Unknown => Step::wait(format!("the drill of {backup} waits for the agent"), RETRY),
            _ => end(ended),
        };
    }
    match (&at.start, &at.task) {
        (Some(Start::Leftover), _) => end(Ended::Again),
        (Some(Start::Refused(why)), _) => end(Ended::Failed(format!("{backup} cannot be restored: {why}"))),
        (Some(Start::NoRoom(why)), _) => end(Ended::NotHeld(format!("no room to restore {backup}: {why}"))),
        (None, Task::Unknown) => Step::wait(restores(), RETRY),
        (None, Task::Running) => Step::wait(restores(), POLL),
        (None, Task::None) if drill.task_id.is_none() => Step::act(restores(), vec![Action::Restore]),
        (None, Task::None | Task::Interrupted) => end(Ended::Again),
        (None, Task::Failed(why)) => end(Ended::Failed(format!("{backup} cannot be restored: {why}"))),
        (None, Task::Completed) if at.scratch == Database::Absent => end(Ended::Again),
        (None, Task::Completed) => match at.counts {
            None => Step::act(format!("counts what {backup} gave back"), vec![Action::Count]),
            Some(found) => end(judged(drill, found, &seen.backups)),
        },
    }
}

/// Whether what was found is what the backup's manifest says.
fn judged(drill: &Drill, found: Counts, backups: &[Made]) -> Ended {
    let backup = &drill.backup;
    let said = backups.iter().find(|b| b.name == *backup).and_then(|b| b.counts);
    let text = |c: Counts| format!("{} nodes and {} relationships", c.nodes, c.relationships);
    match said {
        None => Ended::NotHeld(format!("{backup} was deleted during its drill")),
        Some(said) if said == found => Ended::Passed(format!("{backup} was restored: {}", text(found))),
        Some(said) => Ended::Failed(format!(
            "{backup} gave back {}, and should have {}",
            text(found),
            text(said)
        )),
    }
}
