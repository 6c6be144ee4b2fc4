//! The audit log: one line for every request that changes something, on every route, also if its caller goes away.

use crate::{
    conformance::DOCUMENT,
    fixture::{Agent, Answer, KEY, PEOPLE, eventually},
    plane::Bucket,
};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use tempfile::TempDir;

/// An agent whose log has little else.
async fn quiet(args: &[&str]) -> Agent {
    let envs = [("GRAPH_API_KEY", KEY), ("RUST_LOG", "error")];
    Agent::launch(TempDir::new().unwrap(), args, &envs).await
}

/// The lines about requests.
fn audited(agent: &Agent) -> Vec<Value> {
    let (requests, _) = audit(agent);
    requests
}

/// The lines about requests, and those about the ends of tasks.
fn audit(agent: &Agent) -> (Vec<Value>, Vec<Value>) {
    let lines = agent.log();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let lines = lines.filter(|line| line["target"] == "audit");
    lines.partition(|line| line["status"].is_number())
}

#[tokio::test]
async fn the_end_of_a_task_is_audited_with_its_request() {
    let root = TempDir::new().unwrap();
    let bucket = Bucket::start().await;
    let store = format!("file://{}", root.path().join("objects").display());
    let args = [
        "--object-store",
        store.as_str(),
        "--source-endpoint",
        bucket.url.as_str(),
    ];
    let mut agent = quiet(&args).await;
    agent.database("kg1", PEOPLE).await;
    let backup = |request: &'static str| {
        agent
            .request(Method::POST, "/databases/kg1/backup")
            .header("X-Request-Id", request)
            .json(&json!({"destination": {"key": "backups/sesame"}}))
    };
    let started = Answer::to(backup("first")).await.ok();
    let done = started["task_id"].as_str().unwrap().to_owned();
    agent.task(&done).await;
    let staging = agent
        .request(Method::POST, "/databases/kg1/tables")
        .header("X-Request-Id", "second")
        .header("Prefer", "respond-async")
        .json(&json!({
            "table_name": "Person", "s3_pattern": "s3://lake/silent/sesame.parquet", "s3_credentials": {
                "aws_access_key_id": "a", "aws_secret_access_key": "sesame", "endpoint_url": bucket.url, "region": "us-east-1",
            },
        }));
    let cut = Answer::to(staging).await.ok()["task_id"].as_str().unwrap().to_owned();
    // A task that the process did not live to end is told of when the next one finds it.
    agent.restart_after_kill().await;
    let (_, ends) = audit(&agent);
    let told: Vec<_> = ends
        .iter()
        .map(|line| {
            (
                &line["task"],
                &line["task_type"],
                &line["graph"],
                &line["outcome"],
                &line["request_id"],
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (
                &json!(done),
                &json!("backup"),
                &json!("kg1"),
                &json!("completed"),
                &json!("first")
            ),
            (
                &json!(cut),
                &json!("staging"),
                &json!("kg1"),
                &json!("failed"),
                &Value::Null
            ),
        ]
    );
    assert_eq!(ends[0]["key"], json!(&hex::encode(Sha256::digest(KEY))[..8]));
    assert!(ends[0]["duration_ms"].is_number());
    assert!(!agent.log().contains("sesame"));
}

#[tokio::test]
async fn changes_are_audited_and_reads_are_not() {
    let agent = quiet(&[]).await;
    agent.database("kg1", PEOPLE).await;
    agent.cypher("kg1", "MATCH (p:Person) RETURN count(p)").await.ok();
    let write = agent
        .request(Method::POST, "/databases/kg1/query")
        .header("X-Request-Id", "my-request")
        .json(&json!({"cypher": "CREATE (:Person {identifier: $id, name: 'sesame'})", "parameters": {"id": 1}}));
    Answer::to(write).await.ok();
    agent.cypher("kg1", "CREATE (:Person {identifier: 1})").await.fails(409);
    // A change that looks like a read.
    agent.cypher("kg1", "CREATE SEQUENCE numbers").await.ok();
    agent.cypher("kg1", "RETURN nextval('numbers')").await.ok();
    agent.delete("/databases/absent").await.fails(404);
    agent.delete("/databases/kg1").await.ok();

    let lines = audited(&agent);
    assert_eq!(
        lines.iter().map(told).collect::<Vec<_>>(),
        [
            ("database_create", "kg1", 200),
            ("query", "kg1", 200),
            ("query", "kg1", 409),
            ("query", "kg1", 200),
            ("query", "kg1", 200),
            ("database_delete", "absent", 404),
            ("database_delete", "kg1", 200),
        ]
    );
    let id = &hex::encode(Sha256::digest(KEY))[..8];
    for line in &lines {
        assert_eq!(line["key"], id);
        assert!(line["duration_ms"].is_number() && !line["request_id"].as_str().unwrap().is_empty());
    }
    assert_eq!(lines[1]["request_id"], "my-request");
    assert!(!agent.log().contains("sesame"));
}

