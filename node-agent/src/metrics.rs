//! Prometheus metrics of the agent, at `GET /metrics`.
//!
//! | series | type | labels | meaning |
//! |---|---|---|---|
//! | `graphplane_agent_requests_total` | counter | `operation`, `code` | requests answered, by route and class of status (`2xx`, `4xx`, …) |
//! | `graphplane_agent_request_duration_seconds` | histogram | `operation` | from the request's head to the head of its answer; a stream's rows follow after that |
//! | `graphplane_agent_queue_wait_seconds` | histogram | | time a query waited for an engine thread |
//! | `graphplane_agent_rows_sent_total` | counter | `engine` | rows sent to clients (`ladybug`, `duckdb`) |
//! | `graphplane_agent_truncated_results_total` | counter | | answers that a row or byte limit cut |
//! | `graphplane_agent_rejected_total` | counter | `reason` | requests refused to protect the node: `memory`, `queue`, `fenced`, `registering`, `draining`, `epoch`, `locked`, `disk`, `downloads`, `copy_per_day`, `embeddings`, `rate` |
//! | `graphplane_agent_auth_failures_total` | counter | | requests with a missing or wrong key |
//! | `graphplane_agent_staged_rows_total` | counter | | rows loaded into staging tables |
//! | `graphplane_agent_materialized_rows_total` | counter | | rows moved from staging into graphs |
//! | `graphplane_agent_backup_bytes_total` | counter | | compressed bytes of finished backups |
//! | `graphplane_agent_seed_looks_total` | counter | `seed`, `outcome` | looks of a replica for a newer seed: `current`, `swapped`, `refused`, `failed` |
//! | `graphplane_agent_seed_state` | gauge | `seed`, `state` | 1 for the present state: `waiting`, `fetching`, `ready`, `refreshing` |
//! | `graphplane_agent_seed_epoch` | gauge | `seed` | epoch of the seed that is served |
//! | `graphplane_agent_seed_version` | gauge | `seed` | its number within the epoch |
//! | `graphplane_agent_seed_age_seconds` | gauge | `seed` | time since it was begun: what was written later is not in it |
//! | `graphplane_agent_seed_size_bytes` | gauge | `seed` | its files on this node |
//! | `graphplane_agent_state` | gauge | `state` | 1 for the present standing: `standalone`, `registering`, `active`, `fenced`, `draining` |
//! | `graphplane_agent_epoch` | gauge | | highest epoch that the volume has seen |
//! | `graphplane_agent_lease_remaining_seconds` | gauge | | time until the lease ends; 0 without one |
//! | `graphplane_agent_task_duration_seconds` | histogram | `task_type`, `status` | a task's time at work, by what it did and how it ended (`completed`, `failed`, `cancelled`); what waits for a task is answered when it ends, and most are not waited for |
//! | `graphplane_agent_tasks` | gauge | `status` | tasks that are remembered |
//! | `graphplane_agent_databases` | gauge | `state` | databases on the volume: `all`, `open`, `staging_open` |
//! | `graphplane_agent_active_queries` | gauge | `engine` | what runs: statements of `ladybug`, queries and changes of staging tables (`duckdb`), searches (`lance`) |
//! | `graphplane_agent_database_size_bytes` | gauge | `database`, `kind` | files of one database: `graph`, `staging`, `vectors` |
//! | `graphplane_agent_buffer_pool_bytes` | gauge | `kind` | buffer pools `reserved` by open databases, and the node's `budget` |
//! | `graphplane_agent_memory_bytes` | gauge | `kind` | `resident` of this process, `available` on the machine or in its cgroup |
//! | `graphplane_agent_disk_bytes` | gauge | `kind` | the volume: `size` of its file system, `used` by its files, `free` |
//! | `graphplane_agent_uptime_seconds` | gauge | | age of the process |
//! | `graphplane_agent_build_info` | gauge | `version`, `ladybug`, `duckdb` | always 1 |

mod seeds;

pub use seeds::{SeedLabel, SeedMetrics, SeedOutcome, SeedStateLabels};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};
use std::sync::atomic::AtomicU64;

/// Labels of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The route, e.g. `query`.
    pub operation: &'static str,
    /// Class of the status, e.g. `2xx`.
    pub code: &'static str,
}

/// One label `operation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Operation {
    /// The route, e.g. `query`.
    pub operation: &'static str,
}

/// One label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// Why.
    pub reason: &'static str,
}

/// One label `engine`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EngineLabel {
    /// `ladybug`, `duckdb` or `lance`.
    pub engine: &'static str,
}

/// One label `state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StateLabel {
    /// The state.
    pub state: &'static str,
}

/// One label `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StatusLabel {
    /// The status.
    pub status: &'static str,
}

/// Labels of one task that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TaskLabels {
    /// What it did, e.g. `backup`.
    pub task_type: &'static str,
    /// How it ended.
    pub status: &'static str,
}

