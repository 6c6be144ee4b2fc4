//! The semantic memory of a graph: rows that are added, found, changed and forgotten one by one.

use crate::fixture::Agent;
use reqwest::Method;
use serde_json::{Value, json};

const ROWS: &str = "/databases/kg1/semantic-memory/rows";
const SEARCH: &str = "/databases/kg1/semantic-memory/search";
const LIST: &str = "/databases/kg1/semantic-memory/list";

async fn graph() -> Agent {
    let agent = Agent::start().await;
    agent.database("kg1", "CREATE NODE TABLE A(id INT64 PRIMARY KEY)").await;
    agent
}

fn id(number: u64) -> String {
    format!("mem_{number:032x}")
}

/// A vector that points mostly along one of the axes.
fn vector(axis: usize) -> Vec<f64> {
    (0..384).map(|at| if at == axis { 1.0 } else { 0.01 }).collect()
}

fn record(number: u64, kind: &str) -> Value {
    json!({
        "id": id(number), "vector": vector(number as usize), "text": format!("memory {number}"), "memory_type": kind,
        "source": "chat", "created_by": "user", "created_at_ms": 1000 + number, "tags": [format!("t{number}"), "all"],
        "source_ref": "ref", "provenance": "{\"a\":1}",
    })
}

async fn patch(agent: &Agent, number: u64, body: Value) -> crate::fixture::Answer {
    let request = agent.request(Method::PATCH, &format!("{ROWS}/{}", id(number)));
    crate::fixture::Answer::to(request.json(&body)).await
}

