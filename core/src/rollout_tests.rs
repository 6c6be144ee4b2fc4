#![allow(clippy::unwrap_used)]
use super::*;
use graphplane_crds::quantities::CountOrPercent;
use proptest::prelude::*;

const NEW: &str = "1:new";
const PATIENCE: Duration = Duration::from_secs(600);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn wanted() -> Wanted<'static> {
    Wanted {
        template: Some(NEW),
        types: &[],
    }
}

/// A machine that serves and is out of date.
fn machine() -> Machine {
    Machine {
        epoch: Some(Epoch(1)),
        template: Some("1:old".into()),
        serves: true,
        ..Machine::default()
    }
}

fn fleet(size: usize) -> Vec<Machine> {
    vec![machine(); size]
}

const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

fn run(rollout: &Rollout, fleet: &[Machine], now: i64) -> Decision {
    let members = fleet.iter().zip(NAMES).map(|(machine, name)| Member {
        name,
        graphs: 1,
        deleting: false,
        machine,
    });
    decide(rollout, &wanted(), &members.collect::<Vec<_>>(), PATIENCE, at(now))
}

fn rollout(canary: u32, budgets: serde_json::Value) -> Rollout {
    Rollout {
        canary,
        budgets: serde_json::from_value(budgets).unwrap(),
        ..Rollout::default()
    }
}

