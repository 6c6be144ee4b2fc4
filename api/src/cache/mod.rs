//! Watch caches: the newest known state of a kind, in memory, with an index of our own.
//!
//! A cache may lag behind the API server by the time that a watch event takes. Whoever would refuse a request because of
//! what a cache says asks the API server first.

mod set;

pub(crate) use set::{Caches, fleet_word, subgraph_word};

use futures::StreamExt;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Resource, ResourceExt};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Namespace (empty for cluster-scoped kinds) and name.
pub(crate) type Key = (String, String);

type IndexFn<K> = fn(&K) -> Vec<String>;
type AdmitFn<K> = fn(&mut K) -> bool;

/// The objects of one kind. Cheap to clone.
pub(crate) struct Cache<K> {
    inner: Arc<Inner<K>>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

struct Inner<K> {
    objects: RwLock<Objects<K>>,
    admit: AdmitFn<K>,
    index: IndexFn<K>,
    changed: tokio::sync::watch::Sender<u64>,
}

struct Objects<K> {
    by_key: HashMap<Key, Arc<K>>,
    by_index: HashMap<String, BTreeSet<Key>>,
    /// Objects of a list that is still coming in; they replace the others when it is complete.
    incoming: Option<HashMap<Key, Arc<K>>>,
    ready: bool,
}

impl<K> Cache<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// An empty cache of the objects that `admit` accepts, which may drop parts of them that nobody reads; objects are
    /// found again by each of the words of `index`.
    pub(crate) fn new(admit: AdmitFn<K>, index: IndexFn<K>) -> Self {
        let objects = Objects {
            by_key: HashMap::new(),
            by_index: HashMap::new(),
            incoming: None,
            ready: false,
        };
        let changed = tokio::sync::watch::Sender::new(0);
        Self {
            inner: Arc::new(Inner {
                objects: RwLock::new(objects),
                admit,
                index,
                changed,
            }),
        }
    }

    /// Follows `api` until `stop`. Errors are logged and retried with growing pauses.
    pub(crate) async fn follow(self, api: Api<K>, config: watch::Config, stop: CancellationToken) {
        let mut events = std::pin::pin!(watcher::watcher(api, config).default_backoff());
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = events.next() => event,
            };
            match event {
                Some(Ok(event)) => self.apply(event),
                Some(Err(error)) => tracing::warn!(kind = %K::kind(&()), %error, "watching failed; it is tried again"),
                None => return,
            }
        }
    }

    /// Takes one event in.
    pub(crate) fn apply(&self, event: Event<K>) {
        {
            let mut objects = self.inner.objects.write();
            match event {
                Event::Init => objects.incoming = Some(HashMap::new()),
                Event::InitApply(mut object) => {
                    if (self.inner.admit)(&mut object) {
                        let (key, object) = shared(object);
                        objects.incoming.get_or_insert_default().insert(key, object);
                    }
                    return;
                }
                Event::InitDone => {
                    objects.by_key = objects.incoming.take().unwrap_or_default();
                    objects.by_index = HashMap::new();
                    let entries: Vec<_> = objects
                        .by_key
                        .iter()
                        .map(|(key, object)| (key.clone(), object.clone()))
                        .collect();
                    for (key, object) in entries {
                        objects.enter(&key, (self.inner.index)(&object));
                    }
                    objects.ready = true;
                }
                Event::Apply(mut object) => {
                    let admitted = (self.inner.admit)(&mut object);
                    let (key, object) = shared(object);
                    objects.remove(&key, self.inner.index);
                    if admitted {
                        objects.enter(&key, (self.inner.index)(&object));
                        objects.by_key.insert(key, object);
                    }
                }
                Event::Delete(object) => {
                    let (key, _) = shared(object);
                    objects.remove(&key, self.inner.index);
                }
            }
        }
        self.inner.changed.send_modify(|version| *version += 1);
    }

    /// The object of a name; `namespace` is empty for cluster-scoped kinds.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.inner
            .objects
            .read()
            .by_key
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned()
    }

    /// Objects whose index holds `word`, by namespace and name.
    pub(crate) fn find(&self, word: &str) -> Vec<Arc<K>> {
        let objects = self.inner.objects.read();
        let keys = objects.by_index.get(word);
        keys.into_iter()
            .flatten()
            .filter_map(|key| objects.by_key.get(key).cloned())
            .collect()
    }

    /// How many objects there are.
    pub(crate) fn len(&self) -> usize {
        self.inner.objects.read().by_key.len()
    }

    /// Whether the first list is complete.
    pub(crate) fn is_ready(&self) -> bool {
        self.inner.objects.read().ready
    }

    /// A receiver that is told of every change.
    pub(crate) fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    /// Waits until `condition` holds; it is tried now and after every change.
    pub(crate) async fn wait_until(&self, mut condition: impl FnMut(&Self) -> bool) {
        let mut changes = self.changes();
        while !condition(self) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

impl<K> Objects<K> {
    fn enter(&mut self, key: &Key, words: Vec<String>) {
        for word in words {
            self.by_index.entry(word).or_default().insert(key.clone());
        }
    }

    fn remove(&mut self, key: &Key, index: IndexFn<K>) {
        let Some(old) = self.by_key.remove(key) else { return };
        for word in index(&old) {
            if let Some(keys) = self.by_index.get_mut(&word) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_index.remove(&word);
                }
            }
        }
    }
}

