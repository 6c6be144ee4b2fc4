//! The resources of Graphplane: group `graphplane.dev`, version `v1alpha1`.
//!
//! ```text
//!  Tier ──────────── what a class of machine is
//!   │ named by
//!   ├── Graph ────── one database of a tenant ──┬── Subgraph      a workspace on the parent's node
//!   │     │ placed on                           ├── Replica       a read fleet
//!   │     ▼                                     ├── Backup        one backup
//!   └── GraphNode ── one machine, one agent     └── BackupSchedule
//!         │ mounts
//!         ▼
//!       GraphVolume  one disk, one writer at a time (epoch)
//! ```
//!
//! Types here are plain data: serde, JSON schema and CEL rules, and no behaviour beyond parsing and rendering. Tenants'
//! objects are namespaced; machines and disks, which several tenants may share, are cluster-scoped.

// The derives put a private copy of each spec into a function, which the lint takes for an item of ours.
#![allow(unreachable_pub)]
// Clippy takes the columns of a kind, which share `type_ = "string"`, for repeated attributes.
#![allow(clippy::duplicated_attributes)]

pub mod annotations;
pub mod backup;
pub mod conditions;
pub mod config;
pub mod graph;
pub mod ids;
pub mod node;
pub mod quantities;
pub mod replica;
pub mod subgraph;
pub mod tier;
pub mod volume;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

pub use backup::{Backup, BackupSchedule};
pub use graph::Graph;
pub use node::GraphNode;
pub use replica::Replica;
pub use subgraph::Subgraph;
pub use tier::Tier;
pub use volume::GraphVolume;

/// API group of every kind in this crate.
pub const GROUP: &str = "graphplane.dev";
/// API version of every kind in this crate.
pub const VERSION: &str = "v1alpha1";
/// Namespace of the control plane's own objects: node credentials, leases, API keys.
pub const SYSTEM_NAMESPACE: &str = "graphplane-system";

/// The definitions of all kinds, in the order in which they should be installed: kinds that others name come first.
///
/// These are the same objects as `crds/manifests/*.yaml`; the embedded server installs them at start-up.
pub fn all_crds() -> Vec<CustomResourceDefinition> {
    vec![
        Tier::crd(),
        GraphVolume::crd(),
        GraphNode::crd(),
        Graph::crd(),
        Subgraph::crd(),
        Replica::crd(),
        Backup::crd(),
        BackupSchedule::crd(),
    ]
}
