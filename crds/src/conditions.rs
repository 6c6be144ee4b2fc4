//! Condition types and reasons, and how conditions are written.
//!
//! Every kind has `Ready`, `Progressing`, `Stalled`, `Paused` and `Deleting`; kstatus reads `Ready`, `Stalled` and
//! `observedGeneration`. A condition's `lastTransitionTime` moves only when its status flips, so that an unchanged
//! status writes nothing.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use std::collections::BTreeMap;

/// The object does what its spec says.
pub const READY: &str = "Ready";
/// The operator is working towards the spec.
pub const PROGRESSING: &str = "Progressing";
/// No progress is possible until the spec or the world changes; the message says what to do.
pub const STALLED: &str = "Stalled";
/// Reconciling is paused by the annotation or the spec.
pub const PAUSED: &str = "Paused";
/// The object is being deleted; the message says what deletion waits for.
pub const DELETING: &str = "Deleting";
/// Graph: a node was chosen.
pub const PLACED: &str = "Placed";
/// Graph, GraphNode: the volume is attached and usable.
pub const VOLUME_READY: &str = "VolumeReady";
/// Graph, Subgraph: the database exists with its schema.
pub const DATABASE_READY: &str = "DatabaseReady";
/// Replica: a seed is published.
pub const SEED_READY: &str = "SeedReady";
/// Graph: the newest backup is younger than the policy asks for.
pub const BACKUP_CURRENT: &str = "BackupCurrent";
/// Tier, Replica: its stack is made, and what it has to offer can be used.
pub const STACK_READY: &str = "StackReady";
/// Tier, Replica: the deployed stack differs from its template.
pub const DRIFT_DETECTED: &str = "DriftDetected";
/// GraphNode: its machine was started from what its tier says now. Tier: all of them. Replica: every node serves the newest
/// seed.
pub const UP_TO_DATE: &str = "UpToDate";
/// GraphNode: the agent has registered.
pub const REGISTERED: &str = "Registered";
/// GraphNode: the agent renews its lease.
pub const LEASE_HELD: &str = "LeaseHeld";
/// BackupSchedule: the last restore drill gave back what the backup's manifest says.
pub const DRILL_PASSED: &str = "DrillPassed";
/// Tier: machines, disks, snapshots or a stack of it belong to no object.
pub const ORPHANS_FOUND: &str = "OrphansFound";

