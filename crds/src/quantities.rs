//! Sizes, percentages and epochs that cannot hold a wrong value.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt, str::FromStr};

macro_rules! size {
    ($(#[$doc:meta])* $name:ident, $bytes:expr) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
        )]
        #[serde(transparent)]
        pub struct $name(#[schemars(range(min = 0, max = 1_073_741_824))] pub u32);

        impl $name {
            /// The size in bytes.
            pub const fn bytes(self) -> u64 {
                self.0 as u64 * $bytes
            }

            /// The smallest size that holds `bytes`.
            pub const fn ceil(bytes: u64) -> Self {
                let units = bytes.div_ceil($bytes);
                Self(if units > u32::MAX as u64 { u32::MAX } else { units as u32 })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", self.0, stringify!($name))
            }
        }
    };
}

size! {
    /// A size in MiB (2^20 bytes).
    MiB, 1 << 20
}
size! {
    /// A size in GiB (2^30 bytes).
    GiB, 1 << 30
}

/// A limit that may be absent: `-1` means unlimited, as in `config/graph.yml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Limit(#[schemars(range(min = -1))] pub i32);

impl Limit {
    /// No limit.
    pub const UNLIMITED: Self = Self(-1);

    /// Whether one more is allowed when `used` are in use.
    pub const fn allows(self, used: u32) -> bool {
        self.0 < 0 || used < self.0 as u32
    }
}

/// Number of one attachment of a volume to a writer; raised by the operator at every attach, never reused.
///
/// Two writers of one volume never hold the same epoch, and the higher one is right: a call or an object-store key that
/// carries a lower epoch is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Epoch(#[schemars(range(min = 0, max = 9_007_199_254_740_991_u64))] pub u64);

impl Epoch {
    /// The epoch of the next attachment.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number of nodes, absolute (`3`) or a share of the fleet (`10%`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CountOrPercent {
    /// So many.
    Count(u32),
    /// So many of a hundred, rounded up by [`CountOrPercent::of`].
    Percent(u8),
}

impl CountOrPercent {
    /// How many of `total` that is; a share is rounded up, so that a budget of a small fleet is never zero by rounding.
    pub fn of(self, total: u32) -> u32 {
        match self {
            Self::Count(n) => n,
            Self::Percent(p) => (u64::from(total) * u64::from(p)).div_ceil(100) as u32,
        }
    }
}

impl fmt::Display for CountOrPercent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(n) => write!(f, "{n}"),
            Self::Percent(p) => write!(f, "{p}%"),
        }
    }
}

impl FromStr for CountOrPercent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` is neither a count like `3` nor a share from `0%` to `100%`");
        match text.strip_suffix('%') {
            Some(share) => match share.parse::<u8>() {
                Ok(p) if p <= 100 => Ok(Self::Percent(p)),
                _ => Err(wrong()),
            },
            None => text.parse().map(Self::Count).map_err(|_| wrong()),
        }
    }
}

impl TryFrom<String> for CountOrPercent {
    type Error = String;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<CountOrPercent> for String {
    fn from(value: CountOrPercent) -> Self {
        value.to_string()
    }
}

impl JsonSchema for CountOrPercent {
    fn schema_name() -> Cow<'static, str> {
        "CountOrPercent".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 10,
            "pattern": "^([0-9]{1,9}|(100|[1-9]?[0-9])%)$"
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shares_round_up_and_counts_stay() {
        assert_eq!(CountOrPercent::Percent(10).of(1), 1);
        assert_eq!(CountOrPercent::Percent(10).of(100), 10);
        assert_eq!(CountOrPercent::Percent(0).of(100), 0);
        assert_eq!(CountOrPercent::Count(3).of(100), 3);
    }

    #[test]
    fn a_wrong_share_names_its_value() {
        let error = "101%".parse::<CountOrPercent>().unwrap_err();
        assert!(error.contains("101%"), "{error}");
        assert!("-1".parse::<CountOrPercent>().is_err());
    }

    #[test]
    fn unlimited_allows_any_number() {
        assert!(Limit::UNLIMITED.allows(u32::MAX));
        assert!(Limit(2).allows(1));
        assert!(!Limit(2).allows(2));
        assert!(!Limit(0).allows(0));
    }

    proptest! {
        #[test]
        fn count_or_percent_round_trips(n in 0u32..1_000_000_000, p in 0u8..=100) {
            prop_assert_eq!(CountOrPercent::Count(n).to_string().parse(), Ok(CountOrPercent::Count(n)));
            prop_assert_eq!(CountOrPercent::Percent(p).to_string().parse(), Ok(CountOrPercent::Percent(p)));
        }

        #[test]
        fn ceil_holds_the_bytes(bytes in 0u64..(1 << 50)) {
            prop_assert!(GiB::ceil(bytes).bytes() >= bytes);
            prop_assert!(MiB::ceil(bytes).bytes() - bytes < 1 << 20);
        }
    }
}
