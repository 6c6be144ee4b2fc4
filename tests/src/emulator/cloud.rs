//! Calls to moto itself, past the proxy: what the world outside of the operator does and sees.

use super::call::{Answer, Call};
use super::xml::Element;
use axum::http::{HeaderMap, HeaderValue, Method, Uri};
use bytes::Bytes;
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};
use tokio::runtime::Handle;
use url::form_urlencoded;

/// Where all of it is.
pub const REGION: &str = "eu-central-1";

/// The account that moto plays.
pub const ACCOUNT: &str = "123456789012";

/// A client of moto. Its calls wait for their answer: they are for threads, not for tasks.
#[derive(Clone)]
pub struct Cloud {
    url: String,
    key: &'static str,
    http: reqwest::Client,
    runtime: Handle,
}

impl Cloud {
    /// A client of the server at a URL.
    pub fn new(url: &str, runtime: &Handle) -> Self {
        // Another test of this process may have done it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .no_proxy()
            // It closes connections when it likes; a request on one that it closed would be lost.
            .pool_max_idle_per_host(0)
            .timeout(Duration::from_secs(120))
            .build()
            .expect("a client can be made");
        Self {
            url: url.to_owned(),
            key: "test",
            http,
            runtime: runtime.clone(),
        }
    }

    /// The same with another access key.
    pub fn with_key(self, key: &'static str) -> Self {
        Self { key, ..self }
    }

    /// Sends a call on as it is.
    pub(crate) fn forward(&self, call: &Call) -> Result<Answer, String> {
        let mut headers = call.headers.clone();
        for name in ["host", "content-length", "transfer-encoding", "connection", "expect"] {
            headers.remove(name);
        }
        let path = call.uri.path_and_query().map_or("/", |path| path.as_str());
        let request = self
            .http
            .request(call.method.clone(), format!("{}{path}", self.url))
            .headers(headers)
            .body(call.body());
        self.runtime.block_on(async {
            let text = |error: reqwest::Error| error.to_string();
            let answer = request.send().await.map_err(text)?;
            let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
            let body = answer.bytes().await.map_err(text)?;
            Ok(Answer { status, headers, body })
        })
    }

    /// As much of a signature as moto looks at.
    fn signed(&self, service: &str) -> HeaderValue {
        let scope = format!("{}/20261122/{REGION}/{service}/aws4_request", self.key);
        HeaderValue::try_from(format!("AWS4-HMAC-SHA256 Credential={scope}, Signature=0")).expect("it is a word")
    }

    fn send(&self, service: &str, target: Option<&str>, kind: &'static str, body: String) -> Result<Answer, String> {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", self.signed(service));
        headers.insert("content-type", HeaderValue::from_static(kind));
        if let Some(target) = target {
            headers.insert(
                "x-amz-target",
                HeaderValue::try_from(target).expect("a target is a word"),
            );
        }
        let call = Call::read(Method::POST, Uri::from_static("/"), headers, Bytes::from(body));
        self.forward(&call)
    }

    /// A call of a service with a form.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub fn try_call(&self, service: &str, action: &str, params: &[(&str, &str)]) -> Result<Answer, String> {
        let version = match service {
            "ec2" => "2016-11-15",
            "autoscaling" => "2011-01-01",
            "cloudformation" => "2010-05-15",
            other => panic!("{other} has no forms here"),
        };
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("Action", action)
            .append_pair("Version", version)
            .extend_pairs(params)
            .finish();
        self.send(service, None, "application/x-www-form-urlencoded", body)
    }

    /// The same, where an answer is sure to come.
    pub fn call(&self, service: &str, action: &str, params: &[(&str, &str)]) -> Answer {
        self.try_call(service, action, params).expect("moto answers")
    }

    /// The answer of such a call, which must succeed.
    #[track_caller]
    pub(crate) fn ask(&self, service: &str, action: &str, params: &[(&str, &str)]) -> Element {
        let answer = self.call(service, action, params);
        assert!(answer.ok(), "{action} {params:?}: {}", answer.text());
        answer.xml()
    }

    /// A call of a service with JSON: `AmazonSSM.GetParameter`.
    pub fn json(&self, service: &str, target: &str, body: &Value) -> (u16, Value) {
        let answer = self.send(service, Some(target), "application/x-amz-json-1.1", body.to_string());
        let answer = answer.expect("moto answers");
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
    }

    fn s3(&self, method: Method, path: &str, body: String) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", self.signed("s3"));
        let uri = Uri::try_from(path).expect("a path is a path");
        let answer = self.forward(&Call::read(method, uri, headers, Bytes::from(body)));
        let answer = answer.expect("moto answers");
        assert!(answer.ok(), "{path}: {}", answer.text());
        answer
    }

    /// Makes a bucket.
    pub fn bucket(&self, name: &str) {
        let body = format!(
            "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             <LocationConstraint>{REGION}</LocationConstraint></CreateBucketConfiguration>"
        );
        self.s3(Method::PUT, &format!("/{name}"), body);
    }

    /// The first thousand keys below a prefix.
    pub fn objects(&self, bucket: &str, prefix: &str) -> Vec<String> {
        let path = format!("/{bucket}?list-type=2&prefix={prefix}");
        self.s3(Method::GET, &path, String::new()).xml().texts("Key")
    }

    /// Tags of the things with these identities.
    pub fn tags(&self, ids: &[String]) -> BTreeMap<String, BTreeMap<String, String>> {
        let mut params = vec![("Filter.1.Name".to_owned(), "resource-id".to_owned())];
        params.extend(
            ids.iter()
                .enumerate()
                .map(|(at, id)| (format!("Filter.1.Value.{}", at + 1), id.clone())),
        );
        let params: Vec<(&str, &str)> = params
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let mut found: BTreeMap<String, BTreeMap<String, String>> =
            ids.iter().map(|id| (id.clone(), BTreeMap::new())).collect();
        for item in self.ask("ec2", "DescribeTags", &params).all("item") {
            let of = found.entry(item.text_of(&["resourceId"]).to_owned()).or_default();
            of.insert(item.text_of(&["key"]).to_owned(), item.text_of(&["value"]).to_owned());
        }
        found
    }
}
