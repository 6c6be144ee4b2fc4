//! Servers that an agent calls: a control plane of a few lines, and a bucket.

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{any, post},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};
use tokio::net::TcpListener;

pub(crate) const TOKEN: &str = "one-time-bootstrap-token";
pub(crate) const CREDENTIAL: &str = "long-lived-credential";
pub(crate) const API_KEY: &str = "issued-api-key";

/// What the control plane says to the next calls.
#[derive(Clone, Debug)]
pub(crate) struct Says {
    pub silent: bool,
    pub epoch: u64,
    pub lease_seconds: u64,
    /// The next renewal is answered with a lease of so many seconds, and nothing is answered after it.
    pub last_lease_seconds: Option<u64>,
    pub draining: bool,
    pub refuse_renewals: bool,
    /// The next renewal brings this credential.
    pub offer: Option<&'static str>,
    /// The next renewal is served, and its answer is lost.
    pub lose_answer: bool,
    /// Nothing is answered after the next offer.
    pub silent_after_offer: bool,
    pub role: &'static str,
    pub query_timeout: u64,
    pub loads_per_day: i64,
}

impl Default for Says {
    fn default() -> Self {
        Self {
            silent: false,
            epoch: 4,
            // No agent of a busy machine loses it by accident.
            lease_seconds: 600,
            last_lease_seconds: None,
            draining: false,
            refuse_renewals: false,
            offer: None,
            lose_answer: false,
            silent_after_offer: false,
            role: "writer",
            query_timeout: 20,
            loads_per_day: 10,
        }
    }
}

#[derive(Default)]
struct Inner {
    says: Mutex<Says>,
    token_used: Mutex<bool>,
    /// The credential in use, and the one that takes its place.
    credential: Mutex<String>,
    offered: Mutex<Option<String>>,
    registrations: Mutex<Vec<(String, Value)>>,
    renewals: Mutex<Vec<Value>>,
}

/// A control plane with one node.
#[derive(Clone)]
pub(crate) struct Plane {
    inner: Arc<Inner>,
    pub url: String,
}

impl Plane {
    pub(crate) async fn start() -> Self {
        let inner = Arc::new(Inner::default());
        *inner.credential.lock() = CREDENTIAL.to_owned();
        let router = Router::new()
            .route("/v1/nodes/register", post(register))
            .route("/v1/nodes/{name}/lease", post(renew))
            .with_state(Arc::clone(&inner));
        let url = serve(router).await;
        Self { inner, url }
    }

    pub(crate) fn say(&self, change: impl FnOnce(&mut Says)) {
        change(&mut self.inner.says.lock());
    }

    pub(crate) fn registrations(&self) -> Vec<(String, Value)> {
        self.inner.registrations.lock().clone()
    }

    pub(crate) fn renewals(&self) -> Vec<Value> {
        self.inner.renewals.lock().clone()
    }

    /// The credential in use.
    pub(crate) fn credential(&self) -> String {
        self.inner.credential.lock().clone()
    }

    /// Forgets what was offered.
    pub(crate) fn withdraw(&self) {
        *self.inner.offered.lock() = None;
    }

    /// The file for `--config`.
    pub(crate) fn config(&self, dir: &std::path::Path) -> PathBuf {
        let path = dir.join("agent.json");
        let text = json!({
            "node": "node-1", "clusterId": "c-1", "controlPlane": self.url, "bootstrapToken": TOKEN,
            "objectStore": format!("file://{}/objects", dir.display()),
        });
        std::fs::write(&path, text.to_string()).unwrap();
        path
    }
}

pub(crate) async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

