//! The agent as a process of its own.

use crate::{Result, figures::Memory};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

const KEY: &str = "bench";

/// Killed when dropped.
pub(crate) struct Agent {
    child: Child,
    url: String,
    client: reqwest::Client,
}

/// The last bytes of a stream that has been read.
pub(crate) struct End(Vec<u8>);

/// Where the agent that is started on this volume finds a database.
pub(crate) fn place(volume: &Path, id: &str) -> Result<PathBuf> {
    let folder = volume.join("databases");
    std::fs::create_dir_all(&folder)?;
    Ok(folder.join(format!("{id}.lbug")))
}

impl Agent {
    /// Starts it on a volume and waits for its address.
    pub(crate) async fn start(volume: &Path, args: &[String]) -> Result<Self> {
        let address = volume.join("agent.address");
        // One from an agent before.
        let _ = std::fs::remove_file(&address);
        let child = Command::new(env!("CARGO_BIN_EXE_graphplane-node-agent"))
            .args(["--port", "0", "--query-timeout-seconds", "600", "--data-dir"])
            .arg(volume)
            .args(args)
            .env("GRAPH_API_KEY", KEY)
            .env("RUST_LOG", "error,audit=off")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let mut agent = Self {
            child,
            url: String::new(),
            client: reqwest::Client::new(),
        };
        while agent.url.is_empty() {
            if let Some(status) = agent.child.try_wait()? {
                return Err(format!("the agent ended: {status}").into());
            }
            agent.url = std::fs::read_to_string(&address).unwrap_or_default().trim().to_owned();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(agent)
    }

    pub(crate) fn memory(&self) -> Memory {
        Memory::of(self.child.id())
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.url))
            .header("X-Graph-API-Key", KEY)
    }

    /// An answer that must be a success.
    pub(crate) async fn answer(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await?;
        let status = response.status();
        if !status.is_success() {
            return Err(format!("{status}: {}", response.text().await?).into());
        }
        Ok(response)
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let response = self.answer(self.request(Method::POST, path).json(body)).await?;
        Ok(serde_json::from_slice(&response.bytes().await?)?)
    }

    pub(crate) async fn create(&self, database: &str, ddl: &str) -> Result<()> {
        let body = json!({"graph_id": database, "schema_type": "custom", "custom_schema_ddl": ddl});
        self.post("/databases", &body).await.map(drop)
    }

    pub(crate) async fn query(&self, database: &str, cypher: &str) -> Result<Value> {
        self.post(&format!("/databases/{database}/query"), &json!({"cypher": cypher}))
            .await
    }

    /// Reads a stream to its end.
    pub(crate) async fn read(&self, path: &str, accept: &str, body: &Value) -> Result<End> {
        let request = self.request(Method::POST, path).header("Accept", accept).json(body);
        let mut response = self.answer(request).await?;
        let mut end = Vec::new();
        while let Some(piece) = response.chunk().await? {
            end.extend_from_slice(&piece[piece.len().saturating_sub(END)..]);
            end.drain(..end.len().saturating_sub(END));
        }
        Ok(End(end))
    }
}

/// Bytes that are kept of a stream's end.
const END: usize = 512;

impl End {
    /// Whether the last chunk of NDJSON says that so many rows were sent.
    pub(crate) fn has_rows(&self, rows: u64) -> Result<()> {
        let end = String::from_utf8_lossy(&self.0);
        if end.contains(&format!("\"total_rows_sent\":{rows},")) && end.contains("\"is_last_chunk\":true") {
            return Ok(());
        }
        Err(format!("the stream ended with {end}").into())
    }

    /// Whether there is the marker that ends an Arrow stream.
    pub(crate) fn is_arrows(&self) -> Result<()> {
        if self.0.ends_with(&[255, 255, 255, 255, 0, 0, 0, 0]) {
            return Ok(());
        }
        Err("the Arrow stream was broken off".into())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
