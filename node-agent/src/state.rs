//! What every request needs: the engines, the agent's standing, tasks, limits and figures.

use crate::{
    admission::{Admission, sample},
    backup::Keyring,
    changes::Changes,
    config::{NodeConfig, Settings},
    disk::disk,
    embed::Embedder,
    engines::{DatabaseId, DatabaseInfo, EngineLimits, Engines},
    http::{ApiError, Auth, on_volume},
    metrics::Metrics,
    objects::{BackupStore, Sources},
    quota::DailyLoads,
    registration::{
        Host, Standing,
        client::{Capacity, DatabaseSize, EngineVersions, LeaseRequest, RegisterRequest},
        lease::{Refusal, State},
    },
    seeds::Seeds,
    tasks::TaskStore,
};
use axum::http::{HeaderMap, StatusCode};
use parking_lot::{Mutex, RwLock};
use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// Facts of this process that do not change.
#[derive(Debug)]
pub struct NodeFacts {
    /// `GraphNode`'s name, or `standalone`.
    pub node: String,
    /// The volume.
    pub data_dir: PathBuf,
    /// When the process began.
    pub started: Instant,
    /// Where it can be reached; known once it listens.
    pub address: OnceLock<String>,
    /// Versions of the engines.
    pub engines: EngineVersions,
    /// Most rows of a JSON answer.
    pub row_limit: usize,
}

/// Everything that handlers share.
pub struct Shared {
    /// LadybugDB and DuckDB.
    pub engines: Engines,
    /// Whether this agent may write.
    pub standing: Standing,
    /// Work that outlives its request.
    pub tasks: TaskStore,
    /// Loads of the day.
    pub loads: Arc<DailyLoads>,
    /// Counts.
    pub metrics: Metrics,
    /// Who may call.
    pub auth: Auth,
    /// Room for one more request.
    pub admission: Admission,
    /// Where files of staging tables may come from.
    pub sources: Sources,
    /// Facts of this process.
    pub facts: NodeFacts,
    /// Where backups go.
    pub backup_store: RwLock<Option<BackupStore>>,
    /// With what backups are encrypted, if there is a key.
    pub keyring: Option<Keyring>,
    /// The seeds that this node follows, if it is a replica.
    pub seeds: Seeds,
    /// What turns texts into vectors, if there is a model. Its work goes through `http::embeddings`, which bounds it.
    pub embedder: Option<Arc<dyn Embedder>>,
    /// Requests that the model works on at the same time.
    pub embed_turns: Arc<Semaphore>,
    /// One backup or restore at a time: each holds a copy of a database on the volume.
    pub backup_turn: Arc<Semaphore>,
    /// Downloads at the same time: each holds a copy for as long as its client takes.
    pub downloads: Arc<Semaphore>,
    /// Cancelled when the process is about to end.
    pub stop: CancellationToken,
    /// Rights to change something that are held: a node is not drained before all of them are given back.
    pub write_permits: TaskTracker,
    /// Staging tables that requests change now.
    pub changes: Arc<Changes>,
    /// Held while a task is looked for and, if there is none, started: two requests must not both find none.
    pub starting: tokio::sync::Mutex<()>,
    settings: RwLock<Arc<Settings>>,
    creating: Mutex<HashSet<DatabaseId>>,
    load_turns: Mutex<HashMap<DatabaseId, (usize, Arc<Semaphore>)>>,
    replica: AtomicBool,
    read_only: bool,
    next_request: AtomicU64,
    request_prefix: u32,
}

/// The parts from which the state is made.
pub struct Parts {
    /// LadybugDB and DuckDB.
    pub engines: Engines,
    /// Whether this agent may write.
    pub standing: Standing,
    /// Work that outlives its request.
    pub tasks: TaskStore,
    /// Loads of the day.
    pub loads: DailyLoads,
    /// Who may call.
    pub auth: Auth,
    /// Room for one more request.
    pub admission: Admission,
    /// Where files of staging tables may come from.
    pub sources: Sources,
    /// Facts of this process.
    pub facts: NodeFacts,
    /// Where backups go.
    pub backup_store: Option<BackupStore>,
    /// With what backups are encrypted.
    pub keyring: Option<Keyring>,
    /// The seeds that this node follows.
    pub seeds: Seeds,
    /// What turns texts into vectors.
    pub embedder: Option<Arc<dyn Embedder>>,
    /// Figures of the tier.
    pub settings: Settings,
    /// Cancelled when the process is about to end.
    pub stop: CancellationToken,
}

/// The shared state; cheap to clone.
#[derive(Clone)]
pub struct AppState(Arc<Shared>);

