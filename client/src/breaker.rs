//! A circuit breaker: calls to what does not answer are stopped for a while.
//!
//! ```text
//!            failures in a row                    pause is over
//!  Closed ───────────────────────▶ Open ───────────────────────────▶ HalfOpen
//!    ▲                              ▲  pause doubles                  │    │
//!    │                              └──────────── the probe fails ────┘    │
//!    └──────────────────────────────────────────── the probe succeeds ─────┘
//! ```
//!
//! A replica that answers, and says that it cannot serve now, is left alone in the same way from its first such answer on.
//!
//! Time is given by the caller, as a duration since any fixed moment, so that the rules can be tested without waiting.

use std::time::Duration;

/// When calls are stopped, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// So many failures in a row stop calls.
    pub failures: u32,
    /// The first pause; it doubles with every failed probe.
    pub pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// A probe that has not ended after so long is taken for lost, and another is let through.
    pub probe_timeout: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            failures: 5,
            pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(30),
            probe_timeout: Duration::from_secs(60),
        }
    }
}

/// What a breaker says to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Go ahead.
    Call,
    /// Go ahead, alone: the outcome decides.
    Probe,
    /// Do not call; try again after this time.
    Wait(Duration),
}

/// The state of a breaker in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Calls go through.
    Closed,
    /// One call goes through.
    HalfOpen,
    /// No call goes through.
    Open,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Duration, pause: Duration },
    HalfOpen { since: Duration, pause: Duration },
}

