//! What the tests of the engines have in common.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use graphplane_node_agent::engines::{
    BaseSchema, Database, DatabaseId, EngineError, EngineLimits, Engines, EnginesConfig, FileFormat, FileId,
    IncomingFile, MaterializeReport, MaterializeRequest, Parameters, QueryRequest, StageMode, StageOptions,
    StageReport, StagedFile, Staging, TableName,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub(crate) const MIB: u64 = 1 << 20;

/// Time for what has to happen, on any machine. Only a failure takes so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// Runs until it is stopped, and stops quickly then.
pub(crate) const ENDLESS: &str = "UNWIND range(1, 20000) AS a UNWIND range(1, 20000) AS b UNWIND range(1, 20000) AS c \
                                  WITH a, b, c WHERE a * b * c = 7 RETURN count(*)";

/// Waits until what is looked at passes.
#[track_caller]
pub(crate) fn until<T: std::fmt::Debug>(look: impl Fn() -> T, good: impl Fn(&T) -> bool) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let seen = look();
            if good(&seen) {
                return seen;
            }
            assert!(
                Instant::now() < give_up,
                "{caller}: waited in vain, last seen: {seen:?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

pub(crate) fn id(text: &str) -> DatabaseId {
    DatabaseId::parse(text).unwrap()
}

pub(crate) fn table(text: &str) -> TableName {
    TableName::parse(text).unwrap()
}

pub(crate) fn file(text: &str) -> FileId {
    FileId::parse(text).unwrap()
}

pub(crate) fn limits() -> EngineLimits {
    EngineLimits {
        node_memory: 4096 * MIB,
        database_memory: 256 * MIB,
        staging_memory: 256 * MIB,
        max_databases: 100,
        ..EngineLimits::default()
    }
}

pub(crate) async fn start(directory: &Path, limits: EngineLimits) -> Engines {
    Engines::start(EnginesConfig {
        data_dir: directory.to_owned(),
        read_only: false,
        limits,
    })
    .await
    .unwrap()
}

/// A node with one graph `g` of this schema.
pub(crate) async fn graph(ddl: &str) -> (TempDir, Engines, Database) {
    let directory = tempfile::tempdir().unwrap();
    let engines = start(directory.path(), limits()).await;
    let schema = if ddl.is_empty() {
        BaseSchema::Empty
    } else {
        BaseSchema::Custom(ddl.into())
    };
    engines.create(&id("g"), &schema).await.unwrap();
    let database = engines.database(&id("g")).await.unwrap();
    (directory, engines, database)
}

pub(crate) async fn rows(database: &Database, text: &str) -> Result<Vec<Value>, EngineError> {
    rows_with(database, text, serde_json::json!({})).await
}

pub(crate) async fn rows_with(database: &Database, text: &str, parameters: Value) -> Result<Vec<Value>, EngineError> {
    let parameters = Parameters::from_json(parameters.as_object().unwrap())?;
    let request = QueryRequest {
        parameters,
        timeout: PATIENCE,
        ..QueryRequest::new(text)
    };
    let (_, json, _) = database.query(request).await?.collect().await?;
    let text = format!("[{}]", String::from_utf8(json.to_vec()).unwrap());
    Ok(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

/// The only value of the only row.
pub(crate) async fn one(database: &Database, text: &str) -> Value {
    let rows = rows(database, text)
        .await
        .unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(rows.len(), 1, "{text}");
    rows[0].as_object().unwrap().values().next().unwrap().clone()
}

/// Writes the result of a SQL query as a Parquet file into the incoming directory.
pub(crate) fn parquet(staging: &Staging, sql: &str) -> IncomingFile {
    let incoming = staging.incoming().unwrap();
    write_parquet(incoming.path(), sql);
    incoming
}

pub(crate) fn write_parquet(path: &Path, sql: &str) {
    let connection = duckdb::Connection::open_in_memory().unwrap();
    connection
        .execute_batch(&format!("COPY ({sql}) TO '{}' (FORMAT parquet)", path.display()))
        .unwrap();
}

pub(crate) async fn stage(
    staging: &Staging,
    name: &str,
    files: &[(&str, &str)],
    mode: StageMode,
) -> Result<StageReport, EngineError> {
    let written: Vec<(IncomingFile, FileId)> = files
        .iter()
        .map(|(file_id, sql)| (parquet(staging, sql), file(file_id)))
        .collect();
    let staged = written
        .iter()
        .map(|(incoming, file_id)| StagedFile {
            path: incoming.path().to_owned(),
            file_id: file_id.clone(),
            format: FileFormat::Parquet,
        })
        .collect();
    staging.stage(&table(name), staged, mode, StageOptions::default()).await
}

pub(crate) async fn materialize(
    database: &Database,
    staging: &Staging,
    request: MaterializeRequest,
) -> Result<MaterializeReport, EngineError> {
    database
        .materialize(staging, request, Arc::new(|_| {}), CancellationToken::new())
        .await
}
