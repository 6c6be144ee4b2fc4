//! The keys that are valid now.

use super::key::Hash;
use super::{BootstrapKey, Role};
use crate::cache::Cache;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use std::collections::BTreeMap;

/// Who a key stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) namespace: String,
}

/// Bootstrap keys, and those of the Secrets in the cache.
pub(crate) struct KeyRing {
    bootstrap: Vec<BootstrapKey>,
    secrets: Cache<Secret>,
}

impl KeyRing {
    pub(crate) fn new(bootstrap: Vec<BootstrapKey>, secrets: Cache<Secret>) -> Self {
        Self { bootstrap, secrets }
    }

    /// Who a key stands for; `None` if it is not valid.
    pub(crate) fn identify(&self, key: &str) -> Option<Identity> {
        let hash = Hash::of(key);
        let mut found = None;
        // All bootstrap keys are compared, so that the time does not tell which one is close.
        for known in &self.bootstrap {
            if known.hash.matches(&hash) {
                let BootstrapKey {
                    name, role, namespace, ..
                } = known.clone();
                found = Some(Identity { name, role, namespace });
            }
        }
        found.or_else(|| {
            let candidates = self.secrets.find(&hash.prefix());
            candidates.iter().find_map(|secret| {
                let (known, identity) = read(secret)?;
                known.matches(&hash).then_some(identity)
            })
        })
    }
}

/// What a Secret says of its key; `None` if it is incomplete or being deleted.
fn read(secret: &Secret) -> Option<(Hash, Identity)> {
    if secret.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let data = secret.data.as_ref()?;
    let hash = Hash::from_hex(&data.get("sha256")?.0)?;
    let role = Role::parse(text(data, "role")?)?;
    let namespace = text(data, "namespace")?.to_owned();
    Some((
        hash,
        Identity {
            name: secret.name_any(),
            role,
            namespace,
        },
    ))
}

fn text<'a>(data: &'a BTreeMap<String, ByteString>, name: &str) -> Option<&'a str> {
    std::str::from_utf8(&data.get(name)?.0).ok().map(str::trim)
}

/// Words under which the cache finds the Secret of a key.
pub(crate) fn index_words(secret: &Secret) -> Vec<String> {
    read(secret).into_iter().map(|(hash, _)| hash.prefix()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use kube::runtime::watcher::Event;

    fn secret(name: &str, key: &str, role: &str) -> Secret {
        let data = [
            ("sha256", Hash::of(key).to_hex()),
            ("role", role.into()),
            ("namespace", "team-a".into()),
        ];
        let mut secret = Secret {
            data: Some(
                data.into_iter()
                    .map(|(k, v): (&str, String)| (k.to_owned(), ByteString(v.into_bytes())))
                    .collect(),
            ),
            ..Secret::default()
        };
        secret.metadata.name = Some(name.into());
        secret.metadata.namespace = Some("graphplane-system".into());
        secret
    }

    #[test]
    fn keys_come_and_go_with_their_secrets() {
        let cache = Cache::new(|_| true, index_words);
        let ring = KeyRing::new(vec![BootstrapKey::admin("up", "root-key", "default")], cache.clone());
        assert_eq!(ring.identify("root-key").unwrap().role, Role::Admin);
        assert_eq!(ring.identify("k1"), None);
        cache.apply(Event::Apply(secret("api-key-1", "k1", "editor")));
        let identity = ring.identify("k1").unwrap();
        assert_eq!((identity.role, identity.namespace.as_str()), (Role::Editor, "team-a"));
        assert_eq!(ring.identify("k2"), None);
        cache.apply(Event::Delete(secret("api-key-1", "k1", "editor")));
        assert_eq!(ring.identify("k1"), None);
    }

    #[test]
    fn an_incomplete_secret_admits_nobody() {
        let cache = Cache::new(|_| true, index_words);
        let ring = KeyRing::new(Vec::new(), cache.clone());
        cache.apply(Event::Apply(secret("api-key-1", "k1", "root")));
        assert_eq!(ring.identify("k1"), None);
        let mut empty = secret("api-key-2", "", "admin");
        empty.data.as_mut().unwrap().remove("sha256");
        cache.apply(Event::Apply(empty));
        assert_eq!(ring.identify(""), None);
    }
}
