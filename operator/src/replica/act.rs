//! What can be done for a Replica.

use super::Memory;
use super::writer::Writer;
use crate::cache::key;
use crate::context::Context;
use crate::error::Error;
use crate::reconcile::Done;
use crate::views::whole;
use crate::write;
use graphplane_core::names;
use graphplane_core::replica_plan::{Action, Observed};
use graphplane_crds::annotations::{FINALIZER, GRAPH_ID_LABEL, REPLICA_LABEL, TIER_LABEL};
use graphplane_crds::node::{GraphNodeSpec, NodeRole, ReplicaOf};
use graphplane_crds::replica::{Publishing, Replica, ReplicaStatus};
use graphplane_crds::{Graph, GraphNode};
use kube::ResourceExt;
use std::sync::Arc;

pub(super) async fn act(
    replica: &Arc<Replica>,
    action: &Action,
    seen: &Observed,
    ctx: &Context,
    memory: &mut Memory,
) -> Result<Done<Replica>, Error> {
    match action {
        Action::Publish => publish(replica, seen, ctx).await,
        Action::CancelPublish => {
            let status = replica.status.clone().unwrap_or_default();
            if let Some(writer) = Writer::of(replica, ctx) {
                let task = match (status.publishing, status.seeds) {
                    (Some(publishing), _) => Some(publishing.task),
                    (None, Some(seeds)) => writer.publishing(ctx, &seeds).await?,
                    (None, None) => None,
                };
                if let Some(task) = task {
                    writer.cancel(ctx, &task).await?;
                }
            }
            memory.cancelled = true;
            Ok(Done::World)
        }
        Action::EnsureNodes(nodes) => {
            make_nodes(replica, nodes, seen, ctx).await?;
            Ok(Done::World)
        }
        Action::RefreshNodes(nodes) => {
            for name in nodes {
                refresh(name, ctx).await;
                memory.asked.insert(name.clone());
            }
            Ok(Done::World)
        }
        Action::RemoveNodes(nodes) => {
            for name in nodes {
                if let Some(node) = ctx.hubs.nodes.cache().get("", name) {
                    write::delete(ctx, &*node).await?;
                }
            }
            write::event(ctx, &**replica, "NodesRemoved", "Scale", nodes.join(", "));
            Ok(Done::World)
        }
        Action::DeleteSeeds => {
            if let (Some(store), Some(key)) = (&ctx.store, replica.status.as_ref().and_then(|s| s.seeds.as_ref())) {
                store.remove(key).await?;
            }
            let mut noted = (**replica).clone();
            let status = noted.status.get_or_insert_default();
            (status.seeds, status.graph_uid) = (None, None);
            (status.published_mark, status.publishing) = (None, None);
            Ok(Done::Noted(Arc::new(noted)))
        }
        Action::RemoveFinalizer => {
            write::remove_finalizer(ctx, &**replica).await?;
            Ok(Done::Gone)
        }
    }
}

/// Has the writer publish. Where it publishes is written down first, so that it can be removed whatever happens.
async fn publish(replica: &Arc<Replica>, seen: &Observed, ctx: &Context) -> Result<Done<Replica>, Error> {
    let graph = seen.graph.as_ref();
    let (Some(id), Some(writer)) = (graph.and_then(|g| g.id.as_ref()), Writer::of(replica, ctx)) else {
        return Ok(Done::World);
    };
    let before = replica.status.clone().unwrap_or_default();
    let Some(seeds) = before.seeds.clone() else {
        let status = ReplicaStatus {
            seeds: Some(names::seeds_key(id, &replica.name_any())),
            graph_uid: graph.and_then(|g| g.uid.clone()),
            ..before
        };
        return write::guarded_status(ctx, replica, status).await.map(Done::Written);
    };
    // One that a pass has begun which was cut off is waited for; what it has is not known, so another one follows.
    let (task, mark) = match writer.publishing(ctx, &seeds).await? {
        Some(task) => (Some(task), None),
        // The mark was told before the copy is begun, so the seed has that much.
        None => (writer.publish(ctx, &seeds).await?, graph.and_then(|g| g.mark.clone())),
    };
    let Some(task) = task else {
        return Ok(Done::World);
    };
    write::event(
        ctx,
        &**replica,
        "PublishStarted",
        "Publish",
        format!("a seed of {id} is made"),
    );
    let begun = whole(ctx.now());
    let mut noted = (**replica).clone();
    noted.status.get_or_insert_default().publishing = Some(Publishing { task, begun, mark });
    Ok(Done::Noted(Arc::new(noted)))
}

async fn make_nodes(replica: &Replica, names: &[String], seen: &Observed, ctx: &Context) -> Result<(), Error> {
    let seeds = replica.status.as_ref().and_then(|s| s.seeds.clone());
    let id = seen.graph.as_ref().and_then(|g| g.id.clone());
    let (Some(seeds), Some(id), Some(writer)) = (seeds, id, Writer::of(replica, ctx)) else {
        return Ok(());
    };
    let (namespace, name) = key(replica);
    let of = ReplicaOf {
        namespace,
        name,
        uid: replica.uid().unwrap_or_default(),
        graph_id: id,
        seeds,
    };
    for name in names {
        let node = node_object(name, replica, &writer.graph, &of, ctx);
        let made = write::create(ctx, &node).await?;
        if made.spec.replica.as_ref() != Some(&of) || made.metadata.deletion_timestamp.is_some() {
            // One of that name that is another's, or on its way out: the next pass sees it.
            return Err(Error::Conflict(write::label(&*made)));
        }
    }
    write::event(ctx, replica, "NodesCreated", "Scale", names.join(", "));
    Ok(())
}

fn node_object(name: &str, replica: &Replica, graph: &Graph, of: &ReplicaOf, ctx: &Context) -> GraphNode {
    let tier = ctx.hubs.tiers.cache().get("", &graph.spec.tier);
    let types = &replica.spec.instance_types;
    let of_tier = || tier.as_ref().and_then(|t| t.spec.instance.types.first());
    let spec = GraphNodeSpec {
        tier: graph.spec.tier.clone(),
        role: NodeRole::Replica,
        zone: match &tier {
            Some(tier) => ctx.zone(tier),
            None => ctx.listing.provider().zones().into_iter().next().unwrap_or_default(),
        },
        volume: None,
        instance_type: types.first().or_else(of_tier).cloned(),
        replica: Some(of.clone()),
    };
    let mut node = GraphNode::new(name, spec);
    node.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    let labels = [
        (TIER_LABEL, graph.spec.tier.clone()),
        (REPLICA_LABEL, of.uid.clone()),
        (GRAPH_ID_LABEL, of.graph_id.to_string()),
    ];
    node.metadata.labels = Some(labels.map(|(key, value)| (key.to_owned(), value)).into());
    node
}

/// Has a node look for the newest seed. One that cannot be asked now is behind still when the next pass looks.
async fn refresh(name: &str, ctx: &Context) {
    let Some(node) = ctx.hubs.nodes.cache().get("", name) else {
        return;
    };
    let asked = match ctx.agent(&ctx.view(&node)) {
        Ok(agent) => agent.refresh_seeds().await.map_err(Error::from),
        Err(error) => Err(error),
    };
    if let Err(error) = asked {
        tracing::warn!(node = name, %error, "a replica was not told of a newer seed");
    }
}
