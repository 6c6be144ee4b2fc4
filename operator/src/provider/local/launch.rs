//! Starting an agent so that a crash at any moment neither loses nor doubles it.
//!
//! `launch.json` is written before the process is started and removed after `pid.json` was written. Whoever finds it knows
//! that a process may exist which no `pid.json` names, and looks for one by its command line.

use super::layout::{NodeFiles, io_error, read, remove, write};
use super::process::{self, Identity, TOKEN_VARIABLE};
use crate::provider::{InstanceRequest, ProviderError, Purpose};
use crate::settings::LocalSettings;
use graphplane_core::node_plan::{Instance, InstanceState};
use graphplane_core::sources::SourceRules;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::{Child, Command};

/// Content of `pid.json`, and of `launch.json` without the process.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    #[serde(flatten)]
    pub(super) process: Option<Identity>,
    pub(super) client_token: String,
    pub(super) started_at: Timestamp,
    #[serde(default)]
    pub(super) tags: BTreeMap<String, String>,
}

/// Content of `stop.json`.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub(super) struct Stop {
    pub(super) since: Timestamp,
}

/// Content of `agent.json`: what the agent reads.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(super) struct AgentConfig {
    pub(super) node: String,
    pub(super) cluster_id: String,
    pub(super) control_plane: String,
    pub(super) bootstrap_token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) object_store: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) backup_key_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) embedding_model: Option<PathBuf>,
    #[serde(flatten)]
    pub(super) sources: SourceRules,
    /// What a replica serves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) seeds: Vec<String>,
    pub(super) instance_id: String,
}

/// Seconds between two looks of a replica for newer seeds, as many as it takes: the operator says when it should look, so
/// that a fleet does not take up a seed all at once.
const SEED_POLL: &str = "86400";

/// What a start needs beside the request.
#[derive(Clone, Debug)]
pub(super) struct Surroundings<'a> {
    pub(super) settings: &'a LocalSettings,
    pub(super) data_dir: &'a Path,
}

/// What is known of a node's process; an interrupted start is completed on the way, for which the caller holds the
/// node's lock.
pub(super) fn record(files: &NodeFiles) -> Result<Option<Record>, ProviderError> {
    let known: Option<Record> = read(&files.pid())?;
    let begun: Option<Record> = read(&files.launch())?;
    let alive = |r: &Record| r.process.as_ref().is_some_and(Identity::is_alive);
    match (&known, begun) {
        (Some(known), _) if alive(known) => Ok(Some(known.clone())),
        (Some(known), None) => Ok(Some(known.clone())),
        // Without a pid file, or with a start that was begun, there may be a process that nobody wrote down.
        (_, begun) => {
            let Some((identity, token)) = process::find(&files.config()) else {
                // The start did not come to a process. `pid.json` of the one before, if there is one, still holds.
                return Ok(known);
            };
            let begun = begun.as_ref();
            let client_token = token
                .or_else(|| begun.map(|b| b.client_token.clone()))
                .unwrap_or_default();
            let found = Record {
                process: Some(identity),
                client_token,
                started_at: begun.map_or_else(Timestamp::now, |b| b.started_at),
                tags: begun.map(|b| b.tags.clone()).unwrap_or_default(),
            };
            write(&files.pid(), &found)?;
            remove(&files.launch())?;
            Ok(Some(found))
        }
    }
}

/// The machine that a record stands for.
pub(super) fn instance(node: &str, files: &NodeFiles, record: &Record) -> Result<Instance, ProviderError> {
    let alive = record.process.as_ref().is_some_and(Identity::is_alive);
    let state = match (alive, read::<Stop>(&files.stop())?) {
        (false, _) => InstanceState::Dead,
        (true, Some(stop)) if stop.since >= record.started_at => InstanceState::Stopping { since: stop.since },
        (true, _) => InstanceState::Running,
    };
    Ok(Instance {
        id: id(node),
        token: record.client_token.clone(),
        state,
        started: record.started_at,
        notice: None,
        template: None,
    })
}

/// Identity of a node's machine.
pub(super) fn id(node: &str) -> String {
    format!("local:///{node}")
}

/// Starts the agent unless it runs. The child is returned so that the caller can reap it; it goes on when the operator
/// ends: it has its own process group, and its output goes to a file.
pub(super) fn launch(
    files: &NodeFiles,
    want: &InstanceRequest,
    around: &Surroundings<'_>,
) -> Result<(Record, Option<Child>), ProviderError> {
    files.make()?;
    let _lock = files.lock()?;
    if let Some(existing) = record(files)?.filter(|r| r.process.as_ref().is_some_and(Identity::is_alive)) {
        if existing.client_token == want.client_token {
            return Ok((existing, None));
        }
        let message = format!("another process of node {} runs and has to stop first", want.node);
        return Err(ProviderError::Occupied(message));
    }
    let config = AgentConfig {
        node: want.node.clone(),
        cluster_id: want.cluster_id.clone(),
        control_plane: around.settings.control_plane_url.clone(),
        bootstrap_token: want.bootstrap_token.clone(),
        object_store: around.settings.object_store_url.clone(),
        backup_key_file: around.settings.backup_key_file.clone(),
        embedding_model: around.settings.embedding_model.clone(),
        sources: around.settings.sources.clone(),
        seeds: match &want.purpose {
            Purpose::Write { .. } => Vec::new(),
            Purpose::Serve { seeds } => seeds.clone(),
        },
        instance_id: format!("local-{}", want.node),
    };
    write(&files.config(), &config)?;
    let mut record = Record {
        process: None,
        client_token: want.client_token.clone(),
        started_at: Timestamp::now(),
        tags: want.tags.clone(),
    };
    write(&files.launch(), &record)?;
    remove(&files.stop())?;
    let child = spawn(files, want, around)?;
    // A child that has ended already and was reaped has no pid; it is written down as dead.
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0);
    record.process = Some(Identity::of(pid));
    write(&files.pid(), &record)?;
    remove(&files.launch())?;
    Ok((record, Some(child)))
}

fn spawn(files: &NodeFiles, want: &InstanceRequest, around: &Surroundings<'_>) -> Result<Child, ProviderError> {
    let log = files.log();
    let open = || {
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&log)
            .map_err(io_error("open", &log))
    };
    let (out, err) = (open()?, open()?);
    let mut command = Command::new(&around.settings.agent_binary);
    command
        .arg("--data-dir")
        .arg(around.data_dir)
        .args(["--port", "0", "--config"])
        .arg(files.config());
    if matches!(want.purpose, Purpose::Serve { .. }) {
        command.args(["--role", "replica", "--seed-poll-seconds", SEED_POLL]);
    }
    command
        .env(TOKEN_VARIABLE, &want.client_token)
        // The key of a standalone agent must not reach one that gets its key from us.
        .env_remove("GRAPH_API_KEY")
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .current_dir(files.dir())
        .process_group(0)
        .kill_on_drop(false)
        .spawn()
        .map_err(io_error("start", &around.settings.agent_binary))
}
