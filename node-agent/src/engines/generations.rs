//! Databases of a replica: files that never change, of which a newer generation takes the place of an older one while
//! both are open. Statements that run finish on the generation on which they began.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::error::EngineError;
use super::exchange::GRACE;
use super::ladybug::open::OpenOptions;
use super::ladybug::{Database, GraphCounts, OpenDatabase};
use super::lance::{Home, Layout};
use super::names::DatabaseId;
use super::registry::{Engines, Slot, retire_graph};

/// The least memory for a generation while the one before still has its own; enough to read by.
const LEAST_MEMORY: u64 = 64 << 20;

/// Where the files of a generation are.
#[derive(Clone, Copy, Debug)]
pub struct Generation<'a> {
    /// The graph.
    pub graph: &'a Path,
    /// The directory of its vectors; absent on the volume if it has none.
    pub vectors: &'a Path,
}

/// A generation that serves no new statements and no new searches.
#[derive(Debug)]
pub struct Retired {
    /// Absent if the graph was not open.
    closed: Option<flume::Receiver<()>>,
    /// Absent if the vectors are those of the generation that serves now.
    vectors: Option<Arc<Home>>,
}

impl Retired {
    /// Waits until its last statement and its last search have ended, and its file is closed.
    pub async fn gone(self) {
        if let Some(closed) = self.closed {
            // Disconnects when the engine has closed the file.
            let _ = closed.recv_async().await;
        }
        if let Some(vectors) = self.vectors {
            drop(vectors.empty().await);
        }
    }
}

impl Engines {
    /// Opens a generation for reading, counts what is in it, and serves it as `id` if `accept` agrees with the counts;
    /// whatever has to be written down goes into `accept`. Returns the generation that was served before, if there was
    /// one. Until then, and after a failure, everything is as it was.
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
        files: Generation<'_>,
        accept: impl FnOnce(GraphCounts) -> F + Send,
    ) -> Result<Option<Retired>, E>
    where
        E: From<EngineError>,
        F: Future<Output = Result<(), E>> + Send,
    {
        let known = self.inner.slots.read().get(id).cloned();
        match known {
            Some(slot) => {
                let before = self.take_up_in(&slot, files.graph, LEAST_MEMORY, accept).await?;
                let vectors = slot.vectors.move_to(home(files));
                Ok(Some(Retired {
                    closed: before.closed,
                    vectors: Some(vectors),
                }))
            }
            None => {
                // Nobody can find the slot before the database is there: it is marked as deleted until then.
                let slot = self.claim(id)?;
                // Nobody is there yet, so it has its vectors first.
                slot.vectors.move_to(home(files));
                let taken = self.take_up_in(&slot, files.graph, LEAST_MEMORY, accept).await;
                if taken.is_err() {
                    self.inner.slots.write().remove(id);
                }
                taken.map(|_| None)
            }
        }
    }

    async fn take_up_in<E, F>(
        &self,
        slot: &Slot,
        file: &Path,
        least: u64,
        accept: impl FnOnce(GraphCounts) -> F + Send,
    ) -> Result<Retired, E>
    where
        E: From<EngineError>,
        F: Future<Output = Result<(), E>> + Send,
    {
        // Held to the end: nobody closes the present generation to make room, and who finds it closed waits for the new
        // one instead of asking for memory that the new one has.
        let _gate = slot.gate.lock().await;
        let id = &slot.id;
        let limits = self.inner.limits();
        let least = least.min(limits.database_memory);
        let reserve = || self.inner.reserve_some(least, limits.database_memory, id);
        let memory = match reserve().await {
            // The present one may have all that the node's tier leaves by now. Queries wait at the gate for the new one; if
            // that is not accepted, the next query opens the present one again, with the memory that it should have.
            Err(EngineError::Busy { .. }) if slot.graph.read().is_some() => {
                retire_graph(slot, GRACE).await?;
                reserve().await?
            }
            other => other?,
        };
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
            // Disconnects when the engine has closed the file.
            let _ = closed.recv_async().await;
            return Err(error);
        }
        *slot.generation.write() = Some(file.to_owned());
        let before = slot.graph.write().replace(open);
        slot.deleted.store(false, Ordering::Release);
        Ok(Retired {
            closed: before.map(|open| open.closed()),
            vectors: None,
        })
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
            Some(file) => {
                let widened = self.take_up_in(&slot, &file, memory, |_| async { Ok(()) });
                widened.await.map(Some)
            }
            None => Ok(None),
        }
    }

    /// While databases are awaited, one that is not there is `Busy` and not `NotFound`.
    pub fn await_databases(&self, awaited: bool) {
        self.inner.awaiting.store(awaited, Ordering::Release);
    }
}

fn home(files: Generation<'_>) -> Arc<Home> {
    Home::new(Layout::new(files.vectors.to_owned()))
}
