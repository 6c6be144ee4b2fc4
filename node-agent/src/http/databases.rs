//! `/databases`: create, list, look at, delete, and the figures of one database.

use super::{
    BODY_LIMIT, body,
    error::ApiError,
    front::Change,
    headers,
    openapi::{Operation, query},
    validation::{ANY, Fields, IDENTIFIER, Text},
};
use crate::{
    engines::{BaseSchema, DatabaseId, DatabaseInfo, DeleteScope, EngineError},
    state::AppState,
};
use axum::{
    extract::{Extension, Path, Request, State},
    http::StatusCode,
    response::Response,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

/// Kinds of schema. `memory` and `empty` are for subgraphs and came later than the contract.
const SCHEMA_TYPES: Text = Text {
    one_of: Some(&["entity", "shared", "custom", "memory", "knowledge", "empty"]),
    ..ANY
};

/// The operations of this module.
pub(super) fn operations() -> Vec<Operation> {
    let flag = |default: bool| json!({"type": "boolean", "default": default});
    vec![
        Operation::new("get /databases", "database_list", "Every database of the node")
            .notes("From the file system: looking does not open them.")
            .gives::<Databases>("The databases."),
        Operation::new("post /databases", "database_create", "Makes a database")
            .notes("The schema applies wholly, or no database is made.")
            .changes()
            .reads(Wanted::read)
            .fails(&[404, 507])
            .gives::<DatabaseCreated>("It is made."),
        Operation::new("get /databases/{id}", "database_get", "One database").gives::<Described>("The database."),
        Operation::new(
            "delete /databases/{id}",
            "database_delete",
            "Deletes a database with its staging",
        )
        .changes()
        .with([
            query("preserve_duckdb", flag(false), "Keep the staging."),
            query("staging_only", flag(false), "Delete only the staging."),
        ])
        .gives::<DatabaseDeleted>("It is gone."),
        Operation::new(
            "get /databases/{id}/metrics",
            "database_metrics",
            "Sizes and counts of a database",
        )
        .with([query("include_counts", flag(true), "Count nodes and relationships.")])
        .asks_engine()
        .gives::<DatabaseMetrics>("The figures."),
        Operation::new(
            "get /databases/{id}/storage",
            "storage",
            "Bytes of a graph and of what belongs to it",
        )
        .gives::<Storage>("The bytes."),
    ]
}

/// A database.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Database")]
struct Described {
    graph_id: String,
    database_path: String,
    /// RFC 3339; null where the file system does not know.
    created_at: Option<String>,
    size_bytes: u64,
    staging_bytes: u64,
    read_only: bool,
    /// False if this agent's engine cannot read the file.
    is_healthy: bool,
    /// What is to be done then.
    problem: Option<String>,
    /// Version of the graph's file, where it says so.
    storage_version: Option<u64>,
    last_accessed: Option<String>,
    /// Whether an engine has it open.
    open: bool,
    /// Whether part of its log could once not be replayed.
    recovered: bool,
}

impl Described {
    fn of(info: &DatabaseInfo, read_only: bool) -> Self {
        Self {
            graph_id: info.id.to_string(),
            database_path: info.path.display().to_string(),
            created_at: rfc3339(info.created_at),
            size_bytes: info.size_bytes,
            staging_bytes: info.staging_bytes,
            read_only,
            is_healthy: info.problem.is_none(),
            problem: info.problem.clone(),
            storage_version: info.storage_version,
            last_accessed: rfc3339(info.last_used),
            open: info.open,
            recovered: info.recovered,
        }
    }
}

fn rfc3339(time: Option<SystemTime>) -> Option<String> {
    let time = jiff::Timestamp::try_from(time?).ok()?;
    Some(format!("{time:.3}"))
}

/// The databases of a node.
#[derive(Serialize, JsonSchema)]
struct Databases {
    databases: Vec<Described>,
    total_databases: usize,
    total_size_bytes: u64,
    node_capacity: NodeCapacity,
}

/// How many databases the node may have; subgraphs are not counted.
#[derive(Serialize, JsonSchema)]
struct NodeCapacity {
    max_databases: usize,
    current_databases: usize,
    capacity_remaining: usize,
    utilization_percent: f64,
}

/// Every database of the node, from the file system: a list does not open them.
pub(super) async fn list(State(state): State<AppState>) -> Result<Response, ApiError> {
    let read_only = state.is_replica();
    let infos = state.databases();
    let total: u64 = infos.iter().map(|info| info.size_bytes).sum();
    let (current, max) = (state.counted_databases(), state.settings().databases_per_node as usize);
    let utilization = if max == 0 {
        100.0
    } else {
        (current as f64 / max as f64 * 1e4).round() / 100.0
    };
    body::value(&Databases {
        databases: infos.iter().map(|info| Described::of(info, read_only)).collect(),
        total_databases: infos.len(),
        total_size_bytes: total,
        node_capacity: NodeCapacity {
            max_databases: max,
            current_databases: current,
            capacity_remaining: max.saturating_sub(current),
            utilization_percent: utilization,
        },
    })
}

/// A database that is wanted.
struct Wanted {
    graph_id: String,
    schema_type: String,
    repository: Option<String>,
    ddl: Option<String>,
    is_subgraph: bool,
}

impl Wanted {
    fn read(fields: &mut Fields) -> Self {
        let graph_id = fields.required_text("graph_id", IDENTIFIER);
        let schema_type = fields.text("schema_type", SCHEMA_TYPES);
        let repository = fields.text("repository_name", ANY);
        let ddl = fields.text("custom_schema_ddl", ANY);
        let is_subgraph = fields.flag("is_subgraph", false);
        // Part of the contract, and decided by the control plane long before the request comes here.
        fields.text("tenant_tier", ANY);
        Self {
            graph_id,
            schema_type: schema_type.unwrap_or_else(|| "entity".to_owned()),
            repository,
            ddl,
            is_subgraph,
        }
    }
}

/// A database that was made.
#[derive(Serialize, JsonSchema)]
struct DatabaseCreated {
    /// `success`.
    status: &'static str,
    graph_id: String,
    database_path: String,
    schema_applied: bool,
    execution_time_ms: f64,
}

/// Makes a database with its schema, or nothing at all.
pub(super) async fn create(
    State(state): State<AppState>,
    Extension(change): Extension<Change>,
    request: Request,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let permit = state.write_permit(&parts.headers).await?;
    let mut fields = Fields::parse(&body::read(body, BODY_LIMIT).await?)?;
    let Wanted {
        graph_id,
        schema_type,
        repository,
        ddl,
        is_subgraph,
    } = Wanted::read(&mut fields);
    fields.finish()?;

    let id = DatabaseId::parse(&graph_id)?;
    change.names(id.as_str());
    if schema_type == "shared" && repository.is_none() {
        return Err(ApiError::bad_request(
            "repository_name is required for schema_type 'shared'",
        ));
    }
    if state.engines.contains(&id) {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            format!("Database {id} already exists"),
        ));
    }
    let place = if is_subgraph || state.shares_place(&id) {
        None
    } else {
        Some(state.take_place(&id)?)
    };
    let base = match schema_type.as_str() {
        "entity" | "shared" if !is_subgraph => Some(BaseSchema::Entity),
        "memory" | "knowledge" => Some(BaseSchema::Memory),
        _ => None,
    };
    let custom = ddl.filter(|ddl| !ddl.trim().is_empty()).map(BaseSchema::Custom);
    let schema = match (base, custom) {
        (Some(base), Some(custom)) => BaseSchema::Many(vec![base, custom]),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => BaseSchema::Empty,
    };
    // The work goes on when the caller goes away, since half of it may be done.
    let engines = state.engines.clone();
    let work = tokio::spawn({
        let id = id.clone();
        async move {
            let created = engines.create(&id, &schema).await;
            drop((place, permit));
            created
        }
    });
    let created = finished(work).await??;
    let execution_time_ms = elapsed_ms(started);
    tracing::info!(operation = "create_database", graph = %id, schema_type, duration_ms = execution_time_ms, "database created");
    body::value(&DatabaseCreated {
        status: "success",
        graph_id,
        database_path: created.path.display().to_string(),
        schema_applied: created.statements > 0,
        execution_time_ms,
    })
}

