//! What can be done for a GraphNode.

use super::{Memory, observe};
use crate::context::Context;
use crate::error::{Error, already_exists, is_not_found};
use crate::events::NAME;
use crate::kinds::Managed;
use crate::provider::{InstanceRequest, Purpose};
use crate::reconcile::Done;
use crate::write;
use graphplane_core::names;
use graphplane_core::node_plan::Action;
use graphplane_crds::annotations::NODE_LABEL;
use graphplane_crds::node::{GraphNode, GraphNodeStatus};
use graphplane_crds::quantities::Epoch;
use graphplane_crds::{GraphVolume, SYSTEM_NAMESPACE};
use k8s_openapi::ByteString;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) async fn act(
    node: &Arc<GraphNode>,
    action: &Action,
    ctx: &Context,
    memory: &mut Memory,
) -> Result<Done<GraphNode>, Error> {
    let name = node.name_any();
    match action {
        Action::EnsureSecret => {
            make_secret(&name, ctx).await?;
            memory.secret_made = true;
            Ok(Done::World)
        }
        Action::ClaimVolume(epoch) => {
            claim(node, ctx, json!({"attachedTo": name, "epoch": epoch})).await?;
            Ok(Done::World)
        }
        Action::AdoptEpoch(epoch) => {
            let before = node.status.clone().unwrap_or_default();
            let status = GraphNodeStatus {
                epoch: Some(*epoch),
                provider_id: None,
                ..before
            };
            write::guarded_status(ctx, node, status).await.map(Done::Written)
        }
        Action::Launch => {
            launch(node, ctx).await?;
            Ok(Done::World)
        }
        Action::StopInstance { force } => {
            let how = if *force { "stopped by force" } else { "asked to stop" };
            write::event(ctx, &**node, "MachineStopping", "Stop", format!("its machine is {how}"));
            ctx.listing.stop_instance(&name, *force).await?;
            Ok(Done::World)
        }
        Action::ForgetInstance => {
            ctx.listing.forget_instance(&name).await?;
            ctx.restarts.lock().forget(&name);
            Ok(Done::World)
        }
        Action::ReleaseVolume => {
            claim(node, ctx, json!({"attachedTo": Value::Null})).await?;
            Ok(Done::World)
        }
        Action::DeleteCredentials => {
            delete_credentials(&name, ctx).await?;
            memory.credentials_deleted = true;
            Ok(Done::World)
        }
        Action::RemoveFinalizer => {
            write::remove_finalizer(ctx, &**node).await?;
            Ok(Done::Gone)
        }
    }
}

/// Writes the node's claim into its volume's status. It fails when anybody wrote the volume since it was read, so two
/// claims cannot both succeed and the epoch cannot go back.
async fn claim(node: &GraphNode, ctx: &Context, fields: Value) -> Result<(), Error> {
    let volume = node
        .spec
        .volume
        .as_deref()
        .and_then(|v| ctx.hubs.volumes.cache().get("", v));
    let Some(volume) = volume else { return Ok(()) };
    let patch = json!({"metadata": {"resourceVersion": volume.resource_version()}, "status": fields});
    // Another name than that of the volume's own reconciler, which would remove what it does not apply itself.
    let params = PatchParams {
        field_manager: Some(format!("{NAME}-attach")),
        ..PatchParams::default()
    };
    let api = GraphVolume::api(&ctx.client, "");
    let written = api
        .patch_status(&volume.name_any(), &params, &Patch::Merge(&patch))
        .await;
    let written = written.map_err(Error::kube(format!("attach or detach {}", write::label(&*volume))))?;
    ctx.hubs.volumes.cache().wrote(written);
    Ok(())
}

fn secrets(ctx: &Context) -> Api<Secret> {
    Api::namespaced(ctx.client.clone(), SYSTEM_NAMESPACE)
}

fn random_token(prefix: &str) -> String {
    format!("{prefix}_{}", hex::encode(rand::random::<[u8; 32]>()))
}

