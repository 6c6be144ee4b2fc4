//! A table of vectors as one file, out and in: a tar, compressed with gzip, of a manifest and the table's directory.
//!
//! An archive that comes in is hostile until it is shown to be good: its entries are plain files below `data/`, few and
//! small enough ([`unpack`](super::unpack)); what they make up is opened, looked over, counted and searched before it
//! becomes the table.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::Schema;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use lance::Dataset;
use lance::index::DatasetIndexExt;
use serde::{Deserialize, Serialize};
use tar::{Builder, EntryType, Header};
use tokio_util::sync::CancellationToken;

use super::super::error::EngineError;
use super::super::names::TableName;
use super::columns::{check_column, vector_field};
use super::error::failed;
use super::layout::{Name, Record, walk};
use super::pool::blocking;
use super::search::{Nearest, find};
use super::table::{INDEX, IndexInfo, VECTOR, Vectors, describe, no_vectors};
use super::unpack::{self, DATA, MANIFEST, bad, is_plain};

pub(super) const FORMAT: u32 = 1;
/// What a tar pads everything to.
const TAR_BLOCK: u64 = 512;

/// What an archive says of the table in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) format: u32,
    pub(super) rows: u64,
    #[serde(flatten)]
    pub(super) record: Record,
}

/// An archive that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Rows of the table.
    pub rows: u64,
    /// Bytes of the archive.
    pub size_bytes: u64,
}

/// A table that came from an archive.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// The table as it is now.
    pub table: IndexInfo,
}

impl Vectors {
    /// Writes a table as an archive to `target`, which must not exist. Changes of the table wait; searches do not.
    ///
    /// # Errors
    /// `NotFound`; `Cancelled`; the archive cannot be written.
    pub async fn export(
        &self,
        table: &TableName,
        target: &Path,
        stop: &CancellationToken,
    ) -> Result<Exported, EngineError> {
        let change = self.change(Name::Index(table.clone())).await?;
        let generation = change.current().await?.ok_or_else(|| no_vectors(table))?;
        let rows = generation.dataset().count_rows(None).await.map_err(failed("count"))? as u64;
        let manifest = Manifest {
            format: FORMAT,
            rows,
            record: generation.record.clone(),
        };
        let (directory, target) = (generation.directory().to_owned(), target.to_owned());
        // Ends when the caller goes away, too: the thread that packs looks at it.
        let stop = stop.child_token();
        let _guard = stop.clone().drop_guard();
        let stopped = change.stopped(&stop);
        let packing = blocking(move || {
            pack(&manifest, &directory, &target, &stopped).map_err(|error| {
                if stopped() {
                    EngineError::Cancelled
                } else {
                    EngineError::io("write", &target, error)
                }
            })
        });
        Ok(Exported {
            rows,
            size_bytes: packing.await?,
        })
    }

    /// Puts the table of an archive in the place of the one that is there. It may unpack to at most `max_bytes`.
    ///
    /// # Errors
    /// `Invalid` if the archive is not good; `Cancelled`; nothing has changed then.
    pub async fn import(
        &self,
        table: &TableName,
        archive: &Path,
        max_bytes: u64,
        stop: &CancellationToken,
    ) -> Result<Imported, EngineError> {
        let change = self.change(Name::Index(table.clone())).await?;
        // The length is the archive's to say.
        let mut made = change.begin(0).await?;
        let (source, directory) = (archive.to_owned(), made.directory.clone());
        let stop_unpacking = stop.child_token();
        let _guard = stop_unpacking.clone().drop_guard();
        let stopped = change.stopped(&stop_unpacking);
        let manifest = blocking(move || unpack(&source, &directory, max_bytes, stopped)).await?;
        let lance = self.lance();
        let record = manifest.record.clone();
        // A file in it that is broken is the archive's fault, whatever it breaks.
        let opened = async {
            let dataset = lance.open(made.directory.clone()).await?;
            let checking = dataset.clone();
            lance.pool.run(async move { check(checking, &manifest).await }).await?;
            Ok(dataset)
        };
        let dataset = change.until(stop, opened).await.map_err(|error| match error {
            EngineError::Cancelled => EngineError::Cancelled,
            other => bad(format!("does not hold a table of vectors: {other}")),
        })?;
        made.record = Record {
            generation: made.record.generation.clone(),
            built_at: made.record.built_at.clone(),
            ..record
        };
        let generation = change.publish(made, dataset).await?;
        Ok(Imported {
            table: lance.pool.run(describe(generation)).await?,
        })
    }
}

fn pack(manifest: &Manifest, directory: &Path, target: &Path, stopped: &impl Fn() -> bool) -> io::Result<u64> {
    let file = BufWriter::new(File::create_new(target)?);
    let packed = GzEncoder::new(file, Compression::fast());
    let mut file = write_tar(manifest, directory, packed, stopped)?.finish()?;
    file.flush()?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(file.metadata()?.len())
}

/// A file that cannot be read any further once `stopped` says so: one may be so large that packing it takes minutes.
struct Watched<'s, F> {
    file: File,
    stopped: &'s F,
}

