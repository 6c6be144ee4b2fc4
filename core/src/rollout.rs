//! Which machines of a tier are replaced now by ones that are started from what the tier says today, and why not the
//! others.
//!
//! ```text
//!  behind ──▶ marked with the epoch of its machine ──▶ stopped, started under a higher epoch ──▶ serves ──▶ mark removed
//! ```
//!
//! The mark on the node is all that is remembered. It names the epoch of the machine that has to go, so it never applies to
//! the next one. A node is marked only while the strictest budget in force has room for one more that does not serve,
//! whatever it is that the others do not serve for. The first `canary` nodes have to serve again before others follow, and
//! nothing more is marked when as many replaced nodes failed as `failureThreshold` says.

use crate::cron::{CronError, Schedule};
use crate::ending::{after, until};
use crate::plan::sooner;
use graphplane_crds::quantities::Epoch;
use graphplane_crds::tier::{Budget, DisruptionReason, Rollout, TierSpec};
use jiff::Timestamp;
use std::cmp::Ordering;
use std::time::Duration;

/// How [`template`] is computed. What was computed in another way is not compared, so that a new way replaces no fleet.
const FORM: &str = "1";

/// A node that is busy is looked at again after this time.
const BUSY: Duration = Duration::from_secs(30);

/// What a machine is started from, in one word that is written on the machine.
pub fn template(parts: &[&str]) -> String {
    format!("{FORM}:{}", parts.join(":"))
}

/// What machines of a tier should be today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// What they are started from; `None` from a provider that has nothing such.
    pub template: Option<&'a str>,
    /// Their types; empty where any will do.
    pub types: &'a [String],
}

/// Whether a machine is as its tier says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Age {
    /// It is.
    Current,
    /// It is not: why.
    Behind(String),
    /// It does not say what it was started from, or says so in another form.
    Unknown,
}

impl<'a> Wanted<'a> {
    /// What a tier says, with what its machines are started from.
    pub fn of(tier: &'a TierSpec, template: Option<&'a str>) -> Self {
        Self {
            template,
            types: &tier.instance.types,
        }
    }

    /// Compares a machine: what it was started from, and its type.
    pub fn compare(&self, template: Option<&str>, type_: Option<&str>) -> Age {
        if let Some(type_) = type_
            && !self.types.is_empty()
            && !self.types.iter().any(|t| t == type_)
        {
            return Age::Behind(format!("its type {type_} is none of {}", self.types.join(", ")));
        }
        let form = |text: &str| text.split_once(':').map(|(form, _)| form.to_owned());
        match (template, self.template) {
            (_, None) => Age::Current,
            (Some(has), Some(wants)) if has == wants => Age::Current,
            (Some(has), Some(wants)) if form(has) == form(wants) => {
                Age::Behind(format!("its machine was started from {has}, its tier has {wants}"))
            }
            _ => Age::Unknown,
        }
    }
}

/// The machine of a node, as far as a rollout looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Epoch of its node.
    pub epoch: Option<Epoch>,
    /// What it was started from.
    pub template: Option<String>,
    /// Its type.
    pub type_: Option<String>,
    /// Whether its agent holds its lease, and it is not about to be taken away by its provider.
    pub serves: bool,
    /// Since when its node is not ready.
    pub down_since: Option<Timestamp>,
    /// The epoch whose machine is to be replaced.
    pub marked: Option<Epoch>,
    /// Why somebody wants it left alone.
    pub kept: Option<String>,
    /// Why it is not replaced at this moment.
    pub busy: Option<String>,
}

/// A node of the tier.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Its name.
    pub name: &'a str,
    /// Graphs on it.
    pub graphs: u32,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Its machine.
    pub machine: &'a Machine,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Nodes to mark, with the epoch of the machine that has to go.
    pub mark: Vec<(String, Epoch)>,
    /// Nodes whose mark is to be removed.
    pub unmark: Vec<String>,
    /// How it stands.
    pub state: State,
    /// Nodes whose machine is as the tier says.
    pub current: u32,
    /// Nodes whose machine is being replaced, without those to mark.
    pub replacing: u32,
    /// Look again after this time at the latest.
    pub requeue: Option<Duration>,
}

/// How a rollout stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// No machine is behind. Some may be unknown: a message about them.
    Done(String),
    /// Machines are being replaced.
    Replacing(String),
    /// Machines are behind and may not be replaced now: why.
    Waiting(String),
    /// Too many of those that were replaced failed.
    Stopped(String),
    /// A budget cannot be read.
    Invalid(String),
}

/// How many nodes may be down for a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// So many; `None` is any number.
    pub nodes: Option<u32>,
    /// Why.
    pub why: String,
    /// When that may change by itself.
    pub changes: Option<Timestamp>,
}

