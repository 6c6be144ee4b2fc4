//! Calls to node agents.
//!
//! Every call carries the node's key and epoch. Only what may be repeated without harm is repeated here, and only a few
//! times: the reconcile is the real repetition.

mod answers;

pub(crate) use answers::{CreateDatabase, Creation, Deletion, ForkTask, RestoreStart, TaskState};

use crate::metrics::Metrics;
use answers::{CountAnswer, InfoAnswer, SchemaAnswer, TaskAnswer, TaskListed, TaskStarted, detail, is_registering};
use graphplane_core::backup_schedule_plan::{Counts, Start};
use graphplane_core::replica_plan::AgentSeen;
use graphplane_core::schema_copy::{Kind, Table};
use graphplane_crds::quantities::Epoch;
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A call to an agent that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// No answer.
    #[error("the agent at {endpoint} does not answer: {message}")]
    Unreachable {
        /// Its URL.
        endpoint: String,
        /// Why.
        message: String,
    },
    /// The engine refuses what was asked for; asking again is of no use.
    #[error("{0}")]
    Refused(String),
    /// The agent has another epoch, or none: the node is being replaced.
    #[error("the agent at {endpoint} does not hold the epoch: {message}")]
    WrongEpoch {
        /// Its URL.
        endpoint: String,
        /// What it said.
        message: String,
    },
    /// The agent has not heard yet that its registration was accepted, and has done nothing.
    #[error("the agent at {0} is still registering")]
    Registering(String),
    /// Another answer that is not a success.
    #[error("the agent at {endpoint} answered {status}: {message}")]
    Status {
        /// Its URL.
        endpoint: String,
        /// The status code.
        status: u16,
        /// What it said.
        message: String,
    },
    /// An answer that cannot be read.
    #[error("the agent at {endpoint} gave an unexpected answer: {message}")]
    Answer {
        /// Its URL.
        endpoint: String,
        /// Why it cannot be read.
        message: String,
    },
    /// The node has no key.
    #[error("node {0} has no Secret with the key of its agent yet")]
    NoKey(String),
}

impl AgentError {
    fn label(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::Refused(_) => "refused",
            Self::WrongEpoch { .. } => "epoch",
            Self::Registering(_) => "registering",
            Self::Status { .. } => "status",
            Self::Answer { .. } => "answer",
            Self::NoKey(_) => "key",
        }
    }
}

/// Attempts of a call that may be repeated.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(50);
/// How often an agent that has just registered is asked again. Its registration is seen here before the answer to it has
/// reached the agent, which refuses changes for that moment.
const REGISTERING: u32 = 20;
const REGISTERING_PAUSE: Duration = Duration::from_millis(25);

/// A client for all agents.
#[derive(Clone)]
pub(crate) struct Agents {
    http: reqwest::Client,
    metrics: Metrics,
}

/// One agent.
#[derive(Clone)]
pub(crate) struct Agent {
    http: reqwest::Client,
    metrics: Metrics,
    endpoint: String,
    key: String,
    epoch: Epoch,
}

struct Answer {
    status: StatusCode,
    body: Vec<u8>,
}

impl Agents {
    pub(crate) fn new(metrics: Metrics) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(2))
            // A schema of many tables on a busy disk takes seconds; a minute is a fault.
            .timeout(Duration::from_secs(60))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self { http, metrics })
    }

    pub(crate) fn agent(&self, endpoint: &str, key: String, epoch: Epoch) -> Agent {
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        Agent {
            http: self.http.clone(),
            metrics: self.metrics.clone(),
            endpoint,
            key,
            epoch,
        }
    }
}

impl Agent {
    /// Makes a database with its schema, or nothing at all.
    pub(crate) async fn create(&self, want: &CreateDatabase<'_>) -> Result<Creation, AgentError> {
        let answer = self
            .once("create_database", Method::POST, "/databases", Some(want.body()))
            .await?;
        match answer.status {
            StatusCode::OK | StatusCode::CREATED => Ok(Creation::Made),
            // Either the database exists, or the agent has another epoch; looking tells.
            StatusCode::CONFLICT if self.exists(want.id).await? => Ok(Creation::Existed),
            StatusCode::CONFLICT => Err(self.wrong_epoch(&answer)),
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {
                Err(AgentError::Refused(detail(&answer.body)))
            }
            _ => Err(self.unexpected(&answer)),
        }
    }

