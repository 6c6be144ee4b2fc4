//! The life of a stack: a group of things that a provider makes, changes and removes together from a template.
//!
//! A stack carries a digest of what it was made from. Where that differs from the digest of what is wanted, a change set is
//! worked out and executed. The change set's name is made from both, so that a pass after a crash finds what the former one
//! asked for; and an execution shows in the stack's status, so that it is not asked for again.
//!
//! ```text
//!  absent ─▶ REVIEW ─▶ CREATE ─▶ complete ─▶ UPDATE ─▶ complete            the words are CloudFormation's
//!               │         │          ▲          │
//!               │         ▼          │          ▼
//!               │   ROLLBACK_COMPLETE │   UPDATE_ROLLBACK_COMPLETE          is as it was: tried again later
//!               │    deleted, anew ──┘   UPDATE_ROLLBACK_FAILED             the way back is tried again later
//! ```

use crate::ending::{after, until};
use crate::plan::Verdict;
use graphplane_crds::conditions::{self, Says, reasons};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// Tag with the digest of what a stack was made from.
pub const DIGEST_TAG: &str = "digest";
/// Tags that say whose a stack is. One that differs in any of them belongs to somebody else.
const OWNER_TAGS: [&str; 3] = ["cluster", "kind", "name"];
/// How soon a stack that is being changed is looked at again.
pub const LOOK: Duration = Duration::from_secs(5);
/// For so long a listing may not show what was asked for.
const SETTLE: Duration = Duration::from_secs(10);
/// What failed is tried again after this time.
pub const RETRY: Duration = Duration::from_secs(300);
/// How often a stack is compared with its template.
const COMPARE: Duration = Duration::from_secs(24 * 3600);

/// A stack at the provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StackFacts {
    /// Identity at the provider.
    pub id: String,
    /// What the provider says of it, in its own words, such as `CREATE_COMPLETE`.
    pub status: String,
    /// Why, where it says so.
    pub reason: Option<String>,
    /// What it has to offer to others.
    pub outputs: BTreeMap<String, String>,
    /// Its tags, without prefix.
    pub tags: BTreeMap<String, String>,
    /// When its newest change was begun, as the provider says.
    pub changed: Option<Timestamp>,
    /// When this process last asked for a change of it.
    pub asked: Option<Timestamp>,
    /// Digest of the newest change that was tried, where the provider tells.
    pub tried: Option<String>,
    /// Whether it is as its template says.
    pub drift: Drift,
}

impl StackFacts {
    /// The digest of what it was made from.
    pub fn digest(&self) -> Option<&str> {
        self.tags.get(DIGEST_TAG).map(String::as_str)
    }

    /// Whether the provider is at work on it.
    pub fn is_busy(&self) -> bool {
        matches!(phase(&self.status), Phase::Busy { .. } | Phase::Deleting)
    }
}

/// Whether a stack is as its template says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    /// Whether it differs; `None`: not known.
    pub differs: Option<bool>,
    /// When the newest comparison was begun.
    pub checked: Option<Timestamp>,
}

/// A change of a stack that was worked out and not yet made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeSet {
    /// Its name; made from the request, so that the same request finds the same change set.
    pub name: String,
    /// Whether it can be executed, or why not.
    pub state: ChangeSetState,
    /// What it would do.
    pub changes: Vec<Change>,
}

/// Whether a change set can be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeSetState {
    /// The provider still works it out, or executes it.
    Pending,
    /// It can be executed.
    Ready,
    /// There is nothing to change.
    Empty,
    /// It cannot be made.
    Failed(String),
}

/// What a change set would do to one thing of a stack, in the provider's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Such as `Add`, `Modify` and `Remove`.
    pub action: String,
    /// Name in the template.
    pub resource: String,
    /// What it is, such as `AWS::IAM::Role`.
    pub type_: String,
    /// Whether a changed thing is made anew: `True`, `False` or `Conditional`; empty where it does not apply.
    pub replacement: String,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ({})", self.action, self.resource, self.type_)
    }
}

/// The stack that is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Digest of template, parameters and tags.
    pub digest: String,
    /// Its tags, without prefix.
    pub tags: BTreeMap<String, String>,
}

/// What the plan looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The stack of that name, whoever's it is.
    pub stack: Option<StackFacts>,
    /// The change set that this pass has asked for.
    pub change_set: Option<ChangeSet>,
    /// Machines that live by it. As long as there is one, it is not deleted.
    pub machines: usize,
}

