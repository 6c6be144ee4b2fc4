//! The files of a load together: what DuckDB can read of each, and the columns that they give.

use std::path::Path;

use duckdb::Connection;

use super::super::error::EngineError;
use super::super::names::{FileId, sql_identifier};
use super::arrow_file::transcribe;
use super::control::SqlControl;
use super::format::FileFormat;
use super::load::StagedFile;
use super::relation::{Relation, unite};
use super::staging::{FILE_ID, IncomingFile, OpenStaging, StagingColumn};
use super::text_file::{check_depth, unpack};
use crate::disk::check_room;

/// Most columns of a file, and of a table that is loaded.
const MAX_COLUMNS: usize = 2000;
/// Most characters of a line that an error shows.
const SHOWN_LINE: usize = 200;

/// What a request allows, and the volume.
pub(super) struct Limits<'a> {
    /// Columns whose values are not taken.
    pub(super) null_columns: &'a [String],
    /// Most bytes of a file when it is unpacked.
    pub(super) max_bytes: u64,
    /// Bytes of the volume that must stay free.
    pub(super) floor: u64,
}

impl Limits<'_> {
    /// Whether a file of which `size` bytes are written may grow on.
    ///
    /// # Errors
    /// `Invalid` if it is too large, `Capacity` if the volume is full.
    pub(super) fn check(&self, target: &Path, size: u64) -> Result<(), EngineError> {
        if size > self.max_bytes {
            return Err(EngineError::invalid(
                "files",
                format!(
                    "unpacked it has more than the {} bytes that this node loads from one file: split it, or choose a larger tier",
                    self.max_bytes
                ),
            ));
        }
        let directory = target.parent().unwrap_or(target);
        check_room(directory, self.floor).map_err(|full| EngineError::Capacity {
            message: full.to_string(),
        })
    }
}

/// The columns of the files together, under the names they get.
pub(super) struct Incoming {
    pub(super) columns: Vec<StagingColumn>,
    /// All Parquet files together, and each of the others.
    pub(super) relations: Vec<(Option<FileId>, Relation)>,
    /// True if the files have `from` and `to`.
    edges: bool,
    null_columns: Vec<String>,
    /// What was made of files that DuckDB does not read as they are.
    _readable: Vec<IncomingFile>,
}

impl Incoming {
    pub(super) fn inspect(
        open: &OpenStaging,
        connection: &Connection,
        files: &[StagedFile],
        before: Option<&[StagingColumn]>,
        limits: &Limits<'_>,
        control: &SqlControl,
    ) -> Result<Self, EngineError> {
        let failure = |error| open.failure(error);
        let (mut relations, mut readable) = (Vec::new(), Vec::new());
        let (parquet, others): (Vec<&StagedFile>, Vec<&StagedFile>) =
            files.iter().partition(|file| file.format == FileFormat::Parquet);
        if !parquet.is_empty() {
            if parquet.len() > 1 {
                // Each by itself first: together nobody could tell which one it is.
                for file in &parquet {
                    control.check()?;
                    Relation::parquet(connection, std::iter::once(file.path.as_path()))
                        .map_err(failure)
                        .and_then(|relation| check_columns(relation.columns.len()))
                        .map_err(|error| unreadable(file.file_id.as_str(), FileFormat::Parquet, error))?;
                }
            }
            let relation = Relation::parquet(connection, parquet.iter().map(|file| file.path.as_path()));
            let names: Vec<&str> = parquet.iter().map(|file| file.file_id.as_str()).collect();
            let relation = relation
                .map_err(failure)
                .and_then(|relation| check_columns(relation.columns.len()).map(|()| relation))
                .map_err(|error| unreadable(&names.join(", "), FileFormat::Parquet, error))?;
            relations.push((None, relation));
        }
        for file in others {
            control.check()?;
            let relation = relation(open, connection, file, limits, control, &mut readable)
                .and_then(|relation| check_columns(relation.columns.len()).map(|()| relation))
                .map_err(|error| unreadable(file.file_id.as_str(), file.format, error))?;
            relations.push((Some(file.file_id.clone()), relation));
        }
        let has = |name: &str| {
            let mut columns = relations.iter().flat_map(|(_, relation)| &relation.columns);
            columns.any(|column| column.name.eq_ignore_ascii_case(name))
        };
        for reserved in [FILE_ID, "rowid"] {
            if has(reserved) {
                return Err(EngineError::invalid(
                    "columns",
                    format!("{reserved:?} is reserved; rename it in the file"),
                ));
            }
        }
        if let Some(absent) = limits.null_columns.iter().find(|name| !has(name)) {
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
        let mut incoming = Self {
            columns: Vec::new(),
            relations: Vec::new(),
            edges,
            null_columns: limits.null_columns.to_vec(),
            _readable: readable,
        };
        for (file, mut relation) in relations {
            if let (Some(file), Some(before)) = (&file, before) {
                relation
                    .follow(connection, before, |name| incoming.called(name).to_owned(), failure)
                    .map_err(|error| unreadable(file.as_str(), relation.format(), error))?;
            }
            let columns: Vec<StagingColumn> = relation
                .columns
                .iter()
                .map(|column| StagingColumn {
                    name: incoming.called(&column.name).to_owned(),
                    type_name: column.becomes.clone(),
                })
                .collect();
            incoming.columns = unite(connection, &incoming.columns, &columns).map_err(failure)?;
            check_table(&incoming.columns)?;
            incoming.relations.push((file, relation));
        }
        Ok(incoming)
    }

    /// What a column of the files is called in the table.
    fn called<'a>(&self, name: &'a str) -> &'a str {
        match self.edges {
            true if name.eq_ignore_ascii_case("from") => "src",
            true if name.eq_ignore_ascii_case("to") => "dst",
            _ => name,
        }
    }

    /// `SELECT` over one relation, for a table with these columns.
    pub(super) fn select(&self, relation: &Relation, table: &[StagingColumn]) -> String {
        let list: Vec<String> = relation
            .columns
            .iter()
            .map(|column| {
                let called = self.called(&column.name);
                let target = table.iter().find(|known| known.name.eq_ignore_ascii_case(called));
                let target = target.map_or(column.becomes.as_str(), |known| known.type_name.as_str());
                let is_null = (self.null_columns.iter()).any(|name| name.eq_ignore_ascii_case(&column.name));
                let value = match is_null {
                    true => format!("CAST(NULL AS {target})"),
                    false => relation.value(column, target),
                };
                format!("{value} AS {}", sql_identifier(called))
            })
            .collect();
        format!("SELECT {} FROM {}", list.join(", "), relation.from())
    }
}

