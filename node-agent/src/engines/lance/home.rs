//! Where the vectors of a database are, and the right to put others in their place: whoever reads or changes a table has
//! a share of it, and whoever exchanges the whole directory has it alone.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::super::error::EngineError;
use super::super::registry::{Engines, Slot};
use super::layout::Layout;

/// How long searches may go on before their tables are exchanged. What changes the tables is cancelled.
const PATIENCE: Duration = Duration::from_secs(60);
const REMIND: Duration = Duration::from_secs(1);

/// The directory of the vectors of a database. On replicas every seed has its own.
#[derive(Debug)]
pub(crate) struct Home {
    layout: Layout,
    users: Arc<RwLock<()>>,
}

/// A share of a home: as long as it is held, what is there stays there.
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) layout: Layout,
    _guard: OwnedRwLockReadGuard<()>,
}

/// A home without anybody in it.
#[derive(Debug)]
pub(crate) struct Emptied {
    _guard: OwnedRwLockWriteGuard<()>,
}

impl Home {
    pub(crate) fn new(layout: Layout) -> Arc<Self> {
        Arc::new(Self {
            layout,
            users: Arc::default(),
        })
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Waits until nobody uses it, and keeps everybody away as long as the answer is held.
    pub(crate) async fn empty(&self) -> Emptied {
        Emptied {
            _guard: Arc::clone(&self.users).write_owned().await,
        }
    }
}

/// The present home of a database. Another one takes its place when a replica takes up a newer seed.
#[derive(Debug)]
pub(crate) struct Address(Mutex<Arc<Home>>);

impl Address {
    pub(crate) fn new(layout: Layout) -> Self {
        Self(Mutex::new(Home::new(layout)))
    }

    pub(crate) fn home(&self) -> Arc<Home> {
        Arc::clone(&self.0.lock())
    }

    /// Whoever comes from now on goes there; the home before may still have users.
    pub(crate) fn move_to(&self, home: Arc<Home>) -> Arc<Home> {
        std::mem::replace(&mut self.0.lock(), home)
    }

    /// A share of the present home.
    pub(crate) async fn share(&self) -> Share {
        loop {
            let home = self.home();
            let guard = Arc::clone(&home.users).read_owned().await;
            // One that was left meanwhile may be gone from the volume.
            if Arc::ptr_eq(&home, &self.home()) {
                return Share {
                    layout: home.layout.clone(),
                    _guard: guard,
                };
            }
        }
    }
}

impl Engines {
    /// Cancels the changes of a database's vectors, waits for the searches that run, and keeps what comes waiting until the
    /// answer is dropped. Whatever is then in the directory is what the next search sees.
    ///
    /// # Errors
    /// `Busy` if they take too long.
    pub(crate) async fn empty_vectors(&self, slot: &Slot) -> Result<Emptied, EngineError> {
        let home = slot.vectors.home();
        let emptying = async {
            let mut emptied = std::pin::pin!(home.empty());
            loop {
                // More than once: a change may begin before this is in the queue.
                self.inner.lance.stop_changes(&slot.id);
                if let Ok(emptied) = tokio::time::timeout(REMIND, emptied.as_mut()).await {
                    return emptied;
                }
            }
        };
        let emptied = tokio::time::timeout(PATIENCE, emptying).await;
        let emptied = emptied.map_err(|_| EngineError::Busy {
            reason: format!("the vectors of {} are in use", slot.id),
            retry_after: Duration::from_secs(5),
        })?;
        // What is open is of the old directory.
        self.inner.lance.close_tables(&slot.id);
        Ok(emptied)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::FutureExt;
    use std::path::Path;

    #[tokio::test]
    async fn who_shares_a_home_keeps_it_from_being_emptied() {
        let address = Address::new(Layout::new("a".into()));
        let home = address.home();
        let share = address.share().await;
        let mut emptying = Box::pin(home.empty());
        assert!(emptying.as_mut().now_or_never().is_none());
        // Who comes later waits for who came first.
        assert!(address.share().now_or_never().is_none());
        drop(share);
        let emptied = emptying.await;
        assert!(address.share().now_or_never().is_none());
        drop(emptied);
        assert!(address.share().now_or_never().is_some());
    }

    #[tokio::test]
    async fn who_waited_for_a_home_that_was_left_gets_the_new_one() {
        let address = Address::new(Layout::new("old".into()));
        let old = address.home();
        let emptied = old.empty().await;
        let mut late = Box::pin(address.share());
        assert!(late.as_mut().now_or_never().is_none());
        address.move_to(Home::new(Layout::new("new".into())));
        drop(emptied);
        assert_eq!(late.await.layout.directory(), Path::new("new"));
    }
}
