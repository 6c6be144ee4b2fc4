//! Results as Arrow streams: a type for every type, bounded pieces, an end that says so.

use std::io::Cursor;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, DurationMicrosecondType, Field, Fields, TimeUnit, TimestampMicrosecondType};
use arrow::ipc::reader::StreamReader;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use graphplane_node_agent::engines::{
    Database, Encoding, EngineError, ErrorClass, QueryRequest, RowStream, SqlRequest, StageMode,
};

use crate::support::{graph, id, rows, stage};

const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// Everything that came before the end or an error, in its pieces.
async fn pieces(mut stream: RowStream) -> (Vec<Vec<u8>>, Result<(), EngineError>) {
    let mut all = Vec::new();
    loop {
        match stream.next_chunk().await {
            Ok(Some(chunk)) => all.push(chunk.bytes.to_vec()),
            Ok(None) => return (all, Ok(())),
            Err(error) => return (all, Err(error)),
        }
    }
}

fn decode(bytes: Vec<u8>) -> (Fields, Vec<RecordBatch>) {
    let reader = StreamReader::try_new(Cursor::new(bytes), None).unwrap();
    let fields = reader.schema().fields().clone();
    (fields, reader.map(Result::unwrap).collect())
}

async fn start(database: &Database, text: &str) -> Result<RowStream, EngineError> {
    let request = QueryRequest {
        encoding: Encoding::Arrow,
        ..QueryRequest::new(text)
    };
    database.query(request).await
}

async fn arrow(database: &Database, text: &str) -> (Fields, Vec<RecordBatch>) {
    let stream = start(database, text)
        .await
        .unwrap_or_else(|error| panic!("{text}: {error}"));
    let (all, end) = pieces(stream).await;
    end.unwrap_or_else(|error| panic!("{text}: {error}"));
    let bytes = all.concat();
    assert!(bytes.ends_with(&END), "{text}");
    decode(bytes)
}

/// What a cell shows; times as numbers, since the library knows no names of zones.
fn shown(column: &dyn Array, row: usize) -> String {
    match column.data_type() {
        DataType::Duration(_) => column.as_primitive::<DurationMicrosecondType>().value(row).to_string(),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => {
            column.as_primitive::<TimestampMicrosecondType>().value(row).to_string()
        }
        _ => {
            let options = FormatOptions::default().with_null("NULL");
            ArrayFormatter::try_new(column, &options)
                .unwrap()
                .value(row)
                .to_string()
        }
    }
}

fn list(item: DataType) -> DataType {
    DataType::List(Field::new("item", item, true).into())
}

fn structure(fields: &[(&str, DataType)]) -> DataType {
    DataType::Struct(
        fields
            .iter()
            .map(|(name, ty)| Field::new(*name, ty.clone(), true))
            .collect(),
    )
}

