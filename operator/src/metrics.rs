//! What the operator counts, in Prometheus' terms. Labels are words of bounded sets: kinds, outcomes, condition types;
//! never names of objects.

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reconciled {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Called {
    target: &'static str,
    call: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallTo {
    target: &'static str,
    call: &'static str,
}

/// Objects of a kind whose condition of a type has a status.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct ConditionOf {
    pub(crate) kind: &'static str,
    pub(crate) r#type: String,
    pub(crate) status: String,
}

type CountConditions = Box<dyn Fn() -> HashMap<ConditionOf, i64> + Send>;
type Timings<L> = Family<L, Histogram, fn() -> Histogram>;

/// The operator's figures. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    reconciles: Family<Reconciled, Counter>,
    reconcile_seconds: Timings<OfKind>,
    calls: Family<Called, Counter>,
    call_seconds: Timings<CallTo>,
    conditions: Family<ConditionOf, Gauge>,
    leader: Gauge,
    orphans: Family<OfKind, Gauge>,
    count_conditions: Mutex<Option<CountConditions>>,
}

// A reconcile that only looks takes well under a millisecond; one that starts a machine takes seconds.
fn seconds() -> Histogram {
    Histogram::new([
        0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    ])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("graphplane_operator");
        let reconciles = Family::default();
        let reconcile_seconds: Timings<OfKind> = Family::new_with_constructor(seconds);
        let calls = Family::default();
        let call_seconds: Timings<CallTo> = Family::new_with_constructor(seconds);
        let conditions = Family::default();
        let leader = Gauge::default();
        let orphans = Family::default();
        registry.register("reconciles", "Reconciles by kind and outcome", reconciles.clone());
        registry.register_with_unit(
            "reconcile_duration",
            "Time of a reconcile",
            Unit::Seconds,
            reconcile_seconds.clone(),
        );
        registry.register(
            "calls",
            "Calls to providers, agents and the object store by outcome",
            calls.clone(),
        );
        registry.register_with_unit("call_duration", "Time of a call", Unit::Seconds, call_seconds.clone());
        registry.register("conditions", "Objects by condition type and status", conditions.clone());
        registry.register("leader", "1 while this operator acts", leader.clone());
        registry.register(
            "orphans",
            "Things at the provider that belong to no object",
            orphans.clone(),
        );
        let inner = Inner {
            registry,
            reconciles,
            reconcile_seconds,
            calls,
            call_seconds,
            conditions,
            leader,
            orphans,
            count_conditions: Mutex::new(None),
        };
        Self { inner: Arc::new(inner) }
    }
}

impl Metrics {
    /// All figures in the OpenMetrics text format; see [`CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        if let Some(count) = self.inner.count_conditions.lock().as_ref() {
            // Computed when asked for: a gauge that is counted up and down drifts.
            self.inner.conditions.clear();
            for (labels, count) in count() {
                self.inner.conditions.get_or_create(&labels).set(count);
            }
        }
        let mut encoded = String::new();
        match text::encode(&mut encoded, &self.inner.registry) {
            Ok(()) => encoded,
            Err(error) => {
                tracing::error!(%error, "metrics cannot be encoded");
                String::new()
            }
        }
    }

    pub(crate) fn reconciled(&self, kind: &'static str, outcome: &'static str, took: Duration) {
        self.inner.reconciles.get_or_create(&Reconciled { kind, outcome }).inc();
        self.inner
            .reconcile_seconds
            .get_or_create(&OfKind { kind })
            .observe(took.as_secs_f64());
    }

    pub(crate) fn called(&self, target: &'static str, call: &'static str, outcome: &'static str, took: Duration) {
        self.inner.calls.get_or_create(&Called { target, call, outcome }).inc();
        self.inner
            .call_seconds
            .get_or_create(&CallTo { target, call })
            .observe(took.as_secs_f64());
    }

    pub(crate) fn leading(&self, leads: bool) {
        self.inner.leader.set(i64::from(leads));
    }

    pub(crate) fn orphans(&self, kind: &'static str, count: usize) {
        let gauge = self.inner.orphans.get_or_create(&OfKind { kind });
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn count_conditions_with(&self, count: impl Fn() -> HashMap<ConditionOf, i64> + Send + 'static) {
        *self.inner.count_conditions.lock() = Some(Box::new(count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_in_the_text() {
        let metrics = Metrics::default();
        metrics.reconciled("Graph", "ok", Duration::from_millis(3));
        metrics.called("local", "ensure_instance", "ok", Duration::from_millis(30));
        metrics.count_conditions_with(|| {
            let ready = ConditionOf {
                kind: "Graph",
                r#type: "Ready".into(),
                status: "True".into(),
            };
            HashMap::from([(ready, 2)])
        });
        let text = metrics.encode();
        for line in [
            r#"graphplane_operator_reconciles_total{kind="Graph",outcome="ok"} 1"#,
            r#"graphplane_operator_reconcile_duration_seconds_count{kind="Graph"} 1"#,
            r#"graphplane_operator_calls_total{target="local",call="ensure_instance",outcome="ok"} 1"#,
            r#"graphplane_operator_conditions{kind="Graph",type="Ready",status="True"} 2"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
