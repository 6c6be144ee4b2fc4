//! `/v1/graphs/{id}/backups`: backups of a graph.

use crate::auth::{Editor, Viewer};
use crate::body::Body;
use crate::graphs::{effective_id, find};
use crate::idempotency::Idempotency;
use crate::names::is_object_name;
use crate::operations::accepted;
use crate::operations::id::{Target, Verb};
use crate::pagination::{Page, Paging, list_failed};
use crate::problem::{Problem, clip};
use crate::query::UrlQuery;
use crate::resources;
use crate::state::App;
use crate::subgraphs::find_in;
use axum::extract::{Path, State};
use axum::response::Response;
use graphplane_crds::Backup;
use graphplane_crds::annotations::{GRAPH_ID_LABEL, GRAPH_LABEL};
use graphplane_crds::backup::{BackupMethod, BackupPhase, BackupSpec};
use graphplane_crds::ids::SubgraphName;
use http::{HeaderMap, Uri};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use kube::ResourceExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A backup to make.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackupCreate {
    /// Name of the object; absent: the graph's name and the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// Name of a subgraph of the graph, to back up its database instead of the graph's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subgraph: Option<SubgraphName>,
    /// How it is taken.
    #[serde(default)]
    pub method: BackupMethod,
    /// Kept for so many days after it is complete; absent means until it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3650))]
    pub retention_days: Option<u32>,
}

/// A backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupView {
    /// Name of the object.
    pub name: String,
    /// Name of the graph.
    pub graph: String,
    /// Id of the graph that it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph_id: Option<String>,
    /// The database that it holds: the graph's own, or that of a subgraph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_id: Option<String>,
    /// How it was taken.
    pub method: BackupMethod,
    /// How far it is.
    pub phase: BackupPhase,
    /// Kept for so many days after it is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<u32>,
    /// Size of the stored object, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// SHA-256 of the stored database file, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Nodes in the graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_count: Option<i64>,
    /// Relationships in the graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relationship_count: Option<i64>,
    /// When it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// When it was complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// When the stored bytes were read back and their checksum compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_at: Option<Time>,
    /// The state in words for machines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

fn view(backup: &Backup) -> BackupView {
    let status = backup.status.clone().unwrap_or_default();
    BackupView {
        name: backup.name_any(),
        graph: backup.spec.graph.clone(),
        graph_id: status.graph_id.map(String::from),
        database_id: status.database_id.map(String::from),
        method: backup.spec.method,
        phase: status.phase.unwrap_or_default(),
        retention_days: backup.spec.retention_days,
        size_bytes: status.size_bytes,
        sha256: status.sha256,
        node_count: status.node_count,
        relationship_count: status.relationship_count,
        created_at: backup.creation_timestamp(),
        completed_at: status.completed_at,
        verified_at: status.verified_at,
        conditions: status.conditions,
    }
}

/// Starts a backup.
pub(crate) async fn create(
    State(app): State<App>,
    Editor(caller): Editor,
    Path(graph): Path<String>,
    query: UrlQuery,
    uri: Uri,
    headers: HeaderMap,
    Body { content, raw }: Body<BackupCreate>,
) -> Result<Response, Problem> {
    let dry_run = query.dry_run()?;
    let namespace = &caller.namespace;
    let graph = find(&app, namespace, &graph).await?;
    let idempotency = Idempotency::of::<Backup>(&headers, namespace, uri.path(), &raw)?;
    let subgraph = match &content.subgraph {
        None => None,
        Some(name) => {
            let found = find_in(&app, &graph, name.as_str()).await?;
            let missing = || Problem::field("subgraph", "the graph has no such subgraph", Value::from(name.as_str()));
            Some(found.ok_or_else(missing)?.name_any())
        }
    };
    let time = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let unique = &uuid::Uuid::new_v4().simple().to_string()[..6];
    let name = content
        .name
        .unwrap_or_else(|| format!("{}-{time}-{unique}", graph.name_any()));
    let mut labels = std::collections::BTreeMap::from([(GRAPH_LABEL.to_owned(), graph.name_any())]);
    labels.extend(effective_id(&graph).map(|id| (GRAPH_ID_LABEL.to_owned(), id.to_string())));
    let object = Backup {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(namespace.clone()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: BackupSpec {
            graph: graph.name_any(),
            subgraph,
            method: content.method,
            retention_days: content.retention_days,
        },
        status: None,
    };
    let created = resources::create(&app, namespace, object, idempotency.as_ref(), dry_run)
        .await
        .map_err(|problem| problem.with_values_of(&raw))?;
    if dry_run {
        return Ok(resources::with_etag(&created.object, view(&created.object)));
    }
    Ok(accepted(
        Verb::Create,
        Target::Backup,
        &created.object,
        created.replayed,
    ))
}

/// Lists the backups of a graph.
pub(crate) async fn list(
    State(app): State<App>,
    Viewer(caller): Viewer,
    Path(graph): Path<String>,
    query: UrlQuery,
) -> Result<Page<BackupView>, Problem> {
    let graph = find(&app, &caller.namespace, &graph).await?.name_any();
    let paging = Paging::from_query(&query, format!("backups/{}/{graph}", caller.namespace))?;
    let params = paging.params().fields(&format!("spec.graph={graph}"));
    let found = app
        .api::<Backup>(&caller.namespace)
        .list(&params)
        .await
        .map_err(list_failed)?;
    Ok(paging.page(found, |backup| view(&backup)))
}

/// Shows one backup.
pub(crate) async fn get(
    State(app): State<App>,
    Viewer(caller): Viewer,
    Path((graph, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let graph = find(&app, &caller.namespace, &graph).await?.name_any();
    let missing = || Problem::not_found(format!("backup `{}` of graph `{graph}`", clip(&name)));
    if !is_object_name(&name) {
        return Err(missing());
    }
    let found = app.api::<Backup>(&caller.namespace).get_opt(&name).await?;
    let backup = found.filter(|backup| backup.spec.graph == graph).ok_or_else(missing)?;
    Ok(resources::with_etag(&backup, view(&backup)))
}
