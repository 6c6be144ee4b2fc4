//! What a GraphNode's plan looks at.

use super::{Memory, Seen};
use crate::context::Context;
use crate::error::Error;
use crate::views::lease_of;
use graphplane_core::client_token::client_token;
use graphplane_core::fleet::Serving;
use graphplane_core::names;
use graphplane_core::node_plan::{InstanceState, Observed, VolumeSeen};
use graphplane_crds::SYSTEM_NAMESPACE;
use graphplane_crds::conditions;
use graphplane_crds::node::GraphNode;
use graphplane_crds::quantities::Epoch;
use kube::ResourceExt;
use std::sync::Arc;

/// The token of a machine that is started for a node under an epoch.
pub(super) fn token(ctx: &Context, node: &GraphNode, epoch: Epoch) -> String {
    client_token(&ctx.cluster_id, &node.uid().unwrap_or_default(), epoch.0)
}

pub(super) async fn observe(node: &Arc<GraphNode>, ctx: &Context, memory: &Memory) -> Result<Seen, Error> {
    let name = node.name_any();
    let status = node.status.clone().unwrap_or_default();
    let world = ctx.listing.world().await?;
    let instance = world.instances.get(&name).cloned();
    let token = status.epoch.map(|epoch| token(ctx, node, epoch)).unwrap_or_default();
    let volume = match node
        .spec
        .volume
        .as_deref()
        .and_then(|v| ctx.hubs.volumes.cache().get("", v))
    {
        None if node.spec.replica.is_some() => VolumeSeen::NotNeeded,
        None => VolumeSeen::Missing,
        Some(volume) => {
            let state = volume.status.clone().unwrap_or_default();
            VolumeSeen::Present {
                // Its own condition, and the provider's word: the condition may be of before a disk was lost.
                ready: conditions::is_true(&state.conditions, conditions::READY)
                    && world.disks.contains_key(&volume.name_any()),
                deleting: volume.metadata.deletion_timestamp.is_some(),
                attached_to: state.attached_to,
                epoch: state.epoch,
            }
        }
    };
    let hold_until = instance
        .as_ref()
        .filter(|i| i.state == InstanceState::Dead && i.token == token && !token.is_empty())
        .and_then(|i| ctx.restarts.lock().dead(&name, &i.token, ctx.now()));
    let secret = ctx
        .hubs
        .secrets
        .cache()
        .get(SYSTEM_NAMESPACE, &names::node_object(&name));
    let lease = lease_of(&ctx.hubs, &name);
    let allocated = ctx.allocations().get(&name).copied().unwrap_or_default();
    let plan = Observed {
        tier: ctx.hubs.tiers.cache().get("", &node.spec.tier).is_some(),
        volume,
        instance,
        token,
        secret: memory.secret_made || (secret.is_some() && !memory.credentials_deleted),
        lease: lease.filter(|_| !memory.credentials_deleted),
        holds: allocated.databases.saturating_add(allocated.subgraphs),
        hold_until,
        watched_since: ctx.watched_since,
        fleet_is_quiet: fleet_is_quiet(ctx),
        pace: ctx.listing.provider().pace(),
    };
    Ok(Seen { plan, allocated })
}

/// Whether more than one node, and more than half of all, are behind on their leases at once.
fn fleet_is_quiet(ctx: &Context) -> bool {
    let nodes = ctx.hubs.nodes.cache().list();
    let standing: Vec<Serving> = nodes.iter().map(|n| ctx.view(n).serving).collect();
    let lost = standing.iter().filter(|s| **s == Serving::Lost).count();
    let known = standing.iter().filter(|s| **s != Serving::Starting).count();
    lost > 1 && lost * 2 > known
}
