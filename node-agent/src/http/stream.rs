//! Rows as streams: a line of JSON per chunk, server-sent events, or Arrow.
//!
//! The last chunk always says so. A failure after the first byte is a last chunk with `error` in it, since the status has
//! been sent by then. An Arrow stream has no place for it, and readers take one that merely stops for whole: so its body
//! is broken off, which every HTTP client reports.

use super::{
    headers::{ARROW_STREAM, Format},
    rows::{QueryCompleted, QueryFailed, QueryProgress, QueryStarted, StreamFailure},
};
use crate::{
    admission::Place,
    engines::{EngineError, RowChunk, RowStream},
    metrics::EngineLabel,
    state::AppState,
};
use axum::{
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, header},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures::{Stream, stream};
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

const NDJSON: &str = "application/x-ndjson";

/// Which engine's rows these are, and so what a chunk looks like.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// Objects of a Cypher query.
    Cypher {
        /// The database, repeated in the last chunk.
        database: String,
    },
    /// Arrays of a SQL query.
    Sql {
        /// The graph whose staging tables were asked.
        graph: String,
    },
}

impl Shape {
    /// Whose rows these are.
    fn database(&self) -> &str {
        let (Self::Sql { graph: database } | Self::Cypher { database }) = self;
        database
    }

    /// The label in the metrics.
    pub(super) fn engine(&self) -> &'static str {
        match self {
            Self::Cypher { .. } => "ladybug",
            Self::Sql { .. } => "duckdb",
        }
    }
}

/// The rows of a running statement as the stream that was asked for.
pub(super) fn respond(format: Format, running: Running) -> Response {
    match format {
        Format::Sse => sse(running),
        Format::Arrow => arrow(running),
        Format::NdJson | Format::Json => ndjson(running),
    }
}

/// A statement that failed before its first row, for formats whose readers look for errors in the stream.
pub(super) fn failure(format: Format, error: &EngineError, shape: Shape, started: Instant) -> Option<Response> {
    match format {
        Format::NdJson => Some(ndjson_failure(error, shape, started)),
        Format::Sse => Some(sse_failure(error, shape.database(), started)),
        Format::Json | Format::Arrow => None,
    }
}

/// A running statement with everything that must live as long as its rows.
pub(super) struct Running {
    /// The rows.
    pub rows: RowStream,
    /// The place that it takes, given back when the last row is sent or the reader is gone.
    pub(super) _place: Place,
    /// When its request began.
    pub started: Instant,
    /// What a chunk looks like.
    pub shape: Shape,
    /// The state, for the metrics.
    pub state: AppState,
}

struct Writer {
    index: u64,
    sent: u64,
    started: Instant,
    shape: Shape,
}

impl Writer {
    fn new(shape: Shape, started: Instant) -> Self {
        Self {
            index: 0,
            sent: 0,
            started,
            shape,
        }
    }

    fn elapsed_ms(&self) -> f64 {
        (self.started.elapsed().as_secs_f64() * 1e5).round() / 100.0
    }

    fn line(&mut self, chunk: &RowChunk, columns: &[String], last: bool, truncated: bool) -> Bytes {
        self.sent += chunk.rows;
        let mut line = Vec::with_capacity(chunk.bytes.len() + 256);
        let index = self.index;
        line.extend_from_slice(format!("{{\"chunk_index\":{index},").as_bytes());
        match &self.shape {
            Shape::Cypher { .. } => {
                line.extend_from_slice(b"\"data\":[");
                line.extend_from_slice(&chunk.bytes);
                line.extend_from_slice(b"],\"columns\":");
                let columns = if index == 0 { columns } else { &[] };
                line.extend_from_slice(json!(columns).to_string().as_bytes());
            }
            Shape::Sql { .. } => {
                line.extend_from_slice(format!("\"columns\":{},\"rows\":[", json!(columns)).as_bytes());
                line.extend_from_slice(&chunk.bytes);
                line.push(b']');
            }
        }
        let rows = chunk.rows;
        let sent = self.sent;
        line.extend_from_slice(
            format!(",\"is_last_chunk\":{last},\"row_count\":{rows},\"total_rows_sent\":{sent}").as_bytes(),
        );
        if last || matches!(self.shape, Shape::Sql { .. }) {
            line.extend_from_slice(format!(",\"execution_time_ms\":{}", self.elapsed_ms()).as_bytes());
        }
        if let (true, Shape::Cypher { database }) = (last, &self.shape) {
            line.extend_from_slice(format!(",\"database\":{}", json!(database)).as_bytes());
        }
        if truncated {
            line.extend_from_slice(b",\"truncated\":true");
        }
        line.extend_from_slice(b"}\n");
        self.index += 1;
        line.into()
    }

