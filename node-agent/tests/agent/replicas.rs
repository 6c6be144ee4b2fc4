//! Replicas: what a writer publishes is served, newer seeds are taken up while queries run, and bad ones are not.

use crate::fixture::{Agent, Answer, KEY, eventually};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};
use tempfile::TempDir;

const SCHEMA: &str = "CREATE NODE TABLE Person(identifier INT64 PRIMARY KEY, generation INT64)";
const PEOPLE: u64 = 300;

async fn writer(root: &Path) -> Agent {
    let writer = Agent::with_store(root, &[]).await;
    writer.database("kg1", SCHEMA).await;
    writer
}

/// A replica that looks for newer seeds only when it is asked to.
async fn replica(root: &Path, more: &[&str]) -> Agent {
    let mut args = vec![
        "--role",
        "replica",
        "--seed",
        "seeds/kg1",
        "--seed-poll-seconds",
        "86400",
    ];
    args.extend(more);
    Agent::with_store(root, &args).await
}

/// The graph as its n-th generation has it: n times as many people, all of whom say n.
async fn write(writer: &Agent, generation: u64) {
    let (from, to) = ((generation - 1) * PEOPLE, generation * PEOPLE - 1);
    for statement in [
        format!("UNWIND range({from}, {to}) AS i CREATE (:Person {{identifier: i}})"),
        format!("MATCH (p:Person) SET p.generation = {generation}"),
    ] {
        writer.cypher("kg1", &statement).await.ok();
    }
}

async fn start_publishing(writer: &Agent, id: &str, body: Value) -> Value {
    let started = writer.post(&format!("/databases/{id}/backup"), body).await.ok();
    writer.task(started["task_id"].as_str().unwrap()).await
}

async fn publish(writer: &Agent) -> Value {
    let record = start_publishing(writer, "kg1", json!({"backup_type": "replica"})).await;
    assert_eq!(record["status"], "completed", "{record}");
    record["result"].clone()
}

/// The status of the seed after a look that is done.
async fn refresh(replica: &Agent) -> Value {
    let answer = replica
        .post("/admin/seed/refresh?wait_seconds=300", json!({}))
        .await
        .ok();
    answer["seeds"][0].clone()
}

async fn ready(replica: &Agent) {
    let look = || async { Answer::to(replica.bare(Method::GET, "/health")).await };
    eventually("the replica serves", look, |health| health.status.is_success()).await;
}

/// The generation that a replica serves, of which every person must be.
async fn generation(replica: &Agent) -> u64 {
    let text = "MATCH (p:Person) RETURN count(p) AS people, min(p.generation) AS low, max(p.generation) AS high";
    let answer = replica.cypher("kg1", text).await.ok();
    let row = &answer["data"][0];
    let generation = row["low"].as_u64().unwrap();
    assert_eq!(
        *row,
        json!({"people": generation * PEOPLE, "low": generation, "high": generation})
    );
    generation
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten();
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect()
}

fn seeds_of(replica: &Agent) -> Vec<PathBuf> {
    directories(&replica.volume().join("seeds/kg1"))
}

async fn metric(agent: &Agent, series: &str) -> f64 {
    let text = Answer::to(agent.bare(Method::GET, "/metrics")).await.text;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} is not in {text}"))
        .parse()
        .unwrap()
}

async fn stream(replica: &Agent, cypher: &str) -> Response {
    let request = replica.request(Method::POST, "/databases/kg1/query?streaming=true");
    let response = request.json(&json!({"cypher": cypher})).send().await.unwrap();
    response.error_for_status().unwrap()
}

