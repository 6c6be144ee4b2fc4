//! [`Subgraph`]: a workspace beside a graph, on the same node.

use crate::graph::{AppliedSchema, DeletionPolicy, Sizes};
use crate::ids::{DatabaseId, SubgraphName};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A workspace of a graph: its own database, on the node of its parent.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "graphplane.dev",
    version = "v1alpha1",
    kind = "Subgraph",
    namespaced,
    shortname = "sg",
    category = "graphplane",
    status = "SubgraphStatus",
    derive = "PartialEq",
    selectable = ".spec.graph",
    selectable = ".status.databaseId",
    doc = "A workspace of a graph: its own database on the node of its parent, empty, with a schema, or forked.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Graph", type_ = "string", json_path = ".spec.graph"),
    printcolumn(name = "Name-In-Graph", type_ = "string", json_path = ".spec.name"),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(
        name = "Database-ID",
        type_ = "string",
        json_path = ".status.databaseId",
        priority = 1
    ),
    printcolumn(
        name = "Bytes",
        type_ = "integer",
        json_path = ".status.sizes.databaseBytes",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("self.graph == oldSelf.graph").message("graph is immutable"),
    validation = Rule::new("self.name == oldSelf.name").message("name is immutable"),
    validation = Rule::new("self.type == oldSelf.type").message("type is immutable"),
    validation = Rule::new("self.forkParent == oldSelf.forkParent")
        .message("forkParent is immutable: it says how the subgraph was first filled"),
    validation = Rule::new("!self.forkParent || self.type == 'static'")
        .message("only a subgraph of type `static` can fork its parent"),
)]
#[serde(rename_all = "camelCase")]
pub struct SubgraphSpec {
    /// Name of the parent Graph in the same namespace.
    #[schemars(length(min = 1, max = 50))]
    pub graph: String,
    /// Name below the parent; the database is `<graphId>_<name>`.
    pub name: SubgraphName,
    /// What it begins with.
    #[serde(default, rename = "type")]
    pub type_: SubgraphType,
    /// It begins as a copy of the parent's database.
    #[serde(default)]
    pub fork_parent: bool,
    /// Statements added to the schema. Those that were applied must stay as they are; new ones are appended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262_144))]
    pub ddl: Option<String>,
    /// What happens to the data when the object is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// Reconciling stops; the subgraph goes on serving.
    #[serde(default)]
    pub paused: bool,
}

/// What a subgraph begins with.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum SubgraphType {
    /// The parent's schema; with `forkParent`, its data too.
    #[default]
    Static,
    /// The tables of an agent's memory: concepts, observations, sessions.
    Memory,
    /// Nothing but `ddl`.
    Empty,
}

/// What is known of a subgraph.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SubgraphStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Name of its database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_id: Option<DatabaseId>,
    /// The GraphNode that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// How large it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sizes: Option<Sizes>,
    /// The part of `spec.ddl` that the database has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_schema: Option<AppliedSchema>,
    /// The state in words for machines.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
