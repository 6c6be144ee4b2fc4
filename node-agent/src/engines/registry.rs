//! All databases of a node: which exist, which are open, and which of the open ones gives way when memory is short.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;

use super::budget::{Budget, Reservation};
use super::config::{EngineLimits, EnginesConfig};
use super::duckdb::{OpenStaging, Staging, StagingOptions};
use super::error::EngineError;
use super::files::Files;
use super::kept::Keeping;
use super::ladybug::open::OpenOptions;
use super::ladybug::stand_ins::replay_logs;
use super::ladybug::storage_version::check_storage_version;
use super::ladybug::{Database, OpenDatabase};
use super::lance::{Address, Lance, Layout, remove_leftovers};
use super::lock::FileLock;
use super::memory::{Boost, Boosted};
use super::names::DatabaseId;
use super::revision::Revision;
use super::swap::Swap;

const SWEEP: Duration = Duration::from_secs(5);
/// How long to wait for running statements, after they have been interrupted, before giving up on closing a database.
pub(super) const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// The engines of a node. Cheap to clone.
#[derive(Clone)]
pub struct Engines {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) files: Files,
    pub(crate) read_only: bool,
    limits: RwLock<EngineLimits>,
    pub(crate) slots: RwLock<HashMap<DatabaseId, Arc<Slot>>>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) lance: Lance,
    stopping: AtomicBool,
    /// Whether databases may still arrive that callers ask for already.
    pub(crate) awaiting: AtomicBool,
    sweeping: CancellationToken,
    started: Instant,
    pub(crate) started_at: SystemTime,
    _lock: Option<FileLock>,
}

/// One database of the node, open or not.
pub(crate) struct Slot {
    pub(crate) id: DatabaseId,
    /// Held while the graph or its staging is opened, closed or deleted.
    pub(crate) gate: tokio::sync::Mutex<()>,
    pub(crate) graph: RwLock<Option<Arc<OpenDatabase>>>,
    pub(crate) staging: RwLock<Option<Arc<OpenStaging>>>,
    /// The graph's file, if it is not the one that bears its name: on replicas, each generation has its own.
    pub(crate) generation: RwLock<Option<PathBuf>>,
    /// Where its vectors are; on replicas, each generation has its own.
    pub(crate) vectors: Address,
    /// True before the database is made and while it is removed.
    pub(crate) deleted: AtomicBool,
    /// Milliseconds since the engines started; 0 for never.
    pub(crate) last_used: AtomicU64,
    /// True while statements of callers may not change the graph, since it is about to be replaced.
    pub(crate) writes_held: Arc<AtomicBool>,
    /// Moves with every change of the graph and of its vectors.
    pub(crate) revision: Revision,
    /// More memory than usual, for a while.
    pub(crate) boost: Mutex<Option<Boost>>,
}

impl Slot {
    pub(crate) fn new(id: DatabaseId, files: &Files) -> Arc<Self> {
        Arc::new(Self {
            vectors: Address::new(Layout::new(files.vectors(&id))),
            id,
            gate: tokio::sync::Mutex::new(()),
            graph: RwLock::new(None),
            staging: RwLock::new(None),
            generation: RwLock::new(None),
            deleted: AtomicBool::new(false),
            last_used: AtomicU64::new(0),
            writes_held: Arc::default(),
            revision: Revision::default(),
            boost: Mutex::default(),
        })
    }

    pub(crate) fn exists(&self) -> bool {
        !self.deleted.load(Ordering::Acquire)
    }

    fn usable_graph(&self) -> Option<Arc<OpenDatabase>> {
        self.graph.read().as_ref().filter(|open| !open.needs_reopen()).cloned()
    }
}

