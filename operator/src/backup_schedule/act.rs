//! What is done for a BackupSchedule.

use super::{Memory, Seen};
use crate::agent::{Agent, RestoreStart};
use crate::cache::key;
use crate::context::Context;
use crate::error::Error;
use crate::reconcile::Done;
use crate::views::whole;
use crate::write;
use graphplane_core::backup_schedule_plan::{Action, Ended};
use graphplane_core::names;
use graphplane_crds::annotations::{FINALIZER, GRAPH_LABEL, SCHEDULE_LABEL, SCHEDULED_FOR};
use graphplane_crds::backup::{BackupSpec, Drill};
use graphplane_crds::conditions::{self, reasons};
use graphplane_crds::{Backup, BackupSchedule};
use jiff::Timestamp;
use kube::Resource;
use kube::runtime::events::EventType;
use std::sync::Arc;

pub(super) async fn act(
    schedule: &Arc<BackupSchedule>,
    action: &Action,
    seen: &Seen,
    ctx: &Context,
    memory: &mut Memory,
) -> Result<Done<BackupSchedule>, Error> {
    let (namespace, _) = key(&**schedule);
    let status = schedule.status.clone().unwrap_or_default();
    match action {
        Action::Create { name, time } => {
            write::create(ctx, &backup(schedule, name, *time)).await?;
            let note = format!("backup {name} is made, which was due at {time}");
            write::event(ctx, &**schedule, reasons::BACKUP_RUNNING, "Create", note);
            Ok(Done::World)
        }
        Action::Expire(names) => {
            for name in names {
                if let Some(backup) = ctx.hubs.backups.cache().get(&namespace, name) {
                    write::delete(ctx, &*backup).await?;
                    let note = format!("backup {name} is deleted: its days are over");
                    write::event(ctx, &**schedule, reasons::DELETING, "Delete", note);
                }
                memory.deleted.insert(name.clone());
            }
            Ok(Done::World)
        }
        Action::BeginDrill(drill) => {
            let mut status = status;
            status.drill = Some(drill.clone());
            write::guarded_status(ctx, schedule, status).await.map(Done::Written)
        }
        Action::Restore => {
            let Some((drill, agent)) = at_work(schedule, seen, ctx)? else {
                return Ok(Done::World);
            };
            let backup = ctx.hubs.backups.cache().get(&namespace, &drill.backup);
            let Some(stored_at) = backup.and_then(|b| b.status.as_ref()?.key.clone()) else {
                return Ok(Done::World);
            };
            match agent.start_restore(drill.database.as_str(), &stored_at).await? {
                RestoreStart::Begun(task) => {
                    let mut noted = (**schedule).clone();
                    noted.status.get_or_insert_default().drill = Some(Drill {
                        task_id: Some(task),
                        ..drill
                    });
                    Ok(Done::Noted(Arc::new(noted)))
                }
                RestoreStart::NotBegun(why) => {
                    memory.start = Some(why);
                    Ok(Done::World)
                }
            }
        }
        Action::Cancel => {
            if let (Some((_, agent)), Some(task)) = (at_work(schedule, seen, ctx)?, &seen.task) {
                agent.cancel_task(task).await?;
            }
            memory.cancelled = true;
            Ok(Done::World)
        }
        Action::Count => {
            if let Some((drill, agent)) = at_work(schedule, seen, ctx)? {
                memory.counts = Some(agent.counts(drill.database.as_str()).await?);
            }
            Ok(Done::World)
        }
        Action::EndDrill(ended) => end_drill(schedule, ended, seen, ctx, memory).await,
        Action::RemoveFinalizer => {
            write::remove_finalizer(ctx, &**schedule).await?;
            Ok(Done::Gone)
        }
    }
}

/// The drill that is under way, and the agent that it is at.
fn at_work(schedule: &BackupSchedule, seen: &Seen, ctx: &Context) -> Result<Option<(Drill, Agent)>, Error> {
    let drill = schedule.status.as_ref().and_then(|s| s.drill.clone());
    match (drill, seen.plan.drill.node.serving()) {
        (Some(drill), Some(node)) => Ok(Some((drill, ctx.agent(node)?))),
        _ => Ok(None),
    }
}

/// The Backup of a due time. It has no owner: it outlives its schedule, and the schedule's retention is not written into
/// it, since that keeps the newest whatever their age.
fn backup(schedule: &BackupSchedule, name: &str, time: Timestamp) -> Backup {
    let (namespace, of) = key(schedule);
    let spec = BackupSpec {
        graph: schedule.spec.graph.clone(),
        subgraph: None,
        method: schedule.spec.method,
        retention_days: None,
    };
    let mut backup = Backup::new(name, spec);
    backup.metadata.namespace = Some(namespace);
    backup.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    let labels = [
        (GRAPH_LABEL.to_owned(), schedule.spec.graph.clone()),
        (SCHEDULE_LABEL.to_owned(), names::schedule_label(&of)),
    ];
    backup.metadata.labels = Some(labels.into());
    backup.metadata.annotations = Some([(SCHEDULED_FOR.to_owned(), time.to_string())].into());
    backup
}

/// Removes the scratch database, then writes down that there is none. A pass that is cut off between the two finds the
/// database gone.
async fn end_drill(
    schedule: &Arc<BackupSchedule>,
    ended: &Ended,
    seen: &Seen,
    ctx: &Context,
    memory: &mut Memory,
) -> Result<Done<BackupSchedule>, Error> {
    if ended.removes()
        && let Some((drill, agent)) = at_work(schedule, seen, ctx)?
    {
        agent.delete(drill.database.as_str()).await?;
    }
    let now = whole(ctx.now());
    let mut status = schedule.status.clone().unwrap_or_default();
    status.drill = status.drill.filter(|_| *ended == Ended::Again).map(|drill| Drill {
        task_id: None,
        repeated: drill.repeated.saturating_add(1),
        ..drill
    });
    let found = ended.says();
    if let Some(says) = &found {
        let generation = schedule.metadata.generation.unwrap_or(0);
        let says = std::slice::from_ref(says);
        status.conditions = conditions::merge(&status.conditions, says, generation, &now);
        status.last_drill_time = Some(now);
    }
    let written = write::guarded_status(ctx, schedule, status).await?;
    (memory.start, memory.counts, memory.cancelled) = (None, None, false);
    if let Some(says) = found {
        let type_ = match ended {
            Ended::Passed(_) => EventType::Normal,
            _ => EventType::Warning,
        };
        let object = schedule.object_ref(&());
        ctx.events.publish(object, type_, says.reason, "Drill", says.message);
    }
    Ok(Done::Written(written))
}
