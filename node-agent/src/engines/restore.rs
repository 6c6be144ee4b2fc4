//! Putting files that came from elsewhere (a backup, an export) in the place of a database.
//!
//! The files are written beside the databases, opened once for reading, and only then exchanged for the old ones, which
//! are kept until the new ones have answered.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::duckdb::{OpenStaging, StagingOptions, table_names};
use super::error::EngineError;
use super::exchange::{Arrival, blocking};
use super::files::Files;
use super::kept::Keeping;
use super::ladybug::open::{OpenOptions, beside};
use super::ladybug::{Database, GraphCounts, OpenDatabase};
use super::lance::IncomingVectors;
use super::names::DatabaseId;
use super::registry::{CLOSE_PATIENCE, Engines, close_graph, close_staging};
use super::swap::Beside;

/// Memory for looking at a candidate: the database that it is to replace may be open beside it.
const EXAMINE_MEMORY: u64 = 64 << 20;

/// Files that may become a database: written beside the databases, and removed unless they do.
#[derive(Debug)]
pub struct Candidate {
    id: DatabaseId,
    graph: PathBuf,
    staging: Option<PathBuf>,
    vectors: Arc<IncomingVectors>,
    /// Whether the files that it replaces are kept.
    keeps: bool,
    /// Whether the vectors stay, if it has none of its own.
    keeps_vectors: bool,
}

impl Candidate {
    /// The database to be.
    #[must_use]
    pub fn id(&self) -> &DatabaseId {
        &self.id
    }

    /// The same; the files that it replaces are [kept](Engines::kept). If it is the same graph, its vectors stay; those of
    /// another one go.
    #[must_use]
    pub fn keeping(mut self, same_graph: bool) -> Self {
        self.keeps = true;
        self.keeps_vectors = same_graph;
        self
    }

    /// Where the graph is to be written. Nothing is there yet.
    #[must_use]
    pub fn graph(&self) -> &Path {
        &self.graph
    }

    /// The number in the file system of the graph that was written, which is the database's once it is
    /// [installed](Engines::install).
    ///
    /// # Errors
    /// There is none yet.
    pub fn inode(&self) -> Result<u64, EngineError> {
        let found = std::fs::metadata(&self.graph);
        let found = found.map_err(|error| EngineError::io("look at", &self.graph, error))?;
        Ok(found.ino())
    }

    /// Where the staging tables are to be written, if there are any.
    #[must_use]
    pub fn staging(&self) -> Option<&Path> {
        self.staging.as_deref()
    }

    /// Where the tables of vectors are to be written.
    #[must_use]
    pub fn vectors(&self) -> &Arc<IncomingVectors> {
        &self.vectors
    }

    fn arrival(&self) -> Arrival {
        Arrival {
            graph: self.graph.clone(),
            staging: self.staging.clone().map_or(Beside::Gone, Beside::New),
            vectors: match self.vectors.directory() {
                Some(path) => Beside::New(path.to_owned()),
                None if self.keeps_vectors => Beside::Kept,
                None => Beside::Gone,
            },
        }
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        // Once it is a database, only what lay beside its files is left.
        for path in std::iter::once(&self.graph).chain(&self.staging) {
            if let Err(error) = Files::remove_beginning_with(path) {
                tracing::warn!(%error, "files of an ended restore are removed at the next start");
            }
        }
    }
}

/// What a candidate may take the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// Nothing: there must be no database of this id.
    Nothing,
    /// The database of this id, which must exist.
    Existing,
}

impl Engines {
    /// Names for the files of a database that is about to arrive.
    ///
    /// # Errors
    /// `ReadOnly` on a node that only reads.
    pub fn candidate(&self, id: &DatabaseId, with_staging: bool) -> Result<Candidate, EngineError> {
        if self.inner.read_only {
            return Err(EngineError::ReadOnly {
                message: "this node only reads; databases are restored on writers".into(),
            });
        }
        Ok(Candidate {
            id: id.clone(),
            graph: self.inner.files.restoring(id),
            staging: with_staging.then(|| self.inner.files.restoring_staging(id)),
            vectors: Arc::new(IncomingVectors::new(self.inner.files.restoring_vectors(id))),
            keeps: false,
            keeps_vectors: false,
        })
    }

