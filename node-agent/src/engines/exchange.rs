//! Exchanging the files of a database for others while nobody uses it: the new ones must have answered before the old ones
//! go.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::error::EngineError;
use super::ladybug::{Database, OpenDatabase};
use super::names::DatabaseId;
use super::registry::{Engines, Slot, not_found};
use super::swap::{Beside, Swap};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long statements on a database that is about to be replaced may go on; then they are interrupted.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// Files that take the place of a database's: complete, closed, and in the directories of those that they replace.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) graph: PathBuf,
    pub(crate) staging: Beside,
    /// If these do not stay, nobody uses the old ones: they were [emptied](Engines::empty_vectors).
    pub(crate) vectors: Beside,
}

impl Engines {
    /// The place of a database that exists.
    pub(crate) fn existing(&self, id: &DatabaseId) -> Result<Arc<Slot>, EngineError> {
        let slots = self.inner.slots.read();
        let slot = slots.get(id).filter(|slot| slot.exists());
        slot.cloned().ok_or_else(|| not_found(id))
    }

    /// Ends the making of a database whose place was [claimed](Self::claim). If it was not made, the place is free again;
    /// but not while an exchange is to be undone at the next start, which would undo what another one of this id has become.
    pub(crate) fn settle(&self, slot: &Slot, made: bool) {
        if made {
            slot.deleted.store(false, Ordering::Release);
        } else if Swap::is_pending(&self.inner.files, &slot.id) {
            tracing::error!(database = %slot.id, "an exchange of files could not be undone; the id stays taken until the agent starts again");
        } else {
            self.inner.slots.write().remove(&slot.id);
        }
    }

    /// Puts the files in the place of the slot's, and opens the database. The gate of the slot is held, and nothing that is
    /// replaced is open.
    ///
    /// # Errors
    /// The database is then as it was before, and the files that were to replace it have their own names.
    pub(crate) async fn exchange(&self, slot: &Slot, arrival: Arrival) -> Result<(), EngineError> {
        let (files, id) = (self.inner.files.clone(), slot.id.clone());
        let swap =
            blocking(move || Swap::plan(&files, &id, &arrival.graph, &arrival.staging, &arrival.vectors)).await?;
        let swap = Arc::new(swap);
        let step = Arc::clone(&swap);
        let answered = match blocking(move || step.exchange()).await {
            Ok(()) => self.answering(&slot.id).await,
            Err(error) => Err(error),
        };
        let failure = match answered {
            Ok(open) => {
                let step = Arc::clone(&swap);
                match blocking(move || step.commit()).await {
                    Ok(()) => {
                        *slot.graph.write() = Some(open);
                        slot.revision.changed();
                        return Ok(());
                    }
                    Err(error) => {
                        let closed = open.closed();
                        drop(open);
                        let _ = closed.recv_async().await;
                        error
                    }
                }
            }
            Err(error) => error,
        };
        if let Err(error) = blocking(move || swap.undo()).await {
            // Half of one and half of the other must not be opened: the next start tries again.
            slot.deleted.store(true, Ordering::Release);
            return Err(EngineError::internal(format!(
                "{failure}; and the old database could not be put back ({error}): restart the agent, which does that first"
            )));
        }
        Err(failure)
    }

    /// Opens a database that was just put in place, and asks it something.
    async fn answering(&self, id: &DatabaseId) -> Result<Arc<OpenDatabase>, EngineError> {
        let open = self.inner.open_graph(id, self.inner.files.graph(id)).await?;
        match Database::new(Arc::clone(&open)).ping(ANSWER_TIMEOUT).await {
            Ok(()) => Ok(open),
            Err(error) => {
                let closed = open.closed();
                drop(open);
                let _ = closed.recv_async().await;
                Err(error)
            }
        }
    }
}

/// Does something with a database that nobody else knows, and waits until the engine has closed its file.
pub(crate) async fn closing<T, W>(open: Arc<OpenDatabase>, work: impl FnOnce(Database) -> W) -> Result<T, EngineError>
where
    W: Future<Output = Result<T, EngineError>>,
{
    let closed = open.closed();
    let outcome = work(Database::new(open)).await;
    // Disconnects when the engine has closed the file.
    let _ = closed.recv_async().await;
    outcome
}

/// Runs work on files where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(EngineError::internal(format!(
            "a thread that moved files ended: {error}"
        )))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engines::{EngineLimits, EnginesConfig};

    #[tokio::test]
    async fn an_id_whose_exchange_was_not_undone_stays_taken_until_the_next_start() {
        let root = tempfile::tempdir().unwrap();
        let id: DatabaseId = "kg1".parse().unwrap();
        let config = EnginesConfig {
            data_dir: root.path().to_owned(),
            read_only: false,
            limits: EngineLimits::default(),
        };
        let arrive = |engines: &Engines| {
            let (graph, staging) = (engines.inner.files.restoring(&id), Beside::Kept);
            // Of a version that the engine does not open.
            std::fs::write(&graph, b"LBUG\x01\0\0\0\0\0\0\0").unwrap();
            let vectors = Beside::Kept;
            Arrival {
                graph,
                staging,
                vectors,
            }
        };
        let engines = Engines::start(config.clone()).await.unwrap();
        // One that is undone leaves the id free.
        let slot = engines.claim(&id).unwrap();
        engines.exchange(&slot, arrive(&engines)).await.unwrap_err();
        engines.settle(&slot, false);
        let slot = engines.claim(&id).unwrap();
        // One that is not.
        let arrival = arrive(&engines);
        let swap = Swap::plan(
            &engines.inner.files,
            &id,
            &arrival.graph,
            &arrival.staging,
            &arrival.vectors,
        )
        .unwrap();
        swap.exchange().unwrap();
        engines.settle(&slot, false);
        assert!(matches!(engines.claim(&id), Err(EngineError::AlreadyExists { .. })));
        assert!(!engines.contains(&id));
        drop(slot);
        engines.shutdown().await;
        drop(engines);
        let engines = Engines::start(config).await.unwrap();
        assert!(!engines.contains(&id) && !engines.inner.files.graph(&id).exists());
        engines.claim(&id).unwrap();
    }
}
