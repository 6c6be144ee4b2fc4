//! Tables of vectors: built, searched, added to, moved, and refused.

use crate::fixture::{Agent, Answer, KEY, PATIENCE, parquet};
use reqwest::Method;
use serde_json::{Value, json};
use std::{collections::HashSet, path::Path, time::Instant};

const VECTOR: &str = "/databases/kg1/tables/Element/vector";
const DDL: &str = "CREATE NODE TABLE Element(identifier INT64 PRIMARY KEY, name STRING, embedding FLOAT[4]);";

/// Rows in clusters: a centre that depends on the cluster alone, and noise that depends on the row.
fn clustered(from: u64, to: u64, clusters: u64, dimension: u64) -> String {
    format!(
        "SELECT i AS identifier, 'name ' || i AS name, i % {clusters} AS cluster, i % 2 = 0 AS even,
                DATE '2024-01-01' + (i % 365)::INTEGER AS day, ['t' || (i % 3)] AS tags,
                [((hash((i % {clusters}) * 1000 + j) % 2000) / 1000.0 - 1 + (hash(i * 7919 + j) % 400) / 1000.0)::FLOAT
                 for j in range({dimension})] AS vector
         FROM range({from}, {to}) t(i)"
    )
}

/// A graph whose staging table `Element` has these rows.
async fn staged(agent: &Agent, id: &str, select: &str) {
    agent.database(id, DDL).await;
    stage(agent, id, "f", select).await;
}

async fn stage(agent: &Agent, id: &str, file: &str, select: &str) {
    let path = format!("/databases/{id}/tables/Element/files/{file}");
    agent.put(&path, parquet(select)).await.ok();
}

const ALL: &str = "SELECT identifier, name, cluster, even, day, tags, vector FROM Element";

async fn build(agent: &Agent, query: &str) -> Value {
    agent
        .post(&format!("{VECTOR}/build"), json!({"query": query}))
        .await
        .ok()
}

