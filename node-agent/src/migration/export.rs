//! A database into the object store, in files that every version of the engines reads.

use super::{EXPORT, ExportManifest, ExportedFile, ExportedTable, MigrationError, until_stopped};
use crate::{
    backup::{BackupKey, Copies, Encryption, Extent, Manifest, Scratch, Source, upload_compressed},
    engines::{DatabaseId, Engines, Portable, duckdb_version},
    objects::BackupStore,
};
use object_store::path::Path as ObjectPath;
use std::{path::PathBuf, time::Duration};
use tokio_util::sync::CancellationToken;

/// What to export, and whereto.
#[derive(Debug)]
pub struct ExportJob {
    /// All engines.
    pub engines: Engines,
    /// The database.
    pub id: DatabaseId,
    /// The object store.
    pub store: BackupStore,
    /// Where the export's files go.
    pub key: ObjectPath,
    /// With what they are encrypted, if they are.
    pub encryption: Option<BackupKey>,
    /// Directory of the volume for copies.
    pub scratch: PathBuf,
    /// Epoch under which it is made.
    pub epoch: u64,
    /// Whether staging tables belong to it, if there are any.
    pub with_staging: bool,
    /// How long the copy may wait for writers.
    pub timeout: Duration,
}

impl ExportJob {
    /// Makes the export: writers wait only while the database is copied. Let it run to its end; `stop` ends it, and leaves
    /// objects without a document, which a repetition overwrites. `progress` is told how many rows are written, and of how
    /// many. The same key again is the same export.
    ///
    /// # Errors
    /// When the graph has what an export cannot say, or something fails; there is no export then.
    pub async fn run(
        self,
        progress: impl Fn(u64, u64) + Send,
        stop: &CancellationToken,
    ) -> Result<ExportManifest, MigrationError> {
        if let Some(existing) = self.existing().await? {
            return Ok(existing);
        }
        let created_at = crate::tasks::timestamp();
        let copies = {
            // Kept open no longer than for the copy: what follows needs its memory.
            let database = self.engines.database(&self.id).await?;
            // Vectors are not what differs between versions of LadybugDB: they stay where they are.
            let extent = Extent {
                staging: self.with_staging,
                vectors: false,
            };
            let copies = Copies::take(&self.engines, &database, extent, &self.scratch, self.timeout);
            until_stopped(stop, copies).await?
        };
        let directory = Scratch::new(&self.scratch)?;
        let portable = self
            .engines
            .write_portable(&self.id, copies.graph(), directory.path(), progress, stop)
            .await?;
        let ddl = directory.path().join("schema.cypher");
        std::fs::write(&ddl, &portable.ddl).map_err(|source| MigrationError::Io {
            path: ddl.clone(),
            source,
        })?;
        let encrypted = self.encryption.is_some();
        let send = |path: Source, name: String| {
            let (job, created_at) = (&self, &created_at);
            async move { until_stopped(stop, job.send(&path, name, created_at)).await }
        };
        let schema = send(Source::File(ddl), ExportManifest::schema_name(encrypted)).await?;
        let mut tables = Vec::new();
        for (index, table) in portable.tables.iter().enumerate() {
            let path = Portable::file(directory.path(), index);
            let file = send(Source::File(path), ExportManifest::table_name(index, encrypted)).await?;
            tables.push(ExportedTable {
                table: table.clone(),
                file,
            });
        }
        let staging = match copies.staging() {
            Some(copy) => Some(send(copy.clone(), ExportManifest::staging_name(encrypted)).await?),
            None => None,
        };
        let (node_count, relationship_count) = portable.counts();
        let manifest = ExportManifest {
            format: ExportManifest::FORMAT,
            graph_id: self.id.to_string(),
            key: self.key.to_string(),
            created_at,
            epoch: self.epoch,
            node_count,
            relationship_count,
            ladybug_version: copies.snapshot().ladybug_version.clone(),
            storage_version: copies.snapshot().storage_version,
            duckdb_version: duckdb_version(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            encryption: self.encryption.as_ref().map(Encryption::with),
            schema,
            sequences: portable.sequences,
            tables,
            staging,
        };
        let document = self.key.clone().join(EXPORT);
        until_stopped(stop, self.store.write(&document, manifest.to_bytes().into())).await?;
        Ok(manifest)
    }

    async fn send(&self, source: &Source, name: String, created_at: &str) -> Result<ExportedFile, MigrationError> {
        let cipher = self
            .encryption
            .as_ref()
            .map(|key| Manifest::cipher(self.id.as_str(), created_at, &name, key));
        let object = self.key.clone().join(name.as_str());
        let object = upload_compressed(source, &self.store, &object, cipher, |_| ()).await?;
        Ok(ExportedFile { name, object })
    }

    async fn existing(&self) -> Result<Option<ExportManifest>, MigrationError> {
        let key = self.key.to_string();
        let existing = match ExportManifest::fetch(&self.store, &self.key).await {
            Ok(existing) => existing,
            Err(MigrationError::Absent { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        if existing.graph_id != self.id.as_str() {
            let what = format!("an export of {}", existing.graph_id);
            return Err(MigrationError::Occupied { key, what });
        }
        // Who asked for encryption must not be told that a plain export is what was asked for.
        if !existing.is_encrypted_with(self.encryption.as_ref()) {
            let what = "an export that is not encrypted, or with another key".to_owned();
            return Err(MigrationError::Occupied { key, what });
        }
        Ok(Some(existing))
    }
}

impl ExportManifest {
    /// The document below a key.
    ///
    /// # Errors
    /// When there is none, or it is none.
    pub async fn fetch(store: &BackupStore, key: &ObjectPath) -> Result<Self, MigrationError> {
        let bytes = store.read(&key.clone().join(EXPORT)).await?;
        let key = key.to_string();
        let bytes = bytes.ok_or_else(|| MigrationError::Absent { key: key.clone() })?;
        serde_json::from_slice(&bytes).map_err(|error| MigrationError::Document {
            key,
            message: error.to_string(),
        })
    }
}
