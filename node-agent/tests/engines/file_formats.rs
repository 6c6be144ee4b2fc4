//! CSV, JSON and Arrow files on their way into staging tables, good ones and hostile ones.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, DictionaryArray, Float64Array, Int32Array, Int64Array, ListArray, NullArray,
    RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Float32Type, Int32Type};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use graphplane_node_agent::engines::{
    EngineError, ErrorClass, FileFormat, IncomingFile, StageMode, StageOptions, StageReport, StagedFile, Staging,
    StagingKind,
};
use serde_json::json;

use crate::staging::sql;
use crate::support::{file, graph, id, stage, table};

async fn load(
    staging: &Staging,
    name: &str,
    files: &[(&str, FileFormat, &[u8])],
    mode: StageMode,
    options: StageOptions,
) -> Result<StageReport, EngineError> {
    let written: Vec<(IncomingFile, StagedFile)> = files
        .iter()
        .map(|(file_id, format, bytes)| {
            let incoming = staging.incoming().unwrap();
            std::fs::write(incoming.path(), bytes).unwrap();
            let staged = StagedFile {
                path: incoming.path().to_owned(),
                file_id: file(file_id),
                format: *format,
            };
            (incoming, staged)
        })
        .collect();
    let staged = written.iter().map(|(_, staged)| staged.clone()).collect();
    staging.stage(&table(name), staged, mode, options).await
}

async fn add(staging: &Staging, name: &str, format: FileFormat, bytes: &[u8]) -> Result<StageReport, EngineError> {
    load(
        staging,
        name,
        &[("f", format, bytes)],
        StageMode::ReplaceFiles,
        StageOptions::default(),
    )
    .await
}

