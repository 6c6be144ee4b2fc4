//! The seeds on the volume of a replica: `DIR/seeds/<graph>/<epoch>-<version>-<random>/`, with `graph.lbug`, `vectors/` if
//! there are any, and, written last, `seed.json`. A directory without that is not a seed, and the next start removes it; so a crash at any moment
//! leaves whole seeds only.

use super::{pointer::SeedVersion, status::Seeds};
use crate::{
    backup::Manifest,
    engines::{DatabaseId, EngineError, FileLock},
    registration::files::write_atomically,
};
use object_store::path::Path as ObjectPath;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

const RECORD: &str = "seed.json";
const GRAPH: &str = "graph.lbug";
const VECTORS: &str = "vectors";

/// What is written down of a seed that was checked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// The key that is followed.
    pub(super) seed: String,
    /// Where it was fetched.
    pub(super) key: String,
    /// Its manifest.
    pub(super) manifest: Manifest,
}

/// A whole seed on the volume.
#[derive(Debug)]
pub(super) struct LocalSeed {
    pub(super) directory: PathBuf,
    pub(super) record: Record,
}

/// The directory of seeds, which this process has for itself.
#[derive(Debug)]
pub struct LocalSeeds {
    root: PathBuf,
    _lock: FileLock,
}

impl LocalSeeds {
    /// Takes the data directory, and removes what a crash left and what nobody follows any more.
    ///
    /// # Errors
    /// When another agent has the directory, or it cannot be used.
    pub fn open(data_dir: &Path, followed: &Seeds) -> Result<Self, EngineError> {
        let root = data_dir.join("seeds");
        fs::create_dir_all(&root).map_err(|error| EngineError::io("create", &root, error))?;
        let seeds = Self {
            _lock: FileLock::acquire(&data_dir.join("engines.lock"))?,
            root,
        };
        for graph in entries(&seeds.root)? {
            for directory in entries(&graph)? {
                let record = read(&directory);
                if !record.is_some_and(|record| followed.iter().any(|seed| seed.key().as_ref() == record.seed)) {
                    tracing::info!(operation = "seed", directory = %directory.display(), "removing what is no seed that is followed");
                    remove(&directory)?;
                }
            }
            remove_if_empty(&graph)?;
        }
        Ok(seeds)
    }

    /// The whole seeds that were fetched for this key, the newest first.
    pub(super) fn of(&self, seed: &ObjectPath) -> Result<Vec<LocalSeed>, EngineError> {
        let mut found = Vec::new();
        for graph in entries(&self.root)? {
            for directory in entries(&graph)? {
                if let Some(record) = read(&directory).filter(|record| record.seed == seed.as_ref()) {
                    found.push(LocalSeed { directory, record });
                }
            }
        }
        found.sort_by_key(|seed| std::cmp::Reverse(SeedVersion::of(&seed.record.manifest)));
        Ok(found)
    }

    /// An empty directory for a seed that is about to arrive.
    pub(super) fn begin(&self, graph: &DatabaseId, at: SeedVersion) -> Result<PathBuf, EngineError> {
        let name = format!("{}-{}-{:08x}", at.epoch, at.version, rand::random::<u32>());
        let directory = self.root.join(graph.as_str()).join(name);
        fs::create_dir_all(&directory).map_err(|error| EngineError::io("create", &directory, error))?;
        Ok(directory)
    }

    /// Makes what is in the directory a seed, durably.
    pub(super) fn commit(&self, directory: &Path, record: &Record) -> Result<(), EngineError> {
        let text = serde_json::to_vec_pretty(record).map_err(|error| EngineError::internal(error.to_string()))?;
        // The names of the file and of the directories above it, and only then the record.
        for directory in directory.ancestors().take(3) {
            let synced: io::Result<()> = File::open(directory).and_then(|directory| directory.sync_all());
            synced.map_err(|error| EngineError::io("sync", directory, error))?;
        }
        write_atomically(&directory.join(RECORD), &text, 0o600)
            .map_err(|error| EngineError::internal(error.to_string()))
    }

