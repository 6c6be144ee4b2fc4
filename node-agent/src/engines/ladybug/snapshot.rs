//! A consistent copy of an open database. Writers wait while the file is copied; readers go on.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::super::error::EngineError;
use super::database::Database;
use super::schema::{GraphCounts, counts};

/// A finished copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Size of the copy in bytes.
    pub size_bytes: u64,
    /// SHA-256 of the copy, in hexadecimal.
    pub sha256: String,
    /// Rows at the moment of the copy.
    pub counts: GraphCounts,
    /// Version of LadybugDB that wrote it.
    pub ladybug_version: String,
    /// Version of its file format.
    pub storage_version: u64,
}

impl Database {
    /// Copies the database to `target`, which must not exist. The copy is one file that opens as a database of its own,
    /// with everything that was committed before; it is written under another name first, so `target` is whole or
    /// absent.
    ///
    /// # Errors
    /// `Busy` if other writes take longer than `timeout`; [`EngineError::Io`] if the copy cannot be written.
    pub async fn snapshot(&self, target: &Path, timeout: Duration) -> Result<SnapshotInfo, EngineError> {
        if target.exists() {
            return Err(EngineError::AlreadyExists {
                what: "snapshot",
                name: target.display().to_string(),
            });
        }
        let partial = Partial::beside(target)?;
        let counts = self.copy_to(&partial.path, timeout, &CancellationToken::new()).await?;
        let target = target.to_owned();
        tokio::task::spawn_blocking(move || partial.publish(&target, counts))
            .await
            .map_err(|error| EngineError::internal(format!("the snapshot's thread ended: {error}")))?
    }
}

impl Database {
    /// Writes a copy of the data file to `target`, which must not exist, while writers wait. Returns the rows that it
    /// has. The caller removes what a failure leaves there.
    ///
    /// # Errors
    /// As [`snapshot`](Self::snapshot); `Cancelled` by the token.
    pub(crate) async fn copy_to(
        &self,
        target: &Path,
        timeout: Duration,
        cancel: &CancellationToken,
    ) -> Result<GraphCounts, EngineError> {
        let (source, copy) = (self.open.options().path.clone(), target.to_owned());
        self.on_writer_until(timeout, cancel, move |session, job| {
            // After this the data file has everything. A reader may keep the write-ahead log alive, which does not
            // matter: its content is in the data file, and nothing changes the data file between two checkpoints.
            session.run_once(job, "CHECKPOINT")?;
            let counts = counts(session, job)?;
            copy_file(&source, &copy, || match job.is_cancelled() {
                true => Err(job.interrupted()),
                false => Ok(()),
            })?;
            Ok(counts)
        })
        .await
    }
}

/// A file that disappears unless it is published.
struct Partial {
    path: PathBuf,
}

impl Partial {
    fn beside(target: &Path) -> Result<Self, EngineError> {
        let Some(directory) = target.parent() else {
            return Err(EngineError::invalid(
                "target",
                format!("{} has no directory", target.display()),
            ));
        };
        fs::create_dir_all(directory).map_err(|error| EngineError::io("create", directory, error))?;
        let path = directory.join(format!(".snapshot-{}", uuid::Uuid::new_v4().simple()));
        Ok(Self { path })
    }

    /// Gives the file its name.
    fn rename(&self, target: &Path) -> Result<(), EngineError> {
        fs::rename(&self.path, target).map_err(|error| EngineError::io("rename", &self.path, error))?;
        sync_parent(target).map_err(|error| EngineError::io("sync", target, error))
    }

    fn publish(self, target: &Path, counts: GraphCounts) -> Result<SnapshotInfo, EngineError> {
        let (size_bytes, sha256) = hash(&self.path).map_err(|error| EngineError::io("read", &self.path, error))?;
        self.rename(target)?;
        Ok(SnapshotInfo {
            size_bytes,
            sha256,
            counts,
            ladybug_version: lbug::VERSION.to_owned(),
            storage_version: lbug::get_storage_version(),
        })
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Absent after it was published.
        let _ = fs::remove_file(&self.path);
    }
}

/// Copies a file so that `target` is whole or absent, and returns its size.
pub(crate) fn copy_whole(from: &Path, target: &Path) -> Result<u64, EngineError> {
    let partial = Partial::beside(target)?;
    copy_file(from, &partial.path, || Ok(()))?;
    partial.rename(target)?;
    let copy = fs::metadata(target).map_err(|error| EngineError::io("stat", target, error))?;
    Ok(copy.len())
}

/// Bytes that are copied between two looks at whether the copy is still wanted.
const CHUNK: u64 = 64 << 20;

/// Copies a file durably, sharing its blocks where the file system can. `go_on` is asked now and then.
fn copy_file(from: &Path, to: &Path, go_on: impl Fn() -> Result<(), EngineError>) -> Result<(), EngineError> {
    go_on()?;
    let source = File::open(from).map_err(|error| EngineError::io("open", from, error))?;
    let failed = |error: io::Error| EngineError::io("write", to, error);
    let mut copy = File::create_new(to).map_err(failed)?;
    if rustix::fs::ioctl_ficlone(&copy, &source).is_err() {
        while io::copy(&mut (&source).take(CHUNK), &mut copy).map_err(failed)? > 0 {
            go_on()?;
        }
    }
    copy.flush().and_then(|()| copy.sync_all()).map_err(failed)
}

pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

fn hash(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((size, hex::encode(digest.finalize())));
        }
        digest.update(&buffer[..read]);
        size += read as u64;
    }
}
