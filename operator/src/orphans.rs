//! Machines, disks, snapshots and stacks that belong to no object: told of first, collected when their time is over.
//!
//! Since when each is an orphan is kept in the ConfigMap `graphplane-orphans` of the system namespace, so that another
//! operator does not begin anew. Whatever belongs to somebody again is struck off.

use crate::context::Context;
use crate::error::{Error, is_not_found};
use crate::events::NAME;
use crate::kinds::Managed;
use crate::provider::inventory::Inventory;
use crate::provider::snapshots::SnapshotRequest;
use crate::views::whole;
use graphplane_core::client_token::client_token;
use graphplane_core::orphans::{self, Action, Found, Kind, Owner, Patience, Thing};
use graphplane_crds::conditions::{self, Says, reasons};
use graphplane_crds::{Backup, GraphNode, GraphVolume, Replica, SYSTEM_NAMESPACE, Tier};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::api::{Patch, PatchParams};
use kube::runtime::events::EventType;
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The ConfigMap with the time since when each is an orphan.
const RECORD: &str = "graphplane-orphans";
/// A look costs a handful of calls; orphans are rare and a day is their grace.
const LONGEST: Duration = Duration::from_secs(3600);
const SHORTEST: Duration = Duration::from_secs(60);
/// Of many, so many are named in a message.
const NAMED: usize = 10;

/// Looks for orphans until `stop` is cancelled.
pub(crate) async fn run(ctx: Arc<Context>, patience: Patience, stop: CancellationToken) {
    let provider = ctx.listing.provider().clone();
    let Some(inventory) = provider.inventory() else {
        tell_once(&ctx).await;
        return;
    };
    let mut failed = BTreeSet::new();
    loop {
        let wait = match look(&ctx, inventory, patience, &mut failed).await {
            Ok(wait) => wait,
            Err(error) => {
                tracing::warn!(%error, "orphans cannot be looked for; it is tried again");
                LONGEST / 4
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait.clamp(SHORTEST, LONGEST)) => {}
        }
    }
}

/// On a provider that does not note whose its things are, they are told of and left alone: what made them may be a state
/// that was restored from an older copy.
async fn tell_once(ctx: &Context) {
    let world = match ctx.listing.world().await {
        Ok(world) => world,
        Err(error) => return tracing::warn!(%error, "orphans cannot be looked for"),
    };
    let (nodes, volumes) = (ctx.hubs.nodes.cache(), ctx.hubs.volumes.cache());
    for node in world.instances.keys().filter(|n| nodes.get("", n).is_none()) {
        tracing::warn!(node, "a machine exists that no GraphNode stands for; it is left alone");
    }
    for volume in world.disks.keys().filter(|v| volumes.get("", v).is_none()) {
        tracing::warn!(volume, "a disk exists that no GraphVolume stands for; it is left alone");
    }
}

/// One look, and one step. `failed` are things whose step did not succeed in the last looks.
async fn look(
    ctx: &Context,
    inventory: &dyn Inventory,
    patience: Patience,
    failed: &mut BTreeSet<String>,
) -> Result<Duration, Error> {
    // The provider first: what is made after that is not in the list, and its object may be in the caches by then.
    let things = inventory.things().await?;
    let since = recorded(ctx).await?;
    let found = orphans::plan(&things, &owners(ctx), &since, failed, patience, ctx.now());
    record(ctx, &since, &found.since).await?;
    tell(ctx, &found, &since).await?;
    let Some(action) = found.action else {
        return Ok(found.requeue.unwrap_or(LONGEST));
    };
    let key = action.thing().key();
    // It has its turn again: so have all others after it.
    if failed.contains(&key) {
        failed.clear();
    }
    let done = act(ctx, inventory, action, &found.since, patience).await;
    if done.is_err() {
        failed.insert(key);
    }
    done.map(|()| SHORTEST)
}

