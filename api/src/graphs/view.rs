//! A graph as answers show it.

use super::effective_id;
use graphplane_crds::Graph;
use graphplane_crds::conditions;
use graphplane_crds::graph::{BackupPolicy, DeletionPolicy, GraphPhase, GraphSchema, GraphStorage, LastBackup, Sizes};
use graphplane_crds::quantities::Epoch;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GraphView {
    /// The graph id; good in every path that takes a graph, beside the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Name of the object.
    pub name: String,
    /// The tenant.
    pub namespace: String,
    /// Name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// What the graph is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Name of the tier.
    pub tier: String,
    /// Whether it answers queries.
    pub ready: bool,
    /// The state in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<GraphPhase>,
    /// The tables that it began with.
    pub schema: GraphSchema,
    /// How much disk it may take.
    pub storage: GraphStorage,
    /// When backups are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupPolicy>,
    /// What happens to the data when it is deleted.
    pub deletion_policy: DeletionPolicy,
    /// Whether it is closed on purpose.
    pub suspended: bool,
    /// The node that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// URL of that node's agent, for callers inside of the network that have its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Epoch of that agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// URLs that answer reads beside it; in the description of one graph only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read_endpoints: Vec<String>,
    /// How large it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sizes: Option<Sizes>,
    /// How many subgraphs it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subgraphs: Option<u32>,
    /// The newest complete backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<LastBackup>,
    /// The state in words for machines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Labels that are not the platform's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// When it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// When its deletion was asked for; absent while it is to stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleting_since: Option<Time>,
}

impl GraphView {
    /// The graph as its object says.
    pub(crate) fn of(graph: &Graph) -> Self {
        let status = graph.status.clone().unwrap_or_default();
        let spec = &graph.spec;
        Self {
            id: effective_id(graph).map(String::from),
            name: graph.name_any(),
            namespace: graph.namespace().unwrap_or_default(),
            display_name: spec.display_name.clone(),
            description: spec.description.clone(),
            tier: spec.tier.clone(),
            ready: conditions::is_true(&status.conditions, conditions::READY),
            phase: status.phase,
            schema: spec.schema.clone(),
            storage: spec.storage.clone(),
            backup: spec.backup.clone(),
            deletion_policy: spec.deletion_policy,
            suspended: spec.suspended,
            node: status.node,
            endpoint: status.endpoint,
            epoch: status.epoch,
            read_endpoints: Vec::new(),
            sizes: status.sizes,
            subgraphs: status.subgraphs,
            last_backup: status.last_backup,
            conditions: status.conditions,
            labels: own_labels(graph.labels()),
            created_at: graph.creation_timestamp(),
            deleting_since: graph.metadata.deletion_timestamp.clone(),
        }
    }
}

/// Labels without those of the platform.
pub(crate) fn own_labels(labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    labels
        .iter()
        .filter(|(name, _)| !name.starts_with("graphplane.dev/"))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}
