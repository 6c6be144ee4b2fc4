//! Subgraphs that begin as a copy of their parent.

use crate::fixture::{Agent, Answer, PEOPLE, people};
use reqwest::Method;
use serde_json::{Value, json};

const PATH: &str = "/databases/kg1_dev/fork-from/kg1";
const COUNT: &str = "MATCH (p:Person) RETURN count(p)";

async fn parent(agent: &Agent) {
    agent.database("kg1", PEOPLE).await;
    let made = "UNWIND range(1, 300) AS i CREATE (:Person {identifier: i, name: 'p'})";
    agent.cypher("kg1", made).await.ok();
    let knows = "MATCH (a:Person), (b:Person) WHERE b.identifier = a.identifier + 1 CREATE (a)-[:KNOWS]->(b)";
    agent.cypher("kg1", knows).await.ok();
}

/// A fork that is not waited for.
async fn start(agent: &Agent, key: &str) -> Answer {
    let request = agent
        .request(Method::POST, PATH)
        .header("Prefer", "respond-async")
        .header("Idempotency-Key", key);
    Answer::to(request).await
}

/// Files below the directory of databases that are no database of the agent's list.
fn leftovers(agent: &Agent) -> Vec<String> {
    std::fs::read_dir(agent.volume().join("databases"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with('.'))
        .collect()
}

#[tokio::test]
async fn a_fork_has_what_its_parent_has_and_goes_its_own_way() {
    let mut agent = Agent::with(&["--max-databases", "1"]).await;
    parent(&agent).await;
    // The path of the contract; staging is not needed, and not copied.
    agent.put("/databases/kg1/tables/Person/files/f", people(5)).await.ok();
    let done = agent
        .post(
            "/databases/kg1_dev/tables/kg1_dev/fork-from/kg1",
            json!({"tables": [], "ignore_errors": true}),
        )
        .await
        .ok();
    assert_eq!(
        (&done["status"], &done["parent_graph_id"], &done["subgraph_id"]),
        (&json!("success"), &json!("kg1"), &json!("kg1_dev"))
    );
    assert_eq!(
        (&done["tables_copied"], &done["total_rows"]),
        (&json!(["Person", "KNOWS"]), &json!(599))
    );
    assert!(done["execution_time_ms"].is_number());
    let record = agent.task(done["task_id"].as_str().unwrap()).await;
    assert_eq!(
        (&record["task_type"], &record["status"], &record["result"]["node_count"]),
        (&json!("fork"), &json!("completed"), &json!(300))
    );
    let listed = agent.get("/tasks?task_type=fork&graph_id=kg1_dev").await.ok();
    assert_eq!(listed[0]["task_id"], done["task_id"]);
    assert_eq!(agent.get("/tasks?graph_id=kg1_other").await.ok(), json!([]));
    assert_eq!(agent.get("/databases/kg1_dev/tables").await.ok(), json!([]));

    agent
        .cypher("kg1_dev", "CREATE (:Person {identifier: 1000})")
        .await
        .ok();
    agent
        .cypher("kg1", "MATCH (p:Person) WHERE p.identifier <= 100 DETACH DELETE p")
        .await
        .ok();
    for (id, people) in [("kg1", 200), ("kg1_dev", 301)] {
        assert_eq!(agent.number(id, COUNT).await, people);
    }
    agent.restart_after_kill().await;
    for (id, people) in [("kg1", 200), ("kg1_dev", 301)] {
        assert_eq!(agent.number(id, COUNT).await, people, "{id} after a crash");
    }
    agent.delete("/databases/kg1_dev").await.ok();
    assert_eq!(agent.number("kg1", COUNT).await, 200);
}

#[tokio::test]
async fn a_repeated_fork_changes_nothing() {
    let agent = Agent::start().await;
    parent(&agent).await;
    let first = start(&agent, "one").await;
    assert_eq!(first.status.as_u16(), 202, "{}", first.text);
    let id = first.json()["task_id"].clone();
    assert_eq!(agent.task(id.as_str().unwrap()).await["status"], "completed");
    agent
        .cypher("kg1_dev", "CREATE (:Person {identifier: 1000})")
        .await
        .ok();
    // The same key finds what was done, waiting or not; without it the database is in the way.
    assert_eq!(start(&agent, "one").await.ok()["task_id"], id);
    let again = agent.request(Method::POST, PATH).header("Idempotency-Key", "one");
    let again = Answer::to(again).await.ok();
    assert_eq!((&again["task_id"], &again["total_rows"]), (&id, &json!(599)));
    start(&agent, "two").await.fails(409);
    let refused = agent.post(PATH, json!({})).await.fails(409);
    assert!(refused.as_str().unwrap().contains("kg1_dev"), "{refused}");
    assert_eq!(agent.number("kg1_dev", COUNT).await, 301);
    // A database that was deleted is forked anew.
    agent.delete("/databases/kg1_dev").await.ok();
    let anew = start(&agent, "one").await.ok()["task_id"].clone();
    assert_ne!(anew, id);
    assert_eq!(agent.task(anew.as_str().unwrap()).await["status"], "completed");
    assert_eq!(agent.number("kg1_dev", COUNT).await, 300);
}

#[tokio::test]
async fn a_database_without_content_makes_place() {
    let agent = Agent::start().await;
    parent(&agent).await;
    // As the contract's clients do it: the database first, with the parent's schema.
    agent.database("kg1_dev", PEOPLE).await;
    agent.post(PATH, json!({})).await.ok();
    assert_eq!(agent.number("kg1_dev", COUNT).await, 300);
    agent
        .database("kg1_own", "CREATE NODE TABLE Own(x INT64 PRIMARY KEY);")
        .await;
    agent
        .post("/databases/kg1_own/fork-from/kg1", json!({}))
        .await
        .fails(409);
    agent.cypher("kg1_own", "CREATE (:Own {x: 1})").await.ok();
    assert_eq!(leftovers(&agent), Vec::<String>::new());
}

#[tokio::test]
async fn a_fork_may_have_some_of_the_tables() {
    let agent = Agent::start().await;
    parent(&agent).await;
    agent
        .post(
            "/databases/kg1/schema",
            json!({"type": "ddl", "ddl": "CREATE NODE TABLE City(name STRING PRIMARY KEY);
                CREATE REL TABLE LIVES(FROM Person TO City);"}),
        )
        .await
        .ok();
    let done = agent.post(PATH, json!({"tables": ["Person", "KNOWS"]})).await.ok();
    assert_eq!(
        (&done["tables_copied"], &done["total_rows"]),
        (&json!(["Person", "KNOWS"]), &json!(599))
    );
    let names: Vec<Value> = agent.get("/databases/kg1_dev/schema").await.ok()["tables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|table| table["name"].clone())
        .collect();
    assert_eq!(names, ["Person", "KNOWS"]);
    assert_eq!(
        agent.number("kg1_dev", "MATCH ()-[k:KNOWS]->() RETURN count(k)").await,
        299
    );
    for tables in [json!(["LIVES", "Person"]), json!(["Absent"]), json!(["a;b"])] {
        agent
            .post("/databases/kg1_x/fork-from/kg1", json!({"tables": tables}))
            .await
            .fails(400);
        agent.get("/databases/kg1_x").await.fails(404);
    }
    assert_eq!(leftovers(&agent), Vec::<String>::new());
}

#[tokio::test]
async fn wrong_requests_are_refused() {
    let agent = Agent::start().await;
    parent(&agent).await;
    for (path, body, status) in [
        ("/databases/kg2_dev/fork-from/kg2", json!({}), 404),
        ("/databases/kg2/fork-from/kg1", json!({}), 400),
        ("/databases/kg1/fork-from/kg1", json!({}), 400),
        ("/databases/kg1/fork-from/kg1_dev", json!({}), 400),
        ("/databases/kg1_a_b/fork-from/kg1", json!({}), 400),
        ("/databases/kg1_aaaaaaaaaaaaaaaaaaaaa/fork-from/kg1", json!({}), 400),
        ("/databases/kg1_a%2fb/fork-from/kg1", json!({}), 400),
        ("/databases/kg1_dev/tables/Person/fork-from/kg1", json!({}), 400),
        (PATH, json!({"surplus": 1}), 422),
        (PATH, json!({"tables": "Person"}), 422),
    ] {
        agent.post(path, body).await.fails(status);
    }
    agent.post("/admin/drain?wait_seconds=30", json!({})).await.ok();
    assert_eq!(agent.post(PATH, json!({})).await.fails(503)["reason"], "draining");
    agent.get("/databases/kg1_dev").await.fails(404);
}

#[tokio::test]
async fn readers_of_the_parent_go_on() {
    let agent = Agent::with(&["--query-timeout-seconds", "600"]).await;
    parent(&agent).await;
    let slow = "MATCH (a:Person), (b:Person), (c:Person), (d:Person) \
                WHERE a.identifier + b.identifier + c.identifier + d.identifier = -1 RETURN count(*)";
    let request = agent
        .request(Method::POST, "/databases/kg1/query")
        .json(&json!({"cypher": slow}));
    let reader = tokio::spawn(async move { request.send().await });
    agent.runs("kg1", 1).await;
    agent.post(PATH, json!({})).await.ok();
    assert!(
        !reader.is_finished(),
        "the reader was stopped, or the query is too quick for this test"
    );
    assert_eq!(agent.number("kg1_dev", COUNT).await, 300);
    reader.abort();
}

async fn large_parent(agent: &Agent) {
    agent.database("kg1", PEOPLE).await;
    agent
        .put("/databases/kg1/tables/Person/files/f", people(1_000_000))
        .await
        .ok();
    agent
        .post("/databases/kg1/tables/Person/materialize", json!({}))
        .await
        .ok();
}

#[tokio::test]
async fn a_fork_that_was_cut_off_does_not_exist() {
    let mut agent = Agent::start().await;
    large_parent(&agent).await;
    let id = start(&agent, "k").await.ok()["task_id"].as_str().unwrap().to_owned();
    agent.restart_after_kill().await;
    let record = agent.get(&format!("/tasks/{id}/status")).await.ok();
    let there = agent.get("/databases/kg1_dev").await.status.is_success();
    if record["status"] == "completed" {
        assert!(there, "{record}");
    } else {
        assert!(
            record["error"].as_str().unwrap().starts_with("interrupted by restart"),
            "{record}"
        );
    }
    assert_eq!(leftovers(&agent), Vec::<String>::new());
    if there {
        // Cut off after the file had its name.
        assert_eq!(agent.number("kg1_dev", COUNT).await, 1_000_000);
        return;
    }
    let again = start(&agent, "k").await.ok();
    let record = agent.task(again["task_id"].as_str().unwrap()).await;
    assert_eq!(record["status"], "completed", "{record}");
    assert_eq!(agent.number("kg1_dev", COUNT).await, 1_000_000);
}

#[tokio::test]
async fn a_cancelled_fork_leaves_nothing() {
    let agent = Agent::start().await;
    large_parent(&agent).await;
    let id = start(&agent, "k").await.ok()["task_id"].as_str().unwrap().to_owned();
    // It may have ended already.
    let cancelled = agent.delete(&format!("/tasks/{id}")).await.status.is_success();
    let record = agent.task(&id).await;
    let there = agent.get("/databases/kg1_dev").await.status.is_success();
    assert_eq!(there, record["status"] == "completed", "{record}");
    assert!(there || cancelled);
    assert_eq!(leftovers(&agent), Vec::<String>::new());
    assert_eq!(agent.number("kg1", COUNT).await, 1_000_000);
    agent.cypher("kg1", "CREATE (:Person {identifier: -1})").await.ok();
}
