//! Parameters whose type the caller names, because JSON has no form of its own for it: dates, decimals, bytes, maps.
//!
//! Values are written as in results. Most are made into engine values of exactly the type; decimals and intervals travel
//! as text, and the statement casts them: the binding gives decimals the wrong precision and takes months for 30 days.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::civil;
use lbug::{LogicalType, Value};
use serde_json::Value as Json;
use time::OffsetDateTime;

use super::super::error::EngineError;
use super::super::type_names::{Type, parse};
use super::guard::NO_COLLECTED_DECIMALS;
use super::tokens::{TokenKind, tokenize};

/// The declared types of a statement's parameters, by name.
pub type ParameterTypes = BTreeMap<String, String>;

const EXPECTED: &str = "is not a type of a parameter: BOOL, INT8 to INT128, UINT8 to UINT64, FLOAT, DOUBLE, STRING, BLOB, \
                        UUID, DATE, TIMESTAMP, TIMESTAMP_TZ, TIMESTAMP_NS, TIMESTAMP_MS, TIMESTAMP_SEC, INTERVAL, \
                        DECIMAL(p, s), T[], T[n], STRUCT(name T, …), MAP(K, V)";

/// A type that a caller has declared, and what is sent for it.
pub(super) struct Declared {
    ty: Type,
    carrier: LogicalType,
}

impl Declared {
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, EngineError> {
        let refuse = || EngineError::invalid(format!("parameter_types.{name}"), format!("{text:?} {EXPECTED}"));
        let ty = parse(text).ok_or_else(refuse)?;
        if ty.collects_decimals() {
            return Err(EngineError::invalid(
                format!("parameter_types.{name}"),
                format!("{text:?}: {NO_COLLECTED_DECIMALS}"),
            ));
        }
        let carrier = carrier(&ty).ok_or_else(refuse)?;
        Ok(Self { ty, carrier })
    }

    /// The engine's value for a JSON value. A NULL that would have to be cast has no type instead: the engine gives it
    /// the one that its place asks for, and refuses to cast it.
    pub(super) fn value(&self, path: &str, json: &Json) -> Result<Value, EngineError> {
        if json.is_null() && travels_as_text(&self.ty) {
            return Ok(Value::Null(LogicalType::Any));
        }
        convert(path, json, &self.ty, &self.carrier)
    }

    /// The type to which the statement must cast the value; `None` if it has its type already.
    pub(super) fn cast(&self, json: &Json) -> Option<String> {
        (travels_as_text(&self.ty) && !json.is_null()).then(|| self.ty.to_string())
    }
}

/// The text with every `$name` that has a cast as `CAST($name AS type)`.
pub(super) fn with_casts(text: &str, casts: &[(String, String)]) -> String {
    // The guard has read the text before, so it has tokens.
    let Ok(tokens) = tokenize(text) else {
        return text.to_owned();
    };
    let (mut out, mut written) = (String::with_capacity(text.len() + 32 * casts.len()), 0);
    for pair in tokens.windows(2) {
        let [dollar, name] = pair else { continue };
        let adjacent = dollar.is_symbol('$') && name.kind == TokenKind::Word && name.start == dollar.start + 1;
        let Some((_, ty)) = casts.iter().find(|(known, _)| adjacent && known == name.text) else {
            continue;
        };
        let end = name.start + name.text.len();
        out.push_str(&text[written..dollar.start]);
        out.push_str(&format!("CAST({} AS {ty})", &text[dollar.start..end]));
        written = end;
    }
    out.push_str(&text[written..]);
    out
}

fn travels_as_text(ty: &Type) -> bool {
    match ty {
        Type::Base(name) => name == "INTERVAL",
        Type::Decimal(..) => true,
        Type::List(element) | Type::Array(element, _) => travels_as_text(element),
        Type::Struct(fields) => fields.iter().any(|(_, ty)| travels_as_text(ty)),
        Type::Map(key, value) => travels_as_text(key) || travels_as_text(value),
    }
}

