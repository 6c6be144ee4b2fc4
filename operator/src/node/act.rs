//! What can be done for a GraphNode.

use super::{Memory, Seen, observe};
use crate::context::Context;
use crate::error::{Error, already_exists, is_not_found};
use crate::events::NAME;
use crate::kinds::Managed;
use crate::provider::{InstanceRequest, ProviderError, Purpose};
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
    seen: &Seen,
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
            // No machine was asked for under this epoch, so this is the moment to choose a type for it.
            let node = &choose_type(node, ctx).await?;
            let before = node.status.clone().unwrap_or_default();
            let status = GraphNodeStatus {
                epoch: Some(*epoch),
                provider_id: None,
                template: None,
                ..before
            };
            write::guarded_status(ctx, node, status).await.map(Done::Written)
        }
        Action::Launch => launch(node, ctx).await,
        Action::AttachDisk { machine } => {
            let volume = node.spec.volume.as_deref().unwrap_or_default();
            let note = format!("volume {volume} is attached to {machine}");
            write::event(ctx, &**node, "VolumeAttaching", "Attach", note);
            ctx.listing.attach_volume(volume, machine).await?;
            memory.attaching = Some(machine.clone());
            Ok(Done::World)
        }
        Action::DetachDisk { machine, force } => {
            let volume = node.spec.volume.as_deref().unwrap_or_default();
            let how = if *force { " by force" } else { "" };
            let note = format!("volume {volume} is detached{how}: {}", seen.plan.disk);
            write::event(ctx, &**node, "VolumeDetaching", "Detach", note);
            ctx.listing.detach_volume(volume, machine, *force).await?;
            memory.detaching = true;
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
    let launch_key = ByteString(random_token("gpl").into_bytes());
    secret.data = Some(
        [
            (names::API_KEY.to_owned(), key),
            (names::LAUNCH_KEY.to_owned(), launch_key),
        ]
        .into(),
    );
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

/// Notes the type that the next machine is to have: the first of its tier that can be had in the zone, as far as is known.
///
/// A type is noted before a machine of it is asked for, and another one only after the provider has refused that very
/// request, or when the next epoch begins. So at any moment at most one type may have a machine under the present epoch, and
/// a start that is repeated, also after a crash, asks for that type with the same token and finds it.
async fn choose_type(node: &Arc<GraphNode>, ctx: &Context) -> Result<Arc<GraphNode>, Error> {
    let tier = ctx.hubs.tiers.cache().get("", &node.spec.tier);
    let types = tier.map(|t| t.spec.instance.types.clone()).unwrap_or_default();
    match ctx.listing.provider().instance_type(&types, &node.spec.zone) {
        Some(best) if node.spec.instance_type.as_ref() != Some(&best) => {
            let patch = json!({"spec": {"instanceType": best}});
            write::merge(ctx, &**node, patch, "choose another type for").await
        }
        _ => Ok(node.clone()),
    }
}

/// The one-time token of a start, and its hash. It is made of a key in the node's Secret and the start's token, so that
/// a start which is repeated is the same request to the last byte; the agent knows neither that key nor the next token.
fn one_time_token(key: &[u8], client_token: &str) -> (String, String) {
    let mut digest = Sha256::new();
    digest.update((key.len() as u64).to_be_bytes());
    digest.update(key);
    digest.update(client_token.as_bytes());
    let token = format!("gpb_{}", hex::encode(digest.finalize()));
    let hash = hex::encode(Sha256::digest(token.as_bytes()));
    (token, hash)
}

/// Writes the hash of a start's one-time token into the node's Secret before the machine has the token, so that the machine
/// never presents what nobody knows.
async fn announce_token(node: &str, client_token: &str, ctx: &Context) -> Result<String, Error> {
    let object = names::node_object(node);
    let secret = ctx.hubs.secrets.cache().get(SYSTEM_NAMESPACE, &object);
    let known = secret
        .as_ref()
        .and_then(|s| s.data.as_ref()?.get(names::LAUNCH_KEY).cloned());
    let key = known.unwrap_or_else(|| ByteString(random_token("gpl").into_bytes()));
    let (token, hash) = one_time_token(&key.0, client_token);
    let patch = json!({"data": {
        names::LAUNCH_KEY: key, names::BOOTSTRAP_TOKEN_SHA256: ByteString(hash.into_bytes()),
    }});
    let params = PatchParams {
        field_manager: Some(NAME.to_owned()),
        ..PatchParams::default()
    };
    let written = secrets(ctx).patch(&object, &params, &Patch::Merge(&patch)).await;
    let written = written.map_err(Error::kube(format!("write the one-time token of node {node}")))?;
    ctx.hubs.secrets.cache().wrote(written);
    Ok(token)
}

async fn launch(node: &Arc<GraphNode>, ctx: &Context) -> Result<Done<GraphNode>, Error> {
    let name = node.name_any();
    let epoch = node.status.as_ref().and_then(|s| s.epoch).unwrap_or(Epoch(0));
    let client_token = observe::token(ctx, node, epoch);
    let bootstrap_token = announce_token(&name, &client_token, ctx).await?;
    let mut tags = BTreeMap::from([
        ("cluster".to_owned(), ctx.cluster_id.clone()),
        ("kind".to_owned(), GraphNode::KIND.to_owned()),
        ("name".to_owned(), name.clone()),
        ("uid".to_owned(), node.uid().unwrap_or_default()),
        ("tier".to_owned(), node.spec.tier.clone()),
        ("epoch".to_owned(), epoch.to_string()),
    ]);
    let tier = ctx.hubs.tiers.cache().get("", &node.spec.tier);
    let status = tier.as_ref().and_then(|t| t.status.clone());
    let stack_outputs = status.map(|s| s.stack_outputs).unwrap_or_default();
    let template = ctx.listing.provider().template(&stack_outputs);
    tags.extend(template.map(|template| ("template".to_owned(), template)));
    let want = InstanceRequest {
        purpose: match &node.spec.replica {
            None => Purpose::Write {
                volume: node.spec.volume.clone().unwrap_or_default(),
            },
            Some(replica) => Purpose::Serve {
                seeds: vec![replica.seeds.clone()],
            },
        },
        client_token,
        bootstrap_token,
        cluster_id: ctx.cluster_id.clone(),
        zone: node.spec.zone.clone(),
        instance_type: node.spec.instance_type.clone(),
        stack_outputs,
        epoch,
        tags,
        node: name,
    };
    let started = match ctx.listing.ensure_instance(&want).await {
        Err(refused @ ProviderError::NoCapacity { .. }) => {
            let other = choose_type(node, ctx).await?;
            if other.spec.instance_type == node.spec.instance_type {
                return Err(refused.into());
            }
            write::event(ctx, &**node, "NoCapacity", "Start", refused.to_string());
            return Ok(Done::Written(other));
        }
        result => result?,
    };
    let note = format!("{} under epoch {epoch}", started.id);
    write::event(ctx, &**node, "MachineStarted", "Start", note);
    Ok(Done::World)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_is_repeated_has_the_same_one_time_token_and_no_other_has() {
        let (token, hash) = one_time_token(b"key", "t1");
        assert_eq!((token.clone(), hash.clone()), one_time_token(b"key", "t1"));
        assert_eq!(hash, hex::encode(Sha256::digest(token.as_bytes())));
        for (key, start) in [(&b"key"[..], "t2"), (&b"other"[..], "t1"), (&b"keyt"[..], "1")] {
            assert_ne!(token, one_time_token(key, start).0);
        }
    }
}
