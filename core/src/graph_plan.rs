//! The life of a graph: place it, make its database, grow its schema, end it.

use crate::ending::{Database, Ending, FinalBackup, NodeSeen, Step};
use crate::fleet::{Accepts, Fleet, NodeView, Serving};
use crate::placement::{self, Decision, NewNode};
use crate::plan::{self, Plan, Verdict};
use crate::{names, resources, statements};
use graphplane_crds::annotations::{DELETION_PROTECTION, PAUSED};
use graphplane_crds::conditions::{self, Says, reasons};
use graphplane_crds::graph::{DeletionPolicy, Graph, GraphPhase, SchemaType};
use graphplane_crds::ids::GraphId;
use graphplane_crds::tier::Tier;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use std::sync::Arc;

/// What the plan looks at beside the Graph itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The Tier that the spec names.
    pub tier: Option<Arc<Tier>>,
    /// The node that the status names.
    pub node: NodeSeen,
    /// Where it could go; only while no node holds it.
    pub fleet: Option<Fleet>,
    /// Where a database of its id lies already; only while it is not placed.
    pub data: DataSeen,
    /// Another object that has the same graph id and came first, as `namespace/name`.
    pub id_taken_by: Option<String>,
    /// What is known of the database.
    pub database: Database,
    /// The agent's newest list of databases was made after the database, and lacks it.
    pub missing: bool,
    /// The engine's refusal of a schema statement, in this pass.
    pub refused: Option<String>,
    /// Its subgraphs.
    pub subgraphs: Vec<Dependent>,
    /// Its final backup.
    pub final_backup: Option<FinalBackup>,
    /// Whether it is written down on the volume whose database it was.
    pub kept: bool,
}

/// Where a database of a graph's id lies before the graph is placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataSeen {
    /// On no volume.
    Nowhere,
    /// Kept for an object of this namespace, on this volume.
    Kept {
        /// The GraphVolume.
        volume: String,
    },
    /// On a volume, and not this namespace's to take.
    Foreign {
        /// The GraphVolume.
        volume: String,
    },
}

/// A Subgraph of the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependent {
    /// Its name.
    pub name: String,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// What can be done for a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a GraphNode, and its GraphVolume where it is new.
    StartNode(NewNode),
    /// Write down which node holds the graph.
    Place {
        /// The GraphNode.
        node: String,
        /// The GraphVolume.
        volume: String,
    },
    /// Forget the node: it is gone, and nothing was made on it.
    Unplace,
    /// Make the database; one that exists is taken over.
    CreateDatabase,
    /// Apply statements of the schema.
    ApplySchema {
        /// Statements that were applied before.
        from: usize,
        /// Statements that are applied then.
        to: usize,
    },
    /// Delete a Subgraph.
    DeleteSubgraph(String),
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

/// Identity of a graph.
///
/// # Errors
/// In words, when the spec names one that cannot be.
pub fn graph_id(graph: &Graph) -> Result<GraphId, String> {
    let status = graph.status.as_ref().and_then(|s| s.graph_id.clone());
    let name = graph.metadata.name.as_deref().unwrap_or_default();
    match (status, &graph.spec.graph_id) {
        (Some(id), _) => Ok(id),
        (None, Some(id)) => Ok(id.clone()),
        (None, None) if graph.spec.schema.type_ == SchemaType::Shared => {
            name.parse().map_err(|e| format!("metadata.name: {e}"))
        }
        (None, None) => Ok(GraphId::from_uid(graph.metadata.uid.as_deref().unwrap_or_default())),
    }
}

/// What pauses an object: its annotation or its spec.
pub fn paused_by(metadata: &ObjectMeta, spec: bool) -> Option<&'static str> {
    match annotation_is_true(metadata, PAUSED) {
        true => Some("annotation graphplane.dev/paused"),
        false => spec.then_some("spec.paused"),
    }
}

/// Whether an annotation is `"true"`.
pub fn annotation_is_true(metadata: &ObjectMeta, key: &str) -> bool {
    metadata
        .annotations
        .as_ref()
        .and_then(|a| a.get(key))
        .is_some_and(|v| v == "true")
}

/// The statements of a graph's `ddl`.
pub fn ddl(graph: &Graph) -> Vec<&str> {
    graph
        .spec
        .schema
        .ddl
        .as_deref()
        .map(statements::split)
        .unwrap_or_default()
}

