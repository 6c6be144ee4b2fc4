//! JSON bodies, read so that a refusal names the field and its value.

use crate::problem::{FieldProblem, Kind, Problem, clip, kind, lookup};
use axum::extract::rejection::{BytesRejection, JsonRejection};
use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A body of a known form, and the same as plain JSON.
#[derive(Debug)]
pub(crate) struct Body<T> {
    /// The content.
    pub(crate) content: T,
    /// The content as it was sent.
    pub(crate) raw: Value,
}

impl<T, S> FromRequest<S> for Body<T>
where
    T: DeserializeOwned + Serialize,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        check_content_type(request.headers())?;
        let bytes = Bytes::from_request(request, state).await.map_err(unreadable)?;
        Self::parse(&bytes)
    }
}

impl<T: DeserializeOwned + Serialize> Body<T> {
    /// Reads JSON text of exactly this form: fields that it does not have are refused.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let Self { content, raw } = Self::parse_known(bytes)?;
        let understood = serde_json::to_value(&content).map_err(Problem::internal)?;
        let mut unknown = Vec::new();
        unknown_fields(&raw, &understood, "", &mut unknown);
        if unknown.is_empty() {
            Ok(Self { content, raw })
        } else {
            Err(Problem::fields(unknown))
        }
    }
}

impl<T: DeserializeOwned> Body<T> {
    /// Reads JSON text that may have more fields than this form, for senders that may be newer than this server.
    pub(crate) fn parse_known(bytes: &[u8]) -> Result<Self, Problem> {
        let raw: Value = serde_json::from_slice(bytes).map_err(|error| {
            let what = if bytes.is_empty() {
                "the body is empty".to_owned()
            } else {
                error.to_string()
            };
            Problem::new(&kind::MALFORMED, format!("the body is not JSON: {what}"))
        })?;
        if !raw.is_object() {
            return Err(Problem::new(&kind::INVALID, "the body must be a JSON object"));
        }
        // axum's reader follows the path to the value that does not fit, which serde_json alone does not.
        let content = axum::Json::<T>::from_bytes(bytes)
            .map_err(|error| misfit(&error, &raw))?
            .0;
        Ok(Self { content, raw })
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    let found = if given.is_empty() {
        "none".to_owned()
    } else {
        format!("`{}`", clip(given))
    };
    let detail = format!("the content type is {found}; send `Content-Type: application/json`");
    Err(Problem::new(&kind::UNSUPPORTED_MEDIA_TYPE, detail))
}

fn unreadable(error: BytesRejection) -> Problem {
    let too_large = error.status() == StatusCode::PAYLOAD_TOO_LARGE;
    let kind: &'static Kind = if too_large { &kind::TOO_LARGE } else { &kind::MALFORMED };
    Problem::new(kind, error.body_text())
}

/// A problem for a value that does not fit, from a text such as `storage.sizeGiB: invalid type: string "x", expected u32`.
fn misfit(error: &JsonRejection, raw: &Value) -> Problem {
    let text = error.body_text();
    let text = text.split_once("target type: ").map_or(text.as_str(), |(_, rest)| rest);
    // The position in the text says nothing that the field's path does not.
    let text = text.rsplit_once(" at line ").map_or(text, |(text, _)| text);
    let is_path = |path: &str| !path.is_empty() && !path.contains([' ', '`']);
    let (path, detail) = match text.split_once(": ") {
        Some((path, detail)) if is_path(path) => (path, detail),
        _ => ("", text),
    };
    let quoted = || detail.split('`').nth(1).unwrap_or_default();
    let below = |parent: &str| match parent {
        "" | "." => quoted().to_owned(),
        parent => format!("{parent}.{}", quoted()),
    };
    let names_another = detail.starts_with("missing field")
        || (detail.starts_with("unknown field") && path.rsplit('.').next() != Some(quoted()));
    let field = match path {
        path if names_another => below(path),
        "" | "." => "$".to_owned(),
        path => path.to_owned(),
    };
    let value = lookup(raw, &field).cloned().map(|value| match value {
        Value::String(text) => Value::from(clip(&text)),
        other => other,
    });
    Problem::field(field, detail, value)
}

/// Fields that were sent but are not part of the form: they would be dropped in silence, which hides typing errors.
fn unknown_fields(sent: &Value, understood: &Value, path: &str, unknown: &mut Vec<FieldProblem>) {
    let join = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    match (sent, understood) {
        (Value::Object(sent), Value::Object(understood)) => {
            for (name, value) in sent {
                match understood.get(name) {
                    Some(inner) => unknown_fields(value, inner, &join(name), unknown),
                    None if is_absent(value) => {}
                    None => unknown.push(FieldProblem::new(join(name), "there is no such field", None)),
                }
            }
        }
        (Value::Array(sent), Value::Array(understood)) => {
            for (index, (value, inner)) in sent.iter().zip(understood).enumerate() {
                unknown_fields(value, inner, &format!("{path}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}

/// Values that are left out when they are written again.
fn is_absent(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        storage: Option<Inner>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        list: Vec<Inner>,
    }

    #[derive(Debug, Serialize, Deserialize)]
    struct Inner {
        #[serde(rename = "sizeGiB")]
        size: u32,
        #[serde(default)]
        kind: Kind,
    }

    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        #[default]
        Entity,
    }

    fn refused(body: Value) -> (String, Option<Value>) {
        let problem = Body::<Outer>::parse(body.to_string().as_bytes()).unwrap_err();
        let details: crate::problem::ProblemDetails = problem.describe();
        (details.errors[0].field.clone(), details.errors[0].value.clone())
    }

    #[test]
    fn a_misfit_names_its_path_and_value() {
        assert_eq!(refused(json!({"name": 7})), ("name".into(), Some(json!(7))));
        assert_eq!(
            refused(json!({"name": "x", "storage": {"sizeGiB": -1}})),
            ("storage.sizeGiB".into(), Some(json!(-1)))
        );
        assert_eq!(
            refused(json!({"name": "x", "storage": {"sizeGiB": "a: b"}})),
            ("storage.sizeGiB".into(), Some(json!("a: b")))
        );
        assert_eq!(
            refused(json!({"name": "x", "storage": {"sizeGiB": 1, "kind": "weird"}})),
            ("storage.kind".into(), Some(json!("weird")))
        );
        assert_eq!(
            refused(json!({"name": "x", "list": [{"sizeGiB": 1}, {"sizeGiB": []}]})).0,
            "list[1].sizeGiB"
        );
    }

    #[test]
    fn missing_and_unknown_fields_are_named() {
        assert_eq!(refused(json!({})), ("name".into(), None));
        assert_eq!(refused(json!({"name": "x", "storage": {}})).0, "storage.sizeGiB");
        assert_eq!(refused(json!({"name": "x", "nam": 1})), ("nam".into(), Some(json!(1))));
        assert_eq!(
            refused(json!({"name": "x", "storage": {"sizeGiB": 1, "sise": 2}})).0,
            "storage.sise"
        );
        assert_eq!(
            refused(json!({"name": "x", "list": [{"sizeGiB": 1, "sise": 2}]})).0,
            "list[0].sise"
        );
        assert!(Body::<Outer>::parse(br#"{"name": "x", "storage": null, "list": []}"#).is_ok());
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        for body in ["", "[]", "{", "7", "{\"name\": \"x\"} x"] {
            assert!(Body::<Outer>::parse(body.as_bytes()).is_err(), "{body}");
        }
    }
}
