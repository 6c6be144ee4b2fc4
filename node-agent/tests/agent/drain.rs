//! SIGTERM and `/admin/drain`.

use crate::fixture::{Agent, Answer, PEOPLE, eventually, people};
use reqwest::Method;
use serde_json::json;

fn log_files(dir: &std::path::Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            names.extend(log_files(&entry.path()));
        } else if name.ends_with(".wal") && entry.metadata().unwrap().len() > 0 {
            names.push(name);
        }
    }
    names
}

#[tokio::test]
async fn sigterm_finishes_what_runs_and_checkpoints() {
    let mut agent = Agent::with(&["--drain-seconds", "600", "--query-timeout-seconds", "600"]).await;
    agent.database("kg1", PEOPLE).await;
    agent
        .cypher("kg1", "UNWIND range(1, 100) AS i CREATE (:Person {identifier: i})")
        .await
        .ok();
    let running = agent
        .request(Method::POST, "/databases/kg1/query")
        .json(&json!({"cypher": "UNWIND range(1000, 200000) AS i CREATE (:Person {identifier: i})"}));
    let running = tokio::spawn(async move { Answer::to(running).await });
    let look = || async {
        let metrics = agent.get("/databases/kg1/metrics?include_counts=false").await.ok();
        (metrics["active_queries"].clone(), running.is_finished())
    };
    eventually("the write runs", look, |(active, finished)| *active != 0 || *finished).await;
    let status = agent.terminate().await;
    assert_eq!(status.code(), Some(0), "{}", agent.log());
    running.await.unwrap().ok();
    assert_eq!(
        log_files(&agent.volume()),
        Vec::<String>::new(),
        "a write-ahead log was left"
    );
    agent.spawn().await;
    assert_eq!(
        agent.number("kg1", "MATCH (p:Person) RETURN count(p)").await,
        100 + 199_001
    );
}

#[tokio::test]
async fn sigterm_waits_for_tasks() {
    let mut agent = Agent::with(&["--drain-seconds", "600"]).await;
    agent.database("kg1", PEOPLE).await;
    agent
        .put("/databases/kg1/tables/Person/files/f", people(300_000))
        .await
        .ok();
    let request = agent
        .request(Method::POST, "/databases/kg1/tables/Person/materialize")
        .header("Prefer", "respond-async")
        .json(&json!({}));
    let id = Answer::to(request).await.ok()["task_id"].as_str().unwrap().to_owned();
    assert_eq!(agent.terminate().await.code(), Some(0));
    agent.spawn().await;
    let record = agent.get(&format!("/tasks/{id}/status")).await.ok();
    assert_eq!(record["status"], "completed", "{record}");
    assert_eq!(agent.number("kg1", "MATCH (p:Person) RETURN count(p)").await, 300_000);
}

#[tokio::test]
async fn sigterm_interrupts_what_does_not_end() {
    let mut agent = Agent::with(&["--drain-seconds", "1", "--query-timeout-seconds", "600"]).await;
    agent
        .database("kg1", "CREATE NODE TABLE N(id INT64 PRIMARY KEY);")
        .await;
    agent
        .cypher("kg1", "UNWIND range(1, 3000) AS i CREATE (:N {id: i})")
        .await
        .ok();
    let slow = "MATCH (a:N), (b:N), (c:N), (d:N) WHERE a.id + b.id + c.id + d.id = -1 RETURN count(*)";
    let running = agent
        .request(Method::POST, "/databases/kg1/query")
        .json(&json!({"cypher": slow}));
    let running = tokio::spawn(async move { running.send().await });
    agent.runs("kg1", 1).await;
    assert_eq!(agent.terminate().await.code(), Some(0), "{}", agent.log());
    assert!(running.await.unwrap().is_err() || agent.log().contains("cut"));
    agent.spawn().await;
    assert_eq!(agent.number("kg1", "MATCH (n:N) RETURN count(n)").await, 3000);
}

#[tokio::test]
async fn a_drained_node_reads_and_is_checkpointed() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    agent.cypher("kg1", "CREATE (:Person {identifier: 1})").await.ok();
    let answer = agent.post("/admin/drain?wait_seconds=300", json!({})).await.ok();
    assert_eq!(
        (&answer["status"], &answer["active_queries"], &answer["active_tasks"]),
        (&json!("drained"), &json!(0), &json!(0))
    );
    assert_eq!(log_files(&agent.volume()), Vec::<String>::new());
    let refused = agent.cypher("kg1", "CREATE (:Person {identifier: 2})").await;
    assert_eq!(refused.fails(503)["reason"], "draining");
    for refused in [
        agent.post("/databases/kg1/restore", json!({"s3_key": "k"})).await,
        agent.get("/databases/kg1/backup").await,
    ] {
        assert_eq!(refused.fails(503)["reason"], "draining");
    }
    assert_eq!(agent.number("kg1", "MATCH (p:Person) RETURN count(p)").await, 1);
    agent.get("/health").await.ok();
    agent.get("/status").await.fails_without_detail(503);
    agent.post("/admin/drain?wait_seconds=x", json!({})).await.fails(400);
}

impl Answer {
    #[track_caller]
    fn fails_without_detail(&self, status: u16) {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert!(self.header("retry-after").is_some());
    }
}
