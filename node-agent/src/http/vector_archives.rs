//! Tables of vectors as files: `POST …/vector/export` to the object store or to the caller, `POST …/vector/import` back.

use super::{
    BODY_LIMIT,
    backup::{check_bucket, store},
    body,
    databases::elapsed_ms,
    error::ApiError,
    headers,
    openapi::{Operation, Written, schema_of},
    upload::receive,
    validation::{ANY, Fields},
    vector_tasks::{Job, check_idle},
    vectors::{VectorTable, megabytes, table_body, vectors},
};
use crate::{
    disk::{FLOOR, disk},
    engines::EngineError,
    objects::BackupStore,
    state::AppState,
};
use axum::{
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use object_store::path::Path as ObjectPath;
use schemars::JsonSchema;
use serde::Serialize;
use std::{
    path::{Path as FilePath, PathBuf},
    time::{Duration, Instant},
};
use tokio_util::{io::ReaderStream, sync::CancellationToken};

const GZIP: &str = "application/gzip";

/// The operations of this module.
pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(
            "post /databases/{id}/tables/{table}/vector/export",
            "vector_export",
            "The vectors of a table as an archive, to the object store or to the caller",
        )
        .notes("With a `key` (or `s3_bucket` and `s3_key`) below the node's object store; without, the archive is the answer.")
        .changes()
        .may_read(AskedPlace::read)
        .asks_engine()
        .fails(&[502])
        .answers(
            200,
            "Where it is, or the archive.",
            &[
                ("application/json", Written::Json(schema_of::<VectorsExported>)),
                (GZIP, Written::Bytes),
            ],
        )
        .gives_task_if_preferred(),
        Operation::new(
            "post /databases/{id}/tables/{table}/vector/import",
            "vector_import",
            "Puts the vectors of an archive in the place of those that are there",
        )
        .notes("The body is the archive, or `{\"key\": …}` as JSON with its key below the node's object store.")
        .changes()
        .takes_file_or(GZIP, AskedPlace::read)
        .asks_engine()
        .fails(&[502])
        .gives::<VectorTable>("The vectors as they are then.")
        .gives_task_if_preferred(),
    ]
}

/// An archive in the object store.
#[derive(Serialize, JsonSchema)]
struct VectorsExported {
    graph_id: String,
    table_name: String,
    size_mb: f64,
    size_bytes: u64,
    row_count: u64,
    duration_ms: f64,
    /// Null where the object store is a directory.
    s3_uri: Option<String>,
    key: String,
    /// The task that did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<String>,
}

/// An archive on the volume; gone when this is dropped, and at the next start at the latest.
struct ArchiveFile(PathBuf);

impl ArchiveFile {
    fn new(state: &AppState) -> Result<Self, ApiError> {
        let directory = state.scratch();
        std::fs::create_dir_all(&directory).map_err(unwritable)?;
        let name = format!("vectors-{}.tar.gz", uuid::Uuid::new_v4().simple());
        Ok(Self(directory.join(name)))
    }

    fn path(&self) -> &FilePath {
        &self.0
    }
}

impl Drop for ArchiveFile {
    fn drop(&mut self) {
        // Absent if nothing was written.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn unwritable(error: std::io::Error) -> ApiError {
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("the archive cannot be kept on the volume: {error}"),
    )
}

