//! The staging tables of one graph: a DuckDB file of their own, opened on demand.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use duckdb::Connection;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::budget::Reservation;
use super::super::error::EngineError;
use super::super::ladybug::snapshot::copy_whole;
use super::super::lock::FileLock;
use super::super::names::{BUILDING, DatabaseId, FileId, PASSING, TableName, sql_identifier, sql_string};
use super::error::from_duckdb;
use super::sandbox::{StagingOptions, open};

/// The column that says from which file a row is.
pub(crate) const FILE_ID: &str = "file_id";
/// Statements that read at the same time.
const READERS: usize = 4;

/// What a staging table can become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StagingKind {
    /// It has a column `identifier`.
    Node,
    /// It has the columns `src` and `dst` (called `from` and `to` in its files).
    Relationship,
    /// Neither; the table it is materialised into decides.
    Other,
}

/// A column of a staging table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct StagingColumn {
    /// Its name.
    pub name: String,
    /// Its DuckDB type.
    #[serde(rename = "type")]
    pub type_name: String,
}

/// A staging table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagingTable {
    /// Its name.
    pub name: String,
    /// Rows of all files.
    pub rows: u64,
    /// Columns of the data (without `file_id`).
    pub columns: Vec<StagingColumn>,
    /// What it can become.
    pub kind: StagingKind,
    /// Rows per file.
    pub files: Vec<(String, u64)>,
}

impl StagingKind {
    pub(crate) fn of(columns: &[StagingColumn]) -> Self {
        let has = |name: &str| columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
        if has("identifier") {
            Self::Node
        } else if has("src") && has("dst") {
            Self::Relationship
        } else {
            Self::Other
        }
    }
}

pub(crate) struct OpenStaging {
    id: DatabaseId,
    options: StagingOptions,
    /// The instance lives as long as one of its connections.
    connection: Mutex<Connection>,
    /// One change at a time.
    pub(crate) changes: tokio::sync::Mutex<()>,
    pub(crate) readers: Arc<tokio::sync::Semaphore>,
    // In this order after the connection: the memory and the file are free when it is closed.
    _memory: Reservation,
    _lock: FileLock,
}

impl OpenStaging {
    pub(crate) fn open(id: DatabaseId, options: StagingOptions, memory: Reservation) -> Result<Self, EngineError> {
        let mut lock_path = options.file.clone().into_os_string();
        lock_path.push(".agent.lock");
        let lock = FileLock::acquire(Path::new(&lock_path))?;
        std::fs::create_dir_all(&options.incoming)
            .map_err(|error| EngineError::io("create", &options.incoming, error))?;
        let connection = open(&options)?;
        if let Err(error) = remove_passing(&connection) {
            tracing::warn!(database = %id, %error, "rows of a load that was cut off stay in staging");
        }
        Ok(Self {
            id,
            options,
            connection: Mutex::new(connection),
            changes: tokio::sync::Mutex::new(()),
            readers: Arc::new(tokio::sync::Semaphore::new(READERS)),
            _memory: memory,
            _lock: lock,
        })
    }

    pub(crate) fn connect(&self) -> Result<Connection, EngineError> {
        self.connection.lock().try_clone().map_err(|error| self.failure(error))
    }

    pub(crate) fn failure(&self, error: duckdb::Error) -> EngineError {
        from_duckdb(error, self.options.memory_bytes >> 20)
    }

    /// Queries and changes that run now.
    pub(crate) fn active(&self) -> usize {
        let reading = READERS.saturating_sub(self.readers.available_permits());
        reading + usize::from(self.changes.try_lock().is_err())
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        self.options.memory_bytes
    }

    pub(crate) fn incoming(&self) -> &Path {
        &self.options.incoming
    }

    pub(crate) fn incoming_file(&self) -> Result<IncomingFile, EngineError> {
        let directory = self.incoming();
        std::fs::create_dir_all(directory).map_err(|error| EngineError::io("create", directory, error))?;
        Ok(IncomingFile {
            path: directory.join(uuid::Uuid::new_v4().simple().to_string()),
        })
    }
}

/// The staging tables of a graph, open for as long as the handle (or a stream made by it) lives.
#[derive(Clone)]
pub struct Staging {
    pub(crate) open: Arc<OpenStaging>,
}