fn ids(answer: &Value) -> Vec<&str> {
    answer["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["id"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_memory_lives_from_its_making_to_its_end() {
    let mut agent = graph().await;
    // Nothing was ever remembered.
    assert_eq!(
        agent.post(LIST, json!({})).await.ok(),
        json!({"results": [], "total": 0})
    );
    assert_eq!(
        agent.post(SEARCH, json!({"embedding": vector(0)})).await.ok()["total"],
        0
    );
    agent.get(&format!("{ROWS}/{}", id(1))).await.fails(404);
    assert_eq!(
        patch(&agent, 1, json!({"source": "x"})).await.ok(),
        json!({"id": id(1), "updated": false})
    );
    assert_eq!(
        agent.delete(&format!("{ROWS}/{}", id(1))).await.ok(),
        json!({"deleted": false})
    );

    let records: Vec<Value> = (0..20)
        .map(|n| record(n, if n % 2 == 0 { "fact" } else { "event" }))
        .collect();
    let added = agent.post(ROWS, json!({"records": records})).await.ok();
    assert_eq!((&added["added"], &added["total"]), (&json!(20), &json!(20)));
    let one = agent.get(&format!("{ROWS}/{}", id(7))).await.ok();
    let expected = json!({
        "id": id(7), "text": "memory 7", "created_at_ms": 1007, "updated_at_ms": 1007, "created_by": "user",
        "source": "chat", "memory_type": "event", "tags": ["t7", "all"], "source_ref": "ref", "provenance": "{\"a\":1}",
    });
    assert_eq!(one, expected);

    let found = agent.post(SEARCH, json!({"embedding": vector(7)})).await.ok();
    assert_eq!((ids(&found)[0], &found["total"]), (id(7).as_str(), &json!(10)));
    assert!(found["results"][0]["distance"].as_f64().unwrap() < 1e-5, "{found}");
    assert!(found["results"][0].get("vector").is_none());
    let facts = json!({"embedding": vector(7), "limit": 100, "where": "memory_type = 'fact'", "select_columns": ["id", "vector"]});
    let found = agent.post(SEARCH, facts).await.ok();
    assert_eq!(found["total"], 10);
    let mut keys: Vec<&String> = found["results"][0].as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(keys, ["distance", "id"], "raw vectors never leave");

    let page = agent
        .post(LIST, json!({"where": "memory_type = 'event'", "limit": 3, "offset": 8}))
        .await
        .ok();
    assert_eq!(
        (&page["total"], ids(&page)),
        (&json!(10), vec![id(17).as_str(), id(19).as_str()])
    );
    let tagged = agent
        .post(LIST, json!({"where": "array_has(tags, 't5') OR created_at_ms >= 1019"}))
        .await
        .ok();
    assert_eq!(ids(&tagged), [id(5), id(19)]);

    let change = json!({"vector": vector(200), "text": "other", "source": null});
    assert_eq!(patch(&agent, 7, change).await.ok()["updated"], true);
    let one = agent.get(&format!("{ROWS}/{}", id(7))).await.ok();
    assert_eq!(
        (&one["text"], &one["source"], &one["memory_type"]),
        (&json!("other"), &Value::Null, &json!("event"))
    );
    assert!(one["updated_at_ms"].as_i64().unwrap() > 1_600_000_000_000);
    let found = agent
        .post(SEARCH, json!({"embedding": vector(200), "limit": 1}))
        .await
        .ok();
    assert_eq!(ids(&found), [id(7)]);

    assert_eq!(agent.delete(&format!("{ROWS}/{}", id(7))).await.ok()["deleted"], true);
    agent.get(&format!("{ROWS}/{}", id(7))).await.fails(404);
    assert_eq!(
        patch(&agent, 7, json!({"source": "again"})).await.ok()["updated"],
        false
    );
    assert_eq!(agent.post(LIST, json!({})).await.ok()["total"], 19);
    agent.restart_after_kill().await;
    assert_eq!(agent.post(LIST, json!({})).await.ok()["total"], 19);
    // Its table of vectors would not be in its way.
    agent.get("/databases/kg1/tables/memory/vector").await.ok();
    agent.delete("/databases/kg1").await.ok();
    agent.post(LIST, json!({})).await.fails(404);
}

#[tokio::test]
async fn every_acknowledged_memory_is_there_after_a_kill() {
    let mut agent = graph().await;
    // Enough changes for small files to be joined on the way; several callers at a time.
    for round in 0..9 {
        let adding = (0..8).map(|n| {
            let body = json!({"records": [record(round * 8 + n, "fact")]});
            let agent = &agent;
            async move { agent.post(ROWS, body).await.ok() }
        });
        futures::future::join_all(adding).await;
    }
    agent.restart_after_kill().await;
    let all = agent.post(LIST, json!({"limit": 500})).await.ok();
    let mut found = ids(&all);
    found.sort_unstable();
    assert_eq!(found, (0..72).map(id).collect::<Vec<_>>());
    let files = std::fs::read_dir(agent.volume().join("vectors/kg1")).unwrap().flatten();
    let table = files.map(|entry| entry.path()).find(|path| path.is_dir()).unwrap();
    assert!(table.join("data").is_dir());
    let found = agent
        .post(SEARCH, json!({"embedding": vector(71), "limit": 1}))
        .await
        .ok();
    assert_eq!(ids(&found), [id(71)]);
}

#[tokio::test]
async fn what_is_no_memory_is_refused() {
    let agent = graph().await;
    agent.post(ROWS, json!({"records": [record(1, "fact")]})).await.ok();
    // All or none.
    let taken = agent
        .post(ROWS, json!({"records": [record(2, "fact"), record(1, "fact")]}))
        .await
        .fails(409);
    assert!(taken.as_str().unwrap().contains(&id(1)), "{taken}");
    agent
        .post(ROWS, json!({"records": [record(2, "fact"), record(2, "fact")]}))
        .await
        .fails(400);
    let with = |field: &str, value: Value| {
        let mut record = record(3, "fact");
        record[field] = value;
        json!({"records": [record]})
    };
    for body in [
        with("id", json!("mem_1")),
        with("id", json!("mem_' OR 1=1")),
        with("vector", json!([1, 2, 3])),
        with("text", Value::Null),
        with("text", json!("x".repeat(70_000))),
        with("tags", json!(vec!["t"; 101])),
        with("created_at_ms", json!("yesterday")),
        with("surplus", json!(1)),
        json!({"records": []}),
        json!({"records": vec![json!({"text": "x"}); 1001]}),
        json!({}),
    ] {
        agent.post(ROWS, body).await.fails(422);
    }
    agent.post(ROWS, with("vector", json!(vec![0.0; 384]))).await.fails(400);
    agent
        .post(ROWS, with("vector", json!(vec![1e300; 384])))
        .await
        .fails(400);
    agent.post(LIST, json!({"limit": 501})).await.fails(422);
    agent.post(LIST, json!({"offset": -1})).await.fails(422);
    agent
        .post(SEARCH, json!({"embedding": vector(1), "limit": 101}))
        .await
        .fails(422);
    agent.post(SEARCH, json!({"embedding": [1.0]})).await.fails(422);
    agent.post(SEARCH, json!({})).await.fails(422);
    agent
        .post(SEARCH, json!({"embedding": vector(1), "select_columns": ["nothing"]}))
        .await
        .fails(400);
    for condition in [
        "1 = 1",
        "id = id",
        "memory_type = 'fact' OR 1=1",
        "length(text) > 0",
        "vector IS NOT NULL AND nothing = 1",
        "text LIKE text",
        "created_at_ms > 'x'",
        "memory_type = 'fact'; DELETE FROM memory",
    ] {
        agent.post(LIST, json!({"where": condition})).await.fails(400);
        agent
            .post(SEARCH, json!({"embedding": vector(1), "where": condition}))
            .await
            .fails(400);
    }
    agent.get(&format!("{ROWS}/mem_1")).await.fails(400);
    agent.delete(&format!("{ROWS}/mem_1")).await.fails(400);
    assert_eq!(agent.post(LIST, json!({})).await.ok()["total"], 1);
    // Missing graphs have no memory.
    agent
        .post("/databases/kg9/semantic-memory/list", json!({}))
        .await
        .fails(404);
}

#[tokio::test]
async fn a_text_without_a_vector_needs_a_model() {
    let agent = graph().await;
    let told = agent
        .post(ROWS, json!({"records": [{"text": "hello"}]}))
        .await
        .fails(501);
    assert!(told.as_str().unwrap().contains("vector"), "{told}");
    agent.post(SEARCH, json!({"text": "hello"})).await.fails(501);
    agent.post(ROWS, json!({"records": [record(1, "fact")]})).await.ok();
    patch(&agent, 1, json!({"text": "other"})).await.fails(501);
    assert_eq!(agent.get(&format!("{ROWS}/{}", id(1))).await.ok()["text"], "memory 1");
}
