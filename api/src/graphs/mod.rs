//! `/v1/graphs`: graphs as resources.

pub(crate) mod find;
mod readers;
mod request;
mod view;

pub(crate) use find::{effective_id, find};
pub use request::{GraphCreate, GraphPatch};
pub use view::GraphView;

use crate::auth::{Editor, Role, Viewer, forbidden};
use crate::body::Body;
use crate::idempotency::Idempotency;
use crate::operations::accepted;
use crate::operations::id::{Target, Verb};
use crate::pagination::{Page, Paging, list_failed};
use crate::problem::Problem;
use crate::query::UrlQuery;
use crate::resources;
use crate::state::App;
use axum::extract::{Path, State};
use axum::response::Response;
use graphplane_crds::Graph;
use graphplane_crds::graph::SchemaType;
use http::{HeaderMap, Uri};
use kube::ResourceExt;

/// Creates a graph.
pub(crate) async fn create(
    State(app): State<App>,
    Editor(caller): Editor,
    query: UrlQuery,
    uri: Uri,
    headers: HeaderMap,
    Body { content, raw }: Body<GraphCreate>,
) -> Result<Response, Problem> {
    let dry_run = query.dry_run()?;
    let namespace = &caller.namespace;
    if content.schema.type_ == SchemaType::Shared && caller.role < Role::Admin {
        // A repository's id is its name, the same for all tenants, so that only the platform may give it away.
        return Err(forbidden(caller.role, Role::Admin));
    }
    let idempotency = Idempotency::of::<Graph>(&headers, namespace, uri.path(), &raw)?;
    let object = content.into_object(namespace)?;
    let created = resources::create(&app, namespace, object, idempotency.as_ref(), dry_run)
        .await
        .map_err(|problem| problem.with_values_of(&raw))?;
    if dry_run {
        return Ok(resources::with_etag(&created.object, GraphView::of(&created.object)));
    }
    Ok(accepted(Verb::Create, Target::Graph, &created.object, created.replayed))
}

/// Lists the tenant's graphs.
pub(crate) async fn list(
    State(app): State<App>,
    Viewer(caller): Viewer,
    query: UrlQuery,
) -> Result<Page<GraphView>, Problem> {
    let tier = query.get("tier").unwrap_or_default();
    if !tier.is_empty() && !crate::names::is_object_name(tier) {
        return Err(Problem::parameter("tier", "expected the name of a tier", tier));
    }
    let paging = Paging::from_query(&query, format!("graphs/{}/{tier}", caller.namespace))?;
    let mut params = paging.params();
    if !tier.is_empty() {
        params = params.fields(&format!("spec.tier={tier}"));
    }
    let found = app
        .api::<Graph>(&caller.namespace)
        .list(&params)
        .await
        .map_err(list_failed)?;
    Ok(paging.page(found, |graph| GraphView::of(&graph)))
}

/// Shows one graph, by name or id.
pub(crate) async fn get(
    State(app): State<App>,
    Viewer(caller): Viewer,
    Path(graph): Path<String>,
) -> Result<Response, Problem> {
    let graph = find(&app, &caller.namespace, &graph).await?;
    let view = GraphView {
        read_endpoints: readers::of(&app.caches, &graph),
        ..GraphView::of(&graph)
    };
    Ok(resources::with_etag(&graph, view))
}

/// Changes a graph.
pub(crate) async fn patch(
    State(app): State<App>,
    Editor(caller): Editor,
    Path(graph): Path<String>,
    query: UrlQuery,
    headers: HeaderMap,
    body: Body<GraphPatch>,
) -> Result<Response, Problem> {
    let dry_run = query.dry_run()?;
    let version = resources::if_match(&headers)?;
    let graph = find(&app, &caller.namespace, &graph).await?;
    let change = body.content.merge_patch(&body.raw)?;
    let api = app.api::<Graph>(&caller.namespace);
    let changed = resources::patch(&api, &graph.name_any(), change, version.as_deref(), dry_run)
        .await
        .map_err(|problem| problem.with_values_of(&body.raw))?;
    if dry_run {
        return Ok(resources::with_etag(&changed, GraphView::of(&changed)));
    }
    Ok(accepted(Verb::Update, Target::Graph, &changed, false))
}

/// Deletes a graph; its data is kept as the deletion policy says.
pub(crate) async fn delete(
    State(app): State<App>,
    Editor(caller): Editor,
    Path(graph): Path<String>,
    query: UrlQuery,
) -> Result<Response, Problem> {
    let dry_run = query.dry_run()?;
    let graph = find(&app, &caller.namespace, &graph).await?;
    resources::check_deletion(&graph, &format!("graph `{}`", graph.name_any()))?;
    resources::delete(&app.api::<Graph>(&caller.namespace), &graph, dry_run).await?;
    if dry_run {
        return Ok(resources::with_etag(&graph, GraphView::of(&graph)));
    }
    Ok(accepted(Verb::Delete, Target::Graph, &graph, false))
}
