//! Lists and watches: pages, selections, resuming, and the end of history.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Fixture, PATIENCE, WIDGETS, widget};
use http::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

async fn next(watch: &mut UnboundedReceiver<Value>) -> (String, Value) {
    let event = tokio::time::timeout(PATIENCE, watch.recv())
        .await
        .expect("an event")
        .expect("no end");
    (event["type"].as_str().unwrap().to_owned(), event["object"].clone())
}

async fn next_name(watch: &mut UnboundedReceiver<Value>) -> (String, String) {
    let (kind, object) = next(watch).await;
    (kind, object["metadata"]["name"].as_str().unwrap_or_default().to_owned())
}

fn pair(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

fn names(list: &Value) -> Vec<&str> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| o["metadata"]["name"].as_str().unwrap())
        .collect()
}

fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

async fn colored(f: &Fixture, name: &str, color: &str) -> Value {
    let mut body = widget(name);
    body["spec"]["color"] = json!(color);
    body["metadata"]["labels"] = json!({"color": color});
    f.post(WIDGETS, &body).await
}

#[tokio::test]
async fn pages_show_one_state_while_it_changes() {
    let f = Fixture::new().await;
    for i in 0..7 {
        f.post(WIDGETS, &widget(&format!("w{i}"))).await;
    }
    let first = f.get(&format!("{WIDGETS}?limit=3")).await;
    assert_eq!(
        (first["kind"].as_str(), names(&first)),
        (Some("WidgetList"), vec!["w0", "w1", "w2"])
    );
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    f.delete(&format!("{WIDGETS}/w4")).await;
    f.post(WIDGETS, &widget("w3a")).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = f.get(&format!("{WIDGETS}?limit=3&continue={token}")).await;
    assert_eq!(names(&second), ["w3", "w4", "w5"]);
    assert_eq!(version(&second), version(&first));
    let token = second["metadata"]["continue"].as_str().unwrap();
    let last = f.get(&format!("{WIDGETS}?limit=3&continue={token}")).await;
    assert_eq!(names(&last), ["w6"]);
    assert!(last["metadata"].get("continue").is_none());
    assert_eq!(
        names(&f.get(WIDGETS).await),
        ["w0", "w1", "w2", "w3", "w3a", "w5", "w6"]
    );

    let exact = f
        .get(&format!(
            "{WIDGETS}?resourceVersion={}&resourceVersionMatch=Exact",
            version(&first)
        ))
        .await;
    assert_eq!(names(&exact), ["w0", "w1", "w2", "w3", "w4", "w5", "w6"]);
    assert_eq!(
        f.call(Method::GET, &format!("{WIDGETS}?continue=junk"), None).await.0,
        400
    );
    let (status, body) = f
        .call(Method::GET, &format!("{WIDGETS}?resourceVersion=999999"), None)
        .await;
    assert_eq!((status.as_u16(), body["reason"].as_str()), (504, Some("Timeout")));
    assert_eq!(
        f.call(
            Method::GET,
            &format!("{WIDGETS}?watch=true&resourceVersion=999999"),
            None
        )
        .await
        .0,
        504
    );
}

#[tokio::test]
async fn selections() {
    let f = Fixture::new().await;
    for (name, color) in [("a", "red"), ("b", "green"), ("c", "red"), ("d", "blue")] {
        colored(&f, name, color).await;
    }
    for (query, expected) in [
        ("labelSelector=color%3Dred", vec!["a", "c"]),
        ("labelSelector=color%20in%20(red,blue)", vec!["a", "c", "d"]),
        ("labelSelector=color%20notin%20(red)", vec!["b", "d"]),
        ("labelSelector=!color", vec![]),
        ("fieldSelector=spec.color%3Dred,metadata.name!%3Da", vec!["c"]),
        ("fieldSelector=metadata.name%3Db", vec!["b"]),
        ("fieldSelector=metadata.namespace%3Dother", vec![]),
        ("labelSelector=color%3Dred&limit=1", vec!["a"]),
    ] {
        let list = f.get(&format!("{WIDGETS}?{query}")).await;
        assert_eq!(names(&list), expected, "{query}");
        assert!(list["metadata"].get("remainingItemCount").is_none());
    }
    for bad in ["fieldSelector=spec.size%3D3", "labelSelector=a%20b", "fieldSelector=x"] {
        assert_eq!(
            f.call(Method::GET, &format!("{WIDGETS}?{bad}"), None).await.0,
            400,
            "{bad}"
        );
    }
    assert_eq!(
        names(&f.get("/apis/test.dev/v1/widgets?labelSelector=color%3Dblue").await),
        ["d"]
    );
}

