//! Query parameters: JSON in, typed engine values out. Lists and structs have one element type in the engine, so the
//! types of all elements are unified first; what does not fit is refused with the path of the parameter.

use lbug::{LogicalType, Value};
use serde_json::{Map, Value as Json};

use super::super::error::EngineError;
use super::guard::is_safe_pattern;
use super::typed::{Declared, ParameterTypes, with_casts};

const MAX_PARAMETERS: usize = 50;
const MAX_TEXT: usize = 10_000;
const MAX_LIST_ITEMS: usize = 1_000;
const MAX_LIST_TEXT: usize = 50_000;
const MAX_KEYS: usize = 100;
const MAX_NUMBER: f64 = 1e15;
const MAX_DEPTH: usize = 32;

/// Checked parameters of one statement.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    values: Vec<(String, Value)>,
    untyped: bool,
    /// Names with the types to which the statement has to cast them.
    casts: Vec<(String, String)>,
}

impl Parameters {
    /// Checks and converts parameters: at most 50, named like identifiers; text up to 10,000 characters, lists up to
    /// 1,000 items and 50,000 characters, objects up to 100 keys, numbers up to 1e15.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] with the path of the first parameter that breaks a rule.
    pub fn from_json(parameters: &Map<String, Json>) -> Result<Self, EngineError> {
        Self::with_types(parameters, &ParameterTypes::new())
    }

