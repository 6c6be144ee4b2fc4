//! The one place where capacity is given away.
//!
//! Two reconciles that look at the same free slot must not both take it. So a decision is made while holding a lock, from
//! everything that is known at that moment, and what was decided is a promise that counts as taken until the status that
//! says so has been written. The lock is held while nodes are made or removed, too: between looking and writing, nobody
//! else decides.

use crate::context::Context;
use crate::error::Error;
use crate::kinds::Managed;
use crate::write;
use graphplane_core::placement::NewNode;
use graphplane_crds::annotations::{FINALIZER, TIER_LABEL};
use graphplane_crds::graph::DeletionPolicy;
use graphplane_crds::node::{GraphNodeSpec, NodeRole};
use graphplane_crds::tier::TierRole;
use graphplane_crds::volume::GraphVolumeSpec;
use graphplane_crds::{GraphNode, GraphVolume, Tier};
use kube::ResourceExt;
use parking_lot::Mutex;
use std::collections::HashMap;
use tokio::sync::MutexGuard;

/// The lock, and what has been promised under it.
#[derive(Default)]
pub(crate) struct Placer {
    lock: tokio::sync::Mutex<()>,
    /// Node that was promised to a graph, by the graph's UID.
    promises: Mutex<HashMap<String, String>>,
}

/// A promise; it ends with this value, when the status has been written or could not be.
pub(crate) struct Promise<'a> {
    placer: &'a Placer,
    uid: String,
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        self.placer.promises.lock().remove(&self.uid);
    }
}

impl Placer {
    /// Waits until nobody else decides.
    pub(crate) async fn alone(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().await
    }

    /// Promises a node to a graph. To be called by who holds the lock.
    pub(crate) fn promise(&self, _alone: &MutexGuard<'_, ()>, uid: &str, node: &str) -> Promise<'_> {
        self.promises.lock().insert(uid.to_owned(), node.to_owned());
        Promise {
            placer: self,
            uid: uid.to_owned(),
        }
    }

    pub(crate) fn promises(&self) -> HashMap<String, String> {
        self.promises.lock().clone()
    }

    /// Makes a GraphNode, and its GraphVolume first where it is new. Both names are computed, so a repetition after a
    /// crash finds what the first attempt made: a volume without a node is taken for the next one.
    pub(crate) async fn start(
        &self,
        _alone: &MutexGuard<'_, ()>,
        ctx: &Context,
        tier: &Tier,
        new: &NewNode,
    ) -> Result<(), Error> {
        if new.new_volume {
            let volume = volume_object(tier, new);
            let made = write::create(ctx, &volume).await?;
            check(&*made, made.spec.tier == tier.name_any())?;
        }
        let node = node_object(tier, new);
        let made = write::create(ctx, &node).await?;
        check(
            &*made,
            made.spec.tier == tier.name_any() && made.spec.volume.as_deref() == Some(&new.volume),
        )?;
        let note = format!("node {} is made, with volume {}", new.node, new.volume);
        write::event(ctx, tier, "NodeCreated", "Scale", note);
        Ok(())
    }
}

/// An object of that name that is another one: the next pass sees it and chooses another name.
fn check<K: Managed>(object: &K, is_ours: bool) -> Result<(), Error> {
    match is_ours && object.meta().deletion_timestamp.is_none() {
        true => Ok(()),
        false => Err(Error::Conflict(write::label(object))),
    }
}

fn volume_object(tier: &Tier, new: &NewNode) -> GraphVolume {
    let storage = &tier.spec.storage;
    let spec = GraphVolumeSpec {
        tier: tier.name_any(),
        zone: new.zone.clone(),
        size_gib: new.size_gib,
        type_: storage.type_,
        iops: storage.iops,
        throughput_mibps: storage.throughput_mibps,
        autogrow: storage.autogrow.clone(),
        snapshots: None,
        // An empty disk of a node that is gone is of no use; one with databases is never destroyed anyway.
        reclaim_policy: DeletionPolicy::Delete,
    };
    let mut volume = GraphVolume::new(&new.volume, spec);
    volume.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    volume.metadata.labels = Some([(TIER_LABEL.to_owned(), tier.name_any())].into());
    volume
}

fn node_object(tier: &Tier, new: &NewNode) -> GraphNode {
    let spec = GraphNodeSpec {
        tier: tier.name_any(),
        role: match tier.spec.role {
            TierRole::Writer => NodeRole::Writer,
            TierRole::Shared => NodeRole::Shared,
        },
        zone: new.zone.clone(),
        volume: Some(new.volume.clone()),
        instance_type: tier.spec.instance.types.first().cloned(),
        replica: None,
    };
    let mut node = GraphNode::new(&new.node, spec);
    node.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    node.metadata.labels = Some([(TIER_LABEL.to_owned(), tier.name_any())].into());
    node
}
