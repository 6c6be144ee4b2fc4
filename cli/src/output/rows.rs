//! Rows of a result, in the form that the user chose. All forms but the table stream: they hold one chunk at a time.

use super::cell;
use super::table::{Align, boxed};
use crate::args::OutputFormat;
use crate::failure::Failure;
use serde_json::Value;
use std::io::Write;

/// What is known when the last row has come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Rows of the result.
    pub rows: u64,
    /// Milliseconds that the engine needed, if the server said so.
    pub execution_ms: Option<f64>,
    /// Whether a limit of the server cut the result.
    pub truncated: bool,
}

/// Takes a result: once `begin`, `rows` for each chunk, once `end`.
pub trait RowWriter {
    /// The names of the columns.
    ///
    /// # Errors
    /// The output cannot be written.
    fn begin(&mut self, columns: &[String]) -> Result<(), Failure>;

    /// Some rows; each has a value per column.
    ///
    /// # Errors
    /// The output cannot be written.
    fn rows(&mut self, rows: Vec<Vec<Value>>) -> Result<(), Failure>;

    /// No more rows come.
    ///
    /// # Errors
    /// The output cannot be written.
    fn end(&mut self) -> Result<(), Failure>;
}

/// The writer of a form.
pub fn row_writer<'a, W: Write + 'a>(format: OutputFormat, out: W) -> Box<dyn RowWriter + 'a> {
    match format {
        OutputFormat::Table => Box::new(TableRows {
            out,
            columns: Vec::new(),
            rows: Vec::new(),
            align: Vec::new(),
        }),
        OutputFormat::Csv => Box::new(CsvRows { out }),
        OutputFormat::Json => Box::new(JsonRows {
            out,
            columns: Vec::new(),
            lines: false,
            any: false,
        }),
        OutputFormat::Ndjson => Box::new(JsonRows {
            out,
            columns: Vec::new(),
            lines: true,
            any: false,
        }),
    }
}

fn done(result: std::io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| Failure::output(&error))
}

struct TableRows<W> {
    out: W,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
    /// Right until a value comes that is no number.
    align: Vec<Align>,
}

impl<W: Write> RowWriter for TableRows<W> {
    fn begin(&mut self, columns: &[String]) -> Result<(), Failure> {
        self.columns = columns.iter().map(|name| cell::printable(name)).collect();
        self.align = vec![Align::Right; columns.len()];
        Ok(())
    }

    fn rows(&mut self, rows: Vec<Vec<Value>>) -> Result<(), Failure> {
        for row in rows {
            for (align, value) in self.align.iter_mut().zip(&row) {
                if !value.is_number() && !value.is_null() {
                    *align = Align::Left;
                }
            }
            self.rows.push(row.iter().map(cell::text).collect());
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        // A statement that returns nothing, such as CREATE, has no columns and prints no table.
        if self.columns.is_empty() {
            return Ok(());
        }
        let table = boxed(&self.columns, &self.rows, &self.align);
        done(self.out.write_all(table.as_bytes()).and_then(|()| self.out.flush()))
    }
}

struct CsvRows<W> {
    out: W,
}

impl<W: Write> CsvRows<W> {
    fn line(&mut self, fields: impl Iterator<Item = String>) -> Result<(), Failure> {
        let line = fields.collect::<Vec<_>>().join(",");
        done(writeln!(self.out, "{line}"))
    }
}

impl<W: Write> RowWriter for CsvRows<W> {
    fn begin(&mut self, columns: &[String]) -> Result<(), Failure> {
        if columns.is_empty() {
            Ok(())
        } else {
            self.line(columns.iter().map(|name| cell::csv_text(name)))
        }
    }

    fn rows(&mut self, rows: Vec<Vec<Value>>) -> Result<(), Failure> {
        rows.iter().try_for_each(|row| self.line(row.iter().map(cell::csv)))
    }

