//! Callers that go away: whatever form they asked for, and however far their statement was, the engine stops working for
//! them at once, long before any time limit.

use crate::fixture::{Agent, Answer, PEOPLE, eventually, people};
use futures::{StreamExt, future::join_all};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

const FORMS: [&str; 4] = [
    "application/json",
    "application/x-ndjson",
    "text/event-stream",
    "application/vnd.apache.arrow.stream",
];

/// Two statements for each engine: one that would take hours to its first row, and one with more rows than there is room
/// for between two programs.
fn statements() -> [(&'static str, Value, Value); 2] {
    [
        (
            "/databases/kg1/query",
            // Short lists: the engine makes those of 2,048 rows at once, and longer ones need more memory than there is.
            json!({"cypher": "UNWIND range(1, 1000) AS a UNWIND range(1, 1000) AS b UNWIND range(1, 1000) AS c \
                UNWIND range(1, 1000) AS d WITH a, b, c, d WHERE a * b * c * d = -1 RETURN a"}),
            json!({"cypher": "UNWIND range(1, 2000000) AS i RETURN i, i + 1 AS j, i + 2 AS k"}),
        ),
        (
            "/databases/kg1/tables/query",
            json!({"sql": "SELECT a.i FROM range(3000000) a(i), range(3000000) b(i) WHERE a.i * b.i = -1"}),
            json!({"sql": "SELECT i, i + 1 AS j, i + 2 AS k FROM range(5000000) t(i)"}),
        ),
    ]
}

async fn agent() -> Agent {
    // Longer than any of these tests waits: only the caller's absence can end a statement.
    let agent = Agent::with(&["--query-timeout-seconds", "3600"]).await;
    agent.database("kg1", PEOPLE).await;
    agent.put("/databases/kg1/tables/Person/files/f", people(10)).await.ok();
    agent
}

fn ask(agent: &Agent, path: &str, form: &str, body: &Value) -> RequestBuilder {
    agent.request(Method::POST, path).header("Accept", form).json(body)
}

/// Waits until requests hold this many places, and as many statements are inside of the engines, or none.
async fn places(agent: &Agent, wanted: u64) {
    let look = || async {
        let seen = agent.get("/admin/connections").await.ok();
        (seen["active_connections"].clone(), seen["active_queries"].clone())
    };
    eventually(&format!("{wanted} at work"), look, |(places, statements)| {
        *places == wanted && (wanted > 0 || *statements == 0)
    })
    .await;
}

/// Both engines answer, which the staging tables do only while one of their four places is free.
async fn answers(agent: &Agent) {
    agent.cypher("kg1", "RETURN 1").await.ok();
    let sql = || agent.post("/databases/kg1/tables/query", json!({"sql": "SELECT 1"}));
    eventually("SQL is answered", sql, |answer| answer.status == 200).await;
}

/// What a caller is told instead of being made to wait.
async fn refusal(caller: &mut JoinHandle<reqwest::Result<Response>>) -> String {
    match caller.await.unwrap() {
        Ok(response) => format!("{} {}", response.status(), response.text().await.unwrap_or_default()),
        Err(error) => format!("{error:?}"),
    }
}

#[tokio::test]
async fn before_the_first_row() {
    let agent = agent().await;
    for (path, silent, _) in statements() {
        for form in FORMS {
            let mut caller = tokio::spawn(ask(&agent, path, form, &silent).send());
            tokio::select! {
                () = places(&agent, 1) => {}
                refused = refusal(&mut caller) => panic!("{path} {form}: {refused}"),
            }
            caller.abort();
            // With its answer, if it has one: some forms begin before there is a row.
            drop(caller);
            places(&agent, 0).await;
        }
        answers(&agent).await;
    }
}

#[tokio::test]
async fn in_the_middle_of_the_rows() {
    let agent = agent().await;
    for (path, _, long) in statements() {
        // The first form is one document, which is sent when it is whole.
        for form in FORMS[1..].iter().cycle().take(6) {
            let response = ask(&agent, path, form, &long).send().await.unwrap();
            assert_eq!(response.status().as_u16(), 200, "{path} {form}");
            let mut rows = response.bytes_stream();
            assert!(rows.next().await.unwrap().is_ok(), "{path} {form}");
            places(&agent, 1).await;
            drop(rows);
            places(&agent, 0).await;
        }
        answers(&agent).await;
    }
}

/// Who has to wait for a place is told in time why there is none, and when to come back.
#[tokio::test]
async fn while_others_wait_for_the_place() {
    let agent = Agent::with(&["--query-timeout-seconds", "3600", "--connections-per-database", "1"]).await;
    agent.database("kg1", PEOPLE).await;
    agent.database("kg2", PEOPLE).await;
    let [(path, silent, _), _] = statements();
    let first = tokio::spawn(ask(&agent, path, FORMS[0], &silent).send());
    agent.runs("kg1", 1).await;
    let others = FORMS.map(|form| Answer::to(ask(&agent, path, form, &json!({"cypher": "RETURN 1"}))));
    for refused in join_all(others).await {
        let detail = refused.fails(503);
        assert_eq!(detail["decision"], "reject_connections", "{detail}");
        assert!(detail["reason"].as_str().unwrap().contains("kg1"), "{detail}");
        assert_eq!(
            refused.header("retry-after").unwrap(),
            detail["retry_after"].to_string()
        );
    }
    // Another database has places of its own.
    assert_eq!(agent.number("kg2", "RETURN 1").await, 1);
    let metrics = agent.get("/metrics").await.text;
    let refusals = "graphplane_agent_rejected_total{reason=\"queue\"} 4";
    assert!(metrics.contains(refusals), "{metrics}");
    first.abort();
    places(&agent, 0).await;
    assert_eq!(agent.number("kg1", "RETURN 1").await, 1);
}
