//! Vectors and memories in backups, restores, downloads, forks and seeds: what was found before is found afterwards.

use crate::fixture::{Agent, Answer, KEY as API_KEY, eventually, parquet};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::{Cursor, Read},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};
use tempfile::TempDir;
use zip::ZipArchive;

const DDL: &str = "CREATE NODE TABLE Element(identifier INT64 PRIMARY KEY, name STRING);";
const KEY: &str = "backups/kg1/0/first";
const TABLES: [&str; 2] = ["Element", "memory"];

/// Vectors of eight numbers, of which the row's number decides; every row says of which generation it is.
async fn build(agent: &Agent, id: &str, table: &str, rows: u64, generation: u64) {
    let select = format!(
        "SELECT i AS identifier, {generation} AS generation,
                [((hash(i * 31 + j) % 2000) / 1000.0 - 1)::FLOAT for j in range(8)] AS vector FROM range({rows}) t(i)"
    );
    let path = format!("/databases/{id}/tables/Staged/files/f");
    agent.put(&path, parquet(&select)).await.ok();
    let query = json!({"query": "SELECT identifier, generation, vector FROM Staged"});
    let path = format!("/databases/{id}/tables/{table}/vector/build");
    assert_eq!(agent.post(&path, query).await.ok()["row_count"], rows);
}

/// What a search finds, with its distances; `None` if there are no such vectors.
async fn found(agent: &Agent, id: &str, table: &str) -> Option<Value> {
    let path = format!("/databases/{id}/tables/{table}/vector/search");
    let body = json!({"embedding": [1, -1, 1, 0.5, 0.2, -0.3, 1, 1], "limit": 15});
    let answer = agent.post(&path, body).await;
    match answer.status.as_u16() {
        404 => None,
        _ => Some(answer.ok()["results"].clone()),
    }
}

/// Adds a memory.
pub(crate) async fn remember(agent: &Agent, id: &str, number: u64) {
    let vector: Vec<f64> = (0..384).map(|at| if at == number % 384 { 1.0 } else { 0.01 }).collect();
    let record = json!({"id": format!("mem_{number:032x}"), "vector": vector, "text": format!("memory {number}")});
    let path = format!("/databases/{id}/semantic-memory/rows");
    agent.post(&path, json!({"records": [record]})).await.ok();
}

/// Texts of the memories near to a vector, the nearest first.
async fn recalled(agent: &Agent, id: &str) -> Vec<String> {
    let vector: Vec<f64> = (0..384).map(|at| 1.0 / f64::from(at + 1)).collect();
    let path = format!("/databases/{id}/semantic-memory/search");
    let answer = agent.post(&path, json!({"embedding": vector, "limit": 100})).await.ok();
    let rows = answer["results"].as_array().unwrap();
    rows.iter()
        .map(|row| row["text"].as_str().unwrap().to_owned())
        .collect()
}

pub(crate) async fn memories(agent: &Agent, id: &str) -> u64 {
    let path = format!("/databases/{id}/semantic-memory/list");
    agent.post(&path, json!({})).await.ok()["total"].as_u64().unwrap()
}

/// A graph with an indexed table of vectors, a small one, and a memory.
async fn graph(agent: &Agent) {
    agent.database("kg1", DDL).await;
    agent
        .cypher("kg1", "UNWIND range(1, 20) AS i CREATE (:Element {identifier: i})")
        .await
        .ok();
    build(agent, "kg1", TABLES[0], 1500, 1).await;
    build(agent, "kg1", TABLES[1], 60, 1).await;
    for number in 0..5 {
        remember(agent, "kg1", number).await;
    }
    let forgotten = format!("/databases/kg1/semantic-memory/rows/mem_{:032x}", 4);
    agent.delete(&forgotten).await.ok();
}

/// Everything that searches find in a database.
async fn everything(agent: &Agent, id: &str) -> (Vec<Option<Value>>, Vec<String>) {
    let mut tables = Vec::new();
    for table in TABLES {
        tables.push(found(agent, id, table).await);
    }
    (tables, recalled(agent, id).await)
}

