//! The OpenAPI 3.1 document of the API, made from the same types that requests are read with.
//!
//! `api/openapi.json` is a committed copy; a test compares it. `cargo run -p graphplane-api --example openapi` prints it.

mod paths;
pub(crate) mod ui;

use crate::auth::Role;
use crate::problem::{ProblemDetails, kind};
use paths::{Access, Body, Parameter, Path, paths};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

/// Gives the schema of a type, as a reference into the document's components.
type SchemaOf = fn(&mut SchemaGenerator) -> Value;

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

/// The whole document.
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut items: Map<String, Value> = Map::new();
    for path in paths() {
        let operation = operation(&path, &mut generator);
        let item = items.entry(path.path).or_insert_with(|| json!({}));
        if let Some(item) = item.as_object_mut() {
            item.insert(path.method.to_owned(), operation);
        }
    }
    let problem = schema_of::<ProblemDetails>(&mut generator);
    let schemas: Map<String, Value> = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Graphplane",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Graph databases as resources, and the way to their data.",
            "description": description(),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "This server"}],
        "security": [{"bearer": []}, {"apiKey": []}],
        "tags": tags(),
        "paths": items,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
                "node": {"type": "http", "scheme": "bearer", "description": "Bootstrap token or credential of a node agent."},
            },
            "responses": {
                "Problem": {
                    "description": "What went wrong, as RFC 9457 says it.",
                    "content": {crate::problem::CONTENT_TYPE: {"schema": problem}},
                },
            },
        },
    })
}

/// The document as the committed copy has it.
pub fn text() -> String {
    // Written with sorted members, whatever the features of serde_json are, so that the copy is the same everywhere.
    let mut text = String::new();
    write_sorted(&document(), 0, &mut text);
    text.push('\n');
    text
}

fn write_sorted(value: &Value, depth: usize, out: &mut String) {
    let indent = |depth: usize| "  ".repeat(depth);
    match value {
        Value::Object(map) if !map.is_empty() => {
            let mut names: Vec<&String> = map.keys().collect();
            names.sort();
            out.push_str("{\n");
            for (at, name) in names.iter().enumerate() {
                out.push_str(&format!("{}{}: ", indent(depth + 1), Value::from(name.as_str())));
                write_sorted(&map[name.as_str()], depth + 1, out);
                out.push_str(if at + 1 < names.len() { ",\n" } else { "\n" });
            }
            out.push_str(&format!("{}}}", indent(depth)));
        }
        Value::Array(items) if !items.is_empty() => {
            out.push_str("[\n");
            for (at, item) in items.iter().enumerate() {
                out.push_str(&indent(depth + 1));
                write_sorted(item, depth + 1, out);
                out.push_str(if at + 1 < items.len() { ",\n" } else { "\n" });
            }
            out.push_str(&format!("{}]", indent(depth)));
        }
        other => out.push_str(&other.to_string()),
    }
}

fn description() -> String {
    let kinds: Vec<String> = kind::ALL
        .iter()
        .map(|kind| format!("| `{}` | {} | {} |", kind.slug, kind.status.as_u16(), kind.title))
        .collect();
    format!(
        "Every change is written as a Kubernetes resource and answered with an operation to follow; nothing is stored \
         here. A key belongs to one namespace, its tenant, and has a role: `viewer` reads, `editor` writes, `admin` reaches \
         every tenant and the machines.\n\nErrors are problem documents (RFC 9457). Their `type` is \
         `https://graphplane.dev/problems/` and one of:\n\n| type | status | meaning |\n|---|---|---|\n{}\n",
        kinds.join("\n")
    )
}

fn tags() -> Value {
    json!([
        {"name": "graphs", "description": "Graph databases."},
        {"name": "subgraphs", "description": "Workspaces beside a graph."},
        {"name": "backups", "description": "Backups of graphs."},
        {"name": "operations", "description": "How far a change is."},
        {"name": "data", "description": "Queries and loads, passed on to the graph's node."},
        {"name": "tiers", "description": "Classes of machines."},
        {"name": "machines", "description": "Nodes and volumes, for admins."},
        {"name": "keys", "description": "API keys, for admins."},
        {"name": "agents", "description": "What node agents call."},
        {"name": "server", "description": "This server."},
    ])
}

