//! kube-rs on this server, unchanged: Controller, finalizers, reflectors, events, leases.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Fixture, WIDGETS, eventually, widget};
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event as CoreEvent, Namespace, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::finalizer::{Event as Finalizer, finalizer};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{WatchStreamExt, predicates, watcher};
use kube::{Client, Resource, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;

fn kind() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("test.dev", "v1", "Widget"), "widgets")
}

fn api(client: &Client) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), "default", &kind())
}

struct Context {
    client: Client,
    runs: AtomicUsize,
    cleaned: AtomicUsize,
}

/// Owns a ConfigMap per Widget, reports in the status, and cleans up behind a finalizer.
async fn reconcile(
    object: Arc<DynamicObject>,
    context: Arc<Context>,
) -> Result<Action, kube::runtime::finalizer::Error<kube::Error>> {
    context.runs.fetch_add(1, Ordering::SeqCst);
    let widgets = api(&context.client);
    finalizer(&widgets, "test.dev/controller", object, async |event| match event {
        Finalizer::Apply(object) => {
            let owner: OwnerReference = object.controller_owner_ref(&kind()).unwrap();
            let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), "default");
            let map = ConfigMap {
                metadata: ObjectMeta {
                    name: object.metadata.name.clone(),
                    owner_references: Some(vec![owner]),
                    ..ObjectMeta::default()
                },
                data: Some(BTreeMap::from([(
                    "color".to_owned(),
                    object.data["spec"]["color"].to_string(),
                )])),
                ..ConfigMap::default()
            };
            maps.patch(
                &object.name_any(),
                &PatchParams::apply("test-controller").force(),
                &Patch::Apply(&map),
            )
            .await?;
            let status = json!({"apiVersion": "test.dev/v1", "kind": "Widget",
                "status": {"observedGeneration": object.metadata.generation,
                    "conditions": [{"type": "Ready", "status": "True"}]}});
            let params = PatchParams::apply("test-controller").force();
            api(&context.client)
                .patch_status(&object.name_any(), &params, &Patch::Apply(&status))
                .await?;
            Ok(Action::requeue(Duration::from_secs(300)))
        }
        Finalizer::Cleanup(_) => {
            context.cleaned.fetch_add(1, Ordering::SeqCst);
            Ok(Action::await_change())
        }
    })
    .await
}

fn start(client: &Client, config: watcher::Config) -> (Arc<Context>, CancellationToken) {
    let context = Arc::new(Context {
        client: client.clone(),
        runs: AtomicUsize::new(0),
        cleaned: AtomicUsize::new(0),
    });
    let stop = CancellationToken::new();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let controller = Controller::new_with(api(client), config.clone(), kind())
        .owns(maps, config)
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(
            reconcile,
            |_, _, _| Action::requeue(Duration::from_millis(100)),
            context.clone(),
        );
    tokio::spawn(controller.for_each(|_| std::future::ready(())));
    (context, stop)
}

