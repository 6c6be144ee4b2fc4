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
    /// Its disks are attached, and its listings are behind.
    remote: bool,
    disk: Attachment,
    /// The disk as it was before its last change, which an old listing shows.
    disk_before: Attachment,
    stale: bool,
    /// When the present operator began; it has not seen what was started before that until then.
    watched_since: i64,
    hidden_until: i64,
    missing: Option<String>,
    its_turn: bool,
    age: Age,
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
            remote: false,
            disk: Attachment::NotNeeded,
            disk_before: Attachment::NotNeeded,
            stale: false,
            watched_since: 0,
            hidden_until: 0,
            missing: None,
            its_turn: false,
            age: Age::Current,
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

    /// A world in which disks are attached and listings are behind.
    fn remote() -> Self {
        Self {
            remote: true,
            disk: Attachment::Detached,
            disk_before: Attachment::Detached,
            ..Self::new()
        }
    }

    fn observe(&self) -> Observed {
        let hidden = self.now < self.hidden_until && self.alive();
        Observed {
            tier: true,
            missing: self.missing.clone(),
            disk: if self.stale { &self.disk_before } else { &self.disk }.clone(),
            asked_to_detach: false,
            age: self.age.clone(),
            its_turn: self.its_turn,
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
            instance: self.instance.clone().filter(|_| !hidden),
            token: token(self.status().epoch),
            secret: self.secret,
            lease: self.lease.clone(),
            holds: self.holds,
            hold_until: self.hold_until,
            watched_since: at(self.watched_since),
            fleet_is_quiet: false,
            pace: Pace {
                registration: Duration::from_secs(60),
                stop: Duration::from_secs(30),
                look: self.remote.then_some(Duration::from_secs(5)),
                lag: Duration::from_secs(if self.remote { 60 } else { 0 }),
            },
        }
    }

    fn set_disk(&mut self, disk: Attachment) {
        self.disk_before = std::mem::replace(&mut self.disk, disk);
    }

    fn machine(&self) -> String {
        self.instance.as_ref().map(|i| i.name().to_owned()).unwrap_or_default()
    }

    /// The provider goes on with what it began.
    fn progresses(&mut self) {
        if let Some(instance) = self.instance.as_mut().filter(|i| i.state == InstanceState::Starting) {
            instance.state = InstanceState::Running;
        }
        match self.disk.clone() {
            Attachment::Attaching(to) => self.set_disk(Attachment::Attached(to)),
            Attachment::Detaching(_) => self.set_disk(Attachment::Detached),
            _ => {}
        }
    }

    fn dies(&mut self) {
        let machine = self.machine();
        let Some(instance) = &mut self.instance else { return };
        instance.state = InstanceState::Dead;
        if matches!(&self.disk, Attachment::Attaching(to) | Attachment::Attached(to) if *to == machine) {
            self.set_disk(Attachment::Detaching(machine));
        }
    }

    /// Another operator goes on; what was started a moment ago is not listed yet.
    fn operator_restarts(&mut self) {
        self.watched_since = self.now;
        self.hidden_until = self.now + 20;
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
                let free = matches!(self.disk, Attachment::NotNeeded | Attachment::Detached);
                assert!(free || self.stale, "claimed while {}", self.disk);
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
                // What this operator has asked for it remembers.
                self.hidden_until = 0;
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
                let (id, state) = match self.remote {
                    true => (format!("aws:///a/i-{}", self.launches.len()), InstanceState::Starting),
                    false => ("local:///std-0".to_owned(), InstanceState::Running),
                };
                self.instance = Some(Instance {
                    id,
                    token,
                    state,
                    started,
                    notice: None,
                    template: None,
                });
            }
            Action::AttachDisk { machine } => {
                let newest = self.volume.as_ref().unwrap().1;
                let instance = self.instance.as_ref().unwrap();
                assert_eq!(
                    (instance.name(), instance.state),
                    (machine.as_str(), InstanceState::Running)
                );
                assert_eq!(instance.token, token(newest), "attached under an epoch that is over");
                // The provider refuses unless it is free.
                if self.disk == Attachment::Detached {
                    self.set_disk(Attachment::Attaching(machine.clone()));
                }
            }
            Action::DetachDisk { machine, force } => {
                assert!(!self.alive(), "detached while a machine lives");
                match self.disk.clone() {
                    // The provider detaches it from that machine and from no other.
                    Attachment::Attached(from) | Attachment::Detaching(from) if from != *machine => {}
                    Attachment::Attached(from) if !force => self.set_disk(Attachment::Detaching(from)),
                    Attachment::Detaching(_) if !force => {}
                    _ => self.set_disk(Attachment::Detached),
                }
            }
            Action::StopInstance { force: false } => {
                self.instance.as_mut().unwrap().state = InstanceState::Stopping { since: at(self.now) };
            }
            Action::StopInstance { force: true } => self.dies(),
            Action::ForgetInstance => self.instance = None,
            Action::ReleaseVolume => self.volume.as_mut().unwrap().0 = None,
            Action::DeleteCredentials => (self.secret, self.lease) = (false, None),
            Action::RemoveFinalizer => {
                assert!(!self.alive() && self.holds == 0, "the object went before its machine");
                self.gone = true;
            }
        }
        // The status writer notes the machine as soon as it sees it.
        if let Some(instance) = self.instance.as_ref().filter(|i| i.state != InstanceState::Dead) {
            self.node.status.as_mut().unwrap().provider_id = Some(instance.id.clone());
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
        let machine = self.machine();
        if self.remote && !self.replica && self.disk != Attachment::Attached(machine) {
            return; // it waits for its disk
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

/// A remote world in which everything runs.
fn remote_and_ready() -> World {
    let mut world = World::remote();
    for _ in 0..4 {
        world.settle();
        world.progresses();
    }
    world.agent_registers();
    assert_eq!(world.phase(), NodePhase::Ready);
    world
}

#[test]
fn a_machine_gets_its_disk_once_it_runs() {
    let mut world = World::remote();
    world.missing = Some("waits for the stack".into());
    assert!(world.plan().actions.is_empty() && world.phase() == NodePhase::Pending);
    world.missing = None;
    world.settle();
    assert_eq!(world.launches, [Epoch(1)]);
    assert_eq!(
        world.plan().requeue,
        Some(Duration::from_secs(5)),
        "nobody tells that it runs"
    );
    world.progresses();
    let attach = Action::AttachDisk { machine: "i-1".into() };
    assert_eq!(world.plan().actions, [attach]);
    let volume_ready = |world: &World| {
        let plan = world.plan();
        plan.says
            .iter()
            .find(|s| s.type_ == conditions::VOLUME_READY)
            .unwrap()
            .status
    };
    world.settle();
    assert_eq!(
        (world.disk.clone(), volume_ready(&world)),
        (Attachment::Attaching("i-1".into()), Some(false))
    );
    world.progresses();
    world.agent_registers();
    assert_eq!((world.phase(), volume_ready(&world)), (NodePhase::Ready, Some(true)));
    assert_eq!(
        world.plan().requeue,
        Some(Duration::from_secs(10)),
        "in peace only the lease is looked at"
    );
}

#[test]
fn the_next_epoch_begins_when_the_disk_is_free() {
    let mut world = remote_and_ready();
    world.dies();
    let waits = world.plan();
    assert!(waits.actions.is_empty() && waits.requeue == Some(Duration::from_secs(5)));
    world.stale = true;
    let detach = |force| Action::DetachDisk {
        machine: "i-1".into(),
        force,
    };
    assert_eq!(world.plan().actions, [detach(false)], "it helps");
    world.stale = false;
    let condition = k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition {
        type_: conditions::VOLUME_READY.into(),
        status: "False".into(),
        reason: reasons::DETACHED.into(),
        last_transition_time: Time(at(world.now)),
        message: String::new(),
        observed_generation: None,
    };
    world.node.status.as_mut().unwrap().conditions = vec![condition];
    world.now += 29;
    assert!(world.plan().actions.is_empty());
    world.now += 1;
    assert_eq!(world.plan().actions, [detach(true)], "its machine is certainly dead");
    let mut asked = world.observe();
    asked.asked_to_detach = true;
    assert!(
        plan(&world.node, &asked, at(world.now)).actions.is_empty(),
        "once in a pass"
    );
    let mut unknown = world.observe();
    unknown.disk = Attachment::Detaching("i-9".into());
    assert!(
        plan(&world.node, &unknown, at(world.now)).actions.is_empty(),
        "nothing is taken by force from a machine that is not ours"
    );
    world.settle();
    assert_eq!(world.launches, [Epoch(1), Epoch(2)]);
}

#[test]
fn an_operator_that_has_just_started_does_not_believe_that_a_machine_is_gone() {
    let mut world = remote_and_ready();
    world.operator_restarts();
    assert!(world.plan().actions.is_empty() && world.plan().requeue.is_some());
    world.node.metadata.deletion_timestamp = Some(Time(at(1000)));
    assert!(world.plan().actions.is_empty());
    world.node.metadata.deletion_timestamp = None;
    world.now += 20;
    world.agent_registers();
    assert_eq!(world.phase(), NodePhase::Ready);
    world.now += 40;
    world.instance = None;
    world.disk = Attachment::Detached;
    assert_eq!(world.plan().actions.first(), Some(&Action::ClaimVolume(Epoch(2))));
}

#[test]
fn an_agent_says_what_is_left_before_its_machine_goes() {
    let mut world = remote_and_ready();
    world.node.metadata.deletion_timestamp = Some(Time(at(world.now)));
    let waits = world.plan();
    assert!(waits.actions.is_empty() && waits.requeue.is_some());
    let renewed = |world: &mut World, second: i64| {
        world.now = second;
        world.lease.as_mut().unwrap().renewed = at(second);
        world.plan().actions
    };
    let renewed_first = world.lease.take();
    let waits = world.plan();
    assert!(waits.actions.is_empty(), "it has registered and not renewed yet");
    world.lease = renewed_first;
    let emptied = world.now + 1;
    world.node.status.as_mut().unwrap().empty_since = Some(Time(at(emptied)));
    assert_eq!(renewed(&mut world, emptied + 1), [], "it may have been said before");
    assert_eq!(
        renewed(&mut world, emptied + 2),
        [Action::StopInstance { force: false }]
    );
    world.lease.as_mut().unwrap().renewed = at(emptied);
    world.now = emptied + 3600;
    assert_eq!(
        world.plan().actions,
        [Action::StopInstance { force: false }],
        "nobody waits for an agent that is lost"
    );
}

#[test]
fn a_machine_that_is_going_to_be_stopped_is_replaced_in_its_turn_or_in_time() {
    let mut world = remote_and_ready();
    world.instance.as_mut().unwrap().notice = Some(Notice {
        code: "instance-retirement".into(),
        not_before: at(1500),
    });
    let drains = world.plan();
    assert!(drains.actions.is_empty() && drains.phase == NodePhase::Draining);
    let says = |type_: &str| drains.says.iter().find(|s| s.type_ == type_).unwrap();
    assert_eq!(says(conditions::READY).status, Some(true), "it serves");
    assert!(says(conditions::PROGRESSING).message.contains("instance-retirement"));
    let stop = [Action::StopInstance { force: false }];
    world.its_turn = true;
    assert_eq!(world.plan().actions, stop);
    world.its_turn = false;
    world.now = 1409;
    world.agent_registers();
    assert_eq!(world.plan().requeue, Some(Duration::from_secs(1)));
    world.now = 1410;
    assert_eq!(world.plan().actions, stop, "the next one takes 90 seconds");
}

fn mark(world: &mut World, epoch: u64) {
    world.node.metadata.annotations = Some([(REPLACE.to_owned(), epoch.to_string())].into());
}

#[test]
fn a_machine_that_is_out_of_date_goes_when_its_own_epoch_is_marked() {
    let mut world = remote_and_ready();
    let epoch = world.status().epoch.unwrap().0;
    let says = |plan: &Plan<Action, NodePhase>, type_: &str| {
        let found = plan.says.iter().find(|s| s.type_ == type_).unwrap();
        (found.status, found.reason)
    };
    assert_eq!(
        says(&world.plan(), conditions::UP_TO_DATE),
        (Some(true), reasons::RECONCILED)
    );
    mark(&mut world, epoch);
    assert!(world.plan().actions.is_empty(), "it is up to date");
    world.age = Age::Behind("it is old".into());
    world.missing = Some("no template".into());
    assert!(world.plan().actions.is_empty(), "no other could be started");
    world.missing = None;
    mark(&mut world, epoch + 1);
    assert!(world.plan().actions.is_empty(), "the mark is of another machine");
    world.node.metadata.annotations = None;
    let waits = world.plan();
    assert!(waits.actions.is_empty() && waits.phase == NodePhase::Ready);
    assert_eq!(
        says(&waits, conditions::UP_TO_DATE),
        (Some(false), reasons::OUT_OF_DATE)
    );
    mark(&mut world, epoch);
    let goes = world.plan();
    assert_eq!(
        (goes.actions.as_slice(), goes.phase),
        (&[Action::StopInstance { force: false }][..], NodePhase::Draining)
    );
    assert_eq!(says(&goes, conditions::READY).0, Some(true), "it serves until then");
    world
        .node
        .metadata
        .annotations
        .as_mut()
        .unwrap()
        .insert(graphplane_crds::annotations::PAUSED.to_owned(), "true".to_owned());
    assert!(world.plan().actions.is_empty(), "it is paused");
}

#[derive(Clone, Debug)]
enum Event {
    Registers,
    Dies,
    Forgotten,
    LosesAnswer,
    Wait(i64),
    Progresses,
    OperatorRestarts,
    ListingIsOld,
    Notice { its_turn: bool },
    OutOfDate,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => Just(Event::Registers),
        2 => Just(Event::Dies),
        1 => Just(Event::Forgotten),
        3 => Just(Event::LosesAnswer),
        3 => (1i64..70).prop_map(Event::Wait),
        4 => Just(Event::Progresses),
        2 => Just(Event::OperatorRestarts),
        2 => Just(Event::ListingIsOld),
        1 => any::<bool>().prop_map(|its_turn| Event::Notice { its_turn }),
        1 => Just(Event::OutOfDate),
    ];
    proptest::collection::vec(event, 0..40)
}

proptest! {
    /// Whatever happens between any two actions: no two machines live, no epoch is used twice or goes down, a disk is
    /// attached to the machine of the newest epoch only and not detached while a machine lives (asserted in `act`), and in
    /// the end the node is ready; and deleted, it leaves nothing.
    #[test]
    fn one_writer_always(
        events in events(), delete in any::<bool>(), (replica, remote) in prop_oneof![
            Just((false, false)), Just((true, false)), Just((false, true)),
        ],
    ) {
        let mut world = if remote { World::remote() } else { World::new() };
        world.replica = replica;
        for event in events {
            match event {
                Event::Registers => world.agent_registers(),
                Event::Dies => world.dies(),
                Event::Progresses => world.progresses(),
                Event::OperatorRestarts if remote => world.operator_restarts(),
                Event::OperatorRestarts => {}
                Event::ListingIsOld => world.stale = true,
                Event::Notice { its_turn } => {
                    let not_before = at(world.now + 200);
                    let notice = Notice { code: "system-reboot".into(), not_before };
                    world.instance.iter_mut().for_each(|i| i.notice = Some(notice.clone()));
                    world.its_turn = its_turn;
                }
                Event::OutOfDate => {
                    world.age = Age::Behind("it is old".into());
                    let epoch = world.status().epoch.map_or(0, |epoch| epoch.0);
                    mark(&mut world, epoch);
                }
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
                    world.stale = false;
                    continue;
                }
            }
            if let Some(action) = world.plan().actions.first().cloned() {
                world.act(&action);
            }
            world.stale = false;
        }
        prop_assert!(world.epochs.is_sorted());
        // Past what listings are behind, with the turn of every node come.
        (world.now, world.its_turn) = (world.now + if remote { 70 } else { 0 }, true);
        for _ in 0..12 {
            world.settle();
            world.progresses();
            world.agent_registers();
            if let Some(Instance { state: InstanceState::Stopping { .. }, .. }) = world.instance {
                world.dies();
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
