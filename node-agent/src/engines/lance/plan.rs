//! How an index is divided, from the number of its rows and the length of its vectors.

/// Tables of at most so many rows have no index: looking at every row is as fast, and exact.
pub(crate) const EXACT_ROWS: u64 = 1_000;
/// Rows that a partition should have. A search looks into so many partitions, whatever they have: with few rows in each it
/// is done sooner, and finds as much as with fewer and larger partitions, among which it would choose less well.
const PARTITION_ROWS: u64 = 2_048;
/// Beyond so many partitions, they grow first.
const SMALL_PARTITIONS: u64 = 1_024;
const LARGE_PARTITION_ROWS: u64 = 8_192;
const MAX_PARTITIONS: u64 = 4_096;
/// Vectors per centroid that are looked at in training.
const SAMPLE_RATE: u64 = 256;
const MIN_SAMPLE_RATE: u64 = 32;
/// Centroids of the codes: 8 bits each.
const CODES: u64 = 256;
/// What training and shuffling need whatever the size.
const BASE_BYTES: u64 = 64 << 20;

/// Numbers of an IVF-PQ index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) partitions: usize,
    pub(crate) sub_vectors: usize,
    pub(crate) sample_rate: usize,
    /// Memory that training needs, in bytes.
    pub(crate) bytes: u64,
}

impl Plan {
    /// The plan for an index, or `None` where there should be none. Training looks at fewer vectors where it would need
    /// more than `memory` bytes.
    pub(crate) fn new(rows: u64, dimension: usize, memory: u64) -> Option<Self> {
        if rows <= EXACT_ROWS {
            return None;
        }
        let partitions = (rows / PARTITION_ROWS)
            .min(SMALL_PARTITIONS)
            .max(rows / LARGE_PARTITION_ROWS)
            .clamp(1, MAX_PARTITIONS);
        // The sample, and its normalised copy.
        let bytes = |rate: u64| {
            let sampled = rows.min(rate * partitions.max(CODES));
            BASE_BYTES + 2 * sampled * 4 * dimension as u64
        };
        let mut rate = SAMPLE_RATE;
        while rate > MIN_SAMPLE_RATE && bytes(rate) > memory {
            rate /= 2;
        }
        Some(Self {
            partitions: usize::try_from(partitions).unwrap_or(usize::MAX),
            sub_vectors: sub_vectors(dimension),
            sample_rate: usize::try_from(rate).unwrap_or(usize::MAX),
            bytes: bytes(rate).min(memory),
        })
    }
}

/// Whether an index has outgrown what it was trained on: its centroids no longer fit, which costs recall in silence.
pub(crate) fn outgrown(trained_rows: u64, rows: u64) -> bool {
    rows >= trained_rows.saturating_mul(2)
}

/// The number of codes per vector: the divisor of its length that is closest to an eighth of it.
fn sub_vectors(dimension: usize) -> usize {
    let wanted = dimension as f64 / 8.0;
    let distance = |divisor: &usize| (*divisor as f64 / wanted).ln().abs();
    (1..=dimension)
        .rev()
        .filter(|divisor| dimension.is_multiple_of(*divisor))
        .min_by(|a, b| distance(a).total_cmp(&distance(b)))
        .unwrap_or(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn codes_divide_the_vector() {
        for (dimension, expected) in [
            (384, 48),
            (32, 4),
            (64, 8),
            (100, 10),
            (127, 127),
            (1, 1),
            (8, 1),
            (1536, 192),
            (4096, 512),
        ] {
            assert_eq!(sub_vectors(dimension), expected, "{dimension}");
        }
    }

    #[test]
    fn partitions_follow_the_rows() {
        let memory = u64::MAX;
        assert_eq!(Plan::new(1_000, 384, memory), None);
        for (rows, partitions) in [
            (1_001, 1),
            (20_000, 9),
            (1_000_000, 488),
            (8_000_000, 1_024),
            (10_000_000, 1_220),
            (1 << 40, 4_096),
        ] {
            let plan = Plan::new(rows, 384, memory).unwrap();
            assert_eq!(
                (plan.partitions, plan.sub_vectors, plan.sample_rate),
                (partitions, 48, 256)
            );
        }
    }

    #[test]
    fn training_stays_within_the_memory() {
        let plan = Plan::new(1 << 30, 4_096, 1 << 30).unwrap();
        assert!(plan.bytes <= 1 << 30 && plan.sample_rate == 32, "{plan:?}");
        assert_eq!(Plan::new(2_000, 384, 1 << 30).unwrap().sample_rate, 256);
    }

    #[test]
    fn an_index_is_trained_anew_when_it_has_doubled() {
        assert!(outgrown(5_000, 10_000) && !outgrown(5_000, 9_999));
    }
}