/// Waits for work that goes on even if the caller goes away.
pub(super) async fn finished<T>(work: tokio::task::JoinHandle<T>) -> Result<T, ApiError> {
    work.await.map_err(|error| {
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the work ended without an answer: {error}"),
        )
    })
}

/// One database, from the file system.
pub(super) async fn get(State(state): State<AppState>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let id = DatabaseId::parse(&id)?;
    body::value(&Described::of(&info(&state, &id)?, state.is_replica()))
}

/// A database that was deleted.
#[derive(Serialize, JsonSchema)]
struct DatabaseDeleted {
    /// `success`.
    status: &'static str,
    message: String,
    existed: bool,
    /// Files.
    removed: Vec<String>,
    failed: Vec<String>,
}

/// Deletes a database with its staging; `?preserve_duckdb=true` keeps the staging, `?staging_only=true` deletes only that.
pub(super) async fn delete(
    State(state): State<AppState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let permit = state.write_permit(request.headers()).await?;
    let id = DatabaseId::parse(&id)?;
    let query = request.uri().query();
    let scope = match (
        headers::flag(query, "staging_only"),
        headers::flag(query, "preserve_duckdb"),
    ) {
        (true, true) => {
            return Err(ApiError::bad_request(
                "staging_only and preserve_duckdb exclude each other",
            ));
        }
        (true, false) => DeleteScope::StagingOnly,
        (false, true) => DeleteScope::KeepStaging,
        (false, false) => DeleteScope::Everything,
    };
    let engines = state.engines.clone();
    let target = id.clone();
    let work = tokio::spawn(async move {
        let deleted = engines.delete(&target, scope).await;
        drop(permit);
        deleted
    });
    let deleted = finished(work).await?.map_err(|error| not_found(&id, error))?;
    // The contract's older request answers 404; those with a parameter came later, and may be repeated.
    if !deleted.existed && scope == DeleteScope::Everything {
        return Err(missing(&id));
    }
    state.forget(&id);
    tracing::info!(operation = "delete_database", graph = %id, files = deleted.removed.len(), "database deleted");
    if !deleted.failed.is_empty() {
        return Err(ApiError::with_detail(
            StatusCode::INTERNAL_SERVER_ERROR,
            json!({
                "error": format!("Database {id} was deleted, but some of its files could not be removed"),
                "removed": deleted.removed, "failed": deleted.failed,
            }),
        ));
    }
    body::value(&DatabaseDeleted {
        status: "success",
        message: format!(
            "Database {id} {}",
            if deleted.existed {
                "deleted successfully"
            } else {
                "did not exist"
            }
        ),
        existed: deleted.existed,
        removed: deleted.removed,
        failed: deleted.failed,
    })
}

