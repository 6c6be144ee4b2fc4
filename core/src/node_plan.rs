//! The life of a machine: claim its volume, start it, watch its lease, start it again, let it go.
//!
//! ```text
//!  no live machine ──▶ ClaimVolume(epoch+1) ──▶ AdoptEpoch ──▶ Launch ──▶ registered ──▶ lease held
//!        ▲                                                                                 │ died, or expired too long
//!        └──────────────────────────── the machine is certainly dead ◀──── StopInstance ◀──┘
//! ```
//!
//! The epoch is raised only when no machine of the node lives, first in the volume's status (a write that fails when
//! somebody else wrote), then in the node's. A machine is started with a token made of the node's UID and that epoch, so a
//! start that is repeated finds the machine that exists.

use crate::ending::{after, until};
use crate::epoch;
use crate::fleet::effective_lease;
use crate::graph_plan::{annotation_is_true, paused_by};
use crate::lease::{LeaseFacts, Standing};
use crate::plan::{self, Plan, Verdict, sooner};
use graphplane_crds::annotations::DRAIN;
use graphplane_crds::conditions::{self, Says, reasons};
use graphplane_crds::node::{GraphNode, NodePhase};
use graphplane_crds::quantities::Epoch;
use jiff::Timestamp;
use std::time::Duration;

/// What the plan looks at beside the GraphNode itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// Whether its Tier exists.
    pub tier: bool,
    /// Its volume.
    pub volume: VolumeSeen,
    /// What the provider has for it.
    pub instance: Option<Instance>,
    /// The token of a machine that is started under the node's current epoch.
    pub token: String,
    /// Whether its Secret exists.
    pub secret: bool,
    /// Its Lease.
    pub lease: Option<LeaseFacts>,
    /// Graphs and subgraphs that are placed on it.
    pub holds: u32,
    /// No start before this moment: it died too soon after the last one.
    pub hold_until: Option<Timestamp>,
    /// Since when this operator watches leases.
    pub watched_since: Timestamp,
    /// Most nodes are behind on their leases: the fault is the control plane's, not theirs.
    pub fleet_is_quiet: bool,
    /// How this provider's machines behave.
    pub pace: Pace,
}

/// How long things take at a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// An agent that has not registered after this time is started anew.
    pub registration: Duration,
    /// A machine that was asked to stop is stopped by force after this time.
    pub stop: Duration,
}

/// The volume of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeSeen {
    /// The node is a replica: it keeps seeds, which it can fetch again, on a disk that lives as long as its machine.
    NotNeeded,
    /// There is no such GraphVolume.
    Missing,
    /// It exists.
    Present {
        /// Whether the provider has it.
        ready: bool,
        /// Whether it is being deleted.
        deleting: bool,
        /// The GraphNode that it is attached to.
        attached_to: Option<String>,
        /// Epoch of its newest attachment.
        epoch: Option<Epoch>,
    },
}

/// A machine at the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Identity at the provider.
    pub id: String,
    /// The token that it was started with.
    pub token: String,
    /// Whether it lives.
    pub state: InstanceState,
    /// When it was started.
    pub started: Timestamp,
}

/// Whether a machine lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    /// It runs, or will.
    Running,
    /// It was asked to stop.
    Stopping {
        /// When.
        since: Timestamp,
    },
    /// It is certainly dead.
    Dead,
}

/// What can be done for a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the Secret with the key of its agent.
    EnsureSecret,
    /// Attach the volume under a new epoch, in the volume's status.
    ClaimVolume(Epoch),
    /// Take the volume's epoch into the node's status, and forget the former machine.
    AdoptEpoch(Epoch),
    /// Start the machine with a new one-time token.
    Launch,
    /// Ask the machine to stop, or stop it by force.
    StopInstance {
        /// By force.
        force: bool,
    },
    /// Remove what the provider keeps of a machine that is dead.
    ForgetInstance,
    /// Detach the volume, in the volume's status.
    ReleaseVolume,
    /// Delete the Secret and the Lease.
    DeleteCredentials,
    /// Let the object go.
    RemoveFinalizer,
}

