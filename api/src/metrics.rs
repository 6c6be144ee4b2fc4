//! Prometheus metrics. Labels have few values: routes are templates, nodes are the only names.

use graphplane_client::breaker::Phase;
use http::{Method, StatusCode};
use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::time::Duration;

type CacheSize = Box<dyn Fn() -> usize + Send + Sync>;

/// All metrics of the API.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram>,
    in_flight: Gauge,
    refused_keys: Family<ReasonLabels, Counter>,
    leases: Family<OutcomeLabels, Counter>,
    registrations: Family<OutcomeLabels, Counter>,
    misused_tokens: Family<ReasonLabels, Counter>,
    upstream: Family<UpstreamLabels, Counter>,
    retries: Counter,
    circuits: Family<NodeLabels, Gauge>,
    streams: Gauge,
    cache_objects: Family<KindLabels, Gauge>,
    cache_sizes: Mutex<Vec<(String, CacheSize)>>,
}

/// Labels of a finished request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    method: String,
    route: String,
    status: u16,
}

impl RequestLabels {
    /// Labels of a request to a route, given as its template.
    pub(crate) fn new(method: &Method, route: String, status: StatusCode) -> Self {
        // Anyone can invent methods; only those of routes are worth a series.
        let known = [
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ];
        let method = if known.contains(method) {
            method.as_str()
        } else {
            "other"
        };
        Self {
            method: method.to_owned(),
            route,
            status: status.as_u16(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabels {
    node: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabels {
    node: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: String,
}

/// One request or stream in flight; counted until it is dropped.
pub(crate) struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.5, 12))
}

impl Metrics {
    /// Metrics at zero.
    pub(crate) fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("graphplane_api");
        let requests = Family::default();
        registry.register("requests", "Requests by method, route and status", requests.clone());
        let durations = Family::<RouteLabels, Histogram>::new_with_constructor(latency as fn() -> Histogram);
        registry.register(
            "request_duration_seconds",
            "Time until the head of the answer",
            durations.clone(),
        );
        let in_flight = Gauge::default();
        registry.register(
            "requests_in_flight",
            "Requests whose answer has not begun",
            in_flight.clone(),
        );
        let refused_keys = Family::default();
        registry.register("refused_keys", "Requests refused for their key", refused_keys.clone());
        let leases = Family::default();
        registry.register("lease_renewals", "Lease renewals of nodes by outcome", leases.clone());
        let registrations = Family::default();
        registry.register(
            "registrations",
            "Registrations of nodes by outcome",
            registrations.clone(),
        );
        let misused_tokens = Family::default();
        registry.register(
            "misused_tokens",
            "Good tokens of nodes that did not come from the node's machine, by what gave them away",
            misused_tokens.clone(),
        );
        let upstream = Family::default();
        registry.register(
            "gateway_calls",
            "Calls to node agents by node and outcome",
            upstream.clone(),
        );
        let retries = Counter::default();
        registry.register(
            "gateway_retries",
            "Calls to node agents that were repeated",
            retries.clone(),
        );
        let circuits = Family::default();
        registry.register(
            "gateway_circuit",
            "State of a node's circuit: 0 closed, 1 half open, 2 open",
            circuits.clone(),
        );
        let streams = Gauge::default();
        registry.register(
            "operation_followers",
            "Open event streams of operations",
            streams.clone(),
        );
        let cache_objects = Family::default();
        registry.register(
            "cache_objects",
            "Objects in the watch caches by kind",
            cache_objects.clone(),
        );
        Arc::new(Self {
            registry,
            requests,
            durations,
            in_flight,
            refused_keys,
            leases,
            registrations,
            misused_tokens,
            upstream,
            retries,
            circuits,
            streams,
            cache_objects,
            cache_sizes: Mutex::new(Vec::new()),
        })
    }

    /// A request begins; it is in flight until the value is dropped.
    pub(crate) fn enter(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// A follower of an operation came; it stays until the value is dropped.
    pub(crate) fn follow(&self) -> InFlight {
        self.streams.inc();
        InFlight(self.streams.clone())
    }

    /// A request was answered.
    pub(crate) fn request(&self, labels: RequestLabels, elapsed: Duration) {
        self.durations
            .get_or_create(&RouteLabels {
                route: labels.route.clone(),
            })
            .observe(elapsed.as_secs_f64());
        self.requests.get_or_create(&labels).inc();
    }

    /// A key was refused: `missing`, `wrong`, `role`, `namespace`, `node`, `machine` or `limited`.
    pub(crate) fn refused_key(&self, reason: &'static str) {
        self.refused_keys.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// A lease was renewed, or why not.
    pub(crate) fn lease(&self, outcome: &'static str) {
        self.leases.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// A node registered, or why not.
    pub(crate) fn registration(&self, outcome: &'static str) {
        self.registrations.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// A good token of a node did not come from its machine.
    pub(crate) fn misused_token(&self, reason: &'static str) {
        self.misused_tokens.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// A call to a node agent ended.
    pub(crate) fn upstream(&self, node: &str, outcome: &'static str) {
        self.upstream
            .get_or_create(&UpstreamLabels {
                node: node.to_owned(),
                outcome,
            })
            .inc();
    }

    /// A call to a node agent is repeated.
    pub(crate) fn retry(&self) {
        self.retries.inc();
    }

    /// The circuit of a node changed.
    pub(crate) fn circuit(&self, node: &str, phase: Phase) {
        let value = match phase {
            Phase::Closed => 0,
            Phase::HalfOpen => 1,
            Phase::Open => 2,
        };
        self.circuits
            .get_or_create(&NodeLabels { node: node.to_owned() })
            .set(value);
    }

    /// Forgets a node that is gone.
    pub(crate) fn forget_node(&self, node: &str) {
        self.circuits.remove(&NodeLabels { node: node.to_owned() });
        for outcome in crate::gateway::OUTCOMES {
            self.upstream.remove(&UpstreamLabels {
                node: node.to_owned(),
                outcome,
            });
        }
    }

    /// Counts the objects of a cache from now on.
    pub(crate) fn observe_cache(&self, kind: String, size: CacheSize) {
        self.cache_sizes.lock().push((kind, size));
    }

    /// The metrics in the OpenMetrics text format.
    pub(crate) fn encode(&self) -> Result<String, std::fmt::Error> {
        for (kind, size) in self.cache_sizes.lock().iter() {
            self.cache_objects
                .get_or_create(&KindLabels { kind: kind.clone() })
                .set(size() as i64);
        }
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn invented_methods_make_no_series() {
        let metrics = Metrics::new();
        for method in ["BREW", "WHEN"] {
            let labels = RequestLabels::new(
                &Method::from_bytes(method.as_bytes()).unwrap(),
                "none".into(),
                StatusCode::OK,
            );
            metrics.request(labels, Duration::from_millis(1));
        }
        metrics.observe_cache("Graph".into(), Box::new(|| 3));
        let text = metrics.encode().unwrap();
        assert!(
            text.contains(r#"graphplane_api_requests_total{method="other",route="none",status="200"} 2"#),
            "{text}"
        );
        assert!(
            text.contains(r#"graphplane_api_cache_objects{kind="Graph"} 3"#),
            "{text}"
        );
    }

    #[test]
    fn a_node_that_is_gone_leaves_no_series() {
        let metrics = Metrics::new();
        metrics.upstream("n1", "answered");
        metrics.circuit("n1", Phase::Open);
        assert!(metrics.encode().unwrap().contains("n1"));
        metrics.forget_node("n1");
        assert!(!metrics.encode().unwrap().contains("n1"));
    }
}
