//! The directory from which `file://` sources are read.

use super::{
    SourceError,
    glob::Pattern,
    source::{Bounds, Place, SourceFile, too_many},
};
use graphplane_core::sources::GRAPH;
use std::path::{Path, PathBuf};

/// The directory of `--import-dir`. With `{graph}` in it each graph has one of its own; without, all share it.
#[derive(Clone, Debug)]
pub(super) struct ImportDir {
    /// What stands before the first part that has the placeholder, resolved.
    base: PathBuf,
    /// What follows.
    rest: PathBuf,
}

impl ImportDir {
    /// Finds the directory; what has the placeholder need not exist yet.
    ///
    /// # Errors
    /// When the directory does not exist.
    pub(super) fn open(dir: &Path) -> std::io::Result<Self> {
        let fixed = |part: &std::path::Component<'_>| !part.as_os_str().to_string_lossy().contains(GRAPH);
        let base: PathBuf = dir.components().take_while(fixed).collect();
        let rest = dir.components().skip_while(fixed).collect();
        // A path that begins with the placeholder begins in the working directory.
        let base = if base.as_os_str().is_empty() {
            Path::new(".")
        } else {
            base.as_path()
        };
        Ok(Self {
            base: base.canonicalize()?,
            rest,
        })
    }

    fn of(&self, graph: &str) -> PathBuf {
        match self.rest.as_os_str().is_empty() {
            true => self.base.clone(),
            // A graph's id has neither dots nor slashes, so it stays within its part.
            false => self.base.join(self.rest.to_string_lossy().replace(GRAPH, graph)),
        }
    }

    /// The files of a graph that match, by name. What is in one of the `closed` directories is the agent's own, unless
    /// the import directory was put into it.
    pub(super) fn find(
        &self,
        graph: &str,
        closed: &[PathBuf],
        pattern: &Pattern,
        shown: &str,
        bounds: Bounds,
    ) -> Result<Vec<SourceFile>, SourceError> {
        let root = self.of(graph);
        let outside = || {
            let root = root.display();
            SourceError::Forbidden(format!(
                "{shown}: this graph reads local files below {root} only; name one that lies there"
            ))
        };
        let start = if pattern.is_literal() {
            pattern.as_str()
        } else {
            pattern.prefix()
        };
        // Resolved before it is compared, so that neither `..` nor a symbolic link leads out of the directory.
        let start = match Path::new(start).canonicalize() {
            Ok(path) => path,
            Err(_) if !Path::new(start).starts_with(&root) => return Err(outside()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(SourceError::NotFound(shown.to_owned()));
            }
            Err(source) => {
                return Err(SourceError::Io {
                    path: start.into(),
                    source,
                });
            }
        };
        let resolved = root.canonicalize().ok();
        let Some(root) = resolved.filter(|root| root.starts_with(&self.base) && start.starts_with(root)) else {
            return Err(outside());
        };
        let kept = |path: &Path| {
            let mut around = closed.iter().filter(|closed| path.starts_with(closed));
            around.any(|closed| root == *closed || !root.starts_with(closed))
        };
        let mut found = Vec::new();
        let mut pending = vec![start];
        while let Some(path) = pending.pop() {
            if kept(&path) {
                // A pattern does not see it.
                if pattern.is_literal() {
                    return Err(SourceError::Forbidden(format!("{shown}: this file is the agent's own")));
                }
                continue;
            }
            let io = |source| SourceError::Io {
                path: path.clone(),
                source,
            };
            let meta = std::fs::symlink_metadata(&path).map_err(io)?;
            if meta.is_dir() && !pattern.is_literal() {
                for entry in std::fs::read_dir(&path).map_err(io)? {
                    pending.push(entry.map_err(io)?.path());
                }
            } else if meta.is_file()
                && (pattern.is_literal() || path.to_str().is_some_and(|text| pattern.matches(text)))
            {
                found.push(SourceFile {
                    uri: format!("file://{}", path.display()),
                    size: meta.len(),
                    place: Place::Local(path),
                });
                if found.len() > bounds.files {
                    return Err(too_many(bounds));
                }
            }
        }
        found.sort_by(|a, b| a.uri.cmp(&b.uri));
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const BOUNDS: Bounds = Bounds { files: 3, bytes: None };

    #[test]
    fn graphs_may_have_directories_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        for graph in ["kg1", "kg11", "kg2"] {
            std::fs::create_dir_all(base.join(graph).join("in")).unwrap();
            std::fs::write(base.join(graph).join("in/x.parquet"), graph).unwrap();
        }
        std::os::unix::fs::symlink(base.join("kg2"), base.join("kg1/in/other")).unwrap();
        std::os::unix::fs::symlink("/etc", base.join("kg3")).unwrap();
        let import = ImportDir::open(&base.join("{graph}/in")).unwrap();
        let find = |graph: &str, path: String| import.find(graph, &[], &Pattern::new(&path), &path, BOUNDS);
        let at = |path: &str| format!("{}/{path}", base.display());
        let found = find("kg1", at("kg1/in/*.parquet")).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(find("kg1", at("kg1/in/**")).unwrap().len(), 1);
        for (graph, path) in [
            ("kg1", "kg2/in/x.parquet"),
            ("kg1", "kg11/in/x.parquet"),
            ("kg1", "kg1/in/other/in/x.parquet"),
            ("kg1", "kg1/*"),
            ("kg1", "*/in/x.parquet"),
            ("kg1", "kg9/in/x.parquet"),
            ("kg9", "kg1/in/x.parquet"),
            ("kg3", "kg1/in/x.parquet"),
            ("kg3", "kg3/hostname"),
        ] {
            let refused = find(graph, at(path));
            assert!(
                matches!(refused, Err(SourceError::Forbidden(_))),
                "{graph} {path}: {refused:?}"
            );
        }
        assert!(matches!(
            find("kg1", at("kg1/in/absent.parquet")),
            Err(SourceError::NotFound(_))
        ));
        assert!(matches!(
            find("kg9", at("kg9/in/absent.parquet")),
            Err(SourceError::NotFound(_))
        ));
        assert!(ImportDir::open(&base.join("absent/{graph}")).is_err());
    }

    #[test]
    fn the_agents_own_files_are_not_sources() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let (volume, inside) = (base.join("volume"), base.join("volume/in"));
        std::fs::create_dir_all(&inside).unwrap();
        for file in [
            base.join("x.csv"),
            volume.join("agent.identity.json"),
            inside.join("y.csv"),
        ] {
            std::fs::write(file, "a\n1\n").unwrap();
        }
        let closed = [volume.clone()];
        let find = |import: &Path, path: &Path| {
            let (import, path) = (ImportDir::open(import).unwrap(), path.display().to_string());
            import.find("kg1", &closed, &Pattern::new(&path), &path, BOUNDS)
        };
        let secret = volume.join("agent.identity.json");
        for around in [&base, &volume] {
            assert!(matches!(find(around, &secret), Err(SourceError::Forbidden(_))));
        }
        assert_eq!(find(&base, &base.join("**")).unwrap().len(), 1);
        assert_eq!(find(&inside, &inside.join("y.csv")).unwrap().len(), 1);
        assert!(matches!(find(&inside, &secret), Err(SourceError::Forbidden(_))));
    }
}
