//! Files to the staging tables, and staging tables into the graph, through the gateway.

use super::plan::{Source, StagedTable};
use super::progress::{Bar, Progress};
use super::report::{InvalidColumn, Rejected};
use crate::args::LoadArguments;
use crate::client::{Client, Events, failure_of};
use crate::failure::{Exit, Failure};
use futures::StreamExt;
use reqwest::{Body, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio_util::io::ReaderStream;

/// Bytes of one piece of an upload.
const PIECE: usize = 256 << 10;
/// How often a broken stream of events is opened again.
const RECONNECTS: u32 = 20;

/// What the server says of a staged file.
#[derive(Deserialize, Debug)]
pub(super) struct StagedFile {
    pub(super) row_count: u64,
    #[serde(default = "other")]
    pub(super) kind: String,
}

fn other() -> String {
    "other".to_owned()
}

/// What the server says of a filled table.
#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub(super) struct Loaded {
    pub(super) status: String,
    pub(super) rows_ingested: u64,
    pub(super) kind: Option<String>,
    pub(super) rejected: Rejected,
    pub(super) created_table: bool,
    pub(super) ignored_columns: Vec<String>,
    /// Of a dry run: rows that would be loaded.
    pub(super) rows_acceptable: Option<u64>,
    /// Of a dry run: columns with values that end a load.
    pub(super) invalid_columns: Vec<InvalidColumn>,
}

/// Sends one file into its staging table.
pub(super) async fn stage(client: &Client, graph: &str, source: &Source, bar: &Bar) -> Result<StagedFile, Failure> {
    let file = tokio::fs::File::open(&source.path)
        .await
        .map_err(|error| Failure::io(format_args!("reading {}", source.path.display()), &error))?;
    let handle = bar.handle();
    let pieces = ReaderStream::with_capacity(file, PIECE).inspect(move |piece| {
        if let Ok(piece) = piece {
            handle.inc(piece.len() as u64);
            if handle.length().is_some_and(|length| handle.position() >= length) {
                handle.set_prefix("staging…");
            }
        }
    });
    let path = [
        "v1",
        "graphs",
        graph,
        "tables",
        source.table.as_str(),
        "files",
        &source.file_id,
    ];
    let request = client
        .request(Method::PUT, &path)
        .header("content-type", "application/vnd.apache.parquet")
        // Known beforehand, so that a file that is too large is refused before it is sent.
        .header("content-length", source.bytes)
        .body(Body::wrap_stream(pieces));
    client
        .json(request)
        .await
        .map_err(|failure| about(&source.path.display().to_string(), failure))
}

/// Takes the rows of a file out of its staging table; there may be none.
pub(super) async fn unstage(client: &Client, graph: &str, source: &Source) -> Result<(), Failure> {
    let table = source.table.as_str();
    let path = ["v1", "graphs", graph, "tables", table, "files", &source.file_id];
    client.send(client.request(Method::DELETE, &path)).await?;
    Ok(())
}

/// Fills a table of the graph from its staging table, or says what would become of it.
pub(super) async fn load(
    client: &Client,
    arguments: &LoadArguments,
    table: &StagedTable,
    progress: Progress,
) -> Result<Loaded, Failure> {
    let name = table.name.as_str();
    // All of the file, also what clients of the contract leave behind unless they ask for it.
    let mut body = json!({"file_ids": table.file_ids, "materialize_embeddings": true});
    if arguments.dry_run {
        body["dry_run"] = json!(true);
    }
    if arguments.create_tables {
        body["create_table"] = json!(true);
        if let Some(relationship) = arguments.relationships.iter().find(|one| one.table == name) {
            body["from_table"] = json!(relationship.from);
            body["to_table"] = json!(relationship.to);
        }
    }
    let bar = progress.rows(name, table.rows);
    let request = client
        .request(
            Method::POST,
            &["v1", "graphs", &arguments.graph, "tables", name, "materialize"],
        )
        .header("prefer", "respond-async")
        .json(&body);
    let outcome = async {
        let response = client.send(request).await?;
        let accepted = response.status() == StatusCode::ACCEPTED;
        let answer: Value = response.json().await.map_err(|error| client.transport(&error))?;
        let result = match answer.get("task_id").and_then(Value::as_str) {
            Some(task) if accepted => follow(client, &arguments.graph, task, &bar).await?,
            _ => answer,
        };
        serde_json::from_value::<Loaded>(result)
            .map_err(|error| Failure::plain(format!("the server's report is not understood: {error}")))
    };
    let loaded = outcome.await.map_err(|failure| about(name, failure))?;
    if loaded.status == "skipped" {
        return Err(Failure::plain(format!(
            "{name}: the staging table is gone; load the file again"
        )));
    }
    Ok(loaded)
}

