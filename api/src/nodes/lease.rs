//! `POST /v1/nodes/{name}/lease`: a node agent says that it lives, and hears whether it may go on writing.
//!
//! In steady state a renewal costs one write and no read. The epoch comes from the watch cache, which may lag; that is
//! safe as long as the previous lease has not run out, because an operator who raises the epoch waits for the lease to run
//! out before anyone else may write. After a lapse the epoch is read from the API server, after the lease was written:
//! then either the operator sees the new lease, or the agent hears of the new epoch. The answer also brings the agent a new
//! credential when the present one is old ([`secret::rotate`]).

use super::register::{apply_registration, tier_of};
use super::secret::{self, Token};
use super::wire::{ADDRESS_RULE, LeaseRequest, LeaseResponse, NodeSettings, is_address};
use super::{identity, is_leaving, missing};
use crate::FIELD_MANAGER;
use crate::auth::{self, Source};
use crate::body::Body;
use crate::names::is_object_name;
use crate::problem::{Problem, clip, kind};
use crate::state::App;
use axum::Json;
use axum::extract::{Path, State};
use bytes::Bytes;
use graphplane_core::names::node_object;
use graphplane_crds::GraphNode;
use graphplane_crds::annotations::{NODE_LABEL, USAGE};
use http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Kubernetes takes 256 KiB of annotations.
const LARGEST_USAGE: usize = 200 << 10;

/// From when on each node's lease, as last written by this server, counts.
#[derive(Default)]
pub(crate) struct Renewals(Mutex<HashMap<String, Instant>>);

impl Renewals {
    /// A lease that counts from `from` on was stored by `stored`; true if the one before had not run out by then.
    fn renewed(&self, node: &str, from: Instant, stored: Instant, duration: Duration) -> bool {
        let before = self.0.lock().insert(node.to_owned(), from);
        before.is_some_and(|before| stored.saturating_duration_since(before) < duration)
    }

    /// Forgets nodes that are gone and gives their names.
    pub(crate) fn forget(&self, gone: impl Fn(&str) -> bool) -> Vec<String> {
        let mut renewals = self.0.lock();
        let nodes: Vec<String> = renewals.keys().filter(|node| gone(node)).cloned().collect();
        for node in &nodes {
            renewals.remove(node);
        }
        nodes
    }
}

