//! Keys, limits, and statements that try to reach what is not theirs.

use crate::fixture::{Agent, Answer, KEY, PEOPLE, people};
use reqwest::{Body, Method};
use serde_json::json;
use std::process::{Command, Stdio};
use tempfile::TempDir;

#[tokio::test]
async fn a_key_is_needed_but_for_the_open_endpoints() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    for open in ["/health", "/status", "/info", "/metrics"] {
        Answer::to(agent.bare(Method::GET, open))
            .await
            .status
            .is_success()
            .then_some(())
            .unwrap();
    }
    for (method, path) in [
        (Method::GET, "/databases"),
        (Method::POST, "/databases"),
        (Method::GET, "/databases/kg1"),
        (Method::POST, "/databases/kg1/query"),
        (Method::GET, "/tasks"),
        (Method::POST, "/admin/drain"),
        (Method::GET, "/nothing"),
    ] {
        let answer = Answer::to(agent.bare(method.clone(), path)).await;
        assert!(answer.fails(401).is_string(), "{method} {path}");
    }
    let bearer = agent
        .bare(Method::GET, "/databases")
        .header("Authorization", format!("Bearer {KEY}"));
    Answer::to(bearer).await.ok();
    assert!(!agent.log().contains(KEY));
}

#[tokio::test]
async fn guessing_is_locked() {
    let agent = Agent::start().await;
    let guess = || async {
        let request = agent.bare(Method::GET, "/databases").header("X-Graph-API-Key", "guess");
        Answer::to(request).await
    };
    for _ in 0..10 {
        guess().await.fails(401);
    }
    let locked = guess().await;
    locked.fails(429);
    assert!(locked.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
    // What needs no key goes on.
    Answer::to(agent.bare(Method::GET, "/health")).await.ok();
}

#[tokio::test]
async fn without_a_key_only_this_machine_may_call() {
    let agent = Agent::launch(TempDir::new().unwrap(), &[], &[]).await;
    Answer::to(agent.bare(Method::GET, "/databases")).await.ok();
    assert!(agent.log().contains("GRAPH_API_KEY is not set"));

    let dir = TempDir::new().unwrap();
    let refused = Command::new(env!("CARGO_BIN_EXE_graphplane-node-agent"))
        .args(["--port", "0", "--host", "0.0.0.0", "--data-dir"])
        .arg(dir.path())
        .env_remove("GRAPH_API_KEY")
        .stdout(Stdio::null())
        .output()
        .unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("without a key"));
}

#[tokio::test]
async fn bodies_are_limited_with_and_without_a_length() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    let chunked = |bytes: usize| {
        let chunks = (0..bytes / 1000).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1000]));
        Body::wrap_stream(futures::stream::iter(chunks))
    };
    for (path, limit) in [
        ("/databases/kg1/query", 100_000),
        ("/databases/kg1/schema", 1 << 20),
        ("/databases", 10 << 20),
    ] {
        for body in [Body::from(vec![b' '; limit + 1]), chunked(limit + 10_000)] {
            // The server may answer and close before it has read everything: the answer may be lost or cut off, and the
            // connection is of no use to the next request.
            let request = agent.request(Method::POST, path).header("Connection", "close");
            if let Ok(response) = request.body(body).send().await {
                assert_eq!(response.status().as_u16(), 413, "{path}");
            }
        }
        Answer::to(agent.request(Method::POST, path).body(chunked(limit - 10_000)))
            .await
            .fails(422);
    }
    agent.cypher("kg1", "RETURN 1").await.ok();
}

#[tokio::test]
async fn cypher_cannot_leave_its_database() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    let secret = agent.root.path().join("secret.csv");
    std::fs::write(&secret, "top-secret-value\n").unwrap();
    let secret = secret.display();
    for hostile in [
        format!("LOAD FROM '{secret}' (file_format='csv') RETURN *"),
        format!("MATCH (p:Person) LOAD FROM '{secret}' RETURN *"),
        format!("/* x */ load/**/from '{secret}' RETURN *"),
        format!("COPY Person FROM '{secret}'"),
        format!(
            "COPY (MATCH (p:Person) RETURN p.name) TO '{}/out.csv'",
            agent.root.path().display()
        ),
        format!("EXPORT DATABASE '{}/export'", agent.root.path().display()),
        format!("IMPORT DATABASE '{}/export'", agent.root.path().display()),
        format!(
            "ATTACH '{}/other.lbug' AS other (dbtype lbug)",
            agent.volume().display()
        ),
        "USE kg2".into(),
        "MATCH (p:kg2.Person) RETURN p".into(),
        "MATCH (p:`../kg2.lbug`) RETURN p".into(),
        "CALL project_graph('kg2', ['Person'], ['KNOWS'])".into(),
        "INSTALL httpfs".into(),
        "LOAD EXTENSION httpfs".into(),
        "CALL timeout=0".into(),
        "CALL home_directory='/tmp'".into(),
        "RETURN 1; DROP TABLE Person".into(),
        format!("CALL READ_CSV_SERIAL('{secret}') RETURN *"),
    ] {
        let answer = agent.cypher("kg1", &hostile).await;
        assert!(
            answer.status.is_client_error(),
            "{hostile} -> {}: {}",
            answer.status,
            answer.text
        );
        assert!(!answer.text.contains("top-secret-value"), "{hostile} read the file");
        let stream = agent
            .request(Method::POST, "/databases/kg1/query?streaming=true")
            .json(&json!({"cypher": hostile}));
        let stream = Answer::to(stream).await;
        assert!(!stream.text.contains("top-secret-value"), "{hostile} streamed the file");
    }
    assert!(!agent.root.path().join("out.csv").exists() && !agent.root.path().join("export").exists());
    // The same words as data are nobody's business.
    let harmless = agent
        .cypher(
            "kg1",
            "CREATE (:Person {identifier: 1, name: 'LOAD FROM ATTACH; DROP DATABASE'})",
        )
        .await;
    harmless.ok();
    assert_eq!(agent.number("kg1", "MATCH (p:Person) RETURN count(p)").await, 1);
}

