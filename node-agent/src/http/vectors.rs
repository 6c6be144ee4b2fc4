//! `/databases/{id}/tables/{table}/vector`: tables of vectors, built from queries and searched by nearness.
//!
//! What takes longer than a search is a task, and the contract's answer waits for it unless the caller prefers not to.

use super::{
    BODY_LIMIT, body,
    databases::{elapsed_ms, missing},
    error::ApiError,
    headers,
    openapi::Operation,
    query::joined,
    tables::UNLIMITED,
    validation::{ANY, Fields, Text},
    vector_tasks::{Job, Work, check_idle},
};
use crate::{
    engines::{
        Access, BuildReport, DatabaseId, Encoding, EngineError, IndexInfo, QueryRequest, RejectedVectors, RowStream,
        SearchRequest, SqlRequest, TableName, Vectors,
    },
    state::AppState,
};
use axum::{
    extract::{Path, Request, State},
    response::Response,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

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
const PARTITIONS_LOOKED_INTO: u64 = 20;
const REFINE: u64 = 10;

/// The operations of this module.
pub(super) fn operations() -> Vec<Operation> {
    let fill = |line, id, summary| {
        Operation::new(line, id, summary)
            .notes("The rows are those of `query` over the staging tables, or of `cypher` over the graph; `vector` is a list of numbers.")
            .changes()
            .reads(AskedRows::read)
            .asks_engine()
            .gives::<Filled>("What was written.")
            .gives_task_if_preferred()
    };
    vec![
        fill(
            "post /databases/{id}/tables/{table}/vector/build",
            "vector_build",
            "Makes the vectors of a table from the rows of a query",
        ),
        fill(
            "post /databases/{id}/tables/{table}/vector/append",
            "vector_append",
            "Adds the rows of a query to the vectors of a table",
        ),
        Operation::new(
            "post /databases/{id}/tables/{table}/vector/reindex",
            "vector_reindex",
            "Puts all rows into the index, and trains it anew where that is needed",
        )
        .changes()
        .may_read(|fields| fields.flag("retrain", false))
        .asks_engine()
        .gives::<VectorTable>("The vectors as they are then.")
        .gives_task_if_preferred(),
        Operation::new(
            "post /databases/{id}/tables/{table}/vector/search",
            "vector_search",
            "The rows nearest to a vector",
        )
        .reads(AskedSearch::read)
        .asks_engine()
        .gives::<Nearest>("The rows, the nearest first, each with its `distance`."),
        Operation::new(
            "get /databases/{id}/tables/{table}/vector",
            "vector_get",
            "What is known of the vectors of a table",
        )
        .gives::<Option<VectorTable>>("That; null if there are none."),
        Operation::new(
            "delete /databases/{id}/tables/{table}/vector",
            "vector_delete",
            "Removes the vectors of a table",
        )
        .changes()
        .gives::<VectorsDeleted>("They are gone."),
    ]
}

/// Rows that were written.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "VectorsWritten")]
struct Filled {
    graph_id: String,
    table_name: String,
    /// Rows of the table.
    row_count: u64,
    /// Partitions of the index; 0 if there is none.
    num_partitions: u64,
    index_size_mb: f64,
    duration_ms: f64,
    dimension: usize,
    num_sub_vectors: u64,
    /// Rows that the index has.
    indexed_rows: u64,
    rows_added: u64,
    rows_rejected: u64,
    rejected: RejectedCounts,
    /// The task that did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<String>,
}

/// Rows without a usable vector.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RejectedVectors")]
struct RejectedCounts {
    null: u64,
    not_finite: u64,
    other_length: u64,
    /// Only zeros.
    zero: u64,
}

/// The vectors of a table.
#[derive(Serialize, JsonSchema)]
pub(super) struct VectorTable {
    graph_id: String,
    table_name: String,
    row_count: u64,
    size_mb: f64,
    size_bytes: u64,
    path: String,
    dimension: usize,
    /// Partitions of the index; 0 if there is none.
    num_partitions: u64,
    num_sub_vectors: u64,
    /// Rows that the index has.
    indexed_rows: u64,
    unindexed_rows: u64,
    /// Rows that the index was trained on.
    trained_rows: u64,
    built_at: String,
    columns: Vec<VectorColumn>,
    /// Of a reindexing: whether the index was trained anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    retrained: Option<bool>,
    /// Of work: how long it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<f64>,
    /// Of work: the task that did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<String>,
}

impl VectorTable {
    /// The same with the time that it took to make it so.
    pub(super) fn took(mut self, started: Instant) -> Self {
        self.duration_ms = Some(elapsed_ms(started));
        self
    }
}

/// A column beside the vectors, or the vectors.
#[derive(Serialize, JsonSchema)]
struct VectorColumn {
    name: String,
    #[serde(rename = "type")]
    data_type: String,
}

/// Rows near a vector.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "NearestRows")]
#[allow(dead_code)] // rows are written as bytes
pub(super) struct Nearest {
    results: Vec<Map<String, Value>>,
    total: usize,
    execution_time_ms: f64,
}

/// Vectors that were removed.
#[derive(Serialize, JsonSchema)]
struct VectorsDeleted {
    /// `success`.
    status: &'static str,
    graph_id: String,
    table_name: String,
    /// False if there were none.
    deleted: bool,
}

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

fn filled_body(work: &Work, report: &BuildReport, started: Instant) -> Filled {
    let table = &report.table;
    let RejectedVectors {
        null,
        not_finite,
        other_length,
        zero,
    } = report.rejected;
    Filled {
        graph_id: work.id.to_string(),
        table_name: work.table.to_string(),
        row_count: table.rows,
        num_partitions: table.partitions,
        index_size_mb: megabytes(table.size_bytes),
        duration_ms: elapsed_ms(started),
        dimension: table.dimension,
        num_sub_vectors: table.sub_vectors,
        indexed_rows: table.indexed_rows,
        rows_added: report.added,
        rows_rejected: report.rejected.rows(),
        rejected: RejectedCounts {
            null,
            not_finite,
            other_length,
            zero,
        },
        task_id: None,
    }
}

/// Where rows come from.
enum Source {
    Staging(String),
    Graph(String),
}

struct AskedRows {
    graph: bool,
    query: Option<String>,
    cypher: Option<String>,
    skip_invalid: bool,
}

impl AskedRows {
    fn read(fields: &mut Fields) -> Self {
        let asked = Self {
            graph: fields.text("source", SOURCES).is_some_and(|source| source == "graph"),
            query: fields.text("query", QUERY),
            cypher: fields.text("cypher", QUERY),
            skip_invalid: fields.flag("skip_invalid", false),
        };
        // Part of the contract; the node divides its memory itself.
        if let Some(limit) = fields.text("memory_limit", ANY)
            && !is_memory_size(&limit)
        {
            let message = "Value should be a number and B, KB, MB, GB or TB";
            fields.wrong("value_error", "memory_limit", message, &Value::from(limit));
        }
        asked
    }
}

fn parse_source(body: &[u8]) -> Result<(Source, bool), ApiError> {
    let mut fields = Fields::parse(body)?;
    let asked = AskedRows::read(&mut fields);
    if asked.cypher.is_none() && asked.query.is_none() {
        fields.missing("query");
    }
    fields.finish()?;
    let source = match (asked.query, asked.cypher) {
        (Some(query), None) if asked.graph => Source::Graph(query),
        (Some(query), None) => Source::Staging(query),
        (None, Some(cypher)) => Source::Graph(cypher),
        _ => return Err(ApiError::bad_request("query and cypher exclude each other")),
    };
    Ok((source, asked.skip_invalid))
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
        let timeout = state.settings().copy.timeout().unwrap_or(UNLIMITED);
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
            Ok(VectorTable {
                retrained: Some(done.trained),
                ..table_body(&work.id, &work.table, &done.table).took(started)
            })
        },
    )
    .await
}

