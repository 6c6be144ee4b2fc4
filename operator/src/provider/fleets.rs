//! Fleets: groups of equal machines that a provider keeps at a number by itself.

use super::ProviderError;
use async_trait::async_trait;
use std::collections::BTreeMap;

/// How large a fleet should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FleetSize {
    /// Never fewer.
    pub min: u32,
    /// Never more.
    pub max: u32,
    /// So many now.
    pub desired: u32,
}

/// A fleet at the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetFacts {
    /// Its size, as it was last set or as autoscaling set it.
    pub size: FleetSize,
    /// Its machines.
    pub members: Vec<FleetMember>,
    /// A replacement of its machines that runs, or the newest one that ended.
    pub refresh: Option<FleetRefresh>,
    /// Its tags, without prefix.
    pub tags: BTreeMap<String, String>,
}

/// A machine of a fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetMember {
    /// Identity at the provider.
    pub id: String,
    /// Zone.
    pub zone: String,
    /// Instance type.
    pub instance_type: String,
    /// Version of the launch template that it was started from.
    pub template_version: String,
    /// Whether it is in service.
    pub in_service: bool,
    /// Whether the provider holds it to be healthy.
    pub healthy: bool,
    /// Address of its agent, where the provider knows it.
    pub address: Option<String>,
}

/// A replacement of a fleet's machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetRefresh {
    /// Identity at the provider.
    pub id: String,
    /// What the provider says of it, such as `InProgress` or `Successful`.
    pub status: String,
    /// Why, where it says so.
    pub reason: Option<String>,
    /// Percent of the machines that are replaced.
    pub percent: u8,
    /// Version of the launch template that machines are replaced by, where it is known.
    pub template_version: Option<String>,
}

/// A provider's fleets. A fleet is made and removed with its stack.
#[async_trait]
pub trait Fleets: Send + Sync {
    /// Sets the size of a fleet.
    ///
    /// # Errors
    /// When the provider refuses or cannot be reached; the call may be repeated.
    async fn resize(&self, fleet: &str, size: FleetSize) -> Result<(), ProviderError>;

    /// Begins to replace the machines of a fleet, of which at least `min_healthy_percent` stay in service. A replacement
    /// that runs already is left to run.
    ///
    /// # Errors
    /// When the provider refuses or cannot be reached; the call may be repeated.
    async fn refresh(&self, fleet: &str, min_healthy_percent: u8) -> Result<(), ProviderError>;
}
