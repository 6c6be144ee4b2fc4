//! `/scale`: the number of replicas of an object, in the one form that every kind shares.

use serde_json::{Map, Value, json};

use super::update::{self, Edit, Part};
use super::{Target, WriteOptions, Written, metadata};
use crate::cluster::Cluster;
use crate::kinds::Scale;
use crate::patch;
use crate::status::{ApiError, Cause};

/// The `autoscaling/v1 Scale` of an object.
pub(crate) fn of(scale: &Scale, object: &Value) -> Value {
    let number = |path: &str| at(object, path).and_then(Value::as_i64).unwrap_or(0);
    let mut status = json!({"replicas": number(&scale.status_path)});
    if let Some(selector) = scale.selector_path.as_deref().and_then(|path| at(object, path)) {
        status["selector"] = selector.clone();
    }
    let mut fields = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = metadata::of(object).get(field) {
            fields.insert(field.to_owned(), value.clone());
        }
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": fields,
        "spec": {"replicas": number(&scale.spec_path)}, "status": status})
}

/// Changes the number of replicas; `edit` is about the Scale, not about the object.
pub(crate) async fn update(
    cluster: &Cluster,
    target: &Target,
    scale: &Scale,
    edit: &Edit,
    options: &WriteOptions,
) -> Result<Written, ApiError> {
    let object = super::read::get(cluster, target, super::read::Freshness::Newest)?;
    let live = of(scale, &super::convert::view(&target.resource, &object));
    let wanted = match edit {
        Edit::Replace(body) => body.clone(),
        Edit::JsonPatch(operations) => patch::json_patch(&live, operations).map_err(update::patch_failed)?,
        Edit::MergePatch(merge) | Edit::StrategicMergePatch(merge) | Edit::Apply { patch: merge, .. } => {
            patch::merge_patch(&live, merge).map_err(update::patch_failed)?
        }
    };
    let replicas = &wanted["spec"]["replicas"];
    let invalid = |cause| Err(ApiError::invalid("autoscaling", "Scale", &target.name, vec![cause]));
    match replicas.as_i64() {
        None if replicas.is_null() => return invalid(Cause::required("spec.replicas", "")),
        None => return invalid(Cause::type_invalid("spec.replicas", replicas, "must be an integer")),
        Some(n) if n < 0 => {
            return invalid(Cause::invalid(
                "spec.replicas",
                replicas,
                "must be greater than or equal to 0",
            ));
        }
        Some(_) => {}
    }
    let mut change = nested(&scale.spec_path, replicas.clone());
    // A version in a PUT, or one that a patch sets, is a precondition. An unchanged one of a patch is not.
    let version = metadata::text(&wanted, "resourceVersion");
    if matches!(edit, Edit::Replace(_)) || version != metadata::text(&live, "resourceVersion") {
        change["metadata"] = json!({"resourceVersion": version});
    }
    update::update(cluster, target, Part::Scale, &Edit::MergePatch(change), options).await
}

fn segments(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.trim_start_matches('.').split('.')
}

fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    segments(path).try_fold(object, |value, field| value.get(field))
}

fn nested(path: &str, value: Value) -> Value {
    segments(path).rev().fold(value, |inner, field| json!({ field: inner }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_read_by_path() {
        let scale = Scale {
            spec_path: ".spec.replicas".into(),
            status_path: ".status.ready.count".into(),
            selector_path: Some(".status.selector".into()),
        };
        let object = json!({"metadata": {"name": "a", "resourceVersion": "3", "labels": {}},
            "spec": {"replicas": 2}, "status": {"ready": {"count": 1}, "selector": "app=a"}});
        let found = of(&scale, &object);
        assert_eq!(found["spec"]["replicas"], 2);
        assert_eq!(found["status"], json!({"replicas": 1, "selector": "app=a"}));
        assert_eq!(found["metadata"], json!({"name": "a", "resourceVersion": "3"}));
        assert_eq!(nested(".spec.a.b", json!(3)), json!({"spec": {"a": {"b": 3}}}));
    }
}
