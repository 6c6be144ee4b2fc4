//! Node agents: one-time token, credential, epoch, lease.

use crate::plane::{ADMIN, Answer, Plane, until};
use graphplane_crds::GraphNode;
use graphplane_crds::node::GraphNodeStatus;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

fn registration(node: &str) -> Value {
    json!({
        "node": node, "address": "http://127.0.0.1:41233", "instanceId": "local-1", "agentVersion": "0.1.0",
        "engines": {"ladybug": "0.22.1", "ladybugStorage": "49", "duckdb": "1.5.6"},
        "capacity": {"memoryMiB": 7168, "databases": 10, "diskMiB": 10000}, "databases": [], "volumeEpoch": 3,
        "aFieldOfALaterVersion": true,
    })
}

fn renewal(epoch: u64) -> Value {
    json!({
        "epoch": epoch, "address": "http://127.0.0.1:41233",
        "databases": [{"id": "kg0123456789abcdef", "sizeBytes": 123, "stagingBytes": 0}],
        "memoryUsedMiB": 80, "diskUsedMiB": 12, "diskFreeMiB": 9000, "fenced": false, "activeQueries": 0,
    })
}

async fn register(plane: &Plane, token: &str, body: Value) -> Answer {
    plane.call("POST", "/v1/nodes/register", token, Some(body)).await
}

async fn renew(plane: &Plane, node: &str, token: &str, body: Value) -> Answer {
    plane
        .call("POST", &format!("/v1/nodes/{node}/lease"), token, Some(body))
        .await
}

async fn status(plane: &Plane, node: &str) -> GraphNodeStatus {
    Api::<GraphNode>::all(plane.client.clone())
        .get(node)
        .await
        .unwrap()
        .status
        .unwrap()
}

async fn lease(plane: &Plane, node: &str) -> Option<Lease> {
    plane.system::<Lease>().get_opt(&format!("node-{node}")).await.unwrap()
}

#[tokio::test]
async fn a_bootstrap_token_is_good_once_and_the_credential_always() {
    let plane = Plane::start().await;
    plane.tier("t").await;
    plane.node("n1", "once", 4).await;
    let first = register(&plane, "once", registration("n1")).await.expect(200);
    let credential = first.text("/credential");
    assert_eq!(
        (
            first.body["epoch"].clone(),
            first.body["leaseDurationSeconds"].clone(),
            first.body["renewIntervalSeconds"].clone()
        ),
        (json!(4), json!(15), json!(5))
    );
    assert_eq!(
        (first.text("/node"), first.text("/role")),
        ("n1".into(), "writer".into())
    );
    let settings = &first.body["settings"];
    assert_eq!(
        (
            settings["engine"]["queryTimeoutSeconds"].clone(),
            settings["memory"]["perDatabaseMiB"].clone()
        ),
        (json!(7), json!(128))
    );
    assert_eq!(
        (
            settings["databasesPerNode"].clone(),
            settings["copy"]["timeoutSeconds"].clone()
        ),
        (json!(10), json!(300))
    );

    let written = status(&plane, "n1").await.registration.unwrap();
    assert_eq!(
        (written.address.as_str(), written.epoch.0, written.capacity.databases),
        ("http://127.0.0.1:41233", 4, 10)
    );
    let secret = plane.system::<Secret>().get("node-n1").await.unwrap();
    let data = secret.data.unwrap();
    assert!(!data.contains_key("bootstrapTokenSha256") && data.contains_key("credentialSha256"));
    assert_eq!(data["apiKey"].0, first.text("/apiKey").into_bytes());
    assert!(!format!("{data:?}").contains(&credential));

    assert_eq!(
        register(&plane, "once", registration("n1")).await.expect(401).problem(),
        "unauthorized"
    );
    let mut moved = registration("n1");
    moved["address"] = json!("http://127.0.0.1:5/");
    let again = register(&plane, &credential, moved).await.expect(200);
    assert!(again.body.get("credential").is_none());
    assert_eq!(again.text("/apiKey"), first.text("/apiKey"));
    assert_eq!(
        status(&plane, "n1").await.registration.unwrap().address,
        "http://127.0.0.1:5"
    );
}

#[tokio::test]
async fn of_simultaneous_registrations_with_one_token_one_succeeds() {
    let plane = Plane::start().await;
    plane.tier("t").await;
    plane.node("n1", "once", 4).await;
    let attempts = (0..6).map(|_| register(&plane, "once", registration("n1")));
    let answers = futures::future::join_all(attempts).await;
    let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 401, 401, 401, 401, 401]);
}

