//! The life of a tier: its stack, where the provider has stacks; then keep its minimum of nodes, remove empty ones beyond
//! it, and have machines replaced that are not what the tier says now.

use crate::ending::{after, until};
use crate::fleet::Fleet;
use crate::graph_plan::{annotation_is_true, paused_by};
use crate::placement::{self, Decision, NewNode};
use crate::plan::{self, Plan, Verdict, sooner};
use crate::rollout::{self, Machine, Member, State, Wanted};
use crate::stack_plan::{self, Step};
use graphplane_crds::annotations::DELETION_PROTECTION;
use graphplane_crds::conditions::{self, Says, reasons};
use graphplane_crds::node::NodePhase;
use graphplane_crds::quantities::Epoch;
use graphplane_crds::tier::{DisruptionReason, NodeCounts, Tier, TierCapacity};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// A volume that no node names is left alone for so long after it was made: after a crash between the two, the next node
/// takes it.
const ORPHAN_GRACE: Duration = Duration::from_secs(10);

/// What the stack has to offer now is in the status after so long: machines are started from the status.
const PUBLISHED: Duration = Duration::from_secs(1);

/// What the plan looks at beside the Tier itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// Its volumes that the operator made.
    pub volumes: Vec<Volume>,
    /// Graphs that name the tier.
    pub graphs: u32,
    /// What a new node would be made of.
    pub fleet: Fleet,
    /// What its machines have in common, where the provider has stacks.
    pub stack: Option<Stack>,
    /// What a machine that is started now is started from; `None` from a provider that has nothing such.
    pub template: Option<String>,
    /// A machine that was to serve again and does not after this time has failed.
    pub patience: Duration,
}

/// The stack of the tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// As it should be.
    pub wanted: stack_plan::Wanted,
    /// As it is.
    pub seen: stack_plan::Seen,
}

impl Stack {
    /// What is next for it while the tier lives.
    fn keep(&self, now: Timestamp) -> stack_plan::Next {
        stack_plan::keep(&self.wanted, &self.seen, now)
    }

    /// What it has to offer now; nothing while it does not serve.
    pub fn outputs(&self, now: Timestamp) -> BTreeMap<String, String> {
        let stack = self.seen.stack.as_ref().filter(|_| self.keep(now).verdict.serves());
        stack.map(|s| s.outputs.clone()).unwrap_or_default()
    }
}

/// A node of the tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Name of its volume.
    pub volume: Option<String>,
    /// How it stands.
    pub phase: NodePhase,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Graphs on it.
    pub graphs: u32,
    /// Since when it has no graph and no subgraph.
    pub empty_since: Option<Timestamp>,
    /// Its machine.
    pub machine: Machine,
}

/// A volume of the tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Whether databases are on it.
    pub holds_data: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// When it was made.
    pub created: Timestamp,
}

/// What can be done for a tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Do something for the stack.
    Stack(Step),
    /// Make a GraphNode, and its GraphVolume where it is new.
    StartNode(NewNode),
    /// Delete an empty GraphNode.
    DeleteNode(String),
    /// Delete an empty GraphVolume.
    DeleteVolume(String),
    /// Have the machine of a GraphNode replaced that runs under this epoch.
    MarkNode(String, Epoch),
    /// Remove that mark: it is replaced, or need not be any more.
    UnmarkNode(String),
    /// Let the object go.
    RemoveFinalizer,
}

