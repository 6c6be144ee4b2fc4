//! One file from the object store to the volume: fetched in parts, several at a time, hashed, decrypted, decompressed,
//! hashed again and written (a table of vectors is unpacked as well), all at the same time and with a bounded amount of
//! memory. What the manifest says is also the limit: neither the object nor what comes out of it may be a byte longer.

use super::{
    crypt::{FileCipher, Opener},
    unpack::{Plain, unpack},
    upload::Uploaded,
};
use crate::{
    engines::{EngineError, IncomingVectors, VectorsName},
    objects::{BackupStore, StoreError},
};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use object_store::{ObjectStoreExt, path::Path as ObjectPath};
use sha2::{Digest, Sha256};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    ops::Range,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::mpsc;

/// Bytes of one request. Each request is repeated on its own when the store fails.
const PART: u64 = 8 << 20;
/// Requests at the same time. One connection to S3 gives some 90 MB/s, so these fetch as fast as one thread unpacks. What
/// is fetched waits for its turn: with the two that are unpacked and handed over, nine parts are in memory at most.
const REQUESTS: usize = 6;

/// A file that could not be fetched. Nothing of it may be used.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The object store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What lies there is not what was uploaded.
    #[error("{key} is damaged or was exchanged: {what} is {found}, and the manifest says {expected}")]
    Different {
        /// The object.
        key: String,
        /// What differs.
        what: &'static str,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// It cannot be decrypted, decompressed or written.
    #[error("{key} cannot be unpacked to {path}: {source}")]
    Unpack {
        /// The object.
        key: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in it is not a table of vectors, or cannot be written.
    #[error("{key} cannot be unpacked: {source}")]
    Content {
        /// The object.
        key: String,
        /// Why.
        source: EngineError,
    },
}

/// Where the content of an object goes.
#[derive(Clone, Debug)]
pub enum Target {
    /// To this file, which must not exist.
    File(PathBuf),
    /// To this table.
    Table(Arc<IncomingVectors>, VectorsName),
}

/// Fetches the object `key`, which `file` describes, to `target`. `progress` is told how many plain bytes have been
/// written. Dropping the future leaves a part of the file.
///
/// # Errors
/// When the object cannot be read or is not the one that was described.
pub async fn download(
    store: &BackupStore,
    key: &ObjectPath,
    file: &Uploaded,
    cipher: Option<FileCipher>,
    target: Target,
    progress: impl Fn(u64),
) -> Result<(), DownloadError> {
    let refused = |source| StoreError::Store {
        action: "read",
        key: key.to_string(),
        source,
    };
    let different = |what, found: String, expected: String| DownloadError::Different {
        key: key.to_string(),
        what,
        found,
        expected,
    };
    let size = store.objects().head(key).await.map_err(refused)?.size;
    if size != file.size_bytes {
        return Err(different("its size", size.to_string(), file.size_bytes.to_string()));
    }
    let output = Output::begin(target);
    let output = output.map_err(|failure| failure.of(key))?;
    let (sender, parts) = mpsc::channel(1);
    let written = Arc::new(AtomicU64::new(0));
    let unpacking = {
        let (written, limit) = (Arc::clone(&written), file.plain_size_bytes);
        tokio::task::spawn_blocking(move || write(Parts::new(parts), cipher.as_ref(), &output, limit, &written))
    };
    let mut fetched = in_order(size, |range| {
        let (objects, key) = (Arc::clone(store.objects()), key.clone());
        async move { objects.get_range(&key, range).await }
    });
    let fetching = async {
        while let Some(part) = fetched.try_next().await? {
            progress(written.load(Ordering::Relaxed));
            if sender.send(part).await.is_err() {
                // The other side gave up, and says why.
                break;
            }
        }
        Ok::<(), object_store::Error>(())
    };
    let fetched = fetching.await;
    drop(sender);
    let unpacked = unpacking.await.map_err(|error| {
        let message = format!("the thread that unpacked it ended: {error}");
        Failure::Content(EngineError::internal(message))
    });
    // Only now: whoever removes what arrived must not do so while it is still written.
    fetched.map_err(refused)?;
    let unpacked = unpacked.and_then(|result| result).map_err(|failure| failure.of(key))?;
    progress(unpacked.plain_size);
    for (what, found, expected) in [
        ("the SHA-256 of the object", &unpacked.sha256, &file.sha256),
        ("the SHA-256 of its content", &unpacked.plain_sha256, &file.plain_sha256),
    ] {
        if !found.eq_ignore_ascii_case(expected) {
            return Err(different(what, found.clone(), expected.clone()));
        }
    }
    if unpacked.plain_size != file.plain_size_bytes {
        return Err(different(
            "the size of its content",
            unpacked.plain_size.to_string(),
            file.plain_size_bytes.to_string(),
        ));
    }
    Ok(())
}

/// Gets all parts of an object of that size, several at the same time, and gives them in their order.
fn in_order<T, G: Future<Output = T>>(size: u64, get: impl Fn(Range<u64>) -> G) -> impl Stream<Item = T> {
    let ranges = (0..size)
        .step_by(PART as usize)
        .map(move |start| start..size.min(start + PART));
    stream::iter(ranges).map(get).buffered(REQUESTS)
}

struct Unpacked {
    sha256: String,
    plain_sha256: String,
    plain_size: u64,
}

/// Why the content of an object was not written.
enum Failure {
    File(PathBuf, io::Error),
    Content(EngineError),
}

impl Failure {
    fn of(self, key: &ObjectPath) -> DownloadError {
        let key = key.to_string();
        match self {
            Self::File(path, source) => DownloadError::Unpack { key, path, source },
            Self::Content(source) => DownloadError::Content { key, source },
        }
    }
}

/// A target that is being written.
enum Output {
    File(PathBuf, File),
    Table(Arc<IncomingVectors>, VectorsName),
}

impl Output {
    /// Makes the file here and not on the other thread: once the download is dropped, no file appears any more. What comes
    /// for a table has a directory of its own, which goes with the last who has it.
    fn begin(target: Target) -> Result<Self, Failure> {
        match target {
            Target::Table(incoming, name) => Ok(Self::Table(incoming, name)),
            Target::File(path) => {
                let mut options = OpenOptions::new();
                let file = options.write(true).create_new(true).mode(0o600).open(&path);
                match file {
                    Ok(file) => Ok(Self::File(path, file)),
                    Err(error) => Err(Failure::File(path, error)),
                }
            }
        }
    }

    fn failed(&self, error: io::Error) -> Failure {
        match self {
            Self::File(path, _) => Failure::File(path.clone(), error),
            Self::Table(_, name) => {
                let message = format!("does not hold {name}: {error}");
                Failure::Content(EngineError::invalid("archive", message))
            }
        }
    }
}

fn write(
    parts: Parts,
    cipher: Option<&FileCipher>,
    output: &Output,
    limit: u64,
    written: &AtomicU64,
) -> Result<Unpacked, Failure> {
    let (parts, plain_sha256) = match cipher {
        None => extract(parts, output, limit, written)?,
        Some(cipher) => {
            let opener = Opener::new(parts, cipher).map_err(|error| output.failed(error))?;
            let (opener, plain_sha256) = extract(opener, output, limit, written)?;
            (opener.into_inner(), plain_sha256)
        }
    };
    Ok(Unpacked {
        sha256: hex::encode(parts.digest.finalize()),
        plain_sha256,
        plain_size: written.load(Ordering::Relaxed),
    })
}

/// Decompresses everything, and returns what it read from and the SHA-256 of what came out.
fn extract<R: Read>(source: R, output: &Output, limit: u64, written: &AtomicU64) -> Result<(R, String), Failure> {
    match output {
        Output::File(_, file) => {
            let unpacked = unpack(source, &mut &*file, limit, written);
            let unpacked = unpacked.and_then(|unpacked| file.sync_all().map(|()| unpacked));
            unpacked.map_err(|error| output.failed(error))
        }
        Output::Table(incoming, name) => {
            let mut plain = Plain::new(source, limit, written).map_err(|error| output.failed(error))?;
            incoming.receive(name, &mut plain, limit).map_err(Failure::Content)?;
            // What pads the tar belongs to what is hashed.
            io::copy(&mut plain, &mut io::sink()).map_err(|error| output.failed(error))?;
            Ok(plain.end())
        }
    }
}

/// Reads the parts as they arrive, and hashes them.
struct Parts {
    receiver: mpsc::Receiver<Bytes>,
    part: Bytes,
    digest: Sha256,
}

impl Parts {
    fn new(receiver: mpsc::Receiver<Bytes>) -> Self {
        Self {
            receiver,
            part: Bytes::new(),
            digest: Sha256::new(),
        }
    }
}

impl Read for Parts {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            match self.receiver.blocking_recv() {
                Some(part) => {
                    self.digest.update(&part);
                    self.part = part;
                }
                // The end, or a sender that failed: the hash tells them apart.
                None => return Ok(0),
            }
        }
        let taken = self.part.split_to(target.len().min(self.part.len()));
        target[..taken.len()].copy_from_slice(&taken);
        Ok(taken.len())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::backup::{Manifest, Source, crypt::BackupKey, upload::upload_compressed};
    use tempfile::TempDir;

    struct Stored {
        dir: TempDir,
        store: BackupStore,
        key: ObjectPath,
        file: Uploaded,
        cipher: Option<FileCipher>,
    }

    impl Stored {
        async fn new(plain: &[u8], encrypted: bool) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = BackupStore::open(&format!("file://{}/objects", dir.path().display())).unwrap();
            let source = dir.path().join("source");
            std::fs::write(&source, plain).unwrap();
            let key = BackupStore::key("object").unwrap();
            let cipher = encrypted.then(|| Manifest::cipher("kg1", "today", "graph", &BackupKey::new([3; 32])));
            let file = upload_compressed(&Source::File(source), &store, &key, cipher.clone(), |_| ())
                .await
                .unwrap();
            Self {
                dir,
                store,
                key,
                file,
                cipher,
            }
        }

        fn object(&self) -> PathBuf {
            self.dir.path().join("objects/object")
        }

        async fn fetch(&self) -> Result<Vec<u8>, DownloadError> {
            let target = self.dir.path().join("target");
            let cipher = self.cipher.clone();
            let to = Target::File(target.clone());
            let fetched = download(&self.store, &self.key, &self.file, cipher, to, |_| ()).await;
            let content = std::fs::read(&target);
            let _ = std::fs::remove_file(&target);
            fetched.map(|()| content.unwrap())
        }
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut seed = 1u64;
        (0..length)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 56) as u8
            })
            .collect()
    }

    #[tokio::test]
    async fn what_was_uploaded_comes_back() {
        for encrypted in [false, true] {
            for plain in [noise(60 << 20), vec![0; 5 << 20], Vec::new()] {
                let stored = Stored::new(&plain, encrypted).await;
                assert!(stored.fetch().await.unwrap() == plain, "{} bytes", plain.len());
            }
        }
    }

    #[tokio::test]
    async fn parts_are_fetched_together_and_arrive_in_order() {
        let (together, flying) = (tokio::sync::Barrier::new(REQUESTS), AtomicU64::new(0));
        let size = 4 * REQUESTS as u64 * PART;
        let (together, flying) = (&together, &flying);
        let get = |range: Range<u64>| async move {
            let now = flying.fetch_add(1, Ordering::SeqCst) + 1;
            assert!(now <= REQUESTS as u64, "{now} requests at once");
            // Nobody goes on before there are so many: one after the other would wait for ever.
            together.wait().await;
            flying.fetch_sub(1, Ordering::SeqCst);
            range
        };
        let limit = std::time::Duration::from_secs(60);
        let parts: Vec<_> = tokio::time::timeout(limit, in_order(size, get).collect())
            .await
            .unwrap();
        assert_eq!((parts[0].start, parts[parts.len() - 1].end), (0, size));
        assert!(parts.windows(2).all(|two| two[0].end == two[1].start));
        let cut: Vec<Range<u64>> = in_order(PART + 1, std::future::ready).collect().await;
        assert_eq!(cut, [0..PART, PART..PART + 1]);
        assert_eq!(in_order(0, std::future::ready).count().await, 0);
    }

    #[tokio::test]
    async fn a_changed_object_is_found() {
        for encrypted in [false, true] {
            let stored = Stored::new(&noise(300_000), encrypted).await;
            let mut object = std::fs::read(stored.object()).unwrap();
            let middle = object.len() / 2;
            object[middle] ^= 1;
            std::fs::write(stored.object(), &object).unwrap();
            stored.fetch().await.unwrap_err();
            std::fs::write(stored.object(), &object[..middle]).unwrap();
            assert!(matches!(
                stored.fetch().await,
                Err(DownloadError::Different { what: "its size", .. })
            ));
            std::fs::remove_file(stored.object()).unwrap();
            assert!(matches!(stored.fetch().await, Err(DownloadError::Store(_))));
        }
    }

    #[tokio::test]
    async fn a_bomb_ends_at_the_size_of_the_manifest() {
        let mut stored = Stored::new(&vec![0; 64 << 20], false).await;
        stored.file.plain_size_bytes = 1 << 20;
        let error = stored.fetch().await.unwrap_err().to_string();
        assert!(error.contains("longer than the 1048576 bytes"), "{error}");
        // And a file that is shorter than it should be is no better.
        stored.file.plain_size_bytes = 65 << 20;
        assert!(matches!(stored.fetch().await, Err(DownloadError::Different { .. })));
    }

    #[tokio::test]
    async fn another_manifest_does_not_fit() {
        let mut stored = Stored::new(&noise(1000), false).await;
        stored.file.plain_sha256 = "0".repeat(64);
        assert!(matches!(stored.fetch().await, Err(DownloadError::Different { .. })));
    }
}
