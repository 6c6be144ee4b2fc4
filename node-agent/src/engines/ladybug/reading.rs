//! The rows of a result, one by one.
//!
//! Making values of the engine's rows takes longer than encoding these. So the rows of a long result are read by a thread
//! of their own, which is a little ahead of the one that encodes and sends them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, Scope};

use lbug::{QueryResult, Value};

use super::super::error::EngineError;
use super::columns::weight;
use super::error::from_panic;

/// Fewer rows than this are not worth a thread.
pub(crate) const LONG: u64 = 10_000;
const BATCH_ROWS: usize = 1_000;
const BATCH_BYTES: usize = 128 * 1024;

type Row = Vec<Value>;

/// Rows that are still to be encoded.
pub(crate) enum Rows<'db> {
    /// Read when they are asked for.
    Here(QueryResult<'db>),
    /// Read by another thread. Three batches are in memory at most: one that is read, one that waits, one in use.
    Ahead {
        batches: flume::Receiver<Batch>,
        batch: std::vec::IntoIter<Row>,
    },
}

/// An empty batch is the end. A channel that closes without one has lost rows.
type Batch = Result<Vec<Row>, EngineError>;

impl<'db> Rows<'db> {
    /// The next row, or `None` after the last. Panics, as the binding does, on values that it cannot convert.
    pub(crate) fn next(&mut self) -> Result<Option<Row>, EngineError> {
        match self {
            Self::Here(result) => Ok(result.next()),
            Self::Ahead { batches, batch } => {
                if batch.len() == 0 {
                    let lost = |_| EngineError::internal("the thread that reads the result has ended");
                    *batch = batches.recv().map_err(lost)??.into_iter();
                }
                Ok(batch.next())
            }
        }
    }

    /// Has the rest read by a thread of its own, which ends when this is dropped. If there is no such thread, the next
    /// row is an error.
    pub(crate) fn ahead<'scope>(self, scope: &'scope Scope<'scope, '_>, thread: String) -> Self
    where
        'db: 'scope,
    {
        let Self::Here(result) = self else { return self };
        let (sender, batches) = flume::bounded(1);
        let spawned = Builder::new()
            .name(thread)
            .spawn_scoped(scope, move || read(result, &sender));
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread to read a result");
        }
        Self::Ahead {
            batches,
            batch: Vec::new().into_iter(),
        }
    }
}

fn read(mut result: QueryResult<'_>, sender: &flume::Sender<Batch>) {
    loop {
        let batch = catch_unwind(AssertUnwindSafe(|| batch(&mut result))).map_err(|panic| from_panic(&*panic));
        let ended = batch.as_ref().map_or(true, Vec::is_empty);
        if sender.send(batch).is_err() || ended {
            return;
        }
    }
}

fn batch(result: &mut QueryResult<'_>) -> Vec<Row> {
    let mut rows = Vec::with_capacity(BATCH_ROWS);
    let mut bytes = 0;
    while rows.len() < BATCH_ROWS && bytes < BATCH_BYTES {
        let Some(row) = result.next() else { break };
        bytes += row.iter().map(weight).sum::<usize>();
        rows.push(row);
    }
    rows
}
