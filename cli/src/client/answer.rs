//! Answers that are not a success, for people.
//!
//! The API answers with problem documents (RFC 9457), the node agents behind its gateway with `{"detail": …}`.

use crate::failure::{Exit, Failure};
use reqwest::{Response, StatusCode};
use serde_json::Value;

/// What an answer says that is not a success.
pub async fn failure_of(response: Response) -> Failure {
    let status = response.status();
    let retry_after = response
        .headers()
        .get("retry-after")
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let body = response.bytes().await.unwrap_or_default();
    of_parts(status, &body, retry_after.as_deref())
}

fn of_parts(status: StatusCode, body: &[u8], retry_after: Option<&str>) -> Failure {
    let exit = match status {
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::PAYLOAD_TOO_LARGE => Exit::Usage,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::Denied,
        StatusCode::NOT_FOUND | StatusCode::GONE => Exit::NotFound,
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => Exit::Timeout,
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Exit::Conflict,
        _ => Exit::Failure,
    };
    let message = match serde_json::from_slice::<Value>(body) {
        Ok(document) => words(&document).unwrap_or_else(|| plain(status, body)),
        Err(_) => plain(status, body),
    };
    let failure = Failure::new(exit, message);
    match (status, retry_after) {
        (StatusCode::UNAUTHORIZED, _) => failure.advise("check GRAPHPLANE_API_KEY or --api-key-file"),
        (StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS, Some(seconds)) => {
            failure.advise(format!("try again in {seconds} s"))
        }
        _ => failure,
    }
}

/// The words of an error document: its detail, and the fields that are wrong.
fn words(document: &Value) -> Option<String> {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut message = match document.get("detail") {
        Some(Value::String(detail)) => detail.clone(),
        // FastAPI's form of a validation error: a list of `{loc, msg}`.
        Some(Value::Array(items)) => {
            let lines: Vec<String> = items.iter().filter_map(|item| text(item, "msg")).collect();
            lines.join("; ")
        }
        Some(detail) => text(detail, "error").or_else(|| text(detail, "message"))?,
        None => text(document, "title")
            .or_else(|| text(document, "message"))
            .or_else(|| text(document, "error"))?,
    };
    for field in document.get("errors").and_then(Value::as_array).into_iter().flatten() {
        if let (Some(name), Some(detail)) = (text(field, "field"), text(field, "detail")) {
            // A problem with a single field often says the same in its detail.
            if !message.contains(&detail) {
                message.push_str(&format!("\n  {name}: {detail}"));
            }
        }
    }
    (!message.is_empty()).then_some(message)
}

fn plain(status: StatusCode, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(300)]).trim().to_owned();
    let status = format!("the server answered {status}");
    if text.is_empty() || text.starts_with('<') {
        status
    } else {
        format!("{status}: {text}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn failure(status: u16, body: &str) -> Failure {
        of_parts(StatusCode::from_u16(status).unwrap(), body.as_bytes(), None)
    }

    #[test]
    fn a_problem_document_gives_its_detail_and_fields() {
        let body = r#"{"type":"t","title":"Invalid","status":422,"detail":"the graph is not valid",
            "errors":[{"field":"storage.sizeGiB","detail":"must be at least 1","value":0}]}"#;
        let failure = failure(422, body);
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(
            failure.message,
            "the graph is not valid\n  storage.sizeGiB: must be at least 1"
        );
    }

    #[test]
    fn the_forms_of_a_node_agent_are_understood() {
        assert_eq!(
            failure(400, r#"{"detail":"Parser exception: x"}"#).message,
            "Parser exception: x"
        );
        let busy = r#"{"detail":{"error":"the node is full","reason":"memory","retry_after":5}}"#;
        assert_eq!(failure(503, busy).message, "the node is full");
        assert_eq!(
            failure(422, r#"{"detail":[{"loc":["body"],"msg":"field required"}]}"#).message,
            "field required"
        );
    }

    #[test]
    fn other_answers_are_shown_as_they_are() {
        assert_eq!(failure(502, "").message, "the server answered 502 Bad Gateway");
        assert_eq!(failure(502, "<html>").message, "the server answered 502 Bad Gateway");
        assert_eq!(
            failure(500, "broken").message,
            "the server answered 500 Internal Server Error: broken"
        );
        assert_eq!(
            failure(500, "{}").message,
            "the server answered 500 Internal Server Error: {}"
        );
    }

    #[test]
    fn statuses_map_to_exit_codes() {
        let exit = |status| failure(status, "").exit;
        assert_eq!([exit(401), exit(403)], [Exit::Denied; 2]);
        assert_eq!(
            [exit(404), exit(408), exit(409)],
            [Exit::NotFound, Exit::Timeout, Exit::Conflict]
        );
        assert_eq!([exit(500), exit(503)], [Exit::Failure; 2]);
    }

    #[test]
    fn when_to_try_again_is_told() {
        let failure = of_parts(StatusCode::SERVICE_UNAVAILABLE, b"", Some("7"));
        assert_eq!(failure.advice.as_deref(), Some("try again in 7 s"));
    }
}
