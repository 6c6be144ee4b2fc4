//! `kill -9` of a replica while a seed arrives or is taken up: afterwards it serves a whole one, and no other is left.

use crate::fixture::{Agent, PATIENCE, PEOPLE, eventually, people};
use reqwest::Method;
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};
use tempfile::TempDir;

const ROWS: u64 = 200_000;
const COUNT: &str = "MATCH (p:Person) RETURN count(p)";

async fn publish(writer: &Agent) {
    let started = writer
        .post("/databases/kg1/backup", json!({"backup_type": "replica"}))
        .await
        .ok();
    let record = writer.task(started["task_id"].as_str().unwrap()).await;
    assert_eq!(record["status"], "completed", "{record}");
}

async fn ready(replica: &Agent) {
    let look = || async { replica.bare(Method::GET, "/health").send().await.unwrap().status() };
    eventually("the replica serves", look, |status| status.is_success()).await;
}

fn seeds(replica: &Agent) -> Vec<PathBuf> {
    let entries = fs::read_dir(replica.volume().join("seeds/kg1")).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).collect()
}

/// Looks without a pause: what is looked for may be there for a moment only.
async fn until(what: &str, reached: impl Fn() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < limit, "never happened: {what}");
        tokio::task::yield_now().await;
    }
}

/// Whether a seed beside `old` has come this far.
type Point = fn(&Path) -> bool;

const POINTS: [(&str, Point); 5] = [
    ("begun", |_| true),
    ("arriving", |seed| seed.join("graph.lbug").exists()),
    ("half there", |seed| {
        fs::metadata(seed.join("graph.lbug")).is_ok_and(|file| file.len() > 1 << 20)
    }),
    ("kept", |seed| seed.join("seed.json").exists()),
    ("gone too far", |_| false),
];

/// A writer whose graph has people enough for a kill to meet the copy of it.
async fn filled_writer(root: &Path) -> Agent {
    let writer = Agent::with_store(root, &[]).await;
    writer.database("kg1", PEOPLE).await;
    writer
        .put("/databases/kg1/tables/Person/files/f", people(ROWS))
        .await
        .ok();
    writer
        .post("/databases/kg1/tables/Person/materialize", json!({}))
        .await
        .ok();
    writer
}

#[tokio::test]
async fn a_killed_replica_serves_a_whole_seed_and_leaves_no_other() {
    let root = TempDir::new().unwrap();
    let writer = filled_writer(root.path()).await;
    publish(&writer).await;
    let args = [
        "--role",
        "replica",
        "--seed",
        "seeds/kg1",
        "--seed-poll-seconds",
        "86400",
    ];
    let mut replica = Agent::with_store(root.path(), &args).await;

    // The first seed, of which nothing is served yet.
    for (name, point) in POINTS {
        until(name, || {
            seeds(&replica)
                .iter()
                .any(|seed| point(seed) || seed.join("seed.json").exists())
        })
        .await;
        replica.restart_after_kill().await;
        ready(&replica).await;
        assert_eq!(replica.number("kg1", COUNT).await, ROWS, "{name}");
        assert_eq!(seeds(&replica).len(), 1, "{name}");
        replica.kill();
        fs::remove_dir_all(replica.volume().join("seeds")).unwrap();
        replica.spawn().await;
    }
    ready(&replica).await;

    // A newer one beside the one that is served.
    let (objects, away) = (root.path().join("objects"), root.path().join("away"));
    let mut served = ROWS;
    for (number, (name, point)) in POINTS.into_iter().enumerate() {
        let next = ROWS + 1 + number as u64;
        writer
            .cypher("kg1", &format!("CREATE (:Person {{identifier: {}}})", next + 10 * ROWS))
            .await
            .ok();
        publish(&writer).await;
        let old = seeds(&replica);
        assert_eq!(old.len(), 1, "{name}: {old:?}");
        replica.post("/admin/seed/refresh", json!({})).await.ok();
        until(name, || {
            let now = seeds(&replica);
            let newer = now.iter().any(|seed| *seed != old[0] && point(seed));
            newer || !now.contains(&old[0])
        })
        .await;
        replica.kill();
        let kept = seeds(&replica)
            .iter()
            .any(|seed| *seed != old[0] && seed.join("seed.json").exists());
        // What it has on the volume is all that it has now.
        fs::rename(&objects, &away).unwrap();
        replica.spawn().await;
        ready(&replica).await;
        served = if kept { next } else { served };
        assert_eq!(replica.number("kg1", COUNT).await, served, "{name}");
        eventually(name, || async { seeds(&replica).len() }, |count| *count == 1).await;
        assert!(seeds(&replica)[0].join("seed.json").exists(), "{name}");
        fs::remove_dir(&objects).unwrap();
        fs::rename(&away, &objects).unwrap();
        replica
            .post("/admin/seed/refresh?wait_seconds=300", json!({}))
            .await
            .ok();
        served = next;
        assert_eq!(replica.number("kg1", COUNT).await, served, "{name}");
        eventually(name, || async { seeds(&replica).len() }, |count| *count == 1).await;
    }
}

#[tokio::test]
async fn a_killed_writer_leaves_no_half_of_a_seed() {
    let root = TempDir::new().unwrap();
    let mut writer = filled_writer(root.path()).await;
    let prefix = root.path().join("objects/seeds/kg1");
    let seeds = || {
        let entries = fs::read_dir(prefix.join("0")).into_iter().flatten();
        entries.flatten().map(|entry| entry.path()).collect::<Vec<_>>()
    };
    writer
        .post("/databases/kg1/backup", json!({"backup_type": "replica"}))
        .await
        .ok();
    until("a seed is begun", || !seeds().is_empty()).await;
    writer.restart_after_kill().await;
    let objects = |seed: PathBuf| {
        let names = fs::read_dir(seed).unwrap().flatten().map(|entry| entry.file_name());
        let names = names.map(|name| name.into_string().unwrap());
        // The store's own unfinished uploads, which it shows to nobody.
        names.filter(|name| !name.contains('#')).collect::<Vec<_>>()
    };
    let halves = || {
        let contents = seeds().into_iter().map(objects);
        let halves = contents.filter(|names| !names.is_empty() && !names.iter().any(|name| name == "manifest.json"));
        halves.collect::<Vec<_>>()
    };
    if prefix.join("latest.json").exists() {
        assert_eq!(halves(), Vec::<Vec<String>>::new());
    }
    publish(&writer).await;
    assert!(prefix.join("latest.json").exists());
    assert_eq!(halves(), Vec::<Vec<String>>::new());
    assert!(fs::read_dir(writer.volume().join("tmp")).unwrap().next().is_none());
}
