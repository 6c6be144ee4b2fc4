//! Many databases on one agent: how long the first query of each takes, which opens it, and the memory of all of them; the
//! same under a budget that holds a quarter of them; beside the engine in this process with the same files.

use crate::{
    Result,
    agent::{Agent, place},
    figures::{Memory, Times, scale},
    raw,
};
use lbug::Connection;
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

const POOL_MIB: u64 = 64;
const DDL: &str = "CREATE NODE TABLE N(id INT64 PRIMARY KEY, name STRING);";
const CYPHER: &str = "MATCH (n:N) WHERE n.id = 7 RETURN n.name";

/// Prints times and memory.
pub(crate) async fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let count = scale("DATABASES", 100)?;
    let origin = folder.path().join("origin.lbug");
    let database = raw::create(&origin, POOL_MIB << 20, DDL)?;
    let connection = Connection::new(&database)?;
    connection.query("UNWIND range(0, 999) AS i CREATE (:N {id: i, name: 'name ' + CAST(i AS STRING)})")?;
    connection.query("CHECKPOINT")?;
    drop(connection);
    drop(database);
    let volume = folder.path().join("volume");
    let mut files = Vec::new();
    for n in 0..count {
        let id = format!("kg{n:016x}");
        let file = place(&volume, &id)?;
        std::fs::copy(&origin, &file)?;
        files.push((id, file));
    }

    // A third of the budget may become staging, so that this one holds them all, and the next a quarter.
    agent(&volume, &files, "all open", count * POOL_MIB + 1024).await?;
    agent(&volume, &files, "a quarter open", (count / 4).max(4) * POOL_MIB).await?;
    in_process(&files)
}

async fn agent(volume: &Path, files: &[(String, PathBuf)], what: &str, budget_mib: u64) -> Result<()> {
    let figures = [
        ("--max-databases", files.len() as u64),
        ("--memory-per-database-mib", POOL_MIB),
        ("--memory-mib", budget_mib),
    ];
    let args: Vec<String> = figures
        .iter()
        .flat_map(|(name, figure)| [(*name).to_owned(), figure.to_string()])
        .collect();
    let agent = Agent::start(volume, &args).await?;
    let before = agent.memory().resident()?;
    let (mut first, mut second) = (Times::default(), Times::default());
    for times in [&mut first, &mut second] {
        for (id, _) in files {
            let started = Instant::now();
            agent.query(id, CYPHER).await?;
            times.since(started);
        }
    }
    let after = agent.memory().resident()?;
    println!(
        "| {} databases on one agent, {what} (budget {budget_mib} MiB, pools of {POOL_MIB} MiB) | first query of each {}; \
         once more {}; memory {before:.0} MiB before, {after:.0} MiB after, {:.0} MiB at most |",
        files.len(),
        first.summary(),
        second.summary(),
        agent.memory().peak()?
    );
    Ok(())
}

fn in_process(files: &[(String, PathBuf)]) -> Result<()> {
    let before = Memory::own().resident()?;
    let (mut times, mut open) = (Times::default(), Vec::new());
    for (_, file) in files {
        let started = Instant::now();
        let database = raw::open(file, POOL_MIB << 20)?;
        let rows = Connection::new(&database)?.query(CYPHER)?.count();
        times.since(started);
        if rows != 1 {
            return Err(format!("{}: {rows} rows", file.display()).into());
        }
        open.push(database);
    }
    println!(
        "| the same {} files, engine in process, all open | opened with the first query {}; memory {before:.0} MiB before, \
         {:.0} MiB after |",
        files.len(),
        times.summary(),
        Memory::own().resident()?
    );
    Ok(())
}
