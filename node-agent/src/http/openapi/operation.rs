//! One operation, as its module describes it: `Operation::new("post /databases", …).changes().takes(…).gives::<T>(…)`.

use super::{
    Schemas, header,
    parameter::{Parameter, of_path},
};
use crate::http::{headers::ARROW_STREAM, validation::Fields};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Gives the schema of a type, as a reference into the document's components.
pub(in crate::http) type SchemaOf = fn(&mut SchemaGenerator) -> Value;

pub(in crate::http) fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

/// The statuses of failures: name in the components, and meaning.
pub(super) const FAILURES: [(u16, &str, &str); 16] = [
    (400, "BadRequest", "The request is wrong; `detail` says what is."),
    (401, "Unauthorized", "No key, or a wrong one."),
    (
        403,
        "Forbidden",
        "Not allowed: the node or the caller only reads, the statement has what callers may not use, or a source is none that \
         this graph may be loaded from.",
    ),
    (404, "NotFound", "There is no such thing."),
    (
        408,
        "Timeout",
        "The body did not come in time, or the work took longer than its limit.",
    ),
    (
        409,
        "Conflict",
        "What is there is in the way, or the caller means another epoch of the volume.",
    ),
    (413, "TooLarge", "The body is, or files are, larger than the limit."),
    (415, "UnsupportedMediaType", "A body of another type is expected."),
    (
        422,
        "Unprocessable",
        "Fields of the body are wrong; `detail` lists them.",
    ),
    (429, "TooMany", "Too many requests, wrong keys, or loads of this day."),
    (
        499,
        "Cancelled",
        "Another caller cancelled the work that this one waited for.",
    ),
    (500, "Internal", "A fault of this node; its log has the reason."),
    (
        501,
        "NotImplemented",
        "This node has not what it takes: a model for texts.",
    ),
    (502, "BadGateway", "The object store failed."),
    (
        503,
        "Unavailable",
        "Not now: not registered, fenced, draining, or too busy.",
    ),
    (507, "NoRoom", "The node, its memory or its volume is full."),
];

/// How the body of an answer is written.
#[derive(Clone, Copy)]
pub(in crate::http) enum Written {
    /// JSON of a type.
    Json(SchemaOf),
    /// A line of JSON of a type for every part.
    Lines(SchemaOf),
    /// Server-sent events, with the types of their data.
    Events(&'static [(&'static str, SchemaOf)]),
    /// Text, or bytes of a format of their own.
    Bytes,
    /// JSON that is described elsewhere.
    Any,
}

struct Answer {
    description: &'static str,
    content: Vec<(&'static str, Written)>,
    headers: &'static [(&'static str, &'static str)],
}

enum Body {
    Json(SchemaOf),
    Read {
        schema: Value,
        media_types: &'static [&'static str],
        required: bool,
    },
    File {
        media_type: &'static str,
        /// JSON that may come instead, to say where the file is.
        or: Option<Value>,
    },
}

/// One method of one path.
pub(in crate::http) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    summary: &'static str,
    notes: &'static str,
    open: bool,
    parameters: Vec<Parameter>,
    body: Option<Body>,
    answers: BTreeMap<u16, Answer>,
    pub(super) failures: Vec<u16>,
}

impl Operation {
    /// `line` is the method and the path, `id` begins with the name that metrics and logs have for it.
    pub(in crate::http) fn new(line: &'static str, id: &'static str, summary: &'static str) -> Self {
        let (method, path) = line.split_once(' ').unwrap_or(("get", line));
        let mut failures = vec![401, 429, 500, 503];
        if path.contains('{') {
            failures.extend([400, 404]);
        }
        Self {
            method,
            path,
            id,
            summary,
            notes: "",
            open: false,
            parameters: Vec::new(),
            body: None,
            answers: BTreeMap::new(),
            failures,
        }
    }

    /// Needs no key.
    pub(in crate::http) fn open(mut self) -> Self {
        self.open = true;
        self.failures = vec![500];
        self
    }

    pub(in crate::http) fn notes(mut self, notes: &'static str) -> Self {
        self.notes = notes;
        self
    }

    /// Needs the right to change something.
    pub(in crate::http) fn changes(self) -> Self {
        let epoch = json!({"type": "integer", "minimum": 0});
        self.with([header(
            "X-Graphplane-Epoch",
            epoch,
            "The epoch of the volume that the caller means; another one is 409, and 0 is a caller who may only read.",
        )])
        .fails(&[403, 409])
    }

