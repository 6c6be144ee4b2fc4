//! The metadata service of the machines: what each is, signed. The emulator has no signed documents.
//!
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-identity-documents.html>
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html>

use super::cloud::{ACCOUNT, Cloud, REGION};
use crate::repository;
use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    routing::{get, put},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde_json::json;
use std::{fs, path::PathBuf, sync::Arc};
use tokio::{net::TcpListener, runtime::Handle};

/// The certificate of the key that documents are signed with here.
pub(crate) fn certificate() -> PathBuf {
    repository().join("api/tests/identity/test-certificate.pem")
}

struct Service {
    cloud: Cloud,
    key: RsaKeyPair,
}

/// Starts the service. A machine finds its own at `<the URL that this returns>/<instance>`.
pub(crate) fn start(cloud: &Cloud, runtime: &Handle) -> String {
    let pem = fs::read(repository().join("api/tests/identity/test-key.pem")).expect("the tests' key can be read");
    let key = PrivatePkcs8KeyDer::from_pem_slice(&pem).expect("the tests' key is in PEM");
    let service = Arc::new(Service {
        cloud: cloud.clone(),
        key: RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).expect("the tests' key is one of RSA"),
    });
    let app = Router::new()
        .route("/{instance}/latest/api/token", put(token))
        .route("/{instance}/latest/dynamic/instance-identity/{what}", get(identity))
        .with_state(service);
    let listener = runtime
        .block_on(TcpListener::bind("127.0.0.1:0"))
        .expect("a free port can be bound");
    let address = listener.local_addr().expect("a bound port has an address");
    runtime.spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

/// The token of a session; here it is the machine's name.
async fn token(Path(instance): Path<String>, headers: HeaderMap) -> (StatusCode, String) {
    match headers.contains_key("x-aws-ec2-metadata-token-ttl-seconds") {
        true => (StatusCode::OK, instance),
        false => (StatusCode::BAD_REQUEST, String::new()),
    }
}

async fn identity(
    State(service): State<Arc<Service>>,
    Path((instance, what)): Path<(String, String)>,
    headers: HeaderMap,
) -> (StatusCode, String) {
    let token = headers
        .get("x-aws-ec2-metadata-token")
        .and_then(|value| value.to_str().ok());
    if token != Some(instance.as_str()) {
        return (StatusCode::UNAUTHORIZED, String::new());
    }
    let said = tokio::task::spawn_blocking(move || match what.as_str() {
        "document" => service.document(&instance),
        "signature" => service.document(&instance).map(|text| service.sign(&text)),
        _ => None,
    });
    match said.await {
        Ok(Some(text)) => (StatusCode::OK, text),
        _ => (StatusCode::NOT_FOUND, String::new()),
    }
}

impl Service {
    fn document(&self, instance: &str) -> Option<String> {
        let found = self
            .cloud
            .call("ec2", "DescribeInstances", &[("InstanceId.1", instance)])
            .xml();
        let sets = found.all("instancesSet");
        let machine = sets.first()?.child("item")?;
        let text = |path: &[&str]| machine.text_of(path).to_owned();
        let document = json!({
            "accountId": ACCOUNT, "architecture": text(&["architecture"]),
            "availabilityZone": text(&["placement", "availabilityZone"]), "billingProducts": null,
            "devpayProductCodes": null, "imageId": text(&["imageId"]), "instanceId": instance,
            "instanceType": text(&["instanceType"]), "kernelId": null, "marketplaceProductCodes": null,
            "pendingTime": text(&["launchTime"]), "privateIp": text(&["privateIpAddress"]), "ramdiskId": null,
            "region": REGION, "version": "2017-09-30",
        });
        serde_json::to_string_pretty(&document).ok()
    }

    fn sign(&self, text: &str) -> String {
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .expect("a document can be signed");
        STANDARD.encode(signature)
    }
}
