//! The command line: what can be typed, and the help that explains it.

mod infra;

pub use infra::{
    DeployArguments, DestroyArguments, DiffArguments, InfraCommand, InfraPart, InfraStack, StackParameter,
};

use crate::duration::parse_duration;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use graphplane_operator::{SourceEndpoint, SourcePlace};
use std::path::PathBuf;
use std::time::Duration;

const AFTER_HELP: &str = "\
Finding the server, in this order:
  --data-dir DIR          the running `graphplane up` of that directory
  --api URL               a REST API, with the key of --api-key-file or GRAPHPLANE_API_KEY
  GRAPHPLANE_API          the same, from the environment
  otherwise               `.graphplane` here or in a parent, else ~/.local/share/graphplane

Exit codes:
  0 done   1 failed   2 wrong usage   3 not found   4 timed out   5 server not reachable
  6 key refused   7 exists already or changed meanwhile   130 interrupted

Examples:
  graphplane up --data-dir .graphplane
  graphplane load airports examples/airports/Airport.parquet examples/airports/Route.parquet
  graphplane query airports 'MATCH (a:Airport) RETURN count(*) AS airports'
  graphplane status";

/// Graph databases as declarative resources: run the control plane, load data, query.
#[derive(Parser, Debug)]
#[command(name = "graphplane", version, after_help = AFTER_HELP, arg_required_else_help = true, max_term_width = 110)]
pub struct Arguments {
    /// Options that every command takes.
    #[command(flatten)]
    pub global: GlobalOptions,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "Global options")]
pub struct GlobalOptions {
    /// Data directory of a `graphplane up`
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// URL of a REST API [env: GRAPHPLANE_API]
    #[arg(long, global = true, value_name = "URL", conflicts_with = "data_dir")]
    pub api: Option<String>,
    /// File that holds the API key; there is no option for the key itself, since command lines are public
    /// [env: GRAPHPLANE_API_KEY]
    #[arg(long, global = true, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Namespace to work in; the key's own if absent
    #[arg(long, short, global = true, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Form of the output
    #[arg(long, short, global = true, value_name = "FORMAT", default_value = "table")]
    pub output: OutputFormat,
    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: ColorChoice,
}

/// Form of the output.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// Comma-separated values with a header line (RFC 4180).
    Csv,
    /// One JSON object per line.
    Ndjson,
}

/// When to use colours.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the whole control plane on this machine until Ctrl-C
    Up(UpArguments),
    /// Load Parquet files into a graph
    Load(LoadArguments),
    /// Run a Cypher statement on a graph
    Query(QueryArguments),
    /// Run an SQL SELECT on the staging tables of a graph
    Sql(SqlArguments),
    /// Show tiers, nodes, graphs and their conditions as a tree
    Status(StatusArguments),
    /// Create a resource
    Create {
        /// What to create.
        #[command(subcommand)]
        what: CreateCommand,
    },
    /// Delete a resource
    Delete {
        /// What to delete.
        #[command(subcommand)]
        what: DeleteCommand,
    },
    /// Back up a graph to the object store
    Backup(BackupArguments),
    /// Work with the tiers of config/graph.yml
    Tiers {
        /// What to do with them.
        #[command(subcommand)]
        what: TiersCommand,
    },
    /// Deploy what an AWS account has once: buckets, registries, network, alarms, the operator's policies
    Infra {
        /// What to do with it.
        #[command(subcommand)]
        what: InfraCommand,
    },
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  graphplane completion bash > ~/.local/share/bash-completion/completions/graphplane"
    )]
    Completion {
        /// The shell.
        shell: Shell,
    },
    /// Print the version
    Version,
}

/// Arguments of `graphplane up`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
While it runs, the data directory holds `kubeconfig`, `api-key` and `endpoints.json`; its state survives a restart.

Examples:
  graphplane up --data-dir .graphplane
  graphplane up --data-dir /tmp/gp --kube-port 0 --api-port 0      # any free ports")]
