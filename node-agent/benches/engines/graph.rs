//! A graph of people from a seeded generator, as Parquet files and as a database of the engine's own.

use crate::{Result, raw};
use lbug::Connection;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

pub(crate) const DDL: &str = "CREATE NODE TABLE P(id INT64 PRIMARY KEY, name STRING, age INT64, score DOUBLE);
                              CREATE REL TABLE E(FROM P TO P, w DOUBLE);";

pub(crate) struct Graph {
    pub(crate) nodes: u64,
    pub(crate) edges: u64,
    pub(crate) node_file: PathBuf,
    pub(crate) edge_file: PathBuf,
}

impl Graph {
    /// Writes the Parquet files.
    pub(crate) fn generate(folder: &Path, nodes: u64, edges: u64) -> Result<Self> {
        let graph = Self {
            nodes,
            edges,
            node_file: folder.join("P.parquet"),
            edge_file: folder.join("E.parquet"),
        };
        let duckdb = duckdb::Connection::open_in_memory()?;
        // hash() of DuckDB is a fixed function of its input: the same rows on every machine.
        duckdb.execute_batch(&format!(
            r#"COPY (SELECT i AS id, 'person number ' || i AS name, (hash(i) % 90)::BIGINT AS age,
                            CASE WHEN i % 10 = 0 THEN NULL ELSE (hash(i + 7) % 1000)::DOUBLE / 10 END AS score
                     FROM range({nodes}) t(i)) TO '{}' (FORMAT parquet);
               COPY (SELECT (hash(i) % {nodes})::BIGINT AS "from", (hash(i * 31 + 1) % {nodes})::BIGINT AS "to",
                            (hash(i + 3) % 100)::DOUBLE AS w
                     FROM range({edges}) t(i)) TO '{}' (FORMAT parquet);"#,
            graph.node_file.display(),
            graph.edge_file.display()
        ))?;
        Ok(graph)
    }

    /// Makes a database by the engine's own `COPY … FROM`: how long nodes and relationships took, each with a checkpoint.
    pub(crate) fn load(&self, file: &Path, pool: u64) -> Result<(Duration, Duration)> {
        let database = raw::create(file, pool, DDL)?;
        let connection = Connection::new(&database)?;
        let copy = |table: &str, source: &Path| -> Result<Duration> {
            let started = Instant::now();
            connection.query(&format!("COPY {table} FROM '{}'", source.display()))?;
            connection.query("CHECKPOINT")?;
            Ok(started.elapsed())
        };
        let nodes = copy("P", &self.node_file)?;
        let edges = if self.edges > 0 {
            copy("E", &self.edge_file)?
        } else {
            Duration::ZERO
        };
        Ok((nodes, edges))
    }
}
