//! Times and memory, and how they are written.

use crate::Result;
use std::time::{Duration, Instant};

/// The variable `GRAPHPLANE_BENCH_<name>`, or what the figures in docs/benchmarks.md are for.
pub(crate) fn scale(name: &str, default: u64) -> Result<u64> {
    match std::env::var(format!("GRAPHPLANE_BENCH_{name}")) {
        Ok(text) => Ok(text
            .parse::<u64>()
            .map_err(|error| format!("GRAPHPLANE_BENCH_{name}={text}: {error}"))?),
        Err(_) => Ok(default),
    }
}

/// Durations of the same work.
#[derive(Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub(crate) fn since(&mut self, started: Instant) {
        self.push(started.elapsed());
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Milliseconds that the share `q` of them does not exceed.
    pub(crate) fn quantile(&self, q: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let index = ((sorted.len() as f64 * q).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
        sorted.get(index).copied().unwrap_or_default().as_secs_f64() * 1e3
    }

    /// Milliseconds.
    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Thousands of rows a second, by the median.
    pub(crate) fn rate(&self, rows: u64) -> f64 {
        rows as f64 / self.median()
    }

    pub(crate) fn summary(&self) -> String {
        format!("p50 {:.2} ms, p99 {:.2} ms", self.median(), self.quantile(0.99))
    }
}

/// `5 M`, `20 k`.
pub(crate) fn short(count: u64) -> String {
    if count.is_multiple_of(1_000_000) {
        format!("{} M", count / 1_000_000)
    } else {
        format!("{} k", count / 1000)
    }
}

/// What `ours` costs more than `raw`, by the medians.
pub(crate) fn cost(ours: &Times, raw: &Times) -> String {
    format!("{:+.0} %", (ours.median() / raw.median() - 1.0) * 100.0)
}

/// Memory of a process, from its own page in `/proc`.
pub(crate) struct Memory {
    folder: String,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Self {
        Self {
            folder: format!("/proc/{pid}"),
        }
    }

    pub(crate) fn own() -> Self {
        Self::of(std::process::id())
    }

    fn mib(&self, field: &str) -> Result<f64> {
        let status = std::fs::read_to_string(format!("{}/status", self.folder))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let line = line.ok_or_else(|| format!("no {field}"))?;
        Ok(line
            .trim_start_matches(':')
            .trim_end_matches(" kB")
            .trim()
            .parse::<f64>()?
            / 1024.0)
    }

    /// MiB that are resident now.
    pub(crate) fn resident(&self) -> Result<f64> {
        self.mib("VmRSS")
    }

    /// The most MiB that were resident since the start, or since [`forget`](Self::forget).
    pub(crate) fn peak(&self) -> Result<f64> {
        self.mib("VmHWM")
    }

    pub(crate) fn forget(&self) -> Result<()> {
        std::fs::write(format!("{}/clear_refs", self.folder), "5")?;
        Ok(())
    }
}
