//! Callers cannot reach outside their database, and files have one owner.

use std::process::Command;

use graphplane_node_agent::engines::{
    BaseSchema, EngineLimits, Engines, EnginesConfig, ErrorClass, QueryRequest, SqlRequest, StageMode,
};

use crate::support::{MIB, PATIENCE, graph, id, limits, one, rows, stage, start};

/// Each of these does something outside of the database when the engine is asked directly.
const HOSTILE: &[&str] = &[
    "LOAD FROM '{file}' (file_format='csv') RETURN *",
    "MATCH (n) LOAD FROM '{file}' (file_format='csv') RETURN *",
    "/* **/ ' */ LOAD FROM \"{file}\" (file_format='csv') RETURN * //'",
    "WITH 1 AS x SKIP 0LOAD FROM '{file}' (file_format='csv') RETURN *",
    "COPY (RETURN 1) TO '{out}.csv'",
    "EXPORT DATABASE '{out}'",
    "IMPORT DATABASE '{out}'",
    "ATTACH '{other}' AS o (dbtype lbug)",
    "INSTALL httpfs",
    "LOAD EXTENSION '{out}.so'",
    "CALL timeout = 0",
    "CALL home_directory = '/tmp'",
    "CALL current_setting('home_directory') RETURN *",
    "CREATE NODE TABLE stolen(a STRING PRIMARY KEY) WITH (storage = 'arrow://arrow_0')",
    "CREATE NODE TABLE stolen AS LOAD FROM '{file}' (file_format='csv') RETURN column0",
    "CREATE GRAPH other",
    "BEGIN TRANSACTION",
    "RETURN 1; LOAD FROM '{file}' (file_format='csv') RETURN *",
];

#[tokio::test]
async fn nothing_outside_the_database_can_be_reached() {
    let (directory, engines, g) = graph("CREATE NODE TABLE N(id INT64 PRIMARY KEY)").await;
    engines.create(&id("other"), &BaseSchema::Empty).await.unwrap();
    let secret = directory.path().join("secret.csv");
    std::fs::write(&secret, "a\nsecret\n").unwrap();
    let out = directory.path().join("out");
    for text in HOSTILE {
        let text = text
            .replace("{file}", &secret.display().to_string())
            .replace("{out}", &out.display().to_string())
            .replace(
                "{other}",
                &directory.path().join("databases/other.lbug").display().to_string(),
            );
        let error = rows(&g, &text).await.expect_err(&text);
        assert_eq!(error.class(), ErrorClass::Forbidden, "{text}: {error}");
    }
    let left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(
        left.iter().all(|name| !name.to_string_lossy().starts_with("out")),
        "{left:?}"
    );
    assert_eq!(one(&g, "CALL show_tables() RETURN name").await, "N");
}

#[tokio::test]
async fn the_engine_alone_would_read_the_file() {
    // Without the guard the first of the statements above works: this is what it is there for.
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret.csv");
    std::fs::write(&secret, "a\nsecret\n").unwrap();
    let config = lbug::SystemConfig::default()
        .buffer_pool_size(64 * MIB)
        .max_db_size(1 << 30);
    let database = lbug::Database::new(directory.path().join("x.lbug"), config).unwrap();
    let connection = lbug::Connection::new(&database).unwrap();
    let text = format!("LOAD FROM '{}' (file_format='csv') RETURN *", secret.display());
    assert!(connection.query(&text).is_ok());
}

#[tokio::test]
async fn sql_sees_its_own_staging_tables_only() {
    let (directory, engines, _g) = graph("").await;
    engines.create(&id("other"), &BaseSchema::Empty).await.unwrap();
    let staging = engines.staging(&id("g")).await.unwrap();
    let other = engines.staging(&id("other")).await.unwrap();
    stage(&staging, "mine", &[("f", "SELECT 1 AS a")], StageMode::ReplaceTable)
        .await
        .unwrap();
    stage(&other, "theirs", &[("f", "SELECT 1 AS a")], StageMode::ReplaceTable)
        .await
        .unwrap();
    let theirs = directory.path().join("staging/other.duckdb");
    for sql in [
        "SELECT * FROM read_text('/etc/hostname')".to_owned(),
        "SELECT * FROM '/etc/hostname'".to_owned(),
        format!(
            "SELECT * FROM '{}'",
            directory.path().join("staging/other.incoming/x.parquet").display()
        ),
        format!("ATTACH '{}' AS o", theirs.display()),
        "COPY mine TO '/tmp/graphplane-none.csv'".to_owned(),
        "INSERT INTO mine VALUES (1, 'x')".to_owned(),
        "WITH x AS (SELECT 1) INSERT INTO mine SELECT 1, 'x'".to_owned(),
        "DROP TABLE mine".to_owned(),
        "SELECT 1; DROP TABLE mine".to_owned(),
        "SET threads = 64".to_owned(),
        "INSTALL httpfs".to_owned(),
    ] {
        let error = staging.query(SqlRequest::new(sql.as_str())).await.expect_err(&sql);
        assert!(
            matches!(error.class(), ErrorClass::Forbidden | ErrorClass::Syntax),
            "{sql}: {error}"
        );
    }
    let (_, json, _) = staging
        .query(SqlRequest::new("SELECT * FROM mine"))
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    assert_eq!(json, "[1,\"f\"]");
}

