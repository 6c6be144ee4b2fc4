//! Snapshots of a disk on schedule, and for how long they are kept.

use super::Action;
use crate::cron::Schedule;
use crate::ending::{after, until};
use crate::plan::sooner;
use graphplane_crds::volume::SnapshotPolicy;
use jiff::Timestamp;
use std::time::Duration;

/// A snapshot of the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Identity at the provider.
    pub id: String,
    /// Why it was taken.
    pub purpose: Purpose,
    /// When it was begun.
    pub started: Timestamp,
    /// Whether it can be restored.
    pub state: State,
    /// Whether a Backup names it.
    pub in_use: bool,
}

/// Why a snapshot was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It was due then.
    Schedule(Timestamp),
    /// The volume is being deleted.
    Final,
}

/// Whether a snapshot can be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not yet.
    Pending,
    /// It can.
    Complete,
    /// It never will.
    Failed,
}

/// The newest snapshot that can be restored.
pub fn newest(snapshots: &[Snapshot]) -> Option<&Snapshot> {
    let complete = snapshots.iter().filter(|s| s.state == State::Complete);
    complete.max_by(|a, b| (a.started, &a.id).cmp(&(b.started, &b.id)))
}

/// What to do about a schedule.
#[derive(Default)]
pub(super) struct Due {
    pub(super) actions: Vec<Action>,
    pub(super) requeue: Option<Duration>,
    /// What is wrong with the policy.
    pub(super) wrong: Option<String>,
}

/// One snapshot is taken for each due time; times that passed while nobody looked are made up for by the newest. Nothing
/// is due before the volume was made. What is older than its days is removed, except the newest that can be restored: a
/// schedule that fails for weeks must not end with none.
pub(super) fn plan(policy: &SnapshotPolicy, since: Timestamp, snapshots: &[Snapshot], now: Timestamp) -> Due {
    let schedule: Schedule = match policy.schedule.parse() {
        Ok(schedule) => schedule,
        Err(error) => {
            return Due {
                wrong: Some(format!("spec.snapshots.schedule: {error}")),
                ..Due::default()
            };
        }
    };
    let mut due = Due::default();
    if let Some(time) = schedule.last(now).filter(|time| *time >= since) {
        let taken = |s: &Snapshot| s.purpose == Purpose::Schedule(time) && s.state != State::Failed;
        if !snapshots.iter().any(taken) {
            // Its token is that of the time, so one that failed would be found again instead.
            let failed = snapshots.iter().filter(|s| s.purpose == Purpose::Schedule(time));
            due.actions.extend(failed.map(|s| Action::DeleteSnapshot(s.id.clone())));
            due.actions.push(Action::TakeSnapshot(time));
        }
    }
    let kept = Duration::from_secs(u64::from(policy.retention_days) * 86_400);
    let newest = newest(snapshots).map(|s| s.id.as_str());
    for snapshot in snapshots {
        let scheduled = matches!(snapshot.purpose, Purpose::Schedule(_));
        if !scheduled || snapshot.in_use || newest == Some(snapshot.id.as_str()) || snapshot.state == State::Pending {
            continue;
        }
        let end = after(snapshot.started, kept);
        let action = Action::DeleteSnapshot(snapshot.id.clone());
        if end > now {
            due.requeue = sooner(due.requeue, Some(until(end, now)));
        } else if !due.actions.contains(&action) {
            due.actions.push(action);
        }
    }
    let next = schedule.next(now).map(|time| until(time, now));
    due.requeue = sooner(due.requeue, next);
    due
}
