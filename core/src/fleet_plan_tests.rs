#![allow(clippy::unwrap_used)]
use super::*;
use crate::stack_plan::{ChangeSet, ChangeSetState, DIGEST_TAG, Seen};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// What of a pass reaches the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Never,
    /// After so many actions: the last one was done, and nothing of it was noted.
    After(usize),
}

/// A Replica and a provider that does at once what it is told.
#[derive(Clone, Debug)]
struct World {
    replica: Replica,
    /// What the machines' template is made from, beside the size.
    template: u32,
    stack: Option<StackFacts>,
    change_set: Option<ChangeSet>,
    key: Option<String>,
    stored: Option<String>,
    group: Option<FleetFacts>,
    /// Of the template that the stack was deployed with last.
    deployed: u32,
    begun: BTreeSet<String>,
    machines: u32,
    resizes: u32,
    gone: bool,
}

impl World {
    fn new(replicas: u32) -> Self {
        let replica = serde_json::from_value(serde_json::json!({
            "apiVersion": "graphplane.dev/v1alpha1", "kind": "Replica",
            "metadata": {"name": "readers", "namespace": "default", "uid": "u-1"},
            "spec": {"graph": "g", "replicas": replicas, "minReplicas": 1, "maxReplicas": 10, "targetCpuPercent": 60},
        }));
        Self {
            replica: replica.unwrap(),
            template: 1,
            stack: None,
            change_set: None,
            key: None,
            stored: None,
            group: None,
            deployed: 0,
            begun: BTreeSet::new(),
            machines: 0,
            resizes: 0,
            gone: false,
        }
    }

    fn running(replicas: u32) -> Self {
        let mut world = Self::new(replicas);
        world.settle();
        world
    }

    fn wanted(&self) -> Wanted {
        let spec = &self.replica.spec;
        Wanted {
            name: "graphplane-replica-0".into(),
            digest: format!("{}-{}-{}", spec.min_replicas, spec.max_replicas, self.template),
            tags: ["cluster", "kind", "name"]
                .map(|tag| (tag.to_owned(), "x".to_owned()))
                .into(),
        }
    }

    fn version(&self) -> String {
        self.deployed.to_string()
    }

    fn observe(&self, resized: Option<Resize>, replaced: bool) -> Observed {
        Observed {
            wanted: self.wanted(),
            stack: Seen {
                stack: self.stack.clone(),
                change_set: self.change_set.clone(),
                machines: 0,
            },
            key_sha256: self.key.clone(),
            group: self.group.clone().map(|facts| ("g-1".to_owned(), facts)),
            resized,
            replaced,
        }
    }

    fn note(&mut self, keep: bool, note: impl FnOnce(&mut ReplicaFleet)) {
        if keep {
            note(
                self.replica
                    .status
                    .get_or_insert_default()
                    .fleet
                    .get_or_insert_default(),
            );
        }
    }

    fn execute(&mut self) {
        assert!(self.stored.is_some(), "a machine would find no key");
        let spec = &self.replica.spec;
        self.deployed = self.template;
        let mut tags = self.wanted().tags;
        tags.insert(DIGEST_TAG.into(), self.wanted().digest);
        let outputs = [
            (GROUP, "g-1".to_owned()),
            (VERSION, self.version()),
            (ENDPOINT, "http://lb:8001".into()),
        ];
        self.stack = Some(StackFacts {
            id: "s-1".into(),
            status: "UPDATE_COMPLETE".into(),
            outputs: outputs.map(|(name, value)| (name.to_owned(), value)).into(),
            tags,
            ..StackFacts::default()
        });
        let facts = self.group.get_or_insert_default();
        let desired = facts.size.desired.clamp(spec.min_replicas, spec.max_replicas);
        (facts.size.min, facts.size.max, facts.size.desired) = (spec.min_replicas, spec.max_replicas, desired);
    }

