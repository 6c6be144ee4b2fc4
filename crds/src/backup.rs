//! [`Backup`] and [`BackupSchedule`].

use crate::ids::{DatabaseId, GraphId};
use crate::quantities::Epoch;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One backup of a graph.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "graphplane.dev",
    version = "v1alpha1",
    kind = "Backup",
    namespaced,
    shortname = "gb",
    category = "graphplane",
    status = "BackupStatus",
    derive = "PartialEq",
    selectable = ".spec.graph",
    selectable = ".status.phase",
    doc = "One backup of a graph: a checkpointed copy in the object store, or a snapshot of the volume.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Graph", type_ = "string", json_path = ".spec.graph"),
    printcolumn(name = "Method", type_ = "string", json_path = ".spec.method"),
    printcolumn(name = "Bytes", type_ = "integer", json_path = ".status.sizeBytes"),
    printcolumn(name = "Verified", type_ = "date", json_path = ".status.verifiedAt"),
    printcolumn(name = "Key", type_ = "string", json_path = ".status.key", priority = 1),
    printcolumn(name = "SHA256", type_ = "string", json_path = ".status.sha256", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("self.graph == oldSelf.graph").message("graph is immutable"),
    validation = Rule::new("self.method == oldSelf.method").message("method is immutable"),
    validation = Rule::new("has(self.subgraph) == has(oldSelf.subgraph) && (!has(self.subgraph) || self.subgraph == oldSelf.subgraph)")
        .message("subgraph is immutable"),
)]
#[serde(rename_all = "camelCase")]
pub struct BackupSpec {
    /// Name of the Graph in the same namespace.
    #[schemars(length(min = 1, max = 50))]
    pub graph: String,
    /// Name of a Subgraph of that Graph, to back up its database instead of the graph's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub subgraph: Option<String>,
    /// How it is taken.
    #[serde(default)]
    pub method: BackupMethod,
    /// Kept for so many days after it is complete; absent means until it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3650))]
    pub retention_days: Option<u32>,
}

/// How a backup is taken.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BackupMethod {
    /// A checkpointed copy of the database in the object store.
    #[default]
    Object,
    /// A snapshot of the volume by the provider.
    VolumeSnapshot,
}

/// What is known of a backup.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<BackupPhase>,
    /// Id of the graph that it holds, for a restore after the graph is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph_id: Option<GraphId>,
    /// Database that it holds: the graph's own, or that of a subgraph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_id: Option<DatabaseId>,
    /// The agent's task that makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
    /// Key prefix in the object store; its `manifest.json` is written last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Snapshot of the provider, for method `VolumeSnapshot`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
    /// SHA-256 of the stored database file, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Size of the stored object, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// Nodes in the graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_count: Option<i64>,
    /// Relationships in the graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relationship_count: Option<i64>,
    /// Version of LadybugDB that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ladybug_version: Option<String>,
    /// Epoch of the node that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// When it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it was complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// When the stored bytes were read back and their checksum compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_at: Option<Time>,
    /// The state in words for machines.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// How far a backup is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BackupPhase {
    /// Not begun.
    #[default]
    Pending,
    /// Being made.
    Running,
    /// Stored and verified.
    Completed,
    /// Not made; the `Ready` condition says why.
    Failed,
}

/// Backups of a graph by a schedule.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "graphplane.dev",
    version = "v1alpha1",
    kind = "BackupSchedule",
    namespaced,
    shortname = "gbs",
    category = "graphplane",
    status = "BackupScheduleStatus",
    derive = "PartialEq",
    selectable = ".spec.graph",
    doc = "Backups of a graph by a cron schedule, with retention and restore drills.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Graph", type_ = "string", json_path = ".spec.graph"),
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule"),
    printcolumn(name = "Suspended", type_ = "boolean", json_path = ".spec.suspended"),
    printcolumn(name = "Last", type_ = "date", json_path = ".status.lastScheduleTime"),
    printcolumn(
        name = "Next",
        type_ = "string",
        json_path = ".status.nextScheduleTime",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("self.graph == oldSelf.graph").message("graph is immutable"))]
#[serde(rename_all = "camelCase")]
pub struct BackupScheduleSpec {
    /// Name of the Graph in the same namespace.
    #[schemars(length(min = 1, max = 50))]
    pub graph: String,
    /// A cron expression of five fields, UTC.
    #[schemars(
        length(max = 128),
        regex(pattern = r"^(@(hourly|daily|weekly|monthly|yearly)|[^\s]+(\s+[^\s]+){4})$")
    )]
    pub schedule: String,
    /// How each backup is taken.
    #[serde(default)]
    pub method: BackupMethod,
    /// What is kept.
    #[serde(default)]
    pub retention: Retention,
    /// A cron expression: restore the newest backup to a scratch database and check it. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 128),
        regex(pattern = r"^(@(hourly|daily|weekly|monthly|yearly)|[^\s]+(\s+[^\s]+){4})$")
    )]
    pub drill_schedule: Option<String>,
    /// No backup and no drill is started while it is true.
    #[serde(default)]
    pub suspended: bool,
}

/// What is kept of the backups of a schedule.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Retention {
    /// Backups are kept for so many days.
    #[schemars(range(min = 1, max = 3650))]
    pub days: u32,
    /// So many of the newest are kept whatever their age.
    #[schemars(range(min = 1, max = 1000))]
    pub keep_at_least: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            days: 7,
            keep_at_least: 1,
        }
    }
}

/// What is known of a schedule.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BackupScheduleStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The newest time of the schedule for which a backup was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// When the next one is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_schedule_time: Option<Time>,
    /// When the last restore drill ended; the `DrillPassed` condition has what it found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_drill_time: Option<Time>,
    /// The restore drill that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<Drill>,
    /// The state in words for machines.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A restore drill that is under way. It is written down before anything is restored: only what stands here is removed
/// afterwards.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Drill {
    /// The Backup that is restored.
    pub backup: String,
    /// The scratch database that it is restored to.
    pub database: DatabaseId,
    /// The GraphVolume that this database is on.
    pub volume: String,
    /// The agent's task that restores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
    /// How often it was begun anew, because it was cut off.
    #[serde(default)]
    pub repeated: u32,
    /// When it was begun.
    pub started_at: Time,
}