/// Plans the next steps for `tier`.
pub fn plan(tier: &Tier, seen: &Observed, now: Timestamp) -> Plan<Action> {
    let paused = paused_by(&tier.metadata, false);
    if tier.metadata.deletion_timestamp.is_some() {
        return ending(tier, seen, paused, now);
    }
    if let Some(by) = paused {
        return Plan {
            actions: vec![],
            says: vec![plan::paused(Some(by))],
            phase: (),
            requeue: None,
        };
    }
    let scaling = &tier.spec.scaling;
    let staying: Vec<&Node> = seen.nodes.iter().filter(|n| !n.deleting).collect();
    let stack = seen.stack.as_ref().map(|stack| stack.keep(now));
    let mut actions: Vec<Action> = stack.iter().filter_map(|s| s.step.clone()).map(Action::Stack).collect();
    let mut verdict = Verdict::Ready(String::new());
    // Machines are started from what the stack has to offer.
    let may_start = stack.as_ref().is_none_or(|s| s.verdict.serves());
    if may_start && (staying.len() as u32) < scaling.min_nodes {
        match placement::start(&tier.spec, &seen.fleet, &placement::nothing()) {
            Decision::Start(new) => {
                verdict = Verdict::Progressing(
                    reasons::NODE_STARTING,
                    format!("starts node {} of its minimum", new.node),
                );
                actions.push(Action::StartNode(new));
            }
            Decision::NoCapacity(why) | Decision::DoesNotFit(why) => {
                verdict = Verdict::Progressing(reasons::NO_CAPACITY, why);
            }
            Decision::Node { .. } | Decision::Wait { .. } => {}
        }
    }
    let idle = Duration::from_secs(u64::from(scaling.consolidate_after_seconds));
    let surplus = staying.len().saturating_sub(scaling.min_nodes as usize);
    let (surplus, opens) = removal(tier, seen, surplus, now);
    let (empty, requeue) = removable(&staying, surplus, idle, now);
    for node in empty {
        actions.push(Action::DeleteNode(node.name.clone()));
        let volume = seen.volumes.iter().find(|v| Some(&v.name) == node.volume.as_ref());
        actions.extend(
            volume
                .filter(|v| !v.holds_data && !v.deleting)
                .map(|v| Action::DeleteVolume(v.name.clone())),
        );
    }
    // A node and its volume are deleted one after the other; this is for a crash between the two.
    actions.extend(left_by_nodes(seen).map(|v| Action::DeleteVolume(v.name.clone())));
    let (orphans, orphan_requeue) = orphans(seen, idle, now);
    actions.extend(orphans.into_iter().map(Action::DeleteVolume));
    let mut requeue = sooner(sooner(requeue, opens), orphan_requeue);
    let mut says = vec![plan::paused(None), plan::not_deleting()];
    let settled = stack.as_ref().is_none_or(|s| matches!(s.verdict, Verdict::Ready(_)));
    let rolls = roll(tier, seen, settled, now);
    actions.extend(rolls.actions);
    requeue = sooner(requeue, rolls.requeue);
    says.push(rolls.says);
    if let (Verdict::Ready(_), Some(rolling)) = (&verdict, rolls.verdict) {
        verdict = rolling;
    }
    if let (Some(next), Some(stack)) = (&stack, &seen.stack) {
        verdict = stack_plan::with(verdict, next);
        requeue = sooner(requeue, next.requeue);
        says.extend(stack_plan::says(next, &stack.wanted, stack.seen.stack.as_ref()));
    }
    says.extend(verdict.says());
    Plan {
        actions,
        says,
        phase: (),
        requeue,
    }
}

/// What the rollout adds to the plan.
struct Rolls {
    actions: Vec<Action>,
    says: Says,
    /// What it makes of a tier that is ready otherwise.
    verdict: Option<Verdict>,
    requeue: Option<Duration>,
}

fn wanted<'a>(tier: &'a Tier, seen: &'a Observed) -> Wanted<'a> {
    Wanted::of(&tier.spec, seen.template.as_deref())
}

fn members(seen: &Observed) -> Vec<Member<'_>> {
    let nodes = seen.nodes.iter().map(|node| Member {
        name: &node.name,
        graphs: node.graphs,
        deleting: node.deleting,
        machine: &node.machine,
    });
    nodes.collect()
}

