//! An agent process, and Parquet files for it.

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use std::{
    fmt::Debug,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Time for what has to happen, on any machine. Only a failure takes so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) const KEY: &str = "test-key-0123456789";

/// A running agent; killed when dropped.
pub(crate) struct Agent {
    child: Option<Child>,
    pub url: String,
    pub key: String,
    pub root: TempDir,
    args: Vec<String>,
    envs: Vec<(String, String)>,
    client: reqwest::Client,
}

impl Agent {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn with(args: &[&str]) -> Self {
        Self::launch(TempDir::new().unwrap(), args, &[("GRAPH_API_KEY", KEY)]).await
    }

    /// With the directory `objects` below `root` as its object store.
    pub(crate) async fn with_store(root: &Path, more: &[&str]) -> Self {
        let store = format!("file://{}", root.join("objects").display());
        let mut args = vec!["--object-store", store.as_str()];
        args.extend(more);
        Self::with(&args).await
    }

    pub(crate) async fn launch(root: TempDir, args: &[&str], envs: &[(&str, &str)]) -> Self {
        // The client wants one even for plain HTTP; a second test of this process finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut agent = Self {
            child: None,
            url: String::new(),
            key: KEY.to_owned(),
            root,
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            envs: envs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            client: reqwest::Client::builder().timeout(2 * PATIENCE).build().unwrap(),
        };
        agent.spawn().await;
        agent
    }

    pub(crate) fn volume(&self) -> PathBuf {
        self.root.path().join("volume")
    }

    pub(crate) fn log(&self) -> String {
        let mut text = std::fs::read_to_string(self.root.path().join("agent.log")).unwrap_or_default();
        // What comes after the last line's end is still being written.
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        text
    }

    /// Starts the process and waits until it listens.
    pub(crate) async fn spawn(&mut self) {
        let address = self.volume().join("agent.address");
        let _ = std::fs::remove_file(&address);
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.root.path().join("agent.log"))
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_graphplane-node-agent"))
            .arg("--data-dir")
            .arg(self.volume())
            .args(["--port", "0"])
            .args(&self.args)
            .env_remove("GRAPH_API_KEY")
            .env_remove("RUST_LOG")
            .envs(self.envs.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let until = Instant::now() + PATIENCE;
        loop {
            if let Ok(text) = std::fs::read_to_string(&address) {
                self.url = text.trim().to_owned();
                return;
            }
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("the agent ended with {status}: {}", self.log());
            }
            assert!(Instant::now() < until, "the agent does not listen: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// SIGKILL, as a crash of the machine's power supply would have it.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) async fn restart_after_kill(&mut self) {
        self.kill();
        self.spawn().await;
    }

    pub(crate) fn signal_terminate(&self) {
        let pid = rustix::process::Pid::from_child(self.child.as_ref().unwrap());
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// SIGTERM, and how the process ended.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.signal_terminate();
        self.wait().await
    }

    pub(crate) async fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                self.child = None;
                return status;
            }
            assert!(Instant::now() < until, "the agent does not end: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Memory that the process has asked for and uses, without the pages of its files.
    pub(crate) fn allocated_bytes(&self) -> u64 {
        let pid = self.child.as_ref().unwrap().id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.url))
            .header("X-Graph-API-Key", &self.key)
    }

    pub(crate) fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::to(self.request(Method::GET, path)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        Answer::to(self.request(Method::DELETE, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        Answer::to(self.request(Method::POST, path).json(&body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Vec<u8>) -> Answer {
        Answer::to(self.request(Method::PUT, path).body(body)).await
    }

    /// A database with this schema.
    pub(crate) async fn database(&self, id: &str, ddl: &str) {
        let body = json!({"graph_id": id, "schema_type": "custom", "custom_schema_ddl": ddl});
        self.post("/databases", body).await.ok();
    }

    pub(crate) async fn cypher(&self, id: &str, text: &str) -> Answer {
        self.post(
            &format!("/databases/{id}/query"),
            json!({"cypher": text, "database": id}),
        )
        .await
    }

    /// The one number that a query returns.
    pub(crate) async fn number(&self, id: &str, text: &str) -> u64 {
        let answer = self.cypher(id, text).await.ok();
        let row = answer["data"][0].as_object().unwrap();
        row.values().next().unwrap().as_u64().unwrap()
    }

    /// Waits until this many statements of a database run.
    pub(crate) async fn runs(&self, id: &str, statements: u64) {
        let path = format!("/databases/{id}/metrics?include_counts=false");
        let look = || async { self.get(&path).await.ok()["active_queries"].clone() };
        eventually(&format!("{statements} statements run"), look, |seen| {
            *seen == statements
        })
        .await;
    }

    /// A finished backup under this key.
    pub(crate) async fn backup(&self, id: &str, key: &str, encryption: bool) -> Value {
        let body = json!({"destination": {"key": key}, "encryption": encryption});
        let started = self.post(&format!("/databases/{id}/backup"), body).await.ok();
        let record = self.task(started["task_id"].as_str().unwrap()).await;
        assert_eq!(record["status"], "completed", "{record}");
        record
    }

    /// The record of a restore that has ended.
    pub(crate) async fn restore(&self, id: &str, body: Value) -> Value {
        let started = self.post(&format!("/databases/{id}/restore"), body).await.ok();
        self.task(started["task_id"].as_str().unwrap()).await
    }

    /// Names on the volume that only unfinished work leaves.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let names = |dir: &str| {
            let entries = std::fs::read_dir(self.volume().join(dir)).into_iter().flatten();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap())
        };
        let hidden = names("databases")
            .chain(names("staging"))
            .chain(names("vectors"))
            .filter(|name| name.starts_with('.'));
        hidden.chain(names("tmp")).collect()
    }

    /// Follows a task by its status until it has ended.
    pub(crate) async fn task(&self, id: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let record = self.get(&format!("/tasks/{id}/status")).await.ok();
            if matches!(record["status"].as_str().unwrap(), "completed" | "failed" | "cancelled") {
                return record;
            }
            assert!(Instant::now() < until, "task {id} does not end: {record}");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A response that has been read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    /// The answer to a request, which must be one that the OpenAPI document has, as must be a request that succeeds.
    pub(crate) async fn to(request: RequestBuilder) -> Self {
        let (client, request) = request.build_split();
        let request = request.unwrap();
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let json = request
            .headers()
            .get("content-type")
            .is_some_and(|kind| kind == "application/json");
        let sent = request
            .body()
            .filter(|_| json)
            .and_then(|body| body.as_bytes().map(<[u8]>::to_vec));
        let answer = Self::of(client.execute(request).await.unwrap()).await;
        crate::conformance::check(&method, &path, &answer);
        if let (true, Some(sent)) = (answer.status.is_success(), sent) {
            crate::conformance::check_request(&method, &path, &sent);
        }
        answer
    }

    /// The same for a response that was asked for elsewhere; nothing is checked.
    pub(crate) async fn of(response: Response) -> Self {
        Self {
            status: response.status(),
            headers: response.headers().clone(),
            text: response.text().await.unwrap(),
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text))
    }

    /// The body of a success.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert!(self.status.is_success(), "{}: {}", self.status, self.text);
        self.json()
    }

    /// The `detail` of a failure with this status.
    #[track_caller]
    pub(crate) fn fails(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self.json()["detail"].clone()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        self.text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// The rows of a SELECT as a Parquet file.
pub(crate) fn parquet(select: &str) -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("rows.parquet");
    parquet_at(&path, select);
    std::fs::read(&path).unwrap()
}

