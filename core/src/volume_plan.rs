//! The life of a disk: make it, let it grow, take snapshots of it, never destroy data.

mod growth;
mod snapshots;

pub use growth::{CHANGES_PER_DAY, next_change, recent};
pub use snapshots::{Purpose, Snapshot, State, newest};

use crate::graph_plan::{annotation_is_true, paused_by};
use crate::plan::{self, Plan, Verdict, sooner};
use crate::resources::mib;
use graphplane_crds::annotations::{DELETION_PROTECTION, RESTORE_FROM};
use graphplane_crds::conditions::{self, Says, reasons};
use graphplane_crds::graph::DeletionPolicy;
use graphplane_crds::quantities::{GiB, MiB};
use graphplane_crds::volume::{GraphVolume, VolumeState};
use growth::{LOOK_AGAIN, Step};
use jiff::Timestamp;
use std::time::Duration;

/// What the plan looks at beside the GraphVolume itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// What the provider has.
    pub disk: Option<Disk>,
    /// Databases on it: what the provider found on the disk, else what the agent said, else what was known before; and
    /// those of graphs that are placed on it.
    pub databases: Vec<String>,
    /// GraphNodes that name it, and do not let it go.
    pub nodes: Vec<String>,
    /// Disk that graphs on it reserve.
    pub reserved: MiB,
    /// How full its file system is, while an agent says so.
    pub fill: Option<Fill>,
    /// Snapshots of it; `None` on a provider without snapshots.
    pub snapshots: Option<Vec<Snapshot>>,
    /// Whether the provider notes on a disk that it is kept without an owner.
    pub notes_kept_disks: bool,
}

/// A disk at the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Identity at the provider.
    pub id: String,
    /// Its size, where the provider knows sizes.
    pub size_gib: Option<GiB>,
    /// Whether its type or performance is another one than the spec's.
    pub performance_differs: bool,
    /// Whether it is attached to a machine, or is just being attached or detached.
    pub attached: bool,
    /// Whether it has a file system of its own, which is as large as the disk.
    pub own_file_system: bool,
    /// A change of its size or performance.
    pub change: Change,
    /// It was made for another object of this name, so what is on it may be known to nobody.
    pub foreign: bool,
}

/// A change of a disk's size or performance at the provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Change {
    /// None that matters.
    #[default]
    None,
    /// It has not taken effect.
    Modifying,
    /// It is in effect, and no other may begin.
    Optimizing,
    /// The newest one failed.
    Failed,
}

/// How full a file system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Used space.
    pub used: MiB,
    /// Free space.
    pub free: MiB,
}

/// What can be done for a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the disk, or make it what the spec says.
    EnsureDisk,
    /// Make the disk from a snapshot.
    RestoreDisk(String),
    /// Raise `spec.sizeGiB`: graphs on it reserve more than it has, or it is nearly full.
    RaiseSize(GiB),
    /// Take the snapshot that was due then.
    TakeSnapshot(Timestamp),
    /// Take the snapshot that stays when the disk goes.
    TakeFinalSnapshot,
    /// Remove a snapshot whose time is over, or that failed.
    DeleteSnapshot(String),
    /// Note on the disk that it is kept.
    KeepDisk,
    /// Destroy the disk, which holds no database.
    DeleteDisk,
    /// Let the object go.
    RemoveFinalizer,
}

/// Plans the next steps for `volume`.
pub fn plan(volume: &GraphVolume, seen: &Observed, now: Timestamp) -> Plan<Action, Option<VolumeState>> {
    if volume.metadata.deletion_timestamp.is_some() {
        return ending(volume, seen);
    }
    let status = volume.status.clone().unwrap_or_default();
    if let Some(by) = paused_by(&volume.metadata, false) {
        return Plan {
            actions: vec![],
            says: vec![plan::paused(Some(by))],
            phase: status.state,
            requeue: None,
        };
    }
    let life = living(volume, seen, now);
    let mut says = life.verdict.says();
    says.extend([plan::paused(None), plan::not_deleting()]);
    Plan {
        actions: life.actions,
        says,
        phase: Some(life.state),
        requeue: life.requeue,
    }
}

struct Life {
    verdict: Verdict,
    actions: Vec<Action>,
    state: VolumeState,
    requeue: Option<Duration>,
}

