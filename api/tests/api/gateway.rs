//! What crosses the gateway, and how.

use crate::fake_agent::{FakeAgent, KEY};
use crate::plane::{EDITOR, PATIENCE, Plane, VIEWER, until};
use futures::StreamExt;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

async fn serving() -> (Plane, FakeAgent, String) {
    let plane = Plane::start().await;
    let agent = FakeAgent::start().await;
    plane.tier("t").await;
    let id = plane.serving("default", "karate", "n1", &agent.address).await;
    (plane, agent, id)
}

#[tokio::test]
async fn calls_reach_the_agent_with_the_planes_key_and_not_the_clients() {
    let (plane, agent, id) = serving().await;
    let query = json!({"database": "karate", "cypher": "CREATE (:A)", "parameters": {"x": 1}});
    for graph in ["karate", id.as_str()] {
        let request = plane.request(
            "POST",
            &format!("/v1/graphs/{graph}/query?streaming=true&namespace=default"),
            EDITOR,
        );
        let request = request
            .header("x-graph-api-key", "forged")
            .header("x-graphplane-epoch", "99")
            .header("accept", "a/b");
        let answer = plane
            .send(
                request
                    .header("x-request-id", "r-1")
                    .header("cookie", "a=b")
                    .json(&query),
            )
            .await
            .expect(200);
        assert_eq!(answer.body["data"], json!([{"x": 1}]));
        let seen = agent.last();
        assert_eq!(seen.line, format!("POST /databases/{id}/query?streaming=true"));
        assert_eq!(seen.body, query);
        assert_eq!(
            (
                seen.headers["x-graph-api-key"].clone(),
                seen.headers["x-graphplane-epoch"].clone()
            ),
            (KEY.parse().unwrap(), "4".parse().unwrap())
        );
        assert_eq!(
            (seen.headers["accept"].clone(), seen.headers["x-request-id"].clone()),
            ("a/b".parse().unwrap(), "r-1".parse().unwrap())
        );
        for ours in ["authorization", "x-api-key", "cookie"] {
            assert!(!seen.headers.contains_key(ours), "{ours}");
        }
    }
    let wrong = plane
        .post("/v1/graphs/karate/query", json!({"cypher": "RETURN 'wrong'"}))
        .await
        .expect(400);
    assert_eq!(
        wrong.body,
        json!({"detail": "Binder exception: no"}),
        "the agent's answers pass as they are"
    );
    assert!(!wrong.headers.contains_key("x-graph-api-key") && !wrong.headers.contains_key("set-cookie"));
}

