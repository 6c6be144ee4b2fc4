//! Rebuilding: a graph made anew from its staging tables, beside the old one, which serves until the new one takes its
//! place.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::duckdb::{Staging, StagingTable};
use super::error::EngineError;
use super::exchange::{Arrival, GRACE, closing};
use super::files::Files;
use super::ladybug::open::OpenOptions;
use super::ladybug::{Database, GraphCounts, OpenDatabase, TableInfo, TableKind};
use super::materialize::{MaterializeReport, MaterializeRequest, Progress, ProgressUpdate};
use super::names::{DatabaseId, TableName};
use super::portable::Definitions;
use super::registry::{Engines, Slot, retire_graph};
use super::swap::Beside;

const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(60);
/// The smallest buffer pool for the new graph, while the old one has its own.
const SMALLEST_POOL: u64 = 64 << 20;

/// A graph that was rebuilt.
#[derive(Clone, Debug, PartialEq)]
pub struct Rebuilt {
    /// Its file.
    pub path: PathBuf,
    /// What became of each staging table, nodes first.
    pub reports: Vec<MaterializeReport>,
}

impl Engines {
    /// Makes a graph anew: the same tables, filled from staging alone. The old graph is read meanwhile and cannot be
    /// changed; it stays if anything fails. Statements that come while the new one takes its place wait. Let it run to its
    /// end; `cancel` stops it.
    ///
    /// # Errors
    /// `Invalid` if the graph has what staging cannot bring back; what materialising says.
    pub async fn rebuild(
        &self,
        id: &DatabaseId,
        timeout: Duration,
        progress: Progress,
        cancel: &CancellationToken,
    ) -> Result<Rebuilt, EngineError> {
        // The slot of now: a database of this id that is made later is another one.
        let slot = self.existing(id)?;
        let _held = HeldWrites::begin(&slot)?;
        let copy = self.inner.files.creating(id);
        let looked = self.look_over(id, &copy, timeout, cancel).await;
        discard(&copy);
        let (definitions, counts) = looked?;
        check_numbers(&definitions.tables, &counts)?;
        let staging = self.staging(id).await?;
        let requests = requests(&definitions.tables, &counts, &staging.tables().await?, timeout)?;
        let creating = self.inner.files.creating(id);
        let built = async {
            let open = self.open_beside(id, &creating).await?;
            let filling = |new| fill(new, definitions, staging, requests, progress, cancel.clone());
            let reports = closing(open, filling).await?;
            if cancel.is_cancelled() {
                return Err(EngineError::Cancelled);
            }
            let _gate = slot.gate.lock().await;
            self.inner.still_there(&slot)?;
            retire_graph(&slot, GRACE).await?;
            let arrival = Arrival {
                graph: creating.clone(),
                staging: Beside::Kept,
                vectors: Beside::Kept,
            };
            self.exchange(&slot, arrival).await?;
            let path = self.inner.files.graph(id);
            Ok(Rebuilt { path, reports })
        }
        .await;
        discard(&creating);
        built
    }

    /// What makes the graph's tables again, and how many rows they have. The engine tells only while tables are changed, so
    /// that is done in a copy; once the copy is made, nothing is written any more.
    async fn look_over(
        &self,
        id: &DatabaseId,
        copy: &Path,
        timeout: Duration,
        cancel: &CancellationToken,
    ) -> Result<(Definitions, GraphCounts), EngineError> {
        let counts = self.database(id).await?.copy_to(copy, timeout, cancel).await?;
        // Goes with the copy.
        let directory = PathBuf::from(format!("{}.schema", copy.display()));
        let definitions = self.definitions(id, copy, &directory, cancel).await?;
        Ok((definitions, counts))
    }

    /// Opens a file with as much of the usual memory as can be had beside the old graph.
    pub(crate) async fn open_beside(&self, id: &DatabaseId, path: &Path) -> Result<Arc<OpenDatabase>, EngineError> {
        let limits = self.inner.limits();
        let mut pool_bytes = limits.database_memory;
        let memory = loop {
            match self.inner.reserve(pool_bytes, id).await {
                Ok(memory) => break memory,
                Err(_) if pool_bytes / 2 >= SMALLEST_POOL => pool_bytes /= 2,
                Err(error) => return Err(error),
            }
        };
        let options = OpenOptions {
            pool_bytes,
            unseen: true,
            ..self.inner.open_options(id, path.to_owned(), &limits)
        };
        OpenDatabase::open(options, memory).await.map(Arc::new)
    }
}

/// As long as it lives, statements of callers do not change the graph.
struct HeldWrites(Arc<Slot>);

impl HeldWrites {
    fn begin(slot: &Arc<Slot>) -> Result<Self, EngineError> {
        if slot.writes_held.swap(true, Ordering::AcqRel) {
            return Err(EngineError::Busy {
                reason: format!("database {} is being rebuilt already", slot.id),
                retry_after: Duration::from_secs(30),
            });
        }
        Ok(Self(Arc::clone(slot)))
    }
}

impl Drop for HeldWrites {
    fn drop(&mut self) {
        self.0.writes_held.store(false, Ordering::Release);
    }
}

/// Removes what was made on the way, with all that lies beside it.
fn discard(path: &Path) {
    if let Err(error) = Files::remove_beginning_with(path) {
        tracing::warn!(%error, "files of a rebuild are removed at the next start");
    }
}

