//! Which files callers may have loaded: with the node's credentials, with their own, and from the node's disk.

use crate::fixture::{Agent, Answer, KEY, PEOPLE, parquet, parquet_at};
use crate::plane::{API_KEY, Bucket, Plane};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

const ONE: &str = "kg0000000000000001";
const TWO: &str = "kg0000000000000002";

/// A bucket with files of two graphs, of everybody, and of the platform.
async fn bucket() -> Bucket {
    let bucket = Bucket::start().await;
    for key in [
        "in/kg0000000000000001/Person.parquet",
        "in/kg0000000000000002/Person.parquet",
        "open/Person.parquet",
        "store/backups/kg0000000000000002/Person.parquet",
        "store/seeds/Person.parquet",
    ] {
        bucket.put(key, parquet("SELECT i AS identifier FROM range(7) t(i)"));
    }
    bucket
}

fn envs(bucket: &Bucket) -> [(&str, &str); 5] {
    [
        ("GRAPH_API_KEY", KEY),
        ("AWS_ENDPOINT_URL", bucket.url.as_str()),
        ("AWS_ACCESS_KEY_ID", "from-the-node"),
        ("AWS_SECRET_ACCESS_KEY", "node-secret"),
        ("AWS_REGION", "us-east-1"),
    ]
}

async fn launched(bucket: &Bucket, args: &[&str]) -> Agent {
    let agent = Agent::launch(TempDir::new().unwrap(), args, &envs(bucket)).await;
    for id in [ONE, TWO] {
        agent.database(id, PEOPLE).await;
    }
    agent
}

/// Every request that names a source.
fn requests(id: &str, address: &str) -> Vec<(String, &'static str, Value)> {
    let mut requests = vec![
        (
            format!("/databases/{id}/tables"),
            "s3_pattern",
            json!({"table_name": "Person", "s3_pattern": address}),
        ),
        (
            format!("/databases/{id}/tables"),
            "s3_pattern",
            json!({"table_name": "Person", "s3_pattern": [address]}),
        ),
        (
            format!("/databases/{id}/tables/Person/insert"),
            "s3_pattern",
            json!({"s3_pattern": address}),
        ),
        (
            format!("/databases/{id}/copy"),
            "s3_pattern",
            json!({"table_name": "Person", "s3_pattern": address}),
        ),
        (
            format!("/databases/{id}/ingest"),
            "file_path",
            json!({"table_name": "Person", "file_path": address}),
        ),
    ];
    if let Some((bucket, key)) = address.strip_prefix("s3://").and_then(|rest| rest.split_once('/')) {
        let run =
            json!({"mode": "async", "pipeline_run_id": "r", "table_name": "Person", "bucket": bucket, "files": [key]});
        requests.push((format!("/databases/{id}/ingest"), "files", run));
    }
    requests
}

#[tokio::test]
async fn the_nodes_credentials_are_used_where_they_were_allowed() {
    let bucket = bucket().await;
    let args = [
        "--source",
        "s3://lake/in/{graph}",
        "--source",
        "s3://lake/open",
        "--object-store",
        "s3://lake/store",
    ];
    let agent = launched(&bucket, &args).await;
    for address in [
        "s3://lake/in/kg0000000000000002/Person.parquet",
        "s3://lake/in/kg0000000000000002/*.parquet",
        "s3://lake/in/*/Person.parquet",
        "s3://lake/in/kg000000000000000[12]/Person.parquet",
        "s3://lake/in/kg0000000000000001*/Person.parquet",
        "s3://lake/**",
        "s3://lake/**/Person.parquet",
        "s3://lake/store/backups/kg0000000000000002/Person.parquet",
        "s3://lake/store/seeds/*",
        "s3://lake//store/seeds/Person.parquet",
        "s3://lake/openly/Person.parquet",
        "s3://other/open/Person.parquet",
        "s3://lake/open%2F..%2Fstore%2Fseeds/Person.parquet",
    ] {
        for (path, field, body) in requests(ONE, address) {
            let detail = agent.post(&path, body.clone()).await.fails(403);
            let detail = detail.as_str().unwrap();
            assert!(
                detail.starts_with(&format!("{field}: ")) && detail.contains(address.trim_start_matches("s3://lake/")),
                "{detail}"
            );
            assert!(
                detail.contains(&format!("s3://lake/in/{ONE}, s3://lake/open")),
                "{detail}"
            );
            assert!(detail.contains("s3_credentials"), "{detail}");
        }
    }
    for address in [
        "s3://lake/open/../store/seeds/Person.parquet",
        "s3://lake/open/./Person.parquet",
        "s3://lake/open//x",
    ] {
        for (path, _, body) in requests(ONE, address) {
            agent.post(&path, body).await.fails(400);
        }
    }
    assert_eq!(bucket.signers(), Vec::<String>::new(), "the bucket was asked");
    assert_eq!(
        agent.get("/tasks").await.ok().as_array().map(Vec::len),
        Some(0),
        "a task was begun"
    );

    let tables = |id: &str| format!("/databases/{id}/tables");
    for (id, address) in [
        (ONE, "s3://lake/in/kg0000000000000001/Person.parquet"),
        (TWO, "s3://lake/in/kg0000000000000002/**"),
        (ONE, "s3://lake/open/*.parquet"),
    ] {
        let body = json!({"table_name": "Person", "s3_pattern": address});
        assert_eq!(agent.post(&tables(id), body).await.ok()["row_count"], 7, "{address}");
    }
    let subgraph = format!("{ONE}_dev");
    agent.database(&subgraph, PEOPLE).await;
    let body = json!({"table_name": "Person", "s3_pattern": "s3://lake/in/kg0000000000000001/Person.parquet"});
    agent.post(&tables(&subgraph), body).await.ok();
    assert!(bucket.signers().iter().all(|signer| signer == "from-the-node"));
}

