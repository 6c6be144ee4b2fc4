//! Problems from errors of the Kubernetes API: its causes become fields of the request.

use super::{FieldProblem, Problem, clip, kind};
use kube::core::Status;
use kube::core::response::StatusCause;
use serde_json::Value;

impl From<kube::Error> for Problem {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => of_status(&status),
            kube::Error::SerdeError(cause) => Problem::internal(format!(
                "the Kubernetes API gave an object that cannot be read: {cause}"
            )),
            other => {
                tracing::warn!(error = %other, "the Kubernetes API cannot be reached");
                Problem::new(&kind::UNAVAILABLE, "the Kubernetes API cannot be reached; try again").retry_after(1)
            }
        }
    }
}

fn of_status(status: &Status) -> Problem {
    let errors = fields(status);
    let detail = if errors.is_empty() {
        status.message.clone()
    } else {
        super::summary(&errors)
    };
    let kind = match status.code {
        400 => &kind::MALFORMED,
        404 => &kind::NOT_FOUND,
        409 if status.is_already_exists() => &kind::ALREADY_EXISTS,
        409 => &kind::CONFLICT,
        410 => &kind::EXPIRED,
        413 => &kind::TOO_LARGE,
        422 => &kind::INVALID,
        429 => &kind::RATE_LIMITED,
        // The credentials are this server's own, so that the client can do nothing about a refusal. A webhook or a quota
        // refuses the object itself, and says so.
        403 if !status.message.contains("cannot ") => &kind::FORBIDDEN,
        401 | 403 => return Problem::internal(format!("the Kubernetes API refused this server: {}", status.message)),
        503 | 504 => {
            let wait = status
                .details
                .as_ref()
                .map_or(1, |details| details.retry_after_seconds.max(1));
            return Problem::new(&kind::UNAVAILABLE, "the Kubernetes API is busy; try again").retry_after(wait);
        }
        code => return Problem::internal(format!("the Kubernetes API answered {code}: {}", status.message)),
    };
    let problem = Problem::new(kind, detail).errors(errors);
    match status.details.as_ref().map_or(0, |details| details.retry_after_seconds) {
        0 => problem,
        seconds => problem.retry_after(seconds),
    }
}

fn fields(status: &Status) -> Vec<FieldProblem> {
    let causes = status
        .details
        .as_ref()
        .map(|details| details.causes.as_slice())
        .unwrap_or_default();
    causes
        .iter()
        .filter(|cause| !cause.message.is_empty())
        .map(field)
        .collect()
}

fn field(cause: &StatusCause) -> FieldProblem {
    let name = request_field(&cause.field);
    let (value, detail) = split_message(&cause.message);
    // `spec.tier in body should match …`: the field is named already.
    let detail = detail
        .strip_prefix(&cause.field)
        .and_then(|rest| rest.strip_prefix(" in body "))
        .unwrap_or(detail);
    FieldProblem {
        field: name,
        detail: detail.to_owned(),
        value,
    }
}

/// The path of a field in the body of our request, from its path in the object.
fn request_field(path: &str) -> String {
    let path = path.trim_start_matches('.');
    match path {
        "" | "spec" | "<nil>" => "$".to_owned(),
        "metadata.name" | "metadata.generateName" => "name".to_owned(),
        _ => path
            .strip_prefix("spec.")
            .or_else(|| path.strip_prefix("metadata."))
            .unwrap_or(path)
            .to_owned(),
    }
}

/// `Invalid value: "x": should be y` as value and detail.
fn split_message(message: &str) -> (Option<Value>, &str) {
    for prefix in [
        "Invalid value: ",
        "Unsupported value: ",
        "Duplicate value: ",
        "Too long: ",
        "Not found: ",
    ] {
        let Some(rest) = message.strip_prefix(prefix) else {
            continue;
        };
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        if let Some(Ok(value)) = values.next()
            && let Some(detail) = rest[values.byte_offset()..].strip_prefix(": ")
        {
            return (Some(value), detail);
        }
    }
    (None, message)
}

