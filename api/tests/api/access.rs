//! Keys, roles and tenants.

use crate::fake_agent::FakeAgent;
use crate::plane::{ADMIN, EDITOR, OTHER, Plane, VIEWER, until};
use crate::resources::karate;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

#[tokio::test]
async fn without_a_valid_key_nothing_is_shown() {
    let plane = Plane::start().await;
    let none = plane
        .send(plane.http.get(format!("{}/v1/graphs", plane.url)))
        .await
        .expect(401);
    assert_eq!(none.problem(), "unauthorized");
    assert!(none.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    let wrong = plane.call("GET", "/v1/graphs", "gp_wrong", None).await.expect(401);
    assert_eq!(wrong.problem(), "unauthorized");
    assert!(!wrong.body.to_string().contains("gp_wrong"));
    let header = plane
        .http
        .get(format!("{}/v1/graphs", plane.url))
        .header("x-api-key", VIEWER);
    plane.send(header).await.expect(200);
    for open in ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"] {
        plane
            .send(plane.http.get(format!("{}{open}", plane.url)))
            .await
            .expect(200);
    }
}

#[tokio::test]
async fn failures_are_limited_and_valid_keys_are_not() {
    let plane = Plane::start().await;
    let mut limited = None;
    for attempt in 0..60 {
        let answer = plane
            .call("GET", "/v1/graphs", &format!("gp_wrong{attempt}"), None)
            .await;
        if answer.status == 429 {
            limited = Some(answer);
            break;
        }
        assert_eq!(answer.status, 401);
    }
    let limited = limited.expect("wrong keys are limited");
    assert_eq!(limited.problem(), "rate-limited");
    assert!(limited.headers["retry-after"].to_str().unwrap().parse::<u32>().unwrap() >= 1);
    plane.get("/v1/graphs").await.expect(200);
}

#[tokio::test]
async fn roles_bound_what_a_key_does() {
    let plane = Plane::start().await;
    plane.post("/v1/graphs", karate()).await.expect(202);
    for (method, path, body) in [
        ("POST", "/v1/graphs", json!({"tier": "t"})),
        ("PATCH", "/v1/graphs/karate", json!({"suspended": true})),
        ("DELETE", "/v1/graphs/karate", Value::Null),
        ("POST", "/v1/graphs/karate/subgraphs", json!({"name": "dev"})),
        ("POST", "/v1/graphs/karate/backups", json!({})),
        ("POST", "/v1/graphs/karate/schema", json!({"type": "ddl", "ddl": "x"})),
        ("DELETE", "/v1/graphs/karate/tables/A", Value::Null),
    ] {
        let refused = plane.call(method, path, VIEWER, Some(body)).await.expect(403);
        assert_eq!(refused.problem(), "forbidden", "{method} {path}");
        assert!(refused.text("/detail").contains("`editor`"));
    }
    for path in [
        "/v1/graphs",
        "/v1/graphs/karate",
        "/v1/tiers",
        "/v1/graphs/karate/subgraphs",
    ] {
        plane.call("GET", path, VIEWER, None).await.expect(200);
    }
    for (method, path) in [
        ("GET", "/v1/nodes"),
        ("GET", "/v1/api-keys"),
        ("PATCH", "/v1/nodes/n1"),
        ("DELETE", "/v1/tiers/t"),
    ] {
        let refused = plane
            .call(method, path, EDITOR, Some(json!({"drain": true})))
            .await
            .expect(403);
        assert!(refused.text("/detail").contains("`admin`"), "{method} {path}");
    }
    let shared = json!({"name": "sec", "tier": "t", "schema": {"type": "shared"}});
    assert_eq!(
        plane.post("/v1/graphs", shared.clone()).await.expect(403).problem(),
        "forbidden"
    );
    let made = plane.call("POST", "/v1/graphs", ADMIN, Some(shared)).await.expect(202);
    assert_eq!(made.text("/resource/id"), "sec");
}

