//! Databases in files that every version of the engine reads, and back: what comes back is what was there, or nothing
//! changes.

use crate::fixture::{Agent, PEOPLE, people};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const SCHEMA: &str = "
CREATE NODE TABLE Thing(id SERIAL, i8 INT8, u64 UINT64, i128 INT128, f FLOAT, d DOUBLE, de DECIMAL(38, 10),
    s STRING DEFAULT 'none', b BLOB, uu UUID, bo BOOL, da DATE, ts TIMESTAMP, tn TIMESTAMP_NS, tm TIMESTAMP_MS,
    tse TIMESTAMP_SEC, tz TIMESTAMP_TZ, iv INTERVAL, l STRING[][], a FLOAT[3], st STRUCT(a INT128, b STRING[]),
    m MAP(STRING, INT64), un UNION(num INT64, str STRING), PRIMARY KEY(id));
CREATE NODE TABLE Empty(k STRING PRIMARY KEY);
CREATE NODE TABLE `Odd name`(`the key` INT128 PRIMARY KEY, `q\"uoted` STRING);
CREATE REL TABLE LINK(FROM Thing TO Thing, FROM Thing TO `Odd name` MANY_ONE, `from` STRING, w DECIMAL(5, 2));
CREATE REL TABLE ONE(FROM Thing TO Thing, ONE_MANY);
COMMENT ON TABLE Thing IS 'it\\'s; a comment'";

const ROWS: &[&str] = &[
    "CREATE SEQUENCE numbers START 5 INCREMENT 3",
    "RETURN nextval('numbers')",
    "CREATE SEQUENCE unused START 7",
    "CREATE (:Thing {i8: -8, u64: 18446744073709551615, i128: CAST('-170141183460469231731687303715884105728' AS INT128),
        f: CAST('nan' AS FLOAT), d: 0.1, de: CAST('-1234567890123456789012345678.0123456789' AS DECIMAL(38, 10)), s: 'Zürich',
        b: BLOB('\\\\xAA\\\\x00B'), uu: UUID('123e4567-e89b-12d3-a456-426614174000'), bo: true, da: DATE('1969-02-28'),
        ts: TIMESTAMP('1969-02-28 01:02:03.000004'), tn: CAST('2020-02-28 01:02:03.123456' AS TIMESTAMP_NS),
        tm: CAST('2020-02-28 01:02:03.123' AS TIMESTAMP_MS), tse: CAST('2020-02-28 01:02:03' AS TIMESTAMP_SEC),
        tz: CAST('2020-02-28 01:02:03.5+02:00' AS TIMESTAMP_TZ),
        iv: to_months(14) + to_days(-3) + to_microseconds(-5), l: [['a,b', ''], []],
        a: CAST([1.0, 2.5, -3.0] AS FLOAT[3]), st: CAST({a: 5, b: ['x']} AS STRUCT(a INT128, b STRING[])),
        m: map(['k'], [1]), un: union_value(num := 7)})",
    "CREATE (:Thing {s: 'gone'})",
    "CREATE (:Thing {un: union_value(str := '7'), l: []})",
    "MATCH (t:Thing {s: 'gone'}) DELETE t",
    "CREATE (:`Odd name` {`the key`: CAST('5' AS INT128), `q\"uoted`: 'x'})",
    // Two relationships that are alike are two.
    "MATCH (a:Thing {id: 0}), (b:Thing {id: 2}) CREATE (a)-[:LINK {`from`: 'x', w: CAST('1.25' AS DECIMAL(5, 2))}]->(b),
        (a)-[:LINK {`from`: 'x', w: CAST('1.25' AS DECIMAL(5, 2))}]->(b), (a)-[:ONE]->(b)",
    "MATCH (a:Thing {id: 0}), (b:`Odd name`) CREATE (a)-[:LINK]->(b)",
];

