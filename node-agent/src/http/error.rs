//! Errors as the contract has them: `{"detail": …}` with a text or an object, and `Retry-After` wherever a caller should
//! come back.

use crate::{
    admission::Overload,
    engines::{EngineError, ErrorClass},
    migration::MigrationError,
    objects::{SourceError, StoreError},
    quota::QuotaError,
    registration::lease::Refusal,
    tasks::TaskError,
};
use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};
use std::{borrow::Cow, time::Duration};

/// An answer that is not a success.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// The status code.
    pub status: StatusCode,
    /// A text, or an object with more.
    pub detail: Value,
    /// When another try makes sense; always set for 429 and 503.
    pub retry_after: Option<Duration>,
    /// Why the node protected itself, as the metrics count it.
    pub rejected: Option<Rejected>,
}

/// The label of a refusal; travels with the response to where refusals are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected(pub &'static str);

impl ApiError {
    /// An error with a text.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self::with_detail(status, Value::String(detail.into()))
    }

    /// An error with any detail.
    pub fn with_detail(status: StatusCode, detail: Value) -> Self {
        let retry = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        Self {
            status,
            detail,
            retry_after: retry.then_some(Duration::from_secs(5)),
            rejected: None,
        }
    }

    /// 400 with a text.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// The same with another pause.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }

    /// The same, counted as a refusal with this label.
    #[must_use]
    pub fn rejected(mut self, label: &'static str) -> Self {
        self.rejected = Some(Rejected(label));
        self
    }

    /// 503 with the object of the contract: `error`, `reason`, `decision` and `retry_after`.
    pub fn unavailable(error: &str, reason: &str, decision: &str, pause: Duration) -> Self {
        let detail = json!({"error": error, "reason": reason, "decision": decision, "retry_after": seconds(pause)});
        Self::with_detail(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(pause)
    }

    /// The text, for logs and task records.
    pub fn message(&self) -> String {
        match &self.detail {
            Value::String(text) => text.clone(),
            Value::Object(object) => match object.get("error").and_then(Value::as_str) {
                Some(text) => text.to_owned(),
                None => self.detail.to_string(),
            },
            other => other.to_string(),
        }
    }
}

fn seconds(pause: Duration) -> u64 {
    // Rounded up: coming back too early only costs another refusal.
    pause.as_secs() + u64::from(pause.subsec_nanos() > 0)
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({ "detail": self.detail }).to_string();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(pause) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds(pause).max(1)));
        }
        if let Some(rejected) = self.rejected {
            response.extensions_mut().insert(rejected);
        }
        response
    }
}

/// The body, as the OpenAPI document has it.
impl JsonSchema for ApiError {
    fn schema_name() -> Cow<'static, str> {
        "Error".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let text = || json!({"type": "string"});
        let field = json!({
            "type": "object",
            "required": ["type", "loc", "msg", "input"],
            "properties": {
                "type": text(), "msg": text(), "ctx": {"type": "object"},
                "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
                "input": {"description": "What was sent, shortened; null for what may be secret."},
            },
        });
        json_schema!({
            "type": "object",
            "required": ["detail"],
            "properties": {"detail": {"anyOf": [
                text(),
                {
                    "type": "object",
                    "required": ["error"],
                    "properties": {
                        "error": text(),
                        "reason": {"type": "string", "description": "What the node protects itself from."},
                        "decision": text(),
                        "retry_after": {"type": "integer", "description": "Seconds."},
                        "task_id": {"type": "string", "description": "The task that is at work already."},
                        "monitor_url": text(),
                    },
                    "additionalProperties": true,
                },
                {"type": "array", "items": field},
            ]}},
        })
    }
}

/// The status of each class of engine failure. A client that goes away reads no status, so 499 is for the logs.
pub(super) fn status_of(class: ErrorClass) -> StatusCode {
    match class {
        ErrorClass::NotFound => StatusCode::NOT_FOUND,
        ErrorClass::AlreadyExists | ErrorClass::Constraint | ErrorClass::Incompatible => StatusCode::CONFLICT,
        ErrorClass::Syntax | ErrorClass::Invalid => StatusCode::BAD_REQUEST,
        ErrorClass::Forbidden | ErrorClass::ReadOnly => StatusCode::FORBIDDEN,
        ErrorClass::Timeout => StatusCode::REQUEST_TIMEOUT,
        ErrorClass::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        ErrorClass::OutOfMemory | ErrorClass::Capacity => StatusCode::INSUFFICIENT_STORAGE,
        ErrorClass::Busy => StatusCode::SERVICE_UNAVAILABLE,
        ErrorClass::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let status = status_of(error.class());
        match error.retry_after() {
            Some(pause) => {
                Self::unavailable("The database is busy", &error.to_string(), "reject_busy", pause).rejected("queue")
            }
            None => Self::new(status, error.to_string()),
        }
    }
}

