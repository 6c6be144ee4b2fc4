//! `/tasks`: list, status, events, figures, cancel; and the bridge from a request to the task that does its work.

use super::{
    body,
    error::ApiError,
    headers,
    stream::{event, sse_response},
};
use crate::{
    state::AppState,
    tasks::{TaskHandle, TaskRecord, TaskStatus, TaskType, timestamp},
};
use axum::{
    extract::{Path, Request, State},
    http::StatusCode,
    response::{Response, sse::Event},
};
use futures::stream;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// The end of a task's work, for the request that may be waiting for it.
pub(super) struct Finish<T> {
    sender: oneshot::Sender<Result<T, ApiError>>,
}

/// Where a request waits for its task.
pub(super) type Finished<T> = oneshot::Receiver<Result<T, ApiError>>;

impl<T> Finish<T> {
    /// Both ends.
    pub(super) fn pair() -> (Self, Finished<T>) {
        let (sender, receiver) = oneshot::channel();
        (Self { sender }, receiver)
    }

    /// Turns the outcome into what the task's record keeps, and hands it to the request if that still waits.
    pub(super) fn run(self, outcome: Result<T, ApiError>, result: impl FnOnce(&T) -> Value) -> Result<Value, String> {
        let recorded = match &outcome {
            Ok(value) => Ok(result(value)),
            Err(error) => Err(error.message()),
        };
        // Nobody waits for a task that was started with `Prefer: respond-async`.
        let _ = self.sender.send(outcome);
        recorded
    }
}

/// Waits until a task has ended, and gives its outcome. The task's record is written by then.
pub(super) async fn wait_for<T>(state: &AppState, task: &TaskHandle, finished: Finished<T>) -> Result<T, ApiError> {
    let outcome = finished.await;
    let mut record = task.state.clone();
    // The sender lives as long as the store, so this only fails when the process ends.
    let _ = record.wait_for(|record| record.status.is_final()).await;
    match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            let error = state
                .tasks
                .get(&task.id)?
                .error
                .unwrap_or_else(|| "the task ended without an outcome".into());
            Err(ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("Task {}: {error}", task.id),
            ))
        }
    }
}

