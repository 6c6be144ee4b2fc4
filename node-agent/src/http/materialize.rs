//! `POST /databases/{id}/tables/{table}/materialize`: a staging table into the graph.
//!
//! A task does it. The contract's answer waits for that task, so a client that gives up after its own timeout and tries
//! again does not load the rows twice: it is told that the first attempt is still at work.

use super::{
    BODY_LIMIT, body,
    databases::{elapsed_ms, missing},
    error::ApiError,
    headers,
    tables::already,
    tasks::{Finish, started_body, wait_for},
    validation::{Fields, IDENTIFIER, Text},
};
use crate::{
    engines::{
        DatabaseId, FileId, MaterializeReport, MaterializeRequest, MaterializeStatus, ProgressUpdate, TableKind,
        TableName,
    },
    state::{AppState, WritePermit},
    tasks::{TaskContext, TaskType},
};
use axum::{
    extract::{Path, Request, State},
    response::Response,
};
use serde_json::{Map, Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Starts the task, and waits for it unless the caller prefers not to.
pub(super) async fn post(
    State(state): State<AppState>,
    Path((id, table)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let permit = state.write_permit(&parts.headers).await?;
    let (id, table) = (DatabaseId::parse(&id)?, TableName::parse(&table)?);
    let wanted = parse(&body::read(body, BODY_LIMIT).await?, table.clone(), &state)?;
    if !state.engines.contains(&id) {
        return Err(missing(&id));
    }
    state.admission.check_memory()?;

    let (finish, finished) = Finish::<MaterializeReport>::pair();
    let starting = state.starting.lock().await;
    let about = [("graph_id", id.as_str()), ("table_name", table.as_str())];
    if let Some(running) = state.tasks.find_unfinished(TaskType::Ingestion, &about) {
        return Err(already(&id, table.as_str(), &running));
    }
    let metadata = Map::from_iter([
        ("graph_id".to_owned(), json!(id.as_str())),
        ("table_name".to_owned(), json!(table.as_str())),
        (
            "file_ids".to_owned(),
            json!(
                wanted
                    .file_ids
                    .as_ref()
                    .map(|ids| ids.iter().map(FileId::as_str).collect::<Vec<_>>())
            ),
        ),
    ]);
    let work = {
        let (state, id) = (state.clone(), id.clone());
        move |context: TaskContext| async move {
            finish.run(materialize(&state, &id, wanted, &permit, &context).await, |report| {
                report_body(&id, report, report.execution_ms)
            })
        }
    };
    let name = format!("ingest_{id}_{table}");
    let task = state
        .tasks
        .start(TaskType::Ingestion, &name, metadata, Some(state.load_turn(&id)), work)
        .await?;
    drop(starting);
    if headers::prefers_async(&parts.headers) {
        return started_body(&task.id, &format!("Materialisation of table {table} started"));
    }
    let report = wait_for(&state, &task, finished).await?;
    let mut answer = report_body(&id, &report, elapsed_ms(started));
    answer["task_id"] = json!(task.id);
    body::value(&answer)
}

fn parse(body: &[u8], table: TableName, state: &AppState) -> Result<MaterializeRequest, ApiError> {
    let mut fields = Fields::parse_or_empty(body)?;
    // Accepted for clients of the contract: rows that break the schema are always left out and always counted.
    fields.flag("ignore_errors", true);
    let file_ids = fields.texts("file_ids");
    let create_table = fields.flag("create_table", false);
    let rule = Text {
        max: Some(128),
        ..IDENTIFIER
    };
    let (from, to) = (fields.text("from_table", rule), fields.text("to_table", rule));
    fields.finish()?;
    let names = |name: Option<String>| name.map(|name| TableName::parse(&name)).transpose();
    let unlimited = Duration::from_secs(24 * 3600);
    Ok(MaterializeRequest {
        table,
        file_ids: file_ids
            .map(|ids| ids.iter().map(|id| FileId::parse(id)).collect())
            .transpose()?,
        create_table,
        from_table: names(from)?,
        to_table: names(to)?,
        timeout: state.settings().copy.timeout().unwrap_or(unlimited),
    })
}

/// Materialises until it is done, cancelled, or the lease has ended.
pub(super) async fn materialize(
    state: &AppState,
    id: &DatabaseId,
    request: MaterializeRequest,
    permit: &WritePermit,
    context: &TaskContext,
) -> Result<MaterializeReport, ApiError> {
    let database = state.engines.database(id).await?;
    let staging = state.engines.staging(id).await?;
    let progress = {
        let context = context.clone();
        Arc::new(move |update: ProgressUpdate| context.progress(update.rows_done, update.rows_total))
    };
    // One token for both reasons to stop: a caller's cancel, and the end of the lease.
    let stop = context.cancelled().child_token();
    let work = database.materialize(&staging, request, progress, stop.clone());
    let mut work = std::pin::pin!(work);
    let report = tokio::select! {
        biased;
        report = &mut work => report?,
        () = permit.ends.cancelled() => {
            stop.cancel();
            // Waited for, so that the task is not recorded as ended while the engine still rolls back.
            work.await.map_err(|_| crate::registration::lease::Refusal::Fenced)?
        }
    };
    state.metrics.materialized_rows.inc_by(report.rows_ingested);
    Ok(report)
}

/// A report as answers and task records have it.
pub(super) fn report_body(id: &DatabaseId, report: &MaterializeReport, execution_time_ms: f64) -> Value {
    json!({
        "status": match report.status { MaterializeStatus::Done => "success", MaterializeStatus::Skipped => "skipped" },
        "graph_id": id.as_str(),
        "table_name": report.table.as_str(),
        "rows_ingested": report.rows_ingested,
        "execution_time_ms": execution_time_ms,
        "kind": match report.kind { TableKind::Node => "node", TableKind::Relationship => "relationship" },
        "rows_staged": report.rows_staged,
        "rejected": {
            "null_keys": report.rejected.null_keys,
            "duplicates": report.rejected.duplicates,
            "already_present": report.rejected.already_present,
            "dangling": report.rejected.dangling,
        },
        "created_table": report.created_table,
        "filled_with_null": report.filled_with_null,
        "ignored_columns": report.ignored_columns,
    })
}