#[tokio::test]
async fn a_tenant_cannot_see_name_or_reach_another_ones_graph() {
    let plane = Plane::start().await;
    let agent = FakeAgent::start().await;
    plane.tier("t").await;
    let id = plane.serving("default", "karate", "n1", &agent.address).await;
    plane.subgraph("default", "karate", "dev").await;
    let operation = plane
        .post("/v1/graphs", json!({"name": "mine", "tier": "t"}))
        .await
        .expect(202)
        .text("/links/self");
    let cypher = json!({"cypher": "RETURN 1"});
    plane
        .post(&format!("/v1/graphs/{id}/query"), cypher.clone())
        .await
        .expect(200);

    assert_eq!(
        plane.call("GET", "/v1/graphs", OTHER, None).await.expect(200).body["items"],
        json!([])
    );
    let subgraph = format!("{id}_dev");
    let unknown = "kg00000000000000000000000000000000".to_owned();
    for graph in ["karate", id.as_str(), subgraph.as_str(), "karate_dev"] {
        for (method, path, body) in [
            ("GET", format!("/v1/graphs/{graph}"), None),
            ("PATCH", format!("/v1/graphs/{graph}"), Some(json!({"suspended": true}))),
            ("DELETE", format!("/v1/graphs/{graph}"), None),
            ("GET", format!("/v1/graphs/{graph}/subgraphs"), None),
            ("GET", format!("/v1/graphs/{graph}/subgraphs/dev"), None),
            ("GET", format!("/v1/graphs/{graph}/backups"), None),
            ("POST", format!("/v1/graphs/{graph}/query"), Some(cypher.clone())),
            ("GET", format!("/v1/graphs/{graph}/schema"), None),
            ("GET", format!("/v1/graphs/{graph}/metrics"), None),
            ("GET", format!("/v1/graphs/{graph}/tables"), None),
            ("GET", format!("/v1/graphs/{graph}/tasks"), None),
            ("PUT", format!("/v1/graphs/{graph}/tables/A/files/1"), None),
        ] {
            let refused = plane.call(method, &path, OTHER, body.clone()).await.expect(404);
            // Not even the form of the answer tells that the graph exists elsewhere.
            let nobody = graph.replace(&id, &unknown).replace("karate", "nobody");
            let nobodys = plane
                .call(method, &path.replace(graph, &nobody), OTHER, body)
                .await
                .expect(404);
            let say = |answer: &crate::plane::Answer, name: &str| answer.text("/detail").replace(name, "X");
            assert_eq!(say(&refused, graph), say(&nobodys, &nobody), "{method} {path}");
        }
    }
    assert_eq!(
        plane.call("GET", &operation, OTHER, None).await.expect(404).problem(),
        "not-found"
    );
    assert_eq!(
        plane
            .call("GET", &format!("{operation}/events"), OTHER, None)
            .await
            .expect(404)
            .problem(),
        "not-found"
    );
    for named in [
        "/v1/graphs?namespace=default",
        "/v1/graphs/karate?namespace=default",
        "/v1/graphs?namespace=nowhere",
    ] {
        assert_eq!(
            plane.call("GET", named, OTHER, None).await.expect(403).problem(),
            "forbidden"
        );
    }
    let header = plane
        .request("GET", "/v1/graphs/karate", OTHER)
        .header("x-graphplane-namespace", "default");
    assert_eq!(plane.send(header).await.expect(403).problem(), "forbidden");
    assert_eq!(agent.calls(), 1, "no call of another tenant reached the agent");

    // An admin names the tenant.
    plane.call("GET", "/v1/graphs/karate", ADMIN, None).await.expect(200);
    plane
        .call("GET", "/v1/graphs/karate?namespace=team-b", ADMIN, None)
        .await
        .expect(404);
    assert_eq!(
        plane
            .call("GET", "/v1/graphs?namespace=..", ADMIN, None)
            .await
            .expect(400)
            .problem(),
        "malformed"
    );
}

#[tokio::test]
async fn a_task_of_another_tenant_on_the_same_node_does_not_exist() {
    let plane = Plane::start().await;
    let agent = FakeAgent::start().await;
    plane.tier("t").await;
    let mine = plane.serving("default", "karate", "n1", &agent.address).await;
    let theirs = plane.serving("team-b", "chess", "n1", &agent.address).await;
    let task = |id: &str| format!("ingestion_{id}_A_0a1b2c3d");
    plane
        .get(&format!("/v1/graphs/karate/tasks/{}", task(&mine)))
        .await
        .expect(200);
    assert_eq!(agent.last().line, format!("GET /tasks/{}/status", task(&mine)));
    let calls = agent.calls();
    for (method, path) in [("GET", ""), ("GET", "/status"), ("GET", "/monitor"), ("DELETE", "")] {
        let path = format!("/v1/graphs/karate/tasks/{}{path}", task(&theirs));
        assert_eq!(
            plane.call(method, &path, EDITOR, None).await.expect(404).problem(),
            "not-found"
        );
    }
    assert_eq!(agent.calls(), calls);
    assert_eq!(
        plane.get("/v1/graphs/karate/tasks").await.expect(200).body,
        json!([]),
        "the list has others' tasks only"
    );
    let source = json!({"source_graph_id": theirs});
    let refused = plane
        .post("/v1/graphs/karate/tables/A/materialize", source)
        .await
        .expect(422);
    assert_eq!(refused.text("/errors/0/field"), "source_graph_id");
}

