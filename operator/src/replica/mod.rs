//! Replicas: read fleets.

mod act;
mod fleet;
mod observe;
mod status;
mod writer;

use crate::context::Context;
use crate::error::Error;
use crate::reconcile::{Done, Reconcile};
use graphplane_core::Plan;
use graphplane_core::fleet_plan::Resize;
use graphplane_core::replica_plan::{self, Action, Observed};
use graphplane_core::stack_plan::ChangeSet;
use graphplane_crds::replica::Replica;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a pass has learnt by acting.
#[derive(Default)]
pub(crate) struct Memory {
    asked: BTreeSet<String>,
    cancelled: bool,
    change_set: Option<ChangeSet>,
    resized: Option<Resize>,
    replaced: bool,
}

impl Reconcile for Replica {
    type Seen = Observed;
    type Action = Action;
    type Phase = ();
    type Memory = Memory;

    async fn observe(object: &Arc<Self>, ctx: &Context, memory: &Memory) -> Result<Observed, Error> {
        observe::observe(object, ctx, memory).await
    }

    fn plan(object: &Self, seen: &Observed, now: Timestamp) -> Plan<Action> {
        replica_plan::plan(object, seen, now)
    }

    async fn act(
        object: &Arc<Self>,
        action: &Action,
        seen: &Observed,
        ctx: &Context,
        memory: &mut Memory,
    ) -> Result<Done<Self>, Error> {
        act::act(object, action, seen, ctx, memory).await
    }

    fn status(object: &Self, seen: &Observed, (): &(), _: &Context, _: &Memory, _: Timestamp) -> impl Serialize {
        status::status(object, seen)
    }
}