fn object(root: &Path, name: &str) -> PathBuf {
    root.join("objects").join(KEY).join(name)
}

fn manifest(root: &Path) -> Value {
    serde_json::from_slice(&fs::read(object(root, "manifest.json")).unwrap()).unwrap()
}

fn overwrite() -> Value {
    json!({"s3_key": KEY, "force_overwrite": true, "create_system_backup": false})
}

async fn restored(agent: &Agent, id: &str, body: Value) -> Value {
    let record = agent.restore(id, body).await;
    assert_eq!(record["status"], "completed", "{record}");
    record["result"].clone()
}

#[tokio::test]
async fn a_restored_database_finds_what_the_backup_found() {
    let root = TempDir::new().unwrap();
    let key = root.path().join("key");
    fs::write(&key, "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n").unwrap();
    for encryption in [false, true] {
        let objects = TempDir::new().unwrap();
        let mut agent = Agent::with_store(objects.path(), &["--backup-key-file", key.to_str().unwrap()]).await;
        graph(&agent).await;
        let before = everything(&agent, "kg1").await;
        assert!(before.0.iter().all(Option::is_some) && before.1.len() == 4);
        let result = agent.backup("kg1", KEY, encryption).await["result"].clone();
        assert_eq!(result["vector_tables"], json!(TABLES));
        assert_eq!(result["semantic_memory_included"], true);
        let end = if encryption { ".zst.enc" } else { ".zst" };
        let mut names: Vec<String> = fs::read_dir(object(objects.path(), ""))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let expected = [
            "Element.lance.tar",
            "graph.lbug",
            "memory.lance.tar",
            "semantic-memory.tar",
            "staging.duckdb",
        ];
        let mut expected: Vec<String> = expected.iter().map(|name| format!("{name}{end}")).collect();
        expected.insert(2, "manifest.json".into());
        assert_eq!(names, expected);
        for file in manifest(objects.path())["files"].as_array().unwrap() {
            let stored = fs::read(object(objects.path(), file["name"].as_str().unwrap())).unwrap();
            assert_eq!(file["sha256"], json!(hex::encode(Sha256::digest(&stored))));
        }

        // Everything changes: one table is built anew, one is gone, another one comes, memories come and go.
        build(&agent, "kg1", TABLES[0], 30, 2).await;
        agent.delete("/databases/kg1/tables/memory/vector").await.ok();
        build(&agent, "kg1", "Later", 30, 2).await;
        remember(&agent, "kg1", 99).await;
        agent
            .delete(&format!("/databases/kg1/semantic-memory/rows/mem_{:032x}", 0))
            .await
            .ok();
        let changed = everything(&agent, "kg1").await;
        assert_ne!(changed, before);

        let result = restored(&agent, "kg1", json!({"s3_key": KEY, "force_overwrite": true})).await;
        assert_eq!(result["vector_tables"], json!(TABLES));
        assert_eq!(everything(&agent, "kg1").await, before);
        assert_eq!(found(&agent, "kg1", "Later").await, None);
        let info = agent.get("/databases/kg1/tables/Element/vector").await.ok();
        assert_eq!(
            (&info["row_count"], &info["indexed_rows"]),
            (&json!(1500), &json!(1500))
        );
        // What was there before comes back from the system's backup, under another name.
        let saved = result["system_backup_key"].as_str().unwrap();
        restored(&agent, "kg2", json!({"s3_key": saved})).await;
        assert_eq!(everything(&agent, "kg2").await, changed);
        assert!(found(&agent, "kg2", "Later").await.is_some());

        // They are written on, and survive.
        for id in ["kg1", "kg2"] {
            remember(&agent, id, 7).await;
            build(&agent, id, "Another", 20, 3).await;
        }
        let (first, second) = (everything(&agent, "kg1").await, everything(&agent, "kg2").await);
        agent.restart_after_kill().await;
        assert_eq!(everything(&agent, "kg1").await, first);
        assert_eq!(everything(&agent, "kg2").await, second);
        assert_eq!(agent.leftovers(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_backup_without_vectors_restores_none() {
    let root = TempDir::new().unwrap();
    let agent = Agent::with_store(root.path(), &[]).await;
    graph(&agent).await;
    agent.backup("kg1", KEY, false).await;
    // As an older agent wrote it.
    let mut old = manifest(root.path());
    let files = old["files"].as_array_mut().unwrap();
    files.retain(|file| matches!(file["kind"].as_str(), Some("graph" | "staging")));
    fs::write(object(root.path(), "manifest.json"), old.to_string()).unwrap();
    let result = restored(&agent, "kg1", overwrite()).await;
    assert_eq!(
        (&result["vector_tables"], &result["semantic_memory_included"]),
        (&json!([]), &json!(false))
    );
    assert_eq!(everything(&agent, "kg1").await, (vec![None, None], Vec::new()));
    let storage = agent.get("/databases/kg1/storage").await.ok();
    let kinds: Vec<_> = storage["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["type"])
        .collect();
    assert!(!kinds.contains(&&json!("vectors")), "{storage}");
    // There is room for new ones.
    remember(&agent, "kg1", 1).await;
    build(&agent, "kg1", TABLES[0], 10, 2).await;
    assert_eq!(memories(&agent, "kg1").await, 1);
}

#[tokio::test]
async fn bad_vectors_change_nothing() {
    let root = TempDir::new().unwrap();
    let agent = Agent::with_store(root.path(), &[]).await;
    graph(&agent).await;
    agent.backup("kg1", KEY, false).await;
    remember(&agent, "kg1", 50).await;
    let before = everything(&agent, "kg1").await;
    let good = manifest(root.path());
    let place = |name: &str| {
        let files = good["files"].as_array().unwrap();
        files.iter().position(|file| file["name"] == name).unwrap()
    };
    let fails = async |why: &str| {
        for id in ["kg1", "kg2"] {
            let record = agent.restore(id, overwrite()).await;
            assert_eq!(record["status"], "failed", "{why}: {record}");
            assert!(record["error"].as_str().unwrap().contains(why), "{why}: {record}");
        }
        agent.get("/databases/kg2").await.fails(404);
        assert_eq!(everything(&agent, "kg1").await, before, "{why}");
        assert_eq!(agent.leftovers(), Vec::<String>::new(), "{why}");
    };
    for name in ["Element.lance.tar.zst", "semantic-memory.tar.zst"] {
        let path = object(root.path(), name);
        let bytes = fs::read(&path).unwrap();
        let mut changed = bytes.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 0x55;
        fs::write(&path, &changed).unwrap();
        fails(name).await;
        fs::write(&path, &bytes[..middle]).unwrap();
        fails("its size").await;
        fs::remove_file(&path).unwrap();
        fails(name).await;

        // Whoever can write the manifest, too, gets as far as the engine, and no further.
        let store = |plain: &[u8]| {
            let packed = zstd::encode_all(plain, 1).unwrap();
            let mut forged = good.clone();
            let file = &mut forged["files"][place(name)];
            file["sha256"] = json!(hex::encode(Sha256::digest(&packed)));
            file["size_bytes"] = json!(packed.len());
            file["plain_sha256"] = json!(hex::encode(Sha256::digest(plain)));
            file["plain_size_bytes"] = json!(plain.len());
            fs::write(&path, packed).unwrap();
            fs::write(object(root.path(), "manifest.json"), forged.to_string()).unwrap();
        };
        let plain = zstd::decode_all(&bytes[..]).unwrap();
        store(&[7; 10_000]);
        fails(name).await;
        store(&plain[..plain.len() / 2]);
        fails(name).await;
        for (from, to, why) in [
            ("\"rows\": ", "\"rows\": 1", "rows where its manifest says"),
            ("\"format\": 1", "\"format\": 2", "format 2"),
        ] {
            store(&rewritten(&plain, |entries| {
                let text = String::from_utf8(entries[0].1.clone()).unwrap();
                entries[0].1 = text.replace(from, to).into_bytes();
            }));
            fails(why).await;
        }
        store(&rewritten(&plain, |entries| {
            entries.push(("data/../../out".into(), vec![1]))
        }));
        fails("not expected").await;
        store(&rewritten(&plain, |entries| {
            for (name, content) in entries.iter_mut() {
                if name.starts_with("data/_versions") {
                    content.iter_mut().for_each(|byte| *byte ^= 0x5a);
                }
            }
        }));
        fails("does not hold").await;
        fs::write(&path, &bytes).unwrap();
        fs::write(object(root.path(), "manifest.json"), good.to_string()).unwrap();
    }
    // Vectors of a table are no memory.
    let mut forged = good.clone();
    for field in ["sha256", "size_bytes", "plain_sha256", "plain_size_bytes"] {
        forged["files"][place("semantic-memory.tar.zst")][field] =
            good["files"][place("memory.lance.tar.zst")][field].clone();
    }
    let memory = object(root.path(), "semantic-memory.tar.zst");
    let bytes = fs::read(&memory).unwrap();
    fs::copy(object(root.path(), "memory.lance.tar.zst"), &memory).unwrap();
    fs::write(object(root.path(), "manifest.json"), forged.to_string()).unwrap();
    fails("other columns").await;
    fs::write(&memory, bytes).unwrap();
    fs::write(object(root.path(), "manifest.json"), good.to_string()).unwrap();
    restored(&agent, "kg1", overwrite()).await;
    assert_eq!(memories(&agent, "kg1").await, 4);
}

/// A tar with other entries.
fn rewritten(plain: &[u8], change: impl FnOnce(&mut Vec<(String, Vec<u8>)>)) -> Vec<u8> {
    let mut entries = Vec::new();
    for entry in tar::Archive::new(plain).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        entries.push((name, content));
    }
    change(&mut entries);
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, content.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

#[tokio::test]
async fn backups_are_made_while_memories_come() {
    let root = TempDir::new().unwrap();
    let agent = Agent::with_store(root.path(), &[]).await;
    graph(&agent).await;
    let stop = AtomicBool::new(false);
    let writing = async {
        let mut number = 1000;
        while !stop.load(Ordering::Relaxed) {
            remember(&agent, "kg1", number).await;
            number += 1;
        }
        number - 1000 + 4
    };
    let backing_up = async {
        let mut counts = Vec::new();
        for round in 0..4 {
            let key = format!("backups/kg1/0/{round}");
            let least = memories(&agent, "kg1").await;
            agent.backup("kg1", &key, false).await;
            let most = memories(&agent, "kg1").await;
            counts.push((key, least, most));
        }
        stop.store(true, Ordering::Relaxed);
        counts
    };
    let (written, counts) = futures::future::join(writing, backing_up).await;
    for (number, (key, least, most)) in counts.into_iter().enumerate() {
        let id = format!("copy{number}");
        restored(&agent, &id, json!({"s3_key": key})).await;
        let count = memories(&agent, &id).await;
        // One more than was counted may have been written and not yet answered.
        assert!((least..=most + 1).contains(&count), "{least} {count} {most}");
        assert_eq!(
            found(&agent, &id, TABLES[0]).await,
            found(&agent, "kg1", TABLES[0]).await
        );
    }
    assert_eq!(memories(&agent, "kg1").await, written);
}

#[tokio::test]
async fn searches_go_on_through_a_restore() {
    let root = TempDir::new().unwrap();
    let agent = Agent::with_store(root.path(), &[]).await;
    graph(&agent).await;
    agent.backup("kg1", KEY, false).await;
    let old = found(&agent, "kg1", TABLES[0]).await;
    build(&agent, "kg1", TABLES[0], 1500, 2).await;
    let new = found(&agent, "kg1", TABLES[0]).await;
    assert_ne!(old, new);
    let stop = AtomicBool::new(false);
    let searching = (0..4).map(|_| async {
        let mut seen = 0;
        while !stop.load(Ordering::Relaxed) {
            let found = found(&agent, "kg1", TABLES[0]).await;
            assert!(found == old || found == new, "{found:?}");
            seen += 1;
        }
        seen
    });
    let restoring = async {
        for _ in 0..3 {
            restored(&agent, "kg1", overwrite()).await;
            assert_eq!(found(&agent, "kg1", TABLES[0]).await, old);
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (seen, ()) = futures::future::join(futures::future::join_all(searching), restoring).await;
    assert!(seen.into_iter().all(|searches| searches > 0));
}

#[tokio::test]
async fn a_download_has_the_vectors() {
    let agent = Agent::start().await;
    graph(&agent).await;
    let response = agent
        .request(Method::GET, "/databases/kg1/backup")
        .send()
        .await
        .unwrap();
    let body = response.bytes().await.unwrap().to_vec();
    let mut archive = ZipArchive::new(Cursor::new(body)).unwrap();
    let mut read = |name: &str| {
        let mut content = Vec::new();
        archive.by_name(name).unwrap().read_to_end(&mut content).unwrap();
        content
    };
    let manifest: Value = serde_json::from_slice(&read("manifest.json")).unwrap();
    let mut kinds = Vec::new();
    for file in manifest["files"].as_array().unwrap() {
        let content = read(file["name"].as_str().unwrap());
        assert_eq!(file["sha256"], json!(hex::encode(Sha256::digest(&content))));
        assert_eq!(file["size_bytes"], json!(content.len()));
        kinds.push((
            file["kind"].as_str().unwrap().to_owned(),
            file["name"].as_str().unwrap().to_owned(),
        ));
    }
    let expected = [
        ("graph", "kg1.lbug"),
        ("staging", "kg1.duckdb"),
        ("vectors", "kg1.Element.lance.tar"),
        ("vectors", "kg1.memory.lance.tar"),
        ("memory", "kg1.semantic-memory.tar"),
    ];
    assert_eq!(kinds, expected.map(|(kind, name)| (kind.to_owned(), name.to_owned())));
    // With gzip it is an archive that can be imported.
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &read("kg1.Element.lance.tar")).unwrap();
    agent.database("kg2", DDL).await;
    let import = agent.request(Method::POST, "/databases/kg2/tables/Element/vector/import");
    let import = import
        .header("Content-Type", "application/gzip")
        .body(packed.finish().unwrap());
    assert_eq!(Answer::to(import).await.ok()["row_count"], 1500);
    assert_eq!(
        found(&agent, "kg2", TABLES[0]).await,
        found(&agent, "kg1", TABLES[0]).await
    );
    eventually("no copy is left", || async { agent.leftovers() }, Vec::is_empty).await;
}

#[tokio::test]
async fn a_fork_has_its_parents_vectors_and_its_memory_if_asked() {
    let mut agent = Agent::start().await;
    graph(&agent).await;
    let parent = everything(&agent, "kg1").await;
    let fork = async |id: &str, body: Value| agent.post(&format!("/databases/{id}/fork-from/kg1"), body).await.ok();
    let plain = fork("kg1_plain", json!({})).await;
    assert_eq!(
        (&plain["vector_tables"], &plain["memory_copied"]),
        (&json!(TABLES), &json!(false))
    );
    assert_eq!(everything(&agent, "kg1_plain").await, (parent.0.clone(), Vec::new()));
    let all = fork("kg1_all", json!({"include_memory": true})).await;
    assert_eq!(all["memory_copied"], true);
    assert_eq!(everything(&agent, "kg1_all").await, parent);
    let none = fork("kg1_none", json!({"include_vectors": false})).await;
    assert_eq!(none["vector_tables"], json!([]));
    assert_eq!(everything(&agent, "kg1_none").await, (vec![None, None], Vec::new()));
    let some = fork("kg1_some", json!({"tables": ["Element"]})).await;
    assert_eq!(some["vector_tables"], json!(["Element"]));
    assert_eq!(everything(&agent, "kg1_some").await.0, [parent.0[0].clone(), None]);

    // Each goes its own way, although they share files.
    build(&agent, "kg1", TABLES[0], 20, 2).await;
    remember(&agent, "kg1", 200).await;
    remember(&agent, "kg1_all", 300).await;
    agent.delete("/databases/kg1_plain/tables/memory/vector").await.ok();
    let mut changed = parent.clone();
    changed.1.push("memory 300".into());
    let sorted = |mut all: (Vec<Option<Value>>, Vec<String>)| {
        all.1.sort();
        all
    };
    assert_eq!(sorted(everything(&agent, "kg1_all").await), sorted(changed.clone()));
    assert_eq!(everything(&agent, "kg1_plain").await.0, [parent.0[0].clone(), None]);
    assert_eq!(memories(&agent, "kg1").await, 5);
    agent.delete("/databases/kg1").await.ok();
    agent.restart_after_kill().await;
    assert_eq!(sorted(everything(&agent, "kg1_all").await), sorted(changed));
    let storage = agent.get("/databases/kg1_all/storage").await.ok();
    let items = storage["items"].as_array().unwrap();
    let vectors = items.iter().find(|item| item["type"] == "vectors").unwrap();
    assert!(vectors["bytes"].as_u64().unwrap() > 1500 * 8 * 4, "{storage}");
    agent.delete("/databases/kg1_all").await.ok();
    assert!(!agent.volume().join("vectors/kg1_all").exists());
    assert_eq!(agent.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_database_with_vectors_of_its_own_does_not_make_place() {
    let agent = Agent::start().await;
    graph(&agent).await;
    agent.database("kg1_dev", DDL).await;
    remember(&agent, "kg1_dev", 1).await;
    agent
        .post("/databases/kg1_dev/fork-from/kg1", json!({}))
        .await
        .fails(409);
    assert_eq!(memories(&agent, "kg1_dev").await, 1);
    // One that has nothing makes place, and has the parent's vectors then.
    agent.database("kg1_new", DDL).await;
    agent.post("/databases/kg1_new/fork-from/kg1", json!({})).await.ok();
    assert_eq!(
        found(&agent, "kg1_new", TABLES[0]).await,
        found(&agent, "kg1", TABLES[0]).await
    );
    assert_eq!(agent.leftovers(), Vec::<String>::new());
}

async fn publish(writer: &Agent) {
    let body = json!({"backup_type": "replica"});
    let started = writer.post("/databases/kg1/backup", body).await.ok();
    let record = writer.task(started["task_id"].as_str().unwrap()).await;
    assert_eq!(record["status"], "completed", "{record}");
}

/// What is served after a look that is done.
async fn refresh(replica: &Agent) -> Value {
    let path = "/admin/seed/refresh?wait_seconds=300";
    replica.post(path, json!({})).await.ok()["seeds"][0].clone()
}

#[tokio::test]
async fn a_replica_searches_what_its_writer_published() {
    let root = TempDir::new().unwrap();
    let writer = Agent::with_store(root.path(), &[]).await;
    graph(&writer).await;
    publish(&writer).await;
    let args = [
        "--role",
        "replica",
        "--seed",
        "seeds/kg1",
        "--seed-poll-seconds",
        "86400",
    ];
    let mut replica = Agent::with_store(root.path(), &args).await;
    let status = refresh(&replica).await;
    assert_eq!(
        (&status["state"], &status["error"]),
        (&json!("ready"), &Value::Null),
        "{status}"
    );
    let first = everything(&writer, "kg1").await;
    assert_eq!(everything(&replica, "kg1").await, first);
    let storage = replica.get("/databases/kg1/storage").await.ok();
    let items = storage["items"].as_array().unwrap();
    assert!(
        items
            .iter()
            .any(|item| item["type"] == "vectors" && item["bytes"].as_u64().unwrap() > 0)
    );
    // The tables that are served cannot be changed.
    let path = "/databases/kg1/tables/Element/vector";
    replica.delete(path).await.fails(403);

    // Searches see one seed after the other, each as a whole, and none fails.
    let stop = AtomicBool::new(false);
    let searching = (0..4).map(|_| async {
        let mut last = 0;
        while !stop.load(Ordering::Relaxed) {
            let rows = found(&replica, "kg1", TABLES[0]).await.unwrap();
            let generations: Vec<_> = rows
                .as_array()
                .unwrap()
                .iter()
                .map(|row| row["generation"].as_u64())
                .collect();
            let now = generations[0].unwrap();
            assert!(
                generations.iter().all(|one| *one == Some(now)) && now >= last,
                "{generations:?} after {last}"
            );
            last = now;
        }
        last
    });
    let publishing = async {
        for generation in 2..=4 {
            build(&writer, "kg1", TABLES[0], 1200, generation).await;
            remember(&writer, "kg1", 400 + generation).await;
            publish(&writer).await;
            let status = refresh(&replica).await;
            assert_eq!(status["error"], Value::Null, "{status}");
            assert_eq!(everything(&replica, "kg1").await, everything(&writer, "kg1").await);
        }
        stop.store(true, Ordering::Relaxed);
    };
    futures::future::join(futures::future::join_all(searching), publishing).await;
    let seeds = || async { fs::read_dir(replica.volume().join("seeds/kg1")).unwrap().count() };
    eventually("one seed is left", seeds, |count| *count == 1).await;

    // A seed whose vectors are damaged is refused, and the old one stays.
    let served = everything(&replica, "kg1").await;
    build(&writer, "kg1", TABLES[0], 1200, 9).await;
    publish(&writer).await;
    let pointer = root.path().join("objects/seeds/kg1/latest.json");
    let pointer: Value = serde_json::from_slice(&fs::read(pointer).unwrap()).unwrap();
    let seed = root.path().join("objects/seeds/kg1");
    let seed = seed
        .join(pointer["epoch"].to_string())
        .join(pointer["version"].to_string());
    let table = seed.join("Element.lance.tar.zst");
    let good = fs::read(&table).unwrap();
    let mut damaged = good.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&table, damaged).unwrap();
    let status = refresh(&replica).await;
    assert!(
        status["error"].as_str().unwrap().contains("Element.lance.tar.zst"),
        "{status}"
    );
    assert_eq!(status["state"], "ready");
    assert_eq!(everything(&replica, "kg1").await, served);
    assert_eq!(seeds().await, 1, "what was refused stays on the volume");
    fs::write(&table, good).unwrap();
    assert_eq!(refresh(&replica).await["error"], Value::Null);
    let newest = everything(&writer, "kg1").await;
    assert_eq!(everything(&replica, "kg1").await, newest);

    // And it is all there at once after a restart, without the store.
    replica.kill();
    fs::rename(root.path().join("objects"), root.path().join("away")).unwrap();
    replica.spawn().await;
    let health = || async { Answer::to(replica.bare(Method::GET, "/health")).await.status };
    eventually("the replica serves", health, |status| status.is_success()).await;
    assert_eq!(everything(&replica, "kg1").await, newest);
}

#[tokio::test]
async fn a_restored_backup_of_another_agent_is_searched_there() {
    let root = TempDir::new().unwrap();
    let agent = Agent::with_store(root.path(), &[]).await;
    graph(&agent).await;
    agent.backup("kg1", KEY, false).await;
    let before = everything(&agent, "kg1").await;
    drop(agent);
    let store = format!("file://{}", root.path().join("objects").display());
    let args = ["--object-store", store.as_str()];
    let other = Agent::launch(TempDir::new().unwrap(), &args, &[("GRAPH_API_KEY", API_KEY)]).await;
    restored(&other, "kg1", json!({"s3_key": KEY})).await;
    assert_eq!(everything(&other, "kg1").await, before);
    assert_eq!(other.number("kg1", "MATCH (e:Element) RETURN count(e)").await, 20);
}
