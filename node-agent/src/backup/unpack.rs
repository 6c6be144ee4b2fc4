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
    let mut decoder = zstd::Decoder::new(source)?;
    decoder.window_log_max(WINDOW)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; BLOCK];
    loop {
        let length = decoder.read(&mut buffer)?;
        if length == 0 {
            return Ok((decoder.finish().into_inner(), hex::encode(digest.finalize())));
        }
        if written.load(Ordering::Relaxed) + length as u64 > limit {
            let message = format!("its content is longer than the {limit} bytes of the manifest");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        digest.update(&buffer[..length]);
        output.write_all(&buffer[..length])?;
        written.fetch_add(length as u64, Ordering::Relaxed);
    }
}
