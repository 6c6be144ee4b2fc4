//! One task as it is stored and shown.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::time::Duration;

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TaskType {
    /// Files into a staging table.
    Staging,
    /// A staging table into the graph.
    Ingestion,
    /// A copy of a database to the object store.
    Backup,
    /// A database from the object store.
    Restore,
    /// A database to files of another format.
    Export,
    /// A database to another version of the engine.
    Migration,
    /// A database as a copy of another one.
    Fork,
    /// A graph made anew from its staging tables.
    Rebuild,
    /// Vectors of a table.
    Vector,
}

impl TaskType {
    /// Every type, in the order in which statistics list them.
    pub const ALL: [Self; 9] = [
        Self::Staging,
        Self::Ingestion,
        Self::Backup,
        Self::Restore,
        Self::Export,
        Self::Migration,
        Self::Fork,
        Self::Rebuild,
        Self::Vector,
    ];

    /// The word in answers and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Staging => "staging",
            Self::Ingestion => "ingestion",
            Self::Backup => "backup",
            Self::Restore => "restore",
            Self::Export => "export",
            Self::Migration => "migration",
            Self::Fork => "fork",
            Self::Rebuild => "rebuild",
            Self::Vector => "vector",
        }
    }
}

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TaskStatus {
    /// Recorded, waiting for its turn.
    Pending,
    /// At work.
    Running,
    /// Done; there is a result.
    Completed,
    /// Not done; there is an error.
    Failed,
    /// Stopped by a caller.
    Cancelled,
}

impl TaskStatus {
    /// Every status, in the order in which statistics list them.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Running,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The word in answers and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more will happen.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// What ended a task before its work was done, and says nothing about whether that would succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Interruption {
    /// A caller asked for it.
    Request,
    /// The node was about to stop.
    Shutdown,
    /// The process ended.
    Restart,
    /// The node lost the right to write.
    Fenced,
}

/// One task, with the fields of the contract.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskRecord {
    /// `<kind>_<graph>[_<table>]_<8 hex digits>`.
    pub task_id: String,
    /// What it does.
    pub task_type: TaskType,
    /// How far it is.
    pub status: TaskStatus,
    /// When it was recorded (RFC 3339, UTC).
    pub created_at: String,
    /// When it began to work.
    pub started_at: Option<String>,
    /// When it ended, whichever way.
    pub completed_at: Option<String>,
    /// 0 to 100.
    pub progress_percent: f64,
    /// Records to process, if known.
    pub estimated_size: Option<u64>,
    /// Records processed so far.
    #[serde(default)]
    pub records_processed: Option<u64>,
    /// When it last showed progress.
    pub last_heartbeat: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// What ended it, if it was not its own work: the same may be started again.
    #[serde(default)]
    pub interrupted: Option<Interruption>,
    /// What came of it.
    pub result: Option<Value>,
    /// What it was asked to do; never a secret.
    pub metadata: Map<String, Value>,
}

impl TaskRecord {
    /// Whether its metadata has this text under this key.
    pub fn says(&self, key: &str, text: &str) -> bool {
        self.metadata.get(key).and_then(Value::as_str) == Some(text)
    }

    /// Seconds from start (or record) to end (or now).
    pub fn duration(&self) -> Duration {
        let parse = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let begin = parse(&self.started_at).or_else(|| parse(&Some(self.created_at.clone())));
        let end = parse(&self.completed_at).unwrap_or_else(jiff::Timestamp::now);
        begin
            .and_then(|begin| Duration::try_from(end.duration_since(begin)).ok())
            .unwrap_or_default()
    }
}

/// The present as RFC 3339 in UTC with milliseconds.
pub fn timestamp() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_contract() {
        for status in TaskStatus::ALL {
            assert_eq!(serde_json::json!(status), serde_json::json!(status.as_str()));
        }
        for kind in TaskType::ALL {
            assert_eq!(serde_json::json!(kind), serde_json::json!(kind.as_str()));
        }
        assert!(timestamp().ends_with('Z'));
    }
}
