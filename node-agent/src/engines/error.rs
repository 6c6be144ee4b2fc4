//! The one error type that leaves this room. Engine texts are kept, since they name the table, the key or the
//! position that a caller needs; what is added is a class that says whose fault it is and whether to try again.

use std::path::PathBuf;
use std::time::Duration;

use super::names::DatabaseId;

/// What kind of failure an [`EngineError`] is: enough to choose a status code without reading its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The database or table does not exist.
    NotFound,
    /// The database or table exists already.
    AlreadyExists,
    /// The statement does not parse or does not bind.
    Syntax,
    /// The statement is understood and not permitted.
    Forbidden,
    /// The statement ran longer than its limit.
    Timeout,
    /// The caller went away or cancelled.
    Cancelled,
    /// Data breaks a rule of the schema (duplicate or NULL primary key, missing end of a relationship).
    Constraint,
    /// The database is open for reading only.
    ReadOnly,
    /// The engine's memory limit was reached.
    OutOfMemory,
    /// Too much is under way at the moment; worth another try.
    Busy,
    /// The node has no place for another database.
    Capacity,
    /// The file is of another version of the engine.
    Incompatible,
    /// A field of the request is wrong.
    Invalid,
    /// A fault of the node or of the engine.
    Internal,
}

/// The stage at which an engine refused a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SyntaxStage {
    /// The text is not a statement.
    Parser,
    /// A name, type or function in it does not fit.
    Binder,
    /// A table or function is missing from (or already in) the catalog.
    Catalog,
}

impl SyntaxStage {
    /// The word by which clients know this stage in stream errors.
    #[must_use]
    pub fn contract_name(self) -> &'static str {
        match self {
            Self::Parser => "ParserException",
            Self::Binder => "BinderException",
            Self::Catalog => "CatalogException",
        }
    }
}

/// A failure of one of the embedded engines, or of a request to them.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// Nothing has this name.
    #[error("{what} {name:?} does not exist")]
    NotFound {
        /// `database`, `staging table`, …
        what: &'static str,
        /// The name that was asked for.
        name: String,
    },
    /// The name is taken.
    #[error("{what} {name:?} already exists")]
    AlreadyExists {
        /// `database`, `table`, …
        what: &'static str,
        /// The name that was asked for.
        name: String,
    },
    /// The engine could not parse or bind a statement. The text is the engine's own, with its line and offset.
    #[error("{message}")]
    Syntax {
        /// Where in the engine it was refused.
        stage: SyntaxStage,
        /// The engine's text.
        message: String,
    },
    /// A statement contains something that callers may not use.
    #[error("{token} is not allowed here (line {line}, column {column}): {reason}")]
    Forbidden {
        /// The word that is refused, as written.
        token: String,
        /// Line of the word, from 1.
        line: usize,
        /// Column of the word in characters, from 1.
        column: usize,
        /// Why, and what to use instead.
        reason: String,
    },
    /// The time limit was reached.
    #[error("the statement ran longer than its limit of {} ms{}", limit.as_millis(), if *outcome_unknown { "; it was writing, so check whether the change was made before you repeat it" } else { "" })]
    Timeout {
        /// The limit that applied.
        limit: Duration,
        /// True if a write was under way and the engine had not answered yet.
        outcome_unknown: bool,
    },
    /// The caller cancelled, or stopped reading.
    #[error("the statement was cancelled")]
    Cancelled,
    /// Data breaks the schema.
    #[error("{message}")]
    Constraint {
        /// The engine's text, which names the key.
        message: String,
    },
    /// A write on a node or database that only reads.
    #[error("{message}")]
    ReadOnly {
        /// What was refused.
        message: String,
    },
    /// The engine ran into its memory limit.
    #[error("{message}; the limit is {limit_mib} MiB: return fewer rows, or move the graph to a larger tier")]
    OutOfMemory {
        /// The engine's text.
        message: String,
        /// The limit, in MiB.
        limit_mib: u64,
    },
    /// Everything that could do this is occupied.
    #[error("{reason}; try again in {} s", retry_after.as_secs())]
    Busy {
        /// What is occupied.
        reason: String,
        /// When another try makes sense.
        retry_after: Duration,
    },
    /// The node is full.
    #[error("{message}")]
    Capacity {
        /// Which limit, and its figure.
        message: String,
    },
    /// A field of the request is wrong.
    #[error("{field}: {message}")]
    Invalid {
        /// The field, as a path (`parameters.ids[3]`, `table_name`).
        field: String,
        /// What was found and what is expected.
        message: String,
    },
    /// A run-time error of a statement that was well formed: overflow, division by zero, a failed cast.
    #[error("{message}")]
    Runtime {
        /// The engine's text.
        message: String,
    },
    /// Another process (or another part of this one) has the file open.
    #[error("{} is in use by another process; only one agent may open a data directory", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The engine of this agent cannot read the file of a database.
    #[error(
        "the file of database {id} has storage version {found}, and LadybugDB {engine} of this agent reads {oldest} to {newest}: export it with an agent whose engine reads {found} (POST /databases/{id}/export), and import that here (POST /databases/{id}/import)"
    )]
    StorageVersion {
        /// The database.
        id: DatabaseId,
        /// The version of this agent's LadybugDB.
        engine: &'static str,
        /// The version in the file's header.
        found: u64,
        /// The oldest version that can be read.
        oldest: u64,
        /// The newest.
        newest: u64,
    },
    /// The file system failed.
    #[error("{action} {}: {message}", path.display())]
    Io {
        /// What was attempted (`create`, `rename`, …).
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The operating system's text.
        message: String,
    },
    /// A run of several parts failed after some of them were done; these stay.
    #[error("{source} ({rows} rows were written before and stay; run it again to go on)")]
    Partial {
        /// Rows that were written.
        rows: u64,
        /// Why the rest was not. Its class is this error's class.
        source: Box<EngineError>,
    },
    /// A fault of ours or of the engine.
    #[error("{message}")]
    Internal {
        /// What happened.
        message: String,
    },
}