impl Engines {
    /// Takes the data directory for this process, removes what a crash left, and finds the databases. Opens none.
    ///
    /// # Errors
    /// [`EngineError::Locked`] if another agent has the directory; limits that do not fit; a directory that cannot be
    /// used.
    pub async fn start(config: EnginesConfig) -> Result<Self, EngineError> {
        config.limits.check()?;
        let files = Files::new(&config.data_dir);
        let read_only = config.read_only;
        let (files, lock, ids, changing) = tokio::task::spawn_blocking(move || {
            let mut lock = None;
            let mut kept = Vec::new();
            if !read_only {
                files.make_directories()?;
                lock = Some(FileLock::acquire(files.lock())?);
                Swap::undo_all(&files)?;
                Keeping::settle_all(&files)?;
                kept = files.remove_leftovers()?;
            }
            let ids = files.list()?;
            for id in &ids {
                if let Err(error) = check_storage_version(id, &files.graph(id)) {
                    tracing::error!(operation = "start", database = %id, %error, "a database cannot be opened; the others go on");
                }
            }
            let mut changing = Vec::new();
            if !read_only {
                kept.extend(ids.iter().cloned());
                changing = remove_leftovers(files.all_vectors(), &kept)?;
            }
            Ok::<_, EngineError>((files, lock, ids, changing))
        })
        .await
        .unwrap_or_else(|error| {
            Err(EngineError::internal(format!(
                "the start of the engines ended: {error}"
            )))
        })?;
        let slots = ids.into_iter().map(|id| (id.clone(), Slot::new(id, &files)));
        let inner = Arc::new(Inner {
            slots: RwLock::new(slots.collect()),
            files,
            read_only,
            budget: Budget::new(config.limits.node_memory),
            lance: Lance::new()?,
            limits: RwLock::new(config.limits),
            stopping: AtomicBool::new(false),
            awaiting: AtomicBool::new(false),
            sweeping: CancellationToken::new(),
            started: Instant::now(),
            started_at: SystemTime::now(),
            _lock: lock,
        });
        inner.lance.mend(changing).await;
        inner.replay_logs().await?;
        let (weak, stop) = (Arc::downgrade(&inner), inner.sweeping.clone());
        tokio::spawn(async move {
            while stop.run_until_cancelled(tokio::time::sleep(SWEEP)).await.is_some() {
                let Some(inner) = weak.upgrade() else { return };
                inner.close_idle().await;
            }
        });
        Ok(Self { inner })
    }

    /// The limits that apply to databases opened from now on.
    #[must_use]
    pub fn limits(&self) -> EngineLimits {
        self.inner.limits.read().clone()
    }

    /// Changes the limits. Limits that do not fit together are logged and left out.
    pub fn set_limits(&self, limits: EngineLimits) {
        if let Err(error) = limits.check() {
            tracing::error!(%error, "limits that do not fit are ignored");
            return;
        }
        self.inner.budget.set_total(limits.node_memory);
        *self.inner.limits.write() = limits;
    }

