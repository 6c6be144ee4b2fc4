//! A backup as one download.

use crate::fixture::{Agent, Answer, KEY, PEOPLE, eventually, people};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::{Cursor, Read};
use tempfile::TempDir;
use zip::ZipArchive;

fn unpack(archive: &mut ZipArchive<Cursor<Vec<u8>>>, name: &str) -> Vec<u8> {
    let mut content = Vec::new();
    archive.by_name(name).unwrap().read_to_end(&mut content).unwrap();
    content
}

#[tokio::test]
async fn a_download_is_a_database() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    agent
        .cypher("kg1", "UNWIND range(1, 500) AS i CREATE (:Person {identifier: i})")
        .await
        .ok();
    agent.put("/databases/kg1/tables/Staged/files/f", people(10)).await.ok();
    for (method, path) in [
        (Method::GET, "/databases/kg1/backup"),
        (Method::POST, "/databases/kg1/backup-download"),
    ] {
        let response = agent.request(method, path).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "application/zip");
        assert_eq!(header("content-disposition"), "attachment; filename=\"kg1_backup.zip\"");
        assert_eq!(
            (header("x-database"), header("x-backup-format")),
            ("kg1".into(), "full_dump".into())
        );
        assert_eq!(header("x-backup-node-count"), "500");
        assert_eq!(header("x-backup-relationship-count"), "0");
        let body = response.bytes().await.unwrap().to_vec();
        let mut archive = ZipArchive::new(Cursor::new(body)).unwrap();
        let names: Vec<String> = archive.file_names().map(|name| name.unwrap().into_owned()).collect();
        assert_eq!(names, ["kg1.lbug", "kg1.duckdb", "manifest.json"]);
        let manifest: Value = serde_json::from_slice(&unpack(&mut archive, "manifest.json")).unwrap();
        assert_eq!(manifest["node_count"], 500);
        for file in manifest["files"].as_array().unwrap() {
            let content = unpack(&mut archive, file["name"].as_str().unwrap());
            assert_eq!(file["sha256"], json!(hex::encode(Sha256::digest(&content))));
            assert_eq!(file["size_bytes"], json!(content.len()));
        }
        // What is in it opens as a database.
        let volume = TempDir::new().unwrap();
        for (directory, name) in [("databases", "kg1.lbug"), ("staging", "kg1.duckdb")] {
            let directory = volume.path().join("volume").join(directory);
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join(name), unpack(&mut archive, name)).unwrap();
        }
        let other = Agent::launch(volume, &[], &[("GRAPH_API_KEY", KEY)]).await;
        assert_eq!(other.number("kg1", "MATCH (p:Person) RETURN count(p)").await, 500);
        assert_eq!(other.get("/databases/kg1/tables").await.ok()[0]["row_count"], 10);
        eventually("no copy is left", || async { agent.leftovers() }, Vec::is_empty).await;
    }
    agent.get("/databases/absent/backup").await.fails(404);
    agent.get("/databases/a.b/backup").await.fails(400);
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    agent
        .put("/databases/kg1/tables/Person/files/f", people(1_500_000))
        .await
        .ok();
    agent
        .post("/databases/kg1/tables/Person/materialize", json!({}))
        .await
        .ok();
    let begin = async || -> Response {
        let mut response = agent
            .request(Method::GET, "/databases/kg1/backup")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.chunk().await.unwrap().unwrap().starts_with(b"PK"));
        response
    };
    // Two take their time, and are more than the pipes between us and them hold; a third is told to wait.
    let (first, second) = (begin().await, begin().await);
    assert_eq!(agent.leftovers().len(), 2);
    let third = agent.get("/databases/kg1/backup").await;
    assert_eq!(third.fails(503)["decision"], "reject_downloads");
    assert!(third.header("retry-after").is_some());
    // Meanwhile the database is written and read.
    agent.cypher("kg1", "CREATE (:Person {identifier: -1})").await.ok();
    drop((first, second));
    eventually("the copies are removed", || async { agent.leftovers() }, Vec::is_empty).await;
    let again = Answer::of(begin().await).await;
    assert_eq!(again.status, 200);
    eventually("the copy is removed", || async { agent.leftovers() }, Vec::is_empty).await;
    let log = agent.log();
    assert!(log.contains("the client went away"), "{log}");
    assert!(
        log.lines().all(|line| line.starts_with('{')),
        "the log is not JSON lines: {log}"
    );
}
