//! `POST /databases/{id}/backup`: starts a backup to the node's object store.

use super::{
    BODY_LIMIT, body,
    databases::missing,
    error::ApiError,
    validation::{ANY, Fields, Text},
};
use crate::{
    backup::{BackupError, BackupJob, Manifest},
    engines::DatabaseId,
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
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Starts the task; a backup to the same key that is under way already is that task.
pub(super) async fn post(
    State(state): State<AppState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    // A backup begins with a checkpoint, which changes the volume.
    let permit = state.write_permit(&parts.headers).await?;
    let id = DatabaseId::parse(&id)?;
    let mut fields = Fields::parse_or_empty(&body::read(body, BODY_LIMIT).await?)?;
    let format = fields.text(
        "backup_format",
        Text {
            one_of: Some(&["full_dump"]),
            ..ANY
        },
    );
    fields.flag("include_metadata", true);
    let compression = fields.flag("compression", true);
    let encryption = fields.flag("encryption", false);
    let destination = fields.object("destination");
    fields.finish()?;
    if encryption {
        return Err(ApiError::bad_request(
            "encryption: this node does not encrypt backups itself; use encryption at rest of the object store",
        ));
    }
    if !compression {
        return Err(ApiError::bad_request(
            "compression: backups are always compressed (zstd)",
        ));
    }
    if !state.engines.contains(&id) {
        return Err(missing(&id));
    }
    let Some(store) = state.backup_store.read().clone() else {
        return Err(ApiError::bad_request(
            "no object store is configured on this node; start it with --object-store, or name one in its configuration",
        ));
    };
    let epoch = state.standing.volume_epoch();
    let key = match destination {
        None => format!(
            "backups/{id}/{epoch}/{}",
            jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ")
        ),
        Some(mut fields) => match (fields.remove("key"), fields.is_empty()) {
            (Some(Value::String(key)), true) => key,
            _ => {
                return Err(ApiError::bad_request(
                    "destination: expected {\"key\": \"backups/<graph>/<epoch>/<name>\"}",
                ));
            }
        },
    };
    let path = BackupStore::key(&key)?;

    let starting = state.starting.lock().await;
    let about = [("graph_id", id.as_str()), ("key", key.as_str())];
    let task_id = match state.tasks.find_unfinished(TaskType::Backup, &about) {
        Some(running) => running,
        None => {
            let metadata = Map::from_iter([
                ("graph_id".to_owned(), json!(id.as_str())),
                ("key".to_owned(), json!(key)),
                ("epoch".to_owned(), json!(epoch)),
            ]);
            let work = {
                let (state, id) = (state.clone(), id.clone());
                move |context: TaskContext| async move {
                    let manifest = run(&state, &id, store, path, epoch, &permit, &context).await?;
                    state.metrics.backup_bytes.inc_by(manifest.size_bytes());
                    Ok(manifest.result())
                }
            };
            let turn = Some(state.backup_turn.clone());
            state
                .tasks
                .start(TaskType::Backup, &format!("backup_{id}"), metadata, turn, work)
                .await?
                .id
        }
    };
    drop(starting);
    let mut response = body::value(&json!({
        "task_id": task_id,
        "status": "initiated",
        "message": format!("Backup of {id} to {key} started"),
        "database": id.as_str(),
        "backup_format": format.unwrap_or_else(|| "full_dump".to_owned()),
        "monitor_url": format!("/tasks/{task_id}/monitor"),
        "estimated_completion_time": Value::Null,
        "key": key,
    }))?;
    *response.status_mut() = StatusCode::OK;
    Ok(response)
}

async fn run(
    state: &AppState,
    id: &DatabaseId,
    store: BackupStore,
    key: ObjectPath,
    epoch: u64,
    permit: &WritePermit,
    context: &TaskContext,
) -> Result<Manifest, String> {
    let job = BackupJob {
        engines: state.engines.clone(),
        database: state.engines.database(id).await.map_err(|error| error.to_string())?,
        store,
        key,
        scratch: state.facts.data_dir.join("tmp"),
        epoch,
        timeout: Duration::from_secs(600),
    };
    tokio::select! {
        result = job.run(|done, total| context.progress(done, total)) => result.map_err(|error: BackupError| error.to_string()),
        () = context.cancelled().cancelled() => Err("cancelled".to_owned()),
        () = permit.ends.cancelled() => Err(Refusal::Fenced.message().to_owned()),
    }
}
