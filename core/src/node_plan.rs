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
//!
//! Where disks have to be attached, the epoch is raised only once the disk is free, and the disk is attached to no machine
//! but the one of the newest epoch. While that one lives nothing is ever detached: a listing that is behind may still tell
//! of the machine before it.
//!
//! A machine that is not what its tier says now is stopped when the tier has marked its epoch, and only then (see
//! [`crate::rollout`]); asked to stop, an agent lets requests end and closes its databases. From there on it is the way of
//! every machine that is gone.

use crate::ending::{after, until};
use crate::epoch;
use crate::fleet::effective_lease;
use crate::graph_plan::{annotation_is_true, paused_by};
use crate::lease::{LeaseFacts, Standing};
use crate::plan::{self, Plan, Verdict, sooner};
use crate::rollout::Age;
use graphplane_crds::annotations::{DRAIN, REPLACE};
use graphplane_crds::conditions::{self, Says, reasons};
use graphplane_crds::node::{GraphNode, GraphNodeStatus, NodePhase};
use graphplane_crds::quantities::Epoch;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;

/// What the plan looks at beside the GraphNode itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// Whether its Tier exists.
    pub tier: bool,
    /// What a machine cannot be started without and is not there yet, in words.
    pub missing: Option<String>,
    /// To which machine the volume's disk is attached.
    pub disk: Attachment,
    /// Whether the provider was asked in this pass to detach it.
    pub asked_to_detach: bool,
    /// Whether its machine is what its tier says now.
    pub age: Age,
    /// Whether it may be replaced without need: no other node of its tier is without its machine, or was asked first.
    pub its_turn: bool,
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
    /// How soon to ask again for something that is under way; `None` when the provider tells of its end by itself.
    pub look: Option<Duration>,
    /// For so long a listing may not show what was made.
    pub lag: Duration,
}

/// To which machine a disk is attached, by the machine's [`name`](Instance::name).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// The provider's disks need not be attached.
    NotNeeded,
    /// To none.
    Detached,
    /// It is being attached.
    Attaching(String),
    /// It is attached.
    Attached(String),
    /// It is being detached.
    Detaching(String),
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
    /// What its provider is going to do to it.
    pub notice: Option<Notice>,
    /// What it was started from, as its provider noted it.
    pub template: Option<String>,
}

impl Instance {
    /// What the provider calls it: the last part of its identity.
    pub fn name(&self) -> &str {
        self.id.rsplit('/').next().unwrap_or(&self.id)
    }
}

/// A provider's word that it is going to stop a machine, or take it away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What is going to happen, as the provider calls it.
    pub code: String,
    /// Not before this moment.
    pub not_before: Timestamp,
}

/// Whether a machine lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    /// It is being started: nothing can be attached to it yet.
    Starting,
    /// It runs.
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
    /// Start the machine.
    Launch,
    /// Attach the disk of the volume to the machine.
    AttachDisk {
        /// What the provider calls the machine.
        machine: String,
    },
    /// Detach the disk of the volume from a machine that is gone.
    DetachDisk {
        /// What the provider calls that machine.
        machine: String,
        /// Without waiting for that machine's consent.
        force: bool,
    },
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
    if node.spec.replica.is_none() {
        plan.says.push(up_to_date(&seen.age));
    }
    plan
}

fn up_to_date(age: &Age) -> Says {
    use conditions::UP_TO_DATE;
    match age {
        Age::Current => Says::yes(UP_TO_DATE, reasons::RECONCILED, ""),
        Age::Behind(why) => Says::no(UP_TO_DATE, reasons::OUT_OF_DATE, why),
        Age::Unknown => Says::unknown(
            UP_TO_DATE,
            reasons::NOT_CHECKED,
            "it is not known what its machine was started from",
        ),
    }
}

/// The epoch whose machine the tier has marked.
pub fn marked(node: &GraphNode) -> Option<Epoch> {
    let mark = node.metadata.annotations.as_ref()?.get(REPLACE)?;
    mark.parse().ok().map(Epoch)
}

