//! What a load did, table by table.

use crate::args::OutputFormat;
use crate::duration::human;
use crate::failure::Failure;
use crate::output::{self, Align, grouped, plain_table};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What became of one table.
#[derive(Serialize, Clone, Debug, PartialEq)]
pub(super) struct TableReport {
    pub(super) table: String,
    pub(super) kind: String,
    pub(super) files: usize,
    pub(super) rows_staged: u64,
    /// Rows that the graph has now and had not before; `None` when only staged, or only looked at.
    pub(super) rows_loaded: Option<u64>,
    /// Rows that a load would take; of a dry run only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rows_acceptable: Option<u64>,
    pub(super) rejected: Rejected,
    /// Columns because of which a load would fail; of a dry run only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) invalid_columns: Vec<InvalidColumn>,
    #[serde(rename = "columns_ignored")]
    pub(super) ignored: Vec<String>,
    pub(super) seconds: f64,
}

/// A column with values that its type cannot hold.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(super) struct InvalidColumn {
    pub(super) column: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) rows: u64,
    #[serde(default)]
    pub(super) example: serde_json::Value,
}

/// Rows that were left out, by reason, as the node agent counts them.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub(super) struct Rejected {
    pub(super) null_keys: u64,
    pub(super) duplicates: u64,
    pub(super) already_present: u64,
    pub(super) dangling: u64,
    /// Rows with a value that a column cannot hold: counted by a dry run, and the end of a load.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) invalid: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Rejected {
    fn total(self) -> u64 {
        self.null_keys + self.duplicates + self.already_present + self.dangling + self.invalid
    }

    /// The reasons in words, the most frequent first.
    fn reasons(self) -> String {
        let mut reasons = [
            (self.dangling, "with an end that the graph does not have"),
            (self.already_present, "that the graph has already"),
            (self.duplicates, "that repeat an earlier row"),
            (self.null_keys, "without a key"),
            (self.invalid, "with a value that a column cannot hold"),
        ];
        reasons.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        let words = reasons.iter().filter(|(count, _)| *count > 0);
        words
            .map(|(count, why)| format!("{} {why}", grouped(*count)))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

impl TableReport {
    fn rows(&self) -> u64 {
        self.rows_loaded.or(self.rows_acceptable).unwrap_or(self.rows_staged)
    }

    fn per_second(&self) -> u64 {
        if self.seconds > 0.0 {
            (self.rows() as f64 / self.seconds).round() as u64
        } else {
            self.rows()
        }
    }
}

/// Prints the reports in the form that was asked for.
pub(super) fn print(reports: &[TableReport], format: OutputFormat) -> Result<(), Failure> {
    match format {
        OutputFormat::Table => {
            for line in warnings(reports) {
                output::note(line);
            }
            output::print(&table(reports))
        }
        OutputFormat::Json => output::print(&format!("{}\n", json(&reports)?)),
        OutputFormat::Ndjson => reports
            .iter()
            .try_for_each(|report| output::print(&format!("{}\n", json(report)?))),
        OutputFormat::Csv => {
            let dry = reports.iter().any(|report| report.rows_acceptable.is_some());
            let loaded = if dry { "rows_acceptable" } else { "rows_loaded" };
            let mut text = format!("table,kind,files,rows_staged,{loaded},rows_rejected,seconds,rows_per_second\n");
            for r in reports {
                let loaded = r.rows_loaded.or(r.rows_acceptable);
                let loaded = loaded.map(|rows| rows.to_string()).unwrap_or_default();
                let (rejected, rate) = (r.rejected.total(), r.per_second());
                text += &format!(
                    "{},{},{},{},{loaded},{rejected},{:.3},{rate}\n",
                    r.table, r.kind, r.files, r.rows_staged, r.seconds
                );
            }
            output::print(&text)
        }
    }
}

fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::plain(error.to_string()))
}

/// Whether a load would end well, or has.
///
/// # Errors
/// Names the tables that a load could not fill.
pub(super) fn check(reports: &[TableReport]) -> Result<(), Failure> {
    let bad = reports.iter().filter(|report| !report.invalid_columns.is_empty());
    let tables: Vec<&str> = bad.map(|report| report.table.as_str()).collect();
    if tables.is_empty() {
        return Ok(());
    }
    Err(Failure::plain(format!("a load of {} would fail", tables.join(", ")))
        .advise("correct the values in the files, or change the columns of the graph's tables"))
}