async fn controller_lives(client: Client, config: watcher::Config, f: &Fixture) {
    let (context, stop) = start(&client, config);
    let widgets = api(&client);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    for i in 0..10 {
        f.post(WIDGETS, &widget(&format!("w{i}"))).await;
    }
    let ready = async |name: &str, generation: i64| {
        let widget = widgets.get(name).await.unwrap();
        widget.data["status"]["observedGeneration"] == generation
            && widget.finalizers() == ["test.dev/controller"]
            && maps.get_opt(name).await.unwrap().is_some()
    };
    for i in 0..10 {
        eventually("a widget is ready", &mut async || ready(&format!("w{i}"), 1).await).await;
    }
    // A change of the spec, and a dependent that somebody deletes.
    widgets
        .patch(
            "w3",
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": {"color": "blue"}})),
        )
        .await
        .unwrap();
    eventually("the change is seen", &mut async || ready("w3", 2).await).await;
    eventually("the dependent follows", &mut async || {
        maps.get("w3").await.unwrap().data.unwrap()["color"] == "\"blue\""
    })
    .await;
    let uid = maps.get("w4").await.unwrap().uid();
    maps.delete("w4", &DeleteParams::default()).await.unwrap();
    eventually("the dependent is made again", &mut async || {
        maps.get_opt("w4").await.unwrap().is_some_and(|m| m.uid() != uid)
    })
    .await;
    // The end.
    for i in 0..10 {
        widgets
            .delete(&format!("w{i}"), &DeleteParams::default())
            .await
            .unwrap();
    }
    eventually("all are gone", &mut async || {
        widgets.list(&ListParams::default()).await.unwrap().items.is_empty()
            && maps.list(&ListParams::default()).await.unwrap().items.is_empty()
    })
    .await;
    assert!(context.cleaned.load(Ordering::SeqCst) >= 10);
    // It came to rest: nothing it writes wakes it up again and again.
    let runs = context.runs.load(Ordering::SeqCst);
    assert!(runs < 200, "{runs} reconciles for ten widgets");
    stop.cancel();
}

#[tokio::test]
async fn a_controller_in_the_process() {
    let f = Fixture::new().await;
    controller_lives(f.client.clone(), watcher::Config::default(), &f).await;
}

#[tokio::test]
async fn a_controller_with_streaming_lists() {
    let f = Fixture::new().await;
    controller_lives(f.client.clone(), watcher::Config::default().streaming_lists(), &f).await;
}

#[tokio::test]
async fn a_controller_over_tls() {
    let f = Fixture::served().await;
    let text = std::fs::read_to_string(f.kubeconfig()).unwrap();
    let kubeconfig = kube::config::Kubeconfig::from_yaml(&text).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default())
        .await
        .unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_from(config).unwrap();
    controller_lives(client, watcher::Config::default(), &f).await;
}

#[tokio::test]
async fn a_reflector_follows_through_a_forgotten_history() {
    let f = Fixture::with(|c| graphplane_embedded::ServerConfig {
        history_events: 10,
        ..c
    })
    .await;
    for i in 0..5 {
        f.post(WIDGETS, &widget(&format!("w{i}"))).await;
    }
    let writer = reflector::store::Writer::new(kind());
    let store = writer.as_reader();
    let stream = watcher(
        api(&f.client),
        watcher::Config::default().page_size(2).labels("!hidden"),
    )
    .default_backoff()
    .reflect(writer)
    .applied_objects()
    .predicate_filter(predicates::resource_version, Default::default());
    let task = tokio::spawn(stream.for_each(|_| std::future::ready(())));
    store.wait_until_ready().await.unwrap();
    assert_eq!(store.len(), 5);
    for i in 0..100 {
        let patch = json!({"metadata": {"annotations": {"n": i.to_string()}}});
        f.call(http::Method::PATCH, &format!("{WIDGETS}/w{}", i % 5), Some(&patch))
            .await;
    }
    let last = |name: &str| store.get(&ObjectRef::new_with(name, kind()).within("default"));
    eventually("the last change arrives", &mut async || {
        last("w4").is_some_and(|w| w.annotations().get("n").is_some_and(|n| n == "99"))
    })
    .await;
    let hide = json!({"metadata": {"labels": {"hidden": "yes"}}});
    f.call(http::Method::PATCH, &format!("{WIDGETS}/w0"), Some(&hide)).await;
    f.delete(&format!("{WIDGETS}/w1")).await;
    eventually("two are gone", &mut async || store.len() == 3).await;
    task.abort();
}

