//! One version of a definition: schema, subresources, columns, selectable fields.

use std::cmp::Ordering;

use serde_json::Value;

use super::names::label_problem;
use crate::{
    kinds::Scale,
    schema::{
        Structural,
        node::{Node, Type},
        path::Path,
    },
    status::Cause,
    table::{Column, JsonPath, Source},
};

/// A kind may have this many selectable fields.
const MAX_SELECTABLE_FIELDS: u64 = 8;

/// A version that was accepted.
pub(super) struct Version {
    pub(super) name: String,
    pub(super) schema: Value,
    pub(super) structural: Structural,
    pub(super) status_subresource: bool,
    pub(super) scale: Option<Scale>,
    pub(super) columns: Vec<Column>,
    pub(super) selectable_fields: Vec<String>,
    /// Set for a deprecated version, with its own warning if it has one.
    pub(super) deprecation: Option<Option<String>>,
}

/// Reads one entry of `spec.versions`; `None` if it has no usable schema.
pub(super) fn parse(entry: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) -> Option<Version> {
    let name = entry["name"].as_str().unwrap_or_default();
    if let Some(problem) = label_problem(name) {
        causes.push(Cause::invalid(&path.field("name"), &Value::from(name), &problem));
    }
    let deprecation = deprecation(entry, path, causes);
    let status_subresource = entry["subresources"]["status"].is_object();
    let scale = scale(entry, path, causes);
    let columns = columns(entry, path, causes);

    let parent = path.field("schema");
    let here = parent.field("openAPIV3Schema");
    let schema = &entry["schema"]["openAPIV3Schema"];
    if schema.is_null() {
        causes.push(Cause::required(&here, ""));
        return None;
    }
    if status_subresource {
        root_keywords(schema, &here, causes);
    }
    let structural = match Structural::compile(schema, &here) {
        Ok(structural) => structural,
        Err(problems) => {
            causes.extend(problems);
            return None;
        }
    };
    let selectable_fields = selectable_fields(entry, structural.root(), path, causes);
    Some(Version {
        name: name.to_owned(),
        schema: schema.clone(),
        structural,
        status_subresource,
        scale,
        columns,
        selectable_fields,
        deprecation,
    })
}

fn deprecation(entry: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) -> Option<Option<String>> {
    let deprecated = entry["deprecated"] == Value::Bool(true);
    let warning = entry["deprecationWarning"].as_str();
    if let Some(warning) = warning {
        let problem = if !deprecated {
            Some("can only be set for deprecated versions")
        } else if warning.len() > 256 {
            Some("must be <= 256 characters long")
        } else if warning.is_empty() {
            Some("must not be an empty string")
        } else if warning.chars().any(char::is_control) {
            Some("must only contain printable UTF-8 characters")
        } else {
            None
        };
        if let Some(problem) = problem {
            let here = path.field("deprecationWarning");
            causes.push(Cause::invalid(&here, &Value::from(warning), problem));
        }
    }
    deprecated.then(|| warning.map(str::to_owned))
}

/// With a status subresource, the root of the schema may hold only what does not reach into `status`.
fn root_keywords(schema: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) {
    const ALLOWED: [&str; 23] = [
        "description",
        "type",
        "format",
        "title",
        "maximum",
        "exclusiveMaximum",
        "minimum",
        "exclusiveMinimum",
        "maxLength",
        "minLength",
        "pattern",
        "maxItems",
        "minItems",
        "uniqueItems",
        "multipleOf",
        "required",
        "items",
        "properties",
        "externalDocs",
        "example",
        "nullable",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
    ];
    for keyword in schema.as_object().into_iter().flat_map(|map| map.keys()) {
        if !ALLOWED.contains(&keyword.as_str()) {
            let detail = "not allowed at the root of the schema if the status subresource is enabled";
            causes.push(Cause::forbidden(&path.field(keyword), detail));
        }
    }
}

fn scale(entry: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) -> Option<Scale> {
    let scale = entry["subresources"]["scale"].as_object()?;
    let parent = path.field("subresources");
    let here = parent.field("scale");
    let text = |key: &str| scale.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut check = |key: &'static str, required: bool, roots: &[&str], detail: &str| {
        let value = text(key);
        let at = here.field(key);
        if value.is_empty() {
            if required {
                causes.push(Cause::required(&at, ""));
            }
        } else if !value.starts_with('.') {
            let detail = "must be a simple json path starting with .";
            causes.push(Cause::invalid(&at, &Value::from(value), detail));
        } else if !roots.iter().any(|root| value.starts_with(root)) {
            causes.push(Cause::invalid(&at, &Value::from(value), detail));
        }
    };
    check(
        "specReplicasPath",
        true,
        &[".spec."],
        "should be a json path under .spec",
    );
    check(
        "statusReplicasPath",
        true,
        &[".status."],
        "should be a json path under .status",
    );
    check(
        "labelSelectorPath",
        false,
        &[".spec.", ".status."],
        "should be a json path under either .spec or .status",
    );
    Some(Scale {
        spec_path: text("specReplicasPath").to_owned(),
        status_path: text("statusReplicasPath").to_owned(),
        selector_path: Some(text("labelSelectorPath").to_owned()).filter(|path| !path.is_empty()),
    })
}

