//! Reads go to read fleets, and to the writer when those cannot answer.

use crate::fake_agent::{FakeAgent, KEY};
use crate::plane::{Answer, EDITOR, Plane, VIEWER, conditions_of, until};
use graphplane_crds::{GraphNode, Replica};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A graph with its writer, and a fleet of one node that serves it.
struct Fleet {
    plane: Plane,
    writer: FakeAgent,
    replica: FakeAgent,
}

impl Fleet {
    async fn start(reads: &str) -> Self {
        Self::on(Plane::start().await, reads).await
    }

    async fn on(plane: Plane, reads: &str) -> Self {
        let (writer, replica) = (FakeAgent::start().await, FakeAgent::start().await);
        plane.tier("t").await;
        let id = plane.serving("default", "karate", "n1", &writer.address).await;
        let object: Replica = serde_json::from_value(json!({
            "apiVersion": "graphplane.dev/v1alpha1", "kind": "Replica", "metadata": {"name": "readers"},
            "spec": {"graph": "karate", "reads": reads},
        }))
        .unwrap();
        let fleets: Api<Replica> = Api::namespaced(plane.client.clone(), "default");
        let made = fleets.create(&PostParams::default(), &object).await.unwrap();
        let node: GraphNode = serde_json::from_value(json!({
            "apiVersion": "graphplane.dev/v1alpha1", "kind": "GraphNode", "metadata": {"name": "readers-0"},
            "spec": {"tier": "t", "zone": "local", "role": "replica", "replica": {
                "namespace": "default", "name": "readers", "uid": made.metadata.uid, "graphId": id,
                "seeds": format!("seeds/{id}/readers")}},
        }))
        .unwrap();
        Api::all(plane.client.clone())
            .create(&PostParams::default(), &node)
            .await
            .unwrap();
        let secret: Secret = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "node-readers-0", "labels": {"graphplane.dev/node": "readers-0"}},
            "stringData": {"apiKey": KEY},
        }))
        .unwrap();
        plane
            .system::<Secret>()
            .create(&PostParams::default(), &secret)
            .await
            .unwrap();
        plane.node_status("readers-0", json!({"epoch": 1})).await;
        plane.node_ready("readers-0", &replica.address).await;
        let status = json!({"status": {"conditions": [], "nodes": [{"name": "readers-0", "seedVersion": "4/1"}]}});
        fleets
            .patch_status("readers", &PatchParams::default(), &Patch::Merge(&status))
            .await
            .unwrap();
        let fleet = Self { plane, writer, replica };
        // The caches have it as soon as a request that asks for a replica gets one.
        until("the gateway knows the fleet", async || {
            fleet.ask(EDITOR, Some("replica"), "RETURN 1").await;
            (fleet.replica.calls() > 0).then_some(())
        })
        .await;
        fleet.forget();
        fleet
    }

    fn forget(&self) {
        self.writer.book.seen.lock().clear();
        self.replica.book.seen.lock().clear();
    }

    /// Calls that reached the writer and the replica since the last look.
    fn calls(&self) -> (usize, usize) {
        let calls = (self.writer.calls(), self.replica.calls());
        self.forget();
        calls
    }

    /// Asks until a question reaches them as often as this.
    async fn until_asked(&self, what: &str, calls: (usize, usize)) {
        until(what, async || {
            self.ask(EDITOR, None, "RETURN 1").await.expect(200);
            (self.calls() == calls).then_some(())
        })
        .await
    }

    async fn ask(&self, key: &str, read: Option<&str>, cypher: &str) -> Answer {
        let mut request = self.plane.request("POST", "/v1/graphs/karate/query", key);
        if let Some(read) = read {
            request = request.header("x-graphplane-read", read);
        }
        self.plane.send(request.json(&json!({ "cypher": cypher }))).await
    }
}

#[tokio::test]
async fn what_only_reads_goes_to_a_replica_and_everything_else_to_the_writer() {
    let fleet = Fleet::start("Prefer").await;
    for key in [EDITOR, VIEWER] {
        let answer = fleet.ask(key, None, "MATCH (n) RETURN n").await.expect(200);
        assert_eq!(answer.headers["x-graphplane-node"], "readers-0");
        assert_eq!(fleet.calls(), (0, 1));
    }
    let answer = fleet.ask(EDITOR, None, "CREATE (:A)").await.expect(200);
    assert_eq!(answer.headers["x-graphplane-node"], "n1");
    assert_eq!(fleet.calls(), (1, 0));
    fleet.ask(EDITOR, Some("replica"), "CREATE (:A)").await.expect(200);
    assert_eq!(fleet.calls(), (1, 0), "a change never goes elsewhere");
    fleet.plane.get("/v1/graphs/karate/schema").await.expect(200);
    assert_eq!(fleet.calls(), (0, 1));
    fleet.plane.get("/v1/graphs/karate/tables").await.expect(200);
    assert_eq!(fleet.calls(), (1, 0), "a replica has no staging tables");
    for (path, calls) in [("tables/A/vector/search", (0, 1)), ("semantic-memory/search", (1, 0))] {
        let path = format!("/v1/graphs/karate/{path}");
        let body = Some(json!({"embedding": [1.0], "limit": 1}));
        fleet.plane.call("POST", &path, VIEWER, body).await.expect(200);
        assert_eq!(fleet.calls(), calls, "{path}");
    }
    let wrong = fleet.ask(EDITOR, None, "RETURN 'wrong'").await.expect(400);
    assert_eq!(wrong.body, json!({"detail": "Binder exception: no"}));
    assert_eq!(fleet.calls(), (0, 1), "what is wrong is wrong everywhere");
}

