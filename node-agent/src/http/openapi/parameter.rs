//! Parameters of operations.

use serde_json::{Value, json};

/// A parameter of the query string or of the header; all of them can be left out unless said otherwise.
#[derive(Clone)]
pub(in crate::http) struct Parameter {
    name: &'static str,
    place: &'static str,
    schema: Value,
    description: &'static str,
    required: bool,
}

/// A parameter of the query string.
pub(in crate::http) fn query(name: &'static str, schema: Value, description: &'static str) -> Parameter {
    Parameter {
        name,
        place: "query",
        schema,
        description,
        required: false,
    }
}

/// A header.
pub(in crate::http) fn header(name: &'static str, schema: Value, description: &'static str) -> Parameter {
    Parameter {
        place: "header",
        ..query(name, schema, description)
    }
}

impl Parameter {
    /// Without it the answer is 400.
    pub(in crate::http) fn required(mut self) -> Self {
        self.required = true;
        self
    }

    pub(super) fn describe(&self) -> Value {
        json!({
            "name": self.name, "in": self.place, "required": self.required, "schema": self.schema,
            "description": self.description,
        })
    }
}

/// The parameters that a path has between braces.
pub(super) fn of_path(path: &str) -> impl Iterator<Item = Value> {
    let names = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names.map(move |name| {
        let (schema, description) = match name {
            "id" if path.starts_with("/tasks/") => (
                json!({"type": "string", "minLength": 1}),
                "Id of a task, as the answer that started it gives it.",
            ),
            "id" => (identifier(64), "Id of a database."),
            "parent" => (identifier(64), "Id of the parent's database."),
            "table" => (identifier(128), "Name of a table."),
            "file_id" => (
                json!({"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[^\\x00-\\x1f\\x7f-\\x9f]+$"}),
                "Id of a file, chosen by the caller; the same id replaces its rows.",
            ),
            "memory" => (
                json!({"type": "string", "pattern": "^mem_[0-9a-f]{32}$"}),
                "Id of a memory.",
            ),
            _ => (json!({"type": "string", "minLength": 1}), "Name."),
        };
        json!({"name": name, "in": "path", "required": true, "schema": schema, "description": description})
    })
}

fn identifier(max: u32) -> Value {
    json!({"type": "string", "pattern": "^[A-Za-z0-9_-]+$", "maxLength": max})
}