/// One label `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    /// Which of several sizes.
    pub kind: &'static str,
}

/// Labels of one database's size.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DatabaseLabels {
    /// Its id.
    pub database: String,
    /// `graph` or `staging`.
    pub kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
    ladybug: String,
    duckdb: String,
}

/// A histogram for each set of labels.
pub type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Every metric of the agent. Counting is lock-free or a short read lock, so it is done on the hot path.
pub struct Metrics {
    registry: Registry,
    /// Requests answered.
    pub requests: Family<RequestLabels, Counter>,
    /// Time to the head of the answer.
    pub request_duration: Histograms<Operation>,
    /// Time that tasks worked.
    pub task_duration: Histograms<TaskLabels>,
    /// Time that queries waited for a thread.
    pub queue_wait: Histogram,
    /// Rows sent to clients.
    pub rows_sent: Family<EngineLabel, Counter>,
    /// Answers that a limit cut.
    pub truncated: Counter,
    /// Requests refused to protect the node.
    pub rejected: Family<Reason, Counter>,
    /// Missing or wrong keys.
    pub auth_failures: Counter,
    /// Rows loaded into staging.
    pub staged_rows: Counter,
    /// Rows moved into graphs.
    pub materialized_rows: Counter,
    /// Compressed bytes of backups.
    pub backup_bytes: Counter,
    /// The seeds of a replica.
    pub seeds: SeedMetrics,
    /// The present standing.
    pub state: Family<StateLabel, Gauge>,
    /// Highest epoch of the volume.
    pub epoch: Gauge,
    /// Time until the lease ends.
    pub lease_remaining: Gauge<f64, AtomicU64>,
    /// Tasks by status.
    pub tasks: Family<StatusLabel, Gauge>,
    /// Databases by state.
    pub databases: Family<StateLabel, Gauge>,
    /// Statements and searches that run.
    pub active_queries: Family<EngineLabel, Gauge>,
    /// Files of databases.
    pub database_size: Family<DatabaseLabels, Gauge>,
    /// Buffer pools.
    pub buffer_pool: Family<Kind, Gauge>,
    /// Memory.
    pub memory: Family<Kind, Gauge>,
    /// The volume's file system.
    pub disk: Family<Kind, Gauge>,
    /// Age of the process.
    pub uptime: Gauge<f64, AtomicU64>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

// From half a millisecond (a point query) to five minutes (a load).
const DURATIONS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0,
];

fn durations() -> Histogram {
    Histogram::new(DURATIONS)
}

// From a small staging table to the longest load that a tier allows.
const TASK_DURATIONS: [f64; 11] = [0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0];

fn task_durations() -> Histogram {
    Histogram::new(TASK_DURATIONS)
}

