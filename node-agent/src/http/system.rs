//! `/health`, `/status`, `/info`, `/metrics`, and `/admin`. The first four need no key and never wait for an engine.

use super::{body, embeddings, error::ApiError, headers};
use crate::{
    admission::sample,
    disk::disk,
    metrics::{DatabaseLabels, Kind, StateLabel, StatusLabel},
    registration::lease::State,
    state::AppState,
    tasks::{TaskStatus, timestamp},
};
use axum::{
    extract::{Request, State as Extract},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};
use std::time::Duration;

const CONTENT_TYPE_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const CONTENT_TYPE_OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

fn health_body(state: &AppState) -> Value {
    let memory = sample();
    let standing = state.standing.state();
    let settings = state.settings();
    json!({
        "status": "healthy",
        "uptime_seconds": state.facts.started.elapsed().as_secs_f64(),
        "database_count": state.databases().len(),
        "memory_rss_mb": mb(memory.resident),
        "memory_vms_mb": mb(memory.virtual_size),
        "memory_percent": percent(memory.resident, memory.total),
        "node_type": node_type(state),
        "databases": state.counted_databases(),
        "max_databases": settings.databases_per_node,
        "memory_usage_mb": mb(memory.resident),
        "state": standing.name(),
        "accepts_writes": !state.is_replica() && state.standing.permit().is_ok(),
        "draining": matches!(standing, State::Draining { .. }),
    })
}

/// Whether the process is alive and its volume is there; a long query does not delay it.
pub(super) async fn health(Extract(state): Extract<AppState>) -> Result<Response, ApiError> {
    if disk(&state.facts.data_dir).size > 0 {
        return body::value(&health_body(&state));
    }
    let mut response = body::value(&json!({"status": "unhealthy", "error": "Service temporarily unavailable"}))?;
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    Ok(response)
}

/// As `/health`, but 503 once the node should get no new traffic: what a load balancer asks.
pub(super) async fn status(Extract(state): Extract<AppState>) -> Result<Response, ApiError> {
    let mut answer = health_body(&state);
    if answer["draining"] != json!(true) {
        return body::value(&answer);
    }
    answer["status"] = json!("draining");
    let mut response = body::value(&answer)?;
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from_static("30"));
    Ok(response)
}

/// What this node is and which limits hold.
pub(super) async fn info(Extract(state): Extract<AppState>) -> Result<Response, ApiError> {
    let settings = state.settings();
    let databases: Vec<String> = state.databases().iter().map(|info| info.id.to_string()).collect();
    let counted = state.counted_databases();
    let (running, waiting) = state.admission.load();
    let usage = state.engines.usage();
    let max = settings.databases_per_node as usize;
    let standing = state.standing.state();
    body::value(&json!({
        "node_id": state.facts.node,
        "instance_id": state.facts.node,
        "node_type": node_type(&state),
        "cluster_version": env!("CARGO_PKG_VERSION"),
        "base_path": state.facts.data_dir,
        "max_databases": max,
        "databases": databases,
        "available_capacity": max.saturating_sub(counted),
        "active_connections": running,
        "queue_depth": waiting,
        "uptime_seconds": state.facts.started.elapsed().as_secs_f64(),
        "read_only": state.is_replica(),
        "state": standing.name(),
        "epoch": state.standing.volume_epoch(),
        "engines": state.facts.engines,
        "embeddings": embeddings::info(&state),
        "configuration": {
            "base_path": state.facts.data_dir,
            "read_only": state.is_replica(),
            "max_databases": max,
            "memory_limits": {
                "instance_max_mb": settings.memory.node_mib,
                "per_database_max_mb": settings.memory.per_database_mib,
                "admission_threshold_percent": Value::Null,
            },
            "query_limits": {
                "timeout_seconds": settings.engine.query_timeout_seconds,
                "max_query_length": settings.engine.max_query_length,
                "max_connections_per_db": settings.engine.connections_per_database,
                "row_limit": state.facts.row_limit,
                "chunk_rows": settings.engine.chunk_rows,
            },
            "copy_limits": settings.copy,
            "admission_control": {
                "memory_available_mb": mb(state.admission.memory().available()),
                "memory_reserved_mb": mb(usage.reserved_bytes),
                "cpu_threshold": Value::Null,
            },
        },
    }))
}

