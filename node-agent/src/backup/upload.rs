//! One file to the object store: read, hashed, compressed, encrypted if that is wanted, hashed again and uploaded in
//! parts, all at the same time and with a bounded amount of memory.

use super::{
    copies::Source,
    crypt::{FileCipher, Sealer},
};
use crate::objects::{BackupStore, StoreError};
use bytes::Bytes;
use object_store::{ObjectStoreExt, WriteMultipart, path::Path as ObjectPath};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::mpsc;

/// Size of a part; the least that S3 takes is 5 MiB.
const PART: usize = 8 << 20;
/// Parts in flight.
const PARTS: usize = 4;
const BLOCK: usize = 1 << 20;
const LEVEL: i32 = 3;

/// A file that could not be uploaded.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The copy could not be read or compressed.
    #[error("the copy for {key} cannot be read or compressed: {source}")]
    Read {
        /// The object.
        key: String,
        /// Why.
        source: io::Error,
    },
    /// The object store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What arrived is not what was sent.
    #[error("{key} has {stored} bytes in the object store, but {sent} were sent")]
    Size {
        /// The object.
        key: String,
        /// Bytes that were sent.
        sent: u64,
        /// Bytes that the store has.
        stored: u64,
    },
}

/// An uploaded file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uploaded {
    /// SHA-256 of the object, in hexadecimal.
    pub sha256: String,
    /// Size of the object.
    pub size_bytes: u64,
    /// SHA-256 of the plain bytes, in hexadecimal.
    pub plain_sha256: String,
    /// Plain size.
    pub plain_size_bytes: u64,
}

impl Uploaded {
    /// Whether its hashes are hashes. They may come from a manifest that somebody has tampered with.
    pub(crate) fn has_digests(&self) -> bool {
        let digest = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        digest(&self.sha256) && digest(&self.plain_sha256)
    }
}

/// Compresses `source` into the object `key`, and encrypts it with `cipher`. `progress` is told how many plain bytes have
/// been read.
///
/// # Errors
/// When the file cannot be read or the object cannot be written; what was uploaded is given up then.
pub async fn upload_compressed(
    source: &Source,
    store: &BackupStore,
    key: &ObjectPath,
    cipher: Option<FileCipher>,
    progress: impl Fn(u64),
) -> Result<Uploaded, UploadError> {
    let refused = |action| {
        move |source| {
            UploadError::Store(StoreError::Store {
                action,
                key: key.to_string(),
                source,
            })
        }
    };
    let (sender, mut blocks) = mpsc::channel::<Bytes>(8);
    let read = Arc::new(AtomicU64::new(0));
    let compressing = {
        let (source, read) = (source.clone(), Arc::clone(&read));
        tokio::task::spawn_blocking(move || compress(&source, sender, cipher.as_ref(), &read))
    };
    let upload = store.objects().put_multipart(key).await.map_err(refused("begin"))?;
    let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
    while let Some(block) = blocks.recv().await {
        if let Err(error) = upload.wait_for_capacity(PARTS).await {
            abort(upload, key).await;
            return Err(refused("upload")(error));
        }
        upload.put(block);
        progress(read.load(Ordering::Relaxed));
    }
    let compressed = compressing.await.map_err(io::Error::other).and_then(|result| result);
    let uploaded = match compressed {
        Ok(uploaded) => uploaded,
        Err(error) => {
            abort(upload, key).await;
            return Err(UploadError::Read {
                key: key.to_string(),
                source: error,
            });
        }
    };
    upload.finish().await.map_err(refused("complete"))?;
    progress(uploaded.plain_size_bytes);
    let stored = store.objects().head(key).await.map_err(refused("look at"))?.size;
    if stored != uploaded.size_bytes {
        return Err(UploadError::Size {
            key: key.to_string(),
            sent: uploaded.size_bytes,
            stored,
        });
    }
    Ok(uploaded)
}

async fn abort(upload: WriteMultipart, key: &ObjectPath) {
    // The store's own rule for incomplete uploads removes what this cannot.
    if let Err(error) = upload.abort().await {
        tracing::warn!(operation = "backup", %key, %error, "incomplete upload not removed");
    }
}

