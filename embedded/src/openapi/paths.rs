//! The `paths` of the documents. kubectl reads from them which kind stands behind an address, which patches it may send,
//! and whether the server checks fields (`fieldValidation`).

use serde_json::{Map, Value, json};

use super::schemas;
use crate::kinds::Resource;

const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// The kinds of requests that are described.
#[derive(Clone, Copy)]
enum Verb {
    List,
    Create,
    DeleteCollection,
    Read,
    Replace,
    Patch,
    Delete,
}

impl Verb {
    /// HTTP method, `x-kubernetes-action`, and the word in operation ids.
    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::List => ("get", "list", "list"),
            Self::Create => ("post", "post", "create"),
            Self::DeleteCollection => ("delete", "deletecollection", "deleteCollection"),
            Self::Read => ("get", "get", "read"),
            Self::Replace => ("put", "put", "replace"),
            Self::Patch => ("patch", "patch", "patch"),
            Self::Delete => ("delete", "delete", "delete"),
        }
    }

    fn parameters(self) -> Vec<Value> {
        let text = |name: &str, description: &str| query(name, "string", description);
        let flag = |name: &str, description: &str| query(name, "boolean", description);
        let selection = || {
            vec![
                text("labelSelector", "Restricts the objects by their labels."),
                text("fieldSelector", "Restricts the objects by their fields."),
                query("limit", "integer", "Maximum number of objects in one answer."),
                text("continue", "Position at which an earlier, limited list goes on."),
                text("resourceVersion", "What the answer has to be as new as."),
                text("resourceVersionMatch", "How resourceVersion is applied."),
                query("timeoutSeconds", "integer", "Ends the request after this time."),
            ]
        };
        let write = || {
            vec![
                text("dryRun", "All: checks and answers, but stores nothing."),
                text("fieldManager", "Name of the actor who makes the change."),
                text(
                    "fieldValidation",
                    "Ignore, Warn or Strict: what to do about unknown and duplicate fields.",
                ),
            ]
        };
        match self {
            Self::List => {
                let mut list = selection();
                list.push(flag("watch", "Streams changes instead of listing."));
                list.push(flag("allowWatchBookmarks", "Adds bookmarks to the stream."));
                list.push(flag("sendInitialEvents", "Starts the stream with the present state."));
                list
            }
            Self::Read => Vec::new(),
            Self::Create | Self::Replace => write(),
            Self::Patch => {
                let mut list = write();
                list.push(flag(
                    "force",
                    "Server-side apply takes fields over from other managers.",
                ));
                list
            }
            Self::Delete | Self::DeleteCollection => {
                let mut list = match self {
                    Self::DeleteCollection => selection(),
                    _ => Vec::new(),
                };
                list.push(text("dryRun", "All: checks and answers, but deletes nothing."));
                list.push(query("gracePeriodSeconds", "integer", "Accepted for compatibility."));
                list.push(text("propagationPolicy", "Orphan, Background or Foreground."));
                list
            }
        }
    }
}

fn query(name: &str, kind: &str, description: &str) -> Value {
    json!({"name": name, "in": "query", "description": description, "schema": {"type": kind, "uniqueItems": true}})
}

/// The paths of these resources.
pub(super) fn of(resources: &[&Resource]) -> Map<String, Value> {
    let mut paths = Map::new();
    for resource in resources {
        add(resource, &mut paths);
    }
    paths
}

fn add(resource: &Resource, paths: &mut Map<String, Value>) {
    let object = schemas::name(resource);
    let list = schemas::list_name(resource);
    let all = resource.base_path();
    let collection = if resource.namespaced {
        // Objects of all namespaces can only be listed together.
        let item = item(resource, "ForAllNamespaces", &all, &[(Verb::List, &list)]);
        paths.insert(all.clone(), item);
        let version = all.strip_suffix(&resource.plural).unwrap_or(&all);
        format!("{version}namespaces/{{namespace}}/{}", resource.plural)
    } else {
        all
    };
    let verbs = [
        (Verb::List, list.as_str()),
        (Verb::Create, &object),
        (Verb::DeleteCollection, STATUS),
    ];
    paths.insert(collection.clone(), item(resource, "", &collection, &verbs));
    let one = format!("{collection}/{{name}}");
    let verbs = [
        (Verb::Read, object.as_str()),
        (Verb::Replace, &object),
        (Verb::Patch, &object),
        (Verb::Delete, STATUS),
    ];
    paths.insert(one.clone(), item(resource, "", &one, &verbs));
    let part = |schema| [(Verb::Read, schema), (Verb::Replace, schema), (Verb::Patch, schema)];
    if resource.status_subresource {
        let path = format!("{one}/status");
        paths.insert(path.clone(), item(resource, "Status", &path, &part(object.as_str())));
    }
    if resource.scale.is_some() {
        let path = format!("{one}/scale");
        let scale = schemas::scale_name();
        paths.insert(path.clone(), item(resource, "Scale", &path, &part(scale.as_str())));
    }
}

