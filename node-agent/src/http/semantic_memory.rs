//! `/databases/{id}/semantic-memory`: the memories of a graph, added, found, listed, changed and forgotten.

use super::{
    BODY_LIMIT, body,
    databases::{elapsed_ms, finished},
    embeddings,
    error::ApiError,
    openapi::Operation,
    query::joined,
    validation::{ANY, Fields, Text, schema},
    vectors::{Nearest, vectors},
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
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::{ops::RangeInclusive, time::Instant};

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
/// Milliseconds since 1970.
const TIME: RangeInclusive<u64> = 0..=i64::MAX as u64;

/// The operations of this module.
pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(
            "post /databases/{id}/semantic-memory/rows",
            "semantic_memory_add",
            "Adds memories, all or none",
        )
        .changes()
        .reads(|fields| {
            fields.shape("records", record_schema);
            fields.missing("records");
        })
        .asks_engine()
        .fails(&[501])
        .gives::<Added>("They are on the volume."),
        Operation::new(
            "post /databases/{id}/semantic-memory/search",
            "semantic_memory_search",
            "The memories nearest to a vector",
        )
        .reads(AskedSearch::read)
        .asks_engine()
        .fails(&[501])
        .gives::<Nearest>("The memories, the nearest first, each with its `distance`."),
        Operation::new(
            "post /databases/{id}/semantic-memory/list",
            "semantic_memory_list",
            "Memories that meet a condition",
        )
        .may_read(AskedList::read)
        .asks_engine()
        .gives::<Listed>("The memories, and how many there are of them."),
        Operation::new(
            "get /databases/{id}/semantic-memory/rows/{memory}",
            "semantic_memory_get",
            "One memory",
        )
        .asks_engine()
        .gives::<Memory>("The memory."),
        Operation::new(
            "patch /databases/{id}/semantic-memory/rows/{memory}",
            "semantic_memory_change",
            "Changes a memory; fields that are absent stay as they are",
        )
        .changes()
        .reads(read_change)
        .asks_engine()
        .fails(&[501])
        .gives::<MemoryChanged>("Whether there was one."),
        Operation::new(
            "delete /databases/{id}/semantic-memory/rows/{memory}",
            "semantic_memory_delete",
            "Removes a memory",
        )
        .changes()
        .asks_engine()
        .gives::<MemoryDeleted>("Whether there was one."),
    ]
}

fn record_schema() -> Value {
    let record = schema(|fields| {
        parse_record(fields);
    });
    json!({"type": "array", "minItems": 1, "maxItems": RECORDS, "items": record})
}

/// Memories that were added.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "MemoriesAdded")]
struct Added {
    added: usize,
    /// All that there are now.
    total: u64,
    /// Their ids, in the order of the records.
    ids: Vec<String>,
}

/// A memory; never with its vector.
#[derive(Serialize, JsonSchema)]
#[allow(dead_code)] // rows are written as bytes
struct Memory {
    id: String,
    text: String,
    created_at_ms: Option<i64>,
    updated_at_ms: Option<i64>,
    created_by: Option<String>,
    source: Option<String>,
    memory_type: Option<String>,
    tags: Option<Vec<String>>,
    source_ref: Option<String>,
    provenance: Option<String>,
}

/// Memories that meet a condition.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "MemoriesListed")]
#[allow(dead_code)] // rows are written as bytes
struct Listed {
    results: Vec<Map<String, Value>>,
    /// All that meet it, not only those of this page.
    total: u64,
}

/// A change of a memory.
#[derive(Serialize, JsonSchema)]
struct MemoryChanged {
    id: String,
    /// False if there is none with this id.
    updated: bool,
}

/// A memory that was removed.
#[derive(Serialize, JsonSchema)]
struct MemoryDeleted {
    /// False if there was none with this id.
    deleted: bool,
}

/// Adds memories, all or none. Texts that come without a vector get theirs from the node's model.
pub(super) async fn add(
    State(state): State<AppState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let permit = state.write_permit(&parts.headers).await?;
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
    let work = tokio::spawn(async move {
        let _permit = permit;
        vectors.remember(rows).await
    });
    let total = finished(work).await??;
    body::value(&Added {
        added: ids.len(),
        total,
        ids,
    })
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
    let created = time(fields, "created_at_ms");
    MemoryRow {
        id: id.unwrap_or_else(|| format!("mem_{}", uuid::Uuid::new_v4().simple())),
        vector: vector(fields, "vector").unwrap_or_default(),
        text: fields.required_text("text", LONG),
        created_at_ms: created.or(Some(now)),
        updated_at_ms: time(fields, "updated_at_ms").or(created).or(Some(now)),
        created_by: fields.text("created_by", SHORT),
        source: fields.text("source", SHORT),
        memory_type: fields.text("memory_type", SHORT),
        tags: tags(fields),
        source_ref: fields.text("source_ref", SHORT),
        provenance: provenance(fields),
    }
}

