//! Rows on their way from an engine's thread to a response: already encoded, in chunks, over a bounded channel.
//!
//! The engine's thread writes bytes and the HTTP side copies them, so no tree of values is ever built. Dropping a
//! [`RowStream`] before its end interrupts the statement.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::error::EngineError;

/// The names of a result's columns, in order.
pub type Columns = Arc<[String]>;

/// How rows are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// JSON: objects (`{"a":1},{"a":2}`) for Cypher, arrays (`[1],[2]`) for SQL, separated by commas and without enclosing
    /// brackets. Wrap in `[`…`]` to get a JSON array.
    #[default]
    Json,
    /// An Arrow IPC stream: the chunks joined are its schema, its record batches, and the marker of its end, which is only
    /// there if the result is whole.
    Arrow,
}

/// Some rows of a result.
#[derive(Clone, Debug)]
pub struct RowChunk {
    /// The rows, in the [`Encoding`] that was asked for.
    pub bytes: Bytes,
    /// How many rows that is.
    pub rows: u64,
}

/// What is known when the last row has been sent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowSummary {
    /// Rows sent.
    pub rows: u64,
    /// True if the result had more rows than `max_rows` (or more bytes than `max_bytes`), and the rest was left out.
    pub truncated: bool,
    /// Milliseconds from the moment an engine thread took the statement to its last row.
    pub execution_ms: f64,
    /// Milliseconds spent waiting for an engine thread before that.
    pub queued_ms: f64,
}

/// Sent by the engine's thread. The first message of a successful statement is `Started`.
#[derive(Debug)]
pub(crate) enum RowEvent {
    Started {
        columns: Columns,
        chunk: RowChunk,
        end: Option<RowSummary>,
    },
    Chunk {
        chunk: RowChunk,
        end: Option<RowSummary>,
    },
    Failed(EngineError),
}

/// The statement behind a stream.
pub(crate) trait Producer: Send + Sync {
    /// Interrupts it. Called once if the stream is dropped before its end; must not block.
    fn abandon(self: Arc<Self>);
    /// Why it ended without saying so through the channel.
    fn ended(&self) -> EngineError;
    /// Called when its time is over and nothing has come. Interrupts it; the error to answer with, or `None` to go on
    /// waiting (for a write, whose outcome must be known).
    fn expire(self: Arc<Self>) -> Option<EngineError>;
}

/// The rows of one statement.
pub struct RowStream {
    events: flume::Receiver<RowEvent>,
    /// `None` once the last event is here.
    producer: Option<Arc<dyn Producer>>,
    columns: Columns,
    first: Option<RowChunk>,
    summary: Option<RowSummary>,
    _keep_open: Arc<dyn Send + Sync>,
}

/// How long a producer waits for a reader that does not take the next chunk.
pub(crate) const STALL: Duration = Duration::from_secs(60);

/// A chunk is sent when it has this many bytes, even if it has fewer rows than asked for.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;

impl RowStream {
    /// Waits until the statement has failed or has its first rows. `keep_open` lives as long as the stream.
    pub(crate) async fn start(
        events: flume::Receiver<RowEvent>,
        producer: Arc<dyn Producer>,
        keep_open: Arc<dyn Send + Sync>,
        deadline: Instant,
    ) -> Result<Self, EngineError> {
        let mut stream = Self {
            events,
            producer: Some(producer),
            columns: Arc::from([]),
            first: None,
            summary: None,
            _keep_open: keep_open,
        };
        let received = match tokio::time::timeout_at(deadline.into(), stream.events.recv_async()).await {
            Ok(event) => event.ok(),
            Err(_) => {
                // Returning here drops the stream.
                if let Some(error) = stream.producer.clone().and_then(|producer| producer.expire()) {
                    return Err(error);
                }
                stream.events.recv_async().await.ok()
            }
        };
        match received {
            Some(RowEvent::Started { columns, chunk, end }) => {
                stream.columns = columns;
                stream.first = Some(chunk);
                if end.is_some() {
                    stream.finish(end);
                }
                Ok(stream)
            }
            Some(RowEvent::Failed(error)) => {
                stream.finish(None);
                Err(error)
            }
            Some(RowEvent::Chunk { .. }) | None => Err(stream.lost()),
        }
    }

    /// The names of the columns.
    #[must_use]
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// The next rows; `None` after the last. The first chunk is there even if it has no rows.
    ///
    /// # Errors
    /// The statement failed after its first rows, was cancelled, or ran out of time.
    pub async fn next_chunk(&mut self) -> Result<Option<RowChunk>, EngineError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        if self.producer.is_none() {
            return Ok(None);
        }
        match self.events.recv_async().await {
            Ok(RowEvent::Chunk { chunk, end }) => {
                if end.is_some() {
                    self.finish(end);
                }
                Ok(Some(chunk))
            }
            Ok(RowEvent::Failed(error)) => {
                self.finish(None);
                Err(error)
            }
            Ok(RowEvent::Started { .. }) | Err(_) => Err(self.lost()),
        }
    }

    /// True once no further chunk will come (so the chunk in hand is the last one).
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.producer.is_none() && self.first.is_none()
    }

    /// Counts and times; `None` until the last chunk has been taken from the engine's thread.
    #[must_use]
    pub fn summary(&self) -> Option<RowSummary> {
        self.summary
    }

    /// Reads JSON rows to the end: all of them in one buffer (still without enclosing brackets), and the summary.
    ///
    /// # Errors
    /// As [`next_chunk`](Self::next_chunk).
    pub async fn collect(mut self) -> Result<(Columns, Bytes, RowSummary), EngineError> {
        let first = self.next_chunk().await?.map(|chunk| chunk.bytes).unwrap_or_default();
        let columns = self.columns.clone();
        // The usual answer is one chunk: hand its bytes on without a copy.
        if let Some(summary) = self.summary {
            return Ok((columns, first, summary));
        }
        let mut all = Vec::from(first);
        while let Some(chunk) = self.next_chunk().await? {
            if !all.is_empty() && !chunk.bytes.is_empty() {
                all.push(b',');
            }
            all.extend_from_slice(&chunk.bytes);
        }
        Ok((columns, Bytes::from(all), self.summary.unwrap_or_default()))
    }

    fn lost(&mut self) -> EngineError {
        self.producer.take().map_or_else(
            || EngineError::internal("the result has ended already"),
            |producer| producer.ended(),
        )
    }

    fn finish(&mut self, summary: Option<RowSummary>) {
        self.producer = None;
        self.summary = summary;
    }
}

impl Drop for RowStream {
    fn drop(&mut self) {
        if let Some(producer) = self.producer.take() {
            producer.abandon();
        }
    }
}

impl std::fmt::Debug for RowStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowStream")
            .field("columns", &self.columns)
            .field("finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}