/// Everything that a caller sees of the rows.
const LOOKS: &[&str] = &[
    "MATCH (t:Thing) RETURN t.id, t.i8, t.u64, t.i128, t.f, t.d, t.s, t.b, t.uu, t.bo, t.da, t.ts, t.tn, t.tm, t.tse, t.tz,
        t.iv, t.l, t.a, t.st, t.m, t.un ORDER BY t.id",
    "MATCH (t:Thing) RETURN t.id, CAST(t.iv AS STRING), CAST(t.de AS STRING), union_tag(t.un) ORDER BY t.id",
    "MATCH (o:`Odd name`) RETURN o.*",
    "MATCH (a:Thing)-[r:LINK]->(b:Thing) RETURN a.id, r.`from`, r.w, b.id",
    "MATCH (a:Thing)-[r:LINK]->(b:`Odd name`) RETURN a.id, r.`from`, r.w, b.`the key`",
    "MATCH (a:Thing)-[:ONE]->(b:Thing) RETURN a.id, b.id",
    "MATCH (e:Empty) RETURN count(e)",
    "RETURN currval('numbers')",
];

async fn export(agent: &Agent, id: &str, body: Value) -> Value {
    let started = agent.post(&format!("/databases/{id}/export"), body).await.ok();
    agent.task(started["task_id"].as_str().unwrap()).await
}

async fn import(agent: &Agent, id: &str, body: Value) -> Value {
    let started = agent.post(&format!("/databases/{id}/import"), body).await.ok();
    agent.task(started["task_id"].as_str().unwrap()).await
}

#[track_caller]
fn completed(record: Value) -> Value {
    assert_eq!(record["status"], "completed", "{record}");
    record["result"].clone()
}

#[track_caller]
fn failed(record: &Value, because: &str) {
    assert_eq!(record["status"], "failed", "{record}");
    let error = record["error"].as_str().unwrap();
    assert!(error.contains(because), "{error}");
}

async fn looks(agent: &Agent, id: &str) -> Vec<Value> {
    let mut seen = Vec::new();
    for statement in LOOKS {
        seen.push(agent.cypher(id, statement).await.ok()["data"].clone());
    }
    seen
}

/// What the schema says, without the engine's numbers.
async fn schema(agent: &Agent, id: &str) -> Vec<Value> {
    let mut schema = agent.get(&format!("/databases/{id}/schema")).await.ok();
    let mut tables: Vec<Value> = schema["tables"].as_array_mut().unwrap().drain(..).collect();
    for table in &mut tables {
        table.as_object_mut().unwrap().remove("id");
    }
    tables.sort_by_key(|table| table["name"].to_string());
    tables
}

/// People, and an export of them.
async fn exported(root: &Path, rows: u64, key: &str) -> Agent {
    let agent = Agent::with_store(root, &[]).await;
    agent.database("kg1", PEOPLE).await;
    agent
        .put("/databases/kg1/tables/Person/files/f", people(rows))
        .await
        .ok();
    agent
        .post("/databases/kg1/tables/Person/materialize", json!({}))
        .await
        .ok();
    completed(export(&agent, "kg1", json!({"destination": {"key": key}})).await);
    agent
}

const COUNT: &str = "MATCH (p:Person) RETURN count(p)";

