//! GraphVolumes.

use crate::context::Context;
use crate::error::Error;
use crate::kinds::Managed;
use crate::provider::{Performance, VolumeRequest};
use crate::reconcile::{Done, Reconcile};
use crate::views::usage_of;
use crate::write;
use graphplane_core::Plan;
use graphplane_core::client_token::client_token;
use graphplane_core::names;
use graphplane_core::resources::mib;
use graphplane_core::volume_plan::{self, Action, Disk, Observed};
use graphplane_crds::quantities::MiB;
use graphplane_crds::volume::{GraphVolume, GraphVolumeStatus, VolumeState};
use jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the plan looks at, and what only the status needs.
pub(crate) struct Seen {
    plan: Observed,
    used: Option<MiB>,
}

impl Reconcile for GraphVolume {
    type Seen = Seen;
    type Action = Action;
    type Phase = Option<VolumeState>;
    type Memory = ();

    async fn observe(object: &Arc<Self>, ctx: &Context, (): &()) -> Result<Seen, Error> {
        observe(object, ctx).await
    }

    fn plan(object: &Self, seen: &Seen, now: Timestamp) -> Plan<Action, Option<VolumeState>> {
        volume_plan::plan(object, &seen.plan, now)
    }

    async fn act(
        object: &Arc<Self>,
        action: &Action,
        _: &Seen,
        ctx: &Context,
        (): &mut (),
    ) -> Result<Done<Self>, Error> {
        act(object, action, ctx).await
    }

    fn status(
        object: &Self,
        seen: &Seen,
        state: &Option<VolumeState>,
        _: &Context,
        (): &(),
        _: Timestamp,
    ) -> impl Serialize {
        let before = object.status.clone().unwrap_or_default();
        let disk = seen.plan.disk.as_ref();
        GraphVolumeStatus {
            volume_id: disk.map(|d| d.id.clone()).or(before.volume_id),
            state: *state,
            size_gib: disk.and_then(|d| d.size_gib).or(before.size_gib),
            used_mib: seen.used.or(before.used_mib),
            databases: seen.plan.databases.clone(),
            ..before
        }
    }
}

async fn observe(volume: &Arc<GraphVolume>, ctx: &Context) -> Result<Seen, Error> {
    let name = volume.name_any();
    let status = volume.status.clone().unwrap_or_default();
    let (placed, reserved) = placed(ctx, &name);
    let mut world = ctx.listing.world().await?;
    // What is on the disk and belongs to nobody may just have been deleted: then the listing is looked at anew.
    let looks_stale = |on_disk: &Vec<String>| {
        let mut ids = on_disk.iter().map(|id| names::lasting_database(id));
        ids.any(|id| !placed.contains(id))
    };
    if world
        .disks
        .get(&name)
        .and_then(|d| d.databases.as_ref())
        .is_some_and(looks_stale)
    {
        ctx.listing.invalidate();
        world = ctx.listing.world().await?;
    }
    let disk = world.disks.get(&name);
    let usage = status
        .attached_to
        .as_deref()
        .and_then(|node| usage_of(&ctx.hubs, node))
        .map(|(_, _, usage)| usage);
    let reported = usage
        .as_ref()
        .map(|u| u.databases.iter().map(|d| d.id.clone()).collect());
    let on_disk: Vec<String> = disk
        .and_then(|d| d.databases.clone())
        .or(reported)
        .unwrap_or_else(|| status.databases.clone());
    // What is being made to take a database's place is part of it, and no database that nobody asked for.
    let on_disk = on_disk.iter().map(|id| names::lasting_database(id).to_owned());
    let databases: BTreeSet<String> = on_disk.chain(placed).collect();
    let nodes = ctx.hubs.nodes.cache().list();
    let holding = nodes
        .iter()
        .filter(|n| n.spec.volume.as_deref() == Some(&name))
        .map(|n| n.name_any());
    Ok(Seen {
        plan: Observed {
            disk: disk.map(|d| Disk {
                id: d.id.clone(),
                size_gib: d.size_gib,
            }),
            databases: databases.into_iter().collect(),
            nodes: holding.collect(),
            reserved,
        },
        // In steps of 64 MiB, so that every insert does not become a write of the status.
        used: usage.map(|u| MiB(u32::try_from(u.disk_used_mib.div_ceil(64) * 64).unwrap_or(u32::MAX))),
    })
}

/// Databases of graphs and subgraphs that are on a volume, and the disk that they reserve.
fn placed(ctx: &Context, volume: &str) -> (BTreeSet<String>, MiB) {
    let mut ids = BTreeSet::new();
    let mut reserved = 0u32;
    for graph in ctx.hubs.graphs.cache().list() {
        let Some(status) = graph.status.as_ref().filter(|s| s.volume.as_deref() == Some(volume)) else {
            continue;
        };
        reserved = reserved.saturating_add(mib(graph.spec.storage.size_gib).0);
        if status.applied_schema.is_none() {
            continue;
        }
        ids.extend(status.graph_id.as_ref().map(|id| id.to_string()));
        let (namespace, name) = crate::cache::key(&*graph);
        let subgraphs = ctx.subgraphs_of(&namespace, &name);
        ids.extend(
            subgraphs
                .iter()
                .filter_map(|s| Some(s.status.as_ref()?.database_id.as_ref()?.to_string())),
        );
    }
    (ids, MiB(reserved))
}

async fn act(volume: &Arc<GraphVolume>, action: &Action, ctx: &Context) -> Result<Done<GraphVolume>, Error> {
    let name = volume.name_any();
    match action {
        Action::EnsureDisk => {
            let uid = volume.uid().unwrap_or_default();
            let want = VolumeRequest {
                zone: volume.spec.zone.clone(),
                size_gib: volume.spec.size_gib,
                performance: Performance {
                    type_: volume.spec.type_,
                    iops: volume.spec.iops,
                    throughput_mibps: volume.spec.throughput_mibps,
                },
                snapshot: None,
                client_token: client_token(&ctx.cluster_id, &uid, 0),
                tags: BTreeMap::from([
                    ("cluster".to_owned(), ctx.cluster_id.clone()),
                    ("kind".to_owned(), GraphVolume::KIND.to_owned()),
                    ("name".to_owned(), name.clone()),
                    ("uid".to_owned(), uid),
                ]),
                name,
            };
            ctx.listing.ensure_volume(&want).await?;
            Ok(Done::World)
        }
        Action::RaiseSize(to) => {
            let patch = json!({"spec": {"sizeGiB": to}});
            write::merge(ctx, &**volume, patch, "grow").await.map(Done::Written)
        }
        Action::DeleteDisk => {
            ctx.listing.delete_volume(&name).await?;
            Ok(Done::World)
        }
        Action::RemoveFinalizer => {
            write::remove_finalizer(ctx, &**volume).await?;
            Ok(Done::Gone)
        }
    }
}
