//! The files of databases that an import has replaced, kept until somebody is sure of what replaced them.
//!
//! They lie in `pre-migration/<id>/` on the volume under the names that they had. They are second names of the same files, so
//! keeping costs no time; they get them, below `pre-migration/.keeping-<id>/`, before the exchange, and the directory gets
//! its own name after it. A crash between the two is settled at the next start: where the database still is the kept file,
//! there was no exchange.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::EngineError;
use super::exchange::blocking;
use super::files::{Files, names_in, remove};
use super::ladybug::storage_version::storage_version;
use super::names::DatabaseId;
use super::registry::Engines;

const KEEPING: &str = ".keeping-";

/// A database as it was before an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its id.
    pub id: DatabaseId,
    /// Where its files are.
    pub path: PathBuf,
    /// Bytes of all of them.
    pub size_bytes: u64,
    /// The version of its graph's file.
    pub storage_version: Option<u64>,
}

/// Files that are kept if they are replaced.
#[derive(Debug)]
pub(crate) struct Keeping {
    from: PathBuf,
    to: PathBuf,
}

impl Keeping {
    /// Gives the files of a database, which nobody has open, second names.
    pub(crate) fn begin(files: &Files, id: &DatabaseId) -> Result<Self, EngineError> {
        let Self { from, to } = Self::of(files, id);
        // The one before may have been replaced, and have failed to get its own name: nothing else has those files.
        Self::settle(files, id)?;
        if to.exists() {
            return Err(EngineError::AlreadyExists {
                what: "kept database",
                name: id.to_string(),
            });
        }
        remove(&from)?;
        fs::create_dir_all(&from).map_err(|error| EngineError::io("create", &from, error))?;
        let keeping = Self { from, to };
        for path in files.of_graph(id)?.into_iter().chain(files.of_staging(id)?) {
            let Some(name) = path.file_name().filter(|_| path.is_file()) else {
                continue;
            };
            fs::hard_link(&path, keeping.from.join(name)).map_err(|error| EngineError::io("link", &path, error))?;
        }
        sync(&keeping.from)?;
        Ok(keeping)
    }

    fn of(files: &Files, id: &DatabaseId) -> Self {
        Self {
            from: files.replaced().join(format!("{KEEPING}{id}")),
            to: files.replaced().join(id.as_str()),
        }
    }

    /// Keeps what was replaced without having been kept, and takes the second names of what was not replaced away.
    fn settle(files: &Files, id: &DatabaseId) -> Result<(), EngineError> {
        let keeping = Self::of(files, id);
        let graph = files.graph(id);
        let kept = graph.file_name().map(|name| keeping.from.join(name));
        let replaced = kept.is_some_and(|kept| kept.exists() && !same_file(&kept, &graph));
        match replaced {
            true => keeping.keep(),
            false => {
                keeping.give_up();
                Ok(())
            }
        }
    }

    /// Keeps them: they have been replaced.
    pub(crate) fn keep(self) -> Result<(), EngineError> {
        fs::rename(&self.from, &self.to).map_err(|error| EngineError::io("rename", &self.from, error))?;
        match self.to.parent() {
            Some(parent) => sync(parent),
            None => Ok(()),
        }
    }

    /// Takes the second names away: they have not been replaced.
    pub(crate) fn give_up(self) {
        if let Err(error) = remove(&self.from) {
            tracing::warn!(%error, "second names of files are removed at the next start");
        }
    }

    /// Settles what a crash left. No exchange is half done any more.
    pub(crate) fn settle_all(files: &Files) -> Result<(), EngineError> {
        let names = match names_in(files.replaced()) {
            Ok(names) => names,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(EngineError::io("list", files.replaced(), error)),
        };
        for name in names {
            let Some(id) = name.strip_prefix(KEEPING).and_then(|id| DatabaseId::parse(id).ok()) else {
                continue;
            };
            Self::settle(files, &id)?;
        }
        Ok(())
    }
}

