//! What becomes of a database when its object is deleted. The same rules hold for graphs and subgraphs.
//!
//! ```text
//!  nothing was ever made, or it is gone ─────────────────────────────▶ Finished
//!  Retain    write down whose it is ─────────────────────────────────▶ Finished      (the file stays)
//!  Snapshot  final Backup: make ▶ wait ▶ Completed ─▶ delete the database ▶ Finished
//!  Delete                                            delete the database ▶ Finished
//! ```

use crate::fleet::{NodeView, Serving};
use graphplane_crds::backup::BackupPhase;
use graphplane_crds::conditions::reasons;
use graphplane_crds::graph::DeletionPolicy;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// How long a failed final backup stands before it is made again.
pub const RETRY_BACKUP_AFTER: Duration = Duration::from_secs(300);

/// The node that an object's status names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeSeen {
    /// The status names none.
    NotPlaced,
    /// It exists.
    Present(NodeView),
    /// It does not exist.
    Gone {
        /// Whether its volume does.
        volume: bool,
    },
}

impl NodeSeen {
    /// The node, if its agent can be called.
    pub fn serving(&self) -> Option<&NodeView> {
        match self {
            Self::Present(node) if node.serving == Serving::Yes => Some(node),
            _ => None,
        }
    }
}

/// What is known of the database itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// Nobody asked.
    Unknown,
    /// The agent has none of this id.
    Absent,
    /// The agent has it.
    Present,
}

/// The final Backup of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalBackup {
    /// How far it is.
    pub phase: BackupPhase,
    /// When it failed, and why.
    pub failed: Option<(Timestamp, String)>,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// All that the rules look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending<'a> {
    /// What the spec asks for.
    pub policy: DeletionPolicy,
    /// Whether the protection annotation is set.
    pub protected: bool,
    /// What pauses the object.
    pub paused: Option<&'a str>,
    /// The node.
    pub node: &'a NodeSeen,
    /// The database.
    pub database: Database,
    /// Whether it is written down on the volume whose database it was.
    pub kept: bool,
    /// Name of the final Backup.
    pub backup_name: &'a str,
    /// The final Backup, if it exists.
    pub backup: Option<&'a FinalBackup>,
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing can be done now: reason, message, and when to look again.
    Wait(&'static str, String, Option<Duration>),
    /// The volume has no node; the data cannot be reached without one.
    NeedNode,
    /// Write down on the volume whose database it was.
    Keep,
    /// Make the final Backup.
    CreateBackup,
    /// Delete the final Backup, which failed, so that it is made again.
    DeleteFailedBackup,
    /// Destroy the database.
    DeleteDatabase,
    /// Nothing is left to do.
    Finished,
}

impl Ending<'_> {
    /// The next step at `now`.
    pub fn step(&self, now: Timestamp) -> Step {
        if self.protected {
            let message = format!(
                "annotation {} is set: remove it to delete, or leave it and go on using the data",
                graphplane_crds::annotations::DELETION_PROTECTION
            );
            return Step::Wait(reasons::DELETION_PROTECTED, message, None);
        }
        if let Some(by) = self.paused {
            return Step::Wait(
                reasons::PAUSED,
                format!("{by} is set: deletion goes on when it is removed"),
                None,
            );
        }
        let nothing_there = matches!(self.node, NodeSeen::NotPlaced | NodeSeen::Gone { volume: false });
        if nothing_there || self.database == Database::Absent {
            return Step::Finished;
        }
        match self.policy {
            DeletionPolicy::Retain if self.kept => Step::Finished,
            DeletionPolicy::Retain => Step::Keep,
            DeletionPolicy::Delete => self.reachable().unwrap_or(Step::DeleteDatabase),
            DeletionPolicy::Snapshot => self.snapshot(now),
        }
    }

    fn snapshot(&self, now: Timestamp) -> Step {
        let name = self.backup_name;
        match self.backup {
            None => self.reachable().unwrap_or(Step::CreateBackup),
            Some(backup) if backup.deleting => Step::Wait(
                reasons::FINAL_SNAPSHOT,
                format!("final backup {name} is made again once it is deleted"),
                None,
            ),
            Some(FinalBackup {
                phase: BackupPhase::Completed,
                ..
            }) => self.reachable().unwrap_or(Step::DeleteDatabase),
            Some(FinalBackup {
                phase: BackupPhase::Failed,
                failed,
                ..
            }) => {
                let (at, why) = failed.clone().unwrap_or((now, String::new()));
                let age = Duration::try_from(now.duration_since(at)).unwrap_or_default();
                let message = format!(
                    "final backup {name} failed: {why}; delete it to have it made again now, or set deletionPolicy to \
                     Retain or Delete"
                );
                match RETRY_BACKUP_AFTER.checked_sub(age).filter(|left| !left.is_zero()) {
                    Some(left) => Step::Wait(reasons::BACKUP_FAILED, message, Some(left)),
                    None => Step::DeleteFailedBackup,
                }
            }
            Some(_) => Step::Wait(reasons::FINAL_SNAPSHOT, format!("waits for final backup {name}"), None),
        }
    }

    /// `None` when the agent can be called, else what is to be done about it.
    fn reachable(&self) -> Option<Step> {
        match self.node {
            NodeSeen::Present(node) if node.serving == Serving::Yes => None,
            NodeSeen::Present(node) => {
                let message = format!("waits for node {}, which does not answer now", node.name);
                Some(Step::Wait(reasons::NODE_LOST, message, None))
            }
            _ => Some(Step::NeedNode),
        }
    }
}