/// Plans the next steps for `graph`.
pub fn plan(graph: &Graph, seen: &Observed, now: Timestamp) -> Plan<Action, GraphPhase> {
    if graph.metadata.deletion_timestamp.is_some() {
        return ending(graph, seen, now);
    }
    let phase = graph.status.as_ref().and_then(|s| s.phase).unwrap_or_default();
    if let Some(by) = paused_by(&graph.metadata, graph.spec.paused) {
        return Plan {
            actions: vec![],
            says: vec![plan::paused(Some(by))],
            phase,
            requeue: None,
        };
    }
    let mut plan = living(graph, seen);
    plan.says.extend([plan::paused(None), plan::not_deleting()]);
    if graph.spec.backup.is_some() {
        let message = "spec.backup is not acted on by this version: create a BackupSchedule of the graph";
        plan.says
            .push(Says::no(conditions::BACKUP_CURRENT, reasons::NOT_SUPPORTED, message));
    }
    plan
}

fn stalled(reason: &'static str, message: String) -> Plan<Action, GraphPhase> {
    let mut says = Verdict::Stalled(reason, message.clone()).says();
    says.push(Says::no(conditions::DATABASE_READY, reason, message));
    Plan {
        actions: vec![],
        says,
        phase: GraphPhase::Failed,
        requeue: None,
    }
}

fn living(graph: &Graph, seen: &Observed) -> Plan<Action, GraphPhase> {
    if let Err(why) = graph_id(graph) {
        return stalled(reasons::NAME_TAKEN, why);
    }
    let placed = !matches!(seen.node, NodeSeen::NotPlaced);
    if let Some(unsupported) = unsupported(graph).filter(|_| !placed) {
        return stalled(reasons::NOT_SUPPORTED, unsupported);
    }
    if let Some(owner) = &seen.id_taken_by {
        return stalled(
            reasons::NAME_TAKEN,
            format!("its graph id belongs to Graph {owner}: choose another spec.graphId"),
        );
    }
    let Some(tier) = &seen.tier else {
        let message = format!(
            "Tier {} does not exist: create it, or name another one in spec.tier",
            graph.spec.tier
        );
        return stalled(reasons::TIER_NOT_FOUND, message);
    };
    match &seen.node {
        NodeSeen::NotPlaced => unplaced(graph, tier, seen),
        NodeSeen::Present(node) => placed_on(graph, node, seen),
        NodeSeen::Gone { volume } => node_gone(graph, tier, *volume, seen),
    }
}

fn unsupported(graph: &Graph) -> Option<String> {
    let bootstrap = graph.spec.bootstrap.as_ref()?;
    let field = match (&bootstrap.backup, &bootstrap.snapshot) {
        (Some(_), _) => "spec.bootstrap.backup",
        (_, Some(_)) => "spec.bootstrap.snapshot",
        _ => "spec.bootstrap.graph",
    };
    Some(format!(
        "{field}: this version makes empty graphs only; leave spec.bootstrap out"
    ))
}

fn unplaced(graph: &Graph, tier: &Tier, seen: &Observed) -> Plan<Action, GraphPhase> {
    let pinned = match &seen.data {
        DataSeen::Foreign { volume } => {
            let message = format!(
                "volume {volume} holds a database of its graph id that was not kept for this namespace: choose another \
                 spec.graphId, or have an administrator remove that database"
            );
            return stalled(reasons::NAME_TAKEN, message);
        }
        DataSeen::Kept { volume } => Some(volume.as_str()),
        DataSeen::Nowhere => None,
    };
    let demand = resources::graph_demand(&tier.spec, &graph.spec);
    let fleet = seen.fleet.clone().unwrap_or_default();
    let (actions, reason, message, phase) = match placement::decide(&tier.spec, &fleet, &demand, pinned) {
        Decision::Node { node, volume } => {
            let message = format!("node {node} was chosen");
            let then = [Action::Place { node, volume }, Action::CreateDatabase];
            (then.to_vec(), reasons::PLACED, message, GraphPhase::Provisioning)
        }
        Decision::Start(new) => {
            let message = format!("node {} is started for it", new.node);
            let place = Action::Place {
                node: new.node.clone(),
                volume: new.volume.clone(),
            };
            let then = vec![Action::StartNode(new), place, Action::CreateDatabase];
            (then, reasons::NODE_STARTING, message, GraphPhase::Provisioning)
        }
        Decision::Wait { why, .. } => (vec![], reasons::LEASE_EXPIRED, why, GraphPhase::Pending),
        // Not stalled: room comes back when another graph is deleted, without anybody touching this one.
        Decision::NoCapacity(why) => (vec![], reasons::NO_CAPACITY, why, GraphPhase::Pending),
        Decision::DoesNotFit(why) => return stalled(reasons::DOES_NOT_FIT, why),
    };
    let mut says = Verdict::Progressing(reason, message.clone()).says();
    says.push(Says::no(conditions::PLACED, reason, message.clone()));
    says.push(Says::no(conditions::DATABASE_READY, reason, message));
    Plan {
        actions,
        says,
        phase,
        requeue: None,
    }
}

