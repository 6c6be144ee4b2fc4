//! Files that callers name as sources of staging tables, and whether they may be read.

use super::{
    BackupStore, Credentials,
    bucket::{Access, Objects},
    glob::Pattern,
    import_dir::ImportDir,
};
use crate::{
    disk::{Full, check_room},
    engines::DatabaseId,
};
use futures::StreamExt;
use graphplane_core::sources::{Location, SourceRules};
use object_store::{ObjectStore, ObjectStoreExt, path::Path as ObjectPath};
use parking_lot::RwLock;
use std::{
    collections::HashMap,
    fs::File,
    io::Read,
    path::{Component, Path, PathBuf},
    sync::Arc,
};
use tokio::io::AsyncWriteExt;

/// Longest pattern that is taken.
pub(super) const MAX_PATTERN: usize = 1024;
/// Bytes that are copied between two looks at what is free on the volume.
const PORTION: u64 = 16 << 20;
/// Most places that a refusal names.
const SHOWN_PLACES: usize = 5;

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
    /// The volume has no room for it.
    #[error(transparent)]
    Full(#[from] Full),
    /// The local file system failed.
    #[error("cannot read or write {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// Where a file is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// In a bucket.
    Object {
        /// The bucket.
        store: Arc<dyn ObjectStore>,
        /// The object in it.
        key: ObjectPath,
    },
    /// On this machine.
    Local(PathBuf),
}

/// One file to fetch.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Its address, as `s3://bucket/key` or `file:///path`.
    pub uri: String,
    /// Its size in bytes.
    pub size: u64,
    pub(super) place: Place,
}

/// Bounds of one request.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most files.
    pub files: usize,
    /// Largest file in bytes; `None` is unlimited.
    pub bytes: Option<u64>,
}

/// Where sources may lie: the rules of the node, and its import directory.
#[derive(Debug, Default)]
pub struct Sources {
    import_dir: Option<Arc<ImportDir>>,
    /// The agent's own directory.
    data_dir: PathBuf,
    /// Rules of the command line.
    chosen: SourceRules,
    /// These and the control plane's.
    rules: RwLock<Arc<SourceRules>>,
}

impl Sources {
    /// Sources in S3 by these rules, and below `import_dir` if there is one, except for what is in `data_dir`.
    ///
    /// # Errors
    /// When the import directory does not exist.
    pub fn new(chosen: SourceRules, import_dir: Option<&Path>, data_dir: &Path) -> Result<Self, SourceError> {
        let open = |dir: &Path| {
            ImportDir::open(dir).map(Arc::new).map_err(|source| SourceError::Io {
                path: dir.to_owned(),
                source,
            })
        };
        Ok(Self {
            import_dir: import_dir.map(open).transpose()?,
            data_dir: data_dir.to_owned(),
            rules: RwLock::new(Arc::new(chosen.clone())),
            chosen,
        })
    }

    /// Takes the control plane's rules, in place of those that it gave before.
    pub fn follow(&self, rules: &SourceRules) {
        *self.rules.write() = Arc::new(self.chosen.and(rules));
    }

    /// What a request for this graph may read: with its credentials what these can; without, with the node's own, what
    /// the rules name. What lies in the object store is closed unless a rule names it.
    ///
    /// # Errors
    /// When the credentials are not complete, or their endpoint is not one that requests may name.
    pub async fn reach(
        &self,
        graph: &DatabaseId,
        credentials: Option<&Credentials>,
        store: Option<&BackupStore>,
    ) -> Result<Reach, SourceError> {
        let rules = Arc::clone(&self.rules.read());
        let access = match credentials {
            None => Access::of_node(),
            Some(given) => Access::of_request(given, &rules.endpoints).await?,
        };
        let closed = Some(self.data_dir.as_path())
            .into_iter()
            .chain(store.and_then(BackupStore::directory))
            .filter_map(|dir| dir.canonicalize().ok())
            .collect();
        Ok(Reach(Arc::new(Inner {
            graph: graph_of(graph),
            access,
            rules,
            kept: store.and_then(BackupStore::location).cloned(),
            import_dir: self.import_dir.clone(),
            closed,
        })))
    }
}

