//! One exchange with a node agent: tried again where that is safe, streaming both ways, ended when the client goes.

use super::Gateway;
use super::body::Payload;
use super::headers::{Call, to_agent, to_client};
use super::target::{self, Target};
use crate::problem::finish::PassedOn;
use crate::problem::{Problem, kind};
use crate::state::App;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What is asked of an agent.
pub(super) struct Exchange<'a> {
    pub(super) app: &'a App,
    /// Where the graph is looked up again before a repetition.
    pub(super) namespace: &'a str,
    pub(super) graph: &'a str,
    pub(super) method: Method,
    /// Path with query string.
    pub(super) path: String,
    pub(super) headers: &'a HeaderMap,
    pub(super) request_id: &'a str,
    pub(super) read_only: bool,
    pub(super) repeatable: bool,
    /// Longest wait for the head of the answer once the request is sent.
    pub(super) patience: Duration,
}

/// The node that answered.
static NODE: HeaderName = HeaderName::from_static("x-graphplane-node");

/// So many replicas are tried before the writer is asked.
const REPLICAS: usize = 2;

/// Whether a replica says that it is not the one to ask: it has no seed yet, is busy, or serves something else by now; or
/// what looked like reading changes something after all.
fn declines(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::CONFLICT
            | StatusCode::SERVICE_UNAVAILABLE
    )
}

/// Whether that holds for every question: it does not know our key, or has no seed or no room at the moment.
fn is_out_of_service(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::SERVICE_UNAVAILABLE)
}

/// Why an attempt failed.
enum Failure {
    /// No connection: nothing reached the agent.
    Connect(reqwest::Error),
    /// No answer in time.
    Timeout,
    /// The client stopped sending.
    ClientStalled,
    /// The connection broke before the answer began.
    Broken(reqwest::Error),
}

