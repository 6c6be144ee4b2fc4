//! Files that are read again when they change: keys, certificates.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// How often a file is looked at. Secrets that a kubelet mounts change by a link that is replaced, of which not every
/// file system tells, so nothing is subscribed to.
const INTERVAL: Duration = Duration::from_secs(2);

/// Calls `changed` whenever one of the files was written or replaced, until `stop`.
pub async fn watch(paths: Vec<PathBuf>, stop: CancellationToken, changed: impl Fn()) {
    let look = || paths.iter().map(|path| fingerprint(path)).collect::<Vec<_>>();
    let mut known = look();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        let now = look();
        if now != known {
            known = now;
            changed();
        }
    }
}

/// What differs when a file does: which one it is, its length, its time. `None` if it is not there.
fn fingerprint(path: &Path) -> Option<(u64, u64, i64, i64)> {
    let file = std::fs::metadata(path).ok()?;
    Some((file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
}
