//! Files that other processes read: written whole or not at all, and private where they hold a secret.

use crate::failure::Failure;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Makes a directory that only its owner may enter, with its parents; an existing one stays as it is.
///
/// # Errors
/// The directory cannot be made.
pub fn private_dir(path: &Path) -> Result<(), Failure> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| Failure::io(format_args!("making the directory {}", path.display()), &error))
}

/// Replaces `path` by a file with mode 0600 and this text: a reader sees the old file or the new one, never a part.
///
/// # Errors
/// The directory is not writable or the disk is full; `path` is then unchanged.
pub fn write_private(path: &Path, text: &str) -> Result<(), Failure> {
    let fail = |error| Failure::io(format_args!("writing {}", path.display()), &error);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The half-written file is of no use; the error that is reported is the first one.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(fail)
}

/// Removes a file; one that is not there is no error.
///
/// # Errors
/// The file is there and cannot be removed.
pub fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::io(format_args!("removing {}", path.display()), &error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_private_file_is_replaced_whole_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api-key");
        fs::write(&path, "a longer text than the new one").unwrap();
        write_private(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_failed_write_names_the_file_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("absent").join("x");
        let failure = write_private(&path, "text").unwrap_err();
        assert!(failure.message.contains("absent/x"), "{failure}");
        // A directory cannot be replaced by a file: the rename fails after the temporary file was written.
        let taken = dir.path().join("taken");
        fs::create_dir_all(taken.join("inside")).unwrap();
        write_private(&taken, "text").unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn removing_what_is_not_there_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        remove(&dir.path().join("absent")).unwrap();
        remove(dir.path()).unwrap_err();
    }
}
