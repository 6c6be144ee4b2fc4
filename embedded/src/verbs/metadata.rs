//! `metadata`: its shape, its rules, and the fields that belong to the server.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::names;
use crate::status::{ApiError, Cause};

const MAX_ANNOTATION_BYTES: usize = 256 << 10;

/// The fields of ObjectMeta and their JSON types.
const FIELDS: [(&str, Shape); 15] = [
    ("annotations", Shape::Strings),
    ("creationTimestamp", Shape::Time),
    ("deletionGracePeriodSeconds", Shape::Integer),
    ("deletionTimestamp", Shape::Time),
    ("finalizers", Shape::StringList),
    ("generateName", Shape::String),
    ("generation", Shape::Integer),
    ("labels", Shape::Strings),
    ("managedFields", Shape::ObjectList),
    ("name", Shape::String),
    ("namespace", Shape::String),
    ("ownerReferences", Shape::ObjectList),
    ("resourceVersion", Shape::String),
    ("selfLink", Shape::String),
    ("uid", Shape::String),
];

#[derive(Clone, Copy, PartialEq)]
enum Shape {
    String,
    Integer,
    Time,
    Strings,
    StringList,
    ObjectList,
}

impl Shape {
    fn fits(self, value: &Value) -> bool {
        match self {
            Self::String => value.is_string(),
            Self::Integer => value.is_i64(),
            Self::Time => value.as_str().is_some_and(|t| t.parse::<jiff::Timestamp>().is_ok()),
            Self::Strings => value
                .as_object()
                .is_some_and(|m| m.values().all(|v| v.is_string() || v.is_null())),
            Self::StringList => value.as_array().is_some_and(|l| l.iter().all(Value::is_string)),
            Self::ObjectList => value.as_array().is_some_and(|l| l.iter().all(Value::is_object)),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Integer => "an integer",
            Self::Time => "a time as in RFC 3339",
            Self::Strings => "an object of strings",
            Self::StringList => "a list of strings",
            Self::ObjectList => "a list of objects",
        }
    }
}

/// Now, as Kubernetes writes times: RFC 3339 in UTC, whole seconds.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The `metadata` of an object that [`normalise`] has seen.
pub(crate) fn of(object: &Value) -> &Map<String, Value> {
    static EMPTY: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
    object.get("metadata").and_then(Value::as_object).unwrap_or(&EMPTY)
}

/// A text field of `metadata`, empty when it is absent.
pub(crate) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    of(object).get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The `metadata` of `object`, made an object if it is none.
pub(crate) fn of_mut(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    let metadata = &mut object["metadata"];
    if !metadata.is_object() {
        *metadata = json!({});
    }
    match metadata {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

/// Brings `metadata` into the shape that is stored: unknown fields go (their paths are returned), so do empty ones.
pub(crate) fn normalise(object: &mut Value) -> Result<Vec<String>, ApiError> {
    if !object.is_object() {
        return Err(ApiError::bad_request("the object provided is not a JSON object"));
    }
    if object.get("metadata").is_some_and(|m| !m.is_object() && !m.is_null()) {
        return Err(ApiError::bad_request("metadata: must be an object"));
    }
    let metadata = of_mut(object);
    let mut unknown = Vec::new();
    for (field, value) in metadata.iter() {
        match FIELDS.binary_search_by(|(name, _)| (*name).cmp(field)) {
            Err(_) => unknown.push(format!("metadata.{field}")),
            Ok(i) if !value.is_null() && !FIELDS[i].1.fits(value) => {
                let problem = format!("metadata.{field}: must be {}, is {value}", FIELDS[i].1.name());
                return Err(ApiError::bad_request(problem));
            }
            Ok(_) => {}
        }
    }
    metadata.retain(|field, value| {
        if let Some(map) = value.as_object_mut() {
            // A null value of a label reads as the empty string, as Go's decoder does.
            map.values_mut().filter(|v| v.is_null()).for_each(|v| *v = json!(""));
        }
        let empty = match value {
            Value::Null => true,
            Value::String(s) => s.is_empty(),
            // An empty list of managers is a wish: that ownership starts anew.
            Value::Array(list) => list.is_empty() && field != "managedFields",
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        !empty && FIELDS.binary_search_by(|(name, _)| (*name).cmp(field)).is_ok()
    });
    metadata.remove("selfLink");
    Ok(unknown)
}

/// How the names of a kind are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameRule {
    Subdomain,
    Label,
}

/// What is wrong with the metadata of an object.
pub(crate) fn validate(object: &Value, rule: NameRule) -> Vec<Cause> {
    let mut causes = Vec::new();
    let name = text(object, "name");
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    } else {
        let problems = match rule {
            NameRule::Subdomain => names::subdomain(name),
            NameRule::Label => names::label(name),
        };
        causes.extend(
            problems
                .iter()
                .map(|p| Cause::invalid("metadata.name", &json!(name), p)),
        );
    }
    for (key, value) in entries(object, "labels") {
        causes.extend(
            names::qualified(key)
                .iter()
                .map(|p| Cause::invalid("metadata.labels", &json!(key), p)),
        );
        let value = value.as_str().unwrap_or_default();
        causes.extend(
            names::label_value(value)
                .iter()
                .map(|p| Cause::invalid("metadata.labels", &json!(value), p)),
        );
    }
    let mut bytes = 0;
    for (key, value) in entries(object, "annotations") {
        let lower = key.to_lowercase();
        causes.extend(
            names::qualified(&lower)
                .iter()
                .map(|p| Cause::invalid("metadata.annotations", &json!(key), p)),
        );
        bytes += key.len() + value.as_str().unwrap_or_default().len();
    }
    if bytes > MAX_ANNOTATION_BYTES {
        causes.push(Cause::too_long("metadata.annotations", MAX_ANNOTATION_BYTES as u64));
    }
    for finalizer in finalizers(object) {
        causes.extend(
            names::qualified(finalizer)
                .iter()
                .map(|p| Cause::invalid("metadata.finalizers", &json!(finalizer), p)),
        );
    }
    let both = [FOREGROUND, ORPHAN].iter().all(|f| finalizers(object).any(|x| x == *f));
    if both {
        let detail = format!("{ORPHAN} and {FOREGROUND} cannot be both set");
        causes.push(Cause::invalid(
            "metadata.finalizers",
            &of(object)["finalizers"],
            &detail,
        ));
    }
    owner_references(object, &mut causes);
    causes
}

fn owner_references(object: &Value, causes: &mut Vec<Cause>) {
    let Some(list) = of(object).get("ownerReferences").and_then(Value::as_array) else {
        return;
    };
    let mut controller: Option<&str> = None;
    for (i, owner) in list.iter().enumerate() {
        let at = |field: &str| format!("metadata.ownerReferences[{i}].{field}");
        for (field, detail) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "kind must not be empty"),
            ("name", "name must not be empty"),
            ("uid", "uid must not be empty"),
        ] {
            if owner[field].as_str().unwrap_or_default().is_empty() {
                causes.push(Cause::invalid(at(field), &owner[field], detail));
            }
        }
        if owner["controller"].as_bool() == Some(true) {
            let name = owner["name"].as_str().unwrap_or_default();
            if let Some(first) = controller.replace(name) {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                );
                causes.push(Cause::invalid(
                    "metadata.ownerReferences",
                    &Value::Array(list.clone()),
                    &detail,
                ));
            }
        }
    }
}

