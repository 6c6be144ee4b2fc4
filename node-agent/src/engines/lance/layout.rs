//! What lies on the volume below `vectors/<database id>`: for every table of vectors a record, `<name>.json`, and the
//! directory that the record names, `<name>.<generation>`.
//!
//! A table exists when its record does, and is replaced when its record is: both are the rename of one small file. A
//! generation has a name that is never used again, because the engine's caches know files by their path. Directories
//! that no record names are what a crash left, or what a search was still reading; the next start removes them.
//!
//! A change in place (rows that are added, an index that is trained) writes into the generation itself. While there may be
//! one, `<name>.changing` lies beside, so that the next start knows where to look for what belongs to no version.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::super::error::EngineError;
use super::super::files::{names_in, remove};
use super::super::names::{DatabaseId, TableName};
use crate::registration::files::write_atomically;

/// Which table of a database.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Name {
    /// The vectors of a staging table or graph table.
    Index(TableName),
    /// The semantic memory.
    Memory,
}

impl Name {
    /// Names of tables have no dot, so this begins the names of exactly what belongs to one.
    fn stem(&self) -> String {
        match self {
            Self::Index(table) => format!("index-{table}"),
            Self::Memory => MEMORY.to_owned(),
        }
    }

    /// The other way round.
    fn of(stem: &str) -> Option<Self> {
        match stem.strip_prefix("index-") {
            Some(table) => TableName::parse(table).ok().map(Self::Index),
            None => (stem == MEMORY).then_some(Self::Memory),
        }
    }
}

const MEMORY: &str = "memory";

/// Lies beside a table for as long as somebody may change it.
#[derive(Debug)]
pub(crate) struct Mark(PathBuf);

