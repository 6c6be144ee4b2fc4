//! A small program that answers like a node agent, on a real socket, and remembers what it was asked.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use http::{HeaderMap, StatusCode, header};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// The key that callers present.
pub(crate) const KEY: &str = "gpa_agent";

/// One call that came in.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) line: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

/// What the agent knows.
#[derive(Default)]
pub(crate) struct Book {
    pub(crate) seen: Mutex<Vec<Seen>>,
    /// Calls that were refused.
    pub(crate) refused: AtomicUsize,
    /// While it is true, everything is refused.
    pub(crate) busy: AtomicBool,
    /// Bytes of uploads so far.
    pub(crate) uploaded: AtomicUsize,
    /// While it is false, uploads are not read.
    pub(crate) reading: AtomicBool,
    pub(crate) read_on: Notify,
    /// Told when the client of a stream went away.
    pub(crate) gone: Notify,
    /// Told to send the next line of a stream.
    pub(crate) next_line: Notify,
}

/// A running agent.
pub(crate) struct FakeAgent {
    pub(crate) address: String,
    pub(crate) book: Arc<Book>,
    stop: CancellationToken,
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl FakeAgent {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener)
    }

    pub(crate) fn on(listener: TcpListener) -> Self {
        let address = format!("http://{}", listener.local_addr().unwrap());
        let book = Arc::new(Book::default());
        let router = Router::new().fallback(answer).with_state(book.clone());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                result = axum::serve(listener, router) => result.unwrap(),
                () = stopped.cancelled() => {}
            }
        });
        Self { address, book, stop }
    }

    pub(crate) fn last(&self) -> Seen {
        self.book.seen.lock().last().cloned().unwrap()
    }

    pub(crate) fn calls(&self) -> usize {
        self.book.seen.lock().len()
    }
}

/// Dropped with the body of an answer.
struct Guard(Arc<Book>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.gone.notify_one();
    }
}

async fn answer(State(book): State<Arc<Book>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let line = format!("{} {}", parts.method, parts.uri);
    if book.busy.load(Ordering::SeqCst) {
        book.refused.fetch_add(1, Ordering::SeqCst);
        let detail = axum::Json(json!({"detail": {"error": "busy", "reason": "warming"}}));
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], detail).into_response();
    }
    if parts.headers.get("x-graph-api-key").is_none_or(|key| key != KEY) {
        book.refused.fetch_add(1, Ordering::SeqCst);
        return (StatusCode::UNAUTHORIZED, axum::Json(json!({"detail": "wrong key"}))).into_response();
    }
    let path = parts.uri.path().to_owned();
    if path.contains("/files/") {
        return upload(&book, line, parts.headers, body).await;
    }
    let bytes = axum::body::to_bytes(body, 64 << 20).await.unwrap_or_default();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    book.seen.lock().push(Seen {
        line,
        headers: parts.headers,
        body: body.clone(),
    });
    match body["cypher"].as_str() {
        Some("RETURN 'lines'") => return lines(book),
        Some("RETURN 'never'") => {
            let _guard = Guard(book.clone());
            std::future::pending::<()>().await;
        }
        Some("RETURN 'wrong'") => {
            let detail = axum::Json(json!({"detail": "Binder exception: no"}));
            return (
                StatusCode::BAD_REQUEST,
                [("x-graph-api-key", KEY), ("set-cookie", "a=b")],
                detail,
            )
                .into_response();
        }
        _ => {}
    }
    if path == "/tasks" {
        return axum::Json(json!([
            {"task_id": "backup_kgffffffffffffffff_00000000", "task_type": "backup"},
            {"task_id": format!("ingestion_{}_A_00000000", body["none"].as_str().unwrap_or("kg0123456789abcdef"))},
        ]))
        .into_response();
    }
    axum::Json(json!({"data": [{"x": 1}], "columns": ["x"], "row_count": 1, "execution_time_ms": 0.1})).into_response()
}

/// Two lines; the second one only when the test says so.
fn lines(book: Arc<Book>) -> Response {
    let (sender, receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    tokio::spawn(async move {
        let guard = Guard(book.clone());
        let _ = sender.send(Ok(Bytes::from_static(b"{\"chunk_index\":0}\n"))).await;
        tokio::select! {
            () = book.next_line.notified() => { let _ = sender.send(Ok(Bytes::from_static(b"{\"chunk_index\":1}\n"))).await; }
            () = sender.closed() => {}
        }
        drop(guard);
    });
    (
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(ReceiverStream::new(receiver)),
    )
        .into_response()
}

async fn upload(book: &Arc<Book>, line: String, headers: HeaderMap, body: Body) -> Response {
    book.seen.lock().push(Seen {
        line,
        headers,
        body: Value::Null,
    });
    let mut chunks = body.into_data_stream();
    while !book.reading.load(Ordering::SeqCst) {
        book.read_on.notified().await;
    }
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) => book.uploaded.fetch_add(chunk.len(), Ordering::SeqCst),
            Err(_) => {
                book.gone.notify_one();
                return StatusCode::BAD_REQUEST.into_response();
            }
        };
    }
    let size = book.uploaded.load(Ordering::SeqCst);
    axum::Json(json!({"status": "success", "size_bytes": size})).into_response()
}
