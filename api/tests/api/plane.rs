//! An API server on an embedded server, and what an operator would do there.

use graphplane_api::{BootstrapKey, ConnectionLimits, Role, Settings};
use graphplane_crds::{Graph, GraphNode, Subgraph, Tier};
use graphplane_embedded::{EmbeddedServer, ServerConfig};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long a test waits for something that should come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) const ADMIN: &str = "gp_admin";
pub(crate) const EDITOR: &str = "gp_editor";
pub(crate) const VIEWER: &str = "gp_viewer";
/// An editor of another tenant.
pub(crate) const OTHER: &str = "gp_other";

/// A running API.
pub(crate) struct Plane {
    pub(crate) client: Client,
    pub(crate) url: String,
    pub(crate) http: reqwest::Client,
    pub(crate) stop: CancellationToken,
    server: EmbeddedServer,
    _folder: TempDir,
}

/// Status, headers and body of an answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:#}", self.body);
        self
    }

    /// The last part of a problem's type, after checking that it is a problem document.
    #[track_caller]
    pub(crate) fn problem(&self) -> &str {
        assert_eq!(
            self.headers["content-type"], "application/problem+json",
            "{:#}",
            self.body
        );
        assert_eq!(self.body["status"], self.status, "{:#}", self.body);
        for member in ["title", "detail", "instance"] {
            assert!(
                self.body[member].as_str().is_some_and(|text| !text.is_empty()),
                "{member}: {:#}",
                self.body
            );
        }
        self.body["type"].as_str().unwrap().rsplit('/').next().unwrap()
    }

    pub(crate) fn text(&self, pointer: &str) -> String {
        self.body
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("{pointer}: {:#}", self.body))
            .to_owned()
    }
}

impl Plane {
    pub(crate) async fn start() -> Self {
        Self::with(|settings| settings).await
    }

    pub(crate) async fn with(change: impl FnOnce(Settings) -> Settings) -> Self {
        Self::on(|config| config, change).await
    }

    /// On a server that remembers so many events only.
    pub(crate) async fn forgetful(history_events: usize) -> Self {
        let config = |config| ServerConfig {
            history_events,
            ..config
        };
        Self::on(config, |settings| settings).await
    }

    async fn on(config: impl FnOnce(ServerConfig) -> ServerConfig, change: impl FnOnce(Settings) -> Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let usual = ServerConfig::new(folder.path()).with_crds(graphplane_crds::all_crds());
        let server = EmbeddedServer::open(config(usual)).await.unwrap();
        let client = server.client("default");
        let mut other = Namespace::default();
        other.metadata.name = Some("team-b".into());
        Api::all(client.clone())
            .create(&PostParams::default(), &other)
            .await
            .unwrap();
        let settings = Settings::new("test")
            .with_key(BootstrapKey::admin("admin", ADMIN, "default"))
            .with_key(BootstrapKey::new("editor", EDITOR, Role::Editor, "default"))
            .with_key(BootstrapKey::new("viewer", VIEWER, Role::Viewer, "default"))
            .with_key(BootstrapKey::new("other", OTHER, Role::Editor, "team-b"));
        let router = graphplane_api::start(client.clone(), change(settings)).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(graphplane_api::serve(
            listener,
            router,
            ConnectionLimits::default(),
            stop.clone(),
        ));
        Self {
            client,
            url,
            http: http(),
            stop,
            server,
            _folder: folder,
        }
    }

    pub(crate) fn request(&self, method: &str, path: &str, key: &str) -> reqwest::RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        self.http
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(key)
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
        Answer { status, headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request("GET", path, EDITOR)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(self.request("POST", path, EDITOR).json(&body)).await
    }

