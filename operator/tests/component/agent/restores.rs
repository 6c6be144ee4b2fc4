//! The part of an agent that restores backups, and counts what came back.

use super::{Agent, Disk, error};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use graphplane_core::statements::split;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

fn restores(task: &Value, id: &str) -> bool {
    task["metadata"]["graph_id"] == id && task["metadata"]["restores"] == true
}

pub(super) async fn restore(
    State(agent): State<Agent>,
    headers: HeaderMap,
    Path(id): Path<String>,
    Json(body): Json<Value>,
) -> Response {
    assert_eq!(
        (&body["force_overwrite"], &body["create_system_backup"]),
        (&json!(false), &json!(false))
    );
    let key = body["s3_key"].as_str().unwrap().to_owned();
    agent
        .changing(format!("restore {id}"), &headers, |agent| {
            let mut disk = agent.disk.lock();
            let running = |t: &Value| restores(t, &id) && t["status"] == "running";
            let same = disk
                .tasks
                .iter()
                .find(|(_, t)| running(t))
                .map(|(task, _)| task.clone());
            if same.is_none() && disk.databases.contains_key(&id) {
                return error(StatusCode::CONFLICT, format!("Database {id} already exists"));
            }
            let Ok(content) = std::fs::read_to_string(agent.objects.join(&key).join("graph.lbug.zst")) else {
                return error(StatusCode::NOT_FOUND, format!("There is no backup at {key}"));
            };
            let task_id = same.unwrap_or_else(|| format!("restore_{id}_{:08x}", disk.tasks.len()));
            let metadata = json!({"graph_id": id, "key": key, "restores": true});
            let task = json!({"task_id": task_id, "status": "running", "metadata": metadata, "content": content});
            disk.tasks.insert(task_id.clone(), task);
            Json(json!({"task_id": task_id, "status": "initiated"})).into_response()
        })
        .await
}

impl Agent {
    /// The restores to a database, newest first. One that is looked at is done, unless the test wants it otherwise.
    pub(super) fn restores(&self, disk: &mut Disk, id: &str) -> Vec<Value> {
        let Disk { tasks, databases, .. } = disk;
        let mut found = Vec::new();
        for task in tasks.values_mut().filter(|task| restores(task, id)) {
            if task["status"] == "running" && !self.behaviour.hold_restores.load(Ordering::SeqCst) {
                let statements = split(task["content"].as_str().unwrap());
                let statements = statements.into_iter().map(str::to_owned).collect();
                assert!(
                    databases.insert(id.to_owned(), statements).is_none(),
                    "{id} was there already"
                );
                task["status"] = json!("completed");
            }
            found.insert(0, task.clone());
        }
        found
    }
}

/// Two nodes and a relationship, as the manifests of backups say.
pub(super) async fn count(
    State(agent): State<Agent>,
    headers: HeaderMap,
    Path(id): Path<String>,
    Json(body): Json<Value>,
) -> Response {
    if let Err(refused) = agent.admit(&headers, false) {
        return *refused;
    }
    if !agent.disk.lock().databases.contains_key(&id) {
        return error(StatusCode::NOT_FOUND, format!("Database {id} not found"));
    }
    let lost = i64::from(agent.behaviour.lose_nodes.load(Ordering::SeqCst));
    let n = match body["cypher"].as_str().unwrap().contains("-[r]->") {
        true => 1,
        false => 2 - lost,
    };
    Json(json!({"data": [{"n": n}], "columns": ["n"], "row_count": 1, "database": id})).into_response()
}
