//! What every reconcile has at hand.

use crate::agent::{Agent, AgentError, Agents};
use crate::backup::ObjectStore;
use crate::cache::Key;
use crate::error::Error;
use crate::events::Events;
use crate::kinds::Hubs;
use crate::metrics::Metrics;
use crate::placer::Placer;
use crate::provider::Listing;
use graphplane_core::backoff::{Backoff, Limits};
use graphplane_core::fleet::NodeView;
use graphplane_core::names;
use graphplane_core::prices::Region;
use graphplane_crds::SYSTEM_NAMESPACE;
use jiff::Timestamp;
use kube::Client;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// What every reconcile has at hand.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) hubs: Arc<Hubs>,
    pub(crate) listing: Listing,
    pub(crate) agents: Agents,
    pub(crate) store: Option<ObjectStore>,
    pub(crate) placer: Placer,
    pub(crate) events: Events,
    pub(crate) metrics: Metrics,
    pub(crate) cluster_id: String,
    /// What machines and disks cost, where that is known.
    pub(crate) prices: Option<Region>,
    pub(crate) resync: Duration,
    /// When this operator began to watch.
    pub(crate) watched_since: Timestamp,
    pub(crate) backoff: Mutex<Backoff<(&'static str, Key)>>,
    pub(crate) restarts: Mutex<Restarts>,
}

impl Context {
    /// The present.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// The agent of a node that can be called.
    pub(crate) fn agent(&self, node: &NodeView) -> Result<Agent, Error> {
        let secret = self
            .hubs
            .secrets
            .cache()
            .get(SYSTEM_NAMESPACE, &names::node_object(&node.name));
        let key = secret
            .as_ref()
            .and_then(|s| s.data.as_ref()?.get(names::API_KEY).cloned());
        let key = key.and_then(|bytes| String::from_utf8(bytes.0).ok());
        match (key, &node.endpoint) {
            (Some(key), Some(endpoint)) => Ok(self.agents.agent(endpoint, key.trim().to_owned(), node.epoch)),
            _ => Err(AgentError::NoKey(node.name.clone()).into()),
        }
    }
}

/// How long a machine has to have lived for its end not to count as a failed start.
const SETTLED: Duration = Duration::from_secs(30);

/// Machines that died too soon after their start, so that a program which cannot run is not started in a circle.
pub(crate) struct Restarts {
    backoff: Backoff<String>,
    /// Token of the dead machine, and when the next one may start.
    holds: HashMap<String, (String, Timestamp)>,
}

impl Default for Restarts {
    fn default() -> Self {
        let limits = Limits {
            first: Duration::from_millis(500),
            longest: Duration::from_secs(120),
            keys: 10_000,
        };
        Self {
            backoff: Backoff::new(limits),
            holds: HashMap::new(),
        }
    }
}

impl Restarts {
    /// A node is ready, and its machine was started then.
    pub(crate) fn ready(&mut self, node: &str, started: Timestamp, now: Timestamp) {
        if Duration::try_from(now.duration_since(started)).is_ok_and(|age| age >= SETTLED) {
            self.backoff.succeeded(&node.to_owned());
            self.holds.remove(node);
        }
    }

    /// The machine of a node with this token is dead; when the next one may start. The first that dies is replaced at
    /// once: a machine that served for a day and was killed must not keep its graphs waiting.
    pub(crate) fn dead(&mut self, node: &str, token: &str, now: Timestamp) -> Option<Timestamp> {
        if let Some((known, hold)) = self.holds.get(node)
            && known == token
        {
            return Some(*hold);
        }
        let first = self.backoff.count(&node.to_owned()) == 0;
        let wait = self.backoff.failed(&node.to_owned());
        let wait = if first { Duration::ZERO } else { wait };
        let hold = jiff::SignedDuration::try_from(wait)
            .ok()
            .and_then(|w| now.checked_add(w).ok())
            .unwrap_or(now);
        self.holds.insert(node.to_owned(), (token.to_owned(), hold));
        Some(hold)
    }

    /// The node is gone.
    pub(crate) fn forget(&mut self, node: &str) {
        self.backoff.succeeded(&node.to_owned());
        self.holds.remove(node);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_first_death_is_followed_at_once_and_a_circle_is_slowed_down() {
        let mut restarts = Restarts::default();
        assert_eq!(restarts.dead("n", "t1", at(0)), Some(at(0)));
        let mut last = Duration::ZERO;
        for n in 2..12 {
            let token = format!("t{n}");
            let hold = restarts.dead("n", &token, at(0)).unwrap();
            assert_eq!(
                restarts.dead("n", &token, at(50)),
                Some(hold),
                "decided once for each machine"
            );
            let wait = Duration::try_from(hold.duration_since(at(0))).unwrap();
            assert!(wait >= Duration::from_millis(250));
            last = last.max(wait);
        }
        assert!(last >= Duration::from_secs(60));
        restarts.ready("n", at(0), at(10));
        assert!(
            restarts.dead("n", "x", at(10)).unwrap() > at(10),
            "ten seconds are not enough"
        );
        restarts.ready("n", at(20), at(60));
        assert_eq!(restarts.dead("n", "y", at(60)), Some(at(60)));
    }
}
