//! The protobuf form of built-in kinds. kubectl sends it for commands with types of its own, such as `create secret` and
//! `auth can-i`; it is read here and never written, since every client that sends it accepts JSON.

mod messages;

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value};

use messages::{Field, Kind};

/// What a Kubernetes object in protobuf begins with.
const MAGIC: &[u8] = b"k8s\0";

/// Reads an object of a built-in kind, of the reviews of `authorization.k8s.io` and `authentication.k8s.io`, or
/// `DeleteOptions`, from the protobuf form of Kubernetes (`application/vnd.kubernetes.protobuf`).
///
/// # Errors
/// A sentence for a 400 answer: the bytes are no such object, or its kind has no protobuf form (custom resources have
/// none).
pub fn decode_protobuf(bytes: &[u8]) -> Result<Value, String> {
    let envelope = bytes
        .strip_prefix(MAGIC)
        .ok_or("the body does not have the protobuf form of Kubernetes: its prefix is missing")?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for (number, value) in Reader(envelope).fields()? {
        match (number, value) {
            (1, Raw::Bytes(type_meta)) => {
                for (number, value) in Reader(type_meta).fields()? {
                    match (number, value) {
                        (1, Raw::Bytes(text)) => api_version = utf8(text)?,
                        (2, Raw::Bytes(text)) => kind = utf8(text)?,
                        _ => {}
                    }
                }
            }
            (2, Raw::Bytes(object)) => raw = object,
            (3, Raw::Bytes(encoding)) if !encoding.is_empty() => {
                return Err("encoded protobuf bodies are not supported".to_owned());
            }
            _ => {}
        }
    }
    let fields = messages::of(&api_version, &kind)
        .ok_or_else(|| format!("{kind:?} in version {api_version:?} has no protobuf form here; send JSON"))?;
    let mut object = message(raw, fields)?;
    object.insert("apiVersion".to_owned(), Value::from(api_version));
    object.insert("kind".to_owned(), Value::from(kind));
    Ok(Value::Object(object))
}

/// One field as it stands on the wire.
enum Raw<'b> {
    Number(u64),
    Bytes(&'b [u8]),
}

struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    /// All fields of a message, in order.
    fn fields(mut self) -> Result<Vec<(u64, Raw<'b>)>, String> {
        let mut fields = Vec::new();
        while !self.0.is_empty() {
            let key = self.varint()?;
            let value = match key & 7 {
                0 => Raw::Number(self.varint()?),
                1 => Raw::Bytes(self.take(8)?),
                2 => {
                    let length = self.varint()?;
                    Raw::Bytes(self.take(length)?)
                }
                5 => Raw::Bytes(self.take(4)?),
                other => return Err(format!("the protobuf body has a field of unknown wire type {other}")),
            };
            fields.push((key >> 3, value));
        }
        Ok(fields)
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or("the protobuf body ends inside a number")?;
            self.0 = rest;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("the protobuf body has a number of more than 64 bits".to_owned())
    }

    fn take(&mut self, length: u64) -> Result<&'b [u8], String> {
        let taken = usize::try_from(length)
            .ok()
            .and_then(|length| self.0.split_at_checked(length));
        let (bytes, rest) = taken.ok_or("the protobuf body ends inside a field")?;
        self.0 = rest;
        Ok(bytes)
    }
}

fn utf8(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "the protobuf body has text that is not UTF-8".to_owned())
}

/// Protobuf writes fields even when they are empty; JSON leaves those out, unless emptiness means something.
fn message(bytes: &[u8], fields: &[Field]) -> Result<Map<String, Value>, String> {
    let mut object = Map::new();
    for (number, raw) in Reader(bytes).fields()? {
        let Some(field) = fields.iter().find(|field| field.number == number) else {
            continue;
        };
        match (field_value(&field.kind, raw)?, object.get_mut(field.name)) {
            (Some(Value::Array(items)), Some(Value::Array(list))) => list.extend(items),
            (Some(Value::Object(entries)), Some(Value::Object(map))) if field.kind.repeats() => map.extend(entries),
            (Some(value), _) if field.optional || field.kind.repeats() || !is_empty(&value) => {
                object.insert(field.name.to_owned(), value);
            }
            _ => {}
        }
    }
    Ok(object)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn field_value(kind: &Kind, raw: Raw<'_>) -> Result<Option<Value>, String> {
    Ok(match (kind, raw) {
        // Negative numbers are written as their 64-bit two's complement.
        (Kind::Integer, Raw::Number(number)) => Some(Value::from(number as i64)),
        (Kind::Flag, Raw::Number(number)) => Some(Value::from(number != 0)),
        (Kind::Text, Raw::Bytes(text)) => Some(Value::from(utf8(text)?)),
        (Kind::Texts, Raw::Bytes(text)) => Some(Value::from(vec![utf8(text)?])),
        (Kind::Message(fields), Raw::Bytes(bytes)) => Some(Value::Object(message(bytes, fields)?)),
        (Kind::Messages(fields), Raw::Bytes(bytes)) => Some(Value::from(vec![Value::Object(message(bytes, fields)?)])),
        (Kind::TextMap, Raw::Bytes(bytes)) => Some(entry(bytes, utf8)?),
        (Kind::BytesMap, Raw::Bytes(bytes)) => Some(entry(bytes, |value| Ok(STANDARD.encode(value)))?),
        (Kind::Time { micros }, Raw::Bytes(bytes)) => time(bytes, *micros)?,
        (Kind::Json, Raw::Bytes(bytes)) => json(bytes)?,
        _ => return Err("a field of the protobuf body has the wrong type".to_owned()),
    })
}

/// An entry of a map: key 1, value 2.
fn entry(bytes: &[u8], value_of: impl Fn(&[u8]) -> Result<String, String>) -> Result<Value, String> {
    let (mut key, mut value) = (String::new(), String::new());
    for (number, raw) in Reader(bytes).fields()? {
        match (number, raw) {
            (1, Raw::Bytes(text)) => key = utf8(text)?,
            (2, Raw::Bytes(bytes)) => value = value_of(bytes)?,
            _ => {}
        }
    }
    Ok(Value::Object(Map::from_iter([(key, Value::from(value))])))
}

/// Seconds 1, nanoseconds 2; nothing stands for the zero time.
fn time(bytes: &[u8], micros: bool) -> Result<Option<Value>, String> {
    let (mut seconds, mut nanos) = (0_i64, 0_i64);
    for (number, raw) in Reader(bytes).fields()? {
        match (number, raw) {
            (1, Raw::Number(number)) => seconds = number as i64,
            (2, Raw::Number(number)) => nanos = number as i64,
            _ => {}
        }
    }
    if bytes.is_empty() {
        return Ok(None);
    }
    let nanos = i32::try_from(nanos).unwrap_or(i32::MAX);
    let time = Timestamp::new(seconds, nanos)
        .map_err(|error| format!("the protobuf body has a time that is none: {error}"))?;
    let format = if micros {
        "%Y-%m-%dT%H:%M:%S%.6fZ"
    } else {
        "%Y-%m-%dT%H:%M:%SZ"
    };
    Ok(Some(Value::from(time.strftime(format).to_string())))
}

/// JSON inside a message: the text is its field 1.
fn json(bytes: &[u8]) -> Result<Option<Value>, String> {
    for (number, raw) in Reader(bytes).fields()? {
        if let (1, Raw::Bytes(text)) = (number, raw) {
            let parsed = serde_json::from_slice(text);
            return parsed
                .map(Some)
                .map_err(|error| format!("the protobuf body has invalid JSON inside: {error}"));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
