//! The rows of a semantic memory, and their way through Arrow.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, ListArray, ListBuilder, RecordBatch, StringArray, StringBuilder,
};
use arrow::datatypes::{DataType, Field, Float32Type, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;

use super::super::error::EngineError;
use super::columns::vector_field;
use super::source::{check_given, fixed};
use super::table::VECTOR;

/// Length of the vectors of a memory.
pub const MEMORY_DIMENSION: usize = 384;

/// One memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryRow {
    /// `mem_` and 32 hexadecimal digits.
    pub id: String,
    /// What the text means.
    pub vector: Vec<f32>,
    /// The text.
    pub text: String,
    /// When it was made, in milliseconds since 1970.
    pub created_at_ms: Option<i64>,
    /// When it was last changed.
    pub updated_at_ms: Option<i64>,
    /// Who made it.
    pub created_by: Option<String>,
    /// Where it came from.
    pub source: Option<String>,
    /// What kind of memory it is.
    pub memory_type: Option<String>,
    /// Words to find it by.
    pub tags: Option<Vec<String>>,
    /// What in the source it is about.
    pub source_ref: Option<String>,
    /// How it came about, as JSON text.
    pub provenance: Option<String>,
}

/// What to change of a memory: what is absent stays, and `Some(None)` takes a value away.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryChange {
    /// Another vector.
    pub vector: Option<Vec<f32>>,
    /// Another text.
    pub text: Option<String>,
    /// As in [`MemoryRow`], and so on.
    pub created_at_ms: Option<Option<i64>>,
    /// When it was last changed.
    pub updated_at_ms: Option<Option<i64>>,
    /// Who made it.
    pub created_by: Option<Option<String>>,
    /// Where it came from.
    pub source: Option<Option<String>>,
    /// What kind of memory it is.
    pub memory_type: Option<Option<String>>,
    /// Words to find it by.
    pub tags: Option<Option<Vec<String>>>,
    /// What in the source it is about.
    pub source_ref: Option<Option<String>>,
    /// How it came about, as JSON text.
    pub provenance: Option<Option<String>>,
}

/// Whether a text is the id of a memory.
#[must_use]
pub fn is_memory_id(text: &str) -> bool {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.strip_prefix("mem_")
        .is_some_and(|rest| rest.len() == 32 && rest.bytes().all(hex))
}

pub(super) fn check_rows(rows: &[MemoryRow]) -> Result<(), EngineError> {
    let mut ids = HashSet::new();
    for row in rows {
        check_row(row)?;
        if !ids.insert(row.id.as_str()) {
            return Err(EngineError::invalid("records", format!("has the id {} twice", row.id)));
        }
    }
    Ok(())
}

pub(super) fn check_row(row: &MemoryRow) -> Result<(), EngineError> {
    if !is_memory_id(&row.id) {
        let shown: String = row.id.chars().take(64).collect();
        let message = format!("{shown:?} is no id of a memory: expected mem_ and 32 hexadecimal digits");
        return Err(EngineError::invalid("id", message));
    }
    check_given("vector", &row.vector, MEMORY_DIMENSION)
}

impl MemoryChange {
    pub(super) fn apply(self, row: MemoryRow) -> MemoryRow {
        MemoryRow {
            id: row.id,
            vector: self.vector.unwrap_or(row.vector),
            text: self.text.unwrap_or(row.text),
            created_at_ms: self.created_at_ms.unwrap_or(row.created_at_ms),
            updated_at_ms: self.updated_at_ms.unwrap_or(row.updated_at_ms),
            created_by: self.created_by.unwrap_or(row.created_by),
            source: self.source.unwrap_or(row.source),
            memory_type: self.memory_type.unwrap_or(row.memory_type),
            tags: self.tags.unwrap_or(row.tags),
            source_ref: self.source_ref.unwrap_or(row.source_ref),
            provenance: self.provenance.unwrap_or(row.provenance),
        }
    }
}

pub(super) fn schema() -> Schema {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    let number = |name: &str| Field::new(name, DataType::Int64, true);
    let tags = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
    Schema::new(vec![
        text("id", false),
        vector_field(MEMORY_DIMENSION),
        text("text", false),
        number("created_at_ms"),
        number("updated_at_ms"),
        text("created_by", true),
        text("source", true),
        text("memory_type", true),
        Field::new("tags", tags, true),
        text("source_ref", true),
        text("provenance", true),
    ])
}

