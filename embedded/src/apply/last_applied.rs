//! The annotation in which `kubectl apply` without `--server-side` keeps what it applied last.
//!
//! `kubectl apply --server-side` may take over such an object without a conflict, and keeps the annotation up to date,
//! so that a user can go back to client-side apply. Both happen for the manager `kubectl` alone.

use super::{
    Conflict,
    field_set::FieldSet,
    go_text,
    typed::{self, Type},
};
use serde_json::Value;

/// The manager for which the annotation counts.
pub(crate) const MANAGER: &str = "kubectl";

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// All annotations of an object together may have this many bytes.
const MAX_ANNOTATIONS_BYTES: usize = 256 * 1024;

/// The conflicts that are not explained by the annotation: those over fields that client-side apply did not set, or
/// that were changed since by somebody else.
pub(crate) fn remaining_conflicts(ty: Type<'_>, live: &Value, conflicts: Vec<Conflict>) -> Vec<Conflict> {
    match own_fields(ty, live) {
        Some(own) => conflicts
            .into_iter()
            .filter(|conflict| !own.has_path(&conflict.path))
            .collect(),
        None => conflicts,
    }
}

fn own_fields(ty: Type<'_>, live: &Value) -> Option<FieldSet> {
    let applied: Value = serde_json::from_str(live["metadata"]["annotations"][ANNOTATION].as_str()?).ok()?;
    if applied["apiVersion"] != live["apiVersion"] || !typed::validate(ty, &applied).is_empty() {
        return None;
    }
    let since = typed::compare(ty, &applied, live);
    let fields = typed::field_set(ty, &applied);
    Some(fields.difference(&since.changed()).difference(&since.removed))
}

/// Brings the annotation up to date with what was applied, if the object has one.
pub(crate) fn refresh(object: &mut Value, config: &Value) {
    let Some(annotations) = object["metadata"].get_mut("annotations").and_then(Value::as_object_mut) else {
        return;
    };
    if annotations
        .get(ANNOTATION)
        .and_then(Value::as_str)
        .is_none_or(str::is_empty)
    {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(ANNOTATION);
    }
    annotations.insert(
        ANNOTATION.to_owned(),
        Value::from(format!("{}\n", go_text::json(&config))),
    );
    let bytes: usize = annotations
        .iter()
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if bytes > MAX_ANNOTATIONS_BYTES {
        annotations.remove(ANNOTATION);
    }
}
