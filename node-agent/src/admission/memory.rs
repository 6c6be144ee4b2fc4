//! Memory of the process, and what is left on the machine or in its control group, whichever is less.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// One look at the memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemorySample {
    /// Resident memory of this process, in bytes.
    pub resident: u64,
    /// Virtual memory of this process, in bytes.
    pub virtual_size: u64,
    /// Private memory that the process may write to, used or not, in bytes.
    pub data: u64,
    /// What may be used in all: the machine's memory or the control group's limit, in bytes.
    pub total: u64,
    /// What is left of it without taking pages that are in use, in bytes.
    pub available: u64,
}

/// The available memory, sampled in the background and read without a system call.
#[derive(Clone, Debug)]
pub struct Memory {
    available: Arc<AtomicU64>,
}

impl Memory {
    /// Samples once a second until `stop`.
    pub fn sampled(stop: CancellationToken) -> Self {
        let memory = Self::fixed(sample().available);
        let available = Arc::clone(&memory.available);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                }
                // A few small reads of /proc and /sys: these never wait for a disk.
                available.store(sample().available, Ordering::Relaxed);
            }
        });
        memory
    }

    /// A fixed amount, for tests.
    pub fn fixed(available: u64) -> Self {
        Self {
            available: Arc::new(AtomicU64::new(available)),
        }
    }

    /// Bytes that were available at the last look.
    pub fn available(&self) -> u64 {
        self.available.load(Ordering::Relaxed)
    }
}

/// Looks at the memory now. What the system does not tell is taken as unlimited, so that nothing is refused for want of
/// a file in `/proc`.
pub fn sample() -> MemorySample {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |name: &str| field(&meminfo, name).map(|kib| kib << 10);
    let (mut total, mut available) = (
        kib("MemTotal:").unwrap_or(u64::MAX),
        kib("MemAvailable:").unwrap_or(u64::MAX),
    );
    for group in control_groups() {
        let Some(limit) = number(&group.join("memory.max")) else {
            continue;
        };
        let used = number(&group.join("memory.current")).unwrap_or(0);
        // Cached file pages count as used but are given up at once.
        let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let cached = field(&stat, "inactive_file").unwrap_or(0);
        total = total.min(limit);
        available = available.min(limit.saturating_sub(used.saturating_sub(cached)));
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let own = |name: &str| field(&status, name).map_or(0, |kib| kib << 10);
    MemorySample {
        resident: own("VmRSS:"),
        virtual_size: own("VmSize:"),
        data: own("VmData:"),
        total,
        available,
    }
}

/// The control group of this process and its ancestors (version 2): the narrowest limit counts.
fn control_groups() -> Vec<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return Vec::new();
    };
    let root = Path::new("/sys/fs/cgroup");
    let mut group = root.join(path);
    let mut groups = vec![group.clone()];
    while group != root && group.pop() && group.starts_with(root) {
        groups.push(group.clone());
    }
    groups
}

fn number(path: &Path) -> Option<u64> {
    // `max` means no limit and is not a number.
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        if words.next()? != name {
            return None;
        }
        words.next()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory() {
        let sample = sample();
        assert!(sample.resident > 1 << 20 && sample.virtual_size >= sample.resident);
        assert!(sample.available <= sample.total);
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "MemTotal:  10 kB\nMemAvailable:       7 kB\ninactive_file 5\n";
        assert_eq!(
            (
                field(text, "MemAvailable:"),
                field(text, "inactive_file"),
                field(text, "Mem")
            ),
            (Some(7), Some(5), None)
        );
    }
}
