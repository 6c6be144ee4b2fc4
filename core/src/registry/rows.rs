//! What the rows say. Names of attributes and words of states are those that clients of the existing system know.

use super::{Key, Table};
use graphplane_crds::graph::{GraphPhase, SchemaType};
use graphplane_crds::node::{NodePhase, NodeRole};
use graphplane_crds::volume::VolumeState;
use graphplane_crds::{Graph, GraphNode, GraphVolume, Tier};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `instance_id` of what is on no machine at present.
pub const UNATTACHED: &str = "unattached";
/// `backend_type` of everything here.
pub const BACKEND: &str = "ladybug";

/// Whose row it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Identity of the cluster: several may share the tables.
    pub cluster: String,
    /// UID of the object.
    pub uid: String,
    /// Its name, or `<namespace>/<name>`, for people.
    pub object: String,
}

impl Owner {
    fn of(cluster: &str, metadata: &ObjectMeta) -> Option<Self> {
        let name = metadata.name.as_deref()?;
        let object = match &metadata.namespace {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name.to_owned(),
        };
        Some(Self {
            cluster: cluster.to_owned(),
            uid: metadata.uid.clone()?,
            object,
        })
    }
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRow {
    /// Key: identity of the machine at its provider.
    pub instance_id: String,
    /// Whose row it is.
    #[serde(flatten)]
    pub owner: Owner,
    /// `writer`, `shared_master` or `shared_replica`.
    pub node_type: String,
    /// Always `ladybug`.
    pub backend_type: String,
    /// `initializing`, `healthy`, `unhealthy` or `terminating`; graphs are placed on healthy ones only.
    pub status: String,
    /// Name of the tier.
    pub cluster_tier: String,
    /// Its zone.
    pub availability_zone: String,
    /// Its type, where the provider has types.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<String>,
    /// Host of its agent, once it has registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_ip: Option<String>,
    /// URL of its agent, once it has registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_url: Option<String>,
    /// Epoch under which it serves.
    pub epoch: u64,
    /// Graphs on it.
    pub database_count: u32,
    /// Graphs that it takes.
    pub max_databases: u32,
    /// What is free of that, in percent.
    pub available_capacity_pct: u32,
    /// The graph that a replica serves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared_repositories: Vec<String>,
    /// When its object was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
}

/// A graph, once it has a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphRow {
    /// Key: the graph's id.
    pub graph_id: String,
    /// Whose row it is.
    #[serde(flatten)]
    pub owner: Owner,
    /// The tenant; `shared_<id>` of a shared repository.
    pub entity_id: String,
    /// `entity`, `shared` or `generic`.
    pub graph_type: String,
    /// Always `ladybug`.
    pub backend_type: String,
    /// Name of the tier.
    pub cluster_tier: String,
    /// `creating`, `active`, `suspended`, `unavailable`, `failed` or `pending_deletion`.
    pub status: String,
    /// The machine that it is on, or `unattached`.
    pub instance_id: String,
    /// Name of the GraphNode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Host of the machine's agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_ip: Option<String>,
    /// URL of the machine's agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_url: Option<String>,
    /// Epoch under which that agent serves; calls that carry an older one are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// URLs that answer reads beside the writer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read_endpoints: Vec<String>,
    /// Zone of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    /// Size of the database, in MB.
    pub database_size_mb: u64,
    /// When its object was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
}

/// A disk, once the provider has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRow {
    /// Key: identity of the disk at its provider.
    pub volume_id: String,
    /// Whose row it is.
    #[serde(flatten)]
    pub owner: Owner,
    /// The machine that it is attached to, or `unattached`.
    pub instance_id: String,
    /// Its zone.
    pub availability_zone: String,
    /// Name of the tier.
    pub tier: String,
    /// `creating`, `available`, `attaching`, `attached`, `expanding`, `optimizing`, `detaching` or `failed`.
    pub status: String,
    /// Databases on it.
    pub databases: Vec<String>,
    /// The database on it, where there is exactly one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_id: Option<String>,
    /// Its size.
    pub size_gb: u32,
    /// Epoch of the newest attachment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// When its object was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
}

/// A row of any table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// Of a machine.
    Instance(InstanceRow),
    /// Of a graph.
    Graph(GraphRow),
    /// Of a disk.
    Volume(VolumeRow),
}

