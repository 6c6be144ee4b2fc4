//! Forking: a new database that begins as a copy of another one. It takes its place with a journal, as what is restored
//! does, so a fork that is cut off leaves nothing behind.

use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::error::EngineError;
use super::exchange::{Arrival, blocking, closing};
use super::files::{Files, remove};
use super::ladybug::schema::run_script;
use super::ladybug::{Database, GraphCounts, TableInfo, TableKind};
use super::lance::VectorsName;
use super::names::{DatabaseId, TableName, cypher_identifier};
use super::registry::{CLOSE_PATIENCE, Engines, close_graph};
use super::swap::{Beside, Swap};

/// What to fork.
#[derive(Clone, Debug)]
pub struct ForkRequest {
    /// The database that is copied.
    pub parent: DatabaseId,
    /// The database that is made. One that is there already is replaced if it has nothing of its own: no rows, and no
    /// tables that the parent does not have.
    pub id: DatabaseId,
    /// The tables that the fork has; empty for all. A relationship table needs the tables of its ends.
    pub tables: Vec<TableName>,
    /// Whether the fork has the parent's vectors; where only some tables are wanted, those of the same names.
    pub vectors: bool,
    /// Whether it has the parent's semantic memory.
    pub memory: bool,
    /// How long to wait for writes of the parent that are under way.
    pub timeout: Duration,
}

/// A database that was forked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forked {
    /// Its file.
    pub path: PathBuf,
    /// Its rows, table by table.
    pub counts: GraphCounts,
    /// The tables of vectors that were copied.
    pub vectors: Vec<VectorsName>,
}

/// What becomes the fork, until it is one; removed when this is dropped.
struct Made {
    graph: PathBuf,
    vectors: PathBuf,
}

impl Drop for Made {
    fn drop(&mut self) {
        for removed in [Files::remove_beginning_with(&self.graph), remove(&self.vectors)] {
            if let Err(error) = removed {
                tracing::warn!(%error, "files of a fork are removed at the next start");
            }
        }
    }
}

impl ForkRequest {
    fn wants(&self, name: &VectorsName) -> bool {
        match name {
            VectorsName::Memory => self.memory,
            VectorsName::Index(table) => {
                let named = |wanted: &TableName| wanted.as_str().eq_ignore_ascii_case(table.as_str());
                self.vectors && (self.tables.is_empty() || self.tables.iter().any(named))
            }
        }
    }
}

impl Engines {
    /// Copies a database as it is now, with everything that was committed before. Readers of the parent go on, writers
    /// wait for the copy. Let it run to its end; `cancel` stops it, and nothing stays then.
    ///
    /// # Errors
    /// `NotFound` if there is no parent; `AlreadyExists` if the target has something of its own; `Invalid` if the
    /// tables cannot stand alone; `Busy` if writes of the parent take longer than the time limit.
    pub async fn fork(&self, request: &ForkRequest, cancel: &CancellationToken) -> Result<Forked, EngineError> {
        let parent = self.database(&request.parent).await?;
        let schema = parent.schema().await?;
        surplus(&schema, &request.tables)?;
        let made = Made {
            graph: self.inner.files.creating(&request.id),
            vectors: self.inner.files.creating_vectors(&request.id),
        };
        let path = self.inner.files.graph(&request.id);
        let (counts, vectors) = match self.claim(&request.id) {
            // Held until the database is there, like that of any database that is being made.
            Ok(slot) => {
                let _gate = slot.gate.lock().await;
                let copied = async {
                    let copied = self.copy(parent, request, &made, cancel).await?;
                    self.put_in_place(&request.id, &made).await?;
                    Ok::<_, EngineError>(copied)
                }
                .await;
                self.settle(&slot, copied.is_ok());
                copied?
            }
            Err(EngineError::AlreadyExists { .. }) => {
                self.check_replaceable(request).await?;
                let copied = self.copy(parent, request, &made, cancel).await?;
                self.replace_empty(&request.id, &made, &schema).await?;
                copied
            }
            Err(error) => return Err(error),
        };
        Ok(Forked { path, counts, vectors })
    }

