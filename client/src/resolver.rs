//! Finding a graph: remembered answers, one question for each graph at a time, and care for sources in trouble.

use crate::breaker::{Breaker, BreakerSettings, Decision};
use crate::budget::Budget;
use crate::error::{Error, SourceError};
use crate::freshness::{Age, Freshness, Use};
use crate::id::DatabaseId;
use crate::source::{Answer, Place, Source};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use lru::LruCache;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How a resolver behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long answers are good for.
    pub freshness: Freshness,
    /// Graphs that are remembered; beyond it the one that was asked for least recently is forgotten.
    pub graphs: NonZeroUsize,
    /// The time that a source has for an answer.
    pub timeout: Duration,
    /// How often every source is asked for one answer, at most.
    pub attempts: u32,
    /// The longest wait before the second attempt; it doubles. A wait is anything from nothing to that.
    pub pause: Duration,
    /// Retries that may be made at once; they are shared by all graphs.
    pub retries: u32,
    /// How much each question adds to these, in percent of a retry.
    pub retry_percent: u32,
    /// When a source that does not answer is left alone.
    pub breaker: BreakerSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            freshness: Freshness::default(),
            graphs: NonZeroUsize::MIN.saturating_add(9_999),
            timeout: Duration::from_secs(2),
            attempts: 3,
            pause: Duration::from_millis(100),
            retries: 10,
            retry_percent: 20,
            breaker: BreakerSettings {
                probe_timeout: Duration::from_secs(10),
                ..BreakerSettings::default()
            },
        }
    }
}

/// Where a database is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The database to name in calls to the agent: the id that was asked for.
    pub database: String,
    /// The graph that it is, or is a subgraph of.
    pub graph: String,
    /// URL of the node agent that writes it.
    pub url: String,
    /// Epoch of that agent, to be sent along: an agent of another epoch refuses the call.
    pub epoch: Option<u64>,
    /// Name of the node.
    pub node: Option<String>,
    /// URLs that answer reads of the graph beside the writer, from seeds that may be a little older. None of a subgraph.
    pub readers: Vec<String>,
    /// Whether the graph was ready. One that was not may answer nevertheless.
    pub is_ready: bool,
    /// Whether this is older than it should be, because nobody could be asked.
    pub is_stale: bool,
}

/// Finds where graphs are served. Clones share what is remembered.
#[derive(Clone)]
pub struct Resolver {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    sources: Vec<Guarded>,
    start: Instant,
    known: Mutex<LruCache<String, Known>>,
    flights: Mutex<Flights>,
    budget: Mutex<Budget>,
}

/// A source, and how it has answered.
struct Guarded {
    source: Arc<dyn Source>,
    breaker: Mutex<Breaker>,
}

#[derive(Clone)]
struct Known {
    answer: Arc<Answer>,
    age: Age,
}

type Flight = Shared<BoxFuture<'static, Result<Arc<Answer>, Error>>>;

/// Questions that are being asked, by graph. The number tells one that was invalidated from its successor.
#[derive(Default)]
struct Flights {
    last: u64,
    by_graph: HashMap<String, (u64, Flight)>,
}

impl Resolver {
    /// A resolver that asks the sources in this order; the next is asked only if one does not answer.
    ///
    /// # Errors
    /// [`Error::Settings`] without a source.
    pub fn new(sources: Vec<Arc<dyn Source>>, settings: Settings) -> Result<Self, Error> {
        if sources.is_empty() {
            return Err(Error::Settings("a resolver needs a source".to_owned()));
        }
        let guarded = |source| Guarded {
            source,
            breaker: Mutex::new(Breaker::new(settings.breaker)),
        };
        Ok(Self {
            inner: Arc::new(Inner {
                sources: sources.into_iter().map(guarded).collect(),
                start: Instant::now(),
                known: Mutex::new(LruCache::new(settings.graphs)),
                flights: Mutex::default(),
                budget: Mutex::new(Budget::new(settings.retries, settings.retry_percent)),
                settings,
            }),
        })
    }

    /// Where a graph, or a subgraph by its database id `<graph id>_<name>`, is served. Whether the subgraph exists is
    /// known to the agent there.
    ///
    /// # Errors
    /// See [`Error`]. A place that is remembered is answered rather than [`Error::Unavailable`].
    pub async fn resolve(&self, id: &str) -> Result<Endpoint, Error> {
        let id = DatabaseId::parse(id)?;
        let inner = &self.inner;
        let now = inner.now();
        let known = inner.known.lock().get(id.graph()).cloned();
        let usage = known
            .as_ref()
            .map(|known| inner.settings.freshness.judge(&known.age, now));
        match (known, usage.unwrap_or(Use::Ask)) {
            (Some(known), Use::Fresh) => endpoint(&id, &known.answer, false),
            (Some(known), Use::Stale) => endpoint(&id, &known.answer, true),
            (Some(known), Use::AskOr) => match self.flight(id.graph()).await {
                Ok(answer) => endpoint(&id, &answer, false),
                Err(error) => {
                    tracing::warn!(graph = id.graph(), %error, "an old place is used");
                    endpoint(&id, &known.answer, true)
                }
            },
            (_, Use::Ask) | (None, _) => {
                let answer = self.flight(id.graph()).await?;
                endpoint(&id, &answer, false)
            }
        }
    }

