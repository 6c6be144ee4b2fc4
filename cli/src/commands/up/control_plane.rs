//! The parts of the control plane in this process: the embedded API server, the operator, the REST API.

use crate::data_dir::{DataDir, Endpoints};
use crate::failure::{Exit, Failure};
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use graphplane_api::{AwsIdentity, BootstrapKey, ConnectionLimits, IdentityCertificates};
use graphplane_crds::all_crds;
use graphplane_embedded::{EmbeddedServer, ServerConfig};
use graphplane_operator::{AwsSettings, ProviderChoice, SourceRules};
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Namespace that the key of the data directory works in.
const NAMESPACE: &str = "default";

/// What the control plane is made from.
pub(super) struct Parts {
    /// Where the Kubernetes API is served.
    pub(super) kube_listener: TcpListener,
    /// Where the REST API is served.
    pub(super) api_listener: TcpListener,
    /// The key of the REST API.
    pub(super) api_key: String,
    /// Where node agents run.
    pub(super) nodes: Nodes,
    /// Where tenants may load from.
    pub(super) sources: SourceRules,
}

/// Where node agents run.
pub(super) enum Nodes {
    /// As processes of this machine.
    Local {
        /// The program that is started.
        agent_binary: PathBuf,
        /// Keys for encrypted backups.
        backup_key_file: Option<PathBuf>,
        /// A model for embeddings.
        embedding_model: Option<PathBuf>,
    },
    /// On machines of AWS.
    Aws(Box<AwsSettings>),
}

/// The running control plane.
pub(super) struct ControlPlane {
    server: EmbeddedServer,
    kube: SocketAddr,
    api: SocketAddr,
    /// Each part with its name; none ends before it is told to.
    tasks: JoinSet<(&'static str, Result<(), String>)>,
    /// Stops the operator and the REST API.
    stop: CancellationToken,
    /// Stops the Kubernetes API, which the others need until their end.
    stop_kube: CancellationToken,
}

impl ControlPlane {
    /// Starts all parts, and returns when they answer.
    ///
    /// # Errors
    /// A part cannot start; those that were started stop again.
    pub(super) async fn start(dir: &DataDir, parts: Parts) -> Result<Self, Failure> {
        let address = |listener: &TcpListener| {
            listener
                .local_addr()
                .map_err(|error| Failure::io("asking for the address of a port", &error))
        };
        let (kube, api) = (address(&parts.kube_listener)?, address(&parts.api_listener)?);
        let config = ServerConfig::new(dir.path()).with_crds(all_crds());
        let server = EmbeddedServer::open(config)
            .await
            .map_err(|error| could_not("start the Kubernetes API", &error))?;
        let mut plane = Self {
            server,
            kube,
            api,
            tasks: JoinSet::new(),
            stop: CancellationToken::new(),
            stop_kube: CancellationToken::new(),
        };
        match plane.start_parts(dir, parts).await {
            Ok(()) => Ok(plane),
            Err(failure) => {
                plane.stop().await;
                Err(failure)
            }
        }
    }

    async fn start_parts(&mut self, dir: &DataDir, parts: Parts) -> Result<(), Failure> {
        let server = self.server.clone();
        let stop = self.stop_kube.clone();
        self.run("the Kubernetes API", async move {
            server.serve(parts.kube_listener, stop).await
        });
        self.server
            .write_kubeconfig(&dir.kubeconfig(), &self.kube_url())
            .map_err(|error| could_not("write the kubeconfig", &error))?;

        let aws_identity = aws_identity(&parts.nodes)?;
        let operator = graphplane_operator::Settings {
            cluster_id: Some(self.server.cluster_id().to_owned()),
            ..self.operator_settings(dir, parts.nodes, parts.sources)
        };
        let key = BootstrapKey::admin("up", &parts.api_key, NAMESPACE);
        let settings = graphplane_api::Settings {
            aws_identity,
            ..graphplane_api::Settings::new(self.server.cluster_id()).with_key(key)
        };
        let router = graphplane_api::start(self.client(), settings)
            .await
            .map_err(|error| could_not("start the REST API", &error))?
            .merge(operator_metrics(operator.metrics.clone()));
        let stop = self.stop.clone();
        self.run(
            "the REST API",
            graphplane_api::serve(parts.api_listener, router, ConnectionLimits::default(), stop),
        );

        // Last: agents that it starts register with the REST API at once.
        self.run(
            "the operator",
            graphplane_operator::run(self.client(), operator, self.stop.clone()),
        );
        Ok(())
    }