fn marks(decision: &Decision) -> Vec<&str> {
    decision.mark.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn a_machine_is_compared_only_with_what_was_computed_in_the_same_way() {
    let types = ["m7g.large".to_owned(), "m8g.large".to_owned()];
    let wanted = Wanted {
        template: Some("1:lt-1:2"),
        types: &types,
    };
    assert_eq!(template(&["lt-1", "2"]), "1:lt-1:2");
    assert_eq!(wanted.compare(Some("1:lt-1:2"), Some("m8g.large")), Age::Current);
    assert!(matches!(wanted.compare(Some("1:lt-1:1"), None), Age::Behind(_)));
    let Age::Behind(why) = wanted.compare(Some("1:lt-1:2"), Some("m6g.large")) else {
        panic!("another type is another machine")
    };
    assert!(why.contains("m6g.large") && why.contains("m7g.large"), "{why}");
    assert_eq!(wanted.compare(Some("0:lt-1:1"), None), Age::Unknown);
    assert_eq!(wanted.compare(None, None), Age::Unknown);
    let none = Wanted {
        template: None,
        types: &[],
    };
    assert_eq!(none.compare(None, Some("m6g.large")), Age::Current);
}

#[test]
fn durations_are_read() {
    let read = |text| duration(text).map(|d| d.as_secs());
    assert_eq!(
        ["4h", "1h30m", "45m", ""].map(read),
        [Some(14_400), Some(5400), Some(2700), Some(0)]
    );
    assert_eq!(["4", "h", "4s", "99999999999999999999h"].map(read), [None; 4]);
}

#[test]
fn the_strictest_budget_in_force_counts() {
    let budgets = serde_json::json!([
        {"nodes": "50%"},
        {"nodes": "1", "schedule": "0 9 * * *", "duration": "8h"},
        {"nodes": "0", "reasons": ["Empty"]},
    ]);
    let budgets: Vec<Budget> = serde_json::from_value(budgets).unwrap();
    let nodes = |reason, hour: i64| allowance(&budgets, reason, 10, at(hour * 3600)).unwrap();
    use DisruptionReason::{Drifted, Empty};
    let early = nodes(Drifted, 8);
    assert_eq!((early.nodes, early.changes), (Some(5), Some(at(9 * 3600))));
    let late = nodes(Drifted, 9);
    assert_eq!((late.nodes, late.changes), (Some(1), Some(at(17 * 3600))));
    assert_eq!(nodes(Empty, 9).nodes, Some(0));
    let none = |reason| allowance(&[], reason, 10, at(0)).unwrap().nodes;
    assert_eq!((none(Drifted), none(Empty)), (Some(1), None));
}

#[test]
fn a_budget_that_cannot_be_read_stops_everything() {
    let wrong = rollout(
        0,
        serde_json::json!([{"nodes": "5", "schedule": "0 0 30 2 *", "duration": "1h"}]),
    );
    let decision = run(&wrong, &fleet(3), 0);
    assert!(decision.mark.is_empty());
    assert!(matches!(&decision.state, State::Invalid(why) if why.contains("0 0 30 2 *")));
}

#[test]
fn canaries_go_first_and_have_to_serve() {
    let rollout = rollout(2, serde_json::json!([{"nodes": "100%"}]));
    let mut fleet = fleet(6);
    let first = run(&rollout, &fleet, 0);
    assert_eq!(marks(&first), ["a", "b"]);
    fleet[0].marked = Some(Epoch(1));
    fleet[1] = Machine {
        epoch: Some(Epoch(2)),
        template: Some(NEW.into()),
        marked: Some(Epoch(1)),
        ..machine()
    };
    let half = run(&rollout, &fleet, 0);
    assert_eq!((marks(&half), half.unmark.clone()), (vec![], vec!["b".to_owned()]));
    assert!(matches!(half.state, State::Replacing(_)));
    fleet[0] = Machine {
        marked: None,
        ..fleet[1].clone()
    };
    let rest = run(&rollout, &fleet, 0);
    assert_eq!(marks(&rest), ["c", "d", "e", "f"]);
}

#[test]
fn what_somebody_keeps_is_left_alone_and_what_is_busy_is_looked_at_again() {
    let rollout = rollout(0, serde_json::json!([{"nodes": "100%"}]));
    let mut fleet = fleet(2);
    fleet[0].kept = Some("has annotation x".into());
    fleet[1].busy = Some("is making Backup y".into());
    let waits = run(&rollout, &fleet, 0);
    let State::Waiting(why) = &waits.state else {
        panic!("{waits:?}")
    };
    assert!(
        why.contains("a has annotation x") && why.contains("b is making Backup y"),
        "{why}"
    );
    assert_eq!((marks(&waits), waits.requeue), (vec![], Some(BUSY)));
    // A mark that was not acted on is taken back when somebody keeps the node, and only then.
    fleet[0].marked = Some(Epoch(1));
    fleet[1].marked = Some(Epoch(1));
    assert_eq!(run(&rollout, &fleet, 0).unmark, ["a"]);
    fleet[0].serves = false;
    assert!(run(&rollout, &fleet, 0).unmark.is_empty(), "it is being replaced");
}

#[test]
fn a_change_that_is_taken_back_takes_the_marks_with_it() {
    let mut fleet = fleet(2);
    fleet[0].template = Some(NEW.into());
    fleet[0].marked = Some(Epoch(1));
    fleet[1].template = Some(NEW.into());
    let decision = run(&Rollout::default(), &fleet, 0);
    assert_eq!(decision.unmark, ["a"]);
    assert_eq!(decision.state, State::Done(String::new()));
}

#[test]
fn too_many_failures_stop_it_until_they_serve() {
    let rollout = rollout(1, serde_json::json!([{"nodes": "100%"}]));
    let mut fleet = fleet(4);
    fleet[0] = Machine {
        epoch: Some(Epoch(2)),
        template: Some(NEW.into()),
        marked: Some(Epoch(1)),
        serves: false,
        down_since: Some(at(100)),
        ..machine()
    };
    let early = run(&rollout, &fleet, 400);
    assert!(matches!(early.state, State::Replacing(_)));
    assert_eq!(early.requeue, Some(Duration::from_secs(300)));
    let stopped = run(&rollout, &fleet, 700);
    assert!(
        matches!(&stopped.state, State::Stopped(why) if why.contains("(a)")),
        "{stopped:?}"
    );
    assert!(stopped.mark.is_empty());
    (fleet[0].serves, fleet[0].down_since) = (true, None);
    assert_eq!(marks(&run(&rollout, &fleet, 700)), ["b", "c", "d"]);
}

/// A budget as the test understands it: hours of the day when it is in force.
#[derive(Clone, Debug)]
struct Rule {
    nodes: CountOrPercent,
    window: Option<(i64, i64)>,
}

impl Rule {
    fn budget(&self) -> Budget {
        Budget {
            nodes: self.nodes,
            schedule: self.window.map(|(from, _)| format!("0 {from} * * *")),
            duration: self.window.map(|(_, hours)| format!("{hours}h")),
            reasons: vec![],
        }
    }

    fn in_force(&self, now: i64) -> bool {
        self.window
            .is_none_or(|(from, hours)| (now.div_euclid(3600) - from).rem_euclid(24) < hours)
    }
}

fn most_down(rules: &[Rule], total: u32, now: i64) -> u32 {
    if rules.is_empty() {
        return 1;
    }
    let in_force = rules.iter().filter(|r| r.in_force(now));
    in_force.map(|r| r.nodes.of(total)).min().unwrap_or(0)
}

fn amount(least: u32) -> impl Strategy<Value = CountOrPercent> {
    prop_oneof![
        (least..6).prop_map(CountOrPercent::Count),
        (u8::try_from(least).unwrap()..=100).prop_map(CountOrPercent::Percent)
    ]
}

fn rules(least: u32) -> impl Strategy<Value = Vec<Rule>> {
    let rule = (amount(least), proptest::option::of((0i64..24, 1i64..6)));
    proptest::collection::vec(rule.prop_map(|(nodes, window)| Rule { nodes, window }), 0..4)
}

/// Machines that are stopped when they are marked, started again, and serve unless they are broken.
struct Model {
    fleet: Vec<Machine>,
    broken: Vec<bool>,
    now: i64,
}

impl Model {
    fn is_new(machine: &Machine) -> bool {
        machine.template.as_deref() == Some(NEW)
    }

    fn acts(&mut self, decision: &Decision) {
        let index = |name: &str| NAMES.iter().position(|n| *n == name).unwrap();
        for name in &decision.unmark {
            self.fleet[index(name)].marked = None;
        }
        for (name, epoch) in &decision.mark {
            let machine = &mut self.fleet[index(name)];
            assert_eq!((machine.marked, machine.epoch), (None, Some(*epoch)));
            assert!(machine.serves && machine.kept.is_none() && machine.busy.is_none() && !Self::is_new(machine));
            machine.marked = Some(*epoch);
        }
    }

    /// Every machine goes one step on. Whether anything did.
    fn goes_on(&mut self) -> bool {
        let now = at(self.now);
        let mut moved = false;
        for (machine, broken) in self.fleet.iter_mut().zip(&self.broken) {
            let goes = machine.marked.is_some() && machine.marked == machine.epoch;
            let before = machine.clone();
            if machine.serves && goes {
                (machine.serves, machine.down_since) = (false, Some(now));
            } else if !machine.serves && !Self::is_new(machine) {
                machine.epoch = machine.epoch.map(Epoch::next);
                machine.template = Some(NEW.into());
            } else if !machine.serves && !broken {
                (machine.serves, machine.down_since) = (true, None);
            }
            moved |= *machine != before;
        }
        moved
    }

    fn down(&self) -> u32 {
        self.fleet.iter().filter(|m| !m.serves || m.marked.is_some()).count() as u32
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Nothing is marked beyond the strictest budget, before the canaries serve, or once too many failed; and when nothing
    /// fails and every budget lets somebody go, all are replaced but those that somebody keeps.
    #[test]
    fn a_rollout_keeps_its_rules_and_ends(
        size in 1usize..12, canary in 0u32..4, threshold in amount(0),
        (limits, breaks) in prop_oneof![
            (rules(1), Just(vec![false; 12])),
            (rules(0), proptest::collection::vec(any::<bool>(), 12)),
        ],
        kept in proptest::collection::vec(prop_oneof![4 => Just(false), 1 => Just(true)], 12),
        down in proptest::collection::vec(prop_oneof![4 => Just(false), 1 => Just(true)], 12),
        start in 1_700_000_000i64..1_700_100_000,
    ) {
        let rollout = Rollout {
            canary,
            failure_threshold: threshold,
            budgets: limits.iter().map(Rule::budget).collect(),
        };
        let sound = breaks.iter().all(|b| !b);
        let mut model = Model { fleet: fleet(size), broken: breaks, now: start };
        for (n, machine) in model.fleet.iter_mut().enumerate() {
            machine.kept = kept[n].then(|| "is kept".to_owned());
            if down[n] {
                (machine.serves, machine.down_since) = (false, Some(at(start)));
            }
        }
        let total = size as u32;
        for _ in 0..2000 {
            let now = model.now;
            let decision = run(&rollout, &model.fleet, now);
            prop_assert_eq!(&decision, &run(&rollout, &model.fleet, now));
            let replaced = |m: &&Machine| m.marked.is_some() || Model::is_new(m);
            let failed = |m: &&Machine| m.down_since.is_some_and(|t| t.as_second() + 600 <= now) && !m.serves;
            let all = model.fleet.iter().filter(replaced).count() as u32;
            let failures = model.fleet.iter().filter(replaced).filter(failed).count() as u32;
            let too_many = failures > 0 && failures >= threshold.of(all).max(1);
            model.acts(&decision);
            if !decision.mark.is_empty() {
                prop_assert!(model.down() <= most_down(&limits, total, now), "{:?}", decision);
                prop_assert!(!too_many, "{:?}", decision);
                let proved = model.fleet.iter().filter(|m| Model::is_new(m) && m.serves && m.marked.is_none());
                if (proved.count() as u32) < canary.min(total) {
                    let tried = model.fleet.iter().filter(|m| Model::is_new(m) || m.marked.is_some());
                    prop_assert!(tried.count() as u32 <= canary, "{:?}", decision);
                }
            }
            let moved = model.goes_on();
            let done = model.fleet.iter().all(|m| m.marked.is_none() && (Model::is_new(m) || m.kept.is_some()));
            if moved || !decision.mark.is_empty() || !decision.unmark.is_empty() {
                model.now += 60;
            } else if done {
                break;
            } else {
                let Some(wait) = decision.requeue else { break };
                model.now += (wait.as_secs() as i64).max(1);
            }
        }
        if sound {
            for machine in &model.fleet {
                prop_assert!(Model::is_new(machine) || machine.kept.is_some(), "{:?}", model.fleet);
                prop_assert!(machine.marked.is_none() && machine.serves);
            }
        }
    }
}