pub struct UpArguments {
    /// Port of the Kubernetes API; 0 means any free one
    #[arg(long, value_name = "N", default_value_t = 6443)]
    pub kube_port: u16,
    /// Port of the REST API; 0 means any free one
    #[arg(long, value_name = "N", default_value_t = 8000)]
    pub api_port: u16,
    /// The node agent's program; default: `graphplane-node-agent` beside this program, else in PATH
    #[arg(long, value_name = "FILE")]
    pub agent_binary: Option<PathBuf>,
    /// Keys for encrypted backups: 32 bytes in base64 per line, the current one first
    #[arg(long, value_name = "FILE")]
    pub backup_key_file: Option<PathBuf>,
    /// A model that turns texts into vectors, for every node agent that is started from now on
    #[arg(long, value_name = "DIR")]
    pub embedding_model: Option<PathBuf>,
    /// A place in S3, s3://bucket/folder, from which every tenant may load with the credentials of this machine; `{graph}` in it stands for
    /// the graph's id. May be repeated; without one, requests bring credentials of their own
    #[arg(long = "source", value_name = "PLACE")]
    pub sources: Vec<SourcePlace>,
    /// An endpoint that requests with credentials of their own may name although its address is not public. May be
    /// repeated
    #[arg(long = "source-endpoint", value_name = "URL")]
    pub source_endpoints: Vec<SourceEndpoint>,
    /// Machines and disks of AWS instead of processes and directories of this machine, with the settings in this file; see
    /// docs/aws.md
    #[arg(long, value_name = "FILE", conflicts_with_all = ["agent_binary", "backup_key_file", "embedding_model"])]
    pub aws: Option<PathBuf>,
    /// Form of the log on stderr; DIR/graphplane.log is always JSON
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// Form of the log on stderr.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Short lines for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Arguments of `graphplane load`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
A file's name up to its first dot names the table: Airport.parquet and Airport.2.parquet both go
into Airport. A directory stands for the Parquet files in it. Files with the columns `from` and
`to` fill a relationship table, others a node table; node tables are filled first. Loading a file
again replaces its rows in the staging table, and adds nothing twice: nodes whose key the graph has
already are left out, and so are relationships that it has with the same ends and properties.
A dry run looks at the graph as it is: relationships to nodes of the same run count as left out.

Examples:
  graphplane load airports Airport.parquet Route.parquet
  graphplane load airports data/ --create-tables --relationship Route=Airport:Airport
  graphplane load airports Airport.parquet --dry-run
  graphplane load airports Airport.parquet --stage-only")]
pub struct LoadArguments {
    /// Name or id of the graph
    pub graph: String,
    /// Parquet files, or directories of them
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Put every file into this table, whatever its name
    #[arg(long, value_name = "TABLE")]
    pub table: Option<String>,
    /// Create tables that the graph does not have from the columns of their files
    #[arg(long)]
    pub create_tables: bool,
    /// What a relationship table that is to be created connects; may be repeated
    #[arg(long = "relationship", value_name = "TABLE=FROM:TO", value_parser = parse_relationship, requires = "create_tables")]
    pub relationships: Vec<Relationship>,
    /// Fill the staging tables and leave the graph as it is
    #[arg(long)]
    pub stage_only: bool,
    /// Say which rows would be loaded and which left out; nothing is changed
    #[arg(long, conflicts_with = "stage_only")]
    pub dry_run: bool,
    /// Give up after so long, for example 90s, 10m or 2h
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
}

/// What a relationship table connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relationship {
    /// The relationship table.
    pub table: String,
    /// The node table it starts from.
    pub from: String,
    /// The node table it leads to.
    pub to: String,
}

/// Arguments of `graphplane query`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Examples:
  graphplane query airports 'MATCH (a:Airport {iata: $code}) RETURN a.name' --param code=SFO
  graphplane query airports 'MATCH (a:Airport) RETURN a.iata, a.city' -o csv > airports.csv
  graphplane query airports - < statement.cypher
  graphplane query airports 'RETURN $list' --param 'list=[1,2,3]' -o json")]
pub struct QueryArguments {
    /// Name or id of the graph, or id of a subgraph
    pub graph: String,
    /// The statement; `-` reads it from standard input
    pub cypher: String,
    /// A parameter; a value that is JSON keeps its type, any other is text. May be repeated
    #[arg(long = "param", short, value_name = "NAME=VALUE", value_parser = parse_parameter)]
    pub parameters: Vec<Parameter>,
    /// Give up after so long, for example 500ms, 30s or 5m
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
}

/// A parameter of a statement.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Its name, without `$`.
    pub name: String,
    /// Its value.
    pub value: serde_json::Value,
}

/// Arguments of `graphplane sql`.
#[derive(Args, Debug, Clone)]
#[command(
    after_help = "Example:\n  graphplane sql airports 'SELECT state, count(*) FROM Airport GROUP BY state ORDER BY 2 DESC'"
)]
pub struct SqlArguments {
    /// Name or id of the graph
    pub graph: String,
    /// One SELECT; `-` reads it from standard input
    pub sql: String,
    /// Give up after so long, for example 500ms, 30s or 5m
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
}

/// Arguments of `graphplane status`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "Examples:\n  graphplane status\n  graphplane status airports\n  graphplane status -o json")]
pub struct StatusArguments {
    /// Only this graph, by name or id
    pub graph: Option<String>,
    /// Show every condition, not only those that say something is wrong or unfinished
    #[arg(long, short)]
    pub all: bool,
}

/// What to create.
#[derive(Subcommand, Debug)]
pub enum CreateCommand {
    /// Create a graph
    Graph(CreateGraphArguments),
}

