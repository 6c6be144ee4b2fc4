//! The Secret of a node: what its agent proves itself with, and what callers of the agent present.
//!
//! | key | meaning | written by |
//! |---|---|---|
//! | `bootstrapTokenSha256` | hash of the one-time token | operator; removed here when it is used |
//! | `credentialSha256` | hash of the long-lived token | here, at the first registration |
//! | `apiKey` | key that callers of the agent present | operator, or here if it is missing |

use crate::auth::key::{Hash, generate};
use graphplane_core::names::{
    API_KEY, BOOTSTRAP_TOKEN_SHA256 as BOOTSTRAP, CREDENTIAL_SHA256 as CREDENTIAL, node_of_object,
};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

/// The node that a Secret belongs to, if it is one of a node.
pub(crate) fn node_of(secret: &Secret) -> Option<String> {
    node_of_object(secret.metadata.name.as_deref()?).map(str::to_owned)
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// The one-time token.
    Bootstrap,
    /// The long-lived token.
    Credential,
}

/// What `token` is for the node of a Secret; `None` if it is nothing.
pub(crate) fn recognize(secret: &Secret, token: &str) -> Option<Token> {
    let hash = Hash::of(token);
    let matches = |name: &str| {
        let stored = secret
            .data
            .as_ref()
            .and_then(|data| data.get(name))
            .and_then(|bytes| Hash::from_hex(&bytes.0));
        stored.is_some_and(|stored| stored.matches(&hash))
    };
    // Both are compared in any case, so that the time tells nothing.
    match (matches(CREDENTIAL), matches(BOOTSTRAP)) {
        (true, _) => Some(Token::Credential),
        (false, true) => Some(Token::Bootstrap),
        (false, false) => None,
    }
}

/// Key that callers of the agent present.
pub(crate) fn api_key(secret: &Secret) -> Option<String> {
    let bytes = secret.data.as_ref()?.get(API_KEY)?;
    String::from_utf8(bytes.0.clone())
        .ok()
        .map(|key| key.trim().to_owned())
        .filter(|key| !key.is_empty())
}

/// The Secret after the one-time token was exchanged for a credential; also gives the credential.
pub(crate) fn exchange(secret: &Secret) -> (Secret, String) {
    let mut secret = secret.clone();
    let credential = generate("gpn");
    let data = secret.data.get_or_insert_default();
    data.remove(BOOTSTRAP);
    data.insert(
        CREDENTIAL.to_owned(),
        ByteString(Hash::of(&credential).to_hex().into_bytes()),
    );
    with_api_key(&mut secret);
    (secret, credential)
}

/// Gives the Secret a key for callers if it has none; true if it had none.
pub(crate) fn with_api_key(secret: &mut Secret) -> bool {
    if api_key(secret).is_some() {
        return false;
    }
    let key = generate("gpa");
    secret
        .data
        .get_or_insert_default()
        .insert(API_KEY.to_owned(), ByteString(key.into_bytes()));
    true
}

/// The Secret as it was before an exchange, in its present version: the one-time token is good again.
pub(crate) fn restore(before: &Secret, after: &Secret) -> Secret {
    let mut secret = before.clone();
    secret.metadata.resource_version = after.resource_version();
    secret
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fresh(token: &str) -> Secret {
        let mut secret = Secret::default();
        secret.metadata.name = Some("node-n1".into());
        secret.metadata.resource_version = Some("7".into());
        let hash = ByteString(Hash::of(token).to_hex().into_bytes());
        secret.data = Some([(BOOTSTRAP.to_owned(), hash)].into());
        secret
    }

    #[test]
    fn a_token_is_good_once() {
        let before = fresh("once");
        assert_eq!(node_of(&before).as_deref(), Some("n1"));
        assert_eq!(recognize(&before, "once"), Some(Token::Bootstrap));
        assert_eq!(recognize(&before, "other"), None);
        assert_eq!(recognize(&before, ""), None);
        let (after, credential) = exchange(&before);
        assert_eq!(recognize(&after, "once"), None);
        assert_eq!(recognize(&after, &credential), Some(Token::Credential));
        assert!(api_key(&after).is_some());
        // The version goes with it, so that of two exchanges only one is stored.
        assert_eq!(after.metadata.resource_version.as_deref(), Some("7"));
    }

    #[test]
    fn an_existing_key_of_callers_stays() {
        let mut secret = fresh("once");
        secret
            .data
            .as_mut()
            .unwrap()
            .insert(API_KEY.into(), ByteString(b"k".to_vec()));
        assert_eq!(api_key(&exchange(&secret).0).as_deref(), Some("k"));
    }

    #[test]
    fn a_restored_secret_takes_the_token_again() {
        let before = fresh("once");
        let (mut after, credential) = exchange(&before);
        after.metadata.resource_version = Some("8".into());
        let restored = restore(&before, &after);
        assert_eq!(recognize(&restored, "once"), Some(Token::Bootstrap));
        assert_eq!(recognize(&restored, &credential), None);
        assert_eq!(restored.metadata.resource_version.as_deref(), Some("8"));
    }

    #[test]
    fn stored_hashes_that_are_broken_match_nothing() {
        let mut secret = fresh("once");
        secret.data = Some([(CREDENTIAL.to_owned(), ByteString(Vec::new()))].into());
        assert_eq!(recognize(&secret, ""), None);
    }
}
