//! Keys that change, limits, TLS, and connections that give nothing.

use crate::fixture::{Agent, Answer, KEY, eventually};
use rcgen::{CertificateParams, KeyPair};
use reqwest::{Certificate, Method};
use std::{path::Path, time::Duration};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

async fn status_with(agent: &Agent, key: &str) -> u16 {
    let request = agent.bare(Method::GET, "/databases").header("X-Graph-API-Key", key);
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn keys_are_replaced_without_a_restart() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("keys");
    std::fs::write(&file, "# the gateway's\nfile-one\n").unwrap();
    let agent = Agent::launch(
        TempDir::new().unwrap(),
        &["--api-key-file", file.to_str().unwrap()],
        &[("GRAPH_API_KEY", KEY), ("GRAPH_API_KEY_NEXT", "next")],
    )
    .await;
    for key in [KEY, "next", "file-one"] {
        assert_eq!(status_with(&agent, key).await, 200, "{key}");
    }
    assert_eq!(status_with(&agent, "file-two").await, 401);

    // A file that is no good changes nothing.
    std::fs::write(&file, "\n").unwrap();
    eventually(
        "the empty file is refused",
        || async { agent.log() },
        |log| log.contains("there is no key in it"),
    )
    .await;
    assert_eq!(status_with(&agent, "file-one").await, 200);

    let new = dir.path().join("new");
    std::fs::write(&new, "file-two\n").unwrap();
    std::fs::rename(&new, &file).unwrap();
    eventually(
        "the new file is read",
        || async { agent.log() },
        |log| log.contains("keys read again"),
    )
    .await;
    for (key, status) in [("file-two", 200), ("file-one", 401), (KEY, 200), ("next", 200)] {
        assert_eq!(status_with(&agent, key).await, status, "{key}");
    }
    for key in [KEY, "next", "file-one", "file-two"] {
        assert!(!agent.log().contains(&format!("\"{key}\"")), "{key} is in the log");
    }
}

#[tokio::test]
async fn a_key_that_asks_too_often_is_told_to_wait() {
    let agent = Agent::launch(
        TempDir::new().unwrap(),
        &["--rate-limit", "1", "--rate-burst", "3"],
        &[("GRAPH_API_KEY", KEY), ("GRAPH_API_KEY_NEXT", "next")],
    )
    .await;
    let answers = futures::future::join_all((0..40).map(|_| agent.get("/databases"))).await;
    let refused: Vec<&Answer> = answers.iter().filter(|answer| answer.status.as_u16() == 429).collect();
    assert!(
        !refused.is_empty() && refused.len() <= 37,
        "{} of 40 refused",
        refused.len()
    );
    for answer in refused {
        assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
        assert!(answer.fails(429).is_string());
    }
    assert_eq!(status_with(&agent, "next").await, 200, "another key has its own limit");
    for _ in 0..10 {
        Answer::to(agent.bare(Method::GET, "/health")).await.ok();
    }
}

fn certificate(dir: &Path) -> Certificate {
    let key = KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    for (name, text) in [("cert.pem", certificate.pem()), ("key.pem", key.serialize_pem())] {
        let new = dir.join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, dir.join(name)).unwrap();
    }
    Certificate::from_pem(certificate.pem().as_bytes()).unwrap()
}

/// A client that trusts this certificate alone, and no connection of another.
async fn healthy(agent: &Agent, trusted: &Certificate) -> bool {
    let client = reqwest::Client::builder()
        .tls_certs_only([trusted.clone()])
        .timeout(Duration::from_secs(60))
        .build()
        .unwrap();
    let response = client.get(format!("{}/health", agent.url)).send().await;
    response.is_ok_and(|response| response.status().is_success())
}

#[tokio::test]
async fn the_port_speaks_tls_and_takes_a_new_certificate() {
    let dir = TempDir::new().unwrap();
    let first = certificate(dir.path());
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (cert, key) = (at("cert.pem"), at("key.pem"));
    let agent = Agent::with(&["--tls-cert", &cert, "--tls-key", &key]).await;
    assert!(agent.url.starts_with("https://"), "{}", agent.url);
    assert!(healthy(&agent, &first).await);
    let plain = agent.url.replace("https://", "http://");
    assert!(
        reqwest::get(format!("{plain}/health")).await.is_err(),
        "plain HTTP on a port of TLS"
    );

    let second = certificate(dir.path());
    eventually(
        "the new certificate is used",
        || healthy(&agent, &second),
        |healthy| *healthy,
    )
    .await;
    assert!(!healthy(&agent, &first).await);
}

#[tokio::test]
async fn half_a_request_is_not_waited_for() {
    let agent = Agent::with(&["--head-timeout-seconds", "1"]).await;
    let address = agent.url.trim_start_matches("http://").to_owned();
    for begun in ["", "GET / HT", "GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
        let mut slow = TcpStream::connect(&address).await.unwrap();
        slow.write_all(begun.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(60), slow.read_to_end(&mut rest)).await;
        assert!(ended.unwrap().is_ok(), "{begun:?}");
        assert!(!String::from_utf8_lossy(&rest).contains("200 OK"), "{begun:?}");
    }
    Answer::to(agent.bare(Method::GET, "/health")).await.ok();
}
