//! Rows of a DuckDB result as JSON arrays, written straight from Arrow memory. Forms are those of the graph side:
//! decimals as strings, blobs in base64, dates in ISO 8601, NaN and infinities as `null`.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::super::ladybug::value::{quoted, write_date, write_json, write_text, write_timestamp};

/// Appends row `row` of `batch` as a JSON array.
pub(crate) fn write_row(out: &mut Vec<u8>, batch: &RecordBatch, row: usize) {
    out.push(b'[');
    for (index, column) in batch.columns().iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_cell(out, column.as_ref(), row, Form::Answer);
    }
    out.push(b']');
}

/// Appends row `row` of `batch` as a JSON object.
pub(crate) fn write_object(out: &mut Vec<u8>, batch: &RecordBatch, row: usize) {
    write_named(out, batch, row, Form::Answer);
}

/// Longest line that DuckDB reads (its `maximum_object_size`), in bytes.
pub(super) const LONGEST_LINE: usize = 16 << 20;

/// Appends row `row` of `batch` as a line with a JSON object from which DuckDB reads the same values again. False if it is
/// too long, and of no use: a few bytes of Arrow can stand for a row without end, so it is not written to its end.
pub(super) fn write_line(out: &mut Vec<u8>, batch: &RecordBatch, row: usize) -> bool {
    let start = out.len();
    let end = start + LONGEST_LINE;
    write_named(out, batch, row, Form::Staging { end });
    out.push(b'\n');
    out.len() <= end
}

/// For whom values are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Callers: NaN and infinities are `null`.
    Answer,
    /// DuckDB, which reads them from texts. Nothing has to follow what is longer than `end`.
    Staging { end: usize },
}

impl Form {
    fn is_staging(self) -> bool {
        matches!(self, Self::Staging { .. })
    }

    fn is_full(self, out: &[u8]) -> bool {
        matches!(self, Self::Staging { end } if out.len() > end)
    }

    /// The text, or as much of it as is too long for a line.
    fn text(self, text: &str) -> &str {
        match self {
            Self::Answer => text,
            Self::Staging { .. } => &text[..text.floor_char_boundary(LONGEST_LINE + 4)],
        }
    }

    /// The bytes, or as many of them as are too long for a line.
    fn blob(self, bytes: &[u8]) -> &[u8] {
        match self {
            Self::Answer => bytes,
            Self::Staging { .. } => &bytes[..bytes.len().min(LONGEST_LINE)],
        }
    }
}

fn write_named(out: &mut Vec<u8>, batch: &RecordBatch, row: usize, form: Form) {
    out.push(b'{');
    for (index, (field, column)) in batch.schema().fields().iter().zip(batch.columns()).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_text(out, field.name());
        out.push(b':');
        write_cell(out, column.as_ref(), row, form);
    }
    out.push(b'}');
}

