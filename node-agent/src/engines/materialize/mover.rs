//! Moving rows: slices of Arrow batches, each copied into LadybugDB in a transaction of its own.

use duckdb::Connection;
use lbug::Value;

use super::super::error::EngineError;
use super::super::ladybug::{ReadersOut, TableKind};
use super::super::names::TRANSIENT_TABLE_PREFIX;
use super::ProgressUpdate;
use super::plan::Plan;
use super::run::Run;
use super::slices::{Halves, Slice};

/// Moves the rows of one run, slice by slice.
pub(super) struct Mover<'m, 'r, 'c, 'db> {
    pub(super) run: &'m mut Run<'r, 'c, 'db>,
    plan: &'m Plan,
    /// Rows that are expected to be moved.
    pub(super) total: u64,
    pub(super) moved: u64,
    pub(super) dangling: u64,
    pub(super) slices: usize,
    /// A relationship without an end was seen; from then on the ends are looked up before COPY.
    checked: bool,
}

impl<'m, 'r, 'c, 'db> Mover<'m, 'r, 'c, 'db> {
    pub(super) fn new(run: &'m mut Run<'r, 'c, 'db>, plan: &'m Plan, total: u64) -> Self {
        Self {
            run,
            plan,
            total,
            moved: 0,
            dangling: 0,
            slices: 0,
            checked: false,
        }
    }

