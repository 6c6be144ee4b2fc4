#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn tags(cluster: &str) -> BTreeMap<String, String> {
    [("cluster", cluster), ("kind", "Tier"), ("name", "std"), ("uid", "u1")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

fn wanted(digest: &str) -> Wanted {
    Wanted {
        name: "graphplane-tier-std".into(),
        digest: digest.into(),
        tags: tags("c1"),
    }
}

fn stack(status: &str, digest: &str) -> StackFacts {
    let mut facts = StackFacts {
        id: "arn:1".into(),
        status: status.into(),
        tags: tags("c1"),
        changed: Some(at(1000)),
        ..StackFacts::default()
    };
    facts.tags.insert(DIGEST_TAG.into(), digest.into());
    facts
}

fn seen(stack: StackFacts) -> Seen {
    Seen {
        stack: Some(stack),
        ..Seen::default()
    }
}

fn step(status: &str, digest: &str, now: i64) -> Option<Step> {
    keep(&wanted("new"), &seen(stack(status, digest)), at(now)).step
}

#[test]
fn a_stack_is_made_changed_and_left_alone() {
    let none = keep(&wanted("new"), &Seen::default(), at(0));
    assert_eq!(none.step, Some(Step::Propose));
    assert!(!none.verdict.serves());
    for status in [
        "CREATE_COMPLETE",
        "UPDATE_COMPLETE",
        "IMPORT_COMPLETE",
        "UPDATE_ROLLBACK_COMPLETE",
    ] {
        let same = keep(&wanted("new"), &seen(stack(status, "new")), at(1001));
        assert_eq!(
            (same.step, same.verdict),
            (None, Verdict::Ready(String::new())),
            "{status}"
        );
    }
    assert_eq!(step("CREATE_COMPLETE", "old", 1001), Some(Step::Propose));
    assert_eq!(step("REVIEW_IN_PROGRESS", "old", 1001), Some(Step::Propose));
    for status in [
        "CREATE_IN_PROGRESS",
        "ROLLBACK_IN_PROGRESS",
        "UPDATE_IN_PROGRESS",
        "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS",
        "UPDATE_ROLLBACK_IN_PROGRESS",
        "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS",
        "IMPORT_IN_PROGRESS",
        "DELETE_IN_PROGRESS",
    ] {
        let next = keep(&wanted("new"), &seen(stack(status, "old")), at(9999));
        assert_eq!((next.step, next.requeue), (None, Some(LOOK)), "{status}");
        let serves = !["CREATE_IN_PROGRESS", "ROLLBACK_IN_PROGRESS", "DELETE_IN_PROGRESS"].contains(&status);
        assert_eq!(next.verdict.serves(), serves, "{status}");
    }
}

#[test]
fn a_change_that_failed_is_tried_again_later_or_when_another_one_is_wanted() {
    let mut rolled = stack("UPDATE_ROLLBACK_COMPLETE", "old");
    rolled.reason = Some("no such image".into());
    rolled.tried = Some("new".into());
    let early = keep(&wanted("new"), &seen(rolled.clone()), at(1299));
    assert_eq!((early.step, early.requeue), (None, Some(Duration::from_secs(1))));
    let Verdict::ReadyButStalled(reasons::STACK_ROLLED_BACK, message) = early.verdict else {
        panic!("{:?}", early.verdict)
    };
    assert!(message.contains("no such image"), "{message}");
    assert_eq!(
        keep(&wanted("new"), &seen(rolled.clone()), at(1300)).step,
        Some(Step::Propose)
    );
    assert_eq!(
        keep(&wanted("newer"), &seen(rolled.clone()), at(1001)).step,
        Some(Step::Propose)
    );
    rolled.tried = None;
    assert_eq!(keep(&wanted("newer"), &seen(rolled), at(1001)).step, None);
    assert_eq!(step("UPDATE_ROLLBACK_FAILED", "old", 1299), None);
    assert_eq!(
        step("UPDATE_ROLLBACK_FAILED", "old", 1300),
        Some(Step::ContinueRollback)
    );
}

#[test]
fn a_stack_that_was_never_made_is_deleted_and_made_anew() {
    for status in ["ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED"] {
        assert_eq!(step(status, "new", 1299), None, "it stays to be looked at");
        assert_eq!(step(status, "new", 1300), Some(Step::Delete));
        assert_eq!(step(status, "old", 1001), Some(Step::Delete), "another one is wanted");
        let used = Seen {
            machines: 1,
            ..seen(stack(status, "old"))
        };
        assert_eq!(keep(&wanted("new"), &used, at(9999)).step, None);
    }
    assert_eq!(step("DELETE_FAILED", "old", 1299), None);
    assert_eq!(step("DELETE_FAILED", "old", 1300), Some(Step::Delete));
}

#[test]
fn a_state_that_nobody_knows_is_told_and_nothing_is_done() {
    for status in ["UPDATE_FAILED", "IMPORT_ROLLBACK_FAILED", "SOMETHING_NEW"] {
        let next = keep(&wanted("new"), &seen(stack(status, "old")), at(9999));
        assert_eq!(next.step, None);
        assert!(
            matches!(&next.verdict, Verdict::ReadyButStalled(_, m) if m.contains(status)),
            "{next:?}"
        );
    }
}

#[test]
fn what_a_change_set_says_decides() {
    let with = |state, status: &str| {
        let change_set = ChangeSet {
            name: "cs".into(),
            state,
            changes: vec![],
        };
        let seen = Seen {
            change_set: Some(change_set),
            ..seen(stack(status, "old"))
        };
        keep(&wanted("new"), &seen, at(2000))
    };
    let complete = "CREATE_COMPLETE";
    assert_eq!(
        with(ChangeSetState::Ready, complete).step,
        Some(Step::Execute("cs".into()))
    );
    let pending = with(ChangeSetState::Pending, complete);
    assert_eq!((pending.step, pending.requeue), (None, Some(LOOK)));
    assert_eq!(
        with(ChangeSetState::Empty, complete).verdict,
        Verdict::Ready(String::new())
    );
    let failed = with(ChangeSetState::Failed("no such key".into()), complete);
    assert!(failed.verdict.serves() && failed.step.is_none() && failed.requeue == Some(RETRY));
    let first = with(ChangeSetState::Failed("no such key".into()), "REVIEW_IN_PROGRESS");
    assert!(
        matches!(&first.verdict, Verdict::Stalled(_, m) if m.contains("no such key")),
        "{first:?}"
    );
}

#[test]
fn the_stack_of_somebody_else_is_not_touched() {
    let mut other = stack("CREATE_COMPLETE", "old");
    other.tags.insert("cluster".into(), "c2".into());
    let next = keep(&wanted("new"), &seen(other.clone()), at(9999));
    assert!(
        matches!(&next.verdict, Verdict::Stalled(reasons::NAME_TAKEN, m) if m.contains("cluster c2")),
        "{next:?}"
    );
    assert_eq!(next.step, None);
    assert_eq!(remove(&wanted("new"), &seen(other.clone()), at(9999)), None);
    other.tags.clear();
    assert_eq!(keep(&wanted("new"), &seen(other.clone()), at(9999)).step, None);
    other.status = "REVIEW_IN_PROGRESS".into();
    assert_eq!(
        keep(&wanted("new"), &seen(other), at(9999)).step,
        Some(Step::Propose),
        "it has nothing in it, and its tags come with its making"
    );
    let mut older = stack("CREATE_COMPLETE", "old");
    older.tags.insert("uid".into(), "u0".into());
    assert_eq!(
        keep(&wanted("new"), &seen(older), at(9999)).step,
        Some(Step::Propose),
        "an object of the same name takes it over"
    );
}

#[test]
fn a_stack_goes_last_and_a_refusal_is_told() {
    assert_eq!(remove(&wanted("new"), &Seen::default(), at(0)), None);
    let complete = stack("CREATE_COMPLETE", "new");
    let used = Seen {
        machines: 2,
        ..seen(complete.clone())
    };
    let next = remove(&wanted("new"), &used, at(9999)).unwrap();
    assert!(next.step.is_none() && matches!(next.verdict, Verdict::Stalled(..)));
    assert_eq!(
        remove(&wanted("new"), &seen(complete.clone()), at(9999)).unwrap().step,
        Some(Step::Delete)
    );
    let asked = StackFacts {
        asked: Some(at(9995)),
        ..complete
    };
    let behind = remove(&wanted("new"), &seen(asked), at(9999)).unwrap();
    assert_eq!(
        (behind.step, behind.requeue),
        (None, Some(LOOK)),
        "the listing may be behind"
    );
    let mut refused = stack("DELETE_FAILED", "new");
    refused.reason = Some("sg-1 has a dependent object".into());
    let next = remove(&wanted("new"), &seen(refused.clone()), at(1001)).unwrap();
    assert!(
        matches!(&next.verdict, Verdict::Stalled(_, m) if m.contains("sg-1")),
        "{next:?}"
    );
    assert_eq!(
        remove(&wanted("new"), &seen(refused), at(1300)).unwrap().step,
        Some(Step::Delete)
    );
}

#[test]
fn a_stack_is_compared_once_a_day() {
    let mut same = stack("CREATE_COMPLETE", "new");
    let day = 24 * 3600;
    let asks =
        |stack: &StackFacts, now| keep(&wanted("new"), &seen(stack.clone()), at(now)).step == Some(Step::DetectDrift);
    assert!(!asks(&same, 1000 + day - 1));
    assert!(asks(&same, 1000 + day));
    same.drift = Drift {
        differs: Some(true),
        checked: Some(at(1000 + day)),
    };
    assert!(!asks(&same, 1001 + day));
    let next = keep(&wanted("new"), &seen(same.clone()), at(1001 + day));
    let says = says(&next, &wanted("new"), Some(&same));
    let drift = says.iter().find(|s| s.type_ == conditions::DRIFT_DETECTED).unwrap();
    assert!(
        drift.status == Some(true) && drift.message.contains("graphplane-tier-std"),
        "{drift:?}"
    );
}

#[test]
fn the_worse_verdict_wins() {
    let own = || Verdict::Progressing("Own", String::new());
    let stack = |verdict| Next::only(verdict);
    assert_eq!(with(own(), &stack(Verdict::Ready(String::new()))), own());
    let updating = Verdict::ReadyAndProgressing("U", String::new());
    assert_eq!(with(own(), &stack(updating.clone())), own());
    assert_eq!(with(Verdict::Ready(String::new()), &stack(updating.clone())), updating);
    let failed = Verdict::Stalled("F", String::new());
    assert_eq!(with(own(), &stack(failed.clone())), failed);
}

/// CloudFormation with one stack, as its documentation describes it. What it is asked to do against its own rules, or
/// against ours, fails the test.
struct Cloud {
    stack: Option<StackFacts>,
    /// What it was before the newest change, for reads that are behind.
    former: Option<StackFacts>,
    /// Digest and state of each change set of the stack.
    proposed: BTreeMap<String, (String, bool)>,
    executed: BTreeSet<String>,
    /// Raised by every change that ends.
    version: u32,
    /// How the next operations end; afterwards all end well.
    fates: Vec<u8>,
    doing: Option<String>,
    machines: usize,
}

impl Cloud {
    fn fate(&mut self) -> u8 {
        self.fates.pop().unwrap_or(0)
    }

    fn set(&mut self, status: &str, now: i64) {
        self.former = self.stack.clone();
        let stack = self.stack.as_mut().unwrap();
        stack.status = status.into();
        if status.ends_with("_IN_PROGRESS") {
            stack.changed = Some(at(now));
        }
    }

    fn propose(&mut self, want: &Wanted, now: i64) -> ChangeSet {
        let fresh = self.stack.is_none();
        if fresh {
            self.version += 1;
            self.proposed.clear();
            self.stack = Some(StackFacts {
                id: format!("arn:{}", self.version),
                ..StackFacts::default()
            });
            self.set("REVIEW_IN_PROGRESS", now);
            self.former = None;
        }
        let status = self.stack.as_ref().unwrap().status.clone();
        let name = format!("{}-{}", want.digest, self.version);
        let known = self.executed.contains(&name);
        let can = [
            "REVIEW_IN_PROGRESS",
            "CREATE_COMPLETE",
            "UPDATE_COMPLETE",
            "UPDATE_ROLLBACK_COMPLETE",
        ];
        assert!(
            known || can.contains(&status.as_str()),
            "a change set for a stack that is {status}"
        );
        let ready = match self.proposed.get(&name) {
            Some((_, ready)) => *ready,
            // Not ready at once, or ready.
            None => self.fate().is_multiple_of(2),
        };
        self.proposed.insert(name.clone(), (want.digest.clone(), true));
        ChangeSet {
            state: if ready && !known {
                ChangeSetState::Ready
            } else {
                ChangeSetState::Pending
            },
            name,
            changes: vec![],
        }
    }

    fn act(&mut self, step: &Step, want: &Wanted, now: i64) -> Option<ChangeSet> {
        match step {
            Step::Propose => return Some(self.propose(want, now)),
            Step::Execute(name) => {
                assert!(self.executed.insert(name.clone()), "{name} is executed twice");
                let (digest, _) = self.proposed[name].clone();
                let making = self.stack.as_ref().unwrap().status == "REVIEW_IN_PROGRESS";
                self.set(
                    if making {
                        "CREATE_IN_PROGRESS"
                    } else {
                        "UPDATE_IN_PROGRESS"
                    },
                    now,
                );
                let stack = self.stack.as_mut().unwrap();
                stack.tried = Some(digest.clone());
                if making {
                    stack.tags = want.tags.clone();
                    stack.tags.insert(DIGEST_TAG.into(), digest.clone());
                }
                self.doing = Some(digest);
            }
            Step::ContinueRollback => {
                assert_eq!(self.stack.as_ref().unwrap().status, "UPDATE_ROLLBACK_FAILED");
                self.set("UPDATE_ROLLBACK_IN_PROGRESS", now);
            }
            Step::DetectDrift => {
                self.stack.as_mut().unwrap().drift.checked = Some(at(now));
            }
            Step::Delete => {
                assert_eq!(self.machines, 0, "machines live by it");
                let stack = self.stack.as_ref().unwrap();
                assert!(stack.status == "REVIEW_IN_PROGRESS" || stack.tags["cluster"] == "c1");
                if stack.status != "DELETE_IN_PROGRESS" {
                    assert!(!stack.status.ends_with("_IN_PROGRESS") || stack.status == "REVIEW_IN_PROGRESS");
                    self.set("DELETE_IN_PROGRESS", now);
                }
            }
        }
        None
    }

    /// Time passes: what is under way ends.
    fn tick(&mut self, now: i64) {
        let Some(status) = self.stack.as_ref().map(|s| s.status.clone()) else {
            return;
        };
        let fate = if status.ends_with("_IN_PROGRESS") && status != "REVIEW_IN_PROGRESS" {
            self.fate()
        } else {
            0
        };
        match (status.as_str(), fate % 4) {
            ("CREATE_IN_PROGRESS", 0) => self.done("CREATE_COMPLETE", now),
            ("CREATE_IN_PROGRESS", 1) => self.set("ROLLBACK_COMPLETE", now),
            ("CREATE_IN_PROGRESS", 2) => self.set("ROLLBACK_FAILED", now),
            ("CREATE_IN_PROGRESS", _) => self.set("ROLLBACK_IN_PROGRESS", now),
            ("ROLLBACK_IN_PROGRESS", _) => self.set("ROLLBACK_COMPLETE", now),
            ("UPDATE_IN_PROGRESS", 0) => self.done("UPDATE_COMPLETE", now),
            ("UPDATE_IN_PROGRESS", 1) => self.undone("UPDATE_ROLLBACK_COMPLETE", now),
            ("UPDATE_IN_PROGRESS", 2) => self.undone("UPDATE_ROLLBACK_FAILED", now),
            ("UPDATE_IN_PROGRESS", _) => self.done("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", now),
            ("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", _) => self.set("UPDATE_COMPLETE", now),
            ("UPDATE_ROLLBACK_IN_PROGRESS", 0 | 1) => self.undone("UPDATE_ROLLBACK_COMPLETE", now),
            ("UPDATE_ROLLBACK_IN_PROGRESS", _) => self.undone("UPDATE_ROLLBACK_FAILED", now),
            ("DELETE_IN_PROGRESS", 0..=2) => {
                self.former = None;
                self.stack = None;
            }
            ("DELETE_IN_PROGRESS", _) => self.set("DELETE_FAILED", now),
            _ => {}
        }
    }

    fn done(&mut self, status: &str, now: i64) {
        self.version += 1;
        self.set(status, now);
        let digest = self.doing.take().unwrap();
        let stack = self.stack.as_mut().unwrap();
        stack.tags.insert(DIGEST_TAG.into(), digest);
        stack.outputs = [("LaunchTemplateId".to_owned(), "lt-1".to_owned())].into();
    }

    fn undone(&mut self, status: &str, now: i64) {
        self.version += 1;
        self.set(status, now);
    }
}

proptest! {
    /// Whatever fails, wherever the operator is stopped, and however far the listing is behind: the stack becomes what is
    /// wanted, or is gone when nothing is; nothing is executed twice and nothing is deleted that machines live by.
    #[test]
    fn a_stack_converges(
        fates in proptest::collection::vec(any::<u8>(), 0..12),
        // What becomes of each step: 0 and 1 as it should; 2 crashes after it; 3 crashes and leaves the next reading behind.
        luck in proptest::collection::vec(0u8..4, 0..30),
        wishes in proptest::collection::vec("[ab]", 1..4),
        removed: bool,
        machines in 0usize..2,
    ) {
        let mut cloud = Cloud {
            stack: None, former: None, proposed: BTreeMap::new(), executed: BTreeSet::new(), version: 0, fates,
            doing: None, machines,
        };
        let (mut now, mut luck, mut asked) = (1000, luck.into_iter(), None);
        let (mut proposed, mut behind) = (None, false);
        let mut wishes = wishes.into_iter().peekable();
        let mut want = wanted(&wishes.next().unwrap());
        let mut settled = false;
        for _ in 0..600 {
            // A stack can only be stuck behind machines when it was never made; then it has none.
            cloud.machines = match &cloud.stack {
                Some(stack) if !stack.outputs.is_empty() => machines,
                _ => 0,
            };
            let removing = removed && wishes.peek().is_none() && settled;
            if removing {
                cloud.machines = 0;
            }
            let mut stack = if behind && cloud.former.is_some() { cloud.former.clone() } else { cloud.stack.clone() };
            behind = false;
            if let Some(stack) = &mut stack {
                stack.asked = asked;
            }
            let seen = Seen { stack, change_set: proposed.clone(), machines: cloud.machines };
            let next = match removing {
                true => match remove(&want, &seen, at(now)) {
                    Some(next) => next,
                    None => break,
                },
                false => keep(&want, &seen, at(now)),
            };
            match &next.step {
                Some(step) => {
                    let answer = cloud.act(step, &want, now);
                    if !matches!(step, Step::Propose | Step::DetectDrift) {
                        asked = Some(at(now));
                    }
                    match luck.next().unwrap_or(0) {
                        // The answer is lost, and with it what this process knew.
                        2 => (proposed, asked) = (None, None),
                        3 => {
                            proposed = None;
                            behind = !matches!(step, Step::Delete);
                        }
                        _ => proposed = answer,
                    }
                }
                None => {
                    if next.verdict == Verdict::Ready(String::new()) {
                        settled = true;
                        match wishes.next() {
                            Some(wish) => want = wanted(&wish),
                            None if removed => {}
                            None => break,
                        }
                    } else {
                        prop_assert!(next.requeue.is_some() || cloud.machines > 0, "{:?} is left for ever", next);
                    }
                    now += next.requeue.map_or(1, |wait| wait.as_secs() as i64 + 1).min(400);
                    proposed = None;
                    cloud.tick(now);
                }
            }
        }
        match removed {
            true => prop_assert!(cloud.stack.is_none(), "{:?}", cloud.stack),
            false => {
                let stack = cloud.stack.unwrap();
                prop_assert_eq!(stack.digest(), Some(want.digest.as_str()));
            }
        }
    }
}
