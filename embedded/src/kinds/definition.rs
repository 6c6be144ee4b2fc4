//! From a CustomResourceDefinition to the resources that it defines.

mod names;
mod version;

use serde_json::{Map, Value};

pub(super) use version::order as version_order;

use super::{Registry, Resource};
use crate::{
    schema::{format::is_dns_subdomain, path::Path},
    status::Cause,
};

/// A definition as far as its fields have the types they should have; empty where they have not.
struct Definition<'c> {
    crd: &'c Value,
    spec: &'c Value,
}

impl<'c> Definition<'c> {
    fn text(&self, key: &str) -> &'c str {
        self.spec[key].as_str().unwrap_or_default()
    }

    fn versions(&self) -> &'c [Value] {
        self.spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default()
    }
}

/// The served versions of the definition, the preferred one first.
///
/// # Errors
/// Everything that is wrong with it, with paths that start at the definition.
pub(super) fn resources(crd: &Value, registry: &Registry) -> Result<Vec<Resource>, Vec<Cause>> {
    let definition = Definition {
        crd,
        spec: &crd["spec"],
    };
    let mut causes = Vec::new();
    let root = Path::named("spec");
    let names = names::check(&definition, registry, &root.field("names"), &mut causes);
    group_and_scope(&definition, &root, &mut causes);
    storage(&definition, &root, &mut causes);
    conversion(&definition, &root, &mut causes);

    let list = root.field("versions");
    let storage_version = definition
        .versions()
        .iter()
        .find(|version| version["storage"] == Value::Bool(true))
        .and_then(|version| version["name"].as_str())
        .unwrap_or_default();
    let mut resources = Vec::new();
    for (index, entry) in definition.versions().iter().enumerate() {
        let parsed = version::parse(entry, &list.index(index), &mut causes);
        if entry["served"] != Value::Bool(true) {
            continue;
        }
        if let (Some(parsed), Some(names)) = (parsed, &names) {
            resources.push(Resource {
                group: definition.text("group").to_owned(),
                version: parsed.name,
                kind: names.kind.clone(),
                list_kind: names.list_kind.clone(),
                plural: names.plural.clone(),
                singular: names.singular.clone(),
                short_names: names.short_names.clone(),
                categories: names.categories.clone(),
                namespaced: definition.text("scope") == "Namespaced",
                schema: parsed.schema,
                structural: parsed.structural,
                status_subresource: parsed.status_subresource,
                scale: parsed.scale,
                columns: parsed.columns,
                selectable_fields: parsed.selectable_fields,
                builtin: false,
                storage_version: storage_version.to_owned(),
                deprecation: parsed.deprecation.map(|sentence| {
                    sentence.unwrap_or_else(|| {
                        format!(
                            "{}/{} {} is deprecated",
                            definition.text("group"),
                            version_name(entry),
                            names.kind
                        )
                    })
                }),
            });
        }
    }
    if !causes.is_empty() {
        return Err(causes);
    }
    resources.sort_by(|a, b| version_order(&a.version, &b.version));
    Ok(resources)
}

fn version_name(entry: &Value) -> &str {
    entry["name"].as_str().unwrap_or_default()
}

fn group_and_scope(definition: &Definition<'_>, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let (group, here) = (definition.text("group"), path.field("group"));
    if group.is_empty() {
        causes.push(Cause::required(&here, ""));
    } else if !is_dns_subdomain(group) {
        let detail = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
                      must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
                      '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
        causes.push(Cause::invalid(&here, &Value::from(group), detail));
    } else if !group.contains('.') {
        let detail = "should be a domain with at least one dot";
        causes.push(Cause::invalid(&here, &Value::from(group), detail));
    }
    let (scope, here) = (definition.text("scope"), path.field("scope"));
    match scope {
        "Cluster" | "Namespaced" => {}
        "" => causes.push(Cause::required(&here, "")),
        other => causes.push(Cause::not_supported(
            &here,
            &Value::from(other),
            &["Cluster", "Namespaced"],
        )),
    }
}

/// Exactly one version is the one to store, and versions have different names.
fn storage(definition: &Definition<'_>, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let here = path.field("versions");
    let versions = definition.versions();
    let shown = Value::from(versions.iter().map(version_name).collect::<Vec<_>>());
    let repeated = (1..versions.len()).any(|index| {
        versions[..index]
            .iter()
            .any(|earlier| version_name(earlier) == version_name(&versions[index]))
    });
    if repeated {
        causes.push(Cause::invalid(&here, &shown, "must contain unique version names"));
    }
    let stored = versions
        .iter()
        .filter(|version| version["storage"] == Value::Bool(true))
        .count();
    if stored != 1 {
        let detail = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid(&here, &shown, detail));
    }
}

fn conversion(definition: &Definition<'_>, path: &Path<'_>, causes: &mut Vec<Cause>) {
    let strategy = &definition.spec["conversion"]["strategy"];
    let here = path.field("conversion");
    match strategy.as_str() {
        None | Some("None") => {}
        Some("Webhook") => {
            let detail = "conversion webhooks are not supported by this server; versions may differ in apiVersion only";
            causes.push(Cause::invalid(&here.field("strategy"), strategy, detail));
        }
        Some(_) => causes.push(Cause::not_supported(
            &here.field("strategy"),
            strategy,
            &["None", "Webhook"],
        )),
    }
    if definition.spec["preserveUnknownFields"] == Value::Bool(true) {
        let here = path.field("preserveUnknownFields");
        causes.push(Cause::invalid(&here, &Value::from(true), "must be false"));
    }
}

/// The strings of a list; anything else in it is left to the schema of definitions to refuse.
fn texts(map: &Map<String, Value>, key: &str) -> Vec<String> {
    map.get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|text| text.as_str().map(str::to_owned))
        .collect()
}
