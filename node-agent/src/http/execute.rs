//! `POST /databases/{id}/tables/execute`: one statement that changes the staging tables of a graph.

use super::{
    BODY_LIMIT, body,
    databases::{elapsed_ms, missing},
    error::ApiError,
    openapi::Operation,
    rebuild::begin_change,
    tables::UNLIMITED,
    validation::{ANY, Fields, IDENTIFIER},
};
use crate::{
    engines::{DatabaseId, EngineError},
    registration::lease::Refusal,
    state::AppState,
    tasks::TaskError,
};
use axum::{
    extract::{Path, Request, State},
    response::Response,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// The operations of this module.
pub(super) fn operations() -> Vec<Operation> {
    let operation = Operation::new(
        "post /databases/{id}/tables/execute",
        "table_execute",
        "One statement that changes the staging tables",
    )
    .changes()
    .reads(Asked::read)
    .asks_engine()
    .gives::<Executed>("It is done.");
    vec![operation]
}

/// A statement that was executed.
#[derive(Serialize, JsonSchema)]
struct Executed {
    /// `success`.
    status: &'static str,
    graph_id: String,
    rows_affected: u64,
    /// `Count`, as the engine answers.
    columns: [&'static str; 1],
    rows: [[u64; 1]; 1],
    row_count: u64,
    execution_time_ms: f64,
}

/// A request as its body has it.
struct Asked {
    sql: String,
    parameters: Vec<Value>,
}

impl Asked {
    fn read(fields: &mut Fields) -> Self {
        fields.text("graph_id", IDENTIFIER);
        Self {
            sql: fields.required_text("sql", ANY),
            parameters: fields.list("parameters").unwrap_or_default(),
        }
    }
}

/// Runs the statement in the graph's turn of loads, and answers with the number of rows that it changed.
pub(super) async fn post(
    State(state): State<AppState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let permit = state.write_permit(&parts.headers).await?;
    let id = DatabaseId::parse(&id)?;
    let settings = state.settings();
    let mut fields = Fields::parse(&body::read(body, settings.query_body_limit().min(BODY_LIMIT)).await?)?;
    let Asked { sql, parameters } = Asked::read(&mut fields);
    fields.finish()?;
    if !state.engines.contains(&id) {
        return Err(missing(&id));
    }
    let _change = begin_change(&state, &id).await?;
    state.admission.check_memory()?;
    let turn = state.load_turn(&id);
    let _turn = turn.acquire().await.map_err(|_| ApiError::from(TaskError::Stopping))?;
    let staging = state.engines.staging(&id).await?;
    // Dropped, and with it the token, when the client goes away: nothing of the statement is done then.
    let cancel = CancellationToken::new();
    let _guard = cancel.clone().drop_guard();
    let timeout = settings.copy.timeout().unwrap_or(UNLIMITED);
    let rows = tokio::select! {
        biased;
        changed = staging.execute(&sql, &parameters, timeout, cancel.clone()) => changed.map_err(explain)?,
        () = permit.ends.cancelled() => return Err(Refusal::Fenced.into()),
    };
    let execution_time_ms = elapsed_ms(started);
    tracing::info!(operation = "table_execute", graph = %id, rows, duration_ms = execution_time_ms, "staging tables changed");
    body::value(&Executed {
        status: "success",
        graph_id: id.to_string(),
        rows_affected: rows,
        columns: ["Count"],
        rows: [[rows]],
        row_count: 1,
        execution_time_ms,
    })
}

fn explain(error: EngineError) -> ApiError {
    match error {
        EngineError::Syntax { .. } | EngineError::Runtime { .. } => {
            ApiError::bad_request(format!("Write failed: {error}"))
        }
        other => other.into(),
    }
}
