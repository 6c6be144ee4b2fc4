//! Loads that fail in the middle, beside readers. The engine takes back what a failed COPY had put into the table, and a
//! reader that comes to such rows while they go takes the process down with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use graphplane_node_agent::engines::{
    Database, EngineError, EngineLimits, Engines, ErrorClass, MaterializeRequest, StageMode, Staging,
};
use tokio_util::sync::CancellationToken;

use crate::support::{MIB, id, limits, one, rows, stage, start, table};

const READERS: usize = 4;
/// Tables that are filled one after another, each for the first time.
const TABLES: usize = 12;

/// Queries that scan the table that is being filled, until this is dropped.
struct Readers {
    stop: Arc<AtomicBool>,
    table: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<usize>>,
}

impl Readers {
    fn start(g: &Database, text: &'static str) -> Self {
        let (stop, table) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let tasks = (0..READERS).map(|_| {
            let (g, stop, table) = (g.clone(), Arc::clone(&stop), Arc::clone(&table));
            tokio::spawn(async move {
                let mut asked = 0;
                while !stop.load(Ordering::Acquire) {
                    let text = text.replace('#', &table.load(Ordering::Acquire).to_string());
                    match rows(&g, &text).await {
                        // The load has taken all memory.
                        Ok(_) | Err(EngineError::OutOfMemory { .. }) => asked += 1,
                        Err(error) => panic!("{text}: {error}"),
                    }
                }
                asked
            })
        });
        Self {
            tasks: tasks.collect(),
            stop,
            table,
        }
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Release);
        for task in self.tasks {
            assert!(task.await.unwrap() > 0);
        }
    }
}

/// Fills a table; the load is cancelled after a while. Returns the rows that came into the graph, and why not all did.
async fn cut(g: &Database, staging: &Staging, name: &str, after: Option<Duration>) -> (u64, Option<ErrorClass>) {
    let cancel = CancellationToken::new();
    let timer = after.map(|after| {
        let cancel = cancel.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            cancel.cancel();
        })
    });
    let request = MaterializeRequest::new(table(name));
    let outcome = g.materialize(staging, request, Arc::new(|_| {}), cancel).await;
    if let Some(timer) = timer {
        timer.abort();
    }
    match outcome {
        Ok(report) => (report.rows_ingested, None),
        Err(error) => match error {
            EngineError::Partial { rows, .. } => (rows, Some(error.class())),
            _ => (0, Some(error.class())),
        },
    }
}

/// Cancels loads of each table at various moments: in the graph is what they say.
async fn cancel_all(g: &Database, staging: &Staging, readers: &Readers, count: &str, step: u64) {
    let mut cancelled = 0;
    for n in 0..TABLES {
        readers.table.store(n, Ordering::Release);
        let mut expected = 0;
        for part in [1, 2, 3] {
            let after = Duration::from_millis((n as u64 * step + 1) * part % (step * 16));
            let (taken, why) = cut(g, staging, &format!("P{n}"), Some(after)).await;
            expected += taken;
            assert_eq!(one(g, &count.replace('#', &n.to_string())).await, expected);
            if why.is_none() {
                break;
            }
            cancelled += 1;
        }
    }
    assert!(cancelled > 0, "every load was quicker than its end");
}

async fn tables(limits: EngineLimits, ddl: &str, select: &str) -> (tempfile::TempDir, Engines, Database, Staging) {
    let directory = tempfile::tempdir().unwrap();
    let engines = start(directory.path(), limits).await;
    engines
        .create(&id("g"), &graphplane_node_agent::engines::BaseSchema::Empty)
        .await
        .unwrap();
    let g = engines.database(&id("g")).await.unwrap();
    let staging = engines.staging(&id("g")).await.unwrap();
    for n in 0..TABLES {
        for statement in ddl.split(';') {
            rows(&g, &statement.replace('#', &n.to_string())).await.unwrap();
        }
        stage(&staging, &format!("P{n}"), &[("f", select)], StageMode::ReplaceTable)
            .await
            .unwrap();
    }
    (directory, engines, g, staging)
}

