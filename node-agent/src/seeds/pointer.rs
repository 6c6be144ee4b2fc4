//! Which seed is the present one.

use crate::{backup::Manifest, engines::DatabaseId};
use object_store::path::Path as ObjectPath;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// The order of the seeds of a graph: by the epoch of the writer that made them, then by their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeedVersion {
    /// Epoch of the writer.
    pub epoch: u64,
    /// Number within the epoch; 0 for a backup that was not made to be a seed.
    pub version: u64,
}

impl SeedVersion {
    /// That of a manifest.
    pub fn of(manifest: &Manifest) -> Self {
        Self {
            epoch: manifest.epoch,
            version: manifest.version.unwrap_or_default(),
        }
    }

    /// Where the seed of this version lies.
    pub fn below(self, prefix: &ObjectPath) -> ObjectPath {
        prefix
            .clone()
            .join(self.epoch.to_string())
            .join(self.version.to_string())
    }
}

impl fmt::Display for SeedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "version {} of epoch {}", self.version, self.epoch)
    }
}

/// The object `<prefix>/latest.json`. It says nothing about where the prefix is, so a store may be copied elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// Version of this document.
    pub format: u32,
    /// Whose seed it is.
    pub graph_id: String,
    /// Which seed.
    #[serde(flatten)]
    pub at: SeedVersion,
    /// SHA-256 of its manifest, in hexadecimal.
    pub manifest_sha256: String,
    /// When the seed was begun (RFC 3339, UTC).
    pub created_at: String,
}

impl Pointer {
    /// The version that this agent writes.
    pub const FORMAT: u32 = 1;

    /// The pointer of this prefix.
    pub fn key(prefix: &ObjectPath) -> ObjectPath {
        prefix.clone().join("latest.json")
    }

    /// To this seed.
    pub fn to(manifest: &Manifest) -> Self {
        Self {
            format: Self::FORMAT,
            graph_id: manifest.graph_id.clone(),
            at: SeedVersion::of(manifest),
            manifest_sha256: digest(&manifest.to_bytes()),
            created_at: manifest.created_at.clone(),
        }
    }

    /// As JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        // A document of texts and numbers can always be encoded.
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// From JSON that somebody may have tampered with.
    ///
    /// # Errors
    /// When it is not a pointer of this version; in words.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let pointer: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if pointer.format != Self::FORMAT {
            return Err(format!(
                "it has format {}, and this agent reads {}",
                pointer.format,
                Self::FORMAT
            ));
        }
        DatabaseId::parse(&pointer.graph_id).map_err(|error| error.to_string())?;
        Ok(pointer)
    }
}

/// SHA-256 in hexadecimal.
pub(super) fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_later_epoch_is_newer_whatever_its_number() {
        let at = |epoch, version| SeedVersion { epoch, version };
        assert!(at(2, 1) > at(1, 9) && at(1, 10) > at(1, 9));
        let prefix = ObjectPath::from("seeds/kg1");
        assert_eq!(at(2, 17).below(&prefix).as_ref(), "seeds/kg1/2/17");
    }

    #[test]
    fn only_a_pointer_is_one() {
        let pointer = Pointer {
            format: Pointer::FORMAT,
            graph_id: "kg1".into(),
            at: SeedVersion { epoch: 1, version: 2 },
            manifest_sha256: digest(b"x"),
            created_at: "2026-01-01T00:00:00.000Z".into(),
        };
        assert_eq!(Pointer::from_bytes(&pointer.to_bytes()).unwrap(), pointer);
        for wrong in [
            Pointer {
                format: 2,
                ..pointer.clone()
            },
            Pointer {
                graph_id: "../kg1".into(),
                ..pointer
            },
        ] {
            Pointer::from_bytes(&wrong.to_bytes()).unwrap_err();
        }
        Pointer::from_bytes(b"{}").unwrap_err();
    }
}