impl Drop for Mark {
    fn drop(&mut self) {
        // Absent if the database went.
        if let Err(error) = remove(&self.0) {
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

/// The directory of all vectors of a node.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

const RECORD: &str = ".json";
const CHANGING: &str = ".changing";

impl Layout {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self {
            root: data_dir.join("vectors"),
        }
    }

    /// Everything of one database.
    pub(crate) fn of(&self, id: &DatabaseId) -> PathBuf {
        self.root.join(id.as_str())
    }

    /// Where a generation of a table is, or will be.
    pub(crate) fn generation(&self, id: &DatabaseId, name: &Name, generation: &str) -> PathBuf {
        self.of(id).join(format!("{}.{generation}", name.stem()))
    }

    fn record_path(&self, id: &DatabaseId, name: &Name) -> PathBuf {
        self.of(id).join(format!("{}{RECORD}", name.stem()))
    }

    /// The record of a table, if there is that table.
    pub(crate) fn read(&self, id: &DatabaseId, name: &Name) -> Result<Option<Record>, EngineError> {
        let path = self.record_path(id, name);
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
    pub(crate) fn write(&self, id: &DatabaseId, name: &Name, record: &Record) -> Result<(), EngineError> {
        let path = self.record_path(id, name);
        let text = serde_json::to_vec(record).map_err(|error| EngineError::io("write", &path, error))?;
        write_atomically(&path, &text, 0o600).map_err(|error| EngineError::io("write", path, error))
    }

    /// Ends a table; its generation stays for whoever still reads it.
    pub(crate) fn forget(&self, id: &DatabaseId, name: &Name) -> Result<(), EngineError> {
        remove(&self.record_path(id, name))?;
        let directory = self.of(id);
        sync_directory(&directory).map_err(|error| EngineError::io("sync", directory, error))
    }

    fn mark_path(&self, id: &DatabaseId, name: &Name) -> PathBuf {
        self.of(id).join(format!("{}{CHANGING}", name.stem()))
    }

    /// Says that a table is about to be changed. `None` if its database has no vectors that could be; or if the volume takes
    /// no file, which must keep nobody from removing some.
    pub(crate) fn mark(&self, id: &DatabaseId, name: &Name) -> Option<Mark> {
        let path = self.mark_path(id, name);
        match File::create(&path) {
            Ok(_) => Some(Mark(path)),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(%error, path = %path.display(), "a change of vectors begins without its mark");
                }
                None
            }
        }
    }

    /// Ends a change that a crash cut off.
    pub(crate) fn unmark(&self, id: &DatabaseId, name: &Name) -> Result<(), EngineError> {
        remove(&self.mark_path(id, name))
    }

    /// Removes what a crash left: vectors of databases that are not `known`, and directories that no record names. Gives the
    /// tables that were being changed: what of their files belongs to no version of them, only the engine can tell.
    pub(crate) fn remove_leftovers(&self, known: &[DatabaseId]) -> Result<Vec<(DatabaseId, Name)>, EngineError> {
        let mut changing = Vec::new();
        for database in listed(&self.root)? {
            let directory = self.root.join(&database);
            let Some(id) = known.iter().find(|id| id.as_str() == database) else {
                tracing::info!(
                    directory = database,
                    "removing vectors of a database that does not exist"
                );
                remove(&directory)?;
                continue;
            };
            let names = listed(&directory)?;
            for name in &names {
                if let Some(table) = name.strip_suffix(CHANGING).and_then(Name::of)
                    && self.record_path(id, &table).is_file()
                {
                    changing.push((id.clone(), table));
                } else if !belongs(&directory, name) {
                    tracing::info!(database, file = name, "removing what an unfinished operation left");
                    remove(&directory.join(name))?;
                }
            }
        }
        Ok(changing)
    }

    /// Bytes of all vectors of a database.
    pub(crate) fn size(&self, id: &DatabaseId) -> u64 {
        size(&self.of(id))
    }
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
        let layout = Layout::new(root.path());
        let (kept, gone): (DatabaseId, DatabaseId) = ("kg1".parse().unwrap(), "kg2".parse().unwrap());
        let name = Name::Index("Element".parse().unwrap());
        let record = Record::new(3);
        let whole = layout.generation(&kept, &name, &record.generation);
        for directory in [
            whole.clone(),
            layout.generation(&kept, &name, "half"),
            layout.generation(&kept, &Name::Memory, "half"),
            layout.of(&gone),
        ] {
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("rows"), [0; 10]).unwrap();
        }
        layout.write(&kept, &name, &record).unwrap();
        assert_eq!(layout.read(&kept, &name).unwrap(), Some(record.clone()));
        layout.remove_leftovers(std::slice::from_ref(&kept)).unwrap();
        assert!(!layout.of(&gone).exists());
        let mut names = names_in(&layout.of(&kept)).unwrap();
        names.sort();
        assert_eq!(
            names,
            [
                format!("index-Element.{}", record.generation),
                "index-Element.json".into()
            ]
        );
        assert!(layout.size(&kept) > 10);
        sync(&whole, SystemTime::UNIX_EPOCH).unwrap();
        layout.forget(&kept, &name).unwrap();
        assert_eq!(layout.read(&kept, &name).unwrap(), None);
        layout.remove_leftovers(std::slice::from_ref(&kept)).unwrap();
        assert_eq!(layout.size(&kept), 0);
    }

    #[test]
    fn a_start_knows_which_tables_were_being_changed() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path());
        let id: DatabaseId = "kg1".parse().unwrap();
        let tables = [Name::Index("Element".parse().unwrap()), Name::Memory];
        assert!(layout.mark(&id, &Name::Memory).is_none());
        for name in &tables {
            let record = Record::new(3);
            fs::create_dir_all(layout.generation(&id, name, &record.generation)).unwrap();
            layout.write(&id, name, &record).unwrap();
        }
        // One that ended, one that was cut off, and one of a table that never came to be.
        drop(layout.mark(&id, &tables[0]));
        std::mem::forget(layout.mark(&id, &tables[1]));
        std::mem::forget(layout.mark(&id, &Name::Index("Absent".parse().unwrap())));
        let cut = vec![(id.clone(), Name::Memory)];
        for _ in 0..2 {
            assert_eq!(layout.remove_leftovers(std::slice::from_ref(&id)).unwrap(), cut);
        }
        layout.unmark(&id, &Name::Memory).unwrap();
        assert!(layout.remove_leftovers(std::slice::from_ref(&id)).unwrap().is_empty());
        assert_eq!(names_in(&layout.of(&id)).unwrap().len(), 4);
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
