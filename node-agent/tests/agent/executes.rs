//! Changes of staging tables by SQL, and loads whose rows only pass through staging.

use crate::fixture::{Agent, Answer, PEOPLE, acquaintances, eventually, parquet, people};
use futures::{StreamExt, stream};
use reqwest::{Body, Method};
use serde_json::{Value, json};
use tempfile::TempDir;

async fn execute(agent: &Agent, sql: &str) -> Answer {
    agent
        .post("/databases/kg1/tables/execute", json!({"graph_id": "kg1", "sql": sql}))
        .await
}

/// Rows of every staging table.
async fn staged(agent: &Agent) -> Value {
    let tables = agent.get("/databases/kg1/tables").await.ok();
    let rows = tables.as_array().unwrap().iter().map(|table| {
        let name = table["table_name"].as_str().unwrap().to_owned();
        (name, table["row_count"].clone())
    });
    rows.collect::<serde_json::Map<_, _>>().into()
}

#[tokio::test]
async fn staging_tables_are_changed_by_sql() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    agent.put("/databases/kg1/tables/Person/files/f", people(10)).await.ok();
    execute(
        &agent,
        "CREATE TABLE Late AS SELECT identifier, name FROM Person WHERE identifier > 4",
    )
    .await
    .ok();
    execute(&agent, "CREATE OR REPLACE VIEW Names AS SELECT name FROM Late")
        .await
        .ok();
    let inserted = execute(&agent, "INSERT INTO Late BY NAME SELECT 100 AS identifier, 'x' AS name")
        .await
        .ok();
    assert_eq!(
        (&inserted["rows_affected"], &inserted["rows"]),
        (&json!(1), &json!([[1]])),
        "{inserted}"
    );
    let updated = execute(&agent, "UPDATE Person SET name = 'y' WHERE identifier < 3")
        .await
        .ok();
    assert_eq!(updated["rows_affected"], 3);
    let body = json!({"sql": "DELETE FROM Person WHERE identifier >= ?", "parameters": [8]});
    let deleted = agent.post("/databases/kg1/tables/execute", body).await.ok();
    assert_eq!(deleted["rows_affected"], 2);
    assert_eq!(staged(&agent).await, json!({"Late": 6, "Person": 8}));
    let names = json!({"sql": "SELECT count(*) FROM Names"});
    assert_eq!(
        agent.post("/databases/kg1/tables/query", names).await.ok()["rows"],
        json!([[6]])
    );
    // A table that was made in this way is one like the others: files are added, and it becomes part of the graph.
    let more = parquet("SELECT 200 AS identifier, 'z' AS name, true AS flag");
    let added = agent.put("/databases/kg1/tables/Late/files/more", more).await.ok();
    assert_eq!(
        (&added["total_rows"], &added["kind"]),
        (&json!(7), &json!("node")),
        "{added}"
    );
    let done = agent
        .post("/databases/kg1/tables/Late/materialize", json!({"create_table": true}))
        .await
        .ok();
    assert_eq!(done["rows_ingested"], 7, "{done}");
    execute(&agent, "DROP VIEW Names").await.ok();
    execute(&agent, "ALTER TABLE Late RENAME TO Later").await.ok();
    execute(&agent, "ALTER TABLE Later DROP COLUMN flag").await.ok();
    execute(&agent, "DROP TABLE IF EXISTS Later").await.ok();

    for (sql, status) in [
        ("SELECT 1", 403),
        ("COPY Person TO '/tmp/x'", 403),
        ("CREATE TABLE T AS SELECT * FROM read_csv('/etc/passwd')", 403),
        ("CREATE TABLE T AS SELECT * FROM '/etc/passwd'", 400),
        ("DELETE FROM Person; DROP TABLE Person", 403),
        ("SET memory_limit = '1GB'", 403),
        ("CREATE TABLE T AS SELECT 5 AS file_id", 400),
        ("CREATE TABLE T AS SELECT 5 AS RowId", 400),
        ("ALTER TABLE Person ALTER file_id TYPE BLOB", 400),
        ("INSERT INTO Absent SELECT 1", 400),
        ("DELETE FROM", 403),
        ("", 400),
    ] {
        let refused = execute(&agent, sql).await;
        assert_eq!(refused.status.as_u16(), status, "{sql}: {}", refused.text);
    }
    assert_eq!(staged(&agent).await, json!({"Person": 8}));
}

#[tokio::test]
async fn columns_can_stay_behind_when_files_are_staged() {
    let imports = TempDir::new().unwrap();
    let agent = Agent::with(&["--import-dir", imports.path().to_str().unwrap()]).await;
    agent.database("kg1", PEOPLE).await;
    let file = imports.path().join("people.parquet");
    std::fs::write(&file, people(5)).unwrap();
    let body = |null_columns: Value| {
        json!({
            "table_name": "Person", "s3_pattern": format!("file://{}", file.display()), "deduplicate": true,
            "timeout_seconds": 60, "null_columns": null_columns,
        })
    };
    agent.post("/databases/kg1/tables", body(json!(["Score"]))).await.ok();
    let sql = json!({"sql": "SELECT count(name), count(score), any_value(typeof(score)) FROM Person"});
    let seen = agent.post("/databases/kg1/tables/query", sql).await.ok();
    assert_eq!(seen["rows"], json!([[5, 0, "DOUBLE"]]));
    agent
        .post("/databases/kg1/tables", body(json!(["absent"])))
        .await
        .fails(400);
}

