//! What lies in the directory of a database's vectors (`vectors/<database id>` on writers, `vectors` within a seed on
//! replicas): for every table of vectors a record, `<name>.json`, and the directory that the record names,
//! `<name>.<generation>`.
//!
//! A table exists when its record does, and is replaced when its record is: both are the rename of one small file. A
//! generation has a name that is never used again, because the engine's caches know files by their path. Directories
//! that no record names are what a crash left, or what a search was still reading; the next start removes them.
//!
//! A change in place (rows that are added, an index that is trained) writes into the generation itself. While there may be
//! one, `<name>.changing` lies beside, so that the next start knows where to look for what belongs to no version. It stays
//! when the change breaks off, until somebody has cleaned up.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::super::error::EngineError;
use super::super::files::{names_in, remove};
use super::super::names::{DatabaseId, TableName};
use crate::registration::files::write_atomically;

const RECORD: &str = ".json";
const CHANGING: &str = ".changing";
const INDEX: &str = "index-";
const MEMORY: &str = "memory";

/// Which table of a database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    /// The vectors of a staging table or graph table.
    Index(TableName),
    /// The semantic memory.
    Memory,
}

impl Name {
    /// Names of tables have no dot, so this begins the names of exactly what belongs to one.
    fn stem(&self) -> String {
        match self {
            Self::Index(table) => format!("{INDEX}{table}"),
            Self::Memory => MEMORY.to_owned(),
        }
    }

    /// The other way round.
    fn of_stem(stem: &str) -> Option<Self> {
        match stem.strip_prefix(INDEX) {
            Some(table) => TableName::parse(table).ok().map(Self::Index),
            None => (stem == MEMORY).then_some(Self::Memory),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(table) => write!(f, "the vectors of {table}"),
            Self::Memory => f.write_str("the semantic memory"),
        }
    }
}

/// Lies beside a table for as long as somebody may change it, or something may be left of a change.
#[derive(Debug)]
pub(crate) struct Mark {
    path: PathBuf,
    stays: AtomicBool,
}

impl Mark {
    /// Says whether it stays when this is dropped. Gives what was said before.
    pub(super) fn stay(&self, stays: bool) -> bool {
        self.stays.swap(stays, Ordering::AcqRel)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if *self.stays.get_mut() {
            return;
        }
        // Absent if the database went.
        if let Err(error) = remove(&self.path) {
            tracing::warn!(%error, "the next start looks over a table of vectors that nobody changes any more");
        }
    }
}

/// What is kept of a table beside its rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The end of the directory's name.
    pub(crate) generation: String,
    /// Length of the vectors.
    pub(crate) dimension: usize,
    /// When the index was made or trained, RFC 3339.
    pub(crate) built_at: String,
    /// Rows that the index was trained on; 0 if there is none.
    pub(crate) trained_rows: u64,
    /// Partitions of the index; 0 if there is none.
    pub(crate) partitions: u64,
    /// Codes per vector; 0 if there is no index.
    pub(crate) sub_vectors: u64,
}

impl Record {
    pub(crate) fn new(dimension: usize) -> Self {
        Self {
            generation: uuid::Uuid::new_v4().simple().to_string(),
            dimension,
            built_at: crate::tasks::timestamp(),
            trained_rows: 0,
            partitions: 0,
            sub_vectors: 0,
        }
    }
}

/// The directory of the vectors of one database.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    directory: PathBuf,
}

impl Layout {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The tables that there are, in order.
    pub(crate) fn names(&self) -> Result<Vec<Name>, EngineError> {
        let files = listed(&self.directory)?;
        let stems = files.iter().filter_map(|file| file.strip_suffix(RECORD));
        let mut names: Vec<Name> = stems.filter_map(Name::of_stem).collect();
        names.sort();
        Ok(names)
    }

    /// Where a generation of a table is, or will be.
    pub(crate) fn generation(&self, name: &Name, generation: &str) -> PathBuf {
        self.directory.join(format!("{}.{generation}", name.stem()))
    }

    fn record_path(&self, name: &Name) -> PathBuf {
        self.directory.join(format!("{}{RECORD}", name.stem()))
    }

