//! The threads of one database: readers that share a queue, one writer with its own. Results are encoded here and
//! leave in chunks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{Builder, Scope};
use std::time::{Duration, Instant};

use lbug::QueryResult;

use super::super::error::EngineError;
use super::super::rows::{CHUNK_BYTES, Columns, Encoding, RowChunk, RowEvent, RowSummary, STALL};
use super::control::JobControl;
use super::encoder::Encoder;
use super::error::from_panic;
use super::guard::StatementKind;
use super::params::Parameters;
use super::reading::{LONG, Rows};
use super::session::{Refused, ResultShape, Session};

/// Results of more than one chunk leave the engine thread for threads of their own, up to this many results per
/// database; a slow reader of a result then holds its memory, but no engine thread.
const MAX_SENDERS: usize = 16;

/// What a thread can be asked to do.
pub(crate) enum Message {
    Query(QueryJob),
    Task(Task),
    Stop,
}

/// Work that needs the connection itself.
pub(crate) type Task = Box<dyn for<'c, 'db> FnOnce(&mut Session<'c, 'db>) + Send>;

/// One statement of a caller.
pub(crate) struct QueryJob {
    pub(crate) text: String,
    pub(crate) kind: StatementKind,
    pub(crate) parameters: Parameters,
    pub(crate) may_write: bool,
    pub(crate) queued_at: Instant,
    pub(crate) max_rows: u64,
    pub(crate) max_bytes: u64,
    pub(crate) chunk_rows: u64,
    pub(crate) encoding: Encoding,
    pub(crate) changes: Arc<AtomicBool>,
    pub(crate) reply: flume::Sender<RowEvent>,
    pub(crate) control: Arc<JobControl>,
}

/// Runs jobs until it is told to stop, or has had no job for as long as its `patience`.
pub(crate) fn serve<'scope, 'db: 'scope>(
    scope: &'scope Scope<'scope, '_>,
    mut session: Session<'_, 'db>,
    messages: &flume::Receiver<Message>,
    patience: Option<Duration>,
    senders: &'scope AtomicUsize,
) {
    let next = || match patience {
        None => messages.recv().ok(),
        Some(patience) => messages.recv_timeout(patience).ok(),
    };
    while let Some(message) = next() {
        match message {
            Message::Stop => return session.shared.pass_stop_on(),
            Message::Task(task) => task(&mut session),
            Message::Query(job) => query(scope, &mut session, job, senders),
        }
    }
}

fn query<'scope, 'db: 'scope>(
    scope: &'scope Scope<'scope, '_>,
    session: &mut Session<'_, 'db>,
    mut job: QueryJob,
    senders: &'scope AtomicUsize,
) {
    let started = Instant::now();
    if let Err(error) = job.control.begin() {
        return fail(&job, error);
    }
    let parameters = std::mem::take(&mut job.parameters);
    let (result, shape) = match session.execute(&job.control, &job.text, job.kind, parameters) {
        Ok(executed) => executed,
        Err(Refused::Failed(error)) => return fail(&job, error),
        Err(Refused::NeedsWriter(parameters)) => {
            job.changes.store(true, Ordering::Release);
            if !job.may_write {
                let message = "the statement changes the database, which is open for reading only here".to_owned();
                return fail(&job, EngineError::ReadOnly { message });
            }
            job.parameters = parameters;
            job.kind = StatementKind::Write;
            return session.shared.to_writer(Message::Query(job));
        }
    };
    let columns = Columns::clone(&shape.columns);
    let mut pump = match encoder(&job, &result, shape) {
        Ok(encoder) => Pump::new(job, result, encoder, started),
        Err(error) => return fail(&job, error),
    };
    match pump.next() {
        Err(error) => fail(&pump.job, error),
        Ok((chunk, end)) => {
            let last = end.is_some();
            if last {
                pump.job.control.finish();
            }
            if pump.job.reply.send(RowEvent::Started { columns, chunk, end }).is_err() || last {
                return pump.job.control.finish();
            }
            if senders.fetch_add(1, Ordering::Relaxed) < MAX_SENDERS {
                let id = session.shared.options.id.clone();
                let spawned = Builder::new()
                    .name(format!("lbug-send-{id}"))
                    .spawn_scoped(scope, move || {
                        if pump.left >= LONG {
                            pump.rows = pump.rows.ahead(scope, format!("lbug-read-{id}"));
                        }
                        pump.send_rest();
                        senders.fetch_sub(1, Ordering::Relaxed);
                    });
                if let Err(error) = spawned {
                    senders.fetch_sub(1, Ordering::Relaxed);
                    tracing::error!(%error, "no thread for the rest of a result");
                }
            } else {
                senders.fetch_sub(1, Ordering::Relaxed);
                pump.send_rest();
            }
        }
    }
}

