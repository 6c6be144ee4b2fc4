//! Tables that come from a backup or a seed: written into a directory that belongs to no database yet, and shown to be good
//! before it does.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use arrow::datatypes::Schema;
use lance::Dataset;
use parking_lot::Mutex;

use super::super::error::EngineError;
use super::super::files::remove;
use super::super::registry::Engines;
use super::archive::{Manifest, check, read_manifest};
use super::layout::{self, Layout, Name, Record};
use super::memory_rows;
use super::unpack::{self, bad};

/// A directory of vectors that is being filled. It is removed when it is dropped, unless it was
/// [kept](Self::keep) or has become a database's own.
#[derive(Debug)]
pub struct IncomingVectors {
    layout: Layout,
    tables: Mutex<Vec<(Name, Manifest)>>,
    kept: AtomicBool,
}

impl IncomingVectors {
    /// Nothing is in it, and nothing is on the volume yet.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self {
            layout: Layout::new(directory),
            tables: Mutex::default(),
            kept: AtomicBool::new(false),
        }
    }

    /// Reads a table from a tar, which may unpack to at most `max_bytes`. Blocks.
    ///
    /// # Errors
    /// `Invalid` if it is not a table of vectors; files may be there then.
    pub fn receive(&self, name: &Name, tar: impl Read, max_bytes: u64) -> Result<(), EngineError> {
        // A name of its own: one that the engine has open under another name is another one's.
        let generation = Record::new(0).generation;
        let directory = self.layout.generation(name, &generation);
        let mut manifest = read_manifest(&unpack::unpack(tar, &directory, max_bytes, || false)?)?;
        manifest.record.generation = generation;
        layout::sync(&directory, SystemTime::UNIX_EPOCH)?;
        self.layout.write(name, &manifest.record)?;
        self.tables.lock().push((name.clone(), manifest));
        Ok(())
    }

    /// Where the tables are, if there are any.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        (!self.tables.lock().is_empty()).then(|| self.layout.directory())
    }

    /// Lets it stay where it is.
    pub fn keep(&self) {
        self.kept.store(true, Ordering::Release);
    }
}

impl Drop for IncomingVectors {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Acquire)
            && let Err(error) = remove(self.layout.directory())
        {
            tracing::warn!(%error, "vectors that did not arrive are removed at the next start");
        }
    }
}

impl Engines {
    /// Opens the tables that came in, and counts and searches them.
    ///
    /// # Errors
    /// `Invalid` if one is not what it says, refers to other files, or is no memory where it is to be one.
    pub async fn examine_vectors(&self, incoming: &IncomingVectors) -> Result<(), EngineError> {
        let tables = incoming.tables.lock().clone();
        for (name, manifest) in tables {
            let directory = incoming.layout.generation(&name, &manifest.record.generation);
            let dataset = self.inner.lance.open(directory).await;
            let dataset = dataset.map_err(|error| bad(format!("does not hold {name}: {error}")))?;
            let checking = async move {
                if name == Name::Memory {
                    check_memory(&dataset)?;
                }
                let checked = check(dataset, &manifest).await;
                checked.map_err(|error| bad(format!("does not hold {name}: {error}")))
            };
            self.inner.lance.pool.run(checking).await?;
        }
        Ok(())
    }
}

/// Shows that a table has the columns of a memory: what reads it counts on them.
fn check_memory(dataset: &Dataset) -> Result<(), EngineError> {
    let (found, expected) = (Schema::from(dataset.schema()), memory_rows::schema());
    let same = found.fields().len() == expected.fields().len()
        && (found.fields().iter().zip(expected.fields()))
            .all(|(found, expected)| found.name() == expected.name() && found.data_type() == expected.data_type());
    match same {
        true => Ok(()),
        false => Err(bad("does not hold the semantic memory: it has other columns")),
    }
}