#[tokio::test]
async fn a_place_around_the_object_store_does_not_open_it() {
    let bucket = bucket().await;
    let agent = launched(&bucket, &["--source", "s3://lake", "--object-store", "s3://lake/store"]).await;
    let tables = format!("/databases/{ONE}/tables");
    let body = |address: &str| json!({"table_name": "Person", "s3_pattern": address});
    for address in [
        "s3://lake/store/seeds/Person.parquet",
        "s3://lake/store/**",
        "s3://lake/store/seeds/*.parquet",
    ] {
        agent.post(&tables, body(address)).await.fails(403);
    }
    // What lies around it is found, and what lies in it is not seen.
    let found = agent.post(&tables, body("s3://lake/**/Person.parquet")).await.ok();
    assert_eq!(
        (&found["row_count"], found["files"].as_array().unwrap().len()),
        (&json!(21), 3),
        "{found}"
    );
    // As its name begins with the store's, but is another one.
    agent.post(&tables, body("s3://lake/store2/x.parquet")).await.fails(404);
}

#[tokio::test]
async fn without_rules_requests_bring_their_own_credentials() {
    let (bucket, other) = (bucket().await, bucket().await);
    let agent = launched(&bucket, &["--source-endpoint", other.url.as_str()]).await;
    for (path, _, body) in requests(ONE, "s3://lake/open/Person.parquet") {
        agent.post(&path, body).await.fails(403);
    }
    assert_eq!(bucket.signers(), Vec::<String>::new());
    let tables = format!("/databases/{ONE}/tables");
    let with = |credentials: Value| json!({"table_name": "Person", "s3_pattern": "s3://lake/open/Person.parquet", "s3_credentials": credentials});
    let given = |endpoint: Option<&str>| {
        with(json!({"aws_access_key_id": "from-the-request", "aws_secret_access_key": "s", "endpoint_url": endpoint}))
    };
    // Nothing is borrowed from the node for what the request leaves out.
    for incomplete in [
        json!({}),
        json!({"endpoint_url": other.url}),
        json!({"aws_access_key_id": "x", "endpoint_url": other.url}),
        json!({"aws_access_key_id": "", "aws_secret_access_key": "", "endpoint_url": other.url}),
        json!({"aws_access_key_id": "x\ny", "aws_secret_access_key": "s"}),
        json!({"aws_access_key_id": "x", "aws_secret_access_key": "s", "region": "evil.example/#"}),
        json!({"aws_access_key_id": "x", "aws_secret_access_key": "s", "endpoint_url": "http://u:p@host"}),
        json!({"aws_access_key_id": "x", "aws_secret_access_key": "s", "endpoint_url": "file:///etc"}),
    ] {
        agent.post(&tables, with(incomplete)).await.fails(400);
    }
    assert!(bucket.signers().is_empty() && other.signers().is_empty());
    // The node's endpoint, by name or by default, and one that was named.
    for endpoint in [None, Some(bucket.url.as_str()), Some(other.url.as_str())] {
        assert_eq!(
            agent.post(&tables, given(endpoint)).await.ok()["row_count"],
            7,
            "{endpoint:?}"
        );
    }
    let signers = [bucket.signers(), other.signers()].concat();
    assert!(signers.iter().all(|signer| signer == "from-the-request"), "{signers:?}");
}

