//! Checking a value against a schema, keyword by keyword, in the words of kube-apiserver.
//!
//! On updates, parts that did not change are not checked again ("ratcheting"): an object that was stored before its
//! schema became stricter can still be updated elsewhere.

use serde_json::{Number, Value};

use super::{
    node::{Additional, Bound, Node, Type},
    number,
    path::Path,
};
use crate::status::Cause;

/// What came of checking one value against one schema.
#[derive(Debug, Default)]
struct Outcome {
    causes: Vec<Cause>,
    /// How many checks passed: among alternatives that all fail, the one with the most is reported.
    matches: usize,
}

impl Outcome {
    fn valid(&self) -> bool {
        self.causes.is_empty()
    }

    fn merge(&mut self, other: Self) {
        self.causes.extend(other.causes);
        self.matches += other.matches;
    }

    fn refuse(&mut self, cause: Cause) {
        self.causes.push(cause);
    }
}

/// Everything that is wrong with an object; `old` is its stored state, if it has one.
pub(super) fn validate(root: &Node, new: &Value, old: Option<&Value>) -> Vec<Cause> {
    check(root, new, old, &Path::ROOT).causes
}

/// As [`validate`], for a value that stands somewhere in an object or schema.
pub(super) fn validate_at(node: &Node, value: &Value, path: &Path<'_>) -> Vec<Cause> {
    check(node, value, None, path).causes
}

fn check(node: &Node, value: &Value, old: Option<&Value>, path: &Path<'_>) -> Outcome {
    let mut out = Outcome::default();
    if old == Some(value) {
        return out;
    }
    check_type(node, value, path, &mut out);
    if value.is_null() {
        check_enumeration(node, value, path, &mut out);
        return out;
    }
    check_junctors(node, value, path, &mut out);
    match value {
        Value::String(text) => check_string(node, text, path, &mut out),
        Value::Number(number) => check_number(node, number, path, &mut out),
        Value::Array(items) => check_array(node, items, old, path, &mut out),
        _ => {}
    }
    check_enumeration(node, value, path, &mut out);
    if let Value::Object(map) = value {
        check_object(node, map, old, path, &mut out);
    }
    out.matches += 1;
    out
}

/// The name that messages give to the type of a value.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
        Value::Number(number) if number::is_int(number) => "integer",
        Value::Number(_) => "number",
    }
}

fn has_type(kind: Type, value: &Value) -> bool {
    match (kind, value) {
        (Type::Object, Value::Object(_))
        | (Type::Array, Value::Array(_))
        | (Type::String, Value::String(_))
        | (Type::Boolean, Value::Bool(_))
        | (Type::Number, Value::Number(_)) => true,
        (Type::Integer, Value::Number(number)) => number::is_integral(number),
        _ => false,
    }
}

fn check_type(node: &Node, value: &Value, path: &Path<'_>, out: &mut Outcome) {
    let (accepted, wanted) = if node.int_or_string {
        let accepted = has_type(Type::Integer, value) || has_type(Type::String, value);
        (accepted, "integer,string")
    } else if let Some(kind) = node.kind {
        (has_type(kind, value), kind.as_str())
    } else {
        return;
    };
    out.matches += 1;
    if accepted || (value.is_null() && node.nullable) {
        out.matches += 1;
        return;
    }
    // A scalar of the wrong type where a format is declared is reported by format, as kube-apiserver does.
    let (wanted, found) = match (&node.format_name, value) {
        (Some(format), Value::Number(number)) => {
            let found = if number::is_int(number) { "int64" } else { "float64" };
            (format.as_str(), found)
        }
        (Some(format), Value::Bool(_) | Value::Object(_)) => (format.as_str(), ""),
        _ => (wanted, type_name(value)),
    };
    out.refuse(Cause::type_invalid(
        path,
        &Value::from(found),
        &format!("{path} in body must be of type {wanted}: \"{found}\""),
    ));
}

