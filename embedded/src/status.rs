//! Failures in the words of Kubernetes: the `Status` object that kubectl, client-go and kube-rs understand.
//!
//! Every handler returns [`ApiError`]; it renders itself as an HTTP response whose body is `kind: Status`. The wording of
//! the messages follows kube-apiserver because people search for these sentences and scripts match them.

use std::fmt;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

mod cause;

pub use cause::{Cause, CauseReason};

/// A failed request: the HTTP status, the machine-readable reason and the sentence for people.
///
/// Build it with one of the constructors; they choose code, reason and wording together so that the three never
/// contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status code, repeated as `code` in the body.
    pub code: StatusCode,
    /// Reason word of the Kubernetes API, for example `NotFound`.
    pub reason: &'static str,
    /// The sentence that kubectl prints.
    pub message: String,
    /// What the failure is about; boxed because most results are successes and carry the space of the error.
    pub details: Option<Box<Details>>,
}

/// The `details` of a `Status`: which object, which fields, and when to try again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Name of the object, empty when the request named none.
    pub name: String,
    /// API group, empty for the core group.
    pub group: String,
    /// Plural resource name, or the kind for validation failures (as kube-apiserver does).
    pub kind: String,
    /// UID of the object, empty when unknown.
    pub uid: String,
    /// The fields that were refused.
    pub causes: Vec<Cause>,
    /// Seconds after which the same request may succeed; also sent as the `Retry-After` header.
    pub retry_after_seconds: Option<u32>,
}

impl Details {
    fn of(group: &str, kind: &str, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: kind.to_owned(),
            ..Self::default()
        }
    }

    fn to_json(&self) -> Value {
        let mut map = Map::new();
        for (key, text) in [
            ("name", &self.name),
            ("group", &self.group),
            ("kind", &self.kind),
            ("uid", &self.uid),
        ] {
            if !text.is_empty() {
                map.insert(key.to_owned(), Value::from(text.as_str()));
            }
        }
        if !self.causes.is_empty() {
            map.insert(
                "causes".to_owned(),
                self.causes.iter().map(Cause::to_json).collect::<Value>(),
            );
        }
        if let Some(seconds) = self.retry_after_seconds {
            map.insert("retryAfterSeconds".to_owned(), Value::from(seconds));
        }
        Value::Object(map)
    }
}

/// `plural.group`, or only `plural` for the core group: how messages name a resource or kind.
#[must_use]
pub fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() {
        name.to_owned()
    } else {
        format!("{name}.{group}")
    }
}

