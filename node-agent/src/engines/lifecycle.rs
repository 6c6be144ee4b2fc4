//! Making and removing databases. A database exists when its data file has its final name, and is gone when that file
//! is gone; everything before and after is invisible.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::error::EngineError;
use super::exchange::closing;
use super::files::{Files, check_whole, remove};
use super::ladybug::Database;
use super::ladybug::snapshot::sync_parent;
use super::names::DatabaseId;
use super::registry::{CLOSE_PATIENCE, Engines, Slot, close_graph, close_staging, not_found};
use super::schemas::BaseSchema;

const SCHEMA_TIMEOUT: Duration = Duration::from_secs(60);

/// A database that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Schema statements that ran.
    pub statements: usize,
    /// Its file.
    pub path: PathBuf,
}

/// What to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteScope {
    /// The graph, its staging tables and its vectors.
    Everything,
    /// The graph; its staging tables and its vectors stay, for building it anew.
    KeepStaging,
    /// The staging tables; the graph and its vectors stay.
    StagingOnly,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// False if there was nothing to remove.
    pub existed: bool,
    /// Names of the files that are gone.
    pub removed: Vec<String>,
    /// Names of files that could not be removed, with the reason.
    pub failed: Vec<String>,
}

/// Runs the schema's scripts, and lets go of the database.
async fn fill(database: Database, schema: &BaseSchema) -> Result<usize, EngineError> {
    let mut statements = 0;
    for script in schema.scripts() {
        let outcome = database.apply_ddl(&script.ddl, SCHEMA_TIMEOUT).await;
        statements += outcome.map_err(|failure| script.explain(failure))?.statements;
    }
    database.checkpoint(SCHEMA_TIMEOUT).await?;
    Ok(statements)
}

impl Engines {
    /// Makes a database with a schema. If anything fails, nothing of it stays.
    ///
    /// # Errors
    /// `AlreadyExists`; `Capacity` if the node is full; the statement of the schema that is wrong.
    pub async fn create(&self, id: &DatabaseId, schema: &BaseSchema) -> Result<Created, EngineError> {
        if self.inner.read_only {
            return Err(EngineError::ReadOnly {
                message: "this node only reads; databases are made on writers".into(),
            });
        }
        let slot = self.claim(id)?;
        // Nobody can find the slot before the gate opens: it is marked as deleted until the database is there.
        let _gate = slot.gate.lock().await;
        let creating = self.inner.files.creating(id);
        let made = self.make(id, &creating, schema).await;
        self.settle(&slot, made.is_ok());
        if made.is_err()
            && let Err(error) = Files::remove_beginning_with(&creating)
        {
            tracing::warn!(%error, "files of a failed create are removed at the next start");
        }
        made
    }

    /// Takes the id and a place on the node.
    pub(crate) fn claim(&self, id: &DatabaseId) -> Result<Arc<Slot>, EngineError> {
        let limit = self.inner.limits().max_databases;
        let mut slots = self.inner.slots.write();
        if slots.contains_key(id) {
            return Err(EngineError::AlreadyExists {
                what: "database",
                name: id.to_string(),
            });
        }
        if slots.len() >= limit {
            return Err(EngineError::Capacity {
                message: format!("Maximum database capacity reached ({limit})"),
            });
        }
        let slot = Slot::new(id.clone(), &self.inner.files);
        slot.deleted.store(true, Ordering::Release);
        slots.insert(id.clone(), Arc::clone(&slot));
        Ok(slot)
    }

    async fn make(&self, id: &DatabaseId, creating: &Path, schema: &BaseSchema) -> Result<Created, EngineError> {
        let open = self.inner.open_graph(id, creating.to_owned()).await?;
        let statements = closing(open, |database| fill(database, schema)).await?;
        let path = self.publish(id, creating).await?;
        Ok(Created { statements, path })
    }