/// Names what a failure is about, if it does not name it itself.
fn about(what: &str, failure: Failure) -> Failure {
    if failure.message.contains(what) || failure.message.is_empty() {
        return failure;
    }
    Failure {
        message: format!("{what}: {}", failure.message),
        ..failure
    }
}

/// What an event of a task says.
#[derive(Debug, PartialEq)]
enum Told {
    Progress { done: u64, of: u64 },
    Completed(Value),
    Failed(String),
    Nothing,
}

fn read_event(name: &str, data: &str) -> Told {
    let data: Value = serde_json::from_str(data).unwrap_or_default();
    let number = |key: &str| data.get(key).and_then(Value::as_u64);
    match name {
        "progress" => match (number("records_processed"), number("estimated_records")) {
            (Some(done), Some(of)) => Told::Progress { done, of },
            _ => Told::Nothing,
        },
        "completed" => Told::Completed(data.get("result").cloned().unwrap_or_default()),
        "failed" => {
            let error = data.get("error").and_then(Value::as_str);
            Told::Failed(
                error
                    .or(data.get("message").and_then(Value::as_str))
                    .unwrap_or("the task failed")
                    .to_owned(),
            )
        }
        _ => Told::Nothing,
    }
}

/// Follows a task to its end and gives its result. A lost connection is opened again: the task goes on without us.
async fn follow(client: &Client, graph: &str, task: &str, bar: &Bar) -> Result<Value, Failure> {
    let mut last = Failure::plain(format!("the task {task} was lost sight of"));
    for attempt in 0..RECONNECTS {
        match follow_once(client, graph, task, bar).await {
            Ok(Some(outcome)) => return outcome,
            Ok(None) => {}
            Err(failure) if matches!(failure.exit, Exit::Unreachable | Exit::Failure) => last = failure,
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(Duration::from_secs(u64::from((attempt + 1).min(3)))).await;
    }
    Err(last.advise(format!(
        "it may still be running; look with GET /v1/graphs/{graph}/tasks/{task}/status"
    )))
}

/// `None` if the stream ended before the task did.
async fn follow_once(
    client: &Client,
    graph: &str,
    task: &str,
    bar: &Bar,
) -> Result<Option<Result<Value, Failure>>, Failure> {
    let request = client.request(Method::GET, &["v1", "graphs", graph, "tasks", task, "monitor"]);
    let response = request
        .header("accept", "text/event-stream")
        .send()
        .await
        .map_err(|e| client.transport(&e))?;
    if !response.status().is_success() {
        return Err(failure_of(response).await);
    }
    let mut events = Events::new(response.bytes_stream());
    while let Some(event) = events.next().await.map_err(|error| client.transport(&error))? {
        match read_event(&event.name, &event.data) {
            Told::Progress { done, of } => bar.set(done, of),
            Told::Completed(result) => return Ok(Some(Ok(result))),
            Told::Failed(error) => return Ok(Some(Err(Failure::plain(error)))),
            Told::Nothing => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_a_task_are_understood() {
        assert_eq!(
            read_event(
                "progress",
                r#"{"records_processed":5,"estimated_records":10,"progress_percent":50}"#
            ),
            Told::Progress { done: 5, of: 10 }
        );
        assert_eq!(read_event("progress", r#"{"records_processed":null}"#), Told::Nothing);
        assert_eq!(
            read_event("completed", r#"{"result":{"a":1}}"#),
            Told::Completed(json!({"a": 1}))
        );
        assert_eq!(
            read_event("failed", r#"{"error":"disk full","message":"Task failed"}"#),
            Told::Failed("disk full".into())
        );
        assert_eq!(
            read_event("failed", r#"{"error":null,"message":"Task cancelled"}"#),
            Told::Failed("Task cancelled".into())
        );
        assert_eq!(read_event("heartbeat", "{}"), Told::Nothing);
        assert_eq!(read_event("progress", "not json"), Told::Nothing);
    }

    #[test]
    fn a_failure_says_what_it_is_about_once() {
        assert_eq!(
            about("Airport", Failure::plain("no such column")).message,
            "Airport: no such column"
        );
        assert_eq!(
            about("Airport", Failure::plain("table Airport is gone")).message,
            "table Airport is gone"
        );
    }
}