impl From<Overload> for ApiError {
    fn from(overload: Overload) -> Self {
        Self::unavailable(
            "Server temporarily unavailable",
            &overload.to_string(),
            overload.decision(),
            overload.retry_after(),
        )
        .rejected(overload.label())
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let pause = Duration::from_secs(5);
        let detail = json!({"error": refusal.message(), "reason": refusal.reason(), "retry_after": seconds(pause)});
        Self::with_detail(StatusCode::SERVICE_UNAVAILABLE, detail)
            .retry_after(pause)
            .rejected(refusal.reason())
    }
}

impl From<TaskError> for ApiError {
    fn from(error: TaskError) -> Self {
        let status = match error {
            TaskError::NotFound(_) => StatusCode::NOT_FOUND,
            TaskError::Final { .. } => StatusCode::CONFLICT,
            TaskError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            TaskError::Disk(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl From<QuotaError> for ApiError {
    fn from(error: QuotaError) -> Self {
        let text = error.to_string();
        let QuotaError::Spent { limit, resets, .. } = error else {
            return Self::new(StatusCode::INTERNAL_SERVER_ERROR, text);
        };
        let pause = Duration::try_from(resets.duration_since(jiff::Timestamp::now())).unwrap_or_default();
        let detail = json!({
            "error": text, "reason": "copy_per_day", "limit": limit, "resets_at": resets.to_string(),
            "retry_after": seconds(pause),
        });
        Self::with_detail(StatusCode::TOO_MANY_REQUESTS, detail)
            .retry_after(pause)
            .rejected("copy_per_day")
    }
}

impl From<SourceError> for ApiError {
    fn from(error: SourceError) -> Self {
        let status = match error {
            SourceError::Invalid(_) => StatusCode::BAD_REQUEST,
            SourceError::Forbidden(_) => StatusCode::FORBIDDEN,
            SourceError::NotFound(_) => StatusCode::NOT_FOUND,
            SourceError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            SourceError::Store { .. } => StatusCode::BAD_GATEWAY,
            SourceError::Full(_) => {
                return Self::from(EngineError::Capacity {
                    message: error.to_string(),
                });
            }
            SourceError::Io { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl From<MigrationError> for ApiError {
    fn from(error: MigrationError) -> Self {
        let status = match error {
            MigrationError::Engine(error) => return error.into(),
            MigrationError::Store(error) => return error.into(),
            MigrationError::Absent { .. } => StatusCode::NOT_FOUND,
            MigrationError::Occupied { .. } => StatusCode::CONFLICT,
            MigrationError::Document { .. } | MigrationError::Unusable { .. } | MigrationError::NoKey { .. } => {
                StatusCode::BAD_REQUEST
            }
            MigrationError::Copy(_)
            | MigrationError::Upload(_)
            | MigrationError::Download(_)
            | MigrationError::Counts { .. }
            | MigrationError::Io { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let status = match error {
            StoreError::Key { .. } | StoreError::TooLarge { .. } => StatusCode::BAD_REQUEST,
            StoreError::Room { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            StoreError::Absent { .. } => StatusCode::NOT_FOUND,
            StoreError::Url { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            StoreError::Contended { .. } => StatusCode::SERVICE_UNAVAILABLE,
            StoreError::Store { .. } => StatusCode::BAD_GATEWAY,
        };
        Self::new(status, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn who_should_come_back_is_told_when() {
        for error in [
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "slow down"),
            ApiError::from(Refusal::Fenced),
            ApiError::from(TaskError::Stopping),
            ApiError::unavailable("e", "r", "d", Duration::from_millis(1)),
            ApiError::from(EngineError::Busy {
                reason: "queue".into(),
                retry_after: Duration::from_secs(2),
            }),
        ] {
            let response = error.into_response();
            assert!(
                response.headers()[header::RETRY_AFTER]
                    .to_str()
                    .unwrap()
                    .parse::<u64>()
                    .unwrap()
                    >= 1
            );
        }
        let plain = ApiError::bad_request("no").into_response();
        assert!(plain.headers().get(header::RETRY_AFTER).is_none());
    }
}
