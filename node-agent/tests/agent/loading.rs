//! Files into staging tables, SQL over them, and staging tables into the graph.

use crate::fixture::{Agent, Answer, PEOPLE, acquaintances, parquet, parquet_at, people};
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn an_upload_becomes_a_graph() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    let nodes = agent
        .put("/databases/kg1/tables/Person/files/people-1", people(5000))
        .await
        .ok();
    assert_eq!(
        (&nodes["status"], &nodes["row_count"], &nodes["kind"]),
        (&json!("success"), &json!(5000), &json!("node"))
    );
    assert_eq!(
        (&nodes["table_name"], &nodes["file_id"]),
        (&json!("Person"), &json!("people-1"))
    );
    assert!(
        nodes["columns"]
            .as_array()
            .unwrap()
            .iter()
            .any(|c| c["name"] == "score" && c["type"] == "DOUBLE"),
        "{nodes}"
    );
    let rels = agent
        .put("/databases/kg1/tables/KNOWS/files/k1", acquaintances(5000, 8000))
        .await
        .ok();
    assert_eq!(
        (&rels["row_count"], &rels["kind"]),
        (&json!(8000), &json!("relationship"))
    );

    let tables = agent.get("/databases/kg1/tables").await.ok();
    let row = |name: &str| {
        tables
            .as_array()
            .unwrap()
            .iter()
            .find(|t| t["table_name"] == name)
            .unwrap()["row_count"]
            .clone()
    };
    assert_eq!((row("Person"), row("KNOWS")), (json!(5000), json!(8000)));

    let done = agent
        .post(
            "/databases/kg1/tables/Person/materialize",
            json!({"ignore_errors": true}),
        )
        .await
        .ok();
    assert_eq!(
        (&done["status"], &done["rows_ingested"]),
        (&json!("success"), &json!(5000))
    );
    assert_eq!(
        (&done["graph_id"], &done["table_name"]),
        (&json!("kg1"), &json!("Person"))
    );
    let done = agent
        .post("/databases/kg1/tables/KNOWS/materialize", json!({}))
        .await
        .ok();
    assert_eq!(done["rows_ingested"], 8000, "{done}");

    assert_eq!(agent.number("kg1", "MATCH (p:Person) RETURN count(p)").await, 5000);
    assert_eq!(
        agent
            .number("kg1", "MATCH (:Person)-[k:KNOWS]->(:Person) RETURN count(k)")
            .await,
        8000
    );
    // NULLs are where they were, and nowhere else: every third score.
    assert_eq!(
        agent
            .number("kg1", "MATCH (p:Person) WHERE p.score IS NULL RETURN count(p)")
            .await,
        1667
    );
    assert_eq!(
        agent
            .number(
                "kg1",
                "MATCH (p:Person) WHERE p.score IS NULL AND p.identifier % 3 <> 0 RETURN count(p)"
            )
            .await,
        0
    );
    let one = agent
        .cypher("kg1", "MATCH (p:Person {identifier: 4999}) RETURN p.name, p.score")
        .await
        .ok();
    assert_eq!(one["data"][0], json!({"p.name": "name 4999", "p.score": 2499.5}));

    let none = agent
        .post("/databases/kg1/tables/Absent/materialize", json!({}))
        .await
        .ok();
    assert_eq!(
        (&none["status"], &none["rows_ingested"]),
        (&json!("skipped"), &json!(0))
    );
}

#[tokio::test]
async fn a_missing_graph_table_can_be_made_from_staging() {
    let agent = Agent::start().await;
    agent.database("kg1", "").await;
    agent
        .put("/databases/kg1/tables/Person/files/f", people(100))
        .await
        .ok();
    assert!(
        agent
            .post("/databases/kg1/tables/Person/materialize", json!({}))
            .await
            .status
            .is_client_error()
    );
    let done = agent
        .post(
            "/databases/kg1/tables/Person/materialize",
            json!({"create_table": true}),
        )
        .await
        .ok();
    assert_eq!(
        (&done["rows_ingested"], &done["created_table"]),
        (&json!(100), &json!(true))
    );
    agent
        .put("/databases/kg1/tables/KNOWS/files/f", acquaintances(100, 50))
        .await
        .ok();
    let body = json!({"create_table": true, "from_table": "Person", "to_table": "Person"});
    let done = agent.post("/databases/kg1/tables/KNOWS/materialize", body).await.ok();
    assert_eq!(done["rows_ingested"], 50);
    assert_eq!(
        agent
            .number("kg1", "MATCH (:Person)-[k:KNOWS]->(:Person) RETURN count(k)")
            .await,
        50
    );
}

