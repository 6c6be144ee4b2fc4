//! Graphs, subgraphs, backups and tiers, from creation to deletion.

use crate::plane::{ADMIN, EDITOR, Plane, VIEWER, until};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub(crate) fn karate() -> Value {
    json!({
        "name": "karate", "tier": "t", "displayName": "Karate club",
        "schema": {"type": "custom", "ddl": "CREATE NODE TABLE Member(id INT64 PRIMARY KEY);"},
        "storage": {"sizeGiB": 10}, "deletionPolicy": "Delete", "labels": {"team": "a"},
    })
}

#[tokio::test]
async fn a_graph_is_created_followed_shown_and_deleted() {
    let plane = Plane::start().await;
    plane.tier("t").await;
    let created = plane.post("/v1/graphs", karate()).await.expect(202);
    let location = created.headers["location"].to_str().unwrap().to_owned();
    assert_eq!(location, format!("/v1/operations/{}", created.text("/id")));
    assert_eq!(
        (created.text("/operation"), created.text("/status")),
        ("createGraph".into(), "pending".into())
    );
    let id = created.text("/resource/id");
    assert!(id.starts_with("kg") && id.len() == 34, "{id}");

    let object = plane.graphs("default").get("karate").await.unwrap();
    assert_eq!(object.spec.graph_id.as_ref().unwrap().as_str(), id);
    assert_eq!(object.spec.storage.size_gib.0, 10);

    plane
        .graph_status(
            "default",
            "karate",
            json!({"graphId": id}),
            &[
                ("Placed", "True", "Placed"),
                ("DatabaseReady", "False", "CreatingDatabase"),
            ],
        )
        .await;
    let running = plane.get(&location).await.expect(200);
    assert_eq!(
        (running.text("/status"), running.text("/stage"), running.text("/reason")),
        ("running".into(), "DatabaseReady".into(), "CreatingDatabase".into())
    );
    assert_eq!(running.body["done"], false);
    plane
        .graph_status(
            "default",
            "karate",
            json!({"phase": "Ready"}),
            &[("Ready", "True", "Ready")],
        )
        .await;
    let done = plane.get(&location).await.expect(200);
    assert_eq!(
        (done.text("/status"), done.body["progressPercent"].clone()),
        ("completed".into(), json!(100))
    );

    for path in [format!("/v1/graphs/{id}"), "/v1/graphs/karate".to_owned()] {
        let graph = plane.get(&path).await.expect(200);
        assert_eq!(
            (graph.text("/id"), graph.text("/name"), graph.text("/phase")),
            (id.clone(), "karate".into(), "Ready".into())
        );
        assert_eq!(graph.body["ready"], true);
        assert_eq!(graph.body["labels"], json!({"team": "a"}));
        assert!(graph.headers.contains_key("etag"));
    }
    let list = plane.get("/v1/graphs").await.expect(200);
    assert_eq!(list.body["items"].as_array().unwrap().len(), 1);
    assert_eq!(
        plane.get("/v1/graphs?tier=other").await.expect(200).body["items"],
        json!([])
    );

    let deleted = plane
        .call("DELETE", "/v1/graphs/karate", EDITOR, None)
        .await
        .expect(202);
    assert_eq!(deleted.text("/operation"), "deleteGraph");
    assert_eq!(plane.get("/v1/graphs/karate").await.expect(404).problem(), "not-found");
    let gone = plane.get(&deleted.text("/links/self")).await.expect(200);
    assert_eq!(
        gone.text("/status"),
        "completed",
        "an operation stays valid after its object is gone"
    );
    let lost = plane.get(&location).await.expect(200);
    assert_eq!(
        (lost.text("/status"), lost.text("/reason")),
        ("failed".into(), "Deleted".into())
    );
}