/// What people should know beside the numbers.
fn warnings(reports: &[TableReport]) -> Vec<String> {
    let mut lines = Vec::new();
    for report in reports {
        if report.rejected.total() > 0 {
            let (table, total) = (&report.table, grouped(report.rejected.total()));
            lines.push(format!("{table}: {total} rows left out: {}", report.rejected.reasons()));
        }
        for InvalidColumn {
            column,
            kind,
            rows,
            example,
        } in &report.invalid_columns
        {
            let (table, rows) = (&report.table, grouped(*rows));
            lines.push(format!(
                "{table}: {rows} values of {column} are no {kind}, for example {example}"
            ));
        }
        if !report.ignored.is_empty() {
            let columns = report.ignored.join(", ");
            lines.push(format!(
                "{}: the graph's table has no column for {columns}",
                report.table
            ));
        }
    }
    lines
}

fn table(reports: &[TableReport]) -> String {
    let dry = reports.iter().any(|report| report.rows_acceptable.is_some());
    let staged_only = reports.iter().all(|report| report.rows_loaded.is_none());
    let rows: Vec<Vec<String>> = reports
        .iter()
        .map(|report| {
            vec![
                report.table.clone(),
                report.kind.clone(),
                grouped(report.rows()),
                grouped(report.rejected.total()),
                human(Duration::from_secs_f64(report.seconds.max(0.0))),
                grouped(report.per_second()),
            ]
        })
        .collect();
    let header = [
        "TABLE",
        "KIND",
        match (dry, staged_only) {
            (true, _) => "WOULD-LOAD",
            (false, true) => "STAGED",
            (false, false) => "ROWS",
        },
        "LEFT-OUT",
        "TIME",
        "ROWS/S",
    ];
    plain_table(
        &header,
        &rows,
        &[
            Align::Left,
            Align::Left,
            Align::Right,
            Align::Right,
            Align::Right,
            Align::Right,
        ],
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn report(table: &str, loaded: Option<u64>) -> TableReport {
        TableReport {
            table: table.into(),
            kind: "node".into(),
            files: 1,
            rows_staged: 3376,
            rows_loaded: loaded,
            rows_acceptable: None,
            rejected: Rejected::default(),
            invalid_columns: Vec::new(),
            ignored: Vec::new(),
            seconds: 0.5,
        }
    }

    #[test]
    fn rows_and_rows_per_second_per_table() {
        let text = table(&[report("Airport", Some(3376)), report("Route", Some(0))]);
        assert_eq!(
            text,
            "\
TABLE     KIND    ROWS   LEFT-OUT     TIME   ROWS/S
Airport   node   3,376          0   500 ms    6,752
Route     node       0          0   500 ms        0
"
        );
        assert!(table(&[report("Airport", None)]).contains("STAGED"));
    }

    #[test]
    fn a_dry_run_says_what_would_fail() {
        let column = InvalidColumn {
            column: "latitude".into(),
            kind: "DOUBLE".into(),
            rows: 2,
            example: "north".into(),
        };
        let rejected = Rejected {
            invalid: 2,
            ..Rejected::default()
        };
        let good = TableReport {
            rows_acceptable: Some(3376),
            ..report("Route", None)
        };
        let bad = TableReport {
            rows_acceptable: Some(3374),
            rejected,
            invalid_columns: vec![column],
            ..report("Airport", None)
        };
        let text = table(&[good.clone(), bad.clone()]);
        assert!(text.contains("WOULD-LOAD") && text.contains("3,374"), "{text}");
        assert_eq!(
            warnings(&[good.clone(), bad.clone()]),
            [
                "Airport: 2 rows left out: 2 with a value that a column cannot hold",
                "Airport: 2 values of latitude are no DOUBLE, for example \"north\"",
            ]
        );
        assert!(check(std::slice::from_ref(&good)).is_ok());
        let failure = check(&[good, bad]).unwrap_err();
        assert!(
            failure.message.contains("Airport") && !failure.message.contains("Route"),
            "{failure}"
        );
    }

    #[test]
    fn rows_that_were_left_out_are_explained() {
        let rejected = Rejected {
            dangling: 2,
            duplicates: 1500,
            ..Rejected::default()
        };
        let ignored = vec!["weight".to_owned()];
        let lines = warnings(&[TableReport {
            rejected,
            ignored,
            ..report("Route", Some(10))
        }]);
        assert_eq!(
            lines,
            [
                "Route: 1,502 rows left out: 1,500 that repeat an earlier row, 2 with an end that the graph does not have",
                "Route: the graph's table has no column for weight",
            ]
        );
        assert!(warnings(&[report("Airport", Some(1))]).is_empty());
    }
}
