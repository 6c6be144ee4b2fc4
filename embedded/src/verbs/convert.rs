//! Between the form in which objects are stored and the version in which a client asks for them.
//!
//! Versions of a custom resource differ in `apiVersion` only. Events are the exception: `v1` and `events.k8s.io/v1` are
//! two views of one stored object; it is stored as `v1`.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::kinds::Resource;
use crate::store::Object;

/// The names that differ between the two views of an Event: (v1, events.k8s.io/v1).
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// Whether the resource is the newer view of Events.
fn is_new_event(resource: &Resource) -> bool {
    resource.builtin && resource.group == "events.k8s.io" && resource.plural == "events"
}

/// Whether the resource is Events, in either view.
pub(crate) fn is_event(resource: &Resource) -> bool {
    is_new_event(resource) || (resource.builtin && resource.group.is_empty() && resource.plural == "events")
}

/// The name under which the objects of a resource are stored.
pub(crate) fn storage_name(resource: &Resource) -> Arc<str> {
    if is_event(resource) {
        "events".into()
    } else {
        resource.group_resource().into()
    }
}

fn storage_api_version(resource: &Resource) -> String {
    if is_event(resource) {
        "v1".to_owned()
    } else if resource.group.is_empty() {
        resource.storage_version.clone()
    } else {
        format!("{}/{}", resource.group, resource.storage_version)
    }
}

fn rename(value: &mut Value, names: impl Iterator<Item = (&'static str, &'static str)>) {
    let Some(map) = value.as_object_mut() else { return };
    for (from, to) in names {
        if let Some(field) = map.remove(from) {
            map.insert(to.to_owned(), field);
        }
    }
}

/// The object as a client of `resource` sees it.
pub(crate) fn view(resource: &Resource, object: &Object) -> Value {
    let mut value = object.value();
    if is_new_event(resource) {
        rename(&mut value, EVENT_FIELDS.into_iter());
    }
    value["apiVersion"] = json!(resource.api_version());
    value
}

/// As [`view`], as JSON; copies nothing when the stored form is what is asked for.
pub(crate) fn view_bytes(resource: &Resource, object: &Object) -> Bytes {
    if !is_new_event(resource) && *object.facts.api_version == *resource.api_version() {
        object.json.clone()
    } else {
        view(resource, object).to_string().into()
    }
}

/// The stored form of an object that a client of `resource` wrote.
pub(crate) fn stored_form(resource: &Resource, mut value: Value) -> Value {
    if is_new_event(resource) {
        rename(&mut value, EVENT_FIELDS.into_iter().map(|(old, new)| (new, old)));
    }
    value["apiVersion"] = json!(storage_api_version(resource));
    value
}

/// The value of a field for a field selector, as text.
pub(crate) fn field_text(resource: &Resource, view: &Value, field: &str) -> String {
    if is_event(resource) && field == "source" {
        let component = if is_new_event(resource) {
            "deprecatedSource.component"
        } else {
            "source.component"
        };
        let text = super::selector::field_text(view, component);
        return if text.is_empty() {
            field_text(resource, view, "reportingComponent")
        } else {
            text
        };
    }
    if is_event(resource) {
        // Both views accept the names of both.
        let (head, tail) = field.split_once('.').unwrap_or((field, ""));
        let renamed = EVENT_FIELDS
            .into_iter()
            .find_map(|(old, new)| match is_new_event(resource) {
                true if head == old => Some(new),
                false if head == new => Some(old),
                _ => None,
            });
        if let Some(name) = renamed {
            let path = if tail.is_empty() {
                name.to_owned()
            } else {
                format!("{name}.{tail}")
            };
            return super::selector::field_text(view, &path);
        }
    }
    super::selector::field_text(view, field)
}

/// Whether field selectors of this resource may use `field`.
pub(crate) fn selectable(resource: &Resource, field: &str) -> bool {
    const EVENT: [&str; 14] = [
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "regarding.kind",
        "regarding.namespace",
        "regarding.name",
        "regarding.uid",
        "reason",
        "type",
        "source",
    ];
    super::selector::is_name(field)
        || resource
            .selectable_fields
            .iter()
            .any(|f| f.trim_start_matches('.') == field)
        || (is_event(resource)
            && (EVENT.contains(&field) || matches!(field, "reportingComponent" | "reportingController")))
}
