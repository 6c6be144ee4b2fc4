//! The version of LadybugDB's file format, read from the header of a data file before the engine sees the file.
//!
//! The engine finds out itself that it cannot read a file, but by then its log may have been taken for the fault and be cut.
//! And its text names two numbers only, not what to do.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use super::super::error::EngineError;
use super::super::names::DatabaseId;

/// How a data file begins; the version follows in eight bytes, the least one first.
const MAGIC: &[u8; 4] = b"LBUG";
/// The oldest version that lbug 0.22.1 reads (`StorageVersionInfo::canReadStorageVersion`); it reads all up to its own.
const OLDEST: u64 = 40;

/// The version of a data file. `None` if it has no header, like one that was never checkpointed: the engine says what
/// such a file is.
pub(crate) fn storage_version(file: &Path) -> Result<Option<u64>, EngineError> {
    let mut header = [0; 12];
    match File::open(file).and_then(|mut file| file.read_exact(&mut header)) {
        Ok(()) => Ok(version_of(&header)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) => Ok(None),
        Err(error) => Err(EngineError::io("read", file, error)),
    }
}

/// Refuses a file that this engine cannot read.
pub(crate) fn check_storage_version(id: &DatabaseId, file: &Path) -> Result<(), EngineError> {
    match storage_version(file)? {
        Some(found) if !is_readable(found) => Err(EngineError::StorageVersion {
            engine: lbug::VERSION,
            id: id.clone(),
            found,
            oldest: OLDEST,
            newest: lbug::get_storage_version(),
        }),
        _ => Ok(()),
    }
}

/// Whether this engine reads files of a version.
fn is_readable(version: u64) -> bool {
    (OLDEST..=lbug::get_storage_version()).contains(&version)
}

fn version_of(header: &[u8; 12]) -> Option<u64> {
    let (magic, version) = header.split_first_chunk::<4>()?;
    let version: [u8; 8] = version.try_into().ok()?;
    (magic == MAGIC).then_some(u64::from_le_bytes(version))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_header_says_the_version() {
        assert_eq!(version_of(b"LBUG\x31\0\0\0\0\0\0\0"), Some(49));
        assert_eq!(version_of(b"LBUG\x00\x01\0\0\0\0\0\0"), Some(256));
        assert_eq!(version_of(b"KUZU\x27\0\0\0\0\0\0\0"), None);
        assert_eq!(version_of(&[0; 12]), None);
    }

    #[test]
    fn files_of_other_versions_are_refused_with_both_versions() {
        let directory = tempfile::tempdir().unwrap();
        let (file, id) = (directory.path().join("kg1.lbug"), DatabaseId::parse("kg1").unwrap());
        assert_eq!(storage_version(&file).unwrap(), None);
        check_storage_version(&id, &file).unwrap();
        let own = lbug::get_storage_version();
        for (version, readable) in [(OLDEST - 1, false), (OLDEST, true), (own, true), (own + 1, false)] {
            let mut content = b"LBUG".to_vec();
            content.extend(version.to_le_bytes());
            std::fs::write(&file, content).unwrap();
            let checked = check_storage_version(&id, &file);
            assert_eq!(checked.is_ok(), readable, "{version}");
            if let Err(error) = checked {
                let text = error.to_string();
                assert!(
                    text.contains(&version.to_string()) && text.contains(&own.to_string()),
                    "{text}"
                );
            }
        }
        std::fs::write(&file, b"LBUG").unwrap();
        assert_eq!(storage_version(&file).unwrap(), None);
    }
}
