//! Every endpoint as clients of the contract know it: paths, fields, statuses.

use crate::fixture::{Agent, Answer, KEY, PEOPLE, eventually, parquet};
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn a_database_lives_and_dies() {
    let agent = Agent::with(&["--max-databases", "2"]).await;
    let created = agent
        .post(
            "/databases",
            json!({"graph_id": "kg1", "schema_type": "custom", "custom_schema_ddl": PEOPLE}),
        )
        .await
        .ok();
    assert_eq!(
        (&created["status"], &created["graph_id"]),
        (&json!("success"), &json!("kg1"))
    );
    assert_eq!(created["schema_applied"], true);
    assert!(created["database_path"].as_str().unwrap().contains("kg1"));
    assert!(created["execution_time_ms"].is_number());

    agent.post("/databases", json!({"graph_id": "kg1"})).await.fails(409);
    agent
        .post("/databases", json!({"graph_id": "kg2", "schema_type": "shared"}))
        .await
        .fails(400);
    let plain = agent
        .post("/databases", json!({"graph_id": "kg2", "schema_type": "custom"}))
        .await
        .ok();
    assert_eq!(plain["schema_applied"], false);
    let full = agent.post("/databases", json!({"graph_id": "kg3"})).await.fails(507);
    assert!(
        full.as_str().unwrap().contains("Maximum database capacity reached (2)"),
        "{full}"
    );
    // A subgraph shares the place of its parent.
    agent
        .post("/databases", json!({"graph_id": "kg1_dev", "is_subgraph": true}))
        .await
        .ok();

    let list = agent.get("/databases").await.ok();
    assert_eq!(list["total_databases"], 3);
    assert_eq!(list["node_capacity"]["max_databases"], 2);
    assert_eq!(list["node_capacity"]["capacity_remaining"], 0);
    let one = agent.get("/databases/kg1").await.ok();
    for field in [
        "graph_id",
        "database_path",
        "created_at",
        "size_bytes",
        "read_only",
        "is_healthy",
        "last_accessed",
    ] {
        assert!(one.get(field).is_some(), "{field} is missing: {one}");
    }
    assert!(one["size_bytes"].as_u64().unwrap() > 0);

    let deleted = agent.delete("/databases/kg1").await.ok();
    assert_eq!(deleted["status"], "success");
    agent.get("/databases/kg1").await.fails(404);
    agent.delete("/databases/kg1").await.fails(404);
    let left: Vec<String> = walk(&agent.volume())
        .into_iter()
        .filter(|name| name.contains("kg1."))
        .collect();
    assert_eq!(left, Vec::<String>::new(), "files of a deleted database are left");
    // A place is free again, once the subgraph that lost its parent does not take it.
    agent.post("/databases", json!({"graph_id": "kg1"})).await.fails(507);
    agent.delete("/databases/kg1_dev").await.ok();
    agent.database("kg1", PEOPLE).await;
    assert_eq!(agent.number("kg1", "MATCH (p:Person) RETURN count(p)").await, 0);
}

fn walk(dir: &std::path::Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            names.extend(walk(&entry.path()));
        } else {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names
}

#[tokio::test]
async fn a_failed_schema_leaves_no_database() {
    let agent = Agent::start().await;
    let body = json!({
        "graph_id": "kg1", "schema_type": "custom",
        "custom_schema_ddl": "CREATE NODE TABLE A(id INT64 PRIMARY KEY); CREATE NODE TABLE B(id NOSUCHTYPE PRIMARY KEY);",
    });
    let detail = agent.post("/databases", body).await.fails(400);
    assert!(detail.as_str().unwrap().contains("custom_schema_ddl"), "{detail}");
    agent.get("/databases/kg1").await.fails(404);
    agent.database("kg1", PEOPLE).await;
}

#[tokio::test]
async fn the_entity_schema_is_the_default() {
    let agent = Agent::start().await;
    let created = agent.post("/databases", json!({"graph_id": "kg1"})).await.ok();
    assert_eq!(created["schema_applied"], true);
    let schema = agent.get("/databases/kg1/schema").await.ok();
    assert!(
        schema["node_tables"].as_array().unwrap().contains(&json!("Entity")),
        "{schema}"
    );
}

