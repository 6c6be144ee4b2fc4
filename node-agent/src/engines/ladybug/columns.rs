//! Engine values as Arrow columns, by the type of the column.
//!
//! The engine has an export of its own, which is not used: it copies decimals without extending their sign, so negative
//! ones arrive as others, and it refuses JSON. What Arrow readers have no common form for (nodes, relationships, paths,
//! unions) becomes the text of its JSON form, marked as the extension type `arrow.json`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DurationMicrosecondArray, FixedSizeBinaryArray,
    FixedSizeListArray, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, ListArray, MapArray,
    NullArray, StringArray, StructArray, TimestampMicrosecondArray, TimestampMillisecondArray,
    TimestampNanosecondArray, TimestampSecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use lbug::{LogicalType, NodeVal, RelVal, Value};
use time::OffsetDateTime;

use super::super::error::EngineError;
use super::value::write_value;

const UTC: &str = "UTC";
/// `time` counts days from the Julian epoch, Arrow from 1970-01-01.
const JULIAN_DAY_OF_1970: i32 = 2_440_588;

/// The schema of a result.
pub(crate) fn schema(names: &[String], types: &[LogicalType]) -> Schema {
    let fields = names.iter().zip(types).map(|(name, ty)| field(name, ty));
    Schema::new(fields.collect::<Fields>())
}

/// Columns of equal length as a batch of this schema.
pub(crate) fn record_batch(
    schema: &SchemaRef,
    types: &[LogicalType],
    columns: &[Vec<Value>],
    rows: usize,
) -> Result<RecordBatch, EngineError> {
    let arrays = types.iter().zip(columns).map(|(ty, column)| {
        let values: Vec<_> = column.iter().map(present).collect();
        array(ty, &values)
    });
    // A result without columns still has rows.
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(SchemaRef::clone(schema), arrays.collect::<Result<_, _>>()?, &options)
        .map_err(unfit)
}

/// About how many bytes of memory a value takes.
pub(crate) fn weight(value: &Value) -> usize {
    let properties = |list: &[(String, Value)]| {
        list.iter()
            .map(|(name, value)| name.len() + weight(value))
            .sum::<usize>()
    };
    let node = |node: &NodeVal| properties(node.get_properties());
    let rel = |rel: &RelVal| properties(rel.get_properties());
    let inside: usize = match value {
        Value::String(text) => text.len(),
        Value::Blob(bytes) => bytes.len(),
        Value::List(_, items) | Value::Array(_, items) => items.iter().map(weight).sum(),
        Value::Struct(fields) => properties(fields),
        Value::Map(_, entries) => entries.iter().map(|(key, value)| weight(key) + weight(value)).sum(),
        Value::Union { value, .. } => weight(value),
        Value::Node(one) => node(one),
        Value::Rel(one) => rel(one),
        Value::RecursiveRel { nodes, rels } => {
            nodes.iter().map(node).sum::<usize>() + rels.iter().map(rel).sum::<usize>()
        }
        _ => 0,
    };
    16 + inside
}

fn field(name: &str, ty: &LogicalType) -> Field {
    let field = Field::new(name, data_type(ty), true);
    let extension = match ty {
        LogicalType::UUID => "arrow.uuid",
        _ if is_json(ty) => "arrow.json",
        _ => return field,
    };
    let pairs = [("ARROW:extension:name", extension), ("ARROW:extension:metadata", "")];
    field.with_metadata(HashMap::from(
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())),
    ))
}

fn is_json(ty: &LogicalType) -> bool {
    matches!(
        ty,
        LogicalType::Node
            | LogicalType::Rel
            | LogicalType::RecursiveRel
            | LogicalType::Union { .. }
            | LogicalType::Json
    )
}

