//! Machines as EC2 describes them, what is remembered of them, and which of several stands for a node.

use super::tags;
use aws_sdk_ec2::types::{self, InstanceStateName};
use graphplane_core::node_plan::{Instance, InstanceState, Notice};
use jiff::Timestamp;
use parking_lot::Mutex;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// For how long something is believed that a description does not show (yet). EC2 names no limit; minutes have been seen.
const REMEMBERED: Duration = Duration::from_secs(900);
/// For how long a dead machine stays dead, whatever a late description says. EC2 drops it from descriptions after an hour.
const DEAD: Duration = Duration::from_secs(7200);

/// A machine of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    /// Its instance id, `i-…`.
    pub(super) id: String,
    /// Name of its GraphNode.
    pub(super) node: String,
    pub(super) zone: String,
    /// Token of its start, as the plan knows it.
    pub(super) token: String,
    pub(super) epoch: u64,
    pub(super) state: InstanceState,
    pub(super) started: Timestamp,
    /// What it was started from.
    pub(super) template: Option<String>,
}

impl Machine {
    /// Reads a description; `None` for one that is not a node's, or is too new to be complete.
    pub(super) fn read(instance: &types::Instance) -> Option<Self> {
        let pairs = instance.tags().iter().filter_map(|t| Some((t.key()?, t.value()?)));
        let mut tags = tags::bare(pairs);
        let started = instance.launch_time().and_then(timestamp)?;
        let reason = instance.state_transition_reason().and_then(transition);
        Some(Self {
            id: instance.instance_id()?.to_owned(),
            node: tags.remove("name")?,
            zone: instance.placement()?.availability_zone()?.to_owned(),
            token: tags.remove("token").unwrap_or_default(),
            epoch: tags.remove("epoch").and_then(|e| e.parse().ok()).unwrap_or_default(),
            state: state(instance.state()?.name()?, reason.unwrap_or(started)),
            started,
            template: tags.remove("template"),
        })
    }

    /// As plans see it.
    pub(super) fn instance(&self, notice: Option<Notice>) -> Instance {
        Instance {
            id: format!("aws:///{}/{}", self.zone, self.id),
            token: self.token.clone(),
            state: self.state,
            started: self.started,
            notice,
            template: self.template.clone(),
        }
    }

    pub(super) fn lives(&self) -> bool {
        self.state != InstanceState::Dead
    }
}

/// What a state of EC2 means. Only a terminated machine is dead: a stopped one has its disk and can be started again by
/// anybody. Nothing waits for it, so it is as if it had been asked to stop long ago, and the plan stops it by force.
fn state(name: &InstanceStateName, since: Timestamp) -> InstanceState {
    match name {
        InstanceStateName::Pending => InstanceState::Starting,
        InstanceStateName::Terminated => InstanceState::Dead,
        InstanceStateName::ShuttingDown | InstanceStateName::Stopping => InstanceState::Stopping { since },
        InstanceStateName::Stopped => InstanceState::Stopping {
            since: Timestamp::UNIX_EPOCH,
        },
        // Also what is not known yet: it is not dead.
        _ => InstanceState::Running,
    }
}

/// The time in a reason such as `User initiated (2014-04-20 18:15:50 GMT)`.
fn transition(reason: &str) -> Option<Timestamp> {
    let (_, rest) = reason.rsplit_once('(')?;
    let (text, _) = rest.split_once(')')?;
    let (date, time) = text.trim().split_once(' ')?;
    let time = time.split(' ').next()?;
    format!("{date}T{time}Z").parse().ok()
}

/// A time of the SDK.
pub(super) fn timestamp(time: &aws_sdk_ec2::primitives::DateTime) -> Option<Timestamp> {
    Timestamp::new(time.secs(), i32::try_from(time.subsec_nanos()).ok()?).ok()
}

/// Which machine stands for a node, and which are to be stopped when that one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) shown: Machine,
    pub(super) to_stop: Vec<String>,
}

