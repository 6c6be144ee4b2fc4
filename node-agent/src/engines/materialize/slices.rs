//! Rows out of DuckDB, in slices: as many Arrow batches as may be in memory at a time.

use arrow::record_batch::RecordBatch;
use duckdb::{Connection, Statement};

use super::super::arrow_bridge::{MAX_BATCH_ROWS, hand_over, pieces};
use super::super::duckdb::{OpenStaging, SqlControl, StagingTable};
use super::super::error::EngineError;
use super::super::names::sql_identifier;
use super::run::Run;

/// Rows that go into the graph in one transaction.
#[derive(Default)]
pub(super) struct Slice {
    pub(super) batches: Vec<arrow55::record_batch::RecordBatch>,
    pub(super) rows: u64,
    bytes: usize,
}

impl Slice {
    /// Reads on until there are so many bytes, or no more rows.
    fn read(
        statement: &Statement<'_>,
        staging: &OpenStaging,
        sql: &SqlControl,
        bytes: usize,
    ) -> Result<Self, EngineError> {
        let mut slice = Self::default();
        while slice.bytes < bytes {
            sql.check()?;
            let step = statement.step().map_err(|error| staging.failure(error))?;
            let Some(array) = step else { break };
            let batch = RecordBatch::from(&array);
            slice.bytes += batch.get_array_memory_size();
            for piece in pieces(&batch) {
                debug_assert!(piece.num_rows() <= MAX_BATCH_ROWS);
                slice.rows += piece.num_rows() as u64;
                slice.batches.push(hand_over(&piece)?);
            }
        }
        Ok(slice)
    }

    /// Reads what a statement answers, up to so many bytes.
    fn first(
        duck: &Connection,
        text: &str,
        staging: &OpenStaging,
        sql: &SqlControl,
        bytes: usize,
    ) -> Result<Self, EngineError> {
        let failure = |error| staging.failure(error);
        let mut statement = duck.prepare(text).map_err(failure)?;
        let _ = statement.stream_arrow([]).map_err(failure)?;
        Self::read(&statement, staging, sql, bytes)
    }
}

impl Run<'_, '_, '_> {
    /// The next slice of a stream.
    pub(super) fn slice(&self, statement: &Statement<'_>) -> Result<Option<Slice>, EngineError> {
        self.still_wanted(Slice::read(statement, self.staging, self.sql, self.slice_bytes)?)
    }

    /// The first slice of what a statement answers that ends with a condition, read in halves if there are any.
    pub(super) fn first_slice(
        &self,
        duck: &Connection,
        halves: Option<Halves>,
        statement: &str,
    ) -> Result<Option<Slice>, EngineError> {
        let (staging, sql, bytes) = (self.staging, self.sql, self.slice_bytes);
        let Some(Halves { second, middle }) = halves else {
            return self.still_wanted(Slice::first(duck, statement, staging, sql, bytes)?);
        };
        let upper = format!("{statement} AND rowid >= {middle}");
        let lower = format!("{statement} AND rowid < {middle}");
        let (lower, upper) = std::thread::scope(|scope| {
            let upper = scope.spawn(move || Slice::first(&second, &upper, staging, sql, bytes / 2));
            let lower = Slice::first(duck, &lower, staging, sql, bytes / 2);
            (lower, upper.join())
        });
        let upper = upper.unwrap_or_else(|_| Err(EngineError::internal("a thread that read staged rows has ended")));
        let (mut slice, upper) = (lower?, upper?);
        slice.batches.extend(upper.batches);
        slice.rows += upper.rows;
        slice.bytes += upper.bytes;
        self.still_wanted(slice)
    }

    fn still_wanted(&self, slice: Slice) -> Result<Option<Slice>, EngineError> {
        self.sql.check()?;
        if self.cancel.is_cancelled() {
            return Err(EngineError::Cancelled);
        }
        Ok((!slice.batches.is_empty()).then_some(slice))
    }
}

/// A second connection that sees the same state of a table, to read one half of its rows while the first reads the other.
/// Most of the time that reading takes is for making Arrow of DuckDB's vectors, which is done by the thread that asks.
pub(super) struct Halves {
    second: Connection,
    /// The number of the row with which the second half begins.
    middle: i64,
}

impl Halves {
    /// Begins a transaction on `first`, and one on another connection that sees the same, if that is wanted, worth it, and
    /// the table cannot be changing at this moment.
    pub(super) fn begin(
        staging: &OpenStaging,
        first: &Connection,
        table: &StagingTable,
        wanted: bool,
    ) -> Result<Option<Self>, EngineError> {
        let failure = |error| staging.failure(error);
        // A transaction sees what there is when it first reads.
        let begin = |duck: &Connection| -> Result<Option<i64>, duckdb::Error> {
            duck.execute_batch("BEGIN TRANSACTION")?;
            let middle = format!("SELECT max(rowid) // 2 FROM {}", sql_identifier(&table.name));
            duck.query_row(&middle, [], |row| row.get(0))
        };
        let unchanged = staging.changes.try_lock();
        if !wanted || table.rows < WORTH_TWO_THREADS || unchanged.is_err() {
            first.execute_batch("BEGIN TRANSACTION").map_err(failure)?;
            return Ok(None);
        }
        let middle = begin(first).map_err(failure)?;
        let second = staging.connect()?;
        let same = begin(&second).map_err(failure)? == middle;
        Ok(middle.filter(|_| same).map(|middle| Self { second, middle }))
    }
}

/// Fewer rows than this are read within a few milliseconds.
const WORTH_TWO_THREADS: u64 = 100_000;
