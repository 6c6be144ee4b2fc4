//! What the operator knows of the objects of one kind: what the watch told, and what its own writes were answered with.
//!
//! A watch lags behind a write by a moment. A plan that is made in that moment from the watched object alone would repeat
//! what was just done: place a graph a second time, start a second machine. So the answer to every write is kept until the
//! watch has caught up with it, and reading gives the newer of the two.

use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

/// Namespace (empty for cluster-scoped objects) and name.
pub(crate) type Key = (String, String);

/// The key of an object.
pub(crate) fn key<K: ResourceExt>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// The revision of an object: resource versions of one API server are ordered (and since Kubernetes 1.35 promised to be).
fn revision<K: ResourceExt>(object: &K) -> u64 {
    object.resource_version().and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// Objects of one kind.
pub(crate) struct Cache<K: Resource<DynamicType = ()> + Clone + 'static> {
    store: Store<K>,
    written: Mutex<HashMap<Key, Arc<K>>>,
    handled: Mutex<HashMap<Key, u64>>,
}

impl<K> Cache<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + 'static,
{
    pub(crate) fn new(store: Store<K>) -> Self {
        Self {
            store,
            written: Mutex::default(),
            handled: Mutex::default(),
        }
    }

    /// The store that the watch fills, for a `Controller`.
    pub(crate) fn store(&self) -> Store<K> {
        self.store.clone()
    }

    /// The newest known state of an object.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let reference = match namespace {
            "" => ObjectRef::new(name),
            namespace => ObjectRef::new(name).within(namespace),
        };
        let written = self
            .written
            .lock()
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned();
        match (self.store.get(&reference), written) {
            (Some(seen), Some(written)) if revision(&*written) > revision(&*seen) => Some(written),
            (Some(seen), _) => Some(seen),
            (None, written) => written,
        }
    }

    /// The newest known state of all objects.
    pub(crate) fn list(&self) -> Vec<Arc<K>> {
        let mut objects = self.store.state();
        let mut written = self.written.lock().clone();
        if written.is_empty() {
            return objects;
        }
        for object in &mut objects {
            if let Some(newer) = written
                .remove(&key(&**object))
                .filter(|w| revision(&**w) > revision(&**object))
            {
                *object = newer;
            }
        }
        objects.extend(written.into_values());
        objects
    }

    /// Keeps the answer to a write of our own.
    pub(crate) fn wrote(&self, object: K) -> Arc<K> {
        let object = Arc::new(object);
        let mut written = self.written.lock();
        let slot = written.entry(key(&*object)).or_insert_with(|| object.clone());
        if revision(&*object) >= revision(&**slot) {
            *slot = object.clone();
        }
        object
    }

    /// The watch told of an object.
    pub(crate) fn seen(&self, object: &K) {
        let mut written = self.written.lock();
        let key = key(object);
        if written.get(&key).is_some_and(|w| revision(&**w) <= revision(object)) {
            written.remove(&key);
        }
    }

    /// The watch told that an object is gone, or a write of our own removed it.
    pub(crate) fn gone(&self, object: &K) {
        let key = key(object);
        let mut written = self.written.lock();
        // An object of the same name that was made since is another one.
        if written.get(&key).is_some_and(|w| w.uid() == object.uid()) {
            written.remove(&key);
        }
        self.handled.lock().remove(&key);
    }

    /// The answers that are kept now; to be given to [`expire`](Self::expire) after a complete list that began later.
    pub(crate) fn kept(&self) -> Vec<(Key, u64)> {
        self.written
            .lock()
            .iter()
            .map(|(key, object)| (key.clone(), revision(&**object)))
            .collect()
    }

    /// Drops answers that a complete list which began after them does not show: those objects are gone, and nobody was
    /// watching when they went.
    pub(crate) fn expire(&self, kept: Vec<(Key, u64)>) {
        let mut written = self.written.lock();
        for (key, at) in kept {
            if written.get(&key).is_some_and(|w| revision(&**w) == at) {
                written.remove(&key);
            }
        }
    }

    /// Remembers that a pass has dealt with an object as it is in this revision.
    pub(crate) fn handled(&self, object: &K) {
        self.handled.lock().insert(key(object), revision(object));
    }

    /// Whether a pass has dealt with this revision already: the echo of a write of our own.
    pub(crate) fn is_echo(&self, object: &K) -> bool {
        self.handled
            .lock()
            .get(&key(object))
            .is_some_and(|handled| revision(object) <= *handled)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::{reflector, watcher};

    fn object(name: &str, uid: &str, revision: u64) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.name = Some(name.into());
        object.metadata.namespace = Some("ns".into());
        object.metadata.uid = Some(uid.into());
        object.metadata.resource_version = Some(revision.to_string());
        object
    }

    #[test]
    fn the_newer_of_watch_and_write_is_read() {
        let (store, mut writer) = reflector::store::<ConfigMap>();
        let cache = Cache::new(store);
        let revision_of = |cache: &Cache<ConfigMap>| cache.get("ns", "a").map(|o| revision(&*o));
        cache.wrote(object("a", "1", 5));
        assert_eq!(revision_of(&cache), Some(5), "created, and not seen yet");
        assert_eq!(cache.list().len(), 1);
        writer.apply_watcher_event(&watcher::Event::Apply(object("a", "1", 4)));
        cache.seen(&object("a", "1", 4));
        assert_eq!(revision_of(&cache), Some(5), "the watch lags");
        assert_eq!(cache.list().iter().map(|o| revision(&**o)).collect::<Vec<_>>(), [5]);
        writer.apply_watcher_event(&watcher::Event::Apply(object("a", "1", 6)));
        cache.seen(&object("a", "1", 6));
        assert_eq!(revision_of(&cache), Some(6));
        assert!(cache.written.lock().is_empty(), "nothing is kept for ever");
        cache.wrote(object("a", "1", 8));
        cache.wrote(object("a", "1", 7));
        assert_eq!(revision_of(&cache), Some(8), "answers may arrive out of order");
    }

    #[test]
    fn what_is_gone_is_gone_unless_it_was_made_again() {
        let (store, _writer) = reflector::store::<ConfigMap>();
        let cache = Cache::new(store);
        cache.wrote(object("a", "1", 5));
        cache.gone(&object("a", "1", 6));
        assert!(cache.get("ns", "a").is_none());
        cache.wrote(object("a", "2", 8));
        cache.gone(&object("a", "1", 7));
        assert!(cache.get("ns", "a").is_some());
    }

    #[test]
    fn what_went_while_nobody_watched_is_dropped() {
        let (store, _writer) = reflector::store::<ConfigMap>();
        let cache = Cache::new(store);
        cache.wrote(object("a", "1", 5));
        cache.wrote(object("b", "2", 6));
        let kept = cache.kept();
        cache.wrote(object("b", "2", 7));
        cache.expire(kept);
        assert!(cache.get("ns", "a").is_none() && cache.get("ns", "b").is_some());
    }

    #[test]
    fn an_echo_is_what_a_pass_has_dealt_with() {
        let (store, _writer) = reflector::store::<ConfigMap>();
        let cache = Cache::new(store);
        assert!(!cache.is_echo(&object("a", "1", 5)));
        cache.handled(&object("a", "1", 5));
        assert!(cache.is_echo(&object("a", "1", 4)) && cache.is_echo(&object("a", "1", 5)));
        assert!(!cache.is_echo(&object("a", "1", 6)));
    }
}
