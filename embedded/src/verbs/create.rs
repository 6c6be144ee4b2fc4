//! POST: a new object.

use serde_json::{Value, json};

use super::{Stored, Target, WriteOptions, Written, admit, convert, metadata, names, report, strategy};
use crate::cluster::Cluster;
use crate::status::{ApiError, Cause};
use crate::store::{Change, Draft, Expect, Key, Refusal, Write};

/// Tries for a free name when `generateName` hits a taken one.
const NAME_TRIES: usize = 8;

/// Creates an object. `target.name` may be empty; then the body names it.
pub(crate) async fn create(
    cluster: &Cluster,
    target: &Target,
    body: Value,
    options: &WriteOptions,
) -> Result<Written, ApiError> {
    create_managed(cluster, target, body, options, false).await
}

/// As [`create`]; `managed` says that `managedFields` are complete already (server-side apply).
pub(super) async fn create_managed(
    cluster: &Cluster,
    target: &Target,
    mut body: Value,
    options: &WriteOptions,
    managed: bool,
) -> Result<Written, ApiError> {
    let resource = &target.resource;
    let mut target = target.clone();
    let mut warnings = Vec::new();
    let problems = admit(resource, &mut body, options)?;
    report(problems, options.validation, &mut warnings, |problems| {
        ApiError::strict_decoding(&resource.kind, &resource.version, problems)
    })?;
    place(&mut target, &mut body)?;
    strategy::may_create(cluster, resource)?;
    if resource.namespaced {
        check_namespace(cluster, &target)?;
    }
    if !metadata::text(&body, "resourceVersion").is_empty() {
        return Err(ApiError::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    let prefix = match (target.name.is_empty(), metadata::text(&body, "generateName")) {
        (true, prefix) if !prefix.is_empty() => Some(prefix.to_owned()),
        _ => None,
    };
    for attempt in 1.. {
        if let Some(prefix) = &prefix {
            target.name = names::generate(prefix);
            metadata::of_mut(&mut body).insert("name".into(), json!(target.name));
        }
        let new = complete(cluster, &target, body.clone(), options, managed)?;
        if options.dry_run {
            if cluster.store.get(&target.key()).is_some() {
                return Err(target.refused(&Refusal::Exists));
            }
            return Ok(Written {
                object: Stored::Imagined(new),
                created: true,
                warnings,
            });
        }
        let draft = Draft::new(convert::stored_form(resource, new)).map_err(super::not_storable)?;
        let write = Write {
            key: target.key(),
            expect: Expect::Absent,
            change: Change::Put(draft),
            in_active_namespace: resource.namespaced,
        };
        match cluster.store.commit(write).await {
            Ok(object) => {
                if strategy::special(resource) == strategy::Special::Definition {
                    cluster.reload_definitions();
                }
                return Ok(Written {
                    object: Stored::Object(object),
                    created: true,
                    warnings,
                });
            }
            Err(Refusal::Exists) if prefix.is_some() && attempt < NAME_TRIES => {}
            Err(refusal) => return Err(target.refused(&refusal)),
        }
    }
    Err(target.refused(&Refusal::Exists))
}

/// Reconciles name and namespace of the body with those of the address.
fn place(target: &mut Target, body: &mut Value) -> Result<(), ApiError> {
    check_place(target, body)?;
    let metadata = metadata::of_mut(body);
    if target.name.is_empty() {
        target.name = metadata
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
    } else {
        metadata.insert("name".into(), json!(target.name));
    }
    if target.namespace.is_empty() {
        metadata.remove("namespace");
    } else {
        metadata.insert("namespace".into(), json!(target.namespace));
    }
    Ok(())
}

/// Refuses a body that names another object than the address does.
pub(super) fn check_place(target: &Target, body: &Value) -> Result<(), ApiError> {
    let namespace = metadata::text(body, "namespace");
    if !namespace.is_empty() && !target.namespace.is_empty() && namespace != target.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let name = metadata::text(body, "name");
    if !name.is_empty() && !target.name.is_empty() && name != target.name {
        let on_url = &target.name;
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({on_url})"
        )));
    }
    Ok(())
}

/// The answer to writers into a namespace that is missing or ending. The writer thread checks the same again at the
/// moment of the write; this gives dry runs and invalid objects the same answer.
fn check_namespace(cluster: &Cluster, target: &Target) -> Result<(), ApiError> {
    match cluster
        .store
        .get(&Key::new(&"namespaces".into(), "", &target.namespace))
    {
        None => Err(target.refused(&Refusal::NoNamespace)),
        Some(namespace) if namespace.facts.deleting => Err(target.refused(&Refusal::NamespaceTerminating)),
        Some(_) => Ok(()),
    }
}

/// Fills in what the server decides, and checks the result.
fn complete(
    cluster: &Cluster,
    target: &Target,
    mut new: Value,
    options: &WriteOptions,
    managed: bool,
) -> Result<Value, ApiError> {
    let resource = &target.resource;
    let now = metadata::now();
    let fields = metadata::of_mut(&mut new);
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        fields.remove(field);
    }
    fields.insert("uid".into(), json!(uuid::Uuid::new_v4().to_string()));
    fields.insert("creationTimestamp".into(), json!(now));
    strategy::prepare_create(resource, &mut new);
    resource.structural.default(&mut new);
    if !managed {
        crate::apply::update_managed_fields(None, &mut new, &options.manager, &resource.schema, None, &now);
    }
    let causes: Vec<Cause> = strategy::validate(cluster, resource, &new, None);
    if causes.is_empty() {
        Ok(new)
    } else {
        Err(target.invalid(causes))
    }
}
