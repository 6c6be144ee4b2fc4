//! The space of the volume.
//!
//! On a machine the volume is a file system of its own, and that is asked. Where it is a directory among others (the
//! local provider), the file system tells about everything else on it, so the files below the directory are counted.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

/// Space of a volume, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Size of its file system.
    pub size: u64,
    /// What the volume's files take.
    pub used: u64,
    /// What this user may still write.
    pub free: u64,
}

/// What files of callers leave free on the volume, whatever their tier permits: the graphs of others lie there, too.
pub const FLOOR: u64 = 256 << 20;

/// There is no room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the volume has less than {} MiB free, which no load takes: grow the volume, or delete what is not needed",
    floor >> 20
)]
pub struct Full {
    /// What must stay free, in bytes.
    pub floor: u64,
}

/// Refuses to go on writing a file in `dir` where less than `floor` bytes are free. One system call: to be asked again for
/// each portion, since others write meanwhile.
///
/// # Errors
/// When less is free.
pub fn check_room(dir: &Path, floor: u64) -> Result<(), Full> {
    match rustix::fs::statvfs(dir) {
        Ok(stat) if stat.f_bavail.saturating_mul(stat.f_frsize) < floor => Err(Full { floor }),
        // A volume that cannot be asked says so when it is written to.
        _ => Ok(()),
    }
}

/// Looks at the volume in `dir`; zeroes when it cannot be asked.
pub fn disk(dir: &Path) -> Disk {
    let Ok(stat) = rustix::fs::statvfs(dir) else {
        return Disk::default();
    };
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    let used = if is_mount_point(dir) {
        bytes(stat.f_blocks.saturating_sub(stat.f_bfree))
    } else {
        allocated(dir)
    };
    Disk {
        size: bytes(stat.f_blocks),
        used,
        free: bytes(stat.f_bavail),
    }
}

fn is_mount_point(dir: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev());
    match (device(dir), device(&dir.join(".."))) {
        (Ok(own), Ok(above)) => own != above || dir.parent().is_none(),
        _ => false,
    }
}

/// What the files below a directory take, holes not counted. Files that vanish meanwhile are not an error.
fn allocated(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => allocated(&entry.path()),
            Ok(meta) => meta.blocks().saturating_mul(512),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_directory_counts_its_own_files() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("deep")).unwrap();
        let file = dir.path().join("deep/file");
        fs::write(&file, vec![1; 1 << 20]).unwrap();
        // Some file systems find the place for it only then.
        fs::File::open(&file).unwrap().sync_all().unwrap();
        let disk = disk(dir.path());
        assert!((1 << 20..2 << 20).contains(&disk.used), "{disk:?}");
        assert!(disk.size > 0 && disk.free <= disk.size);
    }

    #[test]
    fn there_is_room_until_the_floor_is_reached() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(check_room(dir.path(), 0), Ok(()));
        assert_eq!(check_room(dir.path(), u64::MAX), Err(Full { floor: u64::MAX }));
    }

    #[test]
    fn a_file_system_is_asked() {
        let root = disk(Path::new("/"));
        assert!(is_mount_point(Path::new("/")) && root.used > 0 && root.used <= root.size);
        assert_eq!(disk(Path::new("/no/such/volume")), Disk::default());
    }
}
