//! Moving a staging table into the graph, through memory: DuckDB streams Arrow batches, LadybugDB copies them in
//! slices. What cannot be taken (rows without a key, second rows of a key, relationships without ends) is counted and
//! reported, never dropped in silence.

mod mover;
mod plan;
mod present;
mod rehearsal;
mod rejected;
mod run;
mod slices;
mod types;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::duckdb::Staging;
use super::error::EngineError;
use super::ladybug::{Database, TableKind};
use super::names::{FileId, TableName};
pub(crate) use plan::{column_definition, create_table, ends_option, is_end};
use run::Run;

/// What to materialise.
#[derive(Clone, Debug)]
pub struct MaterializeRequest {
    /// The staging table, and the table of the graph.
    pub table: TableName,
    /// Take the rows of these files only; `None` for all.
    pub file_ids: Option<Vec<FileId>>,
    /// Make the table of the graph from the staged columns if it does not exist.
    pub create_table: bool,
    /// The node table where the relationships start; needed to make a relationship table, and to choose a pair if the
    /// table connects several.
    pub from_table: Option<TableName>,
    /// The node table where they end.
    pub to_table: Option<TableName>,
    /// Take one part of the rows only.
    pub batch: Option<Batch>,
    /// Take lists called `embedding` along; without it they are NULL in the graph.
    pub embeddings: bool,
    /// Look at everything, and change nothing.
    pub dry_run: bool,
    /// Time for the whole run.
    pub timeout: Duration,
}

impl MaterializeRequest {
    /// All rows of `table` into the existing table of that name, within an hour.
    #[must_use]
    pub fn new(table: TableName) -> Self {
        Self {
            table,
            file_ids: None,
            create_table: false,
            from_table: None,
            to_table: None,
            batch: None,
            embeddings: true,
            dry_run: false,
            timeout: Duration::from_secs(3600),
        }
    }
}

/// One of several parts of a table, by the hash of its keys: rows with the same key are in the same part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Which part, from 0.
    pub number: u32,
    /// How many there are.
    pub of: u32,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaterializeStatus {
    /// All rows that can be taken are in the graph, durably.
    Done,
    /// There is no such staging table.
    Skipped,
    /// Nothing was changed; the figures are those that a run would have.
    Rehearsed,
}

/// Rows that were not taken, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rejected {
    /// The primary key, or an end of the relationship, is NULL.
    pub null_keys: u64,
    /// Another row of the same key was staged later.
    pub duplicates: u64,
    /// The graph has a node of that key already, or a relationship with the same ends and the same columns.
    pub already_present: u64,
    /// An end of the relationship is not in the graph.
    pub dangling: u64,
    /// A value does not fit its column. Only a dry run counts them: a run does nothing at all then.
    pub invalid: u64,
}

impl Rejected {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.null_keys + self.duplicates + self.already_present + self.dangling + self.invalid
    }
}

/// A column with values that do not fit it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidColumn {
    /// The column of the graph.
    pub column: String,
    /// Its type.
    pub type_name: String,
    /// Rows with such a value.
    pub rows: u64,
    /// One of the values.
    pub example: String,
}

/// What a run did.
#[derive(Clone, Debug, PartialEq)]
pub struct MaterializeReport {
    /// How it ended.
    pub status: MaterializeStatus,
    /// The table.
    pub table: String,
    /// Nodes or relationships.
    pub kind: TableKind,
    /// Rows that were staged.
    pub rows_staged: u64,
    /// Rows that came into the graph; the table's count grew by exactly this.
    pub rows_ingested: u64,
    /// Rows that did not.
    pub rejected: Rejected,
    /// Of a dry run: columns for whose sake a run would fail.
    pub invalid_columns: Vec<InvalidColumn>,
    /// The rows that did not come into the graph, each as a line of JSON with its reason: at most 10,000, in 1 MiB.
    pub rejected_rows: Vec<u8>,
    /// True if the table of the graph was made by this run.
    pub created_table: bool,
    /// Columns of the graph that staging does not have.
    pub filled_with_null: Vec<String>,
    /// Columns of staging that the graph does not have.
    pub ignored_columns: Vec<String>,
    /// How many slices were committed.
    pub slices: usize,
    /// Milliseconds from start to durable.
    pub execution_ms: f64,
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgressUpdate {
    /// Rows that are in the graph.
    pub rows_done: u64,
    /// Rows that will be, as far as is known.
    pub rows_total: u64,
}

/// Called after every slice, on an engine thread; must not block.
pub type Progress = Arc<dyn Fn(ProgressUpdate) + Send + Sync>;

impl Database {
    /// Moves a staging table into the graph. Other writers of the graph wait meanwhile, readers do not. Nodes whose key
    /// is there already, and relationships that are there with the same ends and columns, are left alone, so a run can
    /// be repeated.
    ///
    /// # Errors
    /// `Invalid` if columns do not fit; `Timeout` or `Cancelled` between or within slices. [`EngineError::Partial`]
    /// says how many rows were written before; within one slice it is all or nothing.
    pub async fn materialize(
        &self,
        staging: &Staging,
        request: MaterializeRequest,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<MaterializeReport, EngineError> {
        let started = Instant::now();
        let slice_bytes = self.open.options().slice_bytes;
        let stop = super::duckdb::SqlControl::watch(request.timeout);
        let _stop = super::duckdb::CancelGuard::new(&stop, cancel.clone());
        let (staging, sql, cancelled) = (staging.clone(), Arc::clone(&stop), cancel.clone());
        let outcome = self
            .on_writer_until(request.timeout, &cancel, move |session, job| {
                let _changing = (!request.dry_run).then(|| session.shared.options.revision.changing());
                let run = Run {
                    session,
                    job,
                    staging: &staging.open,
                    sql: &sql,
                    cancel: &cancelled,
                    slice_bytes,
                    progress: &progress,
                };
                let outcome = run.table(&request);
                sql.finish();
                outcome.map_err(|error| sql.explain(error))
            })
            .await;
        stop.finish();
        let mut report = outcome?;
        report.execution_ms = started.elapsed().as_secs_f64() * 1000.0;
        Ok(report)
    }
}
