//! A long result as NDJSON and as Arrow over HTTP, beside the engine in this process: its rows one by one for both, and
//! its own Arrow batches for the second.

use crate::{
    Result,
    agent::{Agent, place},
    figures::{Memory, Times, cost, scale, short},
    graph::Graph,
    raw,
};
use lbug::Connection;
use serde_json::json;
use std::time::Instant;

const ID: &str = "kg0000000000000001";
const POOL: u64 = 1 << 30;
const ROUNDS: usize = 5;
/// Rows of a batch, as many as the agent puts into a chunk.
const BATCH: usize = 1000;
const CYPHER: &str = "MATCH (n:P) RETURN n.id AS id, n.name AS name, n.age AS age, n.score AS score";
pub(crate) const NDJSON: &str = "application/x-ndjson";
pub(crate) const ARROW: &str = "application/vnd.apache.arrow.stream";

/// Prints rates and memory.
pub(crate) async fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let rows = scale("ROWS", 5_000_000)?;
    let graph = Graph::generate(folder.path(), rows, 0)?;
    let file = folder.path().join("raw.lbug");
    graph.load(&file, POOL)?;
    let volume = folder.path().join("volume");
    std::fs::copy(&file, place(&volume, ID)?)?;
    let memory = ["--memory-mib", "2048", "--memory-per-database-mib", "1024"].map(str::to_owned);
    let agent = Agent::start(&volume, &memory).await?;
    let database = raw::open(&file, POOL)?;
    let connection = Connection::new(&database)?;

    let [mut ndjson, mut arrow, mut by_row, mut by_batch] = [(); 4].map(|()| Times::default());
    let [mut ndjson_peak, mut arrow_peak, mut own_peak] = [0f64; 3];
    // The first round fills the caches of both and is not counted.
    for round in 0..=ROUNDS {
        let mut took = Vec::new();
        for (format, peak) in [(NDJSON, &mut ndjson_peak), (ARROW, &mut arrow_peak)] {
            agent.memory().forget()?;
            let started = Instant::now();
            let path = format!("/databases/{ID}/query");
            let end = agent.read(&path, format, &json!({"cypher": CYPHER})).await?;
            took.push(started.elapsed());
            if format == NDJSON {
                end.has_rows(rows)?;
            } else {
                end.is_arrows()?;
            }
            *peak = f64::max(*peak, agent.memory().peak()?);
        }
        Memory::own().forget()?;
        for batches in [false, true] {
            let started = Instant::now();
            let mut result = connection.query(CYPHER)?;
            let found = if batches {
                result
                    .iter_arrow(BATCH)?
                    .map(|batch| batch.num_rows() as u64)
                    .sum::<u64>()
            } else {
                result.count() as u64
            };
            took.push(started.elapsed());
            if found != rows {
                return Err(format!("{found} of {rows} rows came from the engine").into());
            }
        }
        own_peak = own_peak.max(Memory::own().peak()?);
        if round > 0 {
            for (times, took) in [&mut ndjson, &mut arrow, &mut by_row, &mut by_batch]
                .into_iter()
                .zip(took)
            {
                times.push(took);
            }
        }
    }
    let count = short(rows);
    println!(
        "| {count} rows as NDJSON over HTTP | {:.0} k rows/s, {} beside the engine's rows in process ({:.0} k rows/s); \
         peak memory of the agent {ndjson_peak:.0} MiB |",
        ndjson.rate(rows),
        cost(&ndjson, &by_row),
        by_row.rate(rows)
    );
    println!(
        "| {count} rows as Arrow over HTTP | {:.0} k rows/s, {} beside the engine's rows in process, {} beside its Arrow \
         batches ({:.0} k rows/s); peak memory of the agent {arrow_peak:.0} MiB |",
        arrow.rate(rows),
        cost(&arrow, &by_row),
        cost(&arrow, &by_batch),
        by_batch.rate(rows)
    );
    println!(
        "| peak memory of the engine in process on the same result, pool of {} MiB as the agent's | {own_peak:.0} MiB |",
        POOL >> 20
    );
    Ok(())
}