#[tokio::test]
async fn every_type_comes_back() {
    let root = TempDir::new().unwrap();
    let agent = Agent::with_store(root.path(), &[]).await;
    agent.database("kg1", SCHEMA).await;
    for statement in ROWS {
        agent.cypher("kg1", statement).await.ok();
    }
    agent.put("/databases/kg1/tables/Staged/files/f", people(10)).await.ok();
    let before = looks(&agent, "kg1").await;
    let result = completed(export(&agent, "kg1", json!({"destination": {"key": "exports/kg1/0/a"}})).await);
    assert_eq!(
        (
            &result["node_count"],
            &result["relationship_count"],
            &result["duckdb_included"]
        ),
        (&json!(3), &json!(4), &json!(true))
    );
    assert_eq!(agent.leftovers(), Vec::<String>::new());
    let directory = root.path().join("objects/exports/kg1/0/a");
    let document: Value = serde_json::from_slice(&std::fs::read(directory.join("export.json")).unwrap()).unwrap();
    // Three node tables, two kinds of LINK, and ONE.
    assert_eq!(document["tables"].as_array().unwrap().len(), 6);
    assert_eq!(
        (&document["storage_version"], &document["ladybug_version"]),
        (&json!(49), &json!("0.22.1"))
    );

    let result = completed(import(&agent, "kg2", json!({"s3_key": "exports/kg1/0/a/export.json"})).await);
    assert_eq!(
        (&result["node_count"], &result["source_graph_id"]),
        (&json!(3), &json!("kg1"))
    );
    assert_eq!(looks(&agent, "kg2").await, before);
    assert_eq!(schema(&agent, "kg2").await, schema(&agent, "kg1").await);
    let tables = agent.get("/databases/kg2/tables").await.ok();
    assert_eq!(
        (&tables[0]["table_name"], &tables[0]["row_count"]),
        (&json!("Staged"), &json!(10))
    );
    // What the engine counts goes on, and what it allows has not changed.
    for id in ["kg1", "kg2"] {
        agent.cypher(id, "CREATE (:Thing {s: 'next'})").await.ok();
        assert_eq!(
            agent.number(id, "MATCH (t:Thing {s: 'next'}) RETURN t.id").await,
            3,
            "{id}"
        );
        assert_eq!(agent.number(id, "RETURN nextval('numbers')").await, 8, "{id}");
        assert_eq!(agent.number(id, "RETURN nextval('unused')").await, 7, "{id}");
        assert_eq!(
            agent
                .number(id, "MATCH (t:Thing {id: 3}) WHERE t.s = 'next' RETURN count(t)")
                .await,
            1
        );
        let more = agent
            .cypher(id, "MATCH (a:Thing {id: 3}), (b:Thing {id: 2}) CREATE (a)-[:ONE]->(b)")
            .await;
        assert!(
            !more.status.is_success(),
            "{id}: ONE_MANY allows a second one: {}",
            more.text
        );
    }
    // The same key again is the same export; another graph's is not taken for it.
    let again = completed(export(&agent, "kg1", json!({"destination": {"key": "exports/kg1/0/a"}})).await);
    assert_eq!(again["node_count"], 3);
    let other = export(&agent, "kg2", json!({"destination": {"key": "exports/kg1/0/a"}})).await;
    failed(&other, "an export of kg1");
}

#[tokio::test]
async fn what_an_export_cannot_say_is_refused() {
    let root = TempDir::new().unwrap();
    let agent = Agent::with_store(root.path(), &[]).await;
    agent
        .database("kg1", "CREATE NODE TABLE P(id INT64 PRIMARY KEY, v INTERVAL[])")
        .await;
    let key = "exports/kg1/0/a";
    agent.cypher("kg1", "CREATE (:P {id: 1, v: [to_days(-5)]})").await.ok();
    failed(
        &export(&agent, "kg1", json!({"destination": {"key": key}})).await,
        "P.v",
    );
    agent.cypher("kg1", "MATCH (p:P) DELETE p").await.ok();
    let parted = "CREATE NODE TABLE Q(id INT64 PRIMARY KEY) PARTITION BY HASH(id) PARTITIONS 3";
    agent.cypher("kg1", parted).await.fails(403);
    // What numbers it is called as before.
    agent
        .cypher("kg1", "CREATE NODE TABLE R(id SERIAL PRIMARY KEY)")
        .await
        .ok();
    agent.cypher("kg1", "ALTER TABLE R RENAME TO S").await.ok();
    failed(
        &export(&agent, "kg1", json!({"destination": {"key": key}})).await,
        "S.id",
    );
    assert!(!root.path().join("objects").join(key).join("export.json").exists());
    assert_eq!(agent.leftovers(), Vec::<String>::new());
    agent.post("/databases/none/export", json!({})).await.fails(404);
    agent
        .post("/databases/kg1/export", json!({"destination": {"key": "../a"}}))
        .await
        .fails(400);
    agent
        .post("/databases/kg1/export", json!({"encryption": true}))
        .await
        .fails(400);
}

