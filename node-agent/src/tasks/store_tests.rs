#![allow(clippy::unwrap_used)]
use super::*;
use crate::registration::{
    SystemClock,
    lease::{Grant, Machine},
};
use serde_json::json;

fn metadata(graph: &str) -> Map<String, Value> {
    Map::from_iter([("graph_id".to_owned(), json!(graph))])
}

async fn ended(mut state: watch::Receiver<TaskRecord>) -> TaskRecord {
    state.wait_for(|record| record.status.is_final()).await.unwrap().clone()
}

#[tokio::test]
async fn a_task_is_recorded_from_start_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = TaskStore::open(dir.path(), Retention::default()).unwrap();
    let task = store
        .start(
            TaskType::Backup,
            "backup_kg1",
            metadata("kg1"),
            None,
            |context| async move {
                context.progress(5, 10);
                context.progress(10, 10);
                Ok(json!({"key": "k"}))
            },
        )
        .await
        .unwrap();
    let id = task.id.clone();
    assert!(id.starts_with("backup_kg1_"));
    let record = ended(task.state).await;
    assert_eq!((record.status, record.progress_percent), (TaskStatus::Completed, 100.0));
    assert_eq!((record.records_processed, record.estimated_size), (Some(10), Some(10)));
    let again = TaskStore::open(dir.path(), Retention::default()).unwrap();
    assert_eq!(again.get(&id).unwrap(), record, "a restart shows the same");
    assert!(matches!(again.cancel(&id), Err(TaskError::Final { .. })));
    assert!(matches!(again.get("nope"), Err(TaskError::NotFound(_))));
}

#[tokio::test]
async fn errors_and_panics_fail_the_task() {
    let dir = tempfile::tempdir().unwrap();
    let store = TaskStore::open(dir.path(), Retention::default()).unwrap();
    let failing = store
        .start(TaskType::Ingestion, "a", metadata("g"), None, |_| async {
            Err("no".to_owned())
        })
        .await
        .unwrap();
    assert_eq!(ended(failing.state).await.error.as_deref(), Some("no"));
    let panicking = store
        .start(TaskType::Ingestion, "b", metadata("g"), None, |_| async {
            panic!("boom")
        })
        .await
        .unwrap();
    let record = ended(panicking.state).await;
    assert_eq!(record.status, TaskStatus::Failed);
    assert!(record.error.unwrap().contains("internal error"));
    let stats = store.stats();
    assert_eq!(
        (stats.total, stats.by_status["failed"], stats.by_type["ingestion"]),
        (2, 2, 2)
    );
    assert_eq!(store.list(Some(TaskStatus::Completed), None, None, 10), vec![]);
    assert_eq!(store.list(None, Some(TaskType::Ingestion), None, 1).len(), 1);
}

#[tokio::test]
async fn a_task_that_waits_or_works_can_be_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let store = TaskStore::open(dir.path(), Retention::default()).unwrap();
    let turn = Arc::new(Semaphore::new(1));
    let start = |name: &'static str| {
        store.start(
            TaskType::Ingestion,
            name,
            metadata(name),
            Some(turn.clone()),
            |context| async move {
                context.cancelled().cancelled().await;
                Err("stopped".to_owned())
            },
        )
    };
    let mut first = start("first").await.unwrap();
    first
        .state
        .wait_for(|record| record.status == TaskStatus::Running)
        .await
        .unwrap();
    let second = start("second").await.unwrap();
    assert_eq!(store.get(&second.id).unwrap().status, TaskStatus::Pending);
    assert_eq!(
        store.find_unfinished(TaskType::Ingestion, &[("graph_id", "second")]),
        Some(second.id.clone())
    );
    store.cancel(&second.id).unwrap();
    assert_eq!(ended(second.state).await.status, TaskStatus::Cancelled);
    store.cancel(&first.id).unwrap();
    let record = ended(first.state).await;
    assert_eq!(
        (record.status, record.error.as_deref()),
        (TaskStatus::Cancelled, Some("cancelled by request"))
    );
    assert_eq!(record.interrupted, Some(Interruption::Request));
    assert_eq!(
        store.find_unfinished(TaskType::Ingestion, &[("graph_id", "second")]),
        None
    );
}