#[tokio::test]
async fn queries_answer_with_rows_and_columns() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    agent
        .cypher(
            "kg1",
            "CREATE (:Person {identifier: 1, name: 'Ada', score: 1.5}), (:Person {identifier: 2, name: 'Bob'})",
        )
        .await
        .ok();
    let body = json!({
        "cypher": "MATCH (p:Person) WHERE p.identifier = $id RETURN p.name, p.score AS score",
        "database": "kg1", "parameters": {"id": 1},
    });
    let answer = agent.post("/databases/kg1/query", body).await.ok();
    assert_eq!(answer["columns"], json!(["p.name", "score"]));
    assert_eq!(answer["data"], json!([{"p.name": "Ada", "score": 1.5}]));
    assert_eq!((&answer["row_count"], &answer["database"]), (&json!(1), &json!("kg1")));
    assert!(answer["execution_time_ms"].is_number());
    assert!(answer.get("truncated").is_none());

    // The path decides, as it always did.
    let other = agent
        .post(
            "/databases/kg1/query",
            json!({"cypher": "RETURN 1 AS one", "database": "other"}),
        )
        .await
        .ok();
    assert_eq!(
        (&other["data"], &other["database"]),
        (&json!([{"one": 1}]), &json!("kg1"))
    );
    let node = agent
        .cypher("kg1", "MATCH (p:Person {identifier: 2}) RETURN p")
        .await
        .ok();
    assert_eq!(node["data"][0]["p"]["_LABEL"], "Person");
    assert_eq!(node["data"][0]["p"]["name"], "Bob");
    let ddl = agent
        .cypher("kg1", "CREATE NODE TABLE Z(id INT64 PRIMARY KEY)")
        .await
        .ok();
    assert_eq!(ddl["row_count"], 1);
}

#[tokio::test]
async fn query_errors_have_the_statuses_of_the_contract() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    let text = |answer: Answer, status| answer.fails(status).as_str().unwrap().to_owned();
    assert!(text(agent.cypher("kg1", "MATCH (n RETURN n").await, 400).starts_with("Query parsing error: "));
    assert!(text(agent.cypher("kg1", "MATCH (p:Nobody) RETURN p").await, 400).starts_with("Query binding error: "));
    text(agent.cypher("kg1", "   ").await, 400);
    text(agent.cypher("absent", "RETURN 1").await, 404);
    agent.cypher("kg1", "CREATE (:Person {identifier: 1})").await.ok();
    let duplicate = text(agent.cypher("kg1", "CREATE (:Person {identifier: 1})").await, 409);
    assert!(duplicate.contains("duplicated primary key"), "{duplicate}");
    let bad_parameter = json!({"cypher": "RETURN $p", "parameters": {"p": 1e300}});
    agent.post("/databases/kg1/query", bad_parameter).await.fails(400);
    text(agent.cypher("kg1", "CREATE DATABASE other").await, 403);
    text(
        agent
            .post("/databases/..%2Fetc/query", json!({"cypher": "RETURN 1"}))
            .await,
        400,
    );

    for (body, kind, field) in [
        (json!({"database": "kg1"}), "missing", "cypher"),
        (json!({"cypher": 1}), "string_type", "cypher"),
        (
            json!({"cypher": "RETURN 1", "surplus": true}),
            "extra_forbidden",
            "surplus",
        ),
        (
            json!({"cypher": format!("RETURN '{}'", "x".repeat(10_000))}),
            "string_too_long",
            "cypher",
        ),
        (
            json!({"cypher": "RETURN 1", "database": "a/b"}),
            "string_pattern_mismatch",
            "database",
        ),
    ] {
        let detail = agent.post("/databases/kg1/query", body).await.fails(422);
        assert_eq!(detail[0]["type"], kind, "{detail}");
        assert_eq!(detail[0]["loc"], json!(["body", field]), "{detail}");
        assert!(detail[0]["msg"].is_string());
    }
    let request = agent.request(Method::POST, "/databases/kg1/query").body("{not json");
    let detail = Answer::to(request).await.fails(422);
    assert_eq!(detail[0]["type"], "json_invalid");
}