/// The key of an object, and the object without the field managers, which take much room and which nobody here reads.
fn shared<K: Resource<DynamicType = ()>>(mut object: K) -> (Key, Arc<K>) {
    object.meta_mut().managed_fields = None;
    (
        (object.namespace().unwrap_or_default(), object.name_any()),
        Arc::new(object),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn object(name: u8, word: u8) -> ConfigMap {
        let mut object = ConfigMap {
            data: Some([("word".into(), word.to_string())].into()),
            ..Default::default()
        };
        object.metadata.name = Some(name.to_string());
        object.metadata.namespace = Some("ns".into());
        object
    }

    fn word_of(object: &ConfigMap) -> Vec<String> {
        object.data.iter().flat_map(|data| data.get("word").cloned()).collect()
    }

    fn cache() -> Cache<ConfigMap> {
        Cache::new(|object| word_of(object) != ["0"], word_of)
    }

    fn contents(cache: &Cache<ConfigMap>) -> BTreeMap<String, String> {
        (0..20)
            .filter_map(|name: u8| cache.get("ns", &name.to_string()))
            .map(|object| (object.name_any(), word_of(&object).remove(0)))
            .collect()
    }

    #[test]
    fn a_list_replaces_what_was_there_only_when_it_is_complete() {
        let cache = cache();
        assert!(!cache.is_ready());
        cache.apply(Event::Init);
        cache.apply(Event::InitApply(object(1, 1)));
        cache.apply(Event::InitDone);
        assert!(cache.is_ready());
        cache.apply(Event::Init);
        cache.apply(Event::InitApply(object(2, 1)));
        assert_eq!(contents(&cache), [("1".to_owned(), "1".to_owned())].into());
        cache.apply(Event::InitDone);
        assert_eq!(contents(&cache), [("2".to_owned(), "1".to_owned())].into());
        assert_eq!(cache.find("1").len(), 1);
    }

    #[tokio::test]
    async fn waiting_sees_changes() {
        let cache = cache();
        let waiting = cache.clone();
        let task = tokio::spawn(async move { waiting.wait_until(|cache| cache.get("ns", "7").is_some()).await });
        cache.apply(Event::Apply(object(3, 1)));
        cache.apply(Event::Apply(object(7, 1)));
        task.await.unwrap();
    }

    proptest! {
        /// Whatever comes, the cache holds what a plain map would, and the index agrees with the objects.
        #[test]
        fn the_index_agrees_with_the_objects(steps in prop::collection::vec((0u8..3, 0u8..6, 0u8..4), 0..80)) {
            let cache = cache();
            let mut model: BTreeMap<String, String> = BTreeMap::new();
            for (step, name, word) in steps {
                match step {
                    0 => { cache.apply(Event::Delete(object(name, word))); model.remove(&name.to_string()); }
                    _ => {
                        cache.apply(Event::Apply(object(name, word)));
                        model.remove(&name.to_string());
                        if word != 0 { model.insert(name.to_string(), word.to_string()); }
                    }
                }
                prop_assert_eq!(contents(&cache), model.clone());
                for word in 0u8..4 {
                    let word = word.to_string();
                    let expected = model.values().filter(|value| **value == word).count();
                    prop_assert_eq!(cache.find(&word).len(), expected);
                }
                prop_assert_eq!(cache.len(), model.len());
            }
        }
    }
}
