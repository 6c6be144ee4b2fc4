//! The life of a subgraph: its own database, on the node of its parent.

use crate::ending::{Database, Ending, FinalBackup, NodeSeen, Step, after, until};
use crate::fleet::{NodeView, Serving};
use crate::graph_plan::{annotation_is_true, paused_by, refused_before};
use crate::plan::{self, Plan, Verdict};
use crate::{names, statements};
use graphplane_crds::annotations::DELETION_PROTECTION;
use graphplane_crds::conditions::{self, Says, reasons};
use graphplane_crds::ids::GraphId;
use graphplane_crds::subgraph::Subgraph;
use jiff::Timestamp;
use std::time::Duration;

/// What the plan looks at beside the Subgraph itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The Graph that the spec names.
    pub parent: Option<Parent>,
    /// The node of the parent; while deleting, the node that the status names.
    pub node: NodeSeen,
    /// Subgraphs of the same graph that come before this one: those that have a database, then the older ones.
    pub rank: u32,
    /// How many subgraphs a graph of the tier may have; `None` is no limit.
    pub limit: Option<u32>,
    /// Another Subgraph that has the same name below the same graph and came first.
    pub name_taken_by: Option<String>,
    /// What is known of the database.
    pub database: Database,
    /// The agent's newest list of databases was made after the database, and lacks it.
    pub missing: bool,
    /// The engine's refusal of a schema statement, in this pass.
    pub refused: Option<String>,
    /// The copy of the parent's database, for a subgraph that begins with one and was not made yet.
    pub fork: Fork,
    /// Its final backup.
    pub final_backup: Option<FinalBackup>,
    /// Whether it is written down on the volume whose database it was.
    pub kept: bool,
}

/// How long a failed copy stands before it is made again.
pub const RETRY_FORK_AFTER: Duration = Duration::from_secs(60);
/// How often a copy is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How far the copy of the parent's database is, as the agent's tasks tell. A task belongs to one object, so a copy that
/// was started before a crash is found, and another object's is not taken for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fork {
    /// Nobody asked.
    Unknown,
    /// It was never started.
    NotStarted,
    /// It is being made.
    Running,
    /// It was asked to stop, and has not stopped yet.
    Stopping,
    /// The database is there.
    Done,
    /// It was cut off; whether the database was made is found out by starting it again.
    Interrupted,
    /// It could not be made.
    Failed {
        /// When it ended.
        at: Timestamp,
        /// Why.
        why: String,
    },
    /// A database of this name with content of its own is there, and nothing says that it is this subgraph's.
    Occupied,
}

impl Fork {
    /// When to look at it again.
    fn look_again(&self, now: Timestamp) -> Option<Duration> {
        match self {
            Self::Running | Self::Stopping => Some(LOOK_AGAIN),
            Self::Failed { at, .. } => Some(until(after(*at, RETRY_FORK_AFTER), now)),
            _ => None,
        }
    }
}

/// The graph of a subgraph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Its identity, once it has one.
    pub graph_id: Option<GraphId>,
    /// Whether its database was made.
    pub made: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// What can be done for a subgraph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the database with the tables that its type begins with; one that exists is taken over.
    CreateDatabase,
    /// Start to copy the parent's database.
    StartFork,
    /// Take the finished copy for this subgraph's database.
    TakeFork,
    /// Stop copying.
    CancelFork,
    /// Apply statements of `spec.ddl`.
    ApplySchema {
        /// Statements that were applied before.
        from: usize,
        /// Statements that are applied then.
        to: usize,
    },
    /// Make the final Backup.
    CreateFinalBackup(String),
    /// Delete the final Backup, which failed.
    DeleteFinalBackup(String),
    /// Write down on the volume whose database it is.
    KeepData,
    /// Destroy the database.
    DeleteDatabase,
    /// Let the object go.
    RemoveFinalizer,
}

/// The statements of a subgraph's `ddl`.
pub fn ddl(subgraph: &Subgraph) -> Vec<&str> {
    subgraph.spec.ddl.as_deref().map(statements::split).unwrap_or_default()
}

/// Plans the next steps for `subgraph`.
pub fn plan(subgraph: &Subgraph, seen: &Observed, now: Timestamp) -> Plan<Action> {
    if subgraph.metadata.deletion_timestamp.is_some() {
        return ending(subgraph, seen, now);
    }
    if let Some(by) = paused_by(&subgraph.metadata, subgraph.spec.paused) {
        return Plan {
            actions: vec![],
            says: vec![plan::paused(Some(by))],
            phase: (),
            requeue: None,
        };
    }
    let (verdict, database, actions) = living(subgraph, seen, now);
    let mut says = verdict.says();
    says.extend([database, plan::paused(None), plan::not_deleting()]);
    Plan {
        actions,
        says,
        phase: (),
        requeue: seen.fork.look_again(now),
    }
}