    fn act(&mut self, action: &Action, keep: bool) {
        match action {
            Action::Begin => {
                assert!(self.stack.is_none() && self.key.is_none());
                self.note(keep, |fleet| fleet.stack = "graphplane-replica-0".into());
            }
            Action::StoreKey => {
                let key = self.key.get_or_insert_with(|| "hash".into()).clone();
                assert!(
                    self.stored.replace(key.clone()).is_none_or(|before| before == key),
                    "another key"
                );
                self.note(keep, |fleet| fleet.key_sha256 = Some(key));
            }
            Action::Stack(Step::Propose) => {
                self.change_set = keep.then(|| ChangeSet {
                    name: "c".into(),
                    state: ChangeSetState::Ready,
                    changes: vec![],
                });
            }
            Action::Stack(Step::Execute(_)) => {
                self.change_set = None;
                self.execute();
            }
            Action::Stack(Step::Delete) => (self.stack, self.group) = (None, None),
            Action::Stack(step) => panic!("{step:?}"),
            Action::Resize { group, to } => {
                self.resizes += 1;
                let size = &mut self.group.as_mut().unwrap().size;
                let before = *size;
                (size.min, size.max) = (to.min, to.max);
                size.desired = to.desired.unwrap_or(size.desired.clamp(to.min, to.max));
                assert_ne!(before, *size, "a call that changes nothing");
                let set = of_spec(&self.replica, group);
                self.note(keep, |fleet| fleet.size = Some(set));
            }
            Action::Replace { version, .. } => {
                let facts = self.group.as_mut().unwrap();
                assert!(!facts.refresh.as_ref().is_some_and(FleetRefresh::runs), "two at once");
                assert!(self.begun.insert(version.clone()), "version {version} once more");
                facts.refresh = Some(FleetRefresh {
                    id: format!("r-{version}"),
                    status: "InProgress".into(),
                    reason: None,
                    percent: 0,
                });
                let replacement = FleetReplacement {
                    version: version.clone(),
                    id: format!("r-{version}"),
                };
                self.note(keep, |fleet| fleet.replacement = Some(replacement));
            }
            Action::DeleteKey => {
                assert!(self.stack.is_none(), "its machines still read it");
                (self.key, self.stored) = (None, None);
                if keep {
                    self.replica.status.get_or_insert_default().fleet = None;
                }
            }
        }
    }

    fn next(&self, resized: Option<Resize>, replaced: bool) -> Option<Action> {
        let seen = self.observe(resized, replaced);
        match self.gone {
            false => keep(&self.replica, &seen, Timestamp::UNIX_EPOCH).action,
            true => remove(&self.replica, &seen, Timestamp::UNIX_EPOCH).and_then(|left| left.action),
        }
    }

    fn pass(&mut self, cut: Cut) {
        let (mut resized, mut replaced) = (None, false);
        self.change_set = None;
        for done in 0..20 {
            let Some(action) = self.next(resized, replaced) else {
                let set = size_set(&self.replica, &self.observe(resized, replaced));
                if let Some(fleet) = self.replica.status.as_mut().and_then(|s| s.fleet.as_mut()) {
                    fleet.size = set;
                }
                return;
            };
            let last = cut == Cut::After(done);
            self.act(&action, !last);
            match &action {
                Action::Resize { to, .. } => resized = Some(*to),
                Action::Replace { .. } => replaced = true,
                _ => {}
            }
            if last {
                return;
            }
        }
        panic!("it goes in a circle: {self:?}");
    }

    /// The provider does what it was told.
    fn time_passes(&mut self) {
        let version = self.version();
        let Some(facts) = &mut self.group else { return };
        if let Some(refresh) = facts.refresh.as_mut().filter(|refresh| refresh.runs()) {
            (refresh.status, refresh.percent) = ("Successful".into(), 100);
            facts
                .members
                .iter_mut()
                .for_each(|m| m.template_version = Some(version.clone()));
        }
        facts.members.truncate(facts.size.desired as usize);
        while facts.members.len() < facts.size.desired as usize {
            self.machines += 1;
            facts.members.push(FleetMember {
                id: format!("i-{}", self.machines),
                zone: "a".into(),
                instance_type: "m7g.large".into(),
                template_version: Some(version.clone()),
                state: MemberState::InService,
                healthy: true,
                address: None,
            });
        }
    }

