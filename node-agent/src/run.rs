//! The life of the process: open, listen, register, serve, drain.

use crate::{
    admission::{Admission, Memory},
    args::{Args, Role},
    backup::{KeyError, Keyring},
    config::{ConfigError, NodeConfig},
    embed::{EmbedError, Embedder, OnnxEmbedder},
    engines::{EngineError, Engines, EnginesConfig, LADYBUG_VERSION, duckdb_version, fence, ladybug_storage_version},
    http::{
        Auth, Front, Key, RateLimit, Tls, TlsError, read_keys,
        server::{self, Connections},
    },
    migration::Pending,
    objects::{BackupStore, SourceError, Sources, StoreError},
    quota::DailyLoads,
    registration::{
        Follower, Standing, SystemClock,
        client::{CallError, ControlPlane, EngineVersions},
        files::{FileError, VolumeFiles},
        follow,
        lease::Machine,
        metadata::{Metadata, MetadataError},
    },
    reload,
    seeds::{self, LocalSeeds, SeedSetupError, Seeds},
    state::{AppState, NodeFacts, PATIENCE, Parts, engine_limits},
    tasks::{TaskError, TaskStore},
};
use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

/// Why the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file of the volume is wrong.
    #[error(transparent)]
    File(#[from] FileError),
    /// The engines do not start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The tasks cannot be read.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The object store is wrong.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keys for backups are wrong.
    #[error("--backup-key-file: {0}")]
    BackupKey(#[from] KeyError),
    /// The model for embeddings is wrong.
    #[error("--embedding-model: {0}")]
    Embedding(#[from] EmbedError),
    /// The import directory is wrong.
    #[error("--import-dir: {0}")]
    Import(#[from] SourceError),
    /// The system gives no further thread.
    #[error("no thread can be started: {0}")]
    Thread(io::Error),
    /// No client for the control plane.
    #[error(transparent)]
    Client(#[from] CallError),
    /// No client for the metadata service.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The data directory cannot be made.
    #[error("data directory {path}: {source}")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}")]
    Signal(io::Error),
    /// An open agent on an open address.
    #[error("refusing to listen on {0} without a key: set GRAPH_API_KEY or --api-key-file, or listen on 127.0.0.1")]
    NoKey(std::net::IpAddr),
    /// The file of keys is no good.
    #[error("--api-key-file {path}: {source}")]
    Keys {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The seeds cannot be followed.
    #[error(transparent)]
    Seed(#[from] SeedSetupError),
    /// The certificate is no good.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
}

/// Runs the agent until SIGTERM or SIGINT. `keys` are those of the environment; empty ones are none.
///
/// # Errors
/// When it cannot start; a started agent ends without an error.
pub async fn run(args: Args, keys: &[String]) -> Result<(), StartError> {
    let started = Instant::now();
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signal)?;
    let fixed: Vec<Key> = keys.iter().filter(|key| !key.is_empty()).map(Key::new).collect();
    let chosen = chosen_keys(&fixed, args.api_key_file.as_deref())?;
    if args.config.is_none() && chosen.is_empty() {
        if !args.host.is_loopback() {
            return Err(StartError::NoKey(args.host));
        }
        tracing::warn!(
            operation = "start",
            "GRAPH_API_KEY is not set: everybody on this machine may call this agent"
        );
    }
    // Object stores and control planes may be reached over https; a second installation in one process does no harm.
    let _ = rustls::crypto::ring::default_provider().install_default();

    let stop = CancellationToken::new();
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(cert), Some(key)) => Some(Arc::new(Tls::load(cert.clone(), key.clone())?)),
        _ => None,
    };
    let (state, local_seeds) = open(&args, chosen, started, &stop).await?;
    let address = SocketAddr::new(args.host, args.port);
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| StartError::Listen { address, source })?;
    let bound = listener
        .local_addr()
        .map_err(|source| StartError::Listen { address, source })?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let reachable = args.advertise.clone().unwrap_or_else(|| format!("{scheme}://{bound}"));
    let files = VolumeFiles::new(&args.data_dir);
    files.write_address(&reachable)?;
    let _ = state.facts.address.set(reachable.clone());
    tracing::info!(
        operation = "start",
        address = reachable,
        node = state.facts.node,
        databases = state.engines.list().len(),
        duration_ms = started.elapsed().as_millis() as u64,
        "listening"
    );

    let background = CancellationToken::new();
    let limit = (args.process_memory_mib > 0).then_some(args.process_memory_mib << 20);
    fence::raise(limit, args.min_available_mib << 20, background.clone()).map_err(StartError::Thread)?;
    tokio::spawn(state.standing.clone().watch(background.clone()));
    if let Some(config) = args.config.clone() {
        let follower = Follower {
            config,
            files,
            standing: state.standing.clone(),
            host: Arc::new(state.clone()),
            control_plane: ControlPlane::new(Duration::from_secs(5))?,
            metadata: Metadata::from_environment()?,
        };
        tokio::spawn(follow(follower, background.clone()));
    }
    if let Some(local) = local_seeds {
        let every = Duration::from_secs(args.seed_poll_seconds);
        for seed in state.seeds.iter() {
            tokio::spawn(seeds::follow(state.clone(), seed.clone(), Arc::clone(&local), every));
        }
    }
    follow_files(&state, fixed, args.api_key_file.clone(), tls.clone(), &background);
    let patience = Duration::from_secs(args.drain_seconds);
    let how = Connections {
        head_timeout: Duration::from_secs(args.head_timeout_seconds),
        tls,
    };
    let serving = tokio::spawn(server::serve(
        listener,
        Front::new(state.clone()),
        how,
        stop.clone(),
        patience,
    ));

    tokio::select! {
        _ = terminate.recv() => tracing::info!(operation = "shutdown", signal = "SIGTERM", "draining"),
        _ = interrupt.recv() => tracing::info!(operation = "shutdown", signal = "SIGINT", "draining"),
    }
    // Writes that run keep their lease while they finish: renewing goes on until the end.
    state.standing.drain();
    stop.cancel();
    let (_, served) = tokio::join!(state.tasks.shutdown(patience), serving);
    if let Err(error) = served {
        tracing::error!(operation = "shutdown", %error, "the server ended badly");
    }
    // A statement that outlived the draining may have all threads of its engine, and then the checkpoint waits for it
    // without end; closing interrupts it, and makes the checkpoint after that.
    let limit = Duration::from_secs(30);
    let failed = match tokio::time::timeout(limit, checkpoint_all(&state, limit)).await {
        Ok(failed) => failed,
        Err(_) => {
            tracing::warn!(
                operation = "shutdown",
                "databases are closed without waiting for their checkpoints any longer"
            );
            Vec::new()
        }
    };
    state.engines.shutdown().await;
    background.cancel();
    tracing::info!(operation = "shutdown", not_checkpointed = failed.len(), "stopped");
    Ok(())
}

/// The keys of the environment and of the file.
fn chosen_keys(fixed: &[Key], file: Option<&Path>) -> Result<Vec<Key>, StartError> {
    let mut keys = fixed.to_vec();
    if let Some(path) = file {
        let read = read_keys(path).map_err(|source| StartError::Keys {
            path: path.to_owned(),
            source,
        })?;
        keys.extend(read);
    }
    Ok(keys)
}

/// Takes new keys and certificates when their files change. What cannot be read changes nothing.
fn follow_files(
    state: &AppState,
    fixed: Vec<Key>,
    keys: Option<PathBuf>,
    tls: Option<Arc<Tls>>,
    stop: &CancellationToken,
) {
    let told = |what: &'static str, outcome: Result<(), StartError>| match outcome {
        Ok(()) => tracing::info!(operation = "reload", "{what} read again"),
        Err(error) => {
            tracing::warn!(operation = "reload", %error, "{what} changed and cannot be used; the old ones stay")
        }
    };
    if let Some(path) = keys {
        let state = state.clone();
        tokio::spawn(reload::watch(vec![path.clone()], stop.clone(), move || {
            let keys = chosen_keys(&fixed, Some(&path));
            told("keys", keys.map(|keys| state.auth.set_chosen(keys)));
        }));
    }
    if let Some(tls) = tls {
        tokio::spawn(reload::watch(tls.files(), stop.clone(), move || {
            told("certificates", tls.reload().map_err(StartError::from));
        }));
    }
}

/// Empties the directory of what a crash left behind, copies of backups and parts of indexes, and has libraries put theirs
/// there, too: beside the volume nobody would ever remove them, and nobody has provided for their size.
fn take_scratch(scratch: &Path) -> Result<(), StartError> {
    let emptied = match std::fs::remove_dir_all(scratch) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => std::fs::create_dir(scratch),
    };
    emptied.map_err(|source| StartError::DataDir {
        path: scratch.to_owned(),
        source,
    })?;
    if let Err(other) = tempfile::env::override_temp_dir(scratch) {
        tracing::warn!(operation = "start", directory = %other.display(), "another agent of this process chose the directory of temporary files");
    }
    Ok(())
}

