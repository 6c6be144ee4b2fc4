//! How many requests a key may make: a bucket of tokens for each, which fills at a steady rate.

use super::keys::KeyId;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// The limit of every key. Only keys that are valid have a bucket, so there are few.
#[derive(Debug)]
pub struct RateLimit {
    per_second: f64,
    burst: f64,
    buckets: Mutex<HashMap<KeyId, (f64, Instant)>>,
}

impl RateLimit {
    /// `per_second` requests on average, and `burst` at once (0: as many as in one second); no limit if `per_second` is 0.
    pub fn new(per_second: u32, burst: u32) -> Option<Self> {
        let burst = if burst == 0 { per_second } else { burst };
        (per_second > 0).then(|| Self {
            per_second: f64::from(per_second),
            burst: f64::from(burst),
            buckets: Mutex::default(),
        })
    }

    /// Takes a token, or says after what time there will be one.
    pub(super) fn take(&self, key: KeyId, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock();
        let (tokens, filled) = buckets.entry(key).or_insert((self.burst, now));
        let since = now.saturating_duration_since(*filled).as_secs_f64();
        *tokens = (*tokens + since * self.per_second).min(self.burst);
        *filled = now;
        if *tokens >= 1.0 {
            *tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - *tokens) / self.per_second))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::keys::Key;
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_fills_again() {
        assert!(RateLimit::new(0, 10).is_none());
        let limit = RateLimit::new(2, 3).unwrap();
        let (one, other) = (Key::new("one").id(), Key::new("other").id());
        let start = Instant::now();
        for _ in 0..3 {
            limit.take(one, start).unwrap();
        }
        assert_eq!(limit.take(one, start), Err(Duration::from_millis(500)));
        limit.take(other, start).unwrap();
        let later = start + Duration::from_millis(500);
        limit.take(one, later).unwrap();
        assert!(limit.take(one, later).is_err());
        let much_later = start + Duration::from_secs(3600);
        for _ in 0..3 {
            limit.take(one, much_later).unwrap();
        }
        assert!(limit.take(one, much_later).is_err());
    }
}
