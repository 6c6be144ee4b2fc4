//! Holds every answer that a test gets to the OpenAPI document: its status, its headers, its body, and each part of a
//! stream. A field that the document does not have is a mistake, too. So is a request that succeeds and that the document
//! does not permit.

use crate::fixture::Answer;
use reqwest::Method;
use serde_json::Value;
use std::sync::LazyLock;

pub(crate) static DOCUMENT: LazyLock<Value> = LazyLock::new(graphplane_node_agent::http::openapi::document);

/// Panics if the document does not have this answer.
#[track_caller]
pub(crate) fn check(method: &Method, path: &str, answer: &Answer) {
    let status = answer.status.as_u16();
    let Some((template, operation)) = operation(method, path) else {
        assert!(
            matches!(status, 401 | 404 | 405 | 429),
            "{method} {path} is not documented, and answers {status}"
        );
        return;
    };
    let at = format!("{method} {template} {status}");
    let response = resolve(&operation["responses"][status.to_string()]);
    assert!(response.is_object(), "undocumented: {at}: {}", answer.text);
    for (name, header) in response["headers"].as_object().into_iter().flatten() {
        if resolve(header)["required"] == true {
            assert!(answer.header(name).is_some(), "{at}: no header {name}");
        }
    }
    let media_type = answer.header("content-type").unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default();
    let content = &response["content"][media_type];
    assert!(
        content.is_object(),
        "undocumented: {at} {media_type:?}: {}",
        answer.text
    );
    if media_type == "application/json" {
        valid(&at, &content["schema"], &answer.json());
    }
    if let Some(line) = content.get("x-item-schema") {
        for text in answer.lines() {
            valid(&format!("{at}, a line"), line, &text);
        }
    }
    if let Some(events) = content.get("x-event-schemas") {
        for (name, data) in events_of(&answer.text) {
            assert!(events[&name].is_object(), "{at}: undocumented event {name:?}");
            valid(&format!("{at}, event {name}"), &events[&name], &data);
        }
    }
}

/// Panics if the document does not permit this body of a request, which was a success.
#[track_caller]
pub(crate) fn check_request(method: &Method, path: &str, body: &[u8]) {
    let Some((template, operation)) = operation(method, path) else {
        return;
    };
    let schema = &resolve(&operation["requestBody"])["content"]["application/json"]["schema"];
    if let (false, Ok(body)) = (schema.is_null(), serde_json::from_slice(body)) {
        valid(&format!("{method} {template}, the request"), schema, &body);
    }
}

/// Names and data of server-sent events; comments are none.
fn events_of(text: &str) -> Vec<(String, Value)> {
    let field = |event: &str, name: &str| {
        let lines = event.lines().filter_map(|line| line.strip_prefix(name));
        lines.map(|text| text.trim_start().to_owned()).collect::<String>()
    };
    text.split("\n\n")
        .filter(|event| event.lines().any(|line| line.starts_with("event:")))
        .map(|event| {
            (
                field(event, "event:"),
                serde_json::from_str(&field(event, "data:")).unwrap(),
            )
        })
        .collect()
}

fn resolve(value: &Value) -> &Value {
    match value.get("$ref").and_then(Value::as_str) {
        Some(reference) => DOCUMENT.pointer(&reference[1..]).unwrap(),
        None => value,
    }
}

/// The operation of a request; a path that is written out goes before one with parameters.
fn operation(method: &Method, path: &str) -> Option<(&'static str, &'static Value)> {
    let parts: Vec<&str> = path.split('/').collect();
    let leads_here = |template: &str| {
        let wanted: Vec<&str> = template.split('/').collect();
        let same = |(wanted, part): (&&str, &&str)| wanted == part || (wanted.starts_with('{') && !part.is_empty());
        wanted.len() == parts.len() && wanted.iter().zip(&parts).all(same)
    };
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let (template, item) = paths
        .iter()
        .filter(|(template, _)| leads_here(template))
        .min_by_key(|(template, _)| template.matches('{').count())?;
    let operation = item.get(method.as_str().to_lowercase())?;
    Some((template, operation))
}

#[track_caller]
fn valid(at: &str, schema: &Value, value: &Value) {
    if let Err(mistake) = fits(schema, value, "") {
        panic!("{at} is not what the document says: {mistake} in {value}");
    }
}

/// Whether a value fits a schema, as far as this document uses the language; what is wrong, with its path, if not. An
/// object with described fields has no others. schemathesis checks the same answers with a whole implementation.
fn fits(schema: &Value, value: &Value, path: &str) -> Result<(), String> {
    let wrong = |what: String| Err(format!("{path}: {what}"));
    let schema = match schema {
        Value::Bool(true) => return Ok(()),
        Value::Object(_) => resolve(schema),
        other => return wrong(format!("schema {other}")),
    };
    let described = &schema["properties"];
    let closed = described.is_object() && schema["additionalProperties"].is_null();
    for (keyword, rule) in schema.as_object().unwrap() {
        match (keyword.as_str(), rule) {
            ("description" | "title" | "format" | "default", _) => {}
            ("type", Value::String(kind)) if is_a(kind, value) => {}
            ("type", Value::Array(kinds)) if kinds.iter().any(|kind| is_a(kind.as_str().unwrap(), value)) => {}
            ("enum", Value::Array(values)) if values.contains(value) => {}
            ("const", only) if only == value => {}
            ("minimum", least) if value.as_f64().is_none_or(|number| number >= least.as_f64().unwrap()) => {}
            ("maximum", most) if value.as_f64().is_none_or(|number| number <= most.as_f64().unwrap()) => {}
            ("minItems" | "maxItems" | "maxLength" | "pattern", _) => {}
            ("required", Value::Array(names)) => {
                let missing = |name: &&Value| value.is_object() && value.get(name.as_str().unwrap()).is_none();
                if let Some(name) = names.iter().find(missing) {
                    return wrong(format!("{name} is missing"));
                }
            }
            ("properties", Value::Object(properties)) => {
                for (name, field) in value.as_object().into_iter().flatten() {
                    match properties.get(name) {
                        Some(schema) => fits(schema, field, &format!("{path}/{name}"))?,
                        None if closed => return wrong(format!("{name} is not described")),
                        None => {}
                    }
                }
            }
            ("additionalProperties", schema) => {
                for (name, field) in value.as_object().into_iter().flatten() {
                    if described.get(name).is_none() {
                        fits(schema, field, &format!("{path}/{name}"))?;
                    }
                }
            }
            ("items", schema) => {
                for (at, item) in value.as_array().into_iter().flatten().enumerate() {
                    fits(schema, item, &format!("{path}/{at}"))?;
                }
            }
            ("anyOf" | "oneOf", Value::Array(choices)) => {
                let mistakes: Vec<_> = choices.iter().map(|schema| fits(schema, value, path)).collect();
                if mistakes.iter().all(Result::is_err) {
                    return wrong(format!("fits none of {mistakes:?}"));
                }
            }
            _ => return wrong(format!("{value} against {keyword} {rule}")),
        }
    }
    Ok(())
}

fn is_a(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is no type of JSON"),
    }
}
