//! OpenAPI documents of the served kinds: `/openapi/v3` for kubectl explain, apply and diff, and a small `/openapi/v2`
//! for older clients.

mod paths;
mod schemas;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use crate::kinds::{Registry, Resource};

/// The documents of one registry, rendered once; cloning copies pointers.
#[derive(Clone, Debug)]
pub struct Documents {
    inner: Arc<Rendered>,
}

#[derive(Debug)]
struct Rendered {
    /// By path below `/openapi/v3/`.
    v3: BTreeMap<String, Document>,
    v2: Document,
}

/// One rendered JSON document.
#[derive(Clone, Debug)]
pub struct Document {
    /// Upper-case hex SHA-512 of the body: the `hash` query parameter of its address and its `ETag` (in quotes).
    pub hash: String,
    /// The JSON text.
    pub body: Bytes,
}

impl Document {
    fn new(document: &Value) -> Self {
        let body = document.to_string();
        Self {
            hash: hex::encode_upper(Sha512::digest(body.as_bytes())),
            body: Bytes::from(body),
        }
    }
}

impl Documents {
    /// Renders all documents of a registry; tens of milliseconds, so do it when the registry changes, not per request.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let shared = schemas::shared();
        let mut groups: BTreeMap<String, Vec<&Resource>> = BTreeMap::new();
        for resource in registry.resources() {
            let prefix = if resource.group.is_empty() { "api" } else { "apis" };
            groups
                .entry(format!("{prefix}/{}", resource.api_version()))
                .or_default()
                .push(resource);
        }
        let mut definitions = Map::new();
        let mut v3 = BTreeMap::new();
        for (path, resources) in groups {
            let own = schemas::of(&resources);
            let mut all = shared.clone();
            all.extend(own.clone());
            definitions.extend(own);
            let document = json!({
                "openapi": "3.0.0",
                "info": {"title": "Graphplane embedded API server", "version": env!("CARGO_PKG_VERSION")},
                "paths": paths::of(&resources),
                "components": {"schemas": all},
            });
            v3.insert(path, Document::new(&document));
        }
        definitions.extend(shared);
        let v2 = json!({
            "swagger": "2.0",
            "info": {"title": "Graphplane embedded API server", "version": env!("CARGO_PKG_VERSION")},
            "paths": {},
            "definitions": schemas::to_v2(Value::Object(definitions)),
        });
        Self {
            inner: Arc::new(Rendered {
                v3,
                v2: Document::new(&v2),
            }),
        }
    }

    /// `GET /openapi/v3`: paths of the documents with their hash-addressed URLs.
    #[must_use]
    pub fn index(&self) -> Value {
        let paths: Map<String, Value> = self
            .inner
            .v3
            .iter()
            .map(|(path, document)| {
                let url = format!("/openapi/v3/{path}?hash={}", document.hash);
                (path.clone(), json!({"serverRelativeURL": url}))
            })
            .collect();
        json!({ "paths": paths })
    }

    /// `GET /openapi/v3/{path}`, where `path` is `api/v1` or `apis/{group}/{version}`. `None` is a 404. With a
    /// `?hash=` equal to [`Document::hash`] the answer may be cached for ever; with another one redirect to the right one.
    #[must_use]
    pub fn v3(&self, path: &str) -> Option<Document> {
        self.inner.v3.get(path).cloned()
    }

    /// `GET /openapi/v2` as JSON.
    #[must_use]
    pub fn v2(&self) -> Document {
        self.inner.v2.clone()
    }
}

#[cfg(test)]
mod tests;