/// Text in double quotes, with the escapes that Go's `%q` uses: messages are compared with those of kube-apiserver.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0B' => out.push_str("\\v"),
            '\x0C' => out.push_str("\\f"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

impl ApiError {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: None,
        }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        self.details = Some(Box::new(Details::of(group, kind, name)));
        self
    }

    fn with_retry(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = Some(seconds);
        self
    }

    /// Adds the UID of the object that the failure is about.
    #[must_use]
    pub fn with_uid(mut self, uid: &str) -> Self {
        self.details.get_or_insert_default().uid = uid.to_owned();
        self
    }

    /// 404: no object of this name. `resource` is the plural.
    #[must_use]
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let what = qualified(resource, group);
        Self::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            format!("{what} {} not found", quote(name)),
        )
        .about(group, resource, name)
    }

    /// 404: the path is not served at all (unknown group, version or resource).
    #[must_use]
    pub fn unknown_path() -> Self {
        let mut error = Self::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            "the server could not find the requested resource",
        );
        error.details = Some(Box::default());
        error
    }

    /// 409: an object of this name exists already. `resource` is the plural.
    #[must_use]
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let what = qualified(resource, group);
        Self::new(
            StatusCode::CONFLICT,
            "AlreadyExists",
            format!("{what} {} already exists", quote(name)),
        )
        .about(group, resource, name)
    }

    /// 409: the object changed since the caller read it, or another precondition does not hold. `message` says which;
    /// see [`ApiError::MODIFIED`] for the usual one.
    #[must_use]
    pub fn conflict(group: &str, resource: &str, name: &str, message: &str) -> Self {
        let what = qualified(resource, group);
        Self::new(
            StatusCode::CONFLICT,
            "Conflict",
            format!("Operation cannot be fulfilled on {what} {}: {message}", quote(name)),
        )
        .about(group, resource, name)
    }

    /// The message of a [`conflict`](Self::conflict) on `resourceVersion`.
    pub const MODIFIED: &'static str =
        "the object has been modified; please apply your changes to the latest version and try again";

    /// 422: the object breaks its schema or a rule. The message lists every cause.
    #[must_use]
    pub fn invalid(group: &str, kind: &str, object: &str, causes: Vec<Cause>) -> Self {
        let (what, name) = (qualified(kind, group), quote(object));
        // The same sentence twice helps nobody; kube-apiserver drops repetitions from the message too.
        let mut sentences: Vec<String> = Vec::with_capacity(causes.len());
        for sentence in causes.iter().map(ToString::to_string) {
            if !sentences.contains(&sentence) {
                sentences.push(sentence);
            }
        }
        let message = match sentences.as_slice() {
            [] => format!("{what} {name} is invalid"),
            [only] => format!("{what} {name} is invalid: {only}"),
            many => format!("{what} {name} is invalid: [{}]", many.join(", ")),
        };
        let mut error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).about(group, kind, object);
        error.details.get_or_insert_default().causes = causes;
        error
    }

    /// 410: a watch or a continued list asks for a revision that was compacted away; the caller must list again.
    #[must_use]
    pub fn expired(message: &str) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// 400: the request cannot be understood.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 400 of `fieldValidation=Strict`: the body has unknown or duplicate fields. `problems` are sentences such as
    /// `unknown field "spec.foo"`; see [`unknown_field`](Self::unknown_field).
    #[must_use]
    pub fn strict_decoding(kind: &str, version: &str, problems: &[String]) -> Self {
        Self::bad_request(format!(
            "{kind} in version {} cannot be handled as a {kind}: strict decoding error: {}",
            quote(version),
            problems.join(", ")
        ))
    }

    /// 422 of `fieldValidation=Strict` for a patch: `object`, the stored object with the patch in it, has unknown fields,
    /// or the patch has duplicate ones.
    #[must_use]
    pub fn strict_patch(object: String, problems: &[String]) -> Self {
        let detail = format!("strict decoding error: {}", problems.join(", "));
        let cause = Cause::invalid("patch", &Value::String(object), &detail);
        Self::invalid("", "", "", vec![cause])
    }

    /// The sentence for one pruned field, used in `strict_decoding` and in `Warning` headers.
    #[must_use]
    pub fn unknown_field(path: &str) -> String {
        format!("unknown field {}", quote(path))
    }

    /// 405: the resource exists but not with this verb (`create`, `update`, …).
    #[must_use]
    pub fn method_not_allowed(group: &str, resource: &str, action: &str) -> Self {
        let what = qualified(resource, group);
        let message = if what.is_empty() {
            "the server does not allow this method on the requested resource".to_owned()
        } else {
            format!("{action} is not supported on resources of kind {}", quote(&what))
        };
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message).about(group, resource, "")
    }

    /// 415: the body's media type is none of `supported`.
    #[must_use]
    pub fn unsupported_media_type(supported: &[&str]) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {}",
                supported.join(", ")
            ),
        )
    }

    /// 406: none of the media types that the caller accepts can be produced.
    #[must_use]
    pub fn not_acceptable(supported: &[&str]) -> Self {
        Self::new(
            StatusCode::NOT_ACCEPTABLE,
            "NotAcceptable",
            format!("only the following media types are accepted: {}", supported.join(", ")),
        )
    }

    /// 401: no credential, or a wrong one.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// 403: understood, but refused; `message` says why.
    #[must_use]
    pub fn forbidden(group: &str, resource: &str, name: &str, message: &str) -> Self {
        let what = qualified(resource, group);
        let text = match (what.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {message}"),
            (false, true) => format!("{what} is forbidden: {message}"),
            (false, false) => format!("{what} {} is forbidden: {message}", quote(name)),
        };
        Self::new(StatusCode::FORBIDDEN, "Forbidden", text).about(group, resource, name)
    }

    /// 500: a fault of the server, such as a failing disk.
    #[must_use]
    pub fn internal(problem: impl fmt::Display) -> Self {
        let text = problem.to_string();
        let mut error = Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            format!("Internal error occurred: {text}"),
        );
        error.details = Some(Box::new(Details {
            causes: vec![Cause::plain(text)],
            ..Details::default()
        }));
        error
    }

    /// 413: the body exceeds the limit; `limit` in bytes.
    #[must_use]
    pub fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {limit}"),
        )
    }

    /// 504: the request did not finish in its time and may still take effect.
    #[must_use]
    pub fn timeout(message: &str, retry_after_seconds: u32) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", format!("Timeout: {message}")).with_retry(retry_after_seconds)
    }

    /// 429: the server is busy; try again after the given seconds.
    #[must_use]
    pub fn too_many_requests(message: &str, retry_after_seconds: u32) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message).with_retry(retry_after_seconds)
    }

    /// 503: the server is starting or stopping.
    #[must_use]
    pub fn unavailable(message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    }

    /// The `Status` object, as it stands in a response body and in the `ERROR` event of a watch.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut body = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code.as_u16(),
        });
        if let Some(details) = &self.details {
            body["details"] = details.to_json();
        }
        body
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let retry = self.details.as_ref().and_then(|details| details.retry_after_seconds);
        let mut response = (
            self.code,
            [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))],
            self.to_json().to_string(),
        )
            .into_response();
        if let Some(seconds) = retry {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The `Status` of a request that succeeded without an object to return, such as a completed deletion.
#[must_use]
pub fn success(group: &str, resource: &str, name: &str, uid: &str) -> Value {
    let mut details = Details::of(group, resource, name);
    details.uid = uid.to_owned();
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details.to_json(),
    })
}

#[cfg(test)]
mod tests;