/// The graph whose places a database may read: a subgraph's are those of its parent, and a successor's those of the
/// database that it is to replace. An id that no control plane gives stands for itself.
fn graph_of(id: &DatabaseId) -> String {
    let id = id.predecessor().unwrap_or_else(|| id.clone());
    match id.as_str().parse::<graphplane_crds::ids::DatabaseId>() {
        Ok(known) => known.graph().to_string(),
        Err(_) => id.to_string(),
    }
}

/// What one request may read.
#[derive(Clone, Debug)]
pub struct Reach(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    graph: String,
    access: Access,
    rules: Arc<SourceRules>,
    /// The object store's root.
    kept: Option<Location>,
    import_dir: Option<Arc<ImportDir>>,
    /// Directories whose files are the agent's own.
    closed: Vec<PathBuf>,
}

/// Sources that may be read, as far as their addresses say. Made by [`Reach::admit`] alone.
#[derive(Clone, Debug)]
pub struct Admitted {
    reach: Reach,
    /// The field of the request that names them.
    field: &'static str,
    sources: Vec<Source>,
}

#[derive(Clone, Debug)]
struct Source {
    /// The address, as it was given.
    address: String,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Objects(Objects),
    Local(Pattern),
}

impl Reach {
    /// Checks the addresses in a field of the request, before anything is read.
    ///
    /// # Errors
    /// `Invalid` for what is no address, `Forbidden` for one that this request may not read.
    pub fn admit(&self, field: &'static str, addresses: &[String]) -> Result<Admitted, SourceError> {
        let sources = addresses.iter().map(|address| self.source(field, address));
        Ok(Admitted {
            sources: sources.collect::<Result<_, _>>()?,
            reach: self.clone(),
            field,
        })
    }

    fn source(&self, field: &str, address: &str) -> Result<Source, SourceError> {
        let shown: String = address.chars().take(MAX_PATTERN).collect();
        let invalid = |message: &str| SourceError::Invalid(format!("{field}: {shown:?}: {message}"));
        let forbidden = |message: String| SourceError::Forbidden(format!("{field}: {shown}: {message}"));
        let what = if let Some(rest) = address.strip_prefix("s3://") {
            let objects = Objects::parse(rest).map_err(|message| invalid(&message))?;
            if !self.0.may_read(&objects.bucket, &objects.path) {
                return Err(forbidden(self.0.what_may_be_read()));
            }
            What::Objects(objects)
        } else if let Some(path) = address.strip_prefix("file://") {
            if self.0.import_dir.is_none() {
                return Err(forbidden(
                    "this node reads no local files; use s3://, upload the file, or start it with --import-dir"
                        .to_owned(),
                ));
            }
            let steps_up = Path::new(path).components().any(|part| part == Component::ParentDir);
            if path.len() > MAX_PATTERN || !path.starts_with('/') || steps_up {
                return Err(invalid("not a plain absolute path"));
            }
            What::Local(Pattern::new(path))
        } else {
            return Err(invalid("not a source; expected s3://bucket/key"));
        };
        Ok(Source {
            address: address.to_owned(),
            what,
        })
    }
}

impl Inner {
    /// Whether this may be read, or looked through.
    fn may_read(&self, bucket: &str, path: &ObjectPath) -> bool {
        // Whether a caller's credentials suffice is for the store to say.
        !self.access.is_own()
            || Location::new(bucket, path.as_ref())
                .is_some_and(|asked| self.rules.may_read(&self.graph, &asked, self.kept.as_ref()))
    }

    /// What a caller who was refused can do.
    fn what_may_be_read(&self) -> String {
        let places = self.rules.places.iter().take(SHOWN_PLACES);
        let places: Vec<String> = places.map(|place| place.of(&self.graph).to_string()).collect();
        match places.is_empty() {
            true => "this node reads no objects with its own credentials; send s3_credentials, or upload the file"
                .to_owned(),
            false => format!(
                "with the node's own credentials this graph loads from {} only; for other places send s3_credentials",
                places.join(", ")
            ),
        }
    }
}

