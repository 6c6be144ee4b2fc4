//! How far an operation is, judged from its object alone.

use super::id::{OperationId, Verb};
use graphplane_crds::backup::BackupPhase;
use graphplane_crds::conditions::{self, reasons};
use graphplane_crds::{Backup, Graph, Subgraph};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Resource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OperationStatus {
    /// The operator has not seen it yet.
    Pending,
    /// The operator works on it.
    Running,
    /// Done.
    Completed,
    /// No progress is possible until the request or the world changes; `message` says what to do. When the cause goes
    /// away, the operator goes on, and the operation can still complete.
    Failed,
}

impl OperationStatus {
    /// Whether a follower has nothing more to wait for.
    pub(crate) fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }
}

/// What an operation's object says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) uid: String,
    pub(crate) deleting: bool,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) phase: Option<BackupPhase>,
    pub(crate) database: Option<String>,
}

/// Kinds that operations are about.
pub(crate) trait Followed: Resource<DynamicType = ()> {
    /// Conditions that become true one after the other while the object is made, `Ready` last.
    const MILESTONES: &'static [&'static str];

    /// What the object says.
    fn seen(&self) -> Seen;
}

fn seen<K: Resource>(object: &K, conditions: Option<&Vec<Condition>>) -> Seen {
    Seen {
        uid: object.uid().unwrap_or_default(),
        deleting: object.meta().deletion_timestamp.is_some(),
        conditions: conditions.cloned().unwrap_or_default(),
        phase: None,
        database: None,
    }
}

impl Followed for Graph {
    const MILESTONES: &'static [&'static str] = &[
        conditions::PLACED,
        conditions::VOLUME_READY,
        conditions::DATABASE_READY,
        conditions::READY,
    ];

    fn seen(&self) -> Seen {
        let database = crate::graphs::effective_id(self).map(String::from);
        Seen {
            database,
            ..seen(self, self.status.as_ref().map(|status| &status.conditions))
        }
    }
}

impl Followed for Subgraph {
    const MILESTONES: &'static [&'static str] = &[conditions::DATABASE_READY, conditions::READY];

    fn seen(&self) -> Seen {
        let database = self
            .status
            .as_ref()
            .and_then(|status| status.database_id.clone())
            .map(String::from);
        Seen {
            database,
            ..seen(self, self.status.as_ref().map(|status| &status.conditions))
        }
    }
}

impl Followed for Backup {
    const MILESTONES: &'static [&'static str] = &[conditions::READY];

    fn seen(&self) -> Seen {
        let phase = self.status.as_ref().and_then(|status| status.phase);
        Seen {
            phase,
            ..seen(self, self.status.as_ref().map(|status| &status.conditions))
        }
    }
}

/// How far an operation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) status: OperationStatus,
    pub(crate) percent: u8,
    /// The condition that is waited for.
    pub(crate) stage: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) message: String,
}

impl Progress {
    fn new(status: OperationStatus, percent: u8, message: impl Into<String>) -> Self {
        Self {
            status,
            percent,
            stage: None,
            reason: None,
            message: message.into(),
        }
    }

    fn because(mut self, condition: &Condition) -> Self {
        self.stage = Some(condition.type_.clone());
        self.reason = Some(condition.reason.clone());
        if !condition.message.is_empty() {
            self.message = condition.message.clone();
        }
        self
    }
}

/// Judges an operation; `seen` is `None` when no object of its name exists.
pub(crate) fn judge(id: &OperationId, milestones: &[&str], seen: Option<&Seen>) -> Progress {
    // Another object of the same name is not the one that the operation is about.
    let seen = seen.filter(|seen| seen.uid == id.uid);
    match (id.verb, seen) {
        (Verb::Delete, None) => Progress::new(OperationStatus::Completed, 100, "deleted"),
        (Verb::Delete, Some(seen)) => deletion(seen),
        (_, None) => {
            let mut gone = Progress::new(
                OperationStatus::Failed,
                0,
                "the object was deleted before the operation was done",
            );
            gone.reason = Some("Deleted".to_owned());
            gone
        }
        (_, Some(seen)) if seen.deleting => {
            let mut going = Progress::new(OperationStatus::Failed, 0, "the object is being deleted");
            going.reason = Some(reasons::DELETING.to_owned());
            going
        }
        (verb, Some(seen)) => creation(verb, id.generation, milestones, seen),
    }
}

