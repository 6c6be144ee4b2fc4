//! Who may call: the holders of a key, as often as its limit allows; and a lock against guessing.

use super::{
    error::ApiError,
    keys::{Key, KeyId},
    rate::RateLimit,
};
use axum::http::{HeaderMap, StatusCode, header};
use parking_lot::{Mutex, RwLock};
use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// Wrong keys of one address before it is locked.
const FAILURES: u32 = 10;
/// How long a lock lasts after the last wrong key.
const LOCK: Duration = Duration::from_secs(300);
/// Addresses that are remembered; beyond that the memory of an attack would be an attack on memory.
const ADDRESSES: usize = 10_000;

/// What a caller must present.
enum Keys {
    /// Nothing: the agent runs alone, on loopback, and nobody set a key.
    Open,
    /// One of the keys that a person chose. Several are valid while one is replaced by the next.
    Chosen(RwLock<Vec<Key>>),
    /// The key of the control plane; absent until the first registration.
    Issued(RwLock<Option<Key>>),
}

/// Checks callers.
pub struct Auth {
    keys: Keys,
    failures: Mutex<HashMap<IpAddr, (u32, Instant)>>,
    limit: Option<RateLimit>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").finish_non_exhaustive()
    }
}

/// Why a caller is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No key, or a wrong one.
    Unauthorized,
    /// Too many wrong keys from this address.
    Locked,
    /// No key exists yet.
    NotReady,
    /// The key has made all requests that it may make for now; the next is possible after this time.
    TooMany(Duration),
}

impl Denied {
    /// Whether the caller sent no key or a wrong one.
    pub(super) fn is_wrong_key(self) -> bool {
        matches!(self, Self::Unauthorized | Self::Locked)
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Unauthorized => Self::new(
                StatusCode::UNAUTHORIZED,
                "Missing or invalid API key; send it as X-Graph-API-Key or as Authorization: Bearer",
            ),
            Denied::Locked => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "Too many failed authentication attempts; try again later",
            )
            .retry_after(LOCK)
            .rejected("locked"),
            Denied::TooMany(pause) => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "Too many requests with this key; slow down",
            )
            .retry_after(pause)
            .rejected("rate"),
            Denied::NotReady => Self::from(crate::registration::lease::Refusal::Registering),
        }
    }
}

impl Auth {
    /// An agent without a control plane; without a key everybody may call.
    pub fn standalone(keys: Vec<Key>) -> Self {
        Self::with(if keys.is_empty() {
            Keys::Open
        } else {
            Keys::Chosen(RwLock::new(keys))
        })
    }

    /// An agent with a control plane; `key` is the one of its last registration.
    pub fn issued(key: Option<&str>) -> Self {
        Self::with(Keys::Issued(RwLock::new(key.map(Key::new))))
    }

    fn with(keys: Keys) -> Self {
        Self {
            keys,
            failures: Mutex::default(),
            limit: None,
        }
    }

    /// The same with a limit for every key.
    #[must_use]
    pub fn limited(self, limit: Option<RateLimit>) -> Self {
        Self { limit, ..self }
    }

    /// Takes the key of a registration.
    pub fn set_issued(&self, key: &str) {
        if let Keys::Issued(issued) = &self.keys {
            *issued.write() = Some(Key::new(key));
        }
    }

    /// Takes the keys that are valid from now on. An agent that began without a key stays open.
    pub fn set_chosen(&self, keys: Vec<Key>) {
        if let Keys::Chosen(chosen) = &self.keys {
            *chosen.write() = keys;
        }
    }

    /// Checks the key of a request, and whether it may make one more.
    ///
    /// # Errors
    /// Why the caller is refused.
    pub fn check(&self, headers: &HeaderMap, peer: IpAddr) -> Result<KeyId, Denied> {
        let key = self.identify(headers, peer)?;
        match &self.limit {
            None => Ok(key),
            Some(limit) => limit.take(key, Instant::now()).map(|()| key).map_err(Denied::TooMany),
        }
    }

    fn identify(&self, headers: &HeaderMap, peer: IpAddr) -> Result<KeyId, Denied> {
        match &self.keys {
            Keys::Open => Ok(KeyId::NONE),
            Keys::Chosen(keys) => {
                if self.failures_of(peer) >= FAILURES {
                    return Err(Denied::Locked);
                }
                if let Some(key) = presented(headers).and_then(|given| Key::find(&keys.read(), given)) {
                    self.forgive(peer);
                    return Ok(key);
                }
                self.fail(peer);
                Err(Denied::Unauthorized)
            }
            Keys::Issued(issued) => {
                let issued = issued.read();
                let Some(key) = &*issued else {
                    return Err(Denied::NotReady);
                };
                // A generated key cannot be guessed, so its holder (gateway and operator share one address with every
                // other program of a laptop) is never locked out; only wrong keys are.
                let one = std::slice::from_ref(key);
                if let Some(key) = presented(headers).and_then(|given| Key::find(one, given)) {
                    return Ok(key);
                }
                let before = self.failures_of(peer);
                self.fail(peer);
                Err(if before >= FAILURES {
                    Denied::Locked
                } else {
                    Denied::Unauthorized
                })
            }
        }
    }

    fn failures_of(&self, peer: IpAddr) -> u32 {
        let failures = self.failures.lock();
        // Nearly always empty: then this is one uncontended lock and no hashing.
        if failures.is_empty() {
            return 0;
        }
        failures
            .get(&peer)
            .map_or(0, |(count, last)| if last.elapsed() < LOCK { *count } else { 0 })
    }

