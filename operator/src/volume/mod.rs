//! GraphVolumes.

mod act;
mod observe;

use crate::context::Context;
use crate::error::Error;
use crate::reconcile::{Done, Reconcile};
use graphplane_core::Plan;
use graphplane_core::volume_plan::{self, Action, Observed};
use graphplane_crds::quantities::MiB;
use graphplane_crds::volume::{GraphVolume, GraphVolumeStatus, VolumeSnapshotRef, VolumeState};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Serialize;
use std::sync::Arc;

/// What the plan looks at, and what only the status needs.
pub(crate) struct Seen {
    plan: Observed,
    used: Option<MiB>,
    /// When the newest change of the disk was begun, as far as the provider still says so.
    changed: Option<Timestamp>,
}

impl Reconcile for GraphVolume {
    type Seen = Seen;
    type Action = Action;
    type Phase = Option<VolumeState>;
    type Memory = ();

    async fn observe(object: &Arc<Self>, ctx: &Context, (): &()) -> Result<Seen, Error> {
        observe::observe(object, ctx).await
    }

    fn plan(object: &Self, seen: &Seen, now: Timestamp) -> Plan<Action, Option<VolumeState>> {
        volume_plan::plan(object, &seen.plan, now)
    }

    async fn act(
        object: &Arc<Self>,
        action: &Action,
        seen: &Seen,
        ctx: &Context,
        (): &mut (),
    ) -> Result<Done<Self>, Error> {
        act::act(object, action, seen, ctx).await
    }

    fn status(
        object: &Self,
        seen: &Seen,
        state: &Option<VolumeState>,
        _: &Context,
        (): &(),
        now: Timestamp,
    ) -> impl Serialize {
        let before = object.status.clone().unwrap_or_default();
        let disk = seen.plan.disk.as_ref();
        let newest = seen.plan.snapshots.as_deref().and_then(volume_plan::newest);
        // Somebody else may have changed the disk, too.
        let changes: Vec<Time> = before
            .modifications
            .iter()
            .cloned()
            .chain(seen.changed.map(Time))
            .collect();
        GraphVolumeStatus {
            volume_id: disk.map(|d| d.id.clone()).or(before.volume_id),
            state: *state,
            size_gib: disk.and_then(|d| d.size_gib).or(before.size_gib),
            used_mib: seen.used.or(before.used_mib),
            databases: seen.plan.databases.clone(),
            modifications: volume_plan::recent(&changes, now),
            last_snapshot: newest
                .map(|snapshot| VolumeSnapshotRef {
                    id: snapshot.id.clone(),
                    time: Time(snapshot.started),
                })
                .or(before.last_snapshot.filter(|_| seen.plan.snapshots.is_none())),
            ..before
        }
    }
}
