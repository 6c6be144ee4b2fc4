//! Files of the local provider.
//!
//! ```text
//! nodes/<GraphNode>/         0700
//!   agent.json   0600        configuration of the agent, with its one-time token; rewritten in one step
//!   agent.log                what the agent says
//!   launch.json  0600        a start was begun: its token; removed when pid.json is written
//!   pid.json     0600        the process that was started: pid, start time, token, tags
//!   stop.json    0600        it was asked to stop: when
//!   data/        0700        the agent's data directory, of a node that has no volume
//!   lock                     held while a start or a stop is decided
//! volumes/<GraphVolume>/     0700, the agent's data directory
//!   .volume.json             size, token and tags of the directory
//! ```

use crate::provider::ProviderError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where the files of one data directory are.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    root: PathBuf,
}

/// Makes an error of the operating system one that says what was attempted on which file.
pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ProviderError {
    let path = path.to_owned();
    move |source| ProviderError::Io { action, path, source }
}

impl Layout {
    /// Makes the directories. `root` becomes absolute, since the path of an agent's configuration is how its process is
    /// found again.
    pub(super) fn open(root: &Path) -> Result<Self, ProviderError> {
        make_dir(root)?;
        let root = root.canonicalize().map_err(io_error("find", root))?;
        let layout = Self { root };
        make_dir(&layout.nodes())?;
        make_dir(&layout.volumes())?;
        Ok(layout)
    }

    pub(super) fn nodes(&self) -> PathBuf {
        self.root.join("nodes")
    }

    pub(super) fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    pub(super) fn volume(&self, name: &str) -> Result<PathBuf, ProviderError> {
        Ok(self.volumes().join(checked(name)?))
    }

    pub(super) fn node(&self, name: &str) -> Result<NodeFiles, ProviderError> {
        Ok(NodeFiles {
            dir: self.nodes().join(checked(name)?),
        })
    }

    /// Names of the directories below `dir`, without those that begin with a dot.
    pub(super) fn names(dir: &Path) -> Result<Vec<String>, ProviderError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
            let entry = entry.map_err(io_error("list", dir))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() && checked(&name).is_ok() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

/// A name of a Kubernetes object can be a directory's name; anything else must not become a path.
fn checked(name: &str) -> Result<&str, ProviderError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if !name.is_empty() && !name.starts_with('.') && name.len() <= 253 && name.bytes().all(plain) {
        return Ok(name);
    }
    Err(ProviderError::Call {
        call: "path",
        message: format!("{name:?} cannot be a directory's name"),
    })
}

/// The files of one node.
#[derive(Clone, Debug)]
pub(super) struct NodeFiles {
    dir: PathBuf,
}

impl NodeFiles {
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn make(&self) -> Result<(), ProviderError> {
        make_dir(&self.dir)
    }

    pub(super) fn config(&self) -> PathBuf {
        self.dir.join("agent.json")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("agent.log")
    }

    pub(super) fn launch(&self) -> PathBuf {
        self.dir.join("launch.json")
    }

    pub(super) fn pid(&self) -> PathBuf {
        self.dir.join("pid.json")
    }

    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub(super) fn stop(&self) -> PathBuf {
        self.dir.join("stop.json")
    }

    /// Waits for the lock of the node: of several starts only one runs at a time, also across processes. It ends with the
    /// file's handle, so also with the process.
    pub(super) fn lock(&self) -> Result<File, ProviderError> {
        let path = self.dir.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(io_error("open", &path))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
            .map_err(|error| io_error("lock", &path)(error.into()))?;
        Ok(file)
    }
}

/// Makes a directory that only its owner can enter; one that exists stays as it is.
pub(super) fn make_dir(path: &Path) -> Result<(), ProviderError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(io_error("make directory", path))
}

/// Reads a JSON file; `None` if it does not exist, or is not what was expected (a crash before the first write of a
/// version that did not replace files in one step).
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ProviderError> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)
            .inspect_err(
                |error| tracing::warn!(path = %path.display(), %error, "a file of the local provider is ignored"),
            )
            .ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

/// Writes a JSON file in one step, readable by its owner only: after a crash it has the old content or the new.
pub(super) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), ProviderError> {
    let text = serde_json::to_vec_pretty(value).map_err(|error| io_error("encode", path)(io::Error::other(error)))?;
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()));
    written.map_err(io_error("write", &temporary))?;
    fs::rename(&temporary, path).map_err(io_error("replace", path))?;
    // The name in the directory has to survive a power failure, too.
    let parent = path.parent().unwrap_or(path);
    File::open(parent)
        .and_then(|dir| dir.sync_all())
        .map_err(io_error("sync", parent))
}

/// Removes a file; one that does not exist is removed already.
pub(super) fn remove(path: &Path) -> Result<(), ProviderError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Removes a directory with everything in it; one that does not exist is removed already.
pub(super) fn remove_tree(path: &Path) -> Result<(), ProviderError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_are_private_and_replaced_in_one_step() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(&dir.path().join("data")).unwrap();
        let node = layout.node("std-0").unwrap();
        node.make().unwrap();
        assert_eq!(read::<String>(&node.pid()).unwrap(), None);
        write(&node.pid(), &"one").unwrap();
        write(&node.pid(), &"two").unwrap();
        assert_eq!(read::<String>(&node.pid()).unwrap().as_deref(), Some("two"));
        assert_eq!(fs::metadata(node.pid()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(node.dir()).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(node.pid(), "{ half").unwrap();
        assert_eq!(read::<String>(&node.pid()).unwrap(), None);
        remove(&node.pid()).unwrap();
        remove(&node.pid()).unwrap();
        assert_eq!(Layout::names(&layout.nodes()).unwrap(), ["std-0"]);
    }

    #[test]
    fn a_name_cannot_leave_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path()).unwrap();
        for bad in ["", ".", "..", "../x", "a/b", "/etc", "A", "a\0b", ".hidden"] {
            assert!(layout.node(bad).is_err() && layout.volume(bad).is_err(), "{bad:?}");
        }
        assert!(layout.volume("ladybug-standard-0").is_ok());
    }
}