/// The type of the values that are sent; `None` if there is no such type.
fn carrier(ty: &Type) -> Option<LogicalType> {
    let boxed = |ty: &Type| carrier(ty).map(Box::new);
    Some(match ty {
        Type::Base(name) => match name.as_str() {
            "BOOL" | "BOOLEAN" => LogicalType::Bool,
            "INT64" => LogicalType::Int64,
            "INT32" => LogicalType::Int32,
            "INT16" => LogicalType::Int16,
            "INT8" => LogicalType::Int8,
            "UINT64" => LogicalType::UInt64,
            "UINT32" => LogicalType::UInt32,
            "UINT16" => LogicalType::UInt16,
            "UINT8" => LogicalType::UInt8,
            "INT128" => LogicalType::Int128,
            "DOUBLE" => LogicalType::Double,
            "FLOAT" => LogicalType::Float,
            "STRING" | "INTERVAL" => LogicalType::String,
            "BLOB" => LogicalType::Blob,
            "UUID" => LogicalType::UUID,
            "DATE" => LogicalType::Date,
            "TIMESTAMP" => LogicalType::Timestamp,
            "TIMESTAMP_TZ" => LogicalType::TimestampTz,
            "TIMESTAMP_NS" => LogicalType::TimestampNs,
            "TIMESTAMP_MS" => LogicalType::TimestampMs,
            "TIMESTAMP_SEC" => LogicalType::TimestampSec,
            _ => return None,
        },
        Type::Decimal(precision, scale) => {
            let (precision, scale): (u32, u32) = (precision.parse().ok()?, scale.parse().ok()?);
            ((1..=38).contains(&precision) && scale <= precision).then_some(LogicalType::String)?
        }
        Type::List(element) => LogicalType::List {
            child_type: boxed(element)?,
        },
        Type::Array(element, length) => LogicalType::Array {
            child_type: boxed(element)?,
            num_elements: length.parse().ok().filter(|length| *length > 0)?,
        },
        Type::Struct(fields) => LogicalType::Struct {
            fields: fields
                .iter()
                .map(|(name, ty)| Some((name.clone(), carrier(ty)?)))
                .collect::<Option<_>>()?,
        },
        Type::Map(key, value) => LogicalType::Map {
            key_type: boxed(key)?,
            value_type: boxed(value)?,
        },
    })
}