/// Reasons; one word in CamelCase each, stable, since alerts and scripts match them.
pub mod reasons {
    /// All is as the spec says.
    pub const READY: &str = "Ready";
    /// First pass over a new object.
    pub const PENDING: &str = "Pending";
    /// Reconciling goes on.
    pub const RECONCILING: &str = "Reconciling";
    /// Nothing left to do.
    pub const RECONCILED: &str = "Reconciled";
    /// Paused by annotation or spec.
    pub const PAUSED: &str = "Paused";
    /// Not paused.
    pub const ACTIVE: &str = "Active";
    /// The tier named in the spec does not exist.
    pub const TIER_NOT_FOUND: &str = "TierNotFound";
    /// The parent graph named in the spec does not exist.
    pub const GRAPH_NOT_FOUND: &str = "GraphNotFound";
    /// The parent graph is not ready yet.
    pub const GRAPH_NOT_READY: &str = "GraphNotReady";
    /// No node has room, and the tier may not grow.
    pub const NO_CAPACITY: &str = "NoCapacity";
    /// The graph does not fit on any machine of its tier, even an empty one.
    pub const DOES_NOT_FIT: &str = "DoesNotFit";
    /// A machine is being started for the object.
    pub const NODE_STARTING: &str = "NodeStarting";
    /// The node's agent has not registered yet.
    pub const WAITING_FOR_REGISTRATION: &str = "WaitingForRegistration";
    /// The node's agent does not renew its lease.
    pub const LEASE_EXPIRED: &str = "LeaseExpired";
    /// The node's agent renews its lease.
    pub const LEASE_RENEWED: &str = "LeaseRenewed";
    /// A node was chosen.
    pub const PLACED: &str = "Placed";
    /// The node that held the graph is gone or not reachable.
    pub const NODE_LOST: &str = "NodeLost";
    /// The database is being created.
    pub const CREATING_DATABASE: &str = "CreatingDatabase";
    /// The database exists with its schema.
    pub const DATABASE_CREATED: &str = "DatabaseCreated";
    /// The parent's database is being copied.
    pub const FORKING: &str = "Forking";
    /// The parent's database could not be copied; it is tried again.
    pub const FORK_FAILED: &str = "ForkFailed";
    /// A schema statement was refused by the engine.
    pub const SCHEMA_REFUSED: &str = "SchemaRefused";
    /// The schema of the database was changed outside of the spec.
    pub const SCHEMA_CONFLICT: &str = "SchemaConflict";
    /// The limit of subgraphs of the tier is reached.
    pub const SUBGRAPH_LIMIT: &str = "SubgraphLimitReached";
    /// Deletion is refused by the protection annotation.
    pub const DELETION_PROTECTED: &str = "DeletionProtected";
    /// Deletion waits for dependents.
    pub const WAITING_FOR_DEPENDENTS: &str = "WaitingForDependents";
    /// Deletion waits for the final snapshot.
    pub const FINAL_SNAPSHOT: &str = "FinalSnapshot";
    /// Deletion goes on.
    pub const DELETING: &str = "Deleting";
    /// Not being deleted.
    pub const NOT_DELETING: &str = "NotDeleting";
    /// The data is kept as the deletion policy says.
    pub const RETAINED: &str = "Retained";
    /// A call to the provider failed; it is repeated with backoff.
    pub const PROVIDER_ERROR: &str = "ProviderError";
    /// A call to the node agent failed; it is repeated with backoff.
    pub const AGENT_ERROR: &str = "AgentError";
    /// The volume exists.
    pub const VOLUME_CREATED: &str = "VolumeCreated";
    /// The volume is attached to its node.
    pub const ATTACHED: &str = "Attached";
    /// The volume is attached nowhere.
    pub const DETACHED: &str = "Detached";
    /// The volume is being created.
    pub const CREATING: &str = "Creating";
    /// The node is being emptied.
    pub const DRAINING: &str = "Draining";
    /// The object is suspended by its spec.
    pub const SUSPENDED: &str = "Suspended";
    /// The backup is complete and verified.
    pub const BACKUP_COMPLETED: &str = "BackupCompleted";
    /// The backup failed; the message says why.
    pub const BACKUP_FAILED: &str = "BackupFailed";
    /// The backup runs.
    pub const BACKUP_RUNNING: &str = "BackupRunning";
    /// The tier's backups of the day are used up.
    pub const BACKUP_LIMIT: &str = "BackupLimitReached";
    /// The schedule has no complete backup yet.
    pub const NO_BACKUP: &str = "NoBackup";
    /// A backup is being restored to a scratch database.
    pub const DRILL_RUNNING: &str = "DrillRunning";
    /// The backup was restored, and holds what its manifest says.
    pub const DRILL_PASSED: &str = "DrillPassed";
    /// The backup could not be restored, or holds something else; the message says what.
    pub const DRILL_FAILED: &str = "DrillFailed";
    /// The drill could not be held, which says nothing about the backup; the message says why.
    pub const DRILL_NOT_HELD: &str = "DrillNotHeld";
    /// Another object has the graph id or the subgraph's name already, or kept data of another namespace has it.
    pub const NAME_TAKEN: &str = "NameTaken";
    /// The database that the object stands for is no longer on its node.
    pub const DATABASE_MISSING: &str = "DatabaseMissing";
    /// The provider no longer knows the volume.
    pub const VOLUME_LOST: &str = "VolumeLost";
    /// The volume holds databases, so it is not destroyed.
    pub const VOLUME_IN_USE: &str = "VolumeInUse";
    /// A seed is being published.
    pub const PUBLISHING: &str = "Publishing";
    /// The newest changes could not be published; the message says why, and it is tried again.
    pub const PUBLISH_FAILED: &str = "PublishFailed";
    /// A seed is published.
    pub const PUBLISHED: &str = "Published";
    /// Nodes take up a newer seed.
    pub const REFRESHING: &str = "Refreshing";
    /// A node refuses the newest seed, or cannot fetch it; the message says why.
    pub const SEED_NOT_SERVED: &str = "SeedNotServed";
    /// The node's agent was started again.
    pub const RESTARTING: &str = "Restarting";
    /// Something at the provider belongs to no object; the message names it.
    pub const ORPHANED: &str = "Orphaned";
    /// Everything at the provider belongs to an object.
    pub const NO_ORPHANS: &str = "NoOrphans";
    /// A cron expression of the spec cannot be read; the message names the field.
    pub const INVALID_SCHEDULE: &str = "InvalidSchedule";
    /// Machines of a tier, of a node or of a fleet are being replaced.
    pub const REPLACING: &str = "Replacing";
    /// Machines are out of date and may not be replaced now; the message says why, and when they may.
    pub const ROLLOUT_WAITS: &str = "RolloutWaits";
    /// The machine was started from what its tier said before.
    pub const OUT_OF_DATE: &str = "OutOfDate";
    /// The replacement of machines ended before all were replaced, as too many of the new ones failed.
    pub const REPLACEMENT_FAILED: &str = "ReplacementFailed";
    /// What the spec asks for is not done by this version; the message names the field.
    pub const NOT_SUPPORTED: &str = "NotSupported";
    /// The stack is being made.
    pub const STACK_CREATING: &str = "StackCreating";
    /// The stack is being changed.
    pub const STACK_UPDATING: &str = "StackUpdating";
    /// A change of the stack failed and was taken back; it is tried again.
    pub const STACK_ROLLED_BACK: &str = "StackRolledBack";
    /// The stack is in a state that does not pass by itself; the message says what to do.
    pub const STACK_FAILED: &str = "StackFailed";
    /// The stack is being deleted.
    pub const STACK_DELETING: &str = "StackDeleting";
    /// The stack is as its template says.
    pub const IN_SYNC: &str = "InSync";
    /// The stack was changed outside of its template.
    pub const DRIFTED: &str = "Drifted";
    /// The stack was not compared with its template yet.
    pub const NOT_CHECKED: &str = "NotChecked";
}

