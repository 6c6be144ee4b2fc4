//! [`Tier`]: what a class of machine is. The figures come from `config/graph.yml`.

use crate::quantities::{CountOrPercent, GiB, Limit, MiB};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A class of machine: its instance type, memory, limits, storage defaults, scaling and rollout rules.
///
/// Changing engine figures applies to running nodes at once; changing the instance rolls nodes within the rollout
/// budgets; changing storage defaults touches new volumes only.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "graphplane.dev",
    version = "v1alpha1",
    kind = "Tier",
    shortname = "gt",
    category = "graphplane",
    status = "TierStatus",
    derive = "PartialEq",
    doc = "A class of machine on which graphs live: instance, memory, limits, storage, scaling, rollout, price.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Instance", type_ = "string", json_path = ".spec.instance.types[0]"),
    printcolumn(name = "Databases", type_ = "integer", json_path = ".spec.databasesPerNode"),
    printcolumn(name = "Subgraphs", type_ = "integer", json_path = ".spec.maxSubgraphs"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodes.ready"),
    printcolumn(name = "Max", type_ = "integer", json_path = ".spec.scaling.maxNodes"),
    printcolumn(name = "Memory-MiB", type_ = "integer", json_path = ".spec.memory.nodeMiB", priority = 1),
    printcolumn(name = "Graphs", type_ = "integer", json_path = ".status.capacity.usedDatabases", priority = 1),
    printcolumn(name = "Monthly-USD", type_ = "string", json_path = ".status.monthlyCostUsd", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 40")
        .message("a tier's name has at most 40 characters, since names of nodes and volumes are made from it"),
)]
#[x_kube(
    validation = Rule::new("self.memory.perDatabaseMiB <= self.memory.nodeMiB")
        .message("memory.perDatabaseMiB must not exceed memory.nodeMiB"),
    validation = Rule::new("self.scaling.minNodes <= self.scaling.maxNodes")
        .message("scaling.minNodes must not exceed scaling.maxNodes"),
    validation = Rule::new("!has(self.storage.autogrow) || self.storage.autogrow.maxGiB >= self.storage.sizeGiB")
        .message("storage.autogrow.maxGiB must be at least storage.sizeGiB"),
)]
#[serde(rename_all = "camelCase")]
pub struct TierSpec {
    /// What the tier is, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// Name shown to customers, such as `Standard`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub display_name: Option<String>,
    /// What kind of node serves the tier.
    #[serde(default)]
    pub role: TierRole,
    /// Which machines to start.
    #[serde(default)]
    pub instance: Instance,
    /// How memory is shared out on a node.
    pub memory: Memory,
    /// How many databases a node takes, subgraphs not counted.
    #[schemars(range(min = 1, max = 10000))]
    pub databases_per_node: u32,
    /// How many subgraphs one graph may have; absent means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub max_subgraphs: Option<u32>,
    /// Settings that node agents apply live.
    #[serde(default)]
    pub engine: Engine,
    /// Limits of loading data.
    #[serde(default)]
    pub copy: CopyLimits,
    /// Limits of backups.
    #[serde(default)]
    pub backup: BackupLimits,
    /// Limits of one graph's content; absent figures are not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<GraphLimits>,
    /// Defaults of new volumes.
    #[serde(default)]
    pub storage: TierStorage,
    /// How many nodes there may be.
    #[serde(default)]
    pub scaling: Scaling,
    /// How nodes are replaced when the instance or image changes.
    #[serde(default)]
    pub rollout: Rollout,
    /// Factor on the API's rate limits; absent means the API's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub api_rate_multiplier: Option<f64>,
    /// Shared repositories that live on this tier, such as `sec`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 32), regex(pattern = r"^[a-z][a-z0-9]{1,31}$")))]
    pub shared_repositories: Vec<String>,
}

/// What kind of node serves a tier.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum TierRole {
    /// Customers' graphs, read and written.
    #[default]
    Writer,
    /// Shared repositories, read and written by the platform.
    Shared,
}

/// Which machines to start.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// Instance types in order of preference; later ones are used when a zone is short of earlier ones. Empty on a
    /// provider that has no instance types, such as `local`.
    #[serde(default)]
    #[schemars(
        length(max = 16),
        inner(length(max = 32), regex(pattern = r"^[a-z0-9-]+\.[a-z0-9-]+$"))
    )]
    pub types: Vec<String>,
    /// Processor architecture of these types.
    #[serde(default)]
    pub architecture: Architecture,
    /// Zones to use; empty means all zones of the provider's configuration.
    #[serde(default)]
    #[schemars(length(max = 16), inner(length(max = 32), regex(pattern = r"^[a-z0-9-]+$")))]
    pub zones: Vec<String>,
}