async fn make_secret(node: &str, ctx: &Context) -> Result<(), Error> {
    let mut secret = Secret::default();
    secret.metadata.name = Some(names::node_object(node));
    secret.metadata.labels = Some([(NODE_LABEL.to_owned(), node.to_owned())].into());
    let key = ByteString(random_token("gpa").into_bytes());
    secret.data = Some([(names::API_KEY.to_owned(), key)].into());
    let params = PostParams {
        field_manager: Some(NAME.to_owned()),
        ..PostParams::default()
    };
    match secrets(ctx).create(&params, &secret).await {
        Ok(made) => {
            ctx.hubs.secrets.cache().wrote(made);
            Ok(())
        }
        Err(error) if already_exists(&error) => Ok(()),
        Err(error) => Err(Error::kube(format!("create the Secret of node {node}"))(error)),
    }
}

/// Starts the machine. Each start has a one-time token of its own: one that was used, or lost with a disk, is of no use.
/// Its hash is in the Secret before the machine has it, so that the machine never presents what nobody knows.
async fn launch(node: &Arc<GraphNode>, ctx: &Context) -> Result<(), Error> {
    let name = node.name_any();
    let epoch = node.status.as_ref().and_then(|s| s.epoch).unwrap_or(Epoch(0));
    let bootstrap_token = random_token("gpb");
    let hash = ByteString(hex::encode(Sha256::digest(bootstrap_token.as_bytes())).into_bytes());
    let patch = json!({"data": {names::BOOTSTRAP_TOKEN_SHA256: hash}});
    let params = PatchParams {
        field_manager: Some(NAME.to_owned()),
        ..PatchParams::default()
    };
    let written = secrets(ctx)
        .patch(&names::node_object(&name), &params, &Patch::Merge(&patch))
        .await;
    let written = written.map_err(Error::kube(format!("write the one-time token of node {name}")))?;
    ctx.hubs.secrets.cache().wrote(written);
    let tags = BTreeMap::from([
        ("cluster".to_owned(), ctx.cluster_id.clone()),
        ("kind".to_owned(), GraphNode::KIND.to_owned()),
        ("name".to_owned(), name.clone()),
        ("uid".to_owned(), node.uid().unwrap_or_default()),
        ("epoch".to_owned(), epoch.to_string()),
    ]);
    let tier = ctx.hubs.tiers.cache().get("", &node.spec.tier);
    let status = tier.as_ref().and_then(|t| t.status.clone());
    let want = InstanceRequest {
        purpose: match &node.spec.replica {
            None => Purpose::Write {
                volume: node.spec.volume.clone().unwrap_or_default(),
            },
            Some(replica) => Purpose::Serve {
                seeds: vec![replica.seeds.clone()],
            },
        },
        client_token: observe::token(ctx, node, epoch),
        bootstrap_token,
        cluster_id: ctx.cluster_id.clone(),
        zone: node.spec.zone.clone(),
        instance_types: tier.as_ref().map(|t| t.spec.instance.types.clone()).unwrap_or_default(),
        stack_outputs: status.map(|s| s.stack_outputs).unwrap_or_default(),
        epoch,
        tags,
        node: name,
    };
    let instance = ctx.listing.ensure_instance(&want).await?;
    write::event(
        ctx,
        &**node,
        "MachineStarted",
        "Start",
        format!("{} under epoch {epoch}", instance.id),
    );
    Ok(())
}

async fn delete_credentials(node: &str, ctx: &Context) -> Result<(), Error> {
    let name = names::node_object(node);
    let gone = |result: Result<_, kube::Error>| match result {
        Err(error) if !is_not_found(&error) => Err(error),
        _ => Ok(()),
    };
    let secret = secrets(ctx).delete(&name, &DeleteParams::default()).await.map(|_| ());
    gone(secret).map_err(Error::kube(format!("delete the Secret of node {node}")))?;
    let leases: Api<Lease> = Api::namespaced(ctx.client.clone(), SYSTEM_NAMESPACE);
    let lease = leases.delete(&name, &DeleteParams::default()).await.map(|_| ());
    gone(lease).map_err(Error::kube(format!("delete the Lease of node {node}")))
}
