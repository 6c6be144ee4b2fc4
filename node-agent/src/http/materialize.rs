//! `POST /databases/{id}/tables/{table}/materialize`: a staging table into the graph.
//!
//! A task does it. The contract's answer waits for that task, so a client that gives up after its own timeout and tries
//! again does not load the rows twice: it is told that the first attempt is still at work.

use super::{
    BODY_LIMIT, body,
    databases::{elapsed_ms, missing},
    error::ApiError,
    headers,
    openapi::{Operation, Written, query, schema_of},
    rebuild::check_not_rebuilt,
    tables::{UNLIMITED, already},
    tasks::{Finish, started_body, wait_for},
    validation::{Fields, IDENTIFIER, Text},
};
use crate::{
    engines::{
        Batch, DatabaseId, FileId, MaterializeReport, MaterializeRequest, MaterializeStatus, ProgressUpdate, TableKind,
        TableName,
    },
    state::{AppState, WritePermit},
    tasks::{TaskContext, TaskType},
};
use axum::{
    extract::{Path, Request, State},
    http::{HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::Response,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::{sync::Arc, time::Instant};

/// Most parts into which a table can be divided.
const MOST_BATCHES: u64 = 10_000;

/// The operations of this module.
pub(super) fn operations() -> Vec<Operation> {
    let task = query(
        "task",
        json!({"type": "string", "minLength": 1}),
        "The id of a materialise task.",
    );
    vec![
        Operation::new(
            "post /databases/{id}/tables/{table}/materialize",
            "materialize",
            "A staging table into the graph",
        )
        .notes("`dry_run` changes nothing and says what would fail; `create_table` makes the table of the graph.")
        .changes()
        .may_read(Asked::read)
        .asks_engine()
        .gives::<Loaded>("What was loaded, and what was left out.")
        .gives_task_if_preferred(),
        Operation::new(
            "get /databases/{id}/tables/{table}/rejected",
            "rejected_rows",
            "The rows that a materialise task left out",
        )
        .with([task.required()])
        .answers(
            200,
            "The rows, with the reason of each.",
            &[("application/x-ndjson", Written::Lines(schema_of::<RejectedRow>))],
        ),
    ]
}

/// A row that was left out.
#[derive(Serialize, JsonSchema)]
struct RejectedRow {
    /// `invalid`, `null_keys`, `dangling`, `duplicates` or `already_present`.
    reason: String,
    row: Map<String, Value>,
}

/// What a load of one table has done, or would do.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TableLoaded")]
pub(super) struct Loaded {
    /// `success`, `skipped` or `dry_run`.
    status: &'static str,
    graph_id: String,
    table_name: String,
    rows_ingested: u64,
    execution_time_ms: f64,
    /// `node` or `relationship`.
    kind: &'static str,
    rows_staged: u64,
    rejected: RejectedCounts,
    /// Rows that can be fetched with the task's id.
    rejected_rows_kept: usize,
    created_table: bool,
    /// Columns of the graph's table that the staging table has not.
    filled_with_null: Vec<String>,
    /// Columns of the staging table that the graph's table has not.
    ignored_columns: Vec<String>,
    /// Of a dry run: rows that would be loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    rows_acceptable: Option<u64>,
    /// Of a dry run: whether values do not fit their column.
    #[serde(skip_serializing_if = "Option::is_none")]
    would_fail: Option<bool>,
    /// Of a dry run: the columns that values do not fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    invalid_columns: Option<Vec<InvalidColumn>>,
    /// The task that did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<String>,
}

/// Rows that were left out, by reason.
#[derive(Serialize, JsonSchema)]
struct RejectedCounts {
    null_keys: u64,
    duplicates: u64,
    already_present: u64,
    dangling: u64,
    /// Of a dry run: rows with values that do not fit their column.
    #[serde(skip_serializing_if = "Option::is_none")]
    invalid: Option<u64>,
}

/// A column that values do not fit.
#[derive(Serialize, JsonSchema)]
struct InvalidColumn {
    column: String,
    #[serde(rename = "type")]
    kind: String,
    rows: u64,
    example: String,
}

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
    let (wanted, source) = parse(&body::read(body, BODY_LIMIT).await?, table.clone(), &state)?;
    let source = source.unwrap_or_else(|| id.clone());
    check_source(&id, &source)?;
    for needed in [&id, &source] {
        if !state.engines.contains(needed) {
            return Err(missing(needed));
        }
    }
    state.admission.check_memory()?;

    let (finish, finished) = Finish::<MaterializeReport>::pair();
    let starting = state.starting.lock().await;
    let about = [("graph_id", id.as_str()), ("table_name", table.as_str())];
    if let Some(running) = state.tasks.find_unfinished(TaskType::Ingestion, &about) {
        return Err(already(&id, table.as_str(), &running));
    }
    check_not_rebuilt(&state, &id)?;
    // All batches are one load, and none of them is all of it without the first.
    if !wanted.dry_run && wanted.batch.is_none_or(|batch| batch.number == 0) {
        state.count_load(&id).await?;
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
        ("dry_run".to_owned(), json!(wanted.dry_run)),
        ("source_graph_id".to_owned(), json!(source.as_str())),
        ("batch_num".to_owned(), json!(wanted.batch.map(|batch| batch.number))),
        ("num_batches".to_owned(), json!(wanted.batch.map(|batch| batch.of))),
    ]);
    let work = {
        let (state, id) = (state.clone(), id.clone());
        move |context: TaskContext| async move {
            let done = materialize(&state, &id, &source, wanted, &permit, &context).await;
            finish.run(done, |report| json!(Loaded::of(&id, report, report.execution_ms)))
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
    body::value(&Loaded {
        task_id: Some(task.id),
        ..Loaded::of(&id, &report, elapsed_ms(started))
    })
}

/// A request as its body has it.
struct Asked {
    dry_run: bool,
    file_ids: Option<Vec<String>>,
    create_table: bool,
    from: Option<String>,
    to: Option<String>,
    source: Option<String>,
    embeddings: bool,
    batch: (Option<u64>, Option<u64>),
}

impl Asked {
    fn read(fields: &mut Fields) -> Self {
        // Accepted for clients of the contract: rows that break the schema are always left out and always counted.
        fields.flag("ignore_errors", true);
        // What is there already is never added again.
        fields.flag("incremental", true);
        let rule = Text {
            max: Some(128),
            ..IDENTIFIER
        };
        Self {
            dry_run: fields.flag("dry_run", false),
            file_ids: fields.texts("file_ids"),
            create_table: fields.flag("create_table", false),
            from: fields.text("from_table", rule),
            to: fields.text("to_table", rule),
            source: fields.text("source_graph_id", IDENTIFIER),
            embeddings: fields.flag("materialize_embeddings", false),
            batch: (
                fields.whole("batch_num", 0..=MOST_BATCHES - 1),
                fields.whole("num_batches", 1..=MOST_BATCHES),
            ),
        }
    }
}

/// What to load, and whose staging table it is in if that is not the graph's own.
fn parse(
    body: &[u8],
    table: TableName,
    state: &AppState,
) -> Result<(MaterializeRequest, Option<DatabaseId>), ApiError> {
    let mut fields = Fields::parse_or_empty(body)?;
    let asked = Asked::read(&mut fields);
    fields.finish()?;
    let batch = match asked.batch {
        (None, None) => None,
        (Some(number), Some(of)) if number < of => Some(Batch {
            number: u32::try_from(number).unwrap_or_default(),
            of: u32::try_from(of).unwrap_or(1),
        }),
        _ => {
            return Err(ApiError::bad_request(
                "batch_num: must be given together with num_batches, and be less than it",
            ));
        }
    };
    let source = asked.source.map(|source| DatabaseId::parse(&source)).transpose()?;
    let names = |name: Option<String>| name.map(|name| TableName::parse(&name)).transpose();
    let request = MaterializeRequest {
        table,
        file_ids: asked
            .file_ids
            .map(|ids| ids.iter().map(|id| FileId::parse(id)).collect())
            .transpose()?,
        create_table: asked.create_table,
        from_table: names(asked.from)?,
        to_table: names(asked.to)?,
        batch,
        embeddings: asked.embeddings,
        dry_run: asked.dry_run,
        timeout: state.settings().copy.timeout().unwrap_or(UNLIMITED),
    };
    Ok((request, source))
}

/// The staging of another graph may be read by the database that is to take its place, and by its subgraphs: who may use
/// these may use the graph.
fn check_source(id: &DatabaseId, source: &DatabaseId) -> Result<(), ApiError> {
    let target = id.predecessor().unwrap_or_else(|| id.clone());
    let below = target.as_str().strip_prefix(source.as_str());
    if id == source || below.is_some_and(|rest| rest.is_empty() || rest.starts_with('_')) {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "source_graph_id: {id} can be filled from its own staging tables, or from those of the graph that it is a subgraph of or is to replace"
    )))
}