/// Renews a lease.
pub(crate) async fn renew(
    State(app): State<App>,
    Source(source): Source,
    Path(name): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Json<LeaseResponse>, Problem> {
    let result = serve(&app, source, &name, &headers, &bytes).await;
    app.metrics.lease(match &result {
        Ok(_) => "ok",
        Err(problem) => problem.kind().slug,
    });
    result.map(Json)
}

async fn serve(
    app: &App,
    source: IpAddr,
    name: &str,
    headers: &HeaderMap,
    bytes: &Bytes,
) -> Result<LeaseResponse, Problem> {
    if !is_object_name(name) {
        return Err(missing(name));
    }
    let token = auth::bearer(headers).ok_or_else(|| {
        Problem::new(
            &kind::UNAUTHORIZED,
            "send the node's credential as `Authorization: Bearer`",
        )
    })?;
    let (secret, kind) = authenticate(app, source, name, token).await?;
    let bound = secret::machine(&secret);
    let request = Body::<LeaseRequest>::parse_known(bytes)?.content;
    if !is_address(&request.address) {
        return Err(Problem::field(
            "address",
            ADDRESS_RULE,
            Value::from(clip(&request.address)),
        ));
    }
    let usage = usage_text(&request)?;
    let node = current_node(app, name, request.epoch, bound).await?;
    let tier = tier_of(app, &node).await?;
    follow_address(app, &node, bound, &request.address).await?;
    let registration = node.status.as_ref().and_then(|status| status.registration.as_ref());
    let holder = registration.map_or(name, |registration| registration.instance_id.as_str());
    let continuous = write(app, name, &node.uid().unwrap_or_default(), holder, usage).await?;
    if !continuous {
        let fresh = app
            .cluster_api::<GraphNode>()
            .get_opt(name)
            .await?
            .ok_or_else(|| missing(name))?;
        is_current(&fresh, request.epoch, bound)?;
    }
    let credential = rotate(app, name, token, &secret, kind).await;
    Ok(LeaseResponse {
        epoch: request.epoch,
        lease_duration_seconds: app.settings.lease.duration_seconds,
        renew_interval_seconds: app.settings.lease.renew_interval_seconds,
        draining: is_leaving(&node),
        settings: NodeSettings::of(&tier),
        credential,
    })
}

/// Checks the credential, in the cache first: it may not have a credential that was made a moment ago. Gives the Secret that
/// has it.
async fn authenticate(app: &App, source: IpAddr, name: &str, token: &str) -> Result<(Arc<Secret>, Token), Problem> {
    let system = &app.settings.system_namespace;
    let secret_name = node_object(name);
    let good = |secret: &Secret| secret::recognize(secret, token).filter(|kind| *kind != Token::Bootstrap);
    if let Some(secret) = app.caches.secrets.get(system, &secret_name)
        && let Some(kind) = good(&secret)
    {
        return Ok((secret, kind));
    }
    let refused = || {
        auth::refuse(
            app,
            source,
            "node",
            "the credential is not that of the node; register again",
        )
    };
    if app.failures.exhausted(source) {
        return Err(refused());
    }
    match app.api::<Secret>(system).get_opt(&secret_name).await? {
        Some(secret) => match good(&secret) {
            Some(kind) => Ok((Arc::new(secret), kind)),
            None => Err(refused()),
        },
        // An agent of a node that was removed should hear so, and stop, instead of asking for ever.
        None => match app.cluster_api::<GraphNode>().get_opt(name).await? {
            Some(_) => Err(refused()),
            None => Err(missing(name)),
        },
    }
}

/// Replaces the agent's credential step by step; gives the one that is offered to it now. Mostly there is nothing to do,
/// and a step that fails is made at the next renewal: the lease is renewed in any case.
async fn rotate(app: &App, name: &str, token: &str, known: &Secret, kind: Token) -> Option<String> {
    let now = Timestamp::now();
    let age = SignedDuration::try_from(app.settings.credential_age).unwrap_or(SignedDuration::MAX);
    secret::rotate(known, kind, now, age)?;
    rotate_stored(app, name, token, now, age).await.unwrap_or_else(|error| {
        tracing::warn!(node = name, %error, "a node's credential was not replaced; the next renewal tries again");
        None
    })
}

/// What is written is made of what is there: the cache may be behind.
async fn rotate_stored(
    app: &App,
    name: &str,
    token: &str,
    now: Timestamp,
    age: SignedDuration,
) -> Result<Option<String>, kube::Error> {
    let api = app.api::<Secret>(&app.settings.system_namespace);
    let Some(before) = api.get_opt(&node_object(name)).await? else {
        return Ok(None);
    };
    let rotated = secret::recognize(&before, token).and_then(|kind| secret::rotate(&before, kind, now, age));
    let Some((after, offered)) = rotated else {
        return Ok(None);
    };
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    api.replace(&after.name_any(), &params, &after).await?;
    Ok(offered)
}

/// The node, whose epoch and machine must be those of the agent. The cache decides only when it agrees.
async fn current_node(app: &App, name: &str, epoch: u64, bound: Option<&str>) -> Result<Arc<GraphNode>, Problem> {
    if let Some(node) = app.caches.nodes.get("", name)
        && is_current(&node, epoch, bound).is_ok()
    {
        return Ok(node);
    }
    let node = app
        .cluster_api::<GraphNode>()
        .get_opt(name)
        .await?
        .ok_or_else(|| missing(name))?;
    is_current(&node, epoch, bound)?;
    Ok(Arc::new(node))
}

fn is_current(node: &GraphNode, epoch: u64, bound: Option<&str>) -> Result<(), Problem> {
    same_epoch(node, epoch)?;
    identity::belongs(node, bound)
}

fn same_epoch(node: &GraphNode, epoch: u64) -> Result<(), Problem> {
    let current = node
        .status
        .as_ref()
        .and_then(|status| status.epoch)
        .map(|epoch| epoch.0);
    if current == Some(epoch) {
        return Ok(());
    }
    let current = current.map_or_else(|| "none".to_owned(), |epoch| epoch.to_string());
    let detail = format!(
        "the agent holds epoch {epoch}, the epoch of node `{}` is {current}; register again",
        node.name_any()
    );
    Err(Problem::new(&kind::EPOCH, detail))
}

/// An agent that moved to another port keeps its registration, with the new address. The host of a machine that proved to
/// be the node's does not change: who has only its credential cannot draw its callers elsewhere.
async fn follow_address(app: &App, node: &GraphNode, bound: Option<&str>, address: &str) -> Result<(), Problem> {
    let address = address.trim_end_matches('/');
    let Some(registration) = node.status.as_ref().and_then(|status| status.registration.as_ref()) else {
        return Ok(());
    };
    if registration.address == address {
        return Ok(());
    }
    if bound.is_some() && host(&registration.address) != host(address) {
        let detail = format!(
            "the machine of node `{}` is at {}; register again from there",
            node.name_any(),
            registration.address
        );
        return Err(Problem::new(&kind::FORBIDDEN, detail));
    }
    let mut registration = registration.clone();
    registration.address = address.to_owned();
    registration.time = Time(Timestamp::now());
    apply_registration(app, &node.name_any(), &registration).await
}

fn host(address: &str) -> Option<String> {
    url::Url::parse(address).ok()?.host_str().map(str::to_owned)
}

fn usage_text(request: &LeaseRequest) -> Result<String, Problem> {
    // Written anew, so that only known fields reach the annotation.
    let text = serde_json::to_string(request).map_err(Problem::internal)?;
    if text.len() > LARGEST_USAGE {
        let detail = format!(
            "{} databases take {} bytes, at most {LARGEST_USAGE} fit",
            request.usage.databases.len(),
            text.len()
        );
        return Err(Problem::field("databases", detail, None));
    }
    Ok(text)
}

/// Writes the Lease of a node; true if the one before, written by this server, had not run out when this was done.
async fn write(app: &App, node: &str, uid: &str, holder: &str, usage: String) -> Result<bool, Problem> {
    let api = app.api::<Lease>(&app.settings.system_namespace);
    let name = node_object(node);
    let (from, now) = (Instant::now(), MicroTime(Timestamp::now()));
    let seconds = app.settings.lease.duration_seconds;
    let mut lease = Lease {
        metadata: ObjectMeta {
            annotations: Some([(USAGE.to_owned(), usage)].into()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: i32::try_from(seconds).ok(),
            renew_time: Some(now.clone()),
            ..LeaseSpec::default()
        }),
    };
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let mut result = api.patch(&name, &params, &Patch::Merge(&lease)).await;
    if matches!(&result, Err(kube::Error::Api(status)) if status.is_not_found()) {
        lease.metadata.name = Some(name.clone());
        lease.metadata.labels = Some([(NODE_LABEL.to_owned(), node.to_owned())].into());
        lease.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "graphplane.dev/v1alpha1".to_owned(),
            kind: "GraphNode".to_owned(),
            name: node.to_owned(),
            uid: uid.to_owned(),
            ..OwnerReference::default()
        }]);
        if let Some(spec) = lease.spec.as_mut() {
            spec.acquire_time = Some(now);
        }
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        result = match api.create(&params, &lease).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                lease.metadata.owner_references = None;
                api.patch(&name, &PatchParams::default(), &Patch::Merge(&lease)).await
            }
            result => result,
        };
    }
    result?;
    Ok(app
        .renewals
        .renewed(node, from, Instant::now(), Duration::from_secs(seconds.into())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::nodes::wire::{DatabaseUsage, Usage};

    #[test]
    fn a_renewal_is_continuous_only_within_the_lease() {
        let renewals = Renewals::default();
        let lease = Duration::from_secs(15);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let renewed = |node, from, stored| renewals.renewed(node, at(from), at(stored), lease);
        assert!(!renewed("n1", 0, 0));
        assert!(renewed("n1", 14, 14));
        assert!(renewed("n1", 28, 28));
        assert!(!renewed("n1", 43, 43));
        assert!(
            !renewed("n1", 57, 58),
            "the write itself took until after the end of the lease"
        );
        assert!(!renewed("n2", 0, 0));
        assert_eq!(renewals.forget(|node| node == "n1"), ["n1"]);
        assert!(!renewed("n1", 59, 59));
    }

    #[test]
    fn a_report_that_does_not_fit_is_refused_by_name() {
        let mut request = LeaseRequest {
            epoch: 1,
            address: "http://a".into(),
            usage: Usage::default(),
        };
        request.usage.disk_used_mib = 12;
        request.usage.databases = vec![DatabaseUsage {
            id: "kg0123456789abcdef".into(),
            size_bytes: 1,
            staging_bytes: 2,
            revision: 3,
        }];
        let read = graphplane_core::usage::Usage::parse(&usage_text(&request).unwrap()).unwrap();
        assert_eq!(
            (read.epoch, read.address.as_str(), read.disk_used_mib),
            (1, "http://a", 12)
        );
        assert_eq!(read.databases[0].staging_bytes, 2);
        assert_eq!(read.mark("kg0123456789abcdef").as_deref(), Some("1.3"));
        request.usage.databases = (0..5000)
            .map(|n| DatabaseUsage {
                id: format!("kg{n:032x}"),
                ..DatabaseUsage::default()
            })
            .collect();
        assert_eq!(
            usage_text(&request).unwrap_err().describe().errors[0].field,
            "databases"
        );
    }
}