async fn fill(
    new: Database,
    definitions: Definitions,
    staging: Staging,
    requests: Vec<MaterializeRequest>,
    progress: Progress,
    cancel: CancellationToken,
) -> Result<Vec<MaterializeReport>, EngineError> {
    definitions.make(&new, &cancel).await?;
    let done = Arc::new(AtomicU64::new(0));
    let mut reports = Vec::new();
    for request in requests {
        let progress = after(&done, &progress);
        let report = new
            .materialize(&staging, request, progress, cancel.clone())
            .await
            .map_err(whole)?;
        done.fetch_add(report.rows_ingested, Ordering::Relaxed);
        reports.push(report);
    }
    new.checkpoint(CHECKPOINT_TIMEOUT).await?;
    Ok(reports)
}

/// Rows of a graph that is given up are not "written before".
fn whole(error: EngineError) -> EngineError {
    match error {
        EngineError::Partial { source, .. } => *source,
        error => error,
    }
}

/// The same progress, counted from what other tables have brought.
fn after(done: &Arc<AtomicU64>, progress: &Progress) -> Progress {
    let (done, progress) = (Arc::clone(done), Arc::clone(progress));
    Arc::new(move |update: ProgressUpdate| {
        let before = done.load(Ordering::Relaxed);
        progress(ProgressUpdate {
            rows_done: before + update.rows_done,
            rows_total: before + update.rows_total,
        });
    })
}

/// Refuses to number rows anew: whoever knows them by their numbers would find others.
fn check_numbers(schema: &[TableInfo], counts: &GraphCounts) -> Result<(), EngineError> {
    for (name, rows) in counts.tables.iter().filter(|(_, rows)| *rows > 0) {
        let table = schema.iter().find(|table| table.name == *name);
        let mut properties = table.into_iter().flat_map(|table| &table.properties);
        if let Some(property) = properties.find(|property| property.type_name == "SERIAL") {
            let message = format!(
                "numbers the {rows} rows of {name} (SERIAL), and a rebuild would number them anew: drop the column, or make \
                 the table with an INT64 and stage the numbers"
            );
            return Err(EngineError::invalid(format!("{name}.{}", property.name), message));
        }
    }
    Ok(())
}

/// What to materialise: nodes first, since relationships need them.
fn requests(
    schema: &[TableInfo],
    counts: &GraphCounts,
    staged: &[StagingTable],
    timeout: Duration,
) -> Result<Vec<MaterializeRequest>, EngineError> {
    let is_staged = |name: &str| staged.iter().any(|table| table.name.eq_ignore_ascii_case(name));
    if let Some((lost, rows)) = counts.tables.iter().find(|(name, rows)| *rows > 0 && !is_staged(name)) {
        return Err(EngineError::invalid(
            "tables",
            format!(
                "{lost} has {rows} rows and no staging table, and would be empty: stage its files, or drop the table first"
            ),
        ));
    }
    nodes_first(schema)
        .filter(|table| is_staged(&table.name))
        .map(|table| {
            Ok(MaterializeRequest {
                timeout,
                ..MaterializeRequest::new(TableName::parse(&table.name)?)
            })
        })
        .collect()
}

pub(super) fn nodes_first(schema: &[TableInfo]) -> impl Iterator<Item = &TableInfo> {
    let of = |kind| schema.iter().filter(move |table| table.kind == kind);
    of(TableKind::Node).chain(of(TableKind::Relationship))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engines::{PropertyInfo, StagingKind};

    fn table(name: &str, kind: TableKind) -> TableInfo {
        TableInfo {
            id: 0,
            name: name.into(),
            kind,
            comment: String::new(),
            properties: Vec::new(),
            connections: Vec::new(),
        }
    }

    fn staged(name: &str) -> StagingTable {
        StagingTable {
            name: name.into(),
            rows: 1,
            columns: Vec::new(),
            kind: StagingKind::Other,
            files: Vec::new(),
        }
    }

    #[test]
    fn rows_are_not_numbered_anew() {
        let mut numbered = table("Person", TableKind::Node);
        numbered.properties.push(PropertyInfo {
            name: "id".into(),
            type_name: "SERIAL".into(),
            primary_key: true,
            default: None,
        });
        let schema = [table("Other", TableKind::Node), numbered];
        let counts = |rows| GraphCounts {
            tables: vec![("Other".into(), 5), ("Person".into(), rows)],
            ..GraphCounts::default()
        };
        check_numbers(&schema, &counts(0)).unwrap();
        let error = check_numbers(&schema, &counts(3)).unwrap_err().to_string();
        assert!(error.contains("Person.id") && error.contains("3 rows"), "{error}");
    }

    #[test]
    fn nodes_come_first_and_nothing_is_left_behind() {
        let schema = [
            table("KNOWS", TableKind::Relationship),
            table("Person", TableKind::Node),
        ];
        let counts = |rows: u64| GraphCounts {
            tables: vec![("Person".into(), rows), ("KNOWS".into(), 0)],
            ..GraphCounts::default()
        };
        let names = |rows, staging: &[StagingTable]| {
            let requests = requests(&schema, &counts(rows), staging, CHECKPOINT_TIMEOUT)?;
            Ok::<_, EngineError>(
                requests
                    .iter()
                    .map(|request| request.table.to_string())
                    .collect::<Vec<_>>(),
            )
        };
        let both = [staged("knows"), staged("PERSON"), staged("Other")];
        assert_eq!(names(5, &both).unwrap(), ["Person", "KNOWS"]);
        assert_eq!(names(0, &[]).unwrap(), Vec::<String>::new());
        let error = names(5, &[staged("KNOWS")]).unwrap_err().to_string();
        assert!(error.contains("Person has 5 rows"), "{error}");
    }
}
