//! What machine the figures belong to.

use crate::Result;
use std::fs;

fn field(text: &str, name: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_once(':')
        .map_or("unknown", |(_, value)| value.trim())
        .to_owned()
}

/// One line: processor, cores, memory, kernel.
pub(crate) fn describe() -> Result<String> {
    let cpu = field(&fs::read_to_string("/proc/cpuinfo")?, "model name");
    let memory = field(&fs::read_to_string("/proc/meminfo")?, "MemTotal");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cores = std::thread::available_parallelism()?;
    Ok(format!(
        "Machine: {cpu}, {cores} cores, {memory} of memory, Linux {}\n",
        kernel.trim()
    ))
}

/// Resident memory of a process, in MiB.
pub(crate) fn resident_mib(pid: u32) -> Result<f64> {
    let text = field(&fs::read_to_string(format!("/proc/{pid}/status"))?, "VmRSS");
    let kib: f64 = text.trim_end_matches(" kB").trim().parse()?;
    Ok(kib / 1024.0)
}
