//! Aggregates over two hops over HTTP, beside the engine in this process on a copy of the same file; and the engine's own
//! rate of point queries, for the rates that `point-query` measures over HTTP.

use crate::{
    Result,
    agent::{Agent, place},
    figures::{Times, cost, scale, short},
    graph::Graph,
    raw,
};
use lbug::{Connection, Database, PreparedStatement, Value};
use std::{
    path::Path,
    time::{Duration, Instant},
};

const ID: &str = "kg0000000000000001";
const POOL: u64 = 2 << 30;
const ROUNDS: usize = 9;
const AGGREGATES: [(&str, &str); 3] = [
    (
        "1 hop, nodes of one age",
        "MATCH (a:P)-[e:E]->(b:P) WHERE a.age = 42 RETURN count(*) AS n, sum(e.w) AS w, min(b.id) AS b",
    ),
    (
        "2 hops from nodes of one age, by age",
        "MATCH (a:P)-[:E]->(:P)-[:E]->(c:P) WHERE a.age = 42 \
         RETURN c.age AS age, count(*) AS n, avg(c.score) AS score ORDER BY age",
    ),
    (
        "2 hops from all nodes",
        "MATCH (:P)-[:E]->(b:P)-[:E]->(:P) RETURN count(*) AS n",
    ),
];

/// Prints the medians and the engine's own rates.
pub(crate) async fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    aggregates(folder.path()).await?;
    points(folder.path())
}

async fn aggregates(folder: &Path) -> Result<()> {
    let graph = Graph::generate(folder, scale("NODES", 1_000_000)?, scale("EDGES", 4_000_000)?)?;
    let file = folder.join("raw.lbug");
    graph.load(&file, POOL)?;
    let volume = folder.join("volume");
    std::fs::copy(&file, place(&volume, ID)?)?;
    let memory = ["--memory-mib", "4096", "--memory-per-database-mib", "2048"].map(str::to_owned);
    let agent = Agent::start(&volume, &memory).await?;
    let database = raw::open(&file, POOL)?;
    let connection = Connection::new(&database)?;
    for (what, cypher) in AGGREGATES {
        let mut prepared = connection.prepare(cypher)?;
        // Once for the caches of both; the answers must be the same.
        let expected = first_column(&connection, &mut prepared)?;
        let answer = agent.query(ID, cypher).await?;
        let name = answer["columns"][0].clone();
        let rows = answer["data"].as_array().into_iter().flatten();
        let found: Vec<i64> = rows.filter_map(|row| row[name.as_str()?].as_i64()).collect();
        if found != expected || expected.is_empty() {
            return Err(format!("{what}: {found:?} over HTTP, {expected:?} from the engine").into());
        }
        let (mut ours, mut engine) = (Times::default(), Times::default());
        for _ in 0..ROUNDS {
            let started = Instant::now();
            agent.query(ID, cypher).await?;
            ours.since(started);
            let started = Instant::now();
            first_column(&connection, &mut prepared)?;
            engine.since(started);
        }
        println!(
            "| {what}, {} nodes, {} relationships, over HTTP | {:.1} ms, {} beside the engine in process ({:.1} ms) |",
            short(graph.nodes),
            short(graph.edges),
            ours.median(),
            cost(&ours, &engine),
            engine.median()
        );
    }
    Ok(())
}

/// Runs a statement and reads all of its rows.
fn first_column(connection: &Connection<'_>, prepared: &mut PreparedStatement) -> Result<Vec<i64>> {
    let rows = connection.execute(prepared, Vec::new())?;
    rows.map(|row| match row.first() {
        Some(Value::Int64(n)) => Ok(*n),
        other => Err(format!("{other:?} in the first column").into()),
    })
    .collect()
}

fn points(folder: &Path) -> Result<()> {
    let rows = scale("POINTS", 100_000)?;
    let seconds = scale("SECONDS", 10)?;
    let ddl = "CREATE NODE TABLE N(id INT64 PRIMARY KEY, name STRING);";
    let database = raw::create(&folder.join("points.lbug"), POOL, ddl)?;
    Connection::new(&database)?.query(&format!(
        "UNWIND range(0, {}) AS i CREATE (:N {{id: i, name: 'name ' + CAST(i AS STRING)}})",
        rows - 1
    ))?;
    for clients in [1u64, 4, 16, 64] {
        let started = Instant::now();
        let until = started + Duration::from_secs(seconds);
        let database = &database;
        let times = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..clients)
                .map(|client| scope.spawn(move || ask(database, client * 7919, rows, until)))
                .collect();
            let mut all = Times::default();
            for client in clients {
                all.extend(client.join().map_err(|_| "a client panicked")??);
            }
            Result::Ok(all)
        })?;
        let rate = times.len() as f64 / started.elapsed().as_secs_f64();
        println!(
            "| point query by primary key, engine in process, {clients} threads | {rate:.0}/s, {} |",
            times.summary()
        );
    }
    Ok(())
}

/// One client: prepared once, a key from all over the table each time.
fn ask(database: &Database, seed: u64, rows: u64, until: Instant) -> Result<Times> {
    let connection = Connection::new(database)?;
    let mut prepared = connection.prepare("MATCH (n:N) WHERE n.id = $id RETURN n.name")?;
    let (mut times, mut key) = (Times::default(), seed);
    while Instant::now() < until {
        key = (key + 7_368_787) % rows;
        let started = Instant::now();
        let mut found = connection.execute(&mut prepared, vec![("id", Value::Int64(i64::try_from(key)?))])?;
        if found.next().is_none() {
            return Err(format!("no node {key}").into());
        }
        times.since(started);
    }
    Ok(times)
}
