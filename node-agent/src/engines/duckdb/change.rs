//! SQL that changes staging tables: one statement, and afterwards every table is still one that can be staged into and
//! materialised.

use std::sync::Arc;
use std::time::Duration;

use duckdb::Connection;
use tokio_util::sync::CancellationToken;

use super::super::error::EngineError;
use super::super::names::sql_identifier;
use super::control::{CancelGuard, SqlControl};
use super::query::parameters;
use super::sql_guard::check_change;
use super::staging::{FILE_ID, OpenStaging, Staging, table_names};

impl Staging {
    /// Runs one statement that changes staging tables or views, alone among changes; the number of rows that it changed.
    /// Everything or nothing of it is done. A table that it makes without `file_id` gets one.
    ///
    /// # Errors
    /// `Forbidden` for anything else; `Invalid` if a table would have a column that the node needs for itself.
    pub async fn execute(
        &self,
        sql: &str,
        values: &[serde_json::Value],
        timeout: Duration,
        cancel: CancellationToken,
    ) -> Result<u64, EngineError> {
        check_change(sql)?;
        let values = parameters(values)?;
        let _change = self.open.changes.lock().await;
        let control = SqlControl::watch(timeout);
        let _cancel = CancelGuard::new(&control, cancel);
        let (sql, watched) = (sql.to_owned(), Arc::clone(&control));
        self.blocking(move |open| {
            let outcome = change(open, &sql, values, &watched);
            watched.finish();
            outcome.map_err(|error| watched.explain(error))
        })
        .await
    }
}

fn change(
    open: &OpenStaging,
    sql: &str,
    values: Vec<duckdb::types::Value>,
    control: &SqlControl,
) -> Result<u64, EngineError> {
    let connection = open.connect()?;
    control.attach(&connection)?;
    let failure = |error| open.failure(error);
    connection.execute_batch("BEGIN TRANSACTION").map_err(failure)?;
    let changed = connection
        .execute(sql, duckdb::params_from_iter(values))
        .map_err(failure)
        .and_then(|rows| {
            complete(open, &connection)?;
            control.check()?;
            connection.execute_batch("COMMIT").map_err(failure)?;
            Ok(rows as u64)
        });
    if changed.is_err() {
        // Fails only if the transaction has ended already.
        let _ = connection.execute_batch("ROLLBACK");
    } else if let Err(error) = connection.execute_batch("CHECKPOINT") {
        tracing::debug!(%error, "checkpoint of staging put off");
    }
    changed
}

/// Gives every table the column that says from which file a row is.
fn complete(open: &OpenStaging, connection: &Connection) -> Result<(), EngineError> {
    let failure = |error| open.failure(error);
    for table in table_names(connection).map_err(failure)? {
        let mut has_file_id = false;
        for (column, type_name) in all_columns(connection, &table).map_err(failure)? {
            let is_file_id = column.eq_ignore_ascii_case(FILE_ID);
            let fits = column == FILE_ID && type_name == "VARCHAR";
            if column.eq_ignore_ascii_case("rowid") || (is_file_id && !fits) {
                return Err(EngineError::invalid(
                    "sql",
                    format!(
                        "{table} would have a column {column} of type {type_name}; the names rowid and file_id (a VARCHAR) are the node's"
                    ),
                ));
            }
            has_file_id |= is_file_id;
        }
        if !has_file_id {
            let add = format!(
                "ALTER TABLE {} ADD COLUMN {FILE_ID} VARCHAR DEFAULT ''",
                sql_identifier(&table)
            );
            connection.execute_batch(&add).map_err(failure)?;
        }
    }
    Ok(())
}

fn all_columns(connection: &Connection, table: &str) -> Result<Vec<(String, String)>, duckdb::Error> {
    let sql = "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = current_database() \
               AND schema_name = 'main' AND table_name = ?";
    connection
        .prepare(sql)?
        .query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}