type Living = (Verdict, Says, Vec<Action>);

fn stopped(reason: &'static str, message: String) -> Living {
    let says = Says::no(conditions::DATABASE_READY, reason, &message);
    (Verdict::Stalled(reason, message), says, vec![])
}

fn waiting(reason: &'static str, message: String) -> Living {
    let says = Says::no(conditions::DATABASE_READY, reason, &message);
    (Verdict::Progressing(reason, message), says, vec![])
}

fn was_made(subgraph: &Subgraph) -> bool {
    subgraph.status.as_ref().is_some_and(|s| s.applied_schema.is_some())
}

fn living(subgraph: &Subgraph, seen: &Observed, now: Timestamp) -> Living {
    let (spec, made) = (&subgraph.spec, was_made(subgraph));
    let Some(parent) = &seen.parent else {
        let message = format!(
            "Graph {} does not exist in this namespace: create it, or name another one in spec.graph",
            spec.graph
        );
        return stopped(reasons::GRAPH_NOT_FOUND, message);
    };
    if let Some(other) = seen.name_taken_by.as_ref().filter(|_| !made) {
        let message = format!(
            "Subgraph {other} has the name {} below graph {} already: choose another spec.name",
            spec.name, spec.graph
        );
        return stopped(reasons::NAME_TAKEN, message);
    }
    if let Some(limit) = seen.limit.filter(|limit| !made && seen.rank >= *limit) {
        let message = format!(
            "graph {} has {limit} subgraphs, which is the tier's limit: delete one, or choose a larger tier",
            spec.graph
        );
        return stopped(reasons::SUBGRAPH_LIMIT, message);
    }
    if !made && (parent.deleting || !parent.made || parent.graph_id.is_none()) {
        return waiting(
            reasons::GRAPH_NOT_READY,
            format!("waits for graph {} to have its database", spec.graph),
        );
    }
    match &seen.node {
        NodeSeen::Present(node) if node.serving == Serving::Yes => database(subgraph, node, seen, made, now),
        NodeSeen::Present(node) => {
            let message = format!(
                "node {} does not answer now; the subgraph comes back with it",
                node.name
            );
            let says = Says::unknown(conditions::DATABASE_READY, reasons::NODE_LOST, &message);
            (Verdict::Progressing(reasons::NODE_LOST, message), says, vec![])
        }
        _ => waiting(
            reasons::GRAPH_NOT_READY,
            format!("graph {} has no node now", spec.graph),
        ),
    }
}

fn database(subgraph: &Subgraph, node: &NodeView, seen: &Observed, made: bool, now: Timestamp) -> Living {
    if made && (seen.missing || seen.database == Database::Absent) {
        let message = format!(
            "its database is no longer on node {}: delete this subgraph and restore it",
            node.name
        );
        return stopped(reasons::DATABASE_MISSING, message);
    }
    let statements = ddl(subgraph);
    let status = subgraph.status.as_ref();
    let done = match statements::done(&statements, status.and_then(|s| s.applied_schema.as_ref())) {
        Ok(done) => done,
        Err(conflict) => {
            let message = format!("spec.ddl: {conflict}");
            let says = Says::yes(conditions::DATABASE_READY, reasons::SCHEMA_CONFLICT, &message);
            return (
                Verdict::ReadyButStalled(reasons::SCHEMA_CONFLICT, message),
                says,
                vec![],
            );
        }
    };
    let left = done < statements.len();
    let conditions = status.map(|s| s.conditions.as_slice()).unwrap_or_default();
    let refused = seen
        .refused
        .clone()
        .or_else(|| refused_before(&subgraph.metadata, conditions));
    if let Some(why) = refused.filter(|_| left || !made) {
        let says = Says {
            status: Some(made),
            ..Says::no(conditions::DATABASE_READY, reasons::SCHEMA_REFUSED, &why)
        };
        let verdict = match made {
            true => Verdict::ReadyButStalled(reasons::SCHEMA_REFUSED, why),
            false => Verdict::Stalled(reasons::SCHEMA_REFUSED, why),
        };
        return (verdict, says, vec![]);
    }
    let apply = Action::ApplySchema {
        from: done,
        to: statements.len(),
    };
    if !made {
        let first = match (subgraph.spec.fork_parent, &seen.fork) {
            (false, _) => Action::CreateDatabase,
            (true, Fork::Done) => Action::TakeFork,
            (true, Fork::NotStarted | Fork::Interrupted) => Action::StartFork,
            (true, Fork::Failed { at, .. }) if after(*at, RETRY_FORK_AFTER) <= now => Action::StartFork,
            (true, fork) => return forking(subgraph, node, fork),
        };
        let actions = [first].into_iter().chain(left.then_some(apply)).collect();
        let says = Says::no(conditions::DATABASE_READY, reasons::CREATING_DATABASE, "");
        let verdict = Verdict::Progressing(reasons::CREATING_DATABASE, format!("on node {}", node.name));
        return (verdict, says, actions);
    }
    let ready = Says::yes(conditions::DATABASE_READY, reasons::DATABASE_CREATED, "");
    if left {
        let message = format!("applies statements {} to {} of spec.ddl", done + 1, statements.len());
        return (
            Verdict::ReadyAndProgressing(reasons::RECONCILING, message),
            ready,
            vec![apply],
        );
    }
    (Verdict::Ready(String::new()), ready, vec![])
}

