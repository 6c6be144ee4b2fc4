//! One refused field: why, where, and the sentence for people.

use std::fmt;

use serde_json::{Map, Value};

use super::quote;
use crate::schema::number;

/// Why one field was refused; the `reason` of an entry of `details.causes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CauseReason {
    /// A field that must be present is absent.
    Required,
    /// The value breaks a rule.
    Invalid,
    /// The value is not one of the allowed ones.
    NotSupported,
    /// The value has the wrong JSON type.
    TypeInvalid,
    /// The value repeats another one of a set or map.
    Duplicate,
    /// A string is too long.
    TooLong,
    /// A list or map has too many entries.
    TooMany,
    /// The field may not be set, or not in this way.
    Forbidden,
    /// Server-side apply would take the field from another manager.
    FieldManagerConflict,
}

impl CauseReason {
    /// The word that the Kubernetes API uses for this reason.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Duplicate => "FieldValueDuplicate",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Forbidden => "FieldValueForbidden",
            Self::FieldManagerConflict => "FieldManagerConflict",
        }
    }
}

impl fmt::Display for CauseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One entry of `details.causes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Class of the problem; `None` for the free text of an internal error.
    pub reason: Option<CauseReason>,
    /// The sentence without the field, for example `Required value`.
    pub message: String,
    /// Path of the field such as `spec.tiers[0].name`; `<nil>` stands for the whole object.
    pub field: String,
}

impl Cause {
    /// A cause with a ready-made message.
    #[must_use]
    pub fn new(reason: CauseReason, field: impl Into<String>, message: impl Into<String>) -> Self {
        let field: String = field.into();
        Self {
            reason: Some(reason),
            message: message.into(),
            field: if field.is_empty() { "<nil>".to_owned() } else { field },
        }
    }

    /// Free text without a field.
    #[must_use]
    pub fn plain(message: impl Into<String>) -> Self {
        Self {
            reason: None,
            message: message.into(),
            field: String::new(),
        }
    }

    /// `Required value`, with an optional explanation.
    #[must_use]
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        Self::new(CauseReason::Required, field, with_detail("Required value", detail))
    }

    /// `Invalid value: <value>: <detail>`.
    #[must_use]
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        let head = format!("Invalid value: {}", shown(value));
        Self::new(CauseReason::Invalid, field, with_detail(&head, detail))
    }

    /// As [`invalid`](Self::invalid), for a value of the wrong JSON type.
    #[must_use]
    pub fn type_invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        let head = format!("Invalid value: {}", shown(value));
        Self::new(CauseReason::TypeInvalid, field, with_detail(&head, detail))
    }

    /// `Unsupported value: <value>: supported values: "a", "b"`.
    #[must_use]
    pub fn not_supported<S: AsRef<str>>(field: impl Into<String>, value: &Value, supported: &[S]) -> Self {
        let list: Vec<String> = supported.iter().map(|word| quote(word.as_ref())).collect();
        let detail = if list.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", list.join(", "))
        };
        let head = format!("Unsupported value: {}", shown(value));
        Self::new(CauseReason::NotSupported, field, with_detail(&head, &detail))
    }

    /// `Duplicate value: <value>`.
    #[must_use]
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::new(
            CauseReason::Duplicate,
            field,
            format!("Duplicate value: {}", shown(value)),
        )
    }

    /// `Too long: may not be more than <max> bytes` (kube-apiserver says bytes although it counts characters).
    #[must_use]
    pub fn too_long(field: impl Into<String>, max: u64) -> Self {
        let unit = if max == 1 { "byte" } else { "bytes" };
        Self::new(
            CauseReason::TooLong,
            field,
            format!("Too long: may not be more than {max} {unit}"),
        )
    }

    /// `Too many: <actual>: must have at most <max> items`.
    #[must_use]
    pub fn too_many(field: impl Into<String>, actual: usize, max: u64) -> Self {
        let unit = if max == 1 { "item" } else { "items" };
        Self::new(
            CauseReason::TooMany,
            field,
            format!("Too many: {actual}: must have at most {max} {unit}"),
        )
    }

    /// `Forbidden: <detail>`.
    #[must_use]
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::new(CauseReason::Forbidden, field, with_detail("Forbidden", detail))
    }

    pub(super) fn to_json(&self) -> Value {
        let mut map = Map::new();
        if let Some(reason) = self.reason {
            map.insert("reason".to_owned(), Value::from(reason.as_str()));
        }
        map.insert("message".to_owned(), Value::from(self.message.as_str()));
        if !self.field.is_empty() {
            map.insert("field".to_owned(), Value::from(self.field.as_str()));
        }
        Value::Object(map)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.field, self.message)
        }
    }
}

fn with_detail(head: &str, detail: &str) -> String {
    if detail.is_empty() {
        head.to_owned()
    } else {
        format!("{head}: {detail}")
    }
}

/// How a refused value appears in a message: as Go prints it, objects and lists as JSON.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        Value::Number(value) => number::show(value),
        other => other.to_string(),
    }
}
