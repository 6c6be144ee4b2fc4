//! A fence around the memory of the process. Both engines have a limit for their pages and count nothing else: the lists
//! and strings of a single expression can have any size (`range` for 2,048 rows at once, a list that is copied for every
//! row), while they grow nothing can be interrupted, and the operating system would end the process and with it every
//! database of the node.
//!
//! So the kernel is told how much more memory the process may ask for: what it has, and what is free. A request beyond
//! that fails. To the engines this is an error of the statement that made it, and lists and strings ask for twice what they
//! have whenever they grow, so it is theirs that are refused, and not the small requests of everything else.

use std::io;
use std::thread::Builder;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio_util::sync::CancellationToken;

use crate::admission::{MemorySample, sample};

/// How often the fence follows what is free.
const PERIOD: Duration = Duration::from_millis(25);
/// What may be asked for when nothing is free: the blocks in which the allocators of the process take memory.
const BLOCK: u64 = 32 << 20;
/// How much of it comes back in a period, so that what grows in small steps does not grow on.
const REFILL: u64 = 1 << 20;

/// The limit belongs to the process, and so does this.
static FENCE: Mutex<Fence> = Mutex::new(Fence {
    up: false,
    openings: 0,
    opened: false,
});

struct Fence {
    up: bool,
    /// Databases that are being opened.
    openings: usize,
    /// Some were since the fence was last set.
    opened: bool,
}

/// Puts the fence up until `stop`: the process may grow while `reserve` bytes stay free, on the machine, in its control
/// group, and of `limit` if there is one.
///
/// # Errors
/// When there can be no further thread.
pub fn raise(limit: Option<u64>, reserve: u64, stop: CancellationToken) -> io::Result<()> {
    let before = getrlimit(Resource::Data);
    FENCE.lock().up = true;
    Builder::new().name("memory-fence".into()).spawn(move || {
        let mut height = u64::MAX;
        while !stop.is_cancelled() {
            let mut fence = FENCE.lock();
            if std::mem::take(&mut fence.opened) {
                height = u64::MAX;
            }
            height = most(&sample(), limit, reserve, height);
            if fence.openings == 0 {
                set(Some(before.current.unwrap_or(u64::MAX).min(height)));
            }
            drop(fence);
            std::thread::sleep(PERIOD);
        }
        FENCE.lock().up = false;
        set(before.current);
    })?;
    Ok(())
}

/// Most data that the process may have, which was `before` until now.
fn most(now: &MemorySample, limit: Option<u64>, reserve: u64, before: u64) -> u64 {
    let left = limit.map_or(u64::MAX, |limit| limit.saturating_sub(now.resident));
    let free = now.available.min(left).saturating_sub(reserve);
    if free > BLOCK {
        now.data.saturating_add(free)
    } else {
        before.saturating_add(REFILL).min(now.data.saturating_add(BLOCK))
    }
}

fn set(current: Option<u64>) {
    let maximum = getrlimit(Resource::Data).maximum;
    if let Err(error) = setrlimit(Resource::Data, Rlimit { current, maximum }) {
        tracing::warn!(%error, "the limit of the process's memory cannot be changed");
    }
}

/// Opens the fence: LadybugDB reserves the address space of a whole database when it opens it, which counts as data and
/// takes no memory.
pub(crate) fn opening() -> Opening {
    let mut fence = FENCE.lock();
    fence.openings += 1;
    if fence.up {
        set(getrlimit(Resource::Data).maximum);
    }
    Opening(())
}

/// The fence is open while this lives.
#[derive(Debug)]
pub(crate) struct Opening(());

impl Drop for Opening {
    fn drop(&mut self) {
        let mut fence = FENCE.lock();
        fence.openings -= 1;
        fence.opened = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_ends_where_memory_does() {
        const MIB: u64 = 1 << 20;
        let now = MemorySample {
            resident: 100 * MIB,
            data: 5_000 * MIB,
            available: 1_000 * MIB,
            ..MemorySample::default()
        };
        let high = u64::MAX;
        assert_eq!(most(&now, None, 64 * MIB, high), 5_936 * MIB);
        assert_eq!(most(&now, Some(600 * MIB), 64 * MIB, high), 5_436 * MIB);
        // What is left then is for requests of the usual size, and does not follow what grows.
        for limit in [Some(120 * MIB), Some(1)] {
            assert_eq!(most(&now, limit, 64 * MIB, high), 5_032 * MIB);
            let grown = MemorySample {
                data: 5_032 * MIB,
                ..now
            };
            assert_eq!(most(&grown, limit, 64 * MIB, 5_032 * MIB), 5_033 * MIB);
            // It comes back where nothing grows.
            assert_eq!(most(&now, limit, 64 * MIB, 5_032 * MIB), 5_032 * MIB);
        }
    }
}