impl Row {
    /// Its table and key.
    pub fn key(&self) -> Key {
        match self {
            Self::Instance(row) => (Table::Instances, row.instance_id.clone()),
            Self::Graph(row) => (Table::Graphs, row.graph_id.clone()),
            Self::Volume(row) => (Table::Volumes, row.volume_id.clone()),
        }
    }

    /// Whose row it is.
    pub fn owner(&self) -> &Owner {
        match self {
            Self::Instance(row) => &row.owner,
            Self::Graph(row) => &row.owner,
            Self::Volume(row) => &row.owner,
        }
    }

    /// Its attributes, as a JSON object.
    ///
    /// # Errors
    /// None that a row of these types can cause.
    pub fn attributes(&self) -> Result<Value, serde_json::Error> {
        match self {
            Self::Instance(row) => serde_json::to_value(row),
            Self::Graph(row) => serde_json::to_value(row),
            Self::Volume(row) => serde_json::to_value(row),
        }
    }

    /// The row that attributes of a table say; attributes that are not known are passed over.
    ///
    /// # Errors
    /// When one is missing or of another type.
    pub fn read(table: Table, attributes: Value) -> Result<Self, serde_json::Error> {
        match table {
            Table::Instances => serde_json::from_value(attributes).map(Self::Instance),
            Table::Graphs => serde_json::from_value(attributes).map(Self::Graph),
            Table::Volumes => serde_json::from_value(attributes).map(Self::Volume),
        }
    }
}

fn created(metadata: &ObjectMeta) -> Option<String> {
    metadata.creation_timestamp.as_ref().map(|time| time.0.to_string())
}

/// Identity of a node's machine: the last part of its provider id.
pub fn instance_id(node: &GraphNode) -> Option<&str> {
    let id = node.status.as_ref()?.provider_id.as_deref()?;
    id.rsplit('/').next().filter(|id| !id.is_empty())
}

/// URL of a node's agent, if it registered under the node's present epoch.
pub fn endpoint(node: &GraphNode) -> Option<&str> {
    let status = node.status.as_ref()?;
    let registration = status.registration.as_ref().filter(|r| Some(r.epoch) == status.epoch)?;
    Some(&registration.address)
}

/// Host of a URL, without brackets.
fn host(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit('@').next()?;
    let host = match authority.strip_prefix('[') {
        Some(address) => address.split(']').next()?,
        None => authority.split(':').next()?,
    };
    (!host.is_empty()).then(|| host.to_owned())
}

/// The row of a node; none before it has a machine.
pub fn of_node(cluster: &str, node: &GraphNode, tier: Option<&Tier>) -> Option<Row> {
    let status = node.status.as_ref()?;
    let url = endpoint(node);
    let databases = status.allocated.map_or(0, |a| a.databases);
    let registered = status.registration.as_ref().map_or(0, |r| r.capacity.databases);
    let most = match &node.spec.replica {
        Some(_) => 0,
        None => tier.map_or(registered, |tier| tier.spec.databases_per_node),
    };
    let free = u64::from(most.saturating_sub(databases)) * 100 / u64::from(most.max(1));
    let phase = match node.metadata.deletion_timestamp {
        Some(_) => NodePhase::Terminating,
        None => status.phase.unwrap_or_default(),
    };
    Some(Row::Instance(InstanceRow {
        instance_id: instance_id(node)?.to_owned(),
        owner: Owner::of(cluster, &node.metadata)?,
        node_type: match node.spec.role {
            NodeRole::Writer => "writer",
            NodeRole::Shared => "shared_master",
            NodeRole::Replica => "shared_replica",
        }
        .to_owned(),
        backend_type: BACKEND.to_owned(),
        status: match phase {
            NodePhase::Pending | NodePhase::Starting => "initializing",
            NodePhase::Ready => "healthy",
            NodePhase::Lost => "unhealthy",
            NodePhase::Draining | NodePhase::Terminating => "terminating",
        }
        .to_owned(),
        cluster_tier: node.spec.tier.clone(),
        availability_zone: node.spec.zone.clone(),
        instance_type: node.spec.instance_type.clone(),
        private_ip: url.and_then(host),
        endpoint_url: url.map(str::to_owned),
        epoch: status.epoch.unwrap_or_default().0,
        database_count: databases,
        max_databases: most,
        available_capacity_pct: u32::try_from(free).unwrap_or(100),
        shared_repositories: node.spec.replica.iter().map(|r| r.graph_id.to_string()).collect(),
        created_at: created(&node.metadata),
    }))
}