/// Sizes and counts.
#[derive(Serialize, JsonSchema)]
struct DatabaseMetrics {
    graph_id: String,
    database_name: String,
    size_bytes: u64,
    size_mb: f64,
    staging_bytes: u64,
    /// Null without counts.
    node_count: Option<u64>,
    relationship_count: Option<u64>,
    /// Rows by table; null without counts.
    tables: Option<BTreeMap<String, u64>>,
    last_modified: Option<String>,
    query_count: u64,
    active_queries: usize,
    backend_type: &'static str,
    instance_id: String,
    node_type: &'static str,
}

/// Sizes and counts of one database; `?include_counts=false` spares the counting.
pub(super) async fn metrics(
    State(state): State<AppState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let id = DatabaseId::parse(&id)?;
    let info = info(&state, &id)?;
    let wanted = headers::parameter(request.uri().query(), "include_counts").is_none_or(|value| value != "false");
    let counts = if wanted {
        let _place = state.admission.enter(id.as_str()).await?;
        let database = state.engines.database(&id).await?;
        Some(database.counts().await?)
    } else {
        None
    };
    body::value(&DatabaseMetrics {
        graph_id: id.to_string(),
        database_name: id.to_string(),
        size_bytes: info.size_bytes,
        size_mb: (info.size_bytes as f64 / 1_048_576.0 * 100.0).round() / 100.0,
        staging_bytes: info.staging_bytes,
        node_count: counts.as_ref().map(|counts| counts.nodes),
        relationship_count: counts.as_ref().map(|counts| counts.relationships),
        tables: counts.map(|counts| counts.tables.into_iter().collect()),
        last_modified: rfc3339(info.modified_at),
        query_count: info.queries,
        active_queries: info.active_queries,
        backend_type: "ladybug",
        instance_id: state.facts.node.clone(),
        node_type: if state.is_replica() { "shared_replica" } else { "writer" },
    })
}

