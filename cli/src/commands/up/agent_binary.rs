//! Which program is started as a node agent.

use crate::failure::{Exit, Failure};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Name of the node agent's program.
pub(super) const NAME: &str = "graphplane-node-agent";

/// The program: the one that was named, else the one beside this program, else the first in `PATH`.
///
/// # Errors
/// There is none; the message says where it was looked for.
pub(super) fn find(
    named: Option<&Path>,
    beside: Option<&Path>,
    path: Option<&std::ffi::OsStr>,
) -> Result<PathBuf, Failure> {
    if let Some(named) = named {
        let absolute = std::path::absolute(named).unwrap_or_else(|_| named.to_owned());
        return if is_program(&absolute) {
            Ok(absolute)
        } else {
            Err(Failure::new(
                Exit::Usage,
                format!("--agent-binary {} is not a program", named.display()),
            ))
        };
    }
    let beside = beside.and_then(Path::parent).map(|folder| folder.join(NAME));
    let in_path = path.map(|path| {
        std::env::split_paths(path)
            .map(|folder| folder.join(NAME))
            .collect::<Vec<_>>()
    });
    beside
        .iter()
        .chain(in_path.iter().flatten())
        .find(|candidate| is_program(candidate))
        .cloned()
        .ok_or_else(|| {
            let looked = beside.as_deref().map_or("beside this program".to_owned(), |path| {
                format!("at {}", path.display())
            });
            Failure::plain(format!("the program {NAME} is neither {looked} nor in PATH"))
                .advise("build it with `make build`, or name it with --agent-binary FILE")
        })
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn program(folder: &Path) -> PathBuf {
        std::fs::create_dir_all(folder).unwrap();
        let path = folder.join(NAME);
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn the_one_beside_us_is_taken_before_the_one_in_path() {
        let root = tempfile::tempdir().unwrap();
        let us = root.path().join("bin/graphplane");
        let in_path = program(&root.path().join("path"));
        let path = std::env::join_paths([root.path().join("empty"), root.path().join("path")]).unwrap();
        assert_eq!(find(None, Some(&us), Some(&path)).unwrap(), in_path);
        let beside = program(&root.path().join("bin"));
        assert_eq!(find(None, Some(&us), Some(&path)).unwrap(), beside);
        assert_eq!(find(Some(&in_path), Some(&us), Some(&path)).unwrap(), in_path);
    }

    #[test]
    fn a_missing_program_says_where_it_was_looked_for() {
        let root = tempfile::tempdir().unwrap();
        let failure = find(None, Some(&root.path().join("graphplane")), None).unwrap_err();
        assert!(
            failure.message.contains(&root.path().display().to_string()),
            "{failure}"
        );
        assert!(failure.advice.unwrap().contains("--agent-binary"));
        let not_executable = root.path().join("text");
        std::fs::write(&not_executable, "").unwrap();
        assert_eq!(find(Some(&not_executable), None, None).unwrap_err().exit, Exit::Usage);
    }
}