#[tokio::test]
async fn recorded_events_are_seen_by_everybody() {
    let f = Fixture::new().await;
    f.post(WIDGETS, &widget("a")).await;
    let object = api(&f.client).get("a").await.unwrap();
    let reporter = Reporter {
        controller: "test.dev/controller".into(),
        instance: Some("pod-0".into()),
    };
    let recorder = Recorder::new(f.client.clone(), reporter);
    let event = Event {
        type_: EventType::Normal,
        reason: "Placed".into(),
        note: Some("on node n1".into()),
        action: "Place".into(),
        secondary: None,
    };
    for _ in 0..3 {
        recorder.publish(&event, &object.object_ref(&kind())).await.unwrap();
    }
    let events: Api<CoreEvent> = Api::namespaced(f.client.clone(), "default");
    let fields = format!("involvedObject.name=a,involvedObject.uid={}", object.uid().unwrap());
    let found = events.list(&ListParams::default().fields(&fields)).await.unwrap();
    assert_eq!(found.items.len(), 1, "repetitions are counted, not stored again");
    let event = &found.items[0];
    assert_eq!(
        (event.message.as_deref(), event.reason.as_deref()),
        (Some("on node n1"), Some("Placed"))
    );
    assert_eq!(event.series.as_ref().unwrap().count, Some(3));
}

#[tokio::test]
async fn a_lease_has_one_holder() {
    let f = Fixture::new().await;
    let leases: Api<Lease> = Api::namespaced(f.client.clone(), "default");
    let take = |holder: &str, version: Option<String>| {
        serde_json::from_value::<Lease>(json!({
            "metadata": {"name": "leader", "resourceVersion": version},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "acquireTime": "2026-01-01T00:00:00.000000Z",
                "renewTime": "2026-01-01T00:00:00.000000Z", "leaseTransitions": 0}
        }))
        .unwrap()
    };
    let lease = leases.create(&PostParams::default(), &take("a", None)).await.unwrap();
    let version = lease.resource_version();
    let (x, y) = (take("b", version.clone()), take("c", version));
    let params = PostParams::default();
    let (x, y) = tokio::join!(
        leases.replace("leader", &params, &x),
        leases.replace("leader", &params, &y)
    );
    assert!(x.is_ok() != y.is_ok(), "one of two takes it");
    let lost = x.err().or(y.err()).unwrap();
    assert!(matches!(lost, kube::Error::Api(status) if status.code == 409));
    let params = PatchParams::apply("a").force();
    leases
        .patch("leader", &params, &Patch::Apply(&take("a", None)))
        .await
        .unwrap();
    assert_eq!(
        leases
            .get("leader")
            .await
            .unwrap()
            .spec
            .unwrap()
            .holder_identity
            .as_deref(),
        Some("a")
    );
}

#[tokio::test]
async fn typed_clients_and_helpers() {
    let f = Fixture::new().await;
    let secrets: Api<Secret> = Api::default_namespaced(f.client.clone());
    let secret: Secret = serde_json::from_value(json!({"metadata": {"name": "s"}, "stringData": {"k": "v"}})).unwrap();
    let stored = secrets.create(&PostParams::default(), &secret).await.unwrap();
    assert_eq!(stored.data.unwrap()["k"].0, b"v");
    let namespaces: Api<Namespace> = Api::all(f.client.clone());
    let listed = namespaces.list_metadata(&ListParams::default()).await.unwrap();
    assert!(listed.items.iter().any(|n| n.name_any() == "graphplane-system"));
    let widgets = api(&f.client);
    let mut entry = widgets
        .entry("a")
        .await
        .unwrap()
        .or_insert(|| serde_json::from_value(widget("a")).unwrap());
    entry.get_mut().data["spec"]["size"] = json!(5);
    entry.commit(&PostParams::default()).await.unwrap();
    assert_eq!(widgets.get_scale("a").await.unwrap().spec.unwrap().replicas, Some(1));
    let discovery = kube::discovery::Discovery::new(f.client.clone()).run().await.unwrap();
    let (resource, capabilities) = discovery
        .resolve_gvk(&GroupVersionKind::gvk("test.dev", "v1", "Widget"))
        .unwrap();
    assert_eq!(resource.plural, "widgets");
    assert!(capabilities.supports_operation("watch"));
    assert_eq!(f.client.apiserver_version().await.unwrap().major, "1");
}
