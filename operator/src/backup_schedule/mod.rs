//! BackupSchedules.

mod act;
mod observe;

use crate::context::Context;
use crate::error::Error;
use crate::reconcile::{Done, Reconcile};
use crate::views::whole;
use graphplane_core::Plan;
use graphplane_core::backup_schedule_plan::{self, Action, Counts, Observed, Start, Times};
use graphplane_crds::BackupSchedule;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a pass has learnt by acting.
#[derive(Default)]
pub(crate) struct Memory {
    /// Backups that were deleted, which the watch may show for a moment.
    deleted: BTreeSet<String>,
    start: Option<Start>,
    cancelled: bool,
    counts: Option<Counts>,
}

/// What the plan looks at, and what only acting needs.
pub(crate) struct Seen {
    plan: Observed,
    /// The agent's task that restores.
    task: Option<String>,
}

impl Reconcile for BackupSchedule {
    type Seen = Seen;
    type Action = Action;
    type Phase = Times;
    type Memory = Memory;

    async fn observe(object: &Arc<Self>, ctx: &Context, memory: &Memory) -> Result<Seen, Error> {
        observe::observe(object, ctx, memory).await
    }

    fn plan(object: &Self, seen: &Seen, now: Timestamp) -> Plan<Action, Times> {
        backup_schedule_plan::plan(object, &seen.plan, now)
    }

    async fn act(
        object: &Arc<Self>,
        action: &Action,
        seen: &Seen,
        ctx: &Context,
        memory: &mut Memory,
    ) -> Result<Done<Self>, Error> {
        act::act(object, action, seen, ctx, memory).await
    }

    fn status(object: &Self, _: &Seen, times: &Times, _: &Context, _: &Memory, _: Timestamp) -> impl Serialize {
        let mut status = object.status.clone().unwrap_or_default();
        status.last_schedule_time = times.last.map(whole);
        status.next_schedule_time = times.next.map(whole);
        status
    }
}