    /// The same; parameters with a declared type are read as values of that type, the others as what they look like.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] with the path of the first parameter that breaks a rule, or of the type that is none.
    pub fn with_types(parameters: &Map<String, Json>, types: &ParameterTypes) -> Result<Self, EngineError> {
        if let Some(name) = types.keys().find(|name| !parameters.contains_key(*name)) {
            return Err(EngineError::invalid(
                format!("parameter_types.{name}"),
                "is the type of a parameter that was not sent",
            ));
        }
        if parameters.len() > MAX_PARAMETERS {
            return Err(EngineError::invalid(
                "parameters",
                format!("has {} entries; at most {MAX_PARAMETERS} are allowed", parameters.len()),
            ));
        }
        let mut result = Self {
            values: Vec::with_capacity(parameters.len()),
            untyped: false,
            casts: Vec::new(),
        };
        for (name, json) in parameters {
            let path = format!("parameters.{name}");
            if !is_parameter_name(name) {
                return Err(EngineError::invalid(
                    path,
                    "is not a name: a letter or _, then letters, digits or _",
                ));
            }
            check(&path, json, 0)?;
            if let Some(ty) = types.get(name) {
                let declared = Declared::parse(name, ty)?;
                result.values.push((name.clone(), declared.value(&path, json)?));
                result.casts.extend(declared.cast(json).map(|ty| (name.clone(), ty)));
                continue;
            }
            let shape = shape(&path, json)?;
            result.untyped |= shape.has_unknown_list();
            result.values.push((name.clone(), build(json, &shape)));
        }
        Ok(result)
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Checks that a parameter is a text that the engine may take strings apart with.
    pub(crate) fn check_pattern(&self, name: &str) -> Result<(), EngineError> {
        match self.values.iter().find(|(known, _)| known == name) {
            // The engine says which parameter it misses.
            None => Ok(()),
            Some((_, Value::String(text))) if is_safe_pattern(text) => Ok(()),
            Some(_) => Err(EngineError::invalid(
                format!("parameters.{name}"),
                "is a pattern here: a text that is not empty and has no \\C",
            )),
        }
    }

    /// The statement with the casts that its parameters need.
    pub(crate) fn casting(&self, text: String) -> String {
        if self.casts.is_empty() {
            text
        } else {
            with_casts(&text, &self.casts)
        }
    }

    /// True if a list is empty, so that its element type is left to the engine.
    pub(crate) fn has_untyped_list(&self) -> bool {
        self.untyped
    }

    pub(crate) fn values(self) -> Vec<(String, Value)> {
        self.values
    }

    /// The same with empty lists typed as lists of text, for expressions that need a type of their own (`size($list)`).
    pub(crate) fn typed(mut self) -> Self {
        self.untyped = false;
        for (_, value) in &mut self.values {
            give_type(value);
        }
        self
    }
}

fn give_type(value: &mut Value) {
    match value {
        Value::List(element, items) => {
            if *element == LogicalType::Any {
                *element = LogicalType::String;
            }
            items.iter_mut().for_each(give_type);
            if let Some(first) = items.first() {
                *element = LogicalType::from(first);
            }
        }
        Value::Struct(fields) => fields.iter_mut().for_each(|(_, value)| give_type(value)),
        Value::Null(any @ LogicalType::Any) => *any = LogicalType::String,
        _ => {}
    }
}

fn is_parameter_name(name: &str) -> bool {
    name.split('.').enumerate().all(|(index, part)| {
        let mut chars = part.chars();
        let first = chars
            .next()
            .is_some_and(|c| c.is_ascii_alphabetic() || c == '_' || (index > 0 && c.is_ascii_digit()));
        first && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

/// The limits of one value; returns how many characters of text it has.
fn check(path: &str, json: &Json, depth: usize) -> Result<usize, EngineError> {
    let refuse = |message: String| Err(EngineError::invalid(path, message));
    if depth > MAX_DEPTH {
        return refuse(format!("is nested deeper than {MAX_DEPTH} levels"));
    }
    match json {
        Json::Null | Json::Bool(_) => Ok(0),
        Json::Number(number) => match number.as_f64() {
            Some(value) if value.abs() <= MAX_NUMBER => Ok(0),
            _ => refuse(format!(
                "{number} is beyond ±1e15; send it as text and cast it in the query"
            )),
        },
        Json::String(text) => {
            let length = text.chars().count();
            if length > MAX_TEXT {
                return refuse(format!("has {length} characters; at most {MAX_TEXT} are allowed"));
            }
            Ok(length)
        }
        Json::Array(items) => {
            if items.len() > MAX_LIST_ITEMS {
                return refuse(format!(
                    "has {} items; at most {MAX_LIST_ITEMS} are allowed",
                    items.len()
                ));
            }
            let mut total = 0;
            for (index, item) in items.iter().enumerate() {
                total += check(&format!("{path}[{index}]"), item, depth + 1)?;
            }
            if total > MAX_LIST_TEXT {
                return refuse(format!(
                    "has {total} characters in all; at most {MAX_LIST_TEXT} are allowed"
                ));
            }
            Ok(total)
        }
        Json::Object(fields) => {
            if fields.len() > MAX_KEYS {
                return refuse(format!("has {} keys; at most {MAX_KEYS} are allowed", fields.len()));
            }
            let mut total = 0;
            for (key, value) in fields {
                total += check(&format!("{path}.{key}"), value, depth + 1)?;
            }
            Ok(total)
        }
    }
}

/// The type of a JSON value, before it is known what it is compared with.
#[derive(Clone, Debug, PartialEq)]
enum Shape {
    Unknown,
    Bool,
    Int,
    Float,
    Text,
    List(Box<Shape>),
    Struct(Vec<(String, Shape)>),
}

impl Shape {
    fn has_unknown_list(&self) -> bool {
        match self {
            Self::List(element) => **element == Self::Unknown || element.has_unknown_list(),
            Self::Struct(fields) => fields.iter().any(|(_, shape)| shape.has_unknown_list()),
            _ => false,
        }
    }

    fn logical(&self) -> LogicalType {
        match self {
            Self::Unknown => LogicalType::Any,
            Self::Bool => LogicalType::Bool,
            Self::Int => LogicalType::Int64,
            Self::Float => LogicalType::Double,
            Self::Text => LogicalType::String,
            Self::List(element) => LogicalType::List {
                child_type: Box::new(element.logical()),
            },
            Self::Struct(fields) => LogicalType::Struct {
                fields: fields
                    .iter()
                    .map(|(name, shape)| (name.clone(), shape.logical()))
                    .collect(),
            },
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Unknown => "null",
            Self::Bool => "a boolean",
            Self::Int => "an integer",
            Self::Float => "a number",
            Self::Text => "text",
            Self::List(_) => "a list",
            Self::Struct(_) => "an object",
        }
    }
}

fn shape(path: &str, json: &Json) -> Result<Shape, EngineError> {
    Ok(match json {
        Json::Null => Shape::Unknown,
        Json::Bool(_) => Shape::Bool,
        Json::Number(number) if number.is_i64() || number.is_u64() => Shape::Int,
        Json::Number(_) => Shape::Float,
        Json::String(_) => Shape::Text,
        Json::Array(items) => {
            let mut element = Shape::Unknown;
            for (index, item) in items.iter().enumerate() {
                let path = format!("{path}[{index}]");
                let item = shape(&path, item)?;
                element = unify(element, item).map_err(|(before, now)| {
                    EngineError::invalid(
                        &path,
                        format!("is {now} where the items before it are {before}; a list has one type"),
                    )
                })?;
            }
            Shape::List(Box::new(element))
        }
        Json::Object(fields) => {
            if fields.is_empty() {
                let message = "is an empty object; the engine has no struct without fields (declare it as a MAP)";
                return Err(EngineError::invalid(path, message));
            }
            let mut shapes = Vec::with_capacity(fields.len());
            for (name, value) in fields {
                shapes.push((name.clone(), shape(&format!("{path}.{name}"), value)?));
            }
            Shape::Struct(shapes)
        }
    })
}

fn unify(one: Shape, other: Shape) -> Result<Shape, (&'static str, &'static str)> {
    match (one, other) {
        (Shape::Unknown, shape) | (shape, Shape::Unknown) => Ok(shape),
        (Shape::Int, Shape::Float) | (Shape::Float, Shape::Int) => Ok(Shape::Float),
        (Shape::List(one), Shape::List(other)) => Ok(Shape::List(Box::new(unify(*one, *other)?))),
        (Shape::Struct(mut one), Shape::Struct(other)) => {
            for (name, shape) in other {
                match one.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, known)) => *known = unify(std::mem::replace(known, Shape::Unknown), shape)?,
                    None => one.push((name, shape)),
                }
            }
            Ok(Shape::Struct(one))
        }
        (one, other) if one == other => Ok(one),
        (one, other) => Err((one.name(), other.name())),
    }
}

fn build(json: &Json, shape: &Shape) -> Value {
    match (json, shape) {
        (Json::Bool(value), _) => Value::Bool(*value),
        (Json::Number(number), Shape::Float) => Value::Double(number.as_f64().unwrap_or_default()),
        (Json::Number(number), _) => Value::Int64(number.as_i64().unwrap_or_default()),
        (Json::String(text), _) => Value::String(text.clone()),
        (Json::Array(items), Shape::List(element)) => Value::List(
            element.logical(),
            items.iter().map(|item| build(item, element)).collect(),
        ),
        (Json::Object(fields), Shape::Struct(shapes)) => Value::Struct(
            shapes
                .iter()
                .map(|(name, shape)| (name.clone(), build(fields.get(name).unwrap_or(&Json::Null), shape)))
                .collect(),
        ),
        (_, shape) => Value::Null(shape.logical()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn one(value: Json) -> Result<Value, EngineError> {
        let map = json!({ "p": value }).as_object().cloned().unwrap();
        Parameters::from_json(&map).map(|parameters| parameters.values().remove(0).1)
    }

    fn refused(value: Json) -> (String, String) {
        match one(value) {
            Err(EngineError::Invalid { field, message }) => (field, message),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn values_get_one_type_per_list() {
        assert_eq!(one(json!(5)).unwrap(), Value::Int64(5));
        assert_eq!(one(json!(true)).unwrap(), Value::Bool(true));
        assert_eq!(one(json!(null)).unwrap(), Value::Null(LogicalType::Any));
        assert_eq!(
            one(json!([1, 2.5, null])).unwrap(),
            Value::List(
                LogicalType::Double,
                vec![Value::Double(1.0), Value::Double(2.5), Value::Null(LogicalType::Double)]
            )
        );
        assert_eq!(one(json!([])).unwrap(), Value::List(LogicalType::Any, vec![]));
        let rows = one(json!([{"a": 1}, {"b": "x", "a": 1.5}])).unwrap();
        let Value::List(LogicalType::Struct { fields }, items) = rows else {
            panic!("{rows:?}")
        };
        assert_eq!(
            fields,
            [
                ("a".to_owned(), LogicalType::Double),
                ("b".to_owned(), LogicalType::String)
            ]
        );
        let Value::Struct(first) = &items[0] else { panic!() };
        assert_eq!(first[1].1, Value::Null(LogicalType::String));
    }

    #[test]
    fn each_limit_names_the_parameter() {
        assert_eq!(refused(json!("x".repeat(10_001))).0, "parameters.p");
        assert_eq!(refused(json!(vec![1; 1001])).0, "parameters.p");
        assert_eq!(refused(json!([["x".repeat(10_001)]])).0, "parameters.p[0][0]");
        assert_eq!(refused(json!(vec!["x".repeat(1000); 51])).0, "parameters.p");
        assert_eq!(refused(json!({"a": {"b": 1e16}})).0, "parameters.p.a.b");
        assert_eq!(refused(json!(u64::MAX)).0, "parameters.p");
        assert_eq!(
            refused(json!([1, "a"])),
            (
                "parameters.p[1]".into(),
                "is text where the items before it are an integer; a list has one type".into()
            )
        );
        assert_eq!(refused(json!({})).0, "parameters.p");
        let mut deep = json!(1);
        for _ in 0..40 {
            deep = json!([deep]);
        }
        assert!(refused(deep).1.contains("nested"));
        let keys: Map<String, Json> = (0..101).map(|n| (format!("k{n}"), json!(1))).collect();
        assert_eq!(refused(Json::Object(keys.clone())).0, "parameters.p");
        assert!(Parameters::from_json(&keys).is_err());
        for bad in ["", "1a", "a-b", "a b", "$a"] {
            let map: Map<String, Json> = [(bad.to_owned(), json!(1))].into_iter().collect();
            assert!(Parameters::from_json(&map).is_err(), "{bad}");
        }
    }

    #[test]
    fn empty_lists_can_be_given_a_type() {
        let map = json!({ "p": [[]], "q": {"a": []} }).as_object().cloned().unwrap();
        let parameters = Parameters::from_json(&map).unwrap();
        assert!(parameters.has_untyped_list());
        let typed = parameters.typed();
        assert!(!typed.has_untyped_list());
        let values = typed.values();
        assert_eq!(
            values[0].1,
            Value::List(
                LogicalType::List {
                    child_type: Box::new(LogicalType::String)
                },
                vec![Value::List(LogicalType::String, vec![])]
            )
        );
    }
}
