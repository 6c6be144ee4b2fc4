//! SQL of callers over staging tables: one statement, read only, streamed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use duckdb::Statement;
use duckdb::types::Value;

use super::super::arrow_stream::ArrowStream;
use super::super::error::EngineError;
use super::super::rows::{CHUNK_BYTES, Columns, Encoding, RowChunk, RowEvent, RowStream, RowSummary, STALL};
use super::control::SqlControl;
use super::json::write_row;
use super::sql_guard::check;
use super::staging::{OpenStaging, Staging};

/// One SQL statement with its limits.
#[derive(Clone, Debug)]
pub struct SqlRequest {
    /// The statement.
    pub sql: String,
    /// Values for `?` or `$1`, `$2`, …: null, booleans, numbers and text.
    pub parameters: Vec<serde_json::Value>,
    /// Time for waiting and running together.
    pub timeout: Duration,
    /// Rows after which the result is cut (and says so); `None` for no limit.
    pub max_rows: Option<u64>,
    /// Bytes after which the result is cut (and says so); `None` for no limit.
    pub max_bytes: Option<u64>,
    /// Rows per chunk.
    pub chunk_rows: usize,
    /// How rows are written.
    pub encoding: Encoding,
}

impl SqlRequest {
    /// A statement without parameters, with 30 s, no limit on rows, and 1,000 rows per chunk.
    #[must_use]
    pub fn new(sql: impl Into<String>) -> Self {
        Self {
            sql: sql.into(),
            parameters: Vec::new(),
            timeout: Duration::from_secs(30),
            max_rows: None,
            max_bytes: None,
            chunk_rows: 1_000,
            encoding: Encoding::Json,
        }
    }
}

impl Staging {
    /// Runs one `SELECT` and waits for its first rows. Dropping the future or the stream interrupts it.
    ///
    /// # Errors
    /// `Forbidden` for anything but a `SELECT` over staging tables; `Busy` if too many run already.
    pub async fn query(&self, request: SqlRequest) -> Result<RowStream, EngineError> {
        check(&request.sql)?;
        let parameters = parameters(&request.parameters)?;
        let queued_at = Instant::now();
        let readers = Arc::clone(&self.open.readers).acquire_owned();
        let Ok(Ok(permit)) = tokio::time::timeout(request.timeout, readers).await else {
            return Err(EngineError::Busy {
                reason: "other queries on the staging tables took all of the time limit".into(),
                retry_after: Duration::from_secs(2),
            });
        };
        let control = SqlControl::watch(request.timeout.saturating_sub(queued_at.elapsed()));
        let (reply, events) = flume::bounded(2);
        let mut delivery = Delivery {
            reply,
            control: Arc::clone(&control),
            chunk_rows: request.chunk_rows.max(1) as u64,
            max_rows: request.max_rows.unwrap_or(u64::MAX),
            max_bytes: request.max_bytes.unwrap_or(u64::MAX),
            queued_ms: queued_at.elapsed().as_secs_f64() * 1000.0,
            started: Instant::now(),
            columns: None,
            sent_rows: 0,
            sent_bytes: 0,
        };
        let open = Arc::clone(&self.open);
        tokio::task::spawn_blocking(move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| run(&open, &request, parameters, &mut delivery)))
                .unwrap_or_else(|_| {
                    Err(EngineError::internal(
                        "a value of the result cannot be read; cast it to VARCHAR",
                    ))
                });
            drop(permit);
            delivery.control.finish();
            if let Err(error) = outcome {
                let error = delivery.control.explain(error);
                let _ = delivery.reply.send_timeout(RowEvent::Failed(error), STALL);
            }
        });
        let deadline = control.deadline();
        RowStream::start(events, control, Arc::<OpenStaging>::clone(&self.open), deadline).await
    }
}

fn run(
    open: &OpenStaging,
    request: &SqlRequest,
    parameters: Vec<Value>,
    delivery: &mut Delivery,
) -> Result<(), EngineError> {
    let connection = open.connect()?;
    delivery.control.attach(&connection)?;
    let failure = |error| open.failure(error);
    // The engine itself refuses changes from here on.
    connection
        .execute_batch("BEGIN TRANSACTION READ ONLY")
        .map_err(failure)?;
    let mut statement = connection.prepare(&request.sql).map_err(failure)?;
    let places = statement.parameter_count();
    if places != parameters.len() {
        let message = format!(
            "has {} values where the statement has {places} places",
            parameters.len()
        );
        return Err(EngineError::invalid("parameters", message));
    }
    let _ = statement
        .stream_arrow(duckdb::params_from_iter(parameters))
        .map_err(failure)?;
    let schema = statement.schema();
    let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    delivery.columns = Some(Columns::from(names));
    let next = || fetch(&statement).map_err(failure);
    match request.encoding {
        Encoding::Json => send_json(next, delivery),
        Encoding::Arrow => send_arrow(ArrowStream::start(Schema::clone(&schema))?, next, delivery),
    }
}

type NextBatch = Result<Option<RecordBatch>, EngineError>;