/// Operation, graph and status of a line.
fn told(line: &Value) -> (&str, &str, u64) {
    (
        line["operation"].as_str().unwrap(),
        line["graph"].as_str().unwrap_or_default(),
        line["status"].as_u64().unwrap(),
    )
}

/// A new route that changes something and is forgotten where operations are named is found here.
#[tokio::test]
async fn every_route_that_changes_something_is_audited() {
    let agent = quiet(&[]).await;
    // These are no GET, and only read.
    let reads = [
        "POST /databases/{id}/query",
        "POST /databases/{id}/tables/query",
        "POST /databases/{id}/tables/{table}/vector/search",
        "POST /databases/{id}/semantic-memory/search",
        "POST /databases/{id}/semantic-memory/list",
        "POST /embeddings",
    ];
    // This is one, and takes a copy of all data.
    let not_only_reads = "GET /databases/{id}/backup";
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let routes: Vec<String> = paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect();
    for known in reads.iter().chain([&not_only_reads]) {
        assert!(routes.iter().any(|route| route == known), "{known} is no route");
    }
    let mut changes = BTreeSet::new();
    for (number, route) in routes.iter().enumerate() {
        let (method, path) = route.split_once(' ').unwrap();
        // Nothing has these names, so nothing happens: it is the attempt that counts.
        let request = agent
            .request(method.parse().unwrap(), &path.replace(['{', '}'], ""))
            .header("X-Request-Id", number.to_string());
        let request = if method == "GET" {
            request
        } else {
            request.json(&json!({}))
        };
        request.send().await.unwrap();
        if route == not_only_reads || method != "GET" && !reads.contains(&route.as_str()) {
            changes.insert(route.as_str());
        }
    }
    let lines = audited(&agent);
    let seen: BTreeSet<&str> = lines
        .iter()
        .map(|line| {
            let number: usize = line["request_id"].as_str().unwrap().parse().unwrap();
            assert_ne!(line["operation"], "other", "{} has no name", routes[number]);
            routes[number].as_str()
        })
        .collect();
    assert_eq!(seen, changes);
    assert_eq!(lines.len(), changes.len(), "a line for each");
}

#[tokio::test]
async fn a_change_whose_caller_went_away_is_audited() {
    let bucket = Bucket::start().await;
    let agent = quiet(&[
        "--query-timeout-seconds",
        "600",
        "--source-endpoint",
        bucket.url.as_str(),
    ])
    .await;
    agent.database("kg1", PEOPLE).await;

    // A statement, which is interrupted.
    let endless = "UNWIND range(1, 100000) AS a UNWIND range(1, 100000) AS b WITH a, b WHERE a * b = -1 \
        CREATE (:Person {identifier: a})";
    let statement = agent
        .request(Method::POST, "/databases/kg1/query")
        .json(&json!({"cypher": endless}));
    let statement = tokio::spawn(statement.send());
    agent.runs("kg1", 1).await;
    statement.abort();
    let lines = eventually(
        "the statement is audited",
        || async { audited(&agent) },
        |lines| lines.len() > 1,
    )
    .await;
    assert_eq!(told(&lines[1]), ("query", "kg1", 499));

    // A task, which goes on: the bucket never answers.
    let staging = agent.request(Method::POST, "/databases/kg1/tables").json(&json!({
        "table_name": "Person", "s3_pattern": "s3://lake/silent/people.parquet", "s3_credentials": {
            "aws_access_key_id": "a", "aws_secret_access_key": "s", "endpoint_url": bucket.url, "region": "us-east-1",
        },
    }));
    let staging = tokio::spawn(staging.send());
    let tasks = || async { agent.get("/tasks/queue/info").await.ok()["tasks"].clone() };
    let tasks = eventually("the task has begun", tasks, |tasks| tasks[0]["status"] == "running").await;
    staging.abort();
    let lines = eventually(
        "the task is audited",
        || async { audited(&agent) },
        |lines| lines.len() > 2,
    )
    .await;
    assert_eq!(told(&lines[2]), ("table_create", "kg1", 499));

    // Whose graph a task is about is known to the agent, though it is not in the path.
    let id = tasks[0]["task_id"].as_str().unwrap();
    agent.delete(&format!("/tasks/{id}")).await.ok();
    assert_eq!(told(&audited(&agent)[3]), ("task_cancel", "kg1", 200));
}