/// Chooses among the machines of one node.
///
/// There should be one at most that lives. If several run nevertheless (somebody copied one with its tags, or started a
/// dead one's twin by hand), the one of the newest epoch stays, of one epoch the first that was started, and one of the
/// others is shown, without its token: so no plan takes it for the node's own, and the next step is to stop it. While that
/// lasts nothing is started or attached. Machines that are going down already need nobody to stop them: they are shown only
/// when none runs, before the dead ones, so that nothing is started before the last is dead.
pub(super) fn choose(machines: Vec<Machine>) -> Option<Choice> {
    let runs = |m: &Machine| matches!(m.state, InstanceState::Starting | InstanceState::Running);
    let (mut running, mut others): (Vec<_>, Vec<_>) = machines.into_iter().partition(runs);
    running.sort_by(|a, b| (b.epoch, a.started, &a.id).cmp(&(a.epoch, b.started, &b.id)));
    let ids = |of: &[Machine]| -> Vec<String> { of.iter().map(|m| m.id.clone()).collect() };
    if running.len() > 1 {
        let surplus = running.split_off(1);
        let to_stop = ids(&surplus);
        let mut shown = surplus.into_iter().next()?;
        shown.token.clear();
        return Some(Choice { shown, to_stop });
    }
    if let Some(shown) = running.pop() {
        let to_stop = vec![shown.id.clone()];
        return Some(Choice { shown, to_stop });
    }
    others.sort_by_key(|m| (!m.lives(), Reverse(m.epoch), Reverse(m.started)));
    let going: Vec<Machine> = others.iter().filter(|m| m.lives()).cloned().collect();
    Some(Choice {
        to_stop: ids(&going),
        shown: others.into_iter().next()?,
    })
}

/// How far a machine is on its way to the end; what we know of it never goes back.
fn rank(state: InstanceState) -> u8 {
    match state {
        InstanceState::Starting => 0,
        InstanceState::Running => 1,
        InstanceState::Stopping { .. } => 2,
        InstanceState::Dead => 3,
    }
}

/// What is remembered of machines, since descriptions are behind: what was started or stopped a moment ago, and what is
/// dead.
#[derive(Default)]
pub(super) struct Memory {
    known: Mutex<HashMap<String, Known>>,
    /// Starts that EC2 says it has made already, otherwise than they were asked for now, and since when.
    doubts: Mutex<HashMap<String, Instant>>,
}

struct Known {
    machine: Machine,
    until: Instant,
    forgotten: bool,
}

impl Memory {
    /// Remembers what is certain of a machine.
    pub(super) fn note(&self, machine: Machine) {
        let lasts = if machine.lives() { REMEMBERED } else { DEAD };
        let mut known = self.known.lock();
        let forgotten = known.get(&machine.id).is_some_and(|k| k.forgotten);
        let (id, until) = (machine.id.clone(), Instant::now() + lasts);
        known.insert(
            id,
            Known {
                machine,
                until,
                forgotten,
            },
        );
    }

    /// The machine is dead, and nobody needs to hear of it any more.
    pub(super) fn forget(&self, machine: Machine) {
        let id = machine.id.clone();
        self.note(machine);
        if let Some(known) = self.known.lock().get_mut(&id) {
            known.forgotten = true;
        }
    }

    /// What is described, corrected and completed by what is known.
    pub(super) fn merge(&self, described: Vec<Machine>) -> Vec<Machine> {
        let now = Instant::now();
        let mut merged = Vec::with_capacity(described.len());
        {
            let mut known = self.known.lock();
            known.retain(|_, k| k.until > now);
            for mut machine in described {
                match known.get(&machine.id) {
                    Some(k) if k.forgotten => continue,
                    Some(k) if rank(k.machine.state) >= rank(machine.state) => machine.state = k.machine.state,
                    _ => {}
                }
                merged.push(machine);
            }
            let hidden = known.values().filter(|k| !k.forgotten).map(|k| &k.machine);
            let hidden: Vec<Machine> = hidden
                .filter(|m| !merged.iter().any(|d| d.id == m.id))
                .cloned()
                .collect();
            merged.extend(hidden);
        }
        for dead in merged.iter().filter(|m| !m.lives()) {
            self.note_once(dead);
        }
        merged
    }

    /// Remembers a death, from the first time that it is seen: what is remembered has to end.
    fn note_once(&self, dead: &Machine) {
        let known = self.known.lock().get(&dead.id).is_some_and(|k| !k.machine.lives());
        if !known {
            self.note(dead.clone());
        }
    }

