//! `migration.json` on the volume: the exports of all databases of the node, from when they are made until they are
//! imported. What an agent with another engine finds when it starts on the volume.

use super::{ExportManifest, MigrationError};
use crate::{
    engines::{DatabaseId, Engines},
    registration::files::write_atomically,
};
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
    /// The file that is about to become the database, by its number in the file system. Noted before that happens: whoever
    /// finds the database to be this file knows that it has happened, also after a crash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installing: Option<u64>,
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
            installing: None,
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

    /// What waits on this volume, if anything does. A database that was put in place does not wait, even if a crash has kept
    /// that from being noted.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(data_dir: &Path, engines: &Engines) -> Result<Option<Self>, MigrationError> {
        let mut pending = Self::noted(data_dir)?;
        if let Some(pending) = &mut pending {
            pending.settle(|id| engines.graph_inode(id));
        }
        Ok(pending.filter(|pending| !pending.databases.is_empty()))
    }

    /// Notes what has become of a database that was about to be put in place when the agent ended. Before anything else
    /// changes its file.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn settle_volume(data_dir: &Path, engines: &Engines) -> Result<(), MigrationError> {
        match Self::noted(data_dir)? {
            Some(mut pending) => match pending.settle(|id| engines.graph_inode(id)) {
                true => pending.write(data_dir),
                false => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Forgets the databases that are the files which were about to become them, and that the others were about to change.
    /// Returns whether there were any.
    pub fn settle(&mut self, inode: impl Fn(&DatabaseId) -> Option<u64>) -> bool {
        let about = |database: &PendingDatabase| database.installing.is_some();
        let changed = self.databases.iter().any(about);
        self.databases.retain(|database| {
            let id = DatabaseId::parse(&database.graph_id).ok();
            database.installing.is_none() || id.and_then(|id| inode(&id)) != database.installing
        });
        for database in &mut self.databases {
            database.installing = None;
        }
        changed
    }

    fn noted(data_dir: &Path) -> Result<Option<Self>, MigrationError> {
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

    fn database(id: &str, installing: Option<u64>) -> PendingDatabase {
        PendingDatabase {
            graph_id: id.into(),
            export_path: format!("exports/{id}"),
            node_count: 1,
            relationship_count: 2,
            relationship_tables: 1,
            size_bytes: 3,
            exported_at: "2026-01-01T00:00:00.000Z".into(),
            installing,
        }
    }

    fn pending(databases: &[PendingDatabase]) -> Pending {
        Pending {
            source_version: "0.22.1".into(),
            target_version: "0.23.0".into(),
            created_at: "2026-01-01T00:00:00.000Z".into(),
            export_format: "parquet".into(),
            databases: databases.to_vec(),
        }
    }

    #[test]
    fn what_waits_is_there_until_nothing_waits() {
        let volume = tempfile::tempdir().unwrap();
        assert_eq!(Pending::noted(volume.path()).unwrap(), None);
        let mut pending = pending(&[database("kg1", None)]);
        pending.write(volume.path()).unwrap();
        assert_eq!(Pending::noted(volume.path()).unwrap().as_ref(), Some(&pending));
        pending.databases.clear();
        pending.write(volume.path()).unwrap();
        pending.write(volume.path()).unwrap();
        assert_eq!(Pending::noted(volume.path()).unwrap(), None);
        std::fs::write(volume.path().join("migration.json"), "{").unwrap();
        Pending::noted(volume.path()).unwrap_err();
    }

    #[test]
    fn only_what_is_not_in_place_waits_on() {
        let there = |id: &DatabaseId| match id.as_str() {
            "placed" => Some(7),
            "old" | "waiting" => Some(8),
            _ => None,
        };
        let waiting = database("waiting", None);
        let mut before = pending(&[
            waiting.clone(),
            database("placed", Some(7)),
            database("old", Some(9)),
            database("gone", Some(9)),
        ]);
        assert!(before.settle(there));
        assert_eq!(
            before,
            pending(&[waiting, database("old", None), database("gone", None)])
        );
        assert!(!before.settle(there));
    }
}
