//! The revision of a graph: a number that is another one after everything that changed it, or its vectors and memories.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The last revision of any graph of this process: a graph that is deleted and made again has no number twice.
static LAST: AtomicU64 = AtomicU64::new(0);

fn next() -> u64 {
    LAST.fetch_add(1, Ordering::AcqRel) + 1
}

/// The revision of one graph. Clones share it. It holds for the life of the process; a later process counts anew.
#[derive(Clone, Debug)]
pub(crate) struct Revision(Arc<AtomicU64>);

impl Default for Revision {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(next())))
    }
}

impl Revision {
    /// The number of now. A copy of the graph that is begun later has everything up to it.
    pub(crate) fn number(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// The graph was changed.
    pub(crate) fn changed(&self) {
        self.0.fetch_max(next(), Ordering::AcqRel);
    }

    /// To be held while a statement changes the graph. The number moves when that has ended, whether it succeeded or not:
    /// if it moved before, a copy that was made in between would count as whole.
    pub(crate) fn changing(&self) -> Changing {
        Changing(self.clone())
    }
}

/// A change that is under way.
#[must_use]
pub(crate) struct Changing(Revision);

impl Drop for Changing {
    fn drop(&mut self) {
        self.0.changed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_moves_when_a_change_ends_and_no_graph_has_the_number_of_another() {
        let (one, other) = (Revision::default(), Revision::default());
        let before = one.number();
        assert_ne!(before, other.number());
        let changing = one.clone().changing();
        assert_eq!(one.number(), before);
        drop(changing);
        assert!(one.number() > before && one.number() != other.number());
    }
}