impl Metrics {
    /// All metrics, registered under `graphplane_agent_`.
    pub fn new(ladybug_version: &str, duckdb_version: &str) -> Self {
        let mut registry = Registry::with_prefix("graphplane_agent");
        let metrics = Self {
            requests: Family::default(),
            request_duration: Family::new_with_constructor(durations as fn() -> Histogram),
            task_duration: Family::new_with_constructor(task_durations as fn() -> Histogram),
            queue_wait: durations(),
            rows_sent: Family::default(),
            truncated: Counter::default(),
            rejected: Family::default(),
            auth_failures: Counter::default(),
            staged_rows: Counter::default(),
            materialized_rows: Counter::default(),
            backup_bytes: Counter::default(),
            seeds: SeedMetrics::register(&mut registry),
            state: Family::default(),
            epoch: Gauge::default(),
            lease_remaining: Gauge::default(),
            tasks: Family::default(),
            databases: Family::default(),
            active_queries: Family::default(),
            database_size: Family::default(),
            buffer_pool: Family::default(),
            memory: Family::default(),
            disk: Family::default(),
            uptime: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register("requests", "Requests answered", metrics.requests.clone());
        registry.register_with_unit(
            "request_duration",
            "From the request's head to the head of its answer",
            Unit::Seconds,
            metrics.request_duration.clone(),
        );
        registry.register_with_unit(
            "task_duration",
            "Time of a task at work, by how it ended",
            Unit::Seconds,
            metrics.task_duration.clone(),
        );
        registry.register_with_unit(
            "queue_wait",
            "Time a query waited for an engine thread",
            Unit::Seconds,
            metrics.queue_wait.clone(),
        );
        registry.register("rows_sent", "Rows sent to clients", metrics.rows_sent.clone());
        registry.register(
            "truncated_results",
            "Answers that a limit cut",
            metrics.truncated.clone(),
        );
        registry.register(
            "rejected",
            "Requests refused to protect the node",
            metrics.rejected.clone(),
        );
        registry.register(
            "auth_failures",
            "Requests with a missing or wrong key",
            metrics.auth_failures.clone(),
        );
        registry.register(
            "staged_rows",
            "Rows loaded into staging tables",
            metrics.staged_rows.clone(),
        );
        registry.register(
            "materialized_rows",
            "Rows moved from staging into graphs",
            metrics.materialized_rows.clone(),
        );
        registry.register_with_unit(
            "backup",
            "Compressed size of finished backups",
            Unit::Bytes,
            metrics.backup_bytes.clone(),
        );
        registry.register("state", "1 for the present standing", metrics.state.clone());
        registry.register("epoch", "Highest epoch that the volume has seen", metrics.epoch.clone());
        registry.register_with_unit(
            "lease_remaining",
            "Time until the lease ends",
            Unit::Seconds,
            metrics.lease_remaining.clone(),
        );
        registry.register("tasks", "Tasks that are remembered", metrics.tasks.clone());
        registry.register("databases", "Databases on the volume", metrics.databases.clone());
        registry.register(
            "active_queries",
            "Statements and searches that run",
            metrics.active_queries.clone(),
        );
        registry.register_with_unit(
            "database_size",
            "Files of one database",
            Unit::Bytes,
            metrics.database_size.clone(),
        );
        registry.register_with_unit(
            "buffer_pool",
            "Buffer pools of databases",
            Unit::Bytes,
            metrics.buffer_pool.clone(),
        );
        registry.register_with_unit(
            "memory",
            "Memory of the process and the machine",
            Unit::Bytes,
            metrics.memory.clone(),
        );
        registry.register_with_unit("disk", "File system of the volume", Unit::Bytes, metrics.disk.clone());
        registry.register_with_unit("uptime", "Age of the process", Unit::Seconds, metrics.uptime.clone());
        registry.register(
            "build",
            "Versions of this program and of its engines",
            Info::new(BuildLabels {
                version: env!("CARGO_PKG_VERSION"),
                ladybug: ladybug_version.to_owned(),
                duckdb: duckdb_version.to_owned(),
            }),
        );
        Self { registry, ..metrics }
    }

    /// The text exposition of every metric.
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(16 << 10);
        // Writing to a string cannot fail; a partial text would only lose series.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// The class of a status code as a label.
pub fn status_class(status: u16) -> &'static str {
    match status {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds::{SeedStatus, SeedVersion, ServedSeed};

    #[test]
    fn every_documented_series_is_exposed() {
        let metrics = Metrics::new("0.22.1", "1.5.6");
        metrics
            .requests
            .get_or_create(&RequestLabels {
                operation: "query",
                code: status_class(200),
            })
            .inc();
        metrics
            .request_duration
            .get_or_create(&Operation { operation: "query" })
            .observe(0.002);
        metrics.rejected.get_or_create(&Reason { reason: "fenced" }).inc();
        metrics
            .task_duration
            .get_or_create(&TaskLabels {
                task_type: "backup",
                status: "completed",
            })
            .observe(2.5);
        metrics
            .rows_sent
            .get_or_create(&EngineLabel { engine: "ladybug" })
            .inc_by(3);
        metrics
            .active_queries
            .get_or_create(&EngineLabel { engine: "duckdb" })
            .set(2);
        metrics.state.get_or_create(&StateLabel { state: "active" }).set(1);
        metrics.tasks.get_or_create(&StatusLabel { status: "running" }).set(1);
        metrics.databases.get_or_create(&StateLabel { state: "all" }).set(1);
        metrics
            .database_size
            .get_or_create(&DatabaseLabels {
                database: "kg1".into(),
                kind: "graph",
            })
            .set(4096);
        metrics
            .seeds
            .looks
            .get_or_create(&SeedOutcome {
                seed: "seeds/kg1".into(),
                outcome: "current",
            })
            .inc();
        metrics.seeds.set(&[SeedStatus {
            seed: "seeds/kg1".into(),
            served: Some(ServedSeed {
                at: SeedVersion { epoch: 1, version: 2 },
                created_at: "2026-01-01T00:00:00.000Z".into(),
                size_bytes: 4096,
                node_count: 1,
                relationship_count: 0,
            }),
            ..SeedStatus::default()
        }]);
        for family in [&metrics.buffer_pool, &metrics.memory, &metrics.disk] {
            family.get_or_create(&Kind { kind: "free" }).set(1);
        }
        let text = metrics.encode();
        let documented = include_str!("metrics.rs").lines().filter_map(|line| {
            line.strip_prefix("//! | `")
                .and_then(|rest| rest.split('`').next())
                .filter(|name| name.starts_with("graphplane"))
        });
        let mut count = 0;
        for name in documented {
            count += 1;
            assert!(text.contains(name), "{name} is documented but not exposed:\n{text}");
        }
        assert!(count >= 20);
        assert!(
            text.contains("graphplane_agent_requests_total{operation=\"query\",code=\"2xx\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("graphplane_agent_database_size_bytes{database=\"kg1\",kind=\"graph\"} 4096"),
            "{text}"
        );
    }
}
