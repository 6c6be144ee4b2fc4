//! Writes to the Kubernetes API: status, finalizers, creation, deletion. Each remembers the answer, so that the next plan
//! is made from it.

use crate::context::Context;
use crate::error::{Error, already_exists, is_not_found};
use crate::events::{NAME, announce};
use crate::kinds::Managed;
use graphplane_crds::annotations::FINALIZER;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Status;
use kube::runtime::events::EventType;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Kind, namespace and name in one word, for messages.
pub(crate) fn label<K: Managed>(object: &K) -> String {
    match object.namespace() {
        Some(namespace) => format!("{} {namespace}/{}", K::KIND, object.name_any()),
        None => format!("{} {}", K::KIND, object.name_any()),
    }
}

fn api<K: Managed>(ctx: &Context, object: &K) -> kube::Api<K> {
    K::api(&ctx.client, &object.namespace().unwrap_or_default())
}

/// The part of a status that the kind's reconciler writes.
fn own_part<K: Managed>(mut status: Value) -> Value {
    if let Some(fields) = status.as_object_mut() {
        K::FOREIGN.iter().for_each(|field| drop(fields.remove(*field)));
    }
    status
}

fn own_status<K: Managed>(object: &K) -> Value {
    let whole = serde_json::to_value(object).unwrap_or_default();
    own_part::<K>(whole.get("status").cloned().unwrap_or(Value::Null))
}

/// Applies a status by server-side apply, unless it is there already. With `guarded`, the write fails when somebody else
/// wrote since `object` was read.
pub(crate) async fn status<K: Managed>(
    ctx: &Context,
    object: &Arc<K>,
    status: Value,
    guarded: bool,
) -> Result<Arc<K>, Error> {
    let status = own_part::<K>(status);
    if own_status(&**object) == status {
        return Ok(object.clone());
    }
    let mut metadata = json!({"name": object.name_any(), "uid": object.uid()});
    if let Some(namespace) = object.namespace() {
        metadata["namespace"] = json!(namespace);
    }
    if guarded {
        metadata["resourceVersion"] = json!(object.resource_version());
    }
    let body = json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": metadata, "status": status,
    });
    let params = PatchParams::apply(NAME).force();
    let written = api(ctx, &**object)
        .patch_status(&object.name_any(), &params, &Patch::Apply(&body))
        .await;
    let written = written.map_err(Error::kube(format!("write the status of {}", label(&**object))))?;
    for (type_, reason, note) in announce(object.conditions(), written.conditions()) {
        ctx.events
            .publish(written.object_ref(&()), type_, &reason, "Reconcile", note);
    }
    Ok(K::cache(&ctx.hubs).wrote(written))
}

/// Applies a status on which something is about to rest: the write fails when somebody else wrote since `object` was read.
pub(crate) async fn guarded_status<K: Managed>(
    ctx: &Context,
    object: &Arc<K>,
    wanted: impl Serialize,
) -> Result<Arc<K>, Error> {
    let wanted = serde_json::to_value(wanted).map_err(unreadable)?;
    status(ctx, object, wanted, true).await
}

pub(crate) fn unreadable(error: serde_json::Error) -> Error {
    Error::Settings(format!("a status cannot be encoded: {error}"))
}

/// An event about an object.
pub(crate) fn event<K: Managed>(ctx: &Context, object: &K, reason: &str, action: &str, note: impl Into<String>) {
    ctx.events
        .publish(object.object_ref(&()), EventType::Normal, reason, action, note.into());
}

/// Patches metadata or spec with a merge patch that fails when somebody else wrote since `object` was read.
pub(crate) async fn merge<K: Managed>(
    ctx: &Context,
    object: &K,
    mut patch: Value,
    what: &str,
) -> Result<Arc<K>, Error> {
    patch["metadata"]["resourceVersion"] = json!(object.resource_version());
    let params = PatchParams {
        field_manager: Some(NAME.to_owned()),
        ..PatchParams::default()
    };
    let written = api(ctx, object)
        .patch(&object.name_any(), &params, &Patch::Merge(&patch))
        .await;
    let written = written.map_err(Error::kube(format!("{what} {}", label(object))))?;
    Ok(K::cache(&ctx.hubs).wrote(written))
}

pub(crate) fn has_finalizer<K: Managed>(object: &K) -> bool {
    object.finalizers().iter().any(|f| f == FINALIZER)
}

/// Adds the finalizer.
pub(crate) async fn add_finalizer<K: Managed>(ctx: &Context, object: &K) -> Result<Arc<K>, Error> {
    let finalizers: Vec<&str> = object
        .finalizers()
        .iter()
        .map(String::as_str)
        .chain([FINALIZER])
        .collect();
    merge(
        ctx,
        object,
        json!({"metadata": {"finalizers": finalizers}}),
        "add the finalizer to",
    )
    .await
}

/// Removes the finalizer: the object goes, unless others hold it.
pub(crate) async fn remove_finalizer<K: Managed>(ctx: &Context, object: &K) -> Result<(), Error> {
    let finalizers: Vec<&String> = object.finalizers().iter().filter(|f| *f != FINALIZER).collect();
    let last = finalizers.is_empty();
    match merge(
        ctx,
        object,
        json!({"metadata": {"finalizers": finalizers}}),
        "remove the finalizer of",
    )
    .await
    {
        Ok(written) if last => {
            K::cache(&ctx.hubs).gone(&*written);
            Ok(())
        }
        Ok(_) => Ok(()),
        Err(Error::Kube { source, .. }) if is_not_found(&source) => {
            K::cache(&ctx.hubs).gone(object);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Creates an object; one of the same name that exists is answered with. The caller checks whether it is the one.
pub(crate) async fn create<K: Managed>(ctx: &Context, object: &K) -> Result<Arc<K>, Error> {
    let api = api(ctx, object);
    let params = PostParams {
        field_manager: Some(NAME.to_owned()),
        ..PostParams::default()
    };
    let created = match api.create(&params, object).await {
        Err(error) if already_exists(&error) => api.get(&object.name_any()).await,
        result => result,
    };
    let created = created.map_err(Error::kube(format!("create {}", label(object))))?;
    Ok(K::cache(&ctx.hubs).wrote(created))
}

/// Deletes an object as it was read; one that is gone or another by now is left alone.
pub(crate) async fn delete<K: Managed>(ctx: &Context, object: &K) -> Result<Option<Arc<K>>, Error> {
    let preconditions = Preconditions {
        uid: object.uid(),
        resource_version: None,
    };
    let params = DeleteParams::background().preconditions(preconditions);
    match api(ctx, object).delete(&object.name_any(), &params).await {
        Ok(answer) => match answer.left() {
            Some(marked) if has_finalizer(&marked) => Ok(Some(K::cache(&ctx.hubs).wrote(marked))),
            _ => {
                K::cache(&ctx.hubs).gone(object);
                Ok(None)
            }
        },
        Err(error) if is_not_found(&error) || is_conflict(&error) => {
            K::cache(&ctx.hubs).gone(object);
            Ok(None)
        }
        Err(error) => Err(Error::kube(format!("delete {}", label(object)))(error)),
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if Status::is_conflict(status))
}
