//! Bodies on their way to an agent: passed on as they come, or read first where something must be looked at.

use super::access::{Language, only_reads};
use super::routes::{Need, Op};
use super::target::Target;
use crate::auth::{Caller, Role};
use crate::problem::{Problem, clip, kind};
use axum::body::{Body, to_bytes};
use bytes::Bytes;
use graphplane_crds::ids::DatabaseId;
use http::{HeaderMap, Method, header};
use serde_json::Value;

/// Statements up to this size are read before they are sent, so that reading ones can be repeated; bytes.
const SMALL: u64 = 256 << 10;

/// A body to send.
#[derive(Debug)]
pub(super) enum Payload {
    /// None.
    Empty,
    /// Known as a whole; it can be sent again.
    Whole(Bytes),
    /// As it comes from the client.
    Stream(Body),
}

impl Payload {
    /// The same once more; `None` of one that only its sender has.
    pub(super) fn again(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Whole(bytes) => Some(Self::Whole(bytes.clone())),
            Self::Stream(_) => None,
        }
    }
}

/// A call's body, and whether the call may be repeated.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) payload: Payload,
    pub(super) repeatable: bool,
}

/// Looks at a body as far as the call demands.
pub(super) async fn prepare(
    op: Op,
    caller: &Caller,
    target: &Target,
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<Outgoing, Problem> {
    if matches!(op.method(), Method::GET | Method::DELETE) {
        return Ok(Outgoing {
            payload: Payload::Empty,
            repeatable: op.method() == Method::GET,
        });
    }
    match (op, op.need()) {
        (_, Need::Statement(language)) => statement(language, caller, headers, body, limit).await,
        // A question that is too large for a URL: it is small, and asking twice does no harm.
        (_, Need::Read) => {
            let content = object(body, limit).await?;
            Ok(Outgoing {
                repeatable: true,
                ..once(Value::Object(content))
            })
        }
        (Op::CreateTable | Op::InsertFiles | Op::Copy, _) => {
            let mut content = object(body, limit).await?;
            // The path says which graph is meant; nothing in the body can say otherwise.
            content.insert("graph_id".to_owned(), Value::from(target.database.as_str()));
            Ok(once(Value::Object(content)))
        }
        (Op::Materialize, _) => {
            let content = object(body, limit).await?;
            check_source(content.get("source_graph_id"), target)?;
            Ok(once(Value::Object(content)))
        }
        _ => Ok(Outgoing {
            payload: Payload::Stream(body),
            repeatable: false,
        }),
    }
}

/// A body that is sent at most once, written anew: what was checked is what is sent, whatever the sender's text was.
fn once(content: Value) -> Outgoing {
    Outgoing {
        payload: Payload::Whole(Bytes::from(content.to_string())),
        repeatable: false,
    }
}

async fn whole(body: Body, limit: usize) -> Result<Bytes, Problem> {
    // Reading fails when the body is too large, or when the client goes away: then nobody reads the answer.
    to_bytes(body, limit)
        .await
        .map_err(|_| Problem::new(&kind::TOO_LARGE, format!("the body does not end within {limit} bytes")))
}

/// Reads a JSON object; an empty body counts as an empty object.
async fn object(body: Body, limit: usize) -> Result<serde_json::Map<String, Value>, Problem> {
    let bytes = whole(body, limit).await?;
    if bytes.is_empty() {
        return Ok(serde_json::Map::new());
    }
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(content)) => Ok(content),
        Ok(_) => Err(Problem::new(&kind::INVALID, "the body must be a JSON object")),
        Err(error) => Err(Problem::new(&kind::MALFORMED, format!("the body is not JSON: {error}"))),
    }
}

