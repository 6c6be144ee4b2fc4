//! Locks on side files. The engines lock their files with POSIX locks, which a process does not hold against itself
//! and loses when it closes any other descriptor of the same file. `flock` on a file of our own has neither fault.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::error::EngineError;

/// Held until it is dropped, or until the process ends in any way.
#[derive(Debug)]
pub(crate) struct FileLock {
    file: File,
}

impl Drop for FileLock {
    /// Closing the file is not enough: a process that was just forked shares it until it executes its own program, and
    /// would hold the lock for that moment.
    fn drop(&mut self) {
        if let Err(error) = flock(&self.file, FlockOperation::Unlock) {
            tracing::warn!(%error, "a lock is given back by closing its file only");
        }
    }
}

impl FileLock {
    /// Takes the lock, or says at once that another holder has it.
    pub(crate) fn acquire(path: &Path) -> Result<Self, EngineError> {
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(|error| EngineError::io("open", path, error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { file }),
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => Err(EngineError::Locked {
                path: PathBuf::from(path),
            }),
            Err(error) => Err(EngineError::io("lock", path, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_lock_is_held_once_even_within_a_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = FileLock::acquire(&path).unwrap();
        assert!(matches!(FileLock::acquire(&path), Err(EngineError::Locked { .. })));
        // Closing another descriptor of the file does not release it, unlike a POSIX lock.
        drop(File::open(&path).unwrap());
        assert!(FileLock::acquire(&path).is_err());
        // A process that is being started shares the descriptor for a moment, as this one does.
        let shared = held.file.try_clone().unwrap();
        drop(held);
        FileLock::acquire(&path).unwrap();
        drop(shared);
    }
}
