//! DuckDB: the staging tables of a graph in a file of their own, closed off from everything else on the node.

mod change;
mod control;
mod error;
mod json;
mod load;
mod parquet;
mod query;
mod sandbox;
mod sql_guard;
mod staging;

pub(crate) use control::{CancelGuard, SqlControl};
pub(crate) use json::write_object;
pub use load::{StageMode, StageOptions, StageReport, StagedFile};
pub(crate) use parquet::ParquetFiles;
pub use query::SqlRequest;
pub(crate) use sandbox::StagingOptions;
pub(crate) use staging::{FILE_ID, OpenStaging, describe, table_names};
pub use staging::{IncomingFile, Staging, StagingColumn, StagingKind, StagingTable};