impl std::ops::Deref for AppState {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl std::fmt::Debug for AppState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppState")
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

/// The right to change something, for as long as the agent holds its lease.
#[derive(Clone, Debug)]
pub struct WritePermit {
    /// Cancelled when the right ends.
    pub ends: CancellationToken,
    /// Shows that it is held.
    _held: TaskTrackerToken,
}

impl AppState {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        let read_only = parts.engines.is_read_only();
        let metrics = Metrics::new(&parts.facts.engines.ladybug, &parts.facts.engines.duckdb);
        parts.tasks.measure(metrics.task_duration.clone());
        parts.tasks.follow(parts.standing.clone());
        Self(Arc::new(Shared {
            engines: parts.engines,
            standing: parts.standing,
            tasks: parts.tasks,
            loads: Arc::new(parts.loads),
            metrics,
            auth: parts.auth,
            admission: parts.admission,
            sources: parts.sources,
            facts: parts.facts,
            backup_store: RwLock::new(parts.backup_store),
            keyring: parts.keyring,
            seeds: parts.seeds,
            embedder: parts.embedder,
            embed_turns: Arc::new(Semaphore::new(embed_turns())),
            backup_turn: Arc::new(Semaphore::new(1)),
            downloads: Arc::new(Semaphore::new(DOWNLOADS)),
            stop: parts.stop,
            write_permits: TaskTracker::new(),
            changes: Arc::default(),
            starting: tokio::sync::Mutex::default(),
            settings: RwLock::new(Arc::new(parts.settings)),
            creating: Mutex::default(),
            load_turns: Mutex::default(),
            replica: AtomicBool::new(read_only),
            read_only,
            next_request: AtomicU64::new(0),
            request_prefix: rand::random(),
        }))
    }