/// The database may exist: it was made, or is being made and the answer was lost.
fn was_made(graph: &Graph) -> bool {
    graph.status.as_ref().is_some_and(|s| s.applied_schema.is_some())
}

fn node_gone(graph: &Graph, tier: &Tier, volume: bool, seen: &Observed) -> Plan<Action, GraphPhase> {
    let status = graph.status.clone().unwrap_or_default();
    let node = status.node.unwrap_or_default();
    if volume {
        // Its disk is there: a node for that disk brings it back.
        let pinned = status.volume.unwrap_or_default();
        let demand = resources::graph_demand(&tier.spec, &graph.spec);
        let fleet = seen.fleet.clone().unwrap_or_default();
        let (actions, why) = match placement::decide(&tier.spec, &fleet, &demand, Some(&pinned)) {
            Decision::Node { node, volume } => (vec![Action::Place { node, volume }], String::new()),
            Decision::Start(new) => {
                let place = Action::Place {
                    node: new.node.clone(),
                    volume: new.volume.clone(),
                };
                (vec![Action::StartNode(new), place], String::new())
            }
            Decision::Wait { why, .. } | Decision::NoCapacity(why) | Decision::DoesNotFit(why) => (vec![], why),
        };
        let message = format!("node {node} is gone; a node is needed for volume {pinned}. {why}");
        let mut says = Verdict::Progressing(reasons::NODE_LOST, message.trim().to_owned()).says();
        says.push(Says::no(
            conditions::PLACED,
            reasons::NODE_LOST,
            format!("node {node} is gone"),
        ));
        return Plan {
            actions,
            says,
            phase: GraphPhase::Unavailable,
            requeue: None,
        };
    }
    if was_made(graph) {
        let message = format!(
            "node {node} and its volume are gone, and the database with them: delete this graph and restore it from a backup"
        );
        return stalled(reasons::DATABASE_MISSING, message);
    }
    let mut says = Verdict::Progressing(
        reasons::NODE_LOST,
        format!("node {node} is gone; another one is chosen"),
    )
    .says();
    says.push(Says::no(
        conditions::PLACED,
        reasons::NODE_LOST,
        format!("node {node} is gone"),
    ));
    Plan {
        actions: vec![Action::Unplace],
        says,
        phase: GraphPhase::Pending,
        requeue: None,
    }
}

fn placed_on(graph: &Graph, node: &NodeView, seen: &Observed) -> Plan<Action, GraphPhase> {
    let mut says = vec![Says::yes(
        conditions::PLACED,
        reasons::PLACED,
        format!("on node {}", node.name),
    )];
    let made = was_made(graph);
    let name = &node.name;
    if let (false, Accepts::Never(why)) = (made, &node.accepts) {
        // No database can be there, also none that nobody wrote down.
        let message = format!("node {name} {why}: another one is looked for");
        says.extend(Verdict::Progressing(reasons::NO_CAPACITY, message).says());
        return Plan {
            actions: vec![Action::Unplace],
            says,
            phase: GraphPhase::Pending,
            requeue: None,
        };
    }
    if node.serving == Serving::Starting && !made {
        let message = format!("waits for the agent of node {name} to register");
        says.extend(Verdict::Progressing(reasons::WAITING_FOR_REGISTRATION, message.clone()).says());
        says.push(Says::no(conditions::VOLUME_READY, reasons::NODE_STARTING, ""));
        says.push(Says::no(conditions::DATABASE_READY, reasons::NODE_STARTING, message));
        return Plan {
            actions: vec![],
            says,
            phase: GraphPhase::Provisioning,
            requeue: None,
        };
    }
    if node.serving != Serving::Yes {
        let (reason, why) = match node.serving {
            Serving::Starting => (reasons::NODE_STARTING, "is starting again"),
            _ => (reasons::NODE_LOST, "does not renew its lease"),
        };
        let message = format!("node {name} {why}; the graph comes back with it");
        says.extend(Verdict::Progressing(reason, message.clone()).says());
        says.push(Says::unknown(conditions::VOLUME_READY, reason, ""));
        says.push(Says::unknown(conditions::DATABASE_READY, reason, message));
        return Plan {
            actions: vec![],
            says,
            phase: GraphPhase::Unavailable,
            requeue: None,
        };
    }
    let volume = node.volume.as_deref().unwrap_or_default();
    says.push(Says::yes(
        conditions::VOLUME_READY,
        reasons::ATTACHED,
        format!("volume {volume}"),
    ));
    let (verdict, database, actions, phase) = database(graph, node, seen, made);
    says.extend(verdict.says());
    says.push(database);
    Plan {
        actions,
        says,
        phase,
        requeue: None,
    }
}