/// Plans the next steps for `node`.
pub fn plan(node: &GraphNode, seen: &Observed, now: Timestamp) -> Plan<Action, NodePhase> {
    if node.metadata.deletion_timestamp.is_some() {
        return ending(node, seen, now);
    }
    if let Some(by) = paused_by(&node.metadata, false) {
        let phase = node.status.as_ref().and_then(|s| s.phase).unwrap_or_default();
        return Plan {
            actions: vec![],
            says: vec![plan::paused(Some(by))],
            phase,
            requeue: None,
        };
    }
    let mut plan = living(node, seen, now);
    plan.says.extend([plan::paused(None), plan::not_deleting()]);
    plan
}

fn waits(
    reason: &'static str,
    message: impl Into<String>,
    phase: NodePhase,
    actions: Vec<Action>,
) -> Plan<Action, NodePhase> {
    let message = message.into();
    let mut says = Verdict::Progressing(reason, message.clone()).says();
    says.push(Says::no(conditions::REGISTERED, reasons::WAITING_FOR_REGISTRATION, ""));
    says.push(Says::no(conditions::LEASE_HELD, reason, message));
    Plan {
        actions,
        says,
        phase,
        requeue: None,
    }
}

fn living(node: &GraphNode, seen: &Observed, now: Timestamp) -> Plan<Action, NodePhase> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let (mut plan, volume) = match &seen.volume {
        VolumeSeen::NotNeeded => {
            // Its own status is where its epoch is raised.
            let epoch = node.status.as_ref().and_then(|s| s.epoch);
            return machine(node, seen, true, epoch, now);
        }
        VolumeSeen::Missing => {
            let message = format!(
                "GraphVolume {} does not exist",
                node.spec.volume.as_deref().unwrap_or_default()
            );
            (
                waits(reasons::CREATING, &message, NodePhase::Pending, vec![]),
                Says::no(conditions::VOLUME_READY, reasons::CREATING, message),
            )
        }
        VolumeSeen::Present { deleting: true, .. } => {
            let message = "its volume is being deleted";
            (
                waits(reasons::DELETING, message, NodePhase::Pending, vec![]),
                Says::no(conditions::VOLUME_READY, reasons::DELETING, message),
            )
        }
        VolumeSeen::Present { ready: false, .. } => {
            let message = "waits for its volume";
            (
                waits(reasons::CREATING, message, NodePhase::Pending, vec![]),
                Says::no(conditions::VOLUME_READY, reasons::CREATING, message),
            )
        }
        VolumeSeen::Present {
            attached_to: Some(other),
            ..
        } if other != name => {
            let message = format!("its volume is attached to node {other}");
            (
                waits(reasons::ATTACHED, &message, NodePhase::Pending, vec![]),
                Says::no(conditions::VOLUME_READY, reasons::ATTACHED, message),
            )
        }
        VolumeSeen::Present { attached_to, epoch, .. } => {
            let attached = attached_to.is_some();
            let says = match attached {
                true => Says::yes(conditions::VOLUME_READY, reasons::ATTACHED, ""),
                false => Says::no(conditions::VOLUME_READY, reasons::DETACHED, ""),
            };
            (machine(node, seen, attached, *epoch, now), says)
        }
    };
    plan.says.push(volume);
    plan
}