#[tokio::test]
async fn a_refused_registration_changes_nothing_and_leaves_the_token() {
    let plane = Plane::start().await;
    plane.node("n1", "once", 4).await;
    assert_eq!(
        register(&plane, "wrong", registration("n1"))
            .await
            .expect(401)
            .problem(),
        "unauthorized"
    );
    assert_eq!(
        register(&plane, "once", registration("n2")).await.expect(401).problem(),
        "unauthorized"
    );
    assert_eq!(
        register(&plane, ADMIN, registration("n1")).await.expect(401).problem(),
        "unauthorized",
        "API keys are no tokens"
    );
    let mut wrong = registration("n1");
    wrong["address"] = json!("ftp://x");
    wrong["instanceId"] = json!("");
    let refused = register(&plane, "once", wrong).await.expect(422);
    assert_eq!(
        (refused.text("/errors/0/field"), refused.text("/errors/0/value")),
        ("address".into(), "ftp://x".into())
    );
    assert_eq!(refused.text("/errors/1/field"), "instanceId");
    let mut untyped = registration("n1");
    untyped["capacity"]["memoryMiB"] = json!("much");
    assert_eq!(
        register(&plane, "once", untyped)
            .await
            .expect(422)
            .text("/errors/0/field"),
        "capacity.memoryMiB"
    );
    // The tier is missing: the agent would have no settings.
    let waiting = register(&plane, "once", registration("n1")).await.expect(503);
    assert_eq!(
        (waiting.problem(), waiting.headers.contains_key("retry-after")),
        ("unavailable", true)
    );
    plane.tier("t").await;
    let mut newer = registration("n1");
    newer["volumeEpoch"] = json!(5);
    let stale = register(&plane, "once", newer).await.expect(409);
    assert_eq!(stale.problem(), "epoch");
    assert!(stale.text("/detail").contains('5') && stale.text("/detail").contains('4'));
    assert!(status(&plane, "n1").await.registration.is_none());
    register(&plane, "once", registration("n1")).await.expect(200);
}

#[tokio::test]
async fn a_node_without_an_epoch_has_to_wait() {
    let plane = Plane::start().await;
    plane.tier("t").await;
    plane.node("n1", "once", 4).await;
    plane.node_status("n1", json!({"epoch": null})).await;
    assert_eq!(
        register(&plane, "once", registration("n1")).await.expect(503).problem(),
        "unavailable"
    );
    plane.node_status("n1", json!({"epoch": 5})).await;
    assert_eq!(
        register(&plane, "once", registration("n1")).await.expect(200).body["epoch"],
        5
    );
}

#[tokio::test]
async fn a_lease_is_renewed_with_what_the_node_uses() {
    let plane = Plane::start().await;
    plane.tier("t").await;
    plane.node("n1", "once", 4).await;
    let credential = register(&plane, "once", registration("n1"))
        .await
        .expect(200)
        .text("/credential");
    assert_eq!(
        renew(&plane, "n1", "once", renewal(4)).await.expect(401).problem(),
        "unauthorized"
    );
    let renewed = renew(&plane, "n1", &credential, renewal(4)).await.expect(200);
    assert_eq!(
        (renewed.body["epoch"].clone(), renewed.body["draining"].clone()),
        (json!(4), json!(false))
    );
    assert_eq!(renewed.body["settings"]["engine"]["queryTimeoutSeconds"], 7);

    let written = lease(&plane, "n1").await.unwrap();
    let usage = &written.metadata.annotations.as_ref().unwrap()["graphplane.dev/usage"];
    let usage = graphplane_core::usage::Usage::parse(usage).unwrap();
    assert_eq!(
        (usage.epoch, usage.disk_used_mib, usage.databases[0].size_bytes),
        (4, 12, 123)
    );
    let spec = written.spec.clone().unwrap();
    assert_eq!(
        (spec.lease_duration_seconds, spec.holder_identity.as_deref()),
        (Some(15), Some("local-1"))
    );
    let owner = &written.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("GraphNode", "n1"));
    renew(&plane, "n1", &credential, renewal(4)).await.expect(200);
    let later = lease(&plane, "n1").await.unwrap();
    assert!(later.spec.unwrap().renew_time.unwrap().0 > spec.renew_time.unwrap().0);

    let mut moved = renewal(4);
    moved["address"] = json!("http://127.0.0.1:7");
    renew(&plane, "n1", &credential, moved).await.expect(200);
    let registration = status(&plane, "n1").await.registration.unwrap();
    assert_eq!(
        (registration.address.as_str(), registration.epoch.0),
        ("http://127.0.0.1:7", 4)
    );
}

