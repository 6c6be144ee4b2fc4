#![allow(clippy::unwrap_used)]
use super::*;
use crate::provider::Performance;
use graphplane_core::sources::SourceRules;
use graphplane_crds::quantities::{Epoch, GiB};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;

/// A program that runs until it is told to end; its command line is that of an agent.
fn agent(dir: &Path, script: &str) -> std::path::PathBuf {
    let path = dir.join("agent.sh");
    // Written by another process: a file that this one has open for writing cannot be executed, and any child that another
    // test starts meanwhile would have it open, too.
    let write = std::process::Command::new("sh")
        .args(["-c", "printf '%s\\n' '#!/bin/sh' \"$1\" > \"$0\" && chmod 755 \"$0\""])
        .arg(&path)
        .arg(script)
        .status();
    assert!(write.unwrap().success());
    path
}

/// Time for what has to happen, on any machine. Only a failure takes so long.
const PATIENCE: Duration = Duration::from_secs(120);

const RUNS: &str = "while :; do sleep 1; done";

fn settings(dir: &TempDir, script: &str, url: &str) -> LocalSettings {
    LocalSettings {
        data_dir: dir.path().join("data"),
        agent_binary: agent(dir.path(), script),
        control_plane_url: url.into(),
        object_store_url: Some("file:///objects".into()),
        backup_key_file: None,
        embedding_model: None,
        sources: SourceRules::default(),
        stop_grace: PATIENCE,
    }
}

async fn opened(dir: &TempDir) -> Local {
    let local = Local::open(settings(dir, RUNS, "http://127.0.0.1:1")).await.unwrap();
    let volume = VolumeRequest {
        name: "std-0".into(),
        zone: ZONE.into(),
        size_gib: GiB(1),
        performance: Performance::default(),
        snapshot: None,
        client_token: "v".into(),
        tags: BTreeMap::new(),
    };
    local.ensure_volume(&volume).await.unwrap();
    local
}

fn request(token: &str) -> InstanceRequest {
    InstanceRequest {
        node: "std-0".into(),
        purpose: Purpose::Write { volume: "std-0".into() },
        client_token: token.into(),
        bootstrap_token: "once".into(),
        cluster_id: "c".into(),
        zone: ZONE.into(),
        instance_type: None,
        stack_outputs: BTreeMap::new(),
        epoch: Epoch(1),
        tags: BTreeMap::from([("uid".to_owned(), "u".to_owned())]),
    }
}

fn files(dir: &TempDir) -> NodeFiles {
    Layout::open(&dir.path().join("data")).unwrap().node("std-0").unwrap()
}

fn pid(dir: &TempDir) -> i32 {
    let record: Record = layout::read(&files(dir).pid()).unwrap().unwrap();
    record.process.unwrap().pid
}

async fn state(local: &Local) -> Option<InstanceState> {
    local.describe().await.unwrap().instances.get("std-0").map(|i| i.state)
}

/// Waits until the end of the node's process is told.
async fn told(changes: &mut BoxStream<'static, String>) {
    let told = tokio::time::timeout(PATIENCE, changes.next()).await;
    assert_eq!(told.expect("the end of a process is told").as_deref(), Some("std-0"));
}

/// Ends the process when the test ends, whichever way.
struct Reap<'a>(&'a TempDir);

impl Drop for Reap<'_> {
    fn drop(&mut self) {
        if let Ok(Some(Record {
            process: Some(identity),
            ..
        })) = layout::read::<Record>(&files(self.0).pid())
        {
            let _ = identity.signal(Signal::KILL);
        }
    }
}

#[tokio::test]
async fn a_repeated_start_finds_the_first_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let _reap = Reap(&dir);
    let local = opened(&dir).await;
    let first = local.ensure_instance(&request("t1")).await.unwrap();
    assert_eq!(
        (first.state, first.id.as_str()),
        (InstanceState::Running, "local:///std-0")
    );
    let started = pid(&dir);
    assert_eq!(local.ensure_instance(&request("t1")).await.unwrap(), first);
    assert!(matches!(
        local.ensure_instance(&request("t2")).await,
        Err(ProviderError::Occupied(_))
    ));
    drop(local);
    let again = opened(&dir).await;
    assert_eq!(again.describe().await.unwrap().instances["std-0"], first);
    assert_eq!(again.ensure_instance(&request("t1")).await.unwrap(), first);
    assert_eq!(pid(&dir), started);
}