/// One path: the parameters in it and its operations.
fn item(resource: &Resource, suffix: &str, path: &str, verbs: &[(Verb, &str)]) -> Value {
    let mut item = Map::new();
    for (verb, schema) in verbs {
        let (method, ..) = verb.words();
        item.insert(method.to_owned(), operation(resource, suffix, path, *verb, schema));
    }
    let mut parameters = Vec::new();
    for (name, description) in [
        ("namespace", "Namespace of the objects."),
        ("name", "Name of the object."),
    ] {
        if path.contains(&format!("{{{name}}}")) {
            parameters.push(json!({
                "name": name, "in": "path", "required": true, "description": description,
                "schema": {"type": "string", "uniqueItems": true},
            }));
        }
    }
    if !parameters.is_empty() {
        item.insert("parameters".to_owned(), Value::from(parameters));
    }
    Value::Object(item)
}

fn operation(resource: &Resource, suffix: &str, path: &str, verb: Verb, schema: &str) -> Value {
    let (_, action, word) = verb.words();
    let scope = if path.contains("{namespace}") { "Namespaced" } else { "" };
    let group: String = resource.group.split('.').next().map(capitalized).unwrap_or_default();
    let id = format!(
        "{word}{}{}{scope}{}{suffix}",
        if group.is_empty() { "Core" } else { &group },
        capitalized(&resource.version),
        resource.kind,
    );
    let mut operation = json!({
        "description": format!("{action} {}", resource.plural),
        "operationId": id,
        "responses": responses(verb, schema),
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind":
            {"group": resource.group, "version": resource.version, "kind": resource.kind},
    });
    let parameters = verb.parameters();
    if !parameters.is_empty() {
        operation["parameters"] = Value::from(parameters);
    }
    if let Some(body) = request_body(resource, verb, schema) {
        operation["requestBody"] = body;
    }
    operation
}

fn responses(verb: Verb, schema: &str) -> Value {
    let content = || {
        let schema = schemas::reference(schema);
        json!({"application/json": {"schema": schema}, "application/yaml": {"schema": schema}})
    };
    let mut responses = json!({
        "200": {"description": "OK", "content": content()},
        "401": {"description": "Unauthorized"},
    });
    if matches!(verb, Verb::Create | Verb::Replace | Verb::Patch) {
        responses["201"] = json!({"description": "Created", "content": content()});
    }
    if matches!(verb, Verb::Create | Verb::Delete) {
        responses["202"] = json!({"description": "Accepted", "content": content()});
    }
    responses
}

fn request_body(resource: &Resource, verb: Verb, schema: &str) -> Option<Value> {
    let (types, name, required): (&[&str], &str, bool) = match verb {
        Verb::Create | Verb::Replace => (&["application/json", "application/yaml"], schema, true),
        Verb::Delete | Verb::DeleteCollection => (&["application/json", "application/yaml"], DELETE_OPTIONS, false),
        // Strategic merge needs the merge keys of Go types; custom resources have none.
        Verb::Patch if resource.builtin => (
            &[
                "application/apply-patch+yaml",
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/strategic-merge-patch+json",
            ],
            PATCH,
            true,
        ),
        Verb::Patch => (
            &[
                "application/apply-patch+yaml",
                "application/json-patch+json",
                "application/merge-patch+json",
            ],
            PATCH,
            true,
        ),
        Verb::List | Verb::Read => return None,
    };
    let content: Map<String, Value> = types
        .iter()
        .map(|kind| ((*kind).to_owned(), json!({"schema": schemas::reference(name)})))
        .collect();
    Some(json!({"content": content, "required": required}))
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}
