//! [`GraphVolume`]: one disk, attached to one writer at a time.

use crate::graph::DeletionPolicy;
use crate::quantities::{Epoch, GiB, MiB};
use crate::tier::{Autogrow, VolumeType};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One EBS volume, or a directory on the local provider.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "graphplane.dev",
    version = "v1alpha1",
    kind = "GraphVolume",
    shortname = "gv",
    category = "graphplane",
    status = "GraphVolumeStatus",
    derive = "PartialEq",
    selectable = ".spec.tier",
    selectable = ".status.attachedTo",
    doc = "One disk of a writer: an EBS volume, or a directory on the local provider.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Size-GiB", type_ = "integer", json_path = ".spec.sizeGiB"),
    printcolumn(name = "Used-MiB", type_ = "integer", json_path = ".status.usedMiB"),
    printcolumn(name = "Attached-To", type_ = "string", json_path = ".status.attachedTo"),
    printcolumn(name = "Volume-ID", type_ = "string", json_path = ".status.volumeId", priority = 1),
    printcolumn(name = "Zone", type_ = "string", json_path = ".spec.zone", priority = 1),
    printcolumn(
        name = "Last-Snapshot",
        type_ = "date",
        json_path = ".status.lastSnapshot.time",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("self.sizeGiB >= oldSelf.sizeGiB").message("sizeGiB may only grow"),
    validation = Rule::new("self.zone == oldSelf.zone").message("zone is immutable"),
    validation = Rule::new("!has(self.autogrow) || self.autogrow.maxGiB >= self.sizeGiB")
        .message("autogrow.maxGiB must be at least sizeGiB"),
)]
#[serde(rename_all = "camelCase")]
pub struct GraphVolumeSpec {
    /// Name of the Tier whose nodes mount it.
    #[schemars(length(min = 1, max = 40))]
    pub tier: String,
    /// Zone; a volume is attached only to machines of its zone.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub zone: String,
    /// Size, in GiB. It may only grow.
    #[serde(rename = "sizeGiB")]
    #[schemars(range(min = 1, max = 65536))]
    pub size_gib: GiB,
    /// Volume type.
    #[serde(default, rename = "type")]
    pub type_: VolumeType,
    /// I/O operations per second.
    #[serde(default = "gp3_iops")]
    #[schemars(range(min = 100, max = 256_000))]
    pub iops: u32,
    /// Throughput, in MiB per second.
    #[serde(default = "gp3_throughput", rename = "throughputMiBps")]
    #[schemars(range(min = 1, max = 4000))]
    pub throughput_mibps: u32,
    /// When and how far it grows by itself; absent means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autogrow: Option<Autogrow>,
    /// When snapshots are taken and how long they are kept; absent means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<SnapshotPolicy>,
    /// What happens to the disk when the object is deleted. A disk that still holds databases is never destroyed.
    #[serde(default)]
    pub reclaim_policy: DeletionPolicy,
}

// What AWS gives with every gp3 volume at no extra price.
fn gp3_iops() -> u32 {
    3000
}

fn gp3_throughput() -> u32 {
    125
}

/// When snapshots are taken and how long they are kept.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotPolicy {
    /// A cron expression of five fields, UTC.
    #[schemars(
        length(max = 128),
        regex(pattern = r"^(@(hourly|daily|weekly|monthly|yearly)|[^\s]+(\s+[^\s]+){4})$")
    )]
    pub schedule: String,
    /// Snapshots are kept for so many days.
    #[schemars(range(min = 1, max = 3650))]
    pub retention_days: u32,
}

/// What is known of a volume.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GraphVolumeStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Identity at the provider, such as `vol-0abc…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_id: Option<String>,
    /// What the provider says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<VolumeState>,
    /// The GraphNode that it is attached to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached_to: Option<String>,
    /// Epoch of the newest attachment; only ever raised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// Size that the provider reports, in GiB.
    #[serde(default, rename = "sizeGiB", skip_serializing_if = "Option::is_none")]
    pub size_gib: Option<GiB>,
    /// Used space as its agent reports it, in MiB.
    #[serde(default, rename = "usedMiB", skip_serializing_if = "Option::is_none")]
    pub used_mib: Option<MiB>,
    /// Databases that are on it, so that none is destroyed by accident.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<String>,
    /// When its size or performance was changed in the last 24 h; the provider allows four.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modifications: Vec<Time>,
    /// The snapshot that the disk was made from, by the annotation `graphplane.dev/restore-from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_from: Option<String>,
    /// The newest complete snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_snapshot: Option<VolumeSnapshotRef>,
    /// The state in words for machines.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// What the provider says of a volume.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VolumeState {
    /// Being made.
    Creating,
    /// Attached nowhere.
    Available,
    /// Being attached.
    Attaching,
    /// Attached.
    InUse,
    /// A change was asked for and has not taken effect.
    Modifying,
    /// The new size is usable; the provider still moves data.
    Optimizing,
    /// Being detached.
    Detaching,
    /// The provider reports an error.
    Error,
}

/// The newest complete snapshot of a volume.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSnapshotRef {
    /// Identity at the provider, such as `snap-0abc…`.
    pub id: String,
    /// When it was begun: what was on the disk then is what it holds.
    pub time: Time,
}