struct AskedSearch(SearchRequest);

impl AskedSearch {
    fn read(fields: &mut Fields) -> Self {
        if !fields.has("embedding") {
            fields.missing("embedding");
        }
        let small = |number: Option<u64>, default: u64| number.unwrap_or(default).min(4096) as usize;
        Self(SearchRequest {
            embedding: fields.numbers("embedding").unwrap_or_default(),
            limit: small(fields.whole("limit", 1..=100), 20),
            select: fields.texts("select"),
            filter: fields.text("filter", ANY),
            nprobes: small(fields.whole("nprobes", 1..=4096), PARTITIONS_LOOKED_INTO),
            refine: small(fields.whole("refine", 1..=100), REFINE) as u32,
            exact: fields.flag("exact", false),
            timeout: UNLIMITED,
        })
    }

    fn request(self, timeout: Duration) -> SearchRequest {
        SearchRequest { timeout, ..self.0 }
    }
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
    let asked = AskedSearch::read(&mut fields);
    fields.finish()?;
    let vectors = vectors(&state, &id)?;
    let _place = state.admission.enter(id.as_str()).await?;
    let found = vectors
        .search(&table, asked.request(state.settings().query_timeout()))
        .await?;
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
    let _permit = state.write_permit(request.headers()).await?;
    let (id, table) = (DatabaseId::parse(&id)?, TableName::parse(&table)?);
    let vectors = vectors(&state, &id)?;
    check_idle(&state, &id, &table)?;
    let deleted = vectors.remove(&table).await?;
    body::value(&VectorsDeleted {
        status: "success",
        graph_id: id.to_string(),
        table_name: table.to_string(),
        deleted,
    })
}

/// A table as answers have it.
pub(super) fn table_body(id: &DatabaseId, table: &TableName, info: &IndexInfo) -> VectorTable {
    let columns = info.columns.iter().map(|(name, data_type)| VectorColumn {
        name: name.clone(),
        data_type: data_type.clone(),
    });
    VectorTable {
        graph_id: id.to_string(),
        table_name: table.to_string(),
        row_count: info.rows,
        size_mb: megabytes(info.size_bytes),
        size_bytes: info.size_bytes,
        path: info.directory.display().to_string(),
        dimension: info.dimension,
        num_partitions: info.partitions,
        num_sub_vectors: info.sub_vectors,
        indexed_rows: info.indexed_rows,
        unindexed_rows: info.rows.saturating_sub(info.indexed_rows),
        trained_rows: info.trained_rows,
        built_at: info.built_at.clone(),
        columns: columns.collect(),
        retrained: None,
        duration_ms: None,
        task_id: None,
    }
}

pub(super) fn megabytes(bytes: u64) -> f64 {
    (bytes as f64 / 1_048_576.0 * 100.0).round() / 100.0
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