#[tokio::test]
async fn every_type_has_an_arrow_type() {
    let map = DataType::Map(
        Field::new(
            "entries",
            DataType::Struct(Fields::from(vec![
                Field::new("key", DataType::Utf8, false),
                Field::new("value", DataType::Int64, true),
            ])),
            false,
        )
        .into(),
        false,
    );
    let cases = [
        ("BOOL", "true", DataType::Boolean, "true"),
        ("INT64", "-9223372036854775807", DataType::Int64, "-9223372036854775807"),
        ("INT32", "-5", DataType::Int32, "-5"),
        ("INT16", "-5", DataType::Int16, "-5"),
        ("INT8", "-5", DataType::Int8, "-5"),
        ("UINT64", "5", DataType::UInt64, "5"),
        ("UINT32", "5", DataType::UInt32, "5"),
        ("UINT16", "5", DataType::UInt16, "5"),
        ("UINT8", "255", DataType::UInt8, "255"),
        (
            "INT128",
            "CAST('-99999999999999999999' AS INT128)",
            DataType::Decimal128(38, 0),
            "-99999999999999999999",
        ),
        ("DOUBLE", "-0.1", DataType::Float64, "-0.1"),
        ("FLOAT", "0.5", DataType::Float32, "0.5"),
        // The engine's own export makes other numbers of these.
        (
            "DECIMAL(4, 2)",
            "CAST('-1.5' AS DECIMAL(4, 2))",
            DataType::Decimal128(4, 2),
            "-1.50",
        ),
        (
            "DECIMAL(18, 3)",
            "CAST('-1.5' AS DECIMAL(18, 3))",
            DataType::Decimal128(18, 3),
            "-1.500",
        ),
        (
            "DECIMAL(30, 5)",
            "CAST('-1.5' AS DECIMAL(30, 5))",
            DataType::Decimal128(30, 5),
            "-1.50000",
        ),
        ("DATE", "date('1969-12-31')", DataType::Date32, "1969-12-31"),
        (
            "TIMESTAMP",
            "timestamp('1969-12-31 23:59:59.5')",
            DataType::Timestamp(TimeUnit::Microsecond, None),
            "1969-12-31T23:59:59.500",
        ),
        (
            "TIMESTAMP_NS",
            "CAST('2020-02-29 01:02:03.000004' AS TIMESTAMP_NS)",
            DataType::Timestamp(TimeUnit::Nanosecond, None),
            "2020-02-29T01:02:03.000004",
        ),
        (
            "TIMESTAMP_MS",
            "CAST('2020-02-29 01:02:03.004' AS TIMESTAMP_MS)",
            DataType::Timestamp(TimeUnit::Millisecond, None),
            "2020-02-29T01:02:03.004",
        ),
        (
            "TIMESTAMP_SEC",
            "CAST('2020-02-29 01:02:03' AS TIMESTAMP_SEC)",
            DataType::Timestamp(TimeUnit::Second, None),
            "2020-02-29T01:02:03",
        ),
        (
            "TIMESTAMP_TZ",
            "CAST('1970-01-01 02:00:01+02' AS TIMESTAMP_TZ)",
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            "1000000",
        ),
        (
            "INTERVAL",
            "interval('1 day 2 hours')",
            DataType::Duration(TimeUnit::Microsecond),
            "93600000000",
        ),
        ("STRING", "'é'", DataType::Utf8, "é"),
        ("BLOB", "BLOB('\\\\x00\\\\xAB')", DataType::Binary, "00ab"),
        (
            "UUID",
            "CAST('69a32ad7-657e-42fb-aa55-4cadb818ba0a' AS UUID)",
            DataType::FixedSizeBinary(16),
            "69a32ad7657e42fbaa554cadb818ba0a",
        ),
        ("INT64[]", "[1, NULL, 3]", list(DataType::Int64), "[1, NULL, 3]"),
        ("STRING[][]", "[['a'], NULL]", list(list(DataType::Utf8)), "[[a], NULL]"),
        (
            "FLOAT[2]",
            "CAST([0.5, 1.5] AS FLOAT[2])",
            DataType::FixedSizeList(Field::new("item", DataType::Float32, true).into(), 2),
            "[0.5, 1.5]",
        ),
        (
            "STRUCT(a INT64, b STRING[])",
            "{a: 1, b: ['x']}",
            structure(&[("a", DataType::Int64), ("b", list(DataType::Utf8))]),
            "{a: 1, b: [x]}",
        ),
        ("MAP(STRING, INT64)", "map(['k'], [1])", map, "{k: 1}"),
        (
            "UNION(a INT64, b STRING)",
            "union_value(b := 'x')",
            DataType::Utf8,
            "\"x\"",
        ),
    ];
    let (_directory, _engines, g) = graph("").await;
    for (number, (ty, literal, expected, text)) in cases.into_iter().enumerate() {
        rows(
            &g,
            &format!("CREATE NODE TABLE T{number}(id INT64 PRIMARY KEY, v {ty})"),
        )
        .await
        .unwrap();
        rows(
            &g,
            &format!("CREATE (:T{number} {{id: 1, v: {literal}}}), (:T{number} {{id: 2}})"),
        )
        .await
        .unwrap_or_else(|error| panic!("{ty}: {error}"));
        let (fields, batches) = arrow(&g, &format!("MATCH (t:T{number}) RETURN t.v AS v ORDER BY t.id")).await;
        assert_eq!(fields[0].data_type(), &expected, "{ty}");
        let column = batches[0].column(0);
        assert_eq!(column.len(), 2, "{ty}");
        assert_eq!(shown(column, 0), text, "{ty}");
        assert!(column.is_null(1), "{ty}");
        assert_eq!(column.null_count(), 1, "{ty}");
    }
}

