//! Backups by schedule, what is kept of them, and restore drills. What is due is made so by a status that says that the
//! last time was years ago: nothing waits for a clock.

use crate::crashes::{AT_ONCE, cuts, with_cut};
use crate::gate::Cut;
use crate::world::{World, graph_object, schedule_object};
use futures::StreamExt;
use graphplane_core::cron::Schedule;
use graphplane_core::names;
use graphplane_crds::backup::BackupPhase;
use graphplane_crds::{Backup, BackupSchedule, Graph, GraphNode, GraphVolume};
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

const ID: &str = "kg0123456789abcdef";
const LONG_AGO: &str = "2020-06-01T00:00:00Z";

/// A world with a graph that is ready, and no operator.
async fn world() -> World {
    let world = World::with_tier(json!({})).await;
    let operator = world.operator();
    world
        .create::<Graph>(graph_object("karate", json!({"graphId": ID})))
        .await;
    world.until_ready::<Graph>("karate").await;
    world.until_ready::<GraphNode>("std-0").await;
    world.until_ready::<GraphVolume>("std-0").await;
    operator.stop().await;
    world
}

/// A schedule that is overdue, with its drill.
async fn overdue(world: &World, extra: Value) {
    world.create::<BackupSchedule>(schedule_object("nightly", extra)).await;
    let status = json!({"lastScheduleTime": LONG_AGO, "lastDrillTime": LONG_AGO});
    world.patch_status::<BackupSchedule>("nightly", status).await;
}

/// The Backup that is due by a cron expression.
fn due(expression: &str) -> String {
    let schedule: Schedule = expression.parse().unwrap();
    names::scheduled_backup("nightly", schedule.last(Timestamp::now()).unwrap())
}

