#![allow(clippy::unwrap_used)]
use super::*;
use crate::ending::NodeSeen;
use crate::fleet::{Accepts, NodeView, Serving};
use graphplane_crds::quantities::Epoch;
use graphplane_crds::replica::Publishing;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn version(version: u64) -> SeedVersion {
    SeedVersion { epoch: 1, version }
}

/// What a replica's agent has.
#[derive(Clone, Debug, Default)]
struct Agent {
    /// UID of the graph that it was made for.
    of: String,
    away: bool,
    serves: Option<u64>,
    fetching: Option<u64>,
    deleting: bool,
}

/// A graph that changes, its writer, the object store and the fleet.
#[derive(Clone, Debug)]
struct World {
    replica: Replica,
    graph: bool,
    id: &'static str,
    uid: &'static str,
    writer: bool,
    /// The state of the graph; the seed has that of when its copy was begun.
    state: u64,
    seed: Option<(u64, i64, u64)>,
    task: Task,
    /// State that the running task copied.
    copied: u64,
    cancelled: bool,
    nodes: BTreeMap<String, Agent>,
    asked: BTreeSet<String>,
    now: i64,
    published: u64,
    gone: bool,
}

impl World {
    fn new(spec: serde_json::Value) -> Self {
        let replica = serde_json::from_value(serde_json::json!({
            "apiVersion": "graphplane.dev/v1alpha1", "kind": "Replica",
            "metadata": {"name": "readers", "namespace": "default", "uid": "u-1"}, "spec": spec,
        }));
        Self {
            replica: replica.unwrap(),
            graph: true,
            id: "kg0123456789abcdef",
            uid: "g-1",
            writer: true,
            state: 1,
            seed: None,
            task: Task::None,
            copied: 0,
            cancelled: false,
            nodes: BTreeMap::new(),
            asked: BTreeSet::new(),
            now: 1_000,
            published: 0,
            gone: false,
        }
    }

    fn of(replicas: u32) -> Self {
        Self::new(serde_json::json!({"graph": "g", "replicas": replicas, "publish": {"onChange": true}}))
    }

    fn observe(&self) -> Observed {
        let writer = NodeView {
            name: "std-0".into(),
            tier: "std".into(),
            volume: Some("std-0".into()),
            serving: if self.writer { Serving::Yes } else { Serving::Lost },
            accepts: Accepts::Now,
            endpoint: None,
            epoch: Epoch(1),
            changes_in: None,
        };
        let publishing = self.replica.status.as_ref().is_some_and(|s| s.publishing.is_some());
        let node = |(name, agent): (&String, &Agent)| Node {
            name: name.clone(),
            deleting: agent.deleting,
            agent: (!agent.away).then(|| AgentSeen {
                serves: agent.serves.map(version),
                latest: agent.fetching.or(agent.serves).map(version),
                fetching: agent.fetching.is_some(),
                error: None,
            }),
        };
        Observed {
            object_store: true,
            graph: self.graph.then(|| GraphSeen {
                uid: Some(self.uid.into()),
                id: Some(self.id.parse().unwrap()),
                node: NodeSeen::Present(writer),
                mark: Some(self.state.to_string()),
            }),
            seed: self.seed.map(|(number, begun, _)| Seed {
                at: version(number),
                begun: at(begun),
            }),
            task: match publishing {
                false => Task::None,
                true if !self.writer => Task::Unknown,
                true => self.task.clone(),
            },
            cancelled: self.cancelled,
            nodes: self.nodes.iter().map(node).collect(),
            fleet: None,
            asked: self.asked.clone(),
        }
    }

    fn plan(&self) -> Plan<Action> {
        plan(&self.replica, &self.observe(), at(self.now))
    }

