//! Figures of the node as the contract's JSON has them, for `GET /metrics` with `Accept: application/json`.

use super::system::node_type;
use crate::{
    admission::sample,
    disk::disk,
    state::AppState,
    tasks::{TaskStatus, timestamp},
};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;

/// The JSON of the contract. What this agent does not measure is null.
#[derive(Serialize, JsonSchema)]
pub(super) struct Figures {
    timestamp: String,
    system: SystemFigures,
    databases: DatabaseFigures,
    queries: QueryFigures,
    ingestion: IngestionFigures,
    admission_control: AdmissionFigures,
    cluster: ClusterFigures,
}

#[derive(Serialize, JsonSchema)]
struct SystemFigures {
    timestamp: String,
    cpu: CpuFigures,
    memory: MemoryFigures,
    disk: DiskFigures,
    volumes: VolumeFigures,
}

#[derive(Serialize, JsonSchema)]
struct CpuFigures {
    usage_percent: Option<f64>,
    count: usize,
}

#[derive(Serialize, JsonSchema)]
struct MemoryFigures {
    total_gb: f64,
    used_gb: f64,
    available_gb: f64,
    usage_percent: f64,
}

#[derive(Serialize, JsonSchema)]
struct DiskFigures {
    total_gb: f64,
    used_gb: f64,
    free_gb: f64,
    usage_percent: f64,
    mount_point: String,
}

#[derive(Serialize, JsonSchema)]
struct VolumeFigures {
    data_volume: DataVolume,
}

#[derive(Serialize, JsonSchema)]
struct DataVolume {
    volume_size_gb: f64,
    used_gb: f64,
    free_gb: f64,
    /// From 0 to 1, as the contract has it.
    usage_percent: f64,
    mount_point: String,
}

#[derive(Serialize, JsonSchema)]
struct DatabaseFigures {
    count: usize,
    total_size_gb: f64,
    databases: BTreeMap<String, DatabaseFigure>,
}

#[derive(Serialize, JsonSchema)]
struct DatabaseFigure {
    size_bytes: u64,
    size_gb: f64,
    query_count: u64,
}

#[derive(Serialize, JsonSchema)]
struct QueryFigures {
    total_queries: u64,
    queries_by_database: BTreeMap<String, u64>,
    /// Always null: they are never reset.
    reset_time: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct IngestionFigures {
    queue_depth: usize,
    active_tasks: usize,
    processing_rate: f64,
}

#[derive(Serialize, JsonSchema)]
struct AdmissionFigures {
    memory_percent: f64,
    cpu_percent: Option<f64>,
    memory_threshold: Option<f64>,
    cpu_threshold: Option<f64>,
    connections_per_db: usize,
    total_connections: usize,
    queue_depth: usize,
}

#[derive(Serialize, JsonSchema)]
struct ClusterFigures {
    node_id: String,
    node_type: &'static str,
    uptime_seconds: f64,
}

pub(super) fn figures(state: &AppState) -> Figures {
    let memory = sample();
    let disk = disk(&state.facts.data_dir);
    let mount_point = state.facts.data_dir.display().to_string();
    let now = timestamp();
    let databases = state.databases();
    let total = databases.iter().map(|info| info.size_bytes).sum();
    let tasks = state.tasks.stats();
    let count = |status: TaskStatus| tasks.by_status.get(status.as_str()).copied().unwrap_or(0);
    let (running, waiting) = state.admission.load();
    let memory_used = memory.total.saturating_sub(memory.available);
    let memory_percent = percent(memory_used, memory.total);
    let disk_percent = percent(disk.used, disk.size);
    Figures {
        timestamp: now.clone(),
        system: SystemFigures {
            timestamp: now,
            cpu: CpuFigures {
                usage_percent: None,
                count: std::thread::available_parallelism().map_or(1, |n| n.get()),
            },
            memory: MemoryFigures {
                total_gb: gb(memory.total),
                used_gb: gb(memory_used),
                available_gb: gb(memory.available),
                usage_percent: memory_percent,
            },
            disk: DiskFigures {
                total_gb: gb(disk.size),
                used_gb: gb(disk.used),
                free_gb: gb(disk.free),
                usage_percent: disk_percent,
                mount_point: mount_point.clone(),
            },
            volumes: VolumeFigures {
                data_volume: DataVolume {
                    volume_size_gb: gb(disk.size),
                    used_gb: gb(disk.used),
                    free_gb: gb(disk.free),
                    usage_percent: disk_percent / 100.0,
                    mount_point,
                },
            },
        },
        queries: QueryFigures {
            total_queries: databases.iter().map(|info| info.queries).sum(),
            queries_by_database: databases
                .iter()
                .map(|info| (info.id.to_string(), info.queries))
                .collect(),
            reset_time: None,
        },
        databases: DatabaseFigures {
            count: databases.len(),
            total_size_gb: gb(total),
            databases: databases
                .iter()
                .map(|info| {
                    let figure = DatabaseFigure {
                        size_bytes: info.size_bytes,
                        size_gb: gb(info.size_bytes),
                        query_count: info.queries,
                    };
                    (info.id.to_string(), figure)
                })
                .collect(),
        },
        ingestion: IngestionFigures {
            queue_depth: count(TaskStatus::Pending),
            active_tasks: count(TaskStatus::Running),
            processing_rate: 0.0,
        },
        admission_control: AdmissionFigures {
            memory_percent,
            cpu_percent: None,
            memory_threshold: None,
            cpu_threshold: None,
            connections_per_db: state.settings().engine.connections_per_database,
            total_connections: running,
            queue_depth: waiting,
        },
        cluster: ClusterFigures {
            node_id: state.facts.node.clone(),
            node_type: node_type(state),
            uptime_seconds: state.facts.started.elapsed().as_secs_f64(),
        },
    }
}

pub(super) fn mb(bytes: u64) -> f64 {
    ((bytes as f64 / 1_048_576.0) * 100.0).round() / 100.0
}

pub(super) fn gb(bytes: u64) -> f64 {
    ((bytes as f64 / 1_073_741_824.0) * 1e6).round() / 1e6
}

pub(super) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        ((part as f64 / whole as f64) * 1e4).round() / 100.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_rounded_and_never_divide_by_zero() {
        assert_eq!(
            (mb(1_572_864), gb(1 << 30), percent(1, 3), percent(1, 0)),
            (1.5, 1.0, 33.33, 0.0)
        );
    }
}