/// `anyOf`, `oneOf`, `allOf` and `not`.
fn check_junctors(node: &Node, value: &Value, path: &Path<'_>, out: &mut Outcome) {
    out.matches += 2;
    let plain = node.any_of.is_empty() && node.one_of.is_empty() && node.all_of.is_empty() && node.not.is_none();
    if plain {
        return;
    }
    let name = path.to_string();
    // These sentences concern the object as a whole, so kube-apiserver gives them no field.
    let whole = |text: String| Cause::invalid("", &Value::from(""), &text);

    if !node.any_of.is_empty() {
        match alternatives(&node.any_of, value, path) {
            Alternatives { first: Some(first), .. } => out.matches += first,
            Alternatives { best, .. } => {
                out.refuse(whole(format!("{name:?} must validate at least one schema (anyOf)")));
                out.merge(best.unwrap_or_default());
            }
        }
    }
    if !node.one_of.is_empty() {
        match alternatives(&node.one_of, value, path) {
            Alternatives {
                valid: 1,
                first: Some(first),
                ..
            } => out.matches += first,
            Alternatives { valid, best, .. } => {
                let detail = match valid {
                    0 => "Found none valid".to_owned(),
                    several => format!("Found {several} valid alternatives"),
                };
                out.refuse(whole(format!(
                    "{name:?} must validate one and only one schema (oneOf). {detail}"
                )));
                if let (0, Some(best)) = (valid, best) {
                    out.merge(best);
                }
            }
        }
    }
    if !node.all_of.is_empty() {
        let mut valid = 0;
        for part in &node.all_of {
            let outcome = check(part, value, None, path);
            valid += usize::from(outcome.valid());
            out.merge(outcome);
        }
        if valid != node.all_of.len() {
            let detail = if valid == 0 { ". None validated" } else { "" };
            out.refuse(whole(format!("{name:?} must validate all the schemas (allOf){detail}")));
        }
    }
    if let Some(not) = &node.not
        && check(not, value, None, path).valid()
    {
        out.refuse(whole(format!("{name:?} must not validate the schema (not)")));
    }
}

struct Alternatives {
    /// How many alternatives accept the value.
    valid: usize,
    /// Passed checks of the first that does.
    first: Option<usize>,
    /// The failure that got furthest.
    best: Option<Outcome>,
}

fn alternatives(nodes: &[Node], value: &Value, path: &Path<'_>) -> Alternatives {
    let mut result = Alternatives {
        valid: 0,
        first: None,
        best: None,
    };
    for node in nodes {
        let outcome = check(node, value, None, path);
        if outcome.valid() {
            result.valid += 1;
            result.first.get_or_insert(outcome.matches);
        } else if result.best.as_ref().is_none_or(|best| outcome.matches > best.matches) {
            result.best = Some(outcome);
        }
    }
    result
}

fn check_string(node: &Node, text: &str, path: &Path<'_>, out: &mut Outcome) {
    out.matches += 1;
    // Counting is linear; the byte length answers most cases at once.
    let length = || text.chars().count() as u64;
    let shown = || Value::from(text);
    if let Some(max) = node.max_length
        && text.len() as u64 > max
        && length() > max
    {
        out.refuse(Cause::too_long(path, max));
    } else if let Some(min) = node.min_length
        && length() < min
    {
        let detail = format!("{path} in body should be at least {min} chars long");
        out.refuse(Cause::invalid(path, &shown(), &detail));
    } else if let Some((source, regex)) = &node.pattern
        && !regex.is_match(text)
    {
        let detail = format!("{path} in body should match '{source}'");
        out.refuse(Cause::invalid(path, &shown(), &detail));
    }
    if let (Some(format), Some(name)) = (node.format, &node.format_name) {
        out.matches += 1;
        if !format.accepts(text) {
            let detail = format!("{path} in body must be of type {name}: {}", crate::status::quote(text));
            out.refuse(Cause::type_invalid(path, &shown(), &detail));
        }
    }
}

