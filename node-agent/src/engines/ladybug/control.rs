//! Stopping a statement. The engine clears its interrupt flag whenever an execution starts, so a single interrupt can
//! be lost: the database's own thread repeats it until the statement has returned.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lbug::Connection;
use parking_lot::Mutex;

use super::super::error::EngineError;
use super::super::rows::Producer;

const REPEAT: Duration = Duration::from_millis(50);

const QUEUED: u8 = 0;
const RUNNING: u8 = 1;
const EXPIRED: u8 = 2;

/// One statement (or one task) on its way through an engine thread.
pub(crate) struct JobControl {
    id: u64,
    writes: bool,
    limit: Duration,
    deadline: Instant,
    state: AtomicU8,
    cancelled: AtomicBool,
    timed_out: AtomicBool,
    stalled: AtomicBool,
    finished: AtomicBool,
    interrupts: flume::Sender<Interrupt>,
    counters: Arc<Counters>,
}

/// What a database is doing.
#[derive(Default)]
pub(crate) struct Counters {
    next_job: AtomicU64,
    active: AtomicUsize,
    started: AtomicU64,
    closing: AtomicBool,
}

impl Counters {
    pub(crate) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    pub(crate) fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// While this is set, jobs are refused and running ones are interrupted.
    pub(crate) fn set_closing(&self, closing: bool) {
        self.closing.store(closing, Ordering::Release);
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}

fn closing() -> EngineError {
    EngineError::Busy {
        reason: "the database is being closed".into(),
        retry_after: Duration::from_secs(5),
    }
}

/// What the watching thread is told.
pub(crate) enum Interrupt {
    /// Interrupt this job until it has returned.
    Job(Arc<JobControl>),
    /// Interrupt whatever runs, for as long as the database is closing.
    Everything,
    /// Queries wait: look whether they wait for ones that take long.
    Backlog,
}

impl JobControl {
    pub(crate) fn new(
        counters: &Arc<Counters>,
        interrupts: &flume::Sender<Interrupt>,
        writes: bool,
        limit: Duration,
    ) -> Arc<Self> {
        counters.active.fetch_add(1, Ordering::Relaxed);
        counters.started.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        Arc::new(Self {
            // 0 stands for "no job" in a slot.
            id: counters.next_job.fetch_add(1, Ordering::Relaxed) + 1,
            writes,
            limit,
            deadline: now
                .checked_add(limit)
                .unwrap_or_else(|| now + Duration::from_secs(86_400)),
            state: AtomicU8::new(QUEUED),
            cancelled: AtomicBool::new(false),
            timed_out: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            interrupts: interrupts.clone(),
            counters: Arc::clone(counters),
        })
    }

    /// When the time of the whole job is over, including its wait in the queue. The engine has a timer of its own,
    /// which is left alone: with it, the engine runs every statement on threads of a pool, so that the caller can watch
    /// the clock; without it, it runs short ones on the calling thread, which is several times as fast.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Called by the engine thread that takes the job. An error means that nobody waits for it any more.
    pub(crate) fn begin(&self) -> Result<(), EngineError> {
        if self.cancelled.load(Ordering::Acquire) {
            return Err(EngineError::Cancelled);
        }
        if self.counters.is_closing() {
            return Err(closing());
        }
        if Instant::now() >= self.deadline {
            return Err(self.waited_in_vain());
        }
        // A statement that moved from a reader to the writer begins twice.
        match self
            .state
            .compare_exchange(QUEUED, RUNNING, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) | Err(RUNNING) => Ok(()),
            Err(_) => Err(self.waited_in_vain()),
        }
    }

    fn waited_in_vain(&self) -> EngineError {
        let who = if self.writes {
            "other writes of this database"
        } else {
            "other queries of this database"
        };
        EngineError::Busy {
            reason: format!(
                "{who} took all of the time limit of {} ms; nothing was done",
                self.limit.as_millis()
            ),
            retry_after: Duration::from_secs(2),
        }
    }

    /// What an `Interrupted.` of the engine means for this job.
    pub(crate) fn interrupted(&self) -> EngineError {
        if self.cancelled.load(Ordering::Acquire) {
            EngineError::Cancelled
        } else if self.counters.is_closing() {
            closing()
        } else {
            EngineError::Timeout {
                limit: self.limit,
                outcome_unknown: false,
            }
        }
    }

    pub(crate) fn cancel(self: &Arc<Self>) {
        if !self.cancelled.swap(true, Ordering::AcqRel) {
            self.interrupt();
        }
    }

    fn interrupt(self: &Arc<Self>) {
        if !self.is_finished() {
            // Without a receiver the database is closing and nothing runs any more.
            let _ = self.interrupts.send(Interrupt::Job(Arc::clone(self)));
        }
    }

