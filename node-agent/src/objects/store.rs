//! The object store of the node's operator, to which backups, seeds and exports go.

use futures::StreamExt;
use graphplane_core::sources::Location;
use object_store::{
    GetResult, ObjectStore, ObjectStoreExt, aws::AmazonS3Builder, aws::AmazonS3ConfigKey, buffered::BufWriter,
    local::LocalFileSystem, path::Path as ObjectPath, prefix::PrefixStore,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::io::{AsyncWriteExt, BufReader};

/// An object store that cannot be used, or a key that must not be.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The configured URL is wrong.
    #[error("object store {url:?}: {message}")]
    Url {
        /// The configured URL.
        url: String,
        /// What is wrong with it.
        message: String,
    },
    /// The key of a request is wrong.
    #[error("key {key:?}: {message}")]
    Key {
        /// The key.
        key: String,
        /// What is expected.
        message: &'static str,
    },
    /// A manifest is not that large.
    #[error("object store, {key} has {size} bytes where a manifest of at most {SMALL} is expected")]
    TooLarge {
        /// On which key.
        key: String,
        /// Its size.
        size: u64,
    },
    /// Others replaced the object each time before this agent could.
    #[error("object store, {key} was changed by others again and again; try again")]
    Contended {
        /// On which key.
        key: String,
    },
    /// There is no such object.
    #[error("object store, there is no {key}")]
    Absent {
        /// The key.
        key: String,
    },
    /// There is no room for an object.
    #[error("object store, {key} has {size} bytes, and there is room for {limit}")]
    Room {
        /// On which key.
        key: String,
        /// Its size.
        size: u64,
        /// What there is room for.
        limit: u64,
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
}

/// Largest object that is read as a whole, in bytes.
const SMALL: u64 = 1 << 20;
/// Bytes of a part of a file that is sent as it is.
const PART: usize = 8 << 20;

/// A place for backups.
#[derive(Clone, Debug)]
pub struct BackupStore {
    pub(super) store: Arc<dyn ObjectStore>,
    bucket: Option<String>,
    /// Its root in the bucket.
    location: Option<Location>,
    /// The directory that stands for a bucket.
    pub(super) directory: Option<PathBuf>,
}

impl BackupStore {
    /// Opens `file:///directory` (made if absent) or `s3://bucket/prefix` (credentials from the environment).
    ///
    /// # Errors
    /// When the URL is neither, or the directory cannot be made.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        let wrong = |message: String| StoreError::Url {
            url: url.to_owned(),
            message,
        };
        let (mut named, mut directory, mut location) = (None, None, None);
        let store: Arc<dyn ObjectStore> = if let Some(dir) = url.strip_prefix("file://") {
            if !dir.starts_with('/') {
                return Err(wrong("expected file:/// and an absolute path".into()));
            }
            std::fs::create_dir_all(dir).map_err(|error| wrong(error.to_string()))?;
            let local = LocalFileSystem::new_with_prefix(Path::new(dir)).map_err(|error| wrong(error.to_string()))?;
            directory = Some(PathBuf::from(dir));
            Arc::new(local.with_fsync(true).with_automatic_cleanup(true))
        } else if let Some(rest) = url.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            named = Some(bucket.to_owned());
            let store = finish_s3(AmazonS3Builder::from_env(), bucket).map_err(|error| wrong(error.to_string()))?;
            let prefix = prefix.trim_matches('/');
            // With a prefix that is no plain path the whole bucket counts as the store.
            location = Location::new(bucket, prefix).or_else(|| Location::new(bucket, ""));
            match prefix {
                "" => store,
                prefix => Arc::new(PrefixStore::new(store, prefix)),
            }
        } else {
            return Err(wrong("expected file:///directory or s3://bucket/prefix".into()));
        };
        Ok(Self {
            store,
            bucket: named,
            location,
            directory,
        })
    }

    /// The store below its root.
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The name of the bucket; a directory has none.
    pub fn bucket(&self) -> Option<&str> {
        self.bucket.as_deref()
    }

    /// Where it lies, if that is a bucket.
    pub fn location(&self) -> Option<&Location> {
        self.location.as_ref()
    }

    /// Where it lies, if that is a directory.
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// A key that a caller gave, checked: plain segments of letters, digits, `.`, `_`, `=` and `-`.
    ///
    /// # Errors
    /// When it has anything else in it.
    pub fn key(key: &str) -> Result<ObjectPath, StoreError> {
        let wrong = |message| StoreError::Key {
            key: key.chars().take(100).collect(),
            message,
        };
        if key.is_empty() || key.len() > 512 {
            return Err(wrong("expected 1 to 512 characters"));
        }
        let plain = |segment: &str| {
            !segment.is_empty()
                && segment != "."
                && segment != ".."
                && segment
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'=' | b'-'))
        };
        if !key.split('/').all(plain) {
            return Err(wrong(
                "expected segments of letters, digits, `.`, `_`, `=` and `-`, separated by single slashes",
            ));
        }
        ObjectPath::parse(key).map_err(|_| wrong("not a key"))
    }

    /// A small object, or `None` if it does not exist.
    ///
    /// # Errors
    /// When the store cannot be read, or the object is not small.
    pub async fn read(&self, key: &ObjectPath) -> Result<Option<bytes::Bytes>, StoreError> {
        match self.store.get(key).await {
            Ok(object) => Self::small(key, object).await.map(Some),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(StoreError::Store {
                action: "read",
                key: key.to_string(),
                source,
            }),
        }
    }

    /// The content of an object that must be small.
    pub(super) async fn small(key: &ObjectPath, object: GetResult) -> Result<bytes::Bytes, StoreError> {
        if object.meta.size > SMALL {
            return Err(StoreError::TooLarge {
                key: key.to_string(),
                size: object.meta.size,
            });
        }
        object.bytes().await.map_err(|source| StoreError::Store {
            action: "read",
            key: key.to_string(),
            source,
        })
    }

    /// Sends a file as it is, in parts, and returns its size.
    ///
    /// # Errors
    /// When the file cannot be read or the store cannot be written; what was sent is given up then.
    pub async fn upload(&self, file: &Path, key: &ObjectPath) -> Result<u64, StoreError> {
        let failed = |source| StoreError::Store {
            action: "upload",
            key: key.to_string(),
            source,
        };
        let mut file = tokio::fs::File::open(file)
            .await
            .map_err(|error| failed(local(error)))?;
        let mut upload = BufWriter::with_capacity(Arc::clone(&self.store), key.clone(), PART);
        let sent = async {
            let size = tokio::io::copy_buf(&mut BufReader::with_capacity(PART, &mut file), &mut upload).await?;
            upload.shutdown().await?;
            Ok(size)
        };
        match sent.await {
            Ok(size) => Ok(size),
            Err(error) => {
                if let Err(error) = upload.abort().await {
                    tracing::warn!(operation = "upload", %key, %error, "incomplete upload not removed");
                }
                Err(failed(local(error)))
            }
        }
    }

    /// Writes an object to a file, if it has at most `limit` bytes.
    ///
    /// # Errors
    /// When there is no such object, it is larger, or the file cannot be written.
    pub async fn download(&self, key: &ObjectPath, file: &Path, limit: u64) -> Result<u64, StoreError> {
        let failed = |source| StoreError::Store {
            action: "download",
            key: key.to_string(),
            source,
        };
        let object = self.store.get(key).await.map_err(|error| match error {
            object_store::Error::NotFound { .. } => StoreError::Absent { key: key.to_string() },
            other => failed(other),
        })?;
        if object.meta.size > limit {
            return Err(StoreError::Room {
                key: key.to_string(),
                size: object.meta.size,
                limit,
            });
        }
        let mut content = object.into_stream();
        let mut file = tokio::fs::File::create(file)
            .await
            .map_err(|error| failed(local(error)))?;
        let mut size = 0;
        while let Some(part) = content.next().await {
            let part = part.map_err(failed)?;
            size += part.len() as u64;
            file.write_all(&part).await.map_err(|error| failed(local(error)))?;
        }
        file.flush().await.map_err(|error| failed(local(error)))?;
        Ok(size)
    }

    /// Writes a small object in one request.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn write(&self, key: &ObjectPath, content: bytes::Bytes) -> Result<(), StoreError> {
        let put = self.store.put(key, content.into()).await;
        put.map(|_| ()).map_err(|source| StoreError::Store {
            action: "write",
            key: key.to_string(),
            source,
        })
    }
}

