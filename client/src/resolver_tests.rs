#![allow(clippy::unwrap_used)]
use super::*;
use async_trait::async_trait;
use std::sync::atomic::{AtomicUsize, Ordering};

const GRAPH: &str = "kg0123456789abcdef";

/// A source that says what the test wants, after a second; nothing is an outage.
struct Fake {
    asked: AtomicUsize,
    says: Mutex<Option<Answer>>,
}

impl Fake {
    fn new(says: Option<Answer>) -> Arc<Self> {
        Arc::new(Self {
            asked: AtomicUsize::new(0),
            says: Mutex::new(says),
        })
    }

    fn says(&self, answer: Option<Answer>) {
        *self.says.lock() = answer;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Source for Fake {
    fn name(&self) -> &'static str {
        "a fake"
    }

    async fn find(&self, _: &str) -> Result<Answer, SourceError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        // What is said is decided when the question arrives, and heard a second later.
        let says = self.says.lock().clone();
        tokio::time::sleep(Duration::from_secs(1)).await;
        says.ok_or(SourceError::Failed {
            name: "a fake",
            message: "out of order".into(),
        })
    }
}

fn at(url: &str) -> Option<Answer> {
    Some(Answer::Found(Place {
        url: url.into(),
        epoch: Some(1),
        node: None,
        readers: vec!["http://reader".into()],
        is_ready: true,
    }))
}

fn resolver(sources: &[&Arc<Fake>]) -> Resolver {
    let sources = sources.iter().map(|s| Arc::clone(s) as Arc<dyn Source>).collect();
    Resolver::new(sources, Settings::default()).unwrap()
}