    /// The record of a table, if there is that table.
    pub(crate) fn read(&self, name: &Name) -> Result<Option<Record>, EngineError> {
        let path = self.record_path(name);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(EngineError::io("read", path, error)),
        };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| EngineError::io("read", path, error))
    }

    /// Makes the record's generation the table.
    pub(crate) fn write(&self, name: &Name, record: &Record) -> Result<(), EngineError> {
        let path = self.record_path(name);
        let text = serde_json::to_vec(record).map_err(|error| EngineError::io("write", &path, error))?;
        write_atomically(&path, &text, 0o600).map_err(|error| EngineError::io("write", path, error))
    }

    /// Ends a table; its generation stays for whoever still reads it.
    pub(crate) fn forget(&self, name: &Name) -> Result<(), EngineError> {
        remove(&self.record_path(name))?;
        sync_directory(&self.directory).map_err(|error| EngineError::io("sync", &self.directory, error))
    }

    fn mark_path(&self, name: &Name) -> PathBuf {
        self.directory.join(format!("{}{CHANGING}", name.stem()))
    }

    /// Says that a table is about to be changed. `None` if its database has no vectors that could be; or if the volume takes
    /// no file, which must keep nobody from removing some.
    pub(crate) fn mark(&self, name: &Name) -> Option<Mark> {
        let path = self.mark_path(name);
        let stays = match File::create_new(&path) {
            Ok(_) => false,
            // What the change before this one has left may still be there.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => true,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(%error, path = %path.display(), "a change of vectors begins without its mark");
                }
                return None;
            }
        };
        Some(Mark {
            path,
            stays: AtomicBool::new(stays),
        })
    }

    /// Ends a change that a crash cut off.
    pub(crate) fn unmark(&self, name: &Name) -> Result<(), EngineError> {
        remove(&self.mark_path(name))
    }

    /// Removes what a crash left of tables: directories that no record names. Gives the tables that were being changed.
    fn remove_unfinished(&self) -> Result<Vec<Name>, EngineError> {
        let mut changing = Vec::new();
        for name in listed(&self.directory)? {
            if let Some(table) = name.strip_suffix(CHANGING).and_then(Name::of_stem)
                && self.record_path(&table).is_file()
            {
                changing.push(table);
            } else if !belongs(&self.directory, &name) {
                let path = self.directory.join(name);
                tracing::info!(path = %path.display(), "removing what an unfinished operation left");
                remove(&path)?;
            }
        }
        Ok(changing)
    }

    /// Bytes of all vectors of the database.
    pub(crate) fn size(&self) -> u64 {
        size(&self.directory)
    }
}

/// Removes what a crash left below the directory of all vectors: those of databases that are not `known`, and directories
/// that no record names. Gives the tables that were being changed: what of their files belongs to no version of them, only
/// the engine can tell.
pub(crate) fn remove_leftovers(root: &Path, known: &[DatabaseId]) -> Result<Vec<(Layout, Name)>, EngineError> {
    let mut changing = Vec::new();
    for database in listed(root)? {
        let directory = root.join(&database);
        if known.iter().any(|id| id.as_str() == database) {
            let layout = Layout::new(directory);
            let tables = layout.remove_unfinished()?;
            changing.extend(tables.into_iter().map(|table| (layout.clone(), table)));
        } else {
            tracing::info!(
                directory = database,
                "removing vectors of a database that does not exist"
            );
            remove(&directory)?;
        }
    }
    Ok(changing)
}

/// Whether a file is a record, or a directory that its record names.
fn belongs(directory: &Path, name: &str) -> bool {
    let Some((stem, end)) = name.split_once('.') else {
        return false;
    };
    let record = directory.join(format!("{stem}{RECORD}"));
    let current = || {
        let record: Record = serde_json::from_slice(&fs::read(record).ok()?).ok()?;
        Some(record.generation)
    };
    end == "json" || current().is_some_and(|generation| generation == end)
}

fn listed(directory: &Path) -> Result<Vec<String>, EngineError> {
    match names_in(directory) {
        Ok(names) => Ok(names),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(EngineError::io("list", directory, error)),
    }
}

/// Bytes of all files below a directory.
pub(crate) fn size(directory: &Path) -> u64 {
    let mut bytes = 0;
    // What is removed while it is counted does not count.
    let _ = walk(directory, &mut |_, file| {
        bytes += if file.is_file() { file.len() } else { 0 };
        Ok(())
    });
    bytes
}

/// Makes durable what was written below a directory since `since`.
pub(crate) fn sync(directory: &Path, since: SystemTime) -> Result<(), EngineError> {
    let synced = walk(directory, &mut |path, file| match file.modified() {
        Ok(modified) if modified < since => Ok(()),
        _ => File::open(path)?.sync_all(),
    });
    let synced = synced.and_then(|()| match directory.parent() {
        Some(parent) => sync_directory(parent),
        None => Ok(()),
    });
    synced.map_err(|error| EngineError::io("sync", directory, error))
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Removes files below a directory that the engine had not given their names yet. Nobody may be writing there. What it has
/// written and not put into a version, it finds itself.
pub(crate) fn remove_nameless(directory: &Path) -> Result<(), EngineError> {
    let removed = walk(directory, &mut |path, file| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // New files, new files of the object store, and new versions.
        let nameless = name.starts_with(".tmp") || name.contains('#') || name.contains(".manifest-");
        match nameless && file.is_file() {
            true => fs::remove_file(path),
            false => Ok(()),
        }
    });
    removed.map_err(|error| EngineError::io("look over", directory, error))
}