#[tokio::test]
async fn deletion_waits_for_the_finalizer_and_protection_comes_first() {
    let plane = Plane::start().await;
    plane
        .post("/v1/graphs", json!({"name": "g", "tier": "t"}))
        .await
        .expect(202);
    let guard = json!({"metadata": {
        "finalizers": ["graphplane.dev/finalizer"], "annotations": {"graphplane.dev/deletion-protection": "true"}}});
    let (graphs, params) = (plane.graphs("default"), PatchParams::default());
    graphs.patch("g", &params, &Patch::Merge(&guard)).await.unwrap();
    let refused = plane.call("DELETE", "/v1/graphs/g", EDITOR, None).await.expect(409);
    assert_eq!(refused.problem(), "deletion-protected");
    assert!(graphs.get("g").await.unwrap().metadata.deletion_timestamp.is_none());

    let free = json!({"metadata": {"annotations": {"graphplane.dev/deletion-protection": null}}});
    graphs.patch("g", &params, &Patch::Merge(&free)).await.unwrap();
    let operation = plane
        .call("DELETE", "/v1/graphs/g", EDITOR, None)
        .await
        .expect(202)
        .text("/links/self");
    plane
        .graph_status("default", "g", json!({}), &[("Deleting", "True", "FinalSnapshot")])
        .await;
    let running = plane.get(&operation).await.expect(200);
    assert_eq!(
        (running.text("/status"), running.text("/reason")),
        ("running".into(), "FinalSnapshot".into())
    );
    assert!(plane.get("/v1/graphs/g").await.expect(200).body["deletingSince"].is_string());
    graphs
        .patch("g", &params, &Patch::Merge(&json!({"metadata": {"finalizers": null}})))
        .await
        .unwrap();
    let done = until("the object is gone", async || {
        let operation = plane.get(&operation).await.expect(200);
        (operation.body["done"] == true).then_some(operation)
    })
    .await;
    assert_eq!(done.text("/status"), "completed");
}

#[tokio::test]
async fn a_graph_changes_only_if_it_is_what_the_client_thinks() {
    let plane = Plane::start().await;
    plane.post("/v1/graphs", karate()).await.expect(202);
    let tag = plane.get("/v1/graphs/karate").await.headers["etag"].clone();
    let change = |tag: &http::HeaderValue, body: Value| {
        let request = plane
            .request("PATCH", "/v1/graphs/karate", EDITOR)
            .header("if-match", tag.clone());
        plane.send(
            request
                .header("content-type", "application/merge-patch+json")
                .body(body.to_string()),
        )
    };
    let changed = change(
        &tag,
        json!({"suspended": true, "displayName": null, "labels": {"team": null}}),
    )
    .await
    .expect(202);
    assert_eq!(changed.text("/operation"), "updateGraph");
    let graph = plane.get("/v1/graphs/karate").await;
    assert_eq!(
        (
            graph.body["suspended"].clone(),
            graph.body.get("displayName"),
            graph.body.get("labels")
        ),
        (json!(true), None, None)
    );
    assert_eq!(
        change(&tag, json!({"suspended": false})).await.expect(412).problem(),
        "precondition-failed"
    );

    // The operation is done when the operator has seen this change, not an earlier one.
    let operation = changed.text("/links/self");
    assert_eq!(plane.get(&operation).await.text("/status"), "pending");
    plane
        .graph_status("default", "karate", json!({}), &[("Ready", "False", "Suspended")])
        .await;
    assert_eq!(plane.get(&operation).await.text("/status"), "completed");

    let smaller = plane
        .call(
            "PATCH",
            "/v1/graphs/karate",
            EDITOR,
            Some(json!({"storage": {"sizeGiB": 5}})),
        )
        .await
        .expect(422);
    assert!(
        smaller.text("/errors/0/detail").contains("may only grow"),
        "{:#}",
        smaller.body
    );
    assert!(
        smaller.text("/errors/0/field").starts_with("storage"),
        "{:#}",
        smaller.body
    );
}

