//! What differs from kind to kind and is not said by a schema.

use serde_json::{Value, json};

use super::metadata::{self, NameRule};
use crate::cluster::Cluster;
use crate::kinds::{self, Resource};
use crate::status::{ApiError, Cause};

/// The finalizer of a CustomResourceDefinition whose objects still exist.
pub(crate) const DEFINITION_CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The built-in kinds that need care of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Special {
    Namespace,
    Secret,
    Event,
    Lease,
    Definition,
    /// A built-in kind without peculiarities.
    OtherBuiltin,
    /// A kind of a CustomResourceDefinition.
    Custom,
}

pub(crate) fn special(resource: &Resource) -> Special {
    if !resource.builtin {
        return Special::Custom;
    }
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "namespaces") => Special::Namespace,
        ("", "secrets") => Special::Secret,
        ("" | "events.k8s.io", "events") => Special::Event,
        ("coordination.k8s.io", "leases") => Special::Lease,
        ("apiextensions.k8s.io", "customresourcedefinitions") => Special::Definition,
        _ => Special::OtherBuiltin,
    }
}

pub(crate) fn name_rule(resource: &Resource) -> NameRule {
    match special(resource) {
        Special::Namespace => NameRule::Label,
        _ => NameRule::Subdomain,
    }
}

/// Whether `metadata.generation` counts the changes of the wanted state.
fn has_generation(resource: &Resource) -> bool {
    matches!(special(resource), Special::Custom | Special::Definition)
}

/// Whether a PUT without `resourceVersion` replaces whatever is there.
pub(crate) fn allows_unconditional_update(resource: &Resource) -> bool {
    !matches!(
        special(resource),
        Special::Custom | Special::Definition | Special::Lease
    )
}

/// Whether a PUT of an object that does not exist creates it.
pub(crate) fn allows_create_on_update(resource: &Resource) -> bool {
    matches!(special(resource), Special::Lease | Special::Event)
}

/// Completes an object that is about to be created.
pub(crate) fn prepare_create(resource: &Resource, new: &mut Value) {
    if resource.status_subresource
        && let Some(map) = new.as_object_mut()
    {
        map.remove("status");
    }
    if has_generation(resource) {
        metadata::of_mut(new).insert("generation".into(), json!(1));
    }
    match special(resource) {
        Special::Namespace => {
            let name = metadata::text(new, "name").to_owned();
            let labels = metadata::of_mut(new).entry("labels").or_insert_with(|| json!({}));
            labels["kubernetes.io/metadata.name"] = json!(name);
            new["spec"] = json!({"finalizers": ["kubernetes"]});
            new["status"] = json!({"phase": "Active"});
        }
        Special::Secret => kinds::merge_secret_string_data(new),
        Special::Definition => {
            complete_definition_names(new);
            let mut finalizers: Vec<String> = metadata::finalizers(new).map(str::to_owned).collect();
            finalizers.push(DEFINITION_CLEANUP.to_owned());
            finalizers.dedup();
            metadata::set_finalizers(new, &finalizers);
            new["status"] = definition_status(new, None);
        }
        Special::Event | Special::Lease | Special::OtherBuiltin | Special::Custom => {}
    }
}

/// Completes an object that is about to replace `old`.
pub(crate) fn prepare_update(resource: &Resource, new: &mut Value, old: &Value) {
    match special(resource) {
        Special::Namespace => {
            // Only /finalize changes the finalizers in the spec, only /status the status.
            for field in ["spec", "status"] {
                new[field] = old[field].clone();
            }
            let name = metadata::text(new, "name").to_owned();
            let labels = metadata::of_mut(new).entry("labels").or_insert_with(|| json!({}));
            labels["kubernetes.io/metadata.name"] = json!(name);
        }
        Special::Secret => kinds::merge_secret_string_data(new),
        Special::Definition => {
            complete_definition_names(new);
            new["status"] = definition_status(new, Some(&old["status"]));
        }
        Special::Event | Special::Lease | Special::OtherBuiltin | Special::Custom => {}
    }
    if has_generation(resource) && wanted_state_differs(resource, new, old) {
        let generation = metadata::of(old).get("generation").and_then(Value::as_i64).unwrap_or(0);
        metadata::of_mut(new).insert("generation".into(), json!(generation + 1));
    }
}

/// Whether anything differs but `metadata` and, where it is a subresource, `status`.
fn wanted_state_differs(resource: &Resource, new: &Value, old: &Value) -> bool {
    let status_counts = !resource.status_subresource && special(resource) != Special::Definition;
    let counts = |field: &str| field != "metadata" && (field != "status" || status_counts);
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else {
        return true;
    };
    new.iter()
        .any(|(field, value)| counts(field) && old.get(field) != Some(value))
        || old.keys().any(|field| counts(field) && !new.contains_key(field))
}

/// What is wrong with a complete object. `old` is the stored one of an update.
pub(crate) fn validate(cluster: &Cluster, resource: &Resource, new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::validate(new, name_rule(resource));
    if let Some(old) = old {
        causes.extend(metadata::validate_update(new, old));
    }
    causes.extend(resource.structural.validate(new, old));
    if resource.builtin {
        causes.extend(kinds::validate_builtin(resource, new, old));
    }
    if special(resource) == Special::Definition && causes.is_empty() {
        let unchanged = old.is_some_and(|old| old["spec"] == new["spec"]);
        if !unchanged {
            causes.extend(cluster.check_definition(new));
        }
    }
    causes
}

