//! Agents without engines: they answer the operator, register and renew their leases. They are not what is measured.

use crate::Result;
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use futures::future::try_join_all;
use graphplane_core::{
    names,
    usage::{DatabaseUsage, Usage},
};
use graphplane_crds::{
    GraphNode, SYSTEM_NAMESPACE,
    annotations::{NODE_LABEL, USAGE},
    conditions,
};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::net::TcpListener;

/// How often leases are renewed.
const RENEW: Duration = Duration::from_secs(5);
/// So long that no busy machine lets one lapse.
const LEASE: i32 = 60;

type Databases = Arc<Mutex<BTreeSet<String>>>;

/// An agent that serves.
struct Agent {
    address: String,
    databases: Databases,
    /// The epoch that it registered under.
    epoch: Option<u64>,
}

/// Starts an agent for every machine, and renews all leases for ever.
pub(super) async fn run(client: Client) -> Result<()> {
    let nodes: Api<GraphNode> = Api::all(client.clone());
    let mut agents: HashMap<String, Agent> = HashMap::new();
    loop {
        let all = nodes.list(&ListParams::default()).await?.items;
        for node in &all {
            let status = node.status.clone().unwrap_or_default();
            // A real one cannot start before it has its disk.
            let has_disk = conditions::is_true(&status.conditions, conditions::VOLUME_READY);
            let Some(epoch) = status.epoch.filter(|_| has_disk) else {
                continue;
            };
            let name = node.name_any();
            let agent = match agents.entry(name.clone()) {
                Entry::Occupied(agent) => agent.into_mut(),
                Entry::Vacant(place) => place.insert(start().await?),
            };
            if agent.epoch != Some(epoch.0) {
                register(&nodes, &name, &agent.address, epoch.0).await?;
                agent.epoch = Some(epoch.0);
            }
        }
        let renewals = agents.iter().map(|(name, agent)| renew(&client, name, agent));
        try_join_all(renewals).await?;
        tokio::time::sleep(RENEW).await;
    }
}

async fn start() -> Result<Agent> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    let databases = Databases::default();
    let router = Router::new()
        .route("/databases", post(create))
        .route("/databases/{id}", get(|| async { Json(json!({})) }))
        .route("/databases/{id}/schema", get(schema))
        .with_state(databases.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(Agent {
        address,
        databases,
        epoch: None,
    })
}

async fn create(State(databases): State<Databases>, Json(body): Json<Value>) -> Json<Value> {
    if let Some(id) = body["graph_id"].as_str() {
        let mut databases = databases.lock().unwrap_or_else(PoisonError::into_inner);
        databases.insert(id.to_owned());
    }
    Json(json!({"status": "success"}))
}

async fn schema() -> Json<Value> {
    let id = json!({"name": "id", "type": "INT64", "primary_key": true});
    Json(json!({"tables": [{"name": "N", "type": "NODE", "properties": [id]}]}))
}

/// As the REST API does when an agent registers.
async fn register(nodes: &Api<GraphNode>, node: &str, address: &str, epoch: u64) -> Result<()> {
    let time = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let registration =
        json!({"address": address, "instanceId": "bench", "agentVersion": "0", "epoch": epoch, "time": time});
    let written = json!({
        "apiVersion": "graphplane.dev/v1alpha1", "kind": "GraphNode", "metadata": {"name": node},
        "status": {"registration": registration},
    });
    let params = PatchParams::apply("graphplane-api").force();
    nodes.patch_status(node, &params, &Patch::Apply(&written)).await?;
    Ok(())
}

/// As the REST API does when an agent renews its lease.
async fn renew(client: &Client, node: &str, agent: &Agent) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let database = |id: &String| DatabaseUsage {
        id: id.clone(),
        size_bytes: 1 << 20,
        ..DatabaseUsage::default()
    };
    let databases = {
        let databases = agent.databases.lock().unwrap_or_else(PoisonError::into_inner);
        databases.iter().map(database).collect()
    };
    let usage = Usage {
        epoch: agent.epoch.unwrap_or_default(),
        address: agent.address.clone(),
        databases,
        disk_used_mib: 100,
        disk_free_mib: 10_000,
        ..Usage::default()
    };
    let name = names::node_object(node);
    let mut lease = Lease::default();
    lease.metadata.annotations = Some([(USAGE.to_owned(), serde_json::to_string(&usage)?)].into());
    lease.spec = Some(LeaseSpec {
        holder_identity: Some("bench".to_owned()),
        lease_duration_seconds: Some(LEASE),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..LeaseSpec::default()
    });
    match leases
        .patch(&name, &PatchParams::default(), &Patch::Merge(&lease))
        .await
    {
        Err(kube::Error::Api(status)) if status.is_not_found() => {
            lease.metadata.name = Some(name);
            lease.metadata.labels = Some([(NODE_LABEL.to_owned(), node.to_owned())].into());
            leases.create(&PostParams::default(), &lease).await?;
            Ok(())
        }
        written => Ok(written.map(drop)?),
    }
}