#[tokio::test]
async fn a_watch_tells_everything_that_happens() {
    let f = Fixture::new().await;
    let old = f.post(WIDGETS, &widget("old")).await;
    let mut all = f.watch(&format!("{WIDGETS}?watch=true")).await;
    let mut later = f
        .watch(&format!(
            "/apis/test.dev/v1/widgets?watch=1&resourceVersion={}",
            version(&old)
        ))
        .await;
    assert_eq!(next_name(&mut all).await, pair("ADDED", "old"));
    f.post(WIDGETS, &widget("new")).await;
    f.call(
        Method::PATCH,
        &format!("{WIDGETS}/new"),
        Some(&json!({"spec": {"size": 4}})),
    )
    .await;
    f.delete(&format!("{WIDGETS}/old")).await;
    for watch in [&mut all, &mut later] {
        assert_eq!(next_name(watch).await, pair("ADDED", "new"));
        let (kind, object) = next(watch).await;
        assert_eq!((kind.as_str(), &object["spec"]["size"]), ("MODIFIED", &json!(4)));
        let (kind, object) = next(watch).await;
        assert_eq!(
            (kind.as_str(), object["metadata"]["name"].as_str()),
            ("DELETED", Some("old"))
        );
        assert!(version(&object).parse::<u64>().unwrap() > version(&old).parse().unwrap());
    }
}

#[tokio::test]
async fn a_selective_watch_sees_objects_come_and_go() {
    let f = Fixture::new().await;
    let mut labels = f
        .watch(&format!("{WIDGETS}?watch=true&labelSelector=color%3Dred"))
        .await;
    let mut fields = f
        .watch(&format!("{WIDGETS}?watch=true&fieldSelector=spec.color%3Dred"))
        .await;
    colored(&f, "a", "red").await;
    colored(&f, "b", "green").await;
    let to = async |name: &str, color: &str| {
        let patch = json!({"metadata": {"labels": {"color": color}}, "spec": {"color": color}});
        assert_eq!(
            f.call(Method::PATCH, &format!("{WIDGETS}/{name}"), Some(&patch))
                .await
                .0,
            200
        );
    };
    to("b", "red").await;
    to("a", "blue").await;
    f.delete(&format!("{WIDGETS}/a")).await;
    f.delete(&format!("{WIDGETS}/b")).await;
    for watch in [&mut labels, &mut fields] {
        assert_eq!(next_name(watch).await, pair("ADDED", "a"));
        assert_eq!(next_name(watch).await, pair("ADDED", "b"));
        let (kind, object) = next(watch).await;
        assert_eq!(
            (kind.as_str(), object["spec"]["color"].as_str()),
            ("DELETED", Some("red"))
        );
        assert_eq!(next_name(watch).await, pair("DELETED", "b"));
    }
    let mut one = f.watch(&format!("{WIDGETS}/x?watch=true")).await;
    f.post(WIDGETS, &widget("y")).await;
    f.post(WIDGETS, &widget("x")).await;
    assert_eq!(next_name(&mut one).await, pair("ADDED", "x"));
}

