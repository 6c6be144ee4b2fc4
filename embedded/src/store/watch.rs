//! A cursor over the history of one resource.

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

use super::Expired;
use super::history::Event;
use super::state::State;

/// Follows the events of one resource. It holds no queue: a slow reader costs nothing until it is so late that the
/// history has forgotten its place, and then it is told so.
pub(crate) struct Watcher {
    state: Arc<RwLock<State>>,
    resource: Arc<str>,
    namespace: Option<Arc<str>>,
    /// Everything up to this revision was handed out.
    position: u64,
    changed: watch::Receiver<()>,
}

/// Events handed out in one go; a bound on the size of one chunk of a response.
const BATCH: usize = 256;

impl Watcher {
    pub(super) fn new(state: Arc<RwLock<State>>, resource: &Arc<str>, namespace: Option<&str>, after: u64) -> Self {
        let changed = state.write().subscribe(resource);
        Self {
            state,
            resource: resource.clone(),
            namespace: namespace.map(Arc::from),
            position: after,
            changed,
        }
    }

    /// The next events, at least one. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Vec<Arc<Event>>, Expired> {
        loop {
            self.changed.borrow_and_update();
            let events = self.ready()?;
            if !events.is_empty() {
                return Ok(events);
            }
            if self.changed.changed().await.is_err() {
                // The store is gone: nothing will ever come, and the caller waits for shutdown beside this.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Events that are there already, none if there are none.
    pub(crate) fn ready(&mut self) -> Result<Vec<Arc<Event>>, Expired> {
        let state = self.state.read();
        let events = state.events(&self.resource, self.namespace.as_deref(), self.position, BATCH)?;
        match events.last() {
            Some(last) if events.len() == BATCH => self.position = last.revision(),
            // Never backwards, should a watch start at a revision that is yet to come.
            _ => self.position = self.position.max(state.revision()),
        }
        Ok(events)
    }

    /// The revision up to which everything was handed out.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }
}