/// Why its machine is to be replaced now: it is out of date, its tier has marked it, and another one can be started.
fn goes(node: &GraphNode, seen: &Observed) -> Option<String> {
    let epoch = node.status.as_ref().and_then(|s| s.epoch);
    let (Some(marked), Age::Behind(why), None) = (marked(node), &seen.age, &seen.missing) else {
        return None;
    };
    (Some(marked) == epoch).then(|| format!("{why}: its machine is replaced"))
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
            let usable = attached && seen.disk_is_usable();
            let says = match usable {
                true => Says::yes(conditions::VOLUME_READY, reasons::ATTACHED, ""),
                false => Says::no(conditions::VOLUME_READY, reasons::DETACHED, seen.disk.to_string()),
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
            return with_disk(running(node, seen, instance, now), seen, instance);
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
    if let Some(missing) = &seen.missing {
        return waits(reasons::NODE_STARTING, missing, NodePhase::Pending, vec![]);
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
    // A machine that was seen and is not listed may be one that this operator's listings do not show yet: its predecessor
    // started it a moment ago. One that is listed as dead is dead.
    let shown_at = after(seen.watched_since, seen.pace.lag);
    if used && !known && now < shown_at {
        let message = "its machine is not listed; waits for the provider's listings to be complete";
        let mut plan = waits(reasons::RESTARTING, message, NodePhase::Lost, vec![]);
        plan.requeue = sooner(Some(until(shown_at, now)), seen.pace.look);
        return plan;
    }
    if let Some(plan) = disk_in_use(seen, &status, now) {
        return plan;
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

impl Observed {
    /// Whether the machine that runs has the disk, or needs none to be attached.
    fn disk_is_usable(&self) -> bool {
        match (&self.disk, &self.instance) {
            (Attachment::NotNeeded, _) => true,
            (Attachment::Attached(to), Some(instance)) => {
                *to == instance.name() && instance.state != InstanceState::Dead
            }
            _ => false,
        }
    }
}

impl std::fmt::Display for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotNeeded => Ok(()),
            Self::Detached => f.write_str("its disk is attached to no machine"),
            Self::Attaching(to) => write!(f, "its disk is being attached to {to}"),
            Self::Attached(to) => write!(f, "its disk is attached to {to}"),
            Self::Detaching(from) => write!(f, "its disk is being detached from {from}"),
        }
    }
}

/// Gives the machine that runs its disk, unless there is something more important to do.
fn with_disk(mut plan: Plan<Action, NodePhase>, seen: &Observed, instance: &Instance) -> Plan<Action, NodePhase> {
    if seen.volume == VolumeSeen::NotNeeded || seen.disk_is_usable() || !plan.actions.is_empty() {
        return plan;
    }
    plan.requeue = sooner(plan.requeue, seen.pace.look);
    let free = matches!(&seen.disk, Attachment::Detached);
    // Attached to another one: that one is dead, or this is an old listing. Either way nothing but attaching is safe, and
    // the provider refuses it as long as the disk is not free.
    let elsewhere = matches!(&seen.disk, Attachment::Attached(to) if *to != instance.name());
    if instance.state == InstanceState::Running && (free || elsewhere) {
        plan.actions.push(Action::AttachDisk {
            machine: instance.name().to_owned(),
        });
    }
    plan
}

/// Waits for the disk to be free, and helps: no machine lives, so what it is attached to is dead or not ours.
fn disk_in_use(seen: &Observed, status: &GraphNodeStatus, now: Timestamp) -> Option<Plan<Action, NodePhase>> {
    if seen.volume == VolumeSeen::NotNeeded {
        return None;
    }
    let holder = match &seen.disk {
        Attachment::NotNeeded | Attachment::Detached => return None,
        Attachment::Attaching(to) | Attachment::Attached(to) | Attachment::Detaching(to) => to,
    };
    // By force only from what is certainly our own dead machine, and only when it has had the time to let go.
    let dead = seen
        .instance
        .as_ref()
        .is_some_and(|i| i.name() == holder && i.state == InstanceState::Dead);
    let since = conditions::get(&status.conditions, conditions::VOLUME_READY)
        .filter(|c| c.status == "False")
        .map(|c| after(c.last_transition_time.0, seen.pace.stop));
    let force = dead && since.is_some_and(|since| now >= since);
    let asks = force || matches!(seen.disk, Attachment::Attached(_));
    let actions = (asks && !seen.asked_to_detach).then(|| Action::DetachDisk {
        machine: holder.clone(),
        force,
    });
    let message = seen.disk.to_string();
    let mut plan = waits(
        reasons::RESTARTING,
        message,
        NodePhase::Lost,
        actions.into_iter().collect(),
    );
    plan.requeue = seen.pace.look;
    Some(plan)
}

/// The machine is going to be stopped by its provider: it is replaced before that, in its turn or, when there is no time
/// left for turns, at once.
fn leaves(seen: &Observed, notice: &Notice, now: Timestamp) -> (Vec<Action>, String, Option<Duration>) {
    // By then the next machine has to be asked for.
    let needs = seen.pace.stop + seen.pace.registration;
    let at_latest = SignedDuration::try_from(needs)
        .ok()
        .and_then(|needs| notice.not_before.checked_sub(needs).ok())
        .unwrap_or(Timestamp::MIN);
    let message = format!(
        "its provider announces {} not before {}: nothing new is placed on it, and its machine is replaced",
        notice.code, notice.not_before
    );
    if seen.its_turn || now >= at_latest {
        return (vec![Action::StopInstance { force: false }], message, None);
    }
    let requeue = until(at_latest, now);
    (vec![], format!("{message} after others of its tier"), Some(requeue))
}

fn stopping(seen: &Observed, since: Timestamp, now: Timestamp, phase: NodePhase) -> Plan<Action, NodePhase> {
    let force_at = after(since, seen.pace.stop);
    let actions = if now >= force_at {
        vec![Action::StopInstance { force: true }]
    } else {
        vec![]
    };
    let mut plan = waits(reasons::RESTARTING, "its machine is stopping", phase, actions);
    plan.requeue = sooner(
        Some(until(force_at, now).max(Duration::from_millis(100))),
        seen.pace.look,
    );
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
        // It may die before it registers, so it is looked at now and then; agents tell of everything else themselves.
        plan.requeue = sooner(Some(until(give_up, now)), seen.pace.look.map(|look| look * 6));
        return plan;
    };
    let registered = Says::yes(conditions::REGISTERED, reasons::READY, "");
    if lease.standing(now) != Standing::Expired {
        let goes = goes(node, seen);
        let drains = annotation_is_true(&node.metadata, DRAIN) || instance.notice.is_some() || goes.is_some();
        let phase = if drains { NodePhase::Draining } else { NodePhase::Ready };
        let message = match (seen.tier, drains) {
            (false, _) => "its Tier does not exist",
            (_, true) => "nothing new is placed on it; this version does not move graphs away",
            _ => "",
        };
        let (verdict, actions, requeue) = match (goes, &instance.notice) {
            (Some(why), _) => (
                Verdict::ReadyAndProgressing(reasons::REPLACING, why),
                vec![Action::StopInstance { force: false }],
                None,
            ),
            (None, Some(notice)) => {
                let (actions, message, requeue) = leaves(seen, notice, now);
                (
                    Verdict::ReadyAndProgressing(reasons::DRAINING, message),
                    actions,
                    requeue,
                )
            }
            (None, None) => (Verdict::Ready(message.to_owned()), vec![], None),
        };
        let mut says = verdict.says();
        says.extend([
            registered,
            Says::yes(conditions::LEASE_HELD, reasons::LEASE_RENEWED, ""),
        ]);
        return Plan {
            actions,
            says,
            phase,
            requeue: sooner(lease.changes_in(now), requeue),
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

/// Whether the agent has said which databases are on the volume since the last graph went, where the provider cannot look
/// for itself: an empty volume that is thought to hold data would be kept for ever. An agent that does not renew its lease
/// says nothing any more.
fn has_told_what_is_left(node: &GraphNode, seen: &Observed, now: Timestamp) -> bool {
    let runs = |i: &Instance| i.state == InstanceState::Running && i.token == seen.token;
    let lease = effective_lease(node, seen.lease.as_ref()).filter(|l| l.standing(now) != Standing::Expired);
    let (true, Some(lease)) = (seen.instance.as_ref().is_some_and(runs), lease) else {
        return true;
    };
    let empty_since = node.status.as_ref().and_then(|s| s.empty_since.as_ref());
    // The time of the status has whole seconds.
    let told = |since: &Time| lease.renewed > after(since.0, Duration::from_secs(1));
    seen.disk == Attachment::NotNeeded || empty_since.is_some_and(told)
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
    } else if !has_told_what_is_left(node, seen, now) {
        requeue = Some(Duration::from_secs(1));
        let message = "waits for its agent to say what is left on its volume";
        (reasons::DELETING, message.to_owned())
    } else {
        match seen.instance.as_ref().map(|i| i.state) {
            Some(InstanceState::Starting | InstanceState::Running) => {
                actions.push(Action::StopInstance { force: false })
            }
            Some(InstanceState::Stopping { since }) => {
                let stop = stopping(seen, since, now, NodePhase::Terminating);
                requeue = sooner(requeue, stop.requeue);
                actions.extend(stop.actions);
            }
            Some(InstanceState::Dead) => actions.push(Action::ForgetInstance),
            None => {}
        }
        let shown_at = after(seen.watched_since, seen.pace.lag);
        let started = node.status.as_ref().is_some_and(|s| s.epoch.is_some());
        if seen.instance.is_none() && started && now < shown_at {
            // It may only not be listed yet.
            requeue = sooner(Some(until(shown_at, now)), seen.pace.look);
        } else if seen.instance.as_ref().is_none_or(|i| i.state == InstanceState::Dead) {
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
