//! Durable, revisioned storage of objects with watch history.
//!
//! ```text
//!   commit() ──▶ queue ──▶ writer thread ── one redb transaction (one fsync) per batch ──▶ disk
//!                               │
//!                               └─ publishes the batch ──▶ State (index + history) ──▶ watchers wake
//! ```
//!
//! Every write gets the next revision, which is the `metadata.resourceVersion` of the object it wrote. A write is
//! acknowledged, and can be seen by readers, only after its batch is on disk. Readers never touch the disk.

mod disk;
mod history;
mod object;
mod state;
mod watch;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};

pub(crate) use history::{Before, Event};
pub(crate) use object::{Draft, Key, Object, Owner};
pub(crate) use state::{Page, PageQuery, Position};
pub(crate) use watch::Watcher;

use state::State;

/// How much watch history is kept for each resource. The older of what exceeds either limit is forgotten; a watch that
/// starts before it gets `410 Gone`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HistoryLimits {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

/// What can go wrong in storage.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file could not be opened, for instance because another process holds it.
    #[error("cannot open the state file {path}: {source}; is another `graphplane up` using this data directory?")]
    Open {
        /// The file.
        path: PathBuf,
        /// What redb says.
        source: Box<redb::DatabaseError>,
    },
    /// The file was written by a version of Graphplane with another layout.
    #[error(
        "the state file {path} has format {found}, this version reads format {expected}; use the version that wrote it"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// The format of the file.
        found: u64,
        /// The format that this version reads and writes.
        expected: u64,
    },
    /// A stored object cannot be read back.
    #[error("the stored object {what} is damaged: {detail}; restore the state file from a copy")]
    Corrupt {
        /// Which object.
        what: String,
        /// What the parser says.
        detail: String,
    },
    /// A value is not a Kubernetes object.
    #[error("not a Kubernetes object: {detail}")]
    NotAnObject {
        /// What is wrong with it.
        detail: String,
    },
    /// Reading or writing the file failed.
    #[error("the state file cannot be read or written: {0}; check the disk's free space and health")]
    Disk(#[source] Box<redb::Error>),
    /// The writer thread could not be started.
    #[error("cannot start the writer thread: {0}")]
    Thread(#[source] std::io::Error),
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(source: E) -> Self {
        Self::Disk(Box::new(source.into()))
    }
}

/// The state that a write assumes; it is refused when the assumption is wrong at the moment of commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// No object has this key.
    Absent,
    /// The object exists at exactly this revision.
    Revision(u64),
}

/// What a write does.
#[derive(Debug)]
pub(crate) enum Change {
    /// Create or replace.
    Put(Draft),
    /// Remove; the draft is the last state, which watchers see in the DELETED event.
    Delete(Draft),
}

/// One write.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) key: Key,
    pub(crate) expect: Expect,
    pub(crate) change: Change,
    /// Refuse the write unless the key's namespace exists and is not being deleted. Checked by the writer, so that no
    /// object slips into a namespace between the check and the write.
    pub(crate) in_active_namespace: bool,
}

/// Why a write was refused.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Refusal {
    /// [`Expect::Absent`], but the object exists.
    #[error("the object already exists")]
    Exists,
    /// [`Expect::Revision`], but the object has another revision now.
    #[error("the object has been modified")]
    Modified,
    /// [`Expect::Revision`], but the object does not exist any more.
    #[error("the object does not exist")]
    Gone,
    /// The namespace does not exist.
    #[error("the namespace does not exist")]
    NoNamespace,
    /// The namespace is being deleted.
    #[error("the namespace is being terminated")]
    NamespaceTerminating,
    /// The batch could not be written to disk; nothing of it is visible.
    #[error("the state file cannot be written: {0}")]
    Disk(Arc<str>),
    /// The store is shutting down.
    #[error("the server is shutting down")]
    Closed,
}

/// A read or watch asked for a revision whose history is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expired {
    pub(crate) requested: u64,
    /// The oldest revision from which history is complete.
    pub(crate) oldest: u64,
}

