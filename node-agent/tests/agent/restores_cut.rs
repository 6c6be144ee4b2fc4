//! `kill -9` in the middle of a restore: afterwards there is the old database or the new one.

use crate::{
    fixture::{Agent, PEOPLE, people},
    vector_copies::{memories, remember},
};
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;

const KEY: &str = "backups/kg1/0/large";
const ROWS: u64 = 200_000;
const MEMORIES: u64 = 3;
const COUNT: &str = "MATCH (p:Person) RETURN count(p)";

/// A backup with `ROWS` people, a staging table, and `MEMORIES` memories.
async fn large_backup(root: &Path) -> Agent {
    let agent = Agent::with_store(root, &[]).await;
    agent.database("kg1", PEOPLE).await;
    agent
        .put("/databases/kg1/tables/Person/files/f", people(ROWS))
        .await
        .ok();
    agent
        .post("/databases/kg1/tables/Person/materialize", json!({}))
        .await
        .ok();
    for number in 0..MEMORIES {
        remember(&agent, "kg1", number).await;
    }
    agent.backup("kg1", KEY, false).await;
    agent
}

fn has(agent: &Agent, directory: &str, prefix: &str) -> bool {
    let entries = std::fs::read_dir(agent.volume().join(directory)).unwrap();
    entries
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
}

/// Starts a restore, and kills the agent as soon as a file of this name is seen, or the task has ended.
async fn cut(agent: &mut Agent, id: &str, body: Value, directory: &str, prefix: &str) -> Value {
    let started = agent.post(&format!("/databases/{id}/restore"), body).await.ok();
    let task = started["task_id"].as_str().unwrap().to_owned();
    let record = agent.volume().join("tasks").join(format!("{task}.json"));
    let ended = || {
        let record: Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
        record["completed_at"].is_string()
    };
    while !has(agent, directory, prefix) && !ended() {
        tokio::task::yield_now().await;
    }
    agent.restart_after_kill().await;
    let record = agent.get(&format!("/tasks/{task}/status")).await.ok();
    if record["status"] == "failed" {
        let error = record["error"].as_str().unwrap();
        assert!(
            error.starts_with("interrupted by restart")
                && (error.contains("never a mixture") || error.ends_with("it had not started")),
            "{error}"
        );
    } else {
        assert_eq!(record["status"], "completed", "{record}");
    }
    assert_eq!(agent.leftovers(), Vec::<String>::new());
    record
}

#[tokio::test]
async fn a_cut_restore_leaves_the_old_database_or_the_new_one() {
    let root = TempDir::new().unwrap();
    let mut agent = large_backup(root.path()).await;
    let body = json!({"s3_key": KEY, "force_overwrite": true, "create_system_backup": false});
    for (directory, prefix) in [
        // At once; while the graph arrives; when all is there; in the middle of the exchange; and after it.
        ("databases", ""),
        ("databases", ".restoring-"),
        ("staging", ".restoring-"),
        ("vectors", ".restoring-"),
        ("databases", ".swap-"),
        ("vectors", ".previous-"),
        ("databases", ".previous-"),
        ("databases", ".never-"),
    ] {
        // The old state has one more person, one more memory, and no staging.
        if agent.number("kg1", COUNT).await == ROWS {
            agent.cypher("kg1", "CREATE (:Person {identifier: -1})").await.ok();
            remember(&agent, "kg1", MEMORIES).await;
        }
        agent.delete("/databases/kg1/tables/Person").await.ok();
        let record = cut(&mut agent, "kg1", body.clone(), directory, prefix).await;
        let count = agent.number("kg1", COUNT).await;
        let tables = agent.get("/databases/kg1/tables").await.ok();
        let remembered = memories(&agent, "kg1").await;
        match (count, tables.as_array().unwrap().len(), remembered) {
            (ROWS, 1, MEMORIES) => assert_eq!(tables[0]["row_count"], ROWS),
            (old, 0, more) if old == ROWS + 1 && more == MEMORIES + 1 => {
                assert_eq!(record["status"], "failed", "{record}");
            }
            (count, tables, memories) => {
                panic!("killed at {prefix}: {count} people, {tables} staging tables and {memories} memories")
            }
        }
        agent.cypher("kg1", "CREATE (:Person {identifier: -2})").await.ok();
        agent
            .cypher("kg1", "MATCH (p:Person {identifier: -2}) DELETE p")
            .await
            .ok();
    }
    let record = agent.restore("kg1", body).await;
    assert_eq!(record["status"], "completed", "{record}");
    assert_eq!(agent.number("kg1", COUNT).await, ROWS);
    assert_eq!(memories(&agent, "kg1").await, MEMORIES);
}

#[tokio::test]
async fn a_cut_restore_of_a_new_database_leaves_all_or_nothing() {
    let root = TempDir::new().unwrap();
    let mut agent = large_backup(root.path()).await;
    for (directory, prefix) in [
        ("databases", ".restoring-"),
        ("databases", ".swap-"),
        ("vectors", "kg2"),
        ("databases", "kg2."),
    ] {
        let record = cut(&mut agent, "kg2", json!({"s3_key": KEY}), directory, prefix).await;
        let found = agent.get("/databases/kg2").await;
        if found.status.is_success() {
            assert_eq!(agent.number("kg2", COUNT).await, ROWS);
            assert_eq!(memories(&agent, "kg2").await, MEMORIES);
            agent.delete("/databases/kg2").await.ok();
        } else {
            assert_eq!(record["status"], "failed", "{record}");
        }
        assert_eq!(agent.number("kg1", COUNT).await, ROWS);
    }
    let record = agent.restore("kg2", json!({"s3_key": KEY})).await;
    assert_eq!(record["status"], "completed", "{record}");
    assert_eq!(agent.number("kg2", COUNT).await, ROWS);
}

#[tokio::test]
async fn a_cancelled_restore_leaves_nothing() {
    let root = TempDir::new().unwrap();
    let agent = large_backup(root.path()).await;
    let started = agent.post("/databases/kg2/restore", json!({"s3_key": KEY})).await.ok();
    let task = started["task_id"].as_str().unwrap();
    // The same request again is the same task; another backup for the same database is not.
    let again = agent.post("/databases/kg2/restore", json!({"s3_key": KEY})).await;
    let other = agent
        .post("/databases/kg2/restore", json!({"s3_key": "backups/other"}))
        .await;
    let cancelled = agent.delete(&format!("/tasks/{task}")).await;
    let record = agent.task(task).await;
    // It may have been faster than these requests.
    if record["status"] == "completed" {
        assert_eq!(agent.number("kg2", COUNT).await, ROWS);
        return;
    }
    cancelled.ok();
    assert_eq!(again.ok()["task_id"], started["task_id"]);
    assert_eq!(other.fails(409)["task_id"], started["task_id"]);
    assert_eq!(record["status"], "cancelled", "{record}");
    agent.get("/databases/kg2").await.fails(404);
    crate::fixture::eventually("no leftovers", || async { agent.leftovers() }, Vec::is_empty).await;
    // And its place is free.
    agent.database("kg2", PEOPLE).await;
}