#[tokio::test]
async fn shutdown_interrupts_what_does_not_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = TaskStore::open(dir.path(), Retention::default()).unwrap();
    let task = store
        .start(TaskType::Backup, "slow", metadata("g"), None, |context| async move {
            context.cancelled().cancelled().await;
            Err("stopped".to_owned())
        })
        .await
        .unwrap();
    store.shutdown(Duration::from_millis(10)).await;
    let record = ended(task.state).await;
    assert_eq!(record.status, TaskStatus::Failed);
    assert_eq!(record.error.as_deref(), Some("interrupted by the node's shutdown"));
    assert_eq!(record.interrupted, Some(Interruption::Shutdown));
    let refused = store
        .start(TaskType::Backup, "late", metadata("g"), None, |_| async {
            Ok(json!(1))
        })
        .await;
    assert!(matches!(refused, Err(TaskError::Stopping)));
}

#[tokio::test]
async fn a_task_that_the_end_of_the_lease_cut_off_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = TaskStore::open(dir.path(), Retention::default()).unwrap();
    let standing = Standing::new(Machine::registering(0), SystemClock);
    let _ = standing.registered(Grant {
        epoch: 1,
        sent: standing.now(),
        lease: Duration::from_secs(3600),
    });
    store.follow(standing.clone());
    let failing = store.start(TaskType::Fork, "a", metadata("g"), None, |_| async {
        Err("interrupted is not a column of lease".to_owned())
    });
    let record = ended(failing.await.unwrap().state).await;
    assert_eq!((record.status, record.interrupted), (TaskStatus::Failed, None));
    let ends = standing.permit().unwrap();
    let cut = store.start(TaskType::Fork, "b", metadata("g"), None, |_| async move {
        ends.cancelled().await;
        Err("no right to write any more".to_owned())
    });
    let mut cut = cut.await.unwrap();
    let begun = |record: &TaskRecord| record.status == TaskStatus::Running;
    cut.state.wait_for(begun).await.unwrap();
    standing.refused();
    let record = ended(cut.state).await;
    assert_eq!(
        (record.status, record.interrupted),
        (TaskStatus::Failed, Some(Interruption::Fenced))
    );
}

#[test]
fn what_was_under_way_is_told_honestly_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let record = |id: &str, kind, status| TaskRecord {
        task_id: id.into(),
        task_type: kind,
        status,
        created_at: timestamp(),
        started_at: Some(timestamp()),
        completed_at: None,
        progress_percent: 40.0,
        estimated_size: None,
        records_processed: None,
        last_heartbeat: None,
        error: None,
        interrupted: None,
        result: None,
        metadata: Map::new(),
    };
    write(dir.path(), &record("b_1", TaskType::Backup, TaskStatus::Running)).unwrap();
    write(dir.path(), &record("i_1", TaskType::Ingestion, TaskStatus::Pending)).unwrap();
    for kind in TaskType::ALL {
        write(dir.path(), &record(kind.as_str(), kind, TaskStatus::Running)).unwrap();
    }
    let said = |kind: TaskType| interrupted(&record("x", kind, TaskStatus::Running));
    let distinct: HashSet<String> = TaskType::ALL.into_iter().map(said).collect();
    assert_eq!(
        distinct.len(),
        TaskType::ALL.len(),
        "each sort of task leaves something else behind"
    );
    std::fs::write(dir.path().join("half.json.123.new"), "{").unwrap();
    std::fs::write(dir.path().join("broken.json"), "{").unwrap();
    let store = TaskStore::open(dir.path(), Retention::default()).unwrap();
    let backup = store.get("b_1").unwrap();
    assert_eq!(backup.status, TaskStatus::Failed);
    assert!(backup.completed_at.is_some());
    assert_eq!(backup.interrupted, Some(Interruption::Restart));
    assert!(backup.error.unwrap().starts_with("interrupted by restart: no manifest"));
    assert!(store.get("i_1").unwrap().error.unwrap().contains("had not started"));
    assert!(!dir.path().join("half.json.123.new").exists());
    for kind in TaskType::ALL {
        let record = store.get(kind.as_str()).unwrap();
        assert_eq!((record.status, record.error), (TaskStatus::Failed, Some(said(kind))));
    }
    let stats = store.stats();
    assert_eq!(stats.total, 2 + TaskType::ALL.len());
    assert_eq!(stats.by_status["failed"], stats.total, "nothing runs for ever");
}

