//! The group of machines of a Replica, where the provider keeps such. Its machines have no registration and no GraphNode:
//! what they are is asked of the provider, what they serve of their agents, at their private addresses.

use super::Memory;
use super::observe::told;
use crate::agent::Agent;
use crate::cache::key;
use crate::context::Context;
use crate::error::{Error, already_exists, is_not_found};
use crate::events::NAME;
use crate::provider::World;
use crate::provider::fleets::{FleetFacts, FleetRequest};
use crate::reconcile::Done;
use crate::{stack, write};
use graphplane_core::fleet_plan::{self, Action, FleetMember, MemberState, Observed};
use graphplane_core::names;
use graphplane_core::replica_plan::Node;
use graphplane_core::stack_plan::Seen;
use graphplane_crds::SYSTEM_NAMESPACE;
use graphplane_crds::annotations::NODE_LABEL;
use graphplane_crds::quantities::Epoch;
use graphplane_crds::replica::{FleetReplacement, Replica, ReplicaFleet, ReplicaStatus};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// What the plan of a fleet looks at; `None` from a provider that keeps none.
pub(super) async fn observe(replica: &Replica, ctx: &Context, memory: &Memory) -> Result<Option<Observed>, Error> {
    let provider = ctx.listing.provider();
    let (Some(fleets), Some(stacks)) = (provider.fleets(), provider.stacks()) else {
        return Ok(None);
    };
    let (want, known) = request(replica, ctx);
    let mut seen = Observed {
        wanted: fleets.stack(&want).wanted(),
        key_sha256: stored_key(replica, ctx).map(|key| digest(&key)),
        resized: memory.resized,
        replaced: memory.replaced,
        ..Observed::default()
    };
    seen.stack = match replica.status.as_ref().and_then(|s| s.fleet.as_ref()) {
        Some(_) => stack::observe(stacks, &seen.wanted, ctx, memory.change_set.as_ref()).await?,
        // Nothing was begun, so nothing is asked for.
        None => Seen::default(),
    };
    let world = ctx.listing.world().await?;
    seen.group = group(&seen, &world);
    if !seen.is_settled() {
        let world = ctx.listing.world_within(fleet_plan::LOOK).await?;
        seen.group = group(&seen, &world);
    }
    if let (false, Some(stack)) = (known, &seen.stack.stack) {
        // Nobody knows how large its machines should be: they stay as they are.
        seen.wanted.digest = stack.digest().unwrap_or_default().to_owned();
    }
    Ok(Some(seen))
}

/// The group of a stack, if it is of the same Replica.
fn group(seen: &Observed, world: &World) -> Option<(String, FleetFacts)> {
    let name = seen.stack.stack.as_ref()?.outputs.get(fleet_plan::GROUP)?;
    let facts = world.fleets.get(name)?;
    let ours = facts.tags.get("name") == seen.wanted.tags.get("name");
    ours.then(|| (name.clone(), facts.clone()))
}

/// What is asked of the provider, and whether everything that it is made from is known.
fn request(replica: &Replica, ctx: &Context) -> (FleetRequest, bool) {
    let (namespace, name) = key(replica);
    let graph = ctx.hubs.graphs.cache().get(&namespace, &replica.spec.graph);
    let tier = graph
        .as_ref()
        .and_then(|g| ctx.hubs.tiers.cache().get("", &g.spec.tier));
    let seeds = replica.status.as_ref().and_then(|s| s.seeds.clone());
    let known = tier.is_some() && seeds.is_some();
    let own = &replica.spec.instance_types;
    let of_tier = || tier.as_ref().map(|t| t.spec.instance.types.clone()).unwrap_or_default();
    let want = FleetRequest {
        uid: replica.uid().unwrap_or_default(),
        stack: names::replica_stack(&namespace, &name),
        seeds: seeds.unwrap_or_default(),
        architecture: tier.as_ref().map(|t| t.spec.instance.architecture).unwrap_or_default(),
        instance_types: if own.is_empty() { of_tier() } else { own.clone() },
        memory_mib: tier.as_ref().map_or(0, |t| u64::from(t.spec.memory.node_mib.0)),
        memory_per_database_mib: tier.as_ref().map_or(0, |t| u64::from(t.spec.memory.per_database_mib.0)),
        graph_gib: graph.as_ref().map_or(0, |g| g.spec.storage.size_gib.0),
        min: replica.spec.min_replicas,
        max: replica.spec.max_replicas,
        target_cpu_percent: replica.spec.target_cpu_percent,
        namespace,
        name,
    };
    (want, known)
}

