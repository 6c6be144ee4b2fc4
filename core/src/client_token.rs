//! Tokens that make a repeated create recognisable.
//!
//! A create that may have happened before a crash is repeated with the same token; whoever receives it (EC2, or the
//! local provider) answers with what exists instead of making a second one.

use sha2::{Digest, Sha256};

/// The token of the `ordinal`-th creation (an epoch, or a number) of what `uid` stands for, in cluster `cluster_id`:
/// 64 hex digits, the most that EC2 takes.
///
/// Two creations have the same token only when all three agree: the parts are hashed with their lengths.
pub fn client_token(cluster_id: &str, uid: &str, ordinal: u64) -> String {
    let mut hash = Sha256::new();
    for part in [cluster_id.as_bytes(), uid.as_bytes(), &ordinal.to_be_bytes()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn same_parts_same_token_and_only_then(
            a in ("[a-z]{0,3}", "[a-z]{0,3}", 0u64..4),
            b in ("[a-z]{0,3}", "[a-z]{0,3}", 0u64..4),
        ) {
            let token = |(cluster, uid, n): &(String, String, u64)| client_token(cluster, uid, *n);
            prop_assert_eq!(token(&a) == token(&b), a == b);
            prop_assert_eq!(token(&a).len(), 64);
        }
    }
}
