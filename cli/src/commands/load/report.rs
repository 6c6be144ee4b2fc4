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
    /// Rows that the graph has now and had not before; `None` when only staged.
    pub(super) rows_loaded: Option<u64>,
    pub(super) rejected: Rejected,
    #[serde(rename = "columns_ignored")]
    pub(super) ignored: Vec<String>,
    pub(super) seconds: f64,
}

/// Rows that were left out, by reason, as the node agent counts them.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub(super) struct Rejected {
    pub(super) null_keys: u64,
    pub(super) duplicates: u64,
    pub(super) already_present: u64,
    pub(super) dangling: u64,
}

impl Rejected {
    fn total(self) -> u64 {
        self.null_keys + self.duplicates + self.already_present + self.dangling
    }

    /// The reasons in words, the most frequent first.
    fn reasons(self) -> String {
        let mut reasons = [
            (self.dangling, "with an end that the graph does not have"),
            (self.already_present, "that the graph has already"),
            (self.duplicates, "that repeat an earlier row"),
            (self.null_keys, "without a key"),
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
        self.rows_loaded.unwrap_or(self.rows_staged)
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
            let mut text =
                "table,kind,files,rows_staged,rows_loaded,rows_rejected,seconds,rows_per_second\n".to_owned();
            for r in reports {
                let loaded = r.rows_loaded.map(|rows| rows.to_string()).unwrap_or_default();
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

/// What people should know beside the numbers.
fn warnings(reports: &[TableReport]) -> Vec<String> {
    let mut lines = Vec::new();
    for report in reports {
        if report.rejected.total() > 0 {
            let (table, total) = (&report.table, grouped(report.rejected.total()));
            lines.push(format!("{table}: {total} rows left out: {}", report.rejected.reasons()));
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
        if staged_only { "STAGED" } else { "ROWS" },
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
    use super::*;

    fn report(table: &str, loaded: Option<u64>) -> TableReport {
        TableReport {
            table: table.into(),
            kind: "node".into(),
            files: 1,
            rows_staged: 3376,
            rows_loaded: loaded,
            rejected: Rejected::default(),
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