    fn settle(&mut self) {
        for _ in 0..6 {
            self.pass(Cut::Never);
            self.time_passes();
        }
    }

    fn desired(&self) -> u32 {
        self.group.as_ref().unwrap().size.desired
    }

    /// Whether the number of machines is autoscaling's to choose.
    fn is_autoscalings(&self) -> bool {
        let set = noted(&self.replica).and_then(|f| f.size.as_ref());
        self.group.is_some() && set.is_some_and(|set| set.replicas == self.replica.spec.replicas)
    }
}

#[test]
fn a_fleet_is_made_with_its_key_first_and_taken_down_with_its_key_last() {
    let mut world = World::running(3);
    assert_eq!((world.desired(), world.resizes, world.machines), (3, 1, 3));
    assert_eq!(world.next(None, false), None);
    let seen = world.observe(None, false);
    assert!(seen.is_settled() && seen.endpoint().is_some());
    world.gone = true;
    world.pass(Cut::Never);
    assert!(world.stack.is_none() && world.stored.is_none() && world.key.is_none());
    assert!(remove(&world.replica, &world.observe(None, false), Timestamp::UNIX_EPOCH).is_none());
}

#[test]
fn autoscaling_is_left_alone_until_the_spec_changes() {
    let mut world = World::running(2);
    world.group.as_mut().unwrap().size.desired = 7;
    world.settle();
    assert_eq!((world.desired(), world.resizes), (7, 1));
    // Bounds reach the group at once, and do not take back what autoscaling did.
    world.replica.spec.max_replicas = 20;
    world.settle();
    assert_eq!((world.desired(), world.group.as_ref().unwrap().size.max), (7, 20));
    world.replica.spec.max_replicas = 5;
    world.settle();
    assert_eq!(world.desired(), 5);
    // `kubectl scale`, twice to the same number: the second time nothing is new.
    world.replica.spec.replicas = 3;
    world.settle();
    assert_eq!(world.desired(), 3);
    world.group.as_mut().unwrap().size.desired = 4;
    world.settle();
    assert_eq!(world.desired(), 4);
}

#[test]
fn without_autoscaling_the_number_is_the_specs() {
    let mut world = World::running(2);
    world.replica.spec.target_cpu_percent = None;
    world.group.as_mut().unwrap().size.desired = 7;
    world.settle();
    assert_eq!(world.desired(), 2);
    // A listing that is behind does not have it set again and again in one pass.
    world.group.as_mut().unwrap().size.desired = 7;
    let to = Resize {
        min: 1,
        max: 10,
        desired: Some(2),
    };
    assert_eq!(world.next(Some(to), false), None);
    assert!(world.next(None, false).is_some());
}

#[test]
fn machines_are_replaced_once_for_each_version_and_not_again_after_a_failure() {
    let mut world = World::running(4);
    world.template = 2;
    world.pass(Cut::Never);
    let seen = world.observe(None, false);
    let machines = |world: &World| keep(&world.replica, &world.observe(None, false), Timestamp::UNIX_EPOCH).machines;
    assert!(!seen.is_settled() && machines(&world) == Machines::Replacing(0));
    let refresh = world.group.as_mut().unwrap().refresh.as_mut().unwrap();
    (refresh.status, refresh.reason) = ("Failed".into(), Some("no capacity".into()));
    world.settle();
    let Machines::Failed(why) = machines(&world) else {
        panic!("{:?}", machines(&world))
    };
    assert!(
        why.contains("no capacity") && why.contains("start-instance-refresh"),
        "{why}"
    );
    // A newer version is a new chance.
    world.template = 3;
    world.settle();
    assert_eq!((machines(&world), world.begun.len()), (Machines::Current, 2));
}

