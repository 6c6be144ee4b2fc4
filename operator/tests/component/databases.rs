//! Schemas: made, grown, refused.

use crate::world::{DDL, World, graph_object};
use graphplane_crds::graph::GraphPhase;
use graphplane_crds::{Graph, GraphVolume};
use serde_json::json;

fn applied(graph: &Graph) -> u32 {
    graph
        .status
        .as_ref()
        .and_then(|s| s.applied_schema.as_ref())
        .map_or(0, |a| a.statements)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_grows_while_the_graph_serves() {
    let world = World::with_tier(json!({})).await;
    let operator = world.operator();
    world
        .create::<Graph>(graph_object("karate", json!({"graphId": "kg0123456789abcdef"})))
        .await;
    world.until_ready::<Graph>("karate").await;
    let grown = format!("{DDL}\n// more; of it\nCREATE NODE TABLE B(x INT64 PRIMARY KEY);");
    world
        .patch::<Graph>("karate", json!({"spec": {"schema": {"ddl": grown}}}))
        .await;
    world.until::<Graph>("karate", "grown", |g| applied(g) == 3).await;
    assert_eq!(world.machines.databases()["kg0123456789abcdef"].len(), 3);
    let refused = format!("{grown}\nCREATE NODE TABLE WRONG(x INT64 PRIMARY KEY);");
    world
        .patch::<Graph>("karate", json!({"spec": {"schema": {"ddl": refused}}}))
        .await;
    let stalled = world
        .until_says::<Graph>("karate", "Stalled", "True", "SchemaRefused")
        .await;
    assert_eq!(applied(&stalled), 3);
    let status = stalled.status.unwrap();
    assert_eq!(status.phase, Some(GraphPhase::Ready), "what was there serves on");
    let message = &status.conditions.iter().find(|c| c.type_ == "Stalled").unwrap().message;
    assert!(
        message.contains("spec.schema.ddl") && message.contains("statement 1"),
        "{message}"
    );
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_being_made_to_replace_another_is_none_of_its_own() {
    let world = World::with_tier(json!({})).await;
    let operator = world.operator();
    world
        .create::<Graph>(graph_object("karate", json!({"graphId": "kg0123456789abcdef"})))
        .await;
    world.until_ready::<Graph>("karate").await;
    let disk = world.machines.disk("std-0");
    disk.lock().databases.insert("kg0123456789abcdef-wip".into(), vec![]);
    // A renewal brings it to the operator; another graph on the volume shows that it was heard of.
    world
        .create::<Graph>(graph_object("other", json!({"graphId": "kgfedcba9876543210"})))
        .await;
    world.until_ready::<Graph>("other").await;
    let volume = world.until::<GraphVolume>("std-0", "with both", |v| {
        v.status.as_ref().is_some_and(|s| s.databases.len() == 2)
    });
    let databases = volume.await.status.unwrap().databases;
    assert_eq!(databases, ["kg0123456789abcdef", "kgfedcba9876543210"]);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_schema_makes_nothing_and_is_not_tried_for_ever() {
    let world = World::with_tier(json!({})).await;
    let operator = world.operator();
    let ddl = format!("{DDL} CREATE NODE TABLE WRONG(x INT64 PRIMARY KEY);");
    world
        .create::<Graph>(graph_object(
            "karate",
            json!({"schema": {"type": "custom", "ddl": ddl}}),
        ))
        .await;
    let stalled = world
        .until_says::<Graph>("karate", "Stalled", "True", "SchemaRefused")
        .await;
    assert_eq!(stalled.status.unwrap().phase, Some(GraphPhase::Failed));
    assert!(world.machines.databases().is_empty(), "nothing is half-created");
    let attempts = |deeds: Vec<String>| deeds.iter().filter(|d| d.starts_with("agent create")).count();
    let before = attempts(operator.gate.deeds());
    operator.stop().await;
    let again = world.operator();
    world
        .eventually("the new operator has looked at it", async || {
            again
                .metrics
                .encode()
                .contains(r#"reconciles_total{kind="Graph",outcome="ok"}"#)
        })
        .await;
    // An agent that was still registering may have been asked more than once.
    assert!(before >= 1);
    assert_eq!(attempts(again.gate.deeds()), 0);
    // Nothing was made, so there is nothing to back up.
    world.delete::<Graph>("karate").await;
    world.until_gone::<Graph>("karate").await;
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn base_tables_come_with_the_type() {
    let world = World::with_tier(json!({})).await;
    let operator = world.operator();
    let entity = json!({"graphId": "kg0123456789abcdef", "schema": {"type": "entity", "ddl": DDL}});
    world.create::<Graph>(graph_object("company", entity)).await;
    world
        .create::<Graph>(graph_object("sec", json!({"schema": {"type": "shared"}})))
        .await;
    let company = world.until_ready::<Graph>("company").await;
    let shared = world.until_ready::<Graph>("sec").await;
    assert_eq!(applied(&company), 2);
    assert_eq!(
        shared.status.unwrap().graph_id.unwrap().as_str(),
        "sec",
        "a repository keeps its name"
    );
    let databases = world.machines.databases();
    assert_eq!((databases["kg0123456789abcdef"].len(), databases["sec"].len()), (3, 1));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_this_version_does_not_do_is_named() {
    let world = World::with_tier(json!({})).await;
    let operator = world.operator();
    world
        .create::<Graph>(graph_object("copy", json!({"bootstrap": {"snapshot": "snap-1"}})))
        .await;
    let stalled = world
        .until_says::<Graph>("copy", "Stalled", "True", "NotSupported")
        .await;
    assert!(
        stalled
            .status
            .unwrap()
            .conditions
            .iter()
            .any(|c| c.message.contains("spec.bootstrap.snapshot"))
    );
    assert!(world.machines.alive().is_empty());
    world
        .create::<Graph>(graph_object(
            "nightly",
            json!({"backup": {"schedule": "0 2 * * *", "retentionDays": 7}}),
        ))
        .await;
    let nightly = world.until_ready::<Graph>("nightly").await.status.unwrap();
    let backups = nightly.conditions.iter().find(|c| c.type_ == "BackupCurrent").unwrap();
    assert_eq!(
        (backups.status.as_str(), backups.reason.as_str()),
        ("False", "NotSupported")
    );
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_somebody_removed_is_not_made_anew() {
    let world = World::with_tier(json!({})).await;
    let operator = world.operator();
    world
        .create::<Graph>(graph_object("karate", json!({"graphId": "kg0123456789abcdef"})))
        .await;
    world.until_ready::<Graph>("karate").await;
    // It is missed only by a list that the agent made well after the database; so the clock of the condition is set back.
    operator.stop().await;
    let mut graph = world.get::<Graph>("karate").await;
    let status = graph.status.as_mut().unwrap();
    for condition in status.conditions.iter_mut().filter(|c| c.type_ == "DatabaseReady") {
        condition.last_transition_time.0 -= jiff::SignedDuration::from_secs(3600);
    }
    let api: kube::Api<Graph> = kube::Api::namespaced(world.client.clone(), "default");
    api.replace_status("karate", &Default::default(), &graph).await.unwrap();
    world.machines.disk("std-0").lock().databases.clear();
    let operator = world.operator();
    let stalled = world
        .until_says::<Graph>("karate", "Stalled", "True", "DatabaseMissing")
        .await;
    assert_eq!(stalled.status.unwrap().phase, Some(GraphPhase::Failed));
    assert!(world.machines.databases().is_empty());
    operator.stop().await;
}
