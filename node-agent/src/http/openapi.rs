//! The OpenAPI 3.1 document of the agent, made from the types that answers are written from and from what handlers ask
//! of bodies.
//!
//! Every module of handlers has a function `operations` beside them; [`operations`] joins these, and a test compares them
//! with the router. `node-agent/openapi.json` is a committed copy; `make generate` writes it, and a test compares it, too.

mod operation;
mod parameter;

pub(super) use operation::{Operation, SchemaOf, Written, schema_of};
pub(super) use parameter::{Parameter, header, query};

use super::error::ApiError;
use axum::{body::Bytes, response::Response};
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};
use std::sync::OnceLock;

/// Every operation, in the order of the documentation.
fn operations() -> Vec<Operation> {
    [
        super::databases::operations(),
        super::query::operations(),
        super::schema::operations(),
        super::tables::operations(),
        super::sql::operations(),
        super::execute::operations(),
        super::upload::operations(),
        super::materialize::operations(),
        super::loads::operations(),
        super::rebuild::operations(),
        super::swap::operations(),
        super::memory::operations(),
        super::fork::operations(),
        super::vectors::operations(),
        super::vector_archives::operations(),
        super::semantic_memory::operations(),
        super::backup::operations(),
        super::download::operations(),
        super::restore::operations(),
        super::export::operations(),
        super::import::operations(),
        super::migration::operations(),
        super::embeddings::operations(),
        super::tasks::operations(),
        super::system::operations(),
        super::seeds::operations(),
        vec![
            Operation::new("get /openapi.json", "openapi", "This document")
                .open()
                .answers(200, "The document.", &[("application/json", Written::Any)]),
        ],
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The two sides of the contract: a field with a default may be left out of a request, and is always in an answer.
pub(super) struct Schemas {
    pub(super) requests: SchemaGenerator,
    pub(super) answers: SchemaGenerator,
}

impl Schemas {
    fn new() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
            })
        };
        Self {
            requests: settings().into_generator(),
            answers: settings().for_serialize().into_generator(),
        }
    }
}

/// The whole document.
pub fn document() -> Value {
    let mut schemas = Schemas::new();
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations() {
        let described = operation.describe(&mut schemas);
        paths.entry(operation.path).or_insert_with(|| json!({}))[operation.method] = described;
    }
    let failures = operation::failures(&schema_of::<ApiError>(&mut schemas.answers));
    let mut definitions = schemas.requests.take_definitions(true);
    definitions.extend(schemas.answers.take_definitions(true));
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Graphplane node agent",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Graph databases of one node, with their staging tables, backups and tasks.",
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "This node"}],
        "security": [{"key": []}, {"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "responses": failures,
            "headers": operation::headers(),
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-Graph-API-Key", "description": "A key of this node."},
                "bearer": {"type": "http", "scheme": "bearer", "description": "The same key."},
            },
        },
    });
    document.sort_all_objects();
    document
}

const DESCRIPTION: &str = "Errors are `{\"detail\": …}`: a text, an object with `error`, or for 422 the list of fields. \
Every answer has an `X-Request-Id`, and every 429 and 503 a `Retry-After`. The `operationId` is the `operation` of metrics \
and logs. Of a stream, `x-item-schema` describes one line, and `x-event-schemas` the data of each event.";

/// The document as the committed copy has it.
pub fn text() -> String {
    format!("{:#}\n", document())
}

/// `GET /openapi.json`.
pub(super) async fn get() -> Response {
    static TEXT: OnceLock<Bytes> = OnceLock::new();
    let text = TEXT.get_or_init(|| Bytes::from(document().to_string())).clone();
    super::body::json(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeSet;

    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn the_document_is_complete_in_itself() {
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 100);
        for reference in found {
            assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
        }
        assert_eq!(serde_json::from_str::<Value>(&text()).unwrap(), document);
    }

    #[test]
    fn every_failure_has_a_meaning() {
        for operation in operations() {
            for status in operation.failures {
                assert!(
                    operation::FAILURES.iter().any(|(known, ..)| *known == status),
                    "{status}"
                );
            }
        }
    }

    #[test]
    fn operations_have_ids_of_their_own_which_metrics_use_too() {
        let operations = operations();
        let ids: BTreeSet<_> = operations.iter().map(|operation| operation.id).collect();
        assert_eq!(ids.len(), operations.len());
        for operation in operations {
            let method = operation.method.to_uppercase().parse().unwrap();
            let path = operation.path.replace(['{', '}'], "");
            let name = crate::http::front::name_of(&method, &path);
            assert!(operation.id.starts_with(name), "{method} {path}: {name}");
        }
    }
}