const SCAN: &str = "MATCH (p:P#) RETURN count(*), sum(p.id), max(p.name)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_outlive_loads_that_are_cancelled() {
    const ROWS: u64 = 400_000;
    let (_directory, _engines, g, staging) = tables(
        limits(),
        "CREATE NODE TABLE P#(id INT64 PRIMARY KEY, name STRING)",
        &format!("SELECT range AS id, 'name ' || range AS name FROM range({ROWS})"),
    )
    .await;
    let readers = Readers::start(&g, SCAN);
    cancel_all(&g, &staging, &readers, "MATCH (p:P#) RETURN count(*)", 37).await;
    readers.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_outlive_loads_with_values_that_the_engine_refuses() {
    // The engine casts text to UUID itself, and fails at the last of these rows.
    let (_directory, _engines, g, staging) = tables(
        limits(),
        "CREATE NODE TABLE P#(id INT64 PRIMARY KEY, name UUID)",
        "SELECT range AS id, CASE WHEN range < 299999 THEN 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11' ELSE 'x' END AS name \
         FROM range(300000)",
    )
    .await;
    let readers = Readers::start(&g, "MATCH (p:P#) RETURN count(*), sum(p.id), count(p.name)");
    for n in 0..TABLES {
        readers.table.store(n, Ordering::Release);
        for _ in 0..2 {
            let (taken, why) = cut(&g, &staging, &format!("P{n}"), None).await;
            assert!(taken == 0 && why.is_some(), "{taken} rows, {why:?}");
            assert_eq!(one(&g, &format!("MATCH (p:P{n}) RETURN count(*)")).await, 0);
        }
    }
    readers.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_outlive_loads_that_do_not_fit_into_memory() {
    let small = EngineLimits {
        database_memory: 48 * MIB,
        ..limits()
    };
    let (_directory, _engines, g, staging) = tables(
        small,
        "CREATE NODE TABLE P#(id INT64 PRIMARY KEY, name STRING)",
        "SELECT range AS id, repeat('x', 200) || range AS name FROM range(600000)",
    )
    .await;
    let readers = Readers::start(&g, "MATCH (p:P#) RETURN count(*), sum(p.id)");
    let mut outcomes = Vec::new();
    for n in 0..TABLES {
        readers.table.store(n, Ordering::Release);
        outcomes.push(cut(&g, &staging, &format!("P{n}"), None).await);
    }
    readers.end().await;
    for (n, (taken, why)) in outcomes.into_iter().enumerate() {
        assert!(matches!(why, None | Some(ErrorClass::OutOfMemory)), "{why:?}");
        assert_eq!(one(&g, &format!("MATCH (p:P{n}) RETURN count(*)")).await, taken);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_outlive_loads_of_relationships_that_are_cancelled() {
    const NODES: u64 = 200_000;
    let (_directory, _engines, g, staging) = tables(
        limits(),
        "CREATE NODE TABLE IF NOT EXISTS N(id INT64 PRIMARY KEY); CREATE REL TABLE P#(FROM N TO N, w INT64)",
        &format!(
            "SELECT range % {NODES} AS \"from\", (range * 7 + 1) % {NODES} AS \"to\", range AS w FROM range(800000)"
        ),
    )
    .await;
    stage(
        &staging,
        "N",
        &[("f", &format!("SELECT range AS id FROM range({NODES})"))],
        StageMode::ReplaceTable,
    )
    .await
    .unwrap();
    assert_eq!(cut(&g, &staging, "N", None).await, (NODES, None));
    let readers = Readers::start(&g, "MATCH (a:N)-[r:P#]->(b:N) RETURN count(*), sum(r.w)");
    cancel_all(&g, &staging, &readers, "MATCH (:N)-[r:P#]->(:N) RETURN count(*)", 61).await;
    readers.end().await;
}
