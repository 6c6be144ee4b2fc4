//! `/v1/graphs/{id}/subgraphs`: workspaces beside a graph.

use crate::auth::{Editor, Viewer};
use crate::body::Body;
use crate::graphs::{effective_id, find};
use crate::idempotency::Idempotency;
use crate::operations::accepted;
use crate::operations::id::{Target, Verb};
use crate::pagination::{Page, Paging, list_failed};
use crate::problem::{Problem, clip, kind};
use crate::query::UrlQuery;
use crate::resources;
use crate::state::App;
use axum::extract::{Path, State};
use axum::response::Response;
use graphplane_crds::annotations::{GRAPH_ID_LABEL, GRAPH_LABEL};
use graphplane_crds::graph::{DeletionPolicy, Sizes};
use graphplane_crds::ids::SubgraphName;
use graphplane_crds::subgraph::{SubgraphSpec, SubgraphType};
use graphplane_crds::{Graph, Subgraph, conditions};
use http::{HeaderMap, Uri};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use kube::ResourceExt;
use kube::api::ListParams;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A subgraph to create.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubgraphCreate {
    /// Name below the graph; the database is `<graphId>_<name>`.
    pub name: SubgraphName,
    /// What it begins with.
    #[serde(default, rename = "type")]
    pub type_: SubgraphType,
    /// It begins as a copy of the graph's database.
    #[serde(default)]
    pub fork_parent: bool,
    /// Statements added to the schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262_144))]
    pub ddl: Option<String>,
    /// What happens to the data when the subgraph is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// A change of a subgraph: a JSON merge patch. What is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubgraphPatch {
    /// More statements may be appended; those that were applied must stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262_144))]
    pub ddl: Option<String>,
    /// What happens to the data when the subgraph is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// Stops reconciling; the subgraph goes on serving.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
}

/// A subgraph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubgraphView {
    /// Id of its database, for the gateway: `/v1/graphs/{id}/query`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Name below the graph.
    pub name: String,
    /// Name of the graph.
    pub graph: String,
    /// What it began with.
    #[serde(rename = "type")]
    pub type_: SubgraphType,
    /// Whether it began as a copy of the graph.
    pub fork_parent: bool,
    /// Whether it answers queries.
    pub ready: bool,
    /// What happens to the data when it is deleted.
    pub deletion_policy: DeletionPolicy,
    /// How large it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sizes: Option<Sizes>,
    /// The state in words for machines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// When it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// When its deletion was asked for; absent while it is to stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleting_since: Option<Time>,
}

fn view(subgraph: &Subgraph, graph: &Graph) -> SubgraphView {
    let status = subgraph.status.clone().unwrap_or_default();
    let expected = effective_id(graph).map(|id| id.subgraph(&subgraph.spec.name));
    SubgraphView {
        id: status.database_id.or(expected).map(String::from),
        name: subgraph.spec.name.to_string(),
        graph: subgraph.spec.graph.clone(),
        type_: subgraph.spec.type_,
        fork_parent: subgraph.spec.fork_parent,
        ready: conditions::is_true(&status.conditions, conditions::READY),
        deletion_policy: subgraph.spec.deletion_policy,
        sizes: status.sizes,
        conditions: status.conditions,
        created_at: subgraph.creation_timestamp(),
        deleting_since: subgraph.metadata.deletion_timestamp.clone(),
    }
}

/// Name of the object: readable, and different for names that differ only in case.
fn object_name(graph: &str, name: &SubgraphName) -> String {
    let lower = name.as_str().to_ascii_lowercase();
    if lower == name.as_str() {
        return format!("{graph}-{lower}");
    }
    let hash = hex::encode(Sha256::digest(name.as_str().as_bytes()));
    format!("{graph}-{lower}-{}", &hash[..8])
}

fn of_graph(graph: &Graph) -> ListParams {
    ListParams::default().fields(&format!("spec.graph={}", graph.name_any()))
}

/// The subgraph of a graph by its name. Objects made with kubectl may have any name, so that the spec counts.
pub(crate) async fn find_in(app: &App, graph: &Graph, name: &str) -> Result<Option<Subgraph>, Problem> {
    let namespace = graph.namespace().unwrap_or_default();
    let found = app.api::<Subgraph>(&namespace).list(&of_graph(graph)).await?;
    Ok(found
        .items
        .into_iter()
        .find(|subgraph| subgraph.spec.name.as_str() == name))
}

async fn require(app: &App, namespace: &str, graph: &str, name: &str) -> Result<(Graph, Subgraph), Problem> {
    let graph = find(app, namespace, graph).await?;
    let missing = || Problem::not_found(format!("subgraph `{}` of graph `{}`", clip(name), graph.name_any()));
    let subgraph = find_in(app, &graph, name).await?.ok_or_else(missing)?;
    Ok((graph, subgraph))
}

