//! What can be done for a GraphVolume.

use super::Seen;
use super::observe::{DUE, FINAL, PURPOSE, SCHEDULE};
use crate::context::Context;
use crate::error::Error;
use crate::kinds::Managed;
use crate::provider::snapshots::SnapshotRequest;
use crate::provider::{DiskFacts, Performance, VolumeRequest};
use crate::reconcile::Done;
use crate::views::whole;
use crate::write;
use graphplane_core::client_token::client_token;
use graphplane_core::volume_plan::{Action, Disk};
use graphplane_crds::volume::GraphVolume;
use kube::ResourceExt;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) async fn act(
    volume: &Arc<GraphVolume>,
    action: &Action,
    seen: &Seen,
    ctx: &Context,
) -> Result<Done<GraphVolume>, Error> {
    let name = volume.name_any();
    match action {
        Action::EnsureDisk => {
            let disk = ctx.listing.ensure_volume(&request(volume, None, ctx)).await?;
            Ok(noted(volume, &disk, None))
        }
        Action::RestoreDisk(snapshot) => {
            let want = request(volume, Some(snapshot), ctx);
            let disk = ctx.listing.ensure_volume(&want).await?;
            let note = format!("{} is made from {snapshot}", disk.id);
            write::event(ctx, &**volume, "DiskRestored", "Restore", note);
            Ok(noted(volume, &disk, Some(snapshot)))
        }
        Action::RaiseSize(to) => {
            let patch = json!({"spec": {"sizeGiB": to}});
            let grown = write::merge(ctx, &**volume, patch, "grow").await?;
            write::event(ctx, &**volume, "Grows", "Grow", format!("to {} GiB", to.0));
            Ok(Done::Written(grown))
        }
        Action::TakeSnapshot(due) => {
            let due = due.as_second();
            let mut tags = tags(volume, ctx);
            tags.insert(PURPOSE.to_owned(), SCHEDULE.to_owned());
            tags.insert(DUE.to_owned(), due.to_string());
            if let Some(policy) = &volume.spec.snapshots {
                // Should the volume be deleted before: so long it is no orphan.
                let end = ctx.now().as_second() + i64::from(policy.retention_days) * 86_400;
                tags.insert("expires".to_owned(), end.to_string());
            }
            let token = token(volume, ctx, &format!("due {due}"));
            snapshot(volume, seen, ctx, token, tags).await
        }
        Action::TakeFinalSnapshot => {
            let mut tags = tags(volume, ctx);
            tags.insert(PURPOSE.to_owned(), FINAL.to_owned());
            tags.insert("retained".to_owned(), whole(ctx.now()).0.to_string());
            let token = token(volume, ctx, FINAL);
            snapshot(volume, seen, ctx, token, tags).await
        }
        Action::DeleteSnapshot(id) => {
            if let Some(snapshots) = ctx.listing.provider().snapshots() {
                let call = snapshots.delete_snapshot(id);
                ctx.listing.changing("delete_snapshot", call).await?;
            }
            Ok(Done::World)
        }
        Action::KeepDisk => {
            if let (Some(inventory), Some(disk)) = (ctx.listing.provider().inventory(), &seen.plan.disk) {
                let call = inventory.keep_disk(&disk.id);
                ctx.listing.changing("keep_disk", call).await?;
            }
            Ok(Done::World)
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

/// Ownership of what is made for a volume.
fn tags(volume: &GraphVolume, ctx: &Context) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("cluster".to_owned(), ctx.cluster_id.clone()),
        ("kind".to_owned(), GraphVolume::KIND.to_owned()),
        ("name".to_owned(), volume.name_any()),
        ("uid".to_owned(), volume.uid().unwrap_or_default()),
        ("tier".to_owned(), volume.spec.tier.clone()),
    ])
}

/// The token of what is made for a volume once, apart from its first disk.
fn token(volume: &GraphVolume, ctx: &Context, what: &str) -> String {
    let uid = volume.uid().unwrap_or_default();
    client_token(&ctx.cluster_id, &format!("{uid} {what}"), 0)
}

fn request(volume: &GraphVolume, from: Option<&String>, ctx: &Context) -> VolumeRequest {
    let spec = &volume.spec;
    VolumeRequest {
        name: volume.name_any(),
        zone: spec.zone.clone(),
        size_gib: spec.size_gib,
        performance: Performance {
            type_: spec.type_,
            iops: spec.iops,
            throughput_mibps: spec.throughput_mibps,
        },
        snapshot: from.cloned(),
        client_token: match from {
            None => client_token(&ctx.cluster_id, &volume.uid().unwrap_or_default(), 0),
            Some(snapshot) => token(volume, ctx, snapshot),
        },
        tags: tags(volume, ctx),
    }
}

/// What the provider answered is written with the rest of the status: the disk's identity, from what it was made, and
/// that it was changed.
fn noted(volume: &GraphVolume, disk: &DiskFacts, from: Option<&String>) -> Done<GraphVolume> {
    let mut noted = volume.clone();
    let status = noted.status.get_or_insert_default();
    status.volume_id = Some(disk.id.clone());
    if let Some(modification) = &disk.modification {
        status.modifications.push(whole(modification.started));
    }
    if let Some(snapshot) = from {
        status.restored_from = Some(snapshot.clone());
    }
    Done::Noted(Arc::new(noted))
}

async fn snapshot(
    volume: &GraphVolume,
    seen: &Seen,
    ctx: &Context,
    token: String,
    tags: BTreeMap<String, String>,
) -> Result<Done<GraphVolume>, Error> {
    if let (Some(snapshots), Some(Disk { id, .. })) = (ctx.listing.provider().snapshots(), &seen.plan.disk) {
        let want = SnapshotRequest {
            volume: volume.name_any(),
            disk: id.clone(),
            token,
            tags,
        };
        let call = snapshots.ensure_snapshot(&want);
        let made = ctx.listing.changing("ensure_snapshot", call).await?;
        write::event(ctx, volume, "SnapshotTaken", "Snapshot", made.id);
    }
    Ok(Done::World)
}
