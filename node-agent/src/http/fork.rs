//! `POST /databases/{id}/fork-from/{parent}`: a subgraph that begins as a copy of its parent.
//!
//! The contract's path, `/databases/{id}/tables/{id}/fork-from/{parent}`, is the same. A task does it, and the contract's
//! answer waits for that task. A repeated request finds the task that is at work; with an `Idempotency-Key` it finds the
//! one that is done, too.

use super::{
    BODY_LIMIT, body,
    databases::{elapsed_ms, missing},
    error::ApiError,
    headers,
    openapi::{Operation, header},
    tasks::{Finish, started_body, wait_for},
    validation::Fields,
};
use crate::{
    disk::disk,
    engines::{DatabaseId, ForkRequest, Forked, TableName, VectorsName},
    registration::lease::Refusal,
    state::{AppState, WritePermit},
    tasks::{TaskContext, TaskHandle, TaskStatus, TaskType},
};
use axum::{
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use graphplane_crds::ids::SubgraphName;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, json};
use std::time::{Duration, Instant};

/// How long the copy may wait for writers of the parent.
const TIMEOUT: Duration = Duration::from_secs(600);
/// What a copy leaves free on the volume, for the logs of databases that are being written.
const SPARE_BYTES: u64 = 64 << 20;
const IDEMPOTENCY_KEY: &str = "idempotency_key";

/// The operations of this module.
pub(super) fn operations() -> Vec<Operation> {
    let fork = |line, id, summary| {
        let key = json!({"type": "string", "minLength": 1, "maxLength": 256});
        Operation::new(line, id, summary)
            .notes(
                "`tables` keeps some of the tables only; a relationship table needs those of its ends. The parent's vectors come \
                 along (of the same tables, where some are named); its semantic memory only with `include_memory`.",
            )
            .changes()
            .may_read(Asked::read)
            .with([header(
                "Idempotency-Key",
                key,
                "A repeated request gets the answer of the first one.",
            )])
            .asks_engine()
            .gives::<ForkAnswer>("It is made.")
            .gives_task_if_preferred()
    };
    vec![
        fork(
            "post /databases/{id}/fork-from/{parent}",
            "fork",
            "Makes a subgraph as a copy of its parent",
        ),
        fork(
            "post /databases/{id}/tables/{table}/fork-from/{parent}",
            "fork_of_contract",
            "The same by the contract's path, which names the subgraph twice",
        ),
    ]
}

/// A copy of a parent.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Forked")]
struct ForkAnswer {
    /// `success`.
    status: &'static str,
    parent_graph_id: String,
    subgraph_id: String,
    tables_copied: Vec<String>,
    /// Tables of vectors that it has.
    vector_tables: Vec<String>,
    /// Whether it has the parent's semantic memory.
    memory_copied: bool,
    total_rows: u64,
    execution_time_ms: f64,
    database_path: String,
    node_count: u64,
    relationship_count: u64,
    /// The task that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<String>,
}

