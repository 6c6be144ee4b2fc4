//! What a GraphNode's plan looks at.

use super::{Memory, Seen};
use crate::context::Context;
use crate::error::Error;
use crate::provider::World;
use crate::provider::stacks::LAUNCH_TEMPLATE;
use crate::views::{is_writer_of, lease_of};
use graphplane_core::client_token::client_token;
use graphplane_core::fleet::{Serving, effective_lease};
use graphplane_core::lease::{LeaseFacts, Standing};
use graphplane_core::names;
use graphplane_core::node_plan::{Attachment, Instance, InstanceState, Observed, VolumeSeen};
use graphplane_core::rollout::{Age, Wanted};
use graphplane_crds::annotations::REPLACE;
use graphplane_crds::conditions;
use graphplane_crds::node::{GraphNode, NodePhase};
use graphplane_crds::quantities::Epoch;
use graphplane_crds::{SYSTEM_NAMESPACE, Tier};
use kube::ResourceExt;
use std::sync::Arc;

/// The token of a machine that is started for a node under an epoch.
pub(super) fn token(ctx: &Context, node: &GraphNode, epoch: Epoch) -> String {
    client_token(&ctx.cluster_id, &node.uid().unwrap_or_default(), epoch.0)
}

pub(super) async fn observe(node: &Arc<GraphNode>, ctx: &Context, memory: &Memory) -> Result<Seen, Error> {
    let name = node.name_any();
    let status = node.status.clone().unwrap_or_default();
    let lease = lease_of(&ctx.hubs, &name);
    let world = match ctx.listing.provider().pace().look {
        Some(look) if is_changing(node, lease.as_ref(), ctx) => ctx.listing.world_within(look).await?,
        _ => ctx.listing.world().await?,
    };
    let instance = world.instances.get(&name).cloned();
    let disk = node.spec.volume.as_deref().and_then(|v| world.disks.get(v));
    let shown = disk.map_or(Attachment::Detached, |d| d.attachment.clone());
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
    let allocated = ctx.allocations().get(&name).copied().unwrap_or_default();
    let tier = ctx.hubs.tiers.cache().get("", &node.spec.tier);
    let missing = missing(node, tier.as_deref(), ctx);
    let current = instance.as_ref().filter(|i| i.token == token && !token.is_empty());
    let plan = Observed {
        age: match (tier.as_deref(), &missing) {
            (Some(tier), None) => age(node, current, tier, ctx),
            _ => Age::Unknown,
        },
        missing,
        tier: tier.is_some(),
        disk: memory.disk(shown),
        asked_to_detach: memory.detaching,
        its_turn: its_turn(node, &world, ctx),
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

/// Whether the provider is being waited for, so that an older listing is of no use. A node that serves waits for nothing.
fn is_changing(node: &GraphNode, lease: Option<&LeaseFacts>, ctx: &Context) -> bool {
    let phase = node.status.as_ref().and_then(|s| s.phase).unwrap_or_default();
    let held = || effective_lease(node, lease).is_some_and(|l| l.standing(ctx.now()) != Standing::Expired);
    !matches!(phase, NodePhase::Ready | NodePhase::Draining) || !held()
}

/// What a machine of this node cannot be started without: on a provider with stacks, the launch template of its tier.
fn missing(node: &GraphNode, tier: Option<&Tier>, ctx: &Context) -> Option<String> {
    ctx.listing.provider().stacks()?;
    let outputs = tier.and_then(|t| t.status.as_ref()).map(|s| &s.stack_outputs);
    let there = outputs.is_some_and(|o| LAUNCH_TEMPLATE.iter().all(|name| o.contains_key(*name)));
    (!there).then(|| format!("waits for the stack of Tier {}", node.spec.tier))
}

/// Whether the machine of a node, which the listing shows or the status tells of, is what its tier says now.
fn age(node: &GraphNode, current: Option<&Instance>, tier: &Tier, ctx: &Context) -> Age {
    let noted = node.status.as_ref().and_then(|s| s.template.as_ref());
    let template = current.map_or(noted, |i| i.template.as_ref());
    let wanted = ctx.template_of(tier);
    let wanted = Wanted::of(&tier.spec, wanted.as_deref());
    wanted.compare(template.map(String::as_str), node.spec.instance_type.as_deref())
}

/// Whether a node may be replaced for a notice of the provider: the one that is to be stopped first of its tier, as long as
/// all others of the tier serve.
fn its_turn(node: &GraphNode, world: &World, ctx: &Context) -> bool {
    let notice = |name: &str| Some(world.instances.get(name)?.notice.as_ref()?.not_before);
    let name = node.name_any();
    let Some(mine) = notice(&name) else { return false };
    let others = ctx.hubs.nodes.cache().list();
    let mut others = others
        .iter()
        .filter(|n| is_writer_of(n, &node.spec.tier) && n.name_any() != name);
    others.all(|other| {
        let name_of_other = other.name_any();
        let first = notice(&name_of_other).is_none_or(|theirs| (mine, &name) < (theirs, &name_of_other));
        let stays = ctx.view(other).serving == Serving::Yes && !other.annotations().contains_key(REPLACE);
        first && (stays || other.metadata.deletion_timestamp.is_some())
    })
}

/// Whether more than one node, and more than half of all, are behind on their leases at once.
fn fleet_is_quiet(ctx: &Context) -> bool {
    let nodes = ctx.hubs.nodes.cache().list();
    let standing: Vec<Serving> = nodes.iter().map(|n| ctx.view(n).serving).collect();
    let lost = standing.iter().filter(|s| **s == Serving::Lost).count();
    let known = standing.iter().filter(|s| **s != Serving::Starting).count();
    lost > 1 && lost * 2 > known
}
