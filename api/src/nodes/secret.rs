//! The Secret of a node: what its agent proves itself with, and what callers of the agent present.
//!
//! | key | meaning | written by |
//! |---|---|---|
//! | `bootstrapTokenSha256` | hash of the one-time token | operator; removed here when it is used |
//! | `credentialSha256`, `credentialTime` | hash of the long-lived token, and since when it is in use | here, at the first registration and when it is replaced |
//! | `credentialMachine` | the machine that proved to be the node's when it got that token | here; absent where machines prove nothing |
//! | `offeredCredentialSha256`, `offeredCredentialTime` | hash of the token that is to take its place, and since when it is offered | here, with an answer to a renewal |
//! | `apiKey` | key that callers of the agent present | operator, or here if it is missing |
//!
//! A long-lived token is replaced by one that is offered with the answer to a renewal. Both are good until the offered one
//! is used for the first time; from then on only that one is. So an agent that keeps both until then can always come back,
//! whichever answer is lost and wherever it crashes, and an offer that nobody took up is replaced by another one.

use crate::auth::key::{Hash, generate};
use graphplane_core::names::{
    API_KEY, BOOTSTRAP_TOKEN_SHA256 as BOOTSTRAP, CREDENTIAL_MACHINE, CREDENTIAL_SHA256 as CREDENTIAL, CREDENTIAL_TIME,
    OFFERED_SHA256 as OFFERED, OFFERED_TIME, node_of_object,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

/// How long an offer stands before another one may take its place. It keeps an agent that ignores offers from having its
/// Secret written with every renewal.
const OFFER_STANDS: SignedDuration = SignedDuration::from_secs(600);

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
    /// The token that takes its place once it is used.
    Offered,
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
    // All are compared in any case, so that the time tells nothing.
    match (matches(CREDENTIAL), matches(OFFERED), matches(BOOTSTRAP)) {
        (true, _, _) => Some(Token::Credential),
        (_, true, _) => Some(Token::Offered),
        (_, _, true) => Some(Token::Bootstrap),
        (false, false, false) => None,
    }
}

fn text<'a>(secret: &'a Secret, key: &str) -> Option<&'a str> {
    std::str::from_utf8(&secret.data.as_ref()?.get(key)?.0).ok()
}

/// The machine that the long-lived token was given to, as in `status.providerID`.
pub(crate) fn machine(secret: &Secret) -> Option<&str> {
    text(secret, CREDENTIAL_MACHINE)
}

/// Key that callers of the agent present.
pub(crate) fn api_key(secret: &Secret) -> Option<String> {
    let bytes = secret.data.as_ref()?.get(API_KEY)?;
    String::from_utf8(bytes.0.clone())
        .ok()
        .map(|key| key.trim().to_owned())
        .filter(|key| !key.is_empty())
}

/// The Secret after the one-time token was exchanged for a credential, by a machine that proved to be `machine`; also
/// gives the credential.
pub(crate) fn exchange(secret: &Secret, machine: Option<&str>, now: Timestamp) -> (Secret, String) {
    let mut secret = secret.clone();
    let credential = generate("gpn");
    let data = secret.data.get_or_insert_default();
    for key in [BOOTSTRAP, CREDENTIAL_MACHINE, OFFERED, OFFERED_TIME] {
        data.remove(key);
    }
    if let Some(machine) = machine {
        data.insert(CREDENTIAL_MACHINE.to_owned(), bytes(machine));
    }
    data.insert(CREDENTIAL.to_owned(), bytes(Hash::of(&credential).to_hex()));
    data.insert(CREDENTIAL_TIME.to_owned(), bytes(now));
    with_api_key(&mut secret);
    (secret, credential)
}

fn bytes(text: impl std::fmt::Display) -> ByteString {
    ByteString(text.to_string().into_bytes())
}

/// The Secret after a renewal with `presented`, if it changes by that, and the token that is offered with the answer: an
/// offered token is the long-lived one from its first use on, and one that is older than `age` gets a successor.
pub(crate) fn rotate(
    secret: &Secret,
    presented: Token,
    now: Timestamp,
    age: SignedDuration,
) -> Option<(Secret, Option<String>)> {
    match presented {
        Token::Bootstrap => None,
        Token::Offered => Some((promote(secret, now), None)),
        Token::Credential => {
            // What has no time is old, and so is what is of a time far ahead: a clock was wrong.
            let is_old = |key: &str, age: SignedDuration| {
                let time = text(secret, key).and_then(|time| time.parse::<Timestamp>().ok());
                time.is_none_or(|time| now.duration_since(time).abs() >= age)
            };
            (is_old(CREDENTIAL_TIME, age) && is_old(OFFERED_TIME, OFFER_STANDS)).then(|| {
                let (secret, offered) = offer(secret, now);
                (secret, Some(offered))
            })
        }
    }
}

fn offer(secret: &Secret, now: Timestamp) -> (Secret, String) {
    let mut secret = secret.clone();
    let offered = generate("gpn");
    let data = secret.data.get_or_insert_default();
    data.insert(OFFERED.to_owned(), bytes(Hash::of(&offered).to_hex()));
    data.insert(OFFERED_TIME.to_owned(), bytes(now));
    (secret, offered)
}