/// Creates a subgraph.
pub(crate) async fn create(
    State(app): State<App>,
    Editor(caller): Editor,
    Path(graph): Path<String>,
    query: UrlQuery,
    uri: Uri,
    headers: HeaderMap,
    Body { content, raw }: Body<SubgraphCreate>,
) -> Result<Response, Problem> {
    let dry_run = query.dry_run()?;
    let namespace = &caller.namespace;
    let graph = find(&app, namespace, &graph).await?;
    let idempotency = Idempotency::of::<Subgraph>(&headers, namespace, uri.path(), &raw)?;
    if let Some(there) = find_in(&app, &graph, content.name.as_str()).await?
        && !idempotency
            .as_ref()
            .map_or(Ok(false), |idempotency| idempotency.made(&there))?
    {
        let detail = format!("graph `{}` has a subgraph `{}` already", graph.name_any(), content.name);
        return Err(Problem::new(&kind::ALREADY_EXISTS, detail));
    }
    let mut labels = std::collections::BTreeMap::from([(GRAPH_LABEL.to_owned(), graph.name_any())]);
    labels.extend(effective_id(&graph).map(|id| (GRAPH_ID_LABEL.to_owned(), id.to_string())));
    let object = Subgraph {
        metadata: ObjectMeta {
            name: Some(object_name(&graph.name_any(), &content.name)),
            namespace: Some(namespace.clone()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: SubgraphSpec {
            graph: graph.name_any(),
            name: content.name,
            type_: content.type_,
            fork_parent: content.fork_parent,
            ddl: content.ddl,
            deletion_policy: content.deletion_policy,
            paused: false,
        },
        status: None,
    };
    let created = resources::create(&app, namespace, object, idempotency.as_ref(), dry_run)
        .await
        .map_err(|problem| problem.with_values_of(&raw))?;
    if dry_run {
        return Ok(resources::with_etag(&created.object, view(&created.object, &graph)));
    }
    Ok(accepted(
        Verb::Create,
        Target::Subgraph,
        &created.object,
        created.replayed,
    ))
}

/// Lists the subgraphs of a graph.
pub(crate) async fn list(
    State(app): State<App>,
    Viewer(caller): Viewer,
    Path(graph): Path<String>,
    query: UrlQuery,
) -> Result<Page<SubgraphView>, Problem> {
    let graph = find(&app, &caller.namespace, &graph).await?;
    let paging = Paging::from_query(&query, format!("subgraphs/{}/{}", caller.namespace, graph.name_any()))?;
    let params = ListParams {
        field_selector: of_graph(&graph).field_selector,
        ..paging.params()
    };
    let found = app
        .api::<Subgraph>(&caller.namespace)
        .list(&params)
        .await
        .map_err(list_failed)?;
    Ok(paging.page(found, |subgraph| view(&subgraph, &graph)))
}

/// Shows one subgraph.
pub(crate) async fn get(
    State(app): State<App>,
    Viewer(caller): Viewer,
    Path((graph, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (graph, subgraph) = require(&app, &caller.namespace, &graph, &name).await?;
    Ok(resources::with_etag(&subgraph, view(&subgraph, &graph)))
}

/// Changes a subgraph.
pub(crate) async fn patch(
    State(app): State<App>,
    Editor(caller): Editor,
    Path((graph, name)): Path<(String, String)>,
    query: UrlQuery,
    headers: HeaderMap,
    Body { raw, .. }: Body<SubgraphPatch>,
) -> Result<Response, Problem> {
    let dry_run = query.dry_run()?;
    let version = resources::if_match(&headers)?;
    if raw.as_object().is_none_or(serde_json::Map::is_empty) {
        return Err(Problem::field("$", "the change is empty", None::<Value>));
    }
    let (graph, subgraph) = require(&app, &caller.namespace, &graph, &name).await?;
    let api = app.api::<Subgraph>(&caller.namespace);
    let change = json!({ "spec": raw });
    let changed = resources::patch(&api, &subgraph.name_any(), change, version.as_deref(), dry_run)
        .await
        .map_err(|problem| problem.with_values_of(&raw))?;
    if dry_run {
        return Ok(resources::with_etag(&changed, view(&changed, &graph)));
    }
    Ok(accepted(Verb::Update, Target::Subgraph, &changed, false))
}

/// Deletes a subgraph.
pub(crate) async fn delete(
    State(app): State<App>,
    Editor(caller): Editor,
    Path((graph, name)): Path<(String, String)>,
    query: UrlQuery,
) -> Result<Response, Problem> {
    let dry_run = query.dry_run()?;
    let (graph, subgraph) = require(&app, &caller.namespace, &graph, &name).await?;
    resources::check_deletion(&subgraph, &format!("subgraph `{name}`"))?;
    resources::delete(&app.api::<Subgraph>(&caller.namespace), &subgraph, dry_run).await?;
    if dry_run {
        return Ok(resources::with_etag(&subgraph, view(&subgraph, &graph)));
    }
    Ok(accepted(Verb::Delete, Target::Subgraph, &subgraph, false))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_differ_in_case_give_different_objects() {
        let name = |text: &str| object_name("karate", &text.parse().unwrap());
        assert_eq!(name("dev"), "karate-dev");
        assert_ne!(name("Dev"), name("dev"));
        assert_ne!(name("Dev"), name("dEv"));
    }

    proptest! {
        #[test]
        fn every_subgraph_has_a_valid_object_name(name in "[a-zA-Z0-9]{1,20}") {
            prop_assert!(crate::names::is_object_name(&object_name("karate", &name.parse().unwrap())));
        }
    }
}