    fn act(&mut self, action: &Action) {
        let (task, state, now) = (self.task.clone(), self.state, self.now);
        let status = self.replica.status.get_or_insert_default();
        match action {
            Action::Publish => {
                assert!(self.writer && self.graph);
                assert!(status.publishing.is_none() || task != Task::Running, "two at once");
                status.seeds = Some(crate::names::seeds_key(&self.id.parse().unwrap(), "readers"));
                status.graph_uid = Some(self.uid.into());
                status.publishing = Some(Publishing {
                    task: "t".into(),
                    begun: Time(at(now)),
                    mark: Some(state.to_string()),
                });
                (self.task, self.copied) = (Task::Running, state);
            }
            Action::CancelPublish => (self.cancelled, self.task) = (true, Task::Interrupted),
            Action::Fleet(action) => panic!("{action:?} without fleets"),
            Action::EnsureNodes(names) => {
                assert!(self.seed.is_some(), "a node would have nothing to serve");
                for name in names {
                    // It fetches what is there when it starts.
                    let agent = Agent {
                        of: self.uid.into(),
                        fetching: self.seed.map(|s| s.0),
                        ..Agent::default()
                    };
                    assert!(self.nodes.insert(name.clone(), agent).is_none(), "{name} exists");
                }
            }
            Action::RefreshNodes(names) => {
                for name in names {
                    let agent = self.nodes.get_mut(name).unwrap();
                    assert!(!agent.away && agent.fetching.is_none() && self.asked.insert(name.clone()));
                    agent.fetching = self.seed.map(|s| s.0);
                }
                let taking_over = |a: &&Agent| !a.deleting && a.serves.is_some() && a.fetching.is_some();
                let busy = self.nodes.values().filter(taking_over).count();
                assert!(
                    busy <= nodes::budget(&self.replica, &self.observe()),
                    "{busy} nodes refresh at once"
                );
            }
            Action::RemoveNodes(names) => names
                .iter()
                .for_each(|name| self.nodes.get_mut(name).unwrap().deleting = true),
            Action::DeleteSeeds => {
                assert!(self.nodes.is_empty() && self.task != Task::Running);
                self.seed = None;
                *status = Default::default();
            }
            Action::RemoveFinalizer => {
                assert!(self.nodes.is_empty() && self.seed.is_none(), "something is left");
                self.gone = true;
            }
        }
    }

    /// One pass: acts until nothing is left to do, and writes the status.
    fn pass(&mut self) {
        (self.cancelled, self.asked) = (false, BTreeSet::new());
        for _ in 0..20 {
            let Some(action) = self.plan().actions.first().cloned() else {
                let (task, seed) = (self.observe().task, self.seed.is_some());
                let status = self.replica.status.get_or_insert_default();
                if task == Task::Completed && seed {
                    status.published_mark = published_mark(status, &task).map(str::to_owned);
                    status.publishing = None;
                }
                return;
            };
            self.act(&action);
            if self.gone {
                return;
            }
        }
        panic!("it goes in a circle: {self:?}");
    }

    fn publication_ends(&mut self, how: Task) {
        if self.task == Task::Running {
            if how == Task::Completed {
                self.published += 1;
                self.seed = Some((self.published, self.now, self.copied));
            }
            self.task = how;
        }
    }

    /// Everything that is under way ends well.
    fn time_passes(&mut self) {
        self.now += 100;
        self.publication_ends(Task::Completed);
        self.nodes.retain(|_, agent| !agent.deleting);
        let newest = self.seed.map(|s| s.0);
        for agent in self.nodes.values_mut() {
            if agent.away {
                // It starts again, and looks.
                (agent.away, agent.fetching) = (false, newest);
            }
            agent.serves = agent.fetching.take().or(agent.serves);
        }
    }

    fn settle(&mut self) {
        for _ in 0..12 {
            self.pass();
            if self.gone {
                return;
            }
            self.time_passes();
        }
        self.pass();
    }

    fn says(&self, type_: &str) -> (Option<bool>, &'static str) {
        let says = self.plan().says;
        let found = says.iter().find(|s| s.type_ == type_).unwrap();
        (found.status, found.reason)
    }
}

