//! What is the same for every request: its id, its key, its measure, its line in the log, and an answer even when a
//! handler panics. One plain service around the router, so that the hot path passes no chain of layers.

use super::{
    auth::Denied,
    error::{ApiError, Rejected},
    keys::KeyId,
    shown,
};
use crate::{
    metrics::{Operation, Reason, RequestLabels, status_class},
    state::{AppState, REGISTRATION_PATIENCE},
    tasks::Asked,
};
use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Method, Request, Response, StatusCode, Uri},
    response::IntoResponse,
};
use futures::FutureExt;
use hyper::body::Incoming;
use std::{
    net::IpAddr,
    panic::AssertUnwindSafe,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};
use tower::Service;

/// Paths that need no key.
const OPEN: [&str; 5] = ["/health", "/status", "/info", "/metrics", "/openapi.json"];
const REQUEST_ID: &str = "x-request-id";

/// The agent as one service.
#[derive(Clone, Debug)]
pub struct Front {
    router: Router,
    state: AppState,
}

impl Front {
    /// The router of this state, with everything around it.
    pub fn new(state: AppState) -> Self {
        Self {
            router: super::router(state.clone()),
            state,
        }
    }

    /// Answers one request from `peer`.
    pub async fn answer(&self, peer: IpAddr, mut request: Request<Incoming>) -> Response<Body> {
        let mut seen = Seen::of(&request, || self.state.request_id());
        let operation = seen.operation;

        let key = if OPEN.contains(&request.uri().path()) {
            Ok(KeyId::NONE)
        } else {
            self.check_key(&request, peer).await
        };
        seen.key = key.ok();
        let mut response = match key {
            Err(denied) => ApiError::from(denied).into_response(),
            Ok(_) if !is_text(request.uri().path()) => {
                ApiError::bad_request("The path is not UTF-8 when its %-escapes are decoded").into_response()
            }
            Ok(key) => {
                let request_id = seen.id.clone();
                request.extensions_mut().insert(seen.change.clone());
                let mut router = self.router.clone();
                let answer = AssertUnwindSafe(async move { router.call(request.map(Body::new)).await });
                match (Asked { request_id, key }).during(answer.catch_unwind()).await {
                    Ok(Ok(response)) => response,
                    Ok(Err(never)) => match never {},
                    Err(_) => {
                        tracing::error!(operation = operation.name, "a handler panicked");
                        ApiError::new(
                            StatusCode::INTERNAL_SERVER_ERROR,
                            "Internal error; the node's log has the reason",
                        )
                        .into_response()
                    }
                }
            }
        };
        let elapsed = seen.started.elapsed();
        let status = response.status();
        if status.is_client_error() || status.is_server_error() {
            response = shown::failure(response, &self.state.facts.data_dir, operation.name).await;
        }
        let metrics = &self.state.metrics;
        let labels = RequestLabels {
            operation: operation.name,
            code: status_class(status.as_u16()),
        };
        metrics.requests.get_or_create(&labels).inc();
        if let Some(rejected) = response.extensions_mut().remove::<Rejected>() {
            metrics.rejected.get_or_create(&Reason { reason: rejected.0 }).inc();
        }
        if key.is_err_and(Denied::is_wrong_key) {
            metrics.auth_failures.inc();
        }
        let labels = Operation {
            operation: operation.name,
        };
        metrics
            .request_duration
            .get_or_create(&labels)
            .observe(elapsed.as_secs_f64());
        let id = seen.id.clone();
        seen.end(status.as_u16());
        response.headers_mut().insert(REQUEST_ID, id);
        response
    }

    async fn check_key(&self, request: &Request<Incoming>, peer: IpAddr) -> Result<KeyId, Denied> {
        let key = self.state.auth.check(request.headers(), peer);
        if key != Err(Denied::NotReady) {
            return key;
        }
        self.state.standing.registered_within(REGISTRATION_PATIENCE).await;
        self.state.auth.check(request.headers(), peer)
    }
}

/// What only the handler of a request knows about what it changes. It is told here and not with the answer, since a caller
/// may go away before there is one.
#[derive(Clone, Debug, Default)]
pub(super) struct Change {
    /// Becomes true when a request whose route only reads as a rule, a query, turns out to be a change.
    pub happens: Arc<AtomicBool>,
    graph: Arc<OnceLock<String>>,
}

