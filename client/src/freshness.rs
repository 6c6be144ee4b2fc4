//! How long an answer is good for: a pure decision, with time given by the caller as a duration since any fixed moment.

use std::time::Duration;

/// How long answers are good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// Where a graph is, is asked again after this time.
    pub ttl: Duration,
    /// That there is no such graph, or that it is not served, is asked again after this time.
    pub negative_ttl: Duration,
    /// Where a graph is, is still used after so long if nobody can be asked.
    pub longest_stale: Duration,
    /// The sources are not asked for one graph more often than this, however often it is invalidated.
    pub interval: Duration,
}

impl Default for Freshness {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(30),
            negative_ttl: Duration::from_secs(2),
            longest_stale: Duration::from_secs(24 * 60 * 60),
            interval: Duration::from_secs(1),
        }
    }
}

/// What is known of the age of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age {
    /// Whether it says where a graph is.
    pub is_positive: bool,
    /// When it was given.
    pub answered: Duration,
    /// When the sources were asked last, with or without success.
    pub asked: Duration,
    /// Somebody found it to be wrong.
    pub is_suspect: bool,
}

/// What to do with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Use it.
    Fresh,
    /// Use it: it is old or suspect, and the sources were asked a moment ago.
    Stale,
    /// Ask, and use it if nobody answers.
    AskOr,
    /// Ask.
    Ask,
}

impl Freshness {
    /// What to do with an answer at `now`.
    pub fn judge(&self, age: &Age, now: Duration) -> Use {
        let old = now.saturating_sub(age.answered);
        let ttl = if age.is_positive { self.ttl } else { self.negative_ttl };
        if !age.is_suspect && old < ttl {
            return Use::Fresh;
        }
        if !age.is_positive || old >= self.longest_stale {
            return Use::Ask;
        }
        if now.saturating_sub(age.asked) < self.interval {
            Use::Stale
        } else {
            Use::AskOr
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FRESHNESS: Freshness = Freshness {
        ttl: Duration::from_secs(30),
        negative_ttl: Duration::from_secs(2),
        longest_stale: Duration::from_secs(600),
        interval: Duration::from_secs(1),
    };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn age(is_positive: bool, answered: u64, asked: u64, is_suspect: bool) -> Age {
        Age {
            is_positive,
            answered: at(answered),
            asked: at(asked),
            is_suspect,
        }
    }

    #[test]
    fn an_answer_is_fresh_then_stale_then_of_no_use() {
        let good = age(true, 100, 100, false);
        assert_eq!(FRESHNESS.judge(&good, at(129)), Use::Fresh);
        assert_eq!(FRESHNESS.judge(&good, at(130)), Use::AskOr);
        assert_eq!(FRESHNESS.judge(&age(true, 100, 130, false), at(130)), Use::Stale);
        assert_eq!(FRESHNESS.judge(&good, at(700)), Use::Ask);
        let none = age(false, 100, 100, false);
        assert_eq!(
            (FRESHNESS.judge(&none, at(101)), FRESHNESS.judge(&none, at(102))),
            (Use::Fresh, Use::Ask)
        );
    }

    #[test]
    fn what_was_found_wrong_is_asked_again_but_not_all_the_time() {
        assert_eq!(FRESHNESS.judge(&age(true, 100, 100, true), at(100)), Use::Stale);
        assert_eq!(FRESHNESS.judge(&age(true, 100, 100, true), at(101)), Use::AskOr);
    }

    proptest! {
        #[test]
        fn nothing_is_used_for_longer_than_allowed(
            is_positive: bool, answered in 0u64..1000, asked in 0u64..1000, is_suspect: bool, now in 0u64..2000,
        ) {
            let (age, old) = (age(is_positive, answered, asked, is_suspect), now.saturating_sub(answered));
            match FRESHNESS.judge(&age, at(now)) {
                Use::Fresh => {
                    let ttl = if is_positive { 30 } else { 2 };
                    prop_assert!(!is_suspect && old < ttl);
                }
                Use::Stale | Use::AskOr => prop_assert!(is_positive && old < 600),
                Use::Ask => {}
            }
        }
    }
}
