//! The Graphplane operator: makes the world look like the resources say.
//!
//! ```text
//!  watches (hub, cache) ──▶ controllers ──▶ reconcile: observe ─▶ plan (graphplane-core) ─▶ act ─▶ … ─▶ status
//!                                                                                           │
//!                                    ┌───────────────────┬────────────────────┬─────────────┤
//!                                    ▼                   ▼                    ▼             ▼
//!                              Kubernetes API        provider            node agents   object store
//!                              (status, objects)     (machines, disks)   (databases)   (backups)
//! ```
//!
//! Every pass begins with a look at the world and may be cut off anywhere: actions are idempotent, names and tokens are
//! computed, and what exists is found again. See `docs/concepts.md` for what users see of it.

mod agent;
mod backup;
mod backup_schedule;
mod cache;
mod context;
mod costs;
mod error;
mod events;
mod graph;
mod hub;
mod kinds;
mod leader;
mod mappers;
pub mod metrics;
mod node;
mod orphans;
mod placer;
pub mod provider;
mod reconcile;
mod registry;
mod replica;
mod run;
mod schema;
mod settings;
mod stack;
mod subgraph;
mod tier;
mod views;
mod volume;
mod write;

pub use agent::AgentError;
pub use backup::StoreError;
pub use error::Error;
pub use graphplane_core::sources::{SourceEndpoint, SourcePlace, SourceRules};
pub use metrics::Metrics;
pub use provider::aws::AwsSettings;
pub use registry::Registries;
pub use run::run;
pub use settings::{LeaderElection, LocalSettings, ProviderChoice, Settings};