#[tokio::test]
async fn a_replica_takes_up_newer_seeds_with_queries_in_flight() {
    let root = TempDir::new().unwrap();
    let writer = writer(root.path()).await;
    // Memory for one pool of this size and for the least of a second one.
    let memory = [
        "--memory-mib",
        "192",
        "--memory-per-database-mib",
        "128",
        "--query-timeout-seconds",
        "300",
    ];
    let replica = replica(root.path(), &memory).await;

    // Nothing is published yet.
    for path in ["/health", "/status"] {
        let answer = Answer::to(replica.bare(Method::GET, path)).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["status"]),
            (503, &json!("warming"))
        );
        assert!(answer.header("retry-after").is_some());
    }
    replica.cypher("kg1", "RETURN 1").await.fails(503);
    let status = refresh(&replica).await;
    assert_eq!(
        (&status["state"], &status["served"]),
        (&json!("waiting"), &Value::Null),
        "{status}"
    );
    assert!(
        status["error"].as_str().unwrap().contains("nothing is published"),
        "{status}"
    );

    write(&writer, 1).await;
    let first = publish(&writer).await;
    assert_eq!(first["duckdb_included"], false);
    let status = refresh(&replica).await;
    assert_eq!(
        (&status["state"], &status["error"]),
        (&json!("ready"), &Value::Null),
        "{status}"
    );
    assert_eq!(status["served"]["version"], first["version"]);
    assert_eq!(status["served"]["node_count"], PEOPLE);
    assert!(status["age_seconds"].as_f64().unwrap() > 0.0);
    ready(&replica).await;
    assert_eq!(generation(&replica).await, 1);
    replica.cypher("kg2", "RETURN 1").await.fails(404);
    assert_eq!(replica.get("/info").await.ok()["seeds"][0]["served"], status["served"]);

    // A stream that began on the first seed ends on it, long after the second one is served.
    let wide = "x".repeat(400);
    let pairs = format!("MATCH (a:Person), (b:Person) RETURN a.generation AS a, b.generation AS b, '{wide}' AS c");
    let mut begun = stream(&replica, &pairs).await;
    let mut text = begun.chunk().await.unwrap().unwrap().to_vec();
    write(&writer, 2).await;
    let second = publish(&writer).await;
    let status = refresh(&replica).await;
    assert_eq!(status["served"]["version"], second["version"], "{status}");
    assert_eq!(generation(&replica).await, 2);
    assert_eq!(seeds_of(&replica).len(), 2);
    let reserved = "graphplane_agent_buffer_pool_bytes{kind=\"reserved\"}";
    assert_eq!(metric(&replica, reserved).await, f64::from(192 << 20));
    while let Some(chunk) = begun.chunk().await.unwrap() {
        text.extend(chunk);
    }
    let chunks = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let chunks: Vec<Value> = chunks.map(|line| serde_json::from_slice(line).unwrap()).collect();
    assert_eq!(chunks.last().unwrap()["is_last_chunk"], true);
    let rows = chunks.iter().flat_map(|chunk| chunk["data"].as_array().unwrap());
    let rows: Vec<_> = rows.map(|row| (row["a"].as_u64(), row["b"].as_u64())).collect();
    assert_eq!(rows.len() as u64, PEOPLE * PEOPLE);
    assert!(rows.iter().all(|row| *row == (Some(1), Some(1))));
    // Then the first seed goes, and the second has its memory.
    eventually(
        "one seed is left",
        || async { seeds_of(&replica).len() },
        |count| *count == 1,
    )
    .await;
    let look = || metric(&replica, reserved);
    eventually("the pool is whole", look, |bytes| *bytes == f64::from(128 << 20)).await;

    // Clients that ask all the time see one generation after the other, and never a failure.
    let stop = AtomicBool::new(false);
    let clients = (0..6).map(|_| async {
        let mut last = 0;
        while !stop.load(Ordering::Relaxed) {
            let seen = generation(&replica).await;
            assert!(seen >= last, "{seen} after {last}");
            last = seen;
        }
        last
    });
    let changes = async {
        for number in 3..=5 {
            write(&writer, number).await;
            publish(&writer).await;
            let status = refresh(&replica).await;
            assert_eq!(status["served"]["node_count"], number * PEOPLE, "{status}");
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (seen, ()) = futures::future::join(futures::future::join_all(clients), changes).await;
    assert!(seen.into_iter().all(|last| last >= 2));
    assert_eq!(generation(&replica).await, 5);
    assert_eq!(
        directories(&root.path().join("objects/seeds/kg1/0")).len(),
        3,
        "old seeds stay in the store"
    );
    let swapped = "graphplane_agent_seed_looks_total{seed=\"seeds/kg1\",outcome=\"swapped\"}";
    assert_eq!(metric(&replica, swapped).await, 5.0);
    assert_eq!(
        metric(
            &replica,
            "graphplane_agent_seed_state{seed=\"seeds/kg1\",state=\"ready\"}"
        )
        .await,
        1.0
    );
}

/// The documents of the published seed.
struct Published {
    pointer: PathBuf,
    directory: PathBuf,
}

impl Published {
    fn at(root: &Path) -> Self {
        let prefix = root.join("objects/seeds/kg1");
        let pointer = prefix.join("latest.json");
        let text: Value = serde_json::from_slice(&fs::read(&pointer).unwrap()).unwrap();
        let directory = prefix.join(text["epoch"].to_string()).join(text["version"].to_string());
        Self { pointer, directory }
    }

    fn change(path: &Path, change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut document = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        change(&mut document);
        let text = serde_json::to_vec(&document).unwrap();
        fs::write(path, &text).unwrap();
        text
    }

    /// Changes the manifest as somebody would who knows of the pointer's hash.
    fn forge(&self, change: impl FnOnce(&mut Value)) {
        let text = Self::change(&self.directory.join("manifest.json"), change);
        let hash = hex::encode(Sha256::digest(&text));
        Self::change(&self.pointer, |pointer| pointer["manifest_sha256"] = json!(hash));
    }
}

#[tokio::test]
async fn a_bad_seed_is_refused_and_the_old_one_stays() {
    let root = TempDir::new().unwrap();
    let writer = writer(root.path()).await;
    write(&writer, 1).await;
    let first = publish(&writer).await;
    let replica = replica(root.path(), &[]).await;
    ready(&replica).await;
    type Damage = fn(&Published);
    let damages: [(&str, Damage); 6] = [
        ("damaged or was exchanged", |published| {
            let path = published.directory.join("graph.lbug.zst");
            let mut object = fs::read(&path).unwrap();
            object.push(0);
            fs::write(&path, object).unwrap();
        }),
        ("graph.lbug", |published| {
            let path = published.directory.join("graph.lbug.zst");
            let mut object = fs::read(&path).unwrap();
            let middle = object.len() / 2;
            object[middle] ^= 1;
            fs::write(&path, object).unwrap();
        }),
        ("its SHA-256 is", |published| {
            let manifest = published.directory.join("manifest.json");
            Published::change(&manifest, |manifest| manifest["node_count"] = json!(1));
        }),
        ("its manifest says 1 and 0", |published| {
            published.forge(|manifest| manifest["node_count"] = json!(1));
        }),
        ("could not be taken up", |published| {
            let plain = vec![7_u8; 8192];
            let object = zstd::encode_all(&plain[..], 1).unwrap();
            fs::write(published.directory.join("graph.lbug.zst"), &object).unwrap();
            published.forge(|manifest| {
                let file = &mut manifest["files"][0];
                file["sha256"] = json!(hex::encode(Sha256::digest(&object)));
                file["size_bytes"] = json!(object.len());
                file["plain_sha256"] = json!(hex::encode(Sha256::digest(&plain)));
                file["plain_size_bytes"] = json!(plain.len());
            });
        }),
        ("another graph", |published| {
            published.forge(|manifest| manifest["graph_id"] = json!("kg2"));
            Published::change(&published.pointer, |pointer| pointer["graph_id"] = json!("kg2"));
        }),
    ];
    let refused = "graphplane_agent_seed_looks_total{seed=\"seeds/kg1\",outcome=\"refused\"}";
    for (number, (says, damage)) in damages.into_iter().enumerate() {
        let _ = fs::remove_file(root.path().join("objects/seeds/kg1/latest.json"));
        publish(&writer).await;
        damage(&Published::at(root.path()));
        let status = refresh(&replica).await;
        let error = status["error"].as_str().unwrap_or_else(|| panic!("{says}: {status}"));
        assert!(error.contains(says), "{says}: {error}");
        assert_eq!(
            (&status["state"], &status["served"]["version"]),
            (&json!("ready"), &first["version"])
        );
        assert_eq!(generation(&replica).await, 1);
        assert_eq!(seeds_of(&replica).len(), 1, "what was refused stays on the volume");
        assert_eq!(metric(&replica, refused).await, number as f64 + 1.0, "{says}");
        assert!(replica.log().contains(says), "{says} is not in the log");
    }

    // What is good is taken up again; and nothing older than that.
    let _ = fs::remove_file(root.path().join("objects/seeds/kg1/latest.json"));
    write(&writer, 2).await;
    publish(&writer).await;
    let status = refresh(&replica).await;
    assert_eq!(
        (&status["error"], generation(&replica).await),
        (&Value::Null, 2),
        "{status}"
    );
    let published = Published::at(root.path());
    Published::change(&published.pointer, |pointer| {
        pointer["version"] = first["version"].clone()
    });
    let status = refresh(&replica).await;
    assert!(status["error"].as_str().unwrap().contains("older than"), "{status}");
    assert_eq!(generation(&replica).await, 2);
}

#[tokio::test]
async fn the_pointer_never_goes_back() {
    let root = TempDir::new().unwrap();
    let writer = writer(root.path()).await;
    write(&writer, 1).await;
    let first = publish(&writer).await;
    let second = publish(&writer).await;
    assert!(second["version"].as_u64().unwrap() > first["version"].as_u64().unwrap());
    assert_ne!(first["key"], second["key"]);

    // Another graph's seeds do not belong here.
    writer.database("kg2", SCHEMA).await;
    let body = json!({"backup_type": "replica", "destination": {"key": "seeds/kg1"}});
    let record = start_publishing(&writer, "kg2", body).await;
    assert_eq!(record["status"], "failed", "{record}");
    assert!(record["error"].as_str().unwrap().contains("kg1"), "{record}");

    // A later writer has published: this one is not the graph's writer any more.
    let published = Published::at(root.path());
    let later = Published::change(&published.pointer, |pointer| pointer["epoch"] = json!(7));
    let record = start_publishing(&writer, "kg1", json!({"backup_type": "replica"})).await;
    assert_eq!(record["status"], "failed", "{record}");
    assert!(record["error"].as_str().unwrap().contains("of epoch 7"), "{record}");
    assert_eq!(fs::read(&published.pointer).unwrap(), later);
    let body = json!({"backup_type": "r2_download"});
    writer.post("/databases/kg1/backup", body).await.fails(422);
    writer.post("/admin/seed/refresh", json!({})).await.fails(400);
}

#[tokio::test]
async fn an_encrypted_backup_is_a_seed_too() {
    let root = TempDir::new().unwrap();
    let keys = root.path().join("keys");
    fs::write(&keys, "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n").unwrap();
    let key_file = ["--backup-key-file", keys.to_str().unwrap()];
    let writer = Agent::with_store(root.path(), &key_file).await;
    writer.database("kg1", SCHEMA).await;
    write(&writer, 1).await;
    writer.backup("kg1", "backups/kg1/first", true).await;
    let args = ["--role", "replica", "--seed", "backups/kg1/first"];
    let blind = Agent::with_store(root.path(), &args).await;
    let look = || async { refresh(&blind).await["error"].clone() };
    eventually("the key is missed", look, |error| {
        error.as_str().is_some_and(|error| error.contains("--backup-key-file"))
    })
    .await;
    let replica = Agent::with_store(root.path(), &[&args[..], &key_file[..]].concat()).await;
    ready(&replica).await;
    assert_eq!(generation(&replica).await, 1);
    assert_eq!(refresh(&replica).await["served"]["version"], 0);
}

#[tokio::test]
async fn a_replica_serves_without_its_object_store() {
    let root = TempDir::new().unwrap();
    let writer = writer(root.path()).await;
    write(&writer, 1).await;
    publish(&writer).await;
    let mut replica = replica(root.path(), &[]).await;
    ready(&replica).await;
    replica.kill();
    let volume = std::mem::replace(&mut replica.root, TempDir::new().unwrap());
    let args = [
        "--role",
        "replica",
        "--seed",
        "seeds/kg1",
        "--object-store",
        "s3://away/prefix",
    ];
    let nowhere = [
        ("GRAPH_API_KEY", KEY),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
        ("AWS_REGION", "us-east-1"),
    ];
    let replica = Agent::launch(volume, &args, &nowhere).await;
    ready(&replica).await;
    assert_eq!(generation(&replica).await, 1);
}

/// Method and path of every route: the document has what the router has, which another test makes sure of.
fn routes() -> Vec<(Method, String)> {
    let document = graphplane_node_agent::http::openapi::document();
    let paths = document["paths"].as_object().unwrap();
    let routes = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().keys().map(|name| name.to_uppercase());
        methods.map(move |name| (name.parse().unwrap(), path.clone()))
    });
    routes.collect()
}

