//! Label and field selectors: the grammar of `labelSelector` and `fieldSelector`.

use serde_json::Value;

use super::names;
use crate::status::ApiError;

/// One requirement of a label selector.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    Exists(String),
    Absent(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    /// `>` (true) or `<` (false) than a number.
    Compare(String, bool, i64),
}

/// A label selector; the empty one accepts everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Labels(Vec<Requirement>);

impl Labels {
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        let mut parser = Parser { rest: text };
        let mut requirements = Vec::new();
        parser.space();
        while !parser.rest.is_empty() {
            let requirement = parser
                .requirement()
                .map_err(|problem| ApiError::bad_request(format!("unable to parse requirement: {problem}")))?;
            requirements.push(requirement);
            parser.space();
            let ends = parser.rest.is_empty();
            let goes_on = parser.eat(",") && !parser.rest.trim_start().is_empty();
            if !ends && !goes_on {
                let found = parser.word();
                let problem = format!("found '{found}', expected: ',' or 'end of string'");
                return Err(ApiError::bad_request(format!(
                    "couldn't parse the selector string \"{text}\": {problem}"
                )));
            }
            parser.space();
        }
        Ok(Self(requirements))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Absent(key) => label(key).is_none(),
            Requirement::In(key, values) => label(key).is_some_and(|v| values.iter().any(|x| x == v)),
            Requirement::NotIn(key, values) => label(key).is_none_or(|v| values.iter().all(|x| x != v)),
            Requirement::Compare(key, greater, bound) => label(key)
                .and_then(|v| v.parse::<i64>().ok())
                .is_some_and(|v| if *greater { v > *bound } else { v < *bound }),
        })
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.space();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// The longest run of characters that are no syntax.
    fn word(&mut self) -> &'a str {
        self.space();
        let end = self
            .rest
            .find(|c: char| c.is_whitespace() || matches!(c, '=' | '!' | '(' | ')' | ',' | '<' | '>'))
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn key(&mut self) -> Result<String, String> {
        let key = self.word();
        match names::qualified(key).into_iter().next() {
            None => Ok(key.to_owned()),
            Some(problem) => Err(format!("key: Invalid value: {key:?}: {problem}")),
        }
    }

    fn value(&mut self, key: &str) -> Result<String, String> {
        let value = self.word();
        match names::label_value(value).into_iter().next() {
            None => Ok(value.to_owned()),
            Some(problem) => Err(format!("values[0][{key}]: Invalid value: {value:?}: {problem}")),
        }
    }

    fn set(&mut self, key: &str) -> Result<Vec<String>, String> {
        if !self.eat("(") {
            return Err(format!("found '{}', expected: '('", self.word()));
        }
        let mut values = vec![self.value(key)?];
        while self.eat(",") {
            values.push(self.value(key)?);
        }
        if self.eat(")") {
            Ok(values)
        } else {
            Err(format!("found '{}', expected: ',' or ')'", self.rest))
        }
    }

    fn number(&mut self, key: &str) -> Result<i64, String> {
        let value = self.word();
        value.parse().map_err(|_| {
            format!(
                "values[0][{key}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
            )
        })
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        if self.eat("!") {
            return Ok(Requirement::Absent(self.key()?));
        }
        let key = self.key()?;
        if self.eat("==") || self.eat("=") {
            let value = self.value(&key)?;
            return Ok(Requirement::In(key, vec![value]));
        }
        if self.eat("!=") {
            let value = self.value(&key)?;
            return Ok(Requirement::NotIn(key, vec![value]));
        }
        if self.eat(">") {
            let bound = self.number(&key)?;
            return Ok(Requirement::Compare(key, true, bound));
        }
        if self.eat("<") {
            let bound = self.number(&key)?;
            return Ok(Requirement::Compare(key, false, bound));
        }
        let mut ahead = Parser { rest: self.rest };
        match ahead.word() {
            "in" => {
                self.rest = ahead.rest;
                let values = self.set(&key)?;
                Ok(Requirement::In(key, values))
            }
            "notin" => {
                self.rest = ahead.rest;
                let values = self.set(&key)?;
                Ok(Requirement::NotIn(key, values))
            }
            "" => Ok(Requirement::Exists(key)),
            other => Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
        }
    }
}

/// A field selector; the empty one accepts everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fields(Vec<FieldRequirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct FieldRequirement {
    field: String,
    value: String,
    equal: bool,
}

impl Fields {
    /// Parses a selector. `supported` says which fields the resource has.
    pub(crate) fn parse(text: &str, supported: impl Fn(&str) -> bool) -> Result<Self, ApiError> {
        let mut requirements = Vec::new();
        for term in split_unescaped(text, ',') {
            if term.is_empty() {
                continue;
            }
            let invalid = || ApiError::bad_request(format!("invalid selector: '{text}'; can't understand '{term}'"));
            let (field, value, equal) = split_operator(&term).ok_or_else(invalid)?;
            let value = unescape(value).ok_or_else(invalid)?;
            if !supported(field) {
                return Err(ApiError::bad_request(format!("field label not supported: {field}")));
            }
            requirements.push(FieldRequirement {
                field: field.to_owned(),
                value,
                equal,
            });
        }
        Ok(Self(requirements))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether only `metadata.name` and `metadata.namespace` are asked about, which needs no look into the object.
    pub(crate) fn only_names(&self) -> bool {
        self.0.iter().all(|r| is_name(&r.field))
    }

    /// The value that `field` has to be equal to.
    pub(crate) fn exact(&self, field: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|r| r.equal && r.field == field)
            .map(|r| r.value.as_str())
    }