/// When a moment is reached, from `now`; zero when it has passed.
pub(crate) fn until(moment: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(moment.duration_since(now)).unwrap_or_default()
}

/// `moment` and `wait` later; the end of time when it overflows.
pub(crate) fn after(moment: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait)
        .ok()
        .and_then(|w| moment.checked_add(w).ok())
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fleet::Accepts;
    use graphplane_crds::quantities::Epoch;
    use proptest::prelude::*;

    fn node(serving: Serving) -> NodeSeen {
        NodeSeen::Present(NodeView {
            name: "std-0".into(),
            tier: "std".into(),
            volume: Some("std-0".into()),
            serving,
            accepts: Accepts::Now,
            endpoint: None,
            epoch: Epoch(1),
            changes_in: None,
        })
    }

    fn any_node() -> impl Strategy<Value = NodeSeen> {
        prop_oneof![
            Just(NodeSeen::NotPlaced),
            Just(node(Serving::Starting)),
            Just(node(Serving::Yes)),
            Just(node(Serving::Lost)),
            any::<bool>().prop_map(|volume| NodeSeen::Gone { volume }),
        ]
    }

    fn any_backup() -> impl Strategy<Value = Option<FinalBackup>> {
        let phase = prop_oneof![
            Just(BackupPhase::Pending),
            Just(BackupPhase::Running),
            Just(BackupPhase::Completed),
            Just(BackupPhase::Failed)
        ];
        proptest::option::of(
            (phase, any::<bool>(), 0i64..1000).prop_map(|(phase, deleting, at)| FinalBackup {
                phase,
                failed: (phase == BackupPhase::Failed).then(|| (Timestamp::from_second(at).unwrap(), "disk".into())),
                deleting,
            }),
        )
    }

    fn any_policy() -> impl Strategy<Value = DeletionPolicy> {
        prop_oneof![
            Just(DeletionPolicy::Retain),
            Just(DeletionPolicy::Snapshot),
            Just(DeletionPolicy::Delete)
        ]
    }

    fn any_database() -> impl Strategy<Value = Database> {
        prop_oneof![Just(Database::Unknown), Just(Database::Absent), Just(Database::Present)]
    }

    proptest! {
        #[test]
        fn data_is_destroyed_only_when_the_policy_is_met(
            policy in any_policy(), protected in any::<bool>(), paused in any::<bool>(), node in any_node(),
            database in any_database(), kept in any::<bool>(), backup in any_backup(), now in 0i64..2000,
        ) {
            let ending = Ending {
                policy, protected, paused: paused.then_some("spec.paused"), node: &node, database, kept,
                backup_name: "b", backup: backup.as_ref(),
            };
            let step = ending.step(Timestamp::from_second(now).unwrap());
            if protected || paused {
                prop_assert!(matches!(step, Step::Wait(..)));
            }
            if step == Step::DeleteDatabase {
                prop_assert!(policy != DeletionPolicy::Retain);
                prop_assert!(node.serving().is_some(), "only an agent that holds its lease is asked");
                if policy == DeletionPolicy::Snapshot {
                    prop_assert_eq!(backup.as_ref().map(|b| (b.phase, b.deleting)), Some((BackupPhase::Completed, false)));
                }
            }
            if step == Step::Finished {
                let nothing = matches!(node, NodeSeen::NotPlaced | NodeSeen::Gone { volume: false });
                prop_assert!(nothing || database == Database::Absent || (policy == DeletionPolicy::Retain && kept));
            }
            prop_assert_eq!(&step, &ending.step(Timestamp::from_second(now).unwrap()));
        }

        /// Executing step after step ends, whatever the start, once nothing forbids it and the node answers.
        #[test]
        fn every_deletion_ends(policy in any_policy(), database in any_database(), backup in any_backup(), lost in any::<bool>()) {
            let mut node = if lost { NodeSeen::Gone { volume: true } } else { node(Serving::Yes) };
            let (mut database, mut backup, mut kept, mut now) = (database, backup, false, 0i64);
            let (mut deleted_without_backup, mut destroyed) = (false, false);
            for _ in 0..20 {
                let seen = node.clone();
                let ending = Ending {
                    policy, protected: false, paused: None, node: &seen, database, kept, backup_name: "b", backup: backup.as_ref(),
                };
                match ending.step(Timestamp::from_second(now).unwrap()) {
                    Step::Finished => {
                        prop_assert!(!deleted_without_backup);
                        prop_assert!(policy != DeletionPolicy::Retain || !destroyed);
                        return Ok(());
                    }
                    Step::Wait(_, _, wait) => {
                        now += wait.map_or(1, |w| w.as_secs() as i64 + 1);
                        // The Backup controller does its part.
                        backup = backup.filter(|b| !b.deleting).map(|b| match b.phase {
                            BackupPhase::Failed => b,
                            _ => FinalBackup { phase: BackupPhase::Completed, ..b },
                        });
                    }
                    Step::NeedNode => node = super::tests::node(Serving::Yes),
                    Step::Keep => kept = true,
                    Step::CreateBackup => {
                        backup = Some(FinalBackup { phase: BackupPhase::Pending, failed: None, deleting: false });
                    }
                    Step::DeleteFailedBackup => backup = None,
                    Step::DeleteDatabase => {
                        let complete = backup.as_ref().is_some_and(|b| b.phase == BackupPhase::Completed);
                        deleted_without_backup |= policy == DeletionPolicy::Snapshot && !complete;
                        destroyed = true;
                        database = Database::Absent;
                    }
                }
            }
            prop_assert!(false, "no end");
        }
    }
}
