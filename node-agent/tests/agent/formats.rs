//! Rows in other forms than JSON lines: Arrow and server-sent events.

use crate::fixture::{Agent, Answer, PEOPLE, people};
use arrow::{ipc::reader::StreamReader, record_batch::RecordBatch};
use futures::StreamExt;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use std::io::Cursor;

const ARROW: &str = "application/vnd.apache.arrow.stream";
const SSE: &str = "text/event-stream";

async fn ask(agent: &Agent, path: &str, accept: &str, body: Value) -> Response {
    let request = agent.request(Method::POST, path).header("Accept", accept).json(&body);
    request.send().await.unwrap()
}

fn rows(bytes: &[u8]) -> usize {
    let reader = StreamReader::try_new(Cursor::new(bytes), None).unwrap();
    reader.map(|batch| RecordBatch::num_rows(&batch.unwrap())).sum()
}

/// Names and data of the events, without comments.
fn events(text: &str) -> Vec<(String, Value)> {
    let event = |block: &str| {
        let field = |name: &str| {
            block
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::to_owned)
        };
        Some((field("event: ")?, serde_json::from_str(&field("data: ")?).unwrap()))
    };
    text.split("\n\n").filter_map(event).collect()
}

#[tokio::test]
async fn arrow_streams_have_every_row_and_errors_are_statuses() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    agent
        .put("/databases/kg1/tables/Person/files/f", people(5000))
        .await
        .ok();
    for (path, body, expected) in [
        (
            "/databases/kg1/query",
            json!({"cypher": "UNWIND range(1, 25000) AS i RETURN i, 'é' AS s"}),
            25_000,
        ),
        (
            "/databases/kg1/query",
            json!({"cypher": "MATCH (p:Person) RETURN p"}),
            0,
        ),
        (
            "/databases/kg1/tables/query",
            json!({"sql": "SELECT * FROM Person"}),
            5000,
        ),
        (
            "/databases/kg1/tables/query",
            json!({"sql": "SELECT * FROM Person WHERE identifier < 0"}),
            0,
        ),
    ] {
        let response = ask(&agent, path, ARROW, body.clone()).await;
        assert_eq!(response.status().as_u16(), 200, "{body}");
        assert_eq!(response.headers()["content-type"], ARROW);
        let bytes = response.bytes().await.unwrap();
        assert_eq!(rows(&bytes), expected, "{body}");
    }
    for (path, body) in [
        ("/databases/kg1/query", json!({"cypher": "MATCH (n RETURN n"})),
        ("/databases/kg1/tables/query", json!({"sql": "SELECT nothing"})),
    ] {
        Answer::of(ask(&agent, path, ARROW, body).await).await.fails(400);
    }
}

#[tokio::test]
async fn what_breaks_in_the_middle_is_seen_in_every_format() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    // The last rows hold a date that no format has.
    let body = json!({"cypher": "UNWIND range(1, 5000) AS i \
        RETURN CASE WHEN i = 4500 THEN date('20000-01-01') ELSE date('2020-01-01') END AS d"});
    let path = "/databases/kg1/query";
    let response = ask(&agent, path, ARROW, body.clone()).await;
    assert_eq!(response.status().as_u16(), 200);
    let (mut bytes, mut broken) = (Vec::new(), false);
    let mut stream = response.bytes_stream();
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(piece) => bytes.extend_from_slice(&piece),
            Err(_) => broken = true,
        }
    }
    assert!(broken, "the body ended as if it were whole");
    assert!(rows(&bytes) < 4500);

    let answer = Answer::of(ask(&agent, path, SSE, body.clone()).await).await;
    let events = events(&answer.text);
    let (name, data) = events.last().unwrap();
    assert_eq!(
        (name.as_str(), data["error_type"].as_str()),
        ("error", Some("RuntimeError"))
    );
    assert!(!events.iter().any(|(name, _)| name == "completed"));
    agent.post(path, body).await.fails(400);
}

#[tokio::test]
async fn events_of_a_cypher_query_have_the_fields_of_the_contract() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    let body = json!({"cypher": "UNWIND range(1, 2500) AS i RETURN i"});
    let response = ask(&agent, "/databases/kg1/query", SSE, body).await;
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    assert_eq!(response.headers()["x-stream-format"], "sse");
    assert_eq!(response.headers()["x-graph-id"], "kg1");
    let answer = Answer::of(response).await;
    let events = events(&answer.text);
    let names: Vec<_> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "started",
            "chunk",
            "progress",
            "chunk",
            "progress",
            "chunk",
            "progress",
            "completed"
        ]
    );
    assert_eq!(events[0].1["graph_id"], "kg1");
    let mut next = 1;
    for (index, (_, chunk)) in events.iter().filter(|(name, _)| name == "chunk").enumerate() {
        assert_eq!(chunk["chunk_index"], json!(index));
        for row in chunk["rows"].as_array().unwrap() {
            assert_eq!(row, &json!({"i": next}));
            next += 1;
        }
        assert_eq!(chunk["total_rows_sent"], json!(next - 1));
        assert_eq!(chunk["is_last_chunk"], json!(next == 2501));
    }
    let (_, completed) = events.last().unwrap();
    assert_eq!(completed["total_rows"], json!(2500));
    let failed = ask(
        &agent,
        "/databases/kg1/query",
        SSE,
        json!({"cypher": "MATCH (n RETURN n"}),
    )
    .await;
    let failed = self::events(&Answer::of(failed).await.text);
    assert_eq!(
        (failed[0].0.as_str(), &failed[0].1["error_type"]),
        ("error", &json!("ParserException"))
    );
}
