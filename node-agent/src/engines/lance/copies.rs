//! Copies of the tables of a database as they are now, for backups and forks: second names of the files of one version.
//!
//! The engine never changes a file that it has written, so a copy takes no room and no time, and neither searches nor
//! changes wait for it. Each table is of one version; one that is changed meanwhile is in the copy before or after the
//! change.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lance::Dataset;
use lance::index::DatasetIndexExt;

use super::super::error::EngineError;
use super::super::files::remove;
use super::super::names::DatabaseId;
use super::super::registry::Engines;
use super::archive::{FORMAT, Manifest, tar_size, write_tar};
use super::error::failed;
use super::layout::{self, Layout, Name, Record, walk};
use super::pool::blocking;
use super::table::{INDEX, Vectors};

/// A version that is removed while it is copied is followed by a later one; so many of them at most.
const ATTEMPTS: usize = 5;

/// A copy of one table. Its files belong to whoever named the directory.
#[derive(Clone, Debug)]
pub struct VectorsCopy {
    name: Name,
    manifest: Manifest,
    directory: PathBuf,
    size_bytes: u64,
}

impl VectorsCopy {
    /// Which table it is.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Bytes that [`write_to`](Self::write_to) writes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Writes the table as a tar.
    ///
    /// # Errors
    /// The copy cannot be read, or `output` fails.
    pub fn write_to(&self, output: &mut impl Write) -> io::Result<()> {
        write_tar(&self.manifest, &self.directory, output, &|| false)?;
        Ok(())
    }
}

impl Engines {
    /// Copies these tables of a database to a directory that does not exist yet; the caller removes it. It can become the
    /// directory of a database's vectors.
    ///
    /// # Errors
    /// `NotFound` if there is no such database; `Busy` if a table is changed faster than it is copied.
    pub async fn copy_vectors(
        &self,
        id: &DatabaseId,
        directory: &Path,
        names: Vec<Name>,
    ) -> Result<Vec<VectorsCopy>, EngineError> {
        let vectors = self.vectors(id)?;
        let target = Layout::new(directory.to_owned());
        let mut copies = Vec::new();
        for name in names {
            if let Some(copy) = vectors.copy(&name, &target).await? {
                copies.push(copy);
            }
        }
        if !copies.is_empty() {
            let made = directory.to_owned();
            blocking(move || layout::sync(&made, SystemTime::UNIX_EPOCH)).await?;
        }
        Ok(copies)
    }
}

impl Vectors {
    /// The tables that there are.
    pub(crate) async fn names(&self) -> Result<Vec<Name>, EngineError> {
        let share = self.share().await;
        blocking(move || share.layout.names()).await
    }

    /// Copies a table; `None` if it is gone.
    async fn copy(&self, name: &Name, target: &Layout) -> Result<Option<VectorsCopy>, EngineError> {
        for _ in 0..ATTEMPTS {
            let Some(reading) = self.current(name).await? else {
                return Ok(None);
            };
            let (record, dataset) = (reading.record.clone(), reading.dataset());
            let (from, version) = (reading.directory().to_owned(), dataset.version_id());
            let copied = self.copy_version(name, record, dataset, from, target).await;
            // The generation stays where it is until here.
            drop(reading);
            let failure = match copied {
                Ok(copy) => return Ok(Some(copy)),
                Err(failure) => failure,
            };
            // A version that is not the last one any more may have been removed.
            match self.current(name).await? {
                Some(now) if now.dataset().version_id() == version => return Err(failure),
                _ => {}
            }
        }
        Err(EngineError::Busy {
            reason: format!("{name} of {} are changed all the time", self.id()),
            retry_after: Duration::from_secs(10),
        })
    }

    async fn copy_version(
        &self,
        name: &Name,
        record: Record,
        dataset: Arc<Dataset>,
        from: PathBuf,
        target: &Layout,
    ) -> Result<VectorsCopy, EngineError> {
        let looking = async move {
            let rows = dataset.count_rows(None).await.map_err(failed("count"))? as u64;
            Ok((rows, Version::of(&dataset).await?))
        };
        let (rows, version) = self.lance().pool.run(looking).await?;
        let manifest = Manifest {
            format: FORMAT,
            rows,
            record: Record {
                // The copy's own name: a fork must not take its parent's open files for its own.
                generation: Record::new(0).generation,
                // A crash may have come between an index and the record of it; what it was trained on is not known then.
                partitions: if version.indexed { record.partitions.max(1) } else { 0 },
                ..record
            },
        };
        let (name, target) = (name.clone(), target.clone());
        blocking(move || {
            let directory = target.generation(&name, &manifest.record.generation);
            version.link(&from, &directory).inspect_err(|_| {
                // The caller removes what is above.
                let _ = remove(&directory);
            })?;
            target.write(&name, &manifest.record)?;
            let size_bytes =
                tar_size(&manifest, &directory).map_err(|error| EngineError::io("read", &directory, error))?;
            Ok(VectorsCopy {
                name,
                manifest,
                directory,
                size_bytes,
            })
        })
        .await
    }
}