/// What can be done for a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Work out a change set, or find the one that was worked out.
    Propose,
    /// Execute that change set.
    Execute(String),
    /// Try the way back again that failed.
    ContinueRollback,
    /// Compare it with its template.
    DetectDrift,
    /// Delete it.
    Delete,
}

/// What is next.
#[derive(Clone, Debug, PartialEq)]
pub struct Next {
    /// What to do.
    pub step: Option<Step>,
    /// How it stands. It serves when its outputs can be used.
    pub verdict: Verdict,
    /// Look again after this time at the latest.
    pub requeue: Option<Duration>,
}

impl Next {
    fn only(verdict: Verdict) -> Self {
        Self {
            step: None,
            verdict,
            requeue: None,
        }
    }

    fn wait(verdict: Verdict, requeue: Duration) -> Self {
        Self {
            step: None,
            verdict,
            requeue: Some(requeue),
        }
    }

    fn step(step: Step, verdict: Verdict) -> Self {
        Self {
            step: Some(step),
            verdict,
            requeue: None,
        }
    }
}

/// What a status of CloudFormation means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing is in it but a change set that would make it.
    Review,
    /// It is being changed.
    Busy {
        /// Whether what it had before can be used meanwhile.
        serves: bool,
    },
    /// It is as its digest says.
    Complete,
    /// A change failed, and it is as it was before.
    RolledBack,
    /// A change failed, and so did the way back.
    Stuck,
    /// It was never made. It can only be deleted.
    Dead,
    /// It is being deleted.
    Deleting,
    /// It could not be deleted. It can only be deleted.
    Undeleted,
    /// Somebody has to look at it.
    Odd,
}

fn phase(status: &str) -> Phase {
    match status {
        "REVIEW_IN_PROGRESS" => Phase::Review,
        "CREATE_COMPLETE" | "UPDATE_COMPLETE" | "IMPORT_COMPLETE" | "IMPORT_ROLLBACK_COMPLETE" => Phase::Complete,
        "UPDATE_ROLLBACK_COMPLETE" => Phase::RolledBack,
        "UPDATE_ROLLBACK_FAILED" => Phase::Stuck,
        "CREATE_FAILED" | "ROLLBACK_COMPLETE" | "ROLLBACK_FAILED" => Phase::Dead,
        "DELETE_IN_PROGRESS" => Phase::Deleting,
        "DELETE_FAILED" => Phase::Undeleted,
        "CREATE_IN_PROGRESS" | "ROLLBACK_IN_PROGRESS" => Phase::Busy { serves: false },
        // Updates, imports, and what may be invented.
        other if other.ends_with("_IN_PROGRESS") => Phase::Busy { serves: true },
        _ => Phase::Odd,
    }
}

/// Whether a stack is the one that is wanted, or was before its owner changed.
fn is_ours(want: &Wanted, stack: &StackFacts) -> bool {
    // A stack that was never made may not show its tags yet, and has nothing in it.
    if phase(&stack.status) == Phase::Review && !stack.tags.contains_key("cluster") {
        return true;
    }
    OWNER_TAGS
        .iter()
        .all(|tag| want.tags.contains_key(*tag) && want.tags.get(*tag) == stack.tags.get(*tag))
}

