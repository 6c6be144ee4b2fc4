//! What callers say in headers and in the query string.

use super::error::ApiError;
use crate::engines::Encoding;
use axum::http::{HeaderMap, header};

/// The media type of an Arrow IPC stream.
pub(super) const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";

/// How rows should be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// One JSON document.
    Json,
    /// A line of JSON per chunk.
    NdJson,
    /// Server-sent events.
    Sse,
    /// An Arrow IPC stream.
    Arrow,
}

impl Format {
    /// The format that the `Accept` header names; `streaming=true` turns JSON into NDJSON.
    pub(super) fn negotiate(headers: &HeaderMap, query: Option<&str>) -> Self {
        if accepts(headers, ARROW_STREAM) {
            Self::Arrow
        } else if accepts(headers, "text/event-stream") {
            Self::Sse
        } else if accepts(headers, "application/x-ndjson") || flag(query, "streaming") {
            Self::NdJson
        } else {
            Self::Json
        }
    }

    /// What the engine writes for it.
    pub(super) fn encoding(self) -> Encoding {
        match self {
            Self::Json | Self::NdJson | Self::Sse => Encoding::Json,
            Self::Arrow => Encoding::Arrow,
        }
    }
}

/// Whether the `Accept` header names this type itself, not a wildcard that covers it.
pub(super) fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| {
            item.split(';')
                .next()
                .is_some_and(|name| name.trim().eq_ignore_ascii_case(media_type))
        })
}

/// `?wait_seconds=n`: how long the caller waits for what it asks for.
///
/// # Errors
/// 400 when it is not a number up to an hour.
pub(super) fn wait_seconds(query: Option<&str>) -> Result<u64, ApiError> {
    match parameter(query, "wait_seconds").map(|text| text.parse::<u64>()) {
        None => Ok(0),
        Some(Ok(seconds)) if seconds <= 3600 => Ok(seconds),
        Some(_) => Err(ApiError::bad_request(
            "wait_seconds: expected a whole number from 0 to 3600",
        )),
    }
}

/// Whether `Prefer: respond-async` was sent (RFC 7240).
pub(super) fn prefers_async(headers: &HeaderMap) -> bool {
    headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| {
            item.split(';')
                .next()
                .is_some_and(|name| name.trim().eq_ignore_ascii_case("respond-async"))
        })
}

/// A parameter of the query string, decoded.
pub(super) fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    let pairs = url::form_urlencoded::parse(query?.as_bytes());
    pairs
        .into_iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

/// A truth value of the query string; absent is false.
pub(super) fn flag(query: Option<&str>, name: &str) -> bool {
    // The usual request has no query string, and then nothing is parsed.
    query.is_some()
        && parameter(query, name).is_some_and(|value| matches!(value.as_str(), "true" | "True" | "1" | "on" | "yes"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use axum::http::HeaderValue;

    fn accept(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn the_format_is_negotiated() {
        assert_eq!(Format::negotiate(&HeaderMap::new(), None), Format::Json);
        assert_eq!(Format::negotiate(&accept("*/*"), Some("streaming=false")), Format::Json);
        assert_eq!(
            Format::negotiate(&accept("application/json"), Some("streaming=true")),
            Format::NdJson
        );
        assert_eq!(
            Format::negotiate(&accept("application/x-ndjson;q=0.9, */*"), None),
            Format::NdJson
        );
        assert_eq!(
            Format::negotiate(&accept("text/event-stream"), Some("streaming=true")),
            Format::Sse
        );
        assert_eq!(
            Format::negotiate(&accept("application/vnd.apache.arrow.stream, */*;q=0.1"), None),
            Format::Arrow
        );
    }

    #[test]
    fn parameters_are_decoded() {
        assert_eq!(parameter(Some("a=1&name=x%20y"), "name").as_deref(), Some("x y"));
        assert_eq!(parameter(None, "name"), None);
        let prefer = HeaderMap::from_iter([(
            "prefer".parse().unwrap(),
            HeaderValue::from_static("wait=5, respond-async"),
        )]);
        assert!(prefers_async(&prefer) && !prefers_async(&HeaderMap::new()));
    }
}
