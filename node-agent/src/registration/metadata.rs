//! What the metadata service of a machine on AWS says of it: a document about the instance, which AWS has signed. The
//! control plane takes it as the proof of where an agent runs.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Where the service is on every machine.
const ENDPOINT: &str = "http://169.254.169.254";
/// Variable that names another place, as in the tools of AWS.
const VARIABLE: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
/// What is read has a few hundred bytes.
const LARGEST: usize = 8 << 10;

/// The proof of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineIdentity {
    /// The instance identity document, byte for byte.
    pub document: String,
    /// Its signature in base64.
    pub signature: String,
}

/// The metadata service does not say what it should.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// No answer, or not one that can be read.
    #[error("no usable answer from the metadata service: {0}")]
    Transport(#[from] reqwest::Error),
    /// Another status than 200.
    #[error("the metadata service answers {status} for {path}; is this a machine on AWS?")]
    Status {
        /// The status.
        status: u16,
        /// What was asked for.
        path: &'static str,
    },
    /// Something else than a document or a signature.
    #[error("the metadata service answers {path} with more than 8 KiB, or with something that is no text")]
    Content {
        /// What was asked for.
        path: &'static str,
    },
}

/// A client of the metadata service, version 2.
#[derive(Clone, Debug)]
pub struct Metadata {
    http: reqwest::Client,
    base: String,
}

impl Metadata {
    /// A client of this machine's service, or of the one that `AWS_EC2_METADATA_SERVICE_ENDPOINT` names.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn from_environment() -> Result<Self, MetadataError> {
        let named = std::env::var(VARIABLE).unwrap_or_default();
        Self::new(if named.is_empty() { ENDPOINT } else { &named })
    }

    /// A client of the service at `base`.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(base: &str) -> Result<Self, MetadataError> {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(2))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self {
            http,
            base: base.trim_end_matches('/').to_owned(),
        })
    }

    /// The proof of this machine, as it is now.
    ///
    /// # Errors
    /// When the service does not answer, or has none.
    pub async fn identity(&self) -> Result<MachineIdentity, MetadataError> {
        let path = "/latest/api/token";
        let request = self
            .http
            .put(self.url(path))
            .header("X-aws-ec2-metadata-token-ttl-seconds", "60");
        let token = read(path, request).await?;
        Ok(MachineIdentity {
            document: self.fact("/latest/dynamic/instance-identity/document", &token).await?,
            signature: self.fact("/latest/dynamic/instance-identity/signature", &token).await?,
        })
    }

    async fn fact(&self, path: &'static str, token: &str) -> Result<String, MetadataError> {
        let request = self.http.get(self.url(path)).header("X-aws-ec2-metadata-token", token);
        read(path, request).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

async fn read(path: &'static str, request: reqwest::RequestBuilder) -> Result<String, MetadataError> {
    let mut response = request.send().await?;
    let status = response.status().as_u16();
    if status != 200 {
        return Err(MetadataError::Status { status, path });
    }
    let mut content = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        content.extend_from_slice(&chunk);
        if content.len() > LARGEST {
            return Err(MetadataError::Content { path });
        }
    }
    String::from_utf8(content).map_err(|_| MetadataError::Content { path })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use axum::{
        Router,
        extract::Path,
        http::{HeaderMap, StatusCode},
        routing::{get, put},
    };

    const DOCUMENT: &str = "{\n  \"instanceId\" : \"i-1\"\n}\n";
    const SIGNATURE: &str = "c2ln\nbmVk";

    async fn session(headers: HeaderMap) -> (StatusCode, &'static str) {
        match headers.contains_key("x-aws-ec2-metadata-token-ttl-seconds") {
            true => (StatusCode::OK, "session"),
            false => (StatusCode::BAD_REQUEST, ""),
        }
    }

    async fn fact(Path(name): Path<String>, headers: HeaderMap) -> (StatusCode, String) {
        if headers
            .get("x-aws-ec2-metadata-token")
            .is_none_or(|token| token != "session")
        {
            return (StatusCode::UNAUTHORIZED, String::new());
        }
        match name.as_str() {
            "document" => (StatusCode::OK, DOCUMENT.to_owned()),
            "signature" => (StatusCode::OK, SIGNATURE.to_owned()),
            "large" => (StatusCode::OK, "x".repeat(LARGEST + 1)),
            _ => (StatusCode::NOT_FOUND, String::new()),
        }
    }

    /// A service that demands a session.
    async fn service() -> Metadata {
        // The client wants one even for plain HTTP; a second test of this process finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let router = Router::new()
            .route("/latest/api/token", put(session))
            .route("/latest/dynamic/instance-identity/{name}", get(fact));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Metadata::new(&url).unwrap()
    }

    #[tokio::test]
    async fn the_proof_is_taken_byte_for_byte() {
        let proof = service().await.identity().await.unwrap();
        assert_eq!(
            (proof.document.as_str(), proof.signature.as_str()),
            (DOCUMENT, SIGNATURE)
        );
    }

    #[tokio::test]
    async fn what_is_no_proof_is_told() {
        let metadata = service().await;
        let large = "/latest/dynamic/instance-identity/large";
        let missing = "/latest/dynamic/instance-identity/pkcs7";
        for (path, token, told) in [
            (large, "session", "more than 8 KiB"),
            (large, "other", "answers 401"),
            (missing, "session", "answers 404"),
        ] {
            let error = metadata.fact(path, token).await.unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
        let nobody = Metadata::new("http://127.0.0.1:1").unwrap();
        assert!(matches!(nobody.identity().await, Err(MetadataError::Transport(_))));
    }
}
