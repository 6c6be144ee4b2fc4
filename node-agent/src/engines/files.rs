//! Which files belong to a database. Ids have no dot, so `<id>.` begins the names of exactly the files of one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::EngineError;
use super::names::DatabaseId;

/// The directories below a node's data directory.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    databases: PathBuf,
    staging: PathBuf,
    replaced: PathBuf,
    vectors: PathBuf,
    lock: PathBuf,
}

const GRAPH: &str = "lbug";
const STAGING: &str = "duckdb";
/// Databases that are being made; removed at start-up, since their making was cut off.
const CREATING: &str = ".creating-";
/// Databases that arrive from elsewhere; removed at start-up likewise.
const RESTORING: &str = ".restoring-";
/// Lies beside staging tables that stay without their graph, so that it can be built anew.
const KEPT: &str = ".kept";

impl Files {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self {
            databases: data_dir.join("databases"),
            staging: data_dir.join("staging"),
            replaced: data_dir.join("pre-migration"),
            vectors: data_dir.join("vectors"),
            lock: data_dir.join("engines.lock"),
        }
    }

    pub(crate) fn lock(&self) -> &Path {
        &self.lock
    }

    pub(crate) fn graph(&self, id: &DatabaseId) -> PathBuf {
        self.databases.join(format!("{id}.{GRAPH}"))
    }

    pub(crate) fn creating(&self, id: &DatabaseId) -> PathBuf {
        self.databases
            .join(format!("{CREATING}{id}-{}.{GRAPH}", uuid::Uuid::new_v4().simple()))
    }

    pub(crate) fn restoring(&self, id: &DatabaseId) -> PathBuf {
        self.databases
            .join(format!("{RESTORING}{id}-{}.{GRAPH}", uuid::Uuid::new_v4().simple()))
    }

    pub(crate) fn restoring_staging(&self, id: &DatabaseId) -> PathBuf {
        self.staging
            .join(format!("{RESTORING}{id}-{}.{STAGING}", uuid::Uuid::new_v4().simple()))
    }

    /// Where the vectors of all databases are, in a directory for each.
    pub(crate) fn all_vectors(&self) -> &Path {
        &self.vectors
    }

    pub(crate) fn vectors(&self, id: &DatabaseId) -> PathBuf {
        self.vectors.join(id.as_str())
    }

    pub(crate) fn creating_vectors(&self, id: &DatabaseId) -> PathBuf {
        self.vectors
            .join(format!("{CREATING}{id}-{}", uuid::Uuid::new_v4().simple()))
    }

    pub(crate) fn restoring_vectors(&self, id: &DatabaseId) -> PathBuf {
        self.vectors
            .join(format!("{RESTORING}{id}-{}", uuid::Uuid::new_v4().simple()))
    }

    /// The directories of graphs and of staging.
    pub(crate) fn directories(&self) -> [&Path; 2] {
        [&self.databases, &self.staging]
    }

    /// The directory of databases that were replaced by an import.
    pub(crate) fn replaced(&self) -> &Path {
        &self.replaced
    }

    pub(crate) fn staging(&self, id: &DatabaseId) -> PathBuf {
        self.staging.join(format!("{id}.{STAGING}"))
    }

    pub(crate) fn incoming(&self, id: &DatabaseId) -> PathBuf {
        self.staging.join(format!("{id}.incoming"))
    }

    pub(crate) fn spill(&self, id: &DatabaseId) -> PathBuf {
        self.staging.join(format!("{id}.tmp"))
    }

    /// What says that the staging tables and the vectors of a graph stay when it goes.
    pub(crate) fn kept(&self, id: &DatabaseId) -> PathBuf {
        self.staging.join(format!("{id}{KEPT}"))
    }

    pub(crate) fn make_directories(&self) -> Result<(), EngineError> {
        for directory in self.directories().into_iter().chain([self.all_vectors()]) {
            fs::create_dir_all(directory).map_err(|error| EngineError::io("create", directory, error))?;
        }
        Ok(())
    }

    /// The databases that exist, from their files.
    pub(crate) fn list(&self) -> Result<Vec<DatabaseId>, EngineError> {
        let names = match names_in(&self.databases) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(EngineError::io("list", &self.databases, error)),
        };
        let suffix = format!(".{GRAPH}");
        let mut ids: Vec<DatabaseId> = names
            .iter()
            .filter_map(|name| DatabaseId::parse(name.strip_suffix(&suffix)?).ok())
            .filter(|id| self.graph(id).is_file())
            .collect();
        ids.sort();
        Ok(ids)
    }

    /// Removes what a crash left: databases that were being made or restored, side files without a database, and input
    /// files of loads that did not end. Names of databases do not begin with a dot, so whatever does belongs to none. Gives
    /// the graphs that are gone and whose staging tables and vectors [stay](Self::kept).
    pub(crate) fn remove_leftovers(&self) -> Result<Vec<DatabaseId>, EngineError> {
        let known = self.list()?;
        let belongs = |name: &str| {
            let id = name.split('.').next().unwrap_or_default();
            known.iter().any(|known| known.as_str() == id)
        };
        let mut kept = Vec::new();
        let listed =
            |directory: &PathBuf| names_in(directory).map_err(|error| EngineError::io("list", directory, error));
        for name in listed(&self.databases)? {
            if !belongs(&name) {
                tracing::info!(file = name, "removing what an unfinished operation left");
                remove(&self.databases.join(name))?;
            }
        }
        let staged = listed(&self.staging)?;
        for name in &staged {
            if let Some(id) = name.strip_suffix(KEPT).and_then(|id| DatabaseId::parse(id).ok()) {
                match belongs(name) {
                    true => remove(&self.staging.join(name))?,
                    false => kept.push(id),
                }
            }
        }
        let stays = |name: &str| {
            let id = name.split('.').next().unwrap_or_default();
            belongs(name) || kept.iter().any(|kept| kept.as_str() == id)
        };
        for name in &staged {
            if !stays(name) || name.ends_with(".incoming") || name.ends_with(".tmp") {
                remove(&self.staging.join(name))?;
            }
        }
        Ok(kept)
    }

    /// Removes everything whose name begins with that of `path`.
    pub(crate) fn remove_beginning_with(path: &Path) -> Result<(), EngineError> {
        let (Some(directory), Some(start)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            return Ok(());
        };
        for name in names_in(directory).map_err(|error| EngineError::io("list", directory, error))? {
            if name.starts_with(start) {
                remove(&directory.join(name))?;
            }
        }
        Ok(())
    }

    /// Side files of a graph that does not exist (yet).
    pub(crate) fn remove_side_files(&self, id: &DatabaseId) -> Result<(), EngineError> {
        let graph = self.graph(id);
        for path in self.of(&self.databases, id)? {
            if path != graph {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Files of the graph, the data file first: without it, the others belong to nothing.
    pub(crate) fn of_graph(&self, id: &DatabaseId) -> Result<Vec<PathBuf>, EngineError> {
        self.of_first(&self.databases, id, &self.graph(id))
    }

    /// Files of the staging tables, the data file first likewise.
    pub(crate) fn of_staging(&self, id: &DatabaseId) -> Result<Vec<PathBuf>, EngineError> {
        self.of_first(&self.staging, id, &self.staging(id))
    }

    fn of_first(&self, directory: &Path, id: &DatabaseId, first: &Path) -> Result<Vec<PathBuf>, EngineError> {
        let mut files = self.of(directory, id)?;
        files.sort_by_key(|path| path != first);
        Ok(files)
    }

    fn of(&self, directory: &Path, id: &DatabaseId) -> Result<Vec<PathBuf>, EngineError> {
        let start = format!("{id}.");
        let names = match names_in(directory) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(EngineError::io("list", directory, error)),
        };
        Ok(names
            .into_iter()
            .filter(|name| name.starts_with(&start))
            .map(|name| directory.join(name))
            .collect())
    }

    /// Bytes of all files of one of the two.
    pub(crate) fn size(paths: &[PathBuf]) -> u64 {
        paths
            .iter()
            .filter_map(|path| fs::metadata(path).ok())
            .filter(fs::Metadata::is_file)
            .map(|file| file.len())
            .sum()
    }
}

/// Checks that a graph that was closed has everything in its data file.
pub(crate) fn check_whole(graph: &Path) -> Result<(), EngineError> {
    let mut log = graph.as_os_str().to_owned();
    log.push(".wal");
    if fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
        return Err(EngineError::internal(format!(
            "{} was not written to its file when it was closed",
            graph.display()
        )));
    }
    Ok(())
}

/// Removes a file or a directory; one that is absent is fine.
pub(crate) fn remove(path: &Path) -> Result<(), EngineError> {
    let outcome = match fs::symlink_metadata(path) {
        Ok(file) if file.is_dir() => fs::remove_dir_all(path),
        _ => fs::remove_file(path),
    };
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(EngineError::io("remove", path, error)),
        _ => Ok(()),
    }
}

pub(crate) fn names_in(directory: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(directory)?;
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect())
}
