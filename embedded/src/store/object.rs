//! One immutable version of one object, and the draft it is made from.
//!
//! Objects are kept as the bytes that a client receives. Lists and watches then copy bytes instead of walking trees,
//! and memory per object stays close to its JSON. What the server itself asks about an object often (labels, owners,
//! finalizers) is kept beside the bytes as [`Facts`].

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::StoreError;

/// Where an object lives: the storage name of its resource (`plural` or `plural.group`), its namespace (empty for
/// cluster-scoped resources) and its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) resource: Arc<str>,
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
}

impl Key {
    pub(crate) fn new(resource: &Arc<str>, namespace: &str, name: &str) -> Self {
        Self {
            resource: resource.clone(),
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

/// One entry of `metadata.ownerReferences`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Owner {
    #[serde(default)]
    pub(crate) api_version: String,
    #[serde(default)]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) uid: String,
    #[serde(default)]
    pub(crate) block_owner_deletion: Option<bool>,
}

/// What the server needs to know about an object without parsing it again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) api_version: Box<str>,
    pub(crate) uid: Box<str>,
    /// Sorted by key.
    pub(crate) labels: Box<[(Box<str>, Box<str>)]>,
    pub(crate) owners: Box<[Owner]>,
    pub(crate) finalizers: Box<[String]>,
    /// `metadata.deletionTimestamp` is set.
    pub(crate) deleting: bool,
}

impl Facts {
    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.labels
            .binary_search_by(|(k, _)| (**k).cmp(key))
            .ok()
            .map(|i| &*self.labels[i].1)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    metadata: HeadMetadata,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct HeadMetadata {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    labels: Option<std::collections::BTreeMap<String, String>>,
    #[serde(default)]
    owner_references: Option<Vec<Owner>>,
    #[serde(default)]
    finalizers: Option<Vec<String>>,
    #[serde(default)]
    deletion_timestamp: Option<String>,
}

impl From<Head> for Facts {
    fn from(head: Head) -> Self {
        let m = head.metadata;
        Self {
            api_version: head.api_version.into(),
            uid: m.uid.into(),
            labels: m
                .labels
                .unwrap_or_default()
                .into_iter()
                .map(|(k, v)| (k.into(), v.into()))
                .collect(),
            owners: m.owner_references.unwrap_or_default().into(),
            finalizers: m.finalizers.unwrap_or_default().into(),
            deleting: m.deletion_timestamp.is_some(),
        }
    }
}

/// One version of an object, as stored.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) key: Key,
    /// The store's revision at which this version was written; its `metadata.resourceVersion`.
    pub(crate) revision: u64,
    /// The object as JSON, with `metadata.resourceVersion`.
    pub(crate) json: Bytes,
    pub(crate) facts: Facts,
}

impl Object {
    /// Reads back what [`Draft::seal`] wrote.
    pub(crate) fn from_disk(key: Key, revision: u64, json: &[u8]) -> Result<Self, StoreError> {
        let head: Head = serde_json::from_slice(json).map_err(|e| StoreError::Corrupt {
            what: format!("{} {}/{}", key.resource, key.namespace, key.name),
            detail: e.to_string(),
        })?;
        Ok(Self {
            key,
            revision,
            json: Bytes::copy_from_slice(json),
            facts: head.into(),
        })
    }

    /// The object as a tree. Stored bytes were serialised by us, so that this cannot fail; `Null` would show a bug
    /// without taking the server down.
    pub(crate) fn value(&self) -> Value {
        serde_json::from_slice(&self.json).unwrap_or_default()
    }
}

/// An object that waits for its revision: serialised up to the place of `metadata.resourceVersion`, so that the one
/// writer thread only has to put the number in.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    json: Vec<u8>,
    /// Where the number goes.
    at: usize,
    facts: Facts,
}

/// Stands for the resource version until it is known. Random per process: no client can have put it into an object.
static PLACEHOLDER: LazyLock<String> = LazyLock::new(|| format!("rv-{}", uuid::Uuid::new_v4().simple()));

impl Draft {
    /// Prepares `value` for storage. `metadata.resourceVersion`, if there is one, is replaced.
    pub(crate) fn new(mut value: Value) -> Result<Self, StoreError> {
        let invalid = |detail: &str| StoreError::NotAnObject {
            detail: detail.to_string(),
        };
        let metadata = value
            .get_mut("metadata")
            .and_then(Value::as_object_mut)
            .ok_or_else(|| invalid("metadata is not an object"))?;
        metadata.insert("resourceVersion".into(), Value::String(PLACEHOLDER.clone()));
        let facts = Head::deserialize(&value).map_err(|e| invalid(&e.to_string()))?.into();
        let mut json = serde_json::to_vec(&value).map_err(|e| invalid(&e.to_string()))?;
        let needle = PLACEHOLDER.as_bytes();
        let at = json
            .windows(needle.len())
            .position(|window| window == needle)
            .ok_or_else(|| invalid("metadata.resourceVersion is missing"))?;
        json.drain(at..at + needle.len());
        Ok(Self { json, at, facts })
    }

    /// The finished object.
    pub(crate) fn seal(self, key: Key, revision: u64) -> Object {
        let number = revision.to_string();
        let mut json = Vec::with_capacity(self.json.len() + number.len());
        json.extend_from_slice(&self.json[..self.at]);
        json.extend_from_slice(number.as_bytes());
        json.extend_from_slice(&self.json[self.at..]);
        Object {
            key,
            revision,
            json: json.into(),
            facts: self.facts,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn seals_the_revision_into_metadata_and_nowhere_else() {
        let resource: Arc<str> = "graphs.graphplane.dev".into();
        let draft = Draft::new(json!({
            "apiVersion": "graphplane.dev/v1alpha1", "kind": "Graph",
            "data": {"resourceVersion": "", "metadata": {"resourceVersion": "7"}},
            "metadata": {"name": "a", "uid": "u1", "labels": {"b": "2", "a": "1"}, "finalizers": ["x"],
                "resourceVersion": "3", "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "n", "uid": "o"}]},
        }))
        .unwrap();
        let object = draft.seal(Key::new(&resource, "ns", "a"), 42);
        let value = object.value();
        assert_eq!(value["metadata"]["resourceVersion"], "42");
        assert_eq!(value["data"]["metadata"]["resourceVersion"], "7");
        assert_eq!(object.facts.label("a"), Some("1"));
        assert_eq!(object.facts.label("c"), None);
        assert_eq!(&*object.facts.owners[0].uid, "o");
        assert!(!object.facts.deleting);
        let again = Object::from_disk(object.key.clone(), 42, &object.json).unwrap();
        assert_eq!(again.facts, object.facts);
    }

    #[test]
    fn refuses_what_is_no_object() {
        assert!(Draft::new(json!({"kind": "x"})).is_err());
        assert!(Draft::new(json!({"metadata": {"labels": {"a": 1}}})).is_err());
    }
}
