//! `PUT /databases/{id}/tables/{table}/files/{file_id}`: a file as the body, streamed to the volume and staged.

use super::{
    body,
    databases::{elapsed_ms, missing},
    error::ApiError,
    headers,
    openapi::{self, Operation},
    rebuild::begin_change,
    sources::stage,
    tables::{UNLIMITED, kind_word},
};
use crate::{
    disk::{FLOOR, check_room},
    engines::{DatabaseId, FileFormat, FileId, StageMode, StageOptions, StagedFile, StagingColumn, TableName},
    state::AppState,
};
use axum::{
    body::{Body, HttpBody},
    extract::{Path, Request, State},
    http::StatusCode,
    response::Response,
};
use futures::StreamExt;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use std::{path::Path as FilePath, time::Instant};
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

/// The operations of this module.
pub(super) fn operations() -> Vec<Operation> {
    let operation = Operation::new(
        "put /databases/{id}/tables/{table}/files/{file_id}",
        "file_upload",
        "Stages a file; rows of the same file that were staged before are replaced",
    )
    .with([openapi::query(
        "format",
        json!({"enum": FileFormat::WORDS, "default": "parquet"}),
        "What the file is written in.",
    )])
    .changes()
    .takes_file("application/octet-stream")
    .asks_engine()
    .gives::<FileStaged>("It is staged.");
    vec![operation]
}

/// A file that was staged.
#[derive(Serialize, JsonSchema)]
struct FileStaged {
    /// `success`.
    status: &'static str,
    graph_id: String,
    table_name: String,
    file_id: String,
    /// Rows of this file.
    row_count: u64,
    /// Rows of the table.
    total_rows: u64,
    size_bytes: u64,
    execution_time_ms: f64,
    columns: Vec<StagingColumn>,
    /// `node`, `relationship` or `other`.
    kind: &'static str,
}

/// Stages the body under `file_id`: rows of the same file that were staged before are replaced.
pub(super) async fn put(
    State(state): State<AppState>,
    Path((id, table, file_id)): Path<(String, String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let permit = state.write_permit(&parts.headers).await?;
    let (id, table, file_id) = (
        DatabaseId::parse(&id)?,
        TableName::parse(&table)?,
        FileId::parse(&file_id)?,
    );
    let format = match headers::parameter(parts.uri.query(), "format") {
        None => FileFormat::default(),
        Some(word) => FileFormat::parse(&word).ok_or_else(|| {
            ApiError::bad_request(format!("format: expected one of {}", FileFormat::WORDS.join(", ")))
        })?,
    };
    if !state.engines.contains(&id) {
        return Err(missing(&id));
    }
    let _change = begin_change(&state, &id).await?;
    state.admission.check_memory()?;
    let settings = state.settings();
    let staging = state.engines.staging(&id).await?;
    let incoming = staging.incoming()?;
    let size_bytes = receive(body, incoming.path(), settings.copy.max_file_bytes(), FLOOR).await?;

    // The engine works one file at a time in any case; waiting here keeps the queue where it can be seen.
    let turn = state.load_turn(&id);
    let _turn = turn
        .acquire()
        .await
        .map_err(|_| ApiError::from(crate::tasks::TaskError::Stopping))?;
    let file = StagedFile {
        path: incoming.path().to_owned(),
        file_id: file_id.clone(),
        format,
    };
    // Dropped, and with it the token, when the client goes away: the table is then as it was before.
    let cancel = CancellationToken::new();
    let _guard = cancel.clone().drop_guard();
    let options = StageOptions {
        timeout: settings.copy.timeout().unwrap_or(UNLIMITED),
        cancel,
        max_bytes: settings.copy.max_file_bytes(),
        ..StageOptions::default()
    };
    let report = stage(&staging, &table, vec![file], StageMode::ReplaceFiles, options, &permit).await?;
    state.metrics.staged_rows.inc_by(report.rows);
    let execution_time_ms = elapsed_ms(started);
    tracing::info!(
        operation = "upload", graph = %id, table = %table, rows = report.rows, bytes = size_bytes,
        duration_ms = execution_time_ms, "file staged"
    );
    body::value(&FileStaged {
        status: "success",
        graph_id: id.to_string(),
        table_name: table.to_string(),
        file_id: file_id.to_string(),
        row_count: report.rows,
        total_rows: report.total_rows,
        size_bytes,
        execution_time_ms,
        columns: report.columns,
        kind: kind_word(report.kind),
    })
}

/// Writes a body to a file, within a limit that also holds for a body of unknown length, and as long as `floor` bytes of the
/// volume are free.
pub(super) async fn receive(body: Body, target: &FilePath, limit: Option<u64>, floor: u64) -> Result<u64, ApiError> {
    let limit = limit.unwrap_or(u64::MAX);
    let volume = target.parent().unwrap_or(target);
    if body.size_hint().lower() > limit {
        return Err(body::too_large(limit));
    }
    let failed = |error: std::io::Error| {
        let full = error.kind() == std::io::ErrorKind::StorageFull;
        let status = if full {
            StatusCode::INSUFFICIENT_STORAGE
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        };
        ApiError::new(status, format!("The file could not be written to the volume: {error}"))
    };
    let file = tokio::fs::File::create(target).await.map_err(failed)?;
    let mut file = tokio::io::BufWriter::with_capacity(1 << 20, file);
    let mut size = 0u64;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = body::within(body::PATIENCE, async { Ok(chunks.next().await) }).await? {
        let chunk = chunk.map_err(|error| ApiError::bad_request(format!("The upload ended early: {error}")))?;
        size += chunk.len() as u64;
        if size > limit {
            return Err(body::too_large(limit));
        }
        check_room(volume, floor)
            .map_err(|full| ApiError::new(StatusCode::INSUFFICIENT_STORAGE, full.to_string()).rejected("disk"))?;
        file.write_all(&chunk).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    if size == 0 {
        return Err(ApiError::bad_request("The body is empty; send the file"));
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn an_upload_is_written_within_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("file");
        let chunked = |n: usize| {
            let chunks = (0..n).map(|_| Ok::<_, std::io::Error>(axum::body::Bytes::from_static(b"12345")));
            Body::from_stream(futures::stream::iter(chunks.collect::<Vec<_>>()))
        };
        assert_eq!(receive(chunked(2), &target, Some(10), 0).await.unwrap(), 10);
        assert_eq!(std::fs::read(&target).unwrap(), b"1234512345");
        assert_eq!(
            receive(chunked(3), &target, Some(10), 0)
                .await
                .unwrap_err()
                .status
                .as_u16(),
            413
        );
        assert_eq!(
            receive(Body::from("12345678901"), &target, Some(10), 0)
                .await
                .unwrap_err()
                .status
                .as_u16(),
            413
        );
        assert_eq!(
            receive(Body::empty(), &target, None, 0)
                .await
                .unwrap_err()
                .status
                .as_u16(),
            400
        );
        assert_eq!(
            receive(chunked(2), &target, None, u64::MAX)
                .await
                .unwrap_err()
                .status
                .as_u16(),
            507
        );
        let broken = Body::from_stream(futures::stream::iter([Err::<axum::body::Bytes, _>(
            std::io::Error::other("x"),
        )]));
        assert_eq!(
            receive(broken, &target, None, 0).await.unwrap_err().status.as_u16(),
            400
        );
    }
}