    /// Moves all rows in one transaction, if they fit into one COPY and have different keys; false, with nothing moved, if
    /// they do not, or if readers are at work: a COPY that fails takes its node groups back, which readers must not see.
    pub(super) fn at_once(
        &mut self,
        duck: &Connection,
        halves: Option<Halves>,
        statement: &str,
    ) -> Result<bool, EngineError> {
        if self.total > ROWS_ALONE as u64 {
            return Ok(false);
        }
        let Some(slice) = self.run.first_slice(duck, halves, statement)? else {
            return Ok(self.total == 0);
        };
        if slice.rows < self.total {
            return Ok(false);
        }
        let Some(alone) = self.run.session.shared.keep_readers_out() else {
            return Ok(false);
        };
        match self.copy(&slice, false, Some(&alone)) {
            Ok(copied) if copied == slice.rows => {
                self.moved = copied;
                self.slices = 1;
                (self.run.progress)(ProgressUpdate {
                    rows_done: copied,
                    rows_total: copied,
                });
                Ok(true)
            }
            Ok(copied) => Err(fewer_rows(copied, &slice)),
            Err(EngineError::Constraint { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Moves all rows, slice by slice; true when it is done.
    pub(super) fn all(&mut self, duck: &Connection, statement: &str) -> Result<bool, EngineError> {
        let mut statement = duck
            .prepare(statement)
            .map_err(|error| self.run.staging.failure(error))?;
        let _ = statement
            .stream_arrow([])
            .map_err(|error| self.run.staging.failure(error))?;
        while let Some(slice) = self.run.slice(&statement)? {
            let copied = match self.copy(&slice, self.checked, None) {
                // COPY names one key that is missing and gives up. Nothing of the slice was written; take the rows
                // that have both ends, and count the others.
                Err(EngineError::Constraint { message }) if self.plan.ends.is_some() && !self.checked => {
                    tracing::info!(
                        table = self.plan.table,
                        reason = message,
                        "relationships without ends; looking the ends up"
                    );
                    self.checked = true;
                    self.copy(&slice, true, None)?
                }
                copied => copied?,
            };
            self.moved += copied;
            self.slices += 1;
            let missing = slice.rows.saturating_sub(copied);
            if self.plan.ends.is_some() {
                self.dangling += missing;
            } else if missing > 0 {
                return Err(fewer_rows(copied, &slice));
            }
            let rows_total = self.total.saturating_sub(self.dangling);
            (self.run.progress)(ProgressUpdate {
                rows_done: self.moved,
                rows_total,
            });
        }
        Ok(true)
    }

    /// Copies a slice in one transaction that also drops the Arrow tables, so that no crash can leave one behind. `alone`
    /// says that the caller keeps readers out.
    fn copy(&mut self, slice: &Slice, checked: bool, alone: Option<&ReadersOut<'_>>) -> Result<u64, EngineError> {
        if self.run.session.shared.options.unseen && self.plan.kind == TableKind::Relationship {
            return self.copy_unseen(slice, checked);
        }
        self.run.session.run_once(self.run.job, "BEGIN TRANSACTION")?;
        let committed = self.copy_all(slice, checked, alone).and_then(|rows| {
            match self.run.session.commit() {
                Ok(()) => Ok(rows),
                // The rows are in; the checkpoint at the end of the run decides whether they are durable.
                Err(error) if error.to_string().contains("Transaction committed successfully") => Ok(rows),
                Err(error) => Err(error),
            }
        });
        if committed.is_err() {
            // A failing statement has ended the transaction already.
            let _ = self.run.session.rollback();
        }
        committed
    }

    /// Copies relationships without a transaction around the Arrow table. COPY then writes new node groups on all threads and
    /// as it makes them; in a transaction it keeps them, and COMMIT writes them on one (lbug 0.22.1, `RelBatchInsert`). A crash
    /// leaves a database that does not open, and a COPY that is given up takes away groups that a reader may have seen.
    fn copy_unseen(&mut self, slice: &Slice, checked: bool) -> Result<u64, EngineError> {
        let (session, job) = (&*self.run.session, self.run.job);
        let name = transient_name();
        session.create_arrow_table(job, &name, &slice.batches)?;
        let answer = session.rows(job, &self.plan.copy(&name, checked));
        let dropped = session.drop_arrow_table(job, &name);
        let copied = copied_rows(&answer?)?;
        dropped.map(|()| copied)
    }

    fn copy_all(&mut self, slice: &Slice, checked: bool, alone: Option<&ReadersOut<'_>>) -> Result<u64, EngineError> {
        let (session, job) = (&mut *self.run.session, self.run.job);
        let mut copied = 0;
        let mut batches = slice.batches.as_slice();
        while !batches.is_empty() {
            let nodes = self.plan.kind == TableKind::Node;
            let for_now = (nodes && alone.is_none())
                .then(|| session.shared.keep_readers_out())
                .flatten();
            let beside_readers = nodes && alone.or(for_now.as_ref()).is_none();
            let most = match (nodes, beside_readers) {
                (true, true) => ROWS_BESIDE_READERS,
                (true, false) => ROWS_ALONE,
                (false, _) => usize::MAX,
            };
            let (now, later) = batches.split_at(fitting(batches, most));
            let name = transient_name();
            session.create_arrow_table(job, &name, now)?;
            let copy = self.plan.copy(&name, checked);
            let answer = match beside_readers {
                true => session.rows_undisturbed(&copy),
                false => session.rows(job, &copy),
            };
            copied += copied_rows(&answer?)?;
            session.drop_arrow_table(job, &name)?;
            if beside_readers && job.is_cancelled() {
                let _alone = session.shared.outlast_readers();
                session.rollback()?;
                return Err(job.interrupted());
            }
            batches = later;
        }
        Ok(copied)
    }
}

/// Rows of one COPY into a node table that may be read meanwhile: less than a node group of the engine has (131,072). A
/// COPY that fills a whole group compresses and writes it while the group is in its table already, without content; a
/// reader that comes to it takes the process down (lbug 0.22.1, `NodeGroupCollection::appendToLastNodeGroupAndFlushWhenFull`).
/// Relationships are not affected: inside a transaction, the engine keeps their new groups in memory.
///
/// Such a COPY is not interrupted, since the engine would take its rows back beside the readers, and empties node groups
/// before it removes them (`NodeGroup::rollbackInsert`). It is short, and what goes back after it goes without readers.
const ROWS_BESIDE_READERS: usize = 131_071;

/// Rows of one COPY into a node table while readers are kept out: eight whole groups, which is twice as fast. Queries
/// that come meanwhile wait for its end, which is within a second or so.
const ROWS_ALONE: usize = 8 * 131_072;

/// How many of the batches have together no more than `most` rows; at least one.
fn fitting(batches: &[arrow55::record_batch::RecordBatch], most: usize) -> usize {
    let mut rows = 0;
    let fitting = batches.iter().take_while(|batch| {
        rows += batch.num_rows();
        rows <= most
    });
    fitting.count().max(1)
}

fn fewer_rows(copied: u64, slice: &Slice) -> EngineError {
    EngineError::internal(format!("COPY took {copied} of {} rows without an error", slice.rows))
}

pub(super) fn transient_name() -> String {
    format!("{TRANSIENT_TABLE_PREFIX}{:08x}", rand::random::<u32>())
}

/// COPY answers with a sentence that begins with the number of rows.
fn copied_rows(rows: &[Vec<Value>]) -> Result<u64, EngineError> {
    let answer = rows.first().and_then(|row| row.first());
    let Some(Value::String(text)) = answer else {
        return Err(EngineError::internal(format!("COPY answered {answer:?}")));
    };
    let digits = text.split(' ').next().unwrap_or_default();
    digits
        .parse()
        .map_err(|_| EngineError::internal(format!("COPY answered {text:?}")))
}
