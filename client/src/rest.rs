//! The REST API as a source: `GET /v1/graphs/{id}`.

use crate::error::{Error, SourceError};
use crate::source::{Answer, Place, Source};
use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;
use std::time::Duration;

const NAME: &str = "the REST API";
/// The description of a graph is well below this; more is not read.
const LARGEST: usize = 4 << 20;

/// The REST API of a control plane.
pub struct Rest {
    http: Client,
    base: Url,
}

/// What is needed of the description of a graph.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct View {
    id: Option<String>,
    #[serde(default)]
    ready: bool,
    phase: Option<String>,
    node: Option<String>,
    endpoint: Option<String>,
    epoch: Option<u64>,
    #[serde(default)]
    read_endpoints: Vec<String>,
}

impl Rest {
    /// The API at `url`, called with an API key. `namespace` is for keys of admins, which may look into every tenant's.
    ///
    /// # Errors
    /// [`Error::Settings`], when the URL or the key cannot be used.
    pub fn new(url: &str, key: &str, namespace: Option<&str>) -> Result<Self, Error> {
        // The process decides which implementation of TLS it uses; where it did not, one has to be named.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Fails only if another thread was faster, which is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let wrong = |what: &str| Error::Settings(format!("the {what} of the REST API cannot be used"));
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", key.trim())).map_err(|_| wrong("key"))?;
        bearer.set_sensitive(true);
        let mut headers = HeaderMap::from_iter([(AUTHORIZATION, bearer)]);
        if let Some(namespace) = namespace {
            let value = HeaderValue::try_from(namespace).map_err(|_| wrong("namespace"))?;
            headers.insert(HeaderName::from_static("x-graphplane-namespace"), value);
        }
        let http = Client::builder()
            .default_headers(headers)
            .connect_timeout(Duration::from_secs(2))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Error::Settings(format!("no HTTP client can be made: {error}")))?;
        let base = Url::parse(url).map_err(|error| Error::Settings(format!("{url:?}: {error}")))?;
        if base.cannot_be_a_base() || !["http", "https"].contains(&base.scheme()) {
            return Err(wrong("URL"));
        }
        Ok(Self { http, base })
    }
}

fn failed(message: impl ToString) -> SourceError {
    SourceError::Failed {
        name: NAME,
        message: message.to_string(),
    }
}

async fn body(mut response: Response) -> Result<Vec<u8>, SourceError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| failed(e.without_url()))? {
        body.extend_from_slice(&chunk);
        if body.len() > LARGEST {
            return Err(failed("its answer is too large"));
        }
    }
    Ok(body)
}

fn read(graph: &str, body: &[u8]) -> Result<Answer, SourceError> {
    let view: View = serde_json::from_slice(body).map_err(|e| failed(format!("its answer cannot be read: {e}")))?;
    // It finds graphs by name, too: a graph of that name is another one.
    if view.id.as_deref() != Some(graph) {
        return Ok(Answer::NotFound);
    }
    Ok(match view.endpoint {
        Some(url) => Answer::Found(Place {
            url,
            epoch: view.epoch,
            node: view.node,
            readers: view.read_endpoints,
            is_ready: view.ready,
        }),
        None => Answer::NotReady(view.phase.unwrap_or_else(|| "Pending".to_owned()).to_lowercase()),
    })
}

#[async_trait]
impl Source for Rest {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn find(&self, graph: &str) -> Result<Answer, SourceError> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| failed("its URL has no path"))?
            .pop_if_empty()
            .extend(["v1", "graphs", graph]);
        let response = self.http.get(url).send().await.map_err(|e| failed(e.without_url()))?;
        let status = response.status();
        match status {
            StatusCode::NOT_FOUND => Ok(Answer::NotFound),
            status if status.is_success() => read(graph, &body(response).await?),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Err(failed(status)),
            status if status.is_client_error() => Err(SourceError::Refused {
                name: NAME,
                message: status.to_string(),
            }),
            status => Err(failed(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use axum::Router;
    use axum::routing::get;

    const GRAPH: &str = "kg0123456789abcdef";

    #[test]
    fn an_answer_says_where_a_graph_is() {
        let body = br#"{"id": "kg0123456789abcdef", "name": "karate", "ready": true, "phase": "Ready", "node": "std-0",
            "endpoint": "http://10.0.0.7:8001", "epoch": 3}"#;
        let place = Place {
            url: "http://10.0.0.7:8001".into(),
            epoch: Some(3),
            node: Some("std-0".into()),
            readers: vec![],
            is_ready: true,
        };
        assert_eq!(read(GRAPH, body), Ok(Answer::Found(place)));
        let waiting = br#"{"id": "kg0123456789abcdef", "name": "karate", "ready": false, "phase": "Pending"}"#;
        assert_eq!(read(GRAPH, waiting), Ok(Answer::NotReady("pending".into())));
        let another = br#"{"id": "kg0000000000000000", "name": "sec", "ready": true, "endpoint": "http://x"}"#;
        assert_eq!(read("sec", another), Ok(Answer::NotFound));
        assert!(read(GRAPH, b"<html>").unwrap_err().is_transient());
    }

    #[tokio::test]
    async fn it_is_asked_with_the_key_and_its_refusals_are_told_apart() {
        async fn answer(headers: HeaderMap, graph: axum::extract::Path<String>) -> (StatusCode, String) {
            assert_eq!(headers["authorization"], "Bearer k");
            assert_eq!(headers["x-graphplane-namespace"], "acme");
            match graph.as_str() {
                GRAPH => {
                    let body = format!(r#"{{"id": "{GRAPH}", "ready": true, "endpoint": "http://n"}}"#);
                    (StatusCode::OK, body)
                }
                "absent" => (StatusCode::NOT_FOUND, String::new()),
                "secret" => (StatusCode::FORBIDDEN, String::new()),
                _ => (StatusCode::SERVICE_UNAVAILABLE, String::new()),
            }
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/base/", listener.local_addr().unwrap());
        let router = Router::new().route("/base/v1/graphs/{graph}", get(answer));
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let rest = Rest::new(&url, " k\n", Some("acme")).unwrap();
        assert!(matches!(rest.find(GRAPH).await, Ok(Answer::Found(_))));
        assert_eq!(rest.find("absent").await, Ok(Answer::NotFound));
        assert!(!rest.find("secret").await.unwrap_err().is_transient());
        assert!(rest.find("broken").await.unwrap_err().is_transient());
        server.abort();
    }

    #[test]
    fn what_is_no_url_is_refused_at_once() {
        for url in ["", "localhost", "ftp://x", "mailto:a@b"] {
            assert!(matches!(Rest::new(url, "k", None), Err(Error::Settings(_))), "{url}");
        }
        assert!(Rest::new("http://x", "a\nb", None).is_err());
    }
}