impl Engines {
    /// Databases that were replaced by an import and are still kept.
    ///
    /// # Errors
    /// The volume cannot be read.
    pub async fn kept(&self) -> Result<Vec<Kept>, EngineError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || list(&inner.files)).await
    }

    /// Whether a database is kept as it was before an import.
    #[must_use]
    pub fn keeps(&self, id: &DatabaseId) -> bool {
        self.inner.files.replaced().join(id.as_str()).exists()
    }

    /// Removes what is kept, and returns it.
    ///
    /// # Errors
    /// The volume cannot be changed; what was removed before is gone.
    pub async fn forget_kept(&self) -> Result<Vec<Kept>, EngineError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let kept = list(&inner.files)?;
            kept.iter().try_for_each(|kept| remove(&kept.path))?;
            Ok(kept)
        })
        .await
    }
}

fn list(files: &Files) -> Result<Vec<Kept>, EngineError> {
    let mut ids: Vec<DatabaseId> = match names_in(files.replaced()) {
        Ok(names) => names.iter().filter_map(|name| DatabaseId::parse(name).ok()).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(EngineError::io("list", files.replaced(), error)),
    };
    ids.sort();
    let described = ids.into_iter().map(|id| {
        let path = files.replaced().join(id.as_str());
        let names = names_in(&path).map_err(|error| EngineError::io("list", &path, error))?;
        let all: Vec<PathBuf> = names.iter().map(|name| path.join(name)).collect();
        let graph = files.graph(&id).file_name().map(|name| path.join(name));
        Ok(Kept {
            size_bytes: Files::size(&all),
            storage_version: graph.map_or(Ok(None), |graph| storage_version(&graph))?,
            id,
            path,
        })
    });
    described.collect()
}

fn same_file(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

fn sync(directory: &Path) -> Result<(), EngineError> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| EngineError::io("sync", directory, error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn volume() -> (tempfile::TempDir, Files, DatabaseId) {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        files.make_directories().unwrap();
        let id = DatabaseId::parse("kg1").unwrap();
        fs::write(files.graph(&id), b"LBUG\x2a\0\0\0\0\0\0\0old").unwrap();
        fs::write(files.staging(&id), "old staging").unwrap();
        (root, files, id)
    }

    /// What an exchange does: another file takes the name.
    fn replace(files: &Files, id: &DatabaseId) {
        let new = files.restoring(id);
        fs::write(&new, "new").unwrap();
        fs::rename(new, files.graph(id)).unwrap();
    }

    #[test]
    fn what_was_replaced_is_kept() {
        let (_root, files, id) = volume();
        let keeping = Keeping::begin(&files, &id).unwrap();
        assert!(list(&files).unwrap().is_empty());
        replace(&files, &id);
        keeping.keep().unwrap();
        let kept = list(&files).unwrap();
        assert_eq!(
            (kept.len(), kept[0].storage_version, kept[0].size_bytes),
            (1, Some(42), 26)
        );
        assert_eq!(fs::read(kept[0].path.join("kg1.duckdb")).unwrap(), b"old staging");
        // Until somebody is sure, nothing else takes the place of what is kept.
        assert!(matches!(
            Keeping::begin(&files, &id),
            Err(EngineError::AlreadyExists { .. })
        ));
    }

    #[test]
    fn a_crash_keeps_what_was_replaced_and_nothing_else() {
        for replaced in [true, false] {
            let (_root, files, id) = volume();
            let _cut_off = Keeping::begin(&files, &id).unwrap();
            if replaced {
                replace(&files, &id);
            }
            Keeping::settle_all(&files).unwrap();
            assert_eq!(list(&files).unwrap().len(), usize::from(replaced));
            assert!(!files.replaced().join(".keeping-kg1").exists());
            assert!(files.graph(&id).exists());
        }
    }

    #[test]
    fn what_could_not_be_kept_is_kept_before_the_next_import() {
        let (_root, files, id) = volume();
        let _failed = Keeping::begin(&files, &id).unwrap();
        replace(&files, &id);
        assert!(matches!(
            Keeping::begin(&files, &id),
            Err(EngineError::AlreadyExists { .. })
        ));
        let kept = list(&files).unwrap();
        assert!(fs::read(kept[0].path.join("kg1.lbug")).unwrap().ends_with(b"old"));
    }

    #[test]
    fn what_was_not_replaced_is_not_kept() {
        let (_root, files, id) = volume();
        Keeping::begin(&files, &id).unwrap().give_up();
        assert!(list(&files).unwrap().is_empty());
        assert!(fs::read(files.graph(&id)).unwrap().ends_with(b"old"));
    }
}
