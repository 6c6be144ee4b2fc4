//! `/migration`: all databases of a node over to another version of the engines. An agent with the old engine exports them,
//! and one with the new engine, on the same volume, imports them.

use super::{
    backup::{check_bucket, store},
    body,
    error::ApiError,
    export::{self, fresh_key, stoppable},
    headers, import,
    openapi::{Operation, query},
    rebuild::check_idle,
    tasks::monitor_url,
};
use crate::{
    engines::{DatabaseId, Kept, LADYBUG_VERSION, Replace},
    migration::{Pending, PendingDatabase},
    objects::BackupStore,
    state::{AppState, WritePermit},
    tasks::{TaskContext, TaskType, timestamp},
};
use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

/// The operations of this module.
pub(super) fn operations() -> Vec<Operation> {
    let needed = |name, description| {
        query(
            name,
            json!({"type": "string", "minLength": 1, "maxLength": 255}),
            description,
        )
        .required()
    };
    vec![
        Operation::new(
            "post /migration/export",
            "migration_export",
            "Starts an export of all databases of the node",
        )
        .notes("With the engine of now; they wait for `POST /migration/import` by an agent with another engine.")
        .changes()
        .with([
            needed("source_version", "The version of LadybugDB that this agent has."),
            needed("target_version", "The version that is to read the exports."),
            needed("bucket", "The bucket of the node's object store."),
        ])
        .fails(&[400, 507])
        .gives::<Started>("The task to follow."),
        Operation::new(
            "post /migration/import",
            "migration_import",
            "Starts an import of all databases that wait for it",
        )
        .notes(
            "One after the other; each serves as it is until its successor takes its place, and those that fail stay.",
        )
        .changes()
        .fails(&[400, 404])
        .gives::<Started>("The task to follow."),
        Operation::new(
            "get /migration/status",
            "migration_status",
            "What waits for an import, and what is kept",
        )
        .gives::<Status>("The figures."),
        Operation::new(
            "post /migration/cleanup",
            "migration_cleanup",
            "Removes what is kept of databases that were imported",
        )
        .changes()
        .with([query(
            "discard_pending",
            json!({"type": "boolean", "default": false}),
            "Forget exports that wait for an import, too.",
        )])
        .fails(&[400])
        .gives::<CleanedUp>("It is gone."),
    ]
}

/// A task that was started.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "MigrationStarted")]
struct Started {
    task_id: String,
    monitor_url: String,
}

/// How far a migration is.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "MigrationStatus")]
struct Status {
    /// Whether exports wait for an import.
    migration_pending: bool,
    /// Whether they are imported now.
    migration_in_progress: bool,
    manifest: Option<Pending>,
    /// Files that imports have replaced.
    pre_migration_files: Vec<String>,
    /// The same by database.
    kept: Vec<KeptDatabase>,
    /// The task that is at work.
    active_task_id: Option<String>,
}

/// A database as it was before an import.
#[derive(Serialize, JsonSchema)]
struct KeptDatabase {
    graph_id: String,
    path: String,
    size_bytes: u64,
    /// Version of the graph's file, where it says so.
    storage_version: Option<u64>,
}

impl From<&Kept> for KeptDatabase {
    fn from(kept: &Kept) -> Self {
        Self {
            graph_id: kept.id.to_string(),
            path: kept.path.display().to_string(),
            size_bytes: kept.size_bytes,
            storage_version: kept.storage_version,
        }
    }
}

/// What was removed.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "MigrationCleanedUp")]
struct CleanedUp {
    /// `success`.
    status: &'static str,
    deleted: Vec<KeptDatabase>,
    freed_bytes: u64,
}

/// Exports every database of the node, and remembers on the volume that they wait.
pub(super) async fn export(State(state): State<AppState>, request: Request) -> Result<Response, ApiError> {
    let permit = state.write_permit(request.headers()).await?;
    let query = request.uri().query();
    let asked = |name: &str| {
        let value = headers::parameter(query, name).filter(|value| (1..=255).contains(&value.len()));
        value.ok_or_else(|| {
            ApiError::bad_request(format!("{name}: expected a text of up to 255 characters in the query"))
        })
    };
    let (source, target, bucket) = (asked("source_version")?, asked("target_version")?, asked("bucket")?);
    if source != LADYBUG_VERSION {
        return Err(ApiError::bad_request(format!(
            "source_version: this agent has LadybugDB {LADYBUG_VERSION}, not {source:?}"
        )));
    }
    let store = store(&state)?;
    check_bucket(&store, &bucket, "bucket")?;

    let _starting = state.starting.lock().await;
    if let Some(answer) = running(&state, "export")? {
        return Ok(answer);
    }
    if pending(&state)?.is_some() {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "Exports wait for an import already; import them, or forget them with POST /migration/cleanup?discard_pending=true",
        ));
    }
    let databases = state.databases();
    if let Some(problem) = databases.iter().find_map(|info| info.problem.clone()) {
        return Err(ApiError::new(StatusCode::CONFLICT, problem));
    }
    let largest = databases.iter().map(|info| info.size_bytes + info.staging_bytes).max();
    state.check_disk(largest.unwrap_or_default().saturating_mul(2))?;
    let metadata = [
        ("operation", "export"),
        ("source_version", source.as_str()),
        ("target_version", target.as_str()),
    ]
    .map(|(name, value)| (name.to_owned(), json!(value)));
    let work = {
        let state = state.clone();
        let ids: Vec<DatabaseId> = databases.into_iter().map(|info| info.id).collect();
        let pending = Pending {
            source_version: source,
            target_version: target,
            created_at: timestamp(),
            export_format: "parquet".to_owned(),
            databases: Vec::new(),
        };
        move |context: TaskContext| async move { export_all(&state, ids, pending, store, &permit, &context).await }
    };
    start(&state, "export", Map::from_iter(metadata), work).await
}

