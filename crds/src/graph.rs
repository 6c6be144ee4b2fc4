//! [`Graph`]: one database of a tenant.

use crate::ids::GraphId;
use crate::quantities::{Epoch, GiB};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One graph database with its staging tables and vector indexes.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "graphplane.dev",
    version = "v1alpha1",
    kind = "Graph",
    namespaced,
    shortname = "gr",
    category = "graphplane",
    status = "GraphStatus",
    derive = "PartialEq",
    selectable = ".spec.tier",
    selectable = ".status.graphId",
    selectable = ".status.node",
    doc = "One graph database of a tenant, on a machine of its tier, with staging tables, backups and subgraphs.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Tier", type_ = "string", json_path = ".spec.tier"),
    printcolumn(name = "Graph-ID", type_ = "string", json_path = ".status.graphId"),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.node"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoint", priority = 1),
    printcolumn(name = "Bytes", type_ = "integer", json_path = ".status.sizes.databaseBytes", priority = 1),
    printcolumn(name = "Subgraphs", type_ = "integer", json_path = ".status.subgraphs", priority = 1),
    printcolumn(name = "Last-Backup", type_ = "date", json_path = ".status.lastBackup.time", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.spec.schema.type != 'shared' || self.metadata.name.matches('^[a-z][a-z0-9]{1,31}$') && !self.metadata.name.startsWith('kg')")
        .message("a graph with schema.type `shared` keeps its name as its id: 2-32 lower-case letters and digits, not beginning with `kg`"),
    validation = Rule::new("self.metadata.name.size() <= 50")
        .message("a graph's name has at most 50 characters, since names of its backups are made from it"),
)]
#[x_kube(
    validation = Rule::new("!has(oldSelf.graphId) || (has(self.graphId) && self.graphId == oldSelf.graphId)")
        .message("graphId is immutable"),
    validation = Rule::new("has(self.bootstrap) == has(oldSelf.bootstrap) && (!has(self.bootstrap) || self.bootstrap == oldSelf.bootstrap)")
        .message("bootstrap is immutable: it says how the graph was first filled"),
)]
#[serde(rename_all = "camelCase")]
pub struct GraphSpec {
    /// Name of the Tier.
    #[schemars(length(min = 1, max = 40), regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub tier: String,
    /// Identity of the graph; the REST API sets it. Absent: derived from the object's UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph_id: Option<GraphId>,
    /// Name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub display_name: Option<String>,
    /// What the graph is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// The tables that the graph begins with.
    #[serde(default)]
    pub schema: GraphSchema,
    /// How much disk the graph may take.
    #[serde(default)]
    pub storage: GraphStorage,
    /// When backups are taken and how long they are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupPolicy>,
    /// What the graph is first filled from; absent: empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Bootstrap>,
    /// What happens to the data when the object is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// The database is closed and refuses queries; its data stays.
    #[serde(default)]
    pub suspended: bool,
    /// Reconciling stops; the graph goes on serving.
    #[serde(default)]
    pub paused: bool,
}

/// The tables that a graph begins with.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[x_kube(
    validation = Rule::new("self.type != 'custom' || has(self.ddl) && self.ddl.size() > 0")
        .message("ddl is required when type is `custom`"),
    validation = Rule::new("self.type == oldSelf.type").message("schema.type is immutable"),
)]
#[serde(rename_all = "camelCase")]
pub struct GraphSchema {
    /// Which tables: `entity` (the platform's base tables), `shared` (a repository, named by the object), `custom`.
    #[serde(default, rename = "type")]
    pub type_: SchemaType,
    /// `CREATE NODE TABLE` and `CREATE REL TABLE` statements, separated by `;`. With `entity` and `shared` they are
    /// added to the base tables. Statements that were applied must stay as they are; new ones are appended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262_144))]
    pub ddl: Option<String>,
}