    /// The last line of a stream that failed; `said` is what its reader is told.
    fn failure_line(&self, error: &EngineError, said: String) -> Bytes {
        let failure = StreamFailure {
            error: said,
            error_type: error.contract_type(),
            chunk_index: self.index,
            is_last_chunk: true,
            row_count: 0,
            total_rows_sent: self.sent,
            execution_time_ms: self.elapsed_ms(),
        };
        format!("{}\n", json!(failure)).into()
    }
}

/// The rows as an Arrow IPC stream, byte for byte as the engine's thread wrote it.
fn arrow(running: Running) -> Response {
    let chunks = stream::unfold(Some(running), |running| async move {
        let mut running = running?;
        match running.rows.next_chunk().await {
            Ok(Some(chunk)) => {
                count(&running, chunk.rows);
                let goes_on = !running.rows.is_finished();
                Some((Ok(chunk.bytes), goes_on.then_some(running)))
            }
            Ok(None) => None,
            Err(error) => {
                let graph = running.shape.database();
                tracing::warn!(operation = "arrow_stream", graph, %error, "stream broken off");
                Some((Err(error), None))
            }
        }
    });
    streaming(Body::from_stream(chunks), ARROW_STREAM)
}

/// The rows as NDJSON.
fn ndjson(running: Running) -> Response {
    let writer = Writer::new(running.shape.clone(), running.started);
    let lines = stream::unfold(Some((running, writer)), |step| async move {
        let (mut running, mut writer) = step?;
        let line = match running.rows.next_chunk().await {
            Ok(Some(chunk)) => {
                let last = running.rows.is_finished();
                let truncated = running.rows.summary().is_some_and(|summary| summary.truncated);
                let columns = running.rows.columns().clone();
                let line = writer.line(&chunk, &columns, last, truncated);
                count(&running, chunk.rows);
                if !last {
                    return Some((Ok::<_, Infallible>(line), Some((running, writer))));
                }
                line
            }
            Ok(None) => return None,
            Err(error) => writer.failure_line(&error, running.state.shown(&error.to_string())),
        };
        Some((Ok(line), None))
    });
    streaming(Body::from_stream(lines), NDJSON)
}

/// A statement that failed before its first row, as the contract's clients read it from a stream.
fn ndjson_failure(error: &EngineError, shape: Shape, started: Instant) -> Response {
    streaming(
        Body::from(Writer::new(shape, started).failure_line(error, error.to_string())),
        NDJSON,
    )
}

fn streaming(body: Body, media_type: &'static str) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(HeaderName::from_static("x-streaming"), HeaderValue::from_static("true"));
    response
}

fn count(running: &Running, rows: u64) {
    running
        .state
        .metrics
        .rows_sent
        .get_or_create(&EngineLabel {
            engine: running.shape.engine(),
        })
        .inc_by(rows);
}

/// The rows as server-sent events: `started`, `chunk` with `progress` after it, then `completed` or `error`.
fn sse(running: Running) -> Response {
    let graph = running.shape.database().to_owned();
    let first = event("started", &json!(QueryStarted::now(&graph)));
    let events = stream::unfold(Step::Started(first, running), |step| async move {
        match step {
            Step::Started(first, running) => Some((
                vec![first],
                Step::Rows {
                    running,
                    index: 0,
                    sent: 0,
                },
            )),
            Step::Rows {
                mut running,
                index,
                sent,
            } => match running.rows.next_chunk().await {
                Ok(Some(chunk)) => {
                    let last = running.rows.is_finished();
                    count(&running, chunk.rows);
                    let sent = sent + chunk.rows;
                    let mut events = rows_events(&running, &chunk, index, sent, last);
                    if last {
                        events.push(completed(&running, sent));
                        return Some((events, Step::Done));
                    }
                    Some((
                        events,
                        Step::Rows {
                            running,
                            index: index + 1,
                            sent,
                        },
                    ))
                }
                Ok(None) => None,
                Err(error) => {
                    let elapsed = running.started.elapsed().as_secs_f64() * 1e3;
                    let said = running.state.shown(&error.to_string());
                    let data = json!(QueryFailed::after(&error, said, elapsed));
                    Some((vec![event("error", &data)], Step::Done))
                }
            },
            Step::Done => None,
        }
    });
    sse_response(events, Some(&graph))
}

enum Step {
    Started(Event, Running),
    Rows { running: Running, index: u64, sent: u64 },
    Done,
}

