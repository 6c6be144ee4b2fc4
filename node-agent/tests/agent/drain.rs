//! SIGTERM and `/admin/drain`.

use crate::{
    fixture::{Agent, Answer, PEOPLE, eventually, people},
    plane::Bucket,
};
use futures::{StreamExt, stream};
use reqwest::{Body, Method};
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

/// A statement, a task, and a file that is on its way: each keeps a node from being drained, and each is told.
#[tokio::test]
async fn a_drain_says_what_it_waits_for() {
    let bucket = Bucket::start().await;
    let args = [
        "--query-timeout-seconds",
        "3600",
        "--source-endpoint",
        bucket.url.as_str(),
    ];
    let agent = Agent::with(&args).await;
    agent.database("kg1", PEOPLE).await;

    let mut file = people(10);
    let rest = file.split_off(file.len() / 2);
    let (go_on, gone_on) = tokio::sync::oneshot::channel::<()>();
    let parts = stream::once(async move { Ok::<_, std::io::Error>(file) }).chain(stream::once(async move {
        // Also if the sender is gone: the test has failed then.
        let _ = gone_on.await;
        Ok(rest)
    }));
    let upload = agent
        .request(Method::PUT, "/databases/kg1/tables/Person/files/f")
        .body(Body::wrap_stream(parts));
    let upload = tokio::spawn(async move { Answer::to(upload).await });
    let connections = || async { agent.get("/admin/connections").await.ok()["write_permits"].clone() };
    eventually("the upload has begun", connections, |permits| *permits == 1).await;

    let task = agent
        .request(Method::POST, "/databases/kg1/tables")
        .header("Prefer", "respond-async")
        .json(&json!({
            "table_name": "KNOWS", "s3_pattern": "s3://lake/silent/knows.parquet", "s3_credentials": {
                "aws_access_key_id": "a", "aws_secret_access_key": "s", "endpoint_url": bucket.url, "region": "us-east-1",
            },
        }));
    let task = Answer::to(task).await.ok()["task_id"].as_str().unwrap().to_owned();
    let endless = "UNWIND range(1, 1000000) AS a UNWIND range(1, 1000000) AS b WITH a, b WHERE a * b = -1 RETURN a";
    let query = agent
        .request(Method::POST, "/databases/kg1/query")
        .json(&json!({"cypher": endless}));
    let query = tokio::spawn(query.send());
    agent.runs("kg1", 1).await;

    let path = "/admin/drain";
    let answer = agent.post(path, json!({})).await.ok();
    assert_eq!(
        (&answer["status"], &answer["active_queries"], &answer["active_tasks"]),
        (&json!("draining"), &json!(1), &json!(1))
    );
    agent.cypher("kg1", "CREATE (:Person {identifier: 1})").await.fails(503);

    query.abort();
    agent.delete(&format!("/tasks/{task}")).await.ok();
    assert_eq!(agent.task(&task).await["status"], "cancelled");
    let progress = || async { agent.post(path, json!({})).await.ok() };
    let answer = eventually("the upload alone is left", progress, |answer| {
        answer["active_queries"] == 0 && answer["active_tasks"] == 0 && answer["write_permits"] == 1
    })
    .await;
    assert_eq!(answer["status"], "draining");

    go_on.send(()).unwrap();
    let answer = agent.post("/admin/drain?wait_seconds=300", json!({})).await.ok();
    assert_eq!(
        (&answer["status"], &answer["write_permits"]),
        (&json!("drained"), &json!(0))
    );
    // What was taken before is done.
    assert_eq!(upload.await.unwrap().ok()["row_count"], 10);
}

impl Answer {
    #[track_caller]
    fn fails_without_detail(&self, status: u16) {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert!(self.header("retry-after").is_some());
    }
}
