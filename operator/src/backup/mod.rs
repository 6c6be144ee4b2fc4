//! Backups.

mod snapshot;
mod store;

pub use store::StoreError;
pub(crate) use store::{Manifest, ObjectStore, ReadBack};

use crate::agent::TaskState;
use crate::cache::key;
use crate::context::Context;
use crate::error::Error;
use crate::reconcile::{Done, Reconcile};
use crate::views::whole;
use crate::write;
use graphplane_core::backup_plan::{self, Action, Observed, Stored, Task};
use graphplane_core::ending::{Database, NodeSeen};
use graphplane_core::volume_plan::State;
use graphplane_core::{Plan, names};
use graphplane_crds::backup::{Backup, BackupMethod, BackupPhase, BackupStatus};
use graphplane_crds::ids::{DatabaseId, GraphId};
use graphplane_crds::{Graph, Subgraph};
use jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;
use std::sync::Arc;

/// What a pass has learnt by acting.
#[derive(Default)]
pub(crate) struct Memory {
    read_back: Option<ReadBack>,
    cancelled: bool,
}

impl Reconcile for Backup {
    type Seen = Observed;
    type Action = Action;
    type Phase = BackupPhase;
    type Memory = Memory;

    async fn observe(object: &Arc<Self>, ctx: &Context, memory: &Memory) -> Result<Observed, Error> {
        observe(object, ctx, memory).await
    }

    fn plan(object: &Self, seen: &Observed, now: Timestamp) -> Plan<Action, BackupPhase> {
        backup_plan::plan(object, seen, now)
    }

    async fn act(
        object: &Arc<Self>,
        action: &Action,
        seen: &Observed,
        ctx: &Context,
        memory: &mut Memory,
    ) -> Result<Done<Self>, Error> {
        act(object, action, seen, ctx, memory).await
    }

    fn status(
        object: &Self,
        seen: &Observed,
        phase: &BackupPhase,
        _: &Context,
        memory: &Memory,
        now: Timestamp,
    ) -> impl Serialize {
        let mut status = object.status.clone().unwrap_or_default();
        status.phase = Some(*phase);
        if let Some((id, state)) = &seen.snapshot {
            status.snapshot_id = Some(id.clone());
            if *state == State::Complete {
                status.completed_at.get_or_insert_with(|| whole(now));
            }
        }
        if let (BackupPhase::Completed, Some(ReadBack::Good(manifest))) = (phase, &memory.read_back) {
            fill(&mut status, manifest);
            status.completed_at.get_or_insert_with(|| whole(now));
            status.verified_at = Some(whole(now));
        }
        status
    }
}

/// Figures of the manifest, for people who look at the object.
fn fill(status: &mut BackupStatus, manifest: &Manifest) {
    let number = |n: u64| Some(i64::try_from(n).unwrap_or(i64::MAX));
    status.sha256 = manifest
        .files
        .iter()
        .find(|f| f.kind == "graph")
        .or(manifest.files.first())
        .map(|f| f.sha256.clone());
    status.size_bytes = number(manifest.files.iter().map(|f| f.size_bytes).sum());
    status.node_count = number(manifest.node_count);
    status.relationship_count = number(manifest.relationship_count);
    status.ladybug_version = Some(manifest.ladybug_version.clone());
}

/// What a backup is of.
struct Source {
    graph_id: GraphId,
    database: DatabaseId,
    /// Whether the database was made. What is being deleted was asked for by its own reconciler.
    made: bool,
    node: NodeSeen,
    /// The GraphVolume that it is on.
    volume: Option<String>,
}

fn source(backup: &Backup, ctx: &Context) -> Option<Source> {
    let namespace = backup.namespace().unwrap_or_default();
    let graph: Arc<Graph> = ctx.hubs.graphs.cache().get(&namespace, &backup.spec.graph)?;
    let status = graph.status.as_ref()?;
    let graph_id = status.graph_id.clone()?;
    let (database, made) = match &backup.spec.subgraph {
        None => {
            let made = status.applied_schema.is_some() || graph.metadata.deletion_timestamp.is_some();
            (graph_id.database(), made)
        }
        Some(name) => {
            let subgraph: Arc<Subgraph> = ctx.hubs.subgraphs.cache().get(&namespace, name)?;
            let of_graph = subgraph.spec.graph == backup.spec.graph;
            let schema = subgraph.status.as_ref().and_then(|s| s.applied_schema.as_ref());
            let made = schema.is_some() || subgraph.metadata.deletion_timestamp.is_some();
            (crate::subgraph::database_id(&subgraph).filter(|_| of_graph)?, made)
        }
    };
    let node = ctx.node_seen(status.node.as_deref(), status.volume.as_deref());
    Some(Source {
        graph_id,
        database,
        made,
        node,
        volume: status.volume.clone(),
    })
}

