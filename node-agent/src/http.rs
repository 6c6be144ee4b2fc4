//! The HTTP contract of a graph node: routes, authentication, limits and streams.
//!
//! [`server`] accepts connections and [`front`] does for every request what is the same for all; the other modules hold
//! one resource each.

mod auth;
mod backup;
mod body;
mod databases;
mod download;
mod embeddings;
mod error;
mod execute;
mod export;
mod figures;
mod fork;
mod form;
mod front;
mod headers;
mod import;
mod keys;
mod loads;
mod materialize;
mod memory;
mod migration;
mod multipart;
pub mod openapi;
mod query;
mod rate;
mod rebuild;
mod restore;
mod rows;
mod schema;
mod seeds;
mod semantic_memory;
pub mod server;
mod shown;
mod sources;
mod sql;
mod stream;
mod swap;
mod system;
mod tables;
mod tasks;
mod tls;
mod upload;
mod validation;
mod vector_archives;
mod vector_tasks;
mod vectors;

pub use auth::Auth;
pub use error::ApiError;
pub use front::Front;
pub use keys::{Key, KeyId, read_keys};
pub use rate::RateLimit;
pub(crate) use shown::on_volume;
pub use tls::{Tls, TlsError};

use crate::state::AppState;
use axum::{
    Router,
    http::StatusCode,
    routing::{MethodRouter, delete, get, post, put},
};

/// Largest body of a request that has no limit of its own, in bytes.
const BODY_LIMIT: usize = 10 << 20;
/// Largest body of a schema, in bytes.
const SCHEMA_LIMIT: usize = 1 << 20;

/// The agent as axum has it.
pub fn router(state: AppState) -> Router {
    routes()
        .router
        .fallback(|| async { ApiError::new(StatusCode::NOT_FOUND, "Not Found") })
        .method_not_allowed_fallback(|| async { ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed") })
        .with_state(state)
}

/// The path of every route: what the OpenAPI document is compared with.
pub fn paths() -> Vec<&'static str> {
    routes().paths
}

/// Routes with their paths, which axum keeps to itself.
#[derive(Default)]
struct Routes {
    router: Router<AppState>,
    paths: Vec<&'static str>,
}

impl Routes {
    fn route(mut self, path: &'static str, methods: MethodRouter<AppState>) -> Self {
        self.router = self.router.route(path, methods);
        self.paths.push(path);
        self
    }
}

/// Every route of the agent. Its operation is described beside its handler, in the module's `operations`.
fn routes() -> Routes {
    Routes::default()
        .route("/openapi.json", get(openapi::get))
        .route("/health", get(system::health))
        .route("/status", get(system::status))
        .route("/info", get(system::info))
        .route("/metrics", get(system::metrics))
        .route("/admin/drain", post(system::drain))
        .route("/admin/connections", get(system::connections))
        .route("/admin/seed/refresh", post(seeds::refresh))
        .route("/embeddings", post(embeddings::post))
        .route("/databases", get(databases::list).post(databases::create))
        .route("/databases/{id}", get(databases::get).delete(databases::delete))
        .route("/databases/{id}/query", post(query::query))
        .route("/databases/{id}/schema", get(schema::get).post(schema::post))
        .route("/databases/{id}/metrics", get(databases::metrics))
        .route("/databases/{id}/fork-from/{parent}", post(fork::post))
        .route(
            "/databases/{id}/tables/{table}/fork-from/{parent}",
            post(fork::post_to_table),
        )
        .route("/databases/{id}/backup", post(backup::post).get(download::download))
        .route("/databases/{id}/backup-download", post(download::download))
        .route("/databases/{id}/restore", post(restore::post))
        .route("/databases/{id}/export", post(export::post))
        .route("/databases/{id}/import", post(import::post))
        .route("/migration/export", post(migration::export))
        .route("/migration/import", post(migration::import))
        .route("/migration/status", get(migration::status))
        .route("/migration/cleanup", post(migration::cleanup))
        .route("/databases/{id}/memory/boost", post(memory::boost))
        .route("/databases/{id}/memory/restore", post(memory::restore))
        .route("/databases/{id}/memory/release", post(memory::release))
        .route("/databases/{id}/memory/status", get(memory::status))
        .route("/databases/{id}/rebuild", post(rebuild::post))
        .route("/databases/{id}/swap", post(swap::post))
        .route("/databases/{id}/storage", get(databases::storage))
        .route("/databases/{id}/copy", post(loads::copy))
        .route("/databases/{id}/ingest", post(loads::ingest))
        .route("/databases/{id}/tables", get(tables::list).post(tables::create))
        .route("/databases/{id}/tables/query", post(sql::query))
        .route("/databases/{id}/tables/execute", post(execute::post))
        .route("/databases/{id}/tables/{table}", delete(tables::delete))
        .route(
            "/databases/{id}/tables/{table}/files/{file_id}",
            put(upload::put).delete(tables::delete_file),
        )
        .route("/databases/{id}/tables/{table}/insert", post(tables::insert))
        .route("/databases/{id}/tables/{table}/materialize", post(materialize::post))
        .route("/databases/{id}/tables/{table}/rejected", get(materialize::rejected))
        .route(
            "/databases/{id}/tables/{table}/vector",
            get(vectors::get).delete(vectors::delete),
        )
        .route("/databases/{id}/tables/{table}/vector/build", post(vectors::build))
        .route("/databases/{id}/tables/{table}/vector/append", post(vectors::append))
        .route("/databases/{id}/tables/{table}/vector/reindex", post(vectors::reindex))
        .route("/databases/{id}/tables/{table}/vector/search", post(vectors::search))
        .route(
            "/databases/{id}/tables/{table}/vector/export",
            post(vector_archives::export),
        )
        .route(
            "/databases/{id}/tables/{table}/vector/import",
            post(vector_archives::import),
        )
        .route("/databases/{id}/semantic-memory/rows", post(semantic_memory::add))
        .route("/databases/{id}/semantic-memory/search", post(semantic_memory::search))
        .route("/databases/{id}/semantic-memory/list", post(semantic_memory::list))
        .route(
            "/databases/{id}/semantic-memory/rows/{memory}",
            get(semantic_memory::get)
                .patch(semantic_memory::patch)
                .delete(semantic_memory::delete),
        )
        .route("/tasks", get(tasks::list))
        .route("/tasks/stats", get(tasks::stats))
        .route("/tasks/queue/info", get(tasks::queue))
        .route("/tasks/{id}", delete(tasks::cancel))
        .route("/tasks/{id}/status", get(tasks::status))
        .route("/tasks/{id}/monitor", get(tasks::monitor))
}
