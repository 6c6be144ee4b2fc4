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
    pub(super) mark: Option<Mark>,
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

    /// Works in the generation that is there. Unless that ends well, files may stay that belong to no version, or still be
    /// written by the engine's threads; so the mark stays, until the table is [cleaned](Self::clean), or made anew, or the
    /// agent starts.
    pub(crate) async fn in_place<T>(
        &self,
        work: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        let _changing = self.vectors.changing();
        let before = self.stay(true);
        let done = work.await?;
        self.stay(before);
        Ok(done)
    }

    fn stay(&self, stays: bool) -> bool {
        self.mark.as_ref().is_some_and(|mark| mark.stay(stays))
    }

    /// Whether to stop, for the reasons for which [`until`](Self::until) does: for a thread, which cannot be dropped, and
    /// needs the files until its end.
    pub(crate) fn stopped(&self, stop: &CancellationToken) -> impl Fn() -> bool + Send + use<> {
        let reasons = [stop.clone(), self.closing.clone()];
        move || reasons.iter().any(CancellationToken::is_cancelled)
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
        let _changing = self.vectors.changing();
        let before = self.recorded().await?;
        self.record(&made.directory, &made.record).await?;
        made.published = true;
        self.stay(false);
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
        let _changing = self.vectors.changing();
        let (layout, name) = self.place();
        blocking(move || layout.forget(&name)).await?;
        self.stay(false);
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
        self.stay(false);
        Ok(())
    }

    /// Makes another version of the table the one that readers see, once it is safely on the volume.
    pub(crate) async fn advance(&self, generation: &Generation, dataset: Dataset) -> Result<(), EngineError> {
        let _changing = self.vectors.changing();
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
        let _changing = self.vectors.changing();
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engines::{DatabaseId, EngineLimits, Engines, EnginesConfig};
    use futures::FutureExt;
    use std::future::pending;
    use tempfile::TempDir;

    /// A node with a database whose semantic memory can be changed, and where the mark of that is.
    async fn node() -> (TempDir, Engines, DatabaseId, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let config = EnginesConfig {
            data_dir: root.path().to_owned(),
            read_only: false,
            limits: EngineLimits::default(),
        };
        let engines = Engines::start(config).await.unwrap();
        let id: DatabaseId = "kg1".parse().unwrap();
        let slot = engines.claim(&id).unwrap();
        engines.settle(&slot, true);
        let directory = root.path().join("vectors/kg1");
        std::fs::create_dir_all(&directory).unwrap();
        (root, engines, id, directory.join("memory.changing"))
    }

    #[tokio::test]
    async fn a_change_in_place_that_breaks_off_leaves_its_mark_for_who_cleans_up() {
        let (_root, engines, id, mark) = node().await;
        let vectors = engines.vectors(&id).unwrap();
        let begin = || vectors.change(Name::Memory);
        let stop = CancellationToken::new();

        let change = begin().await.unwrap();
        assert!(mark.is_file());
        change.in_place(async { Ok(()) }).await.unwrap();
        drop(change);
        assert!(!mark.exists());

        // Nobody waits for it any more.
        let change = begin().await.unwrap();
        assert!(change.in_place(pending::<Result<(), _>>()).now_or_never().is_none());
        drop(change);
        assert!(mark.is_file());
        begin().await.unwrap().stay(false);
        assert!(!mark.exists());

        stop.cancel();
        let change = begin().await.unwrap();
        let work = change.until(&stop, pending::<Result<(), _>>());
        change.in_place(work).await.unwrap_err();
        drop(change);
        assert!(mark.is_file());
        // The next one that ends well has cleaned up nothing.
        let change = begin().await.unwrap();
        change.in_place(async { Ok(()) }).await.unwrap();
        drop(change);
        assert!(mark.is_file());
        // A table that is gone has left nothing.
        let change = begin().await.unwrap();
        let (layout, name) = change.place();
        layout.write(&name, &Record::new(2)).unwrap();
        assert!(change.remove().await.unwrap());
        drop(change);
        assert!(!mark.exists());
    }

    #[tokio::test]
    async fn what_changes_vectors_moves_the_revision_of_the_graph() {
        let (_root, engines, id, _) = node().await;
        let vectors = engines.vectors(&id).unwrap();
        let revision = || engines.info(&id).unwrap().revision;
        let begin = || vectors.change(Name::Memory);
        let mut before = revision();
        let mut moved = || {
            let now = revision();
            std::mem::replace(&mut before, now) < now
        };
        // Who only keeps others from changing them, such as an export, or finds nothing to remove.
        let change = begin().await.unwrap();
        assert!(!change.remove().await.unwrap());
        drop(change);
        assert!(!moved());
        let change = begin().await.unwrap();
        change.in_place(async { Ok(()) }).await.unwrap();
        assert!(moved());
        // What broke off may have come as far as its commit.
        assert!(change.in_place(pending::<Result<(), _>>()).now_or_never().is_none());
        assert!(moved());
        let (layout, name) = change.place();
        layout.write(&name, &Record::new(2)).unwrap();
        assert!(change.remove().await.unwrap());
        assert!(moved() && !moved());
    }

    #[tokio::test]
    async fn threads_of_a_change_stop_when_its_database_goes() {
        let (_root, engines, id, _) = node().await;
        let change = engines.vectors(&id).unwrap().change(Name::Memory).await.unwrap();
        let (stop, other) = (CancellationToken::new(), CancellationToken::new());
        let (stopped, closed) = (change.stopped(&stop), change.stopped(&other));
        assert!(!stopped() && !closed());
        stop.cancel();
        assert!(stopped() && !closed());
        engines.inner.lance.stop_changes(&id);
        assert!(closed());
    }
}
