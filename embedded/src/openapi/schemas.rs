//! The `components.schemas` of the documents.

use serde_json::{Map, Value, json};

use crate::kinds::{self, Resource};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should \
                           convert recognized schemas to the latest internal value, and may reject unrecognized values. \
                           More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";

const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this \
                    from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: \
                    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

/// Where a schema of this name stands in a document.
pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// A reference with a description beside it; siblings of `$ref` would be ignored.
fn described(name: &str, description: &str) -> Value {
    json!({"allOf": [reference(name)], "default": {}, "description": description})
}

/// The schemas that documents of all groups share: metadata of objects and lists, options, `Status`, `Patch`, `Scale`.
pub(super) fn shared() -> Map<String, Value> {
    let mut schemas = kinds::builtin_definitions();
    // kubectl computes patches of built-in kinds from these; the server merges the same lists the same way.
    for (field, strategy, key) in [("ownerReferences", "merge", Some("uid")), ("finalizers", "merge", None)] {
        let pointer = format!("/properties/{field}");
        let meta = schemas.get_mut(&format!("{META}.ObjectMeta"));
        if let Some(Value::Object(list)) = meta.and_then(|meta| meta.pointer_mut(&pointer)) {
            list.insert("x-kubernetes-patch-strategy".to_owned(), Value::from(strategy));
            list.insert(
                "x-kubernetes-list-type".to_owned(),
                Value::from(if key.is_some() { "map" } else { "set" }),
            );
            if let Some(key) = key {
                list.insert("x-kubernetes-patch-merge-key".to_owned(), Value::from(key));
                list.insert("x-kubernetes-list-map-keys".to_owned(), json!([key]));
            }
        }
    }
    schemas.insert(
        format!("{META}.Patch"),
        json!({
            "description": "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body.",
            "type": "object",
        }),
    );
    schemas.insert(scale_name(), scale());
    schemas
}

/// Name of the schema of `autoscaling/v1 Scale`.
pub(super) fn scale_name() -> String {
    "io.k8s.api.autoscaling.v1.Scale".to_owned()
}

fn scale() -> Value {
    let count = |description: &str| json!({"description": description, "type": "integer", "format": "int32"});
    json!({
        "description": "Scale represents a scaling request for a resource.",
        "type": "object",
        "properties": {
            "apiVersion": {"description": API_VERSION, "type": "string"},
            "kind": {"description": KIND, "type": "string"},
            "metadata": described(&format!("{META}.ObjectMeta"), "Standard object metadata."),
            "spec": {
                "description": "spec defines the behavior of the scale.",
                "type": "object",
                "properties": {"replicas": count("replicas is the desired number of instances.")},
            },
            "status": {
                "description": "status is the current status of the scale. Read-only.",
                "type": "object",
                "properties": {
                    "replicas": count("replicas is the actual number of observed instances."),
                    "selector": {"description": "selector is the label query in string form.", "type": "string"},
                },
                "required": ["replicas"],
            },
        },
        "x-kubernetes-group-version-kind": [{"group": "autoscaling", "version": "v1", "kind": "Scale"}],
    })
}

/// The schemas of these resources and of lists of them.
pub(super) fn of(resources: &[&Resource]) -> Map<String, Value> {
    let mut schemas = Map::new();
    for resource in resources {
        schemas.insert(name(resource), object(resource));
        schemas.insert(list_name(resource), list(resource));
    }
    schemas
}

/// Name of a resource's schema: that of Kubernetes for built-in kinds, otherwise the reversed group, version and kind.
pub(super) fn name(resource: &Resource) -> String {
    format!("{}.{}", package(resource), resource.kind)
}

/// Name of the schema of a list of a resource.
pub(super) fn list_name(resource: &Resource) -> String {
    format!("{}.{}", package(resource), resource.list_kind)
}

fn package(resource: &Resource) -> String {
    let version = &resource.version;
    if resource.builtin {
        return match resource.group.as_str() {
            "" => format!("io.k8s.api.core.{version}"),
            "apiextensions.k8s.io" => {
                format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{version}")
            }
            group => {
                let short = group.split('.').next().unwrap_or(group);
                format!("io.k8s.api.{short}.{version}")
            }
        };
    }
    let mut labels: Vec<&str> = resource.group.split('.').rev().collect();
    labels.push(version);
    labels.join(".")
}

fn group_version_kind(resource: &Resource, kind: &str) -> Value {
    json!([{"group": resource.group, "version": resource.version, "kind": kind}])
}

fn object(resource: &Resource) -> Value {
    let mut schema = resource.schema.clone();
    if !schema.is_object() {
        schema = json!({"type": "object"});
    }
    let properties = &mut schema["properties"];
    if !properties.is_object() {
        *properties = json!({});
    }
    properties["apiVersion"] = json!({"description": API_VERSION, "type": "string"});
    properties["kind"] = json!({"description": KIND, "type": "string"});
    properties["metadata"] = described(
        &format!("{META}.ObjectMeta"),
        "Standard object's metadata. More info: \
         https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
    );
    schema["x-kubernetes-group-version-kind"] = group_version_kind(resource, &resource.kind);
    if !resource.selectable_fields.is_empty() && !resource.builtin {
        let fields: Vec<Value> = resource
            .selectable_fields
            .iter()
            .map(|path| json!({"fieldPath": path.trim_start_matches('.')}))
            .collect();
        schema["x-kubernetes-selectable-fields"] = Value::from(fields);
    }
    schema
}

fn list(resource: &Resource) -> Value {
    json!({
        "description": format!("{} is a list of {}", resource.list_kind, resource.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"description": API_VERSION, "type": "string"},
            "kind": {"description": KIND, "type": "string"},
            "metadata": described(&format!("{META}.ListMeta"), "Standard list metadata."),
            "items": {
                "description": format!("List of {}.", resource.plural),
                "type": "array",
                "items": described(&name(resource), ""),
            },
        },
        "x-kubernetes-group-version-kind": group_version_kind(resource, &resource.list_kind),
    })
}

/// Rewrites schemas for OpenAPI v2: references move, and what v2 has no words for goes.
pub(super) fn to_v2(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(key, value)| {
                // A field may have such a name; as a keyword it has a boolean or a list behind it.
                let keyword = match key.as_str() {
                    "nullable" => value.is_boolean(),
                    "oneOf" | "anyOf" => value.is_array(),
                    "not" => value.is_object() && value.get("type").is_none(),
                    _ => false,
                };
                !keyword
            })
            .map(|(key, value)| match (key.as_str(), value) {
                ("$ref", Value::String(target)) => {
                    let target = target.replace("#/components/schemas/", "#/definitions/");
                    (key, Value::from(target))
                }
                (_, value) => (key, to_v2(value)),
            })
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.into_iter().map(to_v2).collect(),
        scalar => scalar,
    }
}