    /// Whether a database exists.
    pub(crate) async fn exists(&self, id: &str) -> Result<bool, AgentError> {
        let answer = self
            .repeated("get_database", Method::GET, &format!("/databases/{id}"))
            .await?;
        match answer.status {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.unexpected(&answer)),
        }
    }

    /// Destroys a database.
    pub(crate) async fn delete(&self, id: &str) -> Result<Deletion, AgentError> {
        let answer = self
            .repeated("delete_database", Method::DELETE, &format!("/databases/{id}"))
            .await?;
        match answer.status {
            StatusCode::OK | StatusCode::NO_CONTENT => Ok(Deletion::Done),
            StatusCode::NOT_FOUND => Ok(Deletion::WasAbsent),
            StatusCode::CONFLICT => Err(self.wrong_epoch(&answer)),
            _ => Err(self.unexpected(&answer)),
        }
    }

    /// The tables of a database.
    pub(crate) async fn tables(&self, id: &str) -> Result<Vec<Table>, AgentError> {
        let answer = self
            .repeated("get_schema", Method::GET, &format!("/databases/{id}/schema"))
            .await?;
        match answer.status {
            StatusCode::OK => Ok(self.parse::<SchemaAnswer>(&answer)?.tables),
            _ => Err(self.unexpected(&answer)),
        }
    }

    /// Applies statements: all, or none.
    pub(crate) async fn apply_schema(&self, id: &str, ddl: &str) -> Result<(), AgentError> {
        let body = json!({"type": "ddl", "ddl": ddl});
        let path = format!("/databases/{id}/schema");
        let answer = self.once("apply_schema", Method::POST, &path, Some(body)).await?;
        match answer.status {
            // The contract's first implementation answered 200 to a refusal.
            StatusCode::OK if answer_says_no(&answer.body) => Err(AgentError::Refused(detail(&answer.body))),
            StatusCode::OK => Ok(()),
            StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN | StatusCode::UNPROCESSABLE_ENTITY => {
                Err(AgentError::Refused(detail(&answer.body)))
            }
            StatusCode::CONFLICT if detail(&answer.body).contains("epoch") => Err(self.wrong_epoch(&answer)),
            StatusCode::CONFLICT => Err(AgentError::Refused(detail(&answer.body))),
            _ => Err(self.unexpected(&answer)),
        }
    }

    /// Starts a backup, or finds the one that is under way to the same key; the task's id.
    pub(crate) async fn start_backup(&self, id: &str, key: &str) -> Result<String, AgentError> {
        self.backup("start_backup", id, json!({"destination": {"key": key}}))
            .await
    }

    /// Starts to publish a seed below a key; the task's id. Each call makes a seed of its own.
    pub(crate) async fn start_seed(&self, id: &str, key: &str) -> Result<String, AgentError> {
        let body = json!({"backup_type": "replica", "destination": {"key": key}});
        self.backup("start_seed", id, body).await
    }

    /// The publication below a key that is under way; its task's id.
    pub(crate) async fn publishing(&self, id: &str, key: &str) -> Result<Option<String>, AgentError> {
        let tasks = self.tasks("backup", id).await?;
        Ok(tasks.into_iter().find_map(|task| task.publishing(key)))
    }

    async fn tasks(&self, kind: &str, id: &str) -> Result<Vec<TaskListed>, AgentError> {
        let path = format!("/tasks?task_type={kind}&graph_id={id}&limit=1000");
        let answer = self.repeated("list_tasks", Method::GET, &path).await?;
        match answer.status {
            StatusCode::OK => self.parse(&answer),
            _ => Err(self.unexpected(&answer)),
        }
    }

    async fn backup(&self, call: &'static str, id: &str, body: Value) -> Result<String, AgentError> {
        let path = format!("/databases/{id}/backup");
        let answer = self.once(call, Method::POST, &path, Some(body)).await?;
        match answer.status {
            StatusCode::OK | StatusCode::ACCEPTED => Ok(self.parse::<TaskStarted>(&answer)?.task_id),
            StatusCode::BAD_REQUEST => Err(AgentError::Refused(detail(&answer.body))),
            StatusCode::CONFLICT => Err(self.wrong_epoch(&answer)),
            _ => Err(self.unexpected(&answer)),
        }
    }

    /// What a replica says of the seeds below a key; `None` if it follows others.
    pub(crate) async fn seed(&self, key: &str) -> Result<Option<AgentSeen>, AgentError> {
        let answer = self.once("get_info", Method::GET, "/info", None).await?;
        match answer.status {
            StatusCode::OK => Ok(self.parse::<InfoAnswer>(&answer)?.seed(key)),
            _ => Err(self.unexpected(&answer)),
        }
    }

    /// Has a replica look for newer seeds now, without waiting for what comes of it.
    pub(crate) async fn refresh_seeds(&self) -> Result<(), AgentError> {
        let answer = self
            .repeated("refresh_seeds", Method::POST, "/admin/seed/refresh")
            .await?;
        match answer.status {
            status if status.is_success() => Ok(()),
            _ => Err(self.unexpected(&answer)),
        }
    }

    /// Starts to copy `parent` into `id`, or finds the copy that is under way. `key` says whose it is.
    pub(crate) async fn start_fork(&self, id: &str, parent: &str, key: &str) -> Result<Creation, AgentError> {
        let path = format!("/databases/{id}/fork-from/{parent}");
        let headers = [("Prefer", "respond-async"), ("Idempotency-Key", key)];
        let answer = self
            .once_with("start_fork", Method::POST, &path, &headers, Some(json!({})))
            .await?;
        match answer.status {
            StatusCode::OK | StatusCode::ACCEPTED => Ok(Creation::Made),
            // Either the database exists, with content, or the agent has another epoch; looking tells.
            StatusCode::CONFLICT if self.exists(id).await? => Ok(Creation::Existed),
            StatusCode::CONFLICT => Err(self.wrong_epoch(&answer)),
            _ => Err(self.unexpected(&answer)),
        }
    }

    /// The newest copying into `id` that was started with `key`; `None` when the agent knows of none.
    pub(crate) async fn fork(&self, id: &str, key: &str) -> Result<Option<ForkTask>, AgentError> {
        let tasks = self.tasks("fork", id).await?;
        Ok(tasks.into_iter().find_map(|task| task.fork(key)))
    }

    /// Starts to restore the backup under `key` as the database `id`, or finds the restore that is under way. A database
    /// that exists is left as it is.
    pub(crate) async fn start_restore(&self, id: &str, key: &str) -> Result<RestoreStart, AgentError> {
        let path = format!("/databases/{id}/restore");
        let body = json!({"s3_key": key, "force_overwrite": false, "create_system_backup": false});
        let answer = self.once("start_restore", Method::POST, &path, Some(body)).await?;
        let not_begun = |start| Ok(RestoreStart::NotBegun(start));
        match answer.status {
            StatusCode::OK | StatusCode::ACCEPTED => {
                Ok(RestoreStart::Begun(self.parse::<TaskStarted>(&answer)?.task_id))
            }
            // Either the database exists, or the agent has another epoch; looking tells.
            StatusCode::CONFLICT if self.exists(id).await? => not_begun(Start::Leftover),
            StatusCode::CONFLICT => Err(self.wrong_epoch(&answer)),
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => not_begun(Start::Refused(detail(&answer.body))),
            StatusCode::INSUFFICIENT_STORAGE => not_begun(Start::NoRoom(detail(&answer.body))),
            _ => Err(self.unexpected(&answer)),
        }
    }

    /// The restores to a database that the agent knows of: their tasks, the newest first.
    pub(crate) async fn restores(&self, id: &str) -> Result<Vec<(String, TaskState)>, AgentError> {
        let tasks = self.tasks("restore", id).await?;
        Ok(tasks.into_iter().map(TaskListed::restore).collect())
    }

    /// How many nodes and relationships a database has.
    pub(crate) async fn counts(&self, id: &str) -> Result<Counts, AgentError> {
        let tables = self.tables(id).await?;
        // Without such a table the engine refuses the statement.
        let has = |kind: Kind| tables.iter().any(|table| table.kind == kind);
        let nodes = match has(Kind::Node) {
            true => self.count(id, "MATCH (n) RETURN count(*) AS n").await?,
            false => 0,
        };
        let relationships = match has(Kind::Rel) {
            true => self.count(id, "MATCH ()-[r]->() RETURN count(*) AS n").await?,
            false => 0,
        };
        Ok(Counts { nodes, relationships })
    }

    async fn count(&self, id: &str, cypher: &str) -> Result<i64, AgentError> {
        let path = format!("/databases/{id}/query");
        let answer = self
            .once("count", Method::POST, &path, Some(json!({"cypher": cypher})))
            .await?;
        let StatusCode::OK = answer.status else {
            return Err(self.unexpected(&answer));
        };
        let rows = self.parse::<CountAnswer>(&answer)?.data;
        rows.first().map(|row| row.n).ok_or_else(|| AgentError::Answer {
            endpoint: self.endpoint.clone(),
            message: "a count without a row".to_owned(),
        })
    }

    /// How far a task is; `None` when the agent does not know it.
    pub(crate) async fn task(&self, id: &str) -> Result<Option<TaskState>, AgentError> {
        let answer = self
            .repeated("get_task", Method::GET, &format!("/tasks/{id}/status"))
            .await?;
        match answer.status {
            StatusCode::OK => Ok(Some(self.parse::<TaskAnswer>(&answer)?.into())),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.unexpected(&answer)),
        }
    }

    /// Asks a task to stop; one that has ended or is not known is left alone.
    pub(crate) async fn cancel_task(&self, id: &str) -> Result<(), AgentError> {
        let answer = self
            .repeated("cancel_task", Method::DELETE, &format!("/tasks/{id}"))
            .await?;
        match answer.status {
            status if status.is_success() => Ok(()),
            StatusCode::NOT_FOUND | StatusCode::CONFLICT => Ok(()),
            _ => Err(self.unexpected(&answer)),
        }
    }

    async fn repeated(&self, call: &'static str, method: Method, path: &str) -> Result<Answer, AgentError> {
        let mut attempt = 1;
        loop {
            match self.once(call, method.clone(), path, None).await {
                Err(AgentError::Unreachable { .. }) if attempt < ATTEMPTS => {
                    tokio::time::sleep(PAUSE * attempt).await;
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    /// A call that is made once, except that an agent which refused it for want of its registration is asked again for a
    /// moment.
    async fn once(
        &self,
        call: &'static str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Answer, AgentError> {
        self.once_with(call, method, path, &[], body).await
    }

    /// The same with more headers.
    async fn once_with(
        &self,
        call: &'static str,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Option<Value>,
    ) -> Result<Answer, AgentError> {
        for _ in 0..REGISTERING {
            let answer = self.attempt(call, method.clone(), path, headers, body.clone()).await?;
            if answer.status != StatusCode::SERVICE_UNAVAILABLE || !is_registering(&answer.body) {
                return Ok(answer);
            }
            tokio::time::sleep(REGISTERING_PAUSE).await;
        }
        Err(AgentError::Registering(self.endpoint.clone()))
    }

    async fn attempt(
        &self,
        call: &'static str,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Option<Value>,
    ) -> Result<Answer, AgentError> {
        let started = Instant::now();
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.endpoint))
            .header("X-Graph-API-Key", &self.key)
            .header("X-Graphplane-Epoch", self.epoch.0);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let result = send(request).await.map_err(|error| AgentError::Unreachable {
            endpoint: self.endpoint.clone(),
            // The URL is in the message already, and reqwest's own text hides the cause behind it.
            message: cause(&error.without_url()),
        });
        let outcome = match &result {
            Ok(answer) if answer.status.is_success() => "ok",
            Ok(_) => "refused",
            Err(error) => error.label(),
        };
        self.metrics.called("agent", call, outcome, started.elapsed());
        result
    }

    fn parse<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T, AgentError> {
        serde_json::from_slice(&answer.body).map_err(|error| AgentError::Answer {
            endpoint: self.endpoint.clone(),
            message: error.to_string(),
        })
    }

    fn wrong_epoch(&self, answer: &Answer) -> AgentError {
        AgentError::WrongEpoch {
            endpoint: self.endpoint.clone(),
            message: detail(&answer.body),
        }
    }

    fn unexpected(&self, answer: &Answer) -> AgentError {
        let (endpoint, status) = (self.endpoint.clone(), answer.status.as_u16());
        AgentError::Status {
            endpoint,
            status,
            message: detail(&answer.body),
        }
    }
}

async fn send(request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
    let response = request.send().await?;
    let status = response.status();
    Ok(Answer {
        status,
        body: response.bytes().await?.to_vec(),
    })
}

/// The innermost cause of an error, which says what happened.
fn cause(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

fn answer_says_no(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|v| v.get("success") == Some(&Value::Bool(false)))
}