/// Plans the next step for a stack that is wanted.
pub fn keep(want: &Wanted, seen: &Seen, now: Timestamp) -> Next {
    let Some(stack) = &seen.stack else {
        return change(want, seen, None);
    };
    if !is_ours(want, stack) {
        let message = format!(
            "there is a stack {} of somebody else ({}): it is not touched; delete or rename it, or use another name",
            want.name,
            owner(stack)
        );
        return Next::only(Verdict::Stalled(reasons::NAME_TAKEN, message));
    }
    let current = stack.digest() == Some(want.digest.as_str());
    let phase = phase(&stack.status);
    match phase {
        Phase::Complete | Phase::RolledBack if current => return ready(stack, now),
        Phase::Busy { serves } => return Next::wait(busy(serves, being(serves), told(want, stack)), LOOK),
        Phase::Deleting => {
            let verdict = Verdict::Progressing(
                reasons::STACK_DELETING,
                format!("{}; it is made anew then", told(want, stack)),
            );
            return Next::wait(verdict, LOOK);
        }
        _ => {}
    }
    let serves = !matches!(phase, Phase::Review | Phase::Dead | Phase::Undeleted);
    if let Some(wait) = unsettled(seen, now) {
        return Next::wait(busy(serves, being(serves), told(want, stack)), wait);
    }
    let retry = retry_at(stack);
    let other = stack.tried.as_ref().is_some_and(|tried| *tried != want.digest);
    match phase {
        Phase::Review | Phase::Complete => change(want, seen, Some(stack)),
        Phase::RolledBack if other || now >= retry => change(want, seen, Some(stack)),
        Phase::RolledBack => {
            let message = format!(
                "{}; it is as it was before, and the change is tried again at {retry}",
                told(want, stack)
            );
            Next::wait(stalled(serves, reasons::STACK_ROLLED_BACK, message), until(retry, now))
        }
        Phase::Stuck if now >= retry => Next::step(
            Step::ContinueRollback,
            busy(serves, reasons::STACK_ROLLED_BACK, told(want, stack)),
        ),
        Phase::Stuck => {
            let message = format!(
                "{}; the way back is tried again at {retry}. If it fails again, repair what it names, or skip it with `aws \
                 cloudformation continue-update-rollback --resources-to-skip`",
                told(want, stack)
            );
            Next::wait(stalled(serves, reasons::STACK_FAILED, message), until(retry, now))
        }
        Phase::Dead | Phase::Undeleted => anew(want, seen, stack, current, retry, now),
        Phase::Odd | Phase::Busy { .. } | Phase::Deleting => {
            let message = format!(
                "{}: this state is not left by itself; bring the stack back with CloudFormation",
                told(want, stack)
            );
            Next::wait(stalled(serves, reasons::STACK_FAILED, message), RETRY)
        }
    }
}

/// Plans the next step for a stack that is not wanted any more; `None` when it is gone.
pub fn remove(want: &Wanted, seen: &Seen, now: Timestamp) -> Option<Next> {
    let stack = seen.stack.as_ref().filter(|stack| is_ours(want, stack))?;
    let message = told(want, stack);
    if stack.is_busy() {
        return Some(Next::wait(Verdict::Progressing(reasons::STACK_DELETING, message), LOOK));
    }
    if seen.machines > 0 {
        return Some(Next::only(in_use(seen, &message)));
    }
    if let Some(wait) = unsettled(seen, now) {
        return Some(Next::wait(Verdict::Progressing(reasons::STACK_DELETING, message), wait));
    }
    let retry = retry_at(stack);
    if phase(&stack.status) == Phase::Undeleted && now < retry {
        let message = format!("{message}; remove what is in its way. It is deleted again at {retry}");
        return Some(Next::wait(
            Verdict::Stalled(reasons::STACK_FAILED, message),
            until(retry, now),
        ));
    }
    Some(Next::step(
        Step::Delete,
        Verdict::Progressing(reasons::STACK_DELETING, message),
    ))
}

/// A stack that can only be deleted, for another one in its place.
fn anew(want: &Wanted, seen: &Seen, stack: &StackFacts, current: bool, retry: Timestamp, now: Timestamp) -> Next {
    let message = told(want, stack);
    if seen.machines > 0 {
        return Next::only(in_use(seen, &message));
    }
    // It stays to be looked at, unless what was wrong may have been changed.
    let at_once = !current && phase(&stack.status) == Phase::Dead;
    if at_once || now >= retry {
        return Next::step(Step::Delete, Verdict::Progressing(reasons::STACK_ROLLED_BACK, message));
    }
    let message = format!("{message}; its events say why. It is deleted and made anew at {retry}");
    Next::wait(Verdict::Stalled(reasons::STACK_ROLLED_BACK, message), until(retry, now))
}

/// Brings a stack to what is wanted, through a change set.
fn change(want: &Wanted, seen: &Seen, stack: Option<&StackFacts>) -> Next {
    let serves = stack.is_some_and(|s| phase(&s.status) != Phase::Review);
    let reason = being(serves);
    let name = &want.name;
    let Some(proposed) = &seen.change_set else {
        let message = format!("works out what has to be changed in stack {name}");
        return Next::step(Step::Propose, busy(serves, reason, message));
    };
    match &proposed.state {
        ChangeSetState::Pending => {
            let message = format!("waits for change set {} of stack {name}", proposed.name);
            Next::wait(busy(serves, reason, message), LOOK)
        }
        ChangeSetState::Ready => {
            let message = format!("executes change set {} of stack {name}", proposed.name);
            Next::step(Step::Execute(proposed.name.clone()), busy(serves, reason, message))
        }
        // The listing may be behind a change that is made already.
        ChangeSetState::Empty if serves => Next::wait(Verdict::Ready(String::new()), RETRY),
        ChangeSetState::Empty => {
            let message = format!("stack {name} would be empty: its template makes nothing");
            Next::wait(Verdict::Stalled(reasons::STACK_FAILED, message), RETRY)
        }
        ChangeSetState::Failed(why) => {
            let message = format!("what has to be changed in stack {name} cannot be worked out: {why}");
            Next::wait(stalled(serves, reasons::STACK_FAILED, message), RETRY)
        }
    }
}

