//! The two calls that the agent makes to its control plane.

use super::metadata::MachineIdentity;
use crate::config::Settings;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Body of `POST {controlPlane}/v1/nodes/register`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegisterRequest {
    /// Name of the node.
    pub node: String,
    /// Base URL under which the agent can be reached.
    pub address: String,
    /// Identity of the machine.
    pub instance_id: String,
    /// Version of this program.
    pub agent_version: String,
    /// Versions of the engines.
    pub engines: EngineVersions,
    /// What the machine offers.
    pub capacity: Capacity,
    /// Databases on the volume.
    pub databases: Vec<String>,
    /// The epoch that the volume has seen.
    pub volume_epoch: u64,
    /// The proof of the machine, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<MachineIdentity>,
}

/// Versions of the engines that are linked into this program.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EngineVersions {
    /// LadybugDB.
    pub ladybug: String,
    /// Its storage format.
    pub ladybug_storage: String,
    /// DuckDB.
    pub duckdb: String,
}

/// What the machine offers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// Memory of the machine or its cgroup, in MiB.
    #[serde(rename = "memoryMiB")]
    pub memory_mib: u64,
    /// Databases, without subgraphs.
    pub databases: u32,
    /// Size of the volume's file system, in MiB.
    #[serde(rename = "diskMiB")]
    pub disk_mib: u64,
}

/// Answer to a registration.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegisterResponse {
    /// The node's name.
    pub node: String,
    /// Long-lived token; absent when the one in use stays valid.
    #[serde(default)]
    pub credential: Option<String>,
    /// The epoch under which the agent may write.
    pub epoch: u64,
    /// How long the lease lasts.
    pub lease_duration_seconds: u64,
    /// How often to renew it.
    pub renew_interval_seconds: u64,
    /// Key that callers present to the agent.
    pub api_key: String,
    /// `writer`, `shared` or `replica`.
    #[serde(default)]
    pub role: Option<String>,
    /// Figures of the tier.
    #[serde(default)]
    pub settings: Option<Settings>,
}

/// Body of `POST {controlPlane}/v1/nodes/{name}/lease`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseRequest {
    /// The epoch that the agent holds.
    pub epoch: u64,
    /// Base URL under which the agent can be reached.
    pub address: String,
    /// Databases and their sizes.
    pub databases: Vec<DatabaseSize>,
    /// Resident memory of this process, in MiB.
    #[serde(rename = "memoryUsedMiB")]
    pub memory_used_mib: u64,
    /// Used space of the volume, in MiB.
    #[serde(rename = "diskUsedMiB")]
    pub disk_used_mib: u64,
    /// Free space of the volume, in MiB.
    #[serde(rename = "diskFreeMiB")]
    pub disk_free_mib: u64,
    /// Whether the agent refuses writes for want of a lease.
    pub fenced: bool,
    /// Queries that run.
    pub active_queries: u64,
}

/// One database in a renewal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseSize {
    /// Its id.
    pub id: String,
    /// Size of the graph's files, in bytes.
    pub size_bytes: u64,
    /// Size of the staging files, in bytes.
    pub staging_bytes: u64,
    /// Another number after everything that changed the graph, under one epoch.
    pub revision: u64,
}

/// Answer to a renewal.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseResponse {
    /// The epoch under which the agent may write.
    pub epoch: u64,
    /// How long the lease lasts.
    pub lease_duration_seconds: u64,
    /// How often to renew it.
    pub renew_interval_seconds: u64,
    /// Whether the agent should finish what runs and take no new writes.
    #[serde(default)]
    pub draining: bool,
    /// Figures of the tier.
    #[serde(default)]
    pub settings: Option<Settings>,
    /// Token that takes the place of the present one as soon as it is used.
    #[serde(default)]
    pub credential: Option<String>,
}

/// A call that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The token is wrong, was used already, or belongs to another machine.
    #[error("the control plane does not accept the token (401 or 403): {0}")]
    Unauthorized(String),
    /// The control plane does not know this node.
    #[error("the control plane does not know this node (404): {0}")]
    UnknownNode(String),
    /// Another epoch holds.
    #[error("the control plane refused the epoch (409): {0}")]
    Conflict(String),
    /// Another status.
    #[error("the control plane answered {status}: {detail}")]
    Status {
        /// The status code.
        status: u16,
        /// What it said.
        detail: String,
    },
    /// No answer, or not one that can be read.
    #[error("no usable answer from the control plane: {0}")]
    Transport(String),
}

/// A client of the control plane.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    http: reqwest::Client,
}

impl ControlPlane {
    /// A client whose calls take no longer than `timeout`.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(timeout: Duration) -> Result<Self, CallError> {
        reqwest::Client::builder()
            .timeout(timeout)
            .connect_timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map(|http| Self { http })
            .map_err(|error| CallError::Transport(error.to_string()))
    }

    /// Registers the node.
    ///
    /// # Errors
    /// When the control plane refuses or cannot be reached.
    pub async fn register(
        &self,
        base: &str,
        token: &str,
        request: &RegisterRequest,
    ) -> Result<RegisterResponse, CallError> {
        self.call(
            &format!("{}/v1/nodes/register", base.trim_end_matches('/')),
            token,
            request,
        )
        .await
    }

    /// Renews the lease of a node.
    ///
    /// # Errors
    /// When the control plane refuses or cannot be reached.
    pub async fn renew(
        &self,
        base: &str,
        node: &str,
        token: &str,
        request: &LeaseRequest,
    ) -> Result<LeaseResponse, CallError> {
        self.call(
            &format!("{}/v1/nodes/{node}/lease", base.trim_end_matches('/')),
            token,
            request,
        )
        .await
    }

    async fn call<T: serde::de::DeserializeOwned>(
        &self,
        url: &str,
        token: &str,
        body: &impl Serialize,
    ) -> Result<T, CallError> {
        let transport = |error: reqwest::Error| CallError::Transport(error.to_string());
        let response = self
            .http
            .post(url)
            .bearer_auth(token)
            .json(body)
            .send()
            .await
            .map_err(transport)?;
        let status = response.status().as_u16();
        let bytes = response.bytes().await.map_err(transport)?;
        if status == 200 {
            return serde_json::from_slice(&bytes)
                .map_err(|error| CallError::Transport(format!("{url}: unexpected answer: {error}")));
        }
        // Problem documents have a detail; a proxy in between may answer with anything, so it is cut short.
        let text: String = String::from_utf8_lossy(&bytes).chars().take(300).collect();
        let detail = serde_json::from_slice::<serde_json::Value>(&bytes)
            .ok()
            .and_then(|problem| {
                problem
                    .get("detail")
                    .and_then(|detail| detail.as_str())
                    .map(str::to_owned)
            })
            .unwrap_or(text);
        Err(match status {
            401 | 403 => CallError::Unauthorized(detail),
            404 => CallError::UnknownNode(detail),
            409 => CallError::Conflict(detail),
            status => CallError::Status { status, detail },
        })
    }
}