    /// Whether a fork may take the place of the target: it is absent, or has nothing of its own.
    ///
    /// # Errors
    /// As [`fork`](Self::fork).
    pub async fn check_replaceable(&self, request: &ForkRequest) -> Result<(), EngineError> {
        if !self.contains(&request.id) {
            return Ok(());
        }
        let schema = self.database(&request.parent).await?.schema().await?;
        if !self.vectors(&request.id)?.names().await?.is_empty() {
            return Err(own_content(&request.id));
        }
        nothing_of_its_own(self.database(&request.id).await?, &schema).await
    }

    /// Writes the copy, and takes what is not wanted out of it.
    async fn copy(
        &self,
        parent: Database,
        request: &ForkRequest,
        made: &Made,
        cancel: &CancellationToken,
    ) -> Result<(GraphCounts, Vec<VectorsName>), EngineError> {
        let counts = parent.copy_to(&made.graph, request.timeout, cancel).await?;
        drop(parent);
        let mut names = self.vectors(&request.parent)?.names().await?;
        names.retain(|name| request.wants(name));
        let copies = self.copy_vectors(&request.parent, &made.vectors, names).await?;
        let vectors = copies.iter().map(|copy| copy.name().clone()).collect();
        if request.tables.is_empty() {
            return Ok((counts, vectors));
        }
        let open = self.inner.open_graph(&request.id, made.graph.clone()).await?;
        let counts = closing(open, |copy| keep_only(copy, &request.tables, request.timeout)).await?;
        Ok((counts, vectors))
    }

    /// Makes the copy a database. Vectors that a deleted one of its id has left make way, but not before the fork is there:
    /// they may have been left for a graph that is made anew.
    async fn put_in_place(&self, id: &DatabaseId, made: &Made) -> Result<(), EngineError> {
        let (files, id, graph) = (self.inner.files.clone(), id.clone(), made.graph.clone());
        let vectors = match made.vectors.exists() {
            true => Beside::New(made.vectors.clone()),
            false => Beside::Gone,
        };
        blocking(move || {
            let swap = Swap::plan(&files, &id, &graph, &Beside::Kept, &vectors)?;
            let placed = swap.exchange().and_then(|()| swap.commit());
            if placed.is_err() {
                swap.undo()?;
            }
            placed
        })
        .await
    }

    /// Puts the copy in the place of a database that has nothing of its own. It is asked once more when nobody can write
    /// to it any more.
    async fn replace_empty(&self, id: &DatabaseId, made: &Made, schema: &[TableInfo]) -> Result<(), EngineError> {
        let slot = self.existing(id)?;
        let _gate = slot.gate.lock().await;
        self.inner.still_there(&slot)?;
        let _emptied = self.empty_vectors(&slot).await?;
        let layout = slot.vectors.home().layout().clone();
        if !blocking(move || layout.names()).await?.is_empty() {
            return Err(own_content(id));
        }
        close_graph(&slot, CLOSE_PATIENCE).await?;
        let open = self.inner.open_graph(id, self.inner.files.graph(id)).await?;
        closing(open, |old| nothing_of_its_own(old, schema)).await?;
        let arrival = Arrival {
            graph: made.graph.clone(),
            staging: Beside::Kept,
            vectors: match made.vectors.exists() {
                true => Beside::New(made.vectors.clone()),
                false => Beside::Kept,
            },
        };
        self.exchange(&slot, arrival).await
    }
}

/// Drops all other tables, in one transaction.
async fn keep_only(copy: Database, tables: &[TableName], timeout: Duration) -> Result<GraphCounts, EngineError> {
    let drops = surplus(&copy.schema().await?, tables)?;
    copy.on_writer(timeout, move |session, job| {
        run_script(session, job, &drops).map_err(|failure| failure.error)
    })
    .await?;
    copy.checkpoint(timeout).await?;
    copy.counts().await
}

