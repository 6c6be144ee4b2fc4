//! The life of a backup schedule: one Backup for each due time, kept for its days, and drills that restore the newest.
//!
//! ```text
//!  due ──▶ Create ──▶ its own Backup does the rest ──▶ Expire after its days, never the newest complete ones
//!  due ──▶ BeginDrill ──▶ Restore to a scratch database ──▶ Count ──▶ EndDrill: the scratch database goes
//! ```
//!
//! A Backup is named after the time for which it was made, so no time has two. Times that passed while nothing could be
//! done are made up for by one Backup, for the newest of them.

mod drill;
mod retention;

pub use drill::{Counts, DrillSeen, Ended, Start};

use crate::cron::Schedule;
use crate::ending::until;
use crate::graph_plan::{annotation_is_true, paused_by};
use crate::names;
use crate::plan::{self, Plan, Verdict, sooner};
use graphplane_crds::annotations::DELETION_PROTECTION;
use graphplane_crds::backup::{BackupMethod, BackupPhase, BackupSchedule, Drill};
use graphplane_crds::conditions::reasons;
use graphplane_crds::tier::BackupLimits;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::collections::BTreeSet;

/// What the plan looks at beside the BackupSchedule itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The Graph.
    pub graph: GraphSeen,
    /// Backups that the schedule made.
    pub backups: Vec<Made>,
    /// Names of other Backups in the namespace.
    pub others: BTreeSet<String>,
    /// When the Backups of the graph were created, whoever did.
    pub created: Vec<Timestamp>,
    /// Limits of the graph's tier, if that exists.
    pub limits: Option<BackupLimits>,
    /// What there is of a drill.
    pub drill: DrillSeen,
}

/// The Graph of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GraphSeen {
    /// It does not exist.
    Missing,
    /// It is being deleted.
    Deleting,
    /// Its spec suspends it.
    Suspended,
    /// It exists.
    Present,
}

/// A Backup of the schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Its name.
    pub name: String,
    /// The time for which it was made.
    pub slot: Option<Timestamp>,
    /// How far it is.
    pub phase: BackupPhase,
    /// When it was created.
    pub created: Timestamp,
    /// When it was complete.
    pub completed: Option<Timestamp>,
    /// What its manifest says is in it.
    pub counts: Option<Counts>,
    /// Whether an annotation protects it.
    pub protected: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
}

impl Made {
    fn is_open(&self) -> bool {
        matches!(self.phase, BackupPhase::Pending | BackupPhase::Running)
    }

    fn time(&self) -> Timestamp {
        self.slot.unwrap_or(self.created)
    }
}

/// What can be done for a schedule.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make the Backup of a due time.
    Create {
        /// Its name.
        name: String,
        /// The time.
        time: Timestamp,
    },
    /// Delete Backups whose days are over.
    Expire(Vec<String>),
    /// Write down a drill, before anything is restored.
    BeginDrill(Drill),
    /// Ask the agent to restore the backup to the scratch database.
    Restore,
    /// Ask the agent to stop that.
    Cancel,
    /// Count what is in the scratch database.
    Count,
    /// Remove the scratch database, and write down what the drill found.
    EndDrill(Ended),
    /// Let the object go.
    RemoveFinalizer,
}

/// Times of a schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// The newest for which a Backup was made.
    pub last: Option<Timestamp>,
    /// The next.
    pub next: Option<Timestamp>,
}

/// Plans the next steps for `schedule`.
pub fn plan(schedule: &BackupSchedule, seen: &Observed, now: Timestamp) -> Plan<Action, Times> {
    let paused = paused_by(&schedule.metadata, false);
    let times = Times {
        last: last(schedule, seen, now),
        next: None,
    };
    if schedule.metadata.deletion_timestamp.is_some() {
        return ending(schedule, seen, now, paused, times);
    }
    if let Some(by) = paused {
        return Plan {
            actions: vec![],
            says: vec![plan::paused(Some(by))],
            phase: times,
            requeue: None,
        };
    }
    let mut plan = living(schedule, seen, now, times);
    plan.says.extend([plan::paused(None), plan::not_deleting()]);
    plan
}

