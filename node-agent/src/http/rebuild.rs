//! `POST /databases/{id}/rebuild`: a graph made anew from its staging tables, while the old one serves. And who keeps out
//! of whose way: a graph is not replaced while it is loaded, nor loaded while it is replaced.

use super::{
    BODY_LIMIT, body,
    databases::{elapsed_ms, missing},
    error::ApiError,
    headers,
    materialize::{Loaded, keep_rejected},
    openapi::Operation,
    tables::UNLIMITED,
    tasks::{Finish, monitor_url, started_body, wait_for},
    validation::Fields,
};
use crate::{
    changes::Change,
    engines::{DatabaseId, ProgressUpdate, Rebuilt, TableName},
    registration::lease::Refusal,
    state::{AppState, WritePermit},
    tasks::{TaskContext, TaskType},
};
use axum::{
    extract::{Path, Request, State},
    http::StatusCode,
    response::Response,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, json};
use std::{sync::Arc, time::Instant};

/// The operations of this module.
pub(super) fn operations() -> Vec<Operation> {
    let operation = Operation::new(
        "post /databases/{id}/rebuild",
        "rebuild",
        "The graph anew from its staging tables, while the old one serves",
    )
    .changes()
    .may_read(|_| ())
    .asks_engine()
    .gives::<RebuiltAnswer>("It is rebuilt, and has taken the place of the old one.")
    .gives_task_if_preferred();
    vec![operation]
}

/// A graph that was made anew.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Rebuilt")]
struct RebuiltAnswer {
    /// `success`.
    status: &'static str,
    graph_id: String,
    rows_ingested: u64,
    tables: Vec<Loaded>,
    execution_time_ms: f64,
    /// The task that did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<String>,
}

/// Starts the task, and waits for it unless the caller prefers not to.
pub(super) async fn post(
    State(state): State<AppState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let permit = state.write_permit(&parts.headers).await?;
    let id = DatabaseId::parse(&id)?;
    Fields::parse_or_empty(&body::read(body, BODY_LIMIT).await?)?.finish()?;
    let Ok(info) = state.engines.info(&id) else {
        return Err(missing(&id));
    };
    state.admission.check_memory()?;
    let (finish, finished) = Finish::<Rebuilt>::pair();
    let starting = state.starting.lock().await;
    check_idle(&state, &id)?;
    state.check_disk(info.size_bytes)?;
    state.count_load(&id).await?;
    let metadata = Map::from_iter([("graph_id".to_owned(), json!(id.as_str()))]);
    let work = {
        let (state, id) = (state.clone(), id.clone());
        move |context: TaskContext| async move {
            finish.run(rebuild(&state, &id, &permit, &context).await, |rebuilt| {
                json!(result(&id, rebuilt, started))
            })
        }
    };
    let turn = Some(state.load_turn(&id));
    let name = format!("rebuild_{id}");
    let task = state
        .tasks
        .start(TaskType::Rebuild, &name, metadata, turn, work)
        .await?;
    drop(starting);
    if headers::prefers_async(&parts.headers) {
        return started_body(&task.id, &format!("Rebuild of {id} started"));
    }
    let rebuilt = wait_for(&state, &task, finished).await?;
    body::value(&RebuiltAnswer {
        task_id: Some(task.id),
        ..result(&id, &rebuilt, started)
    })
}

/// What the task of an import of all databases says, and no other.
const WHOLE_NODE: &[(&str, &str)] = &[("operation", "import")];

/// For what changes a graph or its staging tables.
///
/// # Errors
/// 409 while the graph is rebuilt or imported.
pub(super) fn check_not_rebuilt(state: &AppState, id: &DatabaseId) -> Result<(), ApiError> {
    check_none(state, id, &[TaskType::Rebuild, TaskType::Migration])
}

/// For a request that changes staging tables itself, for as long as it holds what it gets.
///
/// # Errors
/// 409 while the graph is rebuilt or imported.
pub(super) async fn begin_change(state: &AppState, id: &DatabaseId) -> Result<Change, ApiError> {
    // What replaces the graph must not look between the two.
    let _starting = state.starting.lock().await;
    check_not_rebuilt(state, id)?;
    Ok(state.changes.begin(id))
}

/// For what replaces a graph.
///
/// # Errors
/// 409 while the graph is loaded or replaced, or a request changes its staging tables.
pub(super) fn check_idle(state: &AppState, id: &DatabaseId) -> Result<(), ApiError> {
    let kinds = [
        TaskType::Ingestion,
        TaskType::Staging,
        TaskType::Restore,
        TaskType::Rebuild,
        TaskType::Migration,
    ];
    check_none(state, id, &kinds)?;
    match state.changes.of(id) {
        0 => Ok(()),
        requests => Err(ApiError::new(
            StatusCode::CONFLICT,
            format!(
                "Graph {id} is at work ({requests} uploads or statements change its staging tables); try again when they have ended"
            ),
        )),
    }
}

fn check_none(state: &AppState, id: &DatabaseId, kinds: &[TaskType]) -> Result<(), ApiError> {
    let about = [("graph_id", id.as_str())];
    let named = kinds.iter().map(|kind| (*kind, about.as_slice()));
    // What a database takes while the whole node is imported would go with its old files.
    for (kind, about) in named.chain([(TaskType::Migration, WHOLE_NODE)]) {
        if let Some(task) = state.tasks.find_unfinished(kind, about) {
            return Err(ApiError::with_detail(
                StatusCode::CONFLICT,
                json!({
                    "error": format!("Graph {id} is at work ({}); follow task {task} and try again when it has ended", kind.as_str()),
                    "task_id": task,
                    "monitor_url": monitor_url(&task),
                }),
            ));
        }
    }
    Ok(())
}

async fn rebuild(
    state: &AppState,
    id: &DatabaseId,
    permit: &WritePermit,
    context: &TaskContext,
) -> Result<Rebuilt, ApiError> {
    let progress = {
        let context = context.clone();
        Arc::new(move |update: ProgressUpdate| context.progress(update.rows_done, update.rows_total))
    };
    let timeout = state.settings().copy.timeout().unwrap_or(UNLIMITED);
    // One token for both reasons to stop: a caller's cancel, and the end of the lease.
    let stop = context.cancelled().child_token();
    let mut work = std::pin::pin!(state.engines.rebuild(id, timeout, progress, &stop));
    let rebuilt = tokio::select! {
        biased;
        rebuilt = &mut work => rebuilt?,
        () = permit.ends.cancelled() => {
            stop.cancel();
            // Waited for, so that the task is not recorded as ended while something of it is still written.
            work.await.map_err(|_| Refusal::Fenced)?
        }
    };
    state.metrics.materialized_rows.inc_by(rows(&rebuilt));
    for report in &rebuilt.reports {
        let table = TableName::parse(&report.table)?;
        keep_rejected(state, id, context, &table, report).await;
    }
    Ok(rebuilt)
}

fn rows(rebuilt: &Rebuilt) -> u64 {
    rebuilt.reports.iter().map(|report| report.rows_ingested).sum()
}

fn result(id: &DatabaseId, rebuilt: &Rebuilt, started: Instant) -> RebuiltAnswer {
    let reports = rebuilt.reports.iter();
    RebuiltAnswer {
        status: "success",
        graph_id: id.to_string(),
        rows_ingested: rows(rebuilt),
        tables: reports
            .map(|report| Loaded::of(id, report, report.execution_ms))
            .collect(),
        execution_time_ms: elapsed_ms(started),
        task_id: None,
    }
}
