//! `POST /databases/{id}/export`: starts an export to the node's object store, in files that every version of the engines
//! reads.

use super::{
    BODY_LIMIT,
    backup::{COPY_TIMEOUT, destination, encryption_key, store},
    body,
    databases::missing,
    error::ApiError,
    openapi::Operation,
    tasks::monitor_url,
    validation::Fields,
};
use crate::{
    backup::BackupKey,
    engines::DatabaseId,
    migration::{ExportJob, MigrationError},
    objects::BackupStore,
    registration::lease::Refusal,
    state::{AppState, WritePermit},
    tasks::{TaskContext, TaskType},
};
use axum::{
    extract::{Path, Request, State},
    http::StatusCode,
    response::Response,
};
use object_store::path::Path as ObjectPath;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

/// The operations of this module.
pub(super) fn operations() -> Vec<Operation> {
    let operation = Operation::new(
        "post /databases/{id}/export",
        "export",
        "Starts an export to the object store, for another version of the engines",
    )
    .notes("An export to the same key that is under way already is that task. Writers wait only while the database is copied.")
    .changes()
    .may_read(Asked::read)
    .fails(&[404, 507])
    .gives::<ExportStarted>("The task to follow.");
    vec![operation]
}

/// An export that was started.
#[derive(Serialize, JsonSchema)]
struct ExportStarted {
    task_id: String,
    /// `initiated`.
    status: &'static str,
    message: String,
    database: String,
    /// `parquet`.
    export_format: &'static str,
    monitor_url: String,
    /// Where it goes, below the object store.
    key: String,
}

/// A request as its body has it.
struct Asked {
    destination: Option<Map<String, Value>>,
    encryption: bool,
    with_staging: bool,
}

impl Asked {
    fn read(fields: &mut Fields) -> Self {
        fields.shape("destination", destination);
        Self {
            destination: fields.object("destination"),
            encryption: fields.flag("encryption", false),
            with_staging: fields.flag("include_duckdb", true),
        }
    }

    /// The key that the caller wants, if any.
    fn key(&mut self) -> Result<Option<String>, ApiError> {
        let Some(mut fields) = self.destination.take() else {
            return Ok(None);
        };
        match (fields.remove("key"), fields.is_empty()) {
            (Some(Value::String(key)), true) => Ok(Some(key)),
            _ => Err(ApiError::bad_request(
                "destination: expected {\"key\": \"exports/<graph>/<epoch>/<name>\"}",
            )),
        }
    }
}

/// Starts the task; an export to the same key that is under way already is that task.
pub(super) async fn post(
    State(state): State<AppState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    // An export begins with a checkpoint, which changes the volume.
    let permit = state.write_permit(&parts.headers).await?;
    let id = DatabaseId::parse(&id)?;
    let mut fields = Fields::parse_or_empty(&body::read(body, BODY_LIMIT).await?)?;
    let mut asked = Asked::read(&mut fields);
    fields.finish()?;
    let encryption = encryption_key(&state, asked.encryption)?;
    let Ok(info) = state.engines.info(&id) else {
        return Err(missing(&id));
    };
    if let Some(problem) = info.problem {
        return Err(ApiError::new(StatusCode::CONFLICT, problem));
    }
    let store = store(&state)?;
    let key = asked.key()?.unwrap_or_else(|| fresh_key(&state, id.as_str()));
    let path = BackupStore::key(&key)?;
    // A copy, and the files that are made of it.
    state.check_disk((info.size_bytes + info.staging_bytes).saturating_mul(2))?;

    let starting = state.starting.lock().await;
    let key_id = encryption.as_ref().map_or_else(|| "none".to_owned(), BackupKey::id);
    let about = [
        ("graph_id", id.as_str()),
        ("key", key.as_str()),
        ("encryption_key_id", key_id.as_str()),
    ];
    let task_id = match state.tasks.find_unfinished(TaskType::Export, &about) {
        Some(running) => running,
        None => {
            let metadata = about.map(|(name, value)| (name.to_owned(), json!(value)));
            let job = ExportJob {
                with_staging: asked.with_staging,
                encryption,
                ..job(&state, &id, store, path)
            };
            let work = move |context: TaskContext| async move {
                let progress = |done, total| context.progress(done, total);
                let export = |stop: CancellationToken| async move { job.run(progress, &stop).await };
                let exported = stoppable(&permit, &context, export).await?;
                Ok(exported.result())
            };
            let turn = Some(state.backup_turn.clone());
            let name = format!("export_{id}");
            let metadata = Map::from_iter(metadata);
            state
                .tasks
                .start(TaskType::Export, &name, metadata, turn, work)
                .await?
                .id
        }
    };
    drop(starting);
    body::value(&ExportStarted {
        monitor_url: monitor_url(&task_id),
        task_id,
        status: "initiated",
        message: format!("Export of {id} to {key} started"),
        database: id.to_string(),
        export_format: "parquet",
        key,
    })
}

/// A key that no export has yet.
pub(super) fn fresh_key(state: &AppState, name: &str) -> String {
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ");
    format!("exports/{name}/{}/{now}", state.standing.volume_epoch())
}

/// The export of a database with its staging, without encryption.
pub(super) fn job(state: &AppState, id: &DatabaseId, store: BackupStore, key: ObjectPath) -> ExportJob {
    ExportJob {
        engines: state.engines.clone(),
        id: id.clone(),
        store,
        key,
        encryption: None,
        scratch: state.scratch(),
        epoch: state.standing.volume_epoch(),
        with_staging: true,
        timeout: COPY_TIMEOUT,
    }
}

/// Does work that ends by itself when it is told to: by who cancels the task, or because the lease has ended.
pub(super) async fn stoppable<T, W>(
    permit: &WritePermit,
    context: &TaskContext,
    work: impl FnOnce(CancellationToken) -> W,
) -> Result<T, String>
where
    W: Future<Output = Result<T, MigrationError>>,
{
    let stop = context.cancelled().child_token();
    let mut work = std::pin::pin!(work(stop.clone()));
    tokio::select! {
        biased;
        done = &mut work => done.map_err(|error| error.to_string()),
        () = permit.ends.cancelled() => {
            stop.cancel();
            // Waited for, so that the task is not recorded as ended while something of it is still written.
            work.await.map_err(|_| Refusal::Fenced.message().to_owned())
        }
    }
}
