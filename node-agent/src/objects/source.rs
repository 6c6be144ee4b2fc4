//! Files that callers name as sources of staging tables.

use super::glob::Pattern;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt, aws::AmazonS3Builder, path::Path as ObjectPath};
use serde::Deserialize;
use std::{
    collections::HashMap,
    path::{Component, Path, PathBuf},
    sync::Arc,
};
use tokio::io::AsyncWriteExt;

/// Longest pattern that is taken.
const MAX_PATTERN: usize = 1024;

/// Credentials of one request, as the contract's `s3_credentials`.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// Access key.
    pub aws_access_key_id: Option<String>,
    /// Secret key.
    pub aws_secret_access_key: Option<String>,
    /// Session token of temporary credentials.
    pub aws_session_token: Option<String>,
    /// Endpoint of the service, path-style.
    pub endpoint_url: Option<String>,
    /// Region.
    pub region: Option<String>,
}

// Secrets must never reach a log, so Debug is written by hand.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("endpoint_url", &self.endpoint_url)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// A source that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The request is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The request names something outside of what it may read.
    #[error("{0}")]
    Forbidden(String),
    /// Nothing matches.
    #[error("no file matches {0}")]
    NotFound(String),
    /// A file is larger than the tier allows, or there are too many.
    #[error("{0}")]
    TooLarge(String),
    /// The object store refused or could not be reached.
    #[error("cannot read {uri}: {message}")]
    Store {
        /// What was read.
        uri: String,
        /// Why it failed.
        message: String,
    },
    /// The local file system failed.
    #[error("cannot read or write {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

#[derive(Clone, Debug)]
enum Location {
    Object {
        store: Arc<dyn ObjectStore>,
        key: ObjectPath,
    },
    Local(PathBuf),
}

/// One file to fetch.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Its address, as `s3://bucket/key` or `file:///path`.
    pub uri: String,
    /// Its size in bytes.
    pub size: u64,
    location: Location,
}

/// Bounds of one request.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most files.
    pub files: usize,
    /// Largest file in bytes; `None` is unlimited.
    pub bytes: Option<u64>,
}

/// Where sources may lie.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    import_dir: Option<PathBuf>,
}

impl Sources {
    /// Sources in S3, and below `import_dir` if there is one.
    ///
    /// # Errors
    /// When the directory does not exist.
    pub fn new(import_dir: Option<&Path>) -> Result<Self, SourceError> {
        let import_dir = import_dir
            .map(|dir| {
                dir.canonicalize().map_err(|source| SourceError::Io {
                    path: dir.to_owned(),
                    source,
                })
            })
            .transpose()?;
        Ok(Self { import_dir })
    }

    /// Finds the files of every pattern, in the order of the patterns and then by name, each once.
    ///
    /// # Errors
    /// When a pattern is wrong, names a place outside of what may be read, matches nothing, or exceeds the bounds.
    pub async fn resolve(
        &self,
        patterns: &[String],
        credentials: Option<&Credentials>,
        bounds: Bounds,
    ) -> Result<Vec<SourceFile>, SourceError> {
        let mut buckets = HashMap::new();
        let mut files: Vec<SourceFile> = Vec::new();
        for pattern in patterns {
            let found = if let Some(rest) = pattern.strip_prefix("s3://") {
                let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
                let store = match buckets.get(bucket) {
                    Some(store) => Arc::clone(store),
                    None => {
                        let store = s3(bucket, credentials)?;
                        buckets.insert(bucket.to_owned(), Arc::clone(&store));
                        store
                    }
                };
                objects(store, bucket, key, pattern, bounds).await?
            } else if let Some(path) = pattern.strip_prefix("file://") {
                self.local(path, pattern, bounds).await?
            } else {
                return Err(SourceError::Invalid(format!(
                    "{pattern:?} is not a source; expected s3://bucket/key"
                )));
            };
            if found.is_empty() {
                return Err(SourceError::NotFound(pattern.clone()));
            }
            files.extend(
                found
                    .into_iter()
                    .filter(|new| files.iter().all(|old| old.uri != new.uri))
                    .collect::<Vec<_>>(),
            );
            if files.len() > bounds.files {
                return Err(too_many(bounds));
            }
        }
        if let Some(limit) = bounds.bytes
            && let Some(file) = files.iter().find(|file| file.size > limit)
        {
            return Err(SourceError::TooLarge(format!(
                "{} has {} bytes; this node loads files of at most {limit} bytes: split it, or choose a larger tier",
                file.uri, file.size
            )));
        }
        Ok(files)
    }