#[tokio::test]
async fn a_query_is_stopped_at_its_limit() {
    let agent = Agent::with(&["--query-timeout-seconds", "1"]).await;
    agent
        .database("kg1", "CREATE NODE TABLE N(id INT64 PRIMARY KEY);")
        .await;
    // The limit is for queries; loading has another.
    let rows = parquet("SELECT range AS id FROM range(3000)");
    agent.put("/databases/kg1/tables/N/files/f", rows).await.ok();
    agent.post("/databases/kg1/tables/N/materialize", json!({})).await.ok();
    let slow = "MATCH (a:N), (b:N), (c:N), (d:N) WHERE a.id + b.id + c.id + d.id = -1 RETURN count(*)";
    agent.cypher("kg1", slow).await.fails(408);
    // The thread and the database are free again; on a slow machine the limit may cut this one too.
    let count = || agent.cypher("kg1", "MATCH (n:N) RETURN count(n) AS n");
    let counted = eventually("a short query answers", count, |answer| answer.status != 408).await;
    assert_eq!(counted.ok()["data"], json!([{"n": 3000}]));
}

#[tokio::test]
async fn a_cut_result_says_so() {
    let agent = Agent::with(&["--row-limit", "100"]).await;
    agent.database("kg1", PEOPLE).await;
    let cut = agent.cypher("kg1", "UNWIND range(1, 150) AS i RETURN i").await.ok();
    assert_eq!(
        (&cut["row_count"], &cut["truncated"], &cut["row_limit"]),
        (&json!(100), &json!(true), &json!(100))
    );
    assert_eq!(cut["data"].as_array().unwrap().len(), 100);
    let whole = agent.cypher("kg1", "UNWIND range(1, 100) AS i RETURN i").await.ok();
    assert_eq!((&whole["row_count"], whole.get("truncated")), (&json!(100), None));
}

#[tokio::test]
async fn a_large_answer_is_whole() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    let answer = agent
        .cypher(
            "kg1",
            "UNWIND range(1, 9000) AS i RETURN i, 'some text to make it longer' AS t",
        )
        .await
        .ok();
    let rows = answer["data"].as_array().unwrap();
    assert_eq!(rows.len(), 9000);
    let sum: u64 = rows.iter().map(|row| row["i"].as_u64().unwrap()).sum();
    assert_eq!(sum, 9000 * 9001 / 2);
}

#[tokio::test]
async fn schemas_are_shown_and_changed_in_one_transaction() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    let schema = agent.get("/databases/kg1/schema").await.ok();
    assert_eq!(
        (&schema["node_tables"], &schema["rel_tables"]),
        (&json!(["Person"]), &json!(["KNOWS"]))
    );
    let person = schema["tables"]
        .as_array()
        .unwrap()
        .iter()
        .find(|table| table["name"] == "Person")
        .unwrap();
    assert_eq!(person["type"], "NODE");
    let names: Vec<&str> = person["properties"]
        .as_array()
        .unwrap()
        .iter()
        .map(|property| property["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["identifier", "name", "score"]);
    assert_eq!(person["properties"][0]["type"], "INT64");

    let done = agent
        .post("/databases/kg1/schema", json!({"type": "ddl", "ddl": "CREATE NODE TABLE City(id INT64 PRIMARY KEY); CREATE REL TABLE LIVES(FROM Person TO City);"}))
        .await
        .ok();
    assert_eq!(
        (&done["success"], &done["statements_executed"]),
        (&json!(true), &json!(2))
    );

    let body = json!({"type": "ddl", "ddl": "CREATE NODE TABLE New(id INT64 PRIMARY KEY); CREATE NODE TABLE City(id INT64 PRIMARY KEY);"});
    let failed = agent.post("/databases/kg1/schema", body).await;
    assert!(failed.status.is_client_error(), "{}", failed.text);
    let detail = &failed.json()["detail"];
    assert_eq!(
        (&detail["success"], &detail["statement"]),
        (&json!(false), &json!(2)),
        "{detail}"
    );
    let schema = agent.get("/databases/kg1/schema").await.ok();
    assert!(
        !schema["node_tables"].as_array().unwrap().contains(&json!("New")),
        "half of a failed schema stayed"
    );

    let drop_table = json!({"type": "ddl", "ddl": "DROP TABLE Person"});
    assert!(
        agent
            .post("/databases/kg1/schema", drop_table)
            .await
            .status
            .is_client_error()
    );
    agent
        .post("/databases/kg1/schema", json!({"type": "ddl"}))
        .await
        .fails(400);
    agent
        .post("/databases/kg1/schema", json!({"type": "sql", "ddl": "x"}))
        .await
        .fails(422);
    agent.get("/databases/absent/schema").await.fails(404);
}

#[tokio::test]
async fn figures_of_a_database() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    agent
        .cypher("kg1", "UNWIND range(1, 5) AS i CREATE (:Person {identifier: i})")
        .await
        .ok();
    agent
        .cypher(
            "kg1",
            "MATCH (a:Person {identifier: 1}), (b:Person {identifier: 2}) CREATE (a)-[:KNOWS {weight: 1.0}]->(b)",
        )
        .await
        .ok();
    let metrics = agent.get("/databases/kg1/metrics").await.ok();
    assert_eq!(
        (&metrics["node_count"], &metrics["relationship_count"]),
        (&json!(5), &json!(1))
    );
    for field in [
        "graph_id",
        "database_name",
        "size_bytes",
        "size_mb",
        "last_modified",
        "backend_type",
        "instance_id",
        "node_type",
    ] {
        assert!(metrics.get(field).is_some(), "{field} is missing: {metrics}");
    }
    let spared = agent.get("/databases/kg1/metrics?include_counts=false").await.ok();
    assert_eq!(spared["node_count"], Value::Null);
    agent.get("/databases/absent/metrics").await.fails(404);
}

