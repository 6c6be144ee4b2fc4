//! Where an operator is cut off: before or after the n-th thing that it does to the world outside of it.

use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::Notify;

/// Before or after the effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    After,
}

/// A cut: the index of the deed, from 1, and the side of it.
pub(crate) type Cut = (usize, When);

#[derive(Default)]
struct State {
    count: usize,
    cut: Option<Cut>,
    cut_off: bool,
    deeds: Vec<String>,
}

/// Counts what an operator does. Once the cut is reached, nothing it does goes through any more: what is under way never
/// gets an answer, as if the process had been killed.
#[derive(Clone, Default)]
pub(crate) struct Gate {
    state: Arc<Mutex<State>>,
    reached: Arc<Notify>,
}

impl Gate {
    pub(crate) fn cut_at(cut: Cut) -> Self {
        let gate = Self::default();
        gate.state.lock().cut = Some(cut);
        gate
    }

    /// Does `deed` unless the operator was cut off.
    pub(crate) async fn pass<T>(&self, name: impl FnOnce() -> String, deed: impl Future<Output = T>) -> T {
        let index = {
            let mut state = self.state.lock();
            if state.cut_off {
                None
            } else {
                state.count += 1;
                let name = name();
                state.deeds.push(name);
                Some(state.count)
            }
        };
        let Some(index) = index else {
            return std::future::pending().await;
        };
        self.stop(index, When::Before).await;
        let result = deed.await;
        self.stop(index, When::After).await;
        if self.state.lock().cut_off {
            return std::future::pending().await;
        }
        result
    }

    async fn stop(&self, index: usize, when: When) {
        let cut = {
            let mut state = self.state.lock();
            let cut = state.cut == Some((index, when));
            state.cut_off |= cut;
            cut
        };
        if cut {
            self.reached.notify_one();
            std::future::pending::<()>().await;
        }
    }

    /// Waits for the cut.
    pub(crate) async fn reached(&self) {
        self.reached.notified().await;
    }

    pub(crate) fn deeds(&self) -> Vec<String> {
        self.state.lock().deeds.clone()
    }
}
