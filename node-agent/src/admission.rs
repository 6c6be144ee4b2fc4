//! Whether there is room for one more request: a limit per database with a short queue before it, and memory that must
//! stay free on the machine. The processor is not looked at: a busy machine is slow, not full.

mod memory;

pub use memory::{Memory, MemorySample, sample};

use parking_lot::RwLock;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A refusal to take more work now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Overload {
    /// Too little memory is free.
    #[error("Memory is short: {available_mib} MiB available, {needed_mib} MiB must stay free")]
    Memory {
        /// What is free.
        available_mib: u64,
        /// What must stay free.
        needed_mib: u64,
    },
    /// The queue of the database is full.
    #[error("Too many requests for {database}: {limit} run and {waiting} wait")]
    QueueFull {
        /// The database.
        database: String,
        /// Requests that may run at the same time.
        limit: usize,
        /// Requests that wait.
        waiting: usize,
    },
    /// No place became free in time.
    #[error("Requests for {database} waited longer than {} s for one of {limit} places", .waited.as_secs())]
    QueueTimeout {
        /// The database.
        database: String,
        /// Requests that may run at the same time.
        limit: usize,
        /// How long it waited.
        waited: Duration,
    },
}

impl Overload {
    /// The contract's word for the decision.
    pub fn decision(&self) -> &'static str {
        match self {
            Self::Memory { .. } => "reject_memory",
            Self::QueueFull { .. } | Self::QueueTimeout { .. } => "reject_connections",
        }
    }

    /// The label in the metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Memory { .. } => "memory",
            Self::QueueFull { .. } | Self::QueueTimeout { .. } => "queue",
        }
    }

    /// When to come back.
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::Memory { .. } => Duration::from_secs(5),
            Self::QueueFull { .. } | Self::QueueTimeout { .. } => Duration::from_secs(1),
        }
    }
}

/// A place in a database; given back when dropped.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

struct Gate {
    limit: usize,
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Gate {
    fn running(&self) -> usize {
        self.limit.saturating_sub(self.places.available_permits())
    }
}

/// The gates of all databases, and the memory of the machine.
pub struct Admission {
    gates: RwLock<HashMap<String, Arc<Gate>>>,
    limit: AtomicUsize,
    memory: Memory,
    min_available: u64,
    patience: Duration,
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admission")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl Admission {
    /// `limit` requests at a time per database; a request waits at most `patience` for its place; `min_available` bytes
    /// must stay free.
    pub fn new(limit: usize, patience: Duration, min_available: u64, memory: Memory) -> Self {
        Self {
            gates: RwLock::default(),
            limit: AtomicUsize::new(limit.max(1)),
            memory,
            min_available,
            patience,
        }
    }

    /// Changes the limit for requests from now on; those that run keep their places.
    pub fn set_limit(&self, limit: usize) {
        if self.limit.swap(limit.max(1), Ordering::Relaxed) != limit.max(1) {
            self.gates.write().clear();
        }
    }

    /// Forgets a database that was deleted.
    pub fn forget(&self, database: &str) {
        self.gates.write().remove(database);
    }

    /// The memory that admission looks at.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Requests that run or wait, over all databases.
    pub fn load(&self) -> (usize, usize) {
        let gates = self.gates.read();
        gates.values().fold((0, 0), |(running, waiting), gate| {
            (running + gate.running(), waiting + gate.waiting.load(Ordering::Relaxed))
        })
    }

    /// Requests that run and wait, by database; those where nothing does are left out.
    pub fn loads(&self) -> Vec<(String, usize, usize)> {
        let gates = self.gates.read();
        let mut loads: Vec<_> = gates
            .iter()
            .map(|(database, gate)| (database.clone(), gate.running(), gate.waiting.load(Ordering::Relaxed)))
            .filter(|(_, running, waiting)| running + waiting > 0)
            .collect();
        loads.sort();
        loads
    }

    /// Whether new work may begin at all.
    ///
    /// # Errors
    /// When memory is short.
    pub fn check_memory(&self) -> Result<(), Overload> {
        let available = self.memory.available();
        if available < self.min_available {
            return Err(Overload::Memory {
                available_mib: available >> 20,
                needed_mib: self.min_available >> 20,
            });
        }
        Ok(())
    }