/// The files of one version of a table.
struct Version {
    manifest: Option<String>,
    transaction: Option<String>,
    data: HashSet<String>,
    deletions: HashSet<String>,
    indices: HashSet<String>,
    indexed: bool,
}

impl Version {
    async fn of(dataset: &Dataset) -> Result<Self, EngineError> {
        let indices = dataset.load_indices().await.map_err(failed("read"))?;
        let fragments = dataset.fragments();
        let data = fragments.iter().flat_map(|fragment| fragment.referenced_lance_files());
        let deletions = fragments.iter().filter_map(|fragment| {
            let file = fragment.deletion_file.as_ref()?;
            let (version, id, suffix) = (file.read_version, file.id, file.file_type.suffix());
            Some(format!("{}-{version}-{id}.{suffix}", fragment.id))
        });
        Ok(Self {
            manifest: dataset.manifest_location().path.filename().map(str::to_owned),
            transaction: dataset.manifest().transaction_file.clone(),
            data: data.map(|file| file.path.clone()).collect(),
            deletions: deletions.collect(),
            indices: indices.iter().map(|index| index.uuid.to_string()).collect(),
            indexed: indices.iter().any(|index| index.name == INDEX),
        })
    }

    /// Whether a file, named from the table's directory, belongs to it. What is not known is rather kept.
    fn has(&self, file: &Path) -> bool {
        let mut parts = file.components().filter_map(|part| match part {
            Component::Normal(part) => part.to_str(),
            _ => None,
        });
        let (Some(kind), Some(name)) = (parts.next(), parts.next()) else {
            return true;
        };
        match kind {
            "_versions" => self.manifest.as_deref() == Some(name),
            "_transactions" => self.transaction.as_deref() == Some(name),
            "data" => self.data.contains(name),
            "_deletions" => self.deletions.contains(name),
            "_indices" => self.indices.contains(name),
            _ => true,
        }
    }

    /// Gives its files second names below `to`.
    fn link(&self, from: &Path, to: &Path) -> Result<(), EngineError> {
        let mut failure = None;
        let walked = walk(from, &mut |path, file| {
            let below = path.strip_prefix(from).map_err(io::Error::other)?;
            if file.is_dir() || !self.has(below) {
                return Ok(());
            }
            let target = to.join(below);
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            link(path, &target).inspect_err(|_| failure = Some(path.to_owned()))
        });
        walked.map_err(|error| EngineError::io("copy", failure.unwrap_or_else(|| from.to_owned()), error))
    }
}

/// A second name for a file, or a copy of it where the file system has no such thing.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
        Err(_) => fs::copy(from, to).map(drop),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_copy_has_the_files_of_its_version_and_what_is_not_known() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("table"), root.path().join("copy"));
        let wanted = [
            "_versions/7.manifest",
            "_transactions/6-a.txn",
            "data/a.lance",
            "_deletions/0-6-1.arrow",
            "_indices/1b/index.idx",
            "_indices/1b/auxiliary.idx",
            "_later/x/y",
            "note",
        ];
        let others = [
            "_versions/6.manifest",
            "_versions/8.manifest",
            "_transactions/7-b.txn",
            "data/b.lance",
            "_deletions/0-5-1.arrow",
            "_indices/1a/index.idx",
        ];
        for name in wanted.iter().chain(&others) {
            let path = from.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        let set = |name: &str| HashSet::from([name.to_owned()]);
        let version = Version {
            manifest: Some("7.manifest".into()),
            transaction: Some("6-a.txn".into()),
            data: set("a.lance"),
            deletions: set("0-6-1.arrow"),
            indices: set("1b"),
            indexed: true,
        };
        version.link(&from, &to).unwrap();
        let mut found = Vec::new();
        walk(&to, &mut |path, file| {
            if file.is_file() {
                let name = path.strip_prefix(&to).unwrap().to_str().unwrap().to_owned();
                assert_eq!(fs::read_to_string(path).unwrap(), name);
                found.push(name);
            }
            Ok(())
        })
        .unwrap();
        found.sort();
        let mut expected = wanted.map(str::to_owned);
        expected.sort();
        assert_eq!(found, expected);
        // What is removed from the table stays in the copy.
        fs::remove_dir_all(&from).unwrap();
        assert_eq!(fs::read_to_string(to.join("data/a.lance")).unwrap(), "data/a.lance");
        assert!(version.link(&from, &to).is_err());
    }
}
