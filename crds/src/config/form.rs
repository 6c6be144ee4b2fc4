//! The form of the file: names, types and ranges, checked against the JSON schema of the model.
//!
//! The schema is the one that schemars derives, so that a range is written once, on the type. Stricter than serde: every
//! figure must be written, and only what may be absent (`null`, lists) may be left out, because a figure that is taken
//! from a default without anybody's knowledge is how limits get lost.

use super::error::Problem;
use super::model::Config;
use super::tree::{Data, Key, Node, Place};
use serde_json::{Map, Value};

/// Checks `root` against the model's schema and gives everything that is wrong.
pub(super) fn check(root: &Node) -> Vec<Problem> {
    let mut checker = Checker { problems: Vec::new() };
    checker.value(&schema(), root, "");
    checker.problems
}

/// The schema of the whole file, without references: only so do ranges of a field reach a type that is defined apart.
fn schema() -> Value {
    let settings =
        schemars::generate::SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<Config>().to_value()
}

struct Checker {
    problems: Vec<Problem>,
}

impl Checker {
    fn report(&mut self, at: Place, path: &str, found: impl Into<String>, expected: impl Into<String>) {
        let (path, found, expected) = (path.to_owned(), found.into(), expected.into());
        self.problems.push(Problem {
            line: at.line,
            column: at.column,
            path,
            found,
            expected,
        });
    }

    fn value(&mut self, schema: &Value, node: &Node, path: &str) {
        if node.data == Data::Null && may_be_null(schema) {
            return;
        }
        let schema = unless_null(schema);
        let fits = match &node.data {
            Data::Map(entries) if has_type(schema, "object") => {
                self.map(schema, entries, node.at, path);
                true
            }
            Data::List(items) if has_type(schema, "array") => {
                let below = schema.get("items").cloned().unwrap_or_default();
                for (index, item) in items.iter().enumerate() {
                    self.value(&below, item, &format!("{path}[{index}]"));
                }
                let limit = schema.get("maxItems").and_then(Value::as_u64);
                limit.is_none_or(|limit| items.len() as u64 <= limit)
            }
            Data::Text(text) if has_type(schema, "string") || choices(schema).is_some() => text_fits(schema, text),
            Data::Bool(_) => has_type(schema, "boolean"),
            Data::Int(value) => {
                (has_type(schema, "integer") || has_type(schema, "number")) && in_range(schema, *value as f64)
            }
            Data::Float(value) => has_type(schema, "number") && in_range(schema, *value),
            _ => false,
        };
        if !fits {
            self.report(node.at, path, format!("is {}", node.in_words()), in_words(schema));
        }
    }

    fn map(&mut self, schema: &Value, entries: &[(Key, Node)], at: Place, path: &str) {
        let none = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
        let below = |name: &str| {
            if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}.{name}")
            }
        };
        for (key, value) in entries {
            match properties.get(&key.name) {
                Some(property) => self.value(property, value, &below(&key.name)),
                None => {
                    let names: Vec<&str> = properties.keys().map(String::as_str).collect();
                    let expected = match nearest(&key.name, &names) {
                        Some(near) => format!("`{near}`"),
                        None => format!("one of {}", names.join(", ")),
                    };
                    self.report(key.at, &below(&key.name), "is not a known field", expected);
                }
            }
        }
        for (name, property) in properties {
            let resolved = unless_null(property);
            let optional = may_be_null(property) || has_type(resolved, "array");
            if !optional && !entries.iter().any(|(key, _)| key.name == *name) {
                let expected = in_words(resolved);
                self.report(at, &below(name), "is missing", expected);
            }
        }
    }
}

/// What a schema asks for, in words.
fn in_words(schema: &Value) -> String {
    if let Some(choices) = choices(schema) {
        return format!("one of {}", choices.join(", "));
    }
    let number = |key: &str| schema.get(key).and_then(Value::as_f64);
    let range = match (number("minimum"), number("maximum")) {
        (Some(low), Some(high)) => format!(" from {low} to {high}"),
        (Some(low), None) => format!(" of at least {low}"),
        (None, Some(high)) => format!(" of at most {high}"),
        (None, None) => String::new(),
    };
    let texts = |key: &str, before: &str, after: &str| {
        schema.get(key).map(|value| {
            format!(
                "{before}{}{after}",
                value.as_str().map_or(value.to_string(), str::to_owned)
            )
        })
    };
    if has_type(schema, "integer") {
        format!("an integer{range}")
    } else if has_type(schema, "number") {
        format!("a number{range}")
    } else if has_type(schema, "boolean") {
        "true or false".to_owned()
    } else if has_type(schema, "string") {
        let length = texts("maxLength", " of at most ", " characters").unwrap_or_default();
        let pattern = texts("pattern", " that matches ", "").unwrap_or_default();
        format!("a text{length}{pattern}")
    } else if has_type(schema, "array") {
        let limit = texts("maxItems", " of at most ", " items").unwrap_or_default();
        format!("a list{limit}")
    } else {
        let properties = schema.get("properties").and_then(Value::as_object);
        let names: Vec<&str> = properties
            .iter()
            .flat_map(|map| map.keys())
            .map(String::as_str)
            .collect();
        format!("a map with {}", names.join(", "))
    }
}