/// Processor architecture.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// 64-bit ARM (AWS Graviton).
    #[default]
    Arm64,
    /// 64-bit x86.
    Amd64,
}

/// How memory is shared out on a node.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// Memory that databases of a node may use together, in MiB.
    #[serde(rename = "nodeMiB")]
    pub node_mib: MiB,
    /// Buffer pool of one database, in MiB.
    #[serde(rename = "perDatabaseMiB")]
    pub per_database_mib: MiB,
    /// Buffer pool of one subgraph, in MiB; absent means that of a database.
    #[serde(default, rename = "perSubgraphMiB", skip_serializing_if = "Option::is_none")]
    pub per_subgraph_mib: Option<MiB>,
    /// Pool that a database may be raised to for a bulk load, in MiB.
    #[serde(default, rename = "maxBoostMiB", skip_serializing_if = "Option::is_none")]
    pub max_boost_mib: Option<MiB>,
    /// Memory limit of one staging database, in MiB.
    #[serde(default, rename = "stagingMiB", skip_serializing_if = "Option::is_none")]
    pub staging_mib: Option<MiB>,
    /// Threads of one staging database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub staging_threads: Option<u32>,
}

/// Settings that node agents apply live.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Engine {
    /// A query is stopped after so many seconds.
    #[schemars(range(min = 1, max = 86400))]
    pub query_timeout_seconds: u32,
    /// A longer statement is refused; characters.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_query_length: u32,
    /// Rows of one chunk of a streamed answer.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub chunk_rows: u32,
    /// Queries that may run at once on one database.
    #[schemars(range(min = 1, max = 1000))]
    pub connections_per_database: u32,
    /// Rows of one batch of an ingestion; absent means the engine's own choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub ingestion_batch_rows: Option<u32>,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            query_timeout_seconds: 30,
            max_query_length: 10_000,
            chunk_rows: 1000,
            connections_per_database: 10,
            ingestion_batch_rows: None,
        }
    }
}

/// Limits of loading data; `-1` means unlimited.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct CopyLimits {
    /// Largest file, in GiB.
    #[serde(rename = "maxFileSizeGiB")]
    pub max_file_size_gib: Limit,
    /// A load is stopped after so many seconds.
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: u32,
    /// Loads at once per graph.
    pub concurrent: Limit,
    /// Files of one load.
    pub max_files: Limit,
    /// Loads per graph and day.
    pub per_day: Limit,
}

impl Default for CopyLimits {
    fn default() -> Self {
        Self {
            max_file_size_gib: Limit(1),
            timeout_seconds: 300,
            concurrent: Limit(1),
            max_files: Limit(100),
            per_day: Limit(10),
        }
    }
}

/// Limits of backups; `-1` means unlimited.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct BackupLimits {
    /// Largest database that is backed up, in GiB.
    #[serde(rename = "maxSizeGiB")]
    pub max_size_gib: Limit,
    /// Longest retention, in days.
    #[schemars(range(min = 1, max = 3650))]
    pub retention_days: u32,
    /// Backups per graph and day.
    pub per_day: Limit,
}

impl Default for BackupLimits {
    fn default() -> Self {
        Self {
            max_size_gib: Limit(10),
            retention_days: 7,
            per_day: Limit(2),
        }
    }
}

/// Limits of one graph's content.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct GraphLimits {
    /// Most nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_nodes: Option<i64>,
    /// Most relationships.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_relationships: Option<i64>,
    /// Most rows of one load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rows_per_copy: Option<i64>,
    /// Most rows of one staging table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_table_rows: Option<i64>,
    /// Rows of one slice of a materialisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunk_size_rows: Option<i64>,
    /// Most storage of a graph with its subgraphs, staging and vectors, in GiB.
    #[serde(rename = "storageGiB", skip_serializing_if = "Option::is_none")]
    pub storage_gib: Option<GiB>,
    /// A limit is announced as near from this share on, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub warn_at_percent: Option<u32>,
}

/// Defaults of new volumes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct TierStorage {
    /// Size, in GiB.
    #[serde(rename = "sizeGiB")]
    #[schemars(range(min = 1, max = 65536))]
    pub size_gib: GiB,
    /// Volume type.
    #[serde(rename = "type")]
    pub type_: VolumeType,
    /// I/O operations per second.
    #[schemars(range(min = 100, max = 256_000))]
    pub iops: u32,
    /// Throughput, in MiB per second.
    #[serde(rename = "throughputMiBps")]
    #[schemars(range(min = 1, max = 4000))]
    pub throughput_mibps: u32,
    /// When and how far volumes grow by themselves; absent means never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autogrow: Option<Autogrow>,
}

