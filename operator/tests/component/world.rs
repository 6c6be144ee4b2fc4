//! Everything around an operator: API server, machines, object store; and what tests say about them.

use crate::gate::Gate;
use crate::machines::Machines;
use graphplane_crds::{Backup, BackupSchedule, Graph, GraphNode, GraphVolume, Replica, Subgraph, Tier, all_crds};
use graphplane_embedded::{EmbeddedServer, ServerConfig};
use graphplane_operator::{Error, Metrics, ProviderChoice, Settings};
use http::Method;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The schema of most graphs of the tests.
pub(crate) const DDL: &str = "CREATE NODE TABLE A(x INT64 PRIMARY KEY);\nCREATE REL TABLE R(FROM A TO A);";

/// How long a test waits for what has to happen. Only a failure takes so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// Everything around an operator.
pub(crate) struct World {
    pub(crate) server: EmbeddedServer,
    pub(crate) client: Client,
    pub(crate) machines: Machines,
    dir: TempDir,
}

/// An operator that runs.
pub(crate) struct Operator {
    task: JoinHandle<Result<(), Error>>,
    stop: CancellationToken,
    pub(crate) gate: Gate,
    pub(crate) metrics: Metrics,
}

impl Operator {
    /// Lets it finish what it is doing.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        let stopped = tokio::time::timeout(PATIENCE, self.task).await;
        let stopped = stopped.unwrap_or_else(|_| panic!("the operator does not stop after {:#?}", self.gate.deeds()));
        stopped.unwrap().unwrap();
    }

    /// Waits until it ends by itself.
    pub(crate) async fn end(self) -> Result<(), Error> {
        let ended = tokio::time::timeout(PATIENCE, self.task).await;
        let ended = ended.unwrap_or_else(|_| panic!("the operator does not end after {:#?}", self.gate.deeds()));
        ended.unwrap()
    }

    /// Ends it between two of its steps.
    pub(crate) async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.is_err_and(|error| error.is_cancelled()));
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = ServerConfig::new(dir.path().join("state")).with_crds(all_crds());
        let server = EmbeddedServer::open(config).await.unwrap();
        let client = server.client("default");
        let objects = dir.path().join("objects");
        std::fs::create_dir_all(&objects).unwrap();
        let machines = Machines::new(client.clone(), objects);
        Self {
            server,
            client,
            machines,
            dir,
        }
    }

    /// A world with a tier `std`.
    pub(crate) async fn with_tier(tier: Value) -> Self {
        let world = Self::new().await;
        world.create::<Tier>(tier_object("std", tier)).await;
        world
    }

    pub(crate) fn objects(&self) -> PathBuf {
        self.dir.path().join("objects")
    }

    pub(crate) fn settings(&self) -> Settings {
        let provider = ProviderChoice::Custom(Arc::new(self.machines.clone()));
        Settings {
            object_store_url: Some(format!("file://{}", self.objects().display())),
            cluster_id: Some("test".into()),
            ..Settings::with_provider(provider)
        }
    }

    pub(crate) fn operator(&self) -> Operator {
        self.operator_with(Gate::default(), self.settings())
    }

    /// Starts an operator whose deeds go through a gate.
    pub(crate) fn operator_with(&self, gate: Gate, settings: Settings) -> Operator {
        *self.machines.gate.lock() = gate.clone();
        let stop = CancellationToken::new();
        let metrics = settings.metrics.clone();
        let run = graphplane_operator::run(gated(&self.client, gate.clone()), settings, stop.clone());
        Operator {
            task: tokio::spawn(run),
            stop,
            gate,
            metrics,
        }
    }

    pub(crate) async fn create<K: Known>(&self, object: Value) -> K {
        let object: K = serde_json::from_value(object).unwrap();
        let api = K::api(&self.client, &object.namespace().unwrap_or_default());
        api.create(&PostParams::default(), &object).await.unwrap()
    }

    pub(crate) async fn get<K: Known>(&self, name: &str) -> K {
        K::api(&self.client, "default").get(name).await.unwrap()
    }

    pub(crate) async fn list<K: Known>(&self) -> Vec<K> {
        let mut items = K::all(&self.client).list(&ListParams::default()).await.unwrap().items;
        items.sort_by_key(|o| o.name_any());
        items
    }

    pub(crate) async fn names<K: Known>(&self) -> Vec<String> {
        self.list::<K>().await.iter().map(|o| o.name_any()).collect()
    }

    pub(crate) async fn patch<K: Known>(&self, name: &str, patch: Value) -> K {
        let params = PatchParams::default();
        K::api(&self.client, "default")
            .patch(name, &params, &Patch::Merge(&patch))
            .await
            .unwrap()
    }

    pub(crate) async fn patch_status<K: Known>(&self, name: &str, status: Value) {
        let patch = Patch::Merge(json!({"status": status}));
        K::api(&self.client, "default")
            .patch_status(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    pub(crate) async fn delete<K: Known>(&self, name: &str) {
        K::api(&self.client, "default")
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }

    /// Waits until `good` is true of an object.
    pub(crate) async fn until<K: Known>(&self, name: &str, what: &str, good: impl Fn(&K) -> bool) -> K {
        let api = K::api(&self.client, "default");
        let waiting = async {
            loop {
                if let Some(object) = api.get_opt(name).await.unwrap()
                    && good(&object)
                {
                    return object;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(object) => object,
            Err(_) => panic!("{name} never was {what}: {}", self.everything().await),
        }
    }

    /// Waits until an object says this in a condition: status and reason.
    pub(crate) async fn until_says<K: Known>(&self, name: &str, type_: &str, status: &str, reason: &str) -> K {
        let what = format!("{type_}={status} because of {reason}");
        self.until(name, &what, |o: &K| {
            o.condition(type_)
                .is_some_and(|c| c.status == status && (reason.is_empty() || c.reason == reason))
        })
        .await
    }

    /// Waits until an object is ready for its present generation.
    pub(crate) async fn until_ready<K: Known>(&self, name: &str) -> K {
        self.until(name, "ready", |o: &K| {
            o.condition("Ready")
                .is_some_and(|c| c.status == "True" && c.observed_generation == o.meta().generation)
        })
        .await
    }

    /// Waits until `good`.
    pub(crate) async fn eventually(&self, what: &str, good: impl AsyncFn() -> bool) {
        let waiting = async {
            while !good().await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            panic!("{what} never came true: {}", self.everything().await);
        }
    }

    /// Waits until no object of a kind is left.
    pub(crate) async fn until_none<K: Known>(&self) {
        self.eventually(&format!("no {} is left", K::kind(&())), async || {
            self.list::<K>().await.is_empty()
        })
        .await;
    }

    /// Waits until an object is gone.
    pub(crate) async fn until_gone<K: Known>(&self, name: &str) {
        let api = K::api(&self.client, "default");
        self.eventually(&format!("{name} is gone"), async || {
            api.get_opt(name).await.unwrap().is_none()
        })
        .await;
    }

    /// All objects, for the message of a failure.
    pub(crate) async fn everything(&self) -> String {
        let mut text = String::new();
        let mut add = |value: Value| text.push_str(&format!("\n{value}"));
        for t in self.list::<Tier>().await {
            add(json!({"tier": t.name_any(), "status": t.status}))
        }
        for g in self.list::<Graph>().await {
            add(json!({"graph": g.name_any(), "deleting": g.metadata.deletion_timestamp, "status": g.status}))
        }
        for s in self.list::<Subgraph>().await {
            add(json!({"subgraph": s.name_any(), "deleting": s.metadata.deletion_timestamp, "status": s.status}))
        }
        for b in self.list::<Backup>().await {
            add(json!({"backup": b.name_any(), "status": b.status}))
        }
        for s in self.list::<BackupSchedule>().await {
            add(json!({"schedule": s.name_any(), "deleting": s.metadata.deletion_timestamp, "status": s.status}))
        }
        for r in self.list::<Replica>().await {
            add(json!({"replica": r.name_any(), "deleting": r.metadata.deletion_timestamp, "status": r.status}))
        }
        for n in self.list::<GraphNode>().await {
            add(json!({"node": n.name_any(), "deleting": n.metadata.deletion_timestamp, "status": n.status}))
        }
        for v in self.list::<GraphVolume>().await {
            add(json!({"volume": v.name_any(), "deleting": v.metadata.deletion_timestamp, "status": v.status}))
        }
        text
    }
}

/// A client whose writes go through a gate. Events are no deeds: nothing depends on them.
fn gated(client: &Client, gate: Gate) -> Client {
    let inner = client.clone();
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (inner, gate) = (inner.clone(), gate.clone());
        async move {
            let path = request.uri().path().to_owned();
            let method = request.method().clone();
            let writes = method != Method::GET && !path.contains("/events");
            match writes {
                true => gate.pass(|| format!("{method} {path}"), inner.send(request)).await,
                false => inner.send(request).await,
            }
        }
    });
    Client::new(service, "default")
}

/// A kind of the tests.
pub(crate) trait Known:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize + Send + Sync + 'static
{
    fn api(client: &Client, namespace: &str) -> Api<Self>;
    fn all(client: &Client) -> Api<Self> {
        Api::all(client.clone())
    }
    fn conditions(&self) -> Vec<Condition>;
    fn condition(&self, type_: &str) -> Option<Condition> {
        self.conditions().into_iter().find(|c| c.type_ == type_)
    }
}

macro_rules! known {
    ($($kind:ident $scope:ident),*) => {$(
        impl Known for $kind {
            fn api(client: &Client, namespace: &str) -> Api<Self> {
                known!(@ $scope client namespace)
            }
            fn conditions(&self) -> Vec<Condition> {
                self.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default()
            }
        }
    )*};
    (@ namespaced $client:ident $namespace:ident) => {
        Api::namespaced($client.clone(), if $namespace.is_empty() { "default" } else { $namespace })
    };
    (@ cluster $client:ident $namespace:ident) => {{ let _ = $namespace; Api::all($client.clone()) }};
}
known!(
    Tier cluster, Graph namespaced, Subgraph namespaced, Replica namespaced, Backup namespaced,
    BackupSchedule namespaced, GraphNode cluster,
    GraphVolume cluster
);

macro_rules! system {
    ($($kind:ident),*) => {$(
        impl Known for $kind {
            fn api(client: &Client, _: &str) -> Api<Self> {
                Api::namespaced(client.clone(), graphplane_crds::SYSTEM_NAMESPACE)
            }
            fn all(client: &Client) -> Api<Self> {
                Self::api(client, "")
            }
            fn conditions(&self) -> Vec<Condition> {
                Vec::new()
            }
        }
    )*};
}
system!(Secret, Lease);

/// A Tier; figures that are not named are small.
pub(crate) fn tier_object(name: &str, extra: Value) -> Value {
    let mut spec = json!({"memory": {"nodeMiB": 1000, "perDatabaseMiB": 10}, "databasesPerNode": 10, "maxSubgraphs": 3,
        "storage": {"sizeGiB": 50}, "scaling": {"maxNodes": 3, "consolidateAfterSeconds": 0}});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "graphplane.dev/v1alpha1", "kind": "Tier", "metadata": {"name": name}, "spec": spec})
}