#[tokio::test]
async fn subgraphs_live_below_their_graph() {
    let plane = Plane::start().await;
    let id = plane
        .post("/v1/graphs", karate())
        .await
        .expect(202)
        .text("/resource/id");
    for name in ["dev", "Dev"] {
        let created = plane
            .post("/v1/graphs/karate/subgraphs", json!({"name": name, "type": "empty"}))
            .await
            .expect(202);
        assert_eq!(created.text("/operation"), "createSubgraph");
    }
    let again = plane
        .post(&format!("/v1/graphs/{id}/subgraphs"), json!({"name": "dev"}))
        .await
        .expect(409);
    assert_eq!(again.problem(), "already-exists");
    let wrong = plane
        .post("/v1/graphs/karate/subgraphs", json!({"name": "a-b"}))
        .await
        .expect(422);
    assert_eq!(
        (wrong.text("/errors/0/field"), wrong.text("/errors/0/value")),
        ("name".into(), "a-b".into())
    );
    let rule = plane
        .post(
            "/v1/graphs/karate/subgraphs",
            json!({"name": "x", "type": "memory", "forkParent": true}),
        )
        .await
        .expect(422);
    assert!(
        rule.text("/errors/0/detail").contains("can fork its parent"),
        "{:#}",
        rule.body
    );

    let list = plane.get(&format!("/v1/graphs/{id}/subgraphs")).await.expect(200);
    let ids: BTreeSet<_> = list.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids, [format!("{id}_dev"), format!("{id}_Dev")].into());
    let one = plane.get("/v1/graphs/karate/subgraphs/Dev").await.expect(200);
    assert_eq!(
        (one.text("/name"), one.text("/type"), one.text("/graph")),
        ("Dev".into(), "empty".into(), "karate".into())
    );
    let changed = plane
        .call(
            "PATCH",
            "/v1/graphs/karate/subgraphs/Dev",
            EDITOR,
            Some(json!({"deletionPolicy": "Delete"})),
        )
        .await;
    assert_eq!(changed.expect(202).text("/operation"), "updateSubgraph");
    let deleted = plane
        .call("DELETE", "/v1/graphs/karate/subgraphs/Dev", EDITOR, None)
        .await
        .expect(202);
    assert_eq!(
        plane.get(&deleted.text("/links/self")).await.text("/status"),
        "completed"
    );
    assert_eq!(
        plane.get("/v1/graphs/karate/subgraphs/Dev").await.expect(404).problem(),
        "not-found"
    );
    assert_eq!(plane.get("/v1/graphs/karate/subgraphs/dev").await.status, 200);
    assert_eq!(
        plane.get("/v1/graphs/none/subgraphs").await.expect(404).problem(),
        "not-found"
    );
}