impl Change {
    /// Names the graph of a request whose path does not.
    pub(super) fn names(&self, graph: &str) {
        // One request is about one graph, so the first name is the only one.
        let _ = self.graph.set(graph.to_owned());
    }
}

/// A request on its way, which has one line in the log, and one in the audit log if it changes something, whether it is
/// answered or its caller goes away before.
struct Seen {
    operation: Route,
    uri: Uri,
    id: HeaderValue,
    /// Whose request it is, once that is known; nobody else's changes anything.
    key: Option<KeyId>,
    change: Change,
    started: Instant,
    /// The status of the answer. Without one the caller has gone away.
    status: Option<u16>,
}

/// Stands for the status of a request whose caller went away before it was answered.
const GONE: u16 = 499;

impl Seen {
    fn of(request: &Request<Incoming>, new_id: impl FnOnce() -> String) -> Self {
        Self {
            operation: operation(request.method(), request.uri().path()),
            uri: request.uri().clone(),
            id: request_id(request).unwrap_or_else(|| {
                // Hexadecimal digits are always a header value.
                HeaderValue::from_str(&new_id()).unwrap_or(HeaderValue::from_static("0"))
            }),
            key: None,
            change: Change::default(),
            started: Instant::now(),
            status: None,
        }
    }

    fn end(mut self, status: u16) {
        self.status = Some(status);
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        let status = self.status.unwrap_or(GONE);
        let operation = self.operation.name;
        let graph = self.change.graph.get().map(String::as_str);
        let graph = graph.or_else(|| graph_of(self.uri.path()));
        let request_id = self.id.to_str().unwrap_or_default();
        let duration_ms = (self.started.elapsed().as_secs_f64() * 1e6).round() / 1e3;
        let changes = self.operation.changes || self.change.happens.load(Ordering::Acquire);
        if let (Some(key), true) = (self.key, changes) {
            // Who tried to change what, and how it ended. Never more: statements and rows are the tenant's.
            tracing::info!(target: "audit", operation, %key, graph, status, duration_ms, request_id, "change");
        }
        if status >= 500 {
            tracing::warn!(operation, graph, status, duration_ms, request_id, "request failed");
        } else if self.operation.changes {
            tracing::info!(operation, graph, status, duration_ms, request_id, "request");
        } else {
            tracing::debug!(operation, graph, status, duration_ms, request_id, "request");
        }
    }
}

/// Whether a path is text once it is decoded: handlers take its parts as text.
fn is_text(path: &str) -> bool {
    !path.contains('%') || percent_encoding::percent_decode_str(path).decode_utf8().is_ok()
}

/// The graph that a path names.
fn graph_of(path: &str) -> Option<&str> {
    path.strip_prefix("/databases/")?.split('/').next()
}

/// A request id of the caller's, if it is short and plain.
fn request_id(request: &Request<Incoming>) -> Option<HeaderValue> {
    let given = request.headers().get(REQUEST_ID)?;
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'/' | b'=' | b'+');
    (!given.is_empty() && given.len() <= 128 && given.as_bytes().iter().all(plain)).then(|| given.clone())
}

/// A route as metrics and logs name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Route {
    name: &'static str,
    /// Changes are logged; reads are counted.
    changes: bool,
}

/// The name of a route in metrics and logs.
#[cfg(test)]
pub(super) fn name_of(method: &Method, path: &str) -> &'static str {
    operation(method, path).name
}