async fn open(
    args: &Args,
    keys: Vec<Key>,
    started: Instant,
    stop: &CancellationToken,
) -> Result<(AppState, Option<Arc<LocalSeeds>>), StartError> {
    make_private(&args.data_dir)?;
    let data_dir = args.data_dir.canonicalize().map_err(|source| StartError::DataDir {
        path: args.data_dir.clone(),
        source,
    })?;
    let settings = args.settings();
    // First, since it takes the volume for this process: what follows clears up after the one before.
    let engines = Engines::start(EnginesConfig {
        data_dir: data_dir.clone(),
        read_only: args.role == Role::Replica,
        limits: engine_limits(&settings),
    })
    .await?;
    let files = VolumeFiles::new(&data_dir);
    files.remove_unfinished()?;
    // Who asks for the migration is told what is wrong with the file; nobody else needs it.
    if let Err(error) = Pending::settle_volume(&data_dir, &engines) {
        tracing::error!(operation = "start", %error, "it is not known which databases wait for an import");
    }
    let config = args.config.as_deref().map(NodeConfig::read).transpose()?;
    let (standing, auth, node) = match &config {
        None => (Machine::standalone(), Auth::standalone(keys), "standalone".to_owned()),
        Some(config) => {
            let identity = files.identity(&config.node);
            let auth = Auth::issued(identity.as_ref().map(|identity| identity.api_key.as_str()));
            (Machine::registering(files.epoch()?), auth, config.node.clone())
        }
    };
    take_scratch(&data_dir.join("tmp"))?;
    let url = config
        .as_ref()
        .and_then(|config| config.object_store.clone())
        .or_else(|| args.object_store.clone());
    let backup_store = url.as_deref().map(BackupStore::open).transpose()?;
    let key_file = config
        .as_ref()
        .and_then(|config| config.backup_key_file.clone())
        .or_else(|| args.backup_key_file.clone());
    let keyring = key_file.as_deref().map(Keyring::read).transpose()?;
    let (seeds, local_seeds) = followed_seeds(args, config.as_ref(), &data_dir, backup_store.is_some())?;
    engines.await_databases(seeds.is_warming());
    let model = config
        .as_ref()
        .and_then(|config| config.embedding_model.clone())
        .or_else(|| args.embedding_model.clone());
    let embedder = model.as_deref().map(load_model).transpose()?;
    let sources = Sources::new(args.source_rules(), args.import_dir.as_deref(), &data_dir)?;
    if let Some(config) = &config {
        sources.follow(&config.sources);
    }
    let tasks = TaskStore::open(&data_dir.join("tasks"), args.task_retention())?;
    let loads = DailyLoads::open(&data_dir)?;
    let facts = NodeFacts {
        node,
        data_dir,
        started,
        address: OnceLock::new(),
        engines: EngineVersions {
            ladybug: LADYBUG_VERSION.to_owned(),
            ladybug_storage: ladybug_storage_version().to_string(),
            duckdb: duckdb_version(),
        },
        row_limit: args.row_limit.max(1),
    };
    let admission = Admission::new(
        settings.engine.connections_per_database,
        PATIENCE,
        args.min_available_mib << 20,
        Memory::sampled(stop.clone()),
    );
    let standing = Standing::new(standing, SystemClock);
    let state = AppState::new(Parts {
        engines,
        standing,
        tasks,
        loads,
        auth: auth.limited(RateLimit::new(args.rate_limit, args.rate_burst)),
        admission,
        sources,
        facts,
        backup_store,
        keyring,
        seeds,
        embedder,
        settings,
        stop: stop.clone(),
    });
    Ok((state, local_seeds))
}

