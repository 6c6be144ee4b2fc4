//! The object store as the operator uses it: it looks whether a backup is complete, reads it back, and removes it.

use crate::metrics::Metrics;
use futures::{StreamExt, TryStreamExt};
use graphplane_core::replica_plan::{Seed, SeedVersion};
use jiff::Timestamp;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore as _, ObjectStoreExt};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// An object store that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL in the settings is wrong.
    #[error("object store {url:?}: {message}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        message: String,
    },
    /// The store refused or could not be reached.
    #[error("object store, {action} {key}: {source}")]
    Store {
        /// What was attempted.
        action: &'static str,
        /// On which key.
        key: String,
        /// Why it failed.
        source: object_store::Error,
    },
    /// An object is not what it should be.
    #[error("object store: {key} cannot be read: {message}; remove it to publish anew")]
    Content {
        /// Its key.
        key: String,
        /// Why.
        message: String,
    },
}

/// The object store of backups.
#[derive(Clone)]
pub(crate) struct ObjectStore {
    store: Arc<dyn object_store::ObjectStore>,
    metrics: Metrics,
}

/// What `manifest.json` says; it is written when everything else is in place.
#[derive(Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) graph_id: String,
    #[serde(default)]
    pub(crate) node_count: u64,
    #[serde(default)]
    pub(crate) relationship_count: u64,
    #[serde(default)]
    pub(crate) ladybug_version: String,
    pub(crate) files: Vec<StoredFile>,
}

/// One file of a backup.
#[derive(Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredFile {
    #[serde(default)]
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) sha256: String,
    pub(crate) size_bytes: u64,
}

/// What reading a backup back found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReadBack {
    Good(Manifest),
    Damaged(String),
}

const MANIFEST: &str = "manifest.json";
const POINTER: &str = "latest.json";

/// What names the newest seed below a key.
#[derive(Deserialize)]
struct Pointer {
    epoch: u64,
    version: u64,
    created_at: Timestamp,
}

