//! `POST /databases/{id}/backup`: starts a backup to the node's object store, or the publication of a seed.

use super::{
    BODY_LIMIT, body,
    databases::missing,
    error::ApiError,
    openapi::Operation,
    tasks::monitor_url,
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
    response::Response,
};
use object_store::path::Path as ObjectPath;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::time::Duration;

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

/// The operations of this module.
pub(super) fn operations() -> Vec<Operation> {
    let operation = Operation::new(
        "post /databases/{id}/backup",
        "backup",
        "Starts a backup to the object store",
    )
    .notes(
        "A backup to the same key that is under way already is that task. With `backup_type` `replica` it is a seed below \
         the key, a new one each time, which replicas take up.",
    )
    .changes()
    .may_read(Asked::read)
    .gives::<BackupStarted>("The task to follow.");
    vec![operation]
}

/// A backup that was started.
#[derive(Serialize, JsonSchema)]
struct BackupStarted {
    task_id: String,
    /// `initiated`.
    status: &'static str,
    message: String,
    database: String,
    backup_format: &'static str,
    /// `standard` or `replica`.
    backup_type: &'static str,
    monitor_url: String,
    /// Always null.
    estimated_completion_time: Option<String>,
    /// Where it goes, below the object store; of a seed, the prefix.
    key: String,
}

/// A request as its body has it.
struct Asked {
    purpose: Purpose,
    with_staging: bool,
    compression: bool,
    encryption: bool,
    destination: Option<Map<String, Value>>,
    s3_destination: Option<Map<String, Value>>,
}

impl Asked {
    fn read(fields: &mut Fields) -> Self {
        let formats = Text {
            one_of: Some(&["full_dump"]),
            ..ANY
        };
        fields.text("backup_format", formats);
        fields.flag("include_metadata", true);
        fields.shape("destination", destination);
        // The contract's later fields: a backup of a shared repository is like any other, and every backup begins with a
        // checkpoint, and is as small as it gets.
        let kinds = Text {
            one_of: Some(&["standard", "replica", "shared_repository"]),
            ..ANY
        };
        let purpose = match fields.text("backup_type", kinds).as_deref() {
            Some("replica") => Purpose::Replica,
            _ => Purpose::Standard,
        };
        fields.flag("checkpoint", true);
        fields.flag("vacuum", false);
        fields.shape("s3_destination", || {
            let text = json!({"type": "string"});
            let fields = json!({"bucket": text, "key": text});
            json!({"type": ["object", "null"], "properties": fields, "required": ["key"], "additionalProperties": false})
        });
        Self {
            purpose,
            with_staging: fields.flag("include_duckdb", purpose == Purpose::Standard),
            compression: fields.flag("compression", true),
            encryption: fields.flag("encryption", false),
            destination: fields.object("destination"),
            s3_destination: fields.object("s3_destination"),
        }
    }
}

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
    let asked = Asked::read(&mut fields);
    fields.finish()?;
    let Asked {
        purpose,
        with_staging,
        compression,
        encryption,
        destination,
        s3_destination,
    } = asked;
    let destination = match (destination, s3_destination) {
        (Some(_), Some(_)) => {
            return Err(ApiError::bad_request(
                "s3_destination: excludes destination, which says the same",
            ));
        }
        (Some(one), None) | (None, Some(one)) => Some(one),
        (None, None) => None,
    };
    let encryption = encryption_key(&state, encryption)?;
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
        Some(mut fields) => match (fields.remove("key"), fields.remove("bucket"), fields.is_empty()) {
            (Some(Value::String(key)), None | Some(Value::Null), true) => key,
            (Some(Value::String(key)), Some(Value::String(bucket)), true) => {
                check_bucket(&store, &bucket, "s3_destination")?;
                key
            }
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
    body::value(&BackupStarted {
        monitor_url: monitor_url(&task_id),
        task_id,
        status: "initiated",
        message: format!("Backup of {id} to {key} started"),
        database: id.to_string(),
        backup_format: "full_dump",
        backup_type: purpose.as_str(),
        estimated_completion_time: None,
        key,
    })
}

/// Backups go to the node's object store and come from there, and from no other.
pub(super) fn check_bucket(store: &BackupStore, wanted: &str, field: &str) -> Result<(), ApiError> {
    match store.bucket() {
        Some(own) if own != wanted => Err(ApiError::bad_request(format!(
            "{field}: this node's object store is the bucket {own:?}"
        ))),
        _ => Ok(()),
    }
}

/// How a request names a key below the object store.
pub(super) fn destination() -> Value {
    let key = json!({"type": "string", "description": "A key below the object store."});
    let fields = json!({"key": key});
    json!({"type": ["object", "null"], "properties": fields, "required": ["key"], "additionalProperties": false})
}

/// The key for what is to be encrypted.
pub(super) fn encryption_key(state: &AppState, wanted: bool) -> Result<Option<BackupKey>, ApiError> {
    match (wanted, &state.keyring) {
        (false, _) => Ok(None),
        (true, Some(keyring)) => Ok(Some(keyring.current().clone())),
        (true, None) => Err(ApiError::bad_request(
            "encryption: this node has no key for backups; start it with --backup-key-file",
        )),
    }
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