#[test]
fn old_tasks_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let record = |id: &str, ended: &str| TaskRecord {
        task_id: id.into(),
        task_type: TaskType::Backup,
        status: TaskStatus::Completed,
        created_at: ended.into(),
        started_at: None,
        completed_at: Some(ended.into()),
        progress_percent: 100.0,
        estimated_size: None,
        records_processed: None,
        last_heartbeat: None,
        error: None,
        interrupted: None,
        result: Some(json!(null)),
        metadata: Map::new(),
    };
    write(dir.path(), &record("old", "2020-01-01T00:00:00.000Z")).unwrap();
    write(dir.path(), &record("new", &timestamp())).unwrap();
    for id in ["old", "new", "nobody"] {
        for table in ["A", "B"] {
            std::fs::write(dir.path().join(format!("{id}.{table}.attached")), id).unwrap();
        }
    }
    let store = TaskStore::open(dir.path(), Retention::default()).unwrap();
    assert!(store.get("old").is_err() && store.get("new").is_ok());
    assert!(!dir.path().join("old.json").exists());
    // What a task keeps goes with it.
    let kept: Vec<bool> = ["old", "new", "nobody"]
        .iter()
        .flat_map(|id| ["A", "B"].map(|table| dir.path().join(format!("{id}.{table}.attached")).exists()))
        .collect();
    assert_eq!(kept, [false, false, true, true, false, false]);
}

#[tokio::test]
async fn as_many_tasks_are_remembered_as_was_chosen() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Retention {
        time: Duration::from_secs(3600),
        most: 2,
    };
    let store = TaskStore::open(dir.path(), retention).unwrap();
    let mut last = None;
    for _ in 0..4 {
        let started = store.start(TaskType::Backup, "b", metadata("g"), None, |_| async {
            Ok(json!(null))
        });
        last = Some(ended(started.await.unwrap().state).await);
    }
    drop(store);
    let store = TaskStore::open(dir.path(), retention).unwrap();
    assert_eq!(store.stats().total, 2);
    // And as long.
    let old = TaskRecord {
        completed_at: Some("2020-01-01T00:00:00.000Z".into()),
        ..last.unwrap()
    };
    for (years, remembered) in [(1, 1), (50, 2)] {
        write(dir.path(), &old).unwrap();
        let time = Duration::from_secs(years * 365 * 24 * 3600);
        let store = TaskStore::open(dir.path(), Retention { time, ..retention }).unwrap();
        assert_eq!(store.stats().total, remembered, "{years} years");
        assert_eq!(store.get(&old.task_id).is_ok(), remembered == 2);
    }
}

#[tokio::test]
async fn a_task_keeps_a_file_for_each_table() {
    let dir = tempfile::tempdir().unwrap();
    let [one, other, third] = ["A", "A-b", "C"].map(|name| TableName::parse(name).unwrap());
    let tables = [one.clone(), other.clone()];
    let store = TaskStore::open(dir.path(), Retention::default()).unwrap();
    let task = {
        let of = store.clone();
        let work = move |context| async move {
            for table in &tables {
                let rows = table.as_str().as_bytes().to_vec();
                let attached = of.attach(&context, table, rows).await;
                attached.map_err(|error| error.to_string())?;
            }
            Ok(json!(null))
        };
        store
            .start(TaskType::Ingestion, "i", metadata("g"), None, work)
            .await
            .unwrap()
    };
    assert_eq!(ended(task.state).await.status, TaskStatus::Completed);
    drop(store);
    let store = TaskStore::open(dir.path(), Retention::default()).unwrap();
    for (table, kept) in [(&one, Some("A")), (&other, Some("A-b")), (&third, None)] {
        let kept = kept.map(|text| text.as_bytes().to_vec());
        assert_eq!(store.attached(&task.id, table).await.unwrap(), kept, "{table}");
    }
    assert!(matches!(
        store.attached("../etc/passwd", &one).await,
        Err(TaskError::NotFound(_))
    ));
}