/// A failure on the side of the node's own file.
fn local(error: std::io::Error) -> object_store::Error {
    object_store::Error::Generic {
        store: "volume",
        source: Box::new(error),
    }
}

/// Builds an S3 store: path-style requests where the environment or the request names an endpoint (emulators, MinIO),
/// plain HTTP only if that endpoint says so.
pub(super) fn finish_s3(builder: AmazonS3Builder, bucket: &str) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
    let plain = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint]
        .iter()
        .find_map(|key| builder.get_config_value(key))
        .is_some_and(|url| url.starts_with("http://"));
    let store = builder
        .with_bucket_name(bucket)
        .with_allow_http(plain)
        .with_virtual_hosted_style_request(false)
        .build()?;
    Ok(Arc::new(store))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_directory_is_a_store() {
        let dir = tempfile::tempdir().unwrap();
        let store = BackupStore::open(&format!("file://{}/objects", dir.path().display())).unwrap();
        let key = BackupStore::key("backups/kg1/4/nightly/manifest.json").unwrap();
        assert_eq!(store.read(&key).await.unwrap(), None);
        store.write(&key, bytes::Bytes::from_static(b"{}")).await.unwrap();
        assert_eq!(store.read(&key).await.unwrap().unwrap(), "{}");
        let file = dir.path().join("objects/backups/kg1/4/nightly/manifest.json");
        assert!(file.exists());
        std::fs::write(&file, vec![b' '; SMALL as usize + 1]).unwrap();
        assert!(matches!(store.read(&key).await, Err(StoreError::TooLarge { .. })));
    }

    #[tokio::test]
    async fn files_go_there_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = BackupStore::open(&format!("file://{}/objects", dir.path().display())).unwrap();
        let (file, back) = (dir.path().join("file"), dir.path().join("back"));
        let content: Vec<u8> = (0..PART * 2 + 5).map(|n| n as u8).collect();
        std::fs::write(&file, &content).unwrap();
        let key = BackupStore::key("vectors/kg1/Element.tar.gz").unwrap();
        let size = content.len() as u64;
        assert_eq!(store.upload(&file, &key).await.unwrap(), size);
        assert_eq!(store.download(&key, &back, size).await.unwrap(), size);
        assert!(std::fs::read(&back).unwrap() == content);
        let refused = store.download(&key, &back, size - 1).await.unwrap_err();
        assert!(matches!(refused, StoreError::Room { .. }), "{refused}");
        let absent = BackupStore::key("vectors/kg1/Nothing.tar.gz").unwrap();
        assert!(store.download(&absent, &back, size).await.is_err());
        assert!(store.upload(&dir.path().join("absent"), &absent).await.is_err());
    }

    #[test]
    fn keys_stay_below_the_root() {
        for bad in [
            "",
            "../x",
            "a/../b",
            "/etc/passwd",
            "a//b",
            "a/",
            "a b",
            "a%2e",
            "ä",
            ".",
        ] {
            assert!(BackupStore::key(bad).is_err(), "{bad:?}");
        }
        assert!(BackupStore::key(&"a".repeat(513)).is_err());
    }

    #[test]
    fn a_wrong_url_is_explained() {
        for bad in ["", "objects", "file://relative", "gs://bucket"] {
            let error = BackupStore::open(bad).unwrap_err().to_string();
            assert!(error.contains("expected"), "{error}");
        }
    }
}
