//! HTTP as a user's curl does it.

use crate::command::run;
use serde_json::Value;
use std::{process::Command, time::Duration};

/// Status and body of an answer.
#[derive(Debug)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Headers, as received.
    pub headers: String,
    /// The body as text.
    pub body: String,
}

impl Response {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.body))
    }

    /// The value of a header; empty if the answer does not have it.
    pub fn header(&self, name: &str) -> &str {
        let lines = self.headers.lines().filter_map(|line| line.split_once(':'));
        let mut found = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next().map_or("", |(_, value)| value.trim())
    }

    /// The answer, if its status is the expected one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.body);
        self
    }
}

/// One request by curl, with `headers` and, if there is one, a JSON body.
#[track_caller]
pub(crate) fn request(method: &str, url: &str, headers: &[String], body: Option<&Value>) -> Response {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-i", "--max-time", "240", "-X", method, url]);
    for header in headers {
        curl.args(["-H", header]);
    }
    let text = body.map(Value::to_string);
    if text.is_some() {
        curl.args(["-H", "Content-Type: application/json", "--data-binary", "@-"]);
    }
    let output = run(&mut curl, text.as_deref(), Duration::from_secs(270)).ok();
    // An interim answer such as `100 Continue` comes as a head of its own.
    let mut rest = output.as_str();
    loop {
        let (head, body) = rest.split_once("\r\n\r\n").unwrap_or((rest, ""));
        let status = head.split_whitespace().nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        if (100..200).contains(&status) {
            rest = body;
            continue;
        }
        return Response {
            status,
            headers: head.to_owned(),
            body: body.to_owned(),
        };
    }
}