fn write_cell(out: &mut Vec<u8>, array: &dyn Array, row: usize, form: Form) {
    if form.is_full(out) {
        return;
    }
    if array.is_null(row) {
        return out.extend_from_slice(b"null");
    }
    match array.data_type() {
        DataType::Null => out.extend_from_slice(b"null"),
        DataType::Boolean => write_json(out, &array.as_boolean().value(row)),
        DataType::Int8 => write_json(out, &array.as_primitive::<Int8Type>().value(row)),
        DataType::Int16 => write_json(out, &array.as_primitive::<Int16Type>().value(row)),
        DataType::Int32 => write_json(out, &array.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => write_json(out, &array.as_primitive::<Int64Type>().value(row)),
        DataType::UInt8 => write_json(out, &array.as_primitive::<UInt8Type>().value(row)),
        DataType::UInt16 => write_json(out, &array.as_primitive::<UInt16Type>().value(row)),
        DataType::UInt32 => write_json(out, &array.as_primitive::<UInt32Type>().value(row)),
        DataType::UInt64 => write_json(out, &array.as_primitive::<UInt64Type>().value(row)),
        DataType::Float32 if form.is_staging() && !array.as_primitive::<Float32Type>().value(row).is_finite() => {
            quoted(out, format_args!("{}", array.as_primitive::<Float32Type>().value(row)));
        }
        DataType::Float64 if form.is_staging() && !array.as_primitive::<Float64Type>().value(row).is_finite() => {
            quoted(out, format_args!("{}", array.as_primitive::<Float64Type>().value(row)));
        }
        DataType::Float32 => write_json(out, &array.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => write_json(out, &array.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => write_text(out, form.text(array.as_string::<i32>().value(row))),
        DataType::LargeUtf8 => write_text(out, form.text(array.as_string::<i64>().value(row))),
        DataType::Utf8View => write_text(out, form.text(array.as_string_view().value(row))),
        DataType::Binary => write_blob(out, form.blob(array.as_binary::<i32>().value(row))),
        DataType::LargeBinary => write_blob(out, form.blob(array.as_binary::<i64>().value(row))),
        DataType::BinaryView => write_blob(out, form.blob(array.as_binary_view().value(row))),
        DataType::FixedSizeBinary(_) => write_blob(out, form.blob(array.as_fixed_size_binary().value(row))),
        DataType::Decimal128(precision, scale) => {
            let decimals = array.as_primitive::<Decimal128Type>();
            match i64::try_from(decimals.value(row)) {
                // Sums of whole numbers are 128 bits wide in DuckDB and arrive as decimals without a fraction.
                Ok(whole) if *precision == 38 && *scale == 0 => write_json(out, &whole),
                _ => quoted(out, format_args!("{}", decimals.value_as_string(row))),
            }
        }
        DataType::Date32 => write_days(out, array.as_primitive::<Date32Type>().value(row)),
        DataType::Timestamp(unit, zone) => {
            let (value, per_second) = match unit {
                TimeUnit::Second => (array.as_primitive::<TimestampSecondType>().value(row), 1),
                TimeUnit::Millisecond => (array.as_primitive::<TimestampMillisecondType>().value(row), 1_000),
                TimeUnit::Microsecond => (array.as_primitive::<TimestampMicrosecondType>().value(row), 1_000_000),
                TimeUnit::Nanosecond => (
                    array.as_primitive::<TimestampNanosecondType>().value(row),
                    1_000_000_000,
                ),
            };
            write_instant(out, value, per_second, zone.is_some());
        }
        DataType::List(_) => write_items(out, array.as_list::<i32>().value(row).as_ref(), form),
        DataType::LargeList(_) => write_items(out, array.as_list::<i64>().value(row).as_ref(), form),
        DataType::FixedSizeList(..) => write_items(out, array.as_fixed_size_list().value(row).as_ref(), form),
        DataType::Struct(fields) => {
            let values = array.as_struct();
            out.push(b'{');
            for (index, (field, column)) in fields.iter().zip(values.columns()).enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_text(out, field.name());
                out.push(b':');
                write_cell(out, column.as_ref(), row, form);
            }
            out.push(b'}');
        }
        DataType::Map(..) => write_map(out, array.as_map().value(row).columns(), form),
        DataType::Dictionary(..) => {
            // The keys of all rows are looked up together, so there had better be only one.
            let one = array.slice(row, 1);
            match one.as_any_dictionary_opt() {
                Some(dictionary) => {
                    write_cell(out, dictionary.values().as_ref(), dictionary.normalized_keys()[0], form)
                }
                None => out.extend_from_slice(b"null"),
            }
        }
        _ => {
            let text =
                ArrayFormatter::try_new(array, &FormatOptions::default()).map(|format| format.value(row).to_string());
            write_text(out, &text.unwrap_or_default());
        }
    }
}

fn write_items(out: &mut Vec<u8>, items: &dyn Array, form: Form) {
    out.push(b'[');
    for index in 0..items.len() {
        if form.is_full(out) {
            break;
        }
        if index > 0 {
            out.push(b',');
        }
        write_cell(out, items, index, form);
    }
    out.push(b']');
}

/// Keys become text, as JSON asks for.
fn write_map(out: &mut Vec<u8>, columns: &[arrow::array::ArrayRef], form: Form) {
    out.push(b'{');
    if let [keys, values] = columns {
        for index in 0..keys.len() {
            if form.is_full(out) {
                break;
            }
            if index > 0 {
                out.push(b',');
            }
            let start = out.len();
            write_cell(out, keys.as_ref(), index, form);
            if out.get(start) != Some(&b'"') {
                let key = String::from_utf8_lossy(&out[start..]).into_owned();
                out.truncate(start);
                write_text(out, &key);
            }
            out.push(b':');
            write_cell(out, values.as_ref(), index, form);
        }
    }
    out.push(b'}');
}

fn write_blob(out: &mut Vec<u8>, bytes: &[u8]) {
    quoted(out, format_args!("{}", BASE64.encode(bytes)));
}

fn write_days(out: &mut Vec<u8>, days: i32) {
    let epoch = time::OffsetDateTime::UNIX_EPOCH.date();
    match epoch.checked_add(time::Duration::days(i64::from(days))) {
        Some(date) => {
            out.push(b'"');
            write_date(out, date);
            out.push(b'"');
        }
        None => quoted(
            out,
            format_args!("{}", beyond(i64::from(days), i64::from(i32::MAX), "days")),
        ),
    }
}

fn write_instant(out: &mut Vec<u8>, value: i64, per_second: i64, zoned: bool) {
    let nanos = i128::from(value) * i128::from(1_000_000_000 / per_second);
    match time::OffsetDateTime::from_unix_timestamp_nanos(nanos) {
        Ok(at) => write_timestamp(out, at, if zoned { "+00:00" } else { "" }),
        Err(_) => quoted(out, format_args!("{}", beyond(value, i64::MAX, "units"))),
    }
}

/// DuckDB has dates that are infinitely far away, and dates outside of four-digit years.
fn beyond(value: i64, infinity: i64, unit: &str) -> String {
    if value == infinity {
        "infinity".into()
    } else if value == -infinity {
        "-infinity".into()
    } else {
        format!("1970-01-01 + {value} {unit}")
    }
}
