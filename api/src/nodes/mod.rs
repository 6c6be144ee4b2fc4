//! `/v1/nodes`: machines. Admins look at them; node agents register and renew their leases.

pub(crate) mod identity;
pub(crate) mod lease;
pub(crate) mod misuse;
pub(crate) mod register;
pub(crate) mod secret;
pub(crate) mod wire;

use crate::FIELD_MANAGER;
use crate::auth::Admin;
use crate::body::Body;
use crate::names::is_object_name;
use crate::pagination::{Page, Paging, list_failed};
use crate::problem::{Problem, clip};
use crate::query::UrlQuery;
use crate::resources;
use crate::state::App;
use axum::extract::{Path, State};
use axum::response::Response;
use graphplane_crds::annotations::DRAIN;
use graphplane_crds::node::{GraphNodeSpec, GraphNodeStatus, NodePhase};
use graphplane_crds::{GraphNode, conditions};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// A machine with a node agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Whether its agent renews its lease and takes graphs.
    pub ready: bool,
    /// Whether it is being emptied.
    pub draining: bool,
    /// What it should be.
    pub spec: GraphNodeSpec,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<GraphNodeStatus>,
}

/// A change of a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodePatch {
    /// `true` moves nothing new onto it and lets the operator empty it; `false` takes that back.
    pub drain: bool,
}

fn phase(node: &GraphNode) -> Option<NodePhase> {
    node.status.as_ref().and_then(|status| status.phase)
}

/// Whether a node is to be emptied: it takes nothing new and serves what it has.
fn is_draining(node: &GraphNode) -> bool {
    node.metadata.deletion_timestamp.is_some()
        || node.annotations().get(DRAIN).is_some_and(|value| value == "true")
        || matches!(phase(node), Some(NodePhase::Draining | NodePhase::Terminating))
}

/// Whether a node is empty and its machine is being stopped. Until then its agent has to take changes: what leaves a node
/// that is drained or deleted leaves it by a final backup and a deletion.
pub(crate) fn is_leaving(node: &GraphNode) -> bool {
    phase(node) == Some(NodePhase::Terminating)
}

fn view(node: &GraphNode) -> NodeView {
    let status = node.status.clone();
    NodeView {
        name: node.name_any(),
        ready: status
            .as_ref()
            .is_some_and(|status| conditions::is_true(&status.conditions, conditions::READY)),
        draining: is_draining(node),
        spec: node.spec.clone(),
        status,
    }
}

fn missing(name: &str) -> Problem {
    Problem::not_found(format!("node `{}`", clip(name)))
}

/// Lists all machines.
pub(crate) async fn list(State(app): State<App>, _: Admin, query: UrlQuery) -> Result<Page<NodeView>, Problem> {
    let paging = Paging::from_query(&query, "nodes".to_owned())?;
    let found = app
        .cluster_api::<GraphNode>()
        .list(&paging.params())
        .await
        .map_err(list_failed)?;
    Ok(paging.page(found, |node| view(&node)))
}

/// Shows one machine.
pub(crate) async fn get(State(app): State<App>, _: Admin, Path(name): Path<String>) -> Result<Response, Problem> {
    if !is_object_name(&name) {
        return Err(missing(&name));
    }
    let node = app
        .cluster_api::<GraphNode>()
        .get_opt(&name)
        .await?
        .ok_or_else(|| missing(&name))?;
    Ok(resources::with_etag(&node, view(&node)))
}

/// Drains a machine, or stops draining it.
pub(crate) async fn patch(
    State(app): State<App>,
    Admin(caller): Admin,
    Path(name): Path<String>,
    query: UrlQuery,
    Body { content, .. }: Body<NodePatch>,
) -> Result<Response, Problem> {
    let dry_run = query.dry_run()?;
    if !is_object_name(&name) {
        return Err(missing(&name));
    }
    let change = json!({"metadata": {"annotations": {DRAIN: content.drain.then_some("true")}}});
    let params = PatchParams {
        dry_run,
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let node = match app
        .cluster_api::<GraphNode>()
        .patch(&name, &params, &Patch::Merge(&change))
        .await
    {
        Ok(node) => node,
        Err(kube::Error::Api(status)) if status.is_not_found() => return Err(missing(&name)),
        Err(error) => return Err(error.into()),
    };
    tracing::info!(
        by = caller.key,
        node = name,
        drain = content.drain,
        dry_run,
        "a node's drain mark was changed"
    );
    Ok(resources::with_etag(&node, view(&node)))
}
