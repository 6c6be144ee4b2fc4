//! `/databases/{id}/memory/…`: more memory for a graph for a while, and giving memory back.

use super::{
    BODY_LIMIT, body,
    databases::missing,
    error::ApiError,
    rebuild::check_idle,
    validation::{ANY, Fields, Text},
};
use crate::{
    engines::{Boosted, DatabaseId, MemoryTarget},
    state::AppState,
};
use axum::{
    extract::{Path, Request, State},
    response::Response,
};
use serde_json::json;
use std::{ops::RangeInclusive, time::Duration};

/// Seconds that a boost may last.
const DURATION: RangeInclusive<u64> = 1..=14_400;
const DEFAULT_DURATION: u64 = 3600;

/// Opens the graph or its staging anew with more memory.
pub(super) async fn boost(
    State(state): State<AppState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let (id, mut fields) = parse(&state, &id, request).await?;
    let (word, target) = target(&mut fields);
    let seconds = fields.whole("duration_seconds", DURATION).unwrap_or(DEFAULT_DURATION);
    fields.finish()?;
    // What is loaded now is not interrupted for the sake of what comes.
    check_idle(&state, &id)?;
    let boosted = state
        .engines
        .boost_memory(&id, target, Duration::from_secs(seconds))
        .await?;
    let message = if boosted == Boosted::default() {
        "No boost applied: the node has no memory to spare".to_owned()
    } else {
        format!("Memory boosted for {seconds} s")
    };
    body::value(&json!({
        "graph_id": id.as_str(),
        "target": word,
        "duckdb_boosted": boosted.staging.is_some(),
        "duckdb_boost_mb": boosted.staging.map(mib),
        "ladybug_boosted": boosted.graph.is_some(),
        "ladybug_boost_mb": boosted.graph.map(mib),
        "duration_seconds": seconds,
        "message": message,
    }))
}

/// Ends a boost.
pub(super) async fn restore(
    State(state): State<AppState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let (id, fields) = parse(&state, &id, request).await?;
    fields.finish()?;
    check_idle(&state, &id)?;
    let was = state.engines.restore_memory(&id).await?;
    let message = if was == Boosted::default() {
        "No memory boost was active (nothing to restore)"
    } else {
        "Memory is as usual again"
    };
    body::value(&json!({
        "graph_id": id.as_str(),
        "duckdb_restored": was.staging.is_some(),
        "ladybug_restored": was.graph.is_some(),
        "message": message,
    }))
}

/// Gives back what is not needed now.
pub(super) async fn release(
    State(state): State<AppState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let (id, mut fields) = parse(&state, &id, request).await?;
    let (word, target) = target(&mut fields);
    let aggressive = fields.flag("aggressive", true);
    fields.finish()?;
    let released = state.engines.release_memory(&id, target, aggressive).await?;
    let message = match (released.graph, released.staging) {
        (false, false) => "No memory released: nothing is open, or it is in use",
        _ => "Memory released",
    };
    body::value(&json!({
        "graph_id": id.as_str(),
        "target": word,
        "duckdb_connections_closed": u8::from(released.staging),
        "duckdb_released": released.staging,
        "ladybug_released": released.graph,
        "message": message,
    }))
}

/// What the graph has beyond the usual, and what the node has given out.
pub(super) async fn status(State(state): State<AppState>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let id = DatabaseId::parse(&id)?;
    if !state.engines.contains(&id) {
        return Err(missing(&id));
    }
    let boosted = state.engines.memory_boost(&id)?;
    let usage = state.engines.usage();
    body::value(&json!({
        "graph_id": id.as_str(),
        "duckdb_boosted": boosted.staging.is_some(),
        "duckdb_boost_mb": boosted.staging.map(mib),
        "ladybug_boosted": boosted.graph.is_some(),
        "ladybug_boost_mb": boosted.graph.map(mib),
        "node_reserved_mb": mib(usage.reserved_bytes),
        "node_budget_mb": mib(usage.budget_bytes),
    }))
}

async fn parse(state: &AppState, id: &str, request: Request) -> Result<(DatabaseId, Fields), ApiError> {
    let (parts, body) = request.into_parts();
    // Closing a database writes its log into its file.
    state.write_permit(&parts.headers).await?;
    let id = DatabaseId::parse(id)?;
    let fields = Fields::parse_or_empty(&body::read(body, BODY_LIMIT).await?)?;
    if !state.engines.contains(&id) {
        return Err(missing(&id));
    }
    Ok((id, fields))
}

fn target(fields: &mut Fields) -> (String, MemoryTarget) {
    let words = Text {
        one_of: Some(&["duckdb", "ladybug", "both"]),
        ..ANY
    };
    let word = fields.text("target", words).unwrap_or_else(|| "both".to_owned());
    let target = MemoryTarget {
        graph: word != "duckdb",
        staging: word != "ladybug",
    };
    (word, target)
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}
