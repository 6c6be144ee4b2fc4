//! `POST /v1/nodes/register`: a node agent introduces itself.
//!
//! Everything is checked before the one-time token is spent, and the token is given back if what follows fails, so that
//! an agent can try again. On AWS the machine has to prove that it is the node's ([`super::identity`]), whatever token it
//! has. The answer is also the agent's first lease.

use super::secret::{self, Token};
use super::wire::{NodeSettings, RegisterRequest, RegisterResponse, faults};
use super::{identity, missing};
use crate::FIELD_MANAGER;
use crate::auth::{self, Source};
use crate::body::Body;
use crate::problem::{Problem, kind};
use crate::state::App;
use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use graphplane_core::names::node_object;
use graphplane_crds::node::Registration;
use graphplane_crds::quantities::Epoch;
use graphplane_crds::{GraphNode, Tier};
use http::HeaderMap;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Attempts when the Secret changes between reading and writing.
const ATTEMPTS: u32 = 5;

/// Registers a node agent.
pub(crate) async fn register(
    State(app): State<App>,
    Source(source): Source,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Json<RegisterResponse>, Problem> {
    let result = serve(&app, source, &headers, &bytes).await;
    app.metrics.registration(match &result {
        Ok(_) => "ok",
        Err(problem) => problem.kind().slug,
    });
    result.map(Json)
}

async fn serve(app: &App, source: IpAddr, headers: &HeaderMap, bytes: &Bytes) -> Result<RegisterResponse, Problem> {
    let token = auth::bearer(headers).ok_or_else(|| {
        Problem::new(
            &kind::UNAUTHORIZED,
            "send the bootstrap token or the credential as `Authorization: Bearer`",
        )
    })?;
    let request = Body::<RegisterRequest>::parse_known(bytes)?.content;
    let faults = faults(&request);
    if !faults.is_empty() {
        return Err(Problem::fields(faults));
    }
    let admitted = admit(app, source, token, &request).await?;
    let node = match grant(app, &request, admitted.epoch).await {
        Ok(node) => node,
        Err(problem) => {
            give_back(app, &admitted).await;
            return Err(problem);
        }
    };
    tracing::info!(
        node = request.node,
        address = request.address,
        epoch = admitted.epoch,
        "a node agent registered"
    );
    Ok(RegisterResponse {
        node: request.node,
        credential: admitted.credential,
        epoch: admitted.epoch,
        lease_duration_seconds: app.settings.lease.duration_seconds,
        renew_interval_seconds: app.settings.lease.renew_interval_seconds,
        api_key: admitted.api_key,
        role: serde_json::to_value(node.spec.role)
            .ok()
            .and_then(|v| v.as_str().map(str::to_owned))
            .unwrap_or_default(),
        settings: NodeSettings::of(&admitted.tier),
    })
}

/// Writes the registration, which grants the first lease, and makes sure that the epoch is still the one it names.
///
/// The epoch is read after the grant is visible: an operator who raises it looks at the grant afterwards, so that one of
/// the two sees the other.
async fn grant(app: &App, request: &RegisterRequest, epoch: u64) -> Result<GraphNode, Problem> {
    write_registration(app, request, epoch).await?;
    let node = app
        .cluster_api::<GraphNode>()
        .get_opt(&request.node)
        .await?
        .ok_or_else(|| missing(&request.node))?;
    if checked_epoch(&node, request.volume_epoch)? != epoch {
        let detail = "the epoch was raised at this moment; register again";
        return Err(Problem::new(&kind::UNAVAILABLE, detail).retry_after(1));
    }
    Ok(node)
}

/// An agent whose token was good.
struct Admitted {
    credential: Option<String>,
    api_key: String,
    epoch: u64,
    tier: Arc<Tier>,
    /// The Secret before and after the token was spent.
    spent: Option<(Secret, Secret)>,
}

/// Checks the token against the Secret, and spends it if it is the one-time token.
async fn admit(app: &App, source: IpAddr, token: &str, request: &RegisterRequest) -> Result<Admitted, Problem> {
    let refused = || {
        auth::refuse(
            app,
            source,
            "node",
            "the token is wrong or was used already; the operator makes a new one",
        )
    };
    let api = app.api::<Secret>(&app.settings.system_namespace);
    for _ in 0..ATTEMPTS {
        if app.failures.exhausted(source) {
            return Err(refused());
        }
        let Some(before) = api.get_opt(&node_object(&request.node)).await? else {
            return Err(refused());
        };
        let Some(kind) = secret::recognize(&before, token) else {
            return Err(refused());
        };
        let node = app
            .cluster_api::<GraphNode>()
            .get_opt(&request.node)
            .await?
            .ok_or_else(|| missing(&request.node))?;
        let machine = identity::prove(app, source, &node, &before, kind, request).await?;
        let epoch = checked_epoch(&node, request.volume_epoch)?;
        let tier = tier_of(app, &node).await?;
        let now = jiff::Timestamp::now();
        let (after, credential) = match kind {
            Token::Bootstrap => {
                let (after, credential) = secret::exchange(&before, machine.as_deref(), now);
                (Some(after), Some(credential))
            }
            Token::Credential => {
                let mut after = before.clone();
                (secret::with_api_key(&mut after).then_some(after), None)
            }
            Token::Offered => {
                let mut after = secret::promote(&before, now);
                secret::with_api_key(&mut after);
                (Some(after), None)
            }
        };
        let stored = match after {
            None => before.clone(),
            Some(after) => {
                let params = PostParams {
                    field_manager: Some(FIELD_MANAGER.to_owned()),
                    ..PostParams::default()
                };
                match api.replace(&after.name_any(), &params, &after).await {
                    Ok(stored) => stored,
                    // Somebody else wrote first, perhaps with the same token: look again.
                    Err(kube::Error::Api(status)) if status.is_conflict() => continue,
                    Err(error) => return Err(error.into()),
                }
            }
        };
        let api_key = secret::api_key(&stored).ok_or_else(|| Problem::internal("a node's Secret without a key"))?;
        let spent = credential.is_some().then_some((before, stored));
        return Ok(Admitted {
            credential,
            api_key,
            epoch,
            tier,
            spent,
        });
    }
    Err(Problem::new(&kind::UNAVAILABLE, "the node's Secret keeps changing; try again").retry_after(1))
}

/// Makes the one-time token good again after what followed failed.
async fn give_back(app: &App, admitted: &Admitted) {
    let Some((before, after)) = &admitted.spent else { return };
    let restored = secret::restore(before, after);
    let api = app.api::<Secret>(&app.settings.system_namespace);
    if let Err(error) = api
        .replace(&restored.name_any(), &PostParams::default(), &restored)
        .await
    {
        tracing::warn!(secret = restored.name_any(), %error, "a spent bootstrap token cannot be given back; the node needs a new one");
    }
}

/// The epoch of a node, which must not be older than what its volume has seen.
fn checked_epoch(node: &GraphNode, volume_epoch: u64) -> Result<u64, Problem> {
    let Some(epoch) = node.status.as_ref().and_then(|status| status.epoch) else {
        let detail = format!(
            "node `{}` has no epoch yet; the operator sets it when it attaches the volume",
            node.name_any()
        );
        return Err(Problem::new(&kind::UNAVAILABLE, detail).retry_after(1));
    };
    if volume_epoch > epoch.0 {
        let detail = format!(
            "the volume has seen epoch {volume_epoch}, the control plane knows {epoch} for node `{}`: its state is older than \
             the volume; restore it, or attach the volume again",
            node.name_any()
        );
        return Err(Problem::new(&kind::EPOCH, detail));
    }
    Ok(epoch.0)
}

/// The tier of a node, which every answer to an agent carries.
pub(super) async fn tier_of(app: &App, node: &GraphNode) -> Result<Arc<Tier>, Problem> {
    let name = &node.spec.tier;
    if let Some(tier) = app.caches.tiers.get("", name) {
        return Ok(tier);
    }
    let found = app.cluster_api::<Tier>().get_opt(name).await?;
    found.map(Arc::new).ok_or_else(|| {
        let detail = format!(
            "tier `{name}` of node `{}` does not exist; create it again",
            node.name_any()
        );
        Problem::new(&kind::UNAVAILABLE, detail).retry_after(5)
    })
}

/// Writes what the agent said into the node's status. A busy API server is tried again: the token is spent by now.
async fn write_registration(app: &App, request: &RegisterRequest, epoch: u64) -> Result<(), Problem> {
    let registration = Registration {
        address: request.address.trim_end_matches('/').to_owned(),
        instance_id: request.instance_id.clone(),
        agent_version: request.agent_version.clone(),
        engines: request.engines.clone(),
        capacity: request.capacity,
        epoch: Epoch(epoch),
        time: Time(jiff::Timestamp::now()),
    };
    let mut pause = Duration::from_millis(50);
    loop {
        match apply_registration(app, &request.node, &registration).await {
            Err(problem) if *problem.kind() == kind::UNAVAILABLE && pause < Duration::from_secs(1) => {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            result => return result,
        }
    }
}

/// Writes a registration into a node's status.
pub(super) async fn apply_registration(app: &App, node: &str, registration: &Registration) -> Result<(), Problem> {
    let object = json!({
        "apiVersion": "graphplane.dev/v1alpha1", "kind": "GraphNode", "metadata": {"name": node},
        "status": {"registration": registration},
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    app.cluster_api::<GraphNode>()
        .patch_status(node, &params, &Patch::Apply(&object))
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::Value;

    fn node(status: Value) -> GraphNode {
        serde_json::from_value(json!({
            "apiVersion": "graphplane.dev/v1alpha1", "kind": "GraphNode", "metadata": {"name": "n1"},
            "spec": {"tier": "t", "zone": "local", "volume": "v1"}, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn the_control_planes_epoch_must_not_be_older_than_the_volumes() {
        let known = node(json!({"epoch": 4, "conditions": []}));
        assert_eq!(checked_epoch(&known, 3).unwrap(), 4);
        assert_eq!(checked_epoch(&known, 4).unwrap(), 4);
        assert_eq!(*checked_epoch(&known, 5).unwrap_err().kind(), kind::EPOCH);
        assert_eq!(
            *checked_epoch(&node(Value::Null), 0).unwrap_err().kind(),
            kind::UNAVAILABLE
        );
    }
}