/// What to do about the machine, when the volume is there and nobody else's, or none is needed.
fn machine(
    node: &GraphNode,
    seen: &Observed,
    attached: bool,
    volume: Option<Epoch>,
    now: Timestamp,
) -> Plan<Action, NodePhase> {
    let status = node.status.clone().unwrap_or_default();
    let live = seen.instance.as_ref().filter(|i| i.state != InstanceState::Dead);
    if let Some(instance) = live {
        if let InstanceState::Stopping { since } = instance.state {
            return stopping(seen, since, now, NodePhase::Lost);
        }
        if instance.token == seen.token && status.epoch.is_some() {
            return running(node, seen, instance, now);
        }
        // A machine of another epoch holds the volume. Nothing else may start before it is gone.
        let message = "a machine of an older epoch is stopped first";
        return waits(
            reasons::RESTARTING,
            message,
            NodePhase::Starting,
            vec![Action::StopInstance { force: true }],
        );
    }
    let newer = volume.filter(|v| attached && Some(*v) > status.epoch);
    if let Some(newer) = newer {
        let actions = vec![Action::AdoptEpoch(newer), Action::Launch];
        return waits(
            reasons::NODE_STARTING,
            format!("starts under epoch {newer}"),
            NodePhase::Starting,
            actions,
        );
    }
    let mut first = if seen.secret {
        vec![]
    } else {
        vec![Action::EnsureSecret]
    };
    // The epoch was used by a machine that is dead now: we noted it, the provider knows it, or its agent registered.
    let registered = status
        .registration
        .as_ref()
        .is_some_and(|r| Some(r.epoch) == status.epoch);
    let known = seen.instance.as_ref().is_some_and(|i| i.token == seen.token);
    let used = status.provider_id.is_some() || known || registered;
    if status.epoch.is_some() && attached && volume == status.epoch && !used {
        first.push(Action::Launch);
        return waits(
            reasons::NODE_STARTING,
            "the machine is started",
            NodePhase::Starting,
            first,
        );
    }
    if let Some(hold) = seen.hold_until.filter(|hold| *hold > now) {
        let message = "its agent ended soon after it was started; it is started again in a while, see its log";
        let mut plan = waits(reasons::RESTARTING, message, NodePhase::Lost, vec![]);
        plan.requeue = Some(until(hold, now));
        return plan;
    }
    let next = epoch::next([volume, status.epoch]);
    if seen.volume != VolumeSeen::NotNeeded {
        first.push(Action::ClaimVolume(next));
    }
    first.extend([Action::AdoptEpoch(next), Action::Launch]);
    let (reason, phase) = match used {
        true => (reasons::RESTARTING, NodePhase::Lost),
        false => (reasons::NODE_STARTING, NodePhase::Starting),
    };
    waits(reason, format!("takes epoch {next} and starts"), phase, first)
}

fn stopping(seen: &Observed, since: Timestamp, now: Timestamp, phase: NodePhase) -> Plan<Action, NodePhase> {
    let force_at = after(since, seen.pace.stop);
    let actions = if now >= force_at {
        vec![Action::StopInstance { force: true }]
    } else {
        vec![]
    };
    let mut plan = waits(reasons::RESTARTING, "its machine is stopping", phase, actions);
    plan.requeue = Some(until(force_at, now).max(Duration::from_millis(100)));
    plan
}