/// The contract's path, which names the subgraph twice.
pub(super) async fn post_to_table(
    state: State<AppState>,
    Path((id, table, parent)): Path<(String, String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    if id != table {
        return Err(ApiError::bad_request(format!(
            "the path names two subgraphs, {id} and {table}; both must be the same"
        )));
    }
    post(state, Path((id, parent)), request).await
}

/// Starts the task, and waits for it unless the caller prefers not to.
pub(super) async fn post(
    State(state): State<AppState>,
    Path((id, parent)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let permit = state.write_permit(&parts.headers).await?;
    let mut fields = Fields::parse_or_empty(&body::read(body, BODY_LIMIT).await?)?;
    let asked = Asked::read(&mut fields);
    fields.finish()?;
    let tables = asked.tables.iter().map(|table| TableName::parse(table));
    let fork = ForkRequest {
        id: DatabaseId::parse(&id)?,
        parent: DatabaseId::parse(&parent)?,
        tables: tables.collect::<Result<_, _>>()?,
        vectors: asked.include_vectors,
        memory: asked.include_memory,
        timeout: TIMEOUT,
    };
    check_names(&fork)?;
    let key = idempotency_key(&parts.headers)?;
    let wait = !headers::prefers_async(&parts.headers);
    // May open databases, so it is done before the lock is taken; it only matters if no task is known.
    let replaceable = state.engines.check_replaceable(&fork).await;
    let message = format!("Fork of {} into {} started", fork.parent, fork.id);

    let starting = state.starting.lock().await;
    let about = [
        ("graph_id", fork.id.as_str()),
        ("parent_graph_id", fork.parent.as_str()),
    ];
    let mut known = state.tasks.find_unfinished(TaskType::Fork, &about);
    if let Some(key) = key.as_deref().filter(|_| state.engines.contains(&fork.id)) {
        let about = [about[0], about[1], (IDEMPOTENCY_KEY, key)];
        known = known.or_else(|| {
            state
                .tasks
                .find(TaskType::Fork, &about, |status| status == TaskStatus::Completed)
        });
    }
    if let Some(known) = known {
        drop(starting);
        return match wait {
            true => outcome_of(&state, known).await,
            false => started_body(&known, &message),
        };
    }
    check_room(&state, &fork)?;
    replaceable?;
    let (finish, finished) = Finish::<Forked>::pair();
    let task = start(&state, fork.clone(), key, permit, finish).await?;
    drop(starting);
    if !wait {
        return started_body(&task.id, &message);
    }
    let forked = wait_for(&state, &task, finished).await?;
    body::value(&ForkAnswer {
        task_id: Some(task.id),
        ..result(&fork, &forked, started)
    })
}

/// A request as its body has it.
struct Asked {
    tables: Vec<String>,
    include_vectors: bool,
    include_memory: bool,
}

impl Asked {
    fn read(fields: &mut Fields) -> Self {
        // Accepted for clients of the contract: a copy has no rows that could be refused.
        fields.flag("ignore_errors", true);
        Self {
            tables: fields.texts("tables").unwrap_or_default(),
            include_vectors: fields.flag("include_vectors", true),
            // What was told to a graph is its own: the contract has no memories on subgraphs.
            include_memory: fields.flag("include_memory", false),
        }
    }
}

fn check_names(fork: &ForkRequest) -> Result<(), ApiError> {
    let name = fork
        .id
        .as_str()
        .strip_prefix(fork.parent.as_str())
        .and_then(|rest| rest.strip_prefix('_'));
    match name.map(str::parse::<SubgraphName>) {
        Some(Ok(_)) => Ok(()),
        _ => Err(ApiError::bad_request(format!(
            "{} is not a subgraph of {}: expected {}_<name>, a name of 1-20 letters and digits",
            fork.id, fork.parent, fork.parent
        ))),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    match headers.get("idempotency-key").map(|key| key.to_str()) {
        None => Ok(None),
        Some(Ok(key)) if (1..=256).contains(&key.len()) => Ok(Some(key.to_owned())),
        Some(_) => Err(ApiError::bad_request(
            "Idempotency-Key: expected 1 to 256 printable ASCII characters",
        )),
    }
}

fn check_room(state: &AppState, fork: &ForkRequest) -> Result<(), ApiError> {
    let Ok(parent) = state.engines.info(&fork.parent) else {
        return Err(missing(&fork.parent));
    };
    // The copies of vectors are second names of their files.
    let (needed, free) = (parent.size_bytes + SPARE_BYTES, disk(&state.facts.data_dir).free);
    if needed <= free {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::INSUFFICIENT_STORAGE,
        format!(
            "A copy of {} needs {} MiB, and {} MiB are free on this node's volume; enlarge it or delete a database",
            fork.parent,
            needed >> 20,
            free >> 20
        ),
    ))
}

async fn start(
    state: &AppState,
    fork: ForkRequest,
    key: Option<String>,
    permit: WritePermit,
    finish: Finish<Forked>,
) -> Result<TaskHandle, ApiError> {
    let mut metadata = Map::from_iter([
        ("graph_id".to_owned(), json!(fork.id.as_str())),
        ("parent_graph_id".to_owned(), json!(fork.parent.as_str())),
        ("tables".to_owned(), json!(fork.tables)),
        ("include_vectors".to_owned(), json!(fork.vectors)),
        ("include_memory".to_owned(), json!(fork.memory)),
    ]);
    if let Some(key) = key {
        metadata.insert(IDEMPOTENCY_KEY.to_owned(), json!(key));
    }
    let name = format!("fork_{}", fork.id);
    // Loads of the parent go first: a copy between two of their slices would be of no use to anybody.
    let turn = Some(state.load_turn(&fork.parent));
    let work = {
        let state = state.clone();
        move |context: TaskContext| async move {
            let started = Instant::now();
            finish.run(run(&state, &fork, &permit, &context).await, |forked| {
                json!(result(&fork, forked, started))
            })
        }
    };
    Ok(state.tasks.start(TaskType::Fork, &name, metadata, turn, work).await?)
}

async fn run(
    state: &AppState,
    fork: &ForkRequest,
    permit: &WritePermit,
    context: &TaskContext,
) -> Result<Forked, ApiError> {
    // One token for both reasons to stop: a caller's cancel, and the end of the lease.
    let stop = context.cancelled().child_token();
    let mut work = std::pin::pin!(state.engines.fork(fork, &stop));
    let forked = tokio::select! {
        biased;
        forked = &mut work => forked?,
        () = permit.ends.cancelled() => {
            stop.cancel();
            // Waited for, so that the task is not recorded as ended while something of it is still written.
            work.await.map_err(|_| Refusal::Fenced)?
        }
    };
    let rows = forked.counts.nodes + forked.counts.relationships;
    context.progress(rows, rows);
    Ok(forked)
}

/// The answer to a request whose task was started by another one.
async fn outcome_of(state: &AppState, task: String) -> Result<Response, ApiError> {
    let mut record = state.tasks.subscribe(&task)?;
    // The sender lives as long as the store, so this only fails when the process ends.
    let _ = record.wait_for(|record| record.status.is_final()).await;
    let record = record.borrow().clone();
    match record.result {
        Some(mut answer) => {
            answer["task_id"] = json!(task);
            body::value(&answer)
        }
        None => Err(ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!(
                "Task {task}: {}",
                record.error.unwrap_or_else(|| "ended without an outcome".into())
            ),
        )),
    }
}

fn result(fork: &ForkRequest, forked: &Forked, started: Instant) -> ForkAnswer {
    let tables = forked.counts.tables.iter().map(|(table, _)| table.clone());
    let vectors = forked.vectors.iter().filter_map(|name| match name {
        VectorsName::Index(table) => Some(table.to_string()),
        VectorsName::Memory => None,
    });
    ForkAnswer {
        status: "success",
        parent_graph_id: fork.parent.to_string(),
        subgraph_id: fork.id.to_string(),
        tables_copied: tables.collect(),
        vector_tables: vectors.collect(),
        memory_copied: forked.vectors.contains(&VectorsName::Memory),
        total_rows: forked.counts.nodes + forked.counts.relationships,
        execution_time_ms: elapsed_ms(started),
        database_path: forked.path.display().to_string(),
        node_count: forked.counts.nodes,
        relationship_count: forked.counts.relationships,
        task_id: None,
    }
}
