//! Snapshots of disks.

use super::ProviderError;
use async_trait::async_trait;
use graphplane_crds::quantities::GiB;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// A snapshot that should exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRequest {
    /// Name of the GraphVolume.
    pub volume: String,
    /// Identity of its disk at the provider.
    pub disk: String,
    /// Token of its creation; a snapshot that was made with it is this one.
    pub token: String,
    /// Ownership: cluster, kind, name and UID of what the snapshot is for.
    pub tags: BTreeMap<String, String>,
}

/// A snapshot at the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFacts {
    /// Identity at the provider.
    pub id: String,
    /// Token of its creation.
    pub token: String,
    /// Identity of the disk that it is of.
    pub disk: String,
    /// Size of that disk.
    pub size_gib: GiB,
    /// When it was begun: what was on the disk then is what it holds.
    pub started: Timestamp,
    /// Whether it is complete.
    pub state: SnapshotState,
    /// Its tags, without prefix.
    pub tags: BTreeMap<String, String>,
}

/// Whether a snapshot is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotState {
    /// The provider still copies, so many percent are done.
    Pending(u8),
    /// It can be restored.
    Complete,
    /// It cannot be restored.
    Failed,
}

/// A provider's snapshots.
#[async_trait]
pub trait Snapshots: Send + Sync {
    /// Begins a snapshot, unless one with the same token exists.
    ///
    /// # Errors
    /// When the provider refuses or cannot be reached; the call may be repeated.
    async fn ensure_snapshot(&self, want: &SnapshotRequest) -> Result<SnapshotFacts, ProviderError>;

    /// Removes a snapshot; one that does not exist is removed already.
    ///
    /// # Errors
    /// When the provider refuses or cannot be reached.
    async fn delete_snapshot(&self, id: &str) -> Result<(), ProviderError>;
}
