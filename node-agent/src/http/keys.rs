//! The keys of callers. Only their hashes are kept: what is in memory, in a core dump or in a log opens nothing.

use sha2::{Digest, Sha256};
use std::{fmt, io, path::Path};
use subtle::ConstantTimeEq;

/// A key, as its SHA-256.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

/// Which key a caller presented, for logs and limits: the first digits of its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(Option<u32>);

impl KeyId {
    /// The caller of an agent that needs no key.
    pub const NONE: Self = Self(None);
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(prefix) => write!(f, "{prefix:08x}"),
            None => f.write_str("none"),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id())
    }
}

impl Key {
    /// The key of this text.
    pub fn new(text: impl AsRef<[u8]>) -> Self {
        Self(Sha256::digest(text).into())
    }

    /// Its name.
    pub fn id(&self) -> KeyId {
        let [a, b, c, d, ..] = self.0;
        KeyId(Some(u32::from_be_bytes([a, b, c, d])))
    }

    /// Which of `keys` was presented. All are compared, each in constant time.
    pub(super) fn find(keys: &[Self], presented: &[u8]) -> Option<KeyId> {
        let presented = Self::new(presented);
        keys.iter().fold(None, |found, key| {
            let same: bool = key.0.ct_eq(&presented.0).into();
            if same { Some(key.id()) } else { found }
        })
    }
}

/// Reads a file of keys: one in a line; empty lines and lines that begin with `#` are left out.
///
/// # Errors
/// The file cannot be read, or holds no key.
pub fn read_keys(path: &Path) -> io::Result<Vec<Key>> {
    let text = std::fs::read_to_string(path)?;
    let lines = text.lines().map(str::trim);
    let keys: Vec<Key> = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(Key::new)
        .collect();
    if keys.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "there is no key in it"));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_is_found_by_its_text_and_named_by_its_hash() {
        let keys = [Key::new("old"), Key::new("new")];
        assert_eq!(Key::find(&keys, b"old"), Some(keys[0].id()));
        assert_eq!(Key::find(&keys, b"new"), Some(keys[1].id()));
        for wrong in ["", "ol", "oldd", "NEW"] {
            assert_eq!(Key::find(&keys, wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(Key::new("abc").id().to_string(), "ba7816bf");
        assert_eq!(KeyId::NONE.to_string(), "none");
        assert!(!format!("{keys:?}").contains("old"));
    }

    #[test]
    fn a_file_has_a_key_in_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        assert!(read_keys(&path).is_err());
        std::fs::write(&path, "# of the gateway\n\n").unwrap();
        assert!(read_keys(&path).is_err());
        std::fs::write(&path, "# of the gateway\none\n  two \r\n").unwrap();
        assert_eq!(read_keys(&path).unwrap(), [Key::new("one"), Key::new("two")]);
    }
}
