//! Engine values as JSON, written straight into a byte buffer.
//!
//! The forms are those that clients of the existing service know: nodes with `_ID` and `_LABEL`, 128-bit integers and
//! decimals as strings, dates in ISO 8601. JSON has no NaN and no infinity: they become `null`.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lbug::{InternalID, NodeVal, RelVal, Value};

/// The names of a result's columns as JSON keys, made once per statement and copied once per row.
pub(crate) struct RowKeys(Vec<Box<[u8]>>);

impl RowKeys {
    pub(crate) fn new(columns: &[String]) -> Self {
        let keys = columns.iter().enumerate().map(|(index, name)| {
            let mut key = Vec::with_capacity(name.len() + 4);
            key.push(if index == 0 { b'{' } else { b',' });
            write_text(&mut key, name);
            key.push(b':');
            key.into_boxed_slice()
        });
        Self(keys.collect())
    }
}

/// Appends one row as a JSON object.
pub(crate) fn write_row(out: &mut Vec<u8>, keys: &RowKeys, row: &[Value]) {
    if keys.0.is_empty() {
        out.push(b'{');
    }
    for (key, value) in keys.0.iter().zip(row) {
        out.extend_from_slice(key);
        write_value(out, value);
    }
    out.push(b'}');
}

/// Appends one value.
pub(crate) fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null(_) => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int64(n) => write_json(out, n),
        Value::Int32(n) => write_json(out, n),
        Value::Int16(n) => write_json(out, n),
        Value::Int8(n) => write_json(out, n),
        Value::UInt64(n) => write_json(out, n),
        Value::UInt32(n) => write_json(out, n),
        Value::UInt16(n) => write_json(out, n),
        Value::UInt8(n) => write_json(out, n),
        // serde_json writes NaN and infinities as null.
        Value::Double(n) => write_json(out, n),
        Value::Float(n) => write_json(out, n),
        Value::Int128(n) => quoted(out, format_args!("{n}")),
        Value::Decimal(n) => quoted(out, format_args!("{n}")),
        Value::UUID(id) => quoted(out, format_args!("{id}")),
        Value::String(text) => write_text(out, text),
        Value::Json(json) => write_json(out, json),
        Value::Blob(bytes) => quoted(out, format_args!("{}", BASE64.encode(bytes))),
        Value::Date(date) => {
            out.push(b'"');
            write_date(out, *date);
            out.push(b'"');
        }
        Value::Timestamp(at) | Value::TimestampNs(at) | Value::TimestampMs(at) | Value::TimestampSec(at) => {
            write_timestamp(out, *at, "");
        }
        Value::TimestampTz(at) => write_timestamp(out, *at, "+00:00"),
        Value::Interval(duration) => write_interval(out, *duration),
        Value::InternalID(id) => write_id(out, id),
        Value::List(_, items) | Value::Array(_, items) => write_list(out, items, write_value),
        Value::Struct(fields) => {
            out.push(b'{');
            for (index, (name, value)) in fields.iter().enumerate() {
                write_key(out, index == 0, name);
                write_value(out, value);
            }
            out.push(b'}');
        }
        Value::Map(_, entries) => write_map(out, entries),
        Value::Union { value, .. } => write_value(out, value),
        Value::Node(node) => write_node(out, node),
        Value::Rel(rel) => write_rel(out, rel),
        Value::RecursiveRel { nodes, rels } => {
            out.extend_from_slice(b"{\"_NODES\":");
            write_list(out, nodes, write_node);
            out.extend_from_slice(b",\"_RELS\":");
            write_list(out, rels, write_rel);
            out.push(b'}');
        }
    }
}

fn write_list<T>(out: &mut Vec<u8>, items: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

/// A map becomes an object if its keys have a text form, else a list of `{key, value}`.
fn write_map(out: &mut Vec<u8>, entries: &[(Value, Value)]) {
    let plain = |key: &Value| {
        !matches!(
            key,
            Value::Null(_)
                | Value::List(..)
                | Value::Array(..)
                | Value::Struct(_)
                | Value::Map(..)
                | Value::Node(_)
                | Value::Rel(_)
                | Value::RecursiveRel { .. }
                | Value::InternalID(_)
                | Value::Json(_)
                | Value::Union { .. }
        )
    };
    if !entries.iter().all(|(key, _)| plain(key)) {
        return write_list(out, entries, |out, (key, value)| {
            out.extend_from_slice(b"{\"key\":");
            write_value(out, key);
            out.extend_from_slice(b",\"value\":");
            write_value(out, value);
            out.push(b'}');
        });
    }
    out.push(b'{');
    for (index, (key, value)) in entries.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let start = out.len();
        write_value(out, key);
        if out.get(start) != Some(&b'"') {
            out.insert(start, b'"');
            out.push(b'"');
        }
        out.push(b':');
        write_value(out, value);
    }
    out.push(b'}');
}

