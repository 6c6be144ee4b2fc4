//! Tiers.

mod machines;
mod stack;

use crate::context::Context;
use crate::error::Error;
use crate::reconcile::{Done, Reconcile};
use crate::views::{holds_data, is_writer_of};
use crate::write;
use graphplane_core::Plan;
use graphplane_core::stack_plan::ChangeSet;
use graphplane_core::tier_plan::{self, Action, Node, Observed, Stack, Volume};
use graphplane_crds::annotations::{REPLACE, TIER_LABEL};
use graphplane_crds::quantities::Epoch;
use graphplane_crds::tier::{Tier, TierStatus};
use jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;

/// What a pass has learnt by acting.
#[derive(Default)]
pub(crate) struct Memory {
    /// The change set that was asked for.
    change_set: Option<ChangeSet>,
}

impl Reconcile for Tier {
    type Seen = Observed;
    type Action = Action;
    type Phase = ();
    type Memory = Memory;

    async fn observe(object: &Arc<Self>, ctx: &Context, memory: &Memory) -> Result<Observed, Error> {
        let stack = stack::observe(object, ctx, memory).await?;
        Ok(observe(object, ctx, stack))
    }

    fn plan(object: &Self, seen: &Observed, now: Timestamp) -> Plan<Action> {
        tier_plan::plan(object, seen, now)
    }

    async fn act(
        object: &Arc<Self>,
        action: &Action,
        seen: &Observed,
        ctx: &Context,
        memory: &mut Memory,
    ) -> Result<Done<Self>, Error> {
        match action {
            Action::RemoveFinalizer => {
                write::remove_finalizer(ctx, &**object).await?;
                return Ok(Done::Gone);
            }
            Action::Stack(step) => stack::act(object, step, seen, ctx, memory).await?,
            _ => act(object, seen, ctx).await?,
        }
        Ok(Done::World)
    }

    fn status(object: &Self, seen: &Observed, (): &(), ctx: &Context, _: &Memory, now: Timestamp) -> impl Serialize {
        let before = object.status.clone().unwrap_or_default();
        TierStatus {
            nodes: tier_plan::counts(object, seen, now),
            capacity: tier_plan::capacity(object, &seen.nodes),
            monthly_cost_usd: ctx.cost_of_tier(object),
            stack_outputs: seen.stack.as_ref().map(|s| s.outputs(now)).unwrap_or_default(),
            ..before
        }
    }
}

fn observe(tier: &Tier, ctx: &Context, stack: Option<Stack>) -> Observed {
    let name = tier.name_any();
    let used = ctx.allocations();
    let mut nodes = ctx.hubs.nodes.cache().list();
    nodes.retain(|n| is_writer_of(n, &name));
    nodes.sort_by_key(|n| n.name_any());
    let guarded = machines::guarded(ctx);
    let nodes = nodes.iter().map(|node| {
        let status = node.status.clone().unwrap_or_default();
        let used = used.get(&node.name_any()).copied().unwrap_or_default();
        // The status says since when; the count says whether it still is.
        let empty = used.databases == 0 && used.subgraphs == 0;
        Node {
            name: node.name_any(),
            volume: node.spec.volume.clone(),
            phase: status.phase.unwrap_or_default(),
            deleting: node.metadata.deletion_timestamp.is_some(),
            graphs: used.databases,
            empty_since: status.empty_since.filter(|_| empty).map(|t| t.0),
            machine: machines::machine(node, &guarded, ctx),
        }
    });
    let mut volumes = ctx.hubs.volumes.cache().list();
    // A volume that somebody else made is somebody else's to remove.
    volumes.retain(|v| v.spec.tier == name && v.labels().get(TIER_LABEL).is_some_and(|t| *t == name));
    volumes.sort_by_key(|v| v.name_any());
    let graphs = ctx.hubs.graphs.cache().list();
    let on = |volume: &str| {
        graphs
            .iter()
            .any(|g| g.status.as_ref().is_some_and(|s| s.volume.as_deref() == Some(volume)))
    };
    let volumes = volumes.iter().map(|v| Volume {
        name: v.name_any(),
        holds_data: holds_data(v) || on(&v.name_any()),
        deleting: v.metadata.deletion_timestamp.is_some(),
        created: v.metadata.creation_timestamp.as_ref().map_or(Timestamp::MAX, |t| t.0),
    });
    let nodes: Vec<Node> = nodes.collect();
    let stack = stack.map(|mut stack| {
        stack.seen.machines = nodes.len();
        stack
    });
    let pace = ctx.listing.provider().pace();
    Observed {
        nodes,
        stack,
        volumes: volumes.collect(),
        graphs: u32::try_from(graphs.iter().filter(|g| g.spec.tier == name).count()).unwrap_or(u32::MAX),
        fleet: ctx.fleet(tier),
        template: ctx.template_of(tier),
        patience: pace.stop + pace.registration,
    }
}

/// Decides again, with nobody else deciding at the same time, and does it.
async fn act(tier: &Arc<Tier>, before: &Observed, ctx: &Context) -> Result<(), Error> {
    let alone = ctx.placer.alone().await;
    let seen = observe(tier, ctx, before.stack.clone());
    match tier_plan::plan(tier, &seen, ctx.now()).actions.first() {
        Some(Action::StartNode(new)) => ctx.placer.start(&alone, ctx, tier, new).await,
        Some(Action::DeleteNode(name)) => {
            if let Some(node) = ctx.hubs.nodes.cache().get("", name) {
                write::delete(ctx, &*node).await?;
                write::event(
                    ctx,
                    &**tier,
                    "NodeRemoved",
                    "Scale",
                    format!("node {name} holds no graph"),
                );
            }
            // Its volume goes with it; otherwise it would be taken for one whose node is about to be made.
            let volume = seen
                .nodes
                .iter()
                .find(|n| n.name == *name)
                .and_then(|n| n.volume.clone());
            let empty = |v: &&Volume| Some(&v.name) == volume.as_ref() && !v.holds_data && !v.deleting;
            match seen.volumes.iter().find(empty) {
                Some(volume) => delete_volume(ctx, &volume.name).await,
                None => Ok(()),
            }
        }
        Some(Action::DeleteVolume(name)) => delete_volume(ctx, name).await,
        Some(Action::MarkNode(name, epoch)) => {
            let note = format!("the machine of node {name} under epoch {epoch} is out of date");
            write::event(ctx, &**tier, "MachineOutOfDate", "Replace", note);
            mark(ctx, name, Some(*epoch)).await
        }
        Some(Action::UnmarkNode(name)) => mark(ctx, name, None).await,
        _ => Ok(()),
    }
}

/// Writes which machine of a node is to be replaced, or that none is.
async fn mark(ctx: &Context, node: &str, epoch: Option<Epoch>) -> Result<(), Error> {
    if let Some(node) = ctx.hubs.nodes.cache().get("", node) {
        let mark = epoch.map(|epoch| epoch.to_string());
        let patch = json!({"metadata": {"annotations": {REPLACE: mark}}});
        write::merge(ctx, &*node, patch, "mark").await?;
    }
    Ok(())
}

async fn delete_volume(ctx: &Context, name: &str) -> Result<(), Error> {
    if let Some(volume) = ctx.hubs.volumes.cache().get("", name) {
        write::delete(ctx, &*volume).await?;
    }
    Ok(())
}
