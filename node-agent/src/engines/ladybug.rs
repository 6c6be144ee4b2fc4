//! LadybugDB: one process-wide rule per file. A database has its own threads and its own memory; statements of callers
//! pass a guard; writers queue instead of failing.

mod columns;
mod control;
mod database;
mod decimals;
mod encoder;
mod error;
mod guard;
pub(crate) mod open;
mod params;
mod reading;
pub(crate) mod schema;
pub(crate) mod session;
pub(crate) mod snapshot;
pub(crate) mod stand_ins;
pub(crate) mod storage_version;
mod threads;
mod tokens;
mod typed;
pub(crate) mod value;
mod worker;

pub(crate) use control::JobControl;
pub use database::{Access, Database, QueryRequest};
pub(crate) use guard::schema_script;
pub use guard::{StatementKind, classify};
pub use params::Parameters;
pub use schema::{DdlFailure, DdlOutcome, GraphCounts, PropertyInfo, TableInfo, TableKind};
pub use snapshot::SnapshotInfo;
pub(crate) use threads::{OpenDatabase, ReadersOut};
pub(crate) use tokens::position;
pub use typed::ParameterTypes;