impl Exchange<'_> {
    /// Sends the request, and gives the answer as soon as its head is there.
    pub(super) async fn run(&self, mut target: Target, payload: Payload) -> Result<Response, Problem> {
        let gateway = &self.app.gateway;
        let (mut payload, repeatable) = match payload {
            Payload::Stream(body) => (Payload::Stream(body), false),
            other => (other, self.repeatable),
        };
        let attempts = if repeatable {
            gateway.settings.attempts.max(1)
        } else {
            1
        };
        for attempt in 1..=attempts {
            let permit = gateway.admit(&target.node, &target.address).map_err(|wait| {
                let detail = format!(
                    "node `{}` did not answer lately; calls to it are stopped for a moment",
                    target.node
                );
                Problem::new(&kind::CIRCUIT_OPEN, detail).retry_after(wait.as_secs_f64().ceil().max(1.0) as u32)
            })?;
            let body = match &mut payload {
                Payload::Stream(body) => Payload::Stream(std::mem::take(body)),
                Payload::Whole(bytes) => Payload::Whole(bytes.clone()),
                Payload::Empty => Payload::Empty,
            };
            let failure = match self.attempt(gateway, &target, body).await? {
                Ok(answer) => {
                    permit.answered();
                    return self.pass_on(gateway, &target, answer);
                }
                Err(failure) => failure,
            };
            tracing::warn!(
                node = target.node, address = target.address, attempt, request_id = self.request_id,
                error = %describe(&failure), "a call to a node agent failed"
            );
            match failure {
                Failure::Connect(_) if attempt < attempts => {
                    permit.failed("connect");
                    gateway.metrics.retry();
                    tokio::time::sleep(Duration::from_millis(50 << attempt)).await;
                    // The agent may have moved in the meantime.
                    target = target::resolve(self.app, self.namespace, self.graph).await?;
                }
                Failure::Connect(_) => {
                    permit.failed("connect");
                    let detail = format!("node `{}` cannot be reached", target.node);
                    return Err(Problem::new(&kind::UNAVAILABLE, detail)
                        .reason("NodeUnreachable")
                        .retry_after(2));
                }
                Failure::Timeout => {
                    permit.failed("timeout");
                    return Err(self.timeout(&target.node));
                }
                Failure::ClientStalled => {
                    drop(permit);
                    return Err(Problem::new(&kind::REQUEST_TIMEOUT, "the body stopped before its end"));
                }
                Failure::Broken(_) => {
                    permit.failed("broken");
                    let detail = format!(
                        "the connection to node `{}` broke before it answered; whether a change took effect is not known",
                        target.node
                    );
                    return Err(Problem::new(&kind::UPSTREAM, detail));
                }
            }
        }
        Err(Problem::internal("an exchange without an attempt"))
    }

    /// Asks one of these replicas, the first that can be reached. `None` if none of them answers the question, which the
    /// writer can.
    pub(super) async fn ask(&self, replicas: &[Target], payload: Payload) -> Result<Option<Response>, Problem> {
        let gateway = &self.app.gateway;
        for replica in replicas.iter().take(REPLICAS) {
            let Some(payload) = payload.again() else {
                return Ok(None);
            };
            // A node that failed lately is passed over.
            let Ok(permit) = gateway.admit(&replica.node, &replica.address) else {
                continue;
            };
            let failure = match self.attempt(gateway, replica, payload).await? {
                Ok(answer) => {
                    // The next questions had better go past a node that can answer none of them.
                    match is_out_of_service(answer.status()) {
                        true => permit.declined(),
                        false => permit.answered(),
                    }
                    if declines(answer.status()) {
                        continue;
                    }
                    return self.pass_on(gateway, replica, answer).map(Some);
                }
                Err(failure) => failure,
            };
            tracing::info!(
                node = replica.node, address = replica.address, request_id = self.request_id,
                error = %describe(&failure), "a replica did not answer"
            );
            match failure {
                // The writer would take as long, and has more to do.
                Failure::Timeout => {
                    permit.failed("timeout");
                    return Err(self.timeout(&replica.node));
                }
                Failure::Connect(_) => permit.failed("connect"),
                Failure::Broken(_) | Failure::ClientStalled => permit.failed("broken"),
            }
        }
        Ok(None)
    }

    fn timeout(&self, node: &str) -> Problem {
        let detail = format!("node `{node}` did not answer within {} s", self.patience.as_secs());
        Problem::new(&kind::UPSTREAM_TIMEOUT, detail)
    }

    async fn attempt(
        &self,
        gateway: &Gateway,
        target: &Target,
        payload: Payload,
    ) -> Result<Result<reqwest::Response, Failure>, Problem> {
        let call = Call {
            api_key: &target.api_key,
            epoch: target.epoch,
            request_id: self.request_id,
            read_only: self.read_only,
            streaming: matches!(payload, Payload::Stream(_)),
        };
        let mut headers = to_agent(self.headers, &call)
            .ok_or_else(|| Problem::internal(format!("the key of node `{}` is not a header's value", target.node)))?;
        let url = format!("{}{}", target.address, self.path);
        let sending = Arc::new(Sending::new(call.streaming));
        let mut request = gateway.http.request(self.method.clone(), url);
        if matches!(payload, Payload::Whole(_)) {
            headers
                .entry(header::CONTENT_TYPE)
                .or_insert(HeaderValue::from_static("application/json"));
        }
        request = request.headers(headers);
        request = match payload {
            Payload::Empty => request,
            Payload::Whole(bytes) => request.body(bytes),
            Payload::Stream(body) => {
                let chunks = noting(body.into_data_stream(), sending.clone());
                request.body(reqwest::Body::wrap_stream(chunks))
            }
        };
        let answer = tokio::select! {
            answer = request.send() => answer,
            failure = sending.stalled(self.patience, gateway.settings.idle_timeout) => return Ok(Err(failure)),
        };
        Ok(answer.map_err(|error| {
            if error.is_connect() {
                Failure::Connect(error)
            } else if sending.broke() {
                Failure::ClientStalled
            } else if error.is_timeout() {
                Failure::Timeout
            } else {
                Failure::Broken(error)
            }
        }))
    }

    /// The agent's answer, as the client may see it.
    fn pass_on(&self, gateway: &Gateway, target: &Target, answer: reqwest::Response) -> Result<Response, Problem> {
        let status = answer.status();
        if status == StatusCode::UNAUTHORIZED {
            // It is our key that the agent refuses, not the client's.
            tracing::warn!(
                node = target.node,
                request_id = self.request_id,
                "a node agent does not accept our key"
            );
            let detail = format!(
                "node `{}` does not accept the control plane's key; it is registering again",
                target.node
            );
            return Err(Problem::new(&kind::UNAVAILABLE, detail)
                .reason("AgentKeyRefused")
                .retry_after(2));
        }
        let mut headers = to_client(answer.headers());
        if let Ok(node) = HeaderValue::from_str(&target.node) {
            headers.insert(NODE.clone(), node);
        }
        let idle = gateway.settings.idle_timeout.max(self.patience);
        let mut response = Response::new(Body::from_stream(bounded(answer.bytes_stream(), idle)));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response.extensions_mut().insert(PassedOn);
        Ok(response)
    }
}

fn describe(failure: &Failure) -> String {
    // The cause of a connection's failure is at the end of the chain.
    let chain = |error: &reqwest::Error| {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    };
    match failure {
        Failure::Connect(error) | Failure::Broken(error) => chain(error),
        Failure::Timeout => "no answer in time".to_owned(),
        Failure::ClientStalled => "the client stopped sending".to_owned(),
    }
}

/// How far a request's body is.
struct Sending(Mutex<Progress>);

#[derive(Clone, Copy)]
struct Progress {
    at: Stage,
    last: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The agent wants more, and the client has not sent it.
    WaitingForClient,
    /// The agent has got what there was and does not ask for more yet.
    WaitingForAgent,
    /// All is sent.
    Sent,
    /// The client went away in the middle.
    Broken,
}

