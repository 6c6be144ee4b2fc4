//! Files as relations that DuckDB can read: which columns they have, of which types, and what becomes of their values.
//!
//! Values of text files have the types that fit all of them. Where a table has a column already whose type they do not
//! fit, they have to take it, so that one wrong value does not turn a column of numbers into one of texts.

use std::path::Path;

use duckdb::Connection;

use super::super::error::EngineError;
use super::super::names::{sql_identifier, sql_string};
use super::format::FileFormat;
use super::staging::StagingColumn;
use super::text_file;

/// Types that a column of a CSV file may have, with the form of their values, in the order in which they are tried. Numbers
/// with zeros in front are texts, and so are those that a number would round.
const CSV_TYPES: [(&str, &str); 6] = [
    ("BIGINT", "-?(0|[1-9][0-9]*)"),
    ("DOUBLE", "-?(0|[1-9][0-9]{0,14})(\\.[0-9]+)?([eE][+-]?[0-9]+)?"),
    ("BOOLEAN", "(?i)true|false"),
    ("DATE", "[0-9]{4}-[0-9]{2}-[0-9]{2}"),
    (
        "TIMESTAMP",
        "[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\\.[0-9]{1,6})?)?",
    ),
    (
        "TIMESTAMP WITH TIME ZONE",
        "[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}(:?[0-9]{2})?)",
    ),
];
const TEXT: &str = "VARCHAR";
const JSON: &str = "JSON";
/// Longest value that an error shows, in characters.
const SHOWN: usize = 100;

/// One file, or several of Parquet.
pub(super) struct Relation {
    format: FileFormat,
    /// A table function with its arguments.
    from: String,
    pub(super) columns: Vec<Column>,
}

/// A column of a file.
pub(super) struct Column {
    /// Its name there.
    pub(super) name: String,
    /// The type that its values have by themselves.
    own: String,
    /// The type that they are to have.
    pub(super) becomes: String,
}

impl From<StagingColumn> for Column {
    fn from(column: StagingColumn) -> Self {
        Self {
            name: column.name,
            becomes: column.type_name.clone(),
            own: column.type_name,
        }
    }
}

