//! Connections: HTTP/1.1 with keep-alive, without Nagle's delay, bounded in number, and ended gracefully.

use super::front::Front;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Connections at the same time; further ones wait in the kernel's queue.
const CONNECTIONS: usize = 4096;
/// How long a connection may take for a request's head, and be idle between two requests: longer than the pools of the
/// usual clients keep theirs, so that these close first and no request meets a closing connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);

/// Serves until `stop`; then takes no more connections, lets requests finish, and returns when the last has ended or
/// `patience` is over.
pub async fn serve(listener: TcpListener, front: Front, stop: CancellationToken, patience: Duration) {
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
                let (front, stop) = (front.clone(), stop.clone());
                connections.spawn(async move {
                    serve_connection(stream, peer.ip(), front, stop).await;
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

async fn serve_connection(stream: TcpStream, peer: std::net::IpAddr, front: Front, stop: CancellationToken) {
    // Without this an answer of two small writes waits for the other side's delayed acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(operation = "accept", %error, "TCP_NODELAY not set");
    }
    let service = service_fn(|request| {
        let front = &front;
        async move { Ok::<_, Infallible>(front.answer(peer, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .pipeline_flush(true)
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