fn types(report: &StageReport) -> Vec<(&str, &str)> {
    let columns = report.columns.iter();
    columns
        .map(|column| (column.name.as_str(), column.type_name.as_str()))
        .collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

fn batch() -> RecordBatch {
    let dictionary: DictionaryArray<Int32Type> = vec![Some("red"), None, Some("red")].into_iter().collect();
    let lists = vec![Some(vec![Some(1.5), None, Some(f32::NAN)]), None, Some(vec![])];
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("identifier", Arc::new(Int64Array::from(vec![1, i64::MAX, 3]))),
        ("name", Arc::new(StringArray::from(vec![Some("é\"\n"), None, Some("")]))),
        (
            "score",
            Arc::new(Float64Array::from(vec![Some(0.1), Some(f64::NAN), None])),
        ),
        ("colour", Arc::new(dictionary)),
        (
            "vector",
            Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(lists)),
        ),
        (
            "bytes",
            Arc::new(BinaryArray::from_opt_vec(vec![
                Some(&b"\x00\xff"[..]),
                None,
                Some(&b""[..]),
            ])),
        ),
        (
            "at",
            Arc::new(TimestampMicrosecondArray::from(vec![
                Some(1_577_934_245_000_004),
                None,
                Some(0),
            ])),
        ),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn stream(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

fn arrow_file(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = FileWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

#[tokio::test]
async fn files_of_every_format_make_one_table() {
    let (directory, engines, _g) = graph("").await;
    let staging = engines.staging(&id("g")).await.unwrap();
    stage(
        &staging,
        "N",
        &[("p", "SELECT 1::BIGINT AS identifier, 'parquet' AS name")],
        StageMode::ReplaceTable,
    )
    .await
    .unwrap();
    let arrow = RecordBatch::try_from_iter([
        ("name", Arc::new(StringArray::from(vec!["arrow"])) as ArrayRef),
        ("identifier", Arc::new(Int64Array::from(vec![4])) as ArrayRef),
    ])
    .unwrap();
    let csv = gzip(b"name,identifier\ncsv,2\n");
    let json = zstd::encode_all(&b"{\"identifier\": 3, \"name\": \"json\", \"more\": 1.5}\n"[..], 3).unwrap();
    let arrow = stream(&[arrow]);
    let files = [
        ("c", FileFormat::Csv, &csv[..]),
        ("j", FileFormat::Json, &json[..]),
        ("a", FileFormat::Arrow, &arrow[..]),
    ];
    // Twice: rows of the same files are replaced.
    for _ in 0..2 {
        let options = StageOptions::default();
        let report = load(&staging, "N", &files, StageMode::ReplaceFiles, options)
            .await
            .unwrap();
        assert_eq!((report.rows, report.total_rows, report.kind), (3, 4, StagingKind::Node));
    }
    let rows = sql(
        &staging,
        "SELECT identifier, name, more, file_id FROM N ORDER BY identifier",
    )
    .await;
    assert_eq!(
        rows,
        [
            json!([1, "parquet", null, "p"]),
            json!([2, "csv", null, "c"]),
            json!([3, "json", 1.5, "j"]),
            json!([4, "arrow", null, "a"]),
        ]
    );
    let options = StageOptions {
        null_columns: vec!["name".into()],
        ..StageOptions::default()
    };
    load(&staging, "N", &files, StageMode::ReplaceFiles, options)
        .await
        .unwrap();
    assert_eq!(sql(&staging, "SELECT count(name) FROM N").await, [json!([1])]);
    assert_eq!(staging.remove_file(&table("N"), &file("c")).await.unwrap(), 1);
    let left = std::fs::read_dir(directory.path().join("staging/g.incoming")).unwrap();
    assert_eq!(left.count(), 0);
}

#[tokio::test]
async fn csv_columns_have_the_type_that_fits_the_whole_file() {
    let (_directory, engines, _g) = graph("").await;
    let staging = engines.staging(&id("g")).await.unwrap();
    let mut text = String::from("\u{feff}from,to,late,zeros,wide,real,flag,day,at,zoned,\"q,\"\"x\",none\r\n");
    let row = "1,2,3,007,9223372036854775808,1.5,true,2020-01-02,2020-01-02 03:04,2020-01-02T03:04:05Z,\"#a\nb\",\r\n";
    text.push_str(&row.repeat(40_000));
    text.push_str("#,2,x,1,1,3,FALSE,,,,\"\",");
    let report = add(&staging, "E", FileFormat::Csv, text.as_bytes()).await.unwrap();
    assert_eq!((report.rows, report.kind), (40_001, StagingKind::Relationship));
    assert_eq!(
        types(&report),
        [
            ("src", "VARCHAR"),
            ("dst", "BIGINT"),
            ("late", "VARCHAR"),
            ("zeros", "VARCHAR"),
            ("wide", "VARCHAR"),
            ("real", "DOUBLE"),
            ("flag", "BOOLEAN"),
            ("day", "DATE"),
            ("at", "TIMESTAMP"),
            ("zoned", "TIMESTAMP WITH TIME ZONE"),
            ("q,\"x", "VARCHAR"),
            ("none", "VARCHAR"),
        ]
    );
    // Nothing between commas is NULL, nothing between quotes is an empty text.
    let rows = sql(
        &staging,
        "SELECT DISTINCT src, late, zeros, wide, flag, day, \"q,\"\"x\", none FROM E ORDER BY src DESC",
    )
    .await;
    assert_eq!(
        rows,
        [
            json!([
                "1",
                "3",
                "007",
                "9223372036854775808",
                true,
                "2020-01-02",
                "#a\nb",
                null
            ]),
            json!(["#", "x", "1", "1", false, null, "", null]),
        ]
    );
}

#[tokio::test]
async fn texts_have_to_fit_the_table() {
    let (_directory, engines, _g) = graph("").await;
    let staging = engines.staging(&id("g")).await.unwrap();
    let first = [(
        "p",
        "SELECT 1::BIGINT AS identifier, '007' AS code, DATE '2020-01-01' AS day",
    )];
    stage(&staging, "N", &first, StageMode::ReplaceTable).await.unwrap();
    for (format, text, parts) in [
        (
            FileFormat::Csv,
            "identifier,code,day\n1,1,\nx y,2,\n",
            ["identifier", "row 2", "x y"],
        ),
        (
            FileFormat::Csv,
            "identifier,day\n1,2020-01-02\n2,\n3,2020-02-30\n",
            ["day", "row 3", "2020-02-30"],
        ),
        (
            FileFormat::Csv,
            "identifier\n007\n1.5\n",
            ["identifier", "row 2", "1.5"],
        ),
        (
            FileFormat::Json,
            "{\"identifier\": 1}\n{\"identifier\": \"x\"}\n",
            ["identifier", "row 2", "x"],
        ),
        (
            FileFormat::Json,
            "{\"identifier\": 1}\n{\"identifier\": {\"a\": 1}}\n",
            ["identifier", "row 2", "a"],
        ),
    ] {
        let error = add(&staging, "N", format, text.as_bytes()).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Invalid, "{text}: {error}");
        let message = error.to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{text}: {message}");
        assert!(
            message.contains("f cannot be read as ") && !message.contains("incoming"),
            "{message}"
        );
    }
    assert_eq!(
        staging.table(&table("N")).await.unwrap().unwrap().files,
        [("p".to_owned(), 1)]
    );
    // Numbers stay as they are written where the table has texts, and are widened as those of other files are.
    let report = add(&staging, "N", FileFormat::Csv, b"identifier,code\n2.5,8\n3,09\n")
        .await
        .unwrap();
    assert_eq!(
        types(&report),
        [("identifier", "DOUBLE"), ("code", "VARCHAR"), ("day", "DATE")]
    );
    let rows = sql(&staging, "SELECT code FROM N ORDER BY identifier").await;
    assert_eq!(rows, [json!(["007"]), json!(["8"]), json!(["09"])]);
}

#[tokio::test]
async fn arrow_keeps_types_and_values() {
    let (_directory, engines, _g) = graph("").await;
    let staging = engines.staging(&id("g")).await.unwrap();
    let one = batch();
    let twice = [one.clone(), one];
    for bytes in [stream(&twice), arrow_file(&twice)] {
        let report = add(&staging, "N", FileFormat::Arrow, &bytes).await.unwrap();
        assert_eq!(report.rows, 6);
        assert_eq!(
            types(&report),
            [
                ("identifier", "BIGINT"),
                ("name", "VARCHAR"),
                ("score", "DOUBLE"),
                ("colour", "VARCHAR"),
                ("vector", "FLOAT[]"),
                ("bytes", "BLOB"),
                ("at", "TIMESTAMP"),
            ]
        );
        let rows = sql(
            &staging,
            "SELECT DISTINCT identifier, name, isnan(score), colour, vector::VARCHAR, bytes, \"at\" FROM N ORDER BY identifier",
        )
        .await;
        assert_eq!(
            rows,
            [
                json!([
                    1,
                    "é\"\n",
                    false,
                    "red",
                    "[1.5, NULL, nan]",
                    "AP8=",
                    "2020-01-02T03:04:05.000004"
                ]),
                json!([3, "", null, "red", "[]", "", "1970-01-01T00:00:00"]),
                json!([i64::MAX, null, true, null, null, null, null]),
            ]
        );
    }
    let none = batch().slice(0, 0);
    assert_eq!(
        add(&staging, "N", FileFormat::Arrow, &stream(&[none]))
            .await
            .unwrap()
            .rows,
        0
    );
}

#[tokio::test]
async fn a_file_that_is_broken_on_purpose_changes_nothing() {
    let (directory, engines, _g) = graph("").await;
    let staging = engines.staging(&id("g")).await.unwrap();
    stage(
        &staging,
        "N",
        &[("p", "SELECT 1 AS identifier")],
        StageMode::ReplaceTable,
    )
    .await
    .unwrap();
    let long = format!("a,b\n{},1\n", "x".repeat(3_000_000)).into_bytes();
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000)).into_bytes();
    let csv: [&[u8]; 11] = [
        b"",
        b"a,a\n1,2\n",
        b"1,2\n3,4\n",
        b"a,b\n1\n",
        b"a,b\n1,2,3\n",
        b"a,b\n\"1,2\n",
        b"a,b\n\xe9,2\n",
        b"\xff\xfea\0,\0b\0\n\0",
        b"a,rowid\n1,2\n",
        &long,
        b"\x1f\x8b\x08nothing that was packed",
    ];
    let json: [&[u8]; 7] = [
        b"",
        b"1\n2\n",
        b"{\"a\": 1}\n{\"a\":\n",
        b"{\"a\": 1, \"a\": 2}\n",
        b"{\"a\": \"\xe9\"}\n",
        b"[{\"a\": 1}] x",
        b"(\xb5/\xfd and so on",
    ];
    let mut files: Vec<(FileFormat, Vec<u8>)> = Vec::new();
    files.extend(csv.iter().map(|bytes| (FileFormat::Csv, bytes.to_vec())));
    files.extend(json.iter().map(|bytes| (FileFormat::Json, bytes.to_vec())));
    files.push((
        FileFormat::Arrow,
        b"no Arrow at all, but long enough for a length".to_vec(),
    ));
    files.push((FileFormat::Json, deep));
    let same = RecordBatch::try_from_iter([
        ("a", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
        ("A", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
    ])
    .unwrap();
    files.push((FileFormat::Arrow, stream(&[same])));
    for (format, bytes) in files {
        let error = add(&staging, "N", format, &bytes).await.unwrap_err();
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        assert_eq!(error.class(), ErrorClass::Invalid, "{format:?} {shown}: {error}");
        assert!(!error.to_string().contains("incoming"), "{shown}: {error}");
    }
    // What is small when it is packed is not loaded beyond the limit.
    let bomb = gzip(format!("a\n{}", "1\n".repeat(1 << 20)).as_bytes());
    let options = StageOptions {
        max_bytes: Some(1 << 20),
        ..StageOptions::default()
    };
    assert!(bomb.len() < 1 << 16);
    let files = [("f", FileFormat::Csv, &bomb[..])];
    let error = load(&staging, "N", &files, StageMode::ReplaceFiles, options)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("unpacked"), "{error}");
    // Nor beyond what the volume has free, where the tier has no limit.
    for format in [FileFormat::Csv, FileFormat::Arrow] {
        let arrow = stream(&[batch()]);
        let bytes = if format == FileFormat::Csv { &bomb } else { &arrow };
        let options = StageOptions {
            floor: u64::MAX,
            ..StageOptions::default()
        };
        let files = [("f", format, &bytes[..])];
        let error = load(&staging, "N", &files, StageMode::ReplaceFiles, options)
            .await
            .unwrap_err();
        assert_eq!(error.class(), ErrorClass::Capacity, "{format:?}: {error}");
        assert!(error.to_string().contains("free"), "{error}");
    }
    assert_eq!(
        staging.table(&table("N")).await.unwrap().unwrap().files,
        [("p".to_owned(), 1)]
    );
    let left = std::fs::read_dir(directory.path().join("staging/g.incoming")).unwrap();
    assert_eq!(left.count(), 0);
}

#[tokio::test]
async fn no_file_has_too_many_columns() {
    let (_directory, engines, _g) = graph("").await;
    let staging = engines.staging(&id("g")).await.unwrap();
    let select = |start: usize, count: usize| {
        let columns: Vec<String> = (start..start + count).map(|index| format!("1 AS c{index}")).collect();
        format!("SELECT {}", columns.join(", "))
    };
    let parquet = |start, count| {
        let incoming = crate::support::parquet(&staging, &select(start, count));
        std::fs::read(incoming.path()).unwrap()
    };
    let arrow = |count: usize| {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let columns = (0..count).map(|index| (format!("c{index}"), Arc::clone(&column)));
        stream(&[RecordBatch::try_from_iter(columns).unwrap()])
    };
    let csv = |count: usize| {
        let names: Vec<String> = (0..count).map(|index| format!("c{index}")).collect();
        format!("{}\n", names.join(",")).into_bytes()
    };
    for (format, bytes) in [
        (FileFormat::Parquet, parquet(0, 2001)),
        (FileFormat::Arrow, arrow(2001)),
        (FileFormat::Csv, csv(2001)),
    ] {
        // Which of several it is, too.
        let few = parquet(0, 1);
        let files = [("few", FileFormat::Parquet, &few[..]), ("many", format, &bytes[..])];
        for files in [&files[..], &files[1..]] {
            let error = load(&staging, "N", files, StageMode::ReplaceFiles, StageOptions::default())
                .await
                .unwrap_err();
            assert_eq!(error.class(), ErrorClass::Invalid, "{format:?}: {error}");
            let text = error.to_string();
            for part in ["many cannot be read", "2001 columns", "at most 2000"] {
                assert!(text.contains(part), "{format:?}: {part}: {text}");
            }
            assert!(!text.contains("few"), "{format:?}: {text}");
        }
    }
    // Nor does a table, whose files are fine each by itself.
    let (one, other) = (parquet(0, 2000), parquet(1, 2000));
    let both = [
        ("one", FileFormat::Parquet, &one[..]),
        ("other", FileFormat::Parquet, &other[..]),
    ];
    let error = load(&staging, "N", &both, StageMode::ReplaceFiles, StageOptions::default())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("2001 columns"), "{error}");
    let report = load(
        &staging,
        "N",
        &both[..1],
        StageMode::ReplaceFiles,
        StageOptions::default(),
    );
    assert_eq!(report.await.unwrap().columns.len(), 2000);
    let error = load(
        &staging,
        "N",
        &both[1..],
        StageMode::ReplaceFiles,
        StageOptions::default(),
    )
    .await
    .unwrap_err();
    assert!(
        error.to_string().contains("the table would have 2001 columns"),
        "{error}"
    );
}