/// The newest time that has its Backup, or had it. A time of the future that stands at a Backup is nothing that was made.
fn last(schedule: &BackupSchedule, seen: &Observed, now: Timestamp) -> Option<Timestamp> {
    let written = schedule.status.as_ref().and_then(|s| s.last_schedule_time.clone());
    let made = seen.backups.iter().filter_map(|b| b.slot).filter(|slot| *slot <= now);
    made.chain(written.map(|t| t.0)).max()
}

/// When the object was created: nothing is due before.
fn since(schedule: &BackupSchedule, now: Timestamp) -> Timestamp {
    let created = schedule.metadata.creation_timestamp.as_ref();
    created.map_or(now, |t| t.0)
}

fn cron(field: &str, text: &str) -> Result<Schedule, String> {
    text.parse().map_err(|error| format!("{field}: {error}"))
}

fn crons(schedule: &BackupSchedule) -> Result<(Schedule, Option<Schedule>), String> {
    let backups = cron("spec.schedule", &schedule.spec.schedule)?;
    let drills = schedule.spec.drill_schedule.as_deref();
    let drills = drills.map(|text| cron("spec.drillSchedule", text)).transpose()?;
    Ok((backups, drills))
}

fn living(schedule: &BackupSchedule, seen: &Observed, now: Timestamp, times: Times) -> Plan<Action, Times> {
    let spec = &schedule.spec;
    let (cron, drills) = match crons(schedule) {
        Ok((cron, drills)) => (Ok(cron), drills),
        Err(why) => (Err(why), None),
    };
    let of_object = spec.method == BackupMethod::Object;
    let may_begin = !spec.suspended && of_object && seen.graph == GraphSeen::Present;
    let drill = drill::step(schedule, seen, now, drills.as_ref().filter(|_| may_begin));
    let (mut verdict, create, next) = match &cron {
        Err(why) => (Verdict::Stalled(reasons::INVALID_SCHEDULE, why.clone()), None, None),
        Ok(cron) => {
            let (verdict, create) = begin(schedule, seen, now, due(schedule, seen, now, cron, times));
            let next = (!matches!(verdict, Verdict::Off(..))).then(|| cron.next(now)).flatten();
            (verdict, create, next)
        }
    };
    if let Verdict::Ready(_) = verdict {
        if spec.drill_schedule.is_some() && !of_object {
            let message = "spec.drillSchedule: a snapshot of a volume is not restored by a drill; use method Object";
            verdict = Verdict::ReadyButStalled(reasons::NOT_SUPPORTED, message.to_owned());
        } else if let Some(message) = &drill.under_way {
            verdict = Verdict::ReadyAndProgressing(reasons::DRILL_RUNNING, message.clone());
        }
    }
    let mut actions: Vec<Action> = create.into_iter().collect();
    if matches!(seen.graph, GraphSeen::Present | GraphSeen::Suspended) {
        let limit = seen.limits.as_ref().map(|l| l.retention_days);
        let drilled = schedule.status.as_ref().and_then(|s| s.drill.as_ref());
        let drilled = drilled.map(|d| d.backup.as_str());
        let expired = retention::expired(&spec.retention, limit, &seen.backups, drilled, now);
        if !expired.is_empty() {
            actions.push(Action::Expire(expired));
        }
    }
    actions.extend(drill.actions);
    let mut says = verdict.says();
    says.extend(drill.says);
    Plan {
        actions,
        says,
        phase: Times { next, ..times },
        requeue: sooner(drill.requeue, next.map(|next| until(next, now))),
    }
}

/// The time that has no Backup yet: the newest that has passed, if it is newer than the last that has one.
fn due(
    schedule: &BackupSchedule,
    seen: &Observed,
    now: Timestamp,
    cron: &Schedule,
    times: Times,
) -> Option<(Timestamp, String)> {
    let after = times.last.unwrap_or_else(|| since(schedule, now));
    let time = cron.last(now).filter(|time| *time > after)?;
    let name = names::scheduled_backup(schedule.metadata.name.as_deref().unwrap_or_default(), time);
    (!seen.backups.iter().any(|b| b.name == name)).then_some((time, name))
}

