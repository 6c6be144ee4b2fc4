//! How long to wait before a failed reconcile is repeated: per key, doubling, with jitter, back to the start on
//! success.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// Bounds of the waits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// About the first wait.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// Keys that are remembered; beyond it the key that failed least often is forgotten.
    pub keys: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // A node that is restarting answers again within a second; a provider that throttles wants minutes.
        Self {
            first: Duration::from_millis(250),
            longest: Duration::from_secs(120),
            keys: 20_000,
        }
    }
}

/// Failures in a row, per key.
#[derive(Debug)]
pub struct Backoff<K> {
    limits: Limits,
    failures: HashMap<K, u32>,
}

impl<K: Hash + Eq + Clone> Backoff<K> {
    /// Nothing has failed yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            failures: HashMap::new(),
        }
    }

    /// Counts a failure of `key` and says how long to wait before the next attempt.
    pub fn failed(&mut self, key: &K) -> Duration {
        if !self.failures.contains_key(key) && self.failures.len() >= self.limits.keys.max(1) {
            let least = self.failures.iter().min_by_key(|(_, n)| **n).map(|(k, _)| k.clone());
            least.map(|k| self.failures.remove(&k));
        }
        let count = self.failures.entry(key.clone()).or_insert(0);
        *count = count.saturating_add(1);
        wait(self.limits, key, *count)
    }

    /// Forgets the failures of `key`.
    pub fn succeeded(&mut self, key: &K) {
        self.failures.remove(key);
    }

    /// Failures of `key` in a row.
    pub fn count(&self, key: &K) -> u32 {
        self.failures.get(key).copied().unwrap_or(0)
    }

    /// Keys that are failing.
    pub fn len(&self) -> usize {
        self.failures.len()
    }

    /// Whether nothing is failing.
    pub fn is_empty(&self) -> bool {
        self.failures.is_empty()
    }
}

/// The wait after the `count`-th failure in a row: between a half and the whole of the doubled wait. The jitter comes
/// from the key, so that keys which fail together do not return together, and a test sees the same waits every time.
fn wait(limits: Limits, key: &impl Hash, count: u32) -> Duration {
    let doubled = limits
        .first
        .saturating_mul(1_u32.checked_shl(count.saturating_sub(1)).unwrap_or(u32::MAX));
    let full = doubled.min(limits.longest);
    let mut hasher = DefaultHasher::new();
    (key, count).hash(&mut hasher);
    let share = (hasher.finish() % 1000) as f64 / 1000.0;
    full / 2 + (full / 2).mul_f64(share)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn limits(keys: usize) -> Limits {
        Limits {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(60),
            keys,
        }
    }

    #[test]
    fn success_starts_over() {
        let mut backoff = Backoff::new(limits(10));
        let first = backoff.failed(&"a");
        for _ in 0..10 {
            backoff.failed(&"a");
        }
        assert!(backoff.failed(&"a") >= Duration::from_secs(30));
        backoff.succeeded(&"a");
        assert_eq!((backoff.count(&"a"), backoff.failed(&"a")), (0, first));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_the_worst() {
        let mut backoff = Backoff::new(limits(2));
        backoff.failed(&1);
        backoff.failed(&1);
        for key in 2..100 {
            backoff.failed(&key);
        }
        assert_eq!((backoff.len(), backoff.count(&1)), (2, 2));
    }

    proptest! {
        #[test]
        fn waits_double_within_their_bounds(key in 0u64..1000, failures in 1u32..200) {
            let mut backoff = Backoff::new(limits(10));
            for n in 1..=failures {
                let wait = backoff.failed(&key);
                let full = Duration::from_secs(1).saturating_mul(1 << (n - 1).min(10)).min(Duration::from_secs(60));
                prop_assert!(wait >= full / 2 && wait <= full, "{n}: {wait:?} of {full:?}");
            }
        }
    }
}
