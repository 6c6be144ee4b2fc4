//! Vector search over HTTP: how long it takes and how much of what an exact search finds it finds, beside Lance in this
//! process on the same files.

use crate::{
    Result,
    agent::Agent,
    figures::{Memory, Times, cost, scale, short},
};
use arrow::{
    array::{AsArray, Float32Array},
    datatypes::{Float32Type, Int64Type},
    record_batch::RecordBatch,
};
use lance::Dataset;
use reqwest::Method;
use serde_json::{Value, json};
use std::{path::Path, time::Instant};

const ID: &str = "kg0000000000000001";
const TABLE: &str = "V";
const DIMENSION: usize = 384;
const NEAREST: usize = 10;
/// Rows of a file, which is then below the limit of an upload.
const FILE_ROWS: u64 = 250_000;
/// Rows of a row group. DuckDB writes a column of a row group as one page, and reads it as one: with its own 122,880 rows,
/// two threads need more than the memory of staging.
const GROUP_ROWS: u64 = 10_000;
/// What is sent with a search: nothing, and partitions with the factor of candidates.
const EFFORTS: [Option<(usize, u32)>; 5] = [None, Some((1, 10)), Some((5, 10)), Some((20, 10)), Some((20, 30))];

/// Prints times and recall.
pub(crate) async fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let rows = scale("VECTORS", 1_000_000)?;
    let queries = scale("QUERIES", 1_000)?;
    let duckdb = generator()?;
    for (index, from) in (0..rows).step_by(usize::try_from(FILE_ROWS)?).enumerate() {
        let file = folder.path().join(format!("vectors-{index}.parquet"));
        let select = vectors(from, rows.min(from + FILE_ROWS));
        duckdb.execute_batch(&format!(
            "COPY ({select}) TO '{}' (FORMAT parquet, ROW_GROUP_SIZE {GROUP_ROWS})",
            file.display()
        ))?;
    }
    let queries = in_memory(&duckdb, &vectors(rows, rows + queries))?;
    drop(duckdb);

    let import = folder.path().display().to_string();
    let args = ["--memory-mib", "4096", "--import-dir", &import].map(str::to_owned);
    let agent = Agent::start(&folder.path().join("volume"), &args).await?;
    agent.create(ID, "CREATE NODE TABLE N(id INT64 PRIMARY KEY);").await?;
    let path = build(&agent, folder.path(), rows).await?;
    search(&agent, &queries, &path, rows).await
}

/// Clusters around a thousand centres that share 16 directions, and a little noise: embeddings have few directions, too.
fn generator() -> Result<duckdb::Connection> {
    let duckdb = duckdb::Connection::open_in_memory()?;
    duckdb.execute_batch(&format!(
        "SET memory_limit = '2GB';
         CREATE MACRO u(n) AS (hash(n) % 2000001)::FLOAT / 1000000 - 1;
         CREATE TABLE directions AS SELECT list(part ORDER BY d) AS parts FROM (
             SELECT d, list_transform(range(16), lambda k: u(d * 16 + k + 1000000000000)::FLOAT) AS part
             FROM range({DIMENSION}) t(d));
         CREATE TABLE centres AS
             SELECT c, list_transform(range({DIMENSION}), lambda d: u(c * {DIMENSION} + d + 2000000000000)::FLOAT) AS centre
             FROM range(1000) t(c);"
    ))?;
    Ok(duckdb)
}

fn vectors(from: u64, to: u64) -> String {
    format!(
        "SELECT identifier,
                list_transform(list_zip(centre, parts, range({DIMENSION})), lambda p:
                    (p[1] + 0.25 * list_dot_product(p[2], place) + 0.05 * u(identifier * {DIMENSION} + p[3]))::FLOAT)
                    AS embedding
         FROM (SELECT i AS identifier, (hash(i + 77) % 1000)::BIGINT AS c,
                      list_transform(range(16), lambda k: u(i * 16 + k + 3000000000000)::FLOAT) AS place
               FROM range({from}, {to}) t(i))
         JOIN centres USING (c), directions"
    )
}

fn in_memory(duckdb: &duckdb::Connection, select: &str) -> Result<Vec<Vec<f32>>> {
    let mut statement = duckdb.prepare(select)?;
    let mut all = Vec::new();
    for batch in statement.query_arrow([])? {
        let lists = batch.column(1).as_list::<i32>();
        let vectors = (0..batch.num_rows()).map(|row| lists.value(row).as_primitive::<Float32Type>().values().to_vec());
        all.extend(vectors);
    }
    Ok(all)
}

