//! The gateway when nodes are not ready, not there, or slow, and when clients go away.

use crate::fake_agent::FakeAgent;
use crate::plane::{EDITOR, PATIENCE, Plane, conditions_of, until};
use futures::StreamExt;
use serde_json::json;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};

const READ: &str = "MATCH (n) RETURN n";
const WRITE: &str = "CREATE (:A)";

async fn query(plane: &Plane, cypher: &str) -> crate::plane::Answer {
    plane.post("/v1/graphs/karate/query", json!({ "cypher": cypher })).await
}

/// A port on which nobody listens, and which nobody else gets while the socket is there.
fn silent_port() -> (String, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    (format!("http://{}", socket.local_addr().unwrap()), socket)
}

#[tokio::test]
async fn what_is_not_ready_says_why_and_when_to_come_back() {
    let plane = Plane::start().await;
    plane.tier("t").await;
    assert_eq!(query(&plane, READ).await.expect(404).problem(), "not-found");
    plane
        .post("/v1/graphs", json!({"name": "karate", "tier": "t"}))
        .await
        .expect(202);
    let refused = async |reason: &str| {
        let answer = query(&plane, READ).await.expect(503);
        assert_eq!(
            (answer.problem(), answer.text("/reason").as_str()),
            ("not-ready", reason),
            "{:#}",
            answer.body
        );
        assert!(answer.headers["retry-after"].to_str().unwrap().parse::<u32>().unwrap() > 0);
    };
    refused("Pending").await;
    plane
        .graph_status("default", "karate", json!({}), &[("Ready", "False", "NoCapacity")])
        .await;
    refused("NoCapacity").await;
    plane.node("n1", "x", 4).await;
    let creating = [("DatabaseReady", "False", "CreatingDatabase")];
    plane
        .graph_status("default", "karate", json!({"node": "n1"}), &creating)
        .await;
    refused("CreatingDatabase").await;
    plane
        .graph_status(
            "default",
            "karate",
            json!({}),
            &[("DatabaseReady", "True", "DatabaseCreated")],
        )
        .await;
    refused("WaitingForRegistration").await;
    let lost = conditions_of(1, &[("LeaseHeld", "False", "LeaseExpired")]);
    plane.node_status("n1", json!({ "conditions": lost })).await;
    refused("LeaseExpired").await;
    let change = json!({"suspended": true});
    plane
        .call("PATCH", "/v1/graphs/karate", EDITOR, Some(change))
        .await
        .expect(202);
    refused("Suspended").await;
}

#[tokio::test]
async fn who_has_seen_ready_is_served_at_once() {
    let plane = Plane::start().await;
    let agent = FakeAgent::start().await;
    plane.tier("t").await;
    // The state is written past this server, whose caches hear of it a moment later.
    for n in 0..10 {
        let name = format!("g{n}");
        plane.serving("default", &name, "n1", &agent.address).await;
        plane
            .post(&format!("/v1/graphs/{name}/query"), json!({"cypher": READ}))
            .await
            .expect(200);
    }
}

#[tokio::test]
async fn the_circuit_of_a_dead_node_opens_and_closes_again() {
    let plane = Plane::with(|mut settings| {
        settings.gateway.breaker.failures = 3;
        // Longer than four calls take on any machine.
        settings.gateway.breaker.pause = Duration::from_secs(5);
        settings.gateway.attempts = 1;
        settings
    })
    .await;
    plane.tier("t").await;
    let (url, socket) = silent_port();
    plane.serving("default", "karate", "n1", &url).await;
    let mut kinds = Vec::new();
    for _ in 0..4 {
        let answer = query(&plane, WRITE).await.expect(503);
        assert!(answer.headers.contains_key("retry-after"));
        kinds.push(answer.problem().to_owned());
    }
    assert_eq!(kinds, ["unavailable", "unavailable", "unavailable", "circuit-open"]);
    let metrics = plane.get("/metrics").await.body.as_str().unwrap().to_owned();
    assert!(
        metrics.contains("graphplane_api_gateway_circuit{node=\"n1\"} 2"),
        "{metrics}"
    );
    let agent = FakeAgent::on(socket.listen(64).unwrap());
    until("the circuit is closed", async || {
        (query(&plane, WRITE).await.status == 200).then_some(())
    })
    .await;
    query(&plane, WRITE).await.expect(200);
    assert!(agent.calls() >= 2);
}

