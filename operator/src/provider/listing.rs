//! A provider with its listing kept for a while, and its calls counted.

use super::{DiskFacts, InstanceRequest, Provider, ProviderError, VolumeRequest, World};
use crate::metrics::Metrics;
use graphplane_core::node_plan::Instance;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

struct Kept {
    world: Arc<World>,
    at: Instant,
    version: u64,
}

/// The provider as reconcilers use it.
pub(crate) struct Listing {
    provider: Arc<dyn Provider>,
    metrics: Metrics,
    kept: Mutex<Option<Kept>>,
    /// Raised by every change; a listing that began before a change is not kept.
    version: AtomicU64,
    one_at_a_time: tokio::sync::Mutex<()>,
}

impl Listing {
    pub(crate) fn new(provider: Arc<dyn Provider>, metrics: Metrics) -> Self {
        Self {
            provider,
            metrics,
            kept: Mutex::new(None),
            version: AtomicU64::new(0),
            one_at_a_time: Default::default(),
        }
    }

    pub(crate) fn provider(&self) -> &Arc<dyn Provider> {
        &self.provider
    }

    /// Everything that the provider has, as of a moment ago.
    pub(crate) async fn world(&self) -> Result<Arc<World>, ProviderError> {
        self.world_within(self.provider.listing_lasts()).await
    }

    /// Everything that the provider has, as of at most this long ago: for whoever waits for the end of something that the
    /// provider does not tell of.
    pub(crate) async fn world_within(&self, age: Duration) -> Result<Arc<World>, ProviderError> {
        if let Some(world) = self.current(age) {
            return Ok(world);
        }
        let _one = self.one_at_a_time.lock().await;
        // Another reconcile may have asked while this one waited.
        if let Some(world) = self.current(age) {
            return Ok(world);
        }
        let version = self.version.load(Ordering::SeqCst);
        let world = Arc::new(self.counted("describe", self.provider.describe()).await?);
        *self.kept.lock() = Some(Kept {
            world: world.clone(),
            at: Instant::now(),
            version,
        });
        Ok(world)
    }

    fn current(&self, age: Duration) -> Option<Arc<World>> {
        let kept = self.kept.lock();
        let kept = kept.as_ref()?;
        let valid = kept.version == self.version.load(Ordering::SeqCst) && kept.at.elapsed() < age;
        valid.then(|| kept.world.clone())
    }

    /// Something changed: the next reading asks anew.
    pub(crate) fn invalidate(&self) {
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) async fn ensure_volume(&self, want: &VolumeRequest) -> Result<DiskFacts, ProviderError> {
        self.changing("ensure_volume", self.provider.ensure_volume(want)).await
    }

    pub(crate) async fn delete_volume(&self, name: &str) -> Result<(), ProviderError> {
        self.changing("delete_volume", self.provider.delete_volume(name)).await
    }

    pub(crate) async fn attach_volume(&self, name: &str, machine: &str) -> Result<(), ProviderError> {
        self.changing("attach_volume", self.provider.attach_volume(name, machine))
            .await
    }

    pub(crate) async fn detach_volume(&self, name: &str, machine: &str, force: bool) -> Result<(), ProviderError> {
        self.changing("detach_volume", self.provider.detach_volume(name, machine, force))
            .await
    }

    pub(crate) async fn ensure_instance(&self, want: &InstanceRequest) -> Result<Instance, ProviderError> {
        self.changing("ensure_instance", self.provider.ensure_instance(want))
            .await
    }

    pub(crate) async fn stop_instance(&self, node: &str, force: bool) -> Result<(), ProviderError> {
        self.changing("stop_instance", self.provider.stop_instance(node, force))
            .await
    }

    pub(crate) async fn forget_instance(&self, node: &str) -> Result<(), ProviderError> {
        self.changing("forget_instance", self.provider.forget_instance(node))
            .await
    }

    /// A call of one of the provider's optional abilities that changes something.
    pub(crate) async fn changing<T>(
        &self,
        call: &'static str,
        work: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        let result = self.counted(call, work).await;
        // Also after a failure: what it did before it failed is not known.
        self.invalidate();
        result
    }

    /// A call that changes nothing that a listing shows.
    pub(crate) async fn counted<T>(
        &self,
        call: &'static str,
        work: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        let started = Instant::now();
        let result = work.await;
        let outcome = result.as_ref().map_or_else(ProviderError::label, |_| "ok");
        self.metrics
            .called(self.provider.name(), call, outcome, started.elapsed());
        result
    }
}
