//! What the databases of a node are like, without opening any.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::error::EngineError;
use super::files::Files;
use super::ladybug::open::UNREADABLE_LOG;
use super::ladybug::storage_version::{check_storage_version, storage_version};
use super::names::DatabaseId;
use super::registry::{Engines, not_found};

/// What is known of a database without opening it.
#[derive(Clone, Debug)]
pub struct DatabaseInfo {
    /// Its id.
    pub id: DatabaseId,
    /// Its file.
    pub path: PathBuf,
    /// Bytes of the graph with its logs.
    pub size_bytes: u64,
    /// Bytes of its staging tables.
    pub staging_bytes: u64,
    /// When its file was made, where the file system knows.
    pub created_at: Option<SystemTime>,
    /// When its file was last written.
    pub modified_at: Option<SystemTime>,
    /// The version of its file; `None` if the file does not say.
    pub storage_version: Option<u64>,
    /// Why this agent cannot open it, as far as its file says.
    pub problem: Option<String>,
    /// True while it is open.
    pub open: bool,
    /// True if part of its write-ahead log could not be replayed once; the log is kept beside the file.
    pub recovered: bool,
    /// When it was last asked for since the agent started.
    pub last_used: Option<SystemTime>,
    /// Statements that run or wait now.
    pub active_queries: usize,
    /// Statements since it was opened.
    pub queries: u64,
    /// Another number after everything that changed the graph or its vectors, for as long as the process lives.
    pub revision: u64,
}

/// What the engines of a node are doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineUsage {
    /// Databases that exist.
    pub databases: usize,
    /// Graphs that are open.
    pub open_databases: usize,
    /// Staging databases that are open.
    pub open_staging: usize,
    /// Statements on graphs that run or wait now.
    pub active_queries: usize,
    /// Queries and changes of staging tables that run now.
    pub staging_queries: usize,
    /// Searches of vectors and memories that run now.
    pub vector_searches: usize,
    /// Memory that open databases may use, in bytes.
    pub reserved_bytes: u64,
    /// Memory that they may use at most, in bytes.
    pub budget_bytes: u64,
    /// Statements of the databases that are open, since they were opened.
    pub queries: u64,
}

impl EngineUsage {
    /// What runs now, by engine.
    #[must_use]
    pub fn by_engine(&self) -> [(&'static str, usize); 3] {
        [
            ("ladybug", self.active_queries),
            ("duckdb", self.staging_queries),
            ("lance", self.vector_searches),
        ]
    }

    /// What runs now in all engines together.
    #[must_use]
    pub fn running(&self) -> usize {
        self.by_engine().iter().map(|(_, running)| running).sum()
    }
}

impl Engines {
    /// The ids of all databases, in order.
    #[must_use]
    pub fn list(&self) -> Vec<DatabaseId> {
        let slots = self.inner.slots.read();
        let mut ids: Vec<DatabaseId> = slots
            .iter()
            .filter(|(_, slot)| slot.exists())
            .map(|(id, _)| id.clone())
            .collect();
        ids.sort();
        ids
    }

    /// True if there is a database of this id.
    #[must_use]
    pub fn contains(&self, id: &DatabaseId) -> bool {
        self.inner.slots.read().get(id).is_some_and(|slot| slot.exists())
    }

    /// True if the graph has a staging file.
    #[must_use]
    pub fn has_staging(&self, id: &DatabaseId) -> bool {
        self.inner.files.staging(id).is_file()
    }

    /// What is known of a database, from its files and counters.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn info(&self, id: &DatabaseId) -> Result<DatabaseInfo, EngineError> {
        let slot = self
            .inner
            .slots
            .read()
            .get(id)
            .filter(|slot| slot.exists())
            .cloned()
            .ok_or_else(|| not_found(id))?;
        let generation = slot.generation.read().clone();
        let path = self.inner.graph_file(&slot);
        let file = std::fs::metadata(&path).ok();
        let graph = match &generation {
            Some(file) => vec![file.clone()],
            None => self.inner.files.of_graph(id)?,
        };
        let open = slot.graph.read().clone();
        let last_used = slot.last_used.load(Ordering::Relaxed);
        let recovered = open.as_ref().is_some_and(|open| open.recovered())
            || graph.iter().any(|path| path.to_string_lossy().contains(UNREADABLE_LOG));
        Ok(DatabaseInfo {
            id: id.clone(),
            size_bytes: Files::size(&graph),
            staging_bytes: Files::size(&self.inner.files.of_staging(id)?),
            created_at: file.as_ref().and_then(|file| file.created().ok()),
            modified_at: file.as_ref().and_then(|file| file.modified().ok()),
            storage_version: storage_version(&path).ok().flatten(),
            problem: check_storage_version(id, &path).err().map(|error| error.to_string()),
            open: open.is_some(),
            recovered,
            last_used: (last_used > 0).then(|| self.inner.started_at + Duration::from_millis(last_used)),
            active_queries: open.as_ref().map_or(0, |open| open.active()),
            queries: open.as_ref().map_or(0, |open| open.started()),
            revision: slot.revision.number(),
            path,
        })
    }

    /// Figures for all databases together.
    #[must_use]
    pub fn usage(&self) -> EngineUsage {
        let slots = self.inner.slots.read();
        let mut usage = EngineUsage {
            databases: slots.values().filter(|slot| slot.exists()).count(),
            vector_searches: self.inner.lance.searching(),
            reserved_bytes: self.inner.budget.reserved(),
            budget_bytes: self.inner.budget.total(),
            ..EngineUsage::default()
        };
        for slot in slots.values() {
            if let Some(open) = slot.graph.read().as_ref() {
                usage.open_databases += 1;
                usage.active_queries += open.active();
                usage.queries += open.started();
            }
            if let Some(open) = slot.staging.read().as_ref() {
                usage.open_staging += 1;
                usage.staging_queries += open.active();
            }
        }
        usage
    }
}
