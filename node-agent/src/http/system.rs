//! `/health`, `/status`, `/info`, `/metrics`, and `/admin`. The first four need no key and never wait for an engine.

use super::{
    body,
    embeddings::{self, EmbeddingModel},
    error::ApiError,
    figures::{Figures, figures, mb, percent},
    headers,
    openapi::{Operation, Parameter, Written, query, schema_of},
    seeds::{self, FollowedSeed},
};
use crate::{
    admission::sample,
    config::CopySettings,
    disk::disk,
    metrics::{DatabaseLabels, EngineLabel, Kind, StateLabel, StatusLabel},
    registration::{client::EngineVersions, lease::State},
    state::AppState,
    tasks::TaskStatus,
};
use axum::{
    extract::{Request, State as Extract},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use std::time::Duration;

const CONTENT_TYPE_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const CONTENT_TYPE_OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The operations of this module.
pub(super) fn operations() -> Vec<Operation> {
    let json = |schema| [("application/json", Written::Json(schema))];
    vec![
        Operation::new("get /health", "health", "Whether the process lives")
            .notes("Never waits for an engine.")
            .open()
            .gives::<Health>("It does.")
            .answers(
                503,
                "The volume is gone, or a replica has nothing to serve yet.",
                &json(schema_of::<Unhealthy>),
            ),
        Operation::new("get /status", "status", "Whether the node should get traffic")
            .open()
            .gives::<Health>("It should.")
            .answers(503, "It drains or warms.", &json(schema_of::<Health>)),
        Operation::new("get /info", "info", "What the node is, its limits and databases")
            .open()
            .gives::<Info>("The node."),
        Operation::new("get /metrics", "metrics", "Metrics").open().answers(
            200,
            "Text for Prometheus, or the contract's JSON, by `Accept`.",
            &[
                ("text/plain", Written::Bytes),
                ("application/openmetrics-text", Written::Bytes),
                ("application/json", Written::Json(schema_of::<Figures>)),
            ],
        ),
        Operation::new("post /admin/drain", "drain", "Takes no new writes")
            .notes("Waits, if asked to, for what runs, and then checkpoints every database.")
            .with([wait_seconds()])
            .fails(&[400])
            .gives::<Drained>("How far it is."),
        Operation::new("get /admin/connections", "connections", "What is under way").gives::<Connections>("Counts."),
    ]
}

/// The parameter of requests that may wait for what they ask for.
pub(super) fn wait_seconds() -> Parameter {
    query(
        "wait_seconds",
        json!({"type": "integer", "minimum": 0, "maximum": 3600, "default": 0}),
        "How long to wait.",
    )
}

/// How the process is.
#[derive(Serialize, JsonSchema)]
struct Health {
    /// `healthy`, or for who asks `/status` `draining` or `warming`.
    status: &'static str,
    uptime_seconds: f64,
    database_count: usize,
    memory_rss_mb: f64,
    memory_vms_mb: f64,
    memory_percent: f64,
    /// `writer` or `shared_replica`.
    node_type: &'static str,
    /// Databases without subgraphs.
    databases: usize,
    max_databases: u32,
    memory_usage_mb: f64,
    /// `standalone`, `registering`, `active`, `fenced` or `draining`.
    state: &'static str,
    accepts_writes: bool,
    draining: bool,
    /// Databases whose files this agent's engine cannot read; the others go on.
    incompatible_databases: Vec<String>,
}

/// A process without its volume, or a replica without a seed.
#[derive(Serialize, JsonSchema)]
struct Unhealthy {
    /// `unhealthy` or `warming`.
    status: &'static str,
    error: &'static str,
}

fn health_body(state: &AppState) -> Health {
    let memory = sample();
    let standing = state.standing.state();
    let databases = state.databases();
    let incompatible = databases.iter().filter(|info| info.problem.is_some());
    Health {
        status: "healthy",
        uptime_seconds: state.facts.started.elapsed().as_secs_f64(),
        incompatible_databases: incompatible.map(|info| info.id.to_string()).collect(),
        database_count: databases.len(),
        memory_rss_mb: mb(memory.resident),
        memory_vms_mb: mb(memory.virtual_size),
        memory_percent: percent(memory.resident, memory.total),
        node_type: node_type(state),
        databases: state.counted_databases(),
        max_databases: state.settings().databases_per_node,
        memory_usage_mb: mb(memory.resident),
        state: standing.name(),
        accepts_writes: !state.is_replica() && state.standing.permit().is_ok(),
        draining: matches!(standing, State::Draining { .. }),
    }
}

/// 503 with a body of its own.
fn unavailable(body: &impl Serialize, seconds: u32) -> Result<Response, ApiError> {
    let mut response = body::value(body)?;
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    Ok(response)
}

/// Whether the process is alive, its volume is there, and it has something to serve; a long query does not delay it.
pub(super) async fn health(Extract(state): Extract<AppState>) -> Result<Response, ApiError> {
    let (status, error) = if disk(&state.facts.data_dir).size == 0 {
        ("unhealthy", "Service temporarily unavailable")
    } else if state.seeds.is_warming() {
        ("warming", "The seeds of this replica are on their way")
    } else {
        return body::value(&health_body(&state));
    };
    unavailable(&Unhealthy { status, error }, 5)
}

/// 503 while the node should get no traffic: what a load balancer asks.
pub(super) async fn status(Extract(state): Extract<AppState>) -> Result<Response, ApiError> {
    let mut answer = health_body(&state);
    if answer.draining {
        answer.status = "draining";
        return unavailable(&answer, 30);
    }
    if state.seeds.is_warming() {
        answer.status = "warming";
        return unavailable(&answer, 5);
    }
    body::value(&answer)
}

/// What a node is.
#[derive(Serialize, JsonSchema)]
struct Info {
    node_id: String,
    instance_id: String,
    node_type: &'static str,
    cluster_version: &'static str,
    base_path: String,
    max_databases: usize,
    /// Ids.
    databases: Vec<String>,
    /// What is to be done about databases whose files this agent's engine cannot read.
    problems: Vec<String>,
    available_capacity: usize,
    active_connections: usize,
    queue_depth: usize,
    uptime_seconds: f64,
    read_only: bool,
    state: &'static str,
    epoch: u64,
    engines: EngineVersions,
    /// The seeds that a replica follows.
    seeds: Vec<FollowedSeed>,
    embeddings: EmbeddingModel,
    configuration: Configuration,
}

#[derive(Serialize, JsonSchema)]
struct Configuration {
    base_path: String,
    read_only: bool,
    max_databases: usize,
    memory_limits: MemoryLimits,
    query_limits: QueryLimits,
    copy_limits: CopySettings,
    admission_control: AdmissionLimits,
}

#[derive(Serialize, JsonSchema)]
struct MemoryLimits {
    instance_max_mb: u64,
    per_database_max_mb: u64,
    /// Always null: free bytes decide, not a share.
    admission_threshold_percent: Option<f64>,
}

#[derive(Serialize, JsonSchema)]
struct QueryLimits {
    timeout_seconds: u64,
    max_query_length: usize,
    max_connections_per_db: usize,
    row_limit: usize,
    chunk_rows: usize,
}

#[derive(Serialize, JsonSchema)]
struct AdmissionLimits {
    memory_available_mb: f64,
    memory_reserved_mb: f64,
    /// Always null: a busy processor refuses nobody.
    cpu_threshold: Option<f64>,
}

/// What this node is and which limits hold.
pub(super) async fn info(Extract(state): Extract<AppState>) -> Result<Response, ApiError> {
    let settings = state.settings();
    let known = state.databases();
    let databases: Vec<String> = known.iter().map(|info| info.id.to_string()).collect();
    let problems = known.iter().filter_map(|info| info.problem.clone()).collect();
    let counted = state.counted_databases();
    let (running, waiting) = state.admission.load();
    let usage = state.engines.usage();
    let max = settings.databases_per_node as usize;
    let standing = state.standing.state();
    let base_path = state.facts.data_dir.display().to_string();
    body::value(&Info {
        node_id: state.facts.node.clone(),
        instance_id: state.facts.node.clone(),
        node_type: node_type(&state),
        cluster_version: env!("CARGO_PKG_VERSION"),
        base_path: base_path.clone(),
        max_databases: max,
        databases,
        problems,
        available_capacity: max.saturating_sub(counted),
        active_connections: running,
        queue_depth: waiting,
        uptime_seconds: state.facts.started.elapsed().as_secs_f64(),
        read_only: state.is_replica(),
        state: standing.name(),
        epoch: state.standing.volume_epoch(),
        engines: state.facts.engines.clone(),
        seeds: seeds::list(&state),
        embeddings: embeddings::info(&state),
        configuration: Configuration {
            base_path,
            read_only: state.is_replica(),
            max_databases: max,
            memory_limits: MemoryLimits {
                instance_max_mb: settings.memory.node_mib,
                per_database_max_mb: settings.memory.per_database_mib,
                admission_threshold_percent: None,
            },
            query_limits: QueryLimits {
                timeout_seconds: settings.engine.query_timeout_seconds,
                max_query_length: settings.engine.max_query_length,
                max_connections_per_db: settings.engine.connections_per_database,
                row_limit: state.facts.row_limit,
                chunk_rows: settings.engine.chunk_rows,
            },
            copy_limits: settings.copy.clone(),
            admission_control: AdmissionLimits {
                memory_available_mb: mb(state.admission.memory().available()),
                memory_reserved_mb: mb(usage.reserved_bytes),
                cpu_threshold: None,
            },
        },
    })
}

/// Prometheus text; the JSON of the contract for `Accept: application/json`.
pub(super) async fn metrics(Extract(state): Extract<AppState>, headers: HeaderMap) -> Result<Response, ApiError> {
    if headers::accepts(&headers, "application/json") {
        return body::value(&figures(&state));
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
    let wait = headers::wait_seconds(request.uri().query())?;
    state.standing.drain();
    tracing::info!(operation = "drain", wait_seconds = wait, "draining");
    let until = tokio::time::Instant::now() + Duration::from_secs(wait);
    loop {
        let queries = state.engines.usage().running();
        let tasks = state
            .tasks
            .list(None, None, None, usize::MAX)
            .iter()
            .filter(|task| !task.status.is_final())
            .count();
        // Uploads and other changes that are no tasks: what ends after the checkpoint would not be in it.
        let write_permits = state.write_permits.len();
        if queries == 0 && tasks == 0 && write_permits == 0 {
            let failed = crate::run::checkpoint_all(&state, Duration::from_secs(60)).await;
            return body::value(&Drained {
                status: if failed.is_empty() { "drained" } else { "draining" },
                active_queries: 0,
                active_tasks: 0,
                write_permits: 0,
                not_checkpointed: failed,
            });
        }
        if tokio::time::Instant::now() >= until {
            return body::value(&Drained {
                status: "draining",
                active_queries: queries,
                active_tasks: tasks,
                write_permits,
                not_checkpointed: Vec::new(),
            });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// How far a drain is.
#[derive(Serialize, JsonSchema)]
struct Drained {
    /// `draining` or `drained`.
    status: &'static str,
    active_queries: usize,
    active_tasks: usize,
    /// Rights to change something that are held.
    write_permits: usize,
    /// Databases whose checkpoint failed.
    not_checkpointed: Vec<String>,
}

/// What is under way.
#[derive(Serialize, JsonSchema)]
struct Connections {
    active_connections: usize,
    waiting_connections: usize,
    max_connections_per_database: usize,
    /// Statements and searches inside of the engines.
    active_queries: usize,
    active_tasks: usize,
    pending_tasks: usize,
    /// Rights to change something that are held: by requests, by tasks, and by statements until their first row.
    write_permits: usize,
    databases: Vec<DatabaseConnections>,
}

#[derive(Serialize, JsonSchema)]
struct DatabaseConnections {
    graph_id: String,
    active: usize,
    waiting: usize,
}

/// What is under way: requests by database, queries inside of the engine, tasks.
pub(super) async fn connections(Extract(state): Extract<AppState>) -> Result<Response, ApiError> {
    let (running, waiting) = state.admission.load();
    let tasks = state.tasks.stats();
    let count = |status: TaskStatus| tasks.by_status.get(status.as_str()).copied().unwrap_or(0);
    let databases = state.admission.loads();
    body::value(&Connections {
        active_connections: running,
        waiting_connections: waiting,
        max_connections_per_database: state.settings().engine.connections_per_database,
        active_queries: state.engines.usage().running(),
        active_tasks: count(TaskStatus::Running),
        pending_tasks: count(TaskStatus::Pending),
        write_permits: state.write_permits.len(),
        databases: databases
            .into_iter()
            .map(|(graph_id, active, waiting)| DatabaseConnections {
                graph_id,
                active,
                waiting,
            })
            .collect(),
    })
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
    for (engine, running) in usage.by_engine() {
        metrics
            .active_queries
            .get_or_create(&EngineLabel { engine })
            .set(running as i64);
    }
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
    metrics.seeds.set(&state.seeds.list());
    // Databases come and go: what is gone must not be shown for ever.
    metrics.database_size.clear();
    for info in state.databases() {
        for (kind, bytes) in [
            ("graph", info.size_bytes),
            ("staging", info.staging_bytes),
            ("vectors", state.engines.vector_bytes(&info.id)),
        ] {
            let labels = DatabaseLabels {
                database: info.id.to_string(),
                kind,
            };
            metrics.database_size.get_or_create(&labels).set(gauge(bytes));
        }
    }
}

pub(super) fn node_type(state: &AppState) -> &'static str {
    if state.is_replica() { "shared_replica" } else { "writer" }
}

fn gauge(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