/// Which tables a graph begins with.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum SchemaType {
    /// The platform's base tables: entities, periods, units, elements, taxonomies.
    #[default]
    Entity,
    /// A shared repository.
    Shared,
    /// Only the statements of `ddl`.
    Custom,
}

/// How much disk a graph may take.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[x_kube(
    validation = Rule::new("self.sizeGiB >= oldSelf.sizeGiB").message("storage.sizeGiB may only grow"),
)]
#[serde(rename_all = "camelCase")]
pub struct GraphStorage {
    /// Disk reserved on the node's volume, in GiB. It may only grow.
    #[serde(rename = "sizeGiB", default = "default_graph_size")]
    #[schemars(range(min = 1, max = 65536))]
    pub size_gib: GiB,
}

fn default_graph_size() -> GiB {
    GiB(1)
}

impl Default for GraphStorage {
    fn default() -> Self {
        Self {
            size_gib: default_graph_size(),
        }
    }
}

/// When backups are taken and how long they are kept.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BackupPolicy {
    /// A cron expression of five fields, UTC.
    #[schemars(
        length(max = 128),
        regex(pattern = r"^(@(hourly|daily|weekly|monthly|yearly)|[^\s]+(\s+[^\s]+){4})$")
    )]
    pub schedule: String,
    /// Backups are kept for so many days.
    #[schemars(range(min = 1, max = 3650))]
    pub retention_days: u32,
}

/// What a graph is first filled from; exactly one.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[x_kube(
    validation = Rule::new("[has(self.backup), has(self.snapshot), has(self.graph)].filter(x, x).size() == 1")
        .message("bootstrap needs exactly one of backup, snapshot and graph"),
)]
#[serde(rename_all = "camelCase")]
pub struct Bootstrap {
    /// Name of a Backup in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub backup: Option<String>,
    /// Id of a volume snapshot of the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub snapshot: Option<String>,
    /// Name of a Graph in the same namespace, copied as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub graph: Option<String>,
}

/// What happens to data when its object is deleted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeletionPolicy {
    /// The database's file stays where it is.
    Retain,
    /// A final backup is complete before the database is destroyed.
    #[default]
    Snapshot,
    /// The database is destroyed.
    Delete,
}

/// What is known of a graph.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GraphStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The state in one word, for people; machines read the conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<GraphPhase>,
    /// Identity of the graph, and name of its database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph_id: Option<GraphId>,
    /// The GraphNode that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// URL of that node's agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The GraphVolume that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// Epoch of the node when the graph was last seen there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// How large it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sizes: Option<Sizes>,
    /// The part of `spec.schema.ddl` that the database has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_schema: Option<AppliedSchema>,
    /// How many subgraphs it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subgraphs: Option<u32>,
    /// The newest complete backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<LastBackup>,
    /// Its part of what its node and volume cost in 30 days, in US dollars, by the databases that the node may have;
    /// absent where no price is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly_cost_usd: Option<String>,
    /// The state in words for machines.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The state of a graph in one word.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum GraphPhase {
    /// No node was chosen yet.
    #[default]
    Pending,
    /// Its node is starting or its database is being made.
    Provisioning,
    /// It answers queries.
    Ready,
    /// It is closed by `spec.suspended`.
    Suspended,
    /// Its node is lost; it is not reachable at the moment.
    Unavailable,
    /// It cannot be made as the spec says.
    Failed,
    /// It is being deleted.
    Deleting,
}

/// How large a database is on disk, rounded to 64 KiB so that an idle graph's status does not change.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Sizes {
    /// The graph database.
    pub database_bytes: i64,
    /// The staging database.
    pub staging_bytes: i64,
}

/// The part of a schema that a database has.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct AppliedSchema {
    /// Statements of `spec.schema.ddl` that were applied, counted from the first.
    pub statements: u32,
    /// SHA-256 of these statements' text.
    pub hash: String,
}

/// The newest complete backup of a graph.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LastBackup {
    /// Name of the Backup.
    pub name: String,
    /// When it was complete.
    pub time: Time,
}
