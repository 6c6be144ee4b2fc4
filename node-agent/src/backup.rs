//! Backups: a consistent copy of a database, compressed, hashed and (with a key) encrypted while it is uploaded, and a
//! manifest last; and the way back.
//!
//! Below the key of a backup lie `graph.lbug.zst`, `staging.duckdb.zst` where the graph has staging,
//! `<table>.lance.tar.zst` for each table of vectors, `semantic-memory.tar.zst` where there is one, and `manifest.json`;
//! encrypted files end in `.enc`. The manifest is what makes it a backup: it is written when everything
//! else is in place, so a backup that was interrupted does not exist. Repeating a finished backup under the same key
//! gives the same answer and copies nothing.

mod archive;
mod copies;
mod crypt;
mod download;
mod manifest;
mod restore;
mod unpack;
mod upload;

pub use archive::{Archive, archive};
pub(crate) use copies::Scratch;
pub use copies::{Copied, Copies, Extent, Source};
pub use crypt::{BackupKey, FileCipher, KeyError, Keyring};
pub use download::{DownloadError, Target, download};
pub use manifest::{Abilities, BackupFile, Content, Encryption, FileKind, Manifest, Piece, Unusable};
pub use restore::{Prepared, RestoreError, RestoreJob, Restored};
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
    /// The key holds a backup of this graph that is not encrypted as this one was to be.
    #[error("{key} holds a backup of {graph} already, which is {how}; choose another key")]
    OtherEncryption {
        /// The key.
        key: String,
        /// The graph.
        graph: String,
        /// How the backup there is stored.
        how: &'static str,
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
    /// All engines, for the staging and the vectors.
    pub engines: Engines,
    /// The database.
    pub database: Database,
    /// The object store.
    pub store: BackupStore,
    /// Where the backup's files go.
    pub key: ObjectPath,
    /// With what they are encrypted, if they are.
    pub encryption: Option<BackupKey>,
    /// Directory of the volume for the copy.
    pub scratch: PathBuf,
    /// Epoch under which it is made.
    pub epoch: u64,
    /// Its number, if it is to be a seed.
    pub version: Option<u64>,
    /// Whether staging tables belong to it, if there are any.
    pub with_staging: bool,
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
        let created_at = crate::tasks::timestamp();
        let (engines, database) = (&self.engines, &self.database);
        let extent = Extent {
            staging: self.with_staging,
            ..Extent::ALL
        };
        let copies = Copies::take(engines, database, extent, &self.scratch, self.timeout).await?;
        let snapshot = copies.snapshot();
        let total = copies.size_bytes();
        let (mut files, mut before) = (Vec::new(), 0);
        for file in copies.files() {
            let encrypted = self.encryption.is_some();
            let name = file.piece.name(encrypted);
            let cipher = self
                .encryption
                .as_ref()
                .map(|key| Manifest::cipher(id.as_str(), &created_at, &name, key));
            let key = self.child(&name);
            let progress = |done| progress(before + done, total);
            let uploaded = upload_compressed(&file.source, &self.store, &key, cipher, progress).await?;
            files.push(BackupFile::uploaded(&file.piece, encrypted, &uploaded));
            before += file.size_bytes;
        }
        let manifest = Manifest {
            format: Manifest::FORMAT,
            graph_id: id.to_string(),
            key: self.key.to_string(),
            created_at,
            epoch: self.epoch,
            version: self.version,
            node_count: snapshot.counts.nodes,
            relationship_count: snapshot.counts.relationships,
            ladybug_version: snapshot.ladybug_version.clone(),
            storage_version: snapshot.storage_version,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            encryption: self.encryption.as_ref().map(Encryption::with),
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
        // Who asked for encryption must not be told that a plain backup is what was asked for.
        if manifest.encryption != self.encryption.as_ref().map(Encryption::with) {
            return Err(BackupError::OtherEncryption {
                key,
                graph: manifest.graph_id,
                how: if manifest.encryption.is_some() {
                    "encrypted, or with another key"
                } else {
                    "not encrypted"
                },
            });
        }
        Ok(Some(manifest))
    }

    fn child(&self, name: &str) -> ObjectPath {
        self.key.clone().join(name)
    }
}
