//! What a replica tells about the seeds that it follows.

use crate::seeds::{SeedState, SeedStatus};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use std::sync::atomic::AtomicU64;

/// One label `seed`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SeedLabel {
    /// The key that is followed.
    pub seed: String,
}

/// Labels of the looks at a seed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SeedOutcome {
    /// The key that is followed.
    pub seed: String,
    /// `current`, `swapped`, `refused` or `failed`.
    pub outcome: &'static str,
}

/// Labels of the state of a seed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SeedStateLabels {
    /// The key that is followed.
    pub seed: String,
    /// The state.
    pub state: &'static str,
}

/// The series of followed seeds.
#[derive(Clone, Debug, Default)]
pub struct SeedMetrics {
    /// Looks at the object store.
    pub looks: Family<SeedOutcome, Counter>,
    state: Family<SeedStateLabels, Gauge>,
    epoch: Family<SeedLabel, Gauge>,
    version: Family<SeedLabel, Gauge>,
    age: Family<SeedLabel, Gauge<f64, AtomicU64>>,
    size: Family<SeedLabel, Gauge>,
}

impl SeedMetrics {
    /// Makes the series known.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("seed_looks", "Looks for a newer seed", metrics.looks.clone());
        registry.register("seed_state", "1 for the present state of a seed", metrics.state.clone());
        registry.register("seed_epoch", "Epoch of the seed that is served", metrics.epoch.clone());
        registry.register(
            "seed_version",
            "Number of the seed that is served",
            metrics.version.clone(),
        );
        registry.register_with_unit(
            "seed_age",
            "Age of the seed that is served",
            Unit::Seconds,
            metrics.age.clone(),
        );
        registry.register_with_unit(
            "seed_size",
            "Size of the seed that is served",
            Unit::Bytes,
            metrics.size.clone(),
        );
        metrics
    }

    /// Sets the gauges.
    pub fn set(&self, statuses: &[SeedStatus]) {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        for status in statuses {
            for state in SeedState::ALL {
                let labels = SeedStateLabels {
                    seed: status.seed.clone(),
                    state: state.as_str(),
                };
                self.state.get_or_create(&labels).set(i64::from(state == status.state));
            }
            let Some(served) = &status.served else { continue };
            let label = SeedLabel {
                seed: status.seed.clone(),
            };
            self.epoch.get_or_create(&label).set(number(served.at.epoch));
            self.version.get_or_create(&label).set(number(served.at.version));
            self.age.get_or_create(&label).set(served.age_seconds());
            self.size.get_or_create(&label).set(number(served.size_bytes));
        }
    }
}
