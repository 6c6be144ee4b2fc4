//! A set of durations and its quantiles.

use std::time::Duration;

/// Measured durations.
#[derive(Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    /// Adds one.
    pub(crate) fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// Adds those of another set.
    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The duration that the share `q` of them does not exceed; zero when there are none.
    pub(crate) fn quantile(&mut self, q: f64) -> Duration {
        self.0.sort_unstable();
        let index = ((self.0.len() as f64 * q).ceil() as usize).clamp(1, self.0.len().max(1)) - 1;
        self.0.get(index).copied().unwrap_or_default()
    }

    /// `p50 1.2 ms, p99 3.4 ms`.
    pub(crate) fn summary(&mut self) -> String {
        let ms = |d: Duration| d.as_secs_f64() * 1000.0;
        let (p50, p99) = (self.quantile(0.5), self.quantile(0.99));
        format!("p50 {:.2} ms, p99 {:.2} ms", ms(p50), ms(p99))
    }
}
