//! Checks of the built-in kinds that a schema cannot say.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use super::Resource;
use crate::{schema::path::Path, status::Cause};

/// The contents of a Secret or ConfigMap together may have this many bytes.
const MAX_DATA_BYTES: usize = 1 << 20;

/// Longest key of a Secret or ConfigMap, in bytes.
const MAX_KEY_BYTES: usize = 253;

/// Merges the write-only `stringData` of a Secret into `data` (base64) and removes it, as kube-apiserver does on every
/// write. Call it before validation. Values that are not strings stay in `stringData`, for validation to refuse.
pub fn merge_secret_string_data(secret: &mut Value) {
    let Value::Object(object) = secret else { return };
    let Some(Value::Object(plain)) = object.get_mut("stringData") else {
        return;
    };
    let mut merged = Map::new();
    plain.retain(|key, value| match value {
        Value::String(text) => {
            merged.insert(key.clone(), Value::from(STANDARD.encode(text.as_bytes())));
            false
        }
        _ => true,
    });
    if plain.is_empty() {
        object.remove("stringData");
    }
    if merged.is_empty() {
        return;
    }
    let data = object.entry("data").or_insert(Value::Null);
    match data {
        Value::Object(data) => data.extend(merged),
        Value::Null => *data = Value::Object(merged),
        _ => {}
    }
}

/// The checks of built-in kinds that a schema cannot say: keys of Secrets and ConfigMaps are valid file names and their
/// contents of a bearable size, what is immutable does not change, Leases have positive durations, Events are complete.
#[must_use]
pub fn validate_builtin(resource: &Resource, new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Secret") => secret(new, old, &mut causes),
        ("", "ConfigMap") => config_map(new, old, &mut causes),
        ("coordination.k8s.io", "Lease") => lease(new, &mut causes),
        ("", "Event") => same_namespace(new, "involvedObject", &mut causes),
        ("events.k8s.io", "Event") => {
            same_namespace(new, "regarding", &mut causes);
            if old.is_none() {
                complete_event(new, &mut causes);
            }
        }
        _ => {}
    }
    causes
}

fn entries<'v>(object: &'v Value, field: &str) -> impl Iterator<Item = (&'v String, &'v Value)> {
    object.get(field).and_then(Value::as_object).into_iter().flatten()
}

/// Bytes of the decoded values of a base64 map; what cannot be decoded was refused by the schema.
fn decoded_size(object: &Value, field: &str) -> usize {
    entries(object, field)
        .filter_map(|(_, value)| value.as_str())
        .map(|text| (text.len() / 4 * 3).saturating_sub(text.bytes().rev().take_while(|b| *b == b'=').count()))
        .sum()
}

fn secret(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    check_keys(new, "data", causes);
    if decoded_size(new, "data") > MAX_DATA_BYTES {
        causes.push(Cause::too_long("data", MAX_DATA_BYTES as u64));
    }
    let kind = new["type"].as_str().unwrap_or_default();
    let needed: &[&str] = match kind {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    for key in needed {
        if new["data"].get(key).is_none() {
            causes.push(Cause::required(format!("data[{key}]"), ""));
        }
    }
    if let Some(old) = old {
        let before = old["type"].as_str().unwrap_or_default();
        if !before.is_empty() && before != kind {
            causes.push(Cause::invalid("type", &new["type"], "field is immutable"));
        }
        immutable(new, old, &["data"], causes);
    }
}

fn config_map(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    check_keys(new, "data", causes);
    check_keys(new, "binaryData", causes);
    for (key, _) in entries(new, "data").filter(|(key, _)| new["binaryData"].get(key).is_some()) {
        let detail = "duplicate of key present in binaryData";
        causes.push(Cause::invalid(
            &Path::named("data").key(key),
            &Value::from(key.as_str()),
            detail,
        ));
    }
    let plain: usize = entries(new, "data")
        .filter_map(|(_, value)| value.as_str())
        .map(str::len)
        .sum();
    if plain + decoded_size(new, "binaryData") > MAX_DATA_BYTES {
        causes.push(Cause::too_long("", MAX_DATA_BYTES as u64));
    }
    if let Some(old) = old {
        immutable(new, old, &["data", "binaryData"], causes);
    }
}

/// Once `immutable` is set, neither it nor the contents change.
fn immutable(new: &Value, old: &Value, fields: &[&str], causes: &mut Vec<Cause>) {
    if old["immutable"] != Value::Bool(true) {
        return;
    }
    let detail = "field is immutable when `immutable` is set";
    if new["immutable"] != Value::Bool(true) {
        causes.push(Cause::forbidden("immutable", detail));
    }
    for field in fields {
        let empty = Map::new();
        let contents = |object| Value::as_object(object).unwrap_or(&empty);
        if contents(&new[*field]) != contents(&old[*field]) {
            causes.push(Cause::forbidden(*field, detail));
        }
    }
}

fn check_keys(object: &Value, field: &str, causes: &mut Vec<Cause>) {
    for (key, _) in entries(object, field) {
        let mut refuse = |detail: &str| {
            causes.push(Cause::invalid(
                &Path::named(field).key(key),
                &Value::from(key.as_str()),
                detail,
            ));
        };
        if key.len() > MAX_KEY_BYTES {
            refuse(&format!("must be no more than {MAX_KEY_BYTES} characters"));
        }
        let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if key.is_empty() || !key.bytes().all(valid) {
            refuse(
                "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
                 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
            );
        } else if key == "." || key == ".." {
            refuse(&format!("must not be '{key}'"));
        } else if key.starts_with("..") {
            refuse("must not start with '..'");
        }
    }
}

fn lease(new: &Value, causes: &mut Vec<Cause>) {
    let spec = Path::named("spec");
    for (field, least, detail) in [
        ("leaseDurationSeconds", 1, "must be greater than 0"),
        ("leaseTransitions", 0, "must be greater than or equal to 0"),
    ] {
        let value = &new["spec"][field];
        if value.as_i64().is_some_and(|number| number < least) {
            causes.push(Cause::invalid(&spec.field(field), value, detail));
        }
    }
}

/// An Event lives in the namespace of what it is about; Events about cluster-scoped objects live in `default` or
/// `kube-system`.
fn same_namespace(event: &Value, about: &str, causes: &mut Vec<Cause>) {
    let own = event["metadata"]["namespace"].as_str().unwrap_or_default();
    let other = event[about]["namespace"].as_str().unwrap_or_default();
    let matches = if other.is_empty() {
        matches!(own, "" | "default" | "kube-system")
    } else {
        own == other
    };
    if !matches {
        let field = format!("{about}.namespace");
        causes.push(Cause::invalid(
            field,
            &Value::from(other),
            "does not match event.namespace",
        ));
    }
}

/// What `events.k8s.io/v1` asks of a new Event.
fn complete_event(event: &Value, causes: &mut Vec<Cause>) {
    for field in [
        "eventTime",
        "reportingController",
        "reportingInstance",
        "action",
        "reason",
    ] {
        if event[field].as_str().unwrap_or_default().is_empty() {
            causes.push(Cause::required(field, ""));
        }
    }
    let kind = event["type"].as_str().unwrap_or_default();
    if !matches!(kind, "Normal" | "Warning") {
        let detail = format!("has invalid value: {kind}");
        causes.push(Cause::invalid("type", &Value::from(""), &detail));
    }
}