type Made = (Verdict, Says, Vec<Action>, GraphPhase);

fn database(graph: &Graph, node: &NodeView, seen: &Observed, made: bool) -> Made {
    let ready = || Says::yes(conditions::DATABASE_READY, reasons::DATABASE_CREATED, "");
    let not_ready = |reason, message: &str| Says::no(conditions::DATABASE_READY, reason, message);
    if made && (seen.missing || seen.database == Database::Absent) {
        let message = format!(
            "its database is no longer on node {}: delete this graph and restore it from a backup, or put the file back",
            node.name
        );
        let says = not_ready(reasons::DATABASE_MISSING, &message);
        return (
            Verdict::Stalled(reasons::DATABASE_MISSING, message),
            says,
            vec![],
            GraphPhase::Failed,
        );
    }
    let statements = ddl(graph);
    let before = graph.status.as_ref().and_then(|s| s.applied_schema.as_ref());
    let conditions = graph
        .status
        .as_ref()
        .map(|s| s.conditions.as_slice())
        .unwrap_or_default();
    let refused = seen
        .refused
        .clone()
        .or_else(|| refused_before(&graph.metadata, conditions));
    let done = match statements::done(&statements, before) {
        Ok(done) => done,
        Err(conflict) => {
            let message = format!("spec.schema.ddl: {conflict}");
            let says = Says::yes(conditions::DATABASE_READY, reasons::SCHEMA_CONFLICT, &message);
            return (
                Verdict::ReadyButStalled(reasons::SCHEMA_CONFLICT, message),
                says,
                vec![],
                GraphPhase::Ready,
            );
        }
    };
    let left = made && done < statements.len();
    if let Some(why) = refused.filter(|_| left || !made) {
        if made {
            let says = Says::yes(conditions::DATABASE_READY, reasons::SCHEMA_REFUSED, &why);
            return (
                Verdict::ReadyButStalled(reasons::SCHEMA_REFUSED, why),
                says,
                vec![],
                GraphPhase::Ready,
            );
        }
        let says = not_ready(reasons::SCHEMA_REFUSED, &why);
        let message = format!("{why}. Nothing was made: delete this graph, correct the statement and create it again");
        return (
            Verdict::Stalled(reasons::SCHEMA_REFUSED, message),
            says,
            vec![],
            GraphPhase::Failed,
        );
    }
    if !made {
        let mut actions = vec![Action::CreateDatabase];
        // A custom schema is made with its database in one step; otherwise the statements are added to the base tables.
        if graph.spec.schema.type_ != SchemaType::Custom && !statements.is_empty() {
            actions.push(Action::ApplySchema {
                from: 0,
                to: statements.len(),
            });
        }
        let says = not_ready(reasons::CREATING_DATABASE, "");
        let verdict = Verdict::Progressing(reasons::CREATING_DATABASE, format!("on node {}", node.name));
        return (verdict, says, actions, GraphPhase::Provisioning);
    }
    if left {
        let actions = vec![Action::ApplySchema {
            from: done,
            to: statements.len(),
        }];
        let message = format!(
            "applies statements {} to {} of spec.schema.ddl",
            done + 1,
            statements.len()
        );
        return (
            Verdict::ReadyAndProgressing(reasons::RECONCILING, message),
            ready(),
            actions,
            GraphPhase::Ready,
        );
    }
    serving(graph, node, seen, ready())
}

fn serving(graph: &Graph, node: &NodeView, seen: &Observed, ready: Says) -> Made {
    if graph.spec.suspended {
        let verdict = Verdict::Off(
            reasons::SUSPENDED,
            "spec.suspended is set: queries are refused, the data stays".into(),
        );
        return (verdict, ready, vec![], GraphPhase::Suspended);
    }
    if seen.tier.is_some() && node.tier != graph.spec.tier {
        let message = format!(
            "spec.tier: this version does not move a graph to another tier; it stays on a node of tier {}, set spec.tier back",
            node.tier
        );
        return (
            Verdict::ReadyButStalled(reasons::NOT_SUPPORTED, message),
            ready,
            vec![],
            GraphPhase::Ready,
        );
    }
    (Verdict::Ready(String::new()), ready, vec![], GraphPhase::Ready)
}

