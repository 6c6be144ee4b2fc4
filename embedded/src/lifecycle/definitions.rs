//! The end of a CustomResourceDefinition: all its objects are deleted, then it is itself.

use std::sync::Arc;

use super::{MANAGER, Queue, is_gone};
use crate::cluster::{Cluster, DEFINITIONS};
use crate::status::ApiError;
use crate::store::{Key, Object};
use crate::verbs::delete::{self, DeleteOptions};
use crate::verbs::read::Selection;
use crate::verbs::strategy::DEFINITION_CLEANUP;
use crate::verbs::update::{self, Edit, Part};
use crate::verbs::{WriteOptions, convert, metadata};

/// Removes the objects of definitions that are being deleted, and keeps the served kinds up to date.
pub(super) async fn run(cluster: Arc<Cluster>) {
    // A definition that changes, and an object of a custom kind that goes: the definition is named like its storage.
    let events = cluster
        .store
        .listen(|event| &*event.object.key.resource == DEFINITIONS || event.deleted);
    let mut queue = Queue::new(events);
    for object in cluster
        .store
        .scan(|o| &*o.key.resource == DEFINITIONS && o.facts.deleting)
    {
        queue.add((object.key.name.clone(), true));
    }
    // The name of a definition, and whether it changed itself.
    let sort = |event: &crate::store::Event| {
        let key = &event.object.key;
        let itself = &*key.resource == DEFINITIONS;
        vec![(if itself { key.name.clone() } else { key.resource.clone() }, itself)]
    };
    while let Some((name, changed)) = queue.next(sort).await {
        let definition = cluster.store.get(&Key::new(&DEFINITIONS.into(), "", &name));
        if changed {
            // The writer of a definition reloads too; this also covers writers that went away before they could.
            cluster.reload_definitions();
        }
        let Some(definition) = definition.filter(|d| d.facts.deleting) else {
            continue;
        };
        if let Err(error) = clean_up(&cluster, &definition).await {
            tracing::warn!(definition = %name, %error, "the objects of the definition cannot be removed yet");
            queue.retry((name, false));
        }
    }
}

/// Deletes the objects; releases the definition when none is left.
async fn clean_up(cluster: &Cluster, definition: &Object) -> Result<(), ApiError> {
    if !definition.facts.finalizers.iter().any(|f| f == DEFINITION_CLEANUP) {
        return Ok(());
    }
    if let Some(resource) = cluster.stored_resource(&definition.key.name) {
        let selection = Selection::everything(resource, None);
        delete::delete_collection(cluster, &selection, &DeleteOptions::default()).await?;
    }
    if !cluster.store.scan(|o| o.key.resource == definition.key.name).is_empty() {
        // Finalizers hold something; its end will be an event.
        return Ok(());
    }
    let Some(target) = super::target(cluster, &definition.key) else {
        return Ok(());
    };
    let mut view = convert::view(&target.resource, definition);
    let rest: Vec<String> = metadata::finalizers(&view)
        .filter(|f| *f != DEFINITION_CLEANUP)
        .map(str::to_owned)
        .collect();
    metadata::set_finalizers(&mut view, &rest);
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
