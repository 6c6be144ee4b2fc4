//! What every request can reach.

use crate::auth::{Failures, KeyRing};
use crate::cache::Caches;
use crate::error::Error;
use crate::gateway::Gateway;
use crate::idempotency::Locks;
use crate::metrics::Metrics;
use crate::nodes::lease::Renewals;
use crate::nodes::misuse::Misuses;
use crate::settings::Settings;
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use std::ops::Deref;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The API's state. Cheap to clone; the background tasks end with the last clone.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

/// What an [`App`] holds.
pub(crate) struct Inner {
    pub(crate) client: Client,
    pub(crate) settings: Settings,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) caches: Caches,
    pub(crate) keys: KeyRing,
    pub(crate) failures: Failures,
    pub(crate) locks: Locks,
    pub(crate) renewals: Renewals,
    pub(crate) misuses: Misuses,
    pub(crate) gateway: Gateway,
    /// One permit per follower of an operation.
    pub(crate) followers: Arc<Semaphore>,
    _stop: DropGuard,
}

impl Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl App {
    /// Starts the watch caches.
    pub(crate) fn new(client: Client, settings: Settings) -> Result<Self, Error> {
        let stop = CancellationToken::new();
        let metrics = Metrics::new();
        let gateway = Gateway::new(&settings.gateway, metrics.clone())?;
        let caches = Caches::start(&client, &settings, &metrics, &stop);
        let app = Self(Arc::new(Inner {
            keys: KeyRing::new(settings.bootstrap_keys.clone(), caches.secrets.clone()),
            failures: Failures::default(),
            locks: Locks::default(),
            renewals: Renewals::default(),
            misuses: Misuses::new(client.clone()),
            gateway,
            followers: Arc::new(Semaphore::new(settings.max_event_streams)),
            client,
            settings,
            metrics,
            caches,
            _stop: stop.clone().drop_guard(),
        }));
        app.forget_nodes_that_go(stop);
        Ok(app)
    }

    /// The objects of a kind in a namespace.
    pub(crate) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The objects of a cluster-scoped kind.
    pub(crate) fn cluster_api<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    /// Drops what is remembered of nodes that no longer exist, so that memory does not grow with their number.
    fn forget_nodes_that_go(&self, stop: CancellationToken) {
        let weak = Arc::downgrade(&self.0);
        let nodes = self.caches.nodes.clone();
        let mut changes = nodes.changes();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    changed = changes.changed() => if changed.is_err() { return },
                }
                let Some(inner) = weak.upgrade() else { return };
                if !nodes.is_ready() {
                    continue;
                }
                let gone = |node: &str| nodes.get("", node).is_none();
                inner.misuses.forget(gone);
                for node in inner
                    .renewals
                    .forget(gone)
                    .into_iter()
                    .chain(inner.gateway.forget(gone))
                {
                    inner.metrics.forget_node(&node);
                }
            }
        });
    }
}