impl Admitted {
    /// Finds the files of every address, in the order of the addresses and then by name, each once.
    ///
    /// # Errors
    /// When an address leads out of what may be read, matches nothing, or exceeds the bounds.
    pub async fn resolve(&self, bounds: Bounds) -> Result<Vec<SourceFile>, SourceError> {
        let reach = &self.reach.0;
        let mut buckets: HashMap<&str, Arc<dyn ObjectStore>> = HashMap::new();
        let mut files: Vec<SourceFile> = Vec::new();
        for Source { address, what } in &self.sources {
            let found = match what {
                What::Objects(objects) => {
                    let bucket = objects.bucket.as_str();
                    let store = match buckets.get(bucket) {
                        Some(store) => Arc::clone(store),
                        None => {
                            let store = reach.access.bucket(bucket)?;
                            buckets.insert(bucket, Arc::clone(&store));
                            store
                        }
                    };
                    let open = |path: &ObjectPath| reach.may_read(bucket, path);
                    objects.find(&store, open, address, bounds).await?
                }
                What::Local(path) => self.local(path, address, bounds).await?,
            };
            if found.is_empty() {
                return Err(SourceError::NotFound(address.clone()));
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

    async fn local(&self, path: &Pattern, address: &str, bounds: Bounds) -> Result<Vec<SourceFile>, SourceError> {
        let (reach, path, shown) = (Arc::clone(&self.reach.0), path.clone(), address.to_owned());
        let find = move || match &reach.import_dir {
            Some(dir) => dir.find(&reach.graph, &reach.closed, &path, &shown, bounds),
            // Such an address was not admitted.
            None => Ok(Vec::new()),
        };
        let found = tokio::task::spawn_blocking(find).await;
        let found = found.map_err(|error| SourceError::Store {
            uri: address.to_owned(),
            message: error.to_string(),
        })?;
        found.map_err(|error| match error {
            SourceError::Forbidden(message) => SourceError::Forbidden(format!("{}: {message}", self.field)),
            other => other,
        })
    }
}

impl SourceFile {
    /// Copies the file to `target`, which must not exist; at most `limit` bytes, whatever the listing said, and as long as
    /// `floor` bytes of the volume are free.
    ///
    /// # Errors
    /// When it cannot be read or written, has grown beyond the limit, or there is no room.
    pub async fn fetch(&self, target: &Path, limit: Option<u64>, floor: u64) -> Result<u64, SourceError> {
        let volume = target.parent().unwrap_or(target);
        let io = |source| SourceError::Io {
            path: target.to_owned(),
            source,
        };
        match &self.place {
            Place::Local(path) => {
                let (from, to, volume) = (path.clone(), target.to_owned(), volume.to_owned());
                let most = limit.map_or(u64::MAX, |limit| limit.saturating_add(1));
                let copied = tokio::task::spawn_blocking(move || copy(&from, &to, most, || check_room(&volume, floor)));
                let failed = |error| {
                    Err(SourceError::Io {
                        path: path.clone(),
                        source: std::io::Error::other(error),
                    })
                };
                let size = copied.await.unwrap_or_else(failed)?;
                if limit.is_some_and(|limit| size > limit) {
                    return Err(self.grown());
                }
                Ok(size)
            }
            Place::Object { store, key } => {
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
                    check_room(volume, floor)?;
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

/// Copies at most `most` bytes of a file, as long as there is room for the next portion.
fn copy(from: &Path, to: &Path, most: u64, room: impl Fn() -> Result<(), Full>) -> Result<u64, SourceError> {
    let io = |source| SourceError::Io {
        path: from.to_owned(),
        source,
    };
    let mut source = File::open(from).map_err(io)?.take(most);
    let mut target = File::create_new(to).map_err(io)?;
    let mut size = 0;
    loop {
        room()?;
        match std::io::copy(&mut source.by_ref().take(PORTION), &mut target).map_err(io)? {
            0 => return Ok(size),
            copied => size += copied,
        }
    }
}

pub(super) fn too_many(bounds: Bounds) -> SourceError {
    SourceError::TooLarge(format!(
        "more than {} files match; name fewer, or choose a larger tier (copy.maxFiles)",
        bounds.files
    ))
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
