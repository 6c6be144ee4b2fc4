//! Backups: a consistent copy of a database, compressed and hashed while it is uploaded, and a manifest last.
//!
//! Below the key of a backup lie `graph.lbug.zst`, `staging.duckdb.zst` where the graph has staging, and
//! `manifest.json`. The manifest is what makes it a backup: it is written when everything else is in place, so a backup
//! that was interrupted does not exist. Repeating a finished backup under the same key gives the same answer and copies
//! nothing.

mod manifest;
mod upload;

pub use manifest::{BackupFile, Manifest};
pub use upload::{UploadError, Uploaded, upload_compressed};

use crate::{
    engines::{Database, EngineError, Engines},
    objects::{BackupStore, StoreError},
};
use object_store::path::Path as ObjectPath;
use std::{path::PathBuf, time::Duration};

/// A backup that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database could not be copied.
    #[error("the database could not be copied: {0}")]
    Engine(#[from] EngineError),
    /// The object store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file could not be uploaded.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// The key holds another graph's backup.
    #[error("{key} holds a backup of {other} already; choose another key")]
    Occupied {
        /// The key.
        key: String,
        /// Whose backup it is.
        other: String,
    },
    /// A manifest that is there cannot be read.
    #[error("{key}/manifest.json cannot be read: {message}")]
    Manifest {
        /// The key.
        key: String,
        /// Why.
        message: String,
    },
    /// The directory for copies cannot be used.
    #[error("the copy's directory {path}: {source}")]
    Scratch {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What to back up, and whereto.
#[derive(Debug)]
pub struct BackupJob {
    /// All engines, for the staging.
    pub engines: Engines,
    /// The database.
    pub database: Database,
    /// The object store.
    pub store: BackupStore,
    /// Where the backup's files go.
    pub key: ObjectPath,
    /// Directory of the volume for the copy.
    pub scratch: PathBuf,
    /// Epoch under which it is made.
    pub epoch: u64,
    /// How long the copy may wait for writers.
    pub timeout: Duration,
}

impl BackupJob {
    /// Makes the backup. Dropping the future leaves objects without a manifest, which a repetition overwrites.
    ///
    /// # Errors
    /// When the copy or the upload fails; no manifest exists then.
    pub async fn run(self, progress: impl Fn(u64, u64) + Send + Sync) -> Result<Manifest, BackupError> {
        let id = self.database.id().clone();
        if let Some(existing) = self.existing(id.as_str()).await? {
            return Ok(existing);
        }
        let scratch = Scratch::new(self.scratch.clone())?;
        let copy = scratch.dir.join("graph.lbug");
        let snapshot = self.database.snapshot(&copy, self.timeout).await?;
        let staged = scratch.dir.join("staging.duckdb");
        let staging_size = if self.engines.has_staging(&id) {
            Some(self.engines.staging(&id).await?.snapshot(&staged).await?)
        } else {
            None
        };
        let total = snapshot.size_bytes + staging_size.unwrap_or(0);
        let mut files = Vec::new();
        let graph = upload_compressed(&copy, &self.store, &self.child("graph.lbug.zst"), |done| {
            progress(done, total)
        })
        .await?;
        files.push(BackupFile::new("graph", "graph.lbug.zst", &graph));
        if staging_size.is_some() {
            let before = snapshot.size_bytes;
            let key = self.child("staging.duckdb.zst");
            let staging = upload_compressed(&staged, &self.store, &key, |done| progress(before + done, total)).await?;
            files.push(BackupFile::new("staging", "staging.duckdb.zst", &staging));
        }
        let manifest = Manifest {
            format: Manifest::FORMAT,
            graph_id: id.to_string(),
            key: self.key.to_string(),
            created_at: crate::tasks::timestamp(),
            epoch: self.epoch,
            node_count: snapshot.counts.nodes,
            relationship_count: snapshot.counts.relationships,
            ladybug_version: snapshot.ladybug_version,
            storage_version: snapshot.storage_version,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            files,
        };
        self.store
            .write(&self.child("manifest.json"), manifest.to_bytes().into())
            .await?;
        Ok(manifest)
    }

    async fn existing(&self, id: &str) -> Result<Option<Manifest>, BackupError> {
        let Some(bytes) = self.store.read(&self.child("manifest.json")).await? else {
            return Ok(None);
        };
        let key = self.key.to_string();
        let manifest = Manifest::from_bytes(&bytes).map_err(|error| BackupError::Manifest {
            key: key.clone(),
            message: error.to_string(),
        })?;
        if manifest.graph_id != id {
            return Err(BackupError::Occupied {
                key,
                other: manifest.graph_id,
            });
        }
        Ok(Some(manifest))
    }

    fn child(&self, name: &str) -> ObjectPath {
        self.key.clone().join(name)
    }
}

/// A directory that disappears with its content, also when the backup is cancelled.
struct Scratch {
    dir: PathBuf,
}

impl Scratch {
    fn new(root: PathBuf) -> Result<Self, BackupError> {
        let dir = root.join(format!("backup-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&dir).map_err(|source| BackupError::Scratch {
            path: dir.clone(),
            source,
        })?;
        Ok(Self { dir })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            tracing::warn!(operation = "backup", path = %self.dir.display(), %error, "copy not removed; the next start does it");
        }
    }
}
