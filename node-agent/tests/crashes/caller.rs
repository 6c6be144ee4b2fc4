//! Requests to an agent that may be gone at any moment.

use super::{
    fixture::{Agent, PATIENCE},
    history::Outcome,
};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// Cheap to clone, so that several operations can be under way at once.
#[derive(Clone)]
pub(crate) struct Caller {
    http: reqwest::Client,
    url: String,
    key: String,
    /// All requests but those that only look, where somebody wants to know.
    asked: Option<Arc<Mutex<Vec<String>>>>,
}

/// An answer to a request, or why there is none.
pub(crate) type Answered = Result<Value, Outcome>;

impl Caller {
    pub(crate) fn of(agent: &Agent) -> Self {
        Self {
            http: reqwest::Client::builder().timeout(PATIENCE).build().unwrap(),
            url: agent.url.clone(),
            key: agent.key.clone(),
            asked: None,
        }
    }

    /// The same caller for one operation, which remembers what it asks.
    pub(crate) fn remembering(&self) -> Self {
        Self {
            asked: Some(Arc::default()),
            ..self.clone()
        }
    }

    /// What it has asked for.
    pub(crate) fn asked(&self) -> String {
        let asked = self.asked.as_ref().map(|asked| asked.lock().unwrap().join("; "));
        asked.unwrap_or_default()
    }

    pub(crate) async fn get(&self, path: &str) -> Answered {
        self.send(Method::GET, path, Vec::new()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answered {
        self.send(Method::DELETE, path, Vec::new()).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answered {
        self.send(Method::POST, path, body.to_string().into_bytes()).await
    }

    pub(crate) async fn put(&self, path: &str, body: Vec<u8>) -> Answered {
        self.send(Method::PUT, path, body).await
    }

    /// The rows of a query, as lists.
    pub(crate) async fn cypher(&self, id: &str, text: &str) -> Result<Vec<Vec<Value>>, Outcome> {
        let answer = self
            .post(&format!("/databases/{id}/query"), json!({"cypher": text}))
            .await?;
        let columns = answer["columns"].as_array().unwrap();
        let rows = answer["data"].as_array().unwrap().iter();
        Ok(rows
            .map(|row| columns.iter().map(|name| row[name.as_str().unwrap()].clone()).collect())
            .collect())
    }

    /// Starts a task, and follows it to its end; its result.
    pub(crate) async fn task(&self, path: &str, body: Value) -> Answered {
        let started = self.post(path, body).await?;
        let path = format!("/tasks/{}/status", started["task_id"].as_str().unwrap());
        let until = Instant::now() + PATIENCE;
        loop {
            let record = self.get(&path).await?;
            match record["status"].as_str().unwrap() {
                "completed" => return Ok(record["result"].clone()),
                "failed" | "cancelled" => return Err(Outcome::Unknown(record["error"].to_string())),
                _ => assert!(Instant::now() < until, "the task does not end: {record}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Answered {
        if let Some(asked) = self.asked.as_ref().filter(|_| method != Method::GET) {
            let text = String::from_utf8(body.clone()).unwrap_or_default();
            let text: String = text.chars().take(300).collect();
            asked.lock().unwrap().push(format!("{method} {path} {text}"));
        }
        let request = self
            .http
            .request(method, format!("{}{path}", self.url))
            .header("X-Graph-API-Key", &self.key)
            .body(body);
        let lost = |error: reqwest::Error| Outcome::Unknown(error.to_string());
        let response = request.send().await.map_err(lost)?;
        let status = response.status().as_u16();
        let text = response.text().await.map_err(lost)?;
        match status {
            200..300 => Ok(serde_json::from_str(&text).unwrap()),
            400 | 404 | 409 | 422 => Err(Outcome::Refused(text)),
            408 | 499 | 503 => Err(Outcome::Unknown(text)),
            _ => panic!("{path}: {status} {text}"),
        }
    }
}
