//! `/v1/volumes`: disks, for admins.

use crate::auth::Admin;
use crate::names::is_object_name;
use crate::pagination::{Page, Paging, list_failed};
use crate::problem::{Problem, clip};
use crate::query::UrlQuery;
use crate::resources;
use crate::state::App;
use axum::extract::{Path, State};
use axum::response::Response;
use graphplane_crds::volume::{GraphVolumeSpec, GraphVolumeStatus};
use graphplane_crds::{GraphVolume, conditions};
use kube::ResourceExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VolumeView {
    /// Its name.
    pub name: String,
    /// Whether it is usable.
    pub ready: bool,
    /// What it should be.
    pub spec: GraphVolumeSpec,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<GraphVolumeStatus>,
}

fn view(volume: &GraphVolume) -> VolumeView {
    let status = volume.status.clone();
    VolumeView {
        name: volume.name_any(),
        ready: status
            .as_ref()
            .is_some_and(|status| conditions::is_true(&status.conditions, conditions::READY)),
        spec: volume.spec.clone(),
        status,
    }
}

/// Lists all disks.
pub(crate) async fn list(State(app): State<App>, _: Admin, query: UrlQuery) -> Result<Page<VolumeView>, Problem> {
    let paging = Paging::from_query(&query, "volumes".to_owned())?;
    let found = app
        .cluster_api::<GraphVolume>()
        .list(&paging.params())
        .await
        .map_err(list_failed)?;
    Ok(paging.page(found, |volume| view(&volume)))
}

/// Shows one disk.
pub(crate) async fn get(State(app): State<App>, _: Admin, Path(name): Path<String>) -> Result<Response, Problem> {
    let missing = || Problem::not_found(format!("volume `{}`", clip(&name)));
    if !is_object_name(&name) {
        return Err(missing());
    }
    let volume = app
        .cluster_api::<GraphVolume>()
        .get_opt(&name)
        .await?
        .ok_or_else(missing)?;
    Ok(resources::with_etag(&volume, view(&volume)))
}
