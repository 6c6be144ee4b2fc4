//! Stopping a DuckDB statement, because its time is over or because nobody waits for it. DuckDB clears its interrupt
//! flag when a statement starts, so the interrupt is repeated until the work has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use duckdb::InterruptHandle;
use parking_lot::Mutex;

use super::super::error::EngineError;
use super::super::rows::Producer;

const REPEAT: Duration = Duration::from_millis(50);

pub(crate) struct SqlControl {
    limit: Duration,
    deadline: Instant,
    connection: Mutex<Option<Arc<InterruptHandle>>>,
    cancelled: AtomicBool,
    timed_out: AtomicBool,
    stalled: AtomicBool,
    finished: AtomicBool,
    wake: tokio::sync::Notify,
}

impl SqlControl {
    /// Starts to watch; must be called within the runtime.
    pub(crate) fn watch(limit: Duration) -> Arc<Self> {
        let now = Instant::now();
        let control = Arc::new(Self {
            limit,
            deadline: now
                .checked_add(limit)
                .unwrap_or_else(|| now + Duration::from_secs(86_400)),
            connection: Mutex::new(None),
            cancelled: AtomicBool::new(false),
            timed_out: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            wake: tokio::sync::Notify::new(),
        });
        tokio::spawn(Arc::clone(&control).interrupt_when_due());
        control
    }

    async fn interrupt_when_due(self: Arc<Self>) {
        tokio::select! {
            () = tokio::time::sleep_until(self.deadline.into()) => self.timed_out.store(true, Ordering::Release),
            () = self.wake.notified() => {}
        }
        while !self.finished.load(Ordering::Acquire) {
            if let Some(connection) = self.connection.lock().as_ref() {
                connection.interrupt();
            }
            tokio::time::sleep(REPEAT).await;
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(crate) fn attach(&self, connection: &duckdb::Connection) -> Result<(), EngineError> {
        *self.connection.lock() = Some(connection.interrupt_handle());
        self.check()
    }

    /// An error if the work should end.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        if self.cancelled.load(Ordering::Acquire) {
            Err(EngineError::Cancelled)
        } else if self.timed_out.load(Ordering::Acquire) {
            Err(EngineError::Timeout {
                limit: self.limit,
                outcome_unknown: false,
            })
        } else {
            Ok(())
        }
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    pub(crate) fn stall(&self) {
        self.stalled.store(true, Ordering::Release);
    }

    pub(crate) fn finish(&self) {
        self.finished.store(true, Ordering::Release);
        self.connection.lock().take();
        self.wake.notify_one();
    }

    /// What an error means: an interrupt of ours is a timeout or a cancellation.
    pub(crate) fn explain(&self, error: EngineError) -> EngineError {
        // A stream that was interrupted says that it is closed, and not why.
        match error {
            EngineError::Cancelled | EngineError::Runtime { .. } => self.check().err().unwrap_or(error),
            error => error,
        }
    }
}

impl Producer for SqlControl {
    fn abandon(self: Arc<Self>) {
        self.cancel();
    }

    fn ended(&self) -> EngineError {
        if self.stalled.load(Ordering::Acquire) {
            return EngineError::internal("the result was given up because its reader did not take it");
        }
        self.check()
            .err()
            .unwrap_or_else(|| EngineError::internal("the staging thread ended without an answer"))
    }

    fn expire(self: Arc<Self>) -> Option<EngineError> {
        Some(EngineError::Timeout {
            limit: self.limit,
            outcome_unknown: false,
        })
    }
}

/// Cancels the work when the caller that waits for it goes away, or when `token` says so.
pub(crate) struct CancelGuard {
    control: Arc<SqlControl>,
    follow: tokio::task::JoinHandle<()>,
}

impl CancelGuard {
    pub(crate) fn new(control: &Arc<SqlControl>, token: tokio_util::sync::CancellationToken) -> Self {
        let followed = Arc::clone(control);
        let follow = tokio::spawn(async move {
            token.cancelled().await;
            followed.cancel();
        });
        Self {
            control: Arc::clone(control),
            follow,
        }
    }
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        self.follow.abort();
        if !self.control.finished.load(Ordering::Acquire) {
            self.control.cancel();
        }
    }
}