fn convert(path: &str, json: &Json, ty: &Type, carrier: &LogicalType) -> Result<Value, EngineError> {
    let wrong = || EngineError::invalid(path, format!("is {}, which is no {ty}", kind(json)));
    if json.is_null() {
        return Ok(Value::Null(carrier.clone()));
    }
    let text = || json.as_str().ok_or_else(wrong);
    Ok(match (ty, carrier) {
        (Type::Base(name), LogicalType::String) if name == "INTERVAL" => {
            Value::String(interval(text()?).ok_or_else(wrong)?)
        }
        (Type::Decimal(..), _) => Value::String(match json {
            Json::Number(number) => number.to_string(),
            _ => text()?.to_owned(),
        }),
        (_, LogicalType::Bool) => Value::Bool(json.as_bool().ok_or_else(wrong)?),
        (_, LogicalType::Int64) => Value::Int64(integer(json).ok_or_else(wrong)?),
        (_, LogicalType::Int32) => Value::Int32(integer(json).ok_or_else(wrong)?),
        (_, LogicalType::Int16) => Value::Int16(integer(json).ok_or_else(wrong)?),
        (_, LogicalType::Int8) => Value::Int8(integer(json).ok_or_else(wrong)?),
        (_, LogicalType::UInt64) => Value::UInt64(integer(json).ok_or_else(wrong)?),
        (_, LogicalType::UInt32) => Value::UInt32(integer(json).ok_or_else(wrong)?),
        (_, LogicalType::UInt16) => Value::UInt16(integer(json).ok_or_else(wrong)?),
        (_, LogicalType::UInt8) => Value::UInt8(integer(json).ok_or_else(wrong)?),
        (_, LogicalType::Int128) => Value::Int128(integer(json).ok_or_else(wrong)?),
        (_, LogicalType::Double) => Value::Double(real(json).ok_or_else(wrong)?),
        (_, LogicalType::Float) => Value::Float(real(json).ok_or_else(wrong)? as f32),
        (_, LogicalType::String) => Value::String(text()?.to_owned()),
        (_, LogicalType::Blob) => Value::Blob(BASE64.decode(text()?).map_err(|_| wrong())?),
        (_, LogicalType::UUID) => Value::UUID(text()?.parse().map_err(|_| wrong())?),
        (_, LogicalType::Date) => Value::Date(date(text()?).ok_or_else(wrong)?),
        (_, LogicalType::Timestamp) => Value::Timestamp(local(text()?).ok_or_else(wrong)?),
        (_, LogicalType::TimestampNs) => Value::TimestampNs(local(text()?).ok_or_else(wrong)?),
        (_, LogicalType::TimestampMs) => Value::TimestampMs(local(text()?).ok_or_else(wrong)?),
        (_, LogicalType::TimestampSec) => Value::TimestampSec(local(text()?).ok_or_else(wrong)?),
        (_, LogicalType::TimestampTz) => Value::TimestampTz(instant(text()?).ok_or_else(wrong)?),
        (Type::List(element), LogicalType::List { child_type }) => Value::List(
            (**child_type).clone(),
            items(path, json, element, child_type)?.ok_or_else(wrong)?,
        ),
        (Type::Array(element, length), LogicalType::Array { child_type, .. }) => {
            let items = items(path, json, element, child_type)?.ok_or_else(wrong)?;
            if *length != items.len().to_string() {
                return Err(EngineError::invalid(
                    path,
                    format!("has {} items, and is a {ty}", items.len()),
                ));
            }
            Value::Array((**child_type).clone(), items)
        }
        (Type::Struct(fields), LogicalType::Struct { fields: carriers }) => {
            let object = json.as_object().ok_or_else(wrong)?;
            if let Some(unknown) = object.keys().find(|key| !fields.iter().any(|(name, _)| name == *key)) {
                return Err(EngineError::invalid(
                    format!("{path}.{unknown}"),
                    format!("is no field of {ty}"),
                ));
            }
            let field = |((name, ty), (_, carrier)): (&(String, Type), &(String, LogicalType))| {
                let json = object.get(name).unwrap_or(&Json::Null);
                Ok((name.clone(), convert(&format!("{path}.{name}"), json, ty, carrier)?))
            };
            Value::Struct(
                fields
                    .iter()
                    .zip(carriers)
                    .map(field)
                    .collect::<Result<_, EngineError>>()?,
            )
        }
        (
            Type::Map(key, value),
            LogicalType::Map {
                key_type: key_carrier,
                value_type: value_carrier,
            },
        ) => {
            let entry = |(index, (name, item)): (usize, (Json, &Json))| {
                let path = format!("{path}[{index}]");
                if name.is_null() {
                    return Err(EngineError::invalid(path, "has no key"));
                }
                Ok((
                    convert(&path, &name, key, key_carrier)?,
                    convert(&path, item, value, value_carrier)?,
                ))
            };
            let pairs = pairs(json).ok_or_else(wrong)?;
            let types = ((**key_carrier).clone(), (**value_carrier).clone());
            Value::Map(
                types,
                pairs.into_iter().enumerate().map(entry).collect::<Result<_, _>>()?,
            )
        }
        _ => return Err(wrong()),
    })
}

fn kind(json: &Json) -> String {
    match json {
        Json::Null => "null".into(),
        Json::Bool(_) => "a boolean".into(),
        Json::Number(number) => number.to_string(),
        Json::String(text) => format!("{:?}", text.chars().take(60).collect::<String>()),
        Json::Array(_) => "a list".into(),
        Json::Object(_) => "an object".into(),
    }
}

/// A whole number, also as text: JSON readers lose digits beyond 2^53.
fn integer<T: TryFrom<i128>>(json: &Json) -> Option<T> {
    let value = match json {
        Json::Number(number) => number
            .as_i64()
            .map(i128::from)
            .or_else(|| number.as_u64().map(i128::from)),
        Json::String(text) => text.parse().ok(),
        _ => None,
    };
    T::try_from(value?).ok()
}

