//! Encryption of a backup's files on the node, so that whoever reads the object store reads nothing.
//!
//! An encrypted file is a header and chunks. The header has a magic text, the id of the key, a random salt and a random
//! prefix of nonces. Each file has a key of its own, which HKDF-SHA256 derives from the configured one and the salt.
//! Every 64 KiB of content are one chunk of AES-256-GCM whose nonce is the prefix, the number of the chunk, and whether it
//! is the last: a chunk that is changed, left out, repeated, moved or appended fails its check, and so does a file that
//! was cut between two chunks (the STREAM construction). The header is authenticated with every chunk, and with it a
//! context: which file of which backup this is, so that files of two backups cannot be exchanged.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    error::Unspecified,
    hkdf::{HKDF_SHA256, Salt},
    rand::{SecureRandom, SystemRandom},
};
use sha2::{Digest, Sha256};
use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

/// What the manifest calls this format.
pub(super) const ALGORITHM: &str = "AES-256-GCM";

const MAGIC: &[u8; 16] = b"graphplane-enc-1";
const ID: usize = 8;
const SALT: usize = 16;
const PREFIX: usize = 7;
const HEADER: usize = MAGIC.len() + ID + SALT + PREFIX;
const CHUNK: usize = 64 << 10;
const TAG: usize = 16;

/// A file of keys that cannot be used. What is in it is never repeated.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error("cannot read the backup keys in {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is not a key.
    #[error("{path}, line {line}: expected 32 bytes in base64, as `openssl rand -base64 32` writes them")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
    /// There is no key in it.
    #[error("{path} holds no key: expected 32 bytes in base64, one key per line, the current one first")]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// One key. It shows its id, which is a hash, and never itself.
#[derive(Clone, PartialEq, Eq)]
pub struct BackupKey {
    secret: [u8; 32],
    id: [u8; ID],
}

impl std::fmt::Debug for BackupKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("BackupKey").field(&self.id()).finish()
    }
}

impl BackupKey {
    pub(super) fn new(secret: [u8; 32]) -> Self {
        let hash = Sha256::new()
            .chain_update(b"graphplane backup key id")
            .chain_update(secret)
            .finalize();
        let mut id = [0; ID];
        id.copy_from_slice(&hash[..ID]);
        Self { secret, id }
    }

    /// What manifests call it: 16 hexadecimal digits.
    pub fn id(&self) -> String {
        hex::encode(self.id)
    }

    fn of_file(&self, header: &[u8], context: &[u8]) -> io::Result<FileKey> {
        let salt = &header[MAGIC.len() + ID..][..SALT];
        let derived = Salt::new(HKDF_SHA256, salt).extract(&self.secret);
        let unbound = derived
            .expand(&[b"graphplane backup file".as_slice()], &AES_256_GCM)
            .map(UnboundKey::from)
            .map_err(|Unspecified| io::Error::other("no key can be derived"))?;
        let mut prefix = [0; PREFIX];
        prefix.copy_from_slice(&header[HEADER - PREFIX..]);
        let associated = Sha256::new().chain_update(header).chain_update(context).finalize();
        Ok(FileKey {
            aead: LessSafeKey::new(unbound),
            associated: associated.into(),
            prefix,
            chunk: 0,
        })
    }
}

/// The keys of a node: the first encrypts, all decrypt, so that keys can be changed.
#[derive(Clone, Debug)]
pub struct Keyring(Arc<[BackupKey]>);

impl Keyring {
    /// Reads a file with one key per line; empty lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    /// When it cannot be read, or a line is not a key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let text = std::fs::read_to_string(path).map_err(|source| KeyError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut keys = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let secret = STANDARD.decode(line).ok().and_then(|key| key.try_into().ok());
            keys.push(BackupKey::new(secret.ok_or_else(|| KeyError::Invalid {
                path: path.to_owned(),
                line: number + 1,
            })?));
        }
        if keys.is_empty() {
            return Err(KeyError::Empty { path: path.to_owned() });
        }
        Ok(Self(keys.into()))
    }

    /// The key for new backups.
    pub fn current(&self) -> &BackupKey {
        // `read` makes no keyring without a key.
        &self.0[0]
    }

    /// The key that a manifest names.
    pub fn find(&self, id: &str) -> Option<&BackupKey> {
        self.0.iter().find(|key| key.id() == id)
    }
}

/// A key, and which file of which backup it is for.
#[derive(Clone, Debug)]
pub struct FileCipher {
    /// The key.
    pub key: BackupKey,
    /// Text that must be the same when the file is read again.
    pub context: String,
}

/// The key of one file, and how many chunks it has done.
struct FileKey {
    aead: LessSafeKey,
    associated: [u8; 32],
    prefix: [u8; PREFIX],
    chunk: u32,
}