#[tokio::test]
async fn sql_cannot_leave_its_staging() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    agent.database("kg2", PEOPLE).await;
    agent.put("/databases/kg1/tables/Person/files/f", people(3)).await.ok();
    agent.put("/databases/kg2/tables/Person/files/f", people(3)).await.ok();
    let secret = agent.root.path().join("secret.csv");
    std::fs::write(&secret, "top-secret-value\n").unwrap();
    let secret = secret.display();
    let volume = agent.volume();
    let volume = volume.display();
    for hostile in [
        format!("SELECT * FROM read_csv('{secret}')"),
        format!("SELECT * FROM '{secret}'"),
        format!("SELECT * FROM read_text('{secret}')"),
        format!("SELECT * FROM read_blob('{secret}')"),
        "SELECT * FROM glob('/etc/*')".into(),
        "SELECT content FROM read_text('/proc/self/environ')".into(),
        format!("ATTACH '{volume}/kg2.duckdb' AS other"),
        format!("SELECT * FROM '{volume}/staging/kg2.duckdb'"),
        "SELECT * FROM kg2.Person".into(),
        "SELECT * FROM kg2.main.Person".into(),
        "SELECT * FROM \"../staging/kg2\".Person".into(),
        format!("COPY Person TO '{}/out.csv'", agent.root.path().display()),
        "INSTALL httpfs".into(),
        "LOAD httpfs".into(),
        "SET enable_external_access=true".into(),
        "PRAGMA database_list".into(),
        "DROP TABLE Person".into(),
        "DELETE FROM Person".into(),
        "CREATE TABLE x AS SELECT 1".into(),
        "SELECT 1; DROP TABLE Person".into(),
        "WITH x AS (SELECT 1) DELETE FROM Person".into(),
        "SELECT getenv('GRAPH_API_KEY')".into(),
    ] {
        let answer = agent.post("/databases/kg1/tables/query", json!({"sql": hostile})).await;
        assert!(
            answer.status.is_client_error(),
            "{hostile} -> {}: {}",
            answer.status,
            answer.text
        );
        assert!(
            !answer.text.contains("top-secret-value") && !answer.text.contains(KEY),
            "{hostile}: {}",
            answer.text
        );
    }
    assert!(!agent.root.path().join("out.csv").exists());
    let tables = agent.get("/databases/kg1/tables").await.ok();
    assert_eq!(tables[0]["row_count"], 3);
}

#[tokio::test]
async fn parameters_and_statements_are_not_logged() {
    let agent = Agent::with(&["--log-level", "debug"]).await;
    agent.database("kg1", PEOPLE).await;
    let body = json!({"cypher": "CREATE (:Person {identifier: $id, name: $name})", "parameters": {"id": 1, "name": "very-private-name"}});
    agent.post("/databases/kg1/query", body).await.ok();
    let body = json!({"cypher": "CREATE (:Person {identifier: $id, nobody: $name})", "parameters": {"id": 1, "name": "very-private-name"}});
    assert!(agent.post("/databases/kg1/query", body).await.status.is_client_error());
    assert!(!agent.log().contains("very-private-name"));
    assert!(agent.log().contains("\"operation\":\"query\""), "{}", agent.log());
}

#[tokio::test]
async fn request_ids_come_back() {
    let agent = Agent::start().await;
    let with = agent.bare(Method::GET, "/health").header("X-Request-Id", "abc-123");
    assert_eq!(Answer::to(with).await.header("x-request-id"), Some("abc-123"));
    let first = agent.get("/health").await.header("x-request-id").unwrap().to_owned();
    let second = agent
        .get("/databases/absent")
        .await
        .header("x-request-id")
        .unwrap()
        .to_owned();
    assert!(!first.is_empty() && first != second);
    let hostile = agent.bare(Method::GET, "/health").header("X-Request-Id", "<script>");
    assert_ne!(Answer::to(hostile).await.header("x-request-id"), Some("<script>"));
}