/// 202 with where to follow the task.
pub(super) fn started_body(id: &str, message: &str) -> Result<Response, ApiError> {
    let mut response = body::value(&json!({
        "task_id": id,
        "status": "started",
        "sse_url": format!("/tasks/{id}/monitor"),
        "message": message,
    }))?;
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// Tasks, newest first.
pub(super) async fn list(State(state): State<AppState>, request: Request) -> Result<Response, ApiError> {
    let query = request.uri().query();
    let status = match headers::parameter(query, "status") {
        None => None,
        Some(word) => Some(
            TaskStatus::ALL
                .into_iter()
                .find(|status| status.as_str() == word)
                .ok_or_else(|| ApiError::bad_request(format!("status: {word:?} is not a status of tasks")))?,
        ),
    };
    let kind = match headers::parameter(query, "task_type") {
        None => None,
        Some(word) => Some(
            TaskType::ALL
                .into_iter()
                .find(|kind| kind.as_str() == word)
                .ok_or_else(|| ApiError::bad_request(format!("task_type: {word:?} is not a type of tasks")))?,
        ),
    };
    let limit = match headers::parameter(query, "limit") {
        None => 100,
        Some(text) => match text.parse::<usize>() {
            Ok(limit) if (1..=1000).contains(&limit) => limit,
            _ => return Err(ApiError::bad_request("limit: expected a whole number from 1 to 1000")),
        },
    };
    let graph = headers::parameter(query, "graph_id");
    body::value(&state.tasks.list(status, kind, graph.as_deref(), limit))
}

/// One task.
pub(super) async fn status(State(state): State<AppState>, Path(id): Path<String>) -> Result<Response, ApiError> {
    body::value(&state.tasks.get(&id)?)
}

/// Asks a task to stop.
pub(super) async fn cancel(State(state): State<AppState>, Path(id): Path<String>) -> Result<Response, ApiError> {
    state.tasks.cancel(&id)?;
    tracing::info!(operation = "cancel_task", task = id, "task cancelled");
    body::value(&json!({
        "task_id": id,
        "status": "cancelling",
        "message": format!("Task {id} was asked to stop; follow it until it is cancelled"),
    }))
}

/// How many tasks there are.
pub(super) async fn stats(State(state): State<AppState>) -> Result<Response, ApiError> {
    let stats = state.tasks.stats();
    let count = |status: TaskStatus| stats.by_status.get(status.as_str()).copied().unwrap_or(0);
    body::value(&json!({
        "total_tasks": stats.total,
        "tasks_by_status": stats.by_status,
        "tasks_by_type": stats.by_type,
        "active_tasks": count(TaskStatus::Running),
        "pending_tasks": count(TaskStatus::Pending),
        "completed_tasks": count(TaskStatus::Completed),
        "failed_tasks": count(TaskStatus::Failed),
        "cancelled_tasks": count(TaskStatus::Cancelled),
    }))
}

/// What waits and what runs.
pub(super) async fn queue(State(state): State<AppState>) -> Result<Response, ApiError> {
    let unfinished: Vec<TaskRecord> = [TaskStatus::Running, TaskStatus::Pending]
        .into_iter()
        .flat_map(|status| state.tasks.list(Some(status), None, None, usize::MAX))
        .collect();
    let running = unfinished
        .iter()
        .filter(|task| task.status == TaskStatus::Running)
        .count();
    let shown = unfinished.iter().take(100).map(|task| {
        json!({
            "task_id": task.task_id, "task_type": task.task_type, "status": task.status,
            "graph_id": task.metadata.get("graph_id"), "created_at": task.created_at,
            "progress_percent": task.progress_percent,
        })
    });
    body::value(&json!({
        "queue_depth": unfinished.len() - running,
        "pending_tasks": unfinished.len() - running,
        "active_tasks": running,
        "concurrent_loads_per_graph": state.settings().copy.concurrent_loads(),
        "tasks": shown.collect::<Vec<_>>(),
    }))
}

/// Events of a task until it has ended: `connected`, `progress`, `heartbeat`, then `completed` or `failed`.
pub(super) async fn monitor(State(state): State<AppState>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let receiver = state.tasks.subscribe(&id)?;
    let first = receiver.borrow().clone();
    let connected = event(
        "connected",
        &json!({
            "task_id": first.task_id, "task_type": first.task_type, "timestamp": timestamp(),
            "message": "Connected to the task's events",
        }),
    );
    let graph = first
        .metadata
        .get("graph_id")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let events = stream::unfold(Follow::Begin(connected, receiver), |step| async move {
        match step {
            Follow::Begin(connected, receiver) => Some((vec![connected], Follow::Changes(receiver, None))),
            Follow::Changes(receiver, shown) => Some(next_events(receiver, shown).await),
            Follow::End => None,
        }
    });
    Ok(sse_response(events, graph.as_deref()))
}

enum Follow {
    Begin(Event, watch::Receiver<TaskRecord>),
    Changes(watch::Receiver<TaskRecord>, Option<TaskRecord>),
    End,
}

const HEARTBEAT: Duration = Duration::from_secs(30);

async fn next_events(mut receiver: watch::Receiver<TaskRecord>, shown: Option<TaskRecord>) -> (Vec<Event>, Follow) {
    if shown.is_some() {
        match tokio::time::timeout(HEARTBEAT, receiver.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => {
                let data =
                    json!({"error": "the node is shutting down", "task_type": shown.map(|record| record.task_type)});
                return (vec![event("error", &data)], Follow::End);
            }
            Err(_) => {
                let record = receiver.borrow().clone();
                let data = json!({
                    "task_id": record.task_id, "task_type": record.task_type, "status": record.status,
                    "timestamp": timestamp(), "message": "Task is still at work",
                });
                return (vec![event("heartbeat", &data)], Follow::Changes(receiver, Some(record)));
            }
        }
    }
    let record = receiver.borrow_and_update().clone();
    let common = json!({
        "task_id": record.task_id,
        "task_type": record.task_type,
        "timestamp": timestamp(),
        "status": record.status,
        "progress_percent": record.progress_percent,
        "records_processed": record.records_processed,
        "estimated_records": record.estimated_size,
        "started_at": record.started_at,
        "metadata": record.metadata,
    });
    let with = |fields: Value| {
        let mut data = common.clone();
        if let (Some(data), Value::Object(fields)) = (data.as_object_mut(), fields) {
            data.extend(fields);
        }
        data
    };
    let duration = record.duration().as_secs_f64();
    match record.status {
        TaskStatus::Completed => {
            let data = with(json!({
                "result": record.result, "duration_seconds": duration, "message": "Task completed",
            }));
            (vec![event("completed", &data)], Follow::End)
        }
        TaskStatus::Failed | TaskStatus::Cancelled => {
            let data = with(json!({
                "error": record.error, "duration_seconds": duration,
                "message": format!("Task {}", record.status.as_str()),
            }));
            (vec![event("failed", &data)], Follow::End)
        }
        TaskStatus::Pending | TaskStatus::Running => {
            let message = if record.status == TaskStatus::Pending {
                "Task waits for its turn"
            } else {
                "Task is at work"
            };
            let data = with(json!({"message": message}));
            (vec![event("progress", &data)], Follow::Changes(receiver, Some(record)))
        }
    }
}
