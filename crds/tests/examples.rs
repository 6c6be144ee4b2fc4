//! The manifests of the design parse into the types, keep what they say, and come back as they were.
#![allow(clippy::unwrap_used)]

use graphplane_crds::graph::{DeletionPolicy, SchemaType};
use graphplane_crds::quantities::{CountOrPercent, GiB, Limit, MiB};
use graphplane_crds::subgraph::SubgraphType;
use graphplane_crds::{Backup, BackupSchedule, Graph, GraphNode, GraphVolume, Replica, Subgraph, Tier};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const TIER: &str = r#"
apiVersion: graphplane.dev/v1alpha1
kind: Tier
metadata: {name: ladybug-standard}
spec:
  description: Dedicated entry tier
  instance: {types: [m7g.large], architecture: arm64, zones: []}
  memory: {nodeMiB: 7168, perDatabaseMiB: 716}
  databasesPerNode: 10
  maxSubgraphs: 3
  engine: {queryTimeoutSeconds: 30, maxQueryLength: 10000, chunkRows: 1000, connectionsPerDatabase: 10}
  copy: {maxFileSizeGiB: 1, timeoutSeconds: 300, concurrent: 1, maxFiles: 100, perDay: 10}      # -1: unlimited
  backup: {maxSizeGiB: 10, retentionDays: 7, perDay: 2}
  storage: {sizeGiB: 50, type: gp3, iops: 3000, throughputMiBps: 125, autogrow: {atPercent: 80, maxGiB: 1024}}
  scaling: {minNodes: 0, maxNodes: 10}
  rollout: {canary: 1, failureThreshold: "5%", budgets: [{nodes: "10%", schedule: "0 2 * * *", duration: 4h}]}
  apiRateMultiplier: 1.0
"#;

const GRAPH: &str = r"
apiVersion: graphplane.dev/v1alpha1
kind: Graph
metadata: {name: karate, namespace: default}
spec:
  tier: ladybug-standard
  schema:
    type: custom                       # entity | shared | custom
    ddl: |
      CREATE NODE TABLE Member(identifier INT64 PRIMARY KEY, club STRING);
      CREATE REL TABLE KNOWS(FROM Member TO Member, weight DOUBLE);
  storage: {sizeGiB: 10}
  deletionPolicy: Snapshot             # Retain | Snapshot | Delete
";

const SUBGRAPH: &str = r"
apiVersion: graphplane.dev/v1alpha1
kind: Subgraph
metadata: {name: karate-dev, namespace: default}
spec: {graph: karate, name: dev, type: static, forkParent: true}
";

const REPLICA: &str = r"
apiVersion: graphplane.dev/v1alpha1
kind: Replica
metadata: {name: sec-readers, namespace: default}
spec: {graph: sec, replicas: 2, minReplicas: 2, maxReplicas: 10, publish: {onChange: true}, refresh: {maxUnavailable: 1}}
";

const BACKUP: &str = r"
apiVersion: graphplane.dev/v1alpha1
kind: Backup
metadata: {name: karate-1, namespace: default}
spec: {graph: karate, method: Object}  # Object | VolumeSnapshot
";

const BACKUP_SCHEDULE: &str = r#"
apiVersion: graphplane.dev/v1alpha1
kind: BackupSchedule
metadata: {name: karate-nightly, namespace: default}
spec: {graph: karate, schedule: "0 3 * * *", retention: {days: 14, keepAtLeast: 3}}
"#;

const GRAPH_NODE: &str = r"
apiVersion: graphplane.dev/v1alpha1
kind: GraphNode
metadata: {name: ladybug-standard-0}
spec: {tier: ladybug-standard, role: writer, zone: local, volume: ladybug-standard-0}
";

const GRAPH_VOLUME: &str = r"
apiVersion: graphplane.dev/v1alpha1
kind: GraphVolume
metadata: {name: ladybug-standard-0}
spec: {tier: ladybug-standard, zone: local, sizeGiB: 50, snapshots: {schedule: '@daily', retentionDays: 7}}
";

