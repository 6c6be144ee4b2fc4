//! Object storage: S3 (or what speaks like it) and directories, behind one interface.
//!
//! Two uses with different trust. *Sources* of staging tables are named by callers: `s3://` with the agent's credentials
//! or the request's own, and `file://` only below the import directory. The *store* for backups is named by the
//! operator of the node, and callers only give keys below it.

mod glob;
mod source;
mod store;
mod update;

pub use glob::Pattern;
pub use source::{Bounds, Credentials, SourceError, SourceFile, Sources};
pub use store::{BackupStore, StoreError};
