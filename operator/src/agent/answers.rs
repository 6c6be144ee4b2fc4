//! Bodies of the agent's contract, as far as the operator needs them.

use graphplane_core::backup_plan::Task;
use graphplane_core::backup_schedule_plan::Start;
use graphplane_core::replica_plan::{AgentSeen, SeedVersion};
use graphplane_core::schema_copy::Table;
use serde::Deserialize;
use serde_json::{Value, json};

/// A database that should exist.
#[derive(Clone, Debug)]
pub(crate) struct CreateDatabase<'a> {
    pub(crate) id: &'a str,
    /// `entity`, `shared`, `custom`, `memory` or `empty`.
    pub(crate) schema_type: &'static str,
    /// Name of the repository, for `shared`.
    pub(crate) repository: Option<&'a str>,
    /// Statements beyond those of the type.
    pub(crate) ddl: Option<String>,
    pub(crate) is_subgraph: bool,
    pub(crate) tier: &'a str,
}

impl CreateDatabase<'_> {
    pub(super) fn body(&self) -> Value {
        let mut body = json!({
            "graph_id": self.id,
            "schema_type": self.schema_type,
            "is_subgraph": self.is_subgraph,
            "tenant_tier": self.tier,
        });
        if let Some(repository) = self.repository {
            body["repository_name"] = json!(repository);
        }
        if let Some(ddl) = self.ddl.as_ref().filter(|ddl| !ddl.trim().is_empty()) {
            body["custom_schema_ddl"] = json!(ddl);
        }
        body
    }
}

/// What became of a creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Creation {
    Made,
    Existed,
}

/// What became of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deletion {
    Done,
    WasAbsent,
}

/// What became of asking for a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RestoreStart {
    /// The agent is at it: the task.
    Begun(String),
    NotBegun(Start),
}

/// The rows of a count.
#[derive(Deserialize)]
pub(super) struct CountAnswer {
    pub(super) data: Vec<CountRow>,
}

#[derive(Deserialize)]
pub(super) struct CountRow {
    pub(super) n: i64,
}

#[derive(Deserialize)]
pub(super) struct SchemaAnswer {
    #[serde(default)]
    pub(super) tables: Vec<Table>,
}

#[derive(Deserialize)]
pub(super) struct TaskStarted {
    pub(super) task_id: String,
}

#[derive(Deserialize)]
pub(super) struct TaskAnswer {
    status: String,
    #[serde(default)]
    error: Option<String>,
    /// What ended it, if it was not its own work.
    #[serde(default)]
    interrupted: Option<String>,
}

/// A task of a list.
#[derive(Deserialize)]
pub(super) struct TaskListed {
    task_id: String,
    #[serde(default)]
    completed_at: Option<jiff::Timestamp>,
    #[serde(default)]
    metadata: Value,
    #[serde(flatten)]
    answer: TaskAnswer,
}

/// The copying of one database into another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForkTask {
    pub(crate) id: String,
    pub(crate) state: TaskState,
    /// When it ended.
    pub(crate) ended: Option<jiff::Timestamp>,
}

impl TaskListed {
    /// The task, if it was started with this key.
    pub(super) fn fork(self, key: &str) -> Option<ForkTask> {
        (self.metadata["idempotency_key"] == key).then(|| ForkTask {
            id: self.task_id,
            state: self.answer.into(),
            ended: self.completed_at,
        })
    }

    /// Its id, and how far it is.
    pub(super) fn restore(self) -> (String, TaskState) {
        (self.task_id, self.answer.into())
    }

    /// Its id, if it publishes below this key and has not ended.
    pub(super) fn publishing(self, key: &str) -> Option<String> {
        let publishes = self.metadata["backup_type"] == "replica" && self.metadata["key"] == key;
        (publishes && TaskState::from(self.answer) == TaskState::Running).then_some(self.task_id)
    }
}

/// How far a task is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TaskState {
    Running,
    Completed,
    /// It was cut off and may be started again.
    Interrupted,
    Failed(String),
}

impl From<TaskAnswer> for TaskState {
    fn from(answer: TaskAnswer) -> Self {
        let error = answer.error.unwrap_or_default();
        match answer.status.as_str() {
            "completed" => Self::Completed,
            // Restarts, lost leases and cancellations say nothing about whether it would succeed.
            "cancelled" => Self::Interrupted,
            "failed" if answer.interrupted.is_some() => Self::Interrupted,
            "failed" => Self::Failed(error),
            _ => Self::Running,
        }
    }
}

impl TaskState {
    /// A task that was asked for, as plans see it.
    pub(crate) fn seen(found: Option<Self>) -> Task {
        match found {
            None => Task::None,
            Some(Self::Running) => Task::Running,
            Some(Self::Completed) => Task::Completed,
            Some(Self::Interrupted) => Task::Interrupted,
            Some(Self::Failed(why)) => Task::Failed(why),
        }
    }
}

/// `/info`, as far as it is about seeds.
#[derive(Deserialize)]
pub(super) struct InfoAnswer {
    #[serde(default)]
    seeds: Vec<FollowedSeed>,
}

