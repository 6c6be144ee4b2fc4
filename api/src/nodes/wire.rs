//! What node agents send and get.

use crate::problem::{FieldProblem, clip};
use graphplane_crds::Tier;
use graphplane_crds::node::{EngineVersions, NodeResources};
use graphplane_crds::tier::{CopyLimits, Engine, Memory};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A node agent introduces itself. Sent with the one-time bootstrap token, or with the credential that it got for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegisterRequest {
    /// Name of the GraphNode.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// URL under which the agent is reached, without a path.
    #[schemars(length(min = 1, max = 512))]
    pub address: String,
    /// Identity of the machine as the agent sees it.
    #[schemars(length(min = 1, max = 128))]
    pub instance_id: String,
    /// Version of the agent.
    #[schemars(length(max = 64))]
    pub agent_version: String,
    /// Versions of its engines.
    #[serde(default)]
    pub engines: EngineVersions,
    /// What the machine has.
    #[serde(default)]
    pub capacity: NodeResources,
    /// Databases on its volume.
    #[serde(default)]
    pub databases: Vec<String>,
    /// The newest epoch that its volume has seen; 0 for a new volume.
    #[serde(default)]
    pub volume_epoch: u64,
    /// On AWS: the proof that it runs on the machine of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<MachineIdentity>,
}

/// What the metadata service of a machine on AWS says of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineIdentity {
    /// The instance identity document, byte for byte.
    #[schemars(length(max = 8192))]
    pub document: String,
    /// Its signature in base64, `/latest/dynamic/instance-identity/signature`.
    #[schemars(length(max = 2048))]
    pub signature: String,
}

/// The control plane takes the agent in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegisterResponse {
    /// Name of the GraphNode.
    pub node: String,
    /// Token of this node from now on; absent when it registered with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// Epoch under which it may write.
    pub epoch: u64,
    /// It may write for so long after it began to register or renew; seconds.
    pub lease_duration_seconds: u32,
    /// It should renew so often; seconds.
    pub renew_interval_seconds: u32,
    /// Key that callers of the agent present.
    pub api_key: String,
    /// `writer`, `shared` or `replica`.
    pub role: String,
    /// Figures of its tier.
    pub settings: NodeSettings,
}

/// A node agent renews its lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseRequest {
    /// The epoch that it holds.
    pub epoch: u64,
    /// URL under which it is reached.
    #[schemars(length(min = 1, max = 512))]
    pub address: String,
    /// What the node uses.
    #[serde(flatten)]
    pub usage: Usage,
}

/// What a node uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Usage {
    /// Its databases.
    pub databases: Vec<DatabaseUsage>,
    /// Memory of the agent, in MiB.
    #[serde(rename = "memoryUsedMiB")]
    pub memory_used_mib: u64,
    /// Used space of the volume, in MiB.
    #[serde(rename = "diskUsedMiB")]
    pub disk_used_mib: u64,
    /// Free space of the volume, in MiB.
    #[serde(rename = "diskFreeMiB")]
    pub disk_free_mib: u64,
    /// Whether it refuses writes.
    pub fenced: bool,
    /// Queries that run.
    pub active_queries: u64,
}

/// What one database uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DatabaseUsage {
    /// Its id.
    pub id: String,
    /// The graph database, in bytes.
    pub size_bytes: u64,
    /// Its staging database, in bytes.
    pub staging_bytes: u64,
    /// Another number after everything that changed the graph, under one epoch.
    pub revision: u64,
}

/// The lease is renewed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseResponse {
    /// Epoch under which it may write.
    pub epoch: u64,
    /// It may write for so long after it began to renew; seconds.
    pub lease_duration_seconds: u32,
    /// It should renew so often; seconds.
    pub renew_interval_seconds: u32,
    /// It should end what runs; it will be removed.
    pub draining: bool,
    /// Figures of its tier, as they are now.
    pub settings: NodeSettings,
    /// Token of this node from its first use on. Until then the one in use stays good; keep both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

/// Figures of a tier that a node agent applies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSettings {
    /// Settings of the engines.
    pub engine: Engine,
    /// How memory is shared out.
    pub memory: Memory,
    /// Databases that the node takes.
    pub databases_per_node: u32,
    /// Limits of loading data.
    pub copy: CopyLimits,
}

impl NodeSettings {
    /// The figures of a tier.
    pub(crate) fn of(tier: &Tier) -> Self {
        let spec = tier.spec.clone();
        Self {
            engine: spec.engine,
            memory: spec.memory,
            databases_per_node: spec.databases_per_node,
            copy: spec.copy,
        }
    }
}