fn members(group: &Observed) -> Vec<&FleetMember> {
    group.group.iter().flat_map(|(_, facts)| &facts.members).collect()
}

/// The machines of a group that are not on their way out, with what their agents say.
pub(super) async fn nodes(replica: &Replica, ctx: &Context, group: &Observed, seeds: Option<&str>) -> Vec<Node> {
    let mut staying = members(group);
    staying.retain(|member| member.state != MemberState::Leaving);
    let seen = staying.into_iter().map(|member| async move {
        let serving = member.state == MemberState::InService && member.healthy;
        let agent = agent(replica, ctx, member).filter(|_| serving).zip(seeds);
        Node {
            name: member.id.clone(),
            deleting: false,
            agent: match agent {
                Some((agent, seeds)) => told(&member.id, &agent, seeds).await,
                None => None,
            },
        }
    });
    futures::future::join_all(seen).await
}

/// Has a machine look for the newest seed.
pub(super) async fn refresh(replica: &Replica, machine: &str, ctx: &Context, group: &Observed) -> Result<(), Error> {
    let member = members(group).into_iter().find(|member| member.id == machine);
    match member.and_then(|member| agent(replica, ctx, member)) {
        Some(agent) => Ok(agent.refresh_seeds().await?),
        None => Ok(()),
    }
}

/// The agent of a machine. It has no epoch, as it writes nothing.
fn agent(replica: &Replica, ctx: &Context, member: &FleetMember) -> Option<Agent> {
    let key = stored_key(replica, ctx)?;
    Some(ctx.agents.agent(member.address.as_deref()?, key, Epoch(0)))
}

pub(super) async fn act(
    replica: &Arc<Replica>,
    action: &Action,
    group: &Observed,
    ctx: &Context,
    memory: &mut Memory,
) -> Result<Done<Replica>, Error> {
    let provider = ctx.listing.provider();
    let (Some(fleets), Some(stacks)) = (provider.fleets(), provider.stacks()) else {
        return Ok(Done::World);
    };
    let (namespace, name) = key(&**replica);
    match action {
        Action::Begin => {
            let status = ReplicaStatus {
                fleet: Some(ReplicaFleet {
                    stack: group.wanted.name.clone(),
                    ..ReplicaFleet::default()
                }),
                ..replica.status.clone().unwrap_or_default()
            };
            write::guarded_status(ctx, replica, status).await.map(Done::Written)
        }
        Action::StoreKey => {
            let key = ensure_key(replica, ctx).await?;
            let stored = fleets.put_key(&namespace, &name, &key);
            ctx.listing.changing("put_fleet_key", stored).await?;
            Ok(noted(replica, |fleet| fleet.key_sha256 = Some(digest(&key))))
        }
        Action::Stack(step) => {
            let want = fleets.stack(&request(replica, ctx).0);
            let (seen, proposed) = (&group.stack, &mut memory.change_set);
            stack::take(stacks, &**replica, step, &want, seen, ctx, proposed).await?;
            Ok(Done::World)
        }
        Action::Resize { group, to } => {
            ctx.listing.changing("resize_fleet", fleets.resize(group, *to)).await?;
            memory.resized = Some(*to);
            let note = match to.desired {
                Some(desired) => format!("{desired} machines, {} to {}", to.min, to.max),
                None => format!("{} to {} machines", to.min, to.max),
            };
            write::event(ctx, &**replica, "FleetResized", "Scale", note);
            let size = fleet_plan::of_spec(replica, group);
            Ok(noted(replica, |fleet| fleet.size = Some(size)))
        }
        Action::Replace {
            group,
            version,
            min_healthy_percent,
        } => {
            let begun = fleets.refresh(group, *min_healthy_percent);
            let begun = ctx.listing.changing("refresh_fleet", begun).await?;
            memory.replaced = true;
            // Another one that runs may have been begun for an older version: it is looked at again when it has ended.
            let Some(id) = begun else {
                return Ok(Done::World);
            };
            let note = format!("machines of {group} are replaced by those of version {version} of their template");
            write::event(ctx, &**replica, "FleetReplaced", "Replace", note);
            let version = version.clone();
            Ok(noted(replica, |fleet| {
                fleet.replacement = Some(FleetReplacement { version, id })
            }))
        }
        Action::DeleteKey => {
            let removed = fleets.delete_key(&namespace, &name);
            ctx.listing.changing("delete_fleet_key", removed).await?;
            delete_key(replica, ctx).await?;
            let mut without = (**replica).clone();
            without.status.get_or_insert_default().fleet = None;
            Ok(Done::Noted(Arc::new(without)))
        }
    }
}

