//! One look at a followed seed: what the object store has, and, if that is newer than what is served, fetching it beside,
//! checking it, and taking it up.

use super::{
    local::{self, LocalSeeds, Record},
    pointer::{Pointer, SeedVersion, digest},
    status::{Seed, SeedState, ServedSeed},
};
use crate::{
    backup::{Abilities, BackupKey, Content, DownloadError, FileKind, Manifest, Target, Unusable, download},
    engines::{
        DatabaseId, EngineError, ErrorClass, Generation, GraphCounts, IncomingVectors, Retired, ladybug_storage_version,
    },
    objects::{BackupStore, StoreError},
    state::AppState,
};
use object_store::path::Path as ObjectPath;
use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Why a seed is not served. What was served before still is.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The object store is not known yet.
    #[error("no object store is configured on this node")]
    NoStore,
    /// The object store refused or could not be reached.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no seed.
    #[error("{0} has neither latest.json nor manifest.json: nothing is published there")]
    Missing(String),
    /// A document of the seed is not what an agent writes, or belongs to another seed.
    #[error("{key} cannot be used: {message}")]
    Document {
        /// The document.
        key: String,
        /// Why.
        message: String,
    },
    /// The pointer went back.
    #[error("{found} is published, which is older than {served} that is served")]
    Older {
        /// What is published.
        found: SeedVersion,
        /// What is served.
        served: SeedVersion,
    },
    /// The manifest is of no use here.
    #[error("{key} is not served: {why}")]
    Unusable {
        /// The seed.
        key: String,
        /// Why.
        why: Unusable,
    },
    /// It is encrypted with a key that this node does not have.
    #[error("{key} is encrypted with key {wanted:?}, which is not in this node's --backup-key-file")]
    NoKey {
        /// The seed.
        key: String,
        /// Which key.
        wanted: String,
    },
    /// Another followed key has the graph already.
    #[error("{key} is a seed of {graph}, which this node serves from elsewhere")]
    Taken {
        /// The seed.
        key: String,
        /// The graph.
        graph: DatabaseId,
    },
    /// There is no room for it.
    #[error("{0}")]
    Disk(String),
    /// A file could not be fetched, or is not the one of the manifest.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// The engine does not open it, or its files cannot be kept.
    #[error("the seed could not be taken up: {0}")]
    Engine(#[from] EngineError),
    /// It is a database, and not the one of the manifest.
    #[error(
        "the seed has {nodes} nodes and {relationships} relationships, and its manifest says {expected_nodes} and {expected_relationships}"
    )]
    Counts {
        /// What was found.
        nodes: u64,
        /// What was found.
        relationships: u64,
        /// What the manifest says.
        expected_nodes: u64,
        /// What the manifest says.
        expected_relationships: u64,
    },
}

impl SeedError {
    /// Whether the seed itself is bad, so that fetching it again is of no use.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Document { .. } | Self::Older { .. } | Self::Unusable { .. } | Self::Counts { .. } => true,
            Self::Download(DownloadError::Different { .. }) => true,
            // What cannot be unpacked is damaged, unless the volume is at fault.
            Self::Download(DownloadError::Unpack { source, .. }) => matches!(
                source.kind(),
                ErrorKind::Other | ErrorKind::InvalidData | ErrorKind::UnexpectedEof
            ),
            // A table of vectors that is none, or that cannot be kept.
            Self::Download(DownloadError::Content { source, .. }) => source.class() == ErrorClass::Invalid,
            Self::Engine(EngineError::Io { .. }) => false,
            Self::Engine(error) => matches!(error.class(), ErrorClass::Internal | ErrorClass::Invalid),
            _ => false,
        }
    }
}

/// What one look came to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// What is served is what is published.
    Current,
    /// What is published was refused before, and is not fetched again.
    RefusedBefore,
    /// The published seed is served now; the one before, if it was open.
    Swapped(Option<Retired>),
}

/// A followed seed with what is served of it.
pub(super) struct Follower {
    pub(super) state: AppState,
    pub(super) seed: Seed,
    pub(super) local: Arc<LocalSeeds>,
    pub(super) serving: Option<Serving>,
    /// Digest of the manifest of a seed that was refused.
    pub(super) refused: Option<String>,
}

/// What is served.
#[derive(Clone, Debug)]
pub(super) struct Serving {
    pub(super) id: DatabaseId,
    pub(super) directory: PathBuf,
    key: String,
    at: SeedVersion,
}

/// What is published.
struct Published {
    key: ObjectPath,
    manifest_digest: String,
    /// What the pointer says; a seed that is named itself has none.
    pointer: Option<Pointer>,
}

