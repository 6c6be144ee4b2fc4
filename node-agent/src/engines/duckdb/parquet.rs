//! What is in Parquet files: how many rows, and whether two of them have the same.

use std::path::Path;
use std::sync::Arc;

use duckdb::Connection;
use parking_lot::Mutex;

use super::super::budget::Reservation;
use super::super::error::EngineError;
use super::super::exchange::blocking;
use super::super::names::sql_string;
use super::error::from_duckdb;
use super::sandbox::{StagingOptions, open};

/// What a file holds, without the order of its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) rows: u64,
    /// The sum of the hashes of all rows. Two files have the same only if their columns have the same names; other versions
    /// of DuckDB may hash otherwise, so it is not kept.
    sum: String,
}

/// Reads the Parquet files of one directory, and nothing else.
#[derive(Clone)]
pub(crate) struct ParquetFiles {
    inner: Arc<Inner>,
}

struct Inner {
    connection: Mutex<Connection>,
    // After the connection: the memory is free when that is closed.
    memory: Reservation,
}

impl ParquetFiles {
    /// Takes a directory that is of no more use afterwards: DuckDB leaves files of its own there.
    pub(crate) async fn open(directory: &Path, memory: Reservation) -> Result<Self, EngineError> {
        let options = StagingOptions {
            file: directory.join("look.duckdb"),
            incoming: directory.to_owned(),
            spill: directory.join("look.tmp"),
            memory_bytes: memory.bytes(),
            threads: 2,
        };
        blocking(move || {
            let connection = Mutex::new(open(&options)?);
            let inner = Arc::new(Inner { connection, memory });
            Ok(Self { inner })
        })
        .await
    }

    /// What a file holds.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) async fn content(&self, file: &Path) -> Result<Content, EngineError> {
        let inner = Arc::clone(&self.inner);
        let file = sql_string(&file.display().to_string());
        blocking(move || {
            let sql = format!(
                "SELECT count(*), COALESCE(sum(hash(t)::HUGEINT), 0)::VARCHAR FROM (SELECT * FROM read_parquet({file})) t"
            );
            let connection = inner.connection.lock();
            let found = connection.query_row(&sql, [], |row| {
                Ok(Content {
                    rows: row.get(0)?,
                    sum: row.get(1)?,
                })
            });
            found.map_err(|error| from_duckdb(error, inner.memory.bytes() >> 20))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::super::budget::Budget;
    use super::*;

    #[tokio::test]
    async fn rows_count_and_their_order_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let memory = Budget::new(1 << 30).reserve(1, 128 << 20).unwrap();
        let files = ParquetFiles::open(directory.path(), memory).await.unwrap();
        let write = |name: &str, select: &str| {
            let path = directory.path().join(name);
            let sql = format!("COPY ({select}) TO '{}' (FORMAT parquet)", path.display());
            Connection::open_in_memory().unwrap().execute_batch(&sql).unwrap();
            path
        };
        let rows = "SELECT k, CASE WHEN k % 3 = 0 THEN NULL ELSE [k::VARCHAR, 'x'] END AS l FROM range(5000) t(k)";
        let one = files.content(&write("one", rows)).await.unwrap();
        assert_eq!(one.rows, 5000);
        let turned = write("turned", &format!("{rows} ORDER BY k DESC"));
        assert_eq!(files.content(&turned).await.unwrap(), one);
        // The same values in other rows, one row twice instead of another, and none at all.
        for select in [
            "SELECT k, CASE WHEN k % 3 = 0 THEN NULL ELSE [(5000 - k)::VARCHAR, 'x'] END AS l FROM range(5000) t(k)",
            "SELECT k - (k = 1)::INT AS k, CASE WHEN k % 3 = 0 THEN NULL ELSE [k::VARCHAR, 'x'] END AS l FROM range(5000) t(k)",
            "SELECT 1 AS k, ['x'] AS l WHERE false",
        ] {
            assert_ne!(files.content(&write("other", select)).await.unwrap(), one, "{select}");
        }
        let none = directory.path().join("none");
        files.content(&none).await.unwrap_err();
        std::fs::write(&none, "no Parquet").unwrap();
        files.content(&none).await.unwrap_err();
    }
}
