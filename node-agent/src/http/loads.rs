//! `POST /databases/{id}/copy` and `/ingest`: files straight into the graph, as one task.
//!
//! Rows pass through staging, where they are told from others by file ids of their own, and leave it when the task ends:
//! what the caller has staged for itself is neither loaded nor lost.

use super::{
    BODY_LIMIT, body,
    databases::{elapsed_ms, missing},
    error::ApiError,
    materialize::{Loaded, materialize},
    openapi::Operation,
    rebuild::check_not_rebuilt,
    sources::{FileIds, PATTERNS, Sources, Wanted, Wishes, credentials, parse_credentials, reach, stage_sources},
    tables::{UNLIMITED, already},
    tasks::{Finish, started_body, wait_for},
    validation::{self, ANY, Fields, IDENTIFIER, Text},
};
use crate::{
    engines::{
        DatabaseId, EngineError, FileId, MaterializeReport, MaterializeRequest, StageMode, Staging, StagingKind,
        TableName,
    },
    objects::{Admitted, Credentials},
    state::{AppState, WritePermit},
    tasks::{TaskContext, TaskType},
};
use axum::{
    extract::{Path, Request, State},
    response::Response,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, time::Instant};

/// Files of one request, by the table that they go into.
type Tables<Files = Vec<String>> = BTreeMap<TableName, Files>;

/// The operations of this module.
pub(super) fn operations() -> Vec<Operation> {
    let from_file = validation::schema(|fields| {
        fields.shape("mode", || json!({"enum": ["sync", null]}));
        (is_sync(fields), FromFile::read(fields))
    });
    let from_bucket = validation::schema(|fields| {
        fields.shape("mode", || json!({"const": "async"}));
        fields.missing("mode");
        (is_sync(fields), FromBucket::read(fields))
    });
    let ingest = json!({"anyOf": [from_file, from_bucket]});
    vec![
        Operation::new(
            "post /databases/{id}/copy",
            "copy",
            "Files of the object store into a table of the graph",
        )
        .changes()
        .reads(Wanted::read)
        .fails(&[502, 507])
        .gives_task(),
        Operation::new("post /databases/{id}/ingest", "ingest", "Files into the graph")
            .notes(
                "One file of the node's import directory, for which the answer waits; or with `\"mode\": \"async\"` \
                 files of a bucket. A file's table is the folder below `nodes/` or `relationships/`, or its name.",
            )
            .changes()
            .reads_as(ingest, &["application/json"], true)
            .fails(&[499, 502, 507])
            .gives::<Ingested>("What was loaded.")
            .gives_task(),
    ]
}

/// Loads files of the object store into a table of the graph; the answer does not wait.
pub(super) async fn copy(
    State(state): State<AppState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let permit = state.write_permit(&parts.headers).await?;
    let id = DatabaseId::parse(&id)?;
    let wanted = Wanted::parse(&body::read(body, BODY_LIMIT).await?, None)?;
    let message = format!("Copy into table {} started", wanted.table);
    let load = Load {
        about: ("table_name", wanted.table.to_string()),
        field: PATTERNS,
        tables: Tables::from([(wanted.table, wanted.sources.patterns)]),
        credentials: wanted.sources.credentials,
        wishes: wanted.sources.wishes,
    };
    let (task, _) = load.start(&state, &id, permit).await?;
    started_body(&task.id, &message)
}

/// The same for a file of the node (`mode: sync`, which waits) or for several tables at once (`mode: async`).
pub(super) async fn ingest(
    State(state): State<AppState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let permit = state.write_permit(&parts.headers).await?;
    let id = DatabaseId::parse(&id)?;
    let (load, waits) = parse_ingest(&body::read(body, BODY_LIMIT).await?)?;
    let (task, finished) = load.start(&state, &id, permit).await?;
    if !waits {
        return started_body(&task.id, "Ingestion started");
    }
    let reports = wait_for(&state, &task, finished).await?;
    body::value(&Ingested {
        status: Some("success"),
        execution_time_ms: Some(elapsed_ms(started)),
        task_id: Some(task.id),
        ..Ingested::of(&id, &reports)
    })
}

