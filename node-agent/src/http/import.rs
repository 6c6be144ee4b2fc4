//! `POST /databases/{id}/import`: starts an import from the node's object store.

use super::{
    BODY_LIMIT,
    backup::{check_bucket, store},
    body,
    error::ApiError,
    export::stoppable,
    openapi::Operation,
    rebuild::check_idle,
    restore::exists_already,
    tasks::monitor_url,
    validation::{ANY, Fields},
};
use crate::{
    backup::BackupKey,
    engines::{DatabaseId, Replace},
    migration::{EXPORT, ExportManifest, ImportJob, MigrationError},
    objects::BackupStore,
    state::AppState,
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
use serde_json::{Map, json};
use tokio_util::sync::CancellationToken;

/// The operations of this module.
pub(super) fn operations() -> Vec<Operation> {
    let operation = Operation::new(
        "post /databases/{id}/import",
        "import",
        "Starts an import of an export from the object store",
    )
    .notes(
        "The same import that is under way already is that task. The database is made beside the one that is there, compared \
         with the export, and takes its place at the end; the files of the old one are kept until `POST /migration/cleanup`.",
    )
    .changes()
    .reads(Asked::read)
    .fails(&[404, 502, 507])
    .gives::<ImportStarted>("The task to follow.");
    vec![operation]
}

/// An import that was started.
#[derive(Serialize, JsonSchema)]
struct ImportStarted {
    task_id: String,
    /// `initiated`.
    status: &'static str,
    message: String,
    database: String,
    monitor_url: String,
    /// Whether there is a database that is replaced, and kept.
    replaces: bool,
}

/// A request as its body has it.
struct Asked {
    bucket: Option<String>,
    key: String,
    force_overwrite: bool,
}

impl Asked {
    fn read(fields: &mut Fields) -> Self {
        Self {
            bucket: fields.text("s3_bucket", ANY),
            key: fields.required_text("s3_key", ANY),
            force_overwrite: fields.flag("force_overwrite", false),
        }
    }
}

/// Checks what can be checked without the files, and starts the task; the same import that is under way already is that
/// task.
pub(super) async fn post(
    State(state): State<AppState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let permit = state.write_permit(&parts.headers).await?;
    let id = DatabaseId::parse(&id)?;
    let mut fields = Fields::parse(&body::read(body, BODY_LIMIT).await?)?;
    let asked = Asked::read(&mut fields);
    fields.finish()?;
    let store = store(&state)?;
    if let Some(wanted) = &asked.bucket {
        check_bucket(&store, wanted, "s3_bucket")?;
    }
    let document = format!("/{EXPORT}");
    let key = BackupStore::key(asked.key.strip_suffix(document.as_str()).unwrap_or(&asked.key))?;
    state.admission.check_memory()?;

    let starting = state.starting.lock().await;
    // First: a client that tries again must be told of its task, not that the database exists by now.
    let key_text = key.to_string();
    let about = [("graph_id", id.as_str()), ("key", key_text.as_str())];
    if let Some(running) = state.tasks.find_unfinished(TaskType::Migration, &about) {
        return answer(running, &id, &key, state.engines.contains(&id));
    }
    check_idle(&state, &id)?;
    let exists = state.engines.contains(&id);
    if exists && !asked.force_overwrite {
        return Err(exists_already(&id));
    }
    let job = job(&state, &id, store, key.clone()).await?;
    let place = match exists || state.shares_place(&id) {
        true => None,
        false => Some(state.take_place(&id)?),
    };
    let metadata = about.map(|(name, value)| (name.to_owned(), json!(value)));
    let replace = if exists { Replace::Existing } else { Replace::Nothing };
    let work = move |context: TaskContext| async move {
        let progress = |done, total| context.progress(done, total);
        let prepare = |stop: CancellationToken| async move { job.prepare(progress, &stop).await };
        let prepared = stoppable(&permit, &context, prepare).await?;
        let imported = prepared.install(replace).await.map_err(|error| error.to_string());
        drop(place);
        Ok(imported?.result())
    };
    let turn = Some(state.backup_turn.clone());
    let name = format!("import_{id}");
    let metadata = Map::from_iter(metadata);
    let task = state
        .tasks
        .start(TaskType::Migration, &name, metadata, turn, work)
        .await?;
    drop(starting);
    answer(task.id, &id, &key, exists)
}

fn answer(task_id: String, id: &DatabaseId, key: &ObjectPath, replaces: bool) -> Result<Response, ApiError> {
    body::value(&ImportStarted {
        monitor_url: monitor_url(&task_id),
        task_id,
        status: "initiated",
        message: format!("Import of {id} from {key} started"),
        database: id.to_string(),
        replaces,
    })
}

/// An import that was found possible: its document is one of ours, the node has the key, the volume the room.
pub(super) async fn job(
    state: &AppState,
    id: &DatabaseId,
    store: BackupStore,
    key: ObjectPath,
) -> Result<ImportJob, ApiError> {
    if state.engines.contains(id) && state.engines.keeps(id) {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            format!(
                "Database {id} is still kept as it was before its last import; confirm that import with POST /migration/cleanup first"
            ),
        ));
    }
    let manifest = ExportManifest::fetch(&store, &key).await?;
    manifest.check().map_err(|why| MigrationError::Unusable {
        key: key.to_string(),
        why,
    })?;
    let decryption = decryption(state, &manifest)?;
    // The files, the database, and each table once more to be compared.
    state.check_disk(manifest.plain_bytes().saturating_mul(4))?;
    Ok(ImportJob {
        engines: state.engines.clone(),
        id: id.clone(),
        store,
        key,
        manifest,
        decryption,
        scratch: state.scratch(),
    })
}

fn decryption(state: &AppState, manifest: &ExportManifest) -> Result<Option<BackupKey>, MigrationError> {
    let Some(wanted) = manifest.key_id() else {
        return Ok(None);
    };
    let key = state.keyring.as_ref().and_then(|keyring| keyring.find(wanted));
    key.cloned().map(Some).ok_or_else(|| MigrationError::NoKey {
        wanted: wanted.chars().take(32).collect(),
    })
}
