//! The embedded engines: LadybugDB for graphs, DuckDB for the tables from which graphs are loaded, Lance for vectors.
//!
//! [`Engines`] knows all databases of the node, opens them on demand, keeps their memory within the node's, and closes
//! those that are not used. A [`Database`] is one open graph: queries, schema, snapshots, and
//! [`materialize`](Database::materialize), which moves staging tables into it. [`Staging`] are the tables of one graph
//! that wait to be moved. [`Vectors`] are the tables of one graph that are searched by nearness.
//!
//! What the engines would do and must not is held here: several writers, a statement that never ends, a statement that
//! reads the node's files, a file opened twice, rows that are acknowledged and not durable.

mod arrow_bridge;
mod arrow_stream;
mod budget;
mod config;
mod duckdb;
mod error;
mod exchange;
pub mod fence;
mod files;
mod fork;
mod generations;
mod inspect;
mod kept;
mod ladybug;
mod lance;
mod lifecycle;
mod lock;
mod materialize;
mod memory;
mod names;
mod portable;
mod promote;
mod rebuild;
mod registry;
mod restore;
mod revision;
mod rows;
mod schemas;
mod swap;
mod type_names;

pub use config::{EngineLimits, EnginesConfig};
pub use error::{EngineError, ErrorClass, SyntaxStage};
pub use fork::{ForkRequest, Forked};
pub use generations::{Generation, Retired};
pub use inspect::{DatabaseInfo, EngineUsage};
pub use kept::Kept;
pub use lifecycle::{Created, DeleteScope, Deleted};
pub(crate) use lock::FileLock;
pub use materialize::{
    Batch, InvalidColumn, MaterializeReport, MaterializeRequest, MaterializeStatus, Progress, ProgressUpdate, Rejected,
};
pub use memory::{Boosted, MemoryTarget, Released};
pub use names::{DatabaseId, FileId, TableName};
pub use portable::{Portable, PortableTable, Sequence};
pub use rebuild::Rebuilt;
pub use registry::Engines;
pub use restore::{Candidate, Replace};
pub use rows::{Columns, Encoding, RowChunk, RowStream, RowSummary};
pub use schemas::BaseSchema;

pub use self::lance::{
    BuildReport, Exported, Found, Imported, IncomingVectors, IndexInfo, MEMORY_DIMENSION, MemoryChange, MemoryRow,
    Reindexed, RejectedVectors, SearchRequest, Vectors, VectorsCopy, VectorsName, is_memory_id,
};

pub use self::duckdb::{
    FileFormat, IncomingFile, SqlRequest, StageMode, StageOptions, StageReport, StagedFile, Staging, StagingColumn,
    StagingKind, StagingTable,
};
pub use self::ladybug::{
    Access, Database, DdlFailure, DdlOutcome, GraphCounts, ParameterTypes, Parameters, PropertyInfo, QueryRequest,
    SnapshotInfo, StatementKind, TableInfo, TableKind, classify,
};

/// Version of LadybugDB in this agent.
pub const LADYBUG_VERSION: &str = lbug::VERSION;

/// Version of LadybugDB's file format in this agent. Older files are upgraded when they are written; newer ones cannot
/// be read.
#[must_use]
pub fn ladybug_storage_version() -> u64 {
    lbug::get_storage_version()
}

/// Version of DuckDB that this process runs with; empty if it cannot say.
#[must_use]
pub fn duckdb_version() -> String {
    ::duckdb::Connection::open_in_memory()
        .and_then(|connection| connection.version())
        .map(|version| version.trim_start_matches('v').to_owned())
        .unwrap_or_default()
}
