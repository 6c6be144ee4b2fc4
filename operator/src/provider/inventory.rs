//! Everything that a provider has for this cluster, by what it is and not by what it is for: the other listings leave out
//! what no object can own.

use super::ProviderError;
use async_trait::async_trait;
use graphplane_core::orphans::Thing;

/// A provider that notes on everything whose it is.
#[async_trait]
pub trait Inventory: Send + Sync {
    /// Everything that carries the cluster's identity.
    ///
    /// # Errors
    /// When the provider cannot be reached.
    async fn things(&self) -> Result<Vec<Thing>, ProviderError>;

    /// Notes on a disk that it is kept without an owner.
    ///
    /// # Errors
    /// When the provider refuses or cannot be reached; the call may be repeated.
    async fn keep_disk(&self, id: &str) -> Result<(), ProviderError>;

    /// Begins to remove a thing; one that does not exist is removed already.
    ///
    /// # Errors
    /// When the provider refuses or cannot be reached.
    async fn remove(&self, thing: &Thing) -> Result<(), ProviderError>;
}
