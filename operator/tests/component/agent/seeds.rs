//! The part of an agent that publishes seeds, or follows them.

use super::Agent;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a replica follows, and what it knows of it.
#[derive(Clone, Default)]
pub(super) struct Following {
    key: Option<String>,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    latest: Option<Value>,
    error: Option<String>,
    fetching: bool,
}

impl Following {
    pub(super) fn new(seeds: Vec<String>) -> Self {
        Self {
            key: seeds.into_iter().next(),
            known: Arc::default(),
        }
    }
}

impl Agent {
    fn pointer(&self, key: &str) -> PathBuf {
        self.objects.join(key).join("latest.json")
    }

    /// Where the files of the next seed are; the pointer names it already.
    pub(super) fn publish(&self, key: &str, graph: &Value) -> PathBuf {
        let before = std::fs::read(self.pointer(key)).ok();
        let before = before.map_or(0, |bytes| {
            serde_json::from_slice::<Value>(&bytes).unwrap()["version"]
                .as_u64()
                .unwrap()
        });
        let (epoch, version) = (*self.epoch.lock(), before + 1);
        let pointer = json!({"format": 1, "graph_id": graph, "epoch": epoch, "version": version, "manifest_sha256": "",
            "created_at": jiff::Timestamp::now()});
        std::fs::create_dir_all(self.objects.join(key)).unwrap();
        std::fs::write(self.pointer(key), pointer.to_string()).unwrap();
        self.objects.join(format!("{key}/{epoch}/{version}"))
    }

    /// Looks for the newest seed, and serves it unless the test wants it otherwise.
    pub(super) fn look(&self) {
        let Some(key) = &self.seeds.key else { return };
        let Ok(bytes) = std::fs::read(self.pointer(key)) else {
            return;
        };
        let pointer: Value = serde_json::from_slice(&bytes).unwrap();
        let latest = json!({"epoch": pointer["epoch"], "version": pointer["version"]});
        let mut known = self.seeds.known.lock();
        let mut disk = self.disk.lock();
        known.latest = Some(latest.clone());
        if disk.served.as_ref() == Some(&latest) {
            return;
        }
        known.fetching = self.behaviour.hold_seeds.load(Ordering::SeqCst);
        known.error = self.behaviour.refuse_seeds.lock().clone();
        if !known.fetching && known.error.is_none() {
            disk.served = Some(latest);
        }
    }
}

/// A seed that is being fetched arrives when somebody looks, as soon as the test lets it.
pub(super) async fn info(State(agent): State<Agent>) -> Response {
    let fetching = agent.seeds.known.lock().fetching;
    if fetching {
        agent.look();
    }
    let known = agent.seeds.known.lock();
    let served = agent.disk.lock().served.clone();
    let state = match (&served, known.fetching) {
        (None, false) => "waiting",
        (None, true) => "fetching",
        (Some(_), false) => "ready",
        (Some(_), true) => "refreshing",
    };
    let seeds: Vec<Value> = agent
        .seeds
        .key
        .iter()
        .map(|key| json!({"seed": key, "state": state, "served": served, "latest": known.latest, "error": known.error}))
        .collect();
    Json(json!({ "seeds": seeds })).into_response()
}

pub(super) async fn refresh(State(agent): State<Agent>, headers: HeaderMap) -> Response {
    if let Err(refused) = agent.admit(&headers, false) {
        return *refused;
    }
    agent.look();
    StatusCode::OK.into_response()
}
