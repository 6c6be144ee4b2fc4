//! Promoting: the database `<id>-wip`, which a client has made and filled, becomes the database `<id>`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::error::EngineError;
use super::exchange::{Arrival, GRACE};
use super::lifecycle::DeleteScope;
use super::names::DatabaseId;
use super::registry::{CLOSE_PATIENCE, Engines, Slot, close_staging, retire_graph};
use super::swap::Beside;

/// How the id ends of a database that is to take the place of another one.
const SUCCESSOR: &str = "-wip";

impl DatabaseId {
    /// The id of the database that is to take the place of this one.
    ///
    /// # Errors
    /// `Invalid` if this id is one already, or too long.
    pub fn successor(&self) -> Result<Self, EngineError> {
        if self.predecessor().is_some() {
            return Err(EngineError::invalid(
                "graph_id",
                format!("{self} is itself to take another's place; name the graph without {SUCCESSOR}"),
            ));
        }
        Self::parse(&format!("{self}{SUCCESSOR}"))
    }

    /// The id of the database whose place this one is to take, if it is made for that.
    #[must_use]
    pub fn predecessor(&self) -> Option<Self> {
        let id = self.as_str().strip_suffix(SUCCESSOR)?;
        Self::parse(id).ok()
    }
}

impl Engines {
    /// Puts the successor in the place of a database, which may be absent. The staging tables and the vectors of the
    /// database stay, those of the successor go with its id. Statements that come meanwhile wait; those that run have some seconds, and are
    /// interrupted then. Goes on when the caller stops waiting.
    ///
    /// # Errors
    /// `NotFound` if there is no successor; `Busy` if one of the two cannot be closed. Both are as they were then.
    pub async fn promote(&self, id: &DatabaseId) -> Result<(), EngineError> {
        let successor = self.existing(&id.successor()?)?;
        let (engines, id) = (self.clone(), id.clone());
        let (slot, is_new) = match engines.existing(&id) {
            Ok(slot) => (slot, false),
            Err(_) => (engines.claim(&id)?, true),
        };
        tokio::spawn(async move {
            let _gate = slot.gate.lock().await;
            let promoted = match is_new {
                true => Ok(()),
                false => engines.inner.still_there(&slot),
            };
            let promoted = match promoted {
                Ok(()) => engines.take_over(&slot, &successor).await,
                Err(error) => Err(error),
            };
            if is_new {
                engines.settle(&slot, promoted.is_ok());
            }
            promoted
        })
        .await
        .unwrap_or_else(|error| Err(EngineError::internal(format!("the exchange ended: {error}"))))
    }

    async fn take_over(&self, slot: &Slot, successor: &Arc<Slot>) -> Result<(), EngineError> {
        let _gate = successor.gate.lock().await;
        self.inner.still_there(successor)?;
        // From here on nobody finds it under its own id.
        successor.deleted.store(true, Ordering::Release);
        let arrival = Arrival {
            graph: self.inner.files.graph(&successor.id),
            staging: Beside::Kept,
            vectors: Beside::Kept,
        };
        let exchanged = async {
            retire_graph(successor, GRACE).await?;
            close_staging(successor, CLOSE_PATIENCE).await?;
            retire_graph(slot, GRACE).await?;
            self.exchange(slot, arrival).await
        }
        .await;
        if exchanged.is_ok() {
            // Its data file has the other name now; what lies beside belongs to nothing.
            if let Err(error) = self.remove_files(&successor.id, DeleteScope::Everything, true).await {
                tracing::warn!(%error, database = %successor.id, "side files are removed at the next start");
            }
            self.inner.slots.write().remove(&successor.id);
        } else {
            let is_there = self.inner.files.graph(&successor.id).is_file();
            successor.deleted.store(!is_there, Ordering::Release);
        }
        exchanged
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_successor_knows_its_predecessor() {
        let id = DatabaseId::parse("kg1_dev").unwrap();
        let successor = id.successor().unwrap();
        assert_eq!(successor.as_str(), "kg1_dev-wip");
        assert_eq!(successor.predecessor(), Some(id.clone()));
        assert_eq!(id.predecessor(), None);
        successor.successor().unwrap_err();
        DatabaseId::parse(&"x".repeat(62)).unwrap().successor().unwrap_err();
    }
}
