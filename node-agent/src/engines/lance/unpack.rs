//! The files of an archive that comes in: a tar with a manifest and the files below `data/`, of which nothing is trusted. What is
//! written is written below one directory, has names as Lance gives them, and is never more than there is room for.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use tar::{Archive, EntryType};

use super::super::error::EngineError;

/// What the archive says of the table in it.
pub(crate) const MANIFEST: &str = "manifest.json";
/// Where the table's files are in it.
pub(crate) const DATA: &str = "data";
const MAX_ENTRIES: usize = 100_000;
const MAX_MANIFEST: u64 = 64 << 10;
/// Directories below `data/`, with the file.
const MAX_DEPTH: usize = 4;

/// An archive that is not good.
pub(crate) fn bad(message: impl Into<String>) -> EngineError {
    EngineError::invalid("archive", message)
}

/// Writes the files of a tar below `directory`, at most `max_bytes`, and returns its manifest. Ends when `stopped` says so.
///
/// # Errors
/// `Invalid` if the archive is not good; `Cancelled`; a part of the files may be there then.
pub(crate) fn unpack(
    tar: impl Read,
    directory: &Path,
    max_bytes: u64,
    stopped: impl Fn() -> bool,
) -> Result<Vec<u8>, EngineError> {
    let unreadable = |error: io::Error| bad(format!("cannot be read as a tar: {error}"));
    let unwritable = |error: io::Error| EngineError::io("write", directory, error);
    fs::create_dir_all(directory).map_err(unwritable)?;
    let mut archive = Archive::new(tar);
    let mut manifest = None;
    let mut left = max_bytes;
    // Raw: extensions of the format are entries of their own here, and refused, since they would be read as a whole.
    for (number, entry) in archive.entries().map_err(unreadable)?.raw(true).enumerate() {
        let mut entry = entry.map_err(unreadable)?;
        if stopped() {
            return Err(EngineError::Cancelled);
        }
        if number >= MAX_ENTRIES {
            return Err(bad(format!("has more than {MAX_ENTRIES} entries")));
        }
        let path = entry.path().map_err(unreadable)?.into_owned();
        let shown = path.to_string_lossy().chars().take(100).collect::<String>();
        let (kind, size) = (entry.header().entry_type(), entry.size());
        if kind == EntryType::Directory && size == 0 {
            continue;
        }
        if kind != EntryType::Regular {
            return Err(bad(format!("has an entry {shown:?} that is no plain file")));
        }
        left = left.checked_sub(size).ok_or_else(|| {
            bad(format!(
                "unpacks to more than the {max_bytes} bytes that there is room for"
            ))
        })?;
        if path == Path::new(MANIFEST) && manifest.is_none() {
            if size > MAX_MANIFEST {
                return Err(bad("has a manifest that is too large"));
            }
            let mut text = Vec::new();
            entry.read_to_end(&mut text).map_err(unreadable)?;
            manifest = Some(text);
            continue;
        }
        let name = below_data(&path).ok_or_else(|| bad(format!("has an entry {shown:?}, which is not expected")))?;
        let target = directory.join(name);
        let parent = target.parent().unwrap_or(directory);
        let taken = |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
                bad(format!("has two entries {shown:?}, or one within a file"))
            }
            _ => EngineError::io("write", &target, error),
        };
        fs::create_dir_all(parent).map_err(taken)?;
        let mut file = File::create_new(&target).map_err(taken)?;
        let copied = copy(&mut entry, &mut file, &stopped).map_err(unreadable)?;
        if copied != size {
            return Err(match stopped() {
                true => EngineError::Cancelled,
                false => bad(format!("ends within {shown:?}")),
            });
        }
    }
    manifest.ok_or_else(|| bad(format!("has no {MANIFEST}")))
}

fn copy(from: &mut impl Read, to: &mut File, stopped: &impl Fn() -> bool) -> io::Result<u64> {
    let mut buffer = vec![0; 256 << 10];
    let mut copied = 0;
    loop {
        let length = from.read(&mut buffer)?;
        if length == 0 || stopped() {
            return Ok(copied);
        }
        to.write_all(&buffer[..length])?;
        copied += length as u64;
    }
}

/// The path of a file below `data/`, if it is as Lance names its files.
fn below_data(path: &Path) -> Option<PathBuf> {
    let below = path.strip_prefix(DATA).ok()?;
    let mut depth = 0;
    for component in below.components() {
        let Component::Normal(name) = component else {
            return None;
        };
        depth += 1;
        if !is_plain(name.to_str()?) {
            return None;
        }
    }
    (1..=MAX_DEPTH).contains(&depth).then(|| below.to_owned())
}

/// True if a file of a table may have this name.
pub(crate) fn is_plain(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=128).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain)
}
