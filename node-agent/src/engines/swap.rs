//! Replacing the files of a database by others, so that a crash at any moment leaves all of the old ones or all of the
//! new ones.
//!
//! A journal is written first. While it is there the swap may be undone, and whoever finds it undoes it: the next start
//! does, before it looks for databases. Removing the journal makes the new files the database's own. What is left of the
//! old ones is litter then, which the next start sweeps up if the swap does not get to it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::EngineError;
use super::files::{Files, check_whole, names_in, remove};
use super::names::DatabaseId;
use crate::registration::files::write_atomically;

/// Old files wait under this prefix until the swap is final.
const PREVIOUS: &str = ".previous-";
const JOURNAL: &str = ".swap-";

/// What becomes of the staging tables, or of the vectors, of a graph that is replaced.
#[derive(Clone, Debug)]
pub(crate) enum Beside {
    /// They stay as they are.
    Kept,
    /// They go with the old graph.
    Gone,
    /// This file (of staging tables) or directory (of vectors) takes their place.
    New(PathBuf),
}

/// What a swap is about to do, as it lies on the disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Journal {
    graph: Part,
    /// Absent if the staging tables stay.
    #[serde(default)]
    staging: Option<Part>,
    /// Absent if the vectors stay.
    #[serde(default)]
    vectors: Option<Part>,
}

