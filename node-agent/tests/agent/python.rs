//! The contract as Python programs see it: the calls of the existing client with httpx, and schemathesis over the whole
//! OpenAPI document. Both run against a real agent, from a virtual environment in the user's cache.

use crate::fixture::{Agent, KEY, PATIENCE, PEOPLE, acquaintances, parquet, people};
use crate::plane::Bucket;
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};
use tempfile::TempDir;
use tokio::process::Command;

const TOTAL: std::time::Duration = PATIENCE.saturating_mul(4);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python")
}

/// The environment for these requirements; the first who asks makes it.
fn environment() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/venv.sh");
    let output = std::process::Command::new(script)
        .arg(folder().join("requirements.txt"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "scripts/venv.sh: {said}");
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// Runs a program of the environment, in a directory of its own; what it prints is shown if it fails.
async fn python(program: &str, args: &[&str], envs: &[(&str, &str)]) {
    let environment = tokio::task::spawn_blocking(environment).await.unwrap();
    let scratch = TempDir::new().unwrap();
    let child = Command::new(environment.join("bin/python"))
        .args(["-m", program])
        .args(args)
        .current_dir(scratch.path())
        .env("GRAPH_API_KEY", KEY)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .envs(envs.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(TOTAL, child)
        .await
        .expect("it takes too long")
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}:\n{said}\n{errors}");
}

#[tokio::test]
async fn the_existing_client_works() {
    let imports = TempDir::new().unwrap();
    let bucket = Bucket::start().await;
    for (name, first) in [("people-1.parquet", 0), ("people-2.parquet", 10)] {
        let rows = parquet(&format!(
            "SELECT i + {first} AS identifier, 'name ' || i AS name FROM range(10) t(i)"
        ));
        fs::write(imports.path().join(name), &rows).unwrap();
        bucket.put(name, rows);
    }
    let directory = imports.path().canonicalize().unwrap();
    let directory = directory.to_str().unwrap();
    let root = TempDir::new().unwrap();
    let args = ["--import-dir", directory, "--source-endpoint", bucket.url.as_str()];
    let agent = Agent::with_store(root.path(), &args).await;
    let file = folder().join("test_client.py");
    let args = ["-q", "-p", "no:cacheprovider", file.to_str().unwrap()];
    let envs = [
        ("AGENT_URL", agent.url.as_str()),
        ("BUCKET_URL", bucket.url.as_str()),
        ("IMPORT_DIR", directory),
    ];
    python("pytest", &args, &envs).await;
}

/// An agent with something behind every path that `schemathesis.toml` prefers.
async fn seeded(root: &Path) -> Agent {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/mean");
    let mut args = vec!["--query-timeout-seconds", "5", "--max-databases", "100000"];
    args.extend(["--embedding-model", model.to_str().unwrap()]);
    let agent = Agent::with_store(root, &args).await;
    agent.database("kg1", PEOPLE).await;
    let tables = "/databases/kg1/tables";
    agent
        .put(&format!("{tables}/Person/files/first"), people(50))
        .await
        .ok();
    agent
        .put(&format!("{tables}/KNOWS/files/first"), acquaintances(50, 100))
        .await
        .ok();
    for table in ["Person", "KNOWS"] {
        agent
            .post(&format!("{tables}/{table}/materialize"), json!({}))
            .await
            .ok();
    }
    let vectors = "SELECT identifier, name, [identifier::FLOAT, 1, 2] AS vector FROM Person";
    let build = format!("{tables}/Person/vector/build");
    agent.post(&build, json!({"query": vectors})).await.ok();
    let record = json!({"id": format!("mem_{:032x}", 1), "vector": vec![0.5; 384], "text": "a memory"});
    let memories = "/databases/kg1/semantic-memory/rows";
    agent.post(memories, json!({"records": [record]})).await.ok();
    agent.backup("kg1", "backups/kg1/1", false).await;
    agent
}

#[tokio::test]
async fn nothing_that_schemathesis_sends_is_answered_otherwise_than_documented() {
    let root = TempDir::new().unwrap();
    let agent = seeded(root.path()).await;
    let (config, hooks) = (folder().join("schemathesis.toml"), folder().join("hooks.py"));
    let envs = [("SCHEMATHESIS_HOOKS", hooks.to_str().unwrap())];
    let config = ["--config-file", config.to_str().unwrap(), "run"];
    let document = format!("{}/openapi.json", agent.url);
    // A drained node takes no writes, so the drain comes last.
    let drain = "/admin/drain";
    for filter in [["--exclude-path", drain], ["--include-path", drain]] {
        let args: Vec<&str> = config.into_iter().chain(filter).chain([document.as_str()]).collect();
        python("schemathesis.cli", &args, &envs).await;
    }
    agent.get("/health").await.ok();
    agent.cypher("kg1", "RETURN 1").await.ok();
}
