//! Tasks of a node belong to several tenants: each sees those of its graphs.

use crate::problem::{Problem, kind};
use crate::query::UrlQuery;
use axum::body::{Body, to_bytes};
use axum::response::Response;
use graphplane_crds::ids::GraphId;
use http::{StatusCode, header};
use serde_json::Value;

const LARGEST_LIST: usize = 8 << 20;

/// Whether a task is about a graph or one of its subgraphs: ids have the form `<kind>_<graph>[_<more>]_<8 hex digits>`.
pub(super) fn belongs(task: &str, graph: &GraphId) -> bool {
    let mut parts = task.split('_');
    parts.next().is_some_and(|kind| !kind.is_empty()) && parts.next() == Some(graph.as_str()) && parts.next().is_some()
}

/// The agent's path for all its tasks: the limit of a client counts only the client's own.
pub(super) fn everything(query: Option<&str>) -> String {
    let query = UrlQuery::parse(query);
    let mut text = url::form_urlencoded::Serializer::for_suffix("/tasks?limit=1000".to_owned(), "/tasks?".len());
    for name in ["status", "task_type"] {
        if let Some(value) = query.get(name) {
            text.append_pair(name, value);
        }
    }
    text.finish()
}

/// How many tasks a client asks for.
pub(super) fn limit(query: Option<&str>) -> Result<usize, Problem> {
    Ok(UrlQuery::parse(query).number("limit", 1..=1000)?.unwrap_or(100) as usize)
}

/// A node's list of tasks, reduced to the newest ones of a graph.
pub(super) async fn only_of(response: Response, graph: &GraphId, limit: usize) -> Result<Response, Problem> {
    if response.status() != StatusCode::OK {
        return Ok(response);
    }
    let unusable = |cause: String| {
        tracing::warn!(cause, "a node's list of tasks is not usable");
        Problem::new(&kind::UPSTREAM, "the node's list of tasks cannot be read")
    };
    let (mut parts, body) = response.into_parts();
    let bytes = to_bytes(body, LARGEST_LIST)
        .await
        .map_err(|error| unusable(error.to_string()))?;
    let mut list: Value = serde_json::from_slice(&bytes).map_err(|error| unusable(error.to_string()))?;
    let items = list
        .as_array_mut()
        .ok_or_else(|| unusable("it is not an array".to_owned()))?;
    items.retain(|task| task["task_id"].as_str().is_some_and(|id| belongs(id, graph)));
    items.truncate(limit);
    parts.headers.remove(header::CONTENT_LENGTH);
    Ok(Response::from_parts(parts, Body::from(list.to_string())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    const GRAPH: &str = "kg0123456789abcdef";

    #[test]
    fn a_task_belongs_to_the_graph_in_its_second_part() {
        let graph: GraphId = GRAPH.parse().unwrap();
        for own in [
            "ingestion_kg0123456789abcdef_Airport_1a2b3c4d",
            "backup_kg0123456789abcdef_1a2b3c4d",
            "staging_kg0123456789abcdef_dev_T_1a2b3c4d",
            "vector_kg0123456789abcdef_build_T_1a2b3c4d",
        ] {
            assert!(belongs(own, &graph), "{own}");
        }
        for other in [
            "ingestion_kgffffffffffffffff_kg0123456789abcdef_1a2b3c4d",
            "ingestion_kg0123456789abcdef0_Airport_1a2b3c4d",
            "kg0123456789abcdef_1a2b3c4d",
            "_kg0123456789abcdef_1",
            "ingestion_kg0123456789abcdef",
            "",
        ] {
            assert!(!belongs(other, &graph), "{other}");
        }
    }

    #[test]
    fn filters_pass_and_the_limit_stays_here() {
        let query = Some("status=running&limit=5&namespace=x&other=1");
        assert_eq!(everything(query), "/tasks?limit=1000&status=running");
        assert_eq!(limit(query).unwrap(), 5);
        assert!(limit(Some("limit=0")).is_err());
    }

    #[tokio::test]
    async fn a_list_keeps_only_the_graphs_tasks() {
        let list = json!([
            {"task_id": format!("backup_{GRAPH}_00000000")}, {"task_id": "backup_kgffffffffffffffff_00000000"}, {"x": 1},
        ]);
        let response = Response::builder()
            .header("content-length", "999")
            .body(Body::from(list.to_string()))
            .unwrap();
        let reduced = only_of(response, &GRAPH.parse().unwrap(), 100).await.unwrap();
        assert!(!reduced.headers().contains_key("content-length"));
        let bytes = to_bytes(reduced.into_body(), 1000).await.unwrap();
        let list: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(list, json!([{"task_id": format!("backup_{GRAPH}_00000000")}]));
    }
}
