//! `/tasks`: list, status, events, figures, cancel; and the bridge from a request to the task that does its work.

use super::{
    body,
    error::ApiError,
    front::Change,
    headers,
    openapi::{Operation, SchemaOf, Written, query, schema_of},
    stream::{event, sse_response},
};
use crate::{
    state::AppState,
    tasks::{TaskHandle, TaskRecord, TaskStatus, TaskType, timestamp},
};
use axum::{
    extract::{Extension, Path, Request, State},
    http::StatusCode,
    response::{Response, sse::Event},
};
use futures::stream;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, time::Duration};
use tokio::sync::{oneshot, watch};

/// The operations of this module.
pub(super) fn operations() -> Vec<Operation> {
    let text = || json!({"type": "string"});
    let words = |words: Vec<&str>| json!({"type": "string", "enum": words});
    vec![
        Operation::new("get /tasks", "task_list", "Tasks, newest first")
            .with([
                query(
                    "status",
                    words(TaskStatus::ALL.map(TaskStatus::as_str).into()),
                    "Only of this status.",
                ),
                query(
                    "task_type",
                    words(TaskType::ALL.map(TaskType::as_str).into()),
                    "Only of this type.",
                ),
                query("graph_id", text(), "Only of this graph."),
                query(
                    "limit",
                    json!({"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}),
                    "So many of the newest.",
                ),
            ])
            .fails(&[400])
            .gives::<Vec<TaskRecord>>("The tasks."),
        Operation::new("get /tasks/stats", "task_stats", "How many tasks there are").gives::<Stats>("Counts."),
        Operation::new("get /tasks/queue/info", "task_queue", "What waits and what runs").gives::<Queue>("The queue."),
        Operation::new("get /tasks/{id}/status", "task_status", "One task").gives::<TaskRecord>("The task."),
        Operation::new(
            "get /tasks/{id}/monitor",
            "task_monitor",
            "Events of a task until it has ended",
        )
        .notes("`connected`, `progress`, `heartbeat`, and at last `completed`, or `failed` also for a cancelled task.")
        .answers(
            200,
            "The events.",
            &[("text/event-stream", Written::Events(TASK_EVENTS))],
        ),
        Operation::new("delete /tasks/{id}", "task_cancel", "Asks a task to stop")
            .fails(&[409])
            .gives::<Cancelling>("It was asked."),
    ]
}

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

/// A task that was started.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TaskStarted")]
pub(super) struct Started {
    task_id: String,
    /// `started`.
    status: &'static str,
    sse_url: String,
    message: String,
}

/// 202 with where to follow the task.
pub(super) fn started_body(id: &str, message: &str) -> Result<Response, ApiError> {
    let mut response = body::value(&Started {
        task_id: id.to_owned(),
        status: "started",
        sse_url: monitor_url(id),
        message: message.to_owned(),
    })?;
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// Where a task's events are.
pub(super) fn monitor_url(id: &str) -> String {
    format!("/tasks/{id}/monitor")
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

/// A task that was asked to stop.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TaskCancelling")]
struct Cancelling {
    task_id: String,
    /// `cancelling`.
    status: &'static str,
    message: String,
}

/// Asks a task to stop.
pub(super) async fn cancel(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Extension(change): Extension<Change>,
) -> Result<Response, ApiError> {
    if let Some(graph) = graph_of(&state.tasks.get(&id)?) {
        change.names(&graph);
    }
    state.tasks.cancel(&id)?;
    tracing::info!(operation = "cancel_task", task = id, "task cancelled");
    body::value(&Cancelling {
        message: format!("Task {id} was asked to stop; follow it until it is cancelled"),
        task_id: id,
        status: "cancelling",
    })
}

/// Counts of tasks.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TaskStats")]
struct Stats {
    total_tasks: usize,
    tasks_by_status: BTreeMap<&'static str, usize>,
    tasks_by_type: BTreeMap<&'static str, usize>,
    active_tasks: usize,
    pending_tasks: usize,
    completed_tasks: usize,
    failed_tasks: usize,
    cancelled_tasks: usize,
}

/// How many tasks there are.
pub(super) async fn stats(State(state): State<AppState>) -> Result<Response, ApiError> {
    let stats = state.tasks.stats();
    let count = |status: TaskStatus| stats.by_status.get(status.as_str()).copied().unwrap_or(0);
    body::value(&Stats {
        total_tasks: stats.total,
        active_tasks: count(TaskStatus::Running),
        pending_tasks: count(TaskStatus::Pending),
        completed_tasks: count(TaskStatus::Completed),
        failed_tasks: count(TaskStatus::Failed),
        cancelled_tasks: count(TaskStatus::Cancelled),
        tasks_by_status: stats.by_status,
        tasks_by_type: stats.by_type,
    })
}

/// Tasks that have not ended.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TaskQueue")]
struct Queue {
    queue_depth: usize,
    pending_tasks: usize,
    active_tasks: usize,
    concurrent_loads_per_graph: usize,
    /// The first 100.
    tasks: Vec<QueuedTask>,
}

#[derive(Serialize, JsonSchema)]
struct QueuedTask {
    task_id: String,
    task_type: TaskType,
    status: TaskStatus,
    graph_id: Option<String>,
    created_at: String,
    progress_percent: f64,
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
    let waiting = unfinished.len() - running;
    let shown = unfinished.into_iter().take(100).map(|task| QueuedTask {
        graph_id: graph_of(&task),
        task_id: task.task_id,
        task_type: task.task_type,
        status: task.status,
        created_at: task.created_at,
        progress_percent: task.progress_percent,
    });
    body::value(&Queue {
        queue_depth: waiting,
        pending_tasks: waiting,
        active_tasks: running,
        concurrent_loads_per_graph: state.settings().copy.concurrent_loads(),
        tasks: shown.collect(),
    })
}

/// The graph that a task is about.
fn graph_of(task: &TaskRecord) -> Option<String> {
    task.metadata.get("graph_id").and_then(Value::as_str).map(str::to_owned)
}

/// Event `connected`.
#[derive(Serialize, JsonSchema)]
struct Connected {
    task_id: String,
    task_type: TaskType,
    timestamp: String,
    message: &'static str,
}

/// Event `heartbeat`: nothing has happened, and the connection lives.
#[derive(Serialize, JsonSchema)]
struct Heartbeat {
    task_id: String,
    task_type: TaskType,
    status: TaskStatus,
    timestamp: String,
    message: &'static str,
}

/// Events `progress`, `completed` and `failed`.
#[derive(Serialize, JsonSchema)]
struct TaskEvent {
    task_id: String,
    task_type: TaskType,
    timestamp: String,
    status: TaskStatus,
    progress_percent: f64,
    records_processed: Option<u64>,
    estimated_records: Option<u64>,
    started_at: Option<String>,
    metadata: Map<String, Value>,
    message: &'static str,
    /// What came of it, of a task that is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
    /// Why not, of a task that failed or was cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Of a task that has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_seconds: Option<f64>,
}

/// Event `error`: the stream ends before the task does.
#[derive(Serialize, JsonSchema)]
struct MonitorError {
    error: &'static str,
    task_type: TaskType,
}

const TASK_EVENTS: &[(&str, SchemaOf)] = &[
    ("connected", schema_of::<Connected>),
    ("progress", schema_of::<TaskEvent>),
    ("heartbeat", schema_of::<Heartbeat>),
    ("completed", schema_of::<TaskEvent>),
    ("failed", schema_of::<TaskEvent>),
    ("error", schema_of::<MonitorError>),
];

/// Events of a task until it has ended: `connected`, `progress`, `heartbeat`, then `completed` or `failed`.
pub(super) async fn monitor(State(state): State<AppState>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let receiver = state.tasks.subscribe(&id)?;
    let first = receiver.borrow().clone();
    let connected = Connected {
        task_id: first.task_id.clone(),
        task_type: first.task_type,
        timestamp: timestamp(),
        message: "Connected to the task's events",
    };
    let connected = event("connected", &json!(connected));
    let graph = graph_of(&first);
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
    if let Some(shown) = shown {
        match tokio::time::timeout(HEARTBEAT, receiver.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => {
                let data = MonitorError {
                    error: "the node is shutting down",
                    task_type: shown.task_type,
                };
                return (vec![event("error", &json!(data))], Follow::End);
            }
            Err(_) => {
                let record = receiver.borrow().clone();
                let data = Heartbeat {
                    task_id: record.task_id.clone(),
                    task_type: record.task_type,
                    status: record.status,
                    timestamp: timestamp(),
                    message: "Task is still at work",
                };
                let events = vec![event("heartbeat", &json!(data))];
                return (events, Follow::Changes(receiver, Some(record)));
            }
        }
    }
    let record = receiver.borrow_and_update().clone();
    let (name, message) = match record.status {
        TaskStatus::Pending => ("progress", "Task waits for its turn"),
        TaskStatus::Running => ("progress", "Task is at work"),
        TaskStatus::Completed => ("completed", "Task completed"),
        TaskStatus::Failed => ("failed", "Task failed"),
        TaskStatus::Cancelled => ("failed", "Task cancelled"),
    };
    let ended = record.status.is_final();
    let data = TaskEvent {
        task_id: record.task_id.clone(),
        task_type: record.task_type,
        timestamp: timestamp(),
        status: record.status,
        progress_percent: record.progress_percent,
        records_processed: record.records_processed,
        estimated_records: record.estimated_size,
        started_at: record.started_at.clone(),
        metadata: record.metadata.clone(),
        message,
        result: record.result.clone().filter(|_| ended),
        error: record.error.clone().filter(|_| ended),
        duration_seconds: ended.then(|| record.duration().as_secs_f64()),
    };
    let events = vec![event(name, &json!(data))];
    let next = if ended {
        Follow::End
    } else {
        Follow::Changes(receiver, Some(record))
    };
    (events, next)
}