fn time(fields: &mut Fields, name: &'static str) -> Option<i64> {
    fields.whole(name, TIME).and_then(|time| i64::try_from(time).ok())
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
async fn embed(state: &AppState, texts: Vec<String>) -> Result<Vec<Vec<f32>>, ApiError> {
    if let Some(model) = state
        .embedder
        .as_deref()
        .filter(|model| model.dimension() != MEMORY_DIMENSION)
    {
        return Err(ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            format!(
                "The model of this node, {}, makes vectors of {} numbers, and memories have {MEMORY_DIMENSION}; send vectors",
                model.model(),
                model.dimension()
            ),
        ));
    }
    embeddings::embed(state, texts).await
}

struct AskedSearch {
    embedding: Option<Vec<f32>>,
    text: Option<String>,
    limit: usize,
    condition: Option<String>,
    columns: Option<Vec<String>>,
}

impl AskedSearch {
    fn read(fields: &mut Fields) -> Self {
        Self {
            embedding: vector(fields, "embedding"),
            text: fields.text("text", LONG),
            limit: places(fields.whole("limit", 1..=100), 10),
            condition: fields.text("where", ANY),
            columns: fields.texts("select_columns"),
        }
    }
}

struct AskedList {
    condition: Option<String>,
    limit: usize,
    offset: usize,
}

impl AskedList {
    fn read(fields: &mut Fields) -> Self {
        Self {
            condition: fields.text("where", ANY),
            limit: places(fields.whole("limit", 1..=500), 100),
            offset: places(fields.whole("offset", 0..=1_000_000_000), 0),
        }
    }
}

fn places(number: Option<u64>, default: usize) -> usize {
    number
        .and_then(|number| usize::try_from(number).ok())
        .unwrap_or(default)
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
    let asked = AskedSearch::read(&mut fields);
    if asked.embedding.is_none() && asked.text.is_none() {
        fields.missing("embedding");
    }
    fields.finish()?;
    let vectors = vectors(&state, &id)?;
    let embedding = match (asked.embedding, asked.text) {
        (Some(embedding), None) => embedding,
        (None, Some(text)) => embed(&state, vec![text]).await?.pop().unwrap_or_default(),
        _ => return Err(ApiError::bad_request("embedding and text exclude each other")),
    };
    let _place = state.admission.enter(id.as_str()).await?;
    let timeout = state.settings().query_timeout();
    let found = vectors
        .recall(
            embedding,
            asked.limit,
            asked.condition.as_deref(),
            asked.columns,
            timeout,
        )
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
    let asked = AskedList::read(&mut fields);
    fields.finish()?;
    let vectors = vectors(&state, &id)?;
    let _place = state.admission.enter(id.as_str()).await?;
    let timeout = state.settings().query_timeout();
    let listing = vectors.memories(asked.condition.as_deref(), asked.limit, asked.offset, timeout);
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
    let permit = state.write_permit(&parts.headers).await?;
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
    let work = tokio::spawn(async move {
        let _permit = permit;
        vectors.change_memory(&target, change).await
    });
    let updated = finished(work).await??;
    body::value(&MemoryChanged { id: memory, updated })
}

fn parse_change(body: &[u8]) -> Result<MemoryChange, ApiError> {
    let mut fields = Fields::parse(body)?;
    let change = read_change(&mut fields);
    fields.finish()?;
    Ok(change)
}

fn read_change(fields: &mut Fields) -> MemoryChange {
    let text = fields.text("text", LONG);
    if text.is_none() && fields.has("text") {
        fields.wrong("string_type", "text", "Input should be a valid string", &Value::Null);
    }
    let now = jiff::Timestamp::now().as_millisecond();
    MemoryChange {
        vector: vector(fields, "vector"),
        text,
        created_at_ms: given(fields, "created_at_ms", |fields| time(fields, "created_at_ms")),
        updated_at_ms: Some(time(fields, "updated_at_ms").or(Some(now))),
        created_by: given(fields, "created_by", |fields| fields.text("created_by", SHORT)),
        source: given(fields, "source", |fields| fields.text("source", SHORT)),
        memory_type: given(fields, "memory_type", |fields| fields.text("memory_type", SHORT)),
        tags: given(fields, "tags", tags),
        source_ref: given(fields, "source_ref", |fields| fields.text("source_ref", SHORT)),
        provenance: given(fields, "provenance", provenance),
    }
}

/// A field that was given, if only as null.
fn given<T>(fields: &mut Fields, name: &'static str, read: impl FnOnce(&mut Fields) -> Option<T>) -> Option<Option<T>> {
    let has = fields.has(name);
    let value = read(fields);
    has.then_some(value)
}

/// Removes a memory.
pub(super) async fn delete(
    State(state): State<AppState>,
    Path((id, memory)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    let permit = state.write_permit(request.headers()).await?;
    let (id, memory) = (DatabaseId::parse(&id)?, memory_id(memory)?);
    let vectors = vectors(&state, &id)?;
    let _place = state.admission.enter(id.as_str()).await?;
    let work = tokio::spawn(async move {
        let _permit = permit;
        vectors.forget_memory(&memory).await
    });
    let deleted = finished(work).await??;
    body::value(&MemoryDeleted { deleted })
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