impl Follower {
    /// Serves what lies on the volume: the newest seed that can be opened.
    pub(super) async fn resume(&mut self) -> Result<(), EngineError> {
        for found in self.local.of(self.seed.key())? {
            let record = found.record;
            let resumed = async {
                let id = DatabaseId::parse(&record.manifest.graph_id)?;
                self.check_free(&id, &record.key)?;
                let manifest = record.manifest.clone();
                let counted = |counts: GraphCounts| async move { check_counts(&manifest, &counts) };
                let (graph, vectors) = (local::graph(&found.directory), local::vectors(&found.directory));
                let files = Generation {
                    graph: &graph,
                    vectors: &vectors,
                };
                self.state.engines.take_up(&id, files, counted).await?;
                Ok::<_, SeedError>(id)
            };
            match resumed.await {
                Ok(id) => {
                    self.served(id, found.directory, record.key, &record.manifest);
                    break;
                }
                Err(error) => {
                    let directory = found.directory.display();
                    tracing::error!(operation = "seed", %directory, %error, "a seed on the volume cannot be served");
                    self.seed.update(|status| status.error = Some(error.to_string()));
                }
            }
        }
        Ok(())
    }

    /// Takes up what is published, if it is newer than what is served.
    pub(super) async fn refresh(&mut self) -> Result<Outcome, SeedError> {
        let store = self.state.backup_store.read().clone().ok_or(SeedError::NoStore)?;
        let published = self.published(&store).await?;
        let key = published.key.to_string();
        if let Some(serving) = &self.serving {
            if serving.key == key {
                return Ok(Outcome::Current);
            }
            // A seed that is named itself is served whatever was served before.
            if let Some(found) = published.pointer.as_ref().map(|pointer| pointer.at)
                && found <= serving.at
            {
                let served = serving.at;
                return Err(SeedError::Older { found, served });
            }
        }
        if self.refused.as_ref() == Some(&published.manifest_digest) {
            return Ok(Outcome::RefusedBefore);
        }
        let taken = self.take_up(&store, &published).await;
        if taken.as_ref().is_err_and(SeedError::is_refusal) {
            self.refused = Some(published.manifest_digest);
        }
        taken.map(Outcome::Swapped)
    }

    async fn published(&self, store: &BackupStore) -> Result<Published, SeedError> {
        let prefix = self.seed.key();
        let key = Pointer::key(prefix);
        if let Some(bytes) = store.read(&key).await? {
            let pointer = Pointer::from_bytes(&bytes).map_err(|message| SeedError::Document {
                key: key.to_string(),
                message,
            })?;
            self.seed.update(|status| status.latest = Some(pointer.at));
            return Ok(Published {
                key: pointer.at.below(prefix),
                manifest_digest: pointer.manifest_sha256.to_ascii_lowercase(),
                pointer: Some(pointer),
            });
        }
        match store.read(&prefix.clone().join("manifest.json")).await? {
            Some(bytes) => Ok(Published {
                key: prefix.clone(),
                manifest_digest: digest(&bytes),
                pointer: None,
            }),
            None => Err(SeedError::Missing(prefix.to_string())),
        }
    }

    async fn take_up(&mut self, store: &BackupStore, published: &Published) -> Result<Option<Retired>, SeedError> {
        let manifest = self.manifest(store, published).await?;
        let id = DatabaseId::parse(&manifest.graph_id)?;
        self.check_free(&id, published.key.as_ref())?;
        let abilities = Abilities {
            storage_version: ladybug_storage_version(),
            graph_bytes: self.state.engines.limits().max_database_size,
        };
        let content = manifest.content(abilities).map_err(|why| SeedError::Unusable {
            key: published.key.to_string(),
            why,
        })?;
        let key = self.decryption(&manifest, &published.key)?;
        self.state
            .check_disk(fetched_bytes(&content))
            .map_err(|error| SeedError::Disk(error.message()))?;
        // Each fetch has buffers, and a second one would not make the link faster.
        let _turn = Arc::clone(&self.state.backup_turn).acquire_owned().await;
        let at = SeedVersion::of(&manifest);
        self.seed.update(|status| {
            status.graph_id = Some(id.to_string());
            status.state = match status.served {
                Some(_) => SeedState::Refreshing,
                None => SeedState::Fetching,
            };
        });
        let directory = self.local.begin(&id, at)?;
        let arrived = Arrived {
            id: &id,
            directory: &directory,
            key: &published.key,
            manifest: &manifest,
            content: &content,
        };
        match self.bring(store, arrived, key).await {
            Ok(before) => {
                self.served(id, directory, published.key.to_string(), &manifest);
                Ok(before)
            }
            Err(error) => {
                blocking(move || local::remove(&directory)).await?;
                Err(error)
            }
        }
    }

