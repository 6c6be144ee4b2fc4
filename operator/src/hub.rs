//! One watch per kind, shared by every controller that looks at the kind.

use crate::cache::{Cache, Key, key};
use crate::error::Error;
use futures::{Stream, StreamExt};
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{self, reflector, store::Writer};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The watch of one kind.
pub(crate) struct Hub<K: Resource<DynamicType = ()> + Clone + Debug + 'static> {
    cache: Arc<Cache<K>>,
    writer: Mutex<Option<Writer<K>>>,
    listeners: Arc<Mutex<Vec<mpsc::UnboundedSender<Arc<K>>>>>,
}

impl<K> Hub<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    pub(crate) fn new() -> Self {
        let (reader, writer) = reflector::store();
        let cache = Arc::new(Cache::new(reader));
        Self {
            cache,
            writer: Mutex::new(Some(writer)),
            listeners: Arc::default(),
        }
    }

    /// What is known.
    pub(crate) fn cache(&self) -> &Arc<Cache<K>> {
        &self.cache
    }

    /// Every change from now on: objects as they are, and objects that are gone as they were last.
    ///
    /// The queue has no bound, since a slow listener must not stop the others; it holds pointers to objects that the cache
    /// holds anyway.
    pub(crate) fn changes(&self) -> impl Stream<Item = Arc<K>> + Send + 'static + use<K> {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        self.listeners.lock().push(sender);
        futures::stream::poll_fn(move |cx| receiver.poll_recv(cx))
    }

    /// Waits until everything that exists is known.
    pub(crate) async fn ready(&self) -> Result<(), Error> {
        let gone = |_| Error::Settings(format!("the watch of {} ended before it had begun", K::kind(&())));
        self.cache.store().wait_until_ready().await.map_err(gone)
    }

    /// Watches until `stop`. To be called once.
    pub(crate) fn run(
        &self,
        api: Api<K>,
        config: watcher::Config,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static + use<K> {
        let writer = self.writer.lock().take();
        let (cache, listeners) = (self.cache.clone(), self.listeners.clone());
        async move {
            let Some(writer) = writer else { return };
            let tell = |object: Arc<K>| listeners.lock().retain(|l| l.send(object.clone()).is_ok());
            let mut events = std::pin::pin!(reflector(writer, watcher(api, config)).default_backoff());
            let mut before: HashMap<Key, Arc<K>> = HashMap::new();
            let mut kept = Vec::new();
            loop {
                let event = tokio::select! {
                    () = stop.cancelled() => return,
                    event = events.next() => event,
                };
                match event {
                    None => return,
                    Some(Err(error)) => {
                        tracing::warn!(kind = %K::kind(&()), %error, "the watch failed and is begun anew")
                    }
                    Some(Ok(Event::Apply(object))) => {
                        cache.seen(&object);
                        tell(Arc::new(object));
                    }
                    Some(Ok(Event::Delete(object))) => {
                        cache.gone(&object);
                        tell(Arc::new(object));
                    }
                    Some(Ok(Event::Init)) => {
                        before = cache.store().state().into_iter().map(|o| (key(&*o), o)).collect();
                        kept = cache.kept();
                    }
                    Some(Ok(Event::InitApply(_))) => {}
                    Some(Ok(Event::InitDone)) => {
                        for object in cache.store().state() {
                            // An object of the same name with another UID is a new one: the old one went unseen.
                            let old = before.remove(&key(&*object)).filter(|old| old.uid() != object.uid());
                            old.into_iter().for_each(|old| cache.gone(&old));
                            cache.seen(&object);
                            tell(object);
                        }
                        cache.expire(std::mem::take(&mut kept));
                        for (_, object) in before.drain() {
                            cache.gone(&object);
                            tell(object);
                        }
                    }
                }
            }
        }
    }
}