/// The row of a graph; none before it has its id, which it gets together with its place. `node` is the one that its status
/// names, if there is one of that name; `read_endpoints` are URLs that serve its seeds.
pub fn of_graph(
    cluster: &str,
    graph: &Graph,
    node: Option<&GraphNode>,
    mut read_endpoints: Vec<String>,
) -> Option<Row> {
    let status = graph.status.as_ref()?;
    let id = status.graph_id.as_ref()?;
    let machine = node.and_then(|node| Some((node, instance_id(node)?)));
    let url = node.and_then(endpoint);
    read_endpoints.sort();
    read_endpoints.dedup();
    let phase = match graph.metadata.deletion_timestamp {
        Some(_) => GraphPhase::Deleting,
        None => status.phase.unwrap_or_default(),
    };
    let bytes = status.sizes.as_ref().map_or(0, |s| s.database_bytes);
    Some(Row::Graph(GraphRow {
        graph_id: id.to_string(),
        owner: Owner::of(cluster, &graph.metadata)?,
        entity_id: match id.is_repository() {
            true => format!("shared_{id}"),
            false => graph.metadata.namespace.clone()?,
        },
        graph_type: match graph.spec.schema.type_ {
            SchemaType::Entity => "entity",
            SchemaType::Shared => "shared",
            SchemaType::Custom => "generic",
        }
        .to_owned(),
        backend_type: BACKEND.to_owned(),
        cluster_tier: graph.spec.tier.clone(),
        status: match phase {
            GraphPhase::Pending | GraphPhase::Provisioning => "creating",
            GraphPhase::Ready => "active",
            GraphPhase::Suspended => "suspended",
            GraphPhase::Unavailable => "unavailable",
            GraphPhase::Failed => "failed",
            GraphPhase::Deleting => "pending_deletion",
        }
        .to_owned(),
        instance_id: machine.map_or(UNATTACHED, |(_, id)| id).to_owned(),
        node: status.node.clone(),
        private_ip: url.and_then(host),
        endpoint_url: url.map(str::to_owned),
        epoch: url.and_then(|_| node?.status.as_ref()?.epoch).map(|e| e.0),
        read_endpoints,
        availability_zone: machine.map(|(node, _)| node.spec.zone.clone()),
        database_size_mb: u64::try_from(bytes).unwrap_or_default() / (1024 * 1024),
        created_at: created(&graph.metadata),
    }))
}

/// The row of a volume; none before the provider has made it. `node` is the one that it is attached to.
pub fn of_volume(cluster: &str, volume: &GraphVolume, node: Option<&GraphNode>) -> Option<Row> {
    let status = volume.status.as_ref()?;
    let size = status.size_gib.unwrap_or(volume.spec.size_gib);
    Some(Row::Volume(VolumeRow {
        volume_id: status.volume_id.clone().filter(|id| !id.is_empty())?,
        owner: Owner::of(cluster, &volume.metadata)?,
        instance_id: node.and_then(instance_id).unwrap_or(UNATTACHED).to_owned(),
        availability_zone: volume.spec.zone.clone(),
        tier: volume.spec.tier.clone(),
        status: match status.state {
            None | Some(VolumeState::Creating) => "creating",
            Some(VolumeState::Available) => "available",
            Some(VolumeState::Attaching) => "attaching",
            Some(VolumeState::InUse) => "attached",
            Some(VolumeState::Modifying) => "expanding",
            Some(VolumeState::Optimizing) => "optimizing",
            Some(VolumeState::Detaching) => "detaching",
            Some(VolumeState::Error) => "failed",
        }
        .to_owned(),
        databases: status.databases.clone(),
        database_id: match status.databases.as_slice() {
            [only] => Some(only.clone()),
            _ => None,
        },
        size_gb: size.0,
        epoch: status.epoch.map(|e| e.0),
        created_at: created(&volume.metadata),
    }))
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