/// A number, also as text, which may be `NaN`, `inf` or `-inf`.
fn real(json: &Json) -> Option<f64> {
    match json {
        Json::Number(number) => number.as_f64(),
        Json::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn date(text: &str) -> Option<time::Date> {
    let date: civil::Date = text.parse().ok()?;
    // A text with a time is one, too, for the parser; here it would be lost.
    if text.contains([':', 'T', ' ']) {
        return None;
    }
    let month = u8::try_from(date.month()).ok()?;
    let day = u8::try_from(date.day()).ok()?;
    time::Date::from_calendar_date(i32::from(date.year()), time::Month::try_from(month).ok()?, day).ok()
}

/// A time without a zone.
fn local(text: &str) -> Option<OffsetDateTime> {
    let at: civil::DateTime = text.parse().ok()?;
    moment(at.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
}

/// A time with its offset from UTC.
fn instant(text: &str) -> Option<OffsetDateTime> {
    moment(text.parse().ok()?)
}

fn moment(at: jiff::Timestamp) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(at.as_nanosecond()).ok()
}

/// The engine's words for an interval in ISO 8601; other texts are left to the engine. `None` for a negative one, for
/// which it has no words.
fn interval(text: &str) -> Option<String> {
    if !text.starts_with(['P', 'p', '+', '-']) {
        return Some(text.to_owned());
    }
    let span: jiff::Span = text.parse().ok()?;
    if span.is_negative() {
        return None;
    }
    let micros = span.get_milliseconds() * 1000 + span.get_microseconds();
    let parts = [
        (i64::from(span.get_years()), "years"),
        (i64::from(span.get_months()), "months"),
        (i64::from(span.get_weeks()) * 7 + i64::from(span.get_days()), "days"),
        (i64::from(span.get_hours()), "hours"),
        (span.get_minutes(), "minutes"),
        (span.get_seconds(), "seconds"),
        (micros, "microseconds"),
    ];
    let words: Vec<String> = parts
        .into_iter()
        .filter(|(count, _)| *count != 0)
        .map(|(count, unit)| format!("{count} {unit}"))
        .collect();
    Some(if words.is_empty() {
        "0 days".into()
    } else {
        words.join(" ")
    })
}

fn items(path: &str, json: &Json, ty: &Type, carrier: &LogicalType) -> Result<Option<Vec<Value>>, EngineError> {
    let Some(items) = json.as_array() else {
        return Ok(None);
    };
    let item = |(index, item): (usize, &Json)| convert(&format!("{path}[{index}]"), item, ty, carrier);
    items.iter().enumerate().map(item).collect::<Result<_, _>>().map(Some)
}

/// The entries of a map: an object, or a list of `{"key": …, "value": …}`.
fn pairs(json: &Json) -> Option<Vec<(Json, &Json)>> {
    match json {
        Json::Object(fields) => Some(
            fields
                .iter()
                .map(|(key, value)| (Json::String(key.clone()), value))
                .collect(),
        ),
        Json::Array(items) => items
            .iter()
            .map(|item| {
                let entry = item.as_object().filter(|entry| entry.len() == 2)?;
                Some((entry.get("key")?.clone(), entry.get("value")?))
            })
            .collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;
    use time::macros::{date, datetime};

    fn one(ty: &str, value: Json) -> Result<Value, EngineError> {
        Declared::parse("p", ty)?.value("parameters.p", &value)
    }

    #[test]
    fn texts_become_values_of_the_type() {
        for (ty, value, expected) in [
            ("INT8", json!(-5), Value::Int8(-5)),
            ("int64", json!("9007199254740993"), Value::Int64(9_007_199_254_740_993)),
            ("UINT64", json!("18446744073709551615"), Value::UInt64(u64::MAX)),
            (
                "INT128",
                json!("-99999999999999999999"),
                Value::Int128(-99_999_999_999_999_999_999),
            ),
            ("FLOAT", json!(1), Value::Float(1.0)),
            ("DOUBLE", json!("-inf"), Value::Double(f64::NEG_INFINITY)),
            ("STRING", json!("x"), Value::String("x".into())),
            ("BLOB", json!("AP8="), Value::Blob(vec![0, 255])),
            ("DATE", json!("2020-02-29"), Value::Date(date!(2020 - 02 - 29))),
            (
                "TIMESTAMP",
                json!("2020-02-29T01:02:03.5"),
                Value::Timestamp(datetime!(2020-02-29 01:02:03.5 UTC)),
            ),
            (
                "TIMESTAMP_NS",
                json!("2020-02-29 01:02:03"),
                Value::TimestampNs(datetime!(2020-02-29 01:02:03 UTC)),
            ),
            (
                "TIMESTAMP_TZ",
                json!("2020-02-29T01:02:03+02:00"),
                Value::TimestampTz(datetime!(2020-02-28 23:02:03 UTC)),
            ),
            ("DECIMAL(4, 2)", json!("-0.05"), Value::String("-0.05".into())),
            ("INTERVAL", json!("P1DT2H0M0S"), Value::String("1 days 2 hours".into())),
            ("INTERVAL", json!("1 month"), Value::String("1 month".into())),
            (
                "BLOB[]",
                json!(null),
                Value::Null(LogicalType::List {
                    child_type: Box::new(LogicalType::Blob),
                }),
            ),
            ("INT64[]", json!([]), Value::List(LogicalType::Int64, vec![])),
            (
                "MAP(INT64, STRING)",
                json!({"1": "x"}),
                Value::Map(
                    (LogicalType::Int64, LogicalType::String),
                    vec![(Value::Int64(1), "x".into())],
                ),
            ),
            (
                "STRUCT(a DATE, b INT64[])[]",
                json!([{"b": [1]}]),
                Value::List(
                    carrier(&parse("STRUCT(a DATE, b INT64[])").unwrap()).unwrap(),
                    vec![Value::Struct(vec![
                        ("a".into(), Value::Null(LogicalType::Date)),
                        ("b".into(), Value::List(LogicalType::Int64, vec![Value::Int64(1)])),
                    ])],
                ),
            ),
        ] {
            assert_eq!(one(ty, value.clone()).unwrap(), expected, "{ty} {value}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_path() {
        for (ty, value, path) in [
            ("INT8", json!(128), "parameters.p"),
            ("INT64", json!(1.5), "parameters.p"),
            ("UINT8[]", json!([1, -1]), "parameters.p[1]"),
            ("BLOB", json!("no base64"), "parameters.p"),
            ("DATE", json!("2020-02-30"), "parameters.p"),
            ("DATE", json!("2020-02-29T01:00:00"), "parameters.p"),
            ("TIMESTAMP_TZ", json!("2020-02-29T01:00:00"), "parameters.p"),
            ("FLOAT[2]", json!([1]), "parameters.p"),
            ("STRUCT(a INT64)", json!({"b": 1}), "parameters.p.b"),
            ("STRUCT(a INT64[])", json!({"a": [true]}), "parameters.p.a[0]"),
            (
                "MAP(STRING, INT64)",
                json!([{"key": null, "value": 1}]),
                "parameters.p[0]",
            ),
            ("DECIMAL(4, 2)", json!(true), "parameters.p"),
            ("INTERVAL", json!("-P1M"), "parameters.p"),
        ] {
            match one(ty, value.clone()) {
                Err(EngineError::Invalid { field, .. }) => assert_eq!(field, path, "{ty} {value}"),
                other => panic!("{ty} {value}: {other:?}"),
            }
        }
        for unknown in [
            "NODE",
            "DECIMAL(39, 0)",
            "DECIMAL(2, 3)",
            "DECIMAL(x, y)",
            "INT64[0]",
            "UNION(a INT64)",
            "",
            "INT64) OR (",
        ] {
            assert!(Declared::parse("p", unknown).is_err(), "{unknown}");
        }
    }

    #[test]
    fn only_the_parameter_itself_is_cast() {
        let casts = [("d".to_owned(), "DECIMAL(4, 2)".to_owned())];
        assert_eq!(
            with_casts("RETURN $d, $dd, '$d', `$d` /* $d */ + $d", &casts),
            "RETURN CAST($d AS DECIMAL(4, 2)), $dd, '$d', `$d` /* $d */ + CAST($d AS DECIMAL(4, 2))"
        );
        let declared = Declared::parse("p", "STRUCT(`a b` DECIMAL(4,2), c MAP(STRING, INTERVAL))").unwrap();
        assert_eq!(
            declared.cast(&json!({})).as_deref(),
            Some("STRUCT(`a b` DECIMAL(4, 2), `c` MAP(STRING, INTERVAL))")
        );
        assert_eq!(Declared::parse("p", "DATE[]").unwrap().cast(&json!([])), None);
    }
}
