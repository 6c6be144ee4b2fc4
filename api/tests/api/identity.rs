//! Nodes on AWS prove on which machine they run; credentials of all nodes are replaced.

use crate::plane::{Answer, Plane, until};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use graphplane_api::{AwsIdentity, IdentityCertificates, Settings};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const CERTIFICATE: &[u8] = include_bytes!("../identity/test-certificate.pem");
const KEY: &[u8] = include_bytes!("../identity/test-key.pem");

const ZONE: &str = "eu-central-1a";
const FIRST: &str = "i-00000000000000001";
const SECOND: &str = "i-00000000000000002";
const ADDRESS: &str = "10.80.3.7";

fn provider_id(instance: &str) -> String {
    format!("aws:///{ZONE}/{instance}")
}

fn document(instance: &str) -> Value {
    json!({
        "accountId": "123456789012", "architecture": "arm64", "availabilityZone": ZONE, "imageId": "ami-1",
        "instanceId": instance, "instanceType": "m7g.large", "pendingTime": jiff::Timestamp::now(), "privateIp": ADDRESS,
        "region": "eu-central-1", "version": "2017-09-30", "billingProducts": null,
    })
}

/// A document as the metadata service gives it, with its signature.
fn signed(document: &Value) -> Value {
    let text = serde_json::to_string_pretty(document).unwrap();
    let key = PrivatePkcs8KeyDer::from_pem_slice(KEY).unwrap();
    let key = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).unwrap();
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
        .unwrap();
    json!({"document": text, "signature": STANDARD.encode(signature)})
}

fn proof(instance: &str) -> Value {
    signed(&document(instance))
}

fn registration(identity: Value) -> Value {
    json!({
        "node": "n1", "address": format!("http://{ADDRESS}:8001"), "instanceId": FIRST, "agentVersion": "0.1.0",
        "volumeEpoch": 0, "identity": identity,
    })
}

fn renewal(epoch: u64, address: &str) -> Value {
    json!({"epoch": epoch, "address": address, "databases": []})
}

async fn plane() -> Plane {
    let identity = AwsIdentity {
        certificates: IdentityCertificates::from_pem(CERTIFICATE).unwrap(),
        account: Some("123456789012".into()),
    };
    let plane = Plane::with(|settings| Settings {
        aws_identity: Some(identity),
        ..settings
    })
    .await;
    plane.tier("t").await;
    plane
}

/// A plane with a node on AWS whose machine is [`FIRST`].
async fn with_node() -> Plane {
    let plane = plane().await;
    plane.node_in(ZONE, "n1", "once", 4).await;
    plane.node_status("n1", json!({"providerID": provider_id(FIRST)})).await;
    plane
}

impl Plane {
    async fn register(&self, token: &str, body: Value) -> Answer {
        self.call("POST", "/v1/nodes/register", token, Some(body)).await
    }

    async fn renew(&self, token: &str, body: Value) -> Answer {
        self.call("POST", "/v1/nodes/n1/lease", token, Some(body)).await
    }

    async fn registered(&self, token: &str, instance: &str) -> String {
        let answer = self.register(token, registration(proof(instance))).await.expect(200);
        answer.text("/credential")
    }

    async fn secret_data(&self) -> std::collections::BTreeMap<String, String> {
        let secret = self.system::<Secret>().get("node-n1").await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        secret
            .data
            .unwrap()
            .into_iter()
            .map(|(key, value)| (key, text(value.0)))
            .collect()
    }