/// The Secret after the offered token was used for the first time.
pub(crate) fn promote(secret: &Secret, now: Timestamp) -> Secret {
    let mut secret = secret.clone();
    let data = secret.data.get_or_insert_default();
    data.remove(OFFERED_TIME);
    if let Some(hash) = data.remove(OFFERED) {
        data.insert(CREDENTIAL.to_owned(), hash);
        data.insert(CREDENTIAL_TIME.to_owned(), bytes(now));
    }
    secret
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
    use proptest::prelude::*;

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + 60 * minutes).unwrap()
    }

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
        let (after, credential) = exchange(&before, None, at(0));
        assert_eq!(recognize(&after, "once"), None);
        assert_eq!(machine(&after), None);
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
        assert_eq!(api_key(&exchange(&secret, None, at(0)).0).as_deref(), Some("k"));
    }

    #[test]
    fn a_restored_secret_takes_the_token_again() {
        let before = fresh("once");
        let (mut after, credential) = exchange(&before, Some("aws:///z/i-1"), at(0));
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

    #[test]
    fn a_token_is_replaced_when_the_agent_has_the_next_one() {
        let (mut secret, first) = exchange(&fresh("once"), Some("aws:///z/i-1"), at(0));
        assert!(rotate(&secret, Token::Credential, at(24 * 60 - 1), DAY).is_none());
        let (offering, second) = rotate(&secret, Token::Credential, at(24 * 60), DAY).unwrap();
        let second = second.unwrap();
        secret = offering;
        assert_eq!(recognize(&secret, &first), Some(Token::Credential));
        assert_eq!(recognize(&secret, &second), Some(Token::Offered));
        assert!(!format!("{:?}", secret.data).contains(&second));
        // An agent that takes no notice gets another one after a while, and not with every renewal.
        assert!(rotate(&secret, Token::Credential, at(24 * 60 + 9), DAY).is_none());
        let (other, third) = rotate(&secret, Token::Credential, at(24 * 60 + 10), DAY).unwrap();
        assert_eq!(recognize(&other, &second), None);
        assert_eq!(recognize(&other, &third.unwrap()), Some(Token::Offered));

        let (used, none) = rotate(&secret, Token::Offered, at(24 * 60 + 1), DAY).unwrap();
        assert_eq!(none, None);
        assert_eq!(recognize(&used, &first), None);
        assert_eq!(recognize(&used, &second), Some(Token::Credential));
        assert_eq!(machine(&used), Some("aws:///z/i-1"), "it stays bound to its machine");
        assert!(rotate(&used, Token::Credential, at(48 * 60), DAY).is_none());
        assert!(rotate(&used, Token::Credential, at(48 * 60 + 1), DAY).is_some());
    }

    #[test]
    fn a_token_of_an_unknown_or_a_future_time_is_replaced() {
        let (mut secret, _) = exchange(&fresh("once"), None, at(0));
        for time in ["", "soon", "2999-01-01T00:00:00Z"] {
            secret
                .data
                .as_mut()
                .unwrap()
                .insert(CREDENTIAL_TIME.into(), bytes(time));
            assert!(rotate(&secret, Token::Credential, at(1), DAY).is_some(), "{time}");
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// The agent renews; the answer may be lost, and what it has learnt may be lost in a crash.
        Renew {
            arrives: bool,
            stored: bool,
        },
        /// A renewal that the agent sent earlier is served once more, or only now; nobody waits for the answer.
        Late(prop::sample::Index),
        Wait(i64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (any::<bool>(), any::<bool>()).prop_map(|(arrives, stored)| Step::Renew { arrives, stored }),
            1 => any::<prop::sample::Index>().prop_map(Step::Late),
            2 => prop_oneof![0..15i64, 0..3000i64].prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 1..80)
    }

    proptest! {
        /// Whatever is lost: the agent has a token that is good, at most two are, and none of those that were replaced.
        #[test]
        fn an_agent_is_never_locked_out(steps in steps()) {
            let (mut secret, first) = exchange(&fresh("once"), None, at(0));
            let (mut credential, mut next): (String, Option<String>) = (first.clone(), None);
            let (mut sent, mut issued, mut replaced) = (vec![first.clone()], vec![first], Vec::new());
            let mut minutes = 0;
            for step in steps {
                match step {
                    Step::Wait(n) => minutes += n,
                    Step::Late(index) => {
                        let token = index.get(&sent).clone();
                        let rotated = recognize(&secret, &token).and_then(|kind| rotate(&secret, kind, at(minutes), DAY));
                        if let Some((changed, offered)) = rotated {
                            secret = changed;
                            issued.extend(offered);
                        }
                    }
                    Step::Renew { arrives, stored } => {
                        let token = next.clone().unwrap_or_else(|| credential.clone());
                        sent.push(token.clone());
                        let Some(kind) = recognize(&secret, &token) else {
                            prop_assert!(next.take().is_some(), "the token in use is refused");
                            continue;
                        };
                        let rotated = rotate(&secret, kind, at(minutes), DAY);
                        let offered = rotated.and_then(|(changed, offered)| {
                            secret = changed;
                            offered
                        });
                        issued.extend(offered.clone());
                        if arrives && stored {
                            if next.as_ref() == Some(&token) {
                                replaced.push(std::mem::replace(&mut credential, token));
                                next = None;
                            }
                            next = offered.or(next);
                        }
                    }
                }
                let good = |token: &String| recognize(&secret, token).is_some();
                prop_assert!(good(&credential) || next.as_ref().is_some_and(good));
                prop_assert!(issued.iter().filter(|token| good(token)).count() <= 2);
                prop_assert!(!replaced.iter().any(good));
            }
        }
    }
}
