#![allow(clippy::unwrap_used)]
use super::*;
use graphplane_crds::node::{GraphNodeSpec, GraphNodeStatus, Registration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A world with one node, a provider and an agent that registers when asked to.
#[derive(Clone, Debug)]
struct World {
    /// It has no volume.
    replica: bool,
    node: GraphNode,
    volume: Option<(Option<String>, Option<Epoch>)>,
    instance: Option<Instance>,
    secret: bool,
    lease: Option<LeaseFacts>,
    holds: u32,
    hold_until: Option<Timestamp>,
    now: i64,
    launches: Vec<Epoch>,
    registered: Vec<Epoch>,
    epochs: Vec<Epoch>,
    gone: bool,
}

fn token(epoch: Option<Epoch>) -> String {
    epoch.map(|e| format!("token-{e}")).unwrap_or_default()
}

impl World {
    fn new() -> Self {
        let spec = GraphNodeSpec {
            tier: "std".into(),
            role: Default::default(),
            zone: "local".into(),
            volume: Some("std-0".into()),
            instance_type: None,
            replica: None,
        };
        let mut node = GraphNode::new("std-0", spec);
        node.status = Some(GraphNodeStatus::default());
        Self {
            replica: false,
            node,
            volume: Some((None, None)),
            instance: None,
            secret: false,
            lease: None,
            holds: 0,
            hold_until: None,
            now: 1000,
            launches: vec![],
            registered: vec![],
            epochs: vec![],
            gone: false,
        }
    }

    fn observe(&self) -> Observed {
        Observed {
            tier: true,
            volume: match &self.volume {
                _ if self.replica => VolumeSeen::NotNeeded,
                None => VolumeSeen::Missing,
                Some((attached_to, epoch)) => VolumeSeen::Present {
                    ready: true,
                    deleting: false,
                    attached_to: attached_to.clone(),
                    epoch: *epoch,
                },
            },
            instance: self.instance.clone(),
            token: token(self.status().epoch),
            secret: self.secret,
            lease: self.lease.clone(),
            holds: self.holds,
            hold_until: self.hold_until,
            watched_since: at(0),
            fleet_is_quiet: false,
            pace: Pace {
                registration: Duration::from_secs(60),
                stop: Duration::from_secs(30),
            },
        }
    }

    fn plan(&self) -> Plan<Action, NodePhase> {
        let plan = plan(&self.node, &self.observe(), at(self.now));
        assert_eq!(
            plan,
            super::plan(&self.node, &self.observe(), at(self.now)),
            "a plan depends on nothing else"
        );
        plan
    }

    fn status(&self) -> GraphNodeStatus {
        self.node.status.clone().unwrap()
    }

    fn alive(&self) -> bool {
        self.instance.as_ref().is_some_and(|i| i.state != InstanceState::Dead)
    }

    fn act(&mut self, action: &Action) {
        let status = self.node.status.as_mut().unwrap();
        match action {
            Action::EnsureSecret => self.secret = true,
            Action::ClaimVolume(epoch) => {
                assert!(!self.replica, "there is nothing to claim");
                assert!(
                    self.instance.as_ref().is_none_or(|i| i.state == InstanceState::Dead),
                    "claimed from a live machine"
                );
                let (attached, old) = self.volume.as_mut().unwrap();
                assert!(old.is_none_or(|old| old < *epoch), "an epoch went down");
                (*attached, *old) = (Some("std-0".into()), Some(*epoch));
            }
            Action::AdoptEpoch(epoch) => {
                assert!(status.epoch.is_none_or(|old| old < *epoch));
                status.epoch = Some(*epoch);
                status.provider_id = None;
                self.epochs.push(*epoch);
            }
            Action::Launch => {
                assert!(self.secret);
                let epoch = status.epoch.unwrap();
                assert!(
                    self.replica || self.volume.as_ref().unwrap().1 == Some(epoch),
                    "started without its volume's epoch"
                );
                let token = token(Some(epoch));
                if self
                    .instance
                    .as_ref()
                    .is_some_and(|i| i.token == token && i.state != InstanceState::Dead)
                {
                    return; // the provider recognises the token
                }
                assert!(!self.alive(), "two machines");
                assert!(!self.registered.contains(&epoch), "two agents wrote under one epoch");
                self.launches.push(epoch);
                let started = at(self.now);
                self.instance = Some(Instance {
                    id: "local:///std-0".into(),
                    token,
                    state: InstanceState::Running,
                    started,
                });
            }
            Action::StopInstance { force: false } => {
                self.instance.as_mut().unwrap().state = InstanceState::Stopping { since: at(self.now) };
            }
            Action::StopInstance { force: true } => self.instance.as_mut().unwrap().state = InstanceState::Dead,
            Action::ForgetInstance => self.instance = None,
            Action::ReleaseVolume => self.volume.as_mut().unwrap().0 = None,
            Action::DeleteCredentials => (self.secret, self.lease) = (false, None),
            Action::RemoveFinalizer => {
                assert!(!self.alive() && self.holds == 0, "the object went before its machine");
                self.gone = true;
            }
        }
        // The status writer notes the machine as soon as it sees it.
        if self.alive() {
            self.node.status.as_mut().unwrap().provider_id = Some("local:///std-0".into());
        }
    }

    fn agent_registers(&mut self) {
        if !self
            .instance
            .as_ref()
            .is_some_and(|i| i.state == InstanceState::Running)
        {
            return;
        }
        let epoch = self.status().epoch.unwrap();
        self.registered.push(epoch);
        self.node.status.as_mut().unwrap().registration = Some(Registration {
            address: format!("http://127.0.0.1:{epoch}"),
            instance_id: "i".into(),
            agent_version: "0".into(),
            engines: Default::default(),
            capacity: Default::default(),
            epoch,
            time: Time(at(self.now)),
        });
        self.lease = Some(LeaseFacts {
            renewed: at(self.now),
            duration: Duration::from_secs(15),
            usage: None,
        });
    }

    /// Acts until nothing is left to do.
    fn settle(&mut self) {
        for _ in 0..50 {
            let Some(action) = self.plan().actions.first().cloned() else {
                return;
            };
            self.act(&action);
            if self.gone {
                return;
            }
        }
        panic!("it never settles: {self:?}");
    }

    fn phase(&self) -> NodePhase {
        self.plan().phase
    }
}

#[test]
fn a_node_starts_registers_and_is_ready() {
    let mut world = World::new();
    world.settle();
    assert_eq!(
        (world.phase(), world.launches.clone()),
        (NodePhase::Starting, vec![Epoch(1)])
    );
    world.agent_registers();
    assert_eq!(world.phase(), NodePhase::Ready);
    assert_eq!(
        world.plan().requeue,
        Some(Duration::from_secs(10)),
        "it looks again when the lease would be late"
    );
    assert!(world.plan().actions.is_empty());
}

#[test]
fn a_replica_needs_no_volume_and_raises_its_epoch_itself() {
    let mut world = World::new();
    world.replica = true;
    world.settle();
    world.agent_registers();
    assert_eq!((world.phase(), &world.launches), (NodePhase::Ready, &vec![Epoch(1)]));
    world.instance.as_mut().unwrap().state = InstanceState::Dead;
    assert_eq!(world.plan().actions, [Action::AdoptEpoch(Epoch(2)), Action::Launch]);
    assert_eq!(world.volume, Some((None, None)), "no volume was touched");
}

#[test]
fn a_machine_that_died_starts_again_under_the_next_epoch() {
    let mut world = World::new();
    world.settle();
    world.agent_registers();
    world.instance.as_mut().unwrap().state = InstanceState::Dead;
    assert_eq!(
        world.plan().actions,
        [
            Action::ClaimVolume(Epoch(2)),
            Action::AdoptEpoch(Epoch(2)),
            Action::Launch
        ]
    );
    world.settle();
    assert_eq!(world.launches, [Epoch(1), Epoch(2)]);
    assert_eq!(
        world.phase(),
        NodePhase::Starting,
        "the registration of the dead one does not count"
    );
    world.agent_registers();
    assert_eq!(world.phase(), NodePhase::Ready);
}

#[test]
fn a_machine_that_dies_at_once_waits_before_it_starts_again() {
    let mut world = World::new();
    world.settle();
    world.instance.as_mut().unwrap().state = InstanceState::Dead;
    world.hold_until = Some(at(1010));
    let held = world.plan();
    assert!(held.actions.is_empty() && held.requeue == Some(Duration::from_secs(10)));
    world.now = 1010;
    assert!(!world.plan().actions.is_empty());
}

#[test]
fn an_agent_that_never_registers_is_started_anew() {
    let mut world = World::new();
    world.settle();
    assert_eq!(world.plan().requeue, Some(Duration::from_secs(60)));
    world.now += 60;
    assert_eq!(world.plan().actions, [Action::StopInstance { force: false }]);
    world.settle();
    assert!(world.plan().requeue.is_some(), "it waits for the machine to stop");
    world.now += 30;
    world.settle();
    assert_eq!(world.launches, [Epoch(1), Epoch(2)]);
}

#[test]
fn a_stuck_agent_is_replaced_only_after_it_fenced_itself() {
    let mut world = World::new();
    world.settle();
    world.agent_registers();
    world.now += 15;
    let lost = world.plan();
    assert!(lost.actions.is_empty() && lost.phase == NodePhase::Lost);
    world.now += 45;
    assert_eq!(world.plan().actions, [Action::StopInstance { force: false }]);
    let mut seen = world.observe();
    seen.fleet_is_quiet = true;
    assert!(
        plan(&world.node, &seen, at(world.now)).actions.is_empty(),
        "when all are late, the fault is ours"
    );
    seen = Observed {
        watched_since: at(world.now - 10),
        ..world.observe()
    };
    assert!(
        plan(&world.node, &seen, at(world.now)).actions.is_empty(),
        "the operator has only just come back"
    );
}

#[test]
fn a_volume_of_somebody_else_is_left_alone() {
    let mut world = World::new();
    world.volume = Some((Some("std-9".into()), Some(Epoch(4))));
    assert!(world.plan().actions.is_empty());
    world.volume = Some((None, Some(Epoch(4))));
    world.settle();
    assert_eq!(world.launches, [Epoch(5)], "the epoch goes on where the volume was");
}

#[test]
fn deletion_waits_for_graphs_then_stops_the_machine_and_leaves_nothing() {
    let mut world = World::new();
    world.settle();
    world.agent_registers();
    world.holds = 2;
    world.node.metadata.deletion_timestamp = Some(Time(at(1000)));
    assert!(world.plan().actions.is_empty());
    world.instance.as_mut().unwrap().state = InstanceState::Dead;
    world.settle();
    assert_eq!(
        world.launches.len(),
        2,
        "the graphs on it still have to be deleted through its agent"
    );
    world.holds = 0;
    world.settle();
    assert!(!world.gone, "the machine is still stopping");
    world.instance.as_mut().unwrap().state = InstanceState::Dead;
    world.settle();
    assert!(world.gone && world.instance.is_none() && !world.secret && world.lease.is_none());
    assert_eq!(world.volume, Some((None, Some(Epoch(2)))));
}

#[derive(Clone, Debug)]
enum Event {
    Registers,
    Dies,
    Forgotten,
    LosesAnswer,
    Wait(i64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => Just(Event::Registers),
        2 => Just(Event::Dies),
        1 => Just(Event::Forgotten),
        3 => Just(Event::LosesAnswer),
        3 => (1i64..70).prop_map(Event::Wait),
    ];
    proptest::collection::vec(event, 0..40)
}

proptest! {
    /// Whatever happens between any two actions: no two machines live, no epoch is used twice or goes down (asserted in
    /// `act`), and in the end the node is ready; and deleted, it leaves nothing.
    #[test]
    fn one_writer_always(events in events(), delete in any::<bool>(), replica in any::<bool>()) {
        let mut world = World::new();
        world.replica = replica;
        for event in events {
            match event {
                Event::Registers => world.agent_registers(),
                Event::Dies => world.instance.iter_mut().for_each(|i| i.state = InstanceState::Dead),
                Event::Forgotten => world.instance = world.instance.take().filter(|i| i.state != InstanceState::Dead),
                Event::Wait(seconds) => world.now += seconds,
                Event::LosesAnswer => {
                    // The write to the status after the action is lost; what the action did elsewhere stays.
                    if let Some(action) = world.plan().actions.first().cloned() {
                        let before = world.node.clone();
                        world.act(&action);
                        if !matches!(action, Action::AdoptEpoch(_)) {
                            world.node = before;
                        }
                    }
                    continue;
                }
            }
            if let Some(action) = world.plan().actions.first().cloned() {
                world.act(&action);
            }
        }
        prop_assert!(world.epochs.is_sorted());
        for _ in 0..5 {
            world.settle();
            world.agent_registers();
            if let Some(Instance { state: InstanceState::Stopping { .. }, .. }) = world.instance {
                world.instance.as_mut().unwrap().state = InstanceState::Dead;
            }
        }
        prop_assert_eq!(world.phase(), NodePhase::Ready);
        prop_assert!(world.plan().actions.is_empty());
        if delete {
            world.node.metadata.deletion_timestamp = Some(Time(at(world.now)));
            for _ in 0..3 {
                world.settle();
                world.instance.iter_mut().for_each(|i| i.state = InstanceState::Dead);
            }
            prop_assert!(world.gone && world.instance.is_none());
        }
    }
}