#[tokio::test]
async fn a_start_that_was_cut_off_before_its_pid_file_is_adopted() {
    let dir = tempfile::tempdir().unwrap();
    let _reap = Reap(&dir);
    let local = opened(&dir).await;
    local.ensure_instance(&request("t1")).await.unwrap();
    let (files, started) = (files(&dir), pid(&dir));
    // As if the operator had been killed after the process was started and before it was written down.
    let mut record: Record = layout::read(&files.pid()).unwrap().unwrap();
    record.process = None;
    layout::write(&files.launch(), &record).unwrap();
    layout::remove(&files.pid()).unwrap();
    let again = opened(&dir).await;
    let found = again.ensure_instance(&request("t1")).await.unwrap();
    assert_eq!((found.token.as_str(), found.state), ("t1", InstanceState::Running));
    assert_eq!(pid(&dir), started, "no second process");
    assert!(!files.launch().exists());
    // The same with a pid file of an older process.
    let old = Record {
        process: Some(Identity {
            pid: 1,
            start_time: 1,
            boot_id: "x".into(),
        }),
        client_token: "t0".into(),
        ..record.clone()
    };
    layout::write(&files.pid(), &old).unwrap();
    layout::write(&files.launch(), &record).unwrap();
    assert_eq!(again.describe().await.unwrap().instances["std-0"].token, "t1");
    assert_eq!(pid(&dir), started);
}

#[tokio::test]
async fn a_start_that_was_cut_off_before_its_process_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let _reap = Reap(&dir);
    let local = opened(&dir).await;
    let files = files(&dir);
    files.make().unwrap();
    let begun = Record {
        process: None,
        client_token: "t1".into(),
        started_at: Timestamp::now(),
        tags: BTreeMap::new(),
    };
    layout::write(&files.launch(), &begun).unwrap();
    assert_eq!(state(&local).await, None);
    assert_eq!(
        local.ensure_instance(&request("t1")).await.unwrap().state,
        InstanceState::Running
    );
}

#[tokio::test]
async fn an_end_is_told_and_leaves_a_record_until_it_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let _reap = Reap(&dir);
    let local = opened(&dir).await;
    let mut changes = local.changes();
    local.ensure_instance(&request("t1")).await.unwrap();
    assert!(matches!(
        local.forget_instance("std-0").await,
        Err(ProviderError::Occupied(_))
    ));
    local.stop_instance("std-0", false).await.unwrap();
    told(&mut changes).await;
    let dead = local.describe().await.unwrap().instances["std-0"].clone();
    assert_eq!((dead.state, dead.token.as_str()), (InstanceState::Dead, "t1"));
    local.stop_instance("std-0", true).await.unwrap();
    // The next start is a new machine, and the mark of the old one's stop is not its own.
    let next = local.ensure_instance(&request("t2")).await.unwrap();
    assert_eq!((next.state, next.token.as_str()), (InstanceState::Running, "t2"));
    local.stop_instance("std-0", true).await.unwrap();
    told(&mut changes).await;
    local.forget_instance("std-0").await.unwrap();
    local.forget_instance("std-0").await.unwrap();
    assert!(!files(&dir).dir().exists());
    assert_eq!(state(&local).await, None);
}

#[tokio::test]
async fn an_adopted_process_is_watched_too() {
    let dir = tempfile::tempdir().unwrap();
    let _reap = Reap(&dir);
    let local = opened(&dir).await;
    local.ensure_instance(&request("t1")).await.unwrap();
    drop(local);
    let again = opened(&dir).await;
    let mut changes = again.changes();
    assert_eq!(state(&again).await, Some(InstanceState::Running));
    again.stop_instance("std-0", true).await.unwrap();
    told(&mut changes).await;
    assert_eq!(state(&again).await, Some(InstanceState::Dead));
}

#[tokio::test]
async fn a_process_that_takes_its_time_is_stopping() {
    let dir = tempfile::tempdir().unwrap();
    let _reap = Reap(&dir);
    let local = opened(&dir).await;
    // `ready` exists once the signal is ignored.
    agent(dir.path(), "trap '' TERM; touch ready; while :; do sleep 1; done");
    local.ensure_instance(&request("t1")).await.unwrap();
    let ready = files(&dir).dir().join("ready");
    let ignores = async {
        while !ready.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ignores)
        .await
        .expect("the program ignores the signal");
    local.stop_instance("std-0", false).await.unwrap();
    let Some(InstanceState::Stopping { since }) = state(&local).await else {
        panic!()
    };
    local.stop_instance("std-0", false).await.unwrap();
    assert_eq!(
        state(&local).await,
        Some(InstanceState::Stopping { since }),
        "asked twice, since the first time"
    );
    let mut changes = local.changes();
    local.stop_instance("std-0", true).await.unwrap();
    told(&mut changes).await;
}