#[tokio::test]
async fn the_open_endpoints_describe_the_node() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    let health = Answer::to(agent.bare(Method::GET, "/health")).await.ok();
    assert_eq!(
        (&health["status"], &health["database_count"]),
        (&json!("healthy"), &json!(1))
    );
    for field in ["uptime_seconds", "memory_rss_mb", "memory_vms_mb", "memory_percent"] {
        assert!(health[field].is_number(), "{field}: {health}");
    }
    let status = Answer::to(agent.bare(Method::GET, "/status")).await.ok();
    assert_eq!(status["node_type"], "writer");
    let info = Answer::to(agent.bare(Method::GET, "/info")).await.ok();
    assert_eq!(
        (&info["databases"], &info["read_only"]),
        (&json!(["kg1"]), &json!(false))
    );
    assert_eq!(info["configuration"]["query_limits"]["timeout_seconds"], 30);
    assert_eq!(info["engines"]["duckdb"], "1.5.6");
    assert_eq!(info["engines"]["ladybug"], "0.22.1");
    agent.get("/nothing/here").await.fails(404);
    agent.delete("/health").await.fails(405);
}

#[tokio::test]
async fn a_replica_reads_and_never_changes() {
    let mut writer = Agent::start().await;
    writer.database("kg1", PEOPLE).await;
    writer
        .cypher("kg1", "CREATE (:Person {identifier: 1, name: 'Ada'})")
        .await
        .ok();
    assert!(writer.terminate().await.success());
    let root = std::mem::replace(&mut writer.root, tempfile::TempDir::new().unwrap());
    drop(writer);

    let replica = Agent::launch(root, &["--role", "replica"], &[("GRAPH_API_KEY", KEY)]).await;
    assert_eq!(replica.number("kg1", "MATCH (p:Person) RETURN count(p)").await, 1);
    replica
        .cypher("kg1", "CREATE (:Person {identifier: 2})")
        .await
        .fails(403);
    replica.post("/databases", json!({"graph_id": "kg2"})).await.fails(403);
    replica.delete("/databases/kg1").await.fails(403);
    replica
        .post(
            "/databases/kg1/schema",
            json!({"type": "ddl", "ddl": "CREATE NODE TABLE A(id INT64 PRIMARY KEY)"}),
        )
        .await
        .fails(403);
    replica.post("/databases/kg1/backup", json!({})).await.fails(403);
    replica
        .post("/databases/kg1_dev/fork-from/kg1", json!({}))
        .await
        .fails(403);
    replica
        .post("/databases/kg1/backup-download", json!({}))
        .await
        .fails(403);
    replica.get("/databases/kg1/backup").await.fails(403);
    replica
        .post("/databases/kg1/restore", json!({"s3_key": "k"}))
        .await
        .fails(403);
    replica
        .post(
            "/databases/kg1/tables",
            json!({"table_name": "T", "s3_pattern": "s3://b/k"}),
        )
        .await
        .fails(403);
    replica.put("/databases/kg1/tables/T/files/f", vec![1]).await.fails(403);
    replica.delete("/databases/kg1/tables/T").await.fails(403);
    replica.delete("/databases/kg1/tables/T/files/f").await.fails(403);
    replica
        .post("/databases/kg1/tables/T/materialize", json!({}))
        .await
        .fails(403);
    assert_eq!(replica.number("kg1", "MATCH (p:Person) RETURN count(p)").await, 1);
    assert_eq!(replica.get("/info").await.ok()["read_only"], true);
}