#[tokio::test]
async fn a_graph_id_that_was_given_away_before_is_not_taken_over() {
    let plane = Plane::start().await;
    let agent = FakeAgent::start().await;
    plane.tier("t").await;
    let id = plane.serving("default", "karate", "n1", &agent.address).await;
    // Creation times have a resolution of one second.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    plane.serving("team-b", "thief", "n1", &agent.address).await;
    plane
        .graph_status(
            "team-b",
            "thief",
            json!({"graphId": id}),
            &[("DatabaseReady", "True", "DatabaseCreated")],
        )
        .await;
    let query = json!({"cypher": "MATCH (n) RETURN n"});
    let refused = crate::plane::until("the claim is known", async || {
        let answer = plane
            .call("POST", "/v1/graphs/thief/query", OTHER, Some(query.clone()))
            .await;
        (answer.status == 409).then_some(answer)
    })
    .await;
    assert_eq!(refused.problem(), "conflict");
    plane.post("/v1/graphs/karate/query", query).await.expect(200);
}

#[tokio::test]
async fn keys_are_made_listed_and_deleted() {
    let plane = Plane::start().await;
    let wanted = json!({"name": "loader", "role": "editor", "namespace": "team-c"});
    let created = plane
        .call("POST", "/v1/api-keys", ADMIN, Some(wanted))
        .await
        .expect(201);
    let (key, id) = (created.text("/key"), created.text("/id"));
    assert_eq!(created.headers["cache-control"], "no-store");
    assert_eq!(
        created.headers["location"].to_str().unwrap(),
        format!("/v1/api-keys/{id}")
    );
    // The key works at once, for its tenant, which was made with it.
    plane
        .call("POST", "/v1/graphs", &key, Some(json!({"name": "g", "tier": "t"})))
        .await
        .expect(202);
    assert!(plane.graphs("team-c").get_opt("g").await.unwrap().is_some());
    assert_eq!(
        plane.call("GET", "/v1/nodes", &key, None).await.expect(403).problem(),
        "forbidden"
    );

    let list = plane.call("GET", "/v1/api-keys", ADMIN, None).await.expect(200);
    assert_eq!(
        (
            list.text("/items/0/name"),
            list.text("/items/0/role"),
            list.text("/items/0/namespace")
        ),
        ("loader".into(), "editor".into(), "team-c".into())
    );
    assert!(!list.body.to_string().contains(&key));
    let stored = plane
        .system::<k8s_openapi::api::core::v1::Secret>()
        .get(&format!("api-key-{id}"))
        .await
        .unwrap();
    assert!(
        !serde_json::to_string(&stored).unwrap().contains(&key),
        "only the hash is stored"
    );

    plane
        .call("DELETE", &format!("/v1/api-keys/{id}"), ADMIN, None)
        .await
        .expect(204);
    assert_eq!(
        plane.call("GET", "/v1/graphs", &key, None).await.expect(401).problem(),
        "unauthorized"
    );
    assert_eq!(
        plane
            .call("DELETE", &format!("/v1/api-keys/{id}"), ADMIN, None)
            .await
            .expect(404)
            .problem(),
        "not-found"
    );
    for (body, field) in [
        (json!({"name": "x", "role": "root"}), "role"),
        (
            json!({"name": "x", "role": "editor", "namespace": "graphplane-system"}),
            "namespace",
        ),
        (json!({"name": "x", "role": "editor", "namespace": "../x"}), "namespace"),
        (json!({"name": " ", "role": "editor"}), "name"),
    ] {
        let refused = plane.call("POST", "/v1/api-keys", ADMIN, Some(body)).await.expect(422);
        assert_eq!(refused.text("/errors/0/field"), field);
    }
}

#[tokio::test]
async fn a_key_may_be_made_with_kubectl() {
    let plane = Plane::start().await;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "mine", "labels": {"graphplane.dev/purpose": "api-key"}},
        "stringData": {"sha256": hex::encode(Sha256::digest("gp_mine")), "role": "viewer", "namespace": "team-b"},
    });
    plane
        .system::<Secret>()
        .create(&PostParams::default(), &serde_json::from_value(secret).unwrap())
        .await
        .unwrap();
    until("the key is known", async || {
        (plane.call("GET", "/v1/graphs", "gp_mine", None).await.status == 200).then_some(())
    })
    .await;
    let graph = json!({"name": "g", "tier": "t"});
    let refused = plane.call("POST", "/v1/graphs", "gp_mine", Some(graph)).await;
    assert_eq!(refused.expect(403).problem(), "forbidden");
}