#[tokio::test]
async fn the_rejected_rows_of_every_table_are_kept() {
    let bucket = crate::plane::Bucket::start().await;
    let rows = "SELECT * FROM (VALUES (1, 'a', 1.5::DOUBLE), (NULL, 'nobody', 2.5)) t(identifier, name, score)";
    bucket.put("run/nodes/Person/1.parquet", parquet(rows));
    let rows = "SELECT * FROM (VALUES (1, 1, 0.5::DOUBLE), (1, 999, 0.5)) t(\"from\", \"to\", weight)";
    bucket.put("run/relationships/KNOWS/1.parquet", parquet(rows));
    let envs = [
        ("GRAPH_API_KEY", crate::fixture::KEY),
        ("AWS_ENDPOINT_URL", bucket.url.as_str()),
        ("AWS_ACCESS_KEY_ID", "node"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "us-east-1"),
    ];
    let args = ["--source", "s3://lake/run"];
    let mut agent = Agent::launch(TempDir::new().unwrap(), &args, &envs).await;
    agent.database("kg1", PEOPLE).await;
    let body = json!({
        "mode": "async", "pipeline_run_id": "r1", "bucket": "lake",
        "files": ["run/nodes/Person/1.parquet", "run/relationships/KNOWS/1.parquet"],
    });
    let started = agent.post("/databases/kg1/ingest", body).await.ok();
    let task = started["task_id"].as_str().unwrap().to_owned();
    let record = agent.task(&task).await;
    assert_eq!(
        (&record["status"], &record["result"]["rows_ingested"]),
        (&json!("completed"), &json!(2)),
        "{record}"
    );
    agent.restart_after_kill().await;
    for (table, reason) in [("Person", "null_keys"), ("KNOWS", "dangling")] {
        let path = format!("/databases/kg1/tables/{table}/rejected?task={task}");
        let lines = agent.get(&path).await.lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0]["reason"], reason);
    }
    let path = format!("/databases/kg1/tables/Other/rejected?task={task}");
    agent.get(&path).await.fails(404);
    assert_eq!(staged(&agent).await, json!({}));
}

#[tokio::test]
async fn rows_of_a_load_that_was_cut_do_not_stay_in_staging() {
    let imports = TempDir::new().unwrap();
    let mut agent = Agent::with(&["--import-dir", imports.path().to_str().unwrap()]).await;
    agent.database("kg1", PEOPLE).await;
    agent
        .put("/databases/kg1/tables/Person/files/own", people(5))
        .await
        .ok();
    agent
        .put("/databases/kg1/tables/Person/files/gp:load:mine", people(1))
        .await
        .fails(400);
    for (name, file) in [("Person", people(300_000)), ("KNOWS", acquaintances(5, 300_000))] {
        std::fs::write(imports.path().join(format!("{name}.parquet")), file).unwrap();
    }
    for table in ["Person", "KNOWS"] {
        let source = format!("file://{}/{table}.parquet", imports.path().display());
        let body = json!({"s3_pattern": source, "table_name": table});
        let task = agent.post("/databases/kg1/copy", body).await.ok()["task_id"].clone();
        // Once the rows are in staging, or all is done.
        let look = || async {
            let record = agent
                .get(&format!("/tasks/{}/status", task.as_str().unwrap()))
                .await
                .ok();
            (staged(&agent).await, record["status"].clone())
        };
        eventually("rows are staged", look, |(staged, status)| {
            staged[table].as_u64().is_some_and(|rows| rows > 5) || status == "completed"
        })
        .await;
        agent.restart_after_kill().await;
        assert_eq!(staged(&agent).await, json!({"Person": 5}), "after a load of {table}");
    }
}

#[tokio::test]
async fn nothing_replaces_a_graph_while_requests_change_its_staging() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    agent.database("kg1-wip", PEOPLE).await;
    let file = people(10);
    agent
        .put("/databases/kg1/tables/Person/files/own", file.clone())
        .await
        .ok();
    let refused = async || {
        for path in ["rebuild", "swap", "memory/restore", "memory/boost"] {
            let answer = agent.post(&format!("/databases/kg1/{path}"), json!({})).await;
            let said = answer.fails(409).to_string();
            assert!(said.contains("staging tables"), "{path}: {said}");
        }
    };
    let restore = || async {
        agent
            .post("/databases/kg1/memory/restore", json!({}))
            .await
            .status
            .as_u16()
    };

    // An upload that is on its way.
    let (go_on, gone_on) = tokio::sync::oneshot::channel::<()>();
    let (first, rest) = (file[..20].to_vec(), file[20..].to_vec());
    let parts = stream::once(async move { Ok::<_, std::io::Error>(first) }).chain(stream::once(async move {
        // Also if the sender is gone: the test has failed then.
        let _ = gone_on.await;
        Ok(rest)
    }));
    let upload = agent
        .request(Method::PUT, "/databases/kg1/tables/Person/files/f")
        .body(Body::wrap_stream(parts));
    let upload = tokio::spawn(async move { Answer::to(upload).await });
    eventually("the upload has begun", restore, |status| *status == 409).await;
    refused().await;
    go_on.send(()).unwrap();
    upload.await.unwrap().ok();
    agent.post("/databases/kg1/memory/restore", json!({})).await.ok();

    // A statement that does not end.
    let sql = "UPDATE Person SET name = 'x' WHERE (SELECT count(*) FROM range(1000000) a, range(1000000) b \
               WHERE a.range * b.range = -1) > 0";
    let statement = agent
        .request(Method::POST, "/databases/kg1/tables/execute")
        .json(&json!({"sql": sql}));
    let statement = tokio::spawn(statement.send());
    let look = || async { (restore().await, statement.is_finished()) };
    eventually("the statement runs", look, |(status, ended)| *status == 409 || *ended).await;
    refused().await;
    statement.abort();
    eventually("the statement has ended", restore, |status| *status == 200).await;
    agent.post("/databases/kg1/rebuild", json!({})).await.ok();
    assert_eq!(agent.number("kg1", "MATCH (p:Person) RETURN count(p)").await, 10);
}
