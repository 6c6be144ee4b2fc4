//! The built-in kinds. Their schemas are those of Kubernetes itself, by way of the types of `k8s-openapi`.

use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{ConfigMap, Event, Namespace, Secret, ServiceAccount},
        events::v1::Event as NewEvent,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, ObjectMeta, Status},
};
use schemars::{
    JsonSchema,
    generate::{SchemaGenerator, SchemaSettings},
};
use serde_json::{Map, Value, json};

use super::Resource;
use crate::{schema::Structural, table};

/// What Kubernetes knows about a built-in kind beyond its schema.
struct Kind {
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    short_names: &'static [&'static str],
    categories: &'static [&'static str],
    namespaced: bool,
    status_subresource: bool,
    selectable_fields: &'static [&'static str],
    schema: fn() -> Value,
    /// Changes to the generated schema: a pointer to an object in it and what to put there.
    changes: &'static [(&'static str, &'static str, &'static str)],
}

const KINDS: [Kind; 8] = [
    Kind {
        group: "",
        kind: "Namespace",
        plural: "namespaces",
        short_names: &["ns"],
        categories: &[],
        namespaced: false,
        status_subresource: true,
        selectable_fields: &[".status.phase"],
        schema: schema_of::<Namespace>,
        changes: &[CONDITIONS_BY_TYPE[0], CONDITIONS_BY_TYPE[1]],
    },
    Kind {
        group: "",
        kind: "Secret",
        plural: "secrets",
        short_names: &[],
        categories: &[],
        namespaced: true,
        status_subresource: false,
        selectable_fields: &[".type"],
        schema: schema_of::<Secret>,
        changes: &[("/properties/type", "default", "\"Opaque\"")],
    },
    Kind {
        group: "",
        kind: "ConfigMap",
        plural: "configmaps",
        short_names: &["cm"],
        categories: &[],
        namespaced: true,
        status_subresource: false,
        selectable_fields: &[],
        schema: schema_of::<ConfigMap>,
        changes: &[],
    },
    Kind {
        group: "",
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        short_names: &["sa"],
        categories: &[],
        namespaced: true,
        status_subresource: false,
        selectable_fields: &[],
        schema: schema_of::<ServiceAccount>,
        changes: &[
            ("/properties/secrets", "x-kubernetes-list-type", "\"map\""),
            ("/properties/secrets", "x-kubernetes-list-map-keys", "[\"name\"]"),
            ("/properties/secrets/items", "required", "[\"name\"]"),
        ],
    },
    Kind {
        group: "",
        kind: "Event",
        plural: "events",
        short_names: &["ev"],
        categories: &[],
        namespaced: true,
        status_subresource: false,
        selectable_fields: &[],
        schema: schema_of::<Event>,
        changes: &[
            ("/properties/involvedObject", "x-kubernetes-map-type", "\"atomic\""),
            ("/properties/related", "x-kubernetes-map-type", "\"atomic\""),
        ],
    },
    Kind {
        group: "events.k8s.io",
        kind: "Event",
        plural: "events",
        short_names: &["ev"],
        categories: &[],
        namespaced: true,
        status_subresource: false,
        selectable_fields: &[],
        schema: schema_of::<NewEvent>,
        changes: &[
            ("/properties/regarding", "x-kubernetes-map-type", "\"atomic\""),
            ("/properties/related", "x-kubernetes-map-type", "\"atomic\""),
        ],
    },
    Kind {
        group: "coordination.k8s.io",
        kind: "Lease",
        plural: "leases",
        short_names: &[],
        categories: &[],
        namespaced: true,
        status_subresource: false,
        selectable_fields: &[],
        schema: schema_of::<Lease>,
        changes: &[],
    },
    Kind {
        group: "apiextensions.k8s.io",
        kind: "CustomResourceDefinition",
        plural: "customresourcedefinitions",
        short_names: &["crd", "crds"],
        categories: &["api-extensions"],
        namespaced: false,
        status_subresource: true,
        selectable_fields: &[],
        schema: schema_of::<CustomResourceDefinition>,
        changes: &[
            CONDITIONS_BY_TYPE[0],
            CONDITIONS_BY_TYPE[1],
            // A schema of schemas is recursive; what stands there is checked when the definition is taken into use.
            (
                "/properties/spec/properties/versions/items/properties/schema/properties",
                "openAPIV3Schema",
                "{\"type\": \"object\", \"x-kubernetes-preserve-unknown-fields\": true, \"description\": \"The OpenAPI v3 \
                 schema to use for validation and pruning.\"}",
            ),
        ],
    },
];

const CONDITIONS_BY_TYPE: [(&str, &str, &str); 2] = [
    (
        "/properties/status/properties/conditions",
        "x-kubernetes-list-type",
        "\"map\"",
    ),
    (
        "/properties/status/properties/conditions",
        "x-kubernetes-list-map-keys",
        "[\"type\"]",
    ),
];

fn generator(inline: bool) -> SchemaGenerator {
    SchemaSettings::openapi3()
        .with(|settings| {
            settings.inline_subschemas = inline;
            settings.meta_schema = None;
        })
        .into_generator()
}

fn schema_of<T: JsonSchema>() -> Value {
    generator(true).into_root_schema_for::<T>().to_value()
}

/// The schemas of the metadata types that OpenAPI documents share, by their names in Kubernetes, with references to each
/// other (`#/components/schemas/…`).
pub(crate) fn definitions() -> Map<String, Value> {
    let mut generator = generator(false);
    generator.subschema_for::<ObjectMeta>();
    generator.subschema_for::<ListMeta>();
    generator.subschema_for::<DeleteOptions>();
    generator.subschema_for::<Status>();
    generator.take_definitions(true)
}

/// Every built-in kind, compiled.
pub(super) fn resources() -> Vec<Resource> {
    KINDS.iter().filter_map(resource).collect()
}

/// `None` would mean that a schema of Kubernetes is not structural; the tests hold that it never happens.
fn resource(kind: &Kind) -> Option<Resource> {
    let mut schema = (kind.schema)();
    tidy(&mut schema);
    for (pointer, keyword, value) in kind.changes {
        if let (Some(Value::Object(target)), Ok(value)) = (schema.pointer_mut(pointer), serde_json::from_str(value)) {
            target.insert((*keyword).to_owned(), value);
        }
    }
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    Some(Resource {
        group: kind.group.to_owned(),
        version: "v1".to_owned(),
        kind: kind.kind.to_owned(),
        list_kind: format!("{}List", kind.kind),
        plural: kind.plural.to_owned(),
        singular: kind.kind.to_lowercase(),
        short_names: texts(kind.short_names),
        categories: texts(kind.categories),
        namespaced: kind.namespaced,
        structural: Structural::new(&schema).ok()?,
        schema,
        status_subresource: kind.status_subresource,
        scale: None,
        columns: table::builtin_columns(kind.group, kind.kind),
        selectable_fields: texts(kind.selectable_fields),
        builtin: true,
        storage_version: "v1".to_owned(),
        deprecation: None,
    })
}

/// Takes from a generated schema what a structural one has no place for. The metadata of objects is the same for all kinds
/// and handled outside of schemas.
fn tidy(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    for keyword in ["$schema", "title", "components"] {
        map.remove(keyword);
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.insert("metadata".to_owned(), json!({"type": "object"}));
    }
    if let Some(Value::Array(required)) = map.get_mut("required") {
        required.retain(|name| name != "metadata");
    }
    if map.get("required").is_some_and(|list| list == &json!([])) {
        map.remove("required");
    }
}
