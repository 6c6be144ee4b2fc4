//! NDJSON: every row, an end that says so, and errors that can be read.

use crate::fixture::{Agent, Answer, PEOPLE, eventually};
use futures::StreamExt;
use reqwest::Method;
use serde_json::json;
use std::cell::Cell;

async fn stream(agent: &Agent, cypher: &str) -> Answer {
    let request = agent
        .request(Method::POST, "/databases/kg1/query?streaming=true")
        .json(&json!({"cypher": cypher}));
    Answer::to(request).await
}

#[tokio::test]
async fn chunks_have_the_shape_of_the_contract() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    // An exact multiple of the chunk, and more rows than any JSON answer may have.
    for rows in [0u64, 1, 2000, 2001, 25_000] {
        let answer = stream(&agent, &format!("UNWIND range(1, {rows}) AS i RETURN i")).await;
        assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
        assert_eq!(answer.header("x-streaming"), Some("true"));
        let lines = answer.lines();
        let last = lines.last().unwrap();
        assert_eq!(
            lines.iter().filter(|line| line["is_last_chunk"] == true).count(),
            1,
            "{rows} rows"
        );
        assert_eq!(
            (&last["is_last_chunk"], &last["total_rows_sent"]),
            (&json!(true), &json!(rows)),
            "{rows} rows"
        );
        assert_eq!(
            (&last["database"], last["execution_time_ms"].is_number()),
            (&json!("kg1"), true)
        );
        let mut expected = 1;
        for (index, line) in lines.iter().enumerate() {
            assert_eq!(line["chunk_index"], json!(index));
            assert_eq!(line["columns"], if index == 0 { json!(["i"]) } else { json!([]) });
            for row in line["data"].as_array().unwrap() {
                assert_eq!(row["i"], json!(expected));
                expected += 1;
            }
        }
        assert_eq!(expected, rows + 1);
    }
    let request = agent
        .request(Method::POST, "/databases/kg1/query")
        .header("Accept", "application/x-ndjson")
        .json(&json!({"cypher": "RETURN 1 AS one"}));
    assert_eq!(Answer::to(request).await.lines()[0]["data"], json!([{"one": 1}]));
}

#[tokio::test]
async fn errors_of_a_statement_are_in_the_stream_and_others_are_statuses() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    let answer = stream(&agent, "MATCH (n RETURN n").await;
    assert_eq!(answer.status.as_u16(), 200);
    let error = &answer.lines()[0];
    assert_eq!(
        (&error["error_type"], &error["is_last_chunk"]),
        (&json!("ParserException"), &json!(true))
    );
    assert_eq!(
        (&error["chunk_index"], &error["row_count"], &error["total_rows_sent"]),
        (&json!(0), &json!(0), &json!(0))
    );
    assert_eq!(
        stream(&agent, "MATCH (n:Nobody) RETURN n").await.lines()[0]["error_type"],
        "BinderException"
    );
    stream(&agent, "CREATE DATABASE x").await.fails(403);
    let absent = agent
        .request(Method::POST, "/databases/absent/query?streaming=true")
        .json(&json!({"cypher": "RETURN 1"}));
    Answer::to(absent).await.fails(404);
    let bad = agent
        .request(Method::POST, "/databases/kg1/query?streaming=true")
        .json(&json!({"cypher": "RETURN $p", "parameters": {"p": "x".repeat(20_000)}}));
    Answer::to(bad).await.fails(400);
}

#[tokio::test]
async fn a_reader_that_goes_away_frees_its_place() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    for _ in 0..12 {
        let request = agent
            .request(Method::POST, "/databases/kg1/query?streaming=true")
            .json(&json!({"cypher": "UNWIND range(1, 2000000) AS i RETURN i"}));
        let mut body = request.send().await.unwrap().bytes_stream();
        // One piece, and then the connection is dropped.
        assert!(body.next().await.unwrap().is_ok());
    }
    // More than there are places, so this answers only if they were given back.
    let count = || agent.cypher("kg1", "MATCH (p:Person) RETURN count(p) AS n");
    let counted = eventually("a place is free", count, |answer| answer.status != 503).await;
    assert_eq!(counted.ok()["data"], json!([{"n": 0}]));
}

#[tokio::test]
async fn a_reader_that_is_slow_is_waited_for() {
    const ROWS: u64 = 40_000;
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    let sent = || async {
        let metrics = agent.get("/metrics").await.text;
        let rows = metrics
            .lines()
            .find_map(|line| line.strip_prefix("graphplane_agent_rows_sent_total{engine=\"ladybug\"} "));
        rows.map_or(0, |rows| rows.parse::<u64>().unwrap())
    };
    let request = agent
        .request(Method::POST, "/databases/kg1/query?streaming=true")
        .json(&json!({"cypher": format!("UNWIND range(1, {ROWS}) AS i RETURN repeat('x', 1000) AS text")}));
    let mut body = request.send().await.unwrap().bytes_stream();
    // What the kernel takes is sent at once; then nothing more is read of the result.
    let seen = Cell::new((0, 0));
    let looks = || async {
        let (rows, (before, times)) = (sent().await, seen.get());
        let times = if rows == before { times + 1 } else { 0 };
        seen.set((rows, times));
        seen.get()
    };
    let (rows, _) = eventually("the stream waits", looks, |(rows, times)| *rows > 0 && *times == 20).await;
    assert!(
        rows < ROWS / 2,
        "{rows} rows were read of the result, and nobody has taken them"
    );
    let mut end = Vec::new();
    while let Some(piece) = body.next().await {
        end.extend_from_slice(&piece.unwrap());
        end.drain(..end.len().saturating_sub(200));
    }
    assert!(String::from_utf8_lossy(&end).contains(&format!("\"total_rows_sent\":{ROWS}")));
}

#[tokio::test]
async fn health_answers_while_queries_run() {
    let agent = Agent::with(&["--query-timeout-seconds", "600"]).await;
    agent.database("kg2", PEOPLE).await;
    agent.cypher("kg2", "RETURN 1").await.ok();
    agent
        .database("kg1", "CREATE NODE TABLE N(id INT64 PRIMARY KEY);")
        .await;
    agent
        .cypher("kg1", "UNWIND range(1, 3000) AS i CREATE (:N {id: i})")
        .await
        .ok();
    let slow = "MATCH (a:N), (b:N), (c:N), (d:N) WHERE a.id + b.id + c.id + d.id = -1 RETURN count(*)";
    let long = agent
        .request(Method::POST, "/databases/kg1/query")
        .json(&json!({"cypher": slow}));
    let long = tokio::spawn(async move { Answer::to(long).await });
    agent.runs("kg1", 1).await;
    // All of these end before the one query that was there first.
    for _ in 0..10 {
        agent.get("/health").await.ok();
        agent.get("/info").await.ok();
        agent.cypher("kg2", "MATCH (p:Person) RETURN count(p)").await.ok();
    }
    assert!(!long.is_finished(), "the long query ended first, so nothing was shown");
    long.abort();
    agent
        .post("/databases/kg1/query", json!({"cypher": slow, "timeout": 1}))
        .await
        .fails(408);
}
