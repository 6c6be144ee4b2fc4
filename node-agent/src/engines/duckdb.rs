//! DuckDB: the staging tables of a graph in a file of their own, closed off from everything else on the node.

mod arrow_file;
mod change;
mod control;
mod error;
mod format;
mod incoming;
mod json;
mod load;
mod parquet;
mod query;
mod relation;
mod sandbox;
mod sql_guard;
mod staging;
mod text_file;

pub(crate) use control::{CancelGuard, SqlControl};
pub use format::FileFormat;
pub(crate) use json::write_object;
pub use load::{StageMode, StageOptions, StageReport, StagedFile};
pub(crate) use parquet::ParquetFiles;
pub use query::SqlRequest;
pub(crate) use sandbox::StagingOptions;
pub(crate) use staging::{FILE_ID, OpenStaging, describe, table_names};
pub use staging::{IncomingFile, Staging, StagingColumn, StagingKind, StagingTable};