/// Materialises from the staging tables of `source` until it is done, cancelled, or the lease has ended.
pub(super) async fn materialize(
    state: &AppState,
    id: &DatabaseId,
    source: &DatabaseId,
    request: MaterializeRequest,
    permit: &WritePermit,
    context: &TaskContext,
) -> Result<MaterializeReport, ApiError> {
    let table = request.table.clone();
    let database = state.engines.database(id).await?;
    let staging = state.engines.staging(source).await?;
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
    if report.status == MaterializeStatus::Done {
        state.metrics.materialized_rows.inc_by(report.rows_ingested);
    }
    keep_rejected(state, id, context, &table, &report).await;
    Ok(report)
}

/// Keeps the rows that were left out with the task. The run itself has succeeded, so it does not fail for their sake.
pub(super) async fn keep_rejected(
    state: &AppState,
    id: &DatabaseId,
    context: &TaskContext,
    table: &TableName,
    report: &MaterializeReport,
) {
    if !report.rejected_rows.is_empty()
        && let Err(error) = state.tasks.attach(context, table, report.rejected_rows.clone()).await
    {
        tracing::warn!(operation = "materialize", graph = %id, %table, %error, "rejected rows could not be kept");
    }
}

/// The rows that a task left out, one JSON object a line.
pub(super) async fn rejected(
    State(state): State<AppState>,
    Path((id, table)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    let Some(task) = headers::parameter(request.uri().query(), "task") else {
        return Err(ApiError::bad_request("task: the id of a materialise task is missing"));
    };
    let table = TableName::parse(&table)?;
    let record = state.tasks.get(&task)?;
    let tables = record.metadata.get("tables").and_then(Value::as_array);
    let about_table = match record.task_type {
        TaskType::Rebuild => true,
        TaskType::Ingestion => {
            record.says("table_name", table.as_str())
                || tables.is_some_and(|tables| tables.iter().any(|one| one == table.as_str()))
        }
        _ => false,
    };
    if !about_table || !record.says("graph_id", &id) {
        return Err(ApiError::new(
            StatusCode::NOT_FOUND,
            format!("Task {task} is not about table {table} of {id}"),
        ));
    }
    let rows = state.tasks.attached(&task, &table).await?.unwrap_or_default();
    let mut response = Response::new(rows.into());
    let ndjson = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(CONTENT_TYPE, ndjson);
    Ok(response)
}

impl Loaded {
    /// A report as answers and task records have it.
    pub(super) fn of(id: &DatabaseId, report: &MaterializeReport, execution_time_ms: f64) -> Self {
        let dry_run = report.status == MaterializeStatus::Rehearsed;
        let invalid = report.invalid_columns.iter().map(|column| InvalidColumn {
            column: column.column.clone(),
            kind: column.type_name.clone(),
            rows: column.rows,
            example: column.example.clone(),
        });
        Self {
            status: match report.status {
                MaterializeStatus::Done => "success",
                MaterializeStatus::Skipped => "skipped",
                MaterializeStatus::Rehearsed => "dry_run",
            },
            graph_id: id.to_string(),
            table_name: report.table.clone(),
            rows_ingested: if dry_run { 0 } else { report.rows_ingested },
            execution_time_ms,
            kind: match report.kind {
                TableKind::Node => "node",
                TableKind::Relationship => "relationship",
            },
            rows_staged: report.rows_staged,
            rejected: RejectedCounts {
                null_keys: report.rejected.null_keys,
                duplicates: report.rejected.duplicates,
                already_present: report.rejected.already_present,
                dangling: report.rejected.dangling,
                invalid: dry_run.then_some(report.rejected.invalid),
            },
            rejected_rows_kept: report.rejected_rows.iter().filter(|byte| **byte == b'\n').count(),
            created_table: report.created_table,
            filled_with_null: report.filled_with_null.clone(),
            ignored_columns: report.ignored_columns.clone(),
            rows_acceptable: dry_run.then_some(report.rows_ingested),
            would_fail: dry_run.then_some(!report.invalid_columns.is_empty()),
            invalid_columns: dry_run.then(|| invalid.collect()),
            task_id: None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn staging_of_others_is_not_read() {
        let check = |id: &str, source: &str| check_source(&id.parse().unwrap(), &source.parse().unwrap()).is_ok();
        for (id, source) in [
            ("kg1", "kg1"),
            ("kg1-wip", "kg1"),
            ("kg1-wip", "kg1-wip"),
            ("kg1_dev", "kg1"),
            ("kg1_dev-wip", "kg1"),
        ] {
            assert!(check(id, source), "{id} from {source}");
        }
        for (id, source) in [
            ("kg1", "kg2"),
            ("kg1", "kg"),
            ("kg1", "kg1_dev"),
            ("kg1", "kg1-wip"),
            ("kg1-wip", "kg"),
        ] {
            assert!(!check(id, source), "{id} from {source}");
        }
    }
}
