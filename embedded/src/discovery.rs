//! Discovery: which groups, versions and resources there are, in the classic and in the aggregated form.
//!
//! Pure functions of a [`Registry`]; whoever serves them may cache the answers for as long as it keeps the registry.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::kinds::{Registry, Resource};

/// Media type of the aggregated form, as asked for in `Accept` and answered in `Content-Type`.
pub const AGGREGATED_MEDIA_TYPE: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// What can be done with objects of every kind.
const VERBS: [&str; 8] = [
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "create",
    "update",
    "watch",
];

/// What can be done with a part of an object.
const SUBRESOURCE_VERBS: [&str; 3] = ["get", "patch", "update"];

/// Questions that are posted and answered at once, without an object that is kept: (group, version, resource, kind).
const REVIEWS: [(&str, &str, &str, &str); 3] = [
    ("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview"),
    (
        "authorization.k8s.io",
        "v1",
        "selfsubjectaccessreviews",
        "SelfSubjectAccessReview",
    ),
    (
        "authorization.k8s.io",
        "v1",
        "selfsubjectrulesreviews",
        "SelfSubjectRulesReview",
    ),
];

/// `GET /api`: `APIVersions` of the core group. `server_address` is `host:port` as the client sees it.
#[must_use]
pub fn core_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

/// `GET /apis`: `APIGroupList`.
#[must_use]
pub fn group_list(registry: &Registry) -> Value {
    let groups: Vec<Value> = groups(registry)
        .into_iter()
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, versions)| classic_group(name, &versions))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `GET /apis/{group}`: `APIGroup`, or `None` (404) for an unknown group.
#[must_use]
pub fn group(registry: &Registry, name: &str) -> Option<Value> {
    if name.is_empty() {
        return None;
    }
    let mut group = classic_group(name, groups(registry).get(name)?);
    group["kind"] = Value::from("APIGroup");
    group["apiVersion"] = Value::from("v1");
    Some(group)
}

/// `GET /api/v1` (empty group) and `GET /apis/{group}/{version}`: `APIResourceList`, or `None` (404).
#[must_use]
pub fn resource_list(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let resources: Vec<Value> = served(registry, group, version)
        .flat_map(|resource| classic_resource(resource))
        .chain(reviews(group, version).map(|(name, kind)| {
            json!({"name": name, "singularName": kind.to_lowercase(), "namespaced": false, "kind": kind, "verbs": ["create"]})
        }))
        .collect();
    if resources.is_empty() {
        return None;
    }
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version(group, version),
        "resources": resources,
    }))
}

/// `GET /api` in the aggregated form.
#[must_use]
pub fn aggregated_core(registry: &Registry) -> Value {
    aggregated(registry, str::is_empty)
}

/// `GET /apis` in the aggregated form.
#[must_use]
pub fn aggregated_groups(registry: &Registry) -> Value {
    aggregated(registry, |name| !name.is_empty())
}

/// All groups with their versions, the preferred one first.
fn groups(registry: &Registry) -> BTreeMap<&str, Vec<&str>> {
    let mut groups = registry.groups();
    for (group, version, ..) in REVIEWS {
        let versions = groups.entry(group).or_default();
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    groups
}

fn served<'r>(registry: &'r Registry, group: &str, version: &str) -> impl Iterator<Item = &'r Arc<Resource>> {
    registry
        .resources()
        .filter(move |resource| resource.group == group && resource.version == version)
}

fn reviews<'r>(group: &'r str, version: &'r str) -> impl Iterator<Item = (&'static str, &'static str)> + 'r {
    REVIEWS
        .into_iter()
        .filter(move |review| (review.0, review.1) == (group, version))
        .map(|(_, _, name, kind)| (name, kind))
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

fn classic_group(name: &str, versions: &[&str]) -> Value {
    let entries: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": group_version(name, version), "version": version}))
        .collect();
    let preferred = entries.first().cloned();
    json!({"name": name, "versions": entries, "preferredVersion": preferred})
}

/// The parts of an object that have an address of their own: (name, kind of what is read there, as (group, version, kind)).
fn subresources(resource: &Resource) -> Vec<(&'static str, [&str; 3], &'static [&'static str])> {
    let own = [resource.group.as_str(), &resource.version, &resource.kind];
    let mut parts: Vec<(_, _, &[&str])> = Vec::new();
    if resource.builtin && resource.kind == "Namespace" {
        parts.push(("finalize", own, &["update"]));
    }
    if resource.scale.is_some() {
        parts.push(("scale", ["autoscaling", "v1", "Scale"], &SUBRESOURCE_VERBS));
    }
    if resource.status_subresource {
        parts.push(("status", own, &SUBRESOURCE_VERBS));
    }
    parts
}

/// The entry of a resource, followed by those of its subresources.
fn classic_resource(resource: &Resource) -> Vec<Value> {
    let mut entry = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": VERBS,
        "storageVersionHash": storage_version_hash(resource),
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    let mut entries = vec![entry];
    for (name, [group, version, kind], verbs) in subresources(resource) {
        let mut part = json!({
            "name": format!("{}/{name}", resource.plural),
            "singularName": "",
            "namespaced": resource.namespaced,
            "kind": kind,
            "verbs": verbs,
        });
        if (group, version) != (resource.group.as_str(), resource.version.as_str()) {
            part["group"] = Value::from(group);
            part["version"] = Value::from(version);
        }
        entries.push(part);
    }
    entries
}

fn aggregated(registry: &Registry, wanted: fn(&str) -> bool) -> Value {
    let items: Vec<Value> = groups(registry)
        .into_iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .into_iter()
                .map(|version| {
                    let resources: Vec<Value> = served(registry, name, version)
                        .map(|resource| aggregated_resource(resource))
                        .chain(reviews(name, version).map(|(review, kind)| {
                            json!({
                                "resource": review,
                                "singularResource": kind.to_lowercase(),
                                "scope": "Cluster",
                                "responseKind": {"group": name, "version": version, "kind": kind},
                                "verbs": ["create"],
                            })
                        }))
                        .collect();
                    json!({"version": version, "freshness": "Current", "resources": resources})
                })
                .collect();
            // The core group has no name, and metadata without one.
            let metadata = if name.is_empty() {
                json!({})
            } else {
                json!({"name": name})
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    })
}

fn aggregated_resource(resource: &Resource) -> Value {
    let mut entry = json!({
        "resource": resource.plural,
        "singularResource": resource.singular,
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "verbs": VERBS,
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    let parts: Vec<Value> = subresources(resource)
        .into_iter()
        .map(|(name, [group, version, kind], verbs)| {
            json!({
                "subresource": name,
                "responseKind": {"group": group, "version": version, "kind": kind},
                "verbs": verbs,
            })
        })
        .collect();
    if !parts.is_empty() {
        entry["subresources"] = Value::from(parts);
    }
    entry
}

/// A short hash of the version that objects are stored in; clients compare it to notice a change.
fn storage_version_hash(resource: &Resource) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let text = format!("{}/{}/{}", resource.group, resource.storage_version, resource.kind);
    let digest = Sha256::digest(text.as_bytes());
    STANDARD.encode(&digest[..8])
}

#[cfg(test)]
mod tests;
