//! Backups that are snapshots of a volume.

use crate::context::Context;
use crate::error::Error;
use crate::kinds::Managed;
use crate::provider::snapshots::{SnapshotFacts, SnapshotRequest, SnapshotState};
use graphplane_core::client_token::client_token;
use graphplane_core::volume_plan::State;
use graphplane_crds::backup::{Backup, BackupMethod, BackupPhase};
use kube::ResourceExt;
use std::collections::BTreeMap;

/// What the provider has.
#[derive(Default)]
pub(super) struct Seen {
    /// Identity of the disk that the graph is on.
    pub(super) disk: Option<String>,
    /// The snapshot that was taken for the backup.
    pub(super) snapshot: Option<(String, State)>,
}

pub(super) async fn observe(backup: &Backup, volume: Option<&str>, ctx: &Context) -> Result<Seen, Error> {
    if backup.spec.method != BackupMethod::VolumeSnapshot {
        return Ok(Seen::default());
    }
    let phase = backup.status.as_ref().and_then(|s| s.phase);
    let uid = backup.uid().unwrap_or_default();
    let mut world = ctx.listing.world().await?;
    let pending = |s: &SnapshotFacts| s.tags.get("uid") == Some(&uid) && matches!(s.state, SnapshotState::Pending(_));
    // A listing of a while ago would not show that it is complete.
    if phase == Some(BackupPhase::Running) && world.snapshots.iter().any(pending) {
        ctx.listing.invalidate();
        world = ctx.listing.world().await?;
    }
    let taken = world.snapshots.iter().find(|s| s.tags.get("uid") == Some(&uid));
    let state = |state| match state {
        SnapshotState::Pending(_) => State::Pending,
        SnapshotState::Complete => State::Complete,
        SnapshotState::Failed => State::Failed,
    };
    Ok(Seen {
        disk: volume.and_then(|v| world.disks.get(v)).map(|d| d.id.clone()),
        snapshot: taken.map(|s| (s.id.clone(), state(s.state))),
    })
}

/// Takes the snapshot of the volume that the graph is on. Its token is made of the Backup's UID, so that a repetition finds
/// it.
pub(super) async fn take(backup: &Backup, volume: Option<&str>, ctx: &Context) -> Result<(), Error> {
    let (Some(snapshots), Some(volume)) = (ctx.listing.provider().snapshots(), volume) else {
        return Ok(());
    };
    let Some(disk) = observe(backup, Some(volume), ctx).await?.disk else {
        return Ok(());
    };
    let uid = backup.uid().unwrap_or_default();
    let name = format!("{}.{}", backup.namespace().unwrap_or_default(), backup.name_any());
    let tier = ctx.hubs.volumes.cache().get("", volume).map(|v| v.spec.tier.clone());
    let tags = BTreeMap::from([
        ("cluster".to_owned(), ctx.cluster_id.clone()),
        ("kind".to_owned(), Backup::KIND.to_owned()),
        ("name".to_owned(), name),
        ("uid".to_owned(), uid.clone()),
        ("tier".to_owned(), tier.unwrap_or_default()),
        ("purpose".to_owned(), "backup".to_owned()),
    ]);
    let want = SnapshotRequest {
        volume: volume.to_owned(),
        disk,
        token: client_token(&ctx.cluster_id, &uid, 0),
        tags,
    };
    let call = snapshots.ensure_snapshot(&want);
    ctx.listing.changing("ensure_snapshot", call).await?;
    Ok(())
}

pub(super) async fn delete(id: &str, ctx: &Context) -> Result<(), Error> {
    if let Some(snapshots) = ctx.listing.provider().snapshots() {
        let call = snapshots.delete_snapshot(id);
        ctx.listing.changing("delete_snapshot", call).await?;
    }
    Ok(())
}
