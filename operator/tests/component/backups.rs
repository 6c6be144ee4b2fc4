//! Backups on demand.

use crate::world::{World, backup_object, graph_object};
use graphplane_crds::backup::BackupPhase;
use graphplane_crds::{Backup, Graph};
use serde_json::json;
use std::sync::atomic::Ordering;

async fn world() -> World {
    let world = World::with_tier(json!({})).await;
    world
        .create::<Graph>(graph_object("karate", json!({"graphId": "kg0123456789abcdef"})))
        .await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_made_read_back_and_noted_at_its_graph() {
    let world = world().await;
    let operator = world.operator();
    world
        .create::<Backup>(backup_object("b", json!({"graph": "karate"})))
        .await;
    let backup = world.until_ready::<Backup>("b").await.status.unwrap();
    assert_eq!(backup.phase, Some(BackupPhase::Completed));
    assert_eq!(backup.key.as_deref(), Some("backups/kg0123456789abcdef/1/b"));
    assert_eq!(backup.sha256.unwrap().len(), 64);
    let graph = world.until::<Graph>("karate", "backed up", |g| {
        g.status.as_ref().is_some_and(|s| s.last_backup.is_some())
    });
    assert_eq!(graph.await.status.unwrap().last_backup.unwrap().name, "b");
    let key = world.objects().join("backups/kg0123456789abcdef/1/b");
    assert!(key.join("manifest.json").exists());
    world.delete::<Backup>("b").await;
    world.until_gone::<Backup>("b").await;
    assert!(
        !key.join("manifest.json").exists() && !key.join("graph.lbug.zst").exists(),
        "its objects go with it"
    );
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_comes_before_its_database_waits_for_it() {
    let world = World::with_tier(json!({})).await;
    world.machines.behaviour.never_register.store(true, Ordering::SeqCst);
    let operator = world.operator();
    world
        .create::<Backup>(backup_object("b", json!({"graph": "karate"})))
        .await;
    world.until_says::<Backup>("b", "Ready", "False", "GraphNotFound").await;
    world.create::<Graph>(graph_object("karate", json!({}))).await;
    world.until_says::<Backup>("b", "Ready", "False", "GraphNotReady").await;
    world.machines.behaviour.never_register.store(false, Ordering::SeqCst);
    assert_eq!(
        world.until_ready::<Backup>("b").await.status.unwrap().phase,
        Some(BackupPhase::Completed)
    );
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_snapshot_is_refused_by_name() {
    let world = world().await;
    let operator = world.operator();
    world
        .create::<Backup>(backup_object(
            "b",
            json!({"graph": "karate", "method": "VolumeSnapshot"}),
        ))
        .await;
    let refused = world.until_says::<Backup>("b", "Stalled", "True", "NotSupported").await;
    assert!(
        refused
            .status
            .unwrap()
            .conditions
            .iter()
            .any(|c| c.message.contains("spec.method"))
    );
    world.delete::<Backup>("b").await;
    world.until_gone::<Backup>("b").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_deleted_while_it_is_made_leaves_nothing() {
    let world = world().await;
    world.machines.behaviour.hold_backups.store(true, Ordering::SeqCst);
    let operator = world.operator();
    world
        .create::<Backup>(backup_object("b", json!({"graph": "karate"})))
        .await;
    world
        .until::<Backup>("b", "running", |b| {
            b.status.as_ref().is_some_and(|s| s.task_id.is_some())
        })
        .await;
    world.delete::<Backup>("b").await;
    world.until_gone::<Backup>("b").await;
    assert!(
        !world
            .objects()
            .join("backups/kg0123456789abcdef/1/b/manifest.json")
            .exists()
    );
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_survives_operator_and_machine() {
    let world = world().await;
    world.machines.behaviour.hold_backups.store(true, Ordering::SeqCst);
    let operator = world.operator();
    world
        .create::<Backup>(backup_object("b", json!({"graph": "karate"})))
        .await;
    world
        .until::<Backup>("b", "running", |b| {
            b.status.as_ref().is_some_and(|s| s.task_id.is_some())
        })
        .await;
    operator.kill().await;
    world.machines.disk("std-0").lock().tasks.values_mut().for_each(|task| {
        task["status"] = json!("failed");
        task["error"] = json!("interrupted by restart: no manifest was written");
        task["interrupted"] = json!("restart");
    });
    world.machines.kill("std-0");
    world.machines.behaviour.hold_backups.store(false, Ordering::SeqCst);
    let operator = world.operator();
    let done = world.until_ready::<Backup>("b").await.status.unwrap();
    assert_eq!(done.phase, Some(BackupPhase::Completed));
    assert_eq!(
        done.key.as_deref(),
        Some("backups/kg0123456789abcdef/1/b"),
        "the place that was written down stays"
    );
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_backup_says_why_and_stays_failed() {
    let world = world().await;
    *world.machines.behaviour.fail_backups.lock() = Some("no space left".into());
    let operator = world.operator();
    world
        .create::<Backup>(backup_object("b", json!({"graph": "karate"})))
        .await;
    let failed = world
        .until_says::<Backup>("b", "Stalled", "True", "BackupFailed")
        .await
        .status
        .unwrap();
    assert_eq!(failed.phase, Some(BackupPhase::Failed));
    assert!(failed.conditions.iter().any(|c| c.message.contains("no space left")));
    world
        .create::<Backup>(backup_object("later", json!({"graph": "nobody"})))
        .await;
    world
        .until_says::<Backup>("later", "Ready", "False", "GraphNotFound")
        .await;
    operator.stop().await;
}
