//! The end of a namespace: everything in it is deleted, then it is itself.

use std::sync::Arc;

use serde_json::json;

use super::{MANAGER, Queue, is_gone};
use crate::cluster::Cluster;
use crate::status::ApiError;
use crate::store::{Key, Object};
use crate::verbs::delete::{self, DeleteOptions};
use crate::verbs::read::Selection;
use crate::verbs::update::{self, Edit, Part};
use crate::verbs::{WriteOptions, convert};

const NAMESPACES: &str = "namespaces";

/// Empties and removes namespaces that are being deleted.
pub(super) async fn run(cluster: Arc<Cluster>) {
    // What matters: a namespace that begins to end, and an object that leaves one.
    let events = cluster.store.listen(|event| {
        let object = &event.object;
        (&*object.key.resource == NAMESPACES && object.facts.deleting && !event.deleted)
            || (event.deleted && !object.key.namespace.is_empty())
    });
    let mut queue = Queue::new(events);
    for object in cluster
        .store
        .scan(|o| &*o.key.resource == NAMESPACES && o.facts.deleting)
    {
        queue.add(object.key.name.clone());
    }
    let sort = |event: &crate::store::Event| {
        let key = &event.object.key;
        vec![if &*key.resource == NAMESPACES {
            key.name.clone()
        } else {
            key.namespace.clone()
        }]
    };
    while let Some(name) = queue.next(sort).await {
        let Some(namespace) = cluster.store.get(&Key::new(&NAMESPACES.into(), "", &name)) else {
            continue;
        };
        if !namespace.facts.deleting {
            continue;
        }
        if let Err(error) = finalize(&cluster, &namespace).await {
            tracing::warn!(namespace = %name, %error, "the namespace cannot be emptied yet");
            queue.retry(name);
        }
    }
}

/// Deletes the content; removes the namespace when nothing is left.
async fn finalize(cluster: &Cluster, namespace: &Object) -> Result<(), ApiError> {
    let name = namespace.key.name.to_string();
    let content = || cluster.store.scan(|o| *o.key.namespace == *name);
    let mut resources: Vec<Arc<str>> = content().iter().map(|o| o.key.resource.clone()).collect();
    resources.sort();
    resources.dedup();
    for resource in resources {
        let Some(resource) = cluster.stored_resource(&resource) else {
            continue;
        };
        let selection = Selection::everything(resource, Some(name.clone()));
        delete::delete_collection(cluster, &selection, &DeleteOptions::default()).await?;
    }
    if !content().is_empty() {
        // Finalizers hold something; its end will be an event.
        return Ok(());
    }
    let Some(target) = super::target(cluster, &namespace.key) else {
        return Ok(());
    };
    let mut view = convert::view(&target.resource, namespace);
    view["spec"] = json!({"finalizers": []});
    crate::verbs::metadata::of_mut(&mut view).remove("resourceVersion");
    let options = WriteOptions::internal(MANAGER);
    match update::update(cluster, &target, Part::Finalize, &Edit::Replace(view), &options).await {
        Err(error) if !is_gone(&error) => Err(error),
        _ => Ok(()),
    }
}
