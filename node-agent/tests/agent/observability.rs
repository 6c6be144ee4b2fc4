//! Metrics, and what the process costs.

use crate::fixture::{Agent, Answer, PEOPLE, people};
use reqwest::Method;
use serde_json::json;

async fn metrics(agent: &Agent, accept: &str) -> Answer {
    Answer::to(agent.bare(Method::GET, "/metrics").header("Accept", accept)).await
}

fn sample(text: &str, series: &str) -> f64 {
    let line = text
        .lines()
        .find(|line| line.starts_with(series))
        .unwrap_or_else(|| panic!("{series} is missing:\n{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn prometheus_text_and_the_json_of_the_contract() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    agent.put("/databases/kg1/tables/Person/files/f", people(10)).await.ok();
    agent
        .post("/databases/kg1/tables/Person/materialize", json!({}))
        .await
        .ok();
    for _ in 0..3 {
        agent.cypher("kg1", "MATCH (p:Person) RETURN p.identifier").await.ok();
    }
    agent.cypher("kg1", "nonsense").await.fails(400);
    for accept in ["text/plain", "*/*"] {
        let text = metrics(&agent, accept).await;
        assert!(text.header("content-type").unwrap().starts_with("text/plain"));
        let text = text.text;
        assert_eq!(
            sample(
                &text,
                "graphplane_agent_requests_total{operation=\"query\",code=\"2xx\"}"
            ),
            3.0
        );
        assert_eq!(
            sample(
                &text,
                "graphplane_agent_requests_total{operation=\"query\",code=\"4xx\"}"
            ),
            1.0
        );
        assert_eq!(
            sample(
                &text,
                "graphplane_agent_request_duration_seconds_count{operation=\"query\"}"
            ),
            4.0
        );
        assert_eq!(
            sample(&text, "graphplane_agent_rows_sent_total{engine=\"ladybug\"}"),
            30.0
        );
        assert_eq!(sample(&text, "graphplane_agent_staged_rows_total"), 10.0);
        assert_eq!(sample(&text, "graphplane_agent_materialized_rows_total"), 10.0);
        assert_eq!(sample(&text, "graphplane_agent_state{state=\"standalone\"}"), 1.0);
        assert_eq!(sample(&text, "graphplane_agent_tasks{status=\"completed\"}"), 1.0);
        let loads = "graphplane_agent_task_duration_seconds_count{task_type=\"ingestion\",status=\"completed\"}";
        assert_eq!(sample(&text, loads), 1.0);
        assert_eq!(sample(&text, "graphplane_agent_databases{state=\"all\"}"), 1.0);
        assert!(sample(&text, "graphplane_agent_memory_bytes{kind=\"resident\"}") > 1e6);
        assert!(
            sample(
                &text,
                "graphplane_agent_database_size_bytes{database=\"kg1\",kind=\"graph\"}"
            ) > 0.0
        );
    }
    let open = metrics(&agent, "application/openmetrics-text").await;
    assert!(
        open.header("content-type")
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    assert!(open.text.ends_with("# EOF\n"));

    let json = metrics(&agent, "application/json").await.ok();
    assert_eq!(json["databases"]["count"], 1);
    for field in [
        "timestamp",
        "system",
        "databases",
        "queries",
        "ingestion",
        "admission_control",
        "cluster",
    ] {
        assert!(json.get(field).is_some(), "{field} is missing: {json}");
    }
    assert!(json["queries"]["total_queries"].as_u64().unwrap() >= 3);
    agent.delete("/databases/kg1").await.ok();
    assert!(
        !metrics(&agent, "*/*").await.text.contains("database=\"kg1\""),
        "a deleted database is still shown"
    );
}

#[tokio::test]
async fn logs_are_json_lines_with_graph_operation_and_duration() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    let log = agent.log();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
        .collect();
    let request = lines
        .iter()
        .find(|line| line["operation"] == "create_database")
        .unwrap();
    assert_eq!(request["graph"], "kg1");
    assert!(request["duration_ms"].is_number());
}

#[tokio::test]
async fn an_idle_agent_is_small() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    agent.cypher("kg1", "RETURN 1").await.ok();
    // Of the 120 MiB that an idle agent may have, two thirds; the rest is its code, of which an unoptimised build has
    // several times as much. The `idle` bench measures the whole of a release build.
    let allocated = agent.allocated_bytes();
    assert!(allocated < 80 << 20, "{} MiB with one empty database", allocated >> 20);
}
