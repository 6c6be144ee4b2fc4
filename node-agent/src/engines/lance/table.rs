//! The tables of vectors of a node: which are open, who may change one, and when an old generation goes.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use lance::dataset::builder::DatasetBuilder;
use lance::session::Session;
use lance::{Dataset, index::DatasetIndexExt};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::super::error::EngineError;
use super::super::names::{DatabaseId, TableName};
use super::super::registry::{Engines, Slot, not_found};
use super::super::revision::Changing;
use super::change::{Change, clean};
use super::error::failed;
use super::home::Share;
use super::layout::{self, Layout, Name, Record};
use super::pool::{Pool, blocking};

/// Caches of all tables of the node together, as Lance counts them; its own defaults are 7 GiB. With each partition of an index
/// it counts the code book that all of them share: of a million vectors of 384 numbers, 235 MiB for 54.
const INDEX_CACHE: usize = 384 << 20;
const METADATA_CACHE: usize = 32 << 20;
/// Tables that stay open without being used.
const OPEN_TABLES: usize = 128;
/// The column of the vectors, and the name of their index.
pub(crate) const VECTOR: &str = "vector";
pub(crate) const INDEX: &str = "vector_index";

/// What all tables of the node share.
pub(crate) struct Lance {
    pub(crate) pool: Pool,
    pub(crate) session: Arc<Session>,
    /// One build at a time.
    pub(crate) builds: Arc<Semaphore>,
    /// Searches at the same time: each may read a whole table.
    pub(crate) searches: Semaphore,
    most_searches: usize,
    tables: Mutex<HashMap<(DatabaseId, Name), Arc<Table>>>,
}

impl Lance {
    pub(crate) fn new() -> Result<Self, EngineError> {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let most_searches = threads.clamp(2, 8);
        Ok(Self {
            pool: Pool::start()?,
            session: Arc::new(Session::new(INDEX_CACHE, METADATA_CACHE, Arc::default())),
            builds: Arc::new(Semaphore::new(1)),
            searches: Semaphore::new(most_searches),
            most_searches,
            tables: Mutex::default(),
        })
    }

    /// Searches that run now.
    pub(crate) fn searching(&self) -> usize {
        self.most_searches.saturating_sub(self.searches.available_permits())
    }

    fn table(&self, id: &DatabaseId, name: Name) -> Arc<Table> {
        let mut tables = self.tables.lock();
        if tables.len() >= OPEN_TABLES {
            // One that is in use has another holder; the others are opened again when they are wanted.
            tables.retain(|_, table| Arc::strong_count(table) > 1);
        }
        Arc::clone(tables.entry((id.clone(), name)).or_default())
    }

    /// Stops the changes of a database, waits for their end, and lets go of its tables.
    ///
    /// # Errors
    /// `Busy` if they do not end in time; nothing is let go then.
    pub(crate) async fn close(&self, id: &DatabaseId, patience: Duration) -> Result<(), EngineError> {
        self.stop_changes(id);
        for table in self.of(id) {
            if tokio::time::timeout(patience, table.change.lock()).await.is_err() {
                return Err(EngineError::Busy {
                    reason: format!("the vectors of {id} are being changed"),
                    retry_after: Duration::from_secs(5),
                });
            }
        }
        self.tables.lock().retain(|(owner, _), _| owner != id);
        Ok(())
    }

    /// Cancels the changes of a database; those that come later are not.
    pub(crate) fn stop_changes(&self, id: &DatabaseId) {
        for table in self.of(id) {
            std::mem::take(&mut *table.closing.lock()).cancel();
        }
    }

    /// Lets go of what is open of a database. It is opened again when it is wanted.
    pub(crate) fn close_tables(&self, id: &DatabaseId) {
        for table in self.of(id) {
            table.current.write().take();
        }
    }

    fn of(&self, id: &DatabaseId) -> Vec<Arc<Table>> {
        let tables = self.tables.lock();
        let own = tables.iter().filter(|((owner, _), _)| owner == id);
        own.map(|(_, table)| Arc::clone(table)).collect()
    }

    /// Removes what changes left in these tables that a crash cut off. Nobody may be using them.
    pub(crate) async fn mend(&self, tables: Vec<(Layout, Name)>) {
        for (layout, name) in tables {
            if let Err(error) = self.mend_table(&layout, &name).await {
                let directory = layout.directory().display();
                tracing::warn!(%directory, table = %name, %error, "what a cut change left stays until the next start");
            }
        }
    }

    async fn mend_table(&self, layout: &Layout, name: &Name) -> Result<(), EngineError> {
        let (of, table) = (layout.clone(), name.clone());
        let found = blocking(move || {
            let Some(record) = of.read(&table)? else {
                return Ok(None);
            };
            let directory = of.generation(&table, &record.generation);
            layout::remove_nameless(&directory)?;
            Ok(Some(directory))
        });
        if let Some(directory) = found.await? {
            let dataset = self.open(directory).await?;
            self.pool.run(clean(dataset)).await?;
        }
        let (layout, name) = (layout.clone(), name.clone());
        blocking(move || layout.unmark(&name)).await
    }

