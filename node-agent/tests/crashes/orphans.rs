//! Files that belong to nothing, on the volume and in the object store.

use lance::{Dataset, index::DatasetIndexExt};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::{Path, PathBuf},
};

/// What an agent keeps directly on its volume.
const OWN: &[&str] = &[
    "agent.address",
    "engines.lock",
    "epoch",
    "loads.json",
    "databases",
    "seeds",
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
pub(crate) async fn on_the_volume(volume: &Path, databases: &[String]) -> Vec<PathBuf> {
    let mut orphans = Vec::new();
    let mut keep = |dir: &str, known: &dyn Fn(&str) -> bool| {
        for path in entries(&volume.join(dir)) {
            if !known(&name(&path)) {
                orphans.push(path);
            }
        }
    };
    // Graphs that are gone, and whose staging tables and vectors stay.
    let kept: Vec<String> = entries(&volume.join("staging"))
        .iter()
        .filter_map(|path| Some(name(path).strip_suffix(".kept")?.to_owned()))
        .filter(|id| !databases.contains(id))
        .collect();
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
        let stays = |id: &String| {
            let mut beside = BESIDE_STAGING.iter().map(|beside| format!("{id}.duckdb{beside}"));
            name == format!("{id}.kept") || beside.any(|known| name == known)
        };
        of(name, "duckdb", BESIDE_STAGING) || empty("incoming") || empty("tmp") || kept.iter().any(stays)
    });
    keep("tasks", &|name| name.ends_with(".json") || name.ends_with(".attached"));
    keep("tmp", &|_| false);
    keep("vectors", &|name| databases.iter().chain(&kept).any(|id| name == id));
    for database in entries(&volume.join("vectors")) {
        orphans.extend(of_vectors(&database).await);
    }
    for graph in entries(&volume.join("seeds")) {
        for seed in entries(&graph) {
            let files: BTreeSet<String> = entries(&seed).iter().map(|path| name(path)).collect();
            let beside = |file: &String| BESIDE_GRAPHS.iter().any(|end| *file == format!("graph.lbug{end}"));
            let known = |file: &String| ["seed.json", "vectors"].contains(&file.as_str()) || beside(file);
            if !files.iter().all(known) || !files.contains("seed.json") || !files.contains("graph.lbug") {
                orphans.push(seed.clone());
            }
            orphans.extend(of_vectors(&seed.join("vectors")).await);
        }
    }
    orphans
}

/// What lies beside the tables of vectors of a database and in them, and belongs to none of their versions.
async fn of_vectors(database: &Path) -> Vec<PathBuf> {
    let (records, others): (Vec<PathBuf>, Vec<PathBuf>) = entries(database)
        .into_iter()
        .partition(|path| path.extension().is_some_and(|end| end == "json"));
    let table = |record: &PathBuf| {
        let content: Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
        record.with_extension(content["generation"].as_str().unwrap())
    };
    let tables: Vec<PathBuf> = records.iter().map(table).collect();
    let mut orphans: Vec<PathBuf> = others.into_iter().filter(|path| !tables.contains(path)).collect();
    for table in tables {
        let newest = Dataset::open(&table.to_string_lossy()).await.unwrap();
        let mut named = HashSet::new();
        for version in newest.versions().await.unwrap() {
            let version = newest.checkout_version(version.version).await.unwrap();
            for fragment in version.fragments().iter() {
                named.extend(fragment.files.iter().map(|file| name(Path::new(&file.path))));
            }
            let indexes = version.load_indices().await.unwrap();
            named.extend(indexes.iter().map(|index| index.uuid.to_string()));
        }
        let files = ["data", "_indices"].iter().flat_map(|part| entries(&table.join(part)));
        orphans.extend(files.filter(|path| !named.contains(&name(path))));
        let unnamed = ["_versions", "_transactions"]
            .iter()
            .flat_map(|part| entries(&table.join(part)));
        orphans.extend(unnamed.filter(|path| name(path).starts_with(".tmp") || name(path).contains('#')));
    }
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

/// The nodes of the seed that is published, if one is.
pub(crate) fn published(seeds: &Path) -> Option<u64> {
    let pointer: Value = serde_json::from_slice(&std::fs::read(seeds.join("latest.json")).ok()?).unwrap();
    let part = |field: &str| pointer[field].to_string();
    let manifest = seeds.join(part("epoch")).join(part("version")).join("manifest.json");
    let manifest: Value = serde_json::from_slice(&std::fs::read(manifest).unwrap()).unwrap();
    Some(manifest["node_count"].as_u64().unwrap())
}

/// Seeds without a manifest, which nobody can take up. What the store has not given its name yet, it shows to nobody.
pub(crate) fn half_seeds(seeds: &Path) -> Vec<PathBuf> {
    let epochs = entries(seeds).into_iter().filter(|path| path.is_dir());
    let versions = epochs.flat_map(|epoch| entries(&epoch));
    let is_half = |seed: &PathBuf| {
        let files = entries(seed).into_iter().map(|path| name(&path));
        let files: Vec<String> = files.filter(|file| !file.contains('#')).collect();
        !files.is_empty() && !files.iter().any(|file| file == "manifest.json")
    };
    versions.filter(is_half).collect()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}
