//! The one thread that writes: it takes what is queued, decides each write against the state it will have by then,
//! puts all of them on disk with one fsync, and only then shows and acknowledges them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};

use super::disk::Disk;
use super::history::{Before, Event};
use super::object::{Key, Object};
use super::state::State;
use super::{Change, Expect, Refusal, Reply, Request, Write};

/// Bytes of one batch after which it is written without waiting for more, so that memory and latency stay bounded.
const BATCH_BYTES: usize = 8 << 20;
/// Writes of one batch, likewise.
const BATCH_WRITES: usize = 1024;
/// The longest wait for more writes, however slow the disk is.
const MAX_PATIENCE: Duration = Duration::from_millis(2);
/// Between two looks into the queue.
const NAP: Duration = Duration::from_micros(50);

pub(super) struct Writer {
    disk: Disk,
    state: Arc<RwLock<State>>,
    namespaces: Arc<str>,
    /// What fell out of the history with the last batch; the next transaction removes it from the log.
    forgotten: Vec<(Arc<str>, u64)>,
    pace: Pace,
}

/// Writes that were accepted and are not on disk yet.
#[derive(Default)]
struct Batch {
    events: Vec<Event>,
    replies: Vec<Reply>,
    /// The state of every touched key after this batch.
    pending: HashMap<Key, Option<Arc<Object>>>,
    bytes: usize,
    /// Who waits for everything up to here.
    flushed: Vec<oneshot::Sender<()>>,
    /// Who wants this to be the last batch.
    closed: Option<oneshot::Sender<()>>,
}

impl Batch {
    /// Nothing is to be added any more.
    fn is_final(&self) -> bool {
        self.bytes > BATCH_BYTES
            || self.events.len() >= BATCH_WRITES
            || !self.flushed.is_empty()
            || self.closed.is_some()
    }
}

/// What the last batch was like. Writers that were acknowledged together come back together, but not in the same instant:
/// it pays to wait for them a little instead of spending an fsync on the first.
#[derive(Default)]
struct Pace {
    writes: usize,
    commit: Duration,
}

impl Pace {
    /// Writes that make a batch worth writing at once.
    fn enough(&self) -> usize {
        self.writes * 3 / 4
    }

    /// How long to wait for so many: never longer than half of what a commit takes.
    fn patience(&self) -> Duration {
        (self.commit / 2).min(MAX_PATIENCE)
    }
}

impl Writer {
    pub(super) fn new(disk: Disk, state: Arc<RwLock<State>>) -> Self {
        Self {
            disk,
            state,
            namespaces: "namespaces".into(),
            forgotten: Vec::new(),
            pace: Pace::default(),
        }
    }

    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut closed = None;
        while closed.is_none()
            && let Some(first) = requests.blocking_recv()
        {
            let mut batch = Batch::default();
            self.take(&mut batch, first);
            self.gather(&mut batch, &mut requests);
            closed = batch.closed.take();
            let flushed = std::mem::take(&mut batch.flushed);
            self.finish(batch);
            for done in flushed {
                let _ = done.send(());
            }
        }
        if let Err(error) = self.disk.write(&[], &self.forgotten) {
            tracing::warn!(%error, "old history stays in the state file");
        }
        drop(self.disk);
        // Whatever is still queued goes with the channel, and its senders see `Closed`: after the file is closed, so
        // that a second shutdown does not end before the first.
        drop(requests);
        if let Some(done) = closed {
            let _ = done.send(());
        }
    }

    /// Takes what is queued, and what comes in the next moment if more can be expected.
    fn gather(&self, batch: &mut Batch, requests: &mut mpsc::Receiver<Request>) {
        let begin = Instant::now();
        loop {
            while !batch.is_final()
                && let Ok(request) = requests.try_recv()
            {
                self.take(batch, request);
            }
            let worthwhile = batch.events.is_empty() || batch.events.len() >= self.pace.enough();
            if batch.is_final() || worthwhile || begin.elapsed() >= self.pace.patience() {
                return;
            }
            std::thread::sleep(NAP);
        }
    }

    fn take(&self, batch: &mut Batch, request: Request) {
        match request {
            Request::Write(write, reply) => self.accept(batch, *write, reply),
            Request::Flush(done) => batch.flushed.push(done),
            Request::Close(done) => batch.closed = Some(done),
        }
    }

    /// Decides one write, and answers it at once when it is refused.
    fn accept(&self, batch: &mut Batch, write: Write, reply: Reply) {
        match self.decide(batch, write) {
            Ok(event) => {
                batch.bytes += event.object.json.len();
                let now = (!event.deleted).then(|| event.object.clone());
                batch.pending.insert(event.object.key.clone(), now);
                batch.events.push(event);
                batch.replies.push(reply);
            }
            Err(refusal) => {
                let _ = reply.send(Err(refusal));
            }
        }
    }

    fn decide(&self, batch: &Batch, write: Write) -> Result<Event, Refusal> {
        let state = self.state.read();
        let current = |key: &Key| {
            batch
                .pending
                .get(key)
                .map_or_else(|| state.get(key).cloned(), Clone::clone)
        };
        let live = current(&write.key);
        match (write.expect, &live) {
            (Expect::Absent, Some(_)) => return Err(Refusal::Exists),
            (Expect::Revision(_), None) => return Err(Refusal::Gone),
            (Expect::Revision(revision), Some(object)) if object.revision != revision => return Err(Refusal::Modified),
            _ => {}
        }
        if write.in_active_namespace {
            match current(&Key::new(&self.namespaces, "", &write.key.namespace)) {
                None => return Err(Refusal::NoNamespace),
                Some(namespace) if namespace.facts.deleting => return Err(Refusal::NamespaceTerminating),
                Some(_) => {}
            }
        }
        let revision = state.revision() + batch.events.len() as u64 + 1;
        let (draft, deleted) = match write.change {
            Change::Put(draft) => (draft, false),
            Change::Delete(draft) => (draft, true),
        };
        Ok(Event {
            object: Arc::new(draft.seal(write.key, revision)),
            before: live.map_or(Before::Absent, Before::Known),
            deleted,
        })
    }

    /// Makes the batch durable, then visible, then acknowledged.
    fn finish(&mut self, batch: Batch) {
        if batch.events.is_empty() {
            return;
        }
        let Batch { events, replies, .. } = batch;
        let begin = Instant::now();
        let written = self.disk.write(&events, &self.forgotten);
        self.pace = Pace {
            writes: events.len(),
            commit: begin.elapsed(),
        };
        if let Err(error) = written {
            tracing::error!(%error, writes = events.len(), "a batch could not be written");
            let refusal = Refusal::Disk(error.to_string().into());
            for reply in replies {
                let _ = reply.send(Err(refusal.clone()));
            }
            return;
        }
        let objects: Vec<Arc<Object>> = events.iter().map(|e| e.object.clone()).collect();
        self.forgotten = self.state.write().publish(events);
        for (reply, object) in replies.into_iter().zip(objects) {
            let _ = reply.send(Ok(object));
        }
    }
}
