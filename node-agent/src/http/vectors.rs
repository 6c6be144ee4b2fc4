//! `/databases/{id}/tables/{table}/vector`: tables of vectors, built from queries and searched by nearness.
//!
//! What takes longer than a search is a task, and the contract's answer waits for it unless the caller prefers not to.

use super::{
    BODY_LIMIT, body,
    databases::{elapsed_ms, missing},
    error::ApiError,
    headers,
    query::joined,
    tables::already,
    tasks::{Finish, started_body, wait_for},
    validation::{ANY, Fields, Text},
};
use crate::{
    engines::{
        Access, BuildReport, DatabaseId, Encoding, EngineError, IndexInfo, QueryRequest, RowStream, SearchRequest,
        SqlRequest, TableName, Vectors,
    },
    registration::lease::Refusal,
    state::{AppState, WritePermit},
    tasks::{TaskContext, TaskType},
};
use axum::{
    extract::{Path, Request, State},
    http::HeaderMap,
    response::Response,
};
use serde_json::{Map, Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Longest query that rows may come from, in characters.
const QUERY: Text = Text {
    max: Some(10_000),
    identifier: false,
    one_of: None,
};
const SOURCES: Text = Text {
    one_of: Some(&["staging", "graph"]),
    ..ANY
};
const CHUNK_ROWS: usize = 8_192;
const PARTITIONS_LOOKED_INTO: i64 = 20;
const REFINE: i64 = 10;

/// The vectors of a database that exists.
pub(super) fn vectors(state: &AppState, id: &DatabaseId) -> Result<Vectors, ApiError> {
    state.engines.vectors(id).map_err(|error| match error {
        EngineError::NotFound { .. } => missing(id),
        other => other.into(),
    })
}

/// Makes the vectors of a table from the rows of a query.
pub(super) async fn build(
    state: State<AppState>,
    path: Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    fill(state, path, request, Fill::Build).await
}

/// Adds the rows of a query to the vectors of a table.
pub(super) async fn append(
    state: State<AppState>,
    path: Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    fill(state, path, request, Fill::Append).await
}

#[derive(Clone, Copy, PartialEq)]
enum Fill {
    Build,
    Append,
}

async fn fill(
    State(state): State<AppState>,
    Path((id, table)): Path<(String, String)>,
    request: Request,
    how: Fill,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let job = Job::new(state, &parts.headers, &id, &table).await?;
    let (source, skip_invalid) = parse_source(&body::read(body, BODY_LIMIT).await?)?;
    vectors(&job.state, &job.id)?;
    job.state.admission.check_memory()?;
    job.state.check_disk(0)?;
    let (action, turn) = match how {
        Fill::Build => ("build", Some(job.state.engines.vector_turn())),
        Fill::Append => ("append", None),
    };
    let started = Instant::now();
    job.run(
        action,
        turn,
        headers::prefers_async(&parts.headers),
        move |work| async move {
            let rows = source.open(&work.state, &work.id).await?;
            let vectors = vectors(&work.state, &work.id)?;
            let written = {
                let context = work.context.clone();
                Arc::new(move |rows| context.progress(rows, 0))
            };
            let report = match how {
                Fill::Build => {
                    vectors
                        .build(&work.table, rows, skip_invalid, written, &work.stop)
                        .await
                }
                Fill::Append => {
                    vectors
                        .append(&work.table, rows, skip_invalid, written, &work.stop)
                        .await
                }
            };
            Ok(filled_body(&work, &report?, started))
        },
    )
    .await
}

fn filled_body(work: &Work, report: &BuildReport, started: Instant) -> Value {
    let table = &report.table;
    json!({
        "graph_id": work.id.as_str(),
        "table_name": work.table.as_str(),
        "row_count": table.rows,
        "num_partitions": table.partitions,
        "index_size_mb": megabytes(table.size_bytes),
        "duration_ms": elapsed_ms(started),
        "dimension": table.dimension,
        "num_sub_vectors": table.sub_vectors,
        "indexed_rows": table.indexed_rows,
        "rows_added": report.added,
        "rows_rejected": report.rejected.rows(),
        "rejected": {
            "null": report.rejected.null,
            "not_finite": report.rejected.not_finite,
            "other_length": report.rejected.other_length,
            "zero": report.rejected.zero,
        },
    })
}

/// Where rows come from.
enum Source {
    Staging(String),
    Graph(String),
}

fn parse_source(body: &[u8]) -> Result<(Source, bool), ApiError> {
    let mut fields = Fields::parse(body)?;
    let graph = fields.text("source", SOURCES).is_some_and(|source| source == "graph");
    let cypher = fields.text("cypher", QUERY);
    let query = fields.text("query", QUERY);
    let skip_invalid = fields.flag("skip_invalid", false);
    // Part of the contract; the node divides its memory itself.
    if let Some(limit) = fields.text("memory_limit", ANY)
        && !is_memory_size(&limit)
    {
        let message = "Value should be a number and B, KB, MB, GB or TB";
        fields.wrong("value_error", "memory_limit", message, &Value::from(limit));
    }
    if cypher.is_none() && query.is_none() {
        fields.missing("query");
    }
    fields.finish()?;
    let source = match (query, cypher) {
        (Some(query), None) if graph => Source::Graph(query),
        (Some(query), None) => Source::Staging(query),
        (None, Some(cypher)) => Source::Graph(cypher),
        _ => return Err(ApiError::bad_request("query and cypher exclude each other")),
    };
    Ok((source, skip_invalid))
}

fn is_memory_size(text: &str) -> bool {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = &text[..text.len() - unit.len()];
    let units = ["B", "KB", "MB", "GB", "TB"];
    number.parse::<f64>().is_ok() && units.iter().any(|known| known.eq_ignore_ascii_case(unit.trim_start()))
}

impl Source {
    /// Runs the query, with what callers of queries may do and no more.
    async fn open(self, state: &AppState, id: &DatabaseId) -> Result<RowStream, ApiError> {
        let unlimited = Duration::from_secs(24 * 3600);
        let timeout = state.settings().copy.timeout().unwrap_or(unlimited);
        let rows = match self {
            Self::Staging(sql) => {
                let query = SqlRequest {
                    timeout,
                    chunk_rows: CHUNK_ROWS,
                    encoding: Encoding::Arrow,
                    ..SqlRequest::new(sql)
                };
                state.engines.staging(id).await?.query(query).await
            }
            Self::Graph(cypher) => {
                let query = QueryRequest {
                    access: Access::ReadOnly,
                    timeout,
                    chunk_rows: CHUNK_ROWS,
                    encoding: Encoding::Arrow,
                    ..QueryRequest::new(cypher)
                };
                state.engines.database(id).await?.query(query).await
            }
        };
        Ok(rows?)
    }
}

/// Puts all rows into the index; it is trained anew where that is needed.
pub(super) async fn reindex(
    State(state): State<AppState>,
    Path((id, table)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let job = Job::new(state, &parts.headers, &id, &table).await?;
    let mut fields = Fields::parse_or_empty(&body::read(body, BODY_LIMIT).await?)?;
    let retrain = fields.flag("retrain", false);
    fields.finish()?;
    vectors(&job.state, &job.id)?;
    job.state.admission.check_memory()?;
    let turn = Some(job.state.engines.vector_turn());
    let started = Instant::now();
    job.run(
        "reindex",
        turn,
        headers::prefers_async(&parts.headers),
        move |work| async move {
            let vectors = vectors(&work.state, &work.id)?;
            let done = vectors.reindex(&work.table, retrain, &work.stop).await?;
            let mut answer = table_body(&work.id, &work.table, &done.table);
            answer["retrained"] = json!(done.trained);
            answer["duration_ms"] = json!(elapsed_ms(started));
            Ok(answer)
        },
    )
    .await
}

/// The rows nearest to a vector.
pub(super) async fn search(
    State(state): State<AppState>,
    Path((id, table)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    let (id, table) = (DatabaseId::parse(&id)?, TableName::parse(&table)?);
    let mut fields = Fields::parse(&body::read(request.into_body(), BODY_LIMIT).await?)?;
    if !fields.has("embedding") {
        fields.missing("embedding");
    }
    let embedding = fields.numbers("embedding").unwrap_or_default();
    let limit = fields.whole("limit", 1..=100).unwrap_or(20);
    let nprobes = fields.whole("nprobes", 1..=4096).unwrap_or(PARTITIONS_LOOKED_INTO);
    let refine = fields.whole("refine", 1..=100).unwrap_or(REFINE);
    let wanted = SearchRequest {
        embedding,
        limit: usize::try_from(limit).unwrap_or(20),
        select: fields.texts("select"),
        filter: fields.text("filter", ANY),
        nprobes: usize::try_from(nprobes).unwrap_or(1),
        refine: u32::try_from(refine).unwrap_or(1),
        exact: fields.flag("exact", false),
        timeout: state.settings().query_timeout(),
    };
    fields.finish()?;
    let vectors = vectors(&state, &id)?;
    let _place = state.admission.enter(id.as_str()).await?;
    let found = vectors.search(&table, wanted).await?;
    let tail = format!(
        "],\"total\":{},\"execution_time_ms\":{}}}",
        found.rows,
        elapsed_ms(started)
    );
    Ok(body::json(joined(b"{\"results\":[", found.json.into(), tail.into())))
}

/// What is known of the vectors of a table; null if there are none, as the contract has it.
pub(super) async fn get(
    State(state): State<AppState>,
    Path((id, table)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let (id, table) = (DatabaseId::parse(&id)?, TableName::parse(&table)?);
    let info = vectors(&state, &id)?.info(&table).await?;
    body::value(&info.map(|info| table_body(&id, &table, &info)))
}

/// Removes the vectors of a table.
pub(super) async fn delete(
    State(state): State<AppState>,
    Path((id, table)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    state.write_permit(request.headers()).await?;
    let (id, table) = (DatabaseId::parse(&id)?, TableName::parse(&table)?);
    let vectors = vectors(&state, &id)?;
    check_idle(&state, &id, &table)?;
    let deleted = vectors.remove(&table).await?;
    body::value(&json!({
        "status": "success", "graph_id": id.as_str(), "table_name": table.as_str(), "deleted": deleted,
    }))
}

/// Refuses what would wait for a task on the same table, perhaps for minutes; its caller may cancel the task.
pub(super) fn check_idle(state: &AppState, id: &DatabaseId, table: &TableName) -> Result<(), ApiError> {
    let about = [("graph_id", id.as_str()), ("table_name", table.as_str())];
    match state.tasks.find_unfinished(TaskType::Vector, &about) {
        Some(running) => Err(already(id, table.as_str(), &running)),
        None => Ok(()),
    }
}

/// A table as answers have it.
pub(super) fn table_body(id: &DatabaseId, table: &TableName, info: &IndexInfo) -> Value {
    let columns = info
        .columns
        .iter()
        .map(|(name, kind)| json!({"name": name, "type": kind}));
    json!({
        "graph_id": id.as_str(),
        "table_name": table.as_str(),
        "row_count": info.rows,
        "size_mb": megabytes(info.size_bytes),
        "size_bytes": info.size_bytes,
        "path": info.directory,
        "dimension": info.dimension,
        "num_partitions": info.partitions,
        "num_sub_vectors": info.sub_vectors,
        "indexed_rows": info.indexed_rows,
        "unindexed_rows": info.rows.saturating_sub(info.indexed_rows),
        "trained_rows": info.trained_rows,
        "built_at": info.built_at,
        "columns": columns.collect::<Vec<_>>(),
    })
}

pub(super) fn megabytes(bytes: u64) -> f64 {
    (bytes as f64 / 1_048_576.0 * 100.0).round() / 100.0
}

/// A request that changes the vectors of a table in a task.
pub(super) struct Job {
    pub state: AppState,
    pub id: DatabaseId,
    pub table: TableName,
    permit: WritePermit,
}

/// What such a task works with.
pub(super) struct Work {
    pub state: AppState,
    pub id: DatabaseId,
    pub table: TableName,
    pub context: TaskContext,
    /// Cancelled when a caller wants it, and when the lease ends.
    pub stop: CancellationToken,
}

impl Job {
    pub(super) async fn new(state: AppState, headers: &HeaderMap, id: &str, table: &str) -> Result<Self, ApiError> {
        let permit = state.write_permit(headers).await?;
        Ok(Self {
            id: DatabaseId::parse(id)?,
            table: TableName::parse(table)?,
            state,
            permit,
        })
    }

    /// Starts the task, unless one for the same table is at work, and waits for it if the caller does.
    pub(super) async fn run<W>(
        self,
        action: &'static str,
        turn: Option<Arc<Semaphore>>,
        asynchronous: bool,
        work: impl FnOnce(Work) -> W + Send + 'static,
    ) -> Result<Response, ApiError>
    where
        W: Future<Output = Result<Value, ApiError>> + Send + 'static,
    {
        let Self {
            state,
            id,
            table,
            permit,
        } = self;
        let (finish, finished) = Finish::<Value>::pair();
        let starting = state.starting.lock().await;
        check_idle(&state, &id, &table)?;
        let about = [
            ("graph_id", id.as_str()),
            ("table_name", table.as_str()),
            ("operation", action),
        ];
        let metadata = Map::from_iter(about.map(|(name, value)| (name.to_owned(), json!(value))));
        let name = format!("vector_{action}_{id}_{table}");
        let message = format!("Vectors of table {table}: {action} started");
        let running = {
            let state = state.clone();
            move |context: TaskContext| async move {
                let stop = context.cancelled().child_token();
                let work = work(Work {
                    state,
                    id,
                    table,
                    context,
                    stop: stop.clone(),
                });
                let mut work = std::pin::pin!(work);
                let outcome = tokio::select! {
                    biased;
                    outcome = &mut work => outcome,
                    () = permit.ends.cancelled() => {
                        stop.cancel();
                        // Waited for, so that the task is not recorded as ended while something of it is still written.
                        work.await.map_err(|_| Refusal::Fenced.into())
                    }
                };
                finish.run(outcome, Value::clone)
            }
        };
        let task = state
            .tasks
            .start(TaskType::Vector, &name, metadata, turn, running)
            .await?;
        drop(starting);
        if asynchronous {
            return started_body(&task.id, &message);
        }
        let mut answer = wait_for(&state, &task, finished).await?;
        answer["task_id"] = json!(task.id);
        body::value(&answer)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rows_come_from_one_place() {
        let is_graph = |body: &str| matches!(parse_source(body.as_bytes()).unwrap().0, Source::Graph(_));
        assert!(!is_graph(r#"{"query":"SELECT 1","memory_limit":"8GB"}"#));
        assert!(is_graph(r#"{"query":"MATCH (n) RETURN n","source":"graph"}"#));
        assert!(is_graph(r#"{"cypher":"MATCH (n) RETURN n"}"#));
        let status = |body: &str| parse_source(body.as_bytes()).err().unwrap().status.as_u16();
        assert_eq!(status(r#"{"query":"a","cypher":"b"}"#), 400);
        assert_eq!(status("{}"), 422);
        assert_eq!(status(r#"{"query":"a","source":"disk"}"#), 422);
        assert_eq!(status(r#"{"query":"a","memory_limit":"lots"}"#), 422);
        assert_eq!(status(&format!(r#"{{"query":"{}"}}"#, "x".repeat(10_001))), 422);
    }

    #[test]
    fn memory_sizes_are_numbers_with_units() {
        assert!(
            ["8GB", "2048MB", "1.5 tb", "1B"]
                .iter()
                .all(|text| is_memory_size(text))
        );
        assert!(
            ["", "GB", "8", "8 PB", "-1GB", "1..5GB"]
                .iter()
                .all(|text| !is_memory_size(text))
        );
    }
}
