//! Bodies of requests that write graphs.

use crate::problem::{FieldProblem, Problem};
use graphplane_crds::Graph;
use graphplane_crds::annotations::GRAPH_ID_LABEL;
use graphplane_crds::graph::{BackupPolicy, Bootstrap, DeletionPolicy, GraphSchema, GraphSpec, GraphStorage};
use graphplane_crds::ids::GraphId;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A graph to create.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GraphCreate {
    /// Name of the object: lower-case letters, digits and `-`. Absent: the graph id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 50))]
    pub name: Option<String>,
    /// Name of the tier; `/v1/tiers` lists them.
    pub tier: String,
    /// Name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub display_name: Option<String>,
    /// What the graph is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// The tables that the graph begins with. `shared` is for admins.
    #[serde(default)]
    pub schema: GraphSchema,
    /// How much disk the graph may take.
    #[serde(default)]
    pub storage: GraphStorage,
    /// When backups are taken and how long they are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupPolicy>,
    /// What the graph is first filled from; absent: empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Bootstrap>,
    /// What happens to the data when the graph is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// Labels of the object.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl GraphCreate {
    /// The object, with a new graph id.
    pub(crate) fn into_object(self, namespace: &str) -> Result<Graph, Problem> {
        check_labels(self.labels.keys())?;
        let id = new_id().map_err(Problem::internal)?;
        let mut labels = self.labels;
        labels.insert(GRAPH_ID_LABEL.to_owned(), id.to_string());
        let metadata = ObjectMeta {
            name: Some(self.name.unwrap_or_else(|| id.to_string())),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels),
            ..ObjectMeta::default()
        };
        let shared = self.schema.type_ == graphplane_crds::graph::SchemaType::Shared;
        let spec = GraphSpec {
            tier: self.tier,
            // A repository keeps its name as its id.
            graph_id: (!shared).then_some(id),
            display_name: self.display_name,
            description: self.description,
            schema: self.schema,
            storage: self.storage,
            backup: self.backup,
            bootstrap: self.bootstrap,
            deletion_policy: self.deletion_policy,
            suspended: false,
            paused: false,
        };
        let mut graph = Graph {
            metadata,
            spec,
            status: None,
        };
        if shared {
            graph.metadata.labels.get_or_insert_default().remove(GRAPH_ID_LABEL);
        }
        Ok(graph)
    }
}

/// `kg` and 32 random hex digits.
fn new_id() -> Result<GraphId, graphplane_crds::ids::InvalidName> {
    format!("kg{}", uuid::Uuid::new_v4().simple()).parse()
}

/// Labels of the platform are the platform's.
fn check_labels<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), Problem> {
    let reserved = names.filter(|name| {
        name.split('/')
            .next()
            .is_some_and(|domain| domain.ends_with("graphplane.dev"))
    });
    let errors: Vec<_> = reserved
        .map(|name| FieldProblem::new(format!("labels.{name}"), "labels of graphplane.dev cannot be set", None))
        .collect();
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Problem::fields(errors))
    }
}

/// A change of a graph: a JSON merge patch. What is absent stays; `null` removes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GraphPatch {
    /// Another tier: the graph moves to a machine of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// Name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub display_name: Option<String>,
    /// What the graph is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// `ddl` may get more statements at its end; those that were applied must stay as they are. `type` cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<GraphSchema>,
    /// May grow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<GraphStorage>,
    /// When backups are taken and how long they are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupPolicy>,
    /// What happens to the data when the graph is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// Closes the database; its data stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<bool>,
    /// Stops reconciling; the graph goes on serving.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// Labels to set, or to remove with `null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, Option<String>>>,
}

impl GraphPatch {
    /// The patch of the object; `raw` is this as it was sent, in which `null` still differs from absent.
    pub(crate) fn merge_patch(&self, raw: &Value) -> Result<Value, Problem> {
        check_labels(self.labels.iter().flat_map(|labels| labels.keys()))?;
        let mut spec: Map<String, Value> = raw.as_object().cloned().unwrap_or_default();
        let labels = spec.remove("labels");
        if spec.is_empty() && labels.is_none() {
            return Err(Problem::field("$", "the change is empty", None));
        }
        let mut patch = json!({ "spec": spec });
        if let Some(labels) = labels {
            patch["metadata"] = json!({ "labels": labels });
        }
        Ok(patch)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::body::Body;

    fn create(body: Value) -> Result<Graph, Problem> {
        Body::<GraphCreate>::parse(body.to_string().as_bytes())?
            .content
            .into_object("ns")
    }

    #[test]
    fn a_new_graph_has_an_id_of_its_own() {
        let graph = create(json!({"tier": "t"})).unwrap();
        let id = graph.spec.graph_id.clone().unwrap();
        assert_eq!(id.as_str().len(), 34);
        assert_eq!(graph.metadata.name.as_deref(), Some(id.as_str()));
        assert_eq!(graph.metadata.labels.unwrap()[GRAPH_ID_LABEL], id.to_string());
        let other = create(json!({"tier": "t", "name": "karate"})).unwrap();
        assert_eq!(other.metadata.name.as_deref(), Some("karate"));
        assert_ne!(other.spec.graph_id, Some(id));
    }

    #[test]
    fn a_repository_has_its_name_as_its_id() {
        let graph = create(json!({"tier": "t", "name": "sec", "schema": {"type": "shared"}})).unwrap();
        assert_eq!(graph.spec.graph_id, None);
        assert!(graph.metadata.labels.unwrap().is_empty());
    }

    #[test]
    fn clients_choose_neither_ids_nor_the_platforms_labels() {
        assert!(create(json!({"tier": "t", "graphId": "kg0123456789abcdef"})).is_err());
        assert!(create(json!({"tier": "t", "labels": {"graphplane.dev/graph-id": "kg0123456789abcdef"}})).is_err());
        assert!(create(json!({"tier": "t", "labels": {"team": "a"}})).is_ok());
    }

    #[test]
    fn a_patch_keeps_null_apart_from_absent() {
        let body = json!({"description": null, "suspended": true, "labels": {"team": null}});
        let patch = Body::<GraphPatch>::parse(body.to_string().as_bytes()).unwrap();
        let merge = patch.content.merge_patch(&patch.raw).unwrap();
        assert_eq!(
            merge,
            json!({"spec": {"description": null, "suspended": true}, "metadata": {"labels": {"team": null}}})
        );
        let empty = Body::<GraphPatch>::parse(b"{}").unwrap();
        assert!(empty.content.merge_patch(&empty.raw).is_err());
        assert!(Body::<GraphPatch>::parse(br#"{"graphId": "kg0123456789abcdef"}"#).is_err());
    }
}
