//! A retry budget: retries are a bounded share of requests, however many requests fail.

/// A bucket of tokens. Every request puts a part of one in, every retry takes a whole one out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// In hundredths of a retry.
    tokens: u64,
    most: u64,
    percent: u64,
}

impl Budget {
    /// A full bucket of `most` retries, to which each request adds `percent` hundredths of one.
    pub fn new(most: u32, percent: u32) -> Self {
        let most = u64::from(most) * 100;
        Self {
            tokens: most,
            most,
            percent: u64::from(percent),
        }
    }

    /// A request begins.
    pub fn deposit(&mut self) {
        self.tokens = (self.tokens + self.percent).min(self.most);
    }

    /// Whether a retry may be made; it is paid for then.
    pub fn withdraw(&mut self) -> bool {
        match self.tokens.checked_sub(100) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_bucket_allows_a_burst_and_no_more() {
        let mut budget = Budget::new(3, 20);
        assert!((0..3).all(|_| budget.withdraw()));
        assert!(!budget.withdraw());
        (0..4).for_each(|_| budget.deposit());
        assert!(!budget.withdraw());
        budget.deposit();
        assert!(budget.withdraw());
    }

    proptest! {
        #[test]
        fn retries_are_a_share_of_requests(most in 0u32..10, percent in 0u32..100, steps in proptest::collection::vec(any::<bool>(), 0..300)) {
            let mut budget = Budget::new(most, percent);
            let (mut requests, mut retries) = (0u64, 0u64);
            for is_request in steps {
                match is_request {
                    true => { budget.deposit(); requests += 1; }
                    false => retries += u64::from(budget.withdraw()),
                }
            }
            prop_assert!(retries * 100 <= u64::from(most) * 100 + requests * u64::from(percent));
        }
    }
}
