//! `/healthz`, `/readyz` and `/metrics`; none of them needs a key.

use crate::problem::Problem;
use crate::state::App;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::json;

/// The process answers.
pub(crate) async fn live() -> &'static str {
    "ok\n"
}

/// The watch caches are filled.
pub(crate) async fn ready(State(app): State<App>) -> Response {
    let missing = app.caches.missing();
    let ready = missing.is_empty();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({ "ready": ready, "clusterId": app.settings.cluster_id, "waitingFor": missing });
    // Not a problem document: load balancers read the status, people the list.
    let mut response = (status, Json(body)).into_response();
    response.extensions_mut().insert(crate::problem::finish::PassedOn);
    response
}

/// Metrics for Prometheus.
pub(crate) async fn metrics(State(app): State<App>) -> Result<Response, Problem> {
    let text = app.metrics.encode().map_err(Problem::internal)?;
    Ok((
        [(
            header::CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        text,
    )
        .into_response())
}