/// The staged vectors, by their identifiers.
async fn all_vectors(agent: &Agent) -> Vec<(u64, Vec<f64>)> {
    let sql = json!({"sql": "SELECT identifier, vector FROM Element ORDER BY identifier"});
    let answer = agent.post("/databases/kg1/tables/query", sql).await.ok();
    let rows = answer["rows"].as_array().unwrap();
    let vector = |row: &Value| row[1].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    rows.iter().map(|row| (row[0].as_u64().unwrap(), vector(row))).collect()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    1.0 - dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The rows nearest to a vector, found without the agent.
fn nearest(rows: &[(u64, Vec<f64>)], to: &[f64], limit: usize) -> Vec<(u64, f64)> {
    let mut all: Vec<(u64, f64)> = rows.iter().map(|(id, vector)| (*id, distance(vector, to))).collect();
    all.sort_by(|a, b| a.1.total_cmp(&b.1));
    all.truncate(limit);
    all
}

async fn search(agent: &Agent, body: Value) -> Vec<Value> {
    let answer = agent.post(&format!("{VECTOR}/search"), body).await.ok();
    let results = answer["results"].as_array().unwrap().clone();
    assert_eq!(answer["total"], results.len());
    assert!(answer["execution_time_ms"].as_f64().unwrap() >= 0.0);
    let distances: Vec<f64> = results.iter().map(|row| row["distance"].as_f64().unwrap()).collect();
    assert!(distances.is_sorted(), "{distances:?}");
    results
}

fn identifiers(results: &[Value]) -> Vec<u64> {
    results.iter().map(|row| row["identifier"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn an_index_finds_what_looking_at_every_row_finds() {
    let agent = Agent::start().await;
    staged(&agent, "kg1", &clustered(0, 6000, 60, 32)).await;
    let report = build(&agent, ALL).await;
    assert_eq!(
        (&report["graph_id"], &report["table_name"]),
        (&json!("kg1"), &json!("Element"))
    );
    assert_eq!((&report["row_count"], &report["dimension"]), (&json!(6000), &json!(32)));
    assert!(report["num_partitions"].as_u64().unwrap() >= 1 && report["index_size_mb"].as_f64().unwrap() > 0.5);
    assert!(report["duration_ms"].as_f64().unwrap() > 0.0 && report["num_sub_vectors"] == 4);
    let info = agent.get(VECTOR).await.ok();
    for (field, expected) in [
        ("row_count", 6000),
        ("indexed_rows", 6000),
        ("unindexed_rows", 0),
        ("trained_rows", 6000),
    ] {
        assert_eq!(info[field], expected, "{field}: {info}");
    }

    let rows = all_vectors(&agent).await;
    let mut found = 0;
    for (_, vector) in rows.iter().step_by(120) {
        let results = search(
            &agent,
            json!({"embedding": vector, "limit": 10, "select": ["identifier"]}),
        )
        .await;
        let truth: HashSet<u64> = nearest(&rows, vector, 10).into_iter().map(|(id, _)| id).collect();
        found += identifiers(&results).iter().filter(|id| truth.contains(id)).count();
    }
    assert!(found >= 450, "{found} of 500");

    // All columns but the vector, unless it is asked for.
    let first = &search(&agent, json!({"embedding": rows[7].1, "limit": 1})).await[0];
    let columns: Vec<&str> = first.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = ["cluster", "day", "distance", "even", "identifier", "name", "tags"];
    assert_eq!(columns.iter().copied().collect::<HashSet<_>>(), HashSet::from(expected));
    assert_eq!((&first["identifier"], &first["tags"]), (&json!(7), &json!(["t1"])));
    let selected = &search(
        &agent,
        json!({"embedding": rows[7].1, "limit": 1, "select": ["vector"]}),
    )
    .await[0];
    assert_eq!(selected["vector"].as_array().unwrap().len(), 32);

    // A condition never makes the answer shorter than there are rows that meet it.
    for (condition, meets) in [
        ("cluster = 41", 100),
        ("cluster = 41 AND even", 0),
        ("cluster IN (40, 42) AND even = true", 100),
        ("day >= '2024-12-29' AND NOT (cluster = 3)", 30),
        ("array_has(tags, 't2') AND name LIKE 'name 59%'", 30),
        ("identifier BETWEEN 10 AND 14 OR name = 'name 5999'", 6),
        ("name IS NULL", 0),
    ] {
        let wanted = |exact: bool| json!({"embedding": rows[41].1, "limit": 100, "filter": condition, "exact": exact});
        let (indexed, exact) = (search(&agent, wanted(false)).await, search(&agent, wanted(true)).await);
        assert!(
            exact.len() >= meets.min(100) && (meets > 0 || exact.is_empty()),
            "{condition}: {}",
            exact.len()
        );
        let (indexed, exact) = (identifiers(&indexed), identifiers(&exact));
        let common = indexed.iter().filter(|id| exact.contains(id)).count();
        assert!(
            common * 10 >= exact.len() * 9 && indexed.len() == exact.len(),
            "{condition}: {common} of {}",
            exact.len()
        );
    }
    // The engine tells of every plan, with the values in it.
    let log = agent.log();
    assert!(!log.contains("lance::execution") && !log.contains("name 59"), "{log}");
}

#[tokio::test]
async fn a_small_table_is_searched_exactly() {
    let agent = Agent::start().await;
    staged(&agent, "kg1", &clustered(0, 400, 13, 7)).await;
    let search_path = format!("{VECTOR}/search");
    agent.post(&search_path, json!({"embedding": [1.0]})).await.fails(404);
    assert_eq!(agent.get(VECTOR).await.ok(), Value::Null);
    assert_eq!(build(&agent, ALL).await["num_partitions"], 0);
    let rows = all_vectors(&agent).await;
    for (_, vector) in rows.iter().step_by(40) {
        let results = search(&agent, json!({"embedding": vector, "limit": 20})).await;
        for (row, (id, distance)) in results.iter().zip(nearest(&rows, vector, 20)) {
            assert!(
                (row["distance"].as_f64().unwrap() - distance).abs() < 1e-5,
                "{row} {id} {distance}"
            );
        }
        assert_eq!(results.len(), 20);
    }
    // Another build takes its place.
    let few = format!("{ALL} WHERE identifier < 5");
    assert_eq!(build(&agent, &few).await["row_count"], 5);
    assert_eq!(
        search(&agent, json!({"embedding": rows[0].1, "limit": 100}))
            .await
            .len(),
        5
    );

    for (body, status) in [
        (json!({}), 422),
        (json!({"embedding": rows[0].1, "limit": 0}), 422),
        (json!({"embedding": rows[0].1, "limit": 101}), 422),
        (json!({"embedding": rows[0].1, "surplus": 1}), 422),
        (json!({"embedding": ["x"]}), 422),
        (json!({"embedding": []}), 400),
        (json!({"embedding": [1.0, 2.0]}), 400),
        (json!({"embedding": [0, 0, 0, 0, 0, 0, 0]}), 400),
        (json!({"embedding": [1e300, 0, 0, 0, 0, 0, 0]}), 400),
        (json!({"embedding": rows[0].1, "select": ["nothing"]}), 400),
    ] {
        agent.post(&search_path, body.clone()).await.fails(status);
    }
    agent
        .post("/databases/kg2/tables/Element/vector/search", json!({"embedding": [1]}))
        .await
        .fails(404);
    let storage = agent.get("/databases/kg1/storage").await.ok();
    let vectors = storage["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|item| item["type"] == "vectors")
        .unwrap();
    assert!(vectors["bytes"].as_u64().unwrap() > 100, "{storage}");
    assert_eq!(agent.delete(VECTOR).await.ok()["deleted"], true);
    assert_eq!(agent.delete(VECTOR).await.ok()["deleted"], false);
    agent
        .post(&search_path, json!({"embedding": rows[0].1}))
        .await
        .fails(404);
    build(&agent, &few).await;
    agent.delete("/databases/kg1").await.ok();
    assert!(!agent.volume().join("vectors/kg1").exists());
    agent.database("kg1", DDL).await;
    assert_eq!(agent.get(VECTOR).await.ok(), Value::Null);
}

#[tokio::test]
async fn added_rows_are_found_before_and_after_they_are_indexed() {
    let agent = Agent::start().await;
    staged(&agent, "kg1", &clustered(0, 1500, 10, 16)).await;
    let append = format!("{VECTOR}/append");
    let rows = |from: u64, to: u64| json!({"query": format!("{ALL} WHERE identifier >= {from} AND identifier < {to}")});
    agent.post(&append, rows(0, 10)).await.fails(404);
    build(&agent, ALL).await;
    stage(&agent, "kg1", "g", &clustered(1500, 4000, 10, 16)).await;
    let report = agent.post(&append, rows(1500, 1800)).await.ok();
    assert_eq!(
        (&report["rows_added"], &report["row_count"], &report["indexed_rows"]),
        (&json!(300), &json!(1800), &json!(1500))
    );
    assert_eq!(agent.get(VECTOR).await.ok()["unindexed_rows"], 300);

    let all = all_vectors(&agent).await;
    let is_found = async |id: usize| {
        let results = search(&agent, json!({"embedding": all[id].1, "limit": 10})).await;
        assert_eq!(results[0]["identifier"], id, "{results:?}");
        assert!(results[0]["distance"].as_f64().unwrap() < 1e-4);
    };
    is_found(1700).await;
    let reindex = format!("{VECTOR}/reindex");
    let done = agent.post(&reindex, json!({})).await.ok();
    assert_eq!(
        (&done["retrained"], &done["unindexed_rows"], &done["trained_rows"]),
        (&json!(false), &json!(0), &json!(1500))
    );
    is_found(1700).await;
    is_found(3).await;

    // Twice as many rows as it was trained on: the old centres no longer do.
    agent.post(&append, rows(1800, 4000)).await.ok();
    is_found(3999).await;
    let done = agent.post(&reindex, json!({})).await.ok();
    assert_eq!(
        (&done["retrained"], &done["unindexed_rows"], &done["trained_rows"]),
        (&json!(true), &json!(0), &json!(4000))
    );
    is_found(3999).await;
    is_found(3).await;

    // Rows that do not fit change nothing.
    for query in [
        "SELECT identifier, vector FROM Element",
        "SELECT *, 1 AS more FROM (SELECT identifier, name, cluster, even, day, tags, vector FROM Element)",
        "SELECT identifier, name, cluster, even, day, tags, vector[1:3] AS vector FROM Element",
        "SELECT identifier, name, cluster, even, day, tags, CASE WHEN identifier < 3000 THEN vector END AS vector FROM Element",
    ] {
        agent.post(&append, json!({"query": query})).await.fails(400);
    }
    assert_eq!(agent.get(VECTOR).await.ok()["row_count"], 4000);
}

#[tokio::test]
async fn vectors_come_from_a_graph_too() {
    let agent = Agent::start().await;
    agent.database("kg1", DDL).await;
    for (id, vector) in [
        (1, "[1.0,0.0,0.0,0.0]"),
        (2, "[0.0,1.0,0.0,0.0]"),
        (3, "[0.7,0.7,0.0,0.0]"),
    ] {
        let text =
            format!("CREATE (:Element {{identifier: {id}, name: 'e{id}', embedding: CAST({vector} AS FLOAT[4])}})");
        agent.cypher("kg1", &text).await.ok();
    }
    let query = "MATCH (e:Element) RETURN e.identifier AS identifier, e.name AS name, e.embedding AS vector";
    let report = agent
        .post(&format!("{VECTOR}/build"), json!({"query": query, "source": "graph"}))
        .await
        .ok();
    assert_eq!((&report["row_count"], &report["dimension"]), (&json!(3), &json!(4)));
    let results = search(&agent, json!({"embedding": [1.0, 0.1, 0.0, 0.0]})).await;
    assert_eq!(identifiers(&results), [1, 3, 2]);
    assert_eq!(results[0]["name"], "e1");
    agent
        .post(&format!("{VECTOR}/build"), json!({"cypher": query}))
        .await
        .ok();
    // What a query may not do, it may not do here.
    for cypher in [
        "CREATE (:Element {identifier: 9})",
        "MATCH (e) DETACH DELETE e",
        "LOAD FROM '/etc/passwd' RETURN *",
    ] {
        let refused = agent.post(&format!("{VECTOR}/build"), json!({"cypher": cypher})).await;
        assert!(matches!(refused.status.as_u16(), 400 | 403), "{cypher}: {refused:?}");
    }
    assert_eq!(agent.number("kg1", "MATCH (e:Element) RETURN count(e)").await, 3);
}

#[tokio::test]
async fn rows_without_a_usable_vector_are_counted_never_lost() {
    let agent = Agent::start().await;
    let select = "SELECT i AS identifier, CASE i % 10 WHEN 1 THEN NULL WHEN 2 THEN [1.0, 'nan'::DOUBLE] WHEN 3 THEN [1.0]
                  WHEN 4 THEN [0.0, 0.0] WHEN 5 THEN [1.0, NULL] ELSE [i + 1.0, 1.0] END::DOUBLE[] AS vector FROM range(100) t(i)";
    staged(&agent, "kg1", select).await;
    let path = format!("{VECTOR}/build");
    let query = "SELECT identifier, vector FROM Element ORDER BY identifier";
    let refused = agent.post(&path, json!({"query": query})).await.fails(400);
    let told = refused.as_str().unwrap();
    assert!(
        told.contains("50 of 100 rows") && told.contains("20 NULL, 10 not finite, 10 of another length, 10 only zeros"),
        "{told}"
    );
    assert_eq!(agent.get(VECTOR).await.ok(), Value::Null);
    let report = agent
        .post(&path, json!({"query": query, "skip_invalid": true}))
        .await
        .ok();
    assert_eq!(
        (&report["row_count"], &report["rows_rejected"]),
        (&json!(50), &json!(50))
    );
    let kinds = json!({"null": 20, "not_finite": 10, "other_length": 10, "zero": 10});
    assert_eq!(report["rejected"], kinds);

    for query in [
        "SELECT identifier FROM Element",
        "SELECT identifier AS vector FROM Element",
        "SELECT 'x' AS name, ['a'] AS vector",
        "SELECT vector FROM Element WHERE vector IS NULL",
        "SELECT vector FROM Element WHERE false",
        "SELECT [1.0] AS vector, 1 AS distance",
        "SELECT [1.0] AS vector, {'a': 1} AS s",
        "SELECT [1.0] AS vector, 1 AS \"a b\"",
        "SELECT nothing FROM Element",
        "SELECT range(5000) AS vector",
        "DELETE FROM Element",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT 1; SELECT 2",
    ] {
        let refused = agent.post(&path, json!({"query": query})).await;
        assert!(matches!(refused.status.as_u16(), 400 | 403), "{query}: {refused:?}");
    }
    assert_eq!(agent.get(VECTOR).await.ok()["row_count"], 50);
    // A value that fails in the middle of the rows says so, in its own words.
    let late = "SELECT [1.0] AS vector, CAST(CASE WHEN i > 90000 THEN 'halfway' ELSE '1' END AS INTEGER) AS number FROM range(100000) t(i)";
    let refused = agent.post(&path, json!({"query": late})).await.fails(400);
    assert!(refused.as_str().unwrap().contains("halfway"), "{refused}");
    assert_eq!(agent.get(VECTOR).await.ok()["row_count"], 50);
}

#[tokio::test]
async fn a_build_is_a_task() {
    let agent = Agent::start().await;
    staged(&agent, "kg1", &clustered(0, 1200, 10, 8)).await;
    let asked = agent
        .request(Method::POST, &format!("{VECTOR}/build"))
        .header("Prefer", "respond-async");
    let started = Answer::to(asked.json(&json!({"query": ALL}))).await;
    assert_eq!(started.status.as_u16(), 202);
    let record = agent.task(started.json()["task_id"].as_str().unwrap()).await;
    assert_eq!(
        (&record["status"], &record["task_type"]),
        (&json!("completed"), &json!("vector")),
        "{record}"
    );
    assert_eq!(
        (&record["result"]["row_count"], &record["records_processed"]),
        (&json!(1200), &json!(1200))
    );
    assert_eq!(record["metadata"]["operation"], "build");
}

/// Starts a build of many rows, waits until it has begun to write, and gives its task.
async fn long_build(agent: &Agent) -> String {
    let query = "SELECT i AS identifier, [((hash(i * 31 + j) % 2000) / 1000.0 - 1)::FLOAT for j in range(64)] AS vector FROM range(400000) t(i)";
    let asked = agent
        .request(Method::POST, &format!("{VECTOR}/build"))
        .header("Prefer", "respond-async");
    let started = Answer::to(asked.json(&json!({"query": query}))).await.ok();
    let until = Instant::now() + PATIENCE;
    while generations(agent) < 2 {
        assert!(Instant::now() < until, "the build writes nothing");
        tokio::task::yield_now().await;
    }
    started["task_id"].as_str().unwrap().to_owned()
}

/// Directories of the vectors of `Element`, finished or not.
fn generations(agent: &Agent) -> usize {
    let entries = std::fs::read_dir(agent.volume().join("vectors/kg1")).unwrap();
    entries.flatten().filter(|entry| entry.path().is_dir()).count()
}

#[tokio::test]
async fn a_build_that_is_killed_leaves_the_old_vectors() {
    let mut agent = Agent::start().await;
    staged(&agent, "kg1", &clustered(0, 1100, 10, 8)).await;
    build(&agent, ALL).await;
    for _ in 0..3 {
        let task = long_build(&agent).await;
        agent.restart_after_kill().await;
        let record = agent.get(&format!("/tasks/{task}/status")).await.ok();
        assert_eq!(record["status"], "failed", "{record}");
        assert!(
            record["error"].as_str().unwrap().contains("wholly the old ones"),
            "{record}"
        );
        assert_eq!(generations(&agent), 1);
        assert_eq!(agent.get(VECTOR).await.ok()["row_count"], 1100);
        assert_eq!(
            search(&agent, json!({"embedding": [1, 1, 1, 1, 1, 1, 1, 1]}))
                .await
                .len(),
            20
        );
    }
}

#[tokio::test]
async fn an_index_is_trained_on_the_volume() {
    // There is no other place for temporary files.
    let envs = [("GRAPH_API_KEY", KEY), ("TMPDIR", "/nonexistent")];
    let agent = Agent::launch(tempfile::TempDir::new().unwrap(), &[], &envs).await;
    staged(&agent, "kg1", &clustered(0, 1100, 10, 8)).await;
    assert_eq!(build(&agent, ALL).await["indexed_rows"], 1100);
    assert_eq!(agent.leftovers(), Vec::<String>::new());
}

/// All names below a directory.
fn names_below(directory: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        names.push(entry.file_name().into_string().unwrap());
        names.extend(names_below(&entry.path()));
    }
    names
}

#[tokio::test]
async fn an_addition_that_is_killed_leaves_no_file() {
    let mut agent = Agent::start().await;
    staged(&agent, "kg1", &clustered(0, 1100, 10, 8)).await;
    build(&agent, ALL).await;
    let vectors = agent.volume().join("vectors/kg1");
    let data = Path::new(agent.get(VECTOR).await.ok()["path"].as_str().unwrap()).join("data");
    let mut rows = 1100;
    for _ in 0..3 {
        let before = names_below(&data).len();
        let query = format!(
            "SELECT identifier, name, cluster, even, day, tags, vector FROM ({}) more",
            clustered(10_000, 210_000, 10, 8)
        );
        let asked = agent.request(Method::POST, &format!("{VECTOR}/append"));
        let asked = asked.header("Prefer", "respond-async").json(&json!({"query": query}));
        Answer::to(asked).await.ok();
        let until = Instant::now() + PATIENCE;
        while names_below(&data).len() == before {
            assert!(Instant::now() < until, "the addition writes nothing");
            tokio::task::yield_now().await;
        }
        agent.restart_after_kill().await;
        let now = agent.get(VECTOR).await.ok()["row_count"].as_u64().unwrap();
        assert!(now == rows || now == rows + 200_000, "{now} rows of {rows}");
        let files = names_below(&data);
        assert_eq!(files.len(), before + usize::from(now > rows), "{files:?}");
        let unfinished = names_below(&vectors).into_iter();
        let unfinished = unfinished.filter(|name| name.starts_with(".tmp") || name.ends_with(".changing"));
        assert_eq!(unfinished.collect::<Vec<_>>(), Vec::<String>::new());
        rows = now;
    }
}

#[tokio::test]
async fn a_build_that_is_cancelled_leaves_the_old_vectors() {
    let agent = Agent::start().await;
    staged(&agent, "kg1", &clustered(0, 300, 10, 8)).await;
    build(&agent, ALL).await;
    let task = long_build(&agent).await;
    // Only one at a time; and what is being built is not deleted.
    let again = agent
        .post(&format!("{VECTOR}/build"), json!({"query": ALL}))
        .await
        .fails(409);
    assert_eq!(again["task_id"], task.as_str());
    agent.delete(VECTOR).await.fails(409);
    agent.delete(&format!("/tasks/{task}")).await.ok();
    assert_eq!(agent.task(&task).await["status"], "cancelled");
    assert_eq!(agent.get(VECTOR).await.ok()["row_count"], 300);
    // A database goes with the build that is at work on it.
    let task = long_build(&agent).await;
    agent.delete("/databases/kg1").await.ok();
    assert_ne!(agent.task(&task).await["status"], "completed");
    assert_eq!(agent.get(VECTOR).await.status.as_u16(), 404);
}

async fn send(agent: &Agent, path: &str, archive: Vec<u8>) -> Answer {
    let request = agent
        .request(Method::POST, path)
        .header("Content-Type", "application/gzip");
    Answer::to(request.body(archive)).await
}

#[tokio::test]
async fn vectors_move_as_an_archive() {
    let objects = tempfile::TempDir::new().unwrap();
    let agent = Agent::with_store(objects.path(), &[]).await;
    staged(&agent, "kg1", &clustered(0, 2000, 20, 24)).await;
    build(&agent, ALL).await;
    let query = json!({"embedding": all_vectors(&agent).await[11].1, "limit": 30});
    let before = identifiers(&search(&agent, query.clone()).await);

    let response = agent
        .request(Method::POST, &format!("{VECTOR}/export"))
        .send()
        .await
        .unwrap();
    assert!(response.status().is_success());
    assert_eq!(
        (&response.headers()["content-type"], &response.headers()["x-row-count"]),
        (&"application/gzip".parse().unwrap(), &"2000".parse().unwrap())
    );
    let archive = response.bytes().await.unwrap().to_vec();

    agent.database("kg2", DDL).await;
    let moved = "/databases/kg2/tables/Copy/vector";
    let imported = send(&agent, &format!("{moved}/import"), archive.clone()).await.ok();
    assert_eq!(
        (
            &imported["row_count"],
            &imported["dimension"],
            &imported["indexed_rows"]
        ),
        (&json!(2000), &json!(24), &json!(2000))
    );
    let found = agent.post(&format!("{moved}/search"), query.clone()).await.ok();
    assert_eq!(identifiers(found["results"].as_array().unwrap()), before);

    let exported = agent
        .post(
            &format!("{VECTOR}/export"),
            json!({"key": "vectors/kg1/Element.tar.gz"}),
        )
        .await
        .ok();
    assert!(
        exported["size_mb"].as_f64().unwrap() > 0.0 && exported["s3_uri"].is_null(),
        "{exported}"
    );
    let body = json!({"key": "vectors/kg1/Element.tar.gz"});
    assert_eq!(
        agent.post(&format!("{moved}/import"), body).await.ok()["row_count"],
        2000
    );
    for (body, status) in [
        (json!({"key": "vectors/kg1/absent.tar.gz"}), 404),
        (json!({"key": "../vectors.tar.gz"}), 400),
        (json!({"key": "backups/kg1/manifest.json"}), 400),
        (json!({"s3_bucket": "b"}), 400),
        (json!({"s3_bucket": "b", "s3_key": "x.tar.gz"}), 404),
        (json!({}), 400),
    ] {
        agent.post(&format!("{moved}/import"), body).await.fails(status);
    }

    // What is no good archive changes nothing.
    let cut = archive[..archive.len() / 2].to_vec();
    for (name, hostile) in [("cut", cut), ("noise", vec![7; 4096])]
        .into_iter()
        .chain(tampered(&archive))
    {
        let refused = send(&agent, &format!("{moved}/import"), hostile).await;
        assert_eq!(refused.status.as_u16(), 400, "{name}: {}", refused.text);
        assert!(
            refused.json()["detail"].as_str().unwrap().starts_with("archive: "),
            "{name}: {}",
            refused.text
        );
    }
    send(&agent, &format!("{moved}/import"), Vec::new()).await.fails(400);
    let found = agent.post(&format!("{moved}/search"), query).await.ok();
    assert_eq!(identifiers(found["results"].as_array().unwrap()), before);
    assert!(!agent.volume().join("vectors/out").exists() && !agent.volume().join("out").exists());
    assert_eq!(agent.leftovers(), Vec::<String>::new());
}

/// Archives that are good but for one thing.
fn tampered(archive: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut entries = Vec::new();
    for entry in tar::Archive::new(flate2::read::GzDecoder::new(archive))
        .entries()
        .unwrap()
    {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        entries.push((name, content));
    }
    let pack = |entries: &[(String, Vec<u8>)], link: bool| {
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        for (name, content) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o600);
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            tar.append(&header, content.as_slice()).unwrap();
        }
        if link {
            let mut header = tar::Header::new_ustar();
            header.set_size(0);
            header.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut header, "data/link", "/etc").unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap()
    };
    type Entries = Vec<(String, Vec<u8>)>;
    let with = |change: &dyn Fn(&mut Entries)| {
        let mut changed = entries.clone();
        change(&mut changed);
        pack(&changed, false)
    };
    let manifest = |from: &str, to: &str| {
        with(&|entries| {
            let text = String::from_utf8(entries[0].1.clone()).unwrap();
            assert!(text.contains(from), "{text}");
            entries[0].1 = text.replace(from, to).into_bytes();
        })
    };
    vec![
        (
            "a file outside",
            with(&|entries| entries.push(("data/../../../out".into(), vec![1]))),
        ),
        (
            "an absolute path",
            with(&|entries| entries.push(("/tmp/out".into(), vec![1]))),
        ),
        ("a link", pack(&entries, true)),
        ("another count", manifest("\"rows\": 2000", "\"rows\": 1999")),
        ("another length", manifest("\"dimension\": 24", "\"dimension\": 25")),
        ("no index", manifest("\"partitions\": 1", "\"partitions\": 0")),
        ("another format", manifest("\"format\": 1", "\"format\": 2")),
        ("no manifest", with(&|entries| drop(entries.remove(0)))),
        (
            "no rows",
            with(&|entries| entries.retain(|(name, _)| !name.starts_with("data/data"))),
        ),
        (
            "no index files",
            with(&|entries| entries.retain(|(name, _)| !name.starts_with("data/_indices"))),
        ),
        (
            "broken versions",
            with(&|entries| {
                let versions = |(name, _): &&mut (String, _)| name.starts_with("data/_versions");
                for (_, content) in entries.iter_mut().filter(versions) {
                    content.iter_mut().for_each(|byte| *byte ^= 0x5a);
                }
            }),
        ),
    ]
}

#[tokio::test]
async fn conditions_are_checked_before_they_are_run() {
    let agent = Agent::start().await;
    staged(&agent, "kg1", &clustered(0, 50, 5, 4)).await;
    build(&agent, ALL).await;
    let deep = format!("{}even{}", "(".repeat(200), ")".repeat(200));
    let wide = format!("identifier IN ({})", vec!["1"; 1500].join(","));
    let long = format!("name = '{}'", "x".repeat(100_000));
    for filter in [
        "1 = 1",
        "name = 'a' OR 1 = 1",
        "name = 'a'; DROP TABLE Element",
        "name = 'a' UNION SELECT 1",
        "identifier = (SELECT max(identifier) FROM Element)",
        "regexp_like(name, '(a+)+$')",
        "repeat(name, 1000000000) = ''",
        "name = repeat('x', 1000000000)",
        "identifier / 0 = 1",
        "CAST(name AS INT) = 1",
        "_rowid = 1",
        "missing = 1",
        "name = \"name\"",
        "identifier = 99999999999999999999999999",
        "identifier = 1.5e400",
        "day = 'not a day'",
        "",
        deep.as_str(),
        wide.as_str(),
        long.as_str(),
    ] {
        let body = json!({"embedding": [1, 1, 1, 1], "filter": filter});
        agent.post(&format!("{VECTOR}/search"), body).await.fails(400);
    }
    let quoted = json!({"embedding": [1, 1, 1, 1], "filter": "name = 'a'' OR ''1''=''1'"});
    assert_eq!(search(&agent, quoted).await.len(), 0);
    assert_eq!(agent.get("/health").await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_replica_searches_and_changes_nothing() {
    let mut agent = Agent::start().await;
    staged(&agent, "kg1", &clustered(0, 1100, 10, 8)).await;
    build(&agent, ALL).await;
    agent.terminate().await;
    let root = std::mem::replace(&mut agent.root, tempfile::TempDir::new().unwrap());
    let replica = Agent::launch(root, &["--role", "replica"], &[("GRAPH_API_KEY", KEY)]).await;
    assert_eq!(
        search(&replica, json!({"embedding": [1, 1, 1, 1, 1, 1, 1, 1]}))
            .await
            .len(),
        20
    );
    assert_eq!(replica.get(VECTOR).await.ok()["row_count"], 1100);
    for (action, body) in [
        ("build", json!({"query": ALL})),
        ("append", json!({"query": ALL})),
        ("reindex", json!({})),
        ("export", json!({})),
        ("import", json!({"key": "x.tar.gz"})),
    ] {
        replica.post(&format!("{VECTOR}/{action}"), body).await.fails(403);
    }
    replica.delete(VECTOR).await.fails(403);
    let memory = "/databases/kg1/semantic-memory";
    replica
        .post(&format!("{memory}/rows"), json!({"records": []}))
        .await
        .fails(403);
    replica.delete(&format!("{memory}/rows/mem_0")).await.fails(403);
    assert_eq!(
        replica.post(&format!("{memory}/list"), json!({})).await.ok()["total"],
        0
    );
}
