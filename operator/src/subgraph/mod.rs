//! Subgraphs.

mod act;
mod observe;

use crate::context::Context;
use crate::error::Error;
use crate::reconcile::{Done, Reconcile};
use graphplane_core::Plan;
use graphplane_core::ending::{Database, NodeSeen};
use graphplane_core::subgraph_plan::{self, Action, Observed};
use graphplane_crds::ids::DatabaseId;
use graphplane_crds::subgraph::Subgraph;
use jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;
use std::sync::Arc;

/// What a pass has learnt by acting.
#[derive(Default)]
pub(crate) struct Memory {
    database: Option<Database>,
    refused: Option<String>,
    kept: bool,
    /// The place of the fork is taken by a database that is not known to be this subgraph's.
    occupied: bool,
    fork_cancelled: bool,
}

/// The database of a subgraph. It is written down before the database is made: two subgraphs of the same name have the
/// same one in mind, and only the one that has it in its status may destroy it.
pub(crate) fn database_id(subgraph: &Subgraph) -> Option<DatabaseId> {
    subgraph.status.as_ref().and_then(|s| s.database_id.clone())
}

/// By which the agent's tasks tell whose copy they make.
fn fork_key(subgraph: &Subgraph) -> String {
    subgraph.uid().unwrap_or_default()
}

impl Reconcile for Subgraph {
    type Seen = Observed;
    type Action = Action;
    type Phase = ();
    type Memory = Memory;

    async fn observe(object: &Arc<Self>, ctx: &Context, memory: &Memory) -> Result<Observed, Error> {
        observe::observe(object, ctx, memory).await
    }

    fn plan(object: &Self, seen: &Observed, now: Timestamp) -> Plan<Action> {
        subgraph_plan::plan(object, seen, now)
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

    fn status(object: &Self, seen: &Observed, (): &(), ctx: &Context, _: &Memory, _: Timestamp) -> impl Serialize {
        let before = object.status.clone().unwrap_or_default();
        let made = before.applied_schema.is_some();
        let mut status = before;
        if !made {
            return status;
        }
        if let NodeSeen::Present(node) = &seen.node {
            status.node = Some(node.name.clone());
            if let Some(id) = &status.database_id {
                status.sizes = ctx.sizes(&node.name, id.as_str()).or(status.sizes);
            }
        }
        status
    }
}
