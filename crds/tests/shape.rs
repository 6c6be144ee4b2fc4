//! What `kubectl` and controllers rely on in every CustomResourceDefinition.
#![allow(clippy::unwrap_used)]

use graphplane_crds::{GROUP, VERSION, all_crds};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use std::collections::{BTreeMap, BTreeSet};

fn version(crd: &CustomResourceDefinition) -> &CustomResourceDefinitionVersion {
    assert_eq!(crd.spec.versions.len(), 1);
    &crd.spec.versions[0]
}

fn schema(crd: &CustomResourceDefinition) -> &JSONSchemaProps {
    version(crd)
        .schema
        .as_ref()
        .unwrap()
        .open_api_v3_schema
        .as_ref()
        .unwrap()
}

fn property<'a>(schema: &'a JSONSchemaProps, path: &[&str]) -> Option<&'a JSONSchemaProps> {
    path.iter()
        .try_fold(schema, |schema, name| schema.properties.as_ref()?.get(*name))
}

#[test]
fn names_scopes_and_the_category() {
    let named: BTreeMap<String, (Vec<String>, String)> = all_crds()
        .into_iter()
        .map(|crd| {
            assert_eq!(crd.spec.group, GROUP);
            assert_eq!(version(&crd).name, VERSION);
            assert!(version(&crd).served && version(&crd).storage);
            assert_eq!(
                crd.spec.names.categories.as_deref(),
                Some(&["graphplane".to_owned()][..])
            );
            let short = crd.spec.names.short_names.clone().unwrap_or_default();
            (crd.spec.names.kind.clone(), (short, crd.spec.scope.clone()))
        })
        .collect();
    let expected = [
        ("Backup", "gb", "Namespaced"),
        ("BackupSchedule", "gbs", "Namespaced"),
        ("Graph", "gr", "Namespaced"),
        ("GraphNode", "gn", "Cluster"),
        ("GraphVolume", "gv", "Cluster"),
        ("Replica", "rep", "Namespaced"),
        ("Subgraph", "sg", "Namespaced"),
        ("Tier", "gt", "Cluster"),
    ];
    let expected: BTreeMap<_, _> = expected
        .into_iter()
        .map(|(kind, short, scope)| (kind.to_owned(), (vec![short.to_owned()], scope.to_owned())))
        .collect();
    assert_eq!(named, expected);
}

#[test]
fn the_first_column_says_whether_it_is_ready_and_every_column_exists() {
    for crd in all_crds() {
        let kind = &crd.spec.names.kind;
        let columns = version(&crd).additional_printer_columns.as_ref().unwrap();
        assert_eq!(
            columns[0].name,
            if kind == "Backup" { "Phase" } else { "Ready" },
            "{kind}"
        );
        assert_eq!(columns.last().unwrap().name, "Age", "{kind}");
        for column in columns {
            let path = column.json_path.trim_start_matches('.');
            // A filter's element is any item of the list; what stands before it and in it is in the schema.
            let path = path.split("[?(").next().unwrap().split('[').next().unwrap();
            if !path.starts_with("metadata.") {
                let steps: Vec<&str> = path.split('.').collect();
                assert!(
                    property(schema(&crd), &steps).is_some(),
                    "{kind}: column {} reads {path}",
                    column.name
                );
            }
        }
    }
}

#[test]
fn selectable_fields_exist_in_the_schema() {
    let mut seen = 0;
    for crd in all_crds() {
        for field in version(&crd).selectable_fields.iter().flatten() {
            let steps: Vec<&str> = field.json_path.trim_start_matches('.').split('.').collect();
            assert!(
                property(schema(&crd), &steps).is_some(),
                "{}: {}",
                crd.spec.names.kind,
                field.json_path
            );
            seen += 1;
        }
    }
    assert!(seen >= 10, "{seen}");
}

