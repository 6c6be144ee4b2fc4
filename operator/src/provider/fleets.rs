//! Fleets: groups of equal machines that a provider keeps at a number by itself.

use super::ProviderError;
use super::stacks::StackRequest;
use async_trait::async_trait;
use graphplane_core::fleet_plan::Resize;
use graphplane_crds::tier::Architecture;

pub use graphplane_core::fleet_plan::{FleetFacts, FleetMember, FleetRefresh, FleetSize, MemberState};

/// A read fleet that should exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetRequest {
    /// Namespace of the Replica.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Name of its stack.
    pub stack: String,
    /// Key of its seeds, below the object store.
    pub seeds: String,
    /// What their processors are.
    pub architecture: Architecture,
    /// Types of machines, in order of preference.
    pub instance_types: Vec<String>,
    /// Memory of all databases of a machine, in MiB.
    pub memory_mib: u64,
    /// Memory of one database, in MiB.
    pub memory_per_database_mib: u64,
    /// Disk that the graph may take, in GiB; a machine has room for two of its seeds.
    pub graph_gib: u32,
    /// Never fewer machines.
    pub min: u32,
    /// Never more machines.
    pub max: u32,
    /// What autoscaling aims at; `None`: no autoscaling.
    pub target_cpu_percent: Option<u32>,
}

/// A provider's fleets. A fleet is made and removed with its stack. Every call may be repeated.
#[async_trait]
pub trait Fleets: Send + Sync {
    /// The stack of a fleet. Nothing is called.
    fn stack(&self, want: &FleetRequest) -> StackRequest;

    /// Stores the key of a fleet's machines where they read it when they start.
    ///
    /// # Errors
    /// When the provider refuses or cannot be reached.
    async fn put_key(&self, namespace: &str, name: &str, key: &str) -> Result<(), ProviderError>;

    /// Removes that key; one that is not there is removed already.
    ///
    /// # Errors
    /// When the provider refuses or cannot be reached.
    async fn delete_key(&self, namespace: &str, name: &str) -> Result<(), ProviderError>;

    /// Changes the size of a fleet.
    ///
    /// # Errors
    /// When the provider refuses or cannot be reached.
    async fn resize(&self, fleet: &str, to: Resize) -> Result<(), ProviderError>;

    /// Begins to replace the machines of a fleet that are of another version than its template, of which at least
    /// `min_healthy_percent` stay in service; its identity, or `None` where one runs already, which is left to run.
    ///
    /// # Errors
    /// When the provider refuses or cannot be reached.
    async fn refresh(&self, fleet: &str, min_healthy_percent: u8) -> Result<Option<String>, ProviderError>;
}
