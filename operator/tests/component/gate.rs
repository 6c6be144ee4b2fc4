//! Where an operator is cut off: before or after the n-th thing that it does to the world outside of it.

use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::{Notify, Semaphore};

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
    /// Deeds with this in their name wait until the semaphore is closed.
    hold: Option<(String, Arc<Semaphore>)>,
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

    /// Holds deeds with `name` in their names, from before their effect until [`release`](Self::release).
    pub(crate) fn hold(&self, name: &str) {
        self.state.lock().hold = Some((name.to_owned(), Arc::new(Semaphore::new(0))));
    }

    pub(crate) fn release(&self) {
        if let Some((_, held)) = self.state.lock().hold.take() {
            held.close();
        }
    }

    /// Does `deed` unless the operator was cut off.
    pub(crate) async fn pass<T>(&self, name: impl FnOnce() -> String, deed: impl Future<Output = T>) -> T {
        let admitted = {
            let mut state = self.state.lock();
            if state.cut_off {
                None
            } else {
                state.count += 1;
                let name = name();
                let hold = state.hold.as_ref().filter(|(held, _)| name.contains(held));
                let hold = hold.map(|(_, until)| until.clone());
                state.deeds.push(name);
                Some((state.count, hold))
            }
        };
        let Some((index, hold)) = admitted else {
            return std::future::pending().await;
        };
        if let Some(until) = hold {
            self.reached.notify_one();
            // It is closed, never opened.
            assert!(until.acquire().await.is_err());
        }
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

    /// Waits for the cut, or for a deed that is held.
    pub(crate) async fn reached(&self) {
        self.reached.notified().await;
    }

    pub(crate) fn deeds(&self) -> Vec<String> {
        self.state.lock().deeds.clone()
    }
}