async fn export_all(
    state: &AppState,
    ids: Vec<DatabaseId>,
    mut pending: Pending,
    store: BackupStore,
    permit: &WritePermit,
    context: &TaskContext,
) -> Result<Value, String> {
    let prefix = fresh_key(state, "all");
    for (done, id) in ids.iter().enumerate() {
        let key = BackupStore::key(&format!("{prefix}/{id}")).map_err(|error| error.to_string())?;
        let job = export::job(state, id, store.clone(), key);
        let export = |stop: CancellationToken| async move { job.run(|_, _| (), &stop).await };
        let exported = stoppable(permit, context, export)
            .await
            .map_err(|error| format!("{id}: {error}"))?;
        pending.databases.push(PendingDatabase::from(&exported));
        context.progress(done as u64 + 1, ids.len() as u64);
    }
    // Last: an import must find all of them or none.
    pending
        .write(&state.facts.data_dir)
        .map_err(|error| error.to_string())?;
    Ok(json!(pending))
}

/// Imports every database that waits for it.
pub(super) async fn import(State(state): State<AppState>, request: Request) -> Result<Response, ApiError> {
    let permit = state.write_permit(request.headers()).await?;
    let store = store(&state)?;
    let _starting = state.starting.lock().await;
    if let Some(answer) = running(&state, "import")? {
        return Ok(answer);
    }
    let Some(pending) = pending(&state)? else {
        return Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "No exports wait for an import; make them with POST /migration/export",
        ));
    };
    for database in &pending.databases {
        // What is at work now would be lost with the old files, or put them back.
        check_idle(&state, &DatabaseId::parse(&database.graph_id)?)?;
    }
    let metadata = [
        ("operation", "import"),
        ("source_version", pending.source_version.as_str()),
        ("target_version", LADYBUG_VERSION),
    ]
    .map(|(name, value)| (name.to_owned(), json!(value)));
    let metadata = Map::from_iter(metadata);
    let work = {
        let state = state.clone();
        move |context: TaskContext| async move { import_all(&state, pending, store, &permit, &context).await }
    };
    start(&state, "import", metadata, work).await
}

async fn import_all(
    state: &AppState,
    mut pending: Pending,
    store: BackupStore,
    permit: &WritePermit,
    context: &TaskContext,
) -> Result<Value, String> {
    let waiting = pending.databases.clone();
    let (mut imported, mut failed) = (Vec::new(), Vec::new());
    for (done, database) in waiting.iter().enumerate() {
        if context.cancelled().is_cancelled() || permit.ends.is_cancelled() {
            failed.push(format!("{}: not begun", database.graph_id));
            continue;
        }
        match import_one(state, &mut pending, database, store.clone(), permit, context).await {
            Ok(result) => imported.push(result),
            Err(error) => failed.push(format!("{}: {error}", database.graph_id)),
        }
        context.progress(done as u64 + 1, waiting.len() as u64);
    }
    match failed.is_empty() {
        true => Ok(json!({"databases": imported})),
        false => Err(format!(
            "{} of {} databases were not imported and are as they were before: {}",
            failed.len(),
            waiting.len(),
            failed.join("; ")
        )),
    }
}

