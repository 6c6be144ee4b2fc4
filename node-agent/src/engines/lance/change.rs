//! The right to change one table of vectors, and the two ways to do it: a new generation in the place of the old one, and
//! a new version of the generation that is there.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use chrono::TimeDelta;
use lance::Dataset;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use super::super::error::EngineError;
use super::error::failed;
use super::home::Share;
use super::layout::{self, Layout, Mark, Name, Record};
use super::pool::blocking;
use super::table::{Generation, Table, Vectors, remove_beside};

/// Versions that are older are removed. Searches take less.
const KEEP_VERSIONS: TimeDelta = TimeDelta::minutes(10);

/// Held by the one that changes a table.
pub(crate) struct Change {
    pub(super) vectors: Vectors,
    pub(super) name: Name,
    pub(super) table: Arc<Table>,
    /// Cancelled when the database goes.
    pub(super) closing: CancellationToken,
    /// Before anything of this change was written.
    pub(super) begun: SystemTime,
    /// Goes before the share and the lock do: afterwards it would be another one's.
    pub(super) _mark: Option<Mark>,
    pub(super) share: Share,
    pub(super) _lock: OwnedMutexGuard<()>,
}

impl Change {
    /// The table as it is, or `None` if there is none yet.
    pub(crate) async fn current(&self) -> Result<Option<Arc<Generation>>, EngineError> {
        let layout = &self.share.layout;
        self.vectors.current_of(&self.table, &self.name, layout).await
    }

    /// Works until it is done, `stop` says so, or the database goes.
    pub(crate) async fn until<T>(
        &self,
        stop: &CancellationToken,
        work: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        tokio::select! {
            biased;
            outcome = work => outcome,
            () = stop.cancelled() => Err(EngineError::Cancelled),
            () = self.closing.cancelled() => Err(EngineError::Cancelled),
        }
    }

    /// A fresh directory for another generation.
    pub(crate) async fn begin(&self, dimension: usize) -> Result<Unfinished, EngineError> {
        let record = Record::new(dimension);
        let layout = &self.share.layout;
        let directory = layout.generation(&self.name, &record.generation);
        let parent = layout.directory().to_owned();
        blocking(move || std::fs::create_dir_all(&parent).map_err(|error| EngineError::io("create", parent, error)))
            .await?;
        Ok(Unfinished {
            record,
            directory,
            published: false,
        })
    }

    /// Puts a generation that is complete in the place of the one before it.
    pub(crate) async fn publish(&self, mut made: Unfinished, dataset: Dataset) -> Result<Arc<Generation>, EngineError> {
        let before = self.recorded().await?;
        self.record(&made.directory, &made.record).await?;
        made.published = true;
        let directory = std::mem::take(&mut made.directory);
        let generation = Arc::new(Generation::new(made.record.clone(), directory, dataset));
        let known = self.table.current.write().replace(Arc::clone(&generation));
        self.retire(before, known);
        Ok(generation)
    }

    /// Ends the table; false if there is none. It need not be one that can be opened.
    pub(crate) async fn remove(&self) -> Result<bool, EngineError> {
        let before = self.recorded().await?;
        if before.is_none() {
            return Ok(false);
        }
        let (layout, name) = self.place();
        blocking(move || layout.forget(&name)).await?;
        let known = self.table.current.write().take();
        self.retire(before, known);
        Ok(true)
    }

    /// Lets the directory of a generation go that is no longer the table: with its last reader, if there may be one.
    fn retire(&self, before: Option<Record>, known: Option<Arc<Generation>>) {
        let Some(before) = before else { return };
        match known.filter(|known| known.record.generation == before.generation) {
            Some(known) => known.retire(),
            None => {
                let (layout, name) = self.place();
                remove_beside(layout.generation(&name, &before.generation));
            }
        }
    }

    async fn recorded(&self) -> Result<Option<Record>, EngineError> {
        let (layout, name) = self.place();
        blocking(move || layout.read(&name)).await
    }

    fn place(&self) -> (Layout, Name) {
        (self.share.layout.clone(), self.name.clone())
    }

    /// Removes versions of the table that no search reads any more, and what broken changes left of it. Nobody else
    /// changes the table, so nothing of what is in no version is still wanted.
    pub(crate) async fn clean(&self, generation: &Generation) -> Result<(), EngineError> {
        let dataset = Dataset::clone(&generation.dataset());
        generation.advance(self.vectors.lance().pool.run(clean(dataset)).await?);
        Ok(())
    }

    /// Makes another version of the table the one that readers see, once it is safely on the volume.
    pub(crate) async fn advance(&self, generation: &Generation, dataset: Dataset) -> Result<(), EngineError> {
        let (directory, begun) = (generation.directory().to_owned(), self.begun);
        blocking(move || layout::sync(&directory, begun)).await?;
        generation.advance(dataset);
        Ok(())
    }

    /// The same with another record.
    pub(crate) async fn advance_with(
        &self,
        generation: &Generation,
        record: Record,
        dataset: Dataset,
    ) -> Result<Arc<Generation>, EngineError> {
        self.record(generation.directory(), &record).await?;
        let directory = generation.directory().to_owned();
        let advanced = Arc::new(Generation::new(record, directory, dataset));
        *self.table.current.write() = Some(Arc::clone(&advanced));
        Ok(advanced)
    }

    async fn record(&self, directory: &Path, record: &Record) -> Result<(), EngineError> {
        let ((layout, name), begun) = (self.place(), self.begun);
        let (directory, record) = (directory.to_owned(), record.clone());
        blocking(move || {
            layout::sync(&directory, begun)?;
            layout.write(&name, &record)
        })
        .await
    }
}

/// Removes old versions of a table, and gives its last one, which stays. At the beginning of a change: what readers see
/// then is that one.
pub(crate) async fn clean(mut dataset: Dataset) -> Result<Dataset, EngineError> {
    // A change that broke off may have come as far as its commit.
    dataset.checkout_latest().await.map_err(failed("open"))?;
    let cleaned = dataset
        .cleanup_old_versions(KEEP_VERSIONS, Some(true), Some(false))
        .await;
    cleaned.map_err(failed("clean up"))?;
    Ok(dataset)
}

/// A directory that is being filled; it goes if it does not become a table.
pub(crate) struct Unfinished {
    pub(crate) record: Record,
    pub(crate) directory: PathBuf,
    published: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.published {
            remove_beside(std::mem::take(&mut self.directory));
        }
    }
}
