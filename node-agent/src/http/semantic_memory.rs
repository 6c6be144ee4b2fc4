//! `/databases/{id}/semantic-memory`: the memories of a graph, added, found, listed, changed and forgotten.

use super::{
    BODY_LIMIT, body,
    databases::{elapsed_ms, finished},
    error::ApiError,
    query::joined,
    validation::{ANY, Fields, Text},
    vectors::vectors,
};
use crate::{
    engines::{DatabaseId, Found, MEMORY_DIMENSION, MemoryChange, MemoryRow, is_memory_id},
    state::AppState,
};
use axum::{
    extract::{Path, Request, State},
    http::StatusCode,
    response::Response,
};
use serde_json::{Value, json};
use std::time::Instant;

/// Most memories of one request.
const RECORDS: usize = 1000;
const LONG: Text = Text {
    max: Some(65_536),
    identifier: false,
    one_of: None,
};
const SHORT: Text = Text {
    max: Some(4_096),
    identifier: false,
    one_of: None,
};
const TAGS: usize = 100;
const TAG_LENGTH: usize = 256;
const ANY_TIME: std::ops::RangeInclusive<i64> = i64::MIN..=i64::MAX;

/// Adds memories, all or none. Texts that come without a vector get theirs from the node's model.
pub(super) async fn add(
    State(state): State<AppState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    state.write_permit(&parts.headers).await?;
    let id = DatabaseId::parse(&id)?;
    let mut rows = parse_records(&body::read(body, BODY_LIMIT).await?)?;
    let vectors = vectors(&state, &id)?;
    state.check_disk(0)?;
    let bare: Vec<usize> = (0..rows.len()).filter(|at| rows[*at].vector.is_empty()).collect();
    if !bare.is_empty() {
        let texts = bare.iter().map(|at| rows[*at].text.clone()).collect();
        for (at, vector) in bare.into_iter().zip(embed(&state, texts).await?) {
            rows[at].vector = vector;
        }
    }
    let _place = state.admission.enter(id.as_str()).await?;
    let ids: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
    // The work goes on when the caller goes away, since half of it may be done.
    let work = tokio::spawn(async move { vectors.remember(rows).await });
    let total = finished(work).await??;
    body::value(&json!({"added": ids.len(), "total": total, "ids": ids}))
}

fn parse_records(body: &[u8]) -> Result<Vec<MemoryRow>, ApiError> {
    let mut fields = Fields::parse(body)?;
    let records = match fields.list("records") {
        Some(records) if (1..=RECORDS).contains(&records.len()) => records,
        Some(records) => {
            let message = format!("List should have 1 to {RECORDS} items");
            fields.wrong("value_error", "records", &message, &Value::from(records.len()));
            Vec::new()
        }
        None => {
            fields.missing("records");
            Vec::new()
        }
    };
    let mut rows = Vec::with_capacity(records.len());
    for (index, record) in records.into_iter().enumerate() {
        let Value::Object(record) = record else {
            fields.wrong("dict_type", "records", "Every item should be an object", &record);
            break;
        };
        let mut record = Fields::within(record);
        rows.push(parse_record(&mut record));
        fields.adopt("records", index, record);
    }
    fields.finish()?;
    Ok(rows)
}

fn parse_record(fields: &mut Fields) -> MemoryRow {
    let now = jiff::Timestamp::now().as_millisecond();
    let id = fields.text("id", ANY);
    if let Some(id) = id.as_ref().filter(|id| !is_memory_id(id)) {
        let message = "String should match pattern '^mem_[0-9a-f]{32}$'";
        fields.wrong("string_pattern_mismatch", "id", message, &Value::from(id.as_str()));
    }
    let created = fields.whole("created_at_ms", ANY_TIME);
    MemoryRow {
        id: id.unwrap_or_else(|| format!("mem_{}", uuid::Uuid::new_v4().simple())),
        vector: vector(fields, "vector").unwrap_or_default(),
        text: fields.required_text("text", LONG),
        created_at_ms: created.or(Some(now)),
        updated_at_ms: fields.whole("updated_at_ms", ANY_TIME).or(created).or(Some(now)),
        created_by: fields.text("created_by", SHORT),
        source: fields.text("source", SHORT),
        memory_type: fields.text("memory_type", SHORT),
        tags: tags(fields),
        source_ref: fields.text("source_ref", SHORT),
        provenance: provenance(fields),
    }
}

/// A vector of the right length, if there is one.
fn vector(fields: &mut Fields, name: &'static str) -> Option<Vec<f32>> {
    let vector = fields.numbers(name)?;
    if vector.len() != MEMORY_DIMENSION {
        let message = format!("List should have {MEMORY_DIMENSION} items");
        fields.wrong("value_error", name, &message, &Value::from(vector.len()));
    }
    Some(vector)
}