impl Problem {
    /// With the values that the request's body has at the named fields: the API server often names only their type.
    #[must_use]
    pub(crate) fn with_values_of(mut self, body: &Value) -> Self {
        for error in &mut self.errors {
            if let Some(value) = lookup(body, &error.field) {
                error.value = Some(match value {
                    Value::String(text) => Value::from(clip(text)),
                    // A whole tree says less than the field's name.
                    Value::Object(_) | Value::Array(_) => continue,
                    other => other.clone(),
                });
            }
        }
        self
    }
}

/// The value at a dotted path with `[0]` for items.
pub(crate) fn lookup<'a>(body: &'a Value, path: &str) -> Option<&'a Value> {
    if path == "$" {
        return None;
    }
    path.split(['.', '['])
        .filter(|part| !part.is_empty())
        .try_fold(body, |value, part| match value {
            Value::Object(map) => map.get(part),
            Value::Array(items) => items.get(part.trim_end_matches(']').parse::<usize>().ok()?),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn status(code: u16, reason: &str, causes: Value) -> Status {
        serde_json::from_value(json!({
            "status": "Failure", "code": code, "reason": reason, "message": "Graph.graphplane.dev \"x\" is invalid: …",
            "details": {"name": "x", "kind": "Graph", "causes": causes},
        }))
        .unwrap()
    }

    #[test]
    fn causes_become_fields_of_the_request_with_their_values() {
        let status = status(
            422,
            "Invalid",
            json!([
                {"reason": "FieldValueInvalid", "field": "spec.tier",
                 "message": "Invalid value: \"a b\": spec.tier in body should match '^[a-z]$'"},
                {"reason": "FieldValueNotSupported", "field": "spec.schema.type",
                 "message": "Unsupported value: \"weird\": supported values: \"entity\", \"shared\", \"custom\""},
                {"reason": "FieldValueTypeInvalid", "field": "spec.storage.sizeGiB",
                 "message": "Invalid value: \"string\": spec.storage.sizeGiB in body must be of type integer: \"string\""},
                {"reason": "FieldValueRequired", "field": "metadata.name", "message": "Required value: name is required"},
                {"reason": "FieldValueInvalid", "field": "spec", "message": "Invalid value: ddl may only grow"},
            ]),
        );
        let body = json!({"tier": "a b", "storage": {"sizeGiB": "ten"}});
        let problem = of_status(&status).with_values_of(&body);
        let expected = [
            ("tier", "should match '^[a-z]$'", Some(json!("a b"))),
            (
                "schema.type",
                "supported values: \"entity\", \"shared\", \"custom\"",
                Some(json!("weird")),
            ),
            (
                "storage.sizeGiB",
                "must be of type integer: \"string\"",
                Some(json!("ten")),
            ),
            ("name", "Required value: name is required", None),
            ("$", "Invalid value: ddl may only grow", None),
        ];
        for (error, (field, detail, value)) in problem.errors.iter().zip(expected) {
            assert_eq!(
                (error.field.as_str(), error.detail.as_str(), &error.value),
                (field, detail, &value)
            );
        }
        assert_eq!((problem.errors.len(), problem.kind().slug), (5, "invalid"));
    }

    #[test]
    fn codes_become_kinds() {
        for (code, reason, slug) in [
            (404, "NotFound", "not-found"),
            (409, "AlreadyExists", "already-exists"),
            (409, "Conflict", "conflict"),
            (410, "Expired", "expired"),
            (500, "InternalError", "internal"),
            (503, "ServiceUnavailable", "unavailable"),
        ] {
            assert_eq!(
                of_status(&status(code, reason, json!([]))).kind().slug,
                slug,
                "{code} {reason}"
            );
        }
        let mut refused = status(403, "Forbidden", json!([]));
        refused.message = "graphs is forbidden: User \"x\" cannot create resource".into();
        assert_eq!(of_status(&refused).kind().slug, "internal");
        refused.message = "exceeded quota: graphs, requested: 1".into();
        assert_eq!(of_status(&refused).kind().slug, "forbidden");
    }

    #[test]
    fn paths_reach_into_lists() {
        let body = json!({"a": [{"b": 1}, {"b": 2}]});
        assert_eq!(lookup(&body, "a[1].b"), Some(&json!(2)));
        assert_eq!(lookup(&body, "a[7].b"), None);
        assert_eq!(lookup(&body, "$"), None);
    }
}