/// A path into which one input file can be written. The file is removed when this is dropped.
#[derive(Debug)]
pub struct IncomingFile {
    path: PathBuf,
}

impl IncomingFile {
    /// Where to write the file. Nothing is there yet.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for IncomingFile {
    fn drop(&mut self) {
        // Absent if nothing was written.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Staging {
    /// The graph to which the tables belong.
    #[must_use]
    pub fn id(&self) -> &DatabaseId {
        &self.open.id
    }

    /// A fresh path in the only directory that DuckDB may read, for a file to be staged.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn incoming(&self) -> Result<IncomingFile, EngineError> {
        self.open.incoming_file()
    }

    /// All staging tables, by name.
    ///
    /// # Errors
    /// DuckDB cannot list them.
    pub async fn tables(&self) -> Result<Vec<StagingTable>, EngineError> {
        self.blocking(|open| {
            let connection = open.connect()?;
            let names = table_names(&connection).map_err(|error| open.failure(error))?;
            names.iter().map(|name| describe(open, &connection, name)).collect()
        })
        .await
    }

    /// One staging table, or `None`.
    ///
    /// # Errors
    /// DuckDB cannot describe it.
    pub async fn table(&self, name: &TableName) -> Result<Option<StagingTable>, EngineError> {
        let name = name.clone();
        self.blocking(move |open| {
            let connection = open.connect()?;
            let names = table_names(&connection).map_err(|error| open.failure(error))?;
            match names.iter().find(|known| known.eq_ignore_ascii_case(name.as_str())) {
                Some(known) => describe(open, &connection, known).map(Some),
                None => Ok(None),
            }
        })
        .await
    }

    /// Drops a table; false if there was none.
    ///
    /// # Errors
    /// DuckDB refuses.
    pub async fn drop_table(&self, name: &TableName) -> Result<bool, EngineError> {
        let _change = self.open.changes.lock().await;
        let name = name.clone();
        self.blocking(move |open| {
            let connection = open.connect()?;
            let names = table_names(&connection).map_err(|error| open.failure(error))?;
            let exists = names.iter().any(|known| known.eq_ignore_ascii_case(name.as_str()));
            if exists {
                let drop = format!("DROP TABLE {}", name.sql());
                connection.execute_batch(&drop).map_err(|error| open.failure(error))?;
                // It is gone for good; this only keeps the log short, and has to wait while a load reads.
                if let Err(error) = connection.execute_batch("CHECKPOINT") {
                    tracing::debug!(%error, table = %name, "checkpoint of staging put off");
                }
            }
            Ok(exists)
        })
        .await
    }

    /// Deletes the rows of one file; 0 if the table or the file is unknown.
    ///
    /// # Errors
    /// DuckDB refuses.
    pub async fn remove_file(&self, table: &TableName, file: &FileId) -> Result<u64, EngineError> {
        let _change = self.open.changes.lock().await;
        let (table, file) = (table.clone(), file.clone());
        self.blocking(move |open| {
            let connection = open.connect()?;
            let names = table_names(&connection).map_err(|error| open.failure(error))?;
            if !names.iter().any(|known| known.eq_ignore_ascii_case(table.as_str())) {
                return Ok(0);
            }
            let sql = format!("DELETE FROM {} WHERE {FILE_ID} = ?", table.sql());
            let rows = connection
                .execute(&sql, [file.as_str()])
                .map_err(|error| open.failure(error))?;
            Ok(rows as u64)
        })
        .await
    }

