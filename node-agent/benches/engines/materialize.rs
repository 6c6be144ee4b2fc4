//! Materialising staged rows, against the engine's own `COPY … FROM` a Parquet file of the same rows. Each side starts
//! with an empty database in each round, and the rounds alternate.

use crate::{
    Result,
    figures::{Memory, Times, scale, short},
    graph::{DDL, Graph},
    raw,
};
use graphplane_node_agent::engines::{
    BaseSchema, Database, DatabaseId, EngineLimits, Engines, EnginesConfig, FileId, MaterializeRequest, StageMode,
    StageOptions, StagedFile, TableName,
};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 3;
const POOL: u64 = 2 << 30;
const LIMIT: Duration = Duration::from_secs(600);

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
        cancel: CancellationToken::new(),
    };
    staging
        .stage(&table, vec![staged], StageMode::ReplaceTable, options)
        .await?;
    Ok(table)
}

async fn materialize(engines: &Engines, database: &Database, table: TableName, rows: u64) -> Result<Duration> {
    let staging = engines.staging(database.id()).await?;
    let request = MaterializeRequest {
        table,
        file_ids: None,
        create_table: false,
        from_table: None,
        to_table: None,
        dry_run: false,
        timeout: LIMIT,
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

async fn through_arrow(folder: &Path, graph: &Graph) -> Result<(Duration, Duration)> {
    let limits = EngineLimits {
        node_memory: POOL + (1 << 30),
        database_memory: POOL,
        engine_threads: raw::threads(),
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
        stage(&engines, &id, "P", &graph.node_file).await?,
        stage(&engines, &id, "E", &graph.edge_file).await?,
    );
    let database = engines.database(&id).await?;
    let nodes = materialize(&engines, &database, p, graph.nodes).await?;
    let edges = materialize(&engines, &database, e, graph.edges).await?;
    drop(database);
    engines.shutdown().await;
    Ok((nodes, edges))
}

/// Prints the rates.
pub(crate) async fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let graph = Graph::generate(folder.path(), scale("NODES", 1_000_000)?, scale("EDGES", 4_000_000)?)?;
    let [mut copy_nodes, mut copy_edges, mut our_nodes, mut our_edges] = [(); 4].map(|()| Times::default());
    for _ in 0..ROUNDS {
        let round = tempfile::tempdir_in(folder.path())?;
        let (nodes, edges) = graph.load(&round.path().join("raw.lbug"), POOL)?;
        copy_nodes.push(nodes);
        copy_edges.push(edges);
        let (nodes, edges) = through_arrow(round.path(), &graph).await?;
        our_nodes.push(nodes);
        our_edges.push(edges);
    }
    for (what, rows, copy, ours) in [
        ("nodes", graph.nodes, copy_nodes, our_nodes),
        ("relationships", graph.edges, copy_edges, our_edges),
    ] {
        println!(
            "| materialise {} {what} | {:.0} k rows/s, {:.0} % of COPY FROM Parquet ({:.0} k rows/s) |",
            short(rows),
            ours.rate(rows),
            copy.median() / ours.median() * 100.0,
            copy.rate(rows)
        );
    }
    println!(
        "| peak memory of the whole bench, both sides, pool of {} MiB | {:.0} MiB |",
        POOL >> 20,
        Memory::own().peak()?
    );
    Ok(())
}
