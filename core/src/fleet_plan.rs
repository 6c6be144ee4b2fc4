//! A read fleet that its provider keeps as a group of machines.
//!
//! ```text
//!  Begin ─▶ StoreKey ─▶ stack: Propose, Execute ─▶ group ─▶ Resize     when the spec's figures change
//!  (status)  (SSM)                                    └────▶ Replace   when the machines' template changes
//!  the Replica goes: stack: Delete ─▶ DeleteKey ─▶ seeds
//! ```
//!
//! Autoscaling changes the number of machines between the bounds, so that the number at the provider says nothing about the
//! spec: the status keeps which number was set last, and another one is set only when the spec's changes. Seeds are not
//! looked at here at all; machines take them up while they run. They are replaced only when their template has another
//! version, once for each version: a replacement that failed is not begun again by itself.

use crate::plan::Verdict;
use crate::plan::sooner;
use crate::replica_plan::budget_of;
use crate::stack_plan::{self, Next, StackFacts, Step, Wanted};
use graphplane_crds::replica::{FleetReplacement, FleetSizeSet, Replica, ReplicaFleet};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// Output of a fleet's stack: the name of its group.
pub const GROUP: &str = "AutoScalingGroup";
/// Output of a fleet's stack: the URL that serves reads.
pub const ENDPOINT: &str = "Endpoint";
/// Output of a fleet's stack: the version of its machines' template.
pub const VERSION: &str = "LaunchTemplateVersion";
/// How often a group that is on its way to what it should be is looked at.
pub const LOOK: Duration = Duration::from_secs(15);

/// How large a group is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FleetSize {
    /// Never fewer.
    pub min: u32,
    /// Never more.
    pub max: u32,
    /// So many now.
    pub desired: u32,
}

/// A group at the provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetFacts {
    /// Its size, as it was last set or as autoscaling set it.
    pub size: FleetSize,
    /// Its machines.
    pub members: Vec<FleetMember>,
    /// A replacement of its machines that runs, or the newest one that ended; not known while all machines are of the
    /// version that the group starts.
    pub refresh: Option<FleetRefresh>,
    /// Its tags, without prefix.
    pub tags: BTreeMap<String, String>,
}

/// A machine of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetMember {
    /// Identity at the provider.
    pub id: String,
    /// Zone.
    pub zone: String,
    /// Instance type.
    pub instance_type: String,
    /// Version of the template that it was started from, where the provider says so.
    pub template_version: Option<String>,
    /// How far it is.
    pub state: MemberState,
    /// Whether the provider holds it to be healthy.
    pub healthy: bool,
    /// Address of its agent, where the provider knows it.
    pub address: Option<String>,
}

/// How far a machine of a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// It is being started.
    Starting,
    /// It is in service.
    InService,
    /// It is on its way out.
    Leaving,
}

/// A replacement of a group's machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetRefresh {
    /// Identity at the provider.
    pub id: String,
    /// What the provider says of it, such as `InProgress` or `Successful`.
    pub status: String,
    /// Why, where it says so.
    pub reason: Option<String>,
    /// Percent of the machines that are replaced.
    pub percent: u8,
}

impl FleetRefresh {
    /// Whether it goes on.
    pub fn runs(&self) -> bool {
        const ENDED: [&str; 5] = [
            "Successful",
            "Failed",
            "Cancelled",
            "RollbackFailed",
            "RollbackSuccessful",
        ];
        !ENDED.contains(&self.status.as_str())
    }
}

/// A change of a group's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resize {
    /// Never fewer.
    pub min: u32,
    /// Never more.
    pub max: u32,
    /// So many now; `None`: as many as there are, within the bounds.
    pub desired: Option<u32>,
}

/// What the plan looks at beside the Replica itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The stack that it should have.
    pub wanted: Wanted,
    /// The stack that it has.
    pub stack: stack_plan::Seen,
    /// SHA-256 of the key of its machines, if there is one.
    pub key_sha256: Option<String>,
    /// The group of the stack: its name, and what the provider says of it.
    pub group: Option<(String, FleetFacts)>,
    /// What this pass has made of the group's size; a listing may not show it yet.
    pub resized: Option<Resize>,
    /// Whether this pass has asked for a replacement of the machines.
    pub replaced: bool,
}

impl Observed {
    fn output(&self, name: &str) -> Option<&String> {
        self.stack.stack.as_ref()?.outputs.get(name)
    }

