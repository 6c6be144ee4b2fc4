//! Materialising staged rows, against the engine's own `COPY … FROM` a Parquet file of the same rows.
//!
//! 1 M nodes and 4 M relationships from a seeded generator; each side starts with an empty database in each round, the
//! rounds alternate, and the medians are compared. `cargo bench -p graphplane-node-agent --bench materialize`.
#![allow(missing_docs)]

use graphplane_node_agent::engines::{
    BaseSchema, Database, DatabaseId, EngineLimits, Engines, EnginesConfig, FileId, MaterializeRequest, StageMode,
    StageOptions, StagedFile, TableName,
};
use std::{
    error::Error,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const NODES: u64 = 1_000_000;
const EDGES: u64 = 4_000_000;
const ROUNDS: usize = 3;
const POOL: u64 = 2 << 30;
const LIMIT: Duration = Duration::from_secs(600);
const DDL: &str = "CREATE NODE TABLE P(id INT64 PRIMARY KEY, name STRING, age INT64, score DOUBLE);
                   CREATE REL TABLE E(FROM P TO P, w DOUBLE);";

fn generate(folder: &Path) -> Result<(PathBuf, PathBuf)> {
    let (nodes, edges) = (folder.join("P.parquet"), folder.join("E.parquet"));
    let duckdb = duckdb::Connection::open_in_memory()?;
    // hash() of DuckDB is a fixed function of its input: the same rows on every machine.
    duckdb.execute_batch(&format!(
        r#"COPY (SELECT i AS id, 'person number ' || i AS name, (hash(i) % 90)::BIGINT AS age,
                        CASE WHEN i % 10 = 0 THEN NULL ELSE (hash(i + 7) % 1000)::DOUBLE / 10 END AS score
                 FROM range({NODES}) t(i)) TO '{}' (FORMAT parquet);
           COPY (SELECT (hash(i) % {NODES})::BIGINT AS "from", (hash(i * 31 + 1) % {NODES})::BIGINT AS "to",
                        (hash(i + 3) % 100)::DOUBLE AS w
                 FROM range({EDGES}) t(i)) TO '{}' (FORMAT parquet);"#,
        nodes.display(),
        edges.display()
    ))?;
    Ok((nodes, edges))
}

fn engines_own_copy(folder: &Path, nodes: &Path, edges: &Path) -> Result<(Duration, Duration)> {
    let config = lbug::SystemConfig::default()
        .buffer_pool_size(POOL)
        .max_db_size(1 << 34)
        .max_num_threads(2);
    let database = lbug::Database::new(folder.join("foil.lbug"), config)?;
    let connection = lbug::Connection::new(&database)?;
    for statement in DDL.split_inclusive(';') {
        connection.query(statement)?;
    }
    let started = Instant::now();
    connection.query(&format!("COPY P FROM '{}'", nodes.display()))?;
    connection.query("CHECKPOINT")?;
    let nodes = started.elapsed();
    let started = Instant::now();
    connection.query(&format!("COPY E FROM '{}'", edges.display()))?;
    connection.query("CHECKPOINT")?;
    Ok((nodes, started.elapsed()))
}

async fn stage(engines: &Engines, id: &DatabaseId, table: &str, file: &Path) -> Result<TableName> {
    let staging = engines.staging(id).await?;
    let incoming = staging.incoming()?;
    std::fs::copy(file, incoming.path())?;
    let table = TableName::parse(table)?;
    let staged = StagedFile {
        path: incoming.path().to_owned(),
        file_id: FileId::parse("bench")?,
    };
    let options = StageOptions {
        timeout: LIMIT,
        ..StageOptions::default()
    };
    staging
        .stage(&table, vec![staged], StageMode::ReplaceTable, options)
        .await?;
    Ok(table)
}

async fn materialize(engines: &Engines, database: &Database, table: TableName, rows: u64) -> Result<Duration> {
    let staging = engines.staging(database.id()).await?;
    let request = MaterializeRequest {
        timeout: LIMIT,
        ..MaterializeRequest::new(table)
    };
    let started = Instant::now();
    let report = database
        .materialize(&staging, request, Arc::new(|_| {}), CancellationToken::new())
        .await?;
    let took = started.elapsed();
    if report.rows_ingested != rows {
        return Err(format!("{} of {rows} rows arrived", report.rows_ingested).into());
    }
    Ok(took)
}

async fn through_arrow(folder: &Path, nodes: &Path, edges: &Path) -> Result<(Duration, Duration)> {
    let limits = EngineLimits {
        node_memory: POOL + (1 << 30),
        database_memory: POOL,
        engine_threads: 2,
        ..Default::default()
    };
    let engines = Engines::start(EnginesConfig {
        data_dir: folder.join("ours"),
        read_only: false,
        limits,
    })
    .await?;
    let id = DatabaseId::parse("kg0000000000000001")?;
    engines.create(&id, &BaseSchema::Custom(DDL.to_owned())).await?;
    let (p, e) = (
        stage(&engines, &id, "P", nodes).await?,
        stage(&engines, &id, "E", edges).await?,
    );
    let database = engines.database(&id).await?;
    let nodes = materialize(&engines, &database, p, NODES).await?;
    let edges = materialize(&engines, &database, e, EDGES).await?;
    drop(database);
    engines.shutdown().await;
    Ok((nodes, edges))
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}

fn peak_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .ok_or("no VmHWM")?;
    Ok(line.split_whitespace().nth(1).ok_or("no figure")?.parse::<f64>()? / 1024.0)
}

#[tokio::main]
async fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (nodes, edges) = generate(folder.path())?;
    let (mut copy_nodes, mut copy_edges, mut our_nodes, mut our_edges) = (vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let round = tempfile::tempdir_in(folder.path())?;
        let (n, e) = engines_own_copy(round.path(), &nodes, &edges)?;
        copy_nodes.push(n);
        copy_edges.push(e);
        let (n, e) = through_arrow(round.path(), &nodes, &edges).await?;
        our_nodes.push(n);
        our_edges.push(e);
    }
    for (what, rows, copy, ours) in [
        ("nodes", NODES, median(copy_nodes), median(our_nodes)),
        ("relationships", EDGES, median(copy_edges), median(our_edges)),
    ] {
        println!(
            "| materialise {:.0} M {what} | {:.0} k rows/s, {:.0} % of COPY FROM Parquet ({:.0} k rows/s) |",
            rows as f64 / 1e6,
            rows as f64 / ours / 1e3,
            copy / ours * 100.0,
            rows as f64 / copy / 1e3
        );
    }
    println!(
        "| peak memory of the whole bench, both sides, pool of {} MiB | {:.0} MiB |",
        POOL >> 20,
        peak_mib()?
    );
    Ok(())
}