#[tokio::test]
async fn requests_do_not_reach_into_the_nodes_network() {
    let (bucket, hidden) = (bucket().await, bucket().await);
    let agent = launched(&bucket, &[]).await;
    let port = hidden.url.rsplit(':').next().unwrap().to_owned();
    for endpoint in [
        hidden.url.clone(),
        format!("http://localhost:{port}"),
        format!("http://127.1:{port}"),
        format!("http://2130706433:{port}"),
        format!("http://[::ffff:127.0.0.1]:{port}"),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "http://10.0.0.1".to_owned(),
        "http://[fd00:ec2::254]".to_owned(),
        agent.url.clone(),
    ] {
        let body = json!({
            "table_name": "Person", "s3_pattern": "s3://lake/open/Person.parquet",
            "s3_credentials": {"aws_access_key_id": "a", "aws_secret_access_key": "s", "endpoint_url": endpoint},
        });
        for path in [format!("/databases/{ONE}/tables"), format!("/databases/{ONE}/copy")] {
            let detail = agent.post(&path, body.clone()).await.fails(403);
            let detail = detail.as_str().unwrap();
            assert!(detail.starts_with("s3_credentials.endpoint_url: "), "{detail}");
            assert!(detail.contains("--source-endpoint"), "{detail}");
        }
    }
    assert!(hidden.signers().is_empty() && bucket.signers().is_empty());
}

#[tokio::test]
async fn graphs_read_files_of_their_own_directory() {
    let root = TempDir::new().unwrap();
    let base = root.path().canonicalize().unwrap();
    for id in [ONE, TWO] {
        std::fs::create_dir(base.join(id)).unwrap();
        parquet_at(
            &base.join(id).join("Person.parquet"),
            "SELECT i AS identifier FROM range(7) t(i)",
        );
    }
    std::os::unix::fs::symlink(base.join(TWO), base.join(ONE).join("other")).unwrap();
    let import = base.join("{graph}");
    let agent = Agent::with(&["--import-dir", import.to_str().unwrap()]).await;
    agent.database(ONE, PEOPLE).await;
    let tables = format!("/databases/{ONE}/tables");
    let at = |path: String| json!({"table_name": "Person", "s3_pattern": format!("file://{}/{path}", base.display())});
    assert_eq!(
        agent.post(&tables, at(format!("{ONE}/*.parquet"))).await.ok()["row_count"],
        7
    );
    for path in [
        format!("{TWO}/Person.parquet"),
        format!("{ONE}/other/Person.parquet"),
        "*/Person.parquet".to_owned(),
        "**".to_owned(),
    ] {
        let detail = agent.post(&tables, at(path)).await.fails(403);
        assert!(detail.as_str().unwrap().starts_with("s3_pattern: file://"), "{detail}");
    }
    agent
        .post(&tables, at(format!("{ONE}/../{TWO}/Person.parquet")))
        .await
        .fails(400);
}

#[tokio::test]
async fn the_agents_own_files_are_no_sources() {
    let root = TempDir::new().unwrap();
    let base = root.path().canonicalize().unwrap();
    std::fs::create_dir(base.join("objects")).unwrap();
    let rows = "SELECT 1 AS identifier";
    parquet_at(&base.join("objects/backup.parquet"), rows);
    parquet_at(&base.join("mine.parquet"), rows);
    // Everything of this agent is below its import directory.
    let store = format!("file://{}/objects", base.display());
    let args = ["--import-dir", base.to_str().unwrap(), "--object-store", store.as_str()];
    let agent = Agent::launch(root, &args, &[("GRAPH_API_KEY", KEY)]).await;
    agent.database("kg1", PEOPLE).await;
    parquet_at(&agent.volume().join("secret.parquet"), rows);
    let create = |path: &str| {
        let body = json!({"table_name": "Person", "s3_pattern": format!("file://{}/{path}", base.display())});
        agent.post("/databases/kg1/tables", body)
    };
    for path in ["volume/secret.parquet", "objects/backup.parquet"] {
        create(path).await.fails(403);
    }
    assert_eq!(create("**/*.parquet").await.ok()["row_count"], 1);
}

#[tokio::test]
async fn the_control_plane_says_where_its_nodes_may_load_from() {
    let bucket = bucket().await;
    let (plane, root) = (Plane::start().await, TempDir::new().unwrap());
    let path = plane.config(root.path());
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["sources"] = json!(["s3://lake/in/{graph}"]);
    std::fs::write(&path, config.to_string()).unwrap();
    let mut agent = Agent::launch(root, &["--config", path.to_str().unwrap()], &envs(&bucket)[1..]).await;
    agent.key = API_KEY.to_owned();
    let state = || async { Answer::to(agent.bare(Method::GET, "/info")).await.ok()["state"].clone() };
    crate::fixture::eventually("the agent has registered", state, |state| state == "active").await;
    agent.database(ONE, PEOPLE).await;
    let tables = format!("/databases/{ONE}/tables");
    let body =
        |graph: &str| json!({"table_name": "Person", "s3_pattern": format!("s3://lake/in/{graph}/Person.parquet")});
    assert_eq!(agent.post(&tables, body(ONE)).await.ok()["row_count"], 7);
    agent.post(&tables, body(TWO)).await.fails(403);
}