    pub(crate) async fn open(&self, directory: PathBuf) -> Result<Dataset, EngineError> {
        let session = Arc::clone(&self.session);
        let opening = async move {
            let table = DatasetBuilder::from_uri(directory.to_string_lossy()).with_session(session);
            table.load().await.map_err(failed("open"))
        };
        self.pool.run(opening).await
    }
}

impl fmt::Debug for Lance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lance").finish_non_exhaustive()
    }
}

/// A table, whether it exists or not.
#[derive(Default)]
pub(super) struct Table {
    /// Held while it is changed.
    change: Arc<tokio::sync::Mutex<()>>,
    pub(super) current: RwLock<Option<Arc<Generation>>>,
    /// Cancelled when the database goes.
    closing: Mutex<CancellationToken>,
}

/// A table as it is on the volume. Its directory goes with the last reader, once another has taken its place.
pub(crate) struct Generation {
    pub(crate) record: Record,
    directory: PathBuf,
    dataset: RwLock<Arc<Dataset>>,
    obsolete: AtomicBool,
}

impl Generation {
    pub(super) fn new(record: Record, directory: PathBuf, dataset: Dataset) -> Self {
        Self {
            record,
            directory,
            dataset: RwLock::new(Arc::new(dataset)),
            obsolete: AtomicBool::new(false),
        }
    }

    /// Readers that come later see this state of it.
    pub(super) fn advance(&self, dataset: Dataset) {
        *self.dataset.write() = Arc::new(dataset);
    }

    /// Lets its directory go with its last reader.
    pub(super) fn retire(&self) {
        self.obsolete.store(true, Ordering::Release);
    }

    pub(crate) fn dataset(&self) -> Arc<Dataset> {
        Arc::clone(&self.dataset.read())
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Acquire) {
            remove_beside(std::mem::take(&mut self.directory));
        }
    }
}

/// A table that somebody reads: it stays where it is meanwhile.
pub(crate) struct Reading {
    generation: Arc<Generation>,
    _share: Share,
}

impl Deref for Reading {
    type Target = Generation;

    fn deref(&self) -> &Generation {
        &self.generation
    }
}

/// Removes a directory without keeping the caller waiting.
pub(super) fn remove_beside(directory: PathBuf) {
    std::thread::spawn(move || {
        if let Err(error) = super::super::files::remove(&directory) {
            tracing::warn!(%error, "vectors that nobody needs are removed at the next start");
        }
    });
}

/// What is known of a table of vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexInfo {
    /// Rows of the table.
    pub rows: u64,
    /// Length of its vectors.
    pub dimension: usize,
    /// Rows that the index has.
    pub indexed_rows: u64,
    /// Partitions of the index; 0 if every search looks at all rows.
    pub partitions: u64,
    /// Codes per vector; 0 if there is no index.
    pub sub_vectors: u64,
    /// Rows that the index was trained on.
    pub trained_rows: u64,
    /// Bytes on the volume.
    pub size_bytes: u64,
    /// When it was built or trained, RFC 3339.
    pub built_at: String,
    /// Names and types of the columns.
    pub columns: Vec<(String, String)>,
    /// Where it is.
    pub directory: PathBuf,
}

/// The vectors of one database.
#[derive(Clone)]
pub struct Vectors {
    pub(crate) engines: Engines,
    id: DatabaseId,
    slot: Arc<Slot>,
}

impl Engines {
    /// The vectors of a database.
    ///
    /// # Errors
    /// `NotFound` if there is no such database.
    pub fn vectors(&self, id: &DatabaseId) -> Result<Vectors, EngineError> {
        let slot = self.inner.slots.read().get(id).filter(|slot| slot.exists()).cloned();
        Ok(Vectors {
            engines: self.clone(),
            id: id.clone(),
            slot: slot.ok_or_else(|| not_found(id))?,
        })
    }

    /// Bytes of the vectors of a database, with its semantic memory; 0 if there is no such database.
    #[must_use]
    pub fn vector_bytes(&self, id: &DatabaseId) -> u64 {
        let home = self.inner.slots.read().get(id).map(|slot| slot.vectors.home());
        home.map_or(0, |home| home.layout().size())
    }

    /// The turn of builds: one at a time on the node, since training needs memory.
    #[must_use]
    pub fn vector_turn(&self) -> Arc<Semaphore> {
        Arc::clone(&self.inner.lance.builds)
    }
}

impl Vectors {
    pub(crate) fn lance(&self) -> &Lance {
        &self.engines.inner.lance
    }

    pub(crate) fn id(&self) -> &DatabaseId {
        &self.id
    }

    /// To be held while they are changed: the revision of the graph moves with them.
    pub(crate) fn changing(&self) -> Changing {
        self.slot.revision.changing()
    }

    /// A share of the directory in which they are.
    pub(crate) async fn share(&self) -> Share {
        self.slot.vectors.share().await
    }

    /// The table as it is now, or `None` if there is none.
    pub(crate) async fn current(&self, name: &Name) -> Result<Option<Reading>, EngineError> {
        let share = self.share().await;
        let table = self.lance().table(&self.id, name.clone());
        let generation = self.current_of(&table, name, &share.layout).await?;
        Ok(generation.map(|generation| Reading {
            generation,
            _share: share,
        }))
    }

