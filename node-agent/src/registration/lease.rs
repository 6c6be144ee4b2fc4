//! The rule of when this agent may write, as a state machine without input or output.
//!
//! A volume has one writer. The control plane raises the epoch of a volume whenever it hands it to an agent, and it may
//! do so once the lease of the former agent has run out. The former agent therefore has to stop by its own clock: it
//! counts from the moment it *sent* the last renewal that was answered, so that its lease always ends before the
//! control plane's idea of it.
//!
//! ```text
//! Standalone                        (no control plane: always writes)
//! Registering ──registered──▶ Active ──deadline passed, refused──▶ Fenced ──registered, renewed in time──▶ Active
//!                               └─────────────drain────────▶ Draining (for the rest of the process)
//! ```
//!
//! Times are durations since an arbitrary origin of a monotonic clock.

use std::time::Duration;

/// Why writes are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The agent has not registered yet.
    Registering,
    /// The lease ran out, or the control plane gave the volume to another agent.
    Fenced,
    /// The agent is about to stop or to hand its volume over.
    Draining,
}

impl Refusal {
    /// The word for answers, logs and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Registering => "registering",
            Self::Fenced => "fenced",
            Self::Draining => "draining",
        }
    }

    /// A sentence for the caller.
    pub fn message(self) -> &'static str {
        match self {
            Self::Registering => "The node has not registered with its control plane yet; writes start after that",
            Self::Fenced => {
                "The node holds no valid lease, so it must not write; reads go on. Writes start again when the \
                 control plane renews the lease, or on the node that takes over"
            }
            Self::Draining => "The node is draining: it finishes what runs and takes no new writes",
        }
    }
}

/// Where the agent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Runs without a control plane.
    Standalone,
    /// Has a control plane and has not registered with it since the process started.
    Registering,
    /// Holds the epoch until the deadline.
    Active {
        /// The epoch of the volume.
        epoch: u64,
        /// First moment at which writing is no longer allowed.
        deadline: Duration,
    },
    /// Must not write.
    Fenced {
        /// The last epoch that it held.
        epoch: u64,
    },
    /// Takes no writes any more.
    Draining {
        /// The last epoch that it held; 0 when it runs alone.
        epoch: u64,
        /// Until when writes that run may go on; `None` without a control plane.
        until: Option<Duration>,
    },
}

impl State {
    /// The word for answers, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
            Self::Registering => "registering",
            Self::Active { .. } => "active",
            Self::Fenced { .. } => "fenced",
            Self::Draining { .. } => "draining",
        }
    }

    /// Every name, for metrics that show one series per state.
    pub const NAMES: [&'static str; 5] = ["standalone", "registering", "active", "fenced", "draining"];
}

/// An answer of the control plane that grants a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The epoch that the control plane names.
    pub epoch: u64,
    /// When the request was sent, by this agent's clock.
    pub sent: Duration,
    /// How long the lease lasts from then on.
    pub lease: Duration,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The agent holds the lease.
    Held,
    /// The answer took longer than the lease that it grants; ask again.
    TooLate,
    /// The answer names an epoch that this agent does not hold; register again.
    WrongEpoch,
}

/// The state, and the highest epoch that this volume has seen.
#[derive(Clone, Debug)]
pub struct Machine {
    state: State,
    volume_epoch: u64,
    /// The epoch under which this process registered; a renewal of any other is not ours.
    registered: Option<u64>,
}

impl Machine {
    /// An agent without a control plane.
    pub fn standalone() -> Self {
        Self {
            state: State::Standalone,
            volume_epoch: 0,
            registered: None,
        }
    }

    /// An agent that has to register first; `volume_epoch` is what the volume's epoch file says.
    pub fn registering(volume_epoch: u64) -> Self {
        Self {
            state: State::Registering,
            volume_epoch,
            registered: None,
        }
    }

    /// The state at `now`: a lease that has run out shows as fenced without anybody having to notice first.
    pub fn state(&self, now: Duration) -> State {
        match self.state {
            State::Active { epoch, deadline } if now >= deadline => State::Fenced { epoch },
            state => state,
        }
    }

    /// Highest epoch that this volume has seen.
    pub fn volume_epoch(&self) -> u64 {
        self.volume_epoch
    }

    /// Whether a change may be made at `now`.
    ///
    /// # Errors
    /// The reason why not.
    pub fn may_write(&self, now: Duration) -> Result<(), Refusal> {
        match self.state(now) {
            State::Standalone | State::Active { .. } => Ok(()),
            State::Registering => Err(Refusal::Registering),
            State::Fenced { .. } => Err(Refusal::Fenced),
            State::Draining { .. } => Err(Refusal::Draining),
        }
    }

