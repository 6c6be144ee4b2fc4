//! `kill -9`: what was acknowledged is there afterwards.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{WIDGETS, widgets};
use graphplane_embedded::{EmbeddedServer, ServerConfig};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

const DIRECTORY: &str = "GRAPHPLANE_TEST_WRITER_DIRECTORY";
const WRITERS: usize = 16;

/// Not a test of its own: the process that is killed. It writes with many writers at once, and says what was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writer_process() {
    let Ok(directory) = std::env::var(DIRECTORY) else {
        return;
    };
    let server = EmbeddedServer::open(ServerConfig::new(directory).with_crds([widgets()]))
        .await
        .unwrap();
    let run = server.revision();
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client("default"));
    let writers: Vec<_> = (0..WRITERS)
        .map(|w| {
            let maps = maps.clone();
            tokio::spawn(async move {
                for i in 0.. {
                    let name = format!("r{run}-w{w}-{i}");
                    let map = serde_json::from_value(json!({"metadata": {"name": name}, "data": {"n": "0"}})).unwrap();
                    maps.create(&PostParams::default(), &map).await.unwrap();
                    println!("\n+ {name} 0");
                    let patch = Patch::Merge(json!({"data": {"n": "1"}}));
                    maps.patch(&name, &PatchParams::default(), &patch).await.unwrap();
                    println!("\n+ {name} 1");
                    if i % 3 == 0 {
                        maps.delete(&name, &DeleteParams::default()).await.unwrap();
                        println!("\n- {name}");
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

fn spawn_writer(directory: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["writer_process", "--exact", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What one run of the writer has been told: (name, last acknowledged value or `None` for deleted).
fn run_and_kill(directory: &Path, acknowledgements: usize) -> Vec<(String, Option<u32>)> {
    let mut child = spawn_writer(directory);
    let mut output = BufReader::new(child.stdout.take().unwrap());
    // The next whole line; the last one may be torn.
    let mut next = || {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        line.strip_suffix('\n').map(str::to_owned)
    };
    let mut told = Vec::new();
    let mut note = |line: String| {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["+", name, n] => told.push(((*name).to_owned(), Some(n.parse().unwrap()))),
            ["-", name] => told.push(((*name).to_owned(), None)),
            _ => return false,
        }
        true
    };
    let mut count = 0;
    while count < acknowledgements {
        let line = next().expect("the writer ended by itself");
        count += usize::from(note(line));
    }
    // SIGKILL, in the middle of whatever it does.
    child.kill().unwrap();
    child.wait().unwrap();
    // What it said before it died counts too.
    while let Some(line) = next() {
        note(line);
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_by_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().join("data");
    let mut last_revision = 0;
    let mut total = 0;
    for round in 0..4_usize {
        let folder = directory.clone();
        let told = tokio::task::spawn_blocking(move || run_and_kill(&folder, 300 + 171 * round))
            .await
            .unwrap();
        let server = EmbeddedServer::open(ServerConfig::new(&directory).with_crds([widgets()]))
            .await
            .unwrap();
        assert!(server.revision() > last_revision, "revisions never go back");
        last_revision = server.revision();
        let maps: Api<ConfigMap> = Api::default_namespaced(server.client("default"));
        let mut state = std::collections::BTreeMap::new();
        for (name, value) in told {
            total += 1;
            state.insert(name, value);
        }
        for (name, value) in state {
            let found = maps.get_opt(&name).await.unwrap();
            let found: Option<u32> = found.map(|m| m.data.unwrap()["n"].parse().unwrap());
            match value {
                // It may have been deleted or changed by a write whose acknowledgement was lost with the process.
                Some(n) => match found {
                    Some(found) => assert!(found >= n, "{name}: {found} < {n}"),
                    None => assert!(n == 1 && deletable(&name), "{name} is lost"),
                },
                None => assert_eq!(found, None, "{name} came back"),
            }
        }
        server.shutdown().await;
    }
    assert!(total > 2000, "{total} acknowledged writes were checked");
}

/// Whether the writer deletes this object.
fn deletable(name: &str) -> bool {
    name.rsplit('-').next().unwrap().parse::<usize>().unwrap() % 3 == 0
}

#[tokio::test]
async fn a_data_directory_serves_one_process_at_a_time() {
    let f = common::Fixture::new().await;
    let error = EmbeddedServer::open(ServerConfig::new(f.data_dir()))
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("another `graphplane up`"), "{error}");
    f.get(WIDGETS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_share_the_cost_of_the_disk() {
    let f = common::Fixture::new().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(f.client.clone());
    let before = f.server.revision();
    let tasks: Vec<_> = (0..256)
        .map(|i| {
            let maps = maps.clone();
            tokio::spawn(async move {
                let map = serde_json::from_value(json!({"metadata": {"name": format!("m{i}")}})).unwrap();
                tokio::time::timeout(common::PATIENCE, maps.create(&PostParams::default(), &map))
                    .await
                    .unwrap()
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(f.server.revision(), before + 256);
}