impl FileKey {
    fn nonce(&mut self, last: bool) -> io::Result<Nonce> {
        let mut nonce = [0; NONCE_LEN];
        nonce[..PREFIX].copy_from_slice(&self.prefix);
        nonce[PREFIX..PREFIX + 4].copy_from_slice(&self.chunk.to_be_bytes());
        nonce[PREFIX + 4] = u8::from(last);
        let next = self.chunk.checked_add(1);
        self.chunk = next.ok_or_else(|| io::Error::other("the file is too large for this encryption"))?;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

/// Encrypts what is written to it.
pub(super) struct Sealer<W: Write> {
    inner: W,
    key: FileKey,
    buffer: Vec<u8>,
}

impl<W: Write> Sealer<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// When there is no randomness, or the header cannot be written.
    pub(super) fn new(mut inner: W, cipher: &FileCipher) -> io::Result<Self> {
        let mut header = [0; HEADER];
        let (magic, rest) = header.split_at_mut(MAGIC.len());
        let (id, random) = rest.split_at_mut(ID);
        magic.copy_from_slice(MAGIC);
        id.copy_from_slice(&cipher.key.id);
        SystemRandom::new()
            .fill(random)
            .map_err(|Unspecified| io::Error::other("the system gives no random bytes"))?;
        let key = cipher.key.of_file(&header, cipher.context.as_bytes())?;
        inner.write_all(&header)?;
        Ok(Self {
            inner,
            key,
            buffer: Vec::with_capacity(CHUNK + TAG),
        })
    }

    /// Writes the last chunk. Without it the file is cut.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        Ok(self.inner)
    }

    fn seal(&mut self, last: bool) -> io::Result<()> {
        let nonce = self.key.nonce(last)?;
        self.key
            .aead
            .seal_in_place_append_tag(nonce, Aad::from(self.key.associated), &mut self.buffer)
            .map_err(|Unspecified| io::Error::other("a chunk could not be encrypted"))?;
        self.inner.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        // A full chunk waits until it is known not to be the last.
        if self.buffer.len() == CHUNK && !data.is_empty() {
            self.seal(false)?;
        }
        let taken = data.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&data[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Decrypts what is read from it, and fails at the first chunk that is not as it was written.
pub(super) struct Opener<R: Read> {
    inner: R,
    key: FileKey,
    plain: Vec<u8>,
    read: usize,
    /// The chunk after the present one: whether there is one tells which is the last.
    ahead: Vec<u8>,
    ended: bool,
}

impl<R: Read> Opener<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// When it is not the header of a file that was encrypted with this key.
    pub(super) fn new(mut inner: R, cipher: &FileCipher) -> io::Result<Self> {
        let header = up_to(&mut inner, HEADER)?;
        if header.len() < HEADER || !header.starts_with(MAGIC) {
            return Err(changed("it does not begin like an encrypted file"));
        }
        if header[MAGIC.len()..][..ID] != cipher.key.id {
            let found = hex::encode(&header[MAGIC.len()..][..ID]);
            let message = format!("it was encrypted with key {found}, not {}", cipher.key.id());
            return Err(changed(&message));
        }
        let key = cipher.key.of_file(&header, cipher.context.as_bytes())?;
        let ahead = up_to(&mut inner, CHUNK + TAG)?;
        Ok(Self {
            inner,
            key,
            plain: Vec::new(),
            read: 0,
            ahead,
            ended: false,
        })
    }

    /// What is encrypted, at its end.
    pub(super) fn into_inner(self) -> R {
        self.inner
    }

    fn open(&mut self) -> io::Result<()> {
        let mut chunk = std::mem::take(&mut self.ahead);
        self.ahead = up_to(&mut self.inner, CHUNK + TAG)?;
        let last = self.ahead.is_empty();
        let number = self.key.chunk;
        let nonce = self.key.nonce(last)?;
        let opened = self
            .key
            .aead
            .open_in_place(nonce, Aad::from(self.key.associated), &mut chunk);
        let length = match opened {
            Ok(plain) => plain.len(),
            Err(Unspecified) => {
                return Err(changed(&format!(
                    "chunk {number} is not what was encrypted there: changed, cut, moved, or of another backup"
                )));
            }
        };
        chunk.truncate(length);
        (self.plain, self.read, self.ended) = (chunk, 0, last);
        Ok(())
    }
}

impl<R: Read> Read for Opener<R> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        while self.read == self.plain.len() && !self.ended {
            self.open()?;
        }
        let length = target.len().min(self.plain.len() - self.read);
        target[..length].copy_from_slice(&self.plain[self.read..][..length]);
        self.read += length;
        Ok(length)
    }
}

fn up_to(source: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length);
    source.take(length as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn changed(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("decryption: {message}"))
}

#[cfg(test)]
#[path = "crypt_tests.rs"]
mod tests;