    /// The figures that hold now.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read())
    }

    /// Whether this node only reads.
    pub fn is_replica(&self) -> bool {
        self.replica.load(Ordering::Relaxed)
    }

    /// The directory for copies; emptied when the agent starts.
    pub fn scratch(&self) -> PathBuf {
        self.facts.data_dir.join("tmp")
    }

    /// Checks that `bytes` more fit on the volume, and leave some room for what else is written.
    ///
    /// # Errors
    /// 507 when they do not.
    pub fn check_disk(&self, bytes: u64) -> Result<(), ApiError> {
        let free = disk(&self.facts.data_dir).free;
        if bytes.saturating_add(DISK_RESERVE) <= free {
            return Ok(());
        }
        let message = format!(
            "{bytes} bytes are needed on the volume (and {DISK_RESERVE} stay free), and it has {free}; grow the volume or delete what is not needed"
        );
        Err(ApiError::new(StatusCode::INSUFFICIENT_STORAGE, message).rejected("disk"))
    }

    /// The turn of a graph's loads: `copy.concurrent` at a time.
    pub fn load_turn(&self, id: &DatabaseId) -> Arc<Semaphore> {
        let limit = self.settings().copy.concurrent_loads();
        let mut turns = self.load_turns.lock();
        match turns.get(id) {
            Some((current, turn)) if *current == limit => Arc::clone(turn),
            _ => {
                let turn = Arc::new(Semaphore::new(limit));
                turns.insert(id.clone(), (limit, Arc::clone(&turn)));
                turn
            }
        }
    }

    /// Counts a load into a graph that is about to begin.
    ///
    /// # Errors
    /// 429 when the tier permits no more on this day.
    pub async fn count_load(&self, id: &DatabaseId) -> Result<(), ApiError> {
        let Some(limit) = self.settings().copy.loads_per_day() else {
            return Ok(());
        };
        let (loads, id) = (Arc::clone(&self.loads), id.clone());
        let counted = tokio::task::spawn_blocking(move || loads.begin(&id, limit, jiff::Timestamp::now()));
        let failed =
            |error: tokio::task::JoinError| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
        counted.await.map_err(failed)?.map_err(ApiError::from)
    }

    /// Forgets a database that was deleted.
    pub fn forget(&self, id: &DatabaseId) {
        self.admission.forget(id.as_str());
        self.load_turns.lock().remove(id);
    }

    /// A text as callers may see it: files of the volume without this machine's directory.
    pub fn shown(&self, text: &str) -> String {
        on_volume(text, &self.facts.data_dir)
    }

    /// A fresh id for a request that brought none.
    pub fn request_id(&self) -> String {
        format!(
            "{:08x}{:08x}",
            self.request_prefix,
            self.next_request.fetch_add(1, Ordering::Relaxed)
        )
    }

    /// The right to change something, for this request. A request that comes before the registration waits for it.
    ///
    /// # Errors
    /// 403 on a node that only reads or for a caller who may only read, 409 when the caller means another epoch, 503
    /// without a lease.
    pub async fn write_permit(&self, headers: &HeaderMap) -> Result<WritePermit, ApiError> {
        if matches!(self.standing.permit(), Err(Refusal::Registering)) && !self.is_replica() {
            self.standing.registered_within(REGISTRATION_PATIENCE).await;
        }
        self.write_permit_now(headers)
    }

    /// The same without waiting, for requests that may well not need it.
    ///
    /// # Errors
    /// As [`write_permit`](Self::write_permit).
    pub fn write_permit_now(&self, headers: &HeaderMap) -> Result<WritePermit, ApiError> {
        if self.is_replica() {
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "This node only reads; send changes to the graph's writer",
            ));
        }
        self.check_epoch(headers)?;
        match self.standing.permit() {
            Ok(ends) => Ok(WritePermit {
                ends,
                _held: self.write_permits.token(),
            }),
            Err(refusal) => Err(refusal.into()),
        }
    }

    fn check_epoch(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(given) = headers.get("x-graphplane-epoch") else {
            return Ok(());
        };
        let held = match self.standing.state() {
            State::Active { epoch, .. } | State::Fenced { epoch } | State::Draining { epoch, .. } => epoch,
            // Alone there is nobody to disagree with; before registration the lease refuses anyway.
            State::Standalone | State::Registering => return Ok(()),
        };
        let meant = given.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok());
        if meant == Some(held) {
            return Ok(());
        }
        // No volume ever has epoch 0: the gateway sends it for a caller who may only read.
        if meant == Some(0) {
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "The caller may only read, and this would change something",
            ));
        }
        Err(ApiError::new(
            StatusCode::CONFLICT,
            match meant {
                Some(meant) => format!("The request is for epoch {meant} of this volume, but the node holds epoch {held}; look the node up again"),
                None => "X-Graphplane-Epoch is not a number".to_owned(),
            },
        )
        .rejected("epoch"))
    }

    /// What is known of every database of the node. One that is still being made is not among them.
    pub fn databases(&self) -> Vec<DatabaseInfo> {
        let ids = self.engines.list();
        ids.iter()
            .filter_map(|id| self.engines.info(id).ok())
            .filter(|info| info.path.is_file())
            .collect()
    }

    /// Databases that count against the node's limit: subgraphs, named `<graph>_<name>`, share their parent's place, and
    /// `<graph>-wip` that of the graph which it is to replace.
    pub fn counted_databases(&self) -> usize {
        counted(&self.engines.list())
    }

    /// Whether a database shares the place of its parent, or of the one that it is to replace.
    pub fn shares_place(&self, id: &DatabaseId) -> bool {
        shares_place(id, &self.engines.list())
    }

    /// Takes a place on the node for a database that is about to be made.
    ///
    /// # Errors
    /// 507 when the node is full.
    pub fn take_place(&self, id: &DatabaseId) -> Result<TakenPlace, ApiError> {
        let max = self.settings().databases_per_node as usize;
        let mut creating = self.creating.lock();
        // What is being made may or may not be in the list already, and counts once.
        let mut all = self.engines.list();
        all.extend(creating.iter().cloned());
        all.sort();
        all.dedup();
        if counted(&all) >= max {
            let message = format!(
                "Maximum database capacity reached ({max}); delete a database or place this one on another node"
            );
            return Err(ApiError::new(StatusCode::INSUFFICIENT_STORAGE, message));
        }
        creating.insert(id.clone());
        Ok(TakenPlace {
            id: id.clone(),
            state: self.clone(),
        })
    }
}

/// The place of a database that is being made; given back when dropped, since the list has the database by then.
#[derive(Debug)]
pub struct TakenPlace {
    id: DatabaseId,
    state: AppState,
}

impl Drop for TakenPlace {
    fn drop(&mut self) {
        self.state.creating.lock().remove(&self.id);
    }
}

fn counted(all: &[DatabaseId]) -> usize {
    all.iter().filter(|id| !shares_place(id, all)).count()
}

fn shares_place(id: &DatabaseId, all: &[DatabaseId]) -> bool {
    let there = |owner: &str| all.iter().any(|other| other.as_str() == owner);
    match id.predecessor() {
        Some(replaced) => there(replaced.as_str()),
        None => id.as_str().rsplit_once('_').is_some_and(|(parent, _)| there(parent)),
    }
}

/// The limits of the engines under a tier's settings, made to fit together: a graph with its staging must fit into the
/// node, however small that is.
pub fn engine_limits(settings: &Settings) -> EngineLimits {
    const MIB: u64 = 1 << 20;
    let defaults = EngineLimits::default();
    let node_memory = settings.memory.node_mib.saturating_mul(MIB).max(192 * MIB);
    let staging_memory = defaults.staging_memory.min(node_memory / 3).max(64 * MIB);
    let database_memory = settings
        .memory
        .per_database_mib
        .saturating_mul(MIB)
        .clamp(64 * MIB, node_memory - staging_memory);
    EngineLimits {
        node_memory,
        database_memory,
        staging_memory,
        max_reader_threads: settings
            .engine
            .connections_per_database
            .clamp(defaults.reader_threads, 64),
        // The limit of the contract does not count subgraphs, and is checked where databases are made.
        max_databases: usize::MAX,
        ..defaults
    }
}

