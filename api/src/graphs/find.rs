//! Finding a graph by name or id, within one tenant.

use crate::names::is_object_name;
use crate::problem::{Problem, clip};
use crate::state::App;
use graphplane_crds::Graph;
use graphplane_crds::annotations::GRAPH_ID_LABEL;
use graphplane_crds::graph::SchemaType;
use graphplane_crds::ids::GraphId;
use kube::ResourceExt;
use kube::api::ListParams;

/// The graph's identity: what the operator wrote, or what it will write.
pub(crate) fn effective_id(graph: &Graph) -> Option<GraphId> {
    if let Some(id) = graph.status.as_ref().and_then(|status| status.graph_id.clone()) {
        return Some(id);
    }
    if let Some(id) = graph.spec.graph_id.clone() {
        return Some(id);
    }
    if graph.spec.schema.type_ == SchemaType::Shared {
        return graph.name_any().parse().ok();
    }
    graph.uid().map(|uid| GraphId::from_uid(&uid))
}

/// Reads the graph of a tenant that `text` names, by its id or its name, from the API server.
///
/// A graph of another tenant does not exist, by whatever it is named.
pub(crate) async fn find(app: &App, namespace: &str, text: &str) -> Result<Graph, Problem> {
    let missing = || Problem::not_found(format!("graph `{}` in namespace `{namespace}`", clip(text)));
    if !is_object_name(text) {
        return Err(missing());
    }
    if let Ok(id) = text.parse::<GraphId>()
        && !id.is_repository()
        && let Some(graph) = find_by_id(app, namespace, &id).await?
    {
        return Ok(graph);
    }
    app.api::<Graph>(namespace).get_opt(text).await?.ok_or_else(missing)
}

async fn find_by_id(app: &App, namespace: &str, id: &GraphId) -> Result<Option<Graph>, Problem> {
    let api = app.api::<Graph>(namespace);
    let has_id = |graph: &Graph| effective_id(graph).as_ref() == Some(id);
    for cached in app.caches.graphs.find(id.as_str()) {
        if cached.namespace().as_deref() == Some(namespace)
            && let Some(graph) = api.get_opt(&cached.name_any()).await?.filter(has_id)
        {
            return Ok(Some(graph));
        }
    }
    // The cache may not have it yet: graphs of this API carry their id as a label, others in their status.
    let by_label = ListParams::default().labels(&format!("{GRAPH_ID_LABEL}={id}"));
    let by_status = ListParams::default().fields(&format!("status.graphId={id}"));
    for params in [by_label, by_status] {
        if let Some(graph) = api.list(&params).await?.items.into_iter().find(has_id) {
            return Ok(Some(graph));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn graph(spec: Value, status: Value) -> Graph {
        let metadata = json!({"name": "sec", "namespace": "ns", "uid": "3f2a9c1e-0b5d-4c6f-8a7e-112233445566"});
        serde_json::from_value(json!({
            "apiVersion": "graphplane.dev/v1alpha1", "kind": "Graph", "metadata": metadata, "spec": spec, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn the_status_counts_before_the_spec_and_the_spec_before_the_uid() {
        let id = |spec, status| effective_id(&graph(spec, status)).unwrap().to_string();
        let from_uid = "kg3f2a9c1e0b5d4c6f8a7e112233445566";
        assert_eq!(id(json!({"tier": "t"}), Value::Null), from_uid);
        assert_eq!(
            id(json!({"tier": "t", "schema": {"type": "shared"}}), Value::Null),
            "sec"
        );
        assert_eq!(
            id(json!({"tier": "t", "graphId": "kg00000000000000aa"}), Value::Null),
            "kg00000000000000aa"
        );
        let status = json!({"graphId": "kg00000000000000bb", "conditions": []});
        assert_eq!(
            id(json!({"tier": "t", "graphId": "kg00000000000000aa"}), status),
            "kg00000000000000bb"
        );
    }
}
