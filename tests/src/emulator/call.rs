//! A call to AWS: what is asked for, in the protocols that our services have, and how each of them says no.
//!
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/Query-Requests.html>

use super::xml::{Element, escape};
use axum::http::{HeaderMap, Method, Uri};
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use url::form_urlencoded;

/// A call.
#[derive(Clone, Debug)]
pub struct Call {
    /// The service as requests are signed for it: `ec2`, `autoscaling`, `cloudformation`, `dynamodb`, `ssm`, `s3`.
    pub service: String,
    /// What is asked for: `RunInstances`. Of S3 it is the name of the permission that it takes.
    pub action: String,
    /// What it is asked with: the fields of a form, or the top level of a JSON object as JSON. Of S3: bucket, key, prefix.
    pub params: BTreeMap<String, String>,
    /// The access key of who asks.
    pub caller: String,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    body: Bytes,
}

impl Call {
    /// Reads a request.
    pub(crate) fn read(method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Self {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        // AWS4-HMAC-SHA256 Credential=<key>/<date>/<region>/<service>/aws4_request, …
        let scope = header("authorization")
            .split_once("Credential=")
            .map_or("", |(_, rest)| rest);
        let scope: Vec<&str> = scope.split(',').next().unwrap_or("").split('/').collect();
        let part = |at: usize| scope.get(at).map_or(String::new(), |part| (*part).to_owned());
        let (caller, service) = (part(0), part(3));
        let (action, params) = match header("x-amz-target").rsplit_once('.') {
            Some((_, action)) => (action.to_owned(), fields(&body)),
            None if service == "s3" => of_s3(&method, &uri),
            None => {
                let mut form: BTreeMap<String, String> = form_urlencoded::parse(&body).into_owned().collect();
                form.extend(form_urlencoded::parse(uri.query().unwrap_or("").as_bytes()).into_owned());
                (form.get("Action").cloned().unwrap_or_default(), form)
            }
        };
        Self {
            service,
            action,
            params,
            caller,
            method,
            uri,
            headers,
            body,
        }
    }

    /// What is sent on: rules may have changed the fields of a form.
    pub(crate) fn body(&self) -> Bytes {
        if self.params.contains_key("Action") {
            let form = form_urlencoded::Serializer::new(String::new())
                .extend_pairs(&self.params)
                .finish();
            Bytes::from(form)
        } else {
            self.body.clone()
        }
    }

    /// Whether it is this call of EC2.
    pub(crate) fn is_ec2(&self, action: &str) -> bool {
        self.service == "ec2" && self.action == action
    }

    /// A parameter; empty if it is absent.
    pub fn param(&self, name: &str) -> &str {
        self.params.get(name).map_or("", String::as_str)
    }

    /// The values of `<prefix>.1`, `<prefix>.2`, …
    pub fn list(&self, prefix: &str) -> Vec<&str> {
        (1..)
            .map_while(|at| self.params.get(&format!("{prefix}.{at}")))
            .map(String::as_str)
            .collect()
    }

    /// The number of the filter with that name, and its values.
    pub(crate) fn filter(&self, name: &str) -> Option<(usize, Vec<String>)> {
        let at = (1..)
            .take_while(|at| self.params.contains_key(&format!("Filter.{at}.Name")))
            .find(|at| self.param(&format!("Filter.{at}.Name")) == name)?;
        let values = self.list(&format!("Filter.{at}.Value"));
        Some((at, values.into_iter().map(str::to_owned).collect()))
    }

    /// Lets a filter pass these values instead of those that were asked for, which are returned.
    pub(crate) fn widen(&mut self, name: &str, all: &[&str]) -> Option<Vec<String>> {
        let (at, values) = self.filter(name)?;
        self.params
            .retain(|key, _| !key.starts_with(&format!("Filter.{at}.Value.")));
        for (number, value) in all.iter().enumerate() {
            self.params
                .insert(format!("Filter.{at}.Value.{}", number + 1), (*value).to_owned());
        }
        Some(values)
    }

    /// The tags that a creation gives to resources of a type.
    pub fn new_tags(&self, resource: &str) -> BTreeMap<String, String> {
        let pairs = |prefix: String| {
            (1..)
                .map(move |at| (format!("{prefix}.{at}.Key"), format!("{prefix}.{at}.Value")))
                .map_while(|(key, value)| Some((self.params.get(&key)?.clone(), self.param(&value).to_owned())))
                .collect::<Vec<_>>()
        };
        let of_type = (1..)
            .take_while(|at| self.params.contains_key(&format!("TagSpecification.{at}.ResourceType")))
            .filter(|at| self.param(&format!("TagSpecification.{at}.ResourceType")) == resource)
            .flat_map(|at| pairs(format!("TagSpecification.{at}.Tag")));
        of_type.chain(pairs("Tags.member".to_owned())).collect()
    }

    /// Whether it changes something.
    pub fn changes(&self) -> bool {
        const READS: [&str; 9] = [
            "Describe", "Get", "List", "Query", "Scan", "BatchGet", "Detect", "Validate", "Head",
        ];
        !READS.iter().any(|read| self.action.starts_with(read))
    }

    /// The answer that refuses this call with a code, in the protocol of its service.
    pub(crate) fn refuse(&self, status: u16, code: &str, message: &str) -> Answer {
        let (code, message) = (escape(code), escape(message));
        let (kind, body) = match self.service.as_str() {
            "ec2" => (
                "text/xml",
                format!(
                    "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>\
                     <RequestID>proxy</RequestID></Response>"
                ),
            ),
            "dynamodb" | "ssm" => (
                "application/x-amz-json-1.0",
                json!({"__type": format!("com.amazonaws#{code}"), "message": message}).to_string(),
            ),
            "s3" => (
                "application/xml",
                format!("<Error><Code>{code}</Code><Message>{message}</Message><RequestId>proxy</RequestId></Error>"),
            ),
            _ => (
                "text/xml",
                format!(
                    "<ErrorResponse><Error><Type>{}</Type><Code>{code}</Code><Message>{message}</Message></Error>\
                     <RequestId>proxy</RequestId></ErrorResponse>",
                    if status < 500 { "Sender" } else { "Receiver" }
                ),
            ),
        };
        Answer::new(status, kind, body)
    }

    /// How its service says that there were too many calls.
    ///
    /// <https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html>
    pub(crate) fn throttle(&self) -> Answer {
        match self.service.as_str() {
            "ec2" => self.refuse(503, "RequestLimitExceeded", "Request limit exceeded."),
            "dynamodb" | "ssm" => self.refuse(400, "ThrottlingException", "Rate exceeded"),
            "s3" => self.refuse(503, "SlowDown", "Please reduce your request rate."),
            _ => self.refuse(400, "Throttling", "Rate exceeded"),
        }
    }
}

fn fields(body: &[u8]) -> BTreeMap<String, String> {
    let Ok(Value::Object(fields)) = serde_json::from_slice(body) else {
        return BTreeMap::new();
    };
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    fields.into_iter().map(|(key, value)| (key, text(value))).collect()
}

/// The permission that a request to S3 takes, and on what.
///
/// <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html>
fn of_s3(method: &Method, uri: &Uri) -> (String, BTreeMap<String, String>) {
    let path = percent_encoding::percent_decode_str(uri.path()).decode_utf8_lossy();
    let (bucket, key) = path
        .trim_start_matches('/')
        .split_once('/')
        .unwrap_or((path.trim_start_matches('/'), ""));
    let query: BTreeMap<String, String> = form_urlencoded::parse(uri.query().unwrap_or("").as_bytes())
        .into_owned()
        .collect();
    let action = match (method.as_str(), key.is_empty()) {
        ("GET" | "HEAD", true) => "ListBucket",
        ("GET" | "HEAD", false) => "GetObject",
        ("POST", true) if query.contains_key("delete") => "DeleteObject",
        ("PUT" | "DELETE", true) => "Bucket",
        ("DELETE", false) if query.contains_key("uploadId") => "AbortMultipartUpload",
        ("DELETE", false) => "DeleteObject",
        _ => "PutObject",
    };
    let mut params = BTreeMap::from([
        ("bucket".to_owned(), bucket.to_owned()),
        ("key".to_owned(), key.to_owned()),
    ]);
    params.extend(query.get("prefix").map(|prefix| ("prefix".to_owned(), prefix.clone())));
    (action.to_owned(), params)
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    pub(crate) headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    pub(crate) fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let kind = axum::http::HeaderValue::from_static(content_type);
        Self {
            status,
            headers: HeaderMap::from_iter([(axum::http::header::CONTENT_TYPE, kind)]),
            body: body.into(),
        }
    }

