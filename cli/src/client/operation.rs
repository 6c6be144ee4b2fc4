//! Operations: what the API does after it has answered 202.

use super::{Client, Events};
use crate::failure::{Exit, Failure};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How often a stream of events is opened again after it broke, before the command gives up.
const RECONNECTS: u32 = 20;

/// A change that was asked for, and how far it is.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// Its id.
    pub id: String,
    /// What is done, such as `createGraph`.
    pub operation: String,
    /// How far it is.
    pub status: OperationStatus,
    /// Whether there is nothing more to wait for.
    pub done: bool,
    /// From 0 to 100.
    pub progress_percent: u8,
    /// Why it is not further, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What happens, or what to do, for people.
    pub message: String,
    /// The object that is changed.
    pub resource: OperationResource,
}

/// How far an operation is.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum OperationStatus {
    /// Not seen by the operator yet.
    Pending,
    /// In progress.
    Running,
    /// Done.
    Completed,
    /// It will not be done unless something is changed.
    Failed,
}

/// The object of an operation.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OperationResource {
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Id of its database, once it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

impl Client {
    /// Follows an operation until it is done; `told` hears of each change.
    ///
    /// # Errors
    /// The operation fails; its message says why. The server is lost for longer than a minute.
    pub async fn follow(&self, operation: Operation, mut told: impl FnMut(&Operation)) -> Result<Operation, Failure> {
        let mut current = operation;
        let mut broken = 0;
        while !current.done {
            let outcome = self.follow_once(&mut current, &mut told).await;
            if current.done {
                break;
            }
            // Events are levels, not steps: whoever connects again misses nothing. A server that restarts is back soon.
            broken += 1;
            if broken > RECONNECTS {
                return Err(outcome
                    .err()
                    .unwrap_or_else(|| Failure::plain("the server ends the stream of events again and again")));
            }
            match outcome {
                Err(failure) if !matches!(failure.exit, Exit::Unreachable | Exit::Failure) => return Err(failure),
                _ => tokio::time::sleep(Duration::from_secs(u64::from(broken.min(3)))).await,
            }
        }
        if current.status == OperationStatus::Failed {
            let (kind, name) = (current.resource.kind.to_lowercase(), &current.resource.name);
            return Err(Failure::plain(format!("{kind} {name}: {}", current.message)));
        }
        Ok(current)
    }

    async fn follow_once(&self, current: &mut Operation, told: &mut impl FnMut(&Operation)) -> Result<(), Failure> {
        let request = self.request(Method::GET, &["v1", "operations", &current.id, "events"]);
        let response = self.send(request.header("accept", "text/event-stream")).await?;
        let mut events = Events::new(response.bytes_stream());
        while let Some(event) = events.next().await.map_err(|error| self.transport(&error))? {
            if let Ok(operation) = serde_json::from_str::<Operation>(&event.data) {
                if operation != *current {
                    told(&operation);
                }
                *current = operation;
                if current.done {
                    break;
                }
            }
        }
        Ok(())
    }
}