    /// Removes everything that was fetched for this key, whole or not, except `kept`.
    pub(super) fn keep_only(&self, seed: &ObjectPath, kept: &Path) -> Result<(), EngineError> {
        for old in self.of(seed)? {
            if old.directory != kept {
                remove(&old.directory)?;
                if let Some(graph) = old.directory.parent() {
                    remove_if_empty(graph)?;
                }
            }
        }
        Ok(())
    }
}

/// Where the graph of a seed lies.
pub(super) fn graph(directory: &Path) -> PathBuf {
    directory.join(GRAPH)
}

/// Where its vectors lie, if it has any.
pub(super) fn vectors(directory: &Path) -> PathBuf {
    directory.join(VECTORS)
}

/// Removes a seed: it is none from the first moment on.
pub(super) fn remove(directory: &Path) -> Result<(), EngineError> {
    let failed = |error: io::Error| EngineError::io("remove", directory, error);
    match fs::remove_file(directory.join(RECORD)) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Err(failed(error));
        }
        _ => {}
    }
    let removed = match fs::symlink_metadata(directory) {
        Ok(entry) if entry.is_dir() => fs::remove_dir_all(directory),
        _ => fs::remove_file(directory),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}

fn remove_if_empty(directory: &Path) -> Result<(), EngineError> {
    if directory.is_dir() && entries(directory)?.is_empty() {
        fs::remove_dir(directory).map_err(|error| EngineError::io("remove", directory, error))?;
    }
    Ok(())
}

/// The record of a directory; one that cannot be understood is none.
fn read(directory: &Path) -> Option<Record> {
    let text = fs::read(directory.join(RECORD)).ok()?;
    serde_json::from_slice(&text).ok()
}

/// What is in a directory; nothing if it is no directory.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, EngineError> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).collect()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(EngineError::io("list", directory, error)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn record(seed: &str, version: u64) -> Record {
        let manifest = Manifest {
            format: Manifest::FORMAT,
            graph_id: "kg1".into(),
            key: String::new(),
            created_at: "2026-01-01T00:00:00.000Z".into(),
            epoch: 0,
            version: Some(version),
            node_count: 0,
            relationship_count: 0,
            ladybug_version: String::new(),
            storage_version: 0,
            agent_version: String::new(),
            encryption: None,
            files: Vec::new(),
        };
        let (seed, key) = (seed.to_owned(), format!("{seed}/0/{version}"));
        Record { seed, key, manifest }
    }

    #[test]
    fn a_start_finds_whole_seeds_that_are_followed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let seeds = Seeds::new(&["seeds/kg1".into()]).unwrap();
        let local = LocalSeeds::open(dir.path(), &seeds).unwrap();
        assert!(
            LocalSeeds::open(dir.path(), &seeds).is_err(),
            "two agents must not share it"
        );
        let graph_id = DatabaseId::parse("kg1").unwrap();
        let mut whole = Vec::new();
        for (seed, version) in [("seeds/kg1", 9), ("seeds/kg1", 10), ("seeds/kg2", 11)] {
            let directory = local.begin(&graph_id, SeedVersion { epoch: 0, version }).unwrap();
            fs::write(graph(&directory), "graph").unwrap();
            local.commit(&directory, &record(seed, version)).unwrap();
            whole.push(directory);
        }
        let cut = local.begin(&graph_id, SeedVersion { epoch: 0, version: 12 }).unwrap();
        fs::write(graph(&cut), "half").unwrap();
        fs::write(dir.path().join("seeds/stray"), "").unwrap();
        drop(local);

        let local = LocalSeeds::open(dir.path(), &seeds).unwrap();
        let key = ObjectPath::from("seeds/kg1");
        let found: Vec<PathBuf> = local.of(&key).unwrap().into_iter().map(|seed| seed.directory).collect();
        assert_eq!(found, [whole[1].clone(), whole[0].clone()]);
        assert!(!cut.exists() && !whole[2].exists());
        local.keep_only(&key, &whole[1]).unwrap();
        assert!(!whole[0].exists() && whole[1].exists());
        local.keep_only(&key, Path::new("")).unwrap();
        assert!(!dir.path().join("seeds/kg1").exists());
    }
}
