//! Staging tables: made from files of the object store, listed, and deleted.

use super::{
    BODY_LIMIT, body,
    databases::{elapsed_ms, missing},
    error::ApiError,
    headers,
    openapi::Operation,
    rebuild::{begin_change, check_not_rebuilt},
    sources::{Asked, Wanted, stage_sources},
    tasks::{Finish, monitor_url, started_body, wait_for},
};
use crate::{
    engines::{DatabaseId, FileId, StageMode, StageReport, StagingColumn, StagingKind, TableName},
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
use std::time::{Duration, Instant};

/// The time limit of work that has none.
pub(super) const UNLIMITED: Duration = Duration::from_secs(24 * 3600);

/// The operations of this module.
pub(super) fn operations() -> Vec<Operation> {
    let load = |line, id, summary, names_table| {
        Operation::new(line, id, summary)
            .changes()
            .reads(|fields| Asked::read(fields, names_table))
            .fails(&[502, 507])
            .gives::<TableStaged>("The files are staged.")
            .gives_task_if_preferred()
    };
    vec![
        Operation::new(
            "get /databases/{id}/tables",
            "table_list",
            "Staging tables with rows, columns and files",
        )
        .asks_engine()
        .gives::<Vec<TableBody>>("The tables."),
        load(
            "post /databases/{id}/tables",
            "table_create",
            "Makes or replaces a staging table from files",
            true,
        ),
        load(
            "post /databases/{id}/tables/{table}/insert",
            "table_insert",
            "Adds files to a staging table; rows of a file that it has already are replaced",
            false,
        ),
        Operation::new(
            "delete /databases/{id}/tables/{table}",
            "table_delete",
            "Deletes a staging table",
        )
        .changes()
        .asks_engine()
        .gives::<TableDeleted>("It is gone, or was not there."),
        Operation::new(
            "delete /databases/{id}/tables/{table}/files/{file_id}",
            "file_delete",
            "Deletes the rows of one file",
        )
        .changes()
        .asks_engine()
        .gives::<FileDeleted>("They are gone, or there were none."),
    ]
}

/// A staging table.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "StagingTable")]
struct TableBody {
    graph_id: String,
    table_name: String,
    row_count: u64,
    /// Always 0, as in the contract.
    size_bytes: u64,
    /// Always null: rows are in the node's own file.
    s3_location: Option<String>,
    /// `node`, `relationship` or `other`.
    kind: &'static str,
    columns: Vec<StagingColumn>,
    files: Vec<FileBody>,
}

/// A file of a staging table.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "StagingFile")]
struct FileBody {
    file_id: String,
    row_count: u64,
}

/// Files that were staged.
#[derive(Serialize, JsonSchema)]
struct TableStaged {
    /// `success`.
    status: &'static str,
    graph_id: String,
    table_name: String,
    execution_time_ms: f64,
    row_count: u64,
    kind: &'static str,
    columns: Vec<StagingColumn>,
    files: Vec<FileBody>,
    /// The task that did it: later clients of the contract follow it, and find that it has ended.
    task_id: String,
    sse_url: String,
}

/// A staging table that was deleted.
#[derive(Serialize, JsonSchema)]
struct TableDeleted {
    /// `success`.
    status: &'static str,
    message: String,
}

/// Rows that were deleted.
#[derive(Serialize, JsonSchema)]
struct FileDeleted {
    /// `success`.
    status: &'static str,
    rows_deleted: u64,
    message: String,
}

/// Every staging table; a graph without staging has none, and none is made by looking.
pub(super) async fn list(State(state): State<AppState>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let id = DatabaseId::parse(&id)?;
    if !state.engines.contains(&id) {
        return Err(missing(&id));
    }
    if !state.engines.has_staging(&id) {
        return Ok(body::json("[]"));
    }
    let _place = state.admission.enter(id.as_str()).await?;
    let staging = state.engines.staging(&id).await?;
    let tables = staging.tables().await?.into_iter().map(|table| TableBody {
        graph_id: id.to_string(),
        table_name: table.name,
        row_count: table.rows,
        size_bytes: 0,
        s3_location: None,
        kind: kind_word(table.kind),
        columns: table.columns,
        files: table
            .files
            .into_iter()
            .map(|(file_id, row_count)| FileBody { file_id, row_count })
            .collect(),
    });
    body::value(&tables.collect::<Vec<_>>())
}

pub(super) fn kind_word(kind: StagingKind) -> &'static str {
    match kind {
        StagingKind::Node => "node",
        StagingKind::Relationship => "relationship",
        StagingKind::Other => "other",
    }
}

/// Makes (or replaces) a staging table from files. A task does it, so that a caller that goes away does not
/// leave half of it; without `Prefer: respond-async` the answer waits for the task.
pub(super) async fn create(
    State(state): State<AppState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let permit = state.write_permit(&parts.headers).await?;
    let id = DatabaseId::parse(&id)?;
    let wanted = Wanted::parse(&body::read(body, BODY_LIMIT).await?, None)?;
    let asynchronous = headers::prefers_async(&parts.headers);
    load(state, id, wanted, StageMode::ReplaceTable, permit, asynchronous).await
}