/// What a condition says, before it is merged into the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Says {
    /// One of the type constants of this module.
    pub type_: &'static str,
    /// `True` (`Some(true)`), `False` or `Unknown` (`None`).
    pub status: Option<bool>,
    /// One of [`reasons`].
    pub reason: &'static str,
    /// For people: what, why and, when something is wrong, what to do.
    pub message: String,
}

impl Says {
    /// A condition with status `True`.
    pub fn yes(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            type_,
            status: Some(true),
            reason,
            message: message.into(),
        }
    }

    /// A condition with status `False`.
    pub fn no(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            type_,
            status: Some(false),
            reason,
            message: message.into(),
        }
    }

    /// A condition with status `Unknown`.
    pub fn unknown(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            type_,
            status: None,
            reason,
            message: message.into(),
        }
    }
}

fn status_text(status: Option<bool>) -> &'static str {
    match status {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    }
}

/// Merges `says` into `conditions`: one entry per type, sorted by type; `lastTransitionTime` is `now` only where the
/// status flipped. Types that `says` does not name stay as they are.
pub fn merge(conditions: &[Condition], says: &[Says], generation: i64, now: &Time) -> Vec<Condition> {
    let mut merged: BTreeMap<String, Condition> = conditions.iter().map(|c| (c.type_.clone(), c.clone())).collect();
    for say in says {
        let status = status_text(say.status);
        let since = match merged.get(say.type_) {
            Some(old) if old.status == status => old.last_transition_time.clone(),
            _ => now.clone(),
        };
        merged.insert(
            say.type_.to_owned(),
            Condition {
                type_: say.type_.to_owned(),
                status: status.to_owned(),
                reason: say.reason.to_owned(),
                message: say.message.clone(),
                observed_generation: Some(generation),
                last_transition_time: since,
            },
        );
    }
    merged.into_values().collect()
}

/// The condition of a type, if it was ever written.
pub fn get<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Whether a condition is there and `True`.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    get(conditions, type_).is_some_and(|c| c.status == "True")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(second: i64) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn the_transition_time_moves_only_when_the_status_flips() {
        let first = merge(&[], &[Says::no(READY, reasons::PENDING, "a")], 1, &at(10));
        let same = merge(&first, &[Says::no(READY, reasons::NODE_STARTING, "b")], 2, &at(20));
        assert_eq!(same[0].last_transition_time, at(10));
        assert_eq!(
            (same[0].reason.as_str(), same[0].observed_generation),
            (reasons::NODE_STARTING, Some(2))
        );
        let flipped = merge(&same, &[Says::yes(READY, reasons::READY, "")], 2, &at(30));
        assert_eq!(flipped[0].last_transition_time, at(30));
    }

    #[test]
    fn other_types_stay_and_the_order_is_stable() {
        let first = merge(&[], &[Says::yes(READY, "A", ""), Says::yes(PLACED, "B", "")], 1, &at(1));
        let types: Vec<_> = first.iter().map(|c| c.type_.as_str()).collect();
        assert_eq!(types, [PLACED, READY]);
        let second = merge(&first, &[Says::no(PLACED, "C", "")], 2, &at(2));
        assert!(is_true(&second, READY) && !is_true(&second, PLACED));
    }
}