#[tokio::test]
async fn streaming_lists_end_with_a_bookmark() {
    let f = Fixture::new().await;
    for i in 0..300 {
        f.post(WIDGETS, &widget(&format!("w{i:03}"))).await;
    }
    let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = f.watch(&format!("{WIDGETS}?{query}")).await;
    for i in 0..300 {
        assert_eq!(next_name(&mut watch).await, pair("ADDED", &format!("w{i:03}")));
    }
    let (kind, object) = next(&mut watch).await;
    assert_eq!(kind, "BOOKMARK");
    assert_eq!(object["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(version(&object), f.server.revision().to_string());
    f.delete(&format!("{WIDGETS}/w000")).await;
    assert_eq!(next_name(&mut watch).await, pair("DELETED", "w000"));
}

#[tokio::test]
async fn a_watch_ends_after_its_time_with_a_bookmark() {
    let f = Fixture::new().await;
    let start = f.server.revision();
    // Something else happened, so that the client can go on from there and not from where it began.
    f.post(
        "/api/v1/namespaces/default/configmaps",
        &json!({"metadata": {"name": "c"}}),
    )
    .await;
    let path = format!("{WIDGETS}?watch=true&resourceVersion={start}&timeoutSeconds=1&allowWatchBookmarks=true");
    let mut watch = f.watch(&path).await;
    let (kind, object) = next(&mut watch).await;
    assert_eq!(kind, "BOOKMARK");
    assert!(version(&object).parse::<u64>().unwrap() > start);
    assert!(watch.recv().await.is_none());
}

#[tokio::test]
async fn forgotten_history_is_gone() {
    let f = Fixture::with(|config| graphplane_embedded::ServerConfig {
        history_events: 5,
        ..config
    })
    .await;
    let first = f.post(WIDGETS, &widget("w")).await;
    let page = {
        f.post(WIDGETS, &widget("x")).await;
        f.get(&format!("{WIDGETS}?limit=1")).await
    };
    for i in 4..14 {
        f.call(
            Method::PATCH,
            &format!("{WIDGETS}/w"),
            Some(&json!({"spec": {"size": i, "color": "red"}})),
        )
        .await;
    }
    let mut watch = f
        .watch(&format!("{WIDGETS}?watch=true&resourceVersion={}", version(&first)))
        .await;
    let (kind, status) = next(&mut watch).await;
    assert_eq!(kind, "ERROR");
    assert_eq!(
        (status["code"].as_u64(), status["reason"].as_str()),
        (Some(410), Some("Expired"))
    );
    assert!(watch.recv().await.is_none());
    let token = page["metadata"]["continue"].as_str().unwrap();
    let (status, body) = f
        .call(Method::GET, &format!("{WIDGETS}?limit=1&continue={token}"), None)
        .await;
    assert_eq!((status.as_u16(), body["reason"].as_str()), (410, Some("Expired")));
    let token = body["metadata"]["continue"].as_str().unwrap();
    assert_eq!(
        names(&f.get(&format!("{WIDGETS}?limit=1&continue={token}")).await),
        ["x"]
    );
    let exact = format!(
        "{WIDGETS}?resourceVersion={}&resourceVersionMatch=Exact",
        version(&first)
    );
    assert_eq!(f.call(Method::GET, &exact, None).await.0, 410);
}

#[tokio::test]
async fn a_watch_goes_on_after_a_restart() {
    let f = Fixture::new().await;
    let first = f.post(WIDGETS, &widget("a")).await;
    let mut watch = f.watch(&format!("{WIDGETS}?watch=true")).await;
    assert_eq!(next_name(&mut watch).await, pair("ADDED", "a"));
    f.post(WIDGETS, &widget("b")).await;
    assert_eq!(next_name(&mut watch).await, pair("ADDED", "b"));
    let f = f.reopened().await;
    assert!(watch.recv().await.is_none(), "watches end with the server");
    f.delete(&format!("{WIDGETS}/a")).await;
    let mut watch = f
        .watch(&format!("{WIDGETS}?watch=true&resourceVersion={}", version(&first)))
        .await;
    assert_eq!(next_name(&mut watch).await, pair("ADDED", "b"));
    assert_eq!(next_name(&mut watch).await, pair("DELETED", "a"));
}

#[tokio::test]
async fn other_shapes() {
    let f = Fixture::new().await;
    f.post(WIDGETS, &widget("a")).await;
    let send = async |accept: &str, path: &str| {
        let request = http::Request::get(path)
            .header("accept", accept)
            .body(kube::client::Body::empty())
            .unwrap();
        let response = f.client.send(request).await.unwrap();
        let bytes = http_body_util::BodyExt::collect(response.into_body())
            .await
            .unwrap()
            .to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    };
    let json = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let list = json(send(partial, WIDGETS).await);
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["metadata"]["name"], "a");
    assert!(list["items"][0].get("spec").is_none());
    let one = json(
        send(
            "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
            &format!("{WIDGETS}/a"),
        )
        .await,
    );
    assert_eq!(
        (&one["kind"], &one["apiVersion"]),
        (&json!("PartialObjectMetadata"), &json!("meta.k8s.io/v1"))
    );
    let table = json(send("application/json;as=Table;g=meta.k8s.io;v=v1", WIDGETS).await);
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["rows"][0]["cells"][0], "a");
    let watched = send(
        "application/json;as=Table;g=meta.k8s.io;v=v1",
        &format!("{WIDGETS}?watch=true&timeoutSeconds=1"),
    )
    .await;
    let event = json(watched.lines().next().unwrap().to_owned());
    assert_eq!(
        (&event["type"], &event["object"]["kind"]),
        (&json!("ADDED"), &json!("Table"))
    );
    let watched = send(
        "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        &format!("{WIDGETS}?watch=true&timeoutSeconds=1"),
    )
    .await;
    assert_eq!(
        json(watched.lines().next().unwrap().to_owned())["object"]["kind"],
        "PartialObjectMetadata"
    );
    common::contains(
        &send("application/yaml", &format!("{WIDGETS}/a")).await,
        "kind: Widget\n",
    );
    let refused = json(send("application/vnd.kubernetes.protobuf", WIDGETS).await);
    assert_eq!(refused["code"], 406);
}

#[tokio::test]
async fn a_watch_ends_with_the_definition_of_its_kind() {
    let f = Fixture::new().await;
    f.post(WIDGETS, &widget("a")).await;
    let mut widgets = f.watch(&format!("{WIDGETS}?watch=true")).await;
    let mut secrets = f.watch("/api/v1/namespaces/default/secrets?watch=true").await;
    assert_eq!(widgets.recv().await.unwrap()["type"], "ADDED");
    let definition = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.test.dev";
    // A change of the definition ends nothing.
    let change = json!({"spec": {"names": {"shortNames": ["wdg"]}}});
    assert_eq!(f.call(Method::PATCH, definition, Some(&change)).await.0, 200);
    f.post(WIDGETS, &widget("b")).await;
    assert_eq!(widgets.recv().await.unwrap()["object"]["metadata"]["name"], "b");
    f.delete(definition).await;
    let mut last = Vec::new();
    let ended = async {
        while let Some(event) = widgets.recv().await {
            last.push((event["type"].clone(), event["object"]["metadata"]["name"].clone()));
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), ended)
        .await
        .expect("the watch ends");
    assert_eq!(last, [(json!("DELETED"), json!("a")), (json!("DELETED"), json!("b"))]);
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
    f.post("/api/v1/namespaces/default/secrets", &secret).await;
    assert_eq!(secrets.recv().await.unwrap()["object"]["metadata"]["name"], "s");
}
