//! An export back into a database: made anew beside the old one, compared row by row with what was exported, and only then
//! put in its place. The old files are kept.

use super::{ExportManifest, ExportedFile, MigrationError, until_stopped};
use crate::{
    backup::{BackupKey, Manifest, Scratch, Target, download},
    engines::{Candidate, DatabaseId, Engines, LADYBUG_VERSION, Portable, Replace, ladybug_storage_version},
    objects::BackupStore,
};
use object_store::path::Path as ObjectPath;
use serde_json::{Value, json};
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

/// What to import, and whereto.
#[derive(Debug)]
pub struct ImportJob {
    /// All engines.
    pub engines: Engines,
    /// The database to be.
    pub id: DatabaseId,
    /// The object store.
    pub store: BackupStore,
    /// Where the export lies.
    pub key: ObjectPath,
    /// Its document, checked.
    pub manifest: ExportManifest,
    /// The key, if its files are encrypted.
    pub decryption: Option<BackupKey>,
    /// Directory of the volume for the files.
    pub scratch: PathBuf,
}

/// A database that only has to be put in place.
#[derive(Debug)]
pub struct PreparedImport {
    engines: Engines,
    candidate: Candidate,
    manifest: ExportManifest,
}

/// A finished import.
#[derive(Clone, Debug)]
pub struct Imported {
    id: DatabaseId,
    manifest: ExportManifest,
    replaced: bool,
}

impl ImportJob {
    /// Fetches the files, and makes the database of them. The database of this id goes on as it is. Let it run to its end;
    /// `stop` ends it. `progress` is told how many rows are read, and of how many.
    ///
    /// # Errors
    /// When the export cannot be read, or is not what its document says.
    pub async fn prepare(
        self,
        progress: impl Fn(u64, u64) + Send,
        stop: &CancellationToken,
    ) -> Result<PreparedImport, MigrationError> {
        let directory = Scratch::new(&self.scratch)?;
        let candidate = self
            .engines
            .candidate(&self.id, self.manifest.staging.is_some())?
            .keeping(self.manifest.graph_id == self.id.as_str());
        let schema = directory.path().join("schema.cypher");
        let fetch = |file, target: PathBuf| {
            let job = &self;
            async move { until_stopped(stop, job.fetch(file, target)).await }
        };
        fetch(&self.manifest.schema, schema.clone()).await?;
        for (index, table) in self.manifest.tables.iter().enumerate() {
            fetch(&table.file, Portable::file(directory.path(), index)).await?;
        }
        if let (Some(file), Some(target)) = (&self.manifest.staging, candidate.staging()) {
            fetch(file, target.to_owned()).await?;
        }
        let ddl = std::fs::read_to_string(&schema).map_err(|source| MigrationError::Io { path: schema, source })?;
        let portable = self.manifest.portable(ddl);
        self.engines
            .read_portable(&candidate, &portable, directory.path(), progress, stop)
            .await?;
        // Opened once more as whoever asks for it will: by its file alone.
        let counts = until_stopped(stop, self.engines.examine(&candidate)).await?;
        let expected = (self.manifest.node_count, self.manifest.relationship_count);
        if (counts.nodes, counts.relationships) != expected {
            return Err(MigrationError::Counts {
                nodes: counts.nodes,
                relationships: counts.relationships,
                expected_nodes: expected.0,
                expected_relationships: expected.1,
            });
        }
        Ok(PreparedImport {
            engines: self.engines,
            candidate,
            manifest: self.manifest,
        })
    }

    async fn fetch(&self, file: &ExportedFile, target: PathBuf) -> Result<(), MigrationError> {
        let cipher = self
            .decryption
            .as_ref()
            .map(|key| Manifest::cipher(&self.manifest.graph_id, &self.manifest.created_at, &file.name, key));
        let object = self.key.clone().join(file.name.as_str());
        Ok(download(&self.store, &object, &file.object, cipher, Target::File(target), |_| ()).await?)
    }
}

impl PreparedImport {
    /// Number of the file that is to become the database.
    ///
    /// # Errors
    /// It is not there.
    pub fn inode(&self) -> Result<u64, MigrationError> {
        Ok(self.candidate.inode()?)
    }

    /// Puts the new database in place, and keeps the files that it replaces. This is short and cannot be cancelled: either
    /// it happens or it does not.
    ///
    /// # Errors
    /// When it does not; the database is as it was before.
    pub async fn install(self, replace: Replace) -> Result<Imported, MigrationError> {
        let id = self.candidate.id().clone();
        self.engines.install(self.candidate, replace).await?;
        Ok(Imported {
            id,
            manifest: self.manifest,
            replaced: replace == Replace::Existing,
        })
    }
}

impl Imported {
    /// The result of the task that did it.
    pub fn result(&self) -> Value {
        json!({
            "graph_id": self.id.as_str(),
            "source_graph_id": self.manifest.graph_id,
            "key": self.manifest.key,
            "created_at": self.manifest.created_at,
            "node_count": self.manifest.node_count,
            "relationship_count": self.manifest.relationship_count,
            "source_ladybug_version": self.manifest.ladybug_version,
            "source_storage_version": self.manifest.storage_version.to_string(),
            "ladybug_version": LADYBUG_VERSION,
            "storage_version": ladybug_storage_version().to_string(),
            "duckdb_included": self.manifest.staging.is_some(),
            "is_encrypted": self.manifest.encryption.is_some(),
            "pre_migration_kept": self.replaced,
        })
    }
}
