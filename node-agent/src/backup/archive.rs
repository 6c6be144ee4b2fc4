//! A backup as one download: a zip of the database's file, of its staging, of its vectors, and of a manifest that comes
//! last, written while it is sent. Each file in it opens with its engine as it is; tables of vectors are tars.

use super::{Copies, Piece, Source};
use crate::{engines::VectorsName, tasks::timestamp};
use bytes::Bytes;
use futures::{Stream, stream};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{
    io::{self, Write},
    time::Duration,
};
use tokio::{runtime::Handle, sync::mpsc, task::JoinHandle};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions, write::StreamWriter};

const BLOCK: usize = 256 << 10;
/// Blocks that wait for the client.
const BLOCKS: usize = 4;
/// A client that takes nothing for so long is given up: its copy occupies the volume.
const PATIENCE: Duration = Duration::from_secs(300);

/// What to send.
#[derive(Debug)]
pub struct Archive<T> {
    /// Name of the database, and of the files in the archive.
    pub graph_id: String,
    /// The files; removed when the archive was sent, or nobody wants it any more.
    pub copies: Copies,
    /// Epoch under which they were made.
    pub epoch: u64,
    /// Kept until then, too.
    pub guard: T,
}

/// The archive in pieces. It is written by a thread that is at most a few blocks ahead, and that ends when the stream is
/// dropped. A failure is an item of the stream, so an archive that was cut is never taken for a whole one.
pub fn archive<T: Send + 'static>(archive: Archive<T>) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(BLOCKS);
    let runtime = Handle::current();
    let writing = tokio::task::spawn_blocking(move || {
        let blocks = Blocks {
            sender,
            runtime,
            block: Vec::with_capacity(BLOCK),
            gone: false,
        };
        let sent = write(&archive, blocks);
        tracing::info!(
            operation = "backup_download",
            graph = archive.graph_id,
            bytes = sent.as_ref().ok(),
            error = sent.as_ref().err().map(tracing::field::display),
            "download ended"
        );
        sent.map(drop)
    });
    stream::unfold(Sending::Blocks(receiver, writing), |state| async move {
        let Sending::Blocks(mut receiver, writing) = state else {
            return None;
        };
        if let Some(block) = receiver.recv().await {
            return Some((Ok(block), Sending::Blocks(receiver, writing)));
        }
        let ended = writing.await.map_err(io::Error::other).and_then(|result| result);
        ended.err().map(|error| (Err(error), Sending::Ended))
    })
}

enum Sending {
    Blocks(mpsc::Receiver<Bytes>, JoinHandle<io::Result<()>>),
    Ended,
}

/// Writes the archive, and returns how many plain bytes are in it.
fn write<T>(archive: &Archive<T>, blocks: Blocks) -> io::Result<u64> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        // Fast: the network is rarely slower.
        .compression_level(Some(1))
        .unix_permissions(0o600)
        .large_file(true);
    let mut zip = ZipWriter::new_stream(blocks);
    let mut files = Vec::new();
    for file in archive.copies.files() {
        let graph = &archive.graph_id;
        let name = match &file.piece {
            Piece::Graph => format!("{graph}.lbug"),
            Piece::Staging => format!("{graph}.duckdb"),
            Piece::Vectors(VectorsName::Index(table)) => format!("{graph}.{table}.lance.tar"),
            Piece::Vectors(VectorsName::Memory) => format!("{graph}.semantic-memory.tar"),
        };
        zip.start_file(&name, options)?;
        let (size_bytes, sha256) = add(&mut zip, &file.source)?;
        files.push(json!({"kind": file.piece.kind(), "name": name, "sha256": sha256, "size_bytes": size_bytes}));
    }
    let snapshot = archive.copies.snapshot();
    let manifest = json!({
        "graph_id": archive.graph_id,
        "created_at": timestamp(),
        "epoch": archive.epoch,
        "node_count": snapshot.counts.nodes,
        "relationship_count": snapshot.counts.relationships,
        "ladybug_version": snapshot.ladybug_version,
        "storage_version": snapshot.storage_version,
        "agent_version": env!("CARGO_PKG_VERSION"),
        "files": files,
    });
    zip.start_file("manifest.json", options)?;
    serde_json::to_writer_pretty(&mut zip, &manifest)?;
    zip.finish()?.into_inner().send()?;
    Ok(archive.copies.size_bytes())
}

fn add(zip: &mut ZipWriter<StreamWriter<Blocks>>, source: &Source) -> io::Result<(u64, String)> {
    let mut entry = Entry {
        zip,
        digest: Sha256::new(),
        size: 0,
    };
    source.write_to(&mut entry)?;
    Ok((entry.size, hex::encode(entry.digest.finalize())))
}

/// Takes the bytes of one file in the archive, and hashes them.
struct Entry<'a> {
    zip: &'a mut ZipWriter<StreamWriter<Blocks>>,
    digest: Sha256,
    size: u64,
}

impl Write for Entry<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.zip.write(bytes)?;
        self.digest.update(&bytes[..taken]);
        self.size += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.zip.flush()
    }
}

/// Takes the bytes of the archive and hands them on in blocks.
struct Blocks {
    sender: mpsc::Sender<Bytes>,
    runtime: Handle,
    block: Vec<u8>,
    /// After a failure nothing is sent any more: the writer of the archive still closes what it began when it is dropped.
    gone: bool,
}

impl Blocks {
    fn send(&mut self) -> io::Result<()> {
        if self.block.is_empty() || self.gone {
            return Ok(());
        }
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        let sending = tokio::time::timeout(PATIENCE, self.sender.send(block.into()));
        let reason = match self.runtime.block_on(sending) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(_)) => io::Error::new(io::ErrorKind::BrokenPipe, "the client went away"),
            Err(_) => io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing any more"),
        };
        self.gone = true;
        Err(reason)
    }
}

impl Write for Blocks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.gone {
            self.block.extend_from_slice(bytes);
            if self.block.len() >= BLOCK {
                self.send()?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