    /// True if graphs are opened for reading only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.inner.read_only
    }

    /// A graph, opened if it is not open. Keep the handle only while it is used: a database with handles cannot be
    /// closed or deleted.
    ///
    /// # Errors
    /// `NotFound`; `Busy` if all memory is with databases in use; what the engine says if it cannot open the file.
    pub async fn database(&self, id: &DatabaseId) -> Result<Database, EngineError> {
        let slot = self.inner.slot(id)?;
        if let Some(open) = slot.usable_graph() {
            return Ok(Database::new(open));
        }
        let (engines, id) = (self.clone(), id.clone());
        to_its_end(async move { engines.open_in(&slot, &id).await }).await
    }

    async fn open_in(&self, slot: &Slot, id: &DatabaseId) -> Result<Database, EngineError> {
        let _gate = slot.gate.lock().await;
        self.inner.still_there(slot)?;
        if let Some(open) = slot.usable_graph() {
            return Ok(Database::new(open));
        }
        // What is left is a handle that has to be opened anew.
        close_graph(slot, CLOSE_PATIENCE).await?;
        let file = self.inner.graph_file(slot);
        let open = match self.inner.open_graph(id, file.clone()).await {
            // Nobody else can close the staging tables of this graph to make room: its gate is held here.
            Err(EngineError::Busy { .. }) if closed(close_staging(slot, Duration::ZERO).await) => {
                self.inner.open_graph(id, file).await?
            }
            other => other?,
        };
        *slot.graph.write() = Some(Arc::clone(&open));
        Ok(Database::new(open))
    }

    /// The staging tables of a graph, made or opened if they are not open.
    ///
    /// # Errors
    /// `NotFound` if there is no such graph; `Busy` if all memory is with databases in use.
    pub async fn staging(&self, id: &DatabaseId) -> Result<Staging, EngineError> {
        if self.inner.read_only {
            return Err(EngineError::ReadOnly {
                message: "this node only reads; it has no staging tables".into(),
            });
        }
        let slot = self.inner.slot(id)?;
        if let Some(open) = slot.staging.read().clone() {
            return Ok(Staging { open });
        }
        let (engines, id) = (self.clone(), id.clone());
        to_its_end(async move { engines.open_staging_in(&slot, &id).await }).await
    }

    async fn open_staging_in(&self, slot: &Slot, id: &DatabaseId) -> Result<Staging, EngineError> {
        let _gate = slot.gate.lock().await;
        self.inner.still_there(slot)?;
        if let Some(open) = slot.staging.read().clone() {
            return Ok(Staging { open });
        }
        let limits = self.limits();
        let boost = slot.boosted().staging;
        let (memory, memory_bytes) = match self.inner.reserve_boosted(boost, limits.staging_memory, id).await {
            // As above: the gate is held here.
            Err(EngineError::Busy { .. }) if closed(close_graph(slot, Duration::ZERO).await) => {
                self.inner.reserve_boosted(boost, limits.staging_memory, id).await?
            }
            other => other?,
        };
        let options = StagingOptions {
            file: self.inner.files.staging(id),
            incoming: self.inner.files.incoming(id),
            spill: self.inner.files.spill(id),
            memory_bytes,
            threads: usize::try_from(limits.engine_threads).unwrap_or(2),
        };
        let id = id.clone();
        let open = tokio::task::spawn_blocking(move || OpenStaging::open(id, options, memory))
            .await
            .unwrap_or_else(|error| Err(EngineError::internal(format!("the opening thread ended: {error}"))))?;
        let open = Arc::new(open);
        *slot.staging.write() = Some(Arc::clone(&open));
        Ok(Staging { open })
    }

    /// Refuses further work, interrupts what runs, and closes everything with a checkpoint.
    pub async fn shutdown(&self) {
        self.inner.stopping.store(true, Ordering::Release);
        self.inner.sweeping.cancel();
        let slots: Vec<Arc<Slot>> = self.inner.slots.read().values().cloned().collect();
        for slot in slots {
            let _gate = slot.gate.lock().await;
            if let Err(error) = close_graph(&slot, CLOSE_PATIENCE).await {
                tracing::warn!(database = %slot.id, %error, "not closed; its log is replayed at the next start");
            }
            if let Err(error) = close_staging(&slot, CLOSE_PATIENCE).await {
                tracing::warn!(database = %slot.id, %error, "staging not closed");
            }
        }
    }
}

impl Inner {
    /// Ends what a crash of this volume's last process left in the logs of loads.
    async fn replay_logs(&self) -> Result<(), EngineError> {
        if self.read_only {
            return Ok(());
        }
        let limits = self.limits();
        let ids: Vec<DatabaseId> = self.slots.read().keys().cloned().collect();
        let options = |id: &DatabaseId| self.open_options(id, self.files.graph(id), &limits);
        let databases: Vec<OpenOptions> = ids.iter().map(options).collect();
        tokio::task::spawn_blocking(move || replay_logs(&databases))
            .await
            .unwrap_or_else(|error| Err(EngineError::internal(format!("the replay of logs ended: {error}"))))
    }

    pub(crate) fn limits(&self) -> EngineLimits {
        self.limits.read().clone()
    }

    fn slot(&self, id: &DatabaseId) -> Result<Arc<Slot>, EngineError> {
        let slot = self
            .slots
            .read()
            .get(id)
            .filter(|slot| slot.exists())
            .cloned()
            .ok_or_else(|| self.absent(id))?;
        if self.stopping.load(Ordering::Acquire) {
            return Err(EngineError::Busy {
                reason: "the agent is stopping".into(),
                retry_after: Duration::from_secs(5),
            });
        }
        slot.last_used.store(self.now(), Ordering::Relaxed);
        Ok(slot)
    }

    fn absent(&self, id: &DatabaseId) -> EngineError {
        if self.awaiting.load(Ordering::Acquire) {
            return EngineError::Busy {
                reason: "this node is still fetching its databases".into(),
                retry_after: Duration::from_secs(5),
            };
        }
        not_found(id)
    }

    /// Where the graph of a slot lies.
    pub(crate) fn graph_file(&self, slot: &Slot) -> PathBuf {
        let generation = slot.generation.read().clone();
        generation.unwrap_or_else(|| self.files.graph(&slot.id))
    }