fn begin(
    schedule: &BackupSchedule,
    seen: &Observed,
    now: Timestamp,
    due: Option<(Timestamp, String)>,
) -> (Verdict, Option<Action>) {
    let graph = &schedule.spec.graph;
    let off = |reason, message: String| (Verdict::Off(reason, message), None);
    match seen.graph {
        GraphSeen::Missing => {
            let message = format!("Graph {graph} does not exist in this namespace");
            return (Verdict::Progressing(reasons::GRAPH_NOT_FOUND, message), None);
        }
        GraphSeen::Deleting => {
            let message = format!("graph {graph} is being deleted: no more backups are made of it");
            return off(reasons::GRAPH_NOT_READY, message);
        }
        _ if schedule.spec.suspended => {
            let message = "spec.suspended is set: no backup is started".to_owned();
            return off(reasons::SUSPENDED, message);
        }
        GraphSeen::Suspended => {
            let message = format!("graph {graph} is suspended: no backup is started");
            return off(reasons::SUSPENDED, message);
        }
        GraphSeen::Present => {}
    }
    let Some((time, name)) = due else {
        return (standing(seen), None);
    };
    let waits = |reason, message: String| (Verdict::ReadyAndProgressing(reason, message), None);
    if let Some(open) = seen.backups.iter().find(|b| b.is_open()) {
        let message = format!("the backup of {time} waits for {}, which is not done", open.name);
        return waits(reasons::BACKUP_RUNNING, message);
    }
    if seen.others.contains(&name) {
        let message = format!(
            "Backup {name} exists and is not of this schedule: delete it, or leave it and wait for the next time"
        );
        return (Verdict::ReadyButStalled(reasons::NAME_TAKEN, message), None);
    }
    if let Some(limits) = &seen.limits
        && !limits.per_day.allows(today(&seen.created, now))
    {
        let most = limits.per_day.0;
        let message =
            format!("the tier allows {most} backups of a graph a day: that of {time} waits for tomorrow (UTC)");
        return waits(reasons::BACKUP_LIMIT, message);
    }
    (standing(seen), Some(Action::Create { name, time }))
}

/// How the schedule stands by the newest of its Backups that is done.
fn standing(seen: &Observed) -> Verdict {
    let done = seen.backups.iter().filter(|b| !b.is_open() && !b.deleting);
    match done.max_by(|a, b| (a.time(), &a.name).cmp(&(b.time(), &b.name))) {
        Some(newest) if newest.phase == BackupPhase::Failed => {
            let message = format!(
                "Backup {} failed, and says why; the next time is another attempt",
                newest.name
            );
            Verdict::Progressing(reasons::BACKUP_FAILED, message)
        }
        _ => Verdict::Ready(String::new()),
    }
}

/// How many of these moments are of the present day.
fn today(moments: &[Timestamp], now: Timestamp) -> u32 {
    let day = |moment: Timestamp| moment.to_zoned(TimeZone::UTC).date();
    let count = moments.iter().filter(|m| day(**m) == day(now)).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Backups outlive their schedule; a drill does not.
fn ending(
    schedule: &BackupSchedule,
    seen: &Observed,
    now: Timestamp,
    paused: Option<&'static str>,
    times: Times,
) -> Plan<Action, Times> {
    let drilling = schedule.status.as_ref().is_some_and(|s| s.drill.is_some());
    let (reason, message, actions, requeue) = if annotation_is_true(&schedule.metadata, DELETION_PROTECTION) {
        let message = format!("annotation {DELETION_PROTECTION} is set: remove it to delete");
        (reasons::DELETION_PROTECTED, message, vec![], None)
    } else if let Some(by) = paused {
        (reasons::PAUSED, format!("{by} is set"), vec![], None)
    } else if drilling {
        let step = drill::step(schedule, seen, now, None);
        let message = step.under_way.unwrap_or_default();
        (reasons::DRILL_RUNNING, message, step.actions, step.requeue)
    } else {
        (reasons::DELETING, String::new(), vec![Action::RemoveFinalizer], None)
    };
    Plan {
        actions,
        says: vec![plan::deleting(reason, message), plan::paused(paused)],
        phase: times,
        requeue,
    }
}

#[cfg(test)]
#[path = "backup_schedule_plan_tests.rs"]
mod tests;