fn compress(
    source: &Source,
    sender: mpsc::Sender<Bytes>,
    cipher: Option<&FileCipher>,
    read: &AtomicU64,
) -> io::Result<Uploaded> {
    let sink = Sink {
        sender,
        block: Vec::with_capacity(BLOCK),
        digest: Sha256::new(),
        size: 0,
    };
    let (mut sink, plain_sha256) = match cipher {
        None => squeeze(source, sink, read)?,
        Some(cipher) => {
            let (sealer, plain_sha256) = squeeze(source, Sealer::new(sink, cipher)?, read)?;
            (sealer.finish()?, plain_sha256)
        }
    };
    sink.send()?;
    Ok(Uploaded {
        sha256: hex::encode(sink.digest.finalize()),
        size_bytes: sink.size,
        plain_sha256,
        plain_size_bytes: read.load(Ordering::Relaxed),
    })
}

/// Compresses everything into `sink`, and hashes it.
fn squeeze<W: Write>(source: &Source, sink: W, read: &AtomicU64) -> io::Result<(W, String)> {
    let mut encoder = zstd::Encoder::new(sink, LEVEL)?;
    encoder.include_checksum(true)?;
    let mut plain = Plain {
        encoder,
        digest: Sha256::new(),
        read,
    };
    source.write_to(&mut plain)?;
    Ok((plain.encoder.finish()?, hex::encode(plain.digest.finalize())))
}

/// Takes the plain bytes, hashes them and hands them to the encoder.
struct Plain<'a, W: Write> {
    encoder: zstd::Encoder<'static, W>,
    digest: Sha256,
    read: &'a AtomicU64,
}

impl<W: Write> Write for Plain<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.encoder.write(bytes)?;
        self.digest.update(&bytes[..taken]);
        self.read.fetch_add(taken as u64, Ordering::Relaxed);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }
}

/// Takes the bytes of the object, hashes them and hands them on in blocks.
struct Sink {
    sender: mpsc::Sender<Bytes>,
    block: Vec<u8>,
    digest: Sha256,
    size: u64,
}

impl Sink {
    fn send(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        self.digest.update(&block);
        self.size += block.len() as u64;
        // The receiver is gone when the upload failed or was cancelled.
        self.sender
            .blocking_send(block.into())
            .map_err(|_| io::Error::other("the upload has ended"))
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.block.extend_from_slice(bytes);
        if self.block.len() >= BLOCK {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn what_arrives_is_what_was_hashed() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        // Badly compressible, and longer than a few blocks.
        let mut seed = 1u64;
        let plain: Vec<u8> = (0..3_500_000)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 56) as u8
            })
            .collect();
        std::fs::write(&source, &plain).unwrap();
        let store = BackupStore::open(&format!("file://{}/objects", dir.path().display())).unwrap();
        let key = BackupStore::key("backups/kg1/graph.lbug.zst").unwrap();
        let seen = std::cell::Cell::new(0);
        let uploaded = upload_compressed(&Source::File(source), &store, &key, None, |read| seen.set(read))
            .await
            .unwrap();
        assert_eq!(seen.get(), plain.len() as u64);
        let object = store.objects().get(&key).await.unwrap().bytes().await.unwrap();
        assert_eq!(object.len() as u64, uploaded.size_bytes);
        assert_eq!(hex::encode(Sha256::digest(&object)), uploaded.sha256);
        let back = zstd::decode_all(&object[..]).unwrap();
        assert_eq!(hex::encode(Sha256::digest(&back)), uploaded.plain_sha256);
        assert_eq!((back.len() as u64, back == plain), (uploaded.plain_size_bytes, true));
    }

    #[tokio::test]
    async fn a_copy_that_cannot_be_read_leaves_no_object() {
        let dir = tempfile::tempdir().unwrap();
        let store = BackupStore::open(&format!("file://{}/objects", dir.path().display())).unwrap();
        let key = BackupStore::key("backups/kg1/x.zst").unwrap();
        let absent = Source::File(dir.path().join("absent"));
        let error = upload_compressed(&absent, &store, &key, None, |_| ())
            .await
            .unwrap_err();
        assert!(matches!(error, UploadError::Read { .. }), "{error}");
        assert_eq!(store.read(&key).await.unwrap(), None);
    }
}