/// Every value that the manifest holds stands in the object at the same place; the object may hold more (defaults).
fn holds(object: &Value, manifest: &Value, path: &str) {
    match manifest {
        Value::Object(map) => map
            .iter()
            .for_each(|(key, value)| holds(&object[key], value, &format!("{path}.{key}"))),
        Value::Array(items) => {
            assert_eq!(object.as_array().map(Vec::len), Some(items.len()), "{path}");
            items
                .iter()
                .enumerate()
                .for_each(|(i, value)| holds(&object[i], value, &format!("{path}[{i}]")));
        }
        value => assert_eq!(object, value, "{path}"),
    }
}

fn parse<K: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(text: &str) -> K {
    let object: K = serde_saphyr::from_str(text).unwrap();
    let manifest: Value = serde_saphyr::from_str(text).unwrap();
    let json = serde_json::to_value(&object).unwrap();
    holds(&json, &manifest, "");
    assert_eq!(serde_json::from_value::<K>(json).unwrap(), object, "JSON and back");
    let yaml = serde_saphyr::to_string(&object).unwrap();
    assert_eq!(serde_saphyr::from_str::<K>(&yaml).unwrap(), object, "YAML and back");
    object
}

#[test]
fn tier() {
    let tier: Tier = parse(TIER);
    assert_eq!(tier.spec.memory.node_mib, MiB(7168));
    assert_eq!(tier.spec.rollout.failure_threshold, CountOrPercent::Percent(5));
    assert_eq!(tier.spec.rollout.budgets[0].duration.as_deref(), Some("4h"));
    assert_eq!(tier.spec.copy.per_day, Limit(10));
}

#[test]
fn graph() {
    let graph: Graph = parse(GRAPH);
    assert_eq!(graph.spec.schema.type_, SchemaType::Custom);
    assert_eq!(graph.spec.schema.ddl.as_ref().map(|ddl| ddl.lines().count()), Some(2));
    assert_eq!(
        (graph.spec.storage.size_gib, graph.spec.deletion_policy),
        (GiB(10), DeletionPolicy::Snapshot)
    );
}

#[test]
fn subgraph_replica_and_backups() {
    let subgraph: Subgraph = parse(SUBGRAPH);
    assert!(subgraph.spec.fork_parent && subgraph.spec.type_ == SubgraphType::Static);
    let replica: Replica = parse(REPLICA);
    assert!(replica.spec.publish.on_change);
    let _: Backup = parse(BACKUP);
    let schedule: BackupSchedule = parse(BACKUP_SCHEDULE);
    assert_eq!(
        (schedule.spec.retention.days, schedule.spec.retention.keep_at_least),
        (14, 3)
    );
}

#[test]
fn nodes_and_volumes() {
    let _: GraphNode = parse(GRAPH_NODE);
    let _: GraphVolume = parse(GRAPH_VOLUME);
}

#[test]
fn a_share_of_a_rolling_refresh_may_be_a_percentage() {
    let text = REPLICA.replace("maxUnavailable: 1", "maxUnavailable: 25%");
    let replica: Replica = parse(&text);
    let json = serde_json::to_value(&replica.spec.refresh).unwrap();
    assert_eq!(json, serde_json::json!({"maxUnavailable": "25%"}));
}

#[test]
fn values_out_of_the_enumerations_do_not_parse() {
    for (text, from, to) in [
        (GRAPH, "type: custom", "type: other"),
        (GRAPH, "deletionPolicy: Snapshot", "deletionPolicy: snapshot"),
        (SUBGRAPH, "name: dev", "name: de-v"),
        (BACKUP, "method: Object", "method: Disk"),
        (TIER, "\"5%\"", "\"105%\""),
    ] {
        let wrong = text.replacen(from, to, 1);
        assert_ne!(wrong, text, "{from}");
        let parsed = match text {
            GRAPH => serde_saphyr::from_str::<Graph>(&wrong).map(|_| ()),
            SUBGRAPH => serde_saphyr::from_str::<Subgraph>(&wrong).map(|_| ()),
            BACKUP => serde_saphyr::from_str::<Backup>(&wrong).map(|_| ()),
            _ => serde_saphyr::from_str::<Tier>(&wrong).map(|_| ()),
        };
        assert!(parsed.is_err(), "{to}");
    }
}
