//! What was acknowledged is there after the process was killed, and copies are whole.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use graphplane_node_agent::engines::{BaseSchema, MaterializeRequest, StageMode};

use crate::support::{MIB, PATIENCE, graph, id, limits, materialize, one, rows, stage, start, table};

/// Run by the tests below as a process of its own, and killed by them.
#[tokio::test]
async fn child_works_until_it_is_killed() {
    let (Ok(directory), Ok(work)) = (
        std::env::var("GRAPHPLANE_TEST_DIRECTORY"),
        std::env::var("GRAPHPLANE_TEST_WORK"),
    ) else {
        return;
    };
    let directory = Path::new(&directory);
    if work == "unsafe-arrow" {
        return unsafe_arrow(directory);
    }
    let engines = start(directory, limits()).await;
    let g = engines.database(&id("g")).await.unwrap();
    match work.as_str() {
        "materialize" => {
            let staging = engines.staging(&id("g")).await.unwrap();
            stage(
                &staging,
                "P",
                &[("f", "SELECT range AS id, 'x' AS name FROM range(20000)")],
                StageMode::ReplaceTable,
            )
            .await
            .unwrap();
            let report = materialize(&g, &staging, MaterializeRequest::new(table("P")))
                .await
                .unwrap();
            println!("ready {}", report.rows_ingested);
        }
        "write" => {
            for n in 0.. {
                rows(&g, &format!("CREATE (:P {{id: {n}}})")).await.unwrap();
                println!("ready {n}");
            }
        }
        other => panic!("{other}"),
    }
    std::thread::sleep(Duration::from_secs(600));
}

/// What happens without the transaction around an Arrow table: the table outlives the process.
fn unsafe_arrow(directory: &Path) {
    use std::sync::Arc;
    let config = lbug::SystemConfig::default()
        .buffer_pool_size(64 * MIB)
        .max_db_size(1 << 30);
    let database = lbug::Database::new(directory.join("bare.lbug"), config).unwrap();
    let connection = lbug::Connection::new(&database).unwrap();
    let ids: arrow55::array::ArrayRef = Arc::new(arrow55::array::Int64Array::from(vec![1, 2]));
    let batch = arrow55::record_batch::RecordBatch::try_from_iter([("id", ids)]).unwrap();
    connection.create_arrow_table("stg", &[batch]).unwrap();
    println!("ready 0");
    std::thread::sleep(Duration::from_secs(600));
}

/// A process that is killed with SIGKILL, so that no destructor runs, also when its test fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn child(directory: &Path, work: &str) -> (Killed, impl Iterator<Item = u64>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "durability::child_works_until_it_is_killed", "--nocapture"])
        .env("GRAPHPLANE_TEST_DIRECTORY", directory)
        .env("GRAPHPLANE_TEST_WORK", work)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines
        .map_while(Result::ok)
        .filter_map(|line| line.rsplit_once("ready ")?.1.parse().ok());
    (Killed(child), ready)
}

#[tokio::test]
async fn materialised_rows_survive_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let engines = start(directory.path(), limits()).await;
    engines
        .create(
            &id("g"),
            &BaseSchema::Custom("CREATE NODE TABLE P(id INT64 PRIMARY KEY, name STRING)".into()),
        )
        .await
        .unwrap();
    engines.shutdown().await;
    drop(engines);
    let (process, mut ready) = child(directory.path(), "materialize");
    assert_eq!(ready.next(), Some(20_000));
    drop(process);
    let engines = start(directory.path(), limits()).await;
    let g = engines.database(&id("g")).await.unwrap();
    assert!(!g.recovered());
    assert_eq!(one(&g, "MATCH (p:P) RETURN count(*)").await, 20_000);
    assert_eq!(g.schema().await.unwrap().len(), 1);
    let staging = engines.staging(&id("g")).await.unwrap();
    assert_eq!(staging.table(&table("P")).await.unwrap().unwrap().rows, 20_000);
}

#[tokio::test]
async fn acknowledged_writes_survive_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let engines = start(directory.path(), limits()).await;
    engines
        .create(
            &id("g"),
            &BaseSchema::Custom("CREATE NODE TABLE P(id INT64 PRIMARY KEY)".into()),
        )
        .await
        .unwrap();
    engines.shutdown().await;
    drop(engines);
    let (process, ready) = child(directory.path(), "write");
    let last = ready.take(200).last().unwrap();
    drop(process);
    let engines = start(directory.path(), limits()).await;
    let g = engines.database(&id("g")).await.unwrap();
    assert_eq!(
        one(&g, &format!("MATCH (p:P) WHERE p.id <= {last} RETURN count(*)")).await,
        last + 1
    );
}

#[tokio::test]
async fn an_arrow_table_outside_of_a_transaction_would_ruin_the_database() {
    let directory = tempfile::tempdir().unwrap();
    let (process, mut ready) = child(directory.path(), "unsafe-arrow");
    assert_eq!(ready.next(), Some(0));
    drop(process);
    let config = lbug::SystemConfig::default()
        .buffer_pool_size(64 * MIB)
        .max_db_size(1 << 30);
    // Another test of this process may have registered Arrow data under the same number, in which case it opens, and
    // shows that test's rows: either way it is why we never leave such a table behind.
    match lbug::Database::new(directory.path().join("bare.lbug"), config) {
        Err(error) => assert!(error.to_string().contains("Arrow"), "{error}"),
        Ok(database) => {
            let connection = lbug::Connection::new(&database).unwrap();
            assert!(connection.query("MATCH (n:stg) RETURN n.id").is_ok());
        }
    }
}

