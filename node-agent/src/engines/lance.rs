//! Lance: tables of vectors, searched by cosine distance, and the semantic memory of a graph.
//!
//! [`Vectors`] are those of one database. A table has many readers and one writer; it is built beside the one that it
//! replaces, and a search goes on reading the table that it began with.

mod archive;
mod build;
mod change;
mod columns;
mod copies;
mod error;
mod home;
mod incoming;
mod layout;
mod memory;
mod memory_rows;
mod plan;
mod pool;
mod predicate;
mod search;
mod source;
mod table;
mod unpack;

pub use archive::{Exported, Imported};
pub use build::{BuildReport, Reindexed};
pub use copies::VectorsCopy;
pub use incoming::IncomingVectors;
pub use layout::Name as VectorsName;
pub use memory_rows::{MEMORY_DIMENSION, MemoryChange, MemoryRow, is_memory_id};
pub use search::{Found, SearchRequest};
pub use source::RejectedVectors;
pub use table::{IndexInfo, Vectors};

pub(crate) use home::{Address, Home};
pub(crate) use layout::{Layout, remove_leftovers};
pub(crate) use table::Lance;
