//! Object storage: S3 (or what speaks like it) and directories, behind one interface.
//!
//! Two uses with different trust. *Sources* of staging tables are named by callers: `s3://` with the request's own
//! credentials, or with the agent's where its rules say so, and `file://` only below the import directory. The *store*
//! for backups is named by the operator of the node, and callers only give keys below it.

mod bucket;
mod endpoint;
mod glob;
mod import_dir;
mod source;
mod store;
mod update;

pub use bucket::Credentials;
pub use glob::Pattern;
pub use source::{Admitted, Bounds, Reach, SourceError, SourceFile, Sources};
pub use store::{BackupStore, StoreError};