#[tokio::test]
async fn the_description_of_a_graph_says_who_answers_reads() {
    let fleet = Fleet::start("OnRequest").await;
    let graph = fleet.plane.get("/v1/graphs/karate").await.expect(200);
    assert_eq!(graph.body["readEndpoints"], json!([fleet.replica.address]));
}

#[tokio::test]
async fn a_request_may_ask_for_the_writer() {
    let fleet = Fleet::start("Prefer").await;
    fleet.ask(EDITOR, Some("writer"), "RETURN 1").await.expect(200);
    assert_eq!(fleet.calls(), (1, 0));
    let refused = fleet.ask(EDITOR, Some("anybody"), "RETURN 1").await.expect(400);
    assert_eq!(refused.body["errors"][0]["field"], "X-Graphplane-Read");
    assert_eq!(fleet.calls(), (0, 0));
}

#[tokio::test]
async fn a_fleet_on_request_is_asked_by_nobody_else() {
    let fleet = Fleet::start("OnRequest").await;
    fleet.ask(EDITOR, None, "RETURN 1").await.expect(200);
    assert_eq!(fleet.calls(), (1, 0));
    fleet.ask(EDITOR, Some("replica"), "RETURN 1").await.expect(200);
    assert_eq!(fleet.calls(), (0, 1));
}

#[tokio::test]
async fn the_writer_answers_when_no_replica_can() {
    let fleet = Fleet::start("Prefer").await;
    // Its process is gone, and nobody has noticed yet.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    fleet.plane.node_ready("readers-0", &address).await;
    fleet.until_asked("the gateway has heard of the address", (1, 0)).await;
    for _ in 0..20 {
        let answer = fleet.ask(EDITOR, None, "RETURN 1").await.expect(200);
        assert_eq!(answer.headers["x-graphplane-node"], "n1");
    }
    assert_eq!(fleet.calls(), (20, 0));
    let metrics = fleet.plane.get("/metrics").await.body.to_string();
    assert!(metrics.contains("readers-0"), "its failures are counted: {metrics}");
}

#[tokio::test]
async fn a_replica_that_refuses_is_not_asked_at_every_question() {
    for wrong_key in [true, false] {
        let plane = Plane::with(|mut settings| {
            // Longer than the test takes on any machine.
            settings.gateway.breaker.pause = Duration::from_secs(3600);
            settings.gateway.breaker.longest_pause = Duration::from_secs(3600);
            settings
        })
        .await;
        let fleet = Fleet::on(plane, "Prefer").await;
        let refused = || fleet.replica.book.refused.load(Ordering::SeqCst);
        if wrong_key {
            let secrets = fleet.plane.system::<Secret>();
            let patch = json!({"stringData": {"apiKey": "old"}});
            secrets
                .patch("node-readers-0", &PatchParams::default(), &Patch::Merge(&patch))
                .await
                .unwrap();
        } else {
            fleet.replica.book.busy.store(true, Ordering::SeqCst);
        }
        until("the replica has refused", async || {
            fleet.ask(EDITOR, None, "RETURN 1").await.expect(200);
            (refused() > 0).then_some(())
        })
        .await;
        fleet.forget();
        for _ in 0..20 {
            let answer = fleet.ask(EDITOR, None, "RETURN 1").await.expect(200);
            assert_eq!(answer.headers["x-graphplane-node"], "n1");
        }
        assert_eq!((fleet.calls(), refused()), ((20, 0), 1));
    }
}

#[tokio::test]
async fn a_node_that_does_not_renew_or_serves_nothing_is_not_asked() {
    let fleet = Fleet::start("Prefer").await;
    let lost = conditions_of(1, &[("LeaseHeld", "False", "LeaseExpired")]);
    fleet
        .plane
        .node_status("readers-0", json!({ "conditions": lost }))
        .await;
    fleet.until_asked("the writer is asked", (1, 0)).await;
    fleet.plane.node_ready("readers-0", &fleet.replica.address).await;
    fleet.until_asked("the replica is asked", (0, 1)).await;
    let fleets: Api<Replica> = Api::namespaced(fleet.plane.client.clone(), "default");
    let status = json!({"status": {"nodes": [{"name": "readers-0"}]}});
    fleets
        .patch_status("readers", &PatchParams::default(), &Patch::Merge(&status))
        .await
        .unwrap();
    fleet.until_asked("the writer is asked again", (1, 0)).await;
}
