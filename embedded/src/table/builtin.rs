//! Columns of the built-in kinds, as kubectl users know them.

use serde_json::Value;

use super::{Column, JsonPath, Source};

fn path(names: &[&str]) -> JsonPath {
    JsonPath::fields(names)
}

fn text(name: &str, names: &[&str]) -> Column {
    Column::new(name, "string", Source::Path(path(names)))
}

fn age(name: &str, paths: &[&[&str]]) -> Column {
    Column::new(
        name,
        "string",
        Source::Age(paths.iter().map(|names| path(names)).collect()),
    )
}

fn wide(column: Column) -> Column {
    Column { priority: 1, ..column }
}

/// The columns of a built-in kind; empty for those that show only name and age.
pub(crate) fn columns(group: &str, kind: &str) -> Vec<Column> {
    let created = || age("Age", &[&["metadata", "creationTimestamp"]]);
    match (group, kind) {
        ("", "Namespace") => vec![text("Status", &["status", "phase"]), created()],
        ("", "Secret") => vec![
            text("Type", &["type"]),
            Column::new("Data", "integer", Source::Entries(vec![path(&["data"])])),
            created(),
        ],
        ("", "ConfigMap") => vec![
            Column::new(
                "Data",
                "integer",
                Source::Entries(vec![path(&["data"]), path(&["binaryData"])]),
            ),
            created(),
        ],
        ("", "Event") => event("involvedObject", "message", "firstTimestamp", "lastTimestamp"),
        ("events.k8s.io", "Event") => event(
            "regarding",
            "note",
            "deprecatedFirstTimestamp",
            "deprecatedLastTimestamp",
        ),
        ("coordination.k8s.io", "Lease") => vec![text("Holder", &["spec", "holderIdentity"]), created()],
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            vec![text("Created At", &["metadata", "creationTimestamp"])]
        }
        _ => Vec::new(),
    }
}

/// Both versions of Event show the same columns under different field names.
fn event(about: &str, message: &str, first: &str, last: &str) -> Vec<Column> {
    vec![
        age(
            "Last Seen",
            &[&["series", "lastObservedTime"], &[last], &["eventTime"], &[first]],
        ),
        text("Type", &["type"]),
        text("Reason", &["reason"]),
        Column::new("Object", "string", Source::Event(EventCell::Object)),
        wide(text("Subobject", &[about, "fieldPath"])),
        wide(Column::new("Source", "string", Source::Event(EventCell::Source))),
        text("Message", &[message]),
        wide(age("First Seen", &[&[first], &["eventTime"]])),
        wide(Column::new("Count", "integer", Source::Event(EventCell::Count))),
        wide(Column::new("Name", "string", Source::Name)),
    ]
}

/// A cell of an Event, in either version of Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventCell {
    /// `kind/name` of what the event is about.
    Object,
    /// The component that reports, and its host.
    Source,
    /// How often it happened.
    Count,
}

impl EventCell {
    pub(super) fn of(self, event: &Value) -> Value {
        // The two versions name the same fields differently.
        let either = |old: &str, new: &str| event.get(old).or_else(|| event.get(new)).unwrap_or(&Value::Null);
        match self {
            Self::Object => {
                let about = either("involvedObject", "regarding");
                let kind = about["kind"].as_str().unwrap_or_default().to_lowercase();
                Value::from(match about["name"].as_str().unwrap_or_default() {
                    "" => kind,
                    name => format!("{kind}/{name}"),
                })
            }
            Self::Source => {
                let source = either("source", "deprecatedSource");
                let controller = either("reportingComponent", "reportingController");
                let parts = [
                    source["component"].as_str().or(controller.as_str()),
                    source["host"].as_str().or(event["reportingInstance"].as_str()),
                ];
                let parts: Vec<&str> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
                Value::from(parts.join(", "))
            }
            Self::Count => {
                let single = either("count", "deprecatedCount").as_i64();
                // An event that was reported once carries no count.
                Value::from(event["series"]["count"].as_i64().or(single).unwrap_or(1))
            }
        }
    }
}
