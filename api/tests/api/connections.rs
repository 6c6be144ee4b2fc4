//! Connections that take a place and give nothing.

use axum::{Router, routing::get};
use graphplane_api::ConnectionLimits;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn half_a_request_does_not_keep_a_place() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let limits = ConnectionLimits {
        connections: 1,
        head_timeout: Duration::from_millis(500),
    };
    let router = Router::new().route("/", get(|| async { "served" }));
    let serving = tokio::spawn(graphplane_api::serve(listener, router, limits, stop.clone()));
    for begun in ["", "G", "GET / HT", "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(begun.as_bytes()).await.unwrap();
        // There is one place, so this is served only after the other has lost it.
        let mut client = TcpStream::connect(address).await.unwrap();
        let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, client.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert!(answer.ends_with("served"), "{begun:?}: {answer}");
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, slow.read_to_end(&mut rest))
            .await
            .unwrap();
        assert!(
            ended.is_ok() && !String::from_utf8_lossy(&rest).contains("200"),
            "{begun:?}"
        );
    }
    stop.cancel();
    serving.await.unwrap().unwrap();
}
