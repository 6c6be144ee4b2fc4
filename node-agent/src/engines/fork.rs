//! Forking: a new database that begins as a copy of another one. As with every database, it exists when its file has
//! its final name, so a fork that is cut off leaves nothing behind.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::error::EngineError;
use super::exchange::{Arrival, closing};
use super::files::Files;
use super::ladybug::schema::run_script;
use super::ladybug::{Database, GraphCounts, TableInfo, TableKind};
use super::names::{DatabaseId, TableName, cypher_identifier};
use super::registry::{CLOSE_PATIENCE, Engines, close_graph};
use super::swap::NewStaging;

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
        let creating = self.inner.files.creating(&request.id);
        let forked = match self.claim(&request.id) {
            // Held until the database is there, like that of any database that is being made.
            Ok(slot) => {
                let _gate = slot.gate.lock().await;
                let made = async {
                    let counts = self.copy(parent, request, &creating, cancel).await?;
                    let path = self.publish(&request.id, &creating).await?;
                    Ok(Forked { path, counts })
                }
                .await;
                self.settle(&slot, made.is_ok());
                made
            }
            Err(EngineError::AlreadyExists { .. }) => {
                self.check_replaceable(request).await?;
                match self.copy(parent, request, &creating, cancel).await {
                    Ok(counts) => self
                        .replace_empty(&request.id, &creating, &schema)
                        .await
                        .map(|path| Forked { path, counts }),
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        if forked.is_err()
            && let Err(error) = Files::remove_beginning_with(&creating)
        {
            tracing::warn!(%error, "files of a failed fork are removed at the next start");
        }
        forked
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
        nothing_of_its_own(self.database(&request.id).await?, &schema).await
    }

    /// Writes the copy, and takes what is not wanted out of it.
    async fn copy(
        &self,
        parent: Database,
        request: &ForkRequest,
        creating: &Path,
        cancel: &CancellationToken,
    ) -> Result<GraphCounts, EngineError> {
        let counts = parent.copy_to(creating, request.timeout, cancel).await?;
        drop(parent);
        if request.tables.is_empty() {
            return Ok(counts);
        }
        let open = self.inner.open_graph(&request.id, creating.to_owned()).await?;
        closing(open, |copy| keep_only(copy, &request.tables, request.timeout)).await
    }

    /// Puts the copy in the place of a database that has nothing of its own. It is asked once more when nobody can write
    /// to it any more.
    async fn replace_empty(
        &self,
        id: &DatabaseId,
        creating: &Path,
        schema: &[TableInfo],
    ) -> Result<PathBuf, EngineError> {
        let slot = self.existing(id)?;
        let _gate = slot.gate.lock().await;
        self.inner.still_there(&slot)?;
        close_graph(&slot, CLOSE_PATIENCE).await?;
        let path = self.inner.files.graph(id);
        let open = self.inner.open_graph(id, path.clone()).await?;
        closing(open, |old| nothing_of_its_own(old, schema)).await?;
        let arrival = Arrival {
            graph: creating.to_owned(),
            staging: NewStaging::Kept,
        };
        self.exchange(&slot, arrival).await?;
        Ok(path)
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
    Err(EngineError::AlreadyExists {
        what: "a database with content of its own,",
        name: database.id().to_string(),
    })
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