    pub(super) async fn current_of(
        &self,
        table: &Table,
        name: &Name,
        layout: &Layout,
    ) -> Result<Option<Arc<Generation>>, EngineError> {
        // The record decides: a restore or a new seed may have brought another.
        let (reading, wanted) = (layout.clone(), name.clone());
        let Some(record) = blocking(move || reading.read(&wanted)).await? else {
            table.current.write().take();
            return Ok(None);
        };
        let known = table.current.read().clone();
        if let Some(known) = known.filter(|known| known.record == record) {
            return Ok(Some(known));
        }
        let directory = layout.generation(name, &record.generation);
        let dataset = self.lance().open(directory.clone()).await?;
        let opened = Arc::new(Generation::new(record, directory, dataset));
        *table.current.write() = Some(Arc::clone(&opened));
        Ok(Some(opened))
    }

    /// The table, which must exist.
    pub(crate) async fn existing(&self, table: &TableName) -> Result<Reading, EngineError> {
        let name = Name::Index(table.clone());
        self.current(&name).await?.ok_or_else(|| no_vectors(table))
    }

    /// Takes the right to change a table.
    ///
    /// # Errors
    /// `ReadOnly` on a node that only reads; `NotFound` if the database is gone.
    pub(crate) async fn change(&self, name: Name) -> Result<Change, EngineError> {
        if self.engines.is_read_only() {
            return Err(EngineError::ReadOnly {
                message: "this node only reads; vectors are changed on writers".into(),
            });
        }
        let table = self.lance().table(&self.id, name.clone());
        let lock = Arc::clone(&table.change).lock_owned().await;
        // Waits while the directory is exchanged.
        let share = self.share().await;
        // A database that goes waits for this lock, so one that is there now stays while it is held.
        if !self.slot.exists() {
            return Err(not_found(&self.id));
        }
        let closing = table.closing.lock().clone();
        let marked = name.clone();
        // All three together, and in this order: whoever does not wait for them lets go of them as a change does.
        let (mark, share, lock) = blocking(move || Ok((share.layout.mark(&marked), share, lock))).await?;
        Ok(Change {
            vectors: self.clone(),
            name,
            table,
            closing,
            begun: SystemTime::now() - Duration::from_secs(2),
            mark,
            share,
            _lock: lock,
        })
    }

    /// What is known of a table of vectors, or `None` if there is none.
    ///
    /// # Errors
    /// The files cannot be read.
    pub async fn info(&self, table: &TableName) -> Result<Option<IndexInfo>, EngineError> {
        let Some(reading) = self.current(&Name::Index(table.clone())).await? else {
            return Ok(None);
        };
        let generation = Arc::clone(&reading.generation);
        self.lance().pool.run(describe(generation)).await.map(Some)
    }

    /// Removes the vectors of a table; false if there were none.
    ///
    /// # Errors
    /// `ReadOnly`; the files cannot be removed.
    pub async fn remove(&self, table: &TableName) -> Result<bool, EngineError> {
        self.change(Name::Index(table.clone())).await?.remove().await
    }
}

pub(crate) fn no_vectors(table: &TableName) -> EngineError {
    EngineError::NotFound {
        what: "vector index of table",
        name: table.to_string(),
    }
}

/// Counts rows, and what of them the index has.
pub(crate) async fn describe(generation: Arc<Generation>) -> Result<IndexInfo, EngineError> {
    let dataset = generation.dataset();
    let rows = dataset.count_rows(None).await.map_err(failed("count"))? as u64;
    let record = &generation.record;
    let indices = dataset.load_indices_by_name(INDEX).await.map_err(failed("describe"))?;
    // From the manifest: the engine's own statistics read the whole index.
    let covers = |fragment: u32| {
        let mut covered = indices.iter().filter_map(|index| index.fragment_bitmap.as_ref());
        covered.any(|fragments| fragments.contains(fragment))
    };
    let indexed = dataset
        .fragments()
        .iter()
        .filter(|fragment| u32::try_from(fragment.id).is_ok_and(covers));
    let indexed_rows = indexed.filter_map(|fragment| fragment.num_rows()).sum::<usize>() as u64;
    let directory = generation.directory.clone();
    let size_bytes = blocking(move || Ok(layout::size(&directory))).await?;
    let schema = arrow::datatypes::Schema::from(dataset.schema());
    Ok(IndexInfo {
        rows,
        dimension: record.dimension,
        indexed_rows,
        partitions: record.partitions,
        sub_vectors: record.sub_vectors,
        trained_rows: record.trained_rows,
        size_bytes,
        built_at: record.built_at.clone(),
        columns: (schema.fields().iter())
            .map(|field| (field.name().clone(), field.data_type().to_string()))
            .collect(),
        directory: generation.directory.clone(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn searches_that_run_are_counted() {
        let lance = Lance::new().unwrap();
        let (one, _other) = (lance.searches.acquire().await, lance.searches.acquire().await);
        assert_eq!(lance.searching(), 2);
        drop(one);
        assert_eq!(lance.searching(), 1);
    }
}
