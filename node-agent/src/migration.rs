//! Databases from one version of the engines to another: an export in files that every version reads, and an import that
//! replaces nothing before it has everything.
//!
//! Below the key of an export lie `schema.cypher.zst`, `table-<n>.parquet.zst` for every table (of relationships, for every
//! pair of tables that they connect), `staging.duckdb.zst` where the graph has staging (DuckDB reads the files of all earlier
//! versions), and `export.json`, which is written last: an export that was interrupted does not exist. Encrypted files end in
//! `.enc`.

mod export;
mod import;
mod manifest;
mod pending;

pub use export::ExportJob;
pub use import::{ImportJob, Imported, PreparedImport};
pub use manifest::{ExportManifest, ExportedFile, ExportedTable};
pub use pending::{Pending, PendingDatabase};

use crate::{
    backup::{BackupError, DownloadError, Unusable, UploadError},
    engines::EngineError,
    objects::StoreError,
};
use std::{io, path::PathBuf};
use tokio_util::sync::CancellationToken;

/// The name of the document that makes an export one.
pub const EXPORT: &str = "export.json";

/// An export or import that did not happen. The database is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The database could not be copied.
    #[error(transparent)]
    Copy(#[from] BackupError),
    /// An engine refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The object store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file could not be uploaded.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// A file could not be fetched, or is not the one of the export.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// The key holds another export.
    #[error("{key} holds {what} already; choose another key")]
    Occupied {
        /// The key.
        key: String,
        /// What it holds.
        what: String,
    },
    /// There is no export.
    #[error("there is no export at {key}: it has no {EXPORT}")]
    Absent {
        /// The key.
        key: String,
    },
    /// The document of an export cannot be read.
    #[error("{key}/{EXPORT} cannot be read: {message}")]
    Document {
        /// The key.
        key: String,
        /// Why.
        message: String,
    },
    /// The document of an export is not one of ours.
    #[error("the export {key} is not imported: {why}")]
    Unusable {
        /// The key.
        key: String,
        /// Why.
        why: Unusable,
    },
    /// The export is encrypted with a key that this node does not have.
    #[error(
        "the export is encrypted with key {wanted:?}, which this node does not have; start it with --backup-key-file and a file that has that key"
    )]
    NoKey {
        /// Which key.
        wanted: String,
    },
    /// What was imported is not what was exported.
    #[error(
        "the imported database has {nodes} nodes and {relationships} relationships, and {EXPORT} says {expected_nodes} and {expected_relationships}"
    )]
    Counts {
        /// What was found.
        nodes: u64,
        /// What was found.
        relationships: u64,
        /// What the document says.
        expected_nodes: u64,
        /// What the document says.
        expected_relationships: u64,
    },
    /// The volume failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Does work that may be given up at any moment, until it is to stop.
async fn until_stopped<T, E: Into<MigrationError>>(
    stop: &CancellationToken,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, MigrationError> {
    tokio::select! {
        done = work => done.map_err(Into::into),
        () = stop.cancelled() => Err(EngineError::Cancelled.into()),
    }
}