#[tokio::test]
async fn an_export_needs_nothing_of_the_vectors() {
    let root = TempDir::new().unwrap();
    let agent = exported(root.path(), 10, "exports/kg1/0/a").await;
    let vectors = agent.volume().join("vectors/kg1");
    std::fs::create_dir_all(&vectors).unwrap();
    std::fs::write(vectors.join("memory.json"), "no record").unwrap();
    let result = completed(export(&agent, "kg1", json!({"destination": {"key": "exports/kg1/0/b"}})).await);
    assert_eq!(result["node_count"], 10);
    assert_eq!(agent.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn an_export_that_lies_changes_nothing() {
    const KEY: &str = "exports/kg1/0/a";
    let root = TempDir::new().unwrap();
    let agent = exported(root.path(), 1000, KEY).await;
    agent.cypher("kg1", "CREATE (:Person {identifier: -1})").await.ok();
    let body = json!({"s3_key": KEY, "force_overwrite": true});
    let objects = root.path().join("objects").join(KEY);
    let whole: Vec<(PathBuf, Vec<u8>)> = std::fs::read_dir(&objects)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    let document: Value = serde_json::from_slice(&std::fs::read(objects.join("export.json")).unwrap()).unwrap();
    let rows = objects.join(document["tables"][0]["file"]["name"].as_str().unwrap());
    let write = |document: &Value| std::fs::write(objects.join("export.json"), document.to_string()).unwrap();
    let put_back = || {
        whole
            .iter()
            .for_each(|(path, content)| std::fs::write(path, content).unwrap())
    };

    // What can be seen without the files is refused at once.
    agent
        .post("/databases/kg1/import", json!({"s3_key": KEY}))
        .await
        .fails(409);
    agent
        .post("/databases/kg1/import", json!({"s3_key": "exports/none"}))
        .await
        .fails(409);
    agent
        .post("/databases/kg2/import", json!({"s3_key": "exports/none"}))
        .await
        .fails(404);
    agent.post("/databases/kg1/import", json!({})).await.fails(422);
    let mut lie = document.clone();
    lie["node_count"] = json!(1001);
    write(&lie);
    agent.post("/databases/kg1/import", body.clone()).await.fails(400);
    std::fs::write(objects.join("export.json"), "{").unwrap();
    agent.post("/databases/kg1/import", body.clone()).await.fails(400);
    put_back();

    // The rest is found before anything is replaced.
    let mut lie = document.clone();
    lie["node_count"] = json!(1001);
    lie["tables"][0]["rows"] = json!(1001);
    write(&lie);
    failed(&import(&agent, "kg1", body.clone()).await, "1001 rows");
    let mut lie = document.clone();
    lie["tables"][0]["table"] = json!("Persons");
    write(&lie);
    failed(&import(&agent, "kg1", body.clone()).await, "Persons");
    put_back();
    std::fs::remove_file(&rows).unwrap();
    failed(&import(&agent, "kg1", body.clone()).await, "table-0000");
    put_back();
    let mut damaged = std::fs::read(&rows).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(&rows, &damaged).unwrap();
    failed(&import(&agent, "kg1", body.clone()).await, "table-0000");
    put_back();
    assert_eq!(agent.number("kg1", COUNT).await, 1001);
    assert_eq!(agent.leftovers(), Vec::<String>::new());
    let status = agent.get("/migration/status").await.ok();
    assert_eq!(status["kept"], json!([]));

    // And what is whole is taken, once: until somebody is sure, the old files stay.
    let result = completed(import(&agent, "kg1", body.clone()).await);
    assert_eq!(result["pre_migration_kept"], true);
    assert_eq!(agent.number("kg1", COUNT).await, 1000);
    let status = agent.get("/migration/status").await.ok();
    assert_eq!(
        (&status["kept"][0]["graph_id"], &status["kept"][0]["storage_version"]),
        (&json!("kg1"), &json!(49))
    );
    agent.post("/databases/kg1/import", body.clone()).await.fails(409);
    let cleaned = agent.post("/migration/cleanup", json!({})).await.ok();
    assert_eq!(cleaned["deleted"][0]["graph_id"], "kg1");
    assert!(cleaned["freed_bytes"].as_u64().unwrap() > 0);
    completed(import(&agent, "kg1", body).await);
    agent.delete("/databases/kg1").await.ok();
    assert_eq!(agent.get("/migration/status").await.ok()["kept"], json!([]));
}

#[tokio::test]
async fn an_encrypted_export_needs_its_key() {
    let root = TempDir::new().unwrap();
    let keys = root.path().join("keys");
    std::fs::write(&keys, "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n").unwrap();
    let agent = Agent::with_store(root.path(), &["--backup-key-file", keys.to_str().unwrap()]).await;
    agent.database("kg1", PEOPLE).await;
    agent
        .cypher("kg1", "CREATE (:Person {identifier: 1, name: 'secret'})")
        .await
        .ok();
    let body = json!({"destination": {"key": "exports/e"}, "encryption": true});
    assert_eq!(completed(export(&agent, "kg1", body).await)["is_encrypted"], true);
    let names = std::fs::read_dir(root.path().join("objects/exports/e")).unwrap();
    let names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        names.iter().all(|name| name == "export.json" || name.ends_with(".enc")),
        "{names:?}"
    );
    completed(import(&agent, "kg2", json!({"s3_key": "exports/e"})).await);
    assert_eq!(agent.number("kg2", COUNT).await, 1);
    let other = Agent::with_store(root.path(), &[]).await;
    let refused = other
        .post("/databases/kg3/import", json!({"s3_key": "exports/e"}))
        .await
        .fails(400);
    assert!(refused.as_str().unwrap().contains("--backup-key-file"), "{refused}");
}

#[tokio::test]
async fn a_cancelled_import_leaves_what_was_there() {
    const KEY: &str = "exports/kg1/0/large";
    const ROWS: u64 = 200_000;
    let root = TempDir::new().unwrap();
    let agent = exported(root.path(), ROWS, KEY).await;
    agent.cypher("kg1", "CREATE (:Person {identifier: -1})").await.ok();
    let body = json!({"s3_key": KEY, "force_overwrite": true});
    let started = agent.post("/databases/kg1/import", body.clone()).await.ok();
    let task = started["task_id"].as_str().unwrap();
    let again = agent.post("/databases/kg1/import", body).await;
    let rebuilt = agent.post("/databases/kg1/rebuild", json!({})).await;
    let cancelled = agent.delete(&format!("/tasks/{task}")).await;
    let record = agent.task(task).await;
    // It may have been faster than these requests.
    if record["status"] == "completed" {
        assert_eq!(agent.number("kg1", COUNT).await, ROWS);
        return;
    }
    cancelled.ok();
    assert_eq!(again.ok()["task_id"], started["task_id"]);
    rebuilt.fails(409);
    assert_eq!(record["status"], "cancelled", "{record}");
    assert_eq!(agent.number("kg1", COUNT).await, ROWS + 1);
    crate::fixture::eventually("no leftovers", || async { agent.leftovers() }, Vec::is_empty).await;
    assert_eq!(agent.get("/migration/status").await.ok()["kept"], json!([]));
}

#[tokio::test]
async fn a_cut_import_leaves_the_old_database_or_the_new_one() {
    const KEY: &str = "exports/kg1/0/large";
    const ROWS: u64 = 100_000;
    let root = TempDir::new().unwrap();
    let mut agent = exported(root.path(), ROWS, KEY).await;
    let body = json!({"s3_key": KEY, "force_overwrite": true});
    for (directory, prefix) in [
        // At once; while the graph is made; when its files are about to be kept; in the exchange; and after it.
        ("databases", ""),
        ("databases", ".restoring-"),
        ("pre-migration", ".keeping-"),
        ("databases", ".swap-"),
        ("pre-migration", "kg1"),
        ("databases", ".never-"),
    ] {
        if agent.number("kg1", COUNT).await == ROWS {
            agent.cypher("kg1", "CREATE (:Person {identifier: -1})").await.ok();
        }
        let started = agent.post("/databases/kg1/import", body.clone()).await.ok();
        let task = started["task_id"].as_str().unwrap().to_owned();
        let record = agent.volume().join("tasks").join(format!("{task}.json"));
        let ended = || {
            let record: Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
            record["completed_at"].is_string()
        };
        let seen = || {
            let entries = std::fs::read_dir(agent.volume().join(directory)).into_iter().flatten();
            let mut names = entries.flatten().map(|entry| entry.file_name());
            names.any(|name| name.to_string_lossy().starts_with(prefix))
        };
        while !seen() && !ended() {
            tokio::task::yield_now().await;
        }
        agent.restart_after_kill().await;
        let record = agent.get(&format!("/tasks/{task}/status")).await.ok();
        let count = agent.number("kg1", COUNT).await;
        let kept = agent.get("/migration/status").await.ok()["kept"]
            .as_array()
            .unwrap()
            .len();
        match (count, kept) {
            (ROWS, 1) => {}
            (old, 0) if old == ROWS + 1 => assert_eq!(record["status"], "failed", "{record}"),
            (count, kept) => panic!("killed at {prefix}: {count} people, {kept} kept: {record}"),
        }
        if record["status"] == "failed" {
            assert!(
                record["error"].as_str().unwrap().starts_with("interrupted by restart"),
                "{record}"
            );
        }
        assert_eq!(agent.leftovers(), Vec::<String>::new());
        agent.post("/migration/cleanup", json!({})).await.ok();
    }
    completed(import(&agent, "kg1", body).await);
    assert_eq!(agent.number("kg1", COUNT).await, ROWS);
}

/// Makes the file of a database one of another version.
fn forge(agent: &Agent, id: &str, version: u64) {
    use std::os::unix::fs::FileExt;
    let path = agent.volume().join("databases").join(format!("{id}.lbug"));
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&version.to_le_bytes(), 4).unwrap();
}

