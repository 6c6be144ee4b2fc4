//! Staging tables: by column name, one file at a time.

use std::time::{Duration, Instant};

use graphplane_node_agent::engines::{
    ErrorClass, FileFormat, FileId, SqlRequest, StageMode, StageOptions, StagedFile, Staging, StagingKind,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::{PATIENCE, file, graph, id, limits, parquet, stage, start, table};

pub(crate) async fn sql(staging: &Staging, text: &str) -> Vec<Value> {
    let (_, json, _) = staging
        .query(SqlRequest {
            timeout: PATIENCE,
            ..SqlRequest::new(text)
        })
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    serde_json::from_slice(&[b"[", &json[..], b"]"].concat()).unwrap()
}

#[tokio::test]
async fn files_are_matched_by_column_name() {
    let (_directory, engines, _g) = graph("").await;
    let staging = engines.staging(&id("g")).await.unwrap();
    let report = stage(
        &staging,
        "Person",
        &[
            ("a", "SELECT 1 AS identifier, 'x' AS name"),
            ("b", "SELECT 'y' AS name, 2.5 AS score, 2::BIGINT AS identifier"),
        ],
        StageMode::ReplaceTable,
    )
    .await
    .unwrap();
    assert_eq!((report.rows, report.total_rows, report.kind), (2, 2, StagingKind::Node));
    assert_eq!(report.files, [(file("a"), 1), (file("b"), 1)]);
    let rows = sql(
        &staging,
        "SELECT identifier, name, score, file_id FROM Person ORDER BY identifier",
    )
    .await;
    assert_eq!(rows, [json!([1, "x", null, "a"]), json!([2, "y", "2.5", "b"])]);
}

#[tokio::test]
async fn one_file_is_replaced_or_removed_alone() {
    let (_directory, engines, _g) = graph("").await;
    let staging = engines.staging(&id("g")).await.unwrap();
    let all = [
        ("a", "SELECT range AS identifier FROM range(10)"),
        ("b", "SELECT range + 10 AS identifier FROM range(10)"),
    ];
    stage(&staging, "N", &all, StageMode::ReplaceTable).await.unwrap();
    // The same columns: in place.
    let report = stage(
        &staging,
        "N",
        &[("a", "SELECT range AS identifier FROM range(3)")],
        StageMode::ReplaceFiles,
    )
    .await
    .unwrap();
    assert_eq!((report.rows, report.total_rows), (3, 13));
    // A new column and a wider type: the table gets a new shape, and keeps the other file's rows.
    let wider = [("c", "SELECT 1.5 AS identifier, 'x' AS note")];
    let report = stage(&staging, "N", &wider, StageMode::ReplaceFiles).await.unwrap();
    assert_eq!((report.rows, report.total_rows), (1, 14));
    assert_eq!(report.columns[1].name, "note");
    let described = staging.table(&table("n")).await.unwrap().unwrap();
    assert_eq!(
        described.files,
        [("a".to_owned(), 3), ("b".to_owned(), 10), ("c".to_owned(), 1)]
    );
    assert_eq!(staging.remove_file(&table("N"), &file("b")).await.unwrap(), 10);
    assert_eq!(staging.remove_file(&table("N"), &file("b")).await.unwrap(), 0);
    assert_eq!(staging.remove_file(&table("Missing"), &file("b")).await.unwrap(), 0);
    assert_eq!(staging.table(&table("N")).await.unwrap().unwrap().rows, 4);
    let report = stage(&staging, "N", &[("z", "SELECT 1 AS other")], StageMode::ReplaceTable)
        .await
        .unwrap();
    assert_eq!((report.total_rows, report.kind), (1, StagingKind::Other));
    assert!(staging.drop_table(&table("N")).await.unwrap());
    assert!(!staging.drop_table(&table("N")).await.unwrap());
    assert!(staging.tables().await.unwrap().is_empty());
}

#[tokio::test]
async fn relationships_are_recognised_and_keep_parallel_edges() {
    let (_directory, engines, _g) = graph("").await;
    let staging = engines.staging(&id("g")).await.unwrap();
    let sql_text = "SELECT * FROM (VALUES (1, 2, 'x'), (1, 2, 'y'), (1, 2, 'x')) t(\"from\", \"to\", kind)";
    let report = stage(&staging, "KNOWS", &[("f", sql_text)], StageMode::ReplaceTable)
        .await
        .unwrap();
    assert_eq!((report.rows, report.kind), (3, StagingKind::Relationship));
    let names: Vec<&str> = report.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["src", "dst", "kind"]);
}