/// Which machines are replaced now. While the stack is being changed nothing is: it would have to be done twice.
fn roll(tier: &Tier, seen: &Observed, settled: bool, now: Timestamp) -> Rolls {
    use conditions::UP_TO_DATE;
    let stays = |reason, message: &str, requeue| Rolls {
        actions: vec![],
        says: Says::unknown(UP_TO_DATE, reason, message),
        verdict: None,
        requeue,
    };
    if !settled {
        return stays(reasons::NOT_CHECKED, "waits for the stack to be as it should be", None);
    }
    let outputs = seen.stack.as_ref().map(|stack| stack.outputs(now)).unwrap_or_default();
    let known = tier.status.as_ref().is_some_and(|s| s.stack_outputs == outputs);
    if seen.stack.is_some() && !known {
        return stays(
            reasons::NOT_CHECKED,
            "what the stack has to offer has changed",
            Some(PUBLISHED),
        );
    }
    let rollout = &tier.spec.rollout;
    let decision = rollout::decide(rollout, &wanted(tier, seen), &members(seen), seen.patience, now);
    let unmark = decision.unmark.into_iter().map(Action::UnmarkNode);
    let mark = decision
        .mark
        .into_iter()
        .map(|(node, epoch)| Action::MarkNode(node, epoch));
    let (says, verdict) = match decision.state {
        State::Done(message) => (Says::yes(UP_TO_DATE, reasons::RECONCILED, message), None),
        State::Waiting(message) => (Says::no(UP_TO_DATE, reasons::ROLLOUT_WAITS, message), None),
        State::Replacing(message) => (
            Says::no(UP_TO_DATE, reasons::REPLACING, message.clone()),
            Some(Verdict::ReadyAndProgressing(reasons::REPLACING, message)),
        ),
        State::Stopped(message) => (
            Says::no(UP_TO_DATE, reasons::REPLACEMENT_FAILED, message.clone()),
            Some(Verdict::ReadyButStalled(reasons::REPLACEMENT_FAILED, message)),
        ),
        State::Invalid(message) => (
            Says::no(UP_TO_DATE, reasons::INVALID_SCHEDULE, message.clone()),
            Some(Verdict::ReadyButStalled(reasons::INVALID_SCHEDULE, message)),
        ),
    };
    Rolls {
        actions: unmark.chain(mark).collect(),
        says,
        verdict,
        requeue: decision.requeue,
    }
}

/// How many empty nodes may be removed now, of those that there are too many, and when that may change.
fn removal(tier: &Tier, seen: &Observed, surplus: usize, now: Timestamp) -> (usize, Option<Duration>) {
    let total = seen.nodes.len() as u32;
    let leaving = seen.nodes.iter().filter(|n| n.deleting).count();
    match rollout::allowance(&tier.spec.rollout.budgets, DisruptionReason::Empty, total, now) {
        Ok(allowance) => {
            let left = |nodes: u32| (nodes as usize).saturating_sub(leaving);
            let allowed = allowance.nodes.map_or(surplus, |nodes| surplus.min(left(nodes)));
            let opens = allowance.changes.filter(|_| allowed < surplus);
            (allowed, opens.map(|at| until(at, now)))
        }
        // The rollout tells of it.
        Err(_) => (0, None),
    }
}

/// Empty nodes that may go now, the newest names first, and when the next one may.
fn removable<'a>(
    nodes: &[&'a Node],
    surplus: usize,
    idle: Duration,
    now: Timestamp,
) -> (Vec<&'a Node>, Option<Duration>) {
    let mut empty: Vec<(Timestamp, &Node)> = nodes
        .iter()
        .filter_map(|n| n.empty_since.map(|since| (after(since, idle), *n)))
        .collect();
    empty.sort_by(|(a_due, a), (b_due, b)| {
        a_due
            .cmp(b_due)
            .then_with(|| (b.name.len(), &b.name).cmp(&(a.name.len(), &a.name)))
    });
    empty.truncate(surplus);
    let (due, later): (Vec<_>, Vec<_>) = empty.into_iter().partition(|(due, _)| *due <= now);
    (
        due.into_iter().map(|(_, n)| n).collect(),
        later.first().map(|(due, _)| until(*due, now)),
    )
}

/// Empty volumes of nodes that are being deleted.
fn left_by_nodes(seen: &Observed) -> impl Iterator<Item = &Volume> {
    let of_deleted = |v: &Volume| {
        seen.nodes
            .iter()
            .any(|n| n.deleting && n.graphs == 0 && n.volume.as_ref() == Some(&v.name))
    };
    seen.volumes
        .iter()
        .filter(move |v| !v.deleting && !v.holds_data && of_deleted(v))
}

/// Empty volumes that no node names, old enough that none is about to.
fn orphans(seen: &Observed, idle: Duration, now: Timestamp) -> (Vec<String>, Option<Duration>) {
    let named = |v: &Volume| seen.nodes.iter().any(|n| n.volume.as_ref() == Some(&v.name));
    let mut next = None;
    let mut gone = vec![];
    for volume in seen
        .volumes
        .iter()
        .filter(|v| !v.deleting && !v.holds_data && !named(v))
    {
        let due = after(volume.created, ORPHAN_GRACE.max(idle));
        if due <= now {
            gone.push(volume.name.clone());
        } else {
            next = sooner(next, Some(until(due, now)));
        }
    }
    (gone, next)
}