async fn act(
    ctx: &Context,
    inventory: &dyn Inventory,
    action: Action,
    since: &BTreeMap<String, Timestamp>,
    patience: Patience,
) -> Result<(), Error> {
    let thing = match action {
        Action::Snapshot { disk, since } => return snapshot(ctx, &disk, since).await,
        Action::Collect(thing) => thing,
    };
    // Somebody may have taken it as his own since the look began.
    let mine = std::slice::from_ref(&thing);
    let still = orphans::plan(mine, &owners(ctx), since, &BTreeSet::new(), patience, ctx.now());
    if still.orphans.is_empty() {
        return Ok(());
    }
    tracing::warn!(kind = thing.kind.word(), id = thing.id, "an orphan is collected");
    ctx.listing.changing("remove_orphan", inventory.remove(&thing)).await?;
    let note = format!(
        "{} {} belonged to no object and is removed",
        thing.kind.word(),
        thing.id
    );
    event(ctx, &thing, "OrphanCollected", "Collect", note);
    Ok(())
}

/// The last snapshot of a disk that nobody owns. It stays until a person removes it.
async fn snapshot(ctx: &Context, disk: &Thing, since: Timestamp) -> Result<(), Error> {
    let Some(snapshots) = ctx.listing.provider().snapshots() else {
        return Ok(());
    };
    let mut tags = disk.tags.clone();
    tags.insert("purpose".to_owned(), "orphan".to_owned());
    tags.insert("retained".to_owned(), whole(ctx.now()).0.to_string());
    let since = since.as_second();
    let want = SnapshotRequest {
        volume: disk.tags.get("name").cloned().unwrap_or_default(),
        disk: disk.id.clone(),
        token: client_token(&ctx.cluster_id, &format!("orphan {} since {since}", disk.id), 0),
        tags,
    };
    let call = snapshots.ensure_snapshot(&want);
    let made = ctx.listing.changing("ensure_snapshot", call).await?;
    let note = format!(
        "disk {} belongs to no object; {} is made before it goes",
        disk.id, made.id
    );
    event(ctx, disk, "OrphanSnapshot", "Snapshot", note);
    Ok(())
}

/// Every object that something at a provider may be for.
fn owners(ctx: &Context) -> Vec<Owner> {
    let hubs = &ctx.hubs;
    let nodes = hubs.nodes.cache().list();
    let volumes = hubs.volumes.cache().list();
    let backups = hubs.backups.cache().list();
    let tiers = hubs.tiers.cache().list();
    let replicas = hubs.replicas.cache().list();
    let status_of_node = |n: &GraphNode| n.status.as_ref().and_then(|s| s.provider_id.clone());
    let status_of_volume = |v: &GraphVolume| v.status.as_ref().and_then(|s| s.volume_id.clone());
    let status_of_backup = |b: &Backup| b.status.as_ref().and_then(|s| s.snapshot_id.clone());
    let all = nodes.iter().map(|n| owner(&**n, status_of_node(n)));
    let all = all.chain(volumes.iter().map(|v| owner(&**v, status_of_volume(v))));
    let all = all.chain(backups.iter().map(|b| owner(&**b, status_of_backup(b))));
    let all = all.chain(tiers.iter().map(|t| owner::<Tier>(t, None)));
    let all = all.chain(replicas.iter().map(|r| owner::<Replica>(r, None)));
    all.collect()
}

fn owner<K: Managed>(object: &K, id: Option<String>) -> Owner {
    let name = object.name_any();
    Owner {
        kind: K::KIND.to_owned(),
        name: match object.namespace() {
            Some(namespace) => format!("{namespace}.{name}"),
            None => name,
        },
        uid: object.uid().unwrap_or_default(),
        ids: id.into_iter().collect(),
    }
}

fn records(ctx: &Context) -> Api<ConfigMap> {
    Api::namespaced(ctx.client.clone(), SYSTEM_NAMESPACE)
}

async fn recorded(ctx: &Context) -> Result<BTreeMap<String, Timestamp>, Error> {
    let found = match records(ctx).get(RECORD).await {
        Err(error) if is_not_found(&error) => return Ok(BTreeMap::new()),
        found => found.map_err(Error::kube(format!("read ConfigMap {RECORD}")))?,
    };
    let data = found.data.unwrap_or_default();
    Ok(data
        .into_iter()
        .filter_map(|(key, since)| Some((key, since.parse().ok()?)))
        .collect())
}