#[tokio::test]
async fn the_configuration_is_private_and_follows_the_control_plane() {
    let dir = tempfile::tempdir().unwrap();
    let _reap = Reap(&dir);
    let local = opened(&dir).await;
    local.ensure_instance(&request("t1")).await.unwrap();
    let path = files(&dir).config();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let read = || serde_json::from_slice::<serde_json::Value>(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(
        read(),
        serde_json::json!({"node": "std-0", "clusterId": "c", "controlPlane": "http://127.0.0.1:1", "bootstrapToken": "once",
            "objectStore": "file:///objects", "instanceId": "local-std-0"})
    );
    drop(local);
    let sources = SourceRules {
        places: vec!["s3://lake/{graph}".parse().unwrap()],
        endpoints: Vec::new(),
    };
    let moved = LocalSettings {
        sources,
        ..settings(&dir, RUNS, "http://127.0.0.1:2")
    };
    Local::open(moved).await.unwrap();
    assert_eq!(
        (read()["controlPlane"].as_str(), read()["bootstrapToken"].as_str()),
        (Some("http://127.0.0.1:2"), Some("once"))
    );
    assert_eq!(read()["sources"], serde_json::json!(["s3://lake/{graph}"]));
    Local::open(settings(&dir, RUNS, "http://127.0.0.1:2")).await.unwrap();
    assert!(
        read().get("sources").is_none(),
        "what is not allowed any more is not told"
    );
}

#[tokio::test]
async fn a_replica_has_a_disk_of_its_own_that_goes_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let _reap = Reap(&dir);
    let script = format!("printf '%s ' \"$@\" > {}/arguments; {RUNS}", dir.path().display());
    let mut settings = settings(&dir, &script, "http://127.0.0.1:1");
    (settings.backup_key_file, settings.embedding_model) = (Some("/keys".into()), Some("/model".into()));
    let local = Local::open(settings).await.unwrap();
    let serves = InstanceRequest {
        purpose: Purpose::Serve {
            seeds: vec!["seeds/kg1/r".into()],
        },
        ..request("t1")
    };
    local.ensure_instance(&serves).await.unwrap();
    let read: serde_json::Value = serde_json::from_slice(&fs::read(files(&dir).config()).unwrap()).unwrap();
    assert_eq!(read["seeds"], serde_json::json!(["seeds/kg1/r"]));
    assert_eq!(
        (read["backupKeyFile"].as_str(), read["embeddingModel"].as_str()),
        (Some("/keys"), Some("/model"))
    );
    let arguments = dir.path().join("arguments");
    let started = async {
        while !fs::read_to_string(&arguments).is_ok_and(|text| text.contains("--role replica")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, started)
        .await
        .expect("the program starts");
    let given = fs::read_to_string(&arguments).unwrap();
    assert!(
        given.contains(&format!("--data-dir {}", files(&dir).data().display())),
        "{given}"
    );
    assert!(local.describe().await.unwrap().disks.is_empty(), "it is no volume");
    fs::create_dir_all(files(&dir).data().join("seeds")).unwrap();
    let mut changes = local.changes();
    local.stop_instance("std-0", true).await.unwrap();
    told(&mut changes).await;
    local.forget_instance("std-0").await.unwrap();
    assert!(!files(&dir).dir().exists());
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let _reap = Reap(&dir);
    let local = opened(&dir).await;
    fs::remove_file(dir.path().join("agent.sh")).unwrap();
    let error = local.ensure_instance(&request("t1")).await.unwrap_err().to_string();
    assert!(error.contains("agent.sh"), "{error}");
    assert_eq!(state(&local).await, None);
    let missing = InstanceRequest {
        purpose: Purpose::Write { volume: "std-9".into() },
        ..request("t1")
    };
    let error = local.ensure_instance(&missing).await.unwrap_err().to_string();
    assert!(error.contains("std-9"), "{error}");
}

#[tokio::test]
async fn a_graceful_end_stops_the_agents_and_a_plain_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let _reap = Reap(&dir);
    let local = opened(&dir).await;
    local.ensure_instance(&request("t1")).await.unwrap();
    local.shutdown(false).await;
    assert_eq!(state(&local).await, Some(InstanceState::Running));
    local.shutdown(true).await;
    assert_eq!(state(&local).await, Some(InstanceState::Dead));
}

#[tokio::test]
async fn a_program_that_ends_at_once_is_a_dead_machine() {
    let dir = tempfile::tempdir().unwrap();
    let _reap = Reap(&dir);
    let local = opened(&dir).await;
    agent(dir.path(), "exit 3");
    let mut changes = local.changes();
    let started = local.ensure_instance(&request("t1")).await.unwrap();
    if started.state == InstanceState::Running {
        told(&mut changes).await;
    }
    assert_eq!(state(&local).await, Some(InstanceState::Dead));
}