#[tokio::test]
async fn a_load_that_fails_changes_nothing() {
    let (directory, engines, _g) = graph("").await;
    let staging = engines.staging(&id("g")).await.unwrap();
    stage(
        &staging,
        "N",
        &[("a", "SELECT 1 AS identifier")],
        StageMode::ReplaceTable,
    )
    .await
    .unwrap();
    let incoming = staging.incoming().unwrap();
    std::fs::write(incoming.path(), "this is no Parquet file").unwrap();
    let broken = || {
        vec![StagedFile {
            path: incoming.path().to_owned(),
            file_id: file("broken"),
            format: FileFormat::Parquet,
        }]
    };
    let error = staging
        .stage(&table("N"), broken(), StageMode::ReplaceTable, StageOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.class(), ErrorClass::Invalid);
    assert!(error.to_string().contains("broken"), "{error}");
    for reserved in [
        "SELECT 1 AS file_id",
        "SELECT 1 AS RowId",
        "SELECT 1 AS \"from\", 2 AS \"to\", 3 AS src",
    ] {
        let error = stage(&staging, "N", &[("f", reserved)], StageMode::ReplaceFiles)
            .await
            .unwrap_err();
        assert_eq!(error.class(), ErrorClass::Invalid, "{reserved}: {error}");
    }
    let cancelled = StageOptions {
        cancel: CancellationToken::new(),
        ..StageOptions::default()
    };
    cancelled.cancel.cancel();
    let good = parquet(&staging, "SELECT range AS identifier FROM range(1000000)");
    let files = vec![StagedFile {
        path: good.path().to_owned(),
        file_id: file("big"),
        format: FileFormat::Parquet,
    }];
    let error = staging
        .stage(&table("N"), files, StageMode::ReplaceFiles, cancelled)
        .await
        .unwrap_err();
    assert_eq!(error.class(), ErrorClass::Cancelled, "{error}");
    // A path outside of the incoming directory is not even looked at.
    let outside = directory.path().join("outside.parquet");
    crate::support::write_parquet(&outside, "SELECT 1 AS identifier");
    let files = vec![StagedFile {
        path: outside,
        file_id: file("outside"),
        format: FileFormat::Parquet,
    }];
    assert!(
        staging
            .stage(&table("N"), files, StageMode::ReplaceFiles, StageOptions::default())
            .await
            .is_err()
    );
    let described = staging.table(&table("N")).await.unwrap().unwrap();
    assert_eq!(described.files, [("a".to_owned(), 1)]);
    assert!(
        staging
            .stage(&table("N"), vec![], StageMode::ReplaceFiles, StageOptions::default())
            .await
            .is_err()
    );
    drop((incoming, good));
    assert_eq!(
        std::fs::read_dir(directory.path().join("staging/g.incoming"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn names_that_look_like_sql_are_only_names() {
    let (_directory, engines, _g) = graph("").await;
    let staging = engines.staging(&id("g")).await.unwrap();
    let evil = "x'); DROP TABLE \"N\"; --";
    let sql_text = "SELECT 1 AS \"a\"\"; DROP TABLE N; --\"";
    stage(&staging, "N", &[(evil, sql_text)], StageMode::ReplaceTable)
        .await
        .unwrap();
    stage(
        &staging,
        "N",
        &[(evil, sql_text), ("f", sql_text)],
        StageMode::ReplaceFiles,
    )
    .await
    .unwrap();
    let described = staging.table(&table("N")).await.unwrap().unwrap();
    assert_eq!(described.columns[0].name, "a\"; DROP TABLE N; --");
    assert_eq!(staging.remove_file(&table("N"), &file(evil)).await.unwrap(), 1);
}

#[tokio::test]
async fn sql_results_stream_with_parameters_limits_and_types() {
    let (_directory, engines, _g) = graph("").await;
    let staging = engines.staging(&id("g")).await.unwrap();
    stage(
        &staging,
        "T",
        &[("f", "SELECT range AS n FROM range(10000)")],
        StageMode::ReplaceTable,
    )
    .await
    .unwrap();
    let request = SqlRequest {
        parameters: vec![json!(10), json!("f")],
        max_rows: Some(2500),
        chunk_rows: 1000,
        ..SqlRequest::new("SELECT n FROM T WHERE n >= $1 AND file_id = $2 ORDER BY n")
    };
    let mut stream = staging.query(request).await.unwrap();
    let mut sizes = Vec::new();
    while let Some(chunk) = stream.next_chunk().await.unwrap() {
        sizes.push(chunk.rows);
    }
    assert_eq!(sizes, [1000, 1000, 500]);
    assert!(stream.summary().unwrap().truncated);
    let rows = sql(
        &staging,
        "SELECT sum(n), avg(n)::DECIMAL(10, 2), DATE '2020-01-02', TIMESTAMP '2020-01-02 03:04:05', \
         TIMESTAMPTZ '2020-01-02 03:04:05+02', [1, NULL], {'a': 1}, MAP {1: 'x'}, 'é', 'x'::BLOB, 'NaN'::DOUBLE, NULL, true, \
         uuid() IS NOT NULL, 'infinity'::DATE, INTERVAL 1 DAY IS NOT NULL FROM T",
    )
    .await;
    assert_eq!(
        rows[0],
        json!([
            49995000, "4999.50", "2020-01-02", "2020-01-02T03:04:05", "2020-01-02T01:04:05+00:00", [1, null], {"a": 1}, {"1": "x"},
            "é", "eA==", null, null, true, true, "infinity", true
        ])
    );
    assert!(sql(&staging, "SELECT n FROM T WHERE n < 0").await.is_empty());
    for (text, parameters, class) in [
        ("SELECT * FROM missing", vec![], ErrorClass::Syntax),
        ("SELECT n FROM T WHERE n = ?", vec![], ErrorClass::Invalid),
        ("SELECT n FROM T WHERE n = ?", vec![json!([1])], ErrorClass::Invalid),
        ("SELECT CAST('x' AS INTEGER)", vec![], ErrorClass::Invalid),
    ] {
        let error = staging
            .query(SqlRequest {
                parameters,
                ..SqlRequest::new(text)
            })
            .await
            .unwrap_err();
        assert_eq!(error.class(), class, "{text}: {error}");
    }
}

#[tokio::test]
async fn sql_is_interrupted_by_time_and_by_its_caller() {
    let (_directory, engines, _g) = graph("").await;
    let staging = engines.staging(&id("g")).await.unwrap();
    let endless = "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range * b.range = 7";
    let request = SqlRequest {
        timeout: Duration::from_millis(300),
        ..SqlRequest::new(endless)
    };
    let error = staging.query(request).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Timeout, "{error}");
    let running: Vec<_> = (0..4)
        .map(|_| {
            let staging = staging.clone();
            tokio::spawn(async move {
                staging
                    .query(SqlRequest {
                        timeout: 2 * PATIENCE,
                        ..SqlRequest::new(endless)
                    })
                    .await
                    .map(drop)
            })
        })
        .collect();
    // They have all four places when a fifth gets none.
    let give_up = Instant::now() + PATIENCE;
    let fifth = || {
        staging.query(SqlRequest {
            timeout: Duration::from_millis(50),
            ..SqlRequest::new("SELECT 1")
        })
    };
    while !fifth().await.is_err_and(|error| error.class() == ErrorClass::Busy) {
        assert!(Instant::now() < give_up, "a fifth query still gets a place");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    running.iter().for_each(tokio::task::JoinHandle::abort);
    // All four places are free again.
    for _ in 0..4 {
        assert_eq!(sql(&staging, "SELECT 1").await, [json!([1])]);
    }
}

#[tokio::test]
async fn a_copy_of_staging_is_a_staging_file() {
    let (directory, engines, _g) = graph("").await;
    let staging = engines.staging(&id("g")).await.unwrap();
    stage(
        &staging,
        "T",
        &[("f", "SELECT range AS n FROM range(10000)")],
        StageMode::ReplaceTable,
    )
    .await
    .unwrap();
    let target = directory.path().join("copy.duckdb");
    let size = staging.snapshot(&target).await.unwrap();
    assert_eq!(size, std::fs::metadata(&target).unwrap().len());
    let copy = duckdb::Connection::open(&target).unwrap();
    let rows: i64 = copy.query_row("SELECT count(*) FROM T", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 10_000);
}

#[tokio::test]
async fn rows_that_only_pass_through_are_gone_after_a_crash() {
    let (directory, engines, g) = graph("").await;
    let staging = engines.staging(&id("g")).await.unwrap();
    let own = [("own", "SELECT range AS identifier FROM range(10)")];
    stage(&staging, "Both", &own, StageMode::ReplaceTable).await.unwrap();
    for name in ["Both", "Made"] {
        let incoming = parquet(&staging, "SELECT range + 100 AS identifier FROM range(5)");
        let passing = StagedFile {
            path: incoming.path().to_owned(),
            file_id: FileId::passing(),
            format: FileFormat::Parquet,
        };
        let report = staging
            .stage(
                &table(name),
                vec![passing],
                StageMode::ReplaceFiles,
                StageOptions::default(),
            )
            .await
            .unwrap();
        assert_eq!(report.rows, 5);
    }
    assert!(
        FileId::parse(FileId::passing().as_str()).is_err(),
        "callers must not choose one"
    );
    drop((staging, g));
    engines.shutdown().await;
    drop(engines);
    let engines = start(directory.path(), limits()).await;
    let tables = engines.staging(&id("g")).await.unwrap().tables().await.unwrap();
    let found: Vec<_> = tables.iter().map(|table| (table.name.as_str(), table.rows)).collect();
    assert_eq!(found, [("Both", 10)]);
}