fn rows_events(running: &Running, chunk: &RowChunk, index: u64, sent: u64, last: bool) -> Vec<Event> {
    let total = last.then_some(sent);
    let mut data = String::with_capacity(chunk.bytes.len() + 256);
    data.push_str(&format!(
        "{{\"chunk_index\":{index},\"columns\":{},\"rows\":[",
        json!(&running.rows.columns()[..])
    ));
    data.push_str(&String::from_utf8_lossy(&chunk.bytes));
    let rows = chunk.rows;
    data.push_str(&format!(
        "],\"row_count\":{rows},\"total_rows_sent\":{sent},\"total_rows\":{},\"is_last_chunk\":{last}}}",
        json!(total)
    ));
    let progress = json!(QueryProgress {
        progress_percent: last.then_some(100),
        rows_processed: sent,
        total_rows: total,
        execution_time_ms: running.started.elapsed().as_secs_f64() * 1e3,
    });
    vec![Event::default().event("chunk").data(data), event("progress", &progress)]
}

fn completed(running: &Running, sent: u64) -> Event {
    let truncated = running.rows.summary().is_some_and(|summary| summary.truncated);
    let data = QueryCompleted {
        message: "Query completed",
        total_rows: sent,
        execution_time_ms: running.started.elapsed().as_secs_f64() * 1e3,
        truncated: truncated.then_some(true),
    };
    event("completed", &json!(data))
}

/// One event with JSON data.
pub(super) fn event(name: &str, data: &Value) -> Event {
    Event::default().event(name).data(data.to_string())
}

/// Events as a response, with the headers that keep proxies from holding them back.
pub(super) fn sse_response(events: impl Stream<Item = Vec<Event>> + Send + 'static, graph: Option<&str>) -> Response {
    use futures::StreamExt;
    let events = events.flat_map(|events| stream::iter(events.into_iter().map(Ok::<_, Infallible>)));
    let keep_alive = KeepAlive::new().interval(Duration::from_secs(15)).text("ping");
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    let headers = response.headers_mut();
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    headers.insert(
        HeaderName::from_static("x-stream-format"),
        HeaderValue::from_static("sse"),
    );
    if let Some(graph) = graph.and_then(|graph| HeaderValue::from_str(graph).ok()) {
        headers.insert(HeaderName::from_static("x-graph-id"), graph);
    }
    response
}

/// A statement that failed before its first row, as events.
fn sse_failure(error: &EngineError, graph: &str, started: Instant) -> Response {
    let data = json!(QueryFailed::after(
        error,
        error.to_string(),
        started.elapsed().as_secs_f64() * 1e3
    ));
    sse_response(stream::iter([vec![event("error", &data)]]), Some(graph))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn chunk(json: &'static str, rows: u64) -> RowChunk {
        RowChunk {
            bytes: Bytes::from_static(json.as_bytes()),
            rows,
        }
    }

    #[test]
    fn cypher_lines_have_columns_once_and_an_end() {
        let mut writer = Writer::new(Shape::Cypher { database: "kg1".into() }, Instant::now());
        let columns = ["a".to_owned()];
        let first: Value =
            serde_json::from_slice(&writer.line(&chunk(r#"{"a":1},{"a":2}"#, 2), &columns, false, false)).unwrap();
        assert_eq!(first["columns"], json!(["a"]));
        assert_eq!(first["data"], json!([{"a": 1}, {"a": 2}]));
        assert_eq!(first["is_last_chunk"], json!(false));
        assert!(first.get("execution_time_ms").is_none());
        let last: Value = serde_json::from_slice(&writer.line(&chunk(r#"{"a":3}"#, 1), &columns, true, true)).unwrap();
        assert_eq!(last["columns"], json!([]));
        assert_eq!((&last["chunk_index"], &last["total_rows_sent"]), (&json!(1), &json!(3)));
        assert_eq!((&last["database"], &last["truncated"]), (&json!("kg1"), &json!(true)));
        assert!(last["execution_time_ms"].is_f64() || last["execution_time_ms"].is_u64());
    }

    #[test]
    fn sql_lines_and_failures() {
        let mut writer = Writer::new(Shape::Sql { graph: "kg1".into() }, Instant::now());
        let line: Value =
            serde_json::from_slice(&writer.line(&chunk("[1,null]", 1), &["x".into(), "y".into()], true, false))
                .unwrap();
        assert_eq!(
            (&line["rows"], &line["columns"]),
            (&json!([[1, null]]), &json!(["x", "y"]))
        );
        let failure: Value =
            serde_json::from_slice(&writer.failure_line(&EngineError::Cancelled, "cancelled".into())).unwrap();
        assert_eq!(
            (&failure["error_type"], &failure["chunk_index"]),
            (&json!("CancelledError"), &json!(1))
        );
        assert_eq!(
            (&failure["is_last_chunk"], &failure["total_rows_sent"]),
            (&json!(true), &json!(1))
        );
    }
}
