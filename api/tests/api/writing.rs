//! What all writes have in common: errors that name fields, dry runs, idempotency.

use crate::plane::{EDITOR, Plane, until};
use crate::resources::karate;
use kube::api::ListParams;
use serde_json::{Value, json};

async fn count(plane: &Plane) -> usize {
    plane
        .graphs("default")
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .len()
}

#[tokio::test]
async fn every_refusal_names_field_and_value() {
    let plane = Plane::start().await;
    let cases: [(Value, &str, Value); 9] = [
        (json!({"name": "g"}), "tier", Value::Null),
        (json!({"tier": 7}), "tier", json!(7)),
        (
            json!({"tier": "t", "schema": {"type": "weird"}}),
            "schema.type",
            json!("weird"),
        ),
        (
            json!({"tier": "t", "storage": {"sizeGiB": "ten"}}),
            "storage.sizeGiB",
            json!("ten"),
        ),
        (
            json!({"tier": "t", "storage": {"sizeGiB": 0}}),
            "storage.sizeGiB",
            json!(0),
        ),
        (json!({"tier": "A B", "name": "g"}), "tier", json!("A B")),
        (json!({"tier": "t", "name": "Bad_Name"}), "name", json!("Bad_Name")),
        (
            json!({"tier": "t", "deletionPolicy": "Destroy"}),
            "deletionPolicy",
            json!("Destroy"),
        ),
        (
            json!({"tier": "t", "storage": {"size": 1}}),
            "storage.size",
            Value::Null,
        ),
    ];
    for (body, field, value) in cases {
        let refused = plane.post("/v1/graphs", body.clone()).await.expect(422);
        assert_eq!(refused.problem(), "invalid");
        let errors = refused.body["errors"].as_array().unwrap();
        let error = errors.iter().find(|error| error["field"] == field);
        let error = error.unwrap_or_else(|| panic!("{field} of {body}: {:#}", refused.body));
        assert_eq!(
            error.get("value").unwrap_or(&Value::Null),
            &value,
            "{field}: {:#}",
            refused.body
        );
        assert!(refused.text("/detail").contains(field), "{:#}", refused.body);
        assert!(!error["detail"].as_str().unwrap().is_empty());
    }
    assert_eq!(count(&plane).await, 0, "nothing is half-created");
}

#[tokio::test]
async fn requests_that_cannot_be_read_are_problems_too() {
    let plane = Plane::start().await;
    let send = |body: &'static str, content_type: &'static str| {
        plane.send(
            plane
                .request("POST", "/v1/graphs", EDITOR)
                .header("content-type", content_type)
                .body(body),
        )
    };
    assert_eq!(send("{", "application/json").await.expect(400).problem(), "malformed");
    assert_eq!(send("", "application/json").await.expect(400).problem(), "malformed");
    assert_eq!(send("[]", "application/json").await.expect(422).problem(), "invalid");
    assert_eq!(
        send("{}", "text/plain").await.expect(415).problem(),
        "unsupported-media-type"
    );
    let large = json!({"tier": "t", "description": "x".repeat(3 << 20)});
    assert_eq!(plane.post("/v1/graphs", large).await.expect(413).problem(), "too-large");
    assert_eq!(plane.get("/v1/nothing").await.expect(404).problem(), "no-such-route");
    let wrong = plane.call("PUT", "/v1/graphs", EDITOR, None).await.expect(405);
    assert_eq!(wrong.problem(), "method-not-allowed");
    assert!(wrong.headers["allow"].to_str().unwrap().contains("POST"));
    assert_eq!(wrong.text("/instance"), "/v1/graphs");
    assert_eq!(
        wrong.text("/requestId"),
        wrong.headers["x-request-id"].to_str().unwrap()
    );
    let given = plane
        .send(
            plane
                .request("GET", "/v1/graphs", EDITOR)
                .header("x-request-id", "mine-1"),
        )
        .await;
    assert_eq!(given.headers["x-request-id"], "mine-1");
    let odd = plane
        .send(
            plane
                .request("GET", "/v1/graphs", EDITOR)
                .header("x-request-id", "a b\"c"),
        )
        .await;
    assert_ne!(odd.headers["x-request-id"], "a b\"c");
}

#[tokio::test]
async fn names_cannot_leave_their_place() {
    let plane = Plane::start().await;
    for path in [
        "/v1/graphs/..%2F..%2Fsecrets",
        "/v1/graphs/A%20B",
        "/v1/graphs/%F0%9F%92%A9",
        "/v1/graphs/x%3Fwatch=true",
    ] {
        assert_eq!(plane.get(path).await.expect(404).problem(), "not-found", "{path}");
    }
    assert!([400, 404].contains(&plane.get("/v1/graphs/%FF").await.status));
}