    fn operator_settings(&self, dir: &DataDir, nodes: Nodes, sources: SourceRules) -> graphplane_operator::Settings {
        match nodes {
            Nodes::Local {
                agent_binary,
                backup_key_file,
                embedding_model,
            } => {
                let mut settings =
                    graphplane_operator::Settings::local(dir.path(), agent_binary, self.api_url(), sources);
                if let ProviderChoice::Local(local) = &mut settings.provider {
                    local.backup_key_file = backup_key_file;
                    local.embedding_model = embedding_model;
                }
                settings
            }
            Nodes::Aws(mut aws) => {
                aws.control_plane.url.get_or_insert_with(|| self.api_url());
                aws.sources = sources;
                graphplane_operator::Settings::aws(*aws)
            }
        }
    }

    fn run<E: Display>(&mut self, name: &'static str, part: impl Future<Output = Result<(), E>> + Send + 'static) {
        self.tasks
            .spawn(async move { (name, part.await.map_err(|error| error.to_string())) });
    }

    /// A client that works in the process.
    pub(super) fn client(&self) -> kube::Client {
        self.server.client(NAMESPACE)
    }

    /// Where everything answers.
    pub(super) fn endpoints(&self) -> Endpoints {
        Endpoints {
            kube: self.kube_url(),
            api: self.api_url(),
        }
    }

    /// URL of the Kubernetes API.
    fn kube_url(&self) -> String {
        format!("https://{}", self.kube)
    }

    /// URL of the REST API.
    fn api_url(&self) -> String {
        format!("http://{}", self.api)
    }

    /// Waits until a part ends by itself, which none should.
    pub(super) async fn first_end(&mut self) -> Failure {
        match self.tasks.join_next().await {
            Some(Ok((name, Err(error)))) => Failure::plain(format!("{name} failed: {error}")),
            Some(Ok((name, Ok(())))) => Failure::plain(format!("{name} ended without being told to")),
            Some(Err(error)) => Failure::plain(format!("a part of the control plane crashed: {error}")),
            None => Failure::plain("no part of the control plane runs"),
        }
        .advise("graphplane.log in the data directory says more")
    }

    /// Stops all parts in order: first what uses the Kubernetes API, then that, then its file is closed.
    pub(super) async fn stop(&mut self) {
        self.stop.cancel();
        let mut left = self.tasks.len();
        while left > 1 {
            left -= 1;
            if let Some(ended) = self.tasks.join_next().await {
                log_end(ended);
            }
        }
        self.stop_kube.cancel();
        self.server.shutdown().await;
        while let Some(ended) = self.tasks.join_next().await {
            log_end(ended);
        }
        tracing::info!("stopped");
    }
}

/// `/metrics/operator`: what the operator counts, beside the API's own `/metrics`.
fn operator_metrics(metrics: graphplane_operator::Metrics) -> Router {
    let show = move || {
        let text = metrics.encode();
        async move {
            (
                [(
                    CONTENT_TYPE,
                    "application/openmetrics-text; version=1.0.0; charset=utf-8",
                )],
                text,
            )
        }
    };
    Router::new().route("/metrics/operator", get(show))
}

fn log_end(ended: Result<(&'static str, Result<(), String>), tokio::task::JoinError>) {
    match ended {
        Ok((name, Ok(()))) => tracing::debug!("{name} stopped"),
        Ok((name, Err(error))) => tracing::warn!(error, "{name} did not stop in order"),
        Err(error) => tracing::warn!(%error, "a part of the control plane crashed while stopping"),
    }
}

/// What machines on AWS prove themselves with.
fn aws_identity(nodes: &Nodes) -> Result<Option<AwsIdentity>, Failure> {
    let Nodes::Aws(aws) = nodes else { return Ok(None) };
    let Some(file) = &aws.identity_certificates else {
        tracing::warn!("identityCertificates is not set: no machine on AWS can register");
        return Ok(None);
    };
    let pem = std::fs::read(file).map_err(|error| Failure::io(format!("reading {}", file.display()), &error))?;
    let certificates = IdentityCertificates::from_pem(&pem)
        .map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", file.display())))?;
    Ok(Some(AwsIdentity {
        certificates,
        account: aws.account_id.clone(),
    }))
}

fn could_not(what: &str, error: &dyn Display) -> Failure {
    Failure::plain(format!("cannot {what}: {error}"))
}
