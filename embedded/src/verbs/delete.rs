//! DELETE: the end of objects, at once or after their finalizers.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use super::read::{self, Selection};
use super::{Stored, Target, convert, metadata, strategy};
use crate::cluster::Cluster;
use crate::status::ApiError;
use crate::store::{Change, Draft, Expect, Object, Refusal, Write};

/// What happens to the objects that an object owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// They are released.
    Orphan,
    /// They go after the owner.
    Background,
    /// They go before the owner.
    Foreground,
}

/// Options of a deletion.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) dry_run: bool,
    /// `None`: what the object's finalizers say already, otherwise background.
    pub(crate) propagation: Option<Propagation>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
}

/// How a deletion went.
#[derive(Debug)]
pub(crate) enum Deleted {
    /// The object is gone; its last state.
    Gone(Stored),
    /// The object waits for its finalizers.
    Pending(Stored),
}

/// Lost races before giving up; each means that another write succeeded.
const TRIES: usize = 50;
/// Deletions of a collection under way at once, enough to fill batches of the writer.
const CONCURRENT: usize = 64;

/// Deletes one object.
pub(crate) async fn delete(cluster: &Cluster, target: &Target, options: &DeleteOptions) -> Result<Deleted, ApiError> {
    let resource = &target.resource;
    for _ in 0..TRIES {
        let object = cluster.store.get(&target.key()).ok_or_else(|| target.not_found())?;
        let live = convert::view(resource, &object);
        target.check_preconditions(options.uid.as_deref(), options.resource_version.as_deref(), &live)?;
        strategy::may_delete(cluster, resource, &target.name)?;
        let finalizers = wanted_finalizers(&live, options.propagation);
        let mut new = live.clone();
        metadata::set_finalizers(&mut new, &finalizers);
        mark(resource, &mut new);
        let released = strategy::is_released(resource, &new);
        if !released && metadata::same_content(&live, &new) {
            return Ok(Deleted::Pending(Stored::Object(object)));
        }
        if options.dry_run {
            let imagined = Stored::Imagined(new);
            return Ok(if released {
                Deleted::Gone(imagined)
            } else {
                Deleted::Pending(imagined)
            });
        }
        let last = if released { live } else { new };
        let draft = Draft::new(convert::stored_form(resource, last)).map_err(super::not_storable)?;
        let write = Write {
            key: target.key(),
            expect: Expect::Revision(object.revision),
            change: if released {
                Change::Delete(draft)
            } else {
                Change::Put(draft)
            },
            in_active_namespace: false,
        };
        match cluster.store.commit(write).await {
            Ok(object) if released => return Ok(Deleted::Gone(Stored::Object(object))),
            Ok(object) => return Ok(Deleted::Pending(Stored::Object(object))),
            Err(Refusal::Modified) => {}
            Err(refusal) => return Err(target.refused(&refusal)),
        }
    }
    Err(target.refused(&Refusal::Modified))
}

/// Deletes what a selection finds; gives the objects as they were.
pub(crate) async fn delete_collection(
    cluster: &Cluster,
    selection: &Selection,
    options: &DeleteOptions,
) -> Result<Vec<Arc<Object>>, ApiError> {
    let listed = read::select(cluster, selection)?;
    let targets: Vec<Target> = listed
        .iter()
        .map(|object| Target {
            resource: selection.resource.clone(),
            namespace: object.key.namespace.to_string(),
            name: object.key.name.to_string(),
        })
        .collect();
    stream::iter(targets.into_iter().map(|target| async move {
        match delete(cluster, &target, options).await {
            Err(error) if error.reason == "NotFound" => Ok(()),
            other => other.map(drop),
        }
    }))
    .buffer_unordered(CONCURRENT)
    .try_collect::<Vec<()>>()
    .await?;
    Ok(listed)
}

/// The finalizers that the object has to have for this way of deletion.
fn wanted_finalizers(live: &Value, propagation: Option<Propagation>) -> Vec<String> {
    let has = |name: &str| metadata::finalizers(live).any(|f| f == name);
    let orphan = propagation.map_or_else(|| has(metadata::ORPHAN), |p| p == Propagation::Orphan);
    let foreground = propagation.map_or_else(|| has(metadata::FOREGROUND), |p| p == Propagation::Foreground);
    let mut finalizers: Vec<String> = metadata::finalizers(live)
        .filter(|f| *f != metadata::ORPHAN && *f != metadata::FOREGROUND)
        .map(str::to_owned)
        .collect();
    if orphan {
        finalizers.push(metadata::ORPHAN.to_owned());
    } else if foreground {
        finalizers.push(metadata::FOREGROUND.to_owned());
    }
    finalizers
}

/// Marks the object as being deleted, if it is not yet.
fn mark(resource: &crate::kinds::Resource, object: &mut Value) {
    let fields = metadata::of_mut(object);
    if fields.contains_key("deletionTimestamp") {
        return;
    }
    if let Some(generation) = fields.get("generation").and_then(Value::as_i64) {
        fields.insert("generation".into(), json!(generation + 1));
    }
    fields.insert("deletionTimestamp".into(), json!(metadata::now()));
    fields.insert("deletionGracePeriodSeconds".into(), json!(0));
    strategy::prepare_deletion(resource, object);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn propagation_sets_and_clears_its_finalizers() {
        let live = json!({"metadata": {"finalizers": ["a/b", "orphan"]}});
        let wanted = |p| wanted_finalizers(&live, p);
        assert_eq!(wanted(None), ["a/b", "orphan"]);
        assert_eq!(wanted(Some(Propagation::Background)), ["a/b"]);
        assert_eq!(wanted(Some(Propagation::Foreground)), ["a/b", "foregroundDeletion"]);
        assert_eq!(wanted(Some(Propagation::Orphan)), ["a/b", "orphan"]);
    }
}
