//! Garbage collection by `ownerReferences`.
//!
//! - An object whose owners are all gone is deleted.
//! - An owner with the finalizer `foregroundDeletion` waits until its dependents that block it are gone.
//! - An owner with the finalizer `orphan` waits until its dependents have let go of it.
//!
//! The store indexes owners and dependents by UID, so that each step looks only at the objects concerned.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::lifecycle::{MANAGER, Queue, is_gone, target};
use crate::status::ApiError;
use crate::store::{Event, Object, Owner};
use crate::verbs::delete::{self, DeleteOptions, Propagation};
use crate::verbs::metadata::{self, FOREGROUND, ORPHAN};
use crate::verbs::update::{self, Edit, Part};
use crate::verbs::{WriteOptions, convert};

/// One object to look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Work {
    /// Does it still have an owner?
    Dependent(Box<str>),
    /// It is being deleted in the foreground, or its dependents are to be released.
    Owner(Box<str>),
    /// It is gone: its dependents are to be looked at.
    Gone(Box<str>),
}

/// Collects garbage.
pub(crate) async fn run(cluster: Arc<Cluster>) {
    let events = cluster.store.listen(|event| event.deleted || concerns(&event.object));
    let mut queue = Queue::new(events);
    for object in cluster.store.scan(concerns) {
        work_of(&object, false).into_iter().for_each(|work| queue.add(work));
    }
    while let Some(work) = queue.next(|event: &Event| work_of(&event.object, event.deleted)).await {
        match step(&cluster, &work).await {
            Ok(more) => more.into_iter().for_each(|work| queue.add(work)),
            Err(error) => {
                // A lost race is no news: whoever won it makes another event.
                if error.reason != "Conflict" {
                    tracing::warn!(?work, %error, "garbage stays for now");
                }
                queue.retry(work);
            }
        }
    }
}

/// Whether garbage collection has anything to do with an object that exists.
fn concerns(object: &Object) -> bool {
    !object.facts.owners.is_empty() || waits(object)
}

/// Whether an object that is being deleted waits for the garbage collector.
fn waits(object: &Object) -> bool {
    object.facts.deleting && object.facts.finalizers.iter().any(|f| f == FOREGROUND || f == ORPHAN)
}

fn work_of(object: &Object, deleted: bool) -> Vec<Work> {
    let uid = object.facts.uid.clone();
    // An owner that waits for this object may go on.
    let owners = object
        .facts
        .owners
        .iter()
        .map(|owner| Work::Owner(owner.uid.as_str().into()));
    if deleted {
        return owners.chain([Work::Gone(uid)]).collect();
    }
    let mut work = Vec::new();
    if !object.facts.owners.is_empty() {
        work.push(Work::Dependent(uid.clone()));
        // A dependent that lets go, or starts to block, changes what its owner waits for.
        work.extend(owners);
    }
    if waits(object) {
        work.push(Work::Owner(uid));
    }
    work
}

async fn step(cluster: &Cluster, work: &Work) -> Result<Vec<Work>, ApiError> {
    match work {
        Work::Gone(uid) => Ok(cluster
            .store
            .dependents(uid)
            .iter()
            .map(|o| Work::Dependent(o.facts.uid.clone()))
            .collect()),
        Work::Dependent(uid) => match cluster.store.by_uid(uid) {
            Some(object) if !object.facts.deleting => check_owners(cluster, &object).await.map(|()| Vec::new()),
            _ => Ok(Vec::new()),
        },
        Work::Owner(uid) => match cluster.store.by_uid(uid) {
            Some(object) if waits(&object) => end_owner(cluster, &object).await.map(|()| Vec::new()),
            _ => Ok(Vec::new()),
        },
    }
}

/// What is known of an owner.
enum Found {
    /// It exists, and is not waiting for its dependents.
    Solid,
    /// It is being deleted in the foreground.
    Waiting,
    Absent,
    /// Its kind is not served here: nothing can be known.
    Unknown,
}

fn find(cluster: &Cluster, dependent: &Object, owner: &Owner) -> Found {
    let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
    let Some(kind) = cluster.kinds().registry.lookup_kind(group, version, &owner.kind) else {
        return Found::Unknown;
    };
    if kind.namespaced && dependent.key.namespace.is_empty() {
        // A cluster-scoped object cannot have an owner in a namespace; Kubernetes leaves such objects alone.
        return Found::Unknown;
    }
    let storage = convert::storage_name(&kind);
    match cluster.store.by_uid(&owner.uid) {
        Some(o) if o.key.resource != storage => Found::Absent,
        Some(o) if kind.namespaced && o.key.namespace != dependent.key.namespace => Found::Absent,
        Some(o) if o.facts.deleting && o.facts.finalizers.iter().any(|f| f == FOREGROUND) => Found::Waiting,
        Some(_) => Found::Solid,
        None => Found::Absent,
    }
}