#[tokio::test]
async fn rows_that_break_the_schema_are_counted() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    agent.put("/databases/kg1/tables/Person/files/f", people(10)).await.ok();
    agent
        .post("/databases/kg1/tables/Person/materialize", json!({}))
        .await
        .ok();
    // Loaded again: nothing is new, and nothing is doubled.
    let again = agent
        .post("/databases/kg1/tables/Person/materialize", json!({}))
        .await
        .ok();
    assert_eq!(
        (&again["rows_ingested"], &again["rejected"]["already_present"]),
        (&json!(0), &json!(10)),
        "{again}"
    );
    let dangling = parquet("SELECT * FROM (VALUES (1, 2, 0.5), (1, 999, 0.5)) t(\"from\", \"to\", weight)");
    agent.put("/databases/kg1/tables/KNOWS/files/f", dangling).await.ok();
    let rels = agent
        .post("/databases/kg1/tables/KNOWS/materialize", json!({}))
        .await
        .ok();
    assert_eq!(
        (&rels["rows_ingested"], &rels["rejected"]["dangling"]),
        (&json!(1), &json!(1)),
        "{rels}"
    );
}

#[tokio::test]
async fn rows_that_were_left_out_can_be_fetched() {
    let mut agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    let rows = "SELECT * FROM (VALUES (1, 'a', 1.5), (NULL, 'nobody', 'nan'::DOUBLE), (1, 'b', 2.5)) t(identifier, name, score)";
    agent
        .put("/databases/kg1/tables/Person/files/f1", parquet(rows))
        .await
        .ok();
    let path = "/databases/kg1/tables/Person/materialize";
    let dry = agent.post(path, json!({"dry_run": true})).await.ok();
    assert_eq!(
        (
            &dry["status"],
            &dry["rows_ingested"],
            &dry["rows_acceptable"],
            &dry["would_fail"]
        ),
        (&json!("dry_run"), &json!(0), &json!(1), &json!(false)),
        "{dry}"
    );
    assert_eq!(agent.number("kg1", "MATCH (p:Person) RETURN count(p)").await, 0);
    let done = agent.post(path, json!({"incremental": true})).await.ok();
    assert_eq!(
        (&done["rows_ingested"], &done["rejected_rows_kept"]),
        (&json!(1), &json!(2)),
        "{done}"
    );
    agent.restart_after_kill().await;
    for answer in [&dry, &done] {
        let task = answer["task_id"].as_str().unwrap();
        let fetched = agent
            .get(&format!("/databases/kg1/tables/Person/rejected?task={task}"))
            .await;
        assert_eq!(fetched.header("content-type"), Some("application/x-ndjson"));
        let row = |name, score| json!({"identifier": if name == "a" { json!(1) } else { json!(null) }, "name": name, "score": score, "file_id": "f1"});
        assert_eq!(
            fetched.lines(),
            [
                json!({"reason": "null_keys", "row": row("nobody", json!(null))}),
                json!({"reason": "duplicates", "row": row("a", json!(1.5))}),
            ]
        );
        for (path, status) in [
            ("/databases/kg1/tables/KNOWS/rejected?task=", 404),
            ("/databases/kg2/tables/Person/rejected?task=", 404),
            ("/databases/kg1/tables/Person/rejected?task=x", 404),
            ("/databases/kg1/tables/Person/rejected?other=", 400),
        ] {
            agent.get(&format!("{path}{task}")).await.fails(status);
        }
    }
}

#[tokio::test]
async fn files_are_replaced_and_removed_by_their_id() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    agent.put("/databases/kg1/tables/Person/files/a", people(10)).await.ok();
    let other = parquet("SELECT 100 + i AS identifier, 'x' AS name, 1.0::DOUBLE AS score FROM range(5) t(i)");
    let both = agent.put("/databases/kg1/tables/Person/files/b", other).await.ok();
    assert_eq!((&both["row_count"], &both["total_rows"]), (&json!(5), &json!(15)));
    let replaced = agent.put("/databases/kg1/tables/Person/files/a", people(3)).await.ok();
    assert_eq!(replaced["total_rows"], 8);
    let only_b = agent
        .post("/databases/kg1/tables/Person/materialize", json!({"file_ids": ["b"]}))
        .await
        .ok();
    assert_eq!(only_b["rows_ingested"], 5);
    let removed = agent.delete("/databases/kg1/tables/Person/files/a").await.ok();
    assert_eq!(
        (&removed["status"], &removed["rows_deleted"]),
        (&json!("success"), &json!(3))
    );
    assert_eq!(
        agent.delete("/databases/kg1/tables/Person/files/a").await.ok()["rows_deleted"],
        0
    );
    assert_eq!(
        agent.delete("/databases/kg1/tables/Absent/files/a").await.ok()["rows_deleted"],
        0
    );
    assert_eq!(
        agent.delete("/databases/kg1/tables/Person").await.ok()["status"],
        "success"
    );
    assert_eq!(
        agent.delete("/databases/kg1/tables/Person").await.ok()["status"],
        "success"
    );
    assert_eq!(agent.get("/databases/kg1/tables").await.ok(), json!([]));
}