impl Relation {
    /// Parquet files.
    pub(super) fn parquet<'a>(
        connection: &Connection,
        paths: impl Iterator<Item = &'a Path>,
    ) -> Result<Self, duckdb::Error> {
        let paths: Vec<String> = paths.map(literal).collect();
        let from = format!(
            "read_parquet([{}], union_by_name = true, hive_partitioning = false)",
            paths.join(", ")
        );
        Self::described(connection, FileFormat::Parquet, from)
    }

    /// A JSON file, which must not be nested deeply.
    pub(super) fn json(connection: &Connection, path: &Path) -> Result<Self, duckdb::Error> {
        let from = format!(
            "read_json({}, format = 'auto', records = true, compression = 'uncompressed', sample_size = -1, maximum_depth = 32, \
             map_inference_threshold = -1, dateformat = '%Y-%m-%d', hive_partitioning = false)",
            literal(path)
        );
        Self::described(connection, FileFormat::Json, from)
    }

    /// The lines that were made of an Arrow file with these columns.
    pub(super) fn arrow(path: &Path, columns: Vec<StagingColumn>) -> Self {
        let types: Vec<String> = columns
            .iter()
            .map(|column| {
                let read_as = match column.type_name.as_str() {
                    "BLOB" => TEXT,
                    other => other,
                };
                format!("{}: {}", sql_string(&column.name), sql_string(read_as))
            })
            .collect();
        let from = format!(
            "read_json({}, format = 'newline_delimited', records = true, compression = 'uncompressed', columns = {{{}}}, \
             hive_partitioning = false)",
            literal(path),
            types.join(", ")
        );
        Self {
            format: FileFormat::Arrow,
            from,
            columns: columns.into_iter().map(Column::from).collect(),
        }
    }

    /// A CSV file. All of it is read, for its types.
    pub(super) fn csv(
        connection: &Connection,
        path: &Path,
        failure: impl Fn(duckdb::Error) -> EngineError,
    ) -> Result<Self, EngineError> {
        let names = text_file::header(path)?;
        let texts: Vec<String> = names
            .iter()
            .map(|name| format!("{}: '{TEXT}'", sql_string(name)))
            .collect();
        // Nothing is guessed: guesses leave out lines that do not fit, and lines that begin with #.
        let from = format!(
            "read_csv({}, auto_detect = false, header = true, skip = 0, delim = ',', quote = '\"', escape = '\"', \
             comment = '', nullstr = '', allow_quoted_nulls = false, strict_mode = true, encoding = 'utf-8', \
             compression = 'none', max_line_size = 2000000, hive_partitioning = false, columns = {{{}}})",
            literal(path),
            texts.join(", ")
        );
        let types: Vec<String> = names.iter().map(|name| csv_type(name)).collect();
        let sql = format!("SELECT unnest([{}]) FROM {from}", types.join(", "));
        let types = texts_of(connection, &sql).map_err(failure)?;
        let column = |(name, own): (String, String)| Column {
            name,
            becomes: own.clone(),
            own,
        };
        Ok(Self {
            format: FileFormat::Csv,
            from,
            columns: names.into_iter().zip(types).map(column).collect(),
        })
    }

    fn described(connection: &Connection, format: FileFormat, from: String) -> Result<Self, duckdb::Error> {
        let columns = describe(connection, &format!("DESCRIBE SELECT * FROM {from}"))?;
        Ok(Self {
            format,
            from,
            columns: columns.into_iter().map(Column::from).collect(),
        })
    }

    /// Lets values that have no type by themselves take the table's. `called` says what a column is called there.
    ///
    /// # Errors
    /// `Invalid` with column, row and value where one does not fit; what `failure` makes of DuckDB's errors.
    pub(super) fn follow(
        &mut self,
        connection: &Connection,
        table: &[StagingColumn],
        called: impl Fn(&str) -> String,
        failure: impl Fn(duckdb::Error) -> EngineError,
    ) -> Result<(), EngineError> {
        for index in 0..self.columns.len() {
            let column = &self.columns[index];
            let untyped = match self.format {
                FileFormat::Csv => column.own == TEXT,
                FileFormat::Json => column.own == TEXT || column.own == JSON,
                FileFormat::Parquet | FileFormat::Arrow => false,
            };
            let name = called(&column.name);
            let known = table.iter().find(|known| known.name.eq_ignore_ascii_case(&name));
            let Some(type_name) = known.map(|known| known.type_name.clone()).filter(|_| untyped) else {
                continue;
            };
            if type_name == column.own || type_name == JSON {
                continue;
            }
            if let Some((row, value)) = self.misfit(connection, column, &type_name).map_err(&failure)? {
                let shown: String = value.chars().take(SHOWN).collect();
                let message = format!(
                    "column {:?}, row {row}: {shown:?} does not fit the table's type {type_name}",
                    column.name
                );
                return Err(EngineError::invalid("files", message));
            }
            self.columns[index].becomes = type_name;
        }
        Ok(())
    }

    /// The first value that cannot become one of this type. Rows count from 1, without the header.
    fn misfit(
        &self,
        connection: &Connection,
        column: &Column,
        type_name: &str,
    ) -> Result<Option<(i64, String)>, duckdb::Error> {
        let whole = ["TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"]
            .iter()
            .any(|name| type_name.trim_start_matches('U') == *name);
        // DuckDB would round.
        let form = if whole {
            " AND regexp_full_match(trim(value), '[+-]?[0-9]+')"
        } else {
            ""
        };
        let sql = format!(
            "SELECT place, value FROM (SELECT row_number() OVER () AS place, {} AS value FROM {}) \
             WHERE value IS NOT NULL AND NOT (TRY_CAST(value AS {type_name}) IS NOT NULL{form}) LIMIT 1",
            self.text(column),
            self.from
        );
        let mut statement = connection.prepare(&sql)?;
        let mut found = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        found.next().transpose()
    }

    /// A value without a type, as a text.
    fn text(&self, column: &Column) -> String {
        let name = sql_identifier(&column.name);
        match column.own.as_str() {
            JSON => format!("({name} ->> '$')"),
            _ => name,
        }
    }

    /// The column's value as one of the type that it is to have in the table.
    pub(super) fn value(&self, column: &Column, target: &str) -> String {
        let name = sql_identifier(&column.name);
        match (self.format, column.own.as_str()) {
            // As it is written.
            (FileFormat::Csv, _) if target == TEXT => name,
            (FileFormat::Csv, TEXT) => format!("CAST({name} AS {target})"),
            (FileFormat::Csv, own) => format!("CAST({name} AS {own})"),
            (FileFormat::Json, JSON) if target != JSON => format!("CAST({} AS {target})", self.text(column)),
            (FileFormat::Arrow, "BLOB") => format!("from_base64({name})"),
            _ => name,
        }
    }

    /// What its files are written in.
    pub(super) fn format(&self) -> FileFormat {
        self.format
    }

    /// The table function.
    pub(super) fn from(&self) -> &str {
        &self.from
    }
}

fn literal(path: &Path) -> String {
    sql_string(&path.display().to_string())
}

/// An expression for the type of a column of texts.
fn csv_type(name: &str) -> String {
    let name = sql_identifier(name);
    let cases: Vec<String> = CSV_TYPES
        .iter()
        .map(|(type_name, form)| {
            let form = sql_string(form);
            format!(
                "WHEN bool_and(CASE WHEN {name} IS NOT NULL THEN regexp_full_match({name}, {form}) \
                 AND TRY_CAST({name} AS {type_name}) IS NOT NULL END) THEN '{type_name}'"
            )
        })
        .collect();
    format!("CASE {} ELSE '{TEXT}' END", cases.join(" "))
}

fn texts_of(connection: &Connection, sql: &str) -> Result<Vec<String>, duckdb::Error> {
    connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
}

pub(super) fn describe(connection: &Connection, sql: &str) -> Result<Vec<StagingColumn>, duckdb::Error> {
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

/// Columns of both, each in a type that holds the values of both.
pub(super) fn unite(
    connection: &Connection,
    one: &[StagingColumn],
    other: &[StagingColumn],
) -> Result<Vec<StagingColumn>, duckdb::Error> {
    if one.is_empty() || other.is_empty() {
        return Ok([one, other].concat());
    }
    let select = |columns: &[StagingColumn]| {
        let columns: Vec<String> = columns
            .iter()
            .map(|column| format!("CAST(NULL AS {}) AS {}", column.type_name, sql_identifier(&column.name)))
            .collect();
        format!("(SELECT {})", columns.join(", "))
    };
    describe(
        connection,
        &format!("DESCRIBE {} UNION ALL BY NAME {}", select(one), select(other)),
    )
}
