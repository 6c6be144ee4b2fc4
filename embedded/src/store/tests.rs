#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::*;

const LIMITS: HistoryLimits = HistoryLimits {
    events: 100,
    bytes: 1 << 20,
};

struct Fixture {
    dir: tempfile::TempDir,
    store: Store,
    resource: Arc<str>,
}

impl Fixture {
    fn new(limits: HistoryLimits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state.redb"), limits).unwrap();
        Self {
            dir,
            store,
            resource: "things.test.dev".into(),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("state.redb")
    }

    fn key(&self, namespace: &str, name: &str) -> Key {
        Key::new(&self.resource, namespace, name)
    }

    async fn reopen(self, limits: HistoryLimits) -> Self {
        self.store.close().await;
        let store = Store::open(&self.path(), limits).unwrap();
        Self { store, ..self }
    }

    async fn put(&self, namespace: &str, name: &str, expect: Expect, text: &str) -> Result<Arc<Object>, Refusal> {
        let value = json!({"apiVersion": "test.dev/v1", "kind": "Thing", "spec": {"text": text},
            "metadata": {"name": name, "namespace": namespace, "uid": format!("uid-{name}"),
                "ownerReferences": [{"apiVersion": "v1", "kind": "Owner", "name": "o", "uid": "uid-owner"}]}});
        let change = Change::Put(Draft::new(value).unwrap());
        let write = Write {
            key: self.key(namespace, name),
            expect,
            change,
            in_active_namespace: false,
        };
        self.store.commit(write).await
    }

    async fn delete(&self, namespace: &str, name: &str) -> Arc<Object> {
        let key = self.key(namespace, name);
        let live = self.store.get(&key).unwrap();
        let change = Change::Delete(Draft::new(live.value()).unwrap());
        let expect = Expect::Revision(live.revision);
        self.store
            .commit(Write {
                key,
                expect,
                change,
                in_active_namespace: false,
            })
            .await
            .unwrap()
    }

    fn texts(&self, at: Option<u64>, namespace: Option<&str>) -> Result<Vec<String>, Expired> {
        let page = self.store.page(&PageQuery {
            resource: &self.resource,
            namespace,
            after: None,
            at,
        })?;
        Ok(page
            .objects
            .iter()
            .map(|o| format!("{}={}", o.key.name, o.value()["spec"]["text"].as_str().unwrap()))
            .collect())
    }
}

#[tokio::test]
async fn writes_are_numbered_and_checked_against_what_they_assume() {
    let f = Fixture::new(LIMITS);
    let first = f.put("a", "x", Expect::Absent, "1").await.unwrap();
    assert!(matches!(
        f.put("a", "x", Expect::Absent, "2").await,
        Err(Refusal::Exists)
    ));
    let second = f.put("a", "x", Expect::Revision(first.revision), "2").await.unwrap();
    assert_eq!(second.revision, first.revision + 1, "a refused write takes no revision");
    assert!(matches!(
        f.put("a", "x", Expect::Revision(first.revision), "3").await,
        Err(Refusal::Modified)
    ));
    assert!(matches!(
        f.put("a", "y", Expect::Revision(1), "3").await,
        Err(Refusal::Gone)
    ));
    assert_eq!(
        second.value()["metadata"]["resourceVersion"],
        second.revision.to_string()
    );
    assert_eq!(f.store.by_uid("uid-x").unwrap().revision, second.revision);
    assert_eq!(f.store.dependents("uid-owner").len(), 1);
    f.delete("a", "x").await;
    assert!(f.store.by_uid("uid-x").is_none());
    assert!(f.store.dependents("uid-owner").is_empty());
}

#[tokio::test]
async fn of_many_writers_that_expect_the_same_revision_one_wins() {
    let f = Arc::new(Fixture::new(LIMITS));
    let first = f.put("a", "x", Expect::Absent, "1").await.unwrap();
    let tasks: Vec<_> = (0..64)
        .map(|i| {
            let (f, revision) = (f.clone(), first.revision);
            tokio::spawn(async move {
                f.put("a", "x", Expect::Revision(revision), &i.to_string())
                    .await
                    .is_ok()
            })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        won += usize::from(task.await.unwrap());
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_namespace_that_is_missing_or_ending_takes_nothing_new() {
    let f = Fixture::new(LIMITS);
    let namespaces: Arc<str> = "namespaces".into();
    let write = |expect| Write {
        key: f.key("ns", "x"),
        expect,
        change: Change::Put(Draft::new(json!({"metadata": {"name": "x"}})).unwrap()),
        in_active_namespace: true,
    };
    let namespace = |deleting: bool, expect| {
        let mut value = json!({"metadata": {"name": "ns"}});
        if deleting {
            value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        let change = Change::Put(Draft::new(value).unwrap());
        Write {
            key: Key::new(&namespaces, "", "ns"),
            expect,
            change,
            in_active_namespace: false,
        }
    };
    assert!(matches!(
        f.store.commit(write(Expect::Absent)).await,
        Err(Refusal::NoNamespace)
    ));
    let created = f.store.commit(namespace(false, Expect::Absent)).await.unwrap();
    f.store.commit(write(Expect::Absent)).await.unwrap();
    f.store
        .commit(namespace(true, Expect::Revision(created.revision)))
        .await
        .unwrap();
    let refused = f
        .store
        .commit(Write {
            key: f.key("ns", "y"),
            ..write(Expect::Absent)
        })
        .await;
    assert!(matches!(refused, Err(Refusal::NamespaceTerminating)));
}

#[tokio::test]
async fn lists_can_go_back_to_any_revision_in_the_history() {
    let f = Fixture::new(LIMITS);
    let mut states = vec![(0, Vec::new())];
    let mut record = |f: &Fixture| states.push((f.store.revision(), f.texts(None, Some("a")).unwrap()));
    let x = f.put("a", "x", Expect::Absent, "1").await.unwrap();
    record(&f);
    f.put("b", "x", Expect::Absent, "other namespace").await.unwrap();
    f.put("a", "y", Expect::Absent, "1").await.unwrap();
    record(&f);
    f.put("a", "x", Expect::Revision(x.revision), "2").await.unwrap();
    record(&f);
    f.delete("a", "x").await;
    record(&f);
    f.put("a", "x", Expect::Absent, "3").await.unwrap();
    record(&f);
    for (revision, expected) in &states {
        assert_eq!(&f.texts(Some(*revision), Some("a")).unwrap(), expected, "at {revision}");
    }
    assert_eq!(f.texts(None, None).unwrap(), ["x=3", "y=1", "x=other namespace"]);
    let after = Some((Arc::from("a"), Arc::from("x")));
    let rest = f
        .store
        .page(&PageQuery {
            resource: &f.resource,
            namespace: None,
            after,
            at: None,
        })
        .unwrap();
    assert_eq!(rest.objects.len(), 2);

    let f = f.reopen(LIMITS).await;
    for (revision, expected) in &states {
        assert_eq!(
            &f.texts(Some(*revision), Some("a")).unwrap(),
            expected,
            "at {revision}, after a restart"
        );
    }
}

#[tokio::test]
async fn history_is_bounded_and_says_when_it_is_too_late() {
    let small = HistoryLimits {
        events: 3,
        bytes: 1 << 20,
    };
    let f = Fixture::new(small);
    for i in 0..10 {
        f.put("a", &format!("n{i}"), Expect::Absent, "1").await.unwrap();
    }
    let late = f.store.watch(&f.resource, None, 2).ready();
    assert_eq!(
        late.unwrap_err(),
        Expired {
            requested: 2,
            oldest: 7
        }
    );
    assert_eq!(f.store.watch(&f.resource, None, 7).ready().unwrap().len(), 3);
    assert!(f.texts(Some(2), None).is_err());

    let f = f.reopen(small).await;
    assert_eq!(f.store.revision(), 10);
    assert!(f.store.watch(&f.resource, None, 6).ready().is_err());
    assert_eq!(f.store.watch(&f.resource, None, 7).ready().unwrap().len(), 3);
    // History of another resource is not touched by this one's.
    assert!(
        f.store
            .watch(&"quiet.test.dev".into(), None, 1)
            .ready()
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn history_is_bounded_in_bytes_too() {
    let f = Fixture::new(HistoryLimits {
        events: 1000,
        bytes: 3000,
    });
    for i in 0..20 {
        f.put("a", &format!("n{i}"), Expect::Absent, &"x".repeat(500))
            .await
            .unwrap();
    }
    let kept = f.store.watch(&f.resource, None, 17).ready().unwrap().len();
    assert_eq!(kept, 3);
    assert!(f.store.watch(&f.resource, None, 1).ready().is_err());
}

#[tokio::test]
async fn watchers_see_every_event_once_in_order() {
    let f = Arc::new(Fixture::new(HistoryLimits {
        events: 10_000,
        bytes: 64 << 20,
    }));
    let mut watcher = f.store.watch(&f.resource, Some("a"), 0);
    let writers: Vec<_> = (0..8)
        .map(|w| {
            let f = f.clone();
            tokio::spawn(async move {
                for i in 0..100 {
                    f.put(
                        if i % 2 == 0 { "a" } else { "b" },
                        &format!("n{w}-{i}"),
                        Expect::Absent,
                        "1",
                    )
                    .await
                    .unwrap();
                }
            })
        })
        .collect();
    let mut seen = Vec::new();
    while seen.len() < 400 {
        let next = tokio::time::timeout(Duration::from_secs(120), watcher.next()).await;
        let next = next.unwrap_or_else(|_| panic!("no event after {} of 400", seen.len()));
        seen.extend(next.unwrap().iter().map(|e| (e.revision(), e.created())));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert!(seen.iter().all(|(_, created)| *created));
    assert!(watcher.ready().unwrap().is_empty());
    assert_eq!(watcher.position(), 800);
}

#[tokio::test]
async fn everything_survives_a_restart() {
    let f = Fixture::new(LIMITS);
    let x = f.put("a", "x", Expect::Absent, "1").await.unwrap();
    f.put("a", "y", Expect::Absent, "1").await.unwrap();
    f.put("a", "x", Expect::Revision(x.revision), "2").await.unwrap();
    let gone = f.delete("a", "y").await;
    let cluster = f.store.cluster_id().to_string();
    let f = f.reopen(LIMITS).await;
    assert_eq!(f.store.cluster_id(), cluster);
    assert_eq!(f.store.revision(), gone.revision);
    assert_eq!(f.texts(None, None).unwrap(), ["x=2"]);
    let events = f.store.watch(&f.resource, None, 0).ready().unwrap();
    let kinds: Vec<_> = events.iter().map(|e| (e.created(), e.deleted)).collect();
    assert_eq!(kinds, [(true, false), (true, false), (false, false), (false, true)]);
    assert!(matches!(&events[2].before, Before::Known(o) if o.revision == x.revision));
    let next = f.put("a", "z", Expect::Absent, "1").await.unwrap();
    assert_eq!(next.revision, gone.revision + 1);
}

#[tokio::test]
async fn a_closed_store_refuses_writes_and_still_reads() {
    let f = Fixture::new(LIMITS);
    f.put("a", "x", Expect::Absent, "1").await.unwrap();
    f.store.close().await;
    assert!(matches!(
        f.put("a", "y", Expect::Absent, "1").await,
        Err(Refusal::Closed)
    ));
    assert_eq!(f.texts(None, None).unwrap(), ["x=1"]);
}

#[tokio::test]
async fn a_second_process_is_told_that_the_file_is_taken() {
    let f = Fixture::new(LIMITS);
    let error = Store::open(&f.path(), LIMITS).err().unwrap();
    assert!(matches!(error, StoreError::Open { .. }), "{error}");
}

mod model {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Put(usize, u32),
        Delete(usize),
        Reopen,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0..4_usize, any::<u32>()).prop_map(|(name, n)| Step::Put(name, n)),
            3 => (0..4_usize).prop_map(Step::Delete),
            1 => Just(Step::Reopen),
        ];
        proptest::collection::vec(step, 1..25)
    }

    /// A map beside the store: after every step both have the same content, now and at every earlier revision whose
    /// history is kept.
    async fn agree(steps: Vec<Step>) {
        let limits = HistoryLimits {
            events: 8,
            bytes: 1 << 20,
        };
        let mut f = Fixture::new(limits);
        let mut model: BTreeMap<String, String> = BTreeMap::new();
        let mut past = vec![(0, Vec::new())];
        for step in steps {
            match step {
                Step::Put(name, n) => {
                    let name = format!("n{name}");
                    let live = f.store.get(&f.key("ns", &name));
                    let expect = live.map_or(Expect::Absent, |o| Expect::Revision(o.revision));
                    f.put("ns", &name, expect, &n.to_string()).await.unwrap();
                    model.insert(name, n.to_string());
                }
                Step::Delete(name) => {
                    let name = format!("n{name}");
                    if model.remove(&name).is_none() {
                        continue;
                    }
                    f.delete("ns", &name).await;
                }
                Step::Reopen => {
                    f = f.reopen(limits).await;
                    continue;
                }
            }
            let now: Vec<String> = model.iter().map(|(name, text)| format!("{name}={text}")).collect();
            past.push((f.store.revision(), now));
            let newest = f.store.revision();
            for (revision, expected) in &past {
                match f.texts(Some(*revision), None) {
                    Ok(found) => assert_eq!(&found, expected, "at {revision} of {newest}"),
                    Err(_) => assert!(*revision < newest, "the newest state is always there"),
                }
            }
            let before = f.texts(Some(newest - 1), None);
            assert!(
                before.is_ok() || past_is_old(&f),
                "history reaches back further than one write"
            );
        }
    }

    /// After a restart, what an object was before the kept history is unknown.
    fn past_is_old(f: &Fixture) -> bool {
        let events = f
            .store
            .watch(&f.resource, None, f.store.revision() - 1)
            .ready()
            .unwrap();
        events.iter().any(|e| matches!(e.before, Before::Unknown))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
        #[test]
        fn the_store_agrees_with_a_map(steps in steps()) {
            tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(agree(steps));
        }
    }
}