fn databases(world: &World) -> Vec<String> {
    world.machines.disk("std-0").lock().databases.keys().cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_is_made_up_for_once_and_drilled() {
    let world = world().await;
    overdue(&world, json!({"drillSchedule": "@yearly"})).await;
    let operator = world.operator();
    let passed = world
        .until_says::<BackupSchedule>("nightly", "DrillPassed", "True", "DrillPassed")
        .await;
    let message = passed
        .status
        .unwrap()
        .conditions
        .into_iter()
        .find(|c| c.type_ == "DrillPassed");
    assert!(message.unwrap().message.contains("2 nodes and 1 relationships"));
    assert_eq!(world.names::<Backup>().await, [due("@yearly")], "one for all the years");
    assert_eq!(databases(&world), [ID], "the scratch database is gone");
    let backup: Backup = world.until_ready(&due("@yearly")).await;
    assert_eq!(backup.labels()["graphplane.dev/schedule"], "nightly");
    let schedule = world.until_ready::<BackupSchedule>("nightly").await.status.unwrap();
    assert!(schedule.drill.is_none() && schedule.next_schedule_time.is_some());
    assert!(schedule.last_drill_time.unwrap().0 > schedule.last_schedule_time.unwrap().0);
    world.delete::<BackupSchedule>("nightly").await;
    world.until_gone::<BackupSchedule>("nightly").await;
    let kept: Backup = world.get(&due("@yearly")).await;
    assert!(
        kept.metadata.deletion_timestamp.is_none(),
        "backups outlive their schedule"
    );
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_finds_what_a_backup_lost() {
    let world = world().await;
    world.machines.behaviour.lose_nodes.store(true, Ordering::SeqCst);
    overdue(&world, json!({"drillSchedule": "@yearly"})).await;
    let operator = world.operator();
    let failed = world
        .until_says::<BackupSchedule>("nightly", "DrillPassed", "False", "DrillFailed")
        .await;
    let says = failed
        .status
        .unwrap()
        .conditions
        .into_iter()
        .find(|c| c.type_ == "DrillPassed");
    assert!(says.unwrap().message.contains("1 nodes"));
    assert_eq!(databases(&world), [ID]);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_is_deleted_during_a_drill_leaves_no_database() {
    let world = world().await;
    world.machines.behaviour.hold_restores.store(true, Ordering::SeqCst);
    overdue(&world, json!({"drillSchedule": "@yearly"})).await;
    let operator = world.operator();
    world
        .until::<BackupSchedule>("nightly", "restoring", |s| {
            let drill = s.status.as_ref().and_then(|s| s.drill.as_ref());
            drill.is_some_and(|d| d.task_id.is_some())
        })
        .await;
    world.delete::<BackupSchedule>("nightly").await;
    world.until_gone::<BackupSchedule>("nightly").await;
    let disk = world.machines.disk("std-0");
    let at_work = disk.lock().tasks.values().any(|task| task["status"] == "running");
    assert!(!at_work, "it would restore a database that nobody removes");
    assert_eq!(databases(&world), [ID]);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_runs_at_a_time_and_the_old_ones_go() {
    let world = world().await;
    world.machines.behaviour.hold_backups.store(true, Ordering::SeqCst);
    overdue(&world, json!({"retention": {"days": 1, "keepAtLeast": 1}})).await;
    let operator = world.operator();
    let first = due("@yearly");
    world
        .until::<Backup>(&first, "running", |b| {
            b.status.as_ref().is_some_and(|s| s.task_id.is_some())
        })
        .await;
    // The minute that has begun is newer than the year's beginning, and due.
    world
        .patch::<BackupSchedule>("nightly", json!({"spec": {"schedule": "* * * * *"}}))
        .await;
    world
        .until_says::<BackupSchedule>("nightly", "Progressing", "True", "BackupRunning")
        .await;
    assert_eq!(world.names::<Backup>().await, std::slice::from_ref(&first));
    world.machines.behaviour.hold_backups.store(false, Ordering::SeqCst);
    world.until_ready::<Backup>(&first).await;
    world
        .eventually("a second one is complete", async || {
            let backups = world.list::<Backup>().await;
            let complete = |b: &&Backup| b.status.as_ref().and_then(|s| s.phase) == Some(BackupPhase::Completed);
            backups.iter().filter(complete).count() >= 2
        })
        .await;
    world
        .patch_status::<Backup>(&first, json!({"completedAt": LONG_AGO}))
        .await;
    world.until_gone::<Backup>(&first).await;
    assert!(
        !world
            .objects()
            .join(format!("backups/{ID}/1/{first}/manifest.json"))
            .exists()
    );
    // A tier allows two a day by default, and one of them is there.
    world
        .patch::<BackupSchedule>("nightly", json!({"spec": {"suspended": true}}))
        .await;
    world
        .until_says::<BackupSchedule>("nightly", "Ready", "False", "Suspended")
        .await;
    assert!(!world.names::<Backup>().await.is_empty(), "the newest stays");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_without_its_graph_says_so() {
    let world = World::with_tier(json!({})).await;
    overdue(&world, json!({})).await;
    let operator = world.operator();
    world
        .until_says::<BackupSchedule>("nightly", "Ready", "False", "GraphNotFound")
        .await;
    assert!(world.names::<Backup>().await.is_empty());
    world.create::<Graph>(graph_object("karate", json!({}))).await;
    world.until_ready::<Backup>(&due("@yearly")).await;
    world.until_ready::<BackupSchedule>("nightly").await;
    operator.stop().await;
}

async fn told(cut: Option<Cut>) -> (usize, bool) {
    let world = world().await;
    let story = async {
        overdue(&world, json!({"drillSchedule": "@yearly"})).await;
        world
            .until_says::<BackupSchedule>("nightly", "DrillPassed", "True", "DrillPassed")
            .await;
        world.delete::<BackupSchedule>("nightly").await;
        world.until_gone::<BackupSchedule>("nightly").await;
    };
    let ((), operator, reached) = with_cut(&world, cut, story).await;
    let deeds = operator.gate.deeds().len();
    operator.kill().await;
    let at = format!("after a cut at {cut:?}");
    assert_eq!(world.names::<Backup>().await, [due("@yearly")], "{at}");
    assert_eq!(databases(&world), [ID], "{at}");
    world.server.shutdown().await;
    (deeds, reached)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_anywhere_makes_no_second_backup_and_leaves_no_scratch_database() {
    let (deeds, _) = told(None).await;
    assert!(deeds > 10, "{deeds}");
    let runs = futures::stream::iter(cuts(deeds)).map(|cut| told(Some(cut)));
    let reached: Vec<(usize, bool)> = runs.buffer_unordered(AT_ONCE).collect().await;
    let reached = reached.into_iter().filter(|(_, reached)| *reached).count();
    assert!(reached >= deeds, "only {reached} of {deeds} deeds were cut");
}
