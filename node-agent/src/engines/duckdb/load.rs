//! Filling staging tables from Parquet files: by column name, with the file's id on every row, and so that a file can
//! be replaced or taken out later. A load is one transaction.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use duckdb::Connection;
use tokio_util::sync::CancellationToken;

use super::super::error::EngineError;
use super::super::names::{FileId, TableName, sql_identifier, sql_string};
use super::control::{CancelGuard, SqlControl};
use super::staging::{BUILDING, FILE_ID, OpenStaging, Staging, StagingColumn, StagingKind, table_columns, table_names};

/// A Parquet file that waits to be staged.
#[derive(Clone, Debug)]
pub struct StagedFile {
    /// Where it is: a path from [`Staging::incoming`].
    pub path: PathBuf,
    /// The id its rows will carry.
    pub file_id: FileId,
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
}

impl Default for StageOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(1800),
            cancel: CancellationToken::new(),
            null_columns: Vec::new(),
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
    /// Loads Parquet files into a table, which is made if it does not exist. Columns are matched by name; a column that
    /// only some files have is NULL elsewhere; types that differ are widened. Columns `from` and `to` are called `src`
    /// and `dst` in the table.
    ///
    /// # Errors
    /// A file that cannot be read, a reserved column name, or a limit. The table is then as it was before.
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
        let _cancel = CancelGuard::new(&control, options.cancel);
        let (table, watched) = (table.clone(), Arc::clone(&control));
        self.blocking(move |open| {
            let outcome = load(open, &table, &files, mode, &options.null_columns, &watched);
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
    null_columns: &[String],
    control: &SqlControl,
) -> Result<StageReport, EngineError> {
    let connection = open.connect()?;
    control.attach(&connection)?;
    let failure = |error| open.failure(error);
    let incoming = Incoming::inspect(open, &connection, files, null_columns)?;
    let known = table_names(&connection).map_err(failure)?;
    let exists = known.iter().find(|name| name.eq_ignore_ascii_case(table.as_str()));
    let before = match (exists, mode) {
        (Some(name), StageMode::ReplaceFiles) => Some(table_columns(&connection, name).map_err(failure)?),
        _ => None,
    };
    let after = match &before {
        None => incoming.columns.clone(),
        Some(before) => widened(&connection, table, before, &incoming).map_err(failure)?,
    };
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

/// The columns of the files together, under the names they get.
struct Incoming {
    columns: Vec<StagingColumn>,
    /// The same columns as the files call them.
    sources: Vec<String>,
    files: String,
    null_columns: Vec<String>,
}

impl Incoming {
    fn inspect(
        open: &OpenStaging,
        connection: &Connection,
        files: &[StagedFile],
        null_columns: &[String],
    ) -> Result<Self, EngineError> {
        let paths: Vec<String> = files
            .iter()
            .map(|file| sql_string(&file.path.display().to_string()))
            .collect();
        let list = format!("[{}]", paths.join(", "));
        let sql = format!("DESCRIBE SELECT * FROM {}", parquet(&list));
        let columns = describe(connection, &sql).map_err(|error| match open.failure(error) {
            error @ (EngineError::Cancelled | EngineError::OutOfMemory { .. }) => error,
            error => {
                let names: Vec<&str> = files.iter().map(|file| file.file_id.as_str()).collect();
                EngineError::invalid(
                    "files",
                    format!("{} cannot be read as Parquet: {error}", names.join(", ")),
                )
            }
        })?;
        let has = |name: &str| columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
        for reserved in [FILE_ID, "rowid"] {
            if has(reserved) {
                return Err(EngineError::invalid(
                    "columns",
                    format!("{reserved:?} is reserved; rename it in the file"),
                ));
            }
        }
        if let Some(absent) = null_columns.iter().find(|name| !has(name)) {
            return Err(EngineError::invalid(
                "null_columns",
                format!("the files have no column {absent:?}"),
            ));
        }
        let edges = has("from") && has("to");
        if edges && (has("src") || has("dst")) {
            return Err(EngineError::invalid(
                "columns",
                "has from and to as well as src or dst; keep one pair",
            ));
        }
        let sources = columns.iter().map(|column| column.name.clone()).collect();
        let rename = |mut column: StagingColumn| {
            if edges && column.name.eq_ignore_ascii_case("from") {
                column.name = "src".into();
            } else if edges && column.name.eq_ignore_ascii_case("to") {
                column.name = "dst".into();
            }
            column
        };
        Ok(Self {
            columns: columns.into_iter().map(rename).collect(),
            sources,
            files: list,
            null_columns: null_columns.to_vec(),
        })
    }

    /// `SELECT` over some of the files, with the columns that these files have.
    fn select(&self, files: &str, columns: &[StagingColumn]) -> String {
        let list: Vec<String> = self
            .columns
            .iter()
            .zip(&self.sources)
            .filter(|(_, source)| columns.iter().any(|column| column.name.eq_ignore_ascii_case(source)))
            .map(|(column, source)| {
                let is_null = self.null_columns.iter().any(|name| name.eq_ignore_ascii_case(source));
                let value = match is_null {
                    true => format!("CAST(NULL AS {})", column.type_name),
                    false => sql_identifier(source),
                };
                format!("{value} AS {}", sql_identifier(&column.name))
            })
            .collect();
        format!("SELECT {} FROM {}", list.join(", "), parquet(files))
    }
}

fn parquet(files: &str) -> String {
    format!("read_parquet({files}, union_by_name = true, hive_partitioning = false)")
}

fn describe(connection: &Connection, sql: &str) -> Result<Vec<StagingColumn>, duckdb::Error> {
    connection
        .prepare(sql)?
        .query_map([], |row| {
            Ok(StagingColumn {
                name: row.get(0)?,
                type_name: row.get(1)?,
            })
        })?
        .collect()
}

/// The columns of the table with the new ones, each in a type that holds the old and the new values.
fn widened(
    connection: &Connection,
    table: &TableName,
    before: &[StagingColumn],
    incoming: &Incoming,
) -> Result<Vec<StagingColumn>, duckdb::Error> {
    let all: Vec<StagingColumn> = incoming
        .sources
        .iter()
        .map(|name| StagingColumn {
            name: name.clone(),
            type_name: String::new(),
        })
        .collect();
    let old = if before.is_empty() {
        "NULL".to_owned()
    } else {
        columns_list(before)
    };
    let sql = format!(
        "DESCRIBE (SELECT {old} FROM {}) UNION ALL BY NAME ({})",
        table.sql(),
        incoming.select(&incoming.files, &all)
    );
    describe(connection, &sql)
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
        let path = sql_string(&file.path.display().to_string());
        let own = describe(connection, &format!("DESCRIBE SELECT * FROM {}", parquet(&path))).map_err(failure)?;
        let select = incoming.select(&path, &own);
        let insert = format!("INSERT INTO {target} BY NAME SELECT *, CAST(? AS VARCHAR) AS {FILE_ID} FROM ({select})");
        let rows = connection.execute(&insert, [file.file_id.as_str()]).map_err(failure)?;
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
