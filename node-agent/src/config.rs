//! Configuration of the agent: the file that the provider writes, and the settings that travel in registration answers.

use graphplane_core::sources::SourceRules;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the agent's configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what an agent expects.
    #[error("the agent's configuration {path} is not valid: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
}

/// The file of `--config`. The provider rewrites it atomically; the agent reads it again before every attempt to
/// register or renew, because the control plane's port may change when it restarts.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeConfig {
    /// Name of the `GraphNode`.
    pub node: String,
    /// Identity of the cluster that owns the node.
    #[serde(default)]
    pub cluster_id: String,
    /// Base URL of the control plane's API.
    pub control_plane: String,
    /// One-time token of the first registration.
    #[serde(default)]
    pub bootstrap_token: String,
    /// Root of the object store for backups.
    #[serde(default)]
    pub object_store: Option<String>,
    /// File with the keys for encrypted backups.
    #[serde(default)]
    pub backup_key_file: Option<PathBuf>,
    /// The seeds that a replica follows: keys below the object store.
    #[serde(default)]
    pub seeds: Vec<String>,
    /// Where sources may lie, as `sources` and `sourceEndpoints`; beside what the command line says.
    #[serde(flatten)]
    pub sources: SourceRules,
    /// Directory of the model that turns texts into vectors.
    #[serde(default)]
    pub embedding_model: Option<PathBuf>,
    /// Identity of the machine; `local-<node>` when absent.
    #[serde(default)]
    pub instance_id: Option<String>,
    /// Who proves to the control plane which machine this is; nobody when absent.
    #[serde(default)]
    pub identity: Option<IdentitySource>,
}

/// Who proves which machine an agent runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdentitySource {
    /// The metadata service of a machine on AWS.
    Aws,
}

// The token must never reach a log, so Debug is written by hand.
impl std::fmt::Debug for NodeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeConfig")
            .field("node", &self.node)
            .field("control_plane", &self.control_plane)
            .finish()
    }
}

impl NodeConfig {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read or is not a valid configuration.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        serde_json::from_slice(&text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source,
        })
    }
}

/// Figures of the tier, as registration and lease answers carry them. Applied live, except the memory of databases that
/// are open already: a buffer pool is fixed for the life of a handle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    /// Limits of queries.
    pub engine: EngineSettings,
    /// Memory of the node and of one database.
    pub memory: MemorySettings,
    /// Largest number of databases; subgraphs are not counted.
    pub databases_per_node: u32,
    /// Limits of loading files.
    pub copy: CopySettings,
}

/// Limits of queries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EngineSettings {
    /// Time limit of one query, in seconds.
    pub query_timeout_seconds: u64,
    /// Longest query, in characters.
    pub max_query_length: usize,
    /// Rows per chunk of a stream.
    pub chunk_rows: usize,
    /// Queries that run at the same time on one database.
    pub connections_per_database: usize,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            query_timeout_seconds: 30,
            max_query_length: 10_000,
            chunk_rows: 1000,
            connections_per_database: 10,
        }
    }
}

/// Memory of the node and of one database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemorySettings {
    /// All databases together, in MiB.
    #[serde(rename = "nodeMiB")]
    pub node_mib: u64,
    /// Buffer pool of one database, in MiB.
    #[serde(rename = "perDatabaseMiB")]
    pub per_database_mib: u64,
}

impl Default for MemorySettings {
    fn default() -> Self {
        Self {
            node_mib: 2048,
            per_database_mib: 512,
        }
    }
}

/// Limits of loading files; -1 is unlimited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CopySettings {
    /// Largest file, in GiB.
    #[serde(rename = "maxFileSizeGiB")]
    pub max_file_size_gib: i64,
    /// Time limit of one load, in seconds.
    pub timeout_seconds: i64,
    /// Loads of one graph that run at the same time.
    pub concurrent: i64,
    /// Files of one request.
    pub max_files: i64,
    /// Loads into one graph per day (UTC).
    pub per_day: i64,
}