/// A Graph with a custom schema on tier `std`.
pub(crate) fn graph_object(name: &str, extra: Value) -> Value {
    let mut spec = json!({"tier": "std", "schema": {"type": "custom", "ddl": DDL}});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "graphplane.dev/v1alpha1", "kind": "Graph", "metadata": {"name": name, "namespace": "default"},
        "spec": spec})
}

/// A Subgraph.
pub(crate) fn subgraph_object(name: &str, graph: &str, extra: Value) -> Value {
    let mut spec = json!({"graph": graph, "name": "dev", "type": "empty"});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "graphplane.dev/v1alpha1", "kind": "Subgraph", "metadata": {"name": name, "namespace": "default"},
        "spec": spec})
}

/// A Replica of graph `karate`.
pub(crate) fn replica_object(name: &str, extra: Value) -> Value {
    let mut spec = json!({"graph": "karate", "replicas": 2, "publish": {"onChange": true, "minIntervalSeconds": 1}});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "graphplane.dev/v1alpha1", "kind": "Replica", "metadata": {"name": name, "namespace": "default"},
        "spec": spec})
}

/// A Backup.
pub(crate) fn backup_object(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "graphplane.dev/v1alpha1", "kind": "Backup", "metadata": {"name": name, "namespace": "default"},
        "spec": spec})
}

/// A BackupSchedule of graph `karate`, once a year: what is due lies far back.
pub(crate) fn schedule_object(name: &str, extra: Value) -> Value {
    let mut spec = json!({"graph": "karate", "schedule": "@yearly"});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "graphplane.dev/v1alpha1", "kind": "BackupSchedule",
        "metadata": {"name": name, "namespace": "default"}, "spec": spec})
}
