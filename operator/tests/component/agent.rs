//! A node agent without an engine: the contract over a real socket, databases as lists of tables.

mod restores;
mod seeds;

use crate::gate::Gate;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use graphplane_core::statements::{created_table, split};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What is on a disk. It outlives the agent.
#[derive(Default, Debug)]
pub(crate) struct Disk {
    /// Databases and the statements that each was made with.
    pub(crate) databases: BTreeMap<String, Vec<String>>,
    /// How often each was made anew.
    pub(crate) made: BTreeMap<String, usize>,
    /// The key of the agent, kept from its first registration.
    pub(crate) credential: Option<String>,
    pub(crate) tasks: BTreeMap<String, Value>,
    /// Revision of every database.
    pub(crate) revision: u64,
    /// The seed that a replica serves, as `/info` shows it.
    pub(crate) served: Option<Value>,
}

/// What all agents of a test do.
#[derive(Default)]
pub(crate) struct Behaviour {
    /// Backups stay at work while this is set.
    pub(crate) hold_backups: AtomicBool,
    /// Backups fail with this.
    pub(crate) fail_backups: Mutex<Option<String>>,
    /// Forks stay at work while this is set.
    pub(crate) hold_forks: AtomicBool,
    /// The next fork fails with this.
    pub(crate) fail_fork: Mutex<Option<String>>,
    /// Restores stay at work while this is set.
    pub(crate) hold_restores: AtomicBool,
    /// Restored databases have one node less than their manifest says.
    pub(crate) lose_nodes: AtomicBool,
    /// Replicas that look for a seed go on fetching it while this is set.
    pub(crate) hold_seeds: AtomicBool,
    /// Replicas refuse newer seeds with this.
    pub(crate) refuse_seeds: Mutex<Option<String>>,
    /// Agents start and never register.
    pub(crate) never_register: AtomicBool,
    /// Leases last seconds, so that a test can see them end, and not so long that no busy machine lets one lapse.
    pub(crate) short_leases: AtomicBool,
    /// The answers to registrations stay on their way.
    pub(crate) hold_answers: AtomicBool,
    /// Agents stop renewing.
    pub(crate) never_renew: AtomicBool,
}

#[derive(Clone)]
struct Agent {
    disk: Arc<Mutex<Disk>>,
    key: Arc<Mutex<Option<String>>>,
    epoch: Arc<Mutex<u64>>,
    seeds: seeds::Following,
    objects: PathBuf,
    behaviour: Arc<Behaviour>,
    gate: Arc<Mutex<Gate>>,
}

/// An agent that runs.
pub(crate) struct Running {
    pub(crate) address: String,
    pub(crate) key: Arc<Mutex<Option<String>>>,
    pub(crate) epoch: Arc<Mutex<u64>>,
    server: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Starts an agent for a disk.
pub(crate) async fn start(
    disk: Arc<Mutex<Disk>>,
    seeds: Vec<String>,
    objects: PathBuf,
    behaviour: Arc<Behaviour>,
    gate: Arc<Mutex<Gate>>,
) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let agent = Agent {
        disk,
        key: Arc::default(),
        epoch: Arc::default(),
        seeds: seeds::Following::new(seeds),
        objects,
        behaviour,
        gate,
    };
    agent.look();
    let (key, epoch) = (agent.key.clone(), agent.epoch.clone());
    let router = Router::new()
        .route("/databases", post(create))
        .route("/databases/{id}", get(exists).delete(remove))
        .route("/databases/{id}/schema", get(tables).post(apply))
        .route("/databases/{id}/backup", post(backup))
        .route("/databases/{id}/restore", post(restores::restore))
        .route("/databases/{id}/query", post(restores::count))
        .route("/databases/{id}/fork-from/{parent}", post(fork))
        .route("/info", get(seeds::info))
        .route("/admin/seed/refresh", post(seeds::refresh))
        .route("/tasks", get(list))
        .route("/tasks/{id}/status", get(task))
        .route("/tasks/{id}", delete(cancel))
        .with_state(agent);
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Running {
        address,
        key,
        epoch,
        server,
    }
}