    /// Gives a file that is complete and closed the name of the database. What had the name before is replaced.
    pub(crate) async fn publish(&self, id: &DatabaseId, creating: &Path) -> Result<PathBuf, EngineError> {
        let (files, id, creating) = (self.inner.files.clone(), id.clone(), creating.to_owned());
        tokio::task::spawn_blocking(move || {
            check_whole(&creating)?;
            let path = files.graph(&id);
            // A side file of an earlier database of this name would be taken for this one's.
            files.remove_side_files(&id)?;
            std::fs::rename(&creating, &path).map_err(|error| EngineError::io("rename", &creating, error))?;
            sync_parent(&path).map_err(|error| EngineError::io("sync", &path, error))?;
            Files::remove_beginning_with(&creating)?;
            Ok(path)
        })
        .await
        .unwrap_or_else(|error| Err(EngineError::internal(format!("the creating thread ended: {error}"))))
    }

    /// Removes a database with all its side files. Running statements are interrupted.
    ///
    /// # Errors
    /// `Busy` if they do not end within ten seconds; nothing is removed then.
    pub async fn delete(&self, id: &DatabaseId, scope: DeleteScope) -> Result<Deleted, EngineError> {
        if self.inner.read_only {
            return Err(EngineError::ReadOnly {
                message: "this node only reads; databases are removed on writers".into(),
            });
        }
        let slot = self.inner.slots.read().get(id).cloned();
        let Some(slot) = slot else {
            // Remove stray files too, so that a repeated delete ends what a first one began.
            return self.remove_files(id, scope, false).await;
        };
        let _gate = slot.gate.lock().await;
        if !slot.exists() {
            return Err(not_found(id));
        }
        let graph = scope != DeleteScope::StagingOnly;
        slot.deleted.store(graph, Ordering::Release);
        let closed = async {
            if graph {
                // First: a build of vectors reads the graph or its staging.
                self.inner.lance.close(id, CLOSE_PATIENCE).await?;
                close_graph(&slot, CLOSE_PATIENCE).await?;
            }
            // Staging that stays is closed as well: it cannot be reached without its graph.
            close_staging(&slot, CLOSE_PATIENCE).await
        };
        if let Err(error) = closed.await {
            slot.deleted.store(false, Ordering::Release);
            return Err(error);
        }
        let deleted = self.remove_files(id, scope, true).await;
        if graph {
            self.inner.slots.write().remove(id);
        }
        deleted
    }

    pub(crate) async fn remove_files(
        &self,
        id: &DatabaseId,
        scope: DeleteScope,
        existed: bool,
    ) -> Result<Deleted, EngineError> {
        let (files, id) = (self.inner.files.clone(), id.clone());
        let vectors = files.vectors(&id);
        tokio::task::spawn_blocking(move || {
            let kept = files.kept(&id);
            match scope {
                // First: without their graph, the next start would take them for what a crash left.
                DeleteScope::KeepStaging if existed && (files.staging(&id).exists() || vectors.exists()) => {
                    File::create(&kept).map_err(|error| EngineError::io("create", &kept, error))?;
                    sync_parent(&kept).map_err(|error| EngineError::io("sync", &kept, error))?;
                }
                DeleteScope::Everything => remove(&kept)?,
                _ => {}
            }
            let mut paths = Vec::new();
            if scope != DeleteScope::StagingOnly {
                paths.extend(files.of_graph(&id)?);
            }
            if scope != DeleteScope::KeepStaging {
                paths.extend(files.of_staging(&id)?);
            }
            // A graph that is built anew from its staging finds its vectors and its memory again.
            if scope == DeleteScope::Everything {
                let kept = files.replaced().join(id.as_str());
                paths.extend([vectors, kept].into_iter().filter(|path| path.exists()));
            }
            let mut deleted = Deleted {
                existed,
                ..Deleted::default()
            };
            for path in paths {
                let name = path
                    .file_name()
                    .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
                match remove(&path) {
                    Ok(()) => deleted.removed.push(name),
                    Err(error) => deleted.failed.push(format!("{name}: {error}")),
                }
            }
            if let Err(error) = sync_parent(&files.graph(&id)) {
                tracing::warn!(%error, "the directory of databases could not be synced");
            }
            Ok(deleted)
        })
        .await
        .unwrap_or_else(|error| Err(EngineError::internal(format!("the deleting thread ended: {error}"))))
    }
}