/// What an update changes that it may not change. `new` has been completed by [`keep_system_fields`].
pub(crate) fn validate_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        let (new, old) = (of(new).get(field), of(old).get(field));
        if new != old {
            let shown = new.cloned().unwrap_or_default();
            causes.push(Cause::invalid(
                format!("metadata.{field}"),
                &shown,
                "field is immutable",
            ));
        }
    }
    if of(old).contains_key("deletionTimestamp") {
        let added: Vec<&str> = finalizers(new)
            .filter(|f| finalizers(old).all(|known| known != *f))
            .collect();
        if !added.is_empty() {
            let listed: Vec<String> = added.iter().map(|f| format!("{f:?}")).collect();
            causes.push(Cause::forbidden(
                "metadata.finalizers",
                &format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    listed.join(", ")
                ),
            ));
        }
    }
    causes
}

/// Takes over from the stored object what a client may leave out and may not change.
pub(crate) fn keep_system_fields(new: &mut Value, old: &Value) {
    let old = of(old);
    let new = of_mut(new);
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        if let (None, Some(value)) = (new.get(field), old.get(field)) {
            new.insert(field.to_owned(), value.clone());
        }
    }
    // generateName and generation are the server's: what a client says about them does not count.
    for field in ["generation", "generateName"] {
        match old.get(field) {
            Some(value) => new.insert(field.to_owned(), value.clone()),
            None => new.remove(field),
        };
    }
}

/// Finalizer of an object that waits for its dependents to be gone.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an object whose dependents have to be released first.
pub(crate) const ORPHAN: &str = "orphan";

/// The finalizers of an object.
pub(crate) fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    of(object)
        .get("finalizers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// Replaces the finalizers of an object; an empty list removes the field.
pub(crate) fn set_finalizers(object: &mut Value, finalizers: &[String]) {
    let metadata = of_mut(object);
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".to_owned(), json!(finalizers));
    }
}

fn entries<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    of(object).get(field).and_then(Value::as_object).into_iter().flatten()
}

/// Whether two versions of an object differ in nothing but their resource version and the times of `managedFields`: a
/// write that changes no more than these is none.
pub(crate) fn same_content(a: &Value, b: &Value) -> bool {
    let (Some(x), Some(y)) = (a.as_object(), b.as_object()) else {
        return a == b;
    };
    let (m, n) = (of(a), of(b));
    same_but(x, y, &["metadata"])
        && same_but(m, n, &["resourceVersion", "managedFields"])
        && same_managers(m.get("managedFields"), n.get("managedFields"))
}