#[tokio::test]
async fn a_file_of_another_version_keeps_nobody_else_out() {
    const KEY: &str = "exports/kg1/0/a";
    let root = TempDir::new().unwrap();
    let mut agent = exported(root.path(), 100, KEY).await;
    agent.database("kg2", PEOPLE).await;
    for version in [39, 50] {
        assert!(agent.terminate().await.success());
        forge(&agent, "kg1", version);
        agent.spawn().await;
        // The node serves, and says what is wrong with which database.
        let health = agent.get("/health").await.ok();
        assert_eq!(
            (&health["status"], &health["incompatible_databases"]),
            (&json!("healthy"), &json!(["kg1"]))
        );
        let problem = agent.get("/info").await.ok()["problems"][0]
            .as_str()
            .unwrap()
            .to_owned();
        for part in [
            "kg1",
            &format!("version {version}"),
            "40 to 49",
            "0.22.1",
            "/export",
            "/import",
        ] {
            assert!(problem.contains(part), "{part}: {problem}");
        }
        let described = agent.get("/databases/kg1").await.ok();
        assert_eq!(
            (
                &described["is_healthy"],
                &described["storage_version"],
                &described["problem"]
            ),
            (&json!(false), &json!(version), &json!(problem))
        );
        for answer in [
            agent.cypher("kg1", "RETURN 1").await,
            agent.get("/databases/kg1/schema").await,
            agent.post("/databases/kg1/export", json!({})).await,
        ] {
            assert_eq!(answer.fails(409), json!(problem));
        }
        let bucket = "/migration/export?source_version=0.22.1&target_version=0.23.0&bucket=b";
        agent.post(bucket, json!({})).await.fails(409);
        agent.cypher("kg2", "CREATE (:Person {identifier: 1})").await.ok();
        agent.cypher("kg2", "MATCH (p:Person) DELETE p").await.ok();
        // Its file is as it was, and an import takes its place.
        completed(import(&agent, "kg1", json!({"s3_key": KEY, "force_overwrite": true})).await);
        assert_eq!(agent.number("kg1", COUNT).await, 100);
        let described = agent.get("/databases/kg1").await.ok();
        assert_eq!(
            (&described["is_healthy"], &described["storage_version"]),
            (&json!(true), &json!(49))
        );
        let cleaned = agent.post("/migration/cleanup", json!({})).await.ok();
        assert_eq!(cleaned["deleted"][0]["storage_version"], version);
    }
}

