//! Who is the writer of a volume.
//!
//! The volume's status holds the newest epoch; it is raised, by a write that fails if somebody else wrote in between,
//! before a machine is started for the volume. A node mirrors the epoch in its own status before its machine starts, so
//! that the registration answer carries it. Nothing ever lowers it.

use graphplane_crds::quantities::Epoch;

/// The epoch of the next attachment: above everything that was seen.
pub fn next(seen: impl IntoIterator<Item = Option<Epoch>>) -> Epoch {
    seen.into_iter().flatten().max().unwrap_or_default().next()
}

/// Whether a node may be given databases: its own epoch, its volume's and the one that its agent registered with are
/// the same.
pub fn is_current(node: Option<Epoch>, volume: Option<Epoch>, registered: Option<Epoch>) -> bool {
    node.is_some() && node == volume && node == registered
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_epoch_is_one() {
        assert_eq!(next([None, None]), Epoch(1));
    }

    proptest! {
        #[test]
        fn an_epoch_only_rises(seen in proptest::collection::vec(proptest::option::of(0u64..1000), 0..6)) {
            let seen: Vec<Option<Epoch>> = seen.into_iter().map(|e| e.map(Epoch)).collect();
            let next = next(seen.clone());
            prop_assert!(seen.iter().flatten().all(|e| *e < next));
        }

        #[test]
        fn only_one_writer_is_current(volume in 1u64..5, a in 1u64..5, b in 1u64..5) {
            let current = |e: u64| is_current(Some(Epoch(e)), Some(Epoch(volume)), Some(Epoch(e)));
            prop_assert!(a == b || !(current(a) && current(b)));
        }
    }
}