fn deletion(seen: &Seen) -> Progress {
    match conditions::get(&seen.conditions, conditions::DELETING) {
        Some(condition) if condition.status == "True" => {
            let refused = condition.reason == reasons::DELETION_PROTECTED;
            let status = if refused {
                OperationStatus::Failed
            } else {
                OperationStatus::Running
            };
            Progress::new(status, 50, "being deleted").because(condition)
        }
        // The operator says with `False` that it was told to delete and does not.
        Some(condition) if condition.reason == reasons::DELETION_PROTECTED => {
            Progress::new(OperationStatus::Failed, 0, "protected from deletion").because(condition)
        }
        _ => Progress::new(OperationStatus::Pending, 0, "waiting for the operator"),
    }
}

fn creation(verb: Verb, generation: i64, milestones: &[&str], seen: &Seen) -> Progress {
    // What was said about an older spec says nothing about this operation.
    let current = |type_: &str| {
        conditions::get(&seen.conditions, type_).filter(|c| c.observed_generation.unwrap_or(0) >= generation)
    };
    let is_true = |type_: &str| current(type_).is_some_and(|condition| condition.status == "True");
    let done = |condition: &Condition| Progress::new(OperationStatus::Completed, 100, "ready").because(condition);
    match seen.phase {
        Some(BackupPhase::Completed) => {
            return Progress::new(OperationStatus::Completed, 100, "the backup is complete");
        }
        Some(BackupPhase::Failed) => {
            let failed = Progress::new(OperationStatus::Failed, 0, "the backup failed");
            return current(conditions::READY).map_or(failed.clone(), |condition| failed.because(condition));
        }
        _ => {}
    }
    if let Some(ready) = current(conditions::READY)
        && (ready.status == "True" || ready.reason == reasons::SUSPENDED)
    {
        return done(ready);
    }
    if let Some(paused) = current(conditions::PAUSED).filter(|c| c.status == "True" && verb == Verb::Update) {
        return done(paused);
    }
    let reached = milestones.iter().filter(|type_| is_true(type_)).count();
    let percent = (reached * 100 / milestones.len().max(1)) as u8;
    if let Some(stalled) = current(conditions::STALLED).filter(|condition| condition.status == "True") {
        return Progress::new(OperationStatus::Failed, percent, "no progress is possible").because(stalled);
    }
    let next = milestones
        .iter()
        .find_map(|type_| current(type_).filter(|condition| condition.status != "True"));
    match next.or_else(|| current(conditions::PROGRESSING)) {
        Some(condition) => Progress::new(OperationStatus::Running, percent, "in progress").because(condition),
        None => Progress::new(OperationStatus::Pending, percent, "waiting for the operator"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::operations::id::Target;
    use graphplane_crds::conditions::{Says, merge};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn id(verb: Verb, generation: i64) -> OperationId {
        OperationId {
            verb,
            target: Target::Graph,
            namespace: "ns".into(),
            name: "g".into(),
            uid: "u".into(),
            generation,
        }
    }

    fn seen(generation: i64, says: &[Says]) -> Seen {
        let conditions = merge(&[], says, generation, &Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
        Seen {
            uid: "u".into(),
            deleting: false,
            conditions,
            phase: None,
            database: None,
        }
    }

    fn judged(verb: Verb, generation: i64, seen: Option<&Seen>) -> Progress {
        judge(&id(verb, generation), Graph::MILESTONES, seen)
    }

    #[test]
    fn a_new_graph_goes_through_its_milestones() {
        let nothing = judged(Verb::Create, 1, Some(&seen(0, &[])));
        assert_eq!((nothing.status, nothing.percent), (OperationStatus::Pending, 0));
        let says = [
            Says::yes(conditions::PLACED, reasons::PLACED, ""),
            Says::no(conditions::DATABASE_READY, reasons::CREATING_DATABASE, "creating"),
            Says::no(conditions::READY, reasons::NODE_STARTING, "starting"),
        ];
        let placed = judged(Verb::Create, 1, Some(&seen(1, &says)));
        assert_eq!((placed.status, placed.percent), (OperationStatus::Running, 25));
        assert_eq!(
            (placed.stage.as_deref(), placed.message.as_str()),
            (Some("DatabaseReady"), "creating")
        );
        let ready = judged(
            Verb::Create,
            1,
            Some(&seen(1, &[Says::yes(conditions::READY, reasons::READY, "")])),
        );
        assert_eq!((ready.status, ready.percent), (OperationStatus::Completed, 100));
    }

    #[test]
    fn what_was_said_of_an_older_spec_does_not_count() {
        let old = seen(1, &[Says::yes(conditions::READY, reasons::READY, "")]);
        assert_eq!(judged(Verb::Update, 2, Some(&old)).status, OperationStatus::Pending);
        assert_eq!(judged(Verb::Create, 1, Some(&old)).status, OperationStatus::Completed);
    }

    #[test]
    fn a_stalled_object_fails_with_its_reason() {
        let stalled = seen(
            1,
            &[
                Says::no(conditions::READY, reasons::NO_CAPACITY, "no room"),
                Says::yes(conditions::STALLED, reasons::NO_CAPACITY, "raise maxNodes of the tier"),
            ],
        );
        let progress = judged(Verb::Create, 1, Some(&stalled));
        assert_eq!(progress.status, OperationStatus::Failed);
        assert_eq!(
            (progress.reason.as_deref(), progress.message.as_str()),
            (Some("NoCapacity"), "raise maxNodes of the tier")
        );
    }

    #[test]
    fn suspending_is_done_when_the_graph_is_suspended() {
        let suspended = seen(2, &[Says::no(conditions::READY, reasons::SUSPENDED, "")]);
        assert_eq!(
            judged(Verb::Update, 2, Some(&suspended)).status,
            OperationStatus::Completed
        );
    }

    #[test]
    fn deletion_is_done_when_the_object_is_gone_or_another_has_its_name() {
        assert_eq!(judged(Verb::Delete, 1, None).status, OperationStatus::Completed);
        let other = Seen {
            uid: "other".into(),
            ..seen(1, &[])
        };
        assert_eq!(judged(Verb::Delete, 1, Some(&other)).status, OperationStatus::Completed);
        assert_eq!(judged(Verb::Create, 1, Some(&other)).status, OperationStatus::Failed);
        let going = Seen {
            deleting: true,
            ..seen(
                1,
                &[Says::yes(conditions::DELETING, reasons::FINAL_SNAPSHOT, "snapshot")],
            )
        };
        assert_eq!(judged(Verb::Delete, 1, Some(&going)).status, OperationStatus::Running);
        assert_eq!(judged(Verb::Create, 1, Some(&going)).status, OperationStatus::Failed);
        let refused = Seen {
            deleting: true,
            ..seen(
                1,
                &[Says::no(conditions::DELETING, reasons::DELETION_PROTECTED, "remove it")],
            )
        };
        assert_eq!(judged(Verb::Delete, 1, Some(&refused)).status, OperationStatus::Failed);
    }

    #[test]
    fn a_backup_follows_its_phase() {
        let backup = |phase| Seen {
            phase: Some(phase),
            ..seen(1, &[Says::no(conditions::READY, reasons::BACKUP_FAILED, "disk full")])
        };
        let judged = |phase| judge(&id(Verb::Create, 1), Backup::MILESTONES, Some(&backup(phase)));
        assert_eq!(judged(BackupPhase::Completed).status, OperationStatus::Completed);
        assert_eq!(judged(BackupPhase::Running).status, OperationStatus::Running);
        let failed = judged(BackupPhase::Failed);
        assert_eq!(
            (failed.status, failed.message.as_str()),
            (OperationStatus::Failed, "disk full")
        );
    }
}