pub(super) fn batch(rows: &[MemoryRow]) -> Result<RecordBatch, EngineError> {
    let texts = |of: fn(&MemoryRow) -> Option<&str>| Arc::new(StringArray::from_iter(rows.iter().map(of))) as ArrayRef;
    let numbers = |of: fn(&MemoryRow) -> Option<i64>| Arc::new(Int64Array::from_iter(rows.iter().map(of))) as ArrayRef;
    let vectors: Vec<f32> = rows.iter().flat_map(|row| row.vector.iter().copied()).collect();
    let mut tags = ListBuilder::new(StringBuilder::new());
    for row in rows {
        tags.append_option(row.tags.as_ref().map(|tags| tags.iter().map(Some)));
    }
    let mut columns = || -> Result<Vec<ArrayRef>, ArrowError> {
        Ok(vec![
            texts(|row| Some(row.id.as_str())),
            fixed(&vectors, MEMORY_DIMENSION)?,
            texts(|row| Some(row.text.as_str())),
            numbers(|row| row.created_at_ms),
            numbers(|row| row.updated_at_ms),
            texts(|row| row.created_by.as_deref()),
            texts(|row| row.source.as_deref()),
            texts(|row| row.memory_type.as_deref()),
            Arc::new(tags.finish()) as ArrayRef,
            texts(|row| row.source_ref.as_deref()),
            texts(|row| row.provenance.as_deref()),
        ])
    };
    let schema: SchemaRef = Arc::new(schema());
    columns()
        .and_then(|columns| RecordBatch::try_new(schema, columns))
        .map_err(|error| EngineError::internal(format!("memories: {error}")))
}

/// A row of the memory with all its columns.
pub(super) fn read(rows: &RecordBatch, row: usize) -> Result<MemoryRow, EngineError> {
    let column = |name: &str| {
        let found = rows.column_by_name(name);
        found.ok_or_else(|| EngineError::internal(format!("the memory has no column {name}")))
    };
    let text = |name: &str| -> Result<Option<String>, EngineError> {
        let texts = column(name)?.as_string::<i32>();
        Ok(texts.is_valid(row).then(|| texts.value(row).to_owned()))
    };
    let number = |name: &str| -> Result<Option<i64>, EngineError> {
        let numbers = column(name)?.as_primitive::<Int64Type>();
        Ok(numbers.is_valid(row).then(|| numbers.value(row)))
    };
    let tags: &ListArray = column("tags")?.as_list::<i32>();
    let tags = tags.is_valid(row).then(|| {
        let words = tags.value(row);
        words.as_string::<i32>().iter().flatten().map(str::to_owned).collect()
    });
    let vector = column(VECTOR)?.as_fixed_size_list().value(row);
    Ok(MemoryRow {
        id: text("id")?.unwrap_or_default(),
        vector: vector.as_primitive::<Float32Type>().values().to_vec(),
        text: text("text")?.unwrap_or_default(),
        created_at_ms: number("created_at_ms")?,
        updated_at_ms: number("updated_at_ms")?,
        created_by: text("created_by")?,
        source: text("source")?,
        memory_type: text("memory_type")?,
        tags,
        source_ref: text("source_ref")?,
        provenance: text("provenance")?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ids_are_exactly_of_one_form() {
        let hex = "0123456789abcdef0123456789abcdef";
        assert!(is_memory_id(&format!("mem_{hex}")));
        for wrong in [
            hex.to_owned(),
            format!("mem_{hex}\n"),
            format!("mem_{}", hex.to_uppercase()),
            "mem_".into(),
        ] {
            assert!(!is_memory_id(&wrong), "{wrong:?}");
        }
    }

    #[test]
    fn rows_survive_the_way_through_their_columns() {
        let row = MemoryRow {
            id: "mem_0".into(),
            vector: vec![0.5; MEMORY_DIMENSION],
            text: "hello".into(),
            created_at_ms: Some(1),
            tags: Some(vec!["a".into(), "b".into()]),
            source: Some("s".into()),
            ..MemoryRow::default()
        };
        let rows = [
            MemoryRow {
                vector: vec![1.0; MEMORY_DIMENSION],
                ..MemoryRow::default()
            },
            row.clone(),
        ];
        let batch = batch(&rows).unwrap();
        assert_eq!(read(&batch, 1).unwrap(), row);
        let change = MemoryChange {
            text: Some("bye".into()),
            source: Some(None),
            ..MemoryChange::default()
        };
        let changed = change.apply(row.clone());
        assert_eq!(
            (changed.text.as_str(), &changed.source, &changed.tags),
            ("bye", &None, &row.tags)
        );
    }
}