    async fn patch_secret(&self, data: Value) {
        let patch = json!({"stringData": data});
        self.system::<Secret>()
            .patch("node-n1", &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
    }

    /// Warnings about tokens: their reasons and what they say.
    async fn warnings(&self) -> Vec<(String, String)> {
        let events = Api::<Event>::namespaced(self.client.clone(), "default");
        let listed = events.list(&ListParams::default()).await.unwrap();
        listed
            .items
            .into_iter()
            .filter(|event| {
                let regarding = event.regarding.clone().unwrap_or_default();
                event.type_.as_deref() == Some("Warning")
                    && (regarding.kind.as_deref(), regarding.name.as_deref()) == (Some("GraphNode"), Some("n1"))
            })
            .map(|event| (event.reason.unwrap_or_default(), event.note.unwrap_or_default()))
            .collect()
    }

    async fn misused(&self, why: &str) -> bool {
        let metrics = self.get("/metrics").await.expect(200);
        let line = format!("graphplane_api_misused_tokens_total{{reason=\"{why}\"}}");
        metrics.body.as_str().unwrap().contains(&line)
    }
}

#[tokio::test]
async fn a_token_is_taken_from_the_nodes_machine_and_its_credential_belongs_to_that() {
    let plane = plane().await;
    plane.node_in(ZONE, "n1", "once", 4).await;
    // The machine was started, and which one it is was not noted yet.
    let early = plane.register("once", registration(proof(FIRST))).await.expect(503);
    assert_eq!(early.problem(), "unavailable");
    assert!(early.headers.contains_key("retry-after"));

    plane.node_status("n1", json!({"providerID": provider_id(FIRST)})).await;
    let credential = plane.registered("once", FIRST).await;
    let data = plane.secret_data().await;
    assert_eq!(data["credentialMachine"], provider_id(FIRST));
    assert!(!data.contains_key("bootstrapTokenSha256"));
    plane
        .renew(&credential, renewal(4, &format!("http://{ADDRESS}:8001")))
        .await
        .expect(200);

    // A process that was started anew on the same machine has its credential, and proves itself again.
    let again = plane
        .register(&credential, registration(proof(FIRST)))
        .await
        .expect(200);
    assert!(again.body.get("credential").is_none());
    let refused = plane.register(&credential, registration(Value::Null)).await.expect(403);
    assert_eq!(refused.problem(), "forbidden");
    assert_eq!(plane.warnings().await[0].0, "CredentialMisused");
}

#[tokio::test]
async fn a_stolen_token_is_refused_stays_good_and_raises_an_event() {
    let plane = with_node().await;
    let refused = plane.register("once", registration(proof(SECOND))).await.expect(403);
    assert_eq!(refused.problem(), "forbidden");
    assert!(!refused.body.to_string().contains(FIRST), "a thief learns nothing");
    assert!(plane.misused("instance").await);
    let told = plane.warnings().await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0, "BootstrapTokenMisused");
    for part in ["127.0.0.1", SECOND, FIRST] {
        assert!(told[0].1.contains(part), "{part}: {}", told[0].1);
    }

    let with = |field: &str, value: &str| {
        let mut document = document(FIRST);
        document[field] = json!(value);
        registration(signed(&document))
    };
    let mut tampered = proof(SECOND);
    let text = tampered["document"].as_str().unwrap().replace(SECOND, FIRST);
    tampered["document"] = json!(text);
    let mut elsewhere = registration(proof(FIRST));
    elsewhere["address"] = json!("http://10.80.3.8:8001");
    let foreign = json!({
        "document": include_str!("../identity/document.json"), "signature": include_str!("../identity/signature"),
    });
    for (why, body) in [
        ("absent", registration(Value::Null)),
        ("signature", registration(tampered)),
        ("signature", registration(foreign)),
        ("document", registration(json!({"document": "{}", "signature": ""}))),
        ("zone", with("availabilityZone", "eu-central-1b")),
        ("account", with("accountId", "210987654321")),
        ("time", with("pendingTime", "2020-01-01T00:00:00Z")),
        ("address", with("privateIp", "10.80.3.8")),
        ("address", elsewhere),
    ] {
        let refused = plane.register("once", body).await.expect(403);
        assert_eq!(refused.problem(), "forbidden", "{why}");
        assert!(plane.misused(why).await, "{why}");
    }
    assert_eq!(plane.warnings().await.len(), 1, "not one for every attempt");
    // A wrong token is no news, whatever comes with it.
    plane.register("guess", registration(proof(FIRST))).await.expect(401);
    plane.registered("once", FIRST).await;
}