impl Default for TierStorage {
    fn default() -> Self {
        Self {
            size_gib: GiB(50),
            type_: VolumeType::Gp3,
            iops: 3000,
            throughput_mibps: 125,
            autogrow: None,
        }
    }
}

/// Type of a block volume.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum VolumeType {
    /// General purpose SSD, size and performance apart.
    #[default]
    Gp3,
    /// Provisioned-IOPS SSD.
    Io2,
}

/// When and how far volumes grow by themselves.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Autogrow {
    /// Grow when so many percent are used.
    #[schemars(range(min = 50, max = 99))]
    pub at_percent: u32,
    /// Never grow beyond so many GiB.
    #[serde(rename = "maxGiB")]
    #[schemars(range(min = 1, max = 65536))]
    pub max_gib: GiB,
}

/// How many nodes there may be.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Scaling {
    /// So many are kept even when empty.
    #[schemars(range(min = 0, max = 1000))]
    pub min_nodes: u32,
    /// Never more than so many.
    #[schemars(range(min = 0, max = 1000))]
    pub max_nodes: u32,
    /// An empty node beyond `minNodes` is removed after so many seconds.
    #[schemars(range(min = 0, max = 86400))]
    pub consolidate_after_seconds: u32,
}

impl Default for Scaling {
    fn default() -> Self {
        // Long enough to keep a node warm for the next graph of a script, short enough that a machine is not paid for
        // in vain.
        Self {
            min_nodes: 0,
            max_nodes: 10,
            consolidate_after_seconds: 15,
        }
    }
}

/// How nodes are replaced when the instance or image changes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Rollout {
    /// So many nodes go first, and must be ready before others follow.
    #[schemars(range(min = 0, max = 1000))]
    pub canary: u32,
    /// The rollout stops when so many of the replaced nodes failed.
    pub failure_threshold: CountOrPercent,
    /// When and how many nodes may be down; the strictest budget in force wins, and while none is in force nothing is
    /// replaced. Empty: one node at a time.
    #[schemars(length(max = 50))]
    pub budgets: Vec<Budget>,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            canary: 1,
            failure_threshold: CountOrPercent::Percent(5),
            budgets: Vec::new(),
        }
    }
}

/// How many nodes may be disrupted at once, and when.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[x_kube(
    validation = Rule::new("has(self.schedule) == has(self.duration)")
        .message("schedule and duration go together"),
)]
#[serde(rename_all = "camelCase")]
pub struct Budget {
    /// Nodes that may be down at once.
    pub nodes: CountOrPercent,
    /// When the budget is in force: a cron expression of five fields, UTC. Absent: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 128),
        regex(pattern = r"^(@(hourly|daily|weekly|monthly|yearly)|[^\s]+(\s+[^\s]+){4})$")
    )]
    pub schedule: Option<String>,
    /// For how long from each time of the schedule, such as `4h` or `1h30m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+h)?([0-9]+m)?$"))]
    pub duration: Option<String>,
    /// Only disruptions for these reasons; empty means all but `Empty`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub reasons: Vec<DisruptionReason>,
}

/// Why a node is disrupted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DisruptionReason {
    /// The tier's instance, image or agent changed.
    Drifted,
    /// The node is empty. Its removal takes nothing from anybody, so only budgets that name it hold it back.
    Empty,
    /// The node is unhealthy. It is down already, so its replacement is never held back; it counts as down.
    Unhealthy,
}

/// What is known of a tier.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TierStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Nodes by state.
    #[serde(default)]
    pub nodes: NodeCounts,
    /// What the tier's nodes hold and could hold.
    #[serde(default)]
    pub capacity: TierCapacity,
    /// Outputs of the tier's stack; empty on a provider without stacks.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub stack_outputs: std::collections::BTreeMap<String, String>,
    /// What the running nodes and volumes cost in 30 days, in US dollars; absent where no price is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly_cost_usd: Option<String>,
    /// The state in words for machines.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Nodes by state.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeCounts {
    /// All nodes of the tier.
    pub total: u32,
    /// Nodes whose agent renews its lease.
    pub ready: u32,
    /// Nodes being started.
    pub starting: u32,
    /// Nodes being emptied or removed.
    pub draining: u32,
    /// Nodes whose machine was started from what the tier says now.
    pub up_to_date: u32,
    /// Nodes whose machine is being replaced by one that is up to date.
    pub replacing: u32,
}

/// What the tier's nodes hold and could hold.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct TierCapacity {
    /// Databases on the running nodes.
    pub used_databases: u32,
    /// Databases that the running nodes could hold.
    pub databases: u32,
    /// Databases that all allowed nodes could hold.
    pub max_databases: u32,
}