    pub(crate) async fn call(&self, method: &str, path: &str, key: &str, body: Option<Value>) -> Answer {
        let request = self.request(method, path, key);
        self.send(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    }

    pub(crate) fn graphs(&self, namespace: &str) -> Api<Graph> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(crate) async fn tier(&self, name: &str) {
        let tier: Tier = serde_json::from_value(json!({
            "apiVersion": "graphplane.dev/v1alpha1", "kind": "Tier", "metadata": {"name": name},
            "spec": {"memory": {"nodeMiB": 1024, "perDatabaseMiB": 128}, "databasesPerNode": 10,
                     "engine": {"queryTimeoutSeconds": 7}},
        }))
        .unwrap();
        Api::all(self.client.clone())
            .create(&PostParams::default(), &tier)
            .await
            .unwrap();
    }

    /// A node with a bootstrap token and an epoch, as the operator makes it.
    pub(crate) async fn node(&self, name: &str, token: &str, epoch: u64) {
        self.node_in("local", name, token, epoch).await;
    }

    pub(crate) async fn node_in(&self, zone: &str, name: &str, token: &str, epoch: u64) {
        let node: GraphNode = serde_json::from_value(json!({
            "apiVersion": "graphplane.dev/v1alpha1", "kind": "GraphNode", "metadata": {"name": name},
            "spec": {"tier": "t", "zone": zone, "volume": name},
        }))
        .unwrap();
        Api::all(self.client.clone())
            .create(&PostParams::default(), &node)
            .await
            .unwrap();
        self.node_status(name, json!({"epoch": epoch})).await;
        let secret: Secret = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("node-{name}")},
            "stringData": {"bootstrapTokenSha256": hex::encode(Sha256::digest(token))},
        }))
        .unwrap();
        self.system::<Secret>()
            .create(&PostParams::default(), &secret)
            .await
            .unwrap();
    }

    pub(crate) fn system<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), "graphplane-system")
    }

    pub(crate) async fn node_status(&self, name: &str, status: Value) {
        let patch = json!({ "status": status });
        let api = Api::<GraphNode>::all(self.client.clone());
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
    }

    /// Writes conditions of a graph, and what else its status says, as the operator does.
    pub(crate) async fn graph_status(
        &self,
        namespace: &str,
        name: &str,
        mut status: Value,
        conditions: &[(&str, &str, &str)],
    ) {
        let api = self.graphs(namespace);
        let generation = api.get(name).await.unwrap().metadata.generation.unwrap();
        status["conditions"] = conditions_of(generation, conditions);
        api.patch_status(
            name,
            &PatchParams::default(),
            &Patch::Merge(&json!({ "status": status })),
        )
        .await
        .unwrap();
    }

    /// A graph that is ready on a node whose agent answers at `address` and wants `api_key`.
    pub(crate) async fn serving(&self, namespace: &str, graph: &str, node: &str, address: &str) -> String {
        let object: Graph = serde_json::from_value(json!({
            "apiVersion": "graphplane.dev/v1alpha1", "kind": "Graph", "metadata": {"name": graph}, "spec": {"tier": "t"},
        }))
        .unwrap();
        let made = self
            .graphs(namespace)
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
        let id = graphplane_crds::ids::GraphId::from_uid(made.metadata.uid.as_deref().unwrap()).to_string();
        if Api::<GraphNode>::all(self.client.clone())
            .get_opt(node)
            .await
            .unwrap()
            .is_none()
        {
            self.node(node, "unused", 4).await;
            let key = json!({"stringData": {"apiKey": crate::fake_agent::KEY}});
            self.system::<Secret>()
                .patch(&format!("node-{node}"), &PatchParams::default(), &Patch::Merge(&key))
                .await
                .unwrap();
            self.node_ready(node, address).await;
        }
        let conditions = [
            ("Placed", "True", "Placed"),
            ("DatabaseReady", "True", "DatabaseCreated"),
            ("Ready", "True", "Ready"),
        ];
        self.graph_status(namespace, graph, json!({"graphId": id, "node": node}), &conditions)
            .await;
        id
    }

    /// The node's agent answers at `address` and renews its lease.
    pub(crate) async fn node_ready(&self, node: &str, address: &str) {
        let registration = json!({
            "address": address, "instanceId": "i", "agentVersion": "0", "epoch": 4, "time": "2026-01-01T00:00:00Z",
        });
        let conditions = conditions_of(1, &[("LeaseHeld", "True", "LeaseRenewed"), ("Ready", "True", "Ready")]);
        self.node_status(node, json!({"registration": registration, "conditions": conditions}))
            .await;
    }

    pub(crate) async fn subgraph(&self, namespace: &str, graph: &str, name: &str) {
        let object: Subgraph = serde_json::from_value(json!({
            "apiVersion": "graphplane.dev/v1alpha1", "kind": "Subgraph", "metadata": {"name": format!("{graph}-{name}")},
            "spec": {"graph": graph, "name": name},
        }))
        .unwrap();
        let api = Api::<Subgraph>::namespaced(self.client.clone(), namespace);
        api.create(&PostParams::default(), &object).await.unwrap();
        let status =
            json!({"status": {"conditions": conditions_of(1, &[("DatabaseReady", "True", "DatabaseCreated")])}});
        let object = format!("{graph}-{name}");
        api.patch_status(&object, &PatchParams::default(), &Patch::Merge(&status))
            .await
            .unwrap();
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.stop.cancel();
        let server = self.server.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { server.shutdown().await });
        }
    }
}

/// Conditions as an operator writes them: (type, status, reason).
pub(crate) fn conditions_of(generation: i64, conditions: &[(&str, &str, &str)]) -> Value {
    let condition = |(type_, status, reason): &(&str, &str, &str)| {
        json!({"type": type_, "status": status, "reason": reason, "message": format!("because {reason}"),
               "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    Value::Array(conditions.iter().map(condition).collect())
}

pub(crate) fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap()
}

/// Waits until `condition` gives something.
pub(crate) async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
