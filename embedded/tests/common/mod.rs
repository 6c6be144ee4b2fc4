//! What the tests share: a server in a temporary directory, a definition to play with, kubectl.
#![allow(clippy::unwrap_used, dead_code)]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use graphplane_embedded::{EmbeddedServer, ServerConfig};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// `widgets.test.dev`: namespaced, with defaults, rules, status, scale, columns and selectable fields.
pub(crate) fn widgets() -> CustomResourceDefinition {
    serde_saphyr::from_str(include_str!("widgets.yaml")).unwrap()
}

/// A valid Widget.
pub(crate) fn widget(name: &str) -> Value {
    json!({"apiVersion": "test.dev/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"color": "green"}})
}

/// The address of Widgets in the default namespace.
pub(crate) const WIDGETS: &str = "/apis/test.dev/v1/namespaces/default/widgets";

/// A server that goes away with this.
pub(crate) struct Fixture {
    pub(crate) server: EmbeddedServer,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) client: Client,
    served: Option<Served>,
}

struct Served {
    url: String,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), graphplane_embedded::Error>>,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::with(|config| config).await
    }

    pub(crate) async fn with(change: impl FnOnce(ServerConfig) -> ServerConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = change(ServerConfig::new(dir.path().join("data")).with_crds([widgets()]));
        let server = EmbeddedServer::open(config).await.unwrap();
        let client = server.client("default");
        Self {
            server,
            dir,
            client,
            served: None,
        }
    }

    /// Also listens on a free port, and writes a kubeconfig.
    pub(crate) async fn served() -> Self {
        let mut fixture = Self::new().await;
        fixture.serve().await;
        fixture
    }

    /// Shuts the server down and opens its directory again.
    pub(crate) async fn reopened(self) -> Self {
        self.server.shutdown().await;
        let config = ServerConfig::new(self.data_dir()).with_crds([widgets()]);
        let server = EmbeddedServer::open(config).await.unwrap();
        Self {
            client: server.client("default"),
            server,
            dir: self.dir,
            served: None,
        }
    }

    pub(crate) async fn serve(&mut self) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let (server, token) = (self.server.clone(), stop.clone());
        let task = tokio::spawn(async move { server.serve(listener, token).await });
        self.server.write_kubeconfig(&self.kubeconfig(), &url).unwrap();
        self.served = Some(Served { url, stop, task });
    }

    pub(crate) async fn stop_serving(&mut self) {
        let served = self.served.take().unwrap();
        served.stop.cancel();
        served.task.await.unwrap().unwrap();
    }

    pub(crate) fn url(&self) -> &str {
        &self.served.as_ref().unwrap().url
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Sends a request without a socket; gives the status and the body.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
        let kind = if method == Method::PATCH {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let (status, _, body) = self
            .send(method, path, kind, body.map_or_else(Vec::new, |b| b.to_string().into()))
            .await;
        (status, body)
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        media_type: &str,
        body: Vec<u8>,
    ) -> (StatusCode, http::HeaderMap, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", media_type)
            .body(Body::from(body));
        let response: Response<Body> = self.client.send(request.unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        (head.status, head.headers, value)
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, path, None).await;
        assert_eq!(status, 200, "GET {path}: {body}");
        body
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        let (status, body) = self.call(Method::POST, path, Some(body)).await;
        assert_eq!(status, 201, "POST {path}: {body}");
        body
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Value {
        let (status, body) = self.call(Method::PUT, path, Some(body)).await;
        assert_eq!(status, 200, "PUT {path}: {body}");
        body
    }

    pub(crate) async fn delete(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::DELETE, path, None).await;
        assert_eq!(status, 200, "DELETE {path}: {body}");
        body
    }

    /// Starts a watch; lines come out of the receiver until the server ends it.
    pub(crate) async fn watch(&self, path: &str) -> tokio::sync::mpsc::UnboundedReceiver<Value> {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response: Response<Body> = self.client.send(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut body = response.into_body();
            let mut buffer = Vec::new();
            while let Some(Ok(frame)) = body.frame().await {
                buffer.extend_from_slice(frame.data_ref().unwrap());
                while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
                    let line: Vec<u8> = buffer.drain(..=end).collect();
                    if sender.send(serde_json::from_slice(&line).unwrap()).is_err() {
                        return;
                    }
                }
            }
        });
        receiver
    }

    /// Waits until `condition` holds.
    pub(crate) async fn eventually(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        eventually(what, &mut condition).await;
    }

    /// Waits until an object is gone.
    pub(crate) async fn gone(&self, path: &str) {
        eventually(&format!("{path} is gone"), &mut async || {
            self.call(Method::GET, path, None).await.0 == StatusCode::NOT_FOUND
        })
        .await;
    }

    /// Runs kubectl; gives its output.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> Output {
        self.kubectl_with(args, "").await
    }

    /// Runs kubectl with text on its standard input.
    pub(crate) async fn kubectl_with(&self, args: &[&str], input: &str) -> Output {
        kubectl(&self.kubectl_command(args), self.dir.path(), input).await
    }

    /// Runs kubectl, which has to succeed; gives its standard output.
    pub(crate) async fn kubectl_ok(&self, args: &[&str]) -> String {
        self.kubectl(args).await.ok()
    }

    pub(crate) fn kubectl_command(&self, args: &[&str]) -> Vec<String> {
        let config = format!("--kubeconfig={}", self.kubeconfig().display());
        std::iter::once(config.as_str())
            .chain(args.iter().copied())
            .map(str::to_owned)
            .collect()
    }
}

/// Time for what has to happen, on any machine. Only a failure takes so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

pub(crate) async fn eventually(what: &str, condition: &mut impl AsyncFnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < give_up, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn kubectl_program() -> String {
    std::env::var("KUBECTL").unwrap_or_else(|_| "kubectl".to_owned())
}

pub(crate) async fn kubectl(args: &[String], home: &Path, input: &str) -> Output {
    use tokio::io::AsyncWriteExt;
    let mut child = tokio::process::Command::new(kubectl_program())
        .args(args)
        .env("HOME", home)
        .env_remove("KUBECONFIG")
        .env("KUBECTL_DIFF", "diff -u -N")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("kubectl is needed for these tests; `make test` installs it, KUBECTL names another one");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = output
        .unwrap_or_else(|_| panic!("kubectl {args:?} does not end"))
        .unwrap();
    Output {
        args: args[1..].join(" "),
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// What a run of kubectl gave.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) args: String,
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Output {
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "kubectl {}\n{}\n{}", self.args, self.out, self.err);
        self.out
    }

    pub(crate) fn failed_with(&self, text: &str) {
        assert_ne!(self.code, 0, "kubectl {} succeeded: {}", self.args, self.out);
        assert!(
            self.err.contains(text),
            "kubectl {}: {:?} is not in {}",
            self.args,
            text,
            self.err
        );
    }
}

/// Fails with the text when `needle` is not in it.
#[track_caller]
pub(crate) fn contains(text: &str, needle: &str) {
    assert!(text.contains(needle), "{needle:?} is not in:\n{text}");
}