    /// Fetches the files, and serves them once they are checked and on the disk for good.
    async fn bring(
        &self,
        store: &BackupStore,
        arrived: Arrived<'_>,
        key: Option<BackupKey>,
    ) -> Result<Option<Retired>, SeedError> {
        let Arrived {
            id, manifest, content, ..
        } = arrived;
        let (graph, vectors) = (local::graph(arrived.directory), local::vectors(arrived.directory));
        let incoming = Arc::new(IncomingVectors::new(vectors.clone()));
        // What becomes of it is decided for the whole directory of the seed.
        incoming.keep();
        let mut files = vec![(&content.graph, Target::File(graph.clone()))];
        for (name, file) in &content.vectors {
            files.push((file, Target::Table(Arc::clone(&incoming), name.clone())));
        }
        for (file, target) in files {
            let name = file.name.as_str();
            let object = arrived.key.clone().join(name);
            let cipher = key.as_ref();
            let cipher = cipher.map(|key| Manifest::cipher(&manifest.graph_id, &manifest.created_at, name, key));
            download(store, &object, &file.object(), cipher, target, |_| ()).await?;
        }
        self.state.engines.examine_vectors(&incoming).await?;
        let record = Record {
            seed: self.seed.key().to_string(),
            key: arrived.key.to_string(),
            manifest: manifest.clone(),
        };
        let (local, directory) = (Arc::clone(&self.local), arrived.directory.to_owned());
        let accept = |counts: GraphCounts| async move {
            check_counts(&record.manifest, &counts)?;
            blocking(move || local.commit(&directory, &record)).await?;
            Ok::<_, SeedError>(())
        };
        let files = Generation {
            graph: &graph,
            vectors: &vectors,
        };
        self.state.engines.take_up(id, files, accept).await
    }

    async fn manifest(&self, store: &BackupStore, published: &Published) -> Result<Manifest, SeedError> {
        let key = published.key.clone().join("manifest.json");
        let unusable = |message: String| SeedError::Document {
            key: key.to_string(),
            message,
        };
        let bytes = store.read(&key).await?;
        let bytes = bytes.ok_or_else(|| SeedError::Missing(published.key.to_string()))?;
        let found = digest(&bytes);
        if found != published.manifest_digest {
            let expected = &published.manifest_digest;
            return Err(unusable(format!(
                "its SHA-256 is {found}, and the pointer says {expected}"
            )));
        }
        let manifest = Manifest::from_bytes(&bytes).map_err(|error| unusable(error.to_string()))?;
        if let Some(pointer) = &published.pointer
            && (pointer.graph_id != manifest.graph_id || pointer.at != SeedVersion::of(&manifest))
        {
            return Err(unusable("it is another seed's than the pointer says".into()));
        }
        if let Some(serving) = &self.serving
            && serving.id.as_str() != manifest.graph_id
        {
            return Err(unusable(format!(
                "it is of another graph than {}, which is served",
                serving.id
            )));
        }
        Ok(manifest)
    }

    /// Checks that nobody else on this node serves the graph.
    fn check_free(&self, id: &DatabaseId, key: &str) -> Result<(), SeedError> {
        if self.serving.is_none() && self.state.engines.contains(id) {
            return Err(SeedError::Taken {
                key: key.to_owned(),
                graph: id.clone(),
            });
        }
        Ok(())
    }

    fn decryption(&self, manifest: &Manifest, key: &ObjectPath) -> Result<Option<BackupKey>, SeedError> {
        let Some(encryption) = &manifest.encryption else {
            return Ok(None);
        };
        let found = self
            .state
            .keyring
            .as_ref()
            .and_then(|keyring| keyring.find(&encryption.key_id));
        let found = found.ok_or_else(|| SeedError::NoKey {
            key: key.to_string(),
            wanted: encryption.key_id.chars().take(32).collect(),
        })?;
        Ok(Some(found.clone()))
    }

    fn served(&mut self, id: DatabaseId, directory: PathBuf, key: String, manifest: &Manifest) {
        let at = SeedVersion::of(manifest);
        let served = ServedSeed {
            at,
            created_at: manifest.created_at.clone(),
            size_bytes: (manifest.files.iter().filter(|file| file.kind != FileKind::Staging))
                .map(|file| file.plain_size_bytes)
                .sum(),
            node_count: manifest.node_count,
            relationship_count: manifest.relationship_count,
        };
        let (graph, version) = (id.as_str(), at.version);
        tracing::info!(
            operation = "seed",
            graph,
            epoch = at.epoch,
            version,
            key,
            "a seed is served"
        );
        self.seed.update(|status| {
            status.graph_id = Some(id.to_string());
            status.state = SeedState::Ready;
            status.served = Some(served);
            status.error = None;
        });
        self.serving = Some(Serving { id, directory, key, at });
        self.refused = None;
        self.state.engines.await_databases(self.state.seeds.is_warming());
    }
}

/// A seed on its way.
#[derive(Clone, Copy)]
struct Arrived<'a> {
    id: &'a DatabaseId,
    directory: &'a Path,
    key: &'a ObjectPath,
    manifest: &'a Manifest,
    content: &'a Content,
}

/// Bytes of what a replica fetches: it has no use for staging.
fn fetched_bytes(content: &Content) -> u64 {
    let staging = content.staging.as_ref().map_or(0, |file| file.plain_size_bytes);
    content.plain_bytes().saturating_sub(staging)
}

fn check_counts(manifest: &Manifest, counts: &GraphCounts) -> Result<(), SeedError> {
    let expected = (manifest.node_count, manifest.relationship_count);
    if (counts.nodes, counts.relationships) == expected {
        return Ok(());
    }
    Err(SeedError::Counts {
        nodes: counts.nodes,
        relationships: counts.relationships,
        expected_nodes: expected.0,
        expected_relationships: expected.1,
    })
}

/// Runs what waits for the disk on a thread for that.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(EngineError::internal(format!("the work on a seed ended: {error}"))))
}