/// The Replica with something noted of its fleet, which is written at the end of the pass.
fn noted(replica: &Replica, note: impl FnOnce(&mut ReplicaFleet)) -> Done<Replica> {
    let mut noted = replica.clone();
    note(noted.status.get_or_insert_default().fleet.get_or_insert_default());
    Done::Noted(Arc::new(noted))
}

fn digest(key: &str) -> String {
    hex::encode(Sha256::digest(key.as_bytes()))
}

fn secrets(ctx: &Context) -> Api<Secret> {
    Api::namespaced(ctx.client.clone(), SYSTEM_NAMESPACE)
}

fn secret_name(replica: &Replica) -> String {
    names::fleet_object(&replica.uid().unwrap_or_default())
}

fn key_in(secret: &Secret) -> Option<String> {
    let bytes = secret.data.as_ref()?.get(names::API_KEY)?;
    String::from_utf8(bytes.0.clone()).ok().filter(|key| !key.is_empty())
}

/// The key of a fleet's machines.
fn stored_key(replica: &Replica, ctx: &Context) -> Option<String> {
    let secret = ctx.hubs.secrets.cache().get(SYSTEM_NAMESPACE, &secret_name(replica))?;
    key_in(&secret)
}

/// Makes the Secret with the key, or finds the one that there is.
async fn ensure_key(replica: &Replica, ctx: &Context) -> Result<String, Error> {
    let name = secret_name(replica);
    let key = format!("gpa_{}", hex::encode(rand::random::<[u8; 32]>()));
    let mut secret = Secret::default();
    secret.metadata.labels = Some([(NODE_LABEL.to_owned(), name.clone())].into());
    secret.data = Some([(names::API_KEY.to_owned(), ByteString(key.into_bytes()))].into());
    secret.metadata.name = Some(name.clone());
    let params = PostParams {
        field_manager: Some(NAME.to_owned()),
        ..PostParams::default()
    };
    let made = match secrets(ctx).create(&params, &secret).await {
        Err(error) if already_exists(&error) => secrets(ctx).get(&name).await,
        made => made,
    };
    let made = made.map_err(Error::kube(format!("create the Secret of {}", write::label(replica))))?;
    let found = key_in(&made);
    ctx.hubs.secrets.cache().wrote(made);
    found.ok_or_else(|| Error::Settings(format!("Secret {name} has no {}: delete it", names::API_KEY)))
}

async fn delete_key(replica: &Replica, ctx: &Context) -> Result<(), Error> {
    let name = secret_name(replica);
    match secrets(ctx).delete(&name, &DeleteParams::default()).await {
        Err(error) if !is_not_found(&error) => {
            let action = format!("delete the Secret of {}", write::label(replica));
            Err(Error::kube(action)(error))
        }
        _ => {
            if let Some(secret) = ctx.hubs.secrets.cache().get(SYSTEM_NAMESPACE, &name) {
                ctx.hubs.secrets.cache().gone(&*secret);
            }
            Ok(())
        }
    }
}