#[tokio::test]
async fn backups_belong_to_their_graph() {
    let plane = Plane::start().await;
    for name in ["karate", "chess"] {
        plane
            .post("/v1/graphs", json!({"name": name, "tier": "t"}))
            .await
            .expect(202);
    }
    let started = plane
        .post("/v1/graphs/karate/backups", json!({"retentionDays": 7}))
        .await
        .expect(202);
    let name = started.text("/resource/name");
    assert!(name.starts_with("karate-"), "{name}");
    let api = kube::Api::<graphplane_crds::Backup>::namespaced(plane.client.clone(), "default");
    let status = json!({"status": {"phase": "Completed", "sizeBytes": 12, "sha256": "ab"}});
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
        .await
        .unwrap();
    assert_eq!(
        plane.get(&started.text("/links/self")).await.text("/status"),
        "completed"
    );
    let shown = plane
        .get(&format!("/v1/graphs/karate/backups/{name}"))
        .await
        .expect(200);
    assert_eq!(
        (shown.text("/phase"), shown.body["sizeBytes"].clone()),
        ("Completed".into(), json!(12))
    );
    assert_eq!(
        plane.get("/v1/graphs/karate/backups").await.body["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(plane.get("/v1/graphs/chess/backups").await.body["items"], json!([]));
    assert_eq!(
        plane
            .get(&format!("/v1/graphs/chess/backups/{name}"))
            .await
            .expect(404)
            .problem(),
        "not-found"
    );
    let unknown = plane
        .post("/v1/graphs/karate/backups", json!({"subgraph": "dev"}))
        .await
        .expect(422);
    assert_eq!(unknown.text("/errors/0/field"), "subgraph");
}

#[tokio::test]
async fn tiers_are_seen_by_all_and_changed_by_admins() {
    let plane = Plane::start().await;
    let spec = json!({"memory": {"nodeMiB": 1024, "perDatabaseMiB": 128}, "databasesPerNode": 2});
    assert_eq!(
        plane
            .call("PUT", "/v1/tiers/small", EDITOR, Some(spec.clone()))
            .await
            .expect(403)
            .problem(),
        "forbidden"
    );
    plane
        .call("PUT", "/v1/tiers/small?dryRun=All", ADMIN, Some(spec.clone()))
        .await
        .expect(200);
    assert_eq!(plane.get("/v1/tiers/small").await.expect(404).problem(), "not-found");
    plane
        .call("PUT", "/v1/tiers/small", ADMIN, Some(spec))
        .await
        .expect(200);
    let changed = json!({"memory": {"nodeMiB": 1024, "perDatabaseMiB": 2048}, "databasesPerNode": 2});
    let refused = plane
        .call("PUT", "/v1/tiers/small", ADMIN, Some(changed))
        .await
        .expect(422);
    assert!(
        refused
            .text("/errors/0/detail")
            .contains("perDatabaseMiB must not exceed"),
        "{:#}",
        refused.body
    );
    let shown = plane.call("GET", "/v1/tiers/small", VIEWER, None).await.expect(200);
    assert_eq!(shown.body["spec"]["databasesPerNode"], 2);
    assert!(shown.body.get("status").is_none());

    plane
        .post("/v1/graphs", json!({"name": "g", "tier": "small"}))
        .await
        .expect(202);
    assert_eq!(
        plane
            .call("DELETE", "/v1/tiers/small", ADMIN, None)
            .await
            .expect(409)
            .problem(),
        "conflict"
    );
    plane
        .graphs("default")
        .delete("g", &DeleteParams::default())
        .await
        .unwrap();
    plane.call("DELETE", "/v1/tiers/small", ADMIN, None).await.expect(204);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let plane = Plane::start().await;
    for n in 0..7 {
        plane
            .post("/v1/graphs", json!({"name": format!("g{n}"), "tier": "t"}))
            .await
            .expect(202);
    }
    let (mut names, mut path, mut pages) = (Vec::new(), "/v1/graphs?limit=3".to_owned(), 0);
    loop {
        let page = plane.get(&path).await.expect(200);
        pages += 1;
        names.extend(
            page.body["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["name"].as_str().unwrap().to_owned()),
        );
        let Some(token) = page.body["continue"].as_str() else {
            break;
        };
        assert!(page.headers["link"].to_str().unwrap().contains("rel=\"next\""));
        path = format!("/v1/graphs?limit=3&continue={token}");
    }
    assert_eq!((names, pages), ((0..7).map(|n| format!("g{n}")).collect(), 3));

    let token = plane.get("/v1/graphs?limit=3").await.text("/continue");
    for wrong in [
        format!("/v1/tiers?continue={token}"),
        format!("/v1/graphs?tier=t&continue={token}"),
        "/v1/graphs?continue=abc".into(),
        "/v1/graphs?limit=0".into(),
    ] {
        let refused = plane.send(plane.request("GET", &wrong, EDITOR)).await.expect(400);
        assert_eq!(refused.problem(), "malformed", "{wrong}");
        assert!(["limit", "continue"].contains(&refused.text("/errors/0/field").as_str()));
    }
    let all = plane.graphs("default").list(&ListParams::default()).await.unwrap();
    assert_eq!(all.items.len(), 7);
}

#[tokio::test]
async fn a_page_of_a_list_that_the_server_forgot_is_gone() {
    let plane = Plane::forgetful(5).await;
    plane.tier("t").await;
    for name in ["a", "b", "c"] {
        plane
            .post("/v1/graphs", json!({"name": name, "tier": "t"}))
            .await
            .expect(202);
    }
    let next = format!(
        "/v1/graphs?limit=1&continue={}",
        plane.get("/v1/graphs?limit=1").await.text("/continue")
    );
    let second = plane.get(&next).await.expect(200);
    assert_eq!(second.text("/items/0/name"), "b");
    for n in 0..10 {
        let text = json!({"displayName": format!("after {n}")});
        plane
            .call("PATCH", "/v1/graphs/a", EDITOR, Some(text))
            .await
            .expect(202);
    }
    assert_eq!(plane.get(&next).await.expect(410).problem(), "expired");
    // As the answer advises: from the beginning it works.
    let first = plane.get("/v1/graphs?limit=1").await.expect(200);
    assert_eq!(first.text("/items/0/displayName"), "after 9");
}

#[tokio::test]
async fn nodes_and_volumes_are_for_admins() {
    let plane = Plane::start().await;
    plane.node("n1", "token", 3).await;
    for path in ["/v1/nodes", "/v1/nodes/n1", "/v1/volumes", "/v1/volumes/v1"] {
        assert_eq!(plane.get(path).await.expect(403).problem(), "forbidden", "{path}");
    }
    let list = plane.call("GET", "/v1/nodes", ADMIN, None).await.expect(200);
    assert_eq!(
        (
            list.text("/items/0/name"),
            list.body["items"][0]["status"]["epoch"].clone()
        ),
        ("n1".into(), json!(3))
    );
    assert_eq!(
        plane.call("GET", "/v1/volumes", ADMIN, None).await.expect(200).body["items"],
        json!([])
    );
    assert_eq!(
        plane
            .call("GET", "/v1/volumes/v1", ADMIN, None)
            .await
            .expect(404)
            .problem(),
        "not-found"
    );
    for drain in [true, false] {
        let node = plane
            .call("PATCH", "/v1/nodes/n1", ADMIN, Some(json!({ "drain": drain })))
            .await
            .expect(200);
        assert_eq!(node.body["draining"], drain);
    }
}
