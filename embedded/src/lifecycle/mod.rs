//! The controllers of the server itself: what Kubernetes' controller manager does for the kinds that are served here.
//!
//! Each is driven by the events of the store, starts with a look at everything, and does nothing that it could not do
//! twice, so that a restart at any point loses nothing.

mod definitions;
mod expiry;
mod namespaces;

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::status::ApiError;
use crate::store::{Event, Key};
use crate::verbs::Target;

/// The manager name of the server's own writes.
pub(crate) const MANAGER: &str = "graphplane-embedded";

/// How long a controller waits before it tries again what failed.
pub(crate) const RETRY: Duration = Duration::from_millis(500);

/// Starts all controllers; they end when the cluster stops.
pub(crate) fn start(cluster: &Arc<Cluster>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(until_stopped(cluster.clone(), namespaces::run(cluster.clone())));
    tasks.spawn(until_stopped(cluster.clone(), definitions::run(cluster.clone())));
    tasks.spawn(until_stopped(cluster.clone(), expiry::run(cluster.clone())));
    tasks.spawn(until_stopped(cluster.clone(), crate::gc::run(cluster.clone())));
    tasks
}

async fn until_stopped(cluster: Arc<Cluster>, controller: impl Future<Output = ()>) {
    tokio::select! {
        () = cluster.stopping.cancelled() => {}
        () = controller => {}
    }
}

/// The object behind a key, as a target for the verbs; nothing if its kind is not served.
pub(crate) fn target(cluster: &Cluster, key: &Key) -> Option<Target> {
    Some(Target {
        resource: cluster.stored_resource(&key.resource)?,
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
    })
}

/// Whether an error means that there is nothing left to do.
pub(crate) fn is_gone(error: &ApiError) -> bool {
    error.reason == "NotFound"
}

/// Work to do, each piece once however often it is asked for.
pub(crate) struct Queue<T> {
    events: mpsc::UnboundedReceiver<Arc<Event>>,
    waiting: VecDeque<T>,
    known: BTreeSet<T>,
    retries: JoinSet<T>,
}

impl<T: Ord + Clone + Hash + Send + 'static> Queue<T> {
    pub(crate) fn new(events: mpsc::UnboundedReceiver<Arc<Event>>) -> Self {
        Self {
            events,
            waiting: VecDeque::new(),
            known: BTreeSet::new(),
            retries: JoinSet::new(),
        }
    }

    pub(crate) fn add(&mut self, work: T) {
        if self.known.insert(work.clone()) {
            self.waiting.push_back(work);
        }
    }

    /// Asks for the same work again in a while.
    pub(crate) fn retry(&mut self, work: T) {
        self.retries.spawn(async move {
            tokio::time::sleep(RETRY).await;
            work
        });
    }

    /// The next piece of work. `sort` turns an event into work.
    pub(crate) async fn next(&mut self, sort: impl Fn(&Event) -> Vec<T>) -> Option<T> {
        loop {
            while let Ok(event) = self.events.try_recv() {
                sort(&event).into_iter().for_each(|work| self.add(work));
            }
            if let Some(work) = self.waiting.pop_front() {
                self.known.remove(&work);
                return Some(work);
            }
            tokio::select! {
                event = self.events.recv() => sort(&*event?).into_iter().for_each(|work| self.add(work)),
                Some(Ok(work)) = self.retries.join_next() => self.add(work),
            }
        }
    }
}