/// Refuses a file whose columns alone would take the memory that its rows need.
///
/// # Errors
/// `Invalid`, with their number.
pub(super) fn check_columns(count: usize) -> Result<(), EngineError> {
    match count > MAX_COLUMNS {
        true => Err(EngineError::invalid(
            "files",
            format!("it has {count} columns, and at most {MAX_COLUMNS} are taken; leave some out"),
        )),
        false => Ok(()),
    }
}

/// The same for the table that files make together, with what it has already.
///
/// # Errors
/// `Invalid`, with the number of its columns.
pub(super) fn check_table(columns: &[StagingColumn]) -> Result<(), EngineError> {
    match columns.len() > MAX_COLUMNS {
        true => Err(EngineError::invalid(
            "files",
            format!(
                "the table would have {} columns, and at most {MAX_COLUMNS} are taken; load files with the same columns",
                columns.len()
            ),
        )),
        false => Ok(()),
    }
}

/// A file that is not of Parquet, as DuckDB can read it; what was made for that is kept in `readable`.
fn relation(
    open: &OpenStaging,
    connection: &Connection,
    file: &StagedFile,
    limits: &Limits<'_>,
    control: &SqlControl,
    readable: &mut Vec<IncomingFile>,
) -> Result<Relation, EngineError> {
    let failure = |error| open.failure(error);
    let unpacked = open.incoming_file()?;
    let packed = unpack(&file.path, unpacked.path(), limits, control)?;
    let path = if packed { unpacked.path() } else { file.path.as_path() };
    let relation = match file.format {
        FileFormat::Parquet => Relation::parquet(connection, std::iter::once(path)).map_err(failure),
        FileFormat::Csv => Relation::csv(connection, path, failure),
        FileFormat::Json => {
            check_depth(path, control)?;
            Relation::json(connection, path).map_err(failure)
        }
        FileFormat::Arrow => {
            let lines = open.incoming_file()?;
            let columns = transcribe(path, lines.path(), limits, control)?;
            let relation = Relation::arrow(lines.path(), columns);
            readable.push(lines);
            return Ok(relation);
        }
    };
    readable.push(unpacked);
    relation
}

/// The error for a file that cannot be read, without what only this machine knows.
pub(super) fn unreadable(file: &str, format: FileFormat, error: EngineError) -> EngineError {
    let format = format.shown();
    match error {
        EngineError::Cancelled
        | EngineError::OutOfMemory { .. }
        | EngineError::Timeout { .. }
        | EngineError::Busy { .. }
        | EngineError::Capacity { .. }
        | EngineError::Io { .. } => error,
        EngineError::Invalid { message, .. } => {
            EngineError::invalid("files", format!("{file} cannot be read as {format}: {message}"))
        }
        error => EngineError::invalid(
            "files",
            format!("{file} cannot be read as {format}: {}", reason(&error.to_string())),
        ),
    }
}

/// What DuckDB says about a file, without its advice, its settings and the file's place.
fn reason(text: &str) -> String {
    let advice = |line: &&str| !(line.trim().is_empty() || line.starts_with("Possible") || line.starts_with("LINE "));
    let lines: Vec<String> = text
        .lines()
        .take_while(advice)
        .take(4)
        .map(|line| line.chars().take(SHOWN_LINE).collect())
        .collect();
    // Paths are quoted in such texts, and so are values, which may have quotes in them.
    let text = lines.join("; ");
    let parts = text.split('"').enumerate();
    let shown = parts.map(|(index, part)| match index > 0 && part.starts_with('/') {
        true => "the file",
        false => part,
    });
    shown.collect::<Vec<_>>().join("\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_files_say_what_and_not_where() {
        let text = "Invalid Input Error: CSV Error on Line: 3\nOriginal Line: 4,5,6\nExpected Number of Columns: 2 Found: 3\n\
                    Possible fixes:\n* Disable the parser's strict mode\n\n  file = /data/staging/g.incoming/x\n";
        assert_eq!(
            reason(text),
            "Invalid Input Error: CSV Error on Line: 3; Original Line: 4,5,6; Expected Number of Columns: 2 Found: 3"
        );
        let text = "Invalid Input Error: Malformed JSON in file \"/data/staging/g.incoming/x\", at byte 7 in line 3: unexpected end of data.";
        assert_eq!(
            reason(text),
            "Invalid Input Error: Malformed JSON in file \"the file\", at byte 7 in line 3: unexpected end of data."
        );
        let text = "Conversion Error: Could not convert string \"a\"b\" in file \"/data/staging/g.incoming/x\", line 3";
        assert!(!reason(text).contains("/data"), "{}", reason(text));
    }
}