/// Deletes an object without owners; removes references to owners that are gone from one that has others.
async fn check_owners(cluster: &Cluster, object: &Object) -> Result<(), ApiError> {
    let (mut held, mut waiting, mut dangling) = (false, false, Vec::new());
    for owner in &object.facts.owners {
        match find(cluster, object, owner) {
            Found::Solid | Found::Unknown => held = true,
            Found::Waiting => {
                waiting = true;
                dangling.push(owner.uid.as_str());
            }
            Found::Absent => dangling.push(owner.uid.as_str()),
        }
    }
    if held {
        return if dangling.is_empty() {
            Ok(())
        } else {
            release(cluster, object, &dangling).await
        };
    }
    // Dependents of what goes in the foreground go in the foreground too, if something depends on them in turn.
    let has_dependents = !cluster.store.dependents(&object.facts.uid).is_empty();
    let propagation = match (
        waiting && has_dependents,
        object.facts.finalizers.iter().any(|f| f == ORPHAN),
    ) {
        (_, true) => Propagation::Orphan,
        (true, false) => Propagation::Foreground,
        (false, false) => Propagation::Background,
    };
    remove(cluster, object, propagation).await
}

/// Takes an owner that is being deleted one step further.
async fn end_owner(cluster: &Cluster, owner: &Object) -> Result<(), ApiError> {
    let uid = &*owner.facts.uid;
    let dependents = cluster.store.dependents(uid);
    if owner.facts.finalizers.iter().any(|f| f == ORPHAN) {
        for dependent in &dependents {
            release(cluster, dependent, &[uid]).await?;
        }
        return drop_finalizer(cluster, owner, ORPHAN).await;
    }
    let blocks = |o: &Arc<Object>| {
        o.facts
            .owners
            .iter()
            .any(|owner| *owner.uid == *uid && owner.block_owner_deletion == Some(true))
    };
    for dependent in dependents.iter().filter(|o| !o.facts.deleting) {
        check_owners(cluster, dependent).await?;
    }
    // Only what blocks has to be gone; a dependent that is held by another owner has let go of this one by now.
    if cluster.store.dependents(uid).iter().any(blocks) {
        return Ok(());
    }
    drop_finalizer(cluster, owner, FOREGROUND).await
}

async fn remove(cluster: &Cluster, object: &Object, propagation: Propagation) -> Result<(), ApiError> {
    let Some(target) = target(cluster, &object.key) else {
        return Ok(());
    };
    let options = DeleteOptions {
        propagation: Some(propagation),
        uid: Some(object.facts.uid.to_string()),
        // Whoever changes the object in this moment may be giving it an owner.
        resource_version: Some(object.revision.to_string()),
        dry_run: false,
    };
    match delete::delete(cluster, &target, &options).await {
        Err(error) if !is_gone(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Removes the references to these owners.
async fn release(cluster: &Cluster, object: &Object, owners: &[&str]) -> Result<(), ApiError> {
    let kept = |owner: &Value| owner["uid"].as_str().is_none_or(|uid| !owners.contains(&uid));
    change(cluster, object, |view| {
        let metadata = metadata::of_mut(view);
        let list = metadata
            .get("ownerReferences")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let rest: Vec<Value> = list.filter(|owner| kept(owner)).cloned().collect();
        metadata.insert("ownerReferences".to_owned(), json!(rest));
    })
    .await
}

async fn drop_finalizer(cluster: &Cluster, object: &Object, finalizer: &str) -> Result<(), ApiError> {
    change(cluster, object, |view| {
        let rest: Vec<String> = metadata::finalizers(view)
            .filter(|f| *f != finalizer)
            .map(str::to_owned)
            .collect();
        metadata::set_finalizers(view, &rest);
    })
    .await
}

/// Changes an object on the condition that it is still the one that was looked at.
async fn change(cluster: &Cluster, object: &Object, edit: impl Fn(&mut Value)) -> Result<(), ApiError> {
    let Some(target) = target(cluster, &object.key) else {
        return Ok(());
    };
    let mut view = convert::view(&target.resource, object);
    edit(&mut view);
    match update::update(
        cluster,
        &target,
        Part::Whole,
        &Edit::Replace(view),
        &WriteOptions::internal(MANAGER),
    )
    .await
    {
        Err(error) if !is_gone(&error) => Err(error),
        _ => Ok(()),
    }
}