fn write_node(out: &mut Vec<u8>, node: &NodeVal) {
    out.extend_from_slice(b"{\"_ID\":");
    write_id(out, node.get_node_id());
    out.extend_from_slice(b",\"_LABEL\":");
    write_text(out, node.get_label_name());
    write_properties(out, node.get_properties());
}

fn write_rel(out: &mut Vec<u8>, rel: &RelVal) {
    out.extend_from_slice(b"{\"_SRC\":");
    write_id(out, rel.get_src_node());
    out.extend_from_slice(b",\"_DST\":");
    write_id(out, rel.get_dst_node());
    out.extend_from_slice(b",\"_LABEL\":");
    write_text(out, rel.get_label_name());
    write_properties(out, rel.get_properties());
}

fn write_properties(out: &mut Vec<u8>, properties: &[(String, Value)]) {
    for (name, value) in properties {
        write_key(out, false, name);
        write_value(out, value);
    }
    out.push(b'}');
}

fn write_id(out: &mut Vec<u8>, id: &InternalID) {
    out.extend_from_slice(b"{\"offset\":");
    write_json(out, &id.offset);
    out.extend_from_slice(b",\"table\":");
    write_json(out, &id.table_id);
    out.push(b'}');
}

fn write_key(out: &mut Vec<u8>, first: bool, name: &str) {
    if !first {
        out.push(b',');
    }
    write_text(out, name);
    out.push(b':');
}

pub(crate) fn write_date(out: &mut Vec<u8>, date: time::Date) {
    let (year, month, day) = date.to_calendar_date();
    let sign = if year < 0 { "-" } else { "" };
    put(
        out,
        format_args!("{sign}{:04}-{:02}-{day:02}", year.unsigned_abs(), u8::from(month)),
    );
}

pub(crate) fn write_timestamp(out: &mut Vec<u8>, at: time::OffsetDateTime, zone: &str) {
    out.push(b'"');
    write_date(out, at.date());
    let (hour, minute, second, nanos) = at.to_hms_nano();
    put(out, format_args!("T{hour:02}:{minute:02}:{second:02}"));
    if nanos % 1000 != 0 {
        put(out, format_args!(".{nanos:09}"));
    } else if nanos != 0 {
        put(out, format_args!(".{:06}", nanos / 1000));
    }
    out.extend_from_slice(zone.as_bytes());
    out.push(b'"');
}

/// ISO 8601 in days and less: the engine's binding has turned months into 30 days already.
fn write_interval(out: &mut Vec<u8>, duration: time::Duration) {
    out.push(b'"');
    if duration.is_negative() {
        out.push(b'-');
    }
    let seconds = duration.whole_seconds().unsigned_abs();
    let micros = duration.subsec_microseconds().unsigned_abs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    put(
        out,
        format_args!("P{days}DT{}H{}M{}", rest / 3600, rest % 3600 / 60, rest % 60),
    );
    if micros != 0 {
        put(out, format_args!(".{micros:06}"));
    }
    out.extend_from_slice(b"S\"");
}

/// Writes something whose JSON form cannot fail: a number, a string, a parsed document.
pub(crate) fn write_json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let start = out.len();
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
}

pub(crate) fn write_text(out: &mut Vec<u8>, text: &str) {
    write_json(out, text);
}

pub(crate) fn quoted(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.push(b'"');
    put(out, text);
    out.push(b'"');
}

