//! Consistent copies of a database, its staging and its vectors on the volume, for as long as they are being sent away.

use super::{BackupError, Piece};
use crate::engines::{Database, EngineError, Engines, SnapshotInfo, VectorsCopy};
use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

const BLOCK: usize = 1 << 20;

/// Where the bytes of a piece come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file, as it is.
    File(PathBuf),
    /// A table of vectors, as a tar that is made on the way.
    Table(VectorsCopy),
}

impl Source {
    /// Writes them.
    ///
    /// # Errors
    /// The copy cannot be read, or `output` fails.
    pub fn write_to(&self, output: &mut impl Write) -> io::Result<()> {
        let path = match self {
            Self::File(path) => path,
            Self::Table(copy) => return copy.write_to(output),
        };
        let mut file = File::open(path)?;
        let mut buffer = vec![0; BLOCK];
        loop {
            let length = file.read(&mut buffer)?;
            if length == 0 {
                return Ok(());
            }
            output.write_all(&buffer[..length])?;
        }
    }
}

/// One file of a backup, as it lies on the volume.
#[derive(Clone, Debug)]
pub struct Copied {
    /// Which one.
    pub piece: Piece,
    /// Its bytes.
    pub source: Source,
    /// How many there are.
    pub size_bytes: u64,
}

/// What is copied beside the graph, if there is any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its staging tables.
    pub staging: bool,
    /// Its vectors and its semantic memory.
    pub vectors: bool,
}

impl Extent {
    /// Everything.
    pub const ALL: Self = Self {
        staging: true,
        vectors: true,
    };
}

/// Copies of what belongs to one database; they disappear when this is dropped.
#[derive(Debug)]
pub struct Copies {
    graph: PathBuf,
    files: Vec<Copied>,
    snapshot: SnapshotInfo,
    _directory: Scratch,
}

impl Copies {
    /// Copies the database, and what is wanted beside it. Writers of the graph and of staging wait meanwhile, at most for
    /// `timeout`; nobody waits for the copy of the vectors. The graph, the staging and each table of vectors are consistent
    /// by themselves.
    ///
    /// # Errors
    /// When the copies cannot be made.
    pub async fn take(
        engines: &Engines,
        database: &Database,
        extent: Extent,
        scratch: &Path,
        timeout: Duration,
    ) -> Result<Self, BackupError> {
        let directory = Scratch::new(scratch)?;
        let graph = directory.0.join("graph.lbug");
        let snapshot = database.snapshot(&graph, timeout).await?;
        let mut files = vec![Copied {
            piece: Piece::Graph,
            source: Source::File(graph.clone()),
            size_bytes: snapshot.size_bytes,
        }];
        if extent.staging && engines.has_staging(database.id()) {
            let path = directory.0.join("staging.duckdb");
            files.push(Copied {
                piece: Piece::Staging,
                size_bytes: copy_staging(engines, database, &path).await?,
                source: Source::File(path),
            });
        }
        let names = match extent.vectors {
            true => engines.vectors(database.id())?.names().await?,
            false => Vec::new(),
        };
        let vectors = directory.0.join("vectors");
        for copy in engines.copy_vectors(database.id(), &vectors, names).await? {
            files.push(Copied {
                piece: Piece::Vectors(copy.name().clone()),
                size_bytes: copy.size_bytes(),
                source: Source::Table(copy),
            });
        }
        Ok(Self {
            graph,
            files,
            snapshot,
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
    pub(crate) fn staging(&self) -> Option<&Source> {
        let mut files = self.files.iter();
        files.find(|file| file.piece == Piece::Staging).map(|file| &file.source)
    }

    /// The files, the graph first.
    pub fn files(&self) -> &[Copied] {
        &self.files
    }

    /// Size of all files, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).sum()
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