/// What is said while the copy of the parent's database can only be waited for.
fn forking(subgraph: &Subgraph, node: &NodeView, fork: &Fork) -> Living {
    let (graph, name) = (&subgraph.spec.graph, &subgraph.spec.name);
    match fork {
        Fork::Failed { why, .. } => waiting(
            reasons::FORK_FAILED,
            format!("graph {graph} could not be copied, which is tried again every minute: {why}"),
        ),
        Fork::Occupied => {
            let message = format!(
                "spec.forkParent: node {} has a database of graph {graph} named {name} already, with content of its own: \
                 choose another spec.name, or leave forkParent out to take that database over",
                node.name
            );
            stopped(reasons::NAME_TAKEN, message)
        }
        _ => waiting(
            reasons::FORKING,
            format!("graph {graph} is copied on node {}", node.name),
        ),
    }
}

fn ending(subgraph: &Subgraph, seen: &Observed, now: Timestamp) -> Plan<Action> {
    let metadata = &subgraph.metadata;
    let name = metadata.name.as_deref().unwrap_or_default();
    let backup = names::final_backup(name, metadata.uid.as_deref().unwrap_or_default());
    let paused = paused_by(metadata, subgraph.spec.paused);
    let protected = annotation_is_true(metadata, DELETION_PROTECTION);
    let ending = Ending {
        policy: subgraph.spec.deletion_policy,
        protected,
        paused,
        node: &seen.node,
        database: seen.database,
        kept: seen.kept,
        backup_name: &backup,
        backup: seen.final_backup.as_ref(),
    };
    let end = [Action::DeleteDatabase, Action::RemoveFinalizer];
    let (actions, reason, message, requeue) = match ending.step(now) {
        Step::Wait(reason, message, requeue) => (vec![], reason, message, requeue),
        // Otherwise it would make a database that belongs to nobody.
        _ if matches!(seen.fork, Fork::Running | Fork::Stopping) => (
            (seen.fork == Fork::Running)
                .then_some(Action::CancelFork)
                .into_iter()
                .collect(),
            reasons::FORKING,
            format!("copying graph {} is stopped first", subgraph.spec.graph),
            seen.fork.look_again(now),
        ),
        // The graph brings its node back; a subgraph follows.
        Step::NeedNode => (
            vec![],
            reasons::GRAPH_NOT_READY,
            "waits for the graph to have a node again".to_owned(),
            None,
        ),
        Step::Keep => (
            vec![Action::KeepData, Action::RemoveFinalizer],
            reasons::RETAINED,
            "the database stays".to_owned(),
            None,
        ),
        Step::CreateBackup => {
            let message = format!("waits for final backup {backup}");
            (
                [Action::CreateFinalBackup(backup)].into_iter().chain(end).collect(),
                reasons::FINAL_SNAPSHOT,
                message,
                None,
            )
        }
        Step::DeleteFailedBackup => {
            let message = format!("final backup {backup} failed and is made again");
            (
                vec![Action::DeleteFinalBackup(backup)],
                reasons::FINAL_SNAPSHOT,
                message,
                None,
            )
        }
        Step::DeleteDatabase => (
            end.to_vec(),
            reasons::DELETING,
            "the database is deleted".to_owned(),
            None,
        ),
        Step::Finished => (vec![Action::RemoveFinalizer], reasons::DELETING, String::new(), None),
    };
    let mut says = vec![plan::deleting(reason, message.clone()), plan::paused(paused)];
    if !protected && paused.is_none() {
        says.extend(Verdict::Off(reasons::DELETING, message).says());
    }
    Plan {
        actions,
        says,
        phase: (),
        requeue,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fleet::Accepts;
    use graphplane_crds::graph::DeletionPolicy;
    use graphplane_crds::quantities::Epoch;
    use graphplane_crds::subgraph::{SubgraphSpec, SubgraphStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn subgraph(extra: serde_json::Value) -> Subgraph {
        let mut spec = serde_json::json!({"graph": "karate", "name": "dev"});
        for (key, value) in extra.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let mut subgraph = Subgraph::new("karate-dev", serde_json::from_value::<SubgraphSpec>(spec).unwrap());
        subgraph.metadata.uid = Some("u".into());
        subgraph.metadata.generation = Some(1);
        subgraph
    }

    fn seen() -> Observed {
        let node = NodeView {
            name: "std-0".into(),
            tier: "std".into(),
            volume: Some("std-0".into()),
            serving: Serving::Yes,
            accepts: Accepts::Now,
            endpoint: None,
            epoch: Epoch(1),
            changes_in: None,
        };
        Observed {
            parent: Some(Parent {
                graph_id: Some("kg0123456789abcdef".parse().unwrap()),
                made: true,
                deleting: false,
            }),
            node: NodeSeen::Present(node),
            rank: 0,
            limit: Some(3),
            name_taken_by: None,
            database: Database::Unknown,
            missing: false,
            refused: None,
            fork: Fork::Unknown,
            final_backup: None,
            kept: false,
        }
    }

    fn reason(plan: &Plan<Action>, type_: &str) -> (Option<bool>, &'static str) {
        plan.says
            .iter()
            .find(|s| s.type_ == type_)
            .map(|s| (s.status, s.reason))
            .unwrap()
    }

    #[test]
    fn it_follows_its_parent() {
        let plain = subgraph(serde_json::json!({}));
        assert_eq!(plan(&plain, &seen(), at(0)).actions, [Action::CreateDatabase]);
        for (parent, why, stalled) in [
            (None, reasons::GRAPH_NOT_FOUND, true),
            (
                Some(Parent {
                    made: false,
                    ..seen().parent.unwrap()
                }),
                reasons::GRAPH_NOT_READY,
                false,
            ),
            (
                Some(Parent {
                    deleting: true,
                    ..seen().parent.unwrap()
                }),
                reasons::GRAPH_NOT_READY,
                false,
            ),
        ] {
            let plan = plan(&plain, &Observed { parent, ..seen() }, at(0));
            assert!(plan.actions.is_empty());
            assert_eq!(reason(&plan, conditions::READY), (Some(false), why));
            assert_eq!(reason(&plan, conditions::STALLED).0, Some(stalled));
        }
    }

    #[test]
    fn the_limit_of_the_tier_stops_only_new_ones() {
        let mut third = subgraph(serde_json::json!({}));
        let beyond = Observed { rank: 3, ..seen() };
        assert_eq!(
            reason(&plan(&third, &beyond, at(0)), conditions::STALLED),
            (Some(true), reasons::SUBGRAPH_LIMIT)
        );
        third.status = Some(SubgraphStatus {
            applied_schema: Some(statements::applied(&[], 0)),
            ..Default::default()
        });
        assert_eq!(
            reason(&plan(&third, &beyond, at(0)), conditions::READY).0,
            Some(true),
            "the tier was made smaller"
        );
        assert!(
            plan(
                &subgraph(serde_json::json!({})),
                &Observed {
                    rank: 99,
                    limit: None,
                    ..seen()
                },
                at(0)
            )
            .actions
            .len()
                == 1
        );
    }

    fn failed() -> Fork {
        Fork::Failed {
            at: at(100),
            why: "disk full".into(),
        }
    }

    #[test]
    fn a_fork_is_started_followed_and_taken() {
        let object =
            subgraph(serde_json::json!({"forkParent": true, "ddl": "CREATE NODE TABLE T(x INT64 PRIMARY KEY);"}));
        let at_100 = |fork: Fork| plan(&object, &Observed { fork, ..seen() }, at(100));
        let apply = Action::ApplySchema { from: 0, to: 1 };
        for (fork, action) in [
            (Fork::NotStarted, Action::StartFork),
            (Fork::Interrupted, Action::StartFork),
            (Fork::Done, Action::TakeFork),
        ] {
            assert_eq!(at_100(fork).actions, [action, apply.clone()]);
        }
        for (fork, why, wait) in [
            (Fork::Running, reasons::FORKING, Some(LOOK_AGAIN)),
            (failed(), reasons::FORK_FAILED, Some(RETRY_FORK_AFTER)),
            (Fork::Occupied, reasons::NAME_TAKEN, None),
        ] {
            let stalled = fork == Fork::Occupied;
            let plan = at_100(fork);
            assert!(plan.actions.is_empty());
            assert_eq!(reason(&plan, conditions::READY), (Some(false), why));
            assert_eq!(reason(&plan, conditions::DATABASE_READY), (Some(false), why));
            assert_eq!(reason(&plan, conditions::STALLED).0, Some(stalled));
            assert_eq!(plan.requeue, wait);
        }
        let later = plan(
            &object,
            &Observed {
                fork: failed(),
                ..seen()
            },
            at(160),
        );
        assert_eq!(later.actions[0], Action::StartFork);
    }

    #[test]
    fn a_fork_is_stopped_before_its_object_goes() {
        let mut object = subgraph(serde_json::json!({"forkParent": true, "deletionPolicy": "Delete"}));
        object.metadata.deletion_timestamp = Some(Time(at(0)));
        let ending = |fork: Fork| {
            let observed = Observed {
                fork,
                database: Database::Absent,
                ..seen()
            };
            plan(&object, &observed, at(1))
        };
        assert_eq!(ending(Fork::Running).actions, [Action::CancelFork]);
        let stopping = ending(Fork::Stopping);
        assert_eq!((stopping.actions, stopping.requeue), (vec![], Some(LOOK_AGAIN)));
        for fork in [Fork::Interrupted, Fork::NotStarted, failed()] {
            assert_eq!(ending(fork).actions, [Action::RemoveFinalizer]);
        }
    }

    proptest! {
        #[test]
        fn it_converges_and_ends(
            policy in prop_oneof![Just("Retain"), Just("Snapshot"), Just("Delete")],
            statements in 0usize..4, lost in proptest::collection::btree_set(1usize..8, 0..3), fork: bool,
        ) {
            use graphplane_crds::backup::BackupPhase;
            let ddl: String = (0..statements).map(|n| format!("CREATE NODE TABLE T{n}(x INT64 PRIMARY KEY);")).collect();
            let mut object = subgraph(serde_json::json!({"deletionPolicy": policy, "ddl": ddl, "forkParent": fork}));
            let (mut database, mut backup, mut kept, mut gone, mut count) = (false, None::<FinalBackup>, false, false, 0);
            let mut copy = Fork::NotStarted;
            for round in 0..60 {
                if round == 25 {
                    prop_assert!(database);
                    object.metadata.deletion_timestamp = Some(Time(at(0)));
                }
                let absent = round > 25 && !database;
                let observed = Observed {
                    final_backup: backup.clone(), kept, fork: if fork { copy.clone() } else { Fork::Unknown },
                    database: if absent { Database::Absent } else { Database::Unknown }, ..seen()
                };
                let plan = plan(&object, &observed, at(round));
                let before = object.clone();
                match plan.actions.first() {
                    None => {
                        backup = backup.map(|b| FinalBackup { phase: BackupPhase::Completed, ..b });
                        if copy == Fork::Running {
                            (copy, database) = (Fork::Done, true);
                        }
                        continue;
                    }
                    Some(Action::StartFork) => {
                        prop_assert!(copy == Fork::NotStarted, "started once");
                        copy = Fork::Running;
                    }
                    Some(Action::TakeFork) => {
                        prop_assert!(database);
                        object.status.get_or_insert_default().applied_schema = Some(statements::applied(&[], 0));
                    }
                    Some(Action::CancelFork) => prop_assert!(false, "nothing is copied when the deletion begins"),
                    Some(Action::CreateDatabase) => {
                        database = true;
                        object.status.get_or_insert_default().applied_schema = Some(statements::applied(&[], 0));
                    }
                    Some(Action::ApplySchema { to, .. }) => {
                        let applied = statements::applied(&super::ddl(&before), *to);
                        object.status.get_or_insert_default().applied_schema = Some(applied);
                    }
                    Some(Action::CreateFinalBackup(_)) => {
                        backup = Some(FinalBackup { phase: BackupPhase::Pending, failed: None, deleting: false });
                    }
                    Some(Action::DeleteFinalBackup(_)) => backup = None,
                    Some(Action::KeepData) => kept = true,
                    Some(Action::DeleteDatabase) => {
                        prop_assert!(object.spec.deletion_policy != DeletionPolicy::Retain);
                        prop_assert!(policy != "Snapshot" || backup.as_ref().is_some_and(|b| b.phase == BackupPhase::Completed));
                        database = false;
                    }
                    Some(Action::RemoveFinalizer) => {
                        gone = true;
                        break;
                    }
                }
                count += 1;
                if lost.contains(&count) {
                    object = before;
                }
            }
            prop_assert!(gone);
            prop_assert_eq!(database, policy == "Retain");
        }
    }
}
