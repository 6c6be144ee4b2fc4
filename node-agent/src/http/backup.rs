//! `POST /databases/{id}/backup`: starts a backup to the node's object store, or the publication of a seed.

use super::{
    BODY_LIMIT, body,
    databases::missing,
    error::ApiError,
    validation::{ANY, Fields, Text},
};
use crate::{
    backup::{BackupJob, BackupKey, Manifest},
    engines::{DatabaseId, EngineError},
    objects::BackupStore,
    registration::lease::Refusal,
    seeds,
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

/// What sort of backup; the contract has more, which are of one installation.
const BACKUP_TYPES: Text = Text {
    one_of: Some(&["standard", "replica"]),
    ..ANY
};

/// What a backup is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// To be restored: lies under the key itself, and is the same however often it is asked for.
    Standard,
    /// To be served by replicas: lies below the key under a number, and is a new one each time.
    Replica,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Replica => "replica",
        }
    }
}

/// How long a copy may wait for writers.
pub(super) const COPY_TIMEOUT: Duration = Duration::from_secs(600);

/// Starts the task; a backup to the same key that is under way already is that task. A seed is always a task of its own:
/// one that is under way may lack what was written since it began.
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
    let purpose = match fields.text("backup_type", BACKUP_TYPES).as_deref() {
        Some("replica") => Purpose::Replica,
        _ => Purpose::Standard,
    };
    let with_staging = fields.flag("include_duckdb", purpose == Purpose::Standard);
    fields.flag("include_metadata", true);
    let compression = fields.flag("compression", true);
    let encryption = fields.flag("encryption", false);
    let destination = fields.object("destination");
    fields.finish()?;
    let encryption = match (encryption, &state.keyring) {
        (false, _) => None,
        (true, Some(keyring)) => Some(keyring.current().clone()),
        (true, None) => {
            return Err(ApiError::bad_request(
                "encryption: this node has no key for backups; start it with --backup-key-file",
            ));
        }
    };
    if !compression {
        return Err(ApiError::bad_request(
            "compression: backups are always compressed (zstd)",
        ));
    }
    if !state.engines.contains(&id) {
        return Err(missing(&id));
    }
    let store = store(&state)?;
    let epoch = state.standing.volume_epoch();
    let key = match destination {
        None if purpose == Purpose::Replica => format!("seeds/{id}"),
        None => fresh_key(&id, epoch, ""),
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
    let key_id = encryption.as_ref().map_or_else(|| "none".to_owned(), BackupKey::id);
    let about = [
        ("graph_id", id.as_str()),
        ("key", key.as_str()),
        ("backup_type", purpose.as_str()),
        ("encryption_key_id", key_id.as_str()),
    ];
    let running = match purpose {
        Purpose::Standard => state.tasks.find_unfinished(TaskType::Backup, &about),
        Purpose::Replica => None,
    };
    let task_id = match running {
        Some(running) => running,
        None => {
            let metadata = Map::from_iter([
                ("graph_id".to_owned(), json!(id.as_str())),
                ("key".to_owned(), json!(key)),
                ("epoch".to_owned(), json!(epoch)),
                ("backup_type".to_owned(), json!(purpose.as_str())),
                ("encryption_key_id".to_owned(), json!(key_id)),
            ]);
            let work = {
                let (state, id) = (state.clone(), id.clone());
                move |context: TaskContext| async move {
                    let job = job(&state, &id, store, path, encryption).await;
                    let job = BackupJob {
                        with_staging,
                        ..job.map_err(|error| error.to_string())?
                    };
                    let manifest = run(job, purpose, &permit, &context).await?;
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
        "backup_type": purpose.as_str(),
        "key": key,
    }))?;
    *response.status_mut() = StatusCode::OK;
    Ok(response)
}

/// Where this node keeps backups.
pub(super) fn store(state: &AppState) -> Result<BackupStore, ApiError> {
    state.backup_store.read().clone().ok_or_else(|| {
        ApiError::bad_request(
            "no object store is configured on this node; start it with --object-store, or name one in its configuration",
        )
    })
}

/// A key that no backup has yet.
pub(super) fn fresh_key(id: &DatabaseId, epoch: u64, prefix: &str) -> String {
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ");
    format!("backups/{id}/{epoch}/{prefix}{now}")
}

/// The work of a backup, with the database open.
pub(super) async fn job(
    state: &AppState,
    id: &DatabaseId,
    store: BackupStore,
    key: ObjectPath,
    encryption: Option<BackupKey>,
) -> Result<BackupJob, EngineError> {
    Ok(BackupJob {
        engines: state.engines.clone(),
        database: state.engines.database(id).await?,
        store,
        key,
        encryption,
        scratch: state.scratch(),
        epoch: state.standing.volume_epoch(),
        version: None,
        with_staging: true,
        timeout: COPY_TIMEOUT,
    })
}

async fn run(
    job: BackupJob,
    purpose: Purpose,
    permit: &WritePermit,
    context: &TaskContext,
) -> Result<Manifest, String> {
    let progress = |done, total| context.progress(done, total);
    let work = async {
        match purpose {
            Purpose::Standard => job.run(progress).await.map_err(|error| error.to_string()),
            Purpose::Replica => {
                let prefix = job.key.clone();
                let published = seeds::publish(job, &prefix, progress).await;
                published.map_err(|error| error.to_string())
            }
        }
    };
    tokio::select! {
        result = work => result,
        () = context.cancelled().cancelled() => Err("cancelled".to_owned()),
        () = permit.ends.cancelled() => Err(Refusal::Fenced.message().to_owned()),
    }
}