async fn nothing_of_its_own(database: Database, parent: &[TableInfo]) -> Result<(), EngineError> {
    let counts = database.counts().await?;
    let known = |name: &str| parent.iter().any(|table| table.name.eq_ignore_ascii_case(name));
    if counts.tables.iter().all(|(name, rows)| *rows == 0 && known(name)) {
        return Ok(());
    }
    Err(own_content(database.id()))
}

fn own_content(id: &DatabaseId) -> EngineError {
    EngineError::AlreadyExists {
        what: "a database with content of its own,",
        name: id.to_string(),
    }
}

/// Statements that drop every table but `wanted`, relationships first; none if all are wanted.
fn surplus(schema: &[TableInfo], wanted: &[TableName]) -> Result<Vec<String>, EngineError> {
    let is_wanted = |name: &str| wanted.iter().any(|table| table.as_str().eq_ignore_ascii_case(name));
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let has = |name: &str| schema.iter().any(|table| table.name.eq_ignore_ascii_case(name));
    if let Some(absent) = wanted.iter().find(|table| !has(table.as_str())) {
        return Err(EngineError::invalid(
            "tables",
            format!("the parent has no table {absent}"),
        ));
    }
    for table in schema.iter().filter(|table| is_wanted(&table.name)) {
        let ends = table.connections.iter().flat_map(|(from, to)| [from, to]);
        if let Some(end) = ends.into_iter().find(|end| !is_wanted(end)) {
            return Err(EngineError::invalid(
                "tables",
                format!("{} connects nodes of {end}, which has to be listed too", table.name),
            ));
        }
    }
    let of = |kind| schema.iter().filter(move |table| table.kind == kind);
    Ok(of(TableKind::Relationship)
        .chain(of(TableKind::Node))
        .filter(|table| !is_wanted(&table.name))
        .map(|table| format!("DROP TABLE {}", cypher_identifier(&table.name)))
        .collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn table(name: &str, connections: &[(&str, &str)]) -> TableInfo {
        TableInfo {
            id: 0,
            name: name.into(),
            kind: if connections.is_empty() {
                TableKind::Node
            } else {
                TableKind::Relationship
            },
            comment: String::new(),
            properties: Vec::new(),
            connections: connections.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect(),
        }
    }

    #[test]
    fn vectors_come_along_as_they_are_asked_for() {
        let request = |tables: &[&str], vectors, memory| ForkRequest {
            parent: "kg1".parse().unwrap(),
            id: "kg1_dev".parse().unwrap(),
            tables: tables.iter().map(|name| name.parse().unwrap()).collect(),
            vectors,
            memory,
            timeout: Duration::ZERO,
        };
        let element = VectorsName::Index("Element".parse().unwrap());
        for (request, wanted) in [
            (request(&[], true, false), (true, false)),
            (request(&["element"], true, true), (true, true)),
            (request(&["Other"], true, false), (false, false)),
            (request(&["Element"], false, true), (false, true)),
        ] {
            let wants = (request.wants(&element), request.wants(&VectorsName::Memory));
            assert_eq!(wants, wanted, "{request:?}");
        }
    }

    #[test]
    fn what_is_not_wanted_goes_relationships_first() {
        let schema = [table("A", &[]), table("B", &[]), table("R", &[("A", "A"), ("A", "B")])];
        let drops = |names: &[&str]| {
            let names: Vec<TableName> = names.iter().map(|name| name.parse().unwrap()).collect();
            surplus(&schema, &names)
        };
        assert_eq!(drops(&[]).unwrap(), Vec::<String>::new());
        assert_eq!(drops(&["a"]).unwrap(), ["DROP TABLE `R`", "DROP TABLE `B`"]);
        assert_eq!(drops(&["A", "B", "R"]).unwrap(), Vec::<String>::new());
        for (names, why) in [(&["A", "R"][..], "nodes of B"), (&["C"], "no table C")] {
            let error = drops(names).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
