//! Serving a router until it is told to stop. Connections are bounded in number, and in the time that they may take to
//! send the head of a request.

use crate::error::Error;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Requests that still run when the server is told to stop get so long to end.
const GRACE: Duration = Duration::from_secs(10);
/// Pause after a connection that could not be accepted: out of file descriptors, mostly, and others have to end first.
const PAUSE: Duration = Duration::from_millis(100);
/// So many failures in a row mean that the listener is lost.
const FAILURES: u32 = 600;

/// How much of the server connections may take.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Connections at the same time; further ones wait in the kernel's queue.
    pub connections: usize,
    /// How long a connection may take for a request's head, and be idle between two requests. It is longer than load
    /// balancers and the pools of clients keep theirs, so that these close first and no request meets a closing one.
    pub head_timeout: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            head_timeout: Duration::from_secs(120),
        }
    }
}

/// Tells streams that would otherwise never end that the server stops.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shutdown(pub(crate) CancellationToken);

/// Serves until `stop` is cancelled, then lets running requests end for at most 10 s.
///
/// # Errors
/// The listener fails for good.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    stop: CancellationToken,
) -> Result<(), Error> {
    let router = router.layer(Extension(Shutdown(stop.clone())));
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    let mut failures = 0;
    let result = loop {
        let place = tokio::select! {
            () = stop.cancelled() => break Ok(()),
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break Ok(()),
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                failures = 0;
                let serving = serve_connection(stream, peer, router.clone(), limits.head_timeout, stop.clone());
                connections.spawn(async move {
                    serving.await;
                    drop(place);
                });
            }
            Err(error) if failures < FAILURES => {
                failures += 1;
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => break Err(Error::Serve(error)),
        }
    };
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, ended).await.is_err() {
        tracing::warn!("requests still ran {GRACE:?} after the API was told to stop; they are cut off");
    }
    result
}

async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    head_timeout: Duration,
    stop: CancellationToken,
) {
    // Events and chunks are small and wanted at once.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY not set");
    }
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request.map(Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        // A client that goes away in the middle is not news.
        tracing::debug!(%error, "a connection ended early");
    }
}
