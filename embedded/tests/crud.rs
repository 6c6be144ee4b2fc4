//! Create, read, update, delete: the rules that every client relies on.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Fixture, WIDGETS, widget};
use http::Method;
use serde_json::{Value, json};

fn causes(status: &Value) -> Vec<(&str, &str)> {
    let list = status["details"]["causes"].as_array().unwrap();
    list.iter()
        .map(|c| (c["field"].as_str().unwrap(), c["reason"].as_str().unwrap_or_default()))
        .collect()
}

#[tokio::test]
async fn created_objects_are_completed() {
    let f = Fixture::new().await;
    let created = f.post(&format!("{WIDGETS}?fieldManager=me"), &widget("a")).await;
    let meta = &created["metadata"];
    assert_eq!(meta["namespace"], "default");
    assert_eq!(meta["generation"], 1);
    assert!(meta["uid"].as_str().unwrap().len() == 36);
    assert!(meta["creationTimestamp"].as_str().unwrap().ends_with('Z'));
    assert!(meta["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(meta["managedFields"][0]["manager"], "me");
    assert_eq!(meta["managedFields"][0]["operation"], "Update");
    assert_eq!(created["spec"], json!({"color": "green", "size": 3, "replicas": 1}));
    assert_eq!(f.get(&format!("{WIDGETS}/a")).await, created);
    let (status, again) = f.call(Method::POST, WIDGETS, Some(&widget("a"))).await;
    assert_eq!((status.as_u16(), &again["reason"]), (409, &json!("AlreadyExists")));
    assert_eq!(again["message"], "widgets.test.dev \"a\" already exists");
}

#[tokio::test]
async fn generated_names_and_dry_runs() {
    let f = Fixture::new().await;
    let mut body = widget("");
    body["metadata"] = json!({"generateName": "w-"});
    let created = f.post(WIDGETS, &body).await;
    let name = created["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("w-") && name.len() == 7, "{name}");
    let dry = f.post(&format!("{WIDGETS}?dryRun=All"), &widget("dry")).await;
    assert_eq!(dry["spec"]["size"], 3);
    assert_eq!(f.call(Method::GET, &format!("{WIDGETS}/dry"), None).await.0, 404);
    assert_eq!(
        f.call(Method::POST, &format!("{WIDGETS}?dryRun=Some"), Some(&widget("b")))
            .await
            .0,
        422
    );
    let (status, _) = f
        .call(Method::DELETE, &format!("{WIDGETS}/{name}?dryRun=All"), None)
        .await;
    assert_eq!(status, 200);
    f.get(&format!("{WIDGETS}/{name}")).await;
    let (status, body) = f
        .call(
            Method::POST,
            WIDGETS,
            Some(&json!({"apiVersion": "test.dev/v1", "kind": "Widget",
        "spec": {"color": "red"}})),
        )
        .await;
    assert_eq!(status, 422);
    assert_eq!(causes(&body), [("metadata.name", "FieldValueRequired")]);
}

#[tokio::test]
async fn wrong_objects_are_refused_with_the_fields_that_are_wrong() {
    let f = Fixture::new().await;
    let cases = [
        (json!({"color": "pink"}), ("spec.color", "FieldValueNotSupported")),
        (json!({}), ("spec.color", "FieldValueRequired")),
        (json!({"color": 1}), ("spec.color", "FieldValueTypeInvalid")),
        (json!({"color": "green", "size": 0}), ("spec.size", "FieldValueInvalid")),
        (json!({"color": "green", "size": 11}), ("spec", "FieldValueInvalid")),
        (
            json!({"color": "green", "parts": [{"count": 1}]}),
            ("spec.parts[0].name", "FieldValueRequired"),
        ),
        (
            json!({"color": "green", "parts": [{"name": "a"}, {"name": "a"}]}),
            ("spec.parts[1]", "FieldValueDuplicate"),
        ),
    ];
    for (spec, expected) in cases {
        let mut body = widget("a");
        body["spec"] = spec.clone();
        let (status, answer) = f.call(Method::POST, WIDGETS, Some(&body)).await;
        assert_eq!(status, 422, "{spec}: {answer}");
        assert_eq!(answer["kind"], "Status");
        assert_eq!(answer["reason"], "Invalid");
        assert_eq!(answer["details"]["kind"], "Widget");
        assert!(causes(&answer).contains(&expected), "{spec}: {answer}");
        assert!(
            answer["message"]
                .as_str()
                .unwrap()
                .starts_with("Widget.test.dev \"a\" is invalid: "),
            "{answer}"
        );
    }
    let mut named = widget("Not_A_Name");
    named["metadata"]["labels"] = json!({"a b": "c"});
    let (_, answer) = f.call(Method::POST, WIDGETS, Some(&named)).await;
    assert_eq!(
        causes(&answer),
        [
            ("metadata.name", "FieldValueInvalid"),
            ("metadata.labels", "FieldValueInvalid")
        ]
    );
    for (body, status) in [
        (json!({"kind": "Widget", "metadata": {"name": "a"}}), 400),
        (
            json!({"apiVersion": "test.dev/v2", "kind": "Widget", "metadata": {"name": "a"}}),
            400,
        ),
        (
            json!({"apiVersion": "test.dev/v1", "kind": "Gadget", "metadata": {"name": "a"}}),
            400,
        ),
        (
            json!({"apiVersion": "test.dev/v1", "kind": "Widget", "metadata": {"name": "a", "namespace": "x"}}),
            400,
        ),
        (
            json!({"apiVersion": "test.dev/v1", "kind": "Widget", "metadata": {"name": "a", "resourceVersion": "1"},
            "spec": {"color": "red"}}),
            400,
        ),
        (json!([]), 400),
    ] {
        let (found, answer) = f.call(Method::POST, WIDGETS, Some(&body)).await;
        assert_eq!(found, status, "{body}: {answer}");
    }
}

#[tokio::test]
async fn unknown_and_duplicate_fields() {
    let f = Fixture::new().await;
    let mut body = widget("a");
    body["spec"]["colour"] = json!("red");
    body["spec"]["parts"] = json!([{"name": "p", "x": 1}]);
    body["metadata"]["foo"] = json!(1);
    let text = body.to_string();
    let (status, _, answer) = f
        .send(
            Method::POST,
            &format!("{WIDGETS}?fieldValidation=Strict"),
            "application/json",
            text.clone().into(),
        )
        .await;
    assert_eq!(status, 400);
    let message = answer["message"].as_str().unwrap();
    for field in ["metadata.foo", "spec.colour", "spec.parts[0].x"] {
        common::contains(message, &format!("unknown field \"{field}\""));
    }
    common::contains(
        message,
        "Widget in version \"v1\" cannot be handled as a Widget: strict decoding error",
    );
    let (status, headers, created) = f.send(Method::POST, WIDGETS, "application/json", text.into()).await;
    assert_eq!(status, 201);
    let warnings: Vec<_> = headers
        .get_all("warning")
        .iter()
        .map(|w| w.to_str().unwrap().to_owned())
        .collect();
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(
        warnings.contains(&"299 - \"unknown field \\\"spec.colour\\\"\"".to_owned()),
        "{warnings:?}"
    );
    assert_eq!(created["spec"]["parts"], json!([{"name": "p"}]));
    assert!(created["metadata"].get("foo").is_none());

    let twice = br#"{"apiVersion":"test.dev/v1","kind":"Widget","metadata":{"name":"b"},"spec":{"color":"red","color":"blue"}}"#;
    let path = format!("{WIDGETS}?fieldValidation=Strict");
    let (status, _, answer) = f.send(Method::POST, &path, "application/json", twice.to_vec()).await;
    assert_eq!(status, 400);
    common::contains(answer["message"].as_str().unwrap(), "duplicate field \"spec.color\"");
    let path = format!("{WIDGETS}?fieldValidation=Ignore");
    let (status, headers, created) = f.send(Method::POST, &path, "application/json", twice.to_vec()).await;
    assert_eq!(
        (status.as_u16(), created["spec"]["color"].as_str()),
        (201, Some("blue"))
    );
    assert!(headers.get("warning").is_none());
}

#[tokio::test]
async fn updates_need_the_current_version_and_count_generations() {
    let f = Fixture::new().await;
    let path = format!("{WIDGETS}/a");
    let created = f.post(WIDGETS, &widget("a")).await;
    let mut next = created.clone();
    next["spec"]["size"] = json!(5);
    let updated = f.put(&path, &next).await;
    assert_eq!(updated["metadata"]["generation"], 2);
    assert_ne!(
        updated["metadata"]["resourceVersion"],
        created["metadata"]["resourceVersion"]
    );
    // The same again is no write.
    assert_eq!(f.put(&path, &updated).await, updated);
    let (status, answer) = f.call(Method::PUT, &path, Some(&next)).await;
    assert_eq!((status.as_u16(), answer["reason"].as_str()), (409, Some("Conflict")));
    common::contains(
        answer["message"].as_str().unwrap(),
        "Operation cannot be fulfilled on widgets.test.dev \"a\": the object has been modified",
    );
    let mut blind = next.clone();
    blind["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let (status, answer) = f.call(Method::PUT, &path, Some(&blind)).await;
    assert_eq!(status, 422);
    assert_eq!(causes(&answer)[0].0, "metadata.resourceVersion");
    // Labels are no change of the wanted state.
    let labelled = f
        .call(Method::PATCH, &path, Some(&json!({"metadata": {"labels": {"a": "b"}}})))
        .await
        .1;
    assert_eq!(labelled["metadata"]["generation"], 2);
    // Rules that compare with the old object.
    let (status, answer) = f.call(Method::PATCH, &path, Some(&json!({"spec": {"size": 4}}))).await;
    assert_eq!(status, 422);
    common::contains(answer["message"].as_str().unwrap(), "size may only grow");
    // What is the server's stays.
    let foreign = json!({"metadata": {"uid": "00000000-0000-0000-0000-000000000000"}});
    assert_eq!(f.call(Method::PATCH, &path, Some(&foreign)).await.0, 409);
    let foreign = json!({"metadata": {"creationTimestamp": "2001-01-01T00:00:00Z"}});
    assert_eq!(f.call(Method::PATCH, &path, Some(&foreign)).await.0, 422);
    let renamed = json!({"metadata": {"name": "b"}});
    assert_eq!(f.call(Method::PATCH, &path, Some(&renamed)).await.0, 400);
    let (status, _) = f
        .call(Method::PUT, &format!("{WIDGETS}/none"), Some(&widget("none")))
        .await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn status_is_written_apart_from_the_rest() {
    let f = Fixture::new().await;
    let path = format!("{WIDGETS}/a");
    let mut body = widget("a");
    body["status"] = json!({"replicas": 9});
    let created = f.post(WIDGETS, &body).await;
    assert!(created.get("status").is_none());
    let mut next = created.clone();
    next["status"] = json!({"replicas": 2});
    next["spec"]["size"] = json!(9);
    next["metadata"]["labels"] = json!({"x": "y"});
    let written = f.put(&format!("{path}/status"), &next).await;
    assert_eq!(written["status"]["replicas"], 2);
    assert_eq!(written["spec"], created["spec"]);
    assert_eq!(written["metadata"]["generation"], 1);
    assert!(written["metadata"].get("labels").is_none());
    let entries = written["metadata"]["managedFields"].as_array().unwrap();
    assert!(entries.iter().any(|e| e["subresource"] == "status"), "{entries:?}");
    let mut next = written.clone();
    next["status"] = json!({"replicas": 7});
    next["spec"]["size"] = json!(4);
    let updated = f.put(&path, &next).await;
    assert_eq!(
        (&updated["status"]["replicas"], &updated["spec"]["size"]),
        (&json!(2), &json!(4))
    );
    let patch = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let (_, patched) = f.call(Method::PATCH, &format!("{path}/status"), Some(&patch)).await;
    assert_eq!(patched["status"]["conditions"][0]["type"], "Ready");
    let (status, _) = f
        .call(
            Method::PATCH,
            &format!("{path}/status"),
            Some(&json!({"status": {"replicas": "x"}})),
        )
        .await;
    assert_eq!(status, 422);
    assert_eq!(f.call(Method::GET, &format!("{path}/other"), None).await.0, 404);
}

#[tokio::test]
async fn ownership_can_be_reset_and_given_up() {
    let f = Fixture::new().await;
    let path = format!("{WIDGETS}/a");
    f.post(&format!("{WIDGETS}?fieldManager=one"), &widget("a")).await;
    let reset = json!({"metadata": {"managedFields": []}});
    let (_, body) = f
        .call(Method::PATCH, &format!("{path}?fieldManager=two"), Some(&reset))
        .await;
    assert!(!body["metadata"].to_string().contains("\"one\""), "{body}");
    let apply = async |status: Value| {
        let body = json!({"apiVersion": "test.dev/v1", "kind": "Widget", "status": status}).to_string();
        let path = format!("{path}/status?fieldManager=three&force=true");
        f.send(Method::PATCH, &path, "application/apply-patch+yaml", body.into())
            .await
            .2
    };
    assert!(
        apply(json!({"replicas": 1})).await["metadata"]
            .to_string()
            .contains("\"three\"")
    );
    let after = apply(json!({})).await;
    assert!(after["status"].get("replicas").is_none(), "{after}");
    assert!(!after["metadata"].to_string().contains("f:replicas"), "{after}");
}

#[tokio::test]
async fn scale_speaks_for_the_replicas() {
    let f = Fixture::new().await;
    let path = format!("{WIDGETS}/a/scale");
    f.post(WIDGETS, &widget("a")).await;
    let scale = f.get(&path).await;
    assert_eq!(
        (&scale["kind"], &scale["spec"]["replicas"]),
        (&json!("Scale"), &json!(1))
    );
    let mut next = scale.clone();
    next["spec"]["replicas"] = json!(4);
    assert_eq!(f.put(&path, &next).await["spec"]["replicas"], 4);
    assert_eq!(
        f.call(Method::PUT, &path, Some(&next)).await.0,
        409,
        "the version is old by now"
    );
    let (_, patched) = f
        .call(Method::PATCH, &path, Some(&json!({"spec": {"replicas": 2}})))
        .await;
    assert_eq!(patched["spec"]["replicas"], 2);
    let widget = f.get(&format!("{WIDGETS}/a")).await;
    assert_eq!(
        (&widget["spec"]["replicas"], &widget["metadata"]["generation"]),
        (&json!(2), &json!(3))
    );
    let (status, answer) = f
        .call(Method::PATCH, &path, Some(&json!({"spec": {"replicas": -1}})))
        .await;
    assert_eq!(status, 422);
    assert_eq!(causes(&answer)[0].0, "spec.replicas");
}

#[tokio::test]
async fn patches_of_every_kind() {
    let f = Fixture::new().await;
    let path = format!("{WIDGETS}/a");
    f.post(WIDGETS, &widget("a")).await;
    let send = async |kind: &str, query: &str, body: Value| {
        let (status, _, body) = f
            .send(Method::PATCH, &format!("{path}{query}"), kind, body.to_string().into())
            .await;
        (status.as_u16(), body)
    };
    let (status, body) = send(
        "application/json-patch+json",
        "",
        json!([
        {"op": "test", "path": "/metadata/finalizers", "value": null},
        {"op": "add", "path": "/metadata/labels", "value": {"a": "1"}},
        {"op": "replace", "path": "/spec/color", "value": "blue"}]),
    )
    .await;
    assert_eq!((status, &body["spec"]["color"]), (200, &json!("blue")), "{body}");
    let (status, _) = send(
        "application/json-patch+json",
        "",
        json!([{"op": "test", "path": "/spec/color", "value": "red"}]),
    )
    .await;
    assert_eq!(status, 422);
    let (status, body) = send(
        "application/merge-patch+json",
        "",
        json!({"metadata": {"labels": {"a": null, "b": "2"}}}),
    )
    .await;
    assert_eq!((status, &body["metadata"]["labels"]), (200, &json!({"b": "2"})));
    let (status, _) = send("application/strategic-merge-patch+json", "", json!({})).await;
    assert_eq!(status, 415);
    let (status, _) = send("text/plain", "", json!({})).await;
    assert_eq!(status, 415);

    let apply =
        |spec: Value| json!({"apiVersion": "test.dev/v1", "kind": "Widget", "metadata": {"name": "a"}, "spec": spec});
    let kind = "application/apply-patch+yaml";
    let (status, body) = send(
        kind,
        "?fieldManager=one",
        apply(json!({"parts": [{"name": "p", "count": 1}]})),
    )
    .await;
    assert_eq!(status, 200, "{body}");
    let (status, body) = send(
        kind,
        "?fieldManager=two",
        apply(json!({"parts": [{"name": "p", "count": 2}, {"name": "q"}]})),
    )
    .await;
    assert_eq!((status, body["reason"].as_str()), (409, Some("Conflict")), "{body}");
    common::contains(body["message"].as_str().unwrap(), "conflict with \"one\"");
    assert_eq!(
        causes(&body),
        [(".spec.parts[name=\"p\"].count", "FieldManagerConflict")]
    );
    let (status, body) = send(
        kind,
        "?fieldManager=two&force=true",
        apply(json!({"parts": [{"name": "p", "count": 2}]})),
    )
    .await;
    assert_eq!(
        (status, &body["spec"]["parts"]),
        (200, &json!([{"name": "p", "count": 2}]))
    );
    let version = body["metadata"]["resourceVersion"].clone();
    let (_, again) = send(
        kind,
        "?fieldManager=two",
        apply(json!({"parts": [{"name": "p", "count": 2}]})),
    )
    .await;
    assert_eq!(
        again["metadata"]["resourceVersion"], version,
        "an apply that changes nothing writes nothing"
    );
    // What an applier stops sending and nobody else owns, goes.
    let (_, body) = send(kind, "?fieldManager=two", apply(json!({}))).await;
    assert_eq!(body["spec"]["parts"], json!([{"name": "p"}]), "one still owns the item");
    let (status, _) = send(kind, "", apply(json!({}))).await;
    assert_eq!(status, 422, "fieldManager is required");
    let (status, _) = send("application/merge-patch+json", "?force=true", json!({})).await;
    assert_eq!(status, 422);
    for validation in ["Strict", "Warn", "Ignore"] {
        let query = format!("?fieldManager=two&fieldValidation={validation}");
        let (status, body) = send(kind, &query, apply(json!({"x": 1}))).await;
        assert_eq!(status, 400, "{body}");
        common::contains(
            body["message"].as_str().unwrap(),
            ".spec.x: field not declared in schema",
        );
    }
    let merge = "application/merge-patch+json";
    let (status, body) = send(merge, "?fieldValidation=Strict", json!({"spec": {"x": 1}})).await;
    assert_eq!((status, &body["reason"]), (422, &json!("Invalid")), "{body}");
    assert_eq!(body["details"]["causes"][0]["field"], "patch");
    common::contains(
        body["message"].as_str().unwrap(),
        "strict decoding error: unknown field \"spec.x\"",
    );
    let (status, body) = send(merge, "?fieldValidation=Ignore", json!({"spec": {"x": 1}})).await;
    assert_eq!((status, body["spec"].get("x")), (200, None), "{body}");

    let yaml = "apiVersion: test.dev/v1\nkind: Widget\nmetadata:\n  name: new\nspec:\n  color: red\n";
    let path = format!("{WIDGETS}/new?fieldManager=one");
    let (status, _, body) = f.send(Method::PATCH, &path, kind, yaml.into()).await;
    assert_eq!((status.as_u16(), &body["spec"]["size"]), (201, &json!(3)), "{body}");
    assert_eq!(body["metadata"]["managedFields"][0]["operation"], "Apply");
}

#[tokio::test]
async fn deletion_waits_for_finalizers() {
    let f = Fixture::new().await;
    let path = format!("{WIDGETS}/a");
    let mut body = widget("a");
    body["metadata"]["finalizers"] = json!(["test.dev/hold"]);
    let created = f.post(WIDGETS, &body).await;
    let pending = f.delete(&path).await;
    assert_eq!(pending["kind"], "Widget");
    assert!(pending["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(pending["metadata"]["generation"], 2);
    let again = f.delete(&path).await;
    assert_eq!(
        again["metadata"]["resourceVersion"],
        pending["metadata"]["resourceVersion"]
    );
    let more = json!({"metadata": {"finalizers": ["test.dev/hold", "test.dev/more"]}});
    let (status, answer) = f.call(Method::PATCH, &path, Some(&more)).await;
    assert_eq!(status, 422);
    assert_eq!(causes(&answer), [("metadata.finalizers", "FieldValueForbidden")]);
    let (status, _) = f
        .call(Method::PATCH, &path, Some(&json!({"metadata": {"finalizers": null}})))
        .await;
    assert_eq!(status, 200);
    assert_eq!(f.call(Method::GET, &path, None).await.0, 404);

    let (status, answer) = f.call(Method::DELETE, &path, None).await;
    assert_eq!(
        (status.as_u16(), answer["details"]["kind"].as_str()),
        (404, Some("widgets"))
    );
    f.post(WIDGETS, &widget("a")).await;
    let wrong = json!({"preconditions": {"uid": created["metadata"]["uid"]}});
    assert_eq!(f.call(Method::DELETE, &path, Some(&wrong)).await.0, 409);
    let done = f.delete(&path).await;
    assert_eq!((&done["kind"], &done["status"]), (&json!("Status"), &json!("Success")));
    assert_eq!(done["details"]["name"], "a");
}

#[tokio::test]
async fn collections_are_deleted_by_selection() {
    let f = Fixture::new().await;
    for (name, color) in [("a", "red"), ("b", "green"), ("c", "red")] {
        let mut body = widget(name);
        body["spec"]["color"] = json!(color);
        body["metadata"]["labels"] = json!({"color": color});
        f.post(WIDGETS, &body).await;
    }
    let deleted = f.delete(&format!("{WIDGETS}?labelSelector=color%3Dred")).await;
    assert_eq!(deleted["items"].as_array().unwrap().len(), 2);
    assert_eq!(f.get(WIDGETS).await["items"].as_array().unwrap().len(), 1);
    let (status, _) = f.call(Method::DELETE, "/apis/test.dev/v1/widgets", None).await;
    assert_eq!(status, 405);
}

#[tokio::test]
async fn addresses_and_media_types() {
    let f = Fixture::new().await;
    for path in [
        "/apis/test.dev/v1/gadgets",
        "/apis/test.dev/v2/widgets",
        "/apis/none.dev",
        "/nothing",
        "/api/v2",
        "/apis/test.dev/v1/namespaces/default/widgets/a/b/c",
        "/apis/test.dev/v1/widgets/a",
    ] {
        let (status, body) = f.call(Method::GET, path, None).await;
        assert_eq!(
            (status.as_u16(), body["kind"].as_str()),
            (404, Some("Status")),
            "{path}: {body}"
        );
    }
    let (status, body) = f.call(Method::GET, &format!("{WIDGETS}/none"), None).await;
    assert_eq!(
        (status.as_u16(), body["message"].as_str()),
        (404, Some("widgets.test.dev \"none\" not found"))
    );
    let (status, body) = f
        .call(
            Method::POST,
            "/apis/test.dev/v1/namespaces/none/widgets",
            Some(&widget("a")),
        )
        .await;
    assert_eq!(
        (status.as_u16(), body["message"].as_str()),
        (404, Some("namespaces \"none\" not found"))
    );
    assert_eq!(
        f.call(Method::POST, "/apis/test.dev/v1/widgets", Some(&widget("a")))
            .await
            .0,
        405
    );
    assert_eq!(f.call(Method::PUT, WIDGETS, Some(&widget("a"))).await.0, 405);
    let protobuf = b"k8s\x00\n\x15\n\x0btest.dev/v1\x12\x06Widget".to_vec();
    let (status, _, _) = f
        .send(Method::POST, WIDGETS, "application/vnd.kubernetes.protobuf", protobuf)
        .await;
    assert_eq!(status, 415);
    let (status, _, _) = f.send(Method::POST, WIDGETS, "application/json", b"{".to_vec()).await;
    assert_eq!(status, 400);
    let big = vec![b' '; (3 << 20) + 1];
    let (status, _, body) = f.send(Method::POST, WIDGETS, "application/json", big).await;
    assert_eq!(
        (status.as_u16(), body["reason"].as_str()),
        (413, Some("RequestEntityTooLarge"))
    );
    let yaml = "apiVersion: test.dev/v1\nkind: Widget\nmetadata: {name: from-yaml}\nspec: {color: red}\n";
    let (status, _, body) = f.send(Method::POST, WIDGETS, "application/yaml", yaml.into()).await;
    assert_eq!(status, 201, "{body}");
}

#[tokio::test]
async fn builtin_kinds_have_their_own_rules() {
    let f = Fixture::new().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = f
        .post(secrets, &json!({"metadata": {"name": "s"}, "stringData": {"a": "b"}}))
        .await;
    assert_eq!(
        (&secret["data"], &secret["type"]),
        (&json!({"a": "Yg=="}), &json!("Opaque"))
    );
    assert!(secret.get("stringData").is_none());
    assert!(secret["metadata"].get("generation").is_none());
    let (status, _) = f
        .call(
            Method::POST,
            secrets,
            Some(&json!({"metadata": {"name": "t"}, "data": {"a": "?"}})),
        )
        .await;
    assert!(status.is_client_error());
    // An unconditional update of a ConfigMap is allowed, and a Lease can be created by PUT.
    let maps = "/api/v1/namespaces/default/configmaps";
    f.post(maps, &json!({"metadata": {"name": "c"}, "data": {"a": "1"}}))
        .await;
    let updated = f
        .put(
            &format!("{maps}/c"),
            &json!({"metadata": {"name": "c"}, "data": {"a": "2"}}),
        )
        .await;
    assert_eq!(updated["data"]["a"], "2");
    let lease = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l";
    let (status, created) = f
        .call(
            Method::PUT,
            lease,
            Some(&json!({"metadata": {"name": "l"},
        "spec": {"holderIdentity": "me", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"}})),
        )
        .await;
    assert_eq!(status, 201, "{created}");
    let strategic = json!({"data": {"b": "3"}}).to_string();
    let kind = "application/strategic-merge-patch+json";
    let (status, _, patched) = f
        .send(Method::PATCH, &format!("{maps}/c"), kind, strategic.into())
        .await;
    assert_eq!((status.as_u16(), &patched["data"]), (200, &json!({"a": "2", "b": "3"})));
}

#[tokio::test]
async fn events_are_one_kind_with_two_faces() {
    let f = Fixture::new().await;
    let new = "/apis/events.k8s.io/v1/namespaces/default/events";
    let old = "/api/v1/namespaces/default/events";
    f.post(new, &json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "reason": "Made", "action": "Make", "type": "Normal", "note": "made it",
        "reportingController": "test.dev/c", "reportingInstance": "c-0",
        "regarding": {"apiVersion": "test.dev/v1", "kind": "Widget", "name": "w", "namespace": "default", "uid": "u"}})).await;
    let seen = f.get(&format!("{old}/e")).await;
    assert_eq!(seen["apiVersion"], "v1");
    assert_eq!(
        (&seen["message"], &seen["involvedObject"]["name"]),
        (&json!("made it"), &json!("w"))
    );
    assert_eq!(seen["reportingComponent"], "test.dev/c");
    let back = f.get(&format!("{new}/e")).await;
    assert_eq!(
        (&back["apiVersion"], &back["note"]),
        (&json!("events.k8s.io/v1"), &json!("made it"))
    );
    for (path, count) in [
        (
            format!("{old}?fieldSelector=involvedObject.name%3Dw,involvedObject.kind%3DWidget"),
            1,
        ),
        (format!("{old}?fieldSelector=involvedObject.uid%3Dv"), 0),
        (
            format!("{new}?fieldSelector=regarding.name%3Dw,type%3DNormal,reason%3DMade"),
            1,
        ),
        (format!("{old}?fieldSelector=type!%3DNormal"), 0),
    ] {
        assert_eq!(f.get(&path).await["items"].as_array().unwrap().len(), count, "{path}");
    }
    let (status, patched) = f
        .call(Method::PATCH, &format!("{new}/e"), Some(&json!({"note": "again"})))
        .await;
    assert_eq!((status.as_u16(), &patched["note"]), (200, &json!("again")), "{patched}");
    assert_eq!(f.get(&format!("{old}/e")).await["message"], "again");
}

#[tokio::test]
async fn the_caller_can_ask_about_itself() {
    let f = Fixture::new().await;
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let answer = f
        .post(
            path,
            &json!({"spec": {"resourceAttributes": {"verb": "delete", "resource": "widgets"}}}),
        )
        .await;
    assert_eq!(answer["status"]["allowed"], true);
    let who = f
        .post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &json!({}))
        .await;
    assert_eq!(who["status"]["userInfo"]["username"], "system:graphplane");
    assert_eq!(f.call(Method::GET, path, None).await.0, 405);
}

#[tokio::test]
async fn objects_survive_a_restart() {
    let f = Fixture::new().await;
    let created = f.post(WIDGETS, &widget("a")).await;
    let definition = f
        .get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.test.dev")
        .await;
    let (id, token) = (f.server.cluster_id().to_owned(), f.server.token().to_owned());
    f.server.shutdown().await;
    assert_eq!(f.call(Method::GET, WIDGETS, None).await.0, 503);
    let f = f.reopened().await;
    assert_eq!((f.server.cluster_id(), f.server.token()), (id.as_str(), token.as_str()));
    assert_eq!(f.get(&format!("{WIDGETS}/a")).await, created);
    let same = f
        .get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.test.dev")
        .await;
    assert_eq!(same, definition, "a start writes nothing new");
}

#[tokio::test]
async fn a_wrong_definition_stops_the_start_and_is_named() {
    let mut crd = common::widgets();
    crd.spec.versions[0].schema = None;
    let dir = tempfile::tempdir().unwrap();
    let config = graphplane_embedded::ServerConfig::new(dir.path()).with_crds([crd]);
    let error = graphplane_embedded::EmbeddedServer::open(config)
        .await
        .err()
        .unwrap()
        .to_string();
    common::contains(&error, "cannot set up definition widgets.test.dev");
    common::contains(&error, "schema");
}

#[tokio::test]
async fn versions_of_a_kind_share_their_objects() {
    let f = Fixture::new().await;
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.test.dev";
    let mut crd = f.get(path).await;
    let mut second = crd["spec"]["versions"][0].clone();
    second["name"] = json!("v2");
    second["storage"] = json!(false);
    second["deprecated"] = json!(true);
    crd["spec"]["versions"].as_array_mut().unwrap().push(second);
    assert_eq!(f.put(path, &crd).await["status"]["storedVersions"], json!(["v1"]));
    f.post(WIDGETS, &widget("a")).await;
    let newer = "/apis/test.dev/v2/namespaces/default/widgets";
    assert_eq!(f.get(&format!("{newer}/a")).await["apiVersion"], "test.dev/v2");
    let (_, headers, _) = f.send(Method::GET, newer, "", Vec::new()).await;
    assert_eq!(headers["warning"], "299 - \"test.dev/v2 Widget is deprecated\"");
    let (_, headers, _) = f.send(Method::GET, WIDGETS, "", Vec::new()).await;
    assert!(!headers.contains_key("warning"));
    let (status, patched) = f
        .call(
            Method::PATCH,
            &format!("{newer}/a"),
            Some(&json!({"spec": {"size": 5}})),
        )
        .await;
    assert_eq!(
        (status.as_u16(), patched["apiVersion"].as_str()),
        (200, Some("test.dev/v2"))
    );
    let seen = f.get(&format!("{WIDGETS}/a")).await;
    assert_eq!(
        (&seen["apiVersion"], &seen["spec"]["size"]),
        (&json!("test.dev/v1"), &json!(5))
    );
    let mut other = widget("b");
    other["apiVersion"] = json!("test.dev/v2");
    f.post(newer, &other).await;
    for (path, version) in [(newer, "test.dev/v2"), (WIDGETS, "test.dev/v1")] {
        let list = f.get(path).await;
        let items = list["items"].as_array().unwrap();
        assert_eq!(items.len(), 2);
        assert!(items.iter().all(|o| o["apiVersion"] == version), "{list}");
    }
}
