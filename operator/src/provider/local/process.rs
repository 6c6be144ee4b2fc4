//! Processes that outlive the operator: recognising one again, signalling it, hearing of its end.
//!
//! A pid alone says nothing, since it is used again. A process is the one that was started only if its pid, its start
//! time and the boot of the machine are those that were written down. Signals go through a pidfd that was opened before
//! the check, so that they reach that process or none.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use tokio::io::unix::AsyncFd;

/// Environment variable that carries the token of a start, so that a process without a pid file is recognised.
pub(super) const TOKEN_VARIABLE: &str = "GRAPHPLANE_CLIENT_TOKEN";

/// Which process it is.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(super) struct Identity {
    pub(super) pid: i32,
    /// Clock ticks from the machine's boot to the process's start; 0 when it had ended before it could be read.
    pub(super) start_time: u64,
    pub(super) boot_id: String,
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// State and start time of a process, from `/proc/<pid>/stat`. The name in the second field may contain anything, also
/// parentheses and spaces, so fields are counted from its last parenthesis.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.first()?.chars().next()?, fields.get(19)?.parse().ok()?))
}

impl Identity {
    /// The process that has this pid now.
    pub(super) fn of(pid: i32) -> Self {
        let start_time = stat(pid).map_or(0, |(_, start)| start);
        Self {
            pid,
            start_time,
            boot_id: boot_id(),
        }
    }

    /// Whether the process lives. One that has ended and was not reaped yet (a zombie) is dead.
    pub(super) fn is_alive(&self) -> bool {
        let same = |(state, start): (char, u64)| start == self.start_time && !matches!(state, 'Z' | 'X' | 'x');
        self.start_time != 0 && self.boot_id == boot_id() && stat(self.pid).is_some_and(same)
    }

    /// A handle of the process, if it lives.
    fn open(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(None);
        };
        match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            // The handle is of whatever has the pid now; if that is the one that is meant, it stays so.
            Ok(handle) => Ok(self.is_alive().then_some(handle)),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a signal; false if the process is dead.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Some(handle) = self.open()? else { return Ok(false) };
        match pidfd_send_signal(&handle, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the process has ended.
    pub(super) async fn ended(&self) -> io::Result<()> {
        let Some(handle) = self.open()? else { return Ok(()) };
        // A pidfd becomes readable when its process ends.
        #[allow(
            deprecated,
            reason = "its successor is unsafe; an OwnedFd that nobody else has keeps its promise by itself"
        )]
        let handle = AsyncFd::new(handle)?;
        handle.readable().await.map(|_| ())
    }
}

/// The process that runs with `--config <config>`, and the token that it was started with.
///
/// Looks through all processes of the machine, so it is for the rare moment in which a start may have been interrupted.
pub(super) fn find(config: &Path) -> Option<(Identity, Option<String>)> {
    let wanted = config.as_os_str().as_encoded_bytes();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(arguments) = fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let arguments: Vec<&[u8]> = arguments.split(|b| *b == 0).collect();
        if arguments
            .windows(2)
            .any(|pair| pair[0] == b"--config" && pair[1] == wanted)
        {
            let identity = Identity::of(pid);
            if identity.is_alive() {
                return Some((identity, token(pid)));
            }
        }
    }
    None
}

fn token(pid: i32) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let prefix = format!("{TOKEN_VARIABLE}=");
    let entry = environment
        .split(|b| *b == 0)
        .find(|entry| entry.starts_with(prefix.as_bytes()))?;
    String::from_utf8(entry[prefix.len()..].to_vec()).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    #[tokio::test]
    async fn a_process_is_recognised_until_it_ends() {
        // It ends with this process at the latest, which holds the other end of its input.
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let identity = Identity::of(child.id() as i32);
        assert!(identity.is_alive());
        let other = Identity {
            start_time: identity.start_time + 1,
            ..identity.clone()
        };
        assert!(!other.is_alive(), "the pid was used again");
        assert!(
            !other.signal(Signal::KILL).unwrap() && identity.is_alive(),
            "and the new process is left alone"
        );
        let rebooted = Identity {
            boot_id: "other".into(),
            ..identity.clone()
        };
        assert!(!rebooted.is_alive());
        assert!(identity.signal(Signal::TERM).unwrap());
        identity.ended().await.unwrap();
        assert!(!identity.is_alive(), "a zombie is dead");
        child.wait().unwrap();
        assert!(!identity.signal(Signal::KILL).unwrap());
        identity.ended().await.unwrap();
    }

    #[test]
    fn a_process_is_found_by_its_configuration_and_its_token() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("agent.json");
        assert!(find(&config).is_none());
        // It waits for its input, which ends with this process at the latest, and starts no process that looks like it.
        let mut child = Command::new("sh")
            .args(["-c", "read line", "agent", "--config"])
            .arg(&config)
            .env(TOKEN_VARIABLE, "t0ken")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(120);
        let (identity, token) = loop {
            // Until its exec, a new process still looks like this one.
            if let Some(found) = find(&config) {
                break found;
            }
            assert!(Instant::now() < until, "the process is not found");
            std::thread::yield_now();
        };
        assert_eq!((identity.pid, token.as_deref()), (child.id() as i32, Some("t0ken")));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(find(&config).is_none());
    }
}
