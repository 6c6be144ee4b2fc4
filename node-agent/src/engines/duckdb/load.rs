//! Filling staging tables from files: by column name, with the file's id on every row, and so that a file can be
//! replaced or taken out later. A load is one transaction.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use duckdb::Connection;
use tokio_util::sync::CancellationToken;

use super::super::error::EngineError;
use super::super::names::{BUILDING, FileId, TableName, sql_identifier, sql_string};
use super::control::{CancelGuard, SqlControl};
use super::format::FileFormat;
use super::incoming::{Incoming, Limits, check_table, unreadable};
use super::relation::{Relation, unite};
use super::staging::{FILE_ID, OpenStaging, Staging, StagingColumn, StagingKind, table_columns, table_names};
use crate::disk::FLOOR;

/// A file that waits to be staged.
#[derive(Clone, Debug)]
pub struct StagedFile {
    /// Where it is: a path from [`Staging::incoming`].
    pub path: PathBuf,
    /// The id its rows will carry.
    pub file_id: FileId,
    /// What it is written in.
    pub format: FileFormat,
}

/// What happens to rows that are in the table already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageMode {
    /// The table will consist of these files only.
    ReplaceTable,
    /// Rows of the same files are replaced, rows of other files stay.
    ReplaceFiles,
}

/// Limits of a load.
#[derive(Clone, Debug)]
pub struct StageOptions {
    /// Time for the whole load.
    pub timeout: Duration,
    /// Ends the load, and leaves the table as it was.
    pub cancel: CancellationToken,
    /// Columns of the files whose values are not taken: the table has NULL in them.
    pub null_columns: Vec<String>,
    /// Most bytes that a file may have when it is unpacked.
    pub max_bytes: Option<u64>,
    /// Bytes of the volume that must stay free while files are unpacked.
    pub floor: u64,
}

impl Default for StageOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(1800),
            cancel: CancellationToken::new(),
            null_columns: Vec::new(),
            max_bytes: None,
            floor: FLOOR,
        }
    }
}

/// What a load did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageReport {
    /// Rows of these files.
    pub rows: u64,
    /// Rows of the table now.
    pub total_rows: u64,
    /// Rows per file of this load.
    pub files: Vec<(FileId, u64)>,
    /// Columns of the table now (without `file_id`).
    pub columns: Vec<StagingColumn>,
    /// What the table can become.
    pub kind: StagingKind,
}

impl Staging {
    /// Loads files into a table, which is made if it does not exist. Columns are matched by name; a column that only some
    /// files have is NULL elsewhere; types that differ are widened, but texts in CSV and JSON have to fit the type that
    /// the table's column has. Columns `from` and `to` are called `src` and `dst` in the table.
    ///
    /// # Errors
    /// A file that cannot be read, a value that does not fit, a reserved column name, or a limit. The table is then as it
    /// was before.
    pub async fn stage(
        &self,
        table: &TableName,
        files: Vec<StagedFile>,
        mode: StageMode,
        options: StageOptions,
    ) -> Result<StageReport, EngineError> {
        check_files(&self.open, &files)?;
        let _change = self.open.changes.lock().await;
        let control = SqlControl::watch(options.timeout);
        let _cancel = CancelGuard::new(&control, options.cancel.clone());
        let (table, watched) = (table.clone(), Arc::clone(&control));
        self.blocking(move |open| {
            let limits = Limits {
                null_columns: &options.null_columns,
                max_bytes: options.max_bytes.unwrap_or(u64::MAX),
                floor: options.floor,
            };
            let outcome = load(open, &table, &files, mode, &limits, &watched);
            watched.finish();
            outcome.map_err(|error| watched.explain(error))
        })
        .await
    }
}

fn check_files(open: &OpenStaging, files: &[StagedFile]) -> Result<(), EngineError> {
    if files.is_empty() {
        return Err(EngineError::invalid("files", "is empty; name at least one file"));
    }
    for (index, file) in files.iter().enumerate() {
        if file.path.parent() != Some(open.incoming()) || !file.path.is_file() {
            return Err(EngineError::internal(format!(
                "{} is not a file to be staged",
                file.path.display()
            )));
        }
        if files[..index].iter().any(|before| before.file_id == file.file_id) {
            return Err(EngineError::invalid("files", format!("has {} twice", file.file_id)));
        }
    }
    Ok(())
}