fn operation(path: &Path, generator: &mut SchemaGenerator) -> Value {
    let mut operation = json!({
        "operationId": path.id,
        "tags": [path.tag],
        "summary": path.summary,
        "parameters": parameters(path),
        "responses": responses(path, generator),
    });
    let description = match path.access {
        Access::Role(Role::Viewer) => String::new(),
        Access::Role(role) => format!("Needs role `{}`.", role.as_str()),
        Access::Statement => "Role `viewer` may send statements that only read.".to_owned(),
        Access::Node => "For node agents.".to_owned(),
        Access::Open => "Needs no key.".to_owned(),
    };
    let description = [path.notes, description.as_str()]
        .iter()
        .filter(|text| !text.is_empty())
        .copied()
        .collect::<Vec<_>>()
        .join(" ");
    if !description.is_empty() {
        operation["description"] = json!(description);
    }
    match path.access {
        Access::Open => operation["security"] = json!([]),
        Access::Node => operation["security"] = json!([{"node": []}]),
        Access::Role(_) | Access::Statement => {}
    }
    if let Some(body) = &path.request {
        let content = match body {
            Body::Json(schema) => json!({"application/json": {"schema": schema(generator)}}),
            Body::Agent(schema) => json!({"application/json": {"schema": schema()}}),
            Body::Parquet => {
                json!({"application/vnd.apache.parquet": {"schema": {"type": "string", "format": "binary"}}})
            }
        };
        operation["requestBody"] = json!({"required": true, "content": content});
    }
    operation
}

fn parameters(path: &Path) -> Value {
    let in_path = path
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = in_path.map(|name| json!({
        "name": name, "in": "path", "required": true, "schema": {"type": "string"}, "description": path_parameter(name, path.tag),
    })).collect();
    parameters.extend(path.parameters.iter().map(|parameter| parameter.describe()));
    if matches!(path.access, Access::Role(_) | Access::Statement) {
        parameters.push(Parameter::Namespace.describe());
    }
    Value::Array(parameters)
}

fn path_parameter(name: &str, tag: &str) -> &'static str {
    match (name, tag) {
        ("graph", "data") => "Name or id of a graph, or `<graph>_<subgraph>`.",
        ("graph", _) => "Name or id of a graph.",
        ("table", _) => "Name of a table.",
        ("file", _) => "Id of a file, chosen by the client; the same id replaces its rows.",
        ("row", _) => "Id of a row.",
        ("task", _) => "Id of a task, as the answer that started it gives it.",
        ("id", "operations") => "Id of an operation, as the answer to the change gives it.",
        ("id", _) => "Id of a key.",
        _ => "Name.",
    }
}

fn responses(path: &Path, generator: &mut SchemaGenerator) -> Value {
    let mut responses = Map::new();
    for answer in &path.responses {
        let mut response = json!({"description": answer.description});
        if let Some((media_type, schema)) = &answer.content {
            let schema = schema.map_or_else(|| json!({}), |schema| schema(generator));
            response["content"] = json!({*media_type: {"schema": schema}});
        }
        if answer.status == 202 {
            response["headers"] = json!({
                "Location": {"description": "The operation.", "schema": {"type": "string"}},
            });
        }
        responses.insert(answer.status.to_string(), response);
    }
    responses.insert("default".to_owned(), json!({"$ref": "#/components/responses/Problem"}));
    Value::Object(responses)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeSet;

    /// Every reference leads somewhere.
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
        assert!(found.len() > 50);
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        let names = document["components"]["schemas"].as_object().unwrap().keys();
        for name in names {
            assert!(
                name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)),
                "{name}"
            );
        }
    }

    #[test]
    fn operations_have_ids_of_their_own() {
        let ids: Vec<_> = paths().iter().map(|path| path.id).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
    }

    #[test]
    fn the_text_is_the_document() {
        let read: Value = serde_json::from_str(&text()).unwrap();
        assert_eq!(read, document());
    }
}
