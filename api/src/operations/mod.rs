//! `/v1/operations`: how far a change is.
//!
//! An operation is a view of its object's conditions. Nothing is stored for it, so that it can be looked at from any
//! server, at any time, also after the object is gone.

mod events;
pub(crate) mod id;
pub(crate) mod progress;

pub(crate) use events::follow;

use crate::auth::Viewer;
use crate::problem::{Problem, clip};
use crate::state::App;
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use graphplane_crds::{Backup, Graph, Subgraph};
use http::{HeaderValue, StatusCode, header};
use id::{OperationId, Target, Verb};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::NamespaceResourceScope;
use progress::{Followed, OperationStatus, Seen, judge};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;

/// A change that was asked for, and how far it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// Opaque; good for `/v1/operations/{id}` as long as anyone cares, also after the object is gone.
    pub id: String,
    /// What is done, such as `createGraph`.
    pub operation: String,
    /// How far it is.
    pub status: OperationStatus,
    /// Whether there is nothing more to wait for.
    pub done: bool,
    /// From 0 to 100, by milestones.
    pub progress_percent: u8,
    /// The condition that is waited for, such as `DatabaseReady`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// The reason that the condition gives; one word, stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For people: what happens, or what to do.
    pub message: String,
    /// The object that is changed.
    pub resource: OperationResource,
    /// The object's conditions, as it has them now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Where to look next.
    pub links: OperationLinks,
}

/// The object of an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationResource {
    /// Its kind, such as `Graph`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Id of its database: the graph id, or that of the subgraph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// Where to look next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OperationLinks {
    /// This operation.
    #[serde(rename = "self")]
    pub self_: String,
    /// Its progress as server-sent events.
    pub events: String,
}

impl Operation {
    /// The operation as its object shows it; `seen` is `None` when no object of its name exists.
    pub(crate) fn view(id: &OperationId, milestones: &[&str], seen: Option<&Seen>) -> Self {
        let progress = judge(id, milestones, seen);
        let seen = seen.filter(|seen| seen.uid == id.uid);
        let text = id.to_string();
        Self {
            operation: id.action(),
            status: progress.status,
            done: progress.status.is_final(),
            progress_percent: progress.percent,
            stage: progress.stage,
            reason: progress.reason,
            message: progress.message,
            resource: OperationResource {
                kind: id.target.kind().to_owned(),
                namespace: id.namespace.clone(),
                name: id.name.clone(),
                uid: id.uid.clone(),
                id: seen.and_then(|seen| seen.database.clone()),
            },
            conditions: seen.map(|seen| seen.conditions.clone()).unwrap_or_default(),
            links: OperationLinks {
                self_: format!("/v1/operations/{text}"),
                events: format!("/v1/operations/{text}/events"),
            },
            id: text,
        }
    }
}

/// 202 with the operation that changes `object`.
pub(crate) fn accepted<K: Followed>(verb: Verb, target: Target, object: &K, replayed: bool) -> Response {
    let id = OperationId::of(verb, target, object);
    let operation = Operation::view(&id, K::MILESTONES, Some(&object.seen()));
    let location = operation.links.self_.clone();
    let mut response = (StatusCode::ACCEPTED, Json(operation)).into_response();
    if let Ok(value) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    if replayed {
        response
            .headers_mut()
            .insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    response
}

/// Reads an id that a client sent; one of another tenant does not exist.
fn parse(text: &str, viewer: &Viewer) -> Result<OperationId, Problem> {
    text.parse::<OperationId>()
        .ok()
        .filter(|id| id.namespace == viewer.0.namespace)
        .ok_or_else(|| Problem::not_found(format!("operation `{}`", clip(text))))
}

/// Shows one operation.
pub(crate) async fn get(
    State(app): State<App>,
    viewer: Viewer,
    Path(text): Path<String>,
) -> Result<Json<Operation>, Problem> {
    let id = parse(&text, &viewer)?;
    Ok(Json(current(&app, &id).await?))
}

/// The operation as the API server knows it now.
async fn current(app: &App, id: &OperationId) -> Result<Operation, Problem> {
    match id.target {
        Target::Graph => look::<Graph>(app, id).await,
        Target::Subgraph => look::<Subgraph>(app, id).await,
        Target::Backup => look::<Backup>(app, id).await,
    }
}

async fn look<K>(app: &App, id: &OperationId) -> Result<Operation, Problem>
where
    K: Followed + kube::Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let object = app.api::<K>(&id.namespace).get_opt(&id.name).await?;
    Ok(Operation::view(
        id,
        K::MILESTONES,
        object.map(|object| object.seen()).as_ref(),
    ))
}