fn data_type(ty: &LogicalType) -> DataType {
    match ty {
        LogicalType::Any => DataType::Null,
        LogicalType::Bool => DataType::Boolean,
        LogicalType::Int64 | LogicalType::Serial => DataType::Int64,
        LogicalType::Int32 => DataType::Int32,
        LogicalType::Int16 => DataType::Int16,
        LogicalType::Int8 => DataType::Int8,
        LogicalType::UInt64 => DataType::UInt64,
        LogicalType::UInt32 => DataType::UInt32,
        LogicalType::UInt16 => DataType::UInt16,
        LogicalType::UInt8 => DataType::UInt8,
        LogicalType::Int128 => DataType::Decimal128(38, 0),
        LogicalType::Double => DataType::Float64,
        LogicalType::Float => DataType::Float32,
        LogicalType::Decimal { precision, scale } => DataType::Decimal128(digits(*precision), places(*scale)),
        LogicalType::Date => DataType::Date32,
        LogicalType::Interval => DataType::Duration(TimeUnit::Microsecond),
        LogicalType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        LogicalType::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
        LogicalType::TimestampNs => DataType::Timestamp(TimeUnit::Nanosecond, None),
        LogicalType::TimestampMs => DataType::Timestamp(TimeUnit::Millisecond, None),
        LogicalType::TimestampSec => DataType::Timestamp(TimeUnit::Second, None),
        LogicalType::InternalID => DataType::Struct(id_fields()),
        LogicalType::String => DataType::Utf8,
        LogicalType::Blob => DataType::Binary,
        LogicalType::UUID => DataType::FixedSizeBinary(16),
        LogicalType::List { child_type } => DataType::List(item(child_type)),
        LogicalType::Array {
            child_type,
            num_elements,
        } => DataType::FixedSizeList(item(child_type), length(*num_elements)),
        LogicalType::Struct { fields } => DataType::Struct(struct_fields(fields)),
        LogicalType::Map { key_type, value_type } => DataType::Map(entries(key_type, value_type), false),
        LogicalType::Node
        | LogicalType::Rel
        | LogicalType::RecursiveRel
        | LogicalType::Union { .. }
        | LogicalType::Json => DataType::Utf8,
    }
}

fn item(ty: &LogicalType) -> Arc<Field> {
    Arc::new(field("item", ty))
}

fn struct_fields(fields: &[(String, LogicalType)]) -> Fields {
    fields.iter().map(|(name, ty)| field(name, ty)).collect()
}

fn entries(key: &LogicalType, value: &LogicalType) -> Arc<Field> {
    let fields = Fields::from(vec![field("key", key).with_nullable(false), field("value", value)]);
    Arc::new(Field::new("entries", DataType::Struct(fields), false))
}

fn id_fields() -> Fields {
    ["offset", "table"]
        .map(|name| Field::new(name, DataType::UInt64, true))
        .into_iter()
        .collect()
}

// The engine's own limits (38 digits, arrays of less than 2^31 items) are far below these.
fn digits(precision: u32) -> u8 {
    u8::try_from(precision).unwrap_or(u8::MAX)
}

fn places(scale: u32) -> i8 {
    i8::try_from(scale).unwrap_or(i8::MAX)
}

fn length(items: u64) -> i32 {
    i32::try_from(items).unwrap_or(i32::MAX)
}

/// A value of a column, or `None` for NULL.
type Cell<'v> = Option<&'v Value>;

fn present(value: &Value) -> Cell<'_> {
    (!matches!(value, Value::Null(_))).then_some(value)
}

