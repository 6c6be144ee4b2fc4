//! `POST /databases/{id}/restore`: starts a restore from the node's object store.

use super::{
    SCHEMA_LIMIT,
    backup::{self, check_bucket, fresh_key, store},
    body,
    error::ApiError,
    form,
    openapi::Operation,
    rebuild::check_not_rebuilt,
    tasks::monitor_url,
    validation::{self, ANY, Fields},
};
use crate::{
    backup::{Abilities, BackupKey, Content, Manifest, RestoreError, RestoreJob, Restored},
    engines::{DatabaseId, Replace, ladybug_storage_version},
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
use serde_json::{Map, json};

/// The operations of this module.
pub(super) fn operations() -> Vec<Operation> {
    let operation = Operation::new(
        "post /databases/{id}/restore",
        "restore",
        "Starts a restore from the object store",
    )
    .notes("The same restore that is under way already is that task.")
    .changes()
    .reads_as(validation::schema(Asked::read), &form::MEDIA_TYPES, true)
    .fails(&[415, 502, 507])
    .gives::<RestoreStarted>("The task to follow.");
    vec![operation]
}

/// A restore that was started.
#[derive(Serialize, JsonSchema)]
struct RestoreStarted {
    task_id: String,
    /// `initiated`.
    status: &'static str,
    message: String,
    database: String,
    monitor_url: String,
    /// Whether the database that is replaced is backed up first.
    system_backup_created: bool,
}

/// A request as its body has it.
struct Asked {
    bucket: Option<String>,
    key: String,
    create_system_backup: bool,
    force_overwrite: bool,
}

impl Asked {
    fn read(fields: &mut Fields) -> Self {
        // Part of the contract; the manifest knows both.
        fields.flag("encrypted", true);
        fields.flag("compressed", true);
        Self {
            bucket: fields.text("s3_bucket", ANY),
            key: fields.required_text("s3_key", ANY),
            create_system_backup: fields.flag("create_system_backup", true),
            force_overwrite: fields.flag("force_overwrite", false),
        }
    }
}

/// A restore that was found possible.
struct Plan {
    id: DatabaseId,
    store: BackupStore,
    key: ObjectPath,
    manifest: Manifest,
    content: Content,
    decryption: Option<BackupKey>,
    replace: Replace,
    /// Where the present database goes first.
    system_backup: Option<ObjectPath>,
}

/// Checks what can be checked without the files, and starts the task; the same restore that is under way already is that
/// task.
pub(super) async fn post(
    State(state): State<AppState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let permit = state.write_permit(&parts.headers).await?;
    let id = DatabaseId::parse(&id)?;
    let mut fields = form::fields(&parts.headers, &body::read(body, SCHEMA_LIMIT).await?)?;
    let Asked {
        bucket,
        key,
        create_system_backup,
        force_overwrite,
    } = Asked::read(&mut fields);
    fields.finish()?;

    let store = store(&state)?;
    if let Some(wanted) = &bucket {
        check_bucket(&store, wanted, "s3_bucket")?;
    }
    let key = BackupStore::key(key.strip_suffix("/manifest.json").unwrap_or(&key))?;
    state.admission.check_memory()?;

    let starting = state.starting.lock().await;
    // First: a client that tries again must be told of its task, not that the database exists by now.
    let graph = ("graph_id", id.as_str());
    let key_text = key.to_string();
    let same = [graph, ("key", key_text.as_str())];
    if let Some(running) = state.tasks.find_unfinished(TaskType::Restore, &same) {
        let record = state.tasks.get(&running)?;
        let saved = record
            .metadata
            .get("system_backup_key")
            .is_some_and(|key| !key.is_null());
        return answer(&running, &id, &key, saved);
    }
    if let Some(running) = state.tasks.find_unfinished(TaskType::Restore, &[graph]) {
        return Err(ApiError::with_detail(
            StatusCode::CONFLICT,
            json!({"error": format!("Database {id} is being restored from another backup"), "task_id": running}),
        ));
    }
    check_not_rebuilt(&state, &id)?;
    let exists = state.engines.contains(&id);
    if exists && !force_overwrite {
        return Err(exists_already(&id));
    }
    let (manifest, content) = read_manifest(&state, &store, &key).await?;
    let decryption = decryption(&state, &manifest)?;
    let mut needed = content.plain_bytes();
    let mut place = None;
    let mut system_backup = None;
    if exists {
        if create_system_backup {
            let info = state.engines.info(&id)?;
            // The copies of vectors are second names of their files.
            needed = needed.saturating_add(info.size_bytes + info.staging_bytes);
            let epoch = state.standing.volume_epoch();
            system_backup = Some(BackupStore::key(&fresh_key(&id, epoch, "before-restore-"))?);
        }
    } else if !state.shares_place(&id) {
        place = Some(state.take_place(&id)?);
    }
    state.check_disk(needed)?;

    let metadata = Map::from_iter([
        ("graph_id".to_owned(), json!(id.as_str())),
        ("key".to_owned(), json!(key_text)),
        ("source_graph_id".to_owned(), json!(manifest.graph_id)),
        (
            "system_backup_key".to_owned(),
            json!(system_backup.as_ref().map(ToString::to_string)),
        ),
    ]);
    let saved = system_backup.is_some();
    let plan = Plan {
        id: id.clone(),
        store,
        key: key.clone(),
        manifest,
        content,
        decryption,
        replace: if exists { Replace::Existing } else { Replace::Nothing },
        system_backup,
    };
    let work = {
        let state = state.clone();
        move |context: TaskContext| async move {
            let restored = run(&state, plan, &permit, &context).await;
            drop(place);
            restored.map(|restored| restored.result())
        }
    };
    let turn = Some(state.backup_turn.clone());
    let name = format!("restore_{id}");
    let task = state
        .tasks
        .start(TaskType::Restore, &name, metadata, turn, work)
        .await?;
    drop(starting);
    answer(&task.id, &id, &key, saved)
}

fn answer(task_id: &str, id: &DatabaseId, key: &ObjectPath, system_backup: bool) -> Result<Response, ApiError> {
    body::value(&RestoreStarted {
        task_id: task_id.to_owned(),
        status: "initiated",
        message: format!("Restore of {id} from {key} started"),
        database: id.to_string(),
        monitor_url: monitor_url(task_id),
        system_backup_created: system_backup,
    })
}

/// For a database that would be replaced without `force_overwrite`.
pub(super) fn exists_already(id: &DatabaseId) -> ApiError {
    ApiError::new(
        StatusCode::CONFLICT,
        format!("Database {id} already exists. Use force_overwrite=true to replace it."),
    )
}

async fn read_manifest(
    state: &AppState,
    store: &BackupStore,
    key: &ObjectPath,
) -> Result<(Manifest, Content), ApiError> {
    let document = store.read(&key.clone().join("manifest.json")).await?;
    let document = document.ok_or_else(|| {
        ApiError::new(
            StatusCode::NOT_FOUND,
            format!("There is no backup at {key}: it has no manifest.json"),
        )
    })?;
    let unusable =
        |why: &dyn std::fmt::Display| ApiError::bad_request(format!("The backup {key} is not restored: {why}"));
    let manifest = Manifest::from_bytes(&document).map_err(|error| unusable(&error))?;
    let abilities = Abilities {
        storage_version: ladybug_storage_version(),
        graph_bytes: state.engines.limits().max_database_size,
    };
    let content = manifest.content(abilities).map_err(|error| unusable(&error))?;
    Ok((manifest, content))
}

fn decryption(state: &AppState, manifest: &Manifest) -> Result<Option<BackupKey>, ApiError> {
    let Some(encryption) = &manifest.encryption else {
        return Ok(None);
    };
    let wanted: String = encryption.key_id.chars().take(32).collect();
    let missing = |what: &str| {
        ApiError::bad_request(format!(
            "The backup is encrypted with key {wanted:?}, and this node {what}; start it with --backup-key-file and a file that has that key"
        ))
    };
    let keyring = state
        .keyring
        .as_ref()
        .ok_or_else(|| missing("has no key for backups"))?;
    let key = keyring
        .find(&encryption.key_id)
        .ok_or_else(|| missing("has other keys"))?;
    Ok(Some(key.clone()))
}

async fn run(state: &AppState, plan: Plan, permit: &WritePermit, context: &TaskContext) -> Result<Restored, String> {
    let replace = plan.replace;
    let prepare = async {
        // What replaces an encrypted backup is kept encrypted, too.
        let encryption = plan
            .decryption
            .as_ref()
            .and(state.keyring.as_ref())
            .map(|keyring| keyring.current().clone());
        let job = RestoreJob {
            engines: state.engines.clone(),
            id: plan.id.clone(),
            store: plan.store.clone(),
            key: plan.key,
            manifest: plan.manifest,
            content: plan.content,
            decryption: plan.decryption,
        };
        let mut prepared = job.prepare(|done, total| context.progress(done, total)).await?;
        if let Some(key) = plan.system_backup {
            let job = backup::job(state, &plan.id, plan.store, key, encryption).await;
            let job = job.map_err(|error| RestoreError::SystemBackup(error.into()))?;
            prepared.save(job).await?;
        }
        Ok::<_, RestoreError>(prepared)
    };
    let prepared = tokio::select! {
        prepared = prepare => prepared.map_err(|error| error.to_string())?,
        () = context.cancelled().cancelled() => return Err("cancelled".to_owned()),
        () = permit.ends.cancelled() => return Err(Refusal::Fenced.message().to_owned()),
    };
    prepared.install(replace).await.map_err(|error| error.to_string())
}
