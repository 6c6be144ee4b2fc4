//! What is in a compressed file of a backup, of which nothing is known yet: never more than it may be, and with a bounded
//! amount of memory.

use sha2::{Digest, Sha256};
use std::{
    io::{self, Read, Write},
    sync::atomic::{AtomicU64, Ordering},
};

const BLOCK: usize = 1 << 20;
/// Largest window of a compressed file, as a power of two: what a decoder must have in memory.
const WINDOW: u32 = 23;

/// Decompresses everything into `output`, at most `limit` bytes, and returns what it read from and the SHA-256 of what it
/// wrote. `written` is where it stands.
///
/// # Errors
/// When it is damaged, or longer than the limit.
pub(crate) fn unpack<R: Read>(
    source: R,
    output: &mut impl Write,
    limit: u64,
    written: &AtomicU64,
) -> io::Result<(R, String)> {
    let mut plain = Plain::new(source, limit, written)?;
    let mut buffer = vec![0; BLOCK];
    loop {
        let length = plain.read(&mut buffer)?;
        if length == 0 {
            return Ok(plain.end());
        }
        output.write_all(&buffer[..length])?;
    }
}

/// The content of a compressed file, read piece by piece.
pub(crate) struct Plain<'a, R: Read> {
    decoder: zstd::Decoder<'static, io::BufReader<R>>,
    digest: Sha256,
    limit: u64,
    read: &'a AtomicU64,
}

impl<'a, R: Read> Plain<'a, R> {
    /// At most `limit` bytes; `read` is where it stands.
    pub(crate) fn new(source: R, limit: u64, read: &'a AtomicU64) -> io::Result<Self> {
        let mut decoder = zstd::Decoder::new(source)?;
        decoder.window_log_max(WINDOW)?;
        Ok(Self {
            decoder,
            digest: Sha256::new(),
            limit,
            read,
        })
    }

    /// What it was read from, and the SHA-256 of what was read.
    pub(crate) fn end(self) -> (R, String) {
        (self.decoder.finish().into_inner(), hex::encode(self.digest.finalize()))
    }
}

impl<R: Read> Read for Plain<'_, R> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let length = self.decoder.read(target)?;
        if self.read.load(Ordering::Relaxed) + length as u64 > self.limit {
            let message = format!("its content is longer than the {} bytes of the manifest", self.limit);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        self.digest.update(&target[..length]);
        self.read.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}
