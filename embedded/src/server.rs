//! The server as a whole: opening a data directory, clients inside the process, the port for everybody else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::auth::{self, Token};
use crate::cluster::{Cluster, DEFINITIONS};
use crate::http::{self, Closing};
use crate::lifecycle;
use crate::status::ApiError;
use crate::store::{HistoryLimits, Key, Store, StoreError};
use crate::tls::{self, TlsError};
use crate::verbs::update::{self, Edit, Part};
use crate::verbs::{Target, WriteOptions, create};

/// How the server is set up.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The folder of the state file `state.redb` and the `tls` folder; made if it is missing.
    pub data_dir: PathBuf,
    /// Definitions that are applied at each start.
    pub crds: Vec<CustomResourceDefinition>,
    /// Namespaces that exist always and cannot be deleted.
    pub namespaces: Vec<String>,
    /// How many events of each resource can still be watched after the fact. A watch that asks for older ones gets
    /// `410 Gone`, and its client lists anew.
    pub history_events: usize,
    /// The same limit in bytes of objects.
    pub history_bytes: usize,
    /// How long an Event lives after its last change.
    pub event_ttl: Duration,
}

impl ServerConfig {
    /// The usual settings for a data directory.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            crds: Vec::new(),
            namespaces: ["default", "kube-system", "graphplane-system"]
                .map(str::to_owned)
                .to_vec(),
            history_events: 10_000,
            history_bytes: 16 << 20,
            event_ttl: Duration::from_secs(3600),
        }
    }

    /// Adds definitions that are applied at each start.
    #[must_use]
    pub fn with_crds(mut self, crds: impl IntoIterator<Item = CustomResourceDefinition>) -> Self {
        self.crds.extend(crds);
        self
    }
}

/// Why the server did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state file cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The certificates or another private file cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An object that the server needs could not be written.
    #[error("cannot set up {what}: {problem}")]
    Setup {
        /// The object.
        what: String,
        /// The server's own answer.
        problem: ApiError,
    },
    /// The listener failed.
    #[error("cannot accept connections: {0}")]
    Listen(#[source] std::io::Error),
}

/// A running server; clones are handles to the same one.
#[derive(Clone)]
pub struct EmbeddedServer {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: Arc<Cluster>,
    tls: tls::Identity,
    token: String,
    controllers: Mutex<Option<JoinSet<()>>>,
}

/// How long a connection may take to finish its requests once the server stops. Watches end at once.
const GRACE: Duration = Duration::from_secs(5);
/// How long a client may take for the TLS handshake or the head of a request.
const HANDSHAKE: Duration = Duration::from_secs(10);

