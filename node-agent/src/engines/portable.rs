//! A graph in files that every version of the engine reads: its tables as Parquet, and beside them what makes the tables.
//!
//! The engine has a command for this, EXPORT DATABASE, which is not used: lbug 0.22.1 refuses graphs with a DECIMAL, an
//! INT128 or a relationship table between several pairs of tables, and cuts times to microseconds without a word. What is
//! used is its writer of Parquet, table by table, with types that come back as they were. What this cannot say it refuses.

mod carrier;
mod catalog;
mod load;
mod multiplicity;
mod plan;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::duckdb::ParquetFiles;
use super::error::EngineError;
use super::exchange::closing;
use super::ladybug::{Database, GraphCounts};
use super::names::DatabaseId;
use super::registry::Engines;
use super::restore::Candidate;
pub(crate) use catalog::Definitions;
use load::Loading;

/// No single statement takes longer than this, however large its table is.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// The least memory for looking into files; more is better for wide rows.
const LEAST_MEMORY: u64 = 64 << 20;

/// What makes a graph again, beside the rows of its tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Portable {
    /// Statements that make the tables, each ended by a semicolon.
    #[serde(skip)]
    pub ddl: String,
    /// Its sequences, with those of SERIAL columns.
    pub sequences: Vec<Sequence>,
    /// The files of its rows, nodes first.
    pub tables: Vec<PortableTable>,
}

/// A sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    /// Its name.
    pub name: String,
    /// Its first number.
    pub start: i64,
    /// From one number to the next.
    pub increment: i64,
    /// The least number.
    pub min: i64,
    /// The greatest number.
    pub max: i64,
    /// Whether it begins anew after the last one.
    pub cycle: bool,
    /// The number that it gave last, if it gave any.
    pub current: Option<i64>,
    /// Whether it belongs to a SERIAL column, which makes it.
    pub serial: bool,
}

/// The rows of a node table, or those of a relationship table between two node tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortableTable {
    /// The table.
    pub table: String,
    /// Of relationships: from which table to which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<[String; 2]>,
    /// How many rows there are.
    pub rows: u64,
}

impl PortableTable {
    /// For messages.
    fn title(&self) -> String {
        match &self.ends {
            None => self.table.clone(),
            Some([from, to]) => format!("{} ({from} to {to})", self.table),
        }
    }
}

impl Portable {
    /// The file of the table with this index.
    #[must_use]
    pub fn file(directory: &Path, index: usize) -> PathBuf {
        directory.join(format!("table-{index:04}.parquet"))
    }

    /// Nodes and relationships.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let of = |nodes: bool| {
            let tables = self.tables.iter().filter(move |table| table.ends.is_none() == nodes);
            tables.fold(0u64, |sum, table| sum.saturating_add(table.rows))
        };
        (of(true), of(false))
    }

    fn rows(&self) -> u64 {
        let (nodes, relationships) = self.counts();
        nodes.saturating_add(relationships)
    }
}

impl Engines {
    /// Writes a graph into a directory. `copy` is a file of it that nobody uses; it is of no more use afterwards.
    /// `progress` is told how many rows are written, and of how many.
    ///
    /// # Errors
    /// `Invalid` if the graph has what the files cannot say; `Cancelled` by the token; what the engine says.
    pub async fn write_portable(
        &self,
        id: &DatabaseId,
        copy: &Path,
        directory: &Path,
        progress: impl Fn(u64, u64) + Send,
        cancel: &CancellationToken,
    ) -> Result<Portable, EngineError> {
        let files = self.files_of(id, directory).await?;
        let open = self.open_beside(id, copy).await?;
        closing(open, |database| async move {
            let (portable, plans) = catalog::of(&database, directory, cancel).await?;
            let (mut done, total) = (0, portable.rows());
            for (index, (table, plan)) in portable.tables.iter().zip(plans).enumerate() {
                let file = Portable::file(directory, index);
                plan.check(&database, cancel).await?;
                plan.write(&database, &file, cancel).await?;
                let rows = files.content(&file).await?.rows;
                if rows != table.rows {
                    return Err(other_count(table, "the file that was written", rows));
                }
                done += rows;
                progress(done, total);
            }
            Ok(portable)
        })
        .await
    }

    /// How the tables of a graph can be made again. `copy` is a file of it that nobody uses; it is of no more use
    /// afterwards. Writes into `directory`, which does not exist yet.
    ///
    /// # Errors
    /// `Invalid` if something would be lost; `Cancelled` by the token; what the engine says.
    pub(crate) async fn definitions(
        &self,
        id: &DatabaseId,
        copy: &Path,
        directory: &Path,
        cancel: &CancellationToken,
    ) -> Result<Definitions, EngineError> {
        std::fs::create_dir(directory).map_err(|error| EngineError::io("create", directory, error))?;
        let open = self.open_beside(id, copy).await?;
        closing(open, |database| async move {
            catalog::definitions(&database, directory, cancel).await
        })
        .await
    }

    /// Makes the graph of a candidate from the files in a directory, which is of no more use afterwards. It has exactly the
    /// rows that were written then: they are written once more, and compared. `progress` is told how many rows are read, and
    /// of how many.
    ///
    /// # Errors
    /// `Invalid` if the files are not what `portable` says; `Cancelled` by the token; what the engine says.
    pub async fn read_portable(
        &self,
        candidate: &Candidate,
        portable: &Portable,
        directory: &Path,
        progress: impl Fn(u64, u64) + Send,
        cancel: &CancellationToken,
    ) -> Result<GraphCounts, EngineError> {
        let files = self.files_of(candidate.id(), directory).await?;
        let open = self.open_beside(candidate.id(), candidate.graph()).await?;
        closing(open, |database| async move {
            let loading = Loading::begin(&database, portable, cancel).await?;
            let (mut done, total) = (0, portable.rows());
            for (index, (table, plan)) in loading.plans().enumerate() {
                let file = Portable::file(directory, index);
                let there = files.content(&file).await?;
                if there.rows != table.rows {
                    return Err(other_count(table, "its file", there.rows));
                }
                plan.load(&database, &file, cancel).await?;
                let rows = plan.count(&database, cancel).await?;
                if rows != table.rows {
                    return Err(other_count(table, "the graph that was made of it", rows));
                }
                let again = directory.join("again.parquet");
                plan.write(&database, &again, cancel).await?;
                if files.content(&again).await? != there {
                    return Err(EngineError::internal(format!(
                        "the rows of {} are not what they were after the engine has read them from its file",
                        table.title()
                    )));
                }
                done += rows;
                progress(done, total);
            }
            loading.finish(&database, cancel).await?;
            database.counts().await
        })
        .await
    }

    async fn files_of(&self, id: &DatabaseId, directory: &Path) -> Result<ParquetFiles, EngineError> {
        let most = self.inner.limits().staging_memory.max(LEAST_MEMORY);
        let memory = self.inner.reserve_some(LEAST_MEMORY, most, id).await?;
        ParquetFiles::open(directory, memory).await
    }
}

fn other_count(table: &PortableTable, what: &str, rows: u64) -> EngineError {
    EngineError::invalid(
        "tables",
        format!("{} has {} rows, and {what} has {rows}", table.title(), table.rows),
    )
}

/// Runs statements of ours one after the other, alone on a database that nobody else knows.
async fn run(database: &Database, statements: Vec<String>, cancel: &CancellationToken) -> Result<(), EngineError> {
    database
        .on_writer_until(STATEMENT_TIMEOUT, cancel, move |session, job| {
            let mut statements = statements.iter();
            statements.try_for_each(|statement| session.run_once(job, statement).map(drop))
        })
        .await
}
