//! Command line of the agent. Every figure has the environment variable of the existing system beside it, so that an
//! installation can be moved without rewriting its unit files; what the control plane sends at registration wins.

use crate::{config::Settings, tasks::Retention};
use clap::{Parser, ValueEnum};
use graphplane_core::sources::{SourceEndpoint, SourcePlace, SourceRules};
use std::{net::IpAddr, path::PathBuf, time::Duration};

/// What a node may do with its databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Reads and writes.
    Writer,
    /// Reads only: databases are opened read-only and every change is refused with 403.
    Replica,
}

impl Role {
    /// The word of the contract's `node_type`.
    pub fn node_type(self) -> &'static str {
        match self {
            Self::Writer => "writer",
            Self::Replica => "shared_replica",
        }
    }
}

const EXAMPLES: &str = "Examples:
  # alone, on this machine, with a key
  GRAPH_API_KEY=secret graphplane-node-agent --data-dir ./data --port 8001

  # as a node of a control plane: everything else arrives at registration
  graphplane-node-agent --data-dir /mnt/volume --port 0 --config /etc/graphplane/agent.json

Environment: GRAPH_API_KEY (the key that callers present; without one the agent listens on loopback only),
GRAPH_API_KEY_NEXT (a second key that is valid while the first is replaced), AWS_ENDPOINT_URL and the usual AWS variables (object storage), RUST_LOG (overrides --log-level).";

/// Serves LadybugDB graphs with DuckDB staging over HTTP.
#[derive(Clone, Debug, Parser)]
#[command(name = "graphplane-node-agent", version, about, after_help = EXAMPLES)]
pub struct Args {
    /// Directory of this node's volume: databases, staging, tasks, identity.
    #[arg(long, env = "LBUG_DATABASE_PATH", value_name = "DIR")]
    pub data_dir: PathBuf,

    /// TCP port; 0 takes a free one and writes it to `<data-dir>/agent.address`.
    #[arg(long, env = "LBUG_PORT", default_value_t = 8001)]
    pub port: u16,

    /// Address to listen on. Anything but loopback needs a key.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: IpAddr,

    /// Address that the control plane and its gateway use to reach this agent, when it differs from the bound one.
    #[arg(long, value_name = "URL")]
    pub advertise: Option<String>,

    /// File of further keys, one in a line; read again when it changes.
    #[arg(long, env = "GRAPH_API_KEY_FILE", value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,

    /// Requests per second that one key may make on average; 0 for no limit.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub rate_limit: u32,

    /// Requests that one key may make at once; 0 for as many as in one second.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub rate_burst: u32,

    /// Certificates for TLS, in PEM; read again when they change.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of the certificate, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Seconds that a connection may take for a request's head, and be idle between two requests.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    pub head_timeout_seconds: u64,

    /// File with the node's name, its control plane and its one-time token; read again before every attempt.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// What this node may do when no control plane says so.
    #[arg(long, value_enum, default_value = "writer")]
    pub role: Role,

    /// Directory below which `file://` sources of staging tables must lie; without it only `s3://` is accepted. With
    /// `{graph}` in it each graph has one of its own.
    #[arg(long, value_name = "DIR")]
    pub import_dir: Option<PathBuf>,

