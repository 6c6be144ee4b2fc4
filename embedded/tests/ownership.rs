//! What goes when something else goes: owners and dependents, namespaces, definitions, Events.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{Fixture, WIDGETS, widget};
use http::Method;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A ConfigMap that belongs to these Widgets.
fn owned(name: &str, owners: &[&Value], block: bool) -> Value {
    let owners: Vec<Value> = owners
        .iter()
        .map(|o| {
            json!({"apiVersion": "test.dev/v1", "kind": "Widget", "name": o["metadata"]["name"],
            "uid": o["metadata"]["uid"], "blockOwnerDeletion": block})
        })
        .collect();
    json!({"metadata": {"name": name, "ownerReferences": owners}})
}

async fn exists(f: &Fixture, path: &str) -> bool {
    f.call(Method::GET, path, None).await.0 == 200
}

#[tokio::test]
async fn dependents_go_after_their_last_owner() {
    let f = Fixture::new().await;
    let (a, b) = (f.post(WIDGETS, &widget("a")).await, f.post(WIDGETS, &widget("b")).await);
    f.post(MAPS, &owned("of-a", &[&a], false)).await;
    f.post(MAPS, &owned("of-both", &[&a, &b], false)).await;
    f.post(MAPS, &json!({"metadata": {"name": "free"}})).await;
    f.delete(&format!("{WIDGETS}/a")).await;
    f.gone(&format!("{MAPS}/of-a")).await;
    f.eventually("the reference to a is gone", async || {
        f.get(&format!("{MAPS}/of-both")).await["metadata"]["ownerReferences"]
            .as_array()
            .unwrap()
            .len()
            == 1
    })
    .await;
    f.delete(&format!("{WIDGETS}/b")).await;
    f.gone(&format!("{MAPS}/of-both")).await;
    assert!(exists(&f, &format!("{MAPS}/free")).await);
    // Born without a living owner.
    f.post(MAPS, &owned("late", &[&a], false)).await;
    f.gone(&format!("{MAPS}/late")).await;
}

#[tokio::test]
async fn unknown_owners_protect() {
    let f = Fixture::new().await;
    let owner = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "x", "uid": "1234"});
    f.post(MAPS, &json!({"metadata": {"name": "m", "ownerReferences": [owner]}}))
        .await;
    let a = f.post(WIDGETS, &widget("a")).await;
    f.post(MAPS, &owned("n", &[&a], false)).await;
    f.delete(&format!("{WIDGETS}/a")).await;
    f.gone(&format!("{MAPS}/n")).await;
    assert!(
        exists(&f, &format!("{MAPS}/m")).await,
        "nothing is known about Deployments here"
    );
}

