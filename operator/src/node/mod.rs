//! GraphNodes.

mod act;
mod observe;

use crate::context::Context;
use crate::error::Error;
use crate::reconcile::{Done, Reconcile};
use crate::views::whole;
use graphplane_core::Plan;
use graphplane_core::node_plan::{self, Action, Attachment, InstanceState};
use graphplane_crds::node::{GraphNode, GraphNodeStatus, NodePhase, NodeResources};
use jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;
use std::sync::Arc;

/// What a pass has learnt by acting.
#[derive(Default)]
pub(crate) struct Memory {
    credentials_deleted: bool,
    secret_made: bool,
    /// The machine that the provider was asked to attach the disk to.
    attaching: Option<String>,
    /// It was asked to detach the disk.
    detaching: bool,
}

impl Memory {
    /// The disk as a listing shows it, unless that is from before what was asked for in this pass.
    fn disk(&self, shown: Attachment) -> Attachment {
        match (shown, &self.attaching) {
            (Attachment::Detached, Some(machine)) => Attachment::Attaching(machine.clone()),
            (shown, _) => shown,
        }
    }
}

/// What the plan looks at, and what only the status needs.
pub(crate) struct Seen {
    plan: node_plan::Observed,
    allocated: NodeResources,
}

impl Reconcile for GraphNode {
    type Seen = Seen;
    type Action = Action;
    type Phase = NodePhase;
    type Memory = Memory;

    async fn observe(object: &Arc<Self>, ctx: &Context, memory: &Memory) -> Result<Seen, Error> {
        observe::observe(object, ctx, memory).await
    }

    fn plan(object: &Self, seen: &Seen, now: Timestamp) -> Plan<Action, NodePhase> {
        node_plan::plan(object, &seen.plan, now)
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

    fn status(
        object: &Self,
        seen: &Seen,
        phase: &NodePhase,
        ctx: &Context,
        _: &Memory,
        now: Timestamp,
    ) -> impl Serialize {
        let before = object.status.clone().unwrap_or_default();
        let instance = seen.plan.instance.as_ref();
        let current = instance.filter(|i| i.token == seen.plan.token && i.state != InstanceState::Dead);
        if let Some(instance) = current.filter(|_| *phase == NodePhase::Ready) {
            ctx.restarts.lock().ready(&object.name_any(), instance.started, now);
        }
        GraphNodeStatus {
            phase: Some(*phase),
            // The machine of this epoch stays noted when it is dead: the epoch is used.
            provider_id: current.map(|i| i.id.clone()).or(before.provider_id),
            template: current.map_or(before.template, |i| i.template.clone()),
            allocated: Some(seen.allocated),
            empty_since: (seen.plan.holds == 0).then(|| before.empty_since.unwrap_or_else(|| whole(now))),
            ..before
        }
    }
}