fn error(status: StatusCode, detail: impl Into<Value>) -> Response {
    (status, Json(json!({"detail": detail.into()}))).into_response()
}

impl Agent {
    /// Checks the key, and for changes the epoch.
    fn admit(&self, headers: &HeaderMap, changes: bool) -> Result<(), Box<Response>> {
        let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let Some(key) = self.key.lock().clone() else {
            let detail = json!({"error": "The node has not registered yet", "reason": "registering", "retry_after": 5});
            return Err(Box::new(error(StatusCode::SERVICE_UNAVAILABLE, detail)));
        };
        if header("x-graph-api-key") != Some(key) {
            return Err(Box::new(error(StatusCode::UNAUTHORIZED, "wrong key")));
        }
        let held = *self.epoch.lock();
        if changes && header("x-graphplane-epoch") != Some(held.to_string()) {
            let message = format!("the node holds epoch {held}");
            return Err(Box::new(error(StatusCode::CONFLICT, message)));
        }
        Ok(())
    }

    async fn changing(&self, name: String, headers: &HeaderMap, work: impl FnOnce(&Self) -> Response) -> Response {
        let gate = self.gate.lock().clone();
        gate.pass(|| format!("agent {name}"), async {
            match self.admit(headers, true) {
                Ok(()) => work(self),
                Err(refused) => *refused,
            }
        })
        .await
    }
}

/// What a schema says, or why it cannot be.
fn check(existing: &[String], ddl: &str) -> Result<Vec<String>, (StatusCode, String)> {
    let mut tables: Vec<String> = existing.iter().filter_map(|s| created_table(s)).collect();
    let mut added = Vec::new();
    for (n, statement) in split(ddl).into_iter().enumerate() {
        if statement.contains("WRONG") {
            return Err((
                StatusCode::BAD_REQUEST,
                format!("error in statement {}: Binder exception", n + 1),
            ));
        }
        if let Some(table) = created_table(statement) {
            if tables.contains(&table) {
                return Err((StatusCode::CONFLICT, format!("{table} already exists in catalog")));
            }
            tables.push(table);
        }
        added.push(statement.to_owned());
    }
    Ok(added)
}

async fn create(State(agent): State<Agent>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    let id = body["graph_id"].as_str().unwrap().to_owned();
    agent
        .changing(format!("create {id}"), &headers, |agent| {
            let mut disk = agent.disk.lock();
            if disk.databases.contains_key(&id) {
                return error(StatusCode::CONFLICT, format!("Database {id} already exists"));
            }
            let base = match body["schema_type"].as_str() {
                Some("entity" | "shared") => "CREATE NODE TABLE Entity(identifier STRING PRIMARY KEY);",
                _ => "",
            };
            let ddl = format!("{base}{}", body["custom_schema_ddl"].as_str().unwrap_or_default());
            match check(&[], &ddl) {
                Ok(statements) => {
                    disk.databases.insert(id.clone(), statements);
                    *disk.made.entry(id.clone()).or_default() += 1;
                    Json(json!({"status": "success", "graph_id": id})).into_response()
                }
                Err((status, why)) => error(status, format!("custom_schema_ddl: {why}")),
            }
        })
        .await
}

async fn exists(State(agent): State<Agent>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    match agent.admit(&headers, false) {
        Err(refused) => *refused,
        Ok(()) if agent.disk.lock().databases.contains_key(&id) => Json(json!({"graph_id": id})).into_response(),
        Ok(()) => error(StatusCode::NOT_FOUND, format!("Database {id} not found")),
    }
}

async fn remove(State(agent): State<Agent>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    agent
        .changing(format!("delete {id}"), &headers, |agent| {
            match agent.disk.lock().databases.remove(&id) {
                Some(_) => Json(json!({"status": "success"})).into_response(),
                None => error(StatusCode::NOT_FOUND, format!("Database {id} not found")),
            }
        })
        .await
}