fn tags(fields: &mut Fields) -> Option<Vec<String>> {
    let tags = fields.texts("tags")?;
    if tags.len() > TAGS || tags.iter().any(|tag| tag.len() > TAG_LENGTH) {
        let message = format!("List should have at most {TAGS} items of at most {TAG_LENGTH} bytes");
        fields.wrong("value_error", "tags", &message, &Value::from(tags.len()));
    }
    Some(tags)
}

/// JSON as a text, or as it is.
fn provenance(fields: &mut Fields) -> Option<String> {
    match fields.take("provenance") {
        Some(Value::Object(object)) => {
            let text = Value::Object(object).to_string();
            if text.len() > LONG.max.unwrap_or(usize::MAX) {
                fields.wrong(
                    "value_error",
                    "provenance",
                    "Object is too large",
                    &Value::from(text.len()),
                );
            }
            Some(text)
        }
        _ => fields.text("provenance", LONG),
    }
}

/// The vectors of texts that came without, from the node's model.
async fn embed(_: &AppState, _: Vec<String>) -> Result<Vec<Vec<f32>>, ApiError> {
    Err(ApiError::new(
        StatusCode::NOT_IMPLEMENTED,
        format!(
            "This node has no model to embed texts with; send a vector of {MEMORY_DIMENSION} numbers with every text"
        ),
    ))
}

/// The memories nearest to a vector, or to a text.
pub(super) async fn search(
    State(state): State<AppState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    let id = DatabaseId::parse(&id)?;
    let mut fields = Fields::parse(&body::read(request.into_body(), BODY_LIMIT).await?)?;
    let text = fields.text("text", LONG);
    let embedding = vector(&mut fields, "embedding");
    if embedding.is_none() && text.is_none() {
        fields.missing("embedding");
    }
    let limit = fields.whole("limit", 1..=100).unwrap_or(10);
    let condition = fields.text("where", ANY);
    let columns = fields.texts("select_columns");
    fields.finish()?;
    let vectors = vectors(&state, &id)?;
    let embedding = match (embedding, text) {
        (Some(embedding), None) => embedding,
        (None, Some(text)) => embed(&state, vec![text]).await?.pop().unwrap_or_default(),
        _ => return Err(ApiError::bad_request("embedding and text exclude each other")),
    };
    let _place = state.admission.enter(id.as_str()).await?;
    let (limit, timeout) = (usize::try_from(limit).unwrap_or(10), state.settings().query_timeout());
    let found = vectors
        .recall(embedding, limit, condition.as_deref(), columns, timeout)
        .await?;
    let total = found.rows as u64;
    Ok(results(
        found,
        &format!("\"total\":{total},\"execution_time_ms\":{}", elapsed_ms(started)),
    ))
}

/// Memories that meet a condition.
pub(super) async fn list(
    State(state): State<AppState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let id = DatabaseId::parse(&id)?;
    let mut fields = Fields::parse_or_empty(&body::read(request.into_body(), BODY_LIMIT).await?)?;
    let condition = fields.text("where", ANY);
    let limit = fields.whole("limit", 1..=500).unwrap_or(100);
    let offset = fields.whole("offset", 0..=1_000_000_000).unwrap_or(0);
    fields.finish()?;
    let vectors = vectors(&state, &id)?;
    let _place = state.admission.enter(id.as_str()).await?;
    let places = |number| usize::try_from(number).unwrap_or_default();
    let timeout = state.settings().query_timeout();
    let listing = vectors.memories(condition.as_deref(), places(limit), places(offset), timeout);
    let (found, total) = listing.await?;
    Ok(results(found, &format!("\"total\":{total}")))
}

fn results(found: Found, rest: &str) -> Response {
    body::json(joined(
        b"{\"results\":[",
        found.json.into(),
        format!("],{rest}}}").into_bytes(),
    ))
}

