//! Tables.

use comfy_table::presets::{NOTHING, UTF8_FULL_CONDENSED};
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};

/// On which side of its column a value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Texts.
    Left,
    /// Numbers.
    Right,
}

impl From<Align> for CellAlignment {
    fn from(align: Align) -> Self {
        match align {
            Align::Left => Self::Left,
            Align::Right => Self::Right,
        }
    }
}

fn build(preset: &str, header: &[String], rows: &[Vec<String>], align: &[Align]) -> Table {
    let mut table = Table::new();
    // Values are never broken into lines: whoever needs them narrow uses csv and a pager.
    table
        .load_preset(preset)
        .set_content_arrangement(ContentArrangement::Disabled);
    let cells = |texts: &[String]| -> Vec<Cell> {
        let side = |index| align.get(index).copied().unwrap_or(Align::Left);
        texts
            .iter()
            .enumerate()
            .map(|(index, text)| Cell::new(text).set_alignment(side(index).into()))
            .collect()
    };
    table.set_header(cells(header));
    table.add_rows(rows.iter().map(|row| cells(row)));
    table
}

/// A table with lines, for results of queries.
pub(super) fn boxed(header: &[String], rows: &[Vec<String>], align: &[Align]) -> String {
    format!("{}\n", build(UTF8_FULL_CONDENSED, header, rows, align))
}

/// A table without lines, as `kubectl get` prints it.
pub fn plain_table(header: &[&str], rows: &[Vec<String>], align: &[Align]) -> String {
    let header: Vec<String> = header.iter().map(|name| (*name).to_owned()).collect();
    let mut table = build(NOTHING, &header, rows, align);
    let last = header.len().saturating_sub(1);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if index == last { 0 } else { 3 }));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    format!("{}\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(row: &[&str]) -> Vec<String> {
        row.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_table_with_lines() {
        let table = boxed(
            &texts(&["iata", "flights"]),
            &[texts(&["SFO", "13788"]), texts(&["東京", "7"])],
            &[Align::Left, Align::Right],
        );
        assert_eq!(
            table,
            "\
┌──────┬─────────┐
│ iata ┆ flights │
╞══════╪═════════╡
│ SFO  ┆   13788 │
│ 東京 ┆       7 │
└──────┴─────────┘
"
        );
    }

    #[test]
    fn a_table_without_lines() {
        let rows = [texts(&["Airport", "3376", "ok"]), texts(&["Route", "5366", ""])];
        let table = plain_table(&["TABLE", "ROWS", "NOTE"], &rows, &[Align::Left, Align::Right]);
        assert_eq!(table, "TABLE     ROWS   NOTE\nAirport   3376   ok\nRoute     5366\n");
    }
}