#[tokio::test]
async fn an_agent_ends_its_work_when_its_machine_is_stopped_and_not_before() {
    let plane = Plane::start().await;
    plane.tier("t").await;
    plane.node("n1", "once", 4).await;
    let credential = register(&plane, "once", registration("n1"))
        .await
        .expect(200)
        .text("/credential");
    // A renewal under an epoch that the cache does not know yet is answered from the node as it is.
    let told = async |epoch: u64, phase: &str| {
        plane.node_status("n1", json!({"epoch": epoch, "phase": phase})).await;
        renew(&plane, "n1", &credential, renewal(epoch)).await.expect(200).body["draining"].clone()
    };
    let drain = json!({"drain": true});
    let drained = plane.call("PATCH", "/v1/nodes/n1", ADMIN, Some(drain)).await;
    assert_eq!(drained.expect(200).body["draining"], true);
    assert_eq!(told(5, "Draining").await, false, "its graphs still need it");

    let nodes = Api::<GraphNode>::all(plane.client.clone());
    let held = json!({"metadata": {"finalizers": ["example.com/graphs"]}});
    nodes
        .patch("n1", &PatchParams::default(), &Patch::Merge(&held))
        .await
        .unwrap();
    nodes.delete("n1", &DeleteParams::default()).await.unwrap();
    assert_eq!(told(6, "Ready").await, false, "it waits for its graphs to be deleted");
    assert_eq!(told(7, "Terminating").await, true);
}

#[tokio::test]
async fn an_agent_of_another_epoch_is_fenced_and_one_of_a_removed_node_is_told() {
    let plane = Plane::start().await;
    plane.tier("t").await;
    plane.node("n1", "once", 4).await;
    let credential = register(&plane, "once", registration("n1"))
        .await
        .expect(200)
        .text("/credential");
    renew(&plane, "n1", &credential, renewal(4)).await.expect(200);
    assert_eq!(
        renew(&plane, "n1", &credential, renewal(3)).await.expect(409).problem(),
        "epoch"
    );
    plane.node_status("n1", json!({"epoch": 5})).await;
    let refused = until("the raised epoch is known", async || {
        let answer = renew(&plane, "n1", &credential, renewal(4)).await;
        (answer.status == 409).then_some(answer)
    })
    .await;
    assert!(refused.text("/detail").contains("epoch 4") && refused.text("/detail").contains('5'));
    renew(&plane, "n1", &credential, renewal(5)).await.expect(200);

    let mut wrong = renewal(5);
    wrong["address"] = json!("nowhere");
    assert_eq!(
        renew(&plane, "n1", &credential, wrong)
            .await
            .expect(422)
            .text("/errors/0/field"),
        "address"
    );
    wrong = renewal(5);
    wrong["databases"] = json!([{"id": 7}]);
    assert_eq!(
        renew(&plane, "n1", &credential, wrong).await.expect(422).problem(),
        "invalid"
    );

    plane
        .system::<Secret>()
        .delete("node-n1", &DeleteParams::default())
        .await
        .unwrap();
    Api::<GraphNode>::all(plane.client.clone())
        .delete("n1", &DeleteParams::default())
        .await
        .unwrap();
    let gone = until("the node is forgotten", async || {
        let answer = renew(&plane, "n1", &credential, renewal(5)).await;
        (answer.status == 404).then_some(answer)
    })
    .await;
    assert_eq!(gone.problem(), "not-found");
    assert_eq!(
        renew(&plane, "never", "x", renewal(1)).await.expect(404).problem(),
        "not-found"
    );
}

#[tokio::test]
async fn a_lapsed_lease_is_not_renewed_on_the_word_of_a_cache() {
    let plane = Plane::with(|mut settings| {
        settings.lease.duration_seconds = 1;
        settings
    })
    .await;
    plane.tier("t").await;
    plane.node("n1", "once", 4).await;
    let credential = register(&plane, "once", registration("n1"))
        .await
        .expect(200)
        .text("/credential");
    for epoch in 4..6 {
        renew(&plane, "n1", &credential, renewal(epoch)).await.expect(200);
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        let raise = json!({"status": {"epoch": epoch + 1}});
        let api = Api::<GraphNode>::all(plane.client.clone());
        api.patch_status("n1", &PatchParams::default(), &Patch::Merge(&raise))
            .await
            .unwrap();
        // The watch cache may not have heard of it yet.
        assert_eq!(
            renew(&plane, "n1", &credential, renewal(epoch))
                .await
                .expect(409)
                .problem(),
            "epoch"
        );
    }
}
