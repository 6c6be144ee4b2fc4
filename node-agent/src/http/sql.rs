//! `POST /databases/{id}/tables/query`: one `SELECT` over the staging tables of a graph.

use super::{
    BODY_LIMIT, body,
    error::ApiError,
    headers::{self, Format},
    openapi::{self, Operation},
    query::{is_statements_fault, joined},
    rows::{QUERY_EVENTS, SqlAnswer, SqlLine},
    stream::{self, Running, Shape},
    validation::{ANY, Fields, IDENTIFIER},
};
use crate::{
    engines::{DatabaseId, EngineError, SqlRequest},
    metrics::EngineLabel,
    state::AppState,
};
use axum::{
    extract::{Path, Request, State},
    response::Response,
};
use serde_json::{Value, json};
use std::{ops::RangeInclusive, time::Instant};

const CHUNK_ROWS: RangeInclusive<usize> = 10..=10_000;
const JSON_BYTES: u64 = 64 << 20;

/// The operations of this module.
pub(super) fn operations() -> Vec<Operation> {
    let chunk_size = json!({"type": "integer", "minimum": CHUNK_ROWS.start(), "maximum": CHUNK_ROWS.end()});
    let operation = Operation::new(
        "post /databases/{id}/tables/query",
        "sql",
        "Runs one SELECT over the staging tables",
    )
    .reads(statement)
    .with([openapi::query("chunk_size", chunk_size, "Rows per chunk of a stream.")])
    .asks_engine()
    .fails(&[403, 409])
    .gives::<SqlAnswer>("The rows.")
    .streams::<SqlLine>(QUERY_EVENTS);
    vec![operation]
}

fn statement(fields: &mut Fields) -> (String, Vec<Value>) {
    fields.text("graph_id", IDENTIFIER);
    let sql = fields.required_text("sql", ANY);
    (sql, fields.list("parameters").unwrap_or_default())
}

/// Runs SQL and answers with JSON or one of the streams.
pub(super) async fn query(
    State(state): State<AppState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let id = DatabaseId::parse(&id)?;
    let settings = state.settings();
    let mut fields = Fields::parse(&body::read(body, settings.query_body_limit().min(BODY_LIMIT)).await?)?;
    let (sql, parameters) = statement(&mut fields);
    fields.finish()?;
    let chunk_rows = match headers::parameter(parts.uri.query(), "chunk_size") {
        None => settings.engine.chunk_rows,
        Some(text) => match text.parse::<usize>() {
            Ok(rows) if CHUNK_ROWS.contains(&rows) => rows,
            _ => {
                return Err(ApiError::bad_request(
                    "chunk_size: expected a whole number from 10 to 10000",
                ));
            }
        },
    };
    let format = Format::negotiate(&parts.headers, parts.uri.query());
    let json = format == Format::Json;
    let limit = state.facts.row_limit as u64;

    let place = state.admission.enter(id.as_str()).await?;
    if !state.engines.contains(&id) {
        return Err(super::databases::missing(&id));
    }
    let staging = state.engines.staging(&id).await?;
    let query = SqlRequest {
        sql,
        parameters,
        timeout: settings.query_timeout(),
        max_rows: json.then_some(limit),
        max_bytes: json.then_some(JSON_BYTES),
        chunk_rows,
        encoding: format.encoding(),
    };
    let shape = Shape::Sql { graph: id.to_string() };
    let rows = match staging.query(query).await {
        Ok(rows) => rows,
        Err(error) => {
            let in_stream = is_statements_fault(&error)
                .then(|| stream::failure(format, &error, shape, started))
                .flatten();
            return in_stream.ok_or_else(|| explain(error));
        }
    };
    match format {
        Format::NdJson | Format::Sse | Format::Arrow => {
            let running = Running {
                rows,
                _place: place,
                started,
                shape,
                state,
            };
            Ok(stream::respond(format, running))
        }
        Format::Json => {
            let (columns, data, summary) = rows.collect().await.map_err(explain)?;
            drop(place);
            state
                .metrics
                .rows_sent
                .get_or_create(&EngineLabel { engine: "duckdb" })
                .inc_by(summary.rows);
            let mut tail = b"],\"columns\":".to_vec();
            // Writing to a vector cannot fail.
            let _ = serde_json::to_writer(&mut tail, &columns[..]);
            let (rows, elapsed) = (summary.rows, super::databases::elapsed_ms(started));
            tail.extend_from_slice(
                format!(",\"row_count\":{rows},\"execution_time_ms\":{elapsed},\"graph_id\":\"{id}\"").as_bytes(),
            );
            if summary.truncated {
                state.metrics.truncated.inc();
                tail.extend_from_slice(format!(",\"truncated\":true,\"row_limit\":{limit}").as_bytes());
            }
            tail.push(b'}');
            Ok(body::json(joined(b"{\"rows\":[", data, tail)))
        }
    }
}

fn explain(error: EngineError) -> ApiError {
    match error {
        EngineError::Syntax { .. } | EngineError::Runtime { .. } => {
            ApiError::bad_request(format!("Query failed: {error}"))
        }
        other => other.into(),
    }
}
