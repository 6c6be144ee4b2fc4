//! What was acknowledged is there after `kill -9`.

use crate::fixture::{Agent, PEOPLE, acquaintances, people};
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn acknowledged_queries_survive() {
    let mut agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    for round in 0..3u64 {
        for i in 0..20 {
            agent
                .cypher(
                    "kg1",
                    &format!("CREATE (:Person {{identifier: {}, name: 'x'}})", round * 100 + i),
                )
                .await
                .ok();
        }
        agent.restart_after_kill().await;
        assert_eq!(
            agent.number("kg1", "MATCH (p:Person) RETURN count(p)").await,
            (round + 1) * 20
        );
    }
    let body = json!({"type": "ddl", "ddl": "CREATE NODE TABLE City(id INT64 PRIMARY KEY)"});
    agent.post("/databases/kg1/schema", body).await.ok();
    agent.restart_after_kill().await;
    assert!(
        agent.get("/databases/kg1/schema").await.ok()["node_tables"]
            .as_array()
            .unwrap()
            .contains(&json!("City"))
    );
}

#[tokio::test]
async fn acknowledged_loads_survive() {
    let mut agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    agent
        .put("/databases/kg1/tables/Person/files/f", people(30_000))
        .await
        .ok();
    agent.restart_after_kill().await;
    assert_eq!(agent.get("/databases/kg1/tables").await.ok()[0]["row_count"], 30_000);
    agent
        .post("/databases/kg1/tables/Person/materialize", json!({}))
        .await
        .ok();
    agent.restart_after_kill().await;
    assert_eq!(agent.number("kg1", "MATCH (p:Person) RETURN count(p)").await, 30_000);
    agent
        .put("/databases/kg1/tables/KNOWS/files/f", acquaintances(30_000, 50_000))
        .await
        .ok();
    agent
        .post("/databases/kg1/tables/KNOWS/materialize", json!({}))
        .await
        .ok();
    agent.restart_after_kill().await;
    assert_eq!(
        agent
            .number("kg1", "MATCH (:Person)-[k:KNOWS]->(:Person) RETURN count(k)")
            .await,
        50_000
    );
}

#[tokio::test]
async fn a_load_that_is_cut_off_in_its_checkpoint_leaves_a_graph_that_opens() {
    const ROWS: u64 = 2_000;
    let mut agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    agent
        .put("/databases/kg1/tables/Person/files/f", people(ROWS))
        .await
        .ok();
    let log = agent.volume().join("databases/kg1.lbug.wal.checkpoint");
    for round in 0..5 {
        let request = agent
            .request(Method::POST, "/databases/kg1/tables/Person/materialize")
            .json(&json!({}));
        let load = tokio::spawn(request.send());
        // The log has its second name while the checkpoint is being made.
        while !log.exists() && !load.is_finished() {
            tokio::task::yield_now().await;
        }
        agent.restart_after_kill().await;
        let acknowledged = load.await.unwrap().is_ok_and(|response| response.status().is_success());
        let loaded = "MATCH (p:Person) WHERE p.identifier >= 0 RETURN count(p)";
        let count = agent.number("kg1", loaded).await;
        assert!(
            count == ROWS || count == 0 && !acknowledged,
            "{count} rows in round {round}"
        );
        agent
            .cypher("kg1", "MATCH (p:Person) WHERE p.identifier >= 0 DELETE p")
            .await
            .ok();
        let write = format!("CREATE (:Person {{identifier: {}}})", -1 - round);
        agent.cypher("kg1", &write).await.ok();
    }
    assert_eq!(agent.number("kg1", "MATCH (p:Person) RETURN count(p)").await, 5);
}

#[tokio::test]
async fn a_created_database_survives_and_a_deleted_one_does_not_return() {
    let mut agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    agent.database("kg2", PEOPLE).await;
    agent.delete("/databases/kg2").await.ok();
    agent.restart_after_kill().await;
    assert_eq!(agent.get("/info").await.ok()["databases"], json!(["kg1"]));
    agent.get("/databases/kg2").await.fails(404);
}

#[tokio::test]
async fn two_agents_never_share_a_volume() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    let at_work = agent.volume().join("tmp/backup-of-the-first");
    std::fs::create_dir_all(&at_work).unwrap();
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_graphplane-node-agent"))
        .args(["--port", "0", "--data-dir"])
        .arg(agent.volume())
        .output()
        .unwrap();
    assert!(!second.status.success());
    assert!(
        String::from_utf8_lossy(&second.stderr).contains("in use"),
        "{}",
        String::from_utf8_lossy(&second.stderr)
    );
    assert!(
        at_work.exists(),
        "the second one has cleared up after the first, which lives"
    );
    agent.cypher("kg1", "CREATE (:Person {identifier: 1})").await.ok();
}

#[tokio::test]
async fn staging_and_vectors_that_were_to_stay_survive_without_their_graph() {
    let mut agent = Agent::start().await;
    let names = |agent: &Agent, directory: &str| {
        let entries = std::fs::read_dir(agent.volume().join(directory)).unwrap().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    for (id, kept) in [("kg1", true), ("kg2", false)] {
        agent.database(id, PEOPLE).await;
        agent
            .put(&format!("/databases/{id}/tables/Person/files/f"), people(100))
            .await
            .ok();
        let query = "SELECT identifier, [identifier, 1.0]::FLOAT[] AS vector FROM Person";
        let path = format!("/databases/{id}/tables/Person/vector/build");
        agent.post(&path, json!({"query": query})).await.ok();
        agent
            .delete(&format!("/databases/{id}?preserve_duckdb={kept}"))
            .await
            .ok();
    }
    for _ in 0..2 {
        agent.restart_after_kill().await;
        agent.get("/databases/kg1").await.fails(404);
        assert_eq!(names(&agent, "vectors"), ["kg1"]);
        let staging = names(&agent, "staging");
        assert!(
            staging.contains(&"kg1.duckdb".to_owned()) && staging.iter().all(|name| name.starts_with("kg1.")),
            "{staging:?}"
        );
    }
    agent.database("kg1", PEOPLE).await;
    agent
        .post("/databases/kg1/tables/Person/materialize", json!({}))
        .await
        .ok();
    assert_eq!(agent.number("kg1", "MATCH (p:Person) RETURN count(p)").await, 100);
    let vectors = agent.get("/databases/kg1/tables/Person/vector").await.ok();
    assert_eq!(vectors["row_count"], 100, "{vectors}");
    agent.restart_after_kill().await;
    assert!(!names(&agent, "staging").contains(&"kg1.kept".to_owned()));
    // And then they go for good.
    agent.delete("/databases/kg1?preserve_duckdb=true").await.ok();
    agent.delete("/databases/kg1?staging_only=true").await.ok();
    agent.delete("/databases/kg1").await.fails(404);
    assert_eq!(names(&agent, "staging"), Vec::<String>::new());
    assert_eq!(names(&agent, "vectors"), Vec::<String>::new());
}