fn living(volume: &GraphVolume, seen: &Observed, now: Timestamp) -> Life {
    let status = volume.status.clone().unwrap_or_default();
    let Some(disk) = &seen.disk else {
        if let Some(snapshot) = restored_from(volume).filter(|_| seen.snapshots.is_some()) {
            let message = format!("the disk is made from {snapshot}");
            return Life {
                verdict: Verdict::Progressing(reasons::CREATING, message),
                actions: vec![Action::RestoreDisk(snapshot.to_owned())],
                state: VolumeState::Creating,
                requeue: None,
            };
        }
        if let Some(id) = &status.volume_id {
            // An empty one in its place would look like the old one that lost everything.
            let message = format!(
                "the provider no longer has {id}: name a snapshot in the annotation {RESTORE_FROM}, or delete this volume \
                 and restore its graphs from backups"
            );
            return Life {
                verdict: Verdict::Stalled(reasons::VOLUME_LOST, message),
                actions: vec![],
                state: VolumeState::Error,
                // It may only not be listed: an operator that has just started remembers nothing of what was made a moment
                // ago. That is found out by a second look.
                requeue: (status.state != Some(VolumeState::Error)).then_some(LOOK_AGAIN),
            };
        }
        return Life {
            verdict: Verdict::Progressing(reasons::CREATING, "the disk is made".into()),
            actions: vec![Action::EnsureDisk],
            state: VolumeState::Creating,
            requeue: None,
        };
    };
    let mut life = sized(volume, seen, disk, now);
    let Some(policy) = &volume.spec.snapshots else {
        return life;
    };
    let wrong = match &seen.snapshots {
        None => Some((
            reasons::NOT_SUPPORTED,
            "spec.snapshots: this provider has no snapshots; leave it out and create Backup objects".to_owned(),
        )),
        Some(snapshots) => {
            let created = volume.metadata.creation_timestamp.as_ref();
            let due = snapshots::plan(policy, created.map_or(now, |t| t.0), snapshots, now);
            life.actions.extend(due.actions);
            life.requeue = sooner(life.requeue, due.requeue);
            due.wrong.map(|message| (reasons::INVALID_SCHEDULE, message))
        }
    };
    // What is under way is said first.
    let idle = matches!(life.verdict, Verdict::Ready(_));
    if let Some((reason, message)) = wrong.filter(|_| idle) {
        life.verdict = Verdict::ReadyButStalled(reason, message);
    }
    life
}

/// The snapshot that a disk which does not exist is to be made from. Each is used once: a disk that is lost after it was
/// restored has newer data than the snapshot, which only a person gives up.
fn restored_from(volume: &GraphVolume) -> Option<&str> {
    let wanted = volume.metadata.annotations.as_ref()?.get(RESTORE_FROM)?;
    let done = volume.status.as_ref().and_then(|s| s.restored_from.as_ref());
    (done != Some(wanted)).then_some(wanted.as_str())
}

/// Brings size and performance to what they should be.
fn sized(volume: &GraphVolume, seen: &Observed, disk: &Disk, now: Timestamp) -> Life {
    let status = volume.status.clone().unwrap_or_default();
    let spec = &volume.spec;
    let state = match disk.change {
        Change::Modifying => VolumeState::Modifying,
        Change::Optimizing => VolumeState::Optimizing,
        _ if status.attached_to.is_some() => VolumeState::InUse,
        _ => VolumeState::Available,
    };
    let under_way = |message: String, actions, state, requeue| Life {
        verdict: Verdict::ReadyAndProgressing(reasons::RECONCILING, message),
        actions,
        state,
        requeue,
    };
    // Before the disk is changed: one change less.
    if let Some(to) = growth::wanted_size(spec, seen) {
        let reserved = GiB::ceil(seen.reserved.bytes());
        let message = match reserved > spec.size_gib {
            true => format!("graphs on it reserve {} GiB", reserved.0),
            false => format!("it is nearly full and grows to {} GiB", to.0),
        };
        return under_way(message, vec![Action::RaiseSize(to)], state, None);
    }
    match growth::step(spec, disk, &status.modifications, now) {
        Step::None => {}
        Step::Change => {
            let message = format!("becomes a disk of {} GiB and {} IOPS", spec.size_gib.0, spec.iops);
            return under_way(message, vec![Action::EnsureDisk], VolumeState::Modifying, None);
        }
        Step::Running => return under_way("it is being changed".to_owned(), vec![], state, Some(LOOK_AGAIN)),
        Step::Wait(why, wait) => return under_way(why, vec![], state, Some(wait)),
    }
    if growth::is_behind(seen) {
        let message = "the machine lets the file system fill the disk".to_owned();
        return under_way(message, vec![], state, Some(LOOK_AGAIN));
    }
    let message = match seen.reserved > mib(spec.size_gib) {
        true => format!(
            "graphs on it reserve {} GiB, more than it has",
            GiB::ceil(seen.reserved.bytes()).0
        ),
        false => String::new(),
    };
    Life {
        verdict: Verdict::Ready(message),
        actions: vec![],
        state,
        requeue: None,
    }
}

