//! `/v1/tiers`: classes of machines. Everyone sees what there is to choose from; admins change it.

use crate::FIELD_MANAGER;
use crate::auth::{Admin, Role, Viewer};
use crate::body::Body;
use crate::names::is_object_name;
use crate::pagination::{Page, Paging, list_failed};
use crate::problem::{Problem, clip, kind};
use crate::query::UrlQuery;
use crate::resources;
use crate::state::App;
use axum::extract::{Path, State};
use axum::response::Response;
use graphplane_crds::tier::{TierSpec, TierStatus};
use graphplane_crds::{Tier, conditions};
use http::StatusCode;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// A tier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TierView {
    /// Its name, as graphs give it.
    pub name: String,
    /// Whether graphs can be placed on it.
    pub ready: bool,
    /// What its machines are, and its limits.
    pub spec: TierSpec,
    /// Nodes, capacity and cost; shown to admins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<TierStatus>,
}

fn view(tier: &Tier, role: Role) -> TierView {
    let status = tier.status.clone();
    TierView {
        name: tier.name_any(),
        ready: status
            .as_ref()
            .is_some_and(|status| conditions::is_true(&status.conditions, conditions::READY)),
        spec: tier.spec.clone(),
        status: status.filter(|_| role >= Role::Admin),
    }
}

fn missing(name: &str) -> Problem {
    Problem::not_found(format!("tier `{}`", clip(name)))
}

/// Lists all tiers.
pub(crate) async fn list(
    State(app): State<App>,
    Viewer(caller): Viewer,
    query: UrlQuery,
) -> Result<Page<TierView>, Problem> {
    let paging = Paging::from_query(&query, "tiers".to_owned())?;
    let found = app
        .cluster_api::<Tier>()
        .list(&paging.params())
        .await
        .map_err(list_failed)?;
    Ok(paging.page(found, |tier| view(&tier, caller.role)))
}

/// Shows one tier.
pub(crate) async fn get(
    State(app): State<App>,
    Viewer(caller): Viewer,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    if !is_object_name(&name) {
        return Err(missing(&name));
    }
    let tier = app
        .cluster_api::<Tier>()
        .get_opt(&name)
        .await?
        .ok_or_else(|| missing(&name))?;
    Ok(resources::with_etag(&tier, view(&tier, caller.role)))
}

/// Creates a tier, or makes an existing one what the body says.
pub(crate) async fn put(
    State(app): State<App>,
    Admin(caller): Admin,
    Path(name): Path<String>,
    query: UrlQuery,
    Body { raw, .. }: Body<TierSpec>,
) -> Result<Response, Problem> {
    let dry_run = query.dry_run()?;
    if !is_object_name(&name) {
        return Err(Problem::field(
            "name",
            "expected lower-case letters, digits, `-` and `.`",
            json!(clip(&name)),
        ));
    }
    let api = app.cluster_api::<Tier>();
    let object = json!({
        "apiVersion": "graphplane.dev/v1alpha1", "kind": "Tier", "metadata": {"name": name}, "spec": raw,
    });
    // Without `force`: fields that Git or another tool owns are not taken over in silence.
    let params = PatchParams {
        dry_run,
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let tier = api
        .patch(&name, &params, &Patch::Apply(&object))
        .await
        .map_err(|e| Problem::from(e).with_values_of(&raw))?;
    Ok(resources::with_etag(&tier, view(&tier, caller.role)))
}

/// Deletes a tier that no graph uses.
pub(crate) async fn delete(
    State(app): State<App>,
    _: Admin,
    Path(name): Path<String>,
    query: UrlQuery,
) -> Result<StatusCode, Problem> {
    let dry_run = query.dry_run()?;
    if !is_object_name(&name) {
        return Err(missing(&name));
    }
    let api = app.cluster_api::<Tier>();
    let tier = api.get_opt(&name).await?.ok_or_else(|| missing(&name))?;
    resources::check_deletion(&tier, &format!("tier `{name}`"))?;
    let users = kube::Api::<graphplane_crds::Graph>::all(app.client.clone());
    let params = kube::api::ListParams::default()
        .fields(&format!("spec.tier={name}"))
        .limit(1);
    if let Some(user) = users.list(&params).await?.items.first() {
        let detail = format!(
            "graph `{}` in namespace `{}` uses the tier",
            user.name_any(),
            user.namespace().unwrap_or_default()
        );
        return Err(Problem::new(&kind::CONFLICT, detail));
    }
    resources::delete(&api, &tier, dry_run).await?;
    Ok(StatusCode::NO_CONTENT)
}