#[tokio::test]
async fn a_node_moves_as_a_whole() {
    let root = TempDir::new().unwrap();
    let mut agent = exported(root.path(), 100, "exports/first").await;
    agent.database("kg2", "CREATE NODE TABLE P(id INT64 PRIMARY KEY)").await;
    agent.cypher("kg2", "CREATE (:P {id: 1})").await.ok();
    let start = |source: &str| format!("/migration/export?source_version={source}&target_version=0.23.0&bucket=any");
    agent.post("/migration/export", json!({})).await.fails(400);
    agent.post(&start("0.1.0"), json!({})).await.fails(400);
    agent.post("/migration/import", json!({})).await.fails(404);
    let started = agent.post(&start("0.22.1"), json!({})).await.ok();
    assert_eq!(
        started["monitor_url"],
        json!(format!("/tasks/{}/monitor", started["task_id"].as_str().unwrap()))
    );
    completed(agent.task(started["task_id"].as_str().unwrap()).await);
    agent.post(&start("0.22.1"), json!({})).await.fails(409);
    agent.post("/migration/cleanup", json!({})).await.fails(409);

    // An agent with another engine finds the files that it cannot read, and the exports that it can.
    assert!(agent.terminate().await.success());
    forge(&agent, "kg1", 39);
    forge(&agent, "kg2", 39);
    agent.spawn().await;
    let status = agent.get("/migration/status").await.ok();
    assert_eq!(
        (
            &status["migration_pending"],
            &status["migration_in_progress"],
            &status["manifest"]["target_version"]
        ),
        (&json!(true), &json!(false), &json!("0.23.0"))
    );
    assert_eq!(status["manifest"]["databases"].as_array().unwrap().len(), 2);
    // One export is damaged: the other database is imported all the same.
    let path = status["manifest"]["databases"][1]["export_path"].as_str().unwrap();
    let document = root.path().join("objects").join(path).join("export.json");
    let content = std::fs::read(&document).unwrap();
    std::fs::write(&document, "{").unwrap();
    let started = agent.post("/migration/import", json!({})).await.ok();
    failed(&agent.task(started["task_id"].as_str().unwrap()).await, "kg2");
    assert_eq!(agent.number("kg1", COUNT).await, 100);
    std::fs::write(&document, content).unwrap();
    let started = agent.post("/migration/import", json!({})).await.ok();
    completed(agent.task(started["task_id"].as_str().unwrap()).await);
    assert_eq!(agent.number("kg2", "MATCH (p:P) RETURN count(p)").await, 1);
    assert_eq!(agent.number("kg1", COUNT).await, 100);
    let status = agent.get("/migration/status").await.ok();
    assert_eq!(
        (&status["migration_pending"], &status["manifest"]),
        (&json!(false), &json!(null))
    );
    assert_eq!(status["pre_migration_files"].as_array().unwrap().len(), 2);
    agent.post("/migration/cleanup", json!({})).await.ok();

    // Exports that nobody wants any more are forgotten.
    let started = agent.post(&start("0.22.1"), json!({})).await.ok();
    completed(agent.task(started["task_id"].as_str().unwrap()).await);
    agent
        .post("/migration/cleanup?discard_pending=true", json!({}))
        .await
        .ok();
    assert_eq!(agent.get("/migration/status").await.ok()["migration_pending"], false);
}

