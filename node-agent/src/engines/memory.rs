//! More memory for one graph, for a while; and giving back what is not needed now. Everything stays within the node's
//! budget.

use std::time::{Duration, Instant};

use super::config::EngineLimits;
use super::error::EngineError;
use super::exchange::GRACE;
use super::ladybug::Database;
use super::names::DatabaseId;
use super::registry::{CLOSE_PATIENCE, Engines, Inner, Slot, close_graph, close_staging, retire_graph};

/// How many times the usual memory a boost may be.
const MOST: u64 = 4;
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(60);

/// Which engines of a graph are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryTarget {
    /// The graph.
    pub graph: bool,
    /// Its staging tables.
    pub staging: bool,
}

/// Memory that a graph has beyond the usual, in bytes; `None` where it has not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Boosted {
    /// The graph's buffer pool.
    pub graph: Option<u64>,
    /// The limit of its staging tables.
    pub staging: Option<u64>,
}

/// What was closed to give memory back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// The graph, or its log was written into its file.
    pub graph: bool,
    /// The staging tables.
    pub staging: bool,
}

/// A boost as a slot keeps it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Boost {
    memory: Boosted,
    until: Instant,
}

impl Slot {
    /// The boost that holds now.
    pub(crate) fn boosted(&self) -> Boosted {
        let boost = *self.boost.lock();
        boost
            .filter(|boost| Instant::now() < boost.until)
            .map_or_else(Boosted::default, |boost| boost.memory)
    }

    /// True if a boost has ended, and what was opened with it may still be open.
    pub(crate) fn boost_has_ended(&self) -> bool {
        self.boost.lock().is_some_and(|boost| boost.until <= Instant::now())
    }

    pub(crate) fn end_boost(&self) -> Boosted {
        self.boost
            .lock()
            .take()
            .map_or_else(Boosted::default, |boost| boost.memory)
    }
}

impl Engines {
    /// Opens a graph, its staging, or both anew with up to four times the usual memory, for at most `time`. What is left
    /// suffices for another graph. Statements that run have some seconds to end before they are interrupted.
    ///
    /// # Errors
    /// `NotFound`; `Busy` if something does not end in time.
    pub async fn boost_memory(
        &self,
        id: &DatabaseId,
        target: MemoryTarget,
        time: Duration,
    ) -> Result<Boosted, EngineError> {
        let slot = self.existing(id)?;
        {
            let _gate = slot.gate.lock().await;
            self.inner.still_there(&slot)?;
            let wanted = most(target, &self.inner.limits());
            close(&slot, target).await?;
            *slot.boost.lock() = Some(Boost {
                memory: wanted,
                until: Instant::now() + time,
            });
        }
        // Opened at once, so that the answer is what there is.
        let mut got = Boosted::default();
        let usual = self.inner.limits();
        if target.graph {
            let pool = self.database(id).await?.open.options().pool_bytes;
            got.graph = Some(pool).filter(|pool| *pool > usual.database_memory);
        }
        if target.staging {
            let limit = self.staging(id).await?.open.memory_bytes();
            got.staging = Some(limit).filter(|limit| *limit > usual.staging_memory);
        }
        if let Some(boost) = slot.boost.lock().as_mut() {
            boost.memory = got;
        }
        Ok(got)
    }

    /// Ends a boost; what was boosted is opened with the usual memory when it is next used.
    ///
    /// # Errors
    /// `NotFound`; `Busy` if something does not end in time: the boost has ended then for what is opened later.
    pub async fn restore_memory(&self, id: &DatabaseId) -> Result<Boosted, EngineError> {
        let slot = self.existing(id)?;
        let _gate = slot.gate.lock().await;
        self.inner.still_there(&slot)?;
        let was = slot.end_boost();
        let target = MemoryTarget {
            graph: was.graph.is_some(),
            staging: was.staging.is_some(),
        };
        close(&slot, target).await?;
        Ok(was)
    }