async fn import_one(
    state: &AppState,
    pending: &mut Pending,
    database: &PendingDatabase,
    store: BackupStore,
    permit: &WritePermit,
    context: &TaskContext,
) -> Result<Value, String> {
    let id = DatabaseId::parse(&database.graph_id).map_err(|error| error.to_string())?;
    let key = BackupStore::key(&database.export_path).map_err(|error| error.to_string())?;
    let job = import::job(state, &id, store, key)
        .await
        .map_err(|error| error.message())?;
    let (replace, place) = match state.engines.contains(&id) {
        true => (Replace::Existing, None),
        false if state.shares_place(&id) => (Replace::Nothing, None),
        false => (
            Replace::Nothing,
            Some(state.take_place(&id).map_err(|error| error.message())?),
        ),
    };
    let prepare = |stop: CancellationToken| async move { job.prepare(|_, _| (), &stop).await };
    let prepared = stoppable(permit, context, prepare).await?;
    let data_dir = &state.facts.data_dir;
    // What is in place must not be imported again, since it may have been written to by then: noted before and after.
    let inode = prepared.inode().map_err(|error| error.to_string())?;
    for other in pending.databases.iter_mut().filter(|other| *other == database) {
        other.installing = Some(inode);
    }
    pending.write(data_dir).map_err(|error| error.to_string())?;
    let imported = prepared.install(replace).await;
    drop(place);
    pending.settle(|id| state.engines.graph_inode(id));
    let noted = pending.write(data_dir);
    let imported = imported.map_err(|error| error.to_string())?;
    noted.map_err(|error| format!("it is in place, and that could not be noted: {error}"))?;
    Ok(imported.result())
}

/// What waits for an import, and what is kept of those before.
pub(super) async fn status(State(state): State<AppState>) -> Result<Response, ApiError> {
    let manifest = pending(&state)?;
    let kept = state.engines.kept().await?;
    let task = |operation| {
        state
            .tasks
            .find_unfinished(TaskType::Migration, &[("operation", operation)])
    };
    let importing = task("import");
    body::value(&Status {
        migration_pending: manifest.is_some(),
        migration_in_progress: importing.is_some(),
        manifest,
        pre_migration_files: kept.iter().map(|kept| kept.path.display().to_string()).collect(),
        kept: kept.iter().map(KeptDatabase::from).collect(),
        active_task_id: importing.or_else(|| task("export")),
    })
}

/// Removes the files that imports have replaced.
pub(super) async fn cleanup(State(state): State<AppState>, request: Request) -> Result<Response, ApiError> {
    let _permit = state.write_permit(request.headers()).await?;
    let discard = headers::flag(request.uri().query(), "discard_pending");
    let _starting = state.starting.lock().await;
    if let Some(task) = state.tasks.find_unfinished(TaskType::Migration, &[]) {
        return Err(busy(&task, "Databases are exported or imported now"));
    }
    if let Some(mut waiting) = pending(&state)? {
        if !discard {
            return Err(ApiError::new(
                StatusCode::CONFLICT,
                "Exports still wait for an import; import them first, or forget them with discard_pending=true",
            ));
        }
        waiting.databases.clear();
        waiting.write(&state.facts.data_dir)?;
    }
    let deleted = state.engines.forget_kept().await?;
    body::value(&CleanedUp {
        status: "success",
        freed_bytes: deleted.iter().map(|kept| kept.size_bytes).sum(),
        deleted: deleted.iter().map(KeptDatabase::from).collect(),
    })
}

fn pending(state: &AppState) -> Result<Option<Pending>, ApiError> {
    Ok(Pending::read(&state.facts.data_dir, &state.engines)?)
}

/// The answer while a migration of the whole node is under way: the same task, or 409 for the other direction.
fn running(state: &AppState, operation: &str) -> Result<Option<Response>, ApiError> {
    let find = |operation| {
        state
            .tasks
            .find_unfinished(TaskType::Migration, &[("operation", operation)])
    };
    if let Some(task_id) = find(operation) {
        let monitor_url = monitor_url(&task_id);
        return body::value(&Started { task_id, monitor_url }).map(Some);
    }
    let other = if operation == "export" { "import" } else { "export" };
    match find(other) {
        Some(task) => Err(busy(&task, &format!("The node's databases are in an {other} now"))),
        None => Ok(None),
    }
}

fn busy(task: &str, what: &str) -> ApiError {
    ApiError::with_detail(
        StatusCode::CONFLICT,
        json!({
            "error": format!("{what}; follow task {task} and try again when it has ended"),
            "task_id": task,
            "monitor_url": monitor_url(task),
        }),
    )
}

async fn start<F, W>(
    state: &AppState,
    operation: &str,
    metadata: Map<String, Value>,
    work: F,
) -> Result<Response, ApiError>
where
    F: FnOnce(TaskContext) -> W + Send + 'static,
    W: Future<Output = Result<Value, String>> + Send + 'static,
{
    let turn = Some(state.backup_turn.clone());
    let name = format!("migration_{operation}");
    let task = state
        .tasks
        .start(TaskType::Migration, &name, metadata, turn, work)
        .await?;
    body::value(&Started {
        monitor_url: monitor_url(&task.id),
        task_id: task.id,
    })
}
