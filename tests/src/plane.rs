//! A control plane in a temporary directory, started as `graphplane up`.

use crate::{
    Output, Response, binary,
    command::run,
    emulator::{Emulator, OPERATOR, REGION},
    http::request,
    processes::{alive, command_lines_with},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long a scenario waits for something that should come; far beyond what it takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// A running control plane with its data directory. Dropping it stops every process that belongs to it.
pub struct Plane {
    folder: TempDir,
    child: Option<Child>,
    starts: u32,
    api_port: u16,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

impl Plane {
    /// Starts a control plane on free ports in a new directory and waits until it is ready.
    pub fn start() -> Self {
        Self::start_with(0, Vec::new(), Vec::new())
    }

    /// Starts a control plane whose machines are those of the emulator.
    pub fn on_aws(aws: &Emulator) -> Self {
        // Machines keep the address that they were started with, so it is the same after a restart.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let settings = aws.settings().display().to_string();
        let environment = [
            ("AWS_ACCESS_KEY_ID", OPERATOR),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_REGION", REGION),
            ("AWS_DEFAULT_REGION", REGION),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_ENDPOINT_URL", aws.proxy().url()),
            ("AWS_ALLOW_HTTP", "true"),
        ];
        Self::start_with(
            port.expect("a free port can be found").port(),
            vec!["--aws".to_owned(), settings],
            environment.map(|(name, value)| (name, value.to_owned())).to_vec(),
        )
    }

    fn start_with(api_port: u16, arguments: Vec<String>, environment: Vec<(&'static str, String)>) -> Self {
        let mut plane = Self {
            folder: tempfile::tempdir().expect("a temporary directory can be made"),
            child: None,
            starts: 0,
            api_port,
            arguments,
            environment,
        };
        plane.start_again();
        plane
    }

    /// Its data directory.
    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Process id of `graphplane up`.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the plane runs").id()
    }

    /// Starts `graphplane up` on the directory and waits until `endpoints.json` answers.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "the plane runs already");
        self.starts += 1;
        let log = File::create(self.folder.path().join(format!("up-{}.log", self.starts))).expect("a log can be made");
        let _ = fs::remove_file(self.dir().join("endpoints.json"));
        let child = Command::new(binary("graphplane"))
            .args([
                "up",
                "--kube-port",
                "0",
                "--api-port",
                &self.api_port.to_string(),
                "--data-dir",
            ])
            .arg(self.dir())
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be doubled"))
            .stderr(log)
            .spawn()
            .expect("graphplane starts");
        self.child = Some(child);
        let deadline = Instant::now() + PATIENCE;
        while !self.dir().join("endpoints.json").exists() {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok()).flatten() {
                panic!("graphplane up ended with {status}:\n{}", self.logs());
            }
            assert!(
                Instant::now() < deadline,
                "graphplane up is not ready:\n{}",
                self.logs()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops it as a user does, with SIGINT, and waits for its end.
    #[track_caller]
    pub fn stop(&mut self) {
        self.signal(Signal::INT);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let child = self.child.as_mut().expect("the plane runs");
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                self.child = None;
                assert!(status.success(), "graphplane up ended with {status}:\n{}", self.logs());
                return;
            }
            assert!(
                Instant::now() < deadline,
                "graphplane up does not stop:\n{}",
                self.logs()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills it with SIGKILL; its node agents live on, as they do when an operator's machine dies.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the plane runs");
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid() as i32) {
            kill_process(pid, signal).expect("a running child can be signalled");
        }
    }

    /// What `graphplane up` printed at its last start, and the tail of its log, for messages.
    pub fn logs(&self) -> String {
        let printed = fs::read_to_string(self.folder.path().join(format!("up-{}.log", self.starts)));
        let log = fs::read_to_string(self.dir().join("graphplane.log")).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(60).collect();
        format!(
            "{}\n…\n{}",
            printed.unwrap_or_default(),
            tail.into_iter().rev().collect::<Vec<_>>().join("\n")
        )
    }

    /// kubectl against this plane.
    pub fn kubectl(&self, args: &[&str]) -> Output {
        self.kubectl_with(args, None)
    }

    /// kubectl with a manifest on its standard input.
    pub fn kubectl_with(&self, args: &[&str], stdin: Option<&str>) -> Output {
        let mut command = Command::new("kubectl");
        command
            .env("KUBECONFIG", self.dir().join("kubeconfig"))
            .env("HOME", self.folder.path())
            .args(args);
        run(&mut command, stdin, PATIENCE)
    }

    /// The `graphplane` command against this plane.
    pub fn graphplane(&self, args: &[&str]) -> Output {
        let mut command = Command::new(binary("graphplane"));
        command.args(args).arg("--data-dir").arg(self.dir());
        run(&mut command, None, PATIENCE)
    }

    /// URL of the REST API.
    pub fn api_url(&self) -> String {
        let text = fs::read_to_string(self.dir().join("endpoints.json")).expect("a ready plane wrote its endpoints");
        let endpoints: Value = serde_json::from_str(&text).expect("endpoints are JSON");
        endpoints["api"]
            .as_str()
            .expect("the API's URL is text")
            .trim_end_matches('/')
            .to_owned()
    }

    /// A REST request with the plane's API key.
    #[track_caller]
    pub fn rest(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        self.rest_with(method, path, &[], body)
    }

    /// The same with more headers.
    #[track_caller]
    pub fn rest_with(&self, method: &str, path: &str, headers: &[&str], body: Option<&Value>) -> Response {
        let key = fs::read_to_string(self.dir().join("api-key")).expect("a ready plane wrote its key");
        let authorization = format!("Authorization: Bearer {}", key.trim());
        let headers: Vec<String> = headers
            .iter()
            .map(|&header| header.to_owned())
            .chain([authorization])
            .collect();
        request(method, &format!("{}{path}", self.api_url()), &headers, body)
    }

    /// Applies a manifest and waits until the named graph is Ready.
    #[track_caller]
    pub fn apply_until_ready(&self, manifest: &str, graph: &str) {
        self.kubectl_with(&["apply", "-f", "-"], Some(manifest)).ok();
        self.until_ready(graph);
    }

    /// Waits until the named graph of the default namespace is Ready.
    #[track_caller]
    pub fn until_ready(&self, graph: &str) {
        let name = format!("graph/{graph}");
        let wait = self.kubectl(&["wait", "--for=condition=Ready", &name, "--timeout=240s"]);
        if wait.code != Some(0) {
            let all = self.kubectl(&["get", "graphplane", "-A", "-o", "yaml"]).stdout;
            panic!("{graph} is not ready: {}\n{all}\n{}", wait.stderr, self.logs());
        }
    }

    /// Rows of a Cypher query through the command line, as JSON objects.
    #[track_caller]
    pub fn query(&self, graph: &str, cypher: &str) -> Vec<Value> {
        let text = self.graphplane(&["query", graph, cypher, "-o", "json"]).ok();
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        match answer {
            Value::Array(rows) => rows,
            other => panic!("the answer of a query is a list of rows: {other}"),
        }
    }

    /// Node agents that run for this plane, as (pid, command line).
    pub fn agents(&self) -> Vec<(u32, String)> {
        command_lines_with(&self.dir().display().to_string())
            .into_iter()
            .filter(|(_, line)| line.contains("graphplane-node-agent"))
            .collect()
    }

    /// Waits until `condition` holds; panics with `what` otherwise.
    #[track_caller]
    pub fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(
                Instant::now() < deadline,
                "waited in vain until {what}:\n{}",
                self.logs()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Files and folders below the data directory whose path contains `text`.
    pub fn paths_with(&self, text: &str) -> Vec<PathBuf> {
        fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
            let Ok(entries) = fs::read_dir(folder) else { return };
            for entry in entries.flatten() {
                let path = entry.path();
                if path.is_dir() {
                    walk(&path, found);
                }
                found.push(path);
            }
        }
        let mut found = Vec::new();
        walk(&self.dir(), &mut found);
        found.retain(|path| {
            path.strip_prefix(self.dir())
                .is_ok_and(|p| p.to_string_lossy().contains(text))
        });
        found
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for (pid, _) in self.agents() {
            if let Some(pid) = Pid::from_raw(pid as i32).filter(|_| alive(pid)) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}