#[test]
fn a_fleet_starts_when_there_is_something_to_serve() {
    let mut world = World::of(2);
    assert_eq!(world.plan().actions, [Action::Publish]);
    world.pass();
    assert!(world.nodes.is_empty());
    assert_eq!(world.says(conditions::READY), (Some(false), reasons::PUBLISHING));
    world.time_passes();
    world.pass();
    assert_eq!(world.nodes.len(), 2);
    assert_eq!(world.says(conditions::READY), (Some(false), reasons::NODE_STARTING));
    assert_eq!(world.plan().requeue, Some(POLL));
    world.settle();
    assert_eq!(world.says(conditions::READY), (Some(true), reasons::READY));
    assert_eq!(world.says(conditions::UP_TO_DATE).0, Some(true));
    let plan = world.plan();
    assert!(plan.actions.is_empty() && plan.requeue.is_none(), "{plan:?}");
    assert_eq!(world.published, 1);
}

#[test]
fn a_graph_that_gets_the_name_of_another_has_its_own_seeds_and_nodes() {
    // Its id is another one as a rule; who chooses ids may choose the same again.
    for id in ["kgfedcba9876543210", "kg0123456789abcdef"] {
        let mut world = World::new(serde_json::json!({"graph": "g", "replicas": 2}));
        world.settle();
        let nodes: Vec<String> = world.nodes.keys().cloned().collect();
        (world.id, world.uid) = (id, "g-2");
        assert_eq!(world.plan().actions, [Action::RemoveNodes(nodes)]);
        assert_eq!(world.says(conditions::READY), (Some(false), reasons::PUBLISHING));
        // Before its database is made, the old seeds are as wrong.
        let mut early = world.observe();
        early.graph.as_mut().unwrap().id = None;
        let removes = |actions: &[Action]| matches!(actions, [Action::RemoveNodes(_)]);
        assert!(removes(&plan(&world.replica, &early, at(world.now)).actions));
        world.settle();
        let status = world.replica.status.clone().unwrap();
        assert_eq!(status.seeds, Some(format!("seeds/{id}/readers")));
        assert_eq!((world.published, world.nodes.len()), (2, 2));
        assert!(world.nodes.values().all(|agent| agent.of == "g-2"), "{world:?}");
        assert_eq!(world.says(conditions::READY), (Some(true), reasons::READY));
    }
    // What an operator has published that noted no UID is the graph's as long as the id is.
    let mut world = World::of(1);
    world.settle();
    world.replica.status.as_mut().unwrap().graph_uid = None;
    assert!(world.plan().actions.is_empty());
    world.id = "kgfedcba9876543210";
    assert!(!world.plan().actions.is_empty());
}

#[test]
fn a_change_is_published_after_the_interval_and_taken_up_one_by_one() {
    let mut world = World::of(3);
    world.settle();
    let (_, begun, _) = world.seed.unwrap();
    world.now = begun + 10;
    world.state += 1;
    assert!(world.plan().actions.is_empty());
    assert_eq!(
        world.plan().requeue,
        Some(Duration::from_secs(50)),
        "a minute where none is named"
    );
    world.now = begun + 60;
    world.pass();
    world.publication_ends(Task::Completed);
    world.pass();
    let fetching = |world: &World| world.nodes.values().filter(|a| a.fetching.is_some()).count();
    assert_eq!(fetching(&world), 1);
    assert_eq!(
        world.says(conditions::READY).0,
        Some(true),
        "the old seed is served meanwhile"
    );
    assert_eq!(world.says(conditions::UP_TO_DATE), (Some(false), reasons::REFRESHING));
    world.pass();
    assert_eq!(fetching(&world), 1, "the others wait");
    world.settle();
    assert!(world.nodes.values().all(|a| a.serves == Some(2)));
}

