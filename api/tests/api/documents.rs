//! The OpenAPI document, its pages, and the paths that it promises.

use crate::plane::{ADMIN, Plane};
use serde_json::{Value, json};
use std::path::Path;

#[test]
fn the_committed_document_is_the_present_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == graphplane_api::openapi::text(),
        "{} is not what the code says; run: make generate",
        path.display()
    );
}

#[tokio::test]
async fn every_documented_path_exists() {
    let plane = Plane::start().await;
    let document = plane.get("/openapi.json").await.expect(200).body;
    assert_eq!(document["openapi"], "3.1.0");
    let mut count = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let real = path.replace(['{', '}'], "");
            let request = plane
                .request(&method.to_uppercase(), &real, ADMIN)
                .header("content-type", "application/json");
            let answer = plane.send(request.body("{")).await;
            let missing = answer.body["type"]
                .as_str()
                .is_some_and(|kind| kind.ends_with("no-such-route"));
            assert!(
                !missing && answer.status != 405,
                "{method} {path}: {} {:#}",
                answer.status,
                answer.body
            );
            assert!(answer.status != 500, "{method} {path}: {:#}", answer.body);
            count += 1;
        }
    }
    assert!(count > 45, "{count}");
}

#[tokio::test]
async fn every_documented_path_wants_the_key_that_the_document_says() {
    let plane = Plane::start().await;
    let document = plane.get("/openapi.json").await.body;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let open = operation.get("security") == Some(&json!([]));
            let method = reqwest::Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let request = plane
                .http
                .request(method.clone(), format!("{}{}", plane.url, path.replace(['{', '}'], "")));
            let answer = plane
                .send(request.header("content-type", "application/json").body("{}"))
                .await;
            assert_eq!(answer.status != 401, open, "{method} {path}: {}", answer.status);
        }
    }
}

#[tokio::test]
async fn the_pages_come_from_this_server_alone() {
    let plane = Plane::start().await;
    let get = |path: &str| plane.http.get(format!("{}{path}", plane.url));
    let page = get("/docs").send().await.unwrap();
    assert!(
        page.headers()["content-security-policy"]
            .to_str()
            .unwrap()
            .contains("default-src 'none'")
    );
    let html = page.text().await.unwrap();
    assert!(!html.contains("http://") && !html.contains("https://"), "{html}");
    let links: Vec<_> = html
        .split('"')
        .filter(|text| text.starts_with("/docs/"))
        .map(str::to_owned)
        .collect();
    assert_eq!(links.len(), 3);
    for link in links {
        let plain = get(&link).send().await.unwrap();
        assert_eq!(plain.status(), 200, "{link}");
        let size = plain.bytes().await.unwrap().len();
        let small = get(&link).header("accept-encoding", "gzip").send().await.unwrap();
        if size > 10_000 {
            assert_eq!(small.headers()["content-encoding"], "gzip", "{link}");
            assert!(small.bytes().await.unwrap().len() < size / 2);
        }
    }
    assert_eq!(get("/docs/..%2Fopenapi.json").send().await.unwrap().status(), 404);
    let text = get("/openapi.json").send().await.unwrap().text().await.unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&text).unwrap(),
        graphplane_api::openapi::document()
    );
}

#[tokio::test]
async fn the_server_says_how_it_is() {
    let plane = Plane::start().await;
    let ready = plane.get("/readyz").await.expect(200);
    assert_eq!(
        (ready.body["ready"].clone(), ready.text("/clusterId")),
        (json!(true), "test".into())
    );
    plane.get("/v1/graphs/none").await.expect(404);
    let metrics = plane.get("/metrics").await.expect(200);
    let text = metrics.body.as_str().unwrap();
    let line = r#"graphplane_api_requests_total{method="GET",route="/v1/graphs/{graph}",status="404"} 1"#;
    assert!(text.contains(line), "{text}");
    assert!(text.ends_with("# EOF\n"));
}
