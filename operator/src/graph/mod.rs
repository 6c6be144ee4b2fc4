//! Graphs.

pub(crate) mod act;
mod observe;
mod status;

use crate::context::Context;
use crate::error::Error;
use crate::reconcile::{Done, Reconcile};
use graphplane_core::Plan;
use graphplane_core::ending::Database;
use graphplane_core::graph_plan::{self, Action, Observed};
use graphplane_crds::graph::{Graph, GraphPhase};
use jiff::Timestamp;
use serde::Serialize;
use std::sync::Arc;

/// What a pass has learnt by acting.
#[derive(Default)]
pub(crate) struct Memory {
    database: Option<Database>,
    refused: Option<String>,
    kept: bool,
}

impl Reconcile for Graph {
    type Seen = Observed;
    type Action = Action;
    type Phase = GraphPhase;
    type Memory = Memory;

    async fn observe(object: &Arc<Self>, ctx: &Context, memory: &Memory) -> Result<Observed, Error> {
        observe::observe(object, ctx, memory).await
    }

    fn plan(object: &Self, seen: &Observed, now: Timestamp) -> Plan<Action, GraphPhase> {
        graph_plan::plan(object, seen, now)
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

    fn status(
        object: &Self,
        seen: &Observed,
        phase: &GraphPhase,
        ctx: &Context,
        _: &Memory,
        _: Timestamp,
    ) -> impl Serialize {
        status::status(object, seen, *phase, ctx)
    }
}