impl EmbeddedServer {
    /// Opens the data directory, loads its state, applies the configured definitions and starts the controllers.
    ///
    /// # Errors
    /// When files cannot be used, when another process uses them, or when a definition is refused.
    pub async fn open(config: ServerConfig) -> Result<Self, Error> {
        let limits = HistoryLimits {
            events: config.history_events,
            bytes: config.history_bytes,
        };
        let folder = config.data_dir.clone();
        let opened = tokio::task::spawn_blocking(move || -> Result<_, Error> {
            tls::create_private_dir(&folder)?;
            let store = Store::open(&folder.join("state.redb"), limits)?;
            let identity = tls::load(&folder.join("tls"))?;
            Ok((store, identity, token(&folder.join("tls").join("token"))?))
        });
        let (store, tls, token) = match opened.await {
            Ok(result) => result?,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        let permanent: BTreeSet<String> = config.namespaces.iter().cloned().collect();
        let cluster = Arc::new(Cluster::new(store, permanent, config.event_ttl));
        cluster.reload_definitions();
        for name in &config.namespaces {
            ensure_namespace(&cluster, name).await?;
        }
        for crd in &config.crds {
            ensure_definition(&cluster, crd).await?;
        }
        let controllers = Mutex::new(Some(lifecycle::start(&cluster)));
        Ok(Self {
            inner: Arc::new(Inner {
                cluster,
                tls,
                token,
                controllers,
            }),
        })
    }

    /// A client inside the process: no socket, no TLS, no credential. It acts as `system:graphplane`.
    #[must_use]
    pub fn client(&self, default_namespace: &str) -> kube::Client {
        let router = http::router(self.inner.cluster.clone()).layer(middleware::from_fn(auth::trust));
        kube::Client::new(router, default_namespace)
    }

    /// The API as a router that asks for the token; for serving it in another way than [`serve`](Self::serve).
    pub fn router(&self) -> Router {
        let token = Token::new(&self.inner.token);
        http::router(self.inner.cluster.clone()).layer(middleware::from_fn_with_state(token, auth::require_token))
    }

    /// Serves HTTP/1.1 and HTTP/2 over TLS until `stop` is cancelled or the server shuts down. Then watches end, requests
    /// under way get a few seconds, and the future resolves.
    ///
    /// # Errors
    /// When the listener fails for good.
    pub async fn serve(&self, listener: TcpListener, stop: CancellationToken) -> Result<(), Error> {
        let closing = self.inner.cluster.stopping.child_token();
        let mark = Closing(closing.clone());
        let router = self
            .router()
            .layer(middleware::from_fn(move |mut request: Request, next: Next| {
                request.extensions_mut().insert(mark.clone());
                next.run(request)
            }));
        let acceptor = TlsAcceptor::from(self.inner.tls.config.clone());
        let mut connections = JoinSet::new();
        let result = loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break Ok(()),
                () = closing.cancelled() => break Ok(()),
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, acceptor.clone(), router.clone(), closing.clone()));
                }
                Err(error) if passes(&error) => {
                    // For instance too many open files: others have to end first.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => break Err(Error::Listen(error)),
            }
        };
        drop(listener);
        closing.cancel();
        while connections.join_next().await.is_some() {}
        result
    }

    /// Writes a kubeconfig for `server_url` (0600) that replaces the file in one step.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_kubeconfig(&self, path: &Path, server_url: &str) -> Result<(), Error> {
        Ok(tls::write_private(path, self.kubeconfig(server_url).as_bytes())?)
    }

    /// A kubeconfig for `server_url`, as YAML.
    #[must_use]
    pub fn kubeconfig(&self, server_url: &str) -> String {
        let ca = STANDARD.encode(&self.inner.tls.ca_pem);
        let token = &self.inner.token;
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: graphplane\nclusters:\n- name: graphplane\n  cluster:\n    \
             server: {server_url}\n    certificate-authority-data: {ca}\ncontexts:\n- name: graphplane\n  context:\n    \
             cluster: graphplane\n    namespace: default\n    user: graphplane\nusers:\n- name: graphplane\n  user:\n    \
             token: {token}\n"
        )
    }

    /// The certificate of the authority that signed the server's certificate, as PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.inner.tls.ca_pem
    }

    /// The bearer token that [`serve`](Self::serve) asks for.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.inner.token
    }

    /// A random name of this state, made when its file was.
    #[must_use]
    pub fn cluster_id(&self) -> &str {
        self.inner.cluster.store.cluster_id()
    }

    /// The revision of the last write.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.inner.cluster.store.revision()
    }

    /// Ends watches, controllers and [`serve`](Self::serve), writes what is queued and closes the state file. Later
    /// requests are answered with 503. A second call waits for the first.
    pub async fn shutdown(&self) {
        self.inner.cluster.stopping.cancel();
        let controllers = self.inner.controllers.lock().take();
        if let Some(mut controllers) = controllers {
            while controllers.join_next().await.is_some() {}
        }
        self.inner.cluster.store.close().await;
    }

    /// Waits until every write that was sent before is on disk. Acknowledged writes are there already.
    pub async fn flush(&self) {
        self.inner.cluster.store.flush().await;
    }
}

/// Serves one connection until it ends or the server does.
async fn connection(stream: TcpStream, acceptor: TlsAcceptor, router: Router, closing: CancellationToken) {
    // Watch events are small and wanted at once.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake timed out"),
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30));
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = closing.cancelled() => {
            served.as_mut().graceful_shutdown();
            match tokio::time::timeout(GRACE, served).await {
                Ok(result) => result,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(error, "a connection ended early");
    }
}

/// Whether accepting may succeed again.
fn passes(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    // EMFILE, ENFILE, ENOBUFS, ENOMEM have no stable kind.
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    ) || matches!(error.raw_os_error(), Some(12 | 23 | 24 | 105))
}

/// The token in `path`, made at the first start.
fn token(path: &Path) -> Result<String, TlsError> {
    if path.exists() {
        return Ok(tls::read(path)?.trim().to_owned());
    }
    let token = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    tls::write_private(path, token.as_bytes())?;
    Ok(token)
}

async fn ensure_namespace(cluster: &Cluster, name: &str) -> Result<(), Error> {
    let problem = |problem| Error::Setup {
        what: format!("namespace {name}"),
        problem,
    };
    let key = Key::new(&"namespaces".into(), "", name);
    if cluster.store.get(&key).is_some() {
        return Ok(());
    }
    let target = lifecycle::target(cluster, &key).ok_or_else(|| problem(ApiError::unknown_path()))?;
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    create::create(cluster, &target, body, &WriteOptions::internal(lifecycle::MANAGER))
        .await
        .map_err(problem)?;
    Ok(())
}

async fn ensure_definition(cluster: &Cluster, crd: &CustomResourceDefinition) -> Result<(), Error> {
    let name = crd.metadata.name.clone().unwrap_or_default();
    let problem = |problem| Error::Setup {
        what: format!("definition {name}"),
        problem,
    };
    let mut body: Value = serde_json::to_value(crd).map_err(|e| problem(ApiError::internal(e)))?;
    if let Some(map) = body.as_object_mut() {
        map.remove("status");
    }
    let key = Key::new(&DEFINITIONS.into(), "", &name);
    let target: Target = lifecycle::target(cluster, &key).ok_or_else(|| problem(ApiError::unknown_path()))?;
    let edit = Edit::Apply {
        patch: body,
        force: true,
    };
    let options = WriteOptions::internal(lifecycle::MANAGER);
    update::update(cluster, &target, Part::Whole, &edit, &options)
        .await
        .map_err(problem)?;
    Ok(())
}
