//! Requests that change the vectors of a table: each is a task, for which its caller may wait.

use super::{
    body,
    error::ApiError,
    tables::already,
    tasks::{Finish, started_body, wait_for},
};
use crate::{
    engines::{DatabaseId, TableName},
    registration::lease::Refusal,
    state::{AppState, WritePermit},
    tasks::{TaskContext, TaskType},
};
use axum::{
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Refuses what would wait for a task on the same table, perhaps for minutes; its caller may cancel the task.
pub(super) fn check_idle(state: &AppState, id: &DatabaseId, table: &TableName) -> Result<(), ApiError> {
    let about = [("graph_id", id.as_str()), ("table_name", table.as_str())];
    match state.tasks.find_unfinished(TaskType::Vector, &about) {
        Some(running) => Err(already(id, table.as_str(), &running)),
        None => Ok(()),
    }
}

/// A request that changes the vectors of a table in a task.
pub(super) struct Job {
    pub state: AppState,
    pub id: DatabaseId,
    pub table: TableName,
    permit: WritePermit,
}

/// What such a task works with.
pub(super) struct Work {
    pub state: AppState,
    pub id: DatabaseId,
    pub table: TableName,
    pub context: TaskContext,
    /// Cancelled when a caller wants it, and when the lease ends.
    pub stop: CancellationToken,
}

impl Job {
    pub(super) async fn new(state: AppState, headers: &HeaderMap, id: &str, table: &str) -> Result<Self, ApiError> {
        let permit = state.write_permit(headers).await?;
        Ok(Self {
            id: DatabaseId::parse(id)?,
            table: TableName::parse(table)?,
            state,
            permit,
        })
    }

    /// Starts the task, unless one for the same table is at work, and waits for it if the caller does.
    pub(super) async fn run<W, T>(
        self,
        action: &'static str,
        turn: Option<Arc<Semaphore>>,
        asynchronous: bool,
        work: impl FnOnce(Work) -> W + Send + 'static,
    ) -> Result<Response, ApiError>
    where
        W: Future<Output = Result<T, ApiError>> + Send + 'static,
        T: Serialize + Send + 'static,
    {
        let Self {
            state,
            id,
            table,
            permit,
        } = self;
        let (finish, finished) = Finish::<Value>::pair();
        let starting = state.starting.lock().await;
        check_idle(&state, &id, &table)?;
        let about = [
            ("graph_id", id.as_str()),
            ("table_name", table.as_str()),
            ("operation", action),
        ];
        let metadata = Map::from_iter(about.map(|(name, value)| (name.to_owned(), json!(value))));
        // The graph comes second, as in every task's id: the control plane tells tenants' tasks by it.
        let name = format!("vector_{id}_{action}_{table}");
        let message = format!("Vectors of table {table}: {action} started");
        let running = {
            let state = state.clone();
            move |context: TaskContext| async move {
                let stop = context.cancelled().child_token();
                let work = work(Work {
                    state,
                    id,
                    table,
                    context,
                    stop: stop.clone(),
                });
                let mut work = std::pin::pin!(work);
                let outcome = tokio::select! {
                    biased;
                    outcome = &mut work => outcome,
                    () = permit.ends.cancelled() => {
                        stop.cancel();
                        // Waited for, so that the task is not recorded as ended while something of it is still written.
                        work.await.map_err(|_| Refusal::Fenced.into())
                    }
                };
                let failed = |error: serde_json::Error| {
                    ApiError::new(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        format!("the answer cannot be encoded: {error}"),
                    )
                };
                let outcome = outcome.and_then(|answer| serde_json::to_value(answer).map_err(failed));
                finish.run(outcome, Value::clone)
            }
        };
        let task = state
            .tasks
            .start(TaskType::Vector, &name, metadata, turn, running)
            .await?;
        drop(starting);
        if asynchronous {
            return started_body(&task.id, &message);
        }
        let mut answer = wait_for(&state, &task, finished).await?;
        answer["task_id"] = json!(task.id);
        body::value(&answer)
    }
}
