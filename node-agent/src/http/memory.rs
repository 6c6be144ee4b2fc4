//! `/databases/{id}/memory/…`: more memory for a graph for a while, and giving memory back.

use super::{
    BODY_LIMIT, body,
    databases::missing,
    error::ApiError,
    openapi::Operation,
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
use schemars::JsonSchema;
use serde::Serialize;
use std::{ops::RangeInclusive, time::Duration};

/// Seconds that a boost may last.
const DURATION: RangeInclusive<u64> = 1..=14_400;
const DEFAULT_DURATION: u64 = 3600;

/// The operations of this module.
pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(
            "post /databases/{id}/memory/boost",
            "memory_boost",
            "More memory for a graph, for a while",
        )
        .changes()
        .may_read(AskedBoost::read)
        .asks_engine()
        .gives::<MemoryBoosted>("What it got."),
        Operation::new("post /databases/{id}/memory/restore", "memory_restore", "Ends a boost")
            .changes()
            .may_read(|_| ())
            .asks_engine()
            .gives::<MemoryRestored>("What was boosted."),
        Operation::new(
            "post /databases/{id}/memory/release",
            "memory_release",
            "Gives back the memory that is not needed now",
        )
        .changes()
        .may_read(AskedRelease::read)
        .asks_engine()
        .gives::<MemoryReleased>("What was given back."),
        Operation::new(
            "get /databases/{id}/memory/status",
            "memory_status",
            "What the graph has beyond the usual",
        )
        .gives::<MemoryStatus>("That, and what the node has given out."),
    ]
}

/// Memory that a graph got.
#[derive(Serialize, JsonSchema)]
struct MemoryBoosted {
    graph_id: String,
    target: String,
    duckdb_boosted: bool,
    duckdb_boost_mb: Option<u64>,
    ladybug_boosted: bool,
    ladybug_boost_mb: Option<u64>,
    duration_seconds: u64,
    message: String,
}

/// A boost that was ended.
#[derive(Serialize, JsonSchema)]
struct MemoryRestored {
    graph_id: String,
    duckdb_restored: bool,
    ladybug_restored: bool,
    message: &'static str,
}

/// Memory that was given back.
#[derive(Serialize, JsonSchema)]
struct MemoryReleased {
    graph_id: String,
    target: String,
    duckdb_connections_closed: u8,
    duckdb_released: bool,
    ladybug_released: bool,
    message: &'static str,
}

/// The memory of a graph and of the node.
#[derive(Serialize, JsonSchema)]
struct MemoryStatus {
    graph_id: String,
    duckdb_boosted: bool,
    duckdb_boost_mb: Option<u64>,
    ladybug_boosted: bool,
    ladybug_boost_mb: Option<u64>,
    node_reserved_mb: u64,
    node_budget_mb: u64,
}

struct AskedBoost {
    word: String,
    target: MemoryTarget,
    seconds: u64,
}

impl AskedBoost {
    fn read(fields: &mut Fields) -> Self {
        let (word, target) = target(fields);
        Self {
            word,
            target,
            seconds: fields.whole("duration_seconds", DURATION).unwrap_or(DEFAULT_DURATION),
        }
    }
}

struct AskedRelease {
    word: String,
    target: MemoryTarget,
    aggressive: bool,
}

impl AskedRelease {
    fn read(fields: &mut Fields) -> Self {
        let (word, target) = target(fields);
        Self {
            word,
            target,
            aggressive: fields.flag("aggressive", true),
        }
    }
}

/// Opens the graph or its staging anew with more memory.
pub(super) async fn boost(
    State(state): State<AppState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let (id, mut fields) = parse(&state, &id, request).await?;
    let AskedBoost { word, target, seconds } = AskedBoost::read(&mut fields);
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
    body::value(&MemoryBoosted {
        graph_id: id.to_string(),
        target: word,
        duckdb_boosted: boosted.staging.is_some(),
        duckdb_boost_mb: boosted.staging.map(mib),
        ladybug_boosted: boosted.graph.is_some(),
        ladybug_boost_mb: boosted.graph.map(mib),
        duration_seconds: seconds,
        message,
    })
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
    body::value(&MemoryRestored {
        graph_id: id.to_string(),
        duckdb_restored: was.staging.is_some(),
        ladybug_restored: was.graph.is_some(),
        message,
    })
}

/// Gives back what is not needed now.
pub(super) async fn release(
    State(state): State<AppState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let (id, mut fields) = parse(&state, &id, request).await?;
    let AskedRelease {
        word,
        target,
        aggressive,
    } = AskedRelease::read(&mut fields);
    fields.finish()?;
    let released = state.engines.release_memory(&id, target, aggressive).await?;
    let message = match (released.graph, released.staging) {
        (false, false) => "No memory released: nothing is open, or it is in use",
        _ => "Memory released",
    };
    body::value(&MemoryReleased {
        graph_id: id.to_string(),
        target: word,
        duckdb_connections_closed: u8::from(released.staging),
        duckdb_released: released.staging,
        ladybug_released: released.graph,
        message,
    })
}

/// What the graph has beyond the usual, and what the node has given out.
pub(super) async fn status(State(state): State<AppState>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let id = DatabaseId::parse(&id)?;
    if !state.engines.contains(&id) {
        return Err(missing(&id));
    }
    let boosted = state.engines.memory_boost(&id)?;
    let usage = state.engines.usage();
    body::value(&MemoryStatus {
        graph_id: id.to_string(),
        duckdb_boosted: boosted.staging.is_some(),
        duckdb_boost_mb: boosted.staging.map(mib),
        ladybug_boosted: boosted.graph.is_some(),
        ladybug_boost_mb: boosted.graph.map(mib),
        node_reserved_mb: mib(usage.reserved_bytes),
        node_budget_mb: mib(usage.budget_bytes),
    })
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
