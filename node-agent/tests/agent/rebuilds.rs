//! Graphs that are replaced as a whole while they serve: rebuilt from staging, or by a successor.

use crate::fixture::{Agent, Answer, PEOPLE, acquaintances, people};
use reqwest::Method;
use serde_json::{Value, json};

const COUNT: &str = "MATCH (p:Person) RETURN count(p)";
const ROWS: u64 = 200_000;
/// A table with what only the schema knows.
const SCHEMA: &str =
    "CREATE NODE TABLE Person(identifier INT64 PRIMARY KEY, name STRING DEFAULT 'nobody', score DOUBLE);
     CREATE REL TABLE KNOWS(FROM Person TO Person, weight DOUBLE);
     CREATE NODE TABLE Empty(id SERIAL PRIMARY KEY, note STRING);
     CREATE REL TABLE OWNS(FROM Person TO Person, FROM Person TO Empty, MANY_ONE);
     COMMENT ON TABLE Person IS 'somebody';";

async fn stage(agent: &Agent, rows: u64) {
    for (table, file) in [("Person", people(rows)), ("KNOWS", acquaintances(rows, 1000))] {
        let path = format!("/databases/kg1/tables/{table}/files/f");
        agent.put(&path, file).await.ok();
    }
}

/// Starts a rebuild, and gives the id of its task.
async fn begin(agent: &Agent) -> String {
    let request = agent
        .request(Method::POST, "/databases/kg1/rebuild")
        .header("Prefer", "respond-async");
    let started = Answer::of(request.send().await.unwrap()).await;
    assert_eq!(started.status.as_u16(), 202, "{}", started.text);
    started.ok()["task_id"].as_str().unwrap().to_owned()
}

/// Whether a task has ended, from its file: also while no agent runs.
fn has_ended(agent: &Agent, task: &str) -> bool {
    let text = std::fs::read(agent.volume().join("tasks").join(format!("{task}.json"))).unwrap();
    let record: Value = serde_json::from_slice(&text).unwrap();
    record["completed_at"].is_string()
}

fn has(agent: &Agent, prefix: &str) -> bool {
    let entries = std::fs::read_dir(agent.volume().join("databases")).unwrap();
    entries
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
}

