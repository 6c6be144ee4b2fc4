//! Keys and tokens: made at random, stored as hashes, compared in constant time.

use super::Role;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// SHA-256 of a secret text.
///
/// The texts are random and of 256 bits, so that a slow hash would protect nothing.
#[derive(Clone, Copy)]
pub(crate) struct Hash([u8; 32]);

impl Hash {
    /// The hash of a text.
    pub(crate) fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// A hash from its hex digits, as they stand in Secrets.
    pub(crate) fn from_hex(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.trim_ascii(), &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// The hex digits.
    pub(crate) fn to_hex(self) -> String {
        hex::encode(self.0)
    }

    /// The first digits: enough to find the few candidates for a comparison. A caller cannot choose the hash of a text,
    /// so that how long the search takes tells nothing.
    pub(crate) fn prefix(self) -> String {
        hex::encode(&self.0[..8])
    }

    /// Whether two hashes are equal, in a time that does not depend on where they differ.
    pub(crate) fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// A new secret text with 256 random bits.
pub(crate) fn generate(prefix: &str) -> String {
    let mut bytes = [0u8; 32];
    rand::fill(&mut bytes);
    format!("{prefix}_{}", hex::encode(bytes))
}

/// A key that is valid without a Secret, such as the one that `graphplane up` makes.
#[derive(Clone)]
pub struct BootstrapKey {
    pub(crate) name: String,
    pub(crate) hash: Hash,
    pub(crate) role: Role,
    pub(crate) namespace: String,
}

impl BootstrapKey {
    /// A key of role admin, whose own tenant is `namespace`. Only its hash is kept.
    pub fn admin(name: impl Into<String>, key: &str, namespace: impl Into<String>) -> Self {
        Self::new(name, key, Role::Admin, namespace)
    }

    /// A key of any role. Only its hash is kept.
    pub fn new(name: impl Into<String>, key: &str, role: Role, namespace: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            hash: Hash::of(key.trim()),
            role,
            namespace: namespace.into(),
        }
    }
}

impl std::fmt::Debug for BootstrapKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            name, role, namespace, ..
        } = self;
        f.debug_struct("BootstrapKey")
            .field("name", name)
            .field("role", role)
            .field("namespace", namespace)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_hash_goes_through_hex() {
        let hash = Hash::of("abc");
        assert_eq!(
            hash.to_hex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(
            Hash::from_hex(format!("{}\n", hash.to_hex()).as_bytes())
                .unwrap()
                .matches(&hash)
        );
        assert!(!Hash::of("abd").matches(&hash));
        assert!(Hash::from_hex(b"abc").is_none());
    }

    #[test]
    fn secrets_do_not_repeat_and_do_not_show() {
        let (one, other) = (generate("gp"), generate("gp"));
        assert_ne!(one, other);
        assert_eq!(one.len(), 3 + 64);
        assert!(!format!("{:?}", BootstrapKey::admin("up", &one, "default")).contains(&Hash::of(&one).to_hex()));
    }
}