/// Calls `visit` for everything below `directory` and then for itself: for a directory after what is in it.
pub(crate) fn walk<F>(directory: &Path, visit: &mut F) -> io::Result<()>
where
    F: FnMut(&Path, &fs::Metadata) -> io::Result<()>,
{
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (path, metadata) = (entry.path(), entry.metadata()?);
        if metadata.is_dir() {
            walk(&path, visit)?;
        } else {
            visit(&path, &metadata)?;
        }
    }
    visit(directory, &fs::metadata(directory)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_what_a_record_names_survives_a_start() {
        let root = tempfile::tempdir().unwrap();
        let (kept, gone): (DatabaseId, &str) = ("kg1".parse().unwrap(), "kg2");
        let layout = Layout::new(root.path().join(kept.as_str()));
        let name = Name::Index("Element".parse().unwrap());
        let record = Record::new(3);
        let whole = layout.generation(&name, &record.generation);
        for directory in [
            whole.clone(),
            layout.generation(&name, "half"),
            layout.generation(&Name::Memory, "half"),
            root.path().join(gone),
            root.path().join(".restoring-kg1-x"),
        ] {
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("rows"), [0; 10]).unwrap();
        }
        layout.write(&name, &record).unwrap();
        assert_eq!(layout.read(&name).unwrap(), Some(record.clone()));
        assert_eq!(layout.names().unwrap(), std::slice::from_ref(&name));
        remove_leftovers(root.path(), std::slice::from_ref(&kept)).unwrap();
        assert_eq!(names_in(root.path()).unwrap(), ["kg1"]);
        let mut names = names_in(layout.directory()).unwrap();
        names.sort();
        assert_eq!(
            names,
            [
                format!("index-Element.{}", record.generation),
                "index-Element.json".into()
            ]
        );
        assert!(layout.size() > 10);
        sync(&whole, SystemTime::UNIX_EPOCH).unwrap();
        layout.forget(&name).unwrap();
        assert_eq!(layout.read(&name).unwrap(), None);
        remove_leftovers(root.path(), std::slice::from_ref(&kept)).unwrap();
        assert_eq!(layout.size(), 0);
    }

    #[test]
    fn tables_are_known_by_their_records_and_nothing_else_is_one() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path().join("kg1"));
        assert!(layout.names().unwrap().is_empty());
        fs::create_dir_all(layout.directory()).unwrap();
        let names = ["memory", "Element"].map(|table| Name::Index(table.parse().unwrap()));
        let names: Vec<Name> = names.into_iter().chain([Name::Memory]).collect();
        for name in &names {
            layout.write(name, &Record::new(2)).unwrap();
        }
        for other in ["index-a b.json", "other.json", "index-half.7"] {
            fs::write(layout.directory().join(other), "").unwrap();
        }
        let mut sorted = names;
        sorted.sort();
        assert_eq!(layout.names().unwrap(), sorted);
    }

    #[test]
    fn a_start_knows_which_tables_were_being_changed() {
        let root = tempfile::tempdir().unwrap();
        let id: DatabaseId = "kg1".parse().unwrap();
        let layout = Layout::new(root.path().join(id.as_str()));
        let tables = [Name::Index("Element".parse().unwrap()), Name::Memory];
        assert!(layout.mark(&Name::Memory).is_none());
        for name in &tables {
            let record = Record::new(3);
            fs::create_dir_all(layout.generation(name, &record.generation)).unwrap();
            layout.write(name, &record).unwrap();
        }
        // One that ended, one that was cut off, and one of a table that never came to be.
        drop(layout.mark(&tables[0]));
        std::mem::forget(layout.mark(&tables[1]));
        std::mem::forget(layout.mark(&Name::Index("Absent".parse().unwrap())));
        let start = || remove_leftovers(root.path(), std::slice::from_ref(&id)).unwrap();
        for _ in 0..2 {
            let cut = start();
            let cut: Vec<(&Path, &Name)> = cut.iter().map(|(layout, name)| (layout.directory(), name)).collect();
            assert_eq!(cut, [(layout.directory(), &Name::Memory)]);
        }
        assert_eq!(layout.names().unwrap(), tables);
        layout.unmark(&Name::Memory).unwrap();
        assert!(start().is_empty());
        assert_eq!(names_in(layout.directory()).unwrap().len(), 4);
    }

    #[test]
    fn files_without_a_name_go_and_others_stay() {
        let root = tempfile::tempdir().unwrap();
        for name in [
            "data/.tmpAbC",
            "data/1.lance",
            "_versions/1.manifest-5",
            "_versions/1.manifest",
            "_versions/2.manifest#1",
        ] {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        remove_nameless(root.path()).unwrap();
        assert_eq!(names_in(&root.path().join("data")).unwrap(), ["1.lance"]);
        assert_eq!(names_in(&root.path().join("_versions")).unwrap(), ["1.manifest"]);
    }
}