fn ready(stack: &StackFacts, now: Timestamp) -> Next {
    let last = stack.changed.max(stack.drift.checked);
    // Its age is not known: nothing is compared for its own sake.
    let Some(due) = last.map(|last| after(last, COMPARE)) else {
        return Next::only(Verdict::Ready(String::new()));
    };
    if now >= due {
        return Next::step(Step::DetectDrift, Verdict::Ready(String::new()));
    }
    Next::wait(Verdict::Ready(String::new()), until(due, now))
}

/// How long to wait until what was asked for shows.
fn unsettled(seen: &Seen, now: Timestamp) -> Option<Duration> {
    let shown = after(seen.stack.as_ref()?.asked?, SETTLE);
    (now < shown).then(|| until(shown, now).min(LOOK))
}

fn retry_at(stack: &StackFacts) -> Timestamp {
    stack
        .changed
        .max(stack.asked)
        .map_or(Timestamp::MIN, |last| after(last, RETRY))
}

fn being(serves: bool) -> &'static str {
    match serves {
        true => reasons::STACK_UPDATING,
        false => reasons::STACK_CREATING,
    }
}

fn busy(serves: bool, reason: &'static str, message: String) -> Verdict {
    match serves {
        true => Verdict::ReadyAndProgressing(reason, message),
        false => Verdict::Progressing(reason, message),
    }
}

fn stalled(serves: bool, reason: &'static str, message: String) -> Verdict {
    match serves {
        true => Verdict::ReadyButStalled(reason, message),
        false => Verdict::Stalled(reason, message),
    }
}

fn in_use(seen: &Seen, message: &str) -> Verdict {
    let message = format!(
        "{message}; it is not deleted while {} machines live by it",
        seen.machines
    );
    Verdict::Stalled(reasons::WAITING_FOR_DEPENDENTS, message)
}

fn told(want: &Wanted, stack: &StackFacts) -> String {
    match &stack.reason {
        Some(reason) => format!("stack {} is {}: {reason}", want.name, stack.status),
        None => format!("stack {} is {}", want.name, stack.status),
    }
}

fn owner(stack: &StackFacts) -> String {
    let known = OWNER_TAGS
        .iter()
        .filter_map(|tag| Some(format!("{tag} {}", stack.tags.get(*tag)?)));
    let known: Vec<String> = known.collect();
    match known.is_empty() {
        true => "it has none of our tags".to_owned(),
        false => known.join(", "),
    }
}

/// `StackReady` and `DriftDetected`.
pub fn says(next: &Next, want: &Wanted, stack: Option<&StackFacts>) -> Vec<Says> {
    let type_ = conditions::STACK_READY;
    let (reason, message) = next.verdict.why();
    let ready = Says {
        type_,
        status: Some(next.verdict.serves()),
        reason,
        message,
    };
    let drift = stack.map(|s| s.drift).unwrap_or_default();
    let type_ = conditions::DRIFT_DETECTED;
    let at = drift.checked.map(|at| format!(" at {at}")).unwrap_or_default();
    let drift = match drift.differs {
        Some(true) => {
            let message = format!(
                "stack {} was found changed outside of its template{at}: see `aws cloudformation \
                 describe-stack-resource-drifts --stack-name {}`",
                want.name, want.name
            );
            Says::yes(type_, reasons::DRIFTED, message)
        }
        Some(false) => Says::no(type_, reasons::IN_SYNC, ""),
        None => Says::unknown(
            type_,
            reasons::NOT_CHECKED,
            "it is compared with its template once a day",
        ),
    };
    vec![ready, drift]
}

/// The verdict of something that needs a stack, from its own and the stack's: what is worse wins.
pub fn with(own: Verdict, stack: &Next) -> Verdict {
    match (&stack.verdict, own) {
        (Verdict::Ready(_), own) => own,
        (Verdict::ReadyAndProgressing(..) | Verdict::ReadyButStalled(..), Verdict::Ready(_)) => stack.verdict.clone(),
        (Verdict::ReadyAndProgressing(..) | Verdict::ReadyButStalled(..), own) => own,
        (worse, _) => worse.clone(),
    }
}

#[cfg(test)]
#[path = "stack_plan_tests.rs"]
mod tests;
