//! Databases of a replica: files that never change, of which a newer generation takes the place of an older one while
//! both are open. Statements that run finish on the generation on which they began.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::error::EngineError;
use super::ladybug::open::OpenOptions;
use super::ladybug::{Database, GraphCounts, OpenDatabase};
use super::names::DatabaseId;
use super::registry::{Engines, Slot};

/// The least memory for a generation while the one before still has its own; enough to read by.
const LEAST_MEMORY: u64 = 64 << 20;

/// A generation that serves no new statements.
#[derive(Debug)]
pub struct Retired {
    closed: flume::Receiver<()>,
}

impl Retired {
    /// Waits until its last statement has ended and its file is closed.
    pub async fn gone(self) {
        // Disconnects when the engine has closed the file.
        let _ = self.closed.recv_async().await;
    }
}

impl Engines {
    /// Opens `file` for reading, counts what is in it, and serves it as `id` if `accept` agrees with the counts; whatever
    /// has to be written down goes into `accept`. Returns the generation that was served before, if it was open. Until
    /// then, and after a failure, everything is as it was.
    ///
    /// While both are open, the new one has the memory that is left, and may have less than a database
    /// should, until it is [widened](Self::widen).
    ///
    /// # Errors
    /// What the engine says if the file is not a database that this version can read; `Busy` without memory for it; what
    /// `accept` says.
    pub async fn take_up<E, F>(
        &self,
        id: &DatabaseId,
        file: &Path,
        accept: impl FnOnce(GraphCounts) -> F + Send,
    ) -> Result<Option<Retired>, E>
    where
        E: From<EngineError>,
        F: Future<Output = Result<(), E>> + Send,
    {
        let known = self.inner.slots.read().get(id).cloned();
        match known {
            Some(slot) => self.take_up_in(&slot, id, file, LEAST_MEMORY, accept).await,
            None => {
                // Nobody can find the slot before the database is there: it is marked as deleted until then.
                let slot = self.claim(id)?;
                let taken = self.take_up_in(&slot, id, file, LEAST_MEMORY, accept).await;
                if taken.is_err() {
                    self.inner.slots.write().remove(id);
                }
                taken
            }
        }
    }

    async fn take_up_in<E, F>(
        &self,
        slot: &Slot,
        id: &DatabaseId,
        file: &Path,
        least: u64,
        accept: impl FnOnce(GraphCounts) -> F + Send,
    ) -> Result<Option<Retired>, E>
    where
        E: From<EngineError>,
        F: Future<Output = Result<(), E>> + Send,
    {
        // Held to the end: nobody closes the present generation to make room, and who finds it closed waits for the new
        // one instead of asking for memory that the new one has.
        let _gate = slot.gate.lock().await;
        let limits = self.inner.limits();
        let least = least.min(limits.database_memory);
        let memory = self.inner.reserve_some(least, limits.database_memory, id).await?;
        let options = OpenOptions {
            read_only: true,
            pool_bytes: memory.bytes(),
            ..self.inner.open_options(id, file.to_owned(), &limits)
        };
        let open = Arc::new(OpenDatabase::open(options, memory).await?);
        let checked = async {
            let counts = Database::new(Arc::clone(&open)).counts().await?;
            accept(counts).await
        };
        if let Err(error) = checked.await {
            let closed = open.closed();
            drop(open);
            Retired { closed }.gone().await;
            return Err(error);
        }
        *slot.generation.write() = Some(file.to_owned());
        let before = slot.graph.write().replace(open);
        slot.deleted.store(false, Ordering::Release);
        Ok(before.map(|open| Retired { closed: open.closed() }))
    }

    /// Opens a generation once more that had to be content with less memory than a database should have, and serves that.
    /// Returns the cramped one; `None` if it has what it should have.
    ///
    /// # Errors
    /// As [`take_up`](Self::take_up); `Busy` as long as the memory is with others.
    pub async fn widen(&self, id: &DatabaseId) -> Result<Option<Retired>, EngineError> {
        let memory = self.inner.limits().database_memory;
        let slot = self.inner.slots.read().get(id).cloned();
        let Some(slot) = slot else { return Ok(None) };
        let cramped = {
            let open = slot.graph.read();
            let cramped = open.as_ref().filter(|open| open.options().pool_bytes < memory);
            cramped.map(|open| open.options().path.clone())
        };
        match cramped {
            Some(file) => self.take_up_in(&slot, id, &file, memory, |_| async { Ok(()) }).await,
            None => Ok(None),
        }
    }

    /// While databases are awaited, one that is not there is `Busy` and not `NotFound`.
    pub fn await_databases(&self, awaited: bool) {
        self.inner.awaiting.store(awaited, Ordering::Release);
    }
}