    async fn local(&self, path: &str, pattern: &str, bounds: Bounds) -> Result<Vec<SourceFile>, SourceError> {
        let Some(root) = self.import_dir.clone() else {
            return Err(SourceError::Forbidden(format!(
                "{pattern}: this node reads no local files; use s3://, upload the file, or start it with --import-dir"
            )));
        };
        if path.len() > MAX_PATTERN || Path::new(path).components().any(|part| part == Component::ParentDir) {
            return Err(SourceError::Invalid(format!("{pattern}: not a plain absolute path")));
        }
        let (path, shown) = (Pattern::new(path), pattern.to_owned());
        tokio::task::spawn_blocking(move || local_files(&root, &path, &shown, bounds))
            .await
            .map_err(|error| SourceError::Store {
                uri: pattern.to_owned(),
                message: error.to_string(),
            })?
    }
}

impl SourceFile {
    /// Copies the file to `target`, which must not exist; at most `limit` bytes, whatever the listing said.
    ///
    /// # Errors
    /// When it cannot be read or written, or has grown beyond the limit.
    pub async fn fetch(&self, target: &Path, limit: Option<u64>) -> Result<u64, SourceError> {
        let io = |source| SourceError::Io {
            path: target.to_owned(),
            source,
        };
        match &self.location {
            Location::Local(path) => {
                let size = tokio::fs::copy(path, target).await.map_err(|source| SourceError::Io {
                    path: path.clone(),
                    source,
                })?;
                if limit.is_some_and(|limit| size > limit) {
                    return Err(self.grown());
                }
                Ok(size)
            }
            Location::Object { store, key } => {
                let failed = |error: object_store::Error| SourceError::Store {
                    uri: self.uri.clone(),
                    message: error.to_string(),
                };
                let mut stream = store.get(key).await.map_err(failed)?.into_stream();
                let file = tokio::fs::File::create(target).await.map_err(io)?;
                let mut file = tokio::io::BufWriter::with_capacity(1 << 20, file);
                let mut size = 0u64;
                while let Some(chunk) = stream.next().await {
                    let chunk = chunk.map_err(failed)?;
                    size += chunk.len() as u64;
                    if limit.is_some_and(|limit| size > limit) {
                        return Err(self.grown());
                    }
                    file.write_all(&chunk).await.map_err(io)?;
                }
                file.flush().await.map_err(io)?;
                Ok(size)
            }
        }
    }

    fn grown(&self) -> SourceError {
        SourceError::TooLarge(format!("{} grew beyond the limit while it was read", self.uri))
    }
}

fn too_many(bounds: Bounds) -> SourceError {
    SourceError::TooLarge(format!(
        "more than {} files match; name fewer, or choose a larger tier (copy.maxFiles)",
        bounds.files
    ))
}

fn s3(bucket: &str, credentials: Option<&Credentials>) -> Result<Arc<dyn ObjectStore>, SourceError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    // A name of dots alone would be a step in the path of the endpoint's address.
    if !bucket.starts_with(|c: char| c.is_ascii_alphanumeric()) || bucket.len() > 255 || !bucket.chars().all(plain) {
        return Err(SourceError::Invalid(format!("{bucket:?} is not the name of a bucket")));
    }
    let environment = AmazonS3Builder::from_env();
    let builder = match credentials {
        None => environment,
        Some(given) => {
            let (Some(key), Some(secret)) = (&given.aws_access_key_id, &given.aws_secret_access_key) else {
                return Err(SourceError::Invalid(
                    "s3_credentials: aws_access_key_id and aws_secret_access_key are required".into(),
                ));
            };
            // Starts empty: the node's own credentials must never travel to an endpoint that a caller names.
            let from_environment = |key| environment.get_config_value(&key);
            let endpoint = given
                .endpoint_url
                .clone()
                .or_else(|| from_environment(object_store::aws::AmazonS3ConfigKey::Endpoint));
            let region = given
                .region
                .clone()
                .or_else(|| from_environment(object_store::aws::AmazonS3ConfigKey::Region));
            let mut builder = AmazonS3Builder::new()
                .with_access_key_id(key)
                .with_secret_access_key(secret);
            if let Some(token) = &given.aws_session_token {
                builder = builder.with_token(token);
            }
            if let Some(endpoint) = endpoint {
                builder = builder.with_endpoint(endpoint);
            }
            builder.with_region(region.unwrap_or_else(|| "us-east-1".into()))
        }
    };
    super::store::finish_s3(builder, bucket).map_err(|error| SourceError::Store {
        uri: format!("s3://{bucket}"),
        message: error.to_string(),
    })
}

