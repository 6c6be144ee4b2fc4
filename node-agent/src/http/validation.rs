//! Bodies read field by field, with every mistake collected into the 422 list that clients of the contract expect:
//! `{"detail":[{"type","loc","msg","input",…}]}`.
//!
//! What a handler asks [`Fields`] for is also the schema of its body: [`schema`] lets it ask once without a body, and writes
//! down the questions. So the OpenAPI document says what is read, and nothing else.

use super::error::ApiError;
use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use std::ops::RangeInclusive;

/// Fields whose value is never repeated in an answer.
const PRIVATE: [&str; 2] = ["s3_credentials", "parameters"];

/// What a text must look like.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Text {
    /// Most characters.
    pub max: Option<usize>,
    /// Only ASCII letters, digits, `_` and `-`.
    pub identifier: bool,
    /// The words that are allowed.
    pub one_of: Option<&'static [&'static str]>,
}

/// An id or a name as the contract has it.
pub(super) const IDENTIFIER: Text = Text {
    max: Some(64),
    identifier: true,
    one_of: None,
};
/// Any text.
pub(super) const ANY: Text = Text {
    max: None,
    identifier: false,
    one_of: None,
};

/// Truth values of forms.
const TRUE: [&str; 6] = ["true", "1", "on", "yes", "t", "y"];
const FALSE: [&str; 6] = ["false", "0", "off", "no", "f", "n"];

fn is_word(words: &[&str], text: &str) -> bool {
    words.iter().any(|word| word.eq_ignore_ascii_case(text))
}

const PATTERN: &str = "^[a-zA-Z0-9_-]+$";

/// The JSON schema of the body that `read` reads.
pub(super) fn schema<T>(read: impl FnOnce(&mut Fields) -> T) -> Value {
    let mut fields = Fields::of(Map::new(), false);
    fields.asked = Some(Map::new());
    read(&mut fields);
    let required: Vec<Value> = fields.errors;
    let mut schema = json!({"type": "object", "properties": fields.asked, "additionalProperties": false});
    if !required.is_empty() {
        schema["required"] = Value::Array(required);
    }
    schema
}

impl Text {
    fn schema(&self) -> Value {
        let mut schema = json!({"type": "string"});
        if let Some(max) = self.max {
            schema["maxLength"] = json!(max);
        }
        if self.identifier {
            schema["pattern"] = json!(PATTERN);
        }
        if let Some(words) = self.one_of {
            schema["enum"] = json!(words);
        }
        schema
    }
}

/// The same, or null.
fn nullable(mut schema: Value) -> Value {
    schema["type"] = json!([schema["type"], "null"]);
    if let Some(words) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        words.push(Value::Null);
    }
    schema
}

/// The fields of one body.
#[derive(Debug)]
pub(super) struct Fields {
    object: Map<String, Value>,
    /// Every value is a text, also where another type is meant.
    form: bool,
    known: Vec<&'static str>,
    errors: Vec<Value>,
    /// The schemas of the fields that were asked for, while a schema is made; `errors` are then the names of those that
    /// must be there.
    asked: Option<Map<String, Value>>,
}

