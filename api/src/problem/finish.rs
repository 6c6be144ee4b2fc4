//! The outermost layer: request ids, logs, metrics, and the last touch on errors.

use super::{Problem, kind};
use crate::metrics::RequestLabels;
use crate::state::App;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use std::any::Any;
use std::time::Instant;

/// Header with the request's id, taken over from the client if it is short and plain.
pub(crate) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Id of a request, for handlers that pass it on.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) String);

/// Marks answers of node agents, which are passed on as they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PassedOn;

/// Wraps every request.
pub(crate) async fn layer(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |matched| matched.as_str().to_owned());
    request.extensions_mut().insert(RequestId(id.clone()));
    let in_flight = app.metrics.enter();
    let mut response = finish(next.run(request).await, &path, &id, &method);
    drop(in_flight);
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID.clone(), value);
    }
    let status = response.status();
    app.metrics
        .request(RequestLabels::new(&method, route, status), started.elapsed());
    if status.is_server_error() {
        tracing::warn!(%method, path, status = status.as_u16(), request_id = id, elapsed_ms = started.elapsed().as_millis() as u64, "request failed");
    } else {
        tracing::debug!(%method, path, status = status.as_u16(), request_id = id, elapsed_ms = started.elapsed().as_millis() as u64, "request");
    }
    response
}

fn request_id(request: &Request) -> String {
    let plain = |id: &str| {
        (1..=64).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    match request.headers().get(&REQUEST_ID).and_then(|value| value.to_str().ok()) {
        Some(id) if plain(id) => id.to_owned(),
        _ => uuid::Uuid::new_v4().to_string(),
    }
}

fn finish(mut response: Response, path: &str, id: &str, method: &Method) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || response.extensions().get::<PassedOn>().is_some() {
        return response;
    }
    let problem = response
        .extensions_mut()
        .remove::<Problem>()
        .unwrap_or_else(|| of_status(status, path, method));
    let mut details = problem.describe();
    details.instance = Some(path.to_owned());
    details.request_id = Some(id.to_owned());
    let mut finished = problem.render(&details);
    // Headers of the answer stay, such as `Allow`; those that describe the old body do not.
    for (name, value) in response.headers() {
        if !finished.headers().contains_key(name) && name != http::header::CONTENT_LENGTH {
            finished.headers_mut().append(name.clone(), value.clone());
        }
    }
    finished
}

/// A problem for a refusal of the HTTP framework, which has nothing but a status.
fn of_status(status: StatusCode, path: &str, method: &Method) -> Problem {
    match status {
        StatusCode::METHOD_NOT_ALLOWED => Problem::new(
            &kind::METHOD_NOT_ALLOWED,
            format!("{path} cannot be called with {method}; `Allow` lists the methods"),
        ),
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(&kind::TOO_LARGE, "the body is larger than this path accepts"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            Problem::new(&kind::UNSUPPORTED_MEDIA_TYPE, "send `Content-Type: application/json`")
        }
        StatusCode::NOT_FOUND => no_such_route(path),
        status if status.is_client_error() => {
            let mut problem = Problem::new(&kind::MALFORMED, "the request cannot be read");
            problem.status = status;
            problem
        }
        _ => Problem::internal(format!("an answer with status {status} and no cause")),
    }
}

fn no_such_route(path: &str) -> Problem {
    Problem::new(
        &kind::NO_SUCH_ROUTE,
        format!("there is no path {path}; /openapi.json lists all paths"),
    )
}

/// Answers paths that do not exist.
pub(crate) async fn fallback(request: Request) -> Problem {
    no_such_route(request.uri().path())
}

/// Answers a request whose handler panicked.
pub(crate) fn panicked(cause: Box<dyn Any + Send + 'static>) -> Response {
    let text = cause.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text
        .or_else(|| cause.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    Problem::internal(format!("a handler panicked: {text}")).into_response()
}
