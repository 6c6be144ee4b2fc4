//! The key of the REST API: made once per data directory.

use crate::data_dir::DataDir;
use crate::failure::Failure;
use crate::files;

/// The key of a data directory; made at the first start and then kept, so that scripts may hold it.
///
/// # Errors
/// The file cannot be written, or is there and cannot be read.
pub(super) fn ensure(dir: &DataDir) -> Result<String, Failure> {
    if dir.api_key().exists() {
        return dir.read_api_key();
    }
    // 256 bits from the operating system's generator: the key need not be slow to check, only impossible to guess.
    let key = format!("gp_{}", hex::encode(rand::random::<[u8; 32]>()));
    files::write_private(&dir.api_key(), &format!("{key}\n"))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_key_is_made_once_and_differs_between_directories() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let dir = DataDir::at(one.path());
        let key = ensure(&dir).unwrap();
        assert_eq!(ensure(&dir).unwrap(), key);
        assert_eq!(key.len(), 3 + 64);
        assert_ne!(ensure(&DataDir::at(other.path())).unwrap(), key);
    }
}