#[tokio::test]
async fn a_database_in_place_is_not_imported_again_after_a_cut() {
    let root = TempDir::new().unwrap();
    let mut agent = exported(root.path(), 100, "exports/first").await;
    let start = "/migration/export?source_version=0.22.1&target_version=0.23.0&bucket=any";
    for replaced in [true, false] {
        let started = agent.post(start, json!({})).await.ok();
        completed(agent.task(started["task_id"].as_str().unwrap()).await);
        let file = agent.volume().join("migration.json");
        let mut waiting: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        if !replaced {
            agent.delete("/databases/kg1").await.ok();
        }
        let started = agent.post("/migration/import", json!({})).await.ok();
        completed(agent.task(started["task_id"].as_str().unwrap()).await);
        assert!(!file.exists());

        // As if the agent had ended when the database was in place and that was not yet noted.
        agent.kill();
        let graph = std::fs::metadata(agent.volume().join("databases/kg1.lbug")).unwrap();
        waiting["databases"][0]["installing"] = json!(std::os::unix::fs::MetadataExt::ino(&graph));
        std::fs::write(&file, waiting.to_string()).unwrap();
        agent.spawn().await;
        agent.cypher("kg1", "CREATE (:Person {identifier: -1})").await.ok();
        let status = agent.get("/migration/status").await.ok();
        assert_eq!(status["migration_pending"], false, "{status}");
        agent.post("/migration/import", json!({})).await.fails(404);
        assert_eq!(agent.number("kg1", COUNT).await, 101);
        assert!(!file.exists());
        // Nothing keeps the kept files from being confirmed.
        agent.post("/migration/cleanup", json!({})).await.ok();
        agent
            .cypher("kg1", "MATCH (p:Person {identifier: -1}) DELETE p")
            .await
            .ok();

        // As if it had ended just before: then the database is imported.
        agent.kill();
        waiting["databases"][0]["installing"] = json!(u64::MAX);
        std::fs::write(&file, waiting.to_string()).unwrap();
        agent.spawn().await;
        let started = agent.post("/migration/import", json!({})).await.ok();
        completed(agent.task(started["task_id"].as_str().unwrap()).await);
        agent.post("/migration/cleanup", json!({})).await.ok();
    }
}
