//! The lease machine with a clock and a lock, as the rest of the agent asks it.

use super::lease::{Grant, Machine, Outcome, Refusal, State};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// A monotonic clock; the origin does not matter.
pub trait Clock: Send + Sync {
    /// Time since the origin.
    fn now(&self) -> Duration;
}

/// The machine's time since boot, which goes on while the machine sleeps: a laptop that wakes up after an hour must not
/// believe in a lease of fifteen seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        // Both parts are never negative for this clock.
        Duration::new(
            u64::try_from(time.tv_sec).unwrap_or_default(),
            u32::try_from(time.tv_nsec).unwrap_or_default(),
        )
    }
}

/// The agent's standing, shared by every request.
#[derive(Clone)]
pub struct Standing(Arc<Inner>);

struct Inner {
    clock: Box<dyn Clock>,
    machine: Mutex<Guarded>,
    changed: Notify,
}

struct Guarded {
    machine: Machine,
    /// Cancelled when the right to write ends, so that running writes are interrupted; replaced when it begins again.
    writing: CancellationToken,
}

impl std::fmt::Debug for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Standing").field(&self.state()).finish()
    }
}

impl Standing {
    /// A machine with its clock.
    pub fn new(machine: Machine, clock: impl Clock + 'static) -> Self {
        let writing = CancellationToken::new();
        Self(Arc::new(Inner {
            clock: Box::new(clock),
            machine: Mutex::new(Guarded { machine, writing }),
            changed: Notify::new(),
        }))
    }

    /// Time by the clock that leases are measured with.
    pub fn now(&self) -> Duration {
        self.0.clock.now()
    }

    /// Where the agent stands now.
    pub fn state(&self) -> State {
        let now = self.now();
        self.0.machine.lock().machine.state(now)
    }

    /// Highest epoch that this volume has seen.
    pub fn volume_epoch(&self) -> u64 {
        self.0.machine.lock().machine.volume_epoch()
    }

    /// The right to make a change now: a token that is cancelled when the right ends.
    ///
    /// # Errors
    /// Why the agent must not write.
    pub fn permit(&self) -> Result<CancellationToken, Refusal> {
        let now = self.now();
        let guarded = self.0.machine.lock();
        guarded.machine.may_write(now)?;
        Ok(guarded.writing.clone())
    }

    /// Cancelled when the right to write that is held now ends; already, if there is none any more.
    pub fn ends(&self) -> CancellationToken {
        self.0.machine.lock().writing.clone()
    }

    /// Waits, at most for `patience`, until the agent is past its registration. The control plane sends requests as soon
    /// as it has answered, and the answer may still be on its way to the volume then.
    pub async fn registered_within(&self, patience: Duration) {
        let settled = async {
            loop {
                let mut changed = std::pin::pin!(self.0.changed.notified());
                // Listening begins here, so that a change between the look and the wait is not missed.
                changed.as_mut().enable();
                if self.state() != State::Registering {
                    return;
                }
                changed.await;
            }
        };
        // What is still not registered after that is for the caller to refuse.
        let _ = tokio::time::timeout(patience, settled).await;
    }

    /// Whether an epoch of a registration answer may be written to the volume.
    pub fn accepts_epoch(&self, epoch: u64) -> bool {
        self.0.machine.lock().machine.accepts_epoch(epoch)
    }

    /// Takes the answer to a registration; its epoch is on the volume already.
    pub fn registered(&self, grant: Grant) -> Outcome {
        self.change(|machine, now| machine.registered(grant, now))
    }

    /// Takes the answer to a renewal.
    pub fn renewed(&self, grant: Grant) -> Outcome {
        self.change(|machine, now| machine.renewed(grant, now))
    }

    /// The control plane refused a renewal or registration.
    pub fn refused(&self) {
        self.change(|machine, _| machine.refused());
    }

    /// No new writes for the rest of the process. Writes that run may finish, as long as the lease lasts.
    pub fn drain(&self) {
        self.change(|machine, _| machine.drain());
    }

    /// Interrupts running writes if the lease has run out; called by a watchdog.
    pub fn tick(&self) {
        self.change(|_, _| ());
    }

    /// Interrupts what writes as soon as the lease runs out, until `stop`. A permit is refused from the deadline on even
    /// when this runs late.
    pub async fn watch(self, stop: CancellationToken) {
        loop {
            let pause = match self.state() {
                State::Active { deadline, .. }
                | State::Draining {
                    until: Some(deadline), ..
                } => deadline.saturating_sub(self.now()),
                _ => Duration::from_secs(1),
            };
            // At most a second, since the clock of leases goes on while the machine sleeps and the timer's does not.
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause.clamp(Duration::from_millis(10), Duration::from_secs(1))) => self.tick(),
            }
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Machine, Duration) -> T) -> T {
        let now = self.now();
        let mut guarded = self.0.machine.lock();
        let result = change(&mut guarded.machine, now);
        match (guarded.machine.may_finish(now), guarded.writing.is_cancelled()) {
            (true, true) => guarded.writing = CancellationToken::new(),
            (false, false) => guarded.writing.cancel(),
            _ => {}
        }
        drop(guarded);
        self.0.changed.notify_waiters();
        result
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Clone, Default)]
    struct Manual(Arc<AtomicU64>);
    impl Clock for Manual {
        fn now(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::SeqCst))
        }
    }

    fn grant(epoch: u64, sent: u64) -> Grant {
        Grant {
            epoch,
            sent: Duration::from_secs(sent),
            lease: Duration::from_secs(15),
        }
    }

    #[test]
    fn the_end_of_a_lease_interrupts_what_writes() {
        let clock = Manual::default();
        let standing = Standing::new(Machine::registering(0), clock.clone());
        assert_eq!(standing.permit().unwrap_err(), Refusal::Registering);
        standing.registered(grant(1, 0));
        let running = standing.permit().unwrap();
        clock.0.store(15, Ordering::SeqCst);
        assert_eq!(standing.permit().unwrap_err(), Refusal::Fenced);
        standing.tick();
        assert!(running.is_cancelled());
        standing.renewed(grant(1, 15));
        assert!(!standing.permit().unwrap().is_cancelled(), "a new lease, a new token");
        assert!(running.is_cancelled(), "the old one stays cancelled");
    }

    #[test]
    fn draining_lets_running_writes_finish() {
        let standing = Standing::new(Machine::standalone(), SystemClock);
        let running = standing.permit().unwrap();
        standing.drain();
        standing.tick();
        assert_eq!(standing.permit().unwrap_err(), Refusal::Draining);
        assert!(!running.is_cancelled());
    }

    #[tokio::test]
    async fn a_request_that_comes_early_waits_for_the_registration() {
        let clock = Manual::default();
        let standing = Standing::new(Machine::registering(0), clock);
        standing.registered_within(Duration::from_millis(1)).await;
        assert_eq!(standing.permit().unwrap_err(), Refusal::Registering);
        let waiting = standing.clone();
        let waiter = tokio::spawn(async move {
            waiting.registered_within(Duration::from_secs(60)).await;
            waiting.permit().is_ok()
        });
        tokio::task::yield_now().await;
        standing.registered(grant(1, 0));
        assert!(waiter.await.unwrap());
    }

    #[test]
    fn the_system_clock_goes_forward() {
        let before = SystemClock.now();
        assert!(SystemClock.now() >= before && before > Duration::ZERO);
    }
}
