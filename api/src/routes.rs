//! Every route, and the layers around them.

use crate::auth::{self, Caller, manage};
use crate::gateway::{self, Op};
use crate::nodes::{lease, register};
use crate::openapi::ui;
use crate::problem::finish::{self, RequestId};
use crate::state::App;
use crate::{backups, graphs, health, nodes, operations, subgraphs, tiers, volumes};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Extension, Path, Request, State};
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, delete, get, on, post};
use std::collections::HashMap;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;

/// Largest body of a request that is answered here; bodies of the gateway stream and have no limit here. Bytes.
const BODY_LIMIT: usize = 2 << 20;

/// All routes.
pub(crate) fn build(app: App) -> Router {
    let documents = Router::new()
        .route("/openapi.json", get(ui::document))
        .route("/docs", get(ui::page))
        .route("/docs/{file}", get(ui::asset))
        .layer(CompressionLayer::new());
    let open = Router::new()
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        // Node agents have credentials of their own.
        .route("/v1/nodes/register", post(register::register))
        .route("/v1/nodes/{name}/lease", post(lease::renew))
        .merge(documents);
    let with_key = resources()
        .merge(data())
        .route_layer(from_fn_with_state(app.clone(), auth::layer));
    Router::new()
        .merge(open)
        .merge(with_key)
        .fallback(finish::fallback)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(CatchPanicLayer::custom(finish::panicked))
        .layer(from_fn_with_state(app.clone(), finish::layer))
        .with_state(app)
}

fn resources() -> Router<App> {
    Router::new()
        .route("/v1/graphs", get(graphs::list).post(graphs::create))
        .route(
            "/v1/graphs/{graph}",
            get(graphs::get).patch(graphs::patch).delete(graphs::delete),
        )
        .route(
            "/v1/graphs/{graph}/subgraphs",
            get(subgraphs::list).post(subgraphs::create),
        )
        .route(
            "/v1/graphs/{graph}/subgraphs/{name}",
            get(subgraphs::get).patch(subgraphs::patch).delete(subgraphs::delete),
        )
        .route("/v1/graphs/{graph}/backups", get(backups::list).post(backups::create))
        .route("/v1/graphs/{graph}/backups/{name}", get(backups::get))
        .route("/v1/tiers", get(tiers::list))
        .route(
            "/v1/tiers/{name}",
            get(tiers::get).put(tiers::put).delete(tiers::delete),
        )
        .route("/v1/nodes", get(nodes::list))
        .route("/v1/nodes/{name}", get(nodes::get).patch(nodes::patch))
        .route("/v1/volumes", get(volumes::list))
        .route("/v1/volumes/{name}", get(volumes::get))
        .route("/v1/operations/{id}", get(operations::get))
        .route("/v1/operations/{id}/events", get(operations::follow))
        .route("/v1/api-keys", get(manage::list).post(manage::create))
        .route("/v1/api-keys/{id}", delete(manage::delete))
}

type Parameters = Path<HashMap<String, String>>;

/// What crosses the gateway.
fn data() -> Router<App> {
    Router::new()
        .route("/v1/graphs/{graph}/query", to_agent(Op::Query))
        .route(
            "/v1/graphs/{graph}/schema",
            to_agent(Op::ReadSchema).merge(to_agent(Op::WriteSchema)),
        )
        .route("/v1/graphs/{graph}/metrics", to_agent(Op::Metrics))
        .route(
            "/v1/graphs/{graph}/tables",
            to_agent(Op::ListTables).merge(to_agent(Op::CreateTable)),
        )
        .route("/v1/graphs/{graph}/tables/query", to_agent(Op::QueryTables))
        .route("/v1/graphs/{graph}/tables/execute", to_agent(Op::ExecuteTables))
        .route("/v1/graphs/{graph}/tables/{table}", to_agent(Op::DropTable))
        .route(
            "/v1/graphs/{graph}/tables/{table}/files/{file}",
            to_agent(Op::PutFile).merge(to_agent(Op::DeleteFile)),
        )
        .route(
            "/v1/graphs/{graph}/tables/{table}/materialize",
            to_agent(Op::Materialize),
        )
        .route("/v1/graphs/{graph}/tables/{table}/insert", to_agent(Op::InsertFiles))
        .route("/v1/graphs/{graph}/tables/{table}/rejected", to_agent(Op::Rejected))
        .route("/v1/graphs/{graph}/copy", to_agent(Op::Copy))
        .route("/v1/graphs/{graph}/ingest", to_agent(Op::Ingest))
        .route("/v1/graphs/{graph}/rebuild", to_agent(Op::Rebuild))
        .route("/v1/graphs/{graph}/storage", to_agent(Op::Storage))
        .route("/v1/graphs/{graph}/embeddings", to_agent(Op::Embed))
        .route(
            "/v1/graphs/{graph}/tables/{table}/vector",
            to_agent(Op::ShowVectors).merge(to_agent(Op::DropVectors)),
        )
        .route(
            "/v1/graphs/{graph}/tables/{table}/vector/build",
            to_agent(Op::BuildVectors),
        )
        .route(
            "/v1/graphs/{graph}/tables/{table}/vector/append",
            to_agent(Op::AppendVectors),
        )
        .route(
            "/v1/graphs/{graph}/tables/{table}/vector/reindex",
            to_agent(Op::ReindexVectors),
        )
        .route(
            "/v1/graphs/{graph}/tables/{table}/vector/search",
            to_agent(Op::SearchVectors),
        )
        .route("/v1/graphs/{graph}/semantic-memory/rows", to_agent(Op::AddMemories))
        .route(
            "/v1/graphs/{graph}/semantic-memory/search",
            to_agent(Op::SearchMemories),
        )
        .route("/v1/graphs/{graph}/semantic-memory/list", to_agent(Op::ListMemories))
        .route(
            "/v1/graphs/{graph}/semantic-memory/rows/{row}",
            to_agent(Op::ReadMemory)
                .merge(to_agent(Op::ChangeMemory))
                .merge(to_agent(Op::DeleteMemory)),
        )
        .route("/v1/graphs/{graph}/tasks", to_agent(Op::ListTasks))
        .route(
            "/v1/graphs/{graph}/tasks/{task}",
            to_agent(Op::TaskStatus).merge(to_agent(Op::CancelTask)),
        )
        .route("/v1/graphs/{graph}/tasks/{task}/status", to_agent(Op::TaskStatus))
        .route("/v1/graphs/{graph}/tasks/{task}/monitor", to_agent(Op::TaskMonitor))
}

/// The route of one kind of call to a node agent.
fn to_agent(op: Op) -> MethodRouter<App> {
    let filter = MethodFilter::try_from(op.method()).unwrap_or(MethodFilter::GET);
    on(
        filter,
        move |state: State<App>,
              caller: Extension<Caller>,
              id: Extension<RequestId>,
              path: Parameters,
              request: Request| { gateway::call(op, state, caller, id, path, request) },
    )
}
