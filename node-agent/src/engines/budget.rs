//! The node's memory, divided among open databases: every LadybugDB pool and every DuckDB limit is taken from it
//! before the file is opened, and given back when it is closed.

use std::sync::Arc;

use parking_lot::Mutex;

/// How much of the node's memory is given out.
#[derive(Debug)]
pub(crate) struct Budget {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    total: u64,
    reserved: u64,
}

impl Budget {
    pub(crate) fn new(total: u64) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State { total, reserved: 0 }),
        })
    }

    /// A smaller total takes effect as reservations are given back.
    pub(crate) fn set_total(&self, total: u64) {
        self.state.lock().total = total;
    }

    /// Takes `most` bytes or what is left of them; nothing if `least` are not left.
    pub(crate) fn reserve(self: &Arc<Self>, least: u64, most: u64) -> Option<Reservation> {
        let mut state = self.state.lock();
        let bytes = state.total.saturating_sub(state.reserved).min(most);
        if bytes < least {
            return None;
        }
        state.reserved += bytes;
        Some(Reservation {
            budget: Arc::clone(self),
            bytes,
        })
    }

    pub(crate) fn reserved(&self) -> u64 {
        self.state.lock().reserved
    }

    pub(crate) fn total(&self) -> u64 {
        self.state.lock().total
    }
}

/// Some of the node's memory, until it is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Reservation {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.state.lock().reserved -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_total_is_never_exceeded() {
        let budget = Budget::new(100);
        let first = budget.reserve(60, 60).unwrap();
        assert!(budget.reserve(41, 41).is_none());
        let second = budget.reserve(30, 50).unwrap();
        assert_eq!((second.bytes(), budget.reserved()), (40, 100));
        drop(first);
        assert_eq!(budget.reserved(), 40);
        budget.set_total(30);
        assert!(budget.reserve(1, 1).is_none());
        drop(second);
        assert!(budget.reserve(30, 30).is_some());
        assert!(budget.reserve(u64::MAX, u64::MAX).is_none());
    }
}