fn array(ty: &LogicalType, values: &[Cell<'_>]) -> Result<ArrayRef, EngineError> {
    // A column of scalars: for every variant that the type can have, the form of its content in the array.
    macro_rules! scalars {
        ($array:ty, $($variant:pat => $form:expr),+) => {
            values
                .iter()
                .map(|value| match value {
                    None => Ok(None),
                    $(Some($variant) => Ok(Some($form)),)+
                    Some(other) => Err(mismatch(ty, other)),
                })
                .collect::<Result<$array, EngineError>>()?
        };
    }
    Ok(match ty {
        LogicalType::Any => match values.iter().flatten().next() {
            None => Arc::new(NullArray::new(values.len())),
            Some(other) => return Err(mismatch(ty, other)),
        },
        LogicalType::Bool => Arc::new(scalars!(BooleanArray, Value::Bool(b) => *b)),
        LogicalType::Int64 | LogicalType::Serial => Arc::new(scalars!(Int64Array, Value::Int64(n) => *n)),
        LogicalType::Int32 => Arc::new(scalars!(Int32Array, Value::Int32(n) => *n)),
        LogicalType::Int16 => Arc::new(scalars!(Int16Array, Value::Int16(n) => *n)),
        LogicalType::Int8 => Arc::new(scalars!(Int8Array, Value::Int8(n) => *n)),
        LogicalType::UInt64 => Arc::new(scalars!(UInt64Array, Value::UInt64(n) => *n)),
        LogicalType::UInt32 => Arc::new(scalars!(UInt32Array, Value::UInt32(n) => *n)),
        LogicalType::UInt16 => Arc::new(scalars!(UInt16Array, Value::UInt16(n) => *n)),
        LogicalType::UInt8 => Arc::new(scalars!(UInt8Array, Value::UInt8(n) => *n)),
        LogicalType::Int128 => decimals(scalars!(Decimal128Array, Value::Int128(n) => *n), 38, 0)?,
        LogicalType::Double => Arc::new(scalars!(Float64Array, Value::Double(n) => *n)),
        LogicalType::Float => Arc::new(scalars!(Float32Array, Value::Float(n) => *n)),
        LogicalType::Decimal { precision, scale } => {
            let unscaled = scalars!(
                Decimal128Array,
                Value::Decimal(n) => rescaled(n.mantissa(), n.scale(), *scale)?
            );
            decimals(unscaled, *precision, *scale)?
        }
        LogicalType::Date => {
            Arc::new(scalars!(Date32Array, Value::Date(day) => day.to_julian_day() - JULIAN_DAY_OF_1970))
        }
        LogicalType::Interval => Arc::new(scalars!(
            DurationMicrosecondArray,
            Value::Interval(span) => fits(span.whole_microseconds())?
        )),
        LogicalType::Timestamp => {
            Arc::new(scalars!(TimestampMicrosecondArray, Value::Timestamp(at) => since_1970(at, 1_000)?))
        }
        LogicalType::TimestampTz => {
            let instants = scalars!(TimestampMicrosecondArray, Value::TimestampTz(at) => since_1970(at, 1_000)?);
            Arc::new(instants.with_timezone(UTC))
        }
        LogicalType::TimestampNs => {
            Arc::new(scalars!(TimestampNanosecondArray, Value::TimestampNs(at) => since_1970(at, 1)?))
        }
        LogicalType::TimestampMs => Arc::new(scalars!(
            TimestampMillisecondArray,
            Value::TimestampMs(at) => since_1970(at, 1_000_000)?
        )),
        LogicalType::TimestampSec => Arc::new(scalars!(
            TimestampSecondArray,
            Value::TimestampSec(at) => since_1970(at, 1_000_000_000)?
        )),
        LogicalType::String => Arc::new(scalars!(StringArray, Value::String(text) => text.as_str())),
        LogicalType::Blob => Arc::new(scalars!(BinaryArray, Value::Blob(bytes) => bytes.as_slice())),
        LogicalType::UUID => {
            let ids = values.iter().map(|value| match value {
                None => Ok(None),
                Some(Value::UUID(id)) => Ok(Some(id.into_bytes())),
                Some(other) => Err(mismatch(ty, other)),
            });
            let ids = ids.collect::<Result<Vec<_>, _>>()?;
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(ids.into_iter(), 16).map_err(unfit)?)
        }
        LogicalType::InternalID => {
            let part = |part: fn(&lbug::InternalID) -> u64| {
                let column = scalars!(UInt64Array, Value::InternalID(id) => part(id));
                Ok::<ArrayRef, EngineError>(Arc::new(column))
            };
            let columns = vec![part(|id| id.offset)?, part(|id| id.table_id)?];
            Arc::new(StructArray::try_new(id_fields(), columns, nulls(values)).map_err(unfit)?)
        }
        LogicalType::List { child_type } => {
            let (items, lengths) = flatten(ty, values)?;
            let offsets = OffsetBuffer::from_lengths(lengths);
            let items = array(child_type, &items)?;
            Arc::new(ListArray::try_new(item(child_type), offsets, items, nulls(values)).map_err(unfit)?)
        }
        LogicalType::Array {
            child_type,
            num_elements,
        } => {
            let size = length(*num_elements);
            let mut items = Vec::new();
            for value in values {
                match value {
                    None => items.extend((0..size).map(|_| None)),
                    Some(Value::Array(_, inner) | Value::List(_, inner)) => items.extend(inner.iter().map(present)),
                    Some(other) => return Err(mismatch(ty, other)),
                }
            }
            let items = array(child_type, &items)?;
            Arc::new(FixedSizeListArray::try_new(item(child_type), size, items, nulls(values)).map_err(unfit)?)
        }
        LogicalType::Struct { fields } => {
            let mut columns = vec![Vec::with_capacity(values.len()); fields.len()];
            for value in values {
                match value {
                    None => columns.iter_mut().for_each(|column| column.push(None)),
                    Some(Value::Struct(inner)) if inner.len() == fields.len() => {
                        for (column, (_, value)) in columns.iter_mut().zip(inner) {
                            column.push(present(value));
                        }
                    }
                    Some(other) => return Err(mismatch(ty, other)),
                }
            }
            let arrays = fields.iter().zip(&columns).map(|((_, ty), column)| array(ty, column));
            let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
            Arc::new(StructArray::try_new(struct_fields(fields), arrays, nulls(values)).map_err(unfit)?)
        }
        LogicalType::Map { key_type, value_type } => {
            let (mut keys, mut items, mut lengths) = (Vec::new(), Vec::new(), Vec::with_capacity(values.len()));
            for value in values {
                match value {
                    None => lengths.push(0),
                    Some(Value::Map(_, inner)) => {
                        lengths.push(inner.len());
                        keys.extend(inner.iter().map(|(key, _)| present(key)));
                        items.extend(inner.iter().map(|(_, value)| present(value)));
                    }
                    Some(other) => return Err(mismatch(ty, other)),
                }
            }
            let field = entries(key_type, value_type);
            let DataType::Struct(fields) = field.data_type().clone() else {
                return Err(EngineError::internal("the entries of a map are a struct"));
            };
            let columns = vec![array(key_type, &keys)?, array(value_type, &items)?];
            let pairs = StructArray::try_new(fields, columns, None).map_err(unfit)?;
            let offsets = OffsetBuffer::from_lengths(lengths);
            Arc::new(MapArray::try_new(field, offsets, pairs, nulls(values), false).map_err(unfit)?)
        }
        LogicalType::Node
        | LogicalType::Rel
        | LogicalType::RecursiveRel
        | LogicalType::Union { .. }
        | LogicalType::Json => Arc::new(values.iter().map(|value| value.map(json)).collect::<StringArray>()),
    })
}