    /// True if the job should end: it was cancelled, its time is over, or its database closes.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire) || self.timed_out.load(Ordering::Acquire) || self.counters.is_closing()
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    pub(crate) fn finish(&self) {
        if !self.finished.swap(true, Ordering::AcqRel) {
            self.counters.active.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn stall(&self) {
        self.stalled.store(true, Ordering::Release);
    }
}

impl Drop for JobControl {
    fn drop(&mut self) {
        // A job that never reached a thread is finished too.
        self.finish();
    }
}

impl Producer for JobControl {
    fn abandon(self: Arc<Self>) {
        self.cancel();
    }

    fn ended(&self) -> EngineError {
        if self.stalled.load(Ordering::Acquire) {
            EngineError::internal("the result was given up because its reader did not take it")
        } else if self.is_cancelled() {
            self.interrupted()
        } else {
            EngineError::internal("the engine's thread ended without an answer; the node's log has the reason")
        }
    }

    fn expire(self: Arc<Self>) -> Option<EngineError> {
        if self
            .state
            .compare_exchange(QUEUED, EXPIRED, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
        {
            return Some(self.waited_in_vain());
        }
        self.timed_out.store(true, Ordering::Release);
        self.interrupt();
        if self.writes {
            return None;
        }
        Some(EngineError::Timeout {
            limit: self.limit,
            outcome_unknown: false,
        })
    }
}

/// Cancels a job when it is dropped; for callers that wait for an answer and may go away.
pub(crate) struct CancelOnDrop(pub(crate) Arc<JobControl>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Which job a connection is executing; 0 for none. The lock is held while a connection is interrupted, so that an
/// interrupt never hits the job after the one it was meant for.
#[derive(Default)]
pub(crate) struct Slot(Mutex<u64>);

impl Slot {
    /// Marks `job` as executing until the guard is dropped.
    pub(crate) fn occupy(&self, job: &JobControl) -> Occupied<'_> {
        *self.0.lock() = job.id;
        Occupied(self)
    }
}

pub(crate) struct Occupied<'a>(&'a Slot);

impl Drop for Occupied<'_> {
    fn drop(&mut self) {
        *self.0.0.lock() = 0;
    }
}

/// A connection and what it executes.
pub(crate) struct Line<'db> {
    pub(crate) connection: Connection<'db>,
    pub(crate) slot: Slot,
    pub(crate) writer: bool,
}

/// All lines of a database.
pub(crate) type Lines<'db> = Mutex<Vec<Arc<Line<'db>>>>;

/// Interrupts cancelled jobs until every one of them has returned, and calls `add_reader` when queries wait while
/// every reader has been with the same query for a while. Ends when the database closes.
pub(crate) fn watch(
    lines: &Lines<'_>,
    interrupts: &flume::Receiver<Interrupt>,
    counters: &Counters,
    backlog: &Backlog<'_>,
    add_reader: impl Fn(),
) {
    let mut pending: Vec<Arc<JobControl>> = Vec::new();
    let mut everything = false;
    // What the readers were executing when queries were first seen to wait.
    let mut waiting_for: Option<Vec<u64>> = None;
    loop {
        let received = if pending.is_empty() && !everything && waiting_for.is_none() {
            interrupts.recv().map_err(|_| flume::RecvTimeoutError::Disconnected)
        } else {
            interrupts.recv_timeout(REPEAT)
        };
        match received {
            Ok(Interrupt::Job(job)) => pending.push(job),
            Ok(Interrupt::Everything) => everything = true,
            Ok(Interrupt::Backlog) => waiting_for = Some(executing(lines)),
            Err(flume::RecvTimeoutError::Timeout) => {
                waiting_for = waiting_for.and_then(|before| backlog.judge(lines, &before, &add_reader));
            }
            Err(flume::RecvTimeoutError::Disconnected) => return,
        }
        everything &= counters.is_closing();
        pending.retain(|job| !job.is_finished());
        if pending.is_empty() && !everything {
            continue;
        }
        for line in lines.lock().iter() {
            let current = line.slot.0.lock();
            let meant = *current != 0 && (everything || pending.iter().any(|job| job.id == *current));
            if meant && line.connection.interrupt().is_err() {
                tracing::warn!(job = *current, "the engine refused an interrupt");
            }
        }
    }
}

/// The queue of the readers, as the watching thread sees it.
pub(crate) struct Backlog<'a> {
    pub(crate) waiting: &'a dyn Fn() -> usize,
    pub(crate) reported: &'a AtomicBool,
}

impl Backlog<'_> {
    /// Called a while after queries were seen to wait behind `before`. Returns what to compare with next time, or
    /// `None` if nothing waits any more.
    fn judge(&self, lines: &Lines<'_>, before: &[u64], add_reader: &impl Fn()) -> Option<Vec<u64>> {
        if (self.waiting)() == 0 {
            self.reported.store(false, Ordering::Release);
            return None;
        }
        let now = executing(lines);
        if !now.is_empty() && now.iter().all(|job| *job != 0 && before.contains(job)) {
            add_reader();
        }
        Some(now)
    }
}

/// The jobs of the readers; 0 for a reader that has none.
fn executing(lines: &Lines<'_>) -> Vec<u64> {
    lines
        .lock()
        .iter()
        .filter(|line| !line.writer)
        .map(|line| *line.slot.0.lock())
        .collect()
}