#[derive(Deserialize)]
struct FollowedSeed {
    seed: String,
    state: String,
    served: Option<VersionAnswer>,
    latest: Option<VersionAnswer>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct VersionAnswer {
    epoch: u64,
    version: u64,
}

impl InfoAnswer {
    /// The seeds below a key.
    pub(super) fn seed(self, key: &str) -> Option<AgentSeen> {
        let at = |VersionAnswer { epoch, version }| SeedVersion { epoch, version };
        let found = self.seeds.into_iter().find(|seed| seed.seed == key)?;
        Some(AgentSeen {
            serves: found.served.map(at),
            latest: found.latest.map(at),
            fetching: matches!(found.state.as_str(), "fetching" | "refreshing"),
            // It ends in conditions and events.
            error: found.error.map(|text| text.chars().take(1000).collect()),
        })
    }
}

/// What an error body says: `{"detail": text}`, or `{"detail": {"error": text}}`, or whatever came.
pub(super) fn detail(body: &[u8]) -> String {
    let parsed: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let detail = parsed.get("detail").unwrap_or(&parsed);
    let text = match detail {
        Value::String(text) => text.clone(),
        Value::Object(object) => match object
            .get("error")
            .or_else(|| object.get("message"))
            .and_then(Value::as_str)
        {
            Some(text) => text.to_owned(),
            None => detail.to_string(),
        },
        _ => String::from_utf8_lossy(body).into_owned(),
    };
    // It ends in conditions and events.
    text.chars().take(1000).collect()
}

/// Whether a refusal is that of an agent which waits for the answer to its registration.
pub(super) fn is_registering(body: &[u8]) -> bool {
    let parsed: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    parsed["detail"]["reason"] == "registering"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_is_registering_says_so() {
        assert!(is_registering(
            br#"{"detail":{"error":"not yet","reason":"registering","retry_after":1}}"#
        ));
        assert!(!is_registering(br#"{"detail":{"error":"no lease","reason":"fenced"}}"#));
        assert!(!is_registering(br#"{"detail":"registering"}"#) && !is_registering(b""));
    }

    #[test]
    fn the_text_of_an_error_is_found() {
        assert_eq!(detail(br#"{"detail":"no"}"#), "no");
        assert_eq!(
            detail(br#"{"detail":{"error":"Schema not changed","statement":2}}"#),
            "Schema not changed"
        );
        assert_eq!(detail(br#"{"success":false,"message":"why"}"#), "why");
        assert_eq!(detail(b"<html>"), "<html>");
        assert_eq!(detail(&[b'x'; 5000]).len(), 1000);
    }

    #[test]
    fn a_task_that_was_cut_off_may_be_repeated() {
        let of = |answer: Value| {
            let answer: TaskAnswer = serde_json::from_value(answer).unwrap_or_else(|error| panic!("{error}"));
            TaskState::from(answer)
        };
        assert_eq!(of(json!({"status": "pending"})), TaskState::Running);
        assert_eq!(of(json!({"status": "completed"})), TaskState::Completed);
        assert_eq!(of(json!({"status": "cancelled"})), TaskState::Interrupted);
        for what in ["restart", "shutdown", "fenced"] {
            let answer = json!({"status": "failed", "error": "any", "interrupted": what});
            assert_eq!(of(answer), TaskState::Interrupted);
        }
        // What it says is no sign: tables and columns may have any name.
        for why in ["disk full", "table lease has no column", "interrupted is not a column"] {
            let answer = json!({"status": "failed", "error": why, "interrupted": null});
            assert_eq!(of(answer), TaskState::Failed(why.into()));
        }
    }

    #[test]
    fn what_a_replica_serves_is_read_from_its_info() {
        let info = json!({"node_id": "n", "seeds": [
            {"seed": "seeds/other", "graph_id": null, "state": "waiting", "served": null, "latest": null, "error": null},
            {"seed": "seeds/kg1/r", "graph_id": "kg1", "state": "refreshing", "error": null, "age_seconds": 1.5,
             "served": {"epoch": 3, "version": 7, "size_bytes": 1}, "latest": {"epoch": 3, "version": 8}}]});
        let read = || serde_json::from_value::<InfoAnswer>(info.clone()).unwrap_or_else(|error| panic!("{error}"));
        let at = |version| Some(SeedVersion { epoch: 3, version });
        let expected = AgentSeen {
            serves: at(7),
            latest: at(8),
            fetching: true,
            error: None,
        };
        assert_eq!(read().seed("seeds/kg1/r"), Some(expected));
        assert_eq!(read().seed("seeds/other"), Some(AgentSeen::default()));
        assert_eq!(read().seed("seeds/kg1"), None);
    }

    #[test]
    fn a_publication_is_known_by_its_key() {
        let listed = |status: &str, kind: &str| {
            let task = json!({"task_id": "backup_1", "status": status, "metadata": {"key": "seeds/kg1/r", "backup_type": kind}});
            serde_json::from_value::<TaskListed>(task).unwrap_or_else(|error| panic!("{error}"))
        };
        let running = || listed("running", "replica");
        assert_eq!(running().publishing("seeds/kg1/r").as_deref(), Some("backup_1"));
        assert_eq!(running().publishing("seeds/kg1/other"), None);
        assert_eq!(listed("completed", "replica").publishing("seeds/kg1/r"), None);
        assert_eq!(listed("running", "standard").publishing("seeds/kg1/r"), None);
    }

    #[test]
    fn a_fork_is_known_by_its_key() {
        let task = json!({"task_id": "fork_1", "status": "failed", "error": "disk full",
            "completed_at": "2026-01-02T03:04:05.678Z", "metadata": {"idempotency_key": "u"}, "result": null});
        let listed = || serde_json::from_value::<TaskListed>(task.clone()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(listed().fork("other"), None);
        let fork = listed().fork("u");
        assert_eq!(
            fork.map(|fork| (fork.id, fork.state, fork.ended.is_some())),
            Some(("fork_1".into(), TaskState::Failed("disk full".into()), true))
        );
    }

    #[test]
    fn only_what_is_wanted_is_sent() {
        let want = CreateDatabase {
            id: "kg01",
            schema_type: "custom",
            repository: None,
            ddl: Some("  ".into()),
            is_subgraph: false,
            tier: "std",
        };
        assert_eq!(
            want.body(),
            json!({"graph_id": "kg01", "schema_type": "custom", "is_subgraph": false, "tenant_tier": "std"})
        );
    }
}