/// Everything that is wrong with a registration.
pub(crate) fn faults(request: &RegisterRequest) -> Vec<FieldProblem> {
    let mut faults = Vec::new();
    let mut check = |good: bool, field: &str, detail: &str, value: &str| {
        if !good {
            faults.push(FieldProblem::new(field, detail, Value::from(clip(value))));
        }
    };
    check(
        crate::names::is_object_name(&request.node),
        "node",
        "expected the name of a GraphNode",
        &request.node,
    );
    check(is_address(&request.address), "address", ADDRESS_RULE, &request.address);
    let instance = &request.instance_id;
    check(
        (1..=128).contains(&instance.len()),
        "instanceId",
        "expected 1 to 128 characters",
        instance,
    );
    check(
        request.agent_version.len() <= 64,
        "agentVersion",
        "expected at most 64 characters",
        &request.agent_version,
    );
    let engines = &request.engines;
    for (name, version) in [
        ("ladybug", &engines.ladybug),
        ("ladybugStorage", &engines.ladybug_storage),
        ("duckdb", &engines.duckdb),
    ] {
        check(
            version.len() <= 64,
            &format!("engines.{name}"),
            "expected at most 64 characters",
            version,
        );
    }
    const LARGEST: u32 = 1 << 30;
    for (name, size) in [
        ("memoryMiB", request.capacity.memory_mib.0),
        ("diskMiB", request.capacity.disk_mib.0),
    ] {
        check(
            size <= LARGEST,
            &format!("capacity.{name}"),
            "expected at most 1073741824",
            &size.to_string(),
        );
    }
    check(
        request.volume_epoch <= MAX_EPOCH,
        "volumeEpoch",
        "expected at most 9007199254740991",
        &request.volume_epoch.to_string(),
    );
    faults
}

/// Epochs are numbers that every JSON reader keeps exactly.
const MAX_EPOCH: u64 = 9_007_199_254_740_991;

/// What an address must be, in words.
pub(crate) const ADDRESS_RULE: &str = "expected a URL such as `http://10.0.0.7:8001`, without path, query and user";

/// Whether calls can be sent to an address.
pub(crate) fn is_address(address: &str) -> bool {
    let Ok(url) = url::Url::parse(address) else {
        return false;
    };
    address.len() <= 512
        && matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn request() -> RegisterRequest {
        serde_json::from_value(json!({
            "node": "standard-x7k2", "address": "http://127.0.0.1:41233", "instanceId": "local-1", "agentVersion": "0.1.0",
            "engines": {"ladybug": "0.22.1", "ladybugStorage": "49", "duckdb": "1.5.6"},
            "capacity": {"memoryMiB": 7168, "databases": 10, "diskMiB": 10000}, "databases": [], "volumeEpoch": 3,
        }))
        .unwrap()
    }

    #[test]
    fn a_good_registration_has_no_faults() {
        assert_eq!(faults(&request()), []);
    }

    #[test]
    fn every_fault_is_named_with_its_value() {
        let mut wrong = request();
        wrong.node = "../x".into();
        wrong.address = "ftp://127.0.0.1".into();
        wrong.instance_id = String::new();
        wrong.engines.duckdb = "1".repeat(65);
        wrong.volume_epoch = u64::MAX;
        let faults = faults(&wrong);
        let fields: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(
            fields,
            ["node", "address", "instanceId", "engines.duckdb", "volumeEpoch"]
        );
        assert_eq!(faults[1].value, Some(json!("ftp://127.0.0.1")));
    }

    #[test]
    fn addresses_are_plain() {
        for good in ["http://127.0.0.1:1", "https://node.example:8001/", "http://[::1]:8001"] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "",
            "127.0.0.1:1",
            "http://",
            "http://a/b",
            "http://u:p@a",
            "http://a?x",
            "http://a#x",
            "file:///etc",
        ] {
            assert!(!is_address(bad), "{bad}");
        }
    }

    #[test]
    fn a_renewal_carries_the_usage_flat() {
        let request: LeaseRequest = serde_json::from_value(json!({
            "epoch": 4, "address": "http://a", "databases": [{"id": "kg1", "sizeBytes": 123, "stagingBytes": 0}],
            "memoryUsedMiB": 80, "diskUsedMiB": 12, "diskFreeMiB": 9000, "fenced": false, "activeQueries": 0,
        }))
        .unwrap();
        assert_eq!(
            (request.usage.disk_free_mib, request.usage.databases[0].size_bytes),
            (9000, 123)
        );
    }
}