impl Default for CopySettings {
    fn default() -> Self {
        Self {
            max_file_size_gib: 1,
            timeout_seconds: 300,
            concurrent: 1,
            max_files: 100,
            per_day: -1,
        }
    }
}

impl CopySettings {
    /// Largest file in bytes; `None` is unlimited.
    pub fn max_file_bytes(&self) -> Option<u64> {
        u64::try_from(self.max_file_size_gib)
            .ok()
            .map(|gib| gib.saturating_mul(1 << 30))
    }

    /// Time limit of one load; `None` is unlimited.
    pub fn timeout(&self) -> Option<Duration> {
        u64::try_from(self.timeout_seconds).ok().map(Duration::from_secs)
    }

    /// Loads at the same time, at least one.
    pub fn concurrent_loads(&self) -> usize {
        usize::try_from(self.concurrent).map_or(16, |n| n.clamp(1, 16))
    }

    /// Loads into one graph per day; `None` is unlimited.
    pub fn loads_per_day(&self) -> Option<u64> {
        u64::try_from(self.per_day).ok()
    }

    /// Files of one request.
    pub fn file_limit(&self) -> usize {
        usize::try_from(self.max_files).unwrap_or(usize::MAX)
    }
}

impl Settings {
    /// Time limit of one query, at least one second.
    pub fn query_timeout(&self) -> Duration {
        Duration::from_secs(self.engine.query_timeout_seconds.max(1))
    }

    /// Largest body of a query request: ten times the longest query, as the contract has it.
    pub fn query_body_limit(&self) -> usize {
        self.engine.max_query_length.saturating_mul(10).max(1024)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn settings_have_the_names_of_the_registration_answer() {
        let settings: Settings = serde_json::from_str(
            r#"{"engine":{"queryTimeoutSeconds":5,"maxQueryLength":20,"chunkRows":3,"connectionsPerDatabase":2},
                "memory":{"nodeMiB":100,"perDatabaseMiB":10},"databasesPerNode":4,
                "copy":{"maxFileSizeGiB":-1,"timeoutSeconds":-1,"concurrent":-1,"maxFiles":-1,"perDay":10},"later":1}"#,
        )
        .unwrap();
        assert_eq!(settings.engine.query_timeout_seconds, 5);
        assert_eq!((settings.memory.node_mib, settings.memory.per_database_mib), (100, 10));
        assert_eq!(settings.databases_per_node, 4);
        assert_eq!((settings.copy.max_file_bytes(), settings.copy.timeout()), (None, None));
        assert_eq!(settings.copy.file_limit(), usize::MAX);
        assert_eq!(settings.query_body_limit(), 1024);
        assert!(
            serde_json::to_string(&settings)
                .unwrap()
                .contains("\"maxFileSizeGiB\":-1")
        );
    }

    #[test]
    fn a_wrong_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.json");
        assert!(NodeConfig::read(&path).unwrap_err().to_string().contains("agent.json"));
        std::fs::write(&path, r#"{"node":"n1"}"#).unwrap();
        let error = NodeConfig::read(&path).unwrap_err().to_string();
        assert!(error.contains("controlPlane"), "{error}");
        std::fs::write(
            &path,
            r#"{"node":"n1","controlPlane":"http://127.0.0.1:1","bootstrapToken":"t0ken"}"#,
        )
        .unwrap();
        assert!(!format!("{:?}", NodeConfig::read(&path).unwrap()).contains("t0ken"));
        std::fs::write(
            &path,
            r#"{"node":"n1","controlPlane":"http://127.0.0.1:1","sources":["lake"]}"#,
        )
        .unwrap();
        let error = NodeConfig::read(&path).unwrap_err().to_string();
        assert!(error.contains("expected s3://bucket/folder"), "{error}");
    }
}
