//! Where machines and disks come from.
//!
//! A provider does what it is told and remembers nothing that it cannot find out again: what exists is asked for with
//! [`Provider::describe`], and what is made carries its name and the token of its creation, so that a repeated call finds
//! what the first one made.

pub mod aws;
pub mod fleets;
pub mod inventory;
mod listing;
pub mod local;
pub mod snapshots;
pub mod stacks;

pub(crate) use listing::Listing;

pub use graphplane_core::node_plan::Attachment;

use async_trait::async_trait;
use fleets::{FleetFacts, Fleets};
use futures::stream::BoxStream;
use graphplane_core::node_plan::{Instance, Pace};
use graphplane_crds::quantities::{Epoch, GiB};
use graphplane_crds::tier::{Tier, VolumeType};
use inventory::Inventory;
use jiff::Timestamp;
use snapshots::{SnapshotFacts, Snapshots};
use stacks::{StackFacts, StackRequest, Stacks};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// A call to a provider that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The disk holds databases and is not destroyed.
    #[error("volume {volume} holds {}: it is not destroyed", files.join(", "))]
    NotEmpty {
        /// The GraphVolume.
        volume: String,
        /// What is on it.
        files: Vec<String>,
    },
    /// Another machine than the one that was asked for lives in its place.
    #[error("{0}")]
    Occupied(String),
    /// The provider has no machine of that type in that zone at present. None was started.
    #[error("no {instance_type} can be had in {zone}: {message}")]
    NoCapacity {
        /// The type.
        instance_type: String,
        /// The zone.
        zone: String,
        /// What it said.
        message: String,
    },
    /// The operating system refused.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The provider's service refused or could not be reached.
    #[error("{call}: {message}")]
    Call {
        /// The call.
        call: &'static str,
        /// What it said.
        message: String,
    },
}

impl ProviderError {
    /// A word of a bounded set, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotEmpty { .. } => "not_empty",
            Self::Occupied(_) => "occupied",
            Self::NoCapacity { .. } => "no_capacity",
            Self::Io { .. } => "io",
            Self::Call { .. } => "refused",
        }
    }
}

/// All that a provider has for this cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct World {
    /// Machines, by the name of their GraphNode.
    pub instances: BTreeMap<String, Instance>,
    /// Disks, by the name of their GraphVolume.
    pub disks: BTreeMap<String, DiskFacts>,
    /// Snapshots of disks.
    pub snapshots: Vec<SnapshotFacts>,
    /// Stacks, by their name; those of others, too, where the name could be one of ours: their tags say whose they are.
    pub stacks: BTreeMap<String, StackFacts>,
    /// Fleets, by their name.
    pub fleets: BTreeMap<String, FleetFacts>,
}

/// A disk at a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFacts {
    /// Identity at the provider.
    pub id: String,
    /// Its size, where the provider knows sizes.
    pub size_gib: Option<GiB>,
    /// Databases on it, where the provider can look into it.
    pub databases: Option<Vec<String>>,
    /// What it can do, where the provider knows that.
    pub performance: Option<Performance>,
    /// To which machine it is attached.
    pub attachment: Attachment,
    /// A change of size or performance that runs, or the newest one that ended.
    pub modification: Option<Modification>,
    /// UID of the GraphVolume that it was made for, where the provider notes that.
    pub made_for: Option<String>,
}

/// Type and performance of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Performance {
    /// Volume type.
    pub type_: VolumeType,
    /// I/O operations per second.
    pub iops: u32,
    /// Throughput, in MiB per second; a type that has no such figure says 0.
    pub throughput_mibps: u32,
}

impl Default for Performance {
    fn default() -> Self {
        Self {
            type_: VolumeType::Gp3,
            // What comes with every gp3 volume at no extra price.
            iops: 3000,
            throughput_mibps: 125,
        }
    }
}

/// A change of a disk's size or performance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Modification {
    /// How far it is.
    pub state: ModificationState,
    /// When it was begun.
    pub started: Timestamp,
}

/// How far a modification is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModificationState {
    /// It has not taken effect.
    Modifying,
    /// The new size is usable, the provider still moves data; no other modification may begin.
    Optimizing,
    /// It is done.
    Completed,
    /// It failed.
    Failed,
}

/// A disk that should exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRequest {
    /// Name of the GraphVolume.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Its size; an existing disk is only ever made larger.
    pub size_gib: GiB,
    /// Type and performance; an existing disk is changed to it.
    pub performance: Performance,
    /// Identity of the snapshot that a new disk begins with.
    pub snapshot: Option<String>,
    /// Token of its creation.
    pub client_token: String,
    /// Ownership: cluster, kind, UID.
    pub tags: BTreeMap<String, String>,
}

/// What a machine is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It writes the databases on a GraphVolume.
    Write {
        /// Name of the GraphVolume, which it mounts.
        volume: String,
    },
    /// It serves seeds. Its disk is its own and goes with it.
    Serve {
        /// Their keys, below the object store.
        seeds: Vec<String>,
    },
}