    /// A place in a database, after a short wait if need be.
    ///
    /// # Errors
    /// When memory is short, the queue is full, or the wait took too long.
    pub async fn enter(&self, database: &str) -> Result<Place, Overload> {
        self.check_memory()?;
        let gate = self.gate(database);
        if let Ok(permit) = Arc::clone(&gate.places).try_acquire_owned() {
            return Ok(Place { _permit: permit });
        }
        let most = gate.limit.saturating_mul(8).max(128);
        let waiting = Waiting::new(&gate.waiting);
        if waiting.before >= most {
            return Err(Overload::QueueFull {
                database: database.to_owned(),
                limit: gate.limit,
                waiting: waiting.before,
            });
        }
        match tokio::time::timeout(self.patience, Arc::clone(&gate.places).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Place { _permit: permit }),
            // The semaphore is never closed, so this is the timeout.
            Ok(Err(_)) | Err(_) => Err(Overload::QueueTimeout {
                database: database.to_owned(),
                limit: gate.limit,
                waited: self.patience,
            }),
        }
    }

    fn gate(&self, database: &str) -> Arc<Gate> {
        if let Some(gate) = self.gates.read().get(database) {
            return Arc::clone(gate);
        }
        let mut gates = self.gates.write();
        let gate = gates.entry(database.to_owned()).or_insert_with(|| {
            let limit = self.limit.load(Ordering::Relaxed);
            Arc::new(Gate {
                limit,
                places: Arc::new(Semaphore::new(limit)),
                waiting: AtomicUsize::new(0),
            })
        });
        Arc::clone(gate)
    }
}

/// Counts a waiter for as long as it waits, also when its request is dropped.
struct Waiting<'a> {
    count: &'a AtomicUsize,
    before: usize,
}

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        Self {
            count,
            before: count.fetch_add(1, Ordering::Relaxed),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn admission(limit: usize, patience: Duration) -> Admission {
        Admission::new(limit, patience, 64 << 20, Memory::fixed(1 << 30))
    }

    #[tokio::test]
    async fn places_are_per_database_and_given_back() {
        let admission = admission(1, Duration::from_millis(20));
        let place = admission.enter("a").await.unwrap();
        assert!(matches!(admission.enter("a").await, Err(Overload::QueueTimeout { .. })));
        let _other = admission.enter("b").await.unwrap();
        assert_eq!(admission.load(), (2, 0));
        assert_eq!(admission.loads(), [("a".to_owned(), 1, 0), ("b".to_owned(), 1, 0)]);
        drop(place);
        let _again = admission.enter("a").await.unwrap();
        admission.set_limit(2);
        let _wider = (admission.enter("a").await.unwrap(), admission.enter("a").await.unwrap());
    }

    #[tokio::test]
    async fn a_waiter_gets_the_place_that_becomes_free() {
        let admission = Arc::new(admission(1, Duration::from_secs(60)));
        let place = admission.enter("a").await.unwrap();
        let waiter = tokio::spawn({
            let admission = Arc::clone(&admission);
            async move { admission.enter("a").await.is_ok() }
        });
        while admission.load().1 == 0 {
            tokio::task::yield_now().await;
        }
        drop(place);
        assert!(waiter.await.unwrap());
        assert_eq!(admission.load(), (0, 0));
    }

    #[tokio::test]
    async fn the_queue_is_bounded() {
        let admission = Arc::new(admission(1, Duration::from_secs(60)));
        let _place = admission.enter("a").await.unwrap();
        let waiters: Vec<_> = (0..128)
            .map(|_| {
                let admission = Arc::clone(&admission);
                tokio::spawn(async move { admission.enter("a").await.map(drop) })
            })
            .collect();
        while admission.load().1 < 128 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(
            admission.enter("a").await,
            Err(Overload::QueueFull { waiting: 128, .. })
        ));
        for waiter in &waiters {
            waiter.abort();
        }
        for waiter in waiters {
            let _ = waiter.await;
        }
        assert_eq!(admission.load().1, 0, "waiters that go away are not counted for ever");
    }

    #[tokio::test]
    async fn memory_must_stay_free() {
        let admission = Admission::new(4, Duration::ZERO, 64 << 20, Memory::fixed(10 << 20));
        let refused = admission.enter("a").await.unwrap_err();
        assert_eq!(
            refused,
            Overload::Memory {
                available_mib: 10,
                needed_mib: 64
            }
        );
        assert_eq!(
            (refused.decision(), refused.retry_after().as_secs()),
            ("reject_memory", 5)
        );
    }
}
