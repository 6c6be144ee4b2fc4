//! What a BackupSchedule's plan looks at.

use super::{Memory, Seen};
use crate::agent::TaskState;
use crate::cache::key;
use crate::context::Context;
use crate::error::Error;
use graphplane_core::backup_plan::Task;
use graphplane_core::backup_schedule_plan::{Counts, DrillSeen, GraphSeen, Made, Observed};
use graphplane_core::ending::Database;
use graphplane_core::graph_plan::annotation_is_true;
use graphplane_core::names;
use graphplane_crds::annotations::{DELETION_PROTECTION, SCHEDULE_LABEL, SCHEDULED_FOR};
use graphplane_crds::backup::{BackupMethod, Drill};
use graphplane_crds::{Backup, BackupSchedule, Graph};
use jiff::Timestamp;
use kube::ResourceExt;
use std::sync::Arc;

pub(super) async fn observe(schedule: &Arc<BackupSchedule>, ctx: &Context, memory: &Memory) -> Result<Seen, Error> {
    let (namespace, name) = key(&**schedule);
    let graph = ctx.hubs.graphs.cache().get(&namespace, &schedule.spec.graph);
    let mut all = ctx.hubs.backups.cache().list();
    all.retain(|b| b.namespace().as_deref() == Some(namespace.as_str()));
    let label = names::schedule_label(&name);
    let prefix = format!("{label}-");
    let of_graph = |b: &Backup| b.spec.graph == schedule.spec.graph && b.spec.subgraph.is_none();
    let ours = |b: &Backup| of_graph(b) && b.labels().get(SCHEDULE_LABEL) == Some(&label);
    let others = all.iter().filter(|b| !ours(b)).map(|b| b.name_any());
    let others = others.filter(|name| name.starts_with(&prefix)).collect();
    let tier = graph
        .as_ref()
        .and_then(|g| ctx.hubs.tiers.cache().get("", &g.spec.tier));
    let (drill, task) = drill(schedule, graph.as_deref(), ctx, memory).await?;
    let plan = Observed {
        graph: match &graph {
            None => GraphSeen::Missing,
            Some(g) if g.metadata.deletion_timestamp.is_some() => GraphSeen::Deleting,
            Some(g) if g.spec.suspended => GraphSeen::Suspended,
            Some(_) => GraphSeen::Present,
        },
        backups: all.iter().filter(|b| ours(b)).map(|b| made(b, memory)).collect(),
        others,
        created: all.iter().filter(|b| of_graph(b)).map(|b| created(b)).collect(),
        limits: tier.map(|t| t.spec.backup.clone()),
        drill,
    };
    Ok(Seen { plan, task })
}

fn created(backup: &Backup) -> Timestamp {
    let created = backup.metadata.creation_timestamp.as_ref();
    created.map_or(Timestamp::UNIX_EPOCH, |t| t.0)
}

fn made(backup: &Backup, memory: &Memory) -> Made {
    let name = backup.name_any();
    let status = backup.status.clone().unwrap_or_default();
    let slot = backup.annotations().get(SCHEDULED_FOR);
    let counts = status.node_count.zip(status.relationship_count);
    let counts = counts.filter(|_| backup.spec.method == BackupMethod::Object);
    Made {
        slot: slot.and_then(|text| text.parse().ok()),
        phase: status.phase.unwrap_or_default(),
        created: created(backup),
        completed: status.completed_at.map(|t| t.0),
        counts: counts.map(|(nodes, relationships)| Counts { nodes, relationships }),
        protected: annotation_is_true(&backup.metadata, DELETION_PROTECTION),
        deleting: backup.metadata.deletion_timestamp.is_some() || memory.deleted.contains(&name),
        name,
    }
}

/// What there is of a drill, and the agent's task.
async fn drill(
    schedule: &BackupSchedule,
    graph: Option<&Graph>,
    ctx: &Context,
    memory: &Memory,
) -> Result<(DrillSeen, Option<String>), Error> {
    let placed = graph.and_then(|g| g.status.clone()).unwrap_or_default();
    let uid = schedule.uid().unwrap_or_default();
    let database = placed.graph_id.map(|id| id.scratch(&uid));
    let at_work = schedule.status.as_ref().and_then(|s| s.drill.clone());
    let node = match &at_work {
        Some(drill) => ctx.node_of_volume(&drill.volume),
        None => ctx.node_seen(placed.node.as_deref(), placed.volume.as_deref()),
    };
    let scratch_id = at_work
        .as_ref()
        .map(|d| d.database.clone())
        .or_else(|| database.clone());
    let subgraphs = ctx.hubs.subgraphs.cache().list();
    let taken = scratch_id.is_some() && subgraphs.iter().any(|s| crate::subgraph::database_id(s) == scratch_id);
    let (mut task, mut scratch) = ((None, Task::Unknown), Database::Unknown);
    if let (Some(drill), Some(node)) = (&at_work, node.serving()) {
        let agent = ctx.agent(node)?;
        task = task_of(drill, agent.restores(drill.database.as_str()).await?);
        if task.1 == Task::Completed && memory.counts.is_none() {
            scratch = match agent.exists(drill.database.as_str()).await? {
                true => Database::Present,
                false => Database::Absent,
            };
        }
    }
    let seen = DrillSeen {
        volume: placed.volume,
        database,
        node,
        taken,
        task: task.1,
        start: memory.start.clone(),
        cancelled: memory.cancelled,
        scratch,
        counts: memory.counts,
    };
    Ok((seen, task.0))
}

/// The task of a drill. One that is at work counts even if it was not written down: it was started by a pass that was cut
/// off.
fn task_of(drill: &Drill, tasks: Vec<(String, TaskState)>) -> (Option<String>, Task) {
    let running = tasks.iter().position(|(_, state)| *state == TaskState::Running);
    let written = || tasks.iter().position(|(id, _)| Some(id) == drill.task_id.as_ref());
    let found = running.or_else(written).and_then(|at| tasks.into_iter().nth(at));
    match found {
        Some((id, state)) => (Some(id), TaskState::seen(Some(state))),
        None => (None, Task::None),
    }
}