#[tokio::test]
async fn every_kind_of_call_has_its_path() {
    let (plane, agent, id) = serving().await;
    let task = format!("ingestion_{id}_A_0a1b2c3d");
    for (method, ours, theirs) in [
        ("GET", "schema", format!("/databases/{id}/schema")),
        ("POST", "schema", format!("/databases/{id}/schema")),
        (
            "GET",
            "metrics?include_counts=true",
            format!("/databases/{id}/metrics?include_counts=true"),
        ),
        ("GET", "tables", format!("/databases/{id}/tables")),
        ("POST", "tables", format!("/databases/{id}/tables")),
        ("POST", "tables/query", format!("/databases/{id}/tables/query")),
        ("POST", "tables/execute", format!("/databases/{id}/tables/execute")),
        ("DELETE", "tables/Airport", format!("/databases/{id}/tables/Airport")),
        (
            "DELETE",
            "tables/Airport/files/a-1.parquet",
            format!("/databases/{id}/tables/Airport/files/a-1.parquet"),
        ),
        (
            "POST",
            "tables/Airport/materialize",
            format!("/databases/{id}/tables/Airport/materialize"),
        ),
        (
            "POST",
            "tables/Airport/insert",
            format!("/databases/{id}/tables/Airport/insert"),
        ),
        (
            "GET",
            "tables/Airport/rejected?task=t1",
            format!("/databases/{id}/tables/Airport/rejected?task=t1"),
        ),
        ("POST", "copy", format!("/databases/{id}/copy")),
        ("POST", "ingest", format!("/databases/{id}/ingest")),
        ("POST", "rebuild", format!("/databases/{id}/rebuild")),
        ("GET", "storage", format!("/databases/{id}/storage")),
        ("POST", "embeddings", "/embeddings".to_owned()),
        (
            "GET",
            "tables/Airport/vector",
            format!("/databases/{id}/tables/Airport/vector"),
        ),
        (
            "DELETE",
            "tables/Airport/vector",
            format!("/databases/{id}/tables/Airport/vector"),
        ),
        (
            "POST",
            "tables/Airport/vector/build",
            format!("/databases/{id}/tables/Airport/vector/build"),
        ),
        (
            "POST",
            "tables/Airport/vector/append",
            format!("/databases/{id}/tables/Airport/vector/append"),
        ),
        (
            "POST",
            "tables/Airport/vector/reindex",
            format!("/databases/{id}/tables/Airport/vector/reindex"),
        ),
        (
            "POST",
            "tables/Airport/vector/search",
            format!("/databases/{id}/tables/Airport/vector/search"),
        ),
        (
            "POST",
            "semantic-memory/rows",
            format!("/databases/{id}/semantic-memory/rows"),
        ),
        (
            "POST",
            "semantic-memory/search",
            format!("/databases/{id}/semantic-memory/search"),
        ),
        (
            "POST",
            "semantic-memory/list",
            format!("/databases/{id}/semantic-memory/list"),
        ),
        (
            "GET",
            "semantic-memory/rows/mem_1",
            format!("/databases/{id}/semantic-memory/rows/mem_1"),
        ),
        (
            "PATCH",
            "semantic-memory/rows/mem_1",
            format!("/databases/{id}/semantic-memory/rows/mem_1"),
        ),
        (
            "DELETE",
            "semantic-memory/rows/mem_1",
            format!("/databases/{id}/semantic-memory/rows/mem_1"),
        ),
        ("GET", &format!("tasks/{task}"), format!("/tasks/{task}/status")),
        ("GET", &format!("tasks/{task}/status"), format!("/tasks/{task}/status")),
        (
            "GET",
            &format!("tasks/{task}/monitor"),
            format!("/tasks/{task}/monitor"),
        ),
        ("DELETE", &format!("tasks/{task}"), format!("/tasks/{task}")),
    ] {
        agent.book.reading.store(true, Ordering::SeqCst);
        let body = matches!(method, "POST" | "PATCH").then(|| json!({"sql": "SELECT 1"}));
        plane
            .call(method, &format!("/v1/graphs/karate/{ours}"), EDITOR, body)
            .await
            .expect(200);
        assert_eq!(agent.last().line, format!("{method} {theirs}"));
    }
    plane
        .post(
            "/v1/graphs/karate/tables",
            json!({"graph_id": "kgffffffffffffffff", "table_name": "A"}),
        )
        .await
        .expect(200);
    assert_eq!(agent.last().body["graph_id"], id);
    for (path, status) in [
        ("tables/a-b", 400),
        ("tables/A/files/..", 404),
        ("tables/A/files/a%2Fb", 400),
        ("tables/A%2F..%2F..%2Fadmin", 400),
    ] {
        let answer = plane
            .call("DELETE", &format!("/v1/graphs/karate/{path}"), EDITOR, None)
            .await;
        assert!(
            answer.status == status || answer.status == 405,
            "{path}: {} {:#}",
            answer.status,
            answer.body
        );
    }
    // What names keys of the whole object store, or databases beside the graph, is the control plane's.
    for path in [
        "backup",
        "restore",
        "export",
        "import",
        "swap",
        "fork-from/x",
        "memory/boost",
        "tables/A/vector/import",
        "tables/A/fork-from/x",
        "tables/A/vector/export",
        "admin/drain",
    ] {
        let answer = plane
            .call("POST", &format!("/v1/graphs/karate/{path}"), EDITOR, Some(json!({})))
            .await;
        assert_eq!(answer.expect(404).problem(), "no-such-route", "{path}");
    }
}

#[tokio::test]
async fn subgraphs_are_reached_by_their_id() {
    let (plane, agent, id) = serving().await;
    plane.subgraph("default", "karate", "dev").await;
    let query = json!({"cypher": "RETURN 1"});
    for graph in [format!("{id}_dev"), "karate_dev".to_owned()] {
        plane
            .post(&format!("/v1/graphs/{graph}/query"), query.clone())
            .await
            .expect(200);
        assert_eq!(agent.last().line, format!("POST /databases/{id}_dev/query"));
    }
    for graph in [format!("{id}_other"), format!("{id}_a_b"), format!("{id}_")] {
        assert_eq!(
            plane
                .post(&format!("/v1/graphs/{graph}/query"), query.clone())
                .await
                .expect(404)
                .problem(),
            "not-found",
            "{graph}"
        );
    }
}

