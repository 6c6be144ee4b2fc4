//! Parquet into a staging table, as an upload and from a file, beside DuckDB's own `CREATE TABLE … AS` in this process; and
//! the table as NDJSON and Arrow over HTTP, beside DuckDB's own rows
//! and batches.

use crate::{
    Result,
    agent::Agent,
    figures::{Memory, Times, cost, scale, short},
    graph::Graph,
    raw,
    streams::{ARROW, NDJSON},
};
use reqwest::Method;
use serde_json::json;
use std::{
    path::Path,
    time::{Duration, Instant},
};

const ID: &str = "kg0000000000000001";
const DDL: &str = "CREATE NODE TABLE N(id INT64 PRIMARY KEY);";
/// What the agent gives to staging.
const MEMORY: u64 = 512 << 20;
const ROUNDS: usize = 5;

/// Prints the rates.
pub(crate) async fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let rows = scale("ROWS", 5_000_000)?;
    let graph = Graph::generate(folder.path(), rows, 0)?;
    let import = folder.path().display().to_string();
    let agent = Agent::start(&folder.path().join("volume"), &["--import-dir".to_owned(), import]).await?;
    agent.create(ID, DDL).await?;
    load(&agent, &graph, folder.path()).await?;
    read(&agent, &graph, folder.path()).await
}

async fn load(agent: &Agent, graph: &Graph, folder: &Path) -> Result<()> {
    let [mut uploads, mut files, mut engine] = [(); 3].map(|()| Times::default());
    for round in 0..ROUNDS {
        uploads.push(upload(agent, graph).await?);
        files.push(from_file(agent, graph).await?);
        let file = folder.join(format!("raw-{round}.duckdb"));
        engine.push(create_as(&file, graph)?);
        std::fs::remove_file(&file)?;
    }
    for (what, ours) in [("an upload", uploads), ("a file of the node", files)] {
        println!(
            "| Parquet into staging, {} rows, as {what} | {:.0} k rows/s, {} beside CREATE TABLE AS of DuckDB in process \
             ({:.0} k rows/s) |",
            short(graph.nodes),
            ours.rate(graph.nodes),
            cost(&ours, &engine),
            engine.rate(graph.nodes)
        );
    }
    Ok(())
}

async fn upload(agent: &Agent, graph: &Graph) -> Result<Duration> {
    let path = format!("/databases/{ID}/tables/Upload");
    let bytes = std::fs::read(&graph.node_file)?;
    let started = Instant::now();
    let request = agent.request(Method::PUT, &format!("{path}/files/f")).body(bytes);
    agent.answer(request).await?;
    let took = started.elapsed();
    agent.answer(agent.request(Method::DELETE, &path)).await?;
    Ok(took)
}

async fn from_file(agent: &Agent, graph: &Graph) -> Result<Duration> {
    let source = format!("file://{}", graph.node_file.display());
    let body = json!({"table_name": "Rows", "s3_pattern": source});
    let path = format!("/databases/{ID}/tables");
    let started = Instant::now();
    let answer = agent.post(&path, &body).await?;
    let took = started.elapsed();
    if answer["row_count"] != json!(graph.nodes) {
        return Err(format!("{answer}").into());
    }
    Ok(took)
}

fn open(file: &Path) -> Result<duckdb::Connection> {
    let config = duckdb::Config::default()
        .max_memory(&format!("{MEMORY}B"))?
        .threads(i64::try_from(raw::threads())?)?;
    Ok(duckdb::Connection::open_with_flags(file, config)?)
}

fn create_as(file: &Path, graph: &Graph) -> Result<Duration> {
    let connection = open(file)?;
    let started = Instant::now();
    connection.execute_batch(&format!(
        "CREATE TABLE t AS SELECT * FROM read_parquet('{}'); CHECKPOINT",
        graph.node_file.display()
    ))?;
    Ok(started.elapsed())
}

async fn read(agent: &Agent, graph: &Graph, folder: &Path) -> Result<()> {
    let file = folder.join("raw.duckdb");
    create_as(&file, graph)?;
    let connection = open(&file)?;
    let path = format!("/databases/{ID}/tables/query");
    for (what, format, own) in [("NDJSON", NDJSON, "rows"), ("Arrow", ARROW, "Arrow batches")] {
        let (mut ours, mut engine) = (Times::default(), Times::default());
        let mut peak = 0f64;
        for _ in 0..ROUNDS {
            agent.memory().forget()?;
            let started = Instant::now();
            let sql = json!({"sql": r#"SELECT id, name, age, score FROM "Rows""#});
            let end = agent.read(&path, format, &sql).await?;
            ours.since(started);
            peak = peak.max(agent.memory().peak()?);
            if format == NDJSON {
                end.has_rows(graph.nodes)?;
            } else {
                end.is_arrows()?;
            }
            let started = Instant::now();
            let mut statement = connection.prepare("SELECT id, name, age, score FROM t")?;
            let rows = if format == NDJSON {
                in_rows(&mut statement)?
            } else {
                let batches = statement.stream_arrow([])?;
                batches.map(|batch| batch.num_rows() as u64).sum::<u64>()
            };
            engine.since(started);
            if rows != graph.nodes {
                return Err(format!("{rows} rows came from DuckDB").into());
            }
        }
        println!(
            "| staging, {} rows as {what} over HTTP | {:.0} k rows/s, {} beside DuckDB's {own} in process \
             ({:.0} k rows/s); peak memory of the agent {peak:.0} MiB |",
            short(graph.nodes),
            ours.rate(graph.nodes),
            cost(&ours, &engine),
            engine.rate(graph.nodes)
        );
    }
    println!(
        "| peak memory of the bench, DuckDB in process with {} MiB as the agent gives it | {:.0} MiB |",
        MEMORY >> 20,
        Memory::own().peak()?
    );
    Ok(())
}

fn in_rows(statement: &mut duckdb::Statement<'_>) -> Result<u64> {
    let mut rows = statement.query([])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        for column in 0..4 {
            std::hint::black_box(row.get_ref(column)?);
        }
        count += 1;
    }
    Ok(count)
}
