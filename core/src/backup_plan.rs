//! The life of a backup: choose its place, have the agent make it, read it back, keep it for its time.

use crate::ending::{Database, NodeSeen, after, until};
use crate::fleet::Serving;
use crate::graph_plan::{annotation_is_true, paused_by};
use crate::plan::{self, Plan, Verdict};
use crate::volume_plan::State;
use graphplane_crds::annotations::DELETION_PROTECTION;
use graphplane_crds::backup::{Backup, BackupMethod, BackupPhase};
use graphplane_crds::conditions::{self, reasons};
use graphplane_crds::ids::DatabaseId;
use jiff::Timestamp;
use std::time::Duration;

/// What the plan looks at beside the Backup itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The database that is backed up; `None` when its Graph or Subgraph does not exist, or has none yet.
    pub database: Option<DatabaseId>,
    /// Whether that database was ever made. One that is still being made is waited for.
    pub made: bool,
    /// Whether that database is there.
    pub exists: Database,
    /// Its node.
    pub node: NodeSeen,
    /// What the object store has under the backup's key.
    pub stored: Stored,
    /// The agent's task for the key.
    pub task: Task,
    /// Whether the agent was asked to stop its task, in this pass.
    pub cancelled: bool,
    /// Whether an object store is configured.
    pub object_store: bool,
    /// Whether the provider has snapshots of volumes.
    pub snapshots: bool,
    /// Whether the provider has the disk that the graph is on.
    pub disk: bool,
    /// The snapshot that was taken for it.
    pub snapshot: Option<(String, State)>,
}

/// What the object store has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Nobody looked, or it cannot be reached.
    Unknown,
    /// No manifest: the backup is not complete.
    Nothing,
    /// A manifest, whose file has not been read back.
    Manifest,
    /// A manifest, and its file has the size and the checksum that it names.
    Verified,
    /// A manifest, and its file is not what it names: why.
    Damaged(String),
}

/// What the agent is doing about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Nobody asked.
    Unknown,
    /// The agent has no task for this key.
    None,
    /// It is at work.
    Running,
    /// It says that it is done.
    Completed,
    /// It was interrupted by a restart, and may be started again.
    Interrupted,
    /// It failed: why.
    Failed(String),
}

/// What can be done for a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write down the key and the epoch, before anything is stored there.
    Begin,
    /// Ask the agent to make it.
    Start,
    /// Read the stored file and compare its checksum.
    Verify,
    /// Ask the agent to stop its task.
    Cancel,
    /// Take the snapshot of the graph's volume.
    TakeSnapshot,
    /// Remove that snapshot.
    DeleteSnapshot,
    /// Delete this Backup: its time is over.
    DeleteSelf,
    /// Remove what is stored.
    DeleteObjects,
    /// Let the object go.
    RemoveFinalizer,
}

/// How often a running task is looked at.
const POLL: Duration = Duration::from_millis(200);

/// How often a snapshot that is being made is looked at: it takes minutes.
const SNAPSHOT_POLL: Duration = Duration::from_secs(60);

/// What a complete backup by snapshot says.
const SNAPSHOT_COMPLETE: &str = "the snapshot of the volume is complete";

/// How often the wait for something that has no watch is ended.
const RETRY: Duration = Duration::from_secs(5);

fn result(
    phase: BackupPhase,
    verdict: Verdict,
    actions: Vec<Action>,
    requeue: Option<Duration>,
) -> Plan<Action, BackupPhase> {
    Plan {
        actions,
        says: verdict.says(),
        phase,
        requeue,
    }
}

/// Plans the next steps for `backup`.
pub fn plan(backup: &Backup, seen: &Observed, now: Timestamp) -> Plan<Action, BackupPhase> {
    let status = backup.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_default();
    let paused = paused_by(&backup.metadata, false);
    if backup.metadata.deletion_timestamp.is_some() {
        return ending(backup, seen, paused);
    }
    if let Some(by) = paused {
        return Plan {
            actions: vec![],
            says: vec![plan::paused(Some(by))],
            phase,
            requeue: None,
        };
    }
    let mut plan = living(backup, seen, now);
    plan.says.extend([plan::paused(None), plan::not_deleting()]);
    plan
}