#[tokio::test]
async fn viewers_read_and_nothing_else() {
    let (plane, agent, _) = serving().await;
    let query = |cypher: &str| {
        plane.call(
            "POST",
            "/v1/graphs/karate/query",
            VIEWER,
            Some(json!({ "cypher": cypher })),
        )
    };
    query("MATCH (n) WHERE n.name = 'SET' RETURN n").await.expect(200);
    assert_eq!(
        agent.last().headers["x-graphplane-epoch"],
        "0",
        "the agent runs it read-only"
    );
    for cypher in [
        "CREATE (:A)",
        "MATCH (n) DETACH DELETE n",
        "RETURN 1; DROP TABLE A",
        "COPY A FROM 'x'",
    ] {
        assert_eq!(query(cypher).await.expect(403).problem(), "forbidden", "{cypher}");
    }
    let sql = |sql: &str| {
        plane.call(
            "POST",
            "/v1/graphs/karate/tables/query",
            VIEWER,
            Some(json!({ "sql": sql })),
        )
    };
    sql("SELECT count(*) FROM Airport").await.expect(200);
    assert_eq!(sql("DROP TABLE Airport").await.expect(403).problem(), "forbidden");
    assert_eq!(agent.calls(), 2);
    let call = |method: &'static str, path: &'static str| {
        let body = (method != "GET" && method != "DELETE").then(|| json!({"limit": 1}));
        let path = format!("/v1/graphs/karate/{path}");
        let plane = &plane;
        async move { plane.call(method, &path, VIEWER, body).await }
    };
    for (method, path) in [
        ("GET", "storage"),
        ("GET", "tables/A/rejected?task=t"),
        ("GET", "tables/A/vector"),
        ("POST", "tables/A/vector/search"),
        ("POST", "semantic-memory/search"),
        ("POST", "semantic-memory/list"),
        ("GET", "semantic-memory/rows/mem_1"),
        ("POST", "embeddings"),
    ] {
        call(method, path).await.expect(200);
        assert_eq!(agent.last().headers["x-graphplane-epoch"], "0", "{path}");
    }
    let calls = agent.calls();
    for (method, path) in [
        ("POST", "copy"),
        ("POST", "ingest"),
        ("POST", "rebuild"),
        ("POST", "tables/A/insert"),
        ("POST", "tables/A/vector/build"),
        ("POST", "tables/A/vector/append"),
        ("POST", "tables/A/vector/reindex"),
        ("DELETE", "tables/A/vector"),
        ("POST", "semantic-memory/rows"),
        ("PATCH", "semantic-memory/rows/mem_1"),
        ("DELETE", "semantic-memory/rows/mem_1"),
    ] {
        assert_eq!(call(method, path).await.expect(403).problem(), "forbidden", "{path}");
    }
    assert_eq!(agent.calls(), calls);
}

#[tokio::test]
async fn an_answer_streams_line_by_line() {
    let (plane, agent, _) = serving().await;
    let request = plane.request("POST", "/v1/graphs/karate/query?streaming=true", EDITOR);
    let response = request.json(&json!({"cypher": "RETURN 'lines'"})).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let mut chunks = response.bytes_stream();
    assert_eq!(chunks.next().await.unwrap().unwrap(), "{\"chunk_index\":0}\n");
    // The first line is here although the agent has not made the second one.
    agent.book.next_line.notify_one();
    assert_eq!(chunks.next().await.unwrap().unwrap(), "{\"chunk_index\":1}\n");
    assert!(chunks.next().await.is_none());
}

#[tokio::test]
async fn an_upload_streams_and_waits_for_the_agent() {
    const CHUNK: usize = 64 << 10;
    const CHUNKS: usize = 1024;
    let (plane, agent, _) = serving().await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<bytes::Bytes, std::io::Error>>(1);
    let body = reqwest::Body::wrap_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let request = plane
        .request("PUT", "/v1/graphs/karate/tables/A/files/f1", EDITOR)
        .body(body);
    let sending = tokio::spawn({
        let request = request.header("content-length", (CHUNK * CHUNKS).to_string());
        async move { request.send().await.unwrap() }
    });
    let mut sent = 0;
    let mut feed = async |limit: std::time::Duration| {
        while sent < CHUNKS {
            let chunk = bytes::Bytes::from(vec![b'x'; CHUNK]);
            if tokio::time::timeout(limit, sender.send(Ok(chunk))).await.is_err() {
                break;
            }
            sent += 1;
        }
        sent
    };
    // The agent does not read: what is on the way fits into the buffers of sockets, far less than the whole.
    until("the request is there", async || (agent.calls() > 0).then_some(())).await;
    let held = feed(std::time::Duration::from_millis(500)).await;
    assert!(
        held < CHUNKS / 2,
        "{held} of {CHUNKS} chunks went out although nobody reads them"
    );
    agent.book.reading.store(true, Ordering::SeqCst);
    agent.book.read_on.notify_one();
    assert_eq!(feed(PATIENCE).await, CHUNKS);
    drop(sender);
    let answer: Value = sending.await.unwrap().json().await.unwrap();
    assert_eq!(answer["size_bytes"], CHUNK * CHUNKS);
    let headers = agent.last().headers;
    assert_eq!(
        headers["content-length"].to_str().unwrap(),
        (CHUNK * CHUNKS).to_string(),
        "the length is known to the agent"
    );
}

#[tokio::test]
async fn tasks_of_the_graph_are_listed() {
    let (plane, agent, id) = serving().await;
    let list = plane
        .get("/v1/graphs/karate/tasks?status=running&limit=5")
        .await
        .expect(200);
    assert_eq!(agent.last().line, "GET /tasks?limit=1000&status=running");
    assert_eq!(list.body, json!([]), "{id} has none");
    assert_eq!(
        plane.get("/v1/graphs/karate/tasks?limit=0").await.expect(400).problem(),
        "malformed"
    );
}