/// How long a window lasts, such as `1h30m`.
fn duration(text: &str) -> Option<Duration> {
    let (hours, rest) = text.split_once('h').unwrap_or(("0", text));
    let minutes = match rest {
        "" => "0",
        rest => rest.strip_suffix('m')?,
    };
    let (hours, minutes) = (hours.parse::<u64>().ok()?, minutes.parse::<u64>().ok()?);
    Some(Duration::from_secs(
        hours.checked_mul(3600)?.checked_add(minutes.checked_mul(60)?)?,
    ))
}

/// Whether a budget is in force, and until or from when.
fn window(budget: &Budget, now: Timestamp) -> Result<(bool, Option<Timestamp>), String> {
    let Some(text) = &budget.schedule else {
        return Ok((true, None));
    };
    let invalid = |why: String| format!("spec.rollout.budgets: {why}; nothing is replaced until that is mended");
    let schedule: Schedule = text.parse().map_err(|e: CronError| invalid(e.to_string()))?;
    let lasts = budget.duration.as_deref().unwrap_or_default();
    let lasts = duration(lasts).ok_or_else(|| invalid(format!("{lasts:?} is no duration such as 1h30m")))?;
    match schedule.last(now).map(|opened| after(opened, lasts)) {
        Some(closes) if now < closes => Ok((true, Some(closes))),
        _ => Ok((false, schedule.next(now))),
    }
}

/// What the budgets allow at `now` for a reason, of `total` nodes: the strictest in force, and none while all are shut.
///
/// A budget without reasons is for all of them but [`DisruptionReason::Empty`]: a node without graphs takes nothing from
/// anybody. Without a budget for it a node is replaced alone, and any number of empty ones is removed.
///
/// # Errors
/// A budget that cannot be read, in words.
pub fn allowance(
    budgets: &[Budget],
    reason: DisruptionReason,
    total: u32,
    now: Timestamp,
) -> Result<Allowance, String> {
    let empty = reason == DisruptionReason::Empty;
    let mut of_reason = budgets
        .iter()
        .filter(|b| b.reasons.contains(&reason) || (b.reasons.is_empty() && !empty))
        .peekable();
    if of_reason.peek().is_none() {
        return Ok(Allowance {
            nodes: (!empty).then_some(1),
            why: "nodes are replaced one at a time, as no budget says otherwise".to_owned(),
            changes: None,
        });
    }
    let (mut strictest, mut opens, mut changes) = (None::<(u32, &Budget)>, None, None);
    let earlier = |a: Option<Timestamp>, b: Option<Timestamp>| a.into_iter().chain(b).min();
    for budget in of_reason {
        let (in_force, turns) = window(budget, now)?;
        changes = earlier(changes, turns);
        if !in_force {
            opens = earlier(opens, turns);
            continue;
        }
        let nodes = budget.nodes.of(total);
        if strictest.is_none_or(|(least, _)| nodes < least) {
            strictest = Some((nodes, budget));
        }
    }
    let (nodes, why) = match (strictest, opens) {
        (Some((nodes, budget)), _) => {
            let why = format!(
                "a budget in force lets {nodes} nodes be down at once ({})",
                budget.nodes
            );
            (nodes, why)
        }
        (None, Some(opens)) => (0, format!("no budget is in force, the next window opens at {opens}")),
        (None, None) => (0, "no budget is ever in force".to_owned()),
    };
    Ok(Allowance {
        nodes: Some(nodes),
        why,
        changes,
    })
}

/// What a member is to the rollout.
struct Seen<'a> {
    of: Member<'a>,
    age: Age,
    /// Its mark is not done with.
    under_way: bool,
    /// Its mark is.
    over: bool,
}

impl<'a> Seen<'a> {
    fn new(of: Member<'a>, wanted: &Wanted<'_>) -> Self {
        let machine = of.machine;
        let age = wanted.compare(machine.template.as_deref(), machine.type_.as_deref());
        let over = machine
            .marked
            .is_some_and(|marked| match machine.epoch.cmp(&Some(marked)) {
                // Of nothing that ever was.
                Ordering::Less => true,
                // Not begun, and no longer wanted.
                Ordering::Equal => machine.serves && (machine.kept.is_some() || !matches!(age, Age::Behind(_))),
                // Before it is noted what the next one was started from, that one proves nothing.
                Ordering::Greater => machine.serves && (machine.template.is_some() || wanted.template.is_none()),
            });
        Self {
            under_way: machine.marked.is_some() && !over && !of.deleting,
            over,
            age,
            of,
        }
    }

    fn is_current(&self) -> bool {
        self.age == Age::Current && !self.of.deleting
    }

    fn is_behind(&self) -> bool {
        matches!(self.age, Age::Behind(_)) && !self.of.deleting
    }

    fn is_down(&self) -> bool {
        self.of.deleting || !self.of.machine.serves || self.under_way
    }

    /// Whether it tells something of today's template: its machine is, or is going to be, started from that.
    fn is_replaced(&self) -> bool {
        self.under_way || (self.is_current() && self.of.machine.template.is_some())
    }

    /// From when on it counts as failed, if nothing changes.
    fn fails_at(&self, patience: Duration) -> Option<Timestamp> {
        let down = self.is_replaced() && !self.of.machine.serves;
        self.of
            .machine
            .down_since
            .filter(|_| down)
            .map(|since| after(since, patience))
    }