fn living(backup: &Backup, seen: &Observed, now: Timestamp) -> Plan<Action, BackupPhase> {
    let status = backup.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_default();
    match phase {
        BackupPhase::Completed => return completed(backup, now),
        BackupPhase::Failed => {
            let message = conditions::get(&status.conditions, conditions::READY)
                .map(|c| c.message.clone())
                .unwrap_or_default();
            return result(phase, Verdict::Stalled(reasons::BACKUP_FAILED, message), vec![], None);
        }
        BackupPhase::Pending | BackupPhase::Running => {}
    }
    if backup.spec.method == BackupMethod::VolumeSnapshot {
        return snapshot(backup, seen, phase);
    }
    if !seen.object_store {
        let message = "no object store is configured: start the operator with one, or keep no backups".to_owned();
        return result(phase, Verdict::Stalled(reasons::NOT_SUPPORTED, message), vec![], None);
    }
    if phase == BackupPhase::Running && status.key.is_some() {
        return running(seen);
    }
    let wait = |reason, message: String| result(phase, Verdict::Progressing(reason, message), vec![], None);
    if let Some((reason, message)) = not_yet(backup, seen) {
        return wait(reason, message);
    }
    match &seen.node {
        NodeSeen::Present(node) if node.serving == Serving::Yes => {
            let verdict = Verdict::Progressing(reasons::BACKUP_RUNNING, format!("is made by node {}", node.name));
            result(
                BackupPhase::Pending,
                verdict,
                vec![Action::Begin, Action::Start, Action::Verify],
                None,
            )
        }
        NodeSeen::Present(node) => wait(
            reasons::NODE_LOST,
            format!("waits for node {}, which does not answer now", node.name),
        ),
        _ => wait(reasons::GRAPH_NOT_READY, "the graph has no node now".to_owned()),
    }
}

/// Why there is nothing to back up so far.
fn not_yet(backup: &Backup, seen: &Observed) -> Option<(&'static str, String)> {
    if seen.database.is_none() {
        let what = match &backup.spec.subgraph {
            Some(subgraph) => format!("Subgraph {subgraph} of graph {}", backup.spec.graph),
            None => format!("Graph {}", backup.spec.graph),
        };
        let message = format!("{what} does not exist in this namespace, or has no database yet");
        return Some((reasons::GRAPH_NOT_FOUND, message));
    }
    let waits = || (reasons::GRAPH_NOT_READY, "waits for the database to be made".to_owned());
    (!seen.made).then(waits)
}

/// A snapshot is of the whole volume, and holds what its engines had written at that moment: they recover from their logs,
/// as after a power cut.
fn snapshot(backup: &Backup, seen: &Observed, phase: BackupPhase) -> Plan<Action, BackupPhase> {
    let go_on = |message: &str, actions, requeue| {
        let verdict = Verdict::Progressing(reasons::BACKUP_RUNNING, message.to_owned());
        result(phase, verdict, actions, requeue)
    };
    if !seen.snapshots {
        let message = "spec.method: this provider has no snapshots of volumes; use method Object".to_owned();
        return result(phase, Verdict::Stalled(reasons::NOT_SUPPORTED, message), vec![], None);
    }
    match &seen.snapshot {
        Some((_, State::Complete)) => {
            let verdict = Verdict::Ready(SNAPSHOT_COMPLETE.to_owned());
            return result(BackupPhase::Completed, verdict, vec![], None);
        }
        Some((id, State::Failed)) => {
            let verdict = Verdict::Stalled(reasons::BACKUP_FAILED, format!("the provider did not complete {id}"));
            return result(BackupPhase::Failed, verdict, vec![], None);
        }
        Some((_, State::Pending)) => return go_on("the provider makes the snapshot", vec![], Some(SNAPSHOT_POLL)),
        None => {}
    }
    if phase == BackupPhase::Running {
        return match seen.disk {
            true => go_on("the snapshot is taken", vec![Action::TakeSnapshot], None),
            false => {
                let message = "the volume was gone before its snapshot was taken".to_owned();
                result(
                    BackupPhase::Failed,
                    Verdict::Stalled(reasons::BACKUP_FAILED, message),
                    vec![],
                    None,
                )
            }
        };
    }
    let nothing = not_yet(backup, seen);
    let diskless = || {
        (
            reasons::GRAPH_NOT_READY,
            "waits for the disk of the graph's volume".to_owned(),
        )
    };
    match nothing.or_else(|| (!seen.disk).then(diskless)) {
        Some((reason, message)) => result(
            phase,
            Verdict::Progressing(reason, message),
            vec![],
            Some(SNAPSHOT_POLL),
        ),
        None => go_on("the snapshot is taken", vec![Action::Begin, Action::TakeSnapshot], None),
    }
}

