//! Errors of requests: problem documents (RFC 9457).
//!
//! A handler returns `Err(Problem)`. The outermost layer ([`finish::layer`]) adds what the handler does not know, such
//! as the request's path, and turns refusals of the HTTP framework into the same form.

pub(crate) mod finish;
pub(crate) mod kind;
mod kubernetes;

pub(crate) use kind::Kind;
pub(crate) use kubernetes::lookup;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Media type of problem documents.
pub(crate) const CONTENT_TYPE: &str = "application/problem+json";

/// A problem document (RFC 9457): every error of this API has this form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProblemDetails {
    /// Identifies the kind of problem; stable, for programs to match.
    #[serde(rename = "type")]
    pub type_: String,
    /// The kind of problem in words; the same for all problems of a type.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong this time, and what to do.
    pub detail: String,
    /// Path of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The fields that are wrong, when the problem lies in the request's content.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldProblem>,
    /// Id of the request, as in the logs and in the header `X-Request-Id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Why the object is in the state that caused the problem: the reason of the condition that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One field that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FieldProblem {
    /// Path of the field in the request, such as `storage.sizeGiB`; `$` is the whole body.
    pub field: String,
    /// What is wrong with it and what is expected.
    pub detail: String,
    /// The refused value, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

impl FieldProblem {
    /// A field, what is wrong with it, and its value.
    pub(crate) fn new(field: impl Into<String>, detail: impl Into<String>, value: impl Into<Option<Value>>) -> Self {
        Self {
            field: field.into(),
            detail: detail.into(),
            value: value.into(),
        }
    }
}

/// A refused or failed request.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    kind: &'static Kind,
    status: StatusCode,
    detail: String,
    errors: Vec<FieldProblem>,
    reason: Option<String>,
    retry_after: Option<u32>,
}

impl Problem {
    /// A problem of a kind.
    pub(crate) fn new(kind: &'static Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            status: kind.status,
            detail: detail.into(),
            errors: Vec::new(),
            reason: None,
            retry_after: None,
        }
    }

    /// 404: what was looked for, in words.
    pub(crate) fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(&kind::NOT_FOUND, format!("{what} does not exist"))
    }

    /// 422: one field is wrong.
    pub(crate) fn field(field: impl Into<String>, detail: impl Into<String>, value: impl Into<Option<Value>>) -> Self {
        Self::fields(vec![FieldProblem::new(field, detail, value)])
    }

    /// 422: several fields are wrong.
    pub(crate) fn fields(errors: Vec<FieldProblem>) -> Self {
        let mut problem = Self::new(&kind::INVALID, summary(&errors));
        problem.errors = errors;
        problem
    }

    /// 400: a parameter of the URL or a header is wrong.
    pub(crate) fn parameter(name: &str, detail: impl Into<String>, value: &str) -> Self {
        let error = FieldProblem::new(name, detail, Value::from(clip(value)));
        let mut problem = Self::new(&kind::MALFORMED, summary(std::slice::from_ref(&error)));
        problem.errors = vec![error];
        problem
    }

    /// 500: a fault of this server; the cause goes to the log, not to the client.
    pub(crate) fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed by a fault of the API");
        Self::new(
            &kind::INTERNAL,
            "the API failed; its log says more under the request id",
        )
    }

    /// With a wait after which a repetition may succeed, in seconds.
    #[must_use]
    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// With the reason of the condition that is the cause.
    #[must_use]
    pub(crate) fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// With fields.
    #[must_use]
    pub(crate) fn errors(mut self, errors: Vec<FieldProblem>) -> Self {
        self.errors = errors;
        self
    }

    /// The kind.
    pub(crate) fn kind(&self) -> &'static Kind {
        self.kind
    }

    /// The document, without what only the outermost layer knows.
    pub(crate) fn describe(&self) -> ProblemDetails {
        ProblemDetails {
            type_: self.kind.uri(),
            title: self.kind.title.to_owned(),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            instance: None,
            errors: self.errors.clone(),
            request_id: None,
            reason: self.reason.clone(),
        }
    }

    fn render(&self, details: &ProblemDetails) -> Response {
        let body = serde_json::to_vec(details).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"graphplane\""),
            );
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.render(&self.describe());
        response.extensions_mut().insert(self);
        response
    }
}

/// A sentence that names every wrong field.
fn summary(errors: &[FieldProblem]) -> String {
    let named: Vec<String> = errors
        .iter()
        .take(5)
        .map(|error| format!("{}: {}", error.field, error.detail))
        .collect();
    let more = errors.len().saturating_sub(named.len());
    let tail = if more > 0 {
        format!("; and {more} more")
    } else {
        String::new()
    };
    format!("{}{tail}", named.join("; "))
}

/// The text, cut to a length that an answer can carry.
pub(crate) fn clip(text: &str) -> String {
    const LONGEST: usize = 200;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_problem_names_its_fields_and_carries_its_headers() {
        let problem = Problem::field("storage.sizeGiB", "must be at least 1", Value::from(0)).retry_after(7);
        let details = problem.describe();
        assert_eq!(details.detail, "storage.sizeGiB: must be at least 1");
        let response = problem.into_response();
        assert_eq!(response.status(), 422);
        assert_eq!(response.headers()["retry-after"], "7");
        assert_eq!(response.headers()["content-type"], CONTENT_TYPE);
    }

    #[test]
    fn long_values_are_cut_at_a_character() {
        let text = "ü".repeat(500);
        assert_eq!(clip(&text).chars().count(), 201);
        assert_eq!(clip("short"), "short");
    }
}
