//! A node agent that runs alone.

use crate::Result;
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

const KEY: &str = "bench";

/// `graphplane-node-agent` on a free port of the loopback interface; killed when dropped.
pub(crate) struct Agent {
    _folder: TempDir,
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    http: reqwest::Client,
}

impl Agent {
    /// Starts it and waits for its address.
    pub(crate) async fn start(bin: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let child = Command::new(bin.join("graphplane-node-agent"))
            .args(["--port", "0", "--data-dir"])
            .arg(folder.path())
            .env("GRAPH_API_KEY", KEY)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let file = folder.path().join("agent.address");
        let address = loop {
            match std::fs::read_to_string(&file) {
                Ok(text) => break text.trim().trim_start_matches("http://").parse()?,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        Ok(Self {
            _folder: folder,
            child,
            address,
            http: reqwest::Client::new(),
        })
    }

    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A request that must succeed.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let url = format!("http://{}{path}", self.address);
        let answer = self
            .http
            .post(url)
            .header("X-Graph-API-Key", KEY)
            .json(body)
            .send()
            .await?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            return Err(format!("{path}: {status}: {text}").into());
        }
        Ok(serde_json::from_str(&text)?)
    }

    /// A query that must succeed.
    pub(crate) async fn query(&self, database: &str, cypher: &str) -> Result<Value> {
        self.post(
            &format!("/databases/{database}/query"),
            &json!({"database": database, "cypher": cypher}),
        )
        .await
    }

    /// The bytes of a keep-alive request, to be sent again and again.
    pub(crate) fn raw(&self, method: &str, path: &str, body: &str) -> Vec<u8> {
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nX-Graph-API-Key: {KEY}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )
        .into_bytes()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