impl Host for AppState {
    fn register_request(&self, config: &NodeConfig, volume_epoch: u64) -> RegisterRequest {
        let disk = disk(&self.facts.data_dir);
        RegisterRequest {
            node: config.node.clone(),
            address: self.facts.address.get().cloned().unwrap_or_default(),
            instance_id: config
                .instance_id
                .clone()
                .unwrap_or_else(|| format!("local-{}", config.node)),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            engines: self.facts.engines.clone(),
            capacity: Capacity {
                memory_mib: (sample().total >> 20).min(1 << 30),
                databases: self.settings().databases_per_node,
                disk_mib: disk.size >> 20,
            },
            databases: self.databases().iter().map(|info| info.id.to_string()).collect(),
            volume_epoch,
            identity: None,
        }
    }

    fn lease_request(&self, epoch: u64, fenced: bool) -> LeaseRequest {
        let disk = disk(&self.facts.data_dir);
        let databases = self.databases().into_iter().map(|info| DatabaseSize {
            id: info.id.to_string(),
            size_bytes: info.size_bytes,
            staging_bytes: info.staging_bytes,
            revision: info.revision,
        });
        LeaseRequest {
            epoch,
            address: self.facts.address.get().cloned().unwrap_or_default(),
            databases: databases.collect(),
            memory_used_mib: sample().resident >> 20,
            disk_used_mib: disk.used >> 20,
            disk_free_mib: disk.free >> 20,
            fenced,
            active_queries: self.engines.usage().running() as u64,
        }
    }

    fn apply_settings(&self, settings: &Settings) {
        if *self.settings() == *settings {
            return;
        }
        tracing::info!(operation = "settings", settings = ?settings, "new settings of the tier");
        self.engines.set_limits(engine_limits(settings));
        self.admission.set_limit(settings.engine.connections_per_database);
        *self.settings.write() = Arc::new(settings.clone());
    }

    fn apply_identity(&self, role: Option<&str>, api_key: &str, config: &NodeConfig) {
        self.auth.set_issued(api_key);
        self.replica
            .store(self.read_only || role == Some("replica"), Ordering::Relaxed);
        self.sources.follow(&config.sources);
        if let Some(url) = &config.object_store {
            match BackupStore::open(url) {
                Ok(store) => *self.backup_store.write() = Some(store),
                Err(error) => tracing::error!(operation = "registration", %error, "the object store cannot be used"),
            }
        }
    }

    fn drain(&self) {
        self.standing.drain();
    }
}

/// Texts are embedded by half of the cores: the engines need the others.
fn embed_turns() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, 4))
}

/// Downloads of backups at the same time.
const DOWNLOADS: usize = 2;

/// What copies leave free on the volume, in bytes.
const DISK_RESERVE: u64 = 64 << 20;

/// How long a request that comes before the registration waits for it, at most.
pub const REGISTRATION_PATIENCE: Duration = Duration::from_secs(2);

/// How long a request waits for its place in a database, at most.
pub const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn subgraphs_and_successors_have_no_place_of_their_own() {
        let ids: Vec<DatabaseId> = [
            "kg1",
            "kg1-wip",
            "kg1_dev",
            "kg1_dev-wip",
            "kg2_dev",
            "my_own",
            "my_own_dev",
            "kg3-wip",
        ]
        .iter()
        .map(|id| id.parse().unwrap())
        .collect();
        let own: Vec<&str> = ids
            .iter()
            .filter(|id| !shares_place(id, &ids))
            .map(DatabaseId::as_str)
            .collect();
        assert_eq!((own, counted(&ids)), (vec!["kg1", "kg2_dev", "my_own", "kg3-wip"], 4));
    }

    #[test]
    fn every_tier_gives_limits_that_fit() {
        for (node_mib, per_database_mib) in [
            (0, 0),
            (100, 100),
            (512, 512),
            (1024, 128),
            (7168, 716),
            (14_336, 2048),
            (30_720, 30_720),
            (u64::MAX, u64::MAX),
        ] {
            let mut settings = Settings::default();
            settings.memory.node_mib = node_mib;
            settings.memory.per_database_mib = per_database_mib;
            let limits = engine_limits(&settings);
            assert!(limits.check().is_ok(), "{node_mib}/{per_database_mib}: {limits:?}");
        }
        let limits = engine_limits(&Settings::default());
        assert_eq!(limits.database_memory, 512 << 20);
    }
}
