//! Restores: what a backup holds comes back, and what is wrong with one changes nothing.

use crate::fixture::{Agent, Answer, PEOPLE, people};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tempfile::TempDir;

const KEY: &str = "backups/kg1/0/first";
const COUNT: &str = "MATCH (p:Person) RETURN count(p)";

/// An agent with a database of 500 people and ten staged rows, and a backup of it.
async fn backed_up(root: &Path, more: &[&str], encryption: bool) -> Agent {
    let agent = Agent::with_store(root, more).await;
    agent.database("kg1", PEOPLE).await;
    let people_of = "UNWIND range(1, 500) AS i CREATE (:Person {identifier: i, name: 'p'})";
    agent.cypher("kg1", people_of).await.ok();
    agent.put("/databases/kg1/tables/Staged/files/f", people(10)).await.ok();
    agent.backup("kg1", KEY, encryption).await;
    agent
}

fn object(root: &Path, name: &str) -> PathBuf {
    root.join("objects").join(KEY).join(name)
}

fn manifest(root: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(object(root, "manifest.json")).unwrap()).unwrap()
}

fn write_manifest(root: &Path, manifest: &Value) {
    std::fs::write(object(root, "manifest.json"), manifest.to_string()).unwrap();
}

fn overwrite() -> Value {
    json!({"s3_key": KEY, "force_overwrite": true, "create_system_backup": false})
}

#[tokio::test]
async fn a_restored_database_is_the_one_of_the_backup() {
    let root = TempDir::new().unwrap();
    let mut agent = backed_up(root.path(), &["--max-databases", "2"], false).await;
    agent
        .cypher("kg1", "MATCH (p:Person) WHERE p.identifier > 3 DELETE p")
        .await
        .ok();
    agent.delete("/databases/kg1/tables/Staged").await.ok();

    // As the existing client asks, while queries go on: every one is answered, from the old database or the new.
    let stop = Arc::new(AtomicBool::new(false));
    let asking = {
        let (stop, url) = (Arc::clone(&stop), format!("{}/databases/kg1/query", agent.url));
        let request = move || {
            reqwest::Client::new()
                .post(&url)
                .header("X-Graph-API-Key", crate::fixture::KEY)
                .json(&json!({"cypher": COUNT}))
        };
        tokio::spawn(async move {
            let mut seen = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let answer = Answer::to(request()).await;
                // A statement that runs at the moment of the exchange is interrupted.
                if answer.status.is_success() {
                    let row = answer.json()["data"][0].clone();
                    seen.push(row.as_object().unwrap().values().next().unwrap().as_u64().unwrap());
                } else {
                    assert!(
                        matches!(answer.status.as_u16(), 499 | 503),
                        "{} {}",
                        answer.status,
                        answer.text
                    );
                }
            }
            seen
        })
    };
    let form = [
        ("s3_bucket", "any"),
        ("s3_key", KEY),
        ("create_system_backup", "True"),
        ("force_overwrite", "true"),
        ("encrypted", "true"),
        ("compressed", "true"),
    ];
    let request = agent.request(Method::POST, "/databases/kg1/restore").form(&form);
    let started = Answer::to(request).await.ok();
    let task = started["task_id"].as_str().unwrap();
    assert!(task.starts_with("restore_kg1_"), "{task}");
    assert_eq!(
        (
            &started["status"],
            &started["database"],
            &started["system_backup_created"]
        ),
        (&json!("initiated"), &json!("kg1"), &json!(true))
    );
    assert_eq!(started["monitor_url"], json!(format!("/tasks/{task}/monitor")));
    let record = agent.task(task).await;
    assert_eq!(record["status"], "completed", "{record}");
    stop.store(true, Ordering::Relaxed);
    let seen = asking.await.unwrap();
    assert!(seen.iter().all(|count| matches!(count, 3 | 500)), "{seen:?}");

    let result = &record["result"];
    assert_eq!(
        (
            &result["node_count"],
            &result["duckdb_included"],
            &result["source_graph_id"]
        ),
        (&json!(500), &json!(true), &json!("kg1"))
    );
    assert_eq!(agent.number("kg1", COUNT).await, 500);
    assert_eq!(agent.get("/databases/kg1/tables").await.ok()[0]["row_count"], 10);
    assert_eq!(agent.leftovers(), Vec::<String>::new());

    // What was there before is a backup of its own, and becomes another database; it is written and survives.
    let before = result["system_backup_key"].as_str().unwrap();
    assert!(before.starts_with("backups/kg1/0/before-restore-"), "{before}");
    let manifest = format!("{before}/manifest.json");
    let record = agent.restore("kg2", json!({"s3_key": manifest})).await;
    assert_eq!(record["status"], "completed", "{record}");
    assert_eq!(agent.number("kg2", COUNT).await, 3);
    for id in ["kg1", "kg2"] {
        agent.cypher(id, "CREATE (:Person {identifier: -1})").await.ok();
    }
    agent.restart_after_kill().await;
    assert_eq!(agent.get("/info").await.ok()["databases"], json!(["kg1", "kg2"]));
    assert_eq!(
        (agent.number("kg1", COUNT).await, agent.number("kg2", COUNT).await),
        (501, 4)
    );
    // The node is full now; a subgraph has its parent's place.
    agent
        .post("/databases/kg3/restore", json!({"s3_key": KEY}))
        .await
        .fails(507);
    let record = agent.restore("kg1_dev", json!({"s3_key": KEY})).await;
    assert_eq!(record["status"], "completed", "{record}");
    assert_eq!(agent.number("kg1_dev", COUNT).await, 500);
}