#[test]
fn nothing_is_published_again_unless_the_spec_says_so() {
    let mut world = World::new(serde_json::json!({"graph": "g", "replicas": 1}));
    world.settle();
    world.state += 1;
    world.settle();
    assert_eq!(world.published, 1);
    let mut empty = World::of(1);
    empty.settle();
    empty.replica.spec.replicas = 0;
    empty.state += 1;
    empty.settle();
    assert_eq!((empty.published, empty.nodes.len()), (1, 0), "nobody would read it");
    assert_eq!(empty.says(conditions::READY).0, Some(true));
}

#[test]
fn a_seed_that_is_refused_goes_no_further_than_the_budget() {
    let mut world = World::of(3);
    world.settle();
    let mut seen = world.observe();
    seen.seed = Some(Seed {
        at: version(2),
        begun: at(world.now),
    });
    let first = seen.nodes[0].name.clone();
    let plan_of = |seen: &Observed| plan(&world.replica, seen, at(world.now));
    assert_eq!(plan_of(&seen).actions, [Action::RefreshNodes(vec![first.clone()])]);
    let agent = seen.nodes[0].agent.as_mut().unwrap();
    (agent.latest, agent.error) = (Some(version(2)), Some("the hash differs".into()));
    let refused = plan_of(&seen);
    assert!(
        refused.actions.is_empty() && refused.requeue == Some(RETRY),
        "{refused:?}"
    );
    let late = refused.says.iter().find(|s| s.type_ == conditions::UP_TO_DATE).unwrap();
    assert_eq!(late.reason, reasons::SEED_NOT_SERVED);
    assert!(late.message.contains(&first) && late.message.contains("the hash differs"));
    // The next one is another matter.
    seen.seed = Some(Seed {
        at: version(3),
        begun: at(world.now),
    });
    assert_eq!(plan_of(&seen).actions, [Action::RefreshNodes(vec![first])]);
}

#[test]
fn a_publication_that_fails_says_why_and_is_repeated() {
    let mut world = World::of(1);
    world.pass();
    world.publication_ends(Task::Failed("no space left".into()));
    assert_eq!(world.says(conditions::READY), (Some(false), reasons::PUBLISH_FAILED));
    assert_eq!(world.plan().requeue, Some(Duration::from_secs(60)));
    world.now += 60;
    assert_eq!(world.plan().actions, [Action::Publish]);
    world.pass();
    world.publication_ends(Task::Interrupted);
    assert!(world.plan().actions.is_empty());
    world.now += 5;
    assert_eq!(world.plan().actions, [Action::Publish]);
    world.pass();
    // The writer says that it is done, and nothing is there.
    world.task = Task::Completed;
    assert_eq!(world.says(conditions::READY), (Some(false), reasons::PUBLISH_FAILED));
    world.writer = false;
    assert_eq!(world.says(conditions::READY), (Some(false), reasons::NODE_LOST));
}

#[test]
fn a_fleet_without_its_graph_goes_and_comes_back() {
    let mut world = World::of(2);
    world.settle();
    world.graph = false;
    world.settle();
    assert!(world.nodes.is_empty() && world.seed.is_none());
    assert_eq!(world.says(conditions::READY), (Some(false), reasons::GRAPH_NOT_FOUND));
    world.graph = true;
    world.settle();
    assert_eq!(world.says(conditions::READY).0, Some(true));
}

#[test]
fn the_share_of_a_budget_is_of_the_fleet_and_never_nothing() {
    let budget = |replicas: u32, most: serde_json::Value| {
        let spec = serde_json::json!({"graph": "g", "replicas": replicas, "refresh": {"maxUnavailable": most}});
        let world = World::new(spec);
        nodes::budget(&world.replica, &world.observe())
    };
    assert_eq!(budget(8, serde_json::json!("25%")), 2);
    assert_eq!(budget(3, serde_json::json!("0%")), 1);
    assert_eq!(budget(3, serde_json::json!(0)), 1);
    assert_eq!(budget(3, serde_json::json!(2)), 2);
}