/// The seeds to follow, and those that lie on the volume.
fn followed_seeds(
    args: &Args,
    config: Option<&NodeConfig>,
    data_dir: &Path,
    with_store: bool,
) -> Result<(Seeds, Option<Arc<LocalSeeds>>), SeedSetupError> {
    let configured = config.map(|config| &config.seeds).filter(|seeds| !seeds.is_empty());
    let seeds = Seeds::new(configured.unwrap_or(&args.seed))?;
    if seeds.is_empty() {
        return Ok((seeds, None));
    }
    if args.role != Role::Replica {
        return Err(SeedSetupError::NotAReplica);
    }
    if !with_store {
        return Err(SeedSetupError::NoStore);
    }
    let local = LocalSeeds::open(data_dir, &seeds)?;
    Ok((seeds, Some(Arc::new(local))))
}

fn load_model(dir: &Path) -> Result<Arc<dyn Embedder>, EmbedError> {
    let started = Instant::now();
    let embedder = tokio::task::block_in_place(|| OnnxEmbedder::open(dir))?;
    tracing::info!(
        operation = "start",
        model = embedder.model(),
        dimension = embedder.dimension(),
        duration_ms = started.elapsed().as_millis() as u64,
        "embedding model loaded"
    );
    Ok(Arc::new(embedder))
}

fn make_private(dir: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| StartError::DataDir {
            path: dir.to_owned(),
            source,
        })
}

/// Checkpoints every open database, so that its data file is whole; names those that could not be.
pub async fn checkpoint_all(state: &AppState, timeout: Duration) -> Vec<String> {
    if state.engines.is_read_only() {
        return Vec::new();
    }
    let mut failed = Vec::new();
    for id in state.engines.list() {
        // A closed database was checkpointed when it was closed.
        if !state.engines.info(&id).is_ok_and(|info| info.open) {
            continue;
        }
        let result = match state.engines.database(&id).await {
            Ok(database) => database.checkpoint(timeout).await,
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tracing::warn!(operation = "checkpoint", graph = %id, %error, "database not checkpointed; its log keeps what it has");
            failed.push(id.to_string());
        }
    }
    failed
}
