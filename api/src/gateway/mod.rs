//! The way to the data: `/v1/graphs/{id}/query`, `schema`, `metrics`, `tables…` and `tasks…` go to the node agent of the
//! graph, bodies and answers streaming through.
//!
//! What is not in the list of [`Op`] does not cross the gateway. A caller reaches databases of its tenant only: the graph
//! is looked up in the caller's namespace, and what a body names besides is checked against it.

mod access;
mod body;
mod forward;
mod headers;
mod replicas;
mod routes;
mod target;
mod tasks;

pub(crate) use routes::{Op, call};

use crate::error::Error;
use crate::metrics::Metrics;
use crate::settings::GatewaySettings;
use graphplane_client::breaker::{Breaker, Decision};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

/// Outcomes of calls in the metrics.
pub(crate) const OUTCOMES: [&str; 5] = ["answered", "connect", "timeout", "broken", "cancelled"];

/// Connections to node agents, and what is known of their health.
pub(crate) struct Gateway {
    http: reqwest::Client,
    settings: GatewaySettings,
    breakers: Mutex<HashMap<String, NodeBreaker>>,
    metrics: Arc<Metrics>,
    start: Instant,
    /// Counts reads of fleets, so that their nodes take turns.
    turns: AtomicUsize,
}

struct NodeBreaker {
    /// The address that it is about: an agent that moved begins anew.
    address: String,
    breaker: Breaker,
}

impl Gateway {
    /// A gateway without connections.
    pub(crate) fn new(settings: &GatewaySettings, metrics: Arc<Metrics>) -> Result<Self, Error> {
        // The process decides which implementation of TLS it uses; where it did not, one has to be named.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Fails only if another thread was faster, which is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let http = reqwest::Client::builder()
            .connect_timeout(settings.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .pool_max_idle_per_host(64)
            .build()
            .map_err(Error::HttpClient)?;
        let breakers = Mutex::new(HashMap::new());
        Ok(Self {
            http,
            settings: settings.clone(),
            breakers,
            metrics,
            start: Instant::now(),
            turns: AtomicUsize::new(0),
        })
    }

    /// Leave to call a node, or how long to wait.
    fn admit(&self, node: &str, address: &str) -> Result<Permit<'_>, Duration> {
        let decision = self.with_breaker(node, address, |breaker, now| breaker.ask(now));
        match decision {
            Decision::Wait(wait) => Err(wait),
            Decision::Call | Decision::Probe => Ok(Permit {
                gateway: self,
                node: node.to_owned(),
                address: address.to_owned(),
                probe: decision == Decision::Probe,
                ended: false,
            }),
        }
    }

    fn with_breaker<T>(&self, node: &str, address: &str, act: impl FnOnce(&mut Breaker, Duration) -> T) -> T {
        let now = self.start.elapsed();
        let mut breakers = self.breakers.lock();
        let new = || NodeBreaker {
            address: address.to_owned(),
            breaker: Breaker::new(self.settings.breaker),
        };
        let known = breakers.entry(node.to_owned()).or_insert_with(new);
        if known.address != address {
            *known = new();
        }
        let before = known.breaker.phase();
        let result = act(&mut known.breaker, now);
        let after = known.breaker.phase();
        drop(breakers);
        if before != after {
            self.metrics.circuit(node, after);
            tracing::info!(node, address, state = ?after, "the circuit of a node changed");
        }
        result
    }

    /// Forgets nodes that are gone and gives their names.
    pub(crate) fn forget(&self, gone: impl Fn(&str) -> bool) -> Vec<String> {
        let mut breakers = self.breakers.lock();
        let nodes: Vec<String> = breakers.keys().filter(|node| gone(node)).cloned().collect();
        for node in &nodes {
            breakers.remove(node);
        }
        nodes
    }
}

/// Leave to call a node once. Dropped without an outcome it counts as cancelled by the client.
struct Permit<'a> {
    gateway: &'a Gateway,
    node: String,
    address: String,
    probe: bool,
    ended: bool,
}

impl Permit<'_> {
    /// The node answered.
    fn answered(mut self) {
        self.ended = true;
        self.gateway.metrics.upstream(&self.node, "answered");
        self.gateway
            .with_breaker(&self.node, &self.address, |breaker, _| breaker.succeeded());
    }

    /// The node answered that it cannot serve now.
    fn declined(mut self) {
        self.ended = true;
        self.gateway.metrics.upstream(&self.node, "answered");
        self.gateway
            .with_breaker(&self.node, &self.address, |breaker, now| breaker.declined(now));
    }

    /// The node did not answer; `outcome` is one of [`OUTCOMES`].
    fn failed(mut self, outcome: &'static str) {
        self.ended = true;
        self.gateway.metrics.upstream(&self.node, outcome);
        self.gateway
            .with_breaker(&self.node, &self.address, |breaker, now| breaker.failed(now));
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        self.gateway.metrics.upstream(&self.node, "cancelled");
        if self.probe {
            self.gateway
                .with_breaker(&self.node, &self.address, |breaker, now| breaker.abandoned(now));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn gateway() -> Gateway {
        Gateway::new(&GatewaySettings::default(), Metrics::new()).unwrap()
    }

    #[test]
    fn a_node_that_fails_is_left_alone_until_it_moves() {
        let gateway = gateway();
        for _ in 0..GatewaySettings::default().breaker.failures {
            gateway.admit("n1", "http://a").unwrap().failed("connect");
        }
        assert!(gateway.admit("n1", "http://a").is_err());
        assert!(gateway.admit("n2", "http://b").is_ok(), "other nodes are not affected");
        assert!(
            gateway.admit("n1", "http://c").is_ok(),
            "an agent at a new address begins anew"
        );
        assert_eq!(gateway.forget(|node| node == "n2"), ["n2"]);
    }

    #[test]
    fn a_cancelled_call_says_nothing_about_the_node() {
        let gateway = gateway();
        for _ in 0..100 {
            drop(gateway.admit("n1", "http://a").unwrap());
        }
        assert!(gateway.admit("n1", "http://a").is_ok());
    }
}
