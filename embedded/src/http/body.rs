//! Request bodies: size, media type, JSON, YAML and protobuf, duplicate fields.

use std::cell::RefCell;
use std::fmt;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, header};
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::kinds;
use crate::status::ApiError;

/// The largest body that is read, as in kube-apiserver.
pub(super) const LIMIT: usize = 3 << 20;

/// The notation in which Go clients send built-in kinds. Nothing is answered in it.
pub(super) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// A decoded body.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    pub(super) value: Value,
    /// Sentences about fields that occur twice; the last one counts.
    pub(super) duplicates: Vec<String>,
}

/// Reads the whole body.
pub(super) async fn read(body: Body) -> Result<Bytes, ApiError> {
    axum::body::to_bytes(body, LIMIT).await.map_err(|error| {
        let mut source: Option<&dyn std::error::Error> = Some(&error);
        while let Some(cause) = source {
            if cause.is::<http_body_util::LengthLimitError>() {
                return ApiError::too_large(LIMIT);
            }
            source = cause.source();
        }
        ApiError::bad_request(format!("the body could not be read: {error}"))
    })
}

/// The media type of a request's body in lower case, without parameters.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let text = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Decodes an object by its media type.
pub(super) fn decode(media_type: &str, bytes: &[u8]) -> Result<Decoded, ApiError> {
    match media_type {
        "" | "application/json" => json(bytes),
        "application/yaml" | "application/x-yaml" | "text/yaml" => yaml(bytes),
        PROTOBUF => match kinds::decode_protobuf(bytes) {
            Ok(value) => Ok(Decoded {
                value,
                duplicates: Vec::new(),
            }),
            Err(problem) => Err(ApiError::bad_request(problem)),
        },
        _ => Err(unsupported()),
    }
}

/// The error for a media type that cannot be read.
pub(super) fn unsupported() -> ApiError {
    ApiError::unsupported_media_type(&["application/json", "application/yaml"])
}

/// Decodes JSON, and notes duplicate fields.
pub(super) fn json(bytes: &[u8]) -> Result<Decoded, ApiError> {
    let duplicates = RefCell::new(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Seed {
        path: &Path::Root,
        duplicates: &duplicates,
    }
    .deserialize(&mut deserializer)
    .and_then(|value| deserializer.end().map(|()| value))
    .map_err(|error| ApiError::bad_request(format!("the body is not valid JSON: {error}")))?;
    Ok(Decoded {
        value,
        duplicates: duplicates.into_inner(),
    })
}

/// Decodes YAML or JSON.
pub(super) fn yaml(bytes: &[u8]) -> Result<Decoded, ApiError> {
    // Most clients send JSON under the name of YAML; that parser is many times faster.
    if bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{')
        && let Ok(decoded) = json(bytes)
    {
        return Ok(decoded);
    }
    let value = serde_saphyr::from_slice(bytes)
        .map_err(|error| ApiError::bad_request(format!("error converting YAML to JSON: yaml: {error}")))?;
    Ok(Decoded {
        value,
        duplicates: Vec::new(),
    })
}

/// Where a value stands, from the inside out; rendered only when there is something to say about it.
enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Builds a [`Value`] as serde_json does, and notes fields that were there already.
struct Seed<'a> {
    path: &'a Path<'a>,
    duplicates: &'a RefCell<Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let path = Path::Item(self.path, list.len());
            match access.next_element_seed(Seed {
                path: &path,
                duplicates: self.duplicates,
            })? {
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let path = Path::Field(self.path, &key);
            let value = access.next_value_seed(Seed {
                path: &path,
                duplicates: self.duplicates,
            })?;
            if map.contains_key(&key) {
                self.duplicates.borrow_mut().push(format!("duplicate field \"{path}\""));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn duplicates_are_found_with_their_path() {
        let decoded = json(br#"{"a":{"b":[{"c":1,"c":2}]},"d":1,"d":2,"e":1}"#).unwrap();
        assert_eq!(decoded.value, json!({"a": {"b": [{"c": 2}]}, "d": 2, "e": 1}));
        assert_eq!(
            decoded.duplicates,
            ["duplicate field \"a.b[0].c\"", "duplicate field \"d\""]
        );
    }

    #[test]
    fn broken_bodies_are_bad_requests() {
        for (kind, text) in [("", "{"), ("application/json", "{} x"), ("application/yaml", "a: [")] {
            assert_eq!(decode(kind, text.as_bytes()).unwrap_err().code, 400, "{text}");
        }
        assert_eq!(
            decode("application/vnd.kubernetes.protobuf", b"").unwrap_err().code,
            400
        );
        assert_eq!(decode("text/plain", b"").unwrap_err().code, 415);
        let yaml = decode(
            "application/yaml",
            b"kind: Graph\nspec:\n  n: 3\n  s: \"3\"\n  t: true\n",
        )
        .unwrap();
        assert_eq!(
            yaml.value,
            json!({"kind": "Graph", "spec": {"n": 3, "s": "3", "t": true}})
        );
    }

    #[tokio::test]
    async fn bodies_over_the_limit_are_refused() {
        assert!(read(Body::from(vec![b' '; LIMIT])).await.is_ok());
        assert_eq!(read(Body::from(vec![b' '; LIMIT + 1])).await.unwrap_err().code, 413);
    }

    proptest! {
        #[test]
        fn values_are_read_as_serde_json_reads_them(text in r#"[\[\]{}",:a-c0-9. -]{0,40}"#) {
            let expected = serde_json::from_str::<Value>(&text).ok();
            prop_assert_eq!(json(text.as_bytes()).ok().map(|d| d.value), expected);
        }
    }
}
