//! Changes, events and outputs of stacks, for people and for programs.

use crate::args::OutputFormat;
use crate::failure::Failure;
use crate::output::{self, plain_table, printable, row_writer};
use graphplane_operator::provider::aws::deploy::StackEvent;
use graphplane_operator::provider::stacks::ChangeSet;
use serde_json::Value;
use std::collections::BTreeMap;

const CHANGES: [&str; 4] = ["ACTION", "RESOURCE", "TYPE", "REPLACEMENT"];

fn rows_of(change_set: &ChangeSet) -> Vec<Vec<String>> {
    let changes = change_set.changes.iter();
    changes
        .map(|c| {
            [&c.action, &c.resource, &c.type_, &c.replacement]
                .map(|text| printable(text))
                .to_vec()
        })
        .collect()
}

/// What a change set would do.
pub(super) fn table(change_set: &ChangeSet) -> String {
    plain_table(&CHANGES, &rows_of(change_set), &[])
}

/// What a change set would do, on standard output; no rows where there is nothing to do.
pub(super) fn changes(change_set: Option<&ChangeSet>, format: OutputFormat) -> Result<(), Failure> {
    match (change_set, format) {
        (None, OutputFormat::Table) => output::print("nothing would be changed\n"),
        (Some(change_set), OutputFormat::Table) => output::print(&table(change_set)),
        (change_set, format) => {
            let rows = change_set.map(rows_of).unwrap_or_default();
            write(&CHANGES.map(str::to_lowercase), rows, format)
        }
    }
}

/// The outputs of a stack, on standard output.
pub(super) fn outputs(outputs: &BTreeMap<String, String>, format: OutputFormat) -> Result<(), Failure> {
    let rows: Vec<Vec<String>> = outputs
        .iter()
        .map(|(key, value)| vec![key.clone(), value.clone()])
        .collect();
    match format {
        OutputFormat::Table if rows.is_empty() => Ok(()),
        OutputFormat::Table => output::print(&plain_table(&["OUTPUT", "VALUE"], &rows, &[])),
        format => write(&["output".to_owned(), "value".to_owned()], rows, format),
    }
}

/// Something that happened, on standard error.
pub(super) fn event(event: &StackEvent) {
    let reason = event
        .reason
        .as_deref()
        .map(|why| format!(": {why}"))
        .unwrap_or_default();
    let line = format!("{:<24} {} ({}){reason}", event.status, event.resource, event.type_);
    output::note(printable(&line));
}

fn write(columns: &[String], rows: Vec<Vec<String>>, format: OutputFormat) -> Result<(), Failure> {
    let mut writer = row_writer(format, std::io::stdout().lock());
    writer.begin(columns)?;
    let values = rows.into_iter().map(|row| row.into_iter().map(Value::from).collect());
    writer.rows(values.collect())?;
    writer.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use graphplane_operator::provider::stacks::{Change, ChangeSetState};

    #[test]
    fn a_change_is_a_row() {
        let change = Change {
            action: "Modify".into(),
            resource: "Objects".into(),
            type_: "AWS::S3::Bucket".into(),
            replacement: "False".into(),
        };
        let change_set = ChangeSet {
            name: "cs".into(),
            state: ChangeSetState::Ready,
            changes: vec![change],
        };
        assert_eq!(
            table(&change_set),
            "ACTION   RESOURCE   TYPE              REPLACEMENT\nModify   Objects    AWS::S3::Bucket   False\n"
        );
    }
}