fn running(seen: &Observed) -> Plan<Action, BackupPhase> {
    let go_on = |message: &str, actions, requeue| {
        let verdict = Verdict::Progressing(reasons::BACKUP_RUNNING, message.to_owned());
        result(BackupPhase::Running, verdict, actions, requeue)
    };
    let fail = |why: &str| {
        let verdict = Verdict::Stalled(reasons::BACKUP_FAILED, why.to_owned());
        result(BackupPhase::Failed, verdict, vec![], None)
    };
    // The manifest is written last, so it is the only sign that counts.
    match (&seen.stored, &seen.task) {
        (Stored::Verified, _) => {
            let verdict = Verdict::Ready("stored and read back".to_owned());
            result(BackupPhase::Completed, verdict, vec![], None)
        }
        (Stored::Damaged(why), _) => fail(&format!("what was stored is damaged: {why}")),
        (Stored::Manifest, _) => go_on("reads it back", vec![Action::Verify], None),
        (Stored::Unknown, _) => go_on("waits for the object store", vec![], Some(RETRY)),
        (Stored::Nothing, Task::Failed(why)) => fail(why),
        (Stored::Nothing, Task::Completed) => {
            fail("the agent says that it is stored, but the object store has no manifest")
        }
        (Stored::Nothing, Task::Running) => go_on("the agent makes it", vec![], Some(POLL)),
        (Stored::Nothing, _) if seen.made && (seen.exists == Database::Absent || seen.database.is_none()) => {
            fail("the database was deleted before its backup was complete")
        }
        (Stored::Nothing, Task::None | Task::Interrupted) => {
            go_on("the agent starts it", vec![Action::Start, Action::Verify], None)
        }
        (Stored::Nothing, Task::Unknown) => go_on("waits for the agent", vec![], Some(RETRY)),
    }
}

fn completed(backup: &Backup, now: Timestamp) -> Plan<Action, BackupPhase> {
    let done = backup.status.as_ref().and_then(|s| s.completed_at.clone());
    let days = backup
        .spec
        .retention_days
        .map(|days| Duration::from_secs(u64::from(days) * 86_400));
    let held = match backup.spec.method {
        BackupMethod::Object => "stored and read back",
        BackupMethod::VolumeSnapshot => SNAPSHOT_COMPLETE,
    };
    let verdict = Verdict::Ready(held.to_owned());
    let protected = annotation_is_true(&backup.metadata, DELETION_PROTECTION);
    match (done, days) {
        (Some(done), Some(kept)) if !protected => {
            let due = after(done.0, kept);
            let (actions, requeue) = if due <= now {
                (vec![Action::DeleteSelf], None)
            } else {
                (vec![], Some(until(due, now)))
            };
            result(BackupPhase::Completed, verdict, actions, requeue)
        }
        _ => result(BackupPhase::Completed, verdict, vec![], None),
    }
}