    pub(crate) fn matches(&self, value_of: impl Fn(&str) -> String) -> bool {
        self.0.iter().all(|r| (value_of(&r.field) == r.value) == r.equal)
    }
}

/// Whether a field is one that every resource has.
pub(crate) fn is_name(field: &str) -> bool {
    matches!(field, "metadata.name" | "metadata.namespace")
}

/// The value of a selectable field, as text; empty when the object does not have it.
pub(crate) fn field_text(object: &Value, path: &str) -> String {
    let found = path
        .trim_start_matches('.')
        .split('.')
        .try_fold(object, |value, part| value.get(part));
    match found {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn split_unescaped(text: &str, separator: char) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == separator && !escaped {
            terms.push(String::new());
            continue;
        }
        escaped = c == '\\' && !escaped;
        if let Some(term) = terms.last_mut() {
            term.push(c);
        }
    }
    terms
}

fn split_operator(term: &str) -> Option<(&str, &str, bool)> {
    let mut escaped = false;
    for (i, c) in term.char_indices() {
        if escaped {
            escaped = false;
            continue;
        }
        let rest = &term[i..];
        if c == '\\' {
            escaped = true;
        } else if let Some(value) = rest.strip_prefix("!=") {
            return Some((&term[..i], value, false));
        } else if let Some(value) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
            return Some((&term[..i], value, true));
        }
    }
    None
}

fn unescape(value: &str) -> Option<String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                c @ ('\\' | ',' | '=') => out.push(c),
                _ => return None,
            },
            ',' | '=' => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn labels(text: &str) -> bool {
        let have = [("app", "web"), ("tier", "2"), ("empty", "")];
        Labels::parse(text)
            .unwrap()
            .matches(|key| have.iter().find(|(k, _)| *k == key).map(|(_, v)| *v))
    }

    #[test]
    fn label_selectors() {
        for yes in [
            "",
            "app=web",
            "app==web",
            "app = web , tier",
            "app in (db, web)",
            "app notin (db)",
            "!gone",
            "other!=x",
            "other notin (x)",
            "tier>1",
            "tier < 3",
            "empty=",
            "empty in (,x)",
            "app!=db,tier",
        ] {
            assert!(labels(yes), "{yes}");
        }
        for no in [
            "app=db",
            "app in (db)",
            "app notin (web,db)",
            "gone",
            "!app",
            "app!=web",
            "tier>2",
            "app>1",
            "app=",
        ] {
            assert!(!labels(no), "{no}");
        }
        for bad in [
            "=x",
            "app in db",
            "app in (a",
            "a b",
            "app=a b",
            "app=web,",
            "x y=z",
            "app>a",
            "a/b/c",
            "app=web;x",
        ] {
            assert_eq!(Labels::parse(bad).unwrap_err().code, 400, "{bad}");
        }
    }

    #[test]
    fn field_selectors() {
        let object = json!({"metadata": {"name": "a,b"}, "spec": {"tier": "big", "n": 3}});
        let matches = |text: &str| {
            let fields = Fields::parse(text, |f| f != "spec.other").unwrap();
            fields.matches(|f| field_text(&object, f))
        };
        for yes in [
            "",
            "metadata.name=a\\,b",
            "spec.tier==big",
            "spec.tier!=small,spec.n=3",
            "spec.gone=",
            "spec.n!=4",
        ] {
            assert!(matches(yes), "{yes}");
        }
        assert!(!matches("spec.tier=small"));
        for bad in ["spec.other=1", "spec.tier", "spec.tier=a=b", "spec.tier=a\\"] {
            assert_eq!(
                Fields::parse(bad, |f| f != "spec.other").unwrap_err().code,
                400,
                "{bad}"
            );
        }
        let exact = Fields::parse("metadata.name=x,spec.tier!=y", |_| true).unwrap();
        assert_eq!(
            (exact.exact("metadata.name"), exact.exact("spec.tier")),
            (Some("x"), None)
        );
        assert!(!exact.only_names());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,40}") {
            let _ = Labels::parse(&text);
            let _ = Fields::parse(&text, |_| true);
        }

        #[test]
        fn escaped_values_come_back(value in "[a-z,=\\\\]{0,12}") {
            let escaped = value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            let fields = Fields::parse(&format!("spec.x={escaped}"), |_| true).unwrap();
            prop_assert_eq!(fields.exact("spec.x"), Some(value.as_str()));
        }
    }
}
