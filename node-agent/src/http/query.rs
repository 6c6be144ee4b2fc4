//! `POST /databases/{id}/query`: Cypher. This is the hot path, so a body is parsed once, rows pass through as the bytes
//! that the engine's thread wrote, and nothing is logged above debug level.

use super::{
    body::{self, Pieces},
    error::ApiError,
    front::Change,
    headers::Format,
    openapi::Operation,
    rows::{QUERY_EVENTS, QueryAnswer, QueryLine},
    stream::{self, Running, Shape},
    validation::{self, ANY, Fields, IDENTIFIER, Text},
};
use crate::{
    config::Settings,
    engines::{
        Access, Database, DatabaseId, EngineError, ErrorClass, ParameterTypes, Parameters, QueryRequest, RowStream,
        SyntaxStage,
    },
    metrics::EngineLabel,
    registration::lease::Refusal,
    state::{AppState, WritePermit},
};
use axum::{
    body::{Body, Bytes},
    extract::{Extension, Path, Request, State},
    http::StatusCode,
    response::Response,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// Most bytes of one JSON answer. A stream has no such limit.
const JSON_BYTES: u64 = 64 << 20;

/// The operations of this module.
pub(super) fn operations() -> Vec<Operation> {
    let operation = Operation::new("post /databases/{id}/query", "query", "Runs a Cypher statement")
        .notes(
            "The JSON answer has at most 10,000 rows and 64 MiB, and says when a limit cut it; streams have no limit of \
             rows. What is wrong with a statement is a status, or for NDJSON and events the stream's last part.",
        )
        .changes()
        .takes::<QueryBody>()
        .asks_engine()
        .gives::<QueryAnswer>("The rows.")
        .streams::<QueryLine>(QUERY_EVENTS);
    vec![operation]
}

/// A Cypher statement.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct QueryBody {
    cypher: String,
    /// The path decides which; this is only checked.
    #[serde(default)]
    #[schemars(regex(pattern = "^[a-zA-Z0-9_-]+$"), length(max = 64))]
    database: Option<String>,
    /// By name, without `$`.
    #[serde(default)]
    parameters: Option<Map<String, Value>>,
    /// Types of parameters that JSON has no form for.
    #[serde(default)]
    parameter_types: Option<ParameterTypes>,
    /// Seconds; can only shorten the tier's limit.
    #[serde(default)]
    timeout: Option<f64>,
}

/// Runs a query and answers with JSON or one of the streams.
pub(super) async fn query(
    State(state): State<AppState>,
    Path(id): Path<String>,
    Extension(change): Extension<Change>,
    request: Request,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let id = DatabaseId::parse(&id)?;
    let settings = state.settings();
    let bytes = body::read(body, settings.query_body_limit()).await?;
    let body = parse(&bytes, settings.engine.max_query_length)?;
    let format = Format::negotiate(&parts.headers, parts.uri.query());
    let json = format == Format::Json;

    // Whether it is a change is for the engine's guard to say. Without the right to change, it runs as a read, and what
    // turns out to be a change is refused for the reason that was found here.
    let mut permit = state.write_permit_now(&parts.headers);
    let query = QueryRequest {
        parameters: parameters(&body)?,
        access: if permit.is_ok() {
            Access::ReadWrite
        } else {
            Access::ReadOnly
        },
        timeout: timeout(&settings, body.timeout),
        max_rows: json.then_some(state.facts.row_limit as u64),
        max_bytes: json.then_some(JSON_BYTES),
        chunk_rows: settings.engine.chunk_rows.clamp(1, 100_000),
        encoding: format.encoding(),
        changes: Arc::clone(&change.happens),
        ..QueryRequest::new(body.cypher.clone())
    };

    let place = state.admission.enter(id.as_str()).await?;
    let database = state.engines.database(&id).await?;
    let again = permit.is_err().then(|| query.clone());
    let mut result = run(&database, query, &permit).await;
    if let (Err(stopped), Some(query)) = (&result, again)
        && stopped.class() == ErrorClass::ReadOnly
    {
        // It is a change after all, and has not run. It may only have come before the registration.
        permit = state.write_permit(&parts.headers).await;
        let query = QueryRequest {
            access: Access::ReadWrite,
            ..query
        };
        result = match permit {
            Ok(_) => run(&database, query, &permit).await,
            Err(refused) => return Err(refused),
        };
    }
    let shape = Shape::Cypher {
        database: id.to_string(),
    };
    let rows = match result {
        Ok(rows) => rows,
        Err(error) => {
            if let Stopped::Failed(EngineError::Syntax {
                stage: SyntaxStage::Parser,
                ..
            }) = &error
                && let Some(words) = administration(&body.cypher)
            {
                return Err(ApiError::new(StatusCode::FORBIDDEN, format!("{words} is not allowed")));
            }
            // A streaming client reads what went wrong with its statement from the stream; that the statement may not
            // run at all is a status in every format.
            return match error {
                Stopped::Refused(refused) => Err(refused),
                Stopped::Failed(error) if is_statements_fault(&error) => {
                    stream::failure(format, &error, shape, started).ok_or_else(|| explain(error))
                }
                Stopped::Failed(error) => Err(error.into()),
            };
        }
    };
    if json {
        let answer = collect(&state, &id, rows, state.facts.row_limit).await;
        drop(place);
        return answer;
    }
    let running = Running {
        rows,
        _place: place,
        started,
        shape,
        state,
    };
    Ok(stream::respond(format, running))
}