#[test]
fn what_this_version_does_not_do_is_named() {
    let spec =
        serde_json::json!({"graph": "g", "replicas": 0, "publish": {"schedule": "@daily"}, "targetCpuPercent": 50});
    let mut world = World::new(spec);
    world.settle();
    let says = world.plan().says;
    let ready = says.iter().find(|s| s.type_ == conditions::READY).unwrap();
    assert!(ready.message.contains("spec.publish.schedule") && ready.message.contains("spec.targetCpuPercent"));
    let mut bare = world.observe();
    bare.object_store = false;
    let says = plan(&world.replica, &bare, at(0)).says;
    assert!(
        says.iter()
            .any(|s| s.type_ == conditions::STALLED && s.status == Some(true))
    );
}

#[derive(Clone, Debug)]
enum Event {
    Change,
    Published,
    NotPublished,
    CutOff,
    Fetched(usize),
    Dies(usize),
    Returns(usize),
    Stopped,
    WriterGoes,
    WriterComes,
    Scale(u32),
    Wait(i64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        Just(Event::Change),
        Just(Event::Published),
        Just(Event::NotPublished),
        Just(Event::CutOff),
        (0usize..5).prop_map(Event::Fetched),
        (0usize..5).prop_map(Event::Dies),
        (0usize..5).prop_map(Event::Returns),
        Just(Event::Stopped),
        Just(Event::WriterGoes),
        Just(Event::WriterComes),
        (0u32..5).prop_map(Event::Scale),
        (1i64..100).prop_map(Event::Wait),
    ];
    proptest::collection::vec(event, 0..60)
}

impl World {
    fn agent(&mut self, n: usize) -> Option<&mut Agent> {
        self.nodes.values_mut().nth(n)
    }

    fn happens(&mut self, event: Event) {
        let newest = self.seed.map(|s| s.0);
        match event {
            Event::Change => self.state += 1,
            Event::Published => self.publication_ends(Task::Completed),
            Event::NotPublished => self.publication_ends(Task::Failed("why".into())),
            Event::CutOff => self.publication_ends(Task::Interrupted),
            Event::Fetched(n) => {
                if let Some(agent) = self.agent(n).filter(|a| !a.away) {
                    agent.serves = agent.fetching.take().or(agent.serves);
                }
            }
            Event::Dies(n) => {
                if let Some(agent) = self.agent(n) {
                    (agent.away, agent.fetching) = (true, None);
                }
            }
            Event::Returns(n) => {
                if let Some(agent) = self.agent(n).filter(|a| a.away) {
                    agent.away = false;
                    // What lies on its disk it serves at once.
                    agent.fetching = newest.filter(|_| agent.serves.is_none());
                }
            }
            Event::Stopped => self.nodes.retain(|_, agent| !agent.deleting),
            Event::WriterGoes => self.writer = false,
            Event::WriterComes => self.writer = true,
            Event::Scale(n) => self.replica.spec.replicas = n,
            Event::Wait(seconds) => self.now += seconds,
        }
    }
}

proptest! {
    /// Whatever happens between two passes, and wherever a pass is cut off: the budget holds, no two publications run, no
    /// node is made twice (asserted in `act`); in the end the wanted nodes serve the newest state, and deleted, nothing is
    /// left.
    #[test]
    fn it_converges_and_ends(
        events in events(), replicas in 0u32..5, most in 0u32..4, steps in proptest::collection::vec(0usize..4, 60),
    ) {
        let spec = serde_json::json!({"graph": "g", "replicas": replicas, "publish": {"onChange": true, "minIntervalSeconds": 10},
            "refresh": {"maxUnavailable": most}});
        let mut world = World::new(spec);
        for (event, steps) in events.into_iter().zip(steps) {
            world.happens(event);
            (world.cancelled, world.asked) = (false, BTreeSet::new());
            // A pass that is killed after so many actions; with three it mostly comes to its end.
            for _ in 0..steps {
                if let Some(action) = world.plan().actions.first().cloned() {
                    world.act(&action);
                }
            }
            if steps == 3 {
                world.pass();
            }
        }
        world.writer = true;
        world.settle();
        let wanted = world.replica.spec.replicas as usize;
        prop_assert_eq!(world.nodes.len(), wanted);
        let (number, _, state) = world.seed.unwrap();
        prop_assert!(wanted == 0 || state == world.state, "{:?}", world);
        prop_assert!(world.nodes.values().all(|a| a.serves == Some(number)));
        prop_assert_eq!(world.says(conditions::READY).0, Some(true));
        prop_assert!(world.plan().actions.is_empty() && world.plan().requeue.is_none());
        world.replica.metadata.deletion_timestamp = Some(Time(at(world.now)));
        world.settle();
        prop_assert!(world.gone);
    }
}