#[tokio::test]
async fn a_replica_refuses_every_route_that_changes_something() {
    let root = TempDir::new().unwrap();
    let writer = writer(root.path()).await;
    write(&writer, 1).await;
    publish(&writer).await;
    let replica = replica(root.path(), &[]).await;
    ready(&replica).await;
    // These only read, or change this process and no data.
    let harmless = [
        (Method::POST, "/databases/{id}/query"),
        (Method::POST, "/databases/{id}/tables/query"),
        (Method::POST, "/databases/{id}/tables/{table}/vector/search"),
        (Method::POST, "/databases/{id}/semantic-memory/search"),
        (Method::POST, "/databases/{id}/semantic-memory/list"),
        (Method::POST, "/embeddings"),
        (Method::POST, "/admin/seed/refresh"),
        (Method::POST, "/admin/drain"),
        (Method::DELETE, "/tasks/{id}"),
    ];
    // These make a checkpoint, although they are only asked for something.
    let not_harmless = [(Method::GET, "/databases/{id}/backup")];
    let routes = routes();
    assert!(routes.len() >= 35, "{routes:?}");
    for (method, path) in [&harmless[..], &not_harmless[..]].concat() {
        assert!(
            routes.contains(&(method.clone(), path.to_owned())),
            "{method} {path} is no route"
        );
    }
    for (method, path) in routes {
        let names = |list: &[(Method, &str)]| list.iter().any(|(m, p)| *m == method && *p == path);
        if names(&harmless) || method == Method::GET && !names(&not_harmless) {
            continue;
        }
        let mut target = path.clone();
        while let (Some(from), Some(to)) = (target.find('{'), target.find('}')) {
            target.replace_range(from..=to, "kg1");
        }
        let request = replica.request(method.clone(), &target).json(&json!({}));
        let answer = Answer::to(request).await;
        assert_eq!(answer.status.as_u16(), 403, "{method} {path}: {}", answer.text);
        assert!(answer.text.contains("only reads"), "{method} {path}: {}", answer.text);
    }
    for statement in [
        "CREATE (:Person {identifier: -1})",
        "MATCH (p:Person) SET p.generation = 2",
        "MATCH (p:Person) DELETE p",
        "CREATE NODE TABLE T(id INT64 PRIMARY KEY)",
        "DROP TABLE Person",
    ] {
        replica.cypher("kg1", statement).await.fails(403);
        let request = replica.request(Method::POST, "/databases/kg1/query?streaming=true");
        Answer::to(request.json(&json!({"cypher": statement}))).await.fails(403);
    }
    assert_eq!(generation(&replica).await, 1);
}
