//! Backups to a directory that stands for an object store.

use crate::fixture::{Agent, Answer, KEY, PEOPLE, people};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;
use tempfile::TempDir;

#[tokio::test]
async fn a_backup_is_a_database() {
    let root = TempDir::new().unwrap();
    let agent = Agent::with_store(root.path(), &[]).await;
    agent.database("kg1", PEOPLE).await;
    agent
        .cypher(
            "kg1",
            "UNWIND range(1, 500) AS i CREATE (:Person {identifier: i, name: 'p'})",
        )
        .await
        .ok();
    agent.put("/databases/kg1/tables/Staged/files/f", people(10)).await.ok();
    let key = "backups/kg1/0/first";
    let started = agent
        .post("/databases/kg1/backup", json!({"destination": {"key": key}}))
        .await
        .ok();
    assert_eq!(
        (&started["status"], &started["backup_format"]),
        (&json!("initiated"), &json!("full_dump"))
    );
    let task = started["task_id"].as_str().unwrap();
    assert_eq!(started["monitor_url"], json!(format!("/tasks/{task}/monitor")));
    let record = agent.task(task).await;
    assert_eq!(record["status"], "completed", "{record}");
    let result = &record["result"];
    assert_eq!(
        (&result["key"], &result["node_count"], &result["duckdb_included"]),
        (&json!(key), &json!(500), &json!(true))
    );
    assert_eq!(
        (&result["ladybug_version"], &result["storage_version"]),
        (&json!("0.22.1"), &json!("49"))
    );

    let dir = root.path().join("objects").join(key);
    let manifest: Value = serde_json::from_slice(&std::fs::read(dir.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["files"].as_array().unwrap().len(), 2);
    let object = std::fs::read(dir.join("graph.lbug.zst")).unwrap();
    assert_eq!(hex::encode(Sha256::digest(&object)), result["sha256"].as_str().unwrap());
    let plain = zstd::decode_all(&object[..]).unwrap();
    assert_eq!(
        hex::encode(Sha256::digest(&plain)),
        manifest["files"][0]["plain_sha256"].as_str().unwrap()
    );
    let left: Vec<_> = std::fs::read_dir(agent.volume().join("tmp")).unwrap().collect();
    assert!(left.is_empty(), "the copy was not removed");

    // The copy opens as a database, with every row.
    let restored = TempDir::new().unwrap();
    let file = agent.get("/databases/kg1").await.ok()["database_path"]
        .as_str()
        .unwrap()
        .to_owned();
    let relative = Path::new(&file)
        .strip_prefix(agent.volume().canonicalize().unwrap())
        .unwrap()
        .to_owned();
    let target = restored.path().join("volume").join(relative);
    std::fs::create_dir_all(target.parent().unwrap()).unwrap();
    std::fs::write(&target, plain).unwrap();
    let other = Agent::launch(restored, &[], &[("GRAPH_API_KEY", KEY)]).await;
    assert_eq!(other.number("kg1", "MATCH (p:Person) RETURN count(p)").await, 500);

    // The same key again: the same backup, and nothing is copied.
    let again = agent
        .post("/databases/kg1/backup", json!({"destination": {"key": key}}))
        .await
        .ok();
    let record = agent.task(again["task_id"].as_str().unwrap()).await;
    assert_eq!(record["result"], *result);
    // Another graph must not be taken for it.
    agent.database("kg2", PEOPLE).await;
    let other = agent
        .post("/databases/kg2/backup", json!({"destination": {"key": key}}))
        .await
        .ok();
    let record = agent.task(other["task_id"].as_str().unwrap()).await;
    assert_eq!(record["status"], "failed");
    assert!(record["error"].as_str().unwrap().contains("kg1"), "{record}");
}

#[tokio::test]
async fn wrong_requests_are_refused() {
    let root = TempDir::new().unwrap();
    let agent = Agent::with_store(root.path(), &[]).await;
    agent.database("kg1", PEOPLE).await;
    for (body, status) in [
        (json!({"encryption": true}), 400),
        (json!({"compression": false}), 400),
        (json!({"backup_format": "csv"}), 422),
        (json!({"destination": {"key": "../../etc/x"}}), 400),
        (json!({"destination": {"bucket": "b"}}), 400),
        (json!({"surplus": 1}), 422),
    ] {
        agent.post("/databases/kg1/backup", body).await.fails(status);
    }
    agent.post("/databases/absent/backup", json!({})).await.fails(404);
    let empty = agent.request(Method::POST, "/databases/kg1/backup");
    let started = Answer::to(empty).await.ok();
    assert!(started["key"].as_str().unwrap().starts_with("backups/kg1/0/"));
    assert_eq!(
        agent.task(started["task_id"].as_str().unwrap()).await["status"],
        "completed"
    );

    let without = Agent::start().await;
    without.database("kg1", PEOPLE).await;
    without.post("/databases/kg1/backup", json!({})).await.fails(400);
}

#[tokio::test]
async fn a_backup_that_was_cut_off_does_not_exist() {
    let root = TempDir::new().unwrap();
    let mut agent = Agent::with_store(root.path(), &[]).await;
    agent.database("kg1", PEOPLE).await;
    agent
        .put("/databases/kg1/tables/Person/files/f", people(1_000_000))
        .await
        .ok();
    agent
        .post("/databases/kg1/tables/Person/materialize", json!({}))
        .await
        .ok();
    let key = "backups/kg1/0/cut";
    let body = json!({"destination": {"key": key}});
    let id = agent.post("/databases/kg1/backup", body.clone()).await.ok()["task_id"]
        .as_str()
        .unwrap()
        .to_owned();
    agent.restart_after_kill().await;
    let record = agent.get(&format!("/tasks/{id}/status")).await.ok();
    let manifest = root.path().join("objects").join(key).join("manifest.json");
    assert_eq!(record["status"] == "completed", manifest.exists(), "{record}");
    if record["status"] == "failed" {
        assert!(
            record["error"].as_str().unwrap().starts_with("interrupted by restart"),
            "{record}"
        );
    }
    let again = agent.post("/databases/kg1/backup", body).await.ok();
    let record = agent.task(again["task_id"].as_str().unwrap()).await;
    assert_eq!(
        (&record["status"], &record["result"]["node_count"]),
        (&json!("completed"), &json!(1_000_000)),
        "{record}"
    );
    assert!(manifest.exists());
    assert!(
        std::fs::read_dir(agent.volume().join("tmp")).unwrap().next().is_none(),
        "the cut copy is still there"
    );
}