async fn tables(State(agent): State<Agent>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    if let Err(refused) = agent.admit(&headers, false) {
        return *refused;
    }
    let disk = agent.disk.lock();
    let Some(statements) = disk.databases.get(&id) else {
        return error(StatusCode::NOT_FOUND, format!("Database {id} not found"));
    };
    let described = statements.iter().filter_map(|s| {
        let name = created_table(s)?;
        Some(match s.to_uppercase().contains("NODE TABLE") {
            true => json!({"name": name, "type": "NODE", "properties": [{"name": "x", "type": "INT64", "primary_key": true}]}),
            false => json!({"name": name, "type": "REL", "properties": [], "connections": [{"from": "A", "to": "A"}]}),
        })
    });
    Json(json!({"database": id, "tables": described.collect::<Vec<_>>()})).into_response()
}

async fn apply(
    State(agent): State<Agent>,
    headers: HeaderMap,
    Path(id): Path<String>,
    Json(body): Json<Value>,
) -> Response {
    agent
        .changing(format!("schema {id}"), &headers, |agent| {
            let mut disk = agent.disk.lock();
            let Some(statements) = disk.databases.get_mut(&id) else {
                return error(StatusCode::NOT_FOUND, format!("Database {id} not found"));
            };
            match check(statements, body["ddl"].as_str().unwrap_or_default()) {
                Ok(added) => {
                    statements.extend(added);
                    Json(json!({"success": true})).into_response()
                }
                Err((status, why)) => error(status, json!({"error": why, "success": false})),
            }
        })
        .await
}

async fn backup(
    State(agent): State<Agent>,
    headers: HeaderMap,
    Path(id): Path<String>,
    Json(body): Json<Value>,
) -> Response {
    let key = body["destination"]["key"].as_str().unwrap().to_owned();
    agent
        .changing(format!("backup {id}"), &headers, |agent| {
            let mut disk = agent.disk.lock();
            let Some(statements) = disk.databases.get(&id).cloned() else {
                return error(StatusCode::NOT_FOUND, format!("Database {id} not found"));
            };
            let seed = body["backup_type"] == "replica";
            let same = |t: &Value| !seed && t["status"] == "running" && t["metadata"]["key"] == key.as_str();
            let same = disk.tasks.iter().find(|(_, t)| same(t));
            let task_id = same.map_or_else(|| format!("backup_{id}_{:08x}", disk.tasks.len()), |(id, _)| id.clone());
            let content = statements.join(";").into_bytes();
            let kind = if seed { "replica" } else { "standard" };
            let metadata = json!({"graph_id": id, "key": key, "size": content.len(), "backup_type": kind});
            let task = json!({"task_id": task_id, "status": "running", "metadata": metadata, "content": content});
            disk.tasks.insert(task_id.clone(), task);
            Json(json!({"task_id": task_id, "status": "initiated"})).into_response()
        })
        .await
}

async fn fork(State(agent): State<Agent>, headers: HeaderMap, Path((id, parent)): Path<(String, String)>) -> Response {
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    assert_eq!(headers["prefer"], "respond-async");
    agent
        .changing(format!("fork {id}"), &headers, |agent| {
            let mut disk = agent.disk.lock();
            if !disk.databases.contains_key(&parent) {
                return error(StatusCode::NOT_FOUND, format!("Database {parent} not found"));
            }
            let running = |t: &Value| t["status"] == "running" && t["metadata"]["graph_id"] == id.as_str();
            let same = disk
                .tasks
                .iter()
                .find(|(_, t)| running(t))
                .map(|(task, _)| task.clone());
            if same.is_none() && disk.databases.contains_key(&id) {
                return error(StatusCode::CONFLICT, format!("Database {id} already exists"));
            }
            let task_id = same.unwrap_or_else(|| format!("fork_{id}_{:08x}", disk.tasks.len()));
            let metadata = json!({"graph_id": id, "parent_graph_id": parent, "idempotency_key": key});
            let task = json!({"task_id": task_id, "status": "running", "metadata": metadata});
            disk.tasks.insert(task_id.clone(), task);
            (
                StatusCode::ACCEPTED,
                Json(json!({"task_id": task_id, "status": "started"})),
            )
                .into_response()
        })
        .await
}