    /// Why it is not replaced, apart from its tier's rules.
    fn held(&self) -> Option<String> {
        let machine = self.of.machine;
        let why = machine.kept.as_ref().or(machine.busy.as_ref())?;
        Some(format!("{} {why}", self.of.name))
    }
}

/// Decides which nodes are marked now. A node whose machine was to serve again and does not for as long as `patience` has
/// failed.
pub fn decide(
    rollout: &Rollout,
    wanted: &Wanted<'_>,
    members: &[Member<'_>],
    patience: Duration,
    now: Timestamp,
) -> Decision {
    let seen: Vec<Seen<'_>> = members.iter().map(|m| Seen::new(*m, wanted)).collect();
    let count = |f: &dyn Fn(&&Seen<'_>) -> bool| seen.iter().filter(f).count() as u32;
    let total = count(&|_| true);
    let (behind, down) = (count(&|s| s.is_behind()), count(&|s| s.is_down()));
    let replacing = count(&|s| s.under_way);
    let failing: Vec<(&str, Timestamp)> = seen
        .iter()
        .filter_map(|s| Some((s.of.name, s.fails_at(patience)?)))
        .collect();
    let mut decision = Decision {
        mark: vec![],
        unmark: seen.iter().filter(|s| s.over).map(|s| s.of.name.to_owned()).collect(),
        state: State::Done(String::new()),
        current: count(&|s| s.is_current()),
        replacing,
        requeue: None,
    };
    if behind == 0 && replacing == 0 {
        let unknown = count(&|s| s.age == Age::Unknown && !s.of.deleting);
        if unknown > 0 {
            let message = format!("what the machines of {unknown} nodes were started from is not known");
            decision.state = State::Done(message);
        }
        return decision;
    }
    let later = failing.iter().map(|(_, at)| *at).filter(|at| *at > now).min();
    decision.requeue = later.map(|at| until(at, now));
    let failed: Vec<&str> = failing
        .iter()
        .filter(|(_, at)| *at <= now)
        .map(|(name, _)| *name)
        .collect();
    let replaced = count(&|s| s.is_replaced());
    if !failed.is_empty() && failed.len() as u32 >= rollout.failure_threshold.of(replaced).max(1) {
        decision.state = State::Stopped(format!(
            "{} of {replaced} replaced nodes do not serve ({}): nothing more is replaced until they do, see their \
             conditions, or change the Tier",
            failed.len(),
            failed.join(", ")
        ));
        return decision;
    }
    let allowance = match allowance(&rollout.budgets, DisruptionReason::Drifted, total, now) {
        Ok(allowance) => allowance,
        Err(why) => {
            decision.state = State::Invalid(why);
            return decision;
        }
    };
    decision.requeue = sooner(decision.requeue, allowance.changes.map(|at| until(at, now)));
    let budget = allowance.nodes.unwrap_or(total).saturating_sub(down);
    let canary = rollout.canary.min(total);
    let proved = count(&|s| s.is_current() && !s.is_down());
    let first = match proved < canary {
        true => canary.saturating_sub(count(&|s| s.under_way || s.is_current())),
        false => u32::MAX,
    };
    let mut left: Vec<&Seen<'_>> = seen
        .iter()
        .filter(|s| s.is_behind() && s.of.machine.marked.is_none() && s.of.machine.serves)
        .collect();
    // What goes first is what hurts least if it fails.
    left.sort_by_key(|s| (s.of.graphs, s.of.name.len(), s.of.name));
    let (held, ready): (Vec<_>, Vec<_>) = left.into_iter().partition(|s| s.held().is_some());
    let go = ready.iter().take(budget.min(first) as usize);
    decision.mark = go
        .filter_map(|s| Some((s.of.name.to_owned(), s.of.machine.epoch?)))
        .collect();
    if held.iter().any(|s| s.of.machine.kept.is_none()) {
        decision.requeue = sooner(decision.requeue, Some(BUSY));
    }
    let why = if ready.is_empty() {
        let held: Vec<String> = held.iter().filter_map(|s| s.held()).collect();
        held.join("; ")
    } else if budget == 0 {
        format!("{}, and {down} are down", allowance.why)
    } else if first == 0 {
        format!("{canary} nodes go first and have to serve again, {proved} do")
    } else {
        allowance.why
    };
    let why = if why.is_empty() { why } else { format!(": {why}") };
    decision.state = match decision.mark.is_empty() && replacing == 0 {
        true => State::Waiting(format!(
            "the machines of {behind} of {total} nodes are out of date{why}"
        )),
        false => {
            let at_once = replacing + decision.mark.len() as u32;
            State::Replacing(format!(
                "{at_once} nodes are being replaced, {behind} of {total} are out of date{why}"
            ))
        }
    };
    decision
}

#[cfg(test)]
#[path = "rollout_tests.rs"]
mod tests;