#[tokio::test]
async fn wrong_requests_are_refused() {
    let root = TempDir::new().unwrap();
    let agent = backed_up(root.path(), &[], false).await;
    for (body, status) in [
        (json!({"s3_key": KEY}), 409),
        (json!({"s3_key": "backups/kg1/0/absent", "force_overwrite": true}), 404),
        (json!({"s3_key": "../../etc", "force_overwrite": true}), 400),
        (json!({"s3_key": "/etc/passwd"}), 400),
        (json!({"s3_bucket": "b"}), 422),
        (json!({"s3_key": KEY, "force_overwrite": "yes"}), 422),
        (json!({"s3_key": KEY, "surplus": 1}), 422),
    ] {
        agent.post("/databases/kg1/restore", body.clone()).await.fails(status);
    }
    agent
        .post("/databases/a.b/restore", json!({"s3_key": KEY}))
        .await
        .fails(400);
    let text = agent.request(Method::POST, "/databases/kg1/restore").body("x");
    let text = text.header("Content-Type", "text/plain");
    Answer::to(text).await.fails(415);
    let without = Agent::start().await;
    without
        .post("/databases/kg1/restore", json!({"s3_key": KEY}))
        .await
        .fails(400);

    // Manifests that no agent wrote.
    let good = manifest(root.path());
    for (path, value) in [
        ("/format", json!(2)),
        ("/storage_version", json!(1000)),
        ("/graph_id", json!("../kg1")),
        ("/files/0/name", json!("../../../../etc/passwd")),
        ("/files/0/plain_size_bytes", json!(u64::MAX)),
        ("/files/1/plain_size_bytes", json!(u64::MAX)),
        ("/files/0/size_bytes", json!(-1)),
        ("/files/0/sha256", json!("../x")),
        ("/files", json!([])),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(path).unwrap() = value;
        write_manifest(root.path(), &bad);
        let detail = agent.post("/databases/kg1/restore", overwrite()).await.fails(400);
        assert!(detail.as_str().unwrap().contains("not restored"), "{path}: {detail}");
    }
    std::fs::write(object(root.path(), "manifest.json"), vec![b' '; 2 << 20]).unwrap();
    agent.post("/databases/kg1/restore", overwrite()).await.fails(400);
    // More than the volume has.
    let mut large = good.clone();
    large["files"][1]["plain_size_bytes"] = json!(1u64 << 60);
    write_manifest(root.path(), &large);
    agent.post("/databases/kg1/restore", overwrite()).await.fails(507);
    assert_eq!(agent.number("kg1", COUNT).await, 500);
    assert_eq!(agent.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_backup_that_is_not_what_it_says_changes_nothing() {
    let root = TempDir::new().unwrap();
    let agent = backed_up(root.path(), &[], false).await;
    agent.cypher("kg1", "CREATE (:Person {identifier: -1})").await.ok();
    let (good, graph) = (manifest(root.path()), object(root.path(), "graph.lbug.zst"));
    let bytes = std::fs::read(&graph).unwrap();
    let fails = async |why: &str| {
        for id in ["kg1", "kg2"] {
            let record = agent.restore(id, overwrite()).await;
            assert_eq!(record["status"], "failed", "{record}");
            assert!(record["error"].as_str().unwrap().contains(why), "{why}: {record}");
        }
        assert_eq!(agent.number("kg1", COUNT).await, 501, "{why}");
        assert_eq!(agent.get("/databases/kg1/tables").await.ok()[0]["row_count"], 10);
        agent.get("/databases/kg2").await.fails(404);
        assert_eq!(agent.leftovers(), Vec::<String>::new(), "{why}");
    };
    let mut changed = bytes.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 0x55;
    std::fs::write(&graph, &changed).unwrap();
    fails("graph.lbug.zst").await;
    std::fs::write(&graph, &bytes[..middle]).unwrap();
    fails("its size").await;
    std::fs::remove_file(&graph).unwrap();
    fails("graph.lbug.zst").await;

    // Whoever can write the manifest too gets as far as the engine, and no further.
    let store = |plain: &[u8], size: usize| {
        let packed = zstd::encode_all(plain, 1).unwrap();
        let mut manifest = good.clone();
        let file = &mut manifest["files"][0];
        file["sha256"] = json!(hex::encode(Sha256::digest(&packed)));
        file["size_bytes"] = json!(packed.len());
        file["plain_sha256"] = json!(hex::encode(Sha256::digest(plain)));
        file["plain_size_bytes"] = json!(size);
        std::fs::write(&graph, packed).unwrap();
        write_manifest(root.path(), &manifest);
    };
    let bomb = vec![0; 64 << 20];
    store(&bomb, 1 << 20);
    fails("longer than the 1048576 bytes").await;
    let noise: Vec<u8> = (0..100_000u32).map(|i| i.wrapping_mul(i) as u8).collect();
    store(&noise, noise.len());
    fails("could not be used").await;
    let mut others = good.clone();
    others["node_count"] = json!(501);
    std::fs::write(&graph, &bytes).unwrap();
    write_manifest(root.path(), &others);
    fails("500 nodes").await;

    // Staging that is none is found before the graph is touched, too.
    let staging = object(root.path(), "staging.duckdb.zst");
    let packed = zstd::encode_all(&noise[..], 1).unwrap();
    let mut manifest = good.clone();
    let file = &mut manifest["files"][1];
    file["sha256"] = json!(hex::encode(Sha256::digest(&packed)));
    file["size_bytes"] = json!(packed.len());
    file["plain_sha256"] = json!(hex::encode(Sha256::digest(&noise)));
    file["plain_size_bytes"] = json!(noise.len());
    std::fs::write(&staging, packed).unwrap();
    write_manifest(root.path(), &manifest);
    fails("could not be used").await;
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_is_replaced() {
    let root = TempDir::new().unwrap();
    let mut agent = backed_up(root.path(), &[], false).await;
    let file = agent.get("/databases/kg1").await.ok()["database_path"]
        .as_str()
        .unwrap()
        .to_owned();
    agent.kill();
    std::fs::write(&file, b"no database any more").unwrap();
    agent.spawn().await;
    assert!(agent.cypher("kg1", COUNT).await.status.is_server_error());
    // It cannot be saved first, and says so.
    let record = agent
        .restore("kg1", json!({"s3_key": KEY, "force_overwrite": true}))
        .await;
    assert!(
        record["error"].as_str().unwrap().contains("create_system_backup=false"),
        "{record}"
    );
    let record = agent.restore("kg1", overwrite()).await;
    assert_eq!(record["status"], "completed", "{record}");
    assert_eq!(agent.number("kg1", COUNT).await, 500);
}

#[tokio::test]
async fn an_encrypted_backup_needs_its_key() {
    let root = TempDir::new().unwrap();
    let (key, other) = (root.path().join("key"), root.path().join("other"));
    let secret = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    std::fs::write(&key, format!("{secret}\n")).unwrap();
    std::fs::write(&other, format!("{}\n", "A".repeat(43) + "=")).unwrap();
    let with_key = ["--backup-key-file", key.to_str().unwrap()];
    let agent = backed_up(root.path(), &with_key, true).await;

    let written = manifest(root.path());
    assert_eq!(written["encryption"]["algorithm"], "AES-256-GCM");
    let key_id = written["encryption"]["key_id"].as_str().unwrap().to_owned();
    assert_eq!(key_id.len(), 16);
    let graph = object(root.path(), "graph.lbug.zst.enc");
    let bytes = std::fs::read(&graph).unwrap();
    assert!(zstd::decode_all(&bytes[..]).is_err());
    assert!(!object(root.path(), "graph.lbug.zst").exists());
    // The same key of the store without encryption is not that backup.
    let plain = agent
        .post("/databases/kg1/backup", json!({"destination": {"key": KEY}}))
        .await
        .ok();
    let record = agent.task(plain["task_id"].as_str().unwrap()).await;
    assert!(record["error"].as_str().unwrap().contains("encrypted"), "{record}");

    agent.cypher("kg1", "MATCH (p:Person) DELETE p").await.ok();
    let record = agent
        .restore("kg1", json!({"s3_key": KEY, "force_overwrite": true}))
        .await;
    assert_eq!(record["status"], "completed", "{record}");
    assert_eq!(agent.number("kg1", COUNT).await, 500);
    assert_eq!(agent.get("/databases/kg1/tables").await.ok()[0]["row_count"], 10);
    let before = record["result"]["system_backup_key"].as_str().unwrap();
    let before = root.path().join("objects").join(before);
    assert!(before.join("graph.lbug.zst.enc").exists() && !before.join("graph.lbug.zst").exists());
    assert!(!agent.log().contains(secret), "the key is in the log");

    // Whoever can change the manifest, too, cannot make other content pass.
    let mut changed = bytes.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    std::fs::write(&graph, &changed).unwrap();
    let mut forged = written.clone();
    forged["files"][0]["sha256"] = json!(hex::encode(Sha256::digest(&changed)));
    write_manifest(root.path(), &forged);
    let record = agent.restore("kg1", overwrite()).await;
    assert!(record["error"].as_str().unwrap().contains("decryption"), "{record}");
    assert_eq!(agent.number("kg1", COUNT).await, 500);
    std::fs::write(&graph, &bytes).unwrap();
    write_manifest(root.path(), &written);

    let without = Agent::with_store(root.path(), &[]).await;
    let wrong = Agent::with_store(root.path(), &["--backup-key-file", other.to_str().unwrap()]).await;
    for agent in [&without, &wrong] {
        let detail = agent
            .post("/databases/kg1/restore", json!({"s3_key": KEY}))
            .await
            .fails(400);
        assert!(detail.as_str().unwrap().contains(&key_id), "{detail}");
    }
    without.database("kg1", PEOPLE).await;
    without
        .post("/databases/kg1/backup", json!({"encryption": true}))
        .await
        .fails(400);
    // After a change of keys the old one still opens what it closed.
    let both = root.path().join("both");
    std::fs::write(&both, format!("{}=\n{secret}\n", "A".repeat(43))).unwrap();
    let both = Agent::with_store(root.path(), &["--backup-key-file", both.to_str().unwrap()]).await;
    let record = both.restore("kg1", json!({"s3_key": KEY})).await;
    assert_eq!(record["status"], "completed", "{record}");
}