    /// Writes a consistent copy to `target`, which must not exist, and returns its size in bytes.
    ///
    /// # Errors
    /// `Busy` if queries on the staging tables do not end; [`EngineError::Io`] if the copy cannot be written.
    pub async fn snapshot(&self, target: &Path) -> Result<u64, EngineError> {
        let _change = self.open.changes.lock().await;
        let target = target.to_owned();
        self.blocking(move |open| {
            let connection = open.connect()?;
            let mut log = open.options.file.clone().into_os_string();
            log.push(".wal");
            let mut tries = 0;
            loop {
                let checkpoint = connection.execute_batch("CHECKPOINT");
                // A query that reads an older state keeps the log; the copy has to wait for it.
                let log_is_empty = std::fs::metadata(&log).map_or(true, |log| log.len() == 0);
                if checkpoint.is_ok() && log_is_empty {
                    break;
                }
                tries += 1;
                if tries > 50 {
                    return Err(EngineError::Busy {
                        reason: "queries on the staging tables keep them from being copied".into(),
                        retry_after: Duration::from_secs(10),
                    });
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            copy_whole(&open.options.file, &target)
        })
        .await
    }

    /// Size of the staging file with its log, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let mut log = self.open.options.file.clone().into_os_string();
        log.push(".wal");
        [self.open.options.file.as_path(), Path::new(&log)]
            .into_iter()
            .filter_map(|path| std::fs::metadata(path).ok())
            .map(|file| file.len())
            .sum()
    }

    /// Runs `work` on a thread where it may block.
    pub(crate) async fn blocking<T, W>(&self, work: W) -> Result<T, EngineError>
    where
        T: Send + 'static,
        W: FnOnce(&OpenStaging) -> Result<T, EngineError> + Send + 'static,
    {
        let open = Arc::clone(&self.open);
        tokio::task::spawn_blocking(move || work(&open))
            .await
            .unwrap_or_else(|error| Err(EngineError::internal(format!("a staging thread ended: {error}"))))
    }
}

impl std::fmt::Debug for Staging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Staging").field("id", self.id()).finish_non_exhaustive()
    }
}

/// Removes rows that were on their way into the graph when their load was cut off, and tables that were made for them.
fn remove_passing(connection: &Connection) -> Result<(), duckdb::Error> {
    // The characters after the prefix are hexadecimal digits, so this is all of them and nothing else.
    let passing = format!(
        "{FILE_ID} >= {} AND {FILE_ID} < {}",
        sql_string(PASSING),
        sql_string(&format!("{PASSING}g"))
    );
    for table in table_names(connection)? {
        let table = sql_identifier(&table);
        let count = |condition: &str| -> Result<i64, duckdb::Error> {
            let sql = format!("SELECT count(*) FROM {table} WHERE {condition}");
            connection.query_row(&sql, [], |row| row.get(0))
        };
        let rows = count(&passing)?;
        if rows == 0 {
            continue;
        }
        tracing::info!(table, rows, "removing rows of a load that was cut off");
        connection.execute_batch(&match count("true")? == rows {
            true => format!("DROP TABLE {table}"),
            false => format!("DELETE FROM {table} WHERE {passing}"),
        })?;
    }
    Ok(())
}

pub(crate) fn table_names(connection: &Connection) -> Result<Vec<String>, duckdb::Error> {
    let sql = format!(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = 'main' \
         AND NOT internal AND NOT temporary AND NOT starts_with(table_name, {}) ORDER BY table_name",
        sql_string(BUILDING)
    );
    connection.prepare(&sql)?.query_map([], |row| row.get(0))?.collect()
}

/// Columns of a table without `file_id`.
pub(crate) fn table_columns(connection: &Connection, table: &str) -> Result<Vec<StagingColumn>, duckdb::Error> {
    let sql = "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = current_database() \
               AND schema_name = 'main' AND lower(table_name) = lower(?) AND column_name <> 'file_id' ORDER BY column_index";
    connection
        .prepare(sql)?
        .query_map([table], |row| {
            Ok(StagingColumn {
                name: row.get(0)?,
                type_name: row.get(1)?,
            })
        })?
        .collect()
}

pub(crate) fn describe(open: &OpenStaging, connection: &Connection, table: &str) -> Result<StagingTable, EngineError> {
    let read = || -> Result<StagingTable, duckdb::Error> {
        let columns = table_columns(connection, table)?;
        let identifier = sql_identifier(table);
        let sql = format!("SELECT coalesce({FILE_ID}, ''), count(*) FROM {identifier} GROUP BY ALL ORDER BY ALL");
        let files: Vec<(String, u64)> = connection
            .prepare(&sql)?
            .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?
            .map(|row| row.map(|(file, rows)| (file, u64::try_from(rows).unwrap_or_default())))
            .collect::<Result<_, _>>()?;
        Ok(StagingTable {
            name: table.to_owned(),
            rows: files.iter().map(|(_, rows)| rows).sum(),
            kind: StagingKind::of(&columns),
            columns,
            files,
        })
    };
    read().map_err(|error| open.failure(error))
}