    pub(in crate::http) fn with<const N: usize>(mut self, parameters: [Parameter; N]) -> Self {
        self.parameters.extend(parameters);
        self
    }

    /// Statuses of failures beside those that follow from the rest.
    pub(in crate::http) fn fails(mut self, statuses: &[u16]) -> Self {
        self.failures.extend(statuses);
        self
    }

    /// A statement or a look into an engine, which may be busy, full, or too slow.
    pub(in crate::http) fn asks_engine(self) -> Self {
        self.fails(&[404, 408, 507])
    }

    /// A body whose type says what is in it.
    pub(in crate::http) fn takes<T: JsonSchema>(self) -> Self {
        self.body(Body::Json(schema_of::<T>))
    }

    /// A body of which `read` reads the fields.
    pub(in crate::http) fn reads<T>(self, read: impl FnOnce(&mut Fields) -> T) -> Self {
        self.reads_as(crate::http::validation::schema(read), &["application/json"], true)
    }

    /// The same, where every field has a default and the body can be left out.
    pub(in crate::http) fn may_read<T>(self, read: impl FnOnce(&mut Fields) -> T) -> Self {
        self.reads_as(crate::http::validation::schema(read), &["application/json"], false)
    }

    /// A body of this schema in one of several forms.
    pub(in crate::http) fn reads_as(self, schema: Value, media_types: &'static [&'static str], required: bool) -> Self {
        self.body(Body::Read {
            schema,
            media_types,
            required,
        })
    }

    /// A file as the body.
    pub(in crate::http) fn takes_file(self, media_type: &'static str) -> Self {
        self.body(Body::File { media_type, or: None })
    }

    /// A file as the body, or JSON of which `read` reads the fields.
    pub(in crate::http) fn takes_file_or<T>(
        self,
        media_type: &'static str,
        read: impl FnOnce(&mut Fields) -> T,
    ) -> Self {
        let or = Some(crate::http::validation::schema(read));
        self.body(Body::File { media_type, or })
    }

    fn body(mut self, body: Body) -> Self {
        let json = !matches!(body, Body::File { or: None, .. });
        self.body = Some(body);
        let own = self.fails(&[400, 408, 413]);
        if json { own.fails(&[422]) } else { own }
    }

    /// A success with JSON of a type.
    pub(in crate::http) fn gives<T: JsonSchema>(self, description: &'static str) -> Self {
        self.answers(200, description, &[("application/json", Written::Json(schema_of::<T>))])
    }

    /// 202 with a task instead of waiting for it, if the caller prefers that.
    pub(in crate::http) fn gives_task_if_preferred(self) -> Self {
        let schema = json!({"type": "string"});
        self.with([header(
            "Prefer",
            schema,
            "`respond-async`: answer at once with a task to follow.",
        )])
        .gives_task()
        .fails(&[499])
    }

    /// 202 with a task.
    pub(in crate::http) fn gives_task(self) -> Self {
        let task = Written::Json(schema_of::<crate::http::tasks::Started>);
        self.answers(202, "The task to follow.", &[("application/json", task)])
    }

    /// The rows of a statement as a stream, for those who ask for one by `Accept`.
    pub(in crate::http) fn streams<Line: JsonSchema>(mut self, events: &'static [(&'static str, SchemaOf)]) -> Self {
        if let Some(answer) = self.answers.get_mut(&200) {
            answer.content.extend([
                ("application/x-ndjson", Written::Lines(schema_of::<Line>)),
                ("text/event-stream", Written::Events(events)),
                (ARROW_STREAM, Written::Bytes),
            ]);
        }
        self.with([super::query(
            "streaming",
            json!({"type": "boolean", "default": false}),
            "A line of JSON per chunk; also by `Accept: application/x-ndjson`.",
        )])
    }

    /// An answer with this status.
    pub(in crate::http) fn answers(
        mut self,
        status: u16,
        description: &'static str,
        content: &[(&'static str, Written)],
    ) -> Self {
        let answer = Answer {
            description,
            content: content.to_vec(),
            headers: &[],
        };
        self.answers.insert(status, answer);
        self
    }

    /// Headers of the success, with their descriptions.
    pub(in crate::http) fn headers(mut self, headers: &'static [(&'static str, &'static str)]) -> Self {
        if let Some(answer) = self.answers.get_mut(&200) {
            answer.headers = headers;
        }
        self
    }

    pub(super) fn describe(&self, schemas: &mut Schemas) -> Value {
        let own = self.parameters.iter().map(Parameter::describe);
        let parameters: Vec<Value> = of_path(self.path).chain(own).collect();
        let mut responses: Map<String, Value> = self
            .failures
            .iter()
            .map(|status| {
                (
                    status.to_string(),
                    json!({"$ref": format!("#/components/responses/{}", name_of(*status))}),
                )
            })
            .collect();
        for (status, answer) in &self.answers {
            responses.insert(status.to_string(), answer.describe(*status, &mut schemas.answers));
        }
        let mut operation = json!({
            "operationId": self.id, "summary": self.summary, "parameters": parameters, "responses": responses,
        });
        if !self.notes.is_empty() {
            operation["description"] = json!(self.notes);
        }
        if self.open {
            operation["security"] = json!([]);
        }
        if let Some(body) = &self.body {
            operation["requestBody"] = body.describe(&mut schemas.requests);
        }
        operation
    }
}

impl Body {
    fn describe(&self, generator: &mut SchemaGenerator) -> Value {
        match self {
            Self::Json(schema) => {
                json!({"required": true, "content": {"application/json": {"schema": schema(generator)}}})
            }
            Self::Read {
                schema,
                media_types,
                required,
            } => {
                let content: Map<String, Value> = media_types
                    .iter()
                    .map(|media_type| ((*media_type).to_owned(), json!({"schema": schema})))
                    .collect();
                json!({"required": required, "content": content})
            }
            Self::File { media_type, or } => {
                let mut content = json!({*media_type: {"schema": {"type": "string", "format": "binary"}}});
                if let Some(schema) = or {
                    content["application/json"] = json!({"schema": schema});
                }
                json!({"required": true, "content": content})
            }
        }
    }
}

impl Answer {
    fn describe(&self, status: u16, generator: &mut SchemaGenerator) -> Value {
        let content: Map<String, Value> = self
            .content
            .iter()
            .map(|(media_type, written)| ((*media_type).to_owned(), written.describe(generator)))
            .collect();
        let mut headers = headers_of(status);
        for (name, description) in self.headers {
            headers[*name] = json!({"description": description, "schema": {"type": "string"}});
        }
        json!({"description": self.description, "headers": headers, "content": content})
    }
}

impl Written {
    fn describe(self, generator: &mut SchemaGenerator) -> Value {
        match self {
            Self::Json(schema) => json!({"schema": schema(generator)}),
            Self::Lines(schema) => json!({"schema": {"type": "string"}, "x-item-schema": schema(generator)}),
            Self::Events(events) => {
                let events: Map<String, Value> = events
                    .iter()
                    .map(|(name, schema)| ((*name).to_owned(), schema(generator)))
                    .collect();
                json!({"schema": {"type": "string"}, "x-event-schemas": events})
            }
            Self::Bytes => json!({"schema": {"type": "string"}}),
            Self::Any => json!({"schema": {"type": "object"}}),
        }
    }
}

fn name_of(status: u16) -> &'static str {
    let known = FAILURES.iter().find(|(known, ..)| *known == status);
    known.map_or("Internal", |(_, name, _)| name)
}

fn headers_of(status: u16) -> Value {
    let mut headers = json!({"X-Request-Id": {"$ref": "#/components/headers/RequestId"}});
    if matches!(status, 429 | 503) {
        headers["Retry-After"] = json!({"$ref": "#/components/headers/RetryAfter"});
    }
    headers
}

/// Headers that several answers have.
pub(super) fn headers() -> Value {
    json!({
        "RequestId": {
            "required": true, "schema": {"type": "string"},
            "description": "The id of the request: the caller's own, if it is plain and short.",
        },
        "RetryAfter": {
            "required": true, "schema": {"type": "integer", "minimum": 1},
            "description": "Seconds after which another try makes sense.",
        },
    })
}

/// The answers of failures.
pub(super) fn failures(schema: &Value) -> Map<String, Value> {
    FAILURES
        .iter()
        .map(|(status, name, meaning)| {
            let content = json!({"application/json": {"schema": schema}});
            let answer = json!({"description": meaning, "headers": headers_of(*status), "content": content});
            ((*name).to_owned(), answer)
        })
        .collect()
}