    /// The URL that serves reads. A stack whose group is not ours has none for us.
    pub fn endpoint(&self) -> Option<&String> {
        self.group.as_ref().and_then(|_| self.output(ENDPOINT))
    }

    /// How many machines the group should have now.
    pub fn desired(&self) -> Option<u32> {
        self.group.as_ref().map(|(_, facts)| facts.size.desired)
    }

    /// Whether nothing is under way that nobody would tell of.
    pub fn is_settled(&self) -> bool {
        let busy = self.stack.stack.as_ref().is_some_and(StackFacts::is_busy);
        let whole = |facts: &FleetFacts| {
            let serving = |m: &FleetMember| m.state == MemberState::InService && m.healthy;
            facts.members.len() as u64 == u64::from(facts.size.desired)
                && facts.members.iter().all(serving)
                && !facts.refresh.as_ref().is_some_and(FleetRefresh::runs)
        };
        !busy && self.group.as_ref().is_none_or(|(_, facts)| whole(facts))
    }
}

/// What can be done for a fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write down that it is about to be made.
    Begin,
    /// Make the key of its machines if there is none, and store it where they read it.
    StoreKey,
    /// A step of its stack.
    Stack(Step),
    /// Change the size of its group.
    Resize {
        /// The group.
        group: String,
        /// To what.
        to: Resize,
    },
    /// Replace its machines.
    Replace {
        /// The group.
        group: String,
        /// The version of their template by which they are replaced.
        version: String,
        /// So many percent of them stay in service.
        min_healthy_percent: u8,
    },
    /// Remove the key of its machines.
    DeleteKey,
}

/// How the machines stand to their template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Machines {
    /// All are of its version, or as good as known to be.
    Current,
    /// They are being replaced, so many percent are done.
    Replacing(u8),
    /// A replacement ended, and not all are of its version: why.
    Failed(String),
    /// They have to be replaced.
    Behind(Action),
}

/// What is next for a fleet that is wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// What to do.
    pub action: Option<Action>,
    /// How its stack stands.
    pub stack: Next,
    /// How its machines stand.
    pub machines: Machines,
    /// Look again after this time at the latest.
    pub requeue: Option<Duration>,
}

/// Plans the next step for a fleet that is wanted.
pub fn keep(replica: &Replica, seen: &Observed, now: Timestamp) -> Kept {
    let fleet = noted(replica);
    let stack = stack_plan::keep(&seen.wanted, &seen.stack, now);
    let machines = machines(replica, seen, &stack);
    let key = seen.key_sha256.is_some() && fleet.and_then(|f| f.key_sha256.as_ref()) == seen.key_sha256.as_ref();
    let action = if fleet.is_none() {
        Some(Action::Begin)
    } else if !key {
        Some(Action::StoreKey)
    } else if let Some((group, to)) = resize(replica, seen) {
        Some(Action::Resize { group, to })
    } else if let Some(step) = stack.step.clone() {
        Some(Action::Stack(step))
    } else if let Machines::Behind(replace) = &machines {
        Some(replace.clone())
    } else {
        None
    };
    let look = (!seen.is_settled()).then_some(LOOK);
    Kept {
        action,
        requeue: sooner(look, stack.requeue),
        stack,
        machines,
    }
}

/// What is left of a fleet that is not wanted any more.
pub struct Leaving {
    /// What to do.
    pub action: Option<Action>,
    /// What is waited for.
    pub message: String,
    /// Look again after this time at the latest.
    pub requeue: Option<Duration>,
}

/// Plans the next step for a fleet that is not wanted any more; `None` when nothing of it is left.
pub fn remove(replica: &Replica, seen: &Observed, now: Timestamp) -> Option<Leaving> {
    if let Some(next) = stack_plan::remove(&seen.wanted, &seen.stack, now) {
        let message = match &next.verdict {
            Verdict::Progressing(_, message) | Verdict::Stalled(_, message) => message.clone(),
            _ => "its stack is removed".to_owned(),
        };
        return Some(Leaving {
            action: next.step.map(Action::Stack),
            message,
            requeue: next.requeue,
        });
    }
    let left = noted(replica).is_some() || seen.key_sha256.is_some();
    left.then(|| Leaving {
        action: Some(Action::DeleteKey),
        message: "the key of its machines is removed".to_owned(),
        requeue: None,
    })
}