    /// Whether a change that was begun with permission may go on at `now`: draining lets it finish, as long as there is a
    /// lease.
    pub fn may_finish(&self, now: Duration) -> bool {
        match self.state(now) {
            State::Standalone | State::Active { .. } => true,
            State::Draining { until, .. } => until.is_none_or(|until| now < until),
            State::Registering | State::Fenced { .. } => false,
        }
    }

    /// Whether a registration answer with this epoch may be taken, so that the epoch can be written to the volume
    /// before [`registered`](Self::registered) is called: the volume's epoch never goes down.
    pub fn accepts_epoch(&self, epoch: u64) -> bool {
        epoch >= self.volume_epoch
    }

    /// Takes the answer to a registration. The caller has written the epoch to the volume already.
    pub fn registered(&mut self, grant: Grant, now: Duration) -> Outcome {
        if !self.accepts_epoch(grant.epoch) {
            self.fence();
            return Outcome::WrongEpoch;
        }
        self.volume_epoch = grant.epoch;
        self.registered = Some(grant.epoch);
        self.hold(grant, now)
    }

    /// Takes the answer to a renewal, which counts only for the epoch that the agent registered.
    pub fn renewed(&mut self, grant: Grant, now: Duration) -> Outcome {
        if self.registered == Some(grant.epoch) {
            return self.hold(grant, now);
        }
        self.fence();
        Outcome::WrongEpoch
    }

    /// The control plane refused: another agent has, or may get, the volume.
    pub fn refused(&mut self) {
        self.fence();
    }

    /// No writes for the rest of the process.
    pub fn drain(&mut self) {
        self.state = match self.state {
            State::Standalone => State::Draining {
                epoch: self.volume_epoch,
                until: None,
            },
            State::Registering => State::Draining {
                epoch: self.volume_epoch,
                until: Some(Duration::ZERO),
            },
            State::Active { epoch, deadline } => State::Draining {
                epoch,
                until: Some(deadline),
            },
            State::Fenced { epoch } => State::Draining {
                epoch,
                until: Some(Duration::ZERO),
            },
            draining @ State::Draining { .. } => draining,
        };
    }

    fn hold(&mut self, grant: Grant, now: Duration) -> Outcome {
        let deadline = grant.sent.saturating_add(grant.lease);
        self.state = match self.state {
            State::Draining { .. } => State::Draining {
                epoch: grant.epoch,
                until: Some(deadline),
            },
            _ => State::Active {
                epoch: grant.epoch,
                deadline,
            },
        };
        if now >= deadline {
            Outcome::TooLate
        } else {
            Outcome::Held
        }
    }

