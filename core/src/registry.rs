//! Registries: rows that mirror what the status of nodes, graphs and volumes says, for clients that cannot ask Kubernetes.
//!
//! ```text
//!  GraphNode ───▶ <prefix>-instance-registry   instance_id   what a machine is and how full
//!  Graph ───────▶ <prefix>-graph-registry      graph_id      where a graph is served
//!  GraphVolume ─▶ <prefix>-volume-registry     volume_id     what is on a disk and where it is attached
//! ```
//!
//! [`rows`] makes rows of objects; [`projection`] compares them with what the tables hold and says what to write. A
//! subgraph has no row: it is served where its parent is, and its database id begins with the parent's.
//!
//! A row belongs to one object (`cluster` and `uid`), and carries a `generation` that only rises. It is a projection: what
//! it says is never read back to decide anything but whether it has to be written.

pub mod projection;
pub mod rows;

pub use projection::{Kept, Projection, Refusal, Stage, Standing, Write};
pub use rows::{GraphRow, InstanceRow, Owner, Row, UNATTACHED, VolumeRow};

/// One of the three tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Machines.
    Instances,
    /// Graphs.
    Graphs,
    /// Disks.
    Volumes,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Instances, Self::Graphs, Self::Volumes];

    /// Its name, as `cloudformation/registries.yaml` gives it.
    pub fn name(self, prefix: &str) -> String {
        match self {
            Self::Instances => format!("{prefix}-instance-registry"),
            Self::Graphs => format!("{prefix}-graph-registry"),
            Self::Volumes => format!("{prefix}-volume-registry"),
        }
    }

    /// The attribute that identifies a row.
    pub fn key(self) -> &'static str {
        match self {
            Self::Instances => "instance_id",
            Self::Graphs => "graph_id",
            Self::Volumes => "volume_id",
        }
    }
}

/// A row's place: its table, and the value of the key.
pub type Key = (Table, String);
