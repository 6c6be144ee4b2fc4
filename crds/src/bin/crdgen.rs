//! Writes the generated files of this crate: one manifest per CustomResourceDefinition in `crds/manifests/`, and the
//! Tier manifests of each environment in `config/tiers/`.
//!
//! `crdgen` writes them, `crdgen --check` exits with 1 where a file differs from what it would write.

use graphplane_crds::all_crds;
use graphplane_crds::config::{Config, Environment, manifests, tiers_of};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// How to bring the files up to date, as errors and file headers say it.
const COMMAND: &str = "cargo run -p graphplane-crds --bin crdgen";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => write(),
        ["--check"] => check(),
        _ => {
            eprintln!("usage: crdgen [--check]");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("crdgen: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The folders that hold generated files and nothing else.
fn folders() -> [PathBuf; 2] {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    [root.join("manifests"), root.join("../config/tiers")]
}

/// Every generated file with its content.
fn generated() -> Result<BTreeMap<PathBuf, String>, Box<dyn Error>> {
    let [crds, tiers] = folders();
    let mut files = BTreeMap::new();
    // Long descriptions stay on one line: folding them would make a changed word change every line.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    for crd in all_crds() {
        let body = serde_saphyr::to_string_with_options(&crd, options.clone())?;
        let text = format!(
            "# Generated from crds/src by `{COMMAND}`; change it there.\n{}\n",
            body.trim_end()
        );
        files.insert(crds.join(format!("{}.yaml", crd.spec.names.plural)), text);
    }
    let config = Config::built_in()?;
    for environment in Environment::ALL {
        let text = manifests(&tiers_of(&config, environment, false), "config/graph.yml", environment)?;
        files.insert(tiers.join(format!("{environment}.yaml")), text);
    }
    Ok(files)
}

/// Files in the folders that nothing generates any more.
fn stale(files: &BTreeMap<PathBuf, String>) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut stale = Vec::new();
    for folder in folders().iter().filter(|folder| folder.is_dir()) {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "yaml") && !files.contains_key(&path) {
                stale.push(path);
            }
        }
    }
    stale.sort();
    Ok(stale)
}

fn write() -> Result<ExitCode, Box<dyn Error>> {
    let files = generated()?;
    for folder in folders() {
        std::fs::create_dir_all(folder)?;
    }
    for (path, text) in &files {
        if std::fs::read_to_string(path).ok().as_ref() != Some(text) {
            std::fs::write(path, text)?;
            println!("wrote {}", path.display());
        }
    }
    for path in stale(&files)? {
        std::fs::remove_file(&path)?;
        println!("removed {}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn check() -> Result<ExitCode, Box<dyn Error>> {
    let files = generated()?;
    let mut drift = Vec::new();
    for (path, text) in &files {
        match std::fs::read_to_string(path) {
            Ok(found) if found == *text => {}
            Ok(found) => drift.push(format!(
                "{} differs from line {} on",
                path.display(),
                first_difference(&found, text)
            )),
            Err(error) => drift.push(format!("{}: {error}", path.display())),
        }
    }
    drift.extend(
        stale(&files)?
            .iter()
            .map(|path| format!("{} is not generated any more", path.display())),
    );
    if drift.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    for line in drift {
        eprintln!("{line}");
    }
    eprintln!("generated files are out of date; run `make generate` (or `{COMMAND}`) and commit what it changes");
    Ok(ExitCode::FAILURE)
}

/// The number of the first line, from 1, in which two texts differ.
fn first_difference(left: &str, right: &str) -> usize {
    left.lines()
        .zip(right.lines())
        .take_while(|(left, right)| left == right)
        .count()
        + 1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_committed_files_are_what_is_generated() {
        let files = generated().unwrap();
        for (path, text) in &files {
            let found = std::fs::read_to_string(path).unwrap_or_default();
            let line = first_difference(&found, text);
            assert!(
                found == *text,
                "{} differs from line {line} on; run `{COMMAND}`",
                path.display()
            );
        }
        assert_eq!(
            stale(&files).unwrap(),
            Vec::<PathBuf>::new(),
            "no longer generated; run `{COMMAND}`"
        );
    }

    #[test]
    fn the_first_different_line_is_found_also_at_the_end() {
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), 2);
        assert_eq!(first_difference("a\n", "a\nb\n"), 2);
    }
}
