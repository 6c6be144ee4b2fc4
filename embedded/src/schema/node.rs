//! The compiled form of a schema: a tree of nodes with everything parsed, so that requests only walk.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Number, Value};

use super::{cel::Rule, format::Format};

/// The JSON types that a schema can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Type {
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// What a schema says about fields that it does not name.
#[derive(Debug, Default)]
pub(crate) enum Additional {
    /// Nothing: such fields are pruned.
    #[default]
    Unspecified,
    /// `true`: anything goes.
    Any,
    /// `false`: such fields are refused.
    None,
    /// Each one follows this schema: the object is a map.
    Schema(Box<Node>),
}

/// How the items of a list relate.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum ListType {
    /// The list is one value.
    #[default]
    Atomic,
    /// No two items are equal.
    Set,
    /// Items are told apart by these fields.
    Map(Vec<String>),
}

/// A numeric bound.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(super) limit: Number,
    pub(super) exclusive: bool,
}

/// One compiled schema.
#[derive(Debug, Default)]
pub(crate) struct Node {
    /// The required type; `None` accepts any.
    pub(crate) kind: Option<Type>,
    /// Integer or string, instead of `kind`.
    pub(crate) int_or_string: bool,
    pub(super) nullable: bool,
    pub(crate) preserve_unknown: bool,
    pub(crate) embedded_resource: bool,
    pub(super) default: Option<Value>,
    pub(crate) properties: BTreeMap<String, Node>,
    pub(crate) additional: Additional,
    pub(crate) items: Option<Box<Node>>,
    pub(crate) list_type: ListType,
    /// Text of `format`, for messages and CEL.
    pub(super) format_name: Option<String>,
    pub(super) format: Option<Format>,
    pub(super) enumeration: Vec<Value>,
    pub(super) pattern: Option<(String, Regex)>,
    pub(super) minimum: Option<Bound>,
    pub(super) maximum: Option<Bound>,
    pub(super) multiple_of: Option<Number>,
    pub(super) min_length: Option<u64>,
    pub(super) max_length: Option<u64>,
    pub(super) min_items: Option<u64>,
    pub(super) max_items: Option<u64>,
    pub(super) unique_items: bool,
    pub(super) min_properties: Option<u64>,
    pub(super) max_properties: Option<u64>,
    pub(super) required: Vec<String>,
    pub(super) all_of: Vec<Node>,
    pub(super) any_of: Vec<Node>,
    pub(super) one_of: Vec<Node>,
    pub(super) not: Option<Box<Node>>,
    /// CEL rules about this node's value.
    pub(super) rules: Vec<Rule>,
    /// Whether this node or one below has rules; lets walks skip whole branches.
    pub(super) rules_within: bool,
    /// Whether this node or one below has a set or a map list.
    pub(super) keyed_lists_within: bool,
}

impl Node {
    /// The schema of a field of this object.
    pub(crate) fn child(&self, name: &str) -> Option<&Node> {
        self.properties.get(name).or(match &self.additional {
            Additional::Schema(node) => Some(node),
            _ => None,
        })
    }

    /// The schema of the values, if this is a map.
    pub(crate) fn map_values(&self) -> Option<&Node> {
        match &self.additional {
            Additional::Schema(node) => Some(node),
            _ => None,
        }
    }

    /// Whether there is any CEL rule in this schema.
    pub(super) fn has_rules(&self) -> bool {
        self.rules_within
    }

    /// Whether `null` must not stand here.
    pub(super) fn refuses_null(&self) -> bool {
        !self.nullable
    }

    /// Finds the item of `old` that is the same item as `item`, where the list type allows to say so.
    pub(super) fn correlated_item<'v>(&self, item: &Value, old: Option<&'v Value>) -> Option<&'v Value> {
        let ListType::Map(keys) = &self.list_type else {
            return None;
        };
        old?.as_array()?
            .iter()
            .find(|candidate| keys.iter().all(|key| item.get(key) == candidate.get(key)))
    }
}
