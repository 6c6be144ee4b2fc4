//! `POST /databases/{id}/swap`: the database `<id>-wip`, made and filled by the caller, takes the place of `<id>`.

use super::{
    BODY_LIMIT, body,
    databases::{elapsed_ms, missing},
    error::ApiError,
    openapi::{Operation, header},
    rebuild::check_idle,
    validation::Fields,
};
use crate::{engines::DatabaseId, state::AppState};
use axum::{
    extract::{Path, Request, State},
    response::Response,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use std::time::Instant;

/// The operations of this module.
pub(super) fn operations() -> Vec<Operation> {
    let operation = Operation::new(
        "post /databases/{id}/swap",
        "swap",
        "The database `{id}-wip` takes the place of the database",
    )
    .changes()
    .with([header(
        "X-Materialization-Lock-Token",
        json!({"type": "string"}),
        "Accepted for clients of the contract; this node knows itself who loads what.",
    )])
    .may_read(|_| ())
    .asks_engine()
    .gives::<Swapped>("It has.");
    vec![operation]
}

/// A database that took the place of another.
#[derive(Serialize, JsonSchema)]
struct Swapped {
    /// `success`.
    status: &'static str,
    graph_id: String,
    message: String,
    execution_time_ms: f64,
}

/// Exchanges the two at once. The contract's `X-Materialization-Lock-Token` needs no check: whether somebody loads one of
/// the two, this node knows itself.
pub(super) async fn post(
    State(state): State<AppState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let _permit = state.write_permit(&parts.headers).await?;
    let id = DatabaseId::parse(&id)?;
    let successor = id.successor()?;
    Fields::parse_or_empty(&body::read(body, BODY_LIMIT).await?)?.finish()?;
    if !state.engines.contains(&successor) {
        return Err(missing(&successor));
    }
    check_idle(&state, &id)?;
    check_idle(&state, &successor)?;
    state.engines.promote(&id).await?;
    state.forget(&successor);
    let execution_time_ms = elapsed_ms(started);
    tracing::info!(operation = "swap", graph = %id, duration_ms = execution_time_ms, "database replaced by its successor");
    body::value(&Swapped {
        status: "success",
        graph_id: id.to_string(),
        message: format!("{successor} took the place of {id}"),
        execution_time_ms,
    })
}