/// Whether an object with these contents is to be removed for good: it is being deleted, and nothing holds it.
pub(crate) fn is_released(resource: &Resource, object: &Value) -> bool {
    let held_by_content = special(resource) == Special::Namespace
        && object["spec"]["finalizers"]
            .as_array()
            .is_some_and(|list| !list.is_empty());
    metadata::of(object).contains_key("deletionTimestamp")
        && metadata::finalizers(object).next().is_none()
        && !held_by_content
}

/// Changes that a deletion makes besides the ones in `metadata`.
pub(crate) fn prepare_deletion(resource: &Resource, object: &mut Value) {
    match special(resource) {
        Special::Namespace => object["status"] = json!({"phase": "Terminating"}),
        Special::Definition => set_condition(
            &mut object["status"],
            "Terminating",
            "True",
            "InstanceDeletionPending",
            "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        ),
        _ => {}
    }
}

/// Refuses the deletion of what has to stay.
pub(crate) fn may_delete(cluster: &Cluster, resource: &Resource, name: &str) -> Result<(), ApiError> {
    if special(resource) == Special::Namespace && cluster.permanent_namespaces.contains(name) {
        return Err(ApiError::forbidden(
            "",
            "namespaces",
            name,
            "this namespace may not be deleted",
        ));
    }
    Ok(())
}

/// Refuses new objects of a kind whose definition is being deleted.
pub(crate) fn may_create(cluster: &Cluster, resource: &Resource) -> Result<(), ApiError> {
    if special(resource) != Special::Custom {
        return Ok(());
    }
    let key = crate::store::Key::new(&crate::cluster::DEFINITIONS.into(), "", &resource.group_resource());
    if cluster
        .store
        .get(&key)
        .is_some_and(|definition| definition.facts.deleting)
    {
        let mut error = ApiError::method_not_allowed(&resource.group, &resource.plural, "create");
        error.message = "create not allowed while custom resource definition is terminating".to_owned();
        return Err(error);
    }
    Ok(())
}

fn complete_definition_names(definition: &mut Value) {
    let Some(spec) = definition.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    if spec.get("conversion").is_none_or(Value::is_null) {
        spec.insert("conversion".to_owned(), json!({"strategy": "None"}));
    }
    let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut) else {
        return;
    };
    let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    for (field, value) in [("listKind", format!("{kind}List")), ("singular", kind.to_lowercase())] {
        let missing = names.get(field).and_then(Value::as_str).unwrap_or_default().is_empty();
        if missing && !kind.is_empty() {
            names.insert(field.to_owned(), json!(value));
        }
    }
}

fn definition_status(definition: &Value, old: Option<&Value>) -> Value {
    let spec = &definition["spec"];
    let mut status = old
        .filter(|s| s.is_object())
        .cloned()
        .unwrap_or_else(|| json!({"conditions": []}));
    status["acceptedNames"] = spec["names"].clone();
    let mut versions: Vec<Value> = status["storedVersions"].as_array().cloned().unwrap_or_default();
    let storage = spec["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|v| v["storage"] == json!(true));
    if let Some(name) = storage.and_then(|v| v.get("name"))
        && !versions.contains(name)
    {
        versions.push(name.clone());
    }
    status["storedVersions"] = json!(versions);
    set_condition(
        &mut status,
        "NamesAccepted",
        "True",
        "NoConflicts",
        "no conflicts found",
    );
    set_condition(
        &mut status,
        "Established",
        "True",
        "InitialNamesAccepted",
        "the initial names have been accepted",
    );
    status
}

/// Sets a condition; its transition time moves only when its status does.
pub(crate) fn set_condition(status: &mut Value, kind: &str, value: &str, reason: &str, message: &str) {
    if !status.is_object() {
        *status = json!({});
    }
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(conditions) = status["conditions"].as_array_mut() else {
        return;
    };
    let known = conditions.iter_mut().find(|c| c["type"] == kind);
    let same = known.as_ref().is_some_and(|c| c["status"] == value);
    let since = match &known {
        Some(condition) if same => condition["lastTransitionTime"].clone(),
        _ => json!(metadata::now()),
    };
    let condition = json!({"type": kind, "status": value, "reason": reason, "message": message,
        "lastTransitionTime": since});
    match known {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn definitions_are_completed_and_accepted() {
        let mut crd = json!({"spec": {"group": "g.dev", "names": {"kind": "Thing", "plural": "things"},
            "versions": [{"name": "v1", "storage": false}, {"name": "v2", "storage": true}]}});
        complete_definition_names(&mut crd);
        assert_eq!(crd["spec"]["names"]["listKind"], "ThingList");
        assert_eq!(crd["spec"]["names"]["singular"], "thing");
        let mut status = definition_status(&crd, None);
        assert_eq!(status["storedVersions"], json!(["v2"]));
        assert_eq!(status["conditions"].as_array().unwrap().len(), 2);
        status["conditions"][0]["lastTransitionTime"] = json!("2020-01-01T00:00:00Z");
        let again = definition_status(&crd, Some(&status));
        assert_eq!(again, status, "nothing moves when nothing changed");
    }
}
