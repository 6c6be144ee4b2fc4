//! When a lease is late or over, and when a volume may be attached elsewhere.
//!
//! The agent counts from the moment it *sent* the last renewal that was answered; the control plane counts from the
//! moment it wrote the Lease, which is later. So the agent's lease always ends first.

use crate::ending::{after, until};
use crate::usage::Usage;
use jiff::Timestamp;
use std::time::Duration;

/// What is known of a node's lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseFacts {
    /// When it was renewed last, by the control plane's clock.
    pub renewed: Timestamp,
    /// How long it lasts.
    pub duration: Duration,
    /// What the agent said with it.
    pub usage: Option<Usage>,
}

/// How a lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Renewed in time.
    Held,
    /// At least two renewals are missing: nothing new is placed on the node.
    Late,
    /// Over: the agent refuses writes by its own clock.
    Expired,
}

/// How long ago `then` is; zero when a clock went backwards.
fn age(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

impl LeaseFacts {
    // Two thirds: with a renewal every third of the duration, two in a row are missing.
    fn late_after(&self) -> Duration {
        self.duration * 2 / 3
    }

    /// How the lease stands at `now`.
    pub fn standing(&self, now: Timestamp) -> Standing {
        let age = age(self.renewed, now);
        if age >= self.duration {
            Standing::Expired
        } else if age >= self.late_after() {
            Standing::Late
        } else {
            Standing::Held
        }
    }

    /// How long until [`standing`](Self::standing) changes if nobody renews; `None` once it is over.
    pub fn changes_in(&self, now: Timestamp) -> Option<Duration> {
        let due = |wait| until(after(self.renewed, wait), now);
        match self.standing(now) {
            Standing::Held => Some(due(self.late_after())),
            Standing::Late => Some(due(self.duration)),
            Standing::Expired => None,
        }
    }

    /// Whether the former writer certainly fenced itself, so that its volume may be attached to another machine: the
    /// lease is over by a third of its duration more, which covers clocks that run at different speeds.
    pub fn may_attach_elsewhere(&self, now: Timestamp) -> bool {
        age(self.renewed, now) >= self.duration + self.duration / 3
    }

    /// Whether an agent that does not renew should be replaced: the lease has been over for another whole duration and
    /// half a minute, counted from `watched_since` at the earliest. A control plane that was away for an hour finds every
    /// lease expired, and gives the agents the time to come back to it.
    pub fn replace_at(&self, watched_since: Timestamp) -> Timestamp {
        after(
            self.renewed.max(watched_since),
            self.duration * 2 + Duration::from_secs(30),
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use jiff::SignedDuration;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn lease(renewed: i64) -> LeaseFacts {
        LeaseFacts {
            renewed: at(renewed),
            duration: Duration::from_secs(15),
            usage: None,
        }
    }

    #[test]
    fn a_lease_is_held_then_late_then_over() {
        let lease = lease(100);
        assert_eq!(
            lease.standing(at(90)),
            Standing::Held,
            "a clock that went back must not expire anything"
        );
        assert_eq!(lease.standing(at(109)), Standing::Held);
        assert_eq!(lease.standing(at(110)), Standing::Late);
        assert_eq!(lease.standing(at(114)), Standing::Late);
        assert_eq!(lease.standing(at(115)), Standing::Expired);
        assert!(!lease.may_attach_elsewhere(at(119)));
        assert!(lease.may_attach_elsewhere(at(120)));
    }

    #[test]
    fn a_control_plane_that_was_away_waits_for_its_agents() {
        let lease = lease(100);
        assert_eq!(lease.replace_at(at(0)), at(160));
        assert_eq!(lease.replace_at(at(4000)), at(4060));
    }

    proptest! {
        #[test]
        fn looking_again_when_told_sees_the_next_standing(renewed in 0i64..1000, now in 0i64..1000) {
            let lease = lease(renewed);
            let (mut now, mut steps) = (at(now), 0);
            while let Some(wait) = lease.changes_in(now) {
                let later = now + SignedDuration::try_from(wait).unwrap();
                prop_assert!(lease.standing(later) > lease.standing(now));
                now = later;
                steps += 1;
            }
            prop_assert!(steps <= 2);
            prop_assert_eq!(lease.standing(now), Standing::Expired);
        }

        #[test]
        fn nobody_gets_the_volume_while_the_agent_may_write(renewed in 0i64..1000, now in 0i64..2000, sent_before in 0i64..30) {
            // The agent counts from when it sent the renewal, at most as late as the Lease says.
            let agent_writes = now - (renewed - sent_before) < 15;
            prop_assert!(!(agent_writes && lease(renewed).may_attach_elsewhere(at(now))));
        }
    }
}