#[tokio::test]
async fn leftover_tables_of_a_run_are_removed_when_a_database_is_opened() {
    let (directory, engines, g) = graph("CREATE NODE TABLE P(id INT64 PRIMARY KEY)").await;
    drop(g);
    engines.shutdown().await;
    drop(engines);
    {
        let config = lbug::SystemConfig::default()
            .buffer_pool_size(64 * MIB)
            .max_db_size(1 << 30);
        let database = lbug::Database::new(directory.path().join("databases/g.lbug"), config).unwrap();
        let connection = lbug::Connection::new(&database).unwrap();
        connection
            .query("CREATE NODE TABLE `stg__gp_0a1b2c3d`(id INT64 PRIMARY KEY)")
            .unwrap();
    }
    let engines = start(directory.path(), limits()).await;
    let g = engines.database(&id("g")).await.unwrap();
    let names: Vec<String> = g.schema().await.unwrap().into_iter().map(|table| table.name).collect();
    assert_eq!(names, ["P"]);
}

#[tokio::test]
async fn a_torn_log_is_kept_and_what_it_still_says_is_used() {
    let (directory, engines, g) = graph("CREATE NODE TABLE P(id INT64 PRIMARY KEY)").await;
    g.checkpoint(PATIENCE).await.unwrap();
    for n in 0..10 {
        rows(&g, &format!("CREATE (:P {{id: {n}}})")).await.unwrap();
    }
    // The state that a crash leaves: the data file of the last checkpoint, and a log that ends in the middle.
    let databases = directory.path().join("databases");
    let saved = tempfile::tempdir().unwrap();
    for name in ["g.lbug", "g.lbug.wal"] {
        std::fs::copy(databases.join(name), saved.path().join(name)).unwrap();
    }
    drop(g);
    engines.shutdown().await;
    drop(engines);
    for name in ["g.lbug", "g.lbug.wal"] {
        std::fs::copy(saved.path().join(name), databases.join(name)).unwrap();
    }
    let log = std::fs::OpenOptions::new()
        .write(true)
        .open(databases.join("g.lbug.wal"))
        .unwrap();
    let length = log.metadata().unwrap().len();
    assert!(length > 100);
    log.set_len(length - 20).unwrap();
    drop(log);
    let engines = start(directory.path(), limits()).await;
    let g = engines.database(&id("g")).await.unwrap();
    assert!(g.recovered());
    assert!(engines.info(&id("g")).unwrap().recovered);
    let rows = one(&g, "MATCH (p:P) RETURN count(*)").await.as_u64().unwrap();
    assert!((8..10).contains(&rows), "{rows}");
    let kept = std::fs::read_dir(&databases)
        .unwrap()
        .any(|entry| entry.unwrap().file_name().to_string_lossy().contains("unreadable-wal"));
    assert!(kept);
}

#[tokio::test]
async fn a_snapshot_taken_while_writing_is_whole_and_opens() {
    let ddl = "CREATE NODE TABLE P(id INT64 PRIMARY KEY); CREATE REL TABLE K(FROM P TO P)";
    let (directory, engines, g) = graph(ddl).await;
    let writer = {
        let g = g.clone();
        tokio::spawn(async move {
            for n in 0..400 {
                let text = format!("CREATE (:P {{id: {}}})-[:K]->(:P {{id: {}}})", n * 2, n * 2 + 1);
                rows(&g, &text).await.unwrap();
            }
        })
    };
    let mut copies = Vec::new();
    for n in 0..4 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let target = directory.path().join(format!("copy{n}.lbug"));
        let info = g.snapshot(&target, PATIENCE).await.unwrap();
        assert_eq!(info.size_bytes, std::fs::metadata(&target).unwrap().len());
        assert_eq!(info.sha256.len(), 64);
        copies.push((target, info));
    }
    writer.await.unwrap();
    let error = g.snapshot(&copies[0].0, PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("already exists"), "{error}");
    for (n, (copy, info)) in copies.iter().enumerate() {
        assert_eq!(info.counts.nodes, info.counts.relationships * 2);
        // A copy becomes a database by its name alone.
        drop(engines.clone());
        let fork = directory.path().join(format!("fork{n}"));
        std::fs::create_dir_all(fork.join("databases")).unwrap();
        std::fs::copy(copy, fork.join("databases/fork.lbug")).unwrap();
        let other = start(&fork, limits()).await;
        let database = other.database(&id("fork")).await.unwrap();
        assert_eq!(database.counts().await.unwrap(), info.counts);
        assert_eq!(one(&database, "MATCH (p:P) RETURN count(*) % 2").await, 0);
        rows(&database, "CREATE (:P {id: -1})").await.unwrap();
    }
    assert_eq!(one(&g, "MATCH (p:P) RETURN count(*)").await, 800);
    let left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(
        left.iter().all(|name| !name.to_string_lossy().starts_with(".snapshot")),
        "{left:?}"
    );
}

#[tokio::test]
async fn a_reader_in_the_middle_of_a_result_does_not_spoil_a_snapshot() {
    let (directory, engines, g) = graph("CREATE NODE TABLE P(id INT64 PRIMARY KEY)").await;
    rows(&g, "UNWIND range(1, 50000) AS x CREATE (:P {id: x})")
        .await
        .unwrap();
    let request = graphplane_node_agent::engines::QueryRequest {
        chunk_rows: 10,
        ..graphplane_node_agent::engines::QueryRequest::new("MATCH (p:P) RETURN p.id")
    };
    let stream = g.query(request).await.unwrap();
    rows(&g, "CREATE (:P {id: 0})").await.unwrap();
    let target = directory.path().join("copy.lbug");
    let info = g.snapshot(&target, PATIENCE).await.unwrap();
    assert_eq!(info.counts.nodes, 50_001);
    let (_, _, summary) = stream.collect().await.unwrap();
    assert_eq!(summary.rows, 50_000);
    drop(engines);
}
