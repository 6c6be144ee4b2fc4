//! The product's own definitions, with the manifests that its users write.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Fixture, contains};
use serde_json::json;

const MANIFESTS: &str = "\
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
  copy: {maxFileSizeGiB: 1, timeoutSeconds: 300, concurrent: 1, maxFiles: 100, perDay: 10}
  backup: {maxSizeGiB: 10, retentionDays: 7, perDay: 2}
  storage: {sizeGiB: 50, type: gp3, iops: 3000, throughputMiBps: 125, autogrow: {atPercent: 80, maxGiB: 1024}}
  scaling: {minNodes: 0, maxNodes: 10}
  rollout: {canary: 1, failureThreshold: \"5%\", budgets: [{nodes: \"10%\", schedule: \"0 2 * * *\", duration: 4h}]}
  apiRateMultiplier: 1.0
---
apiVersion: graphplane.dev/v1alpha1
kind: Graph
metadata: {name: karate, namespace: default}
spec:
  tier: ladybug-standard
  schema:
    type: custom
    ddl: |
      CREATE NODE TABLE Member(identifier INT64 PRIMARY KEY, club STRING);
      CREATE REL TABLE KNOWS(FROM Member TO Member, weight DOUBLE);
  storage: {sizeGiB: 10}
  deletionPolicy: Snapshot
---
apiVersion: graphplane.dev/v1alpha1
kind: Replica
metadata: {name: karate-readers, namespace: default}
spec: {graph: karate, replicas: 2, minReplicas: 2, maxReplicas: 10, publish: {onChange: true}, refresh: {maxUnavailable: 1}}
";

#[tokio::test]
async fn the_manifests_of_the_design() {
    let mut f = Fixture::with(|config| config.with_crds(graphplane_crds::all_crds())).await;
    f.serve().await;
    for crd in graphplane_crds::all_crds() {
        let name = crd.metadata.name.unwrap();
        let stored = f
            .get(&format!(
                "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
            ))
            .await;
        assert_eq!(
            stored["status"]["acceptedNames"]["kind"],
            json!(crd.spec.names.kind),
            "{name}"
        );
    }
    let strict = ["apply", "--validate=strict", "-f", "-"];
    let applied = f.kubectl_with(&strict, MANIFESTS).await.ok();
    for object in [
        "tier.graphplane.dev/ladybug-standard",
        "graph.graphplane.dev/karate",
        "replica.graphplane.dev/karate-readers",
    ] {
        contains(&applied, &format!("{object} created"));
    }
    let again = f.kubectl_with(&strict, MANIFESTS).await.ok();
    assert_eq!(again.matches("unchanged").count(), 3, "{again}");
    let server_side = f
        .kubectl_with(&["apply", "--server-side", "--force-conflicts", "-f", "-"], MANIFESTS)
        .await
        .ok();
    assert_eq!(server_side.matches("serverside-applied").count(), 3, "{server_side}");
    contains(&f.kubectl_ok(&["get", "graphplane", "-A"]).await, "karate");
    contains(
        &f.kubectl_ok(&["get", "gr,gt,rep", "-o", "wide"]).await,
        "ladybug-standard",
    );
    contains(
        &f.kubectl_ok(&["explain", "graph.spec.deletionPolicy"]).await,
        "Snapshot",
    );
    f.kubectl_ok(&["scale", "rep/karate-readers", "--replicas=3"]).await;
    let replica = f
        .get("/apis/graphplane.dev/v1alpha1/namespaces/default/replicas/karate-readers")
        .await;
    assert_eq!(replica["spec"]["replicas"], 3);
    let smaller = f
        .kubectl_with(
            &["apply", "-f", "-"],
            &MANIFESTS.replace("{sizeGiB: 10}", "{sizeGiB: 5}"),
        )
        .await;
    assert_ne!(smaller.code, 0, "storage only grows");
    contains(&smaller.err, "spec.storage");
    f.kubectl_ok(&["delete", "graph", "karate"]).await;
}