/// A machine that should run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceRequest {
    /// Name of the GraphNode.
    pub node: String,
    /// What it is for.
    pub purpose: Purpose,
    /// Token of its creation: a machine that was started with it is this one.
    pub client_token: String,
    /// One-time token of its agent's first registration; used only if the machine is started by this call.
    pub bootstrap_token: String,
    /// Identity of the cluster, for the agent.
    pub cluster_id: String,
    /// Where the machine has to be.
    pub zone: String,
    /// Its type. A request that is repeated under the same token names the same type, unless the provider has refused
    /// the former one with [`ProviderError::NoCapacity`].
    pub instance_type: Option<String>,
    /// Outputs of the stack of its Tier; empty on a provider without stacks.
    pub stack_outputs: BTreeMap<String, String>,
    /// Epoch under which it starts.
    pub epoch: Epoch,
    /// Ownership: cluster, kind, UID.
    pub tags: BTreeMap<String, String>,
}

/// Disks.
#[async_trait]
pub trait Volumes: Send + Sync {
    /// Makes the disk if it does not exist, and makes it larger if it is too small.
    ///
    /// # Errors
    /// When the provider refuses or cannot be reached; the call may be repeated.
    async fn ensure_volume(&self, want: &VolumeRequest) -> Result<DiskFacts, ProviderError>;

    /// Destroys the disk; one that does not exist is destroyed already.
    ///
    /// # Errors
    /// [`ProviderError::NotEmpty`] when databases are on it, as far as the provider can see.
    async fn delete_volume(&self, name: &str) -> Result<(), ProviderError>;

    /// Begins to attach the disk of a GraphVolume to a machine, by the machine's [`name`](Instance::name). One that is
    /// attached there is left alone; a provider whose disks need not be attached does nothing.
    ///
    /// # Errors
    /// [`ProviderError::Occupied`] when it is attached to another machine.
    async fn attach_volume(&self, name: &str, machine: &str) -> Result<(), ProviderError>;

    /// Begins to detach the disk of a GraphVolume from a machine, by the machine's [`name`](Instance::name). One that is
    /// attached to another is left alone: whoever asks knows that this one is gone, and nothing of the other.
    ///
    /// # Errors
    /// When the provider refuses or cannot be reached; the call may be repeated.
    async fn detach_volume(&self, name: &str, machine: &str, force: bool) -> Result<(), ProviderError>;
}

/// Machines.
#[async_trait]
pub trait Instances: Send + Sync {
    /// Starts the machine unless one that was started with the same token lives.
    ///
    /// # Errors
    /// [`ProviderError::Occupied`] when a machine with another token lives in its place.
    async fn ensure_instance(&self, want: &InstanceRequest) -> Result<Instance, ProviderError>;

    /// Asks the machine of a node that the listing shows to stop, or stops it by force. Returns before it has stopped; one that is dead or does
    /// not exist is left alone.
    ///
    /// # Errors
    /// When the provider refuses or cannot be reached.
    async fn stop_instance(&self, node: &str, force: bool) -> Result<(), ProviderError>;

    /// Removes what is kept of a machine that is dead.
    ///
    /// # Errors
    /// [`ProviderError::Occupied`] when it lives.
    async fn forget_instance(&self, node: &str) -> Result<(), ProviderError>;
}

/// A provider of machines and disks.
#[async_trait]
pub trait Provider: Volumes + Instances + 'static {
    /// Its name: a word for metrics.
    fn name(&self) -> &'static str;

    /// The zones that it has; new nodes go to the first that their tier allows.
    fn zones(&self) -> Vec<String>;

    /// Its zones, those first where one of these types can be had, as far as is known.
    fn zones_with(&self, _types: &[String]) -> Vec<String> {
        self.zones()
    }

    /// The first of these types that can be had in a zone, as far as is known; `None` where there is none, and from a
    /// provider whose machines have no types.
    fn instance_type(&self, _types: &[String], _zone: &str) -> Option<String> {
        None
    }

    /// What a machine is started from when the stack of its Tier has these outputs, in one word that is noted on the machine
    /// under the tag `template`; `None` while there is nothing, and from a provider that has nothing such.
    fn template(&self, _outputs: &BTreeMap<String, String>) -> Option<String> {
        None
    }

    /// How long things take.
    fn pace(&self) -> Pace;

    /// Everything that it has, in one listing.
    ///
    /// # Errors
    /// When it cannot be reached.
    async fn describe(&self) -> Result<World, ProviderError>;

    /// For how long a listing serves when nothing is known to have changed. Where a listing costs calls of a service, it
    /// is long: agents' leases say sooner than any listing that a machine is gone.
    fn listing_lasts(&self) -> Duration {
        Duration::from_secs(30)
    }

    /// Its stacks, where it has some.
    fn stacks(&self) -> Option<&dyn Stacks> {
        None
    }

    /// The stack of a Tier, where it has stacks: what the Tier's machines have in common.
    fn tier_stack(&self, _tier: &Tier) -> Option<StackRequest> {
        None
    }

    /// Its snapshots, where it has some.
    fn snapshots(&self) -> Option<&dyn Snapshots> {
        None
    }

    /// All that it has, where it notes on everything whose it is.
    fn inventory(&self) -> Option<&dyn Inventory> {
        None
    }

    /// Its fleets, where it has some.
    fn fleets(&self) -> Option<&dyn Fleets> {
        None
    }

    /// Names of GraphNodes whose machine changed by itself, for instance died.
    fn changes(&self) -> BoxStream<'static, String>;

    /// Called once after the last reconcile. With `stop_nodes`, machines that live on this computer are asked to stop,
    /// and have stopped when this returns.
    async fn shutdown(&self, stop_nodes: bool);
}