fn operation(method: &Method, path: &str) -> Route {
    let mut segments = path.trim_start_matches('/').split('/');
    let first = segments.next().unwrap_or_default();
    let rest: [Option<&str>; 5] = std::array::from_fn(|_| segments.next());
    let get = method == Method::GET || method == Method::HEAD;
    let read = |name| Route { name, changes: false };
    let write = |name| Route { name, changes: true };
    match (first, rest) {
        ("health", _) => read("health"),
        ("status", _) => read("status"),
        ("info", _) => read("info"),
        ("metrics", _) => read("metrics"),
        ("openapi.json", _) => read("openapi"),
        ("admin", [Some("connections"), ..]) => read("connections"),
        ("admin", [Some("seed"), ..]) => write("seed_refresh"),
        ("admin", _) => write("drain"),
        ("embeddings", _) => read("embeddings"),
        ("migration", [Some("status"), ..]) => read("migration_status"),
        ("migration", [Some("export"), ..]) => write("migration_export"),
        ("migration", [Some("import"), ..]) => write("migration_import"),
        ("migration", _) => write("migration_cleanup"),
        ("tasks", [Some("queue"), ..]) => read("task_queue"),
        ("tasks", [Some("stats"), ..]) => read("task_stats"),
        ("tasks", [_, Some("monitor"), ..]) => read("task_monitor"),
        ("tasks", [_, Some("status"), ..]) => read("task_status"),
        ("tasks", [Some(_), None, ..]) => write("task_cancel"),
        ("tasks", _) => read("task_list"),
        ("databases", [None, ..]) if get => read("database_list"),
        ("databases", [None, ..]) => write("database_create"),
        ("databases", [_, None, ..]) if get => read("database_get"),
        ("databases", [_, None, ..]) => write("database_delete"),
        ("databases", [_, Some("query"), None, ..]) => read("query"),
        ("databases", [_, Some("schema"), None, ..]) if get => read("schema_get"),
        ("databases", [_, Some("schema"), None, ..]) => write("schema_apply"),
        ("databases", [_, Some("metrics"), None, ..]) => read("database_metrics"),
        ("databases", [_, Some("backup"), None, ..]) if get => write("backup_download"),
        ("databases", [_, Some("storage"), None, ..]) => read("storage"),
        ("databases", [_, Some("fork-from"), Some(_), None, _]) => write("fork"),
        ("databases", [_, Some("copy"), None, ..]) => write("copy"),
        ("databases", [_, Some("ingest"), None, ..]) => write("ingest"),
        ("databases", [_, Some("backup"), None, ..]) => write("backup"),
        ("databases", [_, Some("backup-download"), None, ..]) => write("backup_download"),
        ("databases", [_, Some("restore"), None, ..]) => write("restore"),
        ("databases", [_, Some("export"), None, ..]) => write("export"),
        ("databases", [_, Some("import"), None, ..]) => write("import"),
        ("databases", [_, Some("memory"), Some("status"), None, _]) => read("memory_status"),
        ("databases", [_, Some("memory"), Some("boost"), None, _]) => write("memory_boost"),
        ("databases", [_, Some("memory"), Some("restore"), None, _]) => write("memory_restore"),
        ("databases", [_, Some("memory"), Some("release"), None, _]) => write("memory_release"),
        ("databases", [_, Some("rebuild"), None, ..]) => write("rebuild"),
        ("databases", [_, Some("swap"), None, ..]) => write("swap"),
        ("databases", [_, Some("tables"), None, ..]) if get => read("table_list"),
        ("databases", [_, Some("tables"), None, ..]) => write("table_create"),
        ("databases", [_, Some("tables"), Some("query"), None, _]) => read("sql"),
        ("databases", [_, Some("tables"), Some("execute"), None, _]) if method == Method::POST => {
            write("table_execute")
        }
        ("databases", [_, Some("tables"), _, None, _]) => write("table_delete"),
        ("databases", [_, Some("tables"), _, Some("insert"), None]) => write("table_insert"),
        ("databases", [_, Some("tables"), _, Some("materialize"), None]) => write("materialize"),
        ("databases", [_, Some("tables"), _, Some("rejected"), None]) => read("rejected_rows"),
        ("databases", [_, Some("tables"), _, Some("fork-from"), Some(_)]) => write("fork"),
        ("databases", [_, Some("tables"), _, Some("files"), _]) if method == Method::PUT => write("file_upload"),
        ("databases", [_, Some("tables"), _, Some("files"), _]) => write("file_delete"),
        ("databases", [_, Some("tables"), _, Some("vector"), None]) if get => read("vector_get"),
        ("databases", [_, Some("tables"), _, Some("vector"), None]) => write("vector_delete"),
        ("databases", [_, Some("tables"), _, Some("vector"), Some("search")]) => read("vector_search"),
        ("databases", [_, Some("tables"), _, Some("vector"), Some("build")]) => write("vector_build"),
        ("databases", [_, Some("tables"), _, Some("vector"), Some("append")]) => write("vector_append"),
        ("databases", [_, Some("tables"), _, Some("vector"), Some("reindex")]) => write("vector_reindex"),
        ("databases", [_, Some("tables"), _, Some("vector"), Some("export")]) => write("vector_export"),
        ("databases", [_, Some("tables"), _, Some("vector"), Some("import")]) => write("vector_import"),
        ("databases", [_, Some("semantic-memory"), Some("search"), ..]) => read("semantic_memory_search"),
        ("databases", [_, Some("semantic-memory"), Some("list"), ..]) => read("semantic_memory_list"),
        ("databases", [_, Some("semantic-memory"), Some("rows"), None, _]) => write("semantic_memory_add"),
        ("databases", [_, Some("semantic-memory"), Some("rows"), ..]) if get => read("semantic_memory_get"),
        ("databases", [_, Some("semantic-memory"), Some("rows"), ..]) if method == Method::PATCH => {
            write("semantic_memory_change")
        }
        ("databases", [_, Some("semantic-memory"), Some("rows"), ..]) => write("semantic_memory_delete"),
        _ => read("other"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_have_names_of_a_bounded_number() {
        for (method, path, name) in [
            (Method::GET, "/health", "health"),
            (Method::POST, "/databases", "database_create"),
            (Method::GET, "/databases", "database_list"),
            (Method::DELETE, "/databases/kg1", "database_delete"),
            (Method::POST, "/databases/kg1/query", "query"),
            (Method::POST, "/databases/kg1/tables/query", "sql"),
            (Method::POST, "/databases/kg1/tables", "table_create"),
            (Method::POST, "/databases/kg1/tables/execute", "table_execute"),
            (Method::DELETE, "/databases/kg1/tables/T", "table_delete"),
            (Method::POST, "/databases/kg1/tables/T/materialize", "materialize"),
            (Method::PUT, "/databases/kg1/tables/T/files/f", "file_upload"),
            (Method::DELETE, "/databases/kg1/tables/T/files/f", "file_delete"),
            (Method::POST, "/databases/kg1/backup", "backup"),
            (Method::GET, "/databases/kg1/backup", "backup_download"),
            (Method::POST, "/databases/kg1/backup-download", "backup_download"),
            (Method::POST, "/databases/kg1/restore", "restore"),
            (Method::POST, "/databases/kg1/rebuild", "rebuild"),
            (Method::POST, "/databases/kg1/swap", "swap"),
            (Method::GET, "/databases/kg1/memory/status", "memory_status"),
            (Method::POST, "/databases/kg1/memory/boost", "memory_boost"),
            (Method::GET, "/tasks", "task_list"),
            (Method::GET, "/tasks/stats", "task_stats"),
            (Method::GET, "/tasks/x/monitor", "task_monitor"),
            (Method::DELETE, "/tasks/x", "task_cancel"),
            (Method::POST, "/admin/drain", "drain"),
            (Method::GET, "/admin/connections", "connections"),
            (Method::POST, "/admin/seed/refresh", "seed_refresh"),
            (Method::GET, "/tasks/queue/info", "task_queue"),
            (Method::GET, "/databases/kg1/storage", "storage"),
            (Method::POST, "/databases/kg1/copy", "copy"),
            (Method::POST, "/databases/kg1/ingest", "ingest"),
            (Method::POST, "/databases/kg1/tables/T/insert", "table_insert"),
            (Method::GET, "/databases/kg1/tables/T/vector", "vector_get"),
            (Method::DELETE, "/databases/kg1/tables/T/vector", "vector_delete"),
            (Method::POST, "/databases/kg1/tables/T/vector/build", "vector_build"),
            (Method::POST, "/databases/kg1/tables/T/vector/search", "vector_search"),
            (Method::POST, "/databases/kg1/tables/T/vector/other", "other"),
            (
                Method::POST,
                "/databases/kg1/semantic-memory/rows",
                "semantic_memory_add",
            ),
            (
                Method::GET,
                "/databases/kg1/semantic-memory/rows/mem_1",
                "semantic_memory_get",
            ),
            (
                Method::PATCH,
                "/databases/kg1/semantic-memory/rows/mem_1",
                "semantic_memory_change",
            ),
            (Method::POST, "/embeddings", "embeddings"),
            (Method::GET, "/wp-admin.php", "other"),
            (Method::GET, "/databases/a/b/c/d/e/f/g", "other"),
        ] {
            assert_eq!(operation(&method, path).name, name, "{method} {path}");
        }
    }
}