#[test]
fn no_more_machines_are_away_than_the_budget_allows() {
    let percent = |desired: u32, most: serde_json::Value| {
        let mut replica = World::new(1).replica;
        replica.spec.refresh = serde_json::from_value(serde_json::json!({"maxUnavailable": most})).unwrap();
        let facts = FleetFacts {
            size: FleetSize {
                min: 0,
                max: 1000,
                desired,
            },
            ..FleetFacts::default()
        };
        min_healthy_percent(&replica, &facts)
    };
    assert_eq!(percent(10, serde_json::json!(3)), 70);
    assert_eq!(percent(3, serde_json::json!(1)), 67);
    assert_eq!(percent(1000, serde_json::json!(1)), 100);
    assert_eq!(percent(8, serde_json::json!("25%")), 75);
    assert_eq!(percent(1, serde_json::json!(5)), 0);
    assert_eq!(percent(0, serde_json::json!(1)), 0);
    for desired in 1..=120_u32 {
        for most in 1..=desired {
            let healthy = u32::from(percent(desired, serde_json::json!(most)));
            assert!(
                healthy * desired >= (desired - most) * 100,
                "{most} of {desired}: {healthy}%"
            );
        }
    }
}

#[test]
fn a_stack_of_somebody_else_has_nothing_for_us() {
    let mut world = World::running(2);
    world.group = None;
    assert_eq!(world.observe(None, false).endpoint(), None);
    world
        .stack
        .as_mut()
        .unwrap()
        .tags
        .insert("cluster".into(), "other".into());
    world.replica.spec.replicas = 5;
    assert_eq!(world.next(None, false), None);
}

#[derive(Clone, Debug)]
enum Event {
    Pass(Cut),
    Time,
    Scale(u32),
    Autoscale(u32),
    Template,
    Bounds(u32),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => Just(Event::Pass(Cut::Never)),
        3 => (0usize..5).prop_map(|n| Event::Pass(Cut::After(n))),
        3 => Just(Event::Time),
        2 => (1u32..=5).prop_map(Event::Scale),
        2 => (1u32..=5).prop_map(Event::Autoscale),
        1 => Just(Event::Template),
        1 => (5u32..=12).prop_map(Event::Bounds),
    ];
    proptest::collection::vec(event, 0..40)
}

proptest! {
    /// Whatever happens between two passes, and wherever a pass is cut off: the world becomes what the spec and
    /// autoscaling want, nothing is replaced twice, and no call is made that changes nothing (`World::act` asserts both).
    #[test]
    fn it_converges_and_never_fights(events in events()) {
        let mut world = World::new(2);
        let mut chosen = 2;
        for event in events {
            match event {
                Event::Pass(cut) => world.pass(cut),
                Event::Time => world.time_passes(),
                Event::Scale(n) => {
                    world.replica.spec.replicas = n;
                    // Back to the number that was set last: nothing new was asked for.
                    chosen = if world.is_autoscalings() { world.desired() } else { n };
                }
                Event::Autoscale(n) if world.is_autoscalings() => {
                    world.group.as_mut().unwrap().size.desired = n;
                    chosen = n;
                }
                Event::Autoscale(_) => {}
                Event::Template => world.template += 1,
                Event::Bounds(max) => world.replica.spec.max_replicas = max,
            }
        }
        world.settle();
        world.settle();
        prop_assert_eq!(world.desired(), chosen);
        let facts = world.group.as_ref().unwrap();
        prop_assert_eq!(facts.members.len() as u32, chosen);
        let version = world.version();
        prop_assert!(facts.members.iter().all(|m| m.template_version.as_ref() == Some(&version)));
        prop_assert_eq!(world.next(None, false), None);
        world.gone = true;
        world.pass(Cut::After(0));
        world.pass(Cut::Never);
        prop_assert!(world.stack.is_none() && world.stored.is_none());
    }
}