/// Writes the archive to the node's object store, or sends it where no key is given.
pub(super) async fn export(
    State(state): State<AppState>,
    Path((id, table)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let job = Job::new(state, &parts.headers, &id, &table).await?;
    let place = parse_place(&job.state, &body::read(body, BODY_LIMIT).await?)?;
    let vectors = vectors(&job.state, &job.id)?;
    let info = vectors.info(&job.table).await?;
    job.state.check_disk(info.map_or(0, |info| info.size_bytes))?;
    let Some(place) = place else {
        return download(job).await;
    };
    job.run(
        "export",
        None,
        headers::prefers_async(&parts.headers),
        move |work| async move {
            let archive = ArchiveFile::new(&work.state)?;
            let exported = vectors.export(&work.table, archive.path(), &work.stop).await?;
            let size = tokio::select! {
                size = place.store.upload(archive.path(), &place.key) => size?,
                () = work.stop.cancelled() => return Err(EngineError::Cancelled.into()),
            };
            let bucket = place.store.bucket();
            Ok(VectorsExported {
                graph_id: work.id.to_string(),
                table_name: work.table.to_string(),
                size_mb: megabytes(size),
                size_bytes: size,
                row_count: exported.rows,
                duration_ms: elapsed_ms(started),
                s3_uri: bucket.map(|bucket| format!("s3://{bucket}/{}", place.key)),
                key: place.key.to_string(),
                task_id: None,
            })
        },
    )
    .await
}

/// Sends the archive as the answer.
async fn download(job: Job) -> Result<Response, ApiError> {
    let Job { state, id, table, .. } = job;
    check_idle(&state, &id, &table)?;
    let Ok(turn) = state.downloads.clone().try_acquire_owned() else {
        return Err(ApiError::unavailable(
            "Too many downloads",
            "other archives are being downloaded, and each keeps a copy on the volume",
            "reject_downloads",
            Duration::from_secs(30),
        )
        .rejected("downloads"));
    };
    let archive = ArchiveFile::new(&state)?;
    // Dropped, and with it the packing, when the client goes away.
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    let exported = vectors(&state, &id)?.export(&table, archive.path(), &stop).await?;
    let file = tokio::fs::File::open(archive.path()).await.map_err(unwritable)?;
    let content = futures::StreamExt::map(ReaderStream::with_capacity(file, 256 << 10), move |block| {
        // The copy and the turn last as long as the answer.
        let _held = (&archive, &turn);
        block
    });
    let mut response = Response::new(Body::from_stream(content));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(GZIP));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(exported.size_bytes));
    headers.insert("x-row-count", HeaderValue::from(exported.rows));
    // Ids and names of tables are always header values.
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{id}.{table}.lance.tar.gz\"")) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// Reads an archive from the body or from the node's object store, and puts its table in the place of the one that is
/// there.
pub(super) async fn import(
    State(state): State<AppState>,
    Path((id, table)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let job = Job::new(state, &parts.headers, &id, &table).await?;
    let vectors = vectors(&job.state, &job.id)?;
    job.state.admission.check_memory()?;
    let archive = ArchiveFile::new(&job.state)?;
    let place = if is_json(&parts.headers) {
        let place = parse_place(&job.state, &body::read(body, BODY_LIMIT).await?)?;
        Some(place.ok_or_else(|| ApiError::bad_request("key: the key of an archive is missing"))?)
    } else {
        let limit = room(&job.state).min(job.state.settings().copy.max_file_bytes().unwrap_or(u64::MAX));
        receive(body, archive.path(), Some(limit), FLOOR).await?;
        None
    };
    let turn = Some(job.state.engines.vector_turn());
    job.run(
        "import",
        turn,
        headers::prefers_async(&parts.headers),
        move |work| async move {
            if let Some(place) = place {
                let limit = room(&work.state);
                tokio::select! {
                    fetched = place.store.download(&place.key, archive.path(), limit) => fetched?,
                    () = work.stop.cancelled() => return Err(EngineError::Cancelled.into()),
                };
            }
            let imported = vectors
                .import(&work.table, archive.path(), room(&work.state), &work.stop)
                .await?;
            Ok(table_body(&work.id, &work.table, &imported.table).took(started))
        },
    )
    .await
}

/// What there is room for on the volume, in bytes.
fn room(state: &AppState) -> u64 {
    disk(&state.facts.data_dir).free.saturating_sub(FLOOR)
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("application/json"))
}

/// A place in the node's object store.
struct Place {
    store: BackupStore,
    key: ObjectPath,
}

/// `{"key"}`, or the contract's `{"s3_bucket", "s3_key"}`.
struct AskedPlace {
    key: Option<String>,
    bucket: Option<String>,
    s3_key: Option<String>,
}

impl AskedPlace {
    fn read(fields: &mut Fields) -> Self {
        Self {
            key: fields.text("key", ANY),
            bucket: fields.text("s3_bucket", ANY),
            s3_key: fields.text("s3_key", ANY),
        }
    }
}

/// The place that a body names, if it names one.
fn parse_place(state: &AppState, body: &[u8]) -> Result<Option<Place>, ApiError> {
    let mut fields = Fields::parse_or_empty(body)?;
    let AskedPlace { key, bucket, s3_key } = AskedPlace::read(&mut fields);
    fields.finish()?;
    if bucket.is_some() != s3_key.is_some() || (key.is_some() && s3_key.is_some()) {
        return Err(ApiError::bad_request(
            "s3_bucket and s3_key must both be provided or both omitted, and exclude key",
        ));
    }
    let Some(key) = key.or(s3_key) else {
        return Ok(None);
    };
    let store = store(state)?;
    if let Some(wanted) = bucket {
        check_bucket(&store, &wanted, "s3_bucket")?;
    }
    // The store holds backups as well, and an archive must never take the place of one.
    if !key.ends_with(".tar.gz") {
        return Err(ApiError::bad_request("key: the key of an archive ends with .tar.gz"));
    }
    let key = BackupStore::key(&key)?;
    Ok(Some(Place { store, key }))
}
