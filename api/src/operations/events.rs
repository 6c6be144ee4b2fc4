//! `/v1/operations/{id}/events`: progress as server-sent events.
//!
//! `connected` comes first with the operation as it is, `progress` whenever it changes, and `completed` or `failed` once,
//! after which the stream ends. Events are levels, not steps: a client that reconnects misses nothing that matters.

use super::id::{OperationId, Target};
use super::progress::{Followed, OperationStatus};
use super::{Operation, parse};
use crate::auth::Viewer;
use crate::cache::Cache;
use crate::problem::{Problem, kind};
use crate::server::Shutdown;
use crate::state::App;
use axum::extract::{Extension, Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use http::HeaderName;
use kube::Resource;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::fmt::Debug;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// A line comes at least so often, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// The object is looked at so often even if no change is seen, in case a watch event is late.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

type Sender = mpsc::Sender<Result<Event, Infallible>>;

/// Follows one operation.
pub(crate) async fn follow(
    State(app): State<App>,
    viewer: Viewer,
    Path(text): Path<String>,
    shutdown: Option<Extension<Shutdown>>,
) -> Result<
    (
        [(HeaderName, &'static str); 2],
        Sse<impl Stream<Item = Result<Event, Infallible>>>,
    ),
    Problem,
> {
    let id = parse(&text, &viewer)?;
    let permit = app.followers.clone().try_acquire_owned().map_err(|_| {
        Problem::new(
            &kind::UNAVAILABLE,
            "too many clients follow operations; ask the operation itself",
        )
        .retry_after(5)
    })?;
    let first = super::current(&app, &id).await?;
    let (sender, receiver) = mpsc::channel(4);
    let stop = shutdown.map(|Extension(Shutdown(token))| token).unwrap_or_default();
    tokio::spawn(async move {
        let _permit = permit;
        let _counted = app.metrics.follow();
        tokio::select! {
            () = sender.closed() => {}
            () = stop.cancelled() => {}
            () = run(&app, &id, first, &sender) => {}
        }
    });
    let headers = [
        (http::header::CACHE_CONTROL, "no-cache, no-transform"),
        // Without it nginx collects events before it passes them on.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("keepalive");
    Ok((headers, Sse::new(ReceiverStream::new(receiver)).keep_alive(keep_alive)))
}

async fn run(app: &App, id: &OperationId, first: Operation, sender: &Sender) {
    let mut told = Told {
        sender,
        sequence: 0,
        last: None,
    };
    if !told.send("connected", &first).await || told.tell(first).await {
        return;
    }
    match id.target {
        Target::Graph => watch(app, &app.caches.graphs, id, &mut told).await,
        Target::Subgraph => watch(app, &app.caches.subgraphs, id, &mut told).await,
        Target::Backup => watch(app, &app.caches.backups, id, &mut told).await,
    }
}

async fn watch<K>(app: &App, cache: &Cache<K>, id: &OperationId, told: &mut Told<'_>)
where
    K: Followed + Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let mut changes = cache.changes();
    // Whether the cache has had the object: only then does its absence mean that the object is gone.
    let mut met = false;
    loop {
        let cached = cache.get(&id.namespace, &id.name).map(|object| object.seen());
        met |= cached.as_ref().is_some_and(|seen| seen.uid == id.uid);
        let operation = if met {
            Some(Operation::view(id, K::MILESTONES, cached.as_ref()))
        } else {
            super::current(app, id).await.ok()
        };
        if let Some(operation) = operation
            && told.tell(operation).await
        {
            return;
        }
        let pause = if met { LOOK_AGAIN } else { Duration::from_millis(200) };
        tokio::select! {
            // Until the cache has met the object every change would cost a call, so that only time counts.
            _ = changes.changed(), if met => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// What was sent so far.
struct Told<'a> {
    sender: &'a Sender,
    sequence: u64,
    last: Option<Operation>,
}

impl Told<'_> {
    /// Sends what is new; true when the stream is over.
    async fn tell(&mut self, operation: Operation) -> bool {
        if self.last.as_ref() == Some(&operation) {
            return false;
        }
        let name = match operation.status {
            OperationStatus::Completed => "completed",
            OperationStatus::Failed => "failed",
            OperationStatus::Pending | OperationStatus::Running => "progress",
        };
        let open = self.send(name, &operation).await;
        let over = !open || operation.done;
        self.last = Some(operation);
        over
    }

    async fn send(&mut self, name: &str, operation: &Operation) -> bool {
        self.sequence += 1;
        let event = Event::default()
            .event(name)
            .id(self.sequence.to_string())
            .json_data(operation);
        match event {
            Ok(event) => self.sender.send(Ok(event)).await.is_ok(),
            Err(error) => {
                tracing::error!(%error, "an operation cannot be written as JSON");
                false
            }
        }
    }
}