impl EngineError {
    /// The class, from which a status code follows.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NotFound { .. } => ErrorClass::NotFound,
            Self::AlreadyExists { .. } => ErrorClass::AlreadyExists,
            Self::Syntax { .. } => ErrorClass::Syntax,
            Self::Forbidden { .. } => ErrorClass::Forbidden,
            Self::Timeout { .. } => ErrorClass::Timeout,
            Self::Cancelled => ErrorClass::Cancelled,
            Self::Constraint { .. } => ErrorClass::Constraint,
            Self::ReadOnly { .. } => ErrorClass::ReadOnly,
            Self::OutOfMemory { .. } => ErrorClass::OutOfMemory,
            Self::Busy { .. } | Self::Locked { .. } => ErrorClass::Busy,
            Self::Capacity { .. } => ErrorClass::Capacity,
            Self::StorageVersion { .. } => ErrorClass::Incompatible,
            Self::Invalid { .. } | Self::Runtime { .. } => ErrorClass::Invalid,
            Self::Partial { source, .. } => source.class(),
            Self::Io { .. } | Self::Internal { .. } => ErrorClass::Internal,
        }
    }

    /// The name clients know from the `error_type` of a stream's error chunk.
    #[must_use]
    pub fn contract_type(&self) -> &'static str {
        match self {
            Self::Syntax { stage, .. } => stage.contract_name(),
            Self::Timeout { .. } => "TimeoutError",
            Self::Cancelled => "CancelledError",
            Self::Forbidden { .. } | Self::ReadOnly { .. } => "PermissionError",
            Self::Constraint { .. } => "ConstraintException",
            Self::OutOfMemory { .. } => "OutOfMemoryError",
            Self::Partial { source, .. } => source.contract_type(),
            _ => "RuntimeError",
        }
    }

    /// When another try makes sense; `None` if repeating will not help.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => Some(*retry_after),
            Self::Locked { .. } => Some(Duration::from_secs(5)),
            Self::Partial { source, .. } => source.retry_after(),
            _ => None,
        }
    }

    pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            message: message.into(),
        }
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::Internal {
            message: message.into(),
        }
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, error: impl std::fmt::Display) -> Self {
        Self::Io {
            action,
            path: path.into(),
            message: error.to_string(),
        }
    }
}
