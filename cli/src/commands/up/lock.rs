//! One `graphplane up` per data directory.

use crate::data_dir::DataDir;
use crate::failure::{Exit, Failure};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};

/// Held while a `graphplane up` owns its data directory. The operating system releases it when the process ends,
/// however it ends.
#[derive(Debug)]
pub(super) struct InstanceLock {
    file: File,
}

impl Drop for InstanceLock {
    /// Closing the file is not enough: a process that was just forked shares it until it executes its own program.
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "the data directory is given back by closing its lock file only");
        }
    }
}

impl InstanceLock {
    /// Takes the directory for this process.
    ///
    /// # Errors
    /// Another process has it (exit code `Conflict`), or the lock file cannot be written.
    pub(super) fn take(dir: &DataDir) -> Result<Self, Failure> {
        let path = dir.lock();
        let fail = |error: &std::io::Error| Failure::io(format_args!("locking {}", path.display()), error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| fail(&error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who holds it is told if it can be read; that it is held is certain either way.
                let _ = file.read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => String::new(),
                    process => format!(" (process {process})"),
                };
                return Err(Failure::new(
                    Exit::Conflict,
                    format!("another `graphplane up`{holder} runs on {}", dir.path().display()),
                )
                .advise("stop it first, or choose another directory with --data-dir"));
            }
            Err(TryLockError::Error(error)) => return Err(fail(&error)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(|error| fail(&error))?;
        Ok(Self { file })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_second_one_is_told_who_holds_the_directory() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::at(root.path());
        let first = InstanceLock::take(&dir).unwrap();
        let failure = InstanceLock::take(&dir).unwrap_err();
        assert_eq!(failure.exit, Exit::Conflict);
        assert!(
            failure.message.contains(&format!("process {}", std::process::id())),
            "{failure}"
        );
        assert!(
            failure.message.contains(&root.path().display().to_string()),
            "{failure}"
        );
        drop(first);
        InstanceLock::take(&dir).unwrap();
    }

    #[test]
    fn a_lock_file_that_a_dead_process_left_is_no_hindrance() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::at(root.path());
        std::fs::write(dir.lock(), "4194304999\n").unwrap();
        let _held = InstanceLock::take(&dir).unwrap();
        assert_eq!(
            std::fs::read_to_string(dir.lock()).unwrap().trim(),
            std::process::id().to_string()
        );
    }
}