/// The names of the files of one directory; of vectors, of directories.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Part {
    /// Files that make way.
    old: Vec<String>,
    /// The file that takes the data file's place; without one, nothing does.
    new: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// A second name for a file that another one is about to replace: its first name is never without a file.
    Link(PathBuf, PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl Step {
    fn run(&self) -> Result<(), EngineError> {
        match self {
            Self::Link(from, to) => fs::hard_link(from, to).map_err(|error| EngineError::io("link", from, error)),
            Self::Rename(from, to) => fs::rename(from, to).map_err(|error| EngineError::io("rename", from, error)),
            Self::Remove(path) => remove(path),
        }
    }
}

/// One swap. After [`exchange`](Self::exchange), whether that succeeded or not, it ends with [`commit`](Self::commit) or
/// [`undo`](Self::undo); otherwise the next start undoes it.
#[derive(Debug)]
pub(crate) struct Swap {
    files: Files,
    id: DatabaseId,
    journal: Journal,
}

impl Swap {
    /// Looks at what there is; changes nothing yet. From here to the end nobody may have the database open, and the new
    /// files must be on the disk, in the directories of the files that they replace.
    pub(crate) fn plan(
        files: &Files,
        id: &DatabaseId,
        graph: &Path,
        staging: &Beside,
        vectors: &Beside,
    ) -> Result<Self, EngineError> {
        check_whole(graph)?;
        let part = |directory: &Path, new: Option<&Path>| -> Result<Part, EngineError> {
            let mut old = Vec::new();
            for name in names_in(directory).map_err(|error| EngineError::io("list", directory, error))? {
                if name.strip_prefix(PREVIOUS).is_some_and(|name| belongs(id, name)) {
                    // Litter of an earlier swap, which must not be taken for this one's.
                    remove(&directory.join(&name))?;
                } else if belongs(id, &name) && movable(id, &directory.join(&name)) {
                    old.push(name);
                }
            }
            old.sort();
            let new = new.and_then(Path::file_name).and_then(|name| name.to_str());
            Ok(Part {
                old,
                new: new.map(str::to_owned),
            })
        };
        let beside = |directory: &Path, new: &Beside| match new {
            Beside::Kept => Ok(None),
            Beside::Gone => part(directory, None).map(Some),
            Beside::New(path) => part(directory, Some(path)).map(Some),
        };
        let [databases, staged] = files.directories();
        let journal = Journal {
            graph: part(databases, Some(graph))?,
            staging: beside(staged, staging)?,
            vectors: beside(files.all_vectors(), vectors)?,
        };
        Ok(Self {
            files: files.clone(),
            id: id.clone(),
            journal,
        })
    }

    /// Writes the journal, and puts the new files in the place of the old ones.
    pub(crate) fn exchange(&self) -> Result<(), EngineError> {
        self.record()?;
        self.forth().iter().try_for_each(Step::run)?;
        self.sync()
    }

    /// Makes the exchange final. On an error it is not, and can still be undone.
    pub(crate) fn commit(&self) -> Result<(), EngineError> {
        self.forget()?;
        for (directory, part, _) in self.parts() {
            for name in &part.old {
                if let Err(error) = remove(&directory.join(format!("{PREVIOUS}{name}"))) {
                    tracing::warn!(%error, database = %self.id, "a replaced file is removed at the next start");
                }
            }
        }
        Ok(())
    }

    /// Puts the old files back, and gives the new ones their own names again, however far the exchange came.
    pub(crate) fn undo(&self) -> Result<(), EngineError> {
        self.back()?.iter().try_for_each(Step::run)?;
        self.sync()?;
        self.forget()
    }

    /// Whether there is a journal, of a swap that is under way or that the next start undoes. Also if that cannot be known.
    pub(crate) fn is_pending(files: &Files, id: &DatabaseId) -> bool {
        journal_path(files, id).try_exists().unwrap_or(true)
    }

    /// Undoes every swap of which a journal is left.
    pub(crate) fn undo_all(files: &Files) -> Result<(), EngineError> {
        let [databases, _] = files.directories();
        for name in names_in(databases).map_err(|error| EngineError::io("list", databases, error))? {
            let Some(id) = name
                .strip_prefix(JOURNAL)
                .and_then(|rest| rest.strip_suffix(".json"))
                .and_then(|id| DatabaseId::parse(id).ok())
            else {
                continue;
            };
            let path = databases.join(&name);
            let text = fs::read(&path).map_err(|error| EngineError::io("read", &path, error))?;
            let journal = serde_json::from_slice(&text).map_err(|error| EngineError::io("understand", &path, error))?;
            let files = files.clone();
            tracing::warn!(database = %id, "an exchange of files was cut off; the database is put back as it was before");
            Self { files, id, journal }.undo()?;
        }
        Ok(())
    }

    fn forth(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (directory, part, data) in self.parts() {
            for name in &part.old {
                let (from, to) = (directory.join(name), directory.join(format!("{PREVIOUS}{name}")));
                // A directory cannot have two names; nobody looks for one while it is exchanged.
                steps.push(if from == data && part.new.is_some() && !from.is_dir() {
                    Step::Link(from, to)
                } else {
                    Step::Rename(from, to)
                });
            }
            if let Some(new) = &part.new {
                steps.push(Step::Rename(directory.join(new), data));
            }
        }
        steps
    }

    fn back(&self) -> Result<Vec<Step>, EngineError> {
        let mut steps = Vec::new();
        for (directory, part, data) in self.parts() {
            // An old file without its second name has not made way, or is back already: the data file is not the new one.
            let made_way = part
                .old
                .iter()
                .all(|name| directory.join(name) != data || directory.join(format!("{PREVIOUS}{name}")).exists());
            if let Some(new) = part.new.as_ref().map(|name| directory.join(name))
                && made_way
                && data.exists()
                && !new.exists()
            {
                steps.push(Step::Rename(data, new));
            }
            for name in &part.old {
                let kept = directory.join(format!("{PREVIOUS}{name}"));
                if kept.exists() {
                    steps.push(Step::Rename(kept.clone(), directory.join(name)));
                    // Renaming one name of a file to another of its names leaves both.
                    if !kept.is_dir() {
                        steps.push(Step::Remove(kept));
                    }
                }
            }
            let start = format!("{}.", self.id);
            for name in names_in(directory).map_err(|error| EngineError::io("list", directory, error))? {
                let path = directory.join(&name);
                if name.starts_with(&start) && path.is_file() && !part.old.contains(&name) {
                    steps.push(Step::Remove(path));
                }
            }
        }
        Ok(steps)
    }

    /// Directory, names, and the data file's path.
    fn parts(&self) -> impl Iterator<Item = (&Path, &Part, PathBuf)> {
        let [databases, staging] = self.files.directories();
        let vectors = self.files.all_vectors();
        let graph = (databases, &self.journal.graph, self.files.graph(&self.id));
        let staged = self.journal.staging.as_ref();
        let staged = staged.map(|part| (staging, part, self.files.staging(&self.id)));
        let searched = self.journal.vectors.as_ref();
        let searched = searched.map(|part| (vectors, part, self.files.vectors(&self.id)));
        staged.into_iter().chain(searched).chain([graph])
    }

    fn path(&self) -> PathBuf {
        journal_path(&self.files, &self.id)
    }

    fn record(&self) -> Result<(), EngineError> {
        let text = serde_json::to_vec(&self.journal).map_err(|error| EngineError::internal(error.to_string()))?;
        write_atomically(&self.path(), &text, 0o600).map_err(|error| EngineError::internal(error.to_string()))
    }

    fn forget(&self) -> Result<(), EngineError> {
        remove(&self.path())?;
        self.sync()
    }

    fn sync(&self) -> Result<(), EngineError> {
        for directory in self.files.directories().into_iter().chain([self.files.all_vectors()]) {
            let synced: io::Result<()> = File::open(directory).and_then(|directory| directory.sync_all());
            synced.map_err(|error| EngineError::io("sync", directory, error))?;
        }
        Ok(())
    }
}

fn journal_path(files: &Files, id: &DatabaseId) -> PathBuf {
    let [databases, _] = files.directories();
    databases.join(format!("{JOURNAL}{id}.json"))
}

/// Whether a name is that of a database's file, or of the directory of its vectors.
fn belongs(id: &DatabaseId, name: &str) -> bool {
    let rest = name.strip_prefix(id.as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether an exchange takes it along: not the directories in which an engine works.
fn movable(id: &DatabaseId, path: &Path) -> bool {
    path.is_file() || path.file_name().is_some_and(|name| name == id.as_str())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeMap;
    use tempfile::TempDir;

    type Content = BTreeMap<String, String>;

    const OLD: [(&str, &str); 7] = [
        ("databases/kg1.lbug", "old graph"),
        ("databases/kg1.lbug.wal", "old log"),
        ("staging/kg1.duckdb", "old staging"),
        ("vectors/kg1/memory.json", "old record"),
        ("vectors/kg1/memory.a/rows", "old vectors"),
        ("vectors/kg11/memory.json", "another record"),
        ("databases/kg11.lbug", "another database"),
    ];
    const OTHERS: [(&str, &str); 2] = [
        ("vectors/kg11/memory.json", "another record"),
        ("databases/kg11.lbug", "another database"),
    ];
    const NEW: [(&str, &str); 4] = [
        ("databases/kg1.lbug", "new graph"),
        ("staging/kg1.duckdb", "new staging"),
        ("vectors/kg1/memory.json", "new record"),
        ("vectors/kg1/memory.b/rows", "new vectors"),
    ];

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn id() -> DatabaseId {
        DatabaseId::parse("kg1").unwrap()
    }

    /// A volume with a database, and the files of its successor: with staging and vectors, or with neither.
    fn volume(old: &[(&str, &str)], with_all: bool) -> (TempDir, Files, Swap) {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        files.make_directories().unwrap();
        for (name, text) in old {
            write(root.path(), name, text);
        }
        let [databases, staging] = files.directories();
        let graph = databases.join(".restoring-kg1.lbug");
        let staged = staging.join(".restoring-kg1.duckdb");
        let vectors = files.all_vectors().join(".restoring-kg1");
        fs::write(&graph, "new graph").unwrap();
        fs::write(&staged, "new staging").unwrap();
        write(&vectors, "memory.json", "new record");
        write(&vectors, "memory.b/rows", "new vectors");
        let (staged, vectors) = match with_all {
            true => (Beside::New(staged), Beside::New(vectors)),
            false => (Beside::Gone, Beside::Gone),
        };
        let swap = Swap::plan(&files, &id(), &graph, &staged, &vectors).unwrap();
        (root, files, swap)
    }

    /// The same, where the new graph is a database of its own, and staging stays.
    fn with_successor() -> (TempDir, Files, Swap) {
        let mut old = OLD.to_vec();
        old.push(("databases/kg1-wip.lbug", "new graph"));
        let (root, files, _) = volume(&old, true);
        let successor = root.path().join("databases/kg1-wip.lbug");
        let swap = Swap::plan(&files, &id(), &successor, &Beside::Kept, &Beside::Kept).unwrap();
        (root, files, swap)
    }

    /// What the next start finds.
    fn after_start(root: &TempDir, files: &Files) -> Content {
        Swap::undo_all(files).unwrap();
        files.remove_leftovers().unwrap();
        for name in names_in(files.all_vectors()).unwrap() {
            // As the start does it with whatever is no database's.
            if name.starts_with('.') {
                remove(&files.all_vectors().join(name)).unwrap();
            }
        }
        let mut content = Content::new();
        add(root.path(), root.path(), &mut content);
        content
    }

    /// Every file below a directory.
    fn add(root: &Path, directory: &Path, content: &mut Content) {
        for name in names_in(directory).unwrap() {
            let path = directory.join(name);
            if path.is_dir() {
                add(root, &path, content);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                content.insert(name, fs::read_to_string(path).unwrap());
            }
        }
    }

    fn content(files: &[(&str, &str)]) -> Content {
        files
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect()
    }

    #[test]
    fn a_crash_before_the_commit_leaves_the_old_files_whole() {
        for with_all in [true, false] {
            let steps = volume(&OLD, with_all).2.forth().len();
            for done in 0..=steps {
                let (root, files, swap) = volume(&OLD, with_all);
                swap.record().unwrap();
                swap.forth()[..done].iter().for_each(|step| step.run().unwrap());
                if done == steps {
                    // The new database was opened, and has logs of its own.
                    fs::write(root.path().join("databases/kg1.lbug.wal"), "new log").unwrap();
                    fs::write(root.path().join("databases/kg1.lbug.shadow"), "new").unwrap();
                }
                assert_eq!(
                    after_start(&root, &files),
                    content(&OLD),
                    "after {done} of {steps} steps"
                );
            }
        }
    }

    #[test]
    fn a_crash_while_the_old_files_are_put_back_loses_none() {
        let (_root, _, swap) = volume(&OLD, true);
        swap.exchange().unwrap();
        let steps = swap.back().unwrap().len();
        for done in 0..=steps {
            let (root, files, swap) = volume(&OLD, true);
            swap.exchange().unwrap();
            swap.back().unwrap()[..done].iter().for_each(|step| step.run().unwrap());
            assert_eq!(
                after_start(&root, &files),
                content(&OLD),
                "after {done} of {steps} steps"
            );
        }
    }

    #[test]
    fn after_the_commit_only_the_new_files_are_there() {
        let (root, files, swap) = volume(&OLD, true);
        swap.exchange().unwrap();
        assert!(root.path().join("databases/.previous-kg1.lbug").exists());
        assert!(root.path().join("vectors/.previous-kg1/memory.json").exists());
        swap.commit().unwrap();
        let mut new = content(&NEW);
        new.extend(content(&OTHERS));
        assert_eq!(after_start(&root, &files), new);

        // A backup without staging and vectors is a database without them; and what a crash left of the old files goes.
        let (root, files, swap) = volume(&OLD, false);
        swap.exchange().unwrap();
        swap.forget().unwrap();
        let mut bare = content(&NEW[..1]);
        bare.extend(content(&OTHERS));
        assert_eq!(after_start(&root, &files), bare);
    }

    #[test]
    fn a_new_database_is_there_after_the_commit_and_not_before() {
        let steps = volume(&[], true).2.forth().len();
        for done in 0..=steps {
            let (root, files, swap) = volume(&[], true);
            swap.record().unwrap();
            swap.forth()[..done].iter().for_each(|step| step.run().unwrap());
            assert_eq!(
                after_start(&root, &files),
                Content::new(),
                "after {done} of {steps} steps"
            );
        }
        let (root, files, swap) = volume(&[], true);
        swap.exchange().unwrap();
        swap.commit().unwrap();
        assert_eq!(after_start(&root, &files), content(&NEW));
    }

    #[test]
    fn what_stays_without_its_graph_is_there_until_another_database_is() {
        let mut kept = OLD[2..].to_vec();
        kept.push(("staging/kg1.kept", ""));
        for with_all in [true, false] {
            let steps = volume(&kept, with_all).2.forth().len();
            for done in 0..=steps {
                let (root, files, swap) = volume(&kept, with_all);
                swap.record().unwrap();
                swap.forth()[..done].iter().for_each(|step| step.run().unwrap());
                assert_eq!(
                    after_start(&root, &files),
                    content(&kept),
                    "after {done} of {steps} steps"
                );
            }
            let (root, files, swap) = volume(&kept, with_all);
            swap.exchange().unwrap();
            swap.forget().unwrap();
            let mut new = content(match with_all {
                true => &NEW,
                false => &NEW[..1],
            });
            new.extend(content(&OTHERS));
            assert_eq!(after_start(&root, &files), new);
        }
    }

    #[test]
    fn a_journal_of_an_older_agent_is_undone() {
        let (root, files, swap) = volume(&OLD, true);
        let mut journal = serde_json::to_value(&swap.journal).unwrap();
        journal.as_object_mut().unwrap().remove("vectors").unwrap();
        fs::write(swap.path(), journal.to_string()).unwrap();
        assert_eq!(after_start(&root, &files), content(&OLD));
    }

    #[test]
    fn a_database_that_takes_anothers_place_is_itself_again_when_that_is_undone() {
        let mut before = content(&OLD);
        before.insert("databases/kg1-wip.lbug".into(), "new graph".into());
        let steps = with_successor().2.forth().len();
        for done in 0..=steps {
            let (root, files, swap) = with_successor();
            swap.record().unwrap();
            swap.forth()[..done].iter().for_each(|step| step.run().unwrap());
            for undone in 0..=swap.back().unwrap().len() {
                let (root, files, swap) = with_successor();
                swap.record().unwrap();
                swap.forth()[..done].iter().for_each(|step| step.run().unwrap());
                swap.back().unwrap()[..undone]
                    .iter()
                    .for_each(|step| step.run().unwrap());
                assert_eq!(
                    after_start(&root, &files),
                    before,
                    "{done} of {steps} steps, {undone} undone"
                );
            }
            assert_eq!(after_start(&root, &files), before, "after {done} of {steps} steps");
        }
        let (root, files, swap) = with_successor();
        swap.exchange().unwrap();
        swap.commit().unwrap();
        // Its staging tables and its vectors are what they were.
        let mut after = content(&OLD[2..]);
        after.insert("databases/kg1.lbug".into(), "new graph".into());
        assert_eq!(after_start(&root, &files), after);
    }

    #[test]
    fn a_graph_that_is_not_whole_does_not_take_a_place() {
        let (root, files, _) = volume(&OLD, true);
        let graph = root.path().join("databases/.restoring-kg1.lbug");
        fs::write(root.path().join("databases/.restoring-kg1.lbug.wal"), "rows").unwrap();
        Swap::plan(&files, &id(), &graph, &Beside::Kept, &Beside::Kept).unwrap_err();
        assert_eq!(after_start(&root, &files), content(&OLD));
    }

    #[test]
    fn litter_of_an_earlier_swap_is_not_put_back() {
        let mut old = OLD.to_vec();
        old.push(("databases/.previous-kg1.lbug", "much older"));
        old.push(("vectors/.previous-kg1/memory.json", "much older"));
        let (root, files, swap) = volume(&old, true);
        swap.undo().unwrap();
        assert_eq!(after_start(&root, &files), content(&OLD));
    }
}