    fn forgive(&self, peer: IpAddr) {
        let mut failures = self.failures.lock();
        if !failures.is_empty() {
            failures.remove(&peer);
        }
    }

    fn fail(&self, peer: IpAddr) {
        let mut failures = self.failures.lock();
        if failures.len() >= ADDRESSES {
            failures.retain(|_, (_, last)| last.elapsed() < LOCK);
        }
        if failures.len() < ADDRESSES || failures.contains_key(&peer) {
            let entry = failures.entry(peer).or_insert((0, Instant::now()));
            // After a quiet while the count starts anew.
            entry.0 = if entry.1.elapsed() < LOCK {
                entry.0.saturating_add(1)
            } else {
                1
            };
            entry.1 = Instant::now();
        }
    }
}

/// The key that a request carries.
fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    headers
        .get("x-graph-api-key")
        .map(|value| value.as_bytes())
        .or_else(|| {
            let value = headers.get(header::AUTHORIZATION)?.as_bytes();
            let (scheme, token) = value.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use axum::http::HeaderValue;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn both_headers_carry_the_key() {
        let auth = Auth::standalone(vec![Key::new("k3y")]);
        assert_eq!(
            auth.check(&headers("x-graph-api-key", "k3y"), PEER),
            Ok(Key::new("k3y").id())
        );
        assert_eq!(
            auth.check(&headers("authorization", "Bearer k3y"), PEER),
            Ok(Key::new("k3y").id())
        );
        assert_eq!(
            auth.check(&headers("authorization", "bearer k3y"), PEER),
            Ok(Key::new("k3y").id())
        );
        for wrong in ["k3", "k3yy", "", "K3Y"] {
            assert_eq!(
                auth.check(&headers("x-graph-api-key", wrong), PEER),
                Err(Denied::Unauthorized),
                "{wrong}"
            );
        }
        assert_eq!(
            auth.check(&headers("authorization", "Basic k3y"), PEER),
            Err(Denied::Unauthorized)
        );
        assert_eq!(Auth::standalone(vec![]).check(&HeaderMap::new(), PEER), Ok(KeyId::NONE));
    }

    #[test]
    fn a_guesser_is_locked_and_others_are_not() {
        let auth = Auth::standalone(vec![Key::new("k3y")]);
        for _ in 0..FAILURES {
            assert_eq!(
                auth.check(&headers("x-graph-api-key", "guess"), PEER),
                Err(Denied::Unauthorized)
            );
        }
        assert_eq!(
            auth.check(&headers("x-graph-api-key", "guess"), PEER),
            Err(Denied::Locked)
        );
        assert_eq!(
            auth.check(&headers("x-graph-api-key", "k3y"), PEER),
            Err(Denied::Locked)
        );
        let other: IpAddr = "10.0.0.1".parse().unwrap();
        assert_eq!(
            auth.check(&headers("x-graph-api-key", "k3y"), other),
            Ok(Key::new("k3y").id())
        );
    }

    #[test]
    fn the_holder_of_an_issued_key_is_never_locked_out() {
        let auth = Auth::issued(None);
        assert_eq!(
            auth.check(&headers("x-graph-api-key", "guess"), PEER),
            Err(Denied::NotReady)
        );
        auth.set_issued("issued");
        for _ in 0..FAILURES {
            assert_eq!(
                auth.check(&headers("x-graph-api-key", "guess"), PEER),
                Err(Denied::Unauthorized)
            );
        }
        assert_eq!(
            auth.check(&headers("x-graph-api-key", "guess"), PEER),
            Err(Denied::Locked)
        );
        assert_eq!(
            auth.check(&headers("x-graph-api-key", "issued"), PEER),
            Ok(Key::new("issued").id())
        );
    }

    #[test]
    fn a_success_forgives_a_typing_mistake() {
        let auth = Auth::standalone(vec![Key::new("k3y")]);
        for _ in 0..3 * FAILURES {
            assert_eq!(
                auth.check(&headers("x-graph-api-key", "typo"), PEER),
                Err(Denied::Unauthorized)
            );
            assert_eq!(
                auth.check(&headers("x-graph-api-key", "k3y"), PEER),
                Ok(Key::new("k3y").id())
            );
        }
    }

    #[test]
    fn keys_change_while_the_agent_runs() {
        let auth = Auth::standalone(vec![Key::new("old"), Key::new("next")]);
        let with = |key: &str| auth.check(&headers("x-graph-api-key", key), PEER);
        assert_eq!(with("old"), Ok(Key::new("old").id()));
        assert_eq!(with("next"), Ok(Key::new("next").id()));
        auth.set_chosen(vec![Key::new("next")]);
        assert_eq!(with("old"), Err(Denied::Unauthorized));
        assert_eq!(with("next"), Ok(Key::new("next").id()));
    }

    #[test]
    fn each_key_has_its_own_limit() {
        let keys = vec![Key::new("one"), Key::new("two")];
        let auth = Auth::standalone(keys).limited(RateLimit::new(1, 2));
        let with = |key: &str| auth.check(&headers("x-graph-api-key", key), PEER);
        for _ in 0..2 {
            with("one").unwrap();
        }
        assert!(matches!(with("one"), Err(Denied::TooMany(_))));
        with("two").unwrap();
        let answer = ApiError::from(Denied::TooMany(Duration::from_millis(1)));
        assert_eq!((answer.status.as_u16(), answer.retry_after.is_some()), (429, true));
    }
}
