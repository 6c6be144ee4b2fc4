//! What a GraphVolume's plan looks at.

use super::Seen;
use crate::context::Context;
use crate::error::Error;
use crate::provider::snapshots::{SnapshotFacts, SnapshotState};
use crate::provider::{Attachment, DiskFacts, ModificationState, Performance, World};
use crate::views::{usage_of, whole};
use graphplane_core::names;
use graphplane_core::resources::mib;
use graphplane_core::volume_plan::{Change, Disk, Fill, Observed, Purpose, Snapshot, State};
use graphplane_crds::quantities::MiB;
use graphplane_crds::tier::VolumeType;
use graphplane_crds::volume::{GraphVolume, GraphVolumeSpec};
use jiff::Timestamp;
use kube::ResourceExt;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Tag that says why a snapshot of a volume was taken.
pub(super) const PURPOSE: &str = "purpose";
/// The snapshot was due by the volume's schedule.
pub(super) const SCHEDULE: &str = "schedule";
/// The snapshot is the last one of a volume that was deleted.
pub(super) const FINAL: &str = "final";
/// Tag with the time when a snapshot was due, in seconds since 1970.
pub(super) const DUE: &str = "due";

pub(super) async fn observe(volume: &Arc<GraphVolume>, ctx: &Context) -> Result<Seen, Error> {
    let name = volume.name_any();
    let status = volume.status.clone().unwrap_or_default();
    let (placed, reserved) = placed(ctx, &name);
    let mut world = ctx.listing.world().await?;
    if looks_stale(volume, &world, &placed) {
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
    let provider = ctx.listing.provider();
    let size = |mib: u64| MiB(u32::try_from(mib).unwrap_or(u32::MAX));
    Ok(Seen {
        plan: Observed {
            disk: disk.map(|d| disk_of(volume, d)),
            databases: databases.into_iter().collect(),
            nodes: holding.collect(),
            reserved,
            fill: usage.as_ref().map(|u| Fill {
                used: size(u.disk_used_mib),
                free: size(u.disk_free_mib),
            }),
            snapshots: provider.snapshots().map(|_| snapshots(volume, &world, ctx)),
            notes_kept_disks: provider.inventory().is_some(),
        },
        // In steps of 64 MiB, so that every insert does not become a write of the status.
        used: usage.map(|u| size(u.disk_used_mib.div_ceil(64) * 64)),
        changed: disk
            .and_then(|d| d.modification.as_ref())
            .map(|modification| whole(modification.started).0),
    })
}

/// Whether a listing of a while ago would keep somebody waiting: what is on the disk and belongs to nobody may just have
/// been deleted; a change of the disk is soon made; a final snapshot is what a deletion waits for; a disk that was there may
/// only not have been listed.
fn looks_stale(volume: &GraphVolume, world: &World, placed: &BTreeSet<String>) -> bool {
    let disk = world.disks.get(&volume.name_any());
    let databases = disk.and_then(|d| d.databases.as_ref());
    let unowned = databases.is_some_and(|ids| ids.iter().any(|id| !placed.contains(names::lasting_database(id))));
    let modification = disk.and_then(|d| d.modification.as_ref());
    let modifying = modification.is_some_and(|m| m.state == ModificationState::Modifying);
    let ending = volume.metadata.deletion_timestamp.is_some()
        && (of_volume(volume, world).any(|s| purpose(s) == Some(Purpose::Final) && state(s) == State::Pending)
            || disk.is_some_and(attached));
    let known = volume.status.as_ref().is_some_and(|s| s.volume_id.is_some());
    unowned || modifying || ending || (known && disk.is_none())
}

fn disk_of(volume: &GraphVolume, disk: &DiskFacts) -> Disk {
    Disk {
        id: disk.id.clone(),
        size_gib: disk.size_gib,
        performance_differs: disk.performance.is_some_and(|has| differs(&volume.spec, has)),
        attached: attached(disk),
        own_file_system: disk.attachment != Attachment::NotNeeded,
        change: match disk.modification.as_ref().map(|m| m.state) {
            Some(ModificationState::Modifying) => Change::Modifying,
            Some(ModificationState::Optimizing) => Change::Optimizing,
            Some(ModificationState::Failed) => Change::Failed,
            Some(ModificationState::Completed) | None => Change::None,
        },
        foreign: disk.made_for.is_some() && disk.made_for != volume.uid(),
    }
}

fn attached(disk: &DiskFacts) -> bool {
    !matches!(disk.attachment, Attachment::NotNeeded | Attachment::Detached)
}

fn differs(spec: &GraphVolumeSpec, has: Performance) -> bool {
    let throughput = spec.type_ == VolumeType::Gp3 && has.throughput_mibps != spec.throughput_mibps;
    has.type_ != spec.type_ || has.iops != spec.iops || throughput
}

/// Snapshots that were taken for a volume.
fn of_volume<'a>(volume: &GraphVolume, world: &'a World) -> impl Iterator<Item = &'a SnapshotFacts> + use<'a> {
    let uid = volume.uid().unwrap_or_default();
    world
        .snapshots
        .iter()
        .filter(move |s| !uid.is_empty() && s.tags.get("uid") == Some(&uid))
}

fn snapshots(volume: &GraphVolume, world: &World, ctx: &Context) -> Vec<Snapshot> {
    let backups = ctx.hubs.backups.cache().list();
    let named = |id: &str| {
        let mut statuses = backups.iter().filter_map(|b| b.status.as_ref());
        statuses.any(|s| s.snapshot_id.as_deref() == Some(id))
    };
    let found = of_volume(volume, world).filter_map(|s| {
        Some(Snapshot {
            id: s.id.clone(),
            purpose: purpose(s)?,
            started: s.started,
            state: state(s),
            in_use: named(&s.id),
        })
    });
    found.collect()
}

fn purpose(snapshot: &SnapshotFacts) -> Option<Purpose> {
    match snapshot.tags.get(PURPOSE)?.as_str() {
        FINAL => Some(Purpose::Final),
        SCHEDULE => {
            let due = snapshot.tags.get(DUE)?.parse().ok()?;
            Some(Purpose::Schedule(Timestamp::from_second(due).ok()?))
        }
        _ => None,
    }
}

fn state(snapshot: &SnapshotFacts) -> State {
    match snapshot.state {
        SnapshotState::Pending(_) => State::Pending,
        SnapshotState::Complete => State::Complete,
        SnapshotState::Failed => State::Failed,
    }
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