async fn record(
    ctx: &Context,
    before: &BTreeMap<String, Timestamp>,
    since: &BTreeMap<String, Timestamp>,
) -> Result<(), Error> {
    let texts = |times: &BTreeMap<String, Timestamp>| -> BTreeMap<String, String> {
        let texts = times
            .iter()
            .map(|(key, time)| (key.clone(), whole(*time).0.to_string()));
        texts.collect()
    };
    let data = texts(since);
    if texts(before) == data {
        return Ok(());
    }
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": RECORD}, "data": data});
    let params = PatchParams::apply(NAME).force();
    let written = records(ctx).patch(RECORD, &params, &Patch::Apply(&map)).await;
    written
        .map(drop)
        .map_err(Error::kube(format!("write ConfigMap {RECORD}")))
}

/// Metrics, an event for each that is new, and a condition of every Tier.
async fn tell(ctx: &Context, found: &Found, before: &BTreeMap<String, Timestamp>) -> Result<(), Error> {
    for kind in Kind::ALL {
        let count = found.orphans.iter().filter(|thing| thing.kind == kind).count();
        ctx.metrics.orphans(kind.word(), count);
    }
    for thing in found.orphans.iter().filter(|thing| !before.contains_key(&thing.key())) {
        tracing::warn!(kind = thing.kind.word(), id = thing.id, "it belongs to no object");
        let note = format!("{} {} belongs to no object", thing.kind.word(), thing.id);
        event(ctx, thing, "OrphanFound", "Look", note);
    }
    for tier in ctx.hubs.tiers.cache().list() {
        let name = tier.name_any();
        let of_tier = found
            .orphans
            .iter()
            .filter(|thing| thing.tags.get("tier") == Some(&name));
        condition(ctx, &tier, &of_tier.collect::<Vec<_>>()).await?;
    }
    Ok(())
}

async fn condition(ctx: &Context, tier: &Arc<Tier>, orphans: &[&Thing]) -> Result<(), Error> {
    let named: Vec<String> = orphans
        .iter()
        .take(NAMED)
        .map(|thing| format!("{} {}", thing.kind.word(), thing.id))
        .collect();
    let says = match orphans.len() {
        0 => Says::no(conditions::ORPHANS_FOUND, reasons::NO_ORPHANS, ""),
        count => {
            let message = format!("{count} belong to no object and are collected: {}", named.join(", "));
            Says::yes(conditions::ORPHANS_FOUND, reasons::ORPHANED, message)
        }
    };
    let before = conditions::get(tier.conditions(), says.type_);
    let same = before.is_some_and(|c| (c.status == "True") == (says.status == Some(true)) && c.message == says.message);
    // A Tier that never had an orphan needs no condition that says so.
    if same || (before.is_none() && orphans.is_empty()) {
        return Ok(());
    }
    let generation = tier.metadata.generation.unwrap_or(0);
    let merged = conditions::merge(tier.conditions(), &[says], generation, &whole(ctx.now()));
    let own: Vec<_> = merged
        .into_iter()
        .filter(|c| c.type_ == conditions::ORPHANS_FOUND)
        .collect();
    let status = json!({
        "apiVersion": Tier::api_version(&()), "kind": Tier::KIND,
        "metadata": {"name": tier.name_any()}, "status": {"conditions": own},
    });
    // A manager of its own: the Tier's reconciler applies the other conditions.
    let params = PatchParams::apply(&format!("{NAME}-orphans")).force();
    let api = Tier::api(&ctx.client, "");
    let written = api
        .patch_status(&tier.name_any(), &params, &Patch::Apply(&status))
        .await;
    match written {
        Ok(written) => drop(Tier::cache(&ctx.hubs).wrote(written)),
        Err(error) if is_not_found(&error) => {}
        Err(error) => {
            return Err(Error::kube(format!("write the status of Tier {}", tier.name_any()))(
                error,
            ));
        }
    }
    Ok(())
}

/// An event about a thing: of its Tier, or of the system namespace where it has none.
fn event(ctx: &Context, thing: &Thing, reason: &str, action: &str, note: String) {
    let tier = thing
        .tags
        .get("tier")
        .and_then(|tier| ctx.hubs.tiers.cache().get("", tier));
    let about = match tier {
        Some(tier) => tier.object_ref(&()),
        None => ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Namespace".to_owned()),
            name: Some(SYSTEM_NAMESPACE.to_owned()),
            namespace: Some(SYSTEM_NAMESPACE.to_owned()),
            ..ObjectReference::default()
        },
    };
    ctx.events.publish(about, EventType::Warning, reason, action, note);
}
