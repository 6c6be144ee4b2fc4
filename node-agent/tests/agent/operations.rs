//! What clients of the contract call and its server never had: loads in one call, queues, connections, sizes.

use crate::fixture::{Agent, PEOPLE, acquaintances, parquet_at, people};
use serde_json::{Value, json};
use tempfile::TempDir;

fn write(dir: &TempDir, name: &str, bytes: Vec<u8>) -> String {
    std::fs::write(dir.path().join(name), bytes).unwrap();
    dir.path().canonicalize().unwrap().join(name).display().to_string()
}

async fn staged(agent: &Agent) -> Value {
    let tables = agent.get("/databases/kg1/tables").await.ok();
    let rows = |table: &Value| {
        (
            table["table_name"].as_str().unwrap().to_owned(),
            table["row_count"].clone(),
        )
    };
    tables
        .as_array()
        .unwrap()
        .iter()
        .map(rows)
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[tokio::test]
async fn files_go_into_the_graph_and_leave_staging_as_it_was() {
    let imports = TempDir::new().unwrap();
    let agent = Agent::with(&["--import-dir", imports.path().to_str().unwrap()]).await;
    agent.database("kg1", PEOPLE).await;
    let nodes = write(&imports, "people.parquet", people(1000));
    let rels = write(&imports, "knows.parquet", acquaintances(1000, 1500));
    // Staged by the caller, and no part of what follows.
    parquet_at(
        &imports.path().join("own.parquet"),
        "SELECT 5000 AS identifier, 'own' AS name, 1.0::DOUBLE AS score",
    );
    let own = std::fs::read(imports.path().join("own.parquet")).unwrap();
    agent.put("/databases/kg1/tables/Person/files/own", own).await.ok();

    let body =
        json!({"mode": "sync", "priority": 5, "ignore_errors": true, "file_path": nodes, "table_name": "Person"});
    let done = agent.post("/databases/kg1/ingest", body.clone()).await.ok();
    assert_eq!(
        (&done["status"], &done["records_loaded"], &done["rows_ingested"]),
        (&json!("success"), &json!(1000), &json!(1000))
    );
    assert_eq!(done["tables"][0]["table_name"], "Person");
    assert_eq!(staged(&agent).await, json!({"Person": 1}));

    let copy = json!({"s3_pattern": format!("file://{rels}"), "table_name": "KNOWS", "ignore_errors": false});
    let answer = agent.post("/databases/kg1/copy", copy).await;
    assert_eq!(answer.status.as_u16(), 202);
    let started = answer.ok();
    assert_eq!(started["status"], "started");
    let task = agent.task(started["task_id"].as_str().unwrap()).await;
    assert_eq!(
        (&task["status"], &task["task_type"]),
        (&json!("completed"), &json!("ingestion"))
    );
    let loaded = task["result"]["records_loaded"].as_u64().unwrap();
    assert_eq!(
        agent.number("kg1", "MATCH ()-[k:KNOWS]->() RETURN count(k)").await,
        loaded
    );
    assert!(loaded > 0);
    assert_eq!(staged(&agent).await, json!({"Person": 1}));

    // Again: everything is there already.
    let again = agent.post("/databases/kg1/ingest", body).await.ok();
    assert_eq!(again["records_loaded"], 0);
    assert_eq!(agent.number("kg1", "MATCH (p:Person) RETURN count(p)").await, 1000);

    let outside = json!({"file_path": "/etc/hostname", "table_name": "Person"});
    agent.post("/databases/kg1/ingest", outside).await.fails(403);
    assert_eq!(staged(&agent).await, json!({"Person": 1}));
    agent
        .post(
            "/databases/absent/copy",
            json!({"s3_pattern": "s3://b/x", "table_name": "T"}),
        )
        .await
        .fails(404);
    agent
        .post("/databases/kg1/ingest", json!({"mode": "async"}))
        .await
        .fails(422);
}

#[tokio::test]
async fn files_are_added_to_a_staging_table() {
    let imports = TempDir::new().unwrap();
    let agent = Agent::with(&["--import-dir", imports.path().to_str().unwrap()]).await;
    agent.database("kg1", PEOPLE).await;
    let first = format!("file://{}", write(&imports, "first.parquet", people(10)));
    let second = format!("file://{}", write(&imports, "second.parquet", people(7)));
    agent
        .post(
            "/databases/kg1/tables",
            json!({"table_name": "Person", "s3_pattern": first}),
        )
        .await
        .ok();
    let path = "/databases/kg1/tables/Person/insert";
    for _ in 0..2 {
        let added = agent.post(path, json!({"s3_pattern": [second.clone()]})).await.ok();
        assert_eq!(added["row_count"], 17, "the same file twice is there once");
        let task = added["task_id"].as_str().unwrap();
        assert_eq!(added["sse_url"], format!("/tasks/{task}/monitor"));
        assert_eq!(agent.task(task).await["result"]["row_count"], 17);
    }
    agent
        .post(path, json!({"s3_pattern": second, "table_name": "Other"}))
        .await
        .fails(400);
}

#[tokio::test]
async fn queues_connections_and_sizes_are_shown() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    agent.database("kg1_dev", PEOPLE).await;
    agent.database("kg12", PEOPLE).await;
    let storage = agent.get("/databases/kg1/storage").await.ok();
    let items = storage["items"].as_array().unwrap();
    let kinds: Vec<_> = items
        .iter()
        .map(|item| (item["type"].as_str().unwrap(), item["id"].as_str().unwrap()))
        .collect();
    assert_eq!(kinds, [("graph", "kg1"), ("subgraph", "kg1_dev")]);
    let sum: u64 = items.iter().map(|item| item["bytes"].as_u64().unwrap()).sum();
    assert_eq!(storage["total_bytes"].as_u64().unwrap(), sum);
    assert!(sum > 0);
    agent.get("/databases/absent/storage").await.fails(404);

    let queue = agent.get("/tasks/queue/info").await.ok();
    assert_eq!((&queue["queue_depth"], &queue["active_tasks"]), (&json!(0), &json!(0)));
    assert_eq!(queue["tasks"], json!([]));

    let idle = agent.get("/admin/connections").await.ok();
    assert_eq!(
        (&idle["active_connections"], &idle["databases"]),
        (&json!(0), &json!([]))
    );
    let slow = agent
        .request(reqwest::Method::POST, "/databases/kg1/query")
        .json(&json!({"cypher": "UNWIND range(1, 20000) AS a UNWIND range(1, 20000) AS b WITH a, b WHERE a * b = 7 RETURN count(*)"}));
    let slow = tokio::spawn(async move { slow.send().await.map(|response| response.status()) });
    let connections = || async { agent.get("/admin/connections").await.ok() };
    crate::fixture::eventually("the query is shown", connections, |busy| {
        busy["databases"] == json!([{"graph_id": "kg1", "active": 1, "waiting": 0}]) && busy["active_queries"] == 1
    })
    .await;
    slow.abort();
    crate::fixture::eventually("its place is free again", connections, |busy| {
        busy["active_connections"] == 0
    })
    .await;

    // What staging does is counted, too, and told apart.
    let sql = "SELECT a.i FROM range(3000000) a(i), range(3000000) b(i) WHERE a.i * b.i = -1";
    let slow = agent
        .request(reqwest::Method::POST, "/databases/kg1/tables/query")
        .json(&json!({"sql": sql}));
    let slow = tokio::spawn(async move { slow.send().await.map(|response| response.status()) });
    crate::fixture::eventually("the query of staging is shown", connections, |busy| {
        busy["active_queries"] == 1
    })
    .await;
    let metrics = agent.bare(reqwest::Method::GET, "/metrics").send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    for (engine, running) in [("ladybug", 0), ("duckdb", 1), ("lance", 0)] {
        let line = format!("graphplane_agent_active_queries{{engine=\"{engine}\"}} {running}");
        assert!(metrics.contains(&line), "{line}");
    }
    slow.abort();
    crate::fixture::eventually("nothing runs", connections, |busy| busy["active_queries"] == 0).await;
}