fn ending(tier: &Tier, seen: &Observed, paused: Option<&'static str>, now: Timestamp) -> Plan<Action> {
    let mut actions = vec![];
    let mut requeue = None;
    let (reason, message) = if annotation_is_true(&tier.metadata, DELETION_PROTECTION) {
        (
            reasons::DELETION_PROTECTED,
            format!("annotation {DELETION_PROTECTION} is set: remove it to delete"),
        )
    } else if let Some(by) = paused {
        (reasons::PAUSED, format!("{by} is set"))
    } else if seen.graphs > 0 {
        (
            reasons::WAITING_FOR_DEPENDENTS,
            format!("{} graphs name it: delete them first", seen.graphs),
        )
    } else {
        actions.extend(
            seen.nodes
                .iter()
                .filter(|n| !n.deleting)
                .map(|n| Action::DeleteNode(n.name.clone())),
        );
        let empty = seen.volumes.iter().filter(|v| !v.deleting && !v.holds_data);
        actions.extend(empty.map(|v| Action::DeleteVolume(v.name.clone())));
        let kept: Vec<&str> = seen
            .volumes
            .iter()
            .filter(|v| v.holds_data)
            .map(|v| v.name.as_str())
            .collect();
        let waits = seen.nodes.len() + seen.volumes.iter().filter(|v| !v.holds_data).count();
        let kept = if kept.is_empty() {
            String::new()
        } else {
            format!("; volumes {} hold kept data and stay", kept.join(", "))
        };
        let stack = seen.stack.as_ref().filter(|_| waits == 0);
        match stack.and_then(|stack| stack_plan::remove(&stack.wanted, &stack.seen, now)) {
            // The stack goes last: machines live by it.
            Some(next) => {
                requeue = next.requeue;
                actions.extend(next.step.map(Action::Stack));
                let (reason, message) = next.verdict.why();
                (reason, format!("{message}{kept}"))
            }
            None => {
                if waits == 0 {
                    actions.push(Action::RemoveFinalizer);
                }
                let message = format!("waits for {waits} nodes and volumes to be removed{kept}");
                (reasons::WAITING_FOR_DEPENDENTS, message)
            }
        }
    };
    let mut says = vec![plan::deleting(reason, message.clone()), plan::paused(paused)];
    if !actions.is_empty() {
        says.extend(Verdict::Off(reasons::DELETING, message).says());
    }
    Plan {
        actions,
        says,
        phase: (),
        requeue,
    }
}

/// Nodes by state, for the status.
pub fn counts(tier: &Tier, seen: &Observed, now: Timestamp) -> NodeCounts {
    let nodes = &seen.nodes;
    let count = |f: &dyn Fn(&&Node) -> bool| nodes.iter().filter(f).count() as u32;
    let rollout = &tier.spec.rollout;
    let rolls = rollout::decide(rollout, &wanted(tier, seen), &members(seen), seen.patience, now);
    NodeCounts {
        up_to_date: rolls.current,
        replacing: rolls.replacing,
        total: nodes.len() as u32,
        ready: count(&|n| !n.deleting && n.phase == NodePhase::Ready),
        starting: count(&|n| {
            !n.deleting && matches!(n.phase, NodePhase::Pending | NodePhase::Starting | NodePhase::Lost)
        }),
        draining: count(&|n| n.deleting || matches!(n.phase, NodePhase::Draining | NodePhase::Terminating)),
    }
}

