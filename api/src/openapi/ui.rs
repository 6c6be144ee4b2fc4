//! `/openapi.json`, and `/docs`: Swagger UI, compiled in, so that no network is needed.

use crate::problem::Problem;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use std::sync::OnceLock;

static STYLE: &[u8] = include_bytes!("../../assets/swagger-ui/swagger-ui.css");
static BUNDLE: &[u8] = include_bytes!("../../assets/swagger-ui/swagger-ui-bundle.js");
static START: &str = include_str!("../../assets/docs/start.js");
static PAGE: &str = include_str!("../../assets/docs/index.html");

/// Nothing comes from elsewhere and nothing goes elsewhere. Swagger UI sets styles of elements itself, and its icons are
/// in its style sheet.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The OpenAPI document.
pub(crate) async fn document() -> Response {
    static TEXT: OnceLock<Bytes> = OnceLock::new();
    let text = TEXT.get_or_init(|| Bytes::from(super::document().to_string())).clone();
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// The page.
pub(crate) async fn page() -> Response {
    let headers: [(HeaderName, HeaderValue); 3] = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        ),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, PAGE).into_response()
}

/// What the page loads.
pub(crate) async fn asset(Path(file): Path<String>) -> Result<Response, Problem> {
    let (content_type, bytes) = match file.as_str() {
        "swagger-ui.css" => ("text/css; charset=utf-8", STYLE),
        "swagger-ui-bundle.js" => ("text/javascript; charset=utf-8", BUNDLE),
        "start.js" => ("text/javascript; charset=utf-8", START.as_bytes()),
        _ => return Err(Problem::not_found(format!("/docs/{}", crate::problem::clip(&file)))),
    };
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "public, max-age=3600"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, Bytes::from_static(bytes)).into_response())
}