    pub(crate) fn still_there(&self, slot: &Slot) -> Result<(), EngineError> {
        if slot.exists() {
            Ok(())
        } else {
            Err(not_found(&slot.id))
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    pub(crate) async fn open_graph(&self, id: &DatabaseId, path: PathBuf) -> Result<Arc<OpenDatabase>, EngineError> {
        let limits = self.limits();
        let boost = self.boosted(id).graph;
        let (memory, pool_bytes) = self.reserve_boosted(boost, limits.database_memory, id).await?;
        let options = OpenOptions {
            pool_bytes,
            ..self.open_options(id, path, &limits)
        };
        OpenDatabase::open(options, memory).await.map(Arc::new)
    }

    /// How a graph is opened under these limits.
    pub(crate) fn open_options(&self, id: &DatabaseId, path: PathBuf, limits: &EngineLimits) -> OpenOptions {
        let slot = self.slots.read().get(id).cloned();
        OpenOptions {
            id: id.clone(),
            path,
            read_only: self.read_only,
            pool_bytes: limits.database_memory,
            engine_threads: limits.engine_threads,
            readers: limits.reader_threads,
            max_readers: limits.max_reader_threads,
            max_database_size: limits.max_database_size,
            statement_cache: limits.statement_cache,
            queue_length: limits.queue_length,
            slice_bytes: limits.slice_bytes,
            writes_held: slot
                .as_ref()
                .map(|slot| Arc::clone(&slot.writes_held))
                .unwrap_or_default(),
            revision: slot.map(|slot| slot.revision.clone()).unwrap_or_default(),
            unseen: false,
        }
    }

    fn boosted(&self, id: &DatabaseId) -> Boosted {
        let slots = self.slots.read();
        slots.get(id).map_or_else(Boosted::default, |slot| slot.boosted())
    }

    /// Takes the memory of a boost, or the usual if that cannot be had; and how much it is.
    async fn reserve_boosted(
        &self,
        boost: Option<u64>,
        usual: u64,
        id: &DatabaseId,
    ) -> Result<(Reservation, u64), EngineError> {
        if let Some(bytes) = boost
            && let Ok(memory) = self.reserve(bytes, id).await
        {
            return Ok((memory, bytes));
        }
        Ok((self.reserve(usual, id).await?, usual))
    }

    /// Takes memory for a database, closing others that are not in use, the longest unused first.
    pub(crate) async fn reserve(&self, bytes: u64, wanted_for: &DatabaseId) -> Result<Reservation, EngineError> {
        self.reserve_some(bytes, bytes, wanted_for).await
    }

    /// The same; if databases in use leave less than `most`, takes what they leave, but no less than `least`.
    pub(crate) async fn reserve_some(
        &self,
        least: u64,
        most: u64,
        wanted_for: &DatabaseId,
    ) -> Result<Reservation, EngineError> {
        loop {
            if let Some(memory) = self.budget.reserve(most, most) {
                return Ok(memory);
            }
            if !self.close_least_used(wanted_for).await {
                return self.budget.reserve(least, most).ok_or_else(|| EngineError::Busy {
                    reason: format!(
                        "{} MiB of the node's {} MiB are with databases in use, and {} MiB are needed",
                        self.budget.reserved() >> 20,
                        self.budget.total() >> 20,
                        least >> 20
                    ),
                    retry_after: Duration::from_secs(5),
                });
            }
        }
    }

    /// Closes one database; false if there is none that can be closed. One that is just being opened or closed cannot:
    /// its gate is held.
    async fn close_least_used(&self, wanted_for: &DatabaseId) -> bool {
        let mut slots: Vec<Arc<Slot>> = self.slots.read().values().cloned().collect();
        slots.sort_by_key(|slot| slot.last_used.load(Ordering::Relaxed));
        for slot in slots {
            let Ok(_gate) = slot.gate.try_lock() else { continue };
            if closed(close_graph(&slot, Duration::ZERO).await) || closed(close_staging(&slot, Duration::ZERO).await) {
                tracing::debug!(database = %slot.id, %wanted_for, "closed to make room");
                return true;
            }
        }
        false
    }

    async fn close_idle(&self) {
        let limit = u64::try_from(self.limits.read().idle_close.as_millis()).unwrap_or(u64::MAX);
        let slots: Vec<Arc<Slot>> = self.slots.read().values().cloned().collect();
        for slot in slots {
            self.end_boost(&slot).await;
            if self.now().saturating_sub(slot.last_used.load(Ordering::Relaxed)) < limit {
                continue;
            }
            let Ok(_gate) = slot.gate.try_lock() else { continue };
            for closed in [
                close_graph(&slot, Duration::ZERO).await,
                close_staging(&slot, Duration::ZERO).await,
            ] {
                if let Ok(true) = closed {
                    tracing::debug!(database = %slot.id, "closed after being idle");
                }
            }
        }
    }
}

/// Opens or closes something to its end, also when nobody waits for it any more: what is half open holds the lock of its
/// file, and the next caller would be told that another process has it.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, EngineError>> + Send + 'static,
) -> Result<T, EngineError> {
    let ended = tokio::spawn(work).await;
    ended.unwrap_or_else(|error| {
        Err(EngineError::internal(format!(
            "the opening of a database ended: {error}"
        )))
    })
}

/// Whether something was closed, and its memory with it is free; what is in use is not.
fn closed(result: Result<bool, EngineError>) -> bool {
    result.is_ok_and(|closed| closed)
}

/// Closes the graph of a slot, whose gate is held. With patience, running statements are interrupted and waited for;
/// without, a graph in use is left open. Returns whether one was closed.
pub(crate) async fn close_graph(slot: &Slot, patience: Duration) -> Result<bool, EngineError> {
    let Some(open) = take_if(&slot.graph, |open| {
        patience > Duration::ZERO || Arc::strong_count(open) == 1
    }) else {
        return if patience > Duration::ZERO || slot.graph.read().is_none() {
            Ok(false)
        } else {
            Err(in_use(&slot.id))
        };
    };
    end(slot, open, patience).await?;
    Ok(true)
}

/// Closes the graph of a slot, whose gate is held, after statements that run had `grace` to end by themselves. Those that
/// come meanwhile wait at the gate.
pub(crate) async fn retire_graph(slot: &Slot, grace: Duration) -> Result<(), EngineError> {
    let Some(open) = take_if(&slot.graph, |_| true) else {
        return Ok(());
    };
    alone(&open, grace).await;
    end(slot, open, CLOSE_PATIENCE).await
}

async fn end(slot: &Slot, open: Arc<OpenDatabase>, patience: Duration) -> Result<(), EngineError> {
    if Arc::strong_count(&open) > 1 {
        open.set_closing(true);
    }
    if !alone(&open, patience).await {
        open.set_closing(false);
        *slot.graph.write() = Some(open);
        return Err(in_use(&slot.id));
    }
    let closed = open.closed();
    drop(open);
    // Disconnects when the thread has ended.
    let _ = closed.recv_async().await;
    Ok(())
}

pub(crate) async fn close_staging(slot: &Slot, patience: Duration) -> Result<bool, EngineError> {
    let Some(open) = take_if(&slot.staging, |open| {
        patience > Duration::ZERO || Arc::strong_count(open) == 1
    }) else {
        return if patience > Duration::ZERO || slot.staging.read().is_none() {
            Ok(false)
        } else {
            Err(in_use(&slot.id))
        };
    };
    if !alone(&open, patience).await {
        *slot.staging.write() = Some(open);
        return Err(in_use(&slot.id));
    }
    // Closing writes the log into the file.
    let _ = tokio::task::spawn_blocking(move || drop(open)).await;
    Ok(true)
}

/// Takes what is in a slot. Handles are only made from the slot, under its lock, so one that nobody else holds here
/// stays alone.
fn take_if<T>(place: &RwLock<Option<Arc<T>>>, condition: impl Fn(&Arc<T>) -> bool) -> Option<Arc<T>> {
    let mut place = place.write();
    if place.as_ref().is_some_and(condition) {
        place.take()
    } else {
        None
    }
}

async fn alone<T>(open: &Arc<T>, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    while Arc::strong_count(open) > 1 {
        if Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

fn in_use(id: &DatabaseId) -> EngineError {
    EngineError::Busy {
        reason: format!("database {id:?} is in use"),
        retry_after: Duration::from_secs(5),
    }
}

pub(crate) fn not_found(id: &DatabaseId) -> EngineError {
    EngineError::NotFound {
        what: "database",
        name: id.to_string(),
    }
}

impl std::fmt::Debug for Engines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engines")
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}