/// What the nodes hold and could hold, for the status.
pub fn capacity(tier: &Tier, nodes: &[Node]) -> TierCapacity {
    let each = tier.spec.databases_per_node;
    let running = nodes
        .iter()
        .filter(|n| !n.deleting && n.phase == NodePhase::Ready)
        .count() as u32;
    TierCapacity {
        used_databases: nodes.iter().map(|n| n.graphs).sum(),
        databases: running.saturating_mul(each),
        max_databases: tier.spec.scaling.max_nodes.saturating_mul(each),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn tier(min: u32, max: u32, idle: u32) -> Tier {
        let spec = serde_json::json!({"memory": {"nodeMiB": 100, "perDatabaseMiB": 10}, "databasesPerNode": 2,
            "scaling": {"minNodes": min, "maxNodes": max, "consolidateAfterSeconds": idle}});
        Tier::new("std", serde_json::from_value(spec).unwrap())
    }

    fn node(n: u32, empty_since: Option<i64>) -> Node {
        let name = format!("std-{n}");
        let graphs = u32::from(empty_since.is_none());
        Node {
            volume: Some(name.clone()),
            name,
            phase: NodePhase::Ready,
            deleting: false,
            graphs,
            empty_since: empty_since.map(at),
            machine: Machine {
                epoch: Some(Epoch(1)),
                serves: true,
                ..Machine::default()
            },
        }
    }

    fn volume(n: u32, holds_data: bool, created: i64) -> Volume {
        Volume {
            name: format!("std-{n}"),
            holds_data,
            deleting: false,
            created: at(created),
        }
    }

    fn seen(tier: &Tier, nodes: Vec<Node>, volumes: Vec<Volume>) -> Observed {
        let node_names: BTreeSet<String> = nodes.iter().map(|n| n.name.clone()).collect();
        let taken = node_names
            .iter()
            .cloned()
            .chain(volumes.iter().map(|v| v.name.clone()))
            .collect();
        let fleet = Fleet {
            tier: "std".into(),
            nodes: nodes.len() as u32,
            max_nodes: tier.spec.scaling.max_nodes,
            node_names,
            taken,
            zone: "local".into(),
            ..Fleet::default()
        };
        Observed {
            graphs: nodes.iter().map(|n| n.graphs).sum(),
            nodes,
            volumes,
            fleet,
            stack: None,
            template: None,
            patience: Duration::from_secs(90),
        }
    }

    fn stack(status: Option<&str>, digest: &str) -> Stack {
        let tags: BTreeMap<String, String> = ["cluster", "kind", "name"].map(|key| (key.into(), "x".into())).into();
        let facts = status.map(|status| {
            let mut facts = stack_plan::StackFacts {
                id: "arn:1".into(),
                status: status.into(),
                tags: tags.clone(),
                outputs: [("LaunchTemplateId".to_owned(), "lt-1".to_owned())].into(),
                ..Default::default()
            };
            facts.tags.insert(stack_plan::DIGEST_TAG.into(), digest.into());
            facts
        });
        Stack {
            wanted: stack_plan::Wanted {
                name: "graphplane-tier-std".into(),
                digest: "now".into(),
                tags,
            },
            seen: stack_plan::Seen {
                stack: facts,
                ..Default::default()
            },
        }
    }

    fn says(plan: &Plan<Action>, type_: &str) -> Option<bool> {
        plan.says.iter().find(|s| s.type_ == type_).and_then(|s| s.status)
    }

    #[test]
    fn no_node_is_started_before_the_stack_is_ready() {
        use graphplane_crds::conditions::{READY, STACK_READY};
        let tier = tier(1, 3, 15);
        let mut observed = seen(&tier, vec![], vec![]);
        observed.stack = Some(stack(None, ""));
        let first = plan(&tier, &observed, at(0));
        assert_eq!(first.actions, [Action::Stack(Step::Propose)]);
        assert_eq!(
            (says(&first, READY), says(&first, STACK_READY)),
            (Some(false), Some(false))
        );
        assert!(observed.stack.as_ref().unwrap().outputs(at(0)).is_empty());
        observed.stack = Some(stack(Some("CREATE_IN_PROGRESS"), "now"));
        let making = plan(&tier, &observed, at(0));
        assert_eq!((making.actions, making.requeue), (vec![], Some(stack_plan::LOOK)));
        observed.stack = Some(stack(Some("CREATE_COMPLETE"), "now"));
        let made = plan(&tier, &observed, at(0));
        assert!(matches!(&made.actions[..], [Action::StartNode(_)]), "{made:?}");
        assert_eq!(says(&made, STACK_READY), Some(true));
        // A change does not stop what serves.
        observed.stack = Some(stack(Some("UPDATE_IN_PROGRESS"), "before"));
        let changing = plan(&tier, &observed, at(0));
        assert!(matches!(&changing.actions[..], [Action::StartNode(_)]), "{changing:?}");
        assert_eq!(
            observed.stack.as_ref().unwrap().outputs(at(0))["LaunchTemplateId"],
            "lt-1"
        );
        // Without stacks there is no condition about them.
        observed.stack = None;
        assert_eq!(says(&plan(&tier, &observed, at(0)), STACK_READY), None);
    }

    /// Three nodes of a tier that was `1:a`, and is `1:b` now; its stack is as it should be.
    fn changed(budgets: serde_json::Value) -> (Tier, Observed) {
        let mut tier = tier(3, 3, 15);
        tier.spec.rollout.budgets = serde_json::from_value(budgets).unwrap();
        let stack = stack(Some("CREATE_COMPLETE"), "now");
        tier.status = Some(graphplane_crds::tier::TierStatus {
            stack_outputs: stack.outputs(at(0)),
            ..Default::default()
        });
        let mut nodes: Vec<Node> = (0..3).map(|n| node(n, None)).collect();
        nodes
            .iter_mut()
            .for_each(|n| n.machine.template = Some("1:a".to_owned()));
        let mut observed = seen(&tier, nodes, (0..3).map(|n| volume(n, true, 0)).collect());
        (observed.stack, observed.template) = (Some(stack), Some("1:b".to_owned()));
        (tier, observed)
    }

    #[test]
    fn machines_that_are_out_of_date_are_marked_one_after_the_other() {
        use graphplane_crds::conditions::{PROGRESSING, READY, UP_TO_DATE};
        let (tier, mut observed) = changed(serde_json::json!([]));
        let first = plan(&tier, &observed, at(0));
        assert_eq!(first.actions, [Action::MarkNode("std-0".into(), Epoch(1))]);
        assert_eq!(
            (says(&first, READY), says(&first, PROGRESSING), says(&first, UP_TO_DATE)),
            (Some(true), Some(true), Some(false))
        );
        observed.nodes[0].machine.marked = Some(Epoch(1));
        assert!(plan(&tier, &observed, at(0)).actions.is_empty(), "one at a time");
        assert_eq!(counts(&tier, &observed, at(0)).replacing, 1);
        observed.nodes[0].machine.epoch = Some(Epoch(2));
        observed.nodes[0].machine.template = Some("1:b".into());
        let next = plan(&tier, &observed, at(0));
        assert_eq!(
            next.actions,
            [
                Action::UnmarkNode("std-0".into()),
                Action::MarkNode("std-1".into(), Epoch(1))
            ]
        );
        for node in &mut observed.nodes {
            node.machine.template = Some("1:b".into());
            node.machine.marked = None;
        }
        let done = plan(&tier, &observed, at(0));
        assert_eq!((done.actions.len(), says(&done, UP_TO_DATE)), (0, Some(true)));
        assert_eq!(counts(&tier, &observed, at(0)).up_to_date, 3);
    }

    #[test]
    fn nothing_is_replaced_while_the_stack_changes_or_its_outputs_are_not_known_to_all() {
        use graphplane_crds::conditions::UP_TO_DATE;
        let (mut tier, mut observed) = changed(serde_json::json!([]));
        observed.stack = Some(stack(Some("UPDATE_IN_PROGRESS"), "before"));
        let changing = plan(&tier, &observed, at(0));
        assert_eq!(
            (changing.actions, says(&plan(&tier, &observed, at(0)), UP_TO_DATE)),
            (vec![], None)
        );
        observed.stack = Some(stack(Some("UPDATE_COMPLETE"), "now"));
        tier.status = None;
        let early = plan(&tier, &observed, at(0));
        assert_eq!((early.actions, early.requeue), (vec![], Some(PUBLISHED)));
    }

    #[test]
    fn a_tier_says_when_its_machines_may_be_replaced() {
        use graphplane_crds::conditions::{PROGRESSING, UP_TO_DATE};
        let budgets = serde_json::json!([{"nodes": "10%", "schedule": "0 2 * * *", "duration": "4h"}]);
        let (tier, observed) = changed(budgets);
        let waits = plan(&tier, &observed, at(3600));
        assert_eq!(
            (waits.actions.len(), waits.requeue),
            (0, Some(Duration::from_secs(3600)))
        );
        let said = waits.says.iter().find(|s| s.type_ == UP_TO_DATE).unwrap();
        assert!(said.message.contains("1970-01-01T02:00:00Z"), "{}", said.message);
        assert_eq!(
            (said.reason, says(&waits, PROGRESSING)),
            (reasons::ROLLOUT_WAITS, Some(false))
        );
        assert_eq!(plan(&tier, &observed, at(7200)).actions.len(), 1);
    }

    #[test]
    fn budgets_that_name_empty_nodes_hold_back_their_removal() {
        let mut tier = tier(0, 3, 15);
        let nodes = vec![node(0, Some(0)), node(1, Some(0))];
        let observed = seen(&tier, nodes, vec![]);
        let removed = |tier: &Tier, now: i64| plan(tier, &observed, at(now)).actions.len();
        assert_eq!(removed(&tier, 60), 2);
        tier.spec.rollout.budgets = serde_json::from_value(serde_json::json!([{"nodes": "0"}])).unwrap();
        assert_eq!(removed(&tier, 60), 2, "it is for nodes that serve");
        let one = serde_json::json!([{"nodes": "1", "schedule": "0 2 * * *", "duration": "4h", "reasons": ["Empty"]}]);
        tier.spec.rollout.budgets = serde_json::from_value(one).unwrap();
        assert_eq!((removed(&tier, 60), removed(&tier, 7200)), (0, 1));
    }

    #[test]
    fn the_stack_goes_when_no_node_is_left() {
        let mut tier = tier(1, 3, 15);
        tier.metadata.deletion_timestamp = Some(Time(at(0)));
        let mut observed = seen(&tier, vec![node(0, Some(0))], vec![volume(1, true, 0)]);
        observed.stack = Some(stack(Some("CREATE_COMPLETE"), "now"));
        assert_eq!(
            plan(&tier, &observed, at(1)).actions,
            [Action::DeleteNode("std-0".into())]
        );
        observed.nodes[0].deleting = true;
        assert!(plan(&tier, &observed, at(1)).actions.is_empty());
        observed.nodes.clear();
        assert_eq!(plan(&tier, &observed, at(1)).actions, [Action::Stack(Step::Delete)]);
        observed.stack = Some(stack(Some("DELETE_IN_PROGRESS"), "now"));
        let going = plan(&tier, &observed, at(1));
        assert_eq!((going.actions, going.requeue), (vec![], Some(stack_plan::LOOK)));
        observed.stack = Some(stack(None, ""));
        assert_eq!(plan(&tier, &observed, at(1)).actions, [Action::RemoveFinalizer]);
    }

    #[test]
    fn the_minimum_is_started_one_at_a_time() {
        let tier = tier(2, 3, 15);
        let plan = plan(
            &tier,
            &seen(&tier, vec![node(0, Some(0))], vec![volume(0, false, 0)]),
            at(99),
        );
        let [Action::StartNode(new)] = &plan.actions[..] else {
            panic!("{plan:?}")
        };
        assert_eq!(new.node, "std-1");
    }

    #[test]
    fn an_empty_node_goes_after_its_time_and_a_kept_database_stays() {
        let tier = tier(0, 3, 15);
        let nodes = vec![node(0, Some(90)), node(1, None), node(2, Some(100))];
        let volumes = vec![volume(0, false, 0), volume(1, true, 0), volume(2, true, 0)];
        let observed = seen(&tier, nodes, volumes);
        let early = plan(&tier, &observed, at(104));
        assert_eq!((early.actions, early.requeue), (vec![], Some(Duration::from_secs(1))));
        let first = plan(&tier, &observed, at(105));
        assert_eq!(
            first.actions,
            [Action::DeleteNode("std-0".into()), Action::DeleteVolume("std-0".into())]
        );
        assert_eq!(first.requeue, Some(Duration::from_secs(10)));
        let both = plan(&tier, &observed, at(115));
        assert!(both.actions.contains(&Action::DeleteNode("std-2".into())));
        assert!(
            !both.actions.contains(&Action::DeleteVolume("std-2".into())),
            "it holds a kept database"
        );
    }

    #[test]
    fn a_volume_whose_node_was_never_made_is_removed_late() {
        let tier = tier(0, 3, 15);
        let observed = seen(&tier, vec![], vec![volume(0, false, 100), volume(1, true, 100)]);
        let early = plan(&tier, &observed, at(110));
        assert_eq!((early.actions, early.requeue), (vec![], Some(Duration::from_secs(5))));
        assert_eq!(
            plan(&tier, &observed, at(115)).actions,
            [Action::DeleteVolume("std-0".into())]
        );
    }

    #[test]
    fn the_volume_of_a_node_that_is_being_deleted_follows_it() {
        let tier = tier(0, 3, 15);
        let mut nodes = vec![node(0, Some(0)), node(1, Some(0)), node(2, None)];
        nodes.iter_mut().for_each(|n| n.deleting = true);
        let volumes = vec![volume(0, false, 0), volume(1, true, 0), volume(2, false, 0)];
        let follows = plan(&tier, &seen(&tier, nodes, volumes), at(1));
        assert_eq!(follows.actions, [Action::DeleteVolume("std-0".into())]);
    }

    #[test]
    fn a_tier_in_use_is_not_let_go() {
        let mut tier = tier(1, 3, 15);
        tier.metadata.deletion_timestamp = Some(Time(at(0)));
        let mut observed = seen(&tier, vec![node(0, None)], vec![volume(0, true, 0)]);
        assert!(plan(&tier, &observed, at(1)).actions.is_empty());
        observed.graphs = 0;
        assert_eq!(
            plan(&tier, &observed, at(1)).actions,
            [Action::DeleteNode("std-0".into())]
        );
        observed.nodes.clear();
        assert_eq!(
            plan(&tier, &observed, at(1)).actions,
            [Action::RemoveFinalizer],
            "the kept volume outlives it"
        );
    }

    #[test]
    fn counts_and_capacity() {
        let tier = tier(0, 5, 15);
        let mut nodes = vec![node(0, None), node(1, Some(0)), node(2, None)];
        nodes[1].deleting = true;
        nodes[2].phase = NodePhase::Lost;
        assert_eq!(
            counts(&tier, &seen(&tier, nodes.clone(), vec![]), at(0)),
            NodeCounts {
                total: 3,
                ready: 1,
                starting: 1,
                draining: 1,
                up_to_date: 2,
                replacing: 0
            }
        );
        assert_eq!(
            capacity(&tier, &nodes),
            TierCapacity {
                used_databases: 2,
                databases: 2,
                max_databases: 10
            }
        );
    }

    proptest! {
        /// Acting on the plan ends with the minimum of nodes, or more only where they hold graphs.
        #[test]
        fn a_tier_settles(min in 0u32..3, extra in 0u32..3, empty in proptest::collection::vec(any::<bool>(), 0..5), start in 0i64..200) {
            let tier = tier(min, min + extra, 15);
            let nodes: Vec<Node> = empty.iter().enumerate().map(|(n, e)| node(n as u32, e.then_some(0))).collect();
            let volumes = (0..nodes.len() as u32).map(|n| volume(n, nodes[n as usize].graphs > 0, 0)).collect();
            let mut observed = seen(&tier, nodes, volumes);
            let holding = observed.nodes.iter().filter(|n| n.graphs > 0).count();
            let mut now = start;
            for _ in 0..50 {
                let plan = plan(&tier, &observed, at(now));
                prop_assert_eq!(&plan, &super::plan(&tier, &observed, at(now)));
                match plan.actions.first() {
                    Some(Action::StartNode(new)) => {
                        observed.nodes.push(Node { name: new.node.clone(), volume: Some(new.volume.clone()), ..node(0, Some(now)) });
                        observed.volumes.push(Volume { name: new.volume.clone(), ..volume(0, false, now) });
                    }
                    Some(Action::DeleteNode(name)) => {
                        prop_assert!(observed.nodes.iter().any(|n| &n.name == name && n.graphs == 0));
                        observed.nodes.retain(|n| &n.name != name);
                    }
                    Some(Action::DeleteVolume(name)) => {
                        prop_assert!(observed.volumes.iter().any(|v| &v.name == name && !v.holds_data));
                        observed.volumes.retain(|v| &v.name != name);
                    }
                    Some(Action::RemoveFinalizer | Action::Stack(_) | Action::MarkNode(..) | Action::UnmarkNode(_)) => {
                        prop_assert!(false, "it is not being deleted, and has no stack and no templates");
                    }
                    None => match plan.requeue {
                        Some(wait) => now += wait.as_secs() as i64 + 1,
                        None => break,
                    },
                }
                let (nodes, volumes) = (observed.nodes.clone(), observed.volumes.clone());
                observed = seen(&tier, nodes, volumes);
            }
            prop_assert!(plan(&tier, &observed, at(now)).actions.is_empty());
            let wanted = (min as usize).max(holding);
            prop_assert_eq!(observed.nodes.len(), wanted);
            prop_assert_eq!(observed.volumes.len(), wanted);
        }
    }
}
