//! Consistent copies of a database and its staging on the volume, for as long as they are being sent away.

use super::{BackupError, FileKind};
use crate::engines::{Database, EngineError, Engines, SnapshotInfo};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Copies of the files of one database; they disappear when this is dropped.
#[derive(Debug)]
pub struct Copies {
    graph: PathBuf,
    snapshot: SnapshotInfo,
    staging: Option<(PathBuf, u64)>,
    _directory: Scratch,
}

impl Copies {
    /// Copies the database and, given the engines that hold it, its staging if it has any. Writers wait meanwhile, at most
    /// for `timeout`.
    ///
    /// # Errors
    /// When the copies cannot be made.
    pub async fn take(
        staging: Option<&Engines>,
        database: &Database,
        scratch: &Path,
        timeout: Duration,
    ) -> Result<Self, BackupError> {
        let directory = Scratch::new(scratch)?;
        let graph = directory.0.join("graph.lbug");
        let snapshot = database.snapshot(&graph, timeout).await?;
        let staging = match staging.filter(|engines| engines.has_staging(database.id())) {
            Some(engines) => {
                let path = directory.0.join("staging.duckdb");
                let size = copy_staging(engines, database, &path).await?;
                Some((path, size))
            }
            None => None,
        };
        Ok(Self {
            graph,
            snapshot,
            staging,
            _directory: directory,
        })
    }

    /// What is known of the graph's copy.
    pub fn snapshot(&self) -> &SnapshotInfo {
        &self.snapshot
    }

    /// The copy of the graph, which may be changed if it is not sent away.
    pub(crate) fn graph(&self) -> &Path {
        &self.graph
    }

    /// The copy of its staging.
    pub(crate) fn staging(&self) -> Option<&Path> {
        self.staging.as_ref().map(|(path, _)| path.as_path())
    }

    /// The files with their sizes, the graph first.
    pub fn files(&self) -> impl Iterator<Item = (FileKind, &Path, u64)> {
        let graph = (FileKind::Graph, self.graph.as_path(), self.snapshot.size_bytes);
        let staging = self
            .staging
            .as_ref()
            .map(|(path, size)| (FileKind::Staging, path.as_path(), *size));
        std::iter::once(graph).chain(staging)
    }

    /// Size of all files, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.files().map(|(_, _, size)| size).sum()
    }
}

async fn copy_staging(engines: &Engines, database: &Database, path: &Path) -> Result<u64, EngineError> {
    engines.staging(database.id()).await?.snapshot(path).await
}

/// A directory that disappears with its content, also when the work is cancelled.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes one below the directory for copies.
    pub(crate) fn new(root: &Path) -> Result<Self, BackupError> {
        let path = root.join(format!("backup-{}", uuid::Uuid::new_v4().simple()));
        match std::fs::create_dir_all(&path) {
            Ok(()) => Ok(Self(path)),
            Err(source) => Err(BackupError::Scratch { path, source }),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(operation = "backup", path = %self.0.display(), %error, "copy not removed; the next start does it");
        }
    }
}