#[tokio::test]
async fn in_the_foreground_dependents_go_first() {
    let f = Fixture::new().await;
    let a = f.post(WIDGETS, &widget("a")).await;
    let mut held = owned("held", &[&a], true);
    held["metadata"]["finalizers"] = json!(["test.dev/hold"]);
    f.post(MAPS, &held).await;
    f.post(MAPS, &owned("quick", &[&a], true)).await;
    let (_, pending) = f
        .call(
            Method::DELETE,
            &format!("{WIDGETS}/a"),
            Some(&json!({"propagationPolicy": "Foreground"})),
        )
        .await;
    assert_eq!(pending["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    f.gone(&format!("{MAPS}/quick")).await;
    f.eventually("held is being deleted", async || {
        f.get(&format!("{MAPS}/held")).await["metadata"]["deletionTimestamp"].is_string()
    })
    .await;
    assert!(exists(&f, &format!("{WIDGETS}/a")).await, "the owner waits");
    f.call(
        Method::PATCH,
        &format!("{MAPS}/held"),
        Some(&json!({"metadata": {"finalizers": null}})),
    )
    .await;
    f.gone(&format!("{WIDGETS}/a")).await;
    assert!(!exists(&f, &format!("{MAPS}/held")).await);
}

#[tokio::test]
async fn orphans_are_released() {
    let f = Fixture::new().await;
    let a = f.post(WIDGETS, &widget("a")).await;
    f.post(MAPS, &owned("m", &[&a], true)).await;
    f.delete(&format!("{WIDGETS}/a?propagationPolicy=Orphan")).await;
    f.gone(&format!("{WIDGETS}/a")).await;
    let map = f.get(&format!("{MAPS}/m")).await;
    assert!(map["metadata"].get("ownerReferences").is_none(), "{map}");
    let (status, _) = f
        .call(Method::DELETE, &format!("{MAPS}/m?propagationPolicy=Sideways"), None)
        .await;
    assert_eq!(status, 422);
}

#[tokio::test]
async fn garbage_of_before_a_restart_is_collected() {
    let f = Fixture::new().await;
    let a = f.post(WIDGETS, &widget("a")).await;
    f.post(MAPS, &owned("m", &[&a], false)).await;
    // Shut down as soon as the deletion is acknowledged: the collector may or may not have come to it.
    f.delete(&format!("{WIDGETS}/a")).await;
    let f = f.reopened().await;
    f.gone(&format!("{MAPS}/m")).await;
}

#[tokio::test]
async fn a_namespace_takes_its_content_along() {
    let f = Fixture::new().await;
    let created = f
        .post("/api/v1/namespaces", &json!({"metadata": {"name": "team"}}))
        .await;
    assert_eq!(created["status"]["phase"], "Active");
    assert_eq!(created["metadata"]["labels"]["kubernetes.io/metadata.name"], "team");
    let widgets = "/apis/test.dev/v1/namespaces/team/widgets";
    let mut held = widget("held");
    held["metadata"]["finalizers"] = json!(["test.dev/hold"]);
    f.post(widgets, &held).await;
    f.post(widgets, &widget("plain")).await;
    f.post("/api/v1/namespaces/team/secrets", &json!({"metadata": {"name": "s"}}))
        .await;
    let pending = f.delete("/api/v1/namespaces/team").await;
    assert_eq!(pending["status"]["phase"], "Terminating");
    f.gone(&format!("{widgets}/plain")).await;
    f.gone("/api/v1/namespaces/team/secrets/s").await;
    let (status, body) = f.call(Method::POST, widgets, Some(&widget("late"))).await;
    assert_eq!((status.as_u16(), body["reason"].as_str()), (403, Some("Forbidden")));
    common::contains(body["message"].as_str().unwrap(), "because it is being terminated");
    assert!(exists(&f, "/api/v1/namespaces/team").await);
    f.call(
        Method::PATCH,
        &format!("{widgets}/held"),
        Some(&json!({"metadata": {"finalizers": null}})),
    )
    .await;
    f.gone("/api/v1/namespaces/team").await;
    for name in ["default", "graphplane-system"] {
        assert_eq!(
            f.call(Method::DELETE, &format!("/api/v1/namespaces/{name}"), None)
                .await
                .0,
            403
        );
    }
    let (status, _) = f
        .call(
            Method::POST,
            "/api/v1/namespaces",
            Some(&json!({"metadata": {"name": "a.b"}})),
        )
        .await;
    assert_eq!(status, 422);
}

#[tokio::test]
async fn a_definition_takes_its_objects_along() {
    let f = Fixture::new().await;
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let definition = f.get(&format!("{path}/widgets.test.dev")).await;
    let conditions = definition["status"]["conditions"].as_array().unwrap();
    assert!(
        conditions
            .iter()
            .any(|c| c["type"] == "Established" && c["status"] == "True")
    );
    assert_eq!(definition["status"]["storedVersions"], json!(["v1"]));
    let mut held = widget("held");
    held["metadata"]["finalizers"] = json!(["test.dev/hold"]);
    f.post(WIDGETS, &held).await;
    f.delete(&format!("{path}/widgets.test.dev")).await;
    f.eventually("held is being deleted", async || {
        f.get(&format!("{WIDGETS}/held")).await["metadata"]["deletionTimestamp"].is_string()
    })
    .await;
    assert_eq!(f.call(Method::POST, WIDGETS, Some(&widget("late"))).await.0, 405);
    f.call(
        Method::PATCH,
        &format!("{WIDGETS}/held"),
        Some(&json!({"metadata": {"finalizers": null}})),
    )
    .await;
    f.gone(&format!("{path}/widgets.test.dev")).await;
    f.gone(WIDGETS).await;
}

#[tokio::test]
async fn definitions_are_served_at_once_and_checked() {
    let f = Fixture::new().await;
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let mut crd = serde_json::to_value(common::widgets()).unwrap();
    crd["metadata"]["name"] = json!("gadgets.test.dev");
    crd["spec"]["names"] = json!({"kind": "Gadget", "plural": "gadgets"});
    let created = f.post(path, &crd).await;
    assert_eq!(created["spec"]["names"]["listKind"], "GadgetList");
    let gadgets = "/apis/test.dev/v1/namespaces/default/gadgets";
    let mut gadget = widget("g");
    gadget["kind"] = json!("Gadget");
    f.post(gadgets, &gadget).await;
    // A changed schema is in force with the answer.
    let patch = json!([{"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/color/enum/-",
        "value": "black"}]);
    let (status, _, body) = f
        .send(
            Method::PATCH,
            &format!("{path}/gadgets.test.dev"),
            "application/json-patch+json",
            patch.to_string().into(),
        )
        .await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["metadata"]["generation"], 2);
    let (status, _) = f
        .call(
            Method::PATCH,
            &format!("{gadgets}/g"),
            Some(&json!({"spec": {"color": "black"}})),
        )
        .await;
    assert_eq!(status, 200);
    for (pointer, value) in [
        ("/metadata/name", json!("other.test.dev")),
        (
            "/spec/versions/0/schema/openAPIV3Schema/properties/spec/type",
            json!(""),
        ),
        ("/spec/scope", json!("Everywhere")),
    ] {
        let mut bad = crd.clone();
        bad["metadata"]["name"] = json!("things.test.dev");
        bad["spec"]["names"] = json!({"kind": "Thing", "plural": "things"});
        *bad.pointer_mut(pointer).unwrap() = value;
        let (status, body) = f.call(Method::POST, path, Some(&bad)).await;
        assert_eq!(
            (status.as_u16(), body["reason"].as_str()),
            (422, Some("Invalid")),
            "{pointer}: {body}"
        );
    }
}

#[tokio::test]
async fn events_do_not_live_for_ever() {
    let f = Fixture::with(|c| graphplane_embedded::ServerConfig {
        event_ttl: Duration::from_secs(1),
        ..c
    })
    .await;
    let path = "/api/v1/namespaces/default/events";
    f.post(
        path,
        &json!({"metadata": {"name": "e"}, "reason": "R", "type": "Normal", "message": "m",
        "involvedObject": {"kind": "Widget", "name": "w", "namespace": "default"}, "source": {"component": "t"}}),
    )
    .await;
    f.gone(&format!("{path}/e")).await;
}