    fn fence(&mut self) {
        self.state = match self.state {
            State::Standalone => State::Standalone,
            State::Draining { epoch, until } => State::Draining {
                epoch,
                until: until.map(|_| Duration::ZERO),
            },
            State::Registering => State::Fenced {
                epoch: self.volume_epoch,
            },
            State::Active { epoch, .. } | State::Fenced { epoch } => State::Fenced { epoch },
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_counts_from_when_it_was_asked_for() {
        let mut machine = Machine::registering(3);
        assert_eq!(machine.may_write(s(1)), Err(Refusal::Registering));
        assert_eq!(
            machine.registered(
                Grant {
                    epoch: 4,
                    sent: s(10),
                    lease: s(15)
                },
                s(12)
            ),
            Outcome::Held
        );
        assert_eq!(machine.may_write(s(24)), Ok(()));
        assert_eq!(machine.may_write(s(25)), Err(Refusal::Fenced));
        assert_eq!(
            machine.renewed(
                Grant {
                    epoch: 4,
                    sent: s(26),
                    lease: s(15)
                },
                s(27)
            ),
            Outcome::Held
        );
        assert_eq!(machine.may_write(s(40)), Ok(()));
        assert_eq!(
            machine.renewed(
                Grant {
                    epoch: 4,
                    sent: s(30),
                    lease: s(5)
                },
                s(36)
            ),
            Outcome::TooLate
        );
        assert_eq!(machine.may_write(s(36)), Err(Refusal::Fenced));
    }

    #[test]
    fn the_epoch_of_a_volume_never_goes_down() {
        let mut machine = Machine::registering(7);
        assert_eq!(
            machine.registered(
                Grant {
                    epoch: 6,
                    sent: s(0),
                    lease: s(15)
                },
                s(0)
            ),
            Outcome::WrongEpoch
        );
        assert_eq!(machine.state(s(0)), State::Fenced { epoch: 7 });
        assert_eq!(
            machine.registered(
                Grant {
                    epoch: 8,
                    sent: s(1),
                    lease: s(15)
                },
                s(1)
            ),
            Outcome::Held
        );
        assert_eq!(
            machine.renewed(
                Grant {
                    epoch: 9,
                    sent: s(2),
                    lease: s(15)
                },
                s(2)
            ),
            Outcome::WrongEpoch
        );
        assert_eq!(machine.may_write(s(2)), Err(Refusal::Fenced));
        assert_eq!(
            machine.renewed(
                Grant {
                    epoch: 8,
                    sent: s(3),
                    lease: s(15)
                },
                s(3)
            ),
            Outcome::Held
        );
    }

    #[test]
    fn draining_is_for_good() {
        let mut machine = Machine::standalone();
        assert_eq!(machine.may_write(s(999)), Ok(()));
        machine.refused();
        assert_eq!(
            machine.may_write(s(999)),
            Ok(()),
            "nobody can fence an agent that runs alone"
        );
        machine.drain();
        assert_eq!(machine.may_write(s(999)), Err(Refusal::Draining));
        assert!(
            machine.may_finish(s(9999)),
            "nobody waits for the volume of an agent that runs alone"
        );
    }

    #[test]
    fn what_runs_may_finish_while_draining_but_not_without_a_lease() {
        let mut machine = Machine::registering(0);
        machine.registered(
            Grant {
                epoch: 1,
                sent: s(0),
                lease: s(15),
            },
            s(0),
        );
        machine.drain();
        assert!(machine.may_finish(s(14)) && !machine.may_finish(s(15)));
        machine.renewed(
            Grant {
                epoch: 1,
                sent: s(10),
                lease: s(15),
            },
            s(11),
        );
        assert!(machine.may_finish(s(24)));
        machine.refused();
        assert!(!machine.may_finish(s(12)));
    }

    #[derive(Clone, Debug)]
    enum Event {
        Registered { epoch: u64, ago: u64, lease: u64 },
        Renewed { epoch: u64, ago: u64, lease: u64 },
        Refused,
        Drain,
        Wait(u64),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            (0..6u64, 0..20u64, 0..20u64).prop_map(|(epoch, ago, lease)| Event::Registered { epoch, ago, lease }),
            (0..6u64, 0..20u64, 0..20u64).prop_map(|(epoch, ago, lease)| Event::Renewed { epoch, ago, lease }),
            Just(Event::Refused),
            (0..30u64).prop_map(|n| if n == 0 { Event::Drain } else { Event::Wait(n) }),
            (0..30u64).prop_map(Event::Wait),
        ];
        prop::collection::vec(event, 1..60)
    }

    proptest! {
        /// The promise to the control plane: whenever a write is allowed, the newest answer that was accepted for the
        /// epoch held was asked for less than its own lease ago, the epoch is the highest this volume has seen, and
        /// nothing refused the agent since.
        #[test]
        fn never_writes_without_a_lease(volume in 0..4u64, events in events()) {
            let mut machine = Machine::registering(volume);
            let mut now = s(100);
            let (mut highest, mut held, mut drained): (u64, Option<(u64, Duration)>, bool) = (volume, None, false);
            let mut registered: Option<u64> = None;
            for event in events {
                match event {
                    Event::Registered { epoch, ago, lease } => {
                        let sent = now - s(ago);
                        machine.registered(Grant { epoch, sent, lease: s(lease) }, now);
                        if epoch >= highest {
                            highest = epoch;
                            registered = Some(epoch);
                            held = Some((epoch, sent + s(lease)));
                        } else {
                            held = None;
                        }
                    }
                    Event::Renewed { epoch, ago, lease } => {
                        let sent = now - s(ago);
                        machine.renewed(Grant { epoch, sent, lease: s(lease) }, now);
                        held = (registered == Some(epoch) && epoch == highest).then_some((epoch, sent + s(lease)));
                    }
                    Event::Refused => {
                        machine.refused();
                        held = None;
                    }
                    Event::Drain => {
                        machine.drain();
                        drained = true;
                    }
                    Event::Wait(n) => now += s(n),
                }
                let allowed = machine.may_write(now).is_ok();
                let promised = !drained && held.is_some_and(|(epoch, until)| now < until && epoch == highest);
                prop_assert!(!allowed || promised, "wrote without a lease: {machine:?} at {now:?}");
                // And it is of use: an agent with a good lease does write.
                if promised {
                    prop_assert!(allowed, "refused with a lease: {machine:?} at {now:?}");
                }
                let leased = held.is_some_and(|(epoch, until)| now < until && epoch == highest);
                prop_assert!(!machine.may_finish(now) || leased, "went on without a lease: {machine:?} at {now:?}");
                prop_assert_eq!(machine.volume_epoch(), highest);
            }
        }
    }
}