/// The items of all lists, and the length of each.
fn flatten<'v>(ty: &LogicalType, values: &[Cell<'v>]) -> Result<(Vec<Cell<'v>>, Vec<usize>), EngineError> {
    let (mut items, mut lengths) = (Vec::new(), Vec::with_capacity(values.len()));
    for value in values {
        match value {
            None => lengths.push(0),
            Some(Value::List(_, inner) | Value::Array(_, inner)) => {
                lengths.push(inner.len());
                items.extend(inner.iter().map(present));
            }
            Some(other) => return Err(mismatch(ty, other)),
        }
    }
    Ok((items, lengths))
}

fn nulls(values: &[Cell<'_>]) -> Option<NullBuffer> {
    Some(values.iter().map(Option::is_some).collect())
}

fn json(value: &Value) -> String {
    let mut out = Vec::new();
    write_value(&mut out, value);
    String::from_utf8_lossy(&out).into_owned()
}

fn decimals(unscaled: Decimal128Array, precision: u32, scale: u32) -> Result<ArrayRef, EngineError> {
    let typed = unscaled.with_precision_and_scale(digits(precision), places(scale));
    Ok(Arc::new(typed.map_err(unfit)?))
}

/// The unscaled value with `to` places instead of `from`.
fn rescaled(mantissa: i128, from: u32, to: u32) -> Result<i128, EngineError> {
    let factor = 10_i128.checked_pow(from.abs_diff(to));
    let value = match factor {
        Some(factor) if from <= to => mantissa.checked_mul(factor),
        Some(factor) => (mantissa % factor == 0).then_some(mantissa / factor),
        None => None,
    };
    value.ok_or_else(|| too_large("a decimal"))
}

fn since_1970(at: &OffsetDateTime, nanos_per_unit: i128) -> Result<i64, EngineError> {
    fits(at.unix_timestamp_nanos().div_euclid(nanos_per_unit))
}

fn fits(value: i128) -> Result<i64, EngineError> {
    i64::try_from(value).map_err(|_| too_large("a time"))
}

fn too_large(what: &str) -> EngineError {
    EngineError::Runtime {
        message: format!("{what} of the result has no place in its Arrow type; cast it to STRING in the query"),
    }
}

fn mismatch(ty: &LogicalType, value: &Value) -> EngineError {
    EngineError::internal(format!(
        "a column of type {ty:?} has a value of type {:?}; cast it in the query",
        LogicalType::from(value)
    ))
}

fn unfit(error: ArrowError) -> EngineError {
    EngineError::Runtime {
        message: format!("the result has no Arrow form ({error}); ask for JSON, or cast it in the query"),
    }
}
