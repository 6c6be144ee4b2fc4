//! Weaknesses of the agent that this one replaces, where no other test would find them; docs/development.md has the list.

use crate::fixture::{Agent, PEOPLE};
use futures::future::join_all;

/// There a connection was handed to several threads, and the oldest of three was closed while it was in use.
#[tokio::test]
async fn many_queries_at_once_all_get_their_answer() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    let queries = (1..=24u64).map(|n| {
        let (agent, text) = (&agent, format!("UNWIND range(1, 400000) AS x RETURN max(x) + {n}"));
        async move { agent.number("kg1", &text).await }
    });
    let answers = join_all(queries).await;
    assert_eq!(answers, (1..=24u64).map(|n| 400_000 + n).collect::<Vec<_>>());
}

/// There a processor that was busy to 90 % was a reason to refuse queries.
#[tokio::test]
async fn a_busy_processor_is_no_reason_to_refuse() {
    let agent = Agent::start().await;
    for id in ["kg1", "kg2"] {
        agent.database(id, PEOPLE).await;
    }
    let long =
        "UNWIND range(1, 3000) AS x UNWIND range(1, 3000) AS y UNWIND range(1, 3000) AS z RETURN sum(x * y % 7 + z)";
    let path = "/databases/kg1/query";
    let busy = || async {
        let body = serde_json::json!({"cypher": long});
        agent.request(reqwest::Method::POST, path).json(&body).send().await
    };
    let others = async {
        agent.runs("kg1", 2).await;
        for _ in 0..20 {
            assert_eq!(agent.number("kg2", "RETURN 1").await, 1);
        }
    };
    // The long ones are given up as soon as the others are through.
    tokio::select! {
        _ = async { tokio::join!(busy(), busy()) } => panic!("they were to take longer"),
        () = others => {}
    }
}