/// Prometheus text; the JSON of the contract for `Accept: application/json`.
pub(super) async fn metrics(Extract(state): Extract<AppState>, headers: HeaderMap) -> Result<Response, ApiError> {
    if headers::accepts(&headers, "application/json") {
        return body::value(&contract_metrics(&state));
    }
    refresh(&state);
    let content_type = if headers::accepts(&headers, "application/openmetrics-text") {
        CONTENT_TYPE_OPENMETRICS
    } else {
        CONTENT_TYPE_TEXT
    };
    Ok(([(header::CONTENT_TYPE, content_type)], state.metrics.encode()).into_response())
}

/// Takes no new writes; with `?wait_seconds=n` waits until what runs has ended and everything is checkpointed.
pub(super) async fn drain(Extract(state): Extract<AppState>, request: Request) -> Result<Response, ApiError> {
    let wait = match headers::parameter(request.uri().query(), "wait_seconds") {
        None => 0,
        Some(text) => match text.parse::<u64>() {
            Ok(seconds) if seconds <= 3600 => seconds,
            _ => {
                return Err(ApiError::bad_request(
                    "wait_seconds: expected a whole number from 0 to 3600",
                ));
            }
        },
    };
    state.standing.drain();
    tracing::info!(operation = "drain", wait_seconds = wait, "draining");
    let until = tokio::time::Instant::now() + Duration::from_secs(wait);
    loop {
        let queries = state.engines.usage().active_queries;
        let tasks = state
            .tasks
            .list(None, None, None, usize::MAX)
            .iter()
            .filter(|task| !task.status.is_final())
            .count();
        if queries == 0 && tasks == 0 {
            let failed = crate::run::checkpoint_all(&state, Duration::from_secs(60)).await;
            let status = if failed.is_empty() { "drained" } else { "draining" };
            let answer = json!({"status": status, "active_queries": 0, "active_tasks": 0, "not_checkpointed": failed});
            return body::value(&answer);
        }
        if tokio::time::Instant::now() >= until {
            return body::value(&json!({
                "status": "draining", "active_queries": queries, "active_tasks": tasks, "not_checkpointed": [],
            }));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What is under way: requests by database, queries inside of the engine, tasks.
pub(super) async fn connections(Extract(state): Extract<AppState>) -> Result<Response, ApiError> {
    let (running, waiting) = state.admission.load();
    let tasks = state.tasks.stats();
    let count = |status: TaskStatus| tasks.by_status.get(status.as_str()).copied().unwrap_or(0);
    let databases = state.admission.loads();
    body::value(&json!({
        "active_connections": running,
        "waiting_connections": waiting,
        "max_connections_per_database": state.settings().engine.connections_per_database,
        "active_queries": state.engines.usage().active_queries,
        "active_tasks": count(TaskStatus::Running),
        "pending_tasks": count(TaskStatus::Pending),
        "databases": databases
            .into_iter()
            .map(|(id, running, waiting)| json!({"graph_id": id, "active": running, "waiting": waiting}))
            .collect::<Vec<_>>(),
    }))
}

/// Sets the gauges, which are looked up only when somebody asks.
fn refresh(state: &AppState) {
    let metrics = &state.metrics;
    let standing = state.standing.state();
    for name in State::NAMES {
        metrics
            .state
            .get_or_create(&StateLabel { state: name })
            .set(i64::from(name == standing.name()));
    }
    metrics
        .epoch
        .set(i64::try_from(state.standing.volume_epoch()).unwrap_or(i64::MAX));
    let remaining = match standing {
        State::Active { deadline, .. } => deadline.saturating_sub(state.standing.now()).as_secs_f64(),
        _ => 0.0,
    };
    metrics.lease_remaining.set(remaining);
    let tasks = state.tasks.stats();
    for status in TaskStatus::ALL {
        let count = tasks.by_status.get(status.as_str()).copied().unwrap_or(0);
        metrics
            .tasks
            .get_or_create(&StatusLabel {
                status: status.as_str(),
            })
            .set(count as i64);
    }
    let usage = state.engines.usage();
    for (name, count) in [
        ("all", usage.databases),
        ("open", usage.open_databases),
        ("staging_open", usage.open_staging),
    ] {
        metrics
            .databases
            .get_or_create(&StateLabel { state: name })
            .set(count as i64);
    }
    metrics.active_queries.set(usage.active_queries as i64);
    for (kind, bytes) in [("reserved", usage.reserved_bytes), ("budget", usage.budget_bytes)] {
        metrics.buffer_pool.get_or_create(&Kind { kind }).set(gauge(bytes));
    }
    let memory = sample();
    for (kind, bytes) in [("resident", memory.resident), ("available", memory.available)] {
        metrics.memory.get_or_create(&Kind { kind }).set(gauge(bytes));
    }
    let disk = disk(&state.facts.data_dir);
    for (kind, bytes) in [("size", disk.size), ("used", disk.used), ("free", disk.free)] {
        metrics.disk.get_or_create(&Kind { kind }).set(gauge(bytes));
    }
    metrics.uptime.set(state.facts.started.elapsed().as_secs_f64());
    // Databases come and go: what is gone must not be shown for ever.
    metrics.database_size.clear();
    for info in state.databases() {
        for (kind, bytes) in [("graph", info.size_bytes), ("staging", info.staging_bytes)] {
            let labels = DatabaseLabels {
                database: info.id.to_string(),
                kind,
            };
            metrics.database_size.get_or_create(&labels).set(gauge(bytes));
        }
    }
}

fn contract_metrics(state: &AppState) -> Value {
    let memory = sample();
    let disk = disk(&state.facts.data_dir);
    let settings = state.settings();
    let now = timestamp();
    let mut databases = Map::new();
    let mut by_database = Map::new();
    let (mut total, mut queries) = (0, 0);
    for info in state.databases() {
        total += info.size_bytes;
        queries += info.queries;
        by_database.insert(info.id.to_string(), json!(info.queries));
        databases.insert(
            info.id.to_string(),
            json!({"size_bytes": info.size_bytes, "size_gb": gb(info.size_bytes), "query_count": info.queries}),
        );
    }
    let tasks = state.tasks.stats();
    let count = |status: TaskStatus| tasks.by_status.get(status.as_str()).copied().unwrap_or(0);
    let (running, waiting) = state.admission.load();
    json!({
        "timestamp": now,
        "system": {
            "timestamp": now,
            "cpu": {"usage_percent": Value::Null, "count": std::thread::available_parallelism().map_or(1, |n| n.get())},
            "memory": {
                "total_gb": gb(memory.total),
                "used_gb": gb(memory.total.saturating_sub(memory.available)),
                "available_gb": gb(memory.available),
                "usage_percent": percent(memory.total.saturating_sub(memory.available), memory.total),
            },
            "disk": {
                "total_gb": gb(disk.size), "used_gb": gb(disk.used), "free_gb": gb(disk.free),
                "usage_percent": percent(disk.used, disk.size), "mount_point": state.facts.data_dir,
            },
            "volumes": {"data_volume": {
                "volume_size_gb": gb(disk.size), "used_gb": gb(disk.used), "free_gb": gb(disk.free),
                "usage_percent": percent(disk.used, disk.size) / 100.0, "mount_point": state.facts.data_dir,
            }},
        },
        "databases": {"count": databases.len(), "total_size_gb": gb(total), "databases": databases},
        "queries": {"total_queries": queries, "queries_by_database": by_database, "reset_time": Value::Null},
        "ingestion": {
            "queue_depth": count(TaskStatus::Pending),
            "active_tasks": count(TaskStatus::Running),
            "processing_rate": 0,
        },
        "admission_control": {
            "memory_percent": percent(memory.total.saturating_sub(memory.available), memory.total),
            "cpu_percent": Value::Null,
            "memory_threshold": Value::Null,
            "cpu_threshold": Value::Null,
            "connections_per_db": settings.engine.connections_per_database,
            "total_connections": running,
            "queue_depth": waiting,
        },
        "cluster": {
            "node_id": state.facts.node,
            "node_type": node_type(state),
            "uptime_seconds": state.facts.started.elapsed().as_secs_f64(),
        },
    })
}

fn node_type(state: &AppState) -> &'static str {
    if state.is_replica() { "shared_replica" } else { "writer" }
}

fn gauge(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn mb(bytes: u64) -> f64 {
    ((bytes as f64 / 1_048_576.0) * 100.0).round() / 100.0
}

fn gb(bytes: u64) -> f64 {
    ((bytes as f64 / 1_073_741_824.0) * 1e6).round() / 1e6
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        ((part as f64 / whole as f64) * 1e4).round() / 100.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_rounded_and_never_divide_by_zero() {
        assert_eq!(
            (mb(1_572_864), gb(1 << 30), percent(1, 3), percent(1, 0)),
            (1.5, 1.0, 33.33, 0.0)
        );
    }
}