/// What both modes of an ingestion have; true if the answer has to wait for its end.
fn is_sync(fields: &mut Fields) -> bool {
    let modes = Text {
        one_of: Some(&["sync", "async"]),
        ..ANY
    };
    // Accepted for clients of the contract: loads of a graph take turns in the order of their requests.
    fields.take("priority");
    fields.flag("ignore_errors", true);
    fields.text("mode", modes).is_none_or(|mode| mode == "sync")
}

const TABLE: Text = Text {
    max: Some(128),
    ..IDENTIFIER
};

/// One file of the node.
struct FromFile {
    path: String,
    table: String,
    credentials: Option<Map<String, Value>>,
    wishes: Wishes,
}

impl FromFile {
    fn read(fields: &mut Fields) -> Self {
        Self {
            path: fields.required_text("file_path", ANY),
            table: fields.required_text("table_name", TABLE),
            credentials: credentials(fields),
            wishes: Wishes::only_format(fields),
        }
    }
}

/// Files of a bucket.
struct FromBucket {
    run: String,
    bucket: String,
    table: Option<String>,
    files: Vec<String>,
    credentials: Option<Map<String, Value>>,
    wishes: Wishes,
}

impl FromBucket {
    fn read(fields: &mut Fields) -> Self {
        fields.shape(
            "files",
            || json!({"type": "array", "items": {"type": "string"}, "minItems": 1}),
        );
        let files = fields.texts("files").unwrap_or_default();
        if files.is_empty() {
            fields.missing("files");
        }
        Self {
            run: fields.required_text("pipeline_run_id", TABLE),
            bucket: fields.required_text("bucket", ANY),
            table: fields.text("table_name", TABLE),
            files,
            credentials: credentials(fields),
            wishes: Wishes::only_format(fields),
        }
    }
}

/// Reads the body of an ingestion; true if the answer has to wait for its end.
fn parse_ingest(body: &[u8]) -> Result<(Load, bool), ApiError> {
    let mut fields = Fields::parse(body)?;
    if is_sync(&mut fields) {
        let file = FromFile::read(&mut fields);
        fields.finish()?;
        let table = TableName::parse(&file.table)?;
        let source = if file.path.contains("://") {
            file.path
        } else {
            format!("file://{}", file.path)
        };
        let load = Load {
            about: ("table_name", table.to_string()),
            field: "file_path",
            tables: Tables::from([(table, vec![source])]),
            credentials: parse_credentials(file.credentials)?,
            wishes: file.wishes,
        };
        return Ok((load, true));
    }
    let FromBucket {
        run,
        bucket,
        table,
        files,
        credentials,
        wishes,
    } = FromBucket::read(&mut fields);
    fields.finish()?;
    let mut tables: Tables = Tables::new();
    for key in files {
        let name = table.as_deref().unwrap_or_else(|| table_of(&key));
        let uri = format!("s3://{bucket}/{}", key.trim_start_matches('/'));
        tables.entry(TableName::parse(name)?).or_default().push(uri);
    }
    let load = Load {
        about: ("pipeline_run_id", run),
        field: "files",
        tables,
        credentials: parse_credentials(credentials)?,
        wishes,
    };
    Ok((load, false))
}

/// The table of a file, by its key: the folder below `nodes/` or `relationships/`, or the file's name.
fn table_of(key: &str) -> &str {
    let folders: Vec<&str> = key.split('/').collect();
    let below = |kind: &str| {
        let at = folders.iter().rposition(|folder| *folder == kind)?;
        // The last part is a file, not a folder.
        folders.get(at + 1).filter(|_| at + 2 < folders.len())
    };
    let name = folders.last().copied().unwrap_or_default();
    below("nodes")
        .or_else(|| below("relationships"))
        .copied()
        .unwrap_or_else(|| name.split('.').next().unwrap_or(name))
}