#[tokio::test]
async fn a_data_directory_has_one_agent() {
    let directory = tempfile::tempdir().unwrap();
    let first = start(directory.path(), limits()).await;
    let config = EnginesConfig {
        data_dir: directory.path().to_owned(),
        read_only: false,
        limits: limits(),
    };
    let error = Engines::start(config).await.unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    drop(first);
}

/// Run by [`a_file_has_one_owner_across_processes`] as a process of its own.
#[tokio::test]
async fn child_opens_the_same_directory() {
    let Ok(directory) = std::env::var("GRAPHPLANE_TEST_DIRECTORY") else {
        return;
    };
    let config = EnginesConfig {
        data_dir: directory.into(),
        read_only: false,
        limits: limits(),
    };
    match Engines::start(config).await {
        Ok(_) => println!("child: opened"),
        Err(error) => println!("child: {:?}", error.class()),
    }
}

#[tokio::test]
async fn a_file_has_one_owner_across_processes() {
    let (directory, engines, g) = graph("CREATE NODE TABLE N(id INT64 PRIMARY KEY)").await;
    // Copying a file closes a descriptor of it, which is what releases a POSIX lock.
    g.snapshot(&directory.path().join("copy"), PATIENCE).await.unwrap();
    let child = |directory: &std::path::Path| {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "isolation::child_opens_the_same_directory", "--nocapture"])
            .env("GRAPHPLANE_TEST_DIRECTORY", directory)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(child(directory.path()).contains("child: Busy"));
    drop(g);
    engines.shutdown().await;
    drop(engines);
    assert!(child(directory.path()).contains("child: opened"));
}

#[tokio::test]
async fn more_databases_fit_than_with_the_engines_own_limits() {
    // Each takes 8 TiB of address space unless told otherwise, and the sixteenth fails.
    let directory = tempfile::tempdir().unwrap();
    let limits = EngineLimits {
        database_memory: 16 * MIB,
        reader_threads: 1,
        engine_threads: 1,
        ..limits()
    };
    let engines = start(directory.path(), limits).await;
    let mut open = Vec::new();
    for n in 0..24 {
        let id = id(&format!("g{n}"));
        engines.create(&id, &BaseSchema::Empty).await.unwrap();
        open.push(engines.database(&id).await.unwrap());
    }
    for database in &open {
        assert_eq!(one(database, "RETURN 1").await, 1);
    }
    assert_eq!(engines.usage().open_databases, 24);
}

#[tokio::test]
async fn memory_stays_within_the_node_by_closing_what_is_not_used() {
    let directory = tempfile::tempdir().unwrap();
    let limits = EngineLimits {
        node_memory: 400 * MIB,
        database_memory: 100 * MIB,
        staging_memory: 100 * MIB,
        ..limits()
    };
    let engines = start(directory.path(), limits).await;
    for n in 0..6 {
        engines.create(&id(&format!("g{n}")), &BaseSchema::Empty).await.unwrap();
    }
    for n in 0..6 {
        let database = engines.database(&id(&format!("g{n}"))).await.unwrap();
        assert_eq!(one(&database, "RETURN 1").await, 1);
        drop(database);
        let usage = engines.usage();
        assert!(usage.reserved_bytes <= usage.budget_bytes, "{usage:?}");
    }
    let mut held = Vec::new();
    for n in 0..4 {
        held.push(engines.database(&id(&format!("g{n}"))).await.unwrap());
    }
    let error = engines.database(&id("g5")).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Busy, "{error}");
    assert!(error.retry_after().is_some());
    held.pop();
    engines.database(&id("g5")).await.unwrap();
    // What is left serves one half of a database at a time, without anybody's waiting for the other half.
    for _ in 0..2 {
        engines.staging(&id("g5")).await.unwrap();
        engines.database(&id("g5")).await.unwrap();
    }
}

#[tokio::test]
async fn a_query_that_needs_too_much_memory_fails_alone() {
    let directory = tempfile::tempdir().unwrap();
    let limits = EngineLimits {
        database_memory: 32 * MIB,
        ..limits()
    };
    let engines = start(directory.path(), limits).await;
    engines.create(&id("g"), &BaseSchema::Empty).await.unwrap();
    let g = engines.database(&id("g")).await.unwrap();
    let text =
        "UNWIND range(1, 4000000) AS x RETURN x, CAST(x AS STRING) + 'abcdefghijklmnopqrstuvwxyz' AS s ORDER BY s";
    let request = QueryRequest {
        timeout: PATIENCE,
        ..QueryRequest::new(text)
    };
    let error = g.query(request).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::OutOfMemory, "{error}");
    assert_eq!(one(&g, "RETURN 1").await, 1);
}
