//! What `config/graph.yml` holds.
//!
//! Figures that mean the same as a field of [`TierSpec`](crate::tier::TierSpec) use its types, so that a range is
//! written once.

use crate::quantities::{GiB, Limit, MiB};
use crate::tier::{Architecture, BackupLimits, CopyLimits, Engine, GraphLimits, Rollout, TierRole, TierStorage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The whole file: what each environment offers.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// What customers use.
    pub production: EnvironmentConfig,
    /// Where releases are tried; customers' limits, smaller machines.
    pub staging: EnvironmentConfig,
    /// A laptop, and `make up`.
    pub development: EnvironmentConfig,
}

impl Config {
    /// What an environment offers.
    pub fn environment(&self, environment: Environment) -> &EnvironmentConfig {
        match environment {
            Environment::Production => &self.production,
            Environment::Staging => &self.staging,
            Environment::Development => &self.development,
        }
    }
}

/// Name of an environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Environment {
    /// What customers use.
    Production,
    /// Where releases are tried.
    Staging,
    /// A laptop, and `make up`.
    Development,
}

impl Environment {
    /// All of them, in the order of the file.
    pub const ALL: [Self; 3] = [Self::Production, Self::Staging, Self::Development];

    /// The name as it stands in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Staging => "staging",
            Self::Development => "development",
        }
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Environment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|environment| environment.as_str() == text)
            .ok_or_else(|| {
                format!("there is no environment `{text}`; expected one of production, staging, development")
            })
    }
}

/// What one environment offers.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvironmentConfig {
    /// Classes of machine.
    #[schemars(length(max = 64))]
    pub tiers: Vec<TierConfig>,
    /// Read fleets of the shared repositories.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub replicas: Vec<ReplicaFleet>,
}

/// One class of machine; it is rendered into one [`Tier`](crate::Tier).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TierConfig {
    /// Name of the Tier.
    #[schemars(length(max = 40), regex(pattern = r"^[a-z]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// Name shown to customers.
    #[schemars(length(min = 1, max = 64))]
    pub display_name: String,
    /// What the tier is, for people.
    #[schemars(length(min = 1, max = 1024))]
    pub description: String,
    /// Whether it is offered. A tier that is not enabled is not rendered unless asked for.
    pub enabled: bool,
    /// What kind of node serves it.
    pub role: TierRole,
    /// Which machines it runs on.
    pub instance: Machine,
    /// Databases of one node, subgraphs not counted; 1 is a dedicated machine.
    #[schemars(range(min = 1, max = 10000))]
    pub databases_per_node: u32,
    /// Subgraphs of one graph; -1 is unlimited.
    pub max_subgraphs: Limit,
    /// Factor on the API's rate limits; absent where the platform itself is the only caller.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub api_rate_multiplier: Option<f64>,
    /// How memory is shared out.
    pub memory: MemoryFigures,
    /// The staging database; absent: the node agent's own choice.
    #[serde(default)]
    pub staging: Option<StagingFigures>,
    /// Settings that node agents apply live.
    pub engine: Engine,
    /// Limits of loading data.
    pub copy: CopyLimits,
    /// Limits of backups.
    pub backup: BackupLimits,
    /// Limits of one graph's content; absent: not limited.
    #[serde(default)]
    pub limits: Option<GraphLimits>,
    /// Defaults of new volumes.
    pub storage: TierStorage,
    /// How many nodes there may be.
    pub scaling: FleetScaling,
    /// How nodes are replaced; absent: one canary, then one at a time.
    #[serde(default)]
    pub rollout: Option<Rollout>,
    /// Shared repositories that live on the tier.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(max = 32), regex(pattern = r"^[a-z][a-z0-9]{1,31}$")))]
    pub shared_repositories: Vec<String>,
}

/// Which machines a tier runs on.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Machine {
    /// Instance types in order of preference.
    #[schemars(
        length(max = 16),
        inner(length(max = 32), regex(pattern = r"^[a-z0-9-]+\.[a-z0-9-]+$"))
    )]
    pub types: Vec<String>,
    /// Their processor architecture.
    pub architecture: Architecture,
    /// Their memory; figures of `memory` and `staging` are checked against it.
    #[serde(rename = "ramGiB")]
    #[schemars(range(min = 1, max = 24576))]
    pub ram_gib: GiB,
    /// Their processors.
    #[schemars(range(min = 1, max = 1024))]
    pub vcpus: u32,
}