fn parameters(body: &QueryBody) -> Result<Parameters, EngineError> {
    match (&body.parameters, &body.parameter_types) {
        (None, None) => Ok(Parameters::default()),
        (Some(values), None) => Parameters::from_json(values),
        (values, Some(types)) => Parameters::with_types(values.as_ref().unwrap_or(&Map::new()), types),
    }
}

/// How a statement ended without rows.
enum Stopped {
    Failed(EngineError),
    Refused(ApiError),
}

impl Stopped {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Failed(error) => error.class(),
            Self::Refused(_) => ErrorClass::Cancelled,
        }
    }
}

/// Runs until the first rows, or until the lease ends under a change.
async fn run(
    database: &Database,
    query: QueryRequest,
    permit: &Result<WritePermit, ApiError>,
) -> Result<RowStream, Stopped> {
    let Ok(permit) = permit else {
        return database.query(query).await.map_err(Stopped::Failed);
    };
    let changes = Arc::clone(&query.changes);
    let mut running = std::pin::pin!(database.query(query));
    tokio::select! {
        biased;
        rows = &mut running => return rows.map_err(Stopped::Failed),
        () = permit.ends.cancelled() => {}
    }
    if !changes.load(Ordering::Acquire) {
        return running.await.map_err(Stopped::Failed);
    }
    // Dropping the future interrupts the statement.
    let mut refused = ApiError::from(Refusal::Fenced);
    refused.detail["error"] = Value::from(
        "The node lost its lease while this statement ran, and interrupted it; check whether the change was made",
    );
    Err(Stopped::Refused(refused))
}

async fn collect(state: &AppState, id: &DatabaseId, rows: RowStream, limit: usize) -> Result<Response, ApiError> {
    let (columns, data, summary) = rows.collect().await.map_err(explain)?;
    state.metrics.queue_wait.observe(summary.queued_ms / 1e3);
    state
        .metrics
        .rows_sent
        .get_or_create(&EngineLabel { engine: "ladybug" })
        .inc_by(summary.rows);
    let mut tail = Vec::with_capacity(160);
    tail.extend_from_slice(b"],\"columns\":");
    // Writing to a vector cannot fail.
    let _ = serde_json::to_writer(&mut tail, &columns[..]);
    let execution_ms = (summary.execution_ms * 1e3).round() / 1e3;
    let row_count = summary.rows;
    tail.extend_from_slice(
        format!(",\"execution_time_ms\":{execution_ms},\"row_count\":{row_count},\"database\":\"{id}\"").as_bytes(),
    );
    if summary.truncated {
        state.metrics.truncated.inc();
        tail.extend_from_slice(format!(",\"truncated\":true,\"row_limit\":{limit}").as_bytes());
    }
    tail.push(b'}');
    Ok(body::json(joined(b"{\"data\":[", data, tail)))
}

/// Small answers as one buffer, which is one write to the socket; large ones without copying their rows.
pub(super) fn joined(head: &'static [u8], rows: Bytes, tail: Vec<u8>) -> Body {
    if rows.len() <= 16 << 10 {
        let mut whole = Vec::with_capacity(head.len() + rows.len() + tail.len());
        whole.extend_from_slice(head);
        whole.extend_from_slice(&rows);
        whole.extend_from_slice(&tail);
        return Body::from(whole);
    }
    Body::new(Pieces::new(vec![Bytes::from_static(head), rows, Bytes::from(tail)]))
}

fn timeout(settings: &Settings, asked: Option<f64>) -> Duration {
    let limit = settings.query_timeout();
    match asked {
        Some(seconds) if seconds > 0.0 && seconds < limit.as_secs_f64() => Duration::from_secs_f64(seconds),
        _ => limit,
    }
}

fn parse(bytes: &[u8], max_length: usize) -> Result<QueryBody, ApiError> {
    let body: QueryBody = match serde_json::from_slice(bytes) {
        Ok(body) => body,
        Err(error) => return Err(explain_body(bytes, &error)),
    };
    // Characters are counted only where there are more bytes than that.
    if body.cypher.len() > max_length && body.cypher.chars().count() > max_length {
        return Err(validation::unprocessable(vec![validation::too_long(
            "cypher",
            max_length,
            &body.cypher,
        )]));
    }
    if let Some(database) = &body.database {
        // The path decides; the field is only checked, as the contract has it.
        DatabaseId::parse(database).map_err(|_| explain_body(bytes, &"database is not valid"))?;
    }
    if body.cypher.trim().is_empty() {
        return Err(ApiError::bad_request("Query cannot be empty"));
    }
    Ok(body)
}

