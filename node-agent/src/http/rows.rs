//! What answers with rows look like. Rows themselves and the chunks around them are written as bytes, on the hot path;
//! for these the types are their description, and the tests hold every answer to it.

use super::openapi::{SchemaOf, schema_of};
use crate::{engines::EngineError, tasks::timestamp};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

/// Rows of a Cypher query.
#[derive(Serialize, JsonSchema)]
pub(super) struct QueryAnswer {
    data: Vec<Map<String, Value>>,
    columns: Vec<String>,
    execution_time_ms: f64,
    row_count: u64,
    database: String,
    /// True if a limit cut the rows; absent if they are all.
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<bool>,
    /// The limit that cut them.
    #[serde(skip_serializing_if = "Option::is_none")]
    row_limit: Option<u64>,
}

/// Rows of a SQL query.
#[derive(Serialize, JsonSchema)]
pub(super) struct SqlAnswer {
    rows: Vec<Vec<Value>>,
    columns: Vec<String>,
    row_count: u64,
    execution_time_ms: f64,
    graph_id: String,
    /// True if a limit cut the rows; absent if they are all.
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<bool>,
    /// The limit that cut them.
    #[serde(skip_serializing_if = "Option::is_none")]
    row_limit: Option<u64>,
}

/// A line of a Cypher query's stream.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[allow(dead_code)] // lines are written as bytes
pub(super) enum QueryLine {
    Chunk(QueryChunk),
    Failure(StreamFailure),
}

/// A line of a SQL query's stream.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[allow(dead_code)] // lines are written as bytes
pub(super) enum SqlLine {
    Chunk(SqlChunk),
    Failure(StreamFailure),
}

/// Some rows of a Cypher query.
#[derive(Serialize, JsonSchema)]
pub(super) struct QueryChunk {
    chunk_index: u64,
    data: Vec<Map<String, Value>>,
    /// In the first chunk only.
    columns: Vec<String>,
    is_last_chunk: bool,
    row_count: u64,
    total_rows_sent: u64,
    /// In the last chunk only.
    #[serde(skip_serializing_if = "Option::is_none")]
    execution_time_ms: Option<f64>,
    /// In the last chunk only.
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<bool>,
}

/// Some rows of a SQL query.
#[derive(Serialize, JsonSchema)]
pub(super) struct SqlChunk {
    chunk_index: u64,
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
    is_last_chunk: bool,
    row_count: u64,
    total_rows_sent: u64,
    execution_time_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<bool>,
}

/// The last line of a stream that failed.
#[derive(Serialize, JsonSchema)]
pub(super) struct StreamFailure {
    pub error: String,
    pub error_type: &'static str,
    pub chunk_index: u64,
    /// Always true.
    pub is_last_chunk: bool,
    /// Always 0.
    pub row_count: u64,
    pub total_rows_sent: u64,
    pub execution_time_ms: f64,
}

/// Event `started`.
#[derive(Serialize, JsonSchema)]
pub(super) struct QueryStarted {
    graph_id: String,
    timestamp: String,
    message: &'static str,
}

impl QueryStarted {
    pub(super) fn now(graph: &str) -> Self {
        Self {
            graph_id: graph.to_owned(),
            timestamp: timestamp(),
            message: "Query started",
        }
    }
}

/// Event `chunk`.
#[derive(Serialize, JsonSchema)]
pub(super) struct RowsEvent {
    chunk_index: u64,
    columns: Vec<String>,
    /// Objects for Cypher, lists for SQL.
    rows: Vec<Value>,
    row_count: u64,
    total_rows_sent: u64,
    /// Known in the last chunk.
    total_rows: Option<u64>,
    is_last_chunk: bool,
}

/// Event `progress`, after every chunk.
#[derive(Serialize, JsonSchema)]
pub(super) struct QueryProgress {
    /// 100 after the last chunk, null before.
    pub progress_percent: Option<u8>,
    pub rows_processed: u64,
    pub total_rows: Option<u64>,
    pub execution_time_ms: f64,
}

/// Event `completed`.
#[derive(Serialize, JsonSchema)]
pub(super) struct QueryCompleted {
    pub message: &'static str,
    pub total_rows: u64,
    pub execution_time_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncated: Option<bool>,
}

/// Event `error`, instead of `completed`.
#[derive(Serialize, JsonSchema)]
pub(super) struct QueryFailed {
    error: String,
    error_type: &'static str,
    execution_time_ms: f64,
}

impl QueryFailed {
    /// `said` is what its reader is told.
    pub(super) fn after(error: &EngineError, said: String, execution_time_ms: f64) -> Self {
        Self {
            error: said,
            error_type: error.contract_type(),
            execution_time_ms,
        }
    }
}

/// The events of a query.
pub(super) const QUERY_EVENTS: &[(&str, SchemaOf)] = &[
    ("started", schema_of::<QueryStarted>),
    ("chunk", schema_of::<RowsEvent>),
    ("progress", schema_of::<QueryProgress>),
    ("completed", schema_of::<QueryCompleted>),
    ("error", schema_of::<QueryFailed>),
];