async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn many_callers_ask_once_and_the_answer_is_remembered() {
    let fake = Fake::new(at("http://a"));
    let resolver = resolver(&[&fake]);
    let subgraph = format!("{GRAPH}_dev");
    let (graph, workspace) = tokio::join!(resolver.resolve(GRAPH), resolver.resolve(&subgraph));
    let (graph, workspace) = (graph.unwrap(), workspace.unwrap());
    assert_eq!(
        (graph.url.as_str(), graph.readers.len(), graph.is_stale),
        ("http://a", 1, false)
    );
    assert_eq!((workspace.database, workspace.graph.as_str()), (subgraph, GRAPH));
    assert!(workspace.readers.is_empty(), "seeds are of the graph itself");
    pass(20).await;
    resolver.resolve(GRAPH).await.unwrap();
    assert_eq!(fake.asked(), 1);
    pass(20).await;
    fake.says(at("http://b"));
    assert_eq!(resolver.resolve(GRAPH).await.unwrap().url, "http://b");
    assert_eq!(fake.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_next_source_answers_for_one_that_does_not() {
    let (first, second) = (Fake::new(None), Fake::new(at("http://a")));
    let resolver = resolver(&[&first, &second]);
    let endpoint = resolver.resolve(GRAPH).await.unwrap();
    assert_eq!((endpoint.url.as_str(), endpoint.is_stale), ("http://a", false));
    assert_eq!((first.asked(), second.asked()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn the_last_place_is_used_while_nobody_answers_but_not_for_ever() {
    let fake = Fake::new(at("http://a"));
    let resolver = resolver(&[&fake]);
    resolver.resolve(GRAPH).await.unwrap();
    fake.says(None);
    pass(60).await;
    assert!(resolver.resolve(GRAPH).await.unwrap().is_stale);
    let asked = fake.asked();
    assert!(resolver.resolve(GRAPH).await.unwrap().is_stale);
    assert_eq!(fake.asked(), asked, "it was asked a moment ago");
    pass(24 * 60 * 60).await;
    assert!(matches!(resolver.resolve(GRAPH).await, Err(Error::Unavailable { .. })));
    fake.says(at("http://b"));
    pass(60).await;
    assert!(!resolver.resolve(GRAPH).await.unwrap().is_stale);
}

#[tokio::test(start_paused = true)]
async fn a_place_that_was_found_wrong_is_asked_for_again_but_not_all_the_time() {
    let fake = Fake::new(at("http://a"));
    let resolver = resolver(&[&fake]);
    resolver.resolve(GRAPH).await.unwrap();
    fake.says(at("http://b"));
    for _ in 0..10 {
        resolver.invalidate(GRAPH);
        assert_eq!(resolver.resolve(GRAPH).await.unwrap().url, "http://a");
    }
    assert_eq!(fake.asked(), 1);
    pass(1).await;
    assert_eq!(resolver.resolve(&format!("{GRAPH}_dev")).await.unwrap().url, "http://b");
    assert_eq!(fake.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_answer_from_before_an_invalidation_is_not_kept() {
    let fake = Fake::new(at("http://a"));
    let resolver = resolver(&[&fake]);
    let before = tokio::spawn({
        let resolver = resolver.clone();
        async move { resolver.resolve(GRAPH).await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    fake.says(at("http://b"));
    resolver.invalidate(GRAPH);
    assert_eq!(resolver.resolve(GRAPH).await.unwrap().url, "http://b");
    assert_eq!(before.await.unwrap().unwrap().url, "http://a");
    assert_eq!(resolver.resolve(GRAPH).await.unwrap().url, "http://b");
    assert_eq!(fake.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn that_there_is_no_graph_is_remembered_for_a_moment() {
    let fake = Fake::new(Some(Answer::NotFound));
    let resolver = resolver(&[&fake]);
    for _ in 0..3 {
        assert_eq!(resolver.resolve(GRAPH).await, Err(Error::NotFound(GRAPH.into())));
    }
    assert_eq!(fake.asked(), 1);
    fake.says(Some(Answer::NotReady("creating".into())));
    pass(2).await;
    assert!(resolver.resolve(GRAPH).await.is_err_and(|error| error.is_transient()));
    fake.says(at("http://a"));
    pass(2).await;
    assert!(resolver.resolve(GRAPH).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_question_outlives_who_asked_it() {
    let fake = Fake::new(at("http://a"));
    let resolver = resolver(&[&fake]);
    let impatient = tokio::time::timeout(Duration::from_millis(10), resolver.resolve(GRAPH)).await;
    assert!(impatient.is_err());
    tokio::time::sleep(Duration::from_secs(2)).await;
    resolver.resolve(GRAPH).await.unwrap();
    assert_eq!(fake.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_down_is_left_alone_and_retries_are_bounded() {
    let fake = Fake::new(None);
    let settings = Settings {
        retries: 2,
        retry_percent: 0,
        breaker: BreakerSettings {
            failures: 1000,
            ..BreakerSettings::default()
        },
        ..Settings::default()
    };
    let one = Resolver::new(vec![fake.clone()], settings).unwrap();
    for _ in 0..10 {
        assert!(matches!(one.resolve(GRAPH).await, Err(Error::Unavailable { .. })));
    }
    assert_eq!(fake.asked(), 10 + 2, "the budget is spent after two retries");
    let fake = Fake::new(None);
    let two = resolver(&[&fake]);
    for _ in 0..100 {
        assert!(two.resolve(GRAPH).await.is_err());
    }
    assert!(fake.asked() < 20, "the breaker is open: {}", fake.asked());
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_has_a_bounded_time() {
    struct Hangs;
    #[async_trait]
    impl Source for Hangs {
        fn name(&self) -> &'static str {
            "nobody"
        }
        async fn find(&self, _: &str) -> Result<Answer, SourceError> {
            std::future::pending().await
        }
    }
    let answers = Fake::new(at("http://a"));
    let resolver = Resolver::new(vec![Arc::new(Hangs), answers], Settings::default()).unwrap();
    assert_eq!(resolver.resolve(GRAPH).await.unwrap().url, "http://a");
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded() {
    let fake = Fake::new(at("http://a"));
    let settings = Settings {
        graphs: NonZeroUsize::MIN,
        ..Settings::default()
    };
    let resolver = Resolver::new(vec![fake.clone()], settings).unwrap();
    for graph in ["sec", "market", "sec"] {
        resolver.resolve(graph).await.unwrap();
    }
    assert_eq!(fake.asked(), 3);
    assert_eq!(resolver.inner.known.lock().len(), 1);
    assert!(resolver.inner.flights.lock().by_graph.is_empty());
}

#[tokio::test]
async fn what_is_no_id_is_asked_of_nobody() {
    let fake = Fake::new(at("http://a"));
    let resolver = resolver(&[&fake]);
    assert!(matches!(resolver.resolve("../nodes").await, Err(Error::InvalidId(_))));
    resolver.invalidate("../nodes");
    assert_eq!(fake.asked(), 0);
    assert!(matches!(
        Resolver::new(vec![], Settings::default()),
        Err(Error::Settings(_))
    ));
}