    /// A place in S3 from which callers may load with this node's credentials, `s3://bucket/folder`; `{graph}` stands for
    /// the graph's id. May be given several times. Without one, requests bring credentials of their own.
    #[arg(
        long = "source",
        env = "GRAPHPLANE_SOURCES",
        value_name = "PLACE",
        value_delimiter = ','
    )]
    pub sources: Vec<SourcePlace>,

    /// An endpoint that requests with credentials of their own may name although its address is not public, such as
    /// `http://minio.internal:9000`. May be given several times.
    #[arg(
        long = "source-endpoint",
        env = "GRAPHPLANE_SOURCE_ENDPOINTS",
        value_name = "URL",
        value_delimiter = ','
    )]
    pub source_endpoints: Vec<SourceEndpoint>,

    /// Where backups go: `file:///directory` or `s3://bucket/prefix`. The control plane's value wins.
    #[arg(long, env = "GRAPHPLANE_OBJECT_STORE", value_name = "URL")]
    pub object_store: Option<String>,

    /// File with the keys for encrypted backups: 32 bytes in base64 per line, the current one first. The
    /// configuration's value wins.
    #[arg(long, env = "GRAPHPLANE_BACKUP_KEY_FILE", value_name = "FILE")]
    pub backup_key_file: Option<PathBuf>,

    /// What a replica serves: the key of a graph's seeds below the object store (`seeds/<graph>`), or of one seed or
    /// backup; may be given several times. The configuration's value wins.
    #[arg(long, env = "GRAPHPLANE_SEEDS", value_name = "KEY", value_delimiter = ',')]
    pub seed: Vec<String>,

    /// Seconds between two looks of a replica for newer seeds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seed_poll_seconds: u64,

    /// Directory of the model that turns texts into vectors: `model.onnx`, `tokenizer.json` and the configuration of
    /// sentence-transformers. The configuration's value wins.
    #[arg(long, env = "GRAPHPLANE_EMBEDDING_MODEL", value_name = "DIR")]
    pub embedding_model: Option<PathBuf>,

    /// Largest number of databases (subgraphs are not counted).
    #[arg(long, env = "LBUG_MAX_DATABASES_PER_NODE", default_value_t = 10)]
    pub max_databases: u32,

    /// Memory that all databases of the node may use together, in MiB.
    #[arg(long, env = "LBUG_MAX_MEMORY_MB", default_value_t = 2048)]
    pub memory_mib: u64,

    /// Buffer pool of one database, in MiB.
    #[arg(long, env = "LBUG_MEMORY_PER_DB_MB", default_value_t = 512)]
    pub memory_per_database_mib: u64,

    /// Memory that the process may use in all, in MiB; 0 for what the machine or its control group has. Statements that
    /// would take it beyond are refused.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub process_memory_mib: u64,

    /// Time limit of one query, in seconds.
    #[arg(long, env = "LBUG_QUERY_TIMEOUT", default_value_t = 30)]
    pub query_timeout_seconds: u64,

    /// Longest query, in characters.
    #[arg(long, env = "LBUG_MAX_QUERY_LENGTH", default_value_t = 10_000)]
    pub max_query_length: usize,

    /// Rows per chunk of a stream.
    #[arg(long, env = "LBUG_CHUNK_SIZE", default_value_t = 1000)]
    pub chunk_rows: usize,

    /// Queries that run at the same time on one database.
    #[arg(long, env = "LBUG_CONNECTION_POOL_SIZE", default_value_t = 10)]
    pub connections_per_database: usize,

    /// Most rows of one JSON answer; a longer result says `truncated`. Streams have no such limit.
    #[arg(long, default_value_t = 10_000)]
    pub row_limit: usize,

    /// Memory that must stay free on the machine (or in its cgroup) for new work to be admitted, in MiB.
    #[arg(long, default_value_t = 64)]
    pub min_available_mib: u64,

    /// How long SIGTERM waits for running requests and tasks before it interrupts them, in seconds.
    #[arg(long, default_value_t = 20)]
    pub drain_seconds: u64,

    /// How long finished tasks are remembered, in hours.
    #[arg(long, env = "GRAPHPLANE_TASK_RETENTION_HOURS", default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=8_784))]
    pub task_retention_hours: u64,

    /// Most finished tasks that are remembered; beyond it the oldest are forgotten.
    #[arg(long, env = "GRAPHPLANE_TASK_RETENTION_COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub task_retention_count: u32,

    /// Threads that serve HTTP; 0 chooses by the number of cores. Engines have threads of their own.
    #[arg(long, default_value_t = 0)]
    pub http_threads: usize,

    /// Level of the log (JSON lines on standard error): error, warn, info, debug or trace.
    #[arg(long, default_value = "info")]
    pub log_level: String,
}

impl Args {
    /// The settings that hold until a control plane sends others.
    pub fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        settings.engine.query_timeout_seconds = self.query_timeout_seconds;
        settings.engine.max_query_length = self.max_query_length;
        settings.engine.chunk_rows = self.chunk_rows;
        settings.engine.connections_per_database = self.connections_per_database;
        settings.memory.node_mib = self.memory_mib;
        settings.memory.per_database_mib = self.memory_per_database_mib;
        settings.databases_per_node = self.max_databases;
        settings
    }

    /// Where sources may lie.
    pub fn source_rules(&self) -> SourceRules {
        SourceRules {
            places: self.sources.clone(),
            endpoints: self.source_endpoints.clone(),
        }
    }

    /// Which finished tasks are remembered.
    pub fn task_retention(&self) -> Retention {
        Retention {
            time: Duration::from_secs(self.task_retention_hours * 3600),
            most: self.task_retention_count as usize,
        }
    }

    /// Threads of the HTTP runtime: one on a machine of two cores, since the engines' threads need the other.
    pub fn resolved_http_threads(&self) -> usize {
        match self.http_threads {
            0 => std::thread::available_parallelism().map_or(1, |n| (n.get() / 2).clamp(1, 8)),
            n => n.min(64),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn figures_of_the_command_line_become_settings() {
        let args = Args::parse_from([
            "agent",
            "--data-dir",
            "/d",
            "--query-timeout-seconds",
            "7",
            "--max-databases",
            "3",
        ]);
        let settings = args.settings();
        assert_eq!(
            (settings.engine.query_timeout_seconds, settings.databases_per_node),
            (7, 3)
        );
        assert!(args.resolved_http_threads() >= 1);
    }

    #[test]
    fn tasks_are_remembered_as_long_as_was_chosen() {
        let parse = |hours: &str, count: &str| {
            let chosen = ["--task-retention-hours", hours, "--task-retention-count", count];
            Args::try_parse_from([&["agent", "--data-dir", "/d"][..], &chosen[..]].concat())
        };
        let chosen = parse("72", "5").unwrap().task_retention();
        assert_eq!((chosen.time.as_secs(), chosen.most), (72 * 3600, 5));
        let usual = Args::parse_from(["agent", "--data-dir", "/d"]);
        assert_eq!(usual.task_retention(), Retention::default());
        assert!(parse("0", "5").is_err() && parse("1", "0").is_err());
    }

    #[test]
    fn places_of_sources_are_checked() {
        let parse = |place| Args::try_parse_from(["agent", "--data-dir", "/d", "--source", place]);
        let args = parse("s3://lake/{graph},s3://open").unwrap();
        assert_eq!(args.source_rules().places.len(), 2);
        let error = parse("lake").unwrap_err().to_string();
        assert!(error.contains("expected s3://bucket/folder"), "{error}");
    }
}