/// A query: keys of role viewer may send those that only read, which must be seen to be known.
async fn statement(
    language: Language,
    caller: &Caller,
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<Outgoing, Problem> {
    let field = match language {
        Language::Cypher => "cypher",
        Language::Sql => "sql",
    };
    if caller.role < Role::Editor {
        let content = object(body, limit).await?;
        let Some(text) = content.get(field).and_then(Value::as_str) else {
            return Err(Problem::field(
                field,
                "expected the statement as text",
                content.get(field).cloned(),
            ));
        };
        if !only_reads(language, text) {
            let detail = format!(
                "the key has role `viewer`, and the statement may change something; it must be one that only reads: `{}`",
                clip(text)
            );
            return Err(Problem::new(&kind::FORBIDDEN, detail));
        }
        return Ok(Outgoing {
            repeatable: true,
            ..once(Value::Object(content))
        });
    }
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_none_or(|length| length > SMALL) {
        return Ok(Outgoing {
            payload: Payload::Stream(body),
            repeatable: false,
        });
    }
    let bytes = whole(body, limit).await?;
    let content = serde_json::from_slice::<Value>(&bytes).ok();
    let text = content
        .as_ref()
        .and_then(|content| content.get(field))
        .and_then(Value::as_str);
    let repeatable = text.is_some_and(|text| only_reads(language, text));
    Ok(Outgoing {
        payload: Payload::Whole(bytes),
        repeatable,
    })
}

/// Staging tables of another database may be read if it belongs to the same graph.
fn check_source(source: Option<&Value>, target: &Target) -> Result<(), Problem> {
    let Some(source) = source.filter(|source| !source.is_null()) else {
        return Ok(());
    };
    let own = source.as_str().is_some_and(|text| {
        // A rebuild works in a database beside the one that serves.
        let id = text.strip_suffix("-wip").unwrap_or(text);
        id.parse::<DatabaseId>().is_ok_and(|id| id.graph() == target.graph_id)
    });
    if own {
        Ok(())
    } else {
        Err(Problem::field(
            "source_graph_id",
            "expected a database of the same graph",
            source.clone(),
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::gateway::target::tests::target;
    use serde_json::json;

    const LIMIT: usize = 1 << 20;

    async fn prepared(op: Op, role: Role, body: &str) -> Result<Outgoing, Problem> {
        let caller = Caller {
            key: "k".into(),
            role,
            namespace: "ns".into(),
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, body.len().into());
        prepare(op, &caller, &target(), &headers, Body::from(body.to_owned()), LIMIT).await
    }

    fn text(outgoing: &Outgoing) -> Value {
        match &outgoing.payload {
            Payload::Whole(bytes) => serde_json::from_slice(bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn viewers_send_reading_statements_only() {
        let read = json!({"cypher": "MATCH (n) RETURN n"}).to_string();
        let write = json!({"cypher": "CREATE (:A)"}).to_string();
        assert!(prepared(Op::Query, Role::Viewer, &read).await.unwrap().repeatable);
        assert_eq!(
            *prepared(Op::Query, Role::Viewer, &write).await.unwrap_err().kind(),
            kind::FORBIDDEN
        );
        assert!(prepared(Op::Query, Role::Viewer, "{}").await.is_err());
        assert!(prepared(Op::Query, Role::Viewer, "not json").await.is_err());
        let sql = json!({"sql": "DROP TABLE x"}).to_string();
        assert_eq!(
            *prepared(Op::QueryTables, Role::Viewer, &sql).await.unwrap_err().kind(),
            kind::FORBIDDEN
        );
    }

    #[tokio::test]
    async fn what_was_checked_is_what_is_sent() {
        // The last of two members counts here; an agent that took the first would run another statement.
        let twice = r#"{"cypher": "CREATE (:A)", "cypher": "RETURN 1"}"#;
        let sent = prepared(Op::Query, Role::Viewer, twice).await.unwrap();
        assert_eq!(text(&sent), json!({"cypher": "RETURN 1"}));
        assert!(matches!(&sent.payload, Payload::Whole(bytes) if !bytes.windows(6).any(|window| window == b"CREATE")));
    }

    #[tokio::test]
    async fn editors_statements_pass_as_they_are_and_only_reading_ones_repeat() {
        let write = r#"{"cypher":  "CREATE (:A)"}"#;
        let sent = prepared(Op::Query, Role::Editor, write).await.unwrap();
        assert!(!sent.repeatable);
        assert!(matches!(&sent.payload, Payload::Whole(bytes) if bytes == write));
        assert!(
            prepared(Op::Query, Role::Editor, r#"{"cypher": "RETURN 1"}"#)
                .await
                .unwrap()
                .repeatable
        );
    }

    #[tokio::test]
    async fn a_body_cannot_name_another_tenants_database() {
        let database = target().database.to_string();
        let table = json!({"graph_id": "kgffffffffffffffff", "table_name": "A", "s3_pattern": "s3://b/x"}).to_string();
        for op in [Op::CreateTable, Op::InsertFiles, Op::Copy] {
            let sent = prepared(op, Role::Editor, &table).await.unwrap();
            assert_eq!(text(&sent)["graph_id"], database);
        }
        for (source, good) in [
            (json!(database), true),
            (json!(format!("{database}_dev")), true),
            (json!(format!("{database}-wip")), true),
            (Value::Null, true),
            (json!("kgffffffffffffffff"), false),
            (json!(7), false),
        ] {
            let body = json!({ "source_graph_id": source }).to_string();
            assert_eq!(
                prepared(Op::Materialize, Role::Editor, &body).await.is_ok(),
                good,
                "{source}"
            );
        }
        assert!(prepared(Op::Materialize, Role::Editor, "").await.is_ok());
    }

    #[tokio::test]
    async fn searches_repeat() {
        let search = json!({"embedding": [0.5, 1], "limit": 3}).to_string();
        let sent = prepared(Op::SearchVectors, Role::Viewer, &search).await.unwrap();
        assert!(sent.repeatable && text(&sent)["limit"] == 3);
        assert!(prepared(Op::SearchMemories, Role::Viewer, "[]").await.is_err());
    }

    #[tokio::test]
    async fn uploads_are_not_read_here() {
        let sent = prepared(Op::PutFile, Role::Editor, "PAR1").await.unwrap();
        assert!(matches!(sent.payload, Payload::Stream(_)) && !sent.repeatable);
    }
}
