//! A backup back into a database: fetched beside the old one, checked, opened once, and only then put in its place.

use super::{BackupError, BackupJob, BackupKey, Content, DownloadError, FileKind, Manifest, Target, download};
use crate::{
    engines::{Candidate, DatabaseId, EngineError, Engines, Replace},
    objects::BackupStore,
};
use object_store::path::Path as ObjectPath;
use serde_json::{Value, json};
use std::sync::Arc;

/// A restore that did not happen. The database is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A file could not be fetched, or is not the one of the backup.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// The files cannot be opened, or not be put in place.
    #[error("the restored database could not be used: {0}")]
    Engine(#[from] EngineError),
    /// The files are a database, and not the one of the backup.
    #[error(
        "the restored database has {nodes} nodes and {relationships} relationships, and the manifest says {expected_nodes} and {expected_relationships}"
    )]
    Counts {
        /// What was found.
        nodes: u64,
        /// What was found.
        relationships: u64,
        /// What the manifest says.
        expected_nodes: u64,
        /// What the manifest says.
        expected_relationships: u64,
    },
    /// The old database could not be saved first.
    #[error(
        "the present database could not be backed up before its replacement ({0}); create_system_backup=false goes without"
    )]
    SystemBackup(#[source] BackupError),
}

/// What to restore, and whereto.
#[derive(Debug)]
pub struct RestoreJob {
    /// All engines.
    pub engines: Engines,
    /// The database to be.
    pub id: DatabaseId,
    /// The object store.
    pub store: BackupStore,
    /// Where the backup lies.
    pub key: ObjectPath,
    /// Its manifest.
    pub manifest: Manifest,
    /// The files that the manifest lists, checked.
    pub content: Content,
    /// The key, if they are encrypted.
    pub decryption: Option<BackupKey>,
}

/// A database that only has to be put in place.
#[derive(Debug)]
pub struct Prepared {
    engines: Engines,
    candidate: Candidate,
    manifest: Manifest,
    id: DatabaseId,
    system_backup: Option<Manifest>,
}

/// A finished restore.
#[derive(Clone, Debug)]
pub struct Restored {
    id: DatabaseId,
    manifest: Manifest,
    system_backup: Option<Manifest>,
}

impl RestoreJob {
    /// Fetches, checks and opens the files. The database of this id goes on as it is. Dropping the future leaves nothing.
    ///
    /// # Errors
    /// When the backup cannot be read, or is not what its manifest says.
    pub async fn prepare(self, progress: impl Fn(u64, u64) + Send + Sync) -> Result<Prepared, RestoreError> {
        let candidate = self.engines.candidate(&self.id, self.content.staging.is_some())?;
        let total = self.content.plain_bytes();
        let mut before = 0;
        let mut files = vec![(&self.content.graph, Target::File(candidate.graph().to_owned()))];
        if let (Some(file), Some(target)) = (&self.content.staging, candidate.staging()) {
            files.push((file, Target::File(target.to_owned())));
        }
        let vectors = candidate.vectors();
        files.extend(
            (self.content.vectors.iter()).map(|(name, file)| (file, Target::Table(Arc::clone(vectors), name.clone()))),
        );
        for (file, target) in files {
            let cipher = self
                .decryption
                .as_ref()
                .map(|key| Manifest::cipher(&self.manifest.graph_id, &self.manifest.created_at, &file.name, key));
            let object = self.key.clone().join(file.name.as_str());
            download(&self.store, &object, &file.object(), cipher, target, |done| {
                progress(before + done, total);
            })
            .await?;
            before += file.plain_size_bytes;
        }
        let counts = self.engines.examine(&candidate).await?;
        let expected = (self.manifest.node_count, self.manifest.relationship_count);
        if (counts.nodes, counts.relationships) != expected {
            return Err(RestoreError::Counts {
                nodes: counts.nodes,
                relationships: counts.relationships,
                expected_nodes: expected.0,
                expected_relationships: expected.1,
            });
        }
        Ok(Prepared {
            engines: self.engines,
            candidate,
            manifest: self.manifest,
            id: self.id,
            system_backup: None,
        })
    }
}

impl Prepared {
    /// Backs the present database up. What is written to it between this and [`install`](Self::install) is lost.
    ///
    /// # Errors
    /// When the backup fails; nothing has changed then.
    pub async fn save(&mut self, job: BackupJob) -> Result<(), RestoreError> {
        let saved = job.run(|_, _| ()).await;
        self.system_backup = Some(saved.map_err(RestoreError::SystemBackup)?);
        Ok(())
    }

    /// Puts the new database in place. This is short and cannot be cancelled: either it happens or it does not.
    ///
    /// # Errors
    /// When it does not; the database is as it was before.
    pub async fn install(self, replace: Replace) -> Result<Restored, RestoreError> {
        self.engines.install(self.candidate, replace).await?;
        Ok(Restored {
            id: self.id,
            manifest: self.manifest,
            system_backup: self.system_backup,
        })
    }
}

impl Restored {
    /// The result of the task that did it.
    pub fn result(&self) -> Value {
        json!({
            "graph_id": self.id.as_str(),
            "source_graph_id": self.manifest.graph_id,
            "key": self.manifest.key,
            "created_at": self.manifest.created_at,
            "node_count": self.manifest.node_count,
            "relationship_count": self.manifest.relationship_count,
            "size_bytes": self.manifest.size_bytes(),
            "plain_size_bytes": self.manifest.plain_size_bytes(),
            "duckdb_included": self.manifest.has(FileKind::Staging),
            "vector_tables": self.manifest.vector_tables(),
            "semantic_memory_included": self.manifest.has(FileKind::Memory),
            "is_encrypted": self.manifest.encryption.is_some(),
            "system_backup_key": self.system_backup.as_ref().map(|backup| &backup.key),
        })
    }
}
