//! The part of the REST API that agents need: it checks tokens against the Secret, writes registrations and renews leases.

use crate::agent::{Behaviour, Disk, Running};
use graphplane_core::names;
use graphplane_crds::annotations::NODE_LABEL;
use graphplane_crds::{GraphNode, SYSTEM_NAMESPACE};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often agents of tests renew.
const RENEW: Duration = Duration::from_millis(300);

fn hashed(token: &str) -> ByteString {
    ByteString(hex::encode(Sha256::digest(token.as_bytes())).into_bytes())
}

/// Registers an agent and renews its lease for ever.
pub(crate) async fn follow(
    client: Client,
    node: String,
    bootstrap: String,
    agent: Arc<Running>,
    disk: Arc<Mutex<Disk>>,
    behaviour: Arc<Behaviour>,
) {
    while behaviour.never_register.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (key, epoch) = register(&client, &node, &bootstrap, &agent, &disk).await;
    write_registration(&client, &node, &agent.address, epoch).await;
    // The operator sees the registration before the agent has the answer to it.
    tokio::time::sleep(Duration::from_millis(20)).await;
    while behaviour.hold_answers.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    *agent.epoch.lock() = epoch;
    *agent.key.lock() = Some(key);
    loop {
        if !behaviour.never_renew.load(Ordering::SeqCst) {
            let sizes: Vec<_> = {
                let disk = disk.lock();
                let size = |id: &String| json!({"id": id, "sizeBytes": 4096, "revision": disk.revision});
                disk.databases.keys().map(size).collect()
            };
            let usage = json!({"epoch": epoch, "databases": sizes, "diskUsedMiB": 1}).to_string();
            let seconds = if behaviour.short_leases.load(Ordering::SeqCst) {
                15
            } else {
                600
            };
            write_lease(&client, &node, usage, seconds).await;
        }
        tokio::time::sleep(RENEW).await;
    }
}

/// Exchanges the one-time token, or presents the credential of an earlier time; the key and the epoch.
async fn register(client: &Client, node: &str, bootstrap: &str, agent: &Running, disk: &Mutex<Disk>) -> (String, u64) {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    loop {
        let mut secret = secrets.get(&names::node_object(node)).await.unwrap();
        let data = secret.data.clone().unwrap_or_default();
        let matches = |key: &str, token: &str| data.get(key) == Some(&hashed(token));
        let known = disk.lock().credential.clone();
        let accepted = known.is_some_and(|c| matches(names::CREDENTIAL_SHA256, &c));
        if !accepted {
            assert!(
                matches(names::BOOTSTRAP_TOKEN_SHA256, bootstrap),
                "{node}: the token of {} is not good",
                agent.address
            );
            let credential = format!("credential of {}", agent.address);
            let data = secret.data.get_or_insert_default();
            data.remove(names::BOOTSTRAP_TOKEN_SHA256);
            data.insert(names::CREDENTIAL_SHA256.into(), hashed(&credential));
            match secrets
                .replace(&names::node_object(node), &PostParams::default(), &secret)
                .await
            {
                Ok(_) => disk.lock().credential = Some(credential),
                Err(kube::Error::Api(status)) if status.is_conflict() => continue,
                Err(error) => panic!("{error}"),
            }
        }
        let nodes: Api<GraphNode> = Api::all(client.clone());
        let epoch = nodes.get(node).await.unwrap().status.unwrap().epoch.unwrap().0;
        let key = String::from_utf8(data[names::API_KEY].0.clone()).unwrap();
        return (key, epoch);
    }
}

async fn write_registration(client: &Client, node: &str, address: &str, epoch: u64) {
    let nodes: Api<GraphNode> = Api::all(client.clone());
    let registration = json!({"apiVersion": "graphplane.dev/v1alpha1", "kind": "GraphNode", "metadata": {"name": node},
        "status": {"registration": {
            "address": address, "instanceId": "test", "agentVersion": "0", "epoch": epoch,
            "time": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}}});
    let params = PatchParams::apply("graphplane-api").force();
    nodes
        .patch_status(node, &params, &Patch::Apply(&registration))
        .await
        .unwrap();
}

async fn write_lease(client: &Client, node: &str, usage: String, seconds: i32) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let name = names::node_object(node);
    let mut lease = Lease::default();
    lease.metadata.annotations = Some([("graphplane.dev/usage".to_owned(), usage)].into());
    lease.spec = Some(LeaseSpec {
        holder_identity: Some("test".into()),
        lease_duration_seconds: Some(seconds),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..LeaseSpec::default()
    });
    let patched = leases
        .patch(&name, &PatchParams::default(), &Patch::Merge(&lease))
        .await;
    if let Err(kube::Error::Api(status)) = patched
        && status.is_not_found()
    {
        lease.metadata.name = Some(name);
        lease.metadata.labels = Some([(NODE_LABEL.to_owned(), node.to_owned())].into());
        // The node may be on its way out.
        let nodes: Api<GraphNode> = Api::all(client.clone());
        if nodes.get_opt(node).await.is_ok_and(|n| n.is_some()) {
            let _ = leases.create(&PostParams::default(), &lease).await;
        }
    }
}
