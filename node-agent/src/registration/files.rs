//! What the agent keeps on the volume about itself: the epoch, its identity, and the address it listens on.
//!
//! All are written to a temporary file, synced and renamed, so that a crash leaves the old content or the new.

use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// A file of the volume that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file has other content than this agent writes.
    #[error("{path} does not hold {expected}; the volume may be damaged, so the agent does not guess")]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
}

/// The agent's identity, as the first registration gave it.
#[derive(Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The node that this identity belongs to; a volume that moved to another node carries a stranger's identity.
    pub node: String,
    /// Token that authenticates the node to the control plane.
    pub credential: String,
    /// Token that the control plane has offered instead, and that was not used yet. Until it was accepted once, either may
    /// be the one that is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered: Option<String>,
    /// Key that callers of the agent present.
    pub api_key: String,
    /// The epoch that came with it.
    pub epoch: u64,
}

// Secrets must never reach a log, so Debug is written by hand.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("node", &self.node)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// The files of one volume.
#[derive(Clone, Debug)]
pub struct VolumeFiles {
    dir: PathBuf,
}

impl VolumeFiles {
    /// The files below a data directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Removes what writes of an earlier process left behind that were cut off.
    ///
    /// # Errors
    /// When the directory cannot be read, or such a file not be removed.
    pub fn remove_unfinished(&self) -> Result<(), FileError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| FileError::Io { action, path, source }
        };
        for entry in fs::read_dir(&self.dir).map_err(failed("list", &self.dir))? {
            let path = entry.map_err(failed("list", &self.dir))?.path();
            if path.extension().is_some_and(|extension| extension == UNFINISHED) {
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(())
    }

    /// The epoch of the volume; 0 when it has none yet.
    ///
    /// # Errors
    /// When the file cannot be read, or is not a number: an agent that guessed could write under a stale epoch.
    pub fn epoch(&self) -> Result<u64, FileError> {
        let path = self.dir.join("epoch");
        match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|_| FileError::Content {
                path,
                expected: "an epoch (a number)",
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(source) => Err(FileError::Io {
                action: "read",
                path,
                source,
            }),
        }
    }

    /// Writes the epoch durably.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_epoch(&self, epoch: u64) -> Result<(), FileError> {
        write_atomically(&self.dir.join("epoch"), format!("{epoch}\n").as_bytes(), 0o644)
    }

    /// The identity, if it belongs to this node. One that cannot be read is treated as absent: the node then needs
    /// its one-time token again.
    pub fn identity(&self, node: &str) -> Option<Identity> {
        let text = fs::read(self.dir.join("agent.identity.json")).ok()?;
        serde_json::from_slice::<Identity>(&text)
            .ok()
            .filter(|identity| identity.node == node)
    }

    /// Writes the identity durably, readable by this user alone.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_identity(&self, identity: &Identity) -> Result<(), FileError> {
        let path = self.dir.join("agent.identity.json");
        let text = serde_json::to_vec_pretty(identity).map_err(|error| FileError::Io {
            action: "encode",
            path: path.clone(),
            source: io::Error::other(error),
        })?;
        write_atomically(&path, &text, 0o600)
    }

    /// Writes the address that the agent listens on.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_address(&self, address: &str) -> Result<(), FileError> {
        write_atomically(
            &self.dir.join("agent.address"),
            format!("{address}\n").as_bytes(),
            0o644,
        )
    }
}

/// How the names of files end that are being written.
const UNFINISHED: &str = "new";

/// Writes a file so that a crash leaves the old content or the new, never a part: temporary file, sync, rename, sync of
/// the directory.
///
/// # Errors
/// When any of the steps fails; the old content is then still there.
pub fn write_atomically(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let failed = |action| {
        move |source| FileError::Io {
            action,
            path: path.to_owned(),
            source,
        }
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.{UNFINISHED}", uuid::Uuid::new_v4().simple()));
    let temporary = path.with_file_name(name);
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if let Err(source) = written {
        // The rename failed or never happened, so the temporary file is of no use to anybody.
        let _ = fs::remove_file(&temporary);
        return Err(failed("write")(source));
    }
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(parent)
        .and_then(|dir| dir.sync_all())
        .map_err(failed("sync the directory of"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_epoch_is_kept_and_never_guessed() {
        let dir = tempfile::tempdir().unwrap();
        let files = VolumeFiles::new(dir.path());
        assert_eq!(files.epoch().unwrap(), 0);
        files.write_epoch(41).unwrap();
        assert_eq!(files.epoch().unwrap(), 41);
        fs::write(dir.path().join("epoch"), "forty").unwrap();
        assert!(files.epoch().unwrap_err().to_string().contains("epoch"));
    }

    #[test]
    fn the_identity_is_private_and_bound_to_its_node() {
        let dir = tempfile::tempdir().unwrap();
        let files = VolumeFiles::new(dir.path());
        assert!(files.identity("n1").is_none());
        let identity = Identity {
            node: "n1".into(),
            credential: "c-secret".into(),
            offered: Some("o-secret".into()),
            api_key: "k-secret".into(),
            epoch: 2,
        };
        files.write_identity(&identity).unwrap();
        assert_eq!(files.identity("n1"), Some(identity.clone()));
        assert!(
            files.identity("n2").is_none(),
            "a volume that moved must not lend its old node's name"
        );
        let mode = fs::metadata(dir.path().join("agent.identity.json"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{identity:?}").contains("secret"));
    }

    #[test]
    fn what_a_crash_left_of_a_write_goes() {
        let dir = tempfile::tempdir().unwrap();
        let files = VolumeFiles::new(dir.path());
        files.write_epoch(3).unwrap();
        fs::write(dir.path().join("epoch.0123.new"), "4").unwrap();
        files.remove_unfinished().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(files.epoch().unwrap(), 3);
    }

    #[test]
    fn a_write_leaves_nothing_beside_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_atomically(&path, b"one", 0o600).unwrap();
        write_atomically(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write_atomically(&dir.path().join("no/such/dir/file"), b"x", 0o600).is_err());
    }
}