#[tokio::test]
async fn a_file_that_is_not_parquet_changes_nothing() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    agent.put("/databases/kg1/tables/Person/files/a", people(10)).await.ok();
    for bad in [b"PAR1 but not really".to_vec(), b"a,b\n1,2\n".to_vec()] {
        let refused = agent.put("/databases/kg1/tables/Person/files/b", bad).await;
        assert!(refused.status.is_client_error(), "{}: {}", refused.status, refused.text);
    }
    agent
        .put("/databases/kg1/tables/Person/files/b", Vec::new())
        .await
        .fails(400);
    agent
        .put("/databases/absent/tables/Person/files/b", people(1))
        .await
        .fails(404);
    agent
        .put("/databases/kg1/tables/Per%20son/files/b", people(1))
        .await
        .fails(400);
    let tables = agent.get("/databases/kg1/tables").await.ok();
    assert_eq!(tables[0]["row_count"], 10);
}

#[tokio::test]
async fn tables_are_made_from_files_below_the_import_directory() {
    let imports = tempfile::TempDir::new().unwrap();
    parquet_at(
        &imports.path().join("part-1.parquet"),
        "SELECT i AS identifier, 'a' AS name FROM range(10) t(i)",
    );
    parquet_at(
        &imports.path().join("part-2.parquet"),
        "SELECT 'b' AS name, i + 10 AS identifier FROM range(10) t(i)",
    );
    let agent = Agent::with(&["--import-dir", imports.path().to_str().unwrap()]).await;
    agent.database("kg1", PEOPLE).await;
    let at = |name: &str| format!("file://{}/{name}", imports.path().canonicalize().unwrap().display());
    let made = agent
        .post(
            "/databases/kg1/tables",
            json!({"graph_id": "kg1", "table_name": "Person", "s3_pattern": at("part-*.parquet")}),
        )
        .await
        .ok();
    assert_eq!(
        (&made["status"], &made["table_name"], &made["row_count"]),
        (&json!("success"), &json!("Person"), &json!(20))
    );
    // The second file has its columns in another order: they are matched by name.
    let names = agent
        .post("/databases/kg1/tables/query", json!({"graph_id": "kg1", "sql": "SELECT name, count(*) AS n, min(identifier) AS low FROM Person GROUP BY name ORDER BY name"}))
        .await
        .ok();
    assert_eq!(names["rows"], json!([["a", 10, 0], ["b", 10, 10]]));

    let body = json!({
        "graph_id": "kg1", "table_name": "Person", "s3_pattern": [at("part-1.parquet")],
        "file_id_map": {at("part-1.parquet"): "first"},
    });
    assert_eq!(
        agent.post("/databases/kg1/tables", body).await.ok()["files"],
        json!([{"file_id": "first", "row_count": 10}])
    );
    assert_eq!(
        agent.delete("/databases/kg1/tables/Person/files/first").await.ok()["rows_deleted"],
        10
    );

    let create = |source: String| {
        agent.post(
            "/databases/kg1/tables",
            json!({"table_name": "T", "s3_pattern": source}),
        )
    };
    create("file:///etc/hostname".into()).await.fails(403);
    create(at("../x.parquet")).await.fails(400);
    create(at("absent.parquet")).await.fails(404);
    create("https://example.org/x.parquet".into()).await.fails(400);
    agent
        .post(
            "/databases/kg1/tables",
            json!({"graph_id": "kg2", "table_name": "T", "s3_pattern": "s3://b/k"}),
        )
        .await
        .fails(400);
    agent
        .post(
            "/databases/kg1/tables",
            json!({"table_name": "bad name", "s3_pattern": "s3://b/k"}),
        )
        .await
        .fails(422);
    agent
        .post(
            "/databases/absent/tables",
            json!({"table_name": "T", "s3_pattern": "s3://b/k"}),
        )
        .await
        .fails(404);
}

