//! `POST /databases/{id}/swap`: the database `<id>-wip`, made and filled by the caller, takes the place of `<id>`.

use super::{
    BODY_LIMIT, body,
    databases::{elapsed_ms, missing},
    error::ApiError,
    rebuild::check_idle,
    validation::Fields,
};
use crate::{engines::DatabaseId, state::AppState};
use axum::{
    extract::{Path, Request, State},
    response::Response,
};
use serde_json::json;
use std::time::Instant;

/// Exchanges the two at once. The contract's `X-Materialization-Lock-Token` needs no check: whether somebody loads one of
/// the two, this node knows itself.
pub(super) async fn post(
    State(state): State<AppState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    state.write_permit(&parts.headers).await?;
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
    body::value(&json!({
        "status": "success",
        "graph_id": id.as_str(),
        "message": format!("{successor} took the place of {id}"),
        "execution_time_ms": execution_time_ms,
    }))
}