    /// The number in the file system of a database's graph, if there is such a database.
    #[must_use]
    pub fn graph_inode(&self, id: &DatabaseId) -> Option<u64> {
        let there = self.contains(id).then(|| self.inner.files.graph(id))?;
        std::fs::metadata(there).ok().map(|found| found.ino())
    }

    /// Opens a candidate for reading, and counts what is in it.
    ///
    /// # Errors
    /// What the engines say if its files are not databases that this version can open; `Busy` without memory for it.
    pub async fn examine(&self, candidate: &Candidate) -> Result<GraphCounts, EngineError> {
        let limits = self.inner.limits();
        let pool_bytes = EXAMINE_MEMORY.min(limits.database_memory);
        let memory = self.inner.reserve(pool_bytes, &candidate.id).await?;
        let options = OpenOptions {
            read_only: true,
            pool_bytes,
            readers: 1,
            max_readers: 1,
            ..self.inner.open_options(&candidate.id, candidate.graph.clone(), &limits)
        };
        let open = Arc::new(OpenDatabase::open(options, memory).await?);
        let closed = open.closed();
        let counts = Database::new(open).counts().await;
        // Disconnects when the engine has closed the file.
        let _ = closed.recv_async().await;
        let counts = counts?;
        if let Some(file) = candidate.staging.clone() {
            let memory = self.inner.reserve(EXAMINE_MEMORY, &candidate.id).await?;
            let id = candidate.id.clone();
            blocking(move || {
                let options = StagingOptions {
                    incoming: beside(&file, "incoming"),
                    spill: beside(&file, "tmp"),
                    file,
                    memory_bytes: EXAMINE_MEMORY,
                    threads: 1,
                };
                let open = OpenStaging::open(id, options, memory)?;
                let names = table_names(&open.connect()?).map_err(|error| open.failure(error))?;
                tracing::debug!(tables = names.len(), "the staging tables of a restore can be read");
                Ok(())
            })
            .await?;
        }
        self.examine_vectors(&candidate.vectors).await?;
        Ok(counts)
    }

    /// Makes a candidate the database of its id. Statements on the old one are interrupted, changes of its vectors are
    /// cancelled, searches end; what comes meanwhile waits for the new one. Goes on when the caller stops waiting.
    ///
    /// # Errors
    /// `Busy` if the old database cannot be closed, `AlreadyExists` and `NotFound` by `replace`, and whatever keeps the
    /// new one from answering. The old database is as it was before then.
    pub async fn install(&self, candidate: Candidate, replace: Replace) -> Result<(), EngineError> {
        let engines = self.clone();
        tokio::spawn(async move {
            match replace {
                Replace::Existing => engines.replace(&candidate).await,
                Replace::Nothing => engines.add(&candidate).await,
            }
        })
        .await
        .unwrap_or_else(|error| Err(EngineError::internal(format!("the restore ended: {error}"))))
    }

    async fn replace(&self, candidate: &Candidate) -> Result<(), EngineError> {
        let slot = self.existing(&candidate.id)?;
        let _gate = slot.gate.lock().await;
        self.inner.still_there(&slot)?;
        let arrival = candidate.arrival();
        // First: a build of vectors reads the graph or its staging.
        let _emptied = match arrival.vectors {
            Beside::Kept => None,
            Beside::Gone | Beside::New(_) => Some(self.empty_vectors(&slot).await?),
        };
        close_graph(&slot, CLOSE_PATIENCE).await?;
        close_staging(&slot, CLOSE_PATIENCE).await?;
        if !candidate.keeps {
            return self.exchange(&slot, arrival).await;
        }
        let (files, id) = (self.inner.files.clone(), candidate.id.clone());
        let keeping = blocking(move || Keeping::begin(&files, &id)).await?;
        match self.exchange(&slot, arrival).await {
            Ok(()) => blocking(move || keeping.keep()).await,
            Err(error) => {
                blocking(move || {
                    keeping.give_up();
                    Ok(())
                })
                .await?;
                Err(error)
            }
        }
    }

    async fn add(&self, candidate: &Candidate) -> Result<(), EngineError> {
        // Nobody can find the slot before the database is there: it is marked as deleted until then.
        let slot = self.claim(&candidate.id)?;
        let _gate = slot.gate.lock().await;
        let added = self.exchange(&slot, candidate.arrival()).await;
        self.settle(&slot, added.is_ok());
        added
    }
}