fn encoder(job: &QueryJob, result: &QueryResult<'_>, shape: Arc<ResultShape>) -> Result<Encoder, EngineError> {
    match job.encoding {
        Encoding::Json => Ok(Encoder::json(shape)),
        // The binding panics on types that it does not know.
        Encoding::Arrow => catch_unwind(AssertUnwindSafe(|| result.get_column_data_types()))
            .map_err(|panic| from_panic(&*panic))
            .and_then(|types| Encoder::arrow(&shape.columns, types)),
    }
}

fn fail(job: &QueryJob, error: EngineError) {
    job.control.finish();
    // Nobody may be listening any more.
    let _ = job.reply.send_timeout(RowEvent::Failed(error), STALL);
}

/// A result on its way out.
struct Pump<'db> {
    job: QueryJob,
    rows: Rows<'db>,
    encoder: Encoder,
    started: Instant,
    /// Rows still to be sent.
    left: u64,
    cut: bool,
    sent_rows: u64,
    sent_bytes: u64,
}

impl<'db> Pump<'db> {
    fn new(job: QueryJob, result: QueryResult<'db>, encoder: Encoder, started: Instant) -> Self {
        let rows = result.get_num_tuples();
        let left = rows.min(job.max_rows);
        Self {
            cut: left < rows,
            job,
            rows: Rows::Here(result),
            encoder,
            started,
            left,
            sent_rows: 0,
            sent_bytes: 0,
        }
    }

    /// The next chunk, and the summary if it is the last one.
    fn next(&mut self) -> Result<(RowChunk, Option<RowSummary>), EngineError> {
        let rows = catch_unwind(AssertUnwindSafe(|| self.fill())).map_err(|panic| from_panic(&*panic))??;
        self.left -= rows;
        self.sent_rows += rows;
        if self.left > 0 && self.sent_bytes + self.encoder.len() as u64 >= self.job.max_bytes {
            self.left = 0;
            self.cut = true;
        }
        let last = self.left == 0;
        let bytes =
            catch_unwind(AssertUnwindSafe(|| self.encoder.take(last))).map_err(|panic| from_panic(&*panic))??;
        self.sent_bytes += bytes.len() as u64;
        let end = last.then(|| RowSummary {
            rows: self.sent_rows,
            truncated: self.cut,
            execution_ms: milliseconds(self.started.elapsed()),
            queued_ms: milliseconds(self.started.saturating_duration_since(self.job.queued_at)),
        });
        Ok((RowChunk { bytes, rows }, end))
    }

    fn fill(&mut self) -> Result<u64, EngineError> {
        let wanted = self.left.min(self.job.chunk_rows);
        let room =
            CHUNK_BYTES.min(usize::try_from(self.job.max_bytes.saturating_sub(self.sent_bytes)).unwrap_or(CHUNK_BYTES));
        self.encoder.expect(wanted);
        let mut rows = 0;
        while rows < wanted && (rows == 0 || self.encoder.len() < room) {
            let Some(row) = self.rows.next()? else {
                // The engine counted more rows than it gives.
                self.left = rows;
                break;
            };
            self.encoder.push(row);
            rows += 1;
        }
        Ok(rows)
    }

    fn send_rest(&mut self) {
        while !self.job.control.is_cancelled() {
            match self.next() {
                Err(error) => return fail(&self.job, error),
                Ok((chunk, end)) => {
                    let last = end.is_some();
                    if last {
                        self.job.control.finish();
                    }
                    match self.job.reply.send_timeout(RowEvent::Chunk { chunk, end }, STALL) {
                        Ok(()) if !last => {}
                        Err(flume::SendTimeoutError::Timeout(_)) => {
                            self.job.control.stall();
                            break;
                        }
                        _ => break,
                    }
                }
            }
        }
        self.job.control.finish();
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
