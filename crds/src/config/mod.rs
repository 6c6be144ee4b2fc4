//! `config/graph.yml`: the tiers of every environment, and their rendering into [`Tier`](crate::Tier) manifests.
//!
//! ```text
//!  text ──► tree (values with line and column) ──► form (names, types, ranges) ──► model ──► rules across fields ──► Config ──► manifests
//! ```
//! A wrong file gives every problem at once, each with the path of its field, what is there and what was expected.

mod cross;
mod error;
mod form;
mod load;
mod model;
mod render;
mod tree;

pub use error::{ConfigError, Problem};
pub use model::{
    Config, Environment, EnvironmentConfig, FleetScaling, FleetSize, HealthCheck, LoadScaling, Machine, MemoryFigures,
    ReplicaFleet, ReplicaMemory, StagingFigures, TierConfig,
};
pub use render::{manifest, manifests, tier_of, tiers_of};