impl Fields {
    /// Parses a body that must be a JSON object.
    ///
    /// # Errors
    /// 422 when it is not JSON, or not an object.
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        if body.is_empty() {
            return Err(unprocessable(vec![error(
                "missing",
                &[],
                "Field required",
                Value::Null,
            )]));
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(object)) => Ok(Self::of(object, false)),
            Ok(other) => Err(unprocessable(vec![error(
                "model_attributes_type",
                &[],
                "Input should be a valid dictionary or object to extract fields from",
                shorten(&other),
            )])),
            Err(problem) => {
                let mut entry = error("json_invalid", &[], "JSON decode error", json!({}));
                entry["ctx"] = json!({"error": problem.to_string()});
                Err(unprocessable(vec![entry]))
            }
        }
    }

    /// An empty body is an empty object: for requests in which everything has a default.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub(super) fn parse_or_empty(body: &[u8]) -> Result<Self, ApiError> {
        if body.is_empty() {
            Self::parse(b"{}")
        } else {
            Self::parse(body)
        }
    }

    /// The fields of a form.
    pub(super) fn of_form(object: Map<String, Value>) -> Self {
        Self::of(object, true)
    }

    fn of(object: Map<String, Value>, form: bool) -> Self {
        Self {
            object,
            form,
            known: Vec::new(),
            errors: Vec::new(),
            asked: None,
        }
    }

    /// Says what a field looks like, where the question for it does not say enough.
    pub(super) fn shape(&mut self, name: &'static str, schema: impl FnOnce() -> Value) {
        if let Some(asked) = &mut self.asked {
            asked.entry(name).or_insert_with(schema);
        }
    }

    /// A text that must be there.
    pub(super) fn required_text(&mut self, name: &'static str, rule: Text) -> String {
        self.shape(name, || rule.schema());
        match self.take(name) {
            None => {
                self.missing(name);
                String::new()
            }
            Some(value) => self.check_text(name, value, rule).unwrap_or_default(),
        }
    }

    /// A text that may be absent or null.
    pub(super) fn text(&mut self, name: &'static str, rule: Text) -> Option<String> {
        self.shape(name, || nullable(rule.schema()));
        let value = self.take(name)?;
        if value.is_null() {
            None
        } else {
            self.check_text(name, value, rule)
        }
    }

    /// A truth value with its default.
    pub(super) fn flag(&mut self, name: &'static str, default: bool) -> bool {
        self.shape(name, || json!({"type": "boolean", "default": default}));
        match self.take(name) {
            None => default,
            Some(Value::Bool(value)) => value,
            Some(Value::String(text)) if self.form && is_word(&TRUE, &text) => true,
            Some(Value::String(text)) if self.form && is_word(&FALSE, &text) => false,
            Some(other) => {
                self.wrong("bool_type", name, "Input should be a valid boolean", &other);
                default
            }
        }
    }

    /// A whole number within a range, that may be absent or null.
    pub(super) fn whole(&mut self, name: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        self.shape(
            name,
            || json!({"type": ["integer", "null"], "minimum": range.start(), "maximum": range.end()}),
        );
        let value = self.take(name).filter(|value| !value.is_null())?;
        let number = value.as_u64().filter(|number| range.contains(number));
        if number.is_none() {
            let message = format!(
                "Input should be a whole number from {} to {}",
                range.start(),
                range.end()
            );
            self.wrong("int_type", name, &message, &value);
        }
        number
    }

    /// A list of texts that may be absent or null.
    pub(super) fn texts(&mut self, name: &'static str) -> Option<Vec<String>> {
        self.shape(name, || json!({"type": ["array", "null"], "items": {"type": "string"}}));
        match self.take(name)? {
            Value::Null => None,
            Value::Array(items) => {
                let count = items.len();
                let texts: Vec<String> = items
                    .into_iter()
                    .filter_map(|item| {
                        if let Value::String(text) = item {
                            Some(text)
                        } else {
                            None
                        }
                    })
                    .collect();
                if texts.len() != count {
                    self.wrong("string_type", name, "Every item should be a valid string", &Value::Null);
                }
                Some(texts)
            }
            other => {
                self.wrong("list_type", name, "Input should be a valid list", &other);
                None
            }
        }
    }

    /// A list of any values that may be absent or null.
    pub(super) fn list(&mut self, name: &'static str) -> Option<Vec<Value>> {
        self.shape(name, || json!({"type": ["array", "null"]}));
        match self.take(name)? {
            Value::Null => None,
            Value::Array(items) => Some(items),
            other => {
                self.wrong("list_type", name, "Input should be a valid list", &other);
                None
            }
        }
    }

    /// A list of numbers that may be absent or null.
    pub(super) fn numbers(&mut self, name: &'static str) -> Option<Vec<f32>> {
        self.shape(name, || json!({"type": ["array", "null"], "items": {"type": "number"}}));
        let items = self.list(name)?;
        let numbers: Option<Vec<f32>> = items
            .iter()
            .map(|item| item.as_f64().map(|number| number as f32))
            .collect();
        if numbers.is_none() {
            self.wrong("float_type", name, "Every item should be a valid number", &Value::Null);
        }
        numbers
    }

    /// Whether the body has the field, if only as null.
    pub(super) fn has(&self, name: &str) -> bool {
        self.object.contains_key(name)
    }

    /// The fields of an object within the body. Its mistakes are [adopted](Self::adopt) when it has been read.
    pub(super) fn within(object: Map<String, Value>) -> Self {
        Self::of(object, false)
    }

    /// Takes over the mistakes of the item at `index` of the list `name`.
    pub(super) fn adopt(&mut self, name: &'static str, index: usize, item: Self) {
        for mut entry in item.mistakes() {
            if let Some(loc) = entry["loc"].as_array_mut() {
                drop(loc.splice(1..1, [json!(name), json!(index)]));
            }
            self.errors.push(entry);
        }
    }

    /// An object that may be absent or null.
    pub(super) fn object(&mut self, name: &'static str) -> Option<Map<String, Value>> {
        self.shape(name, || json!({"type": ["object", "null"]}));
        match self.take(name)? {
            Value::Null => None,
            Value::Object(object) => Some(object),
            other => {
                self.wrong("dict_type", name, "Input should be a valid dictionary", &other);
                None
            }
        }
    }

    /// A value as it stands, for fields of more than one shape.
    pub(super) fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        if let Some(asked) = &mut self.asked {
            asked.entry(name).or_insert_with(|| json!({}));
        }
        self.object.get(name).cloned()
    }

    /// Records that a field is missing.
    pub(super) fn missing(&mut self, name: &'static str) {
        if self.asked.is_some() {
            self.errors.push(json!(name));
            return;
        }
        let entry = error("missing", &[name], "Field required", self.shown());
        self.errors.push(entry);
    }

    /// Records that a field is wrong.
    pub(super) fn wrong(&mut self, kind: &str, name: &'static str, message: &str, input: &Value) {
        self.errors.push(error(
            kind,
            &[name],
            message,
            if PRIVATE.contains(&name) {
                Value::Null
            } else {
                shorten(input)
            },
        ));
    }

    /// Ends the reading; fields that nobody asked for are mistakes.
    ///
    /// # Errors
    /// 422 with every mistake.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        let mistakes = self.mistakes();
        if mistakes.is_empty() {
            Ok(())
        } else {
            Err(unprocessable(mistakes))
        }
    }

    fn mistakes(mut self) -> Vec<Value> {
        let unknown: Vec<String> = self
            .object
            .keys()
            .filter(|key| !self.known.contains(&key.as_str()))
            .cloned()
            .collect();
        for name in unknown {
            let input = shorten(&self.object[&name]);
            self.errors.push(error(
                "extra_forbidden",
                &[&name],
                "Extra inputs are not permitted",
                input,
            ));
        }
        self.errors
    }

    fn check_text(&mut self, name: &'static str, value: Value, rule: Text) -> Option<String> {
        let Value::String(text) = value else {
            self.wrong("string_type", name, "Input should be a valid string", &value);
            return None;
        };
        if let Some(max) = rule.max
            && text.len() > max
            && text.chars().count() > max
        {
            self.errors.push(too_long(name, max, &text));
            return None;
        }
        if rule.identifier
            && (text.is_empty()
                || !text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')))
        {
            let message = format!("String should match pattern '{PATTERN}'");
            let mut entry = error(
                "string_pattern_mismatch",
                &[name],
                &message,
                shorten(&Value::String(text)),
            );
            entry["ctx"] = json!({"pattern": PATTERN});
            self.errors.push(entry);
            return None;
        }
        if let Some(words) = rule.one_of
            && !words.contains(&text.as_str())
        {
            let expected = words
                .iter()
                .map(|word| format!("'{word}'"))
                .collect::<Vec<_>>()
                .join(", ");
            let mut entry = error(
                "enum",
                &[name],
                &format!("Input should be one of {expected}"),
                shorten(&Value::String(text)),
            );
            entry["ctx"] = json!({"expected": expected});
            self.errors.push(entry);
            return None;
        }
        Some(text)
    }

    fn shown(&self) -> Value {
        let fields = self.object.iter().filter(|(name, _)| !PRIVATE.contains(&name.as_str()));
        Value::Object(fields.map(|(name, value)| (name.clone(), shorten(value))).collect())
    }
}