fn ending(backup: &Backup, seen: &Observed, paused: Option<&'static str>) -> Plan<Action, BackupPhase> {
    let status = backup.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_default();
    let busy = phase == BackupPhase::Running && seen.task == Task::Running;
    let (reason, message, actions, requeue) = if annotation_is_true(&backup.metadata, DELETION_PROTECTION) {
        (
            reasons::DELETION_PROTECTED,
            format!("annotation {DELETION_PROTECTION} is set: remove it to delete"),
            vec![],
            None,
        )
    } else if let Some(by) = paused {
        (reasons::PAUSED, format!("{by} is set"), vec![], None)
    } else if busy {
        // Its files would be written after ours were removed, and stay for ever.
        let actions = if seen.cancelled { vec![] } else { vec![Action::Cancel] };
        (
            reasons::BACKUP_RUNNING,
            "waits for the agent's task to stop".to_owned(),
            actions,
            Some(POLL),
        )
    } else if phase == BackupPhase::Running && seen.task == Task::Unknown && matches!(seen.node, NodeSeen::Present(_)) {
        (
            reasons::NODE_LOST,
            "waits for the agent, which may still be storing it".to_owned(),
            vec![],
            Some(RETRY),
        )
    } else if seen.snapshot.is_some() {
        (
            reasons::DELETING,
            "its snapshot is removed".to_owned(),
            vec![Action::DeleteSnapshot, Action::RemoveFinalizer],
            None,
        )
    } else if status.key.is_some() && seen.object_store {
        (
            reasons::DELETING,
            "what is stored is removed".to_owned(),
            vec![Action::DeleteObjects, Action::RemoveFinalizer],
            None,
        )
    } else {
        (reasons::DELETING, String::new(), vec![Action::RemoveFinalizer], None)
    };
    let says = vec![plan::deleting(reason, message), plan::paused(paused)];
    Plan {
        actions,
        says,
        phase,
        requeue,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fleet::{Accepts, NodeView};
    use graphplane_crds::backup::{BackupSpec, BackupStatus};
    use graphplane_crds::quantities::Epoch;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn backup(extra: serde_json::Value) -> Backup {
        let mut spec = serde_json::json!({"graph": "karate"});
        for (key, value) in extra.as_object().unwrap() {
            spec[key] = value.clone();
        }
        Backup::new("karate-1", serde_json::from_value::<BackupSpec>(spec).unwrap())
    }

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

    fn seen() -> Observed {
        Observed {
            database: Some("kg0123456789abcdef".parse().unwrap()),
            made: true,
            exists: Database::Unknown,
            node: node(Serving::Yes),
            stored: Stored::Nothing,
            task: Task::None,
            cancelled: false,
            object_store: true,
            snapshots: true,
            disk: true,
            snapshot: None,
        }
    }

    fn begun(backup: &mut Backup) {
        let key = Some("backups/kg0123456789abcdef/1/karate-1".to_owned());
        backup.status = Some(BackupStatus {
            phase: Some(BackupPhase::Running),
            key,
            ..Default::default()
        });
    }

    #[test]
    fn a_volume_snapshot_is_not_pretended() {
        let none = Observed {
            snapshots: false,
            ..seen()
        };
        let plan = plan(&backup(serde_json::json!({"method": "VolumeSnapshot"})), &none, at(0));
        assert!(plan.actions.is_empty());
        assert!(
            plan.says
                .iter()
                .any(|s| s.reason == reasons::NOT_SUPPORTED && s.message.contains("spec.method"))
        );
    }

    #[test]
    fn a_snapshot_is_begun_taken_waited_for_and_removed_with_its_backup() {
        let mut backup = backup(serde_json::json!({"method": "VolumeSnapshot", "retentionDays": 1}));
        let of = |backup: &Backup, snapshot: Option<State>| {
            let snapshot = snapshot.map(|state| ("snap-1".to_owned(), state));
            // Neither an object store nor a node that answers is needed.
            let without = Observed {
                snapshot,
                object_store: false,
                node: node(Serving::Lost),
                ..seen()
            };
            plan(backup, &without, at(86_400))
        };
        assert_eq!(of(&backup, None).actions, [Action::Begin, Action::TakeSnapshot]);
        let nowhere = Observed { disk: false, ..seen() };
        assert!(plan(&backup, &nowhere, at(0)).actions.is_empty());
        backup.status = Some(BackupStatus {
            phase: Some(BackupPhase::Running),
            ..Default::default()
        });
        assert_eq!(of(&backup, None).actions, [Action::TakeSnapshot]);
        assert_eq!(plan(&backup, &nowhere, at(0)).phase, BackupPhase::Failed);
        let pending = of(&backup, Some(State::Pending));
        assert!(pending.actions.is_empty() && pending.phase == BackupPhase::Running && pending.requeue.is_some());
        assert_eq!(of(&backup, Some(State::Failed)).phase, BackupPhase::Failed);
        assert_eq!(of(&backup, Some(State::Complete)).phase, BackupPhase::Completed);
        let status = backup.status.as_mut().unwrap();
        (status.phase, status.completed_at) = (Some(BackupPhase::Completed), Some(Time(at(0))));
        assert_eq!(of(&backup, Some(State::Complete)).actions, [Action::DeleteSelf]);
        backup.metadata.deletion_timestamp = Some(Time(at(86_400)));
        let ending = of(&backup, Some(State::Complete)).actions;
        assert_eq!(ending, [Action::DeleteSnapshot, Action::RemoveFinalizer]);
        assert_eq!(of(&backup, None).actions, [Action::RemoveFinalizer]);
    }

    #[test]
    fn a_database_that_is_still_being_made_is_waited_for() {
        let backup = backup(serde_json::json!({}));
        for exists in [Database::Unknown, Database::Absent] {
            let early = plan(
                &backup,
                &Observed {
                    made: false,
                    exists,
                    ..seen()
                },
                at(0),
            );
            assert!(early.actions.is_empty() && early.phase == BackupPhase::Pending);
            assert!(early.says.iter().any(|s| s.reason == reasons::GRAPH_NOT_READY));
        }
        let mut begun_too_early = backup.clone();
        begun(&mut begun_too_early);
        let early = plan(
            &begun_too_early,
            &Observed {
                made: false,
                exists: Database::Absent,
                ..seen()
            },
            at(0),
        );
        assert_ne!(early.phase, BackupPhase::Failed);
        let gone = plan(
            &begun_too_early,
            &Observed {
                exists: Database::Absent,
                ..seen()
            },
            at(0),
        );
        assert_eq!(gone.phase, BackupPhase::Failed, "it was there once");
    }

    #[test]
    fn the_key_is_written_down_before_anything_is_stored() {
        let mut backup = backup(serde_json::json!({}));
        assert_eq!(
            plan(&backup, &seen(), at(0)).actions[..2],
            [Action::Begin, Action::Start]
        );
        begun(&mut backup);
        assert_eq!(plan(&backup, &seen(), at(0)).actions[0], Action::Start);
        let lost = Observed {
            node: node(Serving::Lost),
            task: Task::Unknown,
            ..seen()
        };
        assert!(plan(&backup, &lost, at(0)).actions.is_empty());
    }

    #[test]
    fn only_a_manifest_that_was_read_back_makes_it_complete() {
        let mut backup = backup(serde_json::json!({}));
        begun(&mut backup);
        let of = |stored, task| plan(&backup, &Observed { stored, task, ..seen() }, at(0));
        assert_eq!(of(Stored::Nothing, Task::Completed).phase, BackupPhase::Failed);
        assert_eq!(of(Stored::Manifest, Task::None).actions, [Action::Verify]);
        assert_eq!(of(Stored::Verified, Task::None).phase, BackupPhase::Completed);
        assert_eq!(
            of(Stored::Damaged("sha256".into()), Task::Completed).phase,
            BackupPhase::Failed
        );
        assert_eq!(of(Stored::Nothing, Task::Interrupted).actions[0], Action::Start);
        assert_eq!(
            of(Stored::Nothing, Task::Failed("disk".into())).phase,
            BackupPhase::Failed
        );
    }

    #[test]
    fn it_is_deleted_when_its_time_is_over_and_its_objects_with_it() {
        let mut backup = backup(serde_json::json!({"retentionDays": 1}));
        begun(&mut backup);
        let status = backup.status.as_mut().unwrap();
        status.phase = Some(BackupPhase::Completed);
        status.completed_at = Some(Time(at(0)));
        assert_eq!(plan(&backup, &seen(), at(86_399)).requeue, Some(Duration::from_secs(1)));
        assert_eq!(plan(&backup, &seen(), at(86_400)).actions, [Action::DeleteSelf]);
        backup.metadata.deletion_timestamp = Some(Time(at(86_400)));
        assert_eq!(
            plan(&backup, &seen(), at(86_400)).actions,
            [Action::DeleteObjects, Action::RemoveFinalizer]
        );
        backup.metadata.annotations = Some([(DELETION_PROTECTION.to_owned(), "true".to_owned())].into());
        assert!(plan(&backup, &seen(), at(86_400)).actions.is_empty());
        backup.metadata.deletion_timestamp = None;
        assert!(
            plan(&backup, &seen(), at(86_400)).actions.is_empty(),
            "protected from its retention, too"
        );
    }

    #[test]
    fn nothing_is_removed_while_the_agent_may_still_write() {
        let mut backup = backup(serde_json::json!({}));
        begun(&mut backup);
        backup.metadata.deletion_timestamp = Some(Time(at(0)));
        let of = |task, node| plan(&backup, &Observed { task, node, ..seen() }, at(0)).actions;
        assert_eq!(of(Task::Running, node(Serving::Yes)), [Action::Cancel]);
        let asked = Observed {
            task: Task::Running,
            cancelled: true,
            ..seen()
        };
        assert!(plan(&backup, &asked, at(0)).actions.is_empty(), "once in a pass");
        assert!(of(Task::Unknown, node(Serving::Lost)).is_empty());
        assert_eq!(
            of(Task::Unknown, NodeSeen::Gone { volume: false })[0],
            Action::DeleteObjects
        );
        assert_eq!(of(Task::None, node(Serving::Yes))[0], Action::DeleteObjects);
    }

    proptest! {
        /// With an agent that is interrupted now and then, it ends complete or failed, and says so for good.
        #[test]
        fn it_converges(interruptions in 0usize..4, damaged in any::<bool>(), lost in proptest::collection::btree_set(1usize..8, 0..3)) {
            let mut object = backup(serde_json::json!({}));
            let mut world = seen();
            let (mut interruptions, mut count) = (interruptions, 0);
            for _ in 0..60 {
                let plan = plan(&object, &world, at(0));
                prop_assert_eq!(&plan, &super::plan(&object, &world, at(0)));
                let before = object.clone();
                object.status.get_or_insert_default().phase = Some(plan.phase);
                let reason = plan.says[0].reason;
                if matches!(plan.phase, BackupPhase::Completed | BackupPhase::Failed) && plan.actions.is_empty() {
                    object.status.as_mut().unwrap().conditions =
                        conditions::merge(&object.status.as_ref().unwrap().conditions, &plan.says, 1, &Time(at(0)));
                    let again = super::plan(&object, &world, at(9));
                    prop_assert!(again.actions.is_empty() && again.phase == plan.phase && again.says[0].reason == reason);
                    prop_assert_eq!(again.phase == BackupPhase::Failed, damaged);
                    return Ok(());
                }
                match plan.actions.first() {
                    Some(Action::Begin) => {
                        let status = object.status.as_mut().unwrap();
                        (status.key, status.phase) = (Some("k".into()), Some(BackupPhase::Running));
                    }
                    Some(Action::Start) => world.task = Task::Running,
                    Some(Action::Verify) => {
                        world.stored = if damaged { Stored::Damaged("sha256".into()) } else { Stored::Verified };
                    }
                    Some(other) => prop_assert!(false, "{other:?}"),
                    None if interruptions > 0 => {
                        interruptions -= 1;
                        world.task = Task::Interrupted;
                    }
                    None => (world.task, world.stored) = (Task::Completed, Stored::Manifest),
                }
                count += 1;
                if lost.contains(&count) {
                    object = before;
                }
            }
            prop_assert!(false, "no end");
        }
    }
}