#[tokio::test]
async fn nodes_relationships_and_paths_are_their_json() {
    let (_directory, _engines, g) =
        graph("CREATE NODE TABLE P(id INT64 PRIMARY KEY, name STRING); CREATE REL TABLE K(FROM P TO P, since INT64)")
            .await;
    rows(&g, "CREATE (:P {id: 1, name: 'a'})-[:K {since: 3}]->(:P {id: 2})")
        .await
        .unwrap();
    let text = "MATCH p = (a:P)-[r:K*1..1]->(b:P), (a)-[k:K]->(b) RETURN a, k, p, id(b) AS i, NULL AS n";
    let (fields, batches) = arrow(&g, text).await;
    let plain = rows(&g, text).await.unwrap();
    for (column, name) in ["a", "k", "p"].into_iter().enumerate() {
        assert_eq!(
            fields[column]
                .metadata()
                .get("ARROW:extension:name")
                .map(String::as_str),
            Some("arrow.json")
        );
        let cell = batches[0].column(column).as_string::<i32>().value(0);
        assert_eq!(serde_json::from_str::<serde_json::Value>(cell).unwrap(), plain[0][name]);
    }
    assert_eq!(
        fields[3].data_type(),
        &structure(&[("offset", DataType::UInt64), ("table", DataType::UInt64)])
    );
    assert_eq!(shown(batches[0].column(3), 0), "{offset: 1, table: 0}");
    assert!(batches[0].column(4).logical_null_count() == 1);
}

#[tokio::test]
async fn pieces_are_bounded_and_the_end_is_written() {
    let (_directory, _engines, g) = graph("").await;
    let stream = start(&g, "UNWIND range(1, 200) AS i RETURN i, repeat('x', 20000) AS text")
        .await
        .unwrap();
    let (all, end) = pieces(stream).await;
    end.unwrap();
    assert!(all.len() > 8, "{} pieces", all.len());
    assert!(all.iter().all(|piece| piece.len() < 512 << 10));
    let (_, batches) = decode(all.concat());
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 200);

    let (fields, batches) = arrow(&g, "UNWIND range(1, 10) AS i WITH i WHERE i > 10 RETURN i, 'x' AS s").await;
    assert_eq!((fields.len(), batches.len()), (2, 0));
}

#[tokio::test]
async fn an_error_in_the_middle_leaves_no_end() {
    let (_directory, _engines, g) = graph("").await;
    // The binding panics on a date beyond the year 9999, when its row is read: where it is encoded, or in a long result
    // by a thread of its own.
    for (bad, last) in [(4_500, 5_000), (24_500, 30_000)] {
        let text = format!(
            "UNWIND range(1, {last}) AS i \
             RETURN CASE WHEN i = {bad} THEN date('20000-01-01') ELSE date('2020-01-01') END AS d"
        );
        let (all, end) = pieces(start(&g, &text).await.unwrap()).await;
        assert_eq!(end.unwrap_err().class(), ErrorClass::Invalid);
        let bytes = all.concat();
        assert!(!bytes.ends_with(&END));
        let (_, batches) = decode(bytes);
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        assert!((1..bad).contains(&rows), "{rows} rows");
    }
    assert_eq!(
        start(&g, "RETURN date('20000-01-01')").await.err().unwrap().class(),
        ErrorClass::Invalid
    );
}

#[tokio::test]
async fn staging_tables_are_read_as_arrow_too() {
    let (_directory, engines, _g) = graph("").await;
    let staging = engines.staging(&id("g")).await.unwrap();
    let people = "SELECT i AS identifier, 'n' || i AS name, CASE WHEN i % 2 = 0 THEN i / 2 END AS half, \
                  (CASE WHEN i % 3 = 0 THEN 'a' ELSE 'b' END)::ENUM('a', 'b') AS kind FROM range(5000) t(i)";
    stage(&staging, "People", &[("f", people)], StageMode::ReplaceTable)
        .await
        .unwrap();
    let request = |sql: &str| SqlRequest {
        encoding: Encoding::Arrow,
        ..SqlRequest::new(sql)
    };
    let stream = staging
        .query(request("SELECT * FROM People ORDER BY identifier"))
        .await
        .unwrap();
    assert_eq!(&stream.columns()[..2], ["identifier", "name"]);
    let (all, end) = pieces(stream).await;
    end.unwrap();
    assert!(all.concat().ends_with(&END));
    let (_, batches) = decode(all.concat());
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 5000);
    let first = &batches[0];
    let names: Vec<_> = (0..4).map(|row| shown(first.column(1), row)).collect();
    assert_eq!(names, ["n0", "n1", "n2", "n3"]);
    assert!(first.column(2).is_null(1) && !first.column(2).is_null(2));

    let cut = SqlRequest {
        max_rows: Some(7),
        ..request("SELECT identifier FROM People")
    };
    let mut stream = staging.query(cut).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next_chunk().await.unwrap() {
        bytes.extend_from_slice(&chunk.bytes);
    }
    let summary = stream.summary().unwrap();
    assert_eq!((summary.rows, summary.truncated), (7, true));
    assert_eq!(decode(bytes).1.iter().map(RecordBatch::num_rows).sum::<usize>(), 7);
}