fn problem(status: u16, detail: &str) -> Response {
    let body = Json(json!({"type": "about:blank", "status": status, "detail": detail}));
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

fn settings(says: &Says) -> Value {
    json!({
        "engine": {"queryTimeoutSeconds": says.query_timeout, "maxQueryLength": 5000, "chunkRows": 500, "connectionsPerDatabase": 4},
        "memory": {"nodeMiB": 1024, "perDatabaseMiB": 128}, "databasesPerNode": 3,
        "copy": {"maxFileSizeGiB": 1, "timeoutSeconds": 300, "concurrent": 1, "maxFiles": 100, "perDay": says.loads_per_day},
    })
}

async fn silence(says: &Says) {
    if says.silent {
        std::future::pending::<()>().await;
    }
}

impl Inner {
    /// Whether a credential is good. One that was offered takes the place of the other one by being used.
    fn accepts(&self, presented: &str) -> bool {
        let (mut credential, mut offered) = (self.credential.lock(), self.offered.lock());
        if offered.as_deref() == Some(presented) {
            *credential = offered.take().unwrap();
        }
        *credential == presented
    }
}

async fn register(State(inner): State<Arc<Inner>>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    let says = inner.says.lock().clone();
    silence(&says).await;
    let bearer = headers["authorization"]
        .to_str()
        .unwrap()
        .trim_start_matches("Bearer ")
        .to_owned();
    if bearer == TOKEN {
        let mut used = inner.token_used.lock();
        if std::mem::replace(&mut *used, true) {
            return problem(401, "the token was used already");
        }
    } else if !inner.accepts(&bearer) {
        return problem(401, "unknown token");
    }
    inner.registrations.lock().push((bearer, body));
    Json(json!({
        "node": "node-1", "credential": *inner.credential.lock(), "epoch": says.epoch, "leaseDurationSeconds": says.lease_seconds,
        "renewIntervalSeconds": 1, "apiKey": API_KEY, "role": says.role, "settings": settings(&says),
    }))
    .into_response()
}

async fn renew(
    State(inner): State<Arc<Inner>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let mut says = inner.says.lock().clone();
    silence(&says).await;
    if name != "node-1" {
        return problem(404, "no such node");
    }
    let bearer = headers["authorization"].to_str().unwrap().trim_start_matches("Bearer ");
    if !inner.accepts(bearer) {
        return problem(401, "unknown token");
    }
    if says.refuse_renewals || body["epoch"] != json!(says.epoch) {
        return problem(409, "another epoch holds");
    }
    if let Some(seconds) = says.last_lease_seconds {
        says.lease_seconds = seconds;
        inner.says.lock().silent = true;
    }
    let lose_answer = {
        let mut next = inner.says.lock();
        if next.offer.take().is_some() {
            *inner.offered.lock() = says.offer.map(str::to_owned);
            next.silent |= next.silent_after_offer;
        }
        std::mem::take(&mut next.lose_answer)
    };
    inner.renewals.lock().push(body);
    if lose_answer {
        std::future::pending::<()>().await;
    }
    let mut answer = json!({
        "epoch": says.epoch, "leaseDurationSeconds": says.lease_seconds, "renewIntervalSeconds": 1,
        "draining": says.draining, "settings": settings(&says),
    });
    if let Some(offer) = says.offer {
        answer["credential"] = json!(offer);
    }
    Json(answer).into_response()
}

type Objects = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A bucket `lake` that speaks as much of S3 as reading needs, and remembers whose keys signed. It never answers for what is
/// below `silent/`.
#[derive(Clone)]
pub(crate) struct Bucket {
    objects: Objects,
    signers: Arc<Mutex<Vec<String>>>,
    pub url: String,
}

impl Bucket {
    pub(crate) async fn start() -> Self {
        let objects = Objects::default();
        let signers = Arc::new(Mutex::new(Vec::new()));
        let router = Router::new()
            .fallback(any(object))
            .with_state((Arc::clone(&objects), Arc::clone(&signers)));
        let url = serve(router).await;
        Self { objects, signers, url }
    }

    pub(crate) fn put(&self, key: &str, content: Vec<u8>) {
        self.objects.lock().insert(key.to_owned(), content);
    }

    pub(crate) fn signers(&self) -> Vec<String> {
        self.signers.lock().clone()
    }
}

async fn object(State((objects, signers)): State<(Objects, Arc<Mutex<Vec<String>>>)>, request: Request) -> Response {
    let authorization = request
        .headers()
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    let signer = authorization
        .split("Credential=")
        .nth(1)
        .and_then(|rest| rest.split('/').next())
        .unwrap_or("nobody");
    signers.lock().push(signer.to_owned());
    let path = request.uri().path().trim_start_matches('/').to_owned();
    if path.starts_with("lake/silent/") {
        std::future::pending::<()>().await;
    }
    let objects = objects.lock();
    let query = request.uri().query().unwrap_or("").to_owned();
    if query.contains("list-type=2") {
        let prefix = url::form_urlencoded::parse(query.as_bytes())
            .find(|(name, _)| name == "prefix")
            .map(|(_, value)| value.into_owned())
            .unwrap_or_default();
        let contents: String = objects
            .iter()
            .filter(|(key, _)| key.starts_with(&prefix))
            .map(|(key, content)| {
                format!(
                    "<Contents><Key>{key}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>\"e\"</ETag><Size>{}</Size></Contents>",
                    content.len()
                )
            })
            .collect();
        return format!(
            "<ListBucketResult><Name>lake</Name><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"
        )
        .into_response();
    }
    let Some(content) = path.strip_prefix("lake/").and_then(|key| objects.get(key)) else {
        return (StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code></Error>").into_response();
    };
    Response::builder()
        .header("etag", "\"e\"")
        .header("last-modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        .header("content-length", content.len())
        .body(Body::from(if request.method() == "HEAD" {
            Bytes::new()
        } else {
            Bytes::from(content.clone())
        }))
        .unwrap()
}