/// Whether two maps have the same fields, apart from some.
fn same_but(a: &Map<String, Value>, b: &Map<String, Value>, but: &[&str]) -> bool {
    let counts = |key: &String| !but.contains(&key.as_str());
    a.keys().filter(|key| counts(key)).count() == b.keys().filter(|key| counts(key)).count()
        && a.iter().all(|(key, value)| !counts(key) || b.get(key) == Some(value))
}

fn same_managers(a: Option<&Value>, b: Option<&Value>) -> bool {
    let (Some(Value::Array(a)), Some(Value::Array(b))) = (a, b) else {
        return a == b;
    };
    let same = |(a, b): (&Value, &Value)| match (a, b) {
        (Value::Object(a), Value::Object(b)) => same_but(a, b, &["time"]),
        _ => a == b,
    };
    a.len() == b.len() && a.iter().zip(b).all(same)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fields(causes: &[Cause]) -> Vec<&str> {
        causes.iter().map(|c| c.field.as_str()).collect()
    }

    #[test]
    fn the_table_of_fields_is_sorted() {
        assert!(FIELDS.windows(2).all(|w| w[0].0 < w[1].0));
    }

    #[test]
    fn normalising_drops_what_is_empty_or_unknown() {
        let mut object = json!({"metadata": {"name": "a", "creationTimestamp": null, "labels": {}, "foo": 1,
            "annotations": {"x": null}, "selfLink": "/x"}});
        assert_eq!(normalise(&mut object).unwrap(), ["metadata.foo"]);
        assert_eq!(object, json!({"metadata": {"name": "a", "annotations": {"x": ""}}}));
        let mut reset = json!({"metadata": {"managedFields": [], "finalizers": []}});
        assert!(normalise(&mut reset).unwrap().is_empty());
        assert_eq!(reset, json!({"metadata": {"managedFields": []}}));
        for bad in [
            json!({"labels": {"a": 1}}),
            json!({"finalizers": "x"}),
            json!({"creationTimestamp": "today"}),
        ] {
            let error = normalise(&mut json!({"metadata": bad})).unwrap_err();
            assert!(error.message.contains("metadata."), "{}", error.message);
        }
        assert!(normalise(&mut json!([1])).is_err());
        assert!(normalise(&mut json!({"metadata": "x"})).is_err());
    }

    #[test]
    fn validation_names_the_field() {
        let object = json!({"metadata": {"name": "A", "labels": {"a b": "x y"}, "annotations": {"/": ""},
            "finalizers": ["a/b/c"], "ownerReferences": [
                {"apiVersion": "v1", "kind": "A", "name": "a", "uid": "1", "controller": true},
                {"apiVersion": "v1", "kind": "A", "name": "b", "uid": "", "controller": true}]}});
        let causes = validate(&object, NameRule::Subdomain);
        let named = fields(&causes);
        for field in [
            "metadata.name",
            "metadata.labels",
            "metadata.annotations",
            "metadata.finalizers",
            "metadata.ownerReferences[1].uid",
            "metadata.ownerReferences",
        ] {
            assert!(named.contains(&field), "{field} in {named:?}");
        }
        assert!(validate(&json!({"metadata": {"name": "a.b"}}), NameRule::Subdomain).is_empty());
        assert!(!validate(&json!({"metadata": {"name": "a.b"}}), NameRule::Label).is_empty());
    }

    #[test]
    fn updates_keep_what_is_the_servers() {
        let old = json!({"metadata": {"name": "a", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z",
            "generation": 3, "deletionTimestamp": "2026-01-02T00:00:00Z", "finalizers": ["a/b"]}});
        let mut new = json!({"metadata": {"name": "a", "generation": 9}});
        keep_system_fields(&mut new, &old);
        assert_eq!(new["metadata"]["generation"], 3);
        assert!(validate_update(&new, &old).is_empty());
        new["metadata"]["uid"] = json!("2");
        set_finalizers(&mut new, &["a/b".into(), "c/d".into()]);
        let causes = validate_update(&new, &old);
        assert_eq!(fields(&causes), ["metadata.uid", "metadata.finalizers"]);
        assert!(causes[1].message.contains("[]string{\"c/d\"}"), "{}", causes[1].message);
    }

    #[test]
    fn sameness_ignores_versions_and_times() {
        let a =
            json!({"metadata": {"resourceVersion": "1", "managedFields": [{"manager": "m", "time": "1"}]}, "spec": 1});
        let mut b =
            json!({"metadata": {"resourceVersion": "2", "managedFields": [{"manager": "m", "time": "2"}]}, "spec": 1});
        assert!(same_content(&a, &b));
        b["status"] = json!({});
        assert!(!same_content(&a, &b) && !same_content(&b, &a));
        for other in [
            json!({"managedFields": [{"manager": "n"}]}),
            json!({"managedFields": []}),
            json!({"name": "x"}),
        ] {
            let c = json!({"metadata": other, "spec": 1});
            assert!(!same_content(&a, &c) && !same_content(&c, &a), "{c}");
        }
    }
}