pub(crate) fn parquet_at(path: &Path, select: &str) {
    let connection = duckdb::Connection::open_in_memory().unwrap();
    connection
        .execute_batch(&format!("COPY ({select}) TO '{}' (FORMAT parquet)", path.display()))
        .unwrap();
}

/// Looks until what is seen is good; the wait is bounded but never part of what is asserted.
pub(crate) async fn eventually<T, F, Fut>(what: &str, mut look: F, good: impl Fn(&T) -> bool) -> T
where
    T: Debug,
    F: FnMut() -> Fut,
    Fut: Future<Output = T>,
{
    let until = Instant::now() + PATIENCE;
    loop {
        let seen = look().await;
        if good(&seen) {
            return seen;
        }
        assert!(Instant::now() < until, "never happened: {what}; last seen: {seen:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) const PEOPLE: &str = "CREATE NODE TABLE Person(identifier INT64 PRIMARY KEY, name STRING, score DOUBLE);
     CREATE REL TABLE KNOWS(FROM Person TO Person, weight DOUBLE);";

pub(crate) fn people(rows: u64) -> Vec<u8> {
    parquet(&format!(
        "SELECT i AS identifier, 'name ' || i AS name, CASE WHEN i % 3 = 0 THEN NULL ELSE i / 2.0 END::DOUBLE AS score FROM range({rows}) t(i)"
    ))
}

pub(crate) fn acquaintances(people: u64, rows: u64) -> Vec<u8> {
    parquet(&format!(
        "SELECT i % {people} AS \"from\", (i * 7 + 1) % {people} AS \"to\", i::DOUBLE AS weight FROM range({rows}) t(i)"
    ))
}