fn send_json(next: impl Fn() -> NextBatch, delivery: &mut Delivery) -> Result<(), EngineError> {
    let mut chunk = Chunk::default();
    let mut batch = next()?;
    while let Some(current) = batch {
        // One batch ahead, so that the last chunk is known to be the last.
        batch = next()?;
        for row in 0..current.num_rows() {
            let full = chunk.rows >= delivery.chunk_rows || chunk.bytes.len() >= CHUNK_BYTES;
            let cut = delivery.sent_rows + chunk.rows >= delivery.max_rows
                || delivery.sent_bytes + chunk.bytes.len() as u64 >= delivery.max_bytes;
            if cut {
                return delivery.send(chunk, true, true).map(drop);
            }
            if full && !delivery.send(std::mem::take(&mut chunk), false, false)? {
                return Ok(());
            }
            if chunk.rows > 0 {
                chunk.bytes.push(b',');
            }
            write_row(&mut chunk.bytes, &current, row);
            chunk.rows += 1;
        }
        delivery.control.check()?;
    }
    delivery.send(chunk, true, false).map(drop)
}

/// Batches leave as they come, in pieces of bounded size; the end of the stream is a chunk of its own.
fn send_arrow(
    mut stream: ArrowStream,
    next: impl Fn() -> NextBatch,
    delivery: &mut Delivery,
) -> Result<(), EngineError> {
    let mut cut = false;
    while let Some(batch) = next()? {
        let bytes_per_row = batch.get_array_memory_size() / batch.num_rows().max(1);
        let piece = usize::try_from(delivery.chunk_rows).unwrap_or(usize::MAX);
        let piece = piece.min(CHUNK_BYTES / bytes_per_row.max(1)).max(1);
        for start in (0..batch.num_rows()).step_by(piece) {
            let left = usize::try_from(delivery.max_rows - delivery.sent_rows).unwrap_or(usize::MAX);
            cut = left == 0 || delivery.sent_bytes >= delivery.max_bytes;
            if cut {
                break;
            }
            let rows = piece.min(batch.num_rows() - start).min(left);
            stream.write(&batch.slice(start, rows))?;
            let chunk = Chunk {
                bytes: stream.take(),
                rows: rows as u64,
            };
            if !delivery.send(chunk, false, false)? {
                return Ok(());
            }
        }
        if cut {
            break;
        }
        delivery.control.check()?;
    }
    stream.end()?;
    let end = Chunk {
        bytes: stream.take(),
        rows: 0,
    };
    delivery.send(end, true, cut).map(drop)
}

fn fetch(statement: &Statement<'_>) -> Result<Option<RecordBatch>, duckdb::Error> {
    Ok(statement.step()?.map(|array| RecordBatch::from(&array)))
}

pub(super) fn parameters(values: &[serde_json::Value]) -> Result<Vec<Value>, EngineError> {
    let convert = |(index, value): (usize, &serde_json::Value)| match value {
        serde_json::Value::Null => Ok(Value::Null),
        serde_json::Value::Bool(value) => Ok(Value::Boolean(*value)),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Ok(Value::BigInt(whole)),
            (None, Some(real)) => Ok(Value::Double(real)),
            (None, None) => Err(EngineError::invalid(
                format!("parameters[{index}]"),
                "is not a number DuckDB has",
            )),
        },
        serde_json::Value::String(text) => Ok(Value::Text(text.clone())),
        serde_json::Value::Array(_) | serde_json::Value::Object(_) => Err(EngineError::invalid(
            format!("parameters[{index}]"),
            "is a list or an object; send null, booleans, numbers and text",
        )),
    };
    values.iter().enumerate().map(convert).collect()
}

#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    rows: u64,
}

struct Delivery {
    reply: flume::Sender<RowEvent>,
    control: Arc<SqlControl>,
    chunk_rows: u64,
    max_rows: u64,
    max_bytes: u64,
    queued_ms: f64,
    started: Instant,
    /// Taken by the first event.
    columns: Option<Columns>,
    sent_rows: u64,
    sent_bytes: u64,
}

impl Delivery {
    /// False if nobody reads any more.
    fn send(&mut self, chunk: Chunk, last: bool, truncated: bool) -> Result<bool, EngineError> {
        self.sent_rows += chunk.rows;
        self.sent_bytes += chunk.bytes.len() as u64;
        let end = last.then(|| RowSummary {
            rows: self.sent_rows,
            truncated,
            execution_ms: self.started.elapsed().as_secs_f64() * 1000.0,
            queued_ms: self.queued_ms,
        });
        let chunk = RowChunk {
            bytes: Bytes::from(chunk.bytes),
            rows: chunk.rows,
        };
        let event = match self.columns.take() {
            Some(columns) => RowEvent::Started { columns, chunk, end },
            None => RowEvent::Chunk { chunk, end },
        };
        match self.reply.send_timeout(event, STALL) {
            Ok(()) => Ok(true),
            Err(flume::SendTimeoutError::Disconnected(_)) => Ok(false),
            Err(flume::SendTimeoutError::Timeout(_)) => {
                self.control.stall();
                Ok(false)
            }
        }
    }
}