/// Arguments of `graphplane create graph`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Examples:
  graphplane create graph airports --tier ladybug-standard --schema-file airports.cypher --wait
  graphplane create graph books                                     # the platform's base tables")]
pub struct CreateGraphArguments {
    /// Name of the graph
    pub name: String,
    /// The class of machine that it runs on
    #[arg(long, default_value = "ladybug-standard")]
    pub tier: String,
    /// File with CREATE NODE TABLE and CREATE REL TABLE statements; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    pub schema_file: Option<PathBuf>,
    /// Disk for the graph, in GiB
    #[arg(long, value_name = "GIB", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub size_gib: Option<u32>,
    /// Name for people
    #[arg(long, value_name = "TEXT")]
    pub display_name: Option<String>,
    /// What happens to the data when the graph is deleted
    #[arg(long, value_name = "POLICY")]
    pub deletion_policy: Option<DeletionPolicyName>,
    /// How to wait.
    #[command(flatten)]
    pub wait: WaitOptions,
}

/// What happens to the data when a graph is deleted.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletionPolicyName {
    /// The database's file stays where it is.
    Retain,
    /// A final backup is complete before the database is destroyed.
    Snapshot,
    /// The database is destroyed.
    Delete,
}

impl DeletionPolicyName {
    /// The name as it stands in manifests.
    pub fn as_manifest(self) -> &'static str {
        match self {
            Self::Retain => "Retain",
            Self::Snapshot => "Snapshot",
            Self::Delete => "Delete",
        }
    }
}

/// What to delete.
#[derive(Subcommand, Debug)]
pub enum DeleteCommand {
    /// Delete a graph; its deletion policy says what becomes of the data
    Graph(DeleteGraphArguments),
}

/// Arguments of `graphplane delete graph`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "Example:\n  graphplane delete graph airports --wait")]
pub struct DeleteGraphArguments {
    /// Name or id of the graph
    pub name: String,
    /// How to wait.
    #[command(flatten)]
    pub wait: WaitOptions,
}

/// Arguments of `graphplane backup`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "Example:\n  graphplane backup airports --wait")]
pub struct BackupArguments {
    /// Name or id of the graph
    pub graph: String,
    /// Name of the backup; made from the graph's name and the time if absent
    #[arg(long)]
    pub name: Option<String>,
    /// Delete the backup after so many days; kept until it is deleted if absent
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub retention_days: Option<u32>,
    /// How to wait.
    #[command(flatten)]
    pub wait: WaitOptions,
}

/// How to wait for the end of an operation.
#[derive(Args, Debug, Clone)]
pub struct WaitOptions {
    /// Return when it is done, not when it is accepted
    #[arg(long)]
    pub wait: bool,
    /// With --wait, give up after so long; the operation itself goes on
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration, requires = "wait")]
    pub timeout: Duration,
}

/// What to do with the tiers of `config/graph.yml`.
#[derive(Subcommand, Debug)]
pub enum TiersCommand {
    /// Print the Tier manifests of an environment
    #[command(after_help = "\
Examples:
  graphplane tiers render --environment production | kubectl apply -f -
  graphplane tiers render --config config/graph.yml --environment staging --output-dir out/")]
    Render(RenderArguments),
    /// Check a configuration file and say everything that is wrong with it
    Check(CheckArguments),
}

/// Arguments of `graphplane tiers render`.
#[derive(Args, Debug, Clone)]
pub struct RenderArguments {
    /// The configuration; default: the one this program was built with
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The environment
    #[arg(long, short, value_name = "NAME", default_value = "development")]
    pub environment: String,
    /// Write one file per tier into this directory, not to standard output
    #[arg(long, value_name = "DIR")]
    pub output_dir: Option<PathBuf>,
    /// Render tiers with `enabled: false` too
    #[arg(long)]
    pub all: bool,
}

/// Arguments of `graphplane tiers check`.
#[derive(Args, Debug, Clone)]
pub struct CheckArguments {
    /// The configuration
    #[arg(value_name = "FILE")]
    pub config: PathBuf,
}

fn parse_relationship(text: &str) -> Result<Relationship, String> {
    let parts = text
        .split_once('=')
        .and_then(|(table, ends)| Some((table, ends.split_once(':')?)));
    match parts {
        Some((table, (from, to))) if [table, from, to].iter().all(|name| !name.is_empty()) => Ok(Relationship {
            table: table.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
        }),
        _ => Err("expected TABLE=FROM:TO, for example Route=Airport:Airport".to_owned()),
    }
}

fn parse_parameter(text: &str) -> Result<Parameter, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
            Ok(Parameter {
                name: name.trim_start_matches('$').to_owned(),
                value,
            })
        }
        _ => Err("expected NAME=VALUE, for example code=SFO".to_owned()),
    }
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