#[tokio::test]
async fn a_graph_is_rebuilt_from_its_staging_while_it_serves() {
    let mut agent = Agent::start().await;
    agent.database("kg1", SCHEMA).await;
    agent.cypher("kg1", "CREATE (:Person {identifier: -1})").await.ok();
    // What staging does not have would be lost.
    let refused = agent.post("/databases/kg1/rebuild", json!({})).await.fails(400);
    assert!(refused.as_str().unwrap().contains("Person has 1 rows"), "{refused}");
    stage(&agent, ROWS).await;
    agent.cypher("kg1", "CREATE (:Empty {note: 'numbered'})").await.ok();
    let refused = agent.post("/databases/kg1/rebuild", json!({})).await.fails(400);
    assert!(refused.as_str().unwrap().contains("Empty.id"), "{refused}");
    agent.cypher("kg1", "MATCH (e:Empty) DELETE e").await.ok();
    agent.cypher("kg1", "CREATE SEQUENCE s START 7").await.ok();
    agent.cypher("kg1", "RETURN nextval('s')").await.ok();
    agent.post("/databases/absent/rebuild", json!({})).await.fails(404);
    agent
        .post("/databases/kg1/rebuild", json!({"surplus": 1}))
        .await
        .fails(422);

    let task = begin(&agent).await;
    // Nothing changes the graph or its staging meanwhile.
    for (method, path) in [
        (Method::POST, "/databases/kg1/rebuild"),
        (Method::POST, "/databases/kg1/tables/Person/materialize"),
        (Method::DELETE, "/databases/kg1/tables/Person"),
    ] {
        let request = agent.request(method, path).json(&json!({}));
        let second = Answer::of(request.send().await.unwrap()).await;
        if !has_ended(&agent, &task) {
            assert_eq!(second.fails(409)["task_id"], task.as_str(), "{path}");
        }
    }
    let mut refused = 0;
    while !has_ended(&agent, &task) {
        let count = agent.number("kg1", COUNT).await;
        assert!(
            count == 1 || count == ROWS,
            "{count} rows of a graph that is not complete"
        );
        // A change, of nothing that is there.
        let write = agent
            .cypher("kg1", "MATCH (p:Person {identifier: -7}) SET p.name = 'x'")
            .await;
        if !write.status.is_success() {
            let why = write.fails(503);
            assert!(why["reason"].as_str().unwrap().contains("rebuilt"), "{why}");
            assert!(write.header("retry-after").is_some());
            refused += 1;
        }
    }
    assert!(refused > 0);
    let record = agent.task(&task).await;
    assert_eq!(record["status"], "completed", "{record}");
    let result = &record["result"];
    assert_eq!(
        (&result["rows_ingested"], &result["tables"][0]["table_name"]),
        (&json!(ROWS + 1000), &json!("Person")),
        "{result}"
    );
    agent.restart_after_kill().await;
    assert_eq!(agent.number("kg1", COUNT).await, ROWS);
    let known = "MATCH ()-[k:KNOWS]->() RETURN count(k)";
    assert_eq!(agent.number("kg1", known).await, 1000);
    // The schema is what it was, and the graph can be written again.
    let schema = agent.get("/databases/kg1/schema").await.ok();
    let tables = schema["tables"].as_array().unwrap();
    let person = tables.iter().find(|table| table["name"] == "Person").unwrap();
    assert_eq!((tables.len(), &person["comment"]), (4, &json!("somebody")), "{schema}");
    agent.cypher("kg1", "CREATE (:Person {identifier: -1})").await.ok();
    // Numbers go on where they were.
    for _ in 0..2 {
        agent.cypher("kg1", "CREATE (:Empty {note: 'x'})").await.ok();
    }
    assert_eq!(agent.number("kg1", "MATCH (e:Empty) RETURN min(e.id)").await, 1);
    assert_eq!(agent.number("kg1", "RETURN nextval('s')").await, 8);
    // And a person still owns one thing at most.
    let own = |id: u64| format!("MATCH (p:Person {{identifier: -1}}), (e:Empty {{id: {id}}}) CREATE (p)-[:OWNS]->(e)");
    agent.cypher("kg1", &own(1)).await.ok();
    let second = agent.cypher("kg1", &own(2)).await;
    assert!(!second.status.is_success(), "{}", second.text);
    let name = agent
        .cypher("kg1", "MATCH (p:Person {identifier: -1}) RETURN p.name")
        .await
        .ok();
    assert_eq!(name["data"][0]["p.name"], "nobody");
    assert_eq!(agent.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_rebuild_that_fails_leaves_the_old_graph_and_its_writers() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    let rows = "SELECT i AS identifier, 'x' AS name, 'no number' AS score FROM range(10) t(i)";
    let file = crate::fixture::parquet(rows);
    agent.put("/databases/kg1/tables/Person/files/f", file).await.ok();
    agent.cypher("kg1", "CREATE (:Person {identifier: -1})").await.ok();
    agent.post("/databases/kg1/rebuild", json!({})).await.fails(400);
    agent.cypher("kg1", "CREATE (:Person {identifier: -2})").await.ok();
    assert_eq!(agent.number("kg1", COUNT).await, 2);

    // And one that is cancelled.
    stage(&agent, ROWS).await;
    let task = begin(&agent).await;
    agent.delete(&format!("/tasks/{task}")).await.ok();
    let record = agent.task(&task).await;
    assert_eq!(record["status"], "cancelled", "{record}");
    agent.cypher("kg1", "CREATE (:Person {identifier: -3})").await.ok();
    assert_eq!(agent.number("kg1", COUNT).await, 3);
    assert_eq!(agent.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_rebuild_that_is_cut_leaves_the_old_graph_or_the_new_one() {
    let mut agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    stage(&agent, ROWS).await;
    agent.post("/databases/kg1/rebuild", json!({})).await.ok();
    for prefix in ["", ".creating-", ".swap-", ".previous-", ".never-"] {
        // The old graph has one more person.
        if agent.number("kg1", COUNT).await == ROWS {
            agent.cypher("kg1", "CREATE (:Person {identifier: -1})").await.ok();
        }
        let task = begin(&agent).await;
        while !has(&agent, prefix) && !has_ended(&agent, &task) {
            tokio::task::yield_now().await;
        }
        agent.restart_after_kill().await;
        let record = agent.get(&format!("/tasks/{task}/status")).await.ok();
        let count = agent.number("kg1", COUNT).await;
        match record["status"].as_str().unwrap() {
            "completed" => assert_eq!(count, ROWS),
            _ => {
                let error = record["error"].as_str().unwrap();
                assert!(error.starts_with("interrupted by restart"), "{error}");
                assert!(count == ROWS || count == ROWS + 1, "killed at {prefix}: {count}");
            }
        }
        assert_eq!(agent.leftovers(), Vec::<String>::new(), "killed at {prefix}");
    }
    agent.post("/databases/kg1/rebuild", json!({})).await.ok();
    assert_eq!(agent.number("kg1", COUNT).await, ROWS);
}

/// Makes `kg1-wip` and fills it from the staging tables of `kg1`, in parts.
async fn fill_successor(agent: &Agent, rows: u64) {
    agent.database("kg1-wip", PEOPLE).await;
    for (table, expected) in [("Person", rows), ("KNOWS", 1000)] {
        let path = format!("/databases/kg1-wip/tables/{table}/materialize");
        let mut taken = 0;
        for batch in 0..3 {
            let body = json!({"source_graph_id": "kg1", "batch_num": batch, "num_batches": 3});
            let done = agent.post(&path, body).await.ok();
            let part = done["rows_ingested"].as_u64().unwrap();
            assert!(part > 0 && part < expected, "batch {batch} of {table} has {part} rows");
            taken += part;
        }
        assert_eq!(taken, expected, "{table}");
    }
}

#[tokio::test]
async fn a_successor_takes_the_place_of_its_graph() {
    let mut agent = Agent::with(&["--max-databases", "1"]).await;
    agent.database("kg1", PEOPLE).await;
    stage(&agent, 5000).await;
    agent.cypher("kg1", "CREATE (:Person {identifier: -1})").await.ok();
    agent.post("/databases/kg1/swap", json!({})).await.fails(404);
    fill_successor(&agent, 5000).await;
    agent.post("/databases/kg1-wip/swap", json!({})).await.fails(400);
    for body in [
        json!({"source_graph_id": "kg1-wip"}),
        json!({"batch_num": 1}),
        json!({"batch_num": 3, "num_batches": 3}),
    ] {
        let refused = agent.post("/databases/kg1/tables/Person/materialize", body).await;
        refused.fails(400);
    }
    assert_eq!(agent.number("kg1", COUNT).await, 1);
    // Those who read meanwhile see one or the other, and no error.
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let ask = || {
                let body = json!({"cypher": COUNT, "database": "kg1"});
                agent.request(Method::POST, "/databases/kg1/query").json(&body)
            };
            let requests: Vec<_> = (0..50).map(|_| ask()).collect();
            tokio::spawn(async move {
                let mut seen = Vec::new();
                for request in requests {
                    let answer = Answer::of(request.send().await.unwrap()).await.ok();
                    let row = answer["data"][0].as_object().unwrap().clone();
                    seen.push(row.values().next().unwrap().as_u64().unwrap());
                }
                seen
            })
        })
        .collect();
    let request = agent
        .request(Method::POST, "/databases/kg1/swap")
        .header("X-Materialization-Lock-Token", "somebody's");
    let swapped = Answer::of(request.send().await.unwrap()).await.ok();
    assert_eq!(
        (&swapped["status"], &swapped["graph_id"]),
        (&json!("success"), &json!("kg1"))
    );
    for reader in readers {
        let seen = reader.await.unwrap();
        assert!(seen.iter().all(|count| [1, 5000].contains(count)), "{seen:?}");
        assert!(seen.is_sorted(), "{seen:?}");
    }
    agent.restart_after_kill().await;
    assert_eq!(agent.number("kg1", COUNT).await, 5000);
    agent.get("/databases/kg1-wip").await.fails(404);
    let tables = agent.get("/databases/kg1/tables").await.ok();
    assert_eq!(tables.as_array().unwrap().len(), 2, "{tables}");
    assert_eq!(agent.leftovers(), Vec::<String>::new());
    // A graph that is not there yet can be made in this way, too.
    agent.delete("/databases/kg1?preserve_duckdb=true").await.ok();
    agent.database("kg1-wip", PEOPLE).await;
    agent.post("/databases/kg1/swap", json!({})).await.ok();
    assert_eq!(agent.number("kg1", COUNT).await, 0);
}

#[tokio::test]
async fn a_swap_that_is_cut_leaves_both_graphs_or_the_new_one() {
    let mut agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    agent.cypher("kg1", "CREATE (:Person {identifier: 0})").await.ok();
    let mut old = 1;
    for prefix in ["kg1.lbug", ".swap-", ".previous-", ".never-"] {
        if agent.get("/databases/kg1-wip").await.status.is_success() {
            agent.delete("/databases/kg1-wip").await.ok();
        }
        let new = old + 10;
        agent.database("kg1-wip", PEOPLE).await;
        let fill = format!("UNWIND range(1, {new}) AS i CREATE (:Person {{identifier: i}})");
        agent.cypher("kg1-wip", &fill).await.ok();
        let request = agent.request(Method::POST, "/databases/kg1/swap");
        let swap = tokio::spawn(async move { request.send().await.is_ok() });
        while !has(&agent, prefix) && !swap.is_finished() {
            tokio::task::yield_now().await;
        }
        agent.restart_after_kill().await;
        let _ = swap.await;
        let count = agent.number("kg1", COUNT).await;
        let successor = agent.get("/databases/kg1-wip").await;
        if count == old {
            assert_eq!(agent.number("kg1-wip", COUNT).await, new, "killed at {prefix}");
        } else {
            assert_eq!(count, new, "killed at {prefix}");
            successor.fails(404);
            old = new;
        }
        assert_eq!(agent.leftovers(), Vec::<String>::new(), "killed at {prefix}");
    }
}

#[tokio::test]
async fn embeddings_stay_behind_unless_they_are_asked_for() {
    let agent = Agent::start().await;
    let schema = "CREATE NODE TABLE Text(identifier INT64 PRIMARY KEY, embedding FLOAT[2]);";
    agent.database("kg1", schema).await;
    let rows = crate::fixture::parquet("SELECT 1 AS identifier, [1.0, 2.0]::FLOAT[] AS embedding");
    agent.put("/databases/kg1/tables/Text/files/f", rows).await.ok();
    let path = "/databases/kg1/tables/Text/materialize";
    let done = agent.post(path, json!({})).await.ok();
    assert_eq!(done["filled_with_null"], json!(["embedding"]), "{done}");
    let read = "MATCH (t:Text) RETURN t.embedding AS e";
    assert_eq!(agent.cypher("kg1", read).await.ok()["data"][0]["e"], Value::Null);
    agent.cypher("kg1", "MATCH (t:Text) DELETE t").await.ok();
    let done = agent.post(path, json!({"materialize_embeddings": true})).await.ok();
    assert_eq!(done["rows_ingested"], 1, "{done}");
    assert_eq!(agent.cypher("kg1", read).await.ok()["data"][0]["e"], json!([1.0, 2.0]));
}

#[tokio::test]
async fn memory_is_lent_and_given_back() {
    let agent = Agent::with(&["--memory-mib", "2048", "--memory-per-database-mib", "128"]).await;
    agent.database("kg1", PEOPLE).await;
    agent.cypher("kg1", "CREATE (:Person {identifier: 1})").await.ok();
    let status = || async { agent.get("/databases/kg1/memory/status").await.ok() };
    assert_eq!(status().await["ladybug_boosted"], false);
    let boosted = agent
        .post("/databases/kg1/memory/boost", json!({"target": "ladybug"}))
        .await
        .ok();
    assert_eq!(
        (
            &boosted["ladybug_boosted"],
            &boosted["ladybug_boost_mb"],
            &boosted["duckdb_boosted"]
        ),
        (&json!(true), &json!(512), &json!(false)),
        "{boosted}"
    );
    let now = status().await;
    assert_eq!(
        (&now["ladybug_boost_mb"], &now["node_reserved_mb"]),
        (&json!(512), &json!(512))
    );
    assert_eq!(agent.number("kg1", COUNT).await, 1);
    let restored = agent.post("/databases/kg1/memory/restore", json!({})).await.ok();
    assert_eq!(
        (&restored["ladybug_restored"], &restored["duckdb_restored"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(agent.number("kg1", COUNT).await, 1);
    assert_eq!(status().await["node_reserved_mb"], 128);
    // What nobody uses is closed; what is not open cannot be.
    for expected in [true, false] {
        let released = agent
            .post("/databases/kg1/memory/release", json!({"target": "both"}))
            .await
            .ok();
        assert_eq!(released["ladybug_released"], expected, "{released}");
    }
    assert_eq!(status().await["node_reserved_mb"], 0);
    // A boost ends by itself.
    let body = json!({"target": "ladybug", "duration_seconds": 1});
    assert_eq!(
        agent.post("/databases/kg1/memory/boost", body).await.ok()["ladybug_boosted"],
        true
    );
    crate::fixture::eventually("the boost ends", status, |status| {
        status["ladybug_boosted"] == false && status["node_reserved_mb"] == 0
    })
    .await;
    agent.post("/databases/absent/memory/boost", json!({})).await.fails(404);
    agent
        .post("/databases/kg1/memory/boost", json!({"target": "gpu"}))
        .await
        .fails(422);
}
