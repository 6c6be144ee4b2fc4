//! Loads that fail in the middle, beside readers. The engine takes back what a failed COPY had put into the table, and a
//! reader that comes to such rows while they go takes the process down with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use graphplane_node_agent::engines::{
    Database, EngineLimits, Engines, ErrorClass, MaterializeRequest, StageMode, Staging,
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
                let mut answered = 0;
                while !stop.load(Ordering::Acquire) {
                    let text = text.replace('#', &table.load(Ordering::Acquire).to_string());
                    rows(&g, &text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
                    answered += 1;
                }
                answered
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

/// Fills a table; the load is cancelled after a while.
async fn cut(g: &Database, staging: &Staging, name: String, after: Option<Duration>) -> Result<u64, ErrorClass> {
    let cancel = CancellationToken::new();
    let timer = after.map(|after| {
        let cancel = cancel.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            cancel.cancel();
        })
    });
    let outcome = g
        .materialize(staging, MaterializeRequest::new(table(&name)), Arc::new(|_| {}), cancel)
        .await;
    if let Some(timer) = timer {
        timer.abort();
    }
    outcome
        .map(|report| report.rows_ingested)
        .map_err(|error| error.class())
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
    let mut cancelled = 0;
    for n in 0..TABLES {
        readers.table.store(n, Ordering::Release);
        for part in [1, 2, 3] {
            // Before, in the middle of, and after its first rows.
            let after = Duration::from_millis((n as u64 * 37 + 1) * part % 600);
            match cut(&g, &staging, format!("P{n}"), Some(after)).await {
                Err(class) => assert_eq!(class, ErrorClass::Cancelled),
                Ok(_) => {
                    assert_eq!(one(&g, &format!("MATCH (p:P{n}) RETURN count(*)")).await, ROWS);
                    break;
                }
            }
            assert_eq!(one(&g, &format!("MATCH (p:P{n}) RETURN count(*)")).await, 0);
            cancelled += 1;
        }
    }
    readers.end().await;
    assert!(cancelled > 0, "every load was quicker than its end");
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
            cut(&g, &staging, format!("P{n}"), None).await.unwrap_err();
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
    for n in 0..TABLES {
        readers.table.store(n, Ordering::Release);
        let outcome = cut(&g, &staging, format!("P{n}"), None).await;
        let count = one(&g, &format!("MATCH (p:P{n}) RETURN count(*)")).await;
        match outcome {
            Ok(taken) => assert_eq!(count, taken),
            Err(class) => assert!(class == ErrorClass::OutOfMemory, "{class:?}, {count} rows"),
        }
    }
    readers.end().await;
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
    cut(&g, &staging, "N".into(), None).await.unwrap();
    let readers = Readers::start(&g, "MATCH (a:N)-[r:P#]->(b:N) RETURN count(*), sum(r.w)");
    for n in 0..TABLES {
        readers.table.store(n, Ordering::Release);
        for part in [1, 2, 3] {
            let after = Duration::from_millis((n as u64 * 61 + 1) * part % 1500);
            let outcome = cut(&g, &staging, format!("P{n}"), Some(after)).await;
            let count = one(&g, &format!("MATCH (:N)-[r:P{n}]->(:N) RETURN count(*)")).await;
            match outcome {
                Err(class) => assert_eq!((class, count), (ErrorClass::Cancelled, 0.into())),
                Ok(taken) => {
                    assert_eq!(count, taken);
                    break;
                }
            }
        }
    }
    readers.end().await;
}