/// The engine's refusal that was written down for this very generation: the same text would be refused again.
pub(crate) fn refused_before(metadata: &ObjectMeta, conditions: &[Condition]) -> Option<String> {
    let written = conditions::get(conditions, conditions::DATABASE_READY)?;
    let same = written.reason == reasons::SCHEMA_REFUSED && written.observed_generation == metadata.generation;
    same.then(|| written.message.clone())
}

fn ending(graph: &Graph, seen: &Observed, now: Timestamp) -> Plan<Action, GraphPhase> {
    let name = graph.metadata.name.as_deref().unwrap_or_default();
    let backup_name = names::final_backup(name, graph.metadata.uid.as_deref().unwrap_or_default());
    let paused = paused_by(&graph.metadata, graph.spec.paused);
    let protected = annotation_is_true(&graph.metadata, DELETION_PROTECTION);
    let ending = Ending {
        policy: graph.spec.deletion_policy,
        protected,
        paused,
        node: &seen.node,
        database: seen.database,
        kept: seen.kept,
        backup_name: &backup_name,
        backup: seen.final_backup.as_ref(),
    };
    let step = ending.step(now);
    let (actions, reason, message, requeue) = if protected || paused.is_some() || seen.subgraphs.is_empty() {
        steps(step, graph, seen, backup_name)
    } else {
        let delete = seen
            .subgraphs
            .iter()
            .filter(|s| !s.deleting)
            .map(|s| Action::DeleteSubgraph(s.name.clone()));
        let names: Vec<&str> = seen.subgraphs.iter().map(|s| s.name.as_str()).collect();
        (
            delete.collect(),
            reasons::WAITING_FOR_DEPENDENTS,
            format!("waits for subgraphs {}", names.join(", ")),
            None,
        )
    };
    let mut says = vec![plan::deleting(reason, message.clone()), plan::paused(paused)];
    let phase = if protected || paused.is_some() {
        // It goes on serving.
        graph.status.as_ref().and_then(|s| s.phase).unwrap_or_default()
    } else {
        says.extend(Verdict::Off(reasons::DELETING, message).says());
        GraphPhase::Deleting
    };
    Plan {
        actions,
        says,
        phase,
        requeue,
    }
}

type Steps = (Vec<Action>, &'static str, String, Option<std::time::Duration>);

fn steps(step: Step, graph: &Graph, seen: &Observed, backup: String) -> Steps {
    let policy = graph.spec.deletion_policy;
    let end = [Action::DeleteDatabase, Action::RemoveFinalizer];
    match step {
        Step::Wait(reason, message, requeue) => (vec![], reason, message, requeue),
        Step::NeedNode => {
            let (actions, why) = need_node(graph, seen);
            (
                actions,
                reasons::NODE_STARTING,
                format!("its volume needs a node first. {why}"),
                None,
            )
        }
        Step::Keep => (
            vec![Action::KeepData, Action::RemoveFinalizer],
            reasons::RETAINED,
            "the database stays on its volume".into(),
            None,
        ),
        Step::CreateBackup => {
            let message = format!("waits for final backup {backup}");
            let actions = [Action::CreateFinalBackup(backup)].into_iter().chain(end).collect();
            (actions, reasons::FINAL_SNAPSHOT, message, None)
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
        Step::DeleteDatabase => (end.to_vec(), reasons::DELETING, "the database is deleted".into(), None),
        Step::Finished => {
            let reason = if policy == DeletionPolicy::Retain {
                reasons::RETAINED
            } else {
                reasons::DELETING
            };
            (vec![Action::RemoveFinalizer], reason, String::new(), None)
        }
    }
}

fn need_node(graph: &Graph, seen: &Observed) -> (Vec<Action>, String) {
    let pinned = graph.status.as_ref().and_then(|s| s.volume.clone()).unwrap_or_default();
    let Some(tier) = &seen.tier else {
        return (vec![], format!("Tier {} does not exist", graph.spec.tier));
    };
    let fleet = seen.fleet.clone().unwrap_or_default();
    let demand = resources::graph_demand(&tier.spec, &graph.spec);
    match placement::decide(&tier.spec, &fleet, &demand, Some(&pinned)) {
        Decision::Node { node, volume } => (vec![Action::Place { node, volume }], String::new()),
        Decision::Start(new) => (vec![Action::StartNode(new)], String::new()),
        Decision::Wait { why, .. } | Decision::NoCapacity(why) | Decision::DoesNotFit(why) => (vec![], why),
    }
}

#[cfg(test)]
#[path = "graph_plan_tests.rs"]
mod tests;