#[tokio::test]
async fn a_dry_run_checks_everything_and_writes_nothing() {
    let plane = Plane::start().await;
    let dry = plane.post("/v1/graphs?dryRun=All", karate()).await.expect(200);
    assert_eq!(
        (dry.text("/name"), dry.text("/deletionPolicy")),
        ("karate".into(), "Delete".into())
    );
    assert!(!dry.headers.contains_key("location"));
    assert_eq!(count(&plane).await, 0);
    let refused = plane
        .post(
            "/v1/graphs?dryRun=All",
            json!({"tier": "t", "schema": {"type": "custom"}}),
        )
        .await
        .expect(422);
    assert!(
        refused.text("/detail").contains("ddl is required"),
        "{:#}",
        refused.body
    );
    assert_eq!(
        plane
            .post("/v1/graphs?dryRun=yes", karate())
            .await
            .expect(400)
            .text("/errors/0/field"),
        "dryRun"
    );

    plane.post("/v1/graphs", karate()).await.expect(202);
    let change = plane
        .call(
            "PATCH",
            "/v1/graphs/karate?dryRun=All",
            EDITOR,
            Some(json!({"suspended": true})),
        )
        .await
        .expect(200);
    assert_eq!(change.body["suspended"], true);
    plane
        .call("DELETE", "/v1/graphs/karate?dryRun=All", EDITOR, None)
        .await
        .expect(200);
    let graph = plane.get("/v1/graphs/karate").await.expect(200);
    assert_eq!(graph.body["suspended"], false);
    assert!(graph.body.get("deletingSince").is_none());
}

#[tokio::test]
async fn a_repeated_request_gives_the_same_answer() {
    let plane = Plane::start().await;
    let send = |key: &'static str, body: Value| {
        plane.send(
            plane
                .request("POST", "/v1/graphs", EDITOR)
                .header("idempotency-key", key)
                .json(&body),
        )
    };
    let first = send("k1", karate()).await.expect(202);
    let again = send("k1", karate()).await.expect(202);
    assert_eq!(first.text("/id"), again.text("/id"));
    assert_eq!(first.headers["location"], again.headers["location"]);
    assert_eq!(first.text("/resource/id"), again.text("/resource/id"));
    assert!(!first.headers.contains_key("idempotent-replayed"));
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(count(&plane).await, 1);

    let mut other = karate();
    other["name"] = json!("chess");
    assert_eq!(
        send("k1", other.clone()).await.expect(409).problem(),
        "idempotency-mismatch"
    );
    assert_eq!(send("k2", karate()).await.expect(409).problem(), "already-exists");
    send("k2", other).await.expect(202);

    // Without a name every request would make another graph.
    let nameless = json!({"tier": "t"});
    let (one, two) = (
        send("k3", nameless.clone()).await.expect(202),
        send("k3", nameless).await.expect(202),
    );
    assert_eq!(one.text("/resource/name"), two.text("/resource/name"));
    assert_eq!(count(&plane).await, 3);
}

#[tokio::test]
async fn simultaneous_repetitions_make_one_object() {
    let plane = Plane::start().await;
    let requests = (0..8).map(|_| {
        let request = plane
            .request("POST", "/v1/graphs", EDITOR)
            .header("idempotency-key", "same")
            .json(&json!({"tier": "t"}));
        plane.send(request)
    });
    let answers = futures::future::join_all(requests).await;
    let ids: std::collections::BTreeSet<_> = answers
        .into_iter()
        .map(|answer| answer.expect(202).text("/id"))
        .collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(count(&plane).await, 1);
}

#[tokio::test]
async fn other_kinds_are_idempotent_too() {
    let plane = Plane::start().await;
    plane.post("/v1/graphs", karate()).await.expect(202);
    for (path, body) in [
        ("/v1/graphs/karate/subgraphs", json!({"name": "dev"})),
        ("/v1/graphs/karate/backups", json!({})),
    ] {
        let send = || {
            plane.send(
                plane
                    .request("POST", path, EDITOR)
                    .header("idempotency-key", "k")
                    .json(&body),
            )
        };
        let (first, again) = (send().await.expect(202), send().await.expect(202));
        assert_eq!(first.text("/id"), again.text("/id"), "{path}");
    }
    let backups = until("the backup is there", async || {
        let items = plane.get("/v1/graphs/karate/backups").await.expect(200).body["items"]
            .as_array()
            .unwrap()
            .len();
        (items > 0).then_some(items)
    })
    .await;
    assert_eq!(backups, 1);
}
