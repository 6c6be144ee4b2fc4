//! `migration.json` on the volume: the exports of all databases of the node, from when they are made until they are
//! imported. What an agent with another engine finds when it starts on the volume.

use super::{ExportManifest, MigrationError};
use crate::registration::files::write_atomically;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// One database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PendingDatabase {
    /// Its id.
    pub graph_id: String,
    /// The key of its export.
    pub export_path: String,
    /// Nodes of the graph.
    pub node_count: u64,
    /// Relationships of the graph.
    pub relationship_count: u64,
    /// Files of relationships.
    pub relationship_tables: usize,
    /// Size of the export's objects.
    pub size_bytes: u64,
    /// When it was begun (RFC 3339, UTC).
    pub exported_at: String,
}

impl From<&ExportManifest> for PendingDatabase {
    fn from(export: &ExportManifest) -> Self {
        Self {
            graph_id: export.graph_id.clone(),
            export_path: export.key.clone(),
            node_count: export.node_count,
            relationship_count: export.relationship_count,
            relationship_tables: export.tables.iter().filter(|table| table.table.ends.is_some()).count(),
            size_bytes: export.size_bytes(),
            exported_at: export.created_at.clone(),
        }
    }
}

/// Databases that were exported and wait to be imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pending {
    /// Version of LadybugDB that wrote the exports.
    pub source_version: String,
    /// Version that is to read them, as the caller said.
    pub target_version: String,
    /// When the first export was begun (RFC 3339, UTC).
    pub created_at: String,
    /// `parquet`.
    pub export_format: String,
    /// The databases.
    pub databases: Vec<PendingDatabase>,
}

impl Pending {
    fn file(data_dir: &Path) -> PathBuf {
        data_dir.join("migration.json")
    }

    /// What waits on this volume, if anything does.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(data_dir: &Path) -> Result<Option<Self>, MigrationError> {
        let path = Self::file(data_dir);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(MigrationError::Io { path, source }),
        };
        let read = serde_json::from_slice(&text).map_err(io::Error::from);
        read.map(Some).map_err(|source| MigrationError::Io { path, source })
    }

    /// Writes what waits; nothing any more if there are no databases.
    ///
    /// # Errors
    /// The volume fails.
    pub fn write(&self, data_dir: &Path) -> Result<(), MigrationError> {
        let path = Self::file(data_dir);
        let failed = |source: io::Error| MigrationError::Io {
            path: path.clone(),
            source,
        };
        if self.databases.is_empty() {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
                _ => Ok(()),
            };
        }
        let text = serde_json::to_vec_pretty(self).map_err(|error| failed(error.into()))?;
        write_atomically(&path, &text, 0o600).map_err(|error| failed(io::Error::other(error.to_string())))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_waits_is_there_until_nothing_waits() {
        let volume = tempfile::tempdir().unwrap();
        assert_eq!(Pending::read(volume.path()).unwrap(), None);
        let mut pending = Pending {
            source_version: "0.22.1".into(),
            target_version: "0.23.0".into(),
            created_at: "2026-01-01T00:00:00.000Z".into(),
            export_format: "parquet".into(),
            databases: vec![PendingDatabase {
                graph_id: "kg1".into(),
                export_path: "exports/kg1".into(),
                node_count: 1,
                relationship_count: 2,
                relationship_tables: 1,
                size_bytes: 3,
                exported_at: "2026-01-01T00:00:00.000Z".into(),
            }],
        };
        pending.write(volume.path()).unwrap();
        assert_eq!(Pending::read(volume.path()).unwrap().as_ref(), Some(&pending));
        pending.databases.clear();
        pending.write(volume.path()).unwrap();
        pending.write(volume.path()).unwrap();
        assert_eq!(Pending::read(volume.path()).unwrap(), None);
        std::fs::write(volume.path().join("migration.json"), "{").unwrap();
        Pending::read(volume.path()).unwrap_err();
    }
}
