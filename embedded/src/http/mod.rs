//! HTTP: routes, and the way from a request to a verb and back.

mod accept;
mod body;
mod encode;
mod params;
mod path;
mod resource;
mod system;
mod watch;

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::Method;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use crate::auth::{self, Identity};
use crate::cluster::Cluster;
use crate::status::ApiError;
use path::{ResourcePath, Route};

/// Extension of requests whose connection ends before the server does: watches end when it is cancelled.
#[derive(Clone)]
pub(crate) struct Closing(pub(crate) CancellationToken);

/// The whole API. Requests carry an [`Identity`] as an extension, which a layer around this sets.
pub(crate) fn router(cluster: Arc<Cluster>) -> Router {
    Router::new()
        .route("/", get(system::root))
        .route("/version", get(system::version))
        .route("/healthz", get(system::health))
        .route("/livez", get(system::health))
        .route("/readyz", get(system::health))
        .route("/api", get(system::core))
        .route("/apis", get(system::groups))
        .route("/openapi/v2", get(system::openapi_v2))
        .route("/openapi/v3", get(system::openapi_index))
        .route("/openapi/v3/{*path}", get(system::openapi_v3))
        .fallback(dispatch)
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed("", "", "") })
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(cluster)
}

/// Everything whose address depends on the served kinds.
async fn dispatch(State(cluster): State<Arc<Cluster>>, request: Request) -> Response {
    if cluster.stopping.is_cancelled() {
        return ApiError::unavailable("the server is shutting down").into_response();
    }
    resource::answer(match path::parse(request.uri().path()) {
        Route::Group(name) if request.method() == Method::GET => system::group(&cluster, request.headers(), &name),
        Route::GroupVersion(group, version) if request.method() == Method::GET => {
            system::resources(&cluster, request.headers(), &group, &version)
        }
        Route::Group(_) | Route::GroupVersion(..) => Err(ApiError::method_not_allowed("", "", "")),
        Route::Resource(path) => match auth::review_kind(&path.group, &path.version, &path.plural) {
            Some(kind) => review(kind, &path, request).await,
            None => resource::handle(cluster, path, request).await,
        },
        Route::Unknown => Err(ApiError::unknown_path()),
    })
}

/// Answers a question of the caller about itself.
async fn review(kind: &str, path: &ResourcePath, request: Request) -> Result<Response, ApiError> {
    if path.name.is_some() || path.namespace.is_some() {
        return Err(ApiError::unknown_path());
    }
    if request.method() != Method::POST {
        return Err(ApiError::method_not_allowed("", "", ""));
    }
    let (head, body) = request.into_parts();
    let identity = head
        .extensions
        .get::<Identity>()
        .copied()
        .ok_or_else(ApiError::unauthorized)?;
    let wanted = accept::negotiate(&head.headers, &[])?;
    let question = body::decode(&body::media_type(&head.headers), &body::read(body).await?)?;
    let (status, answer) = auth::review(kind, identity, &question.value)?;
    Ok(encode::document(status, wanted.notation, &answer))
}

/// A panic in a handler is a fault of ours: the client gets a Status, the log the rest.
fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&'static str>().copied())
        .unwrap_or("no message");
    tracing::error!(panic = text, "a request handler panicked");
    ApiError::internal("the server failed to handle the request; its log says more").into_response()
}