#[test]
fn status_is_a_subresource_with_the_observed_generation() {
    for crd in all_crds() {
        let kind = &crd.spec.names.kind;
        let subresources = version(&crd).subresources.as_ref().unwrap();
        assert!(subresources.status.is_some(), "{kind}");
        assert_eq!(subresources.scale.is_some(), kind == "Replica", "{kind}");
        let observed = property(schema(&crd), &["status", "observedGeneration"]).unwrap();
        assert_eq!(observed.format.as_deref(), Some("int64"), "{kind}");
    }
}

#[test]
fn conditions_are_a_map_by_type_and_complete() {
    for crd in all_crds() {
        let kind = &crd.spec.names.kind;
        let conditions = property(schema(&crd), &["status", "conditions"]).unwrap();
        assert_eq!(conditions.x_kubernetes_list_type.as_deref(), Some("map"), "{kind}");
        assert_eq!(
            conditions.x_kubernetes_list_map_keys.as_deref(),
            Some(&["type".to_owned()][..]),
            "{kind}"
        );
        let Some(JSONSchemaPropsOrArray::Schema(item)) = &conditions.items else {
            panic!("{kind}: no item schema")
        };
        let required: BTreeSet<&str> = item.required.iter().flatten().map(String::as_str).collect();
        assert_eq!(
            required,
            BTreeSet::from(["lastTransitionTime", "message", "reason", "status", "type"]),
            "{kind}"
        );
    }
}

/// Calls `visit` with the path of every property below a schema.
fn each_property(schema: &JSONSchemaProps, path: &str, visit: &mut dyn FnMut(&str, &JSONSchemaProps)) {
    for (name, below) in schema.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        visit(&path, below);
        each_property(below, &path, visit);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items {
        each_property(item, &format!("{path}[]"), visit);
    }
}

#[test]
fn every_property_is_described() {
    let mut undescribed = Vec::new();
    let mut count = 0;
    for crd in all_crds() {
        assert!(
            schema(&crd)
                .description
                .as_ref()
                .is_some_and(|text| text.ends_with('.')),
            "{}",
            crd.spec.names.kind
        );
        each_property(schema(&crd), &crd.spec.names.kind, &mut |path, property| {
            count += 1;
            // The status as a whole is described by its type, which kube replaces; its fields count.
            if !path.ends_with(".status") && property.description.as_ref().is_none_or(|text| text.trim().is_empty()) {
                undescribed.push(path.to_owned());
            }
        });
    }
    assert_eq!(undescribed, Vec::<String>::new());
    assert!(count > 200, "{count}");
}

#[test]
fn lists_and_texts_of_specs_are_bounded() {
    // CEL cost limits of a Kubernetes API server, and memory of the embedded one, depend on bounds.
    let mut unbounded = Vec::new();
    for crd in all_crds() {
        let spec = property(schema(&crd), &["spec"]).unwrap();
        each_property(spec, &crd.spec.names.kind, &mut |path, property| {
            let of_type = |name| property.type_.as_deref() == Some(name);
            let bounded = property.enum_.is_some() || property.max_length.is_some() || property.format.is_some();
            let text = of_type("string") && !bounded;
            // A list of words of an enumeration cannot grow beyond them in sense, but it can in bytes.
            let list = of_type("array") && property.max_items.is_none();
            if text || list {
                unbounded.push(path.to_owned());
            }
        });
    }
    assert_eq!(unbounded, Vec::<String>::new());
}

#[test]
fn the_schema_is_structural() {
    // Kubernetes refuses a CRD whose schema leaves a type open, unless it says int-or-string or preserves what it does
    // not know.
    for crd in all_crds() {
        each_property(schema(&crd), &crd.spec.names.kind, &mut |path, property| {
            let open = property.x_kubernetes_int_or_string == Some(true)
                || property.x_kubernetes_preserve_unknown_fields == Some(true);
            assert!(property.type_.is_some() || open, "{path} has no type");
            assert!(property.ref_path.is_none(), "{path} is a reference");
            assert!(
                property.any_of.is_none() && property.one_of.is_none() || property.type_.is_some() || open,
                "{path} has its type in an alternative"
            );
        });
    }
}
