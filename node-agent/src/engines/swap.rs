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

/// What becomes of the staging tables of a graph that is replaced.
#[derive(Clone, Debug)]
pub(crate) enum NewStaging {
    /// They stay as they are.
    Kept,
    /// They go with the old graph.
    Gone,
    /// This file takes their place.
    File(PathBuf),
}

/// What a swap is about to do, as it lies on the disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Journal {
    graph: Part,
    /// Absent if the staging tables stay.
    #[serde(default)]
    staging: Option<Part>,
}

/// The names of the files of one directory.
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
        staging: &NewStaging,
    ) -> Result<Self, EngineError> {
        check_whole(graph)?;
        let part = |directory: &Path, new: Option<&Path>| -> Result<Part, EngineError> {
            let mut old = Vec::new();
            let start = format!("{id}.");
            let kept = format!("{PREVIOUS}{id}.");
            for name in names_in(directory).map_err(|error| EngineError::io("list", directory, error))? {
                if name.starts_with(&kept) {
                    // Litter of an earlier swap, which must not be taken for this one's.
                    remove(&directory.join(&name))?;
                } else if name.starts_with(&start) && directory.join(&name).is_file() {
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
        let [databases, staged] = files.directories();
        let journal = Journal {
            graph: part(databases, Some(graph))?,
            staging: match staging {
                NewStaging::Kept => None,
                NewStaging::Gone => Some(part(staged, None)?),
                NewStaging::File(file) => Some(part(staged, Some(file))?),
            },
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
                steps.push(if from == data && part.new.is_some() {
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
                    steps.push(Step::Remove(kept));
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
        let graph = (databases, &self.journal.graph, self.files.graph(&self.id));
        let staged = self.journal.staging.as_ref();
        staged
            .map(|part| (staging, part, self.files.staging(&self.id)))
            .into_iter()
            .chain([graph])
    }

    fn path(&self) -> PathBuf {
        let [databases, _] = self.files.directories();
        databases.join(format!("{JOURNAL}{}.json", self.id))
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
        for directory in self.files.directories() {
            let synced: io::Result<()> = File::open(directory).and_then(|directory| directory.sync_all());
            synced.map_err(|error| EngineError::io("sync", directory, error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeMap;
    use tempfile::TempDir;

    type Content = BTreeMap<String, String>;

    const OLD: [(&str, &str); 4] = [
        ("databases/kg1.lbug", "old graph"),
        ("databases/kg1.lbug.wal", "old log"),
        ("staging/kg1.duckdb", "old staging"),
        ("databases/kg11.lbug", "another database"),
    ];

    /// A volume with a database, and the files of its successor.
    fn volume(old: &[(&str, &str)], with_staging: bool) -> (TempDir, Files, Swap) {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        files.make_directories().unwrap();
        for (name, text) in old {
            fs::write(root.path().join(name), text).unwrap();
        }
        let [databases, staging] = files.directories();
        let graph = databases.join(".restoring-kg1.lbug");
        let staged = staging.join(".restoring-kg1.duckdb");
        fs::write(&graph, "new graph").unwrap();
        fs::write(&staged, "new staging").unwrap();
        let staged = match with_staging {
            true => NewStaging::File(staged),
            false => NewStaging::Gone,
        };
        let swap = Swap::plan(&files, &DatabaseId::parse("kg1").unwrap(), &graph, &staged).unwrap();
        (root, files, swap)
    }

    /// The same, where the new graph is a database of its own, and staging stays.
    fn with_successor() -> (TempDir, Files, Swap) {
        let mut old = OLD.to_vec();
        old.push(("databases/kg1-wip.lbug", "new graph"));
        let (root, files, _) = volume(&old, true);
        let successor = root.path().join("databases/kg1-wip.lbug");
        let swap = Swap::plan(
            &files,
            &DatabaseId::parse("kg1").unwrap(),
            &successor,
            &NewStaging::Kept,
        )
        .unwrap();
        (root, files, swap)
    }

    /// What the next start finds.
    fn after_start(root: &TempDir, files: &Files) -> Content {
        Swap::undo_all(files).unwrap();
        files.remove_leftovers().unwrap();
        let mut content = Content::new();
        for directory in ["databases", "staging"] {
            for name in names_in(&root.path().join(directory)).unwrap() {
                let name = format!("{directory}/{name}");
                let text = fs::read_to_string(root.path().join(&name)).unwrap();
                content.insert(name, text);
            }
        }
        content
    }

    fn content(files: &[(&str, &str)]) -> Content {
        files
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect()
    }

    #[test]
    fn a_crash_before_the_commit_leaves_the_old_files_whole() {
        for with_staging in [true, false] {
            let steps = volume(&OLD, with_staging).2.forth().len();
            for done in 0..=steps {
                let (root, files, swap) = volume(&OLD, with_staging);
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
        let others = ("databases/kg11.lbug", "another database");
        let (root, files, swap) = volume(&OLD, true);
        swap.exchange().unwrap();
        assert!(root.path().join("databases/.previous-kg1.lbug").exists());
        swap.commit().unwrap();
        let new = [
            ("databases/kg1.lbug", "new graph"),
            ("staging/kg1.duckdb", "new staging"),
            others,
        ];
        assert_eq!(after_start(&root, &files), content(&new));

        // A backup without staging is a database without staging; and what a crash left of the old files goes.
        let (root, files, swap) = volume(&OLD, false);
        swap.exchange().unwrap();
        swap.forget().unwrap();
        assert_eq!(
            after_start(&root, &files),
            content(&[("databases/kg1.lbug", "new graph"), others])
        );
    }

    #[test]
    fn a_new_database_is_there_after_the_commit_and_not_before() {
        let (root, files, swap) = volume(&[], true);
        swap.exchange().unwrap();
        assert_eq!(after_start(&root, &files), Content::new());
        let (root, files, swap) = volume(&[], true);
        swap.exchange().unwrap();
        swap.commit().unwrap();
        let new = [
            ("databases/kg1.lbug", "new graph"),
            ("staging/kg1.duckdb", "new staging"),
        ];
        assert_eq!(after_start(&root, &files), content(&new));
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
        let after = [
            ("databases/kg1.lbug", "new graph"),
            ("staging/kg1.duckdb", "old staging"),
            ("databases/kg11.lbug", "another database"),
        ];
        assert_eq!(after_start(&root, &files), content(&after));
    }

    #[test]
    fn a_graph_that_is_not_whole_does_not_take_a_place() {
        let (root, files, _) = volume(&OLD, true);
        let graph = root.path().join("databases/.restoring-kg1.lbug");
        fs::write(root.path().join("databases/.restoring-kg1.lbug.wal"), "rows").unwrap();
        let id = DatabaseId::parse("kg1").unwrap();
        Swap::plan(&files, &id, &graph, &NewStaging::Kept).unwrap_err();
        assert_eq!(after_start(&root, &files), content(&OLD));
    }

    #[test]
    fn litter_of_an_earlier_swap_is_not_put_back() {
        let mut old = OLD.to_vec();
        old.push(("databases/.previous-kg1.lbug", "much older"));
        let (root, files, swap) = volume(&old, true);
        swap.undo().unwrap();
        assert_eq!(after_start(&root, &files), content(&OLD));
    }
}