/// A request to load, as the task does it.
struct Load {
    tables: Tables,
    /// The field that names the files.
    field: &'static str,
    credentials: Option<Credentials>,
    wishes: Wishes,
    /// By what the same request is known again while it is still at work.
    about: (&'static str, String),
}

impl Load {
    async fn start(
        self,
        state: &AppState,
        id: &DatabaseId,
        permit: WritePermit,
    ) -> Result<(crate::tasks::TaskHandle, super::tasks::Finished<Vec<MaterializeReport>>), ApiError> {
        if !state.engines.contains(id) {
            return Err(missing(id));
        }
        let reach = reach(state, id, self.credentials.as_ref()).await?;
        let mut admitted = Tables::<Admitted>::new();
        for (table, files) in &self.tables {
            admitted.insert(table.clone(), reach.admit(self.field, files)?);
        }
        state.admission.check_memory()?;
        let (finish, finished) = Finish::pair();
        let starting = state.starting.lock().await;
        let about = [("graph_id", id.as_str()), (self.about.0, self.about.1.as_str())];
        if let Some(running) = state.tasks.find_unfinished(TaskType::Ingestion, &about) {
            let names: Vec<&str> = self.tables.keys().map(TableName::as_str).collect();
            return Err(already(id, &names.join(", "), &running));
        }
        check_not_rebuilt(state, id)?;
        state.count_load(id).await?;
        let mut metadata = Map::from_iter(about.map(|(name, value)| (name.to_owned(), json!(value))));
        metadata.insert("tables".to_owned(), self.tables.keys().map(TableName::as_str).collect());
        metadata.insert(
            "sources".to_owned(),
            json!(self.tables.values().flatten().collect::<Vec<_>>()),
        );
        let name = format!(
            "ingest_{id}_{}",
            self.tables.keys().next().map_or("nothing", TableName::as_str)
        );
        let work = {
            let (state, id) = (state.clone(), id.clone());
            move |context: TaskContext| async move {
                let loaded = run(admitted, &self.wishes, &state, &id, &permit, &context).await;
                finish.run(loaded, |reports: &Vec<_>| json!(Ingested::of(&id, reports)))
            }
        };
        let turn = Some(state.load_turn(id));
        let task = state
            .tasks
            .start(TaskType::Ingestion, &name, metadata, turn, work)
            .await?;
        drop(starting);
        Ok((task, finished))
    }
}

/// Loads the files of each table, and takes their rows out of staging again.
async fn run(
    tables: Tables<Admitted>,
    wishes: &Wishes,
    state: &AppState,
    id: &DatabaseId,
    permit: &WritePermit,
    context: &TaskContext,
) -> Result<Vec<MaterializeReport>, ApiError> {
    let mut passing = Vec::new();
    let outcome = pass(tables, wishes, state, id, permit, context, &mut passing).await;
    let staging = state.engines.staging(id).await?;
    for one in &passing {
        let cleared = if one.made_table {
            staging.drop_table(&one.table).await.map(drop)
        } else {
            remove(&staging, one).await
        };
        if let Err(error) = cleared {
            let table = &one.table;
            tracing::warn!(operation = "load", graph = %id, %table, %error, "loaded rows stay in staging");
        }
    }
    outcome
}

async fn pass(
    tables: Tables<Admitted>,
    wishes: &Wishes,
    state: &AppState,
    id: &DatabaseId,
    permit: &WritePermit,
    context: &TaskContext,
    passing: &mut Vec<Passing>,
) -> Result<Vec<MaterializeReport>, ApiError> {
    let staging = state.engines.staging(id).await?;
    let mut staged = Vec::new();
    for (table, files) in tables {
        let made_table = staging.table(&table).await?.is_none();
        let sources = Sources {
            files,
            file_ids: FileIds::Fresh,
            wishes: wishes.clone(),
        };
        let report = stage_sources(state, id, &table, &sources, StageMode::ReplaceFiles, permit, context).await?;
        let files: Vec<FileId> = report.files.into_iter().map(|(file, _)| file).collect();
        passing.push(Passing {
            table: table.clone(),
            files: files.clone(),
            made_table,
        });
        staged.push((report.kind == StagingKind::Relationship, table, files));
    }
    // Relationships need the nodes at their ends.
    staged.sort_by_key(|(relationship, ..)| *relationship);
    let mut reports = Vec::new();
    for (_, table, files) in staged {
        let request = MaterializeRequest {
            file_ids: Some(files),
            timeout: state.settings().copy.timeout().unwrap_or(UNLIMITED),
            ..MaterializeRequest::new(table)
        };
        reports.push(materialize(state, id, id, request, permit, context).await?);
    }
    Ok(reports)
}

/// Rows on their way through a staging table.
struct Passing {
    table: TableName,
    files: Vec<FileId>,
    /// True if the table was made for them.
    made_table: bool,
}

async fn remove(staging: &Staging, passing: &Passing) -> Result<(), EngineError> {
    for file in &passing.files {
        staging.remove_file(&passing.table, file).await?;
    }
    Ok(())
}

/// What a load has done; `records_loaded` is what clients of the contract look for.
#[derive(Serialize, JsonSchema)]
struct Ingested {
    graph_id: String,
    records_loaded: u64,
    rows_ingested: u64,
    tables: Vec<Loaded>,
    /// `success`.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution_time_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<String>,
}

impl Ingested {
    fn of(id: &DatabaseId, reports: &[MaterializeReport]) -> Self {
        let rows = reports.iter().map(|report| report.rows_ingested).sum();
        let tables = reports.iter().map(|report| Loaded::of(id, report, report.execution_ms));
        Self {
            graph_id: id.to_string(),
            records_loaded: rows,
            rows_ingested: rows,
            tables: tables.collect(),
            status: None,
            execution_time_ms: None,
            task_id: None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_files_table_is_its_folder_or_its_name() {
        for (key, table) in [
            ("run/nodes/Entity/part-0.parquet", "Entity"),
            ("run/relationships/OWNS/2024/part-0.parquet", "OWNS"),
            ("run/nodes/Entity.parquet", "Entity"),
            ("Entity.parquet", "Entity"),
            ("a/b/Entity.snappy.parquet", "Entity"),
        ] {
            assert_eq!(table_of(key), table, "{key}");
        }
    }

    #[test]
    fn both_modes_say_what_goes_where() {
        let (load, waits) = parse_ingest(br#"{"file_path":"/in/x.parquet","table_name":"T","priority":5}"#).unwrap();
        assert!(waits);
        assert_eq!(load.tables.into_values().next().unwrap(), ["file:///in/x.parquet"]);
        let (load, waits) = parse_ingest(
            br#"{"mode":"async","pipeline_run_id":"r1","bucket":"b","files":["nodes/A/1.parquet","nodes/A/2.parquet","B.parquet"]}"#,
        )
        .unwrap();
        assert!(!waits);
        let tables: Vec<_> = load
            .tables
            .iter()
            .map(|(table, files)| (table.as_str(), files.len()))
            .collect();
        assert_eq!(tables, [("A", 2), ("B", 1)]);
        for body in [
            r#"{"file_path":"x"}"#,
            r#"{"mode":"later","file_path":"x","table_name":"T"}"#,
            r#"{"mode":"async","pipeline_run_id":"r1","bucket":"b","files":[]}"#,
            r#"{"mode":"async","bucket":"b","files":["A.parquet"]}"#,
        ] {
            assert_eq!(
                parse_ingest(body.as_bytes()).err().unwrap().status.as_u16(),
                422,
                "{body}"
            );
        }
    }
}