async fn objects(
    store: Arc<dyn ObjectStore>,
    bucket: &str,
    key: &str,
    shown: &str,
    bounds: Bounds,
) -> Result<Vec<SourceFile>, SourceError> {
    let invalid = |message: String| SourceError::Invalid(format!("{shown}: {message}"));
    if key.is_empty() || key.len() > MAX_PATTERN {
        return Err(invalid(format!(
            "expected a key of 1 to {MAX_PATTERN} characters after the bucket"
        )));
    }
    let failed = |error: object_store::Error| match error {
        object_store::Error::NotFound { .. } => SourceError::NotFound(shown.to_owned()),
        error => SourceError::Store {
            uri: shown.to_owned(),
            message: error.to_string(),
        },
    };
    let pattern = Pattern::new(key);
    let file = |meta: object_store::ObjectMeta| SourceFile {
        uri: format!("s3://{bucket}/{}", meta.location),
        size: meta.size,
        location: Location::Object {
            store: Arc::clone(&store),
            key: meta.location,
        },
    };
    if pattern.is_literal() {
        let path = ObjectPath::parse(key).map_err(|error| invalid(error.to_string()))?;
        return Ok(vec![file(store.head(&path).await.map_err(failed)?)]);
    }
    let prefix = ObjectPath::parse(pattern.prefix()).map_err(|error| invalid(error.to_string()))?;
    let mut listing = store.list((!pattern.prefix().is_empty()).then_some(&prefix));
    let mut found = Vec::new();
    while let Some(meta) = listing.try_next().await.map_err(failed)? {
        if pattern.matches(meta.location.as_ref()) && meta.size > 0 {
            found.push(file(meta));
            if found.len() > bounds.files {
                return Err(too_many(bounds));
            }
        }
    }
    found.sort_by(|a, b| a.uri.cmp(&b.uri));
    Ok(found)
}