    /// Tells that an agent refused a call for its epoch, or could not be reached: where the graph is will be asked anew.
    /// Until somebody answers, and for a moment after an answer, the old place is what is known.
    pub fn invalidate(&self, id: &str) {
        let Ok(id) = DatabaseId::parse(id) else { return };
        if let Some(known) = self.inner.known.lock().get_mut(id.graph()) {
            known.age.is_suspect = true;
        }
        // An answer that is on its way may be from before.
        self.inner.flights.lock().by_graph.remove(id.graph());
    }

    /// The answer to a question that is being asked, or to one that is asked now. It is asked to its end, even if those
    /// who wait for it give up.
    fn flight(&self, graph: &str) -> Flight {
        let mut flights = self.inner.flights.lock();
        if let Some((_, flight)) = flights.by_graph.get(graph) {
            return flight.clone();
        }
        flights.last += 1;
        let number = flights.last;
        let (inner, id) = (self.inner.clone(), graph.to_owned());
        let asked = tokio::spawn(async move {
            let landing = Landing { inner, id, number };
            let answer = landing.inner.ask(&landing.id).await.map(Arc::new);
            landing.inner.remember(&landing.id, number, &answer);
            answer
        });
        let id = graph.to_owned();
        let answer = async move {
            let cut_off = |_| {
                Err(Error::Unavailable {
                    graph: id,
                    failures: Vec::new().into(),
                })
            };
            asked.await.unwrap_or_else(cut_off)
        };
        let flight = answer.boxed().shared();
        flights.by_graph.insert(graph.to_owned(), (number, flight.clone()));
        flight
    }
}

/// Makes room for the next question, whatever becomes of this one.
struct Landing {
    inner: Arc<Inner>,
    id: String,
    number: u64,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut flights = self.inner.flights.lock();
        if flights
            .by_graph
            .get(&self.id)
            .is_some_and(|(number, _)| *number == self.number)
        {
            flights.by_graph.remove(&self.id);
        }
    }
}

impl Inner {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Asks the sources, in turn, until one answers or the attempts or the budget are spent.
    async fn ask(&self, graph: &str) -> Result<Answer, Error> {
        self.budget.lock().deposit();
        let mut failures: Vec<SourceError> = Vec::new();
        for attempt in 0..self.settings.attempts.max(1) {
            if attempt > 0 {
                let is_worth_it = failures.iter().any(SourceError::is_transient);
                if !is_worth_it || !self.budget.lock().withdraw() {
                    break;
                }
                let longest = self.settings.pause.saturating_mul(1 << (attempt - 1).min(10));
                tokio::time::sleep(longest.mul_f64(rand::random::<f64>())).await;
            }
            failures.clear();
            for guarded in &self.sources {
                match guarded.ask(graph, self).await {
                    Ok(answer) => return Ok(answer),
                    Err(failure) => failures.push(failure),
                }
            }
        }
        Err(Error::Unavailable {
            graph: graph.to_owned(),
            failures: failures.into(),
        })
    }

    /// Keeps an answer, unless the graph was invalidated since it was asked for.
    fn remember(&self, graph: &str, number: u64, answer: &Result<Arc<Answer>, Error>) {
        let flights = self.flights.lock();
        if flights.by_graph.get(graph).is_none_or(|(newest, _)| *newest != number) {
            return;
        }
        let now = self.now();
        let mut known = self.known.lock();
        match answer {
            Ok(answer) => {
                let age = Age {
                    is_positive: matches!(**answer, Answer::Found(_)),
                    answered: now,
                    asked: now,
                    is_suspect: false,
                };
                let answer = answer.clone();
                known.put(graph.to_owned(), Known { answer, age });
            }
            Err(_) => {
                if let Some(known) = known.get_mut(graph) {
                    known.age.asked = now;
                }
            }
        }
    }
}

impl Guarded {
    async fn ask(&self, graph: &str, inner: &Inner) -> Result<Answer, SourceError> {
        let name = self.source.name();
        let decision = self.breaker.lock().ask(inner.now());
        if let Decision::Wait(wait) = decision {
            return Err(SourceError::LeftAlone { name, wait });
        }
        let limit = inner.settings.timeout;
        let result = tokio::time::timeout(limit, self.source.find(graph)).await;
        let result = result.unwrap_or(Err(SourceError::Timeout { name, limit }));
        let mut breaker = self.breaker.lock();
        match &result {
            Err(error) if error.is_transient() => breaker.failed(inner.now()),
            _ => breaker.succeeded(),
        }
        result
    }
}

fn endpoint(id: &DatabaseId, answer: &Answer, is_stale: bool) -> Result<Endpoint, Error> {
    let graph = id.graph().to_owned();
    match answer {
        Answer::NotFound => Err(Error::NotFound(graph)),
        Answer::NotReady(state) => Err(Error::NotReady {
            graph,
            state: state.clone(),
        }),
        Answer::Found(Place {
            url,
            epoch,
            node,
            readers,
            is_ready,
        }) => {
            let database = id.to_string();
            // Seeds are of the graph itself.
            let readers = if database == graph { readers.clone() } else { Vec::new() };
            Ok(Endpoint {
                database,
                graph,
                url: url.clone(),
                epoch: *epoch,
                node: node.clone(),
                readers,
                is_ready: *is_ready,
                is_stale,
            })
        }
    }
}

#[cfg(test)]
#[path = "resolver_tests.rs"]
mod tests;