/// Machines of a group that serve the seed with this number, as the plan sees them.
fn of_a_group(world: &World, serves: &[u64]) -> Observed {
    let group = fleet_plan::FleetFacts {
        size: fleet_plan::FleetSize {
            min: 0,
            max: 10,
            desired: serves.len() as u32,
        },
        ..Default::default()
    };
    let nodes = serves.iter().enumerate().map(|(n, number)| Node {
        name: format!("i-{n}"),
        deleting: false,
        agent: Some(AgentSeen {
            serves: Some(version(*number)),
            latest: Some(version(*number)),
            ..AgentSeen::default()
        }),
    });
    Observed {
        nodes: nodes.collect(),
        fleet: Some(fleet_plan::Observed {
            key_sha256: Some("hash".into()),
            group: Some(("g-1".into(), group)),
            ..Default::default()
        }),
        ..world.observe()
    }
}

#[test]
fn a_new_seed_is_taken_up_by_the_machines_of_a_group_within_the_budget_and_changes_nothing_else() {
    let mut world = World::of(3);
    world.replica.spec.target_cpu_percent = Some(60);
    world.seed = Some((2, 900, 1));
    let status = world.replica.status.get_or_insert_default();
    status.published_mark = Some("1".into());
    let before = plan(&world.replica, &of_a_group(&world, &[2, 2, 2]), at(1_000));
    let refreshes = |plan: &Plan<Action>| -> Vec<String> {
        let named = plan.actions.iter().filter_map(|action| match action {
            Action::RefreshNodes(names) => Some(names.clone()),
            _ => None,
        });
        named.flatten().collect()
    };
    assert!(refreshes(&before).is_empty());
    let after = plan(&world.replica, &of_a_group(&world, &[1, 1, 2]), at(1_000));
    assert_eq!(refreshes(&after), ["i-0"]);
    // Whatever the group itself still needs is the same before and after.
    let of_group = |plan: &Plan<Action>| -> Vec<Action> {
        let fleet = plan.actions.iter().filter(|action| matches!(action, Action::Fleet(_)));
        fleet.cloned().collect()
    };
    assert_eq!(of_group(&before), of_group(&after));
    assert!(
        !after
            .actions
            .iter()
            .any(|a| matches!(a, Action::EnsureNodes(_) | Action::RemoveNodes(_)))
    );
    // One that autoscaling has just started does not make the fleet unready, and one it removed neither.
    for serves in [&[2, 2, 2, 2][..], &[2, 2][..]] {
        let plan = plan(&world.replica, &of_a_group(&world, serves), at(1_000));
        let up_to_date = plan.says.iter().find(|s| s.type_ == conditions::UP_TO_DATE);
        assert_eq!(up_to_date.and_then(|s| s.status), Some(true));
    }
    assert_eq!(unsupported(&world.replica, &of_a_group(&world, &[2])), "");
    assert!(unsupported(&world.replica, &world.observe()).contains("spec.targetCpuPercent"));
    world.replica.metadata.deletion_timestamp = Some(Time(at(1_000)));
    let ending = plan(&world.replica, &of_a_group(&world, &[2]), at(1_000));
    assert_eq!(ending.actions, [Action::Fleet(fleet_plan::Action::DeleteKey)]);
}
