//! Seeds: published copies of a graph, from which replicas serve.
//!
//! A seed is a backup with a number: the files and the manifest are those of [`backup`](crate::backup), below
//! `<prefix>/<epoch>/<version>`. What makes one of them the present one is the pointer `<prefix>/latest.json`, which only
//! moves forward. [`publish()`] makes a seed and moves the pointer; a replica [follows](follow()) it: fetches the seed beside
//! the one that it serves, checks it, and takes it up without a query that fails. What a replica has taken up lies under
//! `DIR/seeds`, so that it serves at once after a restart, with the object store or without.

mod fetch;
mod follow;
mod local;
mod pointer;
mod publish;
mod status;

pub use fetch::SeedError;
pub use follow::follow;
pub use local::LocalSeeds;
pub use pointer::{Pointer, SeedVersion};
pub use publish::{PublishError, publish};
pub use status::{Seed, SeedState, SeedStatus, Seeds, ServedSeed};

/// A configuration under which no seed can be followed.
#[derive(Debug, thiserror::Error)]
pub enum SeedSetupError {
    /// Writers have databases of their own.
    #[error("--seed is for replicas: start the agent with --role replica")]
    NotAReplica,
    /// There is nowhere to fetch from.
    #[error("--seed needs an object store: name it with --object-store")]
    NoStore,
    /// A key is wrong.
    #[error("--seed: {0}")]
    Key(#[from] crate::objects::StoreError),
    /// The directory of seeds cannot be used.
    #[error("--seed: {0}")]
    Local(#[from] crate::engines::EngineError),
}
