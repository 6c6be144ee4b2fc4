//! The program against a server that only plays its part: what it asks for, what it prints, and how it ends.
#![allow(clippy::unwrap_used)]

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

/// How long a test waits for something that should come.
const PATIENCE: Duration = Duration::from_secs(60);

type Calls = Arc<Mutex<Vec<(String, Value)>>>;

/// A server on a port of its own, for as long as the test's runtime lives.
struct Server {
    url: String,
    calls: Calls,
    folder: TempDir,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let calls = Calls::default();
        let router = Router::new().fallback(answer).with_state(calls.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("Airport.parquet"), b"PAR1 rows PAR1").unwrap();
        Self { url, calls, folder }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_graphplane"));
        command
            .args(arguments)
            .env("GRAPHPLANE_API", &self.url)
            .env("GRAPHPLANE_API_KEY", "gp_key")
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Exit code, standard output and standard error.
    async fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let done = tokio::time::timeout(PATIENCE, self.command(arguments).output());
        let done = done.await.unwrap().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status.code(), text(&done.stdout), text(&done.stderr))
    }

    fn asked(&self) -> Vec<String> {
        self.calls
            .lock()
            .unwrap()
            .iter()
            .map(|(line, _)| line.clone())
            .collect()
    }

    /// The body of the one call of this method.
    fn body(&self, method: &str) -> Value {
        let calls = self.calls.lock().unwrap();
        let mut bodies = calls.iter().filter(|(line, _)| line.starts_with(method));
        let body = bodies.next().unwrap().1.clone();
        assert!(bodies.next().is_none());
        body
    }
}

/// The graph's name says what becomes of a call.
async fn answer(State(calls): State<Calls>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = to_bytes(body, 1 << 20).await.unwrap();
    let line = format!("{} {}", parts.method, parts.uri.path());
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    calls.lock().unwrap().push((line, body));
    let path = parts.uri.path();
    if path.ends_with("/query") {
        let row = "{\"i\":1},".repeat(1000);
        let chunk = format!("{{\"columns\":[\"i\"],\"data\":[{}]}}\n", row.trim_end_matches(','));
        let chunks = futures::stream::repeat_with(move || Ok::<_, std::io::Error>(Bytes::from(chunk.clone())));
        return (
            [(header::CONTENT_TYPE, "application/x-ndjson")],
            Body::from_stream(chunks),
        )
            .into_response();
    }
    if path.contains("/files/") {
        return axum::Json(json!({"row_count": 3, "kind": "node"})).into_response();
    }
    let report = json!({"status": "dry_run", "rows_ingested": 0, "rows_acceptable": 2, "kind": "node",
                        "rejected": {"duplicates": 1}, "would_fail": false, "invalid_columns": []});
    match path.split('/').nth(3) {
        Some("slow") => std::future::pending().await,
        Some("broken") => (
            StatusCode::CONFLICT,
            axum::Json(json!({"detail": "it is being loaded"})),
        )
            .into_response(),
        Some("unfit") => {
            let mut report = report;
            report["invalid_columns"] = json!([{"column": "city", "type": "INT64", "rows": 1, "example": "Zug"}]);
            axum::Json(report).into_response()
        }
        _ => axum::Json(report).into_response(),
    }
}

async fn ends(child: &mut Child) -> Option<i32> {
    let status = tokio::time::timeout(PATIENCE, child.wait()).await;
    status.unwrap().unwrap().code()
}

#[tokio::test]
async fn what_is_only_staged_does_not_reach_the_graph() {
    let server = Server::start().await;
    let (code, out, error) = server.run(&["load", "air", "Airport.parquet", "--stage-only"]).await;
    assert_eq!(code, Some(0), "{error}");
    assert!(out.contains("STAGED") && out.contains("Airport"), "{out}");
    assert_eq!(
        server.asked(),
        ["PUT /v1/graphs/air/tables/Airport/files/Airport.parquet"]
    );
}

#[tokio::test]
async fn a_dry_run_says_what_a_load_would_do_and_leaves_nothing() {
    let server = Server::start().await;
    let (code, out, error) = server.run(&["load", "air", "Airport.parquet", "--dry-run"]).await;
    assert_eq!(code, Some(0), "{error}");
    assert!(out.contains("WOULD-LOAD"), "{out}");
    assert!(
        error.contains("1 rows left out: 1 that repeat an earlier row"),
        "{error}"
    );
    let file = "/v1/graphs/air/tables/Airport/files/dry-run.Airport.parquet";
    assert_eq!(
        server.asked(),
        [
            format!("PUT {file}"),
            "POST /v1/graphs/air/tables/Airport/materialize".to_owned(),
            format!("DELETE {file}"),
        ]
    );
    assert_eq!(
        server.body("POST"),
        json!({"file_ids": ["dry-run.Airport.parquet"], "dry_run": true, "materialize_embeddings": true})
    );

    let (_, out, _) = server
        .run(&["load", "air", "Airport.parquet", "--dry-run", "-o", "json"])
        .await;
    let reports: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&reports[0]["rows_acceptable"], &reports[0]["rows_loaded"]),
        (&json!(2), &Value::Null)
    );
}

#[tokio::test]
async fn a_dry_run_of_what_would_fail_fails() {
    let server = Server::start().await;
    let (code, out, error) = server.run(&["load", "unfit", "Airport.parquet", "--dry-run"]).await;
    assert_eq!(code, Some(1));
    assert!(out.contains("WOULD-LOAD"), "{out}");
    assert!(
        error.contains("1 values of city are no INT64, for example \"Zug\""),
        "{error}"
    );
    // Whatever it ends with, the staging table is as it was.
    let (code, _, error) = server.run(&["load", "broken", "Airport.parquet", "--dry-run"]).await;
    assert!(
        code == Some(7) && error.contains("it is being loaded"),
        "{code:?} {error}"
    );
    let removed = server.asked().iter().filter(|line| line.starts_with("DELETE")).count();
    assert_eq!(removed, 2);
}

#[tokio::test]
async fn ctrl_c_ends_a_command_with_130() {
    let server = Server::start().await;
    let mut child = server.command(&["load", "slow", "Airport.parquet"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    // It listens for the signal before it begins its work.
    let line = tokio::time::timeout(PATIENCE, lines.next_line())
        .await
        .unwrap()
        .unwrap();
    assert!(
        line.as_ref()
            .is_some_and(|line| line.contains("staged Airport.parquet")),
        "{line:?}"
    );
    let pid = Pid::from_raw(child.id().unwrap() as i32).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    assert_eq!(ends(&mut child).await, Some(130));
    let mut rest = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        rest += &line;
    }
    assert!(rest.contains("interrupted"), "{rest}");
}

#[tokio::test]
async fn a_reader_that_goes_ends_a_command_quietly_with_141() {
    let server = Server::start().await;
    let mut child = server
        .command(&["query", "air", "RETURN 1", "-o", "csv"])
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut head = [0; 1];
    tokio::time::timeout(PATIENCE, out.read_exact(&mut head))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&head, b"i");
    drop(out);
    assert_eq!(ends(&mut child).await, Some(141));
    let mut error = String::new();
    child.stderr.take().unwrap().read_to_string(&mut error).await.unwrap();
    assert_eq!(error, "");
}