fn check_number(node: &Node, value: &Number, path: &Path<'_>, out: &mut Outcome) {
    out.matches += 2;
    if let (Some(kind), Some(format)) = (node.kind, node.format_name.as_deref())
        && !number::fits(value, kind, format)
    {
        // Not tied to the field in kube-apiserver either; the sentence names it.
        let detail = format!(
            "Checked value must be of type {} with format {format} in {path}",
            kind.as_str()
        );
        out.refuse(Cause::invalid("", &Value::from(""), &detail));
    }
    let shown = Value::Number(value.clone());
    if let Some(step) = &node.multiple_of
        && !number::is_multiple(value, step)
    {
        let detail = format!("{path} in body should be a multiple of {}", number::show(step));
        out.refuse(Cause::invalid(path, &shown, &detail));
    }
    let mut bound = |bound: &Option<Bound>, beyond: std::cmp::Ordering, words: &str| {
        let Some(Bound { limit, exclusive }) = bound else {
            return;
        };
        let order = number::compare(value, limit);
        if order == beyond || (*exclusive && order == std::cmp::Ordering::Equal) {
            let or_equal = if *exclusive { "" } else { " or equal to" };
            let detail = format!(
                "{path} in body should be {words} than{or_equal} {}",
                number::show(limit)
            );
            out.refuse(Cause::invalid(path, &shown, &detail));
        }
    };
    bound(&node.minimum, std::cmp::Ordering::Less, "greater");
    bound(&node.maximum, std::cmp::Ordering::Greater, "less");
}

fn check_array(node: &Node, items: &[Value], old: Option<&Value>, path: &Path<'_>, out: &mut Outcome) {
    out.matches += 2;
    if let Some(schema) = &node.items {
        for (index, item) in items.iter().enumerate() {
            let before = node.correlated_item(item, old);
            out.merge(check(schema, item, before, &path.index(index)));
        }
    }
    let size = items.len();
    if let Some(min) = node.min_items
        && (size as u64) < min
    {
        let detail = format!("{path} in body should have at least {min} items");
        out.refuse(Cause::invalid(path, &Value::from(size), &detail));
    }
    if let Some(max) = node.max_items
        && size as u64 > max
    {
        out.refuse(Cause::too_many(path, size, max));
    }
    if node.unique_items && (1..size).any(|index| items[..index].contains(&items[index])) {
        let detail = format!("{path} in body shouldn't contain duplicates");
        out.refuse(Cause::invalid(path, &Value::from(""), &detail));
    }
}

fn check_enumeration(node: &Node, value: &Value, path: &Path<'_>, out: &mut Outcome) {
    out.matches += 1;
    if node.enumeration.is_empty() || node.enumeration.iter().any(|allowed| number::same(allowed, value)) {
        return;
    }
    let supported: Vec<String> = node
        .enumeration
        .iter()
        .map(|allowed| allowed.as_str().map_or_else(|| allowed.to_string(), str::to_owned))
        .collect();
    out.refuse(Cause::not_supported(path, value, &supported));
}

fn check_object(
    node: &Node,
    map: &serde_json::Map<String, Value>,
    old: Option<&Value>,
    path: &Path<'_>,
    out: &mut Outcome,
) {
    out.matches += 1;
    let size = map.len();
    if let Some(min) = node.min_properties
        && (size as u64) < min
    {
        let detail = format!("{path} in body should have at least {min} properties");
        out.refuse(Cause::invalid(path, &Value::from(size), &detail));
    }
    if let Some(max) = node.max_properties
        && size as u64 > max
    {
        out.refuse(Cause::too_many(path, size, max));
    }
    for (name, child) in map {
        let before = old.and_then(|old| old.get(name));
        let here = path.field(name);
        if let Some(property) = node.properties.get(name) {
            out.merge(check(property, child, before, &here));
            continue;
        }
        match &node.additional {
            Additional::Schema(values) => out.merge(check(values, child, before, &here)),
            Additional::None => {
                let detail = format!("{path}.{name} in body is a forbidden property");
                out.refuse(Cause::invalid(path, &Value::from(name.as_str()), &detail));
            }
            Additional::Any | Additional::Unspecified => {}
        }
    }
    for name in &node.required {
        if !map.contains_key(name) {
            out.refuse(Cause::required(&path.field(name), ""));
        }
    }
}