impl<F: Fn() -> bool> Read for Watched<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if (self.stopped)() {
            return Err(io::Error::other("cancelled"));
        }
        self.file.read(buffer)
    }
}

/// Writes a table as a tar, and gives the output back. Fails once `stopped` says so.
pub(super) fn write_tar<W: Write>(
    manifest: &Manifest,
    directory: &Path,
    output: W,
    stopped: &impl Fn() -> bool,
) -> io::Result<W> {
    let mut tar = Builder::new(output);
    let text = serde_json::to_vec_pretty(manifest)?;
    tar.append_data(&mut header(text.len() as u64), MANIFEST, text.as_slice())?;
    let mut pack_one = |path: &Path, metadata: &fs::Metadata| {
        if metadata.is_dir() {
            return Ok(());
        }
        let below = path.strip_prefix(directory).map_err(io::Error::other)?;
        let name = Path::new(DATA).join(below);
        let file = File::open(path)?;
        tar.append_data(&mut header(metadata.len()), name, Watched { file, stopped })
    };
    walk(directory, &mut pack_one)?;
    tar.into_inner()
}

/// Bytes that [`write_tar`] writes.
pub(super) fn tar_size(manifest: &Manifest, directory: &Path) -> io::Result<u64> {
    let entry = |content: u64| TAR_BLOCK + content.next_multiple_of(TAR_BLOCK);
    let text = serde_json::to_vec_pretty(manifest)?;
    // The end is two blocks of nothing.
    let mut size = entry(text.len() as u64) + 2 * TAR_BLOCK;
    walk(directory, &mut |_, file| {
        size += if file.is_file() { entry(file.len()) } else { 0 };
        Ok(())
    })?;
    Ok(size)
}

fn header(size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o600);
    header.set_entry_type(EntryType::Regular);
    header
}

/// Writes the files of an archive below `directory`, and reads its manifest.
fn unpack(
    archive: &Path,
    directory: &Path,
    max_bytes: u64,
    stopped: impl Fn() -> bool,
) -> Result<Manifest, EngineError> {
    let file = File::open(archive).map_err(|error| EngineError::io("open", archive, error))?;
    let tar = GzDecoder::new(BufReader::new(file));
    read_manifest(&unpack::unpack(tar, directory, max_bytes, stopped)?)
}

pub(super) fn read_manifest(text: &[u8]) -> Result<Manifest, EngineError> {
    let manifest: Manifest =
        serde_json::from_slice(text).map_err(|error| bad(format!("has a manifest that is not one: {error}")))?;
    if manifest.format == FORMAT {
        Ok(manifest)
    } else {
        Err(bad(format!(
            "has format {}, and this agent reads format {FORMAT}",
            manifest.format
        )))
    }
}

/// Shows that a table is what its manifest says, that it refers to nothing outside of itself, and that it can be searched.
pub(super) async fn check(dataset: Dataset, manifest: &Manifest) -> Result<(), EngineError> {
    let record = &manifest.record;
    let indices = dataset.load_indices().await.map_err(failed("read"))?;
    let elsewhere = !dataset.manifest().base_paths.is_empty()
        || indices.iter().any(|index| index.base_id.is_some())
        || dataset
            .fragments()
            .iter()
            .flat_map(|fragment| &fragment.files)
            .any(|file| file.base_id.is_some() || !is_plain(&file.path));
    if elsewhere {
        return Err(bad("refers to files that are not in it"));
    }
    let schema = Schema::from(dataset.schema());
    for field in schema.fields() {
        if field.name() == VECTOR {
            if field.data_type() != vector_field(record.dimension).data_type() {
                return Err(bad(format!("has vectors of another length than {}", record.dimension)));
            }
        } else {
            check_column(field.name(), field.data_type()).map_err(bad)?;
        }
        if !field.metadata().is_empty() {
            return Err(bad(format!("has a column {:?} of a special kind", field.name())));
        }
    }
    let rows = dataset.count_rows(None).await.map_err(failed("count"))? as u64;
    if rows != manifest.rows {
        return Err(bad(format!(
            "has {rows} rows where its manifest says {}",
            manifest.rows
        )));
    }
    let indexed = indices.iter().any(|index| index.name == INDEX);
    if indexed != (record.partitions > 0) {
        return Err(bad(
            "has an index where its manifest says none, or none where it says one",
        ));
    }
    if rows == 0 {
        return Ok(());
    }
    let columns = schema.fields().iter().map(|field| field.name().clone()).collect();
    let mut embedding = vec![0.0; record.dimension];
    if let Some(first) = embedding.first_mut() {
        *first = 1.0;
    }
    let nearest = Nearest {
        embedding,
        limit: 1,
        columns,
        filter: None,
        nprobes: 1,
        refine: 1,
        use_index: indexed,
    };
    let found = find(&Arc::new(dataset), &nearest).await?;
    if found.rows == 1 {
        Ok(())
    } else {
        Err(bad("has an index that does not fit its rows"))
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