/// The schema of the value itself where `null` is an alternative.
fn unless_null(schema: &Value) -> &Value {
    let alternatives = schema.get("anyOf").and_then(Value::as_array);
    alternatives
        .and_then(|all| all.iter().find(|one| !is_null_type(one)))
        .unwrap_or(schema)
}

fn is_null_type(schema: &Value) -> bool {
    schema.get("type").and_then(Value::as_str) == Some("null")
}

fn may_be_null(schema: &Value) -> bool {
    has_type(schema, "null")
        || schema
            .get("anyOf")
            .and_then(Value::as_array)
            .is_some_and(|all| all.iter().any(is_null_type))
}

fn has_type(schema: &Value, name: &str) -> bool {
    match schema.get("type") {
        Some(Value::String(one)) => one == name,
        Some(Value::Array(several)) => several.iter().any(|one| one == name),
        _ => false,
    }
}

/// The texts of an enumeration, which schemars writes as `enum`, or as `oneOf` with one `const` per documented variant.
fn choices(schema: &Value) -> Option<Vec<&str>> {
    if let Some(all) = schema.get("enum").and_then(Value::as_array) {
        return Some(all.iter().filter_map(Value::as_str).collect());
    }
    let all = schema.get("oneOf").and_then(Value::as_array)?;
    let several = all.iter().flat_map(|one| match (one.get("const"), one.get("enum")) {
        (Some(Value::String(text)), _) => vec![text.as_str()],
        (_, Some(Value::Array(texts))) => texts.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    });
    Some(several.collect())
}

fn in_range(schema: &Value, value: f64) -> bool {
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    bound("minimum").is_none_or(|low| value >= low) && bound("maximum").is_none_or(|high| value <= high)
}

fn text_fits(schema: &Value, text: &str) -> bool {
    if let Some(choices) = choices(schema) {
        return choices.contains(&text);
    }
    let length = text.chars().count() as u64;
    let bound = |key: &str| schema.get(key).and_then(Value::as_u64);
    let pattern = schema.get("pattern").and_then(Value::as_str);
    bound("minLength").is_none_or(|low| length >= low)
        && bound("maxLength").is_none_or(|high| length <= high)
        // A pattern that is not valid would refuse everything; a test compiles them all.
        && pattern.is_none_or(|pattern| regex::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text)))
}

/// The name that was probably meant: the one with the fewest changed letters, if they are few.
fn nearest<'a>(typed: &str, names: &[&'a str]) -> Option<&'a str> {
    let distance = |name: &str| edits(&typed.to_lowercase(), &name.to_lowercase());
    let best = names.iter().map(|name| (distance(name), *name)).min()?;
    (best.0 <= typed.chars().count().div_ceil(3)).then_some(best.1)
}

/// Levenshtein's distance.
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let change = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_misspelt_name_is_told_from_an_unknown_one() {
        let names = ["nodeMiB", "perDatabaseMiB"];
        assert_eq!(nearest("nodeMB", &names), Some("nodeMiB"));
        assert_eq!(nearest("NODEMIB", &names), Some("nodeMiB"));
        assert_eq!(nearest("colour", &names), None);
    }

    #[test]
    fn every_pattern_of_the_schema_is_valid() {
        fn visit(value: &Value, seen: &mut usize) {
            if let Some(pattern) = value.get("pattern").and_then(Value::as_str) {
                regex::Regex::new(pattern).unwrap();
                *seen += 1;
            }
            match value {
                Value::Object(map) => map.values().for_each(|below| visit(below, seen)),
                Value::Array(items) => items.iter().for_each(|below| visit(below, seen)),
                _ => {}
            }
        }
        let mut seen = 0;
        visit(&schema(), &mut seen);
        assert!(seen > 5, "{seen}");
        assert!(
            !schema().to_string().contains("$ref"),
            "a reference would hide its type"
        );
    }
}
