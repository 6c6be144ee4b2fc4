//! Opening a staging file so that no statement on it, ours included, can reach anything but its own tables, its own
//! spill directory and the directory into which its input files are put.

use std::path::{Path, PathBuf};

use duckdb::{Config, Connection};

use super::super::error::EngineError;
use super::super::files::remove;
use super::super::ladybug::snapshot::sync_parent;
use super::super::names::sql_string;
use super::error::from_duckdb;

/// Where a staging database keeps what, and how much it may use.
#[derive(Clone, Debug)]
pub(crate) struct StagingOptions {
    pub(crate) file: PathBuf,
    /// The only directory that can be read.
    pub(crate) incoming: PathBuf,
    pub(crate) spill: PathBuf,
    pub(crate) memory_bytes: u64,
    pub(crate) threads: usize,
}

pub(crate) fn open(options: &StagingOptions) -> Result<Connection, EngineError> {
    let memory_mib = options.memory_bytes >> 20;
    let failed = |error| from_duckdb(error, memory_mib);
    let config = Config::default()
        .max_memory(&format!("{}B", options.memory_bytes))
        .and_then(|config| config.threads(i64::try_from(options.threads.max(1)).unwrap_or(1)))
        .and_then(|config| config.enable_autoload_extension(false))
        .and_then(|config| config.with("autoinstall_known_extensions", "false"))
        .and_then(|config| config.with("allow_community_extensions", "false"))
        .map_err(failed)?;
    make(&options.file, memory_mib)?;
    let connection = Connection::open_with_flags(&options.file, config).map_err(failed)?;
    let path = |path: &Path| sql_string(&path.display().to_string());
    let mut incoming = options.incoming.clone();
    // A directory is recognised by its trailing slash.
    incoming.push("");
    // The order matters: directories first, then the door, then the lock.
    connection
        .execute_batch(&format!(
            "SET temp_directory = {spill};
             SET GLOBAL TimeZone = 'UTC';
             SET allowed_directories = [{incoming}];
             SET enable_external_access = false;
             SET lock_configuration = true;",
            spill = path(&options.spill),
            incoming = path(&incoming),
        ))
        .map_err(failed)?;
    Ok(connection)
}

/// Makes the file if there is none. DuckDB writes a new file in several steps, and one that a crash left between them
/// cannot be opened: so it gets its name when it is whole. Names that begin with a dot go at the next start.
fn make(file: &Path, memory_mib: u64) -> Result<(), EngineError> {
    if file.exists() {
        return Ok(());
    }
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let making = file.with_file_name(format!(".creating-{name}"));
    remove(&making)?;
    Connection::open(&making)
        .and_then(|connection| connection.close().map_err(|(_, error)| error))
        .map_err(|error| from_duckdb(error, memory_mib))?;
    std::fs::rename(&making, file).map_err(|error| EngineError::io("rename", &making, error))?;
    sync_parent(file).map_err(|error| EngineError::io("sync", file, error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn opened(directory: &Path) -> Connection {
        let options = StagingOptions {
            file: directory.join("x.duckdb"),
            incoming: directory.join("x.incoming"),
            spill: directory.join("x.tmp"),
            memory_bytes: 128 << 20,
            threads: 1,
        };
        std::fs::create_dir_all(&options.incoming).unwrap();
        open(&options).unwrap()
    }

    #[test]
    fn nothing_outside_of_the_incoming_directory_can_be_reached() {
        let directory = tempfile::tempdir().unwrap();
        let connection = opened(directory.path());
        let inside = directory.path().join("x.incoming/a.parquet").display().to_string();
        connection
            .execute_batch(&format!("COPY (SELECT 1 AS a) TO '{inside}'"))
            .unwrap();
        let rows: i64 = connection
            .query_row(&format!("SELECT count(*) FROM read_parquet('{inside}')"), [], |row| {
                row.get(0)
            })
            .unwrap();
        assert_eq!(rows, 1);
        let secret = directory.path().join("secret.csv");
        std::fs::write(&secret, "a\n1\n").unwrap();
        for sql in [
            format!("SELECT * FROM read_csv('{}')", secret.display()),
            format!(
                "SELECT * FROM read_text('{}/../secret.csv')",
                directory.path().join("x.incoming").display()
            ),
            "SELECT * FROM read_text('/etc/hostname')".into(),
            "ATTACH '/tmp/graphplane-none.duckdb' AS o".into(),
            "COPY (SELECT 1) TO '/tmp/graphplane-none.csv'".into(),
            "INSTALL httpfs".into(),
            "LOAD httpfs".into(),
            "SET threads = 8".into(),
            "SET enable_external_access = true".into(),
            "RESET memory_limit".into(),
        ] {
            assert!(connection.execute_batch(&sql).is_err(), "{sql}");
        }
    }

    #[test]
    fn what_a_crash_left_of_a_new_file_is_in_nobodys_way() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(".creating-x.duckdb"), "the beginning of a file").unwrap();
        opened(directory.path())
            .execute_batch("CREATE TABLE t(a INTEGER)")
            .unwrap();
        let rows: i64 = opened(directory.path())
            .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
            .unwrap();
        assert_eq!(rows, 0);
        assert!(!directory.path().join(".creating-x.duckdb").exists());
    }

    #[test]
    fn a_read_only_transaction_refuses_changes() {
        let directory = tempfile::tempdir().unwrap();
        let connection = opened(directory.path());
        connection
            .execute_batch("CREATE TABLE t(a INTEGER); BEGIN TRANSACTION READ ONLY;")
            .unwrap();
        assert!(
            connection
                .execute_batch("WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x")
                .is_err()
        );
    }
}
