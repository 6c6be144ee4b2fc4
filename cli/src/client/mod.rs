//! The REST API, as the commands need it.

mod answer;
mod operation;
mod rows;
mod sse;

pub use answer::failure_of;
pub use operation::{Operation, OperationResource, OperationStatus};
pub use rows::Rows;
pub use sse::{Event, Events};

use crate::failure::{Exit, Failure};
use crate::server::Server;
use reqwest::{Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use url::Url;

/// Longest time to open a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client of one server.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    server: Server,
    namespace: Option<String>,
}

impl Client {
    /// A client of a server that works in a namespace, or in the key's own.
    ///
    /// # Errors
    /// The TLS library cannot be set up.
    pub fn new(server: Server, namespace: Option<String>) -> Result<Self, Failure> {
        crate::install_tls_provider();
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("graphplane-cli/", env!("CARGO_PKG_VERSION")))
            // A redirect would carry the key elsewhere.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Failure::plain(format!("setting up the HTTP client: {error}")))?;
        Ok(Self {
            http,
            server,
            namespace,
        })
    }

    /// The server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// URL of a path that is given in parts; each part is escaped.
    pub fn url(&self, parts: &[&str]) -> Url {
        let mut url = self.server.api.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(parts);
        }
        url
    }

    /// A request for a path in parts, with the key.
    pub fn request(&self, method: Method, parts: &[&str]) -> RequestBuilder {
        let request = self
            .http
            .request(method, self.url(parts))
            .bearer_auth(self.server.key.expose());
        match &self.namespace {
            Some(namespace) => request.header("X-Graphplane-Namespace", namespace),
            None => request,
        }
    }

    /// Sends a request; an answer that is not a success becomes a [`Failure`].
    ///
    /// # Errors
    /// The server is not reachable, or refuses the request.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|error| self.transport(&error))?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(failure_of(response).await)
        }
    }

    /// Sends a request and reads its JSON answer.
    ///
    /// # Errors
    /// As [`Client::send`]; and the answer has another form.
    pub async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Failure> {
        let response = self.send(request).await?;
        let url = response.url().path().to_owned();
        let bytes = response.bytes().await.map_err(|error| self.transport(&error))?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Failure::plain(format!(
                "the answer of {url} is not what this version understands: {error}"
            ))
            .advise("use a command line of the server's version; `graphplane version` shows this one's")
        })
    }

    /// Sends a JSON body and reads the JSON answer.
    ///
    /// # Errors
    /// As [`Client::json`].
    pub async fn post<T: DeserializeOwned>(&self, parts: &[&str], body: &impl Serialize) -> Result<T, Failure> {
        self.json(self.request(Method::POST, parts).json(body)).await
    }

    /// Reads the JSON answer of a GET.
    ///
    /// # Errors
    /// As [`Client::json`].
    pub async fn get<T: DeserializeOwned>(&self, parts: &[&str]) -> Result<T, Failure> {
        self.json(self.request(Method::GET, parts)).await
    }

    /// An error of the way to the server.
    pub fn transport(&self, error: &reqwest::Error) -> Failure {
        let api = self.server.api.as_str().trim_end_matches('/');
        if error.is_timeout() && !error.is_connect() {
            return Failure::new(Exit::Timeout, format!("{api} did not answer in time"));
        }
        if error.is_connect() || error.is_request() {
            return Failure::new(
                Exit::Unreachable,
                format!("{api} cannot be reached: {}", innermost(error)),
            )
            .advise("is `graphplane up` running? `--data-dir`, `--api` or GRAPHPLANE_API say where the server is");
        }
        Failure::plain(format!("the connection to {api} broke: {}", innermost(error)))
    }
}

/// The error at the bottom, which names the cause; those above only say where it was met.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Waits for work that may take `limit` at most.
///
/// # Errors
/// The work's own, or exit code `Timeout`; `what` names the work then.
pub async fn within<T>(
    limit: Option<Duration>,
    what: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    match limit {
        None => work.await,
        Some(limit) => tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
            Err(Failure::new(
                Exit::Timeout,
                format!("{what} did not end within {}", crate::duration::human(limit)),
            ))
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::server::{Surroundings, find};
    use crate::{args::GlobalOptions, data_dir::DataDir};
    use std::path::Path;

    fn client(api: &str) -> Client {
        let around = Surroundings {
            api: Some(api.into()),
            api_key: Some("secret".into()),
            default_dir: DataDir::at(Path::new("/nowhere")),
        };
        Client::new(find(&GlobalOptions::default(), &around).unwrap(), None).unwrap()
    }

    #[test]
    fn parts_of_a_path_are_escaped() {
        let url = |api: &str| client(api).url(&["v1", "graphs", "a/b ?", "query"]).to_string();
        assert_eq!(url("http://h:1"), "http://h:1/v1/graphs/a%2Fb%20%3F/query");
        assert_eq!(url("http://h:1/base/"), "http://h:1/base/v1/graphs/a%2Fb%20%3F/query");
    }

    #[test]
    fn requests_carry_the_key_and_the_namespace() {
        let mut client = client("http://h:1");
        let plain = client.request(Method::GET, &["v1", "graphs"]).build().unwrap();
        assert_eq!(plain.headers()["authorization"], "Bearer secret");
        assert!(!plain.headers().contains_key("x-graphplane-namespace"));
        client.namespace = Some("team".into());
        let named = client.request(Method::GET, &["v1", "graphs"]).build().unwrap();
        assert_eq!(named.headers()["x-graphplane-namespace"], "team");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named() {
        // Nobody listens on this port, and nobody else gets it.
        let silent = tokio::net::TcpSocket::new_v4().unwrap();
        silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let api = format!("http://{}", silent.local_addr().unwrap());
        let failure = client(&api)
            .get::<serde_json::Value>(&["v1", "graphs"])
            .await
            .unwrap_err();
        assert_eq!(failure.exit, Exit::Unreachable, "{failure}");
        assert!(failure.message.starts_with(&api), "{failure}");
    }

    #[tokio::test]
    async fn work_that_takes_too_long_is_named() {
        let never = std::future::pending::<Result<(), Failure>>();
        let failure = within(Some(Duration::from_millis(1)), "the query", never)
            .await
            .unwrap_err();
        assert_eq!(
            (failure.exit, failure.message.as_str()),
            (Exit::Timeout, "the query did not end within 1 ms")
        );
    }
}