/// Adds files to a staging table; rows of a file that it has already are replaced.
pub(super) async fn insert(
    State(state): State<AppState>,
    Path((id, table)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let permit = state.write_permit(&parts.headers).await?;
    let (id, table) = (DatabaseId::parse(&id)?, TableName::parse(&table)?);
    let wanted = Wanted::parse(&body::read(body, BODY_LIMIT).await?, Some(table))?;
    let asynchronous = headers::prefers_async(&parts.headers);
    load(state, id, wanted, StageMode::ReplaceFiles, permit, asynchronous).await
}

async fn load(
    state: AppState,
    id: DatabaseId,
    wanted: Wanted,
    mode: StageMode,
    permit: WritePermit,
    asynchronous: bool,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    if wanted.graph_id.as_deref().is_some_and(|given| given != id.as_str()) {
        return Err(ApiError::bad_request("graph_id: differs from the graph in the path"));
    }
    if !state.engines.contains(&id) {
        return Err(missing(&id));
    }
    let table = wanted.table;
    let addresses = json!(wanted.sources.patterns);
    let sources = wanted.sources.admit(&state, &id).await?;
    state.admission.check_memory()?;

    let (finish, finished) = Finish::<StageReport>::pair();
    let starting = state.starting.lock().await;
    let about = [("graph_id", id.as_str()), ("table_name", table.as_str())];
    if let Some(running) = state.tasks.find_unfinished(TaskType::Staging, &about) {
        return Err(already(&id, table.as_str(), &running));
    }
    check_not_rebuilt(&state, &id)?;
    let metadata = Map::from_iter([
        ("graph_id".to_owned(), json!(id.as_str())),
        ("table_name".to_owned(), json!(table.as_str())),
        ("sources".to_owned(), addresses),
    ]);
    let name = format!("staging_{id}_{table}");
    let work = {
        let (state, id, table) = (state.clone(), id.clone(), table.clone());
        move |context: TaskContext| async move {
            let staged = stage_sources(&state, &id, &table, &sources, mode, &permit, &context).await;
            finish.run(
                staged,
                |report| json!({"row_count": report.total_rows, "kind": kind_word(report.kind)}),
            )
        }
    };
    let task = state
        .tasks
        .start(TaskType::Staging, &name, metadata, Some(state.load_turn(&id)), work)
        .await?;
    drop(starting);
    if asynchronous {
        return started_body(&task.id, &format!("Staging of table {table} started"));
    }
    let report = wait_for(&state, &task, finished).await?;
    let file = |(id, row_count): (FileId, u64)| FileBody {
        file_id: id.to_string(),
        row_count,
    };
    body::value(&TableStaged {
        status: "success",
        graph_id: id.to_string(),
        table_name: table.to_string(),
        execution_time_ms: elapsed_ms(started),
        row_count: report.total_rows,
        kind: kind_word(report.kind),
        columns: report.columns,
        files: report.files.into_iter().map(file).collect(),
        sse_url: monitor_url(&task.id),
        task_id: task.id,
    })
}

pub(super) fn already(id: &DatabaseId, table: &str, task: &str) -> ApiError {
    ApiError::with_detail(
        StatusCode::CONFLICT,
        json!({
            "error": format!("Table {table} of {id} is being loaded already; follow task {task} instead of starting another"),
            "task_id": task,
            "monitor_url": monitor_url(task),
        }),
    )
}

/// Deletes a staging table; one that is not there is deleted already.
pub(super) async fn delete(
    State(state): State<AppState>,
    Path((id, table)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    let _permit = state.write_permit(request.headers()).await?;
    let (id, table) = (DatabaseId::parse(&id)?, TableName::parse(&table)?);
    if !state.engines.contains(&id) {
        return Err(missing(&id));
    }
    let _change = begin_change(&state, &id).await?;
    let existed = state.engines.has_staging(&id) && state.engines.staging(&id).await?.drop_table(&table).await?;
    tracing::info!(operation = "delete_table", graph = %id, table = %table, existed, "staging table deleted");
    let what = if existed {
        "deleted successfully"
    } else {
        "did not exist"
    };
    body::value(&TableDeleted {
        status: "success",
        message: format!("Table {table} {what}"),
    })
}

/// Deletes the rows that one file brought; none is a success too.
pub(super) async fn delete_file(
    State(state): State<AppState>,
    Path((id, table, file_id)): Path<(String, String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    let _permit = state.write_permit(request.headers()).await?;
    let (id, table, file_id) = (
        DatabaseId::parse(&id)?,
        TableName::parse(&table)?,
        FileId::parse(&file_id)?,
    );
    if !state.engines.contains(&id) {
        return Err(missing(&id));
    }
    let _change = begin_change(&state, &id).await?;
    let deleted = if state.engines.has_staging(&id) {
        state.engines.staging(&id).await?.remove_file(&table, &file_id).await?
    } else {
        0
    };
    tracing::info!(operation = "delete_file", graph = %id, table = %table, rows = deleted, "rows of a file deleted");
    body::value(&FileDeleted {
        status: "success",
        rows_deleted: deleted,
        message: format!("Deleted {deleted} rows of file {file_id} from table {table}"),
    })
}