#[tokio::test]
async fn no_byte_of_an_arrow_file_can_hurt_the_agent() {
    let (_directory, engines, _g) = graph("").await;
    let staging = engines.staging(&id("g")).await.unwrap();
    let good = stream(&[batch()]);
    // Each byte of lengths, offsets and descriptions is in its turn the largest, and the file ends anywhere.
    for at in (0..good.len()).step_by(11) {
        let mut broken = good.clone();
        broken[at] = if broken[at] == 0xff { 0x7f } else { 0xff };
        for bytes in [&broken[..], &good[..at]] {
            let files = [("f", FileFormat::Arrow, bytes)];
            let options = StageOptions::default();
            if let Err(error) = load(&staging, "N", &files, StageMode::ReplaceTable, options).await {
                assert_eq!(error.class(), ErrorClass::Invalid, "byte {at}: {error}");
            }
        }
    }
    assert_eq!(add(&staging, "M", FileFormat::Arrow, &good).await.unwrap().rows, 3);
}

#[tokio::test]
async fn a_row_of_arrow_without_end_is_refused() {
    let (_directory, engines, _g) = graph("").await;
    let staging = engines.staging(&id("g")).await.unwrap();
    // A thousand million values that take no bytes.
    let many = 1_000_000_000;
    let item = Arc::new(Field::new("item", DataType::Null, true));
    let offsets = OffsetBuffer::from_lengths([many]);
    let list = ListArray::new(item, offsets, Arc::new(NullArray::new(many)), None);
    // One text that stands in the row again and again.
    let texts = DictionaryArray::<Int32Type>::new(
        Int32Array::from(vec![0_i32; 1000]),
        Arc::new(StringArray::from(vec!["x".repeat(1 << 20)])),
    );
    let item = Arc::new(Field::new("item", texts.data_type().clone(), true));
    let repeated = ListArray::new(item, OffsetBuffer::from_lengths([1000]), Arc::new(texts), None);
    let long = StringArray::from(vec!["\u{1}".repeat(20 << 20)]);
    let rows: [ArrayRef; 3] = [Arc::new(list), Arc::new(repeated), Arc::new(long)];
    for (index, row) in rows.into_iter().enumerate() {
        let bytes = stream(&[RecordBatch::try_from_iter([("a", row)]).unwrap()]);
        let error = add(&staging, "N", FileFormat::Arrow, &bytes).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Invalid, "row {index}: {error}");
        assert!(error.to_string().contains("a row of more than"), "row {index}: {error}");
    }
}

#[tokio::test]
async fn a_packed_buffer_of_arrow_is_not_longer_than_it_says() {
    let (_directory, engines, _g) = graph("").await;
    let staging = engines.staging(&id("g")).await.unwrap();
    let column: ArrayRef = Arc::new(Int64Array::from(vec![7; 2_000_000]));
    let batch = RecordBatch::try_from_iter([("a", column)]).unwrap();
    for codec in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
        let options = IpcWriteOptions::default().try_with_compression(Some(codec)).unwrap();
        let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        let mut bytes = writer.into_inner().unwrap();
        let report = add(&staging, "N", FileFormat::Arrow, &bytes).await.unwrap();
        assert_eq!(report.rows, 2_000_000, "{codec:?}");
        let says = 16_000_000_i64.to_le_bytes();
        let at = bytes.windows(8).position(|window| window == says).unwrap();
        bytes[at..at + 8].copy_from_slice(&64_i64.to_le_bytes());
        let error = add(&staging, "N", FileFormat::Arrow, &bytes).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Invalid, "{codec:?}: {error}");
        if codec == CompressionType::LZ4_FRAME {
            assert!(error.to_string().contains("longer than it says"), "{error}");
        }
    }
}
