//! What requests and answers carry, for clients written in Rust.

pub use crate::auth::manage::{ApiKeyCreate, ApiKeyCreated, ApiKeyView};
pub use crate::backups::{BackupCreate, BackupView};
pub use crate::graphs::{GraphCreate, GraphPatch, GraphView};
pub use crate::nodes::wire::{
    DatabaseUsage, LeaseRequest, LeaseResponse, MachineIdentity, NodeSettings, RegisterRequest, RegisterResponse, Usage,
};
pub use crate::nodes::{NodePatch, NodeView};
pub use crate::operations::progress::OperationStatus;
pub use crate::operations::{Operation, OperationLinks, OperationResource};
pub use crate::pagination::Page;
pub use crate::problem::{FieldProblem, ProblemDetails};
pub use crate::subgraphs::{SubgraphCreate, SubgraphPatch, SubgraphView};
pub use crate::tiers::TierView;
pub use crate::volumes::VolumeView;