/// Bytes of a graph.
#[derive(Serialize, JsonSchema)]
struct Storage {
    graph_id: String,
    total_bytes: u64,
    items: Vec<StorageItem>,
}

/// Bytes of a part of a graph.
#[derive(Serialize, JsonSchema)]
struct StorageItem {
    /// `graph`, `subgraph`, `staging`, `vectors` (with the semantic memory) or `transient`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The database.
    id: String,
    bytes: u64,
}

/// Bytes of a graph and of what belongs to it: its staging, its vectors, its subgraphs, and databases on their way in or
/// out.
pub(super) async fn storage(State(state): State<AppState>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let id = DatabaseId::parse(&id)?;
    info(&state, &id)?;
    let mut items = Vec::new();
    let mut total = 0;
    for info in state.databases() {
        let Some(kind) = part_of(id.as_str(), info.id.as_str()) else {
            continue;
        };
        let vectors = state.engines.vector_bytes(&info.id);
        for (kind, bytes) in [
            (kind, info.size_bytes),
            ("staging", info.staging_bytes),
            ("vectors", vectors),
        ] {
            if !matches!(kind, "staging" | "vectors") || bytes > 0 {
                total += bytes;
                items.push(StorageItem {
                    kind,
                    id: info.id.to_string(),
                    bytes,
                });
            }
        }
    }
    body::value(&Storage {
        graph_id: id.to_string(),
        total_bytes: total,
        items,
    })
}

/// What the database `other` is to the graph `id`; `None` if it is another's.
fn part_of(id: &str, other: &str) -> Option<&'static str> {
    let lasting = other.strip_suffix("-wip").or_else(|| other.strip_suffix("-prev"));
    let owner = lasting.unwrap_or(other);
    let subgraph = owner.strip_prefix(id).is_some_and(|rest| rest.starts_with('_'));
    match (owner == id, subgraph) {
        (false, false) => None,
        _ if lasting.is_some() => Some("transient"),
        (true, _) => Some("graph"),
        (false, true) => Some("subgraph"),
    }
}

/// What is known of a database; one that is still being made is not there yet.
fn info(state: &AppState, id: &DatabaseId) -> Result<DatabaseInfo, ApiError> {
    let info = state.engines.info(id).map_err(|error| not_found(id, error))?;
    if info.path.is_file() {
        Ok(info)
    } else {
        Err(missing(id))
    }
}

pub(super) fn missing(id: &DatabaseId) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("Database {id} not found"))
}

fn not_found(id: &DatabaseId, error: EngineError) -> ApiError {
    match error {
        EngineError::NotFound { .. } => missing(id),
        other => other.into(),
    }
}

/// Milliseconds since `started`, with two decimals.
pub(super) fn elapsed_ms(started: Instant) -> f64 {
    (Duration::as_secs_f64(&started.elapsed()) * 1e5).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_owns_what_bears_its_name() {
        for (other, kind) in [
            ("kg1", Some("graph")),
            ("kg1_dev", Some("subgraph")),
            ("kg1-wip", Some("transient")),
            ("kg1_dev-prev", Some("transient")),
            ("kg12", None),
            ("kg2", None),
            ("kg", None),
        ] {
            assert_eq!(part_of("kg1", other), kind, "{other}");
        }
    }
}
