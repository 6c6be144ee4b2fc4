//! The OpenAPI document itself: it is the committed one, and has what the router has.

use crate::{
    conformance::DOCUMENT,
    fixture::{Agent, Answer},
};
use reqwest::Method;
use serde_json::json;

#[test]
fn the_committed_document_is_the_present_one() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == graphplane_node_agent::http::openapi::text(),
        "{} is not what the code says; run: make generate",
        path.display()
    );
}

/// A route without an operation, or the reverse, is found here, and so is a method.
#[tokio::test]
async fn the_router_has_what_the_document_has_and_nothing_else() {
    let agent = Agent::start().await;
    let probe = Method::from_bytes(b"PROBE").unwrap();
    let mut routed = Vec::new();
    for path in graphplane_node_agent::http::paths() {
        let concrete = path.replace(['{', '}'], "");
        let answer = Answer::to(agent.request(probe.clone(), &concrete)).await;
        answer.fails(405);
        let methods = answer.header("allow").unwrap().split(',').map(str::trim);
        let methods = methods.filter(|method| *method != "HEAD");
        routed.extend(methods.map(|method| format!("{} {path}", method.to_lowercase())));
    }
    let served = agent.get("/openapi.json").await.ok();
    assert_eq!(served, graphplane_node_agent::http::openapi::document());
    let items = served["paths"].as_object().unwrap().iter();
    let documented = items.flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().keys();
        methods.map(move |method| format!("{method} {path}"))
    });
    let mut documented: Vec<_> = documented.collect();
    documented.sort();
    routed.sort();
    assert_eq!(routed, documented);
}

/// Every operation but those that say so wants a key.
#[tokio::test]
async fn operations_want_the_key_that_the_document_says() {
    let agent = Agent::start().await;
    for (path, item) in DOCUMENT["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method = method.to_uppercase().parse().unwrap();
            let request = agent.bare(method, &path.replace(['{', '}'], ""));
            let answer = Answer::to(request).await;
            let open = operation.get("security") == Some(&json!([]));
            let refused = matches!(answer.status.as_u16(), 401 | 429);
            assert_eq!(refused, !open, "{path}: {}", answer.status);
        }
    }
}
