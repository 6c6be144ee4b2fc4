//! What cannot be had at present.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// For how long a refusal is believed of other requests. Capacity comes back within minutes or not for hours; asking costs
/// one call.
const BELIEVED: Duration = Duration::from_secs(180);

/// Whether an error of RunInstances says that EC2 has no such machine to give, which also says that it started none.
///
/// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html>
pub(super) fn is_short(code: &str) -> bool {
    matches!(
        code,
        "InsufficientInstanceCapacity"
            | "InsufficientHostCapacity"
            | "InsufficientReservedInstanceCapacity"
            | "InsufficientCapacity"
            | "InsufficientFreeAddressesInSubnet"
            | "InstanceLimitExceeded"
            | "VcpuLimitExceeded"
            // Also what EC2 says of a type that a zone does not have.
            | "Unsupported"
    )
}

/// Types that were refused in a zone a short while ago. The empty type is that of the launch template.
#[derive(Default)]
pub(super) struct Capacity {
    refused: Mutex<HashMap<(String, String), Instant>>,
}

impl Capacity {
    /// The type was refused in the zone.
    pub(super) fn refused(&self, type_: &str, zone: &str) {
        let now = Instant::now();
        let mut refused = self.refused.lock();
        refused.retain(|_, at| now.duration_since(*at) < BELIEVED);
        refused.insert((type_.to_owned(), zone.to_owned()), now);
    }

    fn may_be_had(&self, type_: &str, zone: &str) -> bool {
        let refused = self.refused.lock();
        let at = refused.get(&(type_.to_owned(), zone.to_owned()));
        at.is_none_or(|at| at.elapsed() >= BELIEVED)
    }

    /// The first of the types that may be had in the zone.
    pub(super) fn first(&self, types: &[String], zone: &str) -> Option<String> {
        types.iter().find(|t| self.may_be_had(t, zone)).cloned()
    }

    /// The zones, those first where one of the types may be had.
    pub(super) fn order(&self, zones: Vec<String>, types: &[String]) -> Vec<String> {
        let has = |zone: &String| match types {
            [] => self.may_be_had("", zone),
            types => self.first(types, zone).is_some(),
        };
        let (mut first, last): (Vec<String>, Vec<String>) = zones.into_iter().partition(has);
        first.extend(last);
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn what_was_refused_comes_last_for_a_while() {
        let capacity = Capacity::default();
        let (types, zones) = (names(&["m7g.large", "m6g.large"]), names(&["a", "b"]));
        assert_eq!(capacity.first(&types, "a").as_deref(), Some("m7g.large"));
        capacity.refused("m7g.large", "a");
        assert_eq!(capacity.first(&types, "a").as_deref(), Some("m6g.large"));
        assert_eq!(capacity.first(&types, "b").as_deref(), Some("m7g.large"));
        assert_eq!(
            capacity.order(zones.clone(), &types),
            ["a", "b"],
            "another type can be had there"
        );
        capacity.refused("m6g.large", "a");
        assert_eq!(
            (capacity.first(&types, "a"), capacity.order(zones.clone(), &types)),
            (None, names(&["b", "a"]))
        );
        let long_ago = Instant::now() - BELIEVED;
        capacity.refused.lock().values_mut().for_each(|at| *at = long_ago);
        assert_eq!(capacity.order(zones.clone(), &types), zones);
        capacity.refused("", "a");
        assert_eq!(capacity.order(zones, &[]), ["b", "a"]);
    }

    #[test]
    fn other_failures_say_nothing_of_capacity() {
        assert!(is_short("InsufficientInstanceCapacity"));
        for code in [
            "RequestLimitExceeded",
            "IdempotentParameterMismatch",
            "UnauthorizedOperation",
            "InternalError",
        ] {
            assert!(!is_short(code), "{code}");
        }
    }
}