/// The tasks of a kind of one database, newest first. Like every task, a fork that is looked at makes progress.
async fn list(
    State(agent): State<Agent>,
    headers: HeaderMap,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    if let Err(refused) = agent.admit(&headers, false) {
        return *refused;
    }
    let mut disk = agent.disk.lock();
    if query["task_type"] == "backup" {
        let about =
            |t: &&Value| t["metadata"]["graph_id"] == query["graph_id"].as_str() && t["metadata"]["key"].is_string();
        let found: Vec<&Value> = disk.tasks.values().rev().filter(about).collect();
        return Json(found).into_response();
    }
    if query["task_type"] == "restore" {
        return Json(agent.restores(&mut disk, &query["graph_id"])).into_response();
    }
    assert_eq!(query["task_type"], "fork");
    let Disk {
        tasks, databases, made, ..
    } = &mut *disk;
    let of_this = |t: &&mut Value| t["metadata"]["graph_id"] == query["graph_id"].as_str();
    let mut found = Vec::new();
    for task in tasks.values_mut().filter(of_this) {
        if task["status"] == "running" && !agent.behaviour.hold_forks.load(Ordering::SeqCst) {
            task["completed_at"] = json!(jiff::Timestamp::now());
            if let Some(why) = agent.behaviour.fail_fork.lock().take() {
                task["status"] = json!("failed");
                task["error"] = json!(why);
            } else {
                let id = query["graph_id"].clone();
                let copy = databases[task["metadata"]["parent_graph_id"].as_str().unwrap()].clone();
                assert!(databases.insert(id.clone(), copy).is_none(), "{id} was there already");
                *made.entry(id).or_default() += 1;
                task["status"] = json!("completed");
            }
        }
        found.insert(0, task.clone());
    }
    Json(found).into_response()
}

/// A task that is looked at makes progress: it is done, unless the test wants it otherwise.
async fn task(State(agent): State<Agent>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    if let Err(refused) = agent.admit(&headers, false) {
        return *refused;
    }
    let mut disk = agent.disk.lock();
    let Some(task) = disk.tasks.get_mut(&id) else {
        return error(StatusCode::NOT_FOUND, "no such task");
    };
    if task["status"] == "running" && !agent.behaviour.hold_backups.load(Ordering::SeqCst) {
        if let Some(why) = agent.behaviour.fail_backups.lock().clone() {
            task["status"] = json!("failed");
            task["error"] = json!(why);
        } else {
            let key = task["metadata"]["key"].as_str().unwrap();
            let at = match task["metadata"]["backup_type"] == "replica" {
                true => agent.publish(key, &task["metadata"]["graph_id"]),
                false => agent.objects.join(key),
            };
            let content: Vec<u8> = serde_json::from_value(task["content"].clone()).unwrap();
            std::fs::create_dir_all(&at).unwrap();
            std::fs::write(at.join("graph.lbug.zst"), &content).unwrap();
            let file = json!({"kind": "graph", "name": "graph.lbug.zst", "size_bytes": content.len(),
                "sha256": hex::encode(Sha256::digest(&content))});
            let manifest = json!({"format": 1, "graph_id": task["metadata"]["graph_id"], "node_count": 2,
                "relationship_count": 1, "ladybug_version": "0.22.1", "files": [file]});
            std::fs::write(at.join("manifest.json"), manifest.to_string()).unwrap();
            task["status"] = json!("completed");
        }
    }
    Json(task.clone()).into_response()
}

async fn cancel(State(agent): State<Agent>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    if let Err(refused) = agent.admit(&headers, false) {
        return *refused;
    }
    match agent.disk.lock().tasks.get_mut(&id) {
        Some(task) => {
            task["status"] = json!("cancelled");
            Json(json!({"task_id": id, "status": "cancelling"})).into_response()
        }
        None => error(StatusCode::NOT_FOUND, "no such task"),
    }
}