/// How memory of a node is shared out.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MemoryFigures {
    /// Memory that the databases of a node may use together.
    #[serde(rename = "nodeMiB")]
    #[schemars(range(min = 256, max = 25_165_824))]
    pub node_mib: MiB,
    /// Buffer pool of one database.
    #[serde(rename = "perDatabaseMiB")]
    #[schemars(range(min = 16, max = 25_165_824))]
    pub per_database_mib: MiB,
    /// Buffer pool of one subgraph; absent: that of a database.
    #[serde(default, rename = "perSubgraphMiB")]
    pub per_subgraph_mib: Option<MiB>,
    /// Memory of a node to which it returns after a bulk load.
    #[serde(default, rename = "baselineMiB")]
    pub baseline_mib: Option<MiB>,
    /// Pool that a database may be raised to for a bulk load.
    #[serde(default, rename = "maxBoostMiB")]
    pub max_boost_mib: Option<MiB>,
}

/// The staging database of a graph.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StagingFigures {
    /// Its memory limit.
    #[serde(rename = "memoryMiB")]
    #[schemars(range(min = 64, max = 25_165_824))]
    pub memory_mib: MiB,
    /// Memory limit that it may be raised to for a bulk load.
    #[serde(default, rename = "maxBoostMiB")]
    pub max_boost_mib: Option<MiB>,
    /// Its threads.
    #[schemars(range(min = 1, max = 256))]
    pub threads: u32,
}

/// How many nodes there may be.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FleetScaling {
    /// So many are kept even when empty.
    #[schemars(range(min = 0, max = 1000))]
    pub min_nodes: u32,
    /// Never more than so many.
    #[schemars(range(min = 0, max = 1000))]
    pub max_nodes: u32,
    /// An empty node beyond `minNodes` is removed after so many seconds; absent: the Tier's default.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86400))]
    pub consolidate_after_seconds: Option<u32>,
}

/// A read fleet: the defaults with which a [`Replica`](crate::Replica) of a shared repository is made.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReplicaFleet {
    /// Name of the fleet.
    #[schemars(length(max = 40), regex(pattern = r"^[a-z]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// What the fleet is, for people.
    #[schemars(length(min = 1, max = 1024))]
    pub description: String,
    /// Whether it runs; it needs a published seed first.
    pub enabled: bool,
    /// The shared tier whose repositories it serves; it must be in the same environment.
    #[schemars(length(max = 40))]
    pub tier: String,
    /// Which machines it runs on.
    pub instance: Machine,
    /// How memory is shared out; absent: as in the tier.
    #[serde(default)]
    pub memory: Option<ReplicaMemory>,
    /// Subgraphs that a replica serves beside its repository; -1 is unlimited.
    pub max_subgraphs: Limit,
    /// How many replicas run.
    pub size: FleetSize,
    /// When the fleet grows and shrinks.
    pub scaling: LoadScaling,
    /// When a replica is in service.
    pub health_check: HealthCheck,
}

/// How memory of a replica is shared out.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReplicaMemory {
    /// Memory that the databases of a replica may use together.
    #[serde(rename = "nodeMiB")]
    #[schemars(range(min = 256, max = 25_165_824))]
    pub node_mib: MiB,
    /// Buffer pool of one database.
    #[serde(rename = "perDatabaseMiB")]
    #[schemars(range(min = 16, max = 25_165_824))]
    pub per_database_mib: MiB,
}

/// How many replicas run.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FleetSize {
    /// Autoscaling never goes below.
    #[schemars(range(min = 0, max = 1000))]
    pub min: u32,
    /// Autoscaling never goes above.
    #[schemars(range(min = 0, max = 1000))]
    pub max: u32,
    /// So many at first.
    #[schemars(range(min = 0, max = 1000))]
    pub desired: u32,
}

/// When a fleet grows and shrinks.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoadScaling {
    /// Average processor load that autoscaling aims at, in percent.
    #[schemars(range(min = 1, max = 100))]
    pub target_cpu_percent: u32,
    /// After a step down, so many seconds pass before the next.
    #[schemars(range(min = 0, max = 86400))]
    pub scale_in_cooldown_seconds: u32,
    /// After a step up, so many seconds pass before the next.
    #[schemars(range(min = 0, max = 86400))]
    pub scale_out_cooldown_seconds: u32,
}

/// When a replica is in service.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthCheck {
    /// Path that is asked for.
    #[schemars(length(max = 255), regex(pattern = r"^/[A-Za-z0-9/_-]*$"))]
    pub path: String,
    /// Seconds between two checks.
    #[schemars(range(min = 1, max = 3600))]
    pub interval_seconds: u32,
    /// A check fails after so many seconds without an answer.
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_seconds: u32,
    /// In service after so many good checks in a row.
    #[schemars(range(min = 1, max = 100))]
    pub healthy_threshold: u32,
    /// Out of service after so many failed checks in a row.
    #[schemars(range(min = 1, max = 100))]
    pub unhealthy_threshold: u32,
}