/// One breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breaker {
    settings: BreakerSettings,
    state: State,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(settings: BreakerSettings) -> Self {
        Self {
            settings,
            state: State::Closed { failures: 0 },
        }
    }

    /// Whether a call may go ahead at `now`. After [`Decision::Probe`] one of the other methods must follow.
    pub fn ask(&mut self, now: Duration) -> Decision {
        match self.state {
            State::Closed { .. } => Decision::Call,
            State::Open { until, pause } if now >= until => {
                self.state = State::HalfOpen { since: now, pause };
                Decision::Probe
            }
            State::Open { until, .. } => Decision::Wait(until - now),
            State::HalfOpen { since, pause } if now >= since + self.settings.probe_timeout => {
                self.state = State::HalfOpen { since: now, pause };
                Decision::Probe
            }
            State::HalfOpen { .. } => Decision::Wait(self.settings.pause),
        }
    }

    /// A call was answered, whatever the answer.
    pub fn succeeded(&mut self) {
        self.state = State::Closed { failures: 0 };
    }

    /// A call was not answered.
    pub fn failed(&mut self, now: Duration) {
        let open = |pause: Duration| State::Open {
            until: now + pause,
            pause,
        };
        self.state = match self.state {
            State::Closed { failures } if failures + 1 < self.settings.failures => {
                State::Closed { failures: failures + 1 }
            }
            State::Closed { .. } => open(self.settings.pause.min(self.settings.longest_pause)),
            State::HalfOpen { pause, .. } => open((pause * 2).min(self.settings.longest_pause)),
            // A call that began before the breaker opened says nothing new.
            state @ State::Open { .. } => state,
        };
    }

    /// A call was answered by a node that cannot do what it is there for at the moment: once is enough.
    pub fn declined(&mut self, now: Duration) {
        let pause = match self.state {
            State::Closed { .. } => self.settings.pause,
            State::HalfOpen { pause, .. } => pause * 2,
            // A call that began before the breaker opened says nothing new.
            State::Open { .. } => return,
        };
        let pause = pause.min(self.settings.longest_pause);
        self.state = State::Open {
            until: now + pause,
            pause,
        };
    }

    /// A probe was given up by its caller, so that nothing is known: another may follow at once.
    pub fn abandoned(&mut self, now: Duration) {
        if let State::HalfOpen { pause, .. } = self.state {
            self.state = State::Open { until: now, pause };
        }
    }

    /// The state in one word.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Closed { .. } => Phase::Closed,
            State::HalfOpen { .. } => Phase::HalfOpen,
            State::Open { .. } => Phase::Open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SETTINGS: BreakerSettings = BreakerSettings {
        failures: 3,
        pause: Duration::from_secs(1),
        longest_pause: Duration::from_secs(4),
        probe_timeout: Duration::from_secs(10),
    };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_after_a_good_probe() {
        let mut breaker = Breaker::new(SETTINGS);
        breaker.failed(at(0));
        breaker.failed(at(0));
        breaker.succeeded();
        breaker.failed(at(0));
        breaker.failed(at(0));
        assert_eq!(breaker.phase(), Phase::Closed);
        breaker.failed(at(0));
        assert_eq!(breaker.ask(at(0)), Decision::Wait(at(1)));
        assert_eq!(breaker.ask(at(1)), Decision::Probe);
        assert!(matches!(breaker.ask(at(1)), Decision::Wait(_)));
        breaker.succeeded();
        assert_eq!(breaker.ask(at(1)), Decision::Call);
    }

    #[test]
    fn the_pause_doubles_up_to_its_limit() {
        let mut breaker = Breaker::new(SETTINGS);
        for _ in 0..3 {
            breaker.failed(at(0));
        }
        let mut now = at(1);
        for pause in [2, 4, 4] {
            assert_eq!(breaker.ask(now), Decision::Probe);
            breaker.failed(now);
            assert_eq!(breaker.ask(now), Decision::Wait(at(pause)));
            now += at(pause);
        }
    }

    #[test]
    fn one_refusal_stops_calls_until_a_probe_is_answered() {
        let mut breaker = Breaker::new(SETTINGS);
        breaker.declined(at(0));
        // The answer to a call that had begun before.
        breaker.declined(at(0));
        assert_eq!(breaker.ask(at(0)), Decision::Wait(at(1)));
        let mut now = at(1);
        for pause in [2, 4, 4] {
            assert_eq!(breaker.ask(now), Decision::Probe);
            breaker.declined(now);
            assert_eq!(breaker.ask(now), Decision::Wait(at(pause)));
            now += at(pause);
        }
        assert_eq!(breaker.ask(now), Decision::Probe);
        breaker.succeeded();
        assert_eq!(breaker.ask(now), Decision::Call);
    }

    #[test]
    fn an_abandoned_probe_does_not_block_the_next() {
        let mut breaker = Breaker::new(SETTINGS);
        for _ in 0..3 {
            breaker.failed(at(0));
        }
        assert_eq!(breaker.ask(at(1)), Decision::Probe);
        breaker.abandoned(at(1));
        assert_eq!(breaker.ask(at(1)), Decision::Probe);
        assert!(matches!(breaker.ask(at(5)), Decision::Wait(_)));
        assert_eq!(
            breaker.ask(at(11)),
            Decision::Probe,
            "a probe that never ends is taken for lost"
        );
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Ask,
        Succeed,
        Fail,
        Abandon,
    }

    fn steps() -> impl Strategy<Value = Vec<(Step, u64)>> {
        let step = prop::sample::select(vec![
            Step::Ask,
            Step::Ask,
            Step::Succeed,
            Step::Fail,
            Step::Fail,
            Step::Abandon,
        ]);
        prop::collection::vec((step, 0u64..6), 0..100)
    }

    proptest! {
        /// Whatever happens: at most one probe is out at a time, waits are never longer than the longest pause, fewer
        /// failures in a row than the limit never stop calls, and after the longest wait a call is always let through.
        #[test]
        fn it_never_floods_and_never_locks_for_ever(steps in steps()) {
            let mut breaker = Breaker::new(SETTINGS);
            let (mut now, mut probe, mut in_row) = (Duration::ZERO, None::<Duration>, 0u32);
            for (step, gap) in steps {
                now += at(gap);
                let closed = breaker.phase() == Phase::Closed;
                match step {
                    Step::Ask => match breaker.ask(now) {
                        Decision::Call => prop_assert!(closed),
                        Decision::Probe => {
                            prop_assert!(probe.is_none_or(|since| now >= since + SETTINGS.probe_timeout));
                            probe = Some(now);
                        }
                        Decision::Wait(wait) => {
                            prop_assert!(!closed);
                            prop_assert!(wait <= SETTINGS.longest_pause);
                        }
                    },
                    Step::Succeed => { breaker.succeeded(); probe = None; in_row = 0; }
                    Step::Fail => {
                        breaker.failed(now);
                        probe = None;
                        in_row += 1;
                        if closed { prop_assert_eq!(breaker.phase() == Phase::Open, in_row >= SETTINGS.failures); }
                    }
                    Step::Abandon => { breaker.abandoned(now); probe = None; }
                }
                if breaker.phase() == Phase::Closed && in_row >= SETTINGS.failures { prop_assert!(false); }
            }
            let later = now + SETTINGS.longest_pause.max(SETTINGS.probe_timeout);
            prop_assert!(!matches!(breaker.ask(later), Decision::Wait(_)));
        }
    }
}
