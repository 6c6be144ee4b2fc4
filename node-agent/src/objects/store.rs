//! The object store of the node's operator, to which backups go.

use object_store::{
    GetResult, ObjectStore, ObjectStoreExt, aws::AmazonS3Builder, aws::AmazonS3ConfigKey, local::LocalFileSystem,
    path::Path as ObjectPath, prefix::PrefixStore,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

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

/// A place for backups.
#[derive(Clone, Debug)]
pub struct BackupStore {
    pub(super) store: Arc<dyn ObjectStore>,
    bucket: Option<String>,
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
        let (mut named, mut directory) = (None, None);
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
            match prefix.trim_matches('/') {
                "" => store,
                prefix => Arc::new(PrefixStore::new(store, prefix)),
            }
        } else {
            return Err(wrong("expected file:///directory or s3://bucket/prefix".into()));
        };
        Ok(Self {
            store,
            bucket: named,
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

/// Builds an S3 store: path-style requests where the environment or the request names an endpoint (emulators, MinIO),
/// plain HTTP only if that endpoint says so.
pub(super) fn finish_s3(builder: AmazonS3Builder, bucket: &str) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
    let plain = builder
        .get_config_value(&AmazonS3ConfigKey::Endpoint)
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