fn local_files(root: &Path, pattern: &Pattern, shown: &str, bounds: Bounds) -> Result<Vec<SourceFile>, SourceError> {
    let outside = || {
        SourceError::Forbidden(format!(
            "{shown}: only files below the import directory of this node can be read"
        ))
    };
    let start = if pattern.is_literal() {
        pattern.as_str()
    } else {
        pattern.prefix()
    };
    // Resolved before it is compared, so that neither `..` nor a symbolic link leads out of the directory.
    let start = match Path::new(start).canonicalize() {
        Ok(path) => path,
        Err(_) if !Path::new(start).starts_with(root) => return Err(outside()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(SourceError::NotFound(shown.to_owned()));
        }
        Err(source) => {
            return Err(SourceError::Io {
                path: start.into(),
                source,
            });
        }
    };
    if !start.starts_with(root) {
        return Err(outside());
    }
    let mut found = Vec::new();
    let mut pending = vec![start];
    while let Some(path) = pending.pop() {
        let io = |source| SourceError::Io {
            path: path.clone(),
            source,
        };
        let meta = std::fs::symlink_metadata(&path).map_err(io)?;
        if meta.is_dir() && !pattern.is_literal() {
            for entry in std::fs::read_dir(&path).map_err(io)? {
                pending.push(entry.map_err(io)?.path());
            }
        } else if meta.is_file() && (pattern.is_literal() || path.to_str().is_some_and(|text| pattern.matches(text))) {
            found.push(SourceFile {
                uri: format!("file://{}", path.display()),
                size: meta.len(),
                location: Location::Local(path),
            });
            if found.len() > bounds.files {
                return Err(too_many(bounds));
            }
        }
    }
    found.sort_by(|a, b| a.uri.cmp(&b.uri));
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const BOUNDS: Bounds = Bounds {
        files: 3,
        bytes: Some(100),
    };

    fn patterns(list: &[String]) -> Vec<String> {
        list.to_vec()
    }

    #[tokio::test]
    async fn local_files_are_read_below_the_import_directory_only() {
        // The client of an S3 store is made before anything is asked of it, and needs one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let import = root.join("import");
        std::fs::create_dir_all(import.join("deep")).unwrap();
        for name in ["a.parquet", "b.parquet", "deep/c.parquet"] {
            std::fs::write(import.join(name), name).unwrap();
        }
        std::fs::write(root.join("secret.parquet"), "secret").unwrap();
        std::os::unix::fs::symlink(root.join("secret.parquet"), import.join("link.parquet")).unwrap();
        let sources = Sources::new(Some(&import)).unwrap();
        let resolve = |pattern: String| {
            let sources = sources.clone();
            async move { sources.resolve(&patterns(&[pattern]), None, BOUNDS).await }
        };
        let at = |path: &str| format!("file://{}/{path}", import.display());

        let files = resolve(at("*.parquet")).await.unwrap();
        assert_eq!(
            files
                .iter()
                .map(|f| f.uri.rsplit('/').next().unwrap())
                .collect::<Vec<_>>(),
            ["a.parquet", "b.parquet"]
        );
        let target = root.join("copy");
        assert_eq!(files[0].fetch(&target, None).await.unwrap(), 9);
        assert_eq!(std::fs::read(&target).unwrap(), b"a.parquet");
        assert_eq!(resolve(at("**/*.parquet")).await.unwrap().len(), 3);
        assert!(matches!(
            resolve(at("nothing.parquet")).await,
            Err(SourceError::NotFound(_))
        ));
        for hostile in [
            format!("file://{}/secret.parquet", root.display()),
            at("link.parquet"),
            "file:///etc/hostname".into(),
        ] {
            assert!(
                matches!(resolve(hostile.clone()).await, Err(SourceError::Forbidden(_))),
                "{hostile}"
            );
        }
        assert!(matches!(
            resolve(at("../secret.parquet")).await,
            Err(SourceError::Invalid(_))
        ));
        for nonsense in [
            "/etc/hostname",
            "http://x/y",
            "s3://",
            "s3://b",
            "s3://b?x/y",
            "s3://../y",
            "s3:///y",
        ] {
            assert!(
                matches!(resolve(nonsense.into()).await, Err(SourceError::Invalid(_))),
                "{nonsense}"
            );
        }
        std::fs::write(import.join("big.parquet"), vec![0; 101]).unwrap();
        assert!(matches!(
            resolve(at("big.parquet")).await,
            Err(SourceError::TooLarge(_))
        ));
        std::fs::write(import.join("d.parquet"), "d").unwrap();
        assert!(matches!(
            resolve(at("**/*.parquet")).await,
            Err(SourceError::TooLarge(_))
        ));
    }

    #[tokio::test]
    async fn without_an_import_directory_no_local_file_is_read() {
        let error = Sources::default()
            .resolve(&["file:///etc/hostname".into()], None, BOUNDS)
            .await
            .unwrap_err();
        assert!(matches!(error, SourceError::Forbidden(_)), "{error}");
    }

    #[test]
    fn the_nodes_credentials_do_not_mix_with_a_callers() {
        let lonely_endpoint = Credentials {
            endpoint_url: Some("http://127.0.0.1:1".into()),
            ..Credentials::default()
        };
        assert!(matches!(
            s3("bucket", Some(&lonely_endpoint)),
            Err(SourceError::Invalid(_))
        ));
        let secret = Credentials {
            aws_secret_access_key: Some("hush".into()),
            ..Credentials::default()
        };
        assert!(!format!("{secret:?}").contains("hush"));
    }
}
