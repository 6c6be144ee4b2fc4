//! Opening a database file: our own lock first (the engine's does not hold within a process), explicit limits, and
//! a second try that keeps what the write-ahead log still has.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

use lbug::{Connection, Database, SystemConfig, Value};

use super::super::error::EngineError;
use super::super::fence;
use super::super::lock::FileLock;
use super::super::names::{DatabaseId, cypher_identifier, is_transient};
use super::super::revision::Revision;
use super::error::{classify_text, text_of};
use super::storage_version::check_storage_version;

/// How a database is opened.
#[derive(Clone, Debug)]
pub(crate) struct OpenOptions {
    pub(crate) id: DatabaseId,
    pub(crate) path: PathBuf,
    pub(crate) read_only: bool,
    /// Memory for pages, hash tables and results.
    pub(crate) pool_bytes: u64,
    /// Threads the engine may use for one query.
    pub(crate) engine_threads: u64,
    /// Queries that read at the same time.
    pub(crate) readers: usize,
    /// Readers when queries wait behind long ones.
    pub(crate) max_readers: usize,
    /// Address space per database, a power of two; also the largest size of its file.
    pub(crate) max_database_size: u64,
    pub(crate) statement_cache: usize,
    pub(crate) queue_length: usize,
    /// Bytes of Arrow data per transaction of a materialise run.
    pub(crate) slice_bytes: usize,
    /// While it is true, statements of callers that change something are refused.
    pub(crate) writes_held: Arc<AtomicBool>,
    /// Moves with every change of the graph.
    pub(crate) revision: Revision,
    /// Nobody reads it yet, and its file is removed after a crash.
    pub(crate) unseen: bool,
}

impl OpenOptions {
    /// Threads of the engine's pool. A task that finds no free thread there waits for one, however short it is; so the
    /// pool is large enough for all connections, each of which may use only some of it. Idle threads cost nothing.
    fn pool_threads(&self) -> u64 {
        let connections = self.max_readers.max(self.readers) as u64 + 1;
        connections * self.engine_threads.max(1)
    }
}

/// An open database, before it has threads.
pub(crate) struct Opened {
    pub(crate) database: Database,
    pub(crate) recovered: bool,
    /// Dropped last.
    pub(crate) lock: Option<FileLock>,
}

pub(crate) fn open(options: &OpenOptions) -> Result<Opened, EngineError> {
    // A database that is only read may be shared, and its directory may not be writable.
    let lock = if options.read_only {
        None
    } else {
        Some(FileLock::acquire(&beside(&options.path, "agent.lock"))?)
    };
    check_storage_version(&options.id, &options.path)?;
    let failure = |error| classify_text(text_of(error), options.pool_bytes >> 20, None);
    let _opening = fence::opening();
    let (database, recovered) = match Database::new(&options.path, config(options, true)) {
        Ok(database) => (database, false),
        Err(error) => {
            let text = text_of(error);
            if options.read_only || !log_is_at_fault(&options.path, &text) {
                return Err(EngineError::internal(format!(
                    "open {}: {text}",
                    options.path.display()
                )));
            }
            let kept = keep_log(&options.path)?;
            tracing::error!(database = %options.id, error = text, kept = %kept.display(),
                "the write-ahead log cannot be replayed to its end; opening with what can be read of it");
            (
                Database::new(&options.path, config(options, false)).map_err(failure)?,
                true,
            )
        }
    };
    if !options.read_only {
        drop_leftovers(&database).map_err(failure)?;
    }
    Ok(Opened {
        database,
        recovered,
        lock,
    })
}

fn config(options: &OpenOptions, whole_log_or_error: bool) -> SystemConfig {
    SystemConfig::default()
        .buffer_pool_size(options.pool_bytes)
        .max_num_threads(options.pool_threads())
        .enable_compression(true)
        .read_only(options.read_only)
        .max_db_size(options.max_database_size)
        // The rows of a COPY are durable only by the checkpoint that its commit makes.
        .auto_checkpoint(true)
        .throw_on_wal_replay_failure(whole_log_or_error)
        .enable_checksums(true)
        .enable_multi_writes(false)
}

fn log_is_at_fault(path: &Path, text: &str) -> bool {
    let other_causes = [
        "Could not set lock",
        "Mmap for size",
        "Buffer manager",
        "Cannot open file",
        "Permission denied",
        // Such a log is whole; the start of the process replays it.
        "Failed to retrieve Arrow data",
    ];
    let log = beside(path, "wal");
    fs::metadata(log).is_ok_and(|log| log.len() > 0) && !other_causes.iter().any(|cause| text.contains(cause))
}

fn keep_log(path: &Path) -> Result<PathBuf, EngineError> {
    let log = beside(path, "wal");
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let kept = beside(path, &format!("{UNREADABLE_LOG}{seconds}"));
    fs::copy(&log, &kept).map_err(|error| EngineError::io("copy", &log, error))?;
    Ok(kept)
}

/// Copies of write-ahead logs that could not be replayed are `<database file>.` + this + seconds since 1970.
pub(crate) const UNREADABLE_LOG: &str = "unreadable-wal-";

/// Tables of a materialise run that was cut off by a crash.
fn drop_leftovers(database: &Database) -> Result<(), lbug::Error> {
    let connection = Connection::new(database)?;
    let names: Vec<String> = connection
        .query("CALL show_tables() RETURN name")?
        .filter_map(|mut row| match row.pop() {
            Some(Value::String(name)) if is_transient(&name) => Some(name),
            _ => None,
        })
        .collect();
    for name in &names {
        connection.query(&format!("DROP TABLE {}", cypher_identifier(name)))?;
    }
    if !names.is_empty() {
        connection.query("CHECKPOINT")?;
    }
    Ok(())
}

/// `<path>.<suffix>`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}
