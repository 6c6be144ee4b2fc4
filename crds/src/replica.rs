//! [`Replica`]: a fleet that serves reads of one graph from published seeds.

use crate::quantities::CountOrPercent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A read fleet of one graph.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "graphplane.dev",
    version = "v1alpha1",
    kind = "Replica",
    namespaced,
    shortname = "rep",
    category = "graphplane",
    status = "ReplicaStatus",
    derive = "PartialEq",
    selectable = ".spec.graph",
    doc = "A fleet of read-only nodes that serve one graph from published seeds.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Graph", type_ = "string", json_path = ".spec.graph"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Available", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Seed", type_ = "string", json_path = ".status.seedVersion"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoint", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("self.graph == oldSelf.graph").message("graph is immutable"),
    validation = Rule::new("self.minReplicas <= self.maxReplicas").message("minReplicas must not exceed maxReplicas"),
    validation = Rule::new("self.minReplicas <= self.replicas && self.replicas <= self.maxReplicas")
        .message("replicas must lie between minReplicas and maxReplicas"),
)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaSpec {
    /// Name of the Graph in the same namespace.
    #[schemars(length(min = 1, max = 50))]
    pub graph: String,
    /// Nodes to run; `kubectl scale` sets it.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: u32,
    /// Autoscaling never goes below.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub min_replicas: u32,
    /// Autoscaling never goes above.
    #[serde(default = "ten")]
    #[schemars(range(min = 0, max = 1000))]
    pub max_replicas: u32,
    /// Instance types in order of preference; empty means those of the graph's tier.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(length(max = 32), regex(pattern = r"^[a-z0-9-]+\.[a-z0-9-]+$"))
    )]
    pub instance_types: Vec<String>,
    /// Average processor load that autoscaling aims at, in percent; absent means no autoscaling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub target_cpu_percent: Option<u32>,
    /// When a new seed is published.
    #[serde(default)]
    pub publish: Publish,
    /// How nodes take up a new seed.
    #[serde(default)]
    pub refresh: Refresh,
    /// Which queries go to the fleet by themselves.
    #[serde(default)]
    pub reads: Reads,
}

/// Which queries of the gateway go to a fleet. What changes something always goes to the writer, and so does everything
/// while no node of the fleet can answer.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reads {
    /// Those that only read, unless a request asks for the writer. They see the graph as it was when it was published last.
    #[default]
    Prefer,
    /// Those whose request asks for a replica.
    OnRequest,
}

fn one() -> u32 {
    1
}

fn ten() -> u32 {
    10
}

/// When a new seed is published.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Publish {
    /// After each change of the graph, at most once in `minIntervalSeconds`.
    pub on_change: bool,
    /// A cron expression of five fields, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 128),
        regex(pattern = r"^(@(hourly|daily|weekly|monthly|yearly)|[^\s]+(\s+[^\s]+){4})$")
    )]
    pub schedule: Option<String>,
    /// Shortest time between two seeds, in seconds; absent means 60.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub min_interval_seconds: Option<u32>,
}

/// How nodes take up a new seed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Refresh {
    /// So many nodes may be busy with a new seed at once.
    pub max_unavailable: IntOrShare,
}

impl Default for Refresh {
    fn default() -> Self {
        Self {
            max_unavailable: IntOrShare::Int(1),
        }
    }
}

/// A number, or a share such as `25%`, as Kubernetes writes it.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(untagged)]
pub enum IntOrShare {
    /// A number.
    Int(u32),
    /// A share of the fleet.
    Share(CountOrPercent),
}

impl JsonSchema for IntOrShare {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "IntOrShare".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "x-kubernetes-int-or-string": true })
    }
}

/// What is known of a read fleet.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Version of the newest published seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed_version: Option<String>,
    /// When it was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed_time: Option<Time>,
    /// Nodes that exist.
    #[serde(default)]
    pub replicas: u32,
    /// Nodes that serve the newest seed.
    #[serde(default)]
    pub ready_replicas: u32,
    /// Label selector of the fleet's nodes, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// URL that serves reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Each node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub nodes: Vec<ReplicaNode>,
    /// Where the seeds are, below the object store; written before the first is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seeds: Option<String>,
    /// UID of the Graph whose seeds these are; another one may get its name later, and even its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph_uid: Option<String>,
    /// State of the graph that the newest seed has at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_mark: Option<String>,
    /// The publication that was begun last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publishing: Option<Publishing>,
    /// The state in words for machines.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// One node of a read fleet.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaNode {
    /// Name of the GraphNode.
    pub name: String,
    /// Version of the seed that it serves; absent while it serves none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed_version: Option<String>,
    /// Why it does not serve the newest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A publication.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Publishing {
    /// Task of the writer's agent.
    pub task: String,
    /// When it was begun.
    pub begun: Time,
    /// State of the graph that the seed will have at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
}
