//! Files that belong to nothing, on the volume and in the object store.

use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// What an agent keeps directly on its volume.
const OWN: &[&str] = &[
    "agent.address",
    "engines.lock",
    "epoch",
    "loads.json",
    "databases",
    "staging",
    "tasks",
    "tmp",
    "vectors",
];

/// Files of the engine beside a graph. Those of a checkpoint that was cut off go with the next one.
const BESIDE_GRAPHS: &[&str] = &[
    "",
    ".wal",
    ".wal.checkpoint",
    ".shadow",
    ".pinned.tmp",
    ".checkpoint.intent.lock",
    ".checkpoint.apply.lock",
    ".agent.lock",
];
const BESIDE_STAGING: &[&str] = &["", ".wal", ".agent.lock"];

/// Files of a volume that belong to none of these databases.
pub(crate) fn on_the_volume(volume: &Path, databases: &[String]) -> Vec<PathBuf> {
    let mut orphans = Vec::new();
    let mut keep = |dir: &str, known: &dyn Fn(&str) -> bool| {
        for path in entries(&volume.join(dir)) {
            if !known(&path.file_name().unwrap().to_string_lossy()) {
                orphans.push(path);
            }
        }
    };
    let of = |name: &str, ending: &str, beside: &[&str]| {
        databases
            .iter()
            .any(|id| beside.iter().any(|beside| name == format!("{id}.{ending}{beside}")))
    };
    keep("", &|name| OWN.contains(&name));
    // The engine's log that a kill cut off in the middle of a record; the agent keeps a copy for whoever wants to know.
    let log_kept = |name: &str| {
        let of = |id: &String| name.starts_with(&format!("{id}.lbug.unreadable-wal-"));
        databases.iter().any(of)
    };
    keep("databases", &|name| of(name, "lbug", BESIDE_GRAPHS) || log_kept(name));
    keep("staging", &|name| {
        let empty = |ending| of(name, ending, &[""]) && entries(&volume.join("staging").join(name)).is_empty();
        of(name, "duckdb", BESIDE_STAGING) || empty("incoming") || empty("tmp")
    });
    keep("tasks", &|name| name.ends_with(".json") || name.ends_with(".attached"));
    keep("tmp", &|_| false);
    keep("vectors", &|name| databases.iter().any(|id| id == name));
    orphans
}

/// The nodes of every backup that a restore would accept, by key. Each is checked to be whole.
pub(crate) fn backups(store: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let mut directories = vec![store.to_owned()];
    while let Some(directory) = directories.pop() {
        for path in entries(&directory) {
            if path.is_dir() {
                directories.push(path);
            } else if path.ends_with("manifest.json") {
                let manifest: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                for file in manifest["files"].as_array().unwrap() {
                    let object = std::fs::read(directory.join(file["name"].as_str().unwrap())).unwrap();
                    let digest = hex::encode(Sha256::digest(&object));
                    assert_eq!(
                        file["sha256"],
                        digest,
                        "{} is not what its manifest says",
                        path.display()
                    );
                }
                let key = manifest["key"].as_str().unwrap().to_owned();
                found.insert(key, manifest["node_count"].as_u64().unwrap());
            }
        }
    }
    found
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}