fn ending(volume: &GraphVolume, seen: &Observed) -> Plan<Action, Option<VolumeState>> {
    let status = volume.status.clone().unwrap_or_default();
    let paused = paused_by(&volume.metadata, false);
    let mut requeue = None;
    let (reason, message, actions) = if annotation_is_true(&volume.metadata, DELETION_PROTECTION) {
        (
            reasons::DELETION_PROTECTED,
            format!("annotation {DELETION_PROTECTION} is set: remove it to delete"),
            vec![],
        )
    } else if let Some(by) = paused {
        (reasons::PAUSED, format!("{by} is set"), vec![])
    } else if !seen.nodes.is_empty() {
        (
            reasons::WAITING_FOR_DEPENDENTS,
            format!("waits for nodes {} to let it go", seen.nodes.join(", ")),
            vec![],
        )
    } else if !seen.databases.is_empty() {
        let message = format!(
            "databases {} are on it: a volume is never destroyed with data; move or delete them first",
            seen.databases.join(", ")
        );
        (reasons::VOLUME_IN_USE, message, vec![])
    } else {
        requeue = Some(LOOK_AGAIN);
        released(volume, seen)
    };
    let mut says = vec![plan::deleting(reason, message.clone()), plan::paused(paused)];
    if !actions.is_empty() {
        requeue = None;
        says.extend(Verdict::Off(reasons::DELETING, message).says());
    } else if !conditions::is_true(&status.conditions, conditions::READY) {
        says.push(Says::no(conditions::READY, reason, message));
    }
    Plan {
        actions,
        says,
        phase: status.state,
        requeue,
    }
}

/// What becomes of a disk that nobody uses and no database is on.
fn released(volume: &GraphVolume, seen: &Observed) -> (&'static str, String, Vec<Action>) {
    let last = |first: Option<Action>| first.into_iter().chain([Action::RemoveFinalizer]).collect();
    let Some(disk) = &seen.disk else {
        return (reasons::RETAINED, String::new(), last(None));
    };
    if volume.spec.reclaim_policy == DeletionPolicy::Retain {
        let keep = seen.notes_kept_disks.then_some(Action::KeepDisk);
        return (reasons::RETAINED, String::new(), last(keep));
    }
    if disk.attached {
        let message = format!("waits for {} to be detached", disk.id);
        return (reasons::WAITING_FOR_DEPENDENTS, message, vec![]);
    }
    let delete = [Action::DeleteDisk, Action::RemoveFinalizer];
    match &seen.snapshots {
        // What databases left is gone from the list, and may be on the disk nevertheless.
        Some(snapshots) if volume.spec.reclaim_policy == DeletionPolicy::Snapshot || disk.foreign => {
            let found = snapshots.iter().find(|s| s.purpose == Purpose::Final);
            let take = [Action::TakeFinalSnapshot].into_iter().chain(delete.clone());
            let (message, actions) = match found.map(|s| (s, s.state)) {
                None => (String::new(), take.collect()),
                Some((s, State::Failed)) => {
                    let again = [Action::DeleteSnapshot(s.id.clone())].into_iter().chain(take);
                    (format!("{} failed and is taken again", s.id), again.collect())
                }
                Some((s, State::Pending)) => (format!("waits for the final snapshot {}", s.id), vec![]),
                Some((s, State::Complete)) => (format!("{} stays", s.id), delete.to_vec()),
            };
            (reasons::FINAL_SNAPSHOT, message, actions)
        }
        _ => (reasons::DELETING, String::new(), delete.to_vec()),
    }
}

#[cfg(test)]
#[path = "volume_plan_tests.rs"]
mod tests;
