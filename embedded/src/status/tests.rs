#![allow(clippy::unwrap_used)]

use http::{StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::*;

fn body(error: &ApiError) -> Value {
    error.to_json()
}

#[test]
fn messages_and_codes_are_those_of_kubernetes() {
    let group = "graphplane.dev";
    let cases: Vec<(ApiError, u16, &str, &str)> = vec![
        (
            ApiError::not_found(group, "graphs", "x"),
            404,
            "NotFound",
            "graphs.graphplane.dev \"x\" not found",
        ),
        (
            ApiError::not_found("", "secrets", "x"),
            404,
            "NotFound",
            "secrets \"x\" not found",
        ),
        (
            ApiError::unknown_path(),
            404,
            "NotFound",
            "the server could not find the requested resource",
        ),
        (
            ApiError::already_exists(group, "graphs", "x"),
            409,
            "AlreadyExists",
            "graphs.graphplane.dev \"x\" already exists",
        ),
        (
            ApiError::conflict(group, "graphs", "x", ApiError::MODIFIED),
            409,
            "Conflict",
            "Operation cannot be fulfilled on graphs.graphplane.dev \"x\": the object has been modified; please apply your \
             changes to the latest version and try again",
        ),
        (
            ApiError::expired("too old resource version: 3 (7)"),
            410,
            "Expired",
            "too old resource version: 3 (7)",
        ),
        (ApiError::bad_request("no body"), 400, "BadRequest", "no body"),
        (
            ApiError::strict_decoding(
                "Graph",
                "v1",
                &[ApiError::unknown_field("spec.a"), ApiError::unknown_field("b")],
            ),
            400,
            "BadRequest",
            "Graph in version \"v1\" cannot be handled as a Graph: strict decoding error: unknown field \"spec.a\", unknown \
             field \"b\"",
        ),
        (
            ApiError::method_not_allowed(group, "graphs", "patch"),
            405,
            "MethodNotAllowed",
            "patch is not supported on resources of kind \"graphs.graphplane.dev\"",
        ),
        (
            ApiError::unsupported_media_type(&["application/json"]),
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: application/json",
        ),
        (
            ApiError::not_acceptable(&["application/json", "application/yaml"]),
            406,
            "NotAcceptable",
            "only the following media types are accepted: application/json, application/yaml",
        ),
        (ApiError::unauthorized(), 401, "Unauthorized", "Unauthorized"),
        (
            ApiError::forbidden("", "namespaces", "default", "this namespace may not be deleted"),
            403,
            "Forbidden",
            "namespaces \"default\" is forbidden: this namespace may not be deleted",
        ),
        (ApiError::forbidden("", "", "", "no"), 403, "Forbidden", "forbidden: no"),
        (
            ApiError::internal("disk full"),
            500,
            "InternalError",
            "Internal error occurred: disk full",
        ),
        (
            ApiError::too_large(3),
            413,
            "RequestEntityTooLarge",
            "Request entity too large: limit is 3",
        ),
        (ApiError::timeout("slow", 2), 504, "Timeout", "Timeout: slow"),
        (ApiError::too_many_requests("busy", 1), 429, "TooManyRequests", "busy"),
        (ApiError::unavailable("stopping"), 503, "ServiceUnavailable", "stopping"),
    ];
    for (error, code, reason, message) in cases {
        assert_eq!(error.message, message);
        let body = body(&error);
        assert_eq!(body["code"], code, "{message}");
        assert_eq!(body["reason"], reason, "{message}");
        assert_eq!(body["message"], message);
        assert_eq!(
            (&body["kind"], &body["apiVersion"], &body["status"], &body["metadata"]),
            (&json!("Status"), &json!("v1"), &json!("Failure"), &json!({})),
        );
    }
}

#[test]
fn details_name_the_object_and_the_causes() {
    let error = ApiError::invalid(
        "graphplane.dev",
        "Graph",
        "x",
        vec![
            Cause::required("spec.tier", ""),
            Cause::not_supported("spec.mode", &json!("c"), &["a", "b"]),
            Cause::required("spec.tier", ""),
        ],
    );
    assert_eq!(
        error.message,
        "Graph.graphplane.dev \"x\" is invalid: [spec.tier: Required value, spec.mode: Unsupported value: \"c\": supported \
         values: \"a\", \"b\"]"
    );
    assert_eq!(
        body(&error)["details"],
        json!({
            "name": "x", "group": "graphplane.dev", "kind": "Graph",
            "causes": [
                {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.tier"},
                {"reason": "FieldValueNotSupported", "message": "Unsupported value: \"c\": supported values: \"a\", \"b\"", "field": "spec.mode"},
                {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.tier"},
            ],
        })
    );
    let one = ApiError::invalid("", "Secret", "s", vec![Cause::too_long("metadata.name", 253)]);
    assert_eq!(
        one.message,
        "Secret \"s\" is invalid: metadata.name: Too long: may not be more than 253 bytes"
    );
    let uid = ApiError::not_found("g", "r", "n").with_uid("u-1");
    assert_eq!(body(&uid)["details"]["uid"], "u-1");
}

#[test]
fn causes_are_worded_like_those_of_kubernetes() {
    let cases = [
        (Cause::required("a", ""), "a: Required value"),
        (Cause::required("a", "because"), "a: Required value: because"),
        (
            Cause::invalid("a", &json!("x\"y"), "bad"),
            "a: Invalid value: \"x\\\"y\": bad",
        ),
        (
            Cause::invalid("a", &json!({"b": 1}), "bad"),
            "a: Invalid value: {\"b\":1}: bad",
        ),
        (
            Cause::invalid("a", &json!(1_000_000.5), "bad"),
            "a: Invalid value: 1.0000005e+06: bad",
        ),
        (Cause::invalid("a", &json!(12), ""), "a: Invalid value: 12"),
        (
            Cause::invalid("", &Value::Null, "bad"),
            "<nil>: Invalid value: null: bad",
        ),
        (Cause::duplicate("a[1]", &json!("x")), "a[1]: Duplicate value: \"x\""),
        (Cause::too_long("a", 1), "a: Too long: may not be more than 1 byte"),
        (Cause::too_many("a", 3, 2), "a: Too many: 3: must have at most 2 items"),
        (Cause::too_many("a", 3, 1), "a: Too many: 3: must have at most 1 item"),
        (Cause::forbidden("a", "no"), "a: Forbidden: no"),
        (
            Cause::not_supported("a", &json!("x"), &[] as &[&str]),
            "a: Unsupported value: \"x\"",
        ),
        (Cause::plain("text"), "text"),
    ];
    for (cause, text) in cases {
        assert_eq!(cause.to_string(), text);
    }
}

#[test]
fn quoting_follows_go() {
    let cases = [
        ("plain", "\"plain\""),
        ("a\"b\\c", "\"a\\\"b\\\\c\""),
        ("a\nb\tc\u{0}", "\"a\\nb\\tc\\x00\""),
        ("é\u{85}", "\"é\\u0085\""),
        ("it's", "\"it's\""),
    ];
    for (text, expected) in cases {
        assert_eq!(quote(text), expected);
    }
}

#[tokio::test]
async fn responses_carry_the_status_object_and_retry_after() {
    let response = ApiError::too_many_requests("busy", 7).into_response();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()[header::RETRY_AFTER], "7");
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let status: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(status["details"], json!({"retryAfterSeconds": 7}));
}

#[test]
fn success_names_what_was_deleted() {
    assert_eq!(
        success("g", "things", "x", "u"),
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {"name": "x", "group": "g", "kind": "things", "uid": "u"},
        })
    );
}
