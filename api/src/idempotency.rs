//! `Idempotency-Key`: a repeated request gives the answer of the first one.
//!
//! The key lives on the object that it created, as a label to find it and as annotations to compare. The guarantee lasts
//! as long as the object.

use crate::problem::{Problem, kind};
use graphplane_crds::annotations;
use http::{HeaderMap, HeaderName};
use kube::Resource;
use kube::ResourceExt;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The header.
pub(crate) static HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Label with the hash of tenant, kind and key; a key itself may not be a label's value.
const LABEL: &str = "graphplane.dev/idempotency";
const LONGEST: usize = 255;

/// A request that carries a key.
#[derive(Clone, Debug)]
pub(crate) struct Idempotency {
    key: String,
    /// Hash of the request's content.
    fingerprint: String,
    /// Value of [`LABEL`].
    label: String,
}

impl Idempotency {
    /// The key of a request, if it carries one.
    pub(crate) fn of<K: Resource<DynamicType = ()>>(
        headers: &HeaderMap,
        namespace: &str,
        path: &str,
        body: &Value,
    ) -> Result<Option<Self>, Problem> {
        let Some(value) = headers.get(&HEADER) else {
            return Ok(None);
        };
        let key = value.to_str().unwrap_or_default().trim();
        if key.is_empty() || key.len() > LONGEST {
            let detail = format!("expected 1 to {LONGEST} printable ASCII characters");
            return Err(Problem::parameter(
                "Idempotency-Key",
                detail,
                &String::from_utf8_lossy(value.as_bytes()),
            ));
        }
        let fingerprint = hash(&[path, &canonical(body)]);
        let label = hash(&[namespace, &K::kind(&()), key])[..40].to_owned();
        Ok(Some(Self {
            key: key.to_owned(),
            fingerprint,
            label,
        }))
    }

    /// Marks an object as made by this request.
    pub(crate) fn mark(&self, labels: &mut BTreeMap<String, String>, notes: &mut BTreeMap<String, String>) {
        labels.insert(LABEL.to_owned(), self.label.clone());
        notes.insert(annotations::IDEMPOTENCY_KEY.to_owned(), self.key.clone());
        notes.insert(annotations::REQUEST_HASH.to_owned(), self.fingerprint.clone());
    }

    /// Selects the objects made with this key.
    pub(crate) fn selector(&self) -> String {
        format!("{LABEL}={}", self.label)
    }

    /// Whether an object was made by this very request; an error if by another one with the same key.
    pub(crate) fn made<K: ResourceExt>(&self, object: &K) -> Result<bool, Problem> {
        let notes = object.annotations();
        if notes.get(annotations::IDEMPOTENCY_KEY) != Some(&self.key) {
            return Ok(false);
        }
        if notes.get(annotations::REQUEST_HASH) == Some(&self.fingerprint) {
            return Ok(true);
        }
        Err(self.mismatch())
    }

    /// 409: the key belongs to another request.
    pub(crate) fn mismatch(&self) -> Problem {
        let detail = format!(
            "idempotency key `{}` was used with another path or body; use a new key for a new request",
            crate::problem::clip(&self.key)
        );
        Problem::new(&kind::IDEMPOTENCY_MISMATCH, detail)
    }

    /// Which of [`Locks`] orders requests with this key.
    fn stripe(&self) -> usize {
        usize::from(self.label.as_bytes()[0]) * 31 + usize::from(self.label.as_bytes()[1])
    }
}

/// Orders requests with the same key within this server.
pub(crate) struct Locks(Vec<tokio::sync::Mutex<()>>);

impl Default for Locks {
    fn default() -> Self {
        Self((0..64).map(|_| tokio::sync::Mutex::new(())).collect())
    }
}

impl Locks {
    /// Waits for others with the same key.
    pub(crate) async fn lock(&self, idempotency: &Idempotency) -> tokio::sync::MutexGuard<'_, ()> {
        self.0[idempotency.stripe() % self.0.len()].lock().await
    }
}

fn hash(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        // With the length before each part no two lists of parts give the same bytes.
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hex::encode(hasher.finalize())
}

/// JSON text in which members are sorted, so that their order and the white space do not matter.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            let members: Vec<_> = sorted
                .iter()
                .map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), canonical(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use graphplane_crds::{Backup, Graph};
    use serde_json::json;

    fn of(key: &str, namespace: &str, body: &str) -> Result<Option<Idempotency>, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(&HEADER, key.parse().unwrap());
        Idempotency::of::<Graph>(&headers, namespace, "/v1/graphs", &serde_json::from_str(body).unwrap())
    }

    #[test]
    fn the_order_of_members_does_not_matter_but_the_content_does() {
        let one = of("k", "a", r#"{"a": 1, "b": [1, {"x": 2, "y": 3}]}"#)
            .unwrap()
            .unwrap();
        let same = of("k", "a", r#"{"b":[1,{"y":3,"x":2}],"a":1}"#).unwrap().unwrap();
        let other = of("k", "a", r#"{"b":[{"y":3,"x":2},1],"a":1}"#).unwrap().unwrap();
        assert_eq!(one.fingerprint, same.fingerprint);
        assert_ne!(one.fingerprint, other.fingerprint);
        assert_eq!(one.label, other.label);
    }

    #[test]
    fn keys_of_tenants_and_kinds_do_not_meet() {
        let mut headers = HeaderMap::new();
        headers.insert(&HEADER, "k".parse().unwrap());
        let label = |namespace| of("k", namespace, "{}").unwrap().unwrap().label;
        assert_ne!(label("a"), label("b"));
        let backup = Idempotency::of::<Backup>(&headers, "a", "/v1/graphs", &json!({}))
            .unwrap()
            .unwrap();
        assert_ne!(label("a"), backup.label);
    }

    #[test]
    fn a_key_of_another_request_is_refused() {
        let one = of("k", "a", r#"{"a": 1}"#).unwrap().unwrap();
        let other = of("k", "a", r#"{"a": 2}"#).unwrap().unwrap();
        let mut graph: Graph = serde_json::from_value(json!({
            "apiVersion": "graphplane.dev/v1alpha1", "kind": "Graph", "metadata": {"name": "g"}, "spec": {"tier": "t"},
        }))
        .unwrap();
        assert!(!one.made(&graph).unwrap());
        let mut labels = BTreeMap::new();
        one.mark(&mut labels, graph.annotations_mut());
        assert!(one.made(&graph).unwrap());
        assert_eq!(other.made(&graph).unwrap_err().kind().slug, "idempotency-mismatch");
        assert!(labels.values().all(|value| value.len() <= 63));
    }

    #[test]
    fn empty_and_endless_keys_are_refused() {
        assert!(of(" ", "a", "{}").is_err());
        assert!(of(&"k".repeat(256), "a", "{}").is_err());
    }
}