fn running(node: &GraphNode, seen: &Observed, instance: &Instance, now: Timestamp) -> Plan<Action, NodePhase> {
    let Some(lease) = effective_lease(node, seen.lease.as_ref()) else {
        let give_up = after(instance.started.max(seen.watched_since), seen.pace.registration);
        if now >= give_up {
            let message = format!(
                "its agent has not registered within {} s and is started anew, see its log",
                seen.pace.registration.as_secs()
            );
            return waits(
                reasons::RESTARTING,
                message,
                NodePhase::Lost,
                vec![Action::StopInstance { force: false }],
            );
        }
        let message = "waits for its agent to register";
        let mut plan = waits(reasons::WAITING_FOR_REGISTRATION, message, NodePhase::Starting, vec![]);
        plan.requeue = Some(until(give_up, now));
        return plan;
    };
    let registered = Says::yes(conditions::REGISTERED, reasons::READY, "");
    if lease.standing(now) != Standing::Expired {
        let drains = annotation_is_true(&node.metadata, DRAIN);
        let phase = if drains { NodePhase::Draining } else { NodePhase::Ready };
        let message = match (seen.tier, drains) {
            (false, _) => "its Tier does not exist",
            (_, true) => "nothing new is placed on it; this version does not move graphs away",
            _ => "",
        };
        let mut says = Verdict::Ready(message.to_owned()).says();
        says.extend([
            registered,
            Says::yes(conditions::LEASE_HELD, reasons::LEASE_RENEWED, ""),
        ]);
        return Plan {
            actions: vec![],
            says,
            phase,
            requeue: lease.changes_in(now),
        };
    }
    // The machine lives and does not renew. The agent may be stuck, or have lost us.
    let replace_at = lease.replace_at(seen.watched_since);
    let (actions, message, requeue) = if seen.fleet_is_quiet {
        (
            vec![],
            "its lease is over, and so are most others: waits for them to come back",
            Some(Duration::from_secs(5)),
        )
    } else if now >= replace_at {
        (
            vec![Action::StopInstance { force: false }],
            "its lease is over; its agent is started anew",
            None,
        )
    } else {
        (
            vec![],
            "its lease is over; waits for its agent to come back",
            Some(until(replace_at, now)),
        )
    };
    let mut says = Verdict::Progressing(reasons::LEASE_EXPIRED, message.to_owned()).says();
    says.extend([
        registered,
        Says::no(conditions::LEASE_HELD, reasons::LEASE_EXPIRED, message),
    ]);
    Plan {
        actions,
        says,
        phase: NodePhase::Lost,
        requeue,
    }
}

fn ending(node: &GraphNode, seen: &Observed, now: Timestamp) -> Plan<Action, NodePhase> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let paused = paused_by(&node.metadata, false);
    let protected = annotation_is_true(&node.metadata, graphplane_crds::annotations::DELETION_PROTECTION);
    let mut requeue = None;
    let mut actions = vec![];
    let (reason, message) = if protected {
        (
            reasons::DELETION_PROTECTED,
            "annotation graphplane.dev/deletion-protection is set: remove it to delete".to_owned(),
        )
    } else if let Some(by) = paused {
        (reasons::PAUSED, format!("{by} is set"))
    } else if seen.holds > 0 {
        (
            reasons::WAITING_FOR_DEPENDENTS,
            format!("{} graphs and subgraphs are on it: delete them first", seen.holds),
        )
    } else {
        match seen.instance.as_ref().map(|i| i.state) {
            Some(InstanceState::Running) => actions.push(Action::StopInstance { force: false }),
            Some(InstanceState::Stopping { since }) => {
                let stop = stopping(seen, since, now, NodePhase::Terminating);
                requeue = sooner(requeue, stop.requeue);
                actions.extend(stop.actions);
            }
            Some(InstanceState::Dead) => actions.push(Action::ForgetInstance),
            None => {}
        }
        if seen.instance.as_ref().is_none_or(|i| i.state == InstanceState::Dead) {
            if matches!(&seen.volume, VolumeSeen::Present { attached_to: Some(to), .. } if to == name) {
                actions.push(Action::ReleaseVolume);
            }
            if seen.secret || seen.lease.is_some() {
                actions.push(Action::DeleteCredentials);
            }
            actions.push(Action::RemoveFinalizer);
        }
        (reasons::DELETING, "its machine is stopped".to_owned())
    };
    let mut says = vec![plan::deleting(reason, message.clone()), plan::paused(paused)];
    let phase = if protected || paused.is_some() || seen.holds > 0 {
        node.status.as_ref().and_then(|s| s.phase).unwrap_or_default()
    } else {
        says.extend(Verdict::Off(reasons::DELETING, message).says());
        NodePhase::Terminating
    };
    // A node that waits for its graphs keeps its machine: it has to answer until they are gone.
    if actions.is_empty() && requeue.is_none() && !protected && paused.is_none() {
        let alive = living(node, seen, now);
        actions = alive.actions;
        requeue = alive.requeue;
    }
    Plan {
        actions,
        says,
        phase,
        requeue,
    }
}

#[cfg(test)]
#[path = "node_plan_tests.rs"]
mod tests;