    /// An answer in XML.
    pub(crate) fn of(document: &Element) -> Self {
        Self::new(200, "text/xml", document.to_string())
    }

    /// Whether the call succeeded.
    pub fn ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Texts of all elements of that name.
    pub fn texts(&self, name: &str) -> Vec<String> {
        self.xml().texts(name)
    }

    /// The body as XML; an element without children if it is none.
    pub(crate) fn xml(&self) -> Element {
        Element::parse(&self.text()).unwrap_or_default()
    }

    /// The same without a body that is no message of a service.
    pub(crate) fn without_objects(mut self) -> Self {
        let kind = self
            .headers
            .get("content-type")
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or("");
        if !["xml", "json"].iter().any(|message| kind.contains(message)) {
            self.body = Bytes::new();
        }
        self
    }

    /// Takes another body.
    pub(crate) fn replace(&mut self, document: &Element) {
        self.headers.remove(axum::http::header::CONTENT_LENGTH);
        self.body = document.to_string().into();
    }

    /// The code of an error, in whichever protocol.
    pub fn code(&self) -> Option<String> {
        if self.ok() {
            return None;
        }
        let in_xml = || self.xml().texts("Code").into_iter().next();
        let in_json = || {
            let body: Value = serde_json::from_slice(&self.body).ok()?;
            Some(body["__type"].as_str()?.rsplit('#').next()?.to_owned())
        };
        in_json().or_else(in_xml).or_else(|| Some(self.status.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(service: &str, target: Option<&str>, uri: &str, method: Method, body: &str) -> Call {
        let mut headers = HeaderMap::new();
        let signed =
            format!("AWS4-HMAC-SHA256 Credential=op/20261122/eu-central-1/{service}/aws4_request, Signature=0");
        headers.insert("authorization", signed.parse().unwrap());
        if let Some(target) = target {
            headers.insert("x-amz-target", target.parse().unwrap());
        }
        Call::read(method, uri.parse().unwrap(), headers, Bytes::from(body.to_owned()))
    }

    #[test]
    fn each_protocol_is_read() {
        let body = "Action=RunInstances&TagSpecification.1.ResourceType=instance&TagSpecification.1.Tag.1.Key=a%2Fb\
                    &TagSpecification.1.Tag.1.Value=c&Filter.1.Name=x&Filter.1.Value.1=1&Filter.1.Value.2=2";
        let mut form = read("ec2", None, "/", Method::POST, body);
        assert_eq!((form.action.as_str(), form.caller.as_str()), ("RunInstances", "op"));
        assert_eq!(form.new_tags("instance")["a/b"], "c");
        assert!(form.new_tags("volume").is_empty() && form.changes());
        assert_eq!(form.widen("x", &["3"]).unwrap(), ["1", "2"]);
        assert_eq!(form.list("Filter.1.Value"), ["3"]);
        let json = read(
            "dynamodb",
            Some("DynamoDB_20120810.GetItem"),
            "/",
            Method::POST,
            r#"{"TableName":"t"}"#,
        );
        assert_eq!((json.action.as_str(), json.param("TableName")), ("GetItem", "t"));
        assert!(!json.changes());
        let list = read("s3", None, "/b?list-type=2&prefix=x%2F", Method::GET, "");
        assert_eq!((list.action.as_str(), list.param("prefix")), ("ListBucket", "x/"));
        let part = read("s3", None, "/b/k/1?partNumber=1&uploadId=u", Method::PUT, "");
        assert_eq!((part.action.as_str(), part.param("key")), ("PutObject", "k/1"));
    }

    #[test]
    fn each_protocol_says_no_with_its_code() {
        for (service, code) in [
            ("ec2", "RequestLimitExceeded"),
            ("autoscaling", "Throttling"),
            ("cloudformation", "Throttling"),
            ("dynamodb", "ThrottlingException"),
            ("ssm", "ThrottlingException"),
            ("s3", "SlowDown"),
        ] {
            let no = read(service, None, "/", Method::POST, "").throttle();
            assert_eq!(no.code().as_deref(), Some(code), "{}", no.text());
        }
    }
}
