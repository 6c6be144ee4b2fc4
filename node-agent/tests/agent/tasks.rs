//! Tasks: started, followed, cancelled, and told honestly after a crash.

use crate::fixture::{Agent, Answer, PEOPLE, people};
use reqwest::Method;
use serde_json::{Value, json};

/// A materialise that is not waited for.
async fn start(agent: &Agent, table: &str) -> Answer {
    let request = agent
        .request(Method::POST, &format!("/databases/kg1/tables/{table}/materialize"))
        .header("Prefer", "respond-async")
        .json(&json!({}));
    Answer::to(request).await
}

#[tokio::test]
async fn a_task_is_listed_and_followed() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    agent
        .put("/databases/kg1/tables/Person/files/f", people(20_000))
        .await
        .ok();
    let started = start(&agent, "Person").await;
    assert_eq!(started.status.as_u16(), 202);
    let started = started.json();
    let id = started["task_id"].as_str().unwrap();
    assert_eq!(
        (&started["status"], &started["sse_url"]),
        (&json!("started"), &json!(format!("/tasks/{id}/monitor")))
    );

    let events = agent.get(&format!("/tasks/{id}/monitor")).await;
    assert!(events.header("content-type").unwrap().starts_with("text/event-stream"));
    let names: Vec<&str> = events
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("event: "))
        .collect();
    assert_eq!(
        (names.first(), names.last()),
        (Some(&"connected"), Some(&"completed")),
        "{}",
        events.text
    );
    let last: Value = serde_json::from_str(
        events
            .text
            .lines()
            .rfind(|line| line.starts_with("data: "))
            .unwrap()
            .trim_start_matches("data: "),
    )
    .unwrap();
    assert_eq!(last["result"]["rows_ingested"], 20_000);
    assert!(last["duration_seconds"].is_number());

    let record = agent.get(&format!("/tasks/{id}/status")).await.ok();
    for field in [
        "task_id",
        "task_type",
        "status",
        "created_at",
        "started_at",
        "completed_at",
        "progress_percent",
        "estimated_size",
        "last_heartbeat",
        "error",
        "result",
        "metadata",
    ] {
        assert!(record.get(field).is_some(), "{field} is missing: {record}");
    }
    assert_eq!(
        (&record["status"], &record["progress_percent"]),
        (&json!("completed"), &json!(100.0))
    );
    let list = agent
        .get("/tasks?task_type=ingestion&status=completed&limit=10")
        .await
        .ok();
    assert_eq!(list[0]["task_id"], json!(id));
    let stats = agent.get("/tasks/stats").await.ok();
    assert_eq!(
        (&stats["total_tasks"], &stats["completed_tasks"]),
        (&json!(1), &json!(1))
    );
    agent.get("/tasks/absent/status").await.fails(404);
    agent.get("/tasks/absent/monitor").await.fails(404);
    agent.delete("/tasks/absent").await.fails(404);
    agent.delete(&format!("/tasks/{id}")).await.fails(409);
    agent.get("/tasks?limit=0").await.fails(400);
    agent.get("/tasks?status=lost").await.fails(400);
}

#[tokio::test]
async fn a_second_load_of_the_same_table_is_not_started() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    agent
        .put("/databases/kg1/tables/Person/files/f", people(400_000))
        .await
        .ok();
    let first = start(&agent, "Person").await.ok();
    let second = start(&agent, "Person").await;
    let record = agent.task(first["task_id"].as_str().unwrap()).await;
    assert_eq!(record["status"], "completed", "{record}");
    // The first may have ended before the second came; then the second found every row there already.
    if second.status.as_u16() == 409 {
        assert_eq!(second.json()["detail"]["task_id"], first["task_id"]);
    } else {
        let record = agent.task(second.ok()["task_id"].as_str().unwrap()).await;
        assert_eq!(record["result"]["rows_ingested"], 0);
    }
    assert_eq!(agent.number("kg1", "MATCH (p:Person) RETURN count(p)").await, 400_000);
}

#[tokio::test]
async fn a_cancelled_load_leaves_the_graph_as_it_was() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    agent
        .put("/databases/kg1/tables/Person/files/f", people(2_000_000))
        .await
        .ok();
    let id = start(&agent, "Person").await.ok()["task_id"]
        .as_str()
        .unwrap()
        .to_owned();
    agent.delete(&format!("/tasks/{id}")).await.ok();
    let record = agent.task(&id).await;
    assert_eq!(
        (&record["status"], &record["error"]),
        (&json!("cancelled"), &json!("cancelled by request"))
    );
    assert_eq!(agent.number("kg1", "MATCH (p:Person) RETURN count(p)").await, 0);
    // And the database is of use.
    agent.cypher("kg1", "CREATE (:Person {identifier: -1})").await.ok();
}

#[tokio::test]
async fn a_task_that_was_cut_off_says_so() {
    let mut agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    agent
        .put("/databases/kg1/tables/Person/files/f", people(2_000_000))
        .await
        .ok();
    let id = start(&agent, "Person").await.ok()["task_id"]
        .as_str()
        .unwrap()
        .to_owned();
    agent.restart_after_kill().await;
    let record = agent.get(&format!("/tasks/{id}/status")).await.ok();
    assert_eq!(record["status"], "failed", "{record}");
    assert!(
        record["error"].as_str().unwrap().starts_with("interrupted by restart"),
        "{record}"
    );
    assert!(record["completed_at"].is_string());
    // One transaction: all of it or nothing, and the same load can be done again.
    let count = agent.number("kg1", "MATCH (p:Person) RETURN count(p)").await;
    assert!(
        count == 0 || count == 2_000_000,
        "{count} rows of a load that was cut off"
    );
    agent
        .post("/databases/kg1/tables/Person/materialize", json!({}))
        .await
        .ok();
    assert_eq!(agent.number("kg1", "MATCH (p:Person) RETURN count(p)").await, 2_000_000);
}