/// Stages the files and builds the index; where it is.
async fn build(agent: &Agent, folder: &Path, rows: u64) -> Result<String> {
    let source = format!("file://{}/vectors-*.parquet", folder.display());
    let table = json!({"table_name": TABLE, "s3_pattern": source});
    agent.post(&format!("/databases/{ID}/tables"), &table).await?;
    let vector = format!("/databases/{ID}/tables/{TABLE}/vector");
    agent.memory().forget()?;
    let started = Instant::now();
    let query = format!("SELECT identifier, embedding AS vector FROM \"{TABLE}\"");
    let built = agent.post(&format!("{vector}/build"), &json!({"query": query})).await?;
    let took = started.elapsed();
    if built["row_count"] != json!(rows) {
        return Err(format!("{built}").into());
    }
    println!(
        "| {} vectors of {DIMENSION}, written and indexed from staging | {:.0} s, {} partitions, {} MiB; peak memory of the \
         agent {:.0} MiB |",
        short(rows),
        took.as_secs_f64(),
        built["num_partitions"],
        built["index_size_mb"],
        agent.memory().peak()?
    );
    let info = agent.answer(agent.request(Method::GET, &vector)).await?;
    let info: Value = serde_json::from_slice(&info.bytes().await?)?;
    Ok(info["path"].as_str().ok_or("the vectors have no path")?.to_owned())
}

async fn search(agent: &Agent, queries: &[Vec<f32>], path: &str, rows: u64) -> Result<()> {
    let exact = usize::try_from(scale("EXACT", 100)?)?.min(queries.len());
    let (mut truth, mut looking) = (Vec::new(), Times::default());
    for query in &queries[..exact] {
        let (found, took) = over_http(agent, &json!({"embedding": query, "limit": NEAREST, "exact": true})).await?;
        looking.push(took);
        truth.push(found);
    }
    println!(
        "| exact vector search over HTTP, {} vectors, {exact} queries | {} |",
        short(rows),
        looking.summary()
    );
    let dataset = Dataset::open(path).await?;
    for effort in EFFORTS {
        let (mut ours, mut engine) = (Times::default(), Times::default());
        let (mut common, mut wanted) = (0, 0);
        // What the agent takes where nothing is sent.
        let (partitions, refine) = effort.unwrap_or((20, 10));
        for (index, query) in queries.iter().enumerate() {
            let mut body = json!({"embedding": query, "limit": NEAREST});
            if effort.is_some() {
                body["nprobes"] = json!(partitions);
                body["refine"] = json!(refine);
            }
            let (found, took) = over_http(agent, &body).await?;
            ours.push(took);
            if let Some(truth) = truth.get(index) {
                common += found.iter().filter(|id| truth.contains(id)).count();
                wanted += truth.len();
            }
            let started = Instant::now();
            let rows = in_process(&dataset, query, partitions, refine).await?;
            engine.since(started);
            if rows.num_rows() != NEAREST {
                return Err(format!("{} rows came from the engine", rows.num_rows()).into());
            }
        }
        let asked = effort.map_or("defaults".to_owned(), |(partitions, refine)| {
            format!("nprobes {partitions}, refine {refine}")
        });
        println!(
            "| vector search over HTTP, {} vectors, {asked}, {} queries | {}, recall@{NEAREST} {:.3}; {} beside Lance in \
             process ({}) |",
            short(rows),
            queries.len(),
            ours.summary(),
            common as f64 / wanted as f64,
            cost(&ours, &engine),
            engine.summary()
        );
    }
    println!(
        "| memory after that | agent {:.0} MiB, Lance in process {:.0} MiB |",
        agent.memory().resident()?,
        Memory::own().resident()?
    );
    Ok(())
}

/// The identifiers of the nearest rows, and how long it took.
async fn over_http(agent: &Agent, body: &Value) -> Result<(Vec<i64>, std::time::Duration)> {
    let request = agent
        .request(Method::POST, &format!("/databases/{ID}/tables/{TABLE}/vector/search"))
        .header("Content-Type", "application/json")
        .body(serde_json::to_vec(body)?);
    let started = Instant::now();
    let answer = agent.answer(request).await?.bytes().await?;
    let took = started.elapsed();
    let answer: Value = serde_json::from_slice(&answer)?;
    let results = answer["results"].as_array().into_iter().flatten();
    Ok((results.filter_map(|row| row["identifier"].as_i64()).collect(), took))
}

async fn in_process(dataset: &Dataset, query: &[f32], partitions: usize, refine: u32) -> Result<RecordBatch> {
    let mut scan = dataset.scan();
    scan.nearest("vector", &Float32Array::from(query.to_vec()), NEAREST)?
        .minimum_nprobes(partitions)
        .refine(refine)
        .search_effort(0.0)?;
    scan.project(&["identifier"])?;
    let rows = scan.try_into_batch().await?;
    // Read, as the agent does.
    std::hint::black_box(rows.column(0).as_primitive::<Int64Type>().values());
    Ok(rows)
}