#[tokio::test]
async fn tables_are_made_from_s3() {
    let bucket = crate::plane::Bucket::start().await;
    bucket.put(
        "data/part-1.parquet",
        parquet("SELECT i AS identifier FROM range(7) t(i)"),
    );
    bucket.put(
        "data/part-2.parquet",
        parquet("SELECT i + 7 AS identifier FROM range(7) t(i)"),
    );
    bucket.put("other/part-3.parquet", parquet("SELECT 99 AS identifier"));
    let envs = [
        ("GRAPH_API_KEY", crate::fixture::KEY),
        ("AWS_ENDPOINT_URL", bucket.url.as_str()),
        ("AWS_ACCESS_KEY_ID", "from-the-node"),
        ("AWS_SECRET_ACCESS_KEY", "node-secret"),
        ("AWS_REGION", "us-east-1"),
    ];
    let other = crate::plane::Bucket::start().await;
    let args = ["--source", "s3://lake", "--source-endpoint", other.url.as_str()];
    let agent = Agent::launch(tempfile::TempDir::new().unwrap(), &args, &envs).await;
    agent.database("kg1", PEOPLE).await;
    let body = json!({"table_name": "Person", "s3_pattern": "s3://lake/data/*.parquet"});
    let made = agent.post("/databases/kg1/tables", body).await.ok();
    assert_eq!(made["row_count"], 14, "{made}");
    assert!(
        bucket.signers().iter().all(|signer| signer == "from-the-node"),
        "{:?}",
        bucket.signers()
    );

    other.put("data/part-1.parquet", parquet("SELECT 1 AS identifier"));
    let body = json!({
        "table_name": "Other", "s3_pattern": "s3://lake/data/part-1.parquet",
        "s3_credentials": {
            "aws_access_key_id": "from-the-request", "aws_secret_access_key": "request-secret", "endpoint_url": other.url,
        },
    });
    assert_eq!(agent.post("/databases/kg1/tables", body).await.ok()["row_count"], 1);
    assert!(
        other.signers().iter().all(|signer| signer == "from-the-request"),
        "{:?}",
        other.signers()
    );
    let body = json!({"table_name": "T", "s3_pattern": "s3://lake/absent/*.parquet"});
    agent.post("/databases/kg1/tables", body).await.fails(404);
    assert!(!agent.log().contains("request-secret") && !agent.log().contains("node-secret"));
}

#[tokio::test]
async fn sql_answers_in_three_formats() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    agent.put("/databases/kg1/tables/Person/files/a", people(25)).await.ok();
    let sql = json!({"graph_id": "kg1", "sql": "SELECT identifier FROM Person ORDER BY identifier"});
    let answer = agent.post("/databases/kg1/tables/query", sql.clone()).await.ok();
    assert_eq!(
        (&answer["columns"], &answer["row_count"]),
        (&json!(["identifier"]), &json!(25))
    );
    assert_eq!(answer["rows"][24], json!([24]));
    let with_parameters = json!({"sql": "SELECT count(*) FROM Person WHERE identifier < ?", "parameters": [5]});
    assert_eq!(
        agent.post("/databases/kg1/tables/query", with_parameters).await.ok()["rows"],
        json!([[5]])
    );

    let request = agent
        .request(Method::POST, "/databases/kg1/tables/query?streaming=true&chunk_size=10")
        .json(&sql);
    let stream = Answer::to(request).await;
    assert_eq!(stream.header("content-type"), Some("application/x-ndjson"));
    let lines = stream.lines();
    assert_eq!(
        lines
            .iter()
            .map(|line| line["row_count"].as_u64().unwrap())
            .sum::<u64>(),
        25
    );
    assert_eq!(lines.iter().filter(|line| line["is_last_chunk"] == true).count(), 1);
    assert_eq!(lines.last().unwrap()["is_last_chunk"], true);

    let request = agent
        .request(Method::POST, "/databases/kg1/tables/query?chunk_size=10")
        .header("Accept", "text/event-stream")
        .json(&sql);
    let events = Answer::to(request).await;
    assert_eq!(events.header("x-stream-format"), Some("sse"));
    let names: Vec<&str> = events
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("event: "))
        .collect();
    assert_eq!(
        (names.first(), names.last()),
        (Some(&"started"), Some(&"completed")),
        "{}",
        events.text
    );
    assert!(names.contains(&"chunk") && names.contains(&"progress"));

    let wrong = agent
        .post(
            "/databases/kg1/tables/query",
            json!({"sql": "SELECT nothing FROM Person"}),
        )
        .await
        .fails(400);
    assert!(wrong.as_str().unwrap().starts_with("Query failed: "), "{wrong}");
    let bad = agent
        .request(Method::POST, "/databases/kg1/tables/query?chunk_size=5")
        .json(&sql);
    Answer::to(bad).await.fails(400);
    agent.post("/databases/absent/tables/query", sql).await.fails(404);
    assert_eq!(
        agent.get("/databases/kg1/tables").await.ok().as_array().unwrap().len(),
        1
    );
}