fn columns(entry: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) -> Vec<Column> {
    let list = path.field("additionalPrinterColumns");
    let entries = entry["additionalPrinterColumns"].as_array().into_iter().flatten();
    entries
        .enumerate()
        .filter_map(|(index, entry)| column(entry, &list.index(index), causes))
        .collect()
}

fn column(entry: &Value, path: &Path<'_>, causes: &mut Vec<Cause>) -> Option<Column> {
    let text = |key: &str| entry[key].as_str().unwrap_or_default();
    let before = causes.len();
    if text("name").is_empty() {
        causes.push(Cause::required(&path.field("name"), ""));
    }
    let types = "must be one of boolean,date,integer,number,string";
    match text("type") {
        "boolean" | "date" | "integer" | "number" | "string" => {}
        "" => causes.push(Cause::required(&path.field("type"), types)),
        other => causes.push(Cause::invalid(&path.field("type"), &Value::from(other), types)),
    }
    match text("format") {
        "" | "int32" | "int64" | "float" | "double" | "byte" | "date" | "date-time" | "password" => {}
        other => {
            let detail = "must be one of byte,date,date-time,double,float,int32,int64,password";
            causes.push(Cause::invalid(&path.field("format"), &Value::from(other), detail));
        }
    }
    let source = text("jsonPath");
    let here = path.field("JSONPath");
    let refuse = |detail: &str| Cause::invalid(&here, &Value::from(source), detail);
    let parsed = if source.is_empty() {
        causes.push(Cause::required(&here, ""));
        None
    } else if !source.starts_with('.') {
        causes.push(refuse("must be a simple json path starting with ."));
        None
    } else {
        JsonPath::parse(source)
            .map_err(|problem| causes.push(refuse(&problem)))
            .ok()
    };
    if causes.len() > before {
        return None;
    }
    Some(Column {
        name: text("name").to_owned(),
        // The finished text of an age is what travels; the type says so that clients may sort.
        kind: text("type").to_owned(),
        format: text("format").to_owned(),
        description: text("description").to_owned(),
        priority: entry["priority"]
            .as_i64()
            .and_then(|p| i32::try_from(p).ok())
            .unwrap_or(0),
        source: Source::Path(parsed?),
    })
}

fn selectable_fields(entry: &Value, schema: &Node, path: &Path<'_>, causes: &mut Vec<Cause>) -> Vec<String> {
    let list = path.field("selectableFields");
    let mut fields: Vec<String> = Vec::new();
    for (index, entry) in entry["selectableFields"].as_array().into_iter().flatten().enumerate() {
        let item = list.index(index);
        let here = item.field("jsonPath");
        let text = entry["jsonPath"].as_str().unwrap_or_default();
        let shown = Value::from(text);
        if text.is_empty() {
            causes.push(Cause::required(&here, ""));
        } else if text.starts_with(".metadata") {
            causes.push(Cause::invalid(&here, &shown, "must not point to fields in metadata"));
        } else if fields.iter().any(|other| other == text) {
            causes.push(Cause::duplicate(&here, &shown));
        } else {
            match field_type(text, schema) {
                None => {
                    let detail = "is an invalid path: does not refer to a valid field";
                    causes.push(Cause::invalid(&here, &shown, detail));
                }
                Some(Some(Type::String | Type::Boolean | Type::Integer)) => fields.push(text.to_owned()),
                Some(_) => {
                    let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings \
                                  with formats are allowed.";
                    causes.push(Cause::invalid(&here, &shown, detail));
                }
            }
        }
    }
    if fields.len() as u64 > MAX_SELECTABLE_FIELDS {
        causes.push(Cause::too_many(&list, fields.len(), MAX_SELECTABLE_FIELDS));
    }
    fields
}

/// The type of the field at a path of plain names; `None` if there is no such field.
fn field_type(path: &str, schema: &Node) -> Option<Option<Type>> {
    let names = path.strip_prefix('.')?;
    names
        .split('.')
        .try_fold(schema, |node, name| node.properties.get(name))
        .map(|node| node.kind)
}

/// Orders versions by preference: stable before beta before alpha, newer before older, other names last.
pub(in crate::kinds) fn order(a: &str, b: &str) -> Ordering {
    rank(b).cmp(&rank(a)).then_with(|| a.cmp(b))
}

/// Stability, major and minor number of names such as `v1`, `v2beta3`.
fn rank(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let major = rest[..digits].parse().ok()?;
    let (stability, minor) = match &rest[digits..] {
        "" => return Some((2, major, 0)),
        tail => match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
            (Some(minor), _) => (1, minor),
            (_, Some(minor)) => (0, minor),
            _ => return None,
        },
    };
    Some((stability, major, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::order;

    #[test]
    fn stable_and_new_versions_come_first() {
        let mut versions = [
            "v1alpha1",
            "foo1",
            "v2beta1",
            "v10",
            "v1",
            "v11alpha2",
            "v2",
            "v2beta2",
            "v1x",
        ];
        versions.sort_by(|a, b| order(a, b));
        assert_eq!(
            versions,
            [
                "v10",
                "v2",
                "v1",
                "v2beta2",
                "v2beta1",
                "v11alpha2",
                "v1alpha1",
                "foo1",
                "v1x"
            ]
        );
    }
}