async fn observe(backup: &Arc<Backup>, ctx: &Context, memory: &Memory) -> Result<Observed, Error> {
    let status = backup.status.clone().unwrap_or_default();
    let source = source(backup, ctx);
    let node = source.as_ref().map_or(NodeSeen::NotPlaced, |s| s.node.clone());
    let at_work = status.phase == Some(BackupPhase::Running);
    let task = match (&status.task_id, node.serving()) {
        _ if !at_work => Task::None,
        // The key is in the status, the task is not: whether it was started is found out by starting it again, which
        // finds the one that runs.
        (None, _) => Task::None,
        (Some(_), None) => Task::Unknown,
        (Some(id), Some(node)) => TaskState::seen(ctx.agent(node)?.task(id).await?),
    };
    let stored = match (&memory.read_back, &status.key, &ctx.store) {
        (Some(ReadBack::Good(_)), ..) => Stored::Verified,
        (Some(ReadBack::Damaged(why)), ..) => Stored::Damaged(why.clone()),
        _ if !at_work || task == Task::Running => Stored::Nothing,
        (None, Some(key), Some(store)) => match store.is_complete(key).await? {
            true => Stored::Manifest,
            false => Stored::Nothing,
        },
        _ => Stored::Unknown,
    };
    // Only a start needs to know whether there is something to back up.
    let starts = at_work && stored == Stored::Nothing && matches!(task, Task::None | Task::Interrupted);
    let exists = match (&source, node.serving()) {
        (Some(source), Some(node)) if starts => match ctx.agent(node)?.exists(source.database.as_str()).await? {
            true => Database::Present,
            false => Database::Absent,
        },
        _ => Database::Unknown,
    };
    let volume = source.as_ref().and_then(|s| s.volume.as_deref());
    let snapped = snapshot::observe(backup, volume, ctx).await?;
    // A source that is gone was made once, since the backup was begun.
    let made = source.as_ref().is_none_or(|s| s.made);
    let database = status.database_id.clone().or_else(|| source.map(|s| s.database));
    let (cancelled, object_store) = (memory.cancelled, ctx.store.is_some());
    Ok(Observed {
        database,
        made,
        exists,
        node,
        stored,
        task,
        cancelled,
        object_store,
        snapshots: ctx.listing.provider().snapshots().is_some(),
        disk: snapped.disk.is_some(),
        snapshot: snapped.snapshot,
    })
}

async fn act(
    backup: &Arc<Backup>,
    action: &Action,
    seen: &Observed,
    ctx: &Context,
    memory: &mut Memory,
) -> Result<Done<Backup>, Error> {
    let (_, name) = key(&**backup);
    let status = backup.status.clone().unwrap_or_default();
    let stored_at = status.key.clone().unwrap_or_default();
    match action {
        Action::Begin if backup.spec.method == BackupMethod::VolumeSnapshot => {
            let Some(source) = source(backup, ctx) else {
                return Ok(Done::World);
            };
            let status = BackupStatus {
                phase: Some(BackupPhase::Running),
                graph_id: Some(source.graph_id),
                database_id: Some(source.database),
                started_at: Some(whole(ctx.now())),
                ..status
            };
            write::guarded_status(ctx, backup, status).await.map(Done::Written)
        }
        Action::TakeSnapshot => {
            let volume = source(backup, ctx).and_then(|s| s.volume);
            snapshot::take(backup, volume.as_deref(), ctx).await?;
            Ok(Done::World)
        }
        Action::DeleteSnapshot => {
            if let Some((id, _)) = &seen.snapshot {
                snapshot::delete(id, ctx).await?;
            }
            Ok(Done::World)
        }
        Action::Begin => {
            let (Some(source), Some(node)) = (source(backup, ctx), seen.node.serving()) else {
                return Ok(Done::World);
            };
            let status = BackupStatus {
                phase: Some(BackupPhase::Running),
                key: Some(names::backup_key(&source.database, node.epoch, &name)),
                epoch: Some(node.epoch),
                graph_id: Some(source.graph_id),
                database_id: Some(source.database),
                started_at: Some(whole(ctx.now())),
                ..status
            };
            write::guarded_status(ctx, backup, status).await.map(Done::Written)
        }
        Action::Start => {
            let (Some(database), Some(node)) = (&status.database_id, seen.node.serving()) else {
                return Ok(Done::World);
            };
            let task = ctx.agent(node)?.start_backup(database.as_str(), &stored_at).await?;
            let mut noted = (**backup).clone();
            noted.status.get_or_insert_default().task_id = Some(task);
            Ok(Done::Noted(Arc::new(noted)))
        }
        Action::Verify => {
            let (Some(store), Some(database)) = (&ctx.store, &status.database_id) else {
                return Ok(Done::World);
            };
            memory.read_back = store.read_back(&stored_at, database.as_str()).await?;
            Ok(Done::World)
        }
        Action::Cancel => {
            if let (Some(task), Some(node)) = (&status.task_id, seen.node.serving()) {
                ctx.agent(node)?.cancel_task(task).await?;
            }
            memory.cancelled = true;
            Ok(Done::World)
        }
        Action::DeleteSelf => match write::delete(ctx, &**backup).await? {
            Some(marked) => Ok(Done::Written(marked)),
            None => Ok(Done::Gone),
        },
        Action::DeleteObjects => {
            if let Some(store) = &ctx.store {
                store.remove(&stored_at).await?;
            }
            write::remove_finalizer(ctx, &**backup).await?;
            Ok(Done::Gone)
        }
        Action::RemoveFinalizer => {
            write::remove_finalizer(ctx, &**backup).await?;
            Ok(Done::Gone)
        }
    }
}
