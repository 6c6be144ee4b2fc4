//! Bodies without an end: no route reads on beyond its limit, whatever it does with a body.

use crate::{
    conformance::DOCUMENT,
    fixture::{Agent, PEOPLE},
};
use reqwest::{Body, Method};
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

const PIECE: usize = 64 << 10;
/// More than any route takes as JSON, and what is on its way between two programs.
const ENOUGH: u64 = 64 << 20;

/// Spaces for ever, which is how every JSON may begin; `sent` counts them.
fn endless(sent: &Arc<AtomicU64>) -> Body {
    let sent = Arc::clone(sent);
    Body::wrap_stream(futures::stream::repeat_with(move || {
        sent.fetch_add(PIECE as u64, Ordering::Relaxed);
        Ok::<_, Infallible>(vec![b' '; PIECE])
    }))
}

#[tokio::test]
async fn no_route_reads_a_body_for_ever() {
    let agent = Agent::start().await;
    agent.database("kg1", PEOPLE).await;
    let before = agent.allocated_bytes();
    let (mut routes, mut told) = (0, 0);
    for (path, item) in DOCUMENT["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if !operation["requestBody"]["content"]["application/json"].is_object() {
                continue;
            }
            routes += 1;
            let mut target = path.replace("{id}", "kg1").replace("{parent}", "kg1");
            target = target
                .replace("{table}", "Person")
                .replace("{memory}", &format!("mem_{}", "0".repeat(32)));
            let method: Method = method.to_uppercase().parse().unwrap();
            let sent = Arc::default();
            let request = agent
                .request(method.clone(), &target)
                .header("Content-Type", "application/json")
                .header("Connection", "close");
            // The node answers while it is still sent to, and closes: the answer may be lost on its way.
            if let Ok(response) = request.body(endless(&sent)).send().await {
                let status = response.status().as_u16();
                assert!(
                    (400..500).contains(&status) || status == 501,
                    "{method} {path}: {status}"
                );
                told += usize::from(status == 413);
            }
            let sent = sent.load(Ordering::Relaxed);
            assert!(sent < ENOUGH, "{method} {path}: {} MiB were taken", sent >> 20);
        }
    }
    assert!(routes >= 25, "{routes} routes with bodies");
    assert!(told > 0, "nobody was told that the body is too large");
    let grown = agent.allocated_bytes().saturating_sub(before);
    assert!(grown < 200 << 20, "{} MiB more than before", grown >> 20);
    agent.cypher("kg1", "RETURN 1").await.ok();
}