/// The size that the status should name as set: the spec's once the group has it.
pub fn size_set(replica: &Replica, seen: &Observed) -> Option<FleetSizeSet> {
    let before = noted(replica).and_then(|f| f.size.clone());
    match &seen.group {
        Some((group, facts)) if desired(replica, group, facts).is_none() => Some(of_spec(replica, group)),
        _ => before,
    }
}

/// What the status names as set once the spec's figures are.
pub fn of_spec(replica: &Replica, group: &str) -> FleetSizeSet {
    FleetSizeSet {
        group: group.to_owned(),
        min: replica.spec.min_replicas,
        max: replica.spec.max_replicas,
        replicas: replica.spec.replicas,
    }
}

fn noted(replica: &Replica) -> Option<&ReplicaFleet> {
    replica.status.as_ref().and_then(|s| s.fleet.as_ref())
}

/// The number of machines that has to be set: the spec's, if it was not since it changed. Without autoscaling nobody else
/// has a say.
fn desired(replica: &Replica, group: &str, facts: &FleetFacts) -> Option<u32> {
    let set = noted(replica).and_then(|f| f.size.as_ref());
    let scales = replica.spec.target_cpu_percent.is_some();
    let done = scales && set.is_some_and(|set| set.group == group && set.replicas == replica.spec.replicas);
    let want = replica.spec.replicas;
    (!done && facts.size.desired != want).then_some(want)
}

fn resize(replica: &Replica, seen: &Observed) -> Option<(String, Resize)> {
    let (group, facts) = seen.group.as_ref()?;
    let to = Resize {
        min: replica.spec.min_replicas,
        max: replica.spec.max_replicas,
        desired: desired(replica, group, facts),
    };
    // Autoscaling leaves the bounds alone.
    let bounded = (facts.size.min, facts.size.max) == (to.min, to.max);
    let done = bounded && to.desired.is_none();
    let asked = seen.resized.is_some_and(|asked| {
        let same = to.desired.is_none() || to.desired == asked.desired;
        same && (asked.min, asked.max) == (to.min, to.max)
    });
    (!done && !asked).then(|| (group.clone(), to))
}

fn machines(replica: &Replica, seen: &Observed, stack: &Next) -> Machines {
    let (Some((group, facts)), Some(version)) = (&seen.group, seen.output(VERSION)) else {
        return Machines::Current;
    };
    if let Some(running) = facts.refresh.as_ref().filter(|refresh| refresh.runs()) {
        return Machines::Replacing(running.percent);
    }
    let stale =
        |m: &&FleetMember| m.state != MemberState::Leaving && m.template_version.as_ref().is_some_and(|v| v != version);
    let stale = facts.members.iter().filter(stale).count();
    // What the outputs of a stack say while it is being changed is not what its machines should be.
    let changing = stack.step.is_some() || seen.stack.stack.as_ref().is_some_and(StackFacts::is_busy);
    if stale == 0 || changing {
        return Machines::Current;
    }
    if seen.replaced {
        return Machines::Replacing(0);
    }
    let begun = noted(replica).and_then(|f| f.replacement.as_ref());
    match begun.filter(|begun| begun.version == *version) {
        None => Machines::Behind(Action::Replace {
            group: group.clone(),
            version: version.clone(),
            min_healthy_percent: min_healthy_percent(replica, facts),
        }),
        Some(FleetReplacement { id, .. }) => match facts.refresh.as_ref().filter(|refresh| refresh.id == *id) {
            // It was begun a moment ago, and is not listed yet.
            None => Machines::Replacing(0),
            Some(ended) => {
                let why = ended.reason.as_deref().unwrap_or("no reason is given");
                Machines::Failed(format!(
                    "the replacement of machines of {group} is {} at {}%, and {stale} have not version {version} of their \
                     template: {why}. It is not begun again by itself: see its activities, then \
                     `aws autoscaling start-instance-refresh --auto-scaling-group-name {group}`",
                    ended.status, ended.percent
                ))
            }
        },
    }
}

/// So many percent of the machines stay in service: rounded up, so that never more are away than the budget allows. At 100
/// the provider replaces one after the other.
fn min_healthy_percent(replica: &Replica, facts: &FleetFacts) -> u8 {
    let total = u64::from(facts.size.desired);
    let away = (budget_of(replica, facts.size.desired) as u64).min(total);
    let percent = ((total - away) * 100).checked_div(total).unwrap_or_default();
    let exact = percent * total == (total - away) * 100;
    u8::try_from(percent + u64::from(!exact)).unwrap_or(100)
}

#[cfg(test)]
#[path = "fleet_plan_tests.rs"]
mod tests;