#[tokio::test]
async fn a_machine_that_was_replaced_is_shut_out() {
    let plane = with_node().await;
    let old = plane.registered("once", FIRST).await;
    let home = format!("http://{ADDRESS}:8001");
    plane.renew(&old, renewal(4, &home)).await.expect(200);

    // The operator raises the epoch and starts another machine, with another one-time token.
    plane.node_status("n1", json!({"epoch": 5, "providerID": null})).await;
    let told = until("the raised epoch is known", async || {
        let answer = plane.renew(&old, renewal(4, &home)).await;
        (answer.status == 409).then_some(answer)
    })
    .await;
    assert_eq!(told.problem(), "epoch");
    // Not even one that guesses the epoch gets a lease.
    plane.renew(&old, renewal(5, &home)).await.expect(503);
    plane.register(&old, registration(proof(FIRST))).await.expect(503);
    let hash = hex::encode(Sha256::digest("twice"));
    plane.patch_secret(json!({"bootstrapTokenSha256": hash})).await;
    plane
        .node_status("n1", json!({"providerID": provider_id(SECOND)}))
        .await;
    plane.renew(&old, renewal(5, &home)).await.expect(401);
    plane.register(&old, registration(proof(FIRST))).await.expect(403);
    assert_eq!(plane.warnings().await[0].0, "CredentialMisused");

    // The disk brought the old credential to the new machine, which has no use for it.
    let refused = plane.register(&old, registration(proof(SECOND))).await.expect(401);
    assert_eq!(refused.problem(), "unauthorized");
    let new = plane.registered("twice", SECOND).await;
    plane.renew(&new, renewal(5, &home)).await.expect(200);
    plane.register(&old, registration(proof(SECOND))).await.expect(401);
}

#[tokio::test]
async fn a_credential_cannot_draw_callers_to_another_host() {
    let plane = with_node().await;
    let credential = plane.registered("once", FIRST).await;
    let other_port = renewal(4, &format!("http://{ADDRESS}:8002"));
    plane.renew(&credential, other_port).await.expect(200);
    let away = renewal(4, "http://10.80.3.8:8001");
    assert_eq!(plane.renew(&credential, away).await.expect(403).problem(), "forbidden");
}

#[tokio::test]
async fn without_certificates_no_machine_on_aws_can_register() {
    let plane = Plane::start().await;
    plane.tier("t").await;
    plane.node_in(ZONE, "n1", "once", 4).await;
    plane.node_status("n1", json!({"providerID": provider_id(FIRST)})).await;
    let refused = plane.register("once", registration(proof(FIRST))).await.expect(503);
    assert!(refused.text("/detail").contains("certificates"));
}

#[tokio::test]
async fn a_credential_that_is_old_gets_a_successor() {
    let plane = plane().await;
    plane.node("n1", "once", 4).await;
    let home = "http://127.0.0.1:41233";
    let mut body = registration(Value::Null);
    body["address"] = json!(home);
    let first = plane
        .register("once", body.clone())
        .await
        .expect(200)
        .text("/credential");
    let fresh = plane.renew(&first, renewal(4, home)).await.expect(200);
    assert!(fresh.body.get("credential").is_none());

    let aged = async || {
        let long_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(25);
        plane
            .patch_secret(json!({"credentialTime": long_ago.to_string()}))
            .await;
    };
    let offer = async |credential: &str| {
        until("a successor is offered", async || {
            let answer = plane.renew(credential, renewal(4, home)).await.expect(200);
            answer
                .body
                .get("credential")
                .is_some()
                .then(|| answer.text("/credential"))
        })
        .await
    };
    aged().await;
    let second = offer(&first).await;
    assert!(!plane.secret_data().await.values().any(|value| value.contains(&second)));
    // The answer may have been lost: both are good until the new one is used.
    plane.renew(&first, renewal(4, home)).await.expect(200);
    let used = plane.renew(&second, renewal(4, home)).await.expect(200);
    assert!(used.body.get("credential").is_none());
    until("the old one is of no use", async || {
        (plane.renew(&first, renewal(4, home)).await.status == 401).then_some(())
    })
    .await;
    plane.renew(&second, renewal(4, home)).await.expect(200);

    // An agent that crashed before it used the new one registers with it.
    aged().await;
    let third = offer(&second).await;
    let registered = plane.register(&third, body.clone()).await.expect(200);
    assert!(registered.body.get("credential").is_none());
    plane.register(&second, body).await.expect(401);
    assert!(!plane.secret_data().await.contains_key("offeredCredentialSha256"));
}
