//! [`GraphNode`]: one machine with a node agent.

use crate::ids::GraphId;
use crate::quantities::{Epoch, MiB};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One machine with a node agent; made by the operator, filled in by the agent's registration.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "graphplane.dev",
    version = "v1alpha1",
    kind = "GraphNode",
    shortname = "gn",
    category = "graphplane",
    status = "GraphNodeStatus",
    derive = "PartialEq",
    selectable = ".spec.tier",
    selectable = ".status.phase",
    doc = "One machine with a node agent; made by the operator, filled in by the agent's registration.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Tier", type_ = "string", json_path = ".spec.tier"),
    printcolumn(name = "Role", type_ = "string", json_path = ".spec.role"),
    printcolumn(name = "Databases", type_ = "integer", json_path = ".status.allocated.databases"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.epoch"),
    printcolumn(name = "Zone", type_ = "string", json_path = ".spec.zone", priority = 1),
    printcolumn(name = "Volume", type_ = "string", json_path = ".spec.volume", priority = 1),
    printcolumn(
        name = "Address",
        type_ = "string",
        json_path = ".status.registration.address",
        priority = 1
    ),
    printcolumn(
        name = "Provider-ID",
        type_ = "string",
        json_path = ".status.providerID",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("self.tier == oldSelf.tier").message("tier is immutable"),
    validation = Rule::new("self.role == oldSelf.role").message("role is immutable"),
    validation = Rule::new("self.zone == oldSelf.zone").message("zone is immutable"),
    validation = Rule::new("!has(oldSelf.volume) || (has(self.volume) && self.volume == oldSelf.volume)")
        .message("volume is immutable"),
    validation = Rule::new("self.role == 'replica' || has(self.volume)").message("a writer needs a volume"),
)]
#[serde(rename_all = "camelCase")]
pub struct GraphNodeSpec {
    /// Name of the Tier.
    #[schemars(length(min = 1, max = 40))]
    pub tier: String,
    /// What the node does.
    #[serde(default)]
    pub role: NodeRole,
    /// Zone of the machine and its volume; `local` on the local provider.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub zone: String,
    /// Name of the GraphVolume that it mounts; a replica has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub volume: Option<String>,
    /// Instance type chosen from the tier's list; absent where the provider has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub instance_type: Option<String>,
    /// Of a replica: whose it is, and what it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<ReplicaOf>,
}

/// Whose replica a node is, and what it serves.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaOf {
    /// Namespace of the Replica.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Name of the Replica.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// UID of the Replica: one that is made later under the same name has nodes of its own.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
    /// Id of the graph.
    pub graph_id: GraphId,
    /// Key below the object store under which its seeds are published.
    #[schemars(length(min = 1, max = 512))]
    pub seeds: String,
}

/// What a node does.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// Serves customers' graphs, read and written.
    #[default]
    Writer,
    /// Serves shared repositories, read and written.
    Shared,
    /// Serves seeds, read-only.
    Replica,
}

/// What is known of a node.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GraphNodeStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The state in one word, for people; machines read the conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<NodePhase>,
    /// Identity of the machine at its provider, such as `aws:///eu-central-1a/i-0abc…` or `local:///<node>`.
    #[serde(default, rename = "providerID", skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    /// What the machine was started from, as its provider noted it; absent where it notes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub template: Option<String>,
    /// Epoch of the newest attachment of its volume; set by the operator before the machine may write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// What the agent said when it registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<Registration>,
    /// What graphs take of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocated: Option<NodeResources>,
    /// Since when no graph is placed on it; absent while it holds one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_since: Option<Time>,
    /// The state in words for machines.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The state of a node in one word.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NodePhase {
    /// Nothing was started yet.
    #[default]
    Pending,
    /// The machine starts; its agent has not registered yet.
    Starting,
    /// The agent renews its lease.
    Ready,
    /// The agent does not renew its lease.
    Lost,
    /// Nothing new is placed on it.
    Draining,
    /// It is being removed.
    Terminating,
}

/// What an agent said when it registered.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    /// URL under which the agent is reached.
    #[schemars(length(max = 512))]
    pub address: String,
    /// Identity of the machine as the agent sees it.
    #[schemars(length(max = 128))]
    pub instance_id: String,
    /// Version of the agent.
    #[schemars(length(max = 64))]
    pub agent_version: String,
    /// Versions of its engines.
    #[serde(default)]
    pub engines: EngineVersions,
    /// What the machine has.
    #[serde(default)]
    pub capacity: NodeResources,
    /// Epoch that it was given when it registered last; a registration of an older epoch is of a process that is gone.
    #[serde(default)]
    pub epoch: Epoch,
    /// When it registered last.
    pub time: Time,
}

/// Versions of the engines of an agent.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct EngineVersions {
    /// LadybugDB.
    #[schemars(length(max = 64))]
    pub ladybug: String,
    /// LadybugDB's storage version.
    #[schemars(length(max = 64))]
    pub ladybug_storage: String,
    /// DuckDB.
    #[schemars(length(max = 64))]
    pub duckdb: String,
}

/// An amount of what a node has.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeResources {
    /// Memory for databases, in MiB.
    #[serde(rename = "memoryMiB")]
    pub memory_mib: MiB,
    /// Databases, subgraphs not counted.
    pub databases: u32,
    /// Subgraphs.
    pub subgraphs: u32,
    /// Disk, in MiB.
    #[serde(rename = "diskMiB")]
    pub disk_mib: MiB,
}
