//! Connections: HTTP/1.1 with keep-alive, with or without TLS, without Nagle's delay, bounded in number and in the time
//! that a request's head may take, and ended gracefully.

use super::{front::Front, tls::Tls};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Connections at the same time; further ones wait in the kernel's queue.
const CONNECTIONS: usize = 4096;
/// How long a client may take for the handshake of TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How connections are served.
#[derive(Clone, Debug)]
pub struct Connections {
    /// How long a connection may take for a request's head, and be idle between two requests. It should be longer than
    /// the pools of clients keep theirs, so that these close first and no request meets a closing connection.
    pub head_timeout: Duration,
    /// Certificate and key; without them HTTP is plain.
    pub tls: Option<Arc<Tls>>,
}

/// Serves until `stop`; then takes no more connections, lets requests finish, and returns when the last has ended or
/// `patience` is over.
pub async fn serve(listener: TcpListener, front: Front, how: Connections, stop: CancellationToken, patience: Duration) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (front, how, stop) = (front.clone(), how.clone(), stop.clone());
                connections.spawn(async move {
                    accept(stream, peer.ip(), front, how, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, mostly: accepting again at once would only burn the processor.
                tracing::warn!(operation = "accept", %error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(patience, connections.wait()).await.is_err() {
        tracing::warn!(
            operation = "shutdown",
            open = connections.len(),
            "connections cut after the time for draining"
        );
    }
}

async fn accept(stream: TcpStream, peer: IpAddr, front: Front, how: Connections, stop: CancellationToken) {
    // Without this an answer of two small writes waits for the other side's delayed acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(operation = "accept", %error, "TCP_NODELAY not set");
    }
    let Some(tls) = &how.tls else {
        return serve_connection(stream, peer, front, how.head_timeout, stop).await;
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => serve_connection(stream, peer, front, how.head_timeout, stop).await,
        Ok(Err(error)) => tracing::debug!(operation = "accept", %peer, %error, "no TLS"),
        Err(_) => tracing::debug!(operation = "accept", %peer, "the handshake of TLS took too long"),
    }
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: IpAddr,
    front: Front,
    head_timeout: Duration,
    stop: CancellationToken,
) {
    let service = service_fn(|request| {
        let front = &front;
        async move { Ok::<_, Infallible>(front.answer(peer, request).await) }
    });
    // Without `pipeline_flush`, under which hyper takes from a body whatever there is: a whole stream, for a client that
    // reads slowly.
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        // A client that goes away in the middle is not news.
        tracing::debug!(operation = "connection", %error, "connection ended");
    }
}