    fn end(&mut self) -> Result<(), Failure> {
        done(self.out.flush())
    }
}

struct JsonRows<W> {
    out: W,
    /// The names as JSON texts.
    columns: Vec<String>,
    /// One object per line instead of one array.
    lines: bool,
    /// Whether a row was written.
    any: bool,
}

impl<W: Write> RowWriter for JsonRows<W> {
    fn begin(&mut self, columns: &[String]) -> Result<(), Failure> {
        self.columns = columns
            .iter()
            .map(|name| Value::from(name.as_str()).to_string())
            .collect();
        Ok(())
    }

    fn rows(&mut self, rows: Vec<Vec<Value>>) -> Result<(), Failure> {
        for row in rows {
            // Written by hand: a map of serde_json may sort the columns.
            let fields: Vec<String> = self
                .columns
                .iter()
                .zip(&row)
                .map(|(name, value)| format!("{name}:{value}"))
                .collect();
            let object = format!("{{{}}}", fields.join(","));
            done(match (self.lines, self.any) {
                (true, _) => writeln!(self.out, "{object}"),
                (false, false) => write!(self.out, "[\n  {object}"),
                (false, true) => write!(self.out, ",\n  {object}"),
            })?;
            self.any = true;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        let closing = match (self.lines, self.any) {
            (true, _) => "",
            (false, false) => "[]\n",
            (false, true) => "\n]\n",
        };
        done(self.out.write_all(closing.as_bytes()).and_then(|()| self.out.flush()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn written(format: OutputFormat, columns: &[&str], chunks: &[Value]) -> String {
        let mut out = Vec::new();
        {
            let mut writer = row_writer(format, &mut out);
            let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
            writer.begin(&columns).unwrap();
            for chunk in chunks {
                writer.rows(serde_json::from_value(chunk.clone()).unwrap()).unwrap();
            }
            writer.end().unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    fn chunks() -> [Value; 2] {
        [json!([["SFO", 13788], ["a,\"b\"", 1]]), json!([[null, 2]])]
    }

    #[test]
    fn json_keeps_the_order_of_the_columns_and_is_one_document() {
        let text = written(OutputFormat::Json, &["z", "a"], &chunks());
        assert_eq!(
            text,
            "[\n  {\"z\":\"SFO\",\"a\":13788},\n  {\"z\":\"a,\\\"b\\\"\",\"a\":1},\n  {\"z\":null,\"a\":2}\n]\n"
        );
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap().as_array().unwrap().len(),
            3
        );
        assert_eq!(written(OutputFormat::Json, &["a"], &[]), "[]\n");
    }

    #[test]
    fn ndjson_is_one_object_per_line() {
        let text = written(OutputFormat::Ndjson, &["z", "a"], &chunks());
        assert!(
            text.lines()
                .all(|line| serde_json::from_str::<Value>(line).unwrap().is_object())
        );
        assert_eq!(text.lines().count(), 3);
        assert_eq!(written(OutputFormat::Ndjson, &["a"], &[]), "");
    }

    #[test]
    fn csv_has_a_header_also_without_rows() {
        assert_eq!(written(OutputFormat::Csv, &["a", "b,c"], &[]), "a,\"b,c\"\n");
        let text = written(OutputFormat::Csv, &["z", "a"], &chunks());
        assert_eq!(text, "z,a\nSFO,13788\n\"a,\"\"b\"\"\",1\n,2\n");
    }

    #[test]
    fn numbers_stand_on_the_right_and_a_statement_without_columns_prints_nothing() {
        let text = written(OutputFormat::Table, &["z", "a"], &chunks());
        assert!(text.contains("│ SFO   ┆ 13788 │"), "{text}");
        assert!(text.contains("│       ┆     2 │"), "{text}");
        assert_eq!(written(OutputFormat::Table, &[], &[]), "");
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error_to_talk_about() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let failure = row_writer(OutputFormat::Csv, Closed)
            .begin(&["a".to_owned()])
            .unwrap_err();
        assert_eq!(
            (failure.exit, failure.message.as_str()),
            (crate::failure::Exit::ClosedOutput, "")
        );
    }
}