type Reply = oneshot::Sender<Result<Arc<Object>, Refusal>>;

/// What goes to the writer thread.
enum Request {
    Write(Box<Write>, Reply),
    /// Answered when everything before it is on disk.
    Flush(oneshot::Sender<()>),
    /// Answered when the file is closed; everything after it is refused.
    Close(oneshot::Sender<()>),
}

/// Handle to the store; clones share it.
#[derive(Clone)]
pub(crate) struct Store {
    state: Arc<RwLock<State>>,
    queue: mpsc::Sender<Request>,
    cluster_id: Arc<str>,
}

/// Requests that may wait for the writer before senders have to wait themselves. One batch takes all of them.
const QUEUE: usize = 4096;

impl Store {
    /// Opens or creates the file and loads everything in it.
    pub(crate) fn open(path: &Path, limits: HistoryLimits) -> Result<Self, StoreError> {
        let disk = disk::Disk::open(path)?;
        let mut state = State::new(limits);
        let cluster_id = disk.load(&mut state)?;
        let state = Arc::new(RwLock::new(state));
        let (queue, requests) = mpsc::channel(QUEUE);
        let writer = writer::Writer::new(disk, state.clone());
        std::thread::Builder::new()
            .name("graphplane-store".into())
            .spawn(move || writer.run(requests))
            .map_err(StoreError::Thread)?;
        Ok(Self {
            state,
            queue,
            cluster_id: cluster_id.into(),
        })
    }

    /// A random name that this state file got when it was created.
    pub(crate) fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Writes durably, and returns the object as written (for a deletion: its last state).
    pub(crate) async fn commit(&self, write: Write) -> Result<Arc<Object>, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.queue
            .send(Request::Write(Box::new(write), reply))
            .await
            .map_err(|_| Refusal::Closed)?;
        answer.await.map_err(|_| Refusal::Closed)?
    }

    /// Waits until everything that was sent before is on disk.
    pub(crate) async fn flush(&self) {
        let (reply, answer) = oneshot::channel();
        if self.queue.send(Request::Flush(reply)).await.is_ok() {
            let _ = answer.await;
        }
    }

    /// Writes what is queued, closes the file and ends the writer thread. Later writes are refused; reads go on.
    pub(crate) async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.queue.send(Request::Close(reply)).await.is_ok() {
            let _ = answer.await;
        }
    }

    /// The revision of the last write.
    pub(crate) fn revision(&self) -> u64 {
        self.state.read().revision()
    }

    /// The current version of one object.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.state.read().get(key).cloned()
    }

    /// A page of the objects of one resource.
    pub(crate) fn page(&self, query: &PageQuery<'_>) -> Result<Page, Expired> {
        self.state.read().page(query)
    }

    /// The object with this UID, whatever its kind.
    pub(crate) fn by_uid(&self, uid: &str) -> Option<Arc<Object>> {
        self.state.read().by_uid(uid).cloned()
    }

    /// The objects whose `ownerReferences` name this UID.
    pub(crate) fn dependents(&self, uid: &str) -> Vec<Arc<Object>> {
        self.state.read().dependents(uid)
    }

    /// Every object of every resource that `keep` accepts.
    pub(crate) fn scan(&self, keep: impl Fn(&Object) -> bool) -> Vec<Arc<Object>> {
        self.state.read().scan(keep)
    }

    /// Events of `resource` with a revision above `after`.
    pub(crate) fn watch(&self, resource: &Arc<str>, namespace: Option<&str>, after: u64) -> Watcher {
        Watcher::new(self.state.clone(), resource, namespace, after)
    }

    /// Every event that `interest` accepts, in order, for controllers of the server itself. The channel has no bound:
    /// a controller that only takes note of keys keeps up.
    pub(crate) fn listen(
        &self,
        interest: impl Fn(&Event) -> bool + Send + Sync + 'static,
    ) -> mpsc::UnboundedReceiver<Arc<Event>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.state.write().add_listener(Box::new(interest), sender);
        receiver
    }
}

#[cfg(test)]
mod tests;