fn load(
    open: &OpenStaging,
    table: &TableName,
    files: &[StagedFile],
    mode: StageMode,
    limits: &Limits<'_>,
    control: &SqlControl,
) -> Result<StageReport, EngineError> {
    let connection = open.connect()?;
    control.attach(&connection)?;
    let failure = |error| open.failure(error);
    let known = table_names(&connection).map_err(failure)?;
    let exists = known.iter().find(|name| name.eq_ignore_ascii_case(table.as_str()));
    let before = match (exists, mode) {
        (Some(name), StageMode::ReplaceFiles) => Some(table_columns(&connection, name).map_err(failure)?),
        _ => None,
    };
    let incoming = Incoming::inspect(open, &connection, files, before.as_deref(), limits, control)?;
    let after = match &before {
        None => incoming.columns.clone(),
        Some(before) => unite(&connection, before, &incoming.columns).map_err(failure)?,
    };
    check_table(&after)?;
    connection.execute_batch("BEGIN TRANSACTION").map_err(failure)?;
    let counts = fill(
        open,
        &connection,
        table,
        &incoming,
        before.as_deref(),
        &after,
        files,
        control,
    );
    let committed = counts.and_then(|counts| {
        control.check()?;
        connection.execute_batch("COMMIT").map_err(failure)?;
        Ok(counts)
    });
    let counts = match committed {
        Ok(counts) => counts,
        Err(error) => {
            // Fails only if the transaction has ended already.
            let _ = connection.execute_batch("ROLLBACK");
            return Err(error);
        }
    };
    // The rows are durable; this only keeps the log short, and has to wait while a query reads.
    if let Err(error) = connection.execute_batch("CHECKPOINT") {
        tracing::debug!(%error, table = %table, "checkpoint of staging put off");
    }
    let total: i64 = connection
        .query_row(&format!("SELECT count(*) FROM {}", table.sql()), [], |row| row.get(0))
        .map_err(failure)?;
    Ok(StageReport {
        rows: counts.iter().map(|(_, rows)| rows).sum(),
        total_rows: u64::try_from(total).unwrap_or_default(),
        files: counts,
        kind: StagingKind::of(&after),
        columns: after,
    })
}

#[allow(clippy::too_many_arguments)]
fn fill(
    open: &OpenStaging,
    connection: &Connection,
    table: &TableName,
    incoming: &Incoming,
    before: Option<&[StagingColumn]>,
    after: &[StagingColumn],
    files: &[StagedFile],
    control: &SqlControl,
) -> Result<Vec<(FileId, u64)>, EngineError> {
    let failure = |error| open.failure(error);
    let ids: Vec<String> = files.iter().map(|file| sql_string(file.file_id.as_str())).collect();
    let ids = ids.join(", ");
    let building = sql_identifier(&format!("{BUILDING}{}", uuid::Uuid::new_v4().simple()));
    // A table cannot be altered after rows of it changed in the same transaction, so a new shape means a new table.
    let in_place = before.is_some_and(|before| before == after);
    let target = if in_place { table.sql() } else { building.clone() };
    if in_place {
        connection
            .execute(&format!("DELETE FROM {target} WHERE {FILE_ID} IN ({ids})"), [])
            .map_err(failure)?;
    } else {
        let columns: Vec<String> = after
            .iter()
            .map(|column| format!("{} {}, ", sql_identifier(&column.name), column.type_name))
            .collect();
        let create = format!("CREATE TABLE {target} ({}{FILE_ID} VARCHAR)", columns.concat());
        connection.execute_batch(&create).map_err(failure)?;
        if let Some(before) = before {
            let names = if before.is_empty() {
                String::new()
            } else {
                format!("{}, ", columns_list(before))
            };
            let keep = format!(
                "INSERT INTO {target} BY NAME SELECT {names}{FILE_ID} FROM {} WHERE coalesce({FILE_ID}, '') NOT IN ({ids})",
                table.sql()
            );
            connection.execute(&keep, []).map_err(failure)?;
        }
    }
    let mut counts = Vec::with_capacity(files.len());
    for file in files {
        control.check()?;
        let known = incoming
            .relations
            .iter()
            .find(|(id, _)| id.as_ref() == Some(&file.file_id));
        let select = match known {
            Some((_, relation)) => incoming.select(relation, after),
            None => {
                let own = Relation::parquet(connection, std::iter::once(file.path.as_path())).map_err(failure)?;
                incoming.select(&own, after)
            }
        };
        let insert = format!("INSERT INTO {target} BY NAME SELECT *, CAST(? AS VARCHAR) AS {FILE_ID} FROM ({select})");
        let rows = connection.execute(&insert, [file.file_id.as_str()]).map_err(|error| {
            let error = failure(error);
            let own = file.format == FileFormat::Parquet || matches!(error, EngineError::Internal { .. });
            match own {
                true => error,
                false => unreadable(file.file_id.as_str(), file.format, error),
            }
        })?;
        counts.push((file.file_id.clone(), rows as u64));
    }
    if !in_place {
        let swap = format!(
            "DROP TABLE IF EXISTS {table}; ALTER TABLE {target} RENAME TO {table}",
            table = table.sql()
        );
        connection.execute_batch(&swap).map_err(failure)?;
    }
    Ok(counts)
}

fn columns_list(columns: &[StagingColumn]) -> String {
    let names: Vec<String> = columns.iter().map(|column| sql_identifier(&column.name)).collect();
    names.join(", ")
}