/// One memory.
pub(super) async fn get(
    State(state): State<AppState>,
    Path((id, memory)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let (id, memory) = (DatabaseId::parse(&id)?, memory_id(memory)?);
    let vectors = vectors(&state, &id)?;
    let _place = state.admission.enter(id.as_str()).await?;
    match vectors.memory(&memory).await? {
        Some(found) => Ok(body::json(found)),
        None => Err(ApiError::new(StatusCode::NOT_FOUND, "Memory not found")),
    }
}

/// Changes a memory; fields that are absent stay as they are.
pub(super) async fn patch(
    State(state): State<AppState>,
    Path((id, memory)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    state.write_permit(&parts.headers).await?;
    let (id, memory) = (DatabaseId::parse(&id)?, memory_id(memory)?);
    let mut change = parse_change(&body::read(body, BODY_LIMIT).await?)?;
    let vectors = vectors(&state, &id)?;
    // A text with the vector of another one would be found by what it no longer says.
    if let (Some(text), None) = (&change.text, &change.vector) {
        change.vector = embed(&state, vec![text.clone()]).await?.pop();
    }
    state.check_disk(0)?;
    let _place = state.admission.enter(id.as_str()).await?;
    let target = memory.clone();
    let work = tokio::spawn(async move { vectors.change_memory(&target, change).await });
    let updated = finished(work).await??;
    body::value(&json!({"id": memory, "updated": updated}))
}

fn parse_change(body: &[u8]) -> Result<MemoryChange, ApiError> {
    let mut fields = Fields::parse(body)?;
    let text = fields.text("text", LONG);
    if text.is_none() && fields.has("text") {
        fields.wrong("string_type", "text", "Input should be a valid string", &Value::Null);
    }
    let now = jiff::Timestamp::now().as_millisecond();
    let change = MemoryChange {
        vector: vector(&mut fields, "vector"),
        text,
        created_at_ms: given(&mut fields, "created_at_ms", |fields| {
            fields.whole("created_at_ms", ANY_TIME)
        }),
        updated_at_ms: Some(fields.whole("updated_at_ms", ANY_TIME).or(Some(now))),
        created_by: given(&mut fields, "created_by", |fields| fields.text("created_by", SHORT)),
        source: given(&mut fields, "source", |fields| fields.text("source", SHORT)),
        memory_type: given(&mut fields, "memory_type", |fields| fields.text("memory_type", SHORT)),
        tags: given(&mut fields, "tags", tags),
        source_ref: given(&mut fields, "source_ref", |fields| fields.text("source_ref", SHORT)),
        provenance: given(&mut fields, "provenance", provenance),
    };
    fields.finish()?;
    Ok(change)
}

/// A field that was given, if only as null.
fn given<T>(fields: &mut Fields, name: &'static str, read: impl FnOnce(&mut Fields) -> Option<T>) -> Option<Option<T>> {
    fields.has(name).then(|| read(fields))
}

/// Removes a memory.
pub(super) async fn delete(
    State(state): State<AppState>,
    Path((id, memory)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    state.write_permit(request.headers()).await?;
    let (id, memory) = (DatabaseId::parse(&id)?, memory_id(memory)?);
    let vectors = vectors(&state, &id)?;
    let _place = state.admission.enter(id.as_str()).await?;
    let work = tokio::spawn(async move { vectors.forget_memory(&memory).await });
    let deleted = finished(work).await??;
    body::value(&json!({"deleted": deleted}))
}

fn memory_id(text: String) -> Result<String, ApiError> {
    if is_memory_id(&text) {
        Ok(text)
    } else {
        let shown: String = text.chars().take(64).collect();
        Err(ApiError::bad_request(format!(
            "Invalid memory id: {shown:?}; expected mem_ and 32 hexadecimal digits"
        )))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_change_tells_absent_from_null() {
        let change = parse_change(br#"{"source":null,"memory_type":"fact"}"#).unwrap();
        assert_eq!(
            (change.source, change.memory_type, change.tags),
            (Some(None), Some(Some("fact".into())), None)
        );
        assert!(change.updated_at_ms.flatten().is_some() && change.text.is_none());
        assert!(parse_change(br#"{"text":null}"#).is_err());
        assert!(parse_change(br#"{"id":"mem_1"}"#).is_err());
    }

    #[test]
    fn records_are_checked_one_by_one() {
        let row = &parse_records(br#"{"records":[{"text":"a","provenance":{"a":1}}]}"#).unwrap()[0];
        assert!(is_memory_id(&row.id) && row.provenance.as_deref() == Some(r#"{"a":1}"#));
        let refused = parse_records(br#"{"records":[{"text":"a"},{"vector":[1],"id":"mem_1"}]}"#).unwrap_err();
        let places: Vec<String> = refused
            .detail
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["loc"].to_string())
            .collect();
        let expected = ["id", "vector", "text"].map(|name| format!(r#"["body","records",1,"{name}"]"#));
        assert_eq!(places, expected);
        for body in [r#"{"records":[]}"#, "{}", r#"{"records":[1]}"#, r#"{"records":"x"}"#] {
            assert_eq!(
                parse_records(body.as_bytes()).unwrap_err().status.as_u16(),
                422,
                "{body}"
            );
        }
    }
}
