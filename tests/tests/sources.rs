//! Through the gateway nobody has files read that only the nodes may read.
#![allow(missing_docs, clippy::unwrap_used)]

use graphplane_tests::Plane;
use serde_json::json;

const GRAPH: &str = "
apiVersion: graphplane.dev/v1alpha1
kind: Tier
metadata: {name: small}
spec:
  memory: {nodeMiB: 1024, perDatabaseMiB: 256}
  databasesPerNode: 2
  storage: {sizeGiB: 10}
  scaling: {minNodes: 0, maxNodes: 2}
---
apiVersion: graphplane.dev/v1alpha1
kind: Graph
metadata: {name: g1, namespace: default}
spec:
  tier: small
  schema: {type: custom, ddl: 'CREATE NODE TABLE N(id INT64 PRIMARY KEY);'}
  deletionPolicy: Delete
";

#[test]
fn tenants_name_no_files_of_the_platform() {
    let plane = Plane::start();
    plane.apply_until_ready(GRAPH, "g1");
    let objects = format!("file://{}/**", plane.dir().join("objects").display());
    let table = |address: &str| json!({"table_name": "N", "s3_pattern": address});
    for (path, body, field) in [
        ("tables", table("s3://platform/backups/**"), "s3_pattern"),
        ("tables", table(&objects), "s3_pattern"),
        (
            "tables/N/insert",
            json!({"s3_pattern": "s3://platform/x"}),
            "s3_pattern",
        ),
        ("copy", table("s3://platform/x"), "s3_pattern"),
        (
            "ingest",
            json!({"table_name": "N", "file_path": "/etc/passwd"}),
            "file_path",
        ),
        (
            "ingest",
            json!({"table_name": "N", "file_path": "s3://platform/x"}),
            "file_path",
        ),
        (
            "ingest",
            json!({"mode": "async", "pipeline_run_id": "r", "bucket": "platform", "files": ["nodes/N/x.parquet"]}),
            "files",
        ),
    ] {
        let answer = plane
            .rest("POST", &format!("/v1/graphs/g1/{path}"), Some(&body))
            .expect(403);
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.starts_with(&format!("{field}: ")), "{path} {body}: {detail}");
    }
    let credentials = json!({
        "aws_access_key_id": "a", "aws_secret_access_key": "s", "endpoint_url": "http://169.254.169.254/latest",
    });
    let body = json!({"table_name": "N", "s3_pattern": "s3://b/x", "s3_credentials": credentials});
    plane.rest("POST", "/v1/graphs/g1/tables", Some(&body)).expect(403);
    let tasks = plane.rest("GET", "/v1/graphs/g1/tasks", None).expect(200);
    assert_eq!(tasks.json().as_array().map(Vec::len), Some(0), "{}", tasks.body);
}