#[tokio::test]
async fn reads_find_an_agent_that_moved_and_writes_are_sent_once() {
    let plane = Plane::start().await;
    plane.tier("t").await;
    let (dead, _socket) = silent_port();
    plane.serving("default", "karate", "n1", &dead).await;
    assert_eq!(query(&plane, WRITE).await.expect(503).problem(), "unavailable");
    let before = retries(&plane).await;
    assert_eq!(query(&plane, READ).await.expect(503).problem(), "unavailable");
    assert_eq!(retries(&plane).await, before + 2, "a reading call is tried three times");
    assert_eq!(query(&plane, WRITE).await.expect(503).problem(), "unavailable");
    assert_eq!(retries(&plane).await, before + 2, "a writing call is tried once");
    let agent = FakeAgent::start().await;
    plane.node_ready("n1", &agent.address).await;
    until("the new address is known", async || {
        (query(&plane, READ).await.status == 200).then_some(())
    })
    .await;
}

async fn retries(plane: &Plane) -> u64 {
    let metrics = plane.get("/metrics").await.body.as_str().unwrap().to_owned();
    let line = metrics
        .lines()
        .find(|line| line.starts_with("graphplane_api_gateway_retries_total"))
        .unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_agents_work() {
    let plane = Plane::start().await;
    let agent = FakeAgent::start().await;
    plane.tier("t").await;
    plane.serving("default", "karate", "n1", &agent.address).await;

    // Before the answer has begun.
    let request = plane
        .request("POST", "/v1/graphs/karate/query", EDITOR)
        .json(&json!({"cypher": "RETURN 'never'"}));
    let waiting = tokio::spawn(async move { request.send().await.map(drop) });
    until("the agent works", async || (agent.calls() == 1).then_some(())).await;
    waiting.abort();
    tokio::time::timeout(PATIENCE, agent.book.gone.notified())
        .await
        .expect("the agent's work ends");

    // In the middle of it.
    let request = plane
        .request("POST", "/v1/graphs/karate/query", EDITOR)
        .json(&json!({"cypher": "RETURN 'lines'"}));
    let mut lines = request.send().await.unwrap().bytes_stream();
    lines.next().await.unwrap().unwrap();
    drop(lines);
    tokio::time::timeout(PATIENCE, agent.book.gone.notified())
        .await
        .expect("the stream ends");
}

#[tokio::test]
async fn an_agent_that_does_not_answer_is_a_timeout() {
    let plane = Plane::with(|mut settings| {
        settings.gateway.answer_timeout = Duration::from_secs(5);
        settings
    })
    .await;
    let agent = FakeAgent::start().await;
    plane.tier("t").await;
    plane.serving("default", "karate", "n1", &agent.address).await;
    let body = json!({"type": "ddl", "ddl": "x", "cypher": "RETURN 'never'"});
    // Queries may take as long as the tier says; a request for figures may not.
    let request = plane.request("DELETE", "/v1/graphs/karate/tables/A", EDITOR);
    plane.send(request).await.expect(200);
    let late = plane
        .send(plane.request("GET", "/v1/graphs/karate/metrics", EDITOR).json(&body))
        .await;
    assert_eq!(late.status, 200, "bodies of GET requests are not sent on");
    let stuck = TcpListener::bind("127.0.0.1:0").await.unwrap();
    plane
        .node_ready("n1", &format!("http://{}", stuck.local_addr().unwrap()))
        .await;
    let timeout = until("the silent agent is asked", async || {
        let answer = plane.get("/v1/graphs/karate/metrics").await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    assert_eq!((timeout.status, timeout.problem()), (504, "upstream-timeout"));
}

#[tokio::test]
async fn a_key_that_the_agent_refuses_is_not_the_clients_fault() {
    let plane = Plane::start().await;
    let agent = FakeAgent::start().await;
    plane.tier("t").await;
    plane.serving("default", "karate", "n1", &agent.address).await;
    query(&plane, READ).await.expect(200);
    let patch = json!({"stringData": {"apiKey": "old"}});
    let secrets = plane.system::<k8s_openapi::api::core::v1::Secret>();
    secrets
        .patch(
            "node-n1",
            &kube::api::PatchParams::default(),
            &kube::api::Patch::Merge(&patch),
        )
        .await
        .unwrap();
    let refused = until("the wrong key is used", async || {
        let answer = query(&plane, READ).await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    assert_eq!(
        (refused.status, refused.text("/reason").as_str()),
        (503, "AgentKeyRefused")
    );
    assert!(!refused.headers.contains_key("www-authenticate"));
}