impl Sending {
    /// A body that is sent as a whole, or not yet asked for.
    fn new(streaming: bool) -> Self {
        let at = if streaming { Stage::WaitingForAgent } else { Stage::Sent };
        Self(Mutex::new(Progress {
            at,
            last: Instant::now(),
        }))
    }

    fn reach(&self, at: Stage) {
        *self.0.lock() = Progress {
            at,
            last: Instant::now(),
        };
    }

    fn broke(&self) -> bool {
        self.0.lock().at == Stage::Broken
    }

    /// Ends when nothing has moved for too long.
    async fn stalled(&self, patience: Duration, idle: Duration) -> Failure {
        loop {
            let Progress { at, last } = *self.0.lock();
            let (limit, failure) = match at {
                Stage::WaitingForClient | Stage::Broken => (idle, Failure::ClientStalled),
                Stage::WaitingForAgent | Stage::Sent => (patience, Failure::Timeout),
            };
            if last.elapsed() >= limit {
                return failure;
            }
            tokio::time::sleep_until(last + limit).await;
        }
    }
}

/// A client's body, with its progress noted.
fn noting(
    body: impl Stream<Item = Result<Bytes, axum::Error>> + Send + 'static,
    sending: Arc<Sending>,
) -> impl Stream<Item = Result<Bytes, axum::Error>> + Send + 'static {
    let state = (Box::pin(body), sending);
    futures::stream::unfold(state, |(mut body, sending)| async move {
        sending.reach(Stage::WaitingForClient);
        let chunk = body.next().await;
        sending.reach(match &chunk {
            Some(Ok(_)) => Stage::WaitingForAgent,
            Some(Err(_)) => Stage::Broken,
            None => Stage::Sent,
        });
        chunk.map(|chunk| (chunk, (body, sending)))
    })
}

/// An agent's answer, cut off after a silence. Dropped with the client's connection, it ends the agent's work.
fn bounded(
    body: impl Stream<Item = Result<Bytes, reqwest::Error>> + Send + 'static,
    idle: Duration,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static {
    futures::stream::unfold(Some(Box::pin(body)), move |body| async move {
        let mut body = body?;
        match tokio::time::timeout(idle, body.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some(body))),
            Ok(Some(Err(error))) => Some((Err(std::io::Error::other(error)), None)),
            Err(_) => Some((Err(std::io::Error::from(std::io::ErrorKind::TimedOut)), None)),
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);
    const IDLE: Duration = Duration::from_secs(8);

    #[tokio::test(start_paused = true)]
    async fn a_long_upload_is_not_a_timeout_but_a_stalled_one_is() {
        let sending = Arc::new(Sending::new(true));
        let watched = sending.clone();
        let task = tokio::spawn(async move { (watched.stalled(PATIENCE, IDLE).await, Instant::now()) });
        let begin = Instant::now();
        for _ in 0..10 {
            sending.reach(Stage::WaitingForClient);
            tokio::time::sleep(Duration::from_secs(6)).await;
            sending.reach(Stage::WaitingForAgent);
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        sending.reach(Stage::WaitingForClient);
        let (failure, end) = task.await.unwrap();
        assert!(matches!(failure, Failure::ClientStalled));
        assert!(end - begin >= Duration::from_secs(88));
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_reads_no_further_is_a_timeout() {
        let sending = Sending::new(true);
        sending.reach(Stage::WaitingForClient);
        sending.reach(Stage::WaitingForAgent);
        assert!(matches!(sending.stalled(PATIENCE, IDLE).await, Failure::Timeout));
    }

    #[tokio::test(start_paused = true)]
    async fn patience_counts_from_the_end_of_the_body() {
        let sending = Arc::new(Sending::new(true));
        sending.reach(Stage::WaitingForClient);
        let watched = sending.clone();
        let begin = Instant::now();
        let task = tokio::spawn(async move { (watched.stalled(PATIENCE, IDLE).await, Instant::now()) });
        tokio::time::sleep(Duration::from_secs(4)).await;
        sending.reach(Stage::Sent);
        let (failure, end) = task.await.unwrap();
        assert!(matches!(failure, Failure::Timeout));
        assert!(end - begin >= Duration::from_secs(9));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_falls_silent_is_cut_off() {
        let body = futures::stream::once(async { Ok(Bytes::from_static(b"x")) }).chain(futures::stream::pending());
        let chunks: Vec<_> = bounded(body, Duration::from_secs(3)).collect().await;
        assert_eq!(chunks.len(), 2);
        assert!(
            chunks[0].is_ok()
                && chunks[1]
                    .as_ref()
                    .is_err_and(|e| e.kind() == std::io::ErrorKind::TimedOut)
        );
    }
}
