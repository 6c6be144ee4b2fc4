//! Addresses that are not about objects: version, health, discovery, OpenAPI.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::accept::{self, Form, Notation};
use super::encode;
use super::resource::answer;
use crate::cluster::Cluster;
use crate::discovery;
use crate::openapi::Document;
use crate::status::ApiError;

/// The version of the Kubernetes API whose behaviour this server shows.
const MAJOR: &str = "1";
const MINOR: &str = "33";

pub(super) async fn version() -> Response {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let body = json!({
        "major": MAJOR,
        "minor": MINOR,
        "gitVersion": format!("v{MAJOR}.{MINOR}.0+graphplane.{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{arch}", std::env::consts::OS),
    });
    encode::document(StatusCode::OK, Notation::Json, &body)
}

/// The server answers, so it lives; while it shuts down it is not ready.
pub(super) async fn health(State(cluster): State<Arc<Cluster>>) -> Response {
    if cluster.stopping.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down").into_response();
    }
    (StatusCode::OK, "ok").into_response()
}

pub(super) async fn root() -> Response {
    let paths = [
        "/api",
        "/api/v1",
        "/apis",
        "/healthz",
        "/livez",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
        "/version",
    ];
    encode::document(StatusCode::OK, Notation::Json, &json!({ "paths": paths }))
}

/// One of two forms of discovery, as the client prefers.
fn discovered(headers: &HeaderMap, classic: impl Fn() -> Value, aggregated: impl Fn() -> Value) -> Response {
    answer(accept::negotiate(headers, &[Form::Discovery]).map(|wanted| {
        if wanted.form != Form::Discovery {
            return encode::document(StatusCode::OK, wanted.notation, &classic());
        }
        let mut response = encode::document(StatusCode::OK, Notation::Json, &aggregated());
        let kind = HeaderValue::from_static(discovery::AGGREGATED_MEDIA_TYPE);
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }))
}

pub(super) async fn core(State(cluster): State<Arc<Cluster>>, headers: HeaderMap) -> Response {
    let host = headers
        .get(header::HOST)
        .and_then(|h| h.to_str().ok())
        .unwrap_or("127.0.0.1");
    let kinds = cluster.kinds();
    discovered(
        &headers,
        || discovery::core_versions(host),
        || discovery::aggregated_core(&kinds.registry),
    )
}

pub(super) async fn groups(State(cluster): State<Arc<Cluster>>, headers: HeaderMap) -> Response {
    let kinds = cluster.kinds();
    discovered(
        &headers,
        || discovery::group_list(&kinds.registry),
        || discovery::aggregated_groups(&kinds.registry),
    )
}

/// `/apis/{group}`.
pub(super) fn group(cluster: &Cluster, headers: &HeaderMap, name: &str) -> Result<Response, ApiError> {
    let wanted = accept::negotiate(headers, &[])?;
    let body = discovery::group(&cluster.kinds().registry, name).ok_or_else(ApiError::unknown_path)?;
    Ok(encode::document(StatusCode::OK, wanted.notation, &body))
}

/// `/api/v1` and `/apis/{group}/{version}`.
pub(super) fn resources(
    cluster: &Cluster,
    headers: &HeaderMap,
    group: &str,
    version: &str,
) -> Result<Response, ApiError> {
    let wanted = accept::negotiate(headers, &[])?;
    let body =
        discovery::resource_list(&cluster.kinds().registry, group, version).ok_or_else(ApiError::unknown_path)?;
    Ok(encode::document(StatusCode::OK, wanted.notation, &body))
}

pub(super) async fn openapi_index(State(cluster): State<Arc<Cluster>>, headers: HeaderMap) -> Response {
    answer(
        accept::negotiate(&headers, &[])
            .map(|wanted| encode::document(StatusCode::OK, wanted.notation, &cluster.kinds().documents().index())),
    )
}

#[derive(Deserialize)]
pub(super) struct Hash {
    #[serde(default)]
    hash: String,
}

pub(super) async fn openapi_v3(
    State(cluster): State<Arc<Cluster>>,
    Path(path): Path<String>,
    Query(Hash { hash }): Query<Hash>,
    headers: HeaderMap,
) -> Response {
    answer(accept::negotiate(&headers, &[]).and_then(|_| {
        let path = path.trim_end_matches('/');
        let document = cluster
            .kinds()
            .documents()
            .v3(path)
            .ok_or_else(ApiError::unknown_path)?;
        if !hash.is_empty() && hash != document.hash {
            let now = format!("/openapi/v3/{path}?hash={}", document.hash);
            let location = HeaderValue::from_str(&now).map_err(ApiError::internal)?;
            return Ok((StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, location)]).into_response());
        }
        Ok(openapi_document(&headers, &document, !hash.is_empty()))
    }))
}

pub(super) async fn openapi_v2(State(cluster): State<Arc<Cluster>>, headers: HeaderMap) -> Response {
    answer(
        accept::negotiate(&headers, &[]).map(|_| openapi_document(&headers, &cluster.kinds().documents().v2(), false)),
    )
}

fn openapi_document(headers: &HeaderMap, document: &Document, immutable: bool) -> Response {
    let tag = format!("\"{}\"", document.hash);
    let known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| v.contains(&tag));
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let kind = HeaderValue::from_static("application/json");
        (StatusCode::OK, [(header::CONTENT_TYPE, kind)], document.body.clone()).into_response()
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    let caching = if immutable {
        "public, immutable"
    } else {
        "no-cache, private"
    };
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    response
}