    /// EC2 has made this start already, and no description shows its machine. Whether that has been so for so long that the
    /// machine must be gone.
    pub(super) fn must_be_gone(&self, token: &str) -> bool {
        let now = Instant::now();
        let mut doubts = self.doubts.lock();
        doubts.retain(|_, since| now.duration_since(*since) < DEAD);
        let since = *doubts.entry(token.to_owned()).or_insert(now);
        now.duration_since(since) >= REMEMBERED
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn machine(id: &str, epoch: u64, state: InstanceState) -> Machine {
        Machine {
            id: id.into(),
            node: "std-0".into(),
            zone: "eu-central-1a".into(),
            token: format!("t{epoch}"),
            epoch,
            state,
            started: at(100),
            template: None,
        }
    }

    const STOPPING: InstanceState = InstanceState::Stopping {
        since: Timestamp::UNIX_EPOCH,
    };

    #[test]
    fn a_description_is_read_and_what_is_not_ours_is_left_out() {
        let tag = |key: &str, value: &str| types::Tag::builder().key(key).value(value).build();
        let described = |state: InstanceStateName, reason: &str| {
            types::Instance::builder()
                .instance_id("i-1")
                .launch_time(aws_sdk_ec2::primitives::DateTime::from_secs(100))
                .placement(types::Placement::builder().availability_zone("eu-central-1a").build())
                .state(types::InstanceState::builder().name(state).build())
                .state_transition_reason(reason)
                .tags(tag("graphplane.dev/name", "std-0"))
                .tags(tag("graphplane.dev/epoch", "3"))
                .tags(tag("graphplane.dev/token", "t3"))
                .tags(tag("name", "somebody's"))
        };
        let read = |state: InstanceStateName, reason: &str| Machine::read(&described(state, reason).build()).unwrap();
        let running = read(InstanceStateName::Running, "");
        assert_eq!(running, machine("i-1", 3, InstanceState::Running));
        assert_eq!(running.instance(None).id, "aws:///eu-central-1a/i-1");
        let noted = described(InstanceStateName::Running, "").tags(tag("graphplane.dev/template", "1:lt-1:2"));
        let noted = Machine::read(&noted.build()).unwrap().instance(None);
        assert_eq!(noted.template.as_deref(), Some("1:lt-1:2"));
        assert_eq!(read(InstanceStateName::Pending, "").state, InstanceState::Starting);
        assert_eq!(read(InstanceStateName::Terminated, "").state, InstanceState::Dead);
        assert_eq!(
            read(InstanceStateName::Stopped, "").state,
            STOPPING,
            "not dead, and not waited for"
        );
        for zone in ["GMT", "UTC"] {
            let stopping = read(
                InstanceStateName::ShuttingDown,
                &format!("User initiated (1970-01-01 00:05:00 {zone})"),
            );
            assert_eq!(stopping.state, InstanceState::Stopping { since: at(300) });
        }
        let unexplained = read(InstanceStateName::ShuttingDown, "Server.InternalError");
        assert_eq!(unexplained.state, InstanceState::Stopping { since: at(100) });
        assert_eq!(
            Machine::read(&types::Instance::builder().instance_id("i-2").build()),
            None
        );
    }

    #[test]
    fn the_machine_that_runs_stands_for_the_node() {
        let dead = machine("i-1", 1, InstanceState::Dead);
        let going = machine("i-2", 2, STOPPING);
        let runs = machine("i-3", 3, InstanceState::Running);
        let chosen = choose(vec![dead.clone(), going.clone(), runs.clone()]).unwrap();
        assert_eq!((chosen.shown, chosen.to_stop), (runs, vec!["i-3".to_owned()]));
        let chosen = choose(vec![dead.clone(), going.clone()]).unwrap();
        assert_eq!((chosen.shown, chosen.to_stop), (going, vec!["i-2".to_owned()]));
        let chosen = choose(vec![machine("i-0", 0, InstanceState::Dead), dead.clone()]).unwrap();
        assert_eq!((chosen.shown, chosen.to_stop), (dead, vec![]));
        assert_eq!(choose(vec![]), None);
    }

    #[test]
    fn of_several_that_run_the_newest_stays_and_another_is_shown_as_a_stranger() {
        let older = machine("i-1", 2, InstanceState::Running);
        let newer = machine("i-2", 3, InstanceState::Starting);
        let mut twin = machine("i-3", 3, InstanceState::Running);
        twin.started = at(101);
        let chosen = choose(vec![twin.clone(), older.clone(), newer.clone()]).unwrap();
        assert_eq!(chosen.to_stop, ["i-3", "i-1"]);
        assert_eq!((chosen.shown.id.as_str(), chosen.shown.token.as_str()), ("i-3", ""));
        let chosen = choose(vec![older, newer]).unwrap();
        assert_eq!(
            (chosen.shown.id.as_str(), chosen.to_stop),
            ("i-1", vec!["i-1".to_owned()])
        );
    }

    #[test]
    fn what_was_done_a_moment_ago_is_not_forgotten_by_a_late_description() {
        let memory = Memory::default();
        let started = machine("i-1", 1, InstanceState::Starting);
        memory.note(started.clone());
        assert_eq!(memory.merge(vec![]), [started], "not described yet");
        let running = machine("i-1", 1, InstanceState::Running);
        assert_eq!(memory.merge(vec![running.clone()]), std::slice::from_ref(&running));
        let stopped = machine("i-1", 1, STOPPING);
        memory.note(stopped.clone());
        assert_eq!(memory.merge(vec![running.clone()]), [stopped]);
        let dead = machine("i-1", 1, InstanceState::Dead);
        assert_eq!(memory.merge(vec![dead.clone()]), std::slice::from_ref(&dead));
        assert_eq!(
            memory.merge(vec![running]),
            std::slice::from_ref(&dead),
            "what is dead stays dead"
        );
        memory.forget(dead.clone());
        assert_eq!(memory.merge(vec![dead]), []);
        assert_eq!(memory.merge(vec![]), []);
    }

    #[test]
    fn a_start_in_doubt_is_not_given_up_at_once() {
        let memory = Memory::default();
        assert!(!memory.must_be_gone("t1"));
        memory.doubts.lock().insert("t1".into(), Instant::now() - REMEMBERED);
        assert!(memory.must_be_gone("t1") && !memory.must_be_gone("t2"));
    }

    fn machines() -> impl Strategy<Value = Vec<Machine>> {
        let state = prop_oneof![
            Just(InstanceState::Starting),
            Just(InstanceState::Running),
            Just(STOPPING),
            Just(InstanceState::Dead)
        ];
        proptest::collection::vec((state, 0u64..4, 0i64..3), 0..6).prop_map(|all| {
            let one = |(n, (state, epoch, started)): (usize, (InstanceState, u64, i64))| Machine {
                started: at(started),
                ..machine(&format!("i-{n}"), epoch, state)
            };
            all.into_iter().enumerate().map(one).collect()
        })
    }

    proptest! {
        /// A node is shown as dead or without a machine only when none of its machines lives; with its token only when it is
        /// the only one that runs; and stopping what is to be stopped, again and again, keeps one and ends.
        #[test]
        fn nothing_that_lives_is_overlooked(all in machines()) {
            let Some(choice) = choose(all.clone()) else {
                prop_assert!(all.is_empty());
                return Ok(());
            };
            let runs = |m: &&Machine| matches!(m.state, InstanceState::Starting | InstanceState::Running);
            let running = all.iter().filter(runs).count();
            prop_assert_eq!(choice.shown.lives(), all.iter().any(Machine::lives));
            prop_assert_eq!(choice.shown.token.is_empty(), running > 1);
            prop_assert_eq!(choice.to_stop.contains(&choice.shown.id), choice.shown.lives());
            if running > 1 {
                let newest = all.iter().filter(runs).map(|m| m.epoch).max();
                let left: Vec<Machine> = all.iter().filter(|m| !choice.to_stop.contains(&m.id)).cloned().collect();
                let kept: Vec<&Machine> = left.iter().filter(runs).collect();
                prop_assert_eq!(kept.len(), 1);
                prop_assert_eq!(Some(kept[0].epoch), newest);
            }
        }
    }
}