/// The entry for a text that is too long.
pub(super) fn too_long(name: &str, max: usize, text: &str) -> Value {
    let message = format!("String should have at most {max} characters");
    let mut entry = error(
        "string_too_long",
        &[name],
        &message,
        shorten(&Value::String(text.to_owned())),
    );
    entry["ctx"] = json!({"max_length": max});
    entry
}

/// 422 with a list of mistakes.
pub(super) fn unprocessable(errors: Vec<Value>) -> ApiError {
    ApiError::with_detail(StatusCode::UNPROCESSABLE_ENTITY, Value::Array(errors))
}

fn error(kind: &str, path: &[&str], message: &str, input: Value) -> Value {
    let loc: Vec<&str> = std::iter::once("body").chain(path.iter().copied()).collect();
    json!({"type": kind, "loc": loc, "msg": message, "input": input})
}

/// The input as it is repeated in an answer: enough to recognise it.
fn shorten(value: &Value) -> Value {
    match value {
        Value::String(text) if text.len() > 200 => Value::String(text.chars().take(200).chain("…".chars()).collect()),
        Value::Array(items) if items.len() > 20 => Value::String(format!("a list of {} items", items.len())),
        Value::Object(object) if object.len() > 20 => Value::String(format!("an object of {} fields", object.len())),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn kinds(error: &ApiError) -> Vec<(String, Value)> {
        let list = error.detail.as_array().unwrap();
        list.iter()
            .map(|e| (e["type"].as_str().unwrap().to_owned(), e["loc"].clone()))
            .collect()
    }

    #[test]
    fn every_mistake_is_listed() {
        let body = br#"{"graph_id":"a b","long":"xxxx","flag":"yes","kind":"other","surplus":1}"#;
        let mut fields = Fields::parse(body).unwrap();
        fields.required_text("graph_id", IDENTIFIER);
        fields.required_text("absent", ANY);
        fields.text("long", Text { max: Some(3), ..ANY });
        fields.flag("flag", true);
        fields.text(
            "kind",
            Text {
                one_of: Some(&["entity", "shared"]),
                ..ANY
            },
        );
        let refused = fields.finish().unwrap_err();
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
        let expected = [
            ("string_pattern_mismatch", "graph_id"),
            ("missing", "absent"),
            ("string_too_long", "long"),
            ("bool_type", "flag"),
            ("enum", "kind"),
            ("extra_forbidden", "surplus"),
        ];
        let expected: Vec<_> = expected
            .iter()
            .map(|(kind, name)| ((*kind).to_owned(), json!(["body", name])))
            .collect();
        assert_eq!(kinds(&refused), expected);
    }

    #[test]
    fn numbers_have_bounds_and_items_have_places() {
        let mut fields = Fields::parse(br#"{"a":5,"b":"5","c":101,"v":[1,2.5],"w":[1,"x"],"n":null}"#).unwrap();
        let bounds = || 1..=100u64;
        assert_eq!(
            (fields.whole("a", bounds()), fields.whole("n", bounds())),
            (Some(5), None)
        );
        assert_eq!((fields.whole("b", bounds()), fields.whole("c", bounds())), (None, None));
        assert_eq!((fields.numbers("v"), fields.numbers("w")), (Some(vec![1.0, 2.5]), None));
        assert!(fields.has("n") && !fields.has("m"));
        let mut item = Fields::within(Map::new());
        item.required_text("text", ANY);
        fields.adopt("records", 3, item);
        let refused = fields.finish().unwrap_err();
        let expected = [
            ("int_type".to_owned(), json!(["body", "b"])),
            ("int_type".to_owned(), json!(["body", "c"])),
            ("float_type".to_owned(), json!(["body", "w"])),
            ("missing".to_owned(), json!(["body", "records", 3, "text"])),
        ];
        assert_eq!(kinds(&refused), expected);
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        for (body, kind) in [
            (&b"{"[..], "json_invalid"),
            (b"[1]", "model_attributes_type"),
            (b"", "missing"),
        ] {
            assert_eq!(kinds(&Fields::parse(body).unwrap_err())[0].0, kind);
        }
        assert!(Fields::parse_or_empty(b"").unwrap().finish().is_ok());
    }

    #[test]
    fn secrets_are_not_repeated() {
        let body = br#"{"s3_credentials":{"aws_secret_access_key":"hush"},"parameters":{"p":"hush"}}"#;
        let mut fields = Fields::parse(body).unwrap();
        fields.required_text("table_name", IDENTIFIER);
        fields.object("s3_credentials");
        fields.list("parameters");
        let refused = fields.finish().unwrap_err();
        assert!(!refused.detail.to_string().contains("hush"), "{:?}", refused.detail);
    }
}
