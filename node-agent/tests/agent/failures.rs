//! What callers are told when the volume fails: which file of which database, and not where on the machine it is.

use crate::fixture::{Agent, Answer, PEOPLE, people};
use reqwest::Method;
use serde_json::json;
use std::path::Path;
use tempfile::TempDir;

/// Puts a file where a directory is or would be: what even the owner of all files cannot use.
fn spoil(path: &Path) {
    if path.is_dir() {
        std::fs::remove_dir_all(path).unwrap();
    }
    std::fs::write(path, "no directory").unwrap();
}

#[tokio::test]
async fn no_failure_tells_where_the_volume_is() {
    let root = TempDir::new().unwrap();
    let mut agent = Agent::with_store(root.path(), &[]).await;
    for id in ["kg1", "kg2", "kg3"] {
        agent.database(id, PEOPLE).await;
        let path = format!("/databases/{id}/tables/Person/files/f");
        agent.put(&path, people(10)).await.ok();
    }
    let body = json!({"query": "SELECT identifier, [1.0, 2.0]::FLOAT[] AS vector FROM Person"});
    let built = agent
        .post("/databases/kg1/tables/Person/vector/build", body.clone())
        .await;
    let built = built.ok();
    if let Some(task) = built["task_id"].as_str() {
        agent.task(task).await;
    }
    assert!(agent.terminate().await.success());
    let volume = agent.volume();
    // A graph that is none, staging that is none, and no place for anything.
    std::fs::write(
        volume.join("databases/kg1.lbug"),
        "no graph at all, but long enough for a header",
    )
    .unwrap();
    std::fs::write(volume.join("staging/kg2.duckdb"), vec![b'x'; 1 << 14]).unwrap();
    agent.spawn().await;
    for name in ["staging/kg3.incoming", "tmp", "vectors/kg1"] {
        spoil(&volume.join(name));
    }
    for name in ["databases/.creating-kg4.lbug", "databases/.creating-kg3_a.lbug"] {
        std::fs::create_dir(volume.join(name)).unwrap();
    }

    let directory = volume.canonicalize().unwrap().display().to_string();
    let mut told: Vec<String> = Vec::new();
    for id in ["kg1", "kg2", "kg3"] {
        let at = |rest: &str| format!("/databases/{id}/{rest}");
        let query = json!({"cypher": "MATCH (p:Person) RETURN count(p)"});
        let sql = json!({"sql": "SELECT count(*) FROM Person"});
        let streamed = agent
            .request(Method::POST, &at("query"))
            .header("Accept", "application/x-ndjson")
            .json(&query);
        let events = agent
            .request(Method::POST, &at("tables/query"))
            .header("Accept", "text/event-stream")
            .json(&sql);
        let answers = [
            agent.post(&at("query"), query.clone()).await,
            Answer::to(streamed).await,
            agent.get(&at("schema")).await,
            agent.get(&at("metrics")).await,
            agent.get(&at("tables")).await,
            agent.post(&at("tables/query"), sql.clone()).await,
            Answer::to(events).await,
            agent.put(&at("tables/Person/files/g"), people(1)).await,
            agent
                .post(&at("tables/execute"), json!({"sql": "DELETE FROM Person"}))
                .await,
            agent.post(&at("tables/Person/materialize"), json!({})).await,
            agent.post(&at("rebuild"), json!({})).await,
            agent.get(&at("tables/Person/vector")).await,
            agent
                .post(&at("tables/Person/vector/search"), json!({"embedding": [1.0, 2.0]}))
                .await,
            agent.post(&at("tables/Person/vector/build"), body.clone()).await,
            agent.get(&at("backup")).await,
            agent
                .post(&at("backup"), json!({"destination": {"key": format!("b/{id}")}}))
                .await,
            agent
                .post(&at("export"), json!({"destination": {"key": format!("e/{id}")}}))
                .await,
            agent.post(&at("swap"), json!({})).await,
        ];
        told.extend(answers.into_iter().filter_map(|answer| failure(&answer)));
    }
    let custom = json!({"graph_id": "kg4", "schema_type": "custom", "custom_schema_ddl": PEOPLE});
    told.extend(failure(&agent.post("/databases", custom).await));
    let fork = agent.post("/databases/kg3_a/fork-from/kg3", json!({})).await;
    told.extend(failure(&fork));
    for task in agent.get("/tasks").await.ok().as_array().unwrap() {
        let record = agent.task(task["task_id"].as_str().unwrap()).await;
        told.extend(record["error"].as_str().map(str::to_owned));
    }
    for text in &told {
        assert!(!text.contains(&directory), "{text}");
        assert!(!text.contains(directory.trim_start_matches('/')), "{text}");
    }
    // They did fail for these reasons, and say which file it was; the node's log has all of it.
    for part in ["staging/kg3.incoming", "kg1.lbug", "staging/kg2.duckdb"] {
        assert!(told.iter().any(|text| text.contains(part)), "{part}: {told:#?}");
    }
    assert!(agent.log().contains(&format!("{directory}/staging/kg3.incoming")));
}

/// The body of an answer that is no success, or that has an error in its stream.
fn failure(answer: &Answer) -> Option<String> {
    let is_stream = answer
        .header("content-type")
        .is_some_and(|kind| kind.starts_with("application/x-ndjson") || kind.starts_with("text/event-stream"));
    (!answer.status.is_success() || is_stream).then(|| answer.text.clone())
}
