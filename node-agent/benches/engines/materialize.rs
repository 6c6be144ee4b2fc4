//! Materialising staged rows, against the engine's own `COPY … FROM` a Parquet file of the same rows. Each side starts
//! with an empty database in each round, which goes first alternates, and the figure is the median of the rounds' ratios: a
//! machine that is slower for a minute slows both sides of a round.

use crate::{
    Result,
    figures::{Memory, Times, scale, short},
    graph::{DDL, Graph},
    raw,
};
use graphplane_node_agent::engines::{
    BaseSchema, Database, DatabaseId, EngineLimits, Engines, EnginesConfig, FileFormat, FileId, MaterializeRequest,
    StageMode, StageOptions, StagedFile, TableName,
};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 9;
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
        format: FileFormat::Parquet,
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
    let (mut of_nodes, mut of_edges) = (Rounds::default(), Rounds::default());
    for round in 0..ROUNDS {
        let place = tempfile::tempdir_in(folder.path())?;
        let place = place.path();
        let raw = place.join("raw.lbug");
        let (copy, ours) = if round % 2 == 0 {
            let copy = graph.load(&raw, POOL)?;
            (copy, through_arrow(place, &graph).await?)
        } else {
            let ours = through_arrow(place, &graph).await?;
            (graph.load(&raw, POOL)?, ours)
        };
        of_nodes.push(copy.0, ours.0);
        of_edges.push(copy.1, ours.1);
    }
    of_nodes.print("nodes", graph.nodes);
    of_edges.print("relationships", graph.edges);
    println!(
        "| peak memory of the whole bench, both sides, pool of {} MiB | {:.0} MiB |",
        POOL >> 20,
        Memory::own().peak()?
    );
    Ok(())
}

/// Both sides of every round.
#[derive(Default)]
struct Rounds {
    copy: Times,
    ours: Times,
    percents: Vec<f64>,
}

impl Rounds {
    fn push(&mut self, copy: Duration, ours: Duration) {
        self.percents.push(copy.as_secs_f64() / ours.as_secs_f64() * 100.0);
        self.copy.push(copy);
        self.ours.push(ours);
    }

    fn print(mut self, what: &str, rows: u64) {
        self.percents.sort_unstable_by(f64::total_cmp);
        let all: Vec<String> = self.percents.iter().map(|percent| format!("{percent:.0}")).collect();
        println!(
            "| materialise {} {what}, {ROUNDS} rounds | {:.0} k rows/s, {:.0} % of COPY FROM Parquet ({:.0} k rows/s; rounds: {} %) |",
            short(rows),
            self.ours.rate(rows),
            self.percents[self.percents.len() / 2],
            self.copy.rate(rows),
            all.join(", ")
        );
    }
}
