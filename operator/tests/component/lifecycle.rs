//! A graph from its manifest to its end.

use crate::world::{DDL, Known, World, graph_object};
use graphplane_crds::backup::BackupPhase;
use graphplane_crds::graph::GraphPhase;
use graphplane_crds::node::NodePhase;
use graphplane_crds::volume::VolumeState;
use graphplane_crds::{Backup, Graph, GraphNode, GraphVolume, Tier};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_graph_gets_a_node_a_volume_and_a_database() {
    let world = World::with_tier(json!({})).await;
    let operator = world.operator();
    world
        .create::<Graph>(graph_object(
            "karate",
            json!({"graphId": "kg0123456789abcdef", "storage": {"sizeGiB": 2}}),
        ))
        .await;
    let graph = world.until_ready::<Graph>("karate").await;
    let status = graph.status.clone().unwrap();
    assert_eq!(status.phase, Some(GraphPhase::Ready));
    assert_eq!(status.observed_generation, graph.metadata.generation);
    assert_eq!(status.graph_id.unwrap().as_str(), "kg0123456789abcdef");
    assert_eq!(
        (status.node.as_deref(), status.volume.as_deref()),
        (Some("std-0"), Some("std-0"))
    );
    assert_eq!(status.applied_schema.unwrap().statements, 2);
    for type_ in [
        "Ready",
        "Progressing",
        "Stalled",
        "Paused",
        "Deleting",
        "Placed",
        "VolumeReady",
        "DatabaseReady",
    ] {
        let condition = status
            .conditions
            .iter()
            .find(|c| c.type_ == type_)
            .unwrap_or_else(|| panic!("no {type_}"));
        assert_eq!(condition.observed_generation, graph.metadata.generation, "{type_}");
    }
    let node = world.until::<GraphNode>("std-0", "allocated", |n| {
        n.status
            .as_ref()
            .and_then(|s| s.allocated)
            .is_some_and(|a| a.databases == 1)
    });
    let node = node.await.status.unwrap();
    assert_eq!((node.phase, node.epoch.unwrap().0), (Some(NodePhase::Ready), 1));
    assert_eq!(node.provider_id.as_deref(), Some("test:///std-0"));
    assert_eq!(
        (node.allocated.unwrap().memory_mib.0, node.allocated.unwrap().disk_mib.0),
        (10, 2048)
    );
    assert_eq!(status.endpoint, node.registration.map(|r| r.address));
    assert_eq!(status.epoch, node.epoch);
    let volume = world.until::<GraphVolume>("std-0", "in use with its database", |v| {
        let status = v.status.clone().unwrap_or_default();
        status.state == Some(VolumeState::InUse) && status.databases == ["kg0123456789abcdef"]
    });
    let volume = volume.await;
    assert_eq!(volume.status.as_ref().unwrap().attached_to.as_deref(), Some("std-0"));
    assert_eq!(volume.status.unwrap().epoch, node.epoch);
    let tier = world.until::<Tier>("std", "counted", |t| {
        t.status
            .as_ref()
            .is_some_and(|s| s.nodes.ready == 1 && s.capacity.used_databases == 1)
    });
    assert_eq!(tier.await.status.unwrap().capacity.max_databases, 30);
    let statements = world.machines.databases().remove("kg0123456789abcdef").unwrap();
    assert_eq!(statements.len(), 2);
    // Sizes come with the next renewal, and are rounded.
    world
        .until::<Graph>("karate", "measured", |g| {
            g.status
                .as_ref()
                .and_then(|s| s.sizes.clone())
                .is_some_and(|s| s.database_bytes == 65_536)
        })
        .await;
    world
        .eventually("the metrics count the graph as ready", async || {
            let line = r#"conditions{kind="Graph",type="Ready",status="True"} 1"#;
            operator.metrics.encode().contains(line)
        })
        .await;
    let metrics = operator.metrics.encode();
    assert!(
        metrics.contains(r#"calls_total{target="test",call="ensure_instance",outcome="ok"} 1"#),
        "{metrics}"
    );
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_say_what_happened() {
    let world = World::with_tier(json!({})).await;
    let operator = world.operator();
    world.create::<Graph>(graph_object("karate", json!({}))).await;
    world.until_ready::<Graph>("karate").await;
    let events: Api<Event> = Api::namespaced(world.client.clone(), "default");
    world
        .eventually("events tell of the graph", async || {
            let events = events.list(&ListParams::default()).await.unwrap().items;
            let reasons: Vec<&str> = events
                .iter()
                .filter(|e| e.regarding.as_ref().and_then(|r| r.name.as_deref()) == Some("karate"))
                .filter_map(|e| e.reason.as_deref())
                .collect();
            ["Placed", "DatabaseCreated", "Ready"]
                .iter()
                .all(|r| reasons.contains(r))
        })
        .await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_an_agent_to_register_alarms_nobody() {
    let world = World::with_tier(json!({})).await;
    let behaviour = world.machines.behaviour.clone();
    behaviour.hold_answers.store(true, Ordering::SeqCst);
    let operator = world.operator();
    world.create::<Graph>(graph_object("karate", json!({}))).await;
    world
        .eventually("a pass gave up waiting", async || {
            operator
                .metrics
                .encode()
                .contains(r#"reconciles_total{kind="Graph",outcome="agent"}"#)
        })
        .await;
    let waiting = world.get::<Graph>("karate").await;
    let reasons: Vec<String> = waiting.conditions().into_iter().map(|c| c.reason).collect();
    assert!(!reasons.iter().any(|r| r == "AgentError"), "{reasons:?}");
    behaviour.hold_answers.store(false, Ordering::SeqCst);
    world.until_ready::<Graph>("karate").await;
    let events: Api<Event> = Api::namespaced(world.client.clone(), "default");
    // They are sent in the order in which they happened.
    world
        .eventually("the last event has arrived", async || {
            let events = events.list(&ListParams::default()).await.unwrap().items;
            let of_graph = |e: &&Event| e.regarding.as_ref().and_then(|r| r.name.as_deref()) == Some("karate");
            let warnings: Vec<_> = events
                .iter()
                .filter(|e| e.type_.as_deref() == Some("Warning"))
                .collect();
            assert!(warnings.is_empty(), "{warnings:?}");
            events
                .iter()
                .filter(of_graph)
                .any(|e| e.reason.as_deref() == Some("Ready"))
        })
        .await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_graph_leaves_its_final_backup_and_nothing_else() {
    let world = World::with_tier(json!({})).await;
    let operator = world.operator();
    world
        .create::<Graph>(graph_object("karate", json!({"graphId": "kg0123456789abcdef"})))
        .await;
    world.until_ready::<Graph>("karate").await;
    world.delete::<Graph>("karate").await;
    world.until_gone::<Graph>("karate").await;
    let backups = world.list::<Backup>().await;
    let [backup] = &backups[..] else { panic!("{backups:?}") };
    assert!(backup.name_any().starts_with("karate-final-"));
    assert!(backup.owner_references().is_empty(), "it outlives the graph");
    let status = backup.status.clone().unwrap();
    assert_eq!(status.phase, Some(BackupPhase::Completed));
    assert!(status.verified_at.is_some() && status.completed_at.is_some());
    assert_eq!((status.node_count, status.relationship_count), (Some(2), Some(1)));
    let key = status.key.unwrap();
    assert_eq!(key, format!("backups/kg0123456789abcdef/1/{}", backup.name_any()));
    assert_eq!(
        std::fs::read(world.objects().join(&key).join("graph.lbug.zst"))
            .unwrap()
            .len() as i64,
        status.size_bytes.unwrap()
    );
    // The tier lets its empty node go, and the disk with it.
    world.until_none::<GraphNode>().await;
    world.until_none::<GraphVolume>().await;
    world.until_none::<Secret>().await;
    world.until_none::<Lease>().await;
    assert!(world.machines.alive().is_empty() && world.machines.disks().is_empty());
    assert!(world.objects().join(&key).join("manifest.json").exists());
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protected_graph_stays_until_the_annotation_goes() {
    let world = World::with_tier(json!({})).await;
    let operator = world.operator();
    let mut object = graph_object("karate", json!({"deletionPolicy": "Delete"}));
    object["metadata"]["annotations"] = json!({"graphplane.dev/deletion-protection": "true"});
    world.create::<Graph>(object).await;
    world.until_ready::<Graph>("karate").await;
    world.delete::<Graph>("karate").await;
    let kept = world
        .until_says::<Graph>("karate", "Deleting", "True", "DeletionProtected")
        .await;
    assert_eq!(
        kept.status.unwrap().phase,
        Some(GraphPhase::Ready),
        "it goes on serving"
    );
    assert_eq!(world.machines.databases().len(), 1);
    world
        .patch::<Graph>(
            "karate",
            json!({"metadata": {"annotations": {"graphplane.dev/deletion-protection": null}}}),
        )
        .await;
    world.until_gone::<Graph>("karate").await;
    assert!(world.machines.databases().is_empty() && world.list::<Backup>().await.is_empty());
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_final_backup_keeps_the_data_until_somebody_decides() {
    let world = World::with_tier(json!({})).await;
    let operator = world.operator();
    world.create::<Graph>(graph_object("karate", json!({}))).await;
    world.until_ready::<Graph>("karate").await;
    *world.machines.behaviour.fail_backups.lock() = Some("disk full".into());
    world.delete::<Graph>("karate").await;
    let waits = world
        .until_says::<Graph>("karate", "Deleting", "True", "BackupFailed")
        .await;
    let message = &waits
        .status
        .unwrap()
        .conditions
        .into_iter()
        .find(|c| c.type_ == "Deleting")
        .unwrap()
        .message;
    assert!(
        message.contains("disk full") && message.contains("deletionPolicy"),
        "{message}"
    );
    assert_eq!(world.machines.databases().len(), 1);
    // Deleting the failed backup has it made again.
    *world.machines.behaviour.fail_backups.lock() = None;
    let failed = world.names::<Backup>().await;
    world.delete::<Backup>(&failed[0]).await;
    world.until_gone::<Graph>("karate").await;
    let status = world.get::<Backup>(&failed[0]).await.status.unwrap();
    assert_eq!(status.phase, Some(BackupPhase::Completed));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_data_comes_back_to_its_own_namespace_only() {
    let world = World::with_tier(json!({})).await;
    let operator = world.operator();
    let spec = json!({"graphId": "kg0123456789abcdef", "deletionPolicy": "Retain"});
    world.create::<Graph>(graph_object("karate", spec.clone())).await;
    world.until_ready::<Graph>("karate").await;
    world.delete::<Graph>("karate").await;
    world.until_gone::<Graph>("karate").await;
    // Its node may go, its volume may not.
    world.until_none::<GraphNode>().await;
    let volume = world.get::<GraphVolume>("std-0").await;
    assert_eq!(volume.status.unwrap().databases, ["kg0123456789abcdef"]);
    world.delete::<GraphVolume>("std-0").await;
    world
        .until_says::<GraphVolume>("std-0", "Deleting", "True", "VolumeInUse")
        .await;
    assert_eq!(world.machines.disks(), ["std-0"]);
    operator.stop().await;

    // A volume that is being deleted takes nothing; without that mark it would have.
    let world = World::with_tier(json!({})).await;
    let operator = world.operator();
    world.create::<Graph>(graph_object("karate", spec.clone())).await;
    world.until_ready::<Graph>("karate").await;
    world.delete::<Graph>("karate").await;
    world.until_gone::<Graph>("karate").await;
    world.until_none::<GraphNode>().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}});
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(world.client.clone());
    namespaces
        .create(&Default::default(), &serde_json::from_value(namespace).unwrap())
        .await
        .unwrap();
    let mut foreign = graph_object("thief", spec.clone());
    foreign["metadata"]["namespace"] = json!("other");
    world.create::<Graph>(foreign).await;
    let api: Api<Graph> = Api::namespaced(world.client.clone(), "other");
    world
        .eventually("the data is refused to another namespace", async || {
            let status = api.get("thief").await.unwrap().status.unwrap_or_default();
            status
                .conditions
                .iter()
                .any(|c| c.type_ == "Stalled" && c.status == "True" && c.reason == "NameTaken")
        })
        .await;
    world.create::<Graph>(graph_object("karate-again", spec)).await;
    // The refused one came first, but has no claim: nothing was written into its status as its own.
    api.delete("thief", &Default::default()).await.unwrap();
    let again = world.until_ready::<Graph>("karate-again").await.status.unwrap();
    assert_eq!(again.volume.as_deref(), Some("std-0"));
    assert_eq!(world.machines.made()["kg0123456789abcdef"], 1, "found, not made anew");
    assert_eq!(again.epoch.unwrap().0, 2, "the volume's epoch went on");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_while_nothing_changes() {
    let world = World::with_tier(json!({})).await;
    let operator = world.operator();
    for n in 0..3 {
        world.create::<Graph>(graph_object(&format!("g{n}"), json!({}))).await;
    }
    for n in 0..3 {
        world
            .until::<Graph>(&format!("g{n}"), "measured", |g| {
                g.status.as_ref().is_some_and(|s| s.sizes.is_some())
            })
            .await;
    }
    let versions = async || {
        let mut versions = Vec::new();
        versions.extend(
            world
                .list::<Graph>()
                .await
                .iter()
                .map(|o| (o.name_any(), o.resource_version())),
        );
        versions.extend(
            world
                .list::<GraphNode>()
                .await
                .iter()
                .map(|o| (o.name_any(), o.resource_version())),
        );
        versions.extend(
            world
                .list::<GraphVolume>()
                .await
                .iter()
                .map(|o| (o.name_any(), o.resource_version())),
        );
        versions.extend(
            world
                .list::<Tier>()
                .await
                .iter()
                .map(|o| (o.name_any(), o.resource_version())),
        );
        versions
    };
    // Everything has settled when several looks, with renewals of leases in between, see the same.
    world
        .eventually("everything has settled", async || {
            let before = versions().await;
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_millis(700)).await;
                if before != versions().await {
                    return false;
                }
            }
            true
        })
        .await;
    let (before, deeds) = (versions().await, operator.gate.deeds().len());
    operator.stop().await;
    // A new operator looks at everything, and has nothing to do either.
    let operator = world.operator();
    world
        .eventually("the new operator has looked at everything", async || {
            let text = operator.metrics.encode();
            ["Graph", "GraphNode", "GraphVolume", "Tier"]
                .iter()
                .all(|kind| text.contains(&format!(r#"reconciles_total{{kind="{kind}",outcome="ok"}}"#)))
        })
        .await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(
        operator.gate.deeds(),
        Vec::<String>::new(),
        "after {deeds} deeds of the first"
    );
    assert_eq!(before, versions().await);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pausing_stops_everything_and_says_so() {
    let world = World::with_tier(json!({})).await;
    let operator = world.operator();
    world
        .create::<Graph>(graph_object("karate", json!({"paused": true})))
        .await;
    world.until_says::<Graph>("karate", "Paused", "True", "Paused").await;
    assert!(world.list::<GraphNode>().await.is_empty());
    world.patch::<Graph>("karate", json!({"spec": {"paused": false}})).await;
    world.until_ready::<Graph>("karate").await;
    world
        .patch::<Graph>(
            "karate",
            json!({"metadata": {"annotations": {"graphplane.dev/paused": "true"}}}),
        )
        .await;
    world.until_says::<Graph>("karate", "Paused", "True", "Paused").await;
    let grown = format!("{DDL}\nCREATE NODE TABLE B(x INT64 PRIMARY KEY);");
    let paused = world
        .patch::<Graph>("karate", json!({"spec": {"schema": {"ddl": grown}}}))
        .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let seen = world.get::<Graph>("karate").await.status.unwrap();
    assert_eq!(seen.applied_schema.unwrap().statements, 2);
    assert!(
        seen.observed_generation < paused.metadata.generation,
        "what was not looked at is not claimed"
    );
    world
        .patch::<Graph>(
            "karate",
            json!({"metadata": {"annotations": {"graphplane.dev/paused": null}}}),
        )
        .await;
    world
        .until::<Graph>("karate", "grown", |g| {
            g.status
                .as_ref()
                .and_then(|s| s.applied_schema.clone())
                .is_some_and(|a| a.statements == 3)
        })
        .await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_graph_keeps_its_data_and_comes_back() {
    let world = World::with_tier(json!({})).await;
    let operator = world.operator();
    world.create::<Graph>(graph_object("karate", json!({}))).await;
    world.until_ready::<Graph>("karate").await;
    world
        .patch::<Graph>("karate", json!({"spec": {"suspended": true}}))
        .await;
    let suspended = world.until_says::<Graph>("karate", "Ready", "False", "Suspended").await;
    assert_eq!(suspended.status.unwrap().phase, Some(GraphPhase::Suspended));
    assert_eq!(world.machines.databases().len(), 1);
    world
        .patch::<Graph>("karate", json!({"spec": {"suspended": false}}))
        .await;
    world.until_ready::<Graph>("karate").await;
    operator.stop().await;
}
