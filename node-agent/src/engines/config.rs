//! What the engines may use.

use std::path::PathBuf;
use std::time::Duration;

use super::error::EngineError;

const MIB: u64 = 1 << 20;

/// Limits of all databases of a node. Changed limits apply to databases that are opened afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineLimits {
    /// Bytes that all buffer pools and staging databases may have together.
    pub node_memory: u64,
    /// Buffer pool of an open graph, in bytes. Below 64 MiB, loads of wide tables fail.
    pub database_memory: u64,
    /// Memory limit of an open staging database, in bytes. It can be exceeded for a moment by about as much again.
    pub staging_memory: u64,
    /// Graphs that the node may have.
    pub max_databases: usize,
    /// Queries that read a graph at the same time, as a rule: about as many as there are processors.
    pub reader_threads: usize,
    /// Queries that read a graph at the same time when others take long: readers are added while queries wait behind
    /// them, so that a long query does not keep short ones waiting.
    pub max_reader_threads: usize,
    /// Prepared statements that each of these keeps.
    pub statement_cache: usize,
    /// Statements that may wait for a graph; more are refused.
    pub queue_length: usize,
    /// Threads that the engine may use for one statement.
    pub engine_threads: u64,
    /// Largest size of a graph's file and address space taken for it, in bytes: a power of two of at least 8 MiB.
    pub max_database_size: u64,
    /// Bytes of Arrow data per transaction of a materialise run; also what such a run needs on top of the pool.
    pub slice_bytes: usize,
    /// A graph that is not used for so long is closed.
    pub idle_close: Duration,
}

impl Default for EngineLimits {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 4);
        Self {
            node_memory: 2048 * MIB,
            database_memory: 256 * MIB,
            staging_memory: 512 * MIB,
            max_databases: 10,
            reader_threads: 2,
            max_reader_threads: 10,
            statement_cache: 256,
            queue_length: 256,
            engine_threads: threads as u64,
            max_database_size: 16 << 30,
            slice_bytes: 256 << 20,
            idle_close: Duration::from_secs(1800),
        }
    }
}

impl EngineLimits {
    /// Checks that the figures fit together.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] with the field.
    pub fn check(&self) -> Result<(), EngineError> {
        let refuse = |field: &str, message: String| Err(EngineError::invalid(field, message));
        if self.database_memory < 16 * MIB {
            return refuse(
                "database_memory",
                format!("is {} bytes; at least 16 MiB are needed", self.database_memory),
            );
        }
        if self.staging_memory < 64 * MIB {
            return refuse(
                "staging_memory",
                format!("is {} bytes; at least 64 MiB are needed", self.staging_memory),
            );
        }
        let together = self.database_memory.saturating_add(self.staging_memory);
        if self.node_memory < together {
            return refuse(
                "node_memory",
                format!(
                    "is {} bytes; one graph with its staging tables needs {together}",
                    self.node_memory
                ),
            );
        }
        if !self.max_database_size.is_power_of_two() || self.max_database_size < 8 * MIB {
            return refuse(
                "max_database_size",
                format!(
                    "is {}; it must be a power of two of at least 8 MiB",
                    self.max_database_size
                ),
            );
        }
        for (field, value) in [
            ("reader_threads", self.reader_threads),
            ("statement_cache", self.statement_cache),
            ("queue_length", self.queue_length),
            ("slice_bytes", self.slice_bytes),
        ] {
            if value == 0 {
                return refuse(field, "is 0; it must be at least 1".into());
            }
        }
        Ok(())
    }
}

/// Where the engines keep their files, and what they may use.
#[derive(Clone, Debug)]
pub struct EnginesConfig {
    /// The directory of this node: `databases/<id>.lbug` and `staging/<id>.duckdb` are below it.
    pub data_dir: PathBuf,
    /// Open graphs for reading only; nothing can be created, changed, staged or deleted.
    pub read_only: bool,
    /// Limits.
    pub limits: EngineLimits,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn default_limits_fit_together_and_wrong_ones_are_named() {
        let limits = EngineLimits::default();
        limits.check().unwrap();
        for (wrong, field) in [
            (
                EngineLimits {
                    database_memory: MIB,
                    ..limits.clone()
                },
                "database_memory",
            ),
            (
                EngineLimits {
                    staging_memory: MIB,
                    ..limits.clone()
                },
                "staging_memory",
            ),
            (
                EngineLimits {
                    node_memory: 300 * MIB,
                    ..limits.clone()
                },
                "node_memory",
            ),
            (
                EngineLimits {
                    max_database_size: 10 << 30,
                    ..limits.clone()
                },
                "max_database_size",
            ),
            (
                EngineLimits {
                    reader_threads: 0,
                    ..limits.clone()
                },
                "reader_threads",
            ),
        ] {
            let error = wrong.check().unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        }
    }
}
