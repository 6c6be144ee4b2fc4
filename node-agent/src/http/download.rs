//! `GET /databases/{id}/backup` and the contract's `POST /databases/{id}/backup-download`: the database as one zip.

use super::{
    backup::COPY_TIMEOUT,
    databases::missing,
    error::ApiError,
    openapi::{Operation, Written},
};
use crate::{
    backup::{Archive, BackupError, Copies, Extent, archive},
    engines::DatabaseId,
    state::AppState,
};
use axum::{
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use std::{sync::Arc, time::Duration};

/// The operations of this module.
pub(super) fn operations() -> Vec<Operation> {
    let download = |line, id| {
        Operation::new(line, id, "The database now, as one zip")
            .changes()
            .asks_engine()
            .answers(200, "The zip.", &[("application/zip", Written::Bytes)])
            .headers(&[
                ("Content-Disposition", "The name of the file."),
                ("X-Database", "The database."),
                ("X-Backup-Format", "`full_dump`."),
                ("X-Backup-Node-Count", "Nodes that are in it."),
                ("X-Backup-Relationship-Count", "Relationships that are in it."),
            ])
    };
    vec![
        download("get /databases/{id}/backup", "backup_download"),
        download("post /databases/{id}/backup-download", "backup_download_of_contract"),
    ]
}

/// Takes a consistent copy, and sends it. The copy is gone when the client is.
pub(super) async fn download(
    State(state): State<AppState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    // A copy begins with a checkpoint, which changes the volume.
    let _permit = state.write_permit(request.headers()).await?;
    let id = DatabaseId::parse(&id)?;
    if !state.engines.contains(&id) {
        return Err(missing(&id));
    }
    let Ok(turn) = Arc::clone(&state.downloads).try_acquire_owned() else {
        return Err(ApiError::unavailable(
            "Too many downloads",
            "other backups are being downloaded, and each keeps a copy on the volume",
            "reject_downloads",
            Duration::from_secs(30),
        )
        .rejected("downloads"));
    };
    let info = state.engines.info(&id)?;
    // The copies of vectors are second names of their files.
    state.check_disk(info.size_bytes + info.staging_bytes)?;
    let database = state.engines.database(&id).await?;
    let copies = Copies::take(&state.engines, &database, Extent::ALL, &state.scratch(), COPY_TIMEOUT).await;
    // The copy needs it no more, and who sends it for an hour should not keep the database open.
    drop(database);
    let copies = copies.map_err(|error| match error {
        BackupError::Engine(error) => error.into(),
        other => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, other.to_string()),
    })?;
    let counts = copies.snapshot().counts.clone();
    let sent = archive(Archive {
        graph_id: id.to_string(),
        copies,
        epoch: state.standing.volume_epoch(),
        guard: turn,
    });
    let mut response = Response::new(Body::from_stream(sent));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/zip"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in [
        (
            "content-disposition",
            format!("attachment; filename=\"{id}_backup.zip\""),
        ),
        ("x-database", id.to_string()),
        ("x-backup-format", "full_dump".to_owned()),
        ("x-backup-node-count", counts.nodes.to_string()),
        ("x-backup-relationship-count", counts.relationships.to_string()),
    ] {
        // Ids and numbers are always header values.
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    Ok(response)
}