pub(crate) fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a vector does not fail.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use lbug::LogicalType;
    use time::macros::{date, datetime};

    fn json(value: &Value) -> String {
        let mut out = Vec::new();
        write_value(&mut out, value);
        let text = String::from_utf8(out).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        text
    }

    #[test]
    fn scalars_have_their_contract_forms() {
        for (value, expected) in [
            (Value::Null(LogicalType::Any), "null"),
            (Value::Bool(true), "true"),
            (Value::Int64(i64::MAX), "9223372036854775807"),
            (Value::UInt64(u64::MAX), "18446744073709551615"),
            (
                Value::Int128(-170_141_183_460_469_231_731_687_303_715_884_105_728),
                "\"-170141183460469231731687303715884105728\"",
            ),
            (Value::Double(f64::NAN), "null"),
            (Value::Double(f64::NEG_INFINITY), "null"),
            (Value::Float(f32::INFINITY), "null"),
            (Value::Float(0.1), "0.1"),
            (Value::Double(1.0), "1.0"),
            (Value::String("a\"\n\u{1}é".into()), "\"a\\\"\\n\\u0001é\""),
            (Value::Blob(vec![0, 255]), "\"AP8=\""),
            (Value::Date(date!(2020 - 01 - 02)), "\"2020-01-02\""),
            (
                Value::Timestamp(datetime!(2020-01-02 03:04:05 UTC)),
                "\"2020-01-02T03:04:05\"",
            ),
            (
                Value::Timestamp(datetime!(2020-01-02 03:04:05.000_120 UTC)),
                "\"2020-01-02T03:04:05.000120\"",
            ),
            (
                Value::TimestampNs(datetime!(2020-01-02 03:04:05.000_000_007 UTC)),
                "\"2020-01-02T03:04:05.000000007\"",
            ),
            (
                Value::TimestampTz(datetime!(2020-01-02 03:04:05 UTC)),
                "\"2020-01-02T03:04:05+00:00\"",
            ),
            (Value::Interval(time::Duration::seconds(90_061)), "\"P1DT1H1M1S\""),
            (
                Value::Interval(time::Duration::milliseconds(-1500)),
                "\"-P0DT0H0M1.500000S\"",
            ),
            (
                Value::UUID("69a32ad7-657e-42fb-aa55-4cadb818ba0a".parse().unwrap()),
                "\"69a32ad7-657e-42fb-aa55-4cadb818ba0a\"",
            ),
            (Value::Json(serde_json::json!({"a": [1]})), "{\"a\":[1]}"),
        ] {
            assert_eq!(json(&value), expected);
        }
    }

    #[test]
    fn nested_values_have_their_contract_forms() {
        let list = Value::List(
            LogicalType::Int64,
            vec![Value::Int64(1), Value::Null(LogicalType::Int64)],
        );
        assert_eq!(json(&list), "[1,null]");
        assert_eq!(
            json(&Value::Struct(vec![("a b".into(), list.clone())])),
            "{\"a b\":[1,null]}"
        );
        assert_eq!(json(&Value::Struct(vec![])), "{}");
        let types = (LogicalType::Int64, LogicalType::String);
        assert_eq!(
            json(&Value::Map(types.clone(), vec![(Value::Int64(1), "x".into())])),
            "{\"1\":\"x\"}"
        );
        assert_eq!(
            json(&Value::Map(types.clone(), vec![("k".into(), "x".into())])),
            "{\"k\":\"x\"}"
        );
        assert_eq!(
            json(&Value::Map(types, vec![(list, "x".into())])),
            "[{\"key\":[1,null],\"value\":\"x\"}]"
        );
    }

    #[test]
    fn nodes_and_relationships_carry_their_identity() {
        let mut node = NodeVal::new((3, 1), "Person");
        node.add_property("name", "x");
        assert_eq!(
            json(&Value::Node(node.clone())),
            r#"{"_ID":{"offset":3,"table":1},"_LABEL":"Person","name":"x"}"#
        );
        let rel = RelVal::new((0, 1), (2, 1), "Knows");
        let expected = r#"{"_SRC":{"offset":0,"table":1},"_DST":{"offset":2,"table":1},"_LABEL":"Knows"}"#;
        assert_eq!(json(&Value::Rel(rel.clone())), expected);
        let path = Value::RecursiveRel {
            nodes: vec![node],
            rels: vec![rel],
        };
        assert!(json(&path).starts_with(r#"{"_NODES":[{"_ID""#));
    }

    #[test]
    fn rows_are_objects_with_escaped_keys() {
        let keys = RowKeys::new(&["a\"b".into(), "n".into()]);
        let mut out = Vec::new();
        write_row(&mut out, &keys, &[Value::Int64(1), Value::Bool(false)]);
        assert_eq!(String::from_utf8(out).unwrap(), "{\"a\\\"b\":1,\"n\":false}");
        let mut out = Vec::new();
        write_row(&mut out, &RowKeys::new(&[]), &[]);
        assert_eq!(out, b"{}");
    }
}