    /// Closes what no statement uses, which gives all of its memory back to the system. With `aggressive` off, the graph
    /// stays open and only writes its log into its file.
    ///
    /// # Errors
    /// `NotFound`; what the engine says if it cannot write.
    pub async fn release_memory(
        &self,
        id: &DatabaseId,
        target: MemoryTarget,
        aggressive: bool,
    ) -> Result<Released, EngineError> {
        let slot = self.existing(id)?;
        let mut released = Released::default();
        let open = slot.graph.read().clone().filter(|_| target.graph && !aggressive);
        if let Some(open) = open {
            Database::new(open).checkpoint(CHECKPOINT_TIMEOUT).await?;
            released.graph = true;
        }
        let _gate = slot.gate.lock().await;
        if target.graph && aggressive {
            released.graph = close_graph(&slot, Duration::ZERO).await.unwrap_or(false);
        }
        if target.staging {
            released.staging = close_staging(&slot, Duration::ZERO).await.unwrap_or(false);
        }
        Ok(released)
    }

    /// What a graph has beyond the usual.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn memory_boost(&self, id: &DatabaseId) -> Result<Boosted, EngineError> {
        Ok(self.existing(id)?.boosted())
    }
}

impl Inner {
    /// Gives up boosts whose time is over, at the first moment when what they opened is not in use.
    pub(crate) async fn end_boost(&self, slot: &Slot) {
        if !slot.boost_has_ended() {
            return;
        }
        let Ok(_gate) = slot.gate.try_lock() else { return };
        let graph = close_graph(slot, Duration::ZERO).await;
        let staging = close_staging(slot, Duration::ZERO).await;
        if graph.is_ok() && staging.is_ok() {
            slot.end_boost();
        }
    }
}

async fn close(slot: &Slot, target: MemoryTarget) -> Result<(), EngineError> {
    if target.graph {
        retire_graph(slot, GRACE).await?;
    }
    if target.staging {
        close_staging(slot, CLOSE_PATIENCE).await?;
    }
    Ok(())
}

/// The most that can be given while another graph with its staging still fits into the node.
fn most(target: MemoryTarget, limits: &EngineLimits) -> Boosted {
    let another = limits.database_memory + limits.staging_memory;
    let mut room = limits.node_memory.saturating_sub(another);
    let mut take = |wanted: bool, usual: u64, other: u64| {
        let bytes = (usual * MOST).min(room.saturating_sub(other));
        let given = (wanted && bytes > usual).then_some(bytes);
        room = room.saturating_sub(given.unwrap_or(usual));
        given
    };
    Boosted {
        graph: take(target.graph, limits.database_memory, limits.staging_memory),
        staging: take(target.staging, limits.staging_memory, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_boost_leaves_room_for_another_graph() {
        let both = MemoryTarget {
            graph: true,
            staging: true,
        };
        let limits = |node: u64| EngineLimits {
            node_memory: node * MIB,
            database_memory: 256 * MIB,
            staging_memory: 128 * MIB,
            ..EngineLimits::default()
        };
        for node in [384, 512, 768, 1024, 2048, 16_384] {
            let limits = limits(node);
            let boosted = most(both, &limits);
            let used =
                boosted.graph.unwrap_or(limits.database_memory) + boosted.staging.unwrap_or(limits.staging_memory);
            let is_boosted = boosted != Boosted::default();
            assert!(!is_boosted || used + 384 * MIB <= node * MIB, "{node}: {boosted:?}");
        }
        assert_eq!(most(both, &limits(512)), Boosted::default());
        let plenty = most(both, &limits(16_384));
        assert_eq!((plenty.graph, plenty.staging), (Some(1024 * MIB), Some(512 * MIB)));
        let graph = MemoryTarget { staging: false, ..both };
        assert_eq!(most(graph, &limits(16_384)).staging, None);
    }
}
