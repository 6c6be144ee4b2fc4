//! Limits how often wrong keys may be tried, in a fixed amount of memory.
//!
//! Addresses are hashed, with a secret of the process, into a fixed number of token buckets. Two addresses may share a
//! bucket: then their failures add up, which harms nobody who has a valid key, since valid keys are never limited.

use parking_lot::Mutex;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Instant;

const BUCKETS: usize = 4096;
/// Failures at once.
const BURST: f64 = 20.0;
/// Failures per second in the long run.
const RATE: f64 = 0.5;

/// Failures by place of origin.
pub(crate) struct Failures {
    buckets: Box<[Mutex<Bucket>]>,
    hasher: RandomState,
    start: Instant,
}

impl Default for Failures {
    fn default() -> Self {
        let buckets = (0..BUCKETS).map(|_| Mutex::new(Bucket::default())).collect();
        Self {
            buckets,
            hasher: RandomState::new(),
            start: Instant::now(),
        }
    }
}

impl Failures {
    /// Counts a failure; `Err` with the seconds to wait when there were too many.
    pub(crate) fn count(&self, source: IpAddr) -> Result<(), u32> {
        self.bucket(source).lock().take(self.start.elapsed().as_secs_f64())
    }

    /// Whether one more failure would be too many; a reason to spend nothing on a request that will fail.
    pub(crate) fn exhausted(&self, source: IpAddr) -> bool {
        let mut copy = *self.bucket(source).lock();
        copy.take(self.start.elapsed().as_secs_f64()).is_err()
    }

    fn bucket(&self, source: IpAddr) -> &Mutex<Bucket> {
        &self.buckets[self.hasher.hash_one(network(source)) as usize % self.buckets.len()]
    }
}

/// What counts as one place: an IPv4 address, or the network of an IPv6 address, of which one host has many.
fn network(source: IpAddr) -> [u8; 8] {
    let mut network = [0; 8];
    match source.to_canonical() {
        IpAddr::V4(address) => network[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => network.copy_from_slice(&address.octets()[..8]),
    }
    network
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: f64,
}

impl Default for Bucket {
    fn default() -> Self {
        Self { left: BURST, at: 0.0 }
    }
}

impl Bucket {
    fn take(&mut self, now: f64) -> Result<(), u32> {
        self.left = (self.left + (now - self.at).max(0.0) * RATE).min(BURST);
        self.at = self.at.max(now);
        if self.left >= 1.0 {
            self.left -= 1.0;
            return Ok(());
        }
        Err(((1.0 - self.left) / RATE).ceil() as u32)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_passes_and_then_it_takes_time() {
        let mut bucket = Bucket::default();
        assert_eq!((0..100).filter(|_| bucket.take(0.0).is_ok()).count(), BURST as usize);
        let wait = bucket.take(0.0).unwrap_err();
        assert!(wait >= 1);
        assert!(bucket.take(f64::from(wait)).is_ok());
    }

    #[test]
    fn one_host_of_ipv6_has_one_bucket_and_mapped_addresses_count_as_ipv4() {
        assert_eq!(
            network("2001:db8::1".parse().unwrap()),
            network("2001:db8::ffff:1".parse().unwrap())
        );
        assert_ne!(
            network("2001:db8::1".parse().unwrap()),
            network("2001:db9::1".parse().unwrap())
        );
        assert_eq!(
            network("::ffff:10.0.0.1".parse().unwrap()),
            network("10.0.0.1".parse().unwrap())
        );
    }

    proptest! {
        /// However the failures come, no more pass than the burst and the rate allow.
        #[test]
        fn never_more_than_burst_and_rate(gaps in prop::collection::vec(0.0f64..3.0, 1..200)) {
            let (mut bucket, mut now, mut passed) = (Bucket::default(), 0.0, 0.0);
            for gap in gaps {
                now += gap;
                if bucket.take(now).is_ok() { passed += 1.0; }
                prop_assert!(passed <= BURST + now * RATE + 1e-6);
            }
        }
    }
}