/// Reads the body again, slowly, for the list of everything that is wrong with it.
fn explain_body(bytes: &[u8], error: &dyn std::fmt::Display) -> ApiError {
    let mut fields = match Fields::parse(bytes) {
        Ok(fields) => fields,
        Err(error) => return error,
    };
    fields.required_text("cypher", ANY);
    fields.text("database", Text { ..IDENTIFIER });
    fields.object("parameters");
    fields.object("parameter_types");
    if let Some(timeout) = fields.take("timeout")
        && !(timeout.is_number() || timeout.is_null())
    {
        fields.wrong("float_type", "timeout", "Input should be a valid number", &timeout);
    }
    match fields.finish() {
        Err(list) => list,
        Ok(()) => ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("The body is not valid: {error}"),
        ),
    }
}

/// Statements of other graph servers that administer what this one does not have, which the contract refuses with 403.
/// Asked only about what the engine could not parse, so data that contains these words is not concerned.
fn administration(text: &str) -> Option<&'static str> {
    const WORDS: [&str; 10] = [
        "CREATE DATABASE",
        "DROP DATABASE",
        "CREATE USER",
        "DROP USER",
        "ALTER USER",
        "SET PASSWORD",
        "GRANT",
        "REVOKE",
        "CALL DBMS",
        "LOAD CSV",
    ];
    let mut start = text.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    start.make_ascii_uppercase();
    WORDS.into_iter().find(|words| {
        start
            .strip_prefix(words)
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
    })
}

/// Errors that the statement itself causes, which the contract reports inside a stream.
pub(super) fn is_statements_fault(error: &EngineError) -> bool {
    matches!(
        error,
        EngineError::Syntax { .. }
            | EngineError::Constraint { .. }
            | EngineError::Runtime { .. }
            | EngineError::Timeout { .. }
            | EngineError::OutOfMemory { .. }
    )
}

/// The contract's words before the engine's text.
fn explain(error: EngineError) -> ApiError {
    let prefix = match &error {
        EngineError::Syntax {
            stage: SyntaxStage::Parser,
            ..
        } => "Query parsing error: ",
        EngineError::Syntax {
            stage: SyntaxStage::Binder,
            ..
        } => "Query binding error: ",
        EngineError::Syntax {
            stage: SyntaxStage::Catalog,
            ..
        } => "Query catalog error: ",
        EngineError::Constraint { .. } | EngineError::Runtime { .. } => "Query execution error: ",
        _ => return error.into(),
    };
    let mut answer = ApiError::from(error);
    if let Value::String(text) = &mut answer.detail {
        text.insert_str(0, prefix);
    }
    answer
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_body_is_checked_field_by_field() {
        assert_eq!(
            parse(br#"{"cypher":"RETURN 1","database":"kg1","timeout":null}"#, 100)
                .unwrap()
                .cypher,
            "RETURN 1"
        );
        for (body, kind) in [
            (r#"{"database":"kg1"}"#, "missing"),
            (r#"{"cypher":1}"#, "string_type"),
            (r#"{"cypher":"RETURN 1","surplus":1}"#, "extra_forbidden"),
            (r#"{"cypher":"RETURN 1","database":"a/b"}"#, "string_pattern_mismatch"),
            (r#"{"cypher":"RETURN 1","parameters":[1]}"#, "dict_type"),
            (r#"{"cypher":"RETURN 1","timeout":"soon"}"#, "float_type"),
            (r#"{"cypher":"RETURN 'ä ä ä ä ä ä'"}"#, "string_too_long"),
            ("{", "json_invalid"),
        ] {
            let error = parse(body.as_bytes(), 15).err().unwrap();
            assert_eq!(error.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
            assert_eq!(error.detail[0]["type"], kind, "{body}");
        }
        // Characters count, not bytes.
        assert!(parse("{\"cypher\":\"RETURN 'äöü'\"}".as_bytes(), 12).is_ok());
        assert_eq!(
            parse(br#"{"cypher":"  "}"#, 10).err().unwrap().status,
            StatusCode::BAD_REQUEST
        );
    }

    #[test]
    fn administration_is_recognised_by_its_first_words() {
        assert_eq!(administration("  create\n database x"), Some("CREATE DATABASE"));
        assert_eq!(administration("GRANT ROLE x"), Some("GRANT"));
        assert_eq!(administration("CALL dbms.procedures()"), Some("CALL DBMS"));
        for other in ["GRANTED x", "CREATE DATABASES", "MATCH (n) RETURN 'GRANT'", ""] {
            assert_eq!(administration(other), None, "{other}");
        }
    }

    #[test]
    fn a_caller_can_only_shorten_the_time_limit() {
        let settings = Settings::default();
        assert_eq!(timeout(&settings, None), Duration::from_secs(30));
        assert_eq!(timeout(&settings, Some(0.5)), Duration::from_millis(500));
        for odd in [31.0, 0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(timeout(&settings, Some(odd)), Duration::from_secs(30));
        }
    }
}