impl ObjectStore {
    /// Opens `file:///directory` (made if absent) or `s3://bucket/prefix` (credentials from the environment).
    pub(crate) fn open(url: &str, metrics: Metrics) -> Result<Self, StoreError> {
        let wrong = |message: String| StoreError::Url {
            url: url.to_owned(),
            message,
        };
        let store: Arc<dyn object_store::ObjectStore> = if let Some(dir) = url.strip_prefix("file://") {
            if !dir.starts_with('/') {
                return Err(wrong("expected file:/// and an absolute path".into()));
            }
            std::fs::create_dir_all(dir).map_err(|error| wrong(error.to_string()))?;
            Arc::new(LocalFileSystem::new_with_prefix(Path::new(dir)).map_err(|error| wrong(error.to_string()))?)
        } else if let Some(rest) = url.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
            // An emulator on this machine speaks plain HTTP.
            let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
            if endpoint.is_some_and(|e| e.starts_with("http://")) {
                builder = builder.with_allow_http(true);
            }
            let store = builder.build().map_err(|error| wrong(error.to_string()))?;
            match prefix.trim_matches('/') {
                "" => Arc::new(store),
                prefix => Arc::new(PrefixStore::new(store, prefix)),
            }
        } else {
            return Err(wrong("expected file:///directory or s3://bucket/prefix".into()));
        };
        Ok(Self { store, metrics })
    }

    fn child(key: &str, name: &str) -> Result<ObjectPath, StoreError> {
        let path = format!("{key}/{name}");
        ObjectPath::parse(&path).map_err(|source| StoreError::Store {
            action: "name",
            key: path,
            source: source.into(),
        })
    }

    async fn counted<T>(
        &self,
        call: &'static str,
        key: &ObjectPath,
        work: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, StoreError> {
        let started = Instant::now();
        let result = work.await;
        let outcome = if result.is_ok() { "ok" } else { "failed" };
        self.metrics.called("object_store", call, outcome, started.elapsed());
        result.map_err(|source| StoreError::Store {
            action: call,
            key: key.to_string(),
            source,
        })
    }

    /// The manifest below a key, if the backup is complete.
    async fn manifest(&self, key: &str) -> Result<Option<Result<Manifest, String>>, StoreError> {
        let path = Self::child(key, MANIFEST)?;
        let bytes = self.read(&path).await?;
        Ok(bytes.map(|b| serde_json::from_slice(&b).map_err(|error| format!("{path} cannot be read: {error}"))))
    }

    /// The newest seed below a key, as its pointer names it.
    pub(crate) async fn seed(&self, key: &str) -> Result<Option<Seed>, StoreError> {
        let path = Self::child(key, POINTER)?;
        let Some(bytes) = self.read(&path).await? else {
            return Ok(None);
        };
        let pointer: Pointer = serde_json::from_slice(&bytes).map_err(|error| StoreError::Content {
            key: path.to_string(),
            message: error.to_string(),
        })?;
        Ok(Some(Seed {
            at: SeedVersion {
                epoch: pointer.epoch,
                version: pointer.version,
            },
            begun: pointer.created_at,
        }))
    }

    /// A small object, if it exists.
    async fn read(&self, path: &ObjectPath) -> Result<Option<Vec<u8>>, StoreError> {
        let bytes = async {
            match self.store.get(path).await {
                Ok(object) => object.bytes().await.map(|bytes| Some(bytes.to_vec())),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        };
        self.counted("read", path, bytes).await
    }

    /// Whether a backup is complete.
    pub(crate) async fn is_complete(&self, key: &str) -> Result<bool, StoreError> {
        Ok(self.manifest(key).await?.is_some())
    }

    /// Reads every file of a backup and compares its size and checksum with the manifest.
    pub(crate) async fn read_back(&self, key: &str, database: &str) -> Result<Option<ReadBack>, StoreError> {
        let manifest = match self.manifest(key).await? {
            None => return Ok(None),
            Some(Err(why)) => return Ok(Some(ReadBack::Damaged(why))),
            Some(Ok(manifest)) => manifest,
        };
        if manifest.graph_id != database {
            let why = format!("it holds {} and not {database}", manifest.graph_id);
            return Ok(Some(ReadBack::Damaged(why)));
        }
        for file in &manifest.files {
            let path = Self::child(key, &file.name)?;
            let (sha256, size) = match self.counted("verify", &path, self.digest(&path)).await {
                Ok(found) => found,
                Err(StoreError::Store {
                    source: object_store::Error::NotFound { .. },
                    ..
                }) => {
                    return Ok(Some(ReadBack::Damaged(format!("{} is missing", file.name))));
                }
                Err(error) => return Err(error),
            };
            if size != file.size_bytes || !sha256.eq_ignore_ascii_case(&file.sha256) {
                let why = format!(
                    "{} has {size} bytes and SHA-256 {sha256}, the manifest says {} and {}",
                    file.name, file.size_bytes, file.sha256
                );
                return Ok(Some(ReadBack::Damaged(why)));
            }
        }
        Ok(Some(ReadBack::Good(manifest)))
    }

    async fn digest(&self, path: &ObjectPath) -> object_store::Result<(String, u64)> {
        let mut blocks = self.store.get(path).await?.into_stream();
        let (mut hash, mut size) = (Sha256::new(), 0u64);
        while let Some(block) = blocks.try_next().await? {
            hash.update(&block);
            size += block.len() as u64;
        }
        Ok((hex::encode(hash.finalize()), size))
    }

    /// Removes everything below a key, the manifest first: what is left of an interrupted removal is no backup.
    pub(crate) async fn remove(&self, key: &str) -> Result<(), StoreError> {
        let manifest = Self::child(key, MANIFEST)?;
        self.delete(&manifest).await?;
        let prefix = ObjectPath::parse(key).map_err(|source| StoreError::Store {
            action: "name",
            key: key.to_owned(),
            source: source.into(),
        })?;
        let listed = self.store.list(Some(&prefix)).map_ok(|object| object.location);
        let objects: Vec<ObjectPath> = self.counted("list", &prefix, listed.try_collect()).await?;
        futures::stream::iter(objects)
            .map(Ok)
            .try_for_each(|object| async move { self.delete(&object).await })
            .await
    }

    async fn delete(&self, path: &ObjectPath) -> Result<(), StoreError> {
        let deleted = async {
            match self.store.delete(path).await {
                Err(object_store::Error::NotFound { .. }) => Ok(()),
                result => result,
            }
        };
        self.counted("delete", path, deleted).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    const KEY: &str = "backups/kg0123456789abcdef/1/b";

    fn stored(dir: &Path, content: &[u8], sha256: &str) {
        let at = dir.join(KEY);
        std::fs::create_dir_all(&at).unwrap();
        std::fs::write(at.join("graph.lbug.zst"), content).unwrap();
        let manifest = json!({"format": 1, "graph_id": "kg0123456789abcdef", "node_count": 3, "relationship_count": 2,
            "ladybug_version": "0.22.1", "files": [{"kind": "graph", "name": "graph.lbug.zst", "sha256": sha256, "size_bytes": 4}]});
        std::fs::write(at.join(MANIFEST), manifest.to_string()).unwrap();
    }

    #[tokio::test]
    async fn a_backup_is_read_back_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(&format!("file://{}", dir.path().display()), Metrics::default()).unwrap();
        assert!(!store.is_complete(KEY).await.unwrap());
        assert_eq!(store.read_back(KEY, "kg0123456789abcdef").await.unwrap(), None);
        let good = hex::encode(Sha256::digest(b"data"));
        stored(dir.path(), b"data", &good);
        assert!(store.is_complete(KEY).await.unwrap());
        let Some(ReadBack::Good(manifest)) = store.read_back(KEY, "kg0123456789abcdef").await.unwrap() else {
            panic!()
        };
        assert_eq!((manifest.node_count, manifest.files.len()), (3, 1));
        let other = store.read_back(KEY, "kgother").await.unwrap();
        assert!(matches!(other, Some(ReadBack::Damaged(why)) if why.contains("kgother")));
        stored(dir.path(), b"DATA", &good);
        let damaged = store.read_back(KEY, "kg0123456789abcdef").await.unwrap();
        assert!(matches!(damaged, Some(ReadBack::Damaged(why)) if why.contains("graph.lbug.zst")));
        std::fs::remove_file(dir.path().join(KEY).join("graph.lbug.zst")).unwrap();
        let missing = store.read_back(KEY, "kg0123456789abcdef").await.unwrap();
        assert!(matches!(missing, Some(ReadBack::Damaged(why)) if why.contains("missing")));
        stored(dir.path(), b"data", &good);
        store.remove(KEY).await.unwrap();
        store.remove(KEY).await.unwrap();
        assert!(!dir.path().join(KEY).join("graph.lbug.zst").exists());
    }

    #[tokio::test]
    async fn the_newest_seed_is_what_the_pointer_names() {
        let dir = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(&format!("file://{}", dir.path().display()), Metrics::default()).unwrap();
        assert_eq!(store.seed("seeds/kg1/r").await.unwrap(), None);
        let at = dir.path().join("seeds/kg1/r");
        std::fs::create_dir_all(at.join("3/7")).unwrap();
        let pointer = json!({"format": 1, "graph_id": "kg1", "epoch": 3, "version": 7, "manifest_sha256": "00",
            "created_at": "2026-01-01T00:00:00.000Z"});
        std::fs::write(at.join("latest.json"), pointer.to_string()).unwrap();
        let seed = store.seed("seeds/kg1/r").await.unwrap().unwrap();
        assert_eq!(seed.at, SeedVersion { epoch: 3, version: 7 });
        std::fs::write(at.join("latest.json"), "{").unwrap();
        let error = store.seed("seeds/kg1/r").await.unwrap_err().to_string();
        assert!(error.contains("seeds/kg1/r/latest.json"), "{error}");
        store.remove("seeds/kg1/r").await.unwrap();
        assert_eq!(store.seed("seeds/kg1/r").await.unwrap(), None);
    }

    #[test]
    fn a_wrong_url_is_named() {
        for url in ["objects", "file://relative", "ftp://x"] {
            let error = ObjectStore::open(url, Metrics::default()).err().unwrap().to_string();
            assert!(error.contains(url), "{error}");
        }
    }
}
